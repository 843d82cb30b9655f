//! `--seeds`: the same training several times, and how far the results lie apart.

use super::options::TrainArgs;
use crate::Global;
use crate::error::CliError;
use crate::output::{Output, complain, table, to_json};
use crate::run_dir;
use serde_json::{Value, json};
use std::fs::File;
use std::path::PathBuf;
use std::process::ExitCode;
use striate::formats::write_atomically;
use striate::kernels::isa::Isa;
use striate::train::Spread;

const FILE: &str = "seeds.json";
/// The figures whose spread is told.
const FIGURES: [&str; 4] = ["test_accuracy", "test_loss", "validation_accuracy", "train_accuracy"];

/// What the runs of several seeds share.
pub(super) struct Family {
    wanted: Option<PathBuf>,
    /// The directory of all, held as long as this.
    directory: Option<(PathBuf, File)>,
    /// The steps that `--time` came to, so that all runs are of one length.
    pub(super) steps: Option<u64>,
}

impl Family {
    /// The run directory of a seed; the first one makes the directory of all.
    pub(super) fn run_directory(&mut self, stem: &str, seed: u64) -> Result<PathBuf, CliError> {
        if self.directory.is_none() {
            self.directory = Some(run_dir::claim(self.wanted.as_deref(), stem)?);
        }
        Ok(self.path().join(format!("seed-{seed}")))
    }

    fn path(&self) -> PathBuf {
        self.directory.as_ref().map_or(PathBuf::new(), |(path, _)| path.clone())
    }
}

/// Trains once a seed, and tells mean and spread.
pub(super) fn run(
    count: u64,
    args: &TrainArgs,
    global: &Global,
    output: &Output,
    isa: Isa,
) -> Result<ExitCode, CliError> {
    let first = global.seed();
    let Some(end) = first.checked_add(count) else {
        return Err(CliError::Usage(format!("--seeds {count}: there are not so many seeds after {first}")));
    };
    let mut family = Family { wanted: args.out.clone(), directory: None, steps: None };
    let mut lines: Vec<Value> = Vec::new();
    let mut stopped = false;
    for seed in first..end {
        if !output.is_quiet() {
            complain(&format!("seed {seed}, {} of {count}", seed - first + 1));
        }
        let global = Global { seed: Some(seed), ..global.clone() };
        let (line, _) = super::one(args, &global, output, isa, Some(&mut family))?;
        stopped = line["stopped"] == true;
        if stopped && !lines.is_empty() {
            // Half a run tells nothing of the others; it can be gone on with by itself.
            break;
        }
        lines.push(line);
        if let Some((path, _)) = &family.directory {
            let summary = summary(&lines);
            write_atomically(path.join(FILE), format!("{summary:#}\n").as_bytes())?;
        }
        if stopped {
            break;
        }
    }
    let directory = family.path();
    show(&lines, output);
    if stopped {
        output.line(format!("stopped after {} of {count} seeds", lines.len()));
    }
    output.line(format!("everything is in {}: one run directory a seed, and {FILE}", directory.display()));
    // The keys of one run are those of the first seed: to choose the best by its test accuracy would be to fit the test set.
    let mut result = lines.first().cloned().unwrap_or_default();
    let summary = summary(&lines);
    result["seeds"] = summary["seeds"].clone();
    for figure in FIGURES {
        result[format!("{figure}_mean")] = summary["mean"][figure].clone();
        result[format!("{figure}_deviation")] = summary["deviation"][figure].clone();
    }
    result["seeds_out"] = to_json(&directory);
    result["stopped"] = stopped.into();
    output.json(&result);
    Ok(ExitCode::SUCCESS)
}

/// One figure over the runs that have it.
fn spread(lines: &[Value], figure: &str) -> Option<Spread> {
    Spread::of(&lines.iter().filter_map(|line| line[figure].as_f64()).collect::<Vec<_>>())
}

/// What `seeds.json` holds.
fn summary(lines: &[Value]) -> Value {
    let keys = ["out", "seed", "steps", "seconds", "kept_epoch", "weights_sha256"];
    let short = |line: &Value| {
        let kept = keys.iter().chain(&FIGURES).map(|&key| (key.to_string(), line[key].clone()));
        Value::Object(kept.collect())
    };
    let (mut mean, mut deviation) = (json!({}), json!({}));
    for figure in FIGURES {
        let spread = spread(lines, figure);
        mean[figure] = to_json(&spread.map(|spread| spread.mean));
        deviation[figure] = to_json(&spread.and_then(|spread| spread.deviation));
    }
    json!({ "seeds": lines.iter().map(short).collect::<Vec<_>>(), "mean": mean, "deviation": deviation })
}

/// The table for people.
fn show(lines: &[Value], output: &Output) {
    let figures: Vec<&str> = FIGURES.into_iter().filter(|figure| spread(lines, figure).is_some()).collect();
    let number = |figure: &str, value: f64| {
        if figure.ends_with("accuracy") { format!("{:.2} %", 100.0 * value) } else { format!("{value:.4}") }
    };
    let heads = figures.iter().map(|figure| figure.replace('_', " "));
    let mut rows: Vec<Vec<String>> = vec![["seed".to_string()].into_iter().chain(heads).collect()];
    for line in lines {
        let cells = figures.iter().map(|figure| line[*figure].as_f64().map_or("-".into(), |v| number(figure, v)));
        rows.push([line["seed"].to_string()].into_iter().chain(cells).collect());
    }
    let of_all = |pick: fn(Spread) -> Option<f64>| {
        figures.iter().map(move |figure| spread(lines, figure).and_then(pick).map_or("-".into(), |v| number(figure, v)))
    };
    rows.push(["mean".to_string()].into_iter().chain(of_all(|spread| Some(spread.mean))).collect());
    rows.push(["deviation".to_string()].into_iter().chain(of_all(|spread| spread.deviation)).collect());
    table(&rows, &[0]).iter().for_each(|line| output.line(line));
}
