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
//! let (_, quantized) = calibration.finish()?;
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
use crate::network::{Description, Network, NetworkError};
use crate::shape::Shape;
use compile::Program;
use ndarray::{Array2, ArrayView4};
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
    description: Description,
    classes: usize,
    /// Of the input, then of each layer's output.
    activations: Vec<QuantizationParameters>,
    /// Of each layer that computes with bytes and has any.
    weights: Vec<Option<QuantizedWeights>>,
    program: Arc<Program>,
}

impl QuantizedNetwork {
    /// Puts together a network that is folded ([`fold`]), the parameters of its input and of each layer's output, and each
    /// convolution's and affine layer's weights in bytes; a layer without them is computed in float. The weights of
    /// `network` become those that the bytes stand for.
    ///
    /// # Errors
    /// Parts that do not fit each other, scales that are not positive numbers, or sums beyond an i32.
    pub fn new(
        network: &mut Network,
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
        let program = Arc::new(Program::new(network, &activations, &weights)?);
        let classes = network.classes();
        Ok(Self { description, classes, activations, weights, program })
    }

    /// The layers, folded.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// One input sample.
    pub fn input(&self) -> Shape {
        self.description.input
    }

    /// Number of classes (logits).
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Logits, (N, classes), of a batch (N, C, H, W).
    ///
    /// # Errors
    /// An empty batch, samples of another shape, or a value that is not finite.
    pub fn predict(&self, x: ArrayView4<'_, f32>) -> Result<Array2<f32>, NetworkError> {
        Predictor::new(self, x.dim().0)?.predict(x)
    }

    /// What the bytes of the input stand for, then those of each layer's output.
    pub fn activations(&self) -> &[QuantizationParameters] {
        &self.activations
    }

    /// The weights of each layer in bytes, where it has any.
    pub fn weights(&self) -> &[Option<QuantizedWeights>] {
        &self.weights
    }

    /// The weights in bytes of the layer at this position, with the scale of its input.
    pub(crate) fn in_bytes(&self, position: usize) -> Option<(&QuantizedWeights, f32)> {
        let weights = self.weights.get(position)?.as_ref()?;
        let nodes = self.description.nodes().ok()?;
        Some((weights, self.activations[compile::index(nodes.get(position)?.sources.first())].scale))
    }

    /// Of each layer, whether its output is to be rounded to bytes on the way to the next: not the logits, if they are
    /// given as numbers, nor what the next layer rounds to the same bytes, nor what is bytes already.
    pub(crate) fn rounded_layers(&self) -> Result<Vec<bool>, NetworkError> {
        let nodes = self.description.nodes()?;
        let consumers = fold::consumers(&nodes);
        let mut rounded: Vec<bool> = nodes.iter().map(|_| true).collect();
        for (i, node) in nodes.iter().enumerate() {
            let (source, to) = (node.sources.first(), self.activations[i + 1]);
            let same = self.activations[compile::index(source)] == to;
            match &node.named.layer {
                Layer::Flatten(_) | Layer::Dropout(_) if same => rounded[i] = false,
                Layer::Relu(_) | Layer::Clip(_) if same => {
                    if let Some(crate::network::description::Source::Layer(j)) = source
                        && consumers[*j] == 1
                    {
                        rounded[*j] = false;
                    }
                }
                _ => {}
            }
        }
        if self.program.logits.is_none() {
            // The layer that gives the numbers, and views behind it.
            let last = nodes.iter().rposition(|node| !compile::is_view(node)).unwrap_or(0);
            rounded[last..].fill(false);
        }
        Ok(rounded)
    }

    /// The names of the layers that are computed in float, because they have no form in bytes.
    pub fn float_layers(&self) -> impl Iterator<Item = &str> {
        self.program.float_layers()
    }
}

