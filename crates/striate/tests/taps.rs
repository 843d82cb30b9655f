//! Taps: outputs and gradients of named layers, against differences and against networks that end there.

use ndarray::Array4;
use striate::layers::{
    AddOptions, AffineOptions, BatchNormOptions, ConcatOptions, ConvolutionOptions, DropoutOptions, FlattenOptions,
    Init, Layer, PoolingKind, PoolingOptions, ReluOptions, ReluRule, SiluOptions, SoftmaxOptions,
};
use striate::network::{Description, Mode, Network, NetworkError, Plan, Runner, Taps};
use striate::random::{Purpose, Random};
use striate::shape::{Rounding, Shape, Window};

const BATCH: usize = 3;

/// Everything that fuses and joins: a normalised convolution, a residual block, two branches side by side, dropout.
fn graph(activation: impl Into<Layer>, pooling: PoolingKind, softmax: bool) -> Network {
    let activation = activation.into();
    let convolution =
        |filters, kernel| ConvolutionOptions::new(filters, Window::square(kernel, 1, kernel / 2), Init::He);
    let window = Window::square(2, 2, 0).rounding(Rounding::Floor);
    let pool = PoolingOptions { pooling, ..PoolingOptions::max(window) };
    let net = Description::new("graph", Shape::new(2, 9, 7))
        .with("conv1", convolution(4, 3).without_bias())
        .with("norm1", BatchNormOptions::default())
        .with("act1", activation.clone())
        .with("conv2", convolution(4, 3))
        .with("norm2", BatchNormOptions::default())
        .with_inputs("sum", AddOptions {}, ["norm2", "act1"])
        .with("act2", activation.clone())
        .with_inputs("left", convolution(3, 1), ["act2"])
        .with_inputs("right", convolution(2, 3), ["act2"])
        .with_inputs("both", ConcatOptions {}, ["left", "right"])
        .with("pool", pool)
        .with("drop", DropoutOptions { ratio: 0.5 })
        .with("flat", FlattenOptions {})
        .with("hidden", AffineOptions::new(6, Init::He))
        .with("act3", activation)
        .with("classes", AffineOptions::new(4, Init::He));
    let net = if softmax { net.with("softmax", SoftmaxOptions {}) } else { net };
    let mut network = Network::new(net, 7).unwrap();
    let random = Random::new(5, Purpose::Test, 0);
    // Statistics that are not the identity.
    let names: Vec<String> = network.parameters().specs().iter().map(|spec| spec.name.clone()).collect();
    for (at, name) in names.iter().enumerate() {
        if name.starts_with("mean") || name.starts_with("variance") || name.starts_with("gamma") {
            for (i, value) in network.parameters_mut().get_mut(name).unwrap().iter_mut().enumerate() {
                *value += 0.3 * random.normal((100 * at + i) as u64).abs();
            }
        }
    }
    network
}

fn inputs(network: &Network) -> Vec<f32> {
    let random = Random::new(11, Purpose::Test, 1);
    (0..BATCH * network.input().len()).map(|i| random.normal(i as u64)).collect()
}

fn runner(network: &Network, mode: Mode, taps: &Taps) -> Runner {
    let mut runner = Runner::new(Plan::with_taps(network.description(), BATCH, mode, taps).unwrap()).unwrap();
    runner.input_mut().copy_from_slice(&inputs(network));
    runner
}

#[test]
fn a_plan_without_taps_is_the_plan_there_always_was() {
    let network = graph(ReluOptions {}, PoolingKind::Max, false);
    for mode in [Mode::Inference, Mode::Training] {
        let plain = Plan::new(network.description(), BATCH, mode).unwrap();
        let none = Plan::with_taps(network.description(), BATCH, mode, &Taps::default()).unwrap();
        let tapped = Plan::with_taps(network.description(), BATCH, mode, &Taps::all(network.description())).unwrap();
        assert!(plain.step_names().eq(none.step_names()));
        assert_eq!(plain.arena_bytes(), none.arena_bytes());
        assert!(tapped.step_names().count() > plain.step_names().count() && tapped.arena_bytes() > plain.arena_bytes());
    }
}

