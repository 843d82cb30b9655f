//! Normalisation: of a batch channel by channel (section 6.3), and of a pixel across channels (section 7.7.2).

use super::{CHUNK, isa};
use crate::shape::Shape;
use rayon::prelude::*;

/// Sizes of a batch normalisation: statistics are taken over samples and pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) batch: usize,
    pub(crate) channels: usize,
    /// Pixels of a map.
    pub(crate) pixels: usize,
}

impl Geometry {
    pub(crate) fn new(shape: Shape, batch: usize) -> Self {
        Self { batch, channels: shape.channels, pixels: shape.area() }
    }

    /// Numbers that a channel's statistics are taken over.
    fn count(&self) -> f64 {
        (self.batch * self.pixels) as f64
    }

    /// One channel's maps, a sample after the other.
    #[inline(always)]
    fn maps<'a>(&self, x: &'a [f32], channel: usize) -> impl Iterator<Item = &'a [f32]> {
        let pixels = self.pixels;
        x.chunks_exact(self.channels * pixels).map(move |sample| &sample[channel * pixels..][..pixels])
    }

    /// Maps a task takes, so that it has enough to do.
    fn maps_a_task(&self) -> usize {
        (CHUNK / self.pixels).max(1)
    }
}

/// `N` sums over many maps in sixteen lanes: fast, and the same on every instruction set. Lanes are emptied into f64 before
/// they have eaten the digits of what is added to them.
struct Sums<const N: usize> {
    lanes: [[f32; 16]; N],
    /// Numbers in each lane.
    filled: usize,
    total: [f64; N],
}

impl<const N: usize> Sums<N> {
    /// The most numbers of a lane.
    const MOST: usize = 64;

    #[inline(always)]
    fn new() -> Self {
        Self { lanes: [[0.0; 16]; N], filled: 0, total: [0.0; N] }
    }

    /// Adds `value` of all numbers of maps of the same length.
    #[inline(always)]
    fn add<const MAPS: usize>(&mut self, maps: [&[f32]; MAPS], value: impl Fn([f32; MAPS]) -> [f32; N]) {
        let parts = maps.map(|map| map.as_chunks::<16>());
        let whole = parts.iter().map(|(chunks, _)| chunks.len()).min().unwrap_or(0);
        let mut from = 0;
        while from < whole {
            let to = whole.min(from + Self::MOST - self.filled);
            let mut lanes = self.lanes;
            for i in from..to {
                let chunks: [&[f32; 16]; MAPS] = std::array::from_fn(|m| &parts[m].0[i]);
                for lane in 0..16 {
                    let values = value(std::array::from_fn(|m| chunks[m][lane]));
                    for n in 0..N {
                        lanes[n][lane] += values[n];
                    }
                }
            }
            self.lanes = lanes;
            self.count(to - from);
            from = to;
        }
        let rest = parts.map(|(_, rest)| rest);
        let len = rest.iter().map(|rest| rest.len()).min().unwrap_or(0);
        for lane in 0..len {
            let values = value(rest.map(|rest| rest[lane]));
            self.lanes.iter_mut().zip(values).for_each(|(lanes, v)| lanes[lane] += v);
        }
        if len > 0 {
            self.count(1);
        }
    }

    #[inline(always)]
    fn count(&mut self, added: usize) {
        self.filled += added;
        if self.filled == Self::MOST {
            self.empty();
        }
    }

    #[inline(always)]
    fn empty(&mut self) {
        for (total, lanes) in self.total.iter_mut().zip(&mut self.lanes) {
            *total += lanes.iter().map(|&v| f64::from(v)).sum::<f64>();
            *lanes = [0.0; 16];
        }
        self.filled = 0;
    }

    #[inline(always)]
    fn total(mut self) -> [f64; N] {
        self.empty();
        self.total
    }
}

