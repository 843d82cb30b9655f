//! Softmax, and softmax with the cross-entropy loss (sections 3.5 and 5.6.3).

use super::{Backward, Forward, Operator, Rule, expect_shape};
use crate::kernels::softmax as kernel;
use crate::shape::{Shape, ShapeError};
use ndarray::{Array2, ArrayView2};
use serde::{Deserialize, Serialize};

/// What a batch should have been.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// One class number a sample.
    Labels(&'a [usize]),
    /// One row a sample, with 1 at its class and 0 elsewhere (or any probabilities), (N, classes).
    OneHot(ArrayView2<'a, f32>),
}

/// Softmax of each row: probabilities from logits, stable for logits of any size.
///
/// ```
/// use ndarray::array;
/// use striate::layers::Softmax;
/// let p = Softmax::new().forward(&array![[0.3, 2.9, 4.0]])?;
/// assert!((p[[0, 2]] - 0.7365969).abs() < 1e-6); // section 3.5.1
/// # Ok::<(), striate::shape::ShapeError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Softmax {
    y: Option<Array2<f32>>,
}

impl Softmax {
    /// A layer without parameters.
    pub fn new() -> Self {
        Self::default()
    }

    fn classes(&self) -> usize {
        self.y.as_ref().map_or(1, Array2::ncols)
    }

    /// (N, classes) logits to probabilities.
    ///
    /// # Errors
    /// An empty batch.
    pub fn forward(&mut self, x: &Array2<f32>) -> Result<Array2<f32>, ShapeError> {
        let y = probabilities(x)?;
        self.y = Some(y.clone());
        Ok(y)
    }

    /// The gradient of the logits: `y (dy - sum(dy y))` for each row.
    ///
    /// # Errors
    /// No forward pass before, or a gradient of another shape.
    pub fn backward(&mut self, dy: &Array2<f32>) -> Result<Array2<f32>, ShapeError> {
        let y = self.y.as_ref().ok_or(ShapeError::BackwardBeforeForward)?;
        expect_shape("the softmax's output gradient", y.shape(), dy.shape())?;
        let mut dx = Array2::zeros(y.raw_dim());
        if let (Some(y), Some(dy), Some(dx)) = (y.as_slice(), dy.as_standard_layout().as_slice(), dx.as_slice_mut()) {
            kernel::channel_softmax_gradient(Shape::flat(self.classes()), y, dy, dx, false);
        }
        Ok(dx)
    }
}

/// The class that scores (logits or probabilities) speak for: the place of the largest, the first of equals.
///
/// ```
/// use striate::layers::predicted_class;
/// assert_eq!(predicted_class(&[0.3, 2.9, 2.9]), 1);
/// ```
pub fn predicted_class<T: PartialOrd>(scores: &[T]) -> usize {
    (0..scores.len()).fold(0, |best, class| if scores[class] > scores[best] { class } else { best })
}

/// Softmax in a network's description: over the channels, at each pixel. As the last layer it is left out of the plan,
/// because the loss and those who show probabilities work on logits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SoftmaxOptions {}

impl Rule for SoftmaxOptions {
    fn kind(&self) -> &'static str {
        "Softmax"
    }

    fn describe(&self) -> String {
        String::new()
    }

    fn output(&self, input: Shape) -> Result<Shape, ShapeError> {
        Ok(input)
    }

    fn flops(&self, input: Shape) -> Result<u64, ShapeError> {
        Ok(5 * input.len() as u64)
    }

    fn operator(&self, input: Shape, _batch: usize) -> Result<Box<dyn Operator>, ShapeError> {
        Ok(Box::new(SoftmaxOperator(input)))
    }
}

#[derive(Debug)]
struct SoftmaxOperator(Shape);

impl Operator for SoftmaxOperator {
    fn output(&self) -> Shape {
        self.0
    }

    fn keeps_output(&self) -> bool {
        true
    }

    fn forward(&self, f: Forward<'_>) {
        kernel::channel_softmax(self.0, f.input, f.output);
    }

