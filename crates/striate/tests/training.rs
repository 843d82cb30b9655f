//! The trainer and the evaluation on a small task with a known answer: bars that stand or lie.

use std::sync::atomic::{AtomicBool, Ordering};
use striate::data::augment::Views;
use striate::data::{Dataset, Normalization, Pixels};
use striate::layers::{AffineOptions, BatchNormOptions, ConvolutionOptions, Init, ReluOptions, SigmoidOptions};
use striate::models;
use striate::network::{Description, Network, Parameters};
use striate::optim::{OptimizerOptions, Schedule};
use striate::random::{Purpose, Random};
use striate::shape::{Rounding, Shape, Window};
use striate::train::{
    Control, Decay, EvaluateOptions, Event, Keep, TrainError, TrainOptions, TrainSummary, Trainer, evaluate,
    evaluate_parameters, evaluate_with,
};

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
                Event::Started { images, epochs, steps_per_epoch, .. } => {
                    assert_eq!((*images, *epochs, *steps_per_epoch), (400, 6, 20));
                }
                Event::Step { epoch, step, steps_per_epoch, loss, accuracy, learning_rate, .. } => {
                    assert!(*step > steps && *step <= (epoch * steps_per_epoch) as u64);
                    steps = *step;
                    assert!(loss.is_finite() && (0.0..=1.0).contains(accuracy));
                    assert!(*learning_rate > 0.0 && *learning_rate <= 0.003);
                }
                Event::Evaluating { images, .. } => evaluating.push(*images),
                Event::Epoch { metrics, parameters, best } => {
                    assert!(!best && metrics.validation_accuracy.is_none());
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
    assert_eq!((last.top5, last.ece.map(|ece| ece < 1.0)), (Some(evaluation.top5), Some(true)));
    assert!((evaluation.calibration.expected_error - last.ece.unwrap()).abs() < 1e-5);
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
    let all_options = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let optimizer = OptimizerOptions::adamw();
        let options =
            TrainOptions { optimizer, decay: Decay::Weights, label_smoothing: 0.1, clip: Some(0.1), ..options() };
        let mut network = network(4);
        pool.install(|| train(&mut network, &data, options)).unwrap();
        bits(&network)
    };
    assert_eq!(all_options(1), all_options(2));
    assert_eq!(all_options(1), all_options(3));
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
    assert_eq!((summary.kept_epoch, summary.kept()), (None, None));
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
fn a_flag_stops_after_the_step_at_hand() {
    let data = bars(200, 1);
    let mut stopped = network(1);
    let (flag, mut events) = (AtomicBool::new(false), Vec::new());
    // Ten steps are an epoch, and none but the last is told of.
    let options = TrainOptions { epochs: 1, log_every: 1000, ..options() };
    let trainer = Trainer::new(&mut stopped, &data, None, plain(), options.clone()).unwrap();
    let summary = trainer
        .checkpoints(Some(3))
        .stop_when(&flag)
        .run(&mut |event| {
            match event {
                Event::Checkpoint { state } => {
                    events.push(state.step());
                    flag.store(state.step() == 3, Ordering::Relaxed);
                }
                Event::Started { .. } => {}
                _ => panic!("nothing more may happen: {event:?}"),
            }
            Control::Continue
        })
        .unwrap();
    assert_eq!((summary.steps, summary.stopped), (3, true));
    // Saved once more after the stop.
    assert_eq!(events, [0, 3, 3]);
    let mut expected = network(1);
    train(&mut expected, &data, TrainOptions { steps: Some(3), ..options }).unwrap();
    assert_eq!(bits(&stopped), bits(&expected));
}

#[test]
fn training_accuracy_is_of_all_classes_even_where_images_are_ordered_by_class() {
    let mixed = bars(200, 1);
    let mut order: Vec<usize> = (0..200).collect();
    order.sort_by_key(|&image| mixed.labels()[image]);
    let data = mixed.subset(&order);
    let share = data.labels().iter().filter(|&&label| label == 0).count() as f64 / 200.0;
    // Everything is taken for the first class, and nothing is learnt.
    let mut network = network(1);
    network.parameters_mut().get_mut("b3").unwrap()[0] = 100.0;
    let options = TrainOptions { epochs: 2, learning_rate: 1e-9, evaluate_train: Some(50), ..options() };
    let summary = train(&mut network, &data, options).unwrap();
    let [first, last] = &summary.history[..] else { panic!("{summary:?}") };
    assert_eq!((first.train_images, last.train_images), (50, 200));
    assert_eq!(last.train_accuracy, share);
    assert!((first.train_accuracy - share).abs() <= 0.02, "{} of {share}", first.train_accuracy);
}

