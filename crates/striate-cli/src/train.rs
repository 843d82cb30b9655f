//! `striate train`

use crate::error::CliError;
use crate::model::{Architecture, ModelOptions, parse_setting, parse_shape};
use crate::output::{Output, bytes, complain, share, to_json};
use crate::progress::Progress;
use crate::recipe::{Recipe, RecipeOptions, parse_init};
use crate::report::Finished;
use crate::run_dir::RunDir;
use crate::tensorboard::Board;
use crate::{Global, model, source};
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use striate::data::augment::Augment;
use striate::data::{Dataset, Normalization, Preprocessing, Splits};
use striate::draw;
use striate::explain::filters;
use striate::formats::{ModelFile, TestVectors, weights_sha256};
use striate::kernels::isa::Isa;
use striate::layers::Init;
use striate::models;
use striate::network::Network;
use striate::optim::{OptimizerOptions, Schedule};
use striate::shape::Shape;
use striate::train::{
    Control, Decay, EpochMetrics, Evaluation, Event, TrainError, TrainOptions, Trainer, evaluate, whiten,
};

const EXAMPLES: &str = "Examples:
  striate train                                  SimpleConvNet on MNIST, the default recipe
  striate train --recipe book                    the chapter's settings to the letter
  striate train --epochs 2 --optimizer sgd --lr 0.1
  striate train --recipe best                    minutes instead of seconds, a deeper network
  striate train --model mlp --out runs/dense     the fully connected network, for comparison
  striate train --model lenet --set activation=relu
  striate train --model my.toml --data photos --augment default --normalize data
  striate train --data ~/fashion --json          a directory of IDX files; the result as JSON

The run directory holds model.safetensors, run.toml (every option), metrics.jsonl, report.html (all of it on one page),
curves.svg, confusion.svg, reliability.svg, mistakes.png, filters-before.png and filters-after.png. Ctrl-C stops after the current step and keeps the last weights; a second
Ctrl-C ends at once.";

/// Train a model and write a run directory
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TrainArgs {
    /// Data: `mnist`, or a directory of IDX files [default: mnist]
    #[arg(long, value_name = "NAME|DIR")]
    data: Option<String>,
    /// A model by name, an architecture as TOML, or a trained model to go on with [default: simple-convnet; with the
    /// recipe `best` mnist-net for grey images, cifar-net for colour]
    #[arg(long, value_name = "NAME|FILE")]
    model: Option<String>,
    /// An option of a model by name, as in activation=relu or dropout=0.3; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_setting)]
    settings: Vec<(String, String)>,
    /// Read image files at this size [default: their own if they agree, else 64 x 64]
    #[arg(long, value_name = "C,H,W", value_parser = parse_shape)]
    input: Option<Shape>,
    /// Set of options, each of which the flags below override [default: default]
    #[arg(long, value_enum)]
    recipe: Option<Recipe>,
    /// Times every training image is seen [recipes: 20; best: 8]
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,
    /// Images a step [recipes: 100]
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// sgd, momentum, nesterov, adagrad, rmsprop, adam, adamw or muon, with options as in `adamw:weight_decay=0.1`
    #[arg(long, value_name = "NAME")]
    optimizer: Option<OptimizerOptions>,
    /// Learning rate
    #[arg(long, value_name = "RATE")]
    lr: Option<f32>,
    /// How the learning rate changes: constant, cosine, step, milestones or onecycle, with options as shares of the run:
    /// `cosine:warmup=0.05`, `step:every=0.3,factor=0.1`, `milestones:at=0.5/0.75`, `onecycle:peak=0.3,start=0.04,end=0`
    #[arg(long, value_name = "NAME")]
    schedule: Option<Schedule>,
    /// Weight decay, for an optimizer that has it [default: the recipe's or the optimizer's own]
    #[arg(long, value_name = "SHARE")]
    weight_decay: Option<f32>,
    /// What weight decay acts on: `all` parameters, or `weights` alone and not biases [recipes: all]
    #[arg(long, value_name = "all|weights")]
    decay: Option<Decay>,
    /// Spread this share of every training target over all classes; 0 for none [recipes: 0]
    #[arg(long, value_name = "SHARE")]
    label_smoothing: Option<f32>,
    /// Scale gradients down to this length where they are longer; 0 for never [recipes: 0]
    #[arg(long, value_name = "LENGTH")]
    clip: Option<f32>,
    /// Keep a moving average of the weights with this decay, and make it the result; 0 for none
    #[arg(long, value_name = "DECAY")]
    average: Option<f32>,
    /// How training images are changed at every step: none, default for what suits the data, or a list such as
    /// `flip,crop:padding=4,affine:rotate=10;scale=0.1;shift=0.08,erase:share=0.1` [recipe best: default]
    #[arg(long, value_name = "LIST")]
    augment: Option<String>,
    /// Whether pixels are brought to mean 0 and deviation 1, channel by channel: `data` (the training set's own) or `none`
    /// [recipe best: data]
    #[arg(long, value_name = "none|data")]
    normalize: Option<Normalize>,
    /// Start the first convolution from the statistics of the training images' patches [recipe best: true for
    /// cifar-net]
    #[arg(long, value_name = "true|false")]
    whiten: Option<bool>,
    /// How weights start: he, xavier or normal:DEVIATION [default: as the model's publication says]
    #[arg(long, value_name = "NAME", value_parser = parse_init)]
    init: Option<Init>,
    /// Steps between lines of metrics.jsonl
    #[arg(long, value_name = "N", default_value = "10")]
    log_every: Option<usize>,
    /// Write what TensorBoard shows into the run directory too: `tensorboard --logdir runs`
    #[arg(long)]
    tensorboard: bool,
    /// Run directory, new or empty [default: the next free runs/MODEL-DATA-N]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Every option of a run, resolved: what `run.toml` shows.
#[derive(Clone, Debug, Serialize)]
struct Options {
    striate: &'static str,
    data: String,
    model: String,
    recipe: Recipe,
    seed: u64,
    epochs: usize,
    batch: usize,
    lr: f32,
    decay: Decay,
    label_smoothing: f32,
    clip: f32,
    average: f32,
    log_every: usize,
    threads: usize,
    isa: &'static str,
    augment: Augment,
    whiten: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    init: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    set: BTreeMap<String, String>,
    optimizer: OptimizerOptions,
    schedule: Schedule,
    normalization: Normalization,
}

/// `--normalize`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Normalize {
    None,
    Data,
}

