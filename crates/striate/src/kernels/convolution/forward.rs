//! The forward pass: cutting the batch, and what happens to outputs while they are in the cache.

use super::gather::{Gather, Taps};
use super::geometry::Geometry;
use super::padded::Padded;
use super::{
    Cut, Method, PIXELS, Pass, depthwise, direct, each_chunk, in_turn, method, round_up, shifted, turned, whole_lines,
    winograd,
};
use crate::kernels::matmul::{copy_short, packed_len};
use crate::kernels::{elementwise, isa, pooling};
use rayon::prelude::*;
use std::ops::Range;

/// What happens to a block of outputs right after the convolution, while it is in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Epilogue {
    /// Apply ReLU.
    pub(crate) relu: bool,
    /// Then keep only each pooling window's largest number.
    pub(crate) pool: Option<pooling::Geometry>,
    /// Before both, add another array of the output's shape.
    pub(crate) residual: bool,
}

impl Epilogue {
    /// Bias only.
    pub(crate) const NONE: Epilogue = Epilogue { relu: false, pool: None, residual: false };
}

/// What is added to a convolution's sums.
#[derive(Clone, Copy)]
pub(super) struct Addends<'a> {
    /// A number a filter.
    pub(super) bias: Option<&'a [f32]>,
    /// A number an output (before any pooling).
    pub(super) residual: Option<&'a [f32]>,
    pub(super) relu: bool,
}

impl<'a> Addends<'a> {
    pub(super) fn bias(&self, filter: usize) -> f32 {
        self.bias.map_or(0.0, |b| b[filter])
    }

    /// What is added to the map of filter `f` of image `n` of the batch.
    #[inline]
    pub(super) fn residual_map(&self, g: &Geometry, n: usize, f: usize) -> Option<&'a [f32]> {
        self.residual.map(|r| &r[(n * g.filters() + f) * g.pixels()..][..g.pixels()])
    }

    /// Finishes the sums of the pixels from `first` on of filter `f` of image `n` of the batch.
    #[inline]
    pub(super) fn finish(&self, g: &Geometry, n: usize, f: usize, first: usize, sums: &[f32], y: &mut [f32]) {
        let residual = self.residual_map(g, n, f).map(|r| &r[first..][..y.len()]);
        finish_row(sums, self.bias(f), residual, self.relu, y);
    }

    /// The same for all pixels of a map, in place.
    pub(super) fn finish_in_place(&self, g: &Geometry, n: usize, f: usize, map: &mut [f32]) {
        if self.bias.is_none() && self.residual.is_none() && !self.relu {
            return;
        }
        finish_map(self.bias(f), self.residual_map(g, n, f), self.relu, map);
    }
}

/// What becomes of a map's sums.
#[derive(Clone, Copy)]
pub(super) enum Finish<'a> {
    /// They get what is added to them, the residual from a whole map.
    Outputs { bias: f32, residual: Option<&'a [f32]>, relu: bool },
    /// They are added to what is there.
    Add,
    /// They are it.
    Write,
}

impl Finish<'_> {
    /// Finishes the sums of the pixels from `at` on, whose place is `y`.
    #[inline(always)]
    pub(super) fn run(self, at: usize, sums: &[f32], y: &mut [f32]) {
        match self {
            Finish::Write => copy_short(y, sums),
            Finish::Add => y.iter_mut().zip(sums).for_each(|(y, s)| *y += s),
            Finish::Outputs { bias, residual, relu } => {
                finish_row_body(sums, bias, residual.map(|r| &r[at..][..y.len()]), relu, y);
            }
        }
    }
}

#[inline(always)]
fn finish_map_body(bias: f32, residual: Option<&[f32]>, relu: bool, map: &mut [f32]) {
    let act = |v: f32| if relu { elementwise::relu(v) } else { v };
    match residual {
        None => map.iter_mut().for_each(|y| *y = act(*y + bias)),
        Some(r) => map.iter_mut().zip(r).for_each(|(y, r)| *y = act(*y + bias + r)),
    }
}

