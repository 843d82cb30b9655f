//! Sigmoid (section 5.5.2): `1 / (1 + exp(-x))`.

use super::activation::{Activation, Function};
use crate::kernels::functions;
use serde::{Deserialize, Serialize};

/// The book's Sigmoid layer, for arrays of any dimension.
///
/// ```
/// use ndarray::array;
/// use striate::layers::Sigmoid;
/// let mut sigmoid = Sigmoid::new();
/// assert_eq!(sigmoid.forward(&array![[0., 1e4]]), array![[0.5, 1.]]);
/// ```
pub type Sigmoid = Activation<SigmoidOptions>;

/// Sigmoid in a network's description. It has no options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SigmoidOptions {}

impl Function for SigmoidOptions {
    const KIND: &'static str = "Sigmoid";
    const FLOPS: u64 = 4;

    #[inline(always)]
    fn value(self, x: f32) -> f32 {
        functions::sigmoid(x)
    }

    #[inline(always)]
    fn gradient(self, dy: f32, y: f32) -> f32 {
        functions::flush(dy * (1.0 - y) * y)
    }
}
