//! How good a network is on a data set.

use super::{TrainError, check_classes, check_data, first_non_finite, on_worker};
use crate::data::augment::Augment;
use crate::data::{Dataset, Normalization, gather};
use crate::network::plan::{Plan, Weights};
use crate::network::run::Runner;
use crate::network::{Description, Network, Parameters};
use ndarray::Array2;
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
    /// Images by true class (row) and predicted class (column).
    #[serde(serialize_with = "rows")]
    pub confusion: Array2<usize>,
    /// One entry a class.
    pub classes: Vec<ClassMetrics>,
    /// The images that were taken for something else, the surest mistakes first; at most 100.
    pub mistakes: Vec<Mistake>,
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

/// An image taken for something else.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Mistake {
    /// Its position in the data set.
    pub index: usize,
    /// Its true class.
    pub label: usize,
    /// The class it was taken for.
    pub predicted: usize,
    /// How sure the network was of that (softmax).
    pub probability: f32,
}

fn rows<S: serde::Serializer>(confusion: &Array2<usize>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(confusion.rows().into_iter().map(|row| row.to_vec()))
}

/// Evaluates `network` on all of `data`, `batch` images at a time.
///
/// # Errors
/// Data that does not fit the network, a batch of 0, weights that are not finite, or memory that can't be had.
pub fn evaluate(
    network: &Network,
    data: &Dataset,
    normalization: &Normalization,
    batch: usize,
) -> Result<Evaluation, TrainError> {
    evaluate_with(network, data, normalization, batch, Weights::F32)
}

/// [`evaluate`] with weights kept as `weights` says.
///
/// # Errors
/// As for [`evaluate`].
pub fn evaluate_with(
    network: &Network,
    data: &Dataset,
    normalization: &Normalization,
    batch: usize,
    weights: Weights,
) -> Result<Evaluation, TrainError> {
    check_classes(data, network.classes())?;
    let (description, parameters) = (network.description(), network.parameters());
    checked(Evaluator { weights, ..Evaluator::new(description, batch) }, parameters, data, normalization)
}

/// [`evaluate`] with parameters that are not (or not yet) a network's own, without copying them.
///
/// # Errors
/// As for [`evaluate`].
pub fn evaluate_parameters(
    description: &Description,
    parameters: &Parameters,
    data: &Dataset,
    normalization: &Normalization,
    batch: usize,
) -> Result<Evaluation, TrainError> {
    checked(Evaluator::new(description, batch), parameters, data, normalization)
}

fn checked(
    mut evaluator: Evaluator<'_>,
    parameters: &Parameters,
    data: &Dataset,
    normalization: &Normalization,
) -> Result<Evaluation, TrainError> {
    if evaluator.batch == 0 {
        return Err(TrainError::Option { field: "batch", found: "0".into(), expected: "at least 1" });
    }
    if let Some((name, value, position)) = first_non_finite(parameters) {
        return Err(TrainError::NonFiniteParameter { parameter: name.into(), value, position });
    }
    on_worker(|| evaluator.run(parameters, data, data.len(), normalization))
}

/// Evaluates again and again with the same runners.
pub(super) struct Evaluator<'a> {
    description: &'a Description,
    batch: usize,
    weights: Weights,
    full: Option<Runner>,
    /// For what is left of a data set when the full batches are done.
    rest: Option<Runner>,
    indices: Vec<usize>,
}

impl<'a> Evaluator<'a> {
    /// Plans nothing yet.
    pub(super) fn new(description: &'a Description, batch: usize) -> Self {
        Self { description, batch, weights: Weights::F32, full: None, rest: None, indices: Vec::new() }
    }

    /// Evaluates the first `images` of `data`.
    pub(super) fn run(
        &mut self,
        parameters: &Parameters,
        data: &Dataset,
        images: usize,
        normalization: &Normalization,
    ) -> Result<Evaluation, TrainError> {
        check_data(data, self.description.input, normalization)?;
        let images = images.min(data.len());
        let mut tally = Tally::new(data.class_names().len());
        let mut start = 0;
        while start < images {
            let count = self.batch.min(images - start);
            let place = if count == self.batch { &mut self.full } else { &mut self.rest };
            if place.as_ref().is_none_or(|runner| runner.batch() != count) {
                // Give the old arena back before reserving the new one.
                *place = None;
            }
            let runner = match place {
                Some(runner) => runner,
                None => place.insert(Runner::new(Plan::inference(self.description, count, self.weights)?)?),
            };
            self.indices.clear();
            self.indices.extend(start..start + count);
            gather(data, &self.indices, normalization, (&Augment::none(), 0, 0), runner.input_mut());
            let logits = runner.predict(parameters);
            check_classes(data, logits.len() / count)?;
            for ((image, logits), &label) in
                (start..).zip(logits.chunks_exact(tally.classes)).zip(data.labels().iter().skip(start))
            {
                tally.add(image, logits, label).map_err(|value| TrainError::NonFiniteOutput {
                    data: data.name().into(),
                    image,
                    value,
                })?;
            }
            start += count;
        }
        Ok(tally.finish())
    }
}

