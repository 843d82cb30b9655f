//! What a network makes of images that are moved by a few pixels (section 7.3.1).

use super::{ExplainError, Images, lens};
use crate::layers::predicted_class;
use crate::network::{Mode, Network, Taps};

/// What a move by so many pixels does, on average over up, down, left and right.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Shifted {
    /// Pixels moved.
    pub pixels: usize,
    /// Share of the images whose class is found.
    pub accuracy: f64,
    /// Share of the images whose class is the one found without the move.
    pub unchanged: f64,
    /// How far the probabilities move: half the sum of their changes, 0 to 1.
    pub change: f64,
}

/// Moves the images by 0 to `most` pixels; what comes in at the edge repeats the edge.
///
/// # Errors
/// Images that are not the network's inputs or have other classes, a move beyond the image, no images, or memory that can't
/// be had.
pub fn shift(network: &Network, images: &Images<'_>, most: usize) -> Result<Vec<Shifted>, ExplainError> {
    images.check(network)?;
    let input = network.input();
    if most >= input.height.min(input.width) {
        let expected = format!("less than {}, the image's side", input.height.min(input.width));
        return Err(ExplainError::Option { option: "the move in pixels", found: most.to_string(), expected });
    }
    let batch = images.batch(input.len());
    let mut runner = lens::runner(network, batch, Mode::Inference, &Taps::default())?;
    let classes = network.classes();
    let mut rows: Vec<Shifted> =
        (0..=most).map(|pixels| Shifted { pixels, accuracy: 0.0, unchanged: 0.0, change: 0.0 }).collect();
    images.batches(network, batch, |range, still| {
        let mut first: Vec<Vec<f64>> = Vec::new();
        for row in &mut rows {
            let moves: &[(isize, isize)] =
                if row.pixels == 0 { &[(0, 0)] } else { &[(1, 0), (-1, 0), (0, 1), (0, -1)] };
            for &(down, across) in moves {
                let by = (down * row.pixels as isize, across * row.pixels as isize);
                moved(still, by, (input.height, input.width), runner.input_mut());
                let logits = runner.predict(network.parameters());
                for (k, logits) in range.clone().zip(logits.chunks_exact(classes)) {
                    let probabilities = softmax(logits);
                    if row.pixels == 0 {
                        first.push(probabilities.clone());
                    }
                    let unmoved = &first[k - range.start];
                    let found = predicted_class(&probabilities);
                    row.accuracy += f64::from(u8::from(found == images.label(k)));
                    row.unchanged += f64::from(u8::from(found == predicted_class(unmoved)));
                    let change: f64 = probabilities.iter().zip(unmoved).map(|(a, b)| (a - b).abs()).sum();
                    row.change += change / 2.0;
                }
            }
        }
    })?;
    // Counted whole, so that all are exactly 1.
    for row in &mut rows {
        let all = images.len() as f64 * if row.pixels == 0 { 1.0 } else { 4.0 };
        row.accuracy /= all;
        row.unchanged /= all;
        row.change /= all;
    }
    Ok(rows)
}

/// Planes of (height, width) moved `down` and `across`; the edge is repeated.
fn moved(planes: &[f32], (down, across): (isize, isize), (height, width): (usize, usize), out: &mut [f32]) {
    let from = |at: usize, by: isize, side: usize| (at as isize - by).clamp(0, side as isize - 1) as usize;
    let area = height * width;
    for (out, plane) in out.chunks_exact_mut(area).zip(planes.chunks_exact(area)) {
        for (y, line) in out.chunks_exact_mut(width).enumerate() {
            let source = &plane[from(y, down, height) * width..][..width];
            line.iter_mut().enumerate().for_each(|(x, v)| *v = source[from(x, across, width)]);
        }
    }
}

fn softmax(logits: &[f32]) -> Vec<f64> {
    let most = logits.iter().copied().fold(f32::MIN, f32::max);
    let powers: Vec<f64> = logits.iter().map(|&v| (f64::from(v) - f64::from(most)).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|p| p / sum).collect()
}
