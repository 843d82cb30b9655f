//! Scale: numbers times learnt factors plus learnt shifts, one for all, one a channel, a row, a pixel or any mixture.

use super::{Backward, Forward, Init, Operator, ParameterRule, Role, Rule, Whole, expect_shape};
use crate::shape::{Shape, ShapeError};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Scale as a layer of its own; its parameters are the factors, then the shifts.
///
/// ```
/// use ndarray::array;
/// use striate::layers::{Scale, ScaleOptions};
/// let options = ScaleOptions { factor: Some([2, 1, 1]), shift: Some([1, 1, 1]) };
/// let mut scale = Scale::with_parameters(options, vec![2., 3., 1.]);
/// assert_eq!(scale.forward(&array![[[[1.]], [[1.]]]])?, array![[[[3.]], [[4.]]]]);
/// # Ok::<(), striate::shape::ShapeError>(())
/// ```
pub type Scale = Whole<ScaleOptions>;

/// Scale in a network's description. Its parameters are `gamma` (factors) and `beta` (shifts), each of the shape that is
/// said: along an axis one number for all places, or one for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScaleOptions {
    /// Channels, height and width of the factors; none if nothing is multiplied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factor: Option<[usize; 3]>,
    /// Channels, height and width of the shifts; none if nothing is added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shift: Option<[usize; 3]>,
}

impl Rule for ScaleOptions {
    fn kind(&self) -> &'static str {
        "Scale"
    }

    fn describe(&self) -> String {
        let shape = |what: &str, sizes: Option<[usize; 3]>| sizes.map(|sizes| format!("{what} {}", Shape::from(sizes)));
        [shape("times", self.factor), shape("plus", self.shift)].into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    fn output(&self, input: Shape) -> Result<Shape, ShapeError> {
        let whole: [usize; 3] = input.into();
        for sizes in [self.factor, self.shift].into_iter().flatten() {
            if sizes.iter().zip(&whole).any(|(&n, &size)| n != 1 && n != size) {
                expect_shape("the factors or shifts of scale (each 1 or the input's)", &whole, &sizes)?;
            }
        }
        Ok(input)
    }

    fn parameters(&self, input: Shape) -> Result<Vec<ParameterRule>, ShapeError> {
        self.output(input)?;
        let rule = |prefix, value, sizes: Option<[usize; 3]>| {
            sizes.map(|sizes| ParameterRule {
                prefix,
                shape: sizes.to_vec(),
                role: Role::Norm,
                init: Init::Constant { value },
                fan_in: 1,
            })
        };
        Ok([rule("gamma", 1.0, self.factor), rule("beta", 0.0, self.shift)].into_iter().flatten().collect())
    }

    fn flops(&self, input: Shape) -> Result<u64, ShapeError> {
        Ok(2 * input.len() as u64)
    }

    fn operator(&self, input: Shape, _batch: usize) -> Result<Box<dyn Operator>, ShapeError> {
        Ok(Box::new(ScaleOperator { shape: self.output(input)?, options: *self }))
    }
}

#[derive(Debug)]
struct ScaleOperator {
    shape: Shape,
    options: ScaleOptions,
}

impl ScaleOperator {
    /// Factors and shifts.
    fn split<'a>(&self, parameters: &'a [f32]) -> (&'a [f32], &'a [f32]) {
        parameters.split_at(self.options.factor.map_or(0, |sizes| sizes.iter().product()))
    }
}

/// The place among numbers of these sizes that stands for number `i` of a sample.
#[inline]
fn place(i: usize, shape: Shape, sizes: [usize; 3]) -> usize {
    let (line, column) = (i / shape.width, i % shape.width);
    let index = [line / shape.height, line % shape.height, column];
    index.iter().zip(&sizes).fold(0, |place, (&at, &size)| place * size + if size == 1 { 0 } else { at })
}

impl Operator for ScaleOperator {
    fn output(&self) -> Shape {
        self.shape
    }

    fn keeps_input(&self) -> bool {
        self.options.factor.is_some()
    }

    fn forward(&self, f: Forward<'_>) {
        let (factors, shifts) = self.split(f.parameters);
        let samples = f.output.par_chunks_exact_mut(self.shape.len()).zip(f.input.par_chunks_exact(self.shape.len()));
        samples.for_each(|(y, x)| {
            for (i, (y, &x)) in y.iter_mut().zip(x).enumerate() {
                let scaled = self.options.factor.map_or(x, |sizes| x * factors[place(i, self.shape, sizes)]);
                *y = self.options.shift.map_or(scaled, |sizes| scaled + shifts[place(i, self.shape, sizes)]);
            }
        });
    }

    fn backward(&self, b: Backward<'_>) {
        let (factors, _) = self.split(b.parameters);
        let len = self.shape.len();
        let dx = b.input_gradient;
        dx.values.par_chunks_exact_mut(len).zip(b.output_gradient.par_chunks_exact(len)).for_each(|(to, dy)| {
            for (i, (to, &dy)) in to.iter_mut().zip(dy).enumerate() {
                let gradient = self.options.factor.map_or(dy, |sizes| dy * factors[place(i, self.shape, sizes)]);
                *to = if dx.accumulate { *to + gradient } else { gradient };
            }
        });
        // Number after number, whatever the threads.
        b.parameter_gradient.fill(0.0);
        let (dfactors, dshifts) = b.parameter_gradient.split_at_mut(factors.len());
        if let Some(sizes) = self.options.factor {
            for (x, dy) in b.input.chunks_exact(len).zip(b.output_gradient.chunks_exact(len)) {
                x.iter().zip(dy).enumerate().for_each(|(i, (x, dy))| dfactors[place(i, self.shape, sizes)] += x * dy);
            }
        }
        if let Some(sizes) = self.options.shift {
            for dy in b.output_gradient.chunks_exact(len) {
                dy.iter().enumerate().for_each(|(i, dy)| dshifts[place(i, self.shape, sizes)] += dy);
            }
        }
    }
}
