//! Add: the sum of two inputs, the shortcut of a residual network (He et al. 2015).

use super::{Backward, Forward, Layer, Operator, Rule, expect_shape, inputs_error};
use crate::kernels::elementwise;
use crate::shape::{Shape, ShapeError};
use ndarray::{Array, Dimension};
use serde::{Deserialize, Serialize};

/// Add as a layer of its own, for arrays of any dimension.
///
/// ```
/// use ndarray::array;
/// use striate::layers::Add;
/// let mut add = Add::new();
/// assert_eq!(add.forward(&array![1., 2.], &array![10., 20.])?, array![11., 22.]);
/// # Ok::<(), striate::shape::ShapeError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Add {
    shape: Option<Vec<usize>>,
}

impl Add {
    /// A layer without parameters.
    pub fn new() -> Self {
        Self::default()
    }

    /// The sum, number by number.
    ///
    /// # Errors
    /// Inputs of different shapes.
    pub fn forward<D: Dimension>(&mut self, a: &Array<f32, D>, b: &Array<f32, D>) -> Result<Array<f32, D>, ShapeError> {
        expect_shape("the second input of add", a.shape(), b.shape())?;
        self.shape = Some(a.shape().to_vec());
        Ok(a + b)
    }

    /// The gradients of both inputs: each is that of the sum.
    ///
    /// # Errors
    /// No forward pass before, or a gradient of another shape.
    pub fn backward<D: Dimension>(&mut self, dy: &Array<f32, D>) -> Result<[Array<f32, D>; 2], ShapeError> {
        let shape = self.shape.as_ref().ok_or(ShapeError::BackwardBeforeForward)?;
        expect_shape("the output gradient of add", shape, dy.shape())?;
        Ok([dy.clone(), dy.clone()])
    }
}

/// Add in a network's description: it takes two inputs of one shape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddOptions {}

impl Rule for AddOptions {
    fn kind(&self) -> &'static str {
        "Add"
    }

    fn describe(&self) -> String {
        String::new()
    }

    fn output(&self, input: Shape) -> Result<Shape, ShapeError> {
        Ok(input)
    }

    fn join(&self, inputs: &[Shape]) -> Result<Shape, ShapeError> {
        match *inputs {
            [a, b] => {
                expect_shape("the second input of add", &<[usize; 3]>::from(a), &<[usize; 3]>::from(b))?;
                Ok(a)
            }
            _ => Err(inputs_error(inputs.len(), "2")),
        }
    }

    fn flops(&self, input: Shape) -> Result<u64, ShapeError> {
        Ok(input.len() as u64)
    }

    fn operator(&self, input: Shape, _batch: usize) -> Result<Box<dyn Operator>, ShapeError> {
        Ok(Box::new(AddOperator { shape: input, relu: false }))
    }
}

/// A sum with the ReLU that follows it, if one does.
#[derive(Debug)]
struct AddOperator {
    shape: Shape,
    relu: bool,
}

impl Operator for AddOperator {
    fn output(&self) -> Shape {
        self.shape
    }

    fn absorb(&mut self, next: &Layer, _training: bool) -> bool {
        let takes = matches!(next, Layer::Relu(_)) && !self.relu;
        self.relu |= takes;
        takes
    }

    fn keeps_output(&self) -> bool {
        self.relu
    }

    fn forward(&self, f: Forward<'_>) {
        elementwise::for_chunks2(f.output, f.input, f.other, |y, a, b| {
            y.iter_mut().zip(a).zip(b).for_each(|((y, a), b)| *y = a + b);
            if self.relu {
                elementwise::relu_in_place(y);
            }
        });
    }

    fn backward(&self, b: Backward<'_>) {
        let y = self.relu.then_some(b.output);
        for gradient in [b.input_gradient, b.other_gradient] {
            if gradient.is_wanted() {
                elementwise::pass_gradient(b.output_gradient, y, gradient.values, gradient.accumulate);
            }
        }
    }
}
