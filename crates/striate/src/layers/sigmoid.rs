//! Sigmoid (section 5.5.2): `1 / (1 + exp(-x))`.

use super::{Backward, Forward, Operator, Rule, expect_shape};
use crate::kernels::elementwise;
use crate::shape::{Shape, ShapeError};
use ndarray::{Array, Dimension};
use serde::{Deserialize, Serialize};

/// The book's sigmoid layer, for arrays of any dimension.
///
/// ```
/// use ndarray::array;
/// use striate::layers::Sigmoid;
/// let mut sigmoid = Sigmoid::new();
/// assert_eq!(sigmoid.forward(\&array![[0., 1e4]]), array![[0.5, 1.]]);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Sigmoid {
    /// Output of the last forward pass and its shape.
    y: Option<(Vec<usize>, Vec<f32>)>,
}

impl Sigmoid {
    /// A layer without parameters.
    pub fn new() -> Self {
        Self::default()
    }

    /// The function, number by number.
    pub fn forward<D: Dimension>(&mut self, x: &Array<f32, D>) -> Array<f32, D> {
        let x = x.as_standard_layout();
        let mut y = Array::zeros(x.raw_dim());
        if let (Some(x), Some(y)) = (x.as_slice(), y.as_slice_mut()) {
            forward(x, y);
        }
        self.y = Some((y.shape().to_vec(), y.iter().copied().collect()));
        y
    }

    /// The gradient of the input. `dy (1 - y) y`.
    ///
    /// # Errors
    /// No forward pass before, or a gradient of another shape.
    pub fn backward<D: Dimension>(&mut self, dy: &Array<f32, D>) -> Result<Array<f32, D>, ShapeError> {
        let (shape, y) = self.y.as_ref().ok_or(ShapeError::BackwardBeforeForward)?;
        expect_shape("the sigmoid's output gradient", shape, dy.shape())?;
        let dy = dy.as_standard_layout();
        let mut dx = Array::zeros(dy.raw_dim());
        if let (Some(dy), Some(dx)) = (dy.as_slice(), dx.as_slice_mut()) {
            backward(y, dy, dx);
        }
        Ok(dx)
    }
}

fn forward(input: &[f32], output: &mut [f32]) {
    elementwise::for_chunks(output, input, |y, x| y.iter_mut().zip(x).for_each(|(y, &x)| *y = elementwise::sigmoid(x)));
}

fn backward(y: &[f32], dy: &[f32], dx: &mut [f32]) {
    elementwise::for_chunks2(dx, dy, y, |dx, dy, y| {
        dx.iter_mut().zip(dy).zip(y).for_each(|((dx, &dy), &y)| *dx = dy * (1.0 - y) * y)
    });
}

/// Sigmoid in a network's description. It has no options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SigmoidOptions {}

impl Rule for SigmoidOptions {
    fn kind(&self) -> &'static str {
        "Sigmoid"
    }

    fn describe(&self) -> String {
        String::new()
    }

    fn output(&self, input: Shape) -> Result<Shape, ShapeError> {
        Ok(input)
    }

    fn flops(&self, input: Shape) -> Result<u64, ShapeError> {
        Ok(4 * input.len() as u64)
    }

    fn operator(&self, input: Shape, _batch: usize) -> Result<Box<dyn Operator>, ShapeError> {
        Ok(Box::new(SigmoidOperator { shape: input }))
    }
}

#[derive(Debug)]
struct SigmoidOperator {
    shape: Shape,
}

impl Operator for SigmoidOperator {
    fn output(&self) -> Shape {
        self.shape
    }

    fn keeps_output(&self) -> bool {
        true
    }

    fn forward(&self, f: Forward<'_>) {
        forward(f.input, f.output);
    }

    fn backward(&self, b: Backward<'_>) {
        if !b.input_gradient.is_empty() {
            backward(b.output, b.output_gradient, b.input_gradient);
        }
    }
}
