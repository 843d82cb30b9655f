//! Dropout (section 6.4.3, Srivastava et al. 2014), *inverted*: while training, each number is kept with probability
//! `1 - ratio` and then divided by it, so nothing need be scaled when predicting. (The book keeps the numbers as they
//! are while training and multiplies by `1 - ratio` when predicting; the expectation is the same.)

use super::{Backward, Forward, Operator, Rule, expect_shape};
use crate::kernels::elementwise;
use crate::random::{Purpose, Random};
use crate::shape::{Shape, ShapeError};
use ndarray::{Array, Dimension};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Dropout in a network's description.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DropoutOptions {
    /// Probability that a number is dropped, in [0, 1).
    pub ratio: f32,
}

impl DropoutOptions {
    fn check(&self) -> Result<(), ShapeError> {
        if (0.0..1.0).contains(&self.ratio) {
            return Ok(());
        }
        Err(ShapeError::Option {
            what: "the dropout ratio",
            found: self.ratio.to_string(),
            expected: "at least 0 and below 1",
        })
    }

    /// Factors: 0 for what is dropped, `1 / (1 - ratio)` for what stays.
    fn mask(&self, random: Random, mask: &mut [f32]) {
        let keep = 1.0 / (1.0 - self.ratio);
        mask.par_chunks_mut(crate::kernels::CHUNK).enumerate().for_each(|(i, chunk)| {
            let first = (i * crate::kernels::CHUNK) as u64;
            for (j, m) in chunk.iter_mut().enumerate() {
                *m = if random.uniform(first + j as u64) < self.ratio { 0.0 } else { keep };
            }
        });
    }
}

/// The book's dropout layer, for arrays of any dimension.
///
/// ```
/// use ndarray::Array2;
/// use striate::layers::Dropout;
/// let x = Array2::<f32>::ones((10, 100));
/// let mut dropout = Dropout::new(0.5, 1)?;
/// assert_eq!(dropout.forward(&x, false), x);
/// let y = dropout.forward(&x, true);
/// assert!(y.iter().all(|&v| v == 0.0 || v == 2.0));
/// # Ok::<(), striate::shape::ShapeError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Dropout {
    options: DropoutOptions,
    seed: u64,
    passes: u64,
    /// Mask of the last forward pass and its shape; no mask after a pass outside training.
    mask: Option<(Vec<usize>, Option<Vec<f32>>)>,
}

impl Dropout {
    /// Drops with probability `ratio`; the masks follow from `seed` and the number of passes so far.
    ///
    /// # Errors
    /// A ratio outside [0, 1).
    pub fn new(ratio: f32, seed: u64) -> Result<Self, ShapeError> {
        let options = DropoutOptions { ratio };
        options.check()?;
        Ok(Self { options, seed, passes: 0, mask: None })
    }

    /// Drops while training; otherwise the input as it is.
    pub fn forward<D: Dimension>(&mut self, x: &Array<f32, D>, training: bool) -> Array<f32, D> {
        if !training {
            self.mask = Some((x.shape().to_vec(), None));
            return x.clone();
        }
        let mut mask = vec![0.0; x.len()];
        self.options.mask(Random::new(self.seed, Purpose::Dropout, self.passes), &mut mask);
        self.passes += 1;
        let mut y = x.as_standard_layout().into_owned();
        y.iter_mut().zip(&mask).for_each(|(y, m)| *y *= m);
        self.mask = Some((x.shape().to_vec(), Some(mask)));
        y
    }

    /// The gradient of the input: nothing where the number was dropped.
    ///
    /// # Errors
    /// No forward pass before, or a gradient of another shape.
    pub fn backward<D: Dimension>(&mut self, dy: &Array<f32, D>) -> Result<Array<f32, D>, ShapeError> {
        let (shape, mask) = self.mask.as_ref().ok_or(ShapeError::BackwardBeforeForward)?;
        expect_shape("the dropout's output gradient", shape, dy.shape())?;
        let mut dx = dy.as_standard_layout().into_owned();
        if let Some(mask) = mask {
            dx.iter_mut().zip(mask).for_each(|(g, m)| *g *= m);
        }
        Ok(dx)
    }
}

impl Rule for DropoutOptions {
    fn kind(&self) -> &'static str {
        "Dropout"
    }

    fn describe(&self) -> String {
        format!("ratio {}", self.ratio)
    }

    fn output(&self, input: Shape) -> Result<Shape, ShapeError> {
        self.check().map(|()| input)
    }

    fn is_view(&self, training: bool) -> bool {
        !training
    }

    fn flops(&self, _input: Shape) -> Result<u64, ShapeError> {
        Ok(0)
    }

    fn operator(&self, input: Shape, batch: usize) -> Result<Box<dyn Operator>, ShapeError> {
        self.check()?;
        Ok(Box::new(DropoutOperator { options: *self, shape: input, batch }))
    }
}

#[derive(Debug)]
struct DropoutOperator {
    options: DropoutOptions,
    shape: Shape,
    batch: usize,
}

impl Operator for DropoutOperator {
    fn output(&self) -> Shape {
        self.shape
    }

    fn saved(&self) -> usize {
        self.batch * self.shape.len()
    }

    fn forward(&self, f: Forward<'_>) {
        match f.random {
            Some(random) if !f.saved.is_empty() => {
                self.options.mask(random, f.saved);
                elementwise::for_chunks2(f.output, f.input, f.saved, multiply);
            }
            _ => {
                // Backward after a pass without random numbers (a gradient check) multiplies by 1.
                f.saved.fill(1.0);
                f.output.copy_from_slice(f.input);
            }
        }
    }

    fn backward(&self, b: Backward<'_>) {
        if b.input_gradient.is_wanted() {
            let body = if b.input_gradient.accumulate { multiply_add } else { multiply };
            elementwise::for_chunks2(b.input_gradient.values, b.output_gradient, b.saved, body);
        }
    }
}

fn multiply(output: &mut [f32], a: &[f32], b: &[f32]) {
    output.iter_mut().zip(a).zip(b).for_each(|((o, a), b)| *o = a * b);
}

fn multiply_add(output: &mut [f32], a: &[f32], b: &[f32]) {
    output.iter_mut().zip(a).zip(b).for_each(|((o, a), b)| *o += a * b);
}
