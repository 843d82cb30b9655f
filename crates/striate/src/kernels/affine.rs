//! `y = x · W + b` (section 5.6) with x (N, inputs), W (inputs, outputs), b (outputs).
//!
//! The three products of a layer that is not huge pack nothing twice and nothing ahead: each task packs the panel it is
//! about to use into its L1 cache, and the other side is read where it lies.
//! - forward is cut along the depth, so that every task reads its own rows of W once; the pieces' sums are then added
//!   in order. Where W is large it is cut along the outputs (see `affine_large`, as for the gradient of the input),
//! - backward is cut along the inputs, and a task computes both its rows of dW and its columns of dx.

use super::affine_large::Product;
use super::elementwise;
use super::isa::{self, Left, Rectangle, Tile};
use super::matmul::{DEPTH_BLOCK, Matrix, Operand, add_vector_matrix, pack_panel, packed_len};
use rayon::prelude::*;
use std::ops::Range;

/// Sizes of an affine layer and its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) batch: usize,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
}

/// Multiply-adds below which a task is not worth handing to another thread.
const SMALL_TASK: usize = 64 * 1024;

/// Inputs that a task of the backward pass works on at a time: whole blocks of every instruction set.
const INPUTS: usize = 96;

/// Weights beyond which the forward pass goes in blocks: 4 MiB.
const LARGE: usize = 1 << 20;

/// How the forward pass goes.
enum Way {
    /// Row by row: the batch is so small that packing the weights would cost more than it saves.
    Rows,
    /// In pieces of the depth, each with its own sums.
    Pieces,
    /// In blocks of outputs: the weights or the sums of the pieces would not fit the caches.
    Blocks,
}

impl Geometry {
    fn way(&self) -> Way {
        match self.batch {
            ..=2 => Way::Rows,
            _ if self.batch.max(16) * self.outputs <= 64 * 1024 && self.inputs * self.outputs <= LARGE => Way::Pieces,
            _ => Way::Blocks,
        }
    }

    /// Outputs of a task of the forward pass that goes in blocks.
    fn output_share(&self, tile: &Tile) -> usize {
        self.outputs.div_ceil(8).min(512).next_multiple_of(tile.rows)
    }

    /// Inputs of a piece of the forward pass. Like all cuts, it depends on the sizes alone.
    fn piece(&self) -> usize {
        let pieces = (self.batch * self.inputs * self.outputs / SMALL_TASK).clamp(1, 8);
        self.inputs.div_ceil(pieces)
    }

    /// Numbers that a piece of the forward pass works on: its sums, and the panels it packs.
    fn piece_len(&self, tile: &Tile) -> usize {
        let panels = match self.way() {
            Way::Rows => 0,
            _ => DEPTH_BLOCK.min(self.piece()) * (tile.columns + tile.rows),
        };
        self.batch * self.outputs + panels
    }

    /// Numbers of workspace [`forward`] needs.
    pub(crate) fn forward_workspace(&self) -> usize {
        match self.way() {
            Way::Blocks => {
                let (tile, share) = (isa::tile(), self.output_share(isa::tile()));
                Product::samples_len(tile, self.batch, self.inputs)
                    + self.outputs.div_ceil(share) * Product::workspace(tile, self.batch, share)
            }
            _ => self.inputs.div_ceil(self.piece()) * self.piece_len(isa::tile()),
        }
    }

    /// Inputs of a task of the backward pass: enough tasks to share, few enough for each to be worth it.
    fn share(&self) -> usize {
        let least = (2 * SMALL_TASK).div_ceil(self.batch * self.outputs);
        self.inputs.div_ceil(32).max(least).next_multiple_of(INPUTS)
    }

    /// Whether the input's gradient goes in blocks.
    fn large(&self) -> bool {
        self.batch > 2 && self.inputs * self.outputs > LARGE
    }

    /// Numbers of dy packed for the input's gradient: its last rows as a left side, or all as a right side.
    fn turned_len(&self, tile: &Tile) -> usize {
        if self.large() { Product::samples_len(tile, self.batch, self.outputs) } else { tile.rows * self.outputs }
    }

