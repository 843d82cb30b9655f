//! Which training images a network holds for alike, and the layer at which a class is lost.

use super::{ExplainError, Images, lens};
use crate::network::{Mode, Network, NetworkError, Taps};
use ndarray::{Array2, ArrayView1, ArrayView2, ArrayView3, Axis};

/// The layer whose output [`features`] takes if none is named: the one before the last.
pub fn feature_layer(network: &Network) -> &str {
    let layers = &network.description().layers;
    layers.len().checked_sub(2).map_or("input", |at| layers[at].name.as_str())
}

/// The output of `layer` for each of the images, a row each.
///
/// # Errors
/// Images that are not the network's inputs, a layer that does not exist, or memory that can't be had.
pub fn features(network: &Network, layer: &str, images: &Images<'_>) -> Result<Array2<f32>, ExplainError> {
    let len =
        if layer == "input" { network.input().len() } else { lens::shape_of(network.description(), layer)?.len() };
    let numbers = crate::shape::checked_product(&[images.len(), len]).map_err(NetworkError::from)?;
    let mut values = Vec::new();
    values.try_reserve_exact(numbers).map_err(|_| NetworkError::OutOfMemory {
        what: format!("the outputs of {layer} for {} images", images.len()),
        bytes: numbers.saturating_mul(size_of::<f32>()),
    })?;
    images.outputs(network, &[layer], |_, _, output| values.extend_from_slice(output))?;
    Ok(Array2::from_shape_vec((images.len(), len), values).unwrap_or_default())
}

/// The `count` rows of `features` most like `query` by the cosine of the angle between them, with that cosine, the nearest
/// first.
///
/// ```
/// let rows = ndarray::array![[1., 0.], [3., 4.], [0., 2.]];
/// let found = striate::explain::nearest(rows.view(), ndarray::array![0., 1.].view(), 2);
/// assert_eq!(found, [(2, 1.0), (1, 0.8)]);
/// ```
pub fn nearest(features: ArrayView2<'_, f32>, query: ArrayView1<'_, f32>, count: usize) -> Vec<(usize, f32)> {
    let dot = |a: ArrayView1<'_, f32>, b: ArrayView1<'_, f32>| {
        a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>()
    };
    let norm = dot(query, query).sqrt();
    let mut found: Vec<(usize, f32)> = features
        .axis_iter(Axis(0))
        .enumerate()
        .map(|(i, row)| (i, (dot(row, query) / (norm * dot(row, row).sqrt()).max(1e-30)) as f32))
        .collect();
    found.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    found.truncate(count);
    found
}

/// The mean output of every layer for each class: the simplest readout there is.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassMeans {
    layers: Vec<(String, Array2<f32>)>,
}

/// What a layer's nearest class mean says of one image.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Readout {
    /// The layer.
    pub layer: String,
    /// The class whose mean is nearest (Euclidean distance).
    pub nearest: usize,
    /// How much nearer the mean of the class asked for is than the nearest other: negative where another is nearer. As a
    /// share of that other distance.
    pub margin: f32,
}

impl ClassMeans {
    /// Layers with more numbers than this for all classes are left out.
    const MOST: usize = 1 << 22;

    /// Over images that the network was trained with.
    ///
    /// # Errors
    /// As for [`features`], or other classes than the network has.
    pub fn new(network: &Network, images: &Images<'_>) -> Result<Self, ExplainError> {
        let classes = images.data().classes();
        images.check(network)?;
        let nodes = network.description().nodes()?;
        let fits = |len: usize| len.saturating_mul(classes) <= Self::MOST;
        let kept: Vec<(&str, usize)> = std::iter::once(("input", network.input().len()))
            .chain(
                nodes
                    .iter()
                    .filter(|n| !n.named.layer.rule().is_view(false))
                    .map(|n| (n.named.name.as_str(), n.output.len())),
            )
            .filter(|&(_, len)| fits(len))
            .collect();
        let mut sums: Vec<Vec<f64>> = kept.iter().map(|&(_, len)| vec![0.0; len * classes]).collect();
        let names: Vec<&str> = kept.iter().map(|&(name, _)| name).collect();
        images.outputs(network, &names, |layer, image, values| {
            let start = images.label(image) * values.len();
            sums[layer][start..start + values.len()].iter_mut().zip(values).for_each(|(s, &v)| *s += f64::from(v));
        })?;
        let mut counts = vec![0usize; classes];
        (0..images.len()).for_each(|image| counts[images.label(image)] += 1);
        let layers = kept
            .iter()
            .zip(sums)
            .map(|(&(name, len), sums)| {
                let mean = |(c, i): (usize, usize)| (sums[c * len + i] / counts[c].max(1) as f64) as f32;
                (name.to_owned(), Array2::from_shape_fn((classes, len), mean))
            })
            .collect();
        Ok(Self { layers })
    }

    /// What each layer says of an image that belongs to `class`.
    ///
    /// # Errors
    /// An image that is not the network's input, or a class that does not exist.
    pub fn read(&self, network: &Network, x: ArrayView3<'_, f32>, class: usize) -> Result<Vec<Readout>, ExplainError> {
        lens::check_sample(network, x)?;
        lens::check_class(network, class)?;
        let names = self.layers.iter().map(|(name, _)| name.as_str());
        let mut runner = lens::runner(network, 1, Mode::Inference, &Taps::of(names))?;
        runner.write_input(x);
        runner.predict(network.parameters());
        let mut readouts = Vec::with_capacity(self.layers.len());
        for (name, means) in &self.layers {
            let values = runner.tap(name).unwrap_or_default();
            let distance = |mean: ArrayView1<'_, f32>| {
                mean.iter().zip(values).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum::<f64>().sqrt()
            };
            let distances: Vec<f64> = means.axis_iter(Axis(0)).map(distance).collect();
            let mut order: Vec<usize> = (0..distances.len()).collect();
            order.sort_by(|&a, &b| distances[a].total_cmp(&distances[b]).then(a.cmp(&b)));
            let other = order.iter().find(|&&c| c != class).map_or(0.0, |&c| distances[c]);
            let own = distances.get(class).copied().unwrap_or(f64::MAX);
            let margin = ((other - own) / other.max(1e-30)) as f32;
            readouts.push(Readout { layer: name.clone(), nearest: order.first().copied().unwrap_or(0), margin });
        }
        Ok(readouts)
    }
}

impl Readout {
    /// The layer at which `class` was lost: the first after which it is never nearest again. `None` if it is nearest at the
    /// end, or was never so.
    pub fn lost_at(readouts: &[Readout], class: usize) -> Option<&Readout> {
        let last = readouts.iter().rposition(|readout| readout.nearest == class)?;
        readouts.get(last + 1)
    }
}