isa::vectorized!(fn finish_map(bias: f32, residual: Option<&[f32]>, relu: bool, map: &mut [f32]) = finish_map_body);

#[inline(always)]
pub(super) fn finish_row_body(sums: &[f32], bias: f32, residual: Option<&[f32]>, relu: bool, y: &mut [f32]) {
    match y.len() {
        0..8 => finish_numbers(sums, bias, residual, relu, y),
        8..16 => finish_registers::<8>(sums, bias, residual, relu, y),
        _ => finish_registers::<16>(sums, bias, residual, relu, y),
    }
}

#[inline(always)]
fn finish_numbers(sums: &[f32], bias: f32, residual: Option<&[f32]>, relu: bool, y: &mut [f32]) {
    let act = |v: f32| if relu { elementwise::relu(v) } else { v };
    match residual {
        None => y.iter_mut().zip(sums).for_each(|(y, s)| *y = act(s + bias)),
        Some(r) => y.iter_mut().zip(sums).zip(r).for_each(|((y, s), r)| *y = act(s + bias + r)),
    }
}

/// The same for at least `N` numbers: the last register begins earlier, rather than that its numbers are done one by one.
#[inline(always)]
fn finish_registers<const N: usize>(sums: &[f32], bias: f32, residual: Option<&[f32]>, relu: bool, y: &mut [f32]) {
    let len = y.len();
    for at in (0..len).step_by(N) {
        let at = at.min(len - N);
        let residual = residual.map(|r| &r[at..][..N]);
        finish_numbers(&sums[at..][..N], bias, residual, relu, &mut y[at..][..N]);
    }
}

isa::vectorized!(
    fn finish_row(sums: &[f32], bias: f32, residual: Option<&[f32]>, relu: bool, y: &mut [f32]) = finish_row_body
);

/// The windows of a forward pass, a group's channels at a time.
pub(super) fn windows(g: &Geometry) -> Gather {
    let (w, p) = (&g.window, &g.window.padding);
    let source = Padded::new((g.input.height, g.input.width), (p.top, p.left), (p.bottom, p.right), w.stride.1);
    let taps = (
        Taps { count: w.kernel.0, first: 0, step: w.dilation.0 },
        Taps { count: w.kernel.1, first: 0, step: w.dilation.1 },
    );
    let grid = (g.output.height, g.output.width);
    Gather { source, channels: g.group_channels(), taps, row_stride: w.stride.0, grid }
}

/// Pixels of a block whose panels several threads share.
const PARALLEL_PIXELS: usize = 16 * PIXELS;

/// A piece's buffers for so many images side by side.
struct Lens {
    padded: usize,
    right: usize,
    /// Rows that a group's filters take, in whole tiles.
    group_rows: usize,
    /// Numbers from one filter's sums to the next.
    pitch: usize,
    out: usize,
    /// Pixels worked on at once.
    block: usize,
}

impl Lens {
    fn new(g: &Geometry, gather: &Gather, together: usize, (whole, parallel): (bool, bool)) -> Self {
        let tile = isa::tile();
        let all = together * g.pixels();
        let at_once = if parallel { PARALLEL_PIXELS } else { PIXELS };
        let block = if all <= at_once { all } else { round_up(at_once, tile.columns).min(all) };
        let padded = gather.source.copies(together * g.input.channels);
        let group_rows = round_up(g.group_filters(), tile.rows);
        // The sums of whole maps are kept until they are pooled.
        let pitch = round_up(if whole { all } else { block }, tile.columns);
        let right = gather.right_len(tile, block);
        Self { padded, right: whole_lines(right), group_rows, pitch, out: g.groups * group_rows * pitch, block }
    }

    fn total(&self) -> usize {
        self.padded + self.right + self.out
    }
}

