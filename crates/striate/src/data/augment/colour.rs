//! What becomes of the values of pixels: brightness, contrast, saturation, flat rectangles.

use crate::{kernels::isa::vectorized, shape::Shape};

/// Brightness of red, green and blue by ITU-R BT.601.
const LUMA: [f32; 3] = [0.299, 0.587, 0.114];

vectorized!(
    /// Multiplies brightness, contrast and saturation.
    pub(super) fn jitter(pixels: &mut [f32], shape: Shape, factors: [f32; 3]) = jitter_in
);

#[inline(always)]
fn jitter_in(pixels: &mut [f32], shape: Shape, [brightness, contrast, saturation]: [f32; 3]) {
    if brightness != 1.0 {
        pixels.iter_mut().for_each(|value| *value = (*value * brightness).clamp(0.0, 1.0));
    }
    let planes = shape.channels;
    let weight = |channel: usize| if planes == 3 { LUMA[channel] } else { 1.0 / planes as f32 };
    if contrast != 1.0 {
        let mut mean = 0.0;
        for (channel, plane) in pixels.chunks_exact(shape.area()).enumerate() {
            mean += weight(channel) * mean_of(plane);
        }
        let rest = (1.0 - contrast) * mean;
        pixels.iter_mut().for_each(|value| *value = (*value * contrast + rest).clamp(0.0, 1.0));
    }
    if saturation != 1.0 && planes == 3 {
        let (red, rest) = pixels.split_at_mut(shape.area());
        let (green, blue) = rest.split_at_mut(shape.area());
        for ((red, green), blue) in red.iter_mut().zip(green).zip(blue) {
            let grey = (1.0 - saturation) * (LUMA[0] * *red + LUMA[1] * *green + LUMA[2] * *blue);
            for value in [red, green, blue] {
                *value = (*value * saturation + grey).clamp(0.0, 1.0);
            }
        }
    }
}

/// The mean, added up in sixteen lanes: fast, and the same on every instruction set.
#[inline(always)]
fn mean_of(values: &[f32]) -> f32 {
    let (chunks, rest) = values.as_chunks::<16>();
    let mut lanes = [0.0f32; 16];
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, value)| *lane += value);
    }
    (lanes.iter().sum::<f32>() + rest.iter().sum::<f32>()) / values.len() as f32
}

/// Gives a rectangle each channel's mean.
pub(super) fn flatten(pixels: &mut [f32], shape: Shape, (top, bottom): (usize, usize), (left, right): (usize, usize)) {
    if top >= bottom || left >= right {
        return;
    }
    for plane in pixels.chunks_exact_mut(shape.area()) {
        // Rounding may put the mean of ones above one.
        let mean = mean_of(plane).clamp(0.0, 1.0);
        plane.chunks_exact_mut(shape.width).take(bottom).skip(top).for_each(|row| row[left..right].fill(mean));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape::new(1, 2, 3);

    fn close(found: &[f32], expected: &[f32]) {
        assert_eq!(found.len(), expected.len());
        let differ = found.iter().zip(expected).any(|(a, b)| (a - b).abs() > 1e-5);
        assert!(!differ, "{found:?} is not {expected:?}");
    }

    #[test]
    fn colours() {
        let shape = Shape::new(3, 1, 2);
        let from = [0.2, 0.6, 0.4, 0.0, 0.0, 1.0];
        let with = |factors| {
            let mut pixels = from;
            jitter(&mut pixels, shape, factors);
            pixels
        };
        assert_eq!(with([1.0; 3]), from);
        close(&with([1.5, 1.0, 1.0]), &[0.3, 0.9, 0.6, 0.0, 0.0, 1.0]);
        // Mean brightness 0.299 . 0.4 + 0.587 . 0.2 + 0.114 . 0.5 = 0.294.
        close(&with([1.0, 0.5, 1.0]), &[0.247, 0.447, 0.347, 0.147, 0.147, 0.647]);
        // Greys 0.299 . 0.2 + 0.587 . 0.4 = 0.2946 and 0.299 . 0.6 + 0.114 = 0.2934.
        close(&with([1.0, 1.0, 0.0]), &[0.2946, 0.2934, 0.2946, 0.2934, 0.2946, 0.2934]);
    }

    #[test]
    fn flat_rectangles() {
        let mut pixels = [0.0, 0.3, 0.6, 0.3, 0.3, 0.3];
        flatten(&mut pixels, SHAPE, (0, 1), (1, 3));
        close(&pixels, &[0.0, 0.3, 0.3, 0.3, 0.3, 0.3]);
        let before = pixels;
        flatten(&mut pixels, SHAPE, (1, 1), (0, 3));
        assert_eq!(pixels, before);
    }
}
