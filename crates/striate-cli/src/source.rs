//! `--data`: which data sets there are, by name or path.

use crate::error::CliError;
use crate::output::{Output, complain, thousands};
use crate::progress::Bar;
use clap::Args;
use std::env;
use std::path::{Path, PathBuf};
use striate::data::image_folder::{self, ImageFolder, Options, Report, Skipped};
use striate::data::{DataError, Dataset, Fit, Normalization, Preprocessing, Splits, cifar, idx};
use striate::formats::ModelFile;
use striate::shape::Shape;
use striate_web::mnist;

/// What `--data` takes, for error messages and help.
pub(crate) const KINDS: &str = "mnist (built in), fashion-mnist, cifar10 or cifar100 (see `striate data fetch`), a directory of \
                                IDX files named as MNIST's are, one of CIFAR's binary files, one of images (a folder a class, \
                                or train/ and test/ of those), or a CSV file with the header path,label";

const FASHION: [&str; 10] =
    ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"];

/// Data sets that have a name, but must be fetched or installed first.
const FETCHED: [&str; 3] = ["fashion-mnist", "cifar10", "cifar100"];

/// Where Debian's packages of data sets (dataset-fashion-mnist) put them.
const SYSTEM: &str = "/usr/share/datasets";

/// How image files are read.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ReadingArgs {
    /// Make the first image that can't be read an error, instead of leaving it out
    #[arg(long)]
    strict: bool,
    /// The most memory for the pixels of all image files, as in 500M or 8G; files of more are decoded whenever they are
    /// needed [default: half of what is available]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    memory: Option<u64>,
}

impl ReadingArgs {
    /// The library's options, for image files at the size of `shape`, or else as a trained model reads them.
    pub(crate) fn options(&self, shape: Option<Shape>, trained: Option<&Preprocessing>) -> Options {
        let shape = shape.or(trained.map(|trained| trained.shape));
        // What treats single pictures of digits is not for whole data sets of them.
        let fit = trained.map(|trained| trained.fit).filter(|&fit| fit != Fit::Digit).unwrap_or(Fit::Stretch);
        Options { shape, fit, strict: self.strict, memory: self.memory, ..Options::default() }
    }
}

/// 500M, 8G or a plain number of bytes; units are 1024 times the one before.
fn parse_bytes(text: &str) -> Result<u64, String> {
    let units = [('K', 1u64 << 10), ('M', 1 << 20), ('G', 1 << 30)];
    let (number, factor) = units
        .into_iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix([unit, unit.to_ascii_lowercase()])?, factor)))
        .unwrap_or((text, 1));
    let number = number.trim().parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    number.ok_or_else(|| "a number of bytes is needed, as in 500M or 8G".into())
}

/// What `--data` names, once it is read.
pub(crate) struct Source {
    pub(crate) splits: Splits,
    /// Images to validate with, if the data has some of its own.
    pub(crate) validation: Option<Dataset>,
    /// What was left out of a folder of images.
    pub(crate) report: Report,
}

