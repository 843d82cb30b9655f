//! What each filter answers to in an image of any size (section 7.6.1), and the direction of the edges it answers to.

use super::filters::{Filters, filters};
use super::{ExplainError, lens};
use crate::layers::{ConvolutionOptions, Init, Layer, PoolingOptions};
use crate::network::description::Source;
use crate::network::{Description, Mode, Network, Taps};
use crate::shape::{Rounding, Shape, Window};
use ndarray::{Array2, Array3, ArrayView3, ArrayView4, Axis};

/// The direction of a filter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Orientation {
    /// The edges and lines that it answers to, in degrees from 0 to 180: 0 is horizontal, 90 vertical, 45 rises to the right.
    pub degrees: f32,
    /// How much of its energy has that direction: 0 for a spot, which has none, to 1.
    pub coherence: f32,
}

impl Orientation {
    /// Below this coherence a filter has no direction to speak of.
    pub const LEAST: f32 = 0.25;

    /// Of one filter (C, FH, FW), by its structure tensor: the sum over its places of `g gᵀ`, with `g` the difference to
    /// the right and below neighbour (zeros around it). By Parseval's theorem that is its energy by spatial frequency, so
    /// the eigenvector of the larger eigenvalue is the direction in which what it answers to changes most, and edges lie
    /// across it. The coherence is the eigenvalues' difference over their sum (Bigün & Granlund 1987).
    ///
    /// ```
    /// use striate::explain::Orientation;
    /// let edge = ndarray::array![[[1., 1., 1.], [0., 0., 0.], [-1., -1., -1.]]];
    /// let o = Orientation::of(edge.view());
    /// assert!(o.degrees.min(180.0 - o.degrees) < 1.0 && o.coherence > Orientation::LEAST);
    /// assert_eq!(o.name(), "horizontal");
    /// ```
    pub fn of(filter: ArrayView3<'_, f32>) -> Self {
        let (channels, rows, columns) = filter.dim();
        let at = |c: usize, y: isize, x: isize| {
            let inside = (0..rows as isize).contains(&y) && (0..columns as isize).contains(&x);
            if inside { f64::from(filter[[c, y as usize, x as usize]]) } else { 0.0 }
        };
        let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
        for c in 0..channels {
            for y in -1..rows as isize {
                for x in -1..columns as isize {
                    // Central in the middle of four neighbours, so that both differences are of one place.
                    let [a, b, d, e] = [at(c, y, x), at(c, y, x + 1), at(c, y + 1, x), at(c, y + 1, x + 1)];
                    let (dx, dy) = ((b + e - a - d) / 2.0, (d + e - a - b) / 2.0);
                    xx += dx * dx;
                    xy += dx * dy;
                    yy += dy * dy;
                }
            }
        }
        let difference = (xx - yy).hypot(2.0 * xy);
        let steepest = 0.5 * (2.0 * xy).atan2(xx - yy);
        // Edges lie across the steepest direction; rows count downward, angles upward.
        let degrees = (90.0 - steepest.to_degrees()).rem_euclid(180.0);
        let total = xx + yy;
        Self { degrees: degrees as f32, coherence: if total > 0.0 { (difference / total) as f32 } else { 0.0 } }
    }

    /// The direction in a word.
    pub fn name(&self) -> &'static str {
        match self.degrees {
            _ if self.coherence < Self::LEAST => "no direction",
            22.5..67.5 => "rising",
            67.5..112.5 => "vertical",
            112.5..157.5 => "falling",
            _ => "horizontal",
        }
    }
}

/// One filter with what it makes of an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// Its number in the layer.
    pub filter: usize,
    /// The edges it answers to.
    pub orientation: Orientation,
    /// The convolution's output (OH, OW) before any activation.
    pub map: Array2<f32>,
}

/// Every filter's response to one image.
#[derive(Clone, Debug, PartialEq)]
pub struct Responses {
    /// The parameter the filters come from: `W1`.
    pub name: String,
    /// Those with a direction first, from horizontal over rising to vertical and falling; then those without.
    pub responses: Vec<Response>,
}

