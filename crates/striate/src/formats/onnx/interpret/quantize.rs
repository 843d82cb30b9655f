//! Numbers of 8 bits: there, back, and a convolution between.

use super::{Inputs, input, optional};
use crate::formats::onnx::node::{Node, Problem, invalid, unsupported};
use crate::formats::onnx::tensor::{Element, Tensor, Values};
use ndarray::{ArrayD, IxDyn};

pub(super) fn run(node: &Node, inputs: &Inputs<'_>) -> Result<Vec<Tensor>, Problem> {
    let (x, axis) = (input(inputs, 0)?, node.int("axis", 1));
    let block = usize::try_from(node.int("block_size", 0)).unwrap_or(0);
    Ok(vec![match node.operator.as_str() {
        "QuantizeLinear" => {
            let zero = optional(inputs, 2);
            let element = match (zero, node.int("output_dtype", 0)) {
                (Some(zero), _) => zero.element,
                (None, 0) => Element::U8,
                (None, code) => Element::from_code(i32::try_from(code).unwrap_or(0))?,
            };
            quantized(x, input(inputs, 1)?, zero, axis, block, element)?
        }
        "DequantizeLinear" => blocks(x, input(inputs, 1)?, optional(inputs, 2), axis, block)?,
        _ => convolution(node, inputs)?,
    }])
}

/// One number of a scale or zero point for each number of `x`: one for all, one a place along the axis, or one for so many
/// places.
fn spread(values: &[f32], dims: &[usize], x: &[usize], axis: i64, block: usize) -> Result<ArrayD<f32>, Problem> {
    if values.len() == 1 {
        return Ok(ArrayD::from_elem(IxDyn(x), values[0]));
    }
    let axis = Node::axis(axis, x.len())?;
    let at = |index: &IxDyn| -> Option<f32> {
        if block == 0 {
            return values.get(index[axis]).copied();
        }
        let place =
            (0..x.len()).fold(0, |place, a| place * dims[a] + if a == axis { index[a] / block } else { index[a] });
        values.get(place).copied()
    };
    let fits = match block {
        0 => dims.len() == 1 && dims[0] == x[axis],
        _ => {
            dims.len() == x.len()
                && (0..x.len()).all(|a| dims[a] == if a == axis { x[a].div_ceil(block) } else { x[a] })
        }
    };
    if !fits {
        return invalid(format!("scales of shape {dims:?} along axis {axis} of {x:?}"));
    }
    Ok(ArrayD::from_shape_fn(IxDyn(x), |index| at(&index).unwrap_or(f32::NAN)))
}

fn quantized(
    x: &Tensor,
    scale: &Tensor,
    zero: Option<&Tensor>,
    axis: i64,
    block: usize,
    element: Element,
) -> Result<Tensor, Problem> {
    if element == Element::Text {
        return unsupported("to text");
    }
    let scales = spread(&scale.to_floats()?, scale.dims(), x.dims(), axis, block)?;
    let zeros = match zero {
        Some(zero) => spread(&zero.to_floats()?, zero.dims(), x.dims(), axis, block)?,
        None => ArrayD::zeros(x.dims()),
    };
    let (low, high) = element.range();
    let x = ArrayD::from_shape_vec(x.dims(), x.to_floats()?).or_else(|e| invalid(e.to_string()))?;
    let to = |&x: &f32, &scale: &f32, &zero: &f32| {
        ((x / scale).round_ties_even() as i64).saturating_add(zero as i64).clamp(low, high)
    };
    if element.is_float() {
        let to = |&x: &f32, &scale: &f32, &zero: &f32| element.round(x / scale + zero, true);
        let values = ndarray::Zip::from(&x).and(&scales).and(&zeros).map_collect(to);
        return Ok(Tensor { element, values: Values::Float(values) });
    }
    let values = ndarray::Zip::from(&x).and(&scales).and(&zeros).map_collect(to);
    Ok(Tensor { element, values: Values::Int(values) })
}

/// What whole numbers stand for.
pub(in crate::formats::onnx) fn dequantized(
    x: &Tensor,
    scale: &Tensor,
    zero: Option<&Tensor>,
    axis: i64,
) -> Result<Tensor, Problem> {
    blocks(x, scale, zero, axis, 0)
}

fn blocks(x: &Tensor, scale: &Tensor, zero: Option<&Tensor>, axis: i64, block: usize) -> Result<Tensor, Problem> {
    let scales = spread(&scale.to_floats()?, scale.dims(), x.dims(), axis, block)?;
    let zeros = match zero {
        Some(zero) => spread(&zero.to_floats()?, zero.dims(), x.dims(), axis, block)?,
        None => ArrayD::zeros(x.dims()),
    };
    let x = ArrayD::from_shape_vec(x.dims(), x.to_floats()?).or_else(|e| invalid(e.to_string()))?;
    let values = ndarray::Zip::from(&x).and(&scales).and(&zeros).map_collect(|&x, &scale, &zero| (x - zero) * scale);
    Ok(Tensor { element: scale.element, values: Values::Float(values) })
}

fn convolution(node: &Node, inputs: &Inputs<'_>) -> Result<Tensor, Problem> {
    let whole = |at: usize, zero: usize| -> Result<Tensor, Problem> {
        let one = Tensor::floats(ArrayD::from_elem(IxDyn(&[]), 1.0));
        dequantized(input(inputs, at)?, &one, Some(input(inputs, zero)?).filter(|zero| zero.len() == 1), 0)
    };
    let w_zero = input(inputs, 5)?;
    let x = whole(0, 2)?;
    let w = if w_zero.len() == 1 {
        whole(3, 5)?
    } else {
        let ones = Tensor::floats(ArrayD::ones(IxDyn(&[w_zero.len()])));
        dequantized(input(inputs, 3)?, &ones, Some(w_zero), 0)?
    };
    let bias = optional(inputs, 8)
        .map(|bias| bias.to_floats().map(|b| ArrayD::from_shape_vec(bias.dims(), b).unwrap_or_default()));
    let bias = bias.transpose()?.map(Tensor::floats);
    let sums = super::convolution::convolve(node, &x, &w, bias.as_ref())?;
    let (x_scale, w_scale) = (input(inputs, 1)?.scalar()?, input(inputs, 4)?.to_floats()?);
    let y_zero = input(inputs, 7)?;
    let y_scale = input(inputs, 6)?.scalar()?;
    let sums = sums.as_floats()?;
    let scaled = ArrayD::from_shape_fn(sums.raw_dim(), |index| {
        let filter = index[1];
        let scale = w_scale.get(filter).or(w_scale.first()).copied().unwrap_or(1.0);
        sums[&index] * x_scale * scale
    });
    let scale = Tensor::floats(ArrayD::from_elem(IxDyn(&[]), y_scale));
    quantized(&Tensor::floats(scaled), &scale, Some(y_zero), 1, 0, y_zero.element)
}
