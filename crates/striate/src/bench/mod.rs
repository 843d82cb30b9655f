//! How fast networks run on this machine, and how fast they could: times of whole networks and of each pass of each step,
//! beside floors from the machine's measured ceilings.
//!
//! Everything is measured on the threads of the current rayon pool.
//!
//! ```
//! use striate::bench::{Ceilings, Work, measure};
//! use striate::{models, network::{Network, Weights}};
//! use std::time::Duration;
//! let network = Network::new(models::build("simple-convnet", &models::Request::default())?, 1)?;
//! let ceilings = Ceilings::measure();
//! let report = measure(&network, 10, Work::Inference(Weights::F32), Duration::from_millis(10), &ceilings)?;
//! assert_eq!(report.passes[0].name, "Conv1+Relu1+Pool1");
//! assert!(report.whole.ms >= report.whole.least_ms);
//! # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
//! ```

mod ceilings;

pub use ceilings::{Bandwidth, Ceilings};

use crate::clock::Instant;
use crate::network::plan::StepSummary;
use crate::network::{Mode, Network, NetworkError, Parameters, Plan, Runner, StepKey, Weights};
use crate::optim::{OptimError, OptimizerOptions};
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Work {
    /// Forward, loss, backward, and the update by an optimizer.
    TrainingStep(OptimizerOptions),
    /// Logits of a batch that lies in memory, with weights kept so; parameters prepared beforehand.
    Inference(Weights),
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Work::TrainingStep(_) => "training step",
            Work::Inference(Weights::F32) => "inference",
            Work::Inference(Weights::Bf16) => "inference with bf16 weights",
        })
    }
}

/// Why a network can't be timed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// It can't be planned or run.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The optimizer can't be built.
    #[error(transparent)]
    Optimizer(#[from] OptimError),
}

/// Times of one network at one batch size.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// All of it.
    pub whole: Measurement,
    /// Each pass of each step of the plan, in the order in which they run, then the optimizer's update.
    pub passes: Vec<Measurement>,
}

/// One time, and the least it could be.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measurement {
    /// The network, or the layers that a step of its plan does, joined by `+`.
    pub name: String,
    /// Which pass.
    pub pass: Pass,
    /// Samples in the batch.
    pub batch: usize,
    /// Threads it ran on.
    pub threads: usize,
    /// Milliseconds: the median of all runs.
    pub ms: f64,
    /// Milliseconds of the fastest run.
    pub least_ms: f64,
    /// How often it ran.
    pub runs: usize,
    /// The least milliseconds that arithmetic and memory allow: see [`Ceilings`]. Of several passes, the sum.
    pub floor_ms: f64,
    /// `floor_ms / ms`: 1 is as fast as the machine. Winograd's convolutions do fewer operations than the definition
    /// counts, and can go beyond.
    pub fraction: f64,
    /// Floating-point operations, as the definitions count them.
    pub flops: u64,
    /// Bytes that have to be moved if every number is read and written once.
    pub bytes: usize,
    /// Which of the two the floor is of.
    pub bound: Bound,
}

/// What a measurement is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pass {
    /// Everything.
    Whole,
    /// Bringing parameters into the form that the passes read.
    Prepare,
    /// The forward pass of a step.
    Forward,
    /// The gradients of a step's inputs.
    BackwardData,
    /// The gradients of a step's parameters.
    BackwardWeights,
    /// The optimizer.
    Update,
}

impl fmt::Display for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Pass::Whole => "whole",
            Pass::Prepare => "prepare",
            Pass::Forward => "forward",
            Pass::BackwardData => "backward-data",
            Pass::BackwardWeights => "backward-weights",
            Pass::Update => "update",
        })
    }
}

/// What limits a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    /// Multiply-adds.
    Arithmetic,
    /// Moving bytes.
    Memory,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Bound::Arithmetic => "arithmetic",
            Bound::Memory => "memory",
        })
    }
}

/// The fewest runs that a median is taken of, however long they take.
const LEAST_RUNS: usize = 3;

