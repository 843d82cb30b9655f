//! How the learning rate changes over a run.

use super::{OptimError, not_a_setting, number};
use crate::settings;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A factor on the learning rate for every step of a run.
///
/// All lengths are shares of the run, so that a schedule fits runs of any length. Each can begin with a warm-up: a
/// straight line up to 1 over that share of the steps. Written `cosine:warmup=0.05`, `step:every=0.3,factor=0.1`,
/// `milestones:at=0.5/0.75`, `onecycle:peak=0.3,start=0.04,end=0.0001`; what is left out has its usual value.
///
/// ```
/// use striate::optim::Schedule;
/// let schedule = Schedule::Cosine { warmup: 0.1 };
/// assert_eq!(schedule.rate(4, 100), 0.5); // half-way up
/// assert_eq!(schedule.rate(10, 100), 1.0); // the top
/// assert!((schedule.rate(55, 100) - 0.5).abs() < 1e-6); // half-way down
///
/// let schedule: Schedule = "milestones:at=0.5/0.75,factor=0.5".parse()?;
/// assert_eq!([0, 49, 50, 75].map(|step| schedule.rate(step, 100)), [1.0, 1.0, 0.5, 0.25]);
/// # Ok::<(), striate::optim::OptimError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase", deny_unknown_fields)]
pub enum Schedule {
    /// 1 at every step after the warm-up: the book's.
    Constant {
        /// Share of all steps spent going up, in [0, 1).
        #[serde(default, skip_serializing_if = "is_zero")]
        warmup: f32,
    },
    /// A straight line up to 1, then half a cosine down to nearly 0 (Loshchilov and Hutter, 2017, without restarts).
    Cosine {
        /// Share of all steps spent going up, in [0, 1).
        #[serde(default)]
        warmup: f32,
    },
    /// Times `factor` at the end of every share `every` of the run.
    Step {
        /// Share of all steps between two changes, in (0, 1]; 0.3 if left out.
        #[serde(default = "default_every")]
        every: f32,
        /// What each change multiplies the rate by, in (0, 1]; 0.1 if left out.
        #[serde(default = "default_factor")]
        factor: f32,
        /// Share of all steps spent going up, in [0, 1).
        #[serde(default)]
        warmup: f32,
    },
    /// Times `factor` at chosen moments: `at = [0.5, 0.75]` is the deep residual networks' (He et al., 2016).
    Milestones {
        /// When, as shares of all steps: each in (0, 1), and larger than the one before.
        #[serde(default = "default_milestones")]
        at: Vec<f32>,
        /// What each change multiplies the rate by, in (0, 1]; 0.1 if left out.
        #[serde(default = "default_factor")]
        factor: f32,
        /// Share of all steps spent going up, in [0, 1).
        #[serde(default)]
        warmup: f32,
    },
    /// A straight line up from `start` to 1, then a straight line down to `end` at the last step (Smith and Topin, 2018,
    /// "Super-convergence"; PyTorch's `OneCycleLR` with linear annealing).
    OneCycle {
        /// Share of all steps spent going up, in [0, 1): this schedule's warm-up, and `warmup` is another name for it;
        /// 0.3 if left out.
        #[serde(default = "default_peak", alias = "warmup")]
        peak: f32,
        /// The factor at the first step, in [0, 1]; 0.04 if left out.
        #[serde(default = "default_start")]
        start: f32,
        /// The factor at the last step, in [0, 1]; 0.0001 if left out.
        #[serde(default = "default_end")]
        end: f32,
    },
    /// From `start` at the first step to `end` at the last, each step by the same factor (PyTorch's `ExponentialLR`).
    Exponential {
        /// The factor at the first step, in (0, 1]; 1 if left out.
        #[serde(default = "one")]
        start: f32,
        /// The factor at the last step, in (0, 1]; 0.01 if left out.
        #[serde(default = "default_last")]
        end: f32,
    },
}

fn one() -> f32 {
    1.0
}

fn default_last() -> f32 {
    0.01
}

fn is_zero(value: &f32) -> bool {
    *value == 0.0
}

fn default_every() -> f32 {
    0.3
}

fn default_factor() -> f32 {
    0.1
}

fn default_milestones() -> Vec<f32> {
    vec![0.5, 0.75]
}

fn default_peak() -> f32 {
    0.3
}

fn default_start() -> f32 {
    0.04
}

