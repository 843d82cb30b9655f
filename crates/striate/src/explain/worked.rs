//! How one number of a layer's output comes about: the chapter's worked example (section 7.2.2), at any place of any layer.

use super::{ExplainError, FeatureMaps};
use crate::layers::{Layer, PoolingKind};
use crate::network::description::{Node, Source};
use crate::network::{Network, NetworkError};
use ndarray::{Array2, ArrayView2, s};
use std::ops::Range;

/// One number and what it was made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Worked {
    /// Map, row and column in the layer's output; of a flat layer (feature, 0, 0).
    pub at: (usize, usize, usize),
    /// The number.
    pub value: f32,
    /// Rows and columns of the image that it depends on, padding cut off.
    pub field: (Range<usize>, Range<usize>),
    /// How it was made.
    pub work: Work,
}

/// What a layer does at one place.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// Multiply, add up, add the bias: convolution, affine.
    Sum {
        /// One a channel that the filter sees.
        terms: Vec<Term>,
        /// 0 where there is none.
        bias: f32,
    },
    /// The largest or the mean of a window: pooling.
    Window {
        /// Which.
        pooling: PoolingKind,
        /// The window of the same map; NaN in the padding.
        values: Array2<f32>,
    },
    /// Something of the numbers at the same place of its inputs: activations, normalisations, sums.
    Point {
        /// One an input.
        inputs: Vec<f32>,
    },
}

/// What one channel adds to a sum.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// Of the layer's input.
    pub channel: usize,
    /// The window of that channel, 0 in the padding; a channel of its own size where the layer sees all of it.
    pub window: Array2<f32>,
    /// The weights that it is multiplied with, number by number.
    pub weights: Array2<f32>,
    /// The sum of the products.
    pub sum: f32,
}

/// How the number `at` (map, row, column) of `layer` came about, from what [`feature_maps`](super::feature_maps()) gave for the
/// image.
///
/// ```
/// use striate::{explain::{self, Work}, models, network::Network, shape::Shape};
/// let network = Network::new(models::by_name("simple-convnet", Shape::new(1, 28, 28), 10)?, 1)?;
/// let maps = explain::feature_maps(&network, ndarray::Array3::from_elem((1, 28, 28), 0.5).view())?;
/// let worked = explain::worked(&network, &maps, "Conv1", (3, 4, 5))?;
/// assert_eq!(worked.field, (4..9, 5..10));
/// let Work::Sum { terms, bias } = worked.work else { panic!() };
/// assert!((terms[0].sum + bias - worked.value).abs() < 1e-6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// A layer that is not among the maps, a place outside its output, or maps of another network.
pub fn worked(
    network: &Network,
    maps: &[FeatureMaps],
    layer: &str,
    at: (usize, usize, usize),
) -> Result<Worked, ExplainError> {
    let nodes = network.description().nodes()?;
    let unknown = || NetworkError::UnknownLayer {
        name: layer.into(),
        available: nodes.iter().map(|node| node.named.name.clone()).collect(),
    };
    let position = nodes.iter().position(|node| node.named.name == layer).ok_or_else(unknown)?;
    // The input comes before the layers.
    let (own, node) = (maps.get(position + 1).ok_or_else(unknown)?, &nodes[position]);
    let Some(&value) = own.values.get(at) else {
        let (channels, height, width) = own.values.dim();
        return Err(ExplainError::Option {
            option: "the place (map, row, column)",
            found: format!("{at:?}"),
            expected: format!("within the {channels} maps of {height} x {width} of {layer}"),
        });
    };
    let inputs: Vec<&FeatureMaps> = node
        .sources
        .iter()
        .filter_map(|source| {
            maps.get(match source {
                Source::Input => 0,
                Source::Layer(j) => j + 1,
            })
        })
        .collect();
    let field = network.description().receptive_fields()?[position].patch((at.1, at.2), network.input());
    let work =
        inputs.first().and_then(|input| work(network, node, position, input, &inputs, at)).unwrap_or_else(|| {
            Work::Point { inputs: inputs.iter().filter_map(|input| input.values.get(at).copied()).collect() }
        });
    Ok(Worked { at, value, field, work })
}

