//! Recipes: sets of training options under a name. Any option can be overridden on the command line.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use striate::data::{Dataset, Pixels};
use striate::optim::{OptimizerOptions, Schedule};
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

/// What a recipe asks of the data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Subject {
    /// Small, or of written characters: what a network of two layers can learn.
    #[default]
    Characters,
    /// At least [`Subject::LEAST_SIDE`] pixels high and wide, and not of written characters.
    Photographs,
}

impl Subject {
    /// Below this, nothing is left to pool.
    const LEAST_SIDE: usize = 24;

    pub(crate) fn of(data: &Dataset) -> Self {
        let shape = data.shape();
        let pictures = matches!(shape.channels, 1 | 3) && !matches!(data.pixels(), Pixels::F32(_));
        if pictures && shape.height.min(shape.width) >= Self::LEAST_SIDE && !data.shows_characters() {
            Self::Photographs
        } else {
            Self::Characters
        }
    }
}

/// What a recipe decides.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RecipeOptions {
    /// The model, unless another is asked for.
    pub(crate) model: &'static str,
    pub(crate) epochs: usize,
    /// More epochs where the images are so few that those have fewer steps.
    pub(crate) least_steps: usize,
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
    /// All options of the recipe for images of this kind, `grey` or not, in one place.
    pub(crate) fn options(self, subject: Subject, grey: bool) -> RecipeOptions {
        match self {
            // As with the recipe `best`, but fewer epochs of colour.
            Recipe::Default if subject == Subject::Photographs => RecipeOptions {
                epochs: if grey { 20 } else { 5 },
                least_steps: 500,
                ..Recipe::Best.options(subject, grey)
            },
            // The book's network and start; a rate that falls to nothing, decay against growing weights and the average
            // of the last few hundred steps take it from 98.7 % to 99.1 % on MNIST.
            Recipe::Default => RecipeOptions {
                model: "simple-convnet",
                epochs: 20,
                least_steps: 0,
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
                model: "simple-convnet",
                epochs: 20,
                least_steps: 0,
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
            // In as many epochs AdamW, as for digits, gives 93.0 % on Fashion-MNIST instead of 93.4 %.
            Recipe::Best if subject == Subject::Photographs => RecipeOptions {
                batch: 128,
                optimizer: OptimizerOptions::Muon { momentum: 0.95, weight_decay: 0.05 },
                learning_rate: if grey { 0.02 } else { 0.03 },
                label_smoothing: 0.1,
                ..Recipe::Best.options(Subject::Characters, grey)
            },
            Recipe::Best if grey => RecipeOptions {
                model: "mnist-net",
                epochs: 20,
                batch: 128,
                learning_rate: 0.005,
                ..Recipe::Best.options(Subject::Characters, false)
            },
            // Few epochs with one large swing of the rate; the average smooths the last tenth of them.
            Recipe::Best => RecipeOptions {
                model: "cifar-net",
                epochs: 8,
                least_steps: 0,
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

#[cfg(test)]
mod tests {
    use super::*;
    use striate::data::one_class_names;
    use striate::shape::Shape;

    #[test]
    fn photographs_are_told_from_characters() {
        let subject = |shape: Shape, names: &[&str]| {
            let pixels = Pixels::U8(vec![0; shape.len()]);
            let names = names.iter().map(|&name| name.into()).collect();
            Subject::of(&Dataset::new("one", shape, pixels, vec![0], names).unwrap())
        };
        let words = ["cat", "dog"];
        assert_eq!(subject(Shape::new(3, 24, 31), &words), Subject::Photographs);
        assert_eq!(subject(Shape::new(3, 23, 64), &words), Subject::Characters);
        assert_eq!(subject(Shape::new(1, 28, 28), &words), Subject::Photographs);
        assert_eq!(subject(Shape::new(1, 64, 64), &["a", "b"]), Subject::Characters);
        assert_eq!(subject(Shape::new(4, 64, 64), &words), Subject::Characters);
        assert_eq!(subject(Shape::new(3, 32, 32), &["0", "seven"]), Subject::Characters);
        let numbers = Dataset::from_arrays(ndarray::Array4::zeros((1, 3, 32, 32)), vec![0], one_class_names(1));
        assert_eq!(Subject::of(&numbers.unwrap()), Subject::Characters);
    }

    #[test]
    fn the_default_recipe_takes_the_larger_network_for_photographs_alone() {
        let options = Recipe::Default.options(Subject::Photographs, false);
        assert_eq!((options.model, options.epochs, options.augment, options.whiten), ("cifar-net", 5, true, true));
        let grey = Recipe::Default.options(Subject::Photographs, true);
        assert_eq!((grey.model, grey.epochs, grey.augment), ("mnist-net", 20, true));
        assert_eq!((grey.optimizer.name(), grey.learning_rate), ("muon", 0.02));
        let digits = Recipe::Best.options(Subject::Characters, true);
        assert_eq!((digits.optimizer.name(), digits.learning_rate), ("adamw", 0.005));
        for subject in [Subject::Characters, Subject::Photographs] {
            assert_eq!(Recipe::Book.options(subject, false).model, "simple-convnet");
            assert_eq!(Recipe::Best.options(subject, true).model, "mnist-net");
            assert_eq!(Recipe::Best.options(subject, false).epochs, 8);
        }
        assert_eq!(Recipe::Default.options(Subject::Characters, false).model, "simple-convnet");
    }
}
