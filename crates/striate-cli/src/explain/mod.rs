//! `striate explain`: one file a view; here is what they share.

mod attribution;
mod depth;
mod embedding;
mod feature_maps;
mod filters;
mod grad_cam;
mod im2col;
mod maximize;
mod occlusion;
mod saliency;
mod shift;
mod similar;

use crate::error::CliError;
use crate::output::Output;
use crate::{model, predict};
use clap::{Args, Subcommand};
use ndarray::{Array3, Axis};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use striate::draw::sheet::{Band, Legend, Palette, Tile};
use striate::draw::{self, Plot};
use striate::explain::ExplainError;
use striate::formats::{ModelFile, write_atomically};

const EXAMPLES: &str = "Examples:
  striate explain runs/simple-convnet-mnist-1 filters
  striate explain model.safetensors filters --layer W1 --out filters.png
  striate explain runs/simple-convnet-mnist-1 filters --apply mnist:test:0
  striate explain runs/simple-convnet-mnist-1 feature-maps mnist:test:42
  striate explain runs/simple-convnet-mnist-1 saliency mnist:test:42 digit.png --class 7
  striate explain runs/simple-convnet-mnist-1 grad-cam mnist:test:42
  striate explain runs/simple-convnet-mnist-1 maximize --layer Affine2
  striate explain runs/simple-convnet-mnist-1 depth
  striate explain runs/simple-convnet-mnist-1 similar                   the test set's mistakes
  striate explain runs/simple-convnet-mnist-1 embedding --method tsne --out embedding.svg
  striate explain runs/simple-convnet-mnist-1 shift --against runs/mlp-mnist-1
  striate explain runs/simple-convnet-mnist-1 im2col --json

Each view has options of its own: striate explain MODEL grad-cam --help";

/// Pictures of what a model sees
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES, disable_help_subcommand = true)]
#[command(subcommand_value_name = "VIEW", subcommand_help_heading = "Views")]
pub(crate) struct ExplainArgs {
    /// A model file or a run directory
    model: PathBuf,
    #[command(subcommand)]
    view: View,
}

#[derive(Clone, Debug, Subcommand)]
enum View {
    /// The weights of a convolution as pictures; with --apply, what each filter makes of an image
    Filters(filters::FiltersArgs),
    /// Every layer's output for an image, from the input to the classes
    FeatureMaps(feature_maps::FeatureMapsArgs),
    /// Pixels that a score depends on: gradient, SmoothGrad, integrated gradients, guided backpropagation, deconvnet
    Saliency(saliency::SaliencyArgs),
    /// Where a layer finds the class: Grad-CAM and LayerCAM
    GradCam(grad_cam::GradCamArgs),
    /// What the score loses where a square covers the image
    Occlusion(occlusion::OcclusionArgs),
    /// Images that a layer's units answer to most
    Maximize(maximize::MaximizeArgs),
    /// What changes with depth: the images and patches that units answer to most, beside images made for them
    Depth(depth::DepthArgs),
    /// Training images that the network holds for alike, for images or else for the test set's mistakes, and the layer at
    /// which the right class is lost
    Similar(similar::SimilarArgs),
    /// The features of many images in two dimensions, coloured by class: principal components or t-SNE
    Embedding(embedding::EmbeddingArgs),
    /// What a move of the image by some pixels does to the answer
    Shift(shift::ShiftArgs),
    /// What im2col would cost each convolution, and what runs instead (no picture)
    Im2col(im2col::Im2colArgs),
    #[command(external_subcommand)]
    Unknown(Vec<String>),
}

/// Where the picture goes.
#[derive(Args, Clone, Debug)]
struct Out {
    /// Where to write [default: VIEW.png in the run directory, or here]
    #[arg(long, value_name = "FILE.png")]
    out: Option<PathBuf>,
}

/// Where the plot goes.
#[derive(Args, Clone, Debug)]
struct PlotOut {
    /// Where to write, as pixels or as lines [default: VIEW.png in the run directory, or here]
    #[arg(long, value_name = "FILE.png|FILE.svg")]
    out: Option<PathBuf>,
}

