//! `timeline`: how filters and what they make of an image came about while the network was trained.

use super::{Made, Out, read_images, spread_to_the_last, title};
use crate::error::CliError;
use crate::output::thousands;
use crate::run_dir::snapshots;
use clap::Args;
use ndarray::Array2;
use std::path::Path;
use striate::draw;
use striate::draw::sheet;
use striate::draw::timeline::{Frame, Timeline};
use striate::explain;
use striate::formats::ModelFile;
use striate::layers::predicted_class;

const EXAMPLES: &str = "Examples:
  striate train --snapshots --out runs/digits
  striate explain runs/digits timeline
  striate explain runs/digits timeline mnist:test:42
  striate explain runs/digits timeline digit.png --layer Conv1 --out digit.png

Besides the animated PNG, which any browser plays, a sheet with time going down is written next to it: timeline-sheet.png.";

/// Moments drawn at most.
const MOST: usize = 100;

#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct TimelineArgs {
    /// An image to watch too: a PNG or JPEG file, `-` for stdin, or `mnist:test:42`
    #[arg(value_name = "IMAGE")]
    image: Option<String>,
    /// The convolution whose filters are drawn, or its weights: Conv1 or W1 [default: the first convolution]
    #[arg(long, value_name = "NAME")]
    layer: Option<String>,
    #[command(flatten)]
    pub(super) out: Out,
}

/// The moving picture, and one that stands still.
pub(super) fn make(args: &TimelineArgs, run: &Path) -> Result<Made, CliError> {
    let all = snapshots(run)?;
    let Some((last_step, last)) = all.last() else { return Err(CliError::NoSnapshots { path: run.to_owned() }) };
    let last = ModelFile::load(last)?;
    let images = read_images(args.image.as_slice(), None, &last)?;
    let image = images.first();
    let mut timeline = Timeline { image: image.map(|image| sheet::picture(image.shown.view())), ..Timeline::default() };
    let mut steps = Vec::new();
    for (step, file) in spread_to_the_last(MOST, all.len()).map(|at| &all[at]) {
        let model = ModelFile::load(file)?;
        if model.network.description() != last.network.description() {
            let problem = "the model is another one than that of the last snapshot; leave only files of one run there";
            return Err(CliError::Sample { name: file.display().to_string(), problem: problem.into() });
        }
        let moment = explain::moment(&model.network, args.layer.as_deref(), image.map(|image| image.x.view()))?;
        let mut frame = Frame {
            heading: format!("step {} of {}", thousands(*step as usize), thousands(*last_step as usize)),
            filters: moment.filters.values,
            maps: None,
            probabilities: Vec::new(),
        };
        timeline.filters = format!("Filters {}", moment.filters.name);
        if let (Some(seen), Some(image)) = (moment.seen, image) {
            let classes = seen.logits.len();
            let logits = Array2::from_shape_vec((1, classes), seen.logits).unwrap_or_default();
            frame.probabilities = model.probabilities(&logits).into_iter().collect();
            let best = predicted_class(&frame.probabilities);
            let percent = 100.0 * frame.probabilities.get(best).copied().unwrap_or_default();
            frame.heading = format!("{}: {} ({percent:.1} %)", frame.heading, model.class_name(best));
            timeline.maps = format!("{} of {}", seen.layer, image.name);
            frame.maps = Some(seen.maps);
        }
        steps.push(*step);
        timeline.frames.push(frame);
    }
    timeline.classes = last.class_names.clone();
    timeline.title = title(&last, "The training");
    let pictures = timeline.frames();
    Ok(Made {
        pictures: vec![
            ("", draw::animation(&pictures, draw::Pace::default())?),
            ("-sheet", draw::png(&timeline.sheet())?),
        ],
        words: format!("{} moments of training", pictures.len()),
        lines: Vec::new(),
        json: serde_json::json!({ "frames": pictures.len(), "steps": steps }),
    })
}
