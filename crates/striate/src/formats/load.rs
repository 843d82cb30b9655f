//! A model from a file of either kind: Striate's own, or ONNX.

use super::{FormatError, ImportOptions, ModelFile, OnnxImportError, from_onnx, load_onnx};
use std::path::Path;

/// Why a file gives no model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A model file that can't be read.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// An ONNX file that makes no network here.
    #[error(transparent)]
    Onnx(#[from] OnnxImportError),
}

/// Whether a file is taken for ONNX: by its ending.
pub fn is_onnx(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("onnx"))
}

/// Loads a model file, or imports an ONNX file as it is.
///
/// # Errors
/// See [`ModelFile::load`] and [`load_onnx`].
pub fn load_model(path: &Path) -> Result<ModelFile, LoadError> {
    match is_onnx(path) {
        true => Ok(load_onnx(path, ImportOptions::default())?),
        false => Ok(ModelFile::load(path)?),
    }
}

/// The same from the bytes of a file of this name.
///
/// # Errors
/// See [`ModelFile::from_bytes`] and [`from_onnx`].
pub fn model_from_bytes(bytes: Vec<u8>, name: &str) -> Result<ModelFile, LoadError> {
    match is_onnx(Path::new(name)) {
        true => Ok(from_onnx(bytes, name, ImportOptions::default())?),
        false => Ok(ModelFile::from_bytes(&bytes, name)?),
    }
}
