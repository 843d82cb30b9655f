//! From an ONNX graph to a network.
//!
//! Nodes are taken in order. What depends on constants alone is computed by `interpret`; what depends on the input becomes
//! layers, one family of operators a file. Between nodes flows a [`Flow`]: a layer's output under the dimensions that ONNX
//! gives it, the batch first. Changes of dimensions alone (`Reshape`, `Flatten`, `Squeeze`) make no layer until a node
//! needs its input as another map than the layer before gives.

mod activation;
mod arithmetic;
mod convolution;
mod dense;
mod gelu;
mod normalization;
mod pooling;
mod quantize;
mod shape;
#[cfg(test)]
mod tests;

use super::interpret;
use super::node::{Node, Problem, invalid, unsupported};
use super::read::{Graph, Input};
use super::tensor::Tensor;
use super::{ImportOptions, NodeProblem, OnnxImportError};
use crate::data::one_class_names;
use crate::data::preprocessing::{Fit, Normalization, Preprocessing};
use crate::formats::{ModelFile, TestVectors};
use crate::layers::{GeluOptions, Layer, ReshapeOptions, TransposeOptions};
use crate::network::description::{INPUT, MAX_LAYERS};
use crate::network::{Description, NamedLayer, Network, NetworkError};
use crate::shape::{Shape, ShapeError};
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::path::Path;
use std::rc::Rc;

/// The batch size with which a graph is read that leaves it open: no size that a file would have by chance, so that a
/// node that confuses the batch with something else is found.
const OPEN_BATCH: usize = 7;
/// How many numbers of constants nodes may read and make, in computing and as layers' weights, whatever the file holds, and
/// how many times as many as it holds beyond that: one constant may be named again and again.
const FREE_NUMBERS: usize = 1 << 24;
const MOST_USES: usize = 16;
/// The most nodes that scale pixels before an input with its channels last is turned.
const MOST_SCALING: usize = 8;

/// The model that a file's bytes hold; see [`super::load_onnx`].
pub(super) fn model(
    bytes: Vec<u8>,
    name: &str,
    directory: Option<&Path>,
    options: ImportOptions,
) -> Result<ModelFile, OnnxImportError> {
    let graph = Graph::read(bytes, name, directory)?;
    let mut importer = Importer::new(&graph, name, options)?;
    let output = importer.run(name)?;
    let layers = importer.finish(output);
    let input = importer.input;
    let (title, producer) = (graph.name.clone(), graph.producer.clone());
    let metadata = Metadata::read(&graph, name)?;
    let error = |source| OnnxImportError::Network { name: name.into(), source: Box::new(source) };
    // The file's own bytes are no longer needed, and may be as large as all that follows.
    drop(graph);
    let network = network(if title.is_empty() { "onnx" } else { &title }, input, layers).map_err(error)?;
    let classes = network.classes();
    let class_names = metadata.class_names.unwrap_or_else(|| one_class_names(classes));
    if class_names.len() != classes {
        let reason = format!("its metadata names {} classes, but it tells {classes} apart", class_names.len());
        return Err(OnnxImportError::Interface { name: name.into(), reason });
    }
    let plain = Preprocessing { shape: input, fit: Fit::Stretch, normalization: Normalization::identity() };
    let preprocessing = metadata.preprocessing.unwrap_or(plain);
    if preprocessing.shape != input {
        let reason = format!("its metadata makes inputs of {}, but it takes {input}", preprocessing.shape);
        return Err(OnnxImportError::Interface { name: name.into(), reason });
    }
    Ok(ModelFile {
        network,
        class_names,
        preprocessing,
        training: serde_json::json!({ "imported": { "format": "onnx", "producer": producer } }),
        metrics: serde_json::Value::Null,
        test_vectors: TestVectors::none(),
        temperature: None,
        quantized: None,
    })
}

/// What our own files say beside the graph.
struct Metadata {
    class_names: Option<Vec<String>>,
    preprocessing: Option<Preprocessing>,
}

