//! A small network for grey images of about 28x28 that is quick to train well: LeNet's shape (section 7.7.1) with what
//! came after it, which is wider layers, ReLU, batch normalisation, and a convolution of stride 2 in place of the second
//! pooling. Four fifths of its operations are in the two inner convolutions, whose windows are large enough to compute
//! without waste.

use super::blocks::{convolution, convolution_norm, max_pooling, window};
use crate::layers::{AffineOptions, BatchNormOptions, Init, ReluOptions};
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
    /// Filters of the three convolutions.
    pub filters: [usize; 3],
}

impl Default for MnistNet {
    fn default() -> Self {
        Self { input: Shape::new(1, 28, 28), classes: 10, filters: [32, 48, 96] }
    }
}

impl MnistNet {
    /// The layers.
    pub fn description(&self) -> Description {
        let [first, second, third] = self.filters;
        // ReLU and pooling directly after the first convolution are computed with it; the normalisation follows them.
        let net = Description::new("mnist-net", self.input)
            .with("conv1", convolution(first, window(5, 1, 0)))
            .with("relu1", ReluOptions {})
            .with("pool1", max_pooling(2, 2, 0))
            .with("pool1-norm", BatchNormOptions::default());
        let net = convolution_norm(net, "conv2", convolution(second, window(5, 1, 0))).with("relu2", ReluOptions {});
        let net = convolution_norm(net, "conv3", convolution(third, window(4, 2, 1))).with("relu3", ReluOptions {});
        net.with("classes", AffineOptions::new(self.classes, Init::Xavier))
    }
}
