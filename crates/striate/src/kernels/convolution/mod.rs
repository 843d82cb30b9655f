//! Convolution (sections 7.2 and 7.4) as a matrix product that never stores the im2col matrix: the windows of an image
//! are packed straight into the panels of the product ("implicit GEMM"), a piece that stays in the L1 cache at a time.
//!
//! With F = filters, K = channels·height·width of a filter and P = pixels of an output map, one image is
//! - forward: `y (F x P) = w (F x K) · windows (K x P)`,
//! - gradient of the weights: `dw (F x K) = dy (F x P) · windowsᵀ (P x K)`, summed over the images,
//! - gradient of the input: `windows' (K x P) = wᵀ (K x F) · dy (F x P)`, added back where the windows came from.

mod few;

use super::direct::DirectConvolution;
use super::isa::{self, Tile};
use super::matmul::{DEPTH_BLOCK, Matrix, Operand, copy_short, pack_all, pack_panel, pack_panels, packed_len};
use super::{elementwise, pooling};
use crate::shape::{Padding, Rounding, Shape, ShapeError, Window, checked_product};
use few::{few_len, few_weights};
use rayon::prelude::*;
use std::ops::Range;

/// Pieces that a batch's partial gradients are summed in: fixed, so that the sum does not depend on the threads.
const PIECES: usize = 8;

/// A convolution with every size fixed. With several groups it is as many convolutions side by side, each of them one
/// *unit*: a sample is a row of `groups` units, and all sizes are a unit's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) input: Shape,
    pub(crate) window: Window,
    pub(crate) output: Shape,
    pub(crate) groups: usize,
}

impl Geometry {
    /// For a whole sample and all filters.
    pub(crate) fn new(input: Shape, filters: usize, window: Window, groups: usize) -> Result<Self, ShapeError> {
        if input.is_empty() || filters == 0 {
            let found = vec![filters, input.channels, input.height, input.width];
            return Err(ShapeError::Empty { what: "the convolution (filters, channels, height, width)", found });
        }
        for (what, n) in [
            ("the groups of the convolution (channels)", input.channels),
            ("the groups of the convolution (filters)", filters),
        ] {
            if groups == 0 || n % groups != 0 {
                let found = format!("{groups} for {n}");
                return Err(ShapeError::Option {
                    what,
                    found,
                    expected: "a number that divides both channels and filters",
                });
            }
        }
        let (input, filters) = (Shape { channels: input.channels / groups, ..input }, filters / groups);
        if window.rounding == Rounding::Ceil {
            return Err(ShapeError::CeilConvolution);
        }
        let (height, width) = window.output((input.height, input.width))?;
        let output = Shape::new(filters, height, width);
        checked_product(&[filters, input.channels, window.kernel.0, window.kernel.1])?;
        checked_product(&[input.channels, window.kernel.0, window.kernel.1, height, width])?;
        output.checked_len(1)?;
        Ok(Self { input, window, output, groups })
    }

    /// Filters of a unit.
    pub(crate) fn filters(&self) -> usize {
        self.output.channels
    }

    /// One output sample.
    pub(crate) fn sample_output(&self) -> Shape {
        Shape { channels: self.output.channels * self.groups, ..self.output }
    }

    /// Weights of all groups.
    pub(crate) fn weights(&self) -> usize {
        self.groups * self.unit_weights()
    }

    /// Weights of one group.
    fn unit_weights(&self) -> usize {
        self.filters() * self.depth()
    }

    /// Weights of one filter.
    pub(crate) fn depth(&self) -> usize {
        self.input.channels * self.window.kernel.0 * self.window.kernel.1
    }

    fn pixels(&self) -> usize {
        self.output.area()
    }

    /// Channel, row and column in the filter of its `k`-th weight.
    #[inline(always)]
    fn place(&self, k: usize) -> (usize, usize, usize) {
        let (height, width) = self.window.kernel;
        (k / (height * width), k / width % height, k % width)
    }

    /// Where the run of output columns `columns` of output row `row` reads for the filter's place `(i, j)`: the input
    /// row, and the sub-range of `columns` that reads real pixels, not padding. `None` if the row is padding.
    #[inline(always)]
    fn reads(&self, row: usize, columns: Range<usize>, (i, j): (usize, usize)) -> Option<(usize, Range<usize>)> {
        let w = &self.window;
        let (i, j) = (i * w.dilation.0, j * w.dilation.1);
        let y = (row * w.stride.0 + i).checked_sub(w.padding.top).filter(|&y| y < self.input.height)?;
        // ow * S + j - P in 0..W  <=>  ow in ceil((P - j) / S) .. ceil((W + P - j) / S)
        let from = w.padding.left.saturating_sub(j).div_ceil(w.stride.1);
        let to = (self.input.width + w.padding.left).saturating_sub(j).div_ceil(w.stride.1);
        let (from, to) = (columns.start.max(from), columns.end.min(to));
        (from < to).then_some((y, from..to))
    }

