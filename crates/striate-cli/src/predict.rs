//! `striate predict`

use crate::error::CliError;
use crate::output::{Output, complain};
use crate::run_dir::io_error;
use crate::{model, model::WeightsOption};
use clap::Args;
use ndarray::{Array2, Array4};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use striate::data::Preprocessing;
use striate::formats::{ModelFile, ModelPredictor};
use striate_web::mnist::{BuiltInError, Part, SHAPE};

const EXAMPLES: &str = "Examples:
  striate predict runs/simple-convnet-mnist-1 mnist:test:42
  striate predict runs/simple-convnet-mnist-1 photo.jpg scan.png --top 5
  cat digit.png | striate predict model.safetensors - --json

A picture of any size is brought to the network's size as the model file says. For digits that means: dark ink on light
paper is inverted, the ink is cropped, scaled and centred as MNIST's makers did.
Where the model file holds a temperature (striate evaluate shows it), the probabilities are calibrated by it.";

/// The largest picture file that is read.
const MAX_FILE: u64 = 256 << 20;

/// Classes of images with their probabilities
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PredictArgs {
    /// A model file or a run directory
    model: PathBuf,
    /// PNG or JPEG files, `-` for stdin, or `mnist:test:42`
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// How the weights are kept; bf16 rounds those of large fully connected layers, and reads half the bytes
    #[arg(long, value_enum, default_value_t = WeightsOption::F32)]
    weights: WeightsOption,
    /// Classes to show for each image
    #[arg(long, value_name = "N", default_value_t = 3)]
    top: usize,
}

/// An image as the network takes it, and its class where it is known.
pub(crate) struct Sample {
    pub(crate) pixels: Vec<u8>,
    pub(crate) label: Option<usize>,
}

/// Reads IMAGE: a file, `-` for stdin, or an image of MNIST.
pub(crate) fn read(name: &str, model: &ModelFile) -> Result<Sample, CliError> {
    match reference(name)? {
        Some(reference) => read_mnist(name, reference, model),
        None => read_file(name, model),
    }
}

/// Predicts every image that can be read; one that can't is named, and the rest is still predicted.
pub(crate) fn run(args: &PredictArgs, output: &Output) -> Result<ExitCode, CliError> {
    // A reference that nobody can mean is wrong usage, and said before any work.
    let references: Vec<Option<Reference>> =
        args.images.iter().map(|name| reference(name)).collect::<Result<_, _>>()?;
    let model = model::load(&args.model)?;
    // Planned, reserved and packed once for all images.
    let mut predictor = model.predictor(1, args.weights.into())?;
    let mut results = Vec::new();
    let mut failed = 0;
    for (name, reference) in args.images.iter().zip(references) {
        let sample = match reference {
            Some(reference) => read_mnist(name, reference, &model),
            None => read_file(name, &model),
        };
        match sample.and_then(|sample| Ok((probabilities(&model, &mut predictor, &sample)?, sample))) {
            Ok((probabilities, sample)) => results.push(print(output, name, &model, &probabilities, &sample, args.top)),
            Err(error) => {
                complain(&format!("error: {error}"));
                failed += 1;
            }
        }
    }
    output.json(&results.into());
    if failed > 0 {
        return Err(CliError::Predictions { failed, all: args.images.len() });
    }
    Ok(ExitCode::SUCCESS)
}

/// An image of MNIST.
#[derive(Clone, Copy)]
struct Reference {
    part: Part,
    index: usize,
}

/// Reads `mnist:test:42`; `None` for the name of a file.
fn reference(name: &str) -> Result<Option<Reference>, CliError> {
    let Some(reference) = name.strip_prefix("mnist:") else { return Ok(None) };
    let usage = |problem: String| CliError::Usage(format!("{name}: {problem}; write mnist:test:42 or mnist:train:7"));
    let (part, index) = reference.split_once(':').ok_or_else(|| usage("the number is missing".into()))?;
    let known = Part::ALL.into_iter().find(|known| known.name() == part);
    let part = known.ok_or_else(|| usage(format!("there is no part {part:?}")))?;
    let index = index.parse().map_err(|_| usage(format!("{index:?} is not the number of an image")))?;
    Ok(Some(Reference { part, index }))
}

/// As [`read`], but a file at its own size, or with no side over `most`; and the preprocessing for such pixels.
pub(crate) fn read_whole(name: &str, model: &ModelFile, most: usize) -> Result<(Preprocessing, Sample), CliError> {
    if let Some(reference) = reference(name)? {
        return Ok((model.preprocessing.clone(), read_mnist(name, reference, model)?));
    }
    let (path, bytes) = bytes(name)?;
    let (whole, pixels) = model.preprocessing.decode_whole(&bytes, &path.display().to_string(), most)?;
    Ok((whole, Sample { pixels, label: None }))
}

