//! Numbers with numbers, one by one, with broadcasting.

use super::{Inputs, input};
use crate::formats::onnx::node::{Node, Problem, invalid, unsupported};
use crate::formats::onnx::tensor::{Element, Tensor, Values, each_type, folded_count};
use ndarray::{ArrayD, IxDyn, Zip};

pub(super) fn run(node: &Node, inputs: &Inputs<'_>) -> Result<Vec<Tensor>, Problem> {
    let operator = node.operator.as_str();
    if operator == "Where" {
        return Ok(vec![choose(input(inputs, 0)?, input(inputs, 1)?, input(inputs, 2)?)?]);
    }
    let first = input(inputs, 0)?;
    if let Some(function) = single(operator) {
        let values = match &first.values {
            Values::Float(array) => Values::Float(array.mapv(function)),
            // Exact for what shapes hold.
            Values::Int(array) if matches!(operator, "Neg" | "Abs" | "Not" | "Floor" | "Ceil" | "Round") => {
                Values::Int(array.mapv(|n| match operator {
                    "Neg" => n.wrapping_neg(),
                    "Abs" => n.wrapping_abs(),
                    "Not" => i64::from(n == 0),
                    _ => n,
                }))
            }
            _ => return unsupported(format!("of numbers of type {}", first.element)),
        };
        return Ok(vec![Tensor { element: first.element, values }]);
    }
    // What is left over has the sign of the divisor, or with `fmod` that of what is divided.
    let operator = if operator == "Mod" && node.int("fmod", 0) != 0 { "fmod" } else { operator };
    let mut result = first.clone();
    for at in 1..inputs.len().max(if matches!(operator, "Min" | "Max") { 1 } else { 2 }) {
        result = two(operator, &result, input(inputs, at)?)?;
    }
    Ok(vec![result])
}

/// Functions of one number.
fn single(operator: &str) -> Option<fn(f32) -> f32> {
    Some(match operator {
        "Floor" => f32::floor,
        "Ceil" => f32::ceil,
        "Round" => f32::round_ties_even,
        "Neg" => |x| -x,
        "Abs" => f32::abs,
        "Sqrt" => f32::sqrt,
        "Reciprocal" => f32::recip,
        "Exp" => f32::exp,
        "Log" => f32::ln,
        "Not" => |x| x,
        _ => return None,
    })
}

/// Functions of two numbers.
fn two(operator: &str, a: &Tensor, b: &Tensor) -> Result<Tensor, Problem> {
    let dims = broadcast(a.dims(), b.dims())?;
    folded_count(&dims)?;
    let truth = |array: ArrayD<i64>| Tensor { element: Element::Bool, values: Values::Int(array) };
    match (&a.values, &b.values) {
        (Values::Float(x), Values::Float(y)) => {
            let compare: Option<fn(f32, f32) -> bool> = match operator {
                "Equal" => Some(|a, b| a == b),
                "Less" => Some(|a, b| a < b),
                "Greater" => Some(|a, b| a > b),
                _ => None,
            };
            if let Some(compare) = compare {
                return Ok(truth(zip(x, y, &dims, |a, b| i64::from(compare(a, b)))?));
            }
            let function: fn(f32, f32) -> f32 = match operator {
                "Add" => |a, b| a + b,
                "Sub" => |a, b| a - b,
                "Mul" => |a, b| a * b,
                "Div" => |a, b| a / b,
                "Pow" => f32::powf,
                "Min" => f32::min,
                "Max" => f32::max,
                "fmod" => |a, b| a % b,
                "Mod" => |a, b| {
                    let rest = a % b;
                    if rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest }
                },
                _ => return unsupported("of floats"),
            };
            Ok(Tensor { element: a.element, values: Values::Float(zip(x, y, &dims, function)?) })
        }
        (Values::Int(x), Values::Int(y)) => {
            if matches!(operator, "Div" | "Mod" | "fmod") && y.iter().any(|&n| n == 0) {
                return invalid("a division by 0");
            }
            let compare: Option<fn(i64, i64) -> bool> = match operator {
                "Equal" => Some(|a, b| a == b),
                "Less" => Some(|a, b| a < b),
                "Greater" => Some(|a, b| a > b),
                "And" => Some(|a, b| a != 0 && b != 0),
                "Or" => Some(|a, b| a != 0 || b != 0),
                _ => None,
            };
            if let Some(compare) = compare {
                return Ok(truth(zip(x, y, &dims, |a, b| i64::from(compare(a, b)))?));
            }
            let function: fn(i64, i64) -> i64 = match operator {
                "Add" => i64::wrapping_add,
                "Sub" => i64::wrapping_sub,
                "Mul" => i64::wrapping_mul,
                "Div" => i64::wrapping_div,
                "fmod" => i64::wrapping_rem,
                "Mod" => |a, b| {
                    let rest = a.wrapping_rem(b);
                    if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest }
                },
                "Min" => i64::min,
                "Max" => i64::max,
                _ => return unsupported("of whole numbers"),
            };
            let element = a.element;
            let values = zip(x, y, &dims, |a, b| wrap(element, function(a, b)))?;
            Ok(Tensor { element, values: Values::Int(values) })
        }
        _ => unsupported(format!("of {} and {}", a.element, b.element)),
    }
}

