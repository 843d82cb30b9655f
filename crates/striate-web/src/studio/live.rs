//! A run that goes on: what the page shows of it, and what the page may do with it.
//!
//! The run tells its events and otherwise knows nothing of pages. What costs time (a copy of the weights, gradients of some
//! test images) is done only while somebody looks, and on a thread of the page's own.

use super::source::thumbnail;
use super::{Studio, StudioError, pictures};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use striate::clock::Instant;
use striate::draw::{self, LinePanel, Lines, Plot};
use striate::explain::{self, Images, Pulse, filters};
use striate::formats::ModelFile;
use striate::network::Network;
use striate::network::Parameters;
use striate::train::{Control, EpochMetrics, Event, TrainOptions};

/// Steps that are kept for the curves; beyond that, every other one is left out.
const MOST_POINTS: usize = 400;
/// Test images whose gradients and mistakes are looked at.
const PROBED: usize = 200;
const SHOWN_MISTAKES: usize = 12;
/// Somebody looks if a question came within this time.
const LOOKING: Duration = Duration::from_secs(4);
/// The least time between two copies of the weights.
const BETWEEN: Duration = Duration::from_millis(700);

/// What the page may do with a run.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Hold before the next step.
    Pause,
    /// Go on.
    Resume,
    /// End as Ctrl-C does: the run can be resumed from its checkpoint.
    Stop,
}

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Phase {
    Starting,
    Running,
    Paused,
    Evaluating,
    Stopping,
    /// The run has ended; the model is the run's.
    Done,
    Failed,
}

/// A point of the curves.
#[derive(Clone, Copy)]
struct Point {
    step: u64,
    loss: f64,
    accuracy: f64,
}

/// A network's pulse at a step.
#[derive(Clone)]
struct Beat {
    step: u64,
    pulse: Pulse,
}

#[derive(Clone)]
struct State {
    phase: Phase,
    message: Option<String>,
    /// Counts changes.
    revision: u64,
    epochs: usize,
    epoch: usize,
    steps_per_epoch: usize,
    total_steps: u64,
    step: u64,
    images_per_second: f64,
    learning_rate: f32,
    points: Vec<Point>,
    /// Every how manieth step event is kept.
    every: usize,
    events: usize,
    history: Vec<EpochMetrics>,
    beats: Vec<Beat>,
    /// The step that the studio's model is of.
    copied: Option<u64>,
    copied_at: Option<Instant>,
    asked_at: Option<Instant>,
    wants_pause: bool,
    wants_stop: bool,
}

/// A run that goes on.
pub struct Live {
    state: Mutex<State>,
    changed: Condvar,
    batch: usize,
}