fn read_file(name: &str, model: &ModelFile) -> Result<Sample, CliError> {
    let (path, bytes) = bytes(name)?;
    let pixels = model.preprocessing.decode(&bytes, &path.display().to_string())?;
    Ok(Sample { pixels, label: None })
}

/// The contents of a file, or of stdin, and what to call it.
fn bytes(name: &str) -> Result<(PathBuf, Vec<u8>), CliError> {
    if name == "-" {
        let path = PathBuf::from("stdin");
        let bytes = read_bounded(&mut std::io::stdin().lock(), &path)?;
        return Ok((path, bytes));
    }
    let path = PathBuf::from(name);
    let metadata = std::fs::metadata(&path).map_err(io_error(&path, "read the image"))?;
    if !metadata.is_file() {
        return Err(CliError::Io { path, action: "read the image", source: std::io::Error::other("not a file") });
    }
    let mut file = std::fs::File::open(&path).map_err(io_error(&path, "open the image"))?;
    let bytes = read_bounded(&mut file, &path)?;
    Ok((path, bytes))
}

fn read_bounded(reader: &mut dyn Read, path: &Path) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    reader.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(io_error(path, "read the image"))?;
    if bytes.len() as u64 > MAX_FILE {
        let source = std::io::Error::other("the file is larger than 256 MiB, the most that is read");
        return Err(CliError::Io { path: path.to_owned(), action: "read the image", source });
    }
    Ok(bytes)
}

fn read_mnist(name: &str, Reference { part, index }: Reference, model: &ModelFile) -> Result<Sample, CliError> {
    let problem = |problem: String| CliError::Sample { name: name.to_owned(), problem };
    let expected = model.preprocessing.shape;
    if SHAPE != expected {
        return Err(problem(format!("MNIST's images are {SHAPE}, but the model takes {expected}")));
    }
    let digits = part.digits().map_err(BuiltInError::from)?;
    match (digits.images.chunks_exact(SHAPE.len()).nth(index), digits.labels.get(index)) {
        (Some(pixels), Some(&label)) => Ok(Sample { pixels: pixels.to_vec(), label: Some(label.into()) }),
        _ => Err(problem(format!("the {} set has images 0 to {}", part.name(), digits.len().saturating_sub(1)))),
    }
}

fn probabilities(
    model: &ModelFile,
    predictor: &mut ModelPredictor<'_>,
    sample: &Sample,
) -> Result<Array2<f32>, CliError> {
    let shape = model.network.input();
    let values = model.preprocessing.apply(&sample.pixels);
    let x = Array4::from_shape_vec((1, shape.channels, shape.height, shape.width), values).map_err(|_| {
        CliError::Usage(format!("the model takes {shape}, but its preprocessing gives {}", model.preprocessing.shape))
    })?;
    Ok(model.probabilities(&predictor.predict(x.view())?))
}

fn print(
    output: &Output,
    name: &str,
    model: &ModelFile,
    probabilities: &Array2<f32>,
    sample: &Sample,
    top: usize,
) -> serde_json::Value {
    let mut order: Vec<usize> = (0..probabilities.ncols()).collect();
    order.sort_by(|&a, &b| probabilities[[0, b]].total_cmp(&probabilities[[0, a]]));
    let class = |i: usize| model.class_name(i);
    let truth = sample.label.map_or(String::new(), |label| format!(" (labelled {})", class(label)));
    output.line(format!("{name}{truth}"));
    if output.is_screen() {
        preview(model, &sample.pixels).iter().for_each(|line| output.line(line));
    }
    let mut best = Vec::new();
    for &i in order.iter().take(top.max(1)) {
        let p = probabilities[[0, i]];
        output.line(format!("  {:<12} {:>6.2} %  {}", class(i), 100.0 * p, "#".repeat((30.0 * p).round() as usize)));
        best.push(serde_json::json!({ "class": class(i), "probability": p }));
    }
    let mut result = serde_json::json!({
        "image": name,
        "class": class(order[0]),
        "probability": probabilities[[0, order[0]]],
        "top": best,
    });
    if let Some(label) = sample.label {
        result["label"] = class(label).into();
    }
    result
}

/// What the network is given, two rows of pixels a line.
fn preview(model: &ModelFile, pixels: &[u8]) -> Vec<String> {
    let shape = model.preprocessing.shape;
    if shape.channels != 1 || shape.width > 64 {
        return Vec::new();
    }
    let dark = |y: usize, x: usize| y < shape.height && pixels[y * shape.width + x] > 96;
    (0..shape.height.div_ceil(2))
        .map(|row| {
            let cell = |x: usize| match (dark(2 * row, x), dark(2 * row + 1, x)) {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            };
            format!("    {}", (0..shape.width).map(cell).collect::<String>().trim_end())
        })
        .filter(|line| !line.trim().is_empty())
        .collect()
}
