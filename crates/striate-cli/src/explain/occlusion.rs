//! `occlusion`: what the score loses where a square covers the image.

use super::attribution::{ImageArgs, SCORE, bands, legends};
use super::{Drawn, Out, title};
use crate::error::CliError;
use crate::output::to_json;
use clap::Args;
use striate::draw::sheet::{self, Sheet, Tile};
use striate::explain::{self, OcclusionOptions};
use striate::formats::ModelFile;

const EXAMPLES: &str = "Examples:
  striate explain runs/simple-convnet-mnist-1 occlusion mnist:test:42
  striate explain runs/simple-convnet-mnist-1 occlusion digit.png --class 7 --json";

#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct OcclusionArgs {
    #[command(flatten)]
    images: ImageArgs,
    #[command(flatten)]
    pub(super) out: Out,
}

pub(super) fn draw(args: &OcclusionArgs, model: &ModelFile) -> Result<Drawn, CliError> {
    let network = &model.network;
    let side = network.input().height.min(network.input().width);
    let options = OcclusionOptions { window: (side / 6).max(1), stride: (side / 16).max(1), value: 0.0 };
    let (bands, json) = bands(&args.images, model, |image, picture, json| {
        let found = explain::occlusion(network, image.x.view(), image.class, &options)?;
        let (drawn, reach) = sheet::signed(found.drop.view());
        json["score"] = to_json(&found.score);
        json["largest_change"] = to_json(&reach);
        let overlay = sheet::overlay_signed(picture, found.drop.view());
        Ok(vec![[drawn, overlay].map(|image| Tile::new(image, format!("drop up to {reach:.2}")))])
    })?;
    let words = args.images.count();
    let note = format!("A square of {0} x {0} pixels covers with 0; red where the score falls.", options.window);
    let sheet = Sheet {
        title: title(model, "Occlusion"),
        bands,
        side: 140,
        legends: legends(),
        notes: vec![SCORE.into(), note],
    };
    Ok((sheet.draw(), words, json))
}