impl Live {
    /// A run with these options, which has not begun.
    pub fn new(options: &TrainOptions, history: Vec<EpochMetrics>) -> Self {
        let state = State {
            phase: Phase::Starting,
            message: None,
            revision: 1,
            epochs: options.epochs,
            epoch: 0,
            steps_per_epoch: 0,
            total_steps: 0,
            step: 0,
            images_per_second: 0.0,
            learning_rate: options.learning_rate,
            points: Vec::new(),
            every: 1,
            events: 0,
            history,
            beats: Vec::new(),
            copied: None,
            copied_at: None,
            asked_at: None,
            wants_pause: false,
            wants_stop: false,
        };
        Self { state: Mutex::new(state), changed: Condvar::new(), batch: options.batch }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what the page asks for; says whether there still is a run to do it with.
    pub fn act(&self, action: Action) -> bool {
        let mut state = self.state();
        if matches!(state.phase, Phase::Done | Phase::Failed) {
            return false;
        }
        match action {
            Action::Pause => state.wants_pause = true,
            Action::Resume => state.wants_pause = false,
            Action::Stop => {
                (state.wants_stop, state.wants_pause) = (true, false);
                state.phase = Phase::Stopping;
            }
        }
        state.revision += 1;
        drop(state);
        self.changed.notify_all();
        true
    }

    /// Whether the run is to end.
    pub fn is_stopped(&self) -> bool {
        self.state().wants_stop
    }

    /// Whether the run is to stand still now; for runs in slices, which end a slice rather than wait.
    pub(crate) fn is_held(&self) -> bool {
        let mut state = self.state();
        let is_held = state.wants_pause && !matches!(state.phase, Phase::Done | Phase::Failed);
        if is_held && state.phase != Phase::Paused {
            state.phase = Phase::Paused;
            state.revision += 1;
        }
        is_held
    }

    /// Holds the run while it is paused, unless `interrupted` says that it is to end.
    fn hold(&self, interrupted: &dyn Fn() -> bool) {
        let mut state = self.state();
        if !state.wants_pause {
            return;
        }
        let before = std::mem::replace(&mut state.phase, Phase::Paused);
        state.revision += 1;
        while state.wants_pause && !interrupted() {
            // A signal wakes nobody up.
            state =
                self.changed.wait_timeout(state, Duration::from_millis(100)).unwrap_or_else(PoisonError::into_inner).0;
        }
        if state.phase == Phase::Paused {
            state.phase = before;
        }
        state.revision += 1;
    }

    fn is_running(&self) -> bool {
        !matches!(self.state().phase, Phase::Done | Phase::Failed)
    }
}

impl State {
    fn add(&mut self, point: Point) {
        self.events += 1;
        if !self.events.is_multiple_of(self.every) {
            return;
        }
        self.points.push(point);
        if self.points.len() > MOST_POINTS {
            let mut odd = false;
            self.points.retain(|_| {
                odd = !odd;
                odd
            });
            self.every *= 2;
        }
    }

    /// Whether the weights are to be copied now.
    fn wants_copy(&self) -> bool {
        self.asked_at.is_some_and(|at| at.elapsed() < LOOKING)
            && self.copied_at.is_none_or(|at| at.elapsed() >= BETWEEN)
    }
}

impl Studio {
    pub(super) fn is_running(&self) -> bool {
        self.live.as_ref().is_some_and(Live::is_running)
    }

    /// Takes in what a run tells, and holds or ends the run where the page wants that; `interrupted` ends a pause.
    pub fn follow(&self, event: &Event<'_>, interrupted: &dyn Fn() -> bool) -> Control {
        let Some(live) = &self.live else { return Control::Continue };
        let mut copy: Option<(u64, &Parameters)> = None;
        {
            let mut state = live.state();
            state.revision += 1;
            match event {
                Event::Started { epochs, steps_per_epoch, total_steps, step, .. } => {
                    (state.epochs, state.steps_per_epoch) = (*epochs, *steps_per_epoch);
                    (state.total_steps, state.step) = (*total_steps, *step);
                    state.phase = Phase::Running;
                }
                Event::Step { epoch, step, loss, accuracy, learning_rate, images_per_second, parameters, .. } => {
                    (state.epoch, state.step, state.learning_rate) = (*epoch, *step, *learning_rate);
                    state.images_per_second = *images_per_second;
                    state.add(Point { step: *step, loss: *loss, accuracy: *accuracy });
                    if state.phase != Phase::Stopping {
                        state.phase = Phase::Running;
                    }
                    copy = state.wants_copy().then_some((*step, *parameters));
                }
                Event::Evaluating { .. } if state.phase == Phase::Running => state.phase = Phase::Evaluating,
                Event::Epoch { metrics, parameters, .. } => {
                    state.history.push((*metrics).clone());
                    copy = Some((metrics.step, *parameters));
                    if state.phase == Phase::Evaluating {
                        state.phase = Phase::Running;
                    }
                }
                _ => {}
            }
        }
        if let Some((step, parameters)) = copy {
            self.copy(live, step, parameters);
        }
        if matches!(event, Event::Step { .. } | Event::Epoch { .. }) {
            live.hold(interrupted);
        }
        if live.is_stopped() { Control::Stop } else { Control::Continue }
    }

