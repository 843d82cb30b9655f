//! `--data`: which data sets there are, by name or directory.

use crate::error::CliError;
use std::path::Path;
use striate::data::{Dataset, Fit, Normalization, Pixels, Preprocessing, Splits, idx, one_class_names};
use striate::shape::Shape;
use striate_mnist::Mnist;

/// What `--data` takes, for error messages and help.
pub(crate) const KINDS: &str = "mnist (built in), or a directory of IDX files named as MNIST's are";

/// Reads the data that `--data` names.
pub(crate) fn load(data: &str) -> Result<Splits, CliError> {
    if data == "mnist" {
        return Ok(Splits { train: mnist("train")?, test: mnist("test")? });
    }
    let directory = Path::new(data);
    if directory.is_dir() {
        return Ok(idx::read(directory)?);
    }
    let problem = if directory.exists() { "is a file, not a directory" } else { "is neither a name nor a directory" };
    Err(CliError::Usage(format!("--data {data:?} {problem}; this version reads {KINDS}")))
}

/// Whether there is data of this name at all.
pub(crate) fn exists(data: &str) -> bool {
    data == "mnist" || Path::new(data).is_dir()
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
    let name = Path::new(data).file_name().map_or(data.into(), |name| name.to_string_lossy());
    let safe = name.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' });
    safe.collect::<String>().trim_start_matches('.').to_owned()
}

/// How picture files become inputs for a network trained on this data: MNIST-like grey squares are digits.
pub(crate) fn preprocessing(data: &Dataset, normalization: Normalization) -> Result<Preprocessing, CliError> {
    let fit = if data.shape() == Shape::new(1, 28, 28) { Fit::Digit } else { Fit::Stretch };
    Ok(Preprocessing::new(data.shape(), fit, normalization)?)
}
