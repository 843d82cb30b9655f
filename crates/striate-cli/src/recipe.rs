//! Recipes: sets of training options under a name. Any option can be overridden on the command line.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use striate::layers::Init;
use striate::optim::{OptimizerOptions, Schedule};
use striate::shape::Shape;
use striate::train::Decay;

/// A named set of options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Recipe {
    /// The best use of a short time
    #[default]
    Default,
    /// The chapter's settings to the letter: plain Adam, deviation 0.01
    Book,
    /// Minutes instead of seconds, for the best accuracy: a deeper network, images changed at every step
    Best,
}

/// What a recipe decides.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RecipeOptions {
    pub(crate) epochs: usize,
    pub(crate) batch: usize,
    pub(crate) optimizer: OptimizerOptions,
    pub(crate) learning_rate: f32,
    pub(crate) schedule: Schedule,
    /// What weight decay acts on.
    pub(crate) decay: Decay,
    pub(crate) label_smoothing: f32,
    /// The most length of a gradient, if it is bounded.
    pub(crate) clip: Option<f32>,
    /// Decay of the moving average of the weights, if one is kept.
    pub(crate) average: Option<f32>,
    /// Whether images are brought to mean 0 and deviation 1, channel by channel.
    pub(crate) normalize: bool,
    /// Whether images are changed at every step, in the way that suits the data.
    pub(crate) augment: bool,
    /// Whether cifar-net's first convolution starts from the data's patches.
    pub(crate) whiten: bool,
}

impl Recipe {
    /// The model for images of this shape, unless another is asked for.
    pub(crate) fn model(self, input: Shape) -> &'static str {
        match self {
            Recipe::Best if input.channels == 1 => "mnist-net",
            Recipe::Best => "cifar-net",
            Recipe::Default | Recipe::Book => "simple-convnet",
        }
    }

    /// All options of the recipe, in one place.
    pub(crate) fn options(self) -> RecipeOptions {
        match self {
            // The book's network and start; a rate that falls to nothing, decay against growing weights and the average
            // of the last few hundred steps take it from 98.7 % to 99.1 % on MNIST.
            Recipe::Default => RecipeOptions {
                epochs: 20,
                batch: 100,
                optimizer: OptimizerOptions::AdamW { beta1: 0.9, beta2: 0.999, weight_decay: 0.1 },
                learning_rate: 0.002,
                schedule: Schedule::Cosine { warmup: 0.05 },
                decay: Decay::All,
                label_smoothing: 0.0,
                clip: None,
                average: Some(0.998),
                normalize: false,
                augment: false,
                whiten: false,
            },
            Recipe::Book => RecipeOptions {
                epochs: 20,
                batch: 100,
                optimizer: OptimizerOptions::adam(),
                learning_rate: 0.001,
                schedule: Schedule::constant(),
                decay: Decay::All,
                label_smoothing: 0.0,
                clip: None,
                average: None,
                normalize: false,
                augment: false,
                whiten: false,
            },
            // Few epochs with one large swing of the rate; the average smooths the last tenth of them.
            Recipe::Best => RecipeOptions {
                epochs: 8,
                batch: 100,
                optimizer: OptimizerOptions::AdamW { beta1: 0.9, beta2: 0.999, weight_decay: 0.05 },
                learning_rate: 0.004,
                schedule: Schedule::OneCycle { peak: 0.25, start: 0.04, end: 1e-4 },
                decay: Decay::Weights,
                label_smoothing: 0.0,
                clip: None,
                average: Some(0.995),
                normalize: true,
                augment: true,
                whiten: true,
            },
        }
    }
}

/// `he`, `xavier` or `normal:0.01`.
pub(crate) fn parse_init(text: &str) -> Result<Init, String> {
    match text.split_once(':') {
        None if text == "he" => Ok(Init::He),
        None if text == "xavier" => Ok(Init::Xavier),
        Some(("normal", deviation)) => match deviation.parse() {
            Ok(deviation) if (0.0..=1e3).contains(&deviation) => Ok(Init::Normal { deviation }),
            _ => Err(format!("{deviation:?} is not a standard deviation; it must be a number from 0 to 1000")),
        },
        _ => Err("the initialisations are he, xavier and normal:DEVIATION".into()),
    }
}