impl Source {
    /// Each part by its name.
    pub(crate) fn parts(&self) -> Vec<(&'static str, &Dataset)> {
        let parts = [
            ("train", Some(&self.splits.train)),
            ("validation", self.validation.as_ref()),
            ("test", Some(&self.splits.test)),
        ];
        parts.into_iter().filter_map(|(name, data)| Some((name, data?))).collect()
    }
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

/// What the model was trained on, if that is here.
pub(crate) fn known(model: &ModelFile) -> Option<String> {
    let data = model.training.get("data").and_then(|data| data.as_str());
    data.filter(|data| exists(data)).map(Into::into)
}

/// Reads the data that `--data` names, or else what the model was trained on, at the size of the model's input.
pub(crate) fn for_model(
    data: Option<&str>,
    reading: &ReadingArgs,
    model: &ModelFile,
    output: &Output,
) -> Result<Source, CliError> {
    let known = model.training.get("data").and_then(|data| data.as_str());
    let data = data.or(known.filter(|data| exists(data))).ok_or_else(|| {
        CliError::Usage(match known {
            Some(data) => {
                format!("the model was trained on {data:?}, which is not here; say with --data what to look at")
            }
            None => "the model file does not say what it was trained on; say with --data what to look at".into(),
        })
    })?;
    load(data, &reading.options(None, Some(&model.preprocessing)), output)
}

/// Reads the data that `--data` names, image files as `options` say; says on stderr what was left out.
pub(crate) fn load(data: &str, options: &Options, output: &Output) -> Result<Source, CliError> {
    let source = open(data, options, output)?;
    if let Some(first) = source.report.skipped.first()
        && !output.is_quiet()
    {
        let count = thousands(source.report.skipped.len());
        complain(&format!("note: {count} files of {data} were left out; the first: {}", first.reason));
    }
    Ok(source)
}

/// What was left out, for `--json`.
pub(crate) fn skipped_json(skipped: &[Skipped]) -> serde_json::Value {
    let line = |skipped: &Skipped| {
        let (path, reason) = (skipped.path.display().to_string(), skipped.reason.to_string());
        serde_json::json!({ "path": path, "reason": reason })
    };
    skipped.iter().map(line).collect()
}

/// Files listed of those that were left out; `--json` lists all.
pub(crate) const LISTED: usize = 20;

/// Prints the first of the files that were left out, and how many there are.
pub(crate) fn list_skipped(output: &Output, skipped: &[Skipped]) {
    let reasons = skipped.iter().map(|skipped| skipped.reason.to_string());
    output.list("left out because they can't be read", LISTED, reasons);
}

/// Reads the data that `--data` names, image files as `options` say.
pub(crate) fn open(data: &str, options: &Options, output: &Output) -> Result<Source, CliError> {
    if data == mnist::NAME {
        return Ok(mnist::splits()?.into());
    }
    let path = Path::new(data);
    if path.is_dir() {
        return open_directory(path, options, output);
    }
    if FETCHED.contains(&data) {
        let places = places(data);
        return match places.iter().find(|directory| holds(data, directory)) {
            Some(directory) => open_fetched(data, directory, options, output),
            None => {
                let looked = places.iter().map(|place| place.display().to_string()).collect::<Vec<_>>().join(" and ");
                Err(CliError::Usage(format!(
                    "--data {data} is not here (looked in {looked}); get it with `striate data fetch {data}`, or give \
                     the directory of its files"
                )))
            }
        };
    }
    if is_list(path) {
        let bar = Bar::new("reading images", output.is_quiet());
        return Ok(image_folder::read_csv_with(path, options, |done, all| bar.show(done, all))?.into());
    }
    let problem = if path.exists() {
        "is a file, neither a directory nor a list that ends in .csv"
    } else {
        "is neither a name, a directory nor a list of images"
    };
    Err(CliError::Usage(format!("--data {data:?} {problem}; this version reads {KINDS}")))
}

/// Where a data set with a name may be.
fn places(name: &str) -> Vec<PathBuf> {
    [cache_directory(), Some(SYSTEM.into())].into_iter().flatten().map(|place| place.join(name)).collect()
}

/// Whether a directory holds the data set of this name.
pub(crate) fn holds(name: &str, directory: &Path) -> bool {
    match name {
        "cifar10" if cifar::detect(directory) == Some(cifar::Kind::Cifar10) => true,
        "cifar100" if cifar::detect(directory) == Some(cifar::Kind::Cifar100) => true,
        "fashion-mnist" => idx::is_here(directory),
        // The same data as images.
        _ => image_folder::is_here(directory),
    }
}

fn open_fetched(name: &str, directory: &Path, options: &Options, output: &Output) -> Result<Source, CliError> {
    match name {
        "fashion-mnist" => {
            Ok(idx::read_with_classes(directory, FASHION.iter().map(|&name| name.into()).collect())?.into())
        }
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
    let bar = Bar::new("reading images", output.is_quiet());
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
    let fetched = || FETCHED.contains(&data) && places(data).iter().any(|place| holds(data, place));
    data == mnist::NAME || Path::new(data).is_dir() || is_list(Path::new(data)) || fetched()
}

/// Where data sets with a name are kept: `striate` in the user's cache directory.
pub(crate) fn cache_directory() -> Option<PathBuf> {
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

/// A short name of the data for the run directory.
pub(crate) fn short_name(data: &str) -> String {
    let path = Path::new(data);
    let name = if is_list(path) { path.file_stem() } else { path.file_name() };
    let name = name.map_or(data.into(), |name| name.to_string_lossy());
    let safe = name.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' });
    safe.collect::<String>().trim_start_matches('.').to_owned()
}

/// How picture files become inputs for a network trained on this data: characters in MNIST's size are treated as its
/// makers treated digits.
pub(crate) fn preprocessing(data: &Dataset, normalization: Normalization) -> Result<Preprocessing, CliError> {
    let fit = if data.shape() == mnist::SHAPE && data.shows_characters() { Fit::Digit } else { Fit::Stretch };
    Ok(Preprocessing::new(data.shape(), fit, normalization)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_with_units() {
        assert_eq!(parse_bytes("123"), Ok(123));
        assert_eq!(parse_bytes("2k"), Ok(2048));
        assert_eq!(parse_bytes("500M"), Ok(500 << 20));
        assert_eq!(parse_bytes("8 G"), Ok(8 << 30));
        for wrong in ["", "G", "-1", "1.5G", "99999999999G", "8T"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
    }
}