    /// Cuts a range of output pixels into runs within one output row: offset in the range, row, columns.
    #[inline(always)]
    fn rows_of(&self, pixels: Range<usize>) -> impl Iterator<Item = (usize, usize, Range<usize>)> {
        let width = self.output.width;
        let mut next = pixels.start;
        std::iter::from_fn(
            #[inline(always)]
            move || {
                (next < pixels.end).then(|| {
                    let (offset, row, column) = (next - pixels.start, next / width, next % width);
                    let end = width.min(column + pixels.end - next);
                    next += end - column;
                    (offset, row, column..end)
                })
            },
        )
    }

    /// First input column that output column `column` reads at the filter's column `j`.
    #[inline(always)]
    fn input_column(&self, column: usize, j: usize) -> usize {
        column * self.window.stride.1 + j * self.window.dilation.1 - self.window.padding.left
    }
}

/// The windows of one image as the right side of the forward product: vectors are output pixels, depth is a filter's weights.
struct Windows<'a> {
    image: &'a [f32],
    geometry: &'a Geometry,
}

impl Operand for Windows<'_> {
    #[inline(always)]
    fn pack(&self, outer: Range<usize>, depth: Range<usize>, width: usize, panel: &mut [f32]) {
        let g = self.geometry;
        if outer.len() < width || g.window.padding != Padding::NONE {
            panel[..depth.len() * width].fill(0.0);
        }
        for (offset, row, columns) in g.rows_of(outer) {
            let (mut c, mut i, mut j) = g.place(depth.start);
            for target in panel.chunks_exact_mut(width).take(depth.len()) {
                if let Some((y, run)) = g.reads(row, columns.clone(), (i, j)) {
                    let source = &self.image[(c * g.input.height + y) * g.input.width..][..g.input.width];
                    let source = &source[g.input_column(run.start, j)..];
                    let target = &mut target[offset + run.start - columns.start..][..run.len()];
                    if g.window.stride.1 == 1 {
                        copy_short(target, &source[..target.len()]);
                    } else {
                        target.iter_mut().zip(source.iter().step_by(g.window.stride.1)).for_each(|(t, &s)| *t = s);
                    }
                }
                (c, i, j) = next_place(g, (c, i, j));
            }
        }
    }
}

/// The windows of one image as the right side of the weights' gradient: vectors are a filter's weights, depth is pixels.
struct WindowsTransposed<'a> {
    image: &'a [f32],
    geometry: &'a Geometry,
}

impl Operand for WindowsTransposed<'_> {
    #[inline(always)]
    fn pack(&self, outer: Range<usize>, depth: Range<usize>, width: usize, panel: &mut [f32]) {
        let g = self.geometry;
        if outer.len() < width || g.window.padding != Padding::NONE {
            panel[..depth.len() * width].fill(0.0);
        }
        for (o, k) in outer.enumerate() {
            let (c, i, j) = g.place(k);
            for (offset, row, columns) in g.rows_of(depth.clone()) {
                let Some((y, run)) = g.reads(row, columns.clone(), (i, j)) else { continue };
                let source = &self.image[(c * g.input.height + y) * g.input.width..][..g.input.width];
                let source = source[g.input_column(run.start, j)..].iter().step_by(g.window.stride.1);
                let first = (offset + run.start - columns.start) * width + o;
                let target = panel[first..].iter_mut().step_by(width).take(run.len());
                target.zip(source).for_each(|(t, &s)| *t = s);
            }
        }
    }
}

#[inline(always)]
fn next_place(g: &Geometry, (c, i, j): (usize, usize, usize)) -> (usize, usize, usize) {
    let (height, width) = g.window.kernel;
    match (j + 1 == width, i + 1 == height) {
        (false, _) => (c, i, j + 1),
        (true, false) => (c, i + 1, 0),
        (true, true) => (c + 1, 0, 0),
    }
}

