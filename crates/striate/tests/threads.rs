//! Rule 3 of ARCHITECTURE.md: the same bits whatever the number of threads.

use striate::layers::{
    AdaptivePoolingOptions, AffineOptions, ConcatOptions, ConvolutionOptions, DropoutOptions, GeluOptions, Init,
    LocalResponseNormOptions, PoolingOptions, SigmoidOptions,
};
use striate::models::{self, simple_convnet::SimpleConvNet};
use striate::network::{Description, Mode, Network, Plan, Runner, StepKey};
use striate::random::{Purpose, Random};
use striate::shape::{Rounding, Shape, Window};

/// Bits of loss, logits and every gradient of one training step.
fn bits(description: &Description, batch: usize, threads: usize) -> Vec<u32> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        let network = Network::new(description.clone(), 7).unwrap();
        let mut runner = Runner::new(Plan::new(description, batch, Mode::Training).unwrap()).unwrap();
        let mut gradients = network.parameters().zeros_like();
        let random = Random::new(2, Purpose::Test, 0);
        runner.input_mut().iter_mut().enumerate().for_each(|(i, v)| *v = random.normal(i as u64));
        runner.labels_mut().iter_mut().enumerate().for_each(|(i, l)| *l = i % network.classes());
        let key = StepKey { seed: 3, step: 5 };
        let result = runner.loss_and_gradient(network.parameters(), &mut gradients, key);
        let mut values = vec![result.loss];
        values.extend_from_slice(gradients.as_slice());
        values.extend_from_slice(runner.predict(network.parameters()));
        assert!(values.iter().all(|v| v.is_finite()));
        values.into_iter().map(f32::to_bits).collect()
    })
}

#[test]
fn equal_bits_for_any_number_of_threads() {
    let deep = Description::new("deep", Shape::new(3, 17, 13))
        .with("Conv1", convolution(19, Window::square(3, 1, 1)))
        .with("Sigmoid1", SigmoidOptions {})
        .with("Pool1", PoolingOptions::max(Window::square(3, 2, 1).rounding(Rounding::Floor)))
        .with("Conv2", convolution(37, Window::square(3, 2, 1).rounding(Rounding::Floor)))
        .with("Dropout", DropoutOptions { ratio: 0.3 })
        .with("Pool2", PoolingOptions::average(Window::square(2, 1, 0)))
        .with("Conv3", convolution(5, Window::square(1, 1, 0)));
    let residual = models::by_name("cifar-resnet20", Shape::new(3, 12, 12), 4).unwrap();
    let lrn = Description::new("lrn", Shape::new(7, 9, 9))
        .with("Norm", LocalResponseNormOptions::default())
        .with("Conv", convolution(11, Window::square(3, 1, 1)))
        .with("Gelu", GeluOptions {})
        .with_inputs("Concat", ConcatOptions {}, ["Gelu", "Norm"])
        .with("Grid", AdaptivePoolingOptions { output: (2, 2) })
        .with("Affine", AffineOptions::new(5, Init::He));
    let depthwise = convolution(48, Window::square(3, 1, 1)).groups(24);
    let grouped = convolution(20, Window::square(3, 2, 1)).groups(4).without_bias();
    let wide = Description::new("wide", Shape::new(17, 19, 19))
        .with("Conv1", convolution(24, Window::square(3, 1, 1)))
        .with("Conv2", depthwise)
        .with("Conv3", grouped)
        .with("Conv4", convolution(18, Window::square(3, 1, 1)))
        .with("Conv5", convolution(7, Window::square(1, 1, 0)));
    let book = SimpleConvNet { filters: 13, hidden: 37, ..SimpleConvNet::default() }.description();
    let lenet = models::by_name("lenet", Shape::new(1, 28, 28), 10).unwrap();
    let cases = [
        (&lenet, 37),
        (&book, 1),
        (&book, 7),
        (&book, 50),
        (&deep, 1),
        (&deep, 3),
        (&deep, 33),
        (&wide, 1),
        (&wide, 2),
        (&wide, 11),
        (&residual, 5),
        (&lrn, 6),
    ];
    for (description, batch) in cases {
        let one = bits(description, batch, 1);
        for threads in [2, 3, 4] {
            assert!(
                one == bits(description, batch, threads),
                "{} at batch {batch}, {threads} threads",
                description.name
            );
        }
    }
}

fn convolution(filters: usize, window: Window) -> ConvolutionOptions {
    ConvolutionOptions::new(filters, window, Init::He)
}
