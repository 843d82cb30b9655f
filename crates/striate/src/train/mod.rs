//! Training and evaluation.
//!
//! [`Trainer`] runs the whole loop of chapter 4: draw a batch without replacement, forward, backward, update; at each
//! epoch's end evaluate. It tells what happens through [`Event`]s and never prints. [`evaluate()`] measures a network on
//! a data set.
//!
//! Same seed, data and options give bit-identical weights, whatever the number of threads: the order of the images is
//! named by (seed, epoch), the random numbers of a step by (seed, step), and sums are added in a fixed order.

mod calibration;
mod checkpoint;
mod evaluate;
mod events;
mod find_rate;
mod fingerprint;
mod freeze;
mod metrics;
mod order;
mod quantize;
mod seen;
mod snapshots;
mod spread;
mod trainer;
mod whiten;

use crate::data::augment::Augment;
use crate::data::{Dataset, Normalization};
use crate::int8::Int8Error;
use crate::layers::Role;
use crate::network::{NetworkError, NonFinite, Parameters};
use crate::optim::{Groups, Kind, OptimError, OptimizerOptions, Schedule};
use crate::shape::Shape;
pub use calibration::{BINS, Calibration, CalibrationBin, fit_temperature};
pub use checkpoint::{CHECKPOINT_VERSION, Checkpoint, CheckpointError, Fingerprints, RunState};
pub use evaluate::{EvaluateOptions, calibrate, evaluate, evaluate_int8, evaluate_parameters, evaluate_with, logits};
pub use events::{Control, EpochMetrics, Event, TrainSummary};
pub use find_rate::{FoundRates, RatePoint, RateTest, find_learning_rate};
pub use fingerprint::Fingerprint;
use freeze::Frozen;
pub use metrics::{ClassMetrics, Evaluation, MacroAverage, Mistake, Scaled};
pub use order::{ClassShare, class_shares};
pub use quantize::{QuantizeOptions, quantize};
pub use seen::{Seen, seen};
use serde::{Deserialize, Serialize};
pub use snapshots::Snapshots;
pub use spread::Spread;
use std::fmt;
use std::str::FromStr;
pub use trainer::Trainer;
use trainer::{Best, Sums};
pub use whiten::whiten;

/// How to train. [`TrainOptions::default`] is the chapter's recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainOptions {
    /// Times that every training image is seen.
    pub epochs: usize,
    /// End after so many updates, if the epochs have not ended by then; the schedule is laid over these. The last epoch is
    /// then evaluated where it is cut.
    pub steps: Option<u64>,
    /// End when so many epochs in a row were no better on the [`Trainer::validation`] set than the best before them
    /// (early stopping).
    pub patience: Option<usize>,
    /// Images in a step; the rest of an epoch that does not fill a batch makes a smaller last step.
    pub batch: usize,
    /// Names every random number of the run.
    pub seed: u64,
    /// How the weights follow the gradients, and how strong weight decay is.
    pub optimizer: OptimizerOptions,
    /// Step size of the optimizer, before the schedule's factor.
    pub learning_rate: f32,
    /// How the learning rate changes over the run.
    pub schedule: Schedule,
    /// What the optimizer's weight decay acts on.
    pub decay: Decay,
    /// Train towards targets of which this share is spread evenly over all classes (0.1 is usual); 0 for none. The
    /// training loss is that of these targets, every evaluation's the plain one.
    pub label_smoothing: f32,
    /// Scale the gradients down where their length (Euclidean norm over all parameters) is larger than this (Pascanu et
    /// al., 2013, "On the difficulty of training recurrent neural networks").
    pub clip: Option<f32>,
    /// Which epoch's weights the network holds in the end.
    pub keep: Keep,
    /// Keep an exponential moving average of the weights with this decay (0.999 is usual); it is what gets evaluated
    /// and what the network holds in the end. At step t the decay is at most (1 + t) / (10 + t), so that the average
    /// forgets the initial weights at once.
    pub average: Option<f32>,
    /// What is done about classes of unequal size.
    pub balance: Balance,
    /// Layers and parameters that keep their bits, by name; `*` and `?` stand for any signs and any one. A frozen batch
    /// normalisation keeps its running statistics and normalises by them; what lies before the first layer that learns
    /// computes no gradient.
    pub freeze: Vec<String>,
    /// How training images are changed before each step; evaluation sees them as they are.
    pub augment: Augment,
    /// Steps between two [`Event::Step`]s.
    pub log_every: usize,
    /// Evaluate only so many of the training images after each epoch but the last, which evaluates all: each class in
    /// proportion to its size, and always the same ones.
    pub evaluate_train: Option<usize>,
}

