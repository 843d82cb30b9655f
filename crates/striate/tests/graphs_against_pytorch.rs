//! Networks that are graphs against PyTorch in float64: predictions, training loss, every gradient, and what batch
//! normalisation remembers. reference/graphs.py made the values.

use ndarray::{Array4, ArrayViewD, IxDyn};
use serde::Deserialize;
use std::collections::HashMap;
use striate::layers::Role;
use striate::network::{Description, Mode, Network, Parameters, Plan, Runner};

#[derive(Deserialize)]
struct Packed {
    shape: Vec<usize>,
    values: Vec<f64>,
}

impl Packed {
    fn check(&self, what: &str, found: ArrayViewD<'_, f32>) {
        assert_eq!(found.shape(), self.shape, "{what}");
        let scale = self.values.iter().fold(1.0f64, |m, v| m.max(v.abs()));
        for (i, (&found, &expected)) in found.iter().zip(&self.values).enumerate() {
            assert!(
                (f64::from(found) - expected).abs() <= 1e-4 * scale,
                "{what}, element {i}: {found}, expected {expected}"
            );
        }
    }
}

#[derive(Deserialize)]
struct Case {
    description: Description,
    x: Packed,
    labels: Vec<usize>,
    parameters: HashMap<String, Packed>,
    predicted: Packed,
    loss: f64,
    gradients: HashMap<String, Packed>,
    statistics: HashMap<String, Packed>,
}

#[derive(Deserialize)]
struct Reference {
    cases: Vec<Case>,
}

impl Case {
    fn network(&self) -> Network {
        let shapes = self.parameters.iter().map(|(name, packed)| (name.clone(), packed.shape.clone())).collect();
        let mut parameters = Parameters::zeros(shapes).unwrap();
        for (name, packed) in &self.parameters {
            let values = packed.values.iter().map(|&v| v as f32);
            parameters.get_mut(name).unwrap().iter_mut().zip(values).for_each(|(p, v)| *p = v);
        }
        Network::with_parameters(self.description.clone(), parameters).unwrap()
    }

    fn check(&self) {
        let name = &self.description.name;
        let network = self.network();
        let shape = IxDyn(&self.x.shape);
        let x = ndarray::ArrayD::from_shape_vec(shape, self.x.values.iter().map(|&v| v as f32).collect()).unwrap();
        let x: Array4<f32> = x.into_dimensionality().unwrap();
        // As the last layer softmax is left out, and the reference has it.
        let logits = network.predict(x.view()).unwrap();
        let ends_in_softmax = self.description.layers.last().is_some_and(|l| l.name == "last");
        let predicted =
            if ends_in_softmax { striate::layers::Softmax::new().forward(&logits).unwrap() } else { logits };
        self.predicted.check(&format!("{name}: prediction"), predicted.view().into_dyn());
        if ends_in_softmax {
            return;
        }
        let plan = Plan::new(&self.description, self.labels.len(), Mode::Training).unwrap();
        let mut runner = Runner::new(plan).unwrap();
        runner.input_mut().copy_from_slice(x.as_slice().unwrap());
        runner.labels_mut().copy_from_slice(&self.labels);
        let mut gradients = network.parameters().zeros_like();
        // A gradient must not depend on what was there before.
        gradients.as_mut_slice().fill(f32::NAN);
        for _ in 0..2 {
            let result = runner.loss_and_gradient(network.parameters(), &mut gradients, None);
            assert!((f64::from(result.loss) - self.loss).abs() <= 1e-5 * self.loss.max(1.0), "{name}: {}", result.loss);
        }
        for spec in network.parameters().specs() {
            let (gradient, value) = (gradients.get(&spec.name).unwrap(), network.parameters().get(&spec.name).unwrap());
            let what = format!("{name}: {}", spec.name);
            if spec.role == Role::Statistic {
                self.statistics[&spec.name].check(&what, (&value - &gradient).view());
            } else {
                self.gradients[&spec.name].check(&what, gradient);
            }
        }
    }
}

fn cases() -> Vec<Case> {
    serde_json::from_str::<Reference>(include_str!("reference/graphs.json")).unwrap().cases
}

#[test]
fn graphs() {
    let cases = cases();
    assert!(cases.len() > 15);
    cases.iter().for_each(Case::check);
}

#[test]
fn what_is_fused() {
    let names = |case: &str, mode| {
        let all = cases();
        let description = &all.iter().find(|c| c.description.name == case).unwrap().description;
        Plan::new(description, 2, mode).unwrap().step_names().map(String::from).collect::<Vec<_>>()
    };
    let residual = names("residual", Mode::Training);
    assert!(residual.contains(&"a2n+aa+ar".to_string()), "{residual:?}");
    assert!(residual.contains(&"bsn+ba+br".to_string()), "{residual:?}");
    let shortcuts = names("shortcuts", Mode::Training);
    assert!(shortcuts.contains(&"u copy".to_string()), "{shortcuts:?}");
    assert!(!shortcuts.iter().any(|step| step.contains("flat")), "{shortcuts:?}");
}