impl Metadata {
    fn read(graph: &Graph, name: &str) -> Result<Self, OnnxImportError> {
        fn entry<T: DeserializeOwned>(graph: &Graph, name: &str, key: &str) -> Result<Option<T>, OnnxImportError> {
            let parse = |text: &String| serde_json::from_str(text);
            graph.metadata.get(key).map(parse).transpose().map_err(|error| OnnxImportError::Malformed {
                name: name.into(),
                reason: format!("its metadata {key}: {error}"),
            })
        }
        let preprocessing: Option<Preprocessing> = entry(graph, name, "striate.preprocessing")?;
        if let Some(preprocessing) = &preprocessing {
            preprocessing.check().map_err(|error| OnnxImportError::Malformed {
                name: name.into(),
                reason: format!("its metadata striate.preprocessing: {error}"),
            })?;
        }
        Ok(Self { class_names: entry(graph, name, "striate.classes")?, preprocessing })
    }
}

/// The network of finished layers; their parameters are moved into it one by one.
fn network(title: &str, input: Shape, layers: Vec<(NamedLayer, Vec<Vec<f32>>)>) -> Result<Network, NetworkError> {
    let (named, parameters): (Vec<NamedLayer>, Vec<Vec<Vec<f32>>>) = layers.into_iter().unzip();
    let description = Description { name: title.into(), input, layers: named };
    let mut values = parameters.into_iter().flatten();
    Network::filled(description, |target| {
        if let Some(values) = values.next() {
            target.iter_mut().zip(values).for_each(|(to, from)| *to = from);
        }
    })
}

/// Where numbers come from: a layer by its position, or the network's input.
type Source = Option<usize>;

/// A layer's output as a graph sees it.
#[derive(Clone, Debug)]
struct Flow {
    source: Source,
    /// With the batch in front.
    dims: Vec<usize>,
    /// Whether the graph holds it as whole numbers of 8 bits, which stand for the layer's output.
    quantized: bool,
}

/// What a name of the graph stands for.
#[derive(Clone, Debug)]
enum Value {
    Constant(Rc<Tensor>),
    Flow(Flow),
    /// Not to be had: it comes from a node with a problem, which is already noted.
    Unknown,
}

/// A layer in the making.
#[derive(Debug)]
struct Made {
    name: String,
    layer: Layer,
    inputs: Vec<Source>,
    /// One sample of its output.
    shape: Shape,
    /// In the order in which the layer asks for them.
    parameters: Vec<Vec<f32>>,
    /// Whether the graph gave it no bias, so that a sum that follows may become one.
    open_bias: bool,
}

/// A node with what flows in.
struct Call<'n> {
    node: &'n Node,
    inputs: Vec<Option<Value>>,
}

impl Call<'_> {
    /// An input that depends on the network's input.
    fn flow(&self, at: usize) -> Result<&Flow, Problem> {
        match self.inputs.get(at) {
            Some(Some(Value::Flow(flow))) => Ok(flow),
            Some(Some(_)) => unsupported(format!("input {at} is a constant, and others are not")),
            _ => invalid(format!("it has no input {at}")),
        }
    }

    /// An input that may be left out but must be a constant.
    fn optional(&self, at: usize) -> Result<Option<&Tensor>, Problem> {
        match self.inputs.get(at) {
            Some(Some(Value::Constant(tensor))) => Ok(Some(tensor)),
            Some(Some(_)) => {
                let name = self.node.input(at).unwrap_or_default();
                unsupported(format!("input {at} ({name}) is no constant but depends on the network's input"))
            }
            _ => Ok(None),
        }
    }

    /// An input that must be a constant.
    fn constant(&self, at: usize) -> Result<&Tensor, Problem> {
        match self.optional(at)? {
            Some(tensor) => Ok(tensor),
            None => invalid(format!("it has no input {at}")),
        }
    }
}

struct Importer<'a> {
    graph: &'a Graph,
    /// The first dimension of everything that flows.
    batch: usize,
    input: Shape,
    values: HashMap<&'a str, Value>,
    /// How many nodes read each value.
    uses: HashMap<&'a str, usize>,
    nodes: Vec<&'a Node>,
    /// The products that are GELU, and what of.
    gelus: HashMap<&'a str, &'a str>,
    output: &'a str,
    layers: Vec<Made>,
    /// Names of layers, each with how often it was asked for.
    names: HashMap<String, usize>,
    /// How many numbers of constants may yet be read and made: else a short file could ask for work and memory without end.
    room: usize,
}

