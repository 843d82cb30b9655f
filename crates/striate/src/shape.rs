//! Sizes: what goes in, what comes out, and what does not fit.
//!
//! Every layer asks this room for its output size, so a padding rule exists once.
//! The formula is the book's (section 7.2.4): `OH = (H + 2P - FH) / S + 1`.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The size of one sample between two layers: channels, height, width.
///
/// A flat vector of `n` features (the output of an affine layer) is `(n, 1, 1)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "[usize; 3]", into = "[usize; 3]")]
pub struct Shape {
    /// Number of channels (feature maps), or of features in a flat vector.
    pub channels: usize,
    /// Rows of a feature map.
    pub height: usize,
    /// Columns of a feature map.
    pub width: usize,
}

impl Shape {
    /// A sample of `channels` maps of `height` rows and `width` columns.
    pub const fn new(channels: usize, height: usize, width: usize) -> Self {
        Self { channels, height, width }
    }

    /// A flat vector of `features` numbers.
    pub const fn flat(features: usize) -> Self {
        Self::new(features, 1, 1)
    }

    /// Numbers in one sample.
    pub const fn len(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// Whether the sample holds no number at all.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Pixels of one map.
    pub const fn area(&self) -> usize {
        self.height * self.width
    }

    /// Whether this is a flat vector.
    pub const fn is_flat(&self) -> bool {
        self.height == 1 && self.width == 1
    }

    /// The product of `counts` with this sample's size, or [`ShapeError::TooLarge`].
    pub fn checked_len(&self, batch: usize) -> Result<usize, ShapeError> {
        checked_product(&[batch, self.channels, self.height, self.width])
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_flat() {
            write!(f, "{}", self.channels)
        } else {
            write!(f, "{} x {} x {}", self.channels, self.height, self.width)
        }
    }
}

impl From<[usize; 3]> for Shape {
    fn from([channels, height, width]: [usize; 3]) -> Self {
        Self { channels, height, width }
    }
}

impl From<Shape> for [usize; 3] {
    fn from(s: Shape) -> Self {
        [s.channels, s.height, s.width]
    }
}

/// The most numbers one buffer may hold: 2^34 (64 GiB of f32). Anything larger is a mistake or an attack.
pub const MAX_ELEMENTS: usize = 1 << 34;

/// The product of sizes, refused beyond [`MAX_ELEMENTS`].
pub fn checked_product(sizes: &[usize]) -> Result<usize, ShapeError> {
    sizes
        .iter()
        .try_fold(1usize, |product, &n| product.checked_mul(n))
        .filter(|&n| n <= MAX_ELEMENTS)
        .ok_or_else(|| ShapeError::TooLarge { sizes: sizes.to_vec() })
}

/// What to do when the window does not divide the padded input evenly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rounding {
    /// Refuse, and say which sizes fit: what the book requires.
    #[default]
    Exact,
    /// Leave the last rows and columns out: what other frameworks do.
    Floor,
    /// Let the last window hang over the edge (pooling only).
    Ceil,
}

/// A sliding window over a feature map: kernel size, stride and padding, each as (height, width).
///
/// ```
/// use striate::shape::{Rounding, Window};
/// // Section 7.2.4: a 28x31 input, 5x5 filter, padding 2, stride 3 gives 10x11.
/// let window = Window { kernel: (5, 5), stride: (3, 3), padding: (2, 2), rounding: Rounding::Exact };
/// assert_eq!(window.output((28, 31)).unwrap(), (10, 11));
/// // A 4x4 input padded by 1 is 6x6, so a 3x3 filter gives 4x4.
/// let same = Window { kernel: (3, 3), stride: (1, 1), padding: (1, 1), rounding: Rounding::Exact };
/// assert_eq!(same.output((4, 4)).unwrap(), (4, 4));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Height and width of the filter or pool.
    pub kernel: (usize, usize),
    /// Step between neighbouring windows.
    pub stride: (usize, usize),
    /// Rows and columns added on each side (top and bottom, left and right).
    pub padding: (usize, usize),
    /// What an inexact division means.
    #[serde(default)]
    pub rounding: Rounding,
}

impl Window {
    /// A square window with the book's rounding: exact, or an error.
    pub const fn square(kernel: usize, stride: usize, padding: usize) -> Self {
        Self {
            kernel: (kernel, kernel),
            stride: (stride, stride),
            padding: (padding, padding),
            rounding: Rounding::Exact,
        }
    }

    /// The same window with another rounding rule.
    pub const fn rounding(mut self, rounding: Rounding) -> Self {
        self.rounding = rounding;
        self
    }