    fn copy(&self, live: &Live, step: u64, parameters: &Parameters) {
        let model = self.model();
        // Parameters of the very network always fit it.
        if let Ok(network) = Network::with_parameters(model.network.description().clone(), parameters.clone()) {
            self.set_model(around(network, &model));
            let mut state = live.state();
            (state.copied, state.copied_at) = (Some(step), Some(Instant::now()));
        }
    }

    /// The run has ended, with this model.
    pub fn finish(&self, model: ModelFile) {
        self.set_model(model);
        self.end(Phase::Done, None);
    }

    /// The run has ended without its result.
    pub fn fail(&self, reason: String) {
        self.end(Phase::Failed, Some(reason));
    }

    fn end(&self, phase: Phase, message: Option<String>) {
        if let Some(live) = &self.live {
            let mut state = live.state();
            (state.phase, state.message) = (phase, message);
            (state.copied, state.revision) = (Some(state.step), state.revision + 1);
        }
    }

    pub(super) fn how_it_goes(&self, since: u64) -> Result<Value, StudioError> {
        let Some(live) = &self.live else {
            return Err(StudioError::Question("this is a model at rest; no run goes on here".into()));
        };
        let due = {
            let mut state = live.state();
            state.asked_at = Some(Instant::now());
            if state.revision == since {
                return Ok(json!({ "revision": since }));
            }
            state.copied.filter(|step| state.beats.last().is_none_or(|last| last.step != *step))
        };
        let model = self.model();
        if let Some(step) = due
            && let Ok(splits) = self.splits(&model)
        {
            let images = Images::new(&splits.test, &model.preprocessing.normalization).at_most(PROBED);
            let pulse = explain::pulse(&model.network, &images)?;
            let mut state = live.state();
            state.beats.push(Beat { step, pulse });
            if state.beats.len() > MOST_POINTS / 4 {
                let mut odd = false;
                state.beats.retain(|_| {
                    odd = !odd;
                    odd
                });
            }
        }
        let filters = match filters::filters(&model.network, None) {
            Ok(found) => {
                let name = &model.network.description().name;
                Some(pictures::png(&draw::filters(found.values.view(), &format!("{} of {name}", found.name)).image)?)
            }
            Err(_) => None,
        };
        // A run that wants to tell something need not wait for the drawing.
        let state = live.state().clone();
        let mistakes = self.mistakes(&state, &model)?;
        let left = state.total_steps.saturating_sub(state.step) as f64 * live.batch as f64;
        Ok(json!({
            "revision": state.revision,
            "phase": state.phase,
            "message": state.message,
            "epoch": state.epoch,
            "epochs": state.epochs,
            "step": state.step,
            "total_steps": state.total_steps,
            "images_per_second": state.images_per_second,
            "seconds_left": (state.images_per_second > 0.0).then(|| left / state.images_per_second),
            "learning_rate": state.learning_rate,
            "loss": state.points.last().map(|point| point.loss),
            "accuracy": state.points.last().map(|point| point.accuracy),
            "history": state.history,
            "curves": curves(&state).iter().map(Plot::svg).collect::<Vec<_>>(),
            "pulse": pulse(&state).iter().map(Plot::svg).collect::<Vec<_>>(),
            "layers": state.beats.last().map(|beat| &beat.pulse.layers),
            "probed": state.beats.last().map(|beat| beat.pulse.images),
            "filters": filters,
            "mistakes": mistakes,
        }))
    }