impl<'a> Importer<'a> {
    fn new(graph: &'a Graph, name: &str, options: ImportOptions) -> Result<Self, OnnxImportError> {
        let interface = |reason: String| OnnxImportError::Interface { name: name.into(), reason };
        let Some(output) = graph.outputs.first() else {
            return Err(interface("the graph has no output".into()));
        };
        let nodes = graph.needed(std::slice::from_ref(output));
        let mut uses: HashMap<&str, usize> = HashMap::new();
        for node in &nodes {
            node.inputs.iter().for_each(|input| *uses.entry(input).or_default() += 1);
        }
        *uses.entry(output).or_default() += 1;
        let given: Vec<&Input> = graph.inputs.iter().filter(|input| uses.contains_key(input.name.as_str())).collect();
        let &[input] = given.as_slice() else {
            let names: Vec<String> = given.iter().take(8).map(|input| format!("{:?}", input.name)).collect();
            return Err(interface(format!(
                "a network has one input, but the graph has {}{}{}",
                given.len(),
                if names.is_empty() { "" } else { ": " },
                names.join(", ")
            )));
        };
        let mut importer = Self {
            graph,
            batch: OPEN_BATCH,
            input: Shape::flat(1),
            values: HashMap::new(),
            uses,
            nodes,
            gelus: HashMap::new(),
            output,
            layers: Vec::new(),
            names: HashMap::from([(INPUT.to_owned(), 1)]),
            room: FREE_NUMBERS,
        };
        importer.take_input(input, options).map_err(interface)?;
        importer.find_gelus();
        Ok(importer)
    }

    /// The sizes of the input, and the nodes that only prepare it.
    fn take_input(&mut self, input: &'a Input, options: ImportOptions) -> Result<(), String> {
        const FLOAT: i32 = 1;
        let normalizes = self.graph.metadata.get("striate.includes_normalization").is_some_and(|text| text == "true");
        if input.element != FLOAT && !normalizes {
            return Err(format!(
                "the input {:?} has numbers of type {}; float (1) is needed",
                input.name, input.element
            ));
        }
        let mut dims = input.dims.clone();
        self.batch = dims.first().copied().flatten().unwrap_or(OPEN_BATCH);
        let turned = self.channels_last(&input.name, dims.len());
        if turned.is_some() && dims.len() == 4 {
            dims = vec![dims[0], dims[3], dims[1], dims[2]];
        }
        let rank = dims.len();
        if let Some(shape) = options.input {
            let wanted: Vec<usize> = if rank == 2 { vec![shape.len()] } else { <[usize; 3]>::from(shape).to_vec() };
            let fits = dims.len() == wanted.len() + 1
                && dims.iter().skip(1).zip(&wanted).all(|(size, wanted)| size.is_none_or(|size| size == *wanted));
            if !fits {
                return Err(format!("inputs of {shape} were asked for, but the file says {}", shown(&dims)));
            }
            dims.splice(1.., wanted.into_iter().map(Some));
        }
        let open = || {
            format!(
                "the input {:?} is {} (the batch first), which leaves sizes open; export it with fixed sizes \
                 (the batch alone may stay open), or give them as ImportOptions",
                input.name,
                shown(&dims)
            )
        };
        let sizes: Vec<usize> = dims.iter().skip(1).copied().collect::<Option<_>>().ok_or_else(open)?;
        self.input = match *sizes {
            [features] => Shape::flat(features),
            [channels, width] => Shape::new(channels, 1, width),
            [channels, height, width] => Shape::new(channels, height, width),
            _ => {
                return Err(format!(
                    "the input {:?} is {}; a batch of images (N, C, H, W) or of vectors (N, features) is needed",
                    input.name,
                    shown(&dims)
                ));
            }
        };
        self.input.checked_len(self.batch).map_err(|error| format!("the input {:?}: {error}", input.name))?;
        let dims = std::iter::once(self.batch).chain(sizes).collect();
        let mut flow = Value::Flow(Flow { source: None, dims, quantized: false });
        if let Some(turn) = turned {
            if turn.input(0) == Some(&input.name) {
                self.nodes.retain(|node| !std::ptr::eq(*node, turn));
                turn.outputs.first().into_iter().for_each(|output| drop(self.values.insert(output, flow.clone())));
            } else {
                flow = Value::Flow(self.as_channels_last()?);
            }
        }
        if normalizes {
            // What our own export puts in front is in the metadata as well.
            let ours = |node: &&Node| node.name.starts_with("striate.preprocess/");
            for node in self.nodes.iter().copied().filter(ours) {
                node.outputs.iter().for_each(|output| drop(self.values.insert(output, flow.clone())));
            }
            self.nodes.retain(|node| !ours(node));
        }
        self.values.insert(&input.name, flow);
        Ok(())
    }

