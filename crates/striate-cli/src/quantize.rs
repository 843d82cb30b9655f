//! `striate quantize`

use crate::bench::parse_seconds;
use crate::error::CliError;
use crate::model;
use crate::output::{Output, bytes, milliseconds, share, table, thousands, to_json};
use crate::progress::Bar;
use crate::source::{self, ReadingArgs, Source};
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use striate::bench::{Timing, alternate};
use striate::formats::{ModelFile, write_atomically};
use striate::int8::{self, CalibrationOptions, QuantizedNetwork};
use striate::network::{Network, Plan, Runner, Weights};
use striate::train::{self, EvaluateOptions, QuantizeOptions, evaluate, evaluate_int8};

const EXAMPLES: &str = "Examples:
  striate quantize runs/simple-convnet-mnist-1
  striate quantize model.safetensors --data ~/photos --out small.safetensors
  striate quantize runs/cifar --calibration-images 2000 --percentile 99.99
  striate evaluate runs/simple-convnet-mnist-1/model-int8.safetensors
  striate convert runs/simple-convnet-mnist-1/model-int8.safetensors digits.onnx

Weights become signed bytes with a scale for each output channel; activations become bytes whose scales are taken from
what they are on some training images. Batch normalisation is folded away first. The file is a model file as before, a
quarter as large: predict, evaluate, verify and convert take it.";

/// Images at a time when accuracy is measured.
const BATCH: usize = 100;

/// Batch sizes that are timed: one image's latency, and throughput.
const TIMED: [usize; 2] = [1, 32];

/// Turn a trained model into one of 8-bit whole numbers: a quarter of the size, and faster
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct QuantizeArgs {
    /// A model file or a run directory
    model: PathBuf,
    /// Data, as `striate train --data` takes it [default: what the model was trained on]
    #[arg(long, value_name = "NAME|DIR")]
    data: Option<String>,
    /// The file to write [default: the model's own with -int8 before its ending]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Training images to calibrate activations on, spread evenly over all of them
    #[arg(long, value_name = "N", default_value_t = 512)]
    calibration_images: usize,
    /// Percentage of an activation's numbers that its bytes must cover; below 100 outliers are cut off
    #[arg(long, value_name = "P", default_value_t = 100.0)]
    percentile: f64,
    /// Seconds for each of the times; 0 for none
    #[arg(long, value_name = "S", default_value_t = 1.0, value_parser = parse_seconds)]
    seconds: f64,
    #[command(flatten)]
    reading: ReadingArgs,
}

