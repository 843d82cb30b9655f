//! The gradient of the weights and biases, and the output's gradient as it arrives.

use super::few::{few_len, few_weights};
use super::geometry::Geometry;
use super::winograd::{self, Form};
use super::{Cut, PIXELS, depthwise, each_chunk, in_turn_with_sums, strips, sum};
use crate::kernels::{CHUNK, elementwise, isa, pooling};
use rayon::prelude::*;

/// The gradient of a convolution's output as it arrives: after the activation and the pooling that were fused with it.
#[derive(Clone, Copy)]
pub(crate) struct OutputGradient<'a> {
    /// Gradient of the fused output.
    pub(crate) dy: &'a [f32],
    /// The fused output itself, if ReLU must be undone.
    pub(crate) y: Option<&'a [f32]>,
    /// The pooling and its winners, if it must be undone.
    pub(crate) pool: Option<(&'a pooling::Geometry, &'a [u32])>,
}

impl OutputGradient<'_> {
    /// The gradients of the convolution's own output for `count` images from `first` on, in `maps` if they had to be
    /// worked out.
    pub(super) fn images<'b>(
        &'b self,
        g: &Geometry,
        first: usize,
        count: usize,
        maps: &'b mut [f32],
        parallel: bool,
    ) -> &'b [f32] {
        let area = self.pool.map_or(g.pixels(), |(pool, _)| pool.output.area());
        let plane = first * g.filters();
        if self.pool.is_none() && self.y.is_none() {
            return &self.dy[plane * area..][..count * g.output.len()];
        }
        let maps = &mut maps[..count * g.output.len()];
        each_chunk(parallel, maps, g.pixels(), |i, map| {
            let range = (plane + i) * area..(plane + i + 1) * area;
            let dy = &self.dy[range.clone()];
            let y = self.y.map(|y| &y[range.clone()]);
            match (self.pool, y) {
                (Some((_, winner)), y) => {
                    map.fill(0.0);
                    for (at, (&dy, &winner)) in dy.iter().zip(&winner[range]).enumerate() {
                        if y.is_none_or(|y| y[at] > 0.0) {
                            map[winner as usize] += dy;
                        }
                    }
                }
                (None, Some(y)) => isa::vectorize(|| {
                    map.copy_from_slice(dy);
                    elementwise::relu_gradient(map, y);
                }),
                (None, None) => map.copy_from_slice(dy),
            }
        });
        maps
    }

    /// Adds the sums of each filter's map to `db`.
    pub(super) fn add_biases(g: &Geometry, maps: &[f32], db: &mut [f32], parallel: bool) {
        let pixels = g.pixels();
        each_chunk(parallel, db, 1, |f, db| {
            for image in maps.chunks_exact(g.output.len()) {
                db[0] += isa::vectorize(|| sum(&image[f * pixels..][..pixels]));
            }
        });
    }
}

/// Whether the weights' gradient follows the winners of a fused pooling.
fn follows_winners(g: &Geometry, dy: &OutputGradient<'_>) -> bool {
    g.groups == 1 && dy.few(g).is_some()
}

/// How a batch is cut, the numbers of a piece's gradients, and those that it needs besides.
fn few_cut(g: &Geometry, batch: usize) -> (Cut, usize, usize) {
    let (sums, len) = (g.weights() + g.filters(), few_len(g));
    (Cut::new(batch, usize::MAX, PIXELS, |_| sums + len), sums, len)
}

/// How the weights' gradient is computed, unless it follows winners.
enum Way {
    Depthwise,
    Winograd(Form),
    Strips,
}

fn way(g: &Geometry, batch: usize) -> Way {
    if depthwise::fits(g) {
        Way::Depthwise
    } else if let Some(form) = Form::of_gradient(g, batch) {
        Way::Winograd(form)
    } else {
        Way::Strips
    }
}

/// How [`backward_weights`] works, in words.
pub(super) fn describe(g: &Geometry, batch: usize) -> &'static str {
    match way(g, batch) {
        Way::Depthwise => "depthwise",
        Way::Winograd(_) => "Winograd",
        Way::Strips => "product with strips of the image (nothing of it packed)",
    }
}

/// Numbers of workspace [`backward_weights`] needs.
pub(crate) fn weights_workspace(g: &Geometry, batch: usize) -> usize {
    let direct = match way(g, batch) {
        Way::Depthwise => depthwise::weights_workspace(g, batch),
        Way::Winograd(form) => winograd::weights_workspace(g, form, batch),
        Way::Strips => strips::workspace(g, batch),
    };
    let (cut, sums, len) = few_cut(g, batch);
    direct.max(cut.workspace_with_sums(sums, len))
}

/// Gradients of filters and (if asked for) biases, summed over the batch; overwrites `dw` and `db`.
pub(crate) fn backward_weights(
    g: &Geometry,
    x: &[f32],
    dy: OutputGradient<'_>,
    dw: &mut [f32],
    db: Option<&mut [f32]>,
    workspace: &mut [f32],
) {
    let batch = x.len() / g.input.len();
    match way(g, batch) {
        Way::Winograd(form) => winograd::backward_weights(g, form, x, dy, dw, db, workspace),
        _ if follows_winners(g, &dy) => along_winners(g, x, dy, dw, db, workspace),
        Way::Depthwise => depthwise::backward_weights(g, x, dy, dw, db, workspace),
        Way::Strips => strips::backward_weights(g, x, dy, dw, db, workspace),
    }
}

fn along_winners(
    g: &Geometry,
    x: &[f32],
    dy: OutputGradient<'_>,
    dw: &mut [f32],
    db: Option<&mut [f32]>,
    workspace: &mut [f32],
) {
    let (cut, sums_len, len) = few_cut(g, x.len() / g.input.len());
    let lens = (sums_len, len);
    let sums = in_turn_with_sums(&cut, (x, g.input.len()), workspace, lens, |piece, x, sums, workspace| {
        let (dw, db) = sums.split_at_mut(g.weights());
        dw.fill(0.0);
        db.fill(0.0);
        for (n, image) in x.chunks_exact(g.input.len()).enumerate() {
            if let Some(few) = dy.few(g) {
                few_weights(g, &few, piece * cut.images + n, image, dw, db, workspace);
            }
        }
    });
    sum_pieces(sums, sums_len, 0, dw);
    if let Some(db) = db {
        sum_pieces(sums, sums_len, g.weights(), db);
    }
}

/// Sums what each piece of `workspace` has from `offset` on, in the order of the pieces.
pub(super) fn sum_pieces(workspace: &[f32], task_len: usize, offset: usize, target: &mut [f32]) {
    target.par_chunks_mut(CHUNK).enumerate().for_each(|(i, target)| {
        isa::vectorize(|| {
            target.fill(0.0);
            for piece in workspace.chunks_exact(task_len) {
                let piece = &piece[offset + i * CHUNK..][..target.len()];
                target.iter_mut().zip(piece).for_each(|(t, p)| *t += p);
            }
        });
    });
}