/// A sum in sixteen lanes: fast, and the same on every instruction set.
#[inline(always)]
fn sum(values: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 16];
    let (chunks, rest) = values.as_chunks::<16>();
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(l, v)| *l += v);
    }
    lanes.iter().chain(rest).sum()
}

/// What happens to a block of outputs right after the convolution, while it is in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Epilogue {
    /// Apply ReLU.
    pub(crate) relu: bool,
    /// Then keep only each pooling window's largest number.
    pub(crate) pool: Option<pooling::Geometry>,
}

impl Epilogue {
    /// Bias only.
    pub(crate) const NONE: Epilogue = Epilogue { relu: false, pool: None };
}

fn images_a_piece(batch: usize, pieces: usize) -> usize {
    batch.div_ceil(pieces).max(1)
}

/// Rows of filters a task takes when there are fewer images than that would keep threads busy.
fn filter_group(g: &Geometry, batch: usize, tile: &Tile) -> usize {
    let groups = if batch >= PIECES { 1 } else { (PIECES / batch.max(1)).min(rayon::current_num_threads()) };
    g.filters().div_ceil(groups).next_multiple_of(tile.rows)
}

/// Forward tasks cut a batch finer than [`PIECES`]: each output is one task's own, so the cut does not show in the bits.
const FORWARD_PIECES: usize = 32;

fn forward_task_len(g: &Geometry, epilogue: &Epilogue, tile: &Tile) -> usize {
    let map = if epilogue.pool.is_some() { g.output.len() } else { 0 };
    g.depth().min(DEPTH_BLOCK) * tile.columns + map
}

/// Numbers of workspace [`forward`] needs.
pub(crate) fn forward_workspace(g: &Geometry, batch: usize, epilogue: &Epilogue) -> usize {
    if let Some(direct) = DirectConvolution::new(g, epilogue) {
        return direct.workspace(batch);
    }
    let tile = isa::tile();
    let tasks = (batch * g.groups).clamp(PIECES, FORWARD_PIECES);
    g.groups * packed_len(g.filters(), g.depth(), tile.rows) + tasks * forward_task_len(g, epilogue, tile)
}

/// `y = epilogue(convolution(x, w) + b)` for a batch; with pooling, `winner` (if given) gets each maximum's place.
pub(crate) fn forward(
    g: &Geometry,
    x: &[f32],
    w: &[f32],
    b: &[f32],
    y: &mut [f32],
    winner: Option<&mut [u32]>,
    workspace: &mut [f32],
    epilogue: &Epilogue,
) {
    if let Some(direct) = DirectConvolution::new(g, epilogue) {
        return direct.forward(x, w, b, y, winner, workspace);
    }
    let tile = isa::tile();
    let batch = x.len() / g.input.len();
    let packed_len = packed_len(g.filters(), g.depth(), tile.rows);
    let (packed, workspace) = workspace.split_at_mut(g.groups * packed_len);
    for (w, packed) in w.chunks_exact(g.unit_weights()).zip(packed.chunks_exact_mut(packed_len)) {
        pack_all(&Matrix::contiguous(w, g.depth()), g.filters(), g.depth(), tile.rows, packed);
    }
    let packed = &*packed;
    // Packed weights and biases of the `unit`-th unit of the batch.
    let learnt = |unit: usize| {
        let group = unit % g.groups;
        (&packed[group * packed_len..][..packed_len], b.get(group * g.filters()..).unwrap_or_default())
    };
    let task_len = forward_task_len(g, epilogue, tile);
    let images = images_a_piece(batch, FORWARD_PIECES);
    let x = x.par_chunks(images * g.input.len());
    match epilogue.pool {
        None => {
            let group = filter_group(g, batch, tile);
            let tasks = batch.clamp(PIECES, FORWARD_PIECES) / batch.div_ceil(images).max(1);
            let finish = |map: &mut [f32]| {
                if epilogue.relu {
                    elementwise::relu_in_place(map)
                }
            };
            x.zip(y.par_chunks_mut(images * g.output.len()))
                .zip(workspace.par_chunks_mut(tasks * task_len))
                .enumerate()
                .for_each(|(piece, ((x, y), workspace))| {
                    for (n, (x, y)) in x.chunks_exact(g.input.len()).zip(y.chunks_exact_mut(g.output.len())).enumerate()
                    {
                        let (packed, b) = learnt(piece * images + n);
                        let maps = y.par_chunks_mut(group * g.pixels()).zip(workspace.par_chunks_mut(task_len));
                        maps.enumerate().for_each(|(i, (maps, panel))| {
                            image_forward(g, tile, x, packed, b, i * group, maps, panel);
                            isa::vectorize(|| finish(maps));
                        });
                    }
                });
        }
        Some(pool) => {
            let outputs = y.par_chunks_mut(images * pool.output.len());
            let work = x.zip(outputs).zip(workspace.par_chunks_mut(task_len));
            let task =
                |piece: usize, x: &[f32], y: &mut [f32], mut winner: Option<&mut [u32]>, workspace: &mut [f32]| {
                    let (maps, panel) = workspace.split_at_mut(g.output.len());
                    for (n, (x, y)) in
                        x.chunks_exact(g.input.len()).zip(y.chunks_exact_mut(pool.output.len())).enumerate()
                    {
                        let (packed, b) = learnt(piece * images + n);
                        image_forward(g, tile, x, packed, b, 0, maps, panel);
                        let winner =
                            winner.as_deref_mut().map(|w| &mut w[n * pool.output.len()..][..pool.output.len()]);
                        pool_image(&pool, epilogue.relu, maps, y, winner);
                    }
                };
            match winner {
                Some(winner) => work
                    .zip(winner.par_chunks_mut(images * pool.output.len()))
                    .enumerate()
                    .for_each(|(i, (((x, y), workspace), winner))| task(i, x, y, Some(winner), workspace)),
                None => work.enumerate().for_each(|(i, ((x, y), workspace))| task(i, x, y, None, workspace)),
            }
        }
    }
}

