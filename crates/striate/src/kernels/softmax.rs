//! Softmax and its loss (sections 3.5 and 5.6.3).

/// Rows of probabilities from rows of logits; the largest logit is subtracted first, so nothing overflows.
pub(crate) fn softmax(logits: &[f32], probabilities: &mut [f32], classes: usize) {
    for (row, output) in logits.chunks_exact(classes).zip(probabilities.chunks_exact_mut(classes)) {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut sum = 0.0;
        for (p, &v) in output.iter_mut().zip(row) {
            *p = (v - largest).exp();
            sum += f64::from(*p);
        }
        let scale = (1.0 / sum) as f32;
        output.iter_mut().for_each(|p| *p *= scale);
    }
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

/// What the loss of a batch comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Loss {
    /// Sum over the batch (not the mean).
    pub(crate) sum: f64,
    /// Samples whose largest logit is their label's.
    pub(crate) correct: usize,
}

/// Cross-entropy of softmax with labels: `log(sum exp(z)) - z[label]`, computed without ever taking `log(0)`.
/// With `gradient`, also `(softmax - target) / batch`, the target being one hot.
///
/// With label smoothing (Szegedy et al., 2016, "Rethinking the inception architecture", section 7) the target is
/// `(1 - smoothing) one hot + smoothing / classes`, and the loss its cross-entropy, which is
/// `smoothing * (z[label] - mean(z))` more; a smoothing of 0 changes no bit.
pub(crate) fn cross_entropy(
    logits: &[f32],
    labels: &[usize],
    classes: usize,
    smoothing: f32,
    gradient: Option<&mut [f32]>,
) -> Loss {
    let mut loss = Loss::default();
    for (row, &label) in logits.chunks_exact(classes).zip(labels) {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|&v| f64::from((v - largest).exp())).sum();
        loss.sum += sum.ln() + f64::from(largest) - f64::from(row[label]);
        if smoothing > 0.0 {
            let mean = row.iter().map(|&v| f64::from(v)).sum::<f64>() / classes as f64;
            loss.sum += f64::from(smoothing) * (f64::from(row[label]) - mean);
        }
        // A NaN among the logits must not hide: `max` skips it.
        if row.iter().any(|v| v.is_nan()) {
            loss.sum = f64::NAN;
        }
        loss.correct += usize::from(argmax(row) == label);
    }
    if let Some(gradient) = gradient {
        softmax(logits, gradient, classes);
        let scale = 1.0 / labels.len() as f32;
        let everywhere = smoothing / classes as f32;
        for (row, &label) in gradient.chunks_exact_mut(classes).zip(labels) {
            row[label] -= 1.0 - smoothing;
            row.iter_mut().for_each(|g| *g = (*g - everywhere) * scale);
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
        let loss = cross_entropy(&logits[..3], &[1], 3, 0.0, None);
        assert!((loss.sum - 2e4).abs() < 1e-3, "{loss:?}");
        assert_eq!(loss.correct, 0);
        assert_eq!(cross_entropy(&logits[..3], &[0], 3, 0.0, None), Loss { sum: 0.0, correct: 1 });
    }

    #[test]
    fn a_fault_shows() {
        for smoothing in [0.0, 0.1] {
            assert!(cross_entropy(&[f32::NAN, 0.0], &[1], 2, smoothing, None).sum.is_nan());
            assert!(!cross_entropy(&[f32::INFINITY, 0.0], &[1], 2, smoothing, None).sum.is_finite());
        }
        assert_eq!(argmax(&[f32::NAN, 0.0, 1.0, 1.0]), 2);
    }

    #[test]
    fn gradient_is_softmax_minus_one_hot() {
        let mut gradient = [0.0; 4];
        cross_entropy(&[0.0, 0.0, 0.0, 0.0], &[0, 1], 2, 0.0, Some(&mut gradient));
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
            let loss = cross_entropy(&logits, &[2, 3], 4, smoothing, Some(&mut gradient));
            assert!((loss.sum - expected).abs() < 1e-6, "{smoothing}: {loss:?}");
            assert_eq!(loss.correct, 1);
            for (found, expected) in gradient.into_iter().zip(gradients) {
                assert!((f64::from(found) - expected).abs() < 1e-7, "{smoothing}: {gradient:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn the_gradient_is_the_slope_of_the_loss(
            rows in 1usize..5, classes in 2usize..9, smoothing in 0.0f32..0.99, seed in 0u64..1000,
        ) {
            let random = Random::new(seed, Purpose::Test, 0);
            let mut logits: Vec<f32> = (0..rows * classes).map(|i| 2.0 * random.normal(i as u64)).collect();
            let labels: Vec<usize> = (0..rows).map(|i| random.below(1000 + i as u64, classes as u64) as usize).collect();
            let mut gradient = vec![0.0; logits.len()];
            cross_entropy(&logits, &labels, classes, smoothing, Some(&mut gradient));
            for place in 0..logits.len() {
                let (at, step) = (logits[place], 1.0 / 64.0);
                let mut loss = |x: f32| {
                    logits[place] = x;
                    cross_entropy(&logits, &labels, classes, smoothing, None).sum / rows as f64
                };
                let slope = (loss(at + step) - loss(at - step)) / f64::from((at + step) - (at - step));
                logits[place] = at;
                prop_assert!((f64::from(gradient[place]) - slope).abs() < 1e-4, "{} {}", gradient[place], slope);
            }
        }
    }
}
