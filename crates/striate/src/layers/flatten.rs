//! Flatten: a feature map (C, H, W) as a flat vector of C·H·W features. Affine layers do it by themselves; other layers
//! may want it said.

use super::{Operator, Rule, batch_shape, expect_shape};
use crate::shape::{Shape, ShapeError};
use ndarray::{Array2, Array4};
use serde::{Deserialize, Serialize};

/// Flatten as a layer of its own.
///
/// ```
/// use ndarray::Array4;
/// use striate::layers::Flatten;
/// assert_eq!(Flatten::new().forward(Array4::zeros((2, 3, 4, 5)))?.dim(), (2, 60));
/// # Ok::<(), striate::shape::ShapeError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Flatten {
    shape: Option<[usize; 4]>,
}

impl Flatten {
    /// A layer without parameters.
    pub fn new() -> Self {
        Self::default()
    }

    /// (N, C, H, W) to (N, C·H·W).
    ///
    /// # Errors
    /// An empty input.
    pub fn forward(&mut self, x: Array4<f32>) -> Result<Array2<f32>, ShapeError> {
        let (batch, shape) = batch_shape("the input of flatten", x.shape())?;
        self.shape = Some(x.dim().into());
        Ok(reshape(x, (batch, shape.len())))
    }

    /// The gradient in the input's shape.
    ///
    /// # Errors
    /// No forward pass before, or a gradient of another shape.
    pub fn backward(&mut self, dy: Array2<f32>) -> Result<Array4<f32>, ShapeError> {
        let [n, c, h, w] = self.shape.ok_or(ShapeError::BackwardBeforeForward)?;
        expect_shape("the output gradient of flatten", &[n, c * h * w], dy.shape())?;
        Ok(reshape(dy, (n, c, h, w)))
    }
}

/// The same numbers in another shape of the same size.
fn reshape<D, E>(x: ndarray::Array<f32, D>, to: E) -> ndarray::Array<f32, E::Dim>
where
    D: ndarray::Dimension,
    E: ndarray::IntoDimension + Clone,
{
    let flat: Vec<f32> = x.iter().copied().collect();
    ndarray::Array::from_shape_vec(to.clone(), flat).unwrap_or_else(|_| ndarray::Array::zeros(to))
}

/// Flatten in a network's description. It has no options, and costs nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlattenOptions {}

impl Rule for FlattenOptions {
    fn kind(&self) -> &'static str {
        "Flatten"
    }

    fn describe(&self) -> String {
        String::new()
    }

    fn output(&self, input: Shape) -> Result<Shape, ShapeError> {
        Ok(Shape::flat(input.len()))
    }

    fn is_view(&self, _training: bool) -> bool {
        true
    }

    fn flops(&self, _input: Shape) -> Result<u64, ShapeError> {
        Ok(0)
    }

    fn operator(&self, input: Shape, _batch: usize) -> Result<Box<dyn Operator>, ShapeError> {
        // A plan makes a view of a flatten; this is what it would be if it had to run.
        Ok(Box::new(super::ConcatOperator::new(input, input, 0)))
    }
}
