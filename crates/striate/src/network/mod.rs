//! A network: a graph of named layers, with their parameters.
//!
//! Three things, kept apart: the [`Description`] says what there is; a [`plan::Plan`] fixes every shape, buffer and
//! fusion for one batch size; a [`run::Runner`] owns the arena and runs the plan without allocating.
//! [`Network`] is a description with parameters, and offers the book's methods on whole arrays.

pub mod description;
pub mod parameters;
pub mod plan;
mod predictor;
pub mod run;
pub mod taps;

use crate::layers::{Role, check_labels, expect_shape};
use crate::shape::{Shape, ShapeError};
pub use description::{Description, LayerSummary, NamedLayer, ReceptiveField, Summary};
use ndarray::{Array2, ArrayView4};
pub use parameters::{ParameterSpec, Parameters};
pub use plan::{Mode, Plan, Weights};
pub use predictor::Predictor;
pub use run::{NonFinite, NonFiniteArray, Runner, StepKey, StepResult, StepTime};
use std::collections::HashMap;
pub use taps::Taps;

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
    /// A network beyond any that trains.
    #[error("the network has {found} {what}; at most {most} are allowed: merge layers, or leave some out")]
    TooMany {
        /// Layers, or their inputs.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many there may be.
        most: usize,
    },
    /// Two layers of one name.
    #[error("two layers are called {name:?}; names must differ")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// A layer's input has a name that no layer has.
    #[error(
        "layer {layer} takes its input from {input:?}, but no layer is called that; the input of the network is \"input\""
    )]
    UnknownInput {
        /// The layer.
        layer: String,
        /// The name.
        input: String,
    },
    /// A layer takes its input from itself or from one that comes later.
    #[error("layer {layer} takes its input from {input}, which comes later; a layer's inputs must come before it")]
    LaterInput {
        /// The layer.
        layer: String,
        /// The later layer.
        input: String,
    },
    /// A layer that is asked for but not there.
    #[error("there is no layer {name:?}; the layers are {}", available.join(", "))]
    UnknownLayer {
        /// What was asked for.
        name: String,
        /// The layers there are.
        available: Vec<String>,
    },
    /// A layer whose output goes nowhere.
    #[error("the output of layer {layer} is used by no other layer; remove it, or name it among a layer's inputs")]
    DeadEnd {
        /// The layer.
        layer: String,
    },
    /// A layer with the name that stands for the network's input.
    #[error("a layer is called \"input\", which is the name of the network's input; give it another name")]
    ReservedName,
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
    /// The layer before the answer can't be made for another number of classes.
    #[error(
        "the last layer that learns, {layer:?}, can't be replaced by one for {classes} classes: {reason}; use data of the \
         classes that the network was made for, or another network"
    )]
    Head {
        /// Its name.
        layer: String,
        /// How many were asked for.
        classes: usize,
        /// Why not.
        reason: String,
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
    #[error(
        "{bytes} bytes of memory for {what} could not be had; lower the batch size, make the network smaller, or raise the limit"
    )]
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
    classes: usize,
}

/// Samples that the whole-array methods below work on at a time.
const CONVENIENT_BATCH: usize = 100;

impl Network {
    /// A fresh network, its parameters drawn from `seed`.
    ///
    /// Parameters are named as in the book: `W` and `b` with the number of the layer among those that learn.
    ///
    /// # Errors
    /// Layers that do not fit together, or two of one name.
    pub fn new(description: Description, seed: u64) -> Result<Self, NetworkError> {
        let rules = description.parameter_rules()?;
        let mut rules = rules.iter().enumerate();
        Self::filled(description, |values| {
            if let Some((position, (_, rule))) = rules.next() {
                rule.init.fill(values, rule.fan_in, seed, position as u64);
            }
        })
    }

    /// A network with given parameters, checked against the description by name and shape. Their order may differ.
    ///
    /// # Errors
    /// A parameter that is missing, unexpected or of another shape, or layers that do not fit together.
    pub fn with_parameters(description: Description, parameters: Parameters) -> Result<Self, NetworkError> {
        let rules = description.parameter_rules()?;
        let mut ordered = description.zeros(&rules)?;
        let ranges: Vec<_> = ordered.specs().iter().map(|spec| spec.range.clone()).collect();
        let values = ordered.as_mut_slice();
        let mut given: HashMap<&str, &ParameterSpec> =
            parameters.specs().iter().map(|spec| (spec.name.as_str(), spec)).collect();
        for ((name, rule), range) in rules.iter().zip(ranges) {
            let problem = |found: String| NetworkError::Parameter {
                name: name.clone(),
                found,
                expected: format!("an array of shape {:?}", rule.shape),
            };
            let spec = given.remove(name.as_str()).ok_or_else(|| problem("nothing".into()))?;
            if spec.shape != rule.shape {
                return Err(problem(format!("shape {:?}", spec.shape)));
            }
            values[range].copy_from_slice(&parameters.as_slice()[spec.range.clone()]);
        }
        if let Some(spec) = parameters.specs().iter().find(|spec| given.contains_key(spec.name.as_str())) {
            return Err(NetworkError::Parameter {
                name: spec.name.clone(),
                found: format!("an array of shape {:?}", spec.shape),
                expected: "no parameter of this name".into(),
            });
        }
        Self::checked(description, ordered)
    }

