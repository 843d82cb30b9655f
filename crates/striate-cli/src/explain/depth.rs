//! `depth`: what makes the units of each layer answer most, among images and as an image made for it.

use super::{DataArgs, Drawn, Out, band, maximize, spread_to_the_last};
use crate::error::CliError;
use crate::output::{Output, thousands, to_json};
use crate::pictures;
use crate::progress::Bar;
use clap::Args;
use image::RgbImage;
use serde_json::json;
use std::ops::Range;
use striate::data::Dataset;
use striate::draw::sheet::{self, Sheet, Tile};
use striate::explain::depth::Activation;
use striate::explain::{self, Aim, Images, LayerPatches, MaximizeOptions, Unit};
use striate::formats::ModelFile;

const EXAMPLES: &str = "Examples:
  striate explain runs/simple-convnet-mnist-1 depth
  striate explain runs/simple-convnet-mnist-1 depth --layer Relu1 --units 0,7,19 --top 8
  striate explain runs/photos-resnet18 depth --layer Conv1 --layer Layer4b.Conv2 --images 2000";

/// Layers that are drawn where none is named, units where none are, and classes of the last layer.
const LAYERS: usize = 6;
const UNITS: usize = 6;
const CLASSES: usize = 10;
/// Patches of fewer pixels across are small.
const SMALL: usize = 16;
/// Side of a tile.
const SIDE: u32 = 76;

#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct DepthArgs {
    #[command(flatten)]
    data: DataArgs,
    /// A layer to look into; may be given several times [default: up to 6 activations, from the first to the last]
    #[arg(long = "layer", value_name = "NAME")]
    layers: Vec<String>,
    /// Which units of the layers, by number [default: 6 spread over each layer]
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    units: Vec<usize>,
    /// Images for each unit
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=20))]
    top: u8,
    #[command(flatten)]
    pub(super) out: Out,
}

pub(super) fn draw(args: &DepthArgs, model: &ModelFile, output: &Output) -> Result<Drawn, CliError> {
    let network = &model.network;
    let (layers, left_out) = layers(args, model)?;
    let data = args.data.load(model, output)?.train;
    let last = network.description().last();
    let units: Vec<Vec<usize>> = layers
        .iter()
        .map(|layer| match args.units.as_slice() {
            [] if layer.layer == last => spread(CLASSES, layer.units),
            [] => spread(UNITS, layer.units),
            asked => asked.to_vec(),
        })
        .collect();
    let asked: Vec<(&str, &[usize])> =
        layers.iter().zip(&units).map(|(layer, units)| (layer.layer.as_str(), units.as_slice())).collect();
    let images = Images::new(&data, &model.preprocessing.normalization).at_most(args.data.images as usize);
    let found = {
        let bar = Bar::new("looking at images", output.is_quiet());
        explain::top_patches(network, &asked, &images.progress(&|done, all| bar.show(done, all)), args.top.into())?
    };
    let range = maximize::range(model);
    let bar = Bar::new("climbing, layer", output.is_quiet());
    let mut bands = Vec::new();
    let mut results = Vec::new();
    for (done, (layer, LayerPatches { field, middle, units, .. })) in layers.iter().zip(&found).enumerate() {
        let numbers: Vec<usize> = units.iter().map(|unit| unit.unit).collect();
        // A small patch would be smeared by moving it.
        let jitter = if field.size.0.min(field.size.1) < SMALL { 0 } else { MaximizeOptions::default().jitter };
        let options = MaximizeOptions { aim: Aim::Middle, jitter, ..MaximizeOptions::default() };
        let made = explain::maximize(network, &layer.linear, &numbers, &range, &options)?;
        bar.show(done + 1, layers.len());
        let (height, width) = field.size;
        let input = network.input();
        let whole = height >= input.height && width >= input.width;
        let sees = if whole { "the whole image".into() } else { format!("{height} x {width} pixels") };
        bands.push(band(&format!("{}: a unit sees {sees}", layer.layer), Vec::new()));
        let mut results_of_units = Vec::new();
        for (unit, made) in units.iter().zip(&made) {
            let name = if layer.layer == last { model.class_name(unit.unit) } else { format!("unit {}", unit.unit) };
            let made_picture = cropped(&maximize::picture(made, &range), &middle.0, &middle.1);
            let mut shown = vec![Tile::new(made_picture, name)];
            shown.extend(tiles(unit, &data, whole));
            bands.push(band("", shown));
            let patches = unit.patches.iter().map(|patch| {
                json!({
                    "image": patch.image, "class": data.class_names()[data.labels()[patch.image]],
                    "activation": to_json(&patch.activation),
                    "rows": [patch.rows.start, patch.rows.end], "columns": [patch.columns.start, patch.columns.end],
                })
            });
            results_of_units.push(json!({
                "unit": unit.unit, "patches": patches.collect::<Vec<_>>(),
                "made_from": to_json(&made.before), "made": to_json(&made.after),
            }));
        }
        results.push(json!({
            "layer": layer.layer, "receptive_field": [height, width], "units": results_of_units,
        }));
    }
    let mut notes = vec![format!(
        "Left: an image made for the unit, out of faint noise, by climbing the gradient of its output before the \
             nonlinearity, smoothed at each step. Then the images among {} of the {} of {} that it answers to most, one place \
             an image: the patch that it sees with its output there, and the patch framed in its image.",
        thousands(images.len()),
        thousands(data.len()),
        data.name()
    )];
    if left_out > 0 {
        notes.push(format!("{left_out} more layers are left out; --layer NAME shows them."));
    }
    let title = format!("What the layers of {} answer to", network.description().name);
    let sheet = Sheet { title, bands, side: SIDE, notes, ..Sheet::default() };
    let words = format!("{} layers, {} images", layers.len(), thousands(images.len()));
    Ok((sheet.draw(), words, json!({ "images": images.len(), "data": data.name(), "layers": results })))
}

