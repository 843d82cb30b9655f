//! `striate train`

mod budget;
mod find;
mod options;
mod seeds;

use crate::error::CliError;
use crate::model::{Architecture, ModelOptions};
use crate::output::{Output, bytes, complain, share, table, thousands, to_json};
use crate::progress::Progress;
use crate::report::Finished;
use crate::run_dir::{CHECKPOINT, RunDir};
use crate::source::{ReadingArgs, Source};
use crate::tensorboard::Board;
use crate::watch::Watched;
use crate::{Global, model, pictures, source};
pub(crate) use options::{Class, TrainArgs};
use options::{Note, Options, Start};
use seeds::Family;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use striate::data::image_folder::Skipped;
use striate::data::{Dataset, HoldOut, Preprocessing};
use striate::draw;
use striate::explain::filters;
use striate::formats::{ModelFile, Temperature, TestVectors, weights_sha256};
use striate::kernels::isa::Isa;
use striate::models;
use striate::network::Network;
use striate::shape::Shape;
use striate::train::{
    Checkpoint, Control, EpochMetrics, EvaluateOptions, Evaluation, Event, Fingerprint, Fingerprints, Keep, TrainError,
    TrainSummary, Trainer, calibrate, evaluate, evaluate_with, whiten,
};

const FILTERS_BEFORE: &str = "filters-before.png";
const AUGMENT: &str = "augment.png";

/// What goes into the model file beside the weights.
struct Packaging<'a> {
    options: &'a Options,
    preprocessing: Preprocessing,
    class_names: Vec<String>,
    /// A few test images, for the file's test vectors.
    samples: TestVectors,
}

impl Packaging<'_> {
    /// Saves the network with what was measured of these very weights, if anything was.
    fn save(&self, network: &Network, metrics: Option<serde_json::Value>, run: &RunDir) -> Result<(), CliError> {
        self.save_at(&run.file(model::FILE), network, metrics, None)
    }

    /// The same in any file, with a temperature for the probabilities.
    fn save_at(
        &self,
        file: &Path,
        network: &Network,
        metrics: Option<serde_json::Value>,
        temperature: Option<Temperature>,
    ) -> Result<(), CliError> {
        let model = ModelFile {
            network: network.clone(),
            class_names: self.class_names.clone(),
            preprocessing: self.preprocessing.clone(),
            training: to_json(self.options),
            metrics: metrics.unwrap_or_default(),
            test_vectors: self.samples.clone().recorded(network)?,
            temperature,
            quantized: None,
        };
        Ok(model.save(file)?)
    }
}

/// The images of a run.
struct Data {
    train: Dataset,
    validation: Option<Dataset>,
    test: Dataset,
}

impl Data {
    /// Reads the data that the options name, and holds out of it what they ask for; also gives the files that could not be
    /// read.
    fn load(
        options: &mut Options,
        args: &TrainArgs,
        reading: &ReadingArgs,
        output: &Output,
    ) -> Result<(Self, Vec<Skipped>), CliError> {
        // A trained model says how image files are read.
        let trained = options.start.as_ref().map(|start| &start.preprocessing);
        let reading = reading.options(args.input, trained);
        let Source { splits, validation, report } = source::load(&options.data, &reading, output)?;
        let skipped = report.skipped;
        if let Some(validation) = validation {
            if args.validation.is_some_and(|share| share > 0.0) {
                return Err(CliError::Usage(format!(
                    "--validation: {} has images of its own to validate with ({} of them); leave the flag out",
                    options.data,
                    validation.len()
                )));
            }
            options.validation = 0.0;
            options.keep = args.keep.unwrap_or(Keep::Best);
            return Ok((Self { train: splits.train, validation: Some(validation), test: splits.test }, skipped));
        }
        if options.validation == 0.0 {
            for (field, found) in [
                ("keep", (options.keep == Keep::Best).then(|| Keep::Best.to_string())),
                ("patience", options.patience.map(|patience| patience.to_string())),
            ] {
                if let Some(found) = found {
                    let expected = "left out with --validation 0: nothing but held-out images tells the better epoch";
                    return Err(TrainError::Option { field, found, expected }.into());
                }
            }
            return Ok((Self { train: splits.train, validation: None, test: splits.test }, skipped));
        }
        let (train, validation) = splits.hold_out(HoldOut::Share(options.validation), options.seed)?;
        Ok((Self { train, validation: Some(validation), test: splits.test }, skipped))
    }

