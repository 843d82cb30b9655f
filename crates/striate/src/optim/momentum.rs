//! Gradient descent with momentum (section 6.1.4).

use super::{CHUNK, OptimError, Optimizer, OptimizerOptions, Sign, check_lengths, flush, restore_arrays, zeros};
use crate::kernels::isa::vectorize;
use rayon::prelude::*;

/// A ball rolling down: `v = momentum * v - lr * g; w += v`, as in the book.
///
/// PyTorch keeps the velocity without the learning rate (`v = momentum * v + g; w -= lr * v`). Both are the same while
/// the learning rate is constant; when a schedule lowers it, the book's ball keeps the speed it had for a few steps.
#[derive(Clone, Debug)]
pub struct Momentum {
    momentum: f32,
    velocity: Vec<f32>,
    steps: u64,
}

impl Momentum {
    /// For `len` parameters.
    ///
    /// # Errors
    /// A momentum outside [0, 1), or memory that can't be had.
    pub fn new(momentum: f32, len: usize) -> Result<Self, OptimError> {
        OptimizerOptions::Momentum { momentum }.validate()?;
        Ok(Self { momentum, velocity: zeros(len)?, steps: 0 })
    }
}

impl Optimizer for Momentum {
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
                        *v = flush(momentum * *v - learning_rate * g);
                        *w += *v;
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
