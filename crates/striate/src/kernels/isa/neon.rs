//! AArch64: a block of 8 x 12 in 24 of the 32 registers.
// Where the build target itself has the set, the compiler counts its instructions as safe.
#![allow(unused_unsafe)]

use super::direct::{Direct, PixelRow, direct_row};
use super::generic::{Vector, tile_for};
use super::interleaved::interleaved_for;
use super::winners::{MAX_ROWS, ROW, Winners, seen_by_winners_of};
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

    #[inline(always)]
    unsafe fn larger(self, tag: Self, other: Self, other_tag: Self) -> (Self, Self) {
        // SAFETY: the caller vouches for the instruction set.
        unsafe {
            let wins = vorrq_u32(vcgtq_f32(other, self), vmvnq_u32(vceqq_f32(other, other)));
            (vbslq_f32(wins, other, self), vbslq_f32(wins, other_tag, tag))
        }
    }
}

tile_for!(float32x4_t, 8 rows, 4 last rows, 3 wide, shifted 8 rows, "neon");
interleaved_for!(float32x4_t, 4 pixels, 5 taps, "neon");

#[target_feature(enable = "neon")]
unsafe fn direct(row: &PixelRow<'_>, weights: *const f32, bias: *const f32, relu: bool, y: *mut f32, winner: *mut u32) {
    // SAFETY: the caller keeps the contract of `direct_row`, and this function is only reached where the set is.
    unsafe { direct_row::<float32x4_t, 4, 1>(row, weights, bias, relu, y, winner) }
}

#[target_feature(enable = "neon")]
unsafe fn direct_narrow(
    row: &PixelRow<'_>,
    weights: *const f32,
    bias: *const f32,
    relu: bool,
    y: *mut f32,
    winner: *mut u32,
) {
    // SAFETY: the caller keeps the contract of `direct_row`, and this function is only reached where the set is.
    unsafe { direct_row::<float32x4_t, 1, 2>(row, weights, bias, relu, y, winner) }
}

pub(super) static DIRECT: Direct = Direct::new(16, direct, (4, direct_narrow));

/// [`super::winners::seen_by_winners`] for this set.
///
/// # Safety
/// The machine has the set.
#[target_feature(enable = "neon")]
pub(super) unsafe fn seen_by_winners(winners: &Winners<'_>, rows: usize, sums: &mut [[f32; ROW]; MAX_ROWS]) {
    // SAFETY: the caller vouches for the set.
    unsafe { seen_by_winners_of::<float32x4_t, 2>(winners, rows, sums) }
}