/// A convolution with its normalisation, and a head.
fn backbone() -> Description {
    Description::new("backbone", Shape::new(1, SIDE, SIDE))
        .with("Conv1", ConvolutionOptions::new(6, Window::square(3, 2, 1).rounding(Rounding::Floor), Init::He))
        .with("Norm1", BatchNormOptions::default())
        .with("Relu1", ReluOptions {})
}

#[test]
fn what_is_frozen_keeps_its_bits_and_the_rest_learns() {
    let data = bars(110, 1);
    let start = Network::new(backbone().with("Affine1", AffineOptions::new(2, Init::He)), 3).unwrap();
    let options =
        TrainOptions { average: Some(0.9), optimizer: OptimizerOptions::adamw(), clip: Some(1.0), ..options() };
    let with = |freeze: &[&str]| {
        let mut network = start.clone();
        let freeze = freeze.iter().map(|&name| name.into()).collect();
        train(&mut network, &data, TrainOptions { freeze, ..options.clone() }).unwrap();
        network
    };
    let same = |network: &Network| -> Vec<String> {
        let kept = |name: &str| network.parameters().get(name) == start.parameters().get(name);
        start.parameters().specs().iter().map(|spec| spec.name.clone()).filter(|name| kept(name)).collect()
    };
    assert_eq!(same(&with(&[])), [""; 0]);
    assert_eq!(same(&with(&["Conv?", "Norm1"])), ["W1", "b1", "gamma2", "beta2", "mean2", "variance2"]);
    // In the middle, a single parameter, and the head.
    assert_eq!(same(&with(&["Norm1"])), ["gamma2", "beta2", "mean2", "variance2"]);
    assert_eq!(same(&with(&["W*"])), ["W1", "W3"]);
    assert_eq!(same(&with(&["Affine1"])), ["W3", "b3"]);

    // A head on a frozen backbone is a head on the backbone's answers.
    let tuned = with(&["Conv1", "Norm1"]);
    let mut shapes: Vec<_> = start.parameters().specs().iter().map(|s| (s.name.clone(), s.shape.clone())).collect();
    shapes.truncate(6);
    let mut parameters = Parameters::zeros(shapes).unwrap();
    let len = parameters.len();
    parameters.as_mut_slice().copy_from_slice(&start.parameters().as_slice()[..len]);
    let prefix = Network::with_parameters(backbone(), parameters).unwrap();
    let features = prefix.predict(data.batch(0..data.len(), &plain()).view()).unwrap();
    let features = features.into_shape_with_order((110, 216, 1, 1)).unwrap();
    let features = Dataset::from_arrays(features, data.labels().to_vec(), data.class_names().to_vec()).unwrap();
    let head = Description::new("head", features.shape()).with("Affine1", AffineOptions::new(2, Init::He));
    let mut head = Network::new(head, 1).unwrap();
    head.parameters_mut().as_mut_slice().copy_from_slice(&start.parameters().as_slice()[len..]);
    train(&mut head, &features, options.clone()).unwrap();
    let difference = head.parameters().as_slice().iter().zip(&tuned.parameters().as_slice()[len..]);
    let difference = difference.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(difference < 1e-4, "{difference}");

    let mut network = start.clone();
    for (name, part) in [("Conv9", "Conv1, Norm1, Affine1"), ("*", "nothing would be learnt"), ("[", "pattern")] {
        let options = TrainOptions { freeze: vec![name.into()], ..options.clone() };
        let error = Trainer::new(&mut network, &data, None, plain(), options).err().unwrap().to_string();
        assert!(error.contains(part), "{error}");
    }
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
        // A bound on the gradient does not hide it.
        let options_with_clip =
            TrainOptions { optimizer, learning_rate: 1e9, clip: Some(1.0), epochs: 20, ..options() };
        let error = train(&mut network(1), &data, options_with_clip).unwrap_err();
        assert!(matches!(error, TrainError::Diverged { .. }), "{optimizer}: {error}");
        // They are good for what comes next.
        assert_eq!(bits(&weights), bits(&network(1)), "{optimizer}: {error}");
        train(&mut weights, &data, options()).unwrap();
    }
}

/// The first number that is not finite, as the error tells it.
fn first_fault(error: &TrainError) -> String {
    let TrainError::Diverged { first: Some(first), .. } = error else { panic!("{error}") };
    assert!(error.to_string().contains(&first.to_string()), "{error}");
    first.to_string()
}

