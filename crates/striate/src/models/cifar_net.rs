//! A small fast network for images of about 32x32, after the shape that holds the CIFAR-10 speed records (Jordan 2024,
//! "94% on CIFAR-10 in 3.29 Seconds on a Single GPU"): a narrow 2x2 convolution that may start from the
//! data (`train::whiten`), three blocks of two 3x3 convolutions that pool between them, and one affine layer on what is
//! left of each map.

use super::blocks::{convolution, convolution_norm, max_pooling, window};
use crate::layers::{AddOptions, AffineOptions, BatchNormOptions, Init, ReluOptions};
use crate::network::Description;
use crate::shape::Shape;
use serde::{Deserialize, Serialize};

/// The network's options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CifarNet {
    /// One sample: `(3, 32, 32)`.
    pub input: Shape,
    /// Number of classes: 10.
    pub classes: usize,
    /// Filters of the three blocks.
    pub filters: [usize; 3],
    /// A third convolution in each block, and a shortcut around the last two, as the larger of the records' networks has.
    pub residual: bool,
}

impl Default for CifarNet {
    fn default() -> Self {
        Self { input: Shape::new(3, 32, 32), classes: 10, filters: [32, 96, 128], residual: false }
    }
}

impl CifarNet {
    /// The layers.
    pub fn description(&self) -> Description {
        let net = Description::new("cifar-net", self.input);
        // Both signs of every direction of a patch. What is white needs no normalisation.
        let patch = 4 * self.input.channels;
        let mut net = net.with("whiten", convolution(2 * patch, window(2, 1, 0))).with("whiten-relu", ReluOptions {});
        for (block, &filters) in self.filters.iter().enumerate() {
            let name = |part: &str| format!("block{}-{part}", block + 1);
            // Pooling before the normalisation leaves it a quarter of the work.
            net = net
                .with(name("conv1"), convolution(filters, window(3, 1, 1)).without_bias())
                .with(name("pool"), max_pooling(2, 2, 0))
                .with(name("conv1-norm"), BatchNormOptions::default())
                .with(name("relu1"), ReluOptions {});
            let same = || convolution(filters, window(3, 1, 1));
            net = convolution_norm(net, &name("conv2"), same()).with(name("relu2"), ReluOptions {});
            if self.residual {
                net = convolution_norm(net, &name("conv3"), same());
                net = net.with_inputs(name("add"), AddOptions {}, [name("conv3-norm"), name("relu1")]);
                net = net.with(name("relu3"), ReluOptions {});
            }
        }
        net.with("pool", max_pooling(3, 3, 0)).with("classes", AffineOptions::new(self.classes, Init::Xavier))
    }
}
