//! Convolution over interleaved images: lanes are images, so that no lane is wasted whatever the sizes of maps and filters,
//! and every load is a whole register.

use super::Isa;
use super::generic::Vector;

/// Windows of interleaved images: number `i` of image `n` is at `i * lanes + n`. Places count numbers of one image.
#[derive(Clone, Copy)]
pub(crate) struct Windows<'a> {
    pub(crate) images: &'a [f32],
    /// Where the window of each pixel starts in the first channel.
    pub(crate) starts: &'a [u32],
    /// Where in a channel each weight reads, from its window's start.
    pub(crate) taps: &'a [u32],
    pub(crate) channels: usize,
    /// From one channel to the next.
    pub(crate) plane: usize,
}

/// The most filters of one call.
pub(crate) const MAX_FILTERS: usize = 6;

/// The most filters of one call for the gradient of the weights.
pub(crate) const MAX_GRADIENT_FILTERS: usize = 4;

/// The kernels of a set.
pub(crate) struct Interleaved {
    /// Images side by side.
    pub(crate) lanes: usize,
    outputs: OutputsKernel,
    gradients: GradientsKernel,
}

/// `windows, weights, their step from channel to channel, biases, filters, y, step of y from filter to filter`.
type OutputsKernel = unsafe fn(&Windows<'_>, *const f32, usize, *const f32, usize, *mut f32, usize);

/// `windows, gradients of the outputs, where each pixel's is, their step from filter to filter, filters, whether to add,
/// sums`.
type GradientsKernel = unsafe fn(&Windows<'_>, *const f32, *const u32, usize, usize, bool, *mut f32);

impl Interleaved {
    pub(super) const fn new(lanes: usize, outputs: OutputsKernel, gradients: GradientsKernel) -> Self {
        Self { lanes, outputs, gradients }
    }

    /// Checks that every window lies in the images.
    fn check(&self, windows: &Windows<'_>) {
        let furthest = |places: &[u32]| places.iter().max().map_or(0, |&p| p as usize);
        let last =
            furthest(windows.starts) + furthest(windows.taps) + windows.channels.saturating_sub(1) * windows.plane;
        let reads = !windows.starts.is_empty() && !windows.taps.is_empty() && windows.channels > 0;
        assert!(!reads || (last + 1) * self.lanes <= windows.images.len(), "a window leaves the images");
    }

    /// `y[f * pitch + pixel] = bias[f] + weights[f] · window(pixel)` for `filters` filters (1 to [`MAX_FILTERS`]). The weight
    /// of filter `f` for tap `t` of channel `c` is `weights[c * step + t * filters + f]`.
    #[inline]
    pub(crate) fn outputs(
        &self,
        windows: &Windows<'_>,
        (weights, step): (&[f32], usize),
        bias: &[f32],
        filters: usize,
        y: &mut [f32],
        pitch: usize,
    ) {
        let (pixels, taps) = (windows.starts.len(), windows.taps.len());
        assert!((1..=MAX_FILTERS).contains(&filters) && bias.len() >= filters, "no kernel for as many filters");
        if pixels == 0 {
            return;
        }
        self.check(windows);
        let needed = windows.channels.checked_sub(1).map_or(0, |c| c * step + taps * filters);
        assert!(weights.len() >= needed, "too few weights");
        assert!(y.len() >= ((filters - 1) * pitch + pixels) * self.lanes, "no room for the outputs");
        // SAFETY: kernels are only handed out for a detected instruction set, and all lengths were checked just now.
        unsafe { (self.outputs)(windows, weights.as_ptr(), step, bias.as_ptr(), filters, y.as_mut_ptr(), pitch) }
    }

    /// `sums[(f * channels + c) * taps + t]` = the gradient `dy` of filter `f` (of 1 to [`MAX_GRADIENT_FILTERS`]) times what
    /// tap `t` of channel `c` saw, over all pixels and lanes (added to what is there, if told to). The gradient at pixel `p`
    /// is `dy[f * pitch + places[p]]`.
    #[inline]
    pub(crate) fn gradients(
        &self,
        windows: &Windows<'_>,
        dy: &[f32],
        places: &[u32],
        pitch: usize,
        filters: usize,
        (sums, add): (&mut [f32], bool),
    ) {
        assert!((1..=MAX_GRADIENT_FILTERS).contains(&filters), "no kernel for as many filters");
        self.check(windows);
        assert!(places.len() == windows.starts.len(), "a place for each pixel");
        let last = places.iter().max().map_or(0, |&p| p as usize + 1);
        assert!(dy.len() >= ((filters - 1) * pitch + last) * self.lanes, "too few gradients");
        assert!(sums.len() >= filters * windows.channels * windows.taps.len(), "no room for the sums");
        // SAFETY: as above.
        unsafe { (self.gradients)(windows, dy.as_ptr(), places.as_ptr(), pitch, filters, add, sums.as_mut_ptr()) }
    }
}

impl Isa {
    /// The kernels of this set, or `None` if the machine lacks it.
    pub(crate) fn interleaved(self) -> Option<&'static Interleaved> {
        if !self.is_available() {
            return None;
        }
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Some(&super::avx512::INTERLEAVED),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Some(&super::avx2::INTERLEAVED),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => Some(&super::neon::INTERLEAVED),
            #[cfg(target_arch = "wasm32")]
            Isa::Simd128 => Some(&super::simd128::INTERLEAVED),
            Isa::Portable => Some(&super::portable::INTERLEAVED),
            #[allow(unreachable_patterns)]
            _ => None,
        }
    }
}

