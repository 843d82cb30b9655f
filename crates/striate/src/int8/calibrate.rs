//! From a network in float to one in bytes: how large every activation is on sample images, and what follows from it.

use super::fold::{consumers, fold};
use super::{Int8Error, QuantizationParameters, QuantizedNetwork, QuantizedWeights, outputs};
use crate::layers::{Layer, PoolingKind, Role};
use crate::network::description::{INPUT, Node, Source};
use crate::network::{Mode, Network, Plan, Runner, Taps, check_samples};
use ndarray::{ArrayView4, Axis};

/// Numbers that all taps of one batch hold at most.
const MOST_TAPPED: usize = 1 << 24;

/// Images run at a time at most.
const MOST_IMAGES: usize = 32;

/// How activations are calibrated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CalibrationOptions {
    /// Which share of an activation's numbers its bytes cover, in percent, from 90 to 100: the outermost numbers on either
    /// side become the ends of the range. 100 covers the smallest and the largest.
    pub percentile: f64,
}

impl Default for CalibrationOptions {
    fn default() -> Self {
        Self { percentile: 100.0 }
    }
}

/// Observes a network on sample images.
#[derive(Debug)]
pub struct Calibration {
    folded: Network,
    options: CalibrationOptions,
    runner: Option<Runner>,
    batch: usize,
    /// Of the input, then of each layer.
    ranges: Vec<Range>,
    images: usize,
}

/// Numbers seen of one activation.
#[derive(Clone, Debug)]
struct Range {
    low: f32,
    high: f32,
    histogram: Histogram,
}

impl Calibration {
    /// Folds the network; nothing is observed yet.
    ///
    /// # Errors
    /// An option outside its range, or memory that can't be had.
    pub fn new(network: &Network, options: CalibrationOptions) -> Result<Self, Int8Error> {
        if !(90.0..=100.0).contains(&options.percentile) {
            let found = options.percentile.to_string();
            return Err(Int8Error::Option { field: "percentile", found, expected: "a number from 90 to 100" });
        }
        let folded = fold(network)?;
        let shapes = folded.description().shapes()?;
        let numbers = folded.input().len() + shapes.iter().map(|shape| shape.len()).sum::<usize>();
        let batch = (MOST_TAPPED / numbers).clamp(1, MOST_IMAGES);
        let empty = Range { low: f32::INFINITY, high: f32::NEG_INFINITY, histogram: Histogram::new() };
        let ranges = vec![empty; shapes.len() + 1];
        Ok(Self { folded, options, runner: None, batch, ranges, images: 0 })
    }

    /// Images that are best given at a time.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Images observed so far.
    pub fn images(&self) -> usize {
        self.images
    }

    /// Runs images (N, C, H, W), normalised as the network takes them, and notes how large every activation is.
    ///
    /// # Errors
    /// Images of another shape, numbers that are not finite, or memory that can't be had.
    pub fn observe(&mut self, x: ArrayView4<'_, f32>) -> Result<(), Int8Error> {
        check_samples(self.folded.input(), x)?;
        for x in x.axis_chunks_iter(Axis(0), self.batch) {
            let batch = x.dim().0;
            let description = self.folded.description();
            if self.runner.as_ref().is_none_or(|runner| runner.batch() != batch) {
                let plan = Plan::with_taps(description, batch, Mode::Inference, &Taps::all(description))?;
                self.runner = None;
                self.runner = Some(Runner::new(plan)?);
            }
            let Some(runner) = &mut self.runner else { continue };
            runner.write_input(x);
            runner.predict(self.folded.parameters());
            let wants_histogram = self.options.percentile < 100.0;
            let names = std::iter::once(INPUT).chain(description.layers.iter().map(|named| named.name.as_str()));
            for (name, range) in names.zip(&mut self.ranges) {
                range.observe(name, runner.tap(name).unwrap_or_default(), wants_histogram && name != INPUT)?;
            }
            self.images += batch;
        }
        Ok(())
    }

