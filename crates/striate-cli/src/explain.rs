//! `striate explain`

use crate::error::CliError;
use crate::model;
use crate::output::Output;
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;
use striate::draw;
use striate::explain::filters;
use striate::formats::write_atomically;

const EXAMPLES: &str = "Examples:
  striate explain runs/simple-convnet-mnist-1 filters
  striate explain model.safetensors filters --layer W1 --out filters.png";

/// Pictures of what a model sees
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ExplainArgs {
    /// A model file or a run directory
    model: PathBuf,
    /// What to draw: `filters`, the weights of a convolution as pictures
    #[arg(value_parser = ["filters"])]
    view: String,
    /// The convolution's parameter [default: the first one]
    #[arg(long, value_name = "NAME")]
    layer: Option<String>,
    /// Where to write [default: VIEW.png in the run directory, or here]
    #[arg(long, value_name = "FILE.png")]
    out: Option<PathBuf>,
}

/// Draws the view.
pub(crate) fn run(args: &ExplainArgs, output: &Output) -> Result<ExitCode, CliError> {
    let model = model::load(&args.model)?;
    let filters = filters::filters(&model.network, args.layer.as_deref())?;
    let file = args.out.clone().unwrap_or_else(|| {
        let name = format!("{}.png", args.view);
        if args.model.is_dir() { args.model.join(name) } else { name.into() }
    });
    let title = format!("Filters {} of {}", filters.name, model.network.description().name);
    write_atomically(&file, &draw::png(&draw::filters(filters.values.view(), &title).image)?)?;
    output.line(format!("{}: {} filters", file.display(), filters.values.dim().0));
    output.json(&serde_json::json!({ "view": args.view, "file": file, "filters": filters.values.dim().0 }));
    Ok(ExitCode::SUCCESS)
}
