//! How the learning rate changes over a run.

use super::OptimError;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A factor on the learning rate for every step of a run.
///
/// ```
/// use striate::optim::Schedule;
/// let schedule = Schedule::Cosine { warmup: 0.1 };
/// assert_eq!(schedule.rate(4, 100), 0.5); // half-way up
/// assert_eq!(schedule.rate(10, 100), 1.0); // the top
/// assert!((schedule.rate(55, 100) - 0.5).abs() < 1e-6); // half-way down
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase", deny_unknown_fields)]
pub enum Schedule {
    /// 1 at every step: the book's.
    #[default]
    Constant,
    /// A straight line up to 1, then half a cosine down to nearly 0 (Loshchilov and Hutter, 2017, without restarts).
    Cosine {
        /// Share of all steps spent going up, in [0, 1).
        #[serde(default)]
        warmup: f32,
    },
}

impl Schedule {
    /// The names that `parse` knows.
    pub const NAMES: &[&str] = &["constant", "cosine"];

    /// The factor for step `step` (from 0) of `total`.
    ///
    /// Going up ends with 1 at the last warm-up step; the cosine begins with 1 at the first step after them and would
    /// reach 0 at step `total`, so that the last step of all still moves a little.
    pub fn rate(&self, step: u64, total: u64) -> f32 {
        match *self {
            Self::Constant => 1.0,
            Self::Cosine { warmup } => {
                let up = (f64::from(warmup) * total as f64).round() as u64;
                if step < up {
                    return ((step + 1) as f64 / up as f64) as f32;
                }
                if step >= total {
                    return 0.0;
                }
                let progress = (step - up) as f64 / (total - up) as f64;
                (0.5 * (1.0 + (std::f64::consts::PI * progress).cos())) as f32
            }
        }
    }

    /// Whether the warm-up is a share.
    ///
    /// # Errors
    /// A warm-up outside [0, 1).
    pub fn validate(&self) -> Result<(), OptimError> {
        match *self {
            Self::Cosine { warmup } if !(0.0..1.0).contains(&warmup) => Err(OptimError::Option {
                of: "cosine",
                field: "warmup",
                found: warmup.to_string(),
                expected: "a share of all steps: at least 0 and less than 1",
            }),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Schedule {
    /// What `parse` reads back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Constant => f.write_str("constant"),
            Self::Cosine { warmup: 0.0 } => f.write_str("cosine"),
            Self::Cosine { warmup } => write!(f, "cosine:warmup={warmup}"),
        }
    }
}

impl FromStr for Schedule {
    type Err = OptimError;

    /// Reads `constant`, `cosine` or `cosine:warmup=0.05`, and validates.
    fn from_str(text: &str) -> Result<Self, OptimError> {
        let schedule = match text {
            "constant" => Self::Constant,
            "cosine" => Self::Cosine { warmup: 0.0 },
            _ => {
                let value = text.strip_prefix("cosine:warmup=").ok_or_else(|| OptimError::Unknown {
                    what: "schedule",
                    name: text.into(),
                    known: "constant, cosine, cosine:warmup=SHARE".into(),
                })?;
                let warmup = value.parse().map_err(|_| OptimError::Option {
                    of: "cosine",
                    field: "warmup",
                    found: format!("{value:?}"),
                    expected: "a number",
                })?;
                Self::Cosine { warmup }
            }
        };
        schedule.validate()?;
        Ok(schedule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_values() {
        assert!([0, 7, 1000].iter().all(|&step| Schedule::Constant.rate(step, 10) == 1.0));
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
    fn text_and_errors() {
        assert_eq!("cosine:warmup=0.05".parse(), Ok(Schedule::Cosine { warmup: 0.05 }));
        for text in ["constant", "cosine", "cosine:warmup=0.05"] {
            assert_eq!(text.parse::<Schedule>().unwrap().to_string(), text);
        }
        assert!("linear".parse::<Schedule>().unwrap_err().to_string().contains("constant, cosine"));
        assert!("cosine:warmup=1".parse::<Schedule>().unwrap_err().to_string().contains("warmup of cosine is 1"));
        assert!("cosine:warmup=x".parse::<Schedule>().is_err());
        assert!(Schedule::Cosine { warmup: f32::NAN }.validate().is_err());
        let json = serde_json::to_string(&Schedule::Cosine { warmup: 0.1 }).unwrap();
        assert_eq!(json, r#"{"name":"cosine","warmup":0.1}"#);
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
    }
}
