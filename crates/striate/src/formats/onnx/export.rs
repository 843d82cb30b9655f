//! From a network to an ONNX graph.

use super::proto::{
    AttributeProto, AttributeType, Dimension, DimensionValue, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    StringStringEntryProto, TensorProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto, data_type,
};
use super::{OnnxError, OnnxOptions};
use crate::data::Normalization;
use crate::formats::ModelFile;
use crate::int8::{QuantizationParameters, QuantizedNetwork, QuantizedWeights};
use crate::layers::{
    AdaptivePoolingOptions, Arithmetic, ConvolutionOptions, Coordinates, Interpolation, Layer,
    LocalResponseNormOptions, Nearest, PadMode, PoolingKind, PoolingOptions, QuantizeOptions, ResizeOptions, Role,
    SliceRange,
};
use crate::network::description::Node;
use crate::network::{Network, NetworkError};
use crate::shape::{Padding, Rounding, Shape, Window};
use prost::Message;

/// The operator set that is written: all of today's runtimes know it.
const OPSET: i64 = 17;
/// The file format's version that came with it.
const IR_VERSION: i64 = 8;

/// The bytes of the model as an ONNX file; see [`super::to_onnx`].
pub(super) fn model(file: &ModelFile, options: OnnxOptions) -> Result<Vec<u8>, OnnxError> {
    let mut graph = Graph::new(&file.network)?;
    graph.quantized = file.quantized.as_ref();
    if options.preprocessing {
        graph.preprocess(&file.preprocessing.normalization, file.network.input());
    }
    graph.layers()?;
    let json = |value: serde_json::Value| value.to_string();
    let mut entries = vec![
        ("striate.classes", json(serde_json::json!(file.class_names))),
        ("striate.includes_normalization", options.preprocessing.to_string()),
    ];
    // Of a network that reads no pictures there is nothing to say.
    if file.preprocessing.check().is_ok() {
        entries.push(("striate.preprocessing", json(serde_json::json!(file.preprocessing))));
    }
    let element = if options.preprocessing { data_type::UINT8 } else { data_type::FLOAT };
    let Shape { channels, height, width } = file.network.input();
    let model = ModelProto {
        ir_version: IR_VERSION,
        producer_name: "striate".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        doc_string: String::new(),
        graph: Some(GraphProto {
            node: graph.nodes,
            name: file.network.description().name.clone(),
            initializer: graph.initializers,
            input: vec![value(super::INPUT, element, &[channels, height, width])],
            output: vec![value(super::OUTPUT, data_type::FLOAT, &[file.network.classes()])],
            ..GraphProto::default()
        }),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
        metadata_props: entries
            .into_iter()
            .map(|(key, value)| StringStringEntryProto { key: key.into(), value })
            .collect(),
        functions: Vec::new(),
    };
    Ok(model.encode_to_vec())
}

/// A graph in the making.
struct Graph<'a> {
    network: &'a Network,
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
    /// The name under which the network's input flows: after preprocessing, if that is in the graph.
    input: String,
    /// The first parameter that no layer has taken yet.
    parameter: usize,
    /// The network in bytes, if it is one: numbers are then rounded to bytes and back where it has bytes.
    quantized: Option<&'a QuantizedNetwork>,
}

impl<'a> Graph<'a> {
    fn new(network: &'a Network) -> Result<Self, OnnxError> {
        let reserved = |name: &str| name == super::INPUT || name == super::OUTPUT;
        match network.description().layers.iter().find(|named| reserved(&named.name)) {
            Some(named) => Err(OnnxError::ReservedName { name: named.name.clone() }),
            None => Ok(Self {
                network,
                nodes: Vec::new(),
                initializers: Vec::new(),
                input: super::INPUT.into(),
                parameter: 0,
                quantized: None,
            }),
        }
    }

    /// `(v / 255 - mean) / deviation`, in the order of our own arithmetic.
    fn preprocess(&mut self, normalization: &Normalization, input: Shape) {
        let cast =
            self.node("Cast", "striate.preprocess/float", &[super::INPUT], vec![int("to", data_type::FLOAT.into())]);
        let most = self.constant("striate.preprocess/255", &[], &[255.0]);
        let mut last = self.node("Div", "striate.preprocess/scaled", &[&cast, &most], vec![]);
        if *normalization != Normalization::identity() {
            let list = |values: &[f32]| -> Vec<f32> {
                if values.len() == 1 { vec![values[0]; input.channels] } else { values.to_vec() }
            };
            let shape = [input.channels, 1, 1];
            let mean = self.constant("striate.preprocess/mean", &shape, &list(&normalization.mean));
            let deviation = self.constant("striate.preprocess/deviation", &shape, &list(&normalization.deviation));
            last = self.node("Sub", "striate.preprocess/centred", &[&last, &mean], vec![]);
            last = self.node("Div", "striate.preprocess/normalised", &[&last, &deviation], vec![]);
        }
        self.input = last;
    }

