//! A run that goes on from a checkpoint gives the bits of the run that was never interrupted.

use serde_json::{Value, json};
use striate::data::{Dataset, Normalization, Pixels, one_class_names};
use striate::models;
use striate::network::Network;
use striate::optim::{OptimizerOptions, Schedule};
use striate::random::{Purpose, Random};
use striate::shape::Shape;
use striate::train::{
    Balance, Checkpoint, CheckpointError, Control, Event, Keep, Snapshots, TrainError, TrainOptions, TrainSummary,
    Trainer,
};

/// Checkpoints by the step they were written at.
type Saved = Vec<(u64, Vec<u8>)>;

const SHAPE: Shape = Shape { channels: 1, height: 12, width: 12 };

fn noise(images: usize, seed: u64) -> Dataset {
    let random = Random::new(seed, Purpose::Test, 0);
    let pixels = (0..images * SHAPE.len()).map(|i| (200.0 * random.uniform(i as u64)) as u8 + (i % 3) as u8).collect();
    Dataset::new("noise", SHAPE, Pixels::U8(pixels), (0..images).map(|i| i % 3).collect(), one_class_names(3)).unwrap()
}

fn network(model: &str) -> Network {
    Network::new(models::by_name(model, SHAPE, 3).unwrap(), 5).unwrap()
}

/// Three epochs of five steps, the last one of each smaller.
fn options() -> TrainOptions {
    TrainOptions { epochs: 3, batch: 10, learning_rate: 0.003, seed: 9, log_every: 4, ..TrainOptions::default() }
}

struct Task {
    model: &'static str,
    train: Dataset,
    validation: Option<Dataset>,
    options: TrainOptions,
}

impl Task {
    fn new(model: &'static str, options: TrainOptions) -> Self {
        let validation = (options.keep == Keep::Best || options.patience.is_some()).then(|| noise(20, 2));
        Self { model, train: noise(47, 1), validation, options }
    }

    fn trainer<'a>(&'a self, network: &'a mut Network) -> Result<Trainer<'a>, TrainError> {
        let trainer = Trainer::new(network, &self.train, None, Normalization::identity(), self.options.clone())?;
        match &self.validation {
            Some(validation) => trainer.validation(validation),
            None => Ok(trainer),
        }
    }

    /// The run from its beginning, with the bytes of every checkpoint.
    fn whole(&self) -> (Vec<u32>, TrainSummary, Saved) {
        let (mut network, mut saved) = (network(self.model), Vec::new());
        let trainer = self.trainer(&mut network).unwrap().checkpoints(Some(1));
        let summary = trainer.run(&mut |event| {
            if let Event::Checkpoint { state } = event {
                saved.push((state.step(), state.to_bytes(&Value::Null).unwrap()));
            }
            Control::Continue
        });
        (bits(&network), summary.unwrap(), saved)
    }

    fn resumed(&self, bytes: &[u8], threads: usize) -> (Vec<u32>, TrainSummary) {
        let checkpoint = Checkpoint::from_bytes(bytes, "the test").unwrap();
        let mut network = checkpoint.network().unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let trainer = self.trainer(&mut network).unwrap().resume(checkpoint);
        let summary = pool.install(|| trainer.run(&mut |_| Control::Continue)).unwrap();
        (bits(&network), summary)
    }

    fn refused(&self, bytes: &[u8]) -> String {
        let mut network = network(self.model);
        let checkpoint = Checkpoint::from_bytes(bytes, "the test").unwrap();
        let trainer = self.trainer(&mut network).unwrap().resume(checkpoint);
        let error = trainer.run(&mut |_| panic!("nothing may happen")).unwrap_err();
        assert!(matches!(error, TrainError::Resume { .. }), "{error:?}");
        error.to_string()
    }
}

fn bits(network: &Network) -> Vec<u32> {
    network.parameters().as_slice().iter().map(|v| v.to_bits()).collect()
}

/// All of a history that does not depend on the clock.
fn timeless(summary: &TrainSummary) -> Vec<Value> {
    let mut history: Vec<Value> = summary.history.iter().map(|m| serde_json::to_value(m).unwrap()).collect();
    for metrics in &mut history {
        for field in ["seconds", "evaluation_seconds", "images_per_second"] {
            metrics[field] = Value::Null;
        }
    }
    history
}

fn check(task: &Task) {
    let (expected, summary, saved) = task.whole();
    for (at, (step, bytes)) in saved.iter().enumerate() {
        // Each epoch's end is saved before and after its evaluation.
        let (found, resumed) = task.resumed(bytes, at % 3 + 1);
        assert!(found == expected, "{:?} from step {step}", task.options);
        assert_eq!(timeless(&resumed), timeless(&summary), "{:?} from step {step}", task.options);
        assert_eq!((resumed.steps, resumed.kept_epoch), (summary.steps, summary.kept_epoch));
        assert_eq!(resumed.out_of_patience, summary.out_of_patience);
    }
}

