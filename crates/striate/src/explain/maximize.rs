//! The image that a unit answers to most, found by climbing its gradient (Erhan et al. 2009; Yosinski et al. 2015,
//! "Understanding Neural Networks Through Deep Visualization").

use super::{ExplainError, lens};
use crate::network::{Mode, Network, Taps};
use crate::random::{Purpose, Random};
use crate::shape::Shape;
use ndarray::Array3;

/// Which of a unit's outputs is to grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Aim {
    /// Their mean over the map: a texture that fills the image.
    #[default]
    Mean,
    /// The one in the middle of the map: what a single place wants to see.
    Middle,
}

/// The options of [`maximize`]. `jitter`, `smooth` and `decay` keep the image legible: without them it fills with noise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MaximizeOptions {
    /// What is to grow: the mean.
    pub aim: Aim,
    /// Steps uphill: 128.
    pub steps: usize,
    /// Length of a step as a share of the pixels' range: 0.05.
    pub rate: f32,
    /// The image is moved by up to so many pixels at each step: 2.
    pub jitter: usize,
    /// Share of the way to the mean of its four neighbours that each pixel goes at each step: 0.15.
    pub smooth: f32,
    /// Share of the way to the middle of its range that each pixel goes at each step: 0.02.
    pub decay: f32,
    /// Names the first image and the moves.
    pub seed: u64,
}

impl Default for MaximizeOptions {
    fn default() -> Self {
        Self { aim: Aim::Mean, steps: 128, rate: 0.05, jitter: 2, smooth: 0.15, decay: 0.02, seed: 1 }
    }
}

/// What [`maximize`] found.
#[derive(Clone, Debug, PartialEq)]
pub struct Maximized {
    /// The unit: a map of the layer, or a number of a flat one.
    pub unit: usize,
    /// The image (C, H, W) in the network's own scale.
    pub image: Array3<f32>,
    /// The unit's output, as [`MaximizeOptions::aim`] says, for the noise that it began with.
    pub before: f32,
    /// The same for the image.
    pub after: f32,
}

