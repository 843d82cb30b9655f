//! Transposed convolution (Zeiler et al. 2010): what a convolution does to gradients, done forward; maps grow by the stride.

use super::{Backward, Forward, Init, Operator, ParameterRule, Reach, Rule, Whole, expect_shape};
use crate::kernels::convolution::{self as kernel, Epilogue, Geometry, OutputGradient, Pass};
use crate::shape::{Shape, ShapeError, Window};
use serde::{Deserialize, Serialize};

/// Transposed convolution as a layer of its own; its parameters are the weights, then the biases.
///
/// ```
/// use ndarray::array;
/// use striate::layers::{Init, TransposedConvolution, TransposedConvolutionOptions};
/// use striate::shape::{Rounding, Window};
/// let window = Window::square(2, 2, 0).rounding(Rounding::Floor);
/// let options = TransposedConvolutionOptions { filters: 1, groups: 1, window, output: (2, 4), init: Init::He };
/// let mut layer = TransposedConvolution::with_parameters(options, vec![1., 2., 3., 4., 0.5]);
/// let y = layer.forward(&array![[[[1., 10.]]]])?;
/// assert_eq!(y, array![[[[1.5, 2.5, 10.5, 20.5], [3.5, 4.5, 30.5, 40.5]]]]);
/// # Ok::<(), striate::shape::ShapeError>(())
/// ```
pub type TransposedConvolution = Whole<TransposedConvolutionOptions>;

/// A transposed convolution in a network's description. Its parameters are `W` (C, filters / groups, FH, FW) and `b`
/// (filters).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransposedConvolutionOptions {
    /// Output channels.
    pub filters: usize,
    /// Runs of channels that see each other.
    pub groups: usize,
    /// The window of the convolution that goes the other way.
    pub window: Window,
    /// Height and width of the output: sizes from which that convolution makes those of the input.
    pub output: (usize, usize),
    /// How the weights start.
    pub init: Init,
}

impl TransposedConvolutionOptions {
    /// The convolution that goes the other way.
    fn geometry(&self, input: Shape) -> Result<Geometry, ShapeError> {
        let output = Shape::new(self.filters, self.output.0, self.output.1);
        output.checked_len(1)?;
        let g = Geometry::new(output, input.channels, self.groups, self.window)?;
        let what = "the transposed convolution's input (channels, height, width)";
        expect_shape(what, &<[usize; 3]>::from(g.output), &<[usize; 3]>::from(input))?;
        Ok(g)
    }
}

impl Rule for TransposedConvolutionOptions {
    fn kind(&self) -> &'static str {
        "TransposedConvolution"
    }

    fn describe(&self) -> String {
        let Window { kernel, stride, .. } = self.window;
        format!("{} filters {}x{}, stride {}x{}", self.filters, kernel.0, kernel.1, stride.0, stride.1)
    }

    fn output(&self, input: Shape) -> Result<Shape, ShapeError> {
        Ok(self.geometry(input)?.input)
    }

    fn parameters(&self, input: Shape) -> Result<Vec<ParameterRule>, ShapeError> {
        let g = self.geometry(input)?;
        let (height, width) = self.window.kernel;
        let shape = vec![input.channels, g.group_channels(), height, width];
        let inputs = g.group_filters() * g.taps() / (self.window.stride.0 * self.window.stride.1).max(1);
        Ok(vec![ParameterRule::weight(shape, self.init, inputs.max(1)), ParameterRule::bias(self.filters, 0.0)])
    }

    fn reach(&self) -> Reach {
        Reach::All
    }

    fn flops(&self, input: Shape) -> Result<u64, ShapeError> {
        let g = self.geometry(input)?;
        Ok(2 * g.depth() as u64 * g.output.len() as u64)
    }

    fn operator(&self, input: Shape, batch: usize) -> Result<Box<dyn Operator>, ShapeError> {
        Ok(Box::new(TransposedConvolutionOperator { g: self.geometry(input)?, batch }))
    }
}

/// The passes of a convolution in each other's place.
#[derive(Debug)]
struct TransposedConvolutionOperator {
    g: Geometry,
    batch: usize,
}

impl TransposedConvolutionOperator {
    fn prepared_len(&self, pass: Pass) -> usize {
        kernel::prepared_len(&self.g, self.batch, pass, &Epilogue::NONE)
    }
}

impl Operator for TransposedConvolutionOperator {
    fn output(&self) -> Shape {
        // What goes into the convolution that goes the other way.
        let Geometry { input, .. } = self.g;
        input
    }

    fn prepared(&self) -> usize {
        self.prepared_len(Pass::BackwardInput)
    }

    fn prepare(&self, parameters: &[f32], prepared: &mut [f32]) {
        let w = &parameters[..self.g.weights()];
        kernel::prepare(&self.g, self.batch, Pass::BackwardInput, &Epilogue::NONE, w, prepared);
    }

    fn forward_workspace(&self) -> usize {
        kernel::input_workspace(&self.g, self.batch)
    }

    fn backward_workspace(&self, input_gradient: bool) -> usize {
        let weights = kernel::weights_workspace(&self.g, self.batch);
        if !input_gradient {
            return weights;
        }
        // Room for a gradient of the input that is to be added to what is there.
        let fresh = self.batch * self.g.output.len();
        let forward = kernel::forward_workspace(&self.g, self.batch, &Epilogue::NONE);
        weights.max(self.prepared_len(Pass::Forward) + fresh + forward)
    }

    fn keeps_input(&self) -> bool {
        true
    }

    fn forward(&self, f: Forward<'_>) {
        let g = &self.g;
        let gradient = OutputGradient { dy: f.input, y: None, pool: None };
        kernel::backward_input(g, f.prepared, gradient, f.output, false, f.workspace);
        let biases = f.parameters[g.weights()..].iter().cycle();
        for (y, bias) in f.output.chunks_exact_mut(g.input.area()).zip(biases) {
            y.iter_mut().for_each(|y| *y += bias);
        }
    }

    fn backward(&self, b: Backward<'_>) {
        let g = &self.g;
        let (dw, db) = b.parameter_gradient.split_at_mut(g.weights());
        let gradient = OutputGradient { dy: b.input, y: None, pool: None };
        kernel::backward_weights(g, b.output_gradient, gradient, dw, None, b.workspace);
        db.fill(0.0);
        for (i, dy) in b.output_gradient.chunks_exact(g.input.area()).enumerate() {
            db[i % g.input.channels] += dy.iter().sum::<f32>();
        }
        let dx = b.input_gradient;
        if dx.is_wanted() {
            let w = &b.parameters[..g.weights()];
            let (prepared, workspace) = b.workspace.split_at_mut(self.prepared_len(Pass::Forward));
            kernel::prepare(g, self.batch, Pass::Forward, &Epilogue::NONE, w, prepared);
            let (fresh, workspace) = workspace.split_at_mut(dx.values.len());
            let to = if dx.accumulate { &mut *fresh } else { &mut *dx.values };
            kernel::forward(g, b.output_gradient, prepared, None, None, to, None, workspace, &Epilogue::NONE);
            if dx.accumulate {
                dx.values.iter_mut().zip(fresh).for_each(|(dx, fresh)| *dx += *fresh);
            }
        }
    }
}
