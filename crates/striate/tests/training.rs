//! The trainer and the evaluation on a small task with a known answer: bars that stand or lie.

use striate::data::{Dataset, Normalization, Pixels};
use striate::models;
use striate::network::Network;
use striate::optim::{OptimizerOptions, Schedule};
use striate::random::{Purpose, Random};
use striate::shape::Shape;
use striate::train::{Control, Event, TrainError, TrainOptions, TrainSummary, Trainer, evaluate, evaluate_parameters};

const SIDE: usize = 12;

/// Two bright bars on a noisy ground, vertical (class 0) or horizontal (class 1).
fn bars(images: usize, seed: u64) -> Dataset {
    let mut pixels = vec![0u8; images * SIDE * SIDE];
    let mut labels = Vec::new();
    for (image, pixels) in pixels.chunks_exact_mut(SIDE * SIDE).enumerate() {
        let random = Random::new(seed, Purpose::Test, image as u64);
        let label = random.below(1000, 2) as usize;
        let bars = [random.below(1001, SIDE as u64) as usize, random.below(1002, SIDE as u64) as usize];
        for (place, pixel) in pixels.iter_mut().enumerate() {
            let across = if label == 0 { place % SIDE } else { place / SIDE };
            let light = if bars.contains(&across) { 150.0 } else { 0.0 };
            *pixel = (light + 100.0 * random.uniform(place as u64)) as u8;
        }
        labels.push(label);
    }
    let classes = vec!["vertical".to_string(), "horizontal".to_string()];
    Dataset::new("bars", Shape::new(1, SIDE, SIDE), Pixels::U8(pixels), labels, classes).unwrap()
}

fn plain() -> Normalization {
    Normalization { mean: vec![0.0], deviation: vec![1.0] }
}

fn network(seed: u64) -> Network {
    Network::new(models::by_name("simple-convnet", Shape::new(1, SIDE, SIDE), 2).unwrap(), seed).unwrap()
}

fn options() -> TrainOptions {
    TrainOptions { epochs: 3, batch: 20, log_every: 1, learning_rate: 0.003, ..TrainOptions::default() }
}

fn train(network: &mut Network, data: &Dataset, options: TrainOptions) -> Result<TrainSummary, TrainError> {
    Trainer::new(network, data, None, plain(), options)?.run(&mut |_| Control::Continue)
}

fn bits(network: &Network) -> Vec<u32> {
    network.parameters().as_slice().iter().map(|v| v.to_bits()).collect()
}

#[test]
fn it_learns_and_tells() {
    let (data, test) = (bars(400, 1), bars(200, 2));
    let mut network = network(1);
    let mut steps = 0;
    let mut epochs = Vec::new();
    let mut evaluating = Vec::new();
    let options = TrainOptions {
        epochs: 6,
        log_every: 7,
        evaluate_train: Some(30),
        schedule: Schedule::Cosine { warmup: 0.1 },
        ..options()
    };
    let trainer = Trainer::new(&mut network, &data, Some(&test), plain(), options).unwrap();
    let summary = trainer
        .run(&mut |event| {
            match event {
                Event::Started { images, epochs, steps_per_epoch } => {
                    assert_eq!((*images, *epochs, *steps_per_epoch), (400, 6, 20));
                }
                Event::Step { epoch, step, steps_per_epoch, loss, accuracy, learning_rate, .. } => {
                    assert!(*step > steps && *step <= (epoch * steps_per_epoch) as u64);
                    steps = *step;
                    assert!(loss.is_finite() && (0.0..=1.0).contains(accuracy));
                    assert!(*learning_rate > 0.0 && *learning_rate <= 0.003);
                }
                Event::Evaluating { images, .. } => evaluating.push(*images),
                Event::Epoch { metrics, parameters } => {
                    assert!(parameters.as_slice().iter().all(|v| v.is_finite()));
                    epochs.push((*metrics).clone());
                }
                _ => {}
            }
            Control::Continue
        })
        .unwrap();
    assert_eq!(steps, 120);
    assert_eq!((summary.steps, summary.epochs, summary.stopped), (120, 6, false));
    assert_eq!(summary.history, epochs);
    assert_eq!(evaluating, [230, 230, 230, 230, 230, 600]);
    let last = summary.last().unwrap();
    assert!(last.train_accuracy > 0.95 && last.test_accuracy.unwrap() > 0.95, "{last:?}");
    assert!(last.train_loss < epochs[0].train_loss);
    assert!(last.learning_rate < 1e-5);
    assert_eq!((epochs[0].train_images, last.train_images), (30, 400));
    // What the trainer said is what an evaluation of the network finds.
    let evaluation = evaluate(&network, &test, &plain(), 64).unwrap();
    assert_eq!(Some(evaluation.accuracy), last.test_accuracy);
    assert!((evaluation.loss - last.test_loss.unwrap()).abs() < 1e-5);
}

