//! How a network fares while it learns: gradients and dead units layer by layer, and what it mistakes now.

use super::{ExplainError, Images, lens};
use crate::layers::{Layer, predicted_class};
use crate::network::{Mode, Network, Taps};

/// What some images say of a network in the middle of its training.
#[derive(Clone, Debug, PartialEq)]
pub struct Pulse {
    /// Images asked.
    pub images: usize,
    /// The mean loss over them.
    pub loss: f64,
    /// Those whose class was found.
    pub correct: usize,
    /// Every layer that learns or is a ReLU, in order.
    pub layers: Vec<LayerPulse>,
    /// The images that are taken for another class, the surest first.
    pub mistakes: Vec<Mistaken>,
}

/// One layer.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct LayerPulse {
    /// Its name.
    pub layer: String,
    /// The length (Euclidean norm) of the loss's gradient by all of its parameters, if it has any.
    pub gradient_norm: Option<f64>,
    /// Of a ReLU: the share of its units (maps, or numbers where its output is flat) that are 0 everywhere in all images.
    pub dead: Option<f64>,
}

/// An image that is taken for another class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mistaken {
    /// Its position in the data set.
    pub index: usize,
    /// The class it belongs to.
    pub label: usize,
    /// The class it is taken for.
    pub predicted: usize,
    /// How sure the network is of that, 0 to 1.
    pub probability: f64,
}

