//! x86-64 with AVX-512F: a block of 12 x 32 in 24 of the 32 registers.

use super::direct::{Direct, PixelRow, direct_row};
use super::generic::{Vector, tile_for};
use super::interleaved::interleaved_for;
use std::arch::x86_64::*;

impl Vector for __m512 {
    const LANES: usize = 16;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn splat(p: *const f32) -> Self {
        // SAFETY: the caller vouches for the instruction set and that `p` is readable.
        unsafe { _mm512_set1_ps(*p) }
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller vouches for the instruction set and for 16 numbers at `p`.
        unsafe { _mm512_loadu_ps(p) }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller vouches for the instruction set and for 16 writable numbers at `p`.
        unsafe { _mm512_storeu_ps(p, self) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { _mm512_add_ps(self, other) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, a: Self, b: Self) -> Self {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { _mm512_fmadd_ps(a, b, self) }
    }

    #[inline(always)]
    unsafe fn larger(self, tag: Self, other: Self, other_tag: Self) -> (Self, Self) {
        // SAFETY: the caller vouches for the instruction set.
        unsafe {
            let greater = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(other, self);
            let wins = greater | _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(other, other);
            (_mm512_mask_blend_ps(wins, self, other), _mm512_mask_blend_ps(wins, tag, other_tag))
        }
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { _mm512_reduce_add_ps(self) }
    }
}

tile_for!(__m512, 12 rows, 4 last rows, 2 wide, shifted 8 rows, "avx512f,avx512vl,avx2,fma");
interleaved_for!(__m512, 4 pixels, 5 taps, "avx512f,avx512vl,avx2,fma");

#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
unsafe fn direct(row: &PixelRow<'_>, weights: *const f32, bias: *const f32, relu: bool, y: *mut f32, winner: *mut u32) {
    // SAFETY: the caller keeps the contract of `direct_row`, and this function is only reached where the set is.
    unsafe { direct_row::<__m512, 2, 2>(row, weights, bias, relu, y, winner) }
}

#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
unsafe fn direct_narrow(
    row: &PixelRow<'_>,
    weights: *const f32,
    bias: *const f32,
    relu: bool,
    y: *mut f32,
    winner: *mut u32,
) {
    // SAFETY: the caller keeps the contract of `direct_row`, and this function is only reached where the set is.
    unsafe { direct_row::<__m512, 1, 2>(row, weights, bias, relu, y, winner) }
}

pub(super) static DIRECT: Direct = Direct::new(32, direct, (16, direct_narrow));

/// [`super::transpose::transpose`] in blocks of 16 x 16 registers; what lies outside is masked out.
///
/// # Safety
/// The machine has the set; `depth` numbers are readable at each `source + i * stride`, and `rows` (at most `width`) are
/// writable at each `target + k * width`, for `i` below `rows` and `k` below `depth`.
#[target_feature(enable = "avx512f,avx512vl")]
pub(super) unsafe fn transpose(
    source: *const f32,
    stride: usize,
    (rows, depth): (usize, usize),
    target: *mut f32,
    width: usize,
) {
    let mask = |count: usize| if count >= 16 { u16::MAX } else { (1 << count) - 1 };
    // SAFETY: the masks leave out what the caller does not vouch for: numbers beyond `depth`, rows beyond `rows`.
    unsafe {
        for i in (0..rows).step_by(16) {
            let (here, written) = ((rows - i).min(16), mask(rows - i));
            for k in (0..depth).step_by(16) {
                let readable = mask(depth - k);
                let from = source.add(i * stride + k);
                let mut row = [_mm512_setzero_ps(); 16];
                for (r, row) in row.iter_mut().enumerate().take(here) {
                    *row = _mm512_maskz_loadu_ps(readable, from.add(r * stride));
                }
                // Fours of rows within each quarter of a register; then quarters change places.
                let mut fours = [[_mm512_setzero_ps(); 4]; 4];
                for (g, four) in fours.iter_mut().enumerate() {
                    let [a, b, c, d] = [row[4 * g], row[4 * g + 1], row[4 * g + 2], row[4 * g + 3]];
                    let (ab, cd) = (_mm512_unpacklo_ps(a, b), _mm512_unpacklo_ps(c, d));
                    let (ab_high, cd_high) = (_mm512_unpackhi_ps(a, b), _mm512_unpackhi_ps(c, d));
                    *four = [
                        _mm512_shuffle_ps::<0x44>(ab, cd),
                        _mm512_shuffle_ps::<0xee>(ab, cd),
                        _mm512_shuffle_ps::<0x44>(ab_high, cd_high),
                        _mm512_shuffle_ps::<0xee>(ab_high, cd_high),
                    ];
                }
                let mut columns = [_mm512_setzero_ps(); 16];
                for j in 0..4 {
                    let [a, b, c, d] = [fours[0][j], fours[1][j], fours[2][j], fours[3][j]];
                    let (ab, cd) = (_mm512_shuffle_f32x4::<0x44>(a, b), _mm512_shuffle_f32x4::<0x44>(c, d));
                    let (ab_high, cd_high) = (_mm512_shuffle_f32x4::<0xee>(a, b), _mm512_shuffle_f32x4::<0xee>(c, d));
                    columns[j] = _mm512_shuffle_f32x4::<0x88>(ab, cd);
                    columns[4 + j] = _mm512_shuffle_f32x4::<0xdd>(ab, cd);
                    columns[8 + j] = _mm512_shuffle_f32x4::<0x88>(ab_high, cd_high);
                    columns[12 + j] = _mm512_shuffle_f32x4::<0xdd>(ab_high, cd_high);
                }
                let to = target.add(k * width + i);
                for (c, &column) in columns.iter().enumerate().take(depth - k) {
                    if here == 16 {
                        _mm512_storeu_ps(to.add(c * width), column);
                    } else {
                        _mm512_mask_storeu_ps(to.add(c * width), written, column);
                    }
                }
            }
        }
    }
}

/// Runs `body` compiled for this set.
///
/// # Safety
/// The machine has the set.
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
#[inline]
pub(super) unsafe fn call<T>(body: impl FnOnce() -> T) -> T {
    body()
}
