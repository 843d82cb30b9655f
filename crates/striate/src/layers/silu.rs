//! SiLU or swish (Elfwing et al. 2017): `x sigmoid(x)`.

use super::activation::{Activation, Function};
use crate::kernels::functions;
use serde::{Deserialize, Serialize};

/// The SiLU layer, for arrays of any dimension.
///
/// ```
/// use ndarray::array;
/// use striate::layers::Silu;
/// let y = Silu::new().forward(&array![[0., 1.]]);
/// assert!(y[[0, 0]] == 0. && (y[[0, 1]] - 0.7310586).abs() < 1e-6);
/// ```
pub type Silu = Activation<SiluOptions>;

/// SiLU in a network's description. It has no options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiluOptions {}

impl Function for SiluOptions {
    const KIND: &'static str = "SiLU";
    const FLOPS: u64 = 5;
    const READS_INPUT: bool = true;

    #[inline(always)]
    fn value(self, x: f32) -> f32 {
        x * functions::sigmoid(x)
    }

    #[inline(always)]
    fn gradient(self, dy: f32, x: f32) -> f32 {
        let s = functions::sigmoid(x);
        functions::flush(dy * s * (1.0 + x * (1.0 - s)))
    }
}
