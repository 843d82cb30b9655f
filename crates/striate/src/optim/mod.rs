//! Optimizers: how the parameters follow the gradients (chapter 6), one file each, and learning-rate schedules.
//!
//! Every optimizer is one sweep over the flat parameter buffer, in fixed pieces of 16 Ki numbers shared among the
//! threads. Each number is updated on its own, so the result does not depend on how many threads there are. An update
//! allocates nothing; all state is reserved when the optimizer is built. [`Groups`] say which ranges weight decay acts
//! on, and which are not learnt at all.
//!
//! The definitions are PyTorch's; each file says where the book's differ.
//!
//! ```
//! use striate::optim::OptimizerOptions;
//! let mut optimizer = "momentum:momentum=0.5".parse::<OptimizerOptions>()?.build(2)?;
//! let mut parameters = [1.0, -1.0];
//! optimizer.update(0.25, &mut parameters, &[2.0, 0.0]);
//! assert_eq!(parameters, [0.5, -1.0]);
//! # Ok::<(), striate::optim::OptimError>(())
//! ```

mod adagrad;
mod adam;
mod adamw;
mod groups;
mod momentum;
mod muon;
mod nesterov;
mod rmsprop;
pub mod schedule;
mod sgd;

use crate::buffer::Buffer;
pub use adagrad::AdaGrad;
pub use adam::Adam;
pub use adamw::AdamW;
pub use groups::{Groups, Kind};
pub use momentum::Momentum;
pub use muon::Muon;
pub use nesterov::Nesterov;
pub use rmsprop::RmsProp;
pub use schedule::Schedule;
pub use sgd::Sgd;

use crate::settings;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Numbers in one piece of the sweep: 64 KiB a buffer, so that a piece of four buffers stays in the second-level cache.
/// Fixed, never a function of the thread count.
pub(crate) const CHUNK: usize = 16 * 1024;

/// Changes parameters by their gradients, and remembers what it needs for that.
pub trait Optimizer: fmt::Debug + Send {
    /// One step: moves every parameter by its gradient. Allocates nothing.
    ///
    /// # Panics
    /// Unless both slices have the length that the optimizer was built for.
    fn update(&mut self, learning_rate: f32, parameters: &mut [f32], gradients: &[f32]) {
        self.update_scaled(learning_rate, 1.0, parameters, gradients);
    }

    /// [`Optimizer::update`] as if every gradient were `scale` times as large, in the same sweep: for gradient clipping.
    /// A scale of 1 changes no bit; [`Kind::Statistic`] ranges are not scaled.
    ///
    /// # Panics
    /// As for [`Optimizer::update`].
    fn update_scaled(&mut self, learning_rate: f32, scale: f32, parameters: &mut [f32], gradients: &[f32]);

    /// Updates done so far.
    fn steps(&self) -> u64;

