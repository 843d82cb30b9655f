//! The gradient of a filter's rows along the winners of a max pooling: each adds its gradient times the window it saw.

use super::Isa;
use super::generic::Vector;

/// Numbers of a filter's row in registers; a filter may be narrower.
pub(crate) const ROW: usize = 8;

/// Rows of the tallest filter.
pub(crate) const MAX_ROWS: usize = 7;

/// What won where, and what it saw.
#[derive(Clone, Copy)]
pub(crate) struct Winners<'a> {
    /// Gradient of each pooled output.
    pub(crate) gradients: &'a [f32],
    /// Place of each one's winner in its map.
    pub(crate) places: &'a [u32],
    /// Where the window of each place of a map starts in `plane`.
    pub(crate) starts: &'a [u32],
    /// One channel of the image.
    pub(crate) plane: &'a [f32],
    /// From one row of the plane to the next.
    pub(crate) stride: usize,
}

/// Gradients of a filter of `rows` rows (at most [`MAX_ROWS`]), each [`ROW`] numbers wide.
///
/// # Panics
/// If a window reaches beyond the plane.
#[inline]
pub(crate) fn seen_by_winners(winners: &Winners<'_>, rows: usize) -> [[f32; ROW]; MAX_ROWS] {
    let mut sums = [[0.0; ROW]; MAX_ROWS];
    match super::active() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `active` returns only sets whose features were detected on this machine, and AVX-512 only with AVX2.
        Isa::Avx512 | Isa::Avx2 => unsafe { super::avx2::seen_by_winners(winners, rows, &mut sums) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        Isa::Neon => unsafe { super::neon::seen_by_winners(winners, rows, &mut sums) },
        #[cfg(target_arch = "wasm32")]
        // SAFETY: as above.
        Isa::Simd128 => unsafe { super::simd128::seen_by_winners(winners, rows, &mut sums) },
        // SAFETY: plain Rust runs everywhere.
        _ => unsafe { super::portable::seen_by_winners(winners, rows, &mut sums) },
    }
    sums
}

/// [`seen_by_winners`] for one set: `WIDE` registers a row.
///
/// # Safety
/// The machine has `V`'s instructions, and `WIDE * V::LANES` is [`ROW`].
#[inline(always)]
pub(super) unsafe fn seen_by_winners_of<V: Vector, const WIDE: usize>(
    winners: &Winners<'_>,
    rows: usize,
    sums: &mut [[f32; ROW]; MAX_ROWS],
) {
    // SAFETY: the same contract.
    unsafe {
        match rows {
            1 => add_rows::<V, WIDE, 1>(winners, sums),
            2 => add_rows::<V, WIDE, 2>(winners, sums),
            3 => add_rows::<V, WIDE, 3>(winners, sums),
            4 => add_rows::<V, WIDE, 4>(winners, sums),
            5 => add_rows::<V, WIDE, 5>(winners, sums),
            6 => add_rows::<V, WIDE, 6>(winners, sums),
            7 => add_rows::<V, WIDE, 7>(winners, sums),
            _ => unreachable!("a filter of {rows} rows does not fit"),
        }
    }
}

/// # Safety
/// As for [`seen_by_winners_of`].
#[inline(always)]
unsafe fn add_rows<V: Vector, const WIDE: usize, const ROWS: usize>(
    winners: &Winners<'_>,
    out: &mut [[f32; ROW]; MAX_ROWS],
) {
    let Winners { gradients, places, starts, plane, stride } = *winners;
    // Where the last window that fits starts.
    let last = plane.len().checked_sub((ROWS - 1) * stride + ROW).expect("a window is larger than the plane");
    // SAFETY: the caller vouches for the instructions; each window's start is checked; rows of `out` are ROW wide.
    unsafe {
        // Two sums at a time, to hide the latency of the additions.
        let mut sums = [[[V::zero(); WIDE]; ROWS]; 2];
        let (gradient_pairs, gradient_rest) = gradients.as_chunks::<2>();
        let (place_pairs, place_rest) = places.as_chunks::<2>();
        for ([g0, g1], &[p0, p1]) in gradient_pairs.iter().zip(place_pairs) {
            add_window(&mut sums[0], g0, plane, (starts[p0 as usize], last), stride);
            add_window(&mut sums[1], g1, plane, (starts[p1 as usize], last), stride);
        }
        for (gradient, &place) in gradient_rest.iter().zip(place_rest) {
            add_window(&mut sums[0], gradient, plane, (starts[place as usize], last), stride);
        }
        let [first, second] = &sums;
        for (out, (a, b)) in out.iter_mut().zip(first.iter().zip(second)) {
            for (out, (&a, &b)) in out.chunks_exact_mut(V::LANES).zip(a.iter().zip(b)) {
                a.add(b).store(out.as_mut_ptr());
            }
        }
    }
}

/// # Safety
/// The machine has `V`'s instructions, `WIDE * V::LANES` is [`ROW`], and a window that starts at `last` lies in the plane.
#[inline(always)]
unsafe fn add_window<V: Vector, const WIDE: usize, const ROWS: usize>(
    sums: &mut [[V; WIDE]; ROWS],
    gradient: &f32,
    plane: &[f32],
    (start, last): (u32, usize),
    stride: usize,
) {
    assert!(start as usize <= last, "a window reaches beyond the plane");
    // SAFETY: the caller vouches for the instructions; the window was checked just now.
    unsafe {
        let gradient = V::splat(gradient);
        let window = plane.as_ptr().add(start as usize);
        for (i, sums) in sums.iter_mut().enumerate() {
            for (j, sum) in sums.iter_mut().enumerate() {
                *sum = sum.mul_add(gradient, V::load(window.add(i * stride + j * V::LANES)));
            }
        }
    }
}