impl Options {
    /// Everything but the model, the augmentation and the normalization, which depend on the data.
    fn resolve(args: &TrainArgs, global: &Global, isa: Isa) -> Result<Self, CliError> {
        let recipe = args.recipe.unwrap_or_default();
        let RecipeOptions {
            epochs,
            batch,
            optimizer,
            learning_rate,
            schedule,
            decay,
            label_smoothing,
            clip,
            average,
            ..
        } = recipe.options();
        // Another optimizer than the recipe's brings its own usual rate.
        let usual_rate = match args.optimizer {
            Some(other) if other.name() != optimizer.name() => other.default_learning_rate(),
            _ => learning_rate,
        };
        let optimizer = args.optimizer.unwrap_or(optimizer);
        let optimizer = match args.weight_decay {
            Some(weight_decay) => optimizer.with_weight_decay(weight_decay).map_err(TrainError::from)?,
            None => optimizer,
        };
        Ok(Self {
            striate: env!("CARGO_PKG_VERSION"),
            data: args.data.clone().unwrap_or_else(|| "mnist".into()),
            model: args.model.clone().unwrap_or_default(),
            recipe,
            seed: global.seed,
            epochs: args.epochs.unwrap_or(epochs),
            batch: args.batch.unwrap_or(batch),
            lr: args.lr.unwrap_or(usual_rate),
            decay: args.decay.unwrap_or(decay),
            label_smoothing: args.label_smoothing.unwrap_or(label_smoothing),
            clip: args.clip.unwrap_or(clip.unwrap_or(0.0)),
            average: args.average.unwrap_or(average.unwrap_or(0.0)),
            log_every: args.log_every.unwrap_or(10),
            threads: rayon::current_num_threads(),
            isa: isa.name(),
            optimizer,
            schedule: args.schedule.clone().unwrap_or(schedule),
            augment: Augment::none(),
            whiten: false,
            init: args.init.map(|init| init.to_string()),
            set: args.settings.iter().cloned().collect(),
            normalization: Normalization::identity(),
        })
    }

    /// What depends on the data.
    fn fit(&mut self, args: &TrainArgs, train: &Dataset) -> Result<(), CliError> {
        let recipe = self.recipe.options();
        if self.model.is_empty() {
            self.model = self.recipe.model(train.shape()).into();
        }
        self.augment = match args.augment.as_deref() {
            Some("default") => Augment::default_for(train),
            Some(list) => list.parse()?,
            None if recipe.augment => Augment::default_for(train),
            None => Augment::none(),
        };
        if args.normalize.map_or(recipe.normalize, |normalize| normalize == Normalize::Data) {
            self.normalization = train.normalization();
        }
        self.whiten = args.whiten.unwrap_or(recipe.whiten && self.model == "cifar-net");
        Ok(())
    }

