//! Plain Rust: four lanes that the compiler turns into whatever the build target has.

use super::Tile;
use super::generic::{Vector, tile};

#[derive(Clone, Copy)]
struct Four([f32; 4]);

impl Vector for Four {
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn zero() -> Self {
        Four([0.0; 4])
    }

    #[inline(always)]
    unsafe fn splat(p: *const f32) -> Self {
        // SAFETY: the caller vouches that `p` is readable.
        Four([unsafe { *p }; 4])
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller vouches for four numbers at `p`.
        Four(unsafe { p.cast::<[f32; 4]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller vouches for four writable numbers at `p`.
        unsafe { p.cast::<[f32; 4]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Four(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }

    #[inline(always)]
    unsafe fn mul_add(self, a: Self, b: Self) -> Self {
        // Not fused: without the instruction a fused multiply-add is a slow library call.
        Four(std::array::from_fn(|i| self.0[i] + a.0[i] * b.0[i]))
    }
}

unsafe fn kernel(
    depth: usize,
    a: *const f32,
    steps: (usize, usize),
    b: *const f32,
    c: *mut f32,
    stride: usize,
    accumulate: bool,
) {
    // SAFETY: the caller keeps the contract of `generic::tile`; plain Rust runs everywhere.
    unsafe { tile::<Four, 4, 2>(depth, a, steps, b, c, stride, accumulate) }
}

unsafe fn narrow(
    depth: usize,
    a: *const f32,
    steps: (usize, usize),
    b: *const f32,
    c: *mut f32,
    stride: usize,
    accumulate: bool,
) {
    // SAFETY: the caller keeps the contract of `generic::tile`; plain Rust runs everywhere.
    unsafe { tile::<Four, 4, 1>(depth, a, steps, b, c, stride, accumulate) }
}

pub(super) static TILE: Tile = Tile { rows: 4, columns: 8, kernel, narrow: (4, narrow) };
