//! The deep network of section 8.1: six convolutions of 3x3, a pooling after every second one, two affine layers with
//! dropout; 99.38 % on MNIST in the book.

use super::blocks::{convolution, convolution_relu, max_pooling, window};
use crate::layers::{AffineOptions, DropoutOptions, Init, ReluOptions};
use crate::network::Description;
use crate::shape::Shape;
use serde::{Deserialize, Serialize};

/// The book's `DeepConvNet`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeepConvNet {
    /// One sample: `(1, 28, 28)`.
    pub input: Shape,
    /// Filters of the first, second and third pair of convolutions: 16, 32, 64.
    pub filters: [usize; 3],
    /// Neurons of the hidden layer: 50.
    pub hidden: usize,
    /// Number of classes: 10.
    pub classes: usize,
    /// Share that dropout drops after either affine layer while training: 0.5.
    pub dropout: f32,
}

impl Default for DeepConvNet {
    fn default() -> Self {
        Self { input: Shape::new(1, 28, 28), filters: [16, 32, 64], hidden: 50, classes: 10, dropout: 0.5 }
    }
}

impl DeepConvNet {
    /// The layers. The fourth convolution pads by two, as the book's does, so that 14 becomes 16 and divides.
    pub fn description(&self) -> Description {
        let mut net = Description::new("deep-convnet", self.input);
        for (i, (&filters, paddings)) in self.filters.iter().zip([(1, 1), (1, 2), (1, 1)]).enumerate() {
            let (first, second) = (2 * i + 1, 2 * i + 2);
            net = convolution_relu(net, &first.to_string(), convolution(filters, window(3, 1, paddings.0)));
            net = convolution_relu(net, &second.to_string(), convolution(filters, window(3, 1, paddings.1)));
            net = net.with(format!("pool{}", i + 1), max_pooling(2, 2, 0));
        }
        let dropout = DropoutOptions { ratio: self.dropout };
        net.with("affine1", AffineOptions::new(self.hidden, Init::He))
            .with("relu7", ReluOptions {})
            .with("dropout1", dropout)
            .with("affine2", AffineOptions::new(self.classes, Init::He))
            .with("dropout2", dropout)
    }
}
