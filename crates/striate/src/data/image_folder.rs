//! A directory of images, one folder a class; `train/` and `test/` of those; or a list of images in a CSV file.
//!
//! ```text
//! flowers/rose/1.jpg          one folder a class: a fifth of each class is set aside for testing
//! flowers/tulip/a.png
//!
//! flowers/train/rose/1.jpg    or split beforehand; `val/` (or `valid/`, `validation/`) may be there too,
//! flowers/test/rose/2.jpg     and takes the place of `test/` where there is none
//!
//! flowers.csv                 or a list with the header `path,label` or `path,label,split`, paths relative to it,
//!                             splits `train`, `validation` or `test`
//! ```
//!
//! Files are known to be images by their ending ([`ENDINGS`]) and read by their contents; a class folder may hold
//! further folders. Classes and files are ordered by name, numbers by value (`class2` before `class10`), so the
//! result never depends on the file system. Hidden files and folders are left out.
//!
//! All images get one size: see [`Options::shape`]. Those that can't be read are left out and listed in the
//! [`Report`], unless [`Options::strict`] makes the first of them an error. No link is followed out of the directory,
//! and none to a directory.
//!
//! ```
//! use striate::data::image_folder::{self, Options};
//! use striate::shape::Shape;
//! let directory = tempfile::tempdir()?;
//! for (class, colour) in [("dark", 10), ("light", 250)] {
//!     std::fs::create_dir(directory.path().join(class))?;
//!     for i in 0..10 {
//!         let file = directory.path().join(class).join(format!("{i}.png"));
//!         image::GrayImage::from_pixel(4, 3, image::Luma([colour])).save(file)?;
//!     }
//! }
//! let read = image_folder::read(directory.path(), &Options::default())?;
//! assert_eq!(read.splits.train.class_names(), ["dark", "light"]);
//! assert_eq!(read.splits.train.shape(), Shape::new(1, 3, 4));
//! assert_eq!((read.splits.train.len(), read.splits.test.len()), (16, 4));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use super::{
    DataError, Dataset, Fit, Normalization, Pixels, Preprocessing, Splits,
    directory::Directory,
    files::{Files, Reader},
    memory,
    split::stratified,
};
use crate::shape::{Shape, checked_product};
use rayon::prelude::*;
use std::{
    cmp::Ordering,
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering as Memory},
    },
};

/// Endings of the files that are read, in small letters or capitals.
pub const ENDINGS: &[&str] = &["png", "jpg", "jpeg", "jfif", "webp", "gif", "bmp"];
/// Rows and columns of images whose own sizes differ or are too large, unless [`Options::shape`] says otherwise.
pub const DEFAULT_SIDE: usize = 64;
/// The most rows or columns that images may have to keep the size that all of them have.
pub const MAX_OWN_SIDE: usize = 256;
/// The most bytes of an image file or a list: 256 MiB.
pub const MAX_FILE_BYTES: u64 = 256 << 20;

/// Folders nested more deeply than this inside a class are an error.
const MAX_DEPTH: usize = 8;

const TRAIN: &[&str] = &["train", "training"];
const VALIDATION: &[&str] = &["val", "valid", "validation"];
const TEST: &[&str] = &["test", "testing"];

/// How a directory of images is read.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// The size that all images are brought to: 1 channel (grey) or 3 (red, green, blue), height, width.
    ///
    /// Without one: as many channels as the most colourful image has, and the images' own size if all have the same
    /// and no side exceeds [`MAX_OWN_SIDE`]; otherwise [`DEFAULT_SIDE`] on both sides.
    pub shape: Option<Shape>,
    /// How an image of another size is made to fit.
    pub fit: Fit,
    /// Share of the training images set aside for testing where nothing else is there to test with; usually 0.2.
    pub test_share: f64,
    /// Seed of that choice.
    pub seed: u64,
    /// Whether the first file that can't be read is an error, instead of being left out.
    pub strict: bool,
    /// The most bytes that the pixels of all images may take in memory. Where they would take more, every file is
    /// decoded once to see that it can be, and again whenever its image is needed ([`Pixels::Files`]).
    ///
    /// Without it: half of what is available, or 4 GiB where the system does not tell.
    pub memory: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self { shape: None, fit: Fit::Stretch, test_share: 0.2, seed: 0, strict: false, memory: None }
    }
}

