//! Features in two dimensions: principal components.

use ndarray::{Array2, ArrayView2};

/// Rows seen from the two directions in which they differ most.
#[derive(Clone, Debug, PartialEq)]
pub struct Pca {
    /// A point a row (N, 2), around 0.
    pub points: Array2<f32>,
    /// The two directions (2, features), of length 1, each with its largest number positive.
    pub directions: Array2<f64>,
    /// The share of the whole variance that each direction holds.
    pub explained: [f64; 2],
}

/// The first two principal components of `rows` (N, features): the eigenvectors of their covariance, by orthogonal
/// iteration in f64 until they stand still.
///
/// ```
/// let rows = ndarray::array![[0., 0., 1.], [2., 0., 1.], [4., 1., 1.], [6., 0., 1.]];
/// let pca = striate::explain::pca(rows.view());
/// assert!(pca.directions[[0, 0]] > 0.99 && pca.explained[0] > 0.95);
/// assert!((pca.explained[0] + pca.explained[1] - 1.0).abs() < 1e-9, "the third is constant");
/// ```
pub fn pca(rows: ArrayView2<'_, f32>) -> Pca {
    let (n, d) = rows.dim();
    let mut mean = vec![0.0f64; d];
    for row in rows.rows() {
        mean.iter_mut().zip(row).for_each(|(m, &v)| *m += f64::from(v) / n.max(1) as f64);
    }
    let total: f64 = rows
        .rows()
        .into_iter()
        .flat_map(|row| {
            row.to_vec().into_iter().zip(&mean).map(|(v, m)| (f64::from(v) - m).powi(2)).collect::<Vec<_>>()
        })
        .sum();
    // The covariance times a vector, without the covariance: Xᵀ (X v).
    let times = |v: &[f64]| {
        let mut out = vec![0.0f64; d];
        for row in rows.rows() {
            let along: f64 = row.iter().zip(&mean).zip(v).map(|((&x, m), v)| (f64::from(x) - m) * v).sum();
            out.iter_mut().zip(row).zip(&mean).for_each(|((o, &x), m)| *o += along * (f64::from(x) - m));
        }
        out
    };
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let unit = |v: &mut Vec<f64>| {
        let length = dot(v, v).sqrt();
        if length > 0.0 {
            v.iter_mut().for_each(|v| *v /= length);
        }
    };
    // Any start that is not orthogonal to the answer; these are as irregular as need be.
    let start = |k: usize| (0..d).map(|i| (1.0 + (i * (2 * k + 3)) as f64 * 0.754_877_666).sin()).collect::<Vec<f64>>();
    let mut vectors = [start(0), start(1)];
    let mut values = [0.0f64; 2];
    const MOST_ITERATIONS: usize = 1000;
    for _ in 0..MOST_ITERATIONS {
        let [a, b] = &mut vectors;
        unit(a);
        let overlap = dot(a, b);
        b.iter_mut().zip(&*a).for_each(|(b, a)| *b -= overlap * a);
        unit(b);
        let next = [times(a), times(b)];
        let new = [dot(&next[0], a), dot(&next[1], b)];
        let moved = [(0, &next[0], &*a), (1, &next[1], &*b)]
            .map(|(k, next, v)| {
                let rest: f64 = next.iter().zip(v).map(|(n, v)| (n - new[k] * v).powi(2)).sum();
                rest.sqrt()
            })
            .into_iter()
            .fold(0.0, f64::max);
        values = new;
        if moved <= 1e-10 * total {
            break;
        }
        vectors = next;
    }
    let [a, b] = &mut vectors;
    unit(a);
    let overlap = dot(a, b);
    b.iter_mut().zip(&*a).for_each(|(b, a)| *b -= overlap * a);
    unit(b);
    for v in &mut vectors {
        let largest = v.iter().copied().fold(0.0f64, |m, x| if x.abs() > m.abs() { x } else { m });
        if largest < 0.0 {
            v.iter_mut().for_each(|v| *v = -*v);
        }
    }
    let points = Array2::from_shape_fn((n, 2), |(i, k)| {
        rows.row(i).iter().zip(&mean).zip(&vectors[k]).map(|((&x, m), v)| (f64::from(x) - m) * v).sum::<f64>() as f32
    });
    Pca {
        points,
        directions: Array2::from_shape_fn((2, d), |(k, i)| vectors[k][i]),
        explained: values.map(|v| if total > 0.0 { v / total } else { 0.0 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, Random};

    #[test]
    fn known_directions_are_found_in_order() {
        // Three independent directions with deviations 5, 2 and 0.5, turned.
        let random = Random::new(1, Purpose::Test, 0);
        let axes = [[0.6, 0.8, 0.0], [-0.8, 0.6, 0.0], [0.0, 0.0, 1.0]];
        let rows = Array2::from_shape_fn((2000, 3), |(i, j)| {
            (0..3).map(|k| [5.0, 2.0, 0.5][k] * axes[k][j] * random.normal((3 * i + k) as u64)).sum::<f32>() + 7.0
        });
        let pca = pca(rows.view());
        for (k, axis) in axes.iter().take(2).enumerate() {
            let cosine: f64 = (0..3).map(|j| pca.directions[[k, j]] * f64::from(axis[j])).sum();
            assert!(cosine.abs() > 0.998, "{k}: {cosine}");
        }
        let overlap: f64 = (0..3).map(|j| pca.directions[[0, j]] * pca.directions[[1, j]]).sum();
        assert!(overlap.abs() < 1e-9);
        // The points' own variances are the eigenvalues, and they do not vary together.
        let moment =
            |a: usize, b: usize| pca.points.rows().into_iter().map(|r| f64::from(r[a]) * f64::from(r[b])).sum::<f64>();
        assert!(moment(0, 1).abs() < 1e-5 * moment(0, 0));
        assert!((moment(0, 0) / moment(1, 1) - pca.explained[0] / pca.explained[1]).abs() < 1e-3);
        assert!(pca.explained[0] > 0.8 && pca.explained[0] < 0.9);
    }
}
