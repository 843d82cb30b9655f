//! Conv and ConvTranspose, and the windows that pooling has too.

use super::{Call, Flow, Importer};
use crate::formats::onnx::interpret::window::{Spatial, spatial};
use crate::formats::onnx::node::{Node, Problem, invalid, unsupported};
use crate::formats::onnx::tensor::Tensor;
use crate::layers::{ConvolutionOptions, Init, TransposedConvolutionOptions};
use crate::shape::{Padding, Rounding, Shape, Window};

/// A window over the last one or two axes of a map.
pub(super) fn window(node: &Node, kernel: &[usize], input: Shape, rank: usize) -> Result<Window, Problem> {
    let sizes: &[usize] = match rank {
        3 => &[input.width],
        4 => &[input.height, input.width],
        _ => return unsupported(format!("its input has {rank} axes; 3 or 4 are needed")),
    };
    let Spatial { kernel, strides, dilations, pads } = spatial(node, kernel, sizes)?;
    let pair = |values: &[usize]| match *values {
        [width] => (1, width),
        _ => (values[0], values[1]),
    };
    let (before, after): (Vec<usize>, Vec<usize>) = pads.iter().copied().unzip();
    let sides = |values: &[usize]| if values.len() == 1 { (0, values[0]) } else { (values[0], values[1]) };
    let ((top, left), (bottom, right)) = (sides(&before), sides(&after));
    Ok(Window {
        kernel: pair(&kernel),
        stride: pair(&strides),
        padding: Padding { top, left, bottom, right },
        dilation: pair(&dilations),
        rounding: Rounding::Floor,
    })
}

/// Filters as numbers, with the sizes of a filter.
pub(super) fn filters(w: &Tensor, rank: usize) -> Result<(Vec<f32>, usize, usize, Vec<usize>), Problem> {
    let dims = w.dims();
    if dims.len() != rank || dims.len() < 3 {
        return invalid(format!("its weights have the shape {dims:?}, and its input {rank} axes"));
    }
    Ok((w.to_floats()?, dims[0], dims[1], dims[2..].to_vec()))
}

pub(super) fn group(node: &Node) -> Result<usize, Problem> {
    let group = node.int("group", 1);
    usize::try_from(group).or_else(|_| invalid(format!("group is {group}")))
}

impl Importer<'_> {
    pub(super) fn convolution(&mut self, call: &Call<'_>) -> Result<Flow, Problem> {
        let rank = call.flow(0)?.dims.len();
        let (w, filters, _, kernel) = filters(call.constant(1)?, rank)?;
        let bias = call.optional(2)?.map(Tensor::to_floats).transpose()?;
        self.convolve(call, w, filters, &kernel, bias)
    }

    /// A convolution with the node's window.
    pub(super) fn convolve(
        &mut self,
        call: &Call<'_>,
        w: Vec<f32>,
        filters: usize,
        kernel: &[usize],
        bias: Option<Vec<f32>>,
    ) -> Result<Flow, Problem> {
        let flow = call.flow(0)?.clone();
        let (source, input) = self.map(call.node, &flow)?;
        let window = window(call.node, kernel, input, flow.dims.len())?;
        let options = ConvolutionOptions {
            groups: group(call.node)?,
            bias: bias.is_some(),
            ..ConvolutionOptions::new(filters, window, Init::He)
        };
        let open = bias.is_none();
        let parameters = std::iter::once(w).chain(bias).collect();
        let (at, shape) = self.push(call.node, "", options, &[source], parameters)?;
        self.layers[at].open_bias = open;
        Ok(self.flow(at, shape, flow.dims.len()))
    }

    pub(super) fn transposed_convolution(&mut self, call: &Call<'_>) -> Result<Flow, Problem> {
        let node = call.node;
        let flow = call.flow(0)?.clone();
        let rank = flow.dims.len();
        let (source, input) = self.map(node, &flow)?;
        let (w, channels, group_filters, kernel) = filters(call.constant(1)?, rank)?;
        if channels != input.channels {
            return invalid(format!("its weights are for {channels} channels, and its input has {}", input.channels));
        }
        let groups = group(node)?;
        let filters = group_filters.checked_mul(groups).map_or_else(|| invalid("too many groups"), Ok)?;
        let sizes = if rank == 3 { vec![input.width] } else { vec![input.height, input.width] };
        let transposed = crate::formats::onnx::interpret::window::transposed(node, &kernel, &sizes)?;
        // The window of the convolution that goes the other way.
        let mut window = self::window(&Node::bare(), &kernel, input, rank)?;
        let pair =
            |values: &[usize], one: usize| if values.len() == 1 { (one, values[0]) } else { (values[0], values[1]) };
        let (before, after): (Vec<usize>, Vec<usize>) = transposed.spatial.pads.iter().copied().unzip();
        let ((top, left), (bottom, right)) = (pair(&before, 0), pair(&after, 0));
        window.stride = pair(&transposed.spatial.strides, 1);
        window.dilation = pair(&transposed.spatial.dilations, 1);
        window.padding = Padding { top, left, bottom, right };
        let bias = match call.optional(2)? {
            Some(bias) => bias.to_floats()?,
            None => vec![0.0; filters],
        };
        let options = TransposedConvolutionOptions {
            filters,
            groups,
            window,
            output: pair(&transposed.output, 1),
            init: Init::He,
        };
        let (at, shape) = self.push(node, "", options, &[source], vec![w, bias])?;
        Ok(self.flow(at, shape, rank))
    }
}
