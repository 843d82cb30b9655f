//! Every optimizer against values recorded from an independent implementation in float64
//! (`tests/reference/optimizers.py`).

use serde::Deserialize;
use striate::optim::{Groups, Kind, OptimizerOptions};

#[derive(Deserialize)]
struct Reference {
    start: Vec<f32>,
    gradients: Vec<Vec<f32>>,
    cases: Vec<Case>,
    muon: Muon,
}

#[derive(Deserialize)]
struct Muon {
    options: OptimizerOptions,
    matrices: Vec<MatrixCase>,
}

#[derive(Deserialize)]
struct MatrixCase {
    rows: usize,
    columns: usize,
    rows_are_outputs: bool,
    after: Vec<f64>,
}

#[derive(Deserialize)]
struct Case {
    options: OptimizerOptions,
    learning_rate: f32,
    after: Vec<Vec<f64>>,
}

#[test]
fn optimizers_agree_with_the_reference() {
    let reference: Reference = serde_json::from_str(include_str!("reference/optimizers.json")).unwrap();
    for name in OptimizerOptions::NAMES {
        assert!(reference.cases.iter().any(|case| case.options.name() == *name), "no recorded values for {name}");
    }
    for Case { options, learning_rate, after } in reference.cases {
        let mut weights = reference.start.clone();
        let mut optimizer = options.build(weights.len()).unwrap();
        assert_eq!(after.len(), reference.gradients.len());
        for (step, (gradients, expected)) in reference.gradients.iter().zip(&after).enumerate() {
            optimizer.update(learning_rate, &mut weights, gradients);
            for (position, (&found, &expected)) in weights.iter().zip(expected).enumerate() {
                let difference = (f64::from(found) - expected).abs();
                assert!(
                    difference <= 1e-6 * expected.abs().max(1.0),
                    "{options}, step {step}, parameter {position}: {found} is not {expected}"
                );
            }
        }
    }
}

#[test]
fn muon_agrees_on_matrices() {
    let reference: Reference = serde_json::from_str(include_str!("reference/optimizers.json")).unwrap();
    for MatrixCase { rows, columns, rows_are_outputs, after } in reference.muon.matrices {
        let mut groups = Groups::default();
        groups.push_matrix(rows, columns, rows_are_outputs, Kind::Decayed);
        let mut weights = vec![0.0; rows * columns];
        let mut optimizer = reference.muon.options.build_grouped(&groups).unwrap();
        for step in 0..3 {
            let gradients: Vec<f32> = (0..weights.len()).map(|i| ((i * i + 7 * step) as f64).sin() as f32).collect();
            optimizer.update(0.5, &mut weights, &gradients);
        }
        for (found, expected) in weights.into_iter().zip(after) {
            // The iteration enlarges small directions, and their rounding with them, by up to 3.4445^5.
            assert!((f64::from(found) - expected).abs() < 1e-4, "{rows} x {columns}: {found} is not {expected}");
        }
    }
}
