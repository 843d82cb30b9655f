//! Maps of another size: each axis by itself, every new place a weighted sum of a few old ones.

use serde::{Deserialize, Serialize};

/// How the places between pixels get their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Interpolation {
    /// From the nearest pixel.
    Nearest(Nearest),
    /// On a line between the two neighbours.
    Linear,
    /// By the two neighbours on each side, on a cubic with this coefficient.
    Cubic(f64),
}

/// Which pixel is the nearest to a place halfway between two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Nearest {
    /// The nearer one; of two at the same distance the one before.
    PreferFloor,
    /// The nearer one; of two at the same distance the one after.
    PreferCeil,
    /// Always the one before.
    Floor,
    /// Always the one after.
    Ceil,
}

/// Where a new pixel lies among the old ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Coordinates {
    /// Pixels are areas, and their edges meet.
    HalfPixel,
    /// The same around the map's centre, where the scale does not give a whole number of pixels.
    HalfPixelSymmetric,
    /// As [`Coordinates::HalfPixel`], but a single new pixel is the first old one.
    PytorchHalfPixel,
    /// Pixels are points, and the first and the last of both maps meet.
    AlignCorners,
    /// Pixels are points, and the first of both maps meet.
    Asymmetric,
    /// The part of the map between two of its heights or widths, as shares of it.
    Crop,
}

/// One axis to be resized.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Axis {
    pub(crate) input: usize,
    pub(crate) output: usize,
    /// New pixels for each old one.
    pub(crate) scale: f64,
    pub(crate) coordinates: Coordinates,
    pub(crate) interpolation: Interpolation,
    /// Whether fewer pixels are means over all they stand for.
    pub(crate) antialias: bool,
    /// Whether pixels beyond the edge weigh nothing; else they repeat the edge.
    pub(crate) exclude_outside: bool,
    /// For [`Coordinates::Crop`].
    pub(crate) region: (f64, f64),
}

/// The old pixels that a new one is made of, with their weights; none for one outside the map.
pub(crate) type Taps = Vec<(usize, f32)>;

impl Axis {
    /// The taps of every new pixel.
    pub(crate) fn taps(&self) -> Vec<Taps> {
        (0..self.output).map(|at| self.tap(at)).collect()
    }

    fn tap(&self, at: usize) -> Taps {
        let (size, at) = (self.input as f64, at as f64);
        let output = self.scale * size;
        let half = (at + 0.5) / self.scale - 0.5;
        let place = match self.coordinates {
            Coordinates::HalfPixel => half,
            Coordinates::HalfPixelSymmetric => size / 2.0 * (1.0 - self.output as f64 / output) + half,
            Coordinates::PytorchHalfPixel => {
                if output == 1.0 {
                    -0.5
                } else {
                    half
                }
            }
            Coordinates::AlignCorners if output == 1.0 => 0.0,
            Coordinates::AlignCorners => at * (size - 1.0) / (output - 1.0),
            Coordinates::Asymmetric => at / self.scale,
            Coordinates::Crop => {
                let (start, end) = self.region;
                let step = if output == 1.0 { 0.5 } else { at / (output - 1.0) };
                let place = (start + (end - start) * step) * (size - 1.0);
                if place < 0.0 || place > size - 1.0 {
                    return Vec::new();
                }
                place
            }
        };
        // The pixel before the place; a place on a pixel is the end of the gap before it.
        let before = place.ceil() - 1.0;
        let (first, mut weights) = self.weights(place - before);
        let first = before as i64 + first;
        let last = self.input as i64 - 1;
        if self.exclude_outside {
            for (i, weight) in weights.iter_mut().enumerate() {
                if !(0..=last).contains(&(first + i as i64)) {
                    *weight = 0.0;
                }
            }
            let sum: f64 = weights.iter().sum();
            weights.iter_mut().for_each(|weight| *weight /= sum);
        }
        let mut taps: Taps = Vec::with_capacity(weights.len());
        for (i, &weight) in weights.iter().enumerate().filter(|(_, weight)| **weight != 0.0) {
            let pixel = (first + i as i64).clamp(0, last) as usize;
            match taps.last_mut() {
                Some((same, sum)) if *same == pixel => *sum += weight as f32,
                _ => taps.push((pixel, weight as f32)),
            }
        }
        taps
    }

    /// Weights of neighbours for a place this far (above 0, to 1) from the pixel before, and the first of them from it.
    fn weights(&self, ratio: f64) -> (i64, Vec<f64>) {
        let scale = if self.antialias { self.scale.min(1.0) } else { 1.0 };
        let whole = |reach: f64, curve: &dyn Fn(f64) -> f64| {
            let first = (-reach / scale).floor() as i64 + 1;
            let weights: Vec<f64> = (first..2 - first).map(|i| curve((i as f64 - ratio) * scale)).collect();
            let sum: f64 = weights.iter().sum();
            (first, weights.iter().map(|w| w / sum).collect())
        };
        match self.interpolation {
            Interpolation::Nearest(nearest) => {
                let after = match nearest {
                    _ if ratio == 1.0 => true,
                    Nearest::PreferFloor => ratio > 0.5,
                    Nearest::PreferCeil => ratio >= 0.5,
                    Nearest::Floor => false,
                    Nearest::Ceil => true,
                };
                (i64::from(after), vec![1.0])
            }
            Interpolation::Linear => whole(1.0, &|x| (1.0 - x.abs()).max(0.0)),
            Interpolation::Cubic(a) => whole(2.0, &|x| {
                let x = x.abs();
                if x <= 1.0 {
                    ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
                } else if x < 2.0 {
                    ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
                } else {
                    0.0
                }
            }),
        }
    }
}

/// One plane of rows and columns, by the taps of both.
pub(crate) fn forward(rows: &[Taps], columns: &[Taps], x: &[f32], width: usize, y: &mut [f32]) {
    for (row, y) in rows.iter().zip(y.chunks_exact_mut(columns.len())) {
        for (column, y) in columns.iter().zip(y) {
            let along = |&(r, weight): &(usize, f32)| {
                let x = &x[r * width..];
                weight * column.iter().map(|&(c, weight)| weight * x[c]).sum::<f32>()
            };
            *y = row.iter().map(along).sum();
        }
    }
}

/// The gradient of [`forward`], added to `dx`.
pub(crate) fn backward(rows: &[Taps], columns: &[Taps], dy: &[f32], width: usize, dx: &mut [f32]) {
    for (row, dy) in rows.iter().zip(dy.chunks_exact(columns.len())) {
        for (column, &dy) in columns.iter().zip(dy) {
            for &(r, vertical) in row {
                for &(c, horizontal) in column {
                    dx[r * width + c] += dy * vertical * horizontal;
                }
            }
        }
    }
}
