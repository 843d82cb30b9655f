//! Changing the size of a plane of pixels with the triangle filter.
//!
//! When an image shrinks, the triangle widens to cover two output pixels, so every input pixel counts (no aliasing);
//! when it grows, this is bilinear interpolation. It is what most training code calls "bilinear, antialiased".

use crate::kernels::isa::vectorize;
use std::ops::Range;

/// A rectangle of whole pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rectangle {
    pub(super) left: usize,
    pub(super) top: usize,
    pub(super) width: usize,
    pub(super) height: usize,
}

/// For each output pixel along one axis, which input pixels count and how much.
struct Weights {
    /// First input pixel, and where its weights begin.
    starts: Vec<(usize, usize)>,
    weights: Vec<f32>,
}

impl Weights {
    /// Of output pixels `part`, counted from 0, of `output`.
    fn new(input: usize, output: usize, part: Range<usize>) -> Self {
        let scale = input as f64 / output as f64;
        let radius = scale.max(1.0);
        let (mut starts, mut weights) = (Vec::with_capacity(part.len()), Vec::new());
        for i in part {
            let centre = (i as f64 + 0.5) * scale;
            // The centre lies inside the input, so at least one pixel has a positive weight.
            let first = ((centre - radius + 0.5).floor().max(0.0) as usize).min(input - 1);
            let end = ((centre + radius + 0.5).floor() as usize).clamp(first + 1, input);
            let at = weights.len();
            starts.push((first, at));
            let raw = |x: usize| (1.0 - (x as f64 + 0.5 - centre).abs() / radius).max(0.0);
            let sum: f64 = (first..end).map(raw).sum();
            weights.extend((first..end).map(|x| (raw(x) / sum) as f32));
        }
        Self { starts, weights }
    }

    /// First input pixel and the weights of output pixel `i`, counted from the part's first.
    fn of(&self, i: usize) -> (usize, &[f32]) {
        let (first, at) = self.starts[i];
        let end = self.starts.get(i + 1).map_or(self.weights.len(), |&(_, next)| next);
        (first, &self.weights[at..end])
    }
}

/// Output rows that are finished together: their sums stand side by side, so that columns are mixed in vectors.
const LANES: usize = 8;
/// Sums of a row that are held in registers.
const BLOCK: usize = 32;

/// The part `crop` of an image whose rows are `stride` pixels long, each of `channels` values, as planes (C, H, W) of
/// `height` rows of `width` columns.
pub(super) fn resample(
    pixels: &[u8],
    channels: usize,
    stride: usize,
    crop: Rectangle,
    height: usize,
    width: usize,
) -> Vec<u8> {
    resample_part(pixels, channels, stride, crop, (height, width), Rectangle { left: 0, top: 0, width, height })
}

/// Of what [`resample`] makes in `size` (height, width), the part `of` alone: the same pixels, without making the others.
pub(super) fn resample_part(
    pixels: &[u8],
    channels: usize,
    stride: usize,
    crop: Rectangle,
    size: (usize, usize),
    of: Rectangle,
) -> Vec<u8> {
    let vertical = Weights::new(crop.height, size.0, of.top..of.top + of.height);
    let horizontal = Weights::new(crop.width, size.1, of.left..of.left + of.width);
    let (height, width) = (of.height, of.width);
    let mut out = vec![0; channels * height * width];
    let mut sums = vec![0.0f32; crop.width * channels];
    let mut columns = vec![[0.0f32; LANES]; crop.width * channels];
    // First the rows are mixed, then the columns: a few rows of sums are all the memory.
    for top in (0..height).step_by(LANES) {
        let rows = LANES.min(height - top);
        for lane in 0..rows {
            let (first, weights) = vertical.of(top + lane);
            let start = ((crop.top + first) * stride + crop.left) * channels;
            vectorize(|| mix_rows(&pixels[start..], stride * channels, weights, &mut sums));
            for (channel, columns) in columns.chunks_exact_mut(crop.width).enumerate() {
                let sums = sums.iter().skip(channel).step_by(channels);
                columns.iter_mut().zip(sums).for_each(|(column, &sum)| column[lane] = sum);
            }
        }
        for (plane, columns) in out.chunks_exact_mut(height * width).zip(columns.chunks_exact(crop.width)) {
            let plane = &mut plane[top * width..];
            vectorize(|| {
                for x in 0..width {
                    let (first, weights) = horizontal.of(x);
                    let values = mix_columns(&columns[first..], weights);
                    plane.iter_mut().skip(x).step_by(width).zip(&values[..rows]).for_each(|(to, &value)| *to = value);
                }
            });
        }
    }
    out
}

/// The weighted sum of rows that are `stride` values apart.
#[inline(always)]
fn mix_rows(pixels: &[u8], stride: usize, weights: &[f32], sums: &mut [f32]) {
    let (blocks, rest) = sums.as_chunks_mut::<BLOCK>();
    for (block, sums) in blocks.iter_mut().enumerate() {
        let mut held = [0.0; BLOCK];
        for (row, &weight) in weights.iter().enumerate() {
            let pixels = &pixels[row * stride + block * BLOCK..][..BLOCK];
            held.iter_mut().zip(pixels).for_each(|(sum, &pixel)| *sum += weight * f32::from(pixel));
        }
        *sums = held;
    }
    let done = blocks.len() * BLOCK;
    rest.fill(0.0);
    for (row, &weight) in weights.iter().enumerate() {
        let pixels = &pixels[row * stride + done..][..rest.len()];
        rest.iter_mut().zip(pixels).for_each(|(sum, &pixel)| *sum += weight * f32::from(pixel));
    }
}

