//! How filters and what they make of an image came about: one moment of training after the other.

use super::filters::{Filters, filters};
use super::{ExplainError, lens};
use crate::network::{Mode, Network, Taps};
use ndarray::{Array3, ArrayView3};

/// A network at one moment of its training.
#[derive(Clone, Debug, PartialEq)]
pub struct Moment {
    /// The convolution's filters.
    pub filters: Filters,
    /// What it made of an image, if there was one.
    pub seen: Option<Seen>,
}

/// What a network made of an image at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// The layer whose output the maps are: the convolution's activation, or the convolution.
    pub layer: String,
    /// (C, H, W)
    pub maps: Array3<f32>,
    /// The logits of all classes.
    pub logits: Vec<f32>,
}

/// The filters of the convolution called `layer` (`Conv1`, or `W1` after its weights) or of the first, and what it makes of
/// an image (C, H, W).
///
/// ```
/// use striate::{explain, models, network::Network, shape::Shape};
/// let network = Network::new(models::by_name("simple-convnet", Shape::new(1, 28, 28), 10)?, 1)?;
/// let x = ndarray::Array3::from_elem((1, 28, 28), 0.5);
/// let moment = explain::moment(&network, Some("Conv1"), Some(x.view()))?;
/// let seen = moment.seen.unwrap();
/// assert_eq!((moment.filters.name.as_str(), seen.layer.as_str(), seen.maps.dim()), ("W1", "Relu1", (30, 24, 24)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// No convolution of this name, an image that is not the network's input, or memory that can't be had.
pub fn moment(network: &Network, layer: Option<&str>, x: Option<ArrayView3<'_, f32>>) -> Result<Moment, ExplainError> {
    let filters = filters(network, layer)?;
    let Some(x) = x else { return Ok(Moment { filters, seen: None }) };
    lens::check_sample(network, x)?;
    let nodes = network.description().nodes()?;
    let at = lens::owner_of(network, &filters.name)?;
    let node = &nodes[lens::activation_of(&nodes, at)];
    let layer = node.named.name.clone();
    let mut runner = lens::runner(network, 1, Mode::Inference, &Taps::of([layer.as_str()]))?;
    runner.write_input(x);
    let logits = runner.predict(network.parameters()).to_vec();
    let maps = lens::array(node.output, runner.tap(&layer).unwrap_or_default());
    Ok(Moment { filters, seen: Some(Seen { layer, maps, logits }) })
}
