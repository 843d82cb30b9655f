//! Hard sigmoid: `clip(alpha x + beta, 0, 1)`, a sigmoid of three straight lines.

use super::activation::{Activation, Function};
use crate::shape::ShapeError;
use serde::{Deserialize, Serialize};

/// The hard-sigmoid layer, for arrays of any dimension.
///
/// ```
/// use ndarray::array;
/// use striate::layers::HardSigmoid;
/// assert_eq!(HardSigmoid::new().forward(&array![[-9., 0., 9.]]), array![[0., 0.5, 1.]]);
/// ```
pub type HardSigmoid = Activation<HardSigmoidOptions>;

/// Hard-sigmoid in a network's description.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HardSigmoidOptions {
    /// The slope in the middle.
    pub alpha: f32,
    /// The value at 0.
    pub beta: f32,
}

impl Default for HardSigmoidOptions {
    /// ONNX's and Keras's constants.
    fn default() -> Self {
        Self { alpha: 0.2, beta: 0.5 }
    }
}

impl HardSigmoidOptions {
    /// Whether `x` times this is [hard swish](super::HardSwish).
    pub(crate) fn is_hard_swish(&self) -> bool {
        (self.alpha - 1.0 / 6.0).abs() < 1e-6 && self.beta == 0.5
    }
}

impl Function for HardSigmoidOptions {
    const KIND: &'static str = "HardSigmoid";
    const FLOPS: u64 = 3;

    #[inline(always)]
    fn value(self, x: f32) -> f32 {
        (self.alpha * x + self.beta).clamp(0.0, 1.0)
    }

    #[inline(always)]
    fn gradient(self, dy: f32, y: f32) -> f32 {
        if y > 0.0 && y < 1.0 { dy * self.alpha } else { 0.0 }
    }

    fn describe(&self) -> String {
        format!("slope {}, {} at 0", self.alpha, self.beta)
    }

    fn check(&self) -> Result<(), ShapeError> {
        if self.alpha.is_finite() && self.beta.is_finite() {
            return Ok(());
        }
        Err(ShapeError::Option {
            what: "the constants of hard sigmoid",
            found: format!("{} and {}", self.alpha, self.beta),
            expected: "finite numbers, such as 0.2 and 0.5",
        })
    }
}
