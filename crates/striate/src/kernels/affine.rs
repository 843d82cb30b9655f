//! `y = x · W + b` (section 5.6) with x (N, inputs), W (inputs, outputs), b (outputs).

use super::elementwise;
use super::isa;
use super::matmul::{Matrix, Sizes, gemm, vector_matrix};

/// Sizes of an affine layer and its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) batch: usize,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
}

impl Geometry {
    fn forward(&self) -> Sizes {
        Sizes { rows: self.batch, columns: self.outputs, depth: self.inputs }
    }

    fn weights(&self) -> Sizes {
        Sizes { rows: self.inputs, columns: self.outputs, depth: self.batch }
    }

    fn input(&self) -> Sizes {
        Sizes { rows: self.batch, columns: self.inputs, depth: self.outputs }
    }

    /// Rows so few that packing the weights would cost more than it saves.
    fn is_narrow(&self) -> bool {
        self.batch <= 2
    }

    /// Numbers of workspace [`forward`] needs.
    pub(crate) fn forward_workspace(&self) -> usize {
        if self.is_narrow() { 0 } else { self.forward().workspace() }
    }

    /// Numbers of workspace [`backward`] needs.
    pub(crate) fn backward_workspace(&self) -> usize {
        self.weights().workspace().max(self.input().workspace())
    }
}

/// `y = x · W + b`, then ReLU if asked.
pub(crate) fn forward(g: &Geometry, x: &[f32], w: &[f32], b: &[f32], relu: bool, y: &mut [f32], workspace: &mut [f32]) {
    let finish = |rows: &mut [f32]| {
        isa::vectorize(|| {
            elementwise::add_bias(rows, b);
            if relu {
                elementwise::relu_in_place(rows);
            }
        });
    };
    if g.is_narrow() {
        for (x, y) in x.chunks_exact(g.inputs).zip(y.chunks_exact_mut(g.outputs)) {
            vector_matrix(x, w, y);
            finish(y);
        }
    } else {
        let (x, w) = (Matrix::contiguous(x, g.inputs), Matrix::interleaved(w, g.outputs));
        gemm(g.forward(), &x, &w, y, false, workspace, |_, rows| finish(rows));
    }
}

/// Gradients: `dw = xᵀ · dy`, `db` = the rows of `dy` summed, `dx = dy · Wᵀ` unless `dx` is empty.
/// Overwrites all three, but adds to `dx` if told to accumulate.
pub(crate) fn backward(
    g: &Geometry,
    x: &[f32],
    w: &[f32],
    dy: &[f32],
    (dx, accumulate): (&mut [f32], bool),
    (dw, db): (&mut [f32], &mut [f32]),
    workspace: &mut [f32],
) {
    elementwise::sum_rows(dy, db);
    let (left, right) = (Matrix::interleaved(x, g.inputs), Matrix::interleaved(dy, g.outputs));
    gemm(g.weights(), &left, &right, dw, false, workspace, |_, _| ());
    if !dx.is_empty() {
        let (left, right) = (Matrix::contiguous(dy, g.outputs), Matrix::contiguous(w, g.outputs));
        gemm(g.input(), &left, &right, dx, accumulate, workspace, |_, _| ());
    }
}
