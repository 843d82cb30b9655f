//! Matrix product: `C (+)= A · B`, blocked and packed after BLIS (Van Zee & van de Geijn, 2015).
//!
//! A side of the product is anything that can pack itself into panels ([`Operand`]): a strided [`Matrix`], or the
//! windows of an image, so that a convolution is a matrix product that never stores the im2col matrix.

use super::isa::{self, Left, Tile};
use rayon::prelude::*;
use std::ops::Range;

/// Depth that is summed in registers before it is added to memory: a right panel of this depth stays in the L1 cache.
pub(crate) const DEPTH_BLOCK: usize = 256;

/// A matrix of `outer` vectors of length `depth`: the rows of the left side, the columns of the right side.
pub(crate) trait Operand: Sync {
    /// Writes vectors `outer` (at most `width`) over `depth` into `panel[k * width + o]`; missing vectors are zeros.
    fn pack(&self, outer: Range<usize>, depth: Range<usize>, width: usize, panel: &mut [f32]);

    /// The vectors from `outer` on, from `depth` on, as they lie in memory, where packing them would gain nothing.
    fn in_place(&self, _outer: usize, _depth: usize) -> Option<Left<'_>> {
        None
    }
}

/// A matrix in memory: element `(o, k)` is at `o * outer + k * depth`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    data: &'a [f32],
    outer: usize,
    depth: usize,
}

impl<'a> Matrix<'a> {
    /// Each vector lies in one piece, the next one `stride` further.
    pub(crate) fn contiguous(data: &'a [f32], stride: usize) -> Self {
        Self { data, outer: stride, depth: 1 }
    }

    /// Vectors lie side by side: their next elements are `stride` further.
    pub(crate) fn interleaved(data: &'a [f32], stride: usize) -> Self {
        Self { data, outer: 1, depth: stride }
    }
}

impl Matrix<'_> {
    /// How many pieces of memory the vectors `outer` over `depth` lie in.
    pub(crate) fn runs(&self, outer: Range<usize>, depth: Range<usize>) -> usize {
        if self.outer == 1 { depth.len() } else { outer.len() }
    }

    /// One of these pieces.
    pub(crate) fn run(&self, outer: Range<usize>, depth: Range<usize>, i: usize) -> &[f32] {
        let (start, len) = match self.outer {
            1 => ((depth.start + i) * self.depth + outer.start, outer.len()),
            _ => ((outer.start + i) * self.outer + depth.start, depth.len()),
        };
        &self.data[start..start + len]
    }
}

impl Operand for Matrix<'_> {
    #[inline(always)]
    fn pack(&self, outer: Range<usize>, depth: Range<usize>, width: usize, panel: &mut [f32]) {
        let count = outer.len();
        let panel = &mut panel[..depth.len() * width];
        if self.outer == 1 {
            for (target, k) in panel.chunks_exact_mut(width).zip(depth) {
                let (filled, rest) = target.split_at_mut(count);
                copy_short(filled, &self.data[k * self.depth + outer.start..][..count]);
                rest.fill(0.0);
            }
        } else {
            if count < width {
                panel.fill(0.0);
            }
            if self.depth == 1 {
                let source = &self.data[outer.start * self.outer + depth.start..];
                return isa::transpose(source, self.outer, (count, depth.len()), panel, width);
            }
            for (i, o) in outer.enumerate() {
                let source = &self.data[o * self.outer + depth.start * self.depth..];
                let source = source.iter().step_by(self.depth);
                panel[i..].iter_mut().step_by(width).zip(source).for_each(|(target, &value)| *target = value);
            }
        }
    }

    #[inline]
    fn in_place(&self, outer: usize, depth: usize) -> Option<Left<'_>> {
        // Vectors side by side would be read across a page a step.
        (self.depth == 1).then(|| Left { data: &self.data[outer * self.outer + depth..], steps: (self.outer, 1) })
    }
}

