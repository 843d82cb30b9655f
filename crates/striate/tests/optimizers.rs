//! Every optimizer against values recorded from an independent implementation in float64
//! (`tests/reference/optimizers.py`).

use serde::Deserialize;
use striate::optim::OptimizerOptions;

#[derive(Deserialize)]
struct Reference {
    start: Vec<f32>,
    gradients: Vec<Vec<f32>>,
    cases: Vec<Case>,
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
