//! The zoo: one file a model, each giving a [`Description`].

pub mod mlp;
pub mod simple_convnet;

use crate::network::{Description, NetworkError};
use crate::shape::Shape;

/// Names that [`by_name`] knows.
pub const NAMES: &[&str] = &["simple-convnet", "mlp"];

/// Why a model can't be had.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// No model of this name.
    #[error("there is no model {name:?}; the models are {}", NAMES.join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// The model does not take this input or this number of classes.
    #[error("model {name} does not take an input of {input} with {classes} classes: {source}")]
    DoesNotFit {
        /// The model's name.
        name: String,
        /// The input that was asked for.
        input: Shape,
        /// The classes that were asked for.
        classes: usize,
        /// Which layer refuses, and why.
        source: Box<NetworkError>,
    },
}

/// A zoo model for an input and a number of classes, with its usual options.
///
/// ```
/// use striate::{models, shape::Shape};
/// let description = models::by_name("simple-convnet", Shape::new(1, 28, 28), 10)?;
/// assert_eq!(description.summary(100).unwrap().parameters, 433_890);
/// # Ok::<(), models::ModelError>(())
/// ```
///
/// # Errors
/// An unknown name, or sizes that the model does not take.
pub fn by_name(name: &str, input: Shape, classes: usize) -> Result<Description, ModelError> {
    let description = match name {
        "simple-convnet" => simple_convnet::SimpleConvNet { input, classes, ..Default::default() }.description(),
        "mlp" => mlp::Mlp { input, classes, ..Default::default() }.description(),
        _ => return Err(ModelError::Unknown { name: name.to_owned() }),
    };
    match description.shapes() {
        Ok(_) => Ok(description),
        Err(source) => Err(ModelError::DoesNotFit { name: name.to_owned(), input, classes, source: Box::new(source) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_model() {
        for name in NAMES {
            assert_eq!(by_name(name, Shape::new(1, 28, 28), 10).unwrap().name, *name);
        }
        let error = by_name("simplenet", Shape::new(1, 28, 28), 10).unwrap_err();
        assert!(error.to_string().contains("simple-convnet, mlp"), "{error}");
        let error = by_name("simple-convnet", Shape::new(1, 4, 4), 10).unwrap_err();
        assert!(error.to_string().contains("Conv1"), "{error}");
        assert!(by_name("mlp", Shape::new(1, 4, 4), 0).is_err());
    }
}