/// What weight decay acts on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// All parameters, biases too: PyTorch's default.
    #[default]
    All,
    /// Weights and filters only. Biases and the scales and shifts of normalizations don't overfit, and large ones do no
    /// harm.
    Weights,
}

/// What is done about classes of unequal size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Balance {
    /// Nothing: every image counts the same.
    #[default]
    None,
    /// The loss of an image counts by the inverse of its class's size; the mean over the training set is 1. A step's loss
    /// is the sum over the batch by the number of its images, so that steps add up to the weighted loss of the epoch.
    Weights,
    /// An epoch takes as many images of each class, in all as many as there are: small classes several times, each time
    /// changed otherwise by the augmentation, of large ones another part in each epoch.
    Sampling,
}

/// Which epoch's weights the network holds after training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// The last one's.
    #[default]
    Last,
    /// Those of the best accuracy on the [`Trainer::validation`] set; of equal ones, those of the lowest loss.
    Best,
}

/// Display and parsing in the words that serde writes.
macro_rules! words {
    ($choice:ident, $field:literal, $expected:literal, $($word:literal = $variant:ident),+) => {
        impl fmt::Display for $choice {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $word),+ })
            }
        }

        impl FromStr for $choice {
            type Err = TrainError;

            fn from_str(text: &str) -> Result<Self, TrainError> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(TrainError::Option { field: $field, found: format!("{text:?}"), expected: $expected }),
                }
            }
        }
    };
}

words!(Decay, "decay", "all or weights", "all" = All, "weights" = Weights);
words!(Balance, "balance", "none, weights or sampling", "none" = None, "weights" = Weights, "sampling" = Sampling);
words!(Keep, "keep", "last or best", "last" = Last, "best" = Best);

impl Default for TrainOptions {
    fn default() -> Self {
        let optimizer = OptimizerOptions::adam();
        Self {
            epochs: 20,
            steps: None,
            patience: None,
            batch: 100,
            seed: 0,
            optimizer,
            learning_rate: optimizer.default_learning_rate(),
            schedule: Schedule::constant(),
            decay: Decay::All,
            label_smoothing: 0.0,
            clip: None,
            keep: Keep::Last,
            average: None,
            balance: Balance::None,
            freeze: Vec::new(),
            augment: Augment::none(),
            log_every: 10,
            evaluate_train: None,
        }
    }
}

impl TrainOptions {
    /// Whether every option is in its range, whatever the data.
    ///
    /// # Errors
    /// The first option that is not.
    pub fn validate(&self) -> Result<(), TrainError> {
        let wrong = |field, found: String, expected| Err(TrainError::Option { field, found, expected });
        for (field, value) in [("epochs", self.epochs), ("batch", self.batch), ("log_every", self.log_every)] {
            if value == 0 {
                return wrong(field, "0".into(), "at least 1");
            }
        }
        if self.steps == Some(0) {
            return wrong("steps", "0".into(), "at least 1, or left out for as many as the epochs have");
        }
        if self.patience == Some(0) {
            return wrong("patience", "0".into(), "at least 1 epoch, or left out for all of them");
        }
        if self.evaluate_train == Some(0) {
            return wrong("evaluate_train", "0".into(), "at least 1, or left out for all");
        }
        if !(self.learning_rate.is_finite() && self.learning_rate > 0.0) {
            return wrong("learning_rate", self.learning_rate.to_string(), "a positive number, such as 0.001");
        }
        if let Some(decay) = self.average
            && !(0.0..1.0).contains(&decay)
        {
            return wrong("average", decay.to_string(), "at least 0 and less than 1, such as 0.999");
        }
        if !(0.0..1.0).contains(&self.label_smoothing) {
            let found = self.label_smoothing.to_string();
            return wrong("label_smoothing", found, "at least 0 and less than 1, such as 0.1");
        }
        if let Some(clip) = self.clip
            && !(clip.is_finite() && clip > 0.0)
        {
            return wrong("clip", clip.to_string(), "a positive number, such as 1, or left out for none");
        }
        self.optimizer.validate()?;
        self.schedule.validate()?;
        Ok(())
    }
}