    /// A network whose parameters `fill` gives, array after array, in layer order.
    pub(crate) fn filled(description: Description, mut fill: impl FnMut(&mut [f32])) -> Result<Self, NetworkError> {
        let mut parameters = description.zeros(&description.parameter_rules()?)?;
        let ranges: Vec<_> = parameters.specs().iter().map(|spec| spec.range.clone()).collect();
        let values = parameters.as_mut_slice();
        ranges.into_iter().for_each(|range| fill(&mut values[range]));
        Self::checked(description, parameters)
    }

    /// A network for another number of classes with all of this one's parameters but those of the last layer that learns,
    /// which starts anew from `seed`; and the name of that layer.
    ///
    /// # Errors
    /// As for [`Description::with_classes`].
    pub fn with_new_head(&self, classes: usize, seed: u64) -> Result<(Self, String), NetworkError> {
        let (description, head) = self.description.with_classes(classes)?;
        let owners = description.parameter_owners()?;
        let mut changed = Self::new(description, seed)?;
        let last = owners.last().copied();
        for (spec, owner) in self.parameters.specs().iter().zip(owners) {
            if Some(owner) != last
                && let (Some(mut target), Some(values)) =
                    (changed.parameters.get_mut(&spec.name), self.parameters.get(&spec.name))
            {
                target.assign(&values);
            }
        }
        Ok((changed, head))
    }

    fn checked(description: Description, parameters: Parameters) -> Result<Self, NetworkError> {
        let classes = description.shapes()?.last().map_or(0, Shape::len);
        Ok(Self { description, parameters, classes })
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
        self.classes
    }

    /// The learnt numbers, by name.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The learnt numbers, by name, to change.
    pub fn parameters_mut(&mut self) -> &mut Parameters {
        &mut self.parameters
    }

    /// Description and parameters apart, for a trainer that reads one while it changes the other.
    pub fn parts_mut(&mut self) -> (&Description, &mut Parameters) {
        (&self.description, &mut self.parameters)
    }

    /// Logits, (N, classes), of a batch (N, C, H, W).
    ///
    /// ```
    /// use ndarray::Array4;
    /// use striate::{models::simple_convnet::SimpleConvNet, network::Network};
    /// let network = Network::new(SimpleConvNet::default().description(), 1)?;
    /// let logits = network.predict(Array4::zeros((2, 1, 28, 28)).view())?;
    /// assert_eq!(logits.dim(), (2, 10));
    /// # Ok::<(), striate::network::NetworkError>(())
    /// ```
    ///
    /// # Errors
    /// An empty batch, samples of another shape, or a value that is not finite.
    pub fn predict(&self, x: ArrayView4<'_, f32>) -> Result<Array2<f32>, NetworkError> {
        let mut logits = Array2::zeros((x.dim().0, self.classes()));
        let mut row = 0;
        self.each_batch(x, None, |runner, parameters| {
            for sample in runner.predict(parameters).chunks_exact(logits.ncols()) {
                logits.row_mut(row).iter_mut().zip(sample).for_each(|(l, &s)| *l = s);
                row += 1;
            }
        })?;
        Ok(logits)
    }

    /// Mean softmax cross-entropy of a batch with labels.
    ///
    /// # Errors
    /// As for [`Network::predict`], or labels that are no classes or not one a sample.
    pub fn loss(&self, x: ArrayView4<'_, f32>, t: &[usize]) -> Result<f32, NetworkError> {
        let mut sum = 0.0;
        self.each_batch(x, Some(t), |runner, parameters| {
            sum += f64::from(runner.loss(parameters).loss) * runner.batch() as f64;
        })?;
        Ok((sum / t.len() as f64) as f32)
    }

    /// Share of samples whose largest logit is their label's.
    ///
    /// # Errors
    /// As for [`Network::loss`].
    pub fn accuracy(&self, x: ArrayView4<'_, f32>, t: &[usize]) -> Result<f64, NetworkError> {
        let mut correct = 0;
        self.each_batch(x, Some(t), |runner, parameters| correct += runner.loss(parameters).correct)?;
        Ok(correct as f64 / t.len() as f64)
    }

