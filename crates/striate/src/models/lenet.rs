//! LeNet-5 (section 7.7.1; LeCun, Bottou, Bengio & Haffner 1998, "Gradient-Based Learning Applied to Document
//! Recognition"): two rounds of convolution and subsampling, then affine layers. As the chapter says, with sigmoid and
//! subsampling by pooling; `activation=relu` and `pooling=max` make it today's form. The paper's trainable subsampling is
//! average pooling here, each of the second convolution's filters sees all six maps, and the last layer is affine.

use super::blocks::window;
use crate::layers::{
    AffineOptions, ConvolutionOptions, Init, Layer, PoolingKind, PoolingOptions, ReluOptions, SigmoidOptions,
    TanhOptions,
};
use crate::network::Description;
use crate::shape::{Rounding, Shape};
use serde::{Deserialize, Serialize};

/// Which activation a [`LeNet`] has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// The chapter's.
    Sigmoid,
    /// The paper's, up to a scale.
    Tanh,
    /// Today's.
    Relu,
}

/// LeNet-5's options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LeNet {
    /// One sample: `(1, 32, 32)`. An input of 28x28 (MNIST) is padded to that.
    pub input: Shape,
    /// Number of classes: 10.
    pub classes: usize,
    /// After each layer but the last.
    pub activation: Activation,
    /// How maps are subsampled.
    pub pooling: PoolingKind,
}

impl Default for LeNet {
    fn default() -> Self {
        Self {
            input: Shape::new(1, 32, 32),
            classes: 10,
            activation: Activation::Sigmoid,
            pooling: PoolingKind::Average,
        }
    }
}

impl LeNet {
    /// The layers under the paper's names: C1, S2, C3, S4, C5, F6.
    pub fn description(&self) -> Description {
        let (activation, init): (Layer, Init) = match self.activation {
            Activation::Sigmoid => (SigmoidOptions {}.into(), Init::Xavier),
            Activation::Tanh => (TanhOptions {}.into(), Init::Xavier),
            Activation::Relu => (ReluOptions {}.into(), Init::He),
        };
        let pooling = PoolingOptions {
            pooling: self.pooling,
            window: window(2, 2, 0).rounding(Rounding::Exact),
            count_padding: false,
        };
        // A margin of two around a digit of 28x28 makes the paper's 32x32.
        let margin = if (self.input.height, self.input.width) == (28, 28) { 2 } else { 0 };
        let convolution =
            |filters, padding| ConvolutionOptions::new(filters, window(5, 1, padding).rounding(Rounding::Exact), init);
        Description::new("lenet", self.input)
            .with("C1", convolution(6, margin))
            .with("C1-activation", activation.clone())
            .with("S2", pooling.clone())
            .with("C3", convolution(16, 0))
            .with("C3-activation", activation.clone())
            .with("S4", pooling)
            .with("C5", AffineOptions::new(120, init))
            .with("C5-activation", activation.clone())
            .with("F6", AffineOptions::new(84, init))
            .with("F6-activation", activation)
            .with("output", AffineOptions::new(self.classes, init))
    }
}
