//! Conv and ConvTranspose over any number of axes, from the definition.

use super::window::{each, output, spatial, transposed, under};
use super::{Inputs, input, optional};
use crate::formats::onnx::node::{Node, Problem, invalid};
use crate::formats::onnx::tensor::{Tensor, folded_count};
use ndarray::{ArrayD, IxDyn};

pub(super) fn run(node: &Node, inputs: &Inputs<'_>) -> Result<Vec<Tensor>, Problem> {
    let (x, w, bias) = (input(inputs, 0)?, input(inputs, 1)?, optional(inputs, 2));
    Ok(vec![match node.operator.as_str() {
        "Conv" => convolve(node, x, w, bias)?,
        _ => convolve_back(node, x, w, bias)?,
    }])
}

fn group(node: &Node) -> Result<usize, Problem> {
    match usize::try_from(node.int("group", 1)) {
        Ok(group) if group > 0 => Ok(group),
        _ => invalid(format!("group is {}", node.int("group", 1))),
    }
}

/// Sizes of both inputs, which must have as many axes, at least three.
fn sizes<'a>(x: &'a Tensor, w: &'a Tensor) -> Result<(&'a [usize], &'a [usize]), Problem> {
    let (x, w) = (x.dims(), w.dims());
    if x.len() != w.len() || x.len() < 3 {
        return invalid(format!("an input of {x:?} and weights of {w:?}"));
    }
    Ok((x, w))
}

pub(super) fn convolve(node: &Node, x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Result<Tensor, Problem> {
    let (dims, weights) = sizes(x, w)?;
    let (groups, filters, depth) = (group(node)?, weights[0], weights[1]);
    if depth * groups != dims[1] || !filters.is_multiple_of(groups) {
        return invalid(format!("an input of {dims:?} and weights of {weights:?} in {groups} groups"));
    }
    let window = spatial(node, &weights[2..], &dims[2..])?;
    let pixels = output(&window, &dims[2..], false)?;
    let mut wanted = vec![dims[0], filters];
    wanted.extend(&pixels);
    folded_count(&wanted)?;
    let (x, w) = (x.to_floats()?, w.to_floats()?);
    let bias = bias.map(Tensor::to_floats).transpose()?;
    let (map, taps) = (dims[2..].iter().product::<usize>(), weights[2..].iter().product::<usize>());
    let mut y = Vec::new();
    for (n, f) in (0..dims[0] * filters).map(|i| (i / filters, i % filters)) {
        let first = f / (filters / groups) * depth;
        each(&pixels, |at| {
            let mut sum = bias.as_ref().and_then(|b| b.get(f)).map_or(0.0, |&b| f64::from(b));
            let mut tap_number = 0;
            each(&weights[2..], |tap| {
                if let Some(place) = under(&window, &dims[2..], at, tap) {
                    for c in 0..depth {
                        let x = x[(n * dims[1] + first + c) * map + place];
                        sum += f64::from(x) * f64::from(w[(f * depth + c) * taps + tap_number]);
                    }
                }
                tap_number += 1;
            });
            y.push(sum as f32);
        });
    }
    ArrayD::from_shape_vec(IxDyn(&wanted), y).map(Tensor::floats).or_else(|e| invalid(e.to_string()))
}

fn convolve_back(node: &Node, x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Result<Tensor, Problem> {
    let (dims, weights) = sizes(x, w)?;
    let (groups, channels, group_filters) = (group(node)?, weights[0], weights[1]);
    if channels != dims[1] || !channels.is_multiple_of(groups) {
        return invalid(format!("an input of {dims:?} and weights of {weights:?} in {groups} groups"));
    }
    let shape = transposed(node, &weights[2..], &dims[2..])?;
    let filters = group_filters * groups;
    let mut wanted = vec![dims[0], filters];
    wanted.extend(&shape.output);
    let len = folded_count(&wanted)?;
    let (x, w) = (x.to_floats()?, w.to_floats()?);
    let bias = bias.map(Tensor::to_floats).transpose()?;
    let (map, taps) = (dims[2..].iter().product::<usize>(), weights[2..].iter().product::<usize>());
    let pixels = shape.output.iter().product::<usize>();
    let mut y = vec![0.0f64; len];
    for (n, c) in (0..dims[0] * channels).map(|i| (i / channels, i % channels)) {
        let first = c / (channels / groups) * group_filters;
        let mut place = 0;
        each(&dims[2..], |at| {
            let value = f64::from(x[(n * channels + c) * map + place]);
            place += 1;
            let mut tap_number = 0;
            each(&weights[2..], |tap| {
                if let Some(to) = under(&shape.spatial, &shape.output, at, tap) {
                    for f in 0..group_filters {
                        let w = f64::from(w[(c * group_filters + f) * taps + tap_number]);
                        y[(n * filters + first + f) * pixels + to] += value * w;
                    }
                }
                tap_number += 1;
            });
        });
    }
    let add = |(i, y): (usize, f64)| {
        let filter = i / pixels.max(1) % filters.max(1);
        (y + bias.as_ref().and_then(|b| b.get(filter)).map_or(0.0, |&b| f64::from(b))) as f32
    };
    let y = y.into_iter().enumerate().map(add).collect();
    ArrayD::from_shape_vec(IxDyn(&wanted), y).map(Tensor::floats).or_else(|e| invalid(e.to_string()))
}