    fn train_options(&self) -> TrainOptions {
        TrainOptions {
            epochs: self.epochs,
            batch: self.batch,
            seed: self.seed,
            optimizer: self.optimizer,
            learning_rate: self.lr,
            schedule: self.schedule.clone(),
            decay: self.decay,
            label_smoothing: self.label_smoothing,
            clip: (self.clip != 0.0).then_some(self.clip),
            average: (self.average != 0.0).then_some(self.average),
            augment: self.augment.clone(),
            log_every: self.log_every,
            // A sixth of MNIST is enough for the curve; the last epoch is evaluated on all of it.
            evaluate_train: Some(10_000),
            ..TrainOptions::default()
        }
    }
}

/// What goes into the model file beside the weights.
struct Packaging<'a> {
    options: &'a Options,
    preprocessing: Preprocessing,
    class_names: Vec<String>,
    /// A few test images, for the file's test vectors.
    samples: ndarray::Array4<f32>,
}

impl Packaging<'_> {
    /// Saves the network with what was measured of these very weights, if anything was.
    fn save(&self, network: &Network, metrics: Option<serde_json::Value>, run: &RunDir) -> Result<(), CliError> {
        let model = ModelFile {
            network: network.clone(),
            class_names: self.class_names.clone(),
            preprocessing: self.preprocessing.clone(),
            training: to_json(self.options),
            metrics: metrics.unwrap_or_default(),
            test_vectors: TestVectors::record(network, self.samples.clone())?,
            temperature: None,
        };
        Ok(model.save(&run.file(model::FILE))?)
    }
}

