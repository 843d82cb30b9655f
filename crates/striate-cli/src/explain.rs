//! `striate explain`

use crate::error::CliError;
use crate::output::{Output, bytes, table, thousands, to_json};
use crate::{model, predict};
use clap::{Args, ValueEnum};
use ndarray::{Array2, Array3, ArrayView3, Axis};
use std::path::PathBuf;
use std::process::ExitCode;
use striate::draw;
use striate::draw::sheet::{self, Band, Legend, Palette, Sheet, Tile};
use striate::explain::{self, CamRule, ExplainError, MaximizeOptions, OcclusionOptions, SmoothGrad, filters};
use striate::formats::{ModelFile, write_atomically};
use striate::layers::ReluRule;

const EXAMPLES: &str = "Examples:
  striate explain runs/simple-convnet-mnist-1 filters
  striate explain model.safetensors filters --layer W1 --out filters.png
  striate explain runs/simple-convnet-mnist-1 filters --apply mnist:test:0
  striate explain runs/simple-convnet-mnist-1 feature-maps mnist:test:42
  striate explain runs/simple-convnet-mnist-1 saliency mnist:test:42 digit.png --class 7
  striate explain runs/simple-convnet-mnist-1 grad-cam mnist:test:42
  striate explain runs/simple-convnet-mnist-1 maximize --layer Affine2
  striate explain runs/simple-convnet-mnist-1 im2col --json";

/// What to draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum View {
    /// The weights of a convolution as pictures; with --apply, what each filter makes of an image
    Filters,
    /// Every layer's output for an image, from the input to the classes
    FeatureMaps,
    /// Pixels that a score depends on: gradient, SmoothGrad, integrated gradients, guided backpropagation, deconvnet
    Saliency,
    /// Where a layer finds the class: Grad-CAM and LayerCAM
    GradCam,
    /// What the score loses where a square covers the image
    Occlusion,
    /// Images that a layer's units answer to most
    Maximize,
    /// What im2col would cost each convolution, and what runs instead (no picture)
    Im2col,
}

/// Pictures of what a model sees
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ExplainArgs {
    /// A model file or a run directory
    model: PathBuf,
    /// What to draw
    #[arg(value_enum)]
    view: View,
    /// PNG or JPEG files, `-` for stdin, or `mnist:test:42`
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,
    /// The layer to look into; for filters the parameter (W1) [default: the first convolution for filters, else the last]
    #[arg(long, value_name = "NAME")]
    layer: Option<String>,
    /// The class whose score is explained, by name or number [default: the predicted one]
    #[arg(long, value_name = "NAME")]
    class: Option<String>,
    /// For filters: an image whose responses are shown, sorted by direction
    #[arg(long, value_name = "IMAGE")]
    apply: Option<String>,
    /// For filters: the model before training, to stand beside
    #[arg(long, value_name = "FILE")]
    before: Option<PathBuf>,
    /// Where to write [default: VIEW.png in the run directory, or here]
    #[arg(long, value_name = "FILE.png")]
    out: Option<PathBuf>,
}

/// Draws the view.
pub(crate) fn run(args: &ExplainArgs, output: &Output) -> Result<ExitCode, CliError> {
    let name = args.view.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
    let wants_images = matches!(args.view, View::FeatureMaps | View::Saliency | View::GradCam | View::Occlusion);
    if wants_images && args.images.is_empty() {
        return Err(CliError::Usage(format!("explain {name} needs an IMAGE: a file, `-` or mnist:test:42")));
    }
    let model = model::load(&args.model)?;
    if args.view == View::Im2col {
        return im2col(&model, output);
    }
    let images = if wants_images { read_images(args, &model)? } else { Vec::new() };
    let (picture, words, mut json) = match args.view {
        View::Filters => draw_filters(args, &model)?,
        View::FeatureMaps => feature_maps(&model, &images)?,
        View::Maximize => maximize(args, &model)?,
        _ => attributions(args, &model, &images)?,
    };
    let file = args.out.clone().unwrap_or_else(|| {
        let name = format!("{name}.png");
        if args.model.is_dir() { args.model.join(name) } else { name.into() }
    });
    write_atomically(&file, &draw::png(&picture)?)?;
    output.line(format!("{}: {words}", file.display()));
    json["view"] = name.into();
    json["file"] = file.display().to_string().into();
    output.json(&json);
    Ok(ExitCode::SUCCESS)
}

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