    /// Gradients of the training loss by backpropagation, under the parameters' names: of [`Network::loss`], but with
    /// the batch's own statistics where the network normalises by batch.
    ///
    /// # Errors
    /// As for [`Network::loss`].
    pub fn gradient(&self, x: ArrayView4<'_, f32>, t: &[usize]) -> Result<Parameters, NetworkError> {
        self.check_input(x, Some(t))?;
        let mut gradients = self.parameters.zeros_like();
        let mut runner = Runner::new(Plan::new(&self.description, t.len(), Mode::Training)?)?;
        fill(&mut runner, x, Some(t));
        runner.loss_and_gradient(&self.parameters, &mut gradients, None);
        // Running statistics have steps, not gradients: the loss does not depend on them.
        for spec in self.parameters.specs().iter().filter(|spec| spec.role == Role::Statistic) {
            gradients.as_mut_slice()[spec.range.clone()].fill(0.0);
        }
        Ok(gradients)
    }

    /// The gradients of [`Network::gradient`] by central differences (section 4.4): slow, to check them.
    ///
    /// # Errors
    /// As for [`Network::loss`].
    pub fn numerical_gradient(&self, x: ArrayView4<'_, f32>, t: &[usize]) -> Result<Parameters, NetworkError> {
        const STEP: f32 = 1e-2;
        self.check_input(x, Some(t))?;
        let mut runner = Runner::new(Plan::new(&self.description, t.len(), Mode::Training)?)?;
        fill(&mut runner, x, Some(t));
        let mut parameters = self.parameters.clone();
        let mut gradients = self.parameters.zeros_like();
        let mut at = |i: usize, value: f32| {
            let old = std::mem::replace(&mut parameters.as_mut_slice()[i], value);
            let loss = f64::from(runner.loss(&parameters).loss);
            parameters.as_mut_slice()[i] = old;
            loss
        };
        for (i, gradient) in gradients.as_mut_slice().iter_mut().enumerate() {
            let value = self.parameters.as_slice()[i];
            let (up, down) = (value + STEP, value - STEP);
            *gradient = ((at(i, up) - at(i, down)) / f64::from(up - down)) as f32;
        }
        Ok(gradients)
    }

    /// The table of layers, with the memory of a training plan for `batch` samples.
    ///
    /// # Errors
    /// A batch of 0 or beyond any memory.
    pub fn summary(&self, batch: usize) -> Result<Summary, NetworkError> {
        self.description.summary(batch)
    }

    /// Runs `work` on one batch after the other.
    fn each_batch(
        &self,
        x: ArrayView4<'_, f32>,
        t: Option<&[usize]>,
        mut work: impl FnMut(&mut Runner, &Parameters),
    ) -> Result<(), NetworkError> {
        self.check_input(x, t)?;
        let mut runner: Option<Runner> = None;
        for (i, x) in x.axis_chunks_iter(ndarray::Axis(0), CONVENIENT_BATCH).enumerate() {
            let batch = x.dim().0;
            if runner.as_ref().is_none_or(|r| r.batch() != batch) {
                runner = Some(Runner::new(Plan::new(&self.description, batch, Mode::Inference)?)?);
            }
            if let Some(runner) = &mut runner {
                fill(runner, x, t.map(|t| &t[i * CONVENIENT_BATCH..][..batch]));
                work(runner, &self.parameters);
            }
        }
        Ok(())
    }

    fn check_input(&self, x: ArrayView4<'_, f32>, t: Option<&[usize]>) -> Result<(), NetworkError> {
        check_samples(self.description.input, x)?;
        if let Some(t) = t {
            expect_shape("the labels", &[x.dim().0], &[t.len()])?;
            check_labels(t, self.classes())?;
        }
        Ok(())
    }
}

/// Whether `x` is a batch of samples of this shape, with every value finite.
pub(crate) fn check_samples(input: Shape, x: ArrayView4<'_, f32>) -> Result<(), NetworkError> {
    let (n, channels, height, width) = x.dim();
    if n == 0 {
        return Err(ShapeError::Empty { what: "the batch", found: x.shape().to_vec() }.into());
    }
    expect_shape(
        "the batch (samples, channels, height, width)",
        &[n, input.channels, input.height, input.width],
        &[n, channels, height, width],
    )?;
    if let Some((index, &value)) = x.indexed_iter().find(|(_, value)| !value.is_finite()) {
        let (n, c, y, x) = index;
        return Err(NetworkError::NonFinite { what: "the batch".into(), value, index: vec![n, c, y, x] });
    }
    Ok(())
}