    /// Numbers that a task of the backward pass works on: a block of xᵀ, and a panel of Wᵀ or a block of W.
    fn share_len(&self, tile: &Tile) -> usize {
        let weights = match self.large() {
            true => Product::workspace(tile, self.batch, self.share()),
            false => DEPTH_BLOCK.min(self.outputs) * tile.columns,
        };
        DEPTH_BLOCK.min(self.batch) * INPUTS + weights
    }

    /// Numbers of workspace [`backward`] needs.
    pub(crate) fn backward_workspace(&self) -> usize {
        let tile = isa::tile();
        packed_len(self.outputs, self.batch, tile.columns)
            + self.turned_len(tile)
            + self.inputs.div_ceil(self.share()) * self.share_len(tile)
    }
}

/// `y = x · W + b`, then ReLU if asked.
pub(crate) fn forward(g: &Geometry, x: &[f32], w: &[f32], b: &[f32], relu: bool, y: &mut [f32], workspace: &mut [f32]) {
    let tile = isa::tile();
    if let Way::Blocks = g.way() {
        let (samples, workspace) = workspace.split_at_mut(Product::samples_len(tile, g.batch, g.inputs));
        Product::pack_samples(tile, &Matrix::contiguous(x, g.inputs), g.batch, g.inputs, samples);
        let weights = Matrix::interleaved(w, g.outputs);
        let product = Product { weights, depth: g.inputs, batch: g.batch, share: g.output_share(tile), samples };
        let y = Rectangle::new(y, g.outputs);
        return forward_blocks(&product, 0, y, workspace, &|first, y, sums| {
            for ((y, sum), b) in y.iter_mut().zip(sums).zip(&b[first..]) {
                *y = sum + b;
            }
            if relu {
                elementwise::relu_in_place(y);
            }
        });
    }
    let (piece, piece_len) = (g.piece(), g.piece_len(tile));
    let pieces = g.inputs.div_ceil(piece);
    let workspace = &mut workspace[..pieces * piece_len];
    workspace.par_chunks_exact_mut(piece_len).enumerate().for_each(|(i, workspace)| {
        let depths = i * piece..g.inputs.min((i + 1) * piece);
        let (sums, panels) = workspace.split_at_mut(g.batch * g.outputs);
        match g.way() {
            Way::Rows => {
                sums.fill(0.0);
                for (x, sums) in x.chunks_exact(g.inputs).zip(sums.chunks_exact_mut(g.outputs)) {
                    let w = &w[depths.start * g.outputs..depths.end * g.outputs];
                    add_vector_matrix(&x[depths.clone()], w, sums);
                }
            }
            _ => forward_piece(g, tile, depths, x, w, sums, panels),
        }
    });
    let workspace = &*workspace;
    // A quarter of the rows a task, and their number a multiple of the columns' so that the bias lines up.
    let rows = if pieces * y.len() < SMALL_TASK { g.batch } else { g.batch.div_ceil(4) };
    y.par_chunks_mut(rows * g.outputs).enumerate().for_each(|(i, y)| {
        isa::vectorize(|| {
            y.chunks_exact_mut(g.outputs).for_each(|row| row.copy_from_slice(b));
            for piece in workspace.chunks_exact(piece_len) {
                let sums = &piece[i * rows * g.outputs..][..y.len()];
                y.iter_mut().zip(sums).for_each(|(y, s)| *y += s);
            }
            if relu {
                elementwise::relu_in_place(y);
            }
        });
    });
}

/// The outputs from `first` on, which `y` has room for: halved among the threads, down to a task's share.
fn forward_blocks(
    product: &Product<'_>,
    first: usize,
    mut y: Rectangle<'_>,
    workspace: &mut [f32],
    put: &(impl Fn(usize, &mut [f32], &[f32]) + Sync),
) {
    let (tile, share) = (isa::tile(), product.share);
    let shares = y.columns().div_ceil(share);
    if shares > 1 {
        let half = shares / 2;
        let (left, right) = y.split_columns(half * share);
        let (here, there) = workspace.split_at_mut(half * Product::workspace(tile, product.batch, share));
        rayon::join(
            || forward_blocks(product, first, left, here, put),
            || forward_blocks(product, first + half * share, right, there, put),
        );
        return;
    }
    let results = first..first + y.columns();
    product.run(tile, results, &mut y, workspace, |at, row, sums| put(first + at, row, sums));
}

