//! WebAssembly with simd128: a block of 4 x 8.
// Where the build target itself has the set, the compiler counts its instructions as safe.
#![allow(unused_unsafe)]

use super::generic::{Vector, tile_for};
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
}

tile_for!(v128, 4 rows, 2 wide, "simd128");
