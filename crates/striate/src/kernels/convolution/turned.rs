//! One image of few pixels, forward: the product of windows and filters turned over, so that lanes are filters, all of which count,
//! and rows are pixels, of which a block has few. (Turned the other way 49 pixels would fill 49 of 64 lanes.)
//!
//! The filters are prepared as panels of as many as a block is wide, over the whole depth, and read once, in order; the windows are
//! packed once and stay in the caches. So the weights come from memory at its speed, each once.

use super::forward::{Addends, Part, windows};
use super::gather::{Gather, TOGETHER};
use super::geometry::Geometry;
use super::{Cut, Pass, round_up, whole_lines};
use crate::kernels::isa::{self, Tile};
use crate::kernels::matmul::DEPTH_BLOCK;
use rayon::prelude::*;

/// Pixels that leave lanes empty the other way.
const FEW: usize = 64;

/// The most pixels, and the weights from which on it pays for so many: these are read from memory, and Winograd's would be four times as
/// many.
const MOST: usize = 200;
const LARGE: usize = 1 << 18;

/// The least depth: below it the windows are packed for too few products.
const DEPTH: usize = 128;

pub(super) fn fits(g: &Geometry, batch: usize, pass: Pass) -> bool {
    let (tile, pixels) = (isa::tile(), g.pixels());
    // Whole panels of pixels have no lanes to spare.
    let few = pixels <= FEW && !pixels.is_multiple_of(tile.panel_width(1));
    let large = pixels <= MOST && g.weights() >= LARGE;
    let one = pass == Pass::Forward && batch == 1 && g.groups == 1;
    one && (few || large) && g.filters() >= tile.columns && g.depth() >= DEPTH
}

/// Numbers that [`prepare`] writes.
pub(super) fn prepared_len(g: &Geometry) -> usize {
    round_up(g.filters(), isa::tile().columns) * g.depth()
}

/// Turns the filters into panels: place by place of the depth, the filters of a panel side by side.
pub(super) fn prepare(g: &Geometry, w: &[f32], prepared: &mut [f32]) {
    let (tile, depth) = (isa::tile(), g.depth());
    let panels = prepared.par_chunks_mut(tile.columns * depth).zip(w.par_chunks(tile.columns * depth));
    panels.for_each(|(panel, w)| {
        let count = w.len() / depth;
        if count < tile.columns {
            panel.fill(0.0);
        }
        isa::transpose(w, depth, (count, depth), panel, tile.columns);
    });
}

/// Numbers of the buffers.
struct Lens {
    padded: usize,
    /// Panels of pixels, and the packed windows: all panels of a block of the depth after all of the block before.
    rows: usize,
    block: usize,
    left: usize,
    /// Sums of a panel of filters, pixel by pixel, and turned into maps.
    sums: usize,
    maps: usize,
}

impl Lens {
    fn new(g: &Geometry, gather: &Gather) -> Self {
        let tile = isa::tile();
        let rows = g.pixels().div_ceil(tile.rows);
        let block = rows * Gather::panel(tile.rows, DEPTH_BLOCK);
        Self {
            padded: gather.source.copies(g.input.channels),
            rows,
            block,
            left: whole_lines(g.depth().div_ceil(DEPTH_BLOCK) * block),
            sums: rows * tile.rows * tile.columns,
            maps: whole_lines(tile.columns * g.pixels()),
        }
    }
}

/// One piece, cut again inside, and the numbers that it needs.
pub(super) fn forward_cut(g: &Geometry) -> (Cut, usize) {
    let lens = Lens::new(g, &windows(g));
    let tasks = g.filters().div_ceil(isa::tile().columns);
    let cut = Cut { images: 1, together: 1, parallel: true, pieces: 1 };
    (cut, lens.padded + lens.left + tasks * (lens.sums + lens.maps))
}

