//! A quantized network as steps on buffers of bytes: weights packed, tables filled, places shared.

use super::{Int8Error, QuantizationParameters, QuantizedWeights};
use crate::kernels::convolution::Geometry;
use crate::kernels::int8::{Average, Depthwise, Product, Regions, Scaling};
use crate::kernels::normalize::inverse_deviation;
use crate::kernels::{adaptive_pooling, pooling};
use crate::layers::{Function, Layer, PoolingKind};
use crate::network::description::{Node, Source};
use crate::network::{Description, Network, NetworkError, Parameters};
use crate::shape::{Shape, Window};

/// A table of what becomes of each byte.
type Table = [u8; 256];

/// What a step does.
#[derive(Clone, Debug)]
pub(super) enum Work {
    /// Convolution or affine.
    Product(Box<Product>),
    /// Each channel with a filter of its own.
    Depthwise(Box<Depthwise>),
    /// Maxima under windows.
    MaxPool(pooling::Geometry),
    /// Means over rectangles.
    Average(Average),
    /// Byte by byte by a table.
    Lookup(Box<Table>),
    /// Likewise, with a table for each channel.
    LookupChannels(Vec<Table>),
    /// The sum of two: their factors and zero points, and the result's.
    Add { a: (f32, u8), b: (f32, u8), zero: u8 },
    /// Channels side by side: how many each input has, and by which table they go.
    Concat(Vec<(usize, Box<Table>)>),
    /// From (H, W, C) to (C, H, W).
    MoveChannels(Shape),
    /// A layer by itself, in float.
    Float { network: Box<Network>, shapes: (Shape, Shape), from: (f32, u8), to: (f32, u8) },
}

/// One step.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) layer: String,
    pub(super) work: Work,
    /// Buffers it reads.
    pub(super) inputs: Vec<Place>,
    /// The buffer it writes; none if it gives the logits, as numbers.
    pub(super) output: Option<Place>,
}

/// A value in a buffer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Place {
    pub(super) buffer: usize,
    /// Bytes of one sample.
    pub(super) bytes: usize,
}

/// Steps in order.
#[derive(Clone, Debug)]
pub(super) struct Program {
    pub(super) input: (Shape, (f32, u8), Place),
    pub(super) steps: Vec<Step>,
    /// Bytes a sample of each buffer.
    pub(super) buffers: Vec<usize>,
    /// Where the logits are to be read, if no step gives them as numbers: their shape in memory, parameters, place.
    pub(super) logits: Option<(Shape, (f32, u8), Place)>,
}

/// The position of a source's parameters: the input has the first.
pub(super) fn index(source: Option<&Source>) -> usize {
    match source {
        Some(Source::Layer(j)) => j + 1,
        _ => 0,
    }
}

/// A value while the program is made.
#[derive(Clone, Copy, Debug)]
struct Value {
    id: usize,
    /// In memory, as (H, W, C): before any flattening.
    memory: Shape,
    parameters: QuantizationParameters,
}

/// A program in the making: values by number rather than buffers.
struct Draft {
    steps: Vec<(String, Work, Vec<usize>, Option<usize>)>,
    /// Bytes a sample.
    sizes: Vec<usize>,
}

impl Draft {
    fn value(&mut self, memory: Shape, parameters: QuantizationParameters) -> Value {
        self.sizes.push(memory.len());
        Value { id: self.sizes.len() - 1, memory, parameters }
    }

    fn step(
        &mut self,
        layer: &str,
        work: Work,
        inputs: &[Value],
        memory: Shape,
        parameters: QuantizationParameters,
    ) -> Value {
        let output = self.value(memory, parameters);
        let inputs = inputs.iter().map(|value| value.id).collect();
        self.steps.push((layer.to_string(), work, inputs, Some(output.id)));
        output
    }

