//! Softmax and its loss (sections 3.5 and 5.6.3).

use super::functions::{exp, flush};
use super::isa;
use crate::shape::Shape;

/// Rows of probabilities from rows of logits; the largest logit is subtracted first, so nothing overflows.
pub(crate) fn softmax(logits: &[f32], probabilities: &mut [f32], classes: usize) {
    exponentials(logits, probabilities, classes);
    for row in probabilities.chunks_exact_mut(classes) {
        let scale = (1.0 / sum(row)) as f32;
        row.iter_mut().for_each(|p| *p = flush(*p * scale));
    }
}

/// [`softmax`] over the channels of each pixel, for a batch (N, C, H, W).
pub(crate) fn channel_softmax(shape: Shape, x: &[f32], y: &mut [f32]) {
    let pixels = shape.area();
    if pixels == 1 {
        return softmax(x, y, shape.channels);
    }
    for (x, y) in x.chunks_exact(shape.len()).zip(y.chunks_exact_mut(shape.len())) {
        for pixel in 0..pixels {
            let values = || x[pixel..].iter().step_by(pixels);
            let largest = values().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f64 = values().map(|&v| f64::from(exp(v - largest))).sum();
            let scale = (1.0 / sum) as f32;
            y[pixel..]
                .iter_mut()
                .step_by(pixels)
                .zip(values())
                .for_each(|(y, &v)| *y = flush(exp(v - largest) * scale));
        }
    }
}

/// The gradient of [`channel_softmax`]: `y (dy - sum(dy y))` at each pixel, written to `dx` or added to it.
pub(crate) fn channel_softmax_gradient(shape: Shape, y: &[f32], dy: &[f32], dx: &mut [f32], accumulate: bool) {
    let (len, pixels) = (shape.len(), shape.area());
    for ((y, dy), dx) in y.chunks_exact(len).zip(dy.chunks_exact(len)).zip(dx.chunks_exact_mut(len)) {
        for pixel in 0..pixels {
            let at = (pixel..len).step_by(pixels);
            let sum = at.clone().map(|i| f64::from(y[i]) * f64::from(dy[i])).sum::<f64>() as f32;
            for i in at {
                let value = y[i] * (dy[i] - sum);
                dx[i] = if accumulate { dx[i] + value } else { value };
            }
        }
    }
}

/// The exponential of each logit less the largest of its row.
#[inline(always)]
fn exponentials_body(logits: &[f32], exponentials: &mut [f32], classes: usize) {
    for (row, output) in logits.chunks_exact(classes).zip(exponentials.chunks_exact_mut(classes)) {
        let largest = largest(row);
        output.iter_mut().zip(row).for_each(|(e, &v)| *e = exp(v - largest));
    }
}

isa::vectorized!(fn exponentials(logits: &[f32], exponentials: &mut [f32], classes: usize) = exponentials_body);

#[inline(always)]
fn largest(row: &[f32]) -> f32 {
    row.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}

fn sum(exponentials: &[f32]) -> f64 {
    exponentials.iter().map(|&e| f64::from(e)).sum()
}

/// The position of the largest number, the first of equals; NaN never wins.
pub(crate) fn argmax(row: &[f32]) -> usize {
    let mut best = 0;
    for (i, &v) in row.iter().enumerate() {
        if v > row[best] || row[best].is_nan() && !v.is_nan() {
            best = i;
        }
    }
    best
}

/// Another class that a sample shows, where it was mixed from two (mixup, CutMix): the target is
/// `(1 - share) one hot of its label + share one hot of this one`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SecondClass {
    /// The class.
    pub label: usize,
    /// How much of it the sample shows, from 0 to 1.
    pub share: f32,
}

/// What the loss of a batch comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Loss {
    /// Sum over the batch (not the mean).
    pub(crate) sum: f64,
    /// Samples whose largest logit is their label's, of a mixed one that of the larger share.
    pub(crate) correct: usize,
}