    /// What the optimizer remembers, by name: each as long as the parameters. With [`Optimizer::steps`], all that a
    /// checkpoint needs.
    fn state(&self) -> Vec<(&'static str, &[f32])>;

    /// Puts back what [`Optimizer::steps`] and [`Optimizer::state`] gave. Changes nothing on error.
    ///
    /// # Errors
    /// A missing, unknown or doubled name, another length, or values that no run can have left.
    fn restore(&mut self, steps: u64, state: &[(&str, &[f32])]) -> Result<(), OptimError>;
}

/// Which optimizer, with its hyper-parameters; the learning rate is given at each step.
///
/// Written `adam`, or with hyper-parameters `adam:beta1=0.8,beta2=0.99`; those left out have their usual values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase", deny_unknown_fields)]
pub enum OptimizerOptions {
    /// Stochastic gradient descent: see [`Sgd`].
    Sgd {
        /// Share of the weight added to its gradient; usually 0, or about 0.0005.
        #[serde(default)]
        weight_decay: f32,
    },
    /// Gradient descent with a velocity: see [`Momentum`].
    Momentum {
        /// Share of the velocity kept at each step; usually 0.9.
        #[serde(default = "default_momentum")]
        momentum: f32,
        /// Share of the weight added to its gradient; usually 0, or about 0.0005.
        #[serde(default)]
        weight_decay: f32,
    },
    /// Momentum with the gradient looked up ahead: see [`Nesterov`].
    Nesterov {
        /// Share of the velocity kept at each step; usually 0.9.
        #[serde(default = "default_momentum")]
        momentum: f32,
        /// Share of the weight added to its gradient; usually 0, or about 0.0005.
        #[serde(default)]
        weight_decay: f32,
    },
    /// Steps divided by the root of all squared gradients so far: see [`AdaGrad`].
    AdaGrad,
    /// AdaGrad that forgets: see [`RmsProp`].
    RmsProp {
        /// Share of the mean square kept at each step; usually 0.99.
        #[serde(default = "default_decay")]
        decay: f32,
    },
    /// Adaptive moments: see [`Adam`].
    Adam {
        /// Share of the mean gradient kept at each step; usually 0.9.
        #[serde(default = "default_beta1")]
        beta1: f32,
        /// Share of the mean square kept at each step; usually 0.999.
        #[serde(default = "default_beta2")]
        beta2: f32,
    },
    /// Adam with decoupled weight decay: see [`AdamW`].
    AdamW {
        /// Share of the mean gradient kept at each step; usually 0.9.
        #[serde(default = "default_beta1")]
        beta1: f32,
        /// Share of the mean square kept at each step; usually 0.999.
        #[serde(default = "default_beta2")]
        beta2: f32,
        /// Share of the weight, times the learning rate, taken off at each step; usually 0.01.
        #[serde(default = "default_weight_decay")]
        weight_decay: f32,
    },
    /// Momentum with orthogonal steps for matrices: see [`Muon`].
    Muon {
        /// Share of the velocity kept at each step; usually 0.95.
        #[serde(default = "default_muon_momentum")]
        momentum: f32,
        /// Share of the weight, times the learning rate, taken off at each step; usually 0.
        #[serde(default)]
        weight_decay: f32,
    },
}

/// What weight decay is called in every optimizer that has it.
const WEIGHT_DECAY: &str = "weight_decay";

fn default_momentum() -> f32 {
    0.9
}

fn default_muon_momentum() -> f32 {
    0.95
}

fn default_decay() -> f32 {
    0.99
}

fn default_beta1() -> f32 {
    0.9
}

fn default_beta2() -> f32 {
    0.999
}

fn default_weight_decay() -> f32 {
    0.01
}

impl Default for OptimizerOptions {
    /// [`OptimizerOptions::adam`], the chapter's choice.
    fn default() -> Self {
        Self::adam()
    }
}

impl OptimizerOptions {
    /// The names that `parse` knows.
    pub const NAMES: &[&str] = &["sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw", "muon"];

    /// [`Sgd`] without weight decay.
    pub const fn sgd() -> Self {
        Self::Sgd { weight_decay: 0.0 }
    }

    /// [`Momentum`] with 0.9, without weight decay.
    pub fn momentum() -> Self {
        Self::Momentum { momentum: default_momentum(), weight_decay: 0.0 }
    }

    /// [`Nesterov`] with momentum 0.9, without weight decay.
    pub fn nesterov() -> Self {
        Self::Nesterov { momentum: default_momentum(), weight_decay: 0.0 }
    }

    /// [`RmsProp`] with decay 0.99.
    pub fn rmsprop() -> Self {
        Self::RmsProp { decay: default_decay() }
    }

    /// [`Adam`] with betas 0.9 and 0.999.
    pub fn adam() -> Self {
        Self::Adam { beta1: default_beta1(), beta2: default_beta2() }
    }