/// Mean and variance (divided by the count, not by one less) of each channel.
pub(crate) fn statistics(g: &Geometry, x: &[f32], mean: &mut [f32], variance: &mut [f32]) {
    let channel = |(c, (mean, variance)): (usize, (&mut f32, &mut f32))| {
        isa::vectorize(|| {
            // Taken from the channel's first number, so that a large mean does not eat the variance's digits.
            let origin = x[c * g.pixels];
            let mut sums = Sums::new();
            for map in g.maps(x, c) {
                sums.add([map], |[v]| [v - origin, (v - origin) * (v - origin)]);
            }
            let [first, second] = sums.total().map(|t| t / g.count());
            *mean = (f64::from(origin) + first) as f32;
            *variance = (second - first * first).max(0.0) as f32;
        });
    };
    mean.par_iter_mut().zip(variance).enumerate().for_each(channel);
}

/// The factor of each channel, `gamma / sqrt(variance + epsilon)`.
pub(crate) fn factors(gamma: &[f32], variance: &[f32], epsilon: f32, factors: &mut [f32]) {
    for ((factor, gamma), &variance) in factors.iter_mut().zip(gamma).zip(variance) {
        *factor = gamma * inverse_deviation(variance, epsilon);
    }
}

/// `1 / sqrt(variance + epsilon)`.
#[inline(always)]
pub(crate) fn inverse_deviation(variance: f32, epsilon: f32) -> f32 {
    (1.0 / (f64::from(variance) + f64::from(epsilon)).sqrt()) as f32
}

/// `y = (x - mean) factor + beta (+ other)`, then ReLU if asked. `other` may be empty. The mean is taken off first, not
/// folded into a summand, as a large factor (of a small variance) would magnify the summand's rounding.
pub(crate) fn apply(
    g: &Geometry,
    x: &[f32],
    (mean, factors, beta): (&[f32], &[f32], &[f32]),
    other: &[f32],
    relu: bool,
    y: &mut [f32],
) {
    let maps = g.maps_a_task();
    y.par_chunks_mut(maps * g.pixels).enumerate().for_each(|(task, y)| {
        isa::vectorize(|| {
            for (i, y) in y.chunks_exact_mut(g.pixels).enumerate() {
                let map = task * maps + i;
                let c = map % g.channels;
                let (mean, factor, beta) = (mean[c], factors[c], beta[c]);
                let range = map * g.pixels..(map + 1) * g.pixels;
                let x = &x[range.clone()];
                if other.is_empty() {
                    y.iter_mut().zip(x).for_each(|(y, x)| *y = (x - mean) * factor + beta);
                } else {
                    y.iter_mut().zip(x).zip(&other[range]).for_each(|((y, x), o)| *y = (x - mean) * factor + beta + o);
                }
                if relu {
                    super::elementwise::relu_in_place(y);
                }
            }
        });
    });
}

/// What [`backward`] reads.
pub(crate) struct Backward<'a> {
    pub(crate) x: &'a [f32],
    /// The output, if ReLU must be undone.
    pub(crate) y: Option<&'a [f32]>,
    pub(crate) dy: &'a [f32],
    pub(crate) gamma: &'a [f32],
    pub(crate) mean: &'a [f32],
    pub(crate) inverse_deviation: &'a [f32],
}

/// Gradients of scale (`dgamma`) and shift (`dbeta`) of each channel, with statistics taken over the batch.
pub(crate) fn backward_parameters(g: &Geometry, b: &Backward<'_>, dgamma: &mut [f32], dbeta: &mut [f32]) {
    let channel = |(c, (dgamma, dbeta)): (usize, (&mut f32, &mut f32))| {
        isa::vectorize(|| {
            let mean = b.mean[c];
            let mut sums = Sums::new();
            let maps = g.maps(b.x, c).zip(g.maps(b.dy, c));
            match b.y {
                Some(y) => maps.zip(g.maps(y, c)).for_each(|((x, dy), y)| {
                    sums.add([x, dy, y], |[x, dy, y]| {
                        let dz = if y > 0.0 { dy } else { 0.0 };
                        [dz, dz * (x - mean)]
                    });
                }),
                None => maps.for_each(|(x, dy)| sums.add([x, dy], |[x, dy]| [dy, dy * (x - mean)])),
            }
            let total = sums.total();
            *dbeta = total[0] as f32;
            *dgamma = (total[1] * f64::from(b.inverse_deviation[c])) as f32;
        });
    };
    dgamma.par_iter_mut().zip(dbeta).enumerate().for_each(channel);
}