/// Pools one image's maps, and applies ReLU to what remains: it never changes which number is largest.
#[inline(always)]
fn pool_image_body(pool: &pooling::Geometry, relu: bool, maps: &[f32], y: &mut [f32], winner: Option<&mut [u32]>) {
    let mut winner = winner;
    let (plane, pooled) = (pool.input.area(), pool.output.area());
    for (f, (map, y)) in maps.chunks_exact(plane).zip(y.chunks_exact_mut(pooled)).enumerate() {
        let winner = winner.as_deref_mut().map(|w| &mut w[f * pooled..][..pooled]);
        pooling::max_plane_body(pool, map, y, winner);
        if relu {
            elementwise::relu_in_place(y);
        }
    }
}

isa::vectorized!(
    fn pool_image(pool: &pooling::Geometry, relu: bool, maps: &[f32], y: &mut [f32], winner: Option<&mut [u32]>)
        = pool_image_body
);

/// One image's maps from filter `first` on: as many as `maps` holds.
fn image_forward(
    g: &Geometry,
    tile: &Tile,
    image: &[f32],
    packed: &[f32],
    b: &[f32],
    first: usize,
    maps: &mut [f32],
    panel: &mut [f32],
) {
    let (pixels, depth) = (g.pixels(), g.depth());
    let windows = Windows { image, geometry: g };
    for (f, map) in maps.chunks_exact_mut(pixels).enumerate() {
        // Without biases `b` is empty.
        map.fill(b.get(first + f).copied().unwrap_or(0.0));
    }
    let filters = maps.len() / pixels;
    let packed = &packed[first * depth..];
    for start in (0..pixels).step_by(tile.columns) {
        let columns = start..pixels.min(start + tile.columns);
        for k in (0..depth).step_by(DEPTH_BLOCK) {
            let depths = k..depth.min(k + DEPTH_BLOCK);
            pack_panel(&windows, columns.clone(), depths.clone(), tile.columns, panel);
            for f in (0..filters).step_by(tile.rows) {
                let left = &packed[f * depth..][depths.start * tile.rows..depths.end * tile.rows];
                let edge = (tile.rows.min(filters - f), columns.len());
                tile.run_edge(
                    depths.len(),
                    tile.panel(left),
                    panel,
                    &mut maps[f * pixels + start..],
                    pixels,
                    true,
                    edge,
                );
            }
        }
    }
}

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
    /// The gradient of image `n`'s convolution output, in `maps` if it had to be worked out.
    #[inline]
    fn image<'b>(&'b self, g: &Geometry, n: usize, maps: &'b mut [f32]) -> &'b [f32] {
        let len = self.pool.map_or(g.output.len(), |(pool, _)| pool.output.len());
        let range = n * len..(n + 1) * len;
        let dy = &self.dy[range.clone()];
        let y = self.y.map(|y| &y[range.clone()]);
        match (self.pool, y) {
            (None, None) => return dy,
            (None, Some(y)) => isa::vectorize(|| {
                maps.copy_from_slice(dy);
                elementwise::relu_gradient(maps, y);
            }),
            (Some((pool, winner)), y) => {
                let winner = &winner[range];
                maps.fill(0.0);
                let area = pool.output.area();
                for (f, map) in maps.chunks_exact_mut(g.pixels()).enumerate() {
                    for at in f * area..(f + 1) * area {
                        if y.is_none_or(|y| y[at] > 0.0) {
                            map[winner[at] as usize] += dy[at];
                        }
                    }
                }
            }
        }
        maps
    }
}

