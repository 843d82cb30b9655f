//! Constants, and numbers of another type.

use super::{Inputs, input};
use crate::formats::onnx::node::{Node, Problem, invalid, unsupported};
use crate::formats::onnx::tensor::{Element, Tensor, Values, folded_count, sizes};
use ndarray::{ArrayD, IxDyn};

pub(super) fn run(node: &Node, inputs: &Inputs<'_>) -> Result<Vec<Tensor>, Problem> {
    Ok(vec![match node.operator.as_str() {
        "Constant" => constant(node)?,
        "ConstantOfShape" => {
            let dims = sizes(&input(inputs, 0)?.to_ints()?)?;
            folded_count(&dims)?;
            let value = node.tensor("value")?.unwrap_or(Tensor::floats(ArrayD::zeros(IxDyn(&[1]))));
            let (Values::Float(_) | Values::Int(_)) = value.values else { return unsupported("of text") };
            if value.len() != 1 {
                return invalid(format!("its value has {} numbers; 1 is needed", value.len()));
            }
            let one = super::super::tensor::each_type!(value, array => {
                array.clone().into_shape_with_order(IxDyn(&[])).or_else(|e| invalid(e.to_string()))?
            });
            super::arithmetic::expand(&one, &dims)?
        }
        "Range" => range(input(inputs, 0)?, input(inputs, 1)?, input(inputs, 2)?)?,
        "Identity" => input(inputs, 0)?.clone(),
        _ => {
            let code = node.int("to", 0);
            let element = Element::from_code(i32::try_from(code).unwrap_or(0))?;
            let rounding = Rounding { saturate: node.int("saturate", 1) != 0, mode: node.text("round_mode", "up") };
            cast(input(inputs, 0)?, element, &rounding)?
        }
    }])
}

fn constant(node: &Node) -> Result<Tensor, Problem> {
    if let Some(tensor) = node.tensor("value")? {
        return Ok(tensor);
    }
    let none = IxDyn(&[]);
    if node.has("value_float") {
        return Ok(Tensor::floats(ArrayD::from_elem(none, node.float("value_float", 0.0))));
    }
    if node.has("value_int") {
        return Ok(Tensor::ints(ArrayD::from_elem(none, node.int("value_int", 0))));
    }
    if let Some(list) = node.floats("value_floats") {
        return Ok(Tensor::floats(ArrayD::from_shape_vec(IxDyn(&[list.len()]), list.to_vec()).unwrap_or_default()));
    }
    if let Some(list) = node.ints("value_ints") {
        return Ok(Tensor::list(list.to_vec()));
    }
    if node.has("value_string") {
        let values = Values::Text(ArrayD::from_elem(none, node.text("value_string", "")));
        return Ok(Tensor { element: Element::Text, values });
    }
    if let Some(list) = node.texts("value_strings") {
        let values = Values::Text(ArrayD::from_shape_vec(IxDyn(&[list.len()]), list).unwrap_or_default());
        return Ok(Tensor { element: Element::Text, values });
    }
    unsupported("a constant of this kind; numbers and text are supported")
}

fn range(start: &Tensor, limit: &Tensor, delta: &Tensor) -> Result<Tensor, Problem> {
    let element = start.element;
    let (Values::Int(_), Values::Int(_), Values::Int(_)) = (&start.values, &limit.values, &delta.values) else {
        let (start, limit, delta) = (start.scalar()?, limit.scalar()?, delta.scalar()?);
        let count = ((limit - start) / delta).ceil().max(0.0);
        if !count.is_finite() {
            return invalid("it has no end");
        }
        let count = folded_count(&[count as usize])?;
        let values = (0..count)
            .map(|i| element.round(start + i as f32 * delta, true))
            .collect::<ndarray::Array1<f32>>()
            .into_dyn();
        return Ok(Tensor { element, values: Values::Float(values) });
    };
    let one = |tensor: &Tensor| match tensor.to_ints()?[..] {
        [n] => Ok(i128::from(n)),
        _ => invalid("a bound of several numbers"),
    };
    let (start, limit, delta) = (one(start)?, one(limit)?, one(delta)?);
    if delta == 0 {
        return invalid("it has no end");
    }
    let count = ((limit - start) + delta - delta.signum()) / delta;
    let count = folded_count(&[usize::try_from(count.max(0)).unwrap_or(usize::MAX)])?;
    // Within both bounds, so within 64 bits.
    let list = Tensor::list((0..count as i128).map(|i| (start + i * delta) as i64).collect());
    Ok(Tensor { element, ..list })
}

/// How a cast to floats of few bits rounds.
struct Rounding {
    /// Whether what is too large becomes the largest number.
    saturate: bool,
    /// For powers of 2 alone: `up`, `down` or `nearest`.
    mode: String,
}

impl Rounding {
    fn round(&self, element: Element, x: f32) -> f32 {
        if element != Element::F8E8M0 || !x.is_finite() {
            return if element == Element::F8E8M0 && x.is_infinite() && self.saturate {
                2f32.powi(127)
            } else {
                element.round(x, self.saturate)
            };
        }
        let exact = f64::from(x.abs()).log2();
        let power = match self.mode.as_str() {
            "up" => exact.ceil(),
            "down" => exact.floor(),
            // Halfway between two powers, not between their logarithms.
            _ if f64::from(x.abs()) >= 1.5 * 2f64.powf(exact.floor()) => exact.floor() + 1.0,
            _ => exact.floor(),
        };
        2f64.powf(power.clamp(-127.0, 127.0)) as f32
    }
}

/// Numbers of another type: whole ones lose their fraction and wrap around at the ends, truths are what is not 0.
fn cast(tensor: &Tensor, to: Element, rounding: &Rounding) -> Result<Tensor, Problem> {
    if to == tensor.element {
        return Ok(tensor.clone());
    }
    let whole = |n: i64| if to == Element::Bool { i64::from(n != 0) } else { super::arithmetic::wrap(to, n) };
    let values = match &tensor.values {
        Values::Float(array) if to.is_float() => Values::Float(array.mapv(|x| rounding.round(to, x))),
        Values::Float(array) if to == Element::Text => Values::Text(array.mapv(text)),
        Values::Float(array) if to == Element::Bool => Values::Int(array.mapv(|x| i64::from(x != 0.0))),
        Values::Float(array) => Values::Int(array.mapv(|x| whole(x as i64))),
        Values::Int(array) if to.is_float() => Values::Float(array.mapv(|n| rounding.round(to, n as f32))),
        Values::Int(array) if to == Element::Text => Values::Text(array.mapv(|n| n.to_string())),
        Values::Int(array) => Values::Int(array.mapv(whole)),
        Values::Text(array) => {
            let parsed: Result<Vec<f32>, _> = array.iter().map(|text| text.trim().parse::<f32>()).collect();
            let Ok(parsed) = parsed else { return invalid("text that is no number") };
            let numbers = Tensor::floats(ArrayD::from_shape_vec(array.raw_dim(), parsed).unwrap_or_default());
            return cast(&numbers, to, rounding);
        }
    };
    Ok(Tensor { element: to, values })
}

/// A number as NumPy writes it.
fn text(x: f32) -> String {
    if x.is_nan() {
        "NaN".into()
    } else if x.is_infinite() {
        (if x > 0.0 { "INF" } else { "-INF" }).into()
    } else {
        x.to_string()
    }
}
