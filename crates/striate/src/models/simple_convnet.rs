//! The chapter's network (section 7.5): conv - relu - pool - affine - relu - affine - softmax.

use crate::layers::{AffineOptions, ConvolutionOptions, Init, PoolingOptions, ReluOptions};
use crate::network::Description;
use crate::shape::{Rounding, Shape, Window};

/// The parameters of the book's `SimpleConvNet`; the defaults are the book's.
#[derive(Clone, Debug, PartialEq)]
pub struct SimpleConvNet {
    /// One sample: `(1, 28, 28)`.
    pub input: Shape,
    /// Filters of the convolution: 30.
    pub filters: usize,
    /// Height and width of a filter: 5.
    pub filter_size: usize,
    /// Padding of the convolution: 0.
    pub padding: usize,
    /// Stride of the convolution: 1.
    pub stride: usize,
    /// Neurons of the hidden layer: 100.
    pub hidden: usize,
    /// Neurons of the output layer: 10.
    pub classes: usize,
    /// Initial weights: deviation 0.01.
    pub init: Init,
}

impl Default for SimpleConvNet {
    fn default() -> Self {
        Self {
            input: Shape::new(1, 28, 28),
            filters: 30,
            filter_size: 5,
            padding: 0,
            stride: 1,
            hidden: 100,
            classes: 10,
            init: Init::Normal { deviation: 0.01 },
        }
    }
}

impl SimpleConvNet {
    /// The layers under the book's names. Odd maps lose their last row and column in the pooling.
    pub fn description(&self) -> Description {
        let convolution = Window::square(self.filter_size, self.stride, self.padding);
        let pooling = Window::square(2, 2, 0).rounding(Rounding::Floor);
        Description::new("simple-convnet", self.input)
            .with("Conv1", ConvolutionOptions::new(self.filters, convolution, self.init))
            .with("Relu1", ReluOptions {})
            .with("Pool1", PoolingOptions::max(pooling))
            .with("Affine1", AffineOptions { outputs: self.hidden, init: self.init })
            .with("Relu2", ReluOptions {})
            .with("Affine2", AffineOptions { outputs: self.classes, init: self.init })
    }
}
