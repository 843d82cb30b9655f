//! ONNX, the format that every runtime reads.
//!
//! [`to_onnx`] writes a model as operator set 17 with an open batch size: input `input`, (N, C, H, W), output `logits`,
//! (N, classes). A model in bytes becomes a graph with pairs of QuantizeLinear and DequantizeLinear (QDQ): weights are int8
//! with a scale for each output channel, and runtimes that compute with bytes do. Parameters keep their names (`W1`, `b1`), and each layer's output has the layer's name. Class names and
//! preprocessing travel in the file's metadata (`striate.classes`, `striate.preprocessing`, as JSON).
//!
//! [`load_onnx`] and [`from_onnx`] read such a file and those of others: `read` takes the graph from the bytes, `import`
//! makes layers of its nodes, and `interpret` computes what depends on constants alone.

#[cfg(test)]
mod conformance;
mod error;
mod export;
mod import;
mod interpret;
mod node;
mod proto;
mod read;
mod tensor;

use super::ModelFile;
use super::container::{MAX_FILE_BYTES, read_regular_file};
use crate::shape::Shape;
pub use error::{NodeProblem, OnnxError, OnnxImportError};
use std::path::Path;

/// The graph's input.
const INPUT: &str = "input";
/// The graph's output.
const OUTPUT: &str = "logits";

/// What an ONNX file is to hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OnnxOptions {
    /// Whether the graph begins with the normalisation of pixels: it then takes `u8` from 0 to 255 in place of numbers.
    /// Decoding and resizing stay outside.
    pub preprocessing: bool,
}

/// The bytes of an ONNX file with the model.
///
/// # Errors
/// A layer that ONNX can't express, which is named.
///
/// ```
/// use striate::data::{Normalization, Preprocessing};
/// use striate::data::preprocessing::Fit;
/// use striate::formats::{ModelFile, OnnxOptions, TestVectors, to_onnx};
/// use striate::{models, network::Network, shape::Shape};
///
/// let input = Shape::new(1, 28, 28);
/// let model = ModelFile {
///     network: Network::new(models::by_name("simple-convnet", input, 10)?, 1)?,
///     class_names: (0..10).map(|digit| digit.to_string()).collect(),
///     preprocessing: Preprocessing { shape: input, fit: Fit::Stretch, normalization: Normalization::identity() },
///     training: serde_json::Value::Null,
///     metrics: serde_json::Value::Null,
///     test_vectors: TestVectors::none(),
///     temperature: None,
///     quantized: None,
/// };
/// let bytes = to_onnx(&model, OnnxOptions::default())?;
/// // The weights are in it: 432,410 numbers of four bytes.
/// assert!(bytes.len() > 4 * 432_410);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn to_onnx(model: &ModelFile, options: OnnxOptions) -> Result<Vec<u8>, OnnxError> {
    export::model(model, options)
}

/// What an ONNX file may leave open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImportOptions {
    /// One input; `None` for the sizes that the file gives.
    pub input: Option<Shape>,
}

/// Reads an ONNX file, and those beside it that it keeps tensors in.
///
/// # Errors
/// See [`from_onnx`].
pub fn load_onnx(path: &Path, options: ImportOptions) -> Result<ModelFile, OnnxImportError> {
    let bytes = read_regular_file(path, MAX_FILE_BYTES)?;
    let directory = path.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent });
    import::model(bytes, &path.display().to_string(), directory, options)
}

/// A model from the bytes of an ONNX file; `name` is for messages.
///
/// The network computes what the file's first output holds. Files of others say nothing of class names and preprocessing:
/// classes are then numbered, and pixels from 0 to 1 go in.
///
/// # Errors
/// A damaged file, a graph that is no image classifier, or nodes that there are no layers for: all of those at once. A
/// refusal takes little time and memory whatever the file claims.
///
/// ```
/// # use striate::data::{Normalization, Preprocessing};
/// # use striate::data::preprocessing::Fit;
/// # use striate::formats::{ModelFile, OnnxOptions, TestVectors, from_onnx, to_onnx};
/// # use striate::{models, network::Network, shape::Shape};
/// # let input = Shape::new(1, 28, 28);
/// # let model = ModelFile {
/// #     network: Network::new(models::by_name("simple-convnet", input, 10)?, 1)?,
/// #     class_names: (0..10).map(|digit| digit.to_string()).collect(),
/// #     preprocessing: Preprocessing { shape: input, fit: Fit::Stretch, normalization: Normalization::identity() },
/// #     training: serde_json::Value::Null,
/// #     metrics: serde_json::Value::Null,
/// #     test_vectors: TestVectors::none(),
/// #     temperature: None,
/// #     quantized: None,
/// # };
/// let bytes = to_onnx(&model, OnnxOptions::default())?;
/// let again = from_onnx(bytes, "digits.onnx", Default::default())?;
/// assert_eq!(again.network.parameters(), model.network.parameters());
/// assert_eq!(again.class_names[7], "7");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn from_onnx(bytes: Vec<u8>, name: &str, options: ImportOptions) -> Result<ModelFile, OnnxImportError> {
    import::model(bytes, name, None, options)
}
