//! x86-64 with AVX2 and FMA: a block of 6 x 16 in 12 of the 16 registers.

use super::direct::{Direct, PixelRow, direct_row};
use super::generic::{Vector, tile_for};
use super::interleaved::interleaved_for;
use super::winners::{MAX_ROWS, ROW, Winners, seen_by_winners_of};
use std::arch::x86_64::*;

impl Vector for __m256 {
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { _mm256_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn splat(p: *const f32) -> Self {
        // SAFETY: the caller vouches for the instruction set and that `p` is readable.
        unsafe { _mm256_broadcast_ss(&*p) }
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller vouches for the instruction set and for 8 numbers at `p`.
        unsafe { _mm256_loadu_ps(p) }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller vouches for the instruction set and for 8 writable numbers at `p`.
        unsafe { _mm256_storeu_ps(p, self) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { _mm256_add_ps(self, other) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, a: Self, b: Self) -> Self {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { _mm256_fmadd_ps(a, b, self) }
    }

    #[inline(always)]
    unsafe fn larger(self, tag: Self, other: Self, other_tag: Self) -> (Self, Self) {
        // SAFETY: the caller vouches for the instruction set.
        unsafe {
            let greater = _mm256_cmp_ps::<_CMP_GT_OQ>(other, self);
            let wins = _mm256_or_ps(greater, _mm256_cmp_ps::<_CMP_UNORD_Q>(other, other));
            (_mm256_blendv_ps(self, other, wins), _mm256_blendv_ps(tag, other_tag, wins))
        }
    }
}

tile_for!(__m256, 6 rows, 4 last rows, 2 wide, shifted 4 rows, "avx2,fma");
interleaved_for!(__m256, 2 pixels, 2 taps, "avx2,fma");

/// [`super::transpose::transpose`] in blocks of 8 x 8 registers.
///
/// # Safety
/// The machine has the set; `readable` numbers are readable at each `source + i * stride`, at least `depth`, and `rows`
/// (at most `width`) are writable at each `target + k * width`, for `i` below `rows` and `k` below `depth`.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn transpose(
    source: *const f32,
    stride: usize,
    (rows, depth, readable): (usize, usize, usize),
    target: *mut f32,
    width: usize,
) {
    let whole_rows = rows - rows % 8;
    // A last block is read whole where that much can be read, and written as far as it counts.
    let whole_depth = if depth.next_multiple_of(8) <= readable { depth } else { depth - depth % 8 };
    // SAFETY: every place is one the caller vouches for: blocks cover whole eights of what is readable, the loops below
    // them the rest, and only columns below `depth` are written.
    unsafe {
        for i in (0..whole_rows).step_by(8) {
            for k in (0..whole_depth).step_by(8) {
                let from = source.add(i * stride + k);
                let row = |r: usize| _mm256_loadu_ps(from.add(r * stride));
                // Pairs, then fours, within each half of a register; then halves change places.
                let pairs = |r: usize| (_mm256_unpacklo_ps(row(r), row(r + 1)), _mm256_unpackhi_ps(row(r), row(r + 1)));
                let fours = |r: usize| {
                    let ((a, b), (c, d)) = (pairs(r), pairs(r + 2));
                    [
                        _mm256_shuffle_ps::<0x44>(a, c),
                        _mm256_shuffle_ps::<0xee>(a, c),
                        _mm256_shuffle_ps::<0x44>(b, d),
                        _mm256_shuffle_ps::<0xee>(b, d),
                    ]
                };
                let (upper, lower) = (fours(0), fours(4));
                for (r, (&u, &l)) in upper.iter().zip(&lower).enumerate() {
                    let to = target.add((k + r) * width + i);
                    if k + r < depth {
                        _mm256_storeu_ps(to, _mm256_permute2f128_ps::<0x20>(u, l));
                    }
                    if k + r + 4 < depth {
                        _mm256_storeu_ps(to.add(4 * width), _mm256_permute2f128_ps::<0x31>(u, l));
                    }
                }
            }
        }
        for i in 0..rows {
            for k in (if i < whole_rows { whole_depth } else { 0 })..depth {
                *target.add(k * width + i) = *source.add(i * stride + k);
            }
        }
    }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn direct(row: &PixelRow<'_>, weights: *const f32, bias: *const f32, relu: bool, y: *mut f32, winner: *mut u32) {
    // SAFETY: the caller keeps the contract of `direct_row`, and this function is only reached where the set is.
    unsafe { direct_row::<__m256, 2, 1>(row, weights, bias, relu, y, winner) }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn direct_narrow(
    row: &PixelRow<'_>,
    weights: *const f32,
    bias: *const f32,
    relu: bool,
    y: *mut f32,
    winner: *mut u32,
) {
    // SAFETY: the caller keeps the contract of `direct_row`, and this function is only reached where the set is.
    unsafe { direct_row::<__m256, 1, 2>(row, weights, bias, relu, y, winner) }
}

pub(super) static DIRECT: Direct = Direct::new(16, direct, (8, direct_narrow));

/// [`super::winners::seen_by_winners`] for this set.
///
/// # Safety
/// The machine has the set.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn seen_by_winners(winners: &Winners<'_>, rows: usize, sums: &mut [[f32; ROW]; MAX_ROWS]) {
    // SAFETY: the caller vouches for the set.
    unsafe { seen_by_winners_of::<__m256, 1>(winners, rows, sums) }
}

/// Runs `body` compiled for this set.
///
/// # Safety
/// The machine has the set.
#[target_feature(enable = "avx2,fma")]
#[inline]
pub(super) unsafe fn call<T>(body: impl FnOnce() -> T) -> T {
    body()
}
