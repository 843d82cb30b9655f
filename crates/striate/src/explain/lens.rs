//! What the views share: checks, and passes over single images.

use super::ExplainError;
use crate::layers::{Layer, Reach, expect_shape};
use crate::network::description::{Node, Source};
use crate::network::{Description, Mode, Network, NetworkError, Plan, Runner, Taps};
use crate::shape::Shape;
use ndarray::{Array3, ArrayView3};

/// Samples that a pass over many variants of one image works on at a time.
pub(super) const BATCH: usize = 16;

/// Whether `x` (C, H, W) is an input of the network.
pub(super) fn check_sample(network: &Network, x: ArrayView3<'_, f32>) -> Result<(), ExplainError> {
    let expected = <[usize; 3]>::from(network.input());
    expect_shape("the image (channels, height, width)", &expected, x.shape()).map_err(NetworkError::from)?;
    match x.indexed_iter().find(|(_, value)| !value.is_finite()) {
        Some(((c, y, x), &value)) => {
            Err(NetworkError::NonFinite { what: "the image".into(), value, index: vec![c, y, x] }.into())
        }
        None => Ok(()),
    }
}

pub(super) fn check_class(network: &Network, class: usize) -> Result<(), ExplainError> {
    if class < network.classes() {
        return Ok(());
    }
    let available = (0..network.classes()).map(|class| class.to_string()).collect();
    Err(ExplainError::UnknownClass { class: class.to_string(), available })
}

/// A runner with taps.
pub(super) fn runner(network: &Network, batch: usize, mode: Mode, taps: &Taps) -> Result<Runner, ExplainError> {
    Ok(Runner::new(Plan::with_taps(network.description(), batch, mode, taps)?)?)
}

/// The layer whose output is the logits.
pub(super) fn last_layer(network: &Network) -> &str {
    network.description().last()
}

/// A tap's numbers of one sample as an array.
pub(super) fn array(shape: Shape, values: &[f32]) -> Array3<f32> {
    let dim = (shape.channels, shape.height, shape.width);
    Array3::from_shape_vec(dim, values.to_vec()).unwrap_or_else(|_| Array3::zeros(dim))
}

/// The output of a layer, one sample.
pub(super) fn shape_of(description: &Description, layer: &str) -> Result<Shape, ExplainError> {
    let nodes = description.nodes()?;
    match nodes.iter().find(|node| node.named.name == layer) {
        Some(node) => Ok(node.output),
        None => Err(NetworkError::UnknownLayer {
            name: layer.into(),
            available: nodes.iter().map(|node| node.named.name.clone()).collect(),
        }
        .into()),
    }
}

/// Position of the layer that a parameter belongs to.
pub(super) fn owner_of(network: &Network, parameter: &str) -> Result<usize, ExplainError> {
    let owners = network.description().parameter_owners()?;
    let at = network.parameters().specs().iter().position(|spec| spec.name == parameter);
    Ok(at.and_then(|at| owners.get(at).copied()).unwrap_or_default())
}

pub(super) fn is_convolution(node: &Node<'_>) -> bool {
    matches!(node.named.layer, Layer::Convolution(_))
}

/// Position of the last layer that works on the output of the convolution at `at` place by place: its activation.
pub(super) fn activation_of(nodes: &[Node<'_>], at: usize) -> usize {
    let mut end = at;
    while let Some(next) = nodes.get(end + 1)
        && next.sources == [Source::Layer(end)]
        && next.named.layer.rule().reach() == Reach::Point
        && next.output == nodes[at].output
    {
        end += 1;
    }
    end
}

/// The layer asked for, if its output has maps; or else the activation of the last convolution.
pub(super) fn maps_layer(
    network: &Network,
    layer: Option<&str>,
    view: &'static str,
) -> Result<(String, Shape), ExplainError> {
    let nodes = network.description().nodes()?;
    let names = |nodes: Vec<&Node<'_>>| nodes.iter().map(|node| node.named.name.clone()).collect();
    let Some(name) = layer else {
        let Some(last) = nodes.iter().rposition(is_convolution) else {
            return Err(ExplainError::NeedsConvolution {
                view,
                network: network.description().name.clone(),
                layers: names(nodes.iter().collect()),
            });
        };
        let node = &nodes[activation_of(&nodes, last)];
        return Ok((node.named.name.clone(), node.output));
    };
    let shape = shape_of(network.description(), name)?;
    if shape.is_flat() {
        let available = names(nodes.iter().filter(|node| !node.output.is_flat()).collect());
        return Err(ExplainError::NoMaps { layer: name.into(), view, available });
    }
    Ok((name.into(), shape))
}
