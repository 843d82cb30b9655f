//! Muon (Jordan et al., 2024, "Muon: an optimizer for hidden layers in neural networks").

use super::groups::{Matrix, sum_of_squares};
use super::{CHUNK, Groups, OptimError, Optimizer, OptimizerOptions, Sign, restore_arrays, zeros};
use crate::buffer::Buffer;
use crate::kernels::functions::flush;
use crate::kernels::isa::vectorize;
use crate::kernels::matmul::{self, Sizes, gemm};
use rayon::prelude::*;

/// Rounds of the Newton-Schulz iteration.
const ROUNDS: usize = 5;

/// Coefficients of its polynomial `a x + b x^3 + c x^5`, which takes every singular value from 0.01 to 1 into
/// 0.68 to 1.14 within five rounds: the paper's, chosen for speed near zero and not for convergence to 1.
const POLYNOMIAL: [f32; 3] = [3.4445, -4.7750, 2.0315];

/// Momentum whose step on a matrix is made orthogonal: every direction of it moves alike, however small its gradient.
///
/// For a matrix with gradient `g`, and `newton_schulz(u)` close to `U Vᵀ` of the singular value decomposition of `u`:
///
/// ```text
/// v = momentum v + g        u = g + momentum v        w = (1 - lr weight_decay) w - lr s newton_schulz(u / |u|)
/// ```
///
/// with `s = sqrt(max(1, outputs / inputs))`. What is no matrix ([`Groups::push`]) takes Nesterov's step `lr u` (PyTorch's
/// form), the decay decoupled as above. Filters (FN, C, FH, FW) are matrices of FN rows.
#[derive(Clone, Debug)]
pub struct Muon {
    momentum: f32,
    weight_decay: f32,
    /// All that is no matrix; matrices are frozen there.
    rest: Groups,
    matrices: Vec<Matrix>,
    velocity: Buffer,
    iteration: NewtonSchulz,
    steps: u64,
}

impl Muon {
    /// For so many parameters, none of them a matrix, or for groups with matrices.
    ///
    /// # Errors
    /// A momentum outside [0, 1), a negative or non-finite weight decay, or memory that can't be had.
    pub fn new(momentum: f32, weight_decay: f32, groups: impl Into<Groups>) -> Result<Self, OptimError> {
        OptimizerOptions::Muon { momentum, weight_decay }.validate()?;
        let groups = groups.into();
        let matrices = groups.learnt_matrices();
        let iteration = NewtonSchulz::new(&matrices)?;
        let velocity = zeros(groups.len())?;
        Ok(Self { momentum, weight_decay, rest: groups.without_matrices(), matrices, velocity, iteration, steps: 0 })
    }
}

impl Optimizer for Muon {
    fn update_scaled(&mut self, learning_rate: f32, scale: f32, parameters: &mut [f32], gradients: &[f32]) {
        let momentum = self.momentum;
        let shrink = |decayed: bool| if decayed { 1.0 - learning_rate * self.weight_decay } else { 1.0 };
        self.rest.sweep(parameters, gradients, [&mut self.velocity], |decayed, w, g, [v]| {
            let shrink = shrink(decayed);
            vectorize(|| {
                for ((w, &g), v) in w.iter_mut().zip(g).zip(v) {
                    let g = scale * g;
                    *v = flush(momentum * *v + g);
                    *w = *w * shrink - learning_rate * (g + momentum * *v);
                }
            });
        });
        for matrix in &self.matrices {
            let g = &gradients[matrix.range()];
            let v = &mut self.velocity[matrix.range()];
            let x = &mut self.iteration.x[..g.len()];
            x.par_chunks_mut(CHUNK).zip(g.par_chunks(CHUNK)).zip(v.par_chunks_mut(CHUNK)).for_each(|((x, g), v)| {
                vectorize(|| {
                    for ((x, &g), v) in x.iter_mut().zip(g).zip(v) {
                        let g = scale * g;
                        *v = flush(momentum * *v + g);
                        *x = g + momentum * *v;
                    }
                });
            });
            self.iteration.run(matrix.rows, matrix.columns);
            let (rate, shrink) = (learning_rate * matrix.gain(), shrink(matrix.is_decayed()));
            let (w, x) = (&mut parameters[matrix.range()], &self.iteration.x[..g.len()]);
            w.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(w, x)| {
                vectorize(|| w.iter_mut().zip(x).for_each(|(w, x)| *w = *w * shrink - rate * x));
            });
        }
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

/// Buffers for matrices up to a size, and the iteration in them.
#[derive(Clone, Debug)]
struct NewtonSchulz {
    /// The matrix, replaced by the result.
    x: Buffer,
    next: Buffer,
    /// The product of the matrix with its transpose, on its shorter side.
    gram: Buffer,
    polynomial: Buffer,
    workspace: Buffer,
}

impl NewtonSchulz {
    /// Reserves for the largest of these.
    fn new(matrices: &[Matrix]) -> Result<Self, OptimError> {
        let most = |size: &dyn Fn(&Matrix) -> usize| matrices.iter().map(size).max().unwrap_or(0);
        let (len, gram) = (most(&|m| m.rows * m.columns), most(&|m| m.rows.min(m.columns).pow(2)));
        let workspace = most(&|m| products(m.rows, m.columns).map(Sizes::workspace).into_iter().max().unwrap_or(0));
        Ok(Self {
            x: zeros(len)?,
            next: zeros(len)?,
            gram: zeros(gram)?,
            polynomial: zeros(gram)?,
            workspace: zeros(workspace)?,
        })
    }

