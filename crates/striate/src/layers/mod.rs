//! Layers: one file each, with its options, its shape rule, its parameters, forward and backward.
//!
//! A layer has two faces over the same kernels. The *book-style* object ([`Convolution`], [`Affine`], ...) holds its
//! arrays, and `forward` and `backward` work on whole `ndarray` arrays as in the book. The *description*
//! ([`ConvolutionOptions`], ..., gathered in [`Layer`]) says what a layer of a [`Network`](crate::network::Network)
//! is; a plan turns it into an `Operator` whose sizes are fixed and whose buffers the plan owns.
//!
//! To add a layer: write its file with the options and their `Rule`, and name it in [`Layer`] below.

mod activation;
mod adaptive_pooling;
mod add;
mod affine;
mod arithmetic;
mod batch_norm;
mod clip;
mod concat;
mod convolution;
mod dropout;
mod elu;
mod erf;
mod flatten;
mod gather;
mod gelu;
mod hard_sigmoid;
mod hard_swish;
mod init;
mod leaky_relu;
mod linear;
mod local_response_norm;
mod log_softmax;
mod pad;
mod pooling;
mod prelu;
mod quantize;
mod relu;
mod reshape;
mod resize;
mod scale;
mod selu;
mod sigmoid;
mod silu;
mod slice;
mod softmax;
mod tanh;
mod transpose;
mod transposed_convolution;
mod whole;

pub use activation::{Activation, Function};
pub use adaptive_pooling::{AdaptivePooling, AdaptivePoolingOptions};
pub use add::{Add, AddOptions};
pub use affine::{Affine, AffineOptions};
pub use arithmetic::{Arithmetic, ArithmeticOptions};
pub use batch_norm::{BatchNorm, BatchNormOptions};
pub use clip::{Clip, ClipOptions};
pub(crate) use concat::ConcatOperator;
pub use concat::{Concat, ConcatOptions};
pub use convolution::{Convolution, ConvolutionOptions};
pub use dropout::{Dropout, DropoutOptions};
pub use elu::{Elu, EluOptions};
pub use erf::{Erf, ErfOptions};
pub use flatten::{Flatten, FlattenOptions};
pub use gelu::{Gelu, GeluOptions};
pub use hard_sigmoid::{HardSigmoid, HardSigmoidOptions};
pub use hard_swish::{HardSwish, HardSwishOptions};
pub use init::Init;
pub use leaky_relu::{LeakyRelu, LeakyReluOptions};
pub use linear::{Linear, LinearOptions};
pub use local_response_norm::{LocalResponseNorm, LocalResponseNormOptions};
pub use log_softmax::{LogSoftmax, LogSoftmaxOptions};
pub use pad::{Pad, PadMode, PadOptions};
pub use pooling::{Pooling, PoolingKind, PoolingOptions};
pub use prelu::{PRelu, PReluOptions};
pub use quantize::{Quantize, QuantizeOptions};
pub use relu::{Relu, ReluOptions, ReluRule};
pub use reshape::{Reshape, ReshapeOptions};
pub use resize::{Coordinates, Interpolation, Nearest, Resize, ResizeOptions};
pub use scale::{Scale, ScaleOptions};
pub use selu::{Selu, SeluOptions};
pub use sigmoid::{Sigmoid, SigmoidOptions};
pub use silu::{Silu, SiluOptions};
pub use slice::{Slice, SliceOptions, SliceRange};
pub(crate) use softmax::check_labels;
pub use softmax::{Softmax, SoftmaxOptions, SoftmaxWithLoss, Target, predicted_class};
pub use tanh::{Tanh, TanhOptions};
pub use transpose::{Transpose, TransposeOptions};
pub use transposed_convolution::{TransposedConvolution, TransposedConvolutionOptions};
pub use whole::Whole;

use crate::random::{Purpose, Random};
use crate::shape::{Shape, ShapeError, Window};
use serde::{Deserialize, Serialize};
use std::fmt::Debug;

