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

/// The most numbers one buffer may hold: 2^34 (64 GiB of f32), or 2^29 (2 GiB) where addresses have 32 bits. Anything
/// larger is a mistake or an attack.
pub const MAX_ELEMENTS: usize = 1 << if usize::BITS > 34 { 34 } else { 29 };

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

/// Rows and columns added around a feature map. As data `[height, width]` where opposite sides are equal, else
/// `[top, left, bottom, right]` (ONNX's order).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "PaddingData", into = "PaddingData")]
pub struct Padding {
    /// Rows above.
    pub top: usize,
    /// Columns to the left.
    pub left: usize,
    /// Rows below.
    pub bottom: usize,
    /// Columns to the right.
    pub right: usize,
}

impl Padding {
    /// No padding.
    pub const NONE: Padding = Padding::all(0);

    /// The same on all four sides.
    pub const fn all(n: usize) -> Self {
        Self::symmetric(n, n)
    }

    /// `rows` above and below, `columns` left and right.
    pub const fn symmetric(rows: usize, columns: usize) -> Self {
        Self { top: rows, left: columns, bottom: rows, right: columns }
    }

    /// Whether opposite sides are equal.
    pub const fn is_symmetric(&self) -> bool {
        self.top == self.bottom && self.left == self.right
    }
}

impl fmt::Display for Padding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Padding { top, left, .. } if *self == Padding::all(top) && top == left => write!(f, "{top}"),
            Padding { top, left, .. } if self.is_symmetric() => write!(f, "{top}x{left}"),
            Padding { top, left, bottom, right } => write!(f, "{top},{left},{bottom},{right}"),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "padding is [height, width] or [top, left, bottom, right]")]
enum PaddingData {
    Sides([usize; 4]),
    Axes([usize; 2]),
}

impl From<PaddingData> for Padding {
    fn from(data: PaddingData) -> Self {
        match data {
            PaddingData::Axes([rows, columns]) => Self::symmetric(rows, columns),
            PaddingData::Sides([top, left, bottom, right]) => Self { top, left, bottom, right },
        }
    }
}

impl From<Padding> for PaddingData {
    fn from(p: Padding) -> Self {
        if p.is_symmetric() { Self::Axes([p.top, p.left]) } else { Self::Sides([p.top, p.left, p.bottom, p.right]) }
    }
}

/// A sliding window over a feature map: kernel size, stride and dilation as (height, width), and padding.
///
/// ```
/// use striate::shape::Window;
/// // Section 7.2.4: a 28x31 input, 5x5 filter, padding 2, stride 3 gives 10x11.
/// assert_eq!(Window::square(5, 3, 2).output((28, 31)).unwrap(), (10, 11));
/// // A 4x4 input padded by 1 is 6x6, so a 3x3 filter gives 4x4.
/// assert_eq!(Window::square(3, 1, 1).output((4, 4)).unwrap(), (4, 4));
/// // Every second pixel under a 3x3 filter spans 5x5.
/// assert_eq!(Window { dilation: (2, 2), ..Window::square(3, 1, 0) }.output((5, 5)).unwrap(), (1, 1));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Height and width of the filter or pool.
    pub kernel: (usize, usize),
    /// Step between neighbouring windows.
    pub stride: (usize, usize),
    /// Rows and columns added around the input.
    pub padding: Padding,
    /// Distance between the pixels under neighbouring places of the kernel: 1 for a dense window.
    #[serde(default = "dense", skip_serializing_if = "is_dense")]
    pub dilation: (usize, usize),
    /// What an inexact division means.
    #[serde(default)]
    pub rounding: Rounding,
}

const fn dense() -> (usize, usize) {
    (1, 1)
}

fn is_dense(dilation: &(usize, usize)) -> bool {
    *dilation == dense()
}

