//! Affine, the fully connected layer (section 5.6): `y = x · W + b`.

use super::{Backward, Forward, Init, Layer, Operator, ParameterRule, Reach, Rule, batch_shape, expect_shape, is_zero};
use crate::kernels::affine::{self as kernel, Geometry};
use crate::kernels::affine_bf16;
use crate::kernels::elementwise;
use crate::kernels::isa;
use crate::shape::{Shape, ShapeError, checked_product};
use ndarray::{Array, Array1, Array2, ArrayBase, ArrayD, Data, Dimension, IxDyn};
use serde::{Deserialize, Serialize};

/// The book's affine layer. Takes (N, inputs), or (N, C, H, W) with C·H·W inputs as the book's does in chapter 7.
///
/// ```
/// use ndarray::array;
/// use striate::layers::Affine;
/// let mut affine = Affine::new(array![[1., 2.], [3., 4.]], array![10., 20.])?;
/// assert_eq!(affine.forward(&array![[1., 1.]])?, array![[14., 26.]]);
/// # Ok::<(), striate::shape::ShapeError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Affine {
    /// Weights (inputs, outputs).
    pub w: Array2<f32>,
    /// Biases (outputs).
    pub b: Array1<f32>,
    /// Gradient of the loss with respect to `w`, after `backward`.
    pub dw: Option<Array2<f32>>,
    /// Gradient of the loss with respect to `b`, after `backward`.
    pub db: Option<Array1<f32>>,
    x: Option<ArrayD<f32>>,
}

impl Affine {
    /// With weights (inputs, outputs) and biases (outputs).
    ///
    /// # Errors
    /// Empty weights, or a bias of another length.
    pub fn new(w: Array2<f32>, b: Array1<f32>) -> Result<Self, ShapeError> {
        if w.is_empty() {
            return Err(ShapeError::Empty { what: "the affine weights", found: w.shape().to_vec() });
        }
        expect_shape("the affine bias", &[w.ncols()], b.shape())?;
        let w = if w.is_standard_layout() { w } else { w.as_standard_layout().into_owned() };
        Ok(Self { w, b, dw: None, db: None, x: None })
    }

    /// With fresh weights drawn by `init`, and zero biases.
    ///
    /// # Errors
    /// As for [`Affine::new`].
    pub fn init(inputs: usize, outputs: usize, init: Init, seed: u64) -> Result<Self, ShapeError> {
        checked_product(&[inputs, outputs])?;
        let mut w = Array2::zeros((inputs, outputs));
        if let Some(weights) = w.as_slice_mut() {
            init.fill(weights, inputs, seed, 0);
        }
        Self::new(w, Array1::zeros(outputs))
    }

    fn geometry(&self, dim: &[usize]) -> Result<Geometry, ShapeError> {
        let (batch, shape) = batch_shape("the affine input", dim)?;
        expect_shape("the affine input (samples, inputs)", &[batch, self.w.nrows()], &[batch, shape.len()])?;
        Ok(Geometry { batch, inputs: self.w.nrows(), outputs: self.w.ncols() })
    }

    /// (N, inputs) or (N, C, H, W) to (N, outputs).
    ///
    /// # Errors
    /// Another number of inputs.
    pub fn forward<S, D>(&mut self, x: &ArrayBase<S, D>) -> Result<Array2<f32>, ShapeError>
    where
        S: Data<Elem = f32>,
        D: Dimension,
    {
        let g = self.geometry(x.shape())?;
        let x = x.as_standard_layout().into_owned().into_dyn();
        let mut y = Array2::zeros((g.batch, g.outputs));
        let mut workspace = vec![0.0; g.forward_workspace()];
        let b = self.b.as_standard_layout();
        if let (Some(x), Some(w), Some(b), Some(y)) = (x.as_slice(), self.w.as_slice(), b.as_slice(), y.as_slice_mut())
        {
            kernel::forward(&g, x, w, b, false, y, &mut workspace);
        }
        self.x = Some(x);
        Ok(y)
    }

    /// The gradient of the input, in the input's own shape; sets `dw` and `db`.
    ///
    /// # Errors
    /// No forward pass before, or a gradient that is not of the output's shape.
    pub fn backward(&mut self, dy: &Array2<f32>) -> Result<ArrayD<f32>, ShapeError> {
        let x = self.x.as_ref().ok_or(ShapeError::BackwardBeforeForward)?;
        let g = self.geometry(x.shape())?;
        expect_shape("the affine output gradient", &[g.batch, g.outputs], dy.shape())?;
        let mut workspace = vec![0.0; g.backward_workspace()];
        let mut dx = Array::zeros(IxDyn(x.shape()));
        let (mut dw, mut db) = (Array2::zeros(self.w.raw_dim()), Array1::zeros(self.b.raw_dim()));
        let dy = dy.as_standard_layout();
        if let (Some(x), Some(w), Some(dy)) = (x.as_slice(), self.w.as_slice(), dy.as_slice())
            && let (Some(dx), Some(dw), Some(db)) = (dx.as_slice_mut(), dw.as_slice_mut(), db.as_slice_mut())
        {
            kernel::backward(&g, x, w, dy, (dx, false), (dw, db), &mut workspace);
        }
        self.dw = Some(dw);
        self.db = Some(db);
        Ok(dx)
    }
}

