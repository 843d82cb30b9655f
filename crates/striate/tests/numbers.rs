//! Numbers at their limits: logits of any size, sums over ten million numbers, and nothing that is left to the slow range
//! below the normal numbers.

use ndarray::{Array1, Array2, Array4, arr1};
use striate::layers::{
    Activation, AdaptivePooling, AdaptivePoolingOptions, BatchNorm, BatchNormOptions, Convolution, Function, Gelu,
    GeluOptions, HardSwishOptions, Pooling, Sigmoid, SigmoidOptions, SiluOptions, Softmax, SoftmaxWithLoss,
    TanhOptions, Target,
};
use striate::random::{Purpose, Random};
use striate::shape::Window;

/// Rows of logits that rounding, overflow or `log(0)` could spoil.
fn extreme() -> Array2<f32> {
    let random = Random::new(5, Purpose::Test, 0);
    let classes = 7;
    let mut rows: Vec<Vec<f32>> = Vec::new();
    for base in [0.0f32, 1.0, -1.0, 1e4, -1e4, 88.7, -104.0, 3e38, -3e38, f32::MAX, f32::MIN] {
        rows.push(vec![base; classes]);
        rows.push((0..classes).map(|i| if i == 3 { base } else { 0.0 }).collect());
        rows.push((0..classes).map(|i| if i == 3 { 0.0 } else { base }).collect());
        rows.push((0..classes).map(|i| if i % 2 == 0 { base } else { -base }).collect());
    }
    for scale in [1e-30f32, 1e-3, 1.0, 20.0, 100.0, 1e4, 1e30] {
        for row in 0..20 {
            rows.push((0..classes).map(|i| scale * random.normal((row * classes + i) as u64)).collect());
        }
    }
    // A class that is masked out.
    rows.push(vec![f32::NEG_INFINITY, 0.5, 0.25, -1.0, 0.0, 2.0, f32::NEG_INFINITY]);
    Array2::from_shape_fn((rows.len(), classes), |(row, i)| rows[row][i])
}

