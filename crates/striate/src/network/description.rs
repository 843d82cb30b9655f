//! What a network is made of: named layers and what flows between them, without any number learnt.

use super::{Mode, NetworkError, ParameterSpec, Parameters, Plan};
use crate::layers::{Init, Layer, ParameterRule, Reach, Role};
use crate::shape::{Shape, ShapeError};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::ops::Range;

/// A layer under its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedLayer {
    /// Unique in the network: `Conv1`, `Affine2`.
    pub name: String,
    /// What it is, with its options.
    pub layer: Layer,
    /// The layers whose outputs it takes; `input` is the network's own. Empty for the layer before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<String>,
}

impl NamedLayer {
    pub(super) fn error(&self, source: ShapeError) -> NetworkError {
        NetworkError::Layer { layer: self.name.clone(), source }
    }
}

/// The name that stands for the network's input.
pub const INPUT: &str = "input";
/// The most layers of a network: a bound for what a stranger's file may ask of us.
pub const MAX_LAYERS: usize = 4096;
/// The most inputs that all layers name together.
const MAX_INPUTS: usize = 4 * MAX_LAYERS;

/// What a network is made of, without any number learnt: a graph of layers, each after those whose outputs it takes.
///
/// ```
/// use striate::layers::{AddOptions, AffineOptions, Init, ReluOptions};
/// use striate::{network::Description, shape::Shape};
/// // A residual block of dense layers.
/// let affine = |outputs| AffineOptions::new(outputs, Init::He);
/// let network = Description::new("tiny", Shape::flat(8))
///     .with("Affine1", affine(8))
///     .with("Relu1", ReluOptions {})
///     .with_inputs("Add1", AddOptions {}, ["Relu1", "input"])
///     .with("Affine2", affine(3));
/// assert_eq!(network.shapes()?.last(), Some(&Shape::flat(3)));
/// # Ok::<(), striate::network::NetworkError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// The model's name.
    pub name: String,
    /// One input sample.
    pub input: Shape,
    /// Each after its inputs; the last one gives the logits.
    pub layers: Vec<NamedLayer>,
}

/// Where a layer's input comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// The network's input.
    Input,
    /// The output of the layer at this position.
    Layer(usize),
}

/// A layer with its inputs found and its sizes fixed.
pub(crate) struct Node<'a> {
    pub(crate) named: &'a NamedLayer,
    pub(crate) sources: Vec<Source>,
    /// One sample of the first input.
    pub(crate) input: Shape,
    /// One sample of the output.
    pub(crate) output: Shape,
}

impl Description {
    /// A network without layers yet.
    pub fn new(name: impl Into<String>, input: Shape) -> Self {
        Self { name: name.into(), input, layers: Vec::new() }
    }

    /// The same with one more layer, which takes the output of the one before it.
    pub fn with(self, name: impl Into<String>, layer: impl Into<Layer>) -> Self {
        self.with_inputs(name, layer, [] as [&str; 0])
    }

    /// The same with one more layer, which takes the outputs of the named layers.
    pub fn with_inputs<S: Into<String>>(
        mut self,
        name: impl Into<String>,
        layer: impl Into<Layer>,
        inputs: impl IntoIterator<Item = S>,
    ) -> Self {
        let inputs = inputs.into_iter().map(Into::into).collect();
        self.layers.push(NamedLayer { name: name.into(), layer: layer.into(), inputs });
        self
    }

    /// The same with all weights starting as `init` says.
    pub fn with_init(mut self, init: Init) -> Self {
        self.layers.iter_mut().for_each(|named| named.layer.set_init(init));
        self
    }

    /// The name of the last layer, or of the input if there is none: where the next layer would begin.
    pub fn last(&self) -> &str {
        self.layers.last().map_or(INPUT, |named| &named.name)
    }

    /// One output sample of each layer, in order.
    ///
    /// # Errors
    /// No layers, two of one name, an input that is no earlier layer, an output that goes nowhere, or a layer that does
    /// not fit where it stands.
    pub fn shapes(&self) -> Result<Vec<Shape>, NetworkError> {
        Ok(self.nodes()?.into_iter().map(|node| node.output).collect())
    }

    /// The patch of the input that an output of each layer depends on, in order.
    ///
    /// # Errors
    /// As for [`Description::shapes`].
    pub fn receptive_fields(&self) -> Result<Vec<ReceptiveField>, NetworkError> {
        Ok(receptive_fields(&self.nodes()?, self.input))
    }