#[test]
fn snapshots_change_nothing_and_go_on_after_a_resume() {
    let task = Task::new("simple-convnet", TrainOptions { average: Some(0.9), ..options() });
    let (expected, _, saved) = task.whole();
    let shown = |network: &mut Network, checkpoint: Option<Checkpoint>| {
        let mut shown = Vec::new();
        let trainer = task.trainer(network).unwrap().snapshots(Some(Snapshots::Every(4)));
        let trainer = match checkpoint {
            Some(checkpoint) => trainer.resume(checkpoint),
            None => trainer,
        };
        let summary = trainer.run(&mut |event| {
            if let Event::Snapshot { step, parameters } = event {
                shown.push((*step, parameters.as_slice().to_vec()));
            }
            Control::Continue
        });
        summary.unwrap();
        shown
    };
    let mut network = network(task.model);
    let first = network.parameters().as_slice().to_vec();
    let all = shown(&mut network, None);
    assert_eq!(bits(&network), expected, "snapshots change nothing");
    assert_eq!(all.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [0, 4, 8, 12, 15]);
    assert_eq!((&all[0].1, all[4].1.as_slice()), (&first, network.parameters().as_slice()), "the averaged weights");
    // Whatever step the run is resumed from, no later snapshot is missing.
    for at in [0, 3, 4, 11] {
        let (step, bytes) = saved.iter().find(|(step, _)| *step == at).unwrap();
        let checkpoint = Checkpoint::from_bytes(bytes, "the test").unwrap();
        let mut resumed = checkpoint.network().unwrap();
        let expected: Vec<_> = all.iter().filter(|(due, _)| due >= step).cloned().collect();
        assert!(shown(&mut resumed, Some(checkpoint)) == expected, "from step {step}");
    }
}

#[test]
fn every_step_of_every_optimizer_can_be_resumed() {
    for name in OptimizerOptions::NAMES {
        let optimizer: OptimizerOptions = name.parse().unwrap();
        check(&Task::new("simple-convnet", TrainOptions { optimizer, average: Some(0.9), ..options() }));
    }
}

#[test]
fn schedules_augmentation_dropout_and_the_best_epoch_are_resumed() {
    for schedule in ["cosine:warmup=0.2", "step:every=0.2", "milestones", "onecycle"] {
        let (schedule, augment) =
            (schedule.parse().unwrap(), "crop:padding=2,affine,erase,mixup,cutmix".parse().unwrap());
        let options = TrainOptions { schedule, augment, keep: Keep::Best, clip: Some(0.5), ..options() };
        check(&Task::new("simple-convnet", options.clone()));
        if options.schedule.name() == "cosine" {
            check(&Task::new("deep-convnet", TrainOptions { epochs: 2, ..options.clone() }));
            // Cut within the last epoch, and ended by patience.
            check(&Task::new("simple-convnet", TrainOptions { steps: Some(13), ..options.clone() }));
            check(&Task::new("simple-convnet", TrainOptions { patience: Some(1), epochs: 9, ..options }));
        }
    }
}

#[test]
fn what_is_frozen_stays_frozen_when_resumed() {
    let freeze = vec!["Conv1".to_string(), "b2".to_string()];
    check(&Task::new("simple-convnet", TrainOptions { freeze, average: Some(0.9), ..options() }));
}

#[test]
fn balanced_classes_are_resumed() {
    for balance in [Balance::Weights, Balance::Sampling] {
        let augment = "crop:padding=2,mixup".parse().unwrap();
        let mut task = Task::new("simple-convnet", TrainOptions { balance, augment, ..options() });
        // 16, 15 and 3 images.
        let kept: Vec<usize> = (0..47).filter(|i| i % 3 < 2 || i % 15 == 2).collect();
        task.train = task.train.subset(&kept);
        check(&task);
    }
}

#[test]
fn the_first_checkpoint_comes_before_the_first_step_and_the_last_after_a_stop() {
    let task = Task::new("simple-convnet", options());
    let (mut network, mut steps) = (network("simple-convnet"), Vec::new());
    let summary = task.trainer(&mut network).unwrap().checkpoints(None).run(&mut |event| match event {
        Event::Checkpoint { state } => {
            steps.push(state.step());
            Control::Continue
        }
        Event::Step { step: 8, .. } => Control::Stop,
        _ => Control::Continue,
    });
    assert!(summary.unwrap().stopped);
    assert_eq!(steps, [0, 5, 8]);
}

