//! The training loop.

use super::checkpoint::{Checkpoint, Fingerprints, Progress, RunState};
use super::evaluate::Evaluator;
use super::freeze::Frozen;
use super::order::{Order, class_shares};
use super::{
    Balance, Control, EpochMetrics, Evaluation, Event, Fingerprint, Keep, Snapshots, TrainError, TrainOptions,
    TrainSummary,
};
use super::{check_classes, check_data, first_non_finite, groups, on_worker};
use crate::clock::Instant;
use crate::data::{Dataset, Loader, Normalization, memory, stratified};
use crate::kernels::isa::vectorize;
use crate::network::plan::{Mode, Plan};
use crate::network::run::{Runner, StepKey};
use crate::network::{Network, NetworkError, Parameters};
use crate::optim::{CHUNK, Groups, Kind, Optimizer};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

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
    /// Epochs begun in so many steps.
    epochs: usize,
    checkpoints: Option<Checkpoints>,
    stop: Option<&'a AtomicBool>,
    evaluates: bool,
    snapshots: Option<Snapshots>,
    fingerprints: Option<Fingerprints>,
    resume: Option<Box<Checkpoint>>,
}

/// When the run is offered to be saved.
#[derive(Clone, Copy, Debug)]
struct Checkpoints {
    every: Option<u64>,
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
        Frozen::find(network, &options.freeze)?;
        let steps_per_epoch = train.len().div_ceil(options.batch);
        let all_steps = steps_per_epoch.checked_mul(options.epochs).ok_or_else(|| TrainError::Option {
            field: "epochs",
            found: options.epochs.to_string(),
            expected: "so few that the steps can be counted",
        })? as u64;
        let total_steps = options.steps.map_or(all_steps, |steps| steps.min(all_steps));
        let epochs = total_steps.div_ceil(steps_per_epoch as u64) as usize;
        Ok(Self {
            network,
            train,
            validation: None,
            test,
            normalization,
            options,
            steps_per_epoch,
            total_steps,
            epochs,
            checkpoints: None,
            stop: None,
            evaluates: true,
            snapshots: None,
            fingerprints: None,
            resume: None,
        })
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

    /// Offers the run to be saved ([`Event::Checkpoint`]): before the first step, after each epoch's evaluation, after a
    /// stop, and every so many steps, if a number is given.
    pub fn checkpoints(mut self, every: Option<u64>) -> Self {
        self.checkpoints = Some(Checkpoints { every });
        self
    }

    /// Stops after the step in which `flag` becomes true, as [`Control::Stop`] does: events come only every so many steps.
    pub fn stop_when(mut self, flag: &'a AtomicBool) -> Self {
        self.stop = Some(flag);
        self
    }

    /// Evaluates nothing after an epoch, and keeps no history: for trials of steps.
    pub(super) fn without_evaluation(mut self) -> Self {
        self.evaluates = false;
        self
    }

    /// Shows the weights on their way ([`Event::Snapshot`]), if that is asked for. A run that is resumed shows those it is
    /// resumed from again, if they are due.
    pub fn snapshots(mut self, snapshots: Option<Snapshots>) -> Self {
        self.snapshots = snapshots;
        self
    }

    /// Goes on where the checkpoint was made: [`Trainer::run`] then gives, to the bit, what the uninterrupted run would have
    /// given on this machine. Options and data must be the checkpoint's; the number of epochs may differ where no step
    /// done so far would have had another learning rate.
    pub fn resume(mut self, checkpoint: Checkpoint) -> Self {
        self.resume = Some(Box::new(checkpoint));
        self
    }

    /// What [`Trainer::run`] checks before it goes on with a checkpoint: whether it belongs to these options, this network
    /// and these data.
    ///
    /// # Errors
    /// [`TrainError::Resume`] with the first thing that differs.
    pub fn check_resumes(&self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        self.check_resume(checkpoint, &self.fingerprints())
    }

    /// Takes what [`Trainer::fingerprints`] gave for the same data, so that they need not be read again.
    pub fn known_by(mut self, fingerprints: Fingerprints) -> Self {
        self.fingerprints = Some(fingerprints);
        self
    }

