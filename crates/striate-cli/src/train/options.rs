//! The flags of `striate train`, and what they come to: every option of a run.

use crate::Global;
use crate::error::CliError;
use crate::model::{parse_init, parse_setting, parse_shape};
use crate::output::to_json;
use crate::recipe::{Recipe, RecipeOptions, Subject};
use crate::source::ReadingArgs;
use crate::watch::WatchArgs;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use striate::data::augment::Augment;
use striate::data::{DataError, Dataset, Normalization, Preprocessing};
use striate::kernels::isa::Isa;
use striate::layers::Init;
use striate::optim::{OptimizerOptions, Schedule};
use striate::shape::Shape;
use striate::train::{Balance, Decay, Keep, Snapshots, TrainError, TrainOptions, class_shares};

/// The share that is held out where something has to be chosen by it and nothing else is said.
const HELD_OUT: f64 = 0.1;

/// `--augment` for what suits the data.
const DEFAULT_AUGMENT: &str = "default";

const EXAMPLES: &str = "Examples:
  striate train                                  SimpleConvNet on MNIST, the default recipe
  striate train --recipe book                    the chapter's settings to the letter
  striate train --epochs 2 --optimizer sgd --lr 0.1
  striate train --recipe best                    minutes instead of seconds, a deeper network
  striate train --model mlp --out runs/dense     the fully connected network, for comparison
  striate train --model lenet --set activation=relu
  striate train --model my.toml --data photos --augment default --normalize data
  striate train --data photos --augment flip,crop,cutmix --label-smoothing 0.1
  striate train --data photos --patience 5       hold a tenth out, keep the best epoch, stop when none is better
  striate train --data photos --time 10m         as many steps as fit into ten minutes, the schedule laid over them
  striate train --data photos                    photographs: cifar-net, images changed at every step
  striate train --data photos --balance weights  classes of unequal size count the same
  striate train --data photos --model runs/pets --freeze 'block[12]-*'    fine-tune a trained model, its first layers frozen
  striate train --data photos --find-lr          which learning rate suits: find-lr.svg
  striate train --seeds 5 --out runs/five        five runs, mean and spread of their results
  striate train --watch                          a page that shows it learn: curves, filters, mistakes; pause and stop
  striate train --snapshots                      keep the weights along the way, for `striate explain RUN timeline`
  striate train --resume runs/simple-convnet-mnist-1
  striate train --data ~/fashion --json          a directory of IDX files; the result as JSON

The run directory holds model.safetensors, last.ckpt, run.toml (every option), metrics.jsonl, report.html (all of it on one
page), curves.svg, confusion.svg, reliability.svg, mistakes.png, filters-before.png, filters-after.png and, where images are
changed, augment.png. Ctrl-C stops after the step at hand, keeps the last weights and saves the run; a second Ctrl-C ends at
once. However a run ended, `striate train --resume DIR` goes on from last.ckpt and gives the weights that it would have given.";

