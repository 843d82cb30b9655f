//! What a network has learnt, as numbers: one file a view. Nothing here draws; [`draw`](crate::draw) does.

pub mod filters;

pub use self::filters::Filters;

/// Why a view can't be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExplainError {
    /// The network has no convolution.
    #[error(
        "no parameter has four sizes (FN, C, FH, FW), so there is no convolution with filters to show; \
         found {}, expected a network with a convolution such as simple-convnet",
        list(found)
    )]
    NoConvolution {
        /// The parameters there are.
        found: Vec<String>,
    },
    /// No parameter of this name.
    #[error("there is no parameter {name:?}; the ones that hold filters are {}", list(available))]
    UnknownParameter {
        /// What was asked for.
        name: String,
        /// The parameters with filters.
        available: Vec<String>,
    },
    /// The parameter holds something else than filters.
    #[error(
        "parameter {name} has the shape {shape:?}, but filters have four sizes (FN, C, FH, FW); \
         the ones that hold filters are {}",
        list(available)
    )]
    NotFilters {
        /// What was asked for.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
        /// The parameters with filters.
        available: Vec<String>,
    },
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".into() } else { names.join(", ") }
}