    /// Every layer in order, and the logits as (N, classes).
    fn layers(&mut self) -> Result<(), OnnxError> {
        let nodes = self.network.description().nodes()?;
        let mut values: Vec<(String, Shape)> = Vec::with_capacity(nodes.len());
        let rounded = self.quantized.map(|quantized| quantized.rounded_layers()).transpose()?.unwrap_or_default();
        if let Some(quantized) = self.quantized {
            self.input = self.through_bytes(&self.input.clone(), quantized.activations()[0]);
        }
        for (i, node) in nodes.iter().enumerate() {
            let inputs: Vec<(String, Shape)> = node
                .sources
                .iter()
                .map(|source| match source {
                    crate::network::description::Source::Input => (self.input.clone(), self.network.input()),
                    crate::network::description::Source::Layer(i) => values[*i].clone(),
                })
                .collect();
            let mut name = self.layer(i, node, &inputs)?;
            if let (Some(quantized), Some(true)) = (self.quantized, rounded.get(i)) {
                name = self.through_bytes(&name, quantized.activations()[i + 1]);
            }
            values.push((name, node.output));
        }
        let (last, _) = values.last().cloned().unwrap_or((self.input.clone(), self.network.input()));
        // The last layer's own name stays; the logits get the name that callers ask for.
        self.nodes.push(NodeProto {
            input: vec![last],
            output: vec![super::OUTPUT.into()],
            name: super::OUTPUT.into(),
            op_type: "Flatten".into(),
            attribute: vec![int("axis", 1)],
            domain: String::new(),
        });
        Ok(())
    }