/// Quantizes, measures, writes, tells.
pub(crate) fn run(args: &QuantizeArgs, output: &Output) -> Result<ExitCode, CliError> {
    let model = model::load_float(&args.model, "be quantized again")?;
    let file = model::path(&args.model);
    let out = args.out.clone().unwrap_or_else(|| beside(&file));
    if out == file {
        return Err(CliError::Usage(format!("--out {}: this is the model itself; give another name", out.display())));
    }
    let Source { splits, .. } = source::for_model(args.data.as_deref(), &args.reading, &model, output)?;
    let options = QuantizeOptions {
        images: args.calibration_images,
        calibration: CalibrationOptions { percentile: args.percentile },
    };
    let normalization = &model.preprocessing.normalization;
    let bar = Bar::new("calibrating", output.is_quiet());
    let progress = &mut |done, all| bar.show(done, all);
    let (network, quantized) = train::quantize(&model.network, &splits.train, normalization, &options, progress)?;
    let calibration_images = args.calibration_images.min(splits.train.len());

    let before = evaluate(&model.network, &splits.test, normalization, BATCH)?;
    let after = evaluate_int8(&quantized, &splits.test, normalization, &EvaluateOptions::new(BATCH))?;
    let times = times(&model.network, &quantized, args.seconds)?;

    let float_layers: Vec<String> = quantized.float_layers().map(String::from).collect();
    let mut training = model.training.clone();
    let record = serde_json::json!({
        "data": splits.train.name(), "images": calibration_images, "percentile": args.percentile,
        "float_accuracy": before.accuracy,
    });
    if let Some(training) = training.as_object_mut() {
        training.insert("quantization".into(), record);
    }
    let file_of = ModelFile {
        network,
        class_names: model.class_names,
        preprocessing: model.preprocessing,
        training,
        metrics: serde_json::json!({ "test_accuracy": after.accuracy, "test_loss": after.loss }),
        test_vectors: model.test_vectors.recorded_in_bytes(&quantized)?,
        temperature: model.temperature,
        quantized: Some(quantized),
    };
    let contents = file_of.to_bytes()?;
    write_atomically(&out, &contents)?;
    let size = std::fs::metadata(&file).map(|found| found.len() as usize).unwrap_or_default();

    let mut rows = vec![["", "float", "int8"].map(String::from).to_vec()];
    let mut row = |what: &str, before: String, after: String| rows.push(vec![what.into(), before, after]);
    row("accuracy", share(before.correct, before.images), share(after.correct, after.images));
    row("loss", format!("{:.4}", before.loss), format!("{:.4}", after.loss));
    row("file", bytes(size), bytes(contents.len()));
    for (batch, float, int8) in &times {
        let cell = |timing: &Timing| format!("{} ms", milliseconds(timing.ms));
        row(&format!("batch {batch}"), cell(float), cell(int8));
        let rate = |timing: &Timing| format!("{} images/s", thousands(rate(*batch, timing) as usize));
        row("", rate(float), rate(int8));
    }
    table(&rows, &[0]).iter().for_each(|line| output.line(line));
    if !float_layers.is_empty() {
        output.line(format!("in float, having no form in bytes: {}", float_layers.join(", ")));
    }
    output.hint(format!(
        "written to {}; calibrated on {} images of {}; integer kernels: {}",
        out.display(),
        thousands(calibration_images),
        splits.train.name(),
        int8::kernels()
    ));
    let timed = |batch: usize| times.iter().find(|(of, ..)| *of == batch);
    let latency = timed(1).map(|(_, float, int8)| (float.ms, int8.ms));
    let throughput = timed(32).map(|(batch, float, int8)| (rate(*batch, float), rate(*batch, int8)));
    output.json(&serde_json::json!({
        "out": out,
        "calibration_data": splits.train.name(),
        "calibration_images": calibration_images,
        "percentile": args.percentile,
        "images": before.images,
        "float_accuracy": before.accuracy,
        "accuracy": after.accuracy,
        "float_loss": before.loss,
        "loss": after.loss,
        "float_bytes": size,
        "bytes": contents.len(),
        "float_latency_ms": latency.map(|(float, _)| float),
        "latency_ms": latency.map(|(_, int8)| int8),
        "float_images_per_second": throughput.map(|(float, _)| float),
        "images_per_second": throughput.map(|(_, int8)| int8),
        "threads": rayon::current_num_threads(),
        "kernels": int8::kernels(),
        "float_layers": float_layers,
        "times": times.iter().map(|(batch, float, int8)| {
            serde_json::json!({ "batch": batch, "float": to_json(float), "int8": to_json(int8) })
        }).collect::<Vec<_>>(),
    }));
    Ok(ExitCode::SUCCESS)
}

/// `model.safetensors` as `model-int8.safetensors`.
fn beside(file: &Path) -> PathBuf {
    let stem = file.file_stem().map_or("model".into(), |stem| stem.to_string_lossy());
    file.with_file_name(format!("{stem}-int8.safetensors"))
}

/// Of each batch size the times in float and in bytes, taken in turns; none where no time is given.
fn times(
    network: &Network,
    quantized: &QuantizedNetwork,
    seconds: f64,
) -> Result<Vec<(usize, Timing, Timing)>, CliError> {
    let mut times = Vec::new();
    for batch in TIMED.into_iter().filter(|_| seconds > 0.0) {
        let mut runner = Runner::new(Plan::inference(network.description(), batch, Weights::F32)?)?;
        let mut predictor = int8::Predictor::new(quantized, batch)?;
        // Both are given numbers and give numbers.
        for input in [runner.input_mut(), predictor.input_mut()] {
            input.iter_mut().enumerate().for_each(|(i, v)| *v = (i * 7919 % 255) as f32 / 255.0);
        }
        let mut float = || {
            runner.predict(network.parameters());
        };
        let mut int8 = || {
            predictor.run();
        };
        let found = alternate(Duration::from_secs_f64(seconds), &mut [&mut float, &mut int8]);
        if let [float, int8] = found.as_slice() {
            times.push((batch, *float, *int8));
        }
    }
    Ok(times)
}

fn rate(batch: usize, timing: &Timing) -> f64 {
    1e3 * batch as f64 / timing.ms.max(1e-9)
}
