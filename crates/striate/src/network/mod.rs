//! A network: named layers in order, with their parameters.
//!
//! Three things, kept apart: the [`Description`] says what there is; a [`plan::Plan`] fixes every shape, buffer and
//! fusion for one batch size; a [`run::Runner`] owns the arena and runs the plan without allocating.
//! [`Network`] is a description with parameters, and offers the book's methods on whole arrays.

pub mod parameters;
pub mod plan;
pub mod run;

use crate::layers::Layer;
use crate::shape::{Shape, ShapeError};
use ndarray::{Array2, ArrayView4};
pub use parameters::{ParameterSpec, Parameters};
use serde::{Deserialize, Serialize};

/// A layer under its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NamedLayer {
    /// Unique in the network: `Conv1`, `Affine2`.
    pub name: String,
    /// What it is, with its options.
    pub layer: Layer,
}

/// What a network is made of, without any number learnt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// The model's name.
    pub name: String,
    /// One input sample.
    pub input: Shape,
    /// First to last; the last one gives the logits.
    pub layers: Vec<NamedLayer>,
}

impl Description {
    /// A network without layers yet.
    pub fn new(name: impl Into<String>, input: Shape) -> Self {
        Self { name: name.into(), input, layers: Vec::new() }
    }

    /// The same with one more layer at the end.
    pub fn with(mut self, name: impl Into<String>, layer: impl Into<Layer>) -> Self {
        self.layers.push(NamedLayer { name: name.into(), layer: layer.into() });
        self
    }
}

/// One row of [`Network::summary`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerSummary {
    /// The layer's name.
    pub name: String,
    /// The layer's kind: `Convolution`.
    pub kind: &'static str,
    /// The options in short: `30 filters 5x5, stride 1`.
    pub options: String,
    /// One output sample.
    pub output: Shape,
    /// Learnt numbers.
    pub parameters: usize,
    /// Floating-point operations of the forward pass for one sample (a multiply-add counts two).
    pub flops: u64,
}

/// The table that `striate summary` prints.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// One row a layer.
    pub layers: Vec<LayerSummary>,
    /// Sum over the layers.
    pub parameters: usize,
    /// Sum over the layers, for one sample forward.
    pub flops: u64,
    /// Bytes of the plan's arena and parameters for the asked batch.
    pub peak_bytes: usize,
}

/// Why a network can't be built or run.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// A layer does not fit where it stands.
    #[error("layer {layer}: {source}")]
    Layer {
        /// The layer's name.
        layer: String,
        /// What does not fit.
        source: ShapeError,
    },
    /// The batch given to the network does not fit.
    #[error("{0}")]
    Input(#[from] ShapeError),
    /// A network without layers.
    #[error("the network {name:?} has no layers")]
    NoLayers {
        /// Its name.
        name: String,
    },
    /// Two layers of one name.
    #[error("two layers are called {name:?}; names must differ")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// A parameter is missing, unknown or of the wrong shape.
    #[error("parameter {name}: found {found}, expected {expected}")]
    Parameter {
        /// Its name.
        name: String,
        /// What was there.
        found: String,
        /// What the description asks for.
        expected: String,
    },
    /// NaN or infinity where a number must be.
    #[error("{what} holds {value} at index {index:?}; every value must be finite")]
    NonFinite {
        /// Which array.
        what: String,
        /// NaN or infinity.
        value: f32,
        /// Where, by axis.
        index: Vec<usize>,
    },
    /// Memory can't be had.
    #[error("{bytes} bytes of memory for {what} could not be had; lower the batch size")]
    OutOfMemory {
        /// For what.
        what: String,
        /// How much.
        bytes: usize,
    },
}

/// A description with its parameters.
#[derive(Clone, Debug)]
pub struct Network {
    description: Description,
    parameters: Parameters,
}

impl Network {
    /// A fresh network, its parameters drawn from `seed`.
    pub fn new(description: Description, seed: u64) -> Result<Self, NetworkError> {
        let _ = (&description, seed);
        todo!()
    }

    /// A network with given parameters, checked against the description by name and shape.
    pub fn with_parameters(description: Description, parameters: Parameters) -> Result<Self, NetworkError> {
        Ok(Self { description, parameters })
    }

    /// What the network is made of.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// One input sample.
    pub fn input(&self) -> Shape {
        self.description.input
    }

    /// Number of classes (logits).
    pub fn classes(&self) -> usize {
        todo!()
    }

    /// The learnt numbers, by name.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The learnt numbers, by name, to change.
    pub fn parameters_mut(&mut self) -> &mut Parameters {
        &mut self.parameters
    }

    /// Logits, (N, classes), of a batch (N, C, H, W).
    pub fn predict(&self, x: ArrayView4<'_, f32>) -> Result<Array2<f32>, NetworkError> {
        let _ = x;
        todo!()
    }

    /// Mean softmax cross-entropy of a batch with labels.
    pub fn loss(&self, x: ArrayView4<'_, f32>, t: &[usize]) -> Result<f32, NetworkError> {
        let _ = (x, t);
        todo!()
    }

    /// Share of samples whose largest logit is their label's.
    pub fn accuracy(&self, x: ArrayView4<'_, f32>, t: &[usize]) -> Result<f64, NetworkError> {
        let _ = (x, t);
        todo!()
    }

    /// Gradients of the loss by backpropagation, under the parameters' names.
    pub fn gradient(&self, x: ArrayView4<'_, f32>, t: &[usize]) -> Result<Parameters, NetworkError> {
        let _ = (x, t);
        todo!()
    }

    /// Gradients of the loss by central differences (section 4.4): slow, to check [`Network::gradient`].
    pub fn numerical_gradient(&self, x: ArrayView4<'_, f32>, t: &[usize]) -> Result<Parameters, NetworkError> {
        let _ = (x, t);
        todo!()
    }

    /// The table of layers, with the memory of a training plan for `batch` samples.
    pub fn summary(&self, batch: usize) -> Result<Summary, NetworkError> {
        let _ = batch;
        todo!()
    }
}
