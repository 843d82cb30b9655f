//! Batch normalisation folded into the layer before it, and layers left out that do nothing when predicting.

use crate::kernels::normalize::inverse_deviation;
use crate::layers::{Layer, PoolingKind};
use crate::network::description::{INPUT, Node, Source};
use crate::network::{Description, NamedLayer, Network, NetworkError, Parameters};

/// The same network for predictions alone: every batch normalisation that follows a convolution or an affine layer is
/// folded into its weights and bias, and dropout is left out.
///
/// `gamma (w x - mean) / sqrt(variance + epsilon) + beta` is again a weighted sum (Jacob et al. 2018, section 3.2). Through
/// max pooling between the two it is folded as well where every factor is positive: the larger stays the larger.
/// Outputs differ by rounding alone. Layers keep their names; parameters are numbered anew.
///
/// # Errors
/// Memory that can't be had.
///
/// ```
/// use ndarray::Array4;
/// use striate::{int8, models, network::Network};
/// let network = Network::new(models::build("cifar-resnet20", &Default::default())?, 1)?;
/// let folded = int8::fold(&network)?;
/// let x = Array4::from_elem((1, 3, 32, 32), 0.5);
/// let difference = &folded.predict(x.view())? - &network.predict(x.view())?;
/// assert!(difference.iter().all(|d| d.abs() < 1e-4));
/// assert!(folded.description().layers.iter().all(|named| !named.name.ends_with("norm")));
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
pub fn fold(network: &Network) -> Result<Network, NetworkError> {
    let description = network.description();
    let nodes = description.nodes()?;
    let consumers = consumers(&nodes);
    let learnt = learnt(network)?;
    // For each layer that stays: its options, and its parameters by prefix.
    let mut kept: Vec<Option<(Layer, Vec<Learnt>)>> = Vec::with_capacity(nodes.len());
    // What stands for each layer's output.
    let mut stands: Vec<Source> = Vec::with_capacity(nodes.len());
    for (i, node) in nodes.iter().enumerate() {
        let source = match node.sources.first() {
            Some(Source::Layer(j)) => stands[*j],
            _ => Source::Input,
        };
        match &node.named.layer {
            Layer::Dropout(_) => {
                kept.push(None);
                stands.push(source);
                continue;
            }
            Layer::BatchNorm(options) => {
                if let Some((factors, shifts)) = affine_of(&learnt[i], options.epsilon)
                    && let Some(target) = foldable(&nodes, &consumers, &kept, node, &factors)
                    && let Some((layer, parameters)) = &mut kept[target]
                {
                    scale(layer, parameters, &factors, &shifts);
                    kept.push(None);
                    stands.push(source);
                    continue;
                }
            }
            _ => {}
        }
        kept.push(Some((node.named.layer.clone(), learnt[i].clone())));
        stands.push(Source::Layer(i));
    }
    build(description, &nodes, kept, &stands)
}

/// A parameter with its values.
#[derive(Clone)]
struct Learnt {
    prefix: &'static str,
    shape: Vec<usize>,
    values: Vec<f32>,
}

/// The parameters of each layer.
fn learnt(network: &Network) -> Result<Vec<Vec<Learnt>>, NetworkError> {
    let description = network.description();
    let mut specs = network.parameters().specs().iter();
    let mut learnt = Vec::new();
    for node in description.nodes()? {
        let rules = node
            .named
            .layer
            .rule()
            .parameters(node.input)
            .map_err(|source| NetworkError::Layer { layer: node.named.name.clone(), source })?;
        let values = rules.into_iter().zip(&mut specs).map(|(rule, spec)| Learnt {
            prefix: rule.prefix,
            shape: rule.shape,
            values: network.parameters().as_slice()[spec.range.clone()].to_vec(),
        });
        learnt.push(values.collect());
    }
    Ok(learnt)
}

