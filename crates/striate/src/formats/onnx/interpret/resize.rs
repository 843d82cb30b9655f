//! Resize, by the tables that the layer has too.

use super::{Inputs, input};
use crate::formats::onnx::node::{Node, Problem, invalid, unsupported};
use crate::formats::onnx::tensor::{Tensor, Values, folded_count, sizes};
pub(in crate::formats::onnx) use crate::kernels::resize::Axis;
use crate::kernels::resize::{Coordinates, Interpolation, Nearest};
use ndarray::{ArrayD, Axis as At};

pub(super) fn run(node: &Node, inputs: &Inputs<'_>) -> Result<Vec<Tensor>, Problem> {
    let x = input(inputs, 0)?;
    let mut array = match &x.values {
        Values::Float(array) => array.clone(),
        Values::Int(array) => array.mapv(|n| n as f32),
        Values::Text(_) => return invalid("text where numbers are needed"),
    };
    let axes = plan(node, x.dims(), &inputs[1..])?;
    folded_count(&axes.iter().map(|axis| axis.output).collect::<Vec<_>>())?;
    let mut outside = vec![Vec::new(); axes.len()];
    for (at, axis) in axes.iter().enumerate().filter(|(_, axis)| !axis.is_identity()) {
        let taps = axis.taps();
        outside[at] = taps.iter().map(Vec::is_empty).collect::<Vec<bool>>();
        let mut dims = array.shape().to_vec();
        dims[at] = axis.output;
        let mut wider = ArrayD::zeros(dims);
        for (from, mut to) in array.lanes(At(at)).into_iter().zip(wider.lanes_mut(At(at))) {
            to.iter_mut()
                .zip(&taps)
                .for_each(|(to, taps)| *to = taps.iter().map(|&(i, weight)| weight * from[i]).sum());
        }
        array = wider;
    }
    let value = node.float("extrapolation_value", 0.0);
    for (index, number) in array.indexed_iter_mut() {
        if outside.iter().enumerate().any(|(at, outside)| outside.get(index[at]) == Some(&true)) {
            *number = value;
        }
    }
    let values = match &x.values {
        Values::Int(_) => {
            let (low, high) = x.element.range();
            Values::Int(array.mapv(|x| (x.round_ties_even() as i64).clamp(low, high)))
        }
        _ => Values::Float(array),
    };
    Ok(vec![Tensor { element: x.element, values }])
}

impl Axis {
    /// Whether every pixel stays as it is.
    pub(in crate::formats::onnx) fn is_identity(&self) -> bool {
        self.input == self.output && self.scale == 1.0 && self.coordinates != Coordinates::Crop
    }
}