/// Numbers of workspace [`forward`] needs.
pub(crate) fn forward_workspace(g: &Geometry, batch: usize, epilogue: &Epilogue) -> usize {
    if let Some(direct) = direct(g, batch, epilogue) {
        return direct.workspace(batch);
    }
    let (cut, len) = cut(g, method(g, batch, Pass::Forward), batch, epilogue.pool.is_some());
    cut.workspace(len)
}

/// How a batch is cut, and the numbers that a piece needs.
fn cut(g: &Geometry, how: Method, batch: usize, pooled: bool) -> (Cut, usize) {
    match how {
        Method::Depthwise => depthwise::forward_cut(g, batch, pooled),
        Method::Shifted => shifted::forward_cut(g, batch, pooled),
        Method::Turned => turned::forward_cut(g),
        Method::Winograd(form) => winograd::forward_cut(g, form, batch, pooled),
        Method::ImplicitGemm => {
            let len = |together, parallel| Lens::new(g, &windows(g), together, (pooled, parallel)).total();
            let cut = Cut::new(batch, g.pixels(), PIXELS, |together| len(together, false));
            (cut, len(cut.together, cut.parallel))
        }
    }
}

/// `y = epilogue(convolution(x, w) + b + residual)` for a batch, from weights that [`prepare`](super::prepare) made for
/// [`Pass::Forward`](super::Pass::Forward); `residual` has the shape of the convolution's own output. With pooling, `winner`
/// (if given) gets each maximum's place.
pub(crate) fn forward(
    g: &Geometry,
    x: &[f32],
    prepared: &[f32],
    bias: Option<&[f32]>,
    residual: Option<&[f32]>,
    y: &mut [f32],
    winner: Option<&mut [u32]>,
    workspace: &mut [f32],
    epilogue: &Epilogue,
) {
    let batch = x.len() / g.input.len();
    if let Some(direct) = direct(g, batch, epilogue) {
        return direct.forward(x, prepared, bias.unwrap_or_default(), y, winner, workspace);
    }
    let how = method(g, batch, Pass::Forward);
    let (cut, len) = cut(g, how, batch, epilogue.pool.is_some());
    let addends = Addends { bias, residual, relu: epilogue.relu };
    let piece_len = cut.images * epilogue.pool.map_or(g.output, |pool| pool.output).len();
    let mut winners = winner.map(|winner| winner.chunks_mut(piece_len));
    let pieces = x.chunks(cut.images * g.input.len()).zip(y.chunks_mut(piece_len)).enumerate();
    let pieces = pieces.map(move |(i, (x, y))| (i, x, y, winners.as_mut().and_then(Iterator::next)));
    in_turn(workspace, len, pieces, |(piece, x, y, winner), workspace| {
        let part = Part { g, cut, first: piece * cut.images, addends, pool: epilogue.pool };
        match how {
            Method::Depthwise => depthwise::forward(&part, x, prepared, y, winner, workspace),
            Method::Shifted => shifted::forward(&part, x, prepared, y, winner, workspace),
            Method::Turned => turned::forward(&part, x, prepared, y, winner, workspace),
            Method::Winograd(form) => winograd::forward(&part, form, x, prepared, y, winner, workspace),
            Method::ImplicitGemm => piece_forward(&part, x, prepared, y, winner, workspace),
        }
    });
}

/// A piece of a batch under way.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    pub(super) g: &'a Geometry,
    pub(super) cut: Cut,
    /// Its first image in the batch.
    pub(super) first: usize,
    pub(super) addends: Addends<'a>,
    pub(super) pool: Option<pooling::Geometry>,
}

