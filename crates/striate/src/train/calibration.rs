//! Whether probabilities mean what they say: of the images that a network is 80 % sure of, 80 % should be right.
//!
//! The expected calibration error and temperature scaling are those of Guo et al., "On Calibration of Modern Neural
//! Networks" (ICML 2017).

use ndarray::ArrayView2;
use serde::Serialize;

/// Bins of [`Calibration::bins`], as in the paper.
pub const BINS: usize = 15;

/// The most that logits are divided by, and by its inverse the least.
const MOST_TEMPERATURE: f64 = 100.0;

/// How far confidence (the largest probability) and accuracy are apart.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Calibration {
    /// Expected calibration error: the mean over the images of `|accuracy - confidence|` of their bins.
    pub expected_error: f64,
    /// The largest such difference of a bin with images in it.
    pub largest_error: f64,
    /// Mean confidence over all images; above the accuracy the network is too sure of itself.
    pub confidence: f64,
    /// [`BINS`] bins of confidence, equally wide, from 0 to 1; each holds its upper end and not its lower.
    pub bins: Vec<CalibrationBin>,
}

/// The images whose confidence falls into one range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct CalibrationBin {
    /// How many there are.
    pub images: usize,
    /// Their mean confidence; 0 without images.
    pub confidence: f64,
    /// Share of them that was recognised; 0 without images.
    pub accuracy: f64,
}

/// The bins, while they grow.
#[derive(Default)]
pub(super) struct Bins([Bin; BINS]);

#[derive(Clone, Copy, Default)]
struct Bin {
    images: usize,
    confidence: f64,
    correct: usize,
}

impl Bins {
    /// An image of this confidence was recognised or not.
    pub(super) fn add(&mut self, confidence: f64, right: bool) {
        let place = ((confidence * BINS as f64).ceil() as usize).clamp(1, BINS) - 1;
        if let Some(bin) = self.0.get_mut(place) {
            bin.images += 1;
            bin.confidence += confidence;
            bin.correct += usize::from(right);
        }
    }

    pub(super) fn finish(&self) -> Calibration {
        let images = self.0.iter().map(|bin| bin.images).sum::<usize>().max(1) as f64;
        let gap = |bin: &Bin| (bin.correct as f64 - bin.confidence).abs();
        let over = |value: f64, images: usize| if images == 0 { 0.0 } else { value / images as f64 };
        Calibration {
            expected_error: self.0.iter().map(gap).sum::<f64>() / images,
            largest_error: self.0.iter().map(|bin| over(gap(bin), bin.images)).fold(0.0, f64::max),
            confidence: self.0.iter().map(|bin| bin.confidence).sum::<f64>() / images,
            bins: (self.0.iter())
                .map(|bin| CalibrationBin {
                    images: bin.images,
                    confidence: over(bin.confidence, bin.images),
                    accuracy: over(bin.correct as f64, bin.images),
                })
                .collect(),
        }
    }
}