/// Train a model and write a run directory
#[derive(Args, Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TrainArgs {
    /// Data: mnist, fashion-mnist, cifar10 or cifar100; a directory of IDX files, of CIFAR's binary files or of images (a
    /// folder a class, or train/ and test/ of those); or a CSV list of images [default: mnist]
    #[arg(long, value_name = "NAME|DIR")]
    pub(crate) data: Option<String>,
    /// A model by name, an architecture as TOML, or a trained model to go on with, whose last layer starts anew where the
    /// data has another number of classes [default: simple-convnet, for photographs cifar-net or, grey, mnist-net; with the recipe
    /// `best` mnist-net for grey images, cifar-net for colour]
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) model: Option<String>,
    /// An option of a model by name, as in activation=relu or dropout=0.3; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_setting)]
    pub(crate) settings: Vec<(String, String)>,
    /// Read image files at this size [default: their own if they agree, else 64 x 64]
    #[arg(long, value_name = "C,H,W", value_parser = parse_shape)]
    pub(crate) input: Option<Shape>,
    /// Set of options, each of which the flags below override [default: default]
    #[arg(long, value_enum)]
    pub(crate) recipe: Option<Recipe>,
    /// Times every training image is seen [recipes: 20, for photographs 5 (grey 20) and at least 500 steps; best: 8 (grey 20)]
    #[arg(long, value_name = "N")]
    pub(crate) epochs: Option<usize>,
    /// Train for about so long, as in 90s, 10m or 1h30m: a trial of two seconds tells how many steps that is, and the
    /// schedule is laid over them
    #[arg(long, value_name = "TIME", value_parser = parse_time, conflicts_with = "epochs")]
    pub(crate) time: Option<String>,
    /// Images a step [recipes: 100, or all where there are fewer]
    #[arg(long, value_name = "N")]
    pub(crate) batch: Option<usize>,
    /// sgd, momentum, nesterov, adagrad, rmsprop, adam, adamw or muon, with options as in `adamw:weight_decay=0.1`
    #[arg(long, value_name = "NAME")]
    pub(crate) optimizer: Option<OptimizerOptions>,
    /// Learning rate
    #[arg(long, value_name = "RATE")]
    pub(crate) lr: Option<f32>,
    /// How the learning rate changes: constant, cosine, step, milestones or onecycle, with options as shares of the run:
    /// `cosine:warmup=0.05`, `step:every=0.3,factor=0.1`, `milestones:at=0.5/0.75`, `onecycle:peak=0.3,start=0.04,end=0`
    #[arg(long, value_name = "NAME")]
    pub(crate) schedule: Option<Schedule>,
    /// Weight decay, for an optimizer that has it [default: the recipe's or the optimizer's own]
    #[arg(long, value_name = "SHARE")]
    pub(crate) weight_decay: Option<f32>,
    /// What weight decay acts on: `all` parameters, or `weights` alone and not biases [recipes: all]
    #[arg(long, value_name = "all|weights")]
    pub(crate) decay: Option<Decay>,
    /// Spread this share of every training target over all classes; 0 for none [recipes: 0]
    #[arg(long, value_name = "SHARE")]
    pub(crate) label_smoothing: Option<f32>,
    /// Scale gradients down to this length where they are longer; 0 for never [recipes: 0]
    #[arg(long, value_name = "LENGTH")]
    pub(crate) clip: Option<f32>,
    /// Keep a moving average of the weights with this decay, and make it the result; 0 for none
    #[arg(long, value_name = "DECAY")]
    pub(crate) average: Option<f32>,
    /// How training images are changed at every step: none, default for what suits the data, or a list such as
    /// `flip,crop:padding=4,affine:rotate=10;scale=0.1;shift=0.08,erase:share=0.1`; `mixup:alpha=0.2` and `cutmix:alpha=1`
    /// mix images of a batch and their targets. augment.png in the run directory shows it [recipe best, and
    /// photographs: default]
    #[arg(long, value_name = "LIST", value_parser = parse_augment)]
    pub(crate) augment: Option<String>,
    /// Whether pixels are brought to mean 0 and deviation 1, channel by channel: `data` (the training set's own), `none`, or
    /// `mean`, which takes the mean away from pixels of 0 to 255 as AlexNet's paper does [recipe best, and
    /// photographs: data; a trained model: its own]
    #[arg(long, value_name = "none|data|mean")]
    pub(crate) normalize: Option<Normalize>,
    /// Start the first convolution from the statistics of the training images' patches [recipe best, and colour
    /// photographs: true for cifar-net]
    #[arg(long, value_name = "true|false")]
    pub(crate) whiten: Option<bool>,
    /// What is done about classes of unequal size: `weights` in the loss by the inverse of a class's size, `sampling` of as
    /// many images of each class in every epoch, or `none` [default: none]
    #[arg(long, value_name = "weights|sampling|none")]
    pub(crate) balance: Option<Balance>,
    /// Leave the layers or parameters of this name as they are, `*` and `?` standing for any signs and one; may be given
    /// several times. Frozen batch normalisations keep their statistics
    #[arg(long, value_name = "PATTERN")]
    pub(crate) freeze: Vec<String>,
    /// How weights start: he, xavier or normal:DEVIATION [default: as the model's publication says]
    #[arg(long, value_name = "NAME", value_parser = parse_init)]
    pub(crate) init: Option<Init>,
    /// Hold this share of the training images out, evenly over the classes, to validate with; 0 for none [default: 0.1
    /// where --keep best or --patience asks for it and the data has no val/ of its own, else none]
    #[arg(long, value_name = "SHARE")]
    pub(crate) validation: Option<f64>,
    /// Which epoch's weights are the result: the `last` one's, or the `best` one's by the validation set [default: best
    /// with a validation set, else last]
    #[arg(long, value_name = "last|best")]
    pub(crate) keep: Option<Keep>,
    /// Stop early when so many epochs in a row were no better on the validation set
    #[arg(long, value_name = "EPOCHS")]
    pub(crate) patience: Option<usize>,
    /// Steps between lines of metrics.jsonl [default: 10]
    #[arg(long, value_name = "N")]
    pub(crate) log_every: Option<usize>,
    /// Write what TensorBoard shows into the run directory too: `tensorboard --logdir runs`
    #[arg(long)]
    pub(crate) tensorboard: bool,
    /// Save the run every so many steps too, besides at every epoch's end
    #[arg(long, value_name = "STEPS")]
    pub(crate) checkpoint_every: Option<u64>,
    /// Save the weights along the way into RUN/snapshots, every EVERY steps or else up to 33 times, closer together at
    /// the beginning; each file is a model, and `striate explain RUN timeline` draws them
    #[arg(long, value_name = "EVERY", num_args = 0..=1, default_missing_value = "spaced")]
    pub(crate) snapshots: Option<Snapshots>,
    /// Train so many times, with the seeds from --seed on: each in its own directory within the run directory, seeds.json
    /// with mean and standard deviation of the results beside them
    #[arg(long, value_name = "N", conflicts_with = "resume", value_parser = clap::value_parser!(u32).range(2..=1000))]
    #[serde(skip)]
    pub(crate) seeds: Option<u32>,
    /// Train nothing, but try a few hundred steps on a copy while the learning rate rises from 1e-6 to 10, suggest a rate,
    /// and draw find-lr.svg (here, or in --out)
    #[arg(long, conflicts_with_all = ["resume", "seeds", "lr", "schedule", "time", "tensorboard"])]
    #[serde(skip)]
    pub(crate) find_lr: bool,
    #[command(flatten)]
    #[serde(skip)]
    pub(crate) reading: ReadingArgs,
    #[command(flatten)]
    #[serde(skip)]
    pub(crate) watch: WatchArgs,
    /// Go on with the run in this directory from its last.ckpt; its options stand, only --epochs may be raised where the
    /// schedule allows it
    #[arg(long, value_name = "DIR", conflicts_with = "out")]
    #[serde(skip)]
    pub(crate) resume: Option<PathBuf>,
    /// Run directory, new or empty [default: the next free runs/MODEL-DATA-N]
    #[arg(long, value_name = "DIR")]
    #[serde(skip)]
    pub(crate) out: Option<PathBuf>,
}