    /// The value in the order of its own shape, which flattening leaves to whoever needs it.
    fn ordered(&mut self, layer: &str, value: Value, shape: Shape) -> Value {
        if value.memory == shape {
            return value;
        }
        self.step(layer, Work::MoveChannels(value.memory), &[value], shape, value.parameters)
    }
}

impl Program {
    pub(super) fn new(
        network: &Network,
        activations: &[QuantizationParameters],
        weights: &[Option<QuantizedWeights>],
    ) -> Result<Self, Int8Error> {
        let description = network.description();
        let nodes = description.nodes()?;
        let mut draft = Draft { steps: Vec::new(), sizes: Vec::new() };
        let input = draft.value(network.input(), activations[0]);
        // The network's input, then each layer's output, with its own shape.
        let mut values: Vec<(Value, Shape)> = vec![(input, network.input())];
        // The layer whose output is the logits: no output goes nowhere, so all views behind it are of it.
        let last = nodes.iter().rposition(|node| !is_view(node)).unwrap_or(0);
        let mut answered = false;
        for (i, node) in nodes.iter().enumerate() {
            let inputs: Vec<(Value, Shape)> = node.sources.iter().map(|s| values[index(Some(s))]).collect();
            let layer = LayerToCompile {
                network,
                node,
                position: i,
                parameters: activations[i + 1],
                weights: weights[i].as_ref(),
                gives_logits: i == last,
            };
            let value = layer.compile(&mut draft, &inputs)?;
            if layer.gives_logits && draft.steps.last().is_some_and(|(.., output)| output.is_none()) {
                answered = true;
            }
            values.push((value, node.output));
        }
        let (value, shape) = values.last().copied().unwrap_or((input, network.input()));
        let logits = (!answered).then(|| {
            // Numbers are given in the order (C, H, W), which is how flattened values are meant to be.
            let memory = if value.memory.len() == shape.len() { value.memory } else { shape };
            (memory, value)
        });
        Ok(Self::place(draft, input, logits))
    }

    /// Gives every value a buffer, which another takes over when nobody reads the value any more.
    fn place(draft: Draft, input: Value, logits: Option<(Shape, Value)>) -> Self {
        let mut last_read = vec![0; draft.sizes.len()];
        for (at, (_, _, inputs, _)) in draft.steps.iter().enumerate() {
            inputs.iter().for_each(|&id| last_read[id] = at);
        }
        if let Some((_, value)) = &logits {
            last_read[value.id] = usize::MAX;
        }
        let mut buffers: Vec<usize> = Vec::new();
        let mut free: Vec<usize> = Vec::new();
        let mut places: Vec<Option<usize>> = vec![None; draft.sizes.len()];
        let mut take = |id: usize, free: &mut Vec<usize>, places: &mut Vec<Option<usize>>| {
            let bytes = draft.sizes[id];
            // The free buffer that fits best: the smallest that is large enough, or else the largest.
            let best = free.iter().enumerate().min_by_key(|(_, buffer)| {
                let size = buffers[**buffer];
                if size >= bytes { (0, size) } else { (1, usize::MAX - size) }
            });
            let buffer = match best.map(|(at, _)| at) {
                Some(at) => free.swap_remove(at),
                None => {
                    buffers.push(0);
                    buffers.len() - 1
                }
            };
            buffers[buffer] = buffers[buffer].max(bytes);
            places[id] = Some(buffer);
            Place { buffer, bytes }
        };
        let input_place = take(input.id, &mut free, &mut places);
        let mut steps = Vec::with_capacity(draft.steps.len());
        for (at, (layer, work, inputs, output)) in draft.steps.into_iter().enumerate() {
            let read: Vec<Place> = inputs
                .iter()
                .map(|&id| Place { buffer: places[id].unwrap_or_default(), bytes: draft.sizes[id] })
                .collect();
            let output = output.map(|id| take(id, &mut free, &mut places));
            for &id in &inputs {
                if last_read[id] == at
                    && let Some(buffer) = places[id].take()
                {
                    free.push(buffer);
                }
            }
            steps.push(Step { layer, work, inputs: read, output });
        }
        let logits = logits.map(|(memory, value)| {
            let place = Place { buffer: places[value.id].unwrap_or_default(), bytes: draft.sizes[value.id] };
            (memory, value.parameters.pair(), place)
        });
        Self { input: (input.memory, input.parameters.pair(), input_place), steps, buffers, logits }
    }

