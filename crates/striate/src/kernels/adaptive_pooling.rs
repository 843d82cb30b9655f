//! Means over the regions of a grid.

use super::{CHUNK, elementwise, isa};
use crate::shape::{Shape, ShapeError};
use rayon::prelude::*;
use std::ops::Range;

/// An input sample and the grid it is pooled to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) input: Shape,
    pub(crate) output: (usize, usize),
}

impl Geometry {
    pub(crate) fn new(input: Shape, output: (usize, usize)) -> Result<Self, ShapeError> {
        if input.is_empty() {
            return Err(ShapeError::Empty {
                what: "the input of adaptive pooling",
                found: <[usize; 3]>::from(input).into(),
            });
        }
        for (what, cells, size) in [
            ("the height of adaptive pooling's grid", output.0, input.height),
            ("the width of adaptive pooling's grid", output.1, input.width),
        ] {
            if cells == 0 || cells > size {
                let found = format!("{cells} for a map of {size}");
                return Err(ShapeError::Option { what, found, expected: "at least 1 and at most the map's size" });
            }
        }
        Ok(Self { input, output })
    }

    /// Rows and columns of each cell's region: neighbours share a line where the grid does not divide the map.
    fn regions(&self) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
        (0..self.output.0 * self.output.1).map(|i| self.region(i))
    }

    /// Those of cell `i`.
    #[inline(always)]
    pub(crate) fn region(&self, i: usize) -> (Range<usize>, Range<usize>) {
        let span = |i: usize, cells: usize, size: usize| i * size / cells..((i + 1) * size).div_ceil(cells);
        let (rows, columns) = self.output;
        (span(i / columns, rows, self.input.height), span(i % columns, columns, self.input.width))
    }

    /// Whether each cell is a pixel.
    fn is_copy(&self) -> bool {
        self.output == (self.input.height, self.input.width)
    }

    fn maps_a_task(&self) -> usize {
        (CHUNK / self.input.area()).max(1)
    }
}

/// The mean of each region of each map.
pub(crate) fn forward(g: &Geometry, x: &[f32], y: &mut [f32]) {
    if g.is_copy() {
        return elementwise::for_chunks(y, x, |y, x| y.copy_from_slice(x));
    }
    let (area, cells, maps) = (g.input.area(), g.output.0 * g.output.1, g.maps_a_task());
    y.par_chunks_mut(maps * cells).zip(x.par_chunks(maps * area)).for_each(|(y, x)| {
        isa::vectorize(|| {
            for (y, x) in y.chunks_exact_mut(cells).zip(x.chunks_exact(area)) {
                for (y, (rows, columns)) in y.iter_mut().zip(g.regions()) {
                    let count = rows.len() * columns.len();
                    // A row in f32, the rows in f64: a map of a million pixels keeps its digits.
                    let row = |r: usize| f64::from(x[r * g.input.width..][columns.clone()].iter().sum::<f32>());
                    *y = (rows.map(row).sum::<f64>() / count as f64) as f32;
                }
            }
        });
    });
}

/// Each cell's gradient in equal shares over its region, written to `dx` or added to it.
pub(crate) fn backward(g: &Geometry, dy: &[f32], dx: &mut [f32], accumulate: bool) {
    if g.is_copy() {
        return elementwise::pass_gradient(dy, None, dx, accumulate);
    }
    let (area, cells, maps) = (g.input.area(), g.output.0 * g.output.1, g.maps_a_task());
    dx.par_chunks_mut(maps * area).zip(dy.par_chunks(maps * cells)).for_each(|(dx, dy)| {
        isa::vectorize(|| {
            if !accumulate {
                dx.fill(0.0);
            }
            for (dx, dy) in dx.chunks_exact_mut(area).zip(dy.chunks_exact(cells)) {
                for (dy, (rows, columns)) in dy.iter().zip(g.regions()) {
                    let share = dy / (rows.len() * columns.len()) as f32;
                    for r in rows {
                        dx[r * g.input.width..][columns.clone()].iter_mut().for_each(|d| *d += share);
                    }
                }
            }
        });
    });
}
