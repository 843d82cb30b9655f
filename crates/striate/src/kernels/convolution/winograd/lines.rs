//! The transforms of one line of a tile, for both sizes of filters. A tile is transformed along its columns, then along its
//! rows ([`both_ways`]).
//!
//! `G g`, `Bᵀ d` and `Aᵀ m` evaluate two polynomials at as many places as a tile has numbers, and interpolate their
//! product: 0, 1, -1, 2, -2 and infinity for filters of 3, with 1/2 and -1/2 for filters of 5 (Lavin and Gray, 2016;
//! the places as for their F(6x6, 3x3), which has tiles of the same size).

use super::OUT;

/// `Bᵀ`, `Aᵀ`, `A`, `G` and `Gᵀ` on one line of lanes, for tiles of `SIDE` numbers and filters of `TAPS`.
pub(super) trait Lines<const SIDE: usize, const TAPS: usize> {
    /// `Bᵀ d`.
    fn input<const L: usize>(d: [[f32; L]; SIDE]) -> [[f32; L]; SIDE];
    /// `Aᵀ m`.
    fn output<const L: usize>(m: [[f32; L]; SIDE]) -> [[f32; L]; OUT];
    /// `A y`.
    fn gradient<const L: usize>(y: [[f32; L]; OUT]) -> [[f32; L]; SIDE];
    /// `G g`.
    fn filter<const L: usize>(g: [[f32; L]; TAPS]) -> [[f32; L]; SIDE];
    /// `Gᵀ u`.
    fn filter_gradient<const L: usize>(u: [[f32; L]; SIDE]) -> [[f32; L]; TAPS];
}

/// Applies `line` to every lane.
// A macro, since closures that are left out of line are not compiled for the active set.
macro_rules! each_lane {
    ($lines:ident: $from:literal -> $to:expr, |$numbers:pat_param| $line:expr) => {{
        let mut out = [[0.0; L]; $to];
        for l in 0..L {
            let mut numbers = [0.0f32; $from];
            for i in 0..$from {
                numbers[i] = $lines[i][l];
            }
            let $numbers = numbers;
            let line: [f32; $to] = $line;
            for i in 0..$to {
                out[i][l] = line[i];
            }
        }
        out
    }};
}

/// F(4x4, 3x3).
pub(super) struct Three;

impl Lines<6, 3> for Three {
    #[inline(always)]
    fn input<const L: usize>(d: [[f32; L]; 6]) -> [[f32; L]; 6] {
        each_lane!(d: 6 -> 6, |[d0, d1, d2, d3, d4, d5]| {
            let (even, odd) = (d4 - 4.0 * d2, d3 - 4.0 * d1);
            let (near, far) = (d4 - d2, 2.0 * (d3 - d1));
            [4.0 * d0 - 5.0 * d2 + d4, even + odd, even - odd, near + far, near - far, 4.0 * d1 - 5.0 * d3 + d5]
        })
    }

    #[inline(always)]
    fn output<const L: usize>(m: [[f32; L]; 6]) -> [[f32; L]; OUT] {
        each_lane!(m: 6 -> OUT, |[m0, m1, m2, m3, m4, m5]| {
            let (plus, minus, plus2, minus2) = (m1 + m2, m1 - m2, m3 + m4, m3 - m4);
            [m0 + plus + plus2, minus + 2.0 * minus2, plus + 4.0 * plus2, minus + 8.0 * minus2 + m5]
        })
    }

    #[inline(always)]
    fn gradient<const L: usize>(y: [[f32; L]; OUT]) -> [[f32; L]; 6] {
        each_lane!(y: 4 -> 6, |[y0, y1, y2, y3]| {
            let (even, odd, even4, odd8) = (y0 + y2, y1 + y3, y0 + 4.0 * y2, 2.0 * y1 + 8.0 * y3);
            [y0, even + odd, even - odd, even4 + odd8, even4 - odd8, y3]
        })
    }

    #[inline(always)]
    fn filter<const L: usize>(g: [[f32; L]; 3]) -> [[f32; L]; 6] {
        each_lane!(g: 3 -> 6, |[g0, g1, g2]| {
            let (even, even4) = ((g0 + g2) * (-1.0 / 6.0), (g0 + 4.0 * g2) * (1.0 / 24.0));
            let (odd, odd2) = (g1 * (1.0 / 6.0), g1 * (1.0 / 12.0));
            [g0 * 0.25, even - odd, even + odd, even4 + odd2, even4 - odd2, g2]
        })
    }

    #[inline(always)]
    fn filter_gradient<const L: usize>(u: [[f32; L]; 6]) -> [[f32; L]; 3] {
        each_lane!(u: 6 -> 3, |[u0, u1, u2, u3, u4, u5]| {
            let (near, far) = ((u1 + u2) * (1.0 / 6.0), u3 + u4);
            [
                u0 * 0.25 - near + far * (1.0 / 24.0),
                (u2 - u1) * (1.0 / 6.0) + (u3 - u4) * (1.0 / 12.0),
                far * (1.0 / 6.0) - near + u5,
            ]
        })
    }
}

/// F(4x4, 5x5).
pub(super) struct Five;