    pub(super) fn float_layers(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().filter(|step| matches!(step.work, Work::Float { .. })).map(|step| step.layer.as_str())
    }

    /// Bytes of packed weights.
    pub(super) fn packed_bytes(&self) -> usize {
        let bytes = |step: &Step| match &step.work {
            Work::Product(product) => product.packed_bytes(),
            _ => 0,
        };
        self.steps.iter().map(bytes).sum()
    }
}

/// Whether a layer gives its input's bytes, as they are.
pub(super) fn is_view(node: &Node<'_>) -> bool {
    matches!(node.named.layer, Layer::Flatten(_) | Layer::Dropout(_)) && node.output.area() * node.input.area() == 1
}

/// A layer with all that its steps are made of.
struct LayerToCompile<'a> {
    network: &'a Network,
    node: &'a Node<'a>,
    position: usize,
    parameters: QuantizationParameters,
    weights: Option<&'a QuantizedWeights>,
    /// Whether nothing follows but views, so that the output may be numbers.
    gives_logits: bool,
}

impl LayerToCompile<'_> {
    fn name(&self) -> &str {
        &self.node.named.name
    }

    fn shape_error(&self, source: crate::shape::ShapeError) -> Int8Error {
        NetworkError::Layer { layer: self.name().to_string(), source }.into()
    }

    fn compile(&self, draft: &mut Draft, inputs: &[(Value, Shape)]) -> Result<Value, Int8Error> {
        let (name, to) = (self.name(), self.parameters);
        let (value, shape) = inputs[0];
        let from = value.parameters;
        match &self.node.named.layer {
            Layer::Flatten(_) | Layer::Dropout(_) if from == to => Ok(value),
            Layer::Convolution(options) if self.weights.is_some() => {
                let value = draft.ordered(name, value, shape);
                let g = Geometry::new(shape, options.filters, options.groups, options.window)
                    .map_err(|source| self.shape_error(source))?;
                self.product(draft, value, g, |w| w.to_vec())
            }
            Layer::Affine(options) if self.weights.is_some() => {
                // Weights take their inputs in the order (C, H, W); the bytes lie in (H, W, C), as a window over all of it.
                let memory = value.memory;
                let window = Window::of((memory.height, memory.width));
                let g = Geometry::new(memory, options.outputs, 1, window).map_err(|source| self.shape_error(source))?;
                let outputs = options.outputs;
                self.product(draft, value, g, |w| {
                    (0..outputs).flat_map(|o| w.iter().skip(o).step_by(outputs).copied()).collect()
                })
            }
            Layer::Pooling(options) => {
                let value = draft.ordered(name, value, shape);
                let g = pooling::Geometry::new(shape, options.window).map_err(|source| self.shape_error(source))?;
                match options.pooling {
                    PoolingKind::Max => {
                        let output = draft.step(name, Work::MaxPool(g), &[value], g.output, from);
                        Ok(self.rescaled(draft, output))
                    }
                    PoolingKind::Average => {
                        let average = self.average(from, Regions::Windows(g, options.count_padding));
                        Ok(draft.step(name, Work::Average(average), &[value], g.output, to))
                    }
                }
            }
            Layer::AdaptivePooling(options) => {
                let value = draft.ordered(name, value, shape);
                let g = adaptive_pooling::Geometry::new(shape, options.output)
                    .map_err(|source| self.shape_error(source))?;
                let average = self.average(from, Regions::Grid(g));
                Ok(draft.step(name, Work::Average(average), &[value], self.node.output, to))
            }
            Layer::BatchNorm(options) => {
                let value = draft.ordered(name, value, shape);
                let tables = self.channel_tables(options.epsilon, from);
                Ok(draft.step(name, Work::LookupChannels(tables), &[value], shape, to))
            }
            Layer::Add(_) => {
                let mut pair = Vec::with_capacity(2);
                let agree = inputs.iter().all(|(other, _)| other.memory == value.memory);
                for &(value, shape) in inputs {
                    pair.push(if agree { value } else { draft.ordered(name, value, shape) });
                }
                let factor = |value: &Value| (value.parameters.scale / to.scale, value.parameters.zero_point);
                let [a, b] = pair.as_slice() else { return Err(self.unsupported()) };
                let work = Work::Add { a: factor(a), b: factor(b), zero: to.zero_point };
                Ok(draft.step(name, work, &pair, a.memory, to))
            }
            Layer::Concat(_) => {
                let mut values = Vec::with_capacity(inputs.len());
                for &(value, shape) in inputs {
                    values.push(draft.ordered(name, value, shape));
                }
                let part = |value: &Value| (value.memory.channels, table(value.parameters, to, |x| x));
                let work = Work::Concat(values.iter().map(part).collect());
                Ok(draft.step(name, work, &values, self.node.output, to))
            }
            layer => match pointwise(layer) {
                Some(function) => {
                    let table = table(from, to, function);
                    if is_identity(&table) {
                        return Ok(Value { parameters: to, ..value });
                    }
                    Ok(draft.step(name, Work::Lookup(table), &[value], value.memory, to))
                }
                None if inputs.len() == 1 => self.float(draft, value, shape),
                None => Err(self.unsupported()),
            },
        }
    }

    fn unsupported(&self) -> Int8Error {
        let kind = self.node.named.layer.rule().kind();
        Int8Error::Unsupported { layer: self.name().to_string(), kind }
    }

    /// The value with the parameters that the layer's output is to have.
    fn rescaled(&self, draft: &mut Draft, value: Value) -> Value {
        if value.parameters == self.parameters {
            return value;
        }
        let table = table(value.parameters, self.parameters, |x| x);
        draft.step(self.name(), Work::Lookup(table), &[value], value.memory, self.parameters)
    }

    fn average(&self, from: QuantizationParameters, regions: Regions) -> Average {
        let to = self.parameters;
        Average { regions, scales: (from.scale, to.scale), zeros: (from.zero_point, to.zero_point) }
    }

    /// A convolution, or an affine layer as one; `order` gives the weights filter by filter.
    fn product(
        &self,
        draft: &mut Draft,
        value: Value,
        g: Geometry,
        order: impl Fn(&[i8]) -> Vec<i8>,
    ) -> Result<Value, Int8Error> {
        let Some(weights) = self.weights else { return Err(self.unsupported()) };
        let (from, to) = (value.parameters, self.parameters);
        // Logits stay numbers, of which the order (H, W, C) is that of (C, H, W) if there is one place.
        let numbers = self.gives_logits && g.output.area() == 1;
        let factor = |&scale: &f32| if numbers { from.scale * scale } else { from.scale * scale / to.scale };
        let factors: Vec<f32> = weights.scales.iter().map(factor).collect();
        if let Some(factor) = factors.iter().find(|factor| !factor.is_finite()) {
            let (layer, found) = (self.name().to_string(), factor.to_string());
            let what = "the product of the input's and the weights' scales over the output's";
            return Err(Int8Error::Scale { layer, what, found, expected: "a finite number" });
        }
        let zero = if numbers { 0 } else { to.zero_point };
        let scaling = Scaling { bias: weights.bias.clone(), factors, zero };
        let w = order(&weights.values);
        let work = if Depthwise::takes(&g) && !numbers {
            Work::Depthwise(Box::new(Depthwise::new(g, &w, scaling, from.zero_point)))
        } else {
            Work::Product(Box::new(Product::new(g, &w, scaling, from.zero_point)))
        };
        if numbers {
            draft.steps.push((self.name().to_string(), work, vec![value.id], None));
            return Ok(Value { memory: g.output, parameters: to, ..value });
        }
        Ok(draft.step(self.name(), work, &[value], g.output, to))
    }

    /// Normalisation by running statistics: each channel has a factor and a summand.
    fn channel_tables(&self, epsilon: f32, from: QuantizationParameters) -> Vec<Table> {
        let parameters = self.layer_parameters();
        let [gamma, beta, mean, variance] = parameters.as_slice() else { return Vec::new() };
        let table_of = |c: usize| {
            let factor = gamma[c] * inverse_deviation(variance[c], epsilon);
            let shift = beta[c] - mean[c] * factor;
            *table(from, self.parameters, |x| x * factor + shift)
        };
        (0..gamma.len()).map(table_of).collect()
    }

    /// The layer's own parameters, in their order.
    fn layer_parameters(&self) -> Vec<&[f32]> {
        let owners = self.network.description().parameter_owners().unwrap_or_default();
        let specs = self.network.parameters().specs().iter().zip(owners);
        let own = specs.filter(|(_, owner)| *owner == self.position);
        own.map(|(spec, _)| &self.network.parameters().as_slice()[spec.range.clone()]).collect()
    }

    /// The layer in float, between bytes.
    fn float(&self, draft: &mut Draft, value: Value, shape: Shape) -> Result<Value, Int8Error> {
        let value = draft.ordered(self.name(), value, shape);
        let description = Description::new(self.name(), shape).with(self.name(), self.node.named.layer.clone());
        let specs = description.parameter_specs()?;
        let mut parameters = Parameters::zeros(specs.iter().map(|s| (s.name.clone(), s.shape.clone())).collect())?;
        for (spec, values) in specs.iter().zip(self.layer_parameters()) {
            parameters.as_mut_slice()[spec.range.clone()].copy_from_slice(values);
        }
        let network = Box::new(Network::with_parameters(description, parameters)?);
        let (from, to) = (value.parameters.pair(), self.parameters.pair());
        let work = Work::Float { network, shapes: (shape, self.node.output), from, to };
        if self.gives_logits {
            draft.steps.push((self.name().to_string(), work, vec![value.id], None));
            return Ok(Value { memory: self.node.output, parameters: self.parameters, ..value });
        }
        Ok(draft.step(self.name(), work, &[value], self.node.output, self.parameters))
    }
}