/// Why a network can't be trained or evaluated.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// An option outside its range.
    #[error("{field} is {found}; it must be {expected}")]
    Option {
        /// Which option.
        field: &'static str,
        /// What was given.
        found: String,
        /// What is allowed.
        expected: &'static str,
    },
    /// Quantization, or running a network in bytes.
    #[error(transparent)]
    Int8(#[from] Int8Error),
    /// Hyper-parameters of the optimizer or the schedule.
    #[error(transparent)]
    Optimizer(#[from] OptimError),
    /// The network can't be planned for this batch.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// Nothing to train on or to evaluate.
    #[error("the data set {data:?} holds no images; at least 1 is needed")]
    Empty {
        /// The data set's name.
        data: String,
    },
    /// A batch larger than the data.
    #[error(
        "the batch of {batch} is larger than the data: {data:?} holds {images} images; use a batch of at most {images}"
    )]
    BatchTooLarge {
        /// The data set's name.
        data: String,
        /// Images in it.
        images: usize,
        /// The batch asked for.
        batch: usize,
    },
    /// Images of another size than the network's input.
    #[error(
        "the images of {data:?} are {found}, but the network takes {expected}; resize the images, or make the network \
         for {found}"
    )]
    Shape {
        /// The data set's name.
        data: String,
        /// Its images.
        found: Shape,
        /// The network's input.
        expected: Shape,
    },
    /// Another number of classes than the network's.
    #[error(
        "{data:?} has {found} classes, but the network tells {expected} apart; use the data it was made for, or make \
         the network for {found} classes"
    )]
    Classes {
        /// The data set's name.
        data: String,
        /// Its classes.
        found: usize,
        /// The network's.
        expected: usize,
    },
    /// A normalization that does not belong to the images, or that divides by nothing.
    #[error("the normalization can't be used: {reason}")]
    Normalization {
        /// Which part, what was found, what is needed.
        reason: String,
    },
    /// A weight that is not a number, before any training.
    #[error(
        "parameter {parameter} holds {value} at position {position}; every weight must be finite: load another file, or \
         start from fresh weights"
    )]
    NonFiniteParameter {
        /// Its name.
        parameter: String,
        /// NaN or infinity.
        value: f32,
        /// Where, counted in memory order.
        position: usize,
    },
    /// The network answers an image with something that is not a number.
    #[error(
        "the network's output for image {image} of {data:?} is {value}, not a finite number: its weights or the \
         normalization are too large"
    )]
    NonFiniteOutput {
        /// The data set's name.
        data: String,
        /// Its position there.
        image: usize,
        /// NaN or infinity.
        value: f32,
    },
    /// A name to freeze that can't be read.
    #[error("freeze: {pattern:?} is no pattern of names: {reason}; `*` stands for any signs, `?` for one")]
    Pattern {
        /// As it was given.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A name to freeze that nothing has.
    #[error(
        "freeze: {pattern:?} is the name of no layer that learns and of no parameter; the layers are {}; the parameters \
         {}",
        layers.join(", "),
        parameters.join(", ")
    )]
    NothingToFreeze {
        /// As it was given.
        pattern: String,
        /// Those that learn.
        layers: Vec<String>,
        /// All.
        parameters: Vec<String>,
    },
    /// Nothing is left to learn.
    #[error("freeze: {} freeze every layer, so nothing would be learnt; leave one out", patterns.join(", "))]
    AllFrozen {
        /// As they were given.
        patterns: Vec<String>,
    },
    /// A checkpoint of another run, or options that contradict what has been done.
    #[error("the checkpoint can't be resumed with these settings: {what} was {found} and is {expected} now; {advice}")]
    Resume {
        /// Which setting.
        what: String,
        /// What the checkpoint has.
        found: String,
        /// What this run has.
        expected: String,
        /// What to do.
        advice: &'static str,
    },
    /// The loss left all bounds; the network holds its last good weights.
    #[error("{}", diverged(*.step, *.epoch, *.loss, *.learning_rate, .first.as_ref(), *.restored_step))]
    Diverged {
        /// Updates done before the step that showed it.
        step: u64,
        /// From 1.
        epoch: usize,
        /// The batch's mean loss.
        loss: f32,
        /// [`TrainOptions::learning_rate`], without the schedule's factor.
        learning_rate: f32,
        /// Where NaN or infinity first came up, if it did.
        first: Option<NonFinite>,
        /// Updates that the weights now in the network have seen.
        restored_step: u64,
    },
}