impl Part<'_> {
    /// Writes the padded copies of `x`'s channels, unless they are the channels themselves.
    pub(super) fn pad<'b>(&self, source: &Padded, x: &'b [f32], copy: &'b mut [f32]) -> &'b [f32] {
        if source.is_plain() {
            return x;
        }
        let area = self.g.input.area();
        let copy = &mut copy[..x.len() / area * source.plane()];
        each_chunk(self.cut.parallel, copy, source.plane(), |i, copy| source.copy(&x[i * area..][..area], copy));
        copy
    }

    /// Pools one map of filter `f` into `y`. A residual and with it the bias are in the map already; else the bias comes after.
    pub(super) fn pool_map(
        &self,
        pool: &pooling::Geometry,
        f: usize,
        map: &[f32],
        y: &mut [f32],
        winner: Option<&mut [u32]>,
    ) {
        pool_plane(pool, 0, self.addends, f, map, y, winner);
    }

    /// Pools finished maps into the rows `rows` of those of `y`: `map(n, f)` gives the sums of filter `f` of the `n`-th image
    /// from `first` on, to which the bias is still to be added.
    pub(super) fn pool<'b>(
        &self,
        pool: &pooling::Geometry,
        rows: Range<usize>,
        y: &mut [f32],
        winner: Option<&mut [u32]>,
        map: impl Fn(usize, usize) -> &'b [f32] + Sync,
    ) {
        let (area, filters) = (pool.output.area(), self.g.filters());
        let places = rows.start * pool.output.width..rows.end * pool.output.width;
        let finish = |i: usize, y: &mut [f32], winner: Option<&mut [u32]>| {
            let (map, winner) = (map(i / filters, i % filters), winner.map(|winner| &mut winner[places.clone()]));
            pool_plane(pool, rows.start, self.addends, i % filters, map, &mut y[places.clone()], winner);
        };
        match winner {
            Some(winner) if self.cut.parallel => y
                .par_chunks_mut(area)
                .zip(winner.par_chunks_mut(area))
                .enumerate()
                .for_each(|(i, (y, winner))| finish(i, y, Some(winner))),
            Some(winner) => {
                let planes = y.chunks_mut(area).zip(winner.chunks_mut(area)).enumerate();
                planes.for_each(|(i, (y, winner))| finish(i, y, Some(winner)));
            }
            None => each_chunk(self.cut.parallel, y, area, |i, y| finish(i, y, None)),
        }
    }
}

/// Pools one map into rows from `first` on; a bias and ReLU never change which number is largest, so they come after.
#[inline(always)]
fn pool_plane_body(
    pool: &pooling::Geometry,
    first: usize,
    addends: Addends<'_>,
    f: usize,
    map: &[f32],
    y: &mut [f32],
    winner: Option<&mut [u32]>,
) {
    pooling::max_plane_body(pool, first, map, y, winner);
    // With a residual the bias is in the map already.
    let bias = if addends.residual.is_some() { 0.0 } else { addends.bias(f) };
    y.iter_mut().for_each(|y| *y += bias);
    if addends.relu {
        elementwise::relu_in_place(y);
    }
}

isa::vectorized!(
    fn pool_plane(
        pool: &pooling::Geometry,
        first: usize,
        addends: Addends<'_>,
        f: usize,
        map: &[f32],
        y: &mut [f32],
        winner: Option<&mut [u32]>,
    ) = pool_plane_body
);

