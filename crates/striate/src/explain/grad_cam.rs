//! Where in its maps a layer finds a class: Grad-CAM and LayerCAM.

use super::{ExplainError, lens};
use crate::network::{Mode, Network, Taps};
use ndarray::{Array2, ArrayView2, ArrayView3, Axis};

/// How maps are weighed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CamRule {
    /// Each map by the mean of its gradient (Selvaraju et al. 2017, "Grad-CAM").
    #[default]
    GradCam,
    /// Each place of each map by its gradient, where that is positive (Jiang et al. 2021, "LayerCAM").
    LayerCam,
}

/// A class activation map.
#[derive(Clone, Debug, PartialEq)]
pub struct Cam {
    /// The layer whose maps it is made of.
    pub layer: String,
    /// The weighed sum of the maps where positive, as large as they are (H, W).
    pub map: Array2<f32>,
    /// The same brought to the image's size (bilinear) and to 0 to 1.
    pub heat: Array2<f32>,
}

/// The class activation map of `class` in the maps of `layer`, or in the activation of the last convolution.
///
/// ```
/// use striate::{explain::{self, CamRule}, models, network::Network, shape::Shape};
/// let network = Network::new(models::by_name("simple-convnet", Shape::new(1, 28, 28), 10)?, 1)?;
/// let x = ndarray::Array3::from_elem((1, 28, 28), 0.5);
/// let cam = explain::cam(&network, x.view(), 3, None, CamRule::GradCam)?;
/// assert_eq!((cam.layer.as_str(), cam.map.dim(), cam.heat.dim()), ("Relu1", (24, 24), (28, 28)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// An image that is not the network's input, a class or a layer that does not exist, a layer without maps, a network
/// without convolution where no layer is named, or memory that can't be had.
pub fn cam(
    network: &Network,
    x: ArrayView3<'_, f32>,
    class: usize,
    layer: Option<&str>,
    rule: CamRule,
) -> Result<Cam, ExplainError> {
    lens::check_sample(network, x)?;
    lens::check_class(network, class)?;
    let (layer, shape) = lens::maps_layer(network, layer, "grad-cam")?;
    let mut runner = lens::runner(network, 1, Mode::Gradient, &Taps::of([layer.as_str()]))?;
    runner.write_input(x);
    runner.gradient_from(network.parameters(), lens::last_layer(network), |_, gradient| {
        gradient.fill(0.0);
        gradient[class] = 1.0;
    })?;
    let maps = lens::array(shape, runner.tap(&layer).unwrap_or_default());
    let gradients = lens::array(shape, runner.tap_gradient(&layer).unwrap_or_default());
    let mut sum = Array2::<f64>::zeros((shape.height, shape.width));
    for (map, gradient) in maps.axis_iter(Axis(0)).zip(gradients.axis_iter(Axis(0))) {
        let mean = gradient.iter().map(|&g| f64::from(g)).sum::<f64>() / shape.area() as f64;
        ndarray::Zip::from(&mut sum).and(&map).and(&gradient).for_each(|sum, &a, &g| {
            *sum += f64::from(a)
                * match rule {
                    CamRule::GradCam => mean,
                    CamRule::LayerCam => f64::from(g.max(0.0)),
                };
        });
    }
    let map = sum.mapv(|v| v.max(0.0) as f32);
    let input = network.input();
    let heat = to_unit(enlarge(to_unit(map.clone()).view(), (input.height, input.width)));
    Ok(Cam { layer, map, heat })
}

/// From the smallest value at 0 to the largest at 1.
fn to_unit(mut values: Array2<f32>) -> Array2<f32> {
    let low = values.iter().copied().fold(f32::MAX, f32::min);
    values.mapv_inplace(|v| v - low);
    let high = values.iter().copied().fold(0.0, f32::max);
    values.mapv_inplace(|v| v / (high + 1e-7));
    values
}

/// Bilinear, with pixels as little squares: the centre of an output pixel is looked up among the centres of the input's.
fn enlarge(values: ArrayView2<'_, f32>, (height, width): (usize, usize)) -> Array2<f32> {
    let (rows, columns) = values.dim();
    let place = |i: usize, from: usize, to: usize| {
        let at = ((i as f64 + 0.5) * from as f64 / to as f64 - 0.5).clamp(0.0, (from - 1) as f64);
        let low = at.floor() as usize;
        (low, (low + 1).min(from - 1), at - at.floor())
    };
    Array2::from_shape_fn((height, width), |(y, x)| {
        let (top, bottom, down) = place(y, rows, height);
        let (left, right, across) = place(x, columns, width);
        let row = |row: usize| {
            let (a, b) = (f64::from(values[[row, left]]), f64::from(values[[row, right]]));
            a + (b - a) * across
        };
        (row(top) + (row(bottom) - row(top)) * down) as f32
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn enlarging_keeps_constants_and_meets_the_centres() {
        assert_eq!(enlarge(Array2::from_elem((3, 2), 4.0).view(), (7, 9)), Array2::from_elem((7, 9), 4.0));
        let found = enlarge(array![[0.0, 4.0]].view(), (1, 4));
        assert_eq!(found, array![[0.0, 1.0, 3.0, 4.0]]);
        assert_eq!(to_unit(array![[2.0, 4.0, 3.0]]), array![[0.0, 2.0, 1.0]].mapv(|v: f32| v / (2.0 + 1e-7)));
    }
}
