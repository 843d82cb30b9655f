//! Log-softmax: the logarithms of probabilities over the channels, at each pixel.

use super::{Backward, Forward, Operator, Rule, Whole};
use crate::kernels::functions::exp;
use crate::shape::{Shape, ShapeError};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Log-softmax as a layer of its own.
///
/// ```
/// use ndarray::Array4;
/// use striate::layers::{LogSoftmax, LogSoftmaxOptions};
/// let y = LogSoftmax::new(LogSoftmaxOptions {}).forward(&Array4::zeros((1, 4, 1, 1)))?;
/// assert!((y[[0, 2, 0, 0]] + 4f32.ln()).abs() < 1e-6);
/// # Ok::<(), striate::shape::ShapeError>(())
/// ```
pub type LogSoftmax = Whole<LogSoftmaxOptions>;

/// Log-softmax in a network's description. Its output may be read as logits: softmax of it is softmax of its input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSoftmaxOptions {}

impl Rule for LogSoftmaxOptions {
    fn kind(&self) -> &'static str {
        "LogSoftmax"
    }

    fn describe(&self) -> String {
        String::new()
    }

    fn output(&self, input: Shape) -> Result<Shape, ShapeError> {
        Ok(input)
    }

    fn flops(&self, input: Shape) -> Result<u64, ShapeError> {
        Ok(5 * input.len() as u64)
    }

    fn operator(&self, input: Shape, _batch: usize) -> Result<Box<dyn Operator>, ShapeError> {
        Ok(Box::new(LogSoftmaxOperator(input)))
    }
}

#[derive(Debug)]
struct LogSoftmaxOperator(Shape);

impl Operator for LogSoftmaxOperator {
    fn output(&self) -> Shape {
        self.0
    }

    fn keeps_output(&self) -> bool {
        true
    }

    fn forward(&self, f: Forward<'_>) {
        let area = self.0.area();
        let samples = f.output.par_chunks_exact_mut(self.0.len()).zip(f.input.par_chunks_exact(self.0.len()));
        samples.for_each(|(y, x)| {
            for pixel in 0..area {
                let numbers = || x[pixel..].iter().step_by(area);
                let largest = numbers().fold(f32::NEG_INFINITY, |a, &b| if b > a || b.is_nan() { b } else { a });
                let log = numbers().map(|&x| exp(x - largest)).sum::<f32>().ln();
                let outputs = y[pixel..].iter_mut().step_by(area);
                outputs.zip(numbers()).for_each(|(y, &x)| *y = x - largest - log);
            }
        });
    }

    fn backward(&self, b: Backward<'_>) {
        let (area, len) = (self.0.area(), self.0.len());
        let dx = b.input_gradient;
        let samples = dx.values.par_chunks_exact_mut(len);
        samples.zip(b.output_gradient.par_chunks_exact(len)).zip(b.output.par_chunks_exact(len)).for_each(
            |((to, dy), y)| {
                for pixel in 0..area {
                    let sum: f32 = dy[pixel..].iter().step_by(area).sum();
                    for i in (pixel..len).step_by(area) {
                        let gradient = dy[i] - exp(y[i]) * sum;
                        to[i] = if dx.accumulate { to[i] + gradient } else { gradient };
                    }
                }
            },
        );
    }
}
