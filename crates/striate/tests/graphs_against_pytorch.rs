//! Networks that are graphs against PyTorch in float64: predictions, training loss, every gradient, and what batch
//! normalisation remembers. reference/graphs.py made the values. It also draws random networks by a seed, for the ignored test:
//! scripts/conformance.sh.

use ndarray::{Array4, ArrayViewD, IxDyn};
use serde::Deserialize;
use std::collections::HashMap;
use striate::layers::Role;
use striate::network::{Description, Mode, Network, Parameters, Plan, Runner, Taps};
use striate::optim::{Groups, Kind, OptimizerOptions};

#[derive(Deserialize)]
struct Packed {
    shape: Vec<usize>,
    values: Vec<f64>,
}

impl Packed {
    fn check(&self, what: &str, found: ArrayViewD<'_, f32>) {
        self.check_within(1e-4, what, found);
    }

    /// Relative to max(1, max |reference|).
    fn check_within(&self, tolerance: f64, what: &str, found: ArrayViewD<'_, f32>) {
        assert_eq!(found.shape(), self.shape, "{what}");
        let scale = self.values.iter().fold(1.0f64, |m, v| m.max(v.abs()));
        for (i, (&found, &expected)) in found.iter().zip(&self.values).enumerate() {
            assert!(
                (f64::from(found) - expected).abs() <= tolerance * scale,
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
    /// Of the first layer's outputs.
    input_gradient: Option<Packed>,
    training: Option<Training>,
}

/// Some steps with an optimizer, on the same batch.
#[derive(Deserialize)]
struct Training {
    optimizer: OptimizerOptions,
    rate: f32,
    losses: Vec<f64>,
    predicted: Packed,
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
        let mut runner = self.runner(&network, &Taps::default(), &x);
        let mut gradients = network.parameters().zeros_like();
        // A gradient must not depend on what was there before.
        gradients.as_mut_slice().fill(f32::NAN);
        for _ in 0..2 {
            let result = runner.loss_and_gradient(network.parameters(), &mut gradients, None);
            assert!(
                (f64::from(result.loss) - self.loss).abs() <= 1e-5 * self.loss.max(1.0),
                "{name}: loss {}, expected {}",
                result.loss,
                self.loss
            );
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
        if let Some(expected) = &self.input_gradient {
            self.check_input_gradient(expected, &network, &x);
        }
        if let Some(training) = &self.training {
            self.check_training(training, network, &x);
        }
    }

    fn runner(&self, network: &Network, taps: &Taps, x: &Array4<f32>) -> Runner {
        let plan = Plan::with_taps(network.description(), self.labels.len(), Mode::Training, taps).unwrap();
        let mut runner = Runner::new(plan).unwrap();
        runner.input_mut().copy_from_slice(x.as_slice().unwrap());
        runner.labels_mut().copy_from_slice(&self.labels);
        runner
    }

    fn check_input_gradient(&self, expected: &Packed, network: &Network, x: &Array4<f32>) {
        let first = &self.description.layers[0].name;
        let mut runner = self.runner(network, &Taps::of([first]), x);
        runner.loss_and_gradient(network.parameters(), &mut network.parameters().zeros_like(), None);
        let found = runner.tap_gradient(first).unwrap();
        let found = ArrayViewD::from_shape(IxDyn(&expected.shape), found).unwrap();
        expected.check(&format!("{}: gradient of {first}", self.description.name), found);
    }

    fn check_training(&self, training: &Training, mut network: Network, x: &Array4<f32>) {
        let what = format!("{}: {:?}", self.description.name, training.optimizer);
        let mut runner = self.runner(&network, &Taps::default(), x);
        let mut groups = Groups::default();
        for spec in network.parameters().specs() {
            groups.push(spec.range.len(), if spec.role == Role::Statistic { Kind::Statistic } else { Kind::Decayed });
        }
        let mut gradients = network.parameters().zeros_like();
        let mut optimizer = training.optimizer.build_grouped(&groups).unwrap();
        for (step, expected) in training.losses.iter().enumerate() {
            let loss = f64::from(runner.loss_and_gradient(network.parameters(), &mut gradients, None).loss);
            let error = (loss - expected).abs() / expected.max(1.0);
            assert!(error <= 1e-4, "{what}, step {step}: loss {loss}, PyTorch has {expected}");
            optimizer.update(training.rate, network.parameters_mut().as_mut_slice(), gradients.as_slice());
        }
        // Where a gradient is nearly zero, the adaptive optimizers take float32's rounding for a direction.
        let found = network.predict(x.view()).unwrap();
        training.predicted.check_within(1e-2, &format!("{what}, prediction"), found.view().into_dyn());
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

/// `STRIATE_CASES` is a file that `graphs.py random` wrote, a case a line.
#[test]
#[ignore = "needs PyTorch: scripts/conformance.sh"]
fn drawn_by_a_seed() {
    let path = std::env::var_os("STRIATE_CASES").expect("STRIATE_CASES names a file of cases");
    let cases = std::fs::read_to_string(path).unwrap();
    let mut failed = Vec::new();
    for case in cases.lines().map(|line| serde_json::from_str::<Case>(line).unwrap()) {
        if let Err(panic) = std::panic::catch_unwind(|| case.check()) {
            let text = panic.downcast_ref::<String>().map_or("a panic", String::as_str).to_owned();
            failed.push(format!("{text}\n  {}", serde_json::to_string(&case.description).unwrap()));
        }
    }
    println!("{} cases on {}", cases.lines().count(), striate::kernels::isa::active());
    assert!(failed.is_empty() && !cases.is_empty(), "{} fail:\n{}", failed.len(), failed.join("\n"));
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