impl Lines<8, 5> for Five {
    #[inline(always)]
    fn input<const L: usize>(d: [[f32; L]; 8]) -> [[f32; L]; 8] {
        each_lane!(d: 8 -> 8, |[d0, d1, d2, d3, d4, d5, d6, d7]| {
            let (even, odd) = (d2 - 4.25 * d4 + d6, d1 - 4.25 * d3 + d5);
            let (even2, odd2) = (0.25 * d2 - 1.25 * d4 + d6, 0.5 * d1 - 2.5 * d3 + 2.0 * d5);
            let (half, odd_half) = (4.0 * d2 - 5.0 * d4 + d6, 2.0 * d1 - 2.5 * d3 + 0.5 * d5);
            [
                d0 - d6 + 5.25 * (d4 - d2),
                even + odd,
                even - odd,
                even2 + odd2,
                even2 - odd2,
                half + odd_half,
                half - odd_half,
                d7 - d1 + 5.25 * (d3 - d5),
            ]
        })
    }

    #[inline(always)]
    fn output<const L: usize>(m: [[f32; L]; 8]) -> [[f32; L]; OUT] {
        each_lane!(m: 8 -> OUT, |[m0, m1, m2, m3, m4, m5, m6, m7]| {
            let (plus, minus, plus2, minus2) = (m1 + m2, m1 - m2, m3 + m4, m3 - m4);
            let (half, minus_half) = (m5 + m6, m5 - m6);
            [
                m0 + plus + plus2 + half,
                minus + 2.0 * minus2 + 0.5 * minus_half,
                plus + 4.0 * plus2 + 0.25 * half,
                minus + 8.0 * minus2 + 0.125 * minus_half + m7,
            ]
        })
    }

    #[inline(always)]
    fn gradient<const L: usize>(y: [[f32; L]; OUT]) -> [[f32; L]; 8] {
        each_lane!(y: 4 -> 8, |[y0, y1, y2, y3]| {
            let (even, odd) = (y0 + y2, y1 + y3);
            let (even2, odd2) = (y0 + 4.0 * y2, 2.0 * y1 + 8.0 * y3);
            let (half, odd_half) = (y0 + 0.25 * y2, 0.5 * y1 + 0.125 * y3);
            [y0, even + odd, even - odd, even2 + odd2, even2 - odd2, half + odd_half, half - odd_half, y3]
        })
    }

    #[inline(always)]
    fn filter<const L: usize>(g: [[f32; L]; 5]) -> [[f32; L]; 8] {
        each_lane!(g: 5 -> 8, |[g0, g1, g2, g3, g4]| {
            let (even, odd) = ((g0 + g2 + g4) * (-2.0 / 9.0), (g1 + g3) * (-2.0 / 9.0));
            let (even2, odd2) = ((g0 + 4.0 * g2 + 16.0 * g4) * (1.0 / 90.0), (g1 + 4.0 * g3) * (1.0 / 45.0));
            let (half, odd_half) = ((16.0 * g0 + 4.0 * g2 + g4) * (2.0 / 45.0), (4.0 * g1 + g3) * (4.0 / 45.0));
            [g0, even + odd, even - odd, even2 + odd2, even2 - odd2, half + odd_half, half - odd_half, g4]
        })
    }

    #[inline(always)]
    fn filter_gradient<const L: usize>(u: [[f32; L]; 8]) -> [[f32; L]; 5] {
        each_lane!(u: 8 -> 5, |[u0, u1, u2, u3, u4, u5, u6, u7]| {
            let (plus, minus) = ((u1 + u2) * (-2.0 / 9.0), (u1 - u2) * (-2.0 / 9.0));
            let (plus2, minus2) = ((u3 + u4) * (1.0 / 90.0), (u3 - u4) * (1.0 / 45.0));
            let (half, minus_half) = ((u5 + u6) * (2.0 / 45.0), (u5 - u6) * (4.0 / 45.0));
            [
                u0 + plus + plus2 + 16.0 * half,
                minus + minus2 + 4.0 * minus_half,
                plus + 4.0 * plus2 + 4.0 * half,
                minus + 4.0 * minus2 + minus_half,
                plus + 16.0 * plus2 + half + u7,
            ]
        })
    }
}

/// `T s Tᵀ` for a square of lanes, where `line` is `T` on one line: place (i, j) of `s` lies at `from[(i * IN + j) * pitch..]`,
/// that of the result goes to `to[(i * TO + j) * step..]`. What `half` holds before and after means nothing: it is the caller's,
/// because to make it anew for each square would be to fill it.
#[inline(always)]
pub(super) fn both_ways<const IN: usize, const TO: usize, const L: usize>(
    (from, pitch): (&[f32], usize),
    half: &mut [[[f32; L]; IN]; TO],
    (to, step): (&mut [f32], usize),
    line: impl Fn([[f32; L]; IN]) -> [[f32; L]; TO],
) {
    // Plain loops: what closures and iterators leave out of line is not compiled for the active set.
    for j in 0..IN {
        let mut column = [[0.0; L]; IN];
        for i in 0..IN {
            load(&mut column[i], &from[(i * IN + j) * pitch..]);
        }
        let column = line(column);
        for i in 0..TO {
            half[i][j] = column[i];
        }
    }
    for i in 0..TO {
        let numbers = line(half[i]);
        for j in 0..TO {
            store(&numbers[j], &mut to[(i * TO + j) * step..]);
        }
    }
}

/// The first numbers of a slice.
#[inline(always)]
fn load<const L: usize>(lanes: &mut [f32; L], source: &[f32]) {
    if let Some(source) = source.first_chunk::<L>() {
        *lanes = *source;
    }
}

#[inline(always)]
fn store<const L: usize>(lanes: &[f32; L], target: &mut [f32]) {
    if let Some(target) = target.first_chunk_mut::<L>() {
        *target = *lanes;
    }
}
