//! A convolution that packs no windows: each weight multiplies the padded map shifted by its own place.
//!
//! Counted through the rows of the padded map, the outputs lie in one line, and what place `k` of a filter multiplies is
//! the same line further on. So a block of outputs reads the map where it lies, at the price of a few outputs in the
//! padding that nobody wants. Rows share their padding: the zeros before a row are those after the one above. At a stride S the padded map
//! falls into S x S maps of every S-th row and column, and a place of a filter reads one of them.

use super::forward::{Finish, Part, windows};
use super::gather::{Gather, Walk};
use super::geometry::Geometry;
use super::input::{one_phase, pad_gradient};
use super::weights::OutputGradient;
use super::{Cut, PIXELS, Pass, round_up, whole_lines};
use crate::kernels::isa::shifted::{Offsets, WIDEST};
use crate::kernels::matmul::packed_len;
use crate::kernels::{isa, pooling};
use rayon::prelude::*;
use std::ops::Range;

/// Places in a line of outputs that are finished while they are in the cache, unless whole maps are pooled.
const BAND: usize = 2048;

/// One direction of a convolution: what is read, and what comes out.
struct Direction {
    gather: Gather,
    filters: usize,
}

impl Direction {
    fn new(g: &Geometry, pass: Pass) -> Self {
        let (gather, filters) = match pass {
            Pass::Forward => (windows(g), g.filters()),
            Pass::BackwardInput => (one_phase(g), g.input.channels),
        };
        let strided = pass == Pass::Forward && g.window.stride != (1, 1);
        if strided {
            let source = gather.source.sorting_rows(g.window.stride.0);
            return Self { gather: Gather { source, ..gather }, filters };
        }
        // Padding wider than the filter's reach yields outputs of zeros alone: rows of them may not overlap.
        let shared = gather.source.sharing_padding();
        let source = if shared.row() >= gather.grid.1 { shared } else { gather.source };
        Self { gather: Gather { source, ..gather }, filters }
    }

    /// Places from the first of a few rows of outputs to their last.
    fn line(&self, rows: usize) -> usize {
        (rows - 1) * self.gather.source.row() + self.gather.grid.1
    }

    /// Rows of outputs that are computed together.
    fn band(&self, whole: bool) -> usize {
        let rows = self.gather.grid.0;
        if whole { rows } else { rows.min((BAND / self.gather.source.row()).max(1)) }
    }

    /// Outputs among what is computed for them, in registers.
    fn useful(&self) -> f64 {
        let (lanes, pixels) = (isa::tile().shifted.lanes, self.gather.pixels());
        pixels as f64 / round_up(self.line(self.gather.grid.0), lanes) as f64
    }
}

/// Whether `pass` can go this way, with not too many places in vain.
pub(super) fn fits(g: &Geometry, pass: Pass) -> bool {
    let strided = g.window.stride != (1, 1);
    if g.groups != 1 || strided && (pass == Pass::BackwardInput || g.input.channels > STRIDED_CHANNELS) {
        return false;
    }
    let d = Direction::new(g, pass);
    let lanes = isa::tile().shifted.lanes;
    // No band may be shorter than a register.
    let long = d.gather.grid.1 >= lanes || d.band(false) == d.gather.grid.0 && d.line(d.gather.grid.0) >= lanes;
    long && d.useful() >= USEFUL
}

/// Channels above which maps at a stride, S x S of them for each, are better off packed.
const STRIDED_CHANNELS: usize = 16;

/// The least share of useful outputs.
const USEFUL: f64 = 0.7;

/// Numbers that [`prepare`](super::prepare) writes: panels of the micro-kernel's rows over the whole depth.
pub(super) fn prepared_len(g: &Geometry, pass: Pass) -> usize {
    let d = Direction::new(g, pass);
    packed_len(d.filters, d.gather.depth(), isa::tile().shifted.rows)
}

/// A piece's buffers.
struct Lens {
    padded: usize,
    /// Gradients of one image's own outputs, where they are worked out.
    maps: usize,
    offsets: usize,
    /// Sums of a panel of filters, and how many panels have a place for theirs.
    sums: usize,
    panels: usize,
}

impl Lens {
    fn new(d: &Direction, maps: usize, whole: bool, parallel: bool) -> Self {
        let rows = isa::tile().shifted.rows;
        let source = &d.gather.source;
        Self {
            padded: source.copies(d.gather.channels),
            maps: whole_lines(maps),
            offsets: whole_lines(d.gather.depth()),
            sums: rows * round_up(d.line(d.band(whole)), isa::tile().shifted.lanes),
            panels: if parallel { d.filters.div_ceil(rows) } else { 1 },
        }
    }

