//! Layers and the book's network against PyTorch in float64: `reference/layers.py` says how the values were made.

use ndarray::{Array, Array1, Array2, Array4, ArrayD, IxDyn};
use serde::Deserialize;
use std::collections::HashMap;
use striate::kernels::im2col::{col2im, im2col};
use striate::layers::{
    Affine, Convolution, Pooling, PoolingKind, PoolingOptions, Relu, Sigmoid, Softmax, SoftmaxWithLoss, Target,
};
use striate::models::simple_convnet::SimpleConvNet;
use striate::network::{Mode, Network, Parameters, Plan, Runner};
use striate::optim::OptimizerOptions;
use striate::shape::{Padding, Rounding, Shape, Window};

#[derive(Deserialize)]
struct Packed {
    shape: Vec<usize>,
    values: Vec<f64>,
}

impl Packed {
    fn array<D: ndarray::Dimension>(&self) -> Array<f32, D> {
        let values = self.values.iter().map(|&v| v as f32).collect();
        ArrayD::from_shape_vec(IxDyn(&self.shape), values).unwrap().into_dimensionality().unwrap()
    }

    /// Within 1e-4, relative to max(1, max |reference|).
    fn check<'a, D: ndarray::Dimension>(&self, what: &str, found: impl Into<ndarray::ArrayView<'a, f32, D>>) {
        let found = found.into();
        assert_eq!(found.shape(), self.shape, "{what}");
        let scale = self.values.iter().fold(1.0f64, |m, v| m.max(v.abs()));
        for (i, (&value, &reference)) in found.iter().zip(&self.values).enumerate() {
            let error = (f64::from(value) - reference).abs() / scale;
            assert!(error <= 1e-4, "{what}, element {i}: {value}, PyTorch has {reference}");
        }
    }
}

#[derive(Deserialize)]
struct Case {
    name: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    kernel: (usize, usize),
    #[serde(default)]
    stride: (usize, usize),
    #[serde(default)]
    padding: (usize, usize),
    #[serde(default)]
    ceil: bool,
    #[serde(default)]
    count_padding: bool,
    #[serde(default)]
    labels: Vec<usize>,
    #[serde(default)]
    loss: f64,
    arrays: HashMap<String, Packed>,
}

impl Case {
    fn get<D: ndarray::Dimension>(&self, name: &str) -> Array<f32, D> {
        self.arrays[name].array()
    }

    fn check<'a, D: ndarray::Dimension>(&self, name: &str, found: impl Into<ndarray::ArrayView<'a, f32, D>>) {
        self.arrays[name].check(&format!("{}: {name}", self.name), found);
    }

    fn window(&self) -> Window {
        let rounding = if self.ceil { Rounding::Ceil } else { Rounding::Floor };
        Window {
            kernel: self.kernel,
            stride: self.stride,
            padding: Padding::symmetric(self.padding.0, self.padding.1),
            dilation: (1, 1),
            rounding,
        }
    }
}

#[derive(Deserialize)]
struct Reference {
    convolution: Vec<Case>,
    pooling: Vec<Case>,
    im2col: Vec<Case>,
    relu: Vec<Case>,
    sigmoid: Vec<Case>,
    affine: Vec<Case>,
    softmax: Vec<Case>,
    network: Net,
}

#[derive(Deserialize)]
struct Net {
    x: Packed,
    labels: Vec<usize>,
    parameters: HashMap<String, Packed>,
    gradients: HashMap<String, Packed>,
    logits: Packed,
    sgd: Vec<f64>,
    adam: Vec<f64>,
}

fn reference() -> Reference {
    serde_json::from_str(include_str!("reference/layers.json")).unwrap()
}

#[test]
fn convolution() {
    for case in reference().convolution {
        let mut layer = Convolution::with_window(case.get("w"), case.get("b"), case.window()).unwrap();
        let x: Array4<f32> = case.get("x");
        case.check("y", &layer.forward(&x).unwrap());
        case.check("dx", &layer.backward(&case.get("dy")).unwrap());
        case.check("dw", layer.dw.as_ref().unwrap());
        case.check("db", layer.db.as_ref().unwrap());
    }
}

