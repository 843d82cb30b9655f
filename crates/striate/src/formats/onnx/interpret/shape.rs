//! Dimensions, order and parts of arrays. The rules are apart from the arrays: an import asks them about flows.

use super::{Inputs, input, optional};
use crate::formats::onnx::node::{Node, Problem, invalid, unsupported};
use crate::formats::onnx::tensor::{Tensor, Values, each_type, folded_count, sizes};
use ndarray::{ArrayD, Axis, IxDyn, Slice as Run, concatenate};

pub(super) fn run(node: &Node, inputs: &Inputs<'_>) -> Result<Vec<Tensor>, Problem> {
    let x = input(inputs, 0)?;
    let dims = x.dims();
    Ok(vec![match node.operator.as_str() {
        "Shape" | "Size" => shape_of(node, dims)?,
        "Transpose" => {
            let order = order(node, dims.len())?;
            each_type!(x, array => array.view().permuted_axes(IxDyn(&order)).as_standard_layout().into_owned())
        }
        "Concat" => concat(node, inputs)?,
        "Split" => {
            let (axis, parts) = parts(node, dims, optional(inputs, 1))?;
            let mut start = 0;
            let mut part = |size: usize| {
                let run = Run::from(start..start + size);
                start += size;
                each_type!(x, array => array.slice_axis(Axis(axis), run).to_owned())
            };
            return Ok(parts.into_iter().map(&mut part).collect());
        }
        "Slice" => {
            let given = [1, 2, 3, 4].map(|at| optional(inputs, at));
            let slices = slices(node, dims, given)?;
            each_type!(x, array => take(array, &slices))
        }
        "Pad" => pad(node, x, inputs)?,
        "Gather" => gather(node, x, input(inputs, 1)?)?,
        "Expand" => {
            let wanted = sizes(&input(inputs, 1)?.to_ints()?)?;
            super::arithmetic::expand(x, &super::arithmetic::broadcast(dims, &wanted)?)?
        }
        _ => {
            let wanted = reshaped(node, dims, optional(inputs, 1))?;
            each_type!(x, array => fit(array.clone(), &wanted)?)
        }
    }])
}

fn fit<T: Clone>(array: ArrayD<T>, dims: &[usize]) -> Result<ArrayD<T>, Problem> {
    let array = if array.is_standard_layout() { array } else { array.as_standard_layout().into_owned() };
    array.into_shape_with_order(IxDyn(dims)).or_else(|error| invalid(error.to_string()))
}

/// `Shape` and `Size` of an array of these dimensions.
pub(in crate::formats::onnx) fn shape_of(node: &Node, dims: &[usize]) -> Result<Tensor, Problem> {
    let sizes: Vec<i64> = dims.iter().map(|&n| n as i64).collect();
    if node.operator == "Size" {
        let count: usize = dims.iter().product();
        return Ok(Tensor::ints(ArrayD::from_elem(IxDyn(&[]), count as i64)));
    }
    let rank = sizes.len() as i64;
    let end = |at: i64| if at < 0 { at.saturating_add(rank) } else { at }.clamp(0, rank) as usize;
    let (start, stop) = (end(node.int("start", 0)), end(node.int("end", rank)));
    Ok(Tensor::list(sizes.get(start..stop.max(start)).unwrap_or_default().to_vec()))
}