    fn backward(&self, b: Backward<'_>) {
        if b.input_gradient.is_wanted() {
            let dx = b.input_gradient;
            kernel::channel_softmax_gradient(self.0, b.output, b.output_gradient, dx.values, dx.accumulate);
        }
    }
}

/// Softmax and mean cross-entropy in one layer, whose backward is simply `(y - t) / N` (section 5.6.3).
///
/// ```
/// use ndarray::array;
/// use striate::layers::{SoftmaxWithLoss, Target};
/// let mut last = SoftmaxWithLoss::new();
/// let loss = last.forward(&array![[1e4, -1e4]], Target::Labels(&[0]))?;
/// assert_eq!(loss, 0.0);
/// assert_eq!(last.backward()?, array![[0., 0.]]);
/// # Ok::<(), striate::shape::ShapeError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct SoftmaxWithLoss {
    gradient: Option<Array2<f32>>,
}

impl SoftmaxWithLoss {
    /// A layer without parameters.
    pub fn new() -> Self {
        Self::default()
    }

    /// The mean loss of a batch of logits (N, classes).
    ///
    /// # Errors
    /// An empty batch, targets of another shape, or a label that is no class.
    pub fn forward(&mut self, x: &Array2<f32>, target: Target<'_>) -> Result<f32, ShapeError> {
        let (batch, classes) = x.dim();
        let x = x.as_standard_layout();
        let Some(logits) = x.as_slice().filter(|x| !x.is_empty()) else {
            return Err(ShapeError::Empty { what: "the logits", found: vec![batch, classes] });
        };
        let mut gradient = Array2::zeros((batch, classes));
        let loss = match target {
            Target::Labels(labels) => {
                expect_shape("the labels", &[batch], &[labels.len()])?;
                check_labels(labels, classes)?;
                kernel::cross_entropy(logits, labels, &[], &[], classes, 0.0, gradient.as_slice_mut()).sum
            }
            Target::OneHot(target) => {
                expect_shape("the one-hot targets", &[batch, classes], target.shape())?;
                let mut sum = 0.0;
                for (x, t) in x.rows().into_iter().zip(target.rows()) {
                    for (label, &share) in t.iter().enumerate().filter(|(_, share)| **share != 0.0) {
                        let row = x.as_slice().unwrap_or_default();
                        sum +=
                            f64::from(share) * kernel::cross_entropy(row, &[label], &[], &[], classes, 0.0, None).sum;
                    }
                }
                gradient.assign(&probabilities(&x.to_owned())?);
                for (mut g, t) in gradient.rows_mut().into_iter().zip(target.rows()) {
                    let weight = t.sum();
                    g.zip_mut_with(&t, |g, t| *g = (*g * weight - t) / batch as f32);
                }
                sum
            }
        };
        self.gradient = Some(gradient);
        Ok((loss / batch as f64) as f32)
    }

    /// The gradient of the logits of the last forward pass.
    ///
    /// # Errors
    /// No forward pass before.
    pub fn backward(&mut self) -> Result<Array2<f32>, ShapeError> {
        self.gradient.clone().ok_or(ShapeError::BackwardBeforeForward)
    }
}

/// The first label that is no class, as an error.
pub(crate) fn check_labels(labels: &[usize], classes: usize) -> Result<(), ShapeError> {
    match labels.iter().position(|&label| label >= classes) {
        Some(sample) => Err(ShapeError::Label { sample, label: labels[sample], classes }),
        None => Ok(()),
    }
}

fn probabilities(x: &Array2<f32>) -> Result<Array2<f32>, ShapeError> {
    let x = x.as_standard_layout();
    let mut y = Array2::zeros(x.raw_dim());
    match (x.as_slice(), y.as_slice_mut()) {
        (Some(x_values), Some(y)) if !x_values.is_empty() => kernel::softmax(x_values, y, x.ncols()),
        _ => return Err(ShapeError::Empty { what: "the logits", found: x.shape().to_vec() }),
    }
    Ok(y)
}