    /// Every layer with its inputs and sizes, checked.
    pub(crate) fn nodes(&self) -> Result<Vec<Node<'_>>, NetworkError> {
        if self.layers.is_empty() {
            return Err(NetworkError::NoLayers { name: self.name.clone() });
        }
        let inputs = self.layers.iter().map(|named| named.inputs.len()).sum();
        for (what, found, most) in [("layers", self.layers.len(), MAX_LAYERS), ("inputs of layers", inputs, MAX_INPUTS)]
        {
            if found > most {
                return Err(NetworkError::TooMany { what, found, most });
            }
        }
        let mut positions: HashMap<&str, Source> = HashMap::from([(INPUT, Source::Input)]);
        for (i, named) in self.layers.iter().enumerate() {
            if named.name == INPUT {
                return Err(NetworkError::ReservedName);
            }
            if positions.insert(&named.name, Source::Layer(i)).is_some() {
                return Err(NetworkError::DuplicateName { name: named.name.clone() });
            }
        }
        let mut nodes: Vec<Node<'_>> = Vec::with_capacity(self.layers.len());
        let mut used = vec![false; self.layers.len()];
        for (i, named) in self.layers.iter().enumerate() {
            let mut sources = Vec::with_capacity(named.inputs.len().max(1));
            for input in &named.inputs {
                let (layer, input) = (named.name.clone(), input.clone());
                match positions.get(input.as_str()) {
                    None => return Err(NetworkError::UnknownInput { layer, input }),
                    Some(Source::Layer(j)) if *j >= i => return Err(NetworkError::LaterInput { layer, input }),
                    Some(source) => sources.push(*source),
                }
            }
            if sources.is_empty() {
                sources.push(i.checked_sub(1).map_or(Source::Input, Source::Layer));
            }
            let shape = |source: &Source| match source {
                Source::Input => self.input,
                Source::Layer(j) => nodes.get(*j).map_or(self.input, |node| node.output),
            };
            let shapes: Vec<Shape> = sources.iter().map(shape).collect();
            let output = named.layer.rule().join(&shapes).map_err(|source| named.error(source))?;
            for source in &sources {
                if let Source::Layer(j) = source {
                    used[*j] = true;
                }
            }
            let input = shapes.first().copied().unwrap_or(self.input);
            nodes.push(Node { named, sources, input, output });
        }
        match used.iter().take(self.layers.len() - 1).position(|used| !used) {
            Some(i) => Err(NetworkError::DeadEnd { layer: self.layers[i].name.clone() }),
            None => Ok(nodes),
        }
    }

    /// Every parameter under its name: `W1`, `b1`, `W2`, ...
    pub(super) fn parameter_rules(&self) -> Result<Vec<(String, ParameterRule)>, NetworkError> {
        let mut named_rules = Vec::new();
        let mut number = 0;
        for node in self.nodes()? {
            let rules = node.named.layer.rule().parameters(node.input).map_err(|source| node.named.error(source))?;
            number += usize::from(!rules.is_empty());
            named_rules.extend(rules.into_iter().map(|rule| (format!("{}{number}", rule.prefix), rule)));
        }
        Ok(named_rules)
    }

    /// The position of the layer that each parameter belongs to, in the order of [`Description::parameter_specs`].
    pub(crate) fn parameter_owners(&self) -> Result<Vec<usize>, NetworkError> {
        let mut owners = Vec::new();
        for (i, node) in self.nodes()?.iter().enumerate() {
            let rules = node.named.layer.rule().parameters(node.input).map_err(|source| node.named.error(source))?;
            owners.extend(rules.iter().map(|_| i));
        }
        Ok(owners)
    }

    /// The same network for another number of classes, and the name of the layer that was changed for it: the last one
    /// that learns. Names and numbers of all parameters stay.
    ///
    /// ```
    /// let description = striate::models::build("lenet", &Default::default())?;
    /// let (changed, head) = description.with_classes(3)?;
    /// assert_eq!((head.as_str(), changed.shapes()?.last().unwrap().len()), ("output", 3));
    /// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
    /// ```
    ///
    /// # Errors
    /// A last learning layer whose number of outputs is not an option of its own, or is not the number of classes.
    pub fn with_classes(&self, classes: usize) -> Result<(Self, String), NetworkError> {
        let mut changed = self.clone();
        let last = self.parameter_owners()?.last().copied();
        let Some(head) = last.and_then(|last| changed.layers.get_mut(last)) else {
            return Err(NetworkError::Head { layer: String::new(), classes, reason: "no layer learns".into() });
        };
        let name = head.name.clone();
        let problem = |reason: String| NetworkError::Head { layer: name.clone(), classes, reason };
        match &mut head.layer {
            Layer::Affine(options) => options.outputs = classes,
            Layer::Convolution(options) => options.filters = classes,
            other => return Err(problem(format!("a {} has no number of outputs", other.rule().kind()))),
        }
        let found = changed.shapes()?.last().map_or(0, Shape::len);
        if found != classes {
            return Err(problem(format!("with {classes} outputs the network tells {found} classes apart")));
        }
        Ok((changed, name))
    }

    /// Zeros for the parameters of these rules.
    pub(super) fn zeros(&self, rules: &[(String, ParameterRule)]) -> Result<Parameters, NetworkError> {
        Parameters::with_roles(rules.iter().map(|(name, rule)| (name.clone(), rule.role, rule.shape.clone())))
    }

    /// Names, shapes and places of the parameters that a network of this description has.
    ///
    /// # Errors
    /// As for [`Description::shapes`].
    pub fn parameter_specs(&self) -> Result<Vec<ParameterSpec>, NetworkError> {
        let mut end = 0;
        let place = |(name, rule): (String, ParameterRule)| {
            let start = end;
            end += rule.shape.iter().product::<usize>();
            ParameterSpec { name, shape: rule.shape, range: start..end, role: rule.role }
        };
        Ok(self.parameter_rules()?.into_iter().map(place).collect())
    }

    /// The table of layers, with the memory of a training plan for `batch` samples.
    ///
    /// # Errors
    /// Layers that do not fit together, or a batch of 0 or beyond any memory.
    pub fn summary(&self, batch: usize) -> Result<Summary, NetworkError> {
        let nodes = self.nodes()?;
        let mut layers: Vec<LayerSummary> = Vec::with_capacity(nodes.len());
        let mut fields = receptive_fields(&nodes, self.input).into_iter();
        let mut learns = Vec::with_capacity(nodes.len());
        for node in &nodes {
            let (named, rule) = (node.named, node.named.layer.rule());
            let parameters = rule.parameters(node.input).map_err(|source| named.error(source))?;
            let flops = rule.flops(node.input).map_err(|source| named.error(source))?;
            let learnt = |p: &&ParameterRule| p.role != Role::Statistic;
            let count = |p: &ParameterRule| p.shape.iter().product::<usize>();
            let before = |source: &Source| matches!(source, Source::Layer(j) if learns[*j]);
            // Backward, an input's gradient costs what forward cost, and so does that of the parameters.
            let (gradient, weights) = (node.sources.iter().any(before), !parameters.is_empty());
            learns.push(gradient || weights);
            layers.push(LayerSummary {
                name: named.name.clone(),
                kind: rule.kind(),
                options: rule.describe(),
                inputs: named.inputs.clone(),
                output: node.output,
                parameters: parameters.iter().filter(learnt).map(count).sum(),
                flops,
                training_flops: flops * (1 + u64::from(gradient) + u64::from(weights)),
                activation_bytes: if rule.is_view(false) {
                    0
                } else {
                    node.output.checked_len(batch)? * size_of::<f32>()
                },
                receptive_field: fields.next().unwrap_or(Field::PIXEL).size,
            });
        }
        Ok(Summary {
            parameters: layers.iter().map(|l| l.parameters).sum(),
            flops: layers.iter().map(|l| l.flops).sum(),
            training_flops: layers.iter().map(|l| l.training_flops).sum(),
            peak_bytes: Plan::new(self, batch, Mode::Training)?.peak_bytes(),
            inference_bytes: Plan::new(self, batch, Mode::Inference)?.peak_bytes(),
            layers,
        })
    }
}

