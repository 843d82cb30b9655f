//! The training loop.

use super::evaluate::Evaluator;
use super::{Control, EpochMetrics, Evaluation, Event, Keep, TrainError, TrainOptions, TrainSummary};
use super::{check_classes, check_data, first_non_finite, groups, on_worker};
use crate::data::{Dataset, Loader, Normalization};
use crate::kernels::isa::vectorize;
use crate::network::plan::{Mode, Plan};
use crate::network::run::{Runner, StepKey};
use crate::network::{Network, Parameters};
use crate::optim::{CHUNK, Groups, Optimizer};
use crate::random::{Purpose, Random};
use rayon::prelude::*;
use std::time::Instant;

/// Weights are put aside at most this often, however often the caller wants to hear: the copy costs as much as a tenth
/// of a small network's step.
const LEAST_STEPS_BETWEEN_SNAPSHOTS: u64 = 10;

/// Trains a network in place.
pub struct Trainer<'a> {
    network: &'a mut Network,
    train: &'a Dataset,
    validation: Option<&'a Dataset>,
    test: Option<&'a Dataset>,
    normalization: Normalization,
    options: TrainOptions,
    steps_per_epoch: usize,
    total_steps: u64,
}

impl<'a> Trainer<'a> {
    /// Checks that options, data and network fit each other; trains nothing yet.
    ///
    /// # Errors
    /// The first thing that does not fit.
    pub fn new(
        network: &'a mut Network,
        train: &'a Dataset,
        test: Option<&'a Dataset>,
        normalization: Normalization,
        options: TrainOptions,
    ) -> Result<Self, TrainError> {
        options.validate()?;
        for data in std::iter::once(train).chain(test) {
            check_data(data, network.input(), &normalization)?;
            check_classes(data, network.classes())?;
        }
        if options.batch > train.len() {
            return Err(TrainError::BatchTooLarge {
                data: train.name().into(),
                images: train.len(),
                batch: options.batch,
            });
        }
        if let Some((name, value, position)) = first_non_finite(network.parameters()) {
            return Err(TrainError::NonFiniteParameter { parameter: name.into(), value, position });
        }
        let steps_per_epoch = train.len().div_ceil(options.batch);
        let total_steps = steps_per_epoch.checked_mul(options.epochs).ok_or_else(|| TrainError::Option {
            field: "epochs",
            found: options.epochs.to_string(),
            expected: "so few that the steps can be counted",
        })? as u64;
        Ok(Self { network, train, validation: None, test, normalization, options, steps_per_epoch, total_steps })
    }

    /// Evaluates this data too after each epoch, and judges by it which epoch is the best: images that are neither
    /// trained on nor, unlike the test set's, kept for the end.
    ///
    /// # Errors
    /// Data that does not fit the network.
    pub fn validation(mut self, data: &'a Dataset) -> Result<Self, TrainError> {
        check_data(data, self.network.input(), &self.normalization)?;
        check_classes(data, self.network.classes())?;
        self.validation = Some(data);
        Ok(self)
    }

