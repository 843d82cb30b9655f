//! `grad-cam`: where a layer finds the class.

use super::attribution::{ImageArgs, SCORE, bands};
use super::{Drawn, Out, title};
use crate::error::CliError;
use clap::Args;
use striate::draw::sheet::{self, Legend, Palette, Sheet, Tile};
use striate::explain::{self, CamRule};
use striate::formats::ModelFile;

const EXAMPLES: &str = "Examples:
  striate explain runs/simple-convnet-mnist-1 grad-cam mnist:test:42
  striate explain runs/simple-convnet-mnist-1 grad-cam digit.png --class 7 --layer Conv1";

#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct GradCamArgs {
    #[command(flatten)]
    images: ImageArgs,
    /// The layer to look into [default: the activation of the last convolution]
    #[arg(long, value_name = "NAME")]
    layer: Option<String>,
    #[command(flatten)]
    pub(super) out: Out,
}

pub(super) fn draw(args: &GradCamArgs, model: &ModelFile) -> Result<Drawn, CliError> {
    let (bands, json) = bands(&args.images, model, |image, picture, json| {
        let mut tiles = Vec::new();
        for (rule, name) in [(CamRule::GradCam, "Grad-CAM"), (CamRule::LayerCam, "LayerCAM")] {
            let cam = explain::cam(&model.network, image.x.view(), image.class, args.layer.as_deref(), rule)?;
            let reach = cam.map.iter().copied().fold(0.0, f32::max);
            let raw = sheet::map(cam.map.view(), Palette::Heat, (0.0, reach));
            let overlay = sheet::overlay(picture, cam.heat.view());
            tiles.push([raw, overlay].map(|image| Tile::new(image, format!("{name} {}", cam.layer))));
            json["layer"] = cam.layer.into();
        }
        Ok(tiles)
    })?;
    let words = args.images.count();
    let sheet = Sheet {
        title: title(model, "Class activation maps"),
        bands,
        side: 140,
        legends: vec![Legend::new(Palette::Heat, "0", "the largest")],
        notes: vec![SCORE.into()],
    };
    Ok((sheet.draw(), words, json))
}