type Drawn = (image::RgbImage, String, serde_json::Value);

fn class_name(model: &ModelFile, class: usize) -> String {
    model.class_names.get(class).map_or_else(|| class.to_string(), Clone::clone)
}

fn read_images(args: &ExplainArgs, model: &ModelFile) -> Result<Vec<Image>, CliError> {
    let asked = args.class.as_ref().map(|asked| {
        let by_name = model.class_names.iter().position(|name| name == asked);
        let class = by_name.or_else(|| asked.parse().ok().filter(|&n: &usize| n < model.network.classes()));
        class.ok_or_else(|| ExplainError::UnknownClass { class: asked.clone(), available: model.class_names.clone() })
    });
    let asked = asked.transpose()?;
    args.images
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

fn draw_filters(args: &ExplainArgs, model: &ModelFile) -> Result<Drawn, CliError> {
    let layer = args.layer.as_deref();
    let filters = filters::filters(&model.network, layer)?;
    let count = filters.values.dim().0;
    let json = serde_json::json!({ "filters": count });
    let heading = title(model, &format!("Filters {}", filters.name));
    if let Some(name) = &args.apply {
        let sample = predict::read(name, model)?;
        let shape = model.preprocessing.shape;
        let dim = (shape.channels, shape.height, shape.width);
        let image = Array3::from_shape_vec(dim, model.preprocessing.apply(&sample.pixels)).unwrap_or_default();
        let found = explain::responses(&filters, image.view())?;
        let shown: Vec<f32> = sample.pixels.iter().map(|&p| f32::from(p) / 255.0).collect();
        let shown = Array3::from_shape_vec(dim, shown).unwrap_or_default();
        let mut bands = vec![band(name, vec![Tile::new(sheet::picture(shown.view()), "the image")])];
        for direction in ["horizontal", "rising", "vertical", "falling", "no direction"] {
            let tiles = found.responses.iter().filter(|r| r.orientation.name() == direction).map(|r| {
                let o = r.orientation;
                let caption = format!("filter {} {:.0} deg, {:.2}", r.filter, o.degrees, o.coherence);
                Tile::new(sheet::signed(r.map.view()).0, caption)
            });
            let tiles: Vec<Tile> = tiles.collect();
            if !tiles.is_empty() {
                bands.push(band(&format!("edges: {direction}"), tiles));
            }
        }
        let note = "Direction: the edges a filter answers to, across the main axis of its structure tensor; 0 degrees is \
                    horizontal. The second number is the coherence, 0 to 1: how much of its energy has that direction.";
        let sheet = Sheet {
            title: heading.replace("Filters", "Responses of filters"),
            bands,
            legends: vec![own_scale()],
            notes: vec![note.into()],
            ..Sheet::default()
        };
        return Ok((sheet.draw(), format!("responses of {count} filters"), json));
    }
    let picture = match &args.before {
        Some(before) => {
            let before = filters::filters(&model::load(before)?.network, layer)?;
            draw::before_and_after(before.values.view(), filters.values.view(), &heading)
        }
        None => draw::filters(filters.values.view(), &heading),
    };
    Ok((picture.image, format!("{count} filters"), json))
}

fn band(heading: &str, tiles: Vec<Tile>) -> Band {
    Band { heading: heading.into(), tiles }
}

fn own_scale() -> Legend {
    Legend::new(Palette::Signed, "- largest", "+ largest, of each picture on its own")
}

/// Maps drawn of a layer at most.
const MOST_MAPS: usize = 32;

fn feature_maps(model: &ModelFile, images: &[Image]) -> Result<Drawn, CliError> {
    let mut bands = Vec::new();
    let mut layers = 0;
    for image in images {
        let maps = explain::feature_maps(&model.network, image.x.view())?;
        layers = maps.len();
        bands.push(band(&image.caption, vec![Tile::new(sheet::picture(image.shown.view()), "")]));
        for map in maps.iter().skip(1) {
            let (channels, height, width) = map.values.dim();
            let left_out = if channels > MOST_MAPS && height * width > 1 {
                format!(", the first {MOST_MAPS}")
            } else {
                String::new()
            };
            let tiles = if height * width == 1 {
                // A vector as one strip of cells, at most 50 a row.
                let columns = channels.clamp(1, 50);
                let cell = |(y, x): (usize, usize)| {
                    if y * columns + x < channels { map.values[[y * columns + x, 0, 0]] } else { 0.0 }
                };
                let strip = Array2::from_shape_fn((channels.div_ceil(columns), columns), cell);
                vec![Tile { image: sheet::signed(strip.view()).0, caption: String::new(), side: Some(600) }]
            } else {
                let tile = |m: ndarray::ArrayView2<'_, f32>| Tile {
                    image: sheet::signed(m).0,
                    caption: String::new(),
                    side: Some(56),
                };
                map.values.axis_iter(Axis(0)).take(MOST_MAPS).map(tile).collect()
            };
            let size =
                if height * width == 1 { format!("{channels}") } else { format!("{channels} x {height} x {width}") };
            bands.push(band(&format!("{} ({}): {size}{left_out}", map.layer, map.kind), tiles));
        }
    }
    let sheet = Sheet { title: title(model, "Feature maps"), bands, legends: vec![own_scale()], ..Sheet::default() };
    Ok((sheet.draw(), format!("{layers} layers, {} images", images.len()), serde_json::json!({ "layers": layers })))
}

