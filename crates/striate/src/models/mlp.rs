//! The fully connected network of the earlier chapters (section 5.7), for comparison: affine - relu - affine.

use crate::layers::{AffineOptions, Init, ReluOptions};
use crate::network::Description;
use crate::shape::Shape;
use serde::{Deserialize, Serialize};

/// A network without convolution: it sees an image as a list of numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mlp {
    /// One sample.
    pub input: Shape,
    /// Neurons of each hidden layer: one of 100.
    pub hidden: Vec<usize>,
    /// Neurons of the output layer.
    pub classes: usize,
    /// Initial weights: deviation 0.01.
    pub init: Init,
}

impl Default for Mlp {
    fn default() -> Self {
        Self { input: Shape::new(1, 28, 28), hidden: vec![100], classes: 10, init: Init::Normal { deviation: 0.01 } }
    }
}

impl Mlp {
    /// The layers.
    pub fn description(&self) -> Description {
        let mut description = Description::new("mlp", self.input);
        for (i, &outputs) in self.hidden.iter().enumerate() {
            description = description
                .with(format!("Affine{}", i + 1), AffineOptions::new(outputs, self.init))
                .with(format!("Relu{}", i + 1), ReluOptions {});
        }
        let last = AffineOptions::new(self.classes, self.init);
        description.with(format!("Affine{}", self.hidden.len() + 1), last)
    }
}