/// The data of views that go over many images.
#[derive(Args, Clone, Debug)]
struct DataArgs {
    /// Data: a name, or a directory or list of images as for `train` [default: what the model was trained on]
    #[arg(long, value_name = "NAME|DIR")]
    data: Option<String>,
    /// Look at so many images at most, spread evenly over the data
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    images: u32,
}

/// Draws the view.
pub(crate) fn run(args: &ExplainArgs, output: &Output) -> Result<ExitCode, CliError> {
    let (name, out, endings): (_, _, &[&str]) = match &args.view {
        View::Filters(view) => ("filters", &view.out.out, &["png"]),
        View::FeatureMaps(view) => ("feature-maps", &view.out.out, &["png"]),
        View::Saliency(view) => ("saliency", &view.out.out, &["png"]),
        View::GradCam(view) => ("grad-cam", &view.out.out, &["png"]),
        View::Occlusion(view) => ("occlusion", &view.out.out, &["png"]),
        View::Maximize(view) => ("maximize", &view.out.out, &["png"]),
        View::Depth(view) => ("depth", &view.out.out, &["png"]),
        View::Similar(view) => ("similar", &view.out.out, &["png"]),
        View::Embedding(view) => ("embedding", &view.out.out, &["png", "svg"]),
        View::Shift(view) => ("shift", &view.out.out, &["png", "svg"]),
        View::Im2col(_) => return im2col::print(&model::load(&args.model)?, output),
        View::Unknown(words) => return Err(unknown(words.first().map_or("", String::as_str))),
    };
    // Before any work.
    let (file, ending) = destination(out.as_deref(), endings, &args.model, name)?;
    let model = model::load(&args.model)?;
    let Drawn { picture, words, table, mut json } = match &args.view {
        View::Filters(view) => filters::draw(view, &model)?,
        View::FeatureMaps(view) => feature_maps::draw(view, &model)?,
        View::Saliency(view) => saliency::draw(view, &model)?,
        View::GradCam(view) => grad_cam::draw(view, &model)?,
        View::Occlusion(view) => occlusion::draw(view, &model)?,
        View::Maximize(view) => maximize::draw(view, &model)?,
        View::Depth(view) => depth::draw(view, &model, output)?,
        View::Similar(view) => similar::draw(view, &model, output)?,
        View::Embedding(view) => embedding::draw(view, &model, output)?,
        View::Shift(view) => shift::draw(view, &args.model, &model, output)?,
        View::Im2col(_) | View::Unknown(_) => return Ok(ExitCode::SUCCESS),
    };
    let bytes = match picture {
        Picture::Image(image) => draw::png(&image)?,
        Picture::Plot(plot) if ending == "svg" => plot.svg().into_bytes(),
        Picture::Plot(plot) => draw::png(&plot.image())?,
    };
    write_atomically(&file, &bytes)?;
    table.iter().for_each(|line| output.line(line));
    output.line(format!("{}: {words}", file.display()));
    json["view"] = name.into();
    json["file"] = file.display().to_string().into();
    output.json(&json);
    Ok(ExitCode::SUCCESS)
}

fn unknown(view: &str) -> CliError {
    let views = View::augment_subcommands(clap::Command::new("explain"));
    let names: Vec<&str> = views.get_subcommands().map(clap::Command::get_name).collect();
    CliError::Usage(format!("there is no view {view:?}; the views are {}", names.join(", ")))
}

