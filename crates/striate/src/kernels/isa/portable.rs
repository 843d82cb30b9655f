//! Plain Rust: four lanes that the compiler turns into whatever the build target has.

use super::direct::{Direct, PixelRow, direct_row};
use super::generic::{Vector, tile_for};
use super::interleaved::interleaved_for;
use super::winners::{MAX_ROWS, ROW, Winners, seen_by_winners_of};

#[derive(Clone, Copy)]
pub(super) struct Four(pub(super) [f32; 4]);

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

    #[inline(always)]
    unsafe fn larger(self, tag: Self, other: Self, other_tag: Self) -> (Self, Self) {
        let wins: [bool; 4] = std::array::from_fn(|i| other.0[i] > self.0[i] || other.0[i].is_nan());
        let choose = |a: Self, b: Self| Four(std::array::from_fn(|i| if wins[i] { b.0[i] } else { a.0[i] }));
        (choose(self, other), choose(tag, other_tag))
    }
}

tile_for!(Four, 4 rows, 2 last rows, 2 wide, shifted 4 rows);
interleaved_for!(Four, 2 pixels, 2 taps);

unsafe fn direct(row: &PixelRow<'_>, weights: *const f32, bias: *const f32, relu: bool, y: *mut f32, winner: *mut u32) {
    // SAFETY: the caller keeps the contract of `direct_row`, and this function is only reached where the set is.
    unsafe { direct_row::<Four, 2, 1>(row, weights, bias, relu, y, winner) }
}

unsafe fn direct_narrow(
    row: &PixelRow<'_>,
    weights: *const f32,
    bias: *const f32,
    relu: bool,
    y: *mut f32,
    winner: *mut u32,
) {
    // SAFETY: the caller keeps the contract of `direct_row`, and this function is only reached where the set is.
    unsafe { direct_row::<Four, 1, 2>(row, weights, bias, relu, y, winner) }
}

pub(super) static DIRECT: Direct = Direct::new(8, direct, (4, direct_narrow));

/// [`super::winners::seen_by_winners`] for this set.
///
/// # Safety
/// The machine has the set.
pub(super) unsafe fn seen_by_winners(winners: &Winners<'_>, rows: usize, sums: &mut [[f32; ROW]; MAX_ROWS]) {
    // SAFETY: the caller vouches for the set.
    unsafe { seen_by_winners_of::<Four, 2>(winners, rows, sums) }
}
