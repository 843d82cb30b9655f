//! Where the pixels of an image go: flips, shifted windows, affine maps.

use super::Fill;
use crate::{kernels::isa::vectorized, shape::Shape};

/// Left becomes right in every row.
pub(super) fn flip(pixels: &mut [f32], width: usize) {
    pixels.chunks_exact_mut(width).for_each(<[f32]>::reverse);
}

/// The place in 0..length that position `at` shows in mirrors at both ends.
#[inline(always)]
fn reflect(at: isize, length: usize) -> usize {
    if length == 1 {
        return 0;
    }
    let period = 2 * (length - 1);
    let at = at.rem_euclid(period as isize) as usize;
    if at < length { at } else { period - at }
}

/// The image seen through a window that is moved down and to the right.
pub(super) fn shifted(shape: Shape, from: &[f32], to: &mut [f32], down: isize, right: isize, fill: Fill) {
    let Shape { height, width, .. } = shape;
    let inside = |at: isize, length: usize| usize::try_from(at).ok().filter(|&at| at < length);
    // Columns that show the image itself.
    let start = right.min(0).unsigned_abs().min(width);
    let end = width - (right.max(0) as usize).min(width);
    for (from, to) in from.chunks_exact(shape.area()).zip(to.chunks_exact_mut(shape.area())) {
        for (y, to) in to.chunks_exact_mut(width).enumerate() {
            let y = y as isize + down;
            let row = match fill {
                Fill::Zero => inside(y, height),
                Fill::Reflect => Some(reflect(y, height)),
            };
            let Some(row) = row.and_then(|row| from.chunks_exact(width).nth(row)) else {
                to.fill(0.0);
                continue;
            };
            if start < end {
                let first = (start as isize + right) as usize;
                to[start..end].copy_from_slice(&row[first..first + end - start]);
            }
            for x in (0..start.min(width)).chain(end.max(start)..width) {
                to[x] = if fill == Fill::Zero { 0.0 } else { row[reflect(x as isize + right, width)] };
            }
        }
    }
}

/// Where each pixel of the new image comes from: row and column `matrix . (y, x) + origin` of the old one.
#[derive(Clone, Copy)]
pub(super) struct Map {
    matrix: [[f32; 2]; 2],
    origin: [f32; 2],
}

impl Map {
    /// The part of an image that begins at a share of its (height, width) and is a share of it tall and wide.
    pub(super) fn part((height, width): (usize, usize), (top, left): (f64, f64), (tall, wide): (f64, f64)) -> Self {
        // Pixel i covers [i, i + 1), so its middle is i + 1/2.
        let origin = |start: f64, share: f64, length: usize| (start * length as f64 + 0.5 * share - 0.5) as f32;
        Self {
            matrix: [[tall as f32, 0.0], [0.0, wide as f32]],
            origin: [origin(top, tall, height), origin(left, wide, width)],
        }
    }

    /// Rows slanted by `shear`, then scaled, turned counter-clockwise by `angle` about the middle, and moved.
    pub(super) fn turn(
        (height, width): (usize, usize),
        angle: f64,
        scale: f64,
        shear: f64,
        (down, right): (f64, f64),
    ) -> Self {
        // With x to the right and y down, as columns (x, y): turning is [c s; -s c], slanting is [1 t; 0 1]. Of the
        // product M = turn . scale . slant the inverse is wanted: M^-1 = [1 -t; 0 1] . [c -s; s c] / scale.
        let (sin, cos, slant) = (angle.sin(), angle.cos(), shear.tan());
        let (xx, xy) = ((cos - slant * sin) / scale, (-sin - slant * cos) / scale);
        let (yx, yy) = (sin / scale, cos / scale);
        let (middle_y, middle_x) = ((height as f64 - 1.0) / 2.0, (width as f64 - 1.0) / 2.0);
        let (y, x) = (-middle_y - down, -middle_x - right);
        Self {
            matrix: [[yy as f32, yx as f32], [xy as f32, xx as f32]],
            origin: [(yy * y + yx * x + middle_y) as f32, (xy * y + xx * x + middle_x) as f32],
        }
    }
}

/// What stands beyond the edges of an image that is warped.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Edge {
    Zero,
    Reflect,
    /// The nearest pixel.
    Clamp,
}

