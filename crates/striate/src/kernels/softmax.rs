//! Softmax and its loss (sections 3.5 and 5.6.3).

use super::elementwise::exp_up_to_zero;
use super::isa;

/// Rows of probabilities from rows of logits; the largest logit is subtracted first, so nothing overflows.
pub(crate) fn softmax(logits: &[f32], probabilities: &mut [f32], classes: usize) {
    exponentials(logits, probabilities, classes);
    for row in probabilities.chunks_exact_mut(classes) {
        let scale = (1.0 / sum(row)) as f32;
        row.iter_mut().for_each(|p| *p *= scale);
    }
}

/// The exponential of each logit less the largest of its row.
#[inline(always)]
fn exponentials_body(logits: &[f32], exponentials: &mut [f32], classes: usize) {
    for (row, output) in logits.chunks_exact(classes).zip(exponentials.chunks_exact_mut(classes)) {
        let largest = largest(row);
        output.iter_mut().zip(row).for_each(|(e, &v)| *e = exp_up_to_zero(v - largest));
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
    let mut add = |row: &[f32], label: usize, sum: f64| {
        loss.sum += sum.ln() + f64::from(largest(row)) - f64::from(row[label]);
        // A NaN among the logits must not hide: `max` skips it.
        if row.iter().any(|v| v.is_nan()) {
            loss.sum = f64::NAN;
        }
        loss.correct += usize::from(argmax(row) == label);
    };
    let rows = logits.chunks_exact(classes).zip(labels);
    match gradient {
        None => {
            for (row, &label) in rows {
                let largest = largest(row);
                add(row, label, row.iter().map(|&v| f64::from(exp_up_to_zero(v - largest))).sum());
            }
        }
        Some(gradient) => {
            exponentials(logits, gradient, classes);
            let share = 1.0 / labels.len() as f32;
            for ((row, &label), gradient) in rows.zip(gradient.chunks_exact_mut(classes)) {
                let sum = sum(gradient);
                add(row, label, sum);
                let scale = (1.0 / sum) as f32;
                gradient.iter_mut().for_each(|g| *g *= scale);
                gradient[label] -= 1.0;
                gradient.iter_mut().for_each(|g| *g *= share);
            }
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