/// The sum over the channels, drawn.
fn signed(values: ArrayView3<'_, f32>, caption: &str) -> Tile {
    Tile::new(sheet::signed(values.sum_axis(Axis(0)).view()).0, caption)
}

fn attributions(args: &ExplainArgs, model: &ModelFile, images: &[Image]) -> Result<Drawn, CliError> {
    const STEPS: usize = 64;
    let (network, layer) = (&model.network, args.layer.as_deref());
    let mut bands = Vec::new();
    let mut results = Vec::new();
    let mut notes = vec!["A score is the logit of the class.".to_owned()];
    for image in images {
        let (x, class) = (image.x.view(), image.class);
        let picture = sheet::picture(image.shown.view());
        let mut tiles = vec![Tile::new(picture.clone(), "image")];
        let mut json = serde_json::json!({ "image": image.name, "class": class_name(model, class) });
        match args.view {
            View::Saliency => {
                let gradient = |rule| explain::gradient(network, x, class, rule);
                tiles.push(signed(gradient(ReluRule::Gradient)?.view(), "gradient"));
                tiles.push(signed(
                    explain::smooth_grad(network, x, class, &SmoothGrad::default())?.view(),
                    "SmoothGrad",
                ));
                let integrated =
                    explain::integrated_gradients(network, x, class, Array3::zeros(x.dim()).view(), STEPS)?;
                tiles.push(signed(integrated.values.view(), "integrated gradients"));
                tiles.push(signed(gradient(ReluRule::Guided)?.view(), "guided"));
                tiles.push(signed(gradient(ReluRule::Deconvolution)?.view(), "deconvnet"));
                notes.push(format!(
                    "{}: integrated gradients from 0 in {STEPS} steps miss the score's change {:.4} by {:.5}.",
                    image.name,
                    integrated.score - integrated.baseline_score,
                    integrated.error
                ));
                json["score"] = to_json(&integrated.score);
                json["baseline_score"] = to_json(&integrated.baseline_score);
                json["completeness_error"] = to_json(&integrated.error);
            }
            View::GradCam => {
                for (rule, name) in [(CamRule::GradCam, "Grad-CAM"), (CamRule::LayerCam, "LayerCAM")] {
                    let cam = explain::cam(network, x, class, layer, rule)?;
                    tiles.push(Tile::new(sheet::overlay(&picture, cam.heat.view()), format!("{name} {}", cam.layer)));
                    json["layer"] = cam.layer.into();
                }
            }
            _ => {
                let side = network.input().height.min(network.input().width);
                let options = OcclusionOptions { window: (side / 6).max(1), stride: (side / 16).max(1), value: 0.0 };
                let found = explain::occlusion(network, x, class, &options)?;
                let (drawn, reach) = sheet::signed(found.drop.view());
                tiles.push(Tile::new(drawn, format!("drop up to {reach:.2}")));
                json["score"] = to_json(&found.score);
                json["largest_change"] = to_json(&reach);
                let note =
                    format!("A square of {0} x {0} pixels covers with 0; red where the score falls.", options.window);
                if !notes.contains(&note) {
                    notes.push(note);
                }
            }
        }
        bands.push(band(&format!("{}; explained: {}", image.caption, class_name(model, class)), tiles));
        results.push(json);
    }
    let (what, legend) = match args.view {
        View::Saliency => ("Saliency", own_scale()),
        View::GradCam => ("Class activation maps", Legend::new(Palette::Heat, "0", "the largest")),
        _ => ("Occlusion", own_scale()),
    };
    let sheet = Sheet { title: title(model, what), bands, side: 140, legends: vec![legend], notes };
    Ok((sheet.draw(), format!("{} images", images.len()), serde_json::json!({ "images": results })))
}

