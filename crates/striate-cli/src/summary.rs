//! `striate summary`

use crate::error::CliError;
use crate::output::{Output, bytes, table, thousands};
use crate::{Global, model};
use clap::Args;
use std::path::Path;
use std::process::ExitCode;
use striate::formats::weights_sha256;
use striate::models;
use striate::network::Network;
use striate::shape::Shape;

const EXAMPLES: &str = "Examples:
  striate summary simple-convnet
  striate summary mlp --input 3,32,32 --classes 100
  striate summary runs/simple-convnet-mnist-1 --batch 1 --json";

/// The layers of a model: shapes, parameters, operations, memory
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SummaryArgs {
    /// A model file, a run directory, or the name of a model
    model: String,
    /// Images a training step, for the memory
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// One input, for a model by name [default: 1,28,28]
    #[arg(long, value_name = "C,H,W", value_parser = parse_shape)]
    input: Option<Shape>,
    /// Number of classes, for a model by name [default: 10]
    #[arg(long, value_name = "N")]
    classes: Option<usize>,
}

/// Prints the table.
pub(crate) fn run(args: &SummaryArgs, global: &Global, output: &Output) -> Result<ExitCode, CliError> {
    let path = Path::new(&args.model);
    let network = if models::NAMES.contains(&args.model.as_str()) {
        let input = args.input.unwrap_or(Shape::new(1, 28, 28));
        Network::new(models::by_name(&args.model, input, args.classes.unwrap_or(10))?, global.seed)?
    } else if path.exists() && (args.input.is_some() || args.classes.is_some()) {
        return Err(CliError::Usage(format!(
            "{}: --input and --classes are for a model by name; a trained model has its own",
            args.model
        )));
    } else if path.exists() {
        model::load(path)?.network
    } else {
        return Err(CliError::Usage(format!(
            "{:?} is neither a file, a run directory nor a model; the models are {}",
            args.model,
            models::NAMES.join(", ")
        )));
    };
    let summary = network.summary(args.batch as usize)?;
    let mut rows = vec![["layer", "kind", "options", "output", "parameters", "FLOPs"].map(String::from).to_vec()];
    rows.push(vec!["Input".into(), String::new(), String::new(), network.input().to_string()]);
    for layer in &summary.layers {
        rows.push(vec![
            layer.name.clone(),
            layer.kind.into(),
            layer.options.clone(),
            layer.output.to_string(),
            thousands(layer.parameters),
            thousands(layer.flops as usize),
        ]);
    }
    rows.push(vec![
        "Total".into(),
        String::new(),
        String::new(),
        String::new(),
        thousands(summary.parameters),
        thousands(summary.flops as usize),
    ]);
    table(&rows, &[0, 1, 2]).iter().for_each(|line| output.line(line));
    output.line(format!(
        "FLOPs: one image forward. Memory of a training step of {}: {}.",
        thousands(args.batch as usize),
        bytes(summary.peak_bytes)
    ));
    output.json(&serde_json::json!({
        "layers": summary.layers,
        "parameters": summary.parameters,
        "flops": summary.flops,
        "peak_bytes": summary.peak_bytes,
        "weights_sha256": weights_sha256(network.parameters()),
    }));
    Ok(ExitCode::SUCCESS)
}

fn parse_shape(text: &str) -> Result<Shape, String> {
    let sizes: Result<Vec<usize>, _> = text.split(',').map(str::trim).map(str::parse).collect();
    match sizes.as_deref() {
        Ok(&[channels, height, width]) => Ok(Shape::new(channels, height, width)),
        _ => Err("three whole numbers are needed: channels,height,width, as in 1,28,28".into()),
    }
}