impl Options {
    /// Bytes that may be held.
    fn budget(&self) -> u64 {
        self.memory.unwrap_or_else(|| memory::available().map_or(4 << 30, |bytes| bytes / 2))
    }

    fn check(&self) -> Result<(), DataError> {
        if !(self.test_share > 0.0 && self.test_share < 1.0) {
            return Err(DataError::Option {
                of: "image folder",
                field: "test_share",
                found: self.test_share.to_string(),
                expected: "above 0 and below 1".into(),
            });
        }
        self.shape.map_or(Ok(()), |shape| preprocessing(shape, self.fit).map(drop))
    }
}

/// What a directory of images holds.
#[derive(Debug)]
pub struct ImageFolder {
    /// The images to train and to test with.
    pub splits: Splits,
    /// The images to validate with, if the directory has both these and others to test with.
    pub validation: Option<Dataset>,
    /// What was left out.
    pub report: Report,
}

/// What was left out of a data set.
#[derive(Debug, Default)]
pub struct Report {
    /// Files that ought to be images but can't be read, in the order of the data set.
    pub skipped: Vec<Skipped>,
    /// Files and folders that are nothing to read here: other endings, or beside the classes. Hidden ones don't count.
    pub ignored: Vec<PathBuf>,
    /// The images' own sizes (height, width) in their files, upright: how many have each, and the first that has it.
    pub sizes: BTreeMap<(usize, usize), (usize, PathBuf)>,
}

/// A file that was left out.
#[derive(Debug)]
pub struct Skipped {
    /// The file, as it was found.
    pub path: PathBuf,
    /// What is wrong with it. The message names the file.
    pub reason: DataError,
}

/// Reads a directory of images.
///
/// # Errors
/// No images are found, or none of a class can be read; a class to test with is not among those to train with; folders
/// are nested too deeply; a size or share is out of range; the memory does not suffice; with
/// [`Options::strict`] the first file that can't be read.
pub fn read(directory: impl AsRef<Path>, options: &Options) -> Result<ImageFolder, DataError> {
    read_with(directory, options, |_, _| {})
}

/// [`read`], telling `progress` how many images are done of how many. It is called from many threads, and may begin
/// again with 0 when an image shows that another size is needed than the first one has.
///
/// # Errors
/// As for [`read`].
pub fn read_with(
    directory: impl AsRef<Path>,
    options: &Options,
    progress: impl Fn(usize, usize) + Sync,
) -> Result<ImageFolder, DataError> {
    options.check()?;
    let directory = Directory::open(directory.as_ref())?;
    let (list, report) = Walk { directory: &directory, report: Report::default() }.list()?;
    let (path, name) = (directory.path.clone(), directory.name("images"));
    load(directory, &path, &name, list, report, options, &progress)
}

/// Reads the images that a CSV file lists.
///
/// The first line is `path,label` or `path,label,split`; paths are relative to the file's directory and stay inside
/// it; splits are `train`, `validation` (or `val`, `valid`) and `test`. Fields may stand in double quotes, and a quote inside is doubled.
/// Images keep the order of the list.
///
/// # Errors
/// As for [`read`]; a line that does not fit the header, an unknown split.
pub fn read_csv(file: impl AsRef<Path>, options: &Options) -> Result<ImageFolder, DataError> {
    read_csv_with(file, options, |_, _| {})
}

