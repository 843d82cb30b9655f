//! What moves numbers without computing any: dimensions, order, parts and borders; and Resize.

use super::{Call, Flow, Importer};
use crate::formats::onnx::interpret::{resize, shape as rules};
use crate::formats::onnx::node::{Problem, invalid, unsupported};
use crate::formats::onnx::tensor::Tensor;
use crate::layers::{
    ConcatOptions, Coordinates, PadMode, PadOptions, ResizeOptions, SliceOptions, SliceRange, TransposeOptions,
};

impl Importer<'_> {
    /// The dimensions of a flow, as a constant.
    pub(super) fn shape_of(&mut self, call: &Call<'_>) -> Result<Tensor, Problem> {
        let flow = call.flow(0)?;
        rules::shape_of(call.node, &flow.dims)
    }

    /// Other dimensions of the same numbers.
    pub(super) fn reshape(&mut self, call: &Call<'_>) -> Result<Flow, Problem> {
        let flow = call.flow(0)?.clone();
        let dims = rules::reshaped(call.node, &flow.dims, call.optional(1)?)?;
        if dims.first() != Some(&self.batch) {
            return unsupported(format!(
                "from {:?} to {dims:?}: the first axis, which is the batch ({}), must stay",
                flow.dims, self.batch
            ));
        }
        Ok(Flow { dims, ..flow })
    }

    pub(super) fn transpose(&mut self, call: &Call<'_>) -> Result<Flow, Problem> {
        let flow = call.flow(0)?.clone();
        let order = rules::order(call.node, flow.dims.len())?;
        if order.first() != Some(&0) {
            return unsupported(format!("perm is {order:?}; the batch must stay first"));
        }
        if flow.quantized {
            return unsupported("it moves numbers of 8 bits; only QLinearConv may");
        }
        let dims: Vec<usize> = order.iter().map(|&axis| flow.dims[axis]).collect();
        let long: Vec<usize> = order.iter().copied().filter(|&axis| flow.dims[axis] != 1).collect();
        if long.is_sorted() {
            // Axes of one number may stand anywhere.
            return Ok(Flow { dims, ..flow });
        }
        let options = TransposeOptions {
            sizes: flow.dims[1..].to_vec(),
            order: order[1..].iter().map(|axis| axis - 1).collect(),
        };
        let (at, _) = self.push(call.node, "", options, &[flow.source], vec![])?;
        Ok(Flow { source: Some(at), dims, quantized: false })
    }

    pub(super) fn concat(&mut self, call: &Call<'_>) -> Result<Flow, Problem> {
        let node = call.node;
        let rank = call.flow(0)?.dims.len();
        let axis = crate::formats::onnx::node::Node::axis(node.int("axis", 1), rank)?;
        if axis != 1 {
            return unsupported(format!("along axis {axis}; the axis of the channels (1) is needed"));
        }
        let mut sources = Vec::with_capacity(call.inputs.len());
        for at in 0..call.inputs.len() {
            let flow = call.flow(at)?.clone();
            sources.push(self.map(node, &flow)?.0);
        }
        let (at, shape) = self.push(node, "", ConcatOptions {}, &sources, vec![])?;
        Ok(self.flow(at, shape, rank))
    }

    pub(super) fn split(&mut self, call: &Call<'_>) -> Result<Vec<Flow>, Problem> {
        let node = call.node;
        let flow = call.flow(0)?.clone();
        let (axis, parts) = rules::parts(node, &flow.dims, call.optional(1)?)?;
        let mut flows = Vec::with_capacity(parts.len());
        let mut start = 0;
        for (i, &size) in parts.iter().enumerate() {
            let mut ranges: Vec<(usize, usize, usize)> = flow.dims.iter().map(|&n| (0, n, 1)).collect();
            ranges[axis] = (start, size, 1);
            start += size;
            let is_read = node.outputs.get(i).is_some_and(|output| self.uses.contains_key(output.as_str()));
            let mut dims = flow.dims.clone();
            dims[axis] = size;
            flows.push(match is_read {
                true => self.cut(call, &flow, &ranges, &format!("/{i}"))?,
                false => Flow { source: flow.source, dims, quantized: false },
            });
        }
        Ok(flows)
    }

    pub(super) fn slice(&mut self, call: &Call<'_>) -> Result<Flow, Problem> {
        let flow = call.flow(0)?.clone();
        let inputs = [call.optional(1)?, call.optional(2)?, call.optional(3)?, call.optional(4)?];
        let slices = rules::slices(call.node, &flow.dims, inputs)?;
        let mut ranges = Vec::with_capacity(slices.len());
        for slice in slices {
            let step = usize::try_from(slice.step);
            let Ok(step) = step else { return unsupported("it takes numbers backwards") };
            ranges.push((slice.start, slice.count, step));
        }
        self.cut(call, &flow, &ranges, "")
    }

    /// A part of a flow: first number, how many and how far apart along each axis.
    fn cut(
        &mut self,
        call: &Call<'_>,
        flow: &Flow,
        ranges: &[(usize, usize, usize)],
        suffix: &str,
    ) -> Result<Flow, Problem> {
        let whole = |(&(start, count, _), &size): (&(usize, usize, usize), &usize)| start == 0 && count == size;
        if ranges.iter().zip(&flow.dims).all(whole) {
            return Ok(flow.clone());
        }
        if !ranges.iter().zip(&flow.dims).take(1).all(whole) {
            return unsupported("it takes some samples of the batch");
        }
        let (source, shape) = self.map(call.node, flow)?;
        let rank = flow.dims.len();
        let range = |axis: usize| ranges.get(axis).map(|&(start, count, step)| SliceRange { start, count, step });
        let (all, [channels, height, width]) = (|count| SliceRange { start: 0, count, step: 1 }, shape.into());
        let [channels, rows, columns] = match rank {
            3 => [range(1).unwrap_or(all(channels)), all(height), range(2).unwrap_or(all(width))],
            _ => [range(1).unwrap_or(all(channels)), range(2).unwrap_or(all(height)), range(3).unwrap_or(all(width))],
        };
        let options = SliceOptions { channels, rows, columns };
        let (at, shape) = self.push(call.node, suffix, options, &[source], vec![])?;
        Ok(self.flow(at, shape, rank))
    }

    pub(super) fn pad(&mut self, call: &Call<'_>) -> Result<Flow, Problem> {
        let node = call.node;
        let flow = call.flow(0)?.clone();
        let rank = flow.dims.len();
        let pads = rules::pads(node, rank, call.optional(1)?, call.optional(3)?)?;
        let value = match call.optional(2)? {
            Some(value) => value.scalar()?,
            None => node.float("value", 0.0),
        };
        if pads.iter().all(|&pad| pad == (0, 0)) {
            return Ok(flow);
        }
        let mut sides = [(0usize, 0usize); 4];
        for (axis, &(before, after)) in pads.iter().enumerate() {
            let (Ok(before), Ok(after)) = (usize::try_from(before), usize::try_from(after)) else {
                return unsupported("it takes numbers away (a negative pad)");
            };
            let at = if rank == 3 && axis == 2 { 3 } else { axis };
            match sides.get_mut(at) {
                Some(side) => *side = (before, after),
                None => return unsupported(format!("its input has {rank} axes; 2, 3 or 4 are needed")),
            }
        }
        if sides[0] != (0, 0) {
            return unsupported("it adds samples to the batch");
        }
        let mode = match node.text("mode", "constant").as_str() {
            "constant" => PadMode::Constant { value },
            "edge" => PadMode::Edge,
            "reflect" => PadMode::Reflect,
            "wrap" => PadMode::Wrap,
            mode => return invalid(format!("its mode is {mode:?}")),
        };
        self.unary(call, PadOptions { mode, channels: sides[1], rows: sides[2], columns: sides[3] }, vec![])
    }

    pub(super) fn resize(&mut self, call: &Call<'_>) -> Result<Flow, Problem> {
        let node = call.node;
        let flow = call.flow(0)?.clone();
        let rank = flow.dims.len();
        let constants: Vec<Option<&Tensor>> =
            (1..call.inputs.len()).map(|at| call.optional(at)).collect::<Result<_, _>>()?;
        let plan = resize::plan(node, &flow.dims, &constants)?;
        let [_, channels, rest @ ..] = plan.as_slice() else {
            return unsupported(format!("its input has {rank} axes; 3 or 4 are needed"));
        };
        let (Some(first), true) = (rest.first(), rest.len() <= 2 && plan[0].is_identity() && channels.is_identity())
        else {
            return unsupported(format!(
                "of {:?} to {:?}; maps are resized, not their number",
                flow.dims,
                plan.iter().map(|axis| axis.output).collect::<Vec<_>>()
            ));
        };
        if first.coordinates == Coordinates::Crop {
            return unsupported("coordinate_transformation_mode tf_crop_and_resize");
        }
        let pair = |f: &dyn Fn(&resize::Axis) -> f64| match rest {
            [columns] => (1.0, f(columns)),
            _ => (f(first), rest.get(1).map_or(1.0, f)),
        };
        let size = pair(&|axis| axis.output as f64);
        let options = ResizeOptions {
            output: (size.0 as usize, size.1 as usize),
            scale: pair(&|axis| axis.scale),
            interpolation: first.interpolation,
            coordinates: first.coordinates,
            antialias: first.antialias,
            exclude_outside: first.exclude_outside,
        };
        self.unary(call, options, vec![])
    }
}
