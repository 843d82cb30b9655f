//! `y = x · W + b` with W in bfloat16: for inference with weights so large that reading them is what takes the time.
//!
//! W is packed in panels of columns, so that each task reads one stream from memory; of a batch, four rows at a time go
//! over a panel while it is in the caches. Every row is computed as if it were alone: a prediction does not depend on the
//! batch it is in.

use super::affine::Geometry;
use super::elementwise;
use super::isa::{self, bf16::MAX_ROWS};
use rayon::prelude::*;

/// Weights from which a layer is worth it: 4 MiB as f32, more than the caches of a core give back at every run.
const LEAST_WEIGHTS: usize = 1 << 20;

/// Whether bfloat16 wins.
pub(crate) fn wins(g: &Geometry) -> bool {
    g.inputs.saturating_mul(g.outputs) >= LEAST_WEIGHTS
}

/// The nearest bfloat16, of two equally near the even one; NaN stays NaN.
pub(crate) fn round(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    // Half a unit of the last place kept, or just below it where the place is even; past the largest finite that is infinity.
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// Numbers of f32 in which [`prepare`] keeps the weights.
pub(crate) fn prepared_len(g: &Geometry) -> usize {
    // Panels of an even number of columns: two weights to an f32.
    g.inputs * g.outputs.next_multiple_of(isa::bf16::bf16().columns) / 2
}

/// Numbers of workspace [`forward`] needs.
pub(crate) fn workspace(g: &Geometry) -> usize {
    g.batch * g.outputs.next_multiple_of(isa::bf16::bf16().columns)
}

/// Packs W (inputs, outputs), rounded.
pub(crate) fn prepare(g: &Geometry, w: &[f32], prepared: &mut [f32]) {
    let columns = isa::bf16::bf16().columns;
    let prepared: &mut [u16] = bytemuck::cast_slice_mut(prepared);
    prepared.par_chunks_exact_mut(g.inputs * columns).enumerate().for_each(|(i, panel)| {
        let first = i * columns;
        let width = columns.min(g.outputs - first);
        for (target, row) in panel.chunks_exact_mut(columns).zip(w.chunks_exact(g.outputs)) {
            target[width..].fill(0);
            target.iter_mut().zip(&row[first..first + width]).for_each(|(t, &w)| *t = round(w));
        }
    });
}

/// `y = x · W + b`, then ReLU if asked, with W from [`prepare`].
pub(crate) fn forward(
    g: &Geometry,
    x: &[f32],
    prepared: &[f32],
    b: &[f32],
    relu: bool,
    y: &mut [f32],
    workspace: &mut [f32],
) {
    let kernels = isa::bf16::bf16();
    let columns = kernels.columns;
    let panels: &[u16] = bytemuck::cast_slice(prepared);
    // Sums of one panel for the whole batch lie together, so that tasks share no row.
    let sums = &mut workspace[..g.batch * g.outputs.next_multiple_of(columns)];
    sums.par_chunks_exact_mut(g.batch * columns).zip(panels.par_chunks_exact(g.inputs * columns)).for_each(
        |(sums, panel)| {
            for (rows, sums) in x.chunks(MAX_ROWS * g.inputs).zip(sums.chunks_mut(MAX_ROWS * columns)) {
                kernels.run(g.inputs, rows, g.inputs, panel, sums);
            }
        },
    );
    let sums = &*sums;
    y.par_chunks_exact_mut(g.outputs).enumerate().for_each(|(row, y)| {
        for (y, sums) in y.chunks_mut(columns).zip(sums.chunks_exact(g.batch * columns)) {
            y.copy_from_slice(&sums[row * columns..][..y.len()]);
        }
        isa::vectorize(|| {
            elementwise::add_bias(y, b);
            if relu {
                elementwise::relu_in_place(y);
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, Random};
    use proptest::prelude::*;

    #[test]
    fn rounding() {
        let wide = |half: u16| f32::from_bits(u32::from(half) << 16);
        for exact in [0.0, -0.0, 1.0, -1.5, 2.0f32.powi(-126), f32::INFINITY, 256.0] {
            assert_eq!(wide(round(exact)).to_bits(), exact.to_bits());
        }
        // Eight bits count: 257 lies between 256 and 258, 259 between 258 and 260; ties go to the even one.
        assert_eq!([256.9, 257.0, 257.1, 259.0, -257.0].map(|v| wide(round(v))), [256.0, 256.0, 258.0, 260.0, -256.0]);
        assert_eq!(wide(round(f32::MAX)), f32::INFINITY);
        assert!(wide(round(f32::NAN)).is_nan() && wide(round(f32::from_bits(0x7f80_0001))).is_nan());
    }

    proptest! {
        #[test]
        fn odd_sizes_agree_with_f64_and_rows_do_not_depend_on_their_batch(
            batch in 1usize..11, inputs in 1usize..70, outputs in 1usize..150, relu: bool
        ) {
            let random = Random::new(3, Purpose::Test, 0);
            let numbers = |stream: u64, len: usize| -> Vec<f32> {
                (0..len).map(|i| random.normal(stream << 32 | i as u64)).collect()
            };
            let g = Geometry { batch, inputs, outputs };
            let (x, w, b) = (numbers(1, batch * inputs), numbers(2, inputs * outputs), numbers(3, outputs));
            let mut prepared = vec![0.0; prepared_len(&g)];
            prepare(&g, &w, &mut prepared);
            let mut y = vec![f32::NAN; batch * outputs];
            forward(&g, &x, &prepared, &b, relu, &mut y, &mut vec![f32::NAN; workspace(&g)]);
            for (at, &found) in y.iter().enumerate() {
                let (i, j) = (at / outputs, at % outputs);
                let rounded = |k: usize| f64::from(f32::from_bits(u32::from(round(w[k * outputs + j])) << 16));
                let sum: f64 = (0..inputs).map(|k| f64::from(x[i * inputs + k]) * rounded(k)).sum();
                let expected = sum + f64::from(b[j]);
                let expected = if relu { expected.max(0.0) } else { expected };
                prop_assert!((f64::from(found) - expected).abs() < 1e-4, "({i}, {j}): {found} {expected}");
            }
            let one = Geometry { batch: 1, ..g };
            let mut last = vec![f32::NAN; outputs];
            forward(&one, &x[(batch - 1) * inputs..], &prepared, &b, relu, &mut last, &mut vec![0.0; workspace(&one)]);
            prop_assert_eq!(&last, &y[(batch - 1) * outputs..]);
        }
    }
}