/// The dimensions that Flatten, Reshape, Squeeze or Unsqueeze make of `dims`; `given` is the second input, if there is one.
pub(in crate::formats::onnx) fn reshaped(
    node: &Node,
    dims: &[usize],
    given: Option<&Tensor>,
) -> Result<Vec<usize>, Problem> {
    let list = |name: &str| -> Result<Option<Vec<i64>>, Problem> {
        match given {
            Some(tensor) => tensor.to_ints().map(Some),
            None => Ok(node.ints(name).map(<[i64]>::to_vec)),
        }
    };
    match node.operator.as_str() {
        "Flatten" => {
            let axis = node.int("axis", 1);
            // One past the last axis is allowed.
            let axis = if axis == dims.len() as i64 { dims.len() } else { Node::axis(axis, dims.len())? };
            Ok(vec![dims[..axis].iter().product(), dims[axis..].iter().product()])
        }
        "Squeeze" => {
            let axes = match list("axes")? {
                Some(axes) => axes.iter().map(|&axis| Node::axis(axis, dims.len())).collect::<Result<Vec<_>, _>>()?,
                None => (0..dims.len()).filter(|&axis| dims[axis] == 1).collect(),
            };
            if let Some(axis) = axes.iter().find(|&&axis| dims[axis] != 1) {
                return invalid(format!("axis {axis} of {dims:?} is not 1"));
            }
            Ok((0..dims.len()).filter(|axis| !axes.contains(axis)).map(|axis| dims[axis]).collect())
        }
        "Unsqueeze" => {
            let axes = list("axes")?.map_or_else(|| invalid("it has no axes"), Ok)?;
            let rank = dims.len() + axes.len();
            super::super::tensor::check_axes(rank)?;
            let axes = axes.iter().map(|&axis| Node::axis(axis, rank)).collect::<Result<Vec<_>, _>>()?;
            let mut rest = dims.iter().copied();
            let wider: Vec<usize> =
                (0..rank).map(|axis| if axes.contains(&axis) { 1 } else { rest.next().unwrap_or(1) }).collect();
            match rest.next() {
                None => Ok(wider),
                Some(_) => invalid(format!("axes {axes:?} name one twice")),
            }
        }
        _ => {
            let wanted = list("shape")?.map_or_else(|| invalid("it has no shape"), Ok)?;
            let keeps_zero = node.int("allowzero", 0) == 0;
            let mut sizes: Vec<usize> = Vec::with_capacity(wanted.len());
            let mut open = None;
            for (axis, &n) in wanted.iter().enumerate() {
                sizes.push(match n {
                    0 if keeps_zero => match dims.get(axis) {
                        Some(&n) => n,
                        None => return invalid(format!("shape {wanted:?} keeps axis {axis} of {dims:?}")),
                    },
                    -1 if open.is_none() => {
                        open = Some(axis);
                        1
                    }
                    n => usize::try_from(n).or_else(|_| invalid(format!("shape {wanted:?}")))?,
                });
            }
            let all = super::super::tensor::count(dims)?;
            let known = super::super::tensor::count(&sizes)?;
            if let Some(axis) = open {
                if known == 0 || !all.is_multiple_of(known) {
                    return invalid(format!("from {dims:?} to {wanted:?}: the numbers do not fit"));
                }
                sizes[axis] = all / known;
            } else if known != all {
                return invalid(format!("from {dims:?} to {wanted:?}: the numbers do not fit"));
            }
            Ok(sizes)
        }
    }
}

/// The axes of a Transpose in their new order.
pub(in crate::formats::onnx) fn order(node: &Node, rank: usize) -> Result<Vec<usize>, Problem> {
    let Some(perm) = node.ints("perm") else { return Ok((0..rank).rev().collect()) };
    let order = perm.iter().map(|&axis| Node::axis(axis, rank)).collect::<Result<Vec<_>, _>>()?;
    if order.len() != rank || (0..rank).any(|axis| !order.contains(&axis)) {
        return invalid(format!("perm {perm:?} is no order of {rank} axes"));
    }
    Ok(order)
}

fn concat(node: &Node, inputs: &Inputs<'_>) -> Result<Tensor, Problem> {
    let first = input(inputs, 0)?;
    let axis = Axis(Node::axis(node.int("axis", 1), first.dims().len())?);
    let mismatch = |error: ndarray::ShapeError| Problem::Invalid(error.to_string());
    let all: Vec<&Tensor> = (0..inputs.len()).map(|at| input(inputs, at)).collect::<Result<_, _>>()?;
    let values = match &first.values {
        Values::Float(_) => {
            let views = all.iter().map(|t| Ok(t.as_floats()?.view())).collect::<Result<Vec<_>, Problem>>()?;
            Values::Float(concatenate(axis, &views).map_err(mismatch)?)
        }
        Values::Int(_) => {
            let views = all.iter().map(|t| Ok(t.as_ints()?.view())).collect::<Result<Vec<_>, Problem>>()?;
            Values::Int(concatenate(axis, &views).map_err(mismatch)?)
        }
        Values::Text(_) => return unsupported("of text"),
    };
    Ok(Tensor { element: first.element, values })
}