/// The weighted sum of columns, rounded.
#[inline(always)]
fn mix_columns(columns: &[[f32; LANES]], weights: &[f32]) -> [u8; LANES] {
    let mut values = [0.0; LANES];
    for (column, &weight) in columns.iter().zip(weights) {
        values.iter_mut().zip(column).for_each(|(value, sum)| *value += weight * sum);
    }
    values.map(|value| (value + 0.5) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(width: usize, height: usize) -> Rectangle {
        Rectangle { left: 0, top: 0, width, height }
    }

    #[test]
    fn halving_weighs_the_neighbours() {
        // Triangle of radius 2 at 1.0: pixels 0..3 at distances .5, .5, 1.5 weigh 3, 3, 1.
        let row = [70, 0, 0, 0];
        assert_eq!(resample(&row, 1, 4, whole(4, 1), 1, 2), [30, 0]);
    }

    #[test]
    fn doubling_interpolates() {
        assert_eq!(resample(&[0, 100], 1, 2, whole(2, 1), 1, 4), [0, 25, 75, 100]);
    }

    /// As the definition says, a pixel at a time.
    fn plain(plane: &[u8], stride: usize, crop: Rectangle, height: usize, width: usize) -> Vec<u8> {
        let vertical = Weights::new(crop.height, height, 0..height);
        let horizontal = Weights::new(crop.width, width, 0..width);
        let mut out = Vec::new();
        for y in 0..height {
            for x in 0..width {
                let ((top, down), (left, across)) = (vertical.of(y), horizontal.of(x));
                let mut value = 0.0;
                for (column, &weight) in across.iter().enumerate() {
                    let at = (crop.top + top) * stride + crop.left + left + column;
                    let of_row = |(row, weight): (usize, &f32)| weight * f32::from(plane[at + row * stride]);
                    value += weight * down.iter().enumerate().map(of_row).fold(0.0, |sum, part| sum + part);
                }
                out.push((value + 0.5) as u8);
            }
        }
        out
    }

    proptest! {
        #[test]
        fn interleaved_or_not_it_is_the_definition(
            crop in (0usize..5, 0usize..5, 1usize..90, 1usize..30), target in (1usize..30, 1usize..40), seed: u8,
        ) {
            let crop = Rectangle { left: crop.0, top: crop.1, width: crop.2, height: crop.3 };
            let (stride, rows) = (crop.left + crop.width + 3, crop.top + crop.height);
            let plane = |channel: usize| -> Vec<u8> {
                (0..stride * rows).map(|i| ((i * (31 + channel) + usize::from(seed)) * (i + 7) % 256) as u8).collect()
            };
            let planes = [plane(0), plane(1), plane(2)];
            let interleaved: Vec<u8> = (0..stride * rows).flat_map(|i| [planes[0][i], planes[1][i], planes[2][i]]).collect();
            let found = resample(&interleaved, 3, stride, crop, target.0, target.1);
            for (plane, found) in planes.iter().zip(found.chunks_exact(target.0 * target.1)) {
                let expected = plain(plane, stride, crop, target.0, target.1);
                prop_assert_eq!(found, &expected[..]);
                prop_assert_eq!(&resample(plane, 1, stride, crop, target.0, target.1), &expected);
            }
        }

        #[test]
        fn a_part_is_cut_out_of_the_whole(
            size in (1usize..40, 1usize..30), target in (1usize..40, 1usize..40), part in (0.0f64..1.0, 0.0f64..1.0), seed: u8,
        ) {
            let plane: Vec<u8> = (0..size.0 * size.1).map(|i| ((i * 31 + usize::from(seed)) * (i + 7) % 256) as u8).collect();
            let all = resample(&plane, 1, size.0, whole(size.0, size.1), target.0, target.1);
            let (top, left) = ((part.0 * target.0 as f64) as usize, (part.1 * target.1 as f64) as usize);
            let of = Rectangle { left, top, width: (target.1 - left).div_ceil(2), height: (target.0 - top).div_ceil(2) };
            let found = resample_part(&plane, 1, size.0, whole(size.0, size.1), target, of);
            let rows = all.chunks_exact(target.1).skip(top).take(of.height);
            prop_assert_eq!(found, rows.flat_map(|row| row[left..left + of.width].to_vec()).collect::<Vec<_>>());
        }

        #[test]
        fn the_same_size_is_the_same_picture(width in 1usize..20, height in 1usize..20, seed: u8) {
            let plane: Vec<u8> = (0..width * height).map(|i| (i as u8).wrapping_mul(seed | 1)).collect();
            prop_assert_eq!(resample(&plane, 1, width, whole(width, height), height, width), plane);
        }

        #[test]
        fn a_flat_picture_stays_flat(
            size in (1usize..40, 1usize..40), target in (1usize..40, 1usize..40), value: u8,
        ) {
            let plane = vec![value; size.0 * size.1];
            let out = resample(&plane, 1, size.0, whole(size.0, size.1), target.0, target.1);
            prop_assert_eq!(out.len(), target.0 * target.1);
            prop_assert!(out.iter().all(|&v| v == value));
        }
    }
}