/// What a layer does, if it is more than something at one place.
fn work(
    network: &Network,
    node: &Node<'_>,
    position: usize,
    input: &FeatureMaps,
    inputs: &[&FeatureMaps],
    (map, row, column): (usize, usize, usize),
) -> Option<Work> {
    let owners = network.description().parameter_owners().ok()?;
    let mut own =
        network.parameters().iter().zip(&owners).filter(|(_, owner)| **owner == position).map(|(one, _)| one.1);
    let (weights, bias) = (own.next(), own.next());
    let bias = bias.as_ref().and_then(|bias| bias.as_slice()?.get(map).copied()).unwrap_or(0.0);
    let x = &input.values;
    let (channels, height, width) = x.dim();
    match &node.named.layer {
        Layer::Convolution(options) => {
            let weights = weights?.into_dimensionality::<ndarray::Ix4>().ok()?;
            let (filters, seen, rows, columns) = weights.dim();
            let first = map / (filters / options.groups.max(1)).max(1) * seen;
            let window = options.window;
            let place = |at: usize, stride: usize, step: usize, dilation: usize, before: usize| {
                (at * stride + step * dilation).checked_sub(before)
            };
            let terms = (0..seen).map(|k| {
                let number = |(y, x_): (usize, usize)| {
                    let y = place(row, window.stride.0, y, window.dilation.0, window.padding.top);
                    let x_ = place(column, window.stride.1, x_, window.dilation.1, window.padding.left);
                    y.zip(x_).and_then(|(y, x_)| x.get((first + k, y, x_)).copied()).unwrap_or(0.0)
                };
                let window = Array2::from_shape_fn((rows, columns), number);
                term(first + k, window, weights.slice(s![map, k, .., ..]))
            });
            Some(Work::Sum { terms: terms.collect(), bias })
        }
        Layer::Affine(_) => {
            let weights = weights?.into_dimensionality::<ndarray::Ix2>().ok()?;
            let area = height * width;
            let terms = (0..channels).map(|channel| {
                let weight = |(y, x): (usize, usize)| {
                    weights.get((channel * area + y * width + x, map)).copied().unwrap_or(f32::NAN)
                };
                let weights = Array2::from_shape_fn((height, width), weight);
                term(channel, x.slice(s![channel, .., ..]).to_owned(), weights.view())
            });
            Some(Work::Sum { terms: terms.collect(), bias })
        }
        Layer::Pooling(options) => {
            let window = options.window;
            let number = |(y, x_): (usize, usize)| {
                let y = (row * window.stride.0 + y * window.dilation.0).checked_sub(window.padding.top);
                let x_ = (column * window.stride.1 + x_ * window.dilation.1).checked_sub(window.padding.left);
                y.zip(x_).and_then(|(y, x_)| x.get((map, y, x_)).copied()).unwrap_or(f32::NAN)
            };
            Some(Work::Window { pooling: options.pooling, values: Array2::from_shape_fn(window.kernel, number) })
        }
        Layer::AdaptivePooling(options) => {
            let part = |at: usize, from: usize, to: usize| at * from / to..((at + 1) * from).div_ceil(to);
            let (rows, columns) = (part(row, height, options.output.0), part(column, width, options.output.1));
            let values = x.slice(s![map, rows, columns]).to_owned();
            Some(Work::Window { pooling: PoolingKind::Average, values })
        }
        Layer::Flatten(_) => {
            let values: Vec<f32> = inputs.iter().flat_map(|input| input.values.iter().copied()).collect();
            Some(Work::Point { inputs: vec![values.get(map).copied()?] })
        }
        Layer::Concat(_) => {
            let mut left = map;
            let from = inputs.iter().find(|input| {
                let fits = left < input.values.dim().0;
                left -= if fits { 0 } else { input.values.dim().0 };
                fits
            })?;
            Some(Work::Point { inputs: vec![from.values.get((left, row, column)).copied()?] })
        }
        _ => None,
    }
}

