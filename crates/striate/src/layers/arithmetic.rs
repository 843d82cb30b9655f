//! Arithmetic: two inputs number by number, one of which may stand for several places of the other. With one number a channel
//! in one of them, the product is the excitation of a squeeze-and-excitation block (Hu et al. 2018).

use super::{Backward, Forward, Gradient, Operator, Rule, inputs_error};
use crate::shape::{Shape, ShapeError};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// What is done with two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arithmetic {
    /// a + b
    Add,
    /// a - b
    Subtract,
    /// a b
    Multiply,
    /// a / b
    Divide,
}

impl Arithmetic {
    #[inline(always)]
    fn value(self, a: f32, b: f32) -> f32 {
        match self {
            Arithmetic::Add => a + b,
            Arithmetic::Subtract => a - b,
            Arithmetic::Multiply => a * b,
            Arithmetic::Divide => a / b,
        }
    }

    /// The gradients of both.
    #[inline(always)]
    fn gradients(self, a: f32, b: f32, dy: f32) -> (f32, f32) {
        match self {
            Arithmetic::Add => (dy, dy),
            Arithmetic::Subtract => (dy, -dy),
            Arithmetic::Multiply => (dy * b, dy * a),
            Arithmetic::Divide => (dy / b, -dy * a / (b * b)),
        }
    }
}

/// Arithmetic in a network's description: it takes two inputs whose sizes are the same, or 1 in one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArithmeticOptions {
    /// What is done.
    pub operation: Arithmetic,
}

impl Rule for ArithmeticOptions {
    fn kind(&self) -> &'static str {
        match self.operation {
            Arithmetic::Add => "Sum",
            Arithmetic::Subtract => "Difference",
            Arithmetic::Multiply => "Product",
            Arithmetic::Divide => "Quotient",
        }
    }

    fn describe(&self) -> String {
        String::new()
    }

    fn output(&self, input: Shape) -> Result<Shape, ShapeError> {
        Ok(input)
    }

    fn join(&self, inputs: &[Shape]) -> Result<Shape, ShapeError> {
        let &[a, b] = inputs else { return Err(inputs_error(inputs.len(), "2")) };
        let (a, b): ([usize; 3], [usize; 3]) = (a.into(), b.into());
        let mut sizes = [0; 3];
        for axis in 0..3 {
            sizes[axis] = match (a[axis], b[axis]) {
                (n, m) if n == m || m == 1 => n,
                (1, m) => m,
                _ => {
                    let what = "the second input of arithmetic (each size 1 or the first's)";
                    return Err(ShapeError::Mismatch { what, expected: a.to_vec(), found: b.to_vec() });
                }
            };
        }
        Ok(sizes.into())
    }

    fn flops(&self, input: Shape) -> Result<u64, ShapeError> {
        Ok(input.len() as u64)
    }

    fn operator(&self, input: Shape, batch: usize) -> Result<Box<dyn Operator>, ShapeError> {
        self.join_operator(&[input, input], batch)
    }

    fn join_operator(&self, inputs: &[Shape], _batch: usize) -> Result<Box<dyn Operator>, ShapeError> {
        let output = self.join(inputs)?;
        let [a, b] = [inputs[0], inputs[1]];
        Ok(Box::new(ArithmeticOperator { operation: self.operation, a, b, output }))
    }
}

#[derive(Debug)]
struct ArithmeticOperator {
    operation: Arithmetic,
    a: Shape,
    b: Shape,
    output: Shape,
}

/// The first number of a row, and how far the next is: 0 where the input has one for all.
#[inline]
fn row(shape: Shape, channel: usize, y: usize) -> (usize, usize) {
    let channel = if shape.channels == 1 { 0 } else { channel };
    let y = if shape.height == 1 { 0 } else { y };
    ((channel * shape.height + y) * shape.width, usize::from(shape.width > 1))
}

impl ArithmeticOperator {
    /// Calls `body` with each row of the output: its first number, and the rows of the inputs.
    fn rows(&self, mut body: impl FnMut(usize, (usize, usize), (usize, usize))) {
        for channel in 0..self.output.channels {
            for y in 0..self.output.height {
                let first = (channel * self.output.height + y) * self.output.width;
                body(first, row(self.a, channel, y), row(self.b, channel, y));
            }
        }
    }
}

impl Operator for ArithmeticOperator {
    fn output(&self) -> Shape {
        self.output
    }

    fn keeps_input(&self) -> bool {
        matches!(self.operation, Arithmetic::Multiply | Arithmetic::Divide)
    }

    fn keeps_other(&self) -> bool {
        self.keeps_input()
    }

    fn forward(&self, f: Forward<'_>) {
        let samples = f.output.par_chunks_exact_mut(self.output.len());
        let inputs = f.input.par_chunks_exact(self.a.len()).zip(f.other.par_chunks_exact(self.b.len()));
        samples.zip(inputs).for_each(|(y, (a, b))| {
            self.rows(|first, (a_first, a_step), (b_first, b_step)| {
                for (x, y) in y[first..][..self.output.width].iter_mut().enumerate() {
                    *y = self.operation.value(a[a_first + x * a_step], b[b_first + x * b_step]);
                }
            });
        });
    }

    fn backward(&self, b: Backward<'_>) {
        let Gradient { values: da, accumulate: add_a } = b.input_gradient;
        let Gradient { values: db, accumulate: add_b } = b.other_gradient;
        if !add_a {
            da.fill(0.0);
        }
        if !add_b {
            db.fill(0.0);
        }
        let (wants_a, wants_b) = (!da.is_empty(), !db.is_empty());
        let keeps = self.keeps_input();
        let sample = |values: &[f32], n: usize, len: usize, i: usize| if keeps { values[n * len + i] } else { 0.0 };
        for (n, dy) in b.output_gradient.chunks_exact(self.output.len()).enumerate() {
            self.rows(|first, (a_first, a_step), (b_first, b_step)| {
                for (x, &dy) in dy[first..][..self.output.width].iter().enumerate() {
                    let (at_a, at_b) = (a_first + x * a_step, b_first + x * b_step);
                    let (a, b) = (sample(b.input, n, self.a.len(), at_a), sample(b.other, n, self.b.len(), at_b));
                    let (to_a, to_b) = self.operation.gradients(a, b, dy);
                    if wants_a {
                        da[n * self.a.len() + at_a] += to_a;
                    }
                    if wants_b {
                        db[n * self.b.len() + at_b] += to_b;
                    }
                }
            });
        }
    }
}