    /// Checks that options, network and data fit each other. With images to validate with, the test set is left for the
    /// final figure.
    fn trainer<'a>(&'a self, network: &'a mut Network, options: &Options) -> Result<Trainer<'a>, TrainError> {
        let test = self.validation.is_none().then_some(&self.test);
        let trainer = Trainer::new(network, &self.train, test, options.normalization.clone(), options.train_options())?;
        match &self.validation {
            Some(validation) => trainer.validation(validation),
            None => Ok(trainer),
        }
    }

    /// Files that could be read at the start, but no more when their images were needed.
    fn faults(&self) -> impl Iterator<Item = Skipped> {
        let parts = [Some(&self.train), self.validation.as_ref(), Some(&self.test)];
        parts.into_iter().flatten().flat_map(Dataset::faults)
    }

    /// What calibrates the network's probabilities, judged by the images held out; without any there is nothing honest to
    /// judge by.
    fn temperature(&self, network: &Network, options: &Options) -> Result<Option<Temperature>, CliError> {
        let Some(held_out) = &self.validation else { return Ok(None) };
        let value = calibrate(network, held_out, &options.normalization, options.batch)?;
        Ok(value.map(|value| Temperature { value, data: held_out.name().into(), images: held_out.len() }))
    }
}

/// What tells the data of a run from others, in `run.toml` beside the options.
#[derive(Serialize)]
struct KnownBy {
    fingerprint: BTreeMap<&'static str, Known>,
}

#[derive(Serialize)]
struct Known {
    images: usize,
    sha256: String,
}

impl KnownBy {
    fn of(data: &Fingerprints, test: &Dataset) -> Self {
        let test = data.test.clone().unwrap_or_else(|| Fingerprint::of(test));
        let parts = [("train", Some(&data.train)), ("validation", data.validation.as_ref()), ("test", Some(&test))];
        let known = |of: &Fingerprint| Known { images: of.images, sha256: of.sha256() };
        let parts = parts.into_iter().filter_map(|(name, of)| Some((name, known(of?))));
        Self { fingerprint: parts.collect() }
    }
}

/// A run that has not begun: its options, its data, and the network to train.
struct Prepared {
    options: Options,
    data: Data,
    /// Files that could not be read.
    skipped: Vec<Skipped>,
    network: Network,
}

/// What needs no data is checked before any is read.
fn check(args: &TrainArgs, options: &Options) -> Result<(), CliError> {
    if let Some(model) = &args.model {
        model::check(model, &args.settings)?;
    }
    Ok(options.train_options().validate()?)
}

impl Prepared {
    fn new(args: &TrainArgs, global: &Global, output: &Output, isa: Isa) -> Result<Self, CliError> {
        let mut options = Options::resolve(args, global, isa)?;
        check(args, &options)?;
        let trained = trained(args)?;
        options.start = trained.as_ref().map(|file| Start {
            weights_sha256: weights_sha256(file.network.parameters()),
            new_head: None,
            preprocessing: file.preprocessing.clone(),
        });
        let (data, skipped) = Data::load(&mut options, args, &args.reading, output)?;
        options.fit(args, &data.train)?;
        let network = match trained {
            Some(file) => tuned(*file, args, &mut options, &data.train, output)?,
            None => self::network(args, &options, &data.train)?,
        };
        Ok(Self { options, data, skipped, network })
    }

    /// The run that the checkpoint belongs to.
    fn resumed(
        resumed: &Resumed,
        args: &TrainArgs,
        global: &Global,
        output: &Output,
        isa: Isa,
    ) -> Result<Self, CliError> {
        let Resumed { note, checkpoint, .. } = resumed;
        let mut options = note.options.clone();
        check(args, &options)?;
        options.data = args.data.clone().unwrap_or(options.data);
        let (data, skipped) = Data::load(&mut options, &note.args, &args.reading, output)?;
        let options = Options::resumed(note, args, global, isa, &data.train)?;
        Ok(Self { options, data, skipped, network: checkpoint.network()? })
    }
}