fn diverged(
    step: u64,
    epoch: usize,
    loss: f32,
    learning_rate: f32,
    first: Option<&NonFinite>,
    restored_step: u64,
) -> String {
    let first = first.map(|first| format!("; the first number that is not finite is in {first}")).unwrap_or_default();
    let advice = if step == 0 {
        // No update has been made, so the learning rate is innocent.
        "this is before the first update, so the initial weights or the normalization are too large".to_string()
    } else {
        let tenth = f64::from(learning_rate) / 10.0;
        // Two digits: 0.1 as f32 is not quite 0.1, and nobody wants to read that.
        let tenth = format!("{tenth:.1e}").parse().unwrap_or(tenth);
        format!("lower the learning rate from {learning_rate}, for example to {tenth}")
    };
    format!(
        "training diverged after {step} steps, in epoch {epoch}: the loss is {loss:?}{first}; {advice} (the network \
         holds its weights of step {restored_step} again)"
    )
}

/// Checks that `data` can go into a network of this input.
fn check_data(data: &Dataset, input: Shape, normalization: &Normalization) -> Result<(), TrainError> {
    if data.is_empty() {
        return Err(TrainError::Empty { data: data.name().into() });
    }
    if data.shape() != input {
        return Err(TrainError::Shape { data: data.name().into(), found: data.shape(), expected: input });
    }
    // One number counts for every channel.
    normalization.check(input.channels).map_err(|error| TrainError::Normalization { reason: error.to_string() })
}

fn check_classes(data: &Dataset, classes: usize) -> Result<(), TrainError> {
    let found = data.class_names().len();
    if found != classes {
        return Err(TrainError::Classes { data: data.name().into(), found, expected: classes });
    }
    Ok(())
}

/// The first value that is not finite: the parameter's name, the value and its position.
fn first_non_finite(parameters: &Parameters) -> Option<(&str, f32, usize)> {
    let values = parameters.as_slice();
    // Without an early exit, so that the usual case is one vectorised sweep.
    if values.iter().fold(true, |finite, v| finite & v.is_finite()) {
        return None;
    }
    parameters.specs().iter().find_map(|spec| {
        let values = values.get(spec.range.clone())?;
        let position = values.iter().position(|v| !v.is_finite())?;
        Some((spec.name.as_str(), values[position], position))
    })
}

/// How the optimizer treats each parameter.
fn groups(parameters: &Parameters, decay: Decay, frozen: &Frozen) -> Groups {
    let mut groups = Groups::default();
    for (position, spec) in parameters.specs().iter().enumerate() {
        let kind = match spec.role {
            Role::Statistic => Kind::Statistic,
            Role::Bias | Role::Norm if decay == Decay::Weights => Kind::Plain,
            Role::Weight | Role::Bias | Role::Norm => Kind::Decayed,
        };
        let kind = frozen.kind(position, kind);
        match spec.shape[..] {
            // Affine weights (inputs, outputs), and filters (FN, C, FH, FW) with one row an output.
            [inputs, outputs] => groups.push_matrix(inputs, outputs, false, kind),
            [outputs, _, ..] => groups.push_matrix(outputs, spec.range.len() / outputs.max(1), true, kind),
            _ => groups.push(spec.range.len(), kind),
        }
    }
    groups
}

