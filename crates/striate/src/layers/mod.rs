//! Layers: one file each, with its options, its shape rule, its parameters, forward and backward.
//!
//! A layer has two faces over the same kernels. The *book-style* object ([`Convolution`], [`Affine`], ...) holds its
//! arrays, and `forward` and `backward` work on whole `ndarray` arrays as in the book. The *description*
//! ([`ConvolutionOptions`], ..., gathered in [`Layer`]) says what a layer of a [`Network`](crate::network::Network)
//! is; a plan turns it into an `Operator` whose sizes are fixed and whose buffers the plan owns.
//!
//! To add a layer: write its file with the options and their `Rule`, and name it in [`Layer`] below.

mod activation;
mod affine;
mod convolution;
mod dropout;
mod init;
mod pooling;
mod relu;
mod sigmoid;
mod softmax;

pub use activation::{Activation, Function};
pub use affine::{Affine, AffineOptions};
pub use convolution::{Convolution, ConvolutionOptions};
pub use dropout::{Dropout, DropoutOptions};
pub use init::Init;
pub use pooling::{Pooling, PoolingKind, PoolingOptions};
pub use relu::{Relu, ReluFunction, ReluOptions};
pub use sigmoid::{Sigmoid, SigmoidFunction, SigmoidOptions};
pub(crate) use softmax::check_labels;
pub use softmax::{Softmax, SoftmaxWithLoss, Target};

use crate::random::{Purpose, Random};
use crate::shape::{Shape, ShapeError};
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
    /// Dropout (section 6.4.3), only while training.
    Dropout(DropoutOptions),
}

impl Layer {
    /// How the weights start, for a layer that has any.
    pub(crate) fn set_init(&mut self, init: Init) {
        match self {
            Layer::Convolution(options) => options.init = init,
            Layer::Affine(options) => options.init = init,
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
            Layer::Dropout(options) => options,
        }
    }
}

/// A parameter that a layer asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ParameterRule {
    /// `W` or `b`, to which the network adds the layer's number.
    pub(crate) prefix: &'static str,
    pub(crate) shape: Vec<usize>,
    /// How it starts; `None` is zeros.
    pub(crate) init: Option<Init>,
    /// Inputs that one output sums over, for [`Init`].
    pub(crate) fan_in: usize,
}

/// What a plan wants to know of a layer's description.
pub(crate) trait Rule {
    /// The layer's kind, as people say it.
    fn kind(&self) -> &'static str;
    /// The options in a few words.
    fn describe(&self) -> String;
    /// One output sample for one input sample, or why that can't be.
    fn output(&self, input: Shape) -> Result<Shape, ShapeError>;
    /// Parameters, in the order in which the operator finds them.
    fn parameters(&self, _input: Shape) -> Result<Vec<ParameterRule>, ShapeError> {
        Ok(Vec::new())
    }
    /// Floating-point operations for one sample forward (a multiply-add counts two).
    fn flops(&self, input: Shape) -> Result<u64, ShapeError>;
    /// The layer with every size fixed.
    fn operator(&self, input: Shape, batch: usize) -> Result<Box<dyn Operator>, ShapeError>;
}

/// Buffers of a forward pass. All but `input` hold nothing of meaning on entry.
pub(crate) struct Forward<'a> {
    pub(crate) parameters: &'a [f32],
    pub(crate) input: &'a [f32],
    pub(crate) output: &'a mut [f32],
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
    /// The forward pass's output; empty unless [`Operator::keeps_output`].
    pub(crate) output: &'a [f32],
    pub(crate) saved: &'a [f32],
    pub(crate) output_gradient: &'a [f32],
    /// To be overwritten; empty if nobody needs it (the first layer).
    pub(crate) input_gradient: &'a mut [f32],
    /// To be overwritten.
    pub(crate) parameter_gradient: &'a mut [f32],
    pub(crate) workspace: &'a mut [f32],
}

/// A layer (or several fused) whose sizes are fixed. It holds no numbers: the plan's executor lends it buffers.
pub(crate) trait Operator: Debug + Send + Sync {
    /// One output sample.
    fn output(&self) -> Shape;
    /// Takes the next layer into this operator, if it can do both in one pass.
    fn absorb(&mut self, _next: &Layer) -> bool {
        false
    }
    /// Numbers to keep from forward to backward, beyond input and output.
    fn saved(&self) -> usize {
        0
    }
    /// Numbers of workspace for either pass.
    fn workspace(&self, _backward: bool) -> usize {
        0
    }
    /// Whether backward reads the forward pass's input.
    fn keeps_input(&self) -> bool {
        false
    }
    /// Whether backward reads the forward pass's output.
    fn keeps_output(&self) -> bool {
        false
    }
    fn forward(&self, f: Forward<'_>);
    fn backward(&self, b: Backward<'_>);
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
    DropoutOptions => Dropout
);