/// The active set's kernels.
#[inline]
pub(crate) fn interleaved() -> &'static Interleaved {
    super::active().interleaved().unwrap_or(&super::portable::INTERLEAVED)
}

/// An [`OutputsKernel`] that sums `PIXELS` pixels of up to [`MAX_FILTERS`] filters in registers.
///
/// # Safety
/// The machine has `V`'s instructions, and everything is as [`Interleaved::outputs`] checks it.
#[inline(always)]
pub(super) unsafe fn outputs<V: Vector, const PIXELS: usize>(
    windows: &Windows<'_>,
    weights: *const f32,
    step: usize,
    bias: *const f32,
    filters: usize,
    y: *mut f32,
    pitch: usize,
) {
    // SAFETY: the same contract.
    unsafe {
        match filters {
            1 => rows::<V, 1, PIXELS>(windows, weights, step, bias, y, pitch),
            2 => rows::<V, 2, PIXELS>(windows, weights, step, bias, y, pitch),
            3 => rows::<V, 3, PIXELS>(windows, weights, step, bias, y, pitch),
            4 => rows::<V, 4, PIXELS>(windows, weights, step, bias, y, pitch),
            5 => rows::<V, 5, PIXELS>(windows, weights, step, bias, y, pitch),
            6 => rows::<V, 6, PIXELS>(windows, weights, step, bias, y, pitch),
            _ => unreachable!("{filters} filters do not fit"),
        }
    }
}

/// All pixels of `FILTERS` filters.
///
/// # Safety
/// As for [`outputs`].
#[inline(always)]
unsafe fn rows<V: Vector, const FILTERS: usize, const PIXELS: usize>(
    windows: &Windows<'_>,
    weights: *const f32,
    step: usize,
    bias: *const f32,
    y: *mut f32,
    pitch: usize,
) {
    let count = windows.starts.len();
    // SAFETY: the same contract, for pixels below `count`.
    unsafe {
        let mut at = 0;
        while at + PIXELS <= count {
            block::<V, FILTERS, PIXELS>(windows, at, weights, step, bias, y, pitch);
            at += PIXELS;
        }
        if at < count && count >= PIXELS {
            // The last ones overlap those before, and come to the same.
            block::<V, FILTERS, PIXELS>(windows, count - PIXELS, weights, step, bias, y, pitch);
            return;
        }
        while at < count {
            block::<V, FILTERS, 1>(windows, at, weights, step, bias, y, pitch);
            at += 1;
        }
    }
}

