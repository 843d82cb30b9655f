//! Runs of layers that several models share.

use crate::layers::{
    AdaptivePoolingOptions, AffineOptions, BatchNormOptions, ConvolutionOptions, DropoutOptions, Init, PoolingOptions,
    ReluOptions,
};
use crate::network::Description;
use crate::shape::{Padding, Rounding, Window};

/// A square window that leaves the last rows and columns out where it does not divide the input, as the frameworks do
/// in which these models were published.
pub(super) const fn window(kernel: usize, stride: usize, padding: usize) -> Window {
    Window {
        kernel: (kernel, kernel),
        stride: (stride, stride),
        padding: Padding::all(padding),
        dilation: (1, 1),
        rounding: Rounding::Floor,
    }
}

/// Max pooling with such a window.
pub(super) fn max_pooling(kernel: usize, stride: usize, padding: usize) -> PoolingOptions {
    PoolingOptions::max(window(kernel, stride, padding))
}

/// A convolution for ReLU (He et al. 2015).
pub(super) fn convolution(filters: usize, window: Window) -> ConvolutionOptions {
    ConvolutionOptions::new(filters, window, Init::He)
}

/// Convolution and ReLU, called `conv{suffix}` and `relu{suffix}`.
pub(super) fn convolution_relu(net: Description, suffix: &str, options: ConvolutionOptions) -> Description {
    net.with(format!("conv{suffix}"), options).with(format!("relu{suffix}"), ReluOptions {})
}

/// Convolution without bias and batch normalisation, called `{name}` and `{name}-norm`.
pub(super) fn convolution_norm(net: Description, name: &str, options: ConvolutionOptions) -> Description {
    net.with(name, options.without_bias()).with(format!("{name}-norm"), BatchNormOptions::default())
}

/// Global average pooling and the affine layer that gives the logits.
pub(super) fn mean_and_classes(net: Description, classes: usize, init: Init) -> Description {
    net.with("pool", AdaptivePoolingOptions::global()).with("classes", AffineOptions::new(classes, init))
}

/// An affine layer with ReLU and dropout: `fc6`, `relu6`, `dropout6`. No dropout layer for a ratio of 0.
pub(super) fn affine_relu_dropout(net: Description, number: usize, options: AffineOptions, ratio: f32) -> Description {
    let net = net.with(format!("fc{number}"), options).with(format!("relu{number}"), ReluOptions {});
    if ratio == 0.0 { net } else { net.with(format!("dropout{number}"), DropoutOptions { ratio }) }
}
