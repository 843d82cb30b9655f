//! Networks in bytes: post-training quantization and inference with 8-bit whole numbers.
//!
//! A byte `q` of a value stands for `scale (q - zero_point)` (Jacob et al. 2018, "Quantization and Training of Neural
//! Networks for Efficient Integer-Arithmetic-Only Inference"). Activations have one such pair a layer, fixed by
//! [`Calibration`] on sample images; weights are signed bytes with one scale an output channel and zero point 0.
//! A [`QuantizedNetwork`] is the result, and a [`Predictor`] runs it.
//!
//! Sums of products are exact, and each number is rounded once, by operations that IEEE 754 defines to the bit: a
//! quantized network gives the same bytes on every instruction set and for any number of threads.
//!
//! ```
//! use ndarray::Array4;
//! use striate::int8::{self, Predictor};
//! use striate::{models, network::Network};
//! let network = Network::new(models::build("simple-convnet", &Default::default())?, 1)?;
//! let images = Array4::from_shape_fn((8, 1, 28, 28), |(n, _, y, x)| ((n + y * x) % 9) as f32 / 8.0);
//! let mut calibration = int8::Calibration::new(&network, int8::CalibrationOptions::default())?;
//! calibration.observe(images.view())?;
//! let quantized = calibration.finish()?;
//! let logits = Predictor::new(&quantized, 8)?.predict(images.view())?;
//! let expected = network.predict(images.view())?;
//! assert!(logits.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 0.05));
//! # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
//! ```

mod calibrate;
mod compile;
mod fold;
mod run;

pub use calibrate::{Calibration, CalibrationOptions};
pub use fold::fold;
pub use run::Predictor;

use crate::layers::Layer;
use crate::network::description::Node;
use crate::network::{Network, NetworkError};
use compile::Program;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Why a network can't be quantized, or a quantized one not be run.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Int8Error {
    /// The network itself.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// Nothing was observed.
    #[error("no images to calibrate on; activations are scaled by what they are on sample images, so give some")]
    NoImages,
    /// The network computes something that has no scale.
    #[error("layer {layer}: the output is {value} for one of the calibration images; every value must be finite")]
    NonFinite {
        /// The layer, or `input`.
        layer: String,
        /// NaN or infinity.
        value: f32,
    },
    /// A calibration option.
    #[error("the {field} is {found}; expected {expected}")]
    Option {
        /// Which.
        field: &'static str,
        /// What it is.
        found: String,
        /// What it may be.
        expected: &'static str,
    },
    /// A scale or zero point that makes no sense.
    #[error("layer {layer}: {what} is {found}; expected {expected}")]
    Scale {
        /// The layer, or `input`.
        layer: String,
        /// Which number.
        what: &'static str,
        /// What it is.
        found: String,
        /// What it may be.
        expected: &'static str,
    },
    /// Sums that an i32 does not hold.
    #[error(
        "layer {layer}: the products of output channel {channel} can add up to {sum}, beyond a 32-bit number; leave the \
         layer in float"
    )]
    Overflow {
        /// The layer.
        layer: String,
        /// The output channel.
        channel: usize,
        /// The largest sum there could be.
        sum: u64,
    },
    /// Weights for a layer that can't have any, or of the wrong number.
    #[error("layer {layer}: found {found}, expected {expected}")]
    Weights {
        /// The layer.
        layer: String,
        /// What is there.
        found: String,
        /// What should be.
        expected: String,
    },
    /// A layer of several inputs that has no form in bytes.
    #[error("layer {layer}: {kind} of several inputs has no form in bytes; this network can't be quantized")]
    Unsupported {
        /// The layer.
        layer: String,
        /// Its kind.
        kind: &'static str,
    },
}

/// What the bytes of an activation stand for: `scale (q - zero_point)`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuantizationParameters {
    /// The step from byte to byte; positive and finite.
    pub scale: f32,
    /// The byte of 0, which is always exact: padding and ReLU need it.
    pub zero_point: u8,
}

impl QuantizationParameters {
    /// For numbers from `low` to `high`; the range is widened to hold 0.
    pub fn of_range(low: f32, high: f32) -> Self {
        let (low, high) = (f64::from(low.min(0.0)), f64::from(high.max(0.0)));
        let scale = ((high - low) / 255.0) as f32;
        // Below this the inverse is no longer a number of full precision; a value that is always 0 needs no scale.
        if scale < 1e-30 {
            return Self { scale: 1.0, zero_point: 0 };
        }
        let zero_point = (-low / f64::from(scale)).round_ties_even().clamp(0.0, 255.0) as u8;
        Self { scale, zero_point }
    }