/// [`read_csv`] with `progress` as in [`read_with`].
///
/// # Errors
/// As for [`read_csv`].
pub fn read_csv_with(
    file: impl AsRef<Path>,
    options: &Options,
    progress: impl Fn(usize, usize) + Sync,
) -> Result<ImageFolder, DataError> {
    options.check()?;
    let path = file.as_ref();
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory = Directory::open(parent)?;
    let (file, length) = directory.open_file(path)?;
    let bytes = Directory::read(path, file, length, MAX_FILE_BYTES)?;
    let wrong = |line, reason: &str| DataError::List { path: path.into(), line, reason: reason.into() };
    let text = String::from_utf8(bytes).map_err(|error| {
        let line = 1 + error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|&&b| b == b'\n').count();
        wrong(line, "this is not UTF-8 text; save the list as UTF-8")
    })?;
    let list = csv_list(path, text.strip_prefix('\u{feff}').unwrap_or(&text), &directory)?;
    let name = path.file_stem().map_or_else(|| "list".into(), |name| name.to_string_lossy());
    load(directory, path, &name, list, Report::default(), options, &progress)
}

/// Whether a directory holds folders, and so may hold classes of images.
pub fn is_here(directory: impl AsRef<Path>) -> bool {
    let folder = |entry: fs::DirEntry| !hidden(&entry.path()) && entry.file_type().is_ok_and(|kind| kind.is_dir());
    fs::read_dir(directory).is_ok_and(|mut entries| entries.any(|entry| entry.is_ok_and(folder)))
}

/// What images are for. The order is that of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Train,
    Validation,
    Test,
}

/// An image to be read.
#[derive(Clone, Debug)]
struct Entry {
    part: Part,
    class: usize,
    path: PathBuf,
}

/// All images, ordered by part, and the names of their classes.
struct List {
    entries: Vec<Entry>,
    class_names: Vec<String>,
}

/// Looks through a directory for images.
struct Walk<'a> {
    directory: &'a Directory,
    report: Report,
}

impl Walk<'_> {
    fn list(mut self) -> Result<(List, Report), DataError> {
        let root = self.directory.path.clone();
        let (folders, images) = self.look(&root)?;
        let part = |names: &[&str]| folders.iter().find(|folder| names.contains(&lossy_name(folder).as_str()));
        // A folder that is called `train` may also be a class; then it holds images.
        if let Some(train) = part(TRAIN) {
            let (classes, inside) = self.look(train)?;
            if !classes.is_empty() && inside.is_empty() {
                // What there is to validate with also serves to test with if nothing else does.
                let parts = match (part(VALIDATION), part(TEST)) {
                    (Some(validation), None) => vec![(Part::Test, validation)],
                    (validation, test) => [(Part::Validation, validation), (Part::Test, test)]
                        .into_iter()
                        .filter_map(|(part, path)| Some((part, path?)))
                        .collect(),
                };
                let unused = |folder: &&PathBuf| *folder != train && parts.iter().all(|(_, path)| path != folder);
                self.report.ignored.extend(images);
                self.report.ignored.extend(folders.iter().filter(unused).cloned());
                return self.split_layout(train, &classes, &parts);
            }
        }
        if folders.is_empty() {
            let reason = if images.is_empty() {
                format!("there are no images here (files ending in {})", ENDINGS.join(", "))
            } else {
                format!("there are {} images here, but no folders", images.len())
            };
            return layout(
                &root,
                format!("{reason}; put the images of each class into a folder named after the class"),
            );
        }
        self.report.ignored.extend(images);
        let (class_names, entries) = self.classes(&folders, Part::Train, None)?;
        Ok((List { entries, class_names }, self.report))
    }

    /// `train/` with its classes, and its siblings.
    fn split_layout(
        mut self,
        train: &Path,
        classes: &[PathBuf],
        parts: &[(Part, &PathBuf)],
    ) -> Result<(List, Report), DataError> {
        let (class_names, mut entries) = self.classes(classes, Part::Train, None)?;
        for &(part, path) in parts {
            let (classes, images) = self.look(path)?;
            if classes.is_empty() {
                return layout(path, format!("there are no folders of classes here, but {} has some", train.display()));
            }
            self.report.ignored.extend(images);
            entries.extend(self.classes(&classes, part, Some(&class_names))?.1);
        }
        Ok((List { entries, class_names }, self.report))
    }

    /// The images of each class of one part; `known` are the classes that there may be.
    fn classes(
        &mut self,
        folders: &[PathBuf],
        part: Part,
        known: Option<&[String]>,
    ) -> Result<(Vec<String>, Vec<Entry>), DataError> {
        let mut names: Vec<String> = Vec::with_capacity(folders.len());
        let mut entries = Vec::new();
        for folder in folders {
            let name = lossy_name(folder);
            let class = match known {
                Some(known) => match known.iter().position(|class| *class == name) {
                    Some(class) => class,
                    None => {
                        return layout(folder, "this class is not among those to train with; add or remove it".into());
                    }
                },
                None => names.len(),
            };
            if names.last() == Some(&name) {
                return layout(folder, "two folders have the same name, but for bytes that are no UTF-8".into());
            }
            names.push(name);
            let mut paths = Vec::new();
            self.class(folder, 0, &mut paths)?;
            entries.extend(paths.into_iter().map(|path| Entry { part, class, path }));
        }
        Ok((names, entries))
    }

    /// Adds the images of one class.
    fn class(&mut self, folder: &Path, depth: usize, paths: &mut Vec<PathBuf>) -> Result<(), DataError> {
        if depth > MAX_DEPTH {
            return layout(folder, format!("the folders of a class are nested more than {MAX_DEPTH} deep"));
        }
        let (folders, images) = self.look(folder)?;
        paths.extend(images);
        folders.iter().try_for_each(|inner| self.class(inner, depth + 1, paths))
    }

    /// The folders and the images in a folder, in order.
    fn look(&mut self, folder: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>), DataError> {
        let fault = |source| DataError::Io { path: folder.into(), action: "read this directory", source };
        let (mut folders, mut images, mut ignored) = (Vec::new(), Vec::new(), Vec::new());
        for entry in fs::read_dir(folder).map_err(fault)? {
            let entry = entry.map_err(fault)?;
            let (path, kind) = (entry.path(), entry.file_type().map_err(fault)?);
            if hidden(&path) {
                continue;
            }
            if kind.is_dir() {
                folders.push(path);
            } else if has_image_ending(&path) {
                images.push(path);
            } else {
                ignored.push(path);
            }
        }
        for paths in [&mut folders, &mut images, &mut ignored] {
            paths.sort_by(|a, b| by_name(a, b));
        }
        self.report.ignored.append(&mut ignored);
        Ok((folders, images))
    }
}

