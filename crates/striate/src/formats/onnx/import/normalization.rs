//! BatchNormalization and LRN.

use super::{Call, Flow, Importer};
use crate::formats::onnx::node::{Problem, invalid, unsupported};
use crate::layers::{BatchNormOptions, LocalResponseNormOptions};

impl Importer<'_> {
    pub(super) fn batch_norm(&mut self, call: &Call<'_>) -> Result<Flow, Problem> {
        let node = call.node;
        if node.int("spatial", 1) == 0 {
            return unsupported("statistics for each pixel (spatial = 0)");
        }
        if node.int("training_mode", 0) != 0 {
            return unsupported("the file was exported for training (training_mode); export it for inference");
        }
        let mut parameters = Vec::with_capacity(4);
        for at in 1..5 {
            parameters.push(call.constant(at)?.to_floats()?);
        }
        // ONNX's momentum is the share that stays, ours that which is taken up.
        let momentum = (1.0 - node.float("momentum", 0.9)).clamp(0.0, 1.0);
        let options = BatchNormOptions { epsilon: node.float("epsilon", 1e-5), momentum };
        self.unary(call, options, parameters)
    }

    /// ONNX divides the sum by the size, and looks further ahead than back where the size is even.
    pub(super) fn local_response_norm(&mut self, call: &Call<'_>) -> Result<Flow, Problem> {
        let node = call.node;
        let size = match usize::try_from(node.int("size", 0)) {
            Ok(size) if size % 2 == 1 => size,
            Ok(size) if size > 0 => {
                return unsupported(format!("an even number of channels ({size}); an odd one is needed"));
            }
            _ => return invalid("it has no size"),
        };
        let options = LocalResponseNormOptions {
            size,
            k: node.float("bias", 1.0),
            alpha: node.float("alpha", 1e-4) / size as f32,
            beta: node.float("beta", 0.75),
        };
        self.unary(call, options, vec![])
    }
}