/// The axis of a Split and the sizes of its parts.
pub(in crate::formats::onnx) fn parts(
    node: &Node,
    dims: &[usize],
    given: Option<&Tensor>,
) -> Result<(usize, Vec<usize>), Problem> {
    let axis = Node::axis(node.int("axis", 0), dims.len())?;
    let size = dims[axis];
    let parts = match (given, node.ints("split")) {
        (Some(split), _) => sizes(&split.to_ints()?)?,
        (None, Some(split)) => sizes(split)?,
        (None, None) => {
            let count = match node.int("num_outputs", 0) {
                0 => node.outputs.len(),
                count => usize::try_from(count).unwrap_or(0),
            };
            if count == 0 || count > node.outputs.len().max(1) {
                return invalid(format!("{count} parts, and {} outputs", node.outputs.len()));
            }
            // The last part may be smaller.
            let each = size.div_ceil(count);
            (0..count).map(|i| each.min(size.saturating_sub(i * each))).collect()
        }
    };
    if parts.iter().try_fold(0usize, |sum, &n| sum.checked_add(n)) != Some(size) {
        return invalid(format!("parts of {parts:?}, and axis {axis} has {size}"));
    }
    Ok((axis, parts))
}

/// What a Slice takes along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::formats::onnx) struct Slice {
    pub(in crate::formats::onnx) start: usize,
    pub(in crate::formats::onnx) count: usize,
    /// Negative where it takes numbers backwards.
    pub(in crate::formats::onnx) step: i64,
}

/// What a Slice takes along every axis; `given` are starts, ends, axes and steps.
pub(in crate::formats::onnx) fn slices(
    node: &Node,
    dims: &[usize],
    given: [Option<&Tensor>; 4],
) -> Result<Vec<Slice>, Problem> {
    let list = |at: usize, name: &str| -> Result<Option<Vec<i64>>, Problem> {
        match given[at] {
            Some(tensor) => tensor.to_ints().map(Some),
            None => Ok(node.ints(name).map(<[i64]>::to_vec)),
        }
    };
    let (Some(starts), Some(ends)) = (list(0, "starts")?, list(1, "ends")?) else {
        return invalid("it has no starts or no ends");
    };
    let axes = list(2, "axes")?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = list(3, "steps")?.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
        return invalid("its starts, ends, axes and steps differ in number");
    }
    let mut slices: Vec<Slice> = dims.iter().map(|&count| Slice { start: 0, count, step: 1 }).collect();
    for (((&start, &end), &axis), &step) in starts.iter().zip(&ends).zip(&axes).zip(&steps) {
        let axis = Node::axis(axis, dims.len())?;
        let size = dims[axis] as i64;
        if step == 0 {
            return invalid("a step of 0");
        }
        let counted = |at: i64| if at < 0 { at.saturating_add(size) } else { at };
        let (start, count) = if step > 0 {
            let (start, end) = (counted(start).clamp(0, size), counted(end).clamp(0, size));
            (start, (end - start).max(0).saturating_add(step - 1) / step)
        } else {
            let (start, end) = (counted(start).clamp(0, size - 1), counted(end).clamp(-1, size - 1));
            let back = step.unsigned_abs();
            (start, ((start - end).max(0) as u64).div_ceil(back) as i64)
        };
        slices[axis] = Slice { start: start.max(0) as usize, count: if size == 0 { 0 } else { count as usize }, step };
    }
    Ok(slices)
}

fn take<T: Clone>(array: &ArrayD<T>, slices: &[Slice]) -> ArrayD<T> {
    let mut taken = array.clone();
    for (axis, slice) in slices.iter().enumerate() {
        let at = |i: usize| (slice.start as i64).saturating_add((i as i64).saturating_mul(slice.step)) as usize;
        let places: Vec<usize> = (0..slice.count).map(at).collect();
        taken = taken.select(Axis(axis), &places);
    }
    taken
}

