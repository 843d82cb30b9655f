//! One convolution by itself, with all its buffers: for measuring.

use super::*;
use crate::shape::{Shape, ShapeError, Window};

/// One convolution for one batch size, with its buffers, so that each pass can be timed by itself.
///
/// ```
/// use striate::kernels::Probe;
/// use striate::shape::{Shape, Window};
/// let mut probe = Probe::new(Shape::new(16, 8, 8), 32, 1, Window::square(3, 1, 1), 4)?;
/// probe.prepare();
/// probe.forward();
/// assert_eq!(probe.flops(), 2 * 9 * 16 * 32 * 64 * 4);
/// # Ok::<(), striate::shape::ShapeError>(())
/// ```
#[derive(Debug)]
pub struct Probe {
    geometry: Geometry,
    batch: usize,
    x: Vec<f32>,
    w: Vec<f32>,
    b: Vec<f32>,
    y: Vec<f32>,
    dx: Vec<f32>,
    dw: Vec<f32>,
    db: Vec<f32>,
    prepared: [Vec<f32>; 2],
    workspace: Vec<f32>,
}

impl Probe {
    /// A convolution of `filters` filters in `groups` groups over `batch` samples of `input`.
    ///
    /// # Errors
    /// Shapes that do not fit each other.
    pub fn new(input: Shape, filters: usize, groups: usize, window: Window, batch: usize) -> Result<Self, ShapeError> {
        let g = Geometry::new(input, filters, groups, window)?;
        let random = crate::random::Random::new(1, crate::random::Purpose::Test, 0);
        let numbers = |stream: u64, len: usize| -> Vec<f32> {
            (0..len).map(|i| random.normal(stream << 40 | (i % (1 << 16)) as u64)).collect()
        };
        let workspace = forward_workspace(&g, batch, &Epilogue::NONE)
            .max(weights_workspace(&g, batch))
            .max(input_workspace(&g, batch));
        Ok(Self {
            geometry: g,
            batch,
            x: numbers(1, input.checked_len(batch)?),
            w: numbers(2, g.weights()),
            b: numbers(3, filters),
            y: numbers(4, g.output.checked_len(batch)?),
            dx: vec![0.0; batch * input.len()],
            dw: vec![0.0; g.weights()],
            db: vec![0.0; filters],
            prepared: [Pass::Forward, Pass::BackwardInput].map(|pass| vec![0.0; prepared_len(&g, batch, pass)]),
            workspace: vec![0.0; workspace],
        })
    }

    /// What was chosen, and why.
    pub fn method(&self) -> String {
        method(&self.geometry, self.batch).to_string()
    }

    /// Floating-point operations of each pass as the definition counts them (a multiply-add is two).
    pub fn flops(&self) -> u64 {
        2 * self.geometry.depth() as u64 * (self.batch * self.geometry.output.len()) as u64
    }

    /// Packs or transforms the weights for both passes, as happens once a step.
    pub fn prepare(&mut self) {
        for (pass, prepared) in [Pass::Forward, Pass::BackwardInput].into_iter().zip(&mut self.prepared) {
            prepare(&self.geometry, self.batch, pass, &self.w, prepared);
        }
    }

    /// The forward pass.
    pub fn forward(&mut self) {
        let Self { geometry: g, x, b, y, prepared: [prepared, _], workspace, .. } = self;
        forward(g, x, prepared, Some(b), None, y, None, workspace, &Epilogue::NONE);
    }

    /// The gradient of the input.
    pub fn backward_input(&mut self) {
        let Self { geometry: g, y, dx, prepared: [_, prepared], workspace, .. } = self;
        backward_input(g, prepared, OutputGradient { dy: y, y: None, pool: None }, dx, false, workspace);
    }

    /// The gradients of weights and biases.
    pub fn backward_weights(&mut self) {
        let Self { geometry: g, x, y, dw, db, workspace, .. } = self;
        backward_weights(g, x, OutputGradient { dy: y, y: None, pool: None }, dw, Some(db), workspace);
    }
}
