//! Batch normalisation (section 6.3, Ioffe & Szegedy 2015): each channel is brought to mean 0 and variance 1, then
//! scaled by `gamma` and shifted by `beta`. While training, mean and variance are the batch's own, and running
//! statistics follow them; when predicting, the running statistics take their place.

use super::{Backward, Forward, Layer, Operator, ParameterRule, Role, Rule, batch_shape, expect_shape};
use crate::kernels::elementwise;
use crate::kernels::normalize::{self as kernel, Geometry};
use crate::shape::{Shape, ShapeError};
use ndarray::{Array, Array1, Dimension};
use serde::{Deserialize, Serialize};

/// Batch normalisation in a network's description. Its parameters are `gamma`, `beta`, and the running `mean` and
/// `variance`, one number a channel each.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchNormOptions {
    /// Added to the variance, so that a constant channel divides by no zero.
    pub epsilon: f32,
    /// Share of the batch's statistics that the running ones take up at each step.
    pub momentum: f32,
}

impl Default for BatchNormOptions {
    fn default() -> Self {
        Self { epsilon: 1e-5, momentum: 0.1 }
    }
}

impl BatchNormOptions {
    fn check(&self) -> Result<(), ShapeError> {
        let wrong = |what, value: f32, expected| Err(ShapeError::Option { what, found: value.to_string(), expected });
        if !(self.epsilon.is_finite() && self.epsilon > 0.0) {
            return wrong("the epsilon of batch normalisation", self.epsilon, "a positive number, such as 1e-5");
        }
        if !(0.0..=1.0).contains(&self.momentum) {
            return wrong("the momentum of batch normalisation", self.momentum, "from 0 to 1, such as 0.1");
        }
        Ok(())
    }

    /// The step that takes the running statistics toward the batch's: `running -= step`. The running variance is that
    /// of the population the batch is drawn from: divided by one less than the count.
    fn steps(&self, g: &Geometry, running: &[f32], saved: &Saved<'_>, steps: &mut [f32]) {
        let count = (g.batch * g.pixels) as f32;
        let population = count / (count - 1.0).max(1.0);
        let batch = saved.mean.iter().copied().chain(saved.variance.iter().map(|v| v * population));
        for ((step, running), batch) in steps.iter_mut().zip(running).zip(batch) {
            *step = self.momentum * (running - batch);
        }
    }
}

/// What the forward pass leaves for the backward pass: three numbers a channel.
struct Saved<'a> {
    mean: &'a [f32],
    variance: &'a [f32],
    inverse_deviation: &'a [f32],
}

impl<'a> Saved<'a> {
    fn split(saved: &'a [f32], channels: usize) -> Self {
        let (mean, rest) = saved.split_at(channels);
        let (variance, inverse_deviation) = rest.split_at(channels);
        Self { mean, variance, inverse_deviation }
    }

    /// Takes the running statistics.
    fn fix(mean: &[f32], variance: &[f32], epsilon: f32, saved: &mut [f32]) {
        let (saved_mean, rest) = saved.split_at_mut(mean.len());
        let (saved_variance, inverse) = rest.split_at_mut(mean.len());
        saved_mean.copy_from_slice(mean);
        saved_variance.copy_from_slice(variance);
        inverse.iter_mut().zip(variance).for_each(|(i, &v)| *i = kernel::inverse_deviation(v, epsilon));
    }

    /// Takes the batch's statistics.
    fn record(g: &Geometry, epsilon: f32, x: &[f32], saved: &mut [f32]) {
        let (mean, rest) = saved.split_at_mut(g.channels);
        let (variance, inverse) = rest.split_at_mut(g.channels);
        kernel::statistics(g, x, mean, variance);
        inverse.iter_mut().zip(&*variance).for_each(|(i, &v)| *i = kernel::inverse_deviation(v, epsilon));
    }
}

/// The book's batch normalisation, for (N, features) and (N, C, H, W).
///
/// ```
/// use ndarray::array;
/// use striate::layers::{BatchNorm, BatchNormOptions};
/// let mut norm = BatchNorm::new(2, BatchNormOptions::default())?;
/// let y = norm.forward(&array![[1., 5.], [3., 5.]], true)?;
/// assert!((y[[0, 0]] + 1.).abs() < 1e-4 && (y[[1, 0]] - 1.).abs() < 1e-4 && y[[0, 1]] == 0.);
/// assert!((norm.running_mean[0] - 0.2).abs() < 1e-6); // a tenth of the way from 0 to 2
/// # Ok::<(), striate::shape::ShapeError>(())
/// ```
#[derive(Clone, Debug)]
pub struct BatchNorm {
    /// Factors, one a channel.
    pub gamma: Array1<f32>,
    /// Summands, one a channel.
    pub beta: Array1<f32>,
    /// Mean of each channel over the batches seen while training.
    pub running_mean: Array1<f32>,
    /// Variance of each channel over the batches seen while training.
    pub running_variance: Array1<f32>,
    /// Gradient of the loss with respect to `gamma`, after `backward`.
    pub dgamma: Option<Array1<f32>>,
    /// Gradient of the loss with respect to `beta`, after `backward`.
    pub dbeta: Option<Array1<f32>>,
    options: BatchNormOptions,
    /// Shape, input and statistics of the last forward pass while training.
    forward: Option<(Vec<usize>, Vec<f32>, Vec<f32>)>,
}