/// The part of `x · W` that the inputs `depths` contribute; overwrites `sums`.
fn forward_piece(
    g: &Geometry,
    tile: &Tile,
    depths: Range<usize>,
    x: &[f32],
    w: &[f32],
    sums: &mut [f32],
    panels: &mut [f32],
) {
    let (x, w) = (Matrix::contiguous(x, g.inputs), Matrix::interleaved(w, g.outputs));
    let mut sums = Rectangle::new(sums, g.outputs);
    let block = even_block(depths.len());
    let (panel, last_rows) = panels.split_at_mut(block * tile.columns);
    for k in depths.clone().step_by(block) {
        let depths_now = k..depths.end.min(k + block);
        pack_last_rows(&x, g.batch, depths_now.clone(), tile, last_rows);
        for column in (0..g.outputs).step_by(tile.columns) {
            let width = tile.panel_width(g.outputs - column);
            let columns = column..g.outputs.min(column + width);
            pack_panel(&w, columns, depths_now.clone(), width, panel);
            let right = (&*panel, width);
            multiply_rows(&x, last_rows, tile, depths_now.clone(), right, &mut sums, column, k > depths.start);
        }
    }
}

/// The depth of equal blocks, none above [`DEPTH_BLOCK`].
fn even_block(depth: usize) -> usize {
    depth.div_ceil(depth.div_ceil(DEPTH_BLOCK).max(1)).max(1)
}

/// Rows that do not fill a block, packed with zeros below them; whole blocks are read where they lie.
fn pack_last_rows(a: &Matrix<'_>, rows: usize, depths: Range<usize>, tile: &Tile, panel: &mut [f32]) {
    let first = rows - rows % tile.rows;
    if first < rows {
        pack_panel(a, first..rows, depths, tile.rows, panel);
    }
}

/// One panel of columns of `c (+)= a · b`: all its rows, `last_rows` from [`pack_last_rows`].
fn multiply_rows(
    a: &Matrix<'_>,
    last_rows: &[f32],
    tile: &Tile,
    depths: Range<usize>,
    right: (&[f32], usize),
    c: &mut Rectangle<'_>,
    column: usize,
    accumulate: bool,
) {
    for row in (0..c.rows()).step_by(tile.rows) {
        let whole = c.rows() - row >= tile.rows;
        let left = match a.in_place(row, depths.start).filter(|_| whole) {
            Some(left) => left,
            None => tile.panel(last_rows),
        };
        tile.run_into(depths.len(), left, right, c, (row, column), accumulate);
    }
}

/// What the tasks of the backward pass share.
struct Shared<'a> {
    g: &'a Geometry,
    tile: &'a Tile,
    x: &'a [f32],
    w: &'a [f32],
    dy: &'a [f32],
    /// dy as a right side: a panel of columns after the other, each of them (batch x its width).
    dy_panels: &'a [f32],
    /// dy for the input's gradient: its last rows as a left side, see [`pack_last_rows`], (outputs x rows), or all of it, see
    /// [`Product`].
    dy_turned: &'a [f32],
    /// Whether the input's gradient is added to what is there.
    accumulate: bool,
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
    let tile = isa::tile();
    elementwise::sum_rows(dy, db);
    let (dy_panels, workspace) = workspace.split_at_mut(packed_len(g.outputs, g.batch, tile.columns));
    let (dy_turned, workspace) = workspace.split_at_mut(g.turned_len(tile));
    let right = Matrix::interleaved(dy, g.outputs);
    for (column, panel) in (0..g.outputs).step_by(tile.columns).zip(dy_panels.chunks_mut(g.batch * tile.columns)) {
        let width = tile.panel_width(g.outputs - column);
        pack_panel(&right, column..g.outputs.min(column + width), 0..g.batch, width, panel);
    }
    if !dx.is_empty() {
        let rows = Matrix::contiguous(dy, g.outputs);
        match g.large() {
            true => Product::pack_samples(tile, &rows, g.batch, g.outputs, dy_turned),
            false => pack_last_rows(&rows, g.batch, 0..g.outputs, tile, dy_turned),
        }
    }
    let shared = Shared { g, tile, x, w, dy, dy_panels, dy_turned, accumulate };
    let dx = (!dx.is_empty()).then(|| Rectangle::new(dx, g.inputs));
    share_backward(&shared, 0, dw, dx, workspace);
}

