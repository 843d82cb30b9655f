//! Stochastic gradient descent (section 6.1.2).

use super::{CHUNK, OptimError, Optimizer, check_lengths, restore_arrays};
use crate::kernels::isa::vectorize;
use rayon::prelude::*;

/// Stochastic gradient descent: `w -= lr * g`. Keeps no state.
#[derive(Clone, Debug)]
pub struct Sgd {
    len: usize,
    steps: u64,
}

impl Sgd {
    /// For `len` parameters.
    pub fn new(len: usize) -> Self {
        Self { len, steps: 0 }
    }
}

impl Optimizer for Sgd {
    fn update(&mut self, learning_rate: f32, parameters: &mut [f32], gradients: &[f32]) {
        check_lengths(self.len, parameters, gradients);
        self.steps += 1;
        parameters.par_chunks_mut(CHUNK).zip(gradients.par_chunks(CHUNK)).for_each(|(w, g)| {
            vectorize(|| {
                for (w, &g) in w.iter_mut().zip(g) {
                    *w -= learning_rate * g;
                }
            });
        });
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