    fn total(&self) -> usize {
        self.padded + self.maps + self.offsets + self.sums * self.panels
    }
}

/// How a batch is cut, and the numbers that a piece needs.
fn cut(d: &Direction, batch: usize, maps: usize, whole: bool) -> (Cut, usize) {
    let cut = Cut::new(batch, usize::MAX, PIXELS, |_| Lens::new(d, maps, whole, false).total());
    (cut, Lens::new(d, maps, whole, cut.parallel).total())
}

pub(super) fn forward_cut(g: &Geometry, batch: usize, pooled: bool) -> (Cut, usize) {
    cut(&Direction::new(g, Pass::Forward), batch, 0, pooled)
}

pub(super) fn input_cut(g: &Geometry, batch: usize) -> (Cut, usize) {
    cut(&Direction::new(g, Pass::BackwardInput), batch, g.output.len(), false)
}

/// Where each place of a filter reads, from the first output on.
fn write_offsets(gather: &Gather, offsets: &mut [u32]) {
    let mut walk = Walk::new(gather, 0);
    offsets.iter_mut().for_each(|offset| *offset = walk.next() as u32);
}

/// Computes the maps of one image from its padded channels. `finish(f, rows, sums, y, winner)` makes of the sums of those rows of
/// filter `f` what belongs in its map `y`; sums of rows lie as far apart as the source's rows.
fn convolve(
    d: &Direction,
    lens: &Lens,
    (whole, parallel): (bool, bool),
    source: &[f32],
    prepared: &[f32],
    offsets: Offsets<'_>,
    sums: &mut [f32],
    (y, winner): (&mut [f32], Option<&mut [u32]>),
    finish: impl Fn(usize, Range<usize>, &mut [f32], &mut [f32], Option<&mut [u32]>) + Sync,
) {
    let tile = &isa::tile().shifted;
    let (height, depth, map) = (d.gather.grid.0, offsets.len(), y.len() / d.filters);
    let (band, pitch) = (d.band(whole), lens.sums / tile.rows);
    let panel = |p: usize, sums: &mut [f32], y: &mut [f32], mut winner: Option<&mut [u32]>| {
        let weights = &prepared[p * depth * tile.rows..][..depth * tile.rows];
        for first in (0..height).step_by(band) {
            let rows = first..height.min(first + band);
            let (start, line) = (first * d.gather.source.row(), d.line(rows.len()));
            let mut at = 0;
            while at < line {
                let wide = (line - at).div_ceil(tile.lanes).min(line / tile.lanes).min(WIDEST);
                // A last block that would reach beyond the line begins earlier: the same sums again.
                at = at.min(line - wide * tile.lanes);
                tile.run(weights, &source[start + at..], offsets, wide, &mut sums[at..], pitch);
                at += wide * tile.lanes;
            }
            for (i, y) in y.chunks_exact_mut(map).enumerate() {
                let winner = winner.as_deref_mut().map(|w| &mut w[i * map..][..map]);
                finish(p * tile.rows + i, rows.clone(), &mut sums[i * pitch..][..line], y, winner);
            }
        }
    };
    let share = tile.rows * map;
    match winner {
        Some(winner) if parallel => {
            let work = y.par_chunks_mut(share).zip(sums.par_chunks_mut(lens.sums)).zip(winner.par_chunks_mut(share));
            work.enumerate().for_each(|(p, ((y, sums), winner))| panel(p, sums, y, Some(winner)));
        }
        Some(winner) => {
            let work = y.chunks_mut(share).zip(winner.chunks_mut(share)).enumerate();
            work.for_each(|(p, (y, winner))| panel(p, sums, y, Some(winner)));
        }
        None if parallel => {
            let work = y.par_chunks_mut(share).zip(sums.par_chunks_mut(lens.sums)).enumerate();
            work.for_each(|(p, (y, sums))| panel(p, sums, y, None));
        }
        None => y.chunks_mut(share).enumerate().for_each(|(p, y)| panel(p, sums, y, None)),
    }
}

/// Finishes rows of `width` sums, `pitch` apart, the first of them row `first` of the map `y`.
#[inline(always)]
fn finish_rows_body(finish: Finish<'_>, sums: &[f32], pitch: usize, first: usize, width: usize, y: &mut [f32]) {
    for (row, sums) in sums.chunks(pitch).enumerate() {
        let at = (first + row) * width;
        finish.run(at, &sums[..width], &mut y[at..][..width]);
    }
}

