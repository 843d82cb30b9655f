//! Small graphs made here, and files that mean harm.

use super::*;
use crate::formats::onnx::load_onnx;
use crate::formats::onnx::proto::{
    AttributeProto, AttributeType, Dimension, DimensionValue, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    StringStringEntryProto, TensorProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};
use ndarray::{Array4, array};
use prost::Message;

fn value(name: &str, dims: &[i64]) -> ValueInfoProto {
    let size = |&n: &i64| Dimension {
        value: Some(if n == 0 { DimensionValue::Param("N".into()) } else { DimensionValue::Value(n) }),
    };
    let shape = TensorShapeProto { dim: dims.iter().map(size).collect() };
    let tensor_type = TensorTypeProto { elem_type: 1, shape: Some(shape) };
    ValueInfoProto { name: name.into(), r#type: Some(TypeProto { tensor_type: Some(tensor_type) }) }
}

fn node(operator: &str, name: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let names = |list: &[&str]| list.iter().map(|name| name.to_string()).collect();
    NodeProto {
        name: name.into(),
        op_type: operator.into(),
        input: names(inputs),
        output: names(outputs),
        ..NodeProto::default()
    }
}

fn with_int(mut node: NodeProto, name: &str, i: i64) -> NodeProto {
    let r#type = AttributeType::Int.into();
    node.attribute.push(AttributeProto { name: name.into(), i: Some(i), r#type, ..AttributeProto::default() });
    node
}

fn with_ints(mut node: NodeProto, name: &str, ints: &[i64]) -> NodeProto {
    let r#type = AttributeType::Ints.into();
    node.attribute.push(AttributeProto { name: name.into(), ints: ints.to_vec(), r#type, ..AttributeProto::default() });
    node
}

fn floats(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: 1,
        float_data: values.to_vec(),
        ..TensorProto::default()
    }
}

fn ints(name: &str, values: &[i64]) -> TensorProto {
    let dims = vec![values.len() as i64];
    TensorProto { name: name.into(), dims, data_type: 7, int64_data: values.to_vec(), ..TensorProto::default() }
}

/// A file of these nodes from `x` to `y`, as operator set 17.
fn file(input: &[i64], nodes: Vec<NodeProto>, initializer: Vec<TensorProto>) -> Vec<u8> {
    let graph = GraphProto {
        node: nodes,
        name: "test".into(),
        initializer,
        input: vec![value("x", input)],
        output: vec![value("y", &[])],
        ..GraphProto::default()
    };
    let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: 17 }];
    ModelProto { ir_version: 8, graph: Some(graph), opset_import, ..ModelProto::default() }.encode_to_vec()
}

fn read(bytes: Vec<u8>) -> Result<ModelFile, OnnxImportError> {
    model(bytes, "test.onnx", None, ImportOptions::default())
}

fn malformed(bytes: Vec<u8>) -> String {
    match read(bytes) {
        Err(OnnxImportError::Malformed { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

fn problems(bytes: Vec<u8>) -> Vec<NodeProblem> {
    match read(bytes) {
        Err(OnnxImportError::Nodes { problems, .. }) => problems,
        other => panic!("{other:?}"),
    }
}

fn layers(model: &ModelFile) -> Vec<&str> {
    model.network.description().layers.iter().map(|named| named.layer.rule().kind()).collect()
}

#[test]
fn shape_arithmetic_folds_and_views_cost_nothing() {
    // What x.view(x.size(0), -1) becomes, then a linear layer as MatMul and Add.
    let nodes = vec![
        node("Relu", "relu", &["x"], &["a"]),
        node("Shape", "shape", &["a"], &["s"]),
        with_int(node("Gather", "gather", &["s", "zero"], &["n"]), "axis", 0),
        node("Unsqueeze", "unsqueeze", &["n", "first"], &["n1"]),
        with_int(node("Concat", "concat", &["n1", "rest"], &["to"]), "axis", 0),
        node("Reshape", "flat", &["a", "to"], &["b"]),
        node("MatMul", "matmul", &["b", "w"], &["c"]),
        node("Add", "add", &["c", "bias"], &["y"]),
    ];
    let zero = TensorProto { dims: vec![], ..ints("zero", &[0]) };
    let w = floats("w", &[4, 2], &[1., 0., 0., 1., 1., 0., 0., 1.]);
    let constants = vec![zero, ints("first", &[0]), ints("rest", &[-1]), w, floats("bias", &[2], &[10., 20.])];
    let model = read(file(&[0, 1, 2, 2], nodes, constants)).unwrap();
    assert_eq!(layers(&model), ["ReLU", "Affine"]);
    let y = model.network.predict(array![[[[1., 2.], [3., -4.]]]].view()).unwrap();
    assert_eq!(y, array![[14., 22.]]);
    assert_eq!(model.class_names, ["0", "1"]);
}

#[test]
fn channel_shuffle_and_channels_last() {
    let nodes = vec![
        with_ints(node("Transpose", "nchw", &["x"], &["a"]), "perm", &[0, 3, 1, 2]),
        node("Reshape", "groups", &["a", "apart"], &["b"]),
        with_ints(node("Transpose", "shuffle", &["b"], &["c"]), "perm", &[0, 2, 1, 3, 4]),
        node("Reshape", "together", &["c", "again"], &["y"]),
    ];
    let constants = vec![ints("apart", &[-1, 2, 3, 1, 1]), ints("again", &[-1, 6, 1, 1])];
    // The input is (N, H, W, C); the network's is (C, H, W).
    let model = read(file(&[0, 1, 1, 6], nodes, constants)).unwrap();
    assert_eq!(model.network.input(), Shape::new(6, 1, 1));
    let x = Array4::from_shape_fn((1, 6, 1, 1), |(_, c, _, _)| c as f32);
    assert_eq!(model.network.predict(x.view()).unwrap(), array![[0., 3., 1., 4., 2., 5.]]);
}

#[test]
fn an_imported_network_can_be_trained() {
    let nodes = vec![
        node("Conv", "conv", &["x", "w"], &["a"]),
        node("Sigmoid", "gate", &["a"], &["g"]),
        node("Mul", "swish", &["a", "g"], &["b"]),
        node("GlobalAveragePool", "pool", &["b"], &["p"]),
        node("Sigmoid", "squeeze", &["p"], &["e"]),
        node("Mul", "excite", &["b", "e"], &["c"]),
        node("Flatten", "flatten", &["c"], &["d"]),
        with_int(node("Gemm", "fc", &["d", "m", "k"], &["y"]), "transB", 1),
    ];
    let numbers = |n: usize| (0..n).map(|i| (i as f32 * 0.7).sin() * 0.5).collect::<Vec<f32>>();
    let constants = vec![
        floats("w", &[3, 1, 3, 3], &numbers(27)),
        floats("m", &[2, 12], &numbers(24)),
        floats("k", &[2], &[0., 0.]),
    ];
    let mut model = read(file(&[0, 1, 4, 4], nodes, constants)).unwrap();
    assert_eq!(layers(&model), ["Convolution", "SiLU", "GlobalAveragePooling", "Sigmoid", "Product", "Affine"]);
    let x =
        Array4::from_shape_fn((8, 1, 4, 4), |(n, _, i, j)| if (i < 2) == (n % 2 == 0) { 1.0 } else { j as f32 * 0.1 });
    let labels: Vec<usize> = (0..8).map(|n| n % 2).collect();
    let loss = |network: &Network| network.loss(x.view(), &labels).unwrap();
    let before = loss(&model.network);
    for _ in 0..100 {
        let gradients = model.network.gradient(x.view(), &labels).unwrap();
        let parameters = model.network.parameters_mut().as_mut_slice();
        parameters.iter_mut().zip(gradients.as_slice()).for_each(|(p, g)| *p -= 0.5 * g);
    }
    assert!(loss(&model.network) < 0.9 * before, "{before} to {}", loss(&model.network));
}

#[test]
fn everything_unsupported_is_listed_at_once() {
    let nodes = vec![
        node("Relu", "relu", &["x"], &["a"]),
        node("Det", "first", &["a"], &["b"]),
        node("Relu", "between", &["b"], &["c"]),
        NodeProto { domain: "com.example".into(), ..node("Fancy", "second", &["a"], &["d"]) },
        with_ints(node("Transpose", "third", &["a"], &["e"]), "perm", &[1, 0, 2, 3]),
        node("Sum", "sum", &["c", "d", "e"], &["y"]),
    ];
    let bytes = file(&[0, 1, 2, 2], nodes, vec![]);
    let found: Vec<(String, String)> = problems(bytes.clone()).into_iter().map(|p| (p.node, p.operator)).collect();
    let expected = [("first", "Det"), ("second", "com.example.Fancy"), ("third", "Transpose")];
    assert_eq!(found, expected.map(|(node, operator)| (node.to_owned(), operator.to_owned())));
    let text = read(bytes).unwrap_err().to_string();
    assert!(
        text.contains("3 nodes") && text.contains("Det (first)") && text.contains("com.example.Fancy (second)"),
        "{text}"
    );
}

#[test]
fn damaged_files_are_refused() {
    let w = floats("w", &[1, 1, 1, 1], &[2.0]);
    let whole = file(&[0, 1, 2, 2], vec![node("Conv", "conv", &["x", "w"], &["y"])], vec![w]);
    assert!(read(whole.clone()).is_ok());
    for length in 0..whole.len() {
        // Some beginnings are whole messages with less in them; none may panic or be a network.
        assert!(read(whole[..length].to_vec()).is_err(), "{length} bytes");
    }
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            let _ = read(bytes);
        }
    }
    assert!(malformed(b"PK\x03\x04 no ONNX at all".to_vec()).contains("no ONNX file"));
    assert!(malformed(Vec::new()).contains("no graph"));
}

#[test]
fn sizes_beyond_memory_are_refused() {
    let conv = || vec![node("Conv", "conv", &["x", "w"], &["y"])];
    for dims in [vec![1 << 60], vec![1 << 30, 1 << 30], vec![i64::MAX; 4], vec![-1, 1, 1, 1]] {
        let w = TensorProto { dims: dims.clone(), ..floats("w", &[], &[1.0]) };
        let found = problems(file(&[0, 1, 2, 2], conv(), vec![w]));
        assert!(found[0].reason.contains("\"w\""), "{dims:?}: {found:?}");
    }
    // Raw bytes that are not as many as the shape asks for.
    let raw = TensorProto { float_data: vec![], raw_data: vec![0; 12].into(), ..floats("w", &[1 << 33], &[]) };
    assert!(problems(file(&[0, 1, 2, 2], conv(), vec![raw]))[0].reason.contains("12"));
    // Constants that would be computed.
    let huge = vec![node("ConstantOfShape", "huge", &["size"], &["c"]), node("Add", "add", &["x", "c"], &["y"])];
    let found = problems(file(&[0, 1, 2, 2], huge, vec![ints("size", &[1 << 20, 1 << 20])]));
    assert!(found[0].node == "huge" && found[0].reason.contains("1048576"), "{found:?}");
    // Ever larger sums of constants: the numbers that are computed in all are limited.
    let mut nodes = vec![node("ConstantOfShape", "c0", &["size"], &["c0"])];
    for i in 0..1000 {
        nodes.push(node(
            "Add",
            &format!("c{}", i + 1),
            &[&format!("c{i}"), &format!("c{i}")],
            &[&format!("c{}", i + 1)],
        ));
    }
    nodes.push(node("Add", "add", &["x", "c1000"], &["y"]));
    let found = problems(file(&[0, 1, 2, 2], nodes, vec![ints("size", &[1 << 20])]));
    assert!(found[0].reason.contains("in all"), "{:?}", found[0]);
    // An input, a window and padding that no memory holds.
    for input in [[0, 1 << 20, 1 << 20, 1 << 20], [1 << 40, 1, 1, 1]] {
        let bytes = file(&input, vec![node("Relu", "relu", &["x"], &["y"])], vec![]);
        assert!(matches!(read(bytes), Err(OnnxImportError::Interface { .. })));
    }
    let pad = vec![node("Pad", "pad", &["x", "pads"], &["y"])];
    let pads = ints("pads", &[0, 0, 1 << 40, 1 << 40, 0, 0, i64::MAX, 0]);
    assert_eq!(problems(file(&[0, 1, 2, 2], pad, vec![pads]))[0].node, "pad");
    let resize = vec![node("Resize", "resize", &["x", "", "scales"], &["y"])];
    let scales = floats("scales", &[4], &[1., 1., 1e12, 1e12]);
    assert_eq!(problems(file(&[0, 1, 2, 2], resize, vec![scales]))[0].node, "resize");
    let pool = vec![with_ints(node("MaxPool", "pool", &["x"], &["y"]), "kernel_shape", &[i64::MAX, i64::MAX])];
    assert_eq!(problems(file(&[0, 1, 2, 2], pool, vec![]))[0].node, "pool");
}

#[test]
fn circles_and_unknown_names_are_refused() {
    let circle =
        vec![node("Relu", "a", &["b"], &["a"]), node("Relu", "b", &["a"], &["b"]), node("Relu", "c", &["a"], &["y"])];
    assert!(malformed(file(&[0, 1, 2, 2], circle, vec![])).contains("circle"));
    let itself = vec![node("Add", "a", &["x", "y"], &["y"])];
    assert!(malformed(file(&[0, 1, 2, 2], itself, vec![])).contains("circle"));
    let twice = vec![node("Relu", "a", &["x"], &["y"]), node("Relu", "b", &["x"], &["y"])];
    assert!(malformed(file(&[0, 1, 2, 2], twice, vec![])).contains("already"));
    let nothing = vec![node("Relu", "a", &["x"], &["z"])];
    assert!(matches!(read(file(&[0, 1, 2, 2], nothing, vec![])), Err(OnnxImportError::Interface { .. })));
}

#[test]
fn depth_and_number_of_parts_are_limited() {
    // Graphs in attributes of nodes in graphs: the standard's fields 1 (node), 5 (attribute) and 6 (graph), ever deeper.
    let mut inner: Vec<u8> = Vec::new();
    for depth in 0..4_998 {
        let tag = [6u8, 5, 1][depth % 3] << 3 | 2;
        let mut outer = vec![tag];
        prost::encoding::encode_varint(inner.len() as u64, &mut outer);
        outer.extend(&inner);
        inner = outer;
    }
    let mut bytes = vec![7 << 3 | 2];
    prost::encoding::encode_varint(inner.len() as u64, &mut bytes);
    bytes.extend(&inner);
    assert!(read(bytes).is_err());
    // Two million empty nodes in four megabytes.
    let nodes = [1u8 << 3 | 2, 0].repeat(2 << 20);
    let mut bytes = vec![7 << 3 | 2];
    prost::encoding::encode_varint(nodes.len() as u64, &mut bytes);
    bytes.extend(&nodes);
    assert!(malformed(bytes).contains("million parts"));
}

#[test]
fn what_is_there_again_and_again_takes_no_more_time_or_memory() {
    let start = std::time::Instant::now();
    // Arrays of as many axes as they have bytes.
    let axes = TensorProto { dims: vec![1; 1 << 18], ..floats("axes", &[], &[1.0]) };
    let nodes = vec![node("Transpose", "turn", &["axes"], &["t"]), node("Add", "add", &["x", "t"], &["y"])];
    assert!(problems(file(&[0, 1, 2, 2], nodes, vec![axes]))[0].reason.contains("262144 axes; at most 64"));
    let wider = with_ints(node("Unsqueeze", "wider", &["w"], &["t"]), "axes", &(0..1 << 18).collect::<Vec<i64>>());
    let found = problems(file(
        &[0, 1, 2, 2],
        vec![wider, node("Add", "add", &["x", "t"], &["y"])],
        vec![floats("w", &[], &[1.0])],
    ));
    assert!(found[0].reason.contains("262144 axes"), "{found:?}");
    // One large constant, asked for its shape ten thousand times.
    let name = |i: usize| format!("s{i}");
    let mut nodes: Vec<NodeProto> = (0..10_000).map(|i| node("Shape", &name(i), &["large"], &[&name(i)])).collect();
    let names: Vec<String> = (0..10_000).map(name).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    nodes.push(with_int(node("Concat", "all", &names, &["c"]), "axis", 0));
    nodes.push(node("Reshape", "reshape", &["x", "c"], &["y"]));
    let large = floats("large", &[1 << 18], &[0.5; 1 << 18]);
    assert!(problems(file(&[0, 1, 2, 2], nodes, vec![large]))[0].reason.contains("in all"));
    // One array as the weights of a thousand layers.
    let chain = |operator: &str, count: usize, weights: Option<&str>| -> Vec<NodeProto> {
        let value = |i: usize| {
            if i == 0 {
                "x".into()
            } else if i == count {
                "y".into()
            } else {
                format!("v{i}")
            }
        };
        let one = |i: usize| {
            let (from, to) = (value(i), value(i + 1));
            node(operator, "same", &[from.as_str()].into_iter().chain(weights).collect::<Vec<_>>(), &[&to])
        };
        (0..count).map(one).collect()
    };
    let w = || vec![floats("w", &[512, 512, 1, 1], &[0.5; 1 << 18])];
    let found = problems(file(&[0, 512, 1, 1], chain("Conv", 1000, Some("w")), w()));
    assert!(found.len() == 1 && found[0].reason.contains("in all"), "{found:?}");
    assert_eq!(layers(&read(file(&[0, 512, 1, 1], chain("Conv", 8, Some("w")), w())).unwrap()).len(), 8);
    // As many layers of one name as there may be, and one more.
    let model = read(file(&[0, 1, 2, 2], chain("Relu", MAX_LAYERS, None), vec![])).unwrap();
    assert_eq!(model.network.description().layers[2].name, "same#3");
    assert!(problems(file(&[0, 1, 2, 2], chain("Relu", MAX_LAYERS + 1, None), vec![]))[0].reason.contains("4096"));
    // Each node with a reason of its own.
    let mut nodes: Vec<NodeProto> =
        (0..60_000).map(|i| node(&format!("Operator{i}"), "", &["x"], &[&format!("v{i}")])).collect();
    let names: Vec<String> = (0..60_000).map(|i| format!("v{i}")).collect();
    nodes.push(node("Sum", "sum", &names.iter().map(String::as_str).collect::<Vec<_>>(), &["y"]));
    let error = read(file(&[0, 1, 2, 2], nodes, vec![])).unwrap_err();
    assert!(error.to_string().contains("and 59950 more"));
    assert!(start.elapsed().as_secs() < 4, "{:?}", start.elapsed());
}

#[test]
fn numbers_in_other_files_stay_in_the_directory() {
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path().join("model");
    std::fs::create_dir(&home).unwrap();
    let secret = directory.path().join("secret.bin");
    std::fs::write(&secret, 2.0f32.to_le_bytes()).unwrap();
    std::fs::write(home.join("weights.bin"), [1.0f32.to_le_bytes(), 3.0f32.to_le_bytes()].concat()).unwrap();
    let load = |location: &str, offset: &str, length: &str| {
        let entry = |key: &str, value: &str| StringStringEntryProto { key: key.into(), value: value.into() };
        let w = TensorProto {
            float_data: vec![],
            data_location: 1,
            external_data: vec![entry("location", location), entry("offset", offset), entry("length", length)],
            ..floats("w", &[1, 1, 1, 1], &[])
        };
        let path = home.join("model.onnx");
        std::fs::write(&path, file(&[0, 1, 1, 1], vec![node("Conv", "conv", &["x", "w"], &["y"])], vec![w])).unwrap();
        match load_onnx(&path, ImportOptions::default()) {
            Ok(model) => Ok(model.network.predict(array![[[[2.0]]]].view()).unwrap()[[0, 0]]),
            Err(OnnxImportError::Nodes { problems, .. }) => Err(problems[0].reason.clone()),
            Err(error) => Err(error.to_string()),
        }
    };
    assert_eq!(load("weights.bin", "4", "4"), Ok(6.0));
    assert_eq!(load("./weights.bin", "0", "4"), Ok(2.0));
    for location in ["../secret.bin", &secret.display().to_string(), "a/../../secret.bin", ""] {
        assert!(load(location, "0", "4").unwrap_err().contains("directory"), "{location}");
    }
    for (offset, length) in [("8", "4"), ("18446744073709551615", "4"), ("0", "18446744073709551615"), ("-1", "4")] {
        assert!(load("weights.bin", offset, length).is_err(), "{offset}, {length}");
    }
    assert!(load("weights.bin", "0", "8").is_err());
    assert!(load("none.bin", "0", "4").is_err());
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&secret, home.join("link.bin")).unwrap();
        assert!(load("link.bin", "0", "4").unwrap_err().contains("directory"));
    }
    // Only the bytes, without a place where other files would be.
    assert!(read(std::fs::read(home.join("model.onnx")).unwrap()).is_err());
}

#[test]
fn what_the_input_leaves_open_can_be_said() {
    let open = || file(&[0, 3, 0, 0], vec![node("GlobalAveragePool", "pool", &["x"], &["y"])], vec![]);
    let error = read(open()).unwrap_err().to_string();
    assert!(error.contains("(?, 3, ?, ?)") && error.contains("fixed sizes"), "{error}");
    let options = |shape| ImportOptions { input: Some(shape) };
    let model = super::model(open(), "test.onnx", None, options(Shape::new(3, 8, 9))).unwrap();
    assert_eq!(model.network.input(), Shape::new(3, 8, 9));
    assert!(super::model(open(), "test.onnx", None, options(Shape::new(1, 8, 9))).is_err());
}
