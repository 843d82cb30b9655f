//! Direct convolution for filters of few weights: lanes are filters, and four pixels at a time are summed side by side, so
//! that no window of the image is ever stored. With 2 x 2 max pooling the four are a window of it, and only the largest is
//! kept.

use super::Isa;
use super::generic::Vector;

/// A row of fours of output pixels of one image.
#[derive(Clone, Copy)]
pub(crate) struct PixelRow<'a> {
    /// The image, its padding included.
    pub(crate) image: &'a [f32],
    /// Where each of a filter's weights reads, counted from where its first one does.
    pub(crate) offsets: &'a [u32],
    /// Where the filter's first weight reads for the first four pixels.
    pub(crate) corners: [usize; 4],
    /// From one four's corners to the next one's.
    pub(crate) step: usize,
    /// Fours.
    pub(crate) count: usize,
    /// Keeps only the largest of each four: the places of the first four pixels in their map, in row order; each next
    /// four's are 2 further.
    pub(crate) pool: Option<[u32; 4]>,
}

impl PixelRow<'_> {
    /// Numbers kept for a filter.
    fn kept(&self) -> usize {
        if self.pool.is_some() { self.count } else { 4 * self.count }
    }
}

/// The kernels of a set for one group of filters.
pub(crate) struct Direct {
    /// Filters of a group.
    filters: usize,
    kernel: Kernel,
    /// Filters of a group one register wide, and its kernel.
    narrow: (usize, Kernel),
}

/// `row, weights (depth x filters), biases (filters), relu, y (kept x filters), places of the winners or null`.
type Kernel = unsafe fn(&PixelRow<'_>, *const f32, *const f32, bool, *mut f32, *mut u32);

impl Direct {
    pub(super) const fn new(filters: usize, kernel: Kernel, narrow: (usize, Kernel)) -> Self {
        Self { filters, kernel, narrow }
    }

    /// Filters of the next group when `rest` are left.
    pub(crate) fn group(&self, rest: usize) -> usize {
        if rest <= self.narrow.0 { self.narrow.0 } else { self.filters }
    }

    /// The outputs of each four or their largest, after ReLU if asked, for `group` filters (see [`Direct::group`]): `y` gets
    /// (fours or pixels x group) numbers, and with pooling `winner` as many. NaN wins; of equals the first.
    #[inline]
    pub(crate) fn run(
        &self,
        row: &PixelRow<'_>,
        weights: &[f32],
        bias: &[f32],
        relu: bool,
        y: &mut [f32],
        winner: Option<&mut [u32]>,
        group: usize,
    ) {
        assert!(group == self.filters || group == self.narrow.0, "no group has as many filters");
        let reach = row.offsets.iter().max().map_or(0, |&o| o as usize) + row.count.saturating_sub(1) * row.step;
        assert!(row.corners.iter().all(|corner| corner + reach < row.image.len()), "a pixel's window leaves the image");
        assert!(weights.len() >= row.offsets.len() * group && bias.len() >= group, "too few weights");
        assert!(y.len() >= row.kept() * group, "no room for the outputs");
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
    /// The direct kernels of this set, or `None` if the machine lacks it.
    pub(crate) fn direct(self) -> Option<&'static Direct> {
        if !self.is_available() {
            return None;
        }
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Some(&super::avx512::DIRECT),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Some(&super::avx2::DIRECT),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => Some(&super::neon::DIRECT),
            #[cfg(target_arch = "wasm32")]
            Isa::Simd128 => Some(&super::simd128::DIRECT),
            Isa::Portable => Some(&super::portable::DIRECT),
            #[allow(unreachable_patterns)]
            _ => None,
        }
    }
}

/// The active set's direct kernels.
#[inline]
pub(crate) fn direct() -> &'static Direct {
    super::active().direct().unwrap_or(&super::portable::DIRECT)
}

