//! `striate explain`: one file a view; here is what they share.

mod all;
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
mod timeline;

use crate::error::CliError;
use crate::output::Output;
use crate::source::ReadingArgs;
use crate::{model, predict, source};
use clap::{Args, Subcommand};
use ndarray::{Array3, Axis};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use striate::data::Splits;
use striate::draw::sheet::{Band, Legend, Palette, Tile};
use striate::draw::{self, Plot};
use striate::explain::ExplainError;
use striate::formats::{ModelFile, write_atomically};
use striate::layers::predicted_class;

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
  striate explain runs/simple-convnet-mnist-1 timeline mnist:test:42
  striate explain runs/simple-convnet-mnist-1 im2col --json
  striate explain runs/simple-convnet-mnist-1 all mnist:test:42

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
    /// How filters, and what they make of an image, came about in a run with `train --snapshots` (an animation)
    Timeline(timeline::TimelineArgs),
    /// What im2col would cost each convolution, and what runs instead (no picture)
    Im2col(im2col::Im2colArgs),
    /// Every view of an image, and a page with all of them: explain.html
    All(all::AllArgs),
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

impl PlotOut {
    fn is_svg(&self) -> bool {
        self.out.as_deref().is_some_and(|out| ends_in(out, "svg"))
    }
}

impl DataArgs {
    fn load(&self, model: &ModelFile, output: &Output) -> Result<Splits, CliError> {
        Ok(source::for_model(self.data.as_deref(), &ReadingArgs::default(), model, output)?.splits)
    }
}

/// Makes the view and writes its pictures.
pub(crate) fn run(args: &ExplainArgs, output: &Output) -> Result<ExitCode, CliError> {
    if let View::Unknown(words) = &args.view {
        return Err(unknown(words.first().map_or("", String::as_str)));
    }
    let (name, out, endings) = args.view.target();
    // Before any work.
    let target = destination(out, endings, &args.model, name)?;
    let model = model::load(&args.model)?;
    if let View::All(view) = &args.view {
        return all::run(view, &args.model, &model, output);
    }
    let made = make(&args.view, &model, &args.model, output)?;
    let (files, json) = made.write(&target, name)?;
    let Made { words, lines, .. } = made;
    output.line(if files.is_empty() { words } else { format!("{}: {words}", files.join(", ")) });
    lines.iter().for_each(|line| output.line(line));
    output.json(&json);
    Ok(ExitCode::SUCCESS)
}

/// What became of a view.
struct Made {
    /// Files, each with what its name ends in before `.png`.
    pictures: Vec<(&'static str, Vec<u8>)>,
    /// About them.
    words: String,
    /// What is no picture.
    lines: Vec<String>,
    /// For programs.
    json: serde_json::Value,
}

impl Made {
    /// Writes the pictures: the first to `target`, others beside it. Gives the files, and the result for programs with them.
    fn write(&self, target: &Path, view: &str) -> Result<(Vec<String>, serde_json::Value), CliError> {
        let mut json = self.json.clone();
        json["view"] = view.into();
        let mut files = Vec::new();
        for (suffix, bytes) in &self.pictures {
            let stem = target.file_stem().unwrap_or_default().to_string_lossy();
            let file = match *suffix {
                "" => target.to_owned(),
                suffix => target.with_file_name(format!("{stem}{suffix}.png")),
            };
            write_atomically(&file, bytes)?;
            let key = if suffix.is_empty() { "file" } else { suffix.trim_start_matches('-') };
            files.push(file.display().to_string());
            json[key] = files.last().cloned().into();
        }
        Ok((files, json))
    }

