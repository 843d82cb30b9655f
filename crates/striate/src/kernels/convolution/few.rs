//! The weights' gradient after a max pooling: most of the output's gradient is zero, so each winner adds its gradient
//! times the window it saw.

use super::{Geometry, OutputGradient, sum};
use crate::kernels::isa;
use crate::shape::Padding;

/// A gradient that max pooling left with few numbers other than zero.
pub(super) struct Few<'a> {
    dy: &'a [f32],
    y: Option<&'a [f32]>,
    winner: &'a [u32],
    /// Numbers a map has after pooling.
    area: usize,
}

/// Numbers in a row of a filter that [`few_weights`] works on at once.
pub(super) const ROW: usize = 8;

impl<'a> OutputGradient<'a> {
    /// The gradient as a list, where following the list is cheaper than a product over all pixels: at most half of them
    /// won a maximum, and a filter's row fits a vector.
    pub(super) fn few(&self, g: &Geometry) -> Option<Few<'a>> {
        let (pool, winner) = self.pool?;
        let fits = g.window.padding == Padding::NONE
            && g.window.dilation == (1, 1)
            && g.window.kernel.1 <= ROW
            && (1..=7).contains(&g.window.kernel.0);
        let area = pool.output.area();
        (fits && 2 * area <= g.pixels()).then_some(Few { dy: self.dy, y: self.y, winner, area })
    }
}

/// Adds one image's part of the weights' gradient, winner by winner: each adds its gradient times the window it saw.
#[inline(always)]
fn few_weights_body(
    g: &Geometry,
    few: &Few<'_>,
    n: usize,
    image: &[f32],
    dw: &mut [f32],
    db: &mut [f32],
    workspace: &mut [f32],
) {
    let (list, workspace) = workspace.split_at_mut(2 * few.area);
    let (gradients, places) = list.split_at_mut(few.area);
    let places: &mut [u32] = bytemuck::cast_slice_mut(places);
    // A copy with room at its end, so that a whole vector can be read at the last window.
    let padded = &mut workspace[..g.input.len() + ROW];
    padded[..image.len()].copy_from_slice(image);
    padded[image.len()..].fill(0.0);
    let per_channel = g.window.kernel.0 * g.window.kernel.1;
    for f in 0..g.filters() {
        let range = (n * g.filters() + f) * few.area..(n * g.filters() + f + 1) * few.area;
        let mut count = 0;
        let winners = few.winner[range.clone()].iter().zip(&few.dy[range.clone()]);
        for (i, (&winner, &dy)) in winners.enumerate() {
            let (row, column) = (winner as usize / g.output.width, winner as usize % g.output.width);
            places[count] = (row * g.window.stride.0 * g.input.width + column * g.window.stride.1) as u32;
            gradients[count] = dy;
            count += usize::from(few.y.is_none_or(|y| y[range.start + i] > 0.0));
        }
        db[f] += sum(&gradients[..count]);
        for c in 0..g.input.channels {
            let plane = &padded[c * g.input.area()..];
            let dw = &mut dw[f * g.depth() + c * per_channel..][..per_channel];
            let list = (&gradients[..count], &places[..count]);
            match g.window.kernel.0 {
                1 => add_few::<1>(g, list, plane, dw),
                2 => add_few::<2>(g, list, plane, dw),
                3 => add_few::<3>(g, list, plane, dw),
                4 => add_few::<4>(g, list, plane, dw),
                5 => add_few::<5>(g, list, plane, dw),
                6 => add_few::<6>(g, list, plane, dw),
                _ => add_few::<7>(g, list, plane, dw),
            }
        }
    }
}

isa::vectorized!(
    pub(super) fn few_weights(
        g: &Geometry,
        few: &Few<'_>,
        n: usize,
        image: &[f32],
        dw: &mut [f32],
        db: &mut [f32],
        workspace: &mut [f32],
    ) = few_weights_body
);

/// [`few_weights`] for one filter and channel, its `ROWS` rows held in registers.
#[inline(always)]
fn add_few<const ROWS: usize>(g: &Geometry, (gradients, places): (&[f32], &[u32]), plane: &[f32], dw: &mut [f32]) {
    let mut sums = [[[0.0f32; ROW]; ROWS]; 2];
    let width = g.input.width;
    // Two sums at a time, to hide the latency of the additions.
    let (gradient_pairs, rest) = gradients.as_chunks::<2>();
    let (place_pairs, rest_places) = places.as_chunks::<2>();
    for (&[g0, g1], &[p0, p1]) in gradient_pairs.iter().zip(place_pairs) {
        add_one(&mut sums[0], g0, p0, plane, width);
        add_one(&mut sums[1], g1, p1, plane, width);
    }
    for (&gradient, &place) in rest.iter().zip(rest_places) {
        add_one(&mut sums[0], gradient, place, plane, width);
    }
    for (i, dw) in dw.chunks_exact_mut(g.window.kernel.1).enumerate() {
        dw.iter_mut().zip(sums[0][i].iter().zip(&sums[1][i])).for_each(|(d, (a, b))| *d += a + b);
    }
}

#[inline(always)]
fn add_one<const ROWS: usize>(sums: &mut [[f32; ROW]; ROWS], gradient: f32, place: u32, plane: &[f32], width: usize) {
    let window = &plane[place as usize..][..(ROWS - 1) * width + ROW];
    for (i, sums) in sums.iter_mut().enumerate() {
        if let Some(row) = window[i * width..].first_chunk::<ROW>() {
            for (s, v) in sums.iter_mut().zip(row) {
                *s += gradient * v;
            }
        }
    }
}
