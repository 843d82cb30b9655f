//! Maxima and means over windows and axes.

use super::window::{each, output, spatial, under};
use super::{Inputs, input, optional};
use crate::formats::onnx::node::{Node, Problem, invalid};
use crate::formats::onnx::tensor::{Element, Tensor, Values, folded_count, sizes};
use ndarray::{ArrayD, Axis, IxDyn};

pub(super) fn run(node: &Node, inputs: &Inputs<'_>) -> Result<Vec<Tensor>, Problem> {
    let x = input(inputs, 0)?;
    match node.operator.as_str() {
        "ReduceMean" => reduce(node, x, optional(inputs, 1)),
        "GlobalMaxPool" | "GlobalAveragePool" => {
            let rank = x.dims().len();
            let mut array = x.as_floats()?.clone();
            for axis in (2..rank).map(Axis) {
                array = match node.operator.as_str() {
                    "GlobalMaxPool" => array.fold_axis(axis, f32::NEG_INFINITY, |&a, &b| a.max(b)),
                    _ => array.mean_axis(axis).map_or_else(|| invalid("an empty map"), Ok)?,
                }
                .insert_axis(axis);
            }
            Ok(vec![Tensor::floats(array)])
        }
        _ => windows(node, x),
    }
}

fn windows(node: &Node, x: &Tensor) -> Result<Vec<Tensor>, Problem> {
    let kernel = sizes(node.ints("kernel_shape").map_or_else(|| invalid("it has no kernel_shape"), Ok)?)?;
    let dims = x.dims();
    if dims.len() < 3 {
        return invalid(format!("an input of {dims:?}; maps are needed"));
    }
    let (input, values) = (&dims[2..], x.to_floats()?);
    let window = spatial(node, &kernel, input)?;
    let pixels = output(&window, input, node.int("ceil_mode", 0) != 0)?;
    let (is_max, counts) = (node.operator == "MaxPool", node.int("count_include_pad", 0) != 0);
    let columns_first = node.int("storage_order", 0) != 0;
    let mut wanted = dims[..2].to_vec();
    wanted.extend(&pixels);
    folded_count(&wanted)?;
    let map = input.iter().product::<usize>();
    let (mut y, mut places) = (Vec::new(), Vec::new());
    for plane in 0..dims[0] * dims[1] {
        each(&pixels, |at| {
            let (mut sum, mut count, mut largest, mut winner) = (0.0f64, 0usize, f32::NEG_INFINITY, 0);
            each(&kernel, |tap| {
                match under(&window, input, at, tap) {
                    Some(place) => {
                        let value = values[plane * map + place];
                        if value > largest {
                            (largest, winner) = (value, place);
                        }
                        sum += f64::from(value);
                        count += 1;
                    }
                    // Places beyond the padding never count.
                    None if counts && is_padding(&window, input, at, tap) => count += 1,
                    None => {}
                }
            });
            if columns_first {
                // The same place, counted down the columns.
                let (mut rest, mut index) = (winner, vec![0; input.len()]);
                for axis in (0..input.len()).rev() {
                    index[axis] = rest % input[axis];
                    rest /= input[axis];
                }
                winner = (0..input.len()).rev().fold(0, |place, axis| place * input[axis] + index[axis]);
            }
            places.push((plane * map + winner) as i64);
            y.push(if is_max { largest } else { (sum / count.max(1) as f64) as f32 });
        });
    }
    let shape = IxDyn(&wanted);
    let y = ArrayD::from_shape_vec(shape.clone(), y).or_else(|e| invalid(e.to_string()))?;
    let values = match x.values {
        Values::Int(_) => Values::Int(y.mapv(|x| x as i64)),
        _ => Values::Float(y),
    };
    let mut outputs = vec![Tensor { element: x.element, values }];
    if is_max {
        let places = ArrayD::from_shape_vec(shape, places).or_else(|e| invalid(e.to_string()))?;
        outputs.push(Tensor { element: Element::I64, values: Values::Int(places) });
    }
    Ok(outputs)
}

/// Whether a place outside the map lies in its padding.
fn is_padding(window: &super::window::Spatial, input: &[usize], at: &[usize], tap: &[usize]) -> bool {
    (0..input.len()).all(|axis| {
        let along = at[axis] * window.strides[axis] + tap[axis] * window.dilations[axis];
        along < window.pads[axis].0 + input[axis] + window.pads[axis].1
    })
}

fn reduce(node: &Node, x: &Tensor, axes: Option<&Tensor>) -> Result<Vec<Tensor>, Problem> {
    let array = x.as_floats()?;
    let rank = array.ndim();
    let axes = match (axes, node.ints("axes")) {
        (Some(axes), _) => axes.to_ints()?,
        (None, Some(axes)) => axes.to_vec(),
        (None, None) => Vec::new(),
    };
    if axes.is_empty() && node.int("noop_with_empty_axes", 0) != 0 {
        return Ok(vec![x.clone()]);
    }
    let mut axes: Vec<usize> = match axes.is_empty() {
        true => (0..rank).collect(),
        false => axes.iter().map(|&axis| Node::axis(axis, rank)).collect::<Result<_, _>>()?,
    };
    axes.sort_unstable();
    axes.dedup();
    let mut mean = array.mapv(f64::from);
    for &axis in axes.iter().rev() {
        let count = mean.shape()[axis] as f64;
        mean = mean.sum_axis(Axis(axis)) / count;
        if node.int("keepdims", 1) != 0 {
            mean = mean.insert_axis(Axis(axis));
        }
    }
    Ok(vec![Tensor { element: x.element, values: Values::Float(mean.mapv(|x| x as f32)) }])
}
