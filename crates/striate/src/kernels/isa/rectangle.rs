//! A rectangle of a matrix in memory that several threads may write, each its own columns.

use super::{Left, MAX_TILE, Tile};
use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// A writable rectangle of a row-major matrix: row `i`, column `j` lies at `i * stride + j`. Slices cannot say
/// "these columns of every row", so two threads could not share the rows of a result; halves of a rectangle can.
#[derive(Debug)]
pub(crate) struct Rectangle<'a> {
    start: *mut f32,
    rows: usize,
    columns: usize,
    stride: usize,
    lends: PhantomData<&'a mut [f32]>,
}

// SAFETY: a rectangle is the only way to its numbers while it lives, as `&mut [f32]` is.
unsafe impl Send for Rectangle<'_> {}

impl<'a> Rectangle<'a> {
    /// The whole of `data`, in rows of `columns`.
    pub(crate) fn new(data: &'a mut [f32], columns: usize) -> Self {
        let rows = data.len().checked_div(columns).unwrap_or(0);
        Self { start: data.as_mut_ptr(), rows, columns, stride: columns, lends: PhantomData }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// Row `i`, which must be one.
    pub(crate) fn row_mut(&mut self, i: usize) -> &mut [f32] {
        assert!(i < self.rows, "the rectangle has {} rows", self.rows);
        // SAFETY: the row lies in the rectangle, which is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(i * self.stride), self.columns) }
    }

    /// The columns before `at`, and those from `at` on.
    pub(crate) fn split_columns(self, at: usize) -> (Self, Self) {
        let at = at.min(self.columns);
        // SAFETY: `at` is at most the row's length, so the pointer stays within the array or one past its last row's end;
        // with no rows at all nothing will be read or written through it.
        let right = unsafe { self.start.add(if self.rows == 0 { 0 } else { at }) };
        let columns = self.columns - at;
        (Self { columns: at, ..self }, Self { start: right, columns, ..self })
    }
}

impl Tile {
    /// Columns of the panel for the last `rest` columns of a right side: the narrow block where it suffices.
    #[inline]
    pub(crate) fn panel_width(&self, rest: usize) -> usize {
        if rest <= self.narrow.0 { self.narrow.0 } else { self.columns }
    }

    /// `c (+)= a · b` for the block of `c` at `(row, column)`, cut off at its edges: `b` is a packed panel
    /// (depth x `width`), `width` one that [`Tile::panel_width`] gives.
    #[inline]
    pub(crate) fn run_into(
        &self,
        depth: usize,
        a: Left<'_>,
        (b, width): (&[f32], usize),
        c: &mut Rectangle<'_>,
        (row, column): (usize, usize),
        accumulate: bool,
    ) {
        assert!(width == self.columns || width == self.narrow.0, "no block is as wide as this panel");
        let last = (self.rows - 1) * a.steps.0 + depth.saturating_sub(1) * a.steps.1;
        assert!(depth == 0 || last < a.data.len(), "the left side is too short");
        assert!(b.len() >= depth * width, "the right panel is shorter than the depth");
        assert!(row < c.rows && column < c.columns, "the block lies outside the rectangle");
        let (a_start, b_start) = (a.data.as_ptr(), b.as_ptr());
        let (rows, columns) = (self.rows.min(c.rows - row), width.min(c.columns - column));
        let (high, kernel) = match rows <= self.short.0 {
            true if width == self.columns => self.short,
            _ if width == self.columns => (self.rows, self.kernel),
            _ => (self.rows, self.narrow.1),
        };
        if rows == high && columns == width {
            // SAFETY: a `Tile` is only handed out for a detected instruction set, the lengths were checked just now, and
            // the whole block lies in the rectangle.
            unsafe {
                let target = c.start.add(row * c.stride + column);
                kernel(depth, a_start, a.steps, b_start, target, c.stride, accumulate);
            }
            return;
        }
        let mut block = MaybeUninit::<[f32; MAX_TILE]>::uninit();
        // SAFETY: as above, with a block of its own that no tile exceeds; the kernel writes all its rows.
        let block = unsafe {
            kernel(depth, a_start, a.steps, b_start, block.as_mut_ptr().cast(), width, false);
            std::slice::from_raw_parts(block.as_ptr().cast::<f32>(), high * width)
        };
        for (i, source) in block.chunks_exact(width).take(rows).enumerate() {
            // SAFETY: `row + i` and the `columns` from `column` on lie in the rectangle, which is borrowed mutably.
            let target = unsafe { std::slice::from_raw_parts_mut(c.start.add((row + i) * c.stride + column), columns) };
            if accumulate {
                target.iter_mut().zip(source).for_each(|(c, s)| *c += s);
            } else {
                // A loop: a call of memcpy for a few numbers took longer than the copy.
                target.iter_mut().zip(source).for_each(|(c, s)| *c = *s);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Isa;
    use super::*;
    use crate::random::{Purpose, Random};

    #[test]
    fn halves_are_written_side_by_side_and_nothing_else() {
        let random = Random::new(6, Purpose::Test, 0);
        for isa in Isa::available() {
            let tile = isa.tile().expect("available");
            let depth = 37;
            let a: Vec<f32> = (0..depth * tile.rows).map(|i| random.normal(i as u64)).collect();
            let b: Vec<f32> = (0..depth * tile.columns).map(|i| random.normal(9999 + i as u64)).collect();
            for width in [tile.columns, tile.narrow.0] {
                for (rows, columns) in
                    [(tile.rows, width), (tile.rows - 1, width), (tile.short.0, width), (tile.rows, width - 1), (1, 1)]
                {
                    let total = columns + 5;
                    let mut c = vec![0.5; rows * total];
                    let (_, right) = Rectangle::new(&mut c, total).split_columns(2);
                    let (mut middle, _) = right.split_columns(columns);
                    tile.run_into(depth, tile.panel(&a), (&b, width), &mut middle, (0, 0), false);
                    tile.run_into(depth, tile.panel(&a), (&b, width), &mut middle, (0, 0), true);
                    for (i, row) in c.chunks_exact(total).enumerate() {
                        for (j, &found) in row.iter().enumerate() {
                            let product =
                                |k: usize, j: usize| f64::from(a[k * tile.rows + i]) * f64::from(b[k * width + j]);
                            let expected = match j.checked_sub(2).filter(|&j| j < columns) {
                                Some(j) => 2.0 * (0..depth).map(|k| product(k, j)).sum::<f64>(),
                                None => 0.5,
                            };
                            assert!((f64::from(found) - expected).abs() < 1e-4, "{isa} {width} ({i}, {j})");
                        }
                    }
                }
            }
        }
    }
}