#[test]
fn the_layer_where_numbers_ran_out_is_named() {
    let data = bars(100, 1);
    let huge = TrainOptions { learning_rate: 1e30, epochs: 20, ..options() };
    // Conv1's weights of 1e30 fit, and its output; what Affine1 makes of it does not.
    let mut weights = network(1);
    let error = train(&mut weights, &data, huge.clone()).unwrap_err();
    assert!(first_fault(&error).starts_with("the output of layer Affine1+Relu2 ("), "{error}");
    assert_eq!(bits(&weights), bits(&network(1)));
    // Weights that start too large.
    let mut weights = network(1);
    weights.parameters_mut().get_mut("W3").unwrap().fill(1e38);
    weights.parameters_mut().get_mut("b2").unwrap().fill(100.0);
    let error = train(&mut weights, &data, options()).unwrap_err();
    assert_eq!(first_fault(&error), "the output of layer Affine2 (inf)");
    // Pixels that the normalization blows up.
    let tiny = Normalization { mean: vec![0.0], deviation: vec![2e-38] };
    let mut weights = network(1);
    weights.parameters_mut().as_mut_slice().fill(0.0);
    let bright = Dataset::new(
        "x",
        Shape::new(1, SIDE, SIDE),
        Pixels::F32(vec![1e30; 100 * SIDE * SIDE]),
        vec![0; 100],
        vec!["a".into(), "b".into()],
    );
    let bright = bright.unwrap();
    let trainer = Trainer::new(&mut weights, &bright, None, tiny, options()).unwrap();
    let error = trainer.run(&mut |_| Control::Continue).unwrap_err();
    assert_eq!(first_fault(&error), "the input of the network (inf)");
}