#[test]
fn a_checkpoint_of_another_run_is_refused() {
    let task = Task::new("simple-convnet", options());
    let (.., saved) = task.whole();
    let (_, bytes) = &saved[7];
    let message = |options| Task::new("simple-convnet", options).refused(bytes);
    assert!(message(TrainOptions { batch: 9, ..options() }).contains("batch was 10 and is 9"));
    assert!(message(TrainOptions { seed: 1, ..options() }).contains("seed was 9 and is 1"));
    let optimizer = OptimizerOptions::muon();
    assert!(message(TrainOptions { optimizer, ..options() }).contains("optimizer was"));
    assert!(message(TrainOptions { average: Some(0.5), ..options() }).contains("average was null and is 0.5"));
    assert!(message(TrainOptions { epochs: 1, ..options() }).contains("steps done was 6 and is at most 5"));
    assert!(Task::new("mlp", options()).refused(bytes).contains("the network was"));
    let other = Task { train: noise(47, 3), ..Task::new("simple-convnet", options()) };
    assert!(other.refused(bytes).contains("the content of the training set's images was that of SHA-256"));
    let other = Task { validation: Some(noise(9, 3)), ..Task::new("simple-convnet", options()) };
    assert!(other.refused(bytes).contains("the validation set was none"));
}

#[test]
fn a_run_can_be_made_longer_where_its_past_would_have_been_the_same() {
    let task = Task::new("simple-convnet", options());
    let (.., saved) = task.whole();
    let longer = Task::new("simple-convnet", TrainOptions { epochs: 5, log_every: 7, ..options() });
    let (expected, ..) = longer.whole();
    for at in [3, saved.len() - 1] {
        assert!(longer.resumed(&saved[at].1, 2).0 == expected, "from checkpoint {at}");
    }
    let cosine = TrainOptions { schedule: Schedule::Cosine { warmup: 0.0 }, ..options() };
    let (.., saved) = Task::new("simple-convnet", cosine.clone()).whole();
    let message = Task::new("simple-convnet", TrainOptions { epochs: 5, ..cosine }).refused(&saved[7].1);
    assert!(message.contains("was 15 and is 25") && message.contains("the schedule"), "{message}");
}

#[test]
fn damage_is_found_and_named() {
    let (.., saved) = Task::new("mlp", options()).whole();
    let (_, bytes) = saved.last().unwrap();
    let error = |bytes: &[u8]| Checkpoint::from_bytes(bytes, "x.ckpt").unwrap_err();
    for keep in [0, 5, 100, bytes.len() / 2, bytes.len() - 1] {
        let error = error(&bytes[..keep]);
        assert!(matches!(error, CheckpointError::Format(_)) && error.to_string().contains("x.ckpt"), "{keep}: {error}");
    }
    for at in (0..bytes.len()).step_by(bytes.len() / 97) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        assert!(error(&damaged).to_string().contains("x.ckpt"), "byte {at}");
    }
    assert!(error(b"PK\x03\x04 something of PyTorch's").to_string().contains("zip archive"));
    let mut foreign = striate::formats::ContainerWriter::new();
    foreign.field("striate.version", "1").unwrap();
    let foreign = error(&foreign.to_bytes().unwrap());
    assert!(matches!(foreign, CheckpointError::Foreign { .. }), "{foreign}");
    assert!(Checkpoint::from_bytes(bytes, "").unwrap().note() == &json!(null));
}

#[test]
fn what_a_strangers_checkpoint_may_ask_for_is_bounded() {
    let description = serde_json::to_value(network("mlp").description()).unwrap();
    let network = |layers: usize| {
        let mut description = description.clone();
        description["layers"] = vec![description["layers"][0].clone(); layers].into();
        description.to_string()
    };
    let list = |bytes: usize| format!("[{}0]", "0,".repeat(bytes / 2));
    let text = |short: &str| short.to_owned();
    for (architecture, options, note, part) in [
        (network(5000), text("{}"), text("0"), "5000 layers; at most 4096"),
        (network(60_000), text("{}"), text("0"), "at most 4194304 are allowed"),
        (network(1), list(1 << 20), text("0"), "striate.options: it is"),
        (network(1), text("{}"), list(2 << 20), "striate.note: it is"),
    ] {
        let mut writer = striate::formats::ContainerWriter::new();
        writer.field("striate.checkpoint", "2").unwrap();
        let fields = [("architecture", architecture), ("options", options), ("note", note)];
        for (key, value) in fields.into_iter().chain([("data", text("{}")), ("progress", text("{}"))]) {
            writer.field(format!("striate.{key}"), value).unwrap();
        }
        let error = Checkpoint::from_bytes(&writer.to_bytes().unwrap(), "x.ckpt").unwrap_err().to_string();
        assert!(error.contains("x.ckpt") && error.contains(part), "{part}: {error}");
    }
}