/// What a layer of a network is, with its options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Layer {
    /// Convolution (section 7.2).
    Convolution(ConvolutionOptions),
    /// Max or average pooling (section 7.3).
    Pooling(PoolingOptions),
    /// Fully connected layer (section 5.6).
    Affine(AffineOptions),
    /// `max(0, x)` (section 5.5.1).
    Relu(ReluOptions),
    /// `1 / (1 + exp(-x))` (section 5.5.2).
    Sigmoid(SigmoidOptions),
    /// `max(0, x) + slope min(0, x)`.
    LeakyRelu(LeakyReluOptions),
    /// Hyperbolic tangent.
    Tanh(TanhOptions),
    /// `x Φ(x)`, with the normal distribution's Φ.
    Gelu(GeluOptions),
    /// `x sigmoid(x)`.
    Silu(SiluOptions),
    /// `x clip(x / 6 + 1/2, 0, 1)`.
    HardSwish(HardSwishOptions),
    /// Numbers held between two bounds; ReLU6 is 0 to 6.
    Clip(ClipOptions),
    /// Dropout (section 6.4.3), only while training.
    Dropout(DropoutOptions),
    /// Batch normalisation (section 6.3).
    BatchNorm(BatchNormOptions),
    /// Local response normalisation across channels (section 7.7.2).
    LocalResponseNorm(LocalResponseNormOptions),
    /// The mean over a grid of regions; over the whole map if the grid is 1x1.
    AdaptivePooling(AdaptivePoolingOptions),
    /// The sum of two inputs: a shortcut.
    Add(AddOptions),
    /// Inputs side by side along the channels.
    Concat(ConcatOptions),
    /// A feature map as a flat vector.
    Flatten(FlattenOptions),
    /// Probabilities over the channels.
    Softmax(SoftmaxOptions),
    /// Transposed convolution: a convolution's gradient, forward.
    TransposedConvolution(TransposedConvolutionOptions),
    /// `x` above 0, `alpha (e^x - 1)` below.
    Elu(EluOptions),
    /// A scaled ELU.
    Selu(SeluOptions),
    /// A leaky ReLU with learnt slopes.
    PRelu(PReluOptions),
    /// `clip(alpha x + beta, 0, 1)`.
    HardSigmoid(HardSigmoidOptions),
    /// The error function.
    Erf(ErfOptions),
    /// Numbers times a constant plus a constant.
    Linear(LinearOptions),
    /// Numbers rounded to those that 8 bits hold.
    Quantize(QuantizeOptions),
    /// Numbers times learnt factors plus learnt shifts.
    Scale(ScaleOptions),
    /// Two inputs number by number: sum, difference, product, quotient.
    Arithmetic(ArithmeticOptions),
    /// The same numbers in another shape.
    Reshape(ReshapeOptions),
    /// Axes in another order.
    Transpose(TransposeOptions),
    /// Some channels, rows and columns.
    Slice(SliceOptions),
    /// A border.
    Pad(PadOptions),
    /// A map of another size.
    Resize(ResizeOptions),
    /// Logarithms of probabilities over the channels.
    LogSoftmax(LogSoftmaxOptions),
}

impl Layer {
    /// How the weights start, for a layer that has any.
    pub(crate) fn set_init(&mut self, init: Init) {
        match self {
            Layer::Convolution(options) => options.init = init,
            Layer::Affine(options) => options.init = init,
            Layer::TransposedConvolution(options) => options.init = init,
            _ => {}
        }
    }

