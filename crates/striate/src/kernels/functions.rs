//! The exponential and what is made of it, without branches, so that loops over them vectorise; the same bits on every
//! machine, which the system's own functions do not promise.

/// `e^x` (Cephes' expf: reduction to |r| <= ln 2 / 2, then a polynomial), within 2 units in the last place. Below -86.6
/// it is 0, NaN stays NaN.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to a whole number, held in the lowest bits
    const LOW: f32 = -86.6;
    const HIGH: f32 = 88.722_84;
    let inside = if x < LOW { LOW } else { x };
    let inside = if inside > HIGH { HIGH } else { inside };
    let shifted = inside * std::f32::consts::LOG2_E + MAGIC;
    let n = shifted - MAGIC;
    // ln 2 in two parts, the first with few digits, so that n times it is exact.
    let r = (inside - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let p = 1.987_569_1e-4_f32;
    let p = p * r + 1.398_2e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 0.166_666_65;
    let p = p * r + 0.5;
    let p = (p * r * r + r) + 1.0;
    // 2^(n - 1), then doubled: 2^128 has no bits of its own.
    let half = f32::from_bits(shifted.to_bits().wrapping_add(126) << 23);
    let value = p * half * 2.0;
    let value = if x < LOW { 0.0 } else { value };
    if x > HIGH { f32::INFINITY } else { value }
}

/// `value`, or 0 where it is about to leave the range of normal numbers: arithmetic on those below takes a hundred times as
/// long on most machines.
///
/// The tail of an activation ends there, and a moment of a parameter whose gradient has become 0 (a dead unit): it shrinks
/// at every step, and by rounding never reaches 0. The processor's own switch for this is no way out: it belongs to a
/// thread, so that results would depend on whose threads run.
#[inline(always)]
pub(crate) fn flush(value: f32) -> f32 {
    if value.abs() < 1e-32 { 0.0 } else { value }
}

/// `1 / (1 + e^-x)` (section 5.5.2), without overflow for any x.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    let e = exp(-x.abs());
    let small = e / (1.0 + e);
    if x < 0.0 { small } else { 1.0 - small }
}

/// Hyperbolic tangent (Cephes' tanhf): a polynomial near 0, where the exponential would lose digits.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    let square = x * x;
    let p = -5.704_988_6e-3_f32;
    let p = p * square + 2.063_909e-2;
    let p = p * square - 5.373_971_4e-2;
    let p = p * square + 0.133_314_42;
    let p = p * square - 0.333_332_8;
    let near = x + x * square * p;
    let far = 1.0 - 2.0 / (exp(2.0 * x.abs()) + 1.0);
    let far = if x < 0.0 { -far } else { far };
    if x.abs() < 0.625 { near } else { far }
}

/// The normal distribution's Φ and its density φ at x (Φ by Abramowitz & Stegun 7.1.26, within 1e-7).
#[inline(always)]
pub(crate) fn normal(x: f32) -> (f32, f32) {
    let bell = exp(-0.5 * x * x);
    let t = 1.0 / (1.0 + 0.327_591_1 * std::f32::consts::FRAC_1_SQRT_2 * x.abs());
    let p = 1.061_405_4_f32;
    let p = p * t - 1.453_152;
    let p = p * t + 1.421_413_7;
    let p = p * t - 0.284_496_74;
    let p = p * t + 0.254_829_6;
    let tail = flush(0.5 * p * t * bell);
    let below = if x < 0.0 { tail } else { 1.0 - tail };
    (below, flush(bell * 0.398_942_3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sweep(found: impl Fn(f32) -> f32, expected: impl Fn(f64) -> f64, relative: f64, absolute: f64) {
        for i in -200_000..=200_000 {
            let x = i as f32 * 4.4e-4;
            let (found, expected) = (f64::from(found(x)), expected(f64::from(x)));
            assert!((found - expected).abs() <= relative * expected.abs() + absolute, "at {x}: {found} {expected}");
        }
    }

    #[test]
    fn they_agree_with_f64() {
        // Below e^-86.6 = 2.5e-38 they are 0.
        sweep(exp, f64::exp, 3e-7, 2.5e-38);
        sweep(sigmoid, |x| 1.0 / (1.0 + (-x).exp()), 3e-7, 2.5e-38);
        sweep(tanh, f64::tanh, 3e-7, 0.0);
        // Φ by summing the density in small steps.
        let mut below = 0.5;
        for i in 0..60_000 {
            let x = f64::from(i) * 1e-4;
            assert!((f64::from(normal(x as f32).0) - below).abs() < 3e-7, "{x}");
            assert!((f64::from(normal(-x as f32).0) - (1.0 - below)).abs() < 3e-7, "-{x}");
            let density = |x: f64| (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
            assert!((f64::from(normal(x as f32).1) - density(x)).abs() < 1e-7);
            below += 1e-4 * density(x + 5e-5);
        }
    }

    #[test]
    fn ends_and_faults() {
        assert_eq!([exp(f32::NEG_INFINITY), exp(-1e30), exp(0.0), exp(f32::INFINITY)], [0.0, 0.0, 1.0, f32::INFINITY]);
        assert!(exp(88.7).is_finite() && exp(88.73).is_infinite());
        assert!(exp(f32::NAN).is_nan() && sigmoid(f32::NAN).is_nan() && tanh(f32::NAN).is_nan());
        assert_eq!([sigmoid(0.0), sigmoid(1e4), sigmoid(-1e4)], [0.5, 1.0, 0.0]);
        assert_eq!([tanh(0.0), tanh(1e4), tanh(-1e4)], [0.0, 1.0, -1.0]);
        assert_eq!([normal(1e4).0, normal(-1e4).0], [1.0, 0.0]);
    }
}
