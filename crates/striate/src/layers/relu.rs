//! ReLU (section 5.5.1): `max(0, x)`.

use super::activation::{Activation, ActivationOperator, Function};
use super::{Operator, Rule};
use crate::kernels::elementwise;
use crate::shape::{Shape, ShapeError};
use serde::{Deserialize, Serialize};

/// The book's ReLU layer, for arrays of any dimension.
///
/// ```
/// use ndarray::array;
/// use striate::layers::Relu;
/// let mut relu = Relu::new();
/// assert_eq!(relu.forward(&array![[1., -2.]]), array![[1., 0.]]);
/// ```
pub type Relu = Activation<ReluFunction>;

/// ReLU as a function with its derivative.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReluFunction;

impl Function for ReluFunction {
    #[inline(always)]
    fn value(x: f32) -> f32 {
        elementwise::relu(x)
    }

    #[inline(always)]
    fn gradient(dy: f32, y: f32) -> f32 {
        if y > 0.0 { dy } else { 0.0 }
    }
}

/// ReLU in a network's description. It has no options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReluOptions {}

impl Rule for ReluOptions {
    fn kind(&self) -> &'static str {
        "ReLU"
    }

    fn describe(&self) -> String {
        String::new()
    }

    fn output(&self, input: Shape) -> Result<Shape, ShapeError> {
        Ok(input)
    }

    fn flops(&self, input: Shape) -> Result<u64, ShapeError> {
        Ok(input.len() as u64)
    }

    fn operator(&self, input: Shape, _batch: usize) -> Result<Box<dyn Operator>, ShapeError> {
        Ok(Box::new(ActivationOperator::<ReluFunction>::new(input)))
    }
}
