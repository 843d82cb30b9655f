//! AdaGrad (Duchi et al., 2011; section 6.1.5).

use super::{CHUNK, OptimError, Optimizer, Sign, check_lengths, restore_arrays, zeros};
use crate::kernels::isa::vectorize;
use rayon::prelude::*;

/// Keeps the division finite; PyTorch's. The book's is 1e-7, felt only by gradients of about that size.
const EPSILON: f32 = 1e-10;

/// Smaller steps for parameters that moved much: `h += g^2; w -= lr * g / (sqrt(h) + 1e-10)`.
#[derive(Clone, Debug)]
pub struct AdaGrad {
    square_sum: Vec<f32>,
    steps: u64,
}

impl AdaGrad {
    /// For `len` parameters.
    ///
    /// # Errors
    /// Memory that can't be had.
    pub fn new(len: usize) -> Result<Self, OptimError> {
        Ok(Self { square_sum: zeros(len)?, steps: 0 })
    }
}

impl Optimizer for AdaGrad {
    fn update(&mut self, learning_rate: f32, parameters: &mut [f32], gradients: &[f32]) {
        check_lengths(self.square_sum.len(), parameters, gradients);
        self.steps += 1;
        parameters
            .par_chunks_mut(CHUNK)
            .zip(gradients.par_chunks(CHUNK))
            .zip(self.square_sum.par_chunks_mut(CHUNK))
            .for_each(|((w, g), h)| {
                vectorize(|| {
                    for ((w, &g), h) in w.iter_mut().zip(g).zip(h) {
                        *h += g * g;
                        *w -= learning_rate * g / (h.sqrt() + EPSILON);
                    }
                });
            });
    }

    fn steps(&self) -> u64 {
        self.steps
    }

    fn state(&self) -> Vec<(&'static str, &[f32])> {
        vec![("square_sum", &self.square_sum)]
    }

    fn restore(&mut self, steps: u64, state: &[(&str, &[f32])]) -> Result<(), OptimError> {
        restore_arrays(&mut [("square_sum", Sign::NotNegative, &mut self.square_sum)], state)?;
        self.steps = steps;
        Ok(())
    }
}
