//! How good a network's answers are: counts, shares and means (definitions and sources in docs/metrics.md).

use super::calibration::{Bins, Calibration};
use crate::layers::predicted_class;
use ndarray::{Array2, ArrayView2};
use serde::Serialize;

/// The most entries in [`Evaluation::mistakes`].
const MOST_MISTAKES: usize = 100;

/// How good a network is on a data set.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// Images evaluated.
    pub images: usize,
    /// Images whose largest logit is their label's (the first of equal ones counts as the largest).
    pub correct: usize,
    /// `correct / images`.
    pub accuracy: f64,
    /// Share of images whose label is among the 5 largest logits (or all, with fewer classes).
    pub top5: f64,
    /// Mean softmax cross-entropy, in nats.
    pub loss: f64,
    /// Means over the classes.
    pub macro_average: MacroAverage,
    /// How far probabilities and shares of right answers are apart.
    pub calibration: Calibration,
    /// Loss and calibration after temperature scaling, where a temperature other than 1 was given.
    pub scaled: Option<Scaled>,
    /// Images by true class (row) and predicted class (column).
    #[serde(serialize_with = "rows")]
    pub confusion: Array2<usize>,
    /// One entry a class.
    pub classes: Vec<ClassMetrics>,
    /// The images that were taken for something else, the surest mistakes first; at most 100.
    pub mistakes: Vec<Mistake>,
}

impl Evaluation {
    /// What `logits`, (N, classes), of images with these labels come to; `temperature` is that of [`Scaled`], 1 for none.
    ///
    /// ```
    /// use striate::train::Evaluation;
    ///
    /// let logits = ndarray::array![[2.0f32, 0.0], [1.0, 0.0], [0.0, 3.0]];
    /// let found = Evaluation::of_logits(logits.view(), &[0, 1, 1], 1.0).unwrap();
    /// assert_eq!((found.images, found.correct), (3, 2));
    /// assert_eq!((found.classes[1].precision, found.classes[1].recall), (1.0, 0.5));
    /// assert_eq!((found.mistakes[0].index, found.mistakes[0].predicted), (1, 0));
    /// ```
    ///
    /// # Errors
    /// The row and the value of a logit that is not finite.
    ///
    /// # Panics
    /// The number of labels is not that of the rows.
    pub fn of_logits(logits: ArrayView2<'_, f32>, labels: &[usize], temperature: f64) -> Result<Self, (usize, f32)> {
        assert_eq!(logits.nrows(), labels.len(), "there must be one label for each row of logits");
        let mut tally = Tally::new(logits.ncols(), temperature);
        for (index, (row, &label)) in logits.rows().into_iter().zip(labels).enumerate() {
            tally.add(index, &row.to_vec(), label).map_err(|value| (index, value))?;
        }
        Ok(tally.finish())
    }
}

/// How well one class is recognised. A share of nothing is 0.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ClassMetrics {
    /// Images of this class.
    pub images: usize,
    /// Of the images taken for this class, the share that are.
    pub precision: f64,
    /// Of the images of this class, the share that were taken for it.
    pub recall: f64,
    /// Harmonic mean of precision and recall.
    pub f1: f64,
}

/// Means of precision, recall and F1 over the classes that have images or that images were taken for, each class counting
/// the same however many images it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct MacroAverage {
    /// Mean precision.
    pub precision: f64,
    /// Mean recall; where every class has images, this is the balanced accuracy.
    pub recall: f64,
    /// Mean F1.
    pub f1: f64,
}

/// What temperature scaling makes of loss and calibration. It changes no order, hence no accuracy.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scaled {
    /// What the logits were divided by.
    pub temperature: f64,
    /// Mean softmax cross-entropy of the scaled logits, in nats.
    pub loss: f64,
    /// Calibration of the scaled probabilities.
    pub calibration: Calibration,
}

/// An image taken for something else.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Mistake {
    /// Its position in the data set.
    pub index: usize,
    /// Its true class.
    pub label: usize,
    /// The class it was taken for.
    pub predicted: usize,
    /// How sure the network was of that: softmax, of the scaled logits where a temperature was given.
    pub probability: f32,
    /// The probability it gave to the true class.
    pub label_probability: f32,
}

fn rows<S: serde::Serializer>(confusion: &Array2<usize>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(confusion.rows().into_iter().map(|row| row.to_vec()))
}

/// The counts, while they grow.
pub(super) struct Tally {
    temperature: f64,
    images: usize,
    correct: usize,
    top5: usize,
    loss: f64,
    bins: Bins,
    scaled_loss: f64,
    scaled_bins: Bins,
    confusion: Array2<usize>,
    mistakes: Vec<Mistake>,
}