/// Cross-entropy of softmax with labels: `log(sum exp(z)) - z[label]`, computed without ever taking `log(0)`.
/// With `gradient`, also `(softmax - target) / batch`, the target being one hot.
///
/// With label smoothing (Szegedy et al., 2016, "Rethinking the inception architecture", section 7) the target is
/// `(1 - smoothing) one hot + smoothing / classes`, and the loss its cross-entropy, which is
/// `smoothing * (z[label] - mean(z))` more; a smoothing of 0 changes no bit.
///
/// `seconds` has a second class for each of the first samples, or for none. A target's logit `z[label]` is then the mean
/// of both by their shares; a share of 0 changes no bit.
///
/// `class_weights` has a factor for each class, or is empty for 1: a sample counts by its label's, a mixed one each of its
/// two classes by its own (as PyTorch's `CrossEntropyLoss(weight, reduction="sum")` has it; its "mean" divides by the
/// weights of the batch instead of the number of samples, so that a batch's weight would depend on what it holds).
pub(crate) fn cross_entropy(
    logits: &[f32],
    labels: &[usize],
    seconds: &[SecondClass],
    class_weights: &[f32],
    classes: usize,
    smoothing: f32,
    gradient: Option<&mut [f32]>,
) -> Loss {
    let mut loss = Loss::default();
    let weight = |class: usize| class_weights.get(class).map_or(1.0, |&weight| f64::from(weight));
    // How much the label counts, and how much a second class.
    let parts = |label: usize, second: Option<&SecondClass>| match second {
        None => (weight(label), 0.0),
        Some(second) => {
            let share = f64::from(second.share);
            ((1.0 - share) * weight(label), share * weight(second.label))
        }
    };
    let mut add = |row: &[f32], label: usize, second: Option<&SecondClass>, sum: f64| {
        let (first, other) = parts(label, second);
        let logit = first * f64::from(row[label]) + second.map_or(0.0, |second| other * f64::from(row[second.label]));
        loss.sum += (first + other) * (sum.ln() + f64::from(largest(row))) - logit;
        if smoothing > 0.0 {
            let mean = row.iter().map(|&v| f64::from(v)).sum::<f64>() / classes as f64;
            loss.sum += f64::from(smoothing) * (logit - (first + other) * mean);
        }
        // A NaN among the logits must not hide: `max` skips it.
        if row.iter().any(|v| v.is_nan()) {
            loss.sum = f64::NAN;
        }
        let label = second.filter(|second| second.share > 0.5).map_or(label, |second| second.label);
        loss.correct += usize::from(argmax(row) == label);
    };
    let second = |sample: usize| seconds.get(sample).filter(|second| second.share > 0.0);
    let rows = logits.chunks_exact(classes).zip(labels).enumerate();
    match gradient {
        None => {
            for (sample, (row, &label)) in rows {
                let largest = largest(row);
                add(row, label, second(sample), row.iter().map(|&v| f64::from(exp(v - largest))).sum());
            }
        }
        Some(gradient) => {
            exponentials(logits, gradient, classes);
            let everywhere = smoothing / classes as f32;
            let share = 1.0 / labels.len() as f32;
            for ((sample, (row, &label)), gradient) in rows.zip(gradient.chunks_exact_mut(classes)) {
                let (sum, second) = (sum(gradient), second(sample));
                add(row, label, second, sum);
                let (first, other) = parts(label, second);
                let whole = first + other;
                let (scale, everywhere) = ((whole / sum) as f32, whole as f32 * everywhere);
                gradient.iter_mut().for_each(|g| *g *= scale);
                gradient[label] -= (1.0 - smoothing) * first as f32;
                if let Some(second) = second {
                    gradient[second.label] -= (1.0 - smoothing) * other as f32;
                }
                gradient.iter_mut().for_each(|g| *g = flush((*g - everywhere) * share));
            }
        }
    }
    loss
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, Random};
    use proptest::prelude::*;

    #[test]
    fn extreme_logits_stay_exact() {
        let logits = [1e4, -1e4, 0.0, 0.3, 2.9, 4.0];
        let mut p = [0.0; 6];
        softmax(&logits, &mut p, 3);
        assert_eq!(p[..3], [1.0, 0.0, 0.0]);
        // Section 3.5.1.
        for (found, expected) in p[3..].iter().zip([0.018_211_27, 0.245_191_8, 0.736_596_9]) {
            assert!((found - expected).abs() < 1e-6);
        }
        let loss = cross_entropy(&logits[..3], &[1], &[], &[], 3, 0.0, None);
        assert!((loss.sum - 2e4).abs() < 1e-3, "{loss:?}");
        assert_eq!(loss.correct, 0);
        assert_eq!(cross_entropy(&logits[..3], &[0], &[], &[], 3, 0.0, None), Loss { sum: 0.0, correct: 1 });
    }

    #[test]
    fn a_fault_shows() {
        for smoothing in [0.0, 0.1] {
            assert!(cross_entropy(&[f32::NAN, 0.0], &[1], &[], &[], 2, smoothing, None).sum.is_nan());
            assert!(!cross_entropy(&[f32::INFINITY, 0.0], &[1], &[], &[], 2, smoothing, None).sum.is_finite());
        }
        assert_eq!(argmax(&[f32::NAN, 0.0, 1.0, 1.0]), 2);
    }

    #[test]
    fn gradient_is_softmax_minus_one_hot() {
        let mut gradient = [0.0; 4];
        cross_entropy(&[0.0, 0.0, 0.0, 0.0], &[0, 1], &[], &[], 2, 0.0, Some(&mut gradient));
        assert_eq!(gradient, [-0.25, 0.25, 0.25, -0.25]);
    }

    #[test]
    fn smoothing_agrees_with_the_reference() {
        // torch.nn.functional.cross_entropy(x, t, reduction="sum", label_smoothing=s) of PyTorch 2.15 in float64, for
        // these logits and labels, and the gradient of its mean.
        let logits = [0.5, -1.0, 2.0, 0.25, 3.0, 1.5, -0.5, -2.0];
        for (smoothing, expected, gradients) in [
            (
                0.0,
                5.600442695,
                [
                    0.077117413,
                    0.017207221,
                    -0.154383735,
                    0.060059101,
                    0.396804772,
                    0.088539112,
                    0.011982466,
                    -0.497326350,
                ],
            ),
            (
                0.1,
                5.506692695,
                [
                    0.064617413,
                    0.004707221,
                    -0.116883735,
                    0.047559101,
                    0.384304772,
                    0.076039112,
                    -0.000517534,
                    -0.459826350,
                ],
            ),
            (
                0.5,
                5.131692695,
                [
                    0.014617413,
                    -0.045292779,
                    0.033116265,
                    -0.002440899,
                    0.334304772,
                    0.026039112,
                    -0.050517534,
                    -0.309826350,
                ],
            ),
        ] {
            let mut gradient = [0.0; 8];
            let loss = cross_entropy(&logits, &[2, 3], &[], &[], 4, smoothing, Some(&mut gradient));
            assert!((loss.sum - expected).abs() < 1e-6, "{smoothing}: {loss:?}");
            assert_eq!(loss.correct, 1);
            for (found, expected) in gradient.into_iter().zip(gradients) {
                assert!((f64::from(found) - expected).abs() < 1e-7, "{smoothing}: {gradient:?}");
            }
        }
    }

    #[test]
    fn class_weights_agree_with_the_reference() {
        // torch.nn.CrossEntropyLoss(weight=[1, 0.5, 2, 4], reduction="sum") of PyTorch 2.15 in float64, and the gradient of a
        // third of it; then each sample's cross-entropy, smoothed by 0.1, times its class's weight; then of mixed samples.
        let logits = [0.5, -1.0, 2.0, 0.25, 3.0, 1.5, -0.5, -2.0, 0.1, 0.2, -0.3, 0.4];
        let weights = [1.0, 0.5, 2.0, 4.0];
        let seconds = [(0, 0.25), (0, 0.875), (3, 0.0)].map(|(label, share)| SecondClass { label, share });
        let plain = [
            0.102823217,
            0.022942961,
            -0.205844980,
            0.080078802,
            1.058146059,
            0.236104300,
            0.031953242,
            -1.326203601,
            0.040400615,
            -0.122017082,
            0.027081342,
            0.054535126,
        ];
        let smooth = [
            0.086156550,
            0.006276294,
            -0.155844980,
            0.063412135,
            1.024812726,
            0.202770966,
            -0.001380091,
            -1.226203601,
            0.036233948,
            -0.109517082,
            0.022914675,
            0.050368459,
        ];
        let mixed = [
            0.000386981,
            0.005491757,
            -0.061364357,
            0.055485618,
            0.089779375,
            0.069702520,
            -0.000474406,
            -0.159007488,
            0.036233948,
            -0.109517082,
            0.022914675,
            0.050368459,
        ];
        for (smoothing, seconds, expected, gradients) in [
            (0.0, &[][..], 22.321788187, plain),
            (0.1, &[][..], 21.639288187, smooth),
            (0.1, &seconds[..], 4.832351234, mixed),
        ] {
            let mut gradient = [0.0; 12];
            let loss = cross_entropy(&logits, &[2, 3, 1], seconds, &weights, 4, smoothing, Some(&mut gradient));
            assert!((loss.sum - expected).abs() < 1e-6, "{smoothing}: {loss:?}");
            for (found, expected) in gradient.into_iter().zip(gradients) {
                assert!((f64::from(found) - expected).abs() < 2e-7, "{smoothing}: {gradient:?}");
            }
            // Weights of 1 change no bit.
            let mut ones = [0.0; 12];
            let weighted = cross_entropy(&logits, &[2, 3, 1], seconds, &[1.0; 4], 4, smoothing, Some(&mut ones));
            let unweighted = cross_entropy(&logits, &[2, 3, 1], seconds, &[], 4, smoothing, Some(&mut gradient));
            assert_eq!((weighted, ones), (unweighted, gradient));
        }
    }

    #[test]
    fn mixed_targets_agree_with_the_reference() {
        // torch.nn.CrossEntropyLoss(label_smoothing=s) of PyTorch 2.15 in float64 with probabilities as targets: the sum, and
        // the gradient of the mean.
        let logits = [0.5, -1.0, 2.0, 0.25, 3.0, 1.5, -0.5, -2.0, 0.1, 0.2, -0.3, 0.4];
        let seconds = [(0, 0.25), (0, 0.875), (3, 0.0)].map(|(label, share)| SecondClass { label, share });
        let plain = [
            -0.031921725,
            0.011471480,
            -0.019589156,
            0.040039401,
            -0.027130152,
            0.059026075,
            0.007988311,
            -0.039884234,
            0.080801229,
            -0.244034164,
            0.054162684,
            0.109070251,
        ];
        let smooth = [
            -0.031921725,
            0.003138147,
            -0.002922490,
            0.031706068,
            -0.006296819,
            0.050692742,
            -0.000345023,
            -0.044050900,
            0.072467896,
            -0.219034164,
            0.045829350,
            0.100736918,
        ];
        for (smoothing, expected, gradients) in [(0.0, 2.917593504, plain), (0.1, 3.233843504, smooth)] {
            let mut gradient = [0.0; 12];
            let loss = cross_entropy(&logits, &[2, 3, 1], &seconds, &[], 4, smoothing, Some(&mut gradient));
            assert!((loss.sum - expected).abs() < 1e-6, "{smoothing}: {loss:?}");
            // The first by its label, the second by its larger share.
            assert_eq!(loss.correct, 2);
            for (found, expected) in gradient.into_iter().zip(gradients) {
                assert!((f64::from(found) - expected).abs() < 1e-7, "{smoothing}: {gradient:?}");
            }
            let without = cross_entropy(&logits, &[2, 3, 1], &seconds, &[], 4, smoothing, None);
            assert!((without.sum - loss.sum).abs() < 1e-9 && without.correct == 2);
        }
    }

    proptest! {
        #[test]
        fn the_gradient_is_the_slope_of_the_loss(
            rows in 1usize..5, classes in 2usize..9, smoothing in 0.0f32..0.99, weighted: bool, seed in 0u64..1000,
        ) {
            let random = Random::new(seed, Purpose::Test, 0);
            let mut logits: Vec<f32> = (0..rows * classes).map(|i| 2.0 * random.normal(i as u64)).collect();
            let labels: Vec<usize> = (0..rows).map(|i| random.below(1000 + i as u64, classes as u64) as usize).collect();
            let second = |i| SecondClass {
                label: random.below(2000 + i, classes as u64) as usize,
                share: (1.5 * random.uniform(3000 + i) - 0.5).max(0.0),
            };
            let seconds: Vec<SecondClass> = (0..rows as u64).map(second).collect();
            let mut weights: Vec<f32> = (0..classes as u64).map(|i| 0.1 + 3.0 * random.uniform(4000 + i)).collect();
            weights.truncate(if weighted { classes } else { 0 });
            let mut gradient = vec![0.0; logits.len()];
            cross_entropy(&logits, &labels, &seconds, &weights, classes, smoothing, Some(&mut gradient));
            for place in 0..logits.len() {
                let (at, step) = (logits[place], 1.0 / 64.0);
                let mut loss = |x: f32| {
                    logits[place] = x;
                    cross_entropy(&logits, &labels, &seconds, &weights, classes, smoothing, None).sum / rows as f64
                };
                let slope = (loss(at + step) - loss(at - step)) / f64::from((at + step) - (at - step));
                logits[place] = at;
                prop_assert!((f64::from(gradient[place]) - slope).abs() < 1e-4, "{} {}", gradient[place], slope);
            }
        }
    }
}
