//! Hard swish (Howard et al. 2019, MobileNetV3): `x clip(x / 6 + 1/2, 0, 1)`, swish without an exponential.

use super::activation::{Activation, Function};

use serde::{Deserialize, Serialize};

/// The hard-swish layer, for arrays of any dimension.
///
/// ```
/// use ndarray::array;
/// use striate::layers::HardSwish;
/// let y = HardSwish::new().forward(&array![[-4., 0., 3., 8.]]);
/// assert_eq!(y, array![[0., 0., 3., 8.]]);
/// ```
pub type HardSwish = Activation<HardSwishOptions>;

/// Hard swish in a network's description. It has no options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HardSwishOptions {}

impl Function for HardSwishOptions {
    const KIND: &'static str = "HardSwish";
    const FLOPS: u64 = 4;
    const READS_INPUT: bool = true;

    #[inline(always)]
    fn value(self, x: f32) -> f32 {
        x * (x / 6.0 + 0.5).clamp(0.0, 1.0)
    }

    #[inline(always)]
    fn gradient(self, dy: f32, x: f32) -> f32 {
        let slope = if x <= -3.0 {
            0.0
        } else if x >= 3.0 {
            1.0
        } else {
            x / 3.0 + 0.5
        };
        dy * slope
    }
}