    /// [`AdamW`] with betas 0.9 and 0.999 and weight decay 0.01.
    pub fn adamw() -> Self {
        Self::AdamW { beta1: default_beta1(), beta2: default_beta2(), weight_decay: default_weight_decay() }
    }

    /// [`Muon`] with momentum 0.95, without weight decay.
    pub fn muon() -> Self {
        Self::Muon { momentum: default_muon_momentum(), weight_decay: 0.0 }
    }

    /// The name, as `parse` takes it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sgd { .. } => "sgd",
            Self::Momentum { .. } => "momentum",
            Self::Nesterov { .. } => "nesterov",
            Self::AdaGrad => "adagrad",
            Self::RmsProp { .. } => "rmsprop",
            Self::Adam { .. } => "adam",
            Self::AdamW { .. } => "adamw",
            Self::Muon { .. } => "muon",
        }
    }

    /// A learning rate to begin with: 0.01 for the plain ones, 0.001 for those that scale every step to about the
    /// learning rate itself (RMSProp, Adam, AdamW), 0.02 for Muon.
    pub fn default_learning_rate(&self) -> f32 {
        match self {
            Self::Sgd { .. } | Self::Momentum { .. } | Self::Nesterov { .. } | Self::AdaGrad => 0.01,
            Self::RmsProp { .. } | Self::Adam { .. } | Self::AdamW { .. } => 0.001,
            Self::Muon { .. } => 0.02,
        }
    }

    /// The optimizer of this name with its usual hyper-parameters.
    fn by_name(name: &str) -> Result<Self, OptimError> {
        match name {
            "sgd" => Ok(Self::sgd()),
            "momentum" => Ok(Self::momentum()),
            "nesterov" => Ok(Self::nesterov()),
            "adagrad" => Ok(Self::AdaGrad),
            "rmsprop" => Ok(Self::rmsprop()),
            "adam" => Ok(Self::adam()),
            "adamw" => Ok(Self::adamw()),
            "muon" => Ok(Self::muon()),
            _ => Err(OptimError::Unknown { what: "optimizer", name: name.into(), known: Self::NAMES.join(", ") }),
        }
    }

    /// The hyper-parameters by name, to read or change: the one list that validation, parsing and display share.
    fn fields(&mut self) -> Vec<(&'static str, &mut f32)> {
        match self {
            Self::AdaGrad => vec![],
            Self::Sgd { weight_decay } => vec![("weight_decay", weight_decay)],
            Self::Momentum { momentum, weight_decay }
            | Self::Nesterov { momentum, weight_decay }
            | Self::Muon { momentum, weight_decay } => {
                vec![("momentum", momentum), ("weight_decay", weight_decay)]
            }
            Self::RmsProp { decay } => vec![("decay", decay)],
            Self::Adam { beta1, beta2 } => vec![("beta1", beta1), ("beta2", beta2)],
            Self::AdamW { beta1, beta2, weight_decay } => {
                vec![("beta1", beta1), ("beta2", beta2), ("weight_decay", weight_decay)]
            }
        }
    }

    /// How many numbers of state there are for each parameter.
    pub(crate) fn arrays(&self) -> usize {
        match self {
            Self::Sgd { .. } => 0,
            Self::Momentum { .. }
            | Self::Nesterov { .. }
            | Self::Muon { .. }
            | Self::AdaGrad
            | Self::RmsProp { .. } => 1,
            Self::Adam { .. } | Self::AdamW { .. } => 2,
        }
    }

    /// Whether every hyper-parameter is in its range.
    ///
    /// # Errors
    /// The first that is not: momentum, decay and betas must be in [0, 1), the weight decay finite and not negative.
    pub fn validate(&self) -> Result<(), OptimError> {
        let mut options = *self;
        for (field, &mut value) in options.fields() {
            let (fits, expected) = if field == WEIGHT_DECAY {
                (value.is_finite() && value >= 0.0, "0 or a positive number")
            } else {
                ((0.0..1.0).contains(&value), "at least 0 and less than 1")
            };
            if !fits {
                return Err(OptimError::Option { of: self.name(), field, found: value.to_string(), expected });
            }
        }
        Ok(())
    }

    /// The same optimizer with this weight decay.
    ///
    /// ```
    /// use striate::optim::OptimizerOptions;
    /// assert_eq!(OptimizerOptions::sgd().with_weight_decay(0.1)?.to_string(), "sgd:weight_decay=0.1");
    /// # Ok::<(), striate::optim::OptimError>(())
    /// ```
    ///
    /// # Errors
    /// An optimizer that has none, or a decay out of its range.
    pub fn with_weight_decay(mut self, weight_decay: f32) -> Result<Self, OptimError> {
        let of = self.name();
        let mut fields = self.fields();
        let (_, place) = fields.iter_mut().find(|(field, _)| *field == WEIGHT_DECAY).ok_or(OptimError::Option {
            of,
            field: WEIGHT_DECAY,
            found: weight_decay.to_string(),
            expected: "left out, because this optimizer has none; adamw, muon, sgd, momentum and nesterov do",
        })?;
        **place = weight_decay;
        self.validate()?;
        Ok(self)
    }

    /// The optimizer for `len` parameters, weight decay on all, its state zero.
    ///
    /// # Errors
    /// As for [`OptimizerOptions::validate`], or memory that can't be had.
    pub fn build(&self, len: usize) -> Result<Box<dyn Optimizer>, OptimError> {
        self.build_grouped(&len.into())
    }

    /// The optimizer for parameters of several kinds, its state zero.
    ///
    /// # Errors
    /// As for [`OptimizerOptions::build`].
    pub fn build_grouped(&self, groups: &Groups) -> Result<Box<dyn Optimizer>, OptimError> {
        Ok(match *self {
            Self::Sgd { weight_decay } => Box::new(Sgd::new(weight_decay, groups)?),
            Self::Momentum { momentum, weight_decay } => Box::new(Momentum::new(momentum, weight_decay, groups)?),
            Self::Nesterov { momentum, weight_decay } => Box::new(Nesterov::new(momentum, weight_decay, groups)?),
            Self::Muon { momentum, weight_decay } => Box::new(Muon::new(momentum, weight_decay, groups)?),
            Self::AdaGrad => Box::new(AdaGrad::new(groups)?),
            Self::RmsProp { decay } => Box::new(RmsProp::new(decay, groups)?),
            Self::Adam { beta1, beta2 } => Box::new(Adam::new(beta1, beta2, groups)?),
            Self::AdamW { beta1, beta2, weight_decay } => Box::new(AdamW::new(beta1, beta2, weight_decay, groups)?),
        })
    }
}