    pub(crate) fn rule(&self) -> &dyn Rule {
        match self {
            Layer::Convolution(options) => options,
            Layer::Pooling(options) => options,
            Layer::Affine(options) => options,
            Layer::Relu(options) => options,
            Layer::Sigmoid(options) => options,
            Layer::LeakyRelu(options) => options,
            Layer::Tanh(options) => options,
            Layer::Gelu(options) => options,
            Layer::Silu(options) => options,
            Layer::HardSwish(options) => options,
            Layer::Clip(options) => options,
            Layer::Dropout(options) => options,
            Layer::BatchNorm(options) => options,
            Layer::LocalResponseNorm(options) => options,
            Layer::AdaptivePooling(options) => options,
            Layer::Add(options) => options,
            Layer::Concat(options) => options,
            Layer::Flatten(options) => options,
            Layer::Softmax(options) => options,
            Layer::TransposedConvolution(options) => options,
            Layer::Elu(options) => options,
            Layer::Selu(options) => options,
            Layer::PRelu(options) => options,
            Layer::HardSigmoid(options) => options,
            Layer::Erf(options) => options,
            Layer::Linear(options) => options,
            Layer::Quantize(options) => options,
            Layer::Scale(options) => options,
            Layer::Arithmetic(options) => options,
            Layer::Reshape(options) => options,
            Layer::Transpose(options) => options,
            Layer::Slice(options) => options,
            Layer::Pad(options) => options,
            Layer::Resize(options) => options,
            Layer::LogSoftmax(options) => options,
        }
    }
}

/// What a parameter is, for those who treat them differently: optimizers, and weight decay above all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Weights of a convolution or an affine layer.
    Weight,
    /// Added to outputs.
    Bias,
    /// Scale or shift of a normalisation.
    Norm,
    /// A running statistic of batch normalisation: not learnt by gradients. In an array of gradients its place holds
    /// the step that takes it toward the batch's statistic: `statistic -= step` is the whole update.
    Statistic,
}

/// A parameter that a layer asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ParameterRule {
    /// `W` or `b`, to which the network adds the layer's number.
    pub(crate) prefix: &'static str,
    pub(crate) shape: Vec<usize>,
    pub(crate) role: Role,
    /// How it starts.
    pub(crate) init: Init,
    /// Inputs that one output sums over, for [`Init`].
    pub(crate) fan_in: usize,
}

impl ParameterRule {
    /// Weights.
    pub(crate) fn weight(shape: Vec<usize>, init: Init, fan_in: usize) -> Self {
        Self { prefix: "W", shape, role: Role::Weight, init, fan_in }
    }

    /// Biases, one an output, the same at the start.
    pub(crate) fn bias(outputs: usize, start: f32) -> Self {
        Self::constant("b", outputs, Role::Bias, start)
    }

    /// One number a channel, the same at the start.
    pub(crate) fn constant(prefix: &'static str, channels: usize, role: Role, value: f32) -> Self {
        Self { prefix, shape: vec![channels], role, init: Init::Constant { value }, fan_in: 1 }
    }
}

/// Whether a number has its usual value, and need not be written.
pub(crate) fn is_zero(value: &f32) -> bool {
    *value == 0.0
}

/// How far a layer's output looks into its input, for receptive fields.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Reach {
    /// The same place.
    Point,
    /// A window.
    Window(Window),
    /// Everywhere.
    All,
}

/// What a plan wants to know of a layer's description.
pub(crate) trait Rule {
    /// The layer's kind, as people say it.
    fn kind(&self) -> &'static str;
    /// The options in a few words.
    fn describe(&self) -> String;
    /// One output sample for one input sample, or why that can't be.
    fn output(&self, input: Shape) -> Result<Shape, ShapeError>;
    /// The same for a layer that joins several inputs; others take one.
    fn join(&self, inputs: &[Shape]) -> Result<Shape, ShapeError> {
        match *inputs {
            [input] => self.output(input),
            _ => Err(inputs_error(inputs.len(), "1")),
        }
    }
    /// How far an output looks into the input.
    fn reach(&self) -> Reach {
        Reach::Point
    }
    /// Whether the output is the input under another shape (or, outside training, the input itself), so that nothing
    /// need run.
    fn is_view(&self, _training: bool) -> bool {
        false
    }
    /// Parameters, in the order in which the operator finds them.
    fn parameters(&self, _input: Shape) -> Result<Vec<ParameterRule>, ShapeError> {
        Ok(Vec::new())
    }
    /// Floating-point operations for one sample forward (a multiply-add counts two).
    fn flops(&self, input: Shape) -> Result<u64, ShapeError>;
    /// The layer with every size fixed.
    fn operator(&self, input: Shape, batch: usize) -> Result<Box<dyn Operator>, ShapeError>;
    /// The same for a layer that joins inputs of several shapes.
    fn join_operator(&self, inputs: &[Shape], batch: usize) -> Result<Box<dyn Operator>, ShapeError> {
        match inputs.first() {
            Some(&input) => self.operator(input, batch),
            None => Err(inputs_error(0, "at least 1")),
        }
    }
}