    /// What a byte stands for.
    pub fn number(&self, byte: u8) -> f32 {
        self.scale * (i32::from(byte) - i32::from(self.zero_point)) as f32
    }

    /// The byte nearest to a number.
    pub fn byte(&self, number: f32) -> u8 {
        crate::kernels::int8::to_byte(number / self.scale, self.zero_point)
    }

    fn pair(&self) -> (f32, u8) {
        (self.scale, self.zero_point)
    }
}

/// A layer's weights in bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizedWeights {
    /// In the order of the layer's own weights: filters (FN, C / groups, FH, FW), or (inputs, outputs).
    pub values: Vec<i8>,
    /// What a weight of each output channel is multiplied by.
    pub scales: Vec<f32>,
    /// One an output channel, in steps of the input's scale times the channel's.
    pub bias: Vec<i32>,
}

/// The largest weight: the ends are alike, so that a sign can be changed.
const MOST: f32 = 127.0;

/// The bound of a bias: half of what an i32 holds, which leaves the other half to the products.
const MOST_BIAS: f64 = (1u32 << 30) as f64;

impl QuantizedWeights {
    /// The nearest bytes of `w`, whose output channels are the rows or, for an affine layer, the columns; and the bias in
    /// whole steps, for inputs of scale `input`.
    fn round(w: &[f32], bias: &[f32], outputs: usize, by_columns: bool, input: f32) -> Self {
        let per_output = w.len() / outputs.max(1);
        let channel = |i: usize| if by_columns { i % outputs } else { i / per_output.max(1) };
        let mut largest = vec![0.0f32; outputs];
        for (i, w) in w.iter().enumerate() {
            largest[channel(i)] = largest[channel(i)].max(w.abs());
        }
        let scale = |(i, &largest): (usize, &f32)| {
            let bias = bias.get(i).map_or(0.0, |&bias| f64::from(bias).abs());
            let least = (bias / (f64::from(input) * MOST_BIAS)) as f32;
            let scale = (largest / MOST).max(least);
            if scale > f32::MIN_POSITIVE { scale } else { 1.0 }
        };
        let scales: Vec<f32> = largest.iter().enumerate().map(scale).collect();
        let byte = |(i, &w): (usize, &f32)| (w / scales[channel(i)]).round_ties_even().clamp(-MOST, MOST) as i8;
        let values = w.iter().enumerate().map(byte).collect();
        let step = |(i, &scale): (usize, &f32)| {
            let bias = bias.get(i).map_or(0.0, |&bias| f64::from(bias));
            (bias / (f64::from(input) * f64::from(scale))).round_ties_even() as i32
        };
        let bias = scales.iter().enumerate().map(step).collect();
        Self { values, scales, bias }
    }

    /// The numbers that the bytes stand for: weights and bias.
    fn numbers(&self, by_columns: bool, input: f32) -> (Vec<f32>, Vec<f32>) {
        let outputs = self.scales.len();
        let per_output = self.values.len() / outputs.max(1);
        let channel = |i: usize| if by_columns { i % outputs } else { i / per_output.max(1) };
        let weights = self.values.iter().enumerate().map(|(i, &w)| f32::from(w) * self.scales[channel(i)]).collect();
        let number = |(&bias, &scale): (&i32, &f32)| (f64::from(bias) * f64::from(input) * f64::from(scale)) as f32;
        (weights, self.bias.iter().zip(&self.scales).map(number).collect())
    }

    /// Whether every sum that the layer can have fits an i32.
    fn check(&self, layer: &str, by_columns: bool) -> Result<(), Int8Error> {
        let outputs = self.scales.len();
        let per_output = self.values.len() / outputs.max(1);
        let (mut sizes, mut sums) = (vec![0u64; outputs], vec![0i64; outputs]);
        for (i, &w) in self.values.iter().enumerate() {
            let channel = if by_columns { i % outputs } else { i / per_output.max(1) };
            sizes[channel] += u64::from(w.unsigned_abs());
            sums[channel] += i64::from(w);
        }
        for (channel, ((size, sum), bias)) in sizes.iter().zip(&sums).zip(&self.bias).enumerate() {
            let sum = 255 * (size + sum.unsigned_abs()) + u64::from(bias.unsigned_abs());
            if sum > i32::MAX as u64 {
                return Err(Int8Error::Overflow { layer: layer.to_string(), channel, sum });
            }
        }
        Ok(())
    }
}