/// Runs the network forward and backward over the images as in a step of training (with the batch's own statistics where
/// it normalises, but nothing dropped); the network stays as it is.
///
/// ```
/// use striate::{data::{Dataset, Normalization, one_class_names}, explain, models, network::Network, shape::Shape};
/// let network = Network::new(models::by_name("simple-convnet", Shape::new(1, 28, 28), 10)?, 1)?;
/// let x = ndarray::Array4::from_elem((4, 1, 28, 28), 0.5);
/// let data = Dataset::from_arrays(x, vec![0, 1, 2, 3], one_class_names(10))?;
/// let scale = Normalization::identity();
/// let pulse = explain::pulse(&network, &explain::Images::new(&data, &scale))?;
/// let names: Vec<&str> = pulse.layers.iter().map(|one| one.layer.as_str()).collect();
/// assert_eq!(names, ["Conv1", "Relu1", "Affine1", "Relu2", "Affine2"]);
/// assert!(pulse.layers[0].gradient_norm.unwrap() > 0.0 && pulse.mistakes.len() == 4 - pulse.correct);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Images that are not the network's inputs or have other classes, no images, or memory that can't be had.
pub fn pulse(network: &Network, images: &Images<'_>) -> Result<Pulse, ExplainError> {
    images.check(network)?;
    let description = network.description();
    let (nodes, owners) = (description.nodes()?, description.parameter_owners()?);
    let relus: Vec<usize> = (0..nodes.len()).filter(|&i| matches!(nodes[i].named.layer, Layer::Relu(_))).collect();
    let names = relus.iter().map(|&i| nodes[i].named.name.as_str());
    let batch = images.batch(nodes.iter().map(|node| node.output.len()).sum::<usize>().saturating_mul(2));
    let mut backward = lens::runner(network, batch, Mode::Training, &Taps::default())?;
    // Predictions and the units' outputs as the network predicts.
    let last = lens::last_layer(network);
    let mut forward = lens::runner(network, batch, Mode::Inference, &Taps::of(names.chain([last])))?;
    let mut gradients = network.parameters().zeros_like();
    let mut sums = vec![0.0f64; gradients.len()];
    let mut alive: Vec<Vec<bool>> = relus.iter().map(|&i| vec![false; nodes[i].output.channels]).collect();
    let (mut loss, mut correct, mut mistakes) = (0.0, 0, Vec::new());
    let classes = network.classes();
    images.batches(network, batch, |range, pixels| {
        let labels: Vec<usize> = (0..batch).map(|k| images.label((range.start + k).min(images.len() - 1))).collect();
        for runner in [&mut backward, &mut forward] {
            runner.input_mut().copy_from_slice(pixels);
            runner.labels_mut().copy_from_slice(&labels);
        }
        loss +=
            f64::from(backward.loss_and_gradient(network.parameters(), &mut gradients, None).loss) * range.len() as f64;
        let share = range.len() as f64 / images.len() as f64;
        sums.iter_mut().zip(gradients.as_slice()).for_each(|(sum, &g)| *sum += share * f64::from(g));
        forward.predict(network.parameters());
        for (&i, alive) in relus.iter().zip(&mut alive) {
            let shape = nodes[i].output;
            let values = forward.tap(&nodes[i].named.name).unwrap_or_default();
            for sample in values.chunks_exact(shape.len().max(1)).take(range.len()) {
                for (alive, map) in alive.iter_mut().zip(sample.chunks_exact(shape.area().max(1))) {
                    *alive |= map.iter().any(|&v| v > 0.0);
                }
            }
        }
        let logits = forward.tap(last).unwrap_or_default();
        for ((k, logits), &label) in range.clone().zip(logits.chunks_exact(classes.max(1))).zip(&labels) {
            let predicted = predicted_class(logits);
            if predicted == label {
                correct += 1;
                continue;
            }
            let most = f64::from(logits[predicted]);
            let all: f64 = logits.iter().map(|&v| (f64::from(v) - most).exp()).sum();
            mistakes.push(Mistaken { index: images.index(k), label, predicted, probability: 1.0 / all });
        }
    })?;
    mistakes.sort_by(|a, b| b.probability.total_cmp(&a.probability).then(a.index.cmp(&b.index)));
    let mut norms: Vec<Option<f64>> = vec![None; nodes.len()];
    for (spec, &owner) in network.parameters().specs().iter().zip(&owners) {
        let squares: f64 = sums[spec.range.clone()].iter().map(|g| g * g).sum();
        *norms[owner].get_or_insert(0.0) += squares;
    }
    let mut dead: Vec<Option<f64>> = vec![None; nodes.len()];
    for (&i, alive) in relus.iter().zip(&alive) {
        dead[i] = Some(alive.iter().filter(|alive| !**alive).count() as f64 / alive.len().max(1) as f64);
    }
    let layers =
        nodes.iter().zip(norms.into_iter().zip(dead)).filter(|(_, (norm, dead))| norm.is_some() || dead.is_some());
    let layers = layers.map(|(node, (norm, dead))| LayerPulse {
        layer: node.named.name.clone(),
        gradient_norm: norm.map(f64::sqrt),
        dead,
    });
    Ok(Pulse { images: images.len(), loss: loss / images.len() as f64, correct, layers: layers.collect(), mistakes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Dataset, Normalization, one_class_names};
    use crate::models;
    use crate::shape::Shape;
    use ndarray::Array4;

    #[test]
    fn gradients_are_those_of_the_loss_and_dead_units_are_dead() {
        let shape = Shape::new(1, 12, 12);
        let mut network = Network::new(models::by_name("simple-convnet", shape, 3).unwrap(), 3).unwrap();
        // A bias so low that six maps never answer.
        network.parameters_mut().get_mut("b1").unwrap().iter_mut().take(6).for_each(|b| *b = -100.0);
        let x = Array4::from_shape_fn((7, 1, 12, 12), |(n, _, y, x)| ((n + 1) * (y + 2 * x) % 13) as f32 / 13.0);
        let labels: Vec<usize> = (0..7).map(|n| n % 3).collect();
        let data = Dataset::from_arrays(x.clone(), labels.clone(), one_class_names(3)).unwrap();
        let scale = Normalization::identity();
        let found = pulse(&network, &Images::new(&data, &scale)).unwrap();
        let expected = network.gradient(x.view(), &labels).unwrap();
        let norm = |names: [&str; 2]| {
            let values =
                names.map(|name| expected.get(name).unwrap().iter().map(|g| f64::from(*g).powi(2)).sum::<f64>());
            values.iter().sum::<f64>().sqrt()
        };
        for (layer, names) in [(0, ["W1", "b1"]), (2, ["W2", "b2"]), (4, ["W3", "b3"])] {
            let found = found.layers[layer].gradient_norm.unwrap();
            assert!((found - norm(names)).abs() < 1e-4 * norm(names), "{layer}: {found} is not {}", norm(names));
        }
        assert_eq!(found.layers[1].dead, Some(6.0 / 30.0));
        assert!((found.loss - f64::from(network.loss(x.view(), &labels).unwrap())).abs() < 1e-5);
        assert_eq!(found.correct as f64 / 7.0, network.accuracy(x.view(), &labels).unwrap());
        assert!(found.mistakes.iter().all(|one| one.predicted != one.label && labels[one.index] == one.label));
    }
}
