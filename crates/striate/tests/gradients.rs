//! Every layer's backward against central differences of its forward (section 4.4).

use ndarray::{Array1, Array2, Array4};
use proptest::prelude::*;
use striate::layers::{
    AdaptivePoolingOptions, AddOptions, Affine, AffineOptions, Arithmetic, ArithmeticOptions, BatchNormOptions,
    ClipOptions, ConcatOptions, Convolution, ConvolutionOptions, Coordinates, Dropout, DropoutOptions, EluOptions,
    ErfOptions, FlattenOptions, GeluOptions, HardSigmoidOptions, HardSwishOptions, Init, Interpolation, Layer,
    LeakyReluOptions, LinearOptions, LocalResponseNormOptions, LogSoftmaxOptions, Nearest, PReluOptions, PadMode,
    PadOptions, Pooling, PoolingKind, PoolingOptions, Relu, ReluOptions, ReshapeOptions, ResizeOptions, ScaleOptions,
    SeluOptions, Sigmoid, SigmoidOptions, SiluOptions, SliceOptions, SliceRange, Softmax, SoftmaxOptions,
    SoftmaxWithLoss, TanhOptions, Target, TransposeOptions, TransposedConvolutionOptions,
};
use striate::network::{Description, Network};
use striate::random::{Purpose, Random};
use striate::shape::{Padding, Rounding, Shape, Window};

const STEP: f32 = 1e-2;

/// Numbers more than `STEP` away from 0 and twice that from each other, so that no maximum and no ReLU changes sides.
fn spread(len: usize, stream: u64) -> Vec<f32> {
    let random = Random::new(21, Purpose::Test, stream);
    let scale = 2.5 * STEP;
    random.permutation(len).into_iter().map(|i| scale * (i as f32 - (len / 2) as f32 + 0.5)).collect()
}

fn array(dim: (usize, usize, usize, usize), stream: u64) -> Array4<f32> {
    Array4::from_shape_vec(dim, spread(dim.0 * dim.1 * dim.2 * dim.3, stream)).unwrap()
}

/// The gradient of `loss` at `x`, number by number.
fn differences(x: &[f32], mut loss: impl FnMut(&[f32]) -> f64) -> Vec<f64> {
    let mut moved = x.to_vec();
    (0..x.len())
        .map(|i| {
            let (up, down) = (x[i] + STEP, x[i] - STEP);
            moved[i] = up;
            let above = loss(&moved);
            moved[i] = down;
            let below = loss(&moved);
            moved[i] = x[i];
            (above - below) / f64::from(up - down)
        })
        .collect()
}

fn close(what: &str, exact: &[f32], numerical: &[f64]) {
    assert_eq!(exact.len(), numerical.len(), "{what}");
    let scale = numerical.iter().fold(1.0f64, |m, v| m.max(v.abs()));
    for (i, (&a, &b)) in exact.iter().zip(numerical).enumerate() {
        assert!((f64::from(a) - b).abs() <= 2e-3 * scale, "{what}, element {i}: {a} by backward, {b} by differences");
    }
}

/// A loss that is linear in the output, with weights that tell elements apart.
fn weigh<'a>(y: impl IntoIterator<Item = &'a f32>) -> f64 {
    y.into_iter().enumerate().map(|(i, &v)| f64::from(v) * f64::from(weight(i))).sum()
}

fn weight(i: usize) -> f32 {
    0.3 + (i % 7) as f32 * 0.2 - (i % 3) as f32 * 0.4
}

fn weights_like(y: &Array4<f32>) -> Array4<f32> {
    let mut i = 0;
    Array4::from_shape_simple_fn(y.raw_dim(), || {
        i += 1;
        weight(i - 1)
    })
}

fn values(a: &Array4<f32>) -> Vec<f32> {
    a.iter().copied().collect()
}

