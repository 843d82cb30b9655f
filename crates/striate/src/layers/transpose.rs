//! Transpose: the axes of a sample in another order. A reshape, a transpose and a reshape make ShuffleNet's channel shuffle
//! (Zhang et al. 2017).

use super::gather::GatherOperator;
use super::{Operator, Reach, Rule, Whole, expect_shape};
use crate::shape::{Shape, ShapeError, checked_product};
use serde::{Deserialize, Serialize};

/// Transpose as a layer of its own.
///
/// ```
/// use ndarray::Array4;
/// use striate::layers::{Transpose, TransposeOptions};
/// // Six channels as two rows of three, read by columns: a channel shuffle of two groups.
/// let mut shuffle = Transpose::new(TransposeOptions { sizes: vec![2, 3, 1, 1], order: vec![1, 0, 2, 3] });
/// let x = Array4::from_shape_fn((1, 6, 1, 1), |(_, c, _, _)| c as f32);
/// let y = shuffle.forward(&x)?;
/// assert_eq!(y.iter().copied().collect::<Vec<_>>(), [0., 3., 1., 4., 2., 5.]);
/// # Ok::<(), striate::shape::ShapeError>(())
/// ```
pub type Transpose = Whole<TransposeOptions>;

/// Transpose in a network's description. With three axes the output is a map of them; with any other number it is flat, and
/// a [reshape](super::ReshapeOptions) makes a map of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransposeOptions {
    /// The sizes as which a sample of the input is read, in its own order.
    pub sizes: Vec<usize>,
    /// Which of those axes comes first, second and so on.
    pub order: Vec<usize>,
}

impl TransposeOptions {
    fn check(&self, input: Shape) -> Result<(), ShapeError> {
        let is_order =
            self.order.len() == self.sizes.len() && (0..self.sizes.len()).all(|axis| self.order.contains(&axis));
        if !is_order {
            let found = format!("{:?} for sizes {:?}", self.order, self.sizes);
            return Err(ShapeError::Option { what: "the order of transpose", found, expected: "each axis once" });
        }
        expect_shape("the sizes of transpose (numbers)", &[input.len()], &[checked_product(&self.sizes)?])
    }
}

impl Rule for TransposeOptions {
    fn kind(&self) -> &'static str {
        "Transpose"
    }

    fn describe(&self) -> String {
        let list = |values: &[usize]| values.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
        format!("{} by {}", list(&self.sizes), self.order.iter().map(usize::to_string).collect::<Vec<_>>().join(","))
    }

    fn output(&self, input: Shape) -> Result<Shape, ShapeError> {
        self.check(input)?;
        Ok(match self.order[..] {
            [a, b, c] => Shape::new(self.sizes[a], self.sizes[b], self.sizes[c]),
            _ => Shape::flat(input.len()),
        })
    }

    fn reach(&self) -> Reach {
        Reach::All
    }

    fn flops(&self, _input: Shape) -> Result<u64, ShapeError> {
        Ok(0)
    }

    fn operator(&self, input: Shape, _batch: usize) -> Result<Box<dyn Operator>, ShapeError> {
        let output = self.output(input)?;
        let rank = self.sizes.len();
        // Axes at the end that stay where they are move as one.
        let moved = (0..rank).rev().find(|&axis| self.order[axis] != axis).map_or(0, |axis| axis + 1);
        let run: usize = self.sizes[moved..].iter().product();
        let mut strides = vec![1; rank];
        for axis in (1..rank).rev() {
            strides[axis - 1] = strides[axis] * self.sizes[axis];
        }
        let place = |i: usize| {
            let mut rest = i;
            let mut place = 0;
            for &axis in self.order[..moved].iter().rev() {
                place += rest % self.sizes[axis] * strides[axis];
                rest /= self.sizes[axis];
            }
            Some(place)
        };
        Ok(Box::new(GatherOperator::new(input, output, run, 0.0, place)?))
    }
}