/// Runs `body` on a thread of the current pool, so that every parallel sweep inside begins there instead of being
/// injected from outside (which costs a hand-over and an allocation each time).
fn on_worker<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    rayon::scope(|_| body())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::NonFiniteArray;

    #[test]
    fn options_out_of_range_are_named() {
        let good = TrainOptions::default();
        good.validate().unwrap();
        let message = |options: TrainOptions| options.validate().unwrap_err().to_string();
        assert_eq!(message(TrainOptions { epochs: 0, ..good.clone() }), "epochs is 0; it must be at least 1");
        assert!(message(TrainOptions { batch: 0, ..good.clone() }).starts_with("batch is 0"));
        assert!(message(TrainOptions { log_every: 0, ..good.clone() }).starts_with("log_every is 0"));
        assert!(message(TrainOptions { evaluate_train: Some(0), ..good.clone() }).starts_with("evaluate_train is 0"));
        for learning_rate in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            let message = message(TrainOptions { learning_rate, ..good.clone() });
            assert!(message.starts_with("learning_rate is ") && message.contains("positive"), "{message}");
        }
        assert!(message(TrainOptions { average: Some(1.0), ..good.clone() }).starts_with("average is 1"));
        for label_smoothing in [-0.1, 1.0, f32::NAN] {
            let message = message(TrainOptions { label_smoothing, ..good.clone() });
            assert!(message.starts_with("label_smoothing is ") && message.contains("less than 1"), "{message}");
        }
        for clip in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            let message = message(TrainOptions { clip: Some(clip), ..good.clone() });
            assert!(message.starts_with("clip is ") && message.contains("positive"), "{message}");
        }
        let optimizer = OptimizerOptions::Momentum { momentum: 2.0, weight_decay: 0.0 };
        assert!(message(TrainOptions { optimizer, ..good.clone() }).contains("momentum of momentum is 2"));
        let schedule = Schedule::Cosine { warmup: 3.0 };
        assert!(message(TrainOptions { schedule, ..good }).contains("warmup of cosine is 3"));
    }

    #[test]
    fn options_survive_toml_and_json() {
        let options = TrainOptions {
            optimizer: OptimizerOptions::adamw(),
            schedule: Schedule::Cosine { warmup: 0.05 },
            average: Some(0.999),
            decay: Decay::Weights,
            label_smoothing: 0.1,
            clip: Some(1.5),
            keep: Keep::Best,
            ..TrainOptions::default()
        };
        let text = toml::to_string(&options).unwrap();
        assert_eq!(toml::from_str::<TrainOptions>(&text).unwrap(), options, "{text}");
        let text = serde_json::to_string(&options).unwrap();
        assert_eq!(serde_json::from_str::<TrainOptions>(&text).unwrap(), options, "{text}");
        assert_eq!(toml::from_str::<TrainOptions>("epochs = 20").unwrap(), TrainOptions::default());
        assert!(toml::from_str::<TrainOptions>("epoch = 20").is_err());
    }

    #[test]
    fn choices_are_words() {
        for choice in [Decay::All, Decay::Weights] {
            assert_eq!(choice.to_string().parse(), Ok(choice));
            assert_eq!(serde_json::to_value(choice).unwrap(), choice.to_string());
        }
        for choice in [Keep::Last, Keep::Best] {
            assert_eq!(choice.to_string().parse(), Ok(choice));
            assert_eq!(serde_json::to_value(choice).unwrap(), choice.to_string());
        }
        for choice in [Balance::None, Balance::Weights, Balance::Sampling] {
            assert_eq!(choice.to_string().parse(), Ok(choice));
            assert_eq!(serde_json::to_value(choice).unwrap(), choice.to_string());
        }
        let error = "biases".parse::<Decay>().unwrap_err();
        assert_eq!(error.to_string(), "decay is \"biases\"; it must be all or weights");
        assert!("first".parse::<Keep>().unwrap_err().to_string().contains("last or best"));
    }

    #[test]
    fn only_weights_are_decayed_where_asked() {
        let shapes = [("W1", vec![3, 2, 2, 2]), ("b1", vec![3]), ("W2", vec![3, 2]), ("b2", vec![2])];
        let parameters = Parameters::zeros(shapes.map(|(name, shape)| (name.into(), shape)).into()).unwrap();
        let groups = |parameters: &Parameters, decay| groups(parameters, decay, &Frozen::default());
        assert!(groups(&parameters, Decay::All).iter().eq([(0..35, Kind::Decayed)]));
        let expected = [(0..24, Kind::Decayed), (24..27, Kind::Plain), (27..33, Kind::Decayed), (33..35, Kind::Plain)];
        assert!(groups(&parameters, Decay::Weights).iter().eq(expected));
    }

    #[test]
    fn divergence_says_what_to_do() {
        let mut error = TrainError::Diverged {
            step: 12,
            epoch: 1,
            loss: f32::NAN,
            learning_rate: 0.001,
            first: Some(NonFinite { array: NonFiniteArray::Output("Conv1+Relu1".into()), value: f32::INFINITY }),
            restored_step: 10,
        };
        assert_eq!(
            error.to_string(),
            "training diverged after 12 steps, in epoch 1: the loss is NaN; the first number that is not \
             finite is in the output of layer Conv1+Relu1 (inf); lower the learning rate from 0.001, for example to 0.0001 (the network holds its weights of step 10 again)"
        );
        if let TrainError::Diverged { step, .. } = &mut error {
            *step = 0;
        }
        assert!(error.to_string().contains("before the first update"), "{error}");
    }

    #[test]
    fn the_first_bad_weight_is_named() {
        let mut parameters = Parameters::zeros(vec![("W1".into(), vec![2, 2]), ("b1".into(), vec![3])]).unwrap();
        assert_eq!(first_non_finite(&parameters), None);
        parameters.as_mut_slice().fill(f32::MAX);
        assert_eq!(first_non_finite(&parameters), None);
        parameters.as_mut_slice()[5] = f32::NEG_INFINITY;
        assert_eq!(first_non_finite(&parameters), Some(("b1", f32::NEG_INFINITY, 1)));
    }
}
