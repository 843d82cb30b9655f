//! x86-64 with AVX2 and FMA: a block of 6 x 16 in 12 of the 16 registers.

use super::generic::{Vector, tile_for};
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
}

tile_for!(__m256, 6 rows, 2 wide, "avx2,fma");

/// Runs `body` compiled for this set.
///
/// # Safety
/// The machine has the set.
#[target_feature(enable = "avx2,fma")]
#[inline]
pub(super) unsafe fn call<T>(body: impl FnOnce() -> T) -> T {
    body()
}
