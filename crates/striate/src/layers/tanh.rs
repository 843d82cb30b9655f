//! Hyperbolic tangent: LeNet's activation in 1998, up to a scale.

use super::activation::{Activation, Function};
use crate::kernels::functions;
use serde::{Deserialize, Serialize};

/// The tanh layer, for arrays of any dimension.
///
/// ```
/// use ndarray::array;
/// use striate::layers::Tanh;
/// let mut tanh = Tanh::new();
/// assert_eq!(tanh.forward(&array![[0., 1e4]]), array![[0., 1.]]);
/// ```
pub type Tanh = Activation<TanhOptions>;

/// Tanh in a network's description. It has no options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TanhOptions {}

impl Function for TanhOptions {
    const KIND: &'static str = "Tanh";
    const FLOPS: u64 = 8;

    #[inline(always)]
    fn value(self, x: f32) -> f32 {
        functions::tanh(x)
    }

    #[inline(always)]
    fn gradient(self, dy: f32, y: f32) -> f32 {
        dy * (1.0 - y * y)
    }
}
