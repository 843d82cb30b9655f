//! What a network makes of images that are moved by a few pixels (section 7.3.1).

use super::{ExplainError, lens};
use crate::data::{Dataset, Normalization};
use crate::network::{Mode, Network, Taps};

/// Images a pass takes at a time.
const IMAGES: usize = 50;

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

/// Moves the first `images` images of `data` by 0 to `most` pixels; what comes in at the edge repeats the edge.
///
/// # Errors
/// Images that are not the network's inputs, a move beyond the image, no images, or memory that can't be had.
pub fn shift(
    network: &Network,
    data: &Dataset,
    images: usize,
    normalization: &Normalization,
    most: usize,
) -> Result<Vec<Shifted>, ExplainError> {
    let input = network.input();
    if data.shape() != input {
        return Err(ExplainError::Data { data: data.name().into(), found: data.shape(), expected: input });
    }
    let images = images.min(data.len());
    if images == 0 || most >= input.height.min(input.width) {
        let (option, found) = if images == 0 { ("images", images) } else { ("the move", most) };
        let expected = format!("1 or more images, and pixels below {}", input.height.min(input.width));
        return Err(ExplainError::Option { option, found: found.to_string(), expected });
    }
    let mut runner = lens::runner(network, IMAGES, Mode::Inference, &Taps::default())?;
    let classes = network.classes();
    let mut rows: Vec<Shifted> =
        (0..=most).map(|pixels| Shifted { pixels, accuracy: 0.0, unchanged: 0.0, change: 0.0 }).collect();
    for start in (0..images).step_by(IMAGES) {
        let used = IMAGES.min(images - start);
        let indices: Vec<usize> = (start..start + IMAGES).map(|i| i.min(images - 1)).collect();
        let mut still = vec![0.0; IMAGES * input.len()];
        data.gather(&indices, normalization, &mut still);
        let mut first: Vec<Vec<f64>> = Vec::new();
        for row in &mut rows {
            let moves: &[(isize, isize)] =
                if row.pixels == 0 { &[(0, 0)] } else { &[(1, 0), (-1, 0), (0, 1), (0, -1)] };
            for &(down, across) in moves {
                let (down, across) = (down * row.pixels as isize, across * row.pixels as isize);
                let from = |at: usize, by: isize, side: usize| (at as isize - by).clamp(0, side as isize - 1) as usize;
                for (plane, still) in
                    runner.input_mut().chunks_exact_mut(input.area()).zip(still.chunks_exact(input.area()))
                {
                    for (y, line) in plane.chunks_exact_mut(input.width).enumerate() {
                        let source = &still[from(y, down, input.height) * input.width..][..input.width];
                        line.iter_mut().enumerate().for_each(|(x, v)| *v = source[from(x, across, input.width)]);
                    }
                }
                let logits = runner.predict(network.parameters());
                let share = 1.0 / (moves.len() * images) as f64;
                for (k, logits) in logits.chunks_exact(classes).take(used).enumerate() {
                    let probabilities = softmax(logits);
                    if row.pixels == 0 {
                        first.push(probabilities.clone());
                    }
                    let largest = |p: &[f64]| (0..p.len()).max_by(|&a, &b| p[a].total_cmp(&p[b]).then(b.cmp(&a)));
                    row.accuracy +=
                        share * f64::from(u8::from(largest(&probabilities) == Some(data.labels()[start + k])));
                    row.unchanged += share * f64::from(u8::from(largest(&probabilities) == largest(&first[k])));
                    let change: f64 = probabilities.iter().zip(&first[k]).map(|(a, b)| (a - b).abs()).sum();
                    row.change += share * change / 2.0;
                }
            }
        }
    }
    Ok(rows)
}

fn softmax(logits: &[f32]) -> Vec<f64> {
    let most = logits.iter().copied().fold(f32::MIN, f32::max);
    let powers: Vec<f64> = logits.iter().map(|&v| (f64::from(v) - f64::from(most)).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|p| p / sum).collect()
}