impl Edge {
    /// Which pixel of 0..length stands at `at`, if any.
    #[inline(always)]
    fn at(self, at: i32, length: usize) -> Option<usize> {
        match self {
            Edge::Zero => usize::try_from(at).ok().filter(|&at| at < length),
            Edge::Reflect => Some(reflect(at as isize, length)),
            Edge::Clamp => Some((at.max(0) as usize).min(length - 1)),
        }
    }
}

vectorized!(
    /// Writes the image `from` into `to`, bilinearly interpolated where `map` says.
    pub(super) fn warp(shape: Shape, from: &[f32], to: &mut [f32], map: Map, edge: Edge) = warp_in
);

#[inline(always)]
fn warp_in(shape: Shape, from: &[f32], to: &mut [f32], map: Map, edge: Edge) {
    let Shape { height, width, .. } = shape;
    let area = shape.area();
    let [[yy, yx], [xy, xx]] = map.matrix;
    let [y_origin, x_origin] = map.origin;
    for row in 0..height {
        let (y_start, x_start) = (yy * row as f32 + y_origin, xy * row as f32 + x_origin);
        for column in 0..width {
            let (y, x) = (yx * column as f32 + y_start, xx * column as f32 + x_start);
            let (y_floor, x_floor) = (y.floor(), x.floor());
            let (v, u) = (y - y_floor, x - x_floor);
            // Weights w and 1 - w, not a + w (b - a): rounded sums then stay between 0 and 1 if the pixels are.
            let (above, left) = (1.0 - v, 1.0 - u);
            let (y, x) = (y_floor as i32, x_floor as i32);
            let at = row * width + column;
            if y >= 0 && x >= 0 && (y as usize) + 1 < height && (x as usize) + 1 < width {
                let mut first = y as usize * width + x as usize;
                let mut at = at;
                while at < to.len() {
                    let upper = from[first] * left + from[first + 1] * u;
                    let lower = from[first + width] * left + from[first + width + 1] * u;
                    to[at] = upper * above + lower * v;
                    (first, at) = (first + area, at + area);
                }
            } else {
                let (top, bottom) = (edge.at(y, height), edge.at(y.saturating_add(1), height));
                let (west, east) = (edge.at(x, width), edge.at(x.saturating_add(1), width));
                for (from, to) in from.chunks_exact(area).zip(to.chunks_exact_mut(area)) {
                    let pixel = |row: Option<usize>, column: Option<usize>| match (row, column) {
                        (Some(row), Some(column)) => from[row * width + column],
                        _ => 0.0,
                    };
                    let upper = pixel(top, west) * left + pixel(top, east) * u;
                    let lower = pixel(bottom, west) * left + pixel(bottom, east) * u;
                    to[at] = upper * above + lower * v;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: [f32; 6] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6];
    const SHAPE: Shape = Shape::new(1, 2, 3);

    fn close(found: &[f32], expected: &[f32]) {
        assert_eq!(found.len(), expected.len());
        let differ = found.iter().zip(expected).any(|(a, b)| (a - b).abs() > 1e-5);
        assert!(!differ, "{found:?} is not {expected:?}");
    }

    fn warped(shape: Shape, from: &[f32], map: Map, edge: Edge) -> Vec<f32> {
        let mut to = vec![f32::NAN; from.len()];
        warp(shape, from, &mut to, map, edge);
        to
    }

    #[test]
    fn flipping() {
        let mut pixels = FROM;
        flip(&mut pixels, 3);
        assert_eq!(pixels, [0.3, 0.2, 0.1, 0.6, 0.5, 0.4]);
    }

    #[test]
    fn mirrors() {
        assert_eq!([-5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5].map(|at| reflect(at, 3)), [1, 0, 1, 2, 1, 0, 1, 2, 1, 0, 1]);
        assert_eq!([-1, 0, 7].map(|at| reflect(at, 1)), [0, 0, 0]);
    }

    #[test]
    fn windows_of_a_padded_image() {
        let shift = |down, right, fill| {
            let mut to = [f32::NAN; 6];
            shifted(SHAPE, &FROM, &mut to, down, right, fill);
            to
        };
        assert_eq!(shift(0, 1, Fill::Zero), [0.2, 0.3, 0.0, 0.5, 0.6, 0.0]);
        assert_eq!(shift(1, -2, Fill::Zero), [0.0, 0.0, 0.4, 0.0, 0.0, 0.0]);
        assert_eq!(shift(-1, 0, Fill::Zero), [0.0, 0.0, 0.0, 0.1, 0.2, 0.3]);
        assert_eq!(shift(0, 1, Fill::Reflect), [0.2, 0.3, 0.2, 0.5, 0.6, 0.5]);
        assert_eq!(shift(-1, -2, Fill::Reflect), [0.6, 0.5, 0.4, 0.3, 0.2, 0.1]);
        assert_eq!([shift(5, 0, Fill::Zero), shift(0, -9, Fill::Zero)], [[0.0; 6]; 2]);
    }

    #[test]
    fn turning_and_moving() {
        let square = Shape::new(1, 3, 3);
        let from: Vec<f32> = (1..=9).map(|v| v as f32 / 10.0).collect();
        let turn = |degrees: f64, scale, shear: f64, shift| {
            let map = Map::turn((3, 3), degrees.to_radians(), scale, shear.to_radians(), shift);
            warped(square, &from, map, Edge::Zero)
        };
        assert_eq!(turn(0.0, 1.0, 0.0, (0.0, 0.0)), from, "no change, bit for bit");
        // Counter-clockwise: the right column becomes the top row. 1e-8 beyond the edge is the edge.
        close(&turn(90.0, 1.0, 0.0, (0.0, 0.0)), &[0.3, 0.6, 0.9, 0.2, 0.5, 0.8, 0.1, 0.4, 0.7]);
        close(&turn(180.0, 1.0, 0.0, (0.0, 0.0)), &[0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]);
        close(&turn(0.0, 1.0, 0.0, (1.0, 0.0)), &[0.0, 0.0, 0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]);
        close(&turn(0.0, 1.0, 0.0, (0.0, -0.5)), &[0.15, 0.25, 0.15, 0.45, 0.55, 0.3, 0.75, 0.85, 0.45]);
        // Twice as large: from half a pixel beside the middle.
        close(&turn(0.0, 2.0, 0.0, (0.0, 0.0)), &[0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7]);
        // Slanted by 45 degrees, the row below the middle moves one to the right, the one above to the left.
        close(&turn(0.0, 1.0, 45.0, (0.0, 0.0)), &[0.2, 0.3, 0.0, 0.4, 0.5, 0.6, 0.0, 0.7, 0.8]);
    }

    #[test]
    fn parts() {
        let row = Shape::new(1, 1, 4);
        let from = [0.0, 0.2, 0.4, 0.6];
        let part = |left, wide| warped(row, &from, Map::part((1, 4), (0.0, left), (1.0, wide)), Edge::Clamp);
        assert_eq!(part(0.0, 1.0), from, "the whole, bit for bit");
        // The left half: pixels 0 and 1, doubled; the first and last lie outside their middles.
        close(&part(0.0, 0.5), &[0.0, 0.05, 0.15, 0.25]);
        close(&part(0.5, 0.5), &[0.35, 0.45, 0.55, 0.6]);
    }

    #[test]
    fn edges() {
        let row = Shape::new(1, 1, 3);
        let map = Map { matrix: [[1.0, 0.0], [0.0, 1.0]], origin: [0.0, 1.5] };
        let with = |edge| warped(row, &[0.2, 0.4, 0.8], map, edge);
        close(&with(Edge::Zero), &[0.6, 0.4, 0.0]);
        close(&with(Edge::Clamp), &[0.6, 0.8, 0.8]);
        close(&with(Edge::Reflect), &[0.6, 0.6, 0.3]);
        // Far away, and beyond what an i32 can count.
        for origin in [1e6, -1e6, 1e30, -1e30] {
            let map = Map { matrix: [[1.0, 0.0], [0.0, 1.0]], origin: [origin, origin] };
            assert_eq!(warped(row, &[0.2, 0.4, 0.8], map, Edge::Zero), [0.0; 3]);
            assert_eq!(warped(row, &[0.5; 3], map, Edge::Reflect), [0.5; 3]);
        }
    }
}
