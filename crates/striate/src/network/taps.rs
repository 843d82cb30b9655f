//! What a reader wants to see of a plan beyond the logits: outputs of named layers, and their gradients.

use super::description::{INPUT, Node, Source};
use super::{Description, NetworkError};
use crate::layers::ReluRule;

/// Layers whose outputs a plan keeps to the end of a run, for [`Runner::tap`](super::Runner::tap); in a plan with a
/// backward pass also their gradients, for [`Runner::tap_gradient`](super::Runner::tap_gradient). `input` is the
/// network's own input.
///
/// A tapped layer is not fused with the one after it, and its output has a place of its own. A plan without taps is as if
/// there were none in the language.
///
/// ```
/// use striate::models::simple_convnet::SimpleConvNet;
/// use striate::network::{Mode, Network, Plan, Runner, Taps};
/// let network = Network::new(SimpleConvNet::default().description(), 1)?;
/// let taps = Taps::of(["Conv1", "input"]);
/// let mut runner = Runner::new(Plan::with_taps(network.description(), 1, Mode::Gradient, &taps)?)?;
/// runner.input_mut().fill(0.5);
/// // The gradient of the logit of class 3.
/// runner.gradient_from(network.parameters(), "Affine2", |_logits, gradient| {
///     gradient.fill(0.0);
///     gradient[3] = 1.0;
/// })?;
/// assert_eq!(runner.tap("Conv1").unwrap().len(), 30 * 24 * 24);
/// assert_eq!(runner.tap_gradient("input").unwrap().len(), 28 * 28);
/// # Ok::<(), striate::network::NetworkError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Taps {
    layers: Vec<String>,
    relu: ReluRule,
}

impl Taps {
    /// Taps at these layers; `input` is the network's input.
    pub fn of<S: Into<String>>(layers: impl IntoIterator<Item = S>) -> Self {
        Self { layers: layers.into_iter().map(Into::into).collect(), relu: ReluRule::Gradient }
    }

    /// Taps at the input and every layer.
    pub fn all(description: &Description) -> Self {
        Self::of(std::iter::once(INPUT).chain(description.layers.iter().map(|named| named.name.as_str())))
    }

    /// The same with another rule for the backward pass through ReLU.
    pub fn relu(self, relu: ReluRule) -> Self {
        Self { relu, ..self }
    }

    pub(super) fn rule(&self) -> ReluRule {
        self.relu
    }

    /// Every name with what it stands for.
    pub(super) fn find<'a>(&'a self, nodes: &[Node<'_>]) -> Result<Vec<(&'a str, Source)>, NetworkError> {
        let find = |name: &'a String| {
            let position = nodes.iter().position(|node| node.named.name == *name).map(Source::Layer);
            let source = position.or((name == INPUT).then_some(Source::Input));
            source.map(|source| (name.as_str(), source)).ok_or_else(|| NetworkError::UnknownLayer {
                name: name.clone(),
                available: nodes.iter().map(|node| node.named.name.clone()).collect(),
            })
        };
        self.layers.iter().map(find).collect()
    }
}