/// A copy of a few numbers, without the call into memcpy that `copy_from_slice` makes.
#[inline(always)]
pub(crate) fn copy_short(target: &mut [f32], source: &[f32]) {
    // The widths of the micro-kernels' panels, each a few moves.
    match target.len() {
        6 => copy_exactly::<6>(target, source),
        8 => copy_exactly::<8>(target, source),
        12 => copy_exactly::<12>(target, source),
        16 => copy_exactly::<16>(target, source),
        32 => copy_exactly::<32>(target, source),
        _ => copy_by_eights(target, source),
    }
}

#[inline(always)]
fn copy_exactly<const N: usize>(target: &mut [f32], source: &[f32]) {
    if let (Some(target), Some(source)) = (target.first_chunk_mut::<N>(), source.first_chunk::<N>()) {
        copy_array(target, source);
    }
}

/// The same for arrays. What is wider than a register goes by registers: as one array it would be a call again.
#[inline(always)]
pub(crate) fn copy_array<const N: usize>(target: &mut [f32; N], source: &[f32; N]) {
    if !N.is_multiple_of(16) {
        *target = *source;
        return;
    }
    let registers = source.as_chunks::<16>().0;
    target.as_chunks_mut::<16>().0.iter_mut().zip(registers).for_each(|(t, s)| *t = *s);
}

#[inline(always)]
fn copy_by_eights(target: &mut [f32], source: &[f32]) {
    let (targets, target_rest) = target.as_chunks_mut::<8>();
    let (sources, source_rest) = source.as_chunks::<8>();
    targets.iter_mut().zip(sources).for_each(|(t, s)| *t = *s);
    target_rest.iter_mut().zip(source_rest).for_each(|(t, s)| *t = *s);
}

/// A whole side of a product, packed: panel after panel, each `depth x width`.
pub(crate) fn packed_len(outer: usize, depth: usize, width: usize) -> usize {
    outer.div_ceil(width) * width * depth
}

#[inline(always)]
fn pack_body<O: Operand>(operand: &O, outer: Range<usize>, depth: Range<usize>, width: usize, panel: &mut [f32]) {
    operand.pack(outer, depth, width, panel);
}

isa::vectorized!(
    /// Packs one panel, with the machine's widest vectors.
    pub(crate) fn pack_panel[O: Operand](
        operand: &O,
        outer: Range<usize>,
        depth: Range<usize>,
        width: usize,
        panel: &mut [f32],
    ) = pack_body
);

/// Panel after panel, but an interleaved matrix row by row, so that each row is read in one piece.
#[inline(always)]
fn pack_block_body(matrix: &Matrix<'_>, outer: Range<usize>, depth: Range<usize>, width: usize, block: &mut [f32]) {
    let panel_len = depth.len() * width;
    if matrix.outer != 1 {
        for (first, panel) in outer.clone().step_by(width).zip(block.chunks_exact_mut(panel_len)) {
            matrix.pack(first..outer.end.min(first + width), depth.clone(), width, panel);
        }
        return;
    }
    for (i, k) in depth.enumerate() {
        let row = &matrix.data[k * matrix.depth..][outer.clone()];
        for (panel, source) in block.chunks_exact_mut(panel_len).zip(row.chunks(width)) {
            let (filled, rest) = panel[i * width..][..width].split_at_mut(source.len());
            copy_short(filled, source);
            rest.fill(0.0);
        }
    }
}

isa::vectorized!(
    /// Packs panel after panel of the vectors `outer`.
    pub(crate) fn pack_block(
        matrix: &Matrix<'_>,
        outer: Range<usize>,
        depth: Range<usize>,
        width: usize,
        block: &mut [f32],
    ) = pack_block_body
);

/// Packs panel after panel of `outer`.
pub(crate) fn pack_panels(
    operand: &impl Operand,
    outer: Range<usize>,
    depth: Range<usize>,
    width: usize,
    panels: &mut [f32],
) {
    for (start, panel) in outer.clone().step_by(width).zip(panels.chunks_exact_mut(depth.len() * width)) {
        pack_panel(operand, start..outer.end.min(start + width), depth.clone(), width, panel);
    }
}

