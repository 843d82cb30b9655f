//! Functions applied number by number, softmax and dropout.

use super::{Call, Flow, Importer};
use crate::formats::onnx::node::{Node, Problem, invalid, unsupported};
use crate::layers::{
    ClipOptions, DropoutOptions, EluOptions, GeluOptions, HardSigmoidOptions, HardSwishOptions, Layer,
    LeakyReluOptions, LinearOptions, LogSoftmaxOptions, PReluOptions, ReluOptions, ReshapeOptions, SeluOptions,
    SigmoidOptions, SoftmaxOptions, TanhOptions,
};
use crate::shape::Shape;

impl Importer<'_> {
    pub(super) fn activation(&mut self, call: &Call<'_>) -> Result<Flow, Problem> {
        let node = call.node;
        let layer: Layer = match node.operator.as_str() {
            "Relu" => ReluOptions {}.into(),
            "LeakyRelu" => LeakyReluOptions { slope: node.float("alpha", 0.01) }.into(),
            "Elu" => EluOptions { alpha: node.float("alpha", 1.0) }.into(),
            "Selu" => {
                let usual = SeluOptions::default();
                SeluOptions { alpha: node.float("alpha", usual.alpha), gamma: node.float("gamma", usual.gamma) }.into()
            }
            "Sigmoid" => SigmoidOptions {}.into(),
            "HardSigmoid" => {
                HardSigmoidOptions { alpha: node.float("alpha", 0.2), beta: node.float("beta", 0.5) }.into()
            }
            "HardSwish" => HardSwishOptions {}.into(),
            "Tanh" => TanhOptions {}.into(),
            "Neg" => LinearOptions { factor: -1.0, shift: 0.0 }.into(),
            "Gelu" if node.text("approximate", "none") == "none" => GeluOptions {}.into(),
            "Clip" => {
                let low = call.optional(1)?.map(|t| t.scalar()).transpose()?.unwrap_or(node.float("min", f32::MIN));
                let high = call.optional(2)?.map(|t| t.scalar()).transpose()?.unwrap_or(node.float("max", f32::MAX));
                ClipOptions { low: low.max(f32::MIN), high: high.min(f32::MAX) }.into()
            }
            _ => return unsupported("the operator is supported for constants alone, and its input is none"),
        };
        self.unary(call, layer, vec![])
    }

    /// One slope for all, or one a channel.
    pub(super) fn prelu(&mut self, call: &Call<'_>) -> Result<Flow, Problem> {
        let slope = call.constant(1)?;
        let flow = call.flow(0)?.clone();
        let rank = flow.dims.len();
        let channels = flow.dims.get(1).copied().unwrap_or(1);
        // Aligned at the end, only the channels' axis may be longer than 1.
        let dims = slope.dims();
        let from_end = rank.saturating_sub(1);
        let along_channels = dims.iter().rev().enumerate().all(|(i, &n)| n == 1 || i + 1 == from_end && n == channels);
        if !along_channels {
            return unsupported(format!("slopes of shape {dims:?}; one for all or one a channel is needed"));
        }
        let options = PReluOptions { shared: slope.len() == 1 && channels != 1, ..PReluOptions::default() };
        let slope = slope.to_floats()?;
        self.unary(call, options, vec![slope])
    }

    /// Over the channels at each pixel, or over all numbers.
    pub(super) fn softmax(&mut self, call: &Call<'_>) -> Result<Flow, Problem> {
        let node = call.node;
        let flow = call.flow(0)?.clone();
        let rank = flow.dims.len();
        // Up to operator set 12 everything from the axis on counted as one.
        let flat = node.opset < 13;
        let axis = Node::axis(node.int("axis", if flat { 1 } else { -1 }), rank)?;
        let layer: Layer =
            if node.operator == "Softmax" { SoftmaxOptions {}.into() } else { LogSoftmaxOptions {}.into() };
        let rest = flow.dims[(axis + 1).min(rank)..].iter().all(|&n| n == 1);
        if axis == 0 || axis != 1 && !flow.dims[1..axis].iter().all(|&n| n == 1) {
            return unsupported(format!("over axis {axis} of {:?}; the axis of the channels (1) is needed", flow.dims));
        }
        if axis == 1 && (rest || !flat) {
            return self.unary(call, layer, vec![]);
        }
        if !flat && !rest {
            return unsupported(format!("over axis {axis} of {:?}; the axis of the channels (1) is needed", flow.dims));
        }
        // All numbers of a sample.
        let output = Shape::flat(flow.dims[1..].iter().product());
        let (flattened, _) = self.push(node, "/flat", ReshapeOptions { output }, &[flow.source], vec![])?;
        let (at, _) = self.push(node, "", layer, &[Some(flattened)], vec![])?;
        Ok(Flow { source: Some(at), ..flow })
    }

    pub(super) fn dropout(&mut self, call: &Call<'_>) -> Result<Flow, Problem> {
        let node = call.node;
        let ratio = call.optional(1)?.map(|ratio| ratio.scalar()).transpose()?.unwrap_or(node.float("ratio", 0.5));
        if !(0.0..1.0).contains(&ratio) {
            return invalid(format!("its ratio is {ratio}; from 0 to below 1 is needed"));
        }
        let training = call.optional(2)?.map(|flag| flag.scalar()).transpose()?.unwrap_or(0.0);
        if training != 0.0 && ratio != 0.0 {
            return unsupported("the file was exported for training (training_mode); export it for inference");
        }
        if ratio == 0.0 {
            return Ok(call.flow(0)?.clone());
        }
        self.unary(call, DropoutOptions { ratio }, vec![])
    }

    pub(super) fn cast(&mut self, call: &Call<'_>) -> Result<Flow, Problem> {
        // float, float16, double, bfloat16: all are f32 here.
        match call.node.int("to", 0) {
            1 | 10 | 11 | 16 => Ok(call.flow(0)?.clone()),
            to => unsupported(format!("to numbers of type {to}; only floats flow through a network")),
        }
    }
}
