//! The filters of a convolution (section 7.6.1): what the first layer of a trained network looks for.

use super::ExplainError;
use crate::network::{Network, Parameters};
use ndarray::{Array4, Ix4};

/// The filters of one convolution.
#[derive(Clone, Debug, PartialEq)]
pub struct Filters {
    /// The parameter they come from: `W1`.
    pub name: String,
    /// (FN, C, FH, FW): filters, channels, rows, columns.
    pub values: Array4<f32>,
}

/// The filters of the convolution called `layer` (`Conv1`) or whose weights are (`W1`), or of the first one.
///
/// # Errors
/// No convolution in the network, or none of this name; the message lists the names there are.
///
/// ```
/// use striate::{draw, explain, models, network::Network, shape::Shape};
///
/// let network = Network::new(models::by_name("simple-convnet", Shape::new(1, 28, 28), 10)?, 1)?;
/// let first = explain::filters::filters(&network, None)?;
/// let picture = draw::filters(first.values.view(), "Conv1 before training");
/// assert!(picture.image.width() > 300);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn filters(network: &Network, layer: Option<&str>) -> Result<Filters, ExplainError> {
    let Some(name) = layer else { return in_parameters(network.parameters(), None) };
    let (layers, owners) = (&network.description().layers, network.description().parameter_owners()?);
    let with_filters: Vec<(&str, &str)> = network
        .parameters()
        .specs()
        .iter()
        .zip(&owners)
        .filter(|(spec, _)| spec.shape.len() == 4)
        .map(|(spec, &owner)| (layers[owner].name.as_str(), spec.name.as_str()))
        .collect();
    let parameter = with_filters.iter().find(|(layer, _)| *layer == name).map_or(name, |&(_, parameter)| parameter);
    in_parameters(network.parameters(), Some(parameter)).map_err(|error| match error {
        ExplainError::UnknownParameter { name, .. } => {
            let available = with_filters.iter().map(|(layer, parameter)| format!("{layer} ({parameter})")).collect();
            ExplainError::UnknownParameter { name, available }
        }
        other => other,
    })
}

/// The filters of the network's first convolution: [`filters`] with its default.
///
/// # Errors
/// No convolution in the network.
pub fn first_layer(network: &Network) -> Result<Filters, ExplainError> {
    filters(network, None)
}

/// As [`filters`], from parameters alone: those of an epoch while training, or a gradient.
///
/// # Errors
/// No convolution among the parameters, or none of this name.
///
/// ```
/// use striate::explain::filters::in_parameters;
/// use striate::network::Parameters;
///
/// let parameters = Parameters::zeros(vec![("W1".into(), vec![30, 1, 5, 5]), ("b1".into(), vec![30])])?;
/// let first = in_parameters(&parameters, None)?;
/// assert_eq!((first.name.as_str(), first.values.dim()), ("W1", (30, 1, 5, 5)));
/// assert!(in_parameters(&parameters, Some("b1")).unwrap_err().to_string().ends_with("hold filters are W1"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn in_parameters(parameters: &Parameters, layer: Option<&str>) -> Result<Filters, ExplainError> {
    let available: Vec<String> =
        parameters.specs().iter().filter(|spec| spec.shape.len() == 4).map(|spec| spec.name.clone()).collect();
    let Some(first) = available.first() else {
        let found = parameters.specs().iter().map(|spec| spec.name.clone()).collect();
        return Err(ExplainError::NoConvolution { found });
    };
    let name = layer.unwrap_or(first).to_string();
    let Some(array) = parameters.get(&name) else {
        return Err(ExplainError::UnknownParameter { name, available });
    };
    let shape = array.shape().to_vec();
    match array.into_dimensionality::<Ix4>() {
        Ok(values) => Ok(Filters { name, values: values.to_owned() }),
        Err(_) => Err(ExplainError::NotFilters { name, shape, available }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(shapes: &[(&str, &[usize])]) -> Parameters {
        let shapes = shapes.iter().map(|&(name, shape)| (name.to_string(), shape.to_vec())).collect();
        let mut parameters = Parameters::zeros(shapes).unwrap();
        for (index, value) in parameters.as_mut_slice().iter_mut().enumerate() {
            *value = index as f32;
        }
        parameters
    }

    #[test]
    fn the_first_convolution_is_the_default_and_others_go_by_name() {
        let p = parameters(&[("W1", &[6, 4]), ("W2", &[2, 1, 3, 3]), ("b2", &[2]), ("W3", &[3, 2, 1, 1])]);
        let first = in_parameters(&p, None).unwrap();
        assert_eq!(first.name, "W2");
        assert_eq!(first.values[[1, 0, 2, 1]], (24 + 9 + 7) as f32);
        assert_eq!(in_parameters(&p, Some("W3")).unwrap().values.dim(), (3, 2, 1, 1));
    }

    #[test]
    fn layers_and_their_weights_are_the_same_filters() {
        let description = crate::models::by_name("lenet", crate::shape::Shape::new(1, 28, 28), 10).unwrap();
        let network = Network::new(description, 1).unwrap();
        let [layer, parameter] = ["C3", "W2"].map(|name| filters(&network, Some(name)).unwrap());
        assert_eq!((layer.name.as_str(), layer.values.dim()), ("W2", (16, 6, 5, 5)));
        assert_eq!(layer, parameter);
        for name in ["F6", "S2", "C9"] {
            let message = filters(&network, Some(name)).unwrap_err().to_string();
            assert_eq!(message, format!("{name:?} holds no filters; the ones that hold filters are C1 (W1), C3 (W2)"));
        }
    }

    #[test]
    fn what_is_not_there_is_said_with_what_is() {
        let p = parameters(&[("W1", &[2, 1, 3, 3]), ("b1", &[2]), ("W2", &[3, 2, 1, 1])]);
        let unknown = in_parameters(&p, Some("W9")).unwrap_err().to_string();
        assert_eq!(unknown, "\"W9\" holds no filters; the ones that hold filters are W1, W2");
        let other = in_parameters(&p, Some("b1")).unwrap_err();
        assert!(matches!(&other, ExplainError::NotFilters { shape, .. } if *shape == [2]));
        for p in [parameters(&[("W1", &[6, 4])]), parameters(&[])] {
            for layer in [None, Some("W1")] {
                let message = in_parameters(&p, layer).unwrap_err().to_string();
                assert!(message.contains("no convolution"), "{message}");
            }
        }
    }
}
