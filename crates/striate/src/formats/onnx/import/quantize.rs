//! QuantizeLinear, DequantizeLinear and QLinearConv: what 8 bits hold, computed in floats that stand for it.

use super::convolution::filters;
use super::{Call, Flow, Importer};
use crate::formats::onnx::interpret::quantize::dequantized;
use crate::formats::onnx::node::{Problem, invalid, unsupported};
use crate::formats::onnx::tensor::{Element, Tensor};
use crate::layers::QuantizeOptions;

/// The numbers that a scale and a zero point of one number each stand for.
fn options(scale: &Tensor, zero: Option<&Tensor>, element: Element) -> Result<QuantizeOptions, Problem> {
    if scale.len() != 1 {
        return unsupported(format!("{} scales, one a channel; what flows must have one for all", scale.len()));
    }
    let zero_point = match zero {
        Some(zero) => match zero.to_ints()?[..] {
            [zero] => zero,
            _ => return invalid("its scale and zero point differ in number"),
        },
        None => 0,
    };
    let (low, high) = match element {
        Element::U8 | Element::I8 | Element::U16 | Element::I16 => element.range(),
        _ => return unsupported(format!("numbers of type {element}; those of 8 or 16 bits are supported")),
    };
    let scale = scale.scalar()?;
    // Exact: all are small.
    Ok(QuantizeOptions { scale, zero_point: zero_point as f32, low: low as f32, high: high as f32 })
}

impl Importer<'_> {
    pub(super) fn quantize(&mut self, call: &Call<'_>) -> Result<Flow, Problem> {
        let zero = call.optional(2)?;
        let element = match (zero, call.node.int("output_dtype", 0)) {
            (Some(zero), _) => zero.element,
            (None, 0) => Element::U8,
            (None, code) => Element::from_code(i32::try_from(code).unwrap_or(0))?,
        };
        let options = options(call.constant(1)?, zero, element)?;
        Ok(Flow { quantized: true, ..self.unary(call, options, vec![])? })
    }

    pub(super) fn dequantize(&mut self, call: &Call<'_>) -> Result<Flow, Problem> {
        let flow = call.flow(0)?.clone();
        if !flow.quantized {
            return unsupported("its input does not come from QuantizeLinear");
        }
        // The flow already stands for what the numbers mean, if they mean what they were quantized as.
        let element = call.optional(2)?.map_or(Element::U8, |zero| zero.element);
        let options = options(call.constant(1)?, call.optional(2)?, element)?;
        let same = flow.source.is_some_and(|at| match &self.layers[at].layer {
            crate::layers::Layer::Quantize(found) => {
                (found.scale, found.zero_point) == (options.scale, options.zero_point)
            }
            _ => true,
        });
        if !same {
            return unsupported("its scale or zero point is not that of the QuantizeLinear before");
        }
        Ok(Flow { quantized: false, ..flow })
    }

    /// Inputs: x, its scale and zero point, w, its own, y's, and a bias of 32 bits in units of both scales.
    pub(super) fn quantized_convolution(&mut self, call: &Call<'_>) -> Result<Flow, Problem> {
        let flow = call.flow(0)?.clone();
        if !flow.quantized {
            return unsupported("its input does not come from QuantizeLinear or QLinearConv");
        }
        let x_scale = call.constant(1)?.scalar()?;
        let w_scale = call.constant(4)?;
        let w = dequantized(call.constant(3)?, w_scale, call.optional(5)?, 0)?;
        let (w, count, _, kernel) = filters(&w, flow.dims.len())?;
        let scales = w_scale.to_floats()?;
        let unit = |filter: usize| x_scale * scales.get(filter).or(scales.first()).copied().unwrap_or(1.0);
        let bias = call.optional(8)?.map(Tensor::to_floats).transpose()?;
        let bias = bias.map(|bias| bias.iter().enumerate().map(|(filter, b)| b * unit(filter)).collect());
        let y_zero = call.constant(7)?;
        let options = options(call.constant(6)?, Some(y_zero), y_zero.element)?;
        let mut inputs = call.inputs.clone();
        inputs[0] = Some(super::Value::Flow(Flow { quantized: false, ..flow }));
        let inner = Call { node: call.node, inputs };
        let convolved = self.convolve(&inner, w, count, &kernel, bias)?;
        let (source, _) = self.map(call.node, &convolved)?;
        let (at, shape) = self.push(call.node, "/quantize", options, &[source], vec![])?;
        Ok(Flow { quantized: true, ..self.flow(at, shape, convolved.dims.len()) })
    }
}