/// Times `work` on batches of `batch` samples, about `time` long for the whole and as long for its passes.
///
/// # Errors
/// A batch of 0, or memory that can't be had.
pub fn measure(
    network: &Network,
    batch: usize,
    work: Work,
    time: Duration,
    ceilings: &Ceilings,
) -> Result<Report, BenchError> {
    let (mode, plan) = match work {
        Work::TrainingStep(_) => (Mode::Training, Plan::new(network.description(), batch, Mode::Training)?),
        Work::Inference(weights) => (Mode::Inference, Plan::inference(network.description(), batch, weights)?),
    };
    let steps: Vec<StepSummary> = plan.steps().collect();
    let all = plan.peak_bytes();
    let mut runner = Runner::new(plan)?;
    runner.input_mut().iter_mut().enumerate().for_each(|(i, v)| *v = (i * 7919 % 255) as f32 / 255.0);
    let classes = network.classes();
    runner.labels_mut().iter_mut().enumerate().for_each(|(i, l)| *l = i % classes);
    let parameters = network.parameters();
    let (times, mut passes, update) = match work {
        Work::Inference(_) => {
            let times = repeat(time, || {
                runner.predict(parameters);
            });
            let mut gradients = Parameters::zeros(Vec::new())?;
            (times, profile(&mut runner, parameters, &mut gradients, time), None)
        }
        Work::TrainingStep(optimizer) => {
            let mut learning = parameters.clone();
            let mut gradients = parameters.zeros_like();
            let mut optimizer = optimizer.build(parameters.len())?;
            let mut step = 0;
            // Numbers that stay as they are: what is timed must not depend on how long it was.
            let rate = 0.0;
            let times = repeat(time, || {
                runner.loss_and_gradient(&learning, &mut gradients, StepKey { seed: 1, step });
                optimizer.update(rate, learning.as_mut_slice(), gradients.as_slice());
                step += 1;
            });
            let passes = profile(&mut runner, parameters, &mut gradients, time);
            let update = repeat(time / 4, || optimizer.update(rate, learning.as_mut_slice(), gradients.as_slice()));
            // Parameters and each of the optimizer's states are read and written, gradients read.
            let bytes = (3 + 2 * optimizer.state().len()) * parameters.len() * size_of::<f32>();
            (times, passes, Some((update, bytes)))
        }
    };
    let clock = Clock { batch, ceilings, all };
    let mut measurements = Vec::new();
    for (i, step) in steps.iter().enumerate() {
        for (pass, times) in passes[i].take(mode, step) {
            measurements.push(clock.pass(step, pass, times));
        }
    }
    if let Some((times, bytes)) = update {
        // Timed by itself, it finds its own bytes where the last update left them.
        measurements.push(clock.measurement("all parameters", Pass::Update, times, 0, bytes, 0));
    }
    let mut whole = clock.measurement(&network.description().name, Pass::Whole, times, 0, 0, 0);
    whole.flops = measurements.iter().map(|m| m.flops).sum();
    whole.bytes = measurements.iter().map(|m| m.bytes).sum();
    whole.floor_ms = measurements.iter().map(|m| m.floor_ms).sum();
    whole.fraction = whole.floor_ms / whole.ms;
    let limited = |bound| measurements.iter().filter(|m| m.bound == bound).map(|m| m.floor_ms).sum::<f64>();
    whole.bound = if limited(Bound::Arithmetic) >= limited(Bound::Memory) { Bound::Arithmetic } else { Bound::Memory };
    Ok(Report { whole, passes: measurements })
}

/// Times of several pieces of work that take turns, so that what else the machine does is shared out among them: each about
/// `time` long, in the order given.
///
/// ```
/// use std::time::Duration;
/// let (mut small, mut large) = (0, 0);
/// let times = striate::bench::alternate(Duration::from_millis(5), &mut [&mut || small += 1, &mut || large += 2]);
/// assert!(times[1].ms >= times[1].least_ms && times[1].runs >= 3);
/// ```
pub fn alternate(time: Duration, works: &mut [&mut dyn FnMut()]) -> Vec<Timing> {
    let mut times = vec![Vec::new(); works.len()];
    const TURNS: u32 = 5;
    for _ in 0..TURNS {
        for (work, times) in works.iter_mut().zip(&mut times) {
            times.extend(repeat(time / TURNS, &mut **work));
        }
    }
    let timing = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        let ms = times.get(times.len() / 2).copied().unwrap_or(0.0);
        Timing { ms, least_ms: times.first().copied().unwrap_or(0.0), runs: times.len() }
    };
    times.into_iter().map(timing).collect()
}