fn default_end() -> f32 {
    1e-4
}

impl Default for Schedule {
    /// [`Schedule::constant`].
    fn default() -> Self {
        Self::constant()
    }
}

impl Schedule {
    /// The names that `parse` knows.
    pub const NAMES: &[&str] = &["constant", "cosine", "step", "milestones", "onecycle", "exponential"];

    /// 1 at every step.
    pub const fn constant() -> Self {
        Self::Constant { warmup: 0.0 }
    }

    /// The name, as `parse` takes it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Constant { .. } => "constant",
            Self::Cosine { .. } => "cosine",
            Self::Step { .. } => "step",
            Self::Milestones { .. } => "milestones",
            Self::OneCycle { .. } => "onecycle",
            Self::Exponential { .. } => "exponential",
        }
    }

    /// The factor for step `step` (from 0) of `total`; past the end it stays what it has become.
    ///
    /// A warm-up ends with 1 at its last step. The cosine begins with 1 at the first step after it and would reach 0 at
    /// step `total`, so that the last step of all still moves a little. Moments are rounded to whole steps.
    pub fn rate(&self, step: u64, total: u64) -> f32 {
        let steps = |share: f32| (f64::from(share) * total as f64).round() as u64;
        // The way up of all but the one-cycle schedule, which has its own.
        let climb = |warmup: f32| {
            let up = steps(warmup);
            if step < up { (step + 1) as f64 / up as f64 } else { 1.0 }
        };
        let drops = |factor: f32, count: u64| f64::from(factor).powf(count as f64);
        let rate = match self {
            Self::Constant { warmup } => climb(*warmup),
            Self::Cosine { warmup } => {
                let up = steps(*warmup);
                if step < up {
                    climb(*warmup)
                } else if step >= total {
                    0.0
                } else {
                    let progress = (step - up) as f64 / (total - up) as f64;
                    0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
                }
            }
            Self::Step { every, factor, warmup } => climb(*warmup) * drops(*factor, step / steps(*every).max(1)),
            Self::Milestones { at, factor, warmup } => {
                let passed = at.iter().filter(|&&moment| step >= steps(moment)).count();
                climb(*warmup) * drops(*factor, passed as u64)
            }
            Self::OneCycle { peak, start, end } => {
                // Both ends are steps that are taken, so lines run between the numbers of steps less one.
                let last = total.saturating_sub(1) as f64;
                let top = (f64::from(*peak) * total as f64 - 1.0).clamp(0.0, last);
                let now = (step as f64).min(last);
                let between = |from: f64, to: f64, share: f64| from + (to - from) * share;
                if now < top {
                    between(f64::from(*start), 1.0, now / top)
                } else if last > top {
                    between(1.0, f64::from(*end), (now - top) / (last - top))
                } else {
                    1.0
                }
            }
            Self::Exponential { start, end } => {
                let last = total.saturating_sub(1).max(1) as f64;
                let (start, end) = (f64::from(*start), f64::from(*end));
                start * (end / start).powf((step as f64 / last).min(1.0))
            }
        };
        rate as f32
    }

    /// The schedule of this name with its usual settings.
    fn by_name(name: &str) -> Result<Self, OptimError> {
        let (warmup, factor) = (0.0, default_factor());
        match name {
            "constant" => Ok(Self::constant()),
            "cosine" => Ok(Self::Cosine { warmup }),
            "step" => Ok(Self::Step { every: default_every(), factor, warmup }),
            "milestones" => Ok(Self::Milestones { at: default_milestones(), factor, warmup }),
            "onecycle" => Ok(Self::OneCycle { peak: default_peak(), start: default_start(), end: default_end() }),
            "exponential" => Ok(Self::Exponential { start: one(), end: default_last() }),
            _ => Err(OptimError::Unknown { what: "schedule", name: name.into(), known: Self::NAMES.join(", ") }),
        }
    }

    /// The settings by name, to read or change: the one list that validation, parsing and display share.
    fn fields(&mut self) -> Vec<(&'static str, Field<'_>)> {
        use Field::{Moments, Number};
        match self {
            Self::Constant { warmup } | Self::Cosine { warmup } => vec![("warmup", Number(warmup))],
            Self::Step { every, factor, warmup } => {
                vec![("every", Number(every)), ("factor", Number(factor)), ("warmup", Number(warmup))]
            }
            Self::Milestones { at, factor, warmup } => {
                vec![("at", Moments(at)), ("factor", Number(factor)), ("warmup", Number(warmup))]
            }
            Self::Exponential { start, end } => vec![("start", Number(start)), ("end", Number(end))],
            Self::OneCycle { peak, start, end } => {
                vec![("peak", Number(peak)), ("start", Number(start)), ("end", Number(end))]
            }
        }
    }

    /// Whether every setting is in its range.
    ///
    /// # Errors
    /// The first that is not.
    pub fn validate(&self) -> Result<(), OptimError> {
        let of = self.name();
        for (field, value) in self.clone().fields() {
            let (fits, expected) = match (field, &value) {
                ("warmup" | "peak", Field::Number(v)) => {
                    ((0.0..1.0).contains(*v), "a share of all steps: at least 0 and less than 1")
                }
                ("start" | "end", Field::Number(v)) if of == "onecycle" => ((0.0..=1.0).contains(*v), "from 0 to 1"),
                (_, Field::Number(v)) => (**v > 0.0 && **v <= 1.0, "more than 0 and at most 1"),
                (_, Field::Moments(at)) => (
                    !at.is_empty() && at.iter().all(|v| *v > 0.0 && *v < 1.0) && at.is_sorted_by(|a, b| a < b),
                    "shares of all steps between 0 and 1, each larger than the one before, such as 0.5/0.75",
                ),
            };
            if !fits {
                return Err(OptimError::Option { of, field, found: value.to_string(), expected });
            }
        }
        Ok(())
    }
}