    /// Output height and width for an input of `(height, width)`.
    ///
    /// # Errors
    /// A zero size, a window larger than the padded input, or (with [`Rounding::Exact`]) a division with a rest.
    pub fn output(&self, input: (usize, usize)) -> Result<(usize, usize), ShapeError> {
        Ok((
            output_size(Axis::Height, input.0, self.kernel.0, self.stride.0, self.padding.0, self.rounding)?,
            output_size(Axis::Width, input.1, self.kernel.1, self.stride.1, self.padding.1, self.rounding)?,
        ))
    }
}

/// Which of the two spatial axes an error speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    /// Rows.
    Height,
    /// Columns.
    Width,
}

impl fmt::Display for Axis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Axis::Height => "height",
            Axis::Width => "width",
        })
    }
}

/// Output size along one axis: `(input + 2 padding - kernel) / stride + 1` (section 7.2.4).
///
/// # Errors
/// As for [`Window::output`].
pub fn output_size(
    axis: Axis,
    input: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
    rounding: Rounding,
) -> Result<usize, ShapeError> {
    for (what, n) in [("input", input), ("kernel", kernel), ("stride", stride)] {
        if n == 0 {
            return Err(ShapeError::Zero { what, axis });
        }
    }
    let padded = padding
        .checked_mul(2)
        .and_then(|p| p.checked_add(input))
        .filter(|&p| p <= MAX_ELEMENTS)
        .ok_or_else(|| ShapeError::TooLarge { sizes: vec![input, padding] })?;
    if kernel > padded {
        return Err(ShapeError::KernelTooLarge { axis, input, kernel, padding });
    }
    let (steps, rest) = ((padded - kernel) / stride, (padded - kernel) % stride);
    match rounding {
        _ if rest == 0 => Ok(steps + 1),
        Rounding::Floor => Ok(steps + 1),
        // The last window must start inside the input or its leading padding, never in the trailing padding.
        Rounding::Ceil if (steps + 1) * stride < input + padding => Ok(steps + 2),
        Rounding::Ceil => Ok(steps + 1),
        Rounding::Exact => Err(ShapeError::Inexact {
            axis,
            input,
            kernel,
            stride,
            padding,
            smaller: input.checked_sub(rest).filter(|&n| n > 0),
            larger: input + stride - rest,
        }),
    }
}