impl fmt::Display for OptimizerOptions {
    /// What `parse` reads back: the name, and the hyper-parameters that are not the usual ones.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut these, mut usual) = (*self, Self::by_name(self.name()).map_err(|_| fmt::Error)?);
        settings::write(f, self.name(), ',', these.fields(), usual.fields())
    }
}

impl FromStr for OptimizerOptions {
    type Err = OptimError;

    /// Reads `name` or `name:field=value,field=value`, and validates.
    fn from_str(text: &str) -> Result<Self, OptimError> {
        let (name, settings) = settings::split(text, ',');
        let mut options = Self::by_name(name)?;
        let of = options.name();
        for setting in settings {
            let (field, value) = setting.map_err(|setting| not_a_setting(of, setting))?;
            let (field, place) = settings::find(options.fields(), field).map_err(|known| OptimError::Unknown {
                what: "hyper-parameter",
                name: field.into(),
                known: if known.is_empty() { format!("none for {of}") } else { known },
            })?;
            *place = number(of, field, value)?;
        }
        options.validate()?;
        Ok(options)
    }
}

/// A setting of an optimizer or a schedule that is none.
fn not_a_setting(of: &'static str, setting: &str) -> OptimError {
    let expected = "written field=value, with commas between";
    OptimError::Option { of, field: "settings", found: format!("{setting:?}"), expected }
}