/// The temperature that logits are divided by so that their softmax has the least mean cross-entropy: calibration with
/// one parameter, which changes no answer (section 4.2 of the paper).
///
/// None where no temperature from 1/100 to 100 is best, as when every image is recognised and surer is always better.
///
/// # Panics
/// The number of labels is not that of the rows, or a label not below that of the columns.
///
/// ```
/// use striate::train::fit_temperature;
///
/// // Sure of two answers out of three at odds of e^4 : 1, where 2 : 1 would be right.
/// let logits = ndarray::array![[4.0f32, 0.0], [0.0, 4.0], [4.0, 0.0]];
/// let temperature = fit_temperature(logits.view(), &[0, 1, 1]).unwrap();
/// assert!((temperature - 4.0 / 2f64.ln()).abs() < 1e-9);
/// assert_eq!(fit_temperature(logits.view(), &[0, 1, 0]), None);
/// ```
pub fn fit_temperature(logits: ArrayView2<'_, f32>, labels: &[usize]) -> Option<f64> {
    assert_eq!(logits.nrows(), labels.len(), "there must be one label for each row of logits");
    // Over the inverse temperature b the loss is convex: its slope is the mean of (expected logit - own logit), and the
    // slope's own slope the mean variance of the logits. Newton's method inside a bracket that bisection closes.
    let slope = |b: f64| {
        let (mut slope, mut curvature) = (0.0, 0.0);
        for (row, &label) in logits.rows().into_iter().zip(labels) {
            let largest = f64::from(row.fold(f32::NEG_INFINITY, |a, &b| a.max(b)));
            let (mut sum, mut first, mut second) = (0.0, 0.0, 0.0);
            for &logit in row {
                let below = f64::from(logit) - largest;
                let weight = (b * below).exp();
                sum += weight;
                first += weight * below;
                second += weight * below * below;
            }
            let mean = first / sum;
            slope += mean - (f64::from(row[label]) - largest);
            curvature += second / sum - mean * mean;
        }
        (slope, curvature)
    };
    let (mut low, mut high) = (1.0 / MOST_TEMPERATURE, MOST_TEMPERATURE);
    if !(slope(low).0 < 0.0 && slope(high).0 > 0.0) {
        return None;
    }
    let mut b = 1.0;
    for _ in 0..100 {
        let (first, second) = slope(b);
        if first == 0.0 {
            break;
        }
        if first < 0.0 {
            low = b
        } else {
            high = b
        }
        let newton = b - first / second;
        let next = if newton > low && newton < high { newton } else { f64::midpoint(low, high) };
        if (next - b).abs() <= 1e-12 * b {
            break;
        }
        b = next;
    }
    Some(1.0 / b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array2;

    #[test]
    fn each_bin_holds_its_upper_end() {
        let mut bins = Bins::default();
        for (confidence, right) in [(1.0, true), (14.0 / 15.0, true), (0.95, false), (0.0, false), (0.2, true)] {
            bins.add(confidence, right);
        }
        let found = bins.finish();
        let images: Vec<usize> = found.bins.iter().map(|bin| bin.images).collect();
        assert_eq!(images, [1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
        let gaps = [0.0, 0.8, 1.0 - 14.0 / 15.0, 0.95];
        assert!((found.expected_error - gaps.iter().sum::<f64>() / 5.0).abs() < 1e-12);
        assert!((found.largest_error - 0.8).abs() < 1e-12);
        assert!((found.bins[14].confidence - 0.975).abs() < 1e-12 && found.bins[14].accuracy == 0.5);
    }

    #[test]
    fn nothing_is_calibrated() {
        let found = Bins::default().finish();
        assert_eq!((found.expected_error, found.confidence, found.bins.len()), (0.0, 0.0, BINS));
        assert_eq!(fit_temperature(Array2::zeros((0, 3)).view(), &[]), None);
    }

    #[test]
    fn no_temperature_helps_where_there_is_no_minimum() {
        // All wrong: the flatter the better. All the same: nothing matters. Overflowing: still no number.
        assert_eq!(fit_temperature(ndarray::array![[3.0f32, 0.0]].view(), &[1]), None);
        assert_eq!(fit_temperature(ndarray::array![[3.0f32, 3.0]].view(), &[1]), None);
        assert_eq!(fit_temperature(ndarray::array![[f32::MAX, f32::MIN]].view(), &[0]), None);
    }

    #[test]
    fn scaling_the_logits_scales_the_temperature() {
        let random = crate::random::Random::new(3, crate::random::Purpose::Test, 0);
        let logits = Array2::from_shape_fn((400, 7), |(n, c)| 3.0 * random.normal((n * 7 + c) as u64));
        let labels: Vec<usize> = (0..400)
            .map(|n| {
                let row = logits.row(n);
                let best = (0..7).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
                if random.uniform(10_000 + n as u64) < 0.7 { best } else { (best + 1) % 7 }
            })
            .collect();
        let plain = fit_temperature(logits.view(), &labels).unwrap();
        for factor in [0.25f32, 4.0] {
            let scaled = fit_temperature((&logits * factor).view(), &labels).unwrap();
            assert!((scaled / f64::from(factor) - plain).abs() < 1e-9 * plain, "{scaled} {plain}");
        }
    }
}
