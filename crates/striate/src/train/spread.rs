//! Mean and deviation of a figure over several runs.

use serde::Serialize;

/// How far the figures of several runs lie apart.
///
/// ```
/// use striate::train::Spread;
/// let spread = Spread::of(&[0.97, 0.98, 0.99]).unwrap();
/// assert!((spread.mean - 0.98).abs() < 1e-12 && (spread.deviation.unwrap() - 0.01).abs() < 1e-12);
/// assert_eq!(Spread::of(&[0.5]).unwrap().deviation, None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// The sample standard deviation, by one less than the number of runs; none for a single run.
    pub deviation: Option<f64>,
}

impl Spread {
    /// The spread of these figures, unless there is none.
    pub fn of(figures: &[f64]) -> Option<Self> {
        if figures.is_empty() {
            return None;
        }
        let mean = figures.iter().sum::<f64>() / figures.len() as f64;
        let squares: f64 = figures.iter().map(|figure| (figure - mean).powi(2)).sum();
        let deviation = (figures.len() > 1).then(|| (squares / (figures.len() - 1) as f64).sqrt());
        Some(Self { mean, deviation })
    }
}