/// The gradient of x (or its sum with what `dx` holds), after [`backward_parameters`]:
/// `gamma / deviation (dy - mean(dy) - x^ mean(dy x^))` with `x^ = (x - mean) / deviation`.
pub(crate) fn backward_input(
    g: &Geometry,
    b: &Backward<'_>,
    (dgamma, dbeta): (&[f32], &[f32]),
    dx: &mut [f32],
    accumulate: bool,
) {
    let maps = g.maps_a_task();
    dx.par_chunks_mut(maps * g.pixels).enumerate().for_each(|(task, dx)| {
        isa::vectorize(|| {
            for (i, dx) in dx.chunks_exact_mut(g.pixels).enumerate() {
                let map = task * maps + i;
                let c = map % g.channels;
                let range = map * g.pixels..(map + 1) * g.pixels;
                let (x, dy) = (&b.x[range.clone()], &b.dy[range.clone()]);
                let factor = b.gamma[c] * b.inverse_deviation[c];
                let mean_dy = (f64::from(dbeta[c]) / g.count()) as f32;
                let slope = (f64::from(dgamma[c]) * f64::from(b.inverse_deviation[c]) / g.count()) as f32;
                let mean = b.mean[c];
                let gradient = |dy: f32, x: f32| factor * (dy - mean_dy - (x - mean) * slope);
                let numbers = dx.iter_mut().zip(x).zip(dy);
                let through = |dy: f32, y: f32| if y > 0.0 { dy } else { 0.0 };
                match (b.y.map(|y| &y[range]), accumulate) {
                    (None, false) => numbers.for_each(|((dx, &x), &dy)| *dx = gradient(dy, x)),
                    (None, true) => numbers.for_each(|((dx, &x), &dy)| *dx += gradient(dy, x)),
                    (Some(y), false) => {
                        numbers.zip(y).for_each(|(((dx, &x), &dy), &y)| *dx = gradient(through(dy, y), x));
                    }
                    (Some(y), true) => {
                        numbers.zip(y).for_each(|(((dx, &x), &dy), &y)| *dx += gradient(through(dy, y), x));
                    }
                }
            }
        });
    });
}

/// Local response normalisation (Krizhevsky et al. 2012, section 3.3): `b_i = a_i / s_i^beta` with
/// `s_i = k + alpha sum a_j^2` over the `size` channels around i (those there are).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LocalResponse {
    pub(crate) shape: Shape,
    pub(crate) size: usize,
    pub(crate) k: f32,
    pub(crate) alpha: f32,
    pub(crate) beta: f32,
}

/// Pixels worked on at a time: a strip of all channels stays in the cache.
const STRIP: usize = 128;

impl LocalResponse {
    /// Channels around `c`. With an even size one more lies before it, as in PyTorch.
    fn around(&self, c: usize) -> std::ops::Range<usize> {
        c.saturating_sub(self.size / 2)..(c + self.size.div_ceil(2)).min(self.shape.channels)
    }

    /// The channels in whose surroundings `c` is.
    fn seen_from(&self, c: usize) -> std::ops::Range<usize> {
        (c + 1).saturating_sub(self.size.div_ceil(2))..(c + self.size / 2 + 1).min(self.shape.channels)
    }

    /// `s^-beta`, without a logarithm for the exponents people use.
    #[inline(always)]
    fn power(&self, s: f32) -> f32 {
        match self.beta {
            0.75 => 1.0 / (s.sqrt() * s.sqrt().sqrt()),
            0.5 => 1.0 / s.sqrt(),
            1.0 => 1.0 / s,
            beta => s.powf(-beta),
        }
    }