impl Tally {
    pub(super) fn new(classes: usize, temperature: f64) -> Self {
        Self {
            temperature,
            images: 0,
            correct: 0,
            top5: 0,
            loss: 0.0,
            bins: Bins::default(),
            scaled_loss: 0.0,
            scaled_bins: Bins::default(),
            confusion: Array2::zeros((classes, classes)),
            mistakes: Vec::new(),
        }
    }

    /// Counts one image; a logit that is not finite is the error.
    pub(super) fn add(&mut self, index: usize, logits: &[f32], label: usize) -> Result<(), f32> {
        if let Some(&value) = logits.iter().find(|v| !v.is_finite()) {
            return Err(value);
        }
        let predicted = predicted_class(logits);
        let largest = logits.get(predicted).copied().unwrap_or(f32::NEG_INFINITY);
        // Differences in f64: between the largest numbers of f32 they overflow it.
        let below = |logit: f32| f64::from(logit) - f64::from(largest);
        let own = logits.get(label).copied().unwrap_or(f32::NEG_INFINITY);
        // Of the logits over a temperature: the largest probability, the label's, and the label's cross-entropy.
        let softmax = |temperature: f64| {
            let sum: f64 = logits.iter().map(|&v| (below(v) / temperature).exp()).sum();
            let own = below(own) / temperature;
            (1.0 / sum, own.exp() / sum, sum.ln() - own)
        };
        let right = predicted == label;
        let plain = softmax(1.0);
        let (probability, label_probability, loss) =
            if self.temperature == 1.0 { plain } else { softmax(self.temperature) };
        self.images += 1;
        self.loss += plain.2;
        self.bins.add(plain.0, right);
        self.scaled_loss += loss;
        self.scaled_bins.add(probability, right);
        // Equal logits rank in class order, as for `predicted`.
        let before = logits.iter().enumerate().filter(|&(class, &v)| v > own || (v == own && class < label)).count();
        self.top5 += usize::from(before < 5);
        if let Some(count) = self.confusion.get_mut((label, predicted)) {
            *count += 1;
        }
        if right {
            self.correct += 1;
        } else {
            let (probability, label_probability) = (probability as f32, label_probability as f32);
            self.mistakes.push(Mistake { index, label, predicted, probability, label_probability });
            // Now and then, so that a bad network on much data does not fill the memory.
            if self.mistakes.len() >= 64 * MOST_MISTAKES {
                self.keep_the_surest();
            }
        }
        Ok(())
    }

    fn keep_the_surest(&mut self) {
        self.mistakes.sort_by(|a, b| b.probability.total_cmp(&a.probability).then(a.index.cmp(&b.index)));
        self.mistakes.truncate(MOST_MISTAKES);
    }