fn term(channel: usize, window: Array2<f32>, weights: ArrayView2<'_, f32>) -> Term {
    let sum = window.iter().zip(weights).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum::<f64>() as f32;
    Term { channel, window, weights: weights.to_owned(), sum }
}

#[cfg(test)]
mod tests {
    use super::super::feature_maps;
    use super::*;
    use crate::models;
    use crate::shape::Shape;
    use ndarray::Array3;

    /// Every layer's numbers come out of what is said to make them.
    fn adds_up(model: &str, shape: Shape) -> usize {
        let network = Network::new(models::by_name(model, shape, 10).unwrap(), 3).unwrap();
        let x = Array3::from_shape_fn((shape.channels, shape.height, shape.width), |(c, y, x)| {
            ((c + 7 * y + 3 * x) % 11) as f32 / 11.0 - 0.2
        });
        let maps = feature_maps(&network, x.view()).unwrap();
        let mut checked = 0;
        for map in &maps[1..] {
            let (channels, height, width) = map.values.dim();
            for at in [(0, 0, 0), (channels / 2, height / 2, width / 3), (channels - 1, height - 1, width - 1)] {
                let worked = worked(&network, &maps, &map.layer, at).unwrap();
                assert_eq!(worked.value, map.values[at]);
                assert!(worked.field.0.end <= shape.height && worked.field.1.start < worked.field.1.end);
                let expected = match &worked.work {
                    Work::Sum { terms, bias } => terms.iter().map(|term| term.sum).sum::<f32>() + bias,
                    Work::Window { pooling: PoolingKind::Max, values } => {
                        values.iter().copied().fold(f32::MIN, f32::max)
                    }
                    Work::Window { values, .. } => {
                        let there = values.iter().filter(|v| !v.is_nan());
                        there.clone().sum::<f32>() / there.count() as f32
                    }
                    Work::Point { inputs } => match map.kind {
                        "ReLU" => inputs[0].max(0.0),
                        "Add" => inputs.iter().sum(),
                        "Flatten" | "Dropout" | "Concat" => inputs[0],
                        _ => continue,
                    },
                };
                let error = (expected - worked.value).abs() / worked.value.abs().max(1.0);
                assert!(error < 1e-4, "{model}, {} at {at:?}: {expected} is not {}", map.layer, worked.value);
                checked += 1;
            }
        }
        checked
    }

    #[test]
    fn what_is_said_to_make_a_number_makes_it() {
        assert!(adds_up("simple-convnet", Shape::new(1, 28, 28)) >= 18);
        assert!(adds_up("cifar-resnet20", Shape::new(3, 32, 32)) > 100);
        assert!(adds_up("mobilenet-v2", Shape::new(3, 64, 64)) > 100);
        assert!(adds_up("lenet", Shape::new(1, 28, 28)) > 10);
    }

    #[test]
    fn places_and_layers_that_are_not_there_are_named() {
        let network = Network::new(models::by_name("simple-convnet", Shape::new(1, 28, 28), 10).unwrap(), 3).unwrap();
        let maps = feature_maps(&network, Array3::zeros((1, 28, 28)).view()).unwrap();
        let error = worked(&network, &maps, "Conv1", (30, 0, 0)).unwrap_err().to_string();
        assert!(error.contains("30 maps of 24 x 24 of Conv1"), "{error}");
        assert!(worked(&network, &maps, "Conv9", (0, 0, 0)).unwrap_err().to_string().contains("Conv1"));
        assert!(worked(&network, &[], "Conv1", (0, 0, 0)).is_err());
    }
}
