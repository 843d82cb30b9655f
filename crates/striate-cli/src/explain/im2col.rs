//! `im2col`: what it would cost each convolution, and what runs instead.

use super::Made;
use crate::error::CliError;
use crate::output::{bytes, table, thousands};
use clap::Args;
use striate::explain;
use striate::formats::ModelFile;

const EXAMPLES: &str = "Examples:
  striate explain runs/simple-convnet-mnist-1 im2col
  striate explain model.safetensors im2col --json";

#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Im2colArgs {}

/// The table; there is nothing to draw.
pub(super) fn make(model: &ModelFile) -> Result<Made, CliError> {
    const BATCH: usize = 100;
    let costs = explain::im2col_cost(model.network.description(), BATCH)?;
    let head = ["layer", "input numbers", "matrix", "matrix numbers", "bytes", "times", "here", "how"];
    let mut rows = vec![head.map(String::from).to_vec()];
    for cost in &costs {
        rows.push(vec![
            cost.layer.clone(),
            thousands(cost.input),
            format!("{} x {}", thousands(cost.rows), thousands(cost.columns)),
            thousands(cost.elements),
            bytes(cost.bytes),
            format!("{:.1}", cost.growth),
            bytes(cost.workspace_bytes),
            cost.method.clone(),
        ]);
    }
    Ok(Made {
        pictures: Vec::new(),
        words: format!("What im2col would unroll for a batch of {BATCH}, and the workspace that runs here instead"),
        lines: table(&rows, &[0, 7]),
        json: serde_json::json!({ "batch": BATCH, "layers": costs }),
    })
}
