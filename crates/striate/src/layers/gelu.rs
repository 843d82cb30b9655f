//! GELU (Hendrycks & Gimpel 2016): `x Φ(x)`, with the normal distribution's Φ.

use super::activation::{Activation, Function};
use crate::kernels::functions;
use serde::{Deserialize, Serialize};

/// The GELU layer, for arrays of any dimension.
///
/// ```
/// use ndarray::array;
/// use striate::layers::Gelu;
/// let y = Gelu::new().forward(&array![[0., 1., -1.]]);
/// assert!((y[[0, 1]] - 0.8413447).abs() < 1e-6 && (y[[0, 2]] + 0.1586553).abs() < 1e-6);
/// ```
pub type Gelu = Activation<GeluOptions>;

/// GELU in a network's description. It has no options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GeluOptions {}

impl Function for GeluOptions {
    const KIND: &'static str = "GELU";
    const FLOPS: u64 = 20;
    const READS_INPUT: bool = true;

    #[inline(always)]
    fn value(self, x: f32) -> f32 {
        x * functions::normal(x).0
    }

    #[inline(always)]
    fn gradient(self, dy: f32, x: f32) -> f32 {
        let (below, density) = functions::normal(x);
        functions::flush(dy * (below + x * density))
    }
}