fn layout<T>(path: &Path, reason: String) -> Result<T, DataError> {
    Err(DataError::Layout { path: path.into(), reason })
}

fn hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".") || name == "__MACOSX")
}

fn has_image_ending(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending.eq_ignore_ascii_case(known)))
}

fn lossy_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn by_name(a: &Path, b: &Path) -> Ordering {
    let bytes = |path: &Path| path.file_name().unwrap_or_default().as_encoded_bytes().to_vec();
    natural_order(&bytes(a), &bytes(b))
}

/// Compares byte by byte, but runs of digits by their value. A total order: what is equal so far is compared as bytes.
fn natural_order(a: &[u8], b: &[u8]) -> Ordering {
    let (mut left, mut right) = (a, b);
    while let (Some(&x), Some(&y)) = (left.first(), right.first()) {
        let order = if x.is_ascii_digit() && y.is_ascii_digit() {
            let (first, second) = (take_number(&mut left), take_number(&mut right));
            first.len().cmp(&second.len()).then(first.cmp(second))
        } else {
            (left, right) = (left.get(1..).unwrap_or_default(), right.get(1..).unwrap_or_default());
            x.cmp(&y)
        };
        if order.is_ne() {
            return order;
        }
    }
    left.len().cmp(&right.len()).then(a.cmp(b))
}

/// Takes the digits at the start, and gives them without zeros in front.
fn take_number<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let end = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, after) = rest.split_at(end);
    *rest = after;
    digits.get(digits.iter().position(|&digit| digit != b'0').unwrap_or(end)..).unwrap_or_default()
}