    /// The network in bytes, and the folded network with the weights that the bytes stand for.
    ///
    /// # Errors
    /// Nothing observed, or a layer of several inputs that has no form in bytes.
    pub fn finish(mut self) -> Result<(Network, QuantizedNetwork), Int8Error> {
        if self.images == 0 {
            return Err(Int8Error::NoImages);
        }
        let description = self.folded.description().clone();
        let nodes = description.nodes()?;
        let percentile = self.options.percentile;
        let mut activations: Vec<QuantizationParameters> =
            self.ranges.iter().map(|range| range.parameters(percentile)).collect();
        share(&nodes, &mut activations);
        let weights = self.weights(&nodes, &activations)?;
        let quantized = QuantizedNetwork::new(&mut self.folded, activations, weights)?;
        Ok((self.folded, quantized))
    }

    /// The weights of every layer whose sums fit an i32, in bytes.
    fn weights(
        &self,
        nodes: &[Node<'_>],
        activations: &[QuantizationParameters],
    ) -> Result<Vec<Option<QuantizedWeights>>, Int8Error> {
        let parameters = self.folded.parameters();
        let owners = self.folded.description().parameter_owners()?;
        let mut weights = Vec::with_capacity(nodes.len());
        for (i, node) in nodes.iter().enumerate() {
            let Some((outputs, by_columns)) = outputs(node) else {
                weights.push(None);
                continue;
            };
            let of_role = |role: Role| {
                let mut specs = parameters.specs().iter().zip(&owners);
                let spec = specs.find(|(spec, owner)| **owner == i && spec.role == role);
                spec.map_or(&[][..], |(spec, _)| &parameters.as_slice()[spec.range.clone()])
            };
            let input = activations[super::compile::index(node.sources.first())].scale;
            let rounded =
                QuantizedWeights::round(of_role(Role::Weight), of_role(Role::Bias), outputs, by_columns, input);
            // What overflows stays in float.
            weights.push(rounded.check(&node.named.name, by_columns).is_ok().then_some(rounded));
        }
        Ok(weights)
    }
}

/// Gives layers the same parameters as their input, or their input theirs, where the bytes then need not change.
///
/// What a layer that only selects or holds (ReLU, clip, max pooling, flatten, concat) cuts off need not be representable
/// before it, if nobody else reads that: rounding to the narrower range does the layer's work.
fn share(nodes: &[Node<'_>], activations: &mut [QuantizationParameters]) {
    let consumers = consumers(nodes);
    let narrows = |layer: &Layer| match layer {
        Layer::Relu(_) | Layer::Clip(_) | Layer::Flatten(_) | Layer::Concat(_) => true,
        Layer::Pooling(options) => options.pooling == PoolingKind::Max,
        _ => false,
    };
    for (i, node) in nodes.iter().enumerate().rev().filter(|(_, node)| narrows(&node.named.layer)) {
        for source in &node.sources {
            if let Source::Layer(j) = source
                && consumers[*j] == 1
            {
                activations[j + 1] = activations[i + 1];
            }
        }
    }
    for (i, node) in nodes.iter().enumerate() {
        let same = match &node.named.layer {
            Layer::Flatten(_) => true,
            Layer::Pooling(options) => options.pooling == PoolingKind::Max,
            _ => false,
        };
        if same {
            activations[i + 1] = activations[super::compile::index(node.sources.first())];
        }
    }
}

impl Range {
    fn observe(&mut self, layer: &str, values: &[f32], histogram: bool) -> Result<(), Int8Error> {
        let (mut low, mut high, mut finite) = (self.low, self.high, true);
        for &value in values {
            finite &= value.is_finite();
            low = low.min(value);
            high = high.max(value);
        }
        if !finite {
            let value = values.iter().copied().find(|value| !value.is_finite()).unwrap_or(f32::NAN);
            return Err(Int8Error::NonFinite { layer: layer.to_string(), value });
        }
        (self.low, self.high) = (low, high);
        if histogram {
            self.histogram.cover(low.abs().max(high.abs()));
            values.iter().for_each(|&value| self.histogram.add(value));
        }
        Ok(())
    }

    fn parameters(&self, percentile: f64) -> QuantizationParameters {
        let (low, high) = self.histogram.range(percentile).unwrap_or((self.low, self.high));
        QuantizationParameters::of_range(low.max(self.low), high.min(self.high))
    }
}

/// Counts of numbers in bins of equal width, which doubles as often as a number lies beyond.
#[derive(Clone, Debug)]
struct Histogram {
    counts: Vec<u64>,
    /// The bins reach from minus this to this.
    reach: f32,
}

impl Histogram {
    const BINS: usize = 8192;

    fn new() -> Self {
        Self { counts: Vec::new(), reach: f32::MIN_POSITIVE }
    }

    /// Widens the bins until they hold a number of this size.
    fn cover(&mut self, size: f32) {
        if self.counts.is_empty() {
            self.counts = vec![0; Self::BINS];
            self.reach = (2.0f32).powi(size.max(1e-30).log2().ceil().min(127.0) as i32);
        }
        while self.reach < size && self.reach.is_finite() {
            // Pairs of bins, counted from the middle, become one.
            let mut wider = vec![0; Self::BINS];
            for (i, &count) in self.counts.iter().enumerate() {
                wider[Self::BINS / 4 + i / 2] += count;
            }
            self.counts = wider;
            self.reach *= 2.0;
        }
    }

    fn add(&mut self, value: f32) {
        let bin = (value / self.reach + 1.0) * (Self::BINS / 2) as f32;
        self.counts[(bin as usize).min(Self::BINS - 1)] += 1;
    }

    /// The range outside which there are no more than the rest of `percentile` percent on either side.
    fn range(&self, percentile: f64) -> Option<(f32, f32)> {
        let all: u64 = self.counts.iter().sum();
        if all == 0 {
            return None;
        }
        let beyond = (all as f64 * (1.0 - percentile / 100.0)) as u64;
        // The first bin with which more than that are left out.
        let reached = |left_out: &mut u64, count: u64| {
            *left_out += count;
            *left_out > beyond
        };
        let (mut below, mut above) = (0, 0);
        let low = self.counts.iter().position(|&count| reached(&mut below, count))?;
        let high = self.counts.iter().rposition(|&count| reached(&mut above, count))?;
        let edge = |bin: usize| (bin as f32 / (Self::BINS / 2) as f32 - 1.0) * self.reach;
        Some((edge(low), edge(high + 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, Random};

    #[test]
    fn a_histogram_finds_percentiles_however_it_grew() {
        let random = Random::new(2, Purpose::Test, 0);
        let mut values: Vec<f32> = (0..100_000).map(|i| random.normal(i) * (1.0 + i as f32 / 2e4)).collect();
        let mut histogram = Histogram::new();
        for piece in values.chunks(1000) {
            histogram.cover(piece.iter().fold(0.0f32, |a, b| a.max(b.abs())));
            piece.iter().for_each(|&value| histogram.add(value));
        }
        values.sort_by(f32::total_cmp);
        let bin = 2.0 * histogram.reach / Histogram::BINS as f32;
        for percentile in [95.0, 99.0, 99.9] {
            let (low, high) = histogram.range(percentile).unwrap();
            let outside = (values.len() as f64 * (1.0 - percentile / 100.0)) as usize;
            assert!((low - values[outside]).abs() <= 2.0 * bin, "{percentile}: {low} {}", values[outside]);
            let expected = values[values.len() - 1 - outside];
            assert!((high - expected).abs() <= 2.0 * bin, "{percentile}: {high} {expected}");
        }
        assert_eq!(histogram.counts.iter().sum::<u64>(), 100_000);
        assert!(Histogram::new().range(99.0).is_none());
    }

    #[test]
    fn ranges_hold_zero_exactly() {
        for (low, high) in [(0.0, 1.0), (-1.0, 1.0), (-0.3, 7.5), (0.5, 2.0), (-3.0, -1.0), (0.0, 0.0), (-1e-20, 1e30)]
        {
            let parameters = QuantizationParameters::of_range(low, high);
            assert_eq!(parameters.number(parameters.zero_point), 0.0);
            assert_eq!(parameters.byte(0.0), parameters.zero_point);
            for number in [low, high] {
                let error = (parameters.number(parameters.byte(number)) - number).abs();
                assert!(error <= parameters.scale * 0.51, "{low} {high}: {error}");
            }
        }
        assert_eq!(
            QuantizationParameters::of_range(0.0, 1.0),
            QuantizationParameters { scale: 1.0 / 255.0, zero_point: 0 }
        );
    }
}