    /// `x = x / |x|`, then `x = a x + (b G + c G G) x` with `G = x xᵀ`, five times; for a tall matrix the same with its
    /// transpose.
    fn run(&mut self, rows: usize, columns: usize) {
        let (tall, n, len) = (rows > columns, rows.min(columns), rows * columns);
        let [a, b, c] = POLYNOMIAL;
        let (gram, polynomial) = (&mut self.gram[..n * n], &mut self.polynomial[..n * n]);
        // A gradient of zeros stays one.
        let scale = (1.0 / (sum_of_squares(&self.x[..len]).sqrt() + 1e-7)) as f32;
        self.x[..len].par_chunks_mut(CHUNK).for_each(|x| vectorize(|| x.iter_mut().for_each(|x| *x *= scale)));
        let [inner, square, outer] = products(rows, columns);
        for _ in 0..ROUNDS {
            let (x, next) = (&self.x[..len], &mut self.next[..len]);
            let (by_rows, by_columns) =
                (matmul::Matrix::contiguous(x, columns), matmul::Matrix::interleaved(x, columns));
            let side = if tall { by_columns } else { by_rows };
            gemm(inner, &side, &side, gram, false, &mut self.workspace, |_, _| {});
            // Symmetric, so that its columns are its rows.
            let g = matmul::Matrix::contiguous(gram, n);
            gemm(square, &g, &g, polynomial, false, &mut self.workspace, |_, _| {});
            polynomial.par_chunks_mut(CHUNK).zip(gram.par_chunks(CHUNK)).for_each(|(p, g)| {
                vectorize(|| p.iter_mut().zip(g).for_each(|(p, g)| *p = b * g + c * *p));
            });
            let p = matmul::Matrix::contiguous(polynomial, n);
            let (left, right) = if tall { (by_rows, p) } else { (p, by_columns) };
            gemm(outer, &left, &right, next, false, &mut self.workspace, |_, _| {});
            next.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(next, x)| {
                vectorize(|| next.iter_mut().zip(x).for_each(|(next, x)| *next += a * x));
            });
            std::mem::swap(&mut self.x, &mut self.next);
        }
    }
}

/// The three products of a round.
fn products(rows: usize, columns: usize) -> [Sizes; 3] {
    let (n, long) = (rows.min(columns), rows.max(columns));
    [
        Sizes { rows: n, columns: n, depth: long },
        Sizes { rows: n, columns: n, depth: n },
        Sizes { rows, columns, depth: n },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::Kind;
    use crate::random::{Purpose, Random};

    fn steps(rows: usize, columns: usize) -> Vec<f32> {
        let random = Random::new(3, Purpose::Test, 0);
        let gradient: Vec<f32> = (0..(rows * columns) as u64).map(|i| random.normal(i)).collect();
        let mut groups = Groups::default();
        groups.push_matrix(rows, columns, true, Kind::Plain);
        let mut weights = vec![0.0; gradient.len()];
        Muon::new(0.0, 0.0, groups).unwrap().update(1.0, &mut weights, &gradient);
        weights
    }

    #[test]
    fn the_step_is_nearly_orthogonal() {
        for (rows, columns) in [(8, 40), (40, 8), (5, 5), (1, 9), (70, 300)] {
            let x = steps(rows, columns);
            let rate = (rows as f64 / columns as f64).max(1.0).sqrt();
            // Singular values from 0.68 to 1.14, so their mean square is between the squares; alone, 1 becomes 0.6964.
            let square = sum_of_squares(&x) / rate.powi(2) / rows.min(columns) as f64;
            assert!((0.464..1.29).contains(&square), "{rows} x {columns}: {square}");
            let cells = |i: usize, k: usize| {
                let at = if rows <= columns { i * columns + k } else { k * columns + i };
                f64::from(x[at]) / rate
            };
            for i in 1..rows.min(columns) {
                let dot: f64 = (0..rows.max(columns)).map(|k| cells(0, k) * cells(i, k)).sum();
                assert!(dot.abs() < 0.45, "{rows} x {columns}: {dot}");
            }
        }
    }

    #[test]
    fn no_gradient_is_no_step_and_a_bad_one_shows() {
        let mut groups = Groups::default();
        groups.push_matrix(2, 3, true, Kind::Decayed);
        let mut muon = Muon::new(0.9, 0.0, &groups).unwrap();
        let mut weights = [1.0; 6];
        muon.update(0.1, &mut weights, &[0.0; 6]);
        assert_eq!(weights, [1.0; 6]);
        muon.update(0.1, &mut weights, &[f32::NAN, 0.0, 0.0, 0.0, 0.0, 0.0]);
        assert!(weights.iter().all(|w| w.is_nan()));
    }

    #[test]
    fn the_bits_do_not_depend_on_the_number_of_threads() {
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| steps(130, 700)).iter().map(|v| v.to_bits()).collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(2));
        assert_eq!(run(1), run(3));
    }
}
