//! `feature-maps`: every layer's output for an image.

use super::{Drawn, Out, band, own_scale, read_images, title};
use crate::error::CliError;
use clap::Args;
use ndarray::{Array2, Axis};
use striate::draw::sheet::{self, Sheet, Tile};
use striate::explain;
use striate::formats::ModelFile;

const EXAMPLES: &str = "Examples:
  striate explain runs/simple-convnet-mnist-1 feature-maps mnist:test:42
  striate explain model.safetensors feature-maps digit.png --out maps.png";

#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct FeatureMapsArgs {
    /// PNG or JPEG files, `-` for stdin, or `mnist:test:42`
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
    #[command(flatten)]
    pub(super) out: Out,
}

/// Maps drawn of a layer at most.
const MOST_MAPS: usize = 32;

pub(super) fn draw(args: &FeatureMapsArgs, model: &ModelFile) -> Result<Drawn, CliError> {
    let images = read_images(&args.images, None, model)?;
    let mut bands = Vec::new();
    let mut layers = 0;
    for image in &images {
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
