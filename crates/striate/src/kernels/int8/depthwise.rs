//! Depthwise convolution: each channel with a filter of its own, side by side in the lanes.

use super::{Bands, Scaling, pad_rows, to_byte};
use crate::kernels::convolution::Geometry;
use crate::kernels::isa::vectorized;
use rayon::prelude::*;

/// Channels summed at a time.
const LANES: usize = 32;

/// Tasks, each with a band of its own to pad.
const TASKS: usize = 32;

/// A depthwise convolution.
#[derive(Clone, Debug)]
pub(crate) struct Depthwise {
    g: Geometry,
    /// (FH, FW, C), the last channels filled up with zeros.
    weights: Vec<i8>,
    scaling: Scaling,
    input_zero: u8,
}

impl Depthwise {
    /// Whether a convolution is of this kind.
    pub(crate) fn takes(g: &Geometry) -> bool {
        g.groups > 1 && g.groups == g.input.channels && g.group_filters() == 1
    }

    /// With filters `w` (C, 1, FH, FW). `scaling.bias` is that of the layer, in steps of the products.
    pub(crate) fn new(g: Geometry, w: &[i8], mut scaling: Scaling, input_zero: u8) -> Self {
        let channels = g.input.channels;
        let lanes = channels.next_multiple_of(LANES);
        let mut weights = vec![0; g.taps() * lanes];
        for (channel, w) in w.chunks_exact(g.taps()).enumerate() {
            w.iter().enumerate().for_each(|(tap, &w)| weights[tap * lanes + channel] = w);
            let sum: i32 = w.iter().map(|&w| i32::from(w)).sum();
            let bias = &mut scaling.bias[channel];
            *bias = bias.wrapping_sub(sum.wrapping_mul(input_zero.into()));
        }
        scaling.bias.resize(lanes, 0);
        scaling.factors.resize(lanes, 0.0);
        Self { g, weights, scaling, input_zero }
    }

    fn bands(&self) -> Bands {
        // A lane of the sum costs more here than in a product of matrices.
        Bands::new(&self.g, 8 * self.g.weights() * self.g.output.width)
    }

    /// Bytes of workspace that [`Depthwise::forward`] needs for a batch.
    pub(crate) fn workspace(&self, batch: usize) -> usize {
        let bands = self.bands();
        (batch * bands.count).min(TASKS) * bands.bytes
    }

    /// `y` (N, OH, OW, C) of `x` (N, H, W, C).
    pub(crate) fn forward(&self, x: &[u8], y: &mut [u8], workspace: &mut [u8]) {
        let (g, bands) = (&self.g, self.bands());
        let of_band = bands.rows * g.output.width * g.filters();
        let mut cuts: Vec<(usize, &mut [u8])> = Vec::new();
        for (n, y) in y.chunks_exact_mut(g.output.len()).enumerate() {
            cuts.extend(y.chunks_mut(of_band).enumerate().map(|(band, y)| (n * bands.count + band, y)));
        }
        let of_task = cuts.len().div_ceil(TASKS);
        cuts.par_chunks_mut(of_task.max(1)).zip(workspace.par_chunks_mut(bands.bytes)).for_each(|(cuts, padded)| {
            for (cut, y) in cuts {
                let (n, first) = (*cut / bands.count, *cut % bands.count * bands.rows);
                pad_rows(&x[n * g.input.len()..], g, bands.inputs(g, first), self.input_zero, padded);
                band(self, padded, bands.pitch, y);
            }
        });
    }
}

vectorized! {
    fn band(layer: &Depthwise, padded: &[u8], pitch: usize, y: &mut [u8]) = band_of
}

#[inline(always)]
fn band_of(layer: &Depthwise, padded: &[u8], pitch: usize, y: &mut [u8]) {
    let (g, scaling) = (&layer.g, &layer.scaling);
    let channels = g.input.channels;
    let lanes = channels.next_multiple_of(LANES);
    for (pixel, y) in y.chunks_exact_mut(channels).enumerate() {
        let (row, column) = (pixel / g.output.width, pixel % g.output.width);
        let start = row * g.window.stride.0 * pitch + column * g.window.stride.1 * channels;
        for first in (0..channels).step_by(LANES) {
            let mut sums = [0i32; LANES];
            for tap in 0..g.taps() {
                let (down, across) = (tap / g.window.kernel.1, tap % g.window.kernel.1);
                let at = start + down * g.window.dilation.0 * pitch + across * g.window.dilation.1 * channels + first;
                let (x, w) = (&padded[at..at + LANES], &layer.weights[tap * lanes + first..][..LANES]);
                for ((sum, &x), &w) in sums.iter_mut().zip(x).zip(w) {
                    *sum += i32::from(i16::from(x)) * i32::from(i16::from(w));
                }
            }
            let mut results = [0u8; LANES];
            let (bias, factors) = (&scaling.bias[first..][..LANES], &scaling.factors[first..][..LANES]);
            for (((result, &sum), &bias), &factor) in results.iter_mut().zip(&sums).zip(bias).zip(factors) {
                *result = to_byte(sum.wrapping_add(bias) as f32 * factor, scaling.zero);
            }
            let here = (channels - first).min(LANES);
            y[first..first + here].copy_from_slice(&results[..here]);
        }
    }
}
