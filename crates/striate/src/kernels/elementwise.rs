//! Functions applied number by number.
//!
//! Each works on a chunk; `for_chunks` cuts long slices into fixed pieces for the threads.

use super::{CHUNK, isa};
use rayon::prelude::*;

/// Runs `body(output, input)` on matching chunks, in parallel where there is enough work.
pub(crate) fn for_chunks(output: &mut [f32], input: &[f32], body: impl Fn(&mut [f32], &[f32]) + Sync) {
    output
        .par_chunks_mut(CHUNK)
        .zip(input.par_chunks(CHUNK))
        .for_each(|(output, input)| isa::vectorize(|| body(output, input)));
}

/// The same with two inputs.
pub(crate) fn for_chunks2(output: &mut [f32], a: &[f32], b: &[f32], body: impl Fn(&mut [f32], &[f32], &[f32]) + Sync) {
    output
        .par_chunks_mut(CHUNK)
        .zip(a.par_chunks(CHUNK))
        .zip(b.par_chunks(CHUNK))
        .for_each(|((output, a), b)| isa::vectorize(|| body(output, a, b)));
}

/// `max(0, x)` (section 5.5.1). NaN stays NaN, so that a fault shows up in the loss.
#[inline(always)]
pub(crate) fn relu(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

/// ReLU of a slice in place.
#[inline(always)]
pub(crate) fn relu_in_place(values: &mut [f32]) {
    values.iter_mut().for_each(|v| *v = relu(*v));
}

/// Lets the gradient pass where the output was positive.
#[inline(always)]
pub(crate) fn relu_gradient(gradient: &mut [f32], output: &[f32]) {
    gradient.iter_mut().zip(output).for_each(|(g, &y)| *g = if y > 0.0 { *g } else { 0.0 });
}

/// `exp(x)` for x up to 0, within 2 units in the last place, without calls or branches so that loops over it vectorise;
/// 0 below the smallest normal number. NaN stays NaN.
///
/// `exp(x) = 2^n exp(r)` with n the whole number nearest to `x / ln 2`; the polynomial for `exp(r)`, |r| <= ln 2 / 2, is that of
/// Cephes (Moshier, 1989).
#[inline(always)]
pub(crate) fn exp_up_to_zero(x: f32) -> f32 {
    /// ln 2 in two parts: the first has so few bits that its product with n is exact.
    const LN_2: (f32, f32) = (0.693_359_4, -2.121_944_4e-4);
    /// Adding it leaves the nearest whole number in the last bits.
    const ROUND: f32 = 12_582_912.0;
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN_2.0 - n * LN_2.1;
    let p = 1.987_569_1e-4f32;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let exp_r = p * (r * r) + r + 1.0;
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    if x < -87.336_54 { 0.0 } else { exp_r * power }
}

/// `1 / (1 + exp(-x))` (section 5.5.2), without overflow for any x.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    let e = exp_up_to_zero(-x.abs());
    let small = e / (1.0 + e);
    if x < 0.0 { small } else { 1.0 - small }
}

/// Adds `bias` to every row of `rows`.
#[inline(always)]
pub(crate) fn add_bias(rows: &mut [f32], bias: &[f32]) {
    for row in rows.chunks_exact_mut(bias.len()) {
        row.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
    }
}

/// Sums rows of `gradient` into `bias`, top to bottom.
pub(crate) fn sum_rows(gradient: &[f32], bias: &mut [f32]) {
    isa::vectorize(|| {
        bias.fill(0.0);
        for row in gradient.chunks_exact(bias.len()) {
            bias.iter_mut().zip(row).for_each(|(b, g)| *b += g);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_agrees_with_f64() {
        for i in 0..=873_360 {
            let x = -1e-4 * i as f32;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp_up_to_zero(x)) - expected).abs() / expected;
            assert!(error < 2.0 * f64::from(f32::EPSILON), "{x}: {error}");
        }
        assert_eq!([0.0, -0.0].map(exp_up_to_zero), [1.0, 1.0]);
        assert_eq!([-88.0, -1e30, f32::NEG_INFINITY].map(exp_up_to_zero), [0.0; 3]);
        assert!(exp_up_to_zero(f32::NAN).is_nan());
    }

    #[test]
    fn relu_keeps_nan_and_sigmoid_stays_finite() {
        assert_eq!([relu(-1.0), relu(0.0), relu(2.0)], [0.0, 0.0, 2.0]);
        assert!(relu(f32::NAN).is_nan());
        assert_eq!(sigmoid(0.0), 0.5);
        assert_eq!(sigmoid(1e4), 1.0);
        assert_eq!(sigmoid(-1e4), 0.0);
        assert!((sigmoid(2.0) - 0.880_797).abs() < 1e-6);
        assert!((sigmoid(-2.0) - 0.119_202_92).abs() < 1e-7);
        assert!(sigmoid(f32::NAN).is_nan());
    }
}
