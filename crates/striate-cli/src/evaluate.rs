//! `striate evaluate`

use crate::error::CliError;
use crate::output::{Output, share, table, thousands, to_json};
use crate::source::{self, ReadingArgs, Source};
use crate::{model, model::WeightsOption, pictures};
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;
use striate::data::{Dataset, augment::Views};
use striate::draw;
use striate::formats::{ModelFile, Temperature, is_onnx, write_atomically};
use striate::network::Weights;
use striate::train::{EvaluateOptions, Evaluation, calibrate, evaluate_int8, evaluate_with};

const EXAMPLES: &str = "Examples:
  striate evaluate runs/simple-convnet-mnist-1
  striate evaluate model.safetensors --data ~/digits --confusion confusion.svg
  striate evaluate runs/simple-convnet-mnist-1 --mistakes mistakes.png --reliability reliability.svg
  striate evaluate runs/simple-convnet-mnist-1 --split train --json
  striate evaluate model.safetensors --data held-out --calibrate
  striate evaluate runs/flowers --data ~/photos --strict     stop at the first image that can't be read
  striate evaluate runs/cifar-net-cifar10-1 --views 10      the mean of ten guises of each image
  striate evaluate runs/alexnet --weights bf16      what half the bytes cost in accuracy";

/// Accuracy, loss, per class, confusion matrix, calibration and mistakes of a model on a data set
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct EvaluateArgs {
    /// A model file or a run directory
    model: PathBuf,
    /// Data, as `striate train --data` takes it [default: what the model was trained on]
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
    /// Guises of each image whose logits are averaged: 1, 2 (with the mirror image) or 10 (moved a little towards each
    /// corner, with the mirror images); slower, and often better for photographs
    #[arg(long, value_name = "N", default_value = "1")]
    views: Views,
    /// Write the confusion matrix as a picture
    #[arg(long, value_name = "FILE.svg")]
    confusion: Option<PathBuf>,
    /// Write the reliability diagram as a picture: how often the model is right where it is so sure
    #[arg(long, value_name = "FILE.svg")]
    reliability: Option<PathBuf>,
    /// Write the most confident mistakes as a picture
    #[arg(long, value_name = "FILE.png")]
    mistakes: Option<PathBuf>,
    /// Fit a temperature on this very data, which should be neither trained nor tested on, and store it in the model file
    #[arg(long)]
    calibrate: bool,
    #[command(flatten)]
    reading: ReadingArgs,
}

