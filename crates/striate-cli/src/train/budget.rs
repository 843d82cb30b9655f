//! `--time`: how many steps fit into a time.

use super::Data;
use super::options::{Options, duration};
use crate::error::CliError;
use std::time::{Duration, Instant};
use striate::network::Network;
use striate::train::{Control, Event, TrainOptions, evaluate};

/// How long the trial takes, or five steps if they take longer.
pub(super) const TRIAL: Duration = Duration::from_secs(2);
const LEAST_STEPS: u64 = 5;
/// Steps that warm up caches and threads, and are not counted.
const WARM_UP: u64 = 2;
/// Share of the time that is planned for; machines are slower at some times than at others.
const PLANNED: f64 = 0.95;

/// The number of steps that `time` will do for, evaluations included, by a trial on a copy of the network. At least 1.
pub(super) fn steps(time: &str, network: &Network, data: &Data, options: &Options) -> Result<u64, CliError> {
    let time = duration(time).unwrap_or(Duration::MAX).as_secs_f64();
    let steps_per_epoch = data.train.len().div_ceil(options.batch) as f64;
    let TrainOptions { evaluate_train, .. } = options.train_options();

    let mut trial = network.clone();
    let trial_options = Options { log_every: 1, epochs: 1_000_000, ..options.clone() };
    let (mut begun, mut counted) = (Instant::now(), 0u64);
    data.trainer(&mut trial, &trial_options)?.run(&mut |event| match event {
        // An evaluation is measured by itself.
        Event::Evaluating { .. } => Control::Stop,
        Event::Step { step, .. } => {
            if *step <= WARM_UP {
                begun = Instant::now();
            } else {
                counted += 1;
            }
            let is_long = begun.elapsed() >= TRIAL && counted >= LEAST_STEPS;
            if is_long { Control::Stop } else { Control::Continue }
        }
        _ => Control::Continue,
    })?;
    let step = begun.elapsed().as_secs_f64() / counted.max(1) as f64;

    let sample = data.train.head(1000.max(options.batch));
    let begun = Instant::now();
    evaluate(network, &sample, &options.normalization, options.batch)?;
    let image = begun.elapsed().as_secs_f64() / sample.len() as f64;

    let held_out = data.validation.as_ref().unwrap_or(&data.test).len();
    let each_epoch = image * (evaluate_train.unwrap_or(usize::MAX).min(data.train.len()) + held_out) as f64;
    // At the end all of the training set is evaluated, and the test set.
    let at_the_end = image * (data.train.len() + data.test.len()) as f64;
    let steps = (PLANNED * time - at_the_end) / (step + each_epoch / steps_per_epoch);
    Ok((steps as u64).max(1))
}
