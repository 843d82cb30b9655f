//! Adaptive average pooling: a map of any size to a grid of fixed size, each cell the mean of its region. With a grid of
//! 1x1 it is *global average pooling* (Lin et al. 2013), the end of most networks since.

use super::{Backward, Forward, Operator, Reach, Rule, expect_shape};
use crate::kernels::adaptive_pooling::{self as kernel, Geometry};
use crate::shape::{Shape, ShapeError};
use ndarray::Array4;
use serde::{Deserialize, Serialize};

/// Adaptive average pooling in a network's description.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdaptivePoolingOptions {
    /// Height and width of the output.
    pub output: (usize, usize),
}

impl AdaptivePoolingOptions {
    /// The mean of the whole map.
    pub const fn global() -> Self {
        Self { output: (1, 1) }
    }
}

/// Adaptive average pooling as a layer of its own.
///
/// ```
/// use ndarray::array;
/// use striate::layers::{AdaptivePooling, AdaptivePoolingOptions};
/// let mut mean = AdaptivePooling::new(AdaptivePoolingOptions::global());
/// assert_eq!(mean.forward(&array![[[[1., 2.], [3., 4.]]]])?, array![[[[2.5]]]]);
/// # Ok::<(), striate::shape::ShapeError>(())
/// ```
#[derive(Clone, Debug)]
pub struct AdaptivePooling {
    options: AdaptivePoolingOptions,
    input: Option<[usize; 4]>,
}

impl AdaptivePooling {
    /// With a grid of the given size.
    pub fn new(options: AdaptivePoolingOptions) -> Self {
        Self { options, input: None }
    }

    /// (N, C, H, W) to (N, C, grid height, grid width).
    ///
    /// # Errors
    /// An empty input, or a grid that is empty or larger than the map.
    pub fn forward(&mut self, x: &Array4<f32>) -> Result<Array4<f32>, ShapeError> {
        let (n, c, h, w) = x.dim();
        let g = Geometry::new(Shape::new(c, h, w), self.options.output)?;
        let mut y = Array4::zeros((n, c, g.output.0, g.output.1));
        if let (Some(x), Some(y)) = (x.as_standard_layout().as_slice(), y.as_slice_mut()) {
            kernel::forward(&g, x, y);
        }
        self.input = Some([n, c, h, w]);
        Ok(y)
    }

    /// The gradient of the input: each cell's in equal shares over its region.
    ///
    /// # Errors
    /// No forward pass before, or a gradient of another shape.
    pub fn backward(&mut self, dy: &Array4<f32>) -> Result<Array4<f32>, ShapeError> {
        let [n, c, h, w] = self.input.ok_or(ShapeError::BackwardBeforeForward)?;
        let g = Geometry::new(Shape::new(c, h, w), self.options.output)?;
        expect_shape("the output gradient of adaptive pooling", &[n, c, g.output.0, g.output.1], dy.shape())?;
        let mut dx = Array4::zeros((n, c, h, w));
        if let (Some(dy), Some(dx)) = (dy.as_standard_layout().as_slice(), dx.as_slice_mut()) {
            kernel::backward(&g, dy, dx, false);
        }
        Ok(dx)
    }
}

impl Rule for AdaptivePoolingOptions {
    fn kind(&self) -> &'static str {
        if *self == Self::global() { "GlobalAveragePooling" } else { "AdaptivePooling" }
    }

    fn describe(&self) -> String {
        if *self == Self::global() { String::new() } else { format!("to {}x{}", self.output.0, self.output.1) }
    }

    fn output(&self, input: Shape) -> Result<Shape, ShapeError> {
        let g = Geometry::new(input, self.output)?;
        Ok(Shape::new(input.channels, g.output.0, g.output.1))
    }

    fn reach(&self) -> Reach {
        Reach::All
    }

    fn flops(&self, input: Shape) -> Result<u64, ShapeError> {
        Ok(input.len() as u64)
    }

    fn operator(&self, input: Shape, _batch: usize) -> Result<Box<dyn Operator>, ShapeError> {
        Ok(Box::new(AdaptivePoolingOperator(Geometry::new(input, self.output)?)))
    }
}

#[derive(Debug)]
struct AdaptivePoolingOperator(Geometry);

impl Operator for AdaptivePoolingOperator {
    fn output(&self) -> Shape {
        Shape::new(self.0.input.channels, self.0.output.0, self.0.output.1)
    }

    fn forward(&self, f: Forward<'_>) {
        kernel::forward(&self.0, f.input, f.output);
    }

    fn backward(&self, b: Backward<'_>) {
        if b.input_gradient.is_wanted() {
            kernel::backward(&self.0, b.output_gradient, b.input_gradient.values, b.input_gradient.accumulate);
        }
    }
}