    /// The nodes of one layer; returns the name of its output.
    fn layer(&mut self, position: usize, node: &Node<'_>, inputs: &[(String, Shape)]) -> Result<String, OnnxError> {
        let name = node.named.name.as_str();
        let rules = node
            .named
            .layer
            .rule()
            .parameters(node.input)
            .map_err(|source| NetworkError::Layer { layer: name.into(), source })?;
        let in_bytes = self.quantized.and_then(|quantized| quantized.in_bytes(position));
        let mut parameters = Vec::with_capacity(rules.len());
        for rule in &rules {
            let parameter = match in_bytes {
                Some((weights, input)) => {
                    let axis = u8::from(matches!(node.named.layer, Layer::Affine(_)));
                    self.parameter_in_bytes(weights, input, rule.role, axis)
                }
                None => self.parameter(),
            };
            parameters.push((rule.prefix, parameter));
        }
        let x = inputs[0].0.clone();
        let named = |prefix: &str| {
            parameters.iter().find(|(p, _)| *p == prefix).map_or_else(String::new, |(_, name)| name.clone())
        };
        let join: Vec<&str> = inputs.iter().map(|(name, _)| name.as_str()).collect();
        Ok(match &node.named.layer {
            Layer::Convolution(options) => {
                let mut arguments = vec![x, named("W")];
                if options.bias {
                    arguments.push(named("b"));
                }
                let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
                self.node("Conv", name, &arguments, convolution(options))
            }
            Layer::Pooling(options) => self.pooling(name, &x, options)?,
            Layer::Affine(_) => {
                let flat = self.node("Flatten", &format!("{name}/flat"), &[&x], vec![int("axis", 1)]);
                self.node("Gemm", name, &[&flat, &named("W"), &named("b")], vec![])
            }
            Layer::Relu(_) => self.node("Relu", name, &[&x], vec![]),
            Layer::Sigmoid(_) => self.node("Sigmoid", name, &[&x], vec![]),
            Layer::LeakyRelu(options) => self.node("LeakyRelu", name, &[&x], vec![float("alpha", options.slope)]),
            Layer::Tanh(_) => self.node("Tanh", name, &[&x], vec![]),
            // Operator set 17 has no Gelu: x / 2 (1 + erf(x / sqrt 2)).
            Layer::Gelu(_) => {
                let root = self.constant(&format!("{name}/sqrt2"), &[], &[std::f32::consts::SQRT_2]);
                let one = self.constant(&format!("{name}/1"), &[], &[1.0]);
                let half = self.constant(&format!("{name}/0.5"), &[], &[0.5]);
                let scaled = self.node("Div", &format!("{name}/scaled"), &[&x, &root], vec![]);
                let erf = self.node("Erf", &format!("{name}/erf"), &[&scaled], vec![]);
                let above = self.node("Add", &format!("{name}/above"), &[&erf, &one], vec![]);
                let product = self.node("Mul", &format!("{name}/product"), &[&x, &above], vec![]);
                self.node("Mul", name, &[&product, &half], vec![])
            }
            Layer::Silu(_) => {
                let gate = self.node("Sigmoid", &format!("{name}/gate"), &[&x], vec![]);
                self.node("Mul", name, &[&x, &gate], vec![])
            }
            Layer::HardSwish(_) => self.node("HardSwish", name, &[&x], vec![]),
            Layer::Clip(options) => {
                let low = self.constant(&format!("{name}/low"), &[], &[options.low]);
                let high = self.constant(&format!("{name}/high"), &[], &[options.high]);
                self.node("Clip", name, &[&x, &low, &high], vec![])
            }
            // Only while training.
            Layer::Dropout(_) => self.node("Identity", name, &[&x], vec![]),
            Layer::BatchNorm(options) => {
                let arguments = [x, named("gamma"), named("beta"), named("mean"), named("variance")];
                let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
                self.node("BatchNormalization", name, &arguments, vec![float("epsilon", options.epsilon)])
            }
            Layer::LocalResponseNorm(options) => self.node("LRN", name, &[&x], local_response_norm(name, options)?),
            Layer::AdaptivePooling(options) => self.adaptive_pooling(name, &x, node.input, options)?,
            Layer::Add(_) => self.node("Add", name, &join, vec![]),
            Layer::Concat(_) => self.node("Concat", name, &join, vec![int("axis", 1)]),
            Layer::Flatten(_) => {
                // Four axes throughout, as our shapes have: the next layer may be any.
                let sizes = [0, node.output.channels as i64, 1, 1];
                let sizes = self.integers(&format!("{name}/shape"), &sizes);
                self.node("Reshape", name, &[&x, &sizes], vec![])
            }
            Layer::Softmax(_) => self.node("Softmax", name, &[&x], vec![int("axis", 1)]),
            Layer::LogSoftmax(_) => self.node("LogSoftmax", name, &[&x], vec![int("axis", 1)]),
            Layer::Elu(options) => self.node("Elu", name, &[&x], vec![float("alpha", options.alpha)]),
            Layer::Selu(options) => {
                self.node("Selu", name, &[&x], vec![float("alpha", options.alpha), float("gamma", options.gamma)])
            }
            Layer::HardSigmoid(options) => {
                self.node("HardSigmoid", name, &[&x], vec![float("alpha", options.alpha), float("beta", options.beta)])
            }
            Layer::Erf(_) => self.node("Erf", name, &[&x], vec![]),
            Layer::Linear(options) => {
                let factor = self.constant(&format!("{name}/factor"), &[], &[options.factor]);
                let shift = self.constant(&format!("{name}/shift"), &[], &[options.shift]);
                match (options.factor, options.shift) {
                    (1.0, _) => self.node("Add", name, &[&x, &shift], vec![]),
                    (_, 0.0) => self.node("Mul", name, &[&x, &factor], vec![]),
                    _ => {
                        let scaled = self.node("Mul", &format!("{name}/scaled"), &[&x, &factor], vec![]);
                        self.node("Add", name, &[&scaled, &shift], vec![])
                    }
                }
            }
            Layer::Quantize(options) => self.quantize(name, &x, options)?,
            Layer::PRelu(options) => {
                let x = self.four_axes(&format!("{name}/map"), &x, node.input);
                let slopes = if options.shared { 1 } else { node.input.channels };
                let shape = self.integers(&format!("{name}/slopes"), &[slopes as i64, 1, 1]);
                let slope = self.node("Reshape", &format!("{name}/slope"), &[&named("slope"), &shape], vec![]);
                self.node("PRelu", name, &[&x, &slope], vec![])
            }
            Layer::Scale(options) => {
                let x = self.four_axes(&format!("{name}/map"), &x, node.input);
                match (options.factor, options.shift) {
                    (Some(_), None) => self.node("Mul", name, &[&x, &named("gamma")], vec![]),
                    (None, Some(_)) => self.node("Add", name, &[&x, &named("beta")], vec![]),
                    (Some(_), Some(_)) => {
                        let scaled = self.node("Mul", &format!("{name}/scaled"), &[&x, &named("gamma")], vec![]);
                        self.node("Add", name, &[&scaled, &named("beta")], vec![])
                    }
                    (None, None) => self.node("Identity", name, &[&x], vec![]),
                }
            }
            Layer::Arithmetic(options) => {
                let operator = match options.operation {
                    Arithmetic::Add => "Add",
                    Arithmetic::Subtract => "Sub",
                    Arithmetic::Multiply => "Mul",
                    Arithmetic::Divide => "Div",
                };
                let a = self.four_axes(&format!("{name}/a"), &inputs[0].0, inputs[0].1);
                let b = self.four_axes(&format!("{name}/b"), &inputs[1].0, inputs[1].1);
                self.node(operator, name, &[&a, &b], vec![])
            }
            Layer::Reshape(_) => self.four_axes(name, &x, node.output),
            Layer::Transpose(options) => {
                let sizes: Vec<i64> = std::iter::once(0).chain(options.sizes.iter().map(|&n| n as i64)).collect();
                let sizes = self.integers(&format!("{name}/sizes"), &sizes);
                let apart = self.node("Reshape", &format!("{name}/apart"), &[&x, &sizes], vec![]);
                let order: Vec<usize> = std::iter::once(0).chain(options.order.iter().map(|axis| axis + 1)).collect();
                let turned = self.node("Transpose", &format!("{name}/turned"), &[&apart], vec![ints("perm", &order)]);
                self.four_axes(name, &turned, node.output)
            }
            Layer::Slice(options) => {
                let x = self.four_axes(&format!("{name}/map"), &x, node.input);
                let ranges = [options.channels, options.rows, options.columns];
                let list = |f: &dyn Fn(&SliceRange) -> usize| ranges.iter().map(|r| f(r) as i64).collect::<Vec<_>>();
                let starts = self.integers(&format!("{name}/starts"), &list(&|r| r.start));
                let end = |r: &SliceRange| r.start + r.count.saturating_sub(1) * r.step + 1;
                let ends = self.integers(&format!("{name}/ends"), &list(&end));
                let axes = self.integers(&format!("{name}/axes"), &[1, 2, 3]);
                let steps = self.integers(&format!("{name}/steps"), &list(&|r| r.step));
                self.node("Slice", name, &[&x, &starts, &ends, &axes, &steps], vec![])
            }
            Layer::Pad(options) => {
                let x = self.four_axes(&format!("{name}/map"), &x, node.input);
                let sides = [(0, 0), options.channels, options.rows, options.columns];
                let before = sides.iter().map(|side| side.0 as i64);
                let pads: Vec<i64> = before.chain(sides.iter().map(|side| side.1 as i64)).collect();
                let pads = self.integers(&format!("{name}/pads"), &pads);
                match options.mode {
                    PadMode::Constant { value } => {
                        let value = self.constant(&format!("{name}/value"), &[], &[value]);
                        self.node("Pad", name, &[&x, &pads, &value], vec![text("mode", "constant")])
                    }
                    PadMode::Edge => self.node("Pad", name, &[&x, &pads], vec![text("mode", "edge")]),
                    PadMode::Reflect => self.node("Pad", name, &[&x, &pads], vec![text("mode", "reflect")]),
                    PadMode::Wrap => {
                        let reason = "operator set 17 has no padding that wraps around".into();
                        return Err(OnnxError::Unsupported { layer: name.into(), reason });
                    }
                }
            }
            Layer::Resize(options) => self.resize(name, &x, node.input, options)?,
            Layer::TransposedConvolution(options) => {
                let Window { kernel, stride, dilation, padding, .. } = options.window;
                // What the output has beyond the least from which the other way gives the input's size.
                let least = |input: usize, kernel: usize, stride: usize, dilation: usize, sides: usize| {
                    ((input - 1) * stride + (kernel - 1) * dilation + 1).saturating_sub(sides)
                };
                let Shape { height, width, .. } = node.input;
                let rows = least(height, kernel.0, stride.0, dilation.0, padding.top + padding.bottom);
                let columns = least(width, kernel.1, stride.1, dilation.1, padding.left + padding.right);
                let extra = (options.output.0.saturating_sub(rows), options.output.1.saturating_sub(columns));
                let attributes = vec![
                    pair("kernel_shape", kernel),
                    pair("strides", stride),
                    pads(padding),
                    pair("dilations", dilation),
                    int("group", options.groups as i64),
                    pair("output_padding", extra),
                ];
                self.node("ConvTranspose", name, &[&x, &named("W"), &named("b")], attributes)
            }
        })
    }

