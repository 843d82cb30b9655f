//! Convolution (section 7.2): many channels, many filters, stride and padding.

use super::{
    Backward, BatchNormOptions, Forward, Init, Layer, Operator, ParameterRule, PoolingKind, Reach, Rule, expect_shape,
    is_zero,
};
use crate::kernels::convolution::{
    self as kernel, Activation, Epilogue, Geometry, Interleaved, OutputGradient, Pass, Pool,
};
use crate::kernels::normalize::inverse_deviation;
use crate::kernels::{elementwise, pooling};
use crate::shape::{Padding, Shape, ShapeError, Window};
use ndarray::{Array1, Array4};
use serde::{Deserialize, Serialize};

/// The book's convolution layer: holds its filters, and after `backward` their gradients.
///
/// ```
/// use ndarray::{array, Array4};
/// use striate::layers::Convolution;
/// // The worked example of section 7.2.2 and 7.2.3, with its bias of 3.
/// let x = array![[[[1., 2., 3., 0.], [0., 1., 2., 3.], [3., 0., 1., 2.], [2., 3., 0., 1.]]]];
/// let w = array![[[[2., 0., 1.], [0., 1., 2.], [1., 0., 2.]]]];
/// let mut convolution = Convolution::new(w, array![3.], 1, 0)?;
/// assert_eq!(convolution.forward(&x)?, array![[[[18., 19.], [9., 18.]]]]);
/// # Ok::<(), striate::shape::ShapeError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Convolution {
    /// Filters (FN, C / groups, FH, FW): there are as many groups as inputs have more channels than a filter.
    pub w: Array4<f32>,
    /// Biases (FN).
    pub b: Array1<f32>,
    /// Gradient of the loss with respect to `w`, after `backward`.
    pub dw: Option<Array4<f32>>,
    /// Gradient of the loss with respect to `b`, after `backward`.
    pub db: Option<Array1<f32>>,
    window: Window,
    x: Option<Array4<f32>>,
}

impl Convolution {
    /// With filters `w` (FN, C, FH, FW), biases `b` (FN), and the same stride and padding on both axes.
    ///
    /// # Errors
    /// Empty filters, a bias of another length, or a stride of 0.
    pub fn new(w: Array4<f32>, b: Array1<f32>, stride: usize, pad: usize) -> Result<Self, ShapeError> {
        let (_, _, height, width) = w.dim();
        let window = Window { kernel: (height, width), ..Window::square(height, stride, pad) };
        Self::with_window(w, b, window)
    }

    /// With another stride, padding or rounding for each axis.
    ///
    /// # Errors
    /// As for [`Convolution::new`], or a window that is not the filters' size.
    pub fn with_window(w: Array4<f32>, b: Array1<f32>, window: Window) -> Result<Self, ShapeError> {
        let (filters, channels, height, width) = w.dim();
        expect_shape("the convolution window", &[height, width], &[window.kernel.0, window.kernel.1])?;
        expect_shape("the convolution bias", &[filters], b.shape())?;
        // The smallest input that any such window takes, to find faults before the first batch.
        let spanned = |kernel: usize, dilation: usize| (kernel.max(1) - 1).saturating_mul(dilation).saturating_add(1);
        let (height, width) = (spanned(height, window.dilation.0), spanned(width, window.dilation.1));
        Geometry::new(Shape::new(channels, height, width), filters, 1, Window { padding: Padding::NONE, ..window })?;
        Ok(Self { w: standard(w), b, dw: None, db: None, window, x: None })
    }

    /// With fresh filters: `filters` of `channels` x `window.kernel`, drawn by `init`, and zero biases.
    ///
    /// # Errors
    /// As for [`Convolution::new`].
    pub fn init(filters: usize, channels: usize, window: Window, init: Init, seed: u64) -> Result<Self, ShapeError> {
        let (height, width) = window.kernel;
        crate::shape::checked_product(&[filters, channels, height, width])?;
        let mut w = Array4::zeros((filters, channels, height, width));
        if let Some(weights) = w.as_slice_mut() {
            init.fill(weights, channels * height * width, seed, 0);
        }
        Self::with_window(w, Array1::zeros(filters), window)
    }