    /// What is taken for something else now.
    fn mistakes(&self, state: &State, model: &ModelFile) -> Result<Vec<Value>, StudioError> {
        let (Some(beat), Ok(splits)) = (state.beats.last(), self.splits(model)) else { return Ok(Vec::new()) };
        let shown = beat.pulse.mistakes.iter().take(SHOWN_MISTAKES);
        let shown = shown.map(|one| {
            Ok(json!({
                "index": one.index,
                "label": one.label,
                "predicted": one.predicted,
                "probability": one.probability,
                "picture": thumbnail(&splits.test, one.index)?,
            }))
        });
        shown.collect()
    }
}

/// A network of the run, as a model.
fn around(network: Network, model: &ModelFile) -> ModelFile {
    ModelFile {
        network,
        class_names: model.class_names.clone(),
        preprocessing: model.preprocessing.clone(),
        training: model.training.clone(),
        metrics: Value::Null,
        test_vectors: striate::formats::TestVectors::none(),
        temperature: None,
        quantized: None,
    }
}

/// Loss and accuracy so far.
fn curves(state: &State) -> [Lines; 2] {
    let judged = |m: &EpochMetrics| m.validation_accuracy.or(m.test_accuracy);
    let lost = |m: &EpochMetrics| m.validation_loss.or(m.test_loss);
    // Both lines over the places of either.
    let mut places: Vec<u64> = state.points.iter().map(|point| point.step).collect();
    places.extend(state.history.iter().map(|metrics| metrics.step));
    places.sort_unstable();
    places.dedup();
    let training = |value: &dyn Fn(&Point) -> f64| -> Vec<f64> {
        let mut last = f64::NAN;
        let mut points = state.points.iter().peekable();
        places
            .iter()
            .map(|&place| {
                while let Some(point) = points.next_if(|point| point.step <= place) {
                    last = value(point);
                }
                last
            })
            .collect()
    };
    let held_out = |value: &dyn Fn(&EpochMetrics) -> Option<f64>| -> Vec<f64> {
        let at = |place: &u64| state.history.iter().find(|metrics| metrics.step == *place).and_then(value);
        places.iter().map(|place| at(place).unwrap_or(f64::NAN)).collect()
    };
    let validates = state.history.iter().any(|metrics| metrics.validation_accuracy.is_some());
    let name = if validates { "validation set, after each epoch" } else { "test set, after each epoch" };
    let loss = vec![training(&|point| point.loss), held_out(&lost)];
    let percent = vec![
        training(&|point| 100.0 * point.accuracy),
        held_out(&|metrics| judged(metrics).map(|share| 100.0 * share)),
    ];
    let plot = |title: &str, limits, decimals, lines| Lines {
        title: title.into(),
        subtitle: format!("step {} of {}", state.step, state.total_steps),
        across: "step".into(),
        places: places.iter().map(|&place| place as f64).collect(),
        names: vec!["training images, as they are trained".into(), name.into()],
        panels: vec![LinePanel { words: String::new(), limits, decimals, lines }],
    };
    [plot("Loss", (0.0, 1.0), 4, loss), plot("Accuracy, %", (0.0, 100.0), 2, percent)]
}

/// Gradients and dead units so far.
fn pulse(state: &State) -> Vec<Lines> {
    let Some(Beat { pulse: Pulse { layers, images, .. }, .. }) = state.beats.last() else { return Vec::new() };
    let line = |layer: &str, value: &dyn Fn(&explain::LayerPulse) -> Option<f64>| -> Vec<f64> {
        let of = |beat: &Beat| beat.pulse.layers.iter().find(|one| one.layer == layer).and_then(value);
        state.beats.iter().map(|beat| of(beat).unwrap_or(f64::NAN)).collect()
    };
    let plot = |title: &str, limits, decimals, value: &dyn Fn(&explain::LayerPulse) -> Option<f64>| {
        let shown: Vec<&explain::LayerPulse> = layers.iter().filter(|one| value(one).is_some()).collect();
        Lines {
            title: title.into(),
            subtitle: format!("over {images} test images, while somebody looks"),
            across: "step".into(),
            places: state.beats.iter().map(|beat| beat.step as f64).collect(),
            names: shown.iter().map(|one| one.layer.clone()).collect(),
            panels: vec![LinePanel {
                words: String::new(),
                limits,
                decimals,
                lines: shown.iter().map(|one| line(&one.layer, value)).collect(),
            }],
        }
    };
    let norm = plot("Gradient norm (log10)", (-12.0, 6.0), 2, &|one| {
        one.gradient_norm.filter(|norm| *norm > 0.0).map(f64::log10)
    });
    let dead = plot("Dead ReLU units, %", (0.0, 100.0), 1, &|one| one.dead.map(|share| 100.0 * share));
    [norm, dead].into_iter().filter(|lines| !lines.names.is_empty()).collect()
}
