//! PReLU (He et al. 2015): a leaky ReLU whose slopes are learnt.

use super::{Backward, Forward, Operator, ParameterRule, Role, Rule, Whole};
use crate::shape::{Shape, ShapeError};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// PReLU as a layer of its own; its parameters are the slopes.
///
/// ```
/// use ndarray::array;
/// use striate::layers::{PRelu, PReluOptions};
/// let mut prelu = PRelu::with_parameters(PReluOptions::default(), vec![0.5, 0.1]);
/// let y = prelu.forward(&array![[[[-2.]], [[-10.]]]])?;
/// assert_eq!(y, array![[[[-1.]], [[-1.]]]]);
/// prelu.backward(&array![[[[1.]], [[1.]]]])?;
/// assert_eq!(prelu.gradients, [-2., -10.]);
/// # Ok::<(), striate::shape::ShapeError>(())
/// ```
pub type PRelu = Whole<PReluOptions>;

/// PReLU in a network's description. Its parameter is `slope`: one number a channel, or one for all.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PReluOptions {
    /// Whether all channels have the same slope.
    pub shared: bool,
    /// How the slopes start.
    pub start: f32,
}

impl Default for PReluOptions {
    /// One a channel, from the paper's 0.25 on.
    fn default() -> Self {
        Self { shared: false, start: 0.25 }
    }
}

impl Rule for PReluOptions {
    fn kind(&self) -> &'static str {
        "PReLU"
    }

    fn describe(&self) -> String {
        if self.shared { "one slope".into() } else { String::new() }
    }

    fn output(&self, input: Shape) -> Result<Shape, ShapeError> {
        if self.start.is_finite() {
            return Ok(input);
        }
        let found = self.start.to_string();
        Err(ShapeError::Option { what: "the first slope of PReLU", found, expected: "a finite number, such as 0.25" })
    }

    fn parameters(&self, input: Shape) -> Result<Vec<ParameterRule>, ShapeError> {
        let slopes = if self.shared { 1 } else { input.channels };
        // As with normalisations, weight decay would do harm (He et al.).
        Ok(vec![ParameterRule::constant("slope", slopes, Role::Norm, self.start)])
    }

    fn flops(&self, input: Shape) -> Result<u64, ShapeError> {
        Ok(2 * input.len() as u64)
    }

    fn operator(&self, input: Shape, _batch: usize) -> Result<Box<dyn Operator>, ShapeError> {
        Ok(Box::new(PReluOperator { shape: self.output(input)?, shared: self.shared }))
    }
}

#[derive(Debug)]
struct PReluOperator {
    shape: Shape,
    shared: bool,
}

impl PReluOperator {
    fn slope(&self, plane: usize) -> usize {
        if self.shared { 0 } else { plane % self.shape.channels }
    }
}

impl Operator for PReluOperator {
    fn output(&self) -> Shape {
        self.shape
    }

    fn keeps_input(&self) -> bool {
        true
    }

    fn forward(&self, f: Forward<'_>) {
        let area = self.shape.area();
        let planes = f.output.par_chunks_exact_mut(area).zip(f.input.par_chunks_exact(area)).enumerate();
        planes.for_each(|(plane, (y, x))| {
            let slope = f.parameters[self.slope(plane)];
            y.iter_mut().zip(x).for_each(|(y, &x)| *y = if x < 0.0 { slope * x } else { x });
        });
    }

    fn backward(&self, b: Backward<'_>) {
        let area = self.shape.area();
        let dx = b.input_gradient;
        if !dx.values.is_empty() {
            let planes = dx.values.par_chunks_exact_mut(area).zip(b.input.par_chunks_exact(area));
            planes.zip(b.output_gradient.par_chunks_exact(area)).enumerate().for_each(|(plane, ((to, x), dy))| {
                let slope = b.parameters[self.slope(plane)];
                for ((to, &x), &dy) in to.iter_mut().zip(x).zip(dy) {
                    let gradient = if x < 0.0 { slope * dy } else { dy };
                    *to = if dx.accumulate { *to + gradient } else { gradient };
                }
            });
        }
        // Plane after plane, whatever the threads.
        b.parameter_gradient.fill(0.0);
        for (plane, (x, dy)) in b.input.chunks_exact(area).zip(b.output_gradient.chunks_exact(area)).enumerate() {
            let sum: f32 = x.iter().zip(dy).map(|(&x, &dy)| if x < 0.0 { x * dy } else { 0.0 }).sum();
            b.parameter_gradient[self.slope(plane)] += sum;
        }
    }
}
