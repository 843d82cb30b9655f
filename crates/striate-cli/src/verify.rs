//! `striate verify`

use crate::error::CliError;
use crate::model;
use crate::output::Output;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use striate::formats::{Difference, ModelFile, OnnxOptions, Stage, Verification, to_onnx, write_atomically};

const EXAMPLES: &str = "Examples:
  striate verify runs/simple-convnet-mnist-1
  striate verify model.safetensors --json
  striate verify model.safetensors --with onnxruntime
  striate verify model.safetensors --with onnxruntime --exported digits.onnx

A model file holds a few images with the pixels, the network inputs and the logits that they gave where it was saved. Each
stage (decode, preprocess, logits) is replayed from what was noted of the one before. --with onnxruntime needs Python with
`pip install onnxruntime numpy`; with `pip install onnx` its checker goes over the file as well.";

/// What runs the exported file: Python, with this script on its standard input.
const SCRIPT: &str = include_str!("verify_onnx.py");

/// Replay a model file's own test vectors: does it still compute what it did when it was saved?
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct VerifyArgs {
    /// A model file or a run directory
    model: PathBuf,
    /// Also export the model, and run the exported file there
    #[arg(long, value_name = "RUNTIME")]
    with: Option<Runtime>,
    /// With --with: a file that was exported before, in place of a new one
    #[arg(long, value_name = "FILE", requires = "with")]
    exported: Option<PathBuf>,
    /// With --with: the Python that has the runtime
    #[arg(long, value_name = "PROGRAM", default_value = "python3", requires = "with")]
    python: PathBuf,
}

/// Other programs that run a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Runtime {
    /// The exported ONNX file, in onnxruntime
    Onnxruntime,
}

/// What the script prints.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Elsewhere {
    vectors: usize,
    max_abs_difference: f32,
    largest_logit: f32,
    onnx_checker: bool,
    onnxruntime: String,
}

/// Replays and compares.
pub(crate) fn run(args: &VerifyArgs, output: &Output) -> Result<ExitCode, CliError> {
    let (path, model) = (model::path(&args.model), model::load(&args.model)?);
    let found = model.verify()?;
    // Where our own numbers differ already, another runtime's say nothing.
    let elsewhere = match args.with {
        Some(Runtime::Onnxruntime) if found.vectors > 0 && found.is_passed() => Some(exported(args, &path, &model)?),
        _ => None,
    };
    let elsewhere_passed = elsewhere.as_ref().is_none_or(|it| it.max_abs_difference <= tolerance(&model, it));
    output.json(&json!({
        "vectors": found.vectors,
        "passed": found.vectors > 0 && found.is_passed() && elsewhere_passed,
        "first_difference": found.first_difference.as_ref().map(difference),
        "stages": found.stages,
        "onnxruntime": elsewhere,
    }));
    match &found.first_difference {
        // Success would promise what was not looked at.
        None if found.vectors == 0 => Err(CliError::NoVectors { path }),
        None => {
            output.line(format!("{} of {} test vectors agree ({})", found.passed, found.vectors, stages(&found)));
            let Some(elsewhere) = elsewhere else { return Ok(ExitCode::SUCCESS) };
            if !elsewhere_passed {
                return Err(CliError::Elsewhere {
                    path,
                    runtime: format!("onnxruntime {}", elsewhere.onnxruntime),
                    difference: elsewhere.max_abs_difference,
                    tolerance: tolerance(&model, &elsewhere),
                });
            }
            output.line(format!(
                "onnxruntime {}: the largest difference of a logit is {:.1e}{}",
                elsewhere.onnxruntime,
                elsewhere.max_abs_difference,
                if elsewhere.onnx_checker { "; onnx.checker passes" } else { "; onnx.checker is not installed" }
            ));
            Ok(ExitCode::SUCCESS)
        }
        Some(first) => Err(CliError::Verify {
            path,
            failed: found.vectors - found.passed,
            vectors: found.vectors,
            first: Box::new(first.clone()),
        }),
    }
}

fn tolerance(model: &ModelFile, elsewhere: &Elsewhere) -> f32 {
    model.tolerance_elsewhere() * elsewhere.largest_logit.max(1.0)
}

fn stages(found: &Verification) -> String {
    let stages: Vec<String> =
        found.stages.iter().map(|stage| format!("{} {}/{}", stage.stage, stage.passed, found.vectors)).collect();
    stages.join(", ")
}

fn difference(first: &Difference) -> serde_json::Value {
    let mut value = json!(first);
    if first.stage == Stage::Logits {
        value["logit"] = json!(first.index.first());
    }
    value
}

/// What onnxruntime makes of the test vectors.
fn exported(args: &VerifyArgs, path: &Path, model: &ModelFile) -> Result<Elsewhere, CliError> {
    let mut scratch = None;
    let graph = match &args.exported {
        Some(file) if file.is_file() => file.clone(),
        Some(file) => return Err(CliError::Usage(format!("--exported {}: no such file", file.display()))),
        None => {
            let directory = Scratch::new()?;
            let graph = directory.0.join("model.onnx");
            write_atomically(&graph, &to_onnx(model, OnnxOptions::default())?)?;
            scratch = Some(directory);
            graph
        }
    };
    let program = |problem: String| CliError::Python { program: args.python.clone(), problem };
    let mut child = Command::new(&args.python)
        .arg("-")
        .args([path, &graph])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| {
            program(format!("cannot start: {source}; name the Python that has onnxruntime by --python"))
        })?;
    // A Python that ends before it has read its script says why below.
    let _ = child.stdin.take().map(|mut input| input.write_all(SCRIPT.as_bytes()));
    let finished = child.wait_with_output().map_err(|source| program(source.to_string()))?;
    drop(scratch);
    let last = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().lines().last().unwrap_or_default().to_owned();
    if !finished.status.success() {
        return Err(program(last(&finished.stderr)));
    }
    let answer = last(&finished.stdout);
    serde_json::from_str(&answer).map_err(|_| program(format!("its answer is not that of the script: {answer:?}")))
}

/// A directory that is gone when this is.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self, CliError> {
        let stem = std::env::temp_dir().join(format!("striate-verify-{}", std::process::id()));
        std::fs::create_dir(&stem).map_err(|source| CliError::Io {
            path: stem.clone(),
            action: "make the directory",
            source,
        })?;
        Ok(Self(stem))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A directory for temporary files may keep one.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
