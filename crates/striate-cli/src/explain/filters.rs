//! `filters`: the weights of a convolution as pictures, and what each filter makes of an image.

use super::{Drawn, Out, band, own_scale, title};
use crate::error::CliError;
use crate::{model, predict};
use clap::Args;
use ndarray::Array3;
use std::path::PathBuf;
use striate::draw;
use striate::draw::sheet::{self, Sheet, Tile};
use striate::explain::{self, filters};
use striate::formats::ModelFile;

const EXAMPLES: &str = "Examples:
  striate explain model.safetensors filters --layer Conv1 --out filters.png
  striate explain runs/simple-convnet-mnist-1 filters --apply photograph.jpg
  striate explain runs/simple-convnet-mnist-1 filters --apply mnist:test:0";

#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct FiltersArgs {
    /// The convolution whose filters are drawn, or its weights: Conv1 or W1 [default: the first convolution]
    #[arg(long, value_name = "NAME")]
    layer: Option<String>,
    /// An image of any size whose responses are shown, sorted by direction: a PNG or JPEG file, `-` for stdin, or
    /// `mnist:test:42`
    #[arg(long, value_name = "IMAGE")]
    apply: Option<String>,
    /// The model before training, to stand beside
    #[arg(long, value_name = "FILE", conflicts_with = "apply")]
    before: Option<PathBuf>,
    #[command(flatten)]
    pub(super) out: Out,
}

/// The longer side of an image that filters are applied to, at most.
const MOST_SIDE: usize = 512;

pub(super) fn draw(args: &FiltersArgs, model: &ModelFile) -> Result<Drawn, CliError> {
    let layer = args.layer.as_deref();
    let filters = filters::filters(&model.network, layer)?;
    let count = filters.values.dim().0;
    let json = serde_json::json!({ "filters": count });
    let heading = title(model, &format!("Filters {}", filters.name));
    if let Some(name) = &args.apply {
        let (whole, sample) = predict::read_whole(name, model, MOST_SIDE)?;
        let dim = (whole.shape.channels, whole.shape.height, whole.shape.width);
        let image = Array3::from_shape_vec(dim, whole.apply(&sample.pixels)).unwrap_or_default();
        let found = explain::responses_in(&model.network, layer, image.view())?;
        let shown: Vec<f32> = sample.pixels.iter().map(|&p| f32::from(p) / 255.0).collect();
        let shown = Array3::from_shape_vec(dim, shown).unwrap_or_default();
        let caption = format!("the image, {} x {}", whole.shape.width, whole.shape.height);
        let mut bands = vec![band(name, vec![Tile::new(sheet::picture(shown.view()), caption)])];
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
            // Photographs have more to show than digits.
            side: if dim.1.max(dim.2) > 64 { 210 } else { 112 },
            legends: vec![own_scale()],
            notes: vec![note.into()],
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