impl TrainArgs {
    /// These flags, and those of `before` where nothing is said now.
    fn over(&self, before: &TrainArgs) -> TrainArgs {
        macro_rules! merged {
            ($($field:ident),+) => {
                TrainArgs {
                    $($field: self.$field.clone().or_else(|| before.$field.clone()),)+
                    settings: if self.settings.is_empty() { before.settings.clone() } else { self.settings.clone() },
                    freeze: if self.freeze.is_empty() { before.freeze.clone() } else { self.freeze.clone() },
                    tensorboard: self.tensorboard || before.tensorboard,
                    reading: self.reading.clone(),
                    watch: self.watch.clone(),
                    seeds: None,
                    find_lr: false,
                    resume: None,
                    out: None,
                }
            };
        }
        merged!(
            data,
            model,
            input,
            recipe,
            epochs,
            time,
            batch,
            optimizer,
            lr,
            schedule,
            weight_decay,
            decay,
            label_smoothing,
            clip,
            average,
            augment,
            normalize,
            whiten,
            balance,
            init,
            validation,
            keep,
            patience,
            log_every,
            checkpoint_every,
            snapshots
        )
    }
}

/// Every option of a run, resolved: what `run.toml` shows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Options {
    pub(crate) striate: String,
    pub(crate) data: String,
    pub(crate) model: String,
    pub(crate) recipe: Recipe,
    pub(crate) seed: u64,
    pub(crate) epochs: usize,
    /// What `--time` asked for, and the steps that it came to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) time: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) steps: Option<u64>,
    pub(crate) batch: usize,
    pub(crate) lr: f32,
    pub(crate) decay: Decay,
    pub(crate) label_smoothing: f32,
    pub(crate) clip: f32,
    pub(crate) average: f32,
    /// The share held out, unless the data brings images to validate with.
    pub(crate) validation: f64,
    pub(crate) keep: Keep,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) patience: Option<usize>,
    pub(crate) log_every: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) checkpoint_every: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) snapshots: Option<Snapshots>,
    pub(crate) threads: usize,
    pub(crate) isa: String,
    pub(crate) augment: Augment,
    pub(crate) whiten: bool,
    pub(crate) balance: Balance,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) freeze: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) init: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) set: BTreeMap<String, String>,
    pub(crate) optimizer: OptimizerOptions,
    pub(crate) schedule: Schedule,
    pub(crate) normalization: Normalization,
    /// The trained model that the run begins from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) start: Option<Start>,
    /// What balancing comes to, class by class; empty without it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) classes: Vec<Class>,
}

