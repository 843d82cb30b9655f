//! Filters that whiten: a first convolution that starts from the statistics of the images it will see.

use super::{TrainError, check_data};
use crate::data::{Dataset, Normalization};
use crate::layers::Layer;
use crate::network::Network;

/// Patches that are counted, about: those of 5,000 images of 32x32 where they are 2x2.
const PATCHES: usize = 1_280_000;

/// Added to every variance: directions in which patches hardly differ are noise and must not become loud (the value of
/// Jordan 2024, for pixels of mean 0 and deviation 1).
const EPSILON: f64 = 5e-4;

/// Sets the filters of a network's first convolution so that it whitens: each filter is one principal direction of the
/// data's patches, divided by the deviation along it, and the second half of the filters are the first half's
/// opposites, so that nothing is lost to a ReLU (Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU",
/// section 3.2). With n numbers in a patch, filters beyond 2n keep the weights they have; with fewer, the strongest
/// directions are taken. Gives whether there was such a layer: ungrouped, first, and reading the images.
///
/// ```
/// use striate::data::{Dataset, Normalization, Pixels};
/// use striate::{models, network::Network, shape::Shape, train::whiten};
/// let pixels = (0..20 * 3 * 32 * 32).map(|i| (i % 251) as u8).collect();
/// let data = Dataset::new("noise", Shape::new(3, 32, 32), Pixels::U8(pixels), vec![0; 20], vec!["one".into()])?;
/// let mut network = Network::new(models::by_name("cifar-net", data.shape(), 10)?, 1)?;
/// assert!(whiten(&mut network, &data, &Normalization::identity())?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Data that does not fit the network.
pub fn whiten(network: &mut Network, data: &Dataset, normalization: &Normalization) -> Result<bool, TrainError> {
    check_data(data, network.input(), normalization)?;
    let shape = network.input();
    let window = match network.description().layers.first().map(|named| &named.layer) {
        Some(Layer::Convolution(options)) if options.groups == 1 => options.window,
        _ => return Ok(false),
    };
    let (kernel, dilation) = (window.kernel, window.dilation);
    let span = |axis: fn((usize, usize)) -> usize| (axis(kernel) - 1) * axis(dilation);
    let (tall, wide) = (span(|pair| pair.0), span(|pair| pair.1));
    let size = shape.channels * kernel.0 * kernel.1;
    if tall >= shape.height || wide >= shape.width {
        return Ok(false);
    }
    // Patches one window apart are as good as all of them.
    let mut sums = vec![0.0; size * size];
    let (mut patch, mut patches) = (vec![0.0f64; size], 0u64);
    let in_image = (shape.height - tall).div_ceil(kernel.0) * (shape.width - wide).div_ceil(kernel.1);
    let images = data.len().min(PATCHES.div_ceil(in_image));
    for index in 0..images {
        // Spread over the data, which may be sorted by class.
        let index = index * data.len() / images;
        let image = data.batch(index..index + 1, normalization);
        for top in (0..shape.height - tall).step_by(kernel.0) {
            for left in (0..shape.width - wide).step_by(kernel.1) {
                let mut at = 0;
                for c in 0..shape.channels {
                    for y in 0..kernel.0 {
                        for x in 0..kernel.1 {
                            patch[at] = image[[0, c, top + y * dilation.0, left + x * dilation.1]].into();
                            at += 1;
                        }
                    }
                }
                for (row, a) in sums.chunks_exact_mut(size).zip(&patch) {
                    row.iter_mut().zip(&patch).for_each(|(sum, b)| *sum += a * b);
                }
                patches += 1;
            }
        }
    }
    sums.iter_mut().for_each(|sum| *sum /= patches.max(1) as f64);
    let directions = eigenvectors(sums, size);
    let Some(spec) = network.parameters().specs().first().cloned() else { return Ok(false) };
    let filters = &mut network.parameters_mut().as_mut_slice()[spec.range];
    let half = (filters.len() / size / 2).min(size);
    for (i, (variance, direction)) in directions.iter().take(half).enumerate() {
        let scale = 1.0 / (variance.max(0.0) + EPSILON).sqrt();
        for (k, v) in direction.iter().enumerate() {
            filters[i * size + k] = (v * scale) as f32;
            filters[(half + i) * size + k] = (-v * scale) as f32;
        }
    }
    Ok(true)
}

