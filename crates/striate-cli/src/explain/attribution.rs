//! What the views of one image and one class share.

use super::{Image, class_name, read_images};
use crate::error::CliError;
use clap::Args;
use image::RgbImage;
use ndarray::{ArrayView3, Axis};
use serde_json::Value;
use striate::draw::sheet::{self, Band, Tile};
use striate::formats::ModelFile;

#[derive(Args, Clone, Debug)]
pub(super) struct ImageArgs {
    /// PNG or JPEG files, `-` for stdin, or `mnist:test:42`
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
    /// The class whose score is explained, by name or number [default: the predicted one]
    #[arg(long, value_name = "NAME")]
    class: Option<String>,
}

/// A band for each image: itself, and the tiles that `explain` makes of it and adds its numbers to the JSON of.
pub(super) fn bands(
    args: &ImageArgs,
    model: &ModelFile,
    mut explain: impl FnMut(&Image, &RgbImage, &mut Value) -> Result<Vec<Tile>, CliError>,
) -> Result<(Vec<Band>, Value), CliError> {
    let mut bands = Vec::new();
    let mut results = Vec::new();
    for image in read_images(&args.images, args.class.as_deref(), model)? {
        let picture = sheet::picture(image.shown.view());
        let class = class_name(model, image.class);
        let mut json = serde_json::json!({ "image": image.name, "class": class });
        let mut tiles = vec![Tile::new(picture.clone(), "image")];
        tiles.extend(explain(&image, &picture, &mut json)?);
        bands.push(Band { heading: format!("{}; explained: {class}", image.caption), tiles });
        results.push(json);
    }
    Ok((bands, serde_json::json!({ "images": results })))
}

/// Below every sheet of scores.
pub(super) const SCORE: &str = "A score is the logit of the class.";

/// The sum over the channels, drawn.
pub(super) fn signed(values: ArrayView3<'_, f32>, caption: &str) -> Tile {
    Tile::new(sheet::signed(values.sum_axis(Axis(0)).view()).0, caption)
}
