//! Implicit GEMM: a convolution as a matrix product whose right side, the windows, is packed straight from the image.
//!
//! With F = filters, K = channels·height·width of a filter and P = pixels, a group of an image is `out (F x P) = w (F x K)
//! · windows (K x P)`. The pixels of several small images stand side by side, so that no lane of a panel is wasted. The
//! gradient of the input is a convolution of the same kind (see `input.rs`), and so is reading Winograd's tiles.

use super::padded::Padded;
use super::{PIECES, each_chunk, round_up};
use crate::kernels::isa::{self, Rectangle, Tile};
use crate::kernels::matmul::{DEPTH_BLOCK, copy_array};
use std::ops::Range;

/// Where a filter reads along one axis of the padded source: place `t` is `first + t * step` from the pixel's own start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taps {
    pub(super) count: usize,
    pub(super) first: usize,
    pub(super) step: usize,
}

/// What is read for each pixel of a grid: the same places, relative to the pixel's own start, in each channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gather {
    pub(super) source: Padded,
    /// Channels read.
    pub(super) channels: usize,
    /// Places along rows and columns.
    pub(super) taps: (Taps, Taps),
    /// Source rows between neighbouring rows of the grid. Neighbouring columns are as far apart as the source's phases.
    pub(super) row_stride: usize,
    /// Rows and columns of pixels.
    pub(super) grid: (usize, usize),
}

/// The widest panel of any set, in numbers.
const WIDEST: usize = 32;

/// Panels packed at a time: a channel's neighbouring pixels are read while they are in the cache.
pub(super) const TOGETHER: usize = 4;

impl Gather {
    /// Pixels of one image.
    pub(super) fn pixels(&self) -> usize {
        self.grid.0 * self.grid.1
    }

    /// Numbers read for a pixel in one channel.
    pub(super) fn taps(&self) -> usize {
        self.taps.0.count * self.taps.1.count
    }

    /// Numbers read for a pixel.
    pub(super) fn depth(&self) -> usize {
        self.channels * self.taps()
    }

    /// Where pixel `(0, 0)` reads for place `k` of its depth.
    #[inline(always)]
    pub(super) fn offset(&self, k: usize) -> usize {
        let (rows, columns) = self.taps;
        let (channel, tap) = (k / self.taps(), k % self.taps());
        let (i, j) = (tap / columns.count, tap % columns.count);
        channel * self.source.plane()
            + self.source.line(rows.first + i * rows.step)
            + self.source.column(columns.first + j * columns.step)
    }

    /// Numbers that [`Gather::pack`] may write for a panel of `width` pixels and `depth`.
    pub(super) fn panel(width: usize, depth: usize) -> usize {
        (depth + 1) * width
    }

    /// Writes what `pixels` (at most [`TOGETHER`] panels of `width`; across images `image` numbers apart) read at `depths`
    /// into `panel[k * width + pixel]`, panel after panel. Missing pixels get any numbers.
    pub(super) fn pack(
        &self,
        source: &[f32],
        image: usize,
        pixels: Range<usize>,
        depths: Range<usize>,
        width: usize,
        panels: &mut [f32],
    ) {
        pack_panels(self, source, image, pixels, depths, width, panels);
    }

    /// `out = weights · windows` for the pixels `block` (counted through all images of `source`), where `weights` are
    /// packed by the tile's rows over the whole depth. `out` gets `rows` rows `pitch` apart, from column `first` on, and has room
    /// for whole tiles on both axes. `right` holds [`Gather::right_len`] numbers.
    pub(super) fn multiply(
        &self,
        tile: &Tile,
        source: &[f32],
        image: usize,
        block: Range<usize>,
        weights: &[f32],
        right: &mut [f32],
        (out, rows): (&mut [f32], usize),
        (pitch, first): (usize, usize),
        parallel: bool,
    ) {
        let depth = self.depth();
        let panels = block.len().div_ceil(tile.columns);
        if parallel && panels >= PIECES {
            let out = Rectangle::new(&mut out[..rows * pitch], pitch).split_columns(first).1;
            return self.multiply_columns(tile, source, image, block, weights, right, out, panels.div_ceil(PIECES));
        }
        for k in (0..depth).step_by(DEPTH_BLOCK) {
            let depths = k..depth.min(k + DEPTH_BLOCK);
            let panel_len = Self::panel(tile.columns, depths.len());
            let right = &mut right[..panels * panel_len];
            each_chunk(parallel, right, TOGETHER * panel_len, |i, panels| {
                let start = block.start + i * TOGETHER * tile.columns;
                let pixels = start..block.end.min(start + TOGETHER * tile.columns);
                self.pack(source, image, pixels, depths.clone(), tile.columns, panels);
            });
            let side = Side { data: &right[..], width: tile.columns, pitch: panel_len };
            let left = Side { data: &weights[k * tile.rows..], width: tile.rows, pitch: depth * tile.rows };
            multiply(tile, depths.len(), left, side, (rows, panels), out, (pitch, first), k > 0, parallel);
        }
    }

