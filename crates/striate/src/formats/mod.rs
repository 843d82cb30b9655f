//! Files that leave the program: saved whole or not at all, and never loaded damaged.
//!
//! * [`atomic`] replaces a file in one step, so that a crash or a full disk leaves the old one.
//! * [`container`] is a safetensors file with a checksum over every byte of it.
//! * [`model_file`] is a complete model in such a container: weights, architecture, class names, preprocessing and
//!   test vectors.
//! * [`model_toml`] is a network without weights, as people write it.
//! * [`tensorboard`] is what TensorBoard reads.
//! * [`onnx`] writes a model for other runtimes, and reads those of others; [`load`] reads a model of either kind.
//! * [`npz`] writes a model for NumPy, and reads it again.
//! * [`pickle`] reads the book's pickled arrays, [`pytorch`] the weights that PyTorch saved; [`arrays`] makes a network of
//!   them, and [`book`] tells which of the book's.
//! * [`digest`] names weights by their SHA-256.
//!
//! Any safetensors reader can open these files and see the plain tensors.

pub mod arrays;
pub mod atomic;
pub mod book;
pub mod container;
pub mod digest;
mod error;
pub(crate) mod fields;
pub mod load;
pub mod model_file;
pub mod model_toml;
pub mod npz;
pub mod onnx;
pub mod pickle;
pub mod pytorch;
pub mod tensorboard;

pub use arrays::{ArraysError, ForeignName, Mismatch, NamedArray, network_of};
pub use atomic::{WriteAction, WriteError, is_leftover, remove_leftovers, write_atomically};
pub use container::{Container, ContainerWriter};
pub use digest::weights_sha256;
pub use error::FormatError;
pub use load::{LoadError, is_onnx, load_model, model_from_bytes};
pub use model_file::{
    Difference, ModelFile, ModelPredictor, Stage, StageResult, Temperature, TestVectors, Verification,
};
pub use model_toml::{TomlError, from_toml, to_toml};
pub use npz::{NpzContents, NpzError, read_npz, to_npz};
pub use onnx::{ImportOptions, NodeProblem, OnnxError, OnnxImportError, OnnxOptions, from_onnx, load_onnx, to_onnx};
pub use pickle::{PickleError, read_pickle};
