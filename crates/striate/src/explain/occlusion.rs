//! What a score loses where a part of the image is covered (Zeiler & Fergus 2014).

use super::{ExplainError, lens};
use crate::network::{Mode, Network, Taps};
use ndarray::{Array2, ArrayView3};

/// The options of [`occlusion`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OcclusionOptions {
    /// Side of the square that covers, in pixels: 5.
    pub window: usize,
    /// Pixels between one place of the square and the next: 2.
    pub stride: usize,
    /// The value it covers with, in the network's own scale: 0.
    pub value: f32,
}

impl Default for OcclusionOptions {
    fn default() -> Self {
        Self { window: 5, stride: 2, value: 0.0 }
    }
}

/// What [`occlusion`] gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Occlusion {
    /// For each pixel (H, W) how much the score falls where it is covered, on average over the squares that cover it.
    pub drop: Array2<f32>,
    /// The score of the image as it is.
    pub score: f32,
}

/// Covers the image with a square at one place after the other (the last ones may hang over the edge), all channels at
/// once, and measures the score of `class`.
///
/// # Errors
/// An image that is not the network's input, a class that does not exist, a window or stride of 0 or beyond the image, a
/// value that is not finite, or memory that can't be had.
pub fn occlusion(
    network: &Network,
    x: ArrayView3<'_, f32>,
    class: usize,
    options: &OcclusionOptions,
) -> Result<Occlusion, ExplainError> {
    lens::check_sample(network, x)?;
    lens::check_class(network, class)?;
    let (channels, height, width) = x.dim();
    let &OcclusionOptions { window, stride, value } = options;
    for (option, found) in [("the occlusion window", window), ("the occlusion stride", stride)] {
        if found == 0 || found > height.min(width) {
            let expected = format!("1 to {}, the image's shorter side", height.min(width));
            return Err(ExplainError::Option { option, found: found.to_string(), expected });
        }
    }
    if !value.is_finite() {
        let found = value.to_string();
        return Err(ExplainError::Option { option: "the occlusion value", found, expected: "finite".into() });
    }
    let places = |side: usize| (0..=(side - window).div_ceil(stride)).map(move |i| i * stride);
    let squares: Vec<(usize, usize)> = places(height).flat_map(|y| places(width).map(move |x| (y, x))).collect();
    let pixels: Vec<f32> = x.iter().copied().collect();
    let (classes, len) = (network.classes(), x.len());
    let mut runner = lens::runner(network, lens::BATCH, Mode::Inference, &Taps::default())?;
    for sample in runner.input_mut().chunks_exact_mut(len) {
        sample.copy_from_slice(&pixels);
    }
    let score = runner.predict(network.parameters())[class];
    let (mut drop, mut covered) = (Array2::<f64>::zeros((height, width)), Array2::<f64>::zeros((height, width)));
    for squares in squares.chunks(lens::BATCH) {
        for (sample, &(top, left)) in runner.input_mut().chunks_exact_mut(len).zip(squares) {
            sample.copy_from_slice(&pixels);
            for channel in 0..channels {
                for y in top..(top + window).min(height) {
                    let row = (channel * height + y) * width;
                    sample[row + left..row + (left + window).min(width)].fill(value);
                }
            }
        }
        let logits = runner.predict(network.parameters());
        for (logits, &(top, left)) in logits.chunks_exact(classes).zip(squares) {
            let difference = f64::from(score) - f64::from(logits[class]);
            for y in top..(top + window).min(height) {
                for x in left..(left + window).min(width) {
                    drop[[y, x]] += difference;
                    covered[[y, x]] += 1.0;
                }
            }
        }
    }
    let drop = ndarray::Zip::from(&drop).and(&covered).map_collect(|&d, &n| (d / f64::max(n, 1.0)) as f32);
    Ok(Occlusion { drop, score })
}
