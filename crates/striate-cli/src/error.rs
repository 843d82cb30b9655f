//! Everything that can go wrong on the command line, in the words the user reads.

use crate::download::DownloadError;
use std::io;
use std::path::PathBuf;
use striate::bench::BenchError;
use striate::data::DataError;
use striate::draw::DrawError;
use striate::explain::ExplainError;
use striate::formats::{
    ArraysError, Difference, FormatError, LoadError, NpzError, OnnxError, OnnxImportError, PickleError, Stage,
    TomlError, WriteError,
};
use striate::int8::Int8Error;
use striate::kernels::isa::IsaError;
use striate::models::ModelError;
use striate::network::NetworkError;
use striate::optim::OptimError;
use striate::train::{CheckpointError, TrainError};
use striate_web::mnist::BuiltInError;
use striate_web::server::ServeError;

/// Why a command ended without its result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error(transparent)]
    Arrays(#[from] ArraysError),
    #[error(transparent)]
    Bench(#[from] BenchError),
    #[error(transparent)]
    BuiltIn(#[from] BuiltInError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Download(#[from] DownloadError),
    #[error(transparent)]
    Draw(#[from] DrawError),
    #[error(transparent)]
    Explain(#[from] ExplainError),
    #[error(transparent)]
    Format(#[from] FormatError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Isa(#[from] IsaError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error(transparent)]
    Npz(#[from] NpzError),
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    #[error(transparent)]
    OnnxImport(#[from] OnnxImportError),
    #[error(transparent)]
    Pickle(#[from] PickleError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Toml(#[from] TomlError),
    #[error(transparent)]
    Train(#[from] TrainError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("{}: cannot {action}: {source}", path.display())]
    Io { path: PathBuf, action: &'static str, source: io::Error },
    #[error("the threads could not be started: {source}; try a smaller --threads")]
    Threads { source: rayon::ThreadPoolBuildError },
    #[error(
        "{}: the directory exists and is not empty; nothing in it was touched; choose another --out or empty it",
        path.display()
    )]
    OutNotEmpty { path: PathBuf },
    #[error("{}: another run is writing into this directory; wait for it, or choose another --out", path.display())]
    InUse { path: PathBuf },
    #[error("{}, field striate.note: {source}; the checkpoint was not made by `striate train`", path.display())]
    Note { path: PathBuf, source: serde_json::Error },
    #[error(
        "{}: no snapshots of a training in this directory; `striate train --snapshots` keeps them in the run directory, \
         and `--resume RUN --snapshots` those of the rest of a run",
        path.display()
    )]
    NoSnapshots { path: PathBuf },
    #[error("{}: another `striate data fetch` is at work here; wait for it to end", path.display())]
    Busy { path: PathBuf },
    #[error("{}: the archive holds no {missing}; download it again", path.display())]
    Archive { path: PathBuf, missing: &'static str },
    #[error("{model}: the network is in bytes (int8), and can't {what}; give the float model that it was made from")]
    Quantized { model: String, what: &'static str },
    #[error("{0}")]
    Usage(String),
    #[error("{name}: {problem}")]
    Sample { name: String, problem: String },
    #[error("run.toml cannot be written: {source}")]
    Options { source: toml::ser::Error },
    #[error("{}: the file holds no test vectors, so there is nothing to replay; save the model again with some", path.display())]
    NoVectors { path: PathBuf },
    #[error(
        "{data}: no temperature between 1/100 and 100 is best, as when every image is recognised; the model file was left \
         as it was; calibrate on more or other images"
    )]
    Uncalibrated { data: String },
    #[error("{failed} of {all} images could not be predicted")]
    Predictions { failed: usize, all: usize },
    #[error("{}: {failed} of {vectors} test vectors differ; the first: {}", path.display(), place(first))]
    Verify { path: PathBuf, failed: usize, vectors: usize, first: Box<Difference> },
    #[error(
        "{}: {runtime} gives other logits than this file says: they differ by {difference:e}, and {tolerance:e} is allowed",
        path.display()
    )]
    Elsewhere { path: PathBuf, runtime: String, difference: f32, tolerance: f32 },
    #[error("{}: {problem}", program.display())]
    Python { program: PathBuf, problem: String },
}

/// Where a model file differs from itself, for people.
fn place(first: &Difference) -> String {
    let Difference { stage, vector, index, found, expected, problem } = first;
    let at = match (stage, index.as_slice()) {
        (Stage::Logits, [logit]) => format!("logit {logit}"),
        (_, [channel, row, column]) => format!("channel {channel}, row {row}, column {column}"),
        _ => format!("index {index:?}"),
    };
    match problem {
        Some(problem) => format!("stage {stage}, vector {vector}: {problem}"),
        None => format!("stage {stage}, vector {vector}, {at}: found {found}, expected {expected}"),
    }
}

impl CliError {
    /// The exit status: 2 for wrong usage, otherwise 1.
    pub(crate) fn status(&self) -> u8 {
        match self {
            CliError::Usage(_)
            | CliError::Quantized { .. }
            | CliError::Serve(ServeError::TokenForm { .. })
            | CliError::Isa(_)
            | CliError::Model(
                ModelError::Unknown { .. } | ModelError::Setting { .. } | ModelError::DoesNotFit { .. },
            ) => 2,
            CliError::Bench(BenchError::Optimizer(OptimError::Option { .. })) => 2,
            // Flags whose values the library judges. A layer, class or unit that this very model lacks is a failure.
            CliError::Data(DataError::Option { .. }) => 2,
            CliError::Train(
                TrainError::Option { .. }
                | TrainError::Resume { .. }
                | TrainError::Pattern { .. }
                | TrainError::NothingToFreeze { .. }
                | TrainError::AllFrozen { .. }
                | TrainError::Optimizer(OptimError::Option { .. })
                | TrainError::Int8(Int8Error::Option { .. }),
            ) => 2,
            _ => 1,
        }
    }
}