/// Trains and writes the run directory; or does what `--find-lr` or `--seeds` says.
pub(crate) fn run(args: &TrainArgs, global: &Global, output: &Output, isa: Isa) -> Result<ExitCode, CliError> {
    if args.find_lr {
        return find::run(args, global, output, isa);
    }
    if let Some(count) = args.seeds {
        return seeds::run(count.into(), args, global, output, isa);
    }
    let (json, watched) = one(args, global, output, isa, None)?;
    output.json(&json);
    if let Some(watched) = watched {
        watched.stay(interruption(global.quiet));
    }
    Ok(ExitCode::SUCCESS)
}

/// One run; gives its line for `--json`, and the page that shows it. What it says of its end is left to the family of runs,
/// if it belongs to one.
fn one(
    args: &TrainArgs,
    global: &Global,
    output: &Output,
    isa: Isa,
    mut family: Option<&mut Family>,
) -> Result<(serde_json::Value, Option<Watched>), CliError> {
    let begun = Instant::now();
    let resumed = args.resume.as_deref().map(Resumed::open).transpose()?;
    let progress = &mut Progress::new(global.quiet);
    let Prepared { mut options, data, mut skipped, mut network } = match &resumed {
        Some(resumed) => Prepared::resumed(resumed, args, global, output, isa)?,
        None => Prepared::new(args, global, output, isa)?,
    };
    // The flags that count: of a run that is resumed, those it began with.
    let began_with = resumed.as_ref().map_or(args, |resumed| &resumed.note.args);
    let Data { train, test, .. } = &data;
    tell_balance(&options.classes, output);
    // Every option is checked before anything is written.
    let trainer = data.trainer(&mut network, &options)?;
    trainer.check_memory()?;
    let fingerprints = trainer.fingerprints();
    let summary = network.summary(options.batch)?;
    if let (Some(time), None) = (&options.time, &options.steps) {
        progress.note(&format!("a trial of {} s tells how many steps {time} are", budget::TRIAL.as_secs()));
        let known = family.as_ref().and_then(|family| family.steps);
        let steps = known.map_or_else(|| budget::steps(time, &network, &data, &options), Ok)?;
        if let Some(family) = &mut family {
            family.steps = Some(steps);
        }
        options.epochs = steps.div_ceil(train.len().div_ceil(options.batch) as u64) as usize;
        options.steps = Some(steps);
    }
    let options = options;
    let note = to_json(&Note { args: began_with.clone(), options: options.clone() });
    let known_by = KnownBy::of(&fingerprints, test);
    let settings = [toml::to_string(&options), toml::to_string(&known_by)]
        .map(|text| text.map_err(|source| CliError::Options { source }));
    let [settings, known] = settings;
    let settings = format!("{}\n{}", settings?, known?);
    let preprocessing = match &options.start {
        Some(start) => Preprocessing { normalization: options.normalization.clone(), ..start.preprocessing.clone() },
        None => source::preprocessing(train, options.normalization.clone())?,
    };
    let packaging = Packaging {
        options: &options,
        class_names: train.class_names().to_vec(),
        samples: TestVectors::of_data(test, 5, &preprocessing),
        preprocessing,
    };
    let (mut run, checkpoint) = match resumed {
        Some(Resumed { mut run, checkpoint, .. }) => {
            // Refused before anything in the directory is touched.
            data.trainer(&mut network, &options)?.known_by(fingerprints.clone()).check_resumes(&checkpoint)?;
            run.cut_metrics(checkpoint.step(), checkpoint.history().len())?;
            (run, Some(checkpoint))
        }
        None => {
            let stem = format!("{}-{}", network.description().name, source::short_name(&options.data));
            let run = match &mut family {
                Some(family) => RunDir::create(Some(&family.run_directory(&stem, options.seed)?), &stem)?,
                None => RunDir::create(args.out.as_deref(), &stem)?,
            };
            (run, None)
        }
    };
    progress.note(&format!(
        "{}: {} parameters; training a batch of {} takes {}; {} threads, {isa}",
        options.model,
        summary.parameters,
        options.batch,
        bytes(summary.peak_bytes),
        options.threads
    ));

    let mut board = args.tensorboard.then(|| Board::create(&run)).transpose()?;
    if let Some(board) = &mut board {
        board.filters(0, network.parameters())?;
    }
    let interrupted = interruption(global.quiet);
    let mut trouble = None;
    let first = network.clone();
    let mut history = checkpoint.as_ref().map_or(Vec::new(), |checkpoint| checkpoint.history().to_vec());
    let as_model = ModelFile {
        network: network.clone(),
        class_names: packaging.class_names.clone(),
        preprocessing: packaging.preprocessing.clone(),
        training: to_json(&options),
        metrics: serde_json::Value::Null,
        test_vectors: TestVectors::none(),
        temperature: None,
        quantized: None,
    };
    let shown = (train, test);
    let watched = args.watch.start(as_model, shown, &options.train_options(), history.clone(), output)?;
    let mut is_set_up = false;
    let trainer = data.trainer(&mut network, &options)?.checkpoints(options.checkpoint_every).stop_when(interrupted);
    let trainer = trainer.snapshots(options.snapshots).known_by(fingerprints);
    let trainer = match checkpoint {
        Some(checkpoint) => trainer.resume(checkpoint),
        None => trainer,
    };
    let outcome = trainer.run(&mut |event| {
        progress.show(event);
        let written = match event {
            Event::Step { epoch, step, loss, accuracy, learning_rate, gradient_norm, images_per_second, .. } => {
                let mut line = serde_json::json!({ "type": "step", "epoch": epoch, "step": step, "loss": loss,
                    "accuracy": accuracy, "learning_rate": to_json(learning_rate),
                    "images_per_second": images_per_second });
                if let Some(norm) = gradient_norm {
                    line["gradient_norm"] = to_json(norm);
                }
                run.metric(&line)
            }
            Event::Epoch { metrics, parameters, best } => {
                history.push((*metrics).clone());
                let mut line = to_json(metrics);
                line["type"] = "epoch".into();
                run.metric(&line).and_then(|()| {
                    // The model is there to be used while training goes on.
                    if options.keep == Keep::Best && !best {
                        return Ok(());
                    }
                    let network = Network::with_parameters(first.description().clone(), (*parameters).clone())?;
                    packaging.save(&network, Some(to_json(metrics)), &run)
                })
            }
            Event::Snapshot { step, parameters } => run.snapshot(*step).and_then(|file| {
                let network = Network::with_parameters(first.description().clone(), (*parameters).clone())?;
                packaging.save_at(&file, &network, Some(serde_json::json!({ "step": step })), None)
            }),
            Event::Checkpoint { state } => {
                run.flush_metrics().and_then(|()| Ok(state.save(&run.file(CHECKPOINT), &note)?))
            }
            _ => Ok(()),
        };
        // The first checkpoint comes before all else: with it the run can be resumed whatever happens.
        let written = written.and_then(|()| {
            if is_set_up || matches!(event, Event::Started { step: 0, .. }) {
                return Ok(());
            }
            is_set_up = true;
            set_up(&run, &settings, &first, matches!(event, Event::Started { .. }))?;
            draw_augmentation(&run, train, &options)
        });
        let written = written.and_then(|()| board.as_mut().map_or(Ok(()), |board| board.show(event)));
        if let Err(error) = written {
            // The first trouble is the cause of the others.
            trouble.get_or_insert(error);
        }
        let wanted = watched.as_ref().map_or(Control::Continue, |watched| watched.follow(event, interrupted));
        if trouble.is_some() || interrupted.load(Ordering::Relaxed) { Control::Stop } else { wanted }
    });
    progress.finish();
    if let Some(error) = trouble {
        // Perhaps only one file can't be written; the weights are worth another try.
        if outcome.is_ok() && packaging.save(&network, None, &run).is_ok() {
            complain(&format!("The last weights are in {}.", run.file(model::FILE).display()));
        }
        if run.file(CHECKPOINT).exists() {
            complain(&format!(
                "The last checkpoint is whole: `striate train --resume {}` goes on from there.",
                run.path().display()
            ));
        }
        return Err(error);
    }
    if !history.is_empty() {
        run.write("curves.svg", curves(&history, &options))?;
    }
    let summary = match outcome {
        Ok(summary) => summary,
        Err(error @ TrainError::Diverged { .. }) => {
            packaging.save(&network, None, &run)?;
            draw_filters(&network, &run, "filters-after.png", "First layer, last good weights")?;
            complain(&format!("The last good weights are in {}.", run.file(model::FILE).display()));
            return Err(error.into());
        }
        Err(error) => return Err(error.into()),
    };
    draw_filters(&network, &run, "filters-after.png", "First layer after training")?;
    progress.note(if summary.stopped { "stopped; evaluating the last weights" } else { "evaluating" });
    let temperature = data.temperature(&network, &options)?;
    let divisor = temperature.as_ref().map_or(1.0, |temperature| temperature.value);
    let measured = EvaluateOptions { temperature: divisor, ..EvaluateOptions::new(options.batch) };
    let on_test = evaluate_with(&network, test, &options.normalization, &measured)?;
    let kept = summary.kept();
    let on_train = match kept.filter(|metrics| metrics.train_images == train.len()) {
        // After its last epoch the trainer evaluates the whole training set.
        Some(metrics) => (metrics.train_accuracy * train.len() as f64).round() as usize,
        None => evaluate(&network, train, &options.normalization, options.batch)?.correct,
    };
    let train_accuracy = on_train as f64 / train.len() as f64;
    let mut metrics = kept.map_or_else(|| serde_json::json!({ "step": summary.steps }), to_json);
    metrics["train_accuracy"] = train_accuracy.into();
    metrics["train_images"] = train.len().into();
    metrics["test_accuracy"] = on_test.accuracy.into();
    metrics["test_loss"] = on_test.loss.into();
    packaging.save_at(&run.file(model::FILE), &network, Some(metrics), temperature.clone())?;
    run.write("confusion.svg", confusion(&on_test, test, &options))?;

    skipped.extend(data.faults());
    let finished = Finished {
        model: &options.model,
        data: &options.data,
        seed: options.seed,
        settings: &settings,
        network: &network,
        train,
        test,
        on_test: &on_test,
        train_accuracy,
        summary: &summary,
        temperature: temperature.as_ref(),
        classes: &options.classes,
        skipped: &skipped,
        data_sha256: known_by.fingerprint.iter().map(|(part, known)| (*part, known.sha256.as_str())).collect(),
    };
    finished.write(&mut run)?;

    if let Some(watched) = &watched {
        watched.finish(&run)?;
    }
    if family.is_none() {
        tell(output, &run, &options, &on_test, on_train, &data, &summary, &skipped, begun.elapsed().as_secs_f64());
    }
    let mut json = serde_json::json!({
        "out": run.path(),
        "seed": options.seed,
        "recipe": options.recipe,
        "epochs": summary.epochs,
        "steps": summary.steps,
        "seconds": summary.seconds,
        "images_per_second": summary.images_per_second,
        "train_accuracy": train_accuracy,
        "validation_accuracy": kept.and_then(|metrics| metrics.validation_accuracy),
        "test_accuracy": on_test.accuracy,
        "test_loss": on_test.loss,
        "weights_sha256": weights_sha256(network.parameters()),
        "kept_epoch": summary.kept_epoch,
        "stopped": summary.stopped,
        "skipped": source::skipped_json(&skipped),
        "out_of_patience": summary.out_of_patience,
    });
    if let Some(watched) = &watched {
        json["watch"] = watched.url().into();
    }
    Ok((json, watched))
}

