//! Max and average pooling (section 7.3).
//!
//! The book's own Pooling leaves its padding out of the output size; here padding counts, as everywhere else. A padded
//! place never wins a maximum; an average leaves it out of the mean unless `count_padding` is set.

use super::{Backward, Forward, Operator, Reach, Rule, expect_shape};
use crate::kernels::pooling::{self as kernel, Geometry};
use crate::shape::{Padding, Shape, ShapeError, Window};
use ndarray::Array4;
use serde::{Deserialize, Serialize};

/// Which number stands for a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PoolingKind {
    /// The largest.
    Max,
    /// The mean.
    Average,
}

/// Pooling in a network's description, and the options of the book-style [`Pooling`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolingOptions {
    /// Max or average.
    pub pooling: PoolingKind,
    /// Window size, stride, padding and rounding.
    pub window: Window,
    /// Whether padded places count in an average.
    #[serde(default)]
    pub count_padding: bool,
}

impl PoolingOptions {
    /// Max pooling.
    pub fn max(window: Window) -> Self {
        Self { pooling: PoolingKind::Max, window, count_padding: false }
    }

    /// Average pooling that leaves padding out of the mean.
    pub fn average(window: Window) -> Self {
        Self { pooling: PoolingKind::Average, window, count_padding: false }
    }
}

/// The book's pooling layer.
///
/// ```
/// use ndarray::array;
/// use striate::{layers::Pooling, shape::Window};
/// // Section 7.3: the largest of each 2x2 window, stride 2.
/// let x = array![[[[1., 2., 1., 0.], [0., 1., 2., 3.], [3., 0., 1., 2.], [2., 4., 0., 1.]]]];
/// let mut pooling = Pooling::max(Window::square(2, 2, 0));
/// assert_eq!(pooling.forward(&x)?, array![[[[2., 3.], [4., 2.]]]]);
/// # Ok::<(), striate::shape::ShapeError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Pooling {
    options: PoolingOptions,
    /// Input shape and winners of the last forward pass.
    forward: Option<([usize; 4], Vec<u32>)>,
}

impl Pooling {
    /// With any options.
    pub fn new(options: PoolingOptions) -> Self {
        Self { options, forward: None }
    }

    /// Max pooling.
    pub fn max(window: Window) -> Self {
        Self::new(PoolingOptions::max(window))
    }

    /// Average pooling that leaves padding out of the mean.
    pub fn average(window: Window) -> Self {
        Self::new(PoolingOptions::average(window))
    }

    /// (N, C, H, W) to (N, C, OH, OW).
    ///
    /// # Errors
    /// An empty input, or a window that does not fit.
    pub fn forward(&mut self, x: &Array4<f32>) -> Result<Array4<f32>, ShapeError> {
        let (n, channels, height, width) = x.dim();
        if n == 0 {
            return Err(ShapeError::Empty { what: "the pooling input", found: x.shape().to_vec() });
        }
        let g = Geometry::new(Shape::new(channels, height, width), self.options.window)?;
        let x = x.as_standard_layout();
        let mut y = Array4::zeros((n, channels, g.output.height, g.output.width));
        let mut winner = Vec::new();
        if let (Some(x), Some(y)) = (x.as_slice(), y.as_slice_mut()) {
            match self.options.pooling {
                PoolingKind::Max => {
                    winner.resize(y.len(), 0);
                    kernel::max_forward(&g, x, y, Some(&mut winner));
                }
                PoolingKind::Average => kernel::average_forward(&g, self.options.count_padding, x, y),
            }
        }
        self.forward = Some(([n, channels, height, width], winner));
        Ok(y)
    }

    /// The gradient of the input: all of it to each window's first maximum, or in equal shares.
    ///
    /// # Errors
    /// No forward pass before, or a gradient that is not of the output's shape.
    pub fn backward(&mut self, dy: &Array4<f32>) -> Result<Array4<f32>, ShapeError> {
        let ([n, channels, height, width], winner) = self.forward.as_ref().ok_or(ShapeError::BackwardBeforeForward)?;
        let g = Geometry::new(Shape::new(*channels, *height, *width), self.options.window)?;
        expect_shape("the pooling's output gradient", &[*n, *channels, g.output.height, g.output.width], dy.shape())?;
        let dy = dy.as_standard_layout();
        let mut dx = Array4::zeros((*n, *channels, *height, *width));
        if let (Some(dy), Some(dx)) = (dy.as_slice(), dx.as_slice_mut()) {
            match self.options.pooling {
                PoolingKind::Max => kernel::max_backward(&g, winner, dy, dx, false),
                PoolingKind::Average => kernel::average_backward(&g, self.options.count_padding, dy, dx, false),
            }
        }
        Ok(dx)
    }
}

impl Rule for PoolingOptions {
    fn kind(&self) -> &'static str {
        match self.pooling {
            PoolingKind::Max => "MaxPooling",
            PoolingKind::Average => "AveragePooling",
        }
    }

    fn describe(&self) -> String {
        let Window { kernel, stride, padding, .. } = self.window;
        let mut text = format!("{}x{}, stride {}", kernel.0, kernel.1, stride.0);
        if stride.0 != stride.1 {
            text += &format!("x{}", stride.1);
        }
        if padding != Padding::NONE {
            text += &format!(", padding {padding}");
        }
        text
    }

    fn output(&self, input: Shape) -> Result<Shape, ShapeError> {
        Ok(Geometry::new(input, self.window)?.output)
    }

    fn reach(&self) -> Reach {
        Reach::Window(self.window)
    }

    fn flops(&self, input: Shape) -> Result<u64, ShapeError> {
        let output = Geometry::new(input, self.window)?.output;
        Ok((self.window.kernel.0 * self.window.kernel.1 * output.len()) as u64)
    }

    fn operator(&self, input: Shape, batch: usize) -> Result<Box<dyn Operator>, ShapeError> {
        let geometry = Geometry::new(input, self.window)?;
        Ok(Box::new(PoolingOperator { geometry, batch, options: self.clone() }))
    }
}

#[derive(Debug)]
struct PoolingOperator {
    geometry: Geometry,
    batch: usize,
    options: PoolingOptions,
}

impl Operator for PoolingOperator {
    fn output(&self) -> Shape {
        self.geometry.output
    }

    fn saved(&self) -> usize {
        match self.options.pooling {
            // The place of each maximum, a u32 in the room of an f32.
            PoolingKind::Max => self.batch * self.geometry.output.len(),
            PoolingKind::Average => 0,
        }
    }

    fn forward(&self, f: Forward<'_>) {
        match self.options.pooling {
            PoolingKind::Max => {
                let winner = (!f.saved.is_empty()).then(|| bytemuck::cast_slice_mut(f.saved));
                kernel::max_forward(&self.geometry, f.input, f.output, winner);
            }
            PoolingKind::Average => {
                kernel::average_forward(&self.geometry, self.options.count_padding, f.input, f.output);
            }
        }
    }

    fn backward(&self, b: Backward<'_>) {
        let dx = b.input_gradient;
        if !dx.is_wanted() {
            return;
        }
        match self.options.pooling {
            PoolingKind::Max => {
                let winner = bytemuck::cast_slice(b.saved);
                kernel::max_backward(&self.geometry, winner, b.output_gradient, dx.values, dx.accumulate);
            }
            PoolingKind::Average => {
                let padding = self.options.count_padding;
                kernel::average_backward(&self.geometry, padding, b.output_gradient, dx.values, dx.accumulate);
            }
        }
    }
}
