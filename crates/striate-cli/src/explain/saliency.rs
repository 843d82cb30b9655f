//! `saliency`: the pixels that a score depends on.

use super::attribution::{ImageArgs, SCORE, bands, legends, signed};
use super::{Drawn, Out, title};
use crate::error::CliError;
use crate::output::to_json;
use clap::Args;
use ndarray::Array3;
use striate::draw::sheet::Sheet;
use striate::explain::{self, SmoothGrad};
use striate::formats::ModelFile;
use striate::layers::ReluRule;

const EXAMPLES: &str = "Examples:
  striate explain runs/simple-convnet-mnist-1 saliency mnist:test:42
  striate explain runs/simple-convnet-mnist-1 saliency mnist:test:42 digit.png --class 7";

#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct SaliencyArgs {
    #[command(flatten)]
    images: ImageArgs,
    #[command(flatten)]
    pub(super) out: Out,
}

pub(super) fn draw(args: &SaliencyArgs, model: &ModelFile) -> Result<Drawn, CliError> {
    const STEPS: usize = 64;
    let network = &model.network;
    let mut notes = vec![SCORE.to_owned()];
    let (bands, json) = bands(&args.images, model, |image, picture, json| {
        let (x, class) = (image.x.view(), image.class);
        let gradient = |rule| explain::gradient(network, x, class, rule);
        let smooth = explain::smooth_grad(network, x, class, &SmoothGrad::default())?;
        let integrated = explain::integrated_gradients(network, x, class, Array3::zeros(x.dim()).view(), STEPS)?;
        notes.push(format!(
            "{}: integrated gradients from 0 in {STEPS} steps miss the score's change {:.4} by {:.5}.",
            image.name,
            integrated.score - integrated.baseline_score,
            integrated.error
        ));
        json["score"] = to_json(&integrated.score);
        json["baseline_score"] = to_json(&integrated.baseline_score);
        json["completeness_error"] = to_json(&integrated.error);
        Ok(vec![
            signed(gradient(ReluRule::Gradient)?.view(), picture, "gradient"),
            signed(smooth.view(), picture, "SmoothGrad"),
            signed(integrated.values.view(), picture, "integrated gradients"),
            signed(gradient(ReluRule::Guided)?.view(), picture, "guided"),
            signed(gradient(ReluRule::Deconvolution)?.view(), picture, "deconvnet"),
        ])
    })?;
    let words = args.images.count();
    let sheet = Sheet { title: title(model, "Saliency"), bands, side: 140, legends: legends(), notes };
    Ok((sheet.draw(), words, json))
}
