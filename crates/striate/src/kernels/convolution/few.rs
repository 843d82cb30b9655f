//! The weights' gradient where a max pooling follows: all but a few numbers of the output's gradient are zero.

use super::{Geometry, OutputGradient, sum};
use crate::kernels::elementwise;
use crate::kernels::isa;
use crate::kernels::isa::winners::{MAX_ROWS, ROW, Winners, seen_by_winners};
use crate::shape::Padding;

/// A gradient that max pooling left with few numbers other than zero.
pub(super) struct Few<'a> {
    dy: &'a [f32],
    y: Option<&'a [f32]>,
    winner: &'a [u32],
    /// Numbers a map has after pooling.
    area: usize,
}

impl<'a> OutputGradient<'a> {
    /// The gradient as a list, where following the list is cheaper than a product over all pixels: at most half of them
    /// won a maximum, and a filter fits the registers.
    pub(super) fn few(&self, g: &Geometry) -> Option<Few<'a>> {
        let (pool, winner) = self.pool?;
        let fits = g.window.padding == Padding::NONE
            && g.window.dilation == (1, 1)
            && g.window.kernel.1 <= ROW
            && (1..=MAX_ROWS).contains(&g.window.kernel.0);
        let area = pool.output.area();
        (fits && 2 * area <= g.pixels()).then_some(Few { dy: self.dy, y: self.y, winner, area })
    }
}

/// Adds one image's part of the weights' gradient, winner by winner: each adds its gradient times the window it saw.
pub(super) fn few_weights(
    g: &Geometry,
    few: &Few<'_>,
    n: usize,
    image: &[f32],
    dw: &mut [f32],
    db: &mut [f32],
    workspace: &mut [f32],
) {
    let (gradients, workspace) = workspace.split_at_mut(few.area);
    let (starts, workspace) = workspace.split_at_mut(g.pixels());
    let starts: &mut [u32] = bytemuck::cast_slice_mut(starts);
    for (row, starts) in starts.chunks_exact_mut(g.output.width).enumerate() {
        let first = row * g.window.stride.0 * g.input.width;
        starts.iter_mut().enumerate().for_each(|(i, start)| *start = (first + i * g.window.stride.1) as u32);
    }
    // A copy with room at its end, so that a whole vector can be read at the last window.
    let padded = &mut workspace[..g.input.len() + ROW];
    padded[..image.len()].copy_from_slice(image);
    padded[image.len()..].fill(0.0);
    let (rows, columns) = g.window.kernel;
    for f in 0..g.filters() {
        let range = (n * g.filters() + f) * few.area..(n * g.filters() + f + 1) * few.area;
        isa::vectorize(|| {
            gradients.copy_from_slice(&few.dy[range.clone()]);
            if let Some(y) = few.y {
                elementwise::relu_gradient(gradients, &y[range.clone()]);
            }
            db[f] += sum(gradients);
        });
        for c in 0..g.input.channels {
            let winners = Winners {
                gradients,
                places: &few.winner[range.clone()],
                starts,
                plane: &padded[c * g.input.area()..],
                stride: g.input.width,
            };
            let sums = seen_by_winners(&winners, rows);
            let dw = &mut dw[f * g.depth() + c * rows * columns..][..rows * columns];
            for (dw, sums) in dw.chunks_exact_mut(columns).zip(&sums) {
                dw.iter_mut().zip(sums).for_each(|(d, s)| *d += s);
            }
        }
    }
}
