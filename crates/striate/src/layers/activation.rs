//! What all activation functions share: a function applied number by number.
//!
//! The options of each ([`ReluOptions`](super::ReluOptions), ...) are the [`Function`] itself; the book-style layer, the
//! description and the operator of a plan are the same for all of them and live here.

use super::{Backward, Forward, Operator, Rule, expect_shape};
use crate::kernels::elementwise;
use crate::shape::{Shape, ShapeError};
use ndarray::{Array, Dimension};
use std::fmt::Debug;

/// An activation function and its derivative.
pub trait Function: Debug + Clone + Copy + PartialEq + Send + Sync + 'static {
    /// The function's name, as people say it.
    const KIND: &'static str;
    /// Floating-point operations a number costs.
    const FLOPS: u64;
    /// Whether [`Function::gradient`] wants the input x; otherwise it wants the output y.
    const READS_INPUT: bool = false;
    /// The function.
    fn value(self, x: f32) -> f32;
    /// The gradient of x from that of y = f(x), and x or y itself.
    fn gradient(self, dy: f32, at: f32) -> f32;
    /// The options in a few words.
    fn describe(&self) -> String {
        String::new()
    }
    /// Whether the options are in their range.
    ///
    /// # Errors
    /// The first option that is not.
    fn check(&self) -> Result<(), ShapeError> {
        Ok(())
    }
}

/// The book's activation layer, for arrays of any dimension: [`Relu`](super::Relu), [`Sigmoid`](super::Sigmoid).
#[derive(Clone, Debug, Default)]
pub struct Activation<F: Function> {
    function: F,
    /// Shape of the last forward pass, and what its gradient follows from.
    at: Option<(Vec<usize>, Vec<f32>)>,
}

impl<F: Function> Activation<F> {
    /// With the usual options.
    pub fn new() -> Self
    where
        F: Default,
    {
        Self::default()
    }

    /// With any options.
    ///
    /// # Errors
    /// An option outside its range.
    pub fn with(function: F) -> Result<Self, ShapeError> {
        function.check()?;
        Ok(Self { function, at: None })
    }

    /// The function, number by number.
    pub fn forward<D: Dimension>(&mut self, x: &Array<f32, D>) -> Array<f32, D> {
        let x = x.as_standard_layout();
        let mut y = Array::zeros(x.raw_dim());
        if let (Some(x), Some(y)) = (x.as_slice(), y.as_slice_mut()) {
            forward(self.function, x, y);
        }
        let at = if F::READS_INPUT { x.iter().copied().collect() } else { y.iter().copied().collect() };
        self.at = Some((y.shape().to_vec(), at));
        y
    }

    /// The gradient of the input.
    ///
    /// # Errors
    /// No forward pass before, or a gradient of another shape.
    pub fn backward<D: Dimension>(&mut self, dy: &Array<f32, D>) -> Result<Array<f32, D>, ShapeError> {
        let (shape, at) = self.at.as_ref().ok_or(ShapeError::BackwardBeforeForward)?;
        expect_shape("the activation's output gradient", shape, dy.shape())?;
        let dy = dy.as_standard_layout();
        let mut dx = Array::zeros(dy.raw_dim());
        if let (Some(dy), Some(dx)) = (dy.as_slice(), dx.as_slice_mut()) {
            backward(self.function, at, dy, dx, false);
        }
        Ok(dx)
    }
}

fn forward<F: Function>(function: F, x: &[f32], y: &mut [f32]) {
    elementwise::for_chunks(y, x, |y, x| y.iter_mut().zip(x).for_each(|(y, &x)| *y = function.value(x)));
}

fn backward<F: Function>(function: F, at: &[f32], dy: &[f32], dx: &mut [f32], accumulate: bool) {
    elementwise::for_chunks2(dx, dy, at, |dx, dy, at| {
        let all = dx.iter_mut().zip(dy).zip(at);
        if accumulate {
            all.for_each(|((dx, &dy), &at)| *dx += function.gradient(dy, at));
        } else {
            all.for_each(|((dx, &dy), &at)| *dx = function.gradient(dy, at));
        }
    });
}

impl<F: Function> Rule for F {
    fn kind(&self) -> &'static str {
        F::KIND
    }

    fn describe(&self) -> String {
        Function::describe(self)
    }

    fn output(&self, input: Shape) -> Result<Shape, ShapeError> {
        self.check().map(|()| input)
    }

    fn flops(&self, input: Shape) -> Result<u64, ShapeError> {
        Ok(F::FLOPS * input.len() as u64)
    }

    fn operator(&self, input: Shape, _batch: usize) -> Result<Box<dyn Operator>, ShapeError> {
        self.check()?;
        Ok(Box::new(ActivationOperator { shape: input, function: *self }))
    }
}

/// An activation in a plan.
#[derive(Debug)]
struct ActivationOperator<F: Function> {
    shape: Shape,
    function: F,
}

impl<F: Function> Operator for ActivationOperator<F> {
    fn output(&self) -> Shape {
        self.shape
    }

    fn keeps_input(&self) -> bool {
        F::READS_INPUT
    }

    fn keeps_output(&self) -> bool {
        !F::READS_INPUT
    }

    fn forward(&self, f: Forward<'_>) {
        forward(self.function, f.input, f.output);
    }

    fn backward(&self, b: Backward<'_>) {
        if b.input_gradient.is_wanted() {
            let at = if F::READS_INPUT { b.input } else { b.output };
            backward(self.function, at, b.output_gradient, b.input_gradient.values, b.input_gradient.accumulate);
        }
    }
}