/// `PIXELS` pixels from number `at` on.
///
/// # Safety
/// As for [`outputs`], with `at + PIXELS` at most the number of pixels.
#[inline(always)]
unsafe fn block<V: Vector, const FILTERS: usize, const PIXELS: usize>(
    windows: &Windows<'_>,
    at: usize,
    mut weights: *const f32,
    step: usize,
    bias: *const f32,
    y: *mut f32,
    pitch: usize,
) {
    // SAFETY: reads and writes are those the caller vouches for; pointers beyond the last channel are not read.
    unsafe {
        let mut sums = [[V::zero(); PIXELS]; FILTERS];
        for (f, sums) in sums.iter_mut().enumerate() {
            *sums = [V::splat(bias.add(f)); PIXELS];
        }
        let mut channel = [windows.images.as_ptr(); PIXELS];
        for (p, channel) in channel.iter_mut().enumerate() {
            *channel = channel.add(*windows.starts.get_unchecked(at + p) as usize * V::LANES);
        }
        for _ in 0..windows.channels {
            let mut weight = weights;
            for &tap in windows.taps {
                let mut x = [V::zero(); PIXELS];
                for (x, channel) in x.iter_mut().zip(&channel) {
                    *x = V::load(channel.add(tap as usize * V::LANES));
                }
                for (f, sums) in sums.iter_mut().enumerate() {
                    let weight = V::splat(weight.add(f));
                    for (sum, &x) in sums.iter_mut().zip(&x) {
                        *sum = sum.mul_add(weight, x);
                    }
                }
                weight = weight.add(FILTERS);
            }
            weights = weights.wrapping_add(step);
            for channel in &mut channel {
                *channel = channel.wrapping_add(windows.plane * V::LANES);
            }
        }
        for (f, sums) in sums.iter().enumerate() {
            for (p, sum) in sums.iter().enumerate() {
                sum.store(y.add((f * pitch + at + p) * V::LANES));
            }
        }
    }
}

/// A [`GradientsKernel`] that sums `TAPS` taps of up to [`MAX_GRADIENT_FILTERS`] filters in registers.
///
/// # Safety
/// The machine has `V`'s instructions, and everything is as [`Interleaved::gradients`] checks it.
#[inline(always)]
pub(super) unsafe fn gradients<V: Vector, const TAPS: usize>(
    windows: &Windows<'_>,
    dy: *const f32,
    places: *const u32,
    pitch: usize,
    filters: usize,
    add: bool,
    sums: *mut f32,
) {
    // SAFETY: the same contract.
    unsafe {
        match filters {
            1 => all_places::<V, 1, TAPS>(windows, dy, places, pitch, add, sums),
            2 => all_places::<V, 2, TAPS>(windows, dy, places, pitch, add, sums),
            3 => all_places::<V, 3, TAPS>(windows, dy, places, pitch, add, sums),
            4 => all_places::<V, 4, TAPS>(windows, dy, places, pitch, add, sums),
            _ => unreachable!("{filters} filters do not fit"),
        }
    }
}

/// All places of the windows, over all channels, for `FILTERS` filters.
///
/// # Safety
/// As for [`gradients`].
#[inline(always)]
unsafe fn all_places<V: Vector, const FILTERS: usize, const TAPS: usize>(
    windows: &Windows<'_>,
    dy: *const f32,
    places: *const u32,
    pitch: usize,
    add: bool,
    sums: *mut f32,
) {
    let depth = windows.channels * windows.taps.len();
    let mut walk = Places { windows, channel: 0, tap: 0 };
    // SAFETY: the same contract, for places below `depth`.
    unsafe {
        let mut at = 0;
        while at + TAPS <= depth {
            block_of_places::<V, FILTERS, TAPS>(&mut walk, at, dy, places, pitch, add, sums);
            at += TAPS;
        }
        while at + 2 <= depth {
            block_of_places::<V, FILTERS, 2>(&mut walk, at, dy, places, pitch, add, sums);
            at += 2;
        }
        if at < depth {
            block_of_places::<V, FILTERS, 1>(&mut walk, at, dy, places, pitch, add, sums);
        }
    }
}