/// Whole numbers wrap around at the ends of their type.
pub(super) fn wrap(element: Element, n: i64) -> i64 {
    match element {
        Element::U8 => (n as u8).into(),
        Element::I8 => (n as i8).into(),
        Element::U16 => (n as u16).into(),
        Element::I16 => (n as i16).into(),
        Element::I32 => (n as i32).into(),
        Element::U32 => (n as u32).into(),
        Element::U4 => n & 15,
        Element::I4 => (n << 60) >> 60,
        Element::U2 => n & 3,
        Element::I2 => (n << 62) >> 62,
        _ => n,
    }
}

/// The shape that two arrays of these shapes have in common, aligned at the end.
pub(super) fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>, Problem> {
    let rank = a.len().max(b.len());
    let size = |dims: &[usize], axis: usize| (axis + dims.len()).checked_sub(rank).map_or(1, |at| dims[at]);
    (0..rank)
        .map(|axis| match (size(a, axis), size(b, axis)) {
            (n, m) if n == m || m == 1 => Ok(n),
            (1, m) => Ok(m),
            _ => invalid(format!("shapes {a:?} and {b:?} do not go together")),
        })
        .collect()
}

/// An array in a larger shape.
pub(super) fn widen<'a, T>(array: &'a ArrayD<T>, dims: &[usize]) -> Result<ndarray::ArrayViewD<'a, T>, Problem> {
    match array.broadcast(IxDyn(dims)) {
        Some(view) => Ok(view),
        None => invalid(format!("shape {:?} does not go into {dims:?}", array.shape())),
    }
}

fn zip<T: Copy, U>(a: &ArrayD<T>, b: &ArrayD<T>, dims: &[usize], f: impl Fn(T, T) -> U) -> Result<ArrayD<U>, Problem> {
    Ok(Zip::from(widen(a, dims)?).and(widen(b, dims)?).map_collect(|&a, &b| f(a, b)))
}

fn choose(condition: &Tensor, a: &Tensor, b: &Tensor) -> Result<Tensor, Problem> {
    let dims = broadcast(&broadcast(condition.dims(), a.dims())?, b.dims())?;
    folded_count(&dims)?;
    let condition = widen(condition.as_ints()?, &dims)?;
    fn pick<T: Clone>(
        condition: ndarray::ArrayViewD<'_, i64>,
        a: ndarray::ArrayViewD<'_, T>,
        b: ndarray::ArrayViewD<'_, T>,
    ) -> ArrayD<T> {
        Zip::from(condition).and(a).and(b).map_collect(|&c, a, b| if c != 0 { a.clone() } else { b.clone() })
    }
    let values = match (&a.values, &b.values) {
        (Values::Float(a), Values::Float(b)) => Values::Float(pick(condition, widen(a, &dims)?, widen(b, &dims)?)),
        (Values::Int(a), Values::Int(b)) => Values::Int(pick(condition, widen(a, &dims)?, widen(b, &dims)?)),
        _ => return unsupported("of these types"),
    };
    Ok(Tensor { element: a.element, values })
}

/// An array of any type in a larger shape.
pub(super) fn expand(tensor: &Tensor, dims: &[usize]) -> Result<Tensor, Problem> {
    folded_count(dims)?;
    Ok(each_type!(tensor, array => widen(array, dims)?.to_owned()))
}