/// Convolves an image (C, H, W) of any size with the given filters, without padding and pixel by pixel, as the book does
/// with a photograph.
///
/// # Errors
/// An image of other channels than the filters', smaller than they are, or with a value that is not finite.
pub fn responses(filters: &Filters, image: ArrayView3<'_, f32>) -> Result<Responses, ExplainError> {
    let (count, channels, height, width) = filters.values.dim();
    let (found, rows, columns) = image.dim();
    if found != channels {
        return Err(ExplainError::Channels { layer: filters.name.clone(), filters: channels, image: found });
    }
    if rows < height || columns < width {
        let expected = format!("at least {height} x {width}, the size of a filter of {}", filters.name);
        let found = format!("{rows} x {columns}");
        return Err(ExplainError::Option { option: "the size of the image", found, expected });
    }
    let window = Window::of((height, width));
    let convolution = ConvolutionOptions::new(count, window, Init::He).without_bias();
    let description = Description::new("responses", Shape::new(channels, rows, columns)).with("filters", convolution);
    let mut network = Network::new(description, 1)?;
    if let Some(mut w) = network.parameters_mut().get_mut("W1") {
        w.iter_mut().zip(filters.values.iter()).for_each(|(to, &from)| *to = from);
    }
    lens::check_sample(&network, image)?;
    let mut runner = lens::runner(&network, 1, Mode::Inference, &Taps::default())?;
    runner.write_input(image);
    let maps = runner.predict(network.parameters());
    let (rows, columns) = (rows - height + 1, columns - width + 1);
    let maps = ArrayView4::from_shape((1, count, rows, columns), maps).map_err(|_| ExplainError::Option {
        option: "the image",
        found: format!("{} numbers", maps.len()),
        expected: format!("{count} maps of {rows} x {columns}"),
    })?;
    let mut responses: Vec<Response> = filters
        .values
        .axis_iter(Axis(0))
        .zip(maps.index_axis(Axis(0), 0).axis_iter(Axis(0)))
        .enumerate()
        .map(|(filter, (weights, map))| Response { filter, orientation: Orientation::of(weights), map: map.to_owned() })
        .collect();
    responses.sort_by(|a, b| {
        let key = |r: &Response| {
            let o = r.orientation;
            // Just under 180 is as good as horizontal.
            let turned = if o.degrees >= 157.5 { o.degrees - 180.0 } else { o.degrees };
            if o.coherence < Orientation::LEAST { 1000.0 } else { turned }
        };
        key(a).total_cmp(&key(b)).then(a.filter.cmp(&b.filter))
    });
    Ok(Responses { name: filters.name.clone(), responses })
}

/// [`responses`] of the convolution called `layer` (`Conv1`, or `W1` after its weights) or of the first. A deeper one sees
/// what the layers before it make of the image, which may have any size here too.
///
/// ```
/// use striate::{explain, models, network::Network, shape::Shape};
/// let network = Network::new(models::by_name("lenet", Shape::new(1, 28, 28), 10)?, 1)?;
/// let photograph = ndarray::Array3::zeros((1, 61, 80));
/// let found = explain::responses_in(&network, Some("C3"), photograph.view())?;
/// // C1 pads by 2, S2 halves and drops the last row, and 5x5 filters fit 26 x 36 times.
/// assert_eq!((found.name.as_str(), found.responses[0].map.dim()), ("W2", (26, 36)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// No convolution of this name, or an image that the layers up to it can't take.
pub fn responses_in(
    network: &Network,
    layer: Option<&str>,
    image: ArrayView3<'_, f32>,
) -> Result<Responses, ExplainError> {
    let filters = filters(network, layer)?;
    let at = lens::owner_of(network, &filters.name)?;
    match network.description().nodes()?[at].sources.first() {
        Some(&Source::Layer(before)) => responses(&filters, output_of(network, before, image)?.view()),
        _ => responses(&filters, image),
    }
}

