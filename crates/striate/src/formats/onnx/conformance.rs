//! The ONNX project's own tests of operators, as `scripts/onnx_node_tests.py` writes them: each is run by `interpret`, and
//! where it is a piece of a network, imported and run as one as well.

use super::node::Problem;
use super::proto::{ModelProto, TensorProto};
use super::read::Graph;
use super::tensor::{Tensor, Values};
use super::{ImportOptions, OnnxImportError, import, interpret};
use ndarray::Array4;
use prost::Message;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Operators that must pass every test.
const NAMED: &[&str] = &[
    "Conv",
    "ConvTranspose",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "LRN",
    "BatchNormalization",
    "Gemm",
    "MatMul",
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Relu",
    "LeakyRelu",
    "PRelu",
    "Elu",
    "Selu",
    "Sigmoid",
    "HardSigmoid",
    "HardSwish",
    "Tanh",
    "Softmax",
    "LogSoftmax",
    "Clip",
    "Dropout",
    "Flatten",
    "Reshape",
    "Squeeze",
    "Unsqueeze",
    "Transpose",
    "Concat",
    "Split",
    "Slice",
    "Pad",
    "Identity",
    "Constant",
    "Cast",
    "Shape",
    "Gather",
    "ReduceMean",
    "Resize",
    "QuantizeLinear",
    "DequantizeLinear",
    "QLinearConv",
];

#[derive(Debug, PartialEq)]
enum Outcome {
    Passed,
    NotSupported(String),
    Failed(String),
}

fn read(path: &Path) -> Option<Vec<u8>> {
    std::fs::read(path).ok()
}

/// Tensors `kind_0.pb`, `kind_1.pb`, ...; `Err` where one has numbers of a type that is not known.
fn tensors(folder: &Path, kind: &str) -> Vec<(TensorProto, Result<Tensor, Problem>)> {
    let path = |i: usize| folder.join(format!("{kind}_{i}.pb"));
    (0..)
        .map_while(|i| read(&path(i)))
        .map(|bytes| {
            let proto = TensorProto::decode(bytes.as_slice()).unwrap();
            let tensor = Tensor::read(&proto, None);
            (proto, tensor)
        })
        .collect()
}

fn problem(problem: Problem) -> Outcome {
    match problem {
        Problem::Unsupported(reason) => Outcome::NotSupported(reason),
        Problem::Invalid(reason) => Outcome::Failed(reason),
    }
}

fn close(found: f32, expected: f32, (relative, absolute): (f32, f32)) -> bool {
    found == expected
        || found.is_nan() && expected.is_nan()
        || (found - expected).abs() <= absolute + relative * expected.abs()
}

fn same(found: &Tensor, expected: &Tensor, tolerance: (f32, f32)) -> Result<(), String> {
    if (found.element, found.dims()) != (expected.element, expected.dims()) {
        return Err(format!(
            "{} of {:?}, expected {} of {:?}",
            found.element,
            found.dims(),
            expected.element,
            expected.dims()
        ));
    }
    let differs = match (&found.values, &expected.values) {
        (Values::Float(a), Values::Float(b)) => a
            .iter()
            .zip(b)
            .position(|(&a, &b)| !close(a, b, tolerance))
            .map(|i| format!("{:?}, expected {:?}", a.iter().nth(i), b.iter().nth(i))),
        (Values::Int(a), Values::Int(b)) => a
            .iter()
            .zip(b)
            .position(|(a, b)| a != b)
            .map(|i| format!("{:?}, expected {:?}", a.iter().nth(i), b.iter().nth(i))),
        (Values::Text(a), Values::Text(b)) => (a != b).then(|| format!("{a:?}, expected {b:?}")),
        _ => Some("another type".into()),
    };
    differs.map_or(Ok(()), Err)
}

/// The graph, node after node.
fn interpreted(folder: &Path, graph: &Graph, tolerance: (f32, f32)) -> Outcome {
    let mut values: HashMap<String, Tensor> = HashMap::new();
    for (input, (_, tensor)) in graph.inputs.iter().zip(tensors(folder, "input")) {
        match tensor {
            Ok(tensor) => values.insert(input.name.clone(), tensor),
            Err(error) => return problem(error),
        };
    }
    for node in &graph.nodes {
        let mut inputs = Vec::new();
        for name in &node.inputs {
            if !name.is_empty() && !values.contains_key(name) {
                match graph.constant(name) {
                    Some(Ok(tensor)) => drop(values.insert(name.clone(), tensor)),
                    Some(Err(error)) => return problem(error),
                    None => return Outcome::NotSupported("an input that is no tensor".into()),
                }
            }
            inputs.push(name.clone());
        }
        let inputs: Vec<Option<&Tensor>> = inputs.iter().map(|name| values.get(name)).collect();
        match interpret::run(node, &inputs) {
            Ok(outputs) => {
                for (name, tensor) in node.outputs.iter().zip(outputs) {
                    values.insert(name.clone(), tensor);
                }
            }
            Err(error) => return problem(error),
        }
    }
    for (name, (_, expected)) in graph.outputs.iter().zip(tensors(folder, "output")) {
        let expected = match expected {
            Ok(expected) => expected,
            Err(error) => return problem(error),
        };
        let Some(found) = values.get(name) else { return Outcome::Failed(format!("no output {name}")) };
        if let Err(difference) = same(found, &expected, tolerance) {
            return Outcome::Failed(format!("{name}: {difference}"));
        }
    }
    Outcome::Passed
}