/// A network in bytes, ready to run.
#[derive(Clone, Debug)]
pub struct QuantizedNetwork {
    /// The folded network; its weights are the numbers that the bytes stand for.
    network: Network,
    /// Of the input, then of each layer's output.
    activations: Vec<QuantizationParameters>,
    /// Of each layer that computes with bytes and has any.
    weights: Vec<Option<QuantizedWeights>>,
    program: Arc<Program>,
}

impl QuantizedNetwork {
    /// Puts together a network that is folded ([`fold`]), the parameters of its input and of each layer's output, and each
    /// convolution's and affine layer's weights in bytes; a layer without them is computed in float. The network's own
    /// weights become those that the bytes stand for.
    ///
    /// # Errors
    /// Parts that do not fit each other, scales that are not positive numbers, or sums beyond an i32.
    pub fn new(
        mut network: Network,
        activations: Vec<QuantizationParameters>,
        weights: Vec<Option<QuantizedWeights>>,
    ) -> Result<Self, Int8Error> {
        let description = network.description().clone();
        let nodes = description.nodes()?;
        let wrong = |layer: &str, found: String, expected: String| Int8Error::Weights {
            layer: layer.to_string(),
            found,
            expected,
        };
        if activations.len() != nodes.len() + 1 || weights.len() != nodes.len() {
            let found = format!("{} scales and {} weights", activations.len(), weights.len());
            return Err(wrong(&description.name, found, format!("one a layer, of which there are {}", nodes.len())));
        }
        let names = std::iter::once(crate::network::description::INPUT)
            .chain(description.layers.iter().map(|named| named.name.as_str()));
        for (layer, activation) in names.zip(&activations) {
            check_scale(layer, "the scale of the output", activation.scale)?;
        }
        let owners = description.parameter_owners()?;
        let specs = network.parameters().specs().to_vec();
        for (i, (node, weights)) in nodes.iter().zip(&weights).enumerate() {
            let Some(weights) = weights else { continue };
            let layer = node.named.name.as_str();
            let Some((outputs, by_columns)) = outputs(node) else {
                let found = format!("weights for a {}", node.named.layer.rule().kind());
                return Err(wrong(layer, found, "weights for convolutions and affine layers alone".into()));
            };
            let of_layer: Vec<_> =
                specs.iter().zip(&owners).filter(|(_, owner)| **owner == i).map(|(spec, _)| spec).collect();
            let expected = of_layer.first().map_or(0, |spec| spec.range.len());
            if (weights.values.len(), weights.scales.len(), weights.bias.len()) != (expected, outputs, outputs) {
                let shown = |values: usize, scales: usize, biases: usize| {
                    format!("{values} weights, {scales} scales and {biases} biases")
                };
                let found = shown(weights.values.len(), weights.scales.len(), weights.bias.len());
                return Err(wrong(layer, found, shown(expected, outputs, outputs)));
            }
            for &scale in &weights.scales {
                check_scale(layer, "the scale of a weight", scale)?;
            }
            weights.check(layer, by_columns)?;
            let input = activations[compile::index(node.sources.first())].scale;
            let (numbers, bias) = weights.numbers(by_columns, input);
            for (spec, values) in of_layer.iter().zip([numbers, bias]) {
                network.parameters_mut().as_mut_slice()[spec.range.clone()].copy_from_slice(&values);
            }
        }
        let program = Arc::new(Program::new(&network, &activations, &weights)?);
        Ok(Self { network, activations, weights, program })
    }

    /// The network whose weights are the numbers that the bytes stand for.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// What the bytes of the input stand for, then those of each layer's output.
    pub fn activations(&self) -> &[QuantizationParameters] {
        &self.activations
    }

    /// The weights of each layer in bytes, where it has any.
    pub fn weights(&self) -> &[Option<QuantizedWeights>] {
        &self.weights
    }

    /// The names of the layers that are computed in float, because they have no form in bytes.
    pub fn float_layers(&self) -> impl Iterator<Item = &str> {
        self.program.float_layers()
    }
}

fn check_scale(layer: &str, what: &'static str, scale: f32) -> Result<(), Int8Error> {
    if scale.is_normal() && scale > 0.0 {
        return Ok(());
    }
    let (layer, found) = (layer.to_string(), scale.to_string());
    Err(Int8Error::Scale { layer, what, found, expected: "a positive number" })
}

/// Output channels of a layer with weights, and whether they are the columns of these.
fn outputs(node: &Node<'_>) -> Option<(usize, bool)> {
    match &node.named.layer {
        Layer::Convolution(options) => Some((options.filters, false)),
        Layer::Affine(options) => Some((options.outputs, true)),
        _ => None,
    }
}
