//! BatchNormalization and LRN.

use super::{Inputs, input};
use crate::formats::onnx::node::{Node, Problem, invalid};
use crate::formats::onnx::tensor::Tensor;
use ndarray::{Array1, ArrayD, Axis};

pub(super) fn run(node: &Node, inputs: &Inputs<'_>) -> Result<Vec<Tensor>, Problem> {
    let x = input(inputs, 0)?.as_floats()?;
    if x.ndim() < 2 {
        return invalid(format!("an input of {:?}; a batch with channels is needed", x.shape()));
    }
    if node.operator == "LRN" {
        return Ok(vec![local_response(node, x)]);
    }
    let channels = x.shape()[1];
    let mut of = [const { Vec::new() }; 4];
    for (at, values) in of.iter_mut().enumerate() {
        *values = input(inputs, at + 1)?.to_floats()?;
        if values.len() != channels {
            return invalid(format!("input {} has {} numbers for {channels} channels", at + 1, values.len()));
        }
    }
    let [gamma, beta, mean, variance] = of;
    let (epsilon, momentum) = (node.float("epsilon", 1e-5), node.float("momentum", 0.9));
    let (mut used, mut running) = ((mean.clone(), variance.clone()), (mean, variance));
    if node.int("training_mode", 0) != 0 {
        for c in 0..channels {
            let values = x.index_axis(Axis(1), c);
            let count = values.len().max(1) as f64;
            let average = values.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
            let spread = values.iter().map(|&x| (f64::from(x) - average).powi(2)).sum::<f64>() / count;
            (used.0[c], used.1[c]) = (average as f32, spread as f32);
            running.0[c] = running.0[c] * momentum + average as f32 * (1.0 - momentum);
            running.1[c] = running.1[c] * momentum + spread as f32 * (1.0 - momentum);
        }
    }
    let mut y = x.clone();
    for (c, mut values) in y.axis_iter_mut(Axis(1)).enumerate() {
        let scale = gamma[c] / (used.1[c] + epsilon).sqrt();
        values.mapv_inplace(|x| (x - used.0[c]) * scale + beta[c]);
    }
    let list = |values: Vec<f32>| Tensor::floats(Array1::from(values).into_dyn());
    Ok(vec![Tensor::floats(y), list(running.0), list(running.1)])
}

/// The channels before and after count alike, one more after where the number is even.
fn local_response(node: &Node, x: &ArrayD<f32>) -> Tensor {
    let size = node.int("size", 1).clamp(1, 1 << 20) as usize;
    let (alpha, beta, bias) = (node.float("alpha", 1e-4), node.float("beta", 0.75), node.float("bias", 1.0));
    let channels = x.shape()[1];
    let (before, after) = ((size - 1) / 2, size / 2);
    let y = ArrayD::from_shape_fn(x.raw_dim(), |index| {
        let c = index[1];
        let mut place = index.clone();
        let sum: f32 = (c.saturating_sub(before)..=(c + after).min(channels - 1))
            .map(|j| {
                place[1] = j;
                x[&place] * x[&place]
            })
            .sum();
        x[&index] / (bias + alpha / size as f32 * sum).powf(beta)
    });
    Tensor::floats(y)
}