#[test]
fn the_bits_do_not_depend_on_the_number_of_threads() {
    let data = bars(110, 1);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut network = network(4);
            let options = TrainOptions { average: Some(0.9), ..options() };
            let summary = train(&mut network, &data, options).unwrap();
            let losses: Vec<u64> = summary.history.iter().map(|epoch| epoch.train_loss.to_bits()).collect();
            (bits(&network), losses)
        })
    };
    let one = run(1);
    assert_eq!(one, run(2));
    assert_eq!(one, run(3));
    // From outside any pool too, and from one call to the next.
    let mut outside = network(4);
    train(&mut outside, &data, TrainOptions { average: Some(0.9), ..options() }).unwrap();
    assert_eq!(one.0, bits(&outside));
}

#[test]
fn the_rest_of_an_epoch_is_trained_too() {
    let data = bars(50, 1);
    let mut weights = network(1);
    let mut seen = Vec::new();
    let options = TrainOptions { epochs: 2, batch: 16, ..options() };
    let summary = Trainer::new(&mut weights, &data, None, plain(), options.clone())
        .unwrap()
        .run(&mut |event| {
            if let Event::Step { step, accuracy, .. } = event {
                seen.push((*step, *accuracy));
            }
            Control::Continue
        })
        .unwrap();
    assert_eq!(summary.steps, 8);
    assert!(seen.iter().map(|(step, _)| *step).eq(1..=8));
    // The fourth batch holds 2 images: an accuracy in halves.
    assert_eq!((seen[3].1 * 2.0).fract(), 0.0);
    // One batch of everything, and one a step, are possible as well.
    for (batch, steps) in [(50, 2), (1, 100)] {
        let mut weights = network(1);
        let before = bits(&weights);
        assert_eq!(train(&mut weights, &data, TrainOptions { batch, ..options.clone() }).unwrap().steps, steps);
        assert_ne!(bits(&weights), before);
    }
}

#[test]
fn a_stop_leaves_the_weights_as_they_are() {
    let data = bars(60, 1);
    // Three steps are an epoch, so this is where a run of one epoch ends.
    let mut whole = network(1);
    train(&mut whole, &data, TrainOptions { epochs: 1, ..options() }).unwrap();
    let mut stopped = network(1);
    let mut after = 0;
    let summary = Trainer::new(&mut stopped, &data, Some(&data), plain(), options())
        .unwrap()
        .run(&mut |event| match event {
            Event::Started { .. } => Control::Continue,
            Event::Step { step, .. } if *step < 3 => Control::Continue,
            _ => {
                after += 1;
                Control::Stop
            }
        })
        .unwrap();
    assert_eq!((summary.steps, summary.epochs, summary.stopped, after), (3, 0, true, 1));
    assert!(summary.last().is_none());
    assert_eq!(bits(&whole), bits(&stopped));
    // Before the first step, and after an epoch.
    let mut untouched = network(1);
    let trainer = Trainer::new(&mut untouched, &data, None, plain(), options()).unwrap();
    let summary = trainer.run(&mut |_| Control::Stop).unwrap();
    assert_eq!((summary.steps, summary.stopped), (0, true));
    assert_eq!(bits(&untouched), bits(&network(1)));
    let mut one_epoch = network(1);
    let summary = Trainer::new(&mut one_epoch, &data, None, plain(), options())
        .unwrap()
        .run(&mut |event| if matches!(event, Event::Epoch { .. }) { Control::Stop } else { Control::Continue })
        .unwrap();
    assert_eq!((summary.epochs, summary.steps, summary.stopped), (1, 3, true));
    assert_eq!(bits(&one_epoch), bits(&whole));
}