/// What a run takes over from a trained model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Start {
    /// Of the weights in the file.
    pub(crate) weights_sha256: String,
    /// The layer that begins anew, where the data has another number of classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) new_head: Option<String>,
    /// How the file turns images into inputs.
    pub(crate) preprocessing: Preprocessing,
}

/// How a class counts in a run that balances classes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Class {
    pub(crate) name: String,
    /// Training images.
    pub(crate) images: usize,
    /// Of an image in the loss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) weight: Option<f32>,
    /// Images drawn in an epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) drawn: Option<usize>,
}

/// `--normalize`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Normalize {
    None,
    Data,
    Mean,
}

impl Options {
    /// Everything that needs no data; the recipe's options are those for written characters until [`Options::fit`].
    pub(crate) fn resolve(args: &TrainArgs, global: &Global, isa: Isa) -> Result<Self, CliError> {
        let recipe = args.recipe.unwrap_or_default();
        let chooses = args.keep == Some(Keep::Best) || args.patience.is_some();
        let validation = args.validation.unwrap_or(if chooses { HELD_OUT } else { 0.0 });
        if !(0.0..1.0).contains(&validation) {
            let found = validation.to_string();
            return Err(
                TrainError::Option { field: "validation", found, expected: "at least 0 and less than 1" }.into()
            );
        }
        if args.checkpoint_every == Some(0) {
            let expected = "at least 1, or left out for every epoch only";
            return Err(TrainError::Option { field: "checkpoint_every", found: "0".into(), expected }.into());
        }
        let mut options = Self {
            striate: env!("CARGO_PKG_VERSION").into(),
            data: args.data.clone().unwrap_or_else(|| "mnist".into()),
            model: args.model.clone().unwrap_or_default(),
            recipe,
            seed: global.seed(),
            epochs: 0,
            time: args.time.clone(),
            steps: None,
            batch: 0,
            lr: 0.0,
            decay: Decay::All,
            label_smoothing: 0.0,
            clip: 0.0,
            average: 0.0,
            validation,
            keep: args.keep.unwrap_or(if validation > 0.0 { Keep::Best } else { Keep::Last }),
            patience: args.patience,
            log_every: args.log_every.unwrap_or(10),
            checkpoint_every: args.checkpoint_every,
            snapshots: args.snapshots,
            threads: rayon::current_num_threads(),
            isa: isa.name().into(),
            optimizer: OptimizerOptions::adam(),
            schedule: Schedule::constant(),
            augment: Augment::none(),
            whiten: false,
            balance: args.balance.unwrap_or_default(),
            freeze: args.freeze.clone(),
            init: args.init.map(|init| init.to_string()),
            set: args.settings.iter().cloned().collect(),
            normalization: Normalization::identity(),
            start: None,
            classes: Vec::new(),
        };
        options.set_recipe(&recipe.options(Subject::default(), true), args, usize::MAX)?;
        Ok(options)
    }

