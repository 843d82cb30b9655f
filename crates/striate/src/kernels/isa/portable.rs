//! Plain Rust: four lanes that the compiler turns into whatever the build target has.

use super::generic::{Vector, tile_for};

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

tile_for!(Four, 4 rows, 2 wide);