/// Packs all of an operand, in parallel.
pub(crate) fn pack_all(operand: &impl Operand, outer: usize, depth: usize, width: usize, packed: &mut [f32]) {
    if depth == 0 {
        return;
    }
    packed[..packed_len(outer, depth, width)].par_chunks_mut(depth * width).enumerate().for_each(|(i, panel)| {
        let range = i * width..outer.min((i + 1) * width);
        pack_panel(operand, range, 0..depth, width, panel);
    });
}

/// Sizes of a product: `rows x depth` by `depth x columns`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) depth: usize,
}

impl Sizes {
    /// Rows a task works on: about an eighth, so that a few threads have equal shares, within what the L2 cache holds.
    fn row_block(self, tile: &Tile) -> usize {
        self.rows.div_ceil(8).clamp(1, 192).next_multiple_of(tile.rows)
    }

    /// Numbers of workspace [`gemm`] needs.
    pub(crate) fn workspace(self) -> usize {
        let tile = isa::tile();
        let left = self.row_block(tile) * DEPTH_BLOCK.min(self.depth);
        packed_len(self.columns, self.depth, tile.columns) + left * self.rows.div_ceil(self.row_block(tile))
    }
}

/// `c (+)= a · b` with `c` in rows of `sizes.columns`; `finish(first_row, rows)` then sees each block of finished rows once.
///
/// Every element is summed over the depth in one fixed order, whatever the blocking over rows and columns.
pub(crate) fn gemm(
    sizes: Sizes,
    a: &impl Operand,
    b: &impl Operand,
    c: &mut [f32],
    accumulate: bool,
    workspace: &mut [f32],
    finish: impl Fn(usize, &mut [f32]) + Sync,
) {
    let Sizes { columns, depth, .. } = sizes;
    let tile = isa::tile();
    let (packed, left) = workspace.split_at_mut(packed_len(columns, depth, tile.columns));
    pack_all(b, columns, depth, tile.columns, packed);
    let packed = &*packed;
    let row_block = sizes.row_block(tile);
    let left_len = row_block * DEPTH_BLOCK.min(depth);
    if depth == 0 {
        if !accumulate {
            c.fill(0.0);
        }
        return c.chunks_mut(row_block * columns).enumerate().for_each(|(i, block)| finish(i * row_block, block));
    }
    c.par_chunks_mut(row_block * columns).zip(left.par_chunks_mut(left_len)).enumerate().for_each(
        |(i, (block, left))| {
            let first = i * row_block;
            let block_rows = block.len() / columns;
            for k in (0..depth).step_by(DEPTH_BLOCK) {
                let depths = k..depth.min(k + DEPTH_BLOCK);
                let panel_len = depths.len() * tile.rows;
                // Whole panels may be read where they lie; the last one may need its missing rows filled in.
                let in_place = if a.in_place(first, k).is_some() { block_rows / tile.rows } else { 0 };
                let packed_from = first + in_place * tile.rows;
                pack_panels(a, packed_from..first + block_rows, depths.clone(), tile.rows, left);
                for (j, right) in packed.chunks_exact(depth * tile.columns).enumerate() {
                    let right = &right[depths.start * tile.columns..depths.end * tile.columns];
                    let column = j * tile.columns;
                    for p in 0..block_rows.div_ceil(tile.rows) {
                        let panel = match a.in_place(first + p * tile.rows, k).filter(|_| p < in_place) {
                            Some(rows) => rows,
                            None => tile.panel(&left[(p - in_place) * panel_len..][..panel_len]),
                        };
                        let edge = (tile.rows.min(block_rows - p * tile.rows), tile.columns.min(columns - column));
                        let target = &mut block[p * tile.rows * columns + column..];
                        tile.run_edge(depths.len(), panel, right, target, columns, accumulate || k > 0, edge);
                    }
                }
            }
            finish(first, block);
        },
    );
}

