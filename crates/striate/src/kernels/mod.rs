//! Arithmetic on slices and shapes, without state.
pub mod isa;