/// Probabilities and the logarithm of their sum before division, in f64.
fn exact(row: &[f32]) -> (Vec<f64>, f64) {
    let largest = row.iter().fold(f64::NEG_INFINITY, |m, &v| m.max(f64::from(v)));
    let powers: Vec<f64> = row.iter().map(|&v| (f64::from(v) - largest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    (powers.iter().map(|p| p / sum).collect(), largest + sum.ln())
}

#[test]
fn softmax_and_loss_of_extreme_logits_are_exact() {
    let logits = extreme();
    let probabilities = Softmax::new().forward(&logits).unwrap();
    for (row, found) in logits.rows().into_iter().zip(probabilities.rows()) {
        let row = row.to_vec();
        let (expected, log_sum) = exact(&row);
        for (found, expected) in found.iter().zip(&expected) {
            assert!((f64::from(*found) - expected).abs() <= 1e-6, "{row:?}: {found}, expected {expected}");
        }
        let one = Array2::from_shape_vec((1, row.len()), row.clone()).unwrap();
        for label in (0..row.len()).filter(|&label| row[label].is_finite()) {
            let mut layer = SoftmaxWithLoss::new();
            let loss = f64::from(layer.forward(&one, Target::Labels(&[label])).unwrap());
            let reference = log_sum - f64::from(row[label]);
            // Between the ends of the range a loss is larger than any f32.
            if reference <= f64::from(f32::MAX) {
                assert!((loss - reference).abs() <= 1e-6 * reference.max(1.0), "{row:?}: {loss}, expected {reference}");
            } else {
                assert_eq!(loss, f64::INFINITY, "{row:?}");
            }
            let gradient = layer.backward().unwrap();
            for (i, (found, p)) in gradient.iter().zip(&expected).enumerate() {
                let expected = p - f64::from(u8::from(i == label));
                assert!((f64::from(*found) - expected).abs() <= 1e-6, "{row:?}: {found}, expected {expected}");
            }
        }
    }
}

const TEN_MILLION: usize = 10_000_000;

/// Numbers around 0.1 with a deviation of 0.03: summed naively in f32, ten million of them lose the second digit.
fn many() -> Array4<f32> {
    let random = Random::new(6, Purpose::Test, 0);
    Array4::from_shape_fn((10, 1, 1000, 1000), |(n, _, y, x)| {
        0.1 + 0.1 * (random.uniform((n * 1_000_000 + y * 1000 + x) as u64) - 0.5)
    })
}

fn six_digits(what: &str, found: f32, expected: f64) {
    assert!((f64::from(found) - expected).abs() <= 1e-6 * expected.abs(), "{what}: {found}, expected {expected}");
}

#[test]
fn sums_over_ten_million_numbers_keep_six_digits() {
    let x = many();
    assert_eq!(x.len(), TEN_MILLION);
    let count = TEN_MILLION as f64;
    let sum: f64 = x.iter().map(|&v| f64::from(v)).sum();
    let mean = sum / count;
    let squares: f64 = x.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
    let variance = x.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / (count - 1.0);

    let mut norm = BatchNorm::new(1, BatchNormOptions { momentum: 1.0, ..BatchNormOptions::default() }).unwrap();
    // What it remembers changes by a step: from the usual start, a variance of 1, the first is 1 less a little.
    norm.forward(&x, true).unwrap();
    norm.forward(&x, true).unwrap();
    six_digits("the mean of a batch normalisation", norm.running_mean[0], mean);
    six_digits("its variance", norm.running_variance[0], variance);
    norm.backward(&x).unwrap();
    six_digits("the gradient of its shift", norm.dbeta.as_ref().unwrap()[0], sum);

    // The gradients of a filter of one weight are sums over every pixel: of dy, and of x dy.
    let window = Window::square(1, 1, 0);
    let filter = Array4::from_elem((1, 1, 1, 1), 1.0);
    let mut convolution = Convolution::with_window(filter, Array1::zeros(1), window).unwrap();
    convolution.forward(&x).unwrap();
    convolution.backward(&x).unwrap();
    six_digits("the gradient of a bias", convolution.db.as_ref().unwrap()[0], sum);
    six_digits("the gradient of a filter", convolution.dw.as_ref().unwrap()[[0, 0, 0, 0]], squares);

    let image = x.into_shape_with_order((1, 1, 10_000, 1000)).unwrap();
    let mut pooling = AdaptivePooling::new(AdaptivePoolingOptions { output: (1, 1) });
    six_digits("a mean over the whole map", pooling.forward(&image).unwrap()[[0, 0, 0, 0]], mean);
    let mut window = Window::square(1, 1, 0);
    window.kernel = (10_000, 1000);
    six_digits("an average pool", Pooling::average(window).forward(&image).unwrap()[[0, 0, 0, 0]], mean);

    // A product whose inner dimension is ten million long.
    let row = image.into_shape_with_order((1, TEN_MILLION)).unwrap();
    let weights = Array2::from_elem((TEN_MILLION, 1), 1.0);
    let mut affine = striate::layers::Affine::new(weights, Array1::zeros(1)).unwrap();
    six_digits("a matrix product", affine.forward(&row).unwrap()[[0, 0]], sum);
}

#[test]
fn a_mean_loss_over_many_rows_keeps_six_digits() {
    let rows = 1_000_000;
    let random = Random::new(7, Purpose::Test, 0);
    let logits = Array2::from_shape_fn((rows, 10), |(n, i)| random.normal((n * 10 + i) as u64));
    let labels: Vec<usize> = (0..rows).map(|n| n % 10).collect();
    let reference = logits.rows().into_iter().zip(&labels).map(|(row, &label)| {
        let row = row.to_vec();
        exact(&row).1 - f64::from(row[label])
    });
    let expected = reference.sum::<f64>() / rows as f64;
    six_digits("the mean loss", SoftmaxWithLoss::new().forward(&logits, Target::Labels(&labels)).unwrap(), expected);
}

fn is_fast(value: f32) -> bool {
    value == 0.0 || value.is_normal()
}

/// Arithmetic on numbers below the normal range takes a hundred times as long on most machines. None must come up where
/// functions run out: in the tails of activations, and in the gradient of a sure network.
#[test]
fn tails_end_at_zero() {
    fn activation<F: Function>(name: &str, function: F) {
        let x: Array1<f32> = (-20_000..20_000).map(|i| i as f32 / 150.0).collect();
        let mut layer = Activation::with(function).unwrap();
        let y = layer.forward(&x);
        assert!(y.iter().all(|&v| is_fast(v)), "{name}");
        for dy in [1.0, 1e-3, 1e-6] {
            let dx = layer.backward(&Array1::from_elem(x.len(), dy)).unwrap();
            let slow = dx.iter().zip(&x).find(|(dx, _)| !is_fast(**dx));
            assert_eq!(slow, None, "{name}");
        }
    }
    activation("sigmoid", SigmoidOptions {});
    activation("tanh", TanhOptions {});
    activation("gelu", GeluOptions {});
    activation("silu", SiluOptions {});
    activation("hard swish", HardSwishOptions {});
    for batch in [1, 100, 512] {
        let logits = Array2::from_shape_fn((batch, 60), |(n, i)| -(i as f32) * (1.0 + n as f32 / batch as f32));
        let labels = vec![0; batch];
        let mut layer = SoftmaxWithLoss::new();
        layer.forward(&logits, Target::Labels(&labels)).unwrap();
        let gradient = layer.backward().unwrap();
        assert!(gradient.iter().all(|&v| is_fast(v)), "a batch of {batch}");
        assert!(Softmax::new().forward(&logits).unwrap().iter().all(|&v| is_fast(v)));
    }
}

/// What saturates must still be right.
#[test]
fn saturated_activations_have_their_limits() {
    let x = arr1(&[-1e30f32, -200.0, 200.0, 1e30]);
    assert_eq!(Sigmoid::new().forward(&x), arr1(&[0.0, 0.0, 1.0, 1.0]));
    let mut gelu = Gelu::new();
    assert_eq!(gelu.forward(&x), arr1(&[0.0, 0.0, 200.0, 1e30]));
    assert_eq!(gelu.backward(&arr1(&[1.0; 4])).unwrap(), arr1(&[0.0, 0.0, 1.0, 1.0]));
}