/// Implicit GEMM of a piece.
fn piece_forward(
    part: &Part<'_>,
    x: &[f32],
    prepared: &[f32],
    y: &mut [f32],
    mut winner: Option<&mut [u32]>,
    workspace: &mut [f32],
) {
    let Part { g, cut, .. } = *part;
    let tile = isa::tile();
    let gather = windows(g);
    let lens = Lens::new(g, &gather, cut.together, (part.pool.is_some(), cut.parallel));
    let (padded, workspace) = workspace.split_at_mut(lens.padded);
    let (right, out) = workspace.split_at_mut(lens.right);
    let out = &mut out[..lens.out];
    let y_len = part.pool.map_or(g.output, |pool| pool.output).len();
    let packed = packed_len(g.group_filters(), g.depth(), tile.rows);
    let image = g.input.channels * gather.source.plane();
    let images = x.chunks(cut.together * g.input.len()).zip(y.chunks_mut(cut.together * y_len));
    for (step, (x, y)) in images.enumerate() {
        let first = step * cut.together;
        let source = part.pad(&gather.source, x, padded);
        let all = x.len() / g.input.len() * g.pixels();
        let mut pooled = 0;
        for start in (0..all).step_by(lens.block) {
            let block = start..all.min(start + lens.block);
            let column = if part.pool.is_some() { start } else { 0 };
            let groups = out.chunks_exact_mut(lens.group_rows * lens.pitch).zip(prepared.chunks_exact(packed));
            for (group, (out, weights)) in groups.enumerate() {
                let source = &source[group * gather.channels * gather.source.plane()..];
                let (pixels, out) = (block.clone(), (out, g.group_filters()));
                gather.multiply(tile, source, image, pixels, weights, right, out, (lens.pitch, column), cut.parallel);
            }
            let row = |f: usize| (f / g.group_filters() * lens.group_rows + f % g.group_filters()) * lens.pitch;
            match &part.pool {
                None => finish_block(part, first, block, y, |n, f| &out[row(f) + n..]),
                Some(pool) => {
                    // Rows are pooled as soon as they are there, while they are in the cache: of several images all at once.
                    let done = if block.end == all { g.output.height } else { block.end / g.output.width };
                    if part.addends.residual.is_some() && block.end < all {
                        continue;
                    }
                    if part.addends.residual.is_some() {
                        add_residual(
                            part,
                            part.first + first,
                            lens.group_rows,
                            lens.pitch,
                            x.len() / g.input.len(),
                            out,
                        );
                    }
                    let winner = winner.as_deref_mut().map(|w| &mut w[first * y_len..][..y.len()]);
                    let rows = pooled..pool.rows_within(done);
                    pooled = rows.end;
                    part.pool(pool, rows, y, winner, |n, f| &out[row(f) + n * g.pixels()..][..g.pixels()]);
                }
            }
        }
    }
}

/// Finishes the outputs of `block` of the images whose outputs are `y`, the first of them the piece's `first`.
/// `sums(n, f)` gives a filter's sums from the block's `n`-th pixel on.
fn finish_block<'a>(
    part: &Part<'_>,
    first: usize,
    block: Range<usize>,
    y: &mut [f32],
    sums: impl Fn(usize, usize) -> &'a [f32] + Sync,
) {
    let (filters, pixels) = (part.g.filters(), part.g.pixels());
    each_chunk(part.cut.parallel, y, pixels, |i, y| {
        let (n, f) = (i / filters, i % filters);
        let from = block.start.max(n * pixels);
        let to = block.end.min((n + 1) * pixels);
        if from < to {
            let at = from - n * pixels;
            let y = &mut y[at..][..to - from];
            part.addends.finish(part.g, part.first + first + n, f, at, sums(from - block.start, f), y);
        }
    });
}

/// Adds bias and residual to whole maps that are still to be pooled.
fn add_residual(part: &Part<'_>, first: usize, group_rows: usize, pitch: usize, images: usize, out: &mut [f32]) {
    let g = part.g;
    let Some(residual) = part.addends.residual else { return };
    each_chunk(part.cut.parallel, out, pitch, |row, sums| {
        let (group, at) = (row / group_rows, row % group_rows);
        if at >= g.group_filters() {
            return;
        }
        let f = group * g.group_filters() + at;
        for (n, sums) in sums.chunks_exact_mut(g.pixels()).take(images).enumerate() {
            let residual = &residual[((first + n) * g.filters() + f) * g.pixels()..];
            isa::vectorize(|| {
                let bias = part.addends.bias(f);
                sums.iter_mut().zip(residual).for_each(|(s, r)| *s += bias + r);
            });
        }
    });
}
