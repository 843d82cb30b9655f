//! Arithmetic on slices and shapes, without state.
//!
//! Every caller (the book-style layers, the planned network, the explainers) goes through these functions. Work is cut
//! into pieces whose number depends only on the shapes, and partial sums are added in a fixed order, so results do not
//! depend on the number of threads.

pub(crate) mod adaptive_pooling;
pub(crate) mod affine;
pub(crate) mod affine_bf16;
mod affine_large;
pub(crate) mod convolution;
pub(crate) mod direct;
pub(crate) mod elementwise;
pub(crate) mod functions;
pub mod im2col;
pub(crate) mod int8;
pub mod isa;
pub(crate) mod matmul;
pub(crate) mod normalize;
pub(crate) mod pooling;
pub(crate) mod resize;
pub(crate) mod softmax;

pub use convolution::Probe;

/// Elements a task of an elementwise pass works on.
pub(crate) const CHUNK: usize = 16 * 1024;