    /// Runs `work(channel, range of one sample)` over strips of one sample.
    #[inline(always)]
    fn strips(&self, mut work: impl FnMut(usize, usize)) {
        for start in (0..self.shape.area()).step_by(STRIP) {
            let len = STRIP.min(self.shape.area() - start);
            work(start, len);
        }
    }

    #[inline(always)]
    fn place(&self, c: usize, start: usize, len: usize) -> std::ops::Range<usize> {
        let first = c * self.shape.area() + start;
        first..first + len
    }

    /// Writes y, and s for the backward pass unless `s` is empty.
    pub(crate) fn forward(&self, x: &[f32], y: &mut [f32], s: &mut [f32]) {
        let sample = self.shape.len();
        if s.is_empty() {
            return y.par_chunks_mut(sample).zip(x.par_chunks(sample)).for_each(|(y, x)| self.sample(x, y, None));
        }
        let samples = y.par_chunks_mut(sample).zip(x.par_chunks(sample)).zip(s.par_chunks_mut(sample));
        samples.for_each(|((y, x), s)| self.sample(x, y, Some(s)));
    }

    fn sample(&self, x: &[f32], y: &mut [f32], mut s: Option<&mut [f32]>) {
        isa::vectorize(|| {
            let mut sum = [0.0f32; STRIP];
            self.strips(|start, len| {
                for c in 0..self.shape.channels {
                    let sum = &mut sum[..len];
                    sum.fill(0.0);
                    for near in self.around(c) {
                        let x = &x[self.place(near, start, len)];
                        sum.iter_mut().zip(x).for_each(|(s, x)| *s += x * x);
                    }
                    sum.iter_mut().for_each(|s| *s = self.k + self.alpha * *s);
                    let place = self.place(c, start, len);
                    let pairs = y[place.clone()].iter_mut().zip(&x[place.clone()]);
                    pairs.zip(&*sum).for_each(|((y, x), &s)| *y = x * self.power(s));
                    if let Some(s) = s.as_deref_mut() {
                        s[place].copy_from_slice(sum);
                    }
                }
            });
        });
    }

    /// The gradient of x: `dx_i = dy_i s_i^-beta - 2 alpha beta x_i sum dy_j y_j / s_j` over the j that see i.
    pub(crate) fn backward(&self, x: &[f32], y: &[f32], s: &[f32], dy: &[f32], dx: &mut [f32], accumulate: bool) {
        let sample = self.shape.len();
        let samples = dx.par_chunks_mut(sample).zip(x.par_chunks(sample)).zip(y.par_chunks(sample));
        samples.zip(s.par_chunks(sample)).zip(dy.par_chunks(sample)).for_each(|((((dx, x), y), s), dy)| {
            isa::vectorize(|| {
                let factor = 2.0 * self.alpha * self.beta;
                let mut sum = [0.0f32; STRIP];
                self.strips(|start, len| {
                    for c in 0..self.shape.channels {
                        let sum = &mut sum[..len];
                        sum.fill(0.0);
                        for far in self.seen_from(c) {
                            let place = self.place(far, start, len);
                            let (y, s, dy) = (&y[place.clone()], &s[place.clone()], &dy[place]);
                            for (i, sum) in sum.iter_mut().enumerate() {
                                *sum += dy[i] * y[i] / s[i];
                            }
                        }
                        let place = self.place(c, start, len);
                        let (x, s, dy) = (&x[place.clone()], &s[place.clone()], &dy[place.clone()]);
                        for (i, dx) in dx[place].iter_mut().enumerate() {
                            let value = dy[i] * self.power(s[i]) - factor * x[i] * sum[i];
                            *dx = if accumulate { *dx + value } else { value };
                        }
                    }
                });
            });
        });
    }
}
