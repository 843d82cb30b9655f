//! Add, Sub, Mul and Div: of two layers' outputs, or of one and a constant.

use super::{Call, Flow, Importer, Source, Value};
use crate::formats::onnx::node::{Problem, invalid, unsupported};
use crate::formats::onnx::tensor::Tensor;
use crate::layers::{
    AddOptions, Arithmetic, ArithmeticOptions, HardSwishOptions, Layer, LinearOptions, ScaleOptions, SiluOptions,
};

impl Importer<'_> {
    pub(super) fn arithmetic(&mut self, call: &Call<'_>) -> Result<Flow, Problem> {
        match call.inputs.as_slice() {
            [Some(Value::Flow(a)), Some(Value::Flow(b))] => self.join(call, &a.clone(), &b.clone()),
            [Some(Value::Flow(flow)), Some(Value::Constant(tensor))] => self.with(call, &flow.clone(), tensor, false),
            [Some(Value::Constant(tensor)), Some(Value::Flow(flow))] => self.with(call, &flow.clone(), tensor, true),
            inputs => invalid(format!("it has {} inputs; 2 are needed", inputs.len())),
        }
    }

    /// One or more flows.
    pub(super) fn sum(&mut self, call: &Call<'_>) -> Result<Flow, Problem> {
        let mut sum = call.flow(0)?.clone();
        for at in 1..call.inputs.len() {
            sum = self.join(call, &sum, &call.flow(at)?.clone())?;
        }
        Ok(sum)
    }

    fn join(&mut self, call: &Call<'_>, a: &Flow, b: &Flow) -> Result<Flow, Problem> {
        let node = call.node;
        let rank = a.dims.len().max(b.dims.len());
        if a.dims.len() != b.dims.len() {
            return unsupported(format!("of {:?} and {:?}; as many axes are needed", a.dims, b.dims));
        }
        let ((first, one), (second, other)) = (self.map(node, a)?, self.map(node, b)?);
        let operation = match node.operator.as_str() {
            "Sub" => Arithmetic::Subtract,
            "Mul" => Arithmetic::Multiply,
            "Div" => Arithmetic::Divide,
            _ => Arithmetic::Add,
        };
        if operation == Arithmetic::Multiply
            && let Some(layer) = self.gated(call, first, second)
        {
            let (at, shape) = self.push(node, "", layer.0, &[layer.1], vec![])?;
            return Ok(self.flow(at, shape, rank));
        }
        let layer: Layer = match operation {
            Arithmetic::Add if one == other => AddOptions {}.into(),
            _ => ArithmeticOptions { operation }.into(),
        };
        let (at, shape) = self.push(node, "", layer, &[first, second], vec![])?;
        Ok(self.flow(at, shape, rank))
    }

    /// `x sigmoid(x)` and `x hard-sigmoid(x)` have layers of their own.
    fn gated(&self, call: &Call<'_>, a: Source, b: Source) -> Option<(Layer, Source)> {
        [(a, b, 1), (b, a, 0)].into_iter().find_map(|(x, gate, at)| {
            let made = &self.layers[gate?];
            if made.inputs != [x] || !self.has_one_reader(call.node.input(at)) {
                return None;
            }
            match &made.layer {
                Layer::Sigmoid(_) => Some((SiluOptions {}.into(), x)),
                Layer::HardSigmoid(options) if options.is_hard_swish() => Some((HardSwishOptions {}.into(), x)),
                _ => None,
            }
        })
    }

    /// A flow and a constant; `first` where the constant stands in front.
    fn with(&mut self, call: &Call<'_>, flow: &Flow, constant: &Tensor, first: bool) -> Result<Flow, Problem> {
        let node = call.node;
        let rank = flow.dims.len();
        let values = constant.to_floats()?;
        let (negate, reverse) = (node.operator == "Sub", node.operator == "Div");
        if first && reverse {
            return unsupported("a constant divided by what the input makes");
        }
        // The constant's sizes along the axes of one sample.
        let dims = constant.dims();
        if dims.len() > rank || dims.len() == rank && dims[0] != 1 {
            return unsupported(format!("a constant of shape {dims:?} beside {:?}", flow.dims));
        }
        let mut sizes = vec![1; rank - dims.len()];
        sizes.extend(dims);
        if sizes.iter().zip(&flow.dims).skip(1).any(|(&n, &size)| n != 1 && n != size) {
            return unsupported(format!("a constant of shape {dims:?} beside {:?}", flow.dims));
        }
        let (source, _) = self.map(node, flow)?;
        if let &[value] = values.as_slice() {
            let (factor, shift) = match node.operator.as_str() {
                "Add" => (1.0, value),
                "Sub" if first => (-1.0, value),
                "Sub" => (1.0, -value),
                "Mul" => (value, 0.0),
                _ => (1.0 / value, 0.0),
            };
            let (at, shape) = self.push(node, "", LinearOptions { factor, shift }, &[source], vec![])?;
            return Ok(self.flow(at, shape, rank));
        }
        let sample = match sizes[1..] {
            [features] => [features, 1, 1],
            [channels, width] => [channels, 1, width],
            [channels, height, width] => [channels, height, width],
            _ => return unsupported(format!("its input has {rank} axes; 2, 3 or 4 are needed")),
        };
        let (factor, shift) = match node.operator.as_str() {
            "Mul" => (Some(values), None),
            "Div" => (Some(values.iter().map(|v| 1.0 / v).collect()), None),
            _ if negate && !first => (None, Some(values.iter().map(|v| -v).collect::<Vec<f32>>())),
            _ => (None, Some(values)),
        };
        if let Some(shift) = &shift
            && !(negate && first)
            && sample[1..] == [1, 1]
            && let Some(flow) = self.bias(call, source, shift, rank, first)
        {
            return Ok(flow);
        }
        let mut inputs = source;
        if negate && first {
            let (at, _) =
                self.push(node, "/negative", LinearOptions { factor: -1.0, shift: 0.0 }, &[source], vec![])?;
            inputs = Some(at);
        }
        let options = ScaleOptions { factor: factor.as_ref().map(|_| sample), shift: shift.as_ref().map(|_| sample) };
        let parameters = factor.into_iter().chain(shift).collect();
        let (at, shape) = self.push(node, "", options, &[inputs], parameters)?;
        Ok(self.flow(at, shape, rank))
    }

    /// A sum after a layer without bias is its bias, as MatMul and Add are one affine layer.
    fn bias(&mut self, call: &Call<'_>, source: Source, shift: &[f32], rank: usize, first: bool) -> Option<Flow> {
        let at = source?;
        if !self.has_one_reader(call.node.input(usize::from(first))) || !self.layers[at].open_bias {
            return None;
        }
        let shape = self.layers[at].shape;
        if shape.channels != shift.len() {
            return None;
        }
        let made = &mut self.layers[at];
        match &mut made.layer {
            Layer::Affine(_) => made.parameters[1] = shift.to_vec(),
            Layer::Convolution(options) => {
                options.bias = true;
                made.parameters.push(shift.to_vec());
            }
            _ => return None,
        }
        made.open_bias = false;
        Some(self.flow(at, shape, rank))
    }
}