#[test]
fn divergence_restores_the_last_good_weights() {
    let data = bars(100, 1);
    for optimizer in [OptimizerOptions::sgd(), OptimizerOptions::momentum(), OptimizerOptions::adam()] {
        let mut weights = network(1);
        let error = train(&mut weights, &data, TrainOptions { optimizer, learning_rate: 1e6, epochs: 20, ..options() })
            .unwrap_err();
        let TrainError::Diverged { step, learning_rate, restored_step, .. } = error else { panic!("{error}") };
        assert!(step >= 1 && restored_step < step, "{optimizer}: {error}");
        assert_eq!(learning_rate, 1e6);
        assert!(error.to_string().contains("for example to 100000"), "{error}");
        assert!(weights.parameters().as_slice().iter().all(|v| v.is_finite()));
        // They are good for what comes next.
        assert_eq!(bits(&weights), bits(&network(1)), "{optimizer}: {error}");
        train(&mut weights, &data, options()).unwrap();
    }
}

#[test]
fn an_update_that_ruins_the_weights_at_the_very_end_is_noticed() {
    let data = bars(100, 1);
    let mut weights = network(1);
    let options = TrainOptions { epochs: 1, batch: 100, learning_rate: 1e6, ..options() };
    let error = train(&mut weights, &data, options).unwrap_err();
    assert!(matches!(error, TrainError::Diverged { step: 1, restored_step: 0, .. }), "{error}");
    assert_eq!(bits(&weights), bits(&network(1)));
}

#[test]
fn a_late_divergence_keeps_what_was_learnt() {
    let data = bars(200, 1);
    let mut weights = network(1);
    // The rate climbs until it is too high.
    let options = TrainOptions {
        optimizer: OptimizerOptions::sgd(),
        learning_rate: 1e4,
        schedule: Schedule::Cosine { warmup: 0.99 },
        epochs: 500,
        ..options()
    };
    let error = train(&mut weights, &data, options).unwrap_err();
    let TrainError::Diverged { step, restored_step, .. } = error else { panic!("{error}") };
    assert!(restored_step > 0 && restored_step < step, "{error}");
    assert_ne!(bits(&weights), bits(&network(1)));
    let evaluation = evaluate(&weights, &data, &plain(), 50).unwrap();
    assert!(evaluation.loss < 2.0, "{error}: {evaluation:?}");
}

#[test]
fn an_average_without_memory_is_the_weights_themselves() {
    let data = bars(100, 1);
    let run = |average: Option<f32>| {
        let mut network = network(1);
        train(&mut network, &data, TrainOptions { average, ..options() }).unwrap();
        network
    };
    let plain_run = run(None);
    assert_eq!(bits(&plain_run), bits(&run(Some(0.0))));
    assert_ne!(bits(&plain_run), bits(&run(Some(0.9))));
}

