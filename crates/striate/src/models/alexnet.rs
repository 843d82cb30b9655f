//! AlexNet (section 7.7.2; Krizhevsky, Sutskever & Hinton 2012, "ImageNet Classification with Deep Convolutional Neural
//! Networks"): five convolutions and three affine layers, with ReLU, local response normalisation, overlapping pooling
//! and dropout. [`AlexNetTorchvision`] is the variant of torchvision (Krizhevsky 2014, "One weird trick"): fewer
//! filters, one group, no normalisation.

use super::blocks::{affine_relu_dropout, convolution, convolution_relu, max_pooling, window};
use crate::layers::{
    AdaptivePoolingOptions, AffineOptions, ConvolutionOptions, DropoutOptions, Init, LocalResponseNormOptions,
};
use crate::network::Description;
use crate::shape::{Shape, Window};
use serde::{Deserialize, Serialize};

/// The paper's AlexNet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AlexNet {
    /// One sample: `(3, 227, 227)`. (The paper says 224, but its sizes are those of 227.)
    pub input: Shape,
    /// Number of classes: 1000.
    pub classes: usize,
    /// Whether there is local response normalisation.
    pub lrn: bool,
    /// Share of the hidden affine layers' numbers that dropout drops while training.
    pub dropout: f32,
    /// Groups of the second, fourth and fifth convolution: 2, one for each of the paper's GPUs.
    pub groups: usize,
}

impl Default for AlexNet {
    fn default() -> Self {
        Self { input: Shape::new(3, 227, 227), classes: 1000, lrn: true, dropout: 0.5, groups: 2 }
    }
}

impl AlexNet {
    /// The layers.
    pub fn description(&self) -> Description {
        // Section 5 of the paper: deviation 0.01, and biases of 1 where they give ReLU something to pass at the start.
        let init = Init::Normal { deviation: 0.01 };
        let conv = |filters, window: Window| ConvolutionOptions::new(filters, window, init);
        let grouped = |filters, window| conv(filters, window).groups(self.groups).bias_start(1.0);
        let normalize = |net: Description, number: usize| {
            if self.lrn { net.with(format!("norm{number}"), LocalResponseNormOptions::default()) } else { net }
        };
        let net = Description::new("alexnet", self.input);
        let net =
            normalize(convolution_relu(net, "1", conv(96, window(11, 4, 0))), 1).with("pool1", max_pooling(3, 2, 0));
        let net =
            normalize(convolution_relu(net, "2", grouped(256, window(5, 1, 2))), 2).with("pool2", max_pooling(3, 2, 0));
        let net = convolution_relu(net, "3", conv(384, window(3, 1, 1)));
        let net = convolution_relu(net, "4", grouped(384, window(3, 1, 1)));
        let net = convolution_relu(net, "5", grouped(256, window(3, 1, 1))).with("pool5", max_pooling(3, 2, 0));
        let hidden = AffineOptions::new(4096, init).bias_start(1.0);
        let net = affine_relu_dropout(net, 6, hidden.clone(), self.dropout);
        let net = affine_relu_dropout(net, 7, hidden, self.dropout);
        net.with("fc8", AffineOptions::new(self.classes, init))
    }
}

/// torchvision's AlexNet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AlexNetTorchvision {
    /// One sample: `(3, 224, 224)`.
    pub input: Shape,
    /// Number of classes: 1000.
    pub classes: usize,
    /// Share of the affine layers' inputs that dropout drops while training.
    pub dropout: f32,
}

impl Default for AlexNetTorchvision {
    fn default() -> Self {
        Self { input: Shape::new(3, 224, 224), classes: 1000, dropout: 0.5 }
    }
}

impl AlexNetTorchvision {
    /// The layers.
    pub fn description(&self) -> Description {
        let dropout = |net: Description, number: usize| {
            if self.dropout == 0.0 {
                net
            } else {
                net.with(format!("dropout{number}"), DropoutOptions { ratio: self.dropout })
            }
        };
        let net = Description::new("alexnet-torchvision", self.input);
        let net = convolution_relu(net, "1", convolution(64, window(11, 4, 2))).with("pool1", max_pooling(3, 2, 0));
        let net = convolution_relu(net, "2", convolution(192, window(5, 1, 2))).with("pool2", max_pooling(3, 2, 0));
        let net = convolution_relu(net, "3", convolution(384, window(3, 1, 1)));
        let net = convolution_relu(net, "4", convolution(256, window(3, 1, 1)));
        let net = convolution_relu(net, "5", convolution(256, window(3, 1, 1))).with("pool5", max_pooling(3, 2, 0));
        let net = dropout(net.with("grid", AdaptivePoolingOptions { output: (6, 6) }), 6);
        let net = affine_relu_dropout(net, 6, AffineOptions::new(4096, Init::He), 0.0);
        let net = affine_relu_dropout(dropout(net, 7), 7, AffineOptions::new(4096, Init::He), 0.0);
        net.with("fc8", AffineOptions::new(self.classes, Init::He))
    }
}
