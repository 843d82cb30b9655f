//! Features in two dimensions: principal components, and t-SNE.

use super::ExplainError;
use crate::random::{Purpose, Random};
use bhtsne::{Neighbor, tSNE};
use ndarray::{Array2, ArrayView2, Axis, s};
use rayon::prelude::*;

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

/// The options of [`tsne`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TsneOptions {
    /// About how many neighbours a point is to keep: 30, or a third of the other points where that is less.
    pub perplexity: f32,
    /// Steps downhill: 1000.
    pub steps: usize,
}

impl Default for TsneOptions {
    fn default() -> Self {
        Self { perplexity: 30.0, steps: 1000 }
    }
}

/// Points (N, 2) whose neighbours are those of `rows` (N, features): t-SNE (van der Maaten & Hinton 2008) by Barnes and Hut's
/// approximation, begun at the principal components, which keeps the large parts where those have them (Kobak & Berens 2019).
/// Tells `progress` how many steps of how many are done. Distances between far points, and sizes of clusters, say nothing.
///
/// The same rows give the same points, for any number of threads.
///
/// # Errors
/// A number that is not finite, a perplexity below 1, or a thread that could not be started.
pub fn tsne(
    rows: ArrayView2<'_, f32>,
    options: &TsneOptions,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Array2<f32>, ExplainError> {
    /// The trade between speed and exactness that the method's paper takes.
    const THETA: f32 = 0.5;
    if let Some(((image, _), &value)) = rows.indexed_iter().find(|(_, value)| !value.is_finite()) {
        return Err(ExplainError::NonFinite { image, value });
    }
    if !(1.0..=1e6).contains(&options.perplexity) {
        let (found, expected) = (options.perplexity.to_string(), "1 to a third of the images".into());
        return Err(ExplainError::Option { option: "the perplexity", found, expected });
    }
    let n = rows.nrows();
    // Only the ratios of distances matter; those of huge numbers would overflow.
    let scale = rows.iter().fold(f32::MIN_POSITIVE, |most, v| most.max(v.abs()));
    let rows = rows.mapv(|v| v / scale);
    let points = pca(rows.view()).points;
    if n < 5 {
        return Ok(points);
    }
    let perplexity = options.perplexity.min((n - 1) as f32 / 3.0);
    let neighbors = neighbors(rows.view(), ((3.0 * perplexity) as usize).clamp(1, n - 1));
    let deviation = (points.column(0).iter().map(|v| v * v).sum::<f32>() / n as f32).sqrt().max(1e-30);
    // Equal rows must not stand on one point: their forces would have no direction.
    let random = Random::new(1, Purpose::Explain, 0);
    let start: Vec<f32> = points.iter().zip(0..).map(|(v, i)| 1e-4 * v / deviation + 1e-6 * random.normal(i)).collect();
    let samples: Vec<usize> = (0..n).collect();
    // On one thread: the library's sums depend on how the work is shared out.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    let pool = pool.map_err(|error| ExplainError::Thread { reason: error.to_string() })?;
    let found = pool.install(|| {
        let mut tsne: tSNE<'_, f32, usize> = tSNE::new(&samples);
        tsne.perplexity(perplexity).epochs(options.steps).initial_embedding(start);
        tsne.epoch_callback(|step, _| progress(step + 1, options.steps));
        tsne.barnes_hut_with_neighbors(THETA, &neighbors).embedding()
    });
    Ok(Array2::from_shape_vec((n, 2), found).unwrap_or(points))
}

/// The `count` rows nearest to each row by Euclidean distance, itself left out, the nearest first.
fn neighbors(rows: ArrayView2<'_, f32>, count: usize) -> Vec<Vec<Neighbor<f32>>> {
    /// Rows whose distances to all are held at a time.
    const BLOCK: usize = 64;
    // Squares lose fewer digits around the mean.
    let mean = rows.mean_axis(Axis(0)).unwrap_or_default();
    let centred = &rows - &mean;
    let squares: Vec<f32> = centred.rows().into_iter().map(|row| row.dot(&row)).collect();
    let blocks: Vec<usize> = (0..rows.nrows()).step_by(BLOCK).collect();
    let found: Vec<Vec<Vec<Neighbor<f32>>>> = blocks
        .into_par_iter()
        .map(|start| {
            let block = centred.slice(s![start..(start + BLOCK).min(rows.nrows()), ..]);
            let products = block.dot(&centred.t());
            let nearest = |(k, products): (usize, ndarray::ArrayView1<'_, f32>)| {
                let distance = |j: usize| (squares[start + k] + squares[j] - 2.0 * products[j]).max(0.0).sqrt();
                let mut all: Vec<Neighbor<f32>> = (0..squares.len())
                    .filter(|&index| index != start + k)
                    .map(|index| Neighbor { index, distance: distance(index) })
                    .collect();
                all.sort_by(|a, b| a.distance.total_cmp(&b.distance).then(a.index.cmp(&b.index)));
                all.truncate(count);
                all
            };
            products.rows().into_iter().enumerate().map(nearest).collect()
        })
        .collect();
    found.into_iter().flatten().collect()
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

    /// Rows of known spread in many directions.
    fn ellipsoid(n: usize, d: usize) -> Array2<f32> {
        let random = Random::new(2, Purpose::Test, 0);
        let mixed = |i: usize, j: usize| {
            let own = random.normal((i * d + j) as u64) * (d - j) as f32;
            own + 0.5 * random.normal((i * d + (j + 3) % d) as u64)
        };
        Array2::from_shape_fn((n, d), |(i, j)| mixed(i, j) - 3.0)
    }

    #[test]
    fn components_are_eigenvectors_of_the_covariance() {
        let rows = ellipsoid(300, 7).mapv(f64::from);
        let centred = &rows - &rows.mean_axis(Axis(0)).unwrap();
        let covariance = centred.t().dot(&centred);
        let found = pca(rows.mapv(|v| v as f32).view());
        let products = found.directions.dot(&found.directions.t());
        for ((a, b), &product) in products.indexed_iter() {
            assert!((product - if a == b { 1.0 } else { 0.0 }).abs() < 1e-9, "not orthonormal: {products}");
        }
        let trace = covariance.diag().sum();
        let mut values = Vec::new();
        for (k, direction) in found.directions.rows().into_iter().enumerate() {
            let image = covariance.dot(&direction);
            let value = direction.dot(&image);
            let rest = (&image - &(&direction * value)).mapv(|v| v * v).sum().sqrt();
            assert!(rest < 1e-5 * trace, "{k}: {rest}");
            assert!((found.explained[k] - value / trace).abs() < 1e-6);
            values.push(value);
        }
        assert!(values[0] > values[1]);
        // No direction has more: what is left after taking the two out has no larger eigenvalue (power iteration).
        let mut v = ndarray::Array1::from_shape_fn(7, |i| 1.0 + i as f64);
        let mut value = 0.0;
        for _ in 0..500 {
            for direction in found.directions.rows() {
                v = &v - &(&direction * direction.dot(&v));
            }
            v /= v.dot(&v).sqrt();
            let next = covariance.dot(&v);
            value = v.dot(&next);
            v = next;
        }
        assert!(value <= values[1] * (1.0 + 1e-9), "{value} > {}", values[1]);
    }

    #[test]
    fn neighbours_are_those_of_a_plain_search() {
        let rows = ellipsoid(150, 5);
        let found = neighbors(rows.view(), 4);
        for (i, found) in found.iter().enumerate() {
            let distance = |j: usize| (&rows.row(i) - &rows.row(j)).mapv(|v| v * v).sum().sqrt();
            let mut all: Vec<usize> = (0..150).filter(|&j| j != i).collect();
            all.sort_by(|&a, &b| distance(a).total_cmp(&distance(b)));
            assert_eq!(found.iter().map(|n| n.index).collect::<Vec<_>>(), all[..4], "{i}");
            assert!(found.iter().all(|n| (n.distance - distance(n.index)).abs() < 1e-3));
        }
    }

    #[test]
    fn clusters_stay_together_and_the_points_are_the_same_twice() {
        // Three clusters in ten dimensions; the first two rows are equal.
        let random = Random::new(3, Purpose::Test, 0);
        let mut rows = Array2::from_shape_fn((90, 10), |(i, j)| {
            random.normal((10 * i + j) as u64) + if j == i % 3 { 12.0 } else { 0.0 }
        });
        let first = rows.row(0).to_owned();
        rows.row_mut(3).assign(&first);
        let options = TsneOptions { steps: 400, ..TsneOptions::default() };
        let told = std::sync::Mutex::new((0, 0));
        let points = tsne(rows.view(), &options, &|done, all| *told.lock().unwrap() = (done, all)).unwrap();
        assert_eq!(*told.lock().unwrap(), (400, 400));
        for (i, found) in neighbors(points.view(), 5).iter().enumerate() {
            assert!(found.iter().all(|n| n.index % 3 == i % 3), "{i}");
        }
        assert_eq!(points, tsne(rows.view(), &options, &|_, _| ()).unwrap());
    }

    #[test]
    fn what_has_no_place_is_said() {
        let nan = ndarray::array![[0.0, 1.0], [f32::NAN, 0.0]];
        let error = tsne(nan.view(), &TsneOptions::default(), &|_, _| ()).unwrap_err();
        assert!(matches!(error, ExplainError::NonFinite { image: 1, .. }), "{error}");
        let few = TsneOptions { perplexity: 0.5, ..TsneOptions::default() };
        assert!(tsne(ellipsoid(9, 2).view(), &few, &|_, _| ()).is_err());
        // Few rows, equal rows and no rows are laid out somehow.
        for n in [0, 1, 4, 5, 20] {
            for rows in [Array2::ones((n, 3)), Array2::from_shape_fn((n, 3), |(i, j)| [3e38, -3e38][(i + j) % 2])] {
                let points = tsne(rows.view(), &TsneOptions::default(), &|_, _| ()).unwrap();
                assert!(points.dim() == (n, 2) && points.iter().all(|v| v.is_finite()), "{points}");
            }
        }
    }
}