#[test]
fn what_does_not_fit_is_refused_before_any_step() {
    let data = bars(30, 1);
    let refused = |data: &Dataset, test: Option<&Dataset>, normalization: Normalization, options: TrainOptions| {
        let mut network = network(1);
        Trainer::new(&mut network, data, test, normalization, options).err().unwrap()
    };
    let error = refused(&data, None, plain(), TrainOptions { batch: 31, ..options() });
    assert!(matches!(error, TrainError::BatchTooLarge { batch: 31, images: 30, .. }), "{error}");
    assert!(error.to_string().contains("larger than the data"), "{error}");
    for bad in [
        TrainOptions { epochs: 0, ..options() },
        TrainOptions { batch: 0, ..options() },
        TrainOptions { learning_rate: 0.0, ..options() },
        TrainOptions { learning_rate: f32::NAN, ..options() },
        TrainOptions { epochs: usize::MAX, ..options() },
    ] {
        let error = refused(&data, None, plain(), bad);
        assert!(matches!(error, TrainError::Option { .. }), "{error}");
    }
    let bad = TrainOptions { optimizer: OptimizerOptions::Adam { beta1: 1.0, beta2: 0.9 }, ..options() };
    assert!(matches!(refused(&data, None, plain(), bad), TrainError::Optimizer(_)));

    let names = |n: usize| (0..n).map(|i| i.to_string()).collect::<Vec<_>>();
    let small =
        Dataset::new("small", Shape::new(1, 6, 6), Pixels::U8(vec![0; 36 * 30]), vec![0; 30], names(2)).unwrap();
    let error = refused(&small, None, plain(), options());
    assert!(matches!(error, TrainError::Shape { .. }), "{error}");
    assert!(error.to_string().contains("1 x 6 x 6") && error.to_string().contains("1 x 12 x 12"), "{error}");
    assert!(matches!(refused(&data, Some(&small), plain(), options()), TrainError::Shape { .. }));
    let three =
        Dataset::new("three", Shape::new(1, 12, 12), Pixels::U8(vec![0; 144 * 30]), vec![0; 30], names(3)).unwrap();
    let error = refused(&three, None, plain(), options());
    assert!(matches!(error, TrainError::Classes { found: 3, expected: 2, .. }), "{error}");

    for (mean, deviation) in [
        (vec![0.0, 0.0], vec![1.0]),
        (vec![0.0], vec![]),
        (vec![f32::NAN], vec![1.0]),
        (vec![0.0], vec![0.0]),
        (vec![0.0], vec![f32::INFINITY]),
    ] {
        let error = refused(&data, None, Normalization { mean, deviation }, options());
        assert!(matches!(error, TrainError::Normalization { .. }), "{error}");
    }

    let mut broken = network(1);
    broken.parameters_mut().get_mut("b2").unwrap()[[1]] = f32::NAN;
    let error = train(&mut broken, &data, options()).unwrap_err();
    assert!(
        matches!(&error, TrainError::NonFiniteParameter { parameter, position: 1, .. } if parameter == "b2"),
        "{error}"
    );
    assert!(matches!(evaluate(&broken, &data, &plain(), 10), Err(TrainError::NonFiniteParameter { .. })));
}

#[test]
fn evaluation_agrees_with_the_network_and_does_not_depend_on_the_batch() {
    let data = bars(50, 3);
    let network = network(2);
    let whole = evaluate(&network, &data, &plain(), 50).unwrap();
    assert_eq!((whole.images, whole.top5), (50, 1.0));
    assert_eq!(whole.confusion.sum(), 50);
    assert_eq!(whole.confusion.diag().sum(), whole.correct);
    assert_eq!(whole.mistakes.len(), 50 - whole.correct);
    assert_eq!(whole.classes.iter().map(|class| class.images).sum::<usize>(), 50);
    for batch in [1, 7, 49, 64] {
        let parts = evaluate(&network, &data, &plain(), batch).unwrap();
        assert_eq!(parts.confusion, whole.confusion, "batch {batch}");
        assert!((parts.loss - whole.loss).abs() < 1e-5, "batch {batch}");
    }
    let x = data.batch(0..50, &plain());
    assert!((f64::from(network.loss(x.view(), data.labels()).unwrap()) - whole.loss).abs() < 1e-5);
    assert!((network.accuracy(x.view(), data.labels()).unwrap() - whole.accuracy).abs() < 1e-9);
    let same = evaluate_parameters(network.description(), network.parameters(), &data, &plain(), 50).unwrap();
    assert_eq!(same, whole);
    assert!(matches!(evaluate(&network, &data, &plain(), 0), Err(TrainError::Option { field: "batch", .. })));
}

#[test]
fn outputs_beyond_all_numbers_are_told() {
    let mut network = network(2);
    network.parameters_mut().as_mut_slice().fill(1e30);
    let error = evaluate(&network, &bars(5, 3), &plain(), 5).unwrap_err();
    assert!(matches!(error, TrainError::NonFiniteOutput { image: 0, .. }), "{error}");
    // Before the first update the learning rate can't be the reason.
    let error = train(&mut network, &bars(50, 3), options()).unwrap_err();
    assert!(matches!(error, TrainError::Diverged { step: 0, .. }), "{error}");
    assert!(error.to_string().contains("before the first update"), "{error}");
}