impl BatchNorm {
    /// For `channels` channels: factors 1, summands 0, running mean 0 and variance 1.
    ///
    /// # Errors
    /// No channels, or an option outside its range.
    pub fn new(channels: usize, options: BatchNormOptions) -> Result<Self, ShapeError> {
        options.check()?;
        if channels == 0 {
            return Err(ShapeError::Empty { what: "the batch normalisation", found: vec![0] });
        }
        let (zeros, ones) = (Array1::zeros(channels), Array1::ones(channels));
        Ok(Self {
            gamma: ones.clone(),
            beta: zeros.clone(),
            running_mean: zeros,
            running_variance: ones,
            dgamma: None,
            dbeta: None,
            options,
            forward: None,
        })
    }

    fn geometry(&self, dim: &[usize]) -> Result<Geometry, ShapeError> {
        let (batch, shape) = batch_shape("the batch normalisation's input", dim)?;
        expect_shape("the batch normalisation's input (channels)", &[self.gamma.len()], &[shape.channels])?;
        Ok(Geometry::new(shape, batch))
    }

    /// Normalises by the batch's statistics while training, else by the running ones.
    ///
    /// # Errors
    /// Another number of channels, or an empty batch.
    pub fn forward<D: Dimension>(&mut self, x: &Array<f32, D>, training: bool) -> Result<Array<f32, D>, ShapeError> {
        let g = self.geometry(x.shape())?;
        let x = x.as_standard_layout();
        let mut y = Array::zeros(x.raw_dim());
        let mut saved = vec![0.0; 3 * g.channels];
        let (gamma, beta) = (self.gamma.to_vec(), self.beta.to_vec());
        let mut factors = vec![0.0; g.channels];
        if let (Some(x_values), Some(y)) = (x.as_slice(), y.as_slice_mut()) {
            let mut running = [self.running_mean.to_vec(), self.running_variance.to_vec()].concat();
            if training {
                Saved::record(&g, self.options.epsilon, x_values, &mut saved);
                let mut steps = vec![0.0; running.len()];
                self.options.steps(&g, &running, &Saved::split(&saved, g.channels), &mut steps);
                running.iter_mut().zip(steps).for_each(|(r, step)| *r -= step);
                let (mean, variance) = running.split_at(g.channels);
                self.running_mean.iter_mut().zip(mean).for_each(|(r, &m)| *r = m);
                self.running_variance.iter_mut().zip(variance).for_each(|(r, &v)| *r = v);
                self.forward = Some((x.shape().to_vec(), x_values.to_vec(), saved.clone()));
            }
            let statistics = if training { &saved } else { &running };
            let (mean, variance) = statistics[..2 * g.channels].split_at(g.channels);
            kernel::factors(&gamma, variance, self.options.epsilon, &mut factors);
            kernel::apply(&g, x_values, (mean, &factors, &beta), &[], false, y);
        }
        Ok(y)
    }

    /// The gradient of the input; sets `dgamma` and `dbeta`.
    ///
    /// # Errors
    /// No forward pass while training before, or a gradient of another shape.
    pub fn backward<D: Dimension>(&mut self, dy: &Array<f32, D>) -> Result<Array<f32, D>, ShapeError> {
        let (shape, x, saved) = self.forward.as_ref().ok_or(ShapeError::BackwardBeforeForward)?;
        expect_shape("the batch normalisation's output gradient", shape, dy.shape())?;
        let g = self.geometry(shape)?;
        let dy = dy.as_standard_layout();
        let mut dx = Array::zeros(dy.raw_dim());
        let (mut dgamma, mut dbeta) = (vec![0.0; g.channels], vec![0.0; g.channels]);
        if let (Some(dy), Some(dx)) = (dy.as_slice(), dx.as_slice_mut()) {
            let Saved { mean, inverse_deviation, .. } = Saved::split(saved, g.channels);
            let gamma = self.gamma.to_vec();
            let b = kernel::Backward { x, y: None, dy, gamma: &gamma, mean, inverse_deviation };
            kernel::backward_parameters(&g, &b, &mut dgamma, &mut dbeta);
            kernel::backward_input(&g, &b, (&dgamma, &dbeta), dx, false);
        }
        self.dgamma = Some(dgamma.into());
        self.dbeta = Some(dbeta.into());
        Ok(dx)
    }
}

