//! What all activation functions share: a function applied number by number whose gradient follows from its output.

use super::{Backward, Forward, Operator, expect_shape};
use crate::kernels::elementwise;
use crate::shape::{Shape, ShapeError};
use ndarray::{Array, Dimension};
use std::fmt::Debug;
use std::marker::PhantomData;

/// An activation function and its derivative.
pub trait Function: Debug + Clone + Copy + Default + Send + Sync + 'static {
    /// The function.
    fn value(x: f32) -> f32;
    /// The gradient of x from that of y = f(x), and y itself.
    fn gradient(dy: f32, y: f32) -> f32;
}

/// The book's activation layer, for arrays of any dimension: [`Relu`](super::Relu), [`Sigmoid`](super::Sigmoid).
#[derive(Clone, Debug, Default)]
pub struct Activation<F: Function> {
    /// Shape and numbers of the last forward pass's output.
    y: Option<(Vec<usize>, Vec<f32>)>,
    function: PhantomData<F>,
}

impl<F: Function> Activation<F> {
    /// A layer without parameters.
    pub fn new() -> Self {
        Self::default()
    }

    /// The function, number by number.
    pub fn forward<D: Dimension>(&mut self, x: &Array<f32, D>) -> Array<f32, D> {
        let x = x.as_standard_layout();
        let mut y = Array::zeros(x.raw_dim());
        if let (Some(x), Some(y)) = (x.as_slice(), y.as_slice_mut()) {
            forward::<F>(x, y);
        }
        self.y = Some((y.shape().to_vec(), y.iter().copied().collect()));
        y
    }

    /// The gradient of the input.
    ///
    /// # Errors
    /// No forward pass before, or a gradient of another shape.
    pub fn backward<D: Dimension>(&mut self, dy: &Array<f32, D>) -> Result<Array<f32, D>, ShapeError> {
        let (shape, y) = self.y.as_ref().ok_or(ShapeError::BackwardBeforeForward)?;
        expect_shape("the activation's output gradient", shape, dy.shape())?;
        let dy = dy.as_standard_layout();
        let mut dx = Array::zeros(dy.raw_dim());
        if let (Some(dy), Some(dx)) = (dy.as_slice(), dx.as_slice_mut()) {
            backward::<F>(y, dy, dx);
        }
        Ok(dx)
    }
}

fn forward<F: Function>(x: &[f32], y: &mut [f32]) {
    elementwise::for_chunks(y, x, |y, x| y.iter_mut().zip(x).for_each(|(y, &x)| *y = F::value(x)));
}

fn backward<F: Function>(y: &[f32], dy: &[f32], dx: &mut [f32]) {
    elementwise::for_chunks2(dx, dy, y, |dx, dy, y| {
        dx.iter_mut().zip(dy).zip(y).for_each(|((dx, &dy), &y)| *dx = F::gradient(dy, y));
    });
}

/// An activation in a plan.
#[derive(Debug)]
pub(crate) struct ActivationOperator<F: Function> {
    shape: Shape,
    function: PhantomData<F>,
}

impl<F: Function> ActivationOperator<F> {
    pub(crate) fn new(shape: Shape) -> Self {
        Self { shape, function: PhantomData }
    }
}

impl<F: Function> Operator for ActivationOperator<F> {
    fn output(&self) -> Shape {
        self.shape
    }

    fn keeps_output(&self) -> bool {
        true
    }

    fn forward(&self, f: Forward<'_>) {
        forward::<F>(f.input, f.output);
    }

    fn backward(&self, b: Backward<'_>) {
        if !b.input_gradient.is_empty() {
            backward::<F>(b.output, b.output_gradient, b.input_gradient);
        }
    }
}
