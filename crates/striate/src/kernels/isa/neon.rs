//! AArch64: a block of 8 x 12 in 24 of the 32 registers.
// Where the build target itself has the set, the compiler counts its instructions as safe.
#![allow(unused_unsafe)]

use super::generic::{Vector, tile_for};
use std::arch::aarch64::*;

impl Vector for float32x4_t {
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { vdupq_n_f32(0.0) }
    }

    #[inline(always)]
    unsafe fn splat(p: *const f32) -> Self {
        // SAFETY: the caller vouches for the instruction set and that `p` is readable.
        unsafe { vdupq_n_f32(*p) }
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller vouches for the instruction set and for 4 numbers at `p`.
        unsafe { vld1q_f32(p) }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller vouches for the instruction set and for 4 writable numbers at `p`.
        unsafe { vst1q_f32(p, self) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { vaddq_f32(self, other) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, a: Self, b: Self) -> Self {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { vfmaq_f32(self, a, b) }
    }
}

tile_for!(float32x4_t, 8 rows, 3 wide, "neon");
