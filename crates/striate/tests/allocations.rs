//! Rule 2 of ARCHITECTURE.md: running a plan allocates nothing. A counting allocator watches whole training steps.

#[path = "support/counting.rs"]
mod counting;

use counting::allocations;
use striate::layers::{
    AdaptivePoolingOptions, AffineOptions, ConcatOptions, DropoutOptions, GeluOptions, Init, LocalResponseNormOptions,
    PoolingOptions, SigmoidOptions,
};
use striate::models::{self, simple_convnet::SimpleConvNet};
use striate::network::{Description, Mode, Network, Plan, Runner, StepKey};
use striate::shape::{Shape, Window};

/// Allocations of ten training steps and ten predictions, after a first one of each.
fn allocated(description: Description, batch: usize) -> usize {
    let network = Network::new(description, 1).unwrap();
    let plan = |mode| Plan::new(network.description(), batch, mode).unwrap();
    let mut training = Runner::new(plan(Mode::Training)).unwrap();
    let mut inference = Runner::new(plan(Mode::Inference)).unwrap();
    let mut gradients = network.parameters().zeros_like();
    training.input_mut().iter_mut().enumerate().for_each(|(i, v)| *v = (i % 251) as f32 / 251.0);
    let mut counted = 0;
    for step in 0..11 {
        let before = allocations();
        let result = training.loss_and_gradient(network.parameters(), &mut gradients, StepKey { seed: 1, step });
        assert!(result.loss > 0.0);
        assert_eq!(inference.predict(network.parameters()).len(), batch * network.classes());
        if step > 0 {
            counted += allocations() - before;
        }
    }
    counted
}

#[test]
fn running_a_plan_allocates_nothing() {
    // Within a pool of its own: tasks handed to a pool from outside go through a queue that allocates.
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            assert_eq!(allocated(SimpleConvNet::default().description(), 10), 0);
            let description = SimpleConvNet::default().description();
            let mut layers = description.layers.clone();
            let mut mixed = Description::new("mixed", description.input);
            mixed.layers.append(&mut layers.drain(..2).collect());
            let mixed = mixed
                .with("Average", PoolingOptions::average(Window::square(2, 2, 0)))
                .with("Sigmoid", SigmoidOptions {})
                .with("Dropout", DropoutOptions { ratio: 0.5 })
                .with("Max", PoolingOptions::max(Window::square(2, 1, 1)));
            let mut mixed = mixed;
            mixed.layers.push(description.layers[5].clone());
            assert_eq!(allocated(mixed, 3), 0);
            assert_eq!(allocated(models::by_name("lenet", Shape::new(1, 28, 28), 10).unwrap(), 19), 0);
            let residual = models::by_name("cifar-resnet20", Shape::new(3, 12, 12), 4).unwrap();
            assert_eq!(allocated(residual, 3), 0);
            let joined = Description::new("joined", Shape::new(4, 8, 8))
                .with("Norm", LocalResponseNormOptions::default())
                .with("Gelu", GeluOptions {})
                .with_inputs("Concat", ConcatOptions {}, ["Gelu", "Norm"])
                .with("Grid", AdaptivePoolingOptions { output: (2, 2) })
                .with("Affine", AffineOptions::new(5, Init::He));
            assert_eq!(allocated(joined, 3), 0);
        });
    }
}
