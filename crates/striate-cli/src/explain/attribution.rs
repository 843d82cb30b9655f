//! What the views of one image and one class share.

use super::{Image, own_scale, read_images};
use crate::error::CliError;
use clap::Args;
use image::RgbImage;
use ndarray::{ArrayView3, Axis};
use serde_json::Value;
use striate::draw::sheet::{self, Band, Legend, Palette, Tile};
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

impl ImageArgs {
    /// How many images there are, in words.
    pub(super) fn count(&self) -> String {
        if self.images.len() == 1 { "1 image".into() } else { format!("{} images", self.images.len()) }
    }
}

/// Two bands for each image: itself and the tiles that `explain` makes of it, and below them the same over the image;
/// `explain` also adds its numbers to the image's JSON.
pub(super) fn bands(
    args: &ImageArgs,
    model: &ModelFile,
    mut explain: impl FnMut(&Image, &RgbImage, &mut Value) -> Result<Vec<[Tile; 2]>, CliError>,
) -> Result<(Vec<Band>, Value), CliError> {
    let mut bands = Vec::new();
    let mut results = Vec::new();
    for image in read_images(&args.images, args.class.as_deref(), model)? {
        let picture = sheet::picture(image.shown.view());
        let class = model.class_name(image.class);
        let mut json = serde_json::json!({ "image": image.name, "class": class });
        let [mut raw, mut over] = ["image", ""].map(|caption| vec![Tile::new(picture.clone(), caption)]);
        for [tile, overlay] in explain(&image, &picture, &mut json)? {
            raw.push(tile);
            over.push(overlay);
        }
        bands.push(Band { heading: format!("{}; explained: {class}", image.caption), tiles: raw });
        bands.push(Band { heading: "over the image:".into(), tiles: over });
        results.push(json);
    }
    Ok((bands, serde_json::json!({ "images": results })))
}

/// The colours of the maps and of those over the image.
pub(super) fn legends() -> Vec<Legend> {
    vec![own_scale(), Legend::new(Palette::Over, "- largest", "+ largest, over the image")]
}

/// Below every sheet of scores.
pub(super) const SCORE: &str = "A score is the logit of the class.";

/// The sum over the channels, by itself and over the image.
pub(super) fn signed(values: ArrayView3<'_, f32>, picture: &RgbImage, caption: &str) -> [Tile; 2] {
    let sum = values.sum_axis(Axis(0));
    [sheet::signed(sum.view()).0, sheet::overlay_signed(picture, sum.view())].map(|image| Tile::new(image, caption))
}