    /// The same halved among the threads, down to `share` panels: each packs its own and multiplies them while they are in
    /// its caches.
    fn multiply_columns(
        &self,
        tile: &Tile,
        source: &[f32],
        image: usize,
        pixels: Range<usize>,
        weights: &[f32],
        right: &mut [f32],
        mut out: Rectangle<'_>,
        share: usize,
    ) {
        let (depth, panels) = (self.depth(), pixels.len().div_ceil(tile.columns));
        let shares = panels.div_ceil(share);
        if shares > 1 {
            let half = shares / 2 * share;
            let middle = pixels.start + half * tile.columns;
            let (here, there) = right.split_at_mut(half * Self::panel(tile.columns, depth.min(DEPTH_BLOCK)));
            let (left, rest) = out.split_columns(half * tile.columns);
            rayon::join(
                || self.multiply_columns(tile, source, image, pixels.start..middle, weights, here, left, share),
                || self.multiply_columns(tile, source, image, middle..pixels.end, weights, there, rest, share),
            );
            return;
        }
        for k in (0..depth).step_by(DEPTH_BLOCK) {
            let depths = k..depth.min(k + DEPTH_BLOCK);
            let panel_len = Self::panel(tile.columns, depths.len());
            for first in (0..panels).step_by(TOGETHER) {
                let start = pixels.start + first * tile.columns;
                let now = start..pixels.end.min(start + TOGETHER * tile.columns);
                self.pack(source, image, now, depths.clone(), tile.columns, &mut right[first * panel_len..]);
            }
            for row in (0..out.rows()).step_by(tile.rows) {
                let left = tile.panel(&weights[(row * depth + k * tile.rows)..][..depths.len() * tile.rows]);
                for (j, panel) in right.chunks_exact(panel_len).take(panels).enumerate() {
                    let place = (row, j * tile.columns);
                    tile.run_into(depths.len(), left, (panel, tile.columns), &mut out, place, k > 0);
                }
            }
        }
    }

    /// Numbers that [`Gather::multiply`] packs for a block of so many pixels.
    pub(super) fn right_len(&self, tile: &Tile, pixels: usize) -> usize {
        pixels.div_ceil(tile.columns) * Self::panel(tile.columns, self.depth().min(DEPTH_BLOCK))
    }
}

/// A side of a product: packed panels `width` wide, `pitch` apart.
#[derive(Clone, Copy)]
pub(super) struct Side<'a> {
    pub(super) data: &'a [f32],
    pub(super) width: usize,
    pub(super) pitch: usize,
}

/// Rows of the left side that stay in the L2 cache while the right panels pass.
const ROW_BLOCK: usize = 192;

/// `out (+)= left · right` for panels of so much depth, `panels` of them on the right, and `rows` rows; `out` has room for
/// whole tiles, its rows `pitch` apart, of which those from column `first` on are written.
pub(super) fn multiply(
    tile: &Tile,
    depth: usize,
    left: Side<'_>,
    right: Side<'_>,
    (rows, panels): (usize, usize),
    out: &mut [f32],
    (pitch, first): (usize, usize),
    accumulate: bool,
    parallel: bool,
) {
    let share = if parallel { rows.div_ceil(8) } else { rows };
    let block = round_up(share.clamp(1, ROW_BLOCK), tile.rows);
    each_chunk(parallel, out, block * pitch, |i, out| {
        let (left_pitch, left) = (left.pitch, &left.data[i * block / tile.rows * left.pitch..]);
        for j in 0..panels {
            let panel = &right.data[j * right.pitch..][..depth * right.width];
            for (p, out) in out.chunks_exact_mut(tile.rows * pitch).enumerate() {
                let left = &left[p * left_pitch..][..depth * tile.rows];
                let rows = (rows - i * block - p * tile.rows).min(tile.rows);
                if right.width == tile.columns {
                    let out = (&mut out[first + j * tile.columns..], rows);
                    tile.run(depth, tile.panel(left), panel, out, pitch, accumulate);
                } else {
                    let out = &mut Rectangle::new(&mut out[..rows * pitch], pitch);
                    let place = (0, first + j * right.width);
                    tile.run_into(depth, tile.panel(left), (panel, right.width), out, place, accumulate);
                }
            }
        }
    });
}