fn receptive_fields(nodes: &[Node<'_>], input: Shape) -> Vec<Field> {
    let mut fields: Vec<Field> = Vec::with_capacity(nodes.len());
    for node in nodes {
        let sources = node.sources.iter().map(|source| match source {
            Source::Input => Field::PIXEL,
            Source::Layer(j) => fields[*j],
        });
        let joined = sources.reduce(Field::join).unwrap_or(Field::PIXEL);
        fields.push(joined.through(node.named.layer.rule().reach(), input));
    }
    fields
}

/// The patch of the network's input that one number of a layer's output depends on, and how far apart the patches of
/// neighbours lie, as (height, width) or (row, column).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceptiveField {
    /// Height and width of the patch, padding included.
    pub size: (usize, usize),
    /// Rows and columns between the patches of neighbours.
    pub step: (usize, usize),
    /// Row and column of the first pixel of the first output's patch; negative in the padding.
    pub start: (isize, isize),
}

use ReceptiveField as Field;

impl ReceptiveField {
    const PIXEL: Field = Field { size: (1, 1), step: (1, 1), start: (0, 0) };

    /// Rows and columns of the input (of this shape) that the output in `row` and `column` depends on, without padding.
    ///
    /// ```
    /// use striate::{models::simple_convnet::SimpleConvNet, shape::Shape};
    /// let description = SimpleConvNet::default().description();
    /// let pooled = description.receptive_fields()?[2];
    /// assert_eq!((pooled.size, pooled.step), ((6, 6), (2, 2)));
    /// assert_eq!(pooled.patch((1, 11), Shape::new(1, 28, 28)), (2..8, 22..28));
    /// # Ok::<(), striate::network::NetworkError>(())
    /// ```
    pub fn patch(&self, (row, column): (usize, usize), input: Shape) -> (Range<usize>, Range<usize>) {
        let along = |at: usize, start: isize, step: usize, size: usize, limit: usize| {
            let first = start.saturating_add_unsigned(at.saturating_mul(step));
            let end = first.saturating_add_unsigned(size).clamp(0, limit as isize) as usize;
            (first.clamp(0, limit as isize) as usize).min(end)..end
        };
        (
            along(row, self.start.0, self.step.0, self.size.0, input.height),
            along(column, self.start.1, self.step.1, self.size.1, input.width),
        )
    }

