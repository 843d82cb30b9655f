//! Turning rows into columns: packing a side of a product whose vectors lie in one piece each.

#[cfg(target_arch = "x86_64")]
use super::Isa;

/// Writes row `i` of `source` (each `depth` long, the next `stride` further), for each `i` below `rows`, into column `i`
/// of `target`: its number `k` to `target[k * width + i]`. Leaves the other columns alone.
#[inline]
pub(crate) fn transpose(
    source: &[f32],
    stride: usize,
    (rows, depth): (usize, usize),
    target: &mut [f32],
    width: usize,
) {
    if rows == 0 || depth == 0 {
        return;
    }
    assert!((rows - 1) * stride + depth <= source.len(), "the rows reach beyond the source");
    assert!((depth - 1) * width + rows <= target.len() && rows <= width, "the columns reach beyond the target");
    match super::active() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `active` returns only sets whose features were detected on this machine; the lengths were checked just
        // now.
        Isa::Avx512 => unsafe {
            super::avx512::transpose(source.as_ptr(), stride, (rows, depth), target.as_mut_ptr(), width)
        },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => unsafe {
            let readable = source.len() - (rows - 1) * stride;
            super::avx2::transpose(source.as_ptr(), stride, (rows, depth, readable), target.as_mut_ptr(), width)
        },
        _ => {
            // A few numbers of all rows at a time, so that the target is written while it is in the cache.
            for k in (0..depth).step_by(16) {
                for (i, row) in source.chunks(stride.max(1)).take(rows).enumerate() {
                    let column = target[k * width + i..].iter_mut().step_by(width);
                    row[k..depth.min(k + 16)].iter().zip(column).for_each(|(&value, target)| *target = value);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_number_lands_in_its_place(rows in 1usize..35, depth in 1usize..40, gap in 0usize..3, room in 0usize..3) {
            let (stride, width) = (depth + gap, rows + room);
            let source: Vec<f32> = (0..rows * stride).map(|i| i as f32).collect();
            let mut target = vec![-1.0; depth * width];
            transpose(&source, stride, (rows, depth), &mut target, width);
            for (k, column) in target.chunks_exact(width).enumerate() {
                for (i, &found) in column.iter().enumerate() {
                    prop_assert_eq!(found, if i < rows { source[i * stride + k] } else { -1.0 });
                }
            }
        }
    }
}