/// Trains and writes the run directory.
pub(crate) fn run(args: &TrainArgs, global: &Global, output: &Output, isa: Isa) -> Result<ExitCode, CliError> {
    let begun = Instant::now();
    let mut options = Options::resolve(args, global, isa)?;
    // What needs no data is checked before any is read.
    if let Some(model) = &args.model {
        model::check(model, !args.settings.is_empty())?;
    }
    if let Some(list) = args.augment.as_deref().filter(|&list| list != "default") {
        list.parse::<Augment>()?;
    }
    options.train_options().validate()?;
    let progress = &mut Progress::new(global.quiet);
    let Splits { train, test } = source::load(&options.data, args.input, output)?;
    options.fit(args, &train)?;
    let options = options;
    let mut network = network(args, &options, &train)?;
    let normalization = options.normalization.clone();
    // Every option is checked before anything is written.
    Trainer::new(&mut network, &train, Some(&test), normalization.clone(), options.train_options())?;
    let summary = network.summary(options.batch)?;
    let settings = toml::to_string(&options).map_err(|source| CliError::Options { source })?;
    let packaging = Packaging {
        options: &options,
        preprocessing: source::preprocessing(&train, normalization.clone())?,
        class_names: train.class_names().to_vec(),
        samples: test.batch(0..test.len().min(5), &normalization),
    };
    let stem = format!("{}-{}", network.description().name, source::short_name(&options.data));
    let mut run = RunDir::create(args.out.as_deref(), &stem)?;
    run.write("run.toml", &settings)?;
    progress.note(&format!(
        "{}: {} parameters; training a batch of {} takes {}; {} threads, {isa}",
        options.model,
        summary.parameters,
        options.batch,
        bytes(summary.peak_bytes),
        options.threads
    ));
    draw_filters(&network, &run, "filters-before.png", "First layer before training")?;

    let mut board = args.tensorboard.then(|| Board::create(&run)).transpose()?;
    if let Some(board) = &mut board {
        board.filters(0, network.parameters())?;
    }
    let interrupted = interruption(global.quiet);
    let mut trouble = None;
    let snapshot = network.clone();
    let mut history = Vec::new();
    let trainer = Trainer::new(&mut network, &train, Some(&test), normalization.clone(), options.train_options())?;
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
            Event::Epoch { metrics, parameters, .. } => {
                history.push((*metrics).clone());
                // A power cut costs at most one epoch.
                Network::with_parameters(snapshot.description().clone(), (*parameters).clone())
                    .map_err(CliError::from)
                    .and_then(|network| packaging.save(&network, Some(to_json(metrics)), &run))
                    .and_then(|()| {
                        let mut line = to_json(metrics);
                        line["type"] = "epoch".into();
                        run.metric(&line)
                    })
            }
            _ => Ok(()),
        };
        let written = written.and_then(|()| board.as_mut().map_or(Ok(()), |board| board.show(event)));
        if let Err(error) = written {
            trouble = Some(error);
        }
        if trouble.is_some() || interrupted.load(Ordering::Relaxed) { Control::Stop } else { Control::Continue }
    });
    progress.finish();
    if let Some(error) = trouble {
        // Perhaps only one file can't be written; the weights are worth another try.
        if outcome.is_ok() && packaging.save(&network, None, &run).is_ok() {
            complain(&format!("The last weights are in {}.", run.file(model::FILE).display()));
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
    let measured = summary.last().filter(|_| !summary.stopped);
    packaging.save(&network, measured.map(to_json), &run)?;
    draw_filters(&network, &run, "filters-after.png", "First layer after training")?;
    progress.note(if summary.stopped { "stopped; evaluating the last weights" } else { "evaluating" });
    let on_test = evaluate(&network, &test, &normalization, options.batch)?;
    let on_train = match measured {
        // After its last epoch the trainer evaluates the whole training set.
        Some(metrics) => (metrics.train_accuracy * train.len() as f64).round() as usize,
        None => {
            let on_train = evaluate(&network, &train, &normalization, options.batch)?;
            let metrics = serde_json::json!({
                "step": summary.steps,
                "train_accuracy": on_train.accuracy,
                "test_accuracy": on_test.accuracy,
                "test_loss": on_test.loss,
            });
            packaging.save(&network, Some(metrics), &run)?;
            on_train.correct
        }
    };
    run.write("confusion.svg", confusion(&on_test, &test, &options))?;
    let finished = Finished {
        model: &options.model,
        data: &options.data,
        seed: options.seed,
        settings: &settings,
        network: &network,
        train: &train,
        test: &test,
        on_test: &on_test,
        train_accuracy: on_train as f64 / train.len() as f64,
        summary: &summary,
        temperature: None,
    };
    finished.write(&mut run)?;

    tell(output, &run, &options, &on_test, on_train, &train, summary.stopped, begun.elapsed().as_secs_f64());
    output.json(&serde_json::json!({
        "out": run.path(),
        "seed": options.seed,
        "recipe": options.recipe,
        "epochs": summary.epochs,
        "steps": summary.steps,
        "seconds": summary.seconds,
        "images_per_second": summary.images_per_second,
        "train_accuracy": on_train as f64 / train.len() as f64,
        "test_accuracy": on_test.accuracy,
        "test_loss": on_test.loss,
        "weights_sha256": weights_sha256(network.parameters()),
        "stopped": summary.stopped,
    }));
    Ok(ExitCode::SUCCESS)
}

/// The network to train: fresh, or a trained one to go on with.
fn network(args: &TrainArgs, options: &Options, train: &Dataset) -> Result<Network, CliError> {
    // A file has an input and classes of its own, which are compared below.
    let by_name = models::NAMES.contains(&options.model.as_str());
    let wanted = ModelOptions {
        input: by_name.then(|| train.shape()),
        classes: by_name.then(|| train.classes()),
        settings: args.settings.clone(),
    };
    let (description, trained) = match model::architecture(&options.model, &wanted)? {
        Architecture::Described(description) => (description, None),
        Architecture::Trained(file) => (file.network.description().clone(), Some(file.network)),
    };
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
    let mut network = match (trained, args.init) {
        (Some(_), Some(_)) => {
            return Err(CliError::Usage("--init is for fresh weights; a trained model has its own".into()));
        }
        (Some(network), None) => return Ok(network),
        (None, Some(init)) => Network::new(description.with_init(init), options.seed)?,
        (None, None) => Network::new(description, options.seed)?,
    };
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
    // Where no handler can be installed, the signal ends the process as usual.
    let _ = ctrlc::set_handler(move || {
        if INTERRUPTED.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        if !quiet {
            complain("\nstopping after this step; once more to stop at once");
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
    train: &Dataset,
    stopped: bool,
    seconds: f64,
) {
    let directory = run.path().display();
    output.line(format!("test accuracy      {}", share(on_test.correct, on_test.images)));
    output.line(format!("training accuracy  {}", share(on_train, train.len())));
    let how = if stopped { "stopped" } else { "done" };
    output.line(format!("{how} after {seconds:.1} s; everything is in {directory}"));
    output
        .hint("  model.safetensors   the model, complete: weights, architecture, classes, preprocessing, test vectors");
    output.hint("  curves.svg          loss and accuracy by epoch");
    output.hint("  report.html         all of the below on one page: open it in a browser");
    output.hint("  confusion.svg       which class was taken for which");
    output.hint("  reliability.svg     how often the model is right where it is so sure");
    output.hint("  mistakes.png        the most confident mistakes");
    if run.file("filters-after.png").exists() {
        output.hint("  filters-before.png, filters-after.png   what the first layer learnt");
    }
    output.hint("  run.toml, metrics.jsonl   every option, every number");
    output.hint("Next:");
    output.hint(format!("  striate evaluate {directory}"));
    if options.data == "mnist" {
        output.hint(format!("  striate predict {directory} mnist:test:42"));
    }
    output.hint(format!("  striate explain {directory} filters"));
}
