//! ReLU (section 5.5.1): `max(0, x)`.

use super::activation::{Activation, Function};
use crate::kernels::elementwise;
use serde::{Deserialize, Serialize};

/// The book's ReLU layer, for arrays of any dimension.
///
/// ```
/// use ndarray::array;
/// use striate::layers::Relu;
/// let mut relu = Relu::new();
/// assert_eq!(relu.forward(&array![[1., -2.]]), array![[1., 0.]]);
/// ```
pub type Relu = Activation<ReluOptions>;

/// ReLU in a network's description. It has no options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReluOptions {}

impl Function for ReluOptions {
    const KIND: &'static str = "ReLU";
    const FLOPS: u64 = 1;

    #[inline(always)]
    fn value(self, x: f32) -> f32 {
        elementwise::relu(x)
    }

    #[inline(always)]
    fn gradient(self, dy: f32, y: f32) -> f32 {
        if y > 0.0 { dy } else { 0.0 }
    }
}

/// What the backward pass through ReLU lets through. Anything but the gradient makes pictures, not derivatives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReluRule {
    /// The gradient: where the input was positive.
    #[default]
    Gradient,
    /// Where the gradient itself is positive, whatever the input was: the deconvolutional network (Zeiler & Fergus 2014,
    /// "Visualizing and Understanding Convolutional Networks").
    Deconvolution,
    /// Where both are positive: guided backpropagation (Springenberg et al. 2015, "Striving for Simplicity").
    Guided,
}

impl Function for ReluRule {
    const KIND: &'static str = ReluOptions::KIND;
    const FLOPS: u64 = ReluOptions::FLOPS;

    #[inline(always)]
    fn value(self, x: f32) -> f32 {
        ReluOptions {}.value(x)
    }

    #[inline(always)]
    fn gradient(self, dy: f32, y: f32) -> f32 {
        match self {
            ReluRule::Gradient => ReluOptions {}.gradient(dy, y),
            ReluRule::Deconvolution => dy.max(0.0),
            ReluRule::Guided => ReluOptions {}.gradient(dy.max(0.0), y),
        }
    }
}
