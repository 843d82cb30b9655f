//! Arithmetic on bytes: the layers of a quantized network.
//!
//! A byte `q` of a value stands for `scale (q - zero)` (Jacob et al. 2018, equation 1). Images lie in (N, H, W, C) order,
//! so that the bytes under a row of a window are neighbours, and every buffer of bytes has [`SLACK`] readable bytes
//! after its end. Sums are exact in i32; each becomes a byte by one multiplication in f32 and one rounding to the
//! nearest, ties to even. Both are defined to the bit by IEEE 754, so the result does not depend on the instruction set,
//! the number of threads, or the cut into pieces.

mod depthwise;
mod pointwise;
mod pooling;
mod product;
#[cfg(test)]
mod tests;

pub(crate) use depthwise::Depthwise;
pub(crate) use pointwise::{add, dequantize, lookup, lookup_channels, move_channels, place, quantize};
pub(crate) use pooling::{Average, Regions, max_pool};
pub(crate) use product::{Product, Target};

use super::convolution::Geometry;
use crate::shape::Padding;

/// Bytes that can be read beyond the end of any buffer of bytes.
pub(crate) const SLACK: usize = 64;

/// Multiply-adds that a task has at least: some microseconds.
const TASK: usize = 1 << 20;

/// Bytes of a task that moves bytes and does little with them.
const CHUNK: usize = 16 * 1024;

/// What sums of products become.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scaling {
    /// Added to each channel's sums: the bias, less what the inputs' zero point has added to them.
    pub(crate) bias: Vec<i32>,
    /// What a channel's sums are multiplied by.
    pub(crate) factors: Vec<f32>,
    /// The byte of 0.
    pub(crate) zero: u8,
}

/// 1.5 * 2^23: adding it to a number below 2^22 rounds to the nearest whole number, ties to even, held in the low bits.
const MAGIC: f32 = 12_582_912.0;

/// The nearest byte of a number that is already in steps of the output's scale.
#[inline(always)]
pub(crate) fn to_byte(steps: f32, zero: u8) -> u8 {
    let zero = i32::from(zero);
    // Comparisons rather than `max` and `min`, which would look for NaN: there is none.
    let (low, high) = (-zero as f32, (255 - zero) as f32);
    let held = if steps < low { low } else { steps };
    let held = if held > high { high } else { held };
    ((held + MAGIC).to_bits().wrapping_sub(MAGIC.to_bits()) as i32 + zero) as u8
}

/// Copies rows `rows` of the padded form of an image (H, W, C) to `band`, padding filled with `fill`.
fn pad_rows(x: &[u8], g: &Geometry, rows: std::ops::Range<usize>, fill: u8, band: &mut [u8]) {
    let Padding { top, left, right, .. } = g.window.padding;
    let (row, channels) = (g.input.width * g.input.channels, g.input.channels);
    let padded = row + (left + right) * channels;
    for (at, target) in rows.zip(band.chunks_exact_mut(padded)) {
        match at.checked_sub(top).filter(|&y| y < g.input.height) {
            Some(y) => {
                let (before, rest) = target.split_at_mut(left * channels);
                let (inside, after) = rest.split_at_mut(row);
                before.fill(fill);
                inside.copy_from_slice(&x[y * row..][..row]);
                after.fill(fill);
            }
            None => target.fill(fill),
        }
    }
}

/// How a padded convolution is cut: bands of output rows of one image.
#[derive(Clone, Copy, Debug)]
struct Bands {
    /// Output rows of a band.
    rows: usize,
    /// Bands of an image.
    count: usize,
    /// Bytes of the padded input rows that a band reads, and of slack.
    bytes: usize,
    /// Bytes of one padded row.
    pitch: usize,
}

impl Bands {
    /// Bands of at least `TASK` multiply-adds where the image has so many.
    fn new(g: &Geometry, products_a_row: usize) -> Self {
        let Padding { left, right, .. } = g.window.padding;
        let rows = TASK.div_ceil(products_a_row.max(1)).clamp(1, g.output.height.max(1));
        let pitch = (g.input.width + left + right) * g.input.channels;
        let inputs = (rows - 1) * g.window.stride.0 + (g.window.kernel.0 - 1) * g.window.dilation.0 + 1;
        Self { rows, count: g.output.height.div_ceil(rows), bytes: inputs * pitch + SLACK, pitch }
    }

    /// The padded input rows that the output rows from `first` on read.
    fn inputs(&self, g: &Geometry, first: usize) -> std::ops::Range<usize> {
        let start = first * g.window.stride.0;
        let end = start + (self.bytes - SLACK) / self.pitch;
        let Padding { top, bottom, .. } = g.window.padding;
        start..end.min(g.input.height + top + bottom)
    }
}