/// How many numbers a Pad adds before and after each axis.
pub(in crate::formats::onnx) fn pads(
    node: &Node,
    rank: usize,
    given: Option<&Tensor>,
    axes: Option<&Tensor>,
) -> Result<Vec<(i64, i64)>, Problem> {
    let list = match (given, node.ints("pads").or_else(|| node.ints("paddings"))) {
        (Some(tensor), _) => tensor.to_ints()?,
        (None, Some(list)) => list.to_vec(),
        (None, None) => return invalid("it has no pads"),
    };
    let axes: Vec<usize> = match axes {
        Some(axes) => axes.to_ints()?.iter().map(|&axis| Node::axis(axis, rank)).collect::<Result<_, _>>()?,
        None => (0..rank).collect(),
    };
    if list.len() != 2 * axes.len() {
        return invalid(format!("{} pads for {} axes", list.len(), axes.len()));
    }
    let mut pads = vec![(0, 0); rank];
    for (i, &axis) in axes.iter().enumerate() {
        pads[axis] = (list[i], list[axes.len() + i]);
    }
    Ok(pads)
}

/// The place in an axis of `size` numbers that a place beyond its ends stands for.
pub(in crate::formats::onnx) fn source(mode: &str, at: i64, size: i64) -> Option<usize> {
    let place = match mode {
        "constant" => Some(at).filter(|at| (0..size).contains(at))?,
        "edge" => at.clamp(0, size - 1),
        "wrap" => at.rem_euclid(size),
        // Back and forth, the ends once each.
        _ => {
            let period = (2 * (size - 1)).max(1);
            let at = at.rem_euclid(period);
            if at < size { at } else { period - at }
        }
    };
    usize::try_from(place).ok()
}

fn pad(node: &Node, x: &Tensor, inputs: &Inputs<'_>) -> Result<Tensor, Problem> {
    let dims = x.dims().to_vec();
    let pads = pads(node, dims.len(), optional(inputs, 1), optional(inputs, 3))?;
    let mode = node.text("mode", "constant");
    if !["constant", "edge", "reflect", "wrap"].contains(&mode.as_str()) {
        return invalid(format!("its mode is {mode:?}"));
    }
    let mut wanted = Vec::with_capacity(dims.len());
    for (&size, &(before, after)) in dims.iter().zip(&pads) {
        let size = (size as i64).checked_add(before).and_then(|n| n.checked_add(after)).unwrap_or(-1);
        wanted.push(usize::try_from(size).or_else(|_| invalid(format!("pads {pads:?} around {dims:?}")))?);
    }
    folded_count(&wanted)?;
    if mode != "constant" && dims.contains(&0) {
        return invalid("an empty array has no border");
    }
    let place = |index: &IxDyn| -> Option<Vec<usize>> {
        let along = |axis: usize| source(&mode, index[axis] as i64 - pads[axis].0, dims[axis] as i64);
        (0..dims.len()).map(along).collect()
    };
    let value = optional(inputs, 2);
    let values = match &x.values {
        Values::Float(array) => {
            let value = value.map(Tensor::scalar).transpose()?.unwrap_or(node.float("value", 0.0));
            let at = |index: IxDyn| place(&index).and_then(|at| array.get(IxDyn(&at)).copied()).unwrap_or(value);
            Values::Float(ArrayD::from_shape_fn(IxDyn(&wanted), at))
        }
        Values::Int(array) => {
            let value = value.map(Tensor::to_ints).transpose()?.and_then(|list| list.first().copied()).unwrap_or(0);
            let at = |index: IxDyn| place(&index).and_then(|at| array.get(IxDyn(&at)).copied()).unwrap_or(value);
            Values::Int(ArrayD::from_shape_fn(IxDyn(&wanted), at))
        }
        Values::Text(_) => return unsupported("of text"),
    };
    Ok(Tensor { element: x.element, values })
}

fn gather(node: &Node, x: &Tensor, places: &Tensor) -> Result<Tensor, Problem> {
    let dims = x.dims();
    let axis = Node::axis(node.int("axis", 0), dims.len())?;
    let chosen: Vec<usize> =
        places.to_ints()?.iter().map(|&at| Node::axis(at, dims[axis])).collect::<Result<_, _>>()?;
    let mut wanted = dims[..axis].to_vec();
    wanted.extend(places.dims());
    wanted.extend(&dims[axis + 1..]);
    folded_count(&wanted)?;
    Ok(each_type!(x, array => fit(array.select(Axis(axis), &chosen), &wanted)?))
}
