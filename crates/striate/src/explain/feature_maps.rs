//! The outputs of every layer for one image (section 7.6): how it is taken apart on its way to the classes.

use super::{ExplainError, lens};
use crate::network::{Mode, Network, Taps};
use ndarray::{Array3, ArrayView3};

/// What one layer makes of an image.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureMaps {
    /// The layer's name; `input` for the image itself.
    pub layer: String,
    /// The layer's kind: `Convolution`.
    pub kind: &'static str,
    /// (C, H, W); of a flat layer (features, 1, 1).
    pub values: Array3<f32>,
}

/// The outputs of the input and of every layer, in order. A softmax at the end is left out: its values are the logits.
///
/// ```
/// use striate::{explain, models, network::Network, shape::Shape};
/// let network = Network::new(models::by_name("simple-convnet", Shape::new(1, 28, 28), 10)?, 1)?;
/// let maps = explain::feature_maps(&network, ndarray::Array3::zeros((1, 28, 28)).view())?;
/// let sizes: Vec<_> = maps.iter().map(|m| (m.layer.as_str(), m.values.dim())).collect();
/// assert_eq!(sizes[..3], [("input", (1, 28, 28)), ("Conv1", (30, 24, 24)), ("Relu1", (30, 24, 24))]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// An image that is not the network's input, or memory that can't be had.
pub fn feature_maps(network: &Network, x: ArrayView3<'_, f32>) -> Result<Vec<FeatureMaps>, ExplainError> {
    lens::check_sample(network, x)?;
    let description = network.description();
    let mut runner = lens::runner(network, 1, Mode::Inference, &Taps::all(description))?;
    runner.write_input(x);
    runner.predict(network.parameters());
    let mut maps = vec![FeatureMaps { layer: "input".into(), kind: "Input", values: x.to_owned() }];
    for node in description.nodes()? {
        let values = runner.tap(&node.named.name).unwrap_or_default();
        let kind = node.named.layer.rule().kind();
        maps.push(FeatureMaps { layer: node.named.name.clone(), kind, values: lens::array(node.output, values) });
    }
    Ok(maps)
}