/// What [`alternate`] found of one piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Timing {
    /// Milliseconds: the median of all runs.
    pub ms: f64,
    /// Milliseconds of the fastest run.
    pub least_ms: f64,
    /// How often it ran.
    pub runs: usize,
}

/// All times of the passes of one step, in ms.
#[derive(Clone, Default)]
struct StepTimes {
    prepare: Vec<f64>,
    forward: Vec<f64>,
    backward: Vec<f64>,
    backward_weights: Vec<f64>,
}

impl StepTimes {
    /// The passes that a step has, forward ones first.
    fn take(&mut self, mode: Mode, step: &StepSummary) -> Vec<(Pass, Vec<f64>)> {
        let mut passes = Vec::new();
        // Once a run that learns; for inference once in all, and so no part of it.
        if mode == Mode::Training && step.prepared_bytes > 0 {
            passes.push((Pass::Prepare, std::mem::take(&mut self.prepare)));
        }
        passes.push((Pass::Forward, std::mem::take(&mut self.forward)));
        let weights = std::mem::take(&mut self.backward_weights);
        let backward = std::mem::take(&mut self.backward);
        match (step.input_gradient, step.parameter_gradient) {
            (true, true) => {
                let data = backward.iter().zip(&weights).map(|(both, weights)| (both - weights).max(0.0)).collect();
                passes.push((Pass::BackwardData, data));
                passes.push((Pass::BackwardWeights, weights));
            }
            (true, false) => passes.push((Pass::BackwardData, backward)),
            (false, true) => passes.push((Pass::BackwardWeights, backward)),
            (false, false) => {}
        }
        passes
    }
}

/// Times the steps of the plan again and again.
fn profile(runner: &mut Runner, parameters: &Parameters, gradients: &mut Parameters, time: Duration) -> Vec<StepTimes> {
    let mut times: Vec<StepTimes> = Vec::new();
    repeat(time, || {
        let steps = runner.profile(parameters, gradients);
        times.resize(steps.len(), StepTimes::default());
        for (times, step) in times.iter_mut().zip(steps) {
            times.prepare.push(milliseconds(step.prepare));
            times.forward.push(milliseconds(step.forward));
            times.backward.push(milliseconds(step.backward));
            times.backward_weights.push(milliseconds(step.backward_weights));
        }
    });
    times
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Milliseconds of each run, over as many as fit into `time`; the first runs, which find cold caches, do not count.
fn repeat(time: Duration, mut run: impl FnMut()) -> Vec<f64> {
    let begun = Instant::now();
    for _ in 0..3 {
        run();
        if begun.elapsed() > time / 4 {
            break;
        }
    }
    let (begun, mut times) = (Instant::now(), Vec::new());
    while times.len() < LEAST_RUNS || begun.elapsed() < time {
        let start = Instant::now();
        run();
        times.push(milliseconds(start.elapsed()));
    }
    times
}

/// What all measurements of a report share.
struct Clock<'a> {
    batch: usize,
    ceilings: &'a Ceilings,
    /// Bytes that one run works on.
    all: usize,
}