    /// The recipe's options for so many images, each unless a flag says otherwise.
    fn set_recipe(&mut self, recipe: &RecipeOptions, args: &TrainArgs, images: usize) -> Result<(), CliError> {
        // Another optimizer than the recipe's brings its own usual rate.
        let usual_rate = match args.optimizer {
            Some(other) if other.name() != recipe.optimizer.name() => other.default_learning_rate(),
            _ => recipe.learning_rate,
        };
        let optimizer = args.optimizer.unwrap_or(recipe.optimizer);
        self.optimizer = match args.weight_decay {
            Some(weight_decay) => optimizer.with_weight_decay(weight_decay).map_err(TrainError::from)?,
            None => optimizer,
        };
        self.batch = args.batch.unwrap_or(recipe.batch.min(images));
        let enough = recipe.least_steps.div_ceil(images.div_ceil(self.batch.max(1)).max(1));
        self.epochs = args.epochs.unwrap_or(recipe.epochs.max(enough));
        self.lr = args.lr.unwrap_or(usual_rate);
        self.schedule = args.schedule.clone().unwrap_or_else(|| recipe.schedule.clone());
        self.decay = args.decay.unwrap_or(recipe.decay);
        self.label_smoothing = args.label_smoothing.unwrap_or(recipe.label_smoothing);
        self.clip = args.clip.unwrap_or(recipe.clip.unwrap_or(0.0));
        self.average = args.average.unwrap_or(recipe.average.unwrap_or(0.0));
        Ok(())
    }

    /// What depends on the data.
    pub(crate) fn fit(&mut self, args: &TrainArgs, train: &Dataset) -> Result<(), CliError> {
        let recipe = self.recipe.options(Subject::of(train), train.shape().channels == 1);
        self.set_recipe(&recipe, args, train.len())?;
        if self.model.is_empty() {
            self.model = recipe.model.into();
        }
        self.augment = match args.augment.as_deref() {
            Some(DEFAULT_AUGMENT) => Augment::default_for(train),
            Some(list) => list.parse()?,
            None if recipe.augment => Augment::default_for(train),
            None => Augment::none(),
        };
        self.normalization = match (args.normalize, &self.start) {
            (None, Some(start)) => start.preprocessing.normalization.clone(),
            (None, None) if recipe.normalize => train.normalization(),
            (Some(Normalize::Data), _) => train.normalization(),
            (Some(Normalize::Mean), _) => {
                let mean = train.normalization().mean;
                Normalization { deviation: vec![1.0 / 255.0; mean.len()], mean }
            }
            (None | Some(Normalize::None), _) => Normalization::identity(),
        };
        if self.balance != Balance::None {
            let (weighs, draws) = (self.balance == Balance::Weights, self.balance == Balance::Sampling);
            let shares = train.class_names().iter().zip(class_shares(train, self.balance));
            self.classes = shares
                .map(|(name, share)| Class {
                    name: name.clone(),
                    images: share.images,
                    weight: weighs.then_some(share.weight),
                    drawn: draws.then_some(share.drawn),
                })
                .collect();
        }
        self.whiten = args.whiten.unwrap_or(recipe.whiten && self.model == "cifar-net");
        Ok(())
    }