/// The counts, while they grow.
struct Tally {
    classes: usize,
    images: usize,
    correct: usize,
    top5: usize,
    loss: f64,
    confusion: Array2<usize>,
    mistakes: Vec<Mistake>,
}

impl Tally {
    fn new(classes: usize) -> Self {
        Self {
            classes,
            images: 0,
            correct: 0,
            top5: 0,
            loss: 0.0,
            confusion: Array2::zeros((classes, classes)),
            mistakes: Vec::new(),
        }
    }

    /// Counts one image; a logit that is not finite is the error.
    fn add(&mut self, index: usize, logits: &[f32], label: usize) -> Result<(), f32> {
        if let Some(&value) = logits.iter().find(|v| !v.is_finite()) {
            return Err(value);
        }
        let (mut predicted, mut largest) = (0, f32::NEG_INFINITY);
        for (class, &logit) in logits.iter().enumerate() {
            if logit > largest {
                (predicted, largest) = (class, logit);
            }
        }
        // Differences in f64: between the largest numbers of f32 they overflow it.
        let below = |logit: f32| f64::from(logit) - f64::from(largest);
        let sum: f64 = logits.iter().map(|&v| below(v).exp()).sum();
        let own = logits.get(label).copied().unwrap_or(f32::NEG_INFINITY);
        self.images += 1;
        self.loss += sum.ln() - below(own);
        // Equal logits rank in class order, as for `predicted`.
        let before = logits.iter().enumerate().filter(|&(class, &v)| v > own || (v == own && class < label)).count();
        self.top5 += usize::from(before < 5);
        if let Some(count) = self.confusion.get_mut((label, predicted)) {
            *count += 1;
        }
        if predicted == label {
            self.correct += 1;
        } else {
            self.mistakes.push(Mistake { index, label, predicted, probability: (1.0 / sum) as f32 });
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

    fn finish(mut self) -> Evaluation {
        self.keep_the_surest();
        let share = |part: usize, of: usize| if of == 0 { 0.0 } else { part as f64 / of as f64 };
        let classes = (0..self.classes)
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
        Evaluation {
            images: self.images,
            correct: self.correct,
            accuracy: share(self.correct, self.images),
            top5: share(self.top5, self.images),
            loss: if self.images == 0 { 0.0 } else { self.loss / self.images as f64 },
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
        let mut tally = Tally::new(3);
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
        let json = serde_json::to_value(&evaluation).unwrap();
        assert_eq!(json["confusion"], serde_json::json!([[2, 1, 0], [0, 1, 0], [1, 0, 0]]));
    }

    #[test]
    fn top5_of_many_classes_and_equal_logits() {
        let mut tally = Tally::new(10);
        let logits: Vec<f32> = (0..10).map(|v| v as f32).collect();
        for label in 0..10 {
            tally.add(label, &logits, label).unwrap();
        }
        assert_eq!(tally.finish().top5, 0.5);
        let mut tally = Tally::new(10);
        for label in 0..10 {
            tally.add(label, &[1.0; 10], label).unwrap();
        }
        let evaluation = tally.finish();
        assert_eq!((evaluation.top5, evaluation.correct), (0.5, 1));
    }

    #[test]
    fn large_logits_do_not_overflow_and_bad_ones_are_told() {
        let mut tally = Tally::new(2);
        tally.add(0, &[1e30, -1e30], 1).unwrap();
        tally.add(1, &[f32::MAX, f32::MAX], 1).unwrap();
        assert_eq!(tally.add(2, &[0.0, f32::INFINITY], 1), Err(f32::INFINITY));
        let evaluation = tally.finish();
        assert!(evaluation.loss.is_finite() && evaluation.loss > 1e29);
        assert_eq!(evaluation.mistakes[0].probability, 1.0);
    }

    #[test]
    fn only_the_surest_mistakes_are_kept() {
        let mut tally = Tally::new(2);
        for index in 0..20_000 {
            tally.add(index, &[(index % 7919) as f32 / 1000.0, -1.0], 1).unwrap();
        }
        let evaluation = tally.finish();
        assert_eq!(evaluation.mistakes.len(), 100);
        assert_eq!(evaluation.mistakes[0].index % 7919, 7918);
        assert!(evaluation.mistakes.is_sorted_by(|a, b| a.probability >= b.probability));
    }
}