/// The places of a window over all channels, one after the other.
struct Places<'a> {
    windows: &'a Windows<'a>,
    channel: usize,
    tap: usize,
}

impl Places<'_> {
    /// From a window's start, in numbers of one image; there is a next place.
    #[inline(always)]
    fn step(&mut self) -> usize {
        let place = self.channel * self.windows.plane + self.windows.taps[self.tap] as usize;
        self.tap += 1;
        if self.tap == self.windows.taps.len() {
            (self.channel, self.tap) = (self.channel + 1, 0);
        }
        place
    }
}

/// The next `TAPS` places of a window, of which the first is number `at`.
///
/// # Safety
/// As for [`gradients`], with `at + TAPS` at most the number of places.
#[inline(always)]
unsafe fn block_of_places<V: Vector, const FILTERS: usize, const TAPS: usize>(
    walk: &mut Places<'_>,
    at: usize,
    dy: *const f32,
    places: *const u32,
    pitch: usize,
    add: bool,
    out: *mut f32,
) {
    let windows = walk.windows;
    let (starts, pixels, depth) =
        (windows.starts.as_ptr(), windows.starts.len(), windows.channels * windows.taps.len());
    // SAFETY: reads and writes are those the caller vouches for.
    unsafe {
        let mut sums = [[V::zero(); TAPS]; FILTERS];
        let mut taps = [windows.images.as_ptr(); TAPS];
        for tap in &mut taps {
            *tap = tap.wrapping_add(walk.step() * V::LANES);
        }
        for p in 0..pixels {
            let start = *starts.add(p) as usize * V::LANES;
            let gradient = dy.add(*places.add(p) as usize * V::LANES);
            let mut gradients = [V::zero(); FILTERS];
            for (f, g) in gradients.iter_mut().enumerate() {
                *g = V::load(gradient.add(f * pitch * V::LANES));
            }
            for (t, tap) in taps.iter().enumerate() {
                let x = V::load(tap.add(start));
                for (sums, &gradient) in sums.iter_mut().zip(&gradients) {
                    sums[t] = sums[t].mul_add(gradient, x);
                }
            }
        }
        for (f, sums) in sums.iter().enumerate() {
            for (t, sum) in sums.iter().enumerate() {
                let out = out.add(f * depth + at + t);
                *out = if add { *out + sum.sum() } else { sum.sum() };
            }
        }
    }
}

