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

/// Gives a sum's gradient to one of its inputs, through the ReLU of output `y` if there was one: writes or adds it.
pub(crate) fn pass_gradient(dy: &[f32], y: Option<&[f32]>, dx: &mut [f32], accumulate: bool) {
    // The gradient itself stands in for an output that masks nothing.
    for_chunks2(dx, dy, y.unwrap_or(dy), |dx, dy, at| {
        let masked = y.is_some();
        for ((dx, &dy), &at) in dx.iter_mut().zip(dy).zip(at) {
            let dz = if !masked || at > 0.0 { dy } else { 0.0 };
            *dx = if accumulate { *dx + dz } else { dz };
        }
    });
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
    fn relu_keeps_nan() {
        assert_eq!([relu(-1.0), relu(0.0), relu(2.0)], [0.0, 0.0, 2.0]);
        assert!(relu(f32::NAN).is_nan());
    }
}
