//! Operators computed plainly, from their definitions, on arrays: for what a graph computes from constants alone, and for
//! the comparison with the standard's own tests. One family a file.

mod activation;
mod arithmetic;
mod convolution;
mod creation;
mod dense;
mod normalization;
mod pooling;
pub(super) mod quantize;
pub(super) mod resize;
pub(super) mod shape;
pub(super) mod window;

use super::node::{Node, Problem, invalid, unsupported};
use super::tensor::Tensor;

/// A node's inputs; `None` where an optional one is left out.
pub(super) type Inputs<'a> = [Option<&'a Tensor>];

/// An input that must be there.
fn input<'a>(inputs: &Inputs<'a>, at: usize) -> Result<&'a Tensor, Problem> {
    match optional(inputs, at) {
        Some(tensor) => Ok(tensor),
        None => invalid(format!("it has no input {at}")),
    }
}

fn optional<'a>(inputs: &Inputs<'a>, at: usize) -> Option<&'a Tensor> {
    inputs.get(at).copied().flatten()
}

/// Whether [`run`] can compute this operator.
pub(super) fn knows(operator: &str) -> bool {
    family(operator).is_some()
}

type Family = fn(&Node, &Inputs<'_>) -> Result<Vec<Tensor>, Problem>;

/// The file that computes an operator, and whether graphs may have it computed: what takes more time than its numbers are
/// many is left to layers.
fn family(operator: &str) -> Option<(Family, bool)> {
    Some(match operator {
        "Add" | "Sub" | "Mul" | "Div" | "Mod" | "Pow" | "Equal" | "Less" | "Greater" | "And" | "Or" | "Not" | "Min"
        | "Max" | "Where" | "Floor" | "Ceil" | "Round" | "Neg" | "Abs" | "Sqrt" | "Reciprocal" | "Exp" | "Log" => {
            (arithmetic::run, true)
        }
        "Relu" | "LeakyRelu" | "PRelu" | "Elu" | "Selu" | "Sigmoid" | "HardSigmoid" | "HardSwish" | "Tanh" | "Clip"
        | "Softmax" | "LogSoftmax" | "Dropout" | "Erf" => (activation::run, true),
        "Constant" | "ConstantOfShape" | "Range" | "Cast" | "Identity" => (creation::run, true),
        "Flatten" | "Reshape" | "Squeeze" | "Unsqueeze" | "Shape" | "Size" | "Transpose" | "Concat" | "Split"
        | "Slice" | "Pad" | "Gather" | "Expand" => (shape::run, true),
        "QuantizeLinear" | "DequantizeLinear" => (quantize::run, true),
        "QLinearConv" => (quantize::run, false),
        "Conv" | "ConvTranspose" => (convolution::run, false),
        "MaxPool" | "AveragePool" | "GlobalMaxPool" | "GlobalAveragePool" | "ReduceMean" => (pooling::run, false),
        "LRN" | "BatchNormalization" => (normalization::run, false),
        "Gemm" | "MatMul" => (dense::run, false),
        "Resize" => (resize::run, false),
        _ => return None,
    })
}

/// Outputs of a node of constants, as a graph needs them.
pub(super) fn fold(node: &Node, inputs: &Inputs<'_>) -> Result<Vec<Tensor>, Problem> {
    match family(&node.operator) {
        Some((run, true)) => run(node, inputs),
        _ => unsupported(
            "all its inputs are constants; only what changes shapes and numbers one by one is then computed",
        ),
    }
}

/// Outputs of a node; those after the last that is asked for may be missing.
#[cfg(test)]
pub(super) fn run(node: &Node, inputs: &Inputs<'_>) -> Result<Vec<Tensor>, Problem> {
    match family(&node.operator) {
        Some((run, _)) => run(node, inputs),
        None => unsupported("the operator is not supported"),
    }
}