/// The images that the text of a CSV file lists.
fn csv_list(path: &Path, text: &str, directory: &Directory) -> Result<List, DataError> {
    let wrong = |line, reason: String| Err(DataError::List { path: path.into(), line, reason });
    let mut records = Records { rest: text, line: 1 };
    let header = match records.next() {
        Some(Ok((_, header))) => header,
        Some(Err((line, reason))) => return wrong(line, reason.into()),
        None => Vec::new(),
    };
    let header: Vec<&str> = header.iter().map(|field| field.trim()).collect();
    if header != ["path", "label"] && header != ["path", "label", "split"] {
        let found = header.join(",");
        return wrong(1, format!("the header is \"{found}\"; it must be \"path,label\" or \"path,label,split\""));
    }
    // Class numbers are known only once all labels are.
    let mut rows = Vec::new();
    for record in records {
        let (line, fields) = match record {
            Ok(record) => record,
            Err((line, reason)) => return wrong(line, reason.into()),
        };
        if fields.len() != header.len() {
            return wrong(line, format!("there are {} fields, but the header has {}", fields.len(), header.len()));
        }
        let field = |at: usize| fields.get(at).map_or("", |field| field.trim());
        let (file, label) = (field(0), field(1));
        if file.is_empty() || label.is_empty() {
            return wrong(line, "the path or the label is empty".into());
        }
        let part = match field(2) {
            "" if header.len() == 2 => Part::Train,
            name if TRAIN.contains(&name) => Part::Train,
            name if VALIDATION.contains(&name) => Part::Validation,
            name if TEST.contains(&name) => Part::Test,
            name => return wrong(line, format!("the split is \"{name}\"; it must be train, validation or test")),
        };
        rows.push((part, directory.path.join(file), label.to_owned()));
    }
    if rows.is_empty() {
        return wrong(1, "the list is empty; write one image a line".into());
    }
    if rows.iter().all(|(part, ..)| *part != Part::Test) {
        rows.iter_mut().filter(|(part, ..)| *part == Part::Validation).for_each(|(part, ..)| *part = Part::Test);
    }
    let mut class_names: Vec<String> = rows.iter().map(|(.., label)| label.clone()).collect();
    class_names.sort_by(|a, b| natural_order(a.as_bytes(), b.as_bytes()));
    class_names.dedup();
    let class_of: BTreeMap<&str, usize> = class_names.iter().enumerate().map(|(i, name)| (name.as_str(), i)).collect();
    let mut entries: Vec<Entry> = rows
        .into_iter()
        .filter_map(|(part, path, label)| Some(Entry { part, class: *class_of.get(label.as_str())?, path }))
        .collect();
    entries.sort_by_key(|entry| entry.part);
    Ok(List { entries, class_names })
}

/// The records of a CSV file (RFC 4180), with the line that each begins on. Empty lines are left out.
struct Records<'a> {
    rest: &'a str,
    line: usize,
}

impl Iterator for Records<'_> {
    type Item = Result<(usize, Vec<String>), (usize, &'static str)>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(rest) = self.rest.strip_prefix("\r\n").or_else(|| self.rest.strip_prefix('\n')) {
            self.rest = rest;
            self.line += 1;
        }
        if self.rest.is_empty() {
            return None;
        }
        let (begin, mut fields) = (self.line, Vec::new());
        loop {
            match self.field() {
                Ok(field) => fields.push(field),
                Err(reason) => {
                    self.rest = "";
                    return Some(Err((begin, reason)));
                }
            }
            match self.rest.strip_prefix(',') {
                Some(rest) => self.rest = rest,
                None => return Some(Ok((begin, fields))),
            }
        }
    }
}

impl Records<'_> {
    /// One field; the rest begins with a comma, a line end, or is empty.
    fn field(&mut self) -> Result<String, &'static str> {
        let Some(mut quoted) = self.rest.strip_prefix('"') else {
            let end = self.rest.find([',', '\n']).unwrap_or(self.rest.len());
            let (field, rest) = self.rest.split_at(end);
            self.rest = rest;
            return Ok(field.strip_suffix('\r').unwrap_or(field).to_owned());
        };
        let mut field = String::new();
        loop {
            let (part, after) = quoted.split_once('"').ok_or("a quoted field does not end")?;
            field.push_str(part);
            quoted = match after.strip_prefix('"') {
                Some(after) => after,
                None => {
                    self.rest = after;
                    break;
                }
            };
            field.push('"');
        }
        self.line += field.matches('\n').count();
        let at_end = self.rest.is_empty() || self.rest.starts_with([',', '\n']) || self.rest.starts_with("\r\n");
        if at_end { Ok(field) } else { Err("a quoted field goes on after its quote; double a quote inside a field") }
    }
}