/// A [`Kernel`] for `WIDE` registers of filters, `AT_ONCE` fours at a time where there are as many.
///
/// # Safety
/// The machine has `V`'s instructions; every corner of every four plus every offset lies in the image; the pointers have
/// the sizes that [`Kernel`] says, `winner` unless it is null.
#[inline(always)]
pub(super) unsafe fn direct_row<V: Vector, const WIDE: usize, const AT_ONCE: usize>(
    row: &PixelRow<'_>,
    weights: *const f32,
    bias: *const f32,
    relu: bool,
    y: *mut f32,
    winner: *mut u32,
) {
    // SAFETY: the same contract, for fours below `count`.
    unsafe {
        let mut at = 0;
        while at + AT_ONCE <= row.count {
            fours::<V, WIDE, AT_ONCE>(row, at, weights, bias, relu, y, winner);
            at += AT_ONCE;
        }
        while at < row.count {
            fours::<V, WIDE, 1>(row, at, weights, bias, relu, y, winner);
            at += 1;
        }
    }
}

/// `FOURS` fours from number `at` on.
///
/// # Safety
/// As for [`direct_row`], with `at + FOURS` at most the row's count.
#[inline(always)]
unsafe fn fours<V: Vector, const WIDE: usize, const FOURS: usize>(
    row: &PixelRow<'_>,
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
        let mut sums = [[start; 4]; FOURS];
        let corners: [[*const f32; 4]; FOURS] = std::array::from_fn(
            #[inline(always)]
            |four| {
                row.corners.map(
                    #[inline(always)]
                    |corner| row.image.as_ptr().add(corner + (at + four) * row.step),
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
        for (four, sums) in sums.iter().enumerate() {
            let Some(places) = row.pool else {
                for (pixel, sums) in sums.iter().enumerate() {
                    let y = y.add((4 * (at + four) + pixel) * WIDE * V::LANES);
                    for (j, &sum) in sums.iter().enumerate() {
                        let sum = if relu { sum.larger(sum, V::zero(), sum).0 } else { sum };
                        sum.store(y.add(j * V::LANES));
                    }
                }
                continue;
            };
            let to = (at + four) * WIDE * V::LANES;
            // Places travel as bits in registers of floats.
            let places = places.map(|place| f32::from_bits(place + 2 * (at + four) as u32));
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
        let offsets = [0, 1, 2, 20, 21, 40];
        let places = [10, 11, 30, 31];
        for isa in Isa::available() {
            let kernels = isa.direct().expect("available");
            for group in [kernels.filters, kernels.narrow.0] {
                let weights: Vec<f32> = (0..6 * group).map(|i| random.normal(1000 + i as u64)).collect();
                let bias: Vec<f32> = (0..group).map(|i| random.normal(5000 + i as u64)).collect();
                for (count, relu, pool) in
                    [(1, true, true), (2, false, true), (7, true, true), (5, false, false), (2, true, false)]
                {
                    let corners = [3, 4, 23, 24];
                    let pool = pool.then_some(places);
                    let row = PixelRow { image: &image, offsets: &offsets, corners, step: 2, count, pool };
                    let (mut y, mut winner) = (vec![0.0; row.kept() * group], vec![0; count * group]);
                    kernels.run(&row, &weights, &bias, relu, &mut y, pool.map(|_| &mut winner[..]), group);
                    let rectified = |v: f64| if relu { v.max(0.0) } else { v };
                    for (four, f) in (0..count).flat_map(|four| (0..group).map(move |f| (four, f))) {
                        let pixel = |corner: usize| -> f64 {
                            let terms = offsets.iter().enumerate().map(|(k, &o)| {
                                f64::from(weights[k * group + f]) * f64::from(image[corner + 2 * four + o as usize])
                            });
                            f64::from(bias[f]) + terms.sum::<f64>()
                        };
                        let pixels = corners.map(pixel);
                        if pool.is_none() {
                            for (i, &expected) in pixels.iter().enumerate() {
                                let found = f64::from(y[(4 * four + i) * group + f]);
                                assert!((found - rectified(expected)).abs() < 1e-5, "{isa} {group} {four} {i}");
                            }
                            continue;
                        }
                        let best = (0..4).max_by(|&a, &b| pixels[a].total_cmp(&pixels[b])).expect("four");
                        let found = f64::from(y[four * group + f]);
                        assert!((found - rectified(pixels[best])).abs() < 1e-5, "{isa} {group} {four}");
                        assert_eq!(winner[four * group + f], places[best] + 2 * four as u32, "{isa} {group} {four}");
                    }
                }
            }
        }
    }
}