#[test]
fn a_fault_that_the_loss_hides_is_found_within_a_logging_interval() {
    // Weights that decay by a factor of -1e19 a step, behind a sigmoid that makes 0 or 1 of anything.
    let data = bars(100, 1);
    let fixed = |value| Init::Constant { value };
    let description = Description::new("hidden", Shape::new(1, SIDE, SIDE))
        .with("Affine1", AffineOptions::new(3, fixed(0.1)))
        .with("Sigmoid1", SigmoidOptions {})
        .with("Affine2", AffineOptions::new(2, fixed(0.1)));
    for log_every in [3, 4] {
        let mut weights = Network::new(description.clone(), 1).unwrap();
        let options = TrainOptions {
            optimizer: OptimizerOptions::Sgd { weight_decay: 1.0 },
            learning_rate: 1e19,
            freeze: vec!["Affine2".into(), "b1".into()],
            epochs: 20,
            log_every,
            ..options()
        };
        let light = Normalization { mean: vec![-0.1], deviation: vec![1.0] };
        let mut steps = 0;
        let error = Trainer::new(&mut weights, &data, None, light, options)
            .unwrap()
            .run(&mut |event| {
                if let Event::Step { step, loss, .. } = event {
                    assert!(loss.is_finite());
                    steps = *step;
                }
                Control::Continue
            })
            .unwrap_err();
        let TrainError::Diverged { step, loss, .. } = error else { panic!("{error}") };
        assert!(loss.is_finite() && step <= log_every as u64 && steps == 0, "{error}");
        assert!(first_fault(&error).starts_with("parameter W1 of layer Affine1 ("), "{error}");
        assert!(weights.parameters().as_slice().iter().all(|v| v.is_finite()));
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
fn decay_of_weights_leaves_biases_alone() {
    let data = bars(40, 1);
    let run = |decay: Decay| {
        let mut network = network(1);
        network.parameters_mut().get_mut("b1").unwrap().fill(0.5);
        let optimizer = OptimizerOptions::adamw().with_weight_decay(0.5).unwrap();
        train(&mut network, &data, TrainOptions { optimizer, decay, epochs: 1, batch: 40, ..options() }).unwrap();
        network
    };
    let (all, weights) = (run(Decay::All), run(Decay::Weights));
    for ((name, all), (_, weights)) in all.parameters().iter().zip(weights.parameters().iter()) {
        if name == "b1" {
            // One step: what decay took is all that differs.
            let taken = &weights - &all;
            assert!(taken.iter().all(|&v| (v - 0.003 * 0.5 * 0.5).abs() < 1e-6), "{taken}");
        } else {
            assert_eq!(all, weights, "{name}");
        }
    }
}

#[test]
fn clipping_bounds_the_step_and_tells_the_norm() {
    let data = bars(60, 1);
    let run = |clip: Option<f32>, learning_rate: f32| {
        let mut weights = network(1);
        let mut norms = Vec::new();
        let optimizer = OptimizerOptions::sgd();
        let options = TrainOptions { optimizer, clip, learning_rate, epochs: 1, batch: 60, ..options() };
        let trainer = Trainer::new(&mut weights, &data, None, plain(), options).unwrap();
        trainer
            .run(&mut |event| {
                if let Event::Step { gradient_norm, .. } = event {
                    norms.push(*gradient_norm);
                }
                Control::Continue
            })
            .unwrap();
        (weights, norms)
    };
    let moved = |weights: &Network| {
        let before = network(1);
        let pairs = weights.parameters().as_slice().iter().zip(before.parameters().as_slice());
        pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
    };
    let (free, none) = run(None, 0.1);
    assert_eq!(none, [None]);
    // A bound that is never reached changes no bit.
    let (wide, norms) = run(Some(1e6), 0.1);
    assert_eq!(bits(&wide), bits(&free));
    let [Some(norm)] = norms[..] else { panic!("{norms:?}") };
    assert!((moved(&free) / f64::from(0.1 * norm) - 1.0).abs() < 1e-3, "{norm}");
    let bound = norm / 4.0;
    let (clipped, norms) = run(Some(bound), 0.1);
    assert_eq!(norms, [Some(norm)], "the norm is told as it was before");
    assert!((moved(&clipped) / f64::from(0.1 * bound) - 1.0).abs() < 1e-3, "{norm}");
}

#[test]
fn smoothed_labels_change_the_training_loss_alone() {
    let (data, test) = (bars(200, 1), bars(100, 2));
    let run = |label_smoothing: f32| {
        let mut network = network(1);
        let options = TrainOptions { label_smoothing, epochs: 6, ..options() };
        let trainer = Trainer::new(&mut network, &data, Some(&test), plain(), options).unwrap();
        let summary = trainer.run(&mut |_| Control::Continue).unwrap();
        (network, summary.last().unwrap().clone())
    };
    let ((plain_network, sharp), (network, smooth)) = (run(0.0), run(0.5));
    assert_ne!(bits(&plain_network), bits(&network));
    // With half of every target spread over two classes, no loss is below the entropy of (3/4, 1/4).
    let least = -(0.75f64 * 0.75f64.ln() + 0.25 * 0.25f64.ln());
    assert!(smooth.train_loss > least && sharp.train_loss < least, "{} {}", smooth.train_loss, sharp.train_loss);
    assert!(smooth.test_accuracy.unwrap() > 0.9);
    // The test loss is the plain one, and can be below that.
    let evaluation = evaluate(&network, &test, &plain(), 20).unwrap();
    assert_eq!(Some(evaluation.loss), smooth.test_loss);
}

#[test]
fn the_best_epoch_is_kept_where_asked() {
    let data = bars(80, 1);
    // Nothing that can be learnt, so that the best epoch is not simply the last.
    let noise = (0..50 * SIDE * SIDE).map(|i| Random::new(3, Purpose::Test, 0).below(i as u64, 256) as u8).collect();
    let classes = data.class_names().to_vec();
    let labels = (0..50).map(|i| i % 2).collect();
    let validation = Dataset::new("noise", Shape::new(1, SIDE, SIDE), Pixels::U8(noise), labels, classes).unwrap();
    let run = |keep: Keep, with_validation: bool, average: Option<f32>| {
        let mut network = network(1);
        // A rate so high that the accuracy goes up and down.
        let optimizer = OptimizerOptions::momentum();
        let options = TrainOptions { optimizer, learning_rate: 0.15, epochs: 12, keep, average, ..options() };
        let mut trainer = Trainer::new(&mut network, &data, None, plain(), options).unwrap();
        if with_validation {
            trainer = trainer.validation(&validation).unwrap();
        }
        let mut epochs = Vec::new();
        let outcome = trainer.run(&mut |event| {
            if let Event::Epoch { metrics, parameters, best } = event {
                let bits: Vec<u32> = parameters.as_slice().iter().map(|v| v.to_bits()).collect();
                epochs.push(((*metrics).clone(), bits, *best));
            }
            Control::Continue
        });
        (network, outcome, epochs)
    };
    for average in [None, Some(0.5)] {
        let (last, outcome, epochs) = run(Keep::Last, true, average);
        assert_eq!(outcome.unwrap().kept_epoch, Some(12));
        assert_eq!(bits(&last), epochs[11].1);
        // Looking at more data changes no weight.
        assert_eq!(bits(&last), bits(&run(Keep::Last, false, average).0));

        let (best, outcome, epochs) = run(Keep::Best, true, average);
        let summary = outcome.unwrap();
        let mut record = (f64::NEG_INFINITY, f64::INFINITY);
        for (metrics, _, is_best) in &epochs {
            let this = (metrics.validation_accuracy.unwrap(), metrics.validation_loss.unwrap());
            let better = this.0 > record.0 || (this.0 == record.0 && this.1 < record.1);
            assert_eq!(*is_best, better, "epoch {}", metrics.epoch);
            if better {
                record = this;
            }
        }
        let (metrics, weights, _) = epochs.iter().rfind(|(.., best)| *best).unwrap();
        assert_eq!(&bits(&best), weights);
        assert_eq!((summary.kept_epoch, summary.kept()), (Some(metrics.epoch), Some(metrics)));
        let evaluation = evaluate(&best, &validation, &plain(), 20).unwrap();
        assert_eq!((evaluation.accuracy, evaluation.loss), record);
        if average.is_none() {
            assert_ne!(metrics.epoch, 12, "this run is meant to have its best epoch before the last");
        }
    }
    // Without a validation set nothing can be the best.
    let (untouched, outcome, epochs) = run(Keep::Best, false, None);
    let error = outcome.unwrap_err();
    assert!(error.to_string().contains("keep is best") && error.to_string().contains("validation"), "{error}");
    assert!(epochs.is_empty());
    assert_eq!(bits(&untouched), bits(&network(1)));
}

#[test]
fn a_stop_keeps_the_best_epoch_too() {
    let data = bars(60, 1);
    let mut weights = network(1);
    let mut best = Vec::new();
    let summary = Trainer::new(&mut weights, &data, None, plain(), TrainOptions { keep: Keep::Best, ..options() })
        .unwrap()
        .validation(&data)
        .unwrap()
        .run(&mut |event| match event {
            Event::Epoch { parameters, .. } => {
                best = parameters.as_slice().iter().map(|v| v.to_bits()).collect();
                Control::Continue
            }
            Event::Step { step: 5, .. } => Control::Stop,
            _ => Control::Continue,
        })
        .unwrap();
    assert_eq!((summary.steps, summary.kept_epoch, summary.stopped), (5, Some(1), true));
    assert_eq!(bits(&weights), best);
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
    let mut weights = network(1);
    let trainer = Trainer::new(&mut weights, &data, None, plain(), options()).unwrap();
    assert!(matches!(trainer.validation(&small).err(), Some(TrainError::Shape { .. })));
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

    // One number counts for every channel of a colour image.
    let colour = Dataset::new("colour", Shape::new(3, 4, 4), Pixels::U8(vec![7; 48 * 4]), vec![0, 1, 0, 1], names(2));
    let description = Description::new("flat", Shape::new(3, 4, 4)).with("Affine1", AffineOptions::new(2, Init::He));
    let mut weights = Network::new(description, 1).unwrap();
    let options_of_four = TrainOptions { batch: 4, ..options() };
    assert!(Trainer::new(&mut weights, &colour.unwrap(), None, Normalization::identity(), options_of_four).is_ok());

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
fn views_of_an_image_are_averaged() {
    let (data, mut network) = (bars(50, 3), network(2));
    // So that both sides of an image matter.
    network.parameters_mut().as_mut_slice().iter_mut().for_each(|weight| *weight *= 10.0);
    let Pixels::U8(pixels) = data.pixels() else { panic!("bars are bytes") };
    let mirrored: Vec<u8> = pixels.chunks_exact(SIDE).flat_map(|row| row.iter().rev().copied()).collect();
    let mirrored =
        Dataset::new("mirrored", data.shape(), Pixels::U8(mirrored), data.labels().into(), data.class_names().into());
    let of = |data: &Dataset| network.predict(data.batch(0..50, &plain()).view()).unwrap();
    let mean = (of(&data) + of(&mirrored.unwrap())) / 2.0;
    let loss = |row: usize| {
        let row: Vec<f64> = mean.row(row).iter().map(|&v| f64::from(v)).collect();
        row.iter().map(|v| v.exp()).sum::<f64>().ln()
    };
    let loss = (0..50).map(|row| loss(row) - f64::from(mean[[row, data.labels()[row]]])).sum::<f64>() / 50.0;
    let options = |batch, views| EvaluateOptions { views, ..EvaluateOptions::new(batch) };
    for batch in [7, 50] {
        let found = evaluate_with(&network, &data, &plain(), &options(batch, Views::Mirrored)).unwrap();
        assert!((found.loss - loss).abs() < 1e-5 * loss.max(1.0), "{} {loss}", found.loss);
        assert_eq!(found.images, 50);
    }
    let one = evaluate_with(&network, &data, &plain(), &options(50, Views::One)).unwrap();
    assert_eq!(one, evaluate(&network, &data, &plain(), 50).unwrap());
    assert!((one.loss - loss).abs() > 1e-4);
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
