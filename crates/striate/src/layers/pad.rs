//! Pad: a border around a map, of a constant or of the map's own numbers.

use super::gather::GatherOperator;
use super::{Operator, Reach, Rule, Whole};
use crate::shape::{Shape, ShapeError};
use serde::{Deserialize, Serialize};

/// Pad as a layer of its own.
///
/// ```
/// use ndarray::array;
/// use striate::layers::{Pad, PadMode, PadOptions};
/// let options = PadOptions { mode: PadMode::Reflect, channels: (0, 0), rows: (0, 0), columns: (2, 1) };
/// let y = Pad::new(options).forward(&array![[[[1., 2., 3.]]]])?;
/// assert_eq!(y, array![[[[3., 2., 1., 2., 3., 2.]]]]);
/// # Ok::<(), striate::shape::ShapeError>(())
/// ```
pub type Pad = Whole<PadOptions>;

/// What the border is made of.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PadMode {
    /// The same number everywhere.
    Constant {
        /// The number.
        value: f32,
    },
    /// The nearest number of the map.
    Edge,
    /// The map in a mirror that stands on its outermost numbers.
    Reflect,
    /// The map again from its other end.
    Wrap,
}

impl PadMode {
    /// The place among `size` that place `at` stands for.
    fn source(self, at: i64, size: i64) -> Option<i64> {
        match self {
            PadMode::Constant { .. } => (0..size).contains(&at).then_some(at),
            PadMode::Edge => Some(at.clamp(0, size - 1)),
            PadMode::Wrap => Some(at.rem_euclid(size)),
            PadMode::Reflect => {
                let period = (2 * (size - 1)).max(1);
                let at = at.rem_euclid(period);
                Some(if at < size { at } else { period - at })
            }
        }
    }
}

/// Pad in a network's description: numbers before and after along each axis.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PadOptions {
    /// What the border is made of.
    pub mode: PadMode,
    /// Channels before and after.
    pub channels: (usize, usize),
    /// Rows above and below.
    pub rows: (usize, usize),
    /// Columns to the left and to the right.
    pub columns: (usize, usize),
}

impl Rule for PadOptions {
    fn kind(&self) -> &'static str {
        "Pad"
    }

    fn describe(&self) -> String {
        let mode = match self.mode {
            PadMode::Constant { value } => format!("with {value}"),
            PadMode::Edge => "with the edge".into(),
            PadMode::Reflect => "reflected".into(),
            PadMode::Wrap => "wrapped around".into(),
        };
        let [rows, columns] = [self.rows, self.columns];
        format!("{},{},{},{} {mode}", rows.0, columns.0, rows.1, columns.1)
    }

    fn output(&self, input: Shape) -> Result<Shape, ShapeError> {
        let all = [(input.channels, self.channels), (input.height, self.rows), (input.width, self.columns)];
        let wider = |(size, (before, after)): (usize, (usize, usize))| size.checked_add(before)?.checked_add(after);
        let [Some(channels), Some(height), Some(width)] = all.map(wider) else {
            return Err(ShapeError::TooLarge { sizes: vec![input.channels, input.height, input.width] });
        };
        let output = Shape::new(channels, height, width);
        output.checked_len(1)?;
        match self.mode {
            PadMode::Constant { value } if !value.is_finite() => {
                let found = value.to_string();
                Err(ShapeError::Option { what: "the constant of pad", found, expected: "a finite number" })
            }
            _ => Ok(output),
        }
    }

    fn reach(&self) -> Reach {
        Reach::All
    }

    fn flops(&self, _input: Shape) -> Result<u64, ShapeError> {
        Ok(0)
    }

    fn operator(&self, input: Shape, _batch: usize) -> Result<Box<dyn Operator>, ShapeError> {
        let output = self.output(input)?;
        let constant = if let PadMode::Constant { value } = self.mode { value } else { 0.0 };
        let along = |at: usize, before: usize, size: usize| self.mode.source(at as i64 - before as i64, size as i64);
        let place = |i: usize| {
            let column = along(i % output.width, self.columns.0, input.width)? as usize;
            let line = i / output.width;
            let row = along(line % output.height, self.rows.0, input.height)? as usize;
            let channel = along(line / output.height, self.channels.0, input.channels)? as usize;
            Some((channel * input.height + row) * input.width + column)
        };
        Ok(Box::new(GatherOperator::new(input, output, 1, constant, place)?))
    }
}