/// How many layers read each layer's output.
pub(super) fn consumers(nodes: &[Node<'_>]) -> Vec<usize> {
    let mut consumers = vec![0; nodes.len()];
    for source in nodes.iter().flat_map(|node| &node.sources) {
        if let Source::Layer(j) = source {
            consumers[*j] += 1;
        }
    }
    consumers
}

/// What normalisation by running statistics multiplies each channel by, and adds to it.
fn affine_of(parameters: &[Learnt], epsilon: f32) -> Option<(Vec<f64>, Vec<f64>)> {
    let values = |prefix: &str| Some(&parameters.iter().find(|learnt| learnt.prefix == prefix)?.values);
    let (gamma, beta, mean, variance) = (values("gamma")?, values("beta")?, values("mean")?, values("variance")?);
    let factor = |(&gamma, &variance): (&f32, &f32)| f64::from(gamma) * f64::from(inverse_deviation(variance, epsilon));
    let factors: Vec<f64> = gamma.iter().zip(variance).map(factor).collect();
    let shift = |((&beta, &mean), factor): ((&f32, &f32), &f64)| f64::from(beta) - f64::from(mean) * factor;
    let shifts = beta.iter().zip(mean).zip(&factors).map(shift).collect();
    Some((factors, shifts))
}

/// The layer that a normalisation can be folded into.
fn foldable(
    nodes: &[Node<'_>],
    consumers: &[usize],
    kept: &[Option<(Layer, Vec<Learnt>)>],
    norm: &Node<'_>,
    factors: &[f64],
) -> Option<usize> {
    let mut at = norm;
    loop {
        let [Source::Layer(j)] = *at.sources.as_slice() else { return None };
        if consumers[j] != 1 {
            return None;
        }
        at = &nodes[j];
        match &at.named.layer {
            Layer::Convolution(_) | Layer::Affine(_) if kept[j].is_some() => return Some(j),
            Layer::Pooling(options)
                if options.pooling == PoolingKind::Max && factors.iter().all(|&factor| factor > 0.0) => {}
            // Normalisations and dropout that are gone already.
            Layer::BatchNorm(_) | Layer::Dropout(_) if kept[j].is_none() => {}
            _ => return None,
        }
    }
}

/// Multiplies the outputs of a layer, channel by channel, and adds to them.
fn scale(layer: &mut Layer, parameters: &mut Vec<Learnt>, factors: &[f64], shifts: &[f64]) {
    if let Layer::Convolution(options) = layer
        && !options.bias
    {
        options.bias = true;
        parameters.push(Learnt { prefix: "b", shape: vec![options.filters], values: vec![0.0; options.filters] });
    }
    let by_columns = matches!(layer, Layer::Affine(_));
    for Learnt { prefix, values, .. } in parameters {
        let count = values.len() / factors.len().max(1);
        for (i, value) in values.iter_mut().enumerate() {
            let channel = if by_columns { i % factors.len() } else { i / count.max(1) };
            let scaled = f64::from(*value) * factors[channel];
            *value = (if *prefix == "b" { scaled + shifts[channel] } else { scaled }) as f32;
        }
    }
}

/// The network of what is left.
fn build(
    description: &Description,
    nodes: &[Node<'_>],
    kept: Vec<Option<(Layer, Vec<Learnt>)>>,
    stands: &[Source],
) -> Result<Network, NetworkError> {
    let mut folded = Description::new(description.name.clone(), description.input);
    let (mut learnt, mut previous) = (Vec::new(), Source::Input);
    for (i, (node, kept)) in nodes.iter().zip(kept).enumerate() {
        let Some((layer, parameters)) = kept else { continue };
        let sources: Vec<Source> = node
            .sources
            .iter()
            .map(|source| match source {
                Source::Input => Source::Input,
                Source::Layer(j) => stands[*j],
            })
            .collect();
        let name = |source: &Source| match source {
            Source::Input => INPUT.to_string(),
            Source::Layer(j) => nodes[*j].named.name.clone(),
        };
        let inputs = if sources == [previous] { Vec::new() } else { sources.iter().map(name).collect() };
        folded.layers.push(NamedLayer { name: node.named.name.clone(), layer, inputs });
        learnt.extend(parameters);
        previous = Source::Layer(i);
    }
    let specs = folded.parameter_specs()?;
    let mut parameters = Parameters::zeros(specs.iter().map(|s| (s.name.clone(), s.shape.clone())).collect())?;
    for (spec, learnt) in specs.iter().zip(learnt) {
        debug_assert_eq!(spec.shape, learnt.shape, "{}", spec.name);
        parameters.as_mut_slice()[spec.range.clone()].copy_from_slice(&learnt.values);
    }
    Network::with_parameters(folded, parameters)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{
        AffineOptions, BatchNormOptions, ConvolutionOptions, DropoutOptions, Init, PoolingOptions, ReluOptions,
    };
    use crate::models;
    use crate::random::{Purpose, Random};
    use crate::shape::{Shape, Window};
    use ndarray::Array4;

    /// A network whose normalisations do something.
    fn network(description: Description) -> Network {
        let mut network = Network::new(description, 3).unwrap();
        let random = Random::new(8, Purpose::Test, 0);
        let specs = network.parameters().specs().to_vec();
        for spec in specs.iter().filter(|spec| spec.shape.len() == 1) {
            let positive = spec.name.starts_with("variance") || spec.name.starts_with("gamma");
            for i in spec.range.clone() {
                let drawn = random.normal(i as u64);
                network.parameters_mut().as_mut_slice()[i] = if positive { 0.2 + drawn.abs() } else { drawn };
            }
        }
        network
    }

    fn assert_same(description: Description, layers_left: &[&str]) {
        let network = network(description);
        let folded = fold(&network).unwrap();
        let left: Vec<&str> = folded.description().layers.iter().map(|named| named.name.as_str()).collect();
        if !layers_left.is_empty() {
            assert_eq!(left, layers_left);
        }
        let shape = network.input();
        let random = Random::new(9, Purpose::Test, 0);
        let mut at = 0;
        let x = Array4::from_shape_simple_fn((2, shape.channels, shape.height, shape.width), || {
            at += 1;
            random.normal(at)
        });
        let (before, after) = (network.predict(x.view()).unwrap(), folded.predict(x.view()).unwrap());
        let largest = before.iter().fold(1.0f32, |a, b| a.max(b.abs()));
        let name = &network.description().name;
        assert!(before.iter().zip(&after).all(|(a, b)| (a - b).abs() < 1e-4 * largest), "{name}: {before} {after}");
    }

    #[test]
    fn the_zoo_gives_the_same_answers() {
        for name in ["mnist-net", "cifar-net", "lenet", "simple-convnet", "cifar-resnet20"] {
            assert_same(models::build(name, &models::Request::default()).unwrap(), &[]);
        }
        let input = Shape::new(3, 64, 64);
        let small = models::Request { input: Some(input), classes: Some(5), settings: &[] };
        for name in ["resnet18", "mobilenet-v2"] {
            assert_same(models::build(name, &small).unwrap(), &[]);
        }
    }

    #[test]
    fn normalisation_goes_through_pooling_where_its_factors_are_positive() {
        let description = || {
            let window = Window::square(3, 1, 1);
            Description::new("pooled", Shape::new(2, 8, 8))
                .with("conv", ConvolutionOptions::new(5, window, Init::He).without_bias())
                .with("pool", PoolingOptions::max(Window::square(2, 2, 0)))
                .with("norm", BatchNormOptions::default())
                .with("relu", ReluOptions {})
                .with("drop", DropoutOptions { ratio: 0.5 })
                .with("classes", AffineOptions::new(3, Init::He))
                .with("last-norm", BatchNormOptions::default())
        };
        assert_same(description(), &["conv", "pool", "relu", "classes"]);
        let mut negative = network(description());
        negative.parameters_mut().get_mut("gamma2").unwrap()[3] = -1.0;
        let left: Vec<String> =
            fold(&negative).unwrap().description().layers.iter().map(|named| named.name.clone()).collect();
        assert_eq!(left, ["conv", "pool", "norm", "relu", "classes"]);
    }

    #[test]
    fn a_layer_that_others_read_as_well_is_not_changed() {
        let window = Window::square(3, 1, 1);
        let description = Description::new("shared", Shape::new(2, 4, 4))
            .with("conv", ConvolutionOptions::new(2, window, Init::He))
            .with("norm", BatchNormOptions::default())
            .with_inputs("add", crate::layers::AddOptions {}, ["norm", "conv"])
            .with("classes", AffineOptions::new(3, Init::He));
        assert_same(description, &["conv", "norm", "add", "classes"]);
    }
}