/// The value of one setting.
fn number(of: &'static str, field: &'static str, value: &str) -> Result<f32, OptimError> {
    value.parse().map_err(|_| OptimError::Option { of, field, found: format!("{value:?}"), expected: "a number" })
}

/// What is wrong with an optimizer's or schedule's options or state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OptimError {
    /// A name that nothing has.
    #[error("there is no {what} {name:?}; known: {known}")]
    Unknown {
        /// Optimizer, schedule or hyper-parameter.
        what: &'static str,
        /// What was asked for.
        name: String,
        /// What could have been asked for.
        known: String,
    },
    /// A hyper-parameter outside its range.
    #[error("{field} of {of} is {found}; it must be {expected}")]
    Option {
        /// The optimizer or schedule.
        of: &'static str,
        /// Its hyper-parameter.
        field: &'static str,
        /// What was given.
        found: String,
        /// What is allowed.
        expected: &'static str,
    },
    /// State that does not belong to this optimizer.
    #[error("optimizer state {field:?}: found {found}, expected {expected}; the checkpoint is of another model or run")]
    State {
        /// Which array.
        field: String,
        /// What was given.
        found: String,
        /// What is needed.
        expected: String,
    },
    /// Memory can't be had.
    #[error("{bytes} bytes of memory for the optimizer's state could not be had; use a smaller model, or sgd")]
    OutOfMemory {
        /// How much.
        bytes: usize,
    },
}

/// A zeroed buffer, reserved fallibly.
fn zeros(len: usize) -> Result<Buffer, OptimError> {
    Buffer::zeros(len).map_err(|_| OptimError::OutOfMemory { bytes: len.saturating_mul(size_of::<f32>()) })
}

/// Which values an array of state can hold.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sign {
    Any,
    /// Means or sums of squares.
    NotNegative,
}