fn check_convolution(x: (usize, usize, usize, usize), filters: usize, groups: usize, window: Window) {
    if window.output((x.2, x.3)).is_err() {
        return;
    }
    let (input, w) = (array(x, 1), array((filters, x.1 / groups, window.kernel.0, window.kernel.1), 2));
    let b = Array1::from_vec(spread(filters, 3));
    let layer = |w: &Array4<f32>, b: &Array1<f32>| Convolution::with_window(w.clone(), b.clone(), window).unwrap();
    let mut exact = layer(&w, &b);
    let y = exact.forward(&input).unwrap();
    let dx = exact.backward(&weights_like(&y)).unwrap();
    let shaped = |v: &[f32], like: &Array4<f32>| Array4::from_shape_vec(like.raw_dim(), v.to_vec()).unwrap();
    let by_x = |v: &[f32]| weigh(&layer(&w, &b).forward(&shaped(v, &input)).unwrap());
    close("dx", &values(&dx), &differences(input.as_slice().unwrap(), by_x));
    let by_w = |v: &[f32]| weigh(&layer(&shaped(v, &w), &b).forward(&input).unwrap());
    close("dw", &values(exact.dw.as_ref().unwrap()), &differences(w.as_slice().unwrap(), by_w));
    let by_b = |v: &[f32]| weigh(&layer(&w, &Array1::from_vec(v.to_vec())).forward(&input).unwrap());
    close("db", exact.db.as_ref().unwrap().as_slice().unwrap(), &differences(b.as_slice().unwrap(), by_b));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn convolution(
        n in 1usize..3, c in 1usize..4, h in 1usize..6, w in 1usize..6, filters in 1usize..4,
        kernel in (1usize..4, 1usize..4), stride in (1usize..5, 1usize..5), padding in (0usize..4, 0usize..4),
        dilation in (1usize..3, 1usize..3), groups in 1usize..4
    ) {
        check_convolution((n, groups * c, h, w), groups * filters, groups, Window { kernel, stride, padding: Padding::symmetric(padding.0, padding.1), dilation, rounding: Rounding::Floor });
    }

    #[test]
    fn pooling(
        n in 1usize..3, c in 1usize..4, h in 1usize..7, w in 1usize..7, kernel in 1usize..4, stride in 1usize..5,
        padding in 0usize..2, max: bool, ceil: bool, count_padding: bool
    ) {
        let rounding = if ceil { Rounding::Ceil } else { Rounding::Floor };
        let window = Window::square(kernel, stride, padding).rounding(rounding);
        prop_assume!(padding < kernel && window.output((h, w)).is_ok());
        let pooling = if max { PoolingKind::Max } else { PoolingKind::Average };
        let options = PoolingOptions { pooling, window, count_padding };
        let x = array((n, c, h, w), 4);
        let mut exact = Pooling::new(options.clone());
        let y = exact.forward(&x).unwrap();
        let dx = exact.backward(&weights_like(&y)).unwrap();
        let loss = |v: &[f32]| {
            let x = Array4::from_shape_vec(x.raw_dim(), v.to_vec()).unwrap();
            weigh(&Pooling::new(options.clone()).forward(&x).unwrap())
        };
        close("dx", &values(&dx), &differences(x.as_slice().unwrap(), loss));
    }
}

#[test]
fn affine() {
    let (x, w, b) = (array((2, 2, 2, 3), 5), spread(12 * 4, 6), Array1::from_vec(spread(4, 7)));
    let w = Array2::from_shape_vec((12, 4), w).unwrap();
    let mut exact = Affine::new(w.clone(), b.clone()).unwrap();
    let y = exact.forward(&x).unwrap();
    let dy = Array2::from_shape_fn(y.raw_dim(), |(i, j)| weight(i * 4 + j));
    let dx: Vec<f32> = exact.backward(&dy).unwrap().iter().copied().collect();
    let run = |x: &Array4<f32>, w: &Array2<f32>, b: &Array1<f32>| {
        weigh(&Affine::new(w.clone(), b.clone()).unwrap().forward(x).unwrap())
    };
    let by_x = |v: &[f32]| run(&Array4::from_shape_vec(x.raw_dim(), v.to_vec()).unwrap(), &w, &b);
    close("dx", &dx, &differences(x.as_slice().unwrap(), by_x));
    let by_w = |v: &[f32]| run(&x, &Array2::from_shape_vec(w.raw_dim(), v.to_vec()).unwrap(), &b);
    let dw: Vec<f32> = exact.dw.as_ref().unwrap().iter().copied().collect();
    close("dw", &dw, &differences(w.as_slice().unwrap(), by_w));
    let by_b = |v: &[f32]| run(&x, &w, &Array1::from_vec(v.to_vec()));
    close("db", exact.db.as_ref().unwrap().as_slice().unwrap(), &differences(b.as_slice().unwrap(), by_b));
}

