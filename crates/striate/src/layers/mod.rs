//! One file a layer (being written).
use serde::{Deserialize, Serialize};
/// A layer's description.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Layer {
    /// Placeholder.
    Relu {},
}
