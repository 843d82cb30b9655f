//! Quantize: numbers rounded to those that whole numbers of 8 bits stand for, as a quantized network has them
//! (Jacob et al. 2018). The gradient passes as if nothing were rounded, where nothing was cut off.

use super::activation::{Activation, Function};
use crate::shape::ShapeError;
use serde::{Deserialize, Serialize};

/// The quantize layer, for arrays of any dimension.
///
/// ```
/// use ndarray::array;
/// use striate::layers::{Quantize, QuantizeOptions};
/// let options = QuantizeOptions { scale: 0.5, zero_point: 128.0, low: 0.0, high: 255.0 };
/// let y = Quantize::with(options)?.forward(&array![[0.6, -1.3, 1000.]]);
/// assert_eq!(y, array![[0.5, -1.5, 63.5]]);
/// # Ok::<(), striate::shape::ShapeError>(())
/// ```
pub type Quantize = Activation<QuantizeOptions>;

/// Quantize in a network's description.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuantizeOptions {
    /// What one step of the whole numbers stands for.
    pub scale: f32,
    /// The whole number that stands for 0.
    pub zero_point: f32,
    /// The least whole number.
    pub low: f32,
    /// The largest whole number.
    pub high: f32,
}

impl Default for QuantizeOptions {
    /// Steps of 1/128 between -1 and 1.
    fn default() -> Self {
        Self { scale: 1.0 / 128.0, zero_point: 0.0, low: -128.0, high: 127.0 }
    }
}

impl Function for QuantizeOptions {
    const KIND: &'static str = "Quantize";
    const FLOPS: u64 = 5;
    const READS_INPUT: bool = true;

    #[inline(always)]
    fn value(self, x: f32) -> f32 {
        let whole = (x / self.scale).round_ties_even() + self.zero_point;
        // Not `clamp`, which would turn NaN into a bound.
        let raised = if whole < self.low { self.low } else { whole };
        let held = if raised > self.high { self.high } else { raised };
        (held - self.zero_point) * self.scale
    }

    #[inline(always)]
    fn gradient(self, dy: f32, x: f32) -> f32 {
        let whole = x / self.scale + self.zero_point;
        if whole >= self.low - 0.5 && whole <= self.high + 0.5 { dy } else { 0.0 }
    }

    fn describe(&self) -> String {
        format!("steps of {}", self.scale)
    }

    fn check(&self) -> Result<(), ShapeError> {
        if self.scale.is_finite() && self.scale > 0.0 && self.low < self.high && self.zero_point.is_finite() {
            return Ok(());
        }
        Err(ShapeError::Option {
            what: "the scale, zero point and bounds of quantize",
            found: format!("{}, {}, {} and {}", self.scale, self.zero_point, self.low, self.high),
            expected: "a positive scale, a whole number, a lower and a higher one",
        })
    }
}
