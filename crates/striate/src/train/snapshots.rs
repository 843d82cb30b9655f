//! At which steps of a run its weights are put aside, for pictures of how they came about.

use super::TrainError;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// When [`Event::Snapshot`](super::Event::Snapshot) shows the weights; always also before the first step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Snapshots {
    /// [`Snapshots::SPACED`] times, closer together where weights change most: the k-th of n after `(k/n)^3` of the run.
    #[default]
    Spaced,
    /// Every so many steps, and after the last.
    Every(u64),
}

impl Snapshots {
    /// Snapshots of [`Snapshots::Spaced`] after the first step; a short run has fewer.
    pub const SPACED: u64 = 32;
    const EXPECTED: &str = "spaced, or a number of steps of at least 1";

    /// Whether the weights after `step` of `total` updates are to be put aside.
    ///
    /// ```
    /// use striate::train::Snapshots;
    /// let due: Vec<u64> = (0..=12_000).filter(|&step| Snapshots::Spaced.is_due(step, 12_000)).collect();
    /// assert_eq!((due.len(), &due[..6], due[32]), (33, [0, 1, 3, 10, 24, 46].as_slice(), 12_000));
    /// assert!(Snapshots::Every(5).is_due(10, 12) && Snapshots::Every(5).is_due(12, 12));
    /// ```
    pub fn is_due(self, step: u64, total: u64) -> bool {
        match self {
            _ if step == 0 || step == total => true,
            Snapshots::Spaced => {
                let n = u128::from(Self::SPACED);
                (1..n).any(|k| (u128::from(total) * k.pow(3)).div_ceil(n.pow(3)) == u128::from(step))
            }
            Snapshots::Every(steps) => step.is_multiple_of(steps.max(1)),
        }
    }
}

impl fmt::Display for Snapshots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Snapshots::Spaced => f.write_str("spaced"),
            Snapshots::Every(steps) => steps.fmt(f),
        }
    }
}

impl FromStr for Snapshots {
    type Err = TrainError;

    fn from_str(text: &str) -> Result<Self, TrainError> {
        match text.parse() {
            _ if text == "spaced" => Ok(Snapshots::Spaced),
            Ok(steps @ 1..) => Ok(Snapshots::Every(steps)),
            _ => Err(TrainError::Option { field: "snapshots", found: format!("{text:?}"), expected: Self::EXPECTED }),
        }
    }
}

impl TryFrom<String> for Snapshots {
    type Error = TrainError;

    fn try_from(text: String) -> Result<Self, TrainError> {
        text.parse()
    }
}

impl From<Snapshots> for String {
    fn from(snapshots: Snapshots) -> Self {
        snapshots.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaced_ones_grow_apart_and_end_with_the_run() {
        for total in [1, 5, 40, 600, 12_000, u64::MAX / 2] {
            let due = |step| Snapshots::Spaced.is_due(step, total);
            assert!(due(0) && due(total));
        }
        let due: Vec<u64> = (0..=600).filter(|&step| Snapshots::Spaced.is_due(step, 600)).collect();
        assert!(due.len() > 25 && due.windows(3).filter(|w| w[2] - w[1] < w[1] - w[0]).count() < 6, "{due:?}");
    }

    #[test]
    fn words_go_both_ways() {
        for words in ["spaced", "1", "600"] {
            assert_eq!(words.parse::<Snapshots>().unwrap().to_string(), words);
        }
        for words in ["0", "", "-1", "often", "1.5"] {
            let error = words.parse::<Snapshots>().unwrap_err().to_string();
            assert!(error.contains("at least 1"), "{error}");
        }
    }
}