    fn geometry(&self, x: &Array4<f32>) -> Result<Geometry, ShapeError> {
        let (n, channels, height, width) = x.dim();
        if n == 0 {
            return Err(ShapeError::Empty { what: "the convolution input", found: x.shape().to_vec() });
        }
        // A filter of fewer channels than the input has belongs to one of several groups.
        let (filters, per_filter, ..) = self.w.dim();
        if channels == 0 || !channels.is_multiple_of(per_filter) {
            expect_shape("the convolution input", &[n, per_filter, height, width], x.shape())?;
        }
        Geometry::new(Shape::new(channels, height, width), filters, channels / per_filter, self.window)
    }

    /// (N, C, H, W) to (N, FN, OH, OW).
    ///
    /// An input with G times as many channels as a filter is cut into G groups, each with FN / G filters of its own: with
    /// one channel a filter this is a depthwise convolution.
    ///
    /// # Errors
    /// Channels that are no multiple of the filters', filters that cannot be cut into as many groups, or sizes that the
    /// window does not fit.
    pub fn forward(&mut self, x: &Array4<f32>) -> Result<Array4<f32>, ShapeError> {
        let g = self.geometry(x)?;
        let x = x.as_standard_layout().into_owned();
        let batch = x.dim().0;
        g.output.checked_len(batch)?;
        let mut y = Array4::zeros((batch, g.output.channels, g.output.height, g.output.width));
        let mut workspace = vec![0.0; kernel::forward_workspace(&g, batch, &Epilogue::NONE)];
        let mut prepared = vec![0.0; kernel::prepared_len(&g, batch, Pass::Forward, &Epilogue::NONE)];
        let (w, b) = (self.w.as_standard_layout(), self.b.as_standard_layout());
        if let (Some(x), Some(w), Some(b), Some(y)) = (x.as_slice(), w.as_slice(), b.as_slice(), y.as_slice_mut()) {
            kernel::prepare(&g, batch, Pass::Forward, &Epilogue::NONE, w, &mut prepared);
            kernel::forward(&g, x, &prepared, Some(b), None, y, None, &mut workspace, &Epilogue::NONE);
        }
        self.x = Some(x);
        Ok(y)
    }

    /// The gradient of the input from that of the output; sets `dw` and `db`.
    ///
    /// # Errors
    /// No forward pass before, or a gradient that is not of the output's shape.
    pub fn backward(&mut self, dy: &Array4<f32>) -> Result<Array4<f32>, ShapeError> {
        let x = self.x.as_ref().ok_or(ShapeError::BackwardBeforeForward)?;
        let g = self.geometry(x)?;
        let batch = x.dim().0;
        let output = [batch, g.output.channels, g.output.height, g.output.width];
        expect_shape("the convolution's output gradient", &output, dy.shape())?;
        let mut workspace = vec![0.0; kernel::weights_workspace(&g, batch).max(kernel::input_workspace(&g, batch))];
        let mut prepared = vec![0.0; kernel::prepared_len(&g, batch, Pass::BackwardInput, &Epilogue::NONE)];
        let (mut dw, mut db, mut dx) =
            (Array4::zeros(self.w.raw_dim()), Array1::zeros(self.b.raw_dim()), Array4::zeros(x.raw_dim()));
        let (w, dy) = (self.w.as_standard_layout(), dy.as_standard_layout());
        if let (Some(x), Some(w), Some(dy)) = (x.as_slice(), w.as_slice(), dy.as_slice())
            && let (Some(dw), Some(db), Some(dx)) = (dw.as_slice_mut(), db.as_slice_mut(), dx.as_slice_mut())
        {
            let gradient = OutputGradient { dy, y: None, pool: None };
            kernel::backward_weights(&g, x, gradient, dw, Some(db), &mut workspace);
            kernel::prepare(&g, batch, Pass::BackwardInput, &Epilogue::NONE, w, &mut prepared);
            kernel::backward_input(&g, &prepared, gradient, dx, false, &mut workspace);
        }
        self.dw = Some(dw);
        self.db = Some(db);
        Ok(dx)
    }
}

fn standard(w: Array4<f32>) -> Array4<f32> {
    if w.is_standard_layout() { w } else { w.as_standard_layout().into_owned() }
}