/// One setting of a schedule.
enum Field<'a> {
    Number(&'a mut f32),
    Moments(&'a mut Vec<f32>),
}

impl fmt::Display for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(value) => write!(f, "{value}"),
            Self::Moments(at) if at.is_empty() => f.write_str("empty"),
            Self::Moments(at) => f.write_str(&at.iter().map(f32::to_string).collect::<Vec<_>>().join("/")),
        }
    }
}

impl fmt::Display for Schedule {
    /// What `parse` reads back: the name, and the settings that are not the usual ones.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut these, mut usual) = (self.clone(), Self::by_name(self.name()).map_err(|_| fmt::Error)?);
        settings::write(f, self.name(), ',', these.fields(), usual.fields())
    }
}

impl FromStr for Schedule {
    type Err = OptimError;

    /// Reads `name` or `name:field=value,field=value`, moments as `0.5/0.75`, and validates.
    fn from_str(text: &str) -> Result<Self, OptimError> {
        let (name, settings) = settings::split(text, ',');
        let mut schedule = Self::by_name(name)?;
        let of = schedule.name();
        for setting in settings {
            let (given, value) = setting.map_err(|setting| not_a_setting(of, setting))?;
            let given = if of == "onecycle" && given == "warmup" { "peak" } else { given };
            let (field, place) = settings::find(schedule.fields(), given).map_err(|known| OptimError::Unknown {
                what: "setting",
                name: given.into(),
                known,
            })?;
            match place {
                Field::Number(place) => *place = number(of, field, value)?,
                Field::Moments(place) => {
                    *place = value.split('/').map(|v| number(of, field, v)).collect::<Result<_, _>>()?;
                }
            }
        }
        schedule.validate()?;
        Ok(schedule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rates<const N: usize>(schedule: &str, total: u64, steps: [u64; N]) -> [f32; N] {
        let schedule: Schedule = schedule.parse().unwrap();
        steps.map(|step| schedule.rate(step, total))
    }

    #[test]
    fn known_values() {
        assert!([0, 7, 1000].iter().all(|&step| Schedule::constant().rate(step, 10) == 1.0));
        let cosine = Schedule::Cosine { warmup: 0.0 };
        let expected = [1.0, 0.853_553_4, 0.5, 0.146_446_6];
        for (step, expected) in expected.into_iter().enumerate() {
            assert!((cosine.rate(step as u64, 4) - expected).abs() < 1e-6);
        }
        assert_eq!(cosine.rate(4, 4), 0.0);
        let warm = Schedule::Cosine { warmup: 0.25 };
        assert_eq!([0, 1, 2, 3, 4].map(|step| warm.rate(step, 16)), [0.25, 0.5, 0.75, 1.0, 1.0]);
        assert!((warm.rate(10, 16) - 0.5).abs() < 1e-6);
        assert!(warm.rate(15, 16) < 0.02);
    }

    #[test]
    fn known_values_of_the_others() {
        assert_eq!(rates("constant:warmup=0.5", 4, [0, 1, 2, 3]), [0.5, 1.0, 1.0, 1.0]);
        assert_eq!(rates("step:every=0.25,factor=0.5", 8, [0, 1, 2, 3, 4, 7]), [1.0, 1.0, 0.5, 0.5, 0.25, 0.125]);
        // 0.3 as f32 is a little more than 0.3; the third step of ten is the first of the second part all the same.
        assert_eq!(rates("step:factor=0.5", 10, [2, 3, 5, 6, 9]), [1.0, 0.5, 0.5, 0.25, 0.125]);
        assert_eq!(rates("step:every=0.01,factor=0.5", 3, [0, 1, 2]), [1.0, 0.5, 0.25]);
        assert_eq!(
            rates("step:every=0.5,factor=0.5,warmup=0.5", 8, [0, 1, 2, 3, 4, 7]),
            [0.25, 0.5, 0.75, 1.0, 0.5, 0.5]
        );
        assert_eq!(rates("milestones:at=0.5/0.75,factor=0.5", 8, [0, 3, 4, 5, 6, 7]), [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]);
        assert_eq!(rates("milestones:at=0.5,factor=0.5,warmup=0.25", 8, [0, 1, 2, 4]), [0.5, 1.0, 1.0, 0.5]);
        // Up from 0.25 at step 0 to 1 at step 3, down to 0.5 at step 7.
        assert_eq!(
            rates("onecycle:peak=0.5,start=0.25,end=0.5", 8, [0, 1, 2, 3, 4, 5, 6, 7, 8, 99]),
            [0.25, 0.5, 0.75, 1.0, 0.875, 0.75, 0.625, 0.5, 0.5, 0.5]
        );
        // Without a way up, and runs too short for one.
        assert_eq!(rates("onecycle:peak=0,end=0", 5, [0, 1, 2, 3, 4]), [1.0, 0.75, 0.5, 0.25, 0.0]);
        assert_eq!(rates("onecycle", 1, [0, 1]), [1.0, 1.0]);
        assert_eq!(rates("exponential:start=0.25,end=1", 3, [0, 1, 2, 9]), [0.25, 0.5, 1.0, 1.0]);
        assert_eq!(rates("exponential", 1, [0]), [1.0]);
        assert_eq!(rates("onecycle", 0, [0]), [1.0]);
        assert_eq!(rates("onecycle:end=0", 2, [0, 1]), [1.0, 0.0]);
    }

    #[test]
    fn text_and_errors() {
        assert_eq!("cosine:warmup=0.05".parse(), Ok(Schedule::Cosine { warmup: 0.05 }));
        for text in [
            "constant",
            "constant:warmup=0.1",
            "cosine",
            "cosine:warmup=0.05",
            "step",
            "step:every=0.2,factor=0.5,warmup=0.1",
            "milestones",
            "milestones:at=0.3/0.6/0.8,factor=0.2",
            "milestones:at=0.9",
            "onecycle",
            "onecycle:peak=0.2,start=0.1,end=0",
            "exponential",
            "exponential:start=0.001,end=1",
        ] {
            let schedule = text.parse::<Schedule>().unwrap();
            assert_eq!(schedule.to_string(), text);
            assert!(Schedule::NAMES.contains(&schedule.name()));
            let json = serde_json::to_string(&schedule).unwrap();
            assert_eq!(serde_json::from_str::<Schedule>(&json).unwrap(), schedule, "{json}");
            let toml = toml::to_string(&schedule).unwrap();
            assert_eq!(toml::from_str::<Schedule>(&toml).unwrap(), schedule, "{toml}");
        }
        assert_eq!("onecycle:peak=0.3,start=0.04,end=1e-4".parse::<Schedule>().unwrap().to_string(), "onecycle");
        assert_eq!(
            "onecycle:warmup=0.1".parse(),
            Ok(Schedule::OneCycle { peak: 0.1, start: default_start(), end: default_end() })
        );
        let toml = toml::from_str::<Schedule>("name = \"onecycle\"\nwarmup = 0.1").unwrap();
        assert_eq!(toml, "onecycle:warmup=0.1".parse().unwrap());
        let message = |text: &str| text.parse::<Schedule>().unwrap_err().to_string();
        assert!(message("linear").contains("constant, cosine, step, milestones, onecycle"));
        assert!(message("cosine:warmup=1").contains("warmup of cosine is 1"));
        assert!(message("cosine:warmup=x").contains("\"x\""));
        assert!(message("cosine:warmup").contains("field=value"));
        assert!(message("cosine:every=1").contains("there is no setting \"every\"; known: warmup"));
        assert!(message("step:every=0").contains("every of step is 0; it must be more than 0"));
        assert!(message("step:factor=-1").contains("factor of step is -1"));
        assert!(message("onecycle:start=2").contains("start of onecycle is 2; it must be from 0 to 1"));
        assert!(message("exponential:end=0").contains("end of exponential is 0; it must be more than 0"));
        assert!(message("onecycle:peak=NaN").contains("peak of onecycle is NaN"));
        for at in ["0.5/0.5", "0", "0.5/1", "0.7/0.2", "NaN"] {
            assert!(message(&format!("milestones:at={at}")).contains("at of milestones is"), "{at}");
        }
        assert!(message("milestones:at=").contains("\"\""));
        let none = Schedule::Milestones { at: vec![], factor: 0.1, warmup: 0.0 };
        assert!(none.validate().unwrap_err().to_string().contains("is empty"));
        assert!(Schedule::Cosine { warmup: f32::NAN }.validate().is_err());
        assert!(serde_json::from_str::<Schedule>(r#"{"name":"step","peak":0.1}"#).is_err());
        let json = serde_json::to_string(&Schedule::Cosine { warmup: 0.1 }).unwrap();
        assert_eq!(json, r#"{"name":"cosine","warmup":0.1}"#);
        // As it was written before a constant rate could be warmed up to.
        assert_eq!(serde_json::to_string(&Schedule::constant()).unwrap(), r#"{"name":"constant"}"#);
        assert_eq!(serde_json::from_str::<Schedule>(r#"{"name":"constant"}"#).unwrap(), Schedule::constant());
    }

    proptest! {
        #[test]
        fn up_then_down_within_bounds(warmup in 0.0f32..0.99, total in 1u64..500) {
            let schedule = Schedule::Cosine { warmup };
            let rates: Vec<f32> = (0..total).map(|step| schedule.rate(step, total)).collect();
            prop_assert!(rates.iter().all(|&rate| rate > 0.0 && rate <= 1.0));
            let top = rates.iter().position(|&rate| rate == 1.0);
            prop_assert!(top.is_some());
            let top = top.unwrap_or(0);
            prop_assert!(rates[..=top].is_sorted());
            prop_assert!(rates[top..].is_sorted_by(|a, b| a >= b));
        }

        #[test]
        fn one_cycle_goes_up_once_and_down_once(
            peak in 0.0f32..0.99, start in 0.0f32..=1.0, end in 0.0f32..=1.0, total in 2u64..500,
        ) {
            let schedule = Schedule::OneCycle { peak, start, end };
            schedule.validate().unwrap();
            let rates: Vec<f32> = (0..total + 3).map(|step| schedule.rate(step, total)).collect();
            prop_assert!(rates.iter().all(|&rate| (0.0..=1.0).contains(&rate)));
            let top = (1..rates.len()).find(|&i| rates[i] < rates[i - 1]).unwrap_or(rates.len());
            prop_assert!(rates[top..].is_sorted_by(|a, b| a >= b));
            prop_assert!((rates[total as usize - 1] - end).abs() < 1e-6);
        }

        #[test]
        fn steps_only_go_down_after_the_warm_up(
            every in 0.001f32..=1.0, factor in 0.001f32..=1.0, warmup in 0.0f32..0.99, total in 1u64..500,
        ) {
            for schedule in [
                Schedule::Step { every, factor, warmup },
                Schedule::Milestones { at: vec![every * 0.5, every * 0.9], factor, warmup },
            ] {
                schedule.validate().unwrap();
                let rates: Vec<f32> = (0..total).map(|step| schedule.rate(step, total)).collect();
                prop_assert!(rates.iter().all(|&rate| (0.0..=1.0).contains(&rate)));
                let up = (f64::from(warmup) * total as f64).round() as usize;
                prop_assert!(rates[up.min(rates.len())..].is_sorted_by(|a, b| a >= b));
                prop_assert_eq!(schedule.to_string().parse::<Schedule>().unwrap(), schedule);
            }
        }
    }
}