fn weights_task_len(g: &Geometry) -> usize {
    let tile = isa::tile();
    let depth = g.pixels().min(DEPTH_BLOCK);
    g.weights()
        + g.groups * g.filters()
        + g.output.len()
        + (packed_len(g.filters(), depth, tile.rows) + packed_len(g.depth(), depth, tile.columns)).max(few_len(g))
}

/// Numbers of workspace [`backward_weights`] needs.
pub(crate) fn weights_workspace(g: &Geometry, batch: usize) -> usize {
    (batch * g.groups).min(PIECES) * weights_task_len(g)
}

/// Gradients of filters and biases, summed over the batch; overwrites `dw` and `db`.
pub(crate) fn backward_weights(
    g: &Geometry,
    x: &[f32],
    dy: OutputGradient<'_>,
    dw: &mut [f32],
    db: &mut [f32],
    workspace: &mut [f32],
) {
    let tile = isa::tile();
    let batch = x.len() / g.input.len();
    let images = images_a_piece(batch, PIECES);
    let task_len = weights_task_len(g);
    let pieces = batch.div_ceil(images);
    let (pixels, depth, filters) = (g.pixels(), g.depth(), g.filters());
    let workspace = &mut workspace[..pieces * task_len];
    workspace.par_chunks_exact_mut(task_len).zip(x.par_chunks(images * g.input.len())).enumerate().for_each(
        |(piece, (workspace, x))| {
            let (all_dw, workspace) = workspace.split_at_mut(g.weights());
            let (all_db, workspace) = workspace.split_at_mut(g.groups * filters);
            let (maps, workspace) = workspace.split_at_mut(g.output.len());
            all_dw.fill(0.0);
            all_db.fill(0.0);
            for (n, image) in x.chunks_exact(g.input.len()).enumerate() {
                let group = (piece * images + n) % g.groups;
                let dw = &mut all_dw[group * filters * depth..][..filters * depth];
                let db = &mut all_db[group * filters..][..filters];
                if let Some(few) = dy.few(g) {
                    few_weights(g, &few, piece * images + n, image, dw, db, workspace);
                    continue;
                }
                let dy = dy.image(g, piece * images + n, maps);
                isa::vectorize(|| db.iter_mut().zip(dy.chunks_exact(pixels)).for_each(|(b, map)| *b += sum(map)));
                let windows = WindowsTransposed { image, geometry: g };
                let gradient = Matrix::contiguous(dy, pixels);
                for p in (0..pixels).step_by(DEPTH_BLOCK) {
                    let depths = p..pixels.min(p + DEPTH_BLOCK);
                    let (left, right) = workspace.split_at_mut(packed_len(filters, depths.len(), tile.rows));
                    let right = &mut right[..packed_len(depth, depths.len(), tile.columns)];
                    pack_panels(&gradient, 0..filters, depths.clone(), tile.rows, left);
                    pack_panels(&windows, 0..depth, depths.clone(), tile.columns, right);
                    for (j, right) in right.chunks_exact(depths.len() * tile.columns).enumerate() {
                        for (i, left) in left.chunks_exact(depths.len() * tile.rows).enumerate() {
                            let (f, k) = (i * tile.rows, j * tile.columns);
                            let edge = (tile.rows.min(filters - f), tile.columns.min(depth - k));
                            tile.run_edge(
                                depths.len(),
                                tile.panel(left),
                                right,
                                &mut dw[f * depth + k..],
                                depth,
                                true,
                                edge,
                            );
                        }
                    }
                }
            }
        },
    );
    let workspace = &*workspace;
    let sum_pieces = |target: &mut [f32], offset: usize| {
        target.par_chunks_mut(super::CHUNK).enumerate().for_each(|(i, target)| {
            isa::vectorize(|| {
                target.fill(0.0);
                for piece in workspace.chunks_exact(task_len) {
                    let piece = &piece[offset + i * super::CHUNK..][..target.len()];
                    target.iter_mut().zip(piece).for_each(|(t, p)| *t += p);
                }
            });
        });
    };
    sum_pieces(dw, 0);
    sum_pieces(db, g.weights());
}

