//! Leaky ReLU (Maas et al. 2013): `max(0, x) + slope min(0, x)`.

use super::activation::{Activation, Function};

use crate::shape::ShapeError;
use serde::{Deserialize, Serialize};

/// The leaky ReLU layer, for arrays of any dimension.
///
/// ```
/// use ndarray::array;
/// use striate::layers::{LeakyRelu, LeakyReluOptions};
/// let mut leaky = LeakyRelu::with(LeakyReluOptions { slope: 0.5 })?;
/// assert_eq!(leaky.forward(&array![[1., -2.]]), array![[1., -1.]]);
/// # Ok::<(), striate::shape::ShapeError>(())
/// ```
pub type LeakyRelu = Activation<LeakyReluOptions>;

/// Leaky ReLU in a network's description.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeakyReluOptions {
    /// What a negative number is multiplied by; 0.01 is usual.
    pub slope: f32,
}

impl Default for LeakyReluOptions {
    fn default() -> Self {
        Self { slope: 0.01 }
    }
}

impl Function for LeakyReluOptions {
    const KIND: &'static str = "LeakyReLU";
    const FLOPS: u64 = 2;
    const READS_INPUT: bool = true;

    #[inline(always)]
    fn value(self, x: f32) -> f32 {
        if x < 0.0 { self.slope * x } else { x }
    }

    #[inline(always)]
    fn gradient(self, dy: f32, x: f32) -> f32 {
        if x < 0.0 { self.slope * dy } else { dy }
    }

    fn describe(&self) -> String {
        format!("slope {}", self.slope)
    }

    fn check(&self) -> Result<(), ShapeError> {
        if self.slope.is_finite() {
            return Ok(());
        }
        Err(ShapeError::Option {
            what: "the slope of leaky ReLU",
            found: self.slope.to_string(),
            expected: "a finite number, such as 0.01",
        })
    }
}