/// An affine layer in a network's description. Its parameters are `W` (inputs, outputs) and `b` (outputs).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AffineOptions {
    /// Number of outputs.
    pub outputs: usize,
    /// How the weights start.
    pub init: Init,
    /// How the biases start.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bias_start: f32,
}

impl AffineOptions {
    /// Biases start at 0.
    pub fn new(outputs: usize, init: Init) -> Self {
        Self { outputs, init, bias_start: 0.0 }
    }

    /// The same with biases that start at `start`.
    pub fn bias_start(self, start: f32) -> Self {
        Self { bias_start: start, ..self }
    }

    fn geometry(&self, input: Shape, batch: usize) -> Result<Geometry, ShapeError> {
        if input.is_empty() || self.outputs == 0 {
            let found = vec![input.len(), self.outputs];
            return Err(ShapeError::Empty { what: "the affine layer (inputs, outputs)", found });
        }
        checked_product(&[input.len(), self.outputs])?;
        Ok(Geometry { batch, inputs: input.len(), outputs: self.outputs })
    }
}

impl Rule for AffineOptions {
    fn kind(&self) -> &'static str {
        "Affine"
    }

    fn describe(&self) -> String {
        format!("{} outputs", self.outputs)
    }

    fn output(&self, input: Shape) -> Result<Shape, ShapeError> {
        Ok(Shape::flat(self.geometry(input, 1)?.outputs))
    }

    fn parameters(&self, input: Shape) -> Result<Vec<ParameterRule>, ShapeError> {
        let g = self.geometry(input, 1)?;
        Ok(vec![
            ParameterRule::weight(vec![g.inputs, g.outputs], self.init, g.inputs),
            ParameterRule::bias(g.outputs, self.bias_start),
        ])
    }

    fn reach(&self) -> Reach {
        Reach::All
    }

    fn flops(&self, input: Shape) -> Result<u64, ShapeError> {
        let g = self.geometry(input, 1)?;
        Ok((2 * g.inputs as u64 + 1) * g.outputs as u64)
    }

    fn operator(&self, input: Shape, batch: usize) -> Result<Box<dyn Operator>, ShapeError> {
        Ok(Box::new(AffineOperator { geometry: self.geometry(input, batch)?, relu: false, bf16: false }))
    }
}

/// An affine layer with the ReLU that follows it, if one does.
#[derive(Debug)]
struct AffineOperator {
    geometry: Geometry,
    relu: bool,
    /// Whether weights are read in bfloat16.
    bf16: bool,
}

impl AffineOperator {
    /// With ReLU, backward works on a masked copy of the output's gradient.
    fn masked_len(&self) -> usize {
        if self.relu { self.geometry.batch * self.geometry.outputs } else { 0 }
    }
}

impl Operator for AffineOperator {
    fn output(&self) -> Shape {
        Shape::flat(self.geometry.outputs)
    }

    fn absorb(&mut self, next: &Layer, _training: bool) -> bool {
        let takes = matches!(next, Layer::Relu(_)) && !self.relu;
        self.relu |= takes;
        takes
    }

    fn round_weights(&mut self) {
        self.bf16 = affine_bf16::wins(&self.geometry);
    }

    fn method(&self) -> String {
        if self.bf16 { "weights in bfloat16, as memory is the limit".into() } else { String::new() }
    }

    fn prepared(&self) -> usize {
        if self.bf16 { affine_bf16::prepared_len(&self.geometry) } else { 0 }
    }

    fn prepare(&self, parameters: &[f32], prepared: &mut [f32]) {
        if self.bf16 {
            affine_bf16::prepare(&self.geometry, parameters, prepared);
        }
    }

    fn forward_workspace(&self) -> usize {
        if self.bf16 { affine_bf16::workspace(&self.geometry) } else { self.geometry.forward_workspace() }
    }

    fn backward_workspace(&self, _input_gradient: bool) -> usize {
        self.masked_len() + self.geometry.backward_workspace()
    }

    fn keeps_input(&self) -> bool {
        true
    }

    fn keeps_output(&self) -> bool {
        self.relu
    }

    fn forward(&self, f: Forward<'_>) {
        let (w, b) = f.parameters.split_at(self.geometry.inputs * self.geometry.outputs);
        if self.bf16 {
            return affine_bf16::forward(&self.geometry, f.input, f.prepared, b, self.relu, f.output, f.workspace);
        }
        kernel::forward(&self.geometry, f.input, w, b, self.relu, f.output, f.workspace);
    }

    fn backward(&self, b: Backward<'_>) {
        let weights = self.geometry.inputs * self.geometry.outputs;
        let (dw, db) = b.parameter_gradient.split_at_mut(weights);
        let (masked, workspace) = b.workspace.split_at_mut(self.masked_len());
        let dy = if self.relu {
            isa::vectorize(|| {
                masked.copy_from_slice(b.output_gradient);
                elementwise::relu_gradient(masked, b.output);
            });
            masked
        } else {
            b.output_gradient
        };
        let dx = (b.input_gradient.values, b.input_gradient.accumulate);
        kernel::backward(&self.geometry, b.input, &b.parameters[..weights], dy, dx, (dw, db), workspace);
    }
}
