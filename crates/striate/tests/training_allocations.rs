//! Rule 2 of ARCHITECTURE.md, for the whole training step: gathering a batch, running the plan, updating and averaging the
//! weights, and putting good ones aside allocate nothing. A counting allocator watches between two events.

#[path = "support/counting.rs"]
mod counting;

use counting::allocations;
use striate::data::{Dataset, Normalization, Pixels};
use striate::models;
use striate::network::Network;
use striate::optim::OptimizerOptions;
use striate::shape::Shape;
use striate::train::{Control, Decay, Event, TrainOptions, Trainer};

#[test]
fn a_training_step_allocates_nothing() {
    let shape = Shape::new(1, 28, 28);
    let pixels = (0..120 * shape.len()).map(|i| (i % 251) as u8).collect();
    let labels = (0..120).map(|i| i % 10).collect();
    let classes = (0..10).map(|class| class.to_string()).collect();
    let data = Dataset::new("stripes", shape, Pixels::U8(pixels), labels, classes).unwrap();
    for name in OptimizerOptions::NAMES {
        let optimizer: OptimizerOptions = name.parse().unwrap();
        // From outside any pool: the loop has to find its way onto a worker by itself.
        let mut network = Network::new(models::by_name("simple-convnet", shape, 10).unwrap(), 1).unwrap();
        let options = TrainOptions {
            epochs: 1,
            batch: 8,
            optimizer,
            learning_rate: 1e-4,
            average: Some(0.9),
            decay: Decay::Weights,
            label_smoothing: 0.1,
            clip: Some(0.1),
            augment: "affine,mixup,cutmix".parse().unwrap(),
            log_every: 1,
            ..TrainOptions::default()
        };
        let normalization = Normalization { mean: vec![0.0], deviation: vec![1.0] };
        let (mut before, mut counted, mut steps) = (0, 0, 0);
        Trainer::new(&mut network, &data, None, normalization, options)
            .unwrap()
            .run(&mut |event| {
                if let Event::Step { step, .. } = event {
                    let now = allocations();
                    // The first step may warm up what lives as long as the process.
                    if *step > 1 {
                        counted += now - before;
                        steps += 1;
                    }
                    before = now;
                }
                Control::Continue
            })
            .unwrap();
        assert_eq!((steps, counted), (14, 0), "{name}");
    }
}
