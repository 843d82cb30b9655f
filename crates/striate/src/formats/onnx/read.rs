//! From the bytes of a file to its graph: nothing in it is believed before it is checked.

use super::node::{Node, Problem, invalid};
use super::proto::{self, Dimension, DimensionValue, ModelProto, StringStringEntryProto, TensorProto, ValueInfoProto};
use super::tensor::Tensor;
use super::{NodeProblem, OnnxImportError};
use prost::Message;
use prost::bytes::Bytes;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

/// The newest operator set that is known; an operator of a later one may mean something else.
const NEWEST_OPSET: i64 = 28;
/// Beyond any network that trains; a bound for what a stranger's file may ask of us.
const MOST_NODES: usize = 1 << 16;

/// What flows into a graph.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Input {
    pub(super) name: String,
    /// The standard's number of the type.
    pub(super) element: i32,
    /// Sizes by axis; `None` where the file leaves one open.
    pub(super) dims: Vec<Option<usize>>,
}

/// A graph, read but not yet understood.
#[derive(Debug)]
pub(super) struct Graph {
    pub(super) name: String,
    pub(super) nodes: Vec<Node>,
    /// Without those that have a constant of their name.
    pub(super) inputs: Vec<Input>,
    pub(super) outputs: Vec<String>,
    pub(super) metadata: HashMap<String, String>,
    pub(super) producer: String,
    constants: HashMap<String, TensorProto>,
    /// Where tensors in other files may be; `None` where there is no such place.
    directory: Option<PathBuf>,
}

impl Graph {
    /// From the bytes of a file called `name`.
    pub(super) fn read(bytes: Vec<u8>, name: &str, directory: Option<&Path>) -> Result<Self, OnnxImportError> {
        let malformed = |reason: String| OnnxImportError::Malformed { name: name.into(), reason };
        proto::check_count(&bytes).map_err(|reason| malformed(reason.into()))?;
        let model = ModelProto::decode(Bytes::from(bytes)).map_err(|error| malformed(error.to_string()))?;
        let Some(graph) = model.graph else {
            return Err(malformed("it holds no graph; is it an ONNX file?".into()));
        };
        if graph.node.len() > MOST_NODES {
            return Err(malformed(format!("it has {} nodes; at most {MOST_NODES} are allowed", graph.node.len())));
        }
        let standard = model.opset_import.iter().find(|set| matches!(set.domain.as_str(), "" | "ai.onnx"));
        let Some(opset) = standard.map(|set| set.version) else {
            return Err(malformed("it does not say which operator set it uses; is it whole?".into()));
        };
        if !(1..=NEWEST_OPSET).contains(&opset) {
            return Err(malformed(format!(
                "it uses operator set {opset}; 1 to {NEWEST_OPSET} are known: export it again with an older one, such as 17"
            )));
        }
        if let Some(sparse) = graph.sparse_initializer.first() {
            let tensor = sparse.values.as_ref().map_or("", |values| &values.name);
            return Err(malformed(format!("the tensor {tensor:?} is sparse, which is not known here")));
        }
        let mut constants = HashMap::with_capacity(graph.initializer.len());
        for tensor in graph.initializer {
            if let Some(twice) = constants.insert(tensor.name.clone(), tensor) {
                return Err(malformed(format!("two tensors are called {:?}", twice.name)));
            }
        }
        let inputs: Vec<Input> =
            graph.input.into_iter().map(input).filter(|input| !constants.contains_key(&input.name)).collect();
        let nodes: Vec<Node> = graph.node.into_iter().map(|node| Node::new(node, opset)).collect();
        check_order(&nodes, inputs.iter().map(|input| input.name.as_str()).chain(constants.keys().map(String::as_str)))
            .map_err(malformed)?;
        Ok(Self {
            name: graph.name,
            nodes,
            inputs,
            outputs: graph.output.into_iter().map(|output| output.name).collect(),
            metadata: model.metadata_props.into_iter().map(|entry| (entry.key, entry.value)).collect(),
            producer: format!("{} {}", model.producer_name, model.producer_version).trim().to_owned(),
            constants,
            directory: directory.map(Path::to_path_buf),
        })
    }

    /// A constant of the file by name, if it is one.
    pub(super) fn constant(&self, name: &str) -> Option<Result<Tensor, Problem>> {
        let tensor = self.constants.get(name)?;
        let named = |problem: Problem| match problem {
            Problem::Invalid(reason) => Problem::Invalid(format!("the tensor {name:?}: {reason}")),
            Problem::Unsupported(reason) => Problem::Unsupported(format!("the tensor {name:?}: {reason}")),
        };
        Some(self.tensor(tensor).map_err(named))
    }

    /// A constant of the file that is a single number.
    pub(super) fn number(&self, name: &str) -> Option<f32> {
        let proto = self.constants.get(name).filter(|tensor| tensor.dims.iter().all(|&size| size == 1))?;
        (proto.data_location == 0).then(|| Tensor::read(proto, None).ok()?.scalar().ok()).flatten()
    }