/// Halves the inputs from `first` on among the threads, down to one task's share; `dw` and `dx` are theirs alone.
fn share_backward(shared: &Shared<'_>, first: usize, dw: &mut [f32], dx: Option<Rectangle<'_>>, workspace: &mut [f32]) {
    let (share, outputs) = (shared.g.share(), shared.g.outputs);
    let shares = (dw.len() / outputs).div_ceil(share);
    if shares <= 1 {
        let (left, right) = workspace.split_at_mut(DEPTH_BLOCK.min(shared.g.batch) * INPUTS);
        weights_gradient(shared, first, dw, left);
        if let Some(dx) = dx {
            input_gradient(shared, first..first + dw.len() / outputs, dx, right);
        }
        return;
    }
    let half = shares / 2;
    let (dw, dw_rest) = dw.split_at_mut(half * share * outputs);
    let (dx, dx_rest) = dx.map(|dx| dx.split_columns(half * share)).unzip();
    let (workspace, workspace_rest) = workspace.split_at_mut(half * shared.g.share_len(shared.tile));
    rayon::join(
        || share_backward(shared, first, dw, dx, workspace),
        || share_backward(shared, first + half * share, dw_rest, dx_rest, workspace_rest),
    );
}

/// Rows of `dw` from input `first` on: as many as `dw` holds.
fn weights_gradient(shared: &Shared<'_>, first: usize, dw: &mut [f32], left: &mut [f32]) {
    let Shared { g, tile, x, dy_panels, .. } = *shared;
    let x = Matrix::interleaved(x, g.inputs);
    for (i, dw) in dw.chunks_mut(INPUTS * g.outputs).enumerate() {
        let first = first + i * INPUTS;
        let rows = dw.len() / g.outputs;
        let mut dw = Rectangle::new(dw, g.outputs);
        for k in (0..g.batch).step_by(DEPTH_BLOCK) {
            let depths = k..g.batch.min(k + DEPTH_BLOCK);
            pack_panel(&x, first..first + rows, depths.clone(), INPUTS, left);
            for row in (0..rows).step_by(tile.rows) {
                for column in (0..g.outputs).step_by(tile.columns) {
                    let width = tile.panel_width(g.outputs - column);
                    let panel = &dy_panels[column * g.batch + k * width..];
                    let a = Left { data: &left[row..], steps: (1, INPUTS) };
                    tile.run_into(depths.len(), a, (panel, width), &mut dw, (row, column), k > 0);
                }
            }
        }
    }
}