    /// Trains to the end, until `on_event` says [`Control::Stop`], or until the loss leaves all bounds.
    ///
    /// The loop, and so `on_event`, runs on a thread of the current rayon pool: call this inside
    /// [`rayon::ThreadPool::install`] to choose the pool. The network's weights change at every step; at the end, and
    /// after a stop, they are the last ones, or the averaged ones where [`TrainOptions::average`] is set; with
    /// [`Keep::Best`] those of the best epoch, once there is one.
    ///
    /// # Errors
    /// [`TrainError::Diverged`], with the network back at its last good weights; or a network that can't be planned for
    /// this batch, memory that can't be had, or [`Keep::Best`] without a validation set, with the network unchanged.
    pub fn run(self, on_event: &mut (dyn FnMut(&Event<'_>) -> Control + Send)) -> Result<TrainSummary, TrainError> {
        if self.options.keep == Keep::Best && self.validation.is_none() {
            return Err(TrainError::Option {
                field: "keep",
                found: Keep::Best.to_string(),
                expected: "last where there is no validation set to find the best epoch with",
            });
        }
        on_worker(move || {
            let description = self.network.description().clone();
            let evaluator = Evaluator::new(&description, self.options.batch);
            Run::new(self)?.all(evaluator, on_event)
        })
    }
}

/// Everything that changes during a run; allocated once.
struct Run<'a> {
    trainer: Trainer<'a>,
    loader: Loader<'a>,
    full: Runner,
    /// For the last, smaller batch of an epoch.
    rest: Option<Runner>,
    gradients: Parameters,
    groups: Groups,
    optimizer: Box<dyn Optimizer>,
    average: Option<Average>,
    guard: Guard,
    snapshot: Snapshot,
    best: Option<Best>,
    /// The best epoch's weights, where those are kept; as long as all parameters from the start.
    best_values: Option<Vec<f32>>,
    /// Updates done.
    step: u64,
    last_loss: f32,
    gradient_norm: Option<f32>,
    learning_rate: f32,
    /// Since the run began.
    images: u64,
    /// Without evaluation.
    training_seconds: f64,
    clock: Instant,
    history: Vec<EpochMetrics>,
}

/// Whether a part of the run came to its end or was stopped.
#[derive(PartialEq)]
enum Ended {
    Done,
    Stopped,
}

impl<'a> Run<'a> {
    fn new(trainer: Trainer<'a>) -> Result<Self, TrainError> {
        let clock = Instant::now();
        let (network, options) = (&*trainer.network, &trainer.options);
        let runner = |batch| -> Result<Runner, TrainError> {
            let mut runner = Runner::new(Plan::new(network.description(), batch, Mode::Training)?)?;
            runner.set_label_smoothing(options.label_smoothing);
            Ok(runner)
        };
        let rest = trainer.train.len() % options.batch;
        let parameters = network.parameters();
        let groups = groups(parameters, options.decay);
        let loader = Loader::new(trainer.train, trainer.normalization.clone(), options.augment.clone(), options.seed);
        Ok(Self {
            loader,
            full: runner(options.batch)?,
            rest: if rest == 0 { None } else { Some(runner(rest)?) },
            gradients: parameters.zeros_like(),
            optimizer: options.optimizer.build_grouped(&groups)?,
            groups,
            average: options.average.map(|decay| Average { decay, parameters: parameters.clone() }),
            guard: Guard::new(network.classes(), options.batch),
            snapshot: Snapshot { step: 0, values: parameters.as_slice().to_vec() },
            best: None,
            best_values: (options.keep == Keep::Best).then(|| parameters.as_slice().to_vec()),
            step: 0,
            last_loss: 0.0,
            gradient_norm: None,
            learning_rate: options.learning_rate,
            images: 0,
            training_seconds: 0.0,
            clock,
            history: Vec::new(),
            trainer,
        })
    }