    /// What tells the data of this run from others. Reads all pixels that lie in memory, unless they are known already.
    pub fn fingerprints(&self) -> Fingerprints {
        self.fingerprints.clone().unwrap_or_else(|| Fingerprints {
            train: Fingerprint::of(self.train),
            validation: self.validation.map(Fingerprint::of),
            test: self.test.map(Fingerprint::of),
        })
    }

    fn check_resume(&self, checkpoint: &Checkpoint, data: &Fingerprints) -> Result<(), TrainError> {
        let differs = |what: &str, found: String, expected: String, advice| {
            Err(TrainError::Resume { what: what.into(), found, expected, advice })
        };
        if checkpoint.description != *self.network.description() {
            let [found, expected] = [&checkpoint.description, self.network.description()].map(|d| d.name.clone());
            return differs("the network", found, expected, "give the model that the run began with");
        }
        let ours = text(&self.options).and_then(|text| serde_json::from_str(&text).ok()).unwrap_or(Value::Null);
        let empty = serde_json::Map::new();
        let (ours, theirs) = (ours.as_object().unwrap_or(&empty), checkpoint.options.as_object().unwrap_or(&empty));
        // These change what is told or when the run ends, never a step.
        let free = ["epochs", "steps", "log_every", "evaluate_train"];
        for field in ours.keys().chain(theirs.keys()).filter(|field| !free.contains(&field.as_str())) {
            let value =
                |options: &serde_json::Map<String, Value>| options.get(field).map_or("unset".into(), Value::to_string);
            let (found, expected) = (value(theirs), value(ours));
            if found != expected {
                let advice = "leave the option out to go on with the run's own, or start a new run";
                return differs(field, found, expected, advice);
            }
        }
        for (what, found, expected) in [
            ("the training set", Some(&checkpoint.data.train), Some(&data.train)),
            ("the validation set", checkpoint.data.validation.as_ref(), data.validation.as_ref()),
            ("the test set", checkpoint.data.test.as_ref(), data.test.as_ref()),
        ] {
            match (found, expected) {
                (Some(found), Some(expected)) => found.check(expected, what)?,
                (None, None) => {}
                _ => {
                    let shown = |one: Option<&Fingerprint>| {
                        one.map_or("none".into(), |fingerprint| format!("one of {} images", fingerprint.images))
                    };
                    return differs(what, shown(found), shown(expected), "give the data that the run began with");
                }
            }
        }
        let progress = &checkpoint.progress;
        let steps_per_epoch = self.steps_per_epoch as u64;
        let before = checkpoint.planned_steps(steps_per_epoch);
        let evaluated = progress.history.len() as u64 * steps_per_epoch;
        let first = evaluated.min(before);
        if !(first..=first + steps_per_epoch).contains(&progress.step) {
            let found = format!("{} with {} epochs evaluated", progress.step, progress.history.len());
            let expected = format!("within an epoch of {steps_per_epoch} steps");
            return differs("the step", found, expected, "the file was not made by such a run");
        }
        if progress.step > self.total_steps {
            let advice = "ask for at least as many as have been done";
            return differs(
                "the number of steps done",
                progress.step.to_string(),
                format!("at most {}", self.total_steps),
                advice,
            );
        }
        let rate = |step, total| self.options.schedule.rate(step, total).to_bits();
        if before != self.total_steps {
            if (0..progress.step).any(|step| rate(step, before) != rate(step, self.total_steps)) {
                let advice = "the schedule is laid over the whole run, so the steps done would have had other learning rates: \
                              resume without changing its length, or start a new run";
                return differs("the number of steps", before.to_string(), self.total_steps.to_string(), advice);
            }
            if progress.step < evaluated {
                let advice = "its last epoch was cut short and evaluated: resume without changing its length";
                return differs("the number of steps", before.to_string(), self.total_steps.to_string(), advice);
            }
        }
        for (what, found, expected) in [
            ("the average of the weights", checkpoint.average.is_some(), self.options.average.is_some()),
            ("the best epoch's weights", checkpoint.best.is_some(), self.options.keep == Keep::Best),
        ] {
            if found != expected {
                let shown = |there: bool| if there { "kept" } else { "not kept" }.to_string();
                return differs(what, shown(found), shown(expected), "the file was not made by such a run");
            }
        }
        Ok(())
    }

