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

tile_for!(__m512, 12 rows, 2 wide, "avx512f,avx2,fma");
interleaved_for!(__m512, 4 pixels, 5 taps, "avx512f,avx2,fma");

#[target_feature(enable = "avx512f,avx2,fma")]
unsafe fn direct(row: &PixelRow<'_>, weights: *const f32, bias: *const f32, relu: bool, y: *mut f32, winner: *mut u32) {
    // SAFETY: the caller keeps the contract of `direct_row`, and this function is only reached where the set is.
    unsafe { direct_row::<__m512, 2, 1>(row, weights, bias, relu, y, winner) }
}

#[target_feature(enable = "avx512f,avx2,fma")]
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

/// Runs `body` compiled for this set.
///
/// # Safety
/// The machine has the set.
#[target_feature(enable = "avx512f,avx2,fma")]
#[inline]
pub(super) unsafe fn call<T>(body: impl FnOnce() -> T) -> T {
    body()
}
