//! Gemm and MatMul: fully connected layers.

use super::{Call, Flow, Importer};
use crate::formats::onnx::node::{Problem, invalid, unsupported};
use crate::formats::onnx::tensor::Tensor;
use crate::layers::{AffineOptions, Init};

/// Weights (inputs, outputs), from (outputs, inputs) where they are transposed.
fn weights(b: &Tensor, transposed: bool) -> Result<(Vec<f32>, usize, usize), Problem> {
    let values = b.as_floats()?;
    let &[rows, columns] = values.shape() else {
        return unsupported(format!("its weights have the shape {:?}; two axes are needed", values.shape()));
    };
    if transposed {
        return Ok((values.t().iter().copied().collect(), columns, rows));
    }
    Ok((values.iter().copied().collect(), rows, columns))
}

impl Importer<'_> {
    pub(super) fn gemm(&mut self, call: &Call<'_>) -> Result<Flow, Problem> {
        let node = call.node;
        if node.int("transA", 0) != 0 {
            return unsupported("its input is transposed (transA)");
        }
        let (mut w, inputs, outputs) = weights(call.constant(1)?, node.int("transB", 0) != 0)?;
        let (alpha, beta) = (node.float("alpha", 1.0), node.float("beta", 1.0));
        if alpha != 1.0 {
            w.iter_mut().for_each(|w| *w *= alpha);
        }
        let bias = match call.optional(2)? {
            None => None,
            Some(c) => {
                let c = c.as_floats()?;
                let Some(row) = c.broadcast((1, outputs)) else {
                    return unsupported(format!(
                        "its bias has the shape {:?}; one number an output is needed",
                        c.shape()
                    ));
                };
                Some(row.iter().map(|c| beta * c).collect())
            }
        };
        self.affine(call, w, (inputs, outputs), bias)
    }

    pub(super) fn matmul(&mut self, call: &Call<'_>) -> Result<Flow, Problem> {
        let (w, inputs, outputs) = weights(call.constant(1)?, false)?;
        self.affine(call, w, (inputs, outputs), None)
    }

    fn affine(
        &mut self,
        call: &Call<'_>,
        w: Vec<f32>,
        (inputs, outputs): (usize, usize),
        bias: Option<Vec<f32>>,
    ) -> Result<Flow, Problem> {
        let flow = call.flow(0)?;
        let &[batch, features] = flow.dims.as_slice() else {
            return unsupported(format!("its input has the shape {:?}; (N, features) is needed", flow.dims));
        };
        if batch != self.batch || flow.quantized {
            return unsupported(format!("its input has the shape {:?}, whose first axis is not the batch", flow.dims));
        }
        if features != inputs {
            return invalid(format!("its weights are for {inputs} inputs, and it has {features}"));
        }
        // An affine layer reads its input flat, whatever its shape.
        let source = flow.source;
        let open = bias.is_none();
        let parameters = vec![w, bias.unwrap_or_else(|| vec![0.0; outputs])];
        let (at, shape) = self.push(call.node, "", AffineOptions::new(outputs, Init::He), &[source], parameters)?;
        self.layers[at].open_bias = open;
        Ok(self.flow(at, shape, 2))
    }
}
