//! Arithmetic on slices and shapes, without state.
//!
//! Every caller (the book-style layers, the planned network, the explainers) goes through these functions. Work is cut
//! into pieces whose number depends only on the shapes, and partial sums are added in a fixed order, so results do not
//! depend on the number of threads.

pub(crate) mod affine;
pub mod convolution;
pub mod elementwise;
pub mod im2col;
pub mod isa;
pub mod matmul;
pub mod pooling;
pub mod softmax;

/// Elements a task of an elementwise pass works on.
pub(crate) const CHUNK: usize = 16 * 1024;
