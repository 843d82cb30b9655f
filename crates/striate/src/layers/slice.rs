//! Slice: some channels, rows and columns of a map.

use super::gather::GatherOperator;
use super::{Operator, Reach, Rule, Whole};
use crate::shape::{Shape, ShapeError};
use serde::{Deserialize, Serialize};

/// Slice as a layer of its own.
///
/// ```
/// use ndarray::Array4;
/// use striate::layers::{Slice, SliceOptions, SliceRange};
/// let all = SliceRange { start: 0, count: 1, step: 1 };
/// let every_second = SliceRange { start: 1, count: 2, step: 2 };
/// let mut slice = Slice::new(SliceOptions { channels: every_second, rows: all, columns: all });
/// let x = Array4::from_shape_fn((1, 4, 1, 1), |(_, c, _, _)| c as f32);
/// assert_eq!(slice.forward(&x)?.iter().copied().collect::<Vec<_>>(), [1., 3.]);
/// # Ok::<(), striate::shape::ShapeError>(())
/// ```
pub type Slice = Whole<SliceOptions>;

/// What is taken along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SliceRange {
    /// The first place.
    pub start: usize,
    /// How many.
    pub count: usize,
    /// How far they are apart.
    pub step: usize,
}

impl SliceRange {
    fn check(&self, what: &'static str, size: usize) -> Result<usize, ShapeError> {
        let last =
            self.count.checked_sub(1).and_then(|n| n.checked_mul(self.step)).and_then(|n| n.checked_add(self.start));
        match last {
            Some(last) if self.step > 0 && last < size => Ok(self.count),
            _ => {
                let found = format!("{} from {} in steps of {}, of {size}", self.count, self.start, self.step);
                Err(ShapeError::Option { what, found, expected: "at least one, all of them inside" })
            }
        }
    }
}

/// Slice in a network's description.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SliceOptions {
    /// Which channels.
    pub channels: SliceRange,
    /// Which rows.
    pub rows: SliceRange,
    /// Which columns.
    pub columns: SliceRange,
}

impl Rule for SliceOptions {
    fn kind(&self) -> &'static str {
        "Slice"
    }

    fn describe(&self) -> String {
        let range = |r: SliceRange| match r.step {
            1 => format!("{}..{}", r.start, r.start + r.count),
            step => format!("{}..{} by {step}", r.start, r.start + r.count.saturating_sub(1) * step + 1),
        };
        format!("{}, {}, {}", range(self.channels), range(self.rows), range(self.columns))
    }

    fn output(&self, input: Shape) -> Result<Shape, ShapeError> {
        Ok(Shape::new(
            self.channels.check("the channels of slice", input.channels)?,
            self.rows.check("the rows of slice", input.height)?,
            self.columns.check("the columns of slice", input.width)?,
        ))
    }

    fn reach(&self) -> Reach {
        // Places move.
        Reach::All
    }

    fn flops(&self, _input: Shape) -> Result<u64, ShapeError> {
        Ok(0)
    }

    fn operator(&self, input: Shape, _batch: usize) -> Result<Box<dyn Operator>, ShapeError> {
        let output = self.output(input)?;
        let run = if self.columns.step == 1 { output.width } else { 1 };
        let place = |i: usize| {
            let (line, column) = (i * run / output.width, i * run % output.width);
            let channel = self.channels.start + line / output.height * self.channels.step;
            let row = self.rows.start + line % output.height * self.rows.step;
            Some((channel * input.height + row) * input.width + self.columns.start + column * self.columns.step)
        };
        Ok(Box::new(GatherOperator::new(input, output, run, 0.0, place)?))
    }
}
