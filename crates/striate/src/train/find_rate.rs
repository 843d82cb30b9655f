//! The learning-rate range test (Smith, 2017, "Cyclical Learning Rates for Training Neural Networks", section 3.3): the
//! rate rises from step to step, and the loss tells which rates the network learns by.

use super::{Control, Event, Keep, TrainError, TrainOptions, Trainer};
use crate::data::{Dataset, Normalization};
use crate::network::Network;
use crate::optim::Schedule;
use serde::Serialize;
use std::sync::atomic::AtomicBool;

/// The first rate.
const LEAST: f32 = 1e-6;
/// The last rate.
const MOST: f32 = 10.0;
/// Steps from one to the other.
const STEPS: u64 = 350;
/// Steps that count in a smoothed loss, as a normal distribution's deviation: a seventh of a tenfold rate.
const SMOOTHED: f64 = 7.0;
/// The test is over when the loss is so many times the least so far.
const LOST: f64 = 4.0;
/// A loss that falls by a smaller share than this tells nothing; and from where it is above the lowest by no more than this
/// share of its fall, it is as low as it gets.
const LEAST_FALL: f64 = 0.02;

/// A step of the test.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RatePoint {
    /// The learning rate.
    pub rate: f32,
    /// The batch's mean loss before the step, as it is trained by.
    pub loss: f64,
    /// The mean loss of the steps around, the nearer ones counting more.
    pub smoothed: f64,
}

/// What the test found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RateTest {
    /// From the lowest rate on, up to where the loss left all bounds.
    pub points: Vec<RatePoint>,
    /// Which rates stand out; none if the loss fell at no rate.
    pub found: Option<FoundRates>,
    /// Whether the loss grew beyond all bounds before the highest rate.
    pub diverged: bool,
}

/// Rates that stand out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct FoundRates {
    /// The first rate at which the smoothed loss is as low as it gets: the edge beyond which larger ones gain nothing.
    pub lowest: f32,
    /// Where the smoothed loss falls fastest by the logarithm of the rate.
    pub steepest: f32,
    /// A tenth of the edge: a safe distance from it, as the loss of a real run reaches rates that only few steps had here.
    pub suggestion: f32,
}

impl FoundRates {
    fn of(points: &[RatePoint]) -> Option<Self> {
        let (at, lowest) = points.iter().enumerate().min_by(|(_, a), (_, b)| a.smoothed.total_cmp(&b.smoothed))?;
        let before = points.get(..=at)?;
        let highest = before.iter().map(|point| point.smoothed).fold(f64::NEG_INFINITY, f64::max);
        let fall = highest - lowest.smoothed;
        // Written so that NaN is no fall.
        let falls = fall > LEAST_FALL * highest.abs();
        if !falls {
            return None;
        }
        // Where few images are learnt by heart, the loss is lowest wherever the test ends.
        let edge = before.iter().find(|point| point.smoothed <= lowest.smoothed + LEAST_FALL * fall)?.rate;
        // The rates are evenly spaced by their logarithms, so differences are slopes.
        let slope = |pair: &&[RatePoint]| pair[1].smoothed - pair[0].smoothed;
        let steepest = before.windows(2).min_by(|a, b| slope(a).total_cmp(&slope(b)))?[0].rate;
        Some(Self { lowest: edge, steepest, suggestion: edge / 10.0 })
    }
}