/// A convolution in a network's description. Its parameters are filters `W` (FN, C / groups, FH, FW) and, unless left
/// out, biases `b` (FN).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvolutionOptions {
    /// Number of filters (FN), and so of output channels.
    pub filters: usize,
    /// Filter size, stride, padding, dilation and rounding.
    pub window: Window,
    /// Runs that channels and filters are cut into; a filter sees only the channels of its own run. As many groups as
    /// channels make a depthwise convolution.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub groups: usize,
    /// Whether each filter adds a number of its own.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub bias: bool,
    /// How the biases start.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bias_start: f32,
    /// How the filters start.
    pub init: Init,
}

const fn one() -> usize {
    1
}

fn is_one(groups: &usize) -> bool {
    *groups == one()
}

const fn yes() -> bool {
    true
}

fn is_yes(bias: &bool) -> bool {
    *bias
}

impl ConvolutionOptions {
    /// One group, with biases that start at 0.
    pub const fn new(filters: usize, window: Window, init: Init) -> Self {
        Self { filters, window, groups: one(), bias: yes(), bias_start: 0.0, init }
    }

    /// The same with channels and filters split into groups.
    pub const fn groups(self, groups: usize) -> Self {
        Self { groups, ..self }
    }

    /// The same without biases: for a convolution before a batch normalisation, which has its own.
    pub const fn without_bias(self) -> Self {
        Self { bias: false, ..self }
    }

    /// The same with biases that start at `start`.
    pub const fn bias_start(self, start: f32) -> Self {
        Self { bias_start: start, ..self }
    }

    fn geometry(&self, input: Shape) -> Result<Geometry, ShapeError> {
        Geometry::new(input, self.filters, self.groups, self.window)
    }
}

impl Rule for ConvolutionOptions {
    fn kind(&self) -> &'static str {
        "Convolution"
    }

    fn describe(&self) -> String {
        let Window { kernel, stride, padding, dilation, .. } = self.window;
        let pair = |(h, w): (usize, usize)| if h == w { h.to_string() } else { format!("{h}x{w}") };
        let mut text = format!("{} filters {}x{}", self.filters, kernel.0, kernel.1);
        if stride != (1, 1) {
            text += &format!(", stride {}", pair(stride));
        }
        if padding != Padding::NONE {
            text += &format!(", padding {padding}");
        }
        if dilation != (1, 1) {
            text += &format!(", dilation {}", pair(dilation));
        }
        if self.groups != 1 {
            text += &format!(", {} groups", self.groups);
        }
        if !self.bias {
            text += ", no bias";
        }
        text
    }

    fn output(&self, input: Shape) -> Result<Shape, ShapeError> {
        Ok(self.geometry(input)?.output)
    }

    fn parameters(&self, input: Shape) -> Result<Vec<ParameterRule>, ShapeError> {
        let g = self.geometry(input)?;
        let (height, width) = self.window.kernel;
        let shape = vec![self.filters, g.group_channels(), height, width];
        let mut parameters = vec![ParameterRule::weight(shape, self.init, g.depth())];
        if self.bias {
            parameters.push(ParameterRule::bias(self.filters, self.bias_start));
        }
        Ok(parameters)
    }

    fn reach(&self) -> Reach {
        Reach::Window(self.window)
    }

    fn flops(&self, input: Shape) -> Result<u64, ShapeError> {
        let g = self.geometry(input)?;
        Ok((2 * g.depth() as u64 + u64::from(self.bias)) * g.output.len() as u64)
    }

    fn operator(&self, input: Shape, batch: usize) -> Result<Box<dyn Operator>, ShapeError> {
        let geometry = self.geometry(input)?;
        let interleaved = Interleaved::new(&geometry, batch);
        let epilogue = Epilogue::NONE;
        Ok(Box::new(ConvolutionOperator { geometry, batch, bias: self.bias, norm: None, epilogue, interleaved }))
    }
}

/// A convolution with what follows it, if it does: batch normalisation (where its statistics are fixed), a sum, ReLU, max
/// pooling.
#[derive(Debug)]
struct ConvolutionOperator {
    geometry: Geometry,
    batch: usize,
    bias: bool,
    norm: Option<BatchNormOptions>,
    epilogue: Epilogue,
    /// Small images of a batch are computed side by side, with what follows of its own; then `epilogue` is not used.
    interleaved: Option<Interleaved>,
}