impl Window {
    /// A window of this height and width at stride 1, without padding, with the book's rounding: exact, or an error.
    pub const fn of(kernel: (usize, usize)) -> Self {
        Self { kernel, stride: (1, 1), padding: Padding::NONE, dilation: dense(), rounding: Rounding::Exact }
    }

    /// A square window with the book's rounding.
    pub const fn square(kernel: usize, stride: usize, padding: usize) -> Self {
        Self { stride: (stride, stride), padding: Padding::all(padding), ..Self::of((kernel, kernel)) }
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
            output_size(Axis::Height, input.0, self.along(Axis::Height), self.rounding)?,
            output_size(Axis::Width, input.1, self.along(Axis::Width), self.rounding)?,
        ))
    }

    /// The window along one axis.
    pub const fn along(&self, axis: Axis) -> Span {
        let p = &self.padding;
        match axis {
            Axis::Height => Span {
                kernel: self.kernel.0,
                stride: self.stride.0,
                dilation: self.dilation.0,
                padding: (p.top, p.bottom),
            },
            Axis::Width => Span {
                kernel: self.kernel.1,
                stride: self.stride.1,
                dilation: self.dilation.1,
                padding: (p.left, p.right),
            },
        }
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

/// A [`Window`] along one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Places of the kernel.
    pub kernel: usize,
    /// Step between neighbouring windows.
    pub stride: usize,
    /// Distance between the pixels under neighbouring places.
    pub dilation: usize,
    /// Padding before and after.
    pub padding: (usize, usize),
}