    /// The options of the run to go on with, once the flags given now are found not to contradict them.
    pub(crate) fn resumed(
        note: &Note,
        args: &TrainArgs,
        global: &Global,
        isa: Isa,
        train: &Dataset,
    ) -> Result<Self, CliError> {
        let args = args.over(&note.args);
        let global = Global { seed: global.seed.or(Some(note.options.seed)), ..global.clone() };
        let mut now = Self::resolve(&args, &global, isa)?;
        let mut resumed = note.options.clone();
        // The model that the run began from need not be there any more.
        now.start.clone_from(&resumed.start);
        now.fit(&args, train)?;
        let (found, expected) = (to_json(&resumed), to_json(&now));
        let empty = serde_json::Map::new();
        let [found, expected] = [&found, &expected].map(|options| options.as_object().unwrap_or(&empty));
        // Data are known by their contents. The number of steps follows from the time, which was measured once.
        let free = [
            "striate",
            "data",
            "epochs",
            "steps",
            "log_every",
            "checkpoint_every",
            "snapshots",
            "threads",
            "isa",
            "keep",
            "validation",
        ];
        // First those that others follow from, as the learning rate does from the optimizer.
        let leading = ["recipe", "model", "optimizer"].into_iter();
        let fields = leading.chain(found.keys().chain(expected.keys()).map(String::as_str));
        for field in fields.filter(|field| !free.contains(field)) {
            let value = |options: &serde_json::Map<String, Value>| options.get(field).cloned().unwrap_or_default();
            if value(found) != value(expected) {
                return Err(contradiction(field, &value(found), &value(expected)));
            }
        }
        // What these came to depends on the data, so only what is said now can contradict it.
        if args.keep.is_some_and(|keep| keep != resumed.keep) {
            return Err(contradiction("keep", &to_json(&resumed.keep), &to_json(&now.keep)));
        }
        if args.validation.is_some_and(|share| share != resumed.validation && note.args.validation != args.validation) {
            return Err(contradiction("validation", &resumed.validation.into(), &now.validation.into()));
        }
        if resumed.steps.is_none() {
            resumed.epochs = now.epochs;
        } else if args.epochs.is_some() {
            return Err(contradiction("time", &to_json(&resumed.time), &Value::Null));
        }
        Ok(Self {
            data: now.data,
            log_every: now.log_every,
            checkpoint_every: now.checkpoint_every,
            snapshots: now.snapshots,
            threads: now.threads,
            striate: now.striate,
            isa: now.isa,
            ..resumed
        })
    }

    pub(crate) fn train_options(&self) -> TrainOptions {
        TrainOptions {
            epochs: self.epochs,
            steps: self.steps,
            patience: self.patience,
            batch: self.batch,
            seed: self.seed,
            optimizer: self.optimizer,
            learning_rate: self.lr,
            schedule: self.schedule.clone(),
            decay: self.decay,
            label_smoothing: self.label_smoothing,
            clip: (self.clip != 0.0).then_some(self.clip),
            keep: self.keep,
            average: (self.average != 0.0).then_some(self.average),
            augment: self.augment.clone(),
            balance: self.balance,
            freeze: self.freeze.clone(),
            log_every: self.log_every,
            // A sixth of MNIST is enough for the curve; the last epoch is evaluated on all of it.
            evaluate_train: Some(10_000),
        }
    }
}

/// An option given now that is not the run's.
fn contradiction(what: &str, found: &Value, expected: &Value) -> CliError {
    let shown = |value: &Value| if value.is_null() { "unset".into() } else { value.to_string() };
    CliError::Train(TrainError::Resume {
        what: what.into(),
        found: shown(found),
        expected: shown(expected),
        advice: "leave the flag out to go on with the run's own, or start a new run",
    })
}

/// What the command leaves in a checkpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Note {
    /// The flags that the run began with.
    pub(crate) args: TrainArgs,
    pub(crate) options: Options,
}

/// What suits the data, or a list, which needs no data to be found wrong.
fn parse_augment(text: &str) -> Result<String, DataError> {
    if text != DEFAULT_AUGMENT {
        text.parse::<Augment>()?;
    }
    Ok(text.into())
}

/// A length of time as people write it: `90s`, `10m`, `1h30m`.
fn parse_time(text: &str) -> Result<String, String> {
    duration(text).map(|_| text.to_string()).ok_or_else(|| {
        "a time is needed, as in 90s, 10m or 1h30m: whole numbers, each with h, m or s, one second at least".into()
    })
}

/// What a time means, if it means one.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let (mut seconds, mut rest) = (0u64, text);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, unit) = (rest.get(..end)?.parse::<u64>().ok()?, rest.get(end..)?.chars().next()?);
        let unit_seconds = match unit {
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        seconds = seconds.checked_add(number.checked_mul(unit_seconds)?)?;
        rest = rest.get(end + 1..)?;
    }
    (1..=365 * 86_400).contains(&seconds).then(|| Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        for (text, seconds) in [("90s", 90), ("10m", 600), ("1h30m", 5400), ("1h1m1s", 3661)] {
            assert_eq!(duration(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "0s", "10", "m", "ten", "1.5h", "-1m", "10d", "99999999999999999999h", "18446744073709551615h"]
        {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
