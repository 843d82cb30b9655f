//! The gradient of the weights as a product: `dwᵀ (K x F) = windowsᵀ (K x P) · dyᵀ (P x F)`, summed over the images.
//!
//! The windows are the left side, of which one number at a time is read, so they need no packing at all: the windows that
//! weight `k` saw are a rectangle of the padded image ("strips"). Only the output's gradient is packed, turned.

use super::gather::{Gather, Walk};
use super::geometry::Geometry;
use super::weights::{OutputGradient, sum_pieces};
use super::{Cut, PIXELS, each_chunk, forward, in_turn_with_sums, round_up, whole_lines};
use crate::kernels::isa::{self, Tile};
use crate::kernels::matmul::DEPTH_BLOCK;
use rayon::prelude::*;

/// Tasks that the rows of a panel of sums are cut into.
const SHARES: usize = 4;

/// A piece's buffers.
struct Lens {
    /// Rows (weights of a filter), in whole tiles for each of the [`SHARES`], and columns (filters of a group) in whole tiles.
    /// The sums of a group are panels of `rows` by the tile's columns, so that a block of them is in one piece.
    rows: usize,
    columns: usize,
    maps: usize,
    padded: usize,
    right: usize,
}

impl Lens {
    fn new(g: &Geometry, gather: &Gather) -> Self {
        let tile = isa::tile();
        let columns = round_up(g.group_filters(), tile.columns);
        Self {
            rows: round_up(g.depth(), SHARES * tile.rows),
            columns,
            maps: whole_lines(g.output.len()),
            padded: gather.source.copies(g.input.channels),
            right: columns * g.pixels(),
        }
    }

    fn sums(&self, g: &Geometry) -> usize {
        g.groups * self.rows * self.columns
    }

    /// Numbers of a piece's sums, and of its biases' gradients after them.
    fn piece(&self, g: &Geometry) -> usize {
        self.sums(g) + whole_lines(g.filters())
    }

    /// Numbers that a piece needs besides its sums.
    fn besides(&self) -> usize {
        self.maps + self.padded + self.right
    }

    fn cut(&self, g: &Geometry, batch: usize) -> Cut {
        // Every piece's sums are read again: fewer where they are large.
        Cut::new(batch, usize::MAX, PIXELS, |_| self.besides() + self.piece(g) + 8 * self.sums(g))
    }
}

/// Numbers of workspace [`backward_weights`] needs.
pub(super) fn workspace(g: &Geometry, batch: usize) -> usize {
    let lens = Lens::new(g, &forward::windows(g));
    let cut = lens.cut(g, batch);
    cut.workspace_with_sums(lens.piece(g), lens.besides())
}

pub(super) fn backward_weights(
    g: &Geometry,
    x: &[f32],
    dy: OutputGradient<'_>,
    dw: &mut [f32],
    db: Option<&mut [f32]>,
    workspace: &mut [f32],
) {
    let tile = isa::tile();
    let gather = forward::windows(g);
    let lens = Lens::new(g, &gather);
    let cut = lens.cut(g, x.len() / g.input.len());
    let sums_len = lens.piece(g);
    let needed = (sums_len, lens.besides());
    let sums = in_turn_with_sums(&cut, (x, g.input.len()), workspace, needed, |piece, x, sums, workspace| {
        let (sums, db) = sums.split_at_mut(lens.sums(g));
        let db = &mut db[..g.filters()];
        let (maps, workspace) = workspace.split_at_mut(lens.maps);
        let (padded, right) = workspace.split_at_mut(lens.padded);
        db.fill(0.0);
        for (n, image) in x.chunks_exact(g.input.len()).enumerate() {
            let maps = dy.images(g, piece * cut.images + n, 1, maps, cut.parallel);
            OutputGradient::add_biases(g, maps, db, cut.parallel);
            let source = if gather.source.is_plain() {
                image
            } else {
                let area = g.input.area();
                let padded = &mut padded[..g.input.channels * gather.source.plane()];
                each_chunk(cut.parallel, padded, gather.source.plane(), |c, copy| {
                    gather.source.copy(&image[c * area..][..area], copy);
                });
                &*padded
            };
            for (group, sums) in sums.chunks_exact_mut(lens.rows * lens.columns).enumerate() {
                let source = &source[group * gather.channels * gather.source.plane()..];
                let maps = &maps[group * g.group_filters() * g.pixels()..][..g.group_filters() * g.pixels()];
                add_image(&gather, tile, source, maps, sums, lens.rows, right, n > 0, cut.parallel);
            }
        }
    });
    for (group, dw) in dw.chunks_exact_mut(g.group_filters() * g.depth()).enumerate() {
        dw.par_chunks_mut(tile.columns * g.depth()).enumerate().for_each(|(i, dw)| {
            let first = (group * lens.columns + i * tile.columns) * lens.rows;
            turn_back(sums, sums_len, first, tile.columns, g.depth(), dw);
        });
    }
    if let Some(db) = db {
        sum_pieces(sums, sums_len, lens.sums(g), db);
    }
}

