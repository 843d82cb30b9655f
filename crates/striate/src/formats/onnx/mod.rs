//! ONNX, the format that every runtime reads.
//!
//! [`to_onnx`] writes a model as operator set 17 with an open batch size: input `input`, (N, C, H, W), output `logits`,
//! (N, classes). A model in bytes becomes a graph with pairs of QuantizeLinear and DequantizeLinear (QDQ): weights are int8
//! with a scale for each output channel, and runtimes that compute with bytes do. Parameters keep their names (`W1`, `b1`), and each layer's output has the layer's name. Class names and
//! preprocessing travel in the file's metadata (`striate.classes`, `striate.preprocessing`, as JSON).

mod export;
mod proto;

use super::ModelFile;
use crate::network::NetworkError;

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

/// Why a model can't be written as ONNX.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum OnnxError {
    /// A layer that ONNX has no operator for.
    #[error("layer {layer} can't be written as ONNX: {reason}")]
    Unsupported {
        /// The layer.
        layer: String,
        /// Why, and what to do.
        reason: String,
    },
    /// A layer with the name of the graph's input or output.
    #[error("a layer is called {name:?}, which is the name of the ONNX graph's own input or output; rename the layer")]
    ReservedName {
        /// The name.
        name: String,
    },
    /// The description does not make a network.
    #[error(transparent)]
    Network(#[from] NetworkError),
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
