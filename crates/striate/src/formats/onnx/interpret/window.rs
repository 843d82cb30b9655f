//! Windows over the pixels of a map: sizes, steps and padding of convolutions and poolings.

use crate::formats::onnx::node::{Node, Problem, invalid, unsupported};
use crate::formats::onnx::tensor::{folded_count, sizes};

/// A window along each spatial axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::formats::onnx) struct Spatial {
    pub(in crate::formats::onnx) kernel: Vec<usize>,
    pub(in crate::formats::onnx) strides: Vec<usize>,
    pub(in crate::formats::onnx) dilations: Vec<usize>,
    /// Before and after.
    pub(in crate::formats::onnx) pads: Vec<(usize, usize)>,
}

/// The window of a node with this kernel over maps of these sizes: `auto_pad` becomes plain padding.
pub(in crate::formats::onnx) fn spatial(node: &Node, kernel: &[usize], input: &[usize]) -> Result<Spatial, Problem> {
    let rank = input.len();
    if kernel.len() != rank {
        return invalid(format!("a window of {kernel:?} over {rank} axes"));
    }
    if let Some(said) = node.ints("kernel_shape")
        && sizes(said)? != kernel
    {
        return invalid(format!("kernel_shape is {said:?}, and its weights say {kernel:?}"));
    }
    let strides = along(node, "strides", rank)?;
    let dilations = along(node, "dilations", rank)?;
    let pads = match node.text("auto_pad", "NOTSET").as_str() {
        "NOTSET" => {
            let list = node.ints("pads").map_or_else(|| vec![0; 2 * rank], <[i64]>::to_vec);
            if list.iter().any(|&pad| pad < 0) {
                return unsupported(format!("pads {list:?}; negative ones are not supported"));
            }
            let list = sizes(&list)?;
            if list.len() != 2 * rank {
                return invalid(format!("{} pads for {rank} axes", list.len()));
            }
            (0..rank).map(|axis| (list[axis], list[rank + axis])).collect()
        }
        "VALID" => vec![(0, 0); rank],
        auto @ ("SAME_UPPER" | "SAME_LOWER") => (0..rank)
            .map(|axis| {
                let (size, stride) = (input[axis], strides[axis]);
                let span = spanned(kernel[axis], dilations[axis])?;
                let total = (size.div_ceil(stride).max(1) - 1).saturating_mul(stride).saturating_add(span);
                Ok(halves(total.saturating_sub(size), auto == "SAME_UPPER"))
            })
            .collect::<Result<_, Problem>>()?,
        other => return invalid(format!("auto_pad is {other:?}")),
    };
    Ok(Spatial { kernel: kernel.to_vec(), strides, dilations, pads })
}

/// A list of sizes, one an axis, each at least 1; ones where the node has none.
fn along(node: &Node, name: &str, rank: usize) -> Result<Vec<usize>, Problem> {
    let list = node.ints(name).filter(|list| !list.is_empty()).map_or_else(|| Ok(vec![1; rank]), sizes)?;
    if list.len() != rank || list.contains(&0) {
        return invalid(format!("{name} is {list:?}; {rank} numbers from 1 on are needed"));
    }
    Ok(list)
}

/// Two halves, the larger one after with `upper`, else before.
fn halves(total: usize, upper: bool) -> (usize, usize) {
    let (small, large) = (total / 2, total - total / 2);
    if upper { (small, large) } else { (large, small) }
}

/// What a dilated kernel spans.
fn spanned(kernel: usize, dilation: usize) -> Result<usize, Problem> {
    match kernel.checked_sub(1).and_then(|n| n.checked_mul(dilation)).and_then(|n| n.checked_add(1)) {
        Some(span) => Ok(span),
        None => invalid(format!("a window of {kernel} with dilation {dilation}")),
    }
}

/// A transposed convolution: the window of the convolution that goes the other way, and the size it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::formats::onnx) struct Transposed {
    pub(in crate::formats::onnx) spatial: Spatial,
    pub(in crate::formats::onnx) output: Vec<usize>,
}