/// The [`Interleaved`] of a set: the functions above, compiled for it.
macro_rules! interleaved_for {
    ($vector:ty, $pixels:literal pixels, $taps:literal taps $(, $feature:literal)?) => {
        pub(super) static INTERLEAVED: crate::kernels::isa::interleaved::Interleaved = {
            use crate::kernels::isa::generic::Vector;
            use crate::kernels::isa::interleaved::{Interleaved, Windows, gradients, outputs};

            $(#[target_feature(enable = $feature)])?
            unsafe fn sums(
                windows: &Windows<'_>,
                weights: *const f32,
                step: usize,
                bias: *const f32,
                filters: usize,
                y: *mut f32,
                pitch: usize,
            ) {
                // SAFETY: the caller keeps the contract of `outputs`; this function is only reached where the set is.
                unsafe { outputs::<$vector, $pixels>(windows, weights, step, bias, filters, y, pitch) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn weights(
                windows: &Windows<'_>,
                dy: *const f32,
                places: *const u32,
                pitch: usize,
                filters: usize,
                add: bool,
                sums: *mut f32,
            ) {
                // SAFETY: the caller keeps the contract of `gradients`; this function is only reached where the set is.
                unsafe { gradients::<$vector, $taps>(windows, dy, places, pitch, filters, add, sums) }
            }

            Interleaved::new(<$vector as Vector>::LANES, sums, weights)
        };
    };
}
pub(super) use interleaved_for;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, Random};

    #[test]
    fn every_set_agrees_with_plain_loops() {
        let random = Random::new(11, Purpose::Test, 0);
        let numbers =
            |first: u64, len: usize| -> Vec<f32> { (0..len as u64).map(|i| random.normal(first + i)).collect() };
        let (channels, plane, taps) = (3, 160, [0, 1, 2, 8, 9, 10, 16, 17]);
        for isa in Isa::available() {
            let kernels = isa.interleaved().expect("available");
            let lanes = kernels.lanes;
            let images = numbers(0, channels * plane * lanes);
            let counts = [1, 3, 4, 7, 69];
            for &pixels in if cfg!(miri) { &counts[2..4] } else { &counts[..] } {
                let starts: Vec<u32> = (0..pixels).map(|p| 2 * p).collect();
                let windows = Windows { images: &images, starts: &starts, taps: &taps, channels, plane };
                let at = |p: usize, c: usize, t: usize, n: usize| {
                    f64::from(images[(c * plane + (starts[p] + taps[t]) as usize) * lanes + n])
                };
                for filters in 1..=MAX_FILTERS {
                    let step = taps.len() * filters + 2;
                    let (weights, bias) = (numbers(9000, channels * step), numbers(20_000, filters));
                    let pitch = starts.len() + 1;
                    let mut y = vec![f32::NAN; filters * pitch * lanes];
                    kernels.outputs(&windows, (&weights, step), &bias, filters, &mut y, pitch);
                    for (f, p, n) in places(filters, starts.len(), lanes) {
                        let terms = places(1, channels, taps.len())
                            .map(|(_, c, t)| f64::from(weights[c * step + t * filters + f]) * at(p, c, t, n));
                        let expected = f64::from(bias[f]) + terms.sum::<f64>();
                        let found = f64::from(y[(f * pitch + p) * lanes + n]);
                        assert!((found - expected).abs() < 1e-3, "{isa} {pixels} {filters}: {found} {expected}");
                    }
                }
                for filters in 1..=MAX_GRADIENT_FILTERS {
                    let (pitch, to): (usize, Vec<u32>) = (220, (0..pixels).map(|p| 3 * p + 1).collect());
                    let dy = numbers(30_000, filters * pitch * lanes);
                    let before = numbers(40_000, filters * channels * taps.len());
                    let (mut sums, mut added) = (vec![f32::NAN; before.len()], before.clone());
                    kernels.gradients(&windows, &dy, &to, pitch, filters, (&mut sums, false));
                    kernels.gradients(&windows, &dy, &to, pitch, filters, (&mut added, true));
                    let all = added.iter().zip(&before).zip(&sums);
                    assert!(all.clone().all(|((&a, &b), &s)| a == b + s), "{isa}: added to what is there");
                    for (f, c, t) in places(filters, channels, taps.len()) {
                        let terms = places(1, starts.len(), lanes)
                            .map(|(_, p, n)| f64::from(dy[(f * pitch + to[p] as usize) * lanes + n]) * at(p, c, t, n));
                        let (expected, found) =
                            (terms.sum::<f64>(), f64::from(sums[(f * channels + c) * taps.len() + t]));
                        assert!((found - expected).abs() < 1e-3, "{isa} {pixels} {filters}: {found} {expected}");
                    }
                }
            }
        }
    }

    /// All triples below three bounds.
    fn places(a: usize, b: usize, c: usize) -> impl Iterator<Item = (usize, usize, usize)> {
        (0..a * b * c).map(move |i| (i / (b * c), i / c % b, i % c))
    }
}