/// The layers to draw, and how many are left out.
fn layers(args: &DepthArgs, model: &ModelFile) -> Result<(Vec<Activation>, usize), CliError> {
    let all = explain::activations(&model.network)?;
    if args.layers.is_empty() {
        let shown: Vec<Activation> = spread_to_the_last(LAYERS, all.len()).map(|at| all[at].clone()).collect();
        let left_out = all.len() - shown.len();
        return Ok((shown, left_out));
    }
    let named = |name: &String| {
        let known = all.iter().find(|activation| activation.layer == *name);
        match known {
            Some(known) => Ok(known.clone()),
            None => Ok(Activation {
                layer: name.clone(),
                linear: name.clone(),
                units: explain::units(&model.network, name)?,
            }),
        }
    };
    let shown: Result<Vec<Activation>, CliError> = args.layers.iter().map(named).collect();
    Ok((shown?, 0))
}

/// The patches that a unit answers to and the images they are from.
fn tiles(unit: &Unit, data: &Dataset, whole: bool) -> Vec<Tile> {
    let mut tiles = Vec::new();
    let silent = unit.patches.iter().all(|patch| patch.activation == 0.0);
    for patch in &unit.patches {
        let picture = pictures::image(data, patch.image);
        let (rows, columns) = (&patch.rows, &patch.columns);
        let class = &data.class_names()[data.labels()[patch.image]];
        let answer = if silent { "silent".into() } else { format!("{:.2}", patch.activation) };
        if whole {
            tiles.push(Tile::new(picture, format!("{answer} ({class})")));
            continue;
        }
        tiles.push(Tile::new(cropped(&picture, rows, columns), answer));
        tiles.push(Tile::new(sheet::framed(&picture, rows.clone(), columns.clone(), SIDE), class.as_str()));
    }
    tiles
}

fn cropped(picture: &RgbImage, rows: &Range<usize>, columns: &Range<usize>) -> RgbImage {
    let [x, y, width, height] = [columns.start, rows.start, columns.len(), rows.len()].map(|pixels| pixels as u32);
    image::imageops::crop_imm(picture, x, y, width, height).to_image()
}

/// At most `count` numbers below `all`, evenly spread.
fn spread(count: usize, all: usize) -> Vec<usize> {
    let count = count.min(all);
    (0..count).map(|i| i * all / count).collect()
}
