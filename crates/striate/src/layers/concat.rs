//! Concat: inputs side by side along the channels (Inception, DenseNet, SqueezeNet).

use super::{Backward, Forward, Operator, Rule, expect_shape, inputs_error};
use crate::shape::{Shape, ShapeError};
use ndarray::{Array4, ArrayView4, Axis, concatenate};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Concat as a layer of its own.
///
/// ```
/// use ndarray::Array4;
/// use striate::layers::Concat;
/// let (a, b) = (Array4::zeros((2, 3, 4, 4)), Array4::ones((2, 1, 4, 4)));
/// assert_eq!(Concat::new().forward(&[a.view(), b.view()])?.dim(), (2, 4, 4, 4));
/// # Ok::<(), striate::shape::ShapeError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Concat {
    /// Shapes of the last forward pass's inputs.
    shapes: Vec<[usize; 4]>,
}

impl Concat {
    /// A layer without parameters.
    pub fn new() -> Self {
        Self::default()
    }

    /// Arrays (N, C, H, W) of equal N, H and W to one with the sum of their channels.
    ///
    /// # Errors
    /// No input, or inputs of other sizes than the first.
    pub fn forward(&mut self, inputs: &[ArrayView4<'_, f32>]) -> Result<Array4<f32>, ShapeError> {
        let Some(first) = inputs.first() else { return Err(inputs_error(0, "at least 1")) };
        for input in inputs {
            let ((n, _, h, w), (_, c, ..)) = (first.dim(), input.dim());
            expect_shape("an input of concat (samples, channels, height, width)", &[n, c, h, w], input.shape())?;
        }
        self.shapes = inputs.iter().map(|x| x.dim().into()).collect();
        let mismatch = |_| ShapeError::Empty { what: "the inputs of concat", found: first.shape().to_vec() };
        concatenate(Axis(1), inputs).map_err(mismatch)
    }

    /// The gradient of each input: its channels of the output's gradient.
    ///
    /// # Errors
    /// No forward pass before, or a gradient of another shape.
    pub fn backward(&mut self, dy: &Array4<f32>) -> Result<Vec<Array4<f32>>, ShapeError> {
        let &[n, _, h, w] = self.shapes.first().ok_or(ShapeError::BackwardBeforeForward)?;
        let channels = self.shapes.iter().map(|s| s[1]).sum();
        expect_shape("the output gradient of concat", &[n, channels, h, w], dy.shape())?;
        let mut first = 0;
        let part = |shape: &[usize; 4]| {
            first += shape[1];
            dy.slice(ndarray::s![.., first - shape[1]..first, .., ..]).to_owned()
        };
        Ok(self.shapes.iter().map(part).collect())
    }
}

/// Concat in a network's description: it takes one or more inputs of one height and width.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConcatOptions {}

impl Rule for ConcatOptions {
    fn kind(&self) -> &'static str {
        "Concat"
    }

    fn describe(&self) -> String {
        String::new()
    }

    fn output(&self, input: Shape) -> Result<Shape, ShapeError> {
        Ok(input)
    }

    fn join(&self, inputs: &[Shape]) -> Result<Shape, ShapeError> {
        let Some(first) = inputs.first() else { return Err(inputs_error(0, "at least 1")) };
        for input in inputs {
            let (expected, found) = ([first.height, first.width], [input.height, input.width]);
            expect_shape("an input of concat (height, width)", &expected, &found)?;
        }
        Ok(Shape { channels: inputs.iter().map(|s| s.channels).sum(), ..*first })
    }

    fn flops(&self, _input: Shape) -> Result<u64, ShapeError> {
        Ok(0)
    }

    fn operator(&self, input: Shape, _batch: usize) -> Result<Box<dyn Operator>, ShapeError> {
        Ok(Box::new(ConcatOperator::new(input, input, 0)))
    }
}

/// Copies one input of a concat to its channels of the output: a plan makes one of these for each input.
#[derive(Debug)]
pub(crate) struct ConcatOperator {
    output: Shape,
    /// Numbers of one sample: the input's, the output's, and where the input begins in it.
    input: usize,
    first: usize,
}

impl ConcatOperator {
    /// For the input whose first channel is the output's channel `first`.
    pub(crate) fn new(input: Shape, output: Shape, first: usize) -> Self {
        Self { output, input: input.len(), first: first * output.area() }
    }
}

impl Operator for ConcatOperator {
    fn output(&self) -> Shape {
        self.output
    }

    fn forward(&self, f: Forward<'_>) {
        let samples = f.output.par_chunks_exact_mut(self.output.len()).zip(f.input.par_chunks_exact(self.input));
        samples.for_each(|(y, x)| y[self.first..][..self.input].copy_from_slice(x));
    }

    fn backward(&self, b: Backward<'_>) {
        let dx = b.input_gradient;
        let samples = dx.values.par_chunks_exact_mut(self.input);
        samples.zip(b.output_gradient.par_chunks_exact(self.output.len())).for_each(|(to, dy)| {
            let dy = &dy[self.first..][..self.input];
            if dx.accumulate {
                to.iter_mut().zip(dy).for_each(|(to, dy)| *to += dy);
            } else {
                to.copy_from_slice(dy);
            }
        });
    }
}
