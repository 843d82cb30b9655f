//! The book-style face of layers that need no more of one than their description says.

use super::{Backward, Forward, Gradient, Layer, Operator, expect_shape};
use crate::shape::{Shape, ShapeError};
use ndarray::Array4;

/// A layer of these options on whole arrays (N, C, H, W).
#[derive(Debug)]
pub struct Whole<O> {
    options: O,
    /// All learnt numbers, one array after the other, as the options' documentation lists them; empty for most layers.
    pub parameters: Vec<f32>,
    /// Their gradients, after `backward`.
    pub gradients: Vec<f32>,
    /// What the last forward pass left.
    passed: Option<Passed>,
}

#[derive(Debug)]
struct Passed {
    operator: Box<dyn Operator>,
    x: Array4<f32>,
    y: Array4<f32>,
    saved: Vec<f32>,
}

impl<O: Clone + Into<Layer>> Whole<O> {
    /// A layer that learns nothing.
    pub fn new(options: O) -> Self {
        Self::with_parameters(options, Vec::new())
    }

    /// A layer with learnt numbers.
    pub fn with_parameters(options: O, parameters: Vec<f32>) -> Self {
        Self { options, parameters, gradients: Vec::new(), passed: None }
    }

    /// The layer's output for a batch.
    ///
    /// # Errors
    /// An empty batch, or one that the layer does not take; another number of parameters than it has.
    pub fn forward(&mut self, x: &Array4<f32>) -> Result<Array4<f32>, ShapeError> {
        let (n, channels, height, width) = x.dim();
        let input = Shape::new(channels, height, width);
        if x.is_empty() {
            return Err(ShapeError::Empty { what: "the layer's input", found: x.shape().to_vec() });
        }
        let layer: Layer = self.options.clone().into();
        let wanted = layer.rule().parameters(input)?.iter().map(|rule| rule.shape.iter().product::<usize>()).sum();
        expect_shape("the layer's parameters", &[wanted], &[self.parameters.len()])?;
        let operator = layer.rule().operator(input, n)?;
        let output = operator.output();
        let mut y = Array4::zeros((n, output.channels, output.height, output.width));
        let mut prepared = vec![0.0; operator.prepared()];
        operator.prepare(&self.parameters, &mut prepared);
        let mut saved = vec![0.0; operator.saved()];
        let mut workspace = vec![0.0; operator.forward_workspace()];
        let x = x.as_standard_layout().into_owned();
        if let (Some(x), Some(y)) = (x.as_slice(), y.as_slice_mut()) {
            operator.forward(Forward {
                parameters: &self.parameters,
                prepared: &prepared,
                input: x,
                other: &[],
                output: y,
                training: false,
                saved: &mut saved,
                workspace: &mut workspace,
                random: None,
            });
        }
        self.passed = Some(Passed { operator, x, y: y.clone(), saved });
        Ok(y)
    }

    /// The gradient of the input; sets `gradients`.
    ///
    /// # Errors
    /// No forward pass before, or a gradient of another shape.
    pub fn backward(&mut self, dy: &Array4<f32>) -> Result<Array4<f32>, ShapeError> {
        let Passed { operator, x, y, saved } = self.passed.as_ref().ok_or(ShapeError::BackwardBeforeForward)?;
        expect_shape("the layer's output gradient", y.shape(), dy.shape())?;
        let mut dx = Array4::zeros(x.raw_dim());
        let mut gradients = vec![0.0; self.parameters.len()];
        let mut workspace = vec![0.0; operator.backward_workspace(true)];
        let dy = dy.as_standard_layout();
        if let (Some(x), Some(y), Some(dy), Some(dx)) = (x.as_slice(), y.as_slice(), dy.as_slice(), dx.as_slice_mut()) {
            operator.backward(Backward {
                parameters: &self.parameters,
                input: x,
                other: &[],
                output: y,
                training: false,
                saved,
                output_gradient: dy,
                input_gradient: Gradient { values: dx, accumulate: false },
                other_gradient: Gradient { values: &mut [], accumulate: false },
                parameter_gradient: &mut gradients,
                workspace: &mut workspace,
            });
        }
        self.gradients = gradients;
        Ok(dx)
    }
}