#[test]
fn taps_hold_what_a_network_that_ends_there_gives() {
    let network = graph(ReluOptions {}, PoolingKind::Max, true);
    let x = inputs(&network);
    let mut plain = runner(&network, Mode::Inference, &Taps::default());
    let logits = plain.predict(network.parameters()).to_vec();
    for mode in [Mode::Inference, Mode::Gradient] {
        let mut tapped = runner(&network, mode, &Taps::all(network.description()));
        let found = tapped.predict(network.parameters()).to_vec();
        found.iter().zip(&logits).for_each(|(a, b)| assert!((a - b).abs() < 1e-5, "{a} {b}"));
        assert_eq!(tapped.tap("input").unwrap(), x);
        // The softmax at the end is left to the loss: its tap holds logits.
        assert_eq!(tapped.tap("softmax").unwrap(), found);
        assert_eq!(tapped.tap("drop"), tapped.tap("pool"));
        assert_eq!(tapped.tap("flat"), tapped.tap("pool"));
        for end in ["conv1", "norm1", "act1", "sum", "act2"] {
            let at = network.description().layers.iter().position(|l| l.name == end).unwrap();
            let mut description = network.description().clone();
            description.layers.truncate(at + 1);
            let specs = description.parameter_specs().unwrap();
            let mut short = Network::new(description, 1).unwrap();
            for spec in specs {
                let from = network.parameters().get(&spec.name).unwrap();
                short.parameters_mut().get_mut(&spec.name).unwrap().assign(&from);
            }
            let (n, input) = (BATCH, network.input());
            let x = Array4::from_shape_vec((n, input.channels, input.height, input.width), x.clone()).unwrap();
            let expected = short.predict(x.view()).unwrap();
            for (a, b) in tapped.tap(end).unwrap().iter().zip(expected.iter()) {
                assert!((a - b).abs() < 1e-4, "{end}: {a} {b}");
            }
        }
    }
}

/// Forward, then backward from `seed` at a layer.
fn from(runner: &mut Runner, network: &Network, layer: &str, seed: &[f32]) {
    runner.gradient_from(network.parameters(), layer, |_, gradient| gradient.copy_from_slice(seed)).unwrap();
}