/// Adds (or with `accumulate` false, writes) one image's and group's part.
fn add_image(
    gather: &Gather,
    tile: &Tile,
    source: &[f32],
    maps: &[f32],
    sums: &mut [f32],
    rows: usize,
    right: &mut [f32],
    accumulate: bool,
    parallel: bool,
) {
    let (height, width) = gather.grid;
    let (pixels, depth) = (gather.pixels(), gather.depth());
    let right = &mut right[..sums.len() / rows * pixels];
    each_chunk(parallel, right, tile.columns * pixels, |i, panel| {
        let maps = &maps[i * tile.columns * pixels..];
        let count = (maps.len() / pixels).min(tile.columns);
        if count < tile.columns {
            panel.fill(0.0);
        }
        isa::transpose(maps, pixels, (count, pixels), panel, tile.columns);
    });
    let right = &*right;
    let share = rows / SHARES;
    let lines = (DEPTH_BLOCK / width).max(1);
    let step = gather.row_stride * gather.source.row();
    each_chunk(parallel, sums, share * tile.columns, |task, sums| {
        let (panel, first) = (task / SHARES, task % SHARES * share);
        let panel = &right[panel * tile.columns * pixels..][..tile.columns * pixels];
        let needed = depth.saturating_sub(first).div_ceil(tile.rows);
        for y in (0..height).step_by(lines) {
            let size = (lines.min(height - y), width);
            let panel = &panel[y * width * tile.columns..][..size.0 * width * tile.columns];
            let mut walk = Walk::new(gather, first);
            for (p, sums) in sums.chunks_exact_mut(tile.rows * tile.columns).enumerate().take(needed) {
                let mut offsets = [0; isa::MAX_ROWS];
                for (i, offset) in offsets[..tile.rows].iter_mut().enumerate() {
                    // Rows after the last weight may read anything; nobody reads their sums.
                    *offset = if first + p * tile.rows + i < depth { walk.next() + y * step } else { 0 };
                }
                tile.run_strips(size, step, source, &offsets, panel, sums, tile.columns, accumulate || y > 0);
            }
        }
    });
}

/// Sums the pieces' panels (`width` wide) that begin at `first`, a column for each filter of `dw`, in the order of the pieces.
#[inline(always)]
fn turn_back_body(workspace: &[f32], task_len: usize, first: usize, width: usize, depth: usize, dw: &mut [f32]) {
    // A cache line of each filter at a time: filters are often a multiple of a page apart, and would push each other out.
    const LINE: usize = 16;
    let filters = dw.len() / depth;
    for start in (0..depth).step_by(LINE) {
        let count = LINE.min(depth - start);
        let mut sums = [[0.0f32; 32]; LINE];
        for piece in workspace.chunks_exact(task_len) {
            for (k, sums) in sums.iter_mut().enumerate().take(count) {
                let row = &piece[first + (start + k) * width..][..filters];
                sums.iter_mut().zip(row).for_each(|(s, r)| *s += r);
            }
        }
        for (f, dw) in dw.chunks_exact_mut(depth).enumerate() {
            dw[start..start + count].iter_mut().zip(&sums).for_each(|(d, s)| *d = s[f]);
        }
    }
}

isa::vectorized!(
    fn turn_back(workspace: &[f32], task_len: usize, first: usize, width: usize, depth: usize, dw: &mut [f32])
        = turn_back_body
);
