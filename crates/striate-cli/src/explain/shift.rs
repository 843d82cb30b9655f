//! `shift`: what a move of the image by some pixels does to the answer.

use super::{DataArgs, Made, PlotOut};
use crate::error::CliError;
use crate::model;
use crate::output::{Output, table, thousands, to_json};
use crate::progress::Bar;
use clap::Args;
use serde_json::json;
use std::path::{Path, PathBuf};
use striate::draw::{LinePanel, Lines};
use striate::explain::{self, Images, Shifted};
use striate::formats::ModelFile;

const EXAMPLES: &str = "Examples:
  striate explain runs/simple-convnet-mnist-1 shift
  striate explain runs/simple-convnet-mnist-1 shift --against runs/no-pooling-mnist-1 runs/mlp-mnist-1 --out shift.svg
  striate explain model.safetensors shift --most 2 --images 1000 --json";

#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct ShiftArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Models to compare with, on the same data
    #[arg(long, value_name = "MODEL", num_args = 1..)]
    against: Vec<PathBuf>,
    /// The largest move in pixels
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    most: u16,
    #[command(flatten)]
    pub(super) out: PlotOut,
}

pub(super) fn make(args: &ShiftArgs, path: &Path, model: &ModelFile, output: &Output) -> Result<Made, CliError> {
    let others: Vec<ModelFile> = args.against.iter().map(|path| model::load(path)).collect::<Result<_, _>>()?;
    let paths: Vec<&Path> = std::iter::once(path).chain(args.against.iter().map(PathBuf::as_path)).collect();
    let models: Vec<&ModelFile> = std::iter::once(model).chain(&others).collect();
    let names = names(&paths, &models);
    let data = args.data.load(model, output)?.test;
    let (most, first) = (usize::from(args.most), args.data.images as usize);
    let images = Images::new(&data, &model.preprocessing.normalization).at_most(first);
    let mut found: Vec<Vec<Shifted>> = Vec::new();
    for (model, name) in models.iter().zip(&names) {
        // What does not fit is said of the model that it does not fit.
        let named = |error| CliError::Sample { name: name.clone(), problem: format!("{error}") };
        let bar = Bar::new("moving images", output.is_quiet());
        let progress = |done, all| bar.show(done, all);
        let images = Images::new(&data, &model.preprocessing.normalization).at_most(first).progress(&progress);
        found.push(explain::shift(&model.network, &images, most).map_err(named)?);
    }
    let panel = |words: &str, limits, decimals, value: &dyn Fn(&Shifted) -> f64| LinePanel {
        words: words.into(),
        limits,
        decimals,
        lines: found.iter().map(|rows| rows.iter().map(value).collect()).collect(),
    };
    let lines = Lines {
        title: "What a move of the image does to the answer".into(),
        subtitle: format!(
            "{} of the {} images of {}, each moved up, down, left and right; the edge is repeated",
            thousands(images.len()),
            thousands(data.len()),
            data.name()
        ),
        across: "pixels moved".into(),
        places: (0..=most).map(|pixels| pixels as f64).collect(),
        panels: vec![
            panel("accuracy, %", (0.0, 100.0), 1, &|row| 100.0 * row.accuracy),
            panel("share of the probability that moves to other classes", (0.0, 1.0), 3, &|row| row.change),
        ],
        names: names.clone(),
    };
    let mut rows = vec![["model", "pixels", "accuracy", "same class", "moved"].map(String::from).to_vec()];
    for (name, found) in names.iter().zip(&found) {
        for row in found {
            rows.push(vec![
                name.clone(),
                row.pixels.to_string(),
                format!("{:.2} %", 100.0 * row.accuracy),
                format!("{:.2} %", 100.0 * row.unchanged),
                format!("{:.4}", row.change),
            ]);
        }
    }
    let models: Vec<_> =
        names.iter().zip(&found).map(|(name, rows)| json!({ "model": name, "shifts": to_json(rows) })).collect();
    let words = format!("{} models, up to {most} pixels", names.len());
    let json = json!({ "data": data.name(), "images": images.len(), "models": models });
    Made::plot(&lines, &args.out, words, table(&rows, &[0]), json)
}

/// What tells the models apart: the names of their files or run directories, or their whole paths.
fn names(paths: &[&Path], models: &[&ModelFile]) -> Vec<String> {
    let short = |path: &Path| path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let mut files: Vec<String> = paths.iter().map(|path| short(path)).collect();
    let mut different = files.clone();
    different.sort_unstable();
    different.dedup();
    if different.len() < files.len() {
        files = paths.iter().map(|path| path.display().to_string()).collect();
    }
    let named = |(file, model): (String, &&ModelFile)| {
        let name = &model.network.description().name;
        if file == *name { file } else { format!("{file} ({name})") }
    };
    files.into_iter().zip(models).map(named).collect()
}
