//! `y = x · W + b` (section 5.6) with x (N, inputs), W (inputs, outputs), b (outputs).
//!
//! The three products of a layer that is not huge pack nothing twice and nothing ahead: each task packs the panel it is
//! about to use into its L1 cache, and the other side is read where it lies.
//! - forward is cut along the depth, so that every task reads its own rows of W once; the pieces' sums are then added
//!   in order. Where W is large it is cut along the outputs, and a task packs blocks of its columns,
//! - backward is cut along the inputs, and a task computes both its rows of dW and its columns of dx.

use super::elementwise;
use super::isa::{self, Left, Rectangle, Tile};
use super::matmul::{DEPTH_BLOCK, Matrix, Operand, add_vector_matrix, pack_block, pack_panel, packed_len};
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

/// Inputs and outputs of a block of weights that is packed at once: rows of it are long enough to be read at the memory's
/// speed, and it stays in L2 while all rows of x pass.
const BLOCK: (usize, usize) = (128, 512);

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
    fn block_columns(&self, tile: &Tile) -> usize {
        self.outputs.div_ceil(8).next_multiple_of(tile.columns).min(BLOCK.1.next_multiple_of(tile.columns))
    }

    /// Numbers that such a task packs: a block of W, and the last rows of x.
    fn block_len(&self, tile: &Tile) -> usize {
        BLOCK.0 * (self.block_columns(tile) + tile.rows)
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
                let tile = isa::tile();
                self.outputs.div_ceil(self.block_columns(tile)) * self.block_len(tile)
            }
            _ => self.inputs.div_ceil(self.piece()) * self.piece_len(isa::tile()),
        }
    }

    /// Inputs of a task of the backward pass: enough tasks to share, few enough for each to be worth it.
    fn share(&self) -> usize {
        let least = (2 * SMALL_TASK).div_ceil(self.batch * self.outputs);
        self.inputs.div_ceil(32).max(least).next_multiple_of(INPUTS)
    }

    /// Numbers that a task of the backward pass works on: a block of xᵀ and a panel of Wᵀ.
    fn share_len(&self, tile: &Tile) -> usize {
        DEPTH_BLOCK.min(self.batch) * INPUTS + DEPTH_BLOCK.min(self.outputs) * tile.columns
    }

    /// Numbers of workspace [`backward`] needs.
    pub(crate) fn backward_workspace(&self) -> usize {
        let tile = isa::tile();
        packed_len(self.outputs, self.batch, tile.columns)
            + tile.rows * self.outputs
            + self.inputs.div_ceil(self.share()) * self.share_len(tile)
    }
}

