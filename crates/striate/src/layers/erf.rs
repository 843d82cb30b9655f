//! The error function, from which GELU is spelt out where it has no operator of its own.

use super::activation::{Activation, Function};
use crate::kernels::functions::normal;
use serde::{Deserialize, Serialize};

/// The error function layer, for arrays of any dimension.
///
/// ```
/// use ndarray::array;
/// use striate::layers::Erf;
/// let y = Erf::new().forward(&array![[0.0, 1.0]]);
/// assert!(y[[0, 0]].abs() < 1e-6 && (y[[0, 1]] - 0.842_700_8).abs() < 1e-6);
/// ```
pub type Erf = Activation<ErfOptions>;

/// Error function in a network's description.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErfOptions {}

impl Function for ErfOptions {
    const KIND: &'static str = "Erf";
    const FLOPS: u64 = 20;
    const READS_INPUT: bool = true;

    #[inline(always)]
    fn value(self, x: f32) -> f32 {
        2.0 * normal(x * std::f32::consts::SQRT_2).0 - 1.0
    }

    #[inline(always)]
    fn gradient(self, dy: f32, x: f32) -> f32 {
        dy * 2.0 * std::f32::consts::SQRT_2 * normal(x * std::f32::consts::SQRT_2).1
    }
}
