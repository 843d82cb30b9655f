//! Every metric against scikit-learn, PyTorch and SciPy (`tests/reference/metrics.py`).

use ndarray::Array2;
use serde::Deserialize;
use striate::train::{BINS, Calibration, Evaluation, fit_temperature};

#[derive(Deserialize)]
struct Reference {
    logits: Vec<Vec<f32>>,
    labels: Vec<usize>,
    accuracy: f64,
    top5: f64,
    loss: f64,
    confusion: Vec<Vec<usize>>,
    precision: Vec<f64>,
    recall: Vec<f64>,
    f1: Vec<f64>,
    support: Vec<usize>,
    r#macro: Macro,
    calibration: ReferenceCalibration,
    temperature: f64,
    scaled_loss: f64,
    scaled_calibration: ReferenceCalibration,
}

#[derive(Deserialize)]
struct Macro {
    precision: f64,
    recall: f64,
    f1: f64,
}

#[derive(Deserialize)]
struct ReferenceCalibration {
    expected_error: f64,
    confidence: f64,
    bins: Vec<Bin>,
}

#[derive(Deserialize)]
struct Bin {
    images: usize,
    confidence: f64,
    accuracy: f64,
}

#[track_caller]
fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-9, "{found} is not {expected}");
}

fn same_calibration(found: &Calibration, expected: &ReferenceCalibration) {
    close(found.expected_error, expected.expected_error);
    close(found.confidence, expected.confidence);
    assert_eq!((found.bins.len(), expected.bins.len()), (BINS, BINS));
    for (found, expected) in found.bins.iter().zip(&expected.bins) {
        assert_eq!(found.images, expected.images);
        close(found.confidence, expected.confidence);
        close(found.accuracy, expected.accuracy);
    }
}

#[test]
fn metrics_agree_with_the_reference() {
    let reference: Reference = serde_json::from_str(include_str!("reference/metrics.json")).unwrap();
    let logits = Array2::from_shape_vec((reference.labels.len(), 7), reference.logits.concat()).unwrap();

    let temperature = fit_temperature(logits.view(), &reference.labels).unwrap();
    // The reference looks at values alone, which are flat at the minimum; our slope is exact.
    assert!((temperature - reference.temperature).abs() < 1e-6, "{temperature} is not {}", reference.temperature);

    let found = Evaluation::of_logits(logits.view(), &reference.labels, reference.temperature).unwrap();
    close(found.accuracy, reference.accuracy);
    close(found.top5, reference.top5);
    close(found.loss, reference.loss);
    assert_eq!(found.confusion, Array2::from_shape_vec((7, 7), reference.confusion.concat()).unwrap());
    for (class, metrics) in found.classes.iter().enumerate() {
        assert_eq!(metrics.images, reference.support[class]);
        close(metrics.precision, reference.precision[class]);
        close(metrics.recall, reference.recall[class]);
        close(metrics.f1, reference.f1[class]);
    }
    close(found.macro_average.precision, reference.r#macro.precision);
    close(found.macro_average.recall, reference.r#macro.recall);
    close(found.macro_average.f1, reference.r#macro.f1);
    same_calibration(&found.calibration, &reference.calibration);
    let scaled = found.scaled.unwrap();
    close(scaled.loss, reference.scaled_loss);
    same_calibration(&scaled.calibration, &reference.scaled_calibration);
    assert!(scaled.loss < found.loss);
}
