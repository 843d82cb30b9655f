//! Activation functions, softmax and dropout.

use super::arithmetic::widen;
use super::{Inputs, input, optional};
use crate::formats::onnx::node::{Node, Problem, invalid, unsupported};
use crate::formats::onnx::tensor::{Element, Tensor, Values};
use ndarray::{ArrayD, Axis, Zip};

pub(super) fn run(node: &Node, inputs: &Inputs<'_>) -> Result<Vec<Tensor>, Problem> {
    let x = input(inputs, 0)?;
    let alpha = |default| node.float("alpha", default);
    let floats = |f: &dyn Fn(f32) -> f32| -> Result<Vec<Tensor>, Problem> {
        Ok(vec![Tensor { element: x.element, values: Values::Float(x.as_floats()?.mapv(f)) }])
    };
    match node.operator.as_str() {
        "Relu" if matches!(x.values, Values::Int(_)) => {
            Ok(vec![Tensor { element: x.element, values: Values::Int(x.as_ints()?.mapv(|n| n.max(0))) }])
        }
        "Relu" => floats(&|x| if x < 0.0 { 0.0 } else { x }),
        "LeakyRelu" => floats(&|x| if x < 0.0 { alpha(0.01) * x } else { x }),
        "Elu" => floats(&|x| if x < 0.0 { alpha(1.0) * x.exp_m1() } else { x }),
        "Selu" => {
            let (alpha, gamma) = (alpha(1.673_263_2), node.float("gamma", 1.050_701));
            floats(&|x| gamma * if x > 0.0 { x } else { alpha * x.exp_m1() })
        }
        "Sigmoid" => floats(&|x| 1.0 / (1.0 + (-x).exp())),
        "HardSigmoid" => floats(&|x| (alpha(0.2) * x + node.float("beta", 0.5)).clamp(0.0, 1.0)),
        "HardSwish" => floats(&|x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0)),
        "Tanh" => floats(&f32::tanh),
        "Erf" => floats(&erf),
        "PRelu" => {
            let (x, slope) = (x.as_floats()?, input(inputs, 1)?.as_floats()?);
            let slope = widen(slope, x.shape())?;
            let y = Zip::from(x).and(slope).map_collect(|&x, &slope| if x < 0.0 { slope * x } else { x });
            Ok(vec![Tensor::floats(y)])
        }
        "Clip" => clip(node, x, inputs),
        "Softmax" | "LogSoftmax" => softmax(node, x),
        "Dropout" => dropout(node, x, inputs),
        _ => unsupported("the operator is not supported"),
    }
}

/// The error function, by its series near 0 and its continued fraction far from it; to the last digits of an `f32`.
fn erf(x: f32) -> f32 {
    let x = f64::from(x);
    let size = x.abs();
    let value = if size < 3.0 {
        let (mut term, mut sum) = (size, size);
        for n in 1..80 {
            let n = f64::from(n);
            term *= -size * size / n;
            sum += term / (2.0 * n + 1.0);
        }
        sum * std::f64::consts::FRAC_2_SQRT_PI
    } else {
        1.0 - (-size * size).exp() / (size * std::f64::consts::PI.sqrt()) * (1.0 - 0.5 / (size * size))
    };
    value.copysign(x) as f32
}

fn clip(node: &Node, x: &Tensor, inputs: &Inputs<'_>) -> Result<Vec<Tensor>, Problem> {
    let bound = |at: usize| optional(inputs, at);
    let values = match &x.values {
        Values::Float(array) => {
            let low = bound(1).map(Tensor::scalar).transpose()?.unwrap_or(node.float("min", f32::NEG_INFINITY));
            let high = bound(2).map(Tensor::scalar).transpose()?.unwrap_or(node.float("max", f32::INFINITY));
            Values::Float(array.mapv(|x| x.max(low).min(high)))
        }
        Values::Int(array) => {
            let whole = |tensor: Option<&Tensor>, default: i64| match tensor.map(Tensor::to_ints).transpose()? {
                None => Ok(default),
                Some(list) if list.len() == 1 => Ok(list[0]),
                Some(_) => invalid("a bound of several numbers"),
            };
            let (low, high) = (whole(bound(1), i64::MIN)?, whole(bound(2), i64::MAX)?);
            Values::Int(array.mapv(|x| x.max(low).min(high)))
        }
        Values::Text(_) => return invalid("text where numbers are needed"),
    };
    Ok(vec![Tensor { element: x.element, values }])
}

fn softmax(node: &Node, x: &Tensor) -> Result<Vec<Tensor>, Problem> {
    let array = x.as_floats()?;
    let dims = array.shape().to_vec();
    // Up to operator set 12 everything from the axis on counted as one.
    let flat = node.opset < 13;
    let axis = Node::axis(node.int("axis", if flat { 1 } else { -1 }), dims.len().max(1))?;
    let mut y = if flat {
        let rows = dims[..axis].iter().product::<usize>();
        let columns = dims[axis..].iter().product::<usize>();
        array
            .as_standard_layout()
            .into_owned()
            .into_shape_with_order(ndarray::IxDyn(&[rows, columns]))
            .or_else(|e| invalid(e.to_string()))?
    } else {
        array.clone()
    };
    let along = if flat { 1 } else { axis };
    for mut lane in y.lanes_mut(Axis(along)) {
        let largest = lane.fold(f32::NEG_INFINITY, |a, &b| a.max(b));
        let sum: f64 = lane.iter().map(|&x| f64::from(x - largest).exp()).sum();
        let log = sum.ln();
        let is_log = node.operator == "LogSoftmax";
        lane.mapv_inplace(|x| {
            let value = f64::from(x - largest) - log;
            (if is_log { value } else { value.exp() }) as f32
        });
    }
    let y: ArrayD<f32> = y.into_shape_with_order(ndarray::IxDyn(&dims)).or_else(|e| invalid(e.to_string()))?;
    Ok(vec![Tensor { element: x.element, values: Values::Float(y) }])
}

/// As when predicting: the input itself. While training it is random, so that only a ratio of 0 can be compared.
fn dropout(node: &Node, x: &Tensor, inputs: &Inputs<'_>) -> Result<Vec<Tensor>, Problem> {
    let ratio = optional(inputs, 1).map(Tensor::scalar).transpose()?.unwrap_or(node.float("ratio", 0.5));
    let training = match optional(inputs, 2) {
        Some(flag) => flag.to_ints()?.first().is_some_and(|&flag| flag != 0),
        None => node.opset < 7 && node.int("is_test", 0) == 0,
    };
    if training && ratio != 0.0 {
        return unsupported("while training (training_mode), which is random");
    }
    let ones = ArrayD::from_elem(x.dims(), 1);
    // Before operator set 10 the mask had the input's type.
    let mask = match node.opset {
        ..10 => Tensor::floats(ones.mapv(|n| n as f32)),
        _ => Tensor { element: Element::Bool, values: Values::Int(ones) },
    };
    Ok(vec![x.clone(), mask])
}
