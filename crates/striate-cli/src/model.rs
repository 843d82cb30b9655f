//! MODEL: a model file, or a run directory that holds one.

use crate::error::CliError;
use std::path::{Path, PathBuf};
use striate::formats::ModelFile;

/// The model file's name in a run directory.
pub(crate) const FILE: &str = "model.safetensors";

/// The file that MODEL stands for.
pub(crate) fn path(model: &Path) -> PathBuf {
    if model.is_dir() { model.join(FILE) } else { model.to_owned() }
}

/// Loads MODEL.
pub(crate) fn load(model: &Path) -> Result<ModelFile, CliError> {
    let file = path(model);
    if !file.exists() {
        return Err(CliError::Usage(if model.is_dir() {
            format!("{}: no {FILE} in this directory; is it a run directory?", model.display())
        } else {
            format!("{}: no such file; MODEL is a .safetensors file or a run directory", model.display())
        }));
    }
    Ok(ModelFile::load(&file)?)
}
