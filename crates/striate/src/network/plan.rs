//! Shapes, buffers and fusions fixed for one batch size (being written).
use super::{Description, NetworkError};
/// What a plan is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Forward only.
    Inference,
    /// Forward and backward.
    Training,
}
/// A compiled network.
#[derive(Debug)]
pub struct Plan {}
impl Plan {
    /// Compile.
    pub fn new(description: &Description, batch: usize, mode: Mode) -> Result<Self, NetworkError> {
        let _ = (description, batch, mode);
        todo!()
    }
}
