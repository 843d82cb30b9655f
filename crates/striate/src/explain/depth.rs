//! What changes with depth (section 7.6.2): the patches of images that make a unit answer most.

use super::{ExplainError, Images, lens};
use crate::layers::Layer;
use crate::network::{Network, ReceptiveField};
use std::ops::Range;

/// A place in an image that a unit answers to.
#[derive(Clone, Debug, PartialEq)]
pub struct Patch {
    /// The image's number.
    pub image: usize,
    /// The unit's output there.
    pub activation: f32,
    /// Row and column in the unit's map.
    pub at: (usize, usize),
    /// Rows of the image that the output depends on, padding cut off: the exact receptive field.
    pub rows: Range<usize>,
    /// Columns of the image.
    pub columns: Range<usize>,
}

/// A unit with the patches it answers to most.
#[derive(Clone, Debug, PartialEq)]
pub struct Unit {
    /// The map of the layer.
    pub unit: usize,
    /// One an image, the strongest first.
    pub patches: Vec<Patch>,
}

/// A layer with some of its units.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerPatches {
    /// The layer.
    pub layer: String,
    /// What one number of its output depends on.
    pub field: ReceptiveField,
    /// The rows and columns of the image that the number in the middle of its map depends on.
    pub middle: (Range<usize>, Range<usize>),
    /// As they were asked for.
    pub units: Vec<Unit>,
}

/// Of each of the units of `layers`, given by layer, the `top` images that it answers to most, with the place of its
/// largest output. The layers should be [`activations`].
///
/// # Errors
/// A layer or a unit that does not exist, images that are not the network's inputs, or memory that can't be had.
pub fn top_patches(
    network: &Network,
    layers: &[(&str, &[usize])],
    images: &Images<'_>,
    top: usize,
) -> Result<Vec<LayerPatches>, ExplainError> {
    let (description, input) = (network.description(), network.input());
    let fields = description.receptive_fields()?;
    let mut found = Vec::with_capacity(layers.len());
    let mut shapes = Vec::with_capacity(layers.len());
    for &(layer, units) in layers {
        let shape = lens::shape_of(description, layer)?;
        if let Some(unit) = units.iter().find(|&&unit| unit >= shape.channels) {
            let expected = format!("0 to {} in layer {layer}", shape.channels - 1);
            return Err(ExplainError::Option { option: "the unit", found: unit.to_string(), expected });
        }
        let position = description.layers.iter().position(|named| named.name == layer).unwrap_or(0);
        shapes.push(shape);
        found.push(LayerPatches {
            layer: layer.into(),
            field: fields[position],
            middle: fields[position].patch((shape.height / 2, shape.width / 2), input),
            units: units.iter().map(|&unit| Unit { unit, patches: Vec::new() }).collect(),
        });
    }
    let names: Vec<&str> = layers.iter().map(|&(layer, _)| layer).collect();
    images.outputs(network, &names, |l, k, sample| {
        let (shape, LayerPatches { field, units, .. }) = (shapes[l], &mut found[l]);
        for Unit { unit, patches } in units {
            let map = &sample[*unit * shape.area()..][..shape.area()];
            let (mut at, mut activation) = (0, f32::MIN);
            for (i, &v) in map.iter().enumerate() {
                if v > activation {
                    (at, activation) = (i, v);
                }
            }
            if patches.len() == top && patches.last().is_none_or(|last| last.activation >= activation) {
                continue;
            }
            let at = (at / shape.width, at % shape.width);
            let (rows, columns) = field.patch(at, input);
            let place = patches.partition_point(|patch| patch.activation >= activation);
            patches.insert(place, Patch { image: images.index(k), activation, at, rows, columns });
            patches.truncate(top);
        }
    })?;
    Ok(found)
}

/// A layer whose units are worth looking at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activation {
    /// What makes of a convolution or an affine layer the numbers that the next layers see: its activation, if it has one.
    pub layer: String,
    /// The same before the nonlinearity, which hides the way uphill wherever a unit is not active: what to
    /// [`maximize`](super::maximize()).
    pub linear: String,
    /// How many units it has.
    pub units: usize,
}

/// For every convolution and every affine layer its activation, from the input to the classes.
///
/// # Errors
/// Layers that do not fit together.
pub fn activations(network: &Network) -> Result<Vec<Activation>, ExplainError> {
    let nodes = network.description().nodes()?;
    let learns = |at: &usize| matches!(nodes[*at].named.layer, Layer::Convolution(_) | Layer::Affine(_));
    let activation = |at: usize| {
        let end = lens::activation_of(&nodes, at);
        let normalized = |at: &usize| matches!(nodes[*at].named.layer, Layer::BatchNorm(_));
        let linear = (at + 1..=end).take_while(normalized).last().unwrap_or(at);
        let name = |at: usize| nodes[at].named.name.clone();
        Activation { layer: name(end), linear: name(linear), units: nodes[end].output.channels }
    };
    Ok((0..nodes.len()).filter(learns).map(activation).collect())
}

/// How many units `layer` has: maps, or numbers where its output is flat; channels for `input`.
///
/// # Errors
/// A layer that does not exist.
pub fn units(network: &Network, layer: &str) -> Result<usize, ExplainError> {
    if layer == "input" {
        return Ok(network.input().channels);
    }
    Ok(lens::shape_of(network.description(), layer)?.channels)
}
