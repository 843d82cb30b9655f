//! Changing the size of a plane of pixels with the triangle filter.
//!
//! When an image shrinks, the triangle widens to cover two output pixels, so every input pixel counts (no aliasing);
//! when it grows, this is bilinear interpolation. It is what most training code calls "bilinear, antialiased".

use crate::kernels::isa::vectorize;

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
    fn new(input: usize, output: usize) -> Self {
        let scale = input as f64 / output as f64;
        let radius = scale.max(1.0);
        let (mut starts, mut weights) = (Vec::with_capacity(output), Vec::new());
        for i in 0..output {
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

    /// First input pixel and the weights of output pixel `i`.
    fn of(&self, i: usize) -> (usize, &[f32]) {
        let (first, at) = self.starts[i];
        let end = self.starts.get(i + 1).map_or(self.weights.len(), |&(_, next)| next);
        (first, &self.weights[at..end])
    }
}

/// The part `crop` of a plane whose rows are `stride` long, as `height` rows of `width` columns.
pub(super) fn resample(plane: &[u8], stride: usize, crop: Rectangle, height: usize, width: usize) -> Vec<u8> {
    let (vertical, horizontal) = (Weights::new(crop.height, height), Weights::new(crop.width, width));
    let mut out = Vec::with_capacity(height * width);
    // One output row at a time: first the rows are mixed, then the columns, so one row of sums is all the memory.
    let mut sums = vec![0.0f32; crop.width];
    for y in 0..height {
        let (first, weights) = vertical.of(y);
        vectorize(|| {
            sums.fill(0.0);
            for (row, &weight) in weights.iter().enumerate() {
                let start = (crop.top + first + row) * stride + crop.left;
                for (sum, &pixel) in sums.iter_mut().zip(&plane[start..start + crop.width]) {
                    *sum += weight * f32::from(pixel);
                }
            }
        });
        for x in 0..width {
            let (first, weights) = horizontal.of(x);
            let value: f32 = weights.iter().zip(&sums[first..]).map(|(weight, sum)| weight * sum).sum();
            out.push((value + 0.5) as u8);
        }
    }
    out
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
        assert_eq!(resample(&row, 4, whole(4, 1), 1, 2), [30, 0]);
    }

    #[test]
    fn doubling_interpolates() {
        assert_eq!(resample(&[0, 100], 2, whole(2, 1), 1, 4), [0, 25, 75, 100]);
    }

    proptest! {
        #[test]
        fn the_same_size_is_the_same_picture(width in 1usize..20, height in 1usize..20, seed: u8) {
            let plane: Vec<u8> = (0..width * height).map(|i| (i as u8).wrapping_mul(seed | 1)).collect();
            prop_assert_eq!(resample(&plane, width, whole(width, height), height, width), plane);
        }

        #[test]
        fn a_flat_picture_stays_flat(
            size in (1usize..40, 1usize..40), target in (1usize..40, 1usize..40), value: u8,
        ) {
            let plane = vec![value; size.0 * size.1];
            let out = resample(&plane, size.0, whole(size.0, size.1), target.0, target.1);
            prop_assert_eq!(out.len(), target.0 * target.1);
            prop_assert!(out.iter().all(|&v| v == value));
        }
    }
}
