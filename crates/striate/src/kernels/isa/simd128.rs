//! WebAssembly with simd128: a block of 4 x 8.
// Where the build target itself has the set, the compiler counts its instructions as safe.
#![allow(unused_unsafe)]

use super::direct::{Direct, PixelRow, direct_row};
use super::generic::{Vector, tile_for};
use super::interleaved::interleaved_for;
use super::winners::{MAX_ROWS, ROW, Winners, seen_by_winners_of};
use std::arch::wasm32::*;

impl Vector for v128 {
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { f32x4_splat(0.0) }
    }

    #[inline(always)]
    unsafe fn splat(p: *const f32) -> Self {
        // SAFETY: the caller vouches for the instruction set and that `p` is readable.
        unsafe { v128_load32_splat(p.cast()) }
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller vouches for the instruction set and for 4 numbers at `p`.
        unsafe { v128_load(p.cast()) }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller vouches for the instruction set and for 4 writable numbers at `p`.
        unsafe { v128_store(p.cast(), self) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { f32x4_add(self, other) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, a: Self, b: Self) -> Self {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { f32x4_add(self, f32x4_mul(a, b)) }
    }

    #[inline(always)]
    unsafe fn larger(self, tag: Self, other: Self, other_tag: Self) -> (Self, Self) {
        let wins = v128_or(f32x4_gt(other, self), f32x4_ne(other, other));
        (v128_bitselect(other, self, wins), v128_bitselect(other_tag, tag, wins))
    }
}

tile_for!(v128, 4 rows, 2 last rows, 2 wide, shifted 4 rows, "simd128");
interleaved_for!(v128, 2 pixels, 2 taps, "simd128");

#[target_feature(enable = "simd128")]
unsafe fn direct(row: &PixelRow<'_>, weights: *const f32, bias: *const f32, relu: bool, y: *mut f32, winner: *mut u32) {
    // SAFETY: the caller keeps the contract of `direct_row`, and this function is only reached where the set is.
    unsafe { direct_row::<v128, 2, 1>(row, weights, bias, relu, y, winner) }
}

#[target_feature(enable = "simd128")]
unsafe fn direct_narrow(
    row: &PixelRow<'_>,
    weights: *const f32,
    bias: *const f32,
    relu: bool,
    y: *mut f32,
    winner: *mut u32,
) {
    // SAFETY: the caller keeps the contract of `direct_row`, and this function is only reached where the set is.
    unsafe { direct_row::<v128, 1, 2>(row, weights, bias, relu, y, winner) }
}

pub(super) static DIRECT: Direct = Direct::new(8, direct, (4, direct_narrow));

/// [`super::winners::seen_by_winners`] for this set.
///
/// # Safety
/// The machine has the set.
#[target_feature(enable = "simd128")]
pub(super) unsafe fn seen_by_winners(winners: &Winners<'_>, rows: usize, sums: &mut [[f32; ROW]; MAX_ROWS]) {
    // SAFETY: the caller vouches for the set.
    unsafe { seen_by_winners_of::<v128, 2>(winners, rows, sums) }
}
