//! `striate explain`: one file a view; here is what they share.

mod all;
mod attribution;
mod feature_maps;
mod filters;
mod grad_cam;
mod im2col;
mod maximize;
mod occlusion;
mod saliency;
mod timeline;

use crate::error::CliError;
use crate::output::Output;
use crate::{model, predict};
use clap::{Args, Subcommand};
use ndarray::{Array3, Axis};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use striate::draw;
use striate::draw::sheet::{Band, Legend, Palette, Tile};
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

/// Makes the view and writes its pictures.
pub(crate) fn run(args: &ExplainArgs, output: &Output) -> Result<ExitCode, CliError> {
    if let View::Unknown(words) = &args.view {
        return Err(unknown(words.first().map_or("", String::as_str)));
    }
    let model = model::load(&args.model)?;
    if let View::All(view) = &args.view {
        return all::run(view, &args.model, &model, output);
    }
    let (name, out, made) = make(&args.view, &model, &args.model)?;
    let Made { pictures, words, lines, mut json } = made;
    json["view"] = name.into();
    let mut files = Vec::new();
    for (suffix, png) in &pictures {
        let file = out.map_or_else(PathBuf::new, |out| out.file(&args.model, name));
        let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let file = if suffix.is_empty() { file } else { file.with_file_name(format!("{stem}{suffix}.png")) };
        write_atomically(&file, png)?;
        let key = if suffix.is_empty() { "file" } else { suffix.trim_start_matches('-') };
        json[key] = file.display().to_string().into();
        files.push(file.display().to_string());
    }
    output.line(if files.is_empty() { words } else { format!("{}: {words}", files.join(", ")) });
    lines.iter().for_each(|line| output.line(line));
    output.json(&json);
    Ok(ExitCode::SUCCESS)
}

/// What became of a view.
struct Made {
    /// PNG files, each with what its name ends in.
    pictures: Vec<(&'static str, Vec<u8>)>,
    /// About them.
    words: String,
    /// What is no picture.
    lines: Vec<String>,
    /// For programs.
    json: serde_json::Value,
}

/// Makes a view; also gives its name and where it is to be written, if it is drawn.
fn make<'v>(view: &'v View, model: &ModelFile, path: &Path) -> Result<(&'static str, Option<&'v Out>, Made), CliError> {
    let (name, out, (picture, words, json)) = match view {
        View::Filters(view) => ("filters", &view.out, filters::draw(view, model)?),
        View::FeatureMaps(view) => ("feature-maps", &view.out, feature_maps::draw(view, model)?),
        View::Saliency(view) => ("saliency", &view.out, saliency::draw(view, model)?),
        View::GradCam(view) => ("grad-cam", &view.out, grad_cam::draw(view, model)?),
        View::Occlusion(view) => ("occlusion", &view.out, occlusion::draw(view, model)?),
        View::Maximize(view) => ("maximize", &view.out, maximize::draw(view, model)?),
        View::Timeline(view) => return Ok(("timeline", Some(&view.out), timeline::make(view, path)?)),
        View::Im2col(_) => return Ok(("im2col", None, im2col::make(model)?)),
        View::All(_) => return Err(unknown("all within all")),
        View::Unknown(words) => return Err(unknown(words.first().map_or("", String::as_str))),
    };
    Ok((name, Some(out), Made { pictures: vec![("", draw::png(&picture)?)], words, lines: Vec::new(), json }))
}

fn unknown(view: &str) -> CliError {
    let views = View::augment_subcommands(clap::Command::new("explain"));
    let names: Vec<&str> = views.get_subcommands().map(clap::Command::get_name).collect();
    CliError::Usage(format!("there is no view {view:?}; the views are {}", names.join(", ")))
}

impl Out {
    fn file(&self, model: &Path, view: &str) -> PathBuf {
        self.out.clone().unwrap_or_else(|| {
            let name = format!("{view}.png");
            if model.is_dir() { model.join(name) } else { name.into() }
        })
    }
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
    caption: String,
}

fn class_name(model: &ModelFile, class: usize) -> String {
    model.class_names.get(class).map_or_else(|| class.to_string(), Clone::clone)
}

/// Reads images; the class is the predicted one where none is asked for.
fn read_images(names: &[String], class: Option<&str>, model: &ModelFile) -> Result<Vec<Image>, CliError> {
    let asked = class.map(|asked| {
        let by_name = model.class_names.iter().position(|name| name == asked);
        let class = by_name.or_else(|| asked.parse().ok().filter(|&n: &usize| n < model.network.classes()));
        class.ok_or_else(|| ExplainError::UnknownClass { class: asked.into(), available: model.class_names.clone() })
    });
    let asked = asked.transpose()?;
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
            Ok(Image { name: name.clone(), shown, x, class, caption })
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