#[test]
fn activations_and_dropout() {
    let x = array((2, 3, 2, 2), 8);
    let shaped = |v: &[f32]| Array4::from_shape_vec(x.raw_dim(), v.to_vec()).unwrap();
    let numbers = x.as_slice().unwrap();
    let mut relu = Relu::new();
    let dy = weights_like(&relu.forward(&x));
    let dx = relu.backward(&dy).unwrap();
    close("relu", &values(&dx), &differences(numbers, |v| weigh(&Relu::new().forward(&shaped(v)))));
    let mut sigmoid = Sigmoid::new();
    sigmoid.forward(&x);
    let dx = sigmoid.backward(&dy).unwrap();
    close("sigmoid", &values(&dx), &differences(numbers, |v| weigh(&Sigmoid::new().forward(&shaped(v)))));
    let dropout = || Dropout::new(0.4, 3).unwrap();
    let mut exact = dropout();
    let y = exact.forward(&x, true);
    assert!(y.iter().any(|&v| v == 0.0) && y.iter().any(|&v| v != 0.0));
    let dx = exact.backward(&dy).unwrap();
    close("dropout", &values(&dx), &differences(numbers, |v| weigh(&dropout().forward(&shaped(v), true))));
}

#[test]
fn softmax_alone_and_with_loss() {
    let x = Array2::from_shape_vec((3, 4), spread(12, 9)).unwrap();
    let shaped = |v: &[f32]| Array2::from_shape_vec((3, 4), v.to_vec()).unwrap();
    let numbers = x.as_slice().unwrap();
    let dy = Array2::from_shape_fn((3, 4), |(i, j)| weight(i * 4 + j));
    let mut softmax = Softmax::new();
    softmax.forward(&x).unwrap();
    let dx: Vec<f32> = softmax.backward(&dy).unwrap().iter().copied().collect();
    close("softmax", &dx, &differences(numbers, |v| weigh(&Softmax::new().forward(&shaped(v)).unwrap())));
    let labels = [2, 0, 3];
    let mut last = SoftmaxWithLoss::new();
    last.forward(&x, Target::Labels(&labels)).unwrap();
    let dx: Vec<f32> = last.backward().unwrap().iter().copied().collect();
    let loss = |v: &[f32]| f64::from(SoftmaxWithLoss::new().forward(&shaped(v), Target::Labels(&labels)).unwrap());
    close("softmax with loss", &dx, &differences(numbers, loss));
}

#[test]
fn a_network_of_every_layer_fused_or_not() {
    let he = Init::He;
    let convolution = |filters, window| ConvolutionOptions::new(filters, window, he);
    let description = Description::new("all", Shape::new(2, 12, 11))
        .with("Conv1", convolution(3, Window::square(3, 1, 1)))
        .with("Relu1", ReluOptions {})
        .with("Max1", PoolingOptions::max(Window::square(3, 2, 1).rounding(Rounding::Floor)))
        .with("Conv2", convolution(4, Window::square(2, 1, 0)))
        .with("Sigmoid1", SigmoidOptions {})
        .with("Average", PoolingOptions::average(Window::square(2, 1, 1)))
        .with("Conv3", convolution(3, Window::square(2, 2, 0).rounding(Rounding::Floor)))
        .with("Max2", PoolingOptions::max(Window::square(2, 1, 0)))
        .with("Affine1", AffineOptions::new(6, he))
        .with("Relu2", ReluOptions {})
        .with("Dropout", DropoutOptions { ratio: 0.5 })
        .with("Affine2", AffineOptions::new(3, he));
    check_network(description, 4);
}

#[test]
fn small_images_side_by_side() {
    let convolution = |filters, padding| ConvolutionOptions::new(filters, Window::square(3, 1, padding), Init::He);
    let pooled = Window::square(2, 2, 0).rounding(Rounding::Floor);
    let description = Description::new("interleaved", Shape::new(2, 9, 11))
        .with("Conv1", convolution(7, 1))
        .with("Sigmoid", SigmoidOptions {})
        .with("Average", PoolingOptions::average(pooled))
        .with("Conv2", convolution(3, 1))
        .with("Conv3", convolution(5, 0))
        .with("Sigmoid3", SigmoidOptions {})
        .with("Affine", AffineOptions::new(3, Init::He));
    check_network(description, 9);
}