/// `y = x · W + b`, then ReLU if asked.
pub(crate) fn forward(g: &Geometry, x: &[f32], w: &[f32], b: &[f32], relu: bool, y: &mut [f32], workspace: &mut [f32]) {
    if let Way::Blocks = g.way() {
        forward_blocks(g, 0, x, w, Rectangle::new(y, g.outputs), workspace);
        return y.par_chunks_mut(g.outputs).for_each(|row| {
            isa::vectorize(|| {
                elementwise::add_bias(row, b);
                if relu {
                    elementwise::relu_in_place(row);
                }
            });
        });
    }
    let tile = isa::tile();
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

/// `y = x · W` for the outputs from `first` on, which `y` has room for: halved among the threads, down to a task's share.
fn forward_blocks(g: &Geometry, first: usize, x: &[f32], w: &[f32], mut y: Rectangle<'_>, workspace: &mut [f32]) {
    let tile = isa::tile();
    let (share, len) = (g.block_columns(tile), g.block_len(tile));
    let shares = y.columns().div_ceil(share);
    if shares > 1 {
        let half = shares / 2;
        let (left, right) = y.split_columns(half * share);
        let (here, there) = workspace.split_at_mut(half * len);
        rayon::join(
            || forward_blocks(g, first, x, w, left, here),
            || forward_blocks(g, first + half * share, x, w, right, there),
        );
        return;
    }
    let (x, w) = (Matrix::contiguous(x, g.inputs), Matrix::interleaved(w, g.outputs));
    let (block, last_rows) = workspace.split_at_mut(BLOCK.0 * share);
    let panels = y.columns().div_ceil(tile.columns);
    for k in (0..g.inputs).step_by(BLOCK.0) {
        let depths = k..g.inputs.min(k + BLOCK.0);
        let panel_len = depths.len() * tile.columns;
        pack_last_rows(&x, g.batch, depths.clone(), tile, last_rows);
        let block = &mut block[..panels * panel_len];
        let columns = first..first + y.columns();
        pack_block(&w, columns, depths.clone(), tile.columns, block);
        for (i, panel) in block.chunks_exact(panel_len).enumerate() {
            let right = (panel, tile.columns);
            multiply_rows(&x, last_rows, tile, depths.clone(), right, &mut y, i * tile.columns, k > 0);
        }
    }
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
    /// The last rows of dy as a left side, see [`pack_last_rows`], (outputs x rows).
    dy_last_rows: &'a [f32],
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
    let (dy_last_rows, workspace) = workspace.split_at_mut(tile.rows * g.outputs);
    let right = Matrix::interleaved(dy, g.outputs);
    for (column, panel) in (0..g.outputs).step_by(tile.columns).zip(dy_panels.chunks_mut(g.batch * tile.columns)) {
        let width = tile.panel_width(g.outputs - column);
        pack_panel(&right, column..g.outputs.min(column + width), 0..g.batch, width, panel);
    }
    if !dx.is_empty() {
        pack_last_rows(&Matrix::contiguous(dy, g.outputs), g.batch, 0..g.outputs, tile, dy_last_rows);
    }
    let shared = Shared { g, tile, x, w, dy, dy_panels, dy_last_rows, accumulate };
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
    let Shared { g, tile, w, dy, dy_last_rows, accumulate, .. } = *shared;
    let (dy, w) = (Matrix::contiguous(dy, g.outputs), Matrix::contiguous(w, g.outputs));
    for k in (0..g.outputs).step_by(DEPTH_BLOCK) {
        let depths = k..g.outputs.min(k + DEPTH_BLOCK);
        for input in inputs.clone().step_by(tile.columns) {
            let width = tile.panel_width(inputs.end - input);
            pack_panel(&w, input..inputs.end.min(input + width), depths.clone(), width, panel);
            let last_rows = &dy_last_rows[k * tile.rows..];
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

    #[test]
    fn blocks_of_outputs_agree_with_f64() {
        for (batch, inputs, outputs) in [(17, 1100, 1000), (3, 300, 4100), (40, 1, 2001)] {
            let g = Geometry { batch, inputs, outputs };
            assert!(matches!(g.way(), Way::Blocks));
            let random = Random::new(3, Purpose::Test, 0);
            let numbers =
                |stream: u64, len: usize| (0..len as u64).map(|i| random.normal(stream << 32 | i)).collect::<Vec<_>>();
            let (x, w, b) = (numbers(1, batch * inputs), numbers(2, inputs * outputs), numbers(3, outputs));
            let run = |threads| {
                let (mut y, mut workspace) = (vec![f32::NAN; batch * outputs], vec![f32::NAN; g.forward_workspace()]);
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| forward(&g, &x, &w, &b, true, &mut y, &mut workspace));
                y
            };
            let y = run(1);
            assert!(y == run(3), "other bits with three threads");
            for (n, o) in (0..batch * outputs).step_by(7).map(|i| (i / outputs, i % outputs)) {
                let product = |k: usize| f64::from(x[n * inputs + k]) * f64::from(w[k * outputs + o]);
                let expected = ((0..inputs).map(product).sum::<f64>() + f64::from(b[o])).max(0.0);
                let found = f64::from(y[n * outputs + o]);
                assert!((found - expected).abs() < 1e-4 * expected.max(10.0), "({n}, {o}): {found}, {expected}");
            }
        }
    }
}