/// The graph as a network whose other inputs are constants.
fn imported(folder: &Path, bytes: &[u8], tolerance: (f32, f32)) -> Outcome {
    let mut model = ModelProto::decode(bytes).unwrap();
    let graph = model.graph.as_mut().unwrap();
    // What ends in softmax gives logits here.
    if graph.node.iter().any(|node| node.op_type == "Softmax") {
        return Outcome::NotSupported("a softmax".into());
    }
    let inputs = tensors(folder, "input");
    let names: Vec<String> = graph.input.iter().map(|input| input.name.clone()).collect();
    for (name, (mut proto, _)) in
        names.into_iter().zip(&inputs).skip(1).map(|(name, (proto, tensor))| (name, (proto.clone(), tensor)))
    {
        proto.name = name;
        graph.initializer.push(proto);
    }
    let (Some((_, Ok(x))), Some((_, Ok(expected)))) = (inputs.first(), tensors(folder, "output").into_iter().next())
    else {
        return Outcome::NotSupported("other numbers than floats".into());
    };
    let model = match import::model(model.encode_to_vec(), "test", None, ImportOptions::default()) {
        Ok(model) => model,
        Err(OnnxImportError::Nodes { problems, .. }) => return Outcome::NotSupported(problems[0].reason.clone()),
        Err(error) => return Outcome::NotSupported(error.to_string()),
    };
    let shape = model.network.input();
    let batch = x.dims().first().copied().unwrap_or(0);
    let Ok(x) = Array4::from_shape_vec((batch, shape.channels, shape.height, shape.width), x.to_floats().unwrap())
    else {
        return Outcome::NotSupported("an input with its channels last".into());
    };
    if x.iter().any(|x| !x.is_finite()) {
        return Outcome::NotSupported("an input that is not finite".into());
    }
    let found = match model.network.predict(x.view()) {
        Ok(found) => found,
        Err(error) => return Outcome::Failed(error.to_string()),
    };
    let expected = expected.to_floats().unwrap();
    let largest = expected.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    // Sums of other orders: relative to the largest number.
    let tolerance = (tolerance.0, tolerance.1.max(1e-5 * largest));
    match found.iter().zip(&expected).position(|(&a, &b)| !close(a, b, tolerance)) {
        _ if found.len() != expected.len() => {
            Outcome::Failed(format!("{} numbers, expected {}", found.len(), expected.len()))
        }
        Some(at) => Outcome::Failed(format!("{:?}, expected {}", found.iter().nth(at), expected[at])),
        None => Outcome::Passed,
    }
}

#[test]
#[ignore = "needs STRIATE_ONNX_TESTS, a directory that scripts/onnx_node_tests.py has written"]
fn onnx_conformance() {
    let directory = std::env::var("STRIATE_ONNX_TESTS").expect("STRIATE_ONNX_TESTS names the directory of the tests");
    let mut folders: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    // Passed, not supported, failed; by the interpreter and as networks.
    let mut counts: BTreeMap<String, [usize; 6]> = BTreeMap::new();
    let mut lines = Vec::new();
    for folder in folders {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let bytes = read(&folder.join("model.onnx")).unwrap();
        let text = std::fs::read_to_string(folder.join("tolerance.txt")).unwrap();
        let numbers: Vec<f32> = text.split_whitespace().map(|n| n.parse().unwrap()).collect();
        let tolerance = (numbers[0], numbers[1]);
        let proto = ModelProto::decode(bytes.as_slice()).unwrap();
        let nodes = &proto.graph.as_ref().unwrap().node;
        let operator = match nodes.as_slice() {
            [node] => node.op_type.clone(),
            _ => "(several)".to_owned(),
        };
        let outcome = match Graph::read(bytes.clone(), &name, None) {
            Ok(graph) => interpreted(&folder, &graph, tolerance),
            Err(error) => Outcome::NotSupported(error.to_string()),
        };
        let is_named = NAMED.contains(&operator.as_str());
        let as_network =
            if is_named { imported(&folder, &bytes, tolerance) } else { Outcome::NotSupported(String::new()) };
        let count = counts.entry(operator.clone()).or_default();
        for (at, outcome) in [(0, &outcome), (3, &as_network)] {
            let (column, reason) = match outcome {
                Outcome::Passed => (0, None),
                Outcome::NotSupported(reason) => (1, (at == 0 && is_named).then_some(reason)),
                Outcome::Failed(reason) => (2, Some(reason)),
            };
            count[at + column] += 1;
            if let Some(reason) = reason {
                let way = if at == 0 { "" } else { " as a network" };
                let what = if column == 1 { "not supported" } else { "FAILED" };
                lines.push(format!("{operator} {name}{way}: {what}: {reason}"));
            }
        }
    }
    println!(
        "{:24} {:>7} {:>14} {:>7}   as networks: {:>7} {:>7}",
        "operator", "passed", "not supported", "failed", "passed", "failed"
    );
    let mut unknown = 0;
    for (operator, count) in &counts {
        if count[0] + count[2] + count[3] + count[5] == 0 && !NAMED.contains(&operator.as_str()) {
            unknown += count[1];
            continue;
        }
        println!(
            "{operator:24} {:7} {:14} {:7}                {:7} {:7}",
            count[0], count[1], count[2], count[3], count[5]
        );
    }
    println!("and {unknown} tests of operators that are not supported at all");
    lines.iter().for_each(|line| println!("{line}"));
    let failed: usize = counts.values().map(|count| count[2] + count[5]).sum();
    // Which numbers are dropped is random: no two runtimes drop the same.
    let is_random = |line: &&String| line.starts_with("Dropout test_training_dropout");
    let missing =
        lines.iter().filter(|line| line.contains(": not supported: ")).filter(|line| !is_random(line)).count();
    println!("failed: {failed}; tests of the named operators that are not supported: {missing}");
    assert_eq!((failed, missing), (0, 0));
}
