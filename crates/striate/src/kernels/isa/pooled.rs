//! Convolution with 2 x 2 max pooling in registers: lanes are filters, and the four pixels of a pooling window are summed
//! side by side, so that neither windows nor maps are ever stored.

use super::Isa;
use super::generic::Vector;

/// One row of pooling windows of one image.
#[derive(Clone, Copy)]
pub(crate) struct WindowRow<'a> {
    /// The image, its padding included.
    pub(crate) image: &'a [f32],
    /// Where each of a filter's weights reads, counted from where its first one does.
    pub(crate) offsets: &'a [u32],
    /// Where the filter's first weight reads for the four pixels of the first window, in row order.
    pub(crate) corners: [usize; 4],
    /// From one window's corners to the next one's.
    pub(crate) step: usize,
    /// Places of the first window's four pixels in their map; the next window's are 2 further.
    pub(crate) places: [u32; 4],
    /// Windows.
    pub(crate) count: usize,
}

/// The kernels of a set for one group of filters.
pub(crate) struct Pooled {
    /// Filters of a group.
    filters: usize,
    kernel: Kernel,
    /// Filters of a group one register wide, and its kernel.
    narrow: (usize, Kernel),
}

/// `row, weights (depth x filters), biases (filters), relu, y (count x filters), places of the winners or null`.
type Kernel = unsafe fn(&WindowRow<'_>, *const f32, *const f32, bool, *mut f32, *mut u32);

impl Pooled {
    pub(super) const fn new(filters: usize, kernel: Kernel, narrow: (usize, Kernel)) -> Self {
        Self { filters, kernel, narrow }
    }

    /// Filters of the next group when `rest` are left.
    pub(crate) fn group(&self, rest: usize) -> usize {
        if rest <= self.narrow.0 { self.narrow.0 } else { self.filters }
    }

    /// The largest of each window's four outputs, after ReLU if asked, for `group` filters (see [`Pooled::group`]): `y`
    /// and `winner` get (count x group) numbers. NaN wins; of equals the first in row order.
    #[inline]
    pub(crate) fn run(
        &self,
        row: &WindowRow<'_>,
        weights: &[f32],
        bias: &[f32],
        relu: bool,
        y: &mut [f32],
        winner: Option<&mut [u32]>,
        group: usize,
    ) {
        assert!(group == self.filters || group == self.narrow.0, "no group has as many filters");
        let reach = row.offsets.iter().max().map_or(0, |&o| o as usize) + row.count.saturating_sub(1) * row.step;
        assert!(row.corners.iter().all(|corner| corner + reach < row.image.len()), "a window leaves the image");
        assert!(weights.len() >= row.offsets.len() * group && bias.len() >= group, "too few weights");
        assert!(y.len() >= row.count * group, "no room for the maxima");
        let winner = winner.map_or(std::ptr::null_mut(), |winner| {
            assert!(winner.len() >= row.count * group, "no room for the winners");
            winner.as_mut_ptr()
        });
        let kernel = if group == self.filters { self.kernel } else { self.narrow.1 };
        // SAFETY: kernels are only handed out for a detected instruction set, and all lengths were checked just now.
        unsafe { kernel(row, weights.as_ptr(), bias.as_ptr(), relu, y.as_mut_ptr(), winner) }
    }
}

impl Isa {
    /// The pooling kernels of this set, or `None` if the machine lacks it.
    pub(crate) fn pooled(self) -> Option<&'static Pooled> {
        if !self.is_available() {
            return None;
        }
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Some(&super::avx512::POOLED),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Some(&super::avx2::POOLED),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => Some(&super::neon::POOLED),
            #[cfg(target_arch = "wasm32")]
            Isa::Simd128 => Some(&super::simd128::POOLED),
            Isa::Portable => Some(&super::portable::POOLED),
            #[allow(unreachable_patterns)]
            _ => None,
        }
    }
}

/// The active set's pooling kernels.
#[inline]
pub(crate) fn pooled() -> &'static Pooled {
    super::active().pooled().unwrap_or(&super::portable::POOLED)
}

/// A [`Kernel`] for `WIDE` registers of filters, `AT_ONCE` windows at a time where there are as many.
///
/// # Safety
/// The machine has `V`'s instructions; every corner of every window plus every offset lies in the image; the pointers have
/// the sizes that [`Kernel`] says, `winner` unless it is null.
#[inline(always)]
pub(super) unsafe fn pooled_row<V: Vector, const WIDE: usize, const AT_ONCE: usize>(
    row: &WindowRow<'_>,
    weights: *const f32,
    bias: *const f32,
    relu: bool,
    y: *mut f32,
    winner: *mut u32,
) {
    // SAFETY: the same contract, for windows below `count`.
    unsafe {
        let mut at = 0;
        while at + AT_ONCE <= row.count {
            windows::<V, WIDE, AT_ONCE>(row, at, weights, bias, relu, y, winner);
            at += AT_ONCE;
        }
        while at < row.count {
            windows::<V, WIDE, 1>(row, at, weights, bias, relu, y, winner);
            at += 1;
        }
    }
}