    fn join(self, other: Field) -> Field {
        let axis = |a: (isize, usize, usize), b: (isize, usize, usize)| {
            let start = a.0.min(b.0);
            let end = a.0.saturating_add_unsigned(a.1).max(b.0.saturating_add_unsigned(b.1));
            (start, end.saturating_sub(start) as usize, a.2.max(b.2))
        };
        let rows = axis((self.start.0, self.size.0, self.step.0), (other.start.0, other.size.0, other.step.0));
        let columns = axis((self.start.1, self.size.1, self.step.1), (other.start.1, other.size.1, other.step.1));
        Field { size: (rows.1, columns.1), step: (rows.2, columns.2), start: (rows.0, columns.0) }
    }

    fn through(self, reach: Reach, input: Shape) -> Field {
        match reach {
            Reach::Point => self,
            Reach::All => Field { size: (input.height, input.width), step: self.step, start: (0, 0) },
            Reach::Window(w) => {
                // Sizes are bounded by the shape rules; saturation only guards the product of steps.
                let grown = |size: usize, step: usize, kernel: usize, dilation: usize| {
                    size.saturating_add((kernel.max(1) - 1).saturating_mul(dilation).saturating_mul(step))
                };
                Field {
                    size: (
                        grown(self.size.0, self.step.0, w.kernel.0, w.dilation.0),
                        grown(self.size.1, self.step.1, w.kernel.1, w.dilation.1),
                    ),
                    step: (self.step.0.saturating_mul(w.stride.0), self.step.1.saturating_mul(w.stride.1)),
                    start: (
                        self.start.0.saturating_sub_unsigned(w.padding.top.saturating_mul(self.step.0)),
                        self.start.1.saturating_sub_unsigned(w.padding.left.saturating_mul(self.step.1)),
                    ),
                }
            }
        }
    }
}

/// One row of [`Description::summary`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerSummary {
    /// The layer's name.
    pub name: String,
    /// The layer's kind: `Convolution`.
    pub kind: &'static str,
    /// The options in short: `30 filters 5x5, stride 1`.
    pub options: String,
    /// The layers it takes its inputs from, where that is not just the one before.
    pub inputs: Vec<String>,
    /// One output sample.
    pub output: Shape,
    /// Learnt numbers.
    pub parameters: usize,
    /// Floating-point operations of the forward pass for one sample (a multiply-add counts two).
    pub flops: u64,
    /// Floating-point operations of a training step for one sample: forward and backward.
    pub training_flops: u64,
    /// Bytes of the output for the asked batch (a plan keeps fewer: it fuses layers and shares places).
    pub activation_bytes: usize,
    /// Height and width of the patch of the input that one number of the output depends on, padding included.
    pub receptive_field: (usize, usize),
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
    /// Sum over the layers, for one sample forward and backward.
    pub training_flops: u64,
    /// Bytes of a training plan for the asked batch: arena, parameters and their gradients.
    pub peak_bytes: usize,
    /// Bytes of an inference plan for the asked batch.
    pub inference_bytes: usize,
}
