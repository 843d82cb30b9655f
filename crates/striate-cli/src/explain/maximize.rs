//! `maximize`: images that a layer's units answer to most.

use super::{Drawn, Out, band, title};
use crate::error::CliError;
use clap::Args;
use image::RgbImage;
use ndarray::Axis;
use striate::draw::sheet::{self, Sheet, Tile};
use striate::explain::{self, MaximizeOptions, Maximized};
use striate::formats::ModelFile;

const EXAMPLES: &str = "Examples:
  striate explain runs/simple-convnet-mnist-1 maximize
  striate explain runs/simple-convnet-mnist-1 maximize --layer Conv1";

#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct MaximizeArgs {
    /// The layer whose units are drawn [default: the last]
    #[arg(long, value_name = "NAME")]
    layer: Option<String>,
    #[command(flatten)]
    pub(super) out: Out,
}

pub(super) fn draw(args: &MaximizeArgs, model: &ModelFile) -> Result<Drawn, CliError> {
    /// Units drawn at most.
    const UNITS: usize = 32;
    let network = &model.network;
    let last = network.description().last();
    let layer = args.layer.as_deref().unwrap_or(last);
    let units: Vec<usize> = (0..explain::units(network, layer)?.min(UNITS)).collect();
    let range = range(model);
    let found = explain::maximize(network, layer, &units, &range, &MaximizeOptions::default())?;
    let tiles = found.iter().map(|m| {
        let name = if layer == last { model.class_name(m.unit) } else { m.unit.to_string() };
        Tile::new(picture(m, &range), format!("{name}: {:.2}", m.after))
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

/// What black and white are in the network's own scale, a pair a channel.
pub(super) fn range(model: &ModelFile) -> Vec<(f32, f32)> {
    let scale = &model.preprocessing.normalization;
    let of = |list: &[f32], c: usize| list.get(c).or(list.last()).copied().unwrap_or(0.0);
    let pair = |c| {
        let (mean, deviation) = (of(&scale.mean, c), of(&scale.deviation, c));
        (-mean / deviation, (1.0 - mean) / deviation)
    };
    (0..model.network.input().channels).map(pair).collect()
}

/// An image in the network's own scale as a picture.
pub(super) fn picture(found: &Maximized, range: &[(f32, f32)]) -> RgbImage {
    let mut image = found.image.clone();
    for (mut plane, &(low, high)) in image.axis_iter_mut(Axis(0)).zip(range) {
        plane.mapv_inplace(|v| (v - low) / (high - low));
    }
    sheet::picture(image.view())
}