fn fill(runner: &mut Runner, x: ArrayView4<'_, f32>, t: Option<&[usize]>) {
    runner.write_input(x);
    if let Some(t) = t {
        runner.labels_mut().copy_from_slice(t);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::simple_convnet::SimpleConvNet;
    use crate::random::{Purpose, Random};
    use ndarray::Array4;

    fn small() -> (Network, Array4<f32>, Vec<usize>) {
        let options = SimpleConvNet {
            input: Shape::new(2, 10, 10),
            filters: 3,
            filter_size: 3,
            hidden: 7,
            classes: 4,
            init: crate::layers::Init::Normal { deviation: 0.2 },
            ..SimpleConvNet::default()
        };
        let random = Random::new(4, Purpose::Test, 0);
        let x = Array4::from_shape_fn((5, 2, 10, 10), |(n, c, y, x)| {
            random.normal((n * 200 + c * 100 + y * 10 + x) as u64)
        });
        (Network::new(options.description(), 3).unwrap(), x, vec![0, 3, 1, 2, 3])
    }

    #[test]
    fn backpropagation_agrees_with_differences() {
        let (network, x, t) = small();
        let exact = network.gradient(x.view(), &t).unwrap();
        let numerical = network.numerical_gradient(x.view(), &t).unwrap();
        for ((name, a), (_, b)) in exact.iter().zip(numerical.iter()) {
            assert!(a.iter().any(|v| v.abs() > 1e-3), "{name} has no gradient");
            for (a, b) in a.iter().zip(b.iter()) {
                assert!((a - b).abs() < 2e-3, "{name}: {a} {b}");
            }
        }
    }

    #[test]
    fn names_and_shapes_of_the_book() {
        let network = Network::new(SimpleConvNet::default().description(), 1).unwrap();
        let found: Vec<_> =
            network.parameters().specs().iter().map(|s| (s.name.as_str(), s.shape.as_slice())).collect();
        let expected: [(&str, &[usize]); 6] = [
            ("W1", &[30, 1, 5, 5]),
            ("b1", &[30]),
            ("W2", &[4320, 100]),
            ("b2", &[100]),
            ("W3", &[100, 10]),
            ("b3", &[10]),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_new_head_changes_nothing_else() {
        let (network, x, _) = small();
        let (changed, head) = network.with_new_head(9, 5).unwrap();
        assert_eq!((head.as_str(), changed.classes()), ("Affine2", 9));
        assert_eq!(changed.predict(x.view()).unwrap().dim(), (5, 9));
        for (name, values) in network.parameters().iter() {
            let found = changed.parameters().get(name).unwrap();
            match name {
                "W3" => assert!(found.shape() == [7, 9] && found.iter().any(|&v| v != 0.0)),
                "b3" => assert!(found.shape() == [9] && found.iter().all(|&v| v == 0.0)),
                _ => assert_eq!(found, values, "{name}"),
            }
        }
        let no_head =
            Description::new("norm", Shape::new(2, 1, 1)).with("Norm", crate::layers::BatchNormOptions::default());
        let error = no_head.with_classes(3).unwrap_err().to_string();
        assert!(error.contains("\"Norm\"") && error.contains("BatchNorm has no number of outputs"), "{error}");
    }

    #[test]
    fn bad_batches_are_named() {
        let (network, mut x, t) = small();
        assert!(matches!(network.loss(x.view(), &t[1..]), Err(NetworkError::Input(ShapeError::Mismatch { .. }))));
        assert!(matches!(
            network.loss(x.view(), &[9; 5]),
            Err(NetworkError::Input(ShapeError::Label { label: 9, .. }))
        ));
        assert!(network.predict(Array4::zeros((0, 2, 10, 10)).view()).is_err());
        assert!(network.predict(Array4::zeros((1, 2, 10, 11)).view()).is_err());
        x[[1, 0, 2, 3]] = f32::NAN;
        let error = network.predict(x.view()).unwrap_err();
        assert!(matches!(&error, NetworkError::NonFinite { index, .. } if *index == [1, 0, 2, 3]), "{error}");
    }

    #[test]
    fn parameters_are_checked_by_name_and_shape() {
        let (network, ..) = small();
        let description = network.description().clone();
        let mut shapes: Vec<_> =
            network.parameters().specs().iter().map(|s| (s.name.clone(), s.shape.clone())).collect();
        shapes.reverse();
        assert!(Network::with_parameters(description.clone(), Parameters::zeros(shapes.clone()).unwrap()).is_ok());
        shapes[0].1 = vec![3];
        let wrong = Network::with_parameters(description.clone(), Parameters::zeros(shapes.clone()).unwrap());
        assert!(wrong.unwrap_err().to_string().contains("b3"));
        shapes.remove(0);
        let missing = Network::with_parameters(description.clone(), Parameters::zeros(shapes.clone()).unwrap());
        assert!(missing.unwrap_err().to_string().contains("nothing"));
        shapes.insert(0, ("b3".into(), vec![4]));
        shapes.push(("extra".into(), vec![1]));
        let extra = Network::with_parameters(description, Parameters::zeros(shapes).unwrap());
        assert!(extra.unwrap_err().to_string().contains("extra"));
    }
}