pub(super) fn forward(
    part: &Part<'_>,
    x: &[f32],
    prepared: &[f32],
    y: &mut [f32],
    winner: Option<&mut [u32]>,
    workspace: &mut [f32],
) {
    let (g, tile) = (part.g, isa::tile());
    let (gather, depth) = (windows(g), g.depth());
    let lens = Lens::new(g, &gather);
    let (padded, workspace) = workspace.split_at_mut(lens.padded);
    let (left, workspace) = workspace.split_at_mut(lens.left);
    let source = part.pad(&gather.source, x, padded);
    left.par_chunks_mut(lens.block).enumerate().for_each(|(i, left)| {
        let depths = i * DEPTH_BLOCK..depth.min((i + 1) * DEPTH_BLOCK);
        for first in (0..lens.rows).step_by(TOGETHER).take_while(|_| !depths.is_empty()) {
            let pixels = first * tile.rows..g.pixels().min((first + TOGETHER) * tile.rows);
            let panels = &mut left[first * Gather::panel(tile.rows, depths.len())..];
            gather.pack(source, 0, pixels, depths.clone(), tile.rows, panels);
        }
    });
    let (left, pixels) = (&*left, g.pixels());
    let map = part.pool.map_or(g.output, |pool| pool.output).area();
    let task = |i: usize, y: &mut [f32], mut winner: Option<&mut [u32]>, buffers: &mut [f32]| {
        let (sums, maps) = buffers.split_at_mut(lens.sums);
        let right = &prepared[i * tile.columns * depth..][..tile.columns * depth];
        products(tile, &lens, left, right, pixels, sums);
        isa::transpose(sums, tile.columns, (pixels, y.len() / map), maps, pixels);
        for (at, (sums, y)) in maps.chunks_exact_mut(pixels).zip(y.chunks_exact_mut(map)).enumerate() {
            let winner = winner.as_deref_mut().map(|winner| &mut winner[at * map..][..map]);
            finish(part, i * tile.columns + at, sums, y, winner);
        }
    };
    let share = tile.columns * map;
    let work = y.par_chunks_mut(share).zip(workspace.par_chunks_mut(lens.sums + lens.maps)).enumerate();
    match winner {
        Some(winner) => work
            .zip(winner.par_chunks_mut(share))
            .for_each(|((i, (y, buffers)), winner)| task(i, y, Some(winner), buffers)),
        None => work.for_each(|(i, (y, buffers))| task(i, y, None, buffers)),
    }
}

/// `sums` = all windows times a panel of filters.
fn products(tile: &Tile, lens: &Lens, left: &[f32], right: &[f32], pixels: usize, sums: &mut [f32]) {
    let block_len = DEPTH_BLOCK * tile.columns;
    for (k, block) in right.chunks(block_len).enumerate() {
        let depth = block.len() / tile.columns;
        let (left, panel) = (&left[k * lens.block..], Gather::panel(tile.rows, depth));
        // The next block is on its way from memory while this one is multiplied.
        let next = right.get((k + 1) * block_len..).unwrap_or_default();
        let mut ahead = next[..block_len.min(next.len())].chunks(whole_lines(block_len.div_ceil(lens.rows)));
        for (p, sums) in sums.chunks_exact_mut(tile.rows * tile.columns).enumerate() {
            if let Some(ahead) = ahead.next() {
                isa::prefetch(ahead);
            }
            let left = tile.panel(&left[p * panel..][..depth * tile.rows]);
            let rows = (pixels - p * tile.rows).min(tile.rows);
            tile.run(depth, left, block, (sums, rows), tile.columns, k > 0);
        }
    }
}

/// What becomes of a filter's sums.
fn finish(part: &Part<'_>, f: usize, sums: &mut [f32], y: &mut [f32], winner: Option<&mut [u32]>) {
    let (g, addends) = (part.g, part.addends);
    let Some(pool) = &part.pool else { return addends.finish(g, part.first, f, 0, sums, y) };
    if addends.residual.is_some() {
        Addends { relu: false, ..addends }.finish_in_place(g, part.first, f, sums);
    }
    part.pool_map(pool, f, sums, y, winner);
}