/// Copies `state` over `arrays`, after all of it has been found right.
fn restore_arrays(arrays: &mut [(&'static str, Sign, &mut [f32])], state: &[(&str, &[f32])]) -> Result<(), OptimError> {
    for (position, (name, _)) in state.iter().enumerate() {
        let doubled = state[..position].iter().any(|(other, _)| other == name);
        if doubled || !arrays.iter().any(|(known, ..)| known == name) {
            let known = arrays.iter().map(|(known, ..)| *known).collect::<Vec<_>>().join(", ");
            return Err(OptimError::State {
                field: (*name).into(),
                found: if doubled { "it twice" } else { "an array of this name" }.into(),
                expected: if known.is_empty() { "no state at all".into() } else { format!("{known}, once each") },
            });
        }
    }
    for (name, sign, target) in arrays.iter() {
        let wrong = |found: String, expected: String| OptimError::State { field: (*name).into(), found, expected };
        let (_, source) = state
            .iter()
            .find(|(given, _)| given == name)
            .ok_or_else(|| wrong("nothing".into(), format!("{} numbers", target.len())))?;
        if source.len() != target.len() {
            return Err(wrong(format!("{} numbers", source.len()), format!("{}", target.len())));
        }
        let bad = |v: &&f32| !v.is_finite() || (*sign == Sign::NotNegative && **v < 0.0);
        if let Some(value) = source.iter().find(bad) {
            let expected = if *sign == Sign::Any { "finite numbers" } else { "finite numbers of at least 0" };
            return Err(wrong(value.to_string(), expected.into()));
        }
    }
    for (name, _, target) in arrays.iter_mut() {
        if let Some((_, source)) = state.iter().find(|(given, _)| given == name) {
            target.copy_from_slice(source);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, Random};
    use proptest::prelude::*;

    fn all() -> Vec<OptimizerOptions> {
        OptimizerOptions::NAMES.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn names_are_read_and_written() {
        for (options, name) in all().into_iter().zip(OptimizerOptions::NAMES) {
            assert_eq!(options.to_string(), *name);
            assert_eq!(options.name(), *name);
            let json = serde_json::to_value(options).unwrap();
            assert_eq!(json["name"], *name);
            assert_eq!(serde_json::from_value::<OptimizerOptions>(json).unwrap(), options);
            assert_eq!(serde_json::from_str::<OptimizerOptions>(&format!("{{\"name\":{name:?}}}")).unwrap(), options);
        }
        let adamw: OptimizerOptions = "adamw:weight_decay=0.1,beta1=0.8".parse().unwrap();
        assert_eq!(adamw, OptimizerOptions::AdamW { beta1: 0.8, beta2: 0.999, weight_decay: 0.1 });
        assert_eq!(adamw.to_string(), "adamw:beta1=0.8,weight_decay=0.1");
    }

    #[test]
    fn options_out_of_range_are_named() {
        let message = |text: &str| text.parse::<OptimizerOptions>().unwrap_err().to_string();
        assert_eq!(
            message("adam2"),
            "there is no optimizer \"adam2\"; known: sgd, momentum, nesterov, adagrad, rmsprop, adam, adamw, muon"
        );
        assert_eq!(message("adam:beta2=1"), "beta2 of adam is 1; it must be at least 0 and less than 1");
        assert!(message("momentum:momentum=NaN").contains("momentum of momentum is NaN"));
        assert!(message("adamw:weight_decay=-1").contains("0 or a positive number"));
        assert!(message("adamw:weight_decay=inf").contains("inf"));
        assert!(message("adam:gamma=1").contains("known: beta1, beta2"));
        assert!(message("sgd:gamma=1").contains("known: weight_decay"));
        assert!(message("adagrad:gamma=1").contains("none for adagrad"));
        assert!(
            message("sgd:weight_decay=-1").contains("weight_decay of sgd is -1; it must be 0 or a positive number")
        );
        let none = OptimizerOptions::adam().with_weight_decay(0.1).unwrap_err().to_string();
        assert!(none.contains("weight_decay of adam is 0.1") && none.contains("adamw"), "{none}");
        assert!(OptimizerOptions::adamw().with_weight_decay(f32::NAN).is_err());
        assert!(message("rmsprop:decay").contains("field=value"));
        assert!(message("rmsprop:decay=much").contains("\"much\""));
        assert!(serde_json::from_str::<OptimizerOptions>(r#"{"name":"adam","beta3":0.1}"#).is_err());
        for options in [
            OptimizerOptions::Momentum { momentum: 1.0, weight_decay: 0.0 },
            OptimizerOptions::Sgd { weight_decay: -1.0 },
            OptimizerOptions::Nesterov { momentum: -0.1, weight_decay: 0.0 },
            OptimizerOptions::RmsProp { decay: f32::NAN },
            OptimizerOptions::Adam { beta1: 0.9, beta2: 2.0 },
            OptimizerOptions::AdamW { beta1: 1.0, beta2: 0.9, weight_decay: 0.0 },
        ] {
            assert!(matches!(options.build(3), Err(OptimError::Option { .. })), "{options:?}");
        }
    }

    #[test]
    fn memory_that_cannot_be_had_is_an_error() {
        assert!(matches!(OptimizerOptions::adam().build(usize::MAX / 8), Err(OptimError::OutOfMemory { .. })));
    }

    #[test]
    fn every_optimizer_finds_the_bottom_of_a_bowl() {
        // f(w) = sum of curvature/2 * (w - target)^2, curvatures from 0.5 to 4.
        let curvature = [0.5, 1.0, 2.0, 4.0];
        let target = [1.0, -2.0, 0.5, 3.0];
        for options in all() {
            let rate = match options {
                OptimizerOptions::AdaGrad => 0.5,
                OptimizerOptions::Sgd { .. } => 0.1,
                _ => 0.02,
            };
            let steps = 2000;
            let mut weights = [0.0f32; 4];
            let mut optimizer = options.build(4).unwrap();
            for step in 0..steps {
                let gradients: Vec<f32> = (0..4).map(|i| curvature[i] * (weights[i] - target[i])).collect();
                let rate = rate * Schedule::Cosine { warmup: 0.05 }.rate(step, steps);
                optimizer.update(rate, &mut weights, &gradients);
            }
            assert_eq!(optimizer.steps(), steps);
            for (weight, target) in weights.iter().zip(target) {
                // AdamW's decay pulls the bottom towards 0 by its share of the adaptive step.
                assert!((weight - target).abs() < 0.02, "{options}: {weights:?}");
            }
        }
    }

    #[test]
    fn the_bits_do_not_depend_on_the_number_of_threads() {
        let len = 3 * CHUNK + 1234;
        let random = Random::new(5, Purpose::Test, 0);
        let start: Vec<f32> = (0..len as u64).map(|i| random.normal(i)).collect();
        let gradient = |step: u64| -> Vec<f32> {
            let random = Random::new(5, Purpose::Test, step);
            (0..len as u64).map(|i| random.normal(i) * 0.1).collect()
        };
        let gradients: Vec<Vec<f32>> = (1..5).map(gradient).collect();
        for options in all() {
            let run = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| {
                    let mut weights = start.clone();
                    let mut optimizer = options.build(len).unwrap();
                    for g in &gradients {
                        optimizer.update(0.01, &mut weights, g);
                    }
                    weights.iter().map(|w| w.to_bits()).collect::<Vec<_>>()
                })
            };
            let one = run(1);
            assert_eq!(one, run(2), "{options}");
            assert_eq!(one, run(3), "{options}");
        }
    }

    #[test]
    fn a_restored_optimizer_goes_on_as_if_nothing_had_happened() {
        let gradient =
            |step: u64| -> Vec<f32> { (0..7).map(|i| Random::new(9, Purpose::Test, step).normal(i)).collect() };
        for options in all() {
            let mut weights = vec![0.5f32; 7];
            let mut optimizer = options.build(7).unwrap();
            for step in 0..3 {
                optimizer.update(0.1, &mut weights, &gradient(step));
            }
            let mut other_weights = weights.clone();
            let mut other = options.build(7).unwrap();
            other.restore(optimizer.steps(), &optimizer.state()).unwrap();
            for step in 3..6 {
                optimizer.update(0.1, &mut weights, &gradient(step));
                other.update(0.1, &mut other_weights, &gradient(step));
            }
            assert_eq!(weights, other_weights, "{options}");
            assert_eq!(other.steps(), 6);
        }
    }

    #[test]
    fn foreign_state_is_refused_and_nothing_changes() {
        let mut adam = OptimizerOptions::adam().build(2).unwrap();
        adam.update(0.1, &mut [1.0, 1.0], &[1.0, 2.0]);
        let before: Vec<Vec<f32>> = adam.state().iter().map(|(_, values)| values.to_vec()).collect();
        let good: &[f32] = &[0.5, 0.5];
        let bad: [&[(&str, &[f32])]; 7] = [
            &[("mean", good)],
            &[("mean", good), ("mean_square", &[1.0])],
            &[("mean", good), ("mean_square", &[1.0, -1.0])],
            &[("mean", &[f32::NAN, 0.0]), ("mean_square", good)],
            &[("mean", good), ("mean_square", good), ("velocity", good)],
            &[("mean", good), ("mean", good)],
            &[],
        ];
        for state in bad {
            assert!(matches!(adam.restore(9, state), Err(OptimError::State { .. })), "{state:?}");
            assert_eq!(adam.steps(), 1);
            assert!(adam.state().iter().map(|(_, values)| *values).eq(before.iter().map(Vec::as_slice)));
        }
        adam.restore(9, &[("mean_square", good), ("mean", good)]).unwrap();
        assert_eq!(adam.steps(), 9);
        assert!(OptimizerOptions::sgd().build(2).unwrap().restore(1, &[("mean", good)]).is_err());
    }

    #[test]
    fn moments_of_dead_units_end_at_zero() {
        for options in all().into_iter().filter(|o| !matches!(o, OptimizerOptions::AdaGrad)) {
            let mut optimizer = options.build(1).unwrap();
            let mut weights = [1.0];
            optimizer.update(1e-3, &mut weights, &[1e-5]);
            for _ in 0..100_000 {
                optimizer.update(1e-3, &mut weights, &[0.0]);
            }
            assert!(optimizer.state().iter().all(|(_, values)| values[0] == 0.0), "{options}");
        }
    }

    #[test]
    #[should_panic(expected = "an optimizer for 3 parameters was given 2 of them")]
    fn other_lengths_are_a_bug_of_the_caller() {
        OptimizerOptions::sgd().build(3).unwrap().update(0.1, &mut [0.0; 2], &[0.0; 2]);
    }

    proptest! {
        #[test]
        fn what_is_displayed_is_read_back(name in 0..OptimizerOptions::NAMES.len(), a in 0.0f32..1.0, b in 0.0f32..1.0, c in 0.0f32..10.0) {
            let mut options: OptimizerOptions = OptimizerOptions::NAMES[name].parse().unwrap();
            for ((_, place), value) in options.fields().into_iter().zip([a, b, c]) {
                *place = value;
            }
            prop_assert_eq!(options.to_string().parse::<OptimizerOptions>().unwrap(), options);
            let json = serde_json::to_string(&options).unwrap();
            prop_assert_eq!(serde_json::from_str::<OptimizerOptions>(&json).unwrap(), options);
        }

        #[test]
        fn each_parameter_is_updated_on_its_own(
            name in 0..OptimizerOptions::NAMES.len(),
            values in proptest::collection::vec((-2.0f32..2.0, -2.0f32..2.0, -2.0f32..2.0), 1..40),
        ) {
            let options: OptimizerOptions = OptimizerOptions::NAMES[name].parse().unwrap();
            let mut together: Vec<f32> = values.iter().map(|v| v.0).collect();
            let mut optimizer = options.build(values.len()).unwrap();
            optimizer.update(0.01, &mut together, &values.iter().map(|v| v.1).collect::<Vec<_>>());
            optimizer.update(0.01, &mut together, &values.iter().map(|v| v.2).collect::<Vec<_>>());
            for (v, together) in values.iter().zip(together) {
                let mut alone = [v.0];
                let mut optimizer = options.build(1).unwrap();
                optimizer.update(0.01, &mut alone, &[v.1]);
                optimizer.update(0.01, &mut alone, &[v.2]);
                prop_assert_eq!(alone[0].to_bits(), together.to_bits());
            }
        }

        #[test]
        fn the_first_step_goes_downhill_and_no_gradient_is_no_step(
            name in 0..OptimizerOptions::NAMES.len(), weight in -2.0f32..2.0, gradient in 0.01f32..10.0, sign in proptest::bool::ANY,
        ) {
            let mut options: OptimizerOptions = OptimizerOptions::NAMES[name].parse().unwrap();
            if let OptimizerOptions::AdamW { weight_decay, .. } = &mut options {
                *weight_decay = 0.0;
            }
            let gradient = if sign { gradient } else { -gradient };
            let mut weights = [weight, weight];
            options.build(2).unwrap().update(0.01, &mut weights, &[gradient, 0.0]);
            prop_assert!((weights[0] < weight) == (gradient > 0.0) && weights[0] != weight);
            prop_assert_eq!(weights[1], weight);
        }
    }
}