/// Eigenvalues, largest first, with their eigenvectors, of a symmetric matrix: by Jacobi's rotations, which make one pair
/// of entries zero at a time.
fn eigenvectors(mut a: Vec<f64>, n: usize) -> Vec<(f64, Vec<f64>)> {
    let mut v: Vec<f64> = (0..n * n).map(|i| if i / n == i % n { 1.0 } else { 0.0 }).collect();
    // Convergence is quadratic; a handful of sweeps is usual.
    for _ in 0..50 {
        let off: f64 = (0..n * n).filter(|i| i / n != i % n).map(|i| a[i] * a[i]).sum();
        let all: f64 = a.iter().map(|x| x * x).sum();
        if off <= 1e-24 * all {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                if a[p * n + q] == 0.0 {
                    continue;
                }
                let theta = (a[q * n + q] - a[p * n + p]) / (2.0 * a[p * n + q]);
                let t = theta.signum() / (theta.abs() + theta.hypot(1.0));
                let cos = 1.0 / t.hypot(1.0);
                let sin = t * cos;
                for k in 0..n {
                    let (x, y) = (a[k * n + p], a[k * n + q]);
                    (a[k * n + p], a[k * n + q]) = (cos * x - sin * y, sin * x + cos * y);
                    let (x, y) = (v[k * n + p], v[k * n + q]);
                    (v[k * n + p], v[k * n + q]) = (cos * x - sin * y, sin * x + cos * y);
                }
                for k in 0..n {
                    let (x, y) = (a[p * n + k], a[q * n + k]);
                    (a[p * n + k], a[q * n + k]) = (cos * x - sin * y, sin * x + cos * y);
                }
            }
        }
    }
    let mut pairs: Vec<(f64, Vec<f64>)> =
        (0..n).map(|i| (a[i * n + i], (0..n).map(|k| v[k * n + i]).collect())).collect();
    pairs.sort_by(|a, b| b.0.total_cmp(&a.0));
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Pixels;
    use crate::random::{Purpose, Random};
    use crate::shape::Shape;

    #[test]
    fn eigenvectors_of_a_symmetric_matrix() {
        let n = 7;
        let random = Random::new(3, Purpose::Test, 0);
        let half: Vec<f64> = (0..n * n).map(|i| f64::from(random.normal(i as u64))).collect();
        let a: Vec<f64> = (0..n * n).map(|i| half[i] + half[i % n * n + i / n]).collect();
        let pairs = eigenvectors(a.clone(), n);
        assert!(pairs.windows(2).all(|two| two[0].0 >= two[1].0));
        for (i, (value, vector)) in pairs.iter().enumerate() {
            for (row, v) in a.chunks(n).zip(vector) {
                let product: f64 = row.iter().zip(vector).map(|(a, v)| a * v).sum();
                assert!((product - value * v).abs() < 1e-9);
            }
            for (k, (_, other)) in pairs.iter().enumerate() {
                let dot: f64 = vector.iter().zip(other).map(|(a, b)| a * b).sum();
                assert!((dot - f64::from(u8::from(i == k))).abs() < 1e-9);
            }
        }
        assert_eq!(eigenvectors(vec![0.0; 4], 2), [(0.0, vec![1.0, 0.0]), (0.0, vec![0.0, 1.0])]);
    }

    #[test]
    fn outputs_are_uncorrelated_with_variance_one() {
        // Each pixel is partly its neighbours, as in pictures.
        let shape = Shape::new(3, 32, 32);
        let random = Random::new(5, Purpose::Test, 0);
        let mut level = 0.0;
        let pixels: Vec<u8> = (0..30 * shape.len())
            .map(|i| {
                level = 0.8 * level + 20.0 * random.normal(i as u64);
                (128.0 + level).clamp(0.0, 255.0) as u8
            })
            .collect();
        let data = Dataset::new("walk", shape, Pixels::U8(pixels), vec![0; 30], vec!["one".into()]).unwrap();
        let normalization = data.normalization();
        let mut network = Network::new(crate::models::by_name("cifar-net", shape, 10).unwrap(), 1).unwrap();
        assert!(whiten(&mut network, &data, &normalization).unwrap());
        let filters = network.parameters().iter().next().unwrap().1.into_owned();
        assert_eq!(filters.shape(), [24, 3, 2, 2]);
        let mut sums = [[0.0f64; 24]; 24];
        let x = data.batch(0..30, &normalization);
        let mut count = 0.0;
        for image in 0..30 {
            for (top, left) in (0..256).map(|i| (i / 16 * 2, i % 16 * 2)) {
                let output = |f: usize| -> f64 {
                    let places = (0..12).map(|k| (k / 4, k / 2 % 2, k % 2));
                    places.map(|(c, y, z)| f64::from(filters[[f, c, y, z]] * x[[image, c, top + y, left + z]])).sum()
                };
                let outputs: Vec<f64> = (0..24).map(output).collect();
                for (row, a) in sums.iter_mut().zip(&outputs) {
                    row.iter_mut().zip(&outputs).for_each(|(sum, b)| *sum += a * b);
                }
                count += 1.0;
            }
        }
        for (i, row) in sums.iter().enumerate() {
            for (k, sum) in row.iter().enumerate() {
                // The second half are the first half's opposites.
                let expected = [1.0, -1.0][usize::from(i != k)] * f64::from(u8::from(i % 12 == k % 12));
                assert!((sum / count - expected).abs() < 0.02, "{i}, {k}: {}", sum / count);
            }
        }
        let mut dense = Network::new(crate::models::by_name("mlp", shape, 10).unwrap(), 1).unwrap();
        assert!(!whiten(&mut dense, &data, &normalization).unwrap());
    }
}