impl ConvolutionOperator {
    /// Filters, biases if it has any, and the parameters of the batch normalisation.
    fn split<'a>(&self, parameters: &'a [f32]) -> (&'a [f32], Option<&'a [f32]>, &'a [f32]) {
        let (w, rest) = parameters.split_at(self.geometry.weights());
        let (b, norm) = rest.split_at(if self.bias { self.geometry.filters() } else { 0 });
        (w, self.bias.then_some(b), norm)
    }

    fn prepared_len(&self, pass: Pass) -> usize {
        kernel::prepared_len(&self.geometry, self.batch, pass, &self.epilogue)
    }

    /// Filters and biases with the batch normalisation's scale and shift multiplied in: they do both in one.
    fn folded(&self, norm: BatchNormOptions, parameters: &[f32], biases: &mut [f32]) -> Vec<f32> {
        let (w, b, rest) = self.split(parameters);
        let filters = self.geometry.filters();
        let [gamma, beta, mean, variance] = [0, 1, 2, 3].map(|i| &rest[i * filters..(i + 1) * filters]);
        let mut w = w.to_vec();
        for (f, w) in w.chunks_exact_mut(self.geometry.depth()).enumerate() {
            let scale = gamma[f] * inverse_deviation(variance[f], norm.epsilon);
            w.iter_mut().for_each(|w| *w *= scale);
            biases[f] = (b.map_or(0.0, |b| b[f]) - mean[f]) * scale + beta[f];
        }
        w
    }
}

impl ConvolutionOperator {
    /// Takes the next layer into the passes over interleaved images; `None` if that is not the way, or no longer.
    fn absorb_interleaved(&mut self, next: &Layer, training: bool) -> Option<bool> {
        let interleaved = self.interleaved.as_mut()?;
        match next {
            Layer::Pooling(options)
                if options.pooling == PoolingKind::Max
                    && interleaved.activation() != Activation::Sigmoid
                    && interleaved.yields_to_winners() =>
            {
                self.epilogue.relu = interleaved.activation() == Activation::Relu;
                self.interleaved = None;
                None
            }
            Layer::Relu(_) => Some(interleaved.activate(Activation::Relu)),
            Layer::Sigmoid(_) => Some(interleaved.activate(Activation::Sigmoid)),
            Layer::Pooling(options) => {
                let pool = match options.pooling {
                    PoolingKind::Max => Pool::Max,
                    PoolingKind::Average => Pool::Average,
                };
                let geometry = pooling::Geometry::new(self.geometry.output, options.window);
                Some(geometry.is_ok_and(|geometry| interleaved.pool(pool, geometry)))
            }
            Layer::BatchNorm(options) if !training && interleaved.is_bare() && self.norm.is_none() => {
                self.norm = Some(*options);
                Some(true)
            }
            _ => Some(false),
        }
    }
}

impl Operator for ConvolutionOperator {
    fn output(&self) -> Shape {
        if let Some(interleaved) = &self.interleaved {
            return interleaved.output();
        }
        self.epilogue.pool.map_or(self.geometry.output, |pool| pool.output)
    }

    fn absorb(&mut self, next: &Layer, training: bool) -> bool {
        if let Some(takes) = self.absorb_interleaved(next, training) {
            return takes;
        }
        let bare = self.epilogue == Epilogue::NONE;
        match next {
            Layer::BatchNorm(options) if !training && bare && self.norm.is_none() => self.norm = Some(*options),
            Layer::Relu(_) if !self.epilogue.relu && self.epilogue.pool.is_none() => self.epilogue.relu = true,
            Layer::Pooling(options) if options.pooling == PoolingKind::Max && self.epilogue.pool.is_none() => {
                let Ok(pool) = pooling::Geometry::new(self.geometry.output, options.window) else { return false };
                // A sum's gradient would have to be undone pooling and all.
                if self.epilogue.residual {
                    return false;
                }
                self.epilogue.pool = Some(pool);
            }
            _ => return false,
        }
        true
    }

    fn absorb_sum(&mut self) -> bool {
        if self.interleaved.as_ref().is_some_and(|interleaved| !interleaved.is_bare()) {
            return false;
        }
        self.interleaved = None;
        let takes = self.epilogue == Epilogue::NONE;
        self.epilogue.residual |= takes;
        takes
    }

    fn method(&self) -> String {
        match &self.interleaved {
            Some(_) => "direct over interleaved images (small maps: lanes are images, nothing packed)".into(),
            None => kernel::describe(&self.geometry, self.batch, &self.epilogue),
        }
    }

