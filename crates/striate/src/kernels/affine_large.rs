//! Products of a batch with weights that no cache holds: `x · W` forward and `dy · Wᵀ` backward.
//!
//! Both are computed turned, `(Wᵀ xᵀ)ᵀ` and `(W dyᵀ)ᵀ`: a block of rows of the micro-kernel is then made of weights, of
//! which there are always enough, and its columns of samples. The samples are packed once; the weights in blocks that stay
//! in L2, while the block after it is called from memory. So arithmetic and memory work at the same time.

use super::isa::{self, Rectangle, Tile};
use super::matmul::{DEPTH_BLOCK, Matrix, pack_block, pack_panel, packed_len};
use std::ops::Range;

/// Numbers of a packed block of weights: 256 KiB.
const BLOCK: usize = 64 * 1024;

/// A product `samples · weights`, summed over a common depth.
pub(super) struct Product<'a> {
    /// Their vectors are the results of a sample.
    pub(super) weights: Matrix<'a>,
    pub(super) depth: usize,
    pub(super) batch: usize,
    /// The most results of a sample that are computed at once.
    pub(super) share: usize,
    /// The samples as [`Product::pack_samples`] packs them.
    pub(super) samples: &'a [f32],
}

impl Product<'_> {
    /// Numbers that the packed samples take.
    pub(super) fn samples_len(tile: &Tile, batch: usize, depth: usize) -> usize {
        packed_len(batch, depth, tile.columns)
    }

    /// Packs samples, each a vector of `samples`, as a right side: panel after panel, the last one as narrow as it may be.
    pub(super) fn pack_samples(tile: &Tile, samples: &Matrix<'_>, batch: usize, depth: usize, packed: &mut [f32]) {
        for (first, panel) in (0..batch).step_by(tile.columns).zip(packed.chunks_mut(depth * tile.columns)) {
            let width = tile.panel_width(batch - first);
            pack_panel(samples, first..batch.min(first + width), 0..depth, width, panel);
        }
    }

    /// Numbers of workspace that [`Product::run`] needs for a share.
    pub(super) fn workspace(tile: &Tile, batch: usize, share: usize) -> usize {
        let rows = share.next_multiple_of(tile.rows);
        rows * (Self::depth_block(share) + batch.next_multiple_of(tile.columns))
    }

    /// Depth of a block of weights.
    fn depth_block(share: usize) -> usize {
        (BLOCK / share / 16 * 16).clamp(16, DEPTH_BLOCK)
    }

    /// Computes the results `results`, at most a share, of all samples, of which `target` has just these columns: `put(first, row, sums)`
    /// writes a sample's sums from result `results.start + first` on into their place.
    pub(super) fn run(
        &self,
        tile: &Tile,
        results: Range<usize>,
        target: &mut Rectangle<'_>,
        workspace: &mut [f32],
        put: impl Fn(usize, &mut [f32], &[f32]),
    ) {
        let rows = results.len().next_multiple_of(tile.rows);
        let (pitch, step) = (self.batch.next_multiple_of(tile.columns), Self::depth_block(self.share));
        let (block, sums) = workspace.split_at_mut(rows * step);
        let sums = &mut sums[..rows * pitch];
        for k in (0..self.depth).step_by(step) {
            let depths = k..self.depth.min(k + step);
            let panel_len = depths.len() * tile.rows;
            let block = &mut block[..rows * depths.len()];
            pack_block(&self.weights, results.clone(), depths.clone(), tile.rows, block);
            // What the next block reads comes from memory while this one is multiplied.
            let next = depths.end..self.depth.min(depths.end + step);
            let (runs, panels) = (self.weights.runs(results.clone(), next.clone()), rows / tile.rows);
            let mut out = Rectangle::new(sums, pitch);
            for (p, left) in block.chunks_exact(panel_len).enumerate() {
                for run in p * runs / panels..(p + 1) * runs / panels {
                    isa::prefetch(self.weights.run(results.clone(), next.clone(), run));
                }
                for first in (0..self.batch).step_by(tile.columns) {
                    let width = tile.panel_width(self.batch - first);
                    let right = &self.samples[first * self.depth + depths.start * width..][..depths.len() * width];
                    let place = (p * tile.rows, first);
                    tile.run_into(depths.len(), tile.panel(left), (right, width), &mut out, place, k > 0);
                }
            }
        }
        const TOGETHER: usize = 64;
        for n in 0..target.rows() {
            let rows = target.row_mut(n).chunks_mut(TOGETHER).zip(sums.chunks(TOGETHER * pitch));
            for (i, (row, sums)) in rows.enumerate() {
                let mut turned = [0.0; TOGETHER];
                turned.iter_mut().zip(sums[n..].iter().step_by(pitch)).for_each(|(t, &s)| *t = s);
                put(i * TOGETHER, row, &turned[..row.len()]);
            }
        }
    }
}
