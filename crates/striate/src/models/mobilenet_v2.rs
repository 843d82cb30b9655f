//! MobileNetV2 (Sandler, Howard, Zhu, Zhmoginov & Chen 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks"):
//! narrow maps are widened by 1x1 convolutions, filtered channel by channel, and narrowed again, with a shortcut between
//! the narrow ends. Shapes are torchvision's.

use super::blocks::{convolution, convolution_norm, window};
use crate::layers::{AdaptivePoolingOptions, AddOptions, AffineOptions, ClipOptions, DropoutOptions, Init};
use crate::network::Description;
use crate::shape::Shape;
use serde::{Deserialize, Serialize};

/// MobileNetV2's options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MobileNetV2 {
    /// One sample: `(3, 224, 224)`.
    pub input: Shape,
    /// Number of classes: 1000.
    pub classes: usize,
    /// Factor of all widths: 1.
    pub width: f32,
    /// Share of the last features that dropout drops while training.
    pub dropout: f32,
}

impl Default for MobileNetV2 {
    fn default() -> Self {
        Self { input: Shape::new(3, 224, 224), classes: 1000, width: 1.0, dropout: 0.2 }
    }
}

/// Widening, filters, blocks and first stride of each stage: table 2 of the paper.
const STAGES: [(usize, usize, usize, usize); 7] =
    [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)];

impl MobileNetV2 {
    /// The layers: `stage3-block2-depthwise` filters channel by channel in the second block of the third stage.
    pub fn description(&self) -> Description {
        let six = ClipOptions { low: 0.0, high: 6.0 };
        let mut channels = rounded(32.0 * self.width);
        let net = Description::new("mobilenet-v2", self.input);
        let mut net = convolution_norm(net, "conv1", convolution(channels, window(3, 2, 1))).with("relu1", six);
        for (stage, &(widening, filters, blocks, stride)) in STAGES.iter().enumerate() {
            let filters = rounded(filters as f32 * self.width);
            for block in 0..blocks {
                let name = |part: &str| format!("stage{}-block{}-{part}", stage + 1, block + 1);
                let stride = if block == 0 { stride } else { 1 };
                let start = net.last().to_owned();
                let wide = widening * channels;
                if widening != 1 {
                    net = convolution_norm(net, &name("widen"), convolution(wide, window(1, 1, 0)));
                    net = net.with(name("widen-relu"), six);
                }
                let filter = convolution(wide, window(3, stride, 1)).groups(wide);
                net = convolution_norm(net, &name("depthwise"), filter).with(name("depthwise-relu"), six);
                net = convolution_norm(net, &name("narrow"), convolution(filters, window(1, 1, 0)));
                if stride == 1 && channels == filters {
                    let end = net.last().to_owned();
                    net = net.with_inputs(name("add"), AddOptions {}, [start, end]);
                }
                channels = filters;
            }
        }
        let last = rounded(1280.0 * self.width.max(1.0));
        let net = convolution_norm(net, "conv-last", convolution(last, window(1, 1, 0))).with("relu-last", six);
        let net = net.with("pool", AdaptivePoolingOptions::global());
        let net = if self.dropout == 0.0 { net } else { net.with("dropout", DropoutOptions { ratio: self.dropout }) };
        net.with("classes", AffineOptions::new(self.classes, Init::Normal { deviation: 0.01 }))
    }
}

/// The nearest multiple of eight, but not a tenth less: the paper's rule for widths.
fn rounded(width: f32) -> usize {
    let nearest = (((width + 4.0) / 8.0) as usize * 8).max(8);
    if (nearest as f32) < 0.9 * width { nearest + 8 } else { nearest }
}