    /// Bytes that the run takes beyond the network and the data: plans, gradients, the optimizer's state, and copies of the
    /// weights, those among them that a caller needs to save a model.
    ///
    /// # Errors
    /// A network that can't be planned for this batch.
    pub fn bytes(&self) -> Result<usize, TrainError> {
        let options = &self.options;
        let frozen = Frozen::find(self.network, &options.freeze)?;
        let description = self.network.description();
        let plan =
            |batch| Ok::<_, TrainError>(Plan::training(description, batch, |layer| frozen.layer(layer))?.arena_bytes());
        let rest = self.train.len() % options.batch;
        let arenas = plan(options.batch)? + if rest == 0 { 0 } else { plan(rest)? };
        let evaluation = Plan::new(description, options.batch, Mode::Inference)?.peak_bytes();
        // Gradients, the last good weights, those that the run began with, and three on their way into a file.
        let copies = 6
            + options.optimizer.arrays()
            + usize::from(options.average.is_some())
            + usize::from(options.keep == Keep::Best);
        Ok(arenas + evaluation + copies * size_of::<f32>() * self.network.parameters().len())
    }

    /// Whether there is memory for the run; [`Trainer::run`] asks it too.
    ///
    /// # Errors
    /// [`NetworkError::OutOfMemory`], or a network that can't be planned for this batch.
    pub fn check_memory(&self) -> Result<(), TrainError> {
        let bytes = self.bytes()?;
        if memory::is_free(bytes) {
            return Ok(());
        }
        let what = format!("training {} with a batch of {}", self.network.description().name, self.options.batch);
        Err(NetworkError::OutOfMemory { what, bytes }.into())
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
        if self.validation.is_none() {
            if self.options.keep == Keep::Best {
                return Err(TrainError::Option {
                    field: "keep",
                    found: Keep::Best.to_string(),
                    expected: "last where there is no validation set to find the best epoch with",
                });
            }
            if let Some(patience) = self.options.patience {
                return Err(TrainError::Option {
                    field: "patience",
                    found: patience.to_string(),
                    expected: "left out where there is no validation set to tell a better epoch by",
                });
            }
        }
        self.check_memory()?;
        on_worker(move || {
            let description = self.network.description().clone();
            let evaluator = Evaluator::new(&description, self.options.batch);
            let data = (self.checkpoints.is_some() || self.resume.is_some()).then(|| self.fingerprints());
            Run::new(self, data)?.all(evaluator, on_event)
        })
    }
}

/// Everything that changes during a run; allocated once.
struct Run<'a> {
    trainer: Trainer<'a>,
    loader: Loader<'a>,
    order: Order,
    /// Positions of the training images that are evaluated after each epoch but the last; none for all.
    train_sample: Vec<usize>,
    full: Runner,
    /// For the last, smaller batch of an epoch.
    rest: Option<Runner>,
    gradients: Parameters,
    groups: Groups,
    optimizer: Box<dyn Optimizer>,
    average: Option<Average>,
    guard: Guard,
    snapshot: Snapshot,
    /// The best epoch's weights, where those are kept; as long as all parameters from the start.
    best_values: Option<Vec<f32>>,
    /// Everything else that has to be kept between two steps.
    progress: Progress,
    /// Of the data, where checkpoints are made.
    data: Option<Fingerprints>,
    last_loss: f32,
    /// Whether the last batch is in `rest`.
    last_was_rest: bool,
    gradient_norm: Option<f32>,
    learning_rate: f32,
    clock: Instant,
    /// Up to when the seconds of training are counted.
    counted: Instant,
}

/// Whether a part of the run came to its end or was stopped.
#[derive(PartialEq)]
enum Ended {
    Done,
    Stopped,
}