/// The scalar whose gradient [`from`] gives: `seed . output of layer`.
fn score(runner: &mut Runner, network: &Network, layer: &str, seed: &[f32]) -> f64 {
    runner.predict(network.parameters());
    runner.tap(layer).unwrap().iter().zip(seed).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

#[test]
fn gradients_of_the_input_agree_with_differences_from_every_layer() {
    let network = graph(SiluOptions {}, PoolingKind::Average, false);
    let random = Random::new(3, Purpose::Test, 2);
    let mut runner = runner(&network, Mode::Gradient, &Taps::all(network.description()));
    let x = inputs(&network);
    for named in &network.description().layers {
        runner.input_mut().copy_from_slice(&x);
        runner.predict(network.parameters());
        let len = runner.tap(&named.name).unwrap().len();
        let seed: Vec<f32> = (0..len).map(|i| random.normal(i as u64)).collect();
        from(&mut runner, &network, &named.name, &seed);
        let gradient = runner.tap_gradient("input").unwrap().to_vec();
        let scale = gradient.iter().fold(1.0f32, |m, g| m.max(g.abs()));
        for i in (0..x.len()).step_by(17) {
            let step = 1e-2;
            let mut at = |value: f32| {
                runner.input_mut()[i] = value;
                score(&mut runner, &network, &named.name, &seed)
            };
            let difference = (at(x[i] + step) - at(x[i] - step)) / f64::from(2.0 * step);
            runner.input_mut()[i] = x[i];
            let error = (difference - f64::from(gradient[i])).abs() / f64::from(scale);
            assert!(error < 3e-3, "{} input {i}: {difference} {}", named.name, gradient[i]);
        }
    }
}

#[test]
fn gradients_inside_follow_the_chain_rule() {
    // The same gradient of the input, in one go from the logits and in two with a stop at a layer that all goes through.
    let network = graph(ReluOptions {}, PoolingKind::Max, false);
    let mut runner = runner(&network, Mode::Gradient, &Taps::all(network.description()));
    let seed: Vec<f32> = (0..BATCH * 4).map(|i| (i as f32).sin()).collect();
    from(&mut runner, &network, "classes", &seed);
    let whole = runner.tap_gradient("input").unwrap().to_vec();
    for stop in ["act3", "hidden", "pool", "both", "act2", "sum", "act1"] {
        from(&mut runner, &network, "classes", &seed);
        let middle = runner.tap_gradient(stop).unwrap().to_vec();
        assert!(middle.iter().any(|g| *g != 0.0));
        from(&mut runner, &network, stop, &middle);
        assert_eq!(runner.tap_gradient("input").unwrap(), whole, "{stop}");
    }
}

#[test]
fn only_what_is_asked_for_runs_backward() {
    let network = graph(ReluOptions {}, PoolingKind::Max, false);
    let with = |taps: Taps| Plan::with_taps(network.description(), BATCH, Mode::Gradient, &taps).unwrap();
    let (late, early) = (with(Taps::of(["pool"])), with(Taps::of(["input"])));
    assert!(late.arena_bytes() < early.arena_bytes());
    let mut runner = runner(&network, Mode::Gradient, &Taps::of(["pool"]));
    from(&mut runner, &network, "classes", &[1.0; BATCH * 4]);
    assert!(runner.tap_gradient("pool").unwrap().iter().any(|g| *g != 0.0));
    assert!(runner.tap("act1").is_none() && runner.tap_gradient("input").is_none());
}

#[test]
fn the_rules_of_relu_let_through_what_they_say() {
    // One ReLU between two affine layers that are the identity: its rule is all there is to see.
    let description = Description::new("line", Shape::flat(4))
        .with("before", AffineOptions::new(4, Init::He))
        .with("relu", ReluOptions {})
        .with("after", AffineOptions::new(4, Init::He));
    let mut network = Network::new(description, 1).unwrap();
    for name in ["W1", "W2"] {
        let mut w = network.parameters_mut().get_mut(name).unwrap();
        w.indexed_iter_mut().for_each(|(i, w)| *w = f32::from(u8::from(i[0] == i[1])));
    }
    let expected = [
        (ReluRule::Gradient, [5.0, -6.0, 0.0, 0.0]),
        (ReluRule::Deconvolution, [5.0, 0.0, 7.0, 0.0]),
        (ReluRule::Guided, [5.0, 0.0, 0.0, 0.0]),
    ];
    for (rule, expected) in expected {
        let taps = Taps::of(["input"]).relu(rule);
        let mut runner =
            Runner::new(Plan::with_taps(network.description(), 1, Mode::Gradient, &taps).unwrap()).unwrap();
        runner.input_mut().copy_from_slice(&[1.0, 2.0, -3.0, -4.0]);
        assert_eq!(runner.predict(network.parameters()), [1.0, 2.0, 0.0, 0.0]);
        from(&mut runner, &network, "after", &[5.0, -6.0, 7.0, -8.0]);
        assert_eq!(runner.tap_gradient("input").unwrap(), expected, "{rule:?}");
    }
}

#[test]
fn names_that_are_not_there_are_said_with_those_that_are() {
    let network = graph(ReluOptions {}, PoolingKind::Max, false);
    let error = Plan::with_taps(network.description(), 1, Mode::Inference, &Taps::of(["conv9"])).unwrap_err();
    assert!(error.to_string().starts_with("there is no layer \"conv9\"; the layers are conv1, norm1"), "{error}");
    let mut runner = runner(&network, Mode::Gradient, &Taps::of(["pool"]));
    let error = runner.gradient_from(network.parameters(), "conv1", |_, _| ()).unwrap_err();
    assert!(matches!(&error, NetworkError::UnknownLayer { available, .. } if available == &["pool", "classes"]));
}
