//! What changes with depth (section 7.6.2): the patches of images that make a unit answer most.

use super::{ExplainError, lens};
use crate::data::{Dataset, Normalization};
use crate::network::{Mode, Network, Taps};
use std::ops::Range;

/// Images a pass takes at a time.
const IMAGES: usize = 50;

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

/// Of each of `units` of `layer` the `top` images among the first `images` of `data` that it answers to most, with the
/// place of its largest output. `layer` should be an activation.
///
/// # Errors
/// A layer or a unit that does not exist, images that are not the network's inputs, or memory that can't be had.
pub fn top_patches(
    network: &Network,
    layer: &str,
    units: &[usize],
    data: &Dataset,
    images: usize,
    normalization: &Normalization,
    top: usize,
) -> Result<Vec<Unit>, ExplainError> {
    let (description, input) = (network.description(), network.input());
    let shape = lens::shape_of(description, layer)?;
    if let Some(unit) = units.iter().find(|&&unit| unit >= shape.channels) {
        let expected = format!("0 to {}", shape.channels - 1);
        return Err(ExplainError::Option { option: "the unit", found: unit.to_string(), expected });
    }
    if data.shape() != input {
        return Err(ExplainError::Data { data: data.name().into(), found: data.shape(), expected: input });
    }
    let position = description.layers.iter().position(|named| named.name == layer).unwrap_or(0);
    let field = description.receptive_fields()?[position];
    let images = images.min(data.len());
    let mut found: Vec<Unit> = units.iter().map(|&unit| Unit { unit, patches: Vec::new() }).collect();
    let mut runner = lens::runner(network, IMAGES, Mode::Inference, &Taps::of([layer]))?;
    for start in (0..images).step_by(IMAGES) {
        let indices: Vec<usize> = (start..start + IMAGES).map(|i| i.min(images - 1)).collect();
        data.gather(&indices, normalization, runner.input_mut());
        runner.predict(network.parameters());
        let values = runner.tap(layer).unwrap_or_default();
        for (k, sample) in values.chunks_exact(shape.len()).enumerate().take(images - start) {
            for Unit { unit, patches } in &mut found {
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
                patches.insert(place, Patch { image: start + k, activation, at, rows, columns });
                patches.truncate(top);
            }
        }
    }
    Ok(found)
}

/// For every convolution its activation, the layer whose units are worth looking at.
///
/// # Errors
/// Layers that do not fit together, or no convolution.
pub fn activations(network: &Network) -> Result<Vec<String>, ExplainError> {
    let nodes = network.description().nodes()?;
    let found: Vec<String> = (0..nodes.len())
        .filter(|&at| lens::is_convolution(&nodes[at]))
        .map(|at| nodes[lens::activation_of(&nodes, at)].named.name.clone())
        .collect();
    if found.is_empty() {
        return Err(ExplainError::NeedsConvolution {
            view: "depth",
            network: network.description().name.clone(),
            layers: nodes.iter().map(|node| node.named.name.clone()).collect(),
        });
    }
    Ok(found)
}
