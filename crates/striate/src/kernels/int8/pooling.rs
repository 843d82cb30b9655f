//! Pooling of bytes, all channels of a pixel side by side.

use super::{CHUNK, to_byte};
use crate::kernels::adaptive_pooling;
use crate::kernels::isa::vectorized;
use crate::kernels::pooling::Geometry;
use crate::shape::Shape;
use rayon::prelude::*;
use std::ops::Range;

/// Output pixels of a task.
fn pixels_a_task(channels: usize, taps: usize) -> usize {
    (CHUNK / (channels * taps).max(1)).max(1)
}

/// The largest byte of each channel under each window.
pub(crate) fn max_pool(g: &Geometry, x: &[u8], y: &mut [u8]) {
    let channels = g.input.channels;
    let pixels = pixels_a_task(channels, g.window.kernel.0 * g.window.kernel.1);
    y.par_chunks_mut(pixels * channels).enumerate().for_each(|(task, y)| maxima(g, x, task * pixels, y));
}

vectorized! {
    fn maxima(g: &Geometry, x: &[u8], first: usize, y: &mut [u8]) = maxima_of
}

#[inline(always)]
fn maxima_of(g: &Geometry, x: &[u8], first: usize, y: &mut [u8]) {
    let channels = g.input.channels;
    for (pixel, y) in y.chunks_exact_mut(channels).enumerate() {
        let at = first + pixel;
        let (n, at) = (at / g.output.area(), at % g.output.area());
        let image = &x[n * g.input.len()..][..g.input.len()];
        let (rows, columns) = g.under(at / g.output.width, at % g.output.width);
        y.fill(0);
        for row in rows.step_by(g.window.dilation.0) {
            for column in columns.clone().step_by(g.window.dilation.1) {
                let x = &image[(row * g.input.width + column) * channels..][..channels];
                y.iter_mut().zip(x).for_each(|(y, &x)| *y = (*y).max(x));
            }
        }
    }
}

/// Means over rectangles of every map.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Average {
    pub(crate) regions: Regions,
    /// The scale of the input and that of the output.
    pub(crate) scales: (f32, f32),
    /// The byte of 0 in the input and in the output.
    pub(crate) zeros: (u8, u8),
}

/// Which rectangles. They are found while running: nothing is kept for each of them.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Regions {
    /// Under windows; whether padded places count.
    Windows(Geometry, bool),
    /// Those of a grid.
    Grid(adaptive_pooling::Geometry),
}

/// One rectangle: every so many rows and columns of it.
struct Region {
    rows: Range<usize>,
    columns: Range<usize>,
    steps: (usize, usize),
    /// What the sum is divided by.
    count: f32,
}

impl Average {
    fn input(&self) -> Shape {
        match &self.regions {
            Regions::Windows(g, _) => g.input,
            Regions::Grid(g) => g.input,
        }
    }

    fn area(&self) -> usize {
        match &self.regions {
            Regions::Windows(g, _) => g.output.area(),
            Regions::Grid(g) => g.output.0 * g.output.1,
        }
    }

    #[inline(always)]
    fn region(&self, at: usize) -> Region {
        match &self.regions {
            Regions::Windows(g, padding) => {
                let (y, x) = (at / g.output.width, at % g.output.width);
                let (rows, columns) = g.under(y, x);
                Region { rows, columns, steps: g.window.dilation, count: g.count(y, x, *padding) }
            }
            Regions::Grid(g) => {
                let (rows, columns) = g.region(at);
                let count = (rows.len() * columns.len()) as f32;
                Region { rows, columns, steps: (1, 1), count }
            }
        }
    }

    /// `y` (N, regions, C) of `x` (N, H, W, C).
    pub(crate) fn forward(&self, x: &[u8], y: &mut [u8]) {
        let channels = self.input().channels;
        let taps = self.input().area().div_ceil(self.area().max(1));
        let pixels = pixels_a_task(channels, taps);
        y.par_chunks_mut(pixels * channels).enumerate().for_each(|(task, y)| means(self, x, task * pixels, y));
    }
}

vectorized! {
    fn means(average: &Average, x: &[u8], first: usize, y: &mut [u8]) = means_of
}

#[inline(always)]
fn means_of(average: &Average, x: &[u8], first: usize, y: &mut [u8]) {
    const LANES: usize = 32;
    let (input, regions) = (average.input(), average.area());
    let channels = input.channels;
    for (pixel, y) in y.chunks_exact_mut(channels).enumerate() {
        let at = first + pixel;
        let (n, region) = (at / regions, average.region(at % regions));
        let factor = average.scales.0 / (average.scales.1 * region.count);
        let image = &x[n * input.len()..][..input.len()];
        for (block, y) in y.chunks_mut(LANES).enumerate() {
            let mut sums = [0i32; LANES];
            let mut count = 0;
            for row in region.rows.clone().step_by(region.steps.0) {
                for column in region.columns.clone().step_by(region.steps.1) {
                    let x = &image[(row * input.width + column) * channels + block * LANES..][..y.len()];
                    sums.iter_mut().zip(x).for_each(|(sum, &x)| *sum += i32::from(x));
                    count += 1;
                }
            }
            let nothing = count * i32::from(average.zeros.0);
            for (y, sum) in y.iter_mut().zip(&sums) {
                *y = to_byte((sum - nothing) as f32 * factor, average.zeros.1);
            }
        }
    }
}