fn preprocessing(shape: Shape, fit: Fit) -> Result<Preprocessing, DataError> {
    Preprocessing::new(shape, fit, Normalization::identity())
}

/// Decodes the images of a list and makes data sets of them.
fn load(
    directory: Directory,
    path: &Path,
    name: &str,
    list: List,
    mut report: Report,
    options: &Options,
    progress: &(impl Fn(usize, usize) + Sync),
) -> Result<ImageFolder, DataError> {
    let List { mut entries, class_names } = list;
    if entries.is_empty() {
        let ignored = report.ignored.len();
        return layout(
            path,
            format!("there are no images (files ending in {}), but {ignored} other files", ENDINGS.join(", ")),
        );
    }
    if entries.iter().all(|entry| entry.part == Part::Train) {
        // Before decoding: what is set aside then does not depend on which files are damaged.
        let labels: Vec<usize> = entries.iter().map(|entry| entry.class).collect();
        let count = (options.test_share * labels.len() as f64).round().max(1.0) as usize;
        for at in stratified(&labels, class_names.len(), count, options.seed).1 {
            entries[at].part = Part::Test;
        }
        entries.sort_by_key(|entry| entry.part);
    }
    let reader = Arc::new(Reader::new(directory));
    let decoder = Decoder {
        reader: &reader,
        entries: &entries,
        fit: options.fit,
        strict: options.strict,
        budget: options.budget(),
        progress,
    };
    let (shape, mut pixels, faults) = decoder.all(options.shape)?;

    // What could not be read leaves a gap.
    let (image, mut kept) = (shape.len(), 0);
    let mut read = Vec::with_capacity(entries.len());
    for (at, (entry, fault)) in entries.into_iter().zip(faults).enumerate() {
        match fault {
            Err(reason) => report.skipped.push(Skipped { path: entry.path, reason }),
            Ok(size) => {
                report.sizes.entry(size).or_insert_with(|| (0, entry.path.clone())).0 += 1;
                if let Some(pixels) = &mut pixels
                    && kept != at
                {
                    pixels.copy_within(at * image..(at + 1) * image, kept * image);
                }
                kept += 1;
                read.push(entry);
            }
        }
    }
    if let Some(pixels) = &mut pixels {
        pixels.truncate(kept * image);
    }
    let explain = |what: String| {
        let unreadable = report.skipped.first().map_or(String::new(), |first| {
            format!(" ({} files can't be read; the first: {})", report.skipped.len(), first.reason)
        });
        layout(path, format!("{what}{unreadable}"))
    };
    let mut in_train = vec![false; class_names.len()];
    for entry in read.iter().filter(|entry| entry.part == Part::Train) {
        in_train[entry.class] = true;
    }
    if let Some(name) = in_train.iter().position(|&has| !has).and_then(|class| class_names.get(class)) {
        return explain(format!("class \"{name}\" has no image to train with; remove it or give it some"));
    }
    let mut take = |part: Part, what: &str| {
        let count = read.iter().take_while(|entry| entry.part == part).count();
        let these: Vec<Entry> = read.drain(..count).collect();
        let labels = these.iter().map(|entry| entry.class).collect();
        let (these, paths) = match &mut pixels {
            Some(pixels) => {
                let rest = pixels.split_off(count * image);
                let these: Vec<_> = these.into_iter().map(|entry| entry.path).collect();
                (Pixels::U8(std::mem::replace(pixels, rest)), these)
            }
            None => {
                let files = these.into_iter().map(|entry| (entry.path, entry.class)).collect();
                (Pixels::Files(Files::new(Arc::clone(&reader), preprocessing(shape, options.fit)?, files)), Vec::new())
            }
        };
        let data = Dataset::new(format!("{name} {what}"), shape, these, labels, class_names.clone())?;
        Ok(Dataset { paths, ..data })
    };
    let train = take(Part::Train, "train")?;
    let validation = match take(Part::Validation, "validation") {
        Ok(validation) => Some(validation),
        Err(DataError::Empty { .. }) => None,
        Err(error) => return Err(error),
    };
    let test = match take(Part::Test, "test") {
        Err(DataError::Empty { .. }) => {
            return explain("there is no image to test with; every class needs at least two, or a test folder".into());
        }
        test => test?,
    };
    Ok(ImageFolder { splits: Splits { train, test }, validation, report })
}

