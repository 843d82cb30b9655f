//! Softmax and its loss (sections 3.5 and 5.6.3).

use crate::shape::Shape;

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
            let sum: f64 = values().map(|&v| f64::from((v - largest).exp())).sum();
            let scale = (1.0 / sum) as f32;
            y[pixel..].iter_mut().step_by(pixels).zip(values()).for_each(|(y, &v)| *y = (v - largest).exp() * scale);
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
/// With `gradient`, also `(softmax - one hot) / batch`.
pub(crate) fn cross_entropy(logits: &[f32], labels: &[usize], classes: usize, gradient: Option<&mut [f32]>) -> Loss {
    let mut loss = Loss::default();
    for (row, &label) in logits.chunks_exact(classes).zip(labels) {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|&v| f64::from((v - largest).exp())).sum();
        loss.sum += sum.ln() + f64::from(largest) - f64::from(row[label]);
        // A NaN among the logits must not hide: `max` skips it.
        if row.iter().any(|v| v.is_nan()) {
            loss.sum = f64::NAN;
        }
        loss.correct += usize::from(argmax(row) == label);
    }
    if let Some(gradient) = gradient {
        softmax(logits, gradient, classes);
        let scale = 1.0 / labels.len() as f32;
        for (row, &label) in gradient.chunks_exact_mut(classes).zip(labels) {
            row[label] -= 1.0;
            row.iter_mut().for_each(|g| *g *= scale);
        }
    }
    loss
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let loss = cross_entropy(&logits[..3], &[1], 3, None);
        assert!((loss.sum - 2e4).abs() < 1e-3, "{loss:?}");
        assert_eq!(loss.correct, 0);
        assert_eq!(cross_entropy(&logits[..3], &[0], 3, None), Loss { sum: 0.0, correct: 1 });
    }

    #[test]
    fn a_fault_shows() {
        assert!(cross_entropy(&[f32::NAN, 0.0], &[1], 2, None).sum.is_nan());
        assert!(!cross_entropy(&[f32::INFINITY, 0.0], &[1], 2, None).sum.is_finite());
        assert_eq!(argmax(&[f32::NAN, 0.0, 1.0, 1.0]), 2);
    }

    #[test]
    fn gradient_is_softmax_minus_one_hot() {
        let mut gradient = [0.0; 4];
        cross_entropy(&[0.0, 0.0, 0.0, 0.0], &[0, 1], 2, Some(&mut gradient));
        assert_eq!(gradient, [-0.25, 0.25, 0.25, -0.25]);
    }
}
