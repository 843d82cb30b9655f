//! What a network sees, as arrays. Drawing is the business of [`draw`](crate::draw).

pub mod filters;

/// Why a view can't be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExplainError {
    /// A view of convolutions, asked of a network without any.
    #[error("the network {network} has no convolution, so there are no filters to show")]
    NoConvolution {
        /// The network's name.
        network: String,
    },
    /// No convolution of this name.
    #[error("the network {network} has no convolution filters called {asked:?}; it has {}", names.join(", "))]
    UnknownLayer {
        /// The network's name.
        network: String,
        /// What was asked for.
        asked: String,
        /// The names there are.
        names: Vec<String>,
    },
}