/// What a Resize of this node does along every axis; `given` are the inputs after the first.
pub(in crate::formats::onnx) fn plan(
    node: &Node,
    dims: &[usize],
    given: &[Option<&Tensor>],
) -> Result<Vec<Axis>, Problem> {
    let rank = dims.len();
    let input = |at: usize| given.get(at).copied().flatten().filter(|tensor| tensor.len() > 0);
    // Before operator set 11 the scales came first and nothing else.
    let early = node.operator == "Upsample" || node.opset < 11;
    let (region, scales, wanted) = if early { (None, input(0), None) } else { (input(0), input(1), input(2)) };
    let axes: Vec<usize> = match node.ints("axes") {
        Some(axes) => axes.iter().map(|&axis| Node::axis(axis, rank)).collect::<Result<_, _>>()?,
        None => (0..rank).collect(),
    };
    let coordinates =
        match node.text("coordinate_transformation_mode", if early { "asymmetric" } else { "half_pixel" }).as_str() {
            "half_pixel" => Coordinates::HalfPixel,
            "half_pixel_symmetric" => Coordinates::HalfPixelSymmetric,
            "pytorch_half_pixel" => Coordinates::PytorchHalfPixel,
            "align_corners" => Coordinates::AlignCorners,
            "asymmetric" => Coordinates::Asymmetric,
            "tf_crop_and_resize" => Coordinates::Crop,
            other => return unsupported(format!("coordinate_transformation_mode {other:?}")),
        };
    let nearest = match node.text("nearest_mode", if early { "floor" } else { "round_prefer_floor" }).as_str() {
        "round_prefer_floor" => Nearest::PreferFloor,
        "round_prefer_ceil" => Nearest::PreferCeil,
        "floor" => Nearest::Floor,
        "ceil" => Nearest::Ceil,
        other => return unsupported(format!("nearest_mode {other:?}")),
    };
    let interpolation = match node.text("mode", "nearest").as_str() {
        "nearest" => Interpolation::Nearest(nearest),
        "linear" | "bilinear" => Interpolation::Linear,
        "cubic" => Interpolation::Cubic(node.float("cubic_coeff_a", -0.75).into()),
        other => return unsupported(format!("mode {other:?}")),
    };
    let mut plan: Vec<Axis> = dims
        .iter()
        .map(|&size| Axis {
            input: size,
            output: size,
            scale: 1.0,
            coordinates: if coordinates == Coordinates::Crop { Coordinates::HalfPixel } else { coordinates },
            interpolation,
            antialias: node.int("antialias", 0) != 0,
            exclude_outside: node.int("exclude_outside", 0) != 0,
            region: (0.0, 1.0),
        })
        .collect();
    if dims.contains(&0) {
        return invalid(format!("an empty input, {dims:?}"));
    }
    let scales = match scales {
        Some(scales) => Some(scales.to_floats()?),
        None => node.floats("scales").map(<[f32]>::to_vec),
    };
    let region = region.map(Tensor::to_floats).transpose()?;
    let count = |found: usize, what: &str| -> Result<(), Problem> {
        if found == axes.len() { Ok(()) } else { invalid(format!("{found} {what} for {} axes", axes.len())) }
    };
    if let Some(wanted) = wanted {
        let wanted = sizes(&wanted.to_ints()?)?;
        count(wanted.len(), "sizes")?;
        let ratio = |(i, &axis): (usize, &usize)| wanted[i] as f64 / dims[axis] as f64;
        let ratios: Vec<f64> = axes.iter().enumerate().map(ratio).collect();
        let common = match node.text("keep_aspect_ratio_policy", "stretch").as_str() {
            "not_larger" => ratios.iter().copied().reduce(f64::min),
            "not_smaller" => ratios.iter().copied().reduce(f64::max),
            _ => None,
        };
        for (i, &axis) in axes.iter().enumerate() {
            plan[axis].scale = common.unwrap_or(ratios[i]);
            plan[axis].output = match common {
                Some(scale) => (scale * dims[axis] as f64 + 0.5) as usize,
                None => wanted[i],
            };
        }
    } else if let Some(scales) = scales {
        count(scales.len(), "scales")?;
        for (&scale, &axis) in scales.iter().zip(&axes) {
            if !(scale.is_finite() && scale > 0.0) {
                return invalid(format!("a scale of {scale}"));
            }
            plan[axis].scale = scale.into();
            plan[axis].output = (f64::from(scale) * dims[axis] as f64).floor() as usize;
        }
    } else {
        return invalid("it has neither scales nor sizes");
    }
    if coordinates == Coordinates::Crop {
        let Some(region) = region.filter(|region| region.len() == 2 * axes.len()) else {
            return invalid("tf_crop_and_resize needs a region, two numbers an axis");
        };
        for (i, &axis) in axes.iter().enumerate() {
            plan[axis].region = (region[i].into(), region[axes.len() + i].into());
            plan[axis].coordinates = Coordinates::Crop;
        }
    }
    match plan.iter().all(|axis| axis.output > 0) {
        true => Ok(plan),
        false => invalid("it leaves nothing"),
    }
}
