//! The filters of a convolution (section 7.6.1).

use super::ExplainError;
use crate::network::Network;
use ndarray::{Array4, Ix4};

/// The filters of one convolution.
#[derive(Clone, Debug, PartialEq)]
pub struct Filters {
    /// The parameter's name: `W1`.
    pub name: String,
    /// (FN, C, FH, FW).
    pub weights: Array4<f32>,
}

/// The filters of the convolution whose parameter is called `name`, or of the first one.
///
/// ```
/// use striate::{explain::filters::filters, models::simple_convnet::SimpleConvNet, network::Network};
/// let network = Network::new(SimpleConvNet::default().description(), 1).unwrap();
/// let filters = filters(&network, None)?;
/// assert_eq!((filters.name.as_str(), filters.weights.dim()), ("W1", (30, 1, 5, 5)));
/// # Ok::<(), striate::explain::ExplainError>(())
/// ```
///
/// # Errors
/// A network without convolution, or a name that no convolution has.
pub fn filters(network: &Network, name: Option<&str>) -> Result<Filters, ExplainError> {
    // Filters are the only parameters with four axes.
    let mut convolutions = network.parameters().iter().filter(|(_, array)| array.ndim() == 4);
    let found = match name {
        None => convolutions.next(),
        Some(name) => convolutions.find(|(other, _)| *other == name),
    };
    let of = || network.description().name.clone();
    let Some((found, array)) = found else {
        let names: Vec<String> =
            network.parameters().iter().filter(|(_, a)| a.ndim() == 4).map(|(name, _)| name.to_owned()).collect();
        return Err(match name {
            Some(asked) if !names.is_empty() => {
                ExplainError::UnknownLayer { network: of(), asked: asked.to_owned(), names }
            }
            _ => ExplainError::NoConvolution { network: of() },
        });
    };
    let weights = array.into_dimensionality::<Ix4>().map_err(|_| ExplainError::NoConvolution { network: of() })?;
    Ok(Filters { name: found.to_owned(), weights: weights.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{mlp::Mlp, simple_convnet::SimpleConvNet};

    #[test]
    fn names_are_listed_and_a_dense_net_has_none() {
        let network = Network::new(SimpleConvNet::default().description(), 1).unwrap();
        assert_eq!(filters(&network, Some("W1")).unwrap(), filters(&network, None).unwrap());
        let error = filters(&network, Some("W2")).unwrap_err();
        assert!(error.to_string().contains("it has W1"), "{error}");
        let dense = Network::new(Mlp::default().description(), 1).unwrap();
        assert!(matches!(filters(&dense, None), Err(ExplainError::NoConvolution { .. })));
        assert!(matches!(filters(&dense, Some("W1")), Err(ExplainError::NoConvolution { .. })));
    }
}
