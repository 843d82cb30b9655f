//! Resize: a map of another height and width, each new pixel between the old ones.

use super::{Backward, Forward, Operator, Reach, Rule, Whole};
use crate::kernels::resize::{self as kernel, Axis, Taps};
pub use crate::kernels::resize::{Coordinates, Interpolation, Nearest};
use crate::shape::{Shape, ShapeError};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Resize as a layer of its own.
///
/// ```
/// use ndarray::array;
/// use striate::layers::{Resize, ResizeOptions};
/// let y = Resize::new(ResizeOptions::linear((1, 4), (1., 2.))).forward(&array![[[[1., 3.]]]])?;
/// assert_eq!(y, array![[[[1., 1.5, 2.5, 3.]]]]);
/// # Ok::<(), striate::shape::ShapeError>(())
/// ```
pub type Resize = Whole<ResizeOptions>;

/// Resize in a network's description.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResizeOptions {
    /// Height and width of the output.
    pub output: (usize, usize),
    /// New pixels for each old one, down and across. Where a scale is no whole number, the output may be cut short.
    pub scale: (f64, f64),
    /// How the places between pixels get their numbers.
    pub interpolation: Interpolation,
    /// Where a new pixel lies among the old ones.
    pub coordinates: Coordinates,
    /// Whether fewer pixels are means over all they stand for.
    #[serde(default)]
    pub antialias: bool,
    /// Whether pixels beyond the edge weigh nothing; else they repeat the edge.
    #[serde(default)]
    pub exclude_outside: bool,
}

impl ResizeOptions {
    /// Linear between the pixels, whose edges meet: what images are usually resized by.
    pub const fn linear(output: (usize, usize), scale: (f64, f64)) -> Self {
        Self {
            output,
            scale,
            interpolation: Interpolation::Linear,
            coordinates: Coordinates::HalfPixel,
            antialias: false,
            exclude_outside: false,
        }
    }

    fn axes(&self, input: Shape) -> [Axis; 2] {
        let axis = |input, output, scale| Axis {
            input,
            output,
            scale,
            coordinates: self.coordinates,
            interpolation: self.interpolation,
            antialias: self.antialias,
            exclude_outside: self.exclude_outside,
            region: (0.0, 1.0),
        };
        [axis(input.height, self.output.0, self.scale.0), axis(input.width, self.output.1, self.scale.1)]
    }
}

impl Rule for ResizeOptions {
    fn kind(&self) -> &'static str {
        "Resize"
    }

    fn describe(&self) -> String {
        let how = match self.interpolation {
            Interpolation::Nearest(_) => "nearest",
            Interpolation::Linear => "linear",
            Interpolation::Cubic(_) => "cubic",
        };
        format!("to {}x{}, {how}", self.output.0, self.output.1)
    }

    fn output(&self, input: Shape) -> Result<Shape, ShapeError> {
        let output = Shape::new(input.channels, self.output.0, self.output.1);
        output.checked_len(1)?;
        // A few weights for each old or new pixel.
        const FINEST: f64 = 1e-3;
        let scales = [self.scale.0, self.scale.1];
        if output.is_empty() || scales.iter().any(|scale| !(scale.is_finite() && *scale >= FINEST)) {
            let found = format!("{}x{} by {} and {}", self.output.0, self.output.1, self.scale.0, self.scale.1);
            return Err(ShapeError::Option {
                what: "the size of resize",
                found,
                expected: "at least 1x1, by 0.001 or more",
            });
        }
        Ok(output)
    }

    fn reach(&self) -> Reach {
        Reach::All
    }

    fn flops(&self, input: Shape) -> Result<u64, ShapeError> {
        Ok(8 * self.output(input)?.len() as u64)
    }

    fn operator(&self, input: Shape, _batch: usize) -> Result<Box<dyn Operator>, ShapeError> {
        let output = self.output(input)?;
        let [rows, columns] = self.axes(input).map(|axis| axis.taps());
        Ok(Box::new(ResizeOperator { input, output, rows, columns }))
    }
}

#[derive(Debug)]
struct ResizeOperator {
    input: Shape,
    output: Shape,
    rows: Vec<Taps>,
    columns: Vec<Taps>,
}

impl Operator for ResizeOperator {
    fn output(&self) -> Shape {
        self.output
    }

    fn forward(&self, f: Forward<'_>) {
        let planes = f.output.par_chunks_exact_mut(self.output.area()).zip(f.input.par_chunks_exact(self.input.area()));
        planes.for_each(|(y, x)| kernel::forward(&self.rows, &self.columns, x, self.input.width, y));
    }

    fn backward(&self, b: Backward<'_>) {
        let dx = b.input_gradient;
        let planes = dx.values.par_chunks_exact_mut(self.input.area());
        planes.zip(b.output_gradient.par_chunks_exact(self.output.area())).for_each(|(to, dy)| {
            if !dx.accumulate {
                to.fill(0.0);
            }
            kernel::backward(&self.rows, &self.columns, dy, self.input.width, to);
        });
    }
}
