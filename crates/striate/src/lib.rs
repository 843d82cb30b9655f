//! Striate: convolutional networks on ordinary CPUs.
//!
//! The rooms, from the bottom up (a room never reaches upward):
//! [`shape`], [`random`] and [`clock`], [`kernels`], [`layers`], [`network`], [`models`]; [`data`] and [`optim`] beside them;
//! [`int8`] on these; [`train`], [`mod@bench`], [`explain`], [`draw`] and [`formats`] on top.

pub mod bench;
mod buffer;
pub mod clock;
pub mod data;
pub mod draw;
pub mod explain;
pub mod formats;
pub mod int8;
pub mod kernels;
pub mod layers;
pub mod models;
pub mod network;
pub mod optim;
pub mod random;
mod settings;
pub mod shape;
pub mod train;