/// Columns `inputs` of the gradient of the input, which `dx` holds.
fn input_gradient(shared: &Shared<'_>, inputs: Range<usize>, mut dx: Rectangle<'_>, panel: &mut [f32]) {
    let Shared { g, tile, w, dy, dy_turned, accumulate, .. } = *shared;
    let (dy, w) = (Matrix::contiguous(dy, g.outputs), Matrix::contiguous(w, g.outputs));
    if g.large() {
        let product = Product { weights: w, depth: g.outputs, batch: g.batch, share: g.share(), samples: dy_turned };
        return product.run(tile, inputs, &mut dx, panel, |_, dx, sums| {
            let pairs = dx.iter_mut().zip(sums);
            if accumulate { pairs.for_each(|(dx, sum)| *dx += sum) } else { pairs.for_each(|(dx, sum)| *dx = *sum) }
        });
    }
    for k in (0..g.outputs).step_by(DEPTH_BLOCK) {
        let depths = k..g.outputs.min(k + DEPTH_BLOCK);
        for input in inputs.clone().step_by(tile.columns) {
            let width = tile.panel_width(inputs.end - input);
            pack_panel(&w, input..inputs.end.min(input + width), depths.clone(), width, panel);
            let last_rows = &dy_turned[k * tile.rows..];
            let right = (&*panel, width);
            multiply_rows(
                &dy,
                last_rows,
                tile,
                depths.clone(),
                right,
                &mut dx,
                input - inputs.start,
                accumulate || k > 0,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, Random};

    fn numbers(stream: u64, len: usize) -> Vec<f32> {
        (0..len as u64).map(|i| Random::new(3, Purpose::Test, stream).normal(i)).collect()
    }

    fn with_threads<T: Send>(threads: usize, run: impl FnOnce() -> T + Send) -> T {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(run)
    }

    /// Every seventh number agrees with the sum of `count` products that `product(row, column, k)` gives.
    fn agrees(
        name: &str,
        found: &[f32],
        columns: usize,
        count: usize,
        product: impl Fn(usize, usize, usize) -> f64,
        finish: impl Fn(usize, f64) -> f64,
    ) {
        for at in (0..found.len()).step_by(7) {
            let (row, column) = (at / columns, at % columns);
            let expected = finish(at, (0..count).map(|k| product(row, column, k)).sum());
            let found = f64::from(found[at]);
            assert!((found - expected).abs() < 1e-4 * expected.abs().max(10.0), "{name} {at}: {found}, {expected}");
        }
    }

    #[test]
    fn large_weights_agree_with_f64() {
        for (batch, inputs, outputs) in [(17, 1100, 1000), (3, 300, 4100), (40, 1, 2001), (65, 2060, 520)] {
            let g = Geometry { batch, inputs, outputs };
            assert!(matches!(g.way(), Way::Blocks));
            assert_eq!(g.large(), inputs > 1);
            let (x, w, b) = (numbers(1, batch * inputs), numbers(2, inputs * outputs), numbers(3, outputs));
            let (dy, before) = (numbers(4, batch * outputs), numbers(5, batch * inputs));
            let run = || {
                let (mut y, mut workspace) = (vec![f32::NAN; batch * outputs], vec![f32::NAN; g.forward_workspace()]);
                forward(&g, &x, &w, &b, true, &mut y, &mut workspace);
                let (mut dx, mut dw, mut db) = (before.clone(), vec![f32::NAN; w.len()], vec![f32::NAN; outputs]);
                let mut workspace = vec![f32::NAN; g.backward_workspace()];
                backward(&g, &x, &w, &dy, (&mut dx, true), (&mut dw, &mut db), &mut workspace);
                let mut fresh = vec![f32::NAN; dx.len()];
                workspace.fill(f32::NAN);
                backward(&g, &x, &w, &dy, (&mut fresh, false), (&mut dw, &mut db), &mut workspace);
                [y, dx, fresh, dw]
            };
            let found = with_threads(1, run);
            assert!(found == with_threads(3, run), "other bits with three threads");
            let times = |a: f32, b: f32| f64::from(a) * f64::from(b);
            let [y, dx, fresh, dw] = &found;
            let forward = |n: usize, o: usize, k: usize| times(x[n * inputs + k], w[k * outputs + o]);
            agrees("y", y, outputs, inputs, forward, |at, sum| (sum + f64::from(b[at % outputs])).max(0.0));
            let backward = |n: usize, i: usize, k: usize| times(dy[n * outputs + k], w[i * outputs + k]);
            agrees("dx", fresh, inputs, outputs, backward, |_, sum| sum);
            agrees("dx added", dx, inputs, outputs, backward, |at, sum| sum + f64::from(before[at]));
            agrees("dw", dw, outputs, batch, |i, o, k| times(x[k * inputs + i], dy[k * outputs + o]), |_, sum| sum);
        }
    }
}
