//! Reshape: the same numbers as a map of another shape. It costs nothing.

use super::{Operator, Rule, Whole, expect_shape};
use crate::shape::{Shape, ShapeError};
use serde::{Deserialize, Serialize};

/// Reshape as a layer of its own.
///
/// ```
/// use ndarray::Array4;
/// use striate::{layers::{Reshape, ReshapeOptions}, shape::Shape};
/// let mut reshape = Reshape::new(ReshapeOptions { output: Shape::new(6, 2, 1) });
/// assert_eq!(reshape.forward(&Array4::zeros((2, 3, 4, 1)))?.dim(), (2, 6, 2, 1));
/// # Ok::<(), striate::shape::ShapeError>(())
/// ```
pub type Reshape = Whole<ReshapeOptions>;

/// Reshape in a network's description.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReshapeOptions {
    /// One sample of the output, with as many numbers as the input.
    pub output: Shape,
}

impl Rule for ReshapeOptions {
    fn kind(&self) -> &'static str {
        "Reshape"
    }

    fn describe(&self) -> String {
        format!("to {}", self.output)
    }

    fn output(&self, input: Shape) -> Result<Shape, ShapeError> {
        expect_shape("the reshaped sample (numbers)", &[input.len()], &[self.output.checked_len(1)?])?;
        Ok(self.output)
    }

    fn reach(&self) -> super::Reach {
        super::Reach::All
    }

    fn is_view(&self, _training: bool) -> bool {
        true
    }

    fn flops(&self, _input: Shape) -> Result<u64, ShapeError> {
        Ok(0)
    }

    fn operator(&self, input: Shape, _batch: usize) -> Result<Box<dyn Operator>, ShapeError> {
        // A plan makes a view of a reshape; this is what it would be if it had to run.
        Ok(Box::new(super::ConcatOperator::new(input, self.output(input)?, 0)))
    }
}