/// What a function makes of each byte.
fn table(from: QuantizationParameters, to: QuantizationParameters, function: impl Fn(f32) -> f32) -> Box<Table> {
    let mut table = Box::new([0; 256]);
    for (byte, entry) in (0u8..=255).zip(table.iter_mut()) {
        *entry = to.byte(function(from.number(byte)));
    }
    table
}

fn is_identity(table: &Table) -> bool {
    (0u8..=255).zip(table).all(|(byte, &entry)| byte == entry)
}

/// The function of a layer that works number by number.
fn pointwise(layer: &Layer) -> Option<Box<dyn Fn(f32) -> f32>> {
    fn boxed<F: Function>(function: F) -> Option<Box<dyn Fn(f32) -> f32>> {
        Some(Box::new(move |x| function.value(x)))
    }
    match layer {
        Layer::Relu(function) => boxed(*function),
        Layer::Sigmoid(function) => boxed(*function),
        Layer::LeakyRelu(function) => boxed(*function),
        Layer::Tanh(function) => boxed(*function),
        Layer::Gelu(function) => boxed(*function),
        Layer::Silu(function) => boxed(*function),
        Layer::HardSwish(function) => boxed(*function),
        Layer::Clip(function) => boxed(*function),
        Layer::Flatten(_) | Layer::Dropout(_) => Some(Box::new(|x| x)),
        _ => None,
    }
}