/// Output size along one axis: `(input + padding - kernel) / stride + 1` (section 7.2.4), where a dilated kernel counts
/// with all it spans: `dilation (kernel - 1) + 1`.
///
/// # Errors
/// As for [`Window::output`].
pub fn output_size(axis: Axis, input: usize, span: Span, rounding: Rounding) -> Result<usize, ShapeError> {
    let Span { kernel, stride, dilation, padding } = span;
    for (what, n) in [("input", input), ("kernel", kernel), ("stride", stride), ("dilation", dilation)] {
        if n == 0 {
            return Err(ShapeError::Zero { what, axis });
        }
    }
    let sensible = |n: Option<usize>| {
        let sizes = vec![input, kernel, dilation, padding.0, padding.1];
        n.filter(|&n| n <= MAX_ELEMENTS).ok_or(ShapeError::TooLarge { sizes })
    };
    let padded = sensible(input.checked_add(padding.0).and_then(|n| n.checked_add(padding.1)))?;
    let kernel = sensible((kernel - 1).checked_mul(dilation))? + 1;
    if kernel > padded {
        return Err(ShapeError::KernelTooLarge { axis, input, kernel, padding });
    }
    let (steps, rest) = ((padded - kernel) / stride, (padded - kernel) % stride);
    match rounding {
        _ if rest == 0 => Ok(steps + 1),
        Rounding::Floor => Ok(steps + 1),
        // The last window must start inside the input or its leading padding, never in the trailing padding.
        Rounding::Ceil if (steps + 1) * stride < input + padding.0 => Ok(steps + 2),
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

/// Padding before and after, as a term of a sum.
fn padding_term((before, after): (usize, usize)) -> String {
    if before == after { format!("2*{before}") } else { format!("{before} + {after}") }
}

/// Numbers that divide both.
fn common_divisors(a: usize, b: usize) -> impl Iterator<Item = usize> {
    (1..=a.min(b)).filter(move |n| a.is_multiple_of(*n) && b.is_multiple_of(*n))
}

/// `1, 2 or 4`.
fn one_of(numbers: impl Iterator<Item = usize>) -> String {
    let mut words: Vec<String> = numbers.map(|n| n.to_string()).collect();
    let last = words.pop().unwrap_or_default();
    if words.is_empty() { last } else { format!("{} or {last}", words.join(", ")) }
}

/// Padding before and after, in words.
fn padding_words((before, after): (usize, usize)) -> String {
    if before == after { before.to_string() } else { format!("{before} before and {after} after") }
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
        "the kernel's {axis} {kernel} does not fit into an input of {axis} {input} with padding {} ({} in all); \
         use a kernel of at most {}, or a padding of at least {}",
        padding_words(*.padding), input + padding.0 + padding.1, input + padding.0 + padding.1, (kernel - input).div_ceil(2)
    )]
    KernelTooLarge {
        /// The axis it was found on.
        axis: Axis,
        /// Input size.
        input: usize,
        /// Kernel size, with its dilation.
        kernel: usize,
        /// Padding before and after.
        padding: (usize, usize),
    },
    /// The stride leaves a rest.
    #[error(
        "an input of {axis} {input} with kernel {kernel}, padding {} and stride {stride} does not divide evenly: \
         ({input} + {} - {kernel}) / {stride} leaves a rest; the nearest {axis}s that fit are {}{larger}, \
         or choose another padding or stride, or floor rounding",
        padding_words(*.padding), padding_term(*.padding), smaller.map(|n| format!("{n} and ")).unwrap_or_default()
    )]
    Inexact {
        /// The axis it was found on.
        axis: Axis,
        /// Input size.
        input: usize,
        /// Kernel size, with its dilation.
        kernel: usize,
        /// Stride.
        stride: usize,
        /// Padding before and after.
        padding: (usize, usize),
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
    /// Channels or filters that cannot be cut into so many groups.
    #[error(
        "{channels} channels and {filters} filters cannot both be cut into {groups} equal groups; {} groups would do",
        one_of(common_divisors(*.channels, *.filters))
    )]
    Groups {
        /// Input channels.
        channels: usize,
        /// Filters.
        filters: usize,
        /// Groups asked for.
        groups: usize,
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

    #[test]
    fn padding_as_data() {
        let read = |text: &str| serde_json::from_str::<Padding>(text);
        assert_eq!(read("[1, 2]").unwrap(), Padding::symmetric(1, 2));
        let uneven = Padding { top: 1, left: 2, bottom: 3, right: 4 };
        assert_eq!(read("[1, 2, 3, 4]").unwrap(), uneven);
        assert!(read("[1, 2, 3]").unwrap_err().to_string().contains("[top, left, bottom, right]"));
        for padding in [Padding::all(3), Padding::symmetric(0, 1), uneven] {
            assert_eq!(read(&serde_json::to_string(&padding).unwrap()).unwrap(), padding);
        }
        assert_eq!(uneven.to_string(), "1,2,3,4");
        let window = Window { padding: uneven, ..Window::square(3, 2, 0) };
        assert_eq!(window.output((5, 5)), Ok((4, 5)));
    }

    fn span() -> impl Strategy<Value = Span> {
        (1usize..9, 1usize..9, 1usize..4, (0usize..5, 0usize..5)).prop_map(|(kernel, stride, dilation, padding)| Span {
            kernel,
            stride,
            dilation,
            padding,
        })
    }

    proptest! {
        #[test]
        fn named_sizes_do_fit(input in 1usize..60, span in span()) {
            if let Err(ShapeError::Inexact { smaller, larger, .. }) =
                output_size(Axis::Width, input, span, Rounding::Exact)
            {
                prop_assert!(output_size(Axis::Width, larger, span, Rounding::Exact).is_ok());
                if let Some(smaller) = smaller {
                    prop_assert!(output_size(Axis::Width, smaller, span, Rounding::Exact).is_ok());
                }
            }
        }

        #[test]
        fn every_window_touches_the_input(input in 1usize..40, span in span()) {
            prop_assume!(span.padding.0.max(span.padding.1) < span.kernel);
            for rounding in [Rounding::Floor, Rounding::Ceil] {
                if let Ok(n) = output_size(Axis::Width, input, span, rounding) {
                    prop_assert!((n - 1) * span.stride < input + span.padding.0);
                }
            }
        }
    }
}