    /// The same numbers with four axes, as our shapes have.
    fn four_axes(&mut self, name: &str, x: &str, shape: Shape) -> String {
        let sizes = [0, shape.channels as i64, shape.height as i64, shape.width as i64];
        let sizes = self.integers(&format!("{name}/shape"), &sizes);
        self.node("Reshape", name, &[x, &sizes], vec![])
    }

    /// To 8 bits and back.
    fn quantize(&mut self, name: &str, x: &str, options: &QuantizeOptions) -> Result<String, OnnxError> {
        let data_type = match (options.low, options.high) {
            (0.0, 255.0) => data_type::UINT8,
            (-128.0, 127.0) => data_type::INT8,
            (low, high) => {
                let reason = format!("operator set 17 has no whole numbers from {low} to {high}");
                return Err(OnnxError::Unsupported { layer: name.into(), reason });
            }
        };
        let scale = self.constant(&format!("{name}/scale"), &[], &[options.scale]);
        let byte = vec![options.zero_point as i64 as u8];
        let zero = self.initializer(&format!("{name}/zero"), data_type, vec![], byte);
        let whole = self.node("QuantizeLinear", &format!("{name}/whole"), &[x, &scale, &zero], vec![]);
        Ok(self.node("DequantizeLinear", name, &[&whole, &scale, &zero], vec![]))
    }