/// Buffers of a forward pass. All but `input` hold nothing of meaning on entry.
pub(crate) struct Forward<'a> {
    pub(crate) parameters: &'a [f32],
    /// What [`Operator::prepare`] made of the parameters.
    pub(crate) prepared: &'a [f32],
    pub(crate) input: &'a [f32],
    /// The second input of a step that joins two; else empty.
    pub(crate) other: &'a [f32],
    pub(crate) output: &'a mut [f32],
    /// Whether the plan is for training: batch normalisation then uses the batch's own statistics.
    pub(crate) training: bool,
    /// What backward will need beyond input and output; empty if there will be no backward.
    pub(crate) saved: &'a mut [f32],
    pub(crate) workspace: &'a mut [f32],
    /// Random numbers of this layer in this training step; `None` outside training.
    pub(crate) random: Option<Random>,
}

/// Buffers of a backward pass.
pub(crate) struct Backward<'a> {
    pub(crate) parameters: &'a [f32],
    /// The forward pass's input; empty unless [`Operator::keeps_input`].
    pub(crate) input: &'a [f32],
    /// Its second input; empty unless [`Operator::keeps_other`].
    pub(crate) other: &'a [f32],
    /// The forward pass's output; empty unless [`Operator::keeps_output`].
    pub(crate) output: &'a [f32],
    /// Whether forward ran for training: batch normalisation then undoes the batch's own statistics.
    pub(crate) training: bool,
    pub(crate) saved: &'a [f32],
    pub(crate) output_gradient: &'a [f32],
    /// To be overwritten, or added to; empty if nobody needs it (the first layer).
    pub(crate) input_gradient: Gradient<'a>,
    /// The same for the second input.
    pub(crate) other_gradient: Gradient<'a>,
    /// To be overwritten.
    pub(crate) parameter_gradient: &'a mut [f32],
    pub(crate) workspace: &'a mut [f32],
}

/// A place for the gradient of an input.
pub(crate) struct Gradient<'a> {
    /// Empty if nobody needs it.
    pub(crate) values: &'a mut [f32],
    /// Whether it already holds what came from another consumer of the same input, and is to be added to.
    pub(crate) accumulate: bool,
}

impl Gradient<'_> {
    pub(crate) fn is_wanted(&self) -> bool {
        !self.values.is_empty()
    }
}

