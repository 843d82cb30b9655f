//! SELU (Klambauer et al. 2017): an ELU scaled so that activations keep mean 0 and variance 1.

use super::activation::{Activation, Function};
use crate::kernels::functions::exp;
use crate::shape::ShapeError;
use serde::{Deserialize, Serialize};

/// The SELU layer, for arrays of any dimension.
///
/// ```
/// use ndarray::array;
/// use striate::layers::Selu;
/// let y = Selu::new().forward(&array![[1., -50.]]);
/// assert!((y[[0, 0]] - 1.0507).abs() < 1e-4 && (y[[0, 1]] + 1.7581).abs() < 1e-4);
/// ```
pub type Selu = Activation<SeluOptions>;

/// SELU in a network's description.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeluOptions {
    /// As in ELU.
    pub alpha: f32,
    /// What everything is multiplied by.
    pub gamma: f32,
}

impl Default for SeluOptions {
    /// The paper's constants.
    fn default() -> Self {
        Self { alpha: 1.673_263_2, gamma: 1.050_701 }
    }
}

impl Function for SeluOptions {
    const KIND: &'static str = "SELU";
    const FLOPS: u64 = 5;
    const READS_INPUT: bool = true;

    #[inline(always)]
    fn value(self, x: f32) -> f32 {
        self.gamma * if x > 0.0 { x } else { self.alpha * (exp(x) - 1.0) }
    }

    #[inline(always)]
    fn gradient(self, dy: f32, x: f32) -> f32 {
        dy * self.gamma * if x > 0.0 { 1.0 } else { self.alpha * exp(x) }
    }

    fn check(&self) -> Result<(), ShapeError> {
        if self.alpha.is_finite() && self.gamma.is_finite() {
            return Ok(());
        }
        Err(ShapeError::Option {
            what: "the constants of SELU",
            found: format!("{} and {}", self.alpha, self.gamma),
            expected: "finite numbers, such as 1.6733 and 1.0507",
        })
    }
}