/// Images that make the outputs of `units` of `layer` large. `range` holds, for each channel, what black and white are
/// in the network's own scale.
///
/// # Errors
/// A layer or a unit that does not exist, a range that is not one pair a channel, an option outside its range, or memory
/// that can't be had.
pub fn maximize(
    network: &Network,
    layer: &str,
    units: &[usize],
    range: &[(f32, f32)],
    options: &MaximizeOptions,
) -> Result<Vec<Maximized>, ExplainError> {
    let shape = lens::shape_of(network.description(), layer)?;
    let input = network.input();
    let option = |option, found: String, expected: String| Err(ExplainError::Option { option, found, expected });
    if let Some(unit) = units.iter().find(|&&unit| unit >= shape.channels) {
        return option("the unit", unit.to_string(), format!("0 to {}", shape.channels - 1));
    }
    if range.len() != input.channels {
        return option("the range", format!("{} pairs", range.len()), format!("{}, one a channel", input.channels));
    }
    for (name, share) in [("rate", options.rate), ("smooth", options.smooth), ("decay", options.decay)] {
        if !(0.0..=1.0).contains(&share) {
            return option(name, share.to_string(), "0 to 1".into());
        }
    }
    let jitter = options.jitter.min(input.height.min(input.width) / 2) as u64;
    let (height, width, len) = (input.height, input.width, input.len());
    let mut found = Vec::with_capacity(units.len());
    let batch = units.len().clamp(1, lens::BATCH);
    let mut runner = lens::runner(network, batch, Mode::Gradient, &Taps::of(["input", layer]))?;
    for units in units.chunks(batch) {
        let mut images: Vec<Vec<f32>> =
            units.iter().map(|&unit| noise(options.seed, unit, range, input.area())).collect();
        let mut outputs = [vec![0.0f32; units.len()], vec![0.0f32; units.len()]];
        for step in 0..=options.steps {
            // Every unit's image moves alike, so that a unit's image does not depend on its neighbours.
            let move_by = |axis: u64, side: usize| {
                let random = Random::new(options.seed, Purpose::Explain, 1 << 20);
                let shift =
                    if step == options.steps { 0 } else { random.below(2 * step as u64 + axis, 2 * jitter + 1) };
                (side as u64 + shift - if step == options.steps { 0 } else { jitter }) as usize % side
            };
            let (down, across) = (move_by(0, height), move_by(1, width));
            let moved = |i: usize| {
                let (c, y, x) = (i / (height * width), i / width % height, i % width);
                (c * height + (y + down) % height) * width + (x + across) % width
            };
            for (sample, image) in runner.input_mut().chunks_exact_mut(len).zip(&images) {
                image.iter().enumerate().for_each(|(i, &v)| sample[moved(i)] = v);
            }
            let area = shape.area();
            let aimed = match options.aim {
                Aim::Mean => 0..area,
                Aim::Middle => middle(shape)..middle(shape) + 1,
            };
            runner.gradient_from(network.parameters(), layer, |values, gradient| {
                gradient.fill(0.0);
                for (k, &unit) in units.iter().enumerate() {
                    let map = (k * shape.channels + unit) * area;
                    let place = map + aimed.start..map + aimed.end;
                    let mean = values[place.clone()].iter().map(|&v| f64::from(v)).sum::<f64>() / aimed.len() as f64;
                    if step == 0 {
                        outputs[0][k] = mean as f32;
                    }
                    outputs[1][k] = mean as f32;
                    gradient[place].fill(1.0 / aimed.len() as f32);
                }
            })?;
            if step == options.steps {
                break;
            }
            let gradients = runner.tap_gradient("input").unwrap_or_default();
            for (image, gradient) in images.iter_mut().zip(gradients.chunks_exact(len)) {
                climb(image, gradient, moved, range, (height, width), options);
            }
        }
        for (k, (&unit, image)) in units.iter().zip(&images).enumerate() {
            let image = lens::array(input, image);
            found.push(Maximized { unit, image, before: outputs[0][k], after: outputs[1][k] });
        }
    }
    Ok(found)
}

/// The place in the middle of a map.
fn middle(shape: Shape) -> usize {
    shape.height / 2 * shape.width + shape.width / 2
}

/// Faint noise around the middle of the range.
fn noise(seed: u64, unit: usize, range: &[(f32, f32)], area: usize) -> Vec<f32> {
    let random = Random::new(seed, Purpose::Explain, unit as u64);
    let value = |(c, &(low, high)): (usize, &(f32, f32))| {
        (0..area).map(move |i| (low + high) / 2.0 + 0.05 * (high - low) * random.normal((c * area + i) as u64))
    };
    range.iter().enumerate().flat_map(value).collect()
}

/// One step: along the gradient, toward the neighbours, toward the middle, and into the range.
fn climb(
    image: &mut [f32],
    gradient: &[f32],
    moved: impl Fn(usize) -> usize,
    range: &[(f32, f32)],
    (height, width): (usize, usize),
    options: &MaximizeOptions,
) {
    let square = gradient.iter().map(|&g| f64::from(g) * f64::from(g)).sum::<f64>() / gradient.len() as f64;
    let length = square.sqrt().max(1e-12) as f32;
    let old = image.to_vec();
    for (c, &(low, high)) in range.iter().enumerate() {
        for y in 0..height {
            for x in 0..width {
                let at = |y: usize, x: usize| old[(c * height + y.min(height - 1)) * width + x.min(width - 1)];
                let i = (c * height + y) * width + x;
                let around =
                    (at(y.saturating_sub(1), x) + at(y + 1, x) + at(y, x.saturating_sub(1)) + at(y, x + 1)) / 4.0;
                let v = old[i];
                let climbed = v
                    + options.rate * (high - low) * gradient[moved(i)] / length
                    + options.smooth * (around - v)
                    + options.decay * ((low + high) / 2.0 - v);
                image[i] = climbed.clamp(low.min(high), high.max(low));
            }
        }
    }
}
