//! VGG (section 8.2.2; Simonyan & Zisserman 2014, "Very Deep Convolutional Networks for Large-Scale Image Recognition",
//! configurations A and D): nothing but 3x3 convolutions, pooling and three affine layers.

use super::blocks::{affine_relu_dropout, convolution, convolution_relu, max_pooling, window};
use crate::layers::{AdaptivePoolingOptions, AffineOptions, BatchNormOptions, Init, ReluOptions};
use crate::network::Description;
use crate::shape::Shape;
use serde::{Deserialize, Serialize};

/// VGG's options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Vgg {
    /// One sample: `(3, 224, 224)`.
    pub input: Shape,
    /// Number of classes: 1000.
    pub classes: usize,
    /// Convolutions in each of the five stages: 1 1 2 2 2 in VGG-11, 2 2 3 3 3 in VGG-16.
    pub convolutions: [usize; 5],
    /// Whether each convolution is followed by a batch normalisation, as in torchvision's `_bn` variants.
    pub batch_norm: bool,
    /// Neurons of the two hidden affine layers: 4096.
    pub hidden: usize,
    /// Share of their outputs that dropout drops while training.
    pub dropout: f32,
}

impl Default for Vgg {
    fn default() -> Self {
        Self {
            input: Shape::new(3, 224, 224),
            classes: 1000,
            convolutions: [1, 1, 2, 2, 2],
            batch_norm: false,
            hidden: 4096,
            dropout: 0.5,
        }
    }
}

impl Vgg {
    /// VGG-16's stages.
    pub fn sixteen() -> Self {
        Self { convolutions: [2, 2, 3, 3, 3], ..Self::default() }
    }

    /// The layers: `conv3-2` is the second convolution of the third stage.
    pub fn description(&self) -> Description {
        let depth = self.convolutions.iter().sum::<usize>() + 3;
        let mut net = Description::new(format!("vgg{depth}"), self.input);
        for (stage, (&count, filters)) in self.convolutions.iter().zip([64, 128, 256, 512, 512]).enumerate() {
            for i in 1..=count {
                let suffix = format!("{}-{i}", stage + 1);
                let options = convolution(filters, window(3, 1, 1));
                net = if self.batch_norm {
                    net.with(format!("conv{suffix}"), options)
                        .with(format!("norm{suffix}"), BatchNormOptions::default())
                        .with(format!("relu{suffix}"), ReluOptions {})
                } else {
                    convolution_relu(net, &suffix, options)
                };
            }
            net = net.with(format!("pool{}", stage + 1), max_pooling(2, 2, 0));
        }
        let net = net.with("grid", AdaptivePoolingOptions { output: (7, 7) });
        let net = affine_relu_dropout(net, 6, AffineOptions::new(self.hidden, Init::He), self.dropout);
        let net = affine_relu_dropout(net, 7, AffineOptions::new(self.hidden, Init::He), self.dropout);
        net.with("fc8", AffineOptions::new(self.classes, Init::Normal { deviation: 0.01 }))
    }
}