/// Adds `x · W` to `y` for one row: reads `W` (inputs x outputs) once, in order, without packing it.
#[inline(always)]
fn add_vector_matrix_body(x: &[f32], w: &[f32], y: &mut [f32]) {
    const ROWS: usize = 4;
    let columns = y.len();
    // Several rows of W for each pass over y, so that its sums are loaded and stored that much less.
    let (chunks, rest) = x.as_chunks::<ROWS>();
    let (blocks, rest_rows) = w.split_at(chunks.len() * ROWS * columns);
    for (&[x0, x1, x2, x3], block) in chunks.iter().zip(blocks.chunks_exact(ROWS * columns)) {
        let (upper, lower) = block.split_at(2 * columns);
        let ((w0, w1), (w2, w3)) = (upper.split_at(columns), lower.split_at(columns));
        for ((((y, w0), w1), w2), w3) in y.iter_mut().zip(w0).zip(w1).zip(w2).zip(w3) {
            *y += (x0 * w0 + x1 * w1) + (x2 * w2 + x3 * w3);
        }
    }
    for (&x, row) in rest.iter().zip(rest_rows.chunks_exact(columns)) {
        y.iter_mut().zip(row).for_each(|(y, w)| *y += x * w);
    }
}

isa::vectorized!(
    pub(crate) fn add_vector_matrix(x: &[f32], w: &[f32], y: &mut [f32]) = add_vector_matrix_body
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, Random};
    use proptest::prelude::*;

    fn check(rows: usize, columns: usize, depth: usize, transposed: (bool, bool), accumulate: bool) {
        let random = Random::new(1, Purpose::Test, (rows * 1000 + columns) as u64);
        let a: Vec<f32> = (0..rows * depth).map(|i| random.normal(i as u64)).collect();
        let b: Vec<f32> = (0..columns * depth).map(|i| random.normal(1 << 20 | i as u64)).collect();
        let at = |i: usize, k: usize| if transposed.0 { a[k * rows + i] } else { a[i * depth + k] };
        let bt = |k: usize, j: usize| if transposed.1 { b[j * depth + k] } else { b[k * columns + j] };
        let left = if transposed.0 { Matrix::interleaved(&a, rows) } else { Matrix::contiguous(&a, depth) };
        let right = if transposed.1 { Matrix::contiguous(&b, depth) } else { Matrix::interleaved(&b, columns) };
        let sizes = Sizes { rows, columns, depth };
        let mut c = vec![1.0; rows * columns];
        let mut workspace = vec![f32::NAN; sizes.workspace()];
        gemm(sizes, &left, &right, &mut c, accumulate, &mut workspace, |_, block| {
            block.iter_mut().for_each(|v| *v += 2.0)
        });
        for i in 0..rows {
            for j in 0..columns {
                let sum: f64 = (0..depth).map(|k| f64::from(at(i, k)) * f64::from(bt(k, j))).sum();
                let expected = sum + 2.0 + if accumulate { 1.0 } else { 0.0 };
                let found = f64::from(c[i * columns + j]);
                assert!(
                    (found - expected).abs() < 1e-4 * (1.0 + depth as f64).sqrt(),
                    "({i}, {j}): {found} {expected}"
                );
            }
        }
    }

    #[test]
    fn long_sums_cross_depth_blocks() {
        check(7, 33, 3 * DEPTH_BLOCK + 5, (false, false), false);
        check(100, 100, 600, (false, true), true);
        check(3, 2, 0, (false, false), false);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_sizes(rows in 1usize..40, columns in 1usize..70, depth in 1usize..50, ta: bool, tb: bool, accumulate: bool) {
            check(rows, columns, depth, (ta, tb), accumulate);
        }

        #[test]
        fn one_row(columns in 1usize..300, depth in 1usize..50) {
            let random = Random::new(2, Purpose::Test, columns as u64);
            let x: Vec<f32> = (0..depth).map(|i| random.normal(i as u64)).collect();
            let w: Vec<f32> = (0..columns * depth).map(|i| random.normal(1 << 20 | i as u64)).collect();
            let mut y = vec![1.0; columns];
            add_vector_matrix(&x, &w, &mut y);
            for j in 0..columns {
                let sum: f64 = (0..depth).map(|k| f64::from(x[k]) * f64::from(w[k * columns + j])).sum();
                prop_assert!((f64::from(y[j]) - 1.0 - sum).abs() < 1e-4);
            }
        }
    }
}