/// The network's gradients against differences of its loss.
fn check_network(description: Description, batch: usize) {
    let network = Network::new(description, 5).unwrap();
    let shape = network.description().input;
    let random = Random::new(8, Purpose::Test, 0);
    let mut i = 0;
    let x = Array4::from_shape_simple_fn((batch, shape.channels, shape.height, shape.width), || {
        i += 1;
        random.normal(i)
    });
    let labels: Vec<usize> = [0, 2, 1, 1].into_iter().cycle().take(batch).collect();
    let exact = network.gradient(x.view(), &labels).unwrap();
    let numerical = network.numerical_gradient(x.view(), &labels).unwrap();
    for ((name, a), (_, b)) in exact.iter().zip(numerical.iter()) {
        let scale = a.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        assert!(scale > 1e-4, "{name} has no gradient");
        // A step of a shared weight may push some unit over ReLU's or a maximum's edge; most must not.
        let off = a.iter().zip(b.iter()).filter(|(a, b)| (**a - **b).abs() > 0.02 * scale.max(0.01)).count();
        assert!(off * 5 <= a.len(), "{name}: {off} of {} differ", a.len());
    }
}

/// A convolution, `layer` on what it gives (twice, where it takes two inputs), and an affine layer.
fn around(layer: Layer, input: Shape) -> Network {
    let convolution = ConvolutionOptions::new(4, Window::square(1, 1, 0), Init::He);
    let start = Description::new("around", input).with("before", convolution);
    let middle = match layer {
        Layer::Add(_) | Layer::Concat(_) | Layer::Arithmetic(_) => {
            start.with("other", SigmoidOptions {}).with_inputs("layer", layer, ["before", "other"])
        }
        layer => start.with("layer", layer),
    };
    Network::new(middle.with("after", AffineOptions::new(3, Init::He)), 5).unwrap()
}

/// Every layer of graphs between two that learn: the first one's gradients come through it, the last one's from it.
#[test]
fn layers_of_graphs() {
    let lrn = LocalResponseNormOptions { size: 3, k: 2.0, alpha: 0.5, beta: 0.75 };
    let layers = |height: usize, width: usize| -> Vec<Layer> {
        let mut layers = plain(lrn);
        layers.extend(moving(height, width));
        layers
    };
    let sizes = [(4, 3, 5), (3, 4, 2)];
    for (layer, (batch, height, width)) in
        sizes.into_iter().flat_map(|size| layers(size.1, size.2).into_iter().map(move |l| (l, size)))
    {
        check_layer(&layer, batch, height, width);
    }
}

/// A gate of one number a channel, and one of one number a pixel, on maps: products of unequal shapes.
#[test]
fn arithmetic_of_unequal_shapes() {
    let convolution = |filters| ConvolutionOptions::new(filters, Window::square(1, 1, 0), Init::He);
    for operation in [Arithmetic::Add, Arithmetic::Subtract, Arithmetic::Multiply, Arithmetic::Divide] {
        for turned in [false, true] {
            let pair = |a: &'static str, b: &'static str| if turned { [b, a] } else { [a, b] };
            let description = Description::new("gates", Shape::new(2, 3, 4))
                .with("maps", convolution(3))
                .with("mean", AdaptivePoolingOptions::global())
                .with("channels", SigmoidOptions {})
                .with_inputs("pixels", convolution(1), ["maps"])
                .with("gate", SigmoidOptions {})
                .with_inputs("first", ArithmeticOptions { operation }, pair("maps", "channels"))
                .with_inputs("second", ArithmeticOptions { operation }, pair("first", "gate"))
                .with("after", AffineOptions::new(3, Init::He));
            check_network(description, 4);
        }
    }
}

fn plain(lrn: LocalResponseNormOptions) -> Vec<Layer> {
    vec![
        LeakyReluOptions::default().into(),
        TanhOptions {}.into(),
        GeluOptions {}.into(),
        SiluOptions {}.into(),
        HardSwishOptions {}.into(),
        ClipOptions::default().into(),
        BatchNormOptions::default().into(),
        lrn.into(),
        LocalResponseNormOptions { size: 2, ..lrn }.into(),
        AdaptivePoolingOptions { output: (2, 2) }.into(),
        AddOptions {}.into(),
        ConcatOptions {}.into(),
        FlattenOptions {}.into(),
        SoftmaxOptions {}.into(),
        LogSoftmaxOptions {}.into(),
        EluOptions::default().into(),
        SeluOptions::default().into(),
        HardSigmoidOptions::default().into(),
        ErfOptions {}.into(),
        LinearOptions { factor: -2.0, shift: 0.5 }.into(),
        PReluOptions::default().into(),
        PReluOptions { shared: true, ..PReluOptions::default() }.into(),
        ArithmeticOptions { operation: Arithmetic::Subtract }.into(),
        ArithmeticOptions { operation: Arithmetic::Multiply }.into(),
        ArithmeticOptions { operation: Arithmetic::Divide }.into(),
    ]
}

