//! RMSProp (Tieleman and Hinton, 2012).

use super::{Groups, OptimError, Optimizer, OptimizerOptions, Sign, restore_arrays, zeros};
use crate::buffer::Buffer;
use crate::kernels::functions::flush;
use crate::kernels::isa::vectorize;

/// Keeps the division finite; PyTorch's. The book's is 1e-7.
const EPSILON: f32 = 1e-8;

/// AdaGrad that forgets old gradients: `h = decay * h + (1 - decay) * g^2; w -= lr * g / (sqrt(h) + 1e-8)`.
#[derive(Clone, Debug)]
pub struct RmsProp {
    decay: f32,
    groups: Groups,
    mean_square: Buffer,
    steps: u64,
}

impl RmsProp {
    /// For so many parameters, or for groups of them.
    ///
    /// # Errors
    /// A decay outside [0, 1), or memory that can't be had.
    pub fn new(decay: f32, groups: impl Into<Groups>) -> Result<Self, OptimError> {
        OptimizerOptions::RmsProp { decay }.validate()?;
        let groups = groups.into();
        Ok(Self { decay, mean_square: zeros(groups.len())?, groups, steps: 0 })
    }
}

impl Optimizer for RmsProp {
    fn update_scaled(&mut self, learning_rate: f32, scale: f32, parameters: &mut [f32], gradients: &[f32]) {
        let (keep, take) = (self.decay, 1.0 - self.decay);
        self.groups.sweep(parameters, gradients, [&mut self.mean_square], |_, w, g, [h]| {
            vectorize(|| {
                for ((w, &g), h) in w.iter_mut().zip(g).zip(h) {
                    let g = scale * g;
                    *h = flush(keep * *h + take * (g * g));
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
        vec![("mean_square", &self.mean_square)]
    }

    fn restore(&mut self, steps: u64, state: &[(&str, &[f32])]) -> Result<(), OptimError> {
        restore_arrays(&mut [("mean_square", Sign::NotNegative, &mut self.mean_square)], state)?;
        self.steps = steps;
        Ok(())
    }
}
