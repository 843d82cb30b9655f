//! The zoo (being written).
use crate::network::Description;
use crate::shape::Shape;
/// Names `by_name` knows.
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
}
/// A zoo model for an input and a number of classes.
pub fn by_name(name: &str, input: Shape, classes: usize) -> Result<Description, ModelError> {
    let _ = (name, input, classes);
    todo!()
}
