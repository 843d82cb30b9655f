//! How weights start (section 6.2).

use crate::random::{Purpose, Random};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The distribution of initial weights. Biases start at zero.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Init {
    /// Normal with a given standard deviation: `0.01` in the book's SimpleConvNet.
    Normal {
        /// Standard deviation.
        deviation: f32,
    },
    /// Normal with deviation `sqrt(1 / n)` for n inputs (Glorot & Bengio 2010, in the book's form): for sigmoid and tanh.
    Xavier,
    /// Normal with deviation `sqrt(2 / n)` for n inputs (He et al. 2015): for ReLU.
    He,
    /// All the same.
    Constant {
        /// The number.
        value: f32,
    },
}

impl fmt::Display for Init {
    /// As people write it: `he`, `normal:0.01`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Init::Normal { deviation } => write!(f, "normal:{deviation}"),
            Init::Xavier => f.write_str("xavier"),
            Init::He => f.write_str("he"),
            Init::Constant { value } => write!(f, "constant:{value}"),
        }
    }
}

impl Init {
    /// The standard deviation for a unit with `fan_in` inputs.
    pub fn deviation(self, fan_in: usize) -> f32 {
        let n = fan_in.max(1) as f32;
        match self {
            Init::Normal { deviation } => deviation,
            Init::Xavier => (1.0 / n).sqrt(),
            Init::He => (2.0 / n).sqrt(),
            Init::Constant { .. } => 0.0,
        }
    }

    /// Fills `weights` of the `position`-th parameter of a network.
    pub fn fill(self, weights: &mut [f32], fan_in: usize, seed: u64, position: u64) {
        if let Init::Constant { value } = self {
            return weights.fill(value);
        }
        let random = Random::new(seed, Purpose::Initialise, position);
        let deviation = self.deviation(fan_in);
        weights.iter_mut().enumerate().for_each(|(i, w)| *w = deviation * random.normal(i as u64));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviations() {
        assert_eq!(Init::He.deviation(50), 0.2);
        assert_eq!(Init::Xavier.deviation(25), 0.2);
        let mut w = vec![0.0; 40_000];
        Init::Normal { deviation: 0.01 }.fill(&mut w, 1, 3, 0);
        let square = w.iter().map(|w| f64::from(w * w)).sum::<f64>() / w.len() as f64;
        assert!((square.sqrt() - 0.01).abs() < 1e-4);
        let mut other = vec![0.0; 8];
        Init::Normal { deviation: 0.01 }.fill(&mut other, 1, 3, 1);
        assert_ne!(w[..8], other[..]);
    }
}