/// The file to write, and its ending, which says how.
fn destination(
    out: Option<&Path>,
    endings: &[&'static str],
    model: &Path,
    view: &str,
) -> Result<(PathBuf, &'static str), CliError> {
    let Some(out) = out else {
        let name = format!("{view}.png");
        return Ok((if model.is_dir() { model.join(name) } else { name.into() }, "png"));
    };
    let has = |ending: &&str| out.extension().is_some_and(|found| found.eq_ignore_ascii_case(ending));
    let Some(ending) = endings.iter().copied().find(has) else {
        let endings = endings.iter().map(|ending| format!(".{ending}")).collect::<Vec<_>>().join(" or ");
        let out = out.display();
        return Err(CliError::Usage(format!("--out {out}: {view} is written as {endings}; end the name in that")));
    };
    match out.parent().filter(|parent| !parent.as_os_str().is_empty() && !parent.is_dir()) {
        Some(parent) => {
            let (out, parent) = (out.display(), parent.display());
            Err(CliError::Usage(format!("--out {out}: there is no directory {parent}; make it first")))
        }
        None => Ok((out.to_owned(), ending)),
    }
}

/// A result that is not written yet.
struct Drawn {
    picture: Picture,
    /// What it shows, in a few words.
    words: String,
    /// Numbers for people.
    table: Vec<String>,
    /// The result for programs.
    json: serde_json::Value,
}

enum Picture {
    Image(image::RgbImage),
    Plot(Box<dyn Plot>),
}

impl Drawn {
    fn new(image: image::RgbImage, words: String, json: serde_json::Value) -> Self {
        Self { picture: Picture::Image(image), words, table: Vec::new(), json }
    }

    fn plot(plot: impl Plot + 'static, words: String, table: Vec<String>, json: serde_json::Value) -> Self {
        Self { picture: Picture::Plot(Box::new(plot)), words, table, json }
    }
}

/// An image to explain.
struct Image {
    name: String,
    /// As a person sees it, 0 to 1.
    shown: Array3<f32>,
    /// As the network takes it.
    x: Array3<f32>,
    class: usize,
    predicted: usize,
    label: Option<usize>,
    caption: String,
}

fn class_name(model: &ModelFile, class: usize) -> String {
    model.class_names.get(class).map_or_else(|| class.to_string(), Clone::clone)
}

/// A class by name or number.
fn find_class(asked: &str, model: &ModelFile) -> Result<usize, CliError> {
    let by_name = model.class_names.iter().position(|name| name == asked);
    let class = by_name.or_else(|| asked.parse().ok().filter(|&n: &usize| n < model.network.classes()));
    Ok(class.ok_or_else(|| ExplainError::UnknownClass { class: asked.into(), available: model.class_names.clone() })?)
}

/// Reads images; the class is the predicted one where none is asked for.
fn read_images(names: &[String], class: Option<&str>, model: &ModelFile) -> Result<Vec<Image>, CliError> {
    let asked = class.map(|asked| find_class(asked, model)).transpose()?;
    names
        .iter()
        .map(|name| {
            let sample = predict::read(name, model)?;
            let dim = {
                let s = model.preprocessing.shape;
                (s.channels, s.height, s.width)
            };
            let array = |values: Vec<f32>| {
                Array3::from_shape_vec(dim, values).map_err(|_| CliError::Sample {
                    name: name.clone(),
                    problem: format!("the image does not have the size {}", model.preprocessing.shape),
                })
            };
            let x = array(model.preprocessing.apply(&sample.pixels))?;
            let shown = array(sample.pixels.iter().map(|&p| f32::from(p) / 255.0).collect())?;
            let logits = model.network.predict(x.view().insert_axis(Axis(0)))?;
            let predicted =
                (0..logits.ncols()).fold(0, |best, c| if logits[[0, c]] > logits[[0, best]] { c } else { best });
            let class = asked.unwrap_or(predicted);
            let label = sample.label.map_or(String::new(), |label| format!(", labelled {}", class_name(model, label)));
            let caption = format!("{name}: predicted {}{label}", class_name(model, predicted));
            Ok(Image { name: name.clone(), shown, x, class, predicted, label: sample.label, caption })
        })
        .collect()
}

fn title(model: &ModelFile, what: &str) -> String {
    format!("{what} of {}", model.network.description().name)
}

fn band(heading: &str, tiles: Vec<Tile>) -> Band {
    Band { heading: heading.into(), tiles }
}

fn own_scale() -> Legend {
    Legend::new(Palette::Signed, "- largest", "+ largest, of each picture on its own")
}