    fn tensor(&self, proto: &TensorProto) -> Result<Tensor, Problem> {
        match proto.data_location {
            0 => Tensor::read(proto, None),
            _ => Tensor::read(proto, Some(&external(&proto.external_data, self.directory.as_deref())?)),
        }
    }

    /// The nodes that the outputs need, in order.
    pub(super) fn needed(&self, outputs: &[String]) -> Vec<&Node> {
        let mut wanted: HashSet<&str> = outputs.iter().map(String::as_str).collect();
        let mut needed = Vec::new();
        for node in self.nodes.iter().rev() {
            if node.outputs.iter().any(|output| wanted.contains(output.as_str())) {
                wanted.extend(node.inputs.iter().map(String::as_str));
                needed.push(node);
            }
        }
        needed.reverse();
        needed
    }
}

/// Every value must be there before it is read and be made once, so that no graph runs in circles.
fn check_order<'a>(nodes: &'a [Node], given: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let mut known: HashSet<&str> = given.collect();
    for node in nodes {
        if let Some(input) = node.inputs.iter().find(|input| !input.is_empty() && !known.contains(input.as_str())) {
            return Err(format!(
                "node {:?} ({}) reads {input:?}, which nothing before it makes; nodes must come after those that they \
                 read, and never in a circle",
                node.name, node.operator
            ));
        }
        for output in node.outputs.iter().filter(|output| !output.is_empty()) {
            if !known.insert(output) {
                return Err(format!("node {:?} makes {output:?}, which is there already", node.name));
            }
        }
    }
    Ok(())
}

fn input(value: ValueInfoProto) -> Input {
    let tensor = value.r#type.and_then(|r#type| r#type.tensor_type);
    let size = |dimension: Dimension| match dimension.value {
        // Sizes below 1 are how some exporters say that they don't know.
        Some(DimensionValue::Value(n)) if n > 0 => usize::try_from(n).ok(),
        _ => None,
    };
    let element = tensor.as_ref().map_or(0, |tensor| tensor.elem_type);
    let dims =
        tensor.and_then(|tensor| tensor.shape).map_or_else(Vec::new, |shape| shape.dim.into_iter().map(size).collect());
    Input { name: value.name, element, dims }
}

/// The bytes of a tensor that is in a file beside the model: never in one outside its directory.
fn external(entries: &[StringStringEntryProto], directory: Option<&Path>) -> Result<Vec<u8>, Problem> {
    let entry = |key: &str| entries.iter().find(|entry| entry.key == key).map(|entry| entry.value.as_str());
    let number = |key: &str| match entry(key).map(str::parse::<u64>) {
        None => Ok(None),
        Some(Ok(n)) => Ok(Some(n)),
        Some(Err(_)) => {
            invalid(format!("the {key} of its numbers in another file is {:?}", entry(key).unwrap_or_default()))
        }
    };
    let location = entry("location").unwrap_or_default();
    let Some(directory) = directory else {
        return invalid(format!("its numbers are in another file, {location:?}, and only these bytes were given"));
    };
    let path = Path::new(location);
    let inside =
        !location.is_empty() && path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    let outside =
        || format!("its numbers are in {location:?}, which is not in the model's own directory; nothing else is read");
    if !inside {
        return invalid(outside());
    }
    let path = directory.join(path);
    let failed = |error: std::io::Error| Problem::Invalid(format!("its numbers are in {}: {error}", path.display()));
    // A link may lead anywhere, whatever its name looks like.
    let (real, home) = (path.canonicalize().map_err(failed)?, directory.canonicalize().map_err(failed)?);
    if !real.starts_with(&home) {
        return invalid(outside());
    }
    // Opening a FIFO would wait for ever, so look first.
    if !real.metadata().map_err(failed)?.is_file() {
        return invalid(format!("its numbers are in {}, which is no file", path.display()));
    }
    let mut file = File::open(&real).map_err(failed)?;
    let end = file.metadata().map_err(failed)?.len();
    let offset = number("offset")?.unwrap_or(0);
    let length = number("length")?.unwrap_or_else(|| end.saturating_sub(offset));
    if offset.checked_add(length).is_none_or(|asked| asked > end) {
        return invalid(format!(
            "its numbers are bytes {offset} to {} of {}, which has only {end}; copy or download it again",
            offset.saturating_add(length),
            path.display()
        ));
    }
    file.seek(SeekFrom::Start(offset)).map_err(failed)?;
    let mut bytes = Vec::new();
    let room = usize::try_from(length).ok().filter(|&length| bytes.try_reserve_exact(length).is_ok());
    if room.is_none() {
        return invalid(format!("{length} bytes of memory to hold it could not be had"));
    }
    file.take(length).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

impl NodeProblem {
    pub(super) fn new(node: &Node, problem: Problem) -> Self {
        let (Problem::Unsupported(reason) | Problem::Invalid(reason)) = problem;
        Self { node: node.name.clone(), operator: node.operator.clone(), reason }
    }
}
