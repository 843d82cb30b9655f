//! Clip: numbers held between two bounds. With 0 and 6 it is ReLU6, MobileNet's activation (Sandler et al. 2018).

use super::activation::{Activation, Function};

use crate::shape::ShapeError;
use serde::{Deserialize, Serialize};

/// The clip layer, for arrays of any dimension.
///
/// ```
/// use ndarray::array;
/// use striate::layers::{Clip, ClipOptions};
/// let mut clip = Clip::with(ClipOptions { low: 0., high: 6. })?;
/// assert_eq!(clip.forward(&array![[1., -2., 7.]]), array![[1., 0., 6.]]);
/// # Ok::<(), striate::shape::ShapeError>(())
/// ```
pub type Clip = Activation<ClipOptions>;

/// Clip in a network's description.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipOptions {
    /// Smaller numbers become this.
    pub low: f32,
    /// Larger numbers become this.
    pub high: f32,
}

impl Default for ClipOptions {
    fn default() -> Self {
        Self { low: 0.0, high: 6.0 }
    }
}

impl Function for ClipOptions {
    const KIND: &'static str = "Clip";
    const FLOPS: u64 = 2;

    #[inline(always)]
    fn value(self, x: f32) -> f32 {
        let raised = if x < self.low { self.low } else { x };
        if raised > self.high { self.high } else { raised }
    }

    #[inline(always)]
    fn gradient(self, dy: f32, y: f32) -> f32 {
        if y > self.low && y < self.high { dy } else { 0.0 }
    }

    fn describe(&self) -> String {
        format!("{} to {}", self.low, self.high)
    }

    fn check(&self) -> Result<(), ShapeError> {
        if self.low < self.high {
            return Ok(());
        }
        Err(ShapeError::Option {
            what: "the bounds of clip",
            found: format!("{} and {}", self.low, self.high),
            expected: "a lower and a higher number, such as 0 and 6",
        })
    }
}
