//! Adam (Kingma and Ba, 2015; section 6.1.6).

use super::{Groups, OptimError, Optimizer, OptimizerOptions, Sign, restore_arrays, zeros};
use crate::buffer::Buffer;
use crate::kernels::functions::flush;
use crate::kernels::isa::vectorize;

/// Keeps the division finite; the paper's and PyTorch's.
const EPSILON: f32 = 1e-8;

/// Momentum and RMSProp together, both corrected for their start at zero, as in the paper and in PyTorch:
///
/// ```text
/// m = beta1 m + (1 - beta1) g        v = beta2 v + (1 - beta2) g^2
/// w -= lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + 1e-8)
/// ```
///
/// The book folds both corrections into the learning rate, `lr_t = lr sqrt(1 - beta2^t) / (1 - beta1^t)`, and divides
/// by `sqrt(v) + 1e-7`. That is this formula with an epsilon of `1e-7 / sqrt(1 - beta2^t)`: 3.2e-6 at the first step,
/// falling to 1e-7 after some thousands. The book's step is shorter by about that epsilon over the gradient's usual size:
/// 0.03 % at the first step for gradients of 0.01, a few per cent for 0.0001, and most of it for those below a
/// millionth.
#[derive(Clone, Debug)]
pub struct Adam {
    moments: Moments,
}

impl Adam {
    /// For so many parameters, or for groups of them.
    ///
    /// # Errors
    /// A beta outside [0, 1), or memory that can't be had.
    pub fn new(beta1: f32, beta2: f32, groups: impl Into<Groups>) -> Result<Self, OptimError> {
        OptimizerOptions::Adam { beta1, beta2 }.validate()?;
        Ok(Self { moments: Moments::new(beta1, beta2, groups.into())? })
    }
}

impl Optimizer for Adam {
    fn update_scaled(&mut self, learning_rate: f32, scale: f32, parameters: &mut [f32], gradients: &[f32]) {
        self.moments.update(learning_rate, scale, 1.0, parameters, gradients);
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

/// The two moments that Adam and AdamW share.
#[derive(Clone, Debug)]
pub(super) struct Moments {
    beta1: f32,
    beta2: f32,
    groups: Groups,
    mean: Buffer,
    mean_square: Buffer,
    pub(super) steps: u64,
}

impl Moments {
    pub(super) fn new(beta1: f32, beta2: f32, groups: Groups) -> Result<Self, OptimError> {
        let len = groups.len();
        Ok(Self { beta1, beta2, groups, mean: zeros(len)?, mean_square: zeros(len)?, steps: 0 })
    }

    /// Adam's step on gradients times `scale` and on weights first multiplied by `shrink` where decay acts (1 for Adam:
    /// exact).
    pub(super) fn update(
        &mut self,
        learning_rate: f32,
        scale: f32,
        shrink: f32,
        parameters: &mut [f32],
        gradients: &[f32],
    ) {
        let steps = self.steps + 1;
        let (keep1, take1) = (self.beta1, 1.0 - self.beta1);
        let (keep2, take2) = (self.beta2, 1.0 - self.beta2);
        // In f64: 1 - beta2^t cancels badly at the first steps.
        let correction = |beta: f32| 1.0 - f64::from(beta).powf(steps as f64);
        let rate = (f64::from(learning_rate) / correction(self.beta1)) as f32;
        let root = (1.0 / correction(self.beta2).sqrt()) as f32;
        let moments = [&mut self.mean[..], &mut self.mean_square[..]];
        self.groups.sweep(parameters, gradients, moments, |decayed, w, g, [m, v]| {
            let shrink = if decayed { shrink } else { 1.0 };
            vectorize(|| {
                for (((w, &g), m), v) in w.iter_mut().zip(g).zip(m).zip(v) {
                    let g = scale * g;
                    *m = flush(keep1 * *m + take1 * g);
                    *v = flush(keep2 * *v + take2 * (g * g));
                    *w = *w * shrink - rate * *m / (v.sqrt() * root + EPSILON);
                }
            });
        });
        self.steps = steps;
    }

    pub(super) fn state(&self) -> Vec<(&'static str, &[f32])> {
        vec![("mean", &self.mean), ("mean_square", &self.mean_square)]
    }

    pub(super) fn restore(&mut self, steps: u64, state: &[(&str, &[f32])]) -> Result<(), OptimError> {
        restore_arrays(
            &mut [("mean", Sign::Any, &mut self.mean), ("mean_square", Sign::NotNegative, &mut self.mean_square)],
            state,
        )?;
        self.steps = steps;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, Random};

    /// The book's `common/optimizer.py`, in f64.
    fn book(learning_rate: f64, start: f64, gradients: &[f64]) -> f64 {
        let (mut w, mut m, mut v) = (start, 0.0, 0.0);
        for (t, g) in (1..).zip(gradients) {
            let rate = learning_rate * (1.0 - 0.999f64.powi(t)).sqrt() / (1.0 - 0.9f64.powi(t));
            m += (1.0 - 0.9) * (g - m);
            v += (1.0 - 0.999) * (g * g - v);
            w -= rate * m / (v.sqrt() + 1e-7);
        }
        w
    }

    #[test]
    fn the_books_form_differs_only_for_tiny_gradients() {
        let gradients: Vec<f64> = (0..20).map(|i| f64::from(Random::new(2, Purpose::Test, 0).normal(i))).collect();
        let moved = |scale: f64| {
            let scaled: Vec<f64> = gradients.iter().map(|g| g * scale).collect();
            let mut adam = Adam::new(0.9, 0.999, 1).unwrap();
            let mut weight = [0.0];
            for &g in &scaled {
                adam.update(0.001, &mut weight, &[g as f32]);
            }
            (f64::from(weight[0]), book(0.001, 0.0, &scaled))
        };
        let (ours, theirs) = moved(1e-2);
        assert!((ours / theirs - 1.0).abs() < 1e-3, "{ours} {theirs}");
        let (ours, theirs) = moved(1e-7);
        assert!(theirs.abs() < 0.5 * ours.abs(), "{ours} {theirs}");
    }
}
