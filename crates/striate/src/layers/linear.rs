//! Linear: every number times a factor plus a shift, neither of them learnt.

use super::activation::{Activation, Function};
use crate::shape::ShapeError;
use serde::{Deserialize, Serialize};

/// The linear layer, for arrays of any dimension.
///
/// ```
/// use ndarray::array;
/// use striate::layers::{Linear, LinearOptions};
/// let y = Linear::with(LinearOptions { factor: 2.0, shift: 1.0 })?.forward(&array![[1., -2.]]);
/// assert_eq!(y, array![[3., -3.]]);
/// # Ok::<(), striate::shape::ShapeError>(())
/// ```
pub type Linear = Activation<LinearOptions>;

/// Linear in a network's description.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinearOptions {
    /// What every number is multiplied by.
    pub factor: f32,
    /// What is then added.
    pub shift: f32,
}

impl Default for LinearOptions {
    /// The number itself.
    fn default() -> Self {
        Self { factor: 1.0, shift: 0.0 }
    }
}

impl Function for LinearOptions {
    const KIND: &'static str = "Linear";
    const FLOPS: u64 = 2;

    #[inline(always)]
    fn value(self, x: f32) -> f32 {
        x * self.factor + self.shift
    }

    #[inline(always)]
    fn gradient(self, dy: f32, _y: f32) -> f32 {
        dy * self.factor
    }

    fn describe(&self) -> String {
        format!("times {}, plus {}", self.factor, self.shift)
    }

    fn check(&self) -> Result<(), ShapeError> {
        if self.factor.is_finite() && self.shift.is_finite() {
            return Ok(());
        }
        Err(ShapeError::Option {
            what: "the constants of a linear layer",
            found: format!("{} and {}", self.factor, self.shift),
            expected: "finite numbers",
        })
    }
}
