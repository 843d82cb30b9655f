//! AdaGrad (Duchi et al., 2011; section 6.1.5).

use super::{Groups, OptimError, Optimizer, Sign, restore_arrays, zeros};
use crate::buffer::Buffer;
use crate::kernels::isa::vectorize;

/// Keeps the division finite; PyTorch's. The book's is 1e-7, felt only by gradients of about that size.
const EPSILON: f32 = 1e-10;

/// Smaller steps for parameters that moved much: `h += g^2; w -= lr * g / (sqrt(h) + 1e-10)`.
#[derive(Clone, Debug)]
pub struct AdaGrad {
    groups: Groups,
    square_sum: Buffer,
    steps: u64,
}

impl AdaGrad {
    /// For so many parameters, or for groups of them.
    ///
    /// # Errors
    /// Memory that can't be had.
    pub fn new(groups: impl Into<Groups>) -> Result<Self, OptimError> {
        let groups = groups.into();
        Ok(Self { square_sum: zeros(groups.len())?, groups, steps: 0 })
    }
}

impl Optimizer for AdaGrad {
    fn update_scaled(&mut self, learning_rate: f32, scale: f32, parameters: &mut [f32], gradients: &[f32]) {
        self.groups.sweep(parameters, gradients, [&mut self.square_sum], |_, w, g, [h]| {
            vectorize(|| {
                for ((w, &g), h) in w.iter_mut().zip(g).zip(h) {
                    let g = scale * g;
                    *h += g * g;
                    *w -= learning_rate * g / (h.sqrt() + EPSILON);
                }
            });
        });
        self.steps += 1;
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