    pub(super) fn finish(mut self) -> Evaluation {
        self.keep_the_surest();
        let share = |part: usize, of: usize| if of == 0 { 0.0 } else { part as f64 / of as f64 };
        let mean = |sum: f64| if self.images == 0 { 0.0 } else { sum / self.images as f64 };
        let classes: Vec<ClassMetrics> = (0..self.confusion.nrows())
            .map(|class| {
                let (images, taken) = (self.confusion.row(class).sum(), self.confusion.column(class).sum());
                let right = self.confusion.get((class, class)).copied().unwrap_or(0);
                ClassMetrics {
                    images,
                    precision: share(right, taken),
                    recall: share(right, images),
                    f1: share(2 * right, images + taken),
                }
            })
            .collect();
        let seen: Vec<&ClassMetrics> = classes
            .iter()
            .zip(self.confusion.columns())
            .filter(|(class, taken)| class.images > 0 || taken.sum() > 0)
            .map(|(class, _)| class)
            .collect();
        let over_classes =
            |value: fn(&ClassMetrics) -> f64| seen.iter().map(|c| value(c)).sum::<f64>() / seen.len().max(1) as f64;
        Evaluation {
            images: self.images,
            correct: self.correct,
            accuracy: share(self.correct, self.images),
            top5: share(self.top5, self.images),
            loss: mean(self.loss),
            macro_average: MacroAverage {
                precision: over_classes(|c| c.precision),
                recall: over_classes(|c| c.recall),
                f1: over_classes(|c| c.f1),
            },
            calibration: self.bins.finish(),
            scaled: (self.temperature != 1.0).then(|| Scaled {
                temperature: self.temperature,
                loss: mean(self.scaled_loss),
                calibration: self.scaled_bins.finish(),
            }),
            confusion: self.confusion,
            classes,
            mistakes: self.mistakes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn counted_by_hand() {
        let mut tally = Tally::new(3, 1.0);
        for (index, (logits, label)) in [
            ([2.0, 1.0, 0.0], 0),
            ([0.0, 3.0, 0.0], 0),
            ([0.0, 0.0, 0.0], 0),
            ([5.0, 0.0, 1.0], 2),
            ([0.0, 1.0, 0.0], 1),
        ]
        .into_iter()
        .enumerate()
        {
            tally.add(index, &logits, label).unwrap();
        }
        let evaluation = tally.finish();
        assert_eq!((evaluation.images, evaluation.correct, evaluation.accuracy, evaluation.top5), (5, 3, 0.6, 1.0));
        assert_eq!(evaluation.confusion, array![[2, 1, 0], [0, 1, 0], [1, 0, 0]]);
        let cross_entropy =
            |logits: [f64; 3], label: usize| logits.iter().map(|v| v.exp()).sum::<f64>().ln() - logits[label];
        let loss = (cross_entropy([2.0, 1.0, 0.0], 0)
            + cross_entropy([0.0, 3.0, 0.0], 0)
            + 3.0f64.ln()
            + cross_entropy([5.0, 0.0, 1.0], 2)
            + cross_entropy([0.0, 1.0, 0.0], 1))
            / 5.0;
        assert!((evaluation.loss - loss).abs() < 1e-12);
        let [zero, one, two] = evaluation.classes[..] else { panic!() };
        assert_eq!((zero.images, zero.precision, zero.recall), (3, 2.0 / 3.0, 2.0 / 3.0));
        assert!((zero.f1 - 2.0 / 3.0).abs() < 1e-15);
        assert_eq!((one.images, one.precision, one.recall), (1, 0.5, 1.0));
        assert_eq!((two.images, two.precision, two.recall, two.f1), (1, 0.0, 0.0, 0.0));
        let order: Vec<_> = evaluation.mistakes.iter().map(|m| (m.index, m.label, m.predicted)).collect();
        assert_eq!(order, [(3, 2, 0), (1, 0, 1)]);
        let e = std::f64::consts::E;
        assert!((f64::from(evaluation.mistakes[1].probability) - e.powi(3) / (e.powi(3) + 2.0)).abs() < 1e-6);
        assert!((f64::from(evaluation.mistakes[1].label_probability) - 1.0 / (e.powi(3) + 2.0)).abs() < 1e-6);
        let json = serde_json::to_value(&evaluation).unwrap();
        assert_eq!(json["confusion"], serde_json::json!([[2, 1, 0], [0, 1, 0], [1, 0, 0]]));
    }

    #[test]
    fn top5_of_many_classes_and_equal_logits() {
        let mut tally = Tally::new(10, 1.0);
        let logits: Vec<f32> = (0..10).map(|v| v as f32).collect();
        for label in 0..10 {
            tally.add(label, &logits, label).unwrap();
        }
        assert_eq!(tally.finish().top5, 0.5);
        let mut tally = Tally::new(10, 1.0);
        for label in 0..10 {
            tally.add(label, &[1.0; 10], label).unwrap();
        }
        let evaluation = tally.finish();
        assert_eq!((evaluation.top5, evaluation.correct), (0.5, 1));
    }

    #[test]
    fn large_logits_do_not_overflow_and_bad_ones_are_told() {
        let mut tally = Tally::new(2, 1.0);
        tally.add(0, &[1e30, -1e30], 1).unwrap();
        tally.add(1, &[f32::MAX, f32::MAX], 1).unwrap();
        assert_eq!(tally.add(2, &[0.0, f32::INFINITY], 1), Err(f32::INFINITY));
        let evaluation = tally.finish();
        assert!(evaluation.loss.is_finite() && evaluation.loss > 1e29);
        assert_eq!(evaluation.mistakes[0].probability, 1.0);
    }

    #[test]
    fn only_the_surest_mistakes_are_kept() {
        let mut tally = Tally::new(2, 1.0);
        for index in 0..20_000 {
            tally.add(index, &[(index % 7919) as f32 / 1000.0, -1.0], 1).unwrap();
        }
        let evaluation = tally.finish();
        assert_eq!(evaluation.mistakes.len(), 100);
        assert_eq!(evaluation.mistakes[0].index % 7919, 7918);
        assert!(evaluation.mistakes.is_sorted_by(|a, b| a.probability >= b.probability));
    }
}