/// Evaluates and prints.
pub(crate) fn run(args: &EvaluateArgs, output: &Output) -> Result<ExitCode, CliError> {
    if args.calibrate && is_onnx(&args.model) {
        return Err(CliError::Usage(format!(
            "{}: --calibrate writes the temperature into the model file, which an ONNX file has no place for; convert it \
             first: striate convert {} model.safetensors",
            args.model.display(),
            args.model.display()
        )));
    }
    let mut model = model::load(&args.model)?;
    if model.quantized.is_some() && (args.calibrate || args.weights != WeightsOption::F32) {
        let what = if args.calibrate { "be calibrated" } else { "have its weights in bf16" };
        return Err(CliError::Quantized { model: args.model.display().to_string(), what });
    }
    let Source { splits, report, .. } = source::for_model(args.data.as_deref(), &args.reading, &model, output)?;
    let data = if args.split == "train" { splits.train } else { splits.test };
    let (normalization, batch) = (&model.preprocessing.normalization, args.batch as usize);
    if args.calibrate {
        let Some(value) = calibrate(&model.network, &data, normalization, batch)? else {
            return Err(CliError::Uncalibrated { data: data.name().into() });
        };
        model.temperature = Some(Temperature { value, data: data.name().into(), images: data.len() });
        model.save(&model::path(&args.model))?;
    }
    let temperature = model.temperature.as_ref().map_or(1.0, |temperature| temperature.value);
    let normalization = &model.preprocessing.normalization;
    let measure = |weights| {
        let options = EvaluateOptions { batch, weights, temperature, views: args.views };
        match &model.quantized {
            Some(quantized) => evaluate_int8(quantized, &data, normalization, &options),
            None => evaluate_with(&model.network, &data, normalization, &options),
        }
    };
    let exact = measure(Weights::F32)?;
    let rounded = match args.weights {
        WeightsOption::F32 => None,
        WeightsOption::Bf16 => Some(measure(Weights::Bf16)?),
    };
    let found = rounded.as_ref().unwrap_or(&exact);
    // Before anything is printed, so that a reader that goes away does not cost the pictures.
    if let Some(file) = &args.confusion {
        write_atomically(file, draw::confusion(&found.confusion, &model.class_names, data.name()).as_bytes())?;
    }
    if let Some(file) = &args.reliability {
        write_atomically(file, pictures::reliability(found, data.name()).as_bytes())?;
    }
    if let Some(file) = &args.mistakes {
        write_atomically(file, &draw::png(&pictures::mistakes(found, &data))?)?;
    }
    print(output, found, &model, &data, args.views);
    if rounded.is_some() {
        output.line(format!(
            "\nweights in bf16, where that wins; as they are: accuracy {}, loss {:.4}",
            share(exact.correct, exact.images),
            exact.loss
        ));
    }
    let mut skipped = report.skipped;
    skipped.extend(data.faults());
    source::list_skipped(output, &skipped);
    let written = [
        ("confusion matrix", &args.confusion),
        ("reliability diagram", &args.reliability),
        ("most confident mistakes", &args.mistakes),
    ];
    for (what, file) in written.iter().filter_map(|(what, file)| Some((what, file.as_ref()?))) {
        output.hint(format!("{what} written to {}", file.display()));
    }
    let mut line = to_json(found);
    line["expected_calibration_error"] = found.calibration.expected_error.into();
    line["temperature"] = to_json(&model.temperature);
    line["views"] = args.views.count().into();
    line["skipped"] = source::skipped_json(&skipped);
    if rounded.is_some() {
        line["weights"] = "bf16".into();
        line["f32_accuracy"] = exact.accuracy.into();
        line["f32_loss"] = exact.loss.into();
    }
    output.json(&line);
    Ok(ExitCode::SUCCESS)
}

fn print(output: &Output, found: &Evaluation, model: &ModelFile, data: &Dataset, views: Views) {
    let names = &model.class_names;
    let percent = |share: f64| format!("{:.2} %", 100.0 * share);
    let views = match views.count() {
        1 => String::new(),
        views => format!(", the mean of {views} views of each"),
    };
    output.line(format!("{}: {} images{views}", data.name(), thousands(found.images)));
    output.line(format!("accuracy           {}", share(found.correct, found.images)));
    output.line(format!("top 5              {}", percent(found.top5)));
    output.line(format!("loss               {:.4}", found.loss));
    output.line(format!(
        "calibration error  {} (mean confidence {})",
        percent(found.calibration.expected_error),
        percent(found.calibration.confidence)
    ));
    if let (Some(scaled), Some(from)) = (&found.scaled, &model.temperature) {
        output.line(format!(
            "at temperature {:.4} (fitted on {} images of {}): loss {:.4}, calibration error {}",
            scaled.temperature,
            thousands(from.images),
            from.data,
            scaled.loss,
            percent(scaled.calibration.expected_error)
        ));
    }
    let row = |name: &str, images, [precision, recall, f1]: [f64; 3]| {
        vec![name.to_owned(), images, percent(precision), percent(recall), percent(f1)]
    };
    let mut rows = vec![["class", "images", "precision", "recall", "F1"].map(String::from).to_vec()];
    for (name, class) in names.iter().zip(&found.classes) {
        rows.push(row(name, thousands(class.images), [class.precision, class.recall, class.f1]));
    }
    let mean = &found.macro_average;
    rows.push(row("mean of classes", String::new(), [mean.precision, mean.recall, mean.f1]));
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
