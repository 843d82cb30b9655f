//! Which parameters a run leaves as they are.

use super::TrainError;
use crate::layers::Role;
use crate::network::Network;
use crate::optim::Kind;
use glob::Pattern;

/// What [`TrainOptions::freeze`](super::TrainOptions::freeze) comes to in a network.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Frozen {
    /// For each layer: whether it learns nothing, though it could. Empty for none.
    layers: Vec<bool>,
    /// For each parameter: whether it keeps its bits. Empty for none.
    parameters: Vec<bool>,
}

impl Frozen {
    /// Finds the layers and parameters that the patterns name. A layer all of whose learnt parameters are frozen is frozen
    /// with its running statistics.
    pub(super) fn find(network: &Network, patterns: &[String]) -> Result<Self, TrainError> {
        if patterns.is_empty() {
            return Ok(Self::default());
        }
        let (description, specs) = (network.description(), network.parameters().specs());
        let owners = description.parameter_owners()?;
        let name_of = |layer: usize| description.layers.get(layer).map_or("", |named| &named.name);
        let mut parameters = vec![false; specs.len()];
        for text in patterns {
            let pattern = Pattern::new(text)
                .map_err(|error| TrainError::Pattern { pattern: text.clone(), reason: error.msg.into() })?;
            let mut found = false;
            for ((spec, &layer), frozen) in specs.iter().zip(&owners).zip(&mut parameters) {
                if pattern.matches(name_of(layer)) || pattern.matches(&spec.name) {
                    (found, *frozen) = (true, true);
                }
            }
            if !found {
                let mut layers: Vec<String> = owners.iter().map(|&layer| name_of(layer).to_string()).collect();
                layers.dedup();
                return Err(TrainError::NothingToFreeze {
                    pattern: text.clone(),
                    layers,
                    parameters: specs.iter().map(|spec| spec.name.clone()).collect(),
                });
            }
        }
        let mut layers = vec![false; description.layers.len()];
        let learnt =
            || specs.iter().zip(&owners).zip(&parameters).filter(|((spec, _), _)| spec.role != Role::Statistic);
        for ((_, &layer), _) in learnt() {
            layers[layer] = true;
        }
        for ((_, &layer), &frozen) in learnt() {
            layers[layer] &= frozen;
        }
        if learnt().all(|(_, &frozen)| frozen) {
            return Err(TrainError::AllFrozen { patterns: patterns.to_vec() });
        }
        for (&layer, frozen) in owners.iter().zip(&mut parameters) {
            *frozen |= layers[layer];
        }
        Ok(Self { layers, parameters })
    }

    /// Whether the layer at this position learns nothing, though it could.
    pub(super) fn layer(&self, layer: usize) -> bool {
        self.layers.get(layer).copied().unwrap_or(false)
    }

    /// How the optimizer treats the parameter at this position, which otherwise were of this kind.
    pub(super) fn kind(&self, parameter: usize, kind: Kind) -> Kind {
        if self.parameters.get(parameter).copied().unwrap_or(false) { Kind::Frozen } else { kind }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{models, shape::Shape};

    fn find(patterns: &[&str]) -> Result<Frozen, TrainError> {
        let description = models::by_name("cifar-net", Shape::new(3, 32, 32), 3).unwrap();
        let patterns: Vec<String> = patterns.iter().map(|&pattern| pattern.into()).collect();
        Frozen::find(&Network::new(description, 1).unwrap(), &patterns)
    }

    #[test]
    fn layers_and_parameters_are_found_by_name() {
        assert_eq!(find(&[]).unwrap(), Frozen::default());
        let network = models::by_name("cifar-net", Shape::new(3, 32, 32), 3).unwrap();
        let of = |frozen: &Frozen| {
            let names = network.layers.iter().enumerate().filter(|(i, _)| frozen.layer(*i));
            names.map(|(_, named)| named.name.clone()).collect::<Vec<_>>()
        };
        let frozen = find(&["whiten", "block1-*"]).unwrap();
        assert_eq!(of(&frozen), ["whiten", "block1-conv1", "block1-conv1-norm", "block1-conv2", "block1-conv2-norm"]);
        // W1, b1; W2; gamma3, beta3, mean3, variance3; W4; gamma5 and so on.
        let kinds: Vec<_> = (0..13).map(|i| frozen.kind(i, Kind::Plain) == Kind::Frozen).collect();
        assert_eq!(kinds, [vec![true; 12], vec![false]].concat());
        // One parameter of two: the layer still learns.
        let frozen = find(&["b1", "beta?"]).unwrap();
        assert_eq!(of(&frozen), [""; 0]);
        assert_eq!(frozen.kind(1, Kind::Decayed), Kind::Frozen);
        assert_eq!(frozen.kind(0, Kind::Decayed), Kind::Decayed);
        // Both learnt parameters of a normalisation: its statistics too.
        let frozen = find(&["gamma3", "beta3"]).unwrap();
        assert_eq!(of(&frozen), ["block1-conv1-norm"]);
        assert_eq!([5, 6].map(|i| frozen.kind(i, Kind::Statistic)), [Kind::Frozen; 2]);
    }

    #[test]
    fn what_fits_nothing_is_told_with_the_names() {
        let message = find(&["block1-*", "Conv*"]).unwrap_err().to_string();
        for part in ["\"Conv*\"", "whiten", "block3-conv2", "classes", "W1", "gamma3"] {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert!(find(&["*"]).unwrap_err().to_string().contains("nothing would be learnt"));
        assert!(find(&["block[1"]).unwrap_err().to_string().contains("block[1"));
    }
}