isa::vectorized!(
    fn finish_rows(finish: Finish<'_>, sums: &[f32], pitch: usize, first: usize, width: usize, y: &mut [f32])
        = finish_rows_body
);

/// Brings rows together, after adding what is added before a pooling.
#[inline(always)]
fn close_up_body(before: Option<(f32, &[f32])>, sums: &mut [f32], pitch: usize, width: usize) {
    let rows = sums.len().div_ceil(pitch);
    for row in 1..rows {
        sums.copy_within(row * pitch..row * pitch + width, row * width);
    }
    if let Some((bias, residual)) = before {
        sums[..rows * width].iter_mut().zip(residual).for_each(|(s, r)| *s += bias + r);
    }
}

isa::vectorized!(
    fn close_up(before: Option<(f32, &[f32])>, sums: &mut [f32], pitch: usize, width: usize) = close_up_body
);

pub(super) fn forward(
    part: &Part<'_>,
    x: &[f32],
    prepared: &[f32],
    y: &mut [f32],
    mut winner: Option<&mut [u32]>,
    workspace: &mut [f32],
) {
    let Part { g, cut, addends, .. } = *part;
    let d = Direction::new(g, Pass::Forward);
    let lens = Lens::new(&d, 0, part.pool.is_some(), cut.parallel);
    let (padded, workspace) = workspace.split_at_mut(lens.padded);
    let (offsets, sums) = workspace.split_at_mut(lens.offsets);
    let offsets: &mut [u32] = bytemuck::cast_slice_mut(&mut offsets[..d.gather.depth()]);
    write_offsets(&d.gather, offsets);
    let offsets = Offsets::new(offsets);
    let (pitch, width) = (d.gather.source.row(), d.gather.grid.1);
    let y_len = part.pool.map_or(g.output, |pool| pool.output).len();
    for (n, (x, y)) in x.chunks_exact(g.input.len()).zip(y.chunks_exact_mut(y_len)).enumerate() {
        let source = part.pad(&d.gather.source, x, padded);
        let residual = |f: usize| addends.residual_map(g, part.first + n, f);
        let winner = winner.as_deref_mut().map(|w| &mut w[n * y_len..][..y_len]);
        let how = (part.pool.is_some(), cut.parallel);
        let finish = |f: usize, rows: Range<usize>, sums: &mut [f32], y: &mut [f32], winner: Option<&mut [u32]>| {
            match &part.pool {
                None => {
                    let finish = Finish::Outputs { bias: addends.bias(f), residual: residual(f), relu: addends.relu };
                    finish_rows(finish, sums, pitch, rows.start, width, y);
                }
                Some(pool) => pool_sums(part, pool, (f, residual(f)), (sums, pitch), y, winner),
            }
        };
        convolve(&d, &lens, how, source, prepared, offsets, sums, (y, winner), finish);
    }
}

fn pool_sums(
    part: &Part<'_>,
    pool: &pooling::Geometry,
    (f, residual): (usize, Option<&[f32]>),
    (sums, pitch): (&mut [f32], usize),
    y: &mut [f32],
    winner: Option<&mut [u32]>,
) {
    close_up(residual.map(|r| (part.addends.bias(f), r)), sums, pitch, part.g.output.width);
    part.pool_map(pool, f, &sums[..part.g.pixels()], y, winner);
}

pub(super) fn backward_input(
    g: &Geometry,
    cut: Cut,
    first: usize,
    prepared: &[f32],
    dy: OutputGradient<'_>,
    dx: &mut [f32],
    accumulate: bool,
    workspace: &mut [f32],
) {
    let d = Direction::new(g, Pass::BackwardInput);
    let lens = Lens::new(&d, g.output.len(), false, cut.parallel);
    let (padded, workspace) = workspace.split_at_mut(lens.padded);
    let (maps, workspace) = workspace.split_at_mut(lens.maps);
    let (offsets, sums) = workspace.split_at_mut(lens.offsets);
    let offsets: &mut [u32] = bytemuck::cast_slice_mut(&mut offsets[..d.gather.depth()]);
    write_offsets(&d.gather, offsets);
    let offsets = Offsets::new(offsets);
    let (pitch, width) = (d.gather.source.row(), d.gather.grid.1);
    let finish = if accumulate { Finish::Add } else { Finish::Write };
    for (n, dx) in dx.chunks_exact_mut(g.input.len()).enumerate() {
        let source = pad_gradient(g, cut.parallel, &d.gather.source, &dy, (first + n, 1), maps, padded);
        let finish = |_: usize, rows: Range<usize>, sums: &mut [f32], dx: &mut [f32], _: Option<&mut [u32]>| {
            finish_rows(finish, sums, pitch, rows.start, width, dx);
        };
        convolve(&d, &lens, (false, cut.parallel), source, prepared, offsets, sums, (dx, None), finish);
    }
}