/// A run to go on with.
struct Resumed {
    run: RunDir,
    checkpoint: Checkpoint,
    note: Note,
}

impl Resumed {
    fn open(path: &Path) -> Result<Self, CliError> {
        let run = RunDir::resume(path)?;
        let file = run.file(CHECKPOINT);
        let checkpoint = Checkpoint::load(&file)?;
        let note = serde_json::from_value(checkpoint.note().clone());
        let note = note.map_err(|source| CliError::Note { path: file, source })?;
        Ok(Self { run, checkpoint, note })
    }
}

/// What a run directory has from the start. `again` for a run that goes on: what it began with is drawn already.
fn set_up(run: &RunDir, settings: &str, network: &Network, again: bool) -> Result<(), CliError> {
    run.write("run.toml", settings)?;
    if again && run.file(FILTERS_BEFORE).exists() {
        return Ok(());
    }
    draw_filters(network, run, FILTERS_BEFORE, "First layer before training")
}

/// What augmentation makes of some images. The same for a run that goes on.
fn draw_augmentation(run: &RunDir, train: &Dataset, options: &Options) -> Result<(), CliError> {
    if options.augment.is_none() || run.file(AUGMENT).exists() {
        return Ok(());
    }
    run.write(AUGMENT, draw::png(&pictures::augmented(train, &options.train_options()))?)
}

