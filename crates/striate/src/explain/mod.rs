//! What a network has learnt, as numbers: one file a view. Nothing here draws; [`draw`](crate::draw) does.
//!
//! All views that look inside a pass read [taps](crate::network::Taps) of a plan. A *score* is the logit of a class, before
//! any softmax, in a network that runs as it predicts (batch normalisation by its running statistics, no dropout).

pub mod depth;
pub mod embedding;
pub mod feature_maps;
pub mod filters;
pub mod grad_cam;
pub mod im2col;
pub mod images;
mod lens;
pub mod maximize;
pub mod occlusion;
pub mod pulse;
pub mod responses;
pub mod saliency;
pub mod shift;
pub mod similar;
pub mod timeline;
pub mod worked;

pub use self::depth::{Activation, LayerPatches, Patch, Unit, activations, top_patches, units};
pub use self::embedding::{Pca, TsneOptions, pca, tsne};
pub use self::feature_maps::{FeatureMaps, feature_maps};
pub use self::filters::Filters;
pub use self::grad_cam::{Cam, CamRule, cam};
pub use self::im2col::{Im2colCost, im2col_cost};
pub use self::images::Images;
pub use self::maximize::{Aim, MaximizeOptions, Maximized, maximize};
pub use self::occlusion::{Occlusion, OcclusionOptions, occlusion};
pub use self::pulse::{LayerPulse, Mistaken, Pulse, pulse};
pub use self::responses::{Orientation, Response, Responses, responses, responses_in};
pub use self::saliency::{IntegratedGradients, SmoothGrad, gradient, integrated_gradients, smooth_grad};
pub use self::shift::{Shifted, shift};
pub use self::similar::{ClassMeans, Readout, feature_layer, features, nearest};
pub use self::timeline::{Moment, Seen, moment};
pub use self::worked::{Term, Work, Worked, worked};

use crate::network::NetworkError;
use crate::shape::Shape;

/// Why a view can't be had.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ExplainError {
    /// A layer that is not there, an image of another size, or a network that can't run.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A class that does not exist.
    #[error("there is no class {class:?}; the classes are {}", list(available))]
    UnknownClass {
        /// What was asked for, a name or a number.
        class: String,
        /// The classes there are.
        available: Vec<String>,
    },
    /// A layer whose output has no rows and columns.
    #[error(
        "the output of layer {layer} is a plain vector, but {view} needs maps; the layers with maps are {}",
        list(available)
    )]
    NoMaps {
        /// The layer.
        layer: String,
        /// The view.
        view: &'static str,
        /// The layers with maps.
        available: Vec<String>,
    },
    /// The network has no convolution where one is needed.
    #[error(
        "{view} looks into a convolution, and the network {network:?} has none; its layers are {}; \
         use a model with a convolution such as simple-convnet",
        list(layers)
    )]
    NeedsConvolution {
        /// The view.
        view: &'static str,
        /// The network's name.
        network: String,
        /// Its layers.
        layers: Vec<String>,
    },
    /// Data whose images are not the network's inputs.
    #[error("{data} has images of {found}, but the network takes {expected}")]
    Data {
        /// The data set.
        data: String,
        /// Its images.
        found: Shape,
        /// The network's input.
        expected: Shape,
    },
    /// Data whose classes are not the network's.
    #[error("{data} has {found} classes, but the network tells {expected} apart")]
    Classes {
        /// The data set.
        data: String,
        /// Its classes.
        found: usize,
        /// The network's.
        expected: usize,
    },
    /// An image whose channels are not the filters'.
    #[error(
        "the filters of {layer} look at {filters} channels, but an image has {image}; \
         choose the first convolution, or a model for such images"
    )]
    Channels {
        /// The layer.
        layer: String,
        /// Channels of a filter.
        filters: usize,
        /// Channels of the image.
        image: usize,
    },
    /// An option outside its range.
    #[error("{option} is {found}, but must be {expected}")]
    Option {
        /// The option.
        option: &'static str,
        /// What was given.
        found: String,
        /// What can be given.
        expected: String,
    },
    /// Features that can't be laid out.
    #[error(
        "the features of image {image} hold {value}, which has no place in a plane; was the network trained to its end?"
    )]
    NonFinite {
        /// The row of the features.
        image: usize,
        /// What it holds.
        value: f32,
    },
    /// A thread that could not be started.
    #[error("a thread could not be started: {reason}")]
    Thread {
        /// What the system says.
        reason: String,
    },
    /// The network has no convolution.
    #[error(
        "no parameter has four sizes (FN, C, FH, FW), so there is no convolution with filters to show; \
         found {}, expected a network with a convolution such as simple-convnet",
        list(found)
    )]
    NoConvolution {
        /// The parameters there are.
        found: Vec<String>,
    },
    /// No parameter or layer of this name that has filters.
    #[error("{name:?} holds no filters; the ones that hold filters are {}", list(available))]
    UnknownParameter {
        /// What was asked for.
        name: String,
        /// The parameters with filters, and their layers where those are known.
        available: Vec<String>,
    },
    /// The parameter holds something else than filters.
    #[error(
        "parameter {name} has the shape {shape:?}, but filters have four sizes (FN, C, FH, FW); \
         the ones that hold filters are {}",
        list(available)
    )]
    NotFilters {
        /// What was asked for.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
        /// The parameters with filters.
        available: Vec<String>,
    },
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".into() } else { names.join(", ") }
}
