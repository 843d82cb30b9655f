//! ELU (Clevert et al. 2015): `x` above 0, `alpha (e^x - 1)` below.

use super::activation::{Activation, Function};
use crate::kernels::functions::exp;
use crate::shape::ShapeError;
use serde::{Deserialize, Serialize};

/// The ELU layer, for arrays of any dimension.
///
/// ```
/// use ndarray::array;
/// use striate::layers::{Elu, EluOptions};
/// let y = Elu::with(EluOptions { alpha: 2.0 })?.forward(&array![[1., -50.]]);
/// assert_eq!(y, array![[1., -2.]]);
/// # Ok::<(), striate::shape::ShapeError>(())
/// ```
pub type Elu = Activation<EluOptions>;

/// ELU in a network's description.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EluOptions {
    /// What very negative numbers become, with the sign turned; 1 is usual.
    pub alpha: f32,
}

impl Default for EluOptions {
    fn default() -> Self {
        Self { alpha: 1.0 }
    }
}

impl Function for EluOptions {
    const KIND: &'static str = "ELU";
    const FLOPS: u64 = 4;
    const READS_INPUT: bool = true;

    #[inline(always)]
    fn value(self, x: f32) -> f32 {
        if x < 0.0 { self.alpha * (exp(x) - 1.0) } else { x }
    }

    #[inline(always)]
    fn gradient(self, dy: f32, x: f32) -> f32 {
        if x < 0.0 { dy * self.alpha * exp(x) } else { dy }
    }

    fn describe(&self) -> String {
        format!("alpha {}", self.alpha)
    }

    fn check(&self) -> Result<(), ShapeError> {
        if self.alpha.is_finite() {
            return Ok(());
        }
        Err(ShapeError::Option {
            what: "the alpha of ELU",
            found: self.alpha.to_string(),
            expected: "a finite number, such as 1",
        })
    }
}