/// The output of the layer at position `last` for an image of any size: the layers that it depends on, run alone.
fn output_of(network: &Network, last: usize, image: ArrayView3<'_, f32>) -> Result<Array3<f32>, ExplainError> {
    let description = network.description();
    let nodes = description.nodes()?;
    let mut needed = vec![false; last + 1];
    needed[last] = true;
    for (i, node) in nodes.iter().enumerate().take(last + 1).rev() {
        for source in node.sources.iter().filter(|_| needed[i]).copied().collect::<Vec<_>>() {
            if let Source::Layer(j) = source {
                needed[j] = true;
            }
        }
    }
    let (channels, height, width) = image.dim();
    let mut part = Description::new(description.name.clone(), Shape::new(channels, height, width));
    for (node, _) in nodes.iter().zip(&needed).filter(|(_, needed)| **needed) {
        let inputs = node.sources.iter().map(|source| match source {
            Source::Input => crate::network::description::INPUT,
            Source::Layer(j) => &nodes[*j].named.name,
        });
        // A photograph seldom has a size that divides evenly.
        let mut layer = node.named.layer.clone();
        if let Layer::Convolution(ConvolutionOptions { window, .. }) | Layer::Pooling(PoolingOptions { window, .. }) =
            &mut layer
            && window.rounding == Rounding::Exact
        {
            window.rounding = Rounding::Floor;
        }
        part = part.with_inputs(node.named.name.clone(), layer, inputs);
    }
    let shape = part.shapes()?.last().copied().unwrap_or(part.input);
    let mut part = Network::new(part, 1)?;
    let owners = description.parameter_owners()?;
    let (from, all) = (network.parameters(), network.parameters().specs());
    let kept = all.iter().zip(&owners).filter(|(_, owner)| needed.get(**owner) == Some(&true));
    let values: Vec<f32> = kept.flat_map(|(spec, _)| &from.as_slice()[spec.range.clone()]).copied().collect();
    // An affine layer before a convolution would have weights for one size only.
    let to = part.parameters_mut().as_mut_slice();
    if to.len() != values.len() {
        let (found, expected) = (format!("{height} x {width}"), format!("{}, the network's own", description.input));
        return Err(ExplainError::Option { option: "the size of the image", found, expected });
    }
    to.copy_from_slice(&values);
    lens::check_sample(&part, image)?;
    let mut runner = lens::runner(&part, 1, Mode::Inference, &Taps::default())?;
    runner.write_input(image);
    Ok(lens::array(shape, runner.predict(part.parameters())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array3, Array4};

    #[test]
    fn bars_have_the_directions_they_were_drawn_in() {
        for (name, bar) in [
            ("horizontal", (|y, _| y == 3) as fn(usize, usize) -> bool),
            ("vertical", |_, x| x == 3),
            ("falling", |y, x| y == x),
            ("rising", |y, x| y + x == 6),
        ] {
            let filter = Array3::from_shape_fn((1, 7, 7), |(_, y, x)| f32::from(u8::from(bar(y, x))));
            let o = Orientation::of(filter.view());
            assert_eq!(o.name(), name, "{o:?}");
        }
        let spot = Array3::from_shape_fn((1, 5, 5), |(_, y, x)| f32::from(u8::from(y == 2 && x == 2)));
        assert_eq!(Orientation::of(spot.view()).name(), "no direction");
        assert_eq!(Orientation::of(Array3::zeros((1, 3, 3)).view()).coherence, 0.0);
    }

    #[test]
    fn deeper_filters_see_what_the_layers_before_them_make() {
        let network = |name: &str, shape| Network::new(crate::models::by_name(name, shape, 10).unwrap(), 1).unwrap();
        let lenet = network("lenet", Shape::new(1, 28, 28));
        let image = Array3::from_shape_fn((1, 28, 28), |(_, y, x)| ((y * x) % 7) as f32 / 7.0);
        let found = responses_in(&lenet, Some("C3"), image.view()).unwrap();
        let all = crate::explain::feature_maps(&lenet, image.view()).unwrap();
        let own = &all.iter().find(|maps| maps.layer == "C3").unwrap().values;
        for response in &found.responses {
            // The layer adds a bias, which is 0 in a fresh network, and pads nothing.
            let difference = &response.map - &own.index_axis(Axis(0), response.filter);
            assert!(difference.iter().all(|d| d.abs() < 1e-5));
        }
        let odd = responses_in(&lenet, Some("C3"), Array3::from_elem((1, 61, 43), 0.5).view()).unwrap();
        assert_eq!(odd.responses[0].map.dim(), (26, 17));
        // Branches that end elsewhere are left out.
        let residual = network("cifar-resnet20", Shape::new(3, 32, 32));
        let layers = &residual.description().layers;
        let last = layers.iter().rposition(|named| matches!(named.layer, Layer::Convolution(_))).unwrap();
        let photograph = Array3::from_elem((3, 48, 64), 0.5);
        let found = responses_in(&residual, Some(&layers[last].name), photograph.view()).unwrap();
        assert_eq!(found.responses[0].map.dim(), (10, 14));
        assert!(responses_in(&lenet, Some("C3"), Array3::zeros((1, 4, 4)).view()).is_err());
    }

    #[test]
    fn responses_are_the_convolution_sorted_by_direction() {
        let values = Array4::from_shape_fn((2, 1, 3, 3), |(n, _, y, x)| [x, y][n] as f32 - 1.0);
        let filters = Filters { name: "W1".into(), values };
        // Brightness rises to the right: only the filter for vertical edges answers.
        let image = Array3::from_shape_fn((1, 6, 8), |(_, _, x)| x as f32);
        let found = responses(&filters, image.view()).unwrap();
        let names: Vec<_> = found.responses.iter().map(|r| (r.filter, r.orientation.name())).collect();
        assert_eq!(names, [(1, "horizontal"), (0, "vertical")]);
        assert_eq!(found.responses[0].map, Array2::<f32>::zeros((4, 6)));
        assert_eq!(found.responses[1].map, Array2::from_elem((4, 6), 6.0));
        let colour = responses(&filters, Array3::zeros((3, 6, 8)).view()).unwrap_err().to_string();
        assert!(colour.contains("1 channels, but an image has 3"), "{colour}");
        assert!(responses(&filters, Array3::zeros((1, 2, 8)).view()).is_err());
    }
}
