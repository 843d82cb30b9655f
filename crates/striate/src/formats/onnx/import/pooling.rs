//! MaxPool, AveragePool and the mean or maximum of a whole map.

use super::convolution::window;
use super::{Call, Flow, Importer};
use crate::formats::onnx::node::{Node, Problem, invalid, unsupported};
use crate::formats::onnx::tensor::sizes;
use crate::layers::{AdaptivePoolingOptions, PoolingKind, PoolingOptions};
use crate::shape::{Rounding, Window};

impl Importer<'_> {
    pub(super) fn pooling(&mut self, call: &Call<'_>) -> Result<Flow, Problem> {
        let node = call.node;
        if node.yields(1) && self.uses.contains_key(node.outputs[1].as_str()) {
            return unsupported("the places of the maxima are asked for");
        }
        let kernel = sizes(node.ints("kernel_shape").map_or_else(|| invalid("it has no kernel_shape"), Ok)?)?;
        let flow = call.flow(0)?.clone();
        let (source, input) = self.map(node, &flow)?;
        let mut window = window(node, &kernel, input, flow.dims.len())?;
        if node.int("ceil_mode", 0) != 0 {
            window.rounding = Rounding::Ceil;
        }
        let pooling = if node.operator == "MaxPool" { PoolingKind::Max } else { PoolingKind::Average };
        let options = PoolingOptions { pooling, window, count_padding: node.int("count_include_pad", 0) != 0 };
        let (at, shape) = self.push(node, "", options, &[source], vec![])?;
        Ok(self.flow(at, shape, flow.dims.len()))
    }

    pub(super) fn global_pooling(&mut self, call: &Call<'_>) -> Result<Flow, Problem> {
        if call.node.operator == "GlobalAveragePool" {
            return self.unary(call, AdaptivePoolingOptions::global(), vec![]);
        }
        let flow = call.flow(0)?.clone();
        let (_, input) = self.map(call.node, &flow)?;
        let window = Window::of((input.height, input.width)).rounding(Rounding::Floor);
        self.unary(call, PoolingOptions::max(window), vec![])
    }

    /// ReduceMean over the pixels of a map.
    pub(super) fn mean(&mut self, call: &Call<'_>) -> Result<Flow, Problem> {
        let node = call.node;
        let flow = call.flow(0)?.clone();
        let rank = flow.dims.len();
        let axes = match (node.ints("axes"), call.optional(1)?) {
            (Some(axes), _) => Some(axes.to_vec()),
            (None, Some(axes)) => Some(axes.to_ints()?),
            (None, None) => None,
        };
        let mut axes: Vec<usize> = match axes {
            Some(axes) if !axes.is_empty() => {
                axes.iter().map(|&axis| Node::axis(axis, rank)).collect::<Result<_, _>>()?
            }
            _ if node.int("noop_with_empty_axes", 0) != 0 => return Ok(flow),
            _ => (0..rank).collect(),
        };
        axes.sort_unstable();
        axes.dedup();
        // Axes of one number have nothing to average.
        let pixels: Vec<usize> = (2..rank).collect();
        let whole = axes.iter().all(|axis| *axis >= 2 || flow.dims[*axis] == 1 && *axis > 0)
            && pixels.iter().all(|axis| axes.contains(axis) || flow.dims[*axis] == 1);
        if !whole {
            return unsupported(format!(
                "a mean over axes {axes:?} of {:?}; those of all pixels are supported",
                flow.dims
            ));
        }
        let (source, _) = self.map(node, &flow)?;
        let (at, _) = self.push(node, "", AdaptivePoolingOptions::global(), &[source], vec![])?;
        let keep = node.int("keepdims", 1) != 0;
        let reduced = |axis: usize| axes.contains(&axis);
        let dims = (0..rank).filter(|&axis| keep || !reduced(axis)).map(|a| if reduced(a) { 1 } else { flow.dims[a] });
        Ok(Flow { source: Some(at), dims: dims.collect(), quantized: false })
    }
}
