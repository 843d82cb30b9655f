//! Running a program of bytes.

use super::QuantizedNetwork;
use super::compile::{Place, Program, Work};
use crate::kernels::int8::{self as kernel, SLACK, Target};
use crate::network::{Mode, NetworkError, Plan, Runner, check_samples};
use crate::shape::ShapeError;
use ndarray::{Array2, ArrayView4};
use std::sync::Arc;

/// A quantized network ready to predict batches of one size: its buffers are reserved once.
#[derive(Debug)]
pub struct Predictor<'a> {
    network: &'a QuantizedNetwork,
    program: Arc<Program>,
    batch: usize,
    /// The batch as it is given.
    input: Vec<f32>,
    buffers: Vec<Vec<u8>>,
    workspace: Vec<u8>,
    /// One for each layer that is computed in float, in order.
    float: Vec<Runner>,
    logits: Vec<f32>,
}

impl<'a> Predictor<'a> {
    /// For batches of `batch` samples.
    ///
    /// # Errors
    /// A batch of 0 or beyond any memory.
    pub fn new(network: &'a QuantizedNetwork, batch: usize) -> Result<Self, NetworkError> {
        if batch == 0 {
            return Err(ShapeError::Empty { what: "the batch", found: vec![0] }.into());
        }
        let program = network.program.clone();
        let input = network.input();
        let numbers = input.checked_len(batch)?;
        let mut workspace = 0;
        let mut float = Vec::new();
        for step in &program.steps {
            workspace = workspace.max(match &step.work {
                Work::Product(product) => product.workspace(batch),
                Work::Depthwise(depthwise) => depthwise.workspace(batch),
                Work::Float { network, .. } => {
                    float.push(Runner::new(Plan::new(network.description(), batch, Mode::Inference)?)?);
                    0
                }
                _ => 0,
            });
        }
        let mut buffers = Vec::with_capacity(program.buffers.len());
        for bytes in &program.buffers {
            buffers.push(zeros::<u8>(bytes.saturating_mul(batch).saturating_add(SLACK), batch)?);
        }
        Ok(Self {
            input: zeros(numbers, batch)?,
            buffers,
            workspace: zeros(workspace, batch)?,
            float,
            logits: zeros(network.classes().saturating_mul(batch), batch)?,
            network,
            program,
            batch,
        })
    }

    /// Samples in a batch.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Bytes that it holds: buffers and packed weights.
    pub fn bytes(&self) -> usize {
        let floats = size_of::<f32>() * (self.input.len() + self.logits.len());
        let buffers = self.buffers.iter().map(Vec::len).sum::<usize>();
        floats + buffers + self.workspace.len() + self.program.packed_bytes()
    }

    /// The batch (N, C, H, W), to fill before [`Predictor::run`].
    pub fn input_mut(&mut self) -> &mut [f32] {
        &mut self.input
    }

    /// Logits (N, classes) of the batch.
    pub fn run(&mut self) -> &[f32] {
        let Self { program, input, buffers, workspace, float, logits, batch, .. } = self;
        let (shape, parameters, place) = program.input;
        kernel::quantize(shape, input, parameters, &mut buffers[place.buffer][..place.bytes * *batch]);
        let mut float = float.iter_mut();
        for step in &program.steps {
            let mut output = step.output.map(|place| std::mem::take(&mut buffers[place.buffer]));
            let read = |place: Place| &buffers[place.buffer][..place.bytes * *batch];
            let inputs = &step.inputs;
            let x = read(inputs[0]);
            let y = match (&mut output, step.output) {
                (Some(output), Some(place)) => &mut output[..place.bytes * *batch],
                _ => &mut [],
            };
            match &step.work {
                Work::Product(product) => {
                    // With the bytes after its end, which meet weights of zero.
                    let x = &buffers[inputs[0].buffer];
                    let target =
                        if step.output.is_some() { Target::Bytes(y) } else { Target::Numbers(logits.as_mut_slice()) };
                    product.forward(x, *batch, target, workspace);
                }
                Work::Depthwise(depthwise) => depthwise.forward(x, y, workspace),
                Work::MaxPool(g) => kernel::max_pool(g, x, y),
                Work::Average(average) => average.forward(x, y),
                Work::Lookup(table) => kernel::lookup(table, x, y),
                Work::LookupChannels(tables) => kernel::lookup_channels(tables, x, y),
                Work::Add { a, b, zero } => kernel::add((x, *a), (read(inputs[1]), *b), *zero, y),
                Work::Concat(parts) => {
                    let channels = parts.iter().map(|(count, _)| count).sum();
                    let mut first = 0;
                    for ((count, table), place) in parts.iter().zip(inputs) {
                        kernel::place(table, read(*place), *count, y, channels, first);
                        first += count;
                    }
                }
                Work::MoveChannels(shape) => kernel::move_channels(*shape, x, y),
                Work::Float { network, shapes, from, to } => {
                    let Some(runner) = float.next() else { continue };
                    kernel::dequantize(shapes.0, x, *from, runner.input_mut());
                    let numbers = runner.predict(network.parameters());
                    match step.output {
                        Some(_) => kernel::quantize(shapes.1, numbers, *to, y),
                        None => logits.copy_from_slice(numbers),
                    }
                }
            }
            if let (Some(output), Some(place)) = (output, step.output) {
                buffers[place.buffer] = output;
            }
        }
        if let Some((shape, parameters, place)) = &program.logits {
            kernel::dequantize(*shape, &buffers[place.buffer][..place.bytes * *batch], *parameters, logits);
        }
        &self.logits
    }

    /// Logits (N, classes) of N samples (N, C, H, W), where N is the batch size.
    ///
    /// # Errors
    /// Another number of samples, samples of another shape, or a value that is not finite.
    pub fn predict(&mut self, x: ArrayView4<'_, f32>) -> Result<Array2<f32>, NetworkError> {
        check_samples(self.network.input(), x)?;
        crate::layers::expect_shape("the batch (samples)", &[self.batch], &[x.dim().0])?;
        self.input.iter_mut().zip(&x).for_each(|(to, &from)| *to = from);
        let mut logits = Array2::zeros((self.batch, self.network.classes()));
        logits.iter_mut().zip(self.run()).for_each(|(to, &from)| *to = from);
        Ok(logits)
    }
}

fn zeros<T: Clone + Default>(len: usize, batch: usize) -> Result<Vec<T>, NetworkError> {
    let mut values = Vec::new();
    values.try_reserve_exact(len).map_err(|_| NetworkError::OutOfMemory {
        what: format!("a batch of {batch}"),
        bytes: len.saturating_mul(size_of::<T>()),
    })?;
    values.resize(len, T::default());
    Ok(values)
}
