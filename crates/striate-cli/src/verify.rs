//! `striate verify`

use crate::error::CliError;
use crate::model;
use crate::output::Output;
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

const EXAMPLES: &str = "Examples:
  striate verify runs/simple-convnet-mnist-1
  striate verify model.safetensors --json";

/// Replay a model file's own test vectors: does it still compute what it did when it was saved?
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct VerifyArgs {
    /// A model file or a run directory
    model: PathBuf,
}

/// Replays and compares.
pub(crate) fn run(args: &VerifyArgs, output: &Output) -> Result<ExitCode, CliError> {
    let found = model::load(&args.model)?.verify()?;
    output.json(&serde_json::json!({
        "vectors": found.vectors,
        "passed": found.vectors > 0 && found.is_passed(),
        "first_difference": found.first_difference,
    }));
    match &found.first_difference {
        // Success would promise what was not looked at.
        None if found.vectors == 0 => Err(CliError::NoVectors { path: model::path(&args.model) }),
        None => {
            output.line(format!("{} of {} test vectors agree", found.passed, found.vectors));
            Ok(ExitCode::SUCCESS)
        }
        Some(difference) => Err(CliError::Verify {
            path: model::path(&args.model),
            failed: found.vectors - found.passed,
            vectors: found.vectors,
            vector: difference.vector,
            logit: difference.logit,
            found: difference.found,
            expected: difference.expected,
        }),
    }
}
