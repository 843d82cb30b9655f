//! A small network for grey images of about 28x28 that is quick to train well: LeNet's shape (section 7.7.1) with what
//! came after it, which is wider layers in pairs (section 8.1), ReLU, batch normalisation, and dropout before the classes.

use super::blocks::{convolution, convolution_norm, max_pooling, window};
use crate::layers::{AffineOptions, BatchNormOptions, DropoutOptions, Init, ReluOptions};
use crate::network::Description;
use crate::shape::Shape;
use serde::{Deserialize, Serialize};

/// The network's options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MnistNet {
    /// One sample: `(1, 28, 28)`.
    pub input: Shape,
    /// Number of classes: 10.
    pub classes: usize,
    /// Filters of the first convolution, of the two in the middle, and of the last.
    pub filters: [usize; 3],
    /// Share of the numbers that dropout leaves out before the classes; no such layer for 0.
    pub dropout: f32,
}

impl Default for MnistNet {
    fn default() -> Self {
        Self { input: Shape::new(1, 28, 28), classes: 10, filters: [32, 64, 128], dropout: 0.3 }
    }
}

impl MnistNet {
    /// The layers.
    pub fn description(&self) -> Description {
        let [first, middle, last] = self.filters;
        // ReLU and pooling directly after the first convolution are computed with it; the normalisation follows them.
        let mut net = Description::new("mnist-net", self.input)
            .with("conv1", convolution(first, window(5, 1, 0)))
            .with("relu1", ReluOptions {})
            .with("pool1", max_pooling(2, 2, 0))
            .with("pool1-norm", BatchNormOptions::default());
        net = convolution_norm(net, "conv2", convolution(middle, window(3, 1, 1))).with("relu2", ReluOptions {});
        net = convolution_norm(net, "conv3", convolution(middle, window(3, 1, 0))).with("relu3", ReluOptions {});
        net = net.with("pool2", max_pooling(2, 2, 0));
        net = convolution_norm(net, "conv4", convolution(last, window(3, 1, 0))).with("relu4", ReluOptions {});
        if self.dropout != 0.0 {
            net = net.with("dropout", DropoutOptions { ratio: self.dropout });
        }
        net.with("classes", AffineOptions::new(self.classes, Init::Xavier))
    }
}
