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
