//! `striate evaluate`

use crate::error::CliError;
use crate::output::{Output, share, table, thousands};
use crate::{model, model::WeightsOption, source};
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;
use striate::data::Dataset;
use striate::draw;
use striate::formats::write_atomically;
use striate::network::Weights;
use striate::train::{Evaluation, evaluate, evaluate_with};

const EXAMPLES: &str = "Examples:
  striate evaluate runs/simple-convnet-mnist-1
  striate evaluate model.safetensors --data ~/digits --confusion confusion.svg
  striate evaluate runs/simple-convnet-mnist-1 --split train --json
  striate evaluate runs/alexnet --weights bf16      what half the bytes cost in accuracy";

/// Accuracy, loss, per class and confusion matrix of a model on a data set
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct EvaluateArgs {
    /// A model file or a run directory
    model: PathBuf,
    /// Data: `mnist`, or a directory of IDX files [default: what the model was trained on]
    #[arg(long, value_name = "NAME|DIR")]
    data: Option<String>,
    /// Which part of the data
    #[arg(long, value_parser = ["train", "test"], default_value = "test")]
    split: String,
    /// Images at a time
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch: u32,
    /// How the weights are kept; bf16 is evaluated beside f32, and both are told
    #[arg(long, value_enum, default_value_t = WeightsOption::F32)]
    weights: WeightsOption,
    /// Write the confusion matrix as a picture
    #[arg(long, value_name = "FILE.svg")]
    confusion: Option<PathBuf>,
}

/// Evaluates and prints.
pub(crate) fn run(args: &EvaluateArgs, output: &Output) -> Result<ExitCode, CliError> {
    let model = model::load(&args.model)?;
    let shape = Some(model.preprocessing.shape);
    let splits = match (&args.data, model.training.get("data").and_then(|data| data.as_str())) {
        (Some(data), _) => source::load(data, shape, output)?,
        (None, Some(data)) if source::exists(data) => source::load(data, shape, output)?,
        (None, Some(data)) => {
            return Err(CliError::Usage(format!(
                "the model was trained on {data:?}, which is not here; say with --data what to evaluate it on"
            )));
        }
        (None, None) => {
            return Err(CliError::Usage(
                "the model file does not say what it was trained on; say with --data what to evaluate it on".into(),
            ));
        }
    };
    let data = if args.split == "train" { splits.train } else { splits.test };
    let (normalization, batch) = (&model.preprocessing.normalization, args.batch as usize);
    let exact = evaluate(&model.network, &data, normalization, batch)?;
    let rounded = match args.weights {
        WeightsOption::F32 => None,
        WeightsOption::Bf16 => Some(evaluate_with(&model.network, &data, normalization, batch, Weights::Bf16)?),
    };
    let found = rounded.as_ref().unwrap_or(&exact);
    // Before anything is printed, so that a reader that goes away does not cost the picture.
    if let Some(file) = &args.confusion {
        write_atomically(file, draw::confusion(&found.confusion, &model.class_names, data.name()).as_bytes())?;
    }
    print(output, found, &model.class_names, &data);
    if rounded.is_some() {
        output.line(format!(
            "\nweights in bf16, where that wins; as they are: accuracy {}, loss {:.4}",
            share(exact.correct, exact.images),
            exact.loss
        ));
    }
    if let Some(file) = &args.confusion {
        output.hint(format!("confusion matrix written to {}", file.display()));
    }
    let mut result = serde_json::json!({
        "images": found.images,
        "accuracy": found.accuracy,
        "top5": found.top5,
        "loss": found.loss,
        "classes": found.classes,
        "confusion": found.confusion.rows().into_iter().map(|row| row.to_vec()).collect::<Vec<_>>(),
    });
    if rounded.is_some() {
        result["weights"] = "bf16".into();
        result["f32_accuracy"] = exact.accuracy.into();
        result["f32_loss"] = exact.loss.into();
    }
    output.json(&result);
    Ok(ExitCode::SUCCESS)
}

fn print(output: &Output, found: &Evaluation, names: &[String], data: &Dataset) {
    output.line(format!("{}: {} images", data.name(), thousands(found.images)));
    output.line(format!("accuracy  {}", share(found.correct, found.images)));
    output.line(format!("top 5     {:.2} %", 100.0 * found.top5));
    output.line(format!("loss      {:.4}", found.loss));
    let percent = |share: f64| format!("{:.2} %", 100.0 * share);
    let mut rows = vec![["class", "images", "precision", "recall", "F1"].map(String::from).to_vec()];
    for (name, class) in names.iter().zip(&found.classes) {
        rows.push(vec![
            name.clone(),
            thousands(class.images),
            percent(class.precision),
            percent(class.recall),
            percent(class.f1),
        ]);
    }
    output.line("");
    table(&rows, &[0]).iter().for_each(|line| output.line(line));
    // A larger matrix is not legible as text; --confusion draws it.
    if names.len() <= 20 {
        output.line("\nrows: true class, columns: predicted class");
        let mut rows = vec![std::iter::once(String::new()).chain(names.iter().cloned()).collect::<Vec<_>>()];
        for (name, row) in names.iter().zip(found.confusion.rows()) {
            let cell = |&n: &usize| if n == 0 { "·".into() } else { n.to_string() };
            rows.push(std::iter::once(name.clone()).chain(row.iter().map(cell)).collect());
        }
        table(&rows, &[0]).iter().for_each(|line| output.line(line));
    }
}