/// The trained model to go on with, if `--model` is one.
fn trained(args: &TrainArgs) -> Result<Option<Box<ModelFile>>, CliError> {
    let Some(model) = args.model.as_deref().filter(|&model| !models::NAMES.contains(&model)) else { return Ok(None) };
    match model::architecture(model, &ModelOptions::default())? {
        Architecture::Described(_) => Ok(None),
        Architecture::Trained(file) if file.quantized.is_some() => {
            Err(CliError::Quantized { model: model.into(), what: "be trained" })
        }
        Architecture::Trained(file) => Ok(Some(file)),
    }
}

/// The network of a trained model, with a new last layer where the data has another number of classes.
fn tuned(
    file: ModelFile,
    args: &TrainArgs,
    options: &mut Options,
    train: &Dataset,
    output: &Output,
) -> Result<Network, CliError> {
    let ModelFile { network, class_names, .. } = file;
    let fresh = [("--init", args.init.is_some()), ("--whiten true", args.whiten == Some(true))];
    if let Some((flag, _)) = fresh.into_iter().find(|(_, given)| *given) {
        return Err(CliError::Usage(format!("{flag} is for fresh weights; a trained model has its own")));
    }
    if network.input() != train.shape() {
        return Err(CliError::Usage(format!(
            "{}: the model takes images of {}, but those of {} are {}; image files are read at the model's size where \
             --input is left out",
            options.model,
            network.input(),
            options.data,
            train.shape()
        )));
    }
    let say = |text: String| {
        if !output.is_quiet() {
            complain(&text);
        }
    };
    if network.classes() == train.classes() {
        if class_names != train.class_names() {
            say(format!(
                "note: {} tells {} apart, {} {}: as many classes under other names, so its last layer is kept",
                options.model,
                listed(&class_names),
                options.data,
                listed(train.class_names())
            ));
        }
        return Ok(network);
    }
    let (classes, (changed, head)) = (network.classes(), network.with_new_head(train.classes(), options.seed)?);
    say(format!(
        "{} tells {classes} classes apart, {} has {}: layer {head} starts anew, the others keep their weights",
        options.model,
        options.data,
        train.classes()
    ));
    if let Some(start) = &mut options.start {
        start.new_head = Some(head);
    }
    Ok(changed)
}

