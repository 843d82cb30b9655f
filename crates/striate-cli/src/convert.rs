//! `striate convert`

use crate::error::CliError;
use crate::model;
use crate::output::{Output, bytes};
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;
use striate::formats::{OnnxOptions, to_npz, to_onnx, write_atomically};

const EXAMPLES: &str = "Examples:
  striate convert runs/simple-convnet-mnist-1 digits.onnx
  striate convert model.safetensors model.onnx --with-preprocessing
  striate convert model.safetensors weights.npz            numpy.load reads it

An ONNX file has the input `input` (N, C, H, W) and the output `logits` (N, classes), for any N; class names and
preprocessing are in its metadata.";

/// Write a model in another format: ONNX for other runtimes, npz for NumPy
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ConvertArgs {
    /// A model file or a run directory
    model: PathBuf,
    /// The file to write; its ending says the format: .onnx or .npz
    out: PathBuf,
    /// Begin the ONNX graph with the normalisation of pixels, so that it takes u8 from 0 to 255
    #[arg(long)]
    with_preprocessing: bool,
}

/// Reads, converts, writes.
pub(crate) fn run(args: &ConvertArgs, output: &Output) -> Result<ExitCode, CliError> {
    let ending = args.out.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_lowercase();
    if !["onnx", "npz"].contains(&ending.as_str()) {
        return Err(CliError::Usage(format!(
            "{}: the ending {ending:?} names no format to convert to; .onnx and .npz do",
            args.out.display()
        )));
    }
    if args.with_preprocessing && ending != "onnx" {
        return Err(CliError::Usage("--with-preprocessing is for .onnx; a .npz file holds weights alone".into()));
    }
    let model = model::load(&args.model)?;
    let contents = match ending.as_str() {
        "onnx" => to_onnx(&model, OnnxOptions { preprocessing: args.with_preprocessing })?,
        _ => to_npz(model.network.parameters())?,
    };
    write_atomically(&args.out, &contents)?;
    output.line(format!("{}: {}", args.out.display(), bytes(contents.len())));
    output.json(&serde_json::json!({ "out": args.out, "format": ending, "bytes": contents.len() }));
    Ok(ExitCode::SUCCESS)
}