impl<'a> Run<'a> {
    fn new(mut trainer: Trainer<'a>, data: Option<Fingerprints>) -> Result<Self, TrainError> {
        let clock = Instant::now();
        let resume = trainer.resume.take();
        if let (Some(checkpoint), Some(data)) = (&resume, &data) {
            trainer.check_resume(checkpoint, data)?;
        }
        let (network, options) = (&*trainer.network, &trainer.options);
        let frozen = Frozen::find(network, &options.freeze)?;
        let weights: Vec<f32> = class_shares(trainer.train, options.balance).map(|class| class.weight).collect();
        let runner = |batch| -> Result<Runner, TrainError> {
            let plan = Plan::training(network.description(), batch, |layer| frozen.layer(layer))?;
            let mut runner = Runner::new(plan)?;
            runner.set_label_smoothing(options.label_smoothing);
            if options.balance == Balance::Weights {
                runner.set_class_weights(&weights);
            }
            Ok(runner)
        };
        let rest = trainer.train.len() % options.batch;
        let parameters = network.parameters();
        let groups = groups(parameters, options.decay, &frozen);
        let loader = Loader::new(trainer.train, trainer.normalization.clone(), options.augment.clone(), options.seed);
        let train = trainer.train;
        // The same images whatever the seed, so that runs can be compared.
        let train_sample = match options.evaluate_train {
            Some(images) if images < train.len() => stratified(train.labels(), train.classes(), images, 0).1,
            _ => Vec::new(),
        };
        let mut run = Self {
            loader,
            order: Order::new(options, train),
            train_sample,
            full: runner(options.batch)?,
            rest: if rest == 0 { None } else { Some(runner(rest)?) },
            gradients: parameters.zeros_like(),
            optimizer: options.optimizer.build_grouped(&groups)?,
            average: options.average.map(|decay| Average::new(decay, parameters.clone(), &groups)),
            groups,
            guard: Guard::new(network.classes(), options.batch),
            snapshot: Snapshot { step: 0, values: parameters.as_slice().to_vec() },
            best_values: (options.keep == Keep::Best).then(|| parameters.as_slice().to_vec()),
            progress: Progress::default(),
            data,
            last_loss: 0.0,
            last_was_rest: false,
            gradient_norm: None,
            learning_rate: options.learning_rate,
            clock,
            counted: clock,
            trainer,
        };
        if let Some(checkpoint) = resume {
            run.restore(*checkpoint)?;
        }
        Ok(run)
    }

    /// Puts back what [`Run::state`] gave; [`Trainer::check_resume`] has found it right.
    fn restore(&mut self, checkpoint: Checkpoint) -> Result<(), TrainError> {
        let Checkpoint { progress, parameters, average, best, good, optimizer, .. } = checkpoint;
        let state: Vec<(&str, &[f32])> = optimizer.iter().map(|(name, values)| (name.as_str(), &values[..])).collect();
        self.optimizer.restore(progress.optimizer_steps, &state)?;
        self.trainer.network.parameters_mut().as_mut_slice().copy_from_slice(&parameters);
        if let (Some(average), Some(values)) = (&mut self.average, average) {
            average.parameters.as_mut_slice().copy_from_slice(&values);
        }
        if let (Some(place), Some(values)) = (&mut self.best_values, best) {
            *place = values;
        }
        self.snapshot = Snapshot { step: progress.good_step, values: good };
        self.guard.first = progress.first_loss;
        if let Some(last) = progress.step.checked_sub(1) {
            let options = &self.trainer.options;
            self.learning_rate = options.learning_rate * options.schedule.rate(last, self.trainer.total_steps);
        }
        self.progress = progress;
        Ok(())
    }

    /// Everything that a later process needs to go on from here.
    fn state<'s>(&'s self, data: &'s Fingerprints) -> RunState<'s> {
        RunState {
            description: self.trainer.network.description(),
            options: &self.trainer.options,
            data,
            progress: Progress {
                optimizer_steps: self.optimizer.steps(),
                seconds: self.seconds(),
                first_loss: self.guard.first,
                good_step: self.snapshot.step,
                ..self.progress.clone()
            },
            parameters: self.trainer.network.parameters().as_slice(),
            average: self.average.as_ref().map(|average| average.parameters.as_slice()),
            best: self.best_values.as_deref(),
            good: &self.snapshot.values,
            optimizer: self.optimizer.state(),
        }
    }