/// A size that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShapeError {
    /// Something has no extent.
    #[error("the {what} {axis} is 0; it must be at least 1")]
    Zero {
        /// Input, kernel or stride.
        what: &'static str,
        /// The axis it was found on.
        axis: Axis,
    },
    /// The window is larger than the padded input.
    #[error(
        "the kernel's {axis} {kernel} does not fit into an input of {axis} {input} with padding {padding} ({} in all); \
         use a kernel of at most {}, or a padding of at least {}",
        input + 2 * padding, input + 2 * padding, (kernel - input).div_ceil(2)
    )]
    KernelTooLarge {
        /// The axis it was found on.
        axis: Axis,
        /// Input size.
        input: usize,
        /// Kernel size.
        kernel: usize,
        /// Padding on each side.
        padding: usize,
    },
    /// The stride leaves a rest.
    #[error(
        "an input of {axis} {input} with kernel {kernel}, padding {padding} and stride {stride} does not divide evenly: \
         ({input} + 2*{padding} - {kernel}) / {stride} leaves a rest; the nearest {axis}s that fit are {}{larger}, \
         or choose another padding or stride, or floor rounding",
        smaller.map(|n| format!("{n} and ")).unwrap_or_default()
    )]
    Inexact {
        /// The axis it was found on.
        axis: Axis,
        /// Input size.
        input: usize,
        /// Kernel size.
        kernel: usize,
        /// Stride.
        stride: usize,
        /// Padding on each side.
        padding: usize,
        /// The next smaller input that fits, if any.
        smaller: Option<usize>,
        /// The next larger input that fits.
        larger: usize,
    },
    /// An array does not have the size that it must have.
    #[error("{what} has shape {found:?}, but {expected:?} is needed")]
    Mismatch {
        /// Which array.
        what: &'static str,
        /// What is needed.
        expected: Vec<usize>,
        /// What was given.
        found: Vec<usize>,
    },
    /// An array that must hold something is empty.
    #[error("{what} is empty (shape {found:?}); every size must be at least 1")]
    Empty {
        /// Which array.
        what: &'static str,
        /// Its shape.
        found: Vec<usize>,
    },
    /// A product of sizes that no machine can hold.
    #[error("an array of sizes {sizes:?} is too large (more than 2^34 numbers)")]
    TooLarge {
        /// The factors.
        sizes: Vec<usize>,
    },
    /// `backward` was called before `forward`.
    #[error("backward needs the values of a forward pass; call forward first")]
    BackwardBeforeForward,
    /// A label outside the classes.
    #[error("label {label} of sample {sample} is not a class; classes are 0 to {}", classes - 1)]
    Label {
        /// Position in the batch.
        sample: usize,
        /// The label found.
        label: usize,
        /// Number of classes.
        classes: usize,
    },
    /// An option outside its range.
    #[error("{what} is {found}; it must be {expected}")]
    Option {
        /// Which option.
        what: &'static str,
        /// What was given.
        found: String,
        /// What is allowed.
        expected: &'static str,
    },
    /// Rounding up is only meaningful for pooling.
    #[error("ceil rounding is for pooling only; a convolution takes exact or floor")]
    CeilConvolution,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_chapters_sizes() {
        // 7.2.4, examples 1 to 3, and 7.2.3: stride 2 on 7x7.
        assert_eq!(Window::square(3, 1, 1).output((4, 4)), Ok((4, 4)));
        assert_eq!(Window::square(3, 2, 0).output((7, 7)), Ok((3, 3)));
        assert_eq!(Window::square(5, 3, 2).output((28, 31)), Ok((10, 11)));
    }

    #[test]
    fn an_inexact_division_names_what_fits() {
        let error = Window::square(3, 2, 0).output((8, 7)).unwrap_err();
        assert!(
            matches!(error, ShapeError::Inexact { smaller: Some(7), larger: 9, axis: Axis::Height, .. }),
            "{error}"
        );
        assert!(error.to_string().contains("7 and 9"), "{error}");
        assert_eq!(Window::square(3, 2, 0).rounding(Rounding::Floor).output((8, 8)), Ok((3, 3)));
        assert_eq!(Window::square(3, 2, 0).rounding(Rounding::Ceil).output((8, 8)), Ok((4, 4)));
    }

    #[test]
    fn ceil_never_starts_a_window_in_the_trailing_padding() {
        // Rounded up, a second window would start at padded position 4 of 3 + 1: beyond the last real pixel.
        assert_eq!(Window::square(2, 4, 1).rounding(Rounding::Ceil).output((3, 3)), Ok((1, 1)));
        // Here it starts at padded position 3, the input's last pixel.
        assert_eq!(Window::square(3, 3, 1).rounding(Rounding::Ceil).output((3, 3)), Ok((2, 2)));
    }

    #[test]
    fn impossible_sizes_are_refused() {
        assert!(matches!(Window::square(0, 1, 0).output((4, 4)), Err(ShapeError::Zero { what: "kernel", .. })));
        assert!(matches!(Window::square(2, 0, 0).output((4, 4)), Err(ShapeError::Zero { what: "stride", .. })));
        assert!(matches!(Window::square(2, 1, 0).output((0, 4)), Err(ShapeError::Zero { what: "input", .. })));
        assert!(matches!(Window::square(7, 1, 1).output((4, 4)), Err(ShapeError::KernelTooLarge { .. })));
        assert!(matches!(Window::square(7, 1, usize::MAX).output((4, 4)), Err(ShapeError::TooLarge { .. })));
        assert!(checked_product(&[1 << 20, 1 << 20]).is_err());
    }

    proptest! {
        #[test]
        fn named_sizes_do_fit(input in 1usize..60, kernel in 1usize..9, stride in 1usize..9, padding in 0usize..5) {
            if let Err(ShapeError::Inexact { smaller, larger, .. }) =
                output_size(Axis::Width, input, kernel, stride, padding, Rounding::Exact)
            {
                prop_assert!(output_size(Axis::Width, larger, kernel, stride, padding, Rounding::Exact).is_ok());
                if let Some(smaller) = smaller {
                    let fits = output_size(Axis::Width, smaller, kernel, stride, padding, Rounding::Exact);
                    prop_assert!(fits.is_ok());
                }
            }
        }

        #[test]
        fn every_window_touches_the_input(input in 1usize..40, kernel in 1usize..9, stride in 1usize..9, padding in 0usize..5) {
            prop_assume!(padding < kernel);
            for rounding in [Rounding::Floor, Rounding::Ceil] {
                if let Ok(n) = output_size(Axis::Width, input, kernel, stride, padding, rounding) {
                    prop_assert!((n - 1) * stride < input + padding);
                }
            }
        }
    }
}
