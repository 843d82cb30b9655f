//! Sigmoid (section 5.5.2): `1 / (1 + exp(-x))`.

use super::activation::{Activation, ActivationOperator, Function};
use super::{Operator, Rule};
use crate::kernels::elementwise;
use crate::shape::{Shape, ShapeError};
use serde::{Deserialize, Serialize};

/// The book's Sigmoid layer, for arrays of any dimension.
///
/// ```
/// use ndarray::array;
/// use striate::layers::Sigmoid;
/// let mut sigmoid = Sigmoid::new();
/// assert_eq!(sigmoid.forward(&array![[0., 1e4]]), array![[0.5, 1.]]);
/// ```
pub type Sigmoid = Activation<SigmoidFunction>;

/// Sigmoid as a function with its derivative.
#[derive(Clone, Copy, Debug, Default)]
pub struct SigmoidFunction;

impl Function for SigmoidFunction {
    #[inline(always)]
    fn value(x: f32) -> f32 {
        elementwise::sigmoid(x)
    }

    #[inline(always)]
    fn gradient(dy: f32, y: f32) -> f32 {
        dy * (1.0 - y) * y
    }
}

/// Sigmoid in a network's description. It has no options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SigmoidOptions {}

impl Rule for SigmoidOptions {
    fn kind(&self) -> &'static str {
        "Sigmoid"
    }

    fn describe(&self) -> String {
        String::new()
    }

    fn output(&self, input: Shape) -> Result<Shape, ShapeError> {
        Ok(input)
    }

    fn flops(&self, input: Shape) -> Result<u64, ShapeError> {
        Ok(4 * input.len() as u64)
    }

    fn operator(&self, input: Shape, _batch: usize) -> Result<Box<dyn Operator>, ShapeError> {
        Ok(Box::new(ActivationOperator::<SigmoidFunction>::new(input)))
    }
}
