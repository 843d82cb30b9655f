//! The weights' gradient as a list of numbers, each of which adds its gradient times the window it saw: where a max
//! pooling left few numbers other than zero, or where there are few channels.

use super::{Geometry, OutputGradient, sum};
use crate::kernels::isa::winners::{MAX_ROWS, ROW, Winners, seen_by_winners};
use crate::kernels::{elementwise, isa};
use crate::shape::Padding;

/// A gradient as a list of numbers and the windows that they saw.
pub(super) struct Few<'a> {
    dy: &'a [f32],
    y: Option<&'a [f32]>,
    /// Places of the numbers in their map; without them, the list is the whole map.
    winner: Option<&'a [u32]>,
    /// Numbers in the list of a map.
    area: usize,
}

/// Channels up to which a whole map is worth following as a list: its rows fill the registers badly, but nothing is packed.
pub(super) const FEW_CHANNELS: usize = 8;

/// Pixels up to which that holds: the numbers of a longer list leave the L1 cache.
const FEW_PIXELS: usize = 1024;

/// Whether a filter fits the registers of [`few_weights`].
fn fits_few(g: &Geometry) -> bool {
    g.window.dilation == (1, 1) && g.window.kernel.1 <= ROW && (1..=MAX_ROWS).contains(&g.window.kernel.0)
}

impl<'a> OutputGradient<'a> {
    /// The gradient as a list, where following the list is cheaper than a product over all pixels: at most half of them
    /// won a maximum, or there are few channels.
    pub(super) fn few(&self, g: &Geometry) -> Option<Few<'a>> {
        let (area, winner) = match self.pool {
            Some((pool, winner)) if 2 * pool.output.area() <= g.pixels() => (pool.output.area(), Some(winner)),
            None if g.groups == 1 && g.input.channels <= FEW_CHANNELS && g.pixels() <= FEW_PIXELS => (g.pixels(), None),
            _ => return None,
        };
        fits_few(g).then_some(Few { dy: self.dy, y: self.y, winner, area })
    }
}

/// Height and width of a channel with its padding, and the numbers of a copy of an image with that padding and room at
/// its end, so that a whole vector can be read at the last window.
fn padded(g: &Geometry) -> (usize, usize, usize) {
    let Padding { top, left, bottom, right } = g.window.padding;
    let (height, width) = (g.input.height + top + bottom, g.input.width + left + right);
    (height, width, g.input.channels * height * width + ROW)
}

/// Numbers that [`few_weights`] works on.
pub(super) fn few_len(g: &Geometry) -> usize {
    if fits_few(g) { 3 * g.pixels() + padded(g).2 } else { 0 }
}

/// Adds one image's part of the weights' gradient, number by number: each adds its gradient times the window it saw.
pub(super) fn few_weights(
    g: &Geometry,
    few: &Few<'_>,
    n: usize,
    image: &[f32],
    dw: &mut [f32],
    db: &mut [f32],
    workspace: &mut [f32],
) {
    let (height, width, len) = padded(g);
    let (gradients, workspace) = workspace.split_at_mut(few.area);
    let (starts, workspace) = workspace.split_at_mut(g.pixels());
    let (every, workspace) = workspace.split_at_mut(g.pixels());
    let (starts, every): (&mut [u32], &mut [u32]) = (bytemuck::cast_slice_mut(starts), bytemuck::cast_slice_mut(every));
    for (row, starts) in starts.chunks_exact_mut(g.output.width).enumerate() {
        let first = row * g.window.stride.0 * width;
        starts.iter_mut().enumerate().for_each(|(i, start)| *start = (first + i * g.window.stride.1) as u32);
    }
    every.iter_mut().enumerate().for_each(|(place, every)| *every = place as u32);
    let image_padded = &mut workspace[..len];
    image_padded.fill(0.0);
    let Padding { top, left, .. } = g.window.padding;
    let planes = image.chunks_exact(g.input.area()).zip(image_padded.chunks_exact_mut(height * width));
    for (plane, padded) in planes {
        let rows = plane.chunks_exact(g.input.width).zip(padded[top * width..].chunks_exact_mut(width));
        rows.for_each(|(row, padded)| padded[left..][..row.len()].copy_from_slice(row));
    }
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
                places: few.winner.map_or(&*every, |winner| &winner[range.clone()]),
                starts,
                plane: &image_padded[c * height * width..],
                stride: width,
            };
            let sums = seen_by_winners(&winners, rows);
            let dw = &mut dw[f * g.depth() + c * rows * columns..][..rows * columns];
            for (dw, sums) in dw.chunks_exact_mut(columns).zip(&sums) {
                dw.iter_mut().zip(sums).for_each(|(d, s)| *d += s);
            }
        }
    }
}