/// A layer (or several fused) whose sizes are fixed. It holds no numbers: the plan's executor lends it buffers.
pub(crate) trait Operator: Debug + Send + Sync {
    /// One output sample.
    fn output(&self) -> Shape;
    /// Takes the next layer into this operator, if it can do both in one pass. In a plan with a backward pass the
    /// operator must then also undo both in it.
    fn absorb(&mut self, _next: &Layer, _backward: bool) -> bool {
        false
    }
    /// Takes in the sum with a second input, if the operator can add it in its own pass.
    fn absorb_sum(&mut self) -> bool {
        false
    }
    /// Reads its weights in bfloat16 from now on, if that wins: only in a plan for inference.
    fn round_weights(&mut self) {}
    /// How the operator works on these sizes and why, for people who ask.
    fn method(&self) -> String {
        String::new()
    }
    /// Numbers that [`Operator::prepare`] makes of the parameters.
    fn prepared(&self) -> usize {
        0
    }
    /// Turns the parameters into the form that the forward pass reads, once for as long as the parameters stay the same. (They
    /// rarely do from one backward pass to the next: that has what it needs in its workspace.)
    fn prepare(&self, _parameters: &[f32], _prepared: &mut [f32]) {}
    /// Numbers to keep from forward to backward, beyond input and output.
    fn saved(&self) -> usize {
        0
    }
    /// Numbers of workspace for the forward pass.
    fn forward_workspace(&self) -> usize {
        0
    }
    /// Numbers of workspace for the backward pass, with or without the gradient of the input.
    fn backward_workspace(&self, _input_gradient: bool) -> usize {
        0
    }
    /// Whether backward reads the forward pass's input.
    fn keeps_input(&self) -> bool {
        false
    }
    /// Whether backward reads the forward pass's second input.
    fn keeps_other(&self) -> bool {
        false
    }
    /// Whether backward reads the forward pass's output.
    fn keeps_output(&self) -> bool {
        false
    }
    fn forward(&self, f: Forward<'_>);
    fn backward(&self, b: Backward<'_>);
}

/// The error of a layer that does not take so many inputs.
pub(crate) fn inputs_error(found: usize, expected: &'static str) -> ShapeError {
    ShapeError::Option { what: "the number of inputs", found: found.to_string(), expected }
}

/// The key of a layer's random numbers in a training step.
pub(crate) fn step_random(seed: u64, step: u64, layer: usize) -> Random {
    Random::new(seed, Purpose::Dropout, (step << 12) | layer as u64 & 0xfff)
}

/// Samples and shape of an array whose first axis is the batch.
pub(crate) fn batch_shape(what: &'static str, dim: &[usize]) -> Result<(usize, Shape), ShapeError> {
    let shape = match *dim {
        [_, features] => Shape::flat(features),
        [_, channels, height, width] => Shape::new(channels, height, width),
        _ => return Err(ShapeError::Mismatch { what, expected: vec![0, 0, 0, 0], found: dim.to_vec() }),
    };
    if dim[0] == 0 || shape.is_empty() {
        return Err(ShapeError::Empty { what, found: dim.to_vec() });
    }
    Ok((dim[0], shape))
}

/// A mismatch of two shapes as an error.
pub(crate) fn expect_shape(what: &'static str, expected: &[usize], found: &[usize]) -> Result<(), ShapeError> {
    if expected == found {
        return Ok(());
    }
    Err(ShapeError::Mismatch { what, expected: expected.to_vec(), found: found.to_vec() })
}

macro_rules! layer_from {
    ($($options:ident => $variant:ident),*) => {
        $(impl From<$options> for Layer {
            fn from(options: $options) -> Self {
                Layer::$variant(options)
            }
        })*
    };
}
layer_from!(
    ConvolutionOptions => Convolution,
    PoolingOptions => Pooling,
    AffineOptions => Affine,
    ReluOptions => Relu,
    SigmoidOptions => Sigmoid,
    LeakyReluOptions => LeakyRelu,
    TanhOptions => Tanh,
    GeluOptions => Gelu,
    SiluOptions => Silu,
    HardSwishOptions => HardSwish,
    ClipOptions => Clip,
    DropoutOptions => Dropout,
    BatchNormOptions => BatchNorm,
    LocalResponseNormOptions => LocalResponseNorm,
    AdaptivePoolingOptions => AdaptivePooling,
    AddOptions => Add,
    ConcatOptions => Concat,
    FlattenOptions => Flatten,
    SoftmaxOptions => Softmax,
    TransposedConvolutionOptions => TransposedConvolution,
    EluOptions => Elu,
    SeluOptions => Selu,
    PReluOptions => PRelu,
    HardSigmoidOptions => HardSigmoid,
    ErfOptions => Erf,
    LinearOptions => Linear,
    QuantizeOptions => Quantize,
    ScaleOptions => Scale,
    ArithmeticOptions => Arithmetic,
    ReshapeOptions => Reshape,
    TransposeOptions => Transpose,
    SliceOptions => Slice,
    PadOptions => Pad,
    ResizeOptions => Resize,
    LogSoftmaxOptions => LogSoftmax
);
