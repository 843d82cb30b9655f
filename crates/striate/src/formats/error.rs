//! Why a model file can't be read or written.

use super::atomic::WriteError;
use crate::int8::Int8Error;
use crate::network::NetworkError;
use std::path::PathBuf;

/// Why a model file can't be read or written. `name` is the file's path, or what the caller calls the bytes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The file could not be written; the old one, if any, is untouched.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The file could not be opened or read.
    #[error("can't {action} {}: {source}{hint}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What was being done: `open`.
        action: &'static str,
        /// What to do about it, as the end of the sentence; may be empty.
        hint: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A directory, FIFO, socket or device.
    #[error("{} is {found}, not a model file{hint}", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What it is: `a directory`.
        found: &'static str,
        /// What to do about it, as the end of the sentence; may be empty.
        hint: &'static str,
    },
    /// Beyond what is read at all.
    #[error("{name} is {bytes} bytes long; a model file may be at most {limit}")]
    TooLarge {
        /// The file.
        name: String,
        /// Its length.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// Memory can't be had.
    #[error("{bytes} bytes of memory to hold {name} could not be had")]
    OutOfMemory {
        /// The file.
        name: String,
        /// How much.
        bytes: u64,
    },
    /// The first bytes are not those of a safetensors file.
    #[error("{name} is not a safetensors file: {reason}")]
    NotSafetensors {
        /// The file.
        name: String,
        /// What shows it.
        reason: String,
    },
    /// The file ends too early.
    #[error("{name} is cut short: it has {found} bytes and its header asks for {expected}; copy or download it again")]
    Truncated {
        /// The file.
        name: String,
        /// Bytes there.
        found: u64,
        /// Bytes that its header asks for.
        expected: u64,
    },
    /// The file goes on after its last tensor.
    #[error(
        "{name} is damaged: it has {found} bytes and its header asks for only {expected}; copy or download it again"
    )]
    TooLong {
        /// The file.
        name: String,
        /// Bytes there.
        found: u64,
        /// Bytes that its header asks for.
        expected: u64,
    },
    /// The header can't be understood.
    #[error("{name} has a damaged header: {reason}")]
    Header {
        /// The file.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The contents are not those that were saved.
    #[error(
        "{name} is damaged: its contents have the SHA-256 {found}, and {expected} was recorded when it was saved; \
         copy or download it again"
    )]
    Damaged {
        /// The file.
        name: String,
        /// Digest of the contents.
        found: String,
        /// Digest recorded in the file.
        expected: String,
    },
    /// A safetensors file of somebody else's.
    #[error(
        "{name} is a safetensors file with {tensors} tensors, but striate did not write it: it carries no \
         architecture (striate.architecture), so nothing says how its tensors make a network; give a file saved by \
         striate, or make one of it: `striate convert {name} model.safetensors --model NAME`"
    )]
    Foreign {
        /// The file.
        name: String,
        /// How many tensors it has.
        tensors: usize,
    },
    /// Written by a later version of the format.
    #[error(
        "{name} was written by a newer striate, version {found} of the format; this one reads up to {supported}; \
         update striate"
    )]
    NewerVersion {
        /// The file.
        name: String,
        /// The file's version.
        found: u64,
        /// The newest version that can be read.
        supported: u64,
    },
    /// A metadata field is missing or can't be understood.
    #[error("{name}, field {key}: {reason}")]
    Field {
        /// The file.
        name: String,
        /// The metadata key.
        key: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A tensor that should be there is not.
    #[error("{name} has no tensor {tensor:?}")]
    MissingTensor {
        /// The file.
        name: String,
        /// The tensor.
        tensor: String,
    },
    /// A tensor is there that should not be.
    #[error("{name} has a tensor {tensor:?} that its list of parameters does not name")]
    UnexpectedTensor {
        /// The file.
        name: String,
        /// The tensor.
        tensor: String,
    },
    /// Numbers of another type.
    #[error("{name}, tensor {tensor:?}: the numbers are {found}; expected {expected}")]
    TensorType {
        /// The file.
        name: String,
        /// The tensor.
        tensor: String,
        /// Its type.
        found: String,
        /// The type it should be of.
        expected: String,
    },
    /// NaN or infinity where a number must be.
    #[error("{name}, tensor {tensor:?} holds {value} at index {index:?}; every value must be finite")]
    NonFinite {
        /// The file, or the model to be saved.
        name: String,
        /// The tensor.
        tensor: String,
        /// Where, by axis.
        index: Vec<usize>,
        /// NaN or infinity.
        value: f32,
    },
    /// Two parts of the model disagree.
    #[error("{name}: {what}: found {found}, expected {expected}")]
    Inconsistent {
        /// The file, or the model to be saved.
        name: String,
        /// Which part: `the class names`.
        what: &'static str,
        /// What is there.
        found: String,
        /// What the network asks for.
        expected: String,
    },
    /// The architecture and the parameters don't make a network, or it can't be run.
    #[error("{name}: {source}")]
    Network {
        /// The file.
        name: String,
        /// What does not fit.
        source: Box<NetworkError>,
    },
    /// The bytes don't make a network.
    #[error("{name}: {source}")]
    Int8 {
        /// The file.
        name: String,
        /// What does not fit.
        source: Box<Int8Error>,
    },
    /// The contents don't fit the format.
    #[error("{what} can't be saved: {reason}")]
    Unwritable {
        /// Which part.
        what: String,
        /// Why.
        reason: String,
    },
}

impl FormatError {
    /// From what a network says of the file or model called `name`.
    pub(crate) fn network(name: &str) -> impl Fn(NetworkError) -> Self {
        move |source| Self::Network { name: name.into(), source: Box::new(source) }
    }
}