    /// The node that brings an input (N, H, W, C), as Keras has it, to (N, C, H, W), if nothing but the scaling of pixels
    /// comes before.
    fn channels_last(&self, input: &str, rank: usize) -> Option<&'a Node> {
        let mut name = input;
        for _ in 0..MOST_SCALING {
            if rank != 4 || self.uses.get(name) != Some(&1) {
                return None;
            }
            let reader = self.nodes.iter().copied().find(|node| node.inputs.iter().any(|input| input == name))?;
            match reader.operator.as_str() {
                "Transpose" => return (reader.ints("perm") == Some(&[0, 3, 1, 2])).then_some(reader),
                "Add" | "Sub" | "Mul" | "Div" | "Cast" | "Identity" => name = reader.outputs.first()?,
                _ => return None,
            }
        }
        None
    }

    /// The input, which is (C, H, W) for everybody, as the graph expects it: (N, H, W, C).
    fn as_channels_last(&mut self) -> Result<Flow, String> {
        let Shape { channels, height, width } = self.input;
        let options = TransposeOptions { sizes: vec![channels, height, width], order: vec![1, 2, 0] };
        match self.push(&Node::bare(), "channels_last", options, &[None], vec![]) {
            Ok((at, _)) => {
                Ok(Flow { source: Some(at), dims: vec![self.batch, height, width, channels], quantized: false })
            }
            Err(Problem::Unsupported(reason) | Problem::Invalid(reason)) => Err(reason),
        }
    }

    /// Takes every node; the output's flow, or everything that stands in the way.
    fn run(&mut self, name: &str) -> Result<Source, OnnxImportError> {
        let mut problems = Vec::new();
        for node in std::mem::take(&mut self.nodes) {
            let made = self.node(node);
            let values = made.unwrap_or_else(|problem| {
                problems.push(NodeProblem::new(node, problem));
                vec![Value::Unknown; node.outputs.len()]
            });
            for (output, value) in node.outputs.iter().zip(values) {
                self.values.insert(output, value);
            }
        }
        if !problems.is_empty() {
            return Err(OnnxImportError::Nodes { name: name.into(), problems });
        }
        match self.values.get(self.output) {
            Some(Value::Flow(flow)) if flow.source.is_some() => Ok(flow.source),
            Some(Value::Flow(_)) => {
                let reason = format!("the output {:?} is the input itself; there is no network in it", self.output);
                Err(OnnxImportError::Interface { name: name.into(), reason })
            }
            _ => {
                let reason =
                    format!("the output {:?} does not depend on the input; there is no network in it", self.output);
                Err(OnnxImportError::Interface { name: name.into(), reason })
            }
        }
    }

    /// What a name stands for.
    fn value(&mut self, name: &'a str) -> Result<Option<Value>, Problem> {
        if name.is_empty() {
            return Ok(None);
        }
        if let Some(value) = self.values.get(name) {
            return Ok(Some(value.clone()));
        }
        let Some(tensor) = self.graph.constant(name) else {
            return invalid(format!("it reads {name:?}, which an output that is not there should hold"));
        };
        // A constant with a problem is told of once.
        let tensor = tensor.inspect_err(|_| drop(self.values.insert(name, Value::Unknown)))?;
        self.room = self.room.saturating_add(tensor.len().saturating_mul(MOST_USES));
        let value = Value::Constant(Rc::new(tensor));
        // What one node alone reads is let go with it.
        if !self.has_one_reader(Some(name)) {
            self.values.insert(name, value.clone());
        }
        Ok(Some(value))
    }

    /// Counts numbers of constants that are read or made.
    fn count(&mut self, numbers: usize) -> Result<(), Problem> {
        match self.room.checked_sub(numbers) {
            Some(rest) => self.room = rest,
            None => return unsupported("more would be computed from the file's constants, in all, than is allowed"),
        }
        Ok(())
    }

    /// The outputs of a node.
    fn node(&mut self, node: &'a Node) -> Result<Vec<Value>, Problem> {
        if !interpret::knows(&node.operator) && !is_layer(&node.operator) {
            return unsupported("the operator is not supported");
        }
        let gelu = node.outputs.first().and_then(|output| self.gelus.get(output.as_str())).copied();
        let inputs: Vec<Option<Value>> = match gelu {
            Some(x) => vec![self.value(x)?],
            None => node.inputs.iter().map(|name| self.value(name)).collect::<Result<_, _>>()?,
        };
        if inputs.iter().any(|input| matches!(input, Some(Value::Unknown))) {
            return Ok(vec![Value::Unknown; node.outputs.len()]);
        }
        let read = inputs.iter().map(|input| if let Some(Value::Constant(tensor)) = input { tensor.len() } else { 0 });
        self.count(read.sum())?;
        let constants: Option<Vec<Option<&Tensor>>> = inputs
            .iter()
            .map(|input| match input {
                None => Some(None),
                Some(Value::Constant(tensor)) => Some(Some(&**tensor)),
                _ => None,
            })
            .collect();
        if let Some(constants) = constants {
            let outputs = interpret::fold(node, &constants)?;
            self.count(outputs.iter().map(Tensor::len).sum())?;
            return Ok(outputs.into_iter().map(|tensor| Value::Constant(Rc::new(tensor))).collect());
        }
        let call = Call { node, inputs };
        match gelu {
            Some(_) => Ok(vec![Value::Flow(self.unary(&call, GeluOptions {}, vec![])?)]),
            None => self.layer(&call),
        }
    }

    /// A node that depends on the input.
    fn layer(&mut self, call: &Call<'_>) -> Result<Vec<Value>, Problem> {
        let one = |flow: Flow| vec![Value::Flow(flow)];
        Ok(match call.node.operator.as_str() {
            "Conv" => one(self.convolution(call)?),
            "ConvTranspose" => one(self.transposed_convolution(call)?),
            "QLinearConv" => one(self.quantized_convolution(call)?),
            "MaxPool" | "AveragePool" => one(self.pooling(call)?),
            "GlobalMaxPool" | "GlobalAveragePool" => one(self.global_pooling(call)?),
            "ReduceMean" => one(self.mean(call)?),
            "LRN" => one(self.local_response_norm(call)?),
            "BatchNormalization" => one(self.batch_norm(call)?),
            "Gemm" => one(self.gemm(call)?),
            "MatMul" => one(self.matmul(call)?),
            "Add" | "Sub" | "Mul" | "Div" => one(self.arithmetic(call)?),
            "Sum" => one(self.sum(call)?),
            "PRelu" => one(self.prelu(call)?),
            "Softmax" | "LogSoftmax" => one(self.softmax(call)?),
            "Dropout" => {
                let mut outputs = one(self.dropout(call)?);
                outputs.resize(call.node.outputs.len().max(1), Value::Unknown);
                outputs
            }
            "Identity" => one(call.flow(0)?.clone()),
            "Cast" => one(self.cast(call)?),
            "Flatten" | "Reshape" | "Squeeze" | "Unsqueeze" => one(self.reshape(call)?),
            "Shape" | "Size" => vec![Value::Constant(Rc::new(self.shape_of(call)?))],
            "Transpose" => one(self.transpose(call)?),
            "Concat" => one(self.concat(call)?),
            "Split" => self.split(call)?.into_iter().map(Value::Flow).collect(),
            "Slice" => one(self.slice(call)?),
            "Pad" => one(self.pad(call)?),
            "Resize" | "Upsample" => one(self.resize(call)?),
            "QuantizeLinear" => one(self.quantize(call)?),
            "DequantizeLinear" => one(self.dequantize(call)?),
            _ => one(self.activation(call)?),
        })
    }

    /// A flow as a map, for a layer that reads it as one.
    fn map(&mut self, node: &Node, flow: &Flow) -> Result<(Source, Shape), Problem> {
        if flow.quantized {
            return unsupported("it computes with numbers of 8 bits; only QLinearConv may");
        }
        if flow.dims.first() != Some(&self.batch) {
            return unsupported(format!("its input has the shape {:?}, whose first axis is not the batch", flow.dims));
        }
        let shape = match flow.dims[1..] {
            [features] => Shape::flat(features),
            [channels, width] => Shape::new(channels, 1, width),
            [channels, height, width] => Shape::new(channels, height, width),
            _ => return unsupported(format!("its input has {} axes; 2, 3 or 4 are needed", flow.dims.len())),
        };
        if self.shape(flow.source) == shape {
            return Ok((flow.source, shape));
        }
        let (at, _) = self.push(node, "/reshape", ReshapeOptions { output: shape }, &[flow.source], vec![])?;
        Ok((Some(at), shape))
    }

    /// One sample of what a source holds.
    fn shape(&self, source: Source) -> Shape {
        source.map_or(self.input, |at| self.layers[at].shape)
    }

    /// One more layer, called after the node.
    fn push(
        &mut self,
        node: &Node,
        suffix: &str,
        layer: impl Into<Layer>,
        inputs: &[Source],
        parameters: Vec<Vec<f32>>,
    ) -> Result<(usize, Shape), Problem> {
        if self.layers.len() >= MAX_LAYERS {
            return unsupported(format!("it would be a layer beyond the {MAX_LAYERS} that a network may have"));
        }
        let layer = layer.into();
        let wrong = |error: ShapeError| Problem::Invalid(error.to_string());
        let shapes: Vec<Shape> = inputs.iter().map(|&source| self.shape(source)).collect();
        let shape = layer.rule().join(&shapes).map_err(wrong)?;
        shape.checked_len(1).map_err(wrong)?;
        let first = shapes.first().copied().unwrap_or(self.input);
        for (i, rule) in layer.rule().parameters(first).map_err(wrong)?.iter().enumerate() {
            let (found, expected) = (parameters.get(i).map_or(0, Vec::len), rule.shape.iter().product::<usize>());
            if found != expected {
                return invalid(format!("its {} has {found} numbers, but {:?} is needed", rule.prefix, rule.shape));
            }
        }
        self.count(parameters.iter().map(Vec::len).sum())?;
        let base = format!("{}{suffix}", node.name);
        let mut name = base.clone();
        while self.names.contains_key(&name) {
            let times = self.names.entry(base.clone()).or_insert(1);
            *times += 1;
            name = format!("{base}#{times}");
        }
        self.names.insert(name.clone(), 1);
        self.layers.push(Made { name, layer, inputs: inputs.to_vec(), shape, parameters, open_bias: false });
        Ok((self.layers.len() - 1, shape))
    }

    /// A layer that keeps the number of axes: the usual way of a node with one input and one layer.
    fn unary(&mut self, call: &Call<'_>, layer: impl Into<Layer>, parameters: Vec<Vec<f32>>) -> Result<Flow, Problem> {
        let flow = call.flow(0)?.clone();
        let (source, _) = self.map(call.node, &flow)?;
        let (at, shape) = self.push(call.node, "", layer, &[source], parameters)?;
        Ok(self.flow(at, shape, flow.dims.len()))
    }

    /// A layer's output with so many axes, the batch among them.
    fn flow(&self, at: usize, shape: Shape, rank: usize) -> Flow {
        let Shape { channels, height, width } = shape;
        let dims = match rank {
            2 => vec![self.batch, channels],
            3 => vec![self.batch, channels, width],
            _ => vec![self.batch, channels, height, width],
        };
        Flow { source: Some(at), dims, quantized: false }
    }

    /// Whether nobody but one node reads this value.
    fn has_one_reader(&self, name: Option<&str>) -> bool {
        name.is_some_and(|name| self.uses.get(name) == Some(&1))
    }

    /// The layers that the output needs, with their parameters.
    fn finish(&mut self, output: Source) -> Vec<(NamedLayer, Vec<Vec<f32>>)> {
        let mut needed = vec![false; self.layers.len()];
        if let Some(at) = output {
            needed[at] = true;
        }
        for at in (0..self.layers.len()).rev().filter(|&at| Some(at) <= output) {
            if needed[at] {
                self.layers[at].inputs.iter().flatten().for_each(|&input| needed[input] = true);
            }
        }
        let names: Vec<String> = self.layers.iter().map(|made| made.name.clone()).collect();
        let mut before: Source = None;
        let mut finished = Vec::new();
        for (at, made) in std::mem::take(&mut self.layers).into_iter().enumerate().filter(|(at, _)| needed[*at]) {
            let name = |source: &Source| source.map_or_else(|| INPUT.to_owned(), |at| names[at].clone());
            let inputs = if made.inputs == [before] { vec![] } else { made.inputs.iter().map(name).collect() };
            finished.push((NamedLayer { name: made.name, layer: made.layer, inputs }, made.parameters));
            before = Some(at);
        }
        finished
    }
}

/// Operators that become layers, beside those that [`interpret`] knows.
fn is_layer(operator: &str) -> bool {
    matches!(operator, "Gelu" | "Sum" | "Upsample")
}

/// Sizes with question marks for those that are open.
fn shown(dims: &[Option<usize>]) -> String {
    let size = |size: &Option<usize>| size.map_or_else(|| "?".to_owned(), |size| size.to_string());
    format!("({})", dims.iter().map(size).collect::<Vec<_>>().join(", "))
}