    fn resize(&mut self, name: &str, x: &str, input: Shape, options: &ResizeOptions) -> Result<String, OnnxError> {
        if options.antialias {
            let reason = "operator set 17 has no means over fewer pixels (antialias)".into();
            return Err(OnnxError::Unsupported { layer: name.into(), reason });
        }
        let x = self.four_axes(&format!("{name}/map"), x, input);
        let none = self.constant(&format!("{name}/region"), &[0], &[]);
        let (mode, more) = match options.interpolation {
            Interpolation::Nearest(nearest) => {
                let mode = match nearest {
                    Nearest::PreferFloor => "round_prefer_floor",
                    Nearest::PreferCeil => "round_prefer_ceil",
                    Nearest::Floor => "floor",
                    Nearest::Ceil => "ceil",
                };
                ("nearest", text("nearest_mode", mode))
            }
            Interpolation::Linear => ("linear", int("exclude_outside", 0)),
            Interpolation::Cubic(a) => ("cubic", float("cubic_coeff_a", a as f32)),
        };
        let coordinates = match options.coordinates {
            Coordinates::HalfPixel => "half_pixel",
            Coordinates::PytorchHalfPixel => "pytorch_half_pixel",
            Coordinates::AlignCorners => "align_corners",
            Coordinates::Asymmetric => "asymmetric",
            Coordinates::HalfPixelSymmetric | Coordinates::Crop => {
                let reason = format!("operator set 17 has no such coordinates ({:?})", options.coordinates);
                return Err(OnnxError::Unsupported { layer: name.into(), reason });
            }
        };
        let mut attributes = vec![text("mode", mode), text("coordinate_transformation_mode", coordinates), more];
        if options.exclude_outside {
            attributes.retain(|attribute| attribute.name != "exclude_outside");
            attributes.push(int("exclude_outside", 1));
        }
        // The batch is open, so that sizes could not name it: scales do.
        let scales = [1.0, 1.0, options.scale.0 as f32, options.scale.1 as f32];
        let scales = self.constant(&format!("{name}/scales"), &[4], &scales);
        Ok(self.node("Resize", name, &[&x, &none, &scales], attributes))
    }

    fn pooling(&mut self, name: &str, x: &str, options: &PoolingOptions) -> Result<String, OnnxError> {
        let Window { kernel, stride, padding, dilation, rounding } = options.window;
        let mut attributes = vec![pair("kernel_shape", kernel), pair("strides", stride), pads(padding)];
        if rounding == Rounding::Ceil {
            attributes.push(int("ceil_mode", 1));
        }
        match options.pooling {
            PoolingKind::Max => {
                attributes.push(pair("dilations", dilation));
                Ok(self.node("MaxPool", name, &[x], attributes))
            }
            PoolingKind::Average if dilation != (1, 1) => {
                let reason = "operator set 17 has no average pooling with dilation; use dilation 1".into();
                Err(OnnxError::Unsupported { layer: name.into(), reason })
            }
            PoolingKind::Average => {
                attributes.push(int("count_include_pad", options.count_padding.into()));
                Ok(self.node("AveragePool", name, &[x], attributes))
            }
        }
    }