/// What a ConvTranspose makes of maps of these sizes.
pub(in crate::formats::onnx) fn transposed(
    node: &Node,
    kernel: &[usize],
    input: &[usize],
) -> Result<Transposed, Problem> {
    let rank = input.len();
    let strides = along(node, "strides", rank)?;
    let dilations = along(node, "dilations", rank)?;
    let extra = node.ints("output_padding").map_or_else(|| Ok(vec![0; rank]), sizes)?;
    let list = node.ints("pads").map_or_else(|| Ok(vec![0; 2 * rank]), sizes)?;
    let wanted = node.ints("output_shape").map(sizes).transpose()?;
    // Some files give the batch and the channels as well.
    let wanted = wanted.map(|list| list[list.len().saturating_sub(rank)..].to_vec());
    if kernel.len() != rank || extra.len() != rank || list.len() != 2 * rank {
        return invalid(format!("kernel, output_padding and pads are not those of {rank} axes"));
    }
    let auto = node.text("auto_pad", "NOTSET");
    let (mut pads, mut output) = (Vec::with_capacity(rank), Vec::with_capacity(rank));
    for axis in 0..rank {
        let span = spanned(kernel[axis], dilations[axis])?;
        let full = (input[axis].max(1) - 1)
            .checked_mul(strides[axis])
            .and_then(|n| n.checked_add(span)?.checked_add(extra[axis]))
            .map_or_else(|| invalid("sizes beyond any memory"), Ok)?;
        let goal = match (&wanted, auto.as_str()) {
            (Some(wanted), _) => match wanted.get(axis) {
                Some(&size) => Some(size),
                None => return invalid(format!("output_shape {wanted:?} for {rank} axes")),
            },
            (None, "SAME_UPPER" | "SAME_LOWER") => input[axis].checked_mul(strides[axis]),
            _ => None,
        };
        let given = if auto == "VALID" { (0, 0) } else { (list[axis], list[rank + axis]) };
        // A goal beyond all there is adds zeros at the end.
        let (before, after) = match goal {
            Some(size) => {
                halves(full.saturating_sub(size), auto == "SAME_UPPER" || auto == "NOTSET" && wanted.is_none())
            }
            None => given,
        };
        let size = match goal {
            Some(size) => size,
            None => match full.checked_sub(before.saturating_add(after)) {
                Some(size) => size,
                None => return invalid(format!("pads {given:?} take more than there is ({full})")),
            },
        };
        pads.push((before, after));
        output.push(size);
    }
    Ok(Transposed { spatial: Spatial { kernel: kernel.to_vec(), strides, dilations, pads }, output })
}

/// Sizes of what a window gives; with `ceil` it may hang over the end.
pub(super) fn output(window: &Spatial, input: &[usize], ceil: bool) -> Result<Vec<usize>, Problem> {
    let mut sizes = Vec::with_capacity(input.len());
    for (axis, &size) in input.iter().enumerate() {
        let (before, after) = window.pads[axis];
        let span = spanned(window.kernel[axis], window.dilations[axis])?;
        let padded = size.checked_add(before).and_then(|n| n.checked_add(after));
        let Some(room) = padded.and_then(|padded| padded.checked_sub(span)) else {
            return invalid(format!("a window of {span} over {size} numbers"));
        };
        let stride = window.strides[axis];
        let mut count = room / stride + 1;
        // A last window that would begin in the padding after the map is left out.
        if ceil && !room.is_multiple_of(stride) && count * stride < size + before {
            count += 1;
        }
        sizes.push(count);
    }
    folded_count(&sizes)?;
    Ok(sizes)
}

/// Calls `body` with each index into an array of these sizes, in row-major order.
pub(super) fn each(sizes: &[usize], mut body: impl FnMut(&[usize])) {
    if sizes.contains(&0) {
        return;
    }
    let mut index = vec![0; sizes.len()];
    loop {
        body(&index);
        let mut axis = sizes.len();
        loop {
            let Some(before) = axis.checked_sub(1) else { return };
            axis = before;
            index[axis] += 1;
            if index[axis] < sizes[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
}

/// The place in a map under place `tap` of the window at `at`; `None` in the padding.
pub(super) fn under(window: &Spatial, input: &[usize], at: &[usize], tap: &[usize]) -> Option<usize> {
    let mut place = 0;
    for (axis, &size) in input.iter().enumerate() {
        let along = at[axis] * window.strides[axis] + tap[axis] * window.dilations[axis];
        let along = along.checked_sub(window.pads[axis].0).filter(|&along| along < size)?;
        place = place * size + along;
    }
    Some(place)
}