    fn all(
        mut self,
        mut evaluator: Evaluator<'_>,
        on_event: &mut (dyn FnMut(&Event<'_>) -> Control + Send),
    ) -> Result<TrainSummary, TrainError> {
        let epochs = self.trainer.options.epochs;
        let started =
            Event::Started { images: self.trainer.train.len(), epochs, steps_per_epoch: self.trainer.steps_per_epoch };
        if on_event(&started) == Control::Stop {
            return self.finish(0, true);
        }
        for epoch in 1..=epochs {
            let begun = Instant::now();
            let mut sums = Sums::default();
            let ended = self.train_epoch(epoch, &mut sums, on_event);
            let seconds = begun.elapsed().as_secs_f64();
            self.training_seconds += seconds;
            if ended? == Ended::Stopped {
                return self.finish(epoch, true);
            }
            if self.evaluate_epoch(epoch, seconds, &sums, &mut evaluator, on_event)? == Ended::Stopped {
                return self.finish(epoch, true);
            }
        }
        self.finish(epochs, false)
    }

    /// Every image once, in an order of the epoch's own.
    fn train_epoch(
        &mut self,
        epoch: usize,
        epoch_sums: &mut Sums,
        on_event: &mut (dyn FnMut(&Event<'_>) -> Control + Send),
    ) -> Result<Ended, TrainError> {
        let log_every = self.trainer.options.log_every as u64;
        let steps_per_epoch = self.trainer.steps_per_epoch;
        let order = Random::new(self.trainer.options.seed, Purpose::Shuffle, epoch as u64 - 1)
            .permutation(self.trainer.train.len());
        let (mut sums, mut begun) = (Sums::default(), Instant::now());
        let mut batches = order.chunks(self.trainer.options.batch).enumerate().peekable();
        while let Some((position, indices)) = batches.next() {
            let (loss, correct) = self.train_step(epoch, indices, batches.peek().map(|&(_, next)| next))?;
            sums.add(loss, correct, indices.len());
            epoch_sums.add(loss, correct, indices.len());
            if self.step.is_multiple_of(log_every) || position + 1 == steps_per_epoch {
                let event = Event::Step {
                    epoch,
                    step: self.step,
                    steps_per_epoch,
                    loss: sums.loss(),
                    accuracy: sums.accuracy(),
                    learning_rate: self.learning_rate,
                    gradient_norm: self.gradient_norm,
                    images_per_second: sums.images as f64 / begun.elapsed().as_secs_f64(),
                };
                if on_event(&event) == Control::Stop {
                    return Ok(Ended::Stopped);
                }
                (sums, begun) = (Sums::default(), Instant::now());
            }
        }
        Ok(Ended::Done)
    }

    /// One batch: forward, backward, update; the images of the next one are prepared meanwhile.
    fn train_step(
        &mut self,
        epoch: usize,
        indices: &[usize],
        next: Option<&[usize]>,
    ) -> Result<(f32, usize), TrainError> {
        let Trainer { network, train, options, total_steps, .. } = &mut self.trainer;
        let runner = match &mut self.rest {
            Some(rest) if indices.len() < options.batch => rest,
            _ => &mut self.full,
        };
        self.loader.batch(epoch, indices, runner.input_mut());
        if let Some(next) = next {
            self.loader.prepare(epoch, next);
        }
        let labels = train.labels();
        for (label, &index) in runner.labels_mut().iter_mut().zip(indices) {
            *label = labels[index];
        }
        let key = StepKey { seed: options.seed, step: self.step };
        let result = runner.loss_and_gradient(network.parameters(), &mut self.gradients, key);
        self.last_loss = result.loss;
        match self.guard.look(result.loss) {
            Health::Lost => return Err(self.diverged(epoch)),
            // These weights just gave a good loss; those after the update have not been tried yet.
            Health::Good
                if self.step - self.snapshot.step >= (options.log_every as u64).max(LEAST_STEPS_BETWEEN_SNAPSHOTS) =>
            {
                self.snapshot.take(self.step, network.parameters());
            }
            _ => {}
        }
        self.learning_rate = options.learning_rate * options.schedule.rate(self.step, *total_steps);
        let (parameters, gradients) = (network.parameters_mut(), self.gradients.as_slice());
        let mut scale = 1.0;
        if let Some(bound) = options.clip {
            let norm = self.groups.gradient_norm(gradients);
            self.gradient_norm = Some(norm as f32);
            // No bound makes a gradient finite that is not: it reaches the weights and shows as ever.
            if norm > f64::from(bound) {
                scale = (f64::from(bound) / norm) as f32;
            }
        }
        self.optimizer.update_scaled(self.learning_rate, scale, parameters.as_mut_slice(), gradients);
        if let Some(average) = &mut self.average {
            average.follow(parameters, self.step);
        }
        self.step += 1;
        self.images += indices.len() as u64;
        Ok((result.loss, result.correct))
    }

    fn evaluate_epoch(
        &mut self,
        epoch: usize,
        seconds: f64,
        sums: &Sums,
        evaluator: &mut Evaluator<'_>,
        on_event: &mut (dyn FnMut(&Event<'_>) -> Control + Send),
    ) -> Result<Ended, TrainError> {
        if first_non_finite(self.trainer.network.parameters()).is_some() {
            return Err(self.diverged(epoch));
        }
        let Trainer { network, train, validation, test, normalization, options, .. } = &self.trainer;
        let begun = Instant::now();
        let last = epoch == options.epochs;
        let train_images = options.evaluate_train.filter(|_| !last).unwrap_or(train.len()).min(train.len());
        let images = train_images + validation.map_or(0, Dataset::len) + test.map_or(0, Dataset::len);
        if on_event(&Event::Evaluating { epoch, images }) == Control::Stop {
            return Ok(Ended::Stopped);
        }
        let parameters = self.average.as_ref().map_or(network.parameters(), |average| &average.parameters);
        let mut measure = |data: &Dataset, images| evaluator.run(parameters, data, images, normalization);
        let mut measure_all = || -> Result<(Evaluation, Option<Evaluation>, Option<Evaluation>), TrainError> {
            let on_train = measure(train, train_images)?;
            let on_validation = validation.map(|data| measure(data, data.len())).transpose()?;
            Ok((on_train, on_validation, test.map(|data| measure(data, data.len())).transpose()?))
        };
        let (on_train, on_validation, on_test) = match measure_all() {
            Ok(evaluations) => evaluations,
            // Training brought the weights there.
            Err(TrainError::NonFiniteOutput { value, .. }) => {
                self.last_loss = value;
                return Err(self.diverged(epoch));
            }
            Err(error) => return Err(error),
        };
        match self.guard.look(on_train.loss as f32) {
            // No later step may come to show it.
            Health::Lost => {
                self.last_loss = on_train.loss as f32;
                return Err(self.diverged(epoch));
            }
            // The average's loss says nothing about the weights it was taken from.
            Health::Good if self.average.is_none() => self.snapshot.take(self.step, network.parameters()),
            _ => {}
        }
        let metrics = EpochMetrics {
            epoch,
            step: self.step,
            train_loss: sums.loss(),
            running_accuracy: sums.accuracy(),
            train_accuracy: on_train.accuracy,
            train_images,
            validation_accuracy: on_validation.as_ref().map(|e| e.accuracy),
            validation_loss: on_validation.as_ref().map(|e| e.loss),
            test_accuracy: on_test.as_ref().map(|e| e.accuracy),
            test_loss: on_test.as_ref().map(|e| e.loss),
            learning_rate: self.learning_rate,
            seconds,
            evaluation_seconds: begun.elapsed().as_secs_f64(),
            images_per_second: sums.images as f64 / seconds,
        };
        let this = on_validation.map(|e| Best { epoch, accuracy: e.accuracy, loss: e.loss });
        let best = this.as_ref().is_some_and(|this| this.beats(self.best.as_ref()));
        if best {
            self.best = this;
            if let Some(values) = &mut self.best_values {
                values.copy_from_slice(parameters.as_slice());
            }
        }
        let control = on_event(&Event::Epoch { metrics: &metrics, parameters, best });
        self.history.push(metrics);
        // After the last epoch there is nothing left to stop.
        Ok(if control == Control::Stop && !last { Ended::Stopped } else { Ended::Done })
    }

    /// Puts the last good weights back and says what happened.
    fn diverged(&mut self, epoch: usize) -> TrainError {
        let parameters = self.trainer.network.parameters_mut();
        let parameter = first_non_finite(parameters).map(|(name, ..)| name.to_string());
        parameters.as_mut_slice().copy_from_slice(&self.snapshot.values);
        TrainError::Diverged {
            step: self.step,
            epoch,
            loss: self.last_loss,
            learning_rate: self.trainer.options.learning_rate,
            parameter,
            restored_step: self.snapshot.step,
        }
    }

    fn finish(mut self, epoch: usize, stopped: bool) -> Result<TrainSummary, TrainError> {
        // A stop can fall between a ruinous update and the loss that would have shown it.
        if first_non_finite(self.trainer.network.parameters()).is_some() {
            return Err(self.diverged(epoch));
        }
        let parameters = self.trainer.network.parameters_mut().as_mut_slice();
        let kept_epoch = if let (Some(best), Some(values)) = (&self.best, &self.best_values) {
            parameters.copy_from_slice(values);
            Some(best.epoch)
        } else {
            if let Some(average) = &self.average {
                parameters.copy_from_slice(average.parameters.as_slice());
            }
            self.history.last().filter(|metrics| metrics.step == self.step).map(|metrics| metrics.epoch)
        };
        Ok(TrainSummary {
            epochs: self.history.len(),
            steps: self.step,
            stopped,
            kept_epoch,
            seconds: self.clock.elapsed().as_secs_f64(),
            images_per_second: if self.images == 0 { 0.0 } else { self.images as f64 / self.training_seconds },
            history: self.history,
        })
    }
}

/// Loss and hits, added up over steps.
#[derive(Default)]
struct Sums {
    images: usize,
    loss: f64,
    correct: usize,
}

impl Sums {
    fn add(&mut self, loss: f32, correct: usize, images: usize) {
        self.images += images;
        self.loss += f64::from(loss) * images as f64;
        self.correct += correct;
    }

    fn loss(&self) -> f64 {
        self.loss / self.images.max(1) as f64
    }

    fn accuracy(&self) -> f64 {
        self.correct as f64 / self.images.max(1) as f64
    }
}

/// An exponential moving average of the weights.
struct Average {
    decay: f32,
    parameters: Parameters,
}

impl Average {
    /// Takes in the weights after update number `step` (from 0).
    fn follow(&mut self, parameters: &Parameters, step: u64) {
        let keep = self.decay.min((1.0 + step as f32) / (10.0 + step as f32));
        let take = 1.0 - keep;
        self.parameters.as_mut_slice().par_chunks_mut(CHUNK).zip(parameters.as_slice().par_chunks(CHUNK)).for_each(
            |(average, w)| {
                vectorize(|| {
                    for (average, &w) in average.iter_mut().zip(w) {
                        *average = keep * *average + take * w;
                    }
                });
            },
        );
    }
}

/// What the best epoch so far came to on the validation set.
struct Best {
    epoch: usize,
    accuracy: f64,
    loss: f64,
}

impl Best {
    /// More images recognised, or as many at a lower loss; of equals the earlier one stays.
    fn beats(&self, other: Option<&Self>) -> bool {
        other.is_none_or(|other| {
            self.accuracy > other.accuracy || (self.accuracy == other.accuracy && self.loss < other.loss)
        })
    }
}

/// The last weights known to be good.
struct Snapshot {
    step: u64,
    values: Vec<f32>,
}

impl Snapshot {
    fn take(&mut self, step: u64, parameters: &Parameters) {
        self.step = step;
        self.values
            .par_chunks_mut(CHUNK)
            .zip(parameters.as_slice().par_chunks(CHUNK))
            .for_each(|(to, from)| to.copy_from_slice(from));
    }
}

/// Watches the loss for a blow-up.
struct Guard {
    /// The loss of guessing: ln(classes).
    guessing: f32,
    /// How far above the first loss is too far.
    margin: f32,
    first: Option<f32>,
}

#[derive(Debug, PartialEq)]
enum Health {
    /// Not much worse than guessing or than at the start.
    Good,
    /// High, but training recovers from such things.
    Doubtful,
    /// Not finite, or beyond anything that training recovers from.
    Lost,
}

impl Guard {
    fn new(classes: usize, batch: usize) -> Self {
        let guessing = (classes.max(2) as f32).ln();
        // One image that a sure network takes for another can cost tens of nats; only a mean over many tells a blow-up.
        let few_images = (16.0 / batch as f32).max(1.0);
        Self { guessing, margin: 50.0 * guessing * few_images, first: None }
    }

    fn look(&mut self, loss: f32) -> Health {
        if !loss.is_finite() {
            return Health::Lost;
        }
        let first = *self.first.get_or_insert(loss);
        if loss > first + self.margin {
            Health::Lost
        } else if loss <= 2.0 * first.max(self.guessing) {
            Health::Good
        } else {
            Health::Doubtful
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::{Kind, OptimizerOptions};

    #[test]
    fn the_guard_knows_a_blow_up() {
        let mut guard = Guard::new(10, 100);
        assert_eq!(guard.look(2.3), Health::Good);
        assert_eq!(guard.look(4.0), Health::Good);
        assert_eq!(guard.look(20.0), Health::Doubtful);
        assert_eq!(guard.look(130.0), Health::Lost);
        assert_eq!(guard.look(f32::NAN), Health::Lost);
        assert_eq!(guard.look(f32::INFINITY), Health::Lost);
        // Bad initial weights are bad, but they are where this run starts from.
        let mut guard = Guard::new(10, 100);
        assert_eq!(guard.look(1000.0), Health::Good);
        assert_eq!(guard.look(1100.0), Health::Good);
        assert_eq!(guard.look(3000.0), Health::Lost);
        // A single image may cost more than a batch.
        let mut guard = Guard::new(10, 1);
        assert_eq!(guard.look(2.3), Health::Good);
        assert_eq!(guard.look(130.0), Health::Doubtful);
    }

    #[test]
    fn the_average_forgets_its_start_and_then_follows_slowly() {
        let mut weights = Parameters::zeros(vec![("W1".into(), vec![2])]).unwrap();
        let mut average = Average { decay: 0.99, parameters: weights.clone() };
        average.parameters.as_mut_slice().fill(100.0);
        weights.as_mut_slice().copy_from_slice(&[1.0, -1.0]);
        average.follow(&weights, 0);
        assert!((average.parameters.as_slice()[0] - (0.1 * 100.0 + 0.9)).abs() < 1e-5);
        for step in 1..30 {
            average.follow(&weights, step);
        }
        assert!((average.parameters.as_slice()[0] - 1.0).abs() < 1e-3);
        weights.as_mut_slice().fill(2.0);
        average.follow(&weights, 100_000);
        assert!((average.parameters.as_slice()[0] - 1.01).abs() < 1e-3);
    }

    #[test]
    fn statistics_are_averaged_as_weights_are() {
        let mut groups = Groups::default();
        groups.push(1, Kind::Decayed);
        groups.push(2, Kind::Statistic);
        let mut optimizer = OptimizerOptions::adamw().build_grouped(&groups).unwrap();
        let mut weights = Parameters::zeros(vec![("W1".into(), vec![1]), ("mean".into(), vec![2])]).unwrap();
        let mut average = Average { decay: 0.5, parameters: weights.clone() };
        let mut expected = [0.0f32; 2];
        for step in 0..20 {
            optimizer.update_scaled(0.1, 0.25, weights.as_mut_slice(), &[1.0, -1.0, 0.5]);
            average.follow(&weights, step);
            let keep = 0.5f32.min((1.0 + step as f32) / (10.0 + step as f32));
            let values = [(step + 1) as f32, -0.5 * (step + 1) as f32];
            assert_eq!(weights.as_slice()[1..], values);
            expected = [0, 1].map(|i| keep * expected[i] + (1.0 - keep) * values[i]);
            assert_eq!(average.parameters.as_slice()[1..], expected);
        }
        assert!(average.parameters.as_slice()[0] < 0.0);
    }

    #[test]
    fn the_best_epoch_recognises_most_then_loses_least() {
        let epoch = |epoch, accuracy, loss| Best { epoch, accuracy, loss };
        let first = epoch(1, 0.9, 0.5);
        assert!(first.beats(None));
        assert!(epoch(2, 0.91, 0.9).beats(Some(&first)));
        assert!(epoch(2, 0.9, 0.4).beats(Some(&first)));
        assert!(!epoch(2, 0.9, 0.5).beats(Some(&first)));
        assert!(!epoch(2, 0.89, 0.1).beats(Some(&first)));
    }

    #[test]
    fn sums_weigh_by_images() {
        let mut sums = Sums::default();
        assert_eq!((sums.loss(), sums.accuracy()), (0.0, 0.0));
        sums.add(1.0, 3, 3);
        sums.add(5.0, 0, 1);
        assert_eq!((sums.loss(), sums.accuracy()), (2.0, 0.75));
    }
}
