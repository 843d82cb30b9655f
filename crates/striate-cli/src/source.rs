//! `--data`: which data sets there are, by name or path.

use crate::error::CliError;
use crate::output::{Output, complain, thousands};
use indicatif::{ProgressBar, ProgressStyle};
use std::env;
use std::io::{IsTerminal, stderr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use striate::data::image_folder::{self, ImageFolder, Options, Report};
use striate::data::{
    DataError, Dataset, Fit, Normalization, Pixels, Preprocessing, Splits, cifar, idx, one_class_names,
};
use striate::shape::Shape;
use striate_mnist::Mnist;

/// What `--data` takes, for error messages and help.
pub(crate) const KINDS: &str = "mnist (built in), fashion-mnist, cifar10 or cifar100 (from the user's cache), a directory of \
                                IDX files named as MNIST's are, one of CIFAR's binary files, one of images (a folder a class, \
                                or train/ and test/ of those), or a CSV file with the header path,label";

const FASHION: [&str; 10] =
    ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"];

/// Data sets that have a name, but must be in the user's cache: what its files are, and where they come from.
const CACHED: [(&str, &str); 3] = [
    (
        "fashion-mnist",
        "the four files of https://github.com/zalandoresearch/fashion-mnist (train-images-idx3-ubyte.gz and so on)",
    ),
    ("cifar10", "the unpacked https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"),
    ("cifar100", "the unpacked https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"),
];

/// What `--data` names, once it is read.
pub(crate) struct Source {
    pub(crate) splits: Splits,
    /// Images to validate with, if the data has some of its own.
    pub(crate) validation: Option<Dataset>,
    /// What was left out of a folder of images.
    pub(crate) report: Report,
}

impl From<Splits> for Source {
    fn from(splits: Splits) -> Self {
        Self { splits, validation: None, report: Report::default() }
    }
}

impl From<ImageFolder> for Source {
    fn from(ImageFolder { splits, validation, report }: ImageFolder) -> Self {
        Self { splits, validation, report }
    }
}

/// Reads the data that `--data` names, image files at the size of `shape`; says on stderr what was left out.
pub(crate) fn load(data: &str, shape: Option<Shape>, output: &Output) -> Result<Splits, CliError> {
    Ok(load_all(data, shape, output)?.splits)
}

/// [`load`], with the images to validate with that the data may have of its own.
pub(crate) fn load_all(data: &str, shape: Option<Shape>, output: &Output) -> Result<Source, CliError> {
    let source = open(data, shape, output)?;
    if let Some(first) = source.report.skipped.first()
        && !output.is_quiet()
    {
        let count = thousands(source.report.skipped.len());
        complain(&format!(
            "note: {count} files of {data} were left out; the first: {}; `striate data info` lists them",
            first.reason
        ));
    }
    Ok(source)
}

/// Reads the data that `--data` names.
pub(crate) fn open(data: &str, shape: Option<Shape>, output: &Output) -> Result<Source, CliError> {
    if data == "mnist" {
        return Ok(Splits { train: mnist("train")?, test: mnist("test")? }.into());
    }
    let path = Path::new(data);
    let options = Options { shape, ..Options::default() };
    if path.is_dir() {
        return open_directory(path, &options, output);
    }
    if let Some(&(name, files)) = CACHED.iter().find(|(name, _)| *name == data) {
        let cache = cache_directory().map(|cache| cache.join(name));
        return match cache {
            Some(directory) if directory.is_dir() => open_cached(name, &directory, &options, output),
            Some(directory) => Err(CliError::Usage(format!(
                "--data {name} is not in the cache; put {files} into {}; without that, this version reads {KINDS}",
                directory.display()
            ))),
            None => Err(CliError::Usage(format!(
                "--data {name} is looked for in the user's cache, but neither XDG_CACHE_HOME nor HOME is set; \
                 without that, this version reads {KINDS}"
            ))),
        };
    }
    if is_list(path) {
        let bar = Bar::new(output);
        return Ok(image_folder::read_csv_with(path, &options, |done, all| bar.show(done, all))?.into());
    }
    let problem = if path.exists() {
        "is a file, neither a directory nor a list that ends in .csv"
    } else {
        "is neither a name, a directory nor a list of images"
    };
    Err(CliError::Usage(format!("--data {data:?} {problem}; this version reads {KINDS}")))
}

fn open_cached(name: &str, directory: &Path, options: &Options, output: &Output) -> Result<Source, CliError> {
    match name {
        "fashion-mnist" => {
            Ok(idx::read_with_classes(directory, FASHION.iter().map(|&name| name.into()).collect())?.into())
        }
        "cifar10" if cifar::detect(directory) == Some(cifar::Kind::Cifar10) => {
            Ok(cifar::read(directory, cifar::Kind::Cifar10)?.into())
        }
        "cifar100" if cifar::detect(directory) == Some(cifar::Kind::Cifar100) => {
            Ok(cifar::read(directory, cifar::Kind::Cifar100)?.into())
        }
        // The same data as images.
        _ => open_directory(directory, options, output),
    }
}

/// A directory is known by the files in it.
fn open_directory(directory: &Path, options: &Options, output: &Output) -> Result<Source, CliError> {
    if let Some(kind) = cifar::detect(directory) {
        return Ok(cifar::read(directory, kind)?.into());
    }
    if idx::is_here(directory) {
        return Ok(idx::read(directory)?.into());
    }
    let bar = Bar::new(output);
    Ok(image_folder::read_with(directory, options, |done, all| bar.show(done, all))
        .map_err(|error| match error {
            DataError::Layout { path, reason } if path == directory => {
                DataError::Layout { path, reason: format!("{reason}; this version reads {KINDS}") }
            }
            error => error,
        })?
        .into())
}

fn is_list(path: &Path) -> bool {
    path.is_file() && path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("csv"))
}