    fn prepared(&self) -> usize {
        let folded = if self.norm.is_some() { self.geometry.filters() } else { 0 };
        folded
            + match &self.interleaved {
                Some(_) => self.geometry.weights(),
                None => self.prepared_len(Pass::Forward),
            }
    }

    fn prepare(&self, parameters: &[f32], prepared: &mut [f32]) {
        let (g, batch) = (&self.geometry, self.batch);
        let forward = |w: &[f32], prepared: &mut [f32]| match &self.interleaved {
            Some(interleaved) => interleaved.prepare(Pass::Forward, w, prepared),
            None => kernel::prepare(g, batch, Pass::Forward, &self.epilogue, w, prepared),
        };
        if let Some(norm) = self.norm {
            let (biases, prepared) = prepared.split_at_mut(g.filters());
            return forward(&self.folded(norm, parameters, biases), prepared);
        }
        forward(self.split(parameters).0, prepared);
    }

    fn saved(&self) -> usize {
        if let Some(interleaved) = &self.interleaved {
            return interleaved.saved();
        }
        // The place of each maximum, a u32 in the room of an f32.
        self.epilogue.pool.map_or(0, |pool| self.batch * pool.output.len())
    }

    fn forward_workspace(&self) -> usize {
        match &self.interleaved {
            Some(interleaved) => interleaved.forward_workspace(),
            None => kernel::forward_workspace(&self.geometry, self.batch, &self.epilogue),
        }
    }

    fn backward_workspace(&self, input_gradient: bool) -> usize {
        let (g, batch) = (&self.geometry, self.batch);
        if let Some(interleaved) = &self.interleaved {
            return interleaved.backward_workspace();
        }
        let weights = kernel::weights_workspace(g, batch);
        if !input_gradient {
            return weights;
        }
        weights.max(self.prepared_len(Pass::BackwardInput) + kernel::input_workspace(g, batch))
    }

    fn keeps_input(&self) -> bool {
        true
    }

    fn keeps_output(&self) -> bool {
        self.epilogue.relu
    }

    fn forward(&self, f: Forward<'_>) {
        let g = &self.geometry;
        let (_, b, _) = self.split(f.parameters);
        let (biases, prepared) = match self.norm {
            Some(_) => f.prepared.split_at(g.filters()),
            None => (b.unwrap_or_default(), f.prepared),
        };
        let biases = (!biases.is_empty()).then_some(biases);
        if let Some(interleaved) = &self.interleaved {
            return interleaved.forward(f.input, prepared, biases, f.output, f.saved, f.workspace);
        }
        let winner = (!f.saved.is_empty()).then(|| bytemuck::cast_slice_mut(f.saved));
        let residual = self.epilogue.residual.then_some(f.other);
        kernel::forward(g, f.input, prepared, biases, residual, f.output, winner, f.workspace, &self.epilogue);
    }

    fn backward(&self, b: Backward<'_>) {
        let g = &self.geometry;
        let w = self.split(b.parameters).0;
        if let Some(interleaved) = &self.interleaved {
            let (dw, db) = b.parameter_gradient.split_at_mut(g.weights());
            let (dx, db) = ((b.input_gradient.values, b.input_gradient.accumulate), self.bias.then_some(db));
            return interleaved.backward(b.input, w, b.output_gradient, b.saved, dx, (dw, db), b.workspace);
        }
        let y = self.epilogue.relu.then_some(b.output);
        let pool = self.epilogue.pool.as_ref().map(|pool| (pool, bytemuck::cast_slice(b.saved)));
        let gradient = OutputGradient { dy: b.output_gradient, y, pool };
        let (dw, db) = b.parameter_gradient.split_at_mut(g.weights());
        kernel::backward_weights(g, b.input, gradient, dw, self.bias.then_some(db), b.workspace);
        if b.input_gradient.is_wanted() {
            let (prepared, workspace) = b.workspace.split_at_mut(self.prepared_len(Pass::BackwardInput));
            kernel::prepare(g, self.batch, Pass::BackwardInput, &self.epilogue, w, prepared);
            let dx = b.input_gradient;
            kernel::backward_input(g, prepared, gradient, dx.values, dx.accumulate, workspace);
        }
        if b.other_gradient.is_wanted() {
            elementwise::pass_gradient(b.output_gradient, y, b.other_gradient.values, b.other_gradient.accumulate);
        }
    }
}
