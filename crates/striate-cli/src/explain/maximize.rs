//! `maximize`: images that a layer's units answer to most.

use super::{Drawn, Out, band, class_name, title};
use crate::error::CliError;
use clap::Args;
use ndarray::Axis;
use striate::draw::sheet::{self, Sheet, Tile};
use striate::explain::{self, MaximizeOptions};
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