/// The first few names.
fn listed(names: &[String]) -> String {
    const FEW: usize = 3;
    let more = if names.len() > FEW { ", ..." } else { "" };
    format!("{}{more}", names.iter().take(FEW).map(String::as_str).collect::<Vec<_>>().join(", "))
}

/// Says how classes are balanced.
fn tell_balance(classes: &[Class], output: &Output) {
    if classes.is_empty() || output.is_quiet() {
        return;
    }
    let row = |class: &Class| {
        let weight = class.weight.map(|weight| format!("weight {weight:.3}"));
        let drawn = class.drawn.map(|drawn| format!("drawn {} times an epoch", thousands(drawn)));
        vec![class.name.clone(), format!("{} images", thousands(class.images)), weight.or(drawn).unwrap_or_default()]
    };
    complain("classes balanced:");
    let rows: Vec<Vec<String>> = classes.iter().map(row).collect();
    table(&rows, &[0, 2]).iter().for_each(|line| complain(&format!("  {line}")));
}

/// The network to train, with fresh weights.
fn network(args: &TrainArgs, options: &Options, train: &Dataset) -> Result<Network, CliError> {
    // A file has an input and classes of its own, which are compared below.
    let by_name = models::NAMES.contains(&options.model.as_str());
    let wanted = ModelOptions {
        input: by_name.then(|| train.shape()),
        classes: by_name.then(|| train.classes()),
        settings: args.settings.clone(),
    };
    let description = model::architecture(&options.model, &wanted)?.description().clone();
    let (input, classes) = (description.input, description.shapes()?.last().map_or(0, Shape::len));
    if (input, classes) != (train.shape(), train.classes()) {
        return Err(CliError::Usage(format!(
            "{}: the model takes images of {input} and tells {classes} classes apart, but those of {} are {} with {} \
             classes{}",
            options.model,
            options.data,
            train.shape(),
            train.classes(),
            if input == train.shape() { "" } else { "; --input reads image files at another size" }
        )));
    }
    let description = args.init.map_or(description.clone(), |init| description.with_init(init));
    let mut network = Network::new(description, options.seed)?;
    if options.whiten && !whiten(&mut network, train, &options.normalization)? && args.whiten.is_some() {
        return Err(CliError::Usage(format!(
            "--whiten is for models that begin with a convolution without groups; {} does not",
            options.model
        )));
    }
    Ok(network)
}