/// `WINDOWS` windows from number `at` on.
///
/// # Safety
/// As for [`pooled_row`], with `at + WINDOWS` at most the row's count.
#[inline(always)]
unsafe fn windows<V: Vector, const WIDE: usize, const WINDOWS: usize>(
    row: &WindowRow<'_>,
    at: usize,
    mut weights: *const f32,
    bias: *const f32,
    relu: bool,
    y: *mut f32,
    winner: *mut u32,
) {
    // SAFETY: reads and writes are those the caller vouches for: `weights` advances by a group exactly once an offset.
    unsafe {
        let mut start = [V::zero(); WIDE];
        for (j, start) in start.iter_mut().enumerate() {
            *start = V::load(bias.add(j * V::LANES));
        }
        let mut sums = [[start; 4]; WINDOWS];
        let corners: [[*const f32; 4]; WINDOWS] = std::array::from_fn(
            #[inline(always)]
            |window| {
                row.corners.map(
                    #[inline(always)]
                    |corner| row.image.as_ptr().add(corner + (at + window) * row.step),
                )
            },
        );
        for &offset in row.offsets {
            let mut right = [V::zero(); WIDE];
            for (j, r) in right.iter_mut().enumerate() {
                *r = V::load(weights.add(j * V::LANES));
            }
            for (sums, corners) in sums.iter_mut().zip(&corners) {
                for (sums, corner) in sums.iter_mut().zip(corners) {
                    let left = V::splat(corner.add(offset as usize));
                    for (sum, &r) in sums.iter_mut().zip(&right) {
                        *sum = sum.mul_add(left, r);
                    }
                }
            }
            weights = weights.add(WIDE * V::LANES);
        }
        for (window, sums) in sums.iter().enumerate() {
            let to = (at + window) * WIDE * V::LANES;
            // Places travel as bits in registers of floats.
            let places = row.places.map(|place| f32::from_bits(place + 2 * (at + window) as u32));
            for j in 0..WIDE {
                let mut best = (sums[0][j], V::splat(&places[0]));
                for (sum, place) in sums.iter().zip(&places).skip(1) {
                    best = best.0.larger(best.1, sum[j], V::splat(place));
                }
                if relu {
                    best = best.0.larger(best.1, V::zero(), best.1);
                }
                best.0.store(y.add(to + j * V::LANES));
                if !winner.is_null() {
                    best.1.store(winner.add(to + j * V::LANES).cast());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, Random};

    #[test]
    fn every_set_agrees_with_plain_loops() {
        let random = Random::new(8, Purpose::Test, 0);
        let image: Vec<f32> = (0..400).map(|i| random.normal(i)).collect();
        for isa in Isa::available() {
            let kernels = isa.pooled().expect("available");
            for group in [kernels.filters, kernels.narrow.0] {
                for (count, relu) in [(1, true), (2, false), (7, true)] {
                    let offsets = [0, 1, 2, 20, 21, 40];
                    let row = WindowRow {
                        image: &image,
                        offsets: &offsets,
                        corners: [3, 4, 23, 24],
                        step: 2,
                        places: [10, 11, 30, 31],
                        count,
                    };
                    let weights: Vec<f32> = (0..6 * group).map(|i| random.normal(1000 + i as u64)).collect();
                    let bias: Vec<f32> = (0..group).map(|i| random.normal(5000 + i as u64)).collect();
                    let (mut y, mut winner) = (vec![0.0; count * group], vec![0; count * group]);
                    kernels.run(&row, &weights, &bias, relu, &mut y, Some(&mut winner), group);
                    for (at, &found) in y.iter().enumerate() {
                        let (window, f) = (at / group, at % group);
                        let pixel = |corner: usize| -> f64 {
                            let terms = offsets.iter().enumerate().map(|(k, &o)| {
                                f64::from(weights[k * group + f]) * f64::from(image[corner + 2 * window + o as usize])
                            });
                            f64::from(bias[f]) + terms.sum::<f64>()
                        };
                        let pixels = row.corners.map(pixel);
                        let best = (0..4).max_by(|&a, &b| pixels[a].total_cmp(&pixels[b])).expect("four");
                        let expected = if relu { pixels[best].max(0.0) } else { pixels[best] };
                        assert!((f64::from(found) - expected).abs() < 1e-5, "{isa} {group} {at}");
                        assert_eq!(winner[at], row.places[best] + 2 * window as u32, "{isa} {group} {at}");
                    }
                }
            }
        }
    }
}
