//! Residual networks (section 8.2.4; He, Zhang, Ren & Sun 2015, "Deep Residual Learning for Image Recognition"): blocks
//! that add what they compute to what they were given. [`ResNet`] has torchvision's shapes (in bottlenecks the 3x3
//! convolution strides, "v1.5"); [`CifarResNet`] is the paper's for small images (section 4.2), its widening shortcuts
//! being 1x1 convolutions (the paper's option B) rather than padded copies.

use super::blocks::{convolution, convolution_norm, max_pooling, mean_and_classes, window};
use crate::layers::{AddOptions, Init, ReluOptions};
use crate::network::Description;
use crate::shape::Shape;
use serde::{Deserialize, Serialize};

/// A residual network for large images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResNet {
    /// One sample: `(3, 224, 224)`.
    pub input: Shape,
    /// Number of classes: 1000.
    pub classes: usize,
    /// Blocks in each of the four stages: 2 2 2 2 in ResNet-18, 3 4 6 3 in ResNet-34 and 50.
    pub blocks: [usize; 4],
    /// Whether blocks are bottlenecks (1x1, 3x3, 1x1 with four times the filters) rather than two 3x3.
    pub bottleneck: bool,
}

impl Default for ResNet {
    fn default() -> Self {
        Self { input: Shape::new(3, 224, 224), classes: 1000, blocks: [2, 2, 2, 2], bottleneck: false }
    }
}

impl ResNet {
    /// ResNet-34's stages.
    pub fn thirty_four() -> Self {
        Self { blocks: [3, 4, 6, 3], ..Self::default() }
    }

    /// ResNet-50's stages.
    pub fn fifty() -> Self {
        Self { bottleneck: true, ..Self::thirty_four() }
    }

    /// The layers: `stage2-block1-conv1` is the first convolution of the first block of the second stage.
    pub fn description(&self) -> Description {
        let (in_block, widening) = if self.bottleneck { (3, 4) } else { (2, 1) };
        let depth = in_block * self.blocks.iter().sum::<usize>() + 2;
        let net = Description::new(format!("resnet{depth}"), self.input);
        let net = convolution_norm(net, "conv1", convolution(64, window(7, 2, 3))).with("relu1", ReluOptions {});
        let mut net = net.with("pool1", max_pooling(3, 2, 1));
        let mut channels = 64;
        for (stage, (&blocks, width)) in self.blocks.iter().zip([64, 128, 256, 512]).enumerate() {
            for block in 0..blocks {
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                let name = format!("stage{}-block{}", stage + 1, block + 1);
                let convolutions = if self.bottleneck {
                    vec![(width, window(1, 1, 0)), (width, window(3, stride, 1)), (widening * width, window(1, 1, 0))]
                } else {
                    vec![(width, window(3, stride, 1)), (width, window(3, 1, 1))]
                };
                net = residual(net, &name, &convolutions, channels != widening * width, stride);
                channels = widening * width;
            }
        }
        mean_and_classes(net, self.classes, Init::Xavier)
    }
}

/// A residual network for images of about 32x32.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CifarResNet {
    /// One sample: `(3, 32, 32)`.
    pub input: Shape,
    /// Number of classes: 10.
    pub classes: usize,
    /// Blocks in each of the three stages: 3 in ResNet-20.
    pub blocks: usize,
    /// Filters of the first stage: 16; each later stage has twice as many.
    pub width: usize,
}

impl Default for CifarResNet {
    fn default() -> Self {
        Self { input: Shape::new(3, 32, 32), classes: 10, blocks: 3, width: 16 }
    }
}

impl CifarResNet {
    /// The layers.
    pub fn description(&self) -> Description {
        let net = Description::new(format!("cifar-resnet{}", 6 * self.blocks + 2), self.input);
        let net = convolution_norm(net, "conv1", convolution(self.width, window(3, 1, 1)));
        let mut net = net.with("relu1", ReluOptions {});
        for stage in 0..3 {
            for block in 0..self.blocks {
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                let width = self.width << stage;
                let name = format!("stage{}-block{}", stage + 1, block + 1);
                let convolutions = [(width, window(3, stride, 1)), (width, window(3, 1, 1))];
                net = residual(net, &name, &convolutions, stride != 1, stride);
            }
        }
        mean_and_classes(net, self.classes, Init::Xavier)
    }
}

/// Convolutions with batch normalisation and ReLU between them, their sum with the block's input, and ReLU. Where the
/// size changes (`widens`), the input goes through a 1x1 convolution first.
fn residual(
    net: Description,
    name: &str,
    convolutions: &[(usize, crate::shape::Window)],
    widens: bool,
    stride: usize,
) -> Description {
    let start = net.last().to_owned();
    let mut net = net;
    for (i, &(filters, window)) in convolutions.iter().enumerate() {
        if i > 0 {
            net = net.with(format!("{name}-relu{i}"), ReluOptions {});
        }
        net = convolution_norm(net, &format!("{name}-conv{}", i + 1), convolution(filters, window));
    }
    let end = net.last().to_owned();
    let mut shortcut = start.clone();
    if widens {
        let filters = convolutions.last().map_or(1, |c| c.0);
        let options = convolution(filters, window(1, stride, 0)).without_bias();
        let norm = crate::layers::BatchNormOptions::default();
        net = net.with_inputs(format!("{name}-shortcut"), options, [start]).with(format!("{name}-shortcut-norm"), norm);
        shortcut = net.last().to_owned();
    }
    net.with_inputs(format!("{name}-add"), AddOptions {}, [end, shortcut]).with(format!("{name}-relu"), ReluOptions {})
}