#[inline(always)]
fn pack_panels_body(
    g: &Gather,
    source: &[f32],
    image: usize,
    pixels: Range<usize>,
    depths: Range<usize>,
    width: usize,
    panels: &mut [f32],
) {
    match width {
        4 => pack_width::<4>(g, source, image, pixels, depths, panels),
        6 => pack_width::<6>(g, source, image, pixels, depths, panels),
        8 => pack_width::<8>(g, source, image, pixels, depths, panels),
        12 => pack_width::<12>(g, source, image, pixels, depths, panels),
        16 => pack_width::<16>(g, source, image, pixels, depths, panels),
        _ => pack_width::<WIDEST>(g, source, image, pixels, depths, panels),
    }
}

isa::vectorized!(
    fn pack_panels(
        g: &Gather,
        source: &[f32],
        image: usize,
        pixels: Range<usize>,
        depths: Range<usize>,
        width: usize,
        panels: &mut [f32],
    ) = pack_panels_body
);

#[inline(always)]
fn pack_width<const W: usize>(
    g: &Gather,
    source: &[f32],
    image: usize,
    pixels: Range<usize>,
    depths: Range<usize>,
    panels: &mut [f32],
) {
    let panel_len = Gather::panel(W, depths.len());
    // Runs of neighbouring pixels within a panel: where each starts in the source and in the panels.
    let mut runs = [(0usize, 0usize); TOGETHER * WIDEST];
    let (mut count, mut pixel) = (0, 0);
    let (mut n, at) = (pixels.start / g.pixels(), pixels.start % g.pixels());
    let (mut y, mut x) = (at / g.grid.1, at % g.grid.1);
    while pixel < pixels.len() {
        let place = pixel / W * panel_len + pixel % W;
        runs[count] = (n * image + y * g.row_stride * g.source.row() + x, place);
        count += 1;
        let step = (g.grid.1 - x).min(W - pixel % W);
        (pixel, x) = (pixel + step, x + step);
        if x == g.grid.1 {
            (x, y) = (0, y + 1);
            if y == g.grid.0 {
                (y, n) = (0, n + 1);
            }
        }
    }
    let runs = &runs[..count];
    let mut walk = Walk::new(g, depths.start);
    for k in 0..depths.len() {
        let source = &source[walk.next()..];
        let panels = &mut panels[k * W..];
        // Each run is copied a whole panel wide: the next run, or the next depth, overwrites what is too much.
        for &(start, at) in runs {
            let Some(target) = panels.get_mut(at..).and_then(|t| t.first_chunk_mut::<W>()) else { continue };
            match source.get(start..).and_then(|s| s.first_chunk::<W>()) {
                Some(whole) => copy_array(target, whole),
                None => {
                    let rest = source.get(start..).unwrap_or_default();
                    target.iter_mut().zip(rest).for_each(|(t, s)| *t = *s);
                }
            }
        }
    }
}

/// [`Gather::offset`] for one place after the other.
pub(super) struct Walk<'a> {
    g: &'a Gather,
    channel: usize,
    row: usize,
    i: usize,
    j: usize,
}

impl<'a> Walk<'a> {
    #[inline(always)]
    pub(super) fn new(g: &'a Gather, k: usize) -> Self {
        let (rows, columns) = g.taps;
        let i = k / columns.count % rows.count;
        let channel = k / g.taps() * g.source.plane();
        Self { g, channel, row: g.source.line(rows.first + i * rows.step), i, j: k % columns.count }
    }

    #[inline(always)]
    pub(super) fn next(&mut self) -> usize {
        let (rows, columns) = self.g.taps;
        let offset = self.channel + self.row + self.g.source.column(columns.first + self.j * columns.step);
        self.j += 1;
        if self.j == columns.count {
            (self.j, self.i) = (0, self.i + 1);
            if self.i == rows.count {
                self.i = 0;
                self.channel += self.g.source.plane();
            }
            self.row = self.g.source.line(rows.first + self.i * rows.step);
        }
        offset
    }
}