/// Layers whose options say sizes, for four channels.
fn moving(height: usize, width: usize) -> Vec<Layer> {
    let range = |start, count, step| SliceRange { start, count, step };
    let pad = |mode| PadOptions { mode, channels: (0, 1), rows: (2, 1), columns: (1, 0) };
    let resize = |interpolation, coordinates, output: (usize, usize)| {
        let scale = (output.0 as f64 / height as f64, output.1 as f64 / width as f64);
        let exclude_outside = matches!(interpolation, Interpolation::Cubic(_));
        ResizeOptions { interpolation, coordinates, exclude_outside, ..ResizeOptions::linear(output, scale) }
    };
    let window = Window { padding: Padding { top: 1, left: 0, bottom: 0, right: 1 }, ..Window::square(3, 2, 0) };
    let transposed = TransposedConvolutionOptions {
        filters: 6,
        groups: 2,
        window: window.rounding(Rounding::Floor),
        output: (2 * height, 2 * width + 1),
        init: Init::He,
    };
    vec![
        ScaleOptions { factor: Some([4, 1, 1]), shift: Some([1, height, width]) }.into(),
        ScaleOptions { factor: Some([1, height, 1]), shift: None }.into(),
        ScaleOptions { factor: None, shift: Some([4, height, width]) }.into(),
        ReshapeOptions { output: Shape::new(2, 2 * height, width) }.into(),
        TransposeOptions { sizes: vec![2, 2, height, width], order: vec![1, 0, 2, 3] }.into(),
        TransposeOptions { sizes: vec![4, height, width], order: vec![2, 0, 1] }.into(),
        SliceOptions { channels: range(1, 2, 2), rows: range(1, height - 1, 1), columns: range(0, width, 1) }.into(),
        SliceOptions { channels: range(0, 4, 1), rows: range(0, 2, 2), columns: range(1, 1, 1) }.into(),
        pad(PadMode::Constant { value: 0.5 }).into(),
        pad(PadMode::Edge).into(),
        pad(PadMode::Reflect).into(),
        pad(PadMode::Wrap).into(),
        resize(Interpolation::Linear, Coordinates::HalfPixel, (2 * height, width + 3)).into(),
        ResizeOptions { antialias: true, ..resize(Interpolation::Linear, Coordinates::HalfPixel, (2, 1)) }.into(),
        resize(Interpolation::Nearest(Nearest::PreferFloor), Coordinates::Asymmetric, (height + 1, 2 * width)).into(),
        resize(Interpolation::Cubic(-0.75), Coordinates::AlignCorners, (height + 2, width)).into(),
        transposed.into(),
    ]
}

fn check_layer(layer: &Layer, batch: usize, height: usize, width: usize) {
    let network = around(layer.clone(), Shape::new(2, height, width));
    let random = Random::new(13, Purpose::Test, height as u64);
    let mut i = 0;
    let x = Array4::from_shape_simple_fn((batch, 2, height, width), || {
        i += 1;
        random.normal(i)
    });
    let labels = &[0, 2, 1, 1][..batch];
    let exact = network.gradient(x.view(), labels).unwrap();
    let numerical = network.numerical_gradient(x.view(), labels).unwrap();
    for ((name, a), (_, b)) in exact.iter().zip(numerical.iter()) {
        let scale = a.iter().chain(b.iter()).fold(0.0f32, |m, v| m.max(v.abs()));
        // A normalisation takes out what a bias before it adds.
        let nothing = matches!(layer, Layer::BatchNorm(_)) && name == "b1";
        let statistic = name.starts_with("mean") || name.starts_with("variance");
        assert!(nothing || statistic || scale > 1e-3, "{layer:?}: {name} has no gradient");
        // A step may push a number over a kink of the piecewise ones.
        let kinks = matches!(
            layer,
            Layer::LeakyRelu(_)
                | Layer::HardSwish(_)
                | Layer::Clip(_)
                | Layer::HardSigmoid(_)
                | Layer::PRelu(_)
                | Layer::Selu(_)
        );
        // A quotient by a small number curves within a step.
        let curved = matches!(layer, Layer::Arithmetic(ArithmeticOptions { operation: Arithmetic::Divide }));
        let close = if kinks || curved { 0.1 * scale } else { 1e-2 * scale.max(0.1) };
        for (a, b) in a.iter().zip(b.iter()) {
            assert!((a - b).abs() <= close, "{layer:?}, {name}: {a} by backward, {b} by differences");
        }
    }
}