/// The name of the kernels that sum products of bytes on this machine: `avx512-vnni`, `avx-vnni`, `avx2` or `portable`.
pub fn kernels() -> &'static str {
    crate::kernels::isa::int8::int8().name
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{AffineOptions, BatchNormOptions, ConcatOptions, ConvolutionOptions, Init, SoftmaxOptions};
    use crate::layers::{FlattenOptions, GeluOptions, LocalResponseNormOptions, PoolingOptions, ReluOptions};
    use crate::models;
    use crate::random::{Purpose, Random};
    use crate::shape::Window;
    use ndarray::Array4;

    fn images(shape: Shape, count: usize) -> Array4<f32> {
        let random = Random::new(7, Purpose::Test, 0);
        let mut at = 0;
        Array4::from_shape_simple_fn((count, shape.channels, shape.height, shape.width), || {
            at += 1;
            random.uniform(at)
        })
    }

    /// The logits in bytes are near those in float, measured by how far these are spread.
    fn assert_near(description: Description, most: f32) -> QuantizedNetwork {
        let network = Network::new(description, 5).unwrap();
        let x = images(network.input(), 4);
        let mut calibration = Calibration::new(&network, CalibrationOptions::default()).unwrap();
        calibration.observe(x.view()).unwrap();
        let (_, quantized) = calibration.finish().unwrap();
        let expected = network.predict(x.view()).unwrap();
        let found = Predictor::new(&quantized, 4).unwrap().predict(x.view()).unwrap();
        let (low, high) = expected.iter().fold((0.0f32, 0.0f32), |(low, high), &v| (low.min(v), high.max(v)));
        let worst = expected.iter().zip(&found).fold(0.0f32, |worst, (a, b)| worst.max((a - b).abs()));
        let name = &network.description().name;
        assert!(worst <= most * (high - low), "{name}: {worst} of {low} to {high}");
        // One by one they are the same: to the bit, where nothing is computed in float.
        let exact = quantized.float_layers().next().is_none();
        let mut one = Predictor::new(&quantized, 1).unwrap();
        for (x, row) in x.axis_chunks_iter(ndarray::Axis(0), 1).zip(found.rows()) {
            let alone = one.predict(x).unwrap();
            let close = |(a, b): (&f32, &f32)| if exact { a == b } else { (a - b).abs() < 1e-4 };
            assert!(alone.iter().zip(row).all(close), "{name}: {alone} {row}");
        }
        quantized
    }

    #[test]
    fn the_zoo_runs_in_bytes() {
        for name in ["simple-convnet", "lenet", "mnist-net", "cifar-net", "cifar-resnet20", "deep-convnet"] {
            let quantized = assert_near(models::build(name, &Default::default()).unwrap(), 0.06);
            assert_eq!(quantized.float_layers().count(), 0, "{name}");
        }
        let request = models::Request { input: Some(Shape::new(3, 64, 64)), classes: Some(10), settings: &[] };
        for name in ["resnet18", "mobilenet-v2"] {
            let quantized = assert_near(models::build(name, &request).unwrap(), 0.12);
            assert_eq!(quantized.float_layers().count(), 0, "{name}");
        }
    }

    #[test]
    fn what_has_no_form_in_bytes_is_computed_in_float() {
        let window = Window::square(3, 1, 1);
        let description = Description::new("mixed", Shape::new(3, 8, 8))
            .with("conv1", ConvolutionOptions::new(8, window, Init::He))
            .with("gelu", GeluOptions {})
            .with("lrn", LocalResponseNormOptions::default())
            .with_inputs("conv2", ConvolutionOptions::new(6, window, Init::He).without_bias(), ["lrn"])
            .with_inputs("concat", ConcatOptions {}, ["conv2", "lrn"])
            .with("norm", BatchNormOptions::default())
            .with("relu", ReluOptions {})
            .with("pool", PoolingOptions::average(Window::square(2, 2, 0)))
            .with("flat", FlattenOptions {})
            .with("flat-norm", BatchNormOptions::default())
            .with("classes", AffineOptions::new(5, Init::He))
            .with("softmax", SoftmaxOptions {});
        let quantized = assert_near(description, 0.06);
        assert_eq!(quantized.float_layers().collect::<Vec<_>>(), ["lrn", "softmax"]);
    }

    #[test]
    fn maps_as_answers_come_in_their_order() {
        let description = Description::new("maps", Shape::new(2, 6, 6))
            .with("conv", ConvolutionOptions::new(3, Window::square(3, 1, 0), Init::He));
        assert_near(description.clone(), 0.03);
        assert_near(description.with("flat", FlattenOptions {}), 0.03);
    }

    #[test]
    fn weights_keep_their_channel_s_largest_and_no_product_overflows() {
        let w = [0.5, -1.0, 0.25, 0.0, 0.0, 0.0];
        let rounded = QuantizedWeights::round(&w, &[1.0, 3.0], 2, false, 0.01);
        assert_eq!(rounded.values, [64, -127, 32, 0, 0, 0]);
        assert_eq!(rounded.bias[0], (1.0f64 / (0.01f32 as f64 * f64::from(rounded.scales[0]))).round() as i32);
        let (_, bias) = rounded.numbers(false, 0.01);
        assert!((bias[1] - 3.0).abs() < 1e-5, "{bias:?}");
        let columns = QuantizedWeights::round(&[1.0, 10.0, -0.5, 5.0], &[], 2, true, 1.0);
        assert_eq!((columns.values, columns.bias), (vec![127, 127, -64, 64], vec![0, 0]));
        let many = QuantizedWeights { values: vec![127; 70_000], scales: vec![1.0], bias: vec![0] };
        assert!(matches!(many.check("wide", false), Err(Int8Error::Overflow { channel: 0, .. })));
        // Too wide for sums in an i32, and so computed in float.
        let quantized = assert_near(
            Description::new("wide", Shape::new(7, 300, 300)).with("classes", AffineOptions::new(2, Init::Xavier)),
            0.03,
        );
        assert_eq!(quantized.float_layers().count(), 1);
    }

    #[test]
    fn parts_that_do_not_fit_are_named() {
        let network = Network::new(models::build("simple-convnet", &Default::default()).unwrap(), 1).unwrap();
        let x = images(network.input(), 2);
        let mut calibration = Calibration::new(&network, CalibrationOptions::default()).unwrap();
        assert_eq!(calibration.observe(x.view()).map(|()| calibration.images()).unwrap(), 2);
        let (numbers, good) = calibration.finish().unwrap();
        let (activations, weights) = (good.activations().to_vec(), good.weights().to_vec());
        let error = |activations: &[QuantizationParameters], weights: &[Option<QuantizedWeights>]| {
            QuantizedNetwork::new(&mut numbers.clone(), activations.to_vec(), weights.to_vec()).unwrap_err()
        };
        assert!(matches!(error(&activations[1..], &weights), Int8Error::Weights { .. }));
        for scale in [0.0, -1.0, f32::NAN, f32::INFINITY, 1e-42] {
            let mut wrong = activations.clone();
            wrong[2].scale = scale;
            let error = error(&wrong, &weights).to_string();
            assert!(error.contains("Relu1") && error.contains("positive"), "{error}");
        }
        let mut wrong = weights.clone();
        wrong[0].as_mut().unwrap().values.pop();
        assert!(error(&activations, &wrong).to_string().contains("749 weights"));
        wrong = weights.clone();
        wrong[1] = weights[0].clone();
        assert!(error(&activations, &wrong).to_string().contains("Relu1: found weights for a ReLU"));
        wrong = weights.clone();
        wrong[0].as_mut().unwrap().bias[3] = i32::MIN;
        assert!(matches!(error(&activations, &wrong), Int8Error::Overflow { channel: 3, .. }));

        let empty = Calibration::new(&network, CalibrationOptions::default()).unwrap();
        assert_eq!(empty.finish().unwrap_err(), Int8Error::NoImages);
        let error = Calibration::new(&network, CalibrationOptions { percentile: 50.0 }).unwrap_err().to_string();
        assert!(error.contains("percentile is 50"), "{error}");
        assert!(Predictor::new(&good, 0).is_err());
        let mut predictor = Predictor::new(&good, 2).unwrap();
        assert!(predictor.predict(images(network.input(), 3).view()).is_err());
    }
}
