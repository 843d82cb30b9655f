//! `striate summary`

use crate::error::CliError;
use crate::model::{self, Architecture};
use crate::output::{Output, bytes, table, thousands};
use crate::{Global, model::ModelOptions};
use clap::{Args, ValueEnum};
use std::process::ExitCode;
use striate::formats::{to_toml, weights_sha256};
use striate::network::{Description, Mode, Network, Plan, Summary};

const EXAMPLES: &str = "Examples:
  striate summary simple-convnet
  striate summary resnet18 --batch 16
  striate summary mlp --input 3,32,32 --classes 100
  striate summary lenet --set activation=relu --set pooling=max
  striate summary alexnet --toml > my.toml       the architecture as a file to edit, for train --model my.toml
  striate summary alexnet --plan                 what runs, in which order, and how
  striate summary runs/simple-convnet-mnist-1 --batch 1 --json";

/// The layers of a model: shapes, parameters, operations, memory, receptive fields
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SummaryArgs {
    /// The name of a model, a TOML file, a model file, or a run directory
    model: String,
    #[command(flatten)]
    options: ModelOptions,
    /// Images in a batch, for the memory
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Print the architecture as TOML instead
    #[arg(long, conflicts_with = "plan")]
    toml: bool,
    /// Print what runs instead: the steps of the plan, and how each works
    #[arg(long)]
    plan: bool,
    /// Which plan --plan prints
    #[arg(long, value_enum, default_value_t = PlanFor::Training, requires = "plan")]
    mode: PlanFor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PlanFor {
    Training,
    Inference,
}

/// Prints the table.
pub(crate) fn run(args: &SummaryArgs, global: &Global, output: &Output) -> Result<ExitCode, CliError> {
    let architecture = model::architecture(&args.model, &args.options)?;
    let description = architecture.description();
    let batch = args.batch as usize;
    if args.toml {
        let text = to_toml(description)?;
        text.lines().for_each(|line| output.line(line));
        output.json(&serde_json::json!({ "toml": text }));
        return Ok(ExitCode::SUCCESS);
    }
    if args.plan {
        return plan(description, batch, args.mode, output);
    }
    let summary = description.summary(batch)?;
    layers(description, &summary, output);
    output.line("FLOPs: one image. Field: rows x columns of the input that one number depends on.");
    output.line(format!(
        "Memory for a batch of {}: {} to train, {} to predict (parameters included, optimizer state not).",
        thousands(batch),
        bytes(summary.peak_bytes),
        bytes(summary.inference_bytes)
    ));
    if global.json {
        // Weights take time and memory; a table of a description needs none.
        let fresh;
        let network = match &architecture {
            Architecture::Trained(file) => &file.network,
            Architecture::Described(description) => {
                fresh = Network::new(description.clone(), global.seed())?;
                &fresh
            }
        };
        output.json(&serde_json::json!({
            "layers": summary.layers,
            "parameters": summary.parameters,
            "flops": summary.flops,
            "training_flops": summary.training_flops,
            "peak_bytes": summary.peak_bytes,
            "inference_bytes": summary.inference_bytes,
            "weights_sha256": weights_sha256(network.parameters()),
        }));
    }
    Ok(ExitCode::SUCCESS)
}

fn layers(description: &Description, summary: &Summary, output: &Output) {
    let head = ["layer", "kind", "options", "output", "parameters", "FLOPs", "training", "memory", "field"];
    let mut rows = vec![head.map(String::from).to_vec()];
    rows.push(vec!["input".into(), String::new(), String::new(), description.input.to_string()]);
    for layer in &summary.layers {
        let mut options = layer.options.clone();
        if !layer.inputs.is_empty() {
            options += if options.is_empty() { "of " } else { ", of " };
            options += &layer.inputs.join(", ");
        }
        rows.push(vec![
            layer.name.clone(),
            layer.kind.into(),
            options,
            layer.output.to_string(),
            thousands(layer.parameters),
            thousands(layer.flops as usize),
            thousands(layer.training_flops as usize),
            bytes(layer.activation_bytes),
            format!("{}x{}", layer.receptive_field.0, layer.receptive_field.1),
        ]);
    }
    let mut total = vec!["total".to_string(), String::new(), String::new(), String::new()];
    total.push(thousands(summary.parameters));
    total.push(thousands(summary.flops as usize));
    total.push(thousands(summary.training_flops as usize));
    total.push(bytes(summary.layers.iter().map(|layer| layer.activation_bytes).sum()));
    rows.push(total);
    table(&rows, &[0, 1, 2]).iter().for_each(|line| output.line(line));
}

fn plan(description: &Description, batch: usize, mode: PlanFor, output: &Output) -> Result<ExitCode, CliError> {
    let mode = if mode == PlanFor::Training { Mode::Training } else { Mode::Inference };
    let plan = Plan::new(description, batch, mode)?;
    let mut rows = vec![["step", "output", "workspace", "packed", "how"].map(String::from).to_vec()];
    let steps: Vec<_> = plan.steps().collect();
    for step in &steps {
        let some = |n: usize| if n == 0 { String::new() } else { bytes(n) };
        rows.push(vec![
            step.name.clone(),
            step.output.to_string(),
            some(step.workspace_bytes),
            some(step.prepared_bytes),
            step.method.clone(),
        ]);
    }
    table(&rows, &[0, 4]).iter().for_each(|line| output.line(line));
    output.line(format!(
        "One arena of {} holds all activations, gradients, packed weights and workspace; with the parameters {}.",
        bytes(plan.arena_bytes()),
        bytes(plan.peak_bytes())
    ));
    output.json(&serde_json::json!({
        "steps": steps,
        "arena_bytes": plan.arena_bytes(),
        "peak_bytes": plan.peak_bytes(),
    }));
    Ok(ExitCode::SUCCESS)
}