impl Rule for BatchNormOptions {
    fn kind(&self) -> &'static str {
        "BatchNorm"
    }

    fn describe(&self) -> String {
        let usual = Self::default();
        let mut parts = Vec::new();
        if self.epsilon != usual.epsilon {
            parts.push(format!("epsilon {}", self.epsilon));
        }
        if self.momentum != usual.momentum {
            parts.push(format!("momentum {}", self.momentum));
        }
        parts.join(", ")
    }

    fn output(&self, input: Shape) -> Result<Shape, ShapeError> {
        self.check().map(|()| input)
    }

    fn parameters(&self, input: Shape) -> Result<Vec<ParameterRule>, ShapeError> {
        let channels = input.channels;
        Ok(vec![
            ParameterRule::constant("gamma", channels, Role::Norm, 1.0),
            ParameterRule::constant("beta", channels, Role::Norm, 0.0),
            ParameterRule::constant("mean", channels, Role::Statistic, 0.0),
            ParameterRule::constant("variance", channels, Role::Statistic, 1.0),
        ])
    }

    fn flops(&self, input: Shape) -> Result<u64, ShapeError> {
        Ok(2 * input.len() as u64)
    }

    fn operator(&self, input: Shape, batch: usize) -> Result<Box<dyn Operator>, ShapeError> {
        self.check()?;
        let geometry = Geometry::new(input, batch);
        Ok(Box::new(BatchNormOperator { geometry, shape: input, options: *self, sum: false, relu: false }))
    }
}

/// A batch normalisation with the sum and the ReLU that follow it, if they do: the end of a residual block.
#[derive(Debug)]
struct BatchNormOperator {
    geometry: Geometry,
    shape: Shape,
    options: BatchNormOptions,
    sum: bool,
    relu: bool,
}

impl BatchNormOperator {
    /// gamma, beta, running mean and variance.
    fn split<'a>(&self, parameters: &'a [f32]) -> [&'a [f32]; 4] {
        let c = self.geometry.channels;
        [0, 1, 2, 3].map(|i| &parameters[i * c..(i + 1) * c])
    }
}

impl Operator for BatchNormOperator {
    fn output(&self) -> Shape {
        self.shape
    }

    fn absorb(&mut self, next: &Layer, _training: bool) -> bool {
        let takes = matches!(next, Layer::Relu(_)) && !self.relu;
        self.relu |= takes;
        takes
    }

    fn absorb_sum(&mut self) -> bool {
        let takes = !self.sum && !self.relu;
        self.sum |= takes;
        takes
    }

    fn saved(&self) -> usize {
        3 * self.geometry.channels
    }

    fn forward_workspace(&self) -> usize {
        self.geometry.channels
    }

    fn keeps_input(&self) -> bool {
        true
    }

    fn keeps_output(&self) -> bool {
        self.relu
    }

    fn forward(&self, f: Forward<'_>) {
        let g = &self.geometry;
        let [gamma, beta, running_mean, running_variance] = self.split(f.parameters);
        let (mean, variance) = if f.training {
            Saved::record(g, self.options.epsilon, f.input, f.saved);
            f.saved[..2 * g.channels].split_at(g.channels)
        } else {
            if !f.saved.is_empty() {
                Saved::fix(running_mean, running_variance, self.options.epsilon, f.saved);
            }
            (running_mean, running_variance)
        };
        let factors = &mut f.workspace[..g.channels];
        kernel::factors(gamma, variance, self.options.epsilon, factors);
        kernel::apply(g, f.input, (mean, factors, beta), f.other, self.relu, f.output);
    }

    fn backward(&self, b: Backward<'_>) {
        let g = &self.geometry;
        let saved = Saved::split(b.saved, g.channels);
        let [gamma, ..] = self.split(b.parameters);
        let y = self.relu.then_some(b.output);
        let (dgamma, rest) = b.parameter_gradient.split_at_mut(g.channels);
        let (dbeta, steps) = rest.split_at_mut(g.channels);
        let (mean, inverse_deviation) = (saved.mean, saved.inverse_deviation);
        let work = kernel::Backward { x: b.input, y, dy: b.output_gradient, gamma, mean, inverse_deviation };
        kernel::backward_parameters(g, &work, dgamma, dbeta);
        self.options.steps(g, &b.parameters[2 * g.channels..], &saved, steps);
        if b.input_gradient.is_wanted() {
            let dx = b.input_gradient;
            if !b.training {
                // Fixed statistics do not follow the input, so nothing comes back through them.
                dgamma.fill(0.0);
                dbeta.fill(0.0);
            }
            kernel::backward_input(g, &work, (dgamma, dbeta), dx.values, dx.accumulate);
        }
        if b.other_gradient.is_wanted() {
            elementwise::pass_gradient(b.output_gradient, y, b.other_gradient.values, b.other_gradient.accumulate);
        }
    }
}