impl Clock<'_> {
    fn pass(&self, step: &StepSummary, pass: Pass, times: Vec<f64>) -> Measurement {
        let StepSummary { input_bytes: input, output_bytes: output, parameter_bytes: parameters, .. } = *step;
        // What flows from step to step is in the caches as far as it fits; parameters come round once a run.
        let (flops, flow, cold) = match pass {
            Pass::Prepare => (0, 0, parameters + step.prepared_bytes),
            // The weights as they are or as they were packed, whichever are fewer bytes: bfloat16 is half.
            Pass::Forward if step.prepared_bytes > 0 => {
                (step.flops, input + output, parameters.min(step.prepared_bytes))
            }
            _ => (step.flops, input + output, parameters),
        };
        self.measurement(&step.name, pass, times, flops, flow, cold)
    }

    fn measurement(
        &self,
        name: &str,
        pass: Pass,
        mut times: Vec<f64>,
        flops: u64,
        flow: usize,
        cold: usize,
    ) -> Measurement {
        times.sort_by(f64::total_cmp);
        let ms = times.get(times.len() / 2).copied().unwrap_or(0.0);
        let floor_ms = 1e3 * self.ceilings.floor(flops, flow, cold, self.all);
        let arithmetic = 1e3 * self.ceilings.floor(flops, 0, 0, 0);
        Measurement {
            name: name.to_owned(),
            pass,
            batch: self.batch,
            threads: self.ceilings.threads,
            ms,
            least_ms: times.first().copied().unwrap_or(0.0),
            runs: times.len(),
            floor_ms,
            fraction: if ms > 0.0 { floor_ms / ms } else { 0.0 },
            flops,
            bytes: flow + cold,
            bound: if arithmetic >= floor_ms { Bound::Arithmetic } else { Bound::Memory },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models;

    fn ceilings() -> Ceilings {
        let bandwidths = [(1000, 4e9), (100_000, 2e9)]
            .map(|(working_set, bytes_per_second)| Bandwidth { working_set, bytes_per_second });
        Ceilings { threads: 1, flops_per_second: 1e9, bandwidths: bandwidths.to_vec() }
    }

    #[test]
    fn a_floor_is_the_larger_of_arithmetic_and_memory() {
        let c = ceilings();
        assert_eq!([1, 1000, 1001, 1 << 30].map(|bytes| c.bandwidth(bytes)), [4e9, 4e9, 2e9, 2e9]);
        assert_eq!(c.floor(5000, 0, 0, 0), 5e-6);
        assert_eq!(c.floor(10, 1000, 0, 0), 0.25e-6);
        assert_eq!(c.floor(10, 1000, 4000, 9000), 0.25e-6 + 2e-6);
        assert_eq!(c.floor(0, 0, 0, 0), 0.0);
    }

    #[test]
    fn every_pass_of_every_step_is_there_with_its_operations() {
        let network = Network::new(models::build("simple-convnet", &models::Request::default()).unwrap(), 1).unwrap();
        let time = Duration::ZERO;
        let adam = Work::TrainingStep(OptimizerOptions::adam());
        let report = measure(&network, 4, adam, time, &ceilings()).unwrap();
        let passes: Vec<(&str, Pass)> = report.passes.iter().map(|m| (m.name.as_str(), m.pass)).collect();
        let without_prepare: Vec<_> = passes.into_iter().filter(|(_, pass)| *pass != Pass::Prepare).collect();
        assert_eq!(
            without_prepare,
            [
                ("Conv1+Relu1+Pool1", Pass::Forward),
                ("Conv1+Relu1+Pool1", Pass::BackwardWeights),
                ("Affine1+Relu2", Pass::Forward),
                ("Affine1+Relu2", Pass::BackwardData),
                ("Affine1+Relu2", Pass::BackwardWeights),
                ("Affine2", Pass::Forward),
                ("Affine2", Pass::BackwardData),
                ("Affine2", Pass::BackwardWeights),
                ("all parameters", Pass::Update),
            ]
        );
        let summary = network.description().summary(4).unwrap();
        // Affine1's ReLU is undone in both of the step's backward passes.
        assert_eq!(report.whole.flops, 4 * (summary.training_flops + 100));
        let inference = measure(&network, 4, Work::Inference(Weights::F32), time, &ceilings()).unwrap();
        assert_eq!(inference.whole.flops, 4 * summary.flops);
        let sum: f64 = inference.passes.iter().map(|m| m.floor_ms).sum();
        assert_eq!(inference.whole.floor_ms, sum);
        let first = &inference.passes[0];
        // Input, filters (with biases, where they are not packed without them), pooled maps.
        let but_filters = first.bytes - 4 * (4 * 784 + 4 * 30 * 12 * 12);
        assert!((4 * 30 * 25..=4 * 30 * 26).contains(&but_filters), "{but_filters}");
        let error = measure(&network, 0, Work::Inference(Weights::F32), time, &ceilings()).unwrap_err().to_string();
        assert!(error.contains("the batch is empty"), "{error}");
    }
}