    /// Regions of equal size are plain windows; others have no operator.
    fn adaptive_pooling(
        &mut self,
        name: &str,
        x: &str,
        input: Shape,
        options: &AdaptivePoolingOptions,
    ) -> Result<String, OnnxError> {
        let (rows, columns) = options.output;
        if options.output == (1, 1) {
            return Ok(self.node("GlobalAveragePool", name, &[x], vec![]));
        }
        if !input.height.is_multiple_of(rows) || !input.width.is_multiple_of(columns) {
            return Err(OnnxError::Unsupported {
                layer: name.into(),
                reason: format!(
                    "adaptive pooling of {}x{} to {rows}x{columns} has regions of several sizes, which ONNX has no \
                     operator for; choose an input size that divides evenly",
                    input.height, input.width
                ),
            });
        }
        let region = (input.height / rows, input.width / columns);
        Ok(self.node("AveragePool", name, &[x], vec![pair("kernel_shape", region), pair("strides", region)]))
    }

    /// One node whose output has the node's own name.
    fn node(&mut self, operator: &str, name: &str, inputs: &[&str], attribute: Vec<AttributeProto>) -> String {
        self.nodes.push(NodeProto {
            input: inputs.iter().map(|&input| input.to_string()).collect(),
            output: vec![name.into()],
            name: name.into(),
            op_type: operator.into(),
            attribute,
            domain: String::new(),
        });
        name.into()
    }

    /// The next parameter as a constant of the graph; returns its name.
    fn parameter(&mut self) -> String {
        let spec = &self.network.parameters().specs()[self.parameter];
        self.parameter += 1;
        let values = &self.network.parameters().as_slice()[spec.range.clone()];
        let (name, shape) = (spec.name.clone(), spec.shape.clone());
        self.constant(&name, &shape, values)
    }

    /// The next parameter as bytes (weights) or whole numbers (biases), and what makes numbers of them again; returns the
    /// name of these. `axis` is that of the output channels.
    fn parameter_in_bytes(&mut self, weights: &QuantizedWeights, input: f32, role: Role, axis: u8) -> String {
        let spec = &self.network.parameters().specs()[self.parameter];
        self.parameter += 1;
        let dims = spec.shape.iter().map(|&n| n as i64).collect();
        let (name, channels) = (spec.name.clone(), weights.scales.len());
        let mut arguments = vec![name.clone(), format!("{name}/scale")];
        let axis = if role == Role::Weight {
            let bytes = weights.values.iter().map(|&w| w as u8).collect();
            self.initializer(&name, data_type::INT8, dims, bytes);
            self.constant(&arguments[1], &[channels], &weights.scales);
            let zeros = format!("{name}/zero_point");
            arguments.push(self.initializer(&zeros, data_type::INT8, vec![channels as i64], vec![0; channels]));
            axis
        } else {
            let bytes = weights.bias.iter().flat_map(|bias| bias.to_le_bytes()).collect();
            self.initializer(&name, data_type::INT32, dims, bytes);
            let scales: Vec<f32> = weights.scales.iter().map(|scale| input * scale).collect();
            self.constant(&arguments[1], &[channels], &scales);
            0
        };
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.node("DequantizeLinear", &format!("{name}/float"), &arguments, vec![int("axis", axis.into())])
    }

    /// A value rounded to bytes, and these as numbers again.
    fn through_bytes(&mut self, name: &str, to: QuantizationParameters) -> String {
        let scale = self.constant(&format!("{name}/scale"), &[], &[to.scale]);
        let zero = self.initializer(&format!("{name}/zero_point"), data_type::UINT8, vec![], vec![to.zero_point]);
        let bytes = self.node("QuantizeLinear", &format!("{name}/bytes"), &[name, &scale, &zero], vec![]);
        self.node("DequantizeLinear", &format!("{name}/float"), &[&bytes, &scale, &zero], vec![])
    }

    fn constant(&mut self, name: &str, shape: &[usize], values: &[f32]) -> String {
        let raw_data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.initializer(name, data_type::FLOAT, shape.iter().map(|&n| n as i64).collect(), raw_data)
    }

    fn integers(&mut self, name: &str, values: &[i64]) -> String {
        let raw_data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.initializer(name, data_type::INT64, vec![values.len() as i64], raw_data)
    }

    fn initializer(&mut self, name: &str, data_type: i32, dims: Vec<i64>, raw_data: Vec<u8>) -> String {
        let raw_data = raw_data.into();
        self.initializers.push(TensorProto { dims, data_type, name: name.into(), raw_data, ..TensorProto::default() });
        name.into()
    }
}