/// Whether there is data of this name at all.
pub(crate) fn exists(data: &str) -> bool {
    let cached =
        || CACHED.iter().any(|(name, _)| *name == data) && cache_directory().is_some_and(|c| c.join(data).is_dir());
    data == "mnist" || Path::new(data).is_dir() || is_list(Path::new(data)) || cached()
}

/// Where data sets with a name are kept: `striate` in the user's cache directory.
fn cache_directory() -> Option<PathBuf> {
    // An empty variable counts as none (XDG Base Directory Specification).
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let caches = if cfg!(windows) {
        variable("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        variable("HOME").map(|home| home.join("Library/Caches"))
    } else {
        variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")))
    };
    caches.map(|caches| caches.join("striate"))
}

/// One split of MNIST as a data set.
pub(crate) fn mnist(split: &str) -> Result<Dataset, CliError> {
    let Mnist { images, labels } = if split == "train" { striate_mnist::train()? } else { striate_mnist::test()? };
    Ok(Dataset::new(
        format!("mnist:{split}"),
        Shape::new(1, striate_mnist::ROWS, striate_mnist::COLUMNS),
        Pixels::U8(images.clone()),
        labels.iter().map(|&label| label.into()).collect(),
        one_class_names(striate_mnist::CLASSES),
    )?)
}

/// A short name of the data for the run directory.
pub(crate) fn short_name(data: &str) -> String {
    let path = Path::new(data);
    let name = if is_list(path) { path.file_stem() } else { path.file_name() };
    let name = name.map_or(data.into(), |name| name.to_string_lossy());
    let safe = name.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' });
    safe.collect::<String>().trim_start_matches('.').to_owned()
}

/// How picture files become inputs for a network trained on this data: MNIST-like grey squares are digits.
pub(crate) fn preprocessing(data: &Dataset, normalization: Normalization) -> Result<Preprocessing, CliError> {
    let fit = if data.shape() == Shape::new(1, 28, 28) { Fit::Digit } else { Fit::Stretch };
    Ok(Preprocessing::new(data.shape(), fit, normalization)?)
}

/// A bar on stderr, for a person who waits longer than a moment.
struct Bar {
    bar: ProgressBar,
    begun: Instant,
}

impl Bar {
    const MOMENT: Duration = Duration::from_millis(500);

    fn new(output: &Output) -> Self {
        let bar =
            if output.is_quiet() || !stderr().is_terminal() { ProgressBar::hidden() } else { ProgressBar::no_length() };
        if let Ok(style) = ProgressStyle::with_template("reading images [{bar:25}] {pos} of {len}  {eta} left") {
            bar.set_style(style.progress_chars("=> "));
        }
        Self { bar, begun: Instant::now() }
    }

    fn show(&self, done: usize, all: usize) {
        if self.begun.elapsed() > Self::MOMENT {
            self.bar.set_length(all as u64);
            self.bar.set_position(done as u64);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