/// Rows of the windows' gradient worked out at a time: about 256 KiB, so that they are added back from the cache.
fn window_rows(g: &Geometry, tile: &Tile) -> usize {
    (64 * 1024 / g.pixels()).clamp(1, g.depth()).next_multiple_of(tile.rows)
}

fn input_task_len(g: &Geometry) -> usize {
    let tile = isa::tile();
    g.output.len() + packed_len(g.pixels(), g.filters(), tile.columns) + window_rows(g, tile) * g.pixels()
}

/// Numbers of workspace [`backward_input`] needs.
pub(crate) fn input_workspace(g: &Geometry, batch: usize) -> usize {
    g.groups * packed_len(g.depth(), g.filters(), isa::tile().rows) + (batch * g.groups).min(PIECES) * input_task_len(g)
}

/// Gradient of the input; overwrites `dx`, or adds to it.
pub(crate) fn backward_input(
    g: &Geometry,
    w: &[f32],
    dy: OutputGradient<'_>,
    (dx, accumulate): (&mut [f32], bool),
    workspace: &mut [f32],
) {
    let tile = isa::tile();
    let (pixels, depth, filters) = (g.pixels(), g.depth(), g.filters());
    let transposed_len = packed_len(depth, filters, tile.rows);
    let (packed, workspace) = workspace.split_at_mut(g.groups * transposed_len);
    for (w, packed) in w.chunks_exact(g.unit_weights()).zip(packed.chunks_exact_mut(transposed_len)) {
        pack_all(&Matrix::interleaved(w, depth), depth, filters, tile.rows, packed);
    }
    let packed = &*packed;
    let images = images_a_piece(dx.len() / g.input.len(), PIECES);
    let rows = window_rows(g, tile);
    dx.par_chunks_mut(images * g.input.len()).zip(workspace.par_chunks_mut(input_task_len(g))).enumerate().for_each(
        |(piece, (dx, workspace))| {
            let (maps, workspace) = workspace.split_at_mut(g.output.len());
            let (right, windows) = workspace.split_at_mut(packed_len(pixels, filters, tile.columns));
            for (n, dx) in dx.chunks_exact_mut(g.input.len()).enumerate() {
                let packed = &packed[(piece * images + n) % g.groups * transposed_len..];
                let gradient = Matrix::interleaved(dy.image(g, piece * images + n, maps), pixels);
                pack_panels(&gradient, 0..pixels, 0..filters, tile.columns, right);
                if !accumulate {
                    dx.fill(0.0);
                }
                for start in (0..depth).step_by(rows) {
                    let block = rows.min(depth - start);
                    for (j, right) in right.chunks_exact(filters * tile.columns).enumerate() {
                        let p = j * tile.columns;
                        for i in (0..block).step_by(tile.rows) {
                            let left = &packed[(start + i) * filters..];
                            let edge = (tile.rows.min(block - i), tile.columns.min(pixels - p));
                            tile.run_edge(
                                filters,
                                tile.panel(left),
                                right,
                                &mut windows[i * pixels + p..],
                                pixels,
                                false,
                                edge,
                            );
                        }
                    }
                    add_windows(g, start..start + block, windows, dx);
                }
            }
        },
    );
}

/// Adds rows `weights` of the windows' gradient to the pixels they were read from.
#[inline(always)]
fn add_windows_body(g: &Geometry, weights: Range<usize>, windows: &[f32], dx: &mut [f32]) {
    for (k, windows) in weights.zip(windows.chunks_exact(g.pixels())) {
        let (c, i, j) = g.place(k);
        for (row, windows) in windows.chunks_exact(g.output.width).enumerate() {
            let Some((y, run)) = g.reads(row, 0..g.output.width, (i, j)) else { continue };
            let target = &mut dx[(c * g.input.height + y) * g.input.width..][..g.input.width];
            let target = &mut target[g.input_column(run.start, j)..];
            let windows = &windows[run];
            if g.window.stride.1 == 1 {
                target.iter_mut().zip(windows).for_each(|(t, v)| *t += v);
            } else {
                target.iter_mut().step_by(g.window.stride.1).zip(windows).for_each(|(t, v)| *t += v);
            }
        }
    }
}

isa::vectorized!(fn add_windows(g: &Geometry, weights: Range<usize>, windows: &[f32], dx: &mut [f32]) = add_windows_body);
