//! What a run tells while it goes on, and what it leaves.

use super::RunState;
use crate::network::Parameters;
use serde::{Deserialize, Serialize};

/// Something happened in a run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Options and data were found good; the first step comes next.
    Started {
        /// Images in the training set.
        images: usize,
        /// Epochs to come.
        epochs: usize,
        /// Updates in an epoch, the one for a smaller last batch included.
        steps_per_epoch: usize,
        /// Updates in the whole run.
        total_steps: u64,
        /// Updates done already, by the run that is resumed.
        step: u64,
    },
    /// Every [`log_every`](super::TrainOptions::log_every) steps, and at the last step of an epoch.
    Step {
        /// From 1.
        epoch: usize,
        /// Updates done in the whole run.
        step: u64,
        /// Updates in an epoch.
        steps_per_epoch: usize,
        /// Mean over the images since the last such event.
        loss: f64,
        /// Share of those images that were recognised, each before the update it took part in.
        accuracy: f64,
        /// The learning rate of this step, schedule included.
        learning_rate: f32,
        /// The length of this step's gradient before any scaling, where [`TrainOptions::clip`](super::TrainOptions::clip)
        /// bounds it.
        gradient_norm: Option<f32>,
        /// Images trained a second since the last such event.
        images_per_second: f64,
        /// The parameters that would be the result now: the averaged ones where an average is kept.
        parameters: &'a Parameters,
    },
    /// The epoch's updates are done and the network is about to be evaluated.
    Evaluating {
        /// From 1.
        epoch: usize,
        /// Images to evaluate, of the training, the validation and the test set together.
        images: usize,
    },
    /// An epoch is done and evaluated.
    Epoch {
        /// What it gave.
        metrics: &'a EpochMetrics,
        /// The parameters that were evaluated: the averaged ones where an average is kept.
        parameters: &'a Parameters,
        /// Whether the validation set found no earlier epoch as good; never without a validation set.
        best: bool,
    },
    /// Weights on their way, where [`Trainer::snapshots`](super::Trainer::snapshots) asks for them. Weights that are not
    /// finite are never shown.
    Snapshot {
        /// Updates done in the whole run.
        step: u64,
        /// The parameters that would be the result now: the averaged ones where an average is kept.
        parameters: &'a Parameters,
    },
    /// The moment to save the run, where [`Trainer::checkpoints`](super::Trainer::checkpoints) asks for it: before the first
    /// step, after each epoch's evaluation, every so many steps, and after a stop.
    Checkpoint {
        /// Everything that the run needs to go on.
        state: &'a RunState<'a>,
    },
}

/// The answer to an [`Event`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Go on.
    Continue,
    /// Leave the weights as they are and return at once, evaluating nothing more.
    Stop,
}

/// What an epoch gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochMetrics {
    /// From 1.
    pub epoch: usize,
    /// Updates done in the whole run.
    pub step: u64,
    /// Mean over the epoch's images, each with the weights of its step.
    pub train_loss: f64,
    /// Share of the epoch's images recognised, each with the weights of its step.
    pub running_accuracy: f64,
    /// Share of the evaluated training images recognised at the epoch's end.
    pub train_accuracy: f64,
    /// How many training images were evaluated.
    pub train_images: usize,
    /// Share of the validation set recognised at the epoch's end, if there is a validation set.
    pub validation_accuracy: Option<f64>,
    /// Mean loss over the validation set, if there is one.
    pub validation_loss: Option<f64>,
    /// Share of the test set recognised at the epoch's end, if there is a test set.
    pub test_accuracy: Option<f64>,
    /// Mean loss over the test set, if there is one.
    pub test_loss: Option<f64>,
    /// Of the validation set, or without one the test set: [`Evaluation::top5`](super::Evaluation::top5).
    pub top5: Option<f64>,
    /// Of the same set: the expected calibration error
    /// ([`Calibration::expected_error`](super::Calibration::expected_error)).
    pub ece: Option<f64>,
    /// The learning rate of the epoch's last step.
    pub learning_rate: f32,
    /// Seconds of training, without evaluation.
    pub seconds: f64,
    /// Seconds of evaluation.
    pub evaluation_seconds: f64,
    /// Images trained a second, without evaluation.
    pub images_per_second: f64,
}

/// What a run gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainSummary {
    /// Epochs done and evaluated.
    pub epochs: usize,
    /// Updates done.
    pub steps: u64,
    /// Whether [`Control::Stop`] ended the run early.
    pub stopped: bool,
    /// Whether [`TrainOptions::patience`](super::TrainOptions::patience) ended the run early.
    pub out_of_patience: bool,
    /// The epoch at whose end the network had the weights that it holds now; none after a stop within an epoch, unless
    /// the best weights are kept.
    pub kept_epoch: Option<usize>,
    /// Seconds in all.
    pub seconds: f64,
    /// Images trained a second, without evaluation.
    pub images_per_second: f64,
    /// One entry an epoch done.
    pub history: Vec<EpochMetrics>,
}

impl TrainSummary {
    /// The last epoch's metrics, if an epoch was done.
    pub fn last(&self) -> Option<&EpochMetrics> {
        self.history.last()
    }

    /// The metrics of the weights that the network holds, if they are an epoch's.
    pub fn kept(&self) -> Option<&EpochMetrics> {
        self.history.iter().find(|metrics| Some(metrics.epoch) == self.kept_epoch)
    }
}
