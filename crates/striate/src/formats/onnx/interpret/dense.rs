//! Matrix products.

use super::arithmetic::{broadcast, widen};
use super::{Inputs, input, optional};
use crate::formats::onnx::node::{Node, Problem, invalid, unsupported};
use crate::formats::onnx::tensor::{Tensor, Values, folded_count};
use ndarray::{ArrayD, ArrayView2, Axis, Ix2, IxDyn};

pub(super) fn run(node: &Node, inputs: &Inputs<'_>) -> Result<Vec<Tensor>, Problem> {
    let (a, b) = (input(inputs, 0)?, input(inputs, 1)?);
    Ok(vec![match node.operator.as_str() {
        "Gemm" => gemm(node, a, b, optional(inputs, 2))?,
        _ => matmul(a, b)?,
    }])
}

fn matrix(tensor: &Tensor, transposed: bool) -> Result<ArrayView2<'_, f32>, Problem> {
    let matrix = tensor.as_floats()?.view().into_dimensionality::<Ix2>().or_else(|e| invalid(e.to_string()))?;
    Ok(if transposed { matrix.reversed_axes() } else { matrix })
}

/// `alpha a b + beta c`.
fn gemm(node: &Node, a: &Tensor, b: &Tensor, c: Option<&Tensor>) -> Result<Tensor, Problem> {
    let (a, b) = (matrix(a, node.int("transA", 0) != 0)?, matrix(b, node.int("transB", 0) != 0)?);
    if a.ncols() != b.nrows() {
        return invalid(format!("a product of {:?} and {:?}", a.shape(), b.shape()));
    }
    folded_count(&[a.nrows(), b.ncols()])?;
    let mut y = (a.dot(&b) * node.float("alpha", 1.0)).into_dyn();
    if let Some(c) = c {
        let dims = y.shape().to_vec();
        y += &(widen(c.as_floats()?, &dims)?.to_owned() * node.float("beta", 1.0));
    }
    Ok(Tensor::floats(y))
}

/// Products of the last two axes, the others broadcast; a missing axis is one of 1 that vanishes again.
fn matmul(a: &Tensor, b: &Tensor) -> Result<Tensor, Problem> {
    if matches!(a.values, Values::Text(_))
        || matches!(b.values, Values::Text(_))
        || a.dims().is_empty()
        || b.dims().is_empty()
    {
        return invalid("arrays with numbers along at least one axis are needed");
    }
    if a.element != b.element {
        return unsupported(format!("of {} and {}", a.element, b.element));
    }
    let wide = |tensor: &Tensor| {
        ArrayD::from_shape_vec(tensor.dims(), tensor.to_floats()?).or_else(|e| invalid(e.to_string()))
    };
    let (mut x, mut y) = (wide(a)?, wide(b)?);
    let (row, column) = (x.ndim() == 1, y.ndim() == 1);
    if row {
        x = x.insert_axis(Axis(0));
    }
    if column {
        y = y.insert_axis(Axis(1));
    }
    let (m, k) = (x.shape()[x.ndim() - 2], x.shape()[x.ndim() - 1]);
    let (rows, n) = (y.shape()[y.ndim() - 2], y.shape()[y.ndim() - 1]);
    if k != rows {
        return invalid(format!("a product of {:?} and {:?}", a.dims(), b.dims()));
    }
    let outer = broadcast(&x.shape()[..x.ndim() - 2], &y.shape()[..y.ndim() - 2])?;
    let with = |last: [usize; 2]| outer.iter().copied().chain(last).collect::<Vec<usize>>();
    let (left, right) = (widen(&x, &with([m, k]))?, widen(&y, &with([k, n]))?);
    folded_count(&with([m, n]))?;
    let mut products = Vec::new();
    super::window::each(&outer, |index| {
        let (mut left, mut right) = (left.clone(), right.clone());
        for &at in index {
            left = left.index_axis_move(Axis(0), at);
            right = right.index_axis_move(Axis(0), at);
        }
        for (i, j) in (0..m * n).map(|i| (i / n, i % n)) {
            let sum: f64 =
                (0..k).map(|k| f64::from(left[[i, k].as_slice()]) * f64::from(right[[k, j].as_slice()])).sum();
            products.push(sum as f32);
        }
    });
    let mut dims = with([m, n]);
    if column {
        dims.pop();
    }
    if row {
        dims.remove(dims.len() - if column { 1 } else { 2 });
    }
    let values = ArrayD::from_shape_vec(IxDyn(&dims), products).or_else(|e| invalid(e.to_string()))?;
    Ok(match a.values {
        Values::Int(_) => Tensor { element: a.element, values: Values::Int(values.mapv(|x| x as i64)) },
        _ => Tensor { element: a.element, values: Values::Float(values) },
    })
}