/// Trains a copy of `network` with these options while the rate rises from 1e-6 to 10, and says what the loss does: the
/// options' own rate and schedule play no part. `on_step` hears how many steps are done, of how many; `stop` ends the test
/// early when it becomes true.
///
/// # Errors
/// As for [`Trainer::new`] and [`Trainer::run`]; a loss that leaves all bounds is a finding, no error.
pub fn find_learning_rate(
    network: &Network,
    train: &Dataset,
    normalization: &Normalization,
    options: &TrainOptions,
    stop: &AtomicBool,
    on_step: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<RateTest, TrainError> {
    let mut trial = network.clone();
    let steps_per_epoch = train.len().div_ceil(options.batch.max(1)).max(1);
    let options = TrainOptions {
        epochs: (STEPS as usize).div_ceil(steps_per_epoch),
        steps: Some(STEPS),
        learning_rate: MOST,
        schedule: Schedule::Exponential { start: LEAST / MOST, end: 1.0 },
        average: None,
        keep: Keep::Last,
        patience: None,
        log_every: 1,
        ..options.clone()
    };
    let mut points: Vec<RatePoint> = Vec::new();
    let mut least = f64::INFINITY;
    let mut diverged = false;
    let trainer = Trainer::new(&mut trial, train, None, normalization.clone(), options)?;
    let outcome = trainer.without_evaluation().stop_when(stop).run(&mut |event| {
        let &Event::Step { step, loss, learning_rate, .. } = event else { return Control::Continue };
        points.push(RatePoint { rate: learning_rate, loss, smoothed: loss });
        on_step(step, STEPS);
        // Single batches may be hard; a few in a row are not.
        let recent = points.iter().rev().take(5).map(|point| point.loss);
        let mean = recent.clone().sum::<f64>() / recent.count() as f64;
        least = least.min(mean);
        diverged = mean > LOST * least.max(1e-3);
        if diverged { Control::Stop } else { Control::Continue }
    });
    match outcome {
        Ok(_) => {}
        Err(TrainError::Diverged { .. }) => diverged = true,
        Err(error) => return Err(error),
    }
    smooth(&mut points);
    Ok(RateTest { found: FoundRates::of(&points), points, diverged })
}

/// Fills in the smoothed losses. From both sides, so that no rate is blamed for what others did.
fn smooth(points: &mut [RatePoint]) {
    let losses: Vec<f64> = points.iter().map(|point| point.loss).collect();
    for (at, point) in points.iter_mut().enumerate() {
        let (mut sum, mut weights) = (0.0, 0.0);
        for (other, loss) in losses.iter().enumerate() {
            let distance = (other as f64 - at as f64) / SMOOTHED;
            let weight = (-0.5 * distance * distance).exp();
            (sum, weights) = (sum + weight * loss, weights + weight);
        }
        point.smoothed = sum / weights;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(loss: impl Fn(f64) -> f64) -> Vec<RatePoint> {
        let point = |step: u64| {
            let rate = Schedule::Exponential { start: LEAST / MOST, end: 1.0 }.rate(step, STEPS) * MOST;
            let loss = loss(f64::from(rate).log10());
            RatePoint { rate, loss, smoothed: loss }
        };
        let mut points: Vec<RatePoint> = (0..STEPS).map(point).collect();
        smooth(&mut points);
        points
    }

    #[test]
    fn the_edge_and_the_steepest_rate_are_found() {
        // From 2.3 down to 0.3 around 1e-3, and up again beyond 0.1.
        let points = curve(|x| 2.3 - 2.0 / (1.0 + (-4.0 * (x + 3.0)).exp()) + 5.0 * (x + 1.0).max(0.0));
        let found = FoundRates::of(&points).unwrap();
        assert!((found.steepest.log10() + 3.0).abs() < 0.1, "{found:?}");
        assert!((found.lowest.log10() + 2.0).abs() < 0.2, "{found:?}");
        assert_eq!(found.suggestion, found.lowest / 10.0);
        // Learnt by heart: lowest at the end, but no lower than long before.
        let found = FoundRates::of(&curve(|x| 1.0 / (1.0 + (4.0 * (x + 3.0)).exp()))).unwrap();
        assert!((found.lowest.log10() + 2.0).abs() < 0.2, "{found:?}");
        // A loss that nothing lowers.
        assert_eq!(FoundRates::of(&curve(|_| 2.3)), None);
        assert_eq!(FoundRates::of(&curve(|x| 3.0 + x.max(0.0))), None);
        assert_eq!(FoundRates::of(&[]), None);
    }

    #[test]
    fn smoothing_keeps_means_and_takes_noise_away() {
        let points = curve(|x| 1.0 + 0.3 * (x * 400.0).sin());
        assert!(points[50..300].iter().all(|point| (point.smoothed - 1.0).abs() < 0.1));
        assert!(curve(|_| 1.5).iter().all(|point| (point.smoothed - 1.5).abs() < 1e-12));
    }
}