/// Becomes true at the first Ctrl-C or termination signal; the second ends the process.
fn interruption(quiet: bool) -> &'static AtomicBool {
    static INTERRUPTED: AtomicBool = AtomicBool::new(false);
    // Where no handler can be installed, the signal ends the process as usual; the second run of several has the first's.
    let _ = ctrlc::set_handler(move || {
        if INTERRUPTED.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        if !quiet {
            complain("\nstopping; once more to stop at once");
        }
    });
    &INTERRUPTED
}

fn draw_filters(network: &Network, run: &RunDir, name: &str, title: &str) -> Result<(), CliError> {
    // A network without convolution has no filters to draw.
    let Ok(filters) = filters::filters(network, None) else { return Ok(()) };
    run.write(name, draw::png(&draw::filters(filters.values.view(), title).image)?)
}

fn curves(history: &[EpochMetrics], options: &Options) -> String {
    let points: Vec<draw::CurvePoint> = history
        .iter()
        .map(|m| draw::CurvePoint {
            epoch: m.epoch,
            train_loss: m.train_loss,
            train_accuracy: m.train_accuracy,
            validation_loss: m.validation_loss,
            validation_accuracy: m.validation_accuracy,
            test_loss: m.test_loss,
            test_accuracy: m.test_accuracy,
        })
        .collect();
    draw::curves(&points, &format!("{} on {}, seed {}", options.model, source::short_name(&options.data), options.seed))
}

fn confusion(evaluation: &Evaluation, test: &Dataset, options: &Options) -> String {
    let title = format!("{} on {}, test set", options.model, source::short_name(&options.data));
    draw::confusion(&evaluation.confusion, test.class_names(), &title)
}

fn tell(
    output: &Output,
    run: &RunDir,
    options: &Options,
    on_test: &Evaluation,
    on_train: usize,
    data: &Data,
    summary: &TrainSummary,
    skipped: &[Skipped],
    seconds: f64,
) {
    let directory = run.path().display();
    output.line(format!("test accuracy      {}", share(on_test.correct, on_test.images)));
    if let (Some(accuracy), Some(validation)) = (summary.kept().and_then(|m| m.validation_accuracy), &data.validation) {
        let correct = (accuracy * validation.len() as f64).round() as usize;
        output.line(format!("validation         {}", share(correct, validation.len())));
    }
    output.line(format!("training accuracy  {}", share(on_train, data.train.len())));
    if let (Keep::Best, Some(epoch)) = (options.keep, summary.kept_epoch) {
        output.line(format!("the weights are those of epoch {epoch}, the best on the validation set"));
    }
    source::list_skipped(output, skipped);
    let how = match () {
        () if summary.stopped => "stopped",
        () if summary.out_of_patience => "stopped early, as no epoch was better,",
        () => "done",
    };
    output.line(format!("{how} after {seconds:.1} s; everything is in {directory}"));
    output
        .hint("  model.safetensors   the model, complete: weights, architecture, classes, preprocessing, test vectors");
    output.hint("  last.ckpt           the whole run: `striate train --resume` goes on from it");
    output.hint("  report.html         all of the below on one page: open it in a browser");
    output.hint("  curves.svg          loss and accuracy by epoch");
    output.hint("  confusion.svg       which class was taken for which");
    output.hint("  reliability.svg     how often the model is right where it is so sure");
    output.hint("  mistakes.png        the most confident mistakes");
    if run.file(AUGMENT).exists() {
        output.hint("  augment.png         what the network saw of some training images");
    }
    if run.file("filters-after.png").exists() {
        output.hint("  filters-before.png, filters-after.png   what the first layer learnt");
    }
    if options.snapshots.is_some() {
        output.hint("  snapshots           models along the way: `striate explain RUN timeline` draws them");
    }
    output.hint("  run.toml, metrics.jsonl   every option, every number");
    output.hint("Next:");
    if summary.stopped {
        output.hint(format!("  striate train --resume {directory}"));
    }
    output.hint(format!("  striate evaluate {directory}"));
    if options.data == "mnist" {
        output.hint(format!("  striate predict {directory} mnist:test:42"));
    }
    output.hint(format!("  striate explain {directory} filters"));
}
