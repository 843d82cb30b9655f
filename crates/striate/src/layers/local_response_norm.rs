//! Local response normalisation (section 7.7.2, Krizhevsky et al. 2012, section 3.3): each number is divided by a power
//! of the squares around it, at the same pixel in the neighbouring channels:
//! `b_i = a_i / (k + alpha sum a_j^2)^beta`. The paper's sum is not divided by the number of channels, as other
//! frameworks' is: their `alpha` is `size` times this one.

use super::{Backward, Forward, Operator, Rule, expect_shape};
use crate::kernels::normalize::LocalResponse;
use crate::shape::{Shape, ShapeError};
use ndarray::Array4;
use serde::{Deserialize, Serialize};

/// Local response normalisation in a network's description. It has no parameters.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LocalResponseNormOptions {
    /// Channels that are summed over, the number's own among them (the paper's n).
    pub size: usize,
    /// Added to the sum.
    pub k: f32,
    /// Factor of the sum.
    pub alpha: f32,
    /// Exponent.
    pub beta: f32,
}

impl Default for LocalResponseNormOptions {
    /// The paper's constants.
    fn default() -> Self {
        Self { size: 5, k: 2.0, alpha: 1e-4, beta: 0.75 }
    }
}

impl LocalResponseNormOptions {
    fn kernel(&self, shape: Shape) -> Result<LocalResponse, ShapeError> {
        let wrong = |what, found: String, expected| Err(ShapeError::Option { what, found, expected });
        if self.size == 0 {
            return wrong("the size of local response normalisation", "0".into(), "at least 1, such as 5");
        }
        for (what, value, positive) in [
            ("the k of local response normalisation", self.k, true),
            ("the alpha of local response normalisation", self.alpha, false),
            ("the beta of local response normalisation", self.beta, false),
        ] {
            // A sum of squares from a positive k on is never zero.
            if !value.is_finite() || value < 0.0 || (positive && value == 0.0) {
                return wrong(what, value.to_string(), if positive { "positive" } else { "0 or positive" });
            }
        }
        let Self { size, k, alpha, beta } = *self;
        Ok(LocalResponse { shape, size, k, alpha, beta })
    }
}

/// Local response normalisation as a layer of its own.
///
/// ```
/// use ndarray::Array4;
/// use striate::layers::{LocalResponseNorm, LocalResponseNormOptions};
/// let options = LocalResponseNormOptions { size: 3, k: 1.0, alpha: 1.0, beta: 1.0 };
/// let mut norm = LocalResponseNorm::new(options)?;
/// // Three channels of ones: the middle one sees all three, the outer ones two.
/// let y = norm.forward(&Array4::ones((1, 3, 1, 1)))?;
/// assert_eq!(y.as_slice().unwrap(), [1. / 3., 1. / 4., 1. / 3.]);
/// # Ok::<(), striate::shape::ShapeError>(())
/// ```
#[derive(Clone, Debug)]
pub struct LocalResponseNorm {
    options: LocalResponseNormOptions,
    /// Input, output and sums of the last forward pass.
    forward: Option<[Array4<f32>; 3]>,
}

impl LocalResponseNorm {
    /// With any options.
    ///
    /// # Errors
    /// An option outside its range.
    pub fn new(options: LocalResponseNormOptions) -> Result<Self, ShapeError> {
        options.kernel(Shape::flat(1))?;
        Ok(Self { options, forward: None })
    }

    fn kernel(&self, dim: (usize, usize, usize, usize)) -> Result<LocalResponse, ShapeError> {
        let (n, channels, height, width) = dim;
        let shape = Shape::new(channels, height, width);
        if n == 0 || shape.is_empty() {
            let found = vec![n, channels, height, width];
            return Err(ShapeError::Empty { what: "the input of local response normalisation", found });
        }
        self.options.kernel(shape)
    }

    /// (N, C, H, W) to the same.
    ///
    /// # Errors
    /// An empty input.
    pub fn forward(&mut self, x: &Array4<f32>) -> Result<Array4<f32>, ShapeError> {
        let kernel = self.kernel(x.dim())?;
        let x = x.as_standard_layout().into_owned();
        let (mut y, mut s) = (Array4::zeros(x.raw_dim()), Array4::zeros(x.raw_dim()));
        if let (Some(x), Some(y), Some(s)) = (x.as_slice(), y.as_slice_mut(), s.as_slice_mut()) {
            kernel.forward(x, y, s);
        }
        self.forward = Some([x, y.clone(), s]);
        Ok(y)
    }

    /// The gradient of the input.
    ///
    /// # Errors
    /// No forward pass before, or a gradient of another shape.
    pub fn backward(&mut self, dy: &Array4<f32>) -> Result<Array4<f32>, ShapeError> {
        let [x, y, s] = self.forward.as_ref().ok_or(ShapeError::BackwardBeforeForward)?;
        expect_shape("the output gradient of local response normalisation", x.shape(), dy.shape())?;
        let kernel = self.kernel(x.dim())?;
        let mut dx = Array4::zeros(x.raw_dim());
        let dy = dy.as_standard_layout();
        if let (Some(x), Some(y), Some(s)) = (x.as_slice(), y.as_slice(), s.as_slice())
            && let (Some(dy), Some(dx)) = (dy.as_slice(), dx.as_slice_mut())
        {
            kernel.backward(x, y, s, dy, dx, false);
        }
        Ok(dx)
    }
}

impl Rule for LocalResponseNormOptions {
    fn kind(&self) -> &'static str {
        "LocalResponseNorm"
    }

    fn describe(&self) -> String {
        format!("size {}, k {}, alpha {}, beta {}", self.size, self.k, self.alpha, self.beta)
    }

    fn output(&self, input: Shape) -> Result<Shape, ShapeError> {
        self.kernel(input).map(|_| input)
    }

    fn flops(&self, input: Shape) -> Result<u64, ShapeError> {
        Ok((2 * self.size as u64 + 4) * input.len() as u64)
    }

    fn operator(&self, input: Shape, batch: usize) -> Result<Box<dyn Operator>, ShapeError> {
        Ok(Box::new(LocalResponseNormOperator { kernel: self.kernel(input)?, batch }))
    }
}

#[derive(Debug)]
struct LocalResponseNormOperator {
    kernel: LocalResponse,
    batch: usize,
}

impl Operator for LocalResponseNormOperator {
    fn output(&self) -> Shape {
        self.kernel.shape
    }

    fn saved(&self) -> usize {
        self.batch * self.kernel.shape.len()
    }

    fn keeps_input(&self) -> bool {
        true
    }

    fn keeps_output(&self) -> bool {
        true
    }

    fn forward(&self, f: Forward<'_>) {
        self.kernel.forward(f.input, f.output, f.saved);
    }

    fn backward(&self, b: Backward<'_>) {
        if b.input_gradient.is_wanted() {
            let dx = b.input_gradient;
            self.kernel.backward(b.input, b.output, b.saved, b.output_gradient, dx.values, dx.accumulate);
        }
    }
}
