//! Stochastic gradient descent (section 6.1.2).

use super::{Groups, OptimError, Optimizer, OptimizerOptions, restore_arrays};
use crate::kernels::isa::vectorize;

/// Stochastic gradient descent: `w -= lr * g`. Keeps no state.
///
/// With weight decay, `g + weight_decay * w` stands for `g`: the gradient of a loss with `weight_decay / 2 * w^2` added
/// (section 6.4.2), as in PyTorch's `SGD`.
#[derive(Clone, Debug)]
pub struct Sgd {
    weight_decay: f32,
    groups: Groups,
    steps: u64,
}

impl Sgd {
    /// For so many parameters, or for groups of them.
    ///
    /// # Errors
    /// A negative or non-finite weight decay.
    pub fn new(weight_decay: f32, groups: impl Into<Groups>) -> Result<Self, OptimError> {
        OptimizerOptions::Sgd { weight_decay }.validate()?;
        Ok(Self { weight_decay, groups: groups.into(), steps: 0 })
    }
}

impl Optimizer for Sgd {
    fn update_scaled(&mut self, learning_rate: f32, scale: f32, parameters: &mut [f32], gradients: &[f32]) {
        self.groups.sweep(parameters, gradients, [], |decayed, w, g, []| {
            let decay = if decayed { self.weight_decay } else { 0.0 };
            vectorize(|| {
                for (w, &g) in w.iter_mut().zip(g) {
                    *w -= learning_rate * (scale * g + decay * *w);
                }
            });
        });
        self.steps += 1;
    }

    fn steps(&self) -> u64 {
        self.steps
    }

    fn state(&self) -> Vec<(&'static str, &[f32])> {
        Vec::new()
    }

    fn restore(&mut self, steps: u64, state: &[(&str, &[f32])]) -> Result<(), OptimError> {
        restore_arrays(&mut [], state)?;
        self.steps = steps;
        Ok(())
    }
}