fn convolution(options: &ConvolutionOptions) -> Vec<AttributeProto> {
    let Window { kernel, stride, padding, dilation, .. } = options.window;
    vec![
        pair("kernel_shape", kernel),
        pair("strides", stride),
        pads(padding),
        pair("dilations", dilation),
        int("group", options.groups as i64),
    ]
}

/// ONNX divides the sum by the size, and looks further ahead than back where the size is even.
fn local_response_norm(layer: &str, options: &LocalResponseNormOptions) -> Result<Vec<AttributeProto>, OnnxError> {
    let LocalResponseNormOptions { size, k, alpha, beta } = *options;
    if size % 2 == 0 {
        return Err(OnnxError::Unsupported {
            layer: layer.into(),
            reason: format!(
                "ONNX and this engine place an even number of channels ({size}) differently; use an odd size"
            ),
        });
    }
    Ok(vec![int("size", size as i64), float("bias", k), float("alpha", alpha * size as f32), float("beta", beta)])
}

fn attribute(name: &str, r#type: AttributeType) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: r#type.into(), ..AttributeProto::default() }
}

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { i: Some(value), ..attribute(name, AttributeType::Int) }
}

fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto { f: Some(value), ..attribute(name, AttributeType::Float) }
}

fn text(name: &str, value: &str) -> AttributeProto {
    AttributeProto { s: Some(value.to_owned().into()), ..attribute(name, AttributeType::String) }
}

fn ints(name: &str, values: &[usize]) -> AttributeProto {
    AttributeProto { ints: values.iter().map(|&n| n as i64).collect(), ..attribute(name, AttributeType::Ints) }
}

fn pair(name: &str, (rows, columns): (usize, usize)) -> AttributeProto {
    ints(name, &[rows, columns])
}

fn pads(Padding { top, left, bottom, right }: Padding) -> AttributeProto {
    ints("pads", &[top, left, bottom, right])
}