#[test]
fn pooling() {
    for case in reference().pooling {
        let pooling = if case.kind == "max" { PoolingKind::Max } else { PoolingKind::Average };
        let options = PoolingOptions { pooling, window: case.window(), count_padding: case.count_padding };
        let mut layer = Pooling::new(options);
        case.check("y", &layer.forward(&case.get("x")).unwrap());
        case.check("dx", &layer.backward(&case.get("dy")).unwrap());
    }
}

#[test]
fn im2col_and_back() {
    for case in reference().im2col {
        let x: Array4<f32> = case.get("x");
        case.check("col", &im2col(x.view(), case.window()).unwrap());
        let dcol: Array2<f32> = case.get("dcol");
        case.check("dx", &col2im(dcol.view(), x.dim(), case.window()).unwrap());
    }
}

#[test]
fn activations() {
    for case in reference().relu {
        let mut layer = Relu::new();
        case.check("y", &layer.forward(&case.get::<ndarray::Ix4>("x")));
        case.check("dx", &layer.backward(&case.get::<ndarray::Ix4>("dy")).unwrap());
    }
    for case in reference().sigmoid {
        let mut layer = Sigmoid::new();
        case.check("y", &layer.forward(&case.get::<IxDyn>("x")));
        case.check("dx", &layer.backward(&case.get::<IxDyn>("dy")).unwrap());
    }
}

#[test]
fn affine() {
    for case in reference().affine {
        let mut layer = Affine::new(case.get("w"), case.get("b")).unwrap();
        case.check("y", &layer.forward(&case.get::<ndarray::Ix4>("x")).unwrap());
        case.check("dx", &layer.backward(&case.get("dy")).unwrap());
        case.check("dw", layer.dw.as_ref().unwrap());
        case.check("db", layer.db.as_ref().unwrap());
    }
}

#[test]
fn softmax_and_loss() {
    for case in reference().softmax {
        let x: Array2<f32> = case.get("x");
        case.check("y", &Softmax::new().forward(&x).unwrap());
        let one_hot = Array2::from_shape_fn(x.dim(), |(i, j)| if case.labels[i] == j { 1.0 } else { 0.0 });
        for target in [Target::Labels(&case.labels), Target::OneHot(one_hot.view())] {
            let mut last = SoftmaxWithLoss::new();
            let loss = f64::from(last.forward(&x, target).unwrap());
            assert!((loss - case.loss).abs() <= 1e-6 * case.loss.abs().max(1.0), "{}: {loss} {}", case.name, case.loss);
            case.check("dx", &last.backward().unwrap());
        }
    }
}

#[test]
fn the_books_network() {
    let net = reference().network;
    let description = SimpleConvNet {
        input: Shape::new(1, 10, 10),
        filters: 3,
        filter_size: 3,
        hidden: 6,
        classes: 4,
        ..SimpleConvNet::default()
    }
    .description();
    let names = ["W1", "b1", "W2", "b2", "W3", "b3"];
    let shapes = names.map(|name| (name.to_string(), net.parameters[name].shape.clone()));
    let mut parameters = Parameters::zeros(shapes.to_vec()).unwrap();
    for name in names {
        parameters.get_mut(name).unwrap().assign(&net.parameters[name].array::<IxDyn>());
    }
    let network = Network::with_parameters(description, parameters).unwrap();
    let x: Array4<f32> = net.x.array();
    net.logits.check("logits", &network.predict(x.view()).unwrap());
    for (name, gradient) in network.gradient(x.view(), &net.labels).unwrap().iter() {
        net.gradients[name].check(name, gradient);
    }
    for (optimizer, rate, losses) in
        [(OptimizerOptions::sgd(), 0.1, &net.sgd), (OptimizerOptions::adam(), 0.01, &net.adam)]
    {
        let mut parameters = network.parameters().clone();
        let mut gradients = parameters.zeros_like();
        let mut optimizer = optimizer.build(parameters.len()).unwrap();
        let mut runner = Runner::new(Plan::new(network.description(), 3, Mode::Training).unwrap()).unwrap();
        runner.input_mut().copy_from_slice(x.as_slice().unwrap());
        runner.labels_mut().copy_from_slice(&net.labels);
        let found = losses.iter().map(|_| {
            let loss = runner.loss_and_gradient(&parameters, &mut gradients, None).loss;
            optimizer.update(rate, parameters.as_mut_slice(), gradients.as_slice());
            loss
        });
        let found = Array1::from_iter(found);
        Packed { shape: vec![losses.len()], values: losses.clone() }.check("losses", &found);
    }
}
