//! Nesterov's accelerated gradient, in the form that needs the gradient at the parameters themselves
//! (Bengio et al., 2013, "Advances in optimizing recurrent networks").

use super::{CHUNK, OptimError, Optimizer, OptimizerOptions, Sign, check_lengths, flush, restore_arrays, zeros};
use crate::kernels::isa::vectorize;
use rayon::prelude::*;

/// Momentum that looks ahead: `v = momentum * v - lr * g; w += momentum * v - lr * g`, as in the book's code.
///
/// PyTorch keeps the velocity without the learning rate (`v = momentum * v + g; w -= lr * (g + momentum * v)`): the same
/// while the learning rate is constant.
#[derive(Clone, Debug)]
pub struct Nesterov {
    momentum: f32,
    velocity: Vec<f32>,
    steps: u64,
}

impl Nesterov {
    /// For `len` parameters.
    ///
    /// # Errors
    /// A momentum outside [0, 1), or memory that can't be had.
    pub fn new(momentum: f32, len: usize) -> Result<Self, OptimError> {
        OptimizerOptions::Nesterov { momentum }.validate()?;
        Ok(Self { momentum, velocity: zeros(len)?, steps: 0 })
    }
}

impl Optimizer for Nesterov {
    fn update(&mut self, learning_rate: f32, parameters: &mut [f32], gradients: &[f32]) {
        check_lengths(self.velocity.len(), parameters, gradients);
        self.steps += 1;
        let momentum = self.momentum;
        parameters
            .par_chunks_mut(CHUNK)
            .zip(gradients.par_chunks(CHUNK))
            .zip(self.velocity.par_chunks_mut(CHUNK))
            .for_each(|((w, g), v)| {
                vectorize(|| {
                    for ((w, &g), v) in w.iter_mut().zip(g).zip(v) {
                        let step = learning_rate * g;
                        *v = flush(momentum * *v - step);
                        *w += momentum * *v - step;
                    }
                });
            });
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
