//! Nesterov's accelerated gradient, in the form that needs the gradient at the parameters themselves
//! (Bengio et al., 2013, "Advances in optimizing recurrent networks").

use super::{Groups, OptimError, Optimizer, OptimizerOptions, Sign, restore_arrays, zeros};
use crate::buffer::Buffer;
use crate::kernels::functions::flush;
use crate::kernels::isa::vectorize;

/// Momentum that looks ahead: `v = momentum * v - lr * g; w += momentum * v - lr * g`, as in the book's code.
///
/// PyTorch keeps the velocity without the learning rate (`v = momentum * v + g; w -= lr * (g + momentum * v)`): the same
/// while the learning rate is constant.
///
/// With weight decay, `g + weight_decay * w` stands for `g`, as in PyTorch's `SGD`.
#[derive(Clone, Debug)]
pub struct Nesterov {
    momentum: f32,
    weight_decay: f32,
    groups: Groups,
    velocity: Buffer,
    steps: u64,
}

impl Nesterov {
    /// For so many parameters, or for groups of them.
    ///
    /// # Errors
    /// A momentum outside [0, 1), a negative or non-finite weight decay, or memory that can't be had.
    pub fn new(momentum: f32, weight_decay: f32, groups: impl Into<Groups>) -> Result<Self, OptimError> {
        OptimizerOptions::Nesterov { momentum, weight_decay }.validate()?;
        let groups = groups.into();
        Ok(Self { momentum, weight_decay, velocity: zeros(groups.len())?, groups, steps: 0 })
    }
}

impl Optimizer for Nesterov {
    fn update_scaled(&mut self, learning_rate: f32, scale: f32, parameters: &mut [f32], gradients: &[f32]) {
        let momentum = self.momentum;
        self.groups.sweep(parameters, gradients, [&mut self.velocity], |decayed, w, g, [v]| {
            let decay = if decayed { self.weight_decay } else { 0.0 };
            vectorize(|| {
                for ((w, &g), v) in w.iter_mut().zip(g).zip(v) {
                    let step = learning_rate * (scale * g + decay * *w);
                    *v = flush(momentum * *v - step);
                    *w += momentum * *v - step;
                }
            });
        });
        self.steps += 1;
    }

    fn steps(&self) -> u64 {
        self.steps
    }

    fn state(&self) -> Vec<(&'static str, &[f32])> {
        vec![("velocity", &self.velocity)]
    }

    fn restore(&mut self, steps: u64, state: &[(&str, &[f32])]) -> Result<(), OptimError> {
        restore_arrays(&mut [("velocity", Sign::Any, &mut self.velocity)], state)?;
        self.steps = steps;
        Ok(())
    }
}