/// An input or output with an open batch size.
fn value(name: &str, elem_type: i32, sample: &[usize]) -> ValueInfoProto {
    let batch = Dimension { value: Some(DimensionValue::Param("N".into())) };
    let size = |&n: &usize| Dimension { value: Some(DimensionValue::Value(n as i64)) };
    let shape = TensorShapeProto { dim: std::iter::once(batch).chain(sample.iter().map(size)).collect() };
    let tensor_type = TensorTypeProto { elem_type, shape: Some(shape) };
    ValueInfoProto { name: name.into(), r#type: Some(TypeProto { tensor_type: Some(tensor_type) }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::preprocessing::{Fit, Preprocessing};
    use crate::formats::TestVectors;
    use crate::int8::{Calibration, CalibrationOptions};
    use crate::layers::{AffineOptions, GeluOptions, Init, SiluOptions};
    use crate::models;
    use crate::network::Description;
    use std::collections::HashSet;

    fn file(description: Description) -> ModelFile {
        let network = Network::new(description, 1).unwrap();
        let input = network.input();
        let normalization = Normalization::new(vec![0.5], vec![0.25], input.channels).unwrap();
        ModelFile {
            class_names: (0..network.classes()).map(|class| format!("class {class}")).collect(),
            preprocessing: Preprocessing { shape: input, fit: Fit::Stretch, normalization },
            training: serde_json::Value::Null,
            metrics: serde_json::Value::Null,
            test_vectors: TestVectors::none(),
            temperature: None,
            quantized: None,
            network,
        }
    }

    fn graph(file: &ModelFile, preprocessing: bool) -> GraphProto {
        let bytes = model(file, OnnxOptions { preprocessing }).unwrap();
        ModelProto::decode(bytes.as_slice()).unwrap().graph.unwrap()
    }

    /// Everything is there before it is used, named once, and as long as it says; the logits come of it.
    fn assert_in_order(graph: &GraphProto, name: &str) {
        let mut known: HashSet<&str> = HashSet::from([super::super::INPUT]);
        for tensor in &graph.initializer {
            let width = match tensor.data_type {
                data_type::INT64 => 8,
                data_type::INT8 | data_type::UINT8 => 1,
                _ => 4,
            };
            let len: i64 = tensor.dims.iter().product();
            assert_eq!(tensor.raw_data.len() as i64, width * len, "{name}: {}", tensor.name);
            assert!(known.insert(&tensor.name), "{name}: {} twice", tensor.name);
        }
        for node in &graph.node {
            for input in &node.input {
                assert!(known.contains(input.as_str()), "{name}: {} reads {input}", node.name);
            }
            assert!(known.insert(&node.output[0]), "{name}: {} twice", node.output[0]);
        }
        assert!(known.contains(super::super::OUTPUT), "{name}");
    }

    #[test]
    fn everything_is_there_before_it_is_used_and_named_once() {
        for name in ["simple-convnet", "lenet", "deep-convnet", "cifar-resnet20", "cifar-net", "mobilenet-v2"] {
            let file = file(models::build(name, &models::Request::default()).unwrap());
            for preprocessing in [false, true] {
                let graph = graph(&file, preprocessing);
                assert_in_order(&graph, name);
                let weights = file.network.parameters().specs();
                for spec in weights {
                    let tensor = graph.initializer.iter().find(|tensor| tensor.name == spec.name).unwrap();
                    let first = f32::from_le_bytes(tensor.raw_data[..4].try_into().unwrap());
                    assert_eq!(first, file.network.parameters().as_slice()[spec.range.start], "{name}: {}", spec.name);
                }
            }
        }
    }

    #[test]
    fn bytes_become_pairs_of_quantize_and_dequantize() {
        for name in ["simple-convnet", "lenet", "cifar-net"] {
            let mut file = file(models::build(name, &models::Request::default()).unwrap());
            let shape = file.network.input();
            let x = ndarray::Array4::from_shape_fn((2, shape.channels, shape.height, shape.width), |(n, c, y, x)| {
                ((n * 5 + c * 3 + y * 7 + x) % 11) as f32 / 10.0
            });
            let mut calibration = Calibration::new(&file.network, CalibrationOptions::default()).unwrap();
            calibration.observe(x.view()).unwrap();
            let (network, quantized) = calibration.finish().unwrap();
            (file.network, file.quantized) = (network, Some(quantized));
            let graph = graph(&file, true);
            assert_in_order(&graph, name);
            let count = |operator: &str| graph.node.iter().filter(|node| node.op_type == operator).count();
            let (products, quantize) = (count("Conv") + count("Gemm"), count("QuantizeLinear"));
            // Weights and biases are made numbers as well; ReLU rounds for the layer before it, and logits stay numbers.
            assert_eq!(count("DequantizeLinear"), quantize + 2 * products - unbiased(&file), "{name}");
            assert_eq!(count("BatchNormalization"), 0, "{name}");
            let weights = graph.initializer.iter().filter(|tensor| tensor.data_type == data_type::INT8);
            assert_eq!(weights.filter(|tensor| !tensor.name.ends_with("zero_point")).count(), products, "{name}");
        }
    }

    /// Convolutions without biases.
    fn unbiased(file: &ModelFile) -> usize {
        let without = |layer: &Layer| matches!(layer, Layer::Convolution(options) if !options.bias);
        file.network.description().layers.iter().filter(|named| without(&named.layer)).count()
    }

    #[test]
    fn what_onnx_has_no_operator_for_is_named() {
        let image = Description::new("odd", Shape::new(2, 5, 5));
        let uneven = image.clone().with("Grid", AdaptivePoolingOptions { output: (2, 2) });
        let even = image.with("Lrn", LocalResponseNormOptions { size: 4, ..Default::default() });
        for (description, layer) in [(uneven, "Grid"), (even, "Lrn")] {
            let description = description.with("Affine", AffineOptions::new(3, Init::He));
            let error = model(&file(description), OnnxOptions::default()).unwrap_err();
            assert!(matches!(&error, OnnxError::Unsupported { layer: found, .. } if found == layer), "{error}");
        }
        let taken = Description::new("taken", Shape::flat(4)).with("logits", AffineOptions::new(3, Init::He));
        assert!(matches!(model(&file(taken), OnnxOptions::default()), Err(OnnxError::ReservedName { .. })));
    }

    #[test]
    fn activations_without_an_operator_are_spelt_out() {
        let description = Description::new("smooth", Shape::flat(4))
            .with("Affine1", AffineOptions::new(3, Init::He))
            .with("Gelu1", GeluOptions {})
            .with("Silu1", SiluOptions {})
            .with("Affine2", AffineOptions::new(3, Init::He));
        let graph = graph(&file(description), false);
        let operators: Vec<&str> = graph.node.iter().map(|node| node.op_type.as_str()).collect();
        let expected =
            ["Flatten", "Gemm", "Div", "Erf", "Add", "Mul", "Mul", "Sigmoid", "Mul", "Flatten", "Gemm", "Flatten"];
        assert_eq!(operators, expected);
    }
}
