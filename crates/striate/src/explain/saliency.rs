//! Which pixels a score depends on: its gradient by the image, and averages of gradients.

use super::{ExplainError, lens};
use crate::layers::ReluRule;
use crate::network::{Mode, Network, Taps};
use crate::random::{Purpose, Random};
use ndarray::{Array3, ArrayView3};

/// The gradient (C, H, W) of the score of `class` by the image (Simonyan et al. 2014, "Deep Inside Convolutional
/// Networks"). With another rule for ReLU than [`ReluRule::Gradient`] it is the picture of a deconvolutional network or of
/// guided backpropagation.
///
/// ```
/// use striate::{explain, layers::ReluRule, models, network::Network, shape::Shape};
/// let network = Network::new(models::by_name("simple-convnet", Shape::new(1, 28, 28), 10)?, 1)?;
/// let x = ndarray::Array3::from_elem((1, 28, 28), 0.5);
/// let gradient = explain::gradient(&network, x.view(), 3, ReluRule::Gradient)?;
/// assert_eq!(gradient.dim(), (1, 28, 28));
/// assert!(explain::gradient(&network, x.view(), 10, ReluRule::Gradient).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// An image that is not the network's input, a class that does not exist, or memory that can't be had.
pub fn gradient(
    network: &Network,
    x: ArrayView3<'_, f32>,
    class: usize,
    relu: ReluRule,
) -> Result<Array3<f32>, ExplainError> {
    let (sum, _) = summed(network, x, class, relu, 1, |_, _, value| value)?;
    Ok(sum.mapv(|v| v as f32))
}

/// The options of [`smooth_grad`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SmoothGrad {
    /// Noisy images whose gradients are averaged: 32.
    pub samples: usize,
    /// The noise's deviation as a share of the image's range: 0.15.
    pub noise: f32,
    /// Names the noise.
    pub seed: u64,
}

impl Default for SmoothGrad {
    fn default() -> Self {
        Self { samples: 32, noise: 0.15, seed: 1 }
    }
}

impl SmoothGrad {
    /// What is added to number `index` (in the order C, H, W) of an image of this range in its noisy copy `sample`.
    pub fn noise_at(&self, range: f32, sample: usize, index: usize) -> f32 {
        self.noise * range * Random::new(self.seed, Purpose::Explain, sample as u64).normal(index as u64)
    }
}

/// The gradient's mean over noisy copies of the image (Smilkov et al. 2017, "SmoothGrad").
///
/// # Errors
/// As for [`gradient`], no samples, or noise that is not finite and at least 0.
pub fn smooth_grad(
    network: &Network,
    x: ArrayView3<'_, f32>,
    class: usize,
    options: &SmoothGrad,
) -> Result<Array3<f32>, ExplainError> {
    if !options.noise.is_finite() || options.noise < 0.0 {
        let found = options.noise.to_string();
        return Err(ExplainError::Option { option: "noise", found, expected: "finite and at least 0".into() });
    }
    let (low, high) = x.iter().fold((f32::MAX, f32::MIN), |(low, high), &v| (low.min(v), high.max(v)));
    let range = (high - low).max(0.0);
    let noisy = |sample: usize, i: usize, value: f32| value + options.noise_at(range, sample, i);
    let (sum, _) = summed(network, x, class, ReluRule::Gradient, options.samples, noisy)?;
    Ok(sum.mapv(|v| (v / options.samples as f64) as f32))
}

/// What [`integrated_gradients`] gives.
#[derive(Clone, Debug, PartialEq)]
pub struct IntegratedGradients {
    /// Each number's share (C, H, W) of the difference between the two scores.
    pub values: Array3<f32>,
    /// The score of the image.
    pub score: f32,
    /// The score of the baseline.
    pub baseline_score: f32,
    /// The completeness error: by how much the shares' sum misses `score - baseline_score`. More steps make it smaller.
    pub error: f32,
}

/// Integrated gradients (Sundararajan et al. 2017, "Axiomatic Attribution for Deep Networks"): the gradient's mean along
/// the straight line from `baseline` to the image, taken at the middles of `steps` equal pieces, times their difference.
///
/// # Errors
/// As for [`gradient`], a baseline of another size, or no steps.
pub fn integrated_gradients(
    network: &Network,
    x: ArrayView3<'_, f32>,
    class: usize,
    baseline: ArrayView3<'_, f32>,
    steps: usize,
) -> Result<IntegratedGradients, ExplainError> {
    lens::check_sample(network, baseline)?;
    lens::check_sample(network, x)?;
    let from: Vec<f32> = baseline.iter().copied().collect();
    let between = |step: usize, i: usize, value: f32| {
        let share = (step as f64 + 0.5) / steps as f64;
        (f64::from(from[i]) + share * (f64::from(value) - f64::from(from[i]))) as f32
    };
    let (sum, _) = summed(network, x, class, ReluRule::Gradient, steps, between)?;
    let values = ndarray::Zip::from(&sum)
        .and(&x)
        .and(&baseline)
        .map_collect(|&sum, &x, &from| (sum / steps as f64 * (f64::from(x) - f64::from(from))) as f32);
    let mut scores = [0.0; 2];
    for (score, image) in scores.iter_mut().zip([x, baseline]) {
        *score = network.predict(image.insert_axis(ndarray::Axis(0)))?[[0, class]];
    }
    let total: f64 = values.iter().map(|&v| f64::from(v)).sum();
    let error = (total - (f64::from(scores[0]) - f64::from(scores[1]))).abs() as f32;
    Ok(IntegratedGradients { values, score: scores[0], baseline_score: scores[1], error })
}

/// The sum of the gradients at `count` variants of the image, each number of which `variant(number of the variant, place,
/// value)` gives; and the scores.
fn summed(
    network: &Network,
    x: ArrayView3<'_, f32>,
    class: usize,
    relu: ReluRule,
    count: usize,
    variant: impl Fn(usize, usize, f32) -> f32,
) -> Result<(Array3<f64>, Vec<f32>), ExplainError> {
    lens::check_sample(network, x)?;
    lens::check_class(network, class)?;
    if count == 0 {
        let expected = "at least 1".into();
        return Err(ExplainError::Option { option: "the number of gradients", found: "0".into(), expected });
    }
    let batch = count.min(lens::BATCH);
    let mut runner = lens::runner(network, batch, Mode::Gradient, &Taps::of(["input"]).relu(relu))?;
    let (classes, len) = (network.classes(), x.len());
    let mut sum = Array3::<f64>::zeros(x.dim());
    let mut scores = Vec::with_capacity(count);
    for start in (0..count).step_by(batch) {
        for (k, sample) in runner.input_mut().chunks_exact_mut(len).enumerate() {
            sample.iter_mut().zip(x.iter()).enumerate().for_each(|(i, (to, &v))| *to = variant(start + k, i, v));
        }
        let used = batch.min(count - start);
        runner.gradient_from(network.parameters(), lens::last_layer(network), |logits, gradient| {
            gradient.fill(0.0);
            gradient.chunks_exact_mut(classes).for_each(|sample| sample[class] = 1.0);
            scores.extend(logits.chunks_exact(classes).take(used).map(|sample| sample[class]));
        })?;
        for sample in runner.tap_gradient("input").unwrap_or_default().chunks_exact(len).take(used) {
            sum.iter_mut().zip(sample).for_each(|(sum, &g)| *sum += f64::from(g));
        }
    }
    Ok((sum, scores))
}