fn maximize(args: &ExplainArgs, model: &ModelFile) -> Result<Drawn, CliError> {
    /// Units drawn at most.
    const UNITS: usize = 32;
    let network = &model.network;
    let layer = args.layer.clone().unwrap_or_else(|| network.description().last().to_owned());
    let shapes = network.description().shapes()?;
    let at = network.description().layers.iter().position(|named| named.name == layer);
    let units: Vec<usize> = (0..at.map_or(1, |at| shapes[at].channels.min(UNITS))).collect();
    let scale = &model.preprocessing.normalization;
    let range: Vec<(f32, f32)> = (0..network.input().channels)
        .map(|c| {
            let of = |list: &[f32]| list.get(c).or(list.last()).copied().unwrap_or(0.0);
            let (mean, deviation) = (of(&scale.mean), of(&scale.deviation));
            (-mean / deviation, (1.0 - mean) / deviation)
        })
        .collect();
    let found = explain::maximize(network, &layer, &units, &range, &MaximizeOptions::default())?;
    let is_output = at == Some(shapes.len() - 1);
    let tiles = found.iter().map(|m| {
        let mut image = m.image.clone();
        for (mut plane, &(low, high)) in image.axis_iter_mut(Axis(0)).zip(&range) {
            plane.mapv_inplace(|v| (v - low) / (high - low));
        }
        let name = if is_output { class_name(model, m.unit) } else { m.unit.to_string() };
        Tile::new(sheet::picture(image.view()), format!("{name}: {:.2}", m.after))
    });
    let note = "Each picture began as faint noise and climbed the gradient of the unit's mean output (the number) for 128 \
                steps, moved, smoothed and drawn to gray a little at each.";
    let sheet = Sheet {
        title: title(model, &format!("What the units of {layer} answer to")),
        bands: vec![band("", tiles.collect())],
        notes: vec![note.into()],
        ..Sheet::default()
    };
    let json = serde_json::json!({ "layer": layer, "units": found.len() });
    Ok((sheet.draw(), format!("{} units of {layer}", found.len()), json))
}

/// The table; there is nothing to draw.
fn im2col(model: &ModelFile, output: &Output) -> Result<ExitCode, CliError> {
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
    output.line(format!("What im2col would unroll for a batch of {BATCH}, and the workspace that runs here instead"));
    table(&rows, &[0, 7]).iter().for_each(|line| output.line(line));
    output.json(&serde_json::json!({ "view": "im2col", "batch": BATCH, "layers": costs }));
    Ok(ExitCode::SUCCESS)
}
