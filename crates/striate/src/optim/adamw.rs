//! AdamW (Loshchilov and Hutter, 2019, "Decoupled weight decay regularization").

use super::adam::Moments;
use super::{Groups, OptimError, Optimizer, OptimizerOptions};

/// [`Adam`](super::Adam) after `w -= lr * weight_decay * w`, as in PyTorch.
///
/// The decay does not pass through the moments, so it pulls every parameter alike, however large its gradients.
/// It acts on [`Kind::Decayed`](super::Kind::Decayed) parameters: all, unless [`Groups`] say otherwise.
#[derive(Clone, Debug)]
pub struct AdamW {
    weight_decay: f32,
    moments: Moments,
}

impl AdamW {
    /// For so many parameters, or for groups of them.
    ///
    /// # Errors
    /// A beta outside [0, 1), a negative or non-finite weight decay, or memory that can't be had.
    pub fn new(beta1: f32, beta2: f32, weight_decay: f32, groups: impl Into<Groups>) -> Result<Self, OptimError> {
        OptimizerOptions::AdamW { beta1, beta2, weight_decay }.validate()?;
        Ok(Self { weight_decay, moments: Moments::new(beta1, beta2, groups.into())? })
    }
}

impl Optimizer for AdamW {
    fn update_scaled(&mut self, learning_rate: f32, scale: f32, parameters: &mut [f32], gradients: &[f32]) {
        self.moments.update(learning_rate, scale, 1.0 - learning_rate * self.weight_decay, parameters, gradients);
    }

    fn steps(&self) -> u64 {
        self.moments.steps
    }

    fn state(&self) -> Vec<(&'static str, &[f32])> {
        self.moments.state()
    }

    fn restore(&mut self, steps: u64, state: &[(&str, &[f32])]) -> Result<(), OptimError> {
        self.moments.restore(steps, state)
    }
}