    /// Offers the run to be saved, if that is asked for and a run could go on from here.
    fn offer(&self, on_event: &mut (dyn FnMut(&Event<'_>) -> Control + Send)) -> Control {
        if let (Some(_), Some(data)) = (&self.trainer.checkpoints, &self.data)
            && let state = self.state(data)
            && state.is_finite()
        {
            return on_event(&Event::Checkpoint { state: &state });
        }
        Control::Continue
    }

    /// Shows the weights, if that is due now.
    fn show(&self, on_event: &mut (dyn FnMut(&Event<'_>) -> Control + Send)) -> Control {
        let step = self.progress.step;
        let parameters = evaluated(self.trainer.network, &self.average);
        let is_due = self.trainer.snapshots.is_some_and(|snapshots| snapshots.is_due(step, self.trainer.total_steps));
        if is_due && first_non_finite(parameters).is_none() {
            return on_event(&Event::Snapshot { step, parameters });
        }
        Control::Continue
    }

    /// Offers the run to be saved, and ends it.
    fn stop(
        self,
        epoch: usize,
        on_event: &mut (dyn FnMut(&Event<'_>) -> Control + Send),
    ) -> Result<TrainSummary, TrainError> {
        self.offer(on_event);
        self.finish(epoch, true)
    }

    /// Seconds in all.
    fn seconds(&self) -> f64 {
        self.progress.seconds + self.clock.elapsed().as_secs_f64()
    }

    /// Counts the seconds since the last call, or since the epoch began, as training.
    fn count_seconds(&mut self) {
        let seconds = self.counted.elapsed().as_secs_f64();
        self.counted = Instant::now();
        self.progress.epoch_seconds += seconds;
        self.progress.training_seconds += seconds;
    }

    /// Whether too many epochs in a row were no better than the best.
    fn is_out_of_patience(&self) -> bool {
        let best = self.progress.best.as_ref().map_or(0, |best| best.epoch);
        self.trainer.options.patience.is_some_and(|patience| self.progress.history.len() - best >= patience)
    }

    fn all(
        mut self,
        mut evaluator: Evaluator<'_>,
        on_event: &mut (dyn FnMut(&Event<'_>) -> Control + Send),
    ) -> Result<TrainSummary, TrainError> {
        let Trainer { epochs, steps_per_epoch, total_steps, .. } = self.trainer;
        let step = self.progress.step;
        let images = self.trainer.train.len();
        let started = Event::Started { images, epochs, steps_per_epoch, total_steps, step };
        if on_event(&started) == Control::Stop {
            return self.stop(0, on_event);
        }
        if step == 0 && self.offer(on_event) == Control::Stop {
            return self.finish(0, true);
        }
        if self.show(on_event) == Control::Stop {
            return self.stop(0, on_event);
        }
        for epoch in self.progress.history.len() + 1..=epochs {
            if self.is_out_of_patience() {
                break;
            }
            self.counted = Instant::now();
            let ended = self.train_epoch(epoch, on_event)?;
            self.count_seconds();
            if ended == Ended::Done && !self.trainer.evaluates {
                continue;
            }
            if ended == Ended::Stopped || self.evaluate_epoch(epoch, &mut evaluator, on_event)? == Ended::Stopped {
                return self.stop(epoch, on_event);
            }
            if self.offer(on_event) == Control::Stop && epoch < epochs {
                return self.finish(epoch, true);
            }
        }
        self.finish(epochs, false)
    }

    /// Every image once, in an order of the epoch's own; or the images that are left of it when the run is resumed.
    fn train_epoch(
        &mut self,
        epoch: usize,
        on_event: &mut (dyn FnMut(&Event<'_>) -> Control + Send),
    ) -> Result<Ended, TrainError> {
        let Trainer { steps_per_epoch, total_steps, checkpoints, stop, .. } = self.trainer;
        let (log_every, batch) = (self.trainer.options.log_every as u64, self.trainer.options.batch);
        let before = (epoch as u64 - 1) * steps_per_epoch as u64;
        let end = total_steps.min(before + steps_per_epoch as u64);
        let order = self.order.epoch(epoch);
        let done = self.progress.step.saturating_sub(before) as usize;
        let (mut timed, mut begun) = (0, Instant::now());
        let mut batches = order.chunks(batch).take((end - before) as usize).skip(done).peekable();
        while let Some(indices) = batches.next() {
            let (loss, correct) = self.train_step(epoch, indices, batches.peek().copied())?;
            self.progress.window.add(loss, correct, indices.len());
            self.progress.epoch.add(loss, correct, indices.len());
            timed += indices.len();
            let step = self.progress.step;
            // Before anything can stop the run: a resumed one begins after this step.
            if self.show(on_event) == Control::Stop {
                return Ok(Ended::Stopped);
            }
            if step.is_multiple_of(log_every) || step == end {
                // Where activations saturate or a statistic is spoilt, the loss does not show it.
                if first_non_finite(self.trainer.network.parameters()).is_some() {
                    return Err(self.diverged(epoch));
                }
                let event = Event::Step {
                    epoch,
                    step,
                    steps_per_epoch,
                    loss: self.progress.window.loss(),
                    accuracy: self.progress.window.accuracy(),
                    learning_rate: self.learning_rate,
                    gradient_norm: self.gradient_norm,
                    images_per_second: timed as f64 / begun.elapsed().as_secs_f64().max(1e-9),
                    parameters: evaluated(self.trainer.network, &self.average),
                };
                let told = Instant::now();
                let control = on_event(&event);
                // Whoever listens may hold the run, and that is no training.
                self.counted += told.elapsed();
                self.progress.window = Sums::default();
                if control == Control::Stop {
                    return Ok(Ended::Stopped);
                }
                (timed, begun) = (0, Instant::now());
            }
            let every = checkpoints.and_then(|checkpoints| checkpoints.every);
            if every.is_some_and(|every| step.is_multiple_of(every)) {
                self.count_seconds();
                if self.offer(on_event) == Control::Stop {
                    return Ok(Ended::Stopped);
                }
            }
            if stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
                return Ok(Ended::Stopped);
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
        self.last_was_rest = indices.len() < options.batch;
        self.loader.batch(epoch, indices, runner.input_mut());
        if let Some(next) = next {
            self.loader.prepare(epoch, next);
        }
        let labels = train.labels();
        for (label, &index) in runner.labels_mut().iter_mut().zip(indices) {
            *label = labels[index % labels.len()];
        }
        self.loader.second_classes(epoch, indices, runner.seconds_mut());
        let key = StepKey { seed: options.seed, step: self.progress.step };
        let result = runner.loss_and_gradient(network.parameters(), &mut self.gradients, key);
        self.last_loss = result.loss;
        match self.guard.look(result.loss) {
            Health::Lost => return Err(self.diverged(epoch)),
            // These weights just gave a good loss; those after the update have not been tried yet.
            Health::Good
                if self.progress.step - self.snapshot.step
                    >= (options.log_every as u64).max(LEAST_STEPS_BETWEEN_SNAPSHOTS) =>
            {
                if first_non_finite(network.parameters()).is_some() {
                    return Err(self.diverged(epoch));
                }
                self.snapshot.take(self.progress.step, network.parameters());
            }
            _ => {}
        }
        self.learning_rate = options.learning_rate * options.schedule.rate(self.progress.step, *total_steps);
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
            average.follow(parameters, self.progress.step);
        }
        self.progress.step += 1;
        self.progress.images += indices.len() as u64;
        Ok((result.loss, result.correct))
    }

    fn evaluate_epoch(
        &mut self,
        epoch: usize,
        evaluator: &mut Evaluator<'_>,
        on_event: &mut (dyn FnMut(&Event<'_>) -> Control + Send),
    ) -> Result<Ended, TrainError> {
        if first_non_finite(self.trainer.network.parameters()).is_some() {
            return Err(self.diverged(epoch));
        }
        let Trainer { network, train, validation, test, normalization, .. } = &self.trainer;
        let begun = Instant::now();
        let last = epoch == self.trainer.epochs;
        let sample = Some(&self.train_sample[..]).filter(|sample| !last && !sample.is_empty());
        let train_images = sample.map_or(train.len(), <[usize]>::len);
        let images = train_images + validation.map_or(0, Dataset::len) + test.map_or(0, Dataset::len);
        if on_event(&Event::Evaluating { epoch, images }) == Control::Stop {
            return Ok(Ended::Stopped);
        }
        let parameters = evaluated(network, &self.average);
        let mut measure = |data: &Dataset, sample| evaluator.run(parameters, data, sample, normalization);
        let mut measure_all = || -> Result<(Evaluation, Option<Evaluation>, Option<Evaluation>), TrainError> {
            let on_train = measure(train, sample)?;
            let on_validation = validation.map(|data| measure(data, None)).transpose()?;
            Ok((on_train, on_validation, test.map(|data| measure(data, None)).transpose()?))
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
            Health::Good if self.average.is_none() => self.snapshot.take(self.progress.step, network.parameters()),
            _ => {}
        }
        let (sums, seconds) = (self.progress.epoch, self.progress.epoch_seconds);
        let held_out = on_validation.as_ref().or(on_test.as_ref());
        let metrics = EpochMetrics {
            epoch,
            step: self.progress.step,
            train_loss: sums.loss(),
            running_accuracy: sums.accuracy(),
            train_accuracy: on_train.accuracy,
            train_images,
            validation_accuracy: on_validation.as_ref().map(|e| e.accuracy),
            validation_loss: on_validation.as_ref().map(|e| e.loss),
            test_accuracy: on_test.as_ref().map(|e| e.accuracy),
            test_loss: on_test.as_ref().map(|e| e.loss),
            top5: held_out.map(|e| e.top5),
            ece: held_out.map(|e| e.calibration.expected_error),
            learning_rate: self.learning_rate,
            seconds,
            evaluation_seconds: begun.elapsed().as_secs_f64(),
            images_per_second: sums.images as f64 / seconds.max(1e-9),
        };
        let this = on_validation.map(|e| Best { epoch, accuracy: e.accuracy, loss: e.loss });
        let best = this.as_ref().is_some_and(|this| this.beats(self.progress.best.as_ref()));
        if best {
            self.progress.best = this;
            if let Some(values) = &mut self.best_values {
                values.copy_from_slice(parameters.as_slice());
            }
        }
        let control = on_event(&Event::Epoch { metrics: &metrics, parameters, best });
        self.progress.history.push(metrics);
        (self.progress.epoch, self.progress.epoch_seconds) = (Sums::default(), 0.0);
        // After the last epoch there is nothing left to stop.
        Ok(if control == Control::Stop && !last { Ended::Stopped } else { Ended::Done })
    }

    /// Puts the last good weights back and says what happened.
    fn diverged(&mut self, epoch: usize) -> TrainError {
        // The last batch is still there.
        let runner = match &mut self.rest {
            Some(rest) if self.last_was_rest => rest,
            _ => &mut self.full,
        };
        let (description, parameters) = self.trainer.network.parts_mut();
        let key = StepKey { seed: self.trainer.options.seed, step: self.progress.step };
        let first = runner.find_non_finite(description, parameters, &mut self.gradients, key);
        parameters.as_mut_slice().copy_from_slice(&self.snapshot.values);
        TrainError::Diverged {
            step: self.progress.step,
            epoch,
            loss: self.last_loss,
            learning_rate: self.trainer.options.learning_rate,
            first,
            restored_step: self.snapshot.step,
        }
    }

    fn finish(mut self, epoch: usize, stopped: bool) -> Result<TrainSummary, TrainError> {
        // A stop can fall between a ruinous update and the loss that would have shown it.
        if first_non_finite(self.trainer.network.parameters()).is_some() {
            return Err(self.diverged(epoch));
        }
        let (seconds, out_of_patience) = (self.seconds(), !stopped && self.is_out_of_patience());
        let Progress { step, images, training_seconds, best, history, .. } = self.progress;
        let parameters = self.trainer.network.parameters_mut().as_mut_slice();
        let kept_epoch = if let (Some(best), Some(values)) = (&best, &self.best_values) {
            parameters.copy_from_slice(values);
            Some(best.epoch)
        } else {
            if let Some(average) = &self.average {
                parameters.copy_from_slice(average.parameters.as_slice());
            }
            history.last().filter(|metrics| metrics.step == step).map(|metrics| metrics.epoch)
        };
        Ok(TrainSummary {
            epochs: history.len(),
            steps: step,
            stopped,
            out_of_patience,
            kept_epoch,
            seconds,
            images_per_second: if images == 0 { 0.0 } else { images as f64 / training_seconds.max(1e-9) },
            history,
        })
    }
}

/// The parameters that would be the result now.
fn evaluated<'a>(network: &'a Network, average: &'a Option<Average>) -> &'a Parameters {
    average.as_ref().map_or(network.parameters(), |average| &average.parameters)
}

/// Options as text, in the digits that were given.
fn text(options: &TrainOptions) -> Option<String> {
    serde_json::to_string(options).ok()
}

/// Loss and hits, added up over steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sums {
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
    /// What changes: all but what is frozen, whose mean need not have the same bits.
    followed: Vec<Range<usize>>,
}

impl Average {
    fn new(decay: f32, parameters: Parameters, groups: &Groups) -> Self {
        let mut followed: Vec<Range<usize>> = Vec::new();
        for (range, _) in groups.iter().filter(|(_, kind)| *kind != Kind::Frozen) {
            match followed.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => followed.push(range),
            }
        }
        Self { decay, parameters, followed }
    }

    /// Takes in the weights after update number `step` (from 0).
    fn follow(&mut self, parameters: &Parameters, step: u64) {
        let keep = self.decay.min((1.0 + step as f32) / (10.0 + step as f32));
        let take = 1.0 - keep;
        let (averages, weights) = (self.parameters.as_mut_slice(), parameters.as_slice());
        for range in &self.followed {
            let weights = weights[range.clone()].par_chunks(CHUNK);
            averages[range.clone()].par_chunks_mut(CHUNK).zip(weights).for_each(|(average, w)| {
                vectorize(|| {
                    for (average, &w) in average.iter_mut().zip(w) {
                        *average = keep * *average + take * w;
                    }
                });
            });
        }
    }
}

/// What the best epoch so far came to on the validation set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Best {
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
        let mut average = Average::new(0.99, weights.clone(), &Groups::from(2));
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
    fn what_is_frozen_keeps_its_bits_in_the_average() {
        let mut groups = Groups::default();
        for (len, kind) in [(1, Kind::Plain), (1, Kind::Frozen), (1, Kind::Decayed), (1, Kind::Statistic)] {
            groups.push(len, kind);
        }
        let mut weights = Parameters::zeros(vec![("W1".into(), vec![4])]).unwrap();
        weights.as_mut_slice().fill(0.1);
        let mut average = Average::new(0.997, weights.clone(), &groups);
        assert_eq!(average.followed, [0..1, 2..4]);
        (0..100).for_each(|step| average.follow(&weights, step));
        assert_eq!(average.parameters.as_slice()[1].to_bits(), 0.1f32.to_bits());
    }

    #[test]
    fn statistics_are_averaged_as_weights_are() {
        let mut groups = Groups::default();
        groups.push(1, Kind::Decayed);
        groups.push(2, Kind::Statistic);
        let mut optimizer = OptimizerOptions::adamw().build_grouped(&groups).unwrap();
        let mut weights = Parameters::zeros(vec![("W1".into(), vec![1]), ("mean".into(), vec![2])]).unwrap();
        let mut average = Average::new(0.5, weights.clone(), &groups);
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