    fn plot(
        plot: &dyn Plot,
        out: &PlotOut,
        words: String,
        lines: Vec<String>,
        json: serde_json::Value,
    ) -> Result<Self, CliError> {
        let bytes = if out.is_svg() { plot.svg().into_bytes() } else { draw::png(&plot.image())? };
        Ok(Self { pictures: vec![("", bytes)], words, lines, json })
    }
}

impl View {
    /// The view's name, where it is to be written, and what names of files it is written to end in.
    fn target(&self) -> (&'static str, Option<&Path>, &'static [&'static str]) {
        const SHEET: &[&str] = &["png"];
        const PLOT: &[&str] = &["png", "svg"];
        let (name, out, endings) = match self {
            View::Filters(view) => ("filters", &view.out.out, SHEET),
            View::FeatureMaps(view) => ("feature-maps", &view.out.out, SHEET),
            View::Saliency(view) => ("saliency", &view.out.out, SHEET),
            View::GradCam(view) => ("grad-cam", &view.out.out, SHEET),
            View::Occlusion(view) => ("occlusion", &view.out.out, SHEET),
            View::Maximize(view) => ("maximize", &view.out.out, SHEET),
            View::Depth(view) => ("depth", &view.out.out, SHEET),
            View::Similar(view) => ("similar", &view.out.out, SHEET),
            View::Embedding(view) => ("embedding", &view.out.out, PLOT),
            View::Shift(view) => ("shift", &view.out.out, PLOT),
            View::Timeline(view) => ("timeline", &view.out.out, SHEET),
            View::Im2col(_) => ("im2col", &None, SHEET),
            View::All(_) => ("all", &None, SHEET),
            View::Unknown(_) => ("", &None, SHEET),
        };
        (name, out.as_deref(), endings)
    }
}

/// Makes a view of the model at `path`.
fn make(view: &View, model: &ModelFile, path: &Path, output: &Output) -> Result<Made, CliError> {
    let (picture, words, json) = match view {
        View::Filters(view) => filters::draw(view, model)?,
        View::FeatureMaps(view) => feature_maps::draw(view, model)?,
        View::Saliency(view) => saliency::draw(view, model)?,
        View::GradCam(view) => grad_cam::draw(view, model)?,
        View::Occlusion(view) => occlusion::draw(view, model)?,
        View::Maximize(view) => maximize::draw(view, model)?,
        View::Depth(view) => depth::draw(view, model, output)?,
        View::Similar(view) => similar::draw(view, model, output)?,
        View::Embedding(view) => return embedding::make(view, model, output),
        View::Shift(view) => return shift::make(view, path, model, output),
        View::Timeline(view) => return timeline::make(view, path),
        View::Im2col(_) => return im2col::make(model),
        View::All(_) => return Err(unknown("all within all")),
        View::Unknown(words) => return Err(unknown(words.first().map_or("", String::as_str))),
    };
    Ok(Made { pictures: vec![("", draw::png(&picture)?)], words, lines: Vec::new(), json })
}

fn unknown(view: &str) -> CliError {
    let views = View::augment_subcommands(clap::Command::new("explain"));
    let names: Vec<&str> = views.get_subcommands().map(clap::Command::get_name).collect();
    CliError::Usage(format!("there is no view {view:?}; the views are {}", names.join(", ")))
}

/// The file to write.
fn destination(out: Option<&Path>, endings: &[&str], model: &Path, view: &str) -> Result<PathBuf, CliError> {
    let Some(out) = out else {
        let name = format!("{view}.png");
        return Ok(if model.is_dir() { model.join(name) } else { name.into() });
    };
    if !endings.iter().any(|ending| ends_in(out, ending)) {
        let endings = endings.iter().map(|ending| format!(".{ending}")).collect::<Vec<_>>().join(" or ");
        let out = out.display();
        return Err(CliError::Usage(format!("--out {out}: {view} is written as {endings}; end the name in that")));
    }
    match out.parent().filter(|parent| !parent.as_os_str().is_empty() && !parent.is_dir()) {
        Some(parent) => {
            let (out, parent) = (out.display(), parent.display());
            Err(CliError::Usage(format!("--out {out}: there is no directory {parent}; make it first")))
        }
        None => Ok(out.to_owned()),
    }
}

fn ends_in(file: &Path, ending: &str) -> bool {
    file.extension().is_some_and(|found| found.eq_ignore_ascii_case(ending))
}

/// A picture, words about it, and the result for programs.
type Drawn = (image::RgbImage, String, serde_json::Value);

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
            let predicted = predicted_class(&logits.row(0).to_vec());
            let class = asked.unwrap_or(predicted);
            let label = sample.label.map_or(String::new(), |label| format!(", labelled {}", model.class_name(label)));
            let caption = format!("{name}: predicted {}{label}", model.class_name(predicted));
            Ok(Image { name: name.clone(), shown, x, class, predicted, label: sample.label, caption })
        })
        .collect()
}

/// At most `count` numbers below `all`, evenly spread, the last among them, and with others the first.
fn spread_to_the_last(count: usize, all: usize) -> impl Iterator<Item = usize> {
    let count = count.min(all);
    (0..count).map(move |i| if count == 1 { all - 1 } else { i * (all - 1) / (count - 1) })
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