/// Why decoding all images to one size stops.
enum Stop {
    /// Not all have the same size.
    OtherSize,
    /// One is in colour, but room was made for grey ones.
    Colour,
    Fault(DataError),
}

impl From<DataError> for Stop {
    fn from(error: DataError) -> Self {
        Stop::Fault(error)
    }
}

/// An image's own height and width, or why there are no pixels of it.
type Outcome = Result<(usize, usize), DataError>;
type Faults = Vec<Outcome>;

/// Decodes all images of a list.
struct Decoder<'a, P> {
    reader: &'a Reader,
    entries: &'a [Entry],
    fit: Fit,
    strict: bool,
    /// Bytes that the pixels may take.
    budget: u64,
    progress: &'a P,
}

impl<P: Fn(usize, usize) + Sync> Decoder<'_, P> {
    /// The size of all images, their pixels if they fit the budget, and for each image why it has none.
    fn all(&self, shape: Option<Shape>) -> Result<(Shape, Option<Vec<u8>>, Faults), DataError> {
        let mut own_size = shape.is_none();
        let mut target = match shape {
            Some(shape) => shape,
            None => self.first_shape()?,
        };
        if own_size && target.height.max(target.width) > MAX_OWN_SIDE {
            (own_size, target) = (false, Shape::new(target.channels, DEFAULT_SIDE, DEFAULT_SIDE));
        }
        // At most three rounds: each stop happens once.
        loop {
            match self.round(&preprocessing(target, self.fit)?, own_size, shape.is_none()) {
                Ok((pixels, faults)) => return Ok((target, pixels, faults)),
                Err(Stop::OtherSize) => {
                    (own_size, target) = (false, Shape::new(target.channels, DEFAULT_SIDE, DEFAULT_SIDE));
                }
                Err(Stop::Colour) => target.channels = 3,
                Err(Stop::Fault(error)) => return Err(error),
            }
        }
    }

    /// The shape of the first image that can be read, or of any image if none can.
    fn first_shape(&self) -> Result<Shape, DataError> {
        for entry in self.entries {
            match self.reader.with_image(&entry.path, |image, _| {
                let channels = if image.color().has_color() { 3 } else { 1 };
                Ok(Shape::new(channels, image.height() as usize, image.width() as usize))
            }) {
                Err(error) if self.is_fatal(&error) => return Err(error),
                Err(_) => {}
                shape => return shape,
            }
        }
        Ok(Shape::new(1, 1, 1))
    }

    /// Decodes all images to one size, unless something stops it; the same thing whatever the number of threads.
    fn round(
        &self,
        preprocessing: &Preprocessing,
        own_size: bool,
        own_channels: bool,
    ) -> Result<(Option<Vec<u8>>, Faults), Stop> {
        let (shape, images) = (preprocessing.shape, self.entries.len());
        let name = || self.reader.directory.path.display().to_string();
        let bytes = checked_product(&[images, shape.channels, shape.height, shape.width])
            .map_err(|source| DataError::Shape { name: name(), source })?;
        let held = bytes as u64 <= self.budget;
        let mut pixels = Vec::new();
        if held {
            pixels.try_reserve_exact(bytes).map_err(|_| DataError::Memory { name: name(), bytes: bytes as u64 })?;
            pixels.resize(bytes, 0u8);
        }
        // The first image that stops everything. Those after it need no decoding; those before it are all decoded, so
        // it is found however the work is shared.
        let (first, done) = (AtomicUsize::new(usize::MAX), AtomicUsize::new(0));
        let decode = |at: usize, entry: &Entry, out: Option<&mut [u8]>| {
            if at > first.load(Memory::Relaxed) {
                return Ok(Ok((0, 0)));
            }
            let decoded = self.reader.with_image(&entry.path, |image, name| {
                let size = (image.height() as usize, image.width() as usize);
                if own_size && size != (shape.height, shape.width) {
                    return Ok(Err(Stop::OtherSize));
                }
                if own_channels && shape.channels == 1 && image.color().has_color() {
                    return Ok(Err(Stop::Colour));
                }
                if let Some(out) = out {
                    out.copy_from_slice(&preprocessing.fit(image, name)?);
                }
                Ok(Ok(size))
            });
            (self.progress)(done.fetch_add(1, Memory::Relaxed) + 1, images);
            let stop = match decoded {
                Ok(Ok(size)) => return Ok(Ok(size)),
                Ok(Err(stop)) => stop,
                Err(error) if self.is_fatal(&error) => Stop::Fault(error),
                Err(error) => return Ok(Err(error)),
            };
            first.fetch_min(at, Memory::Relaxed);
            Err(stop)
        };
        let faults: Vec<Result<Outcome, Stop>> = if held {
            let places = pixels.par_chunks_exact_mut(shape.len()).zip(self.entries).enumerate();
            places.map(|(at, (out, entry))| decode(at, entry, Some(out))).collect()
        } else {
            self.entries.par_iter().enumerate().map(|(at, entry)| decode(at, entry, None)).collect()
        };
        // In order, so that the first stop counts.
        let faults = faults.into_iter().collect::<Result<Faults, Stop>>()?;
        Ok((held.then_some(pixels), faults))
    }

    fn is_fatal(&self, error: &DataError) -> bool {
        self.strict || matches!(error, DataError::Memory { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_count_by_value() {
        let mut names = ["b", "class10", "class2", "class02", "a1b10", "a1b9", "", "10", "9", "class", "1a"];
        names.sort_by(|a, b| natural_order(a.as_bytes(), b.as_bytes()));
        assert_eq!(names, ["", "1a", "9", "10", "a1b9", "a1b10", "b", "class", "class02", "class2", "class10"]);
    }

    #[test]
    fn records_of_a_list() {
        let records = |text| Records { rest: text, line: 1 }.collect::<Result<Vec<_>, _>>();
        let strings = |fields: &[&str]| fields.iter().map(|f| (*f).to_owned()).collect::<Vec<_>>();
        let found = records("a,b\r\n\n\"x,\"\"y\"\"\nz\",\r\nlast,\"q\"").unwrap();
        assert_eq!(found, [(1, strings(&["a", "b"])), (3, strings(&["x,\"y\"\nz", ""])), (5, strings(&["last", "q"]))]);
        assert_eq!(records("a\n\"b").unwrap_err().0, 2);
        assert_eq!(records("a\n\"b\"c").unwrap_err().0, 2);
        assert_eq!(records("").unwrap(), []);
    }

    proptest! {
        #[test]
        fn natural_order_is_an_order(a in "[a01]{0,5}", b in "[a01]{0,5}", c in "[a01]{0,5}") {
            let order = |a: &str, b: &str| natural_order(a.as_bytes(), b.as_bytes());
            prop_assert_eq!(order(&a, &b), order(&b, &a).reverse());
            prop_assert_eq!(order(&a, &b).is_eq(), a == b);
            if order(&a, &b).is_le() && order(&b, &c).is_le() {
                prop_assert!(order(&a, &c).is_le());
            }
        }

        #[test]
        fn any_text_ends(text in "[a,\"\r\n]{0,30}") {
            let records = Records { rest: &text, line: 1 };
            prop_assert!(records.count() <= 31);
        }
    }
}
