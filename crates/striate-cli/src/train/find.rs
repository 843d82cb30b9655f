//! `--find-lr`: which learning rates suit the network and the data.

use super::options::TrainArgs;
use super::{Prepared, interruption};
use crate::error::CliError;
use crate::output::{Output, complain, to_json};
use crate::progress::Bar;
use crate::run_dir::io_error;
use crate::{Global, source};
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use striate::draw::{self, RateLoss};
use striate::formats::write_atomically;
use striate::kernels::isa::Isa;
use striate::train::{FoundRates, find_learning_rate};

const FILE: &str = "find-lr.svg";

/// Runs the test and writes its picture; nothing else.
pub(super) fn run(args: &TrainArgs, global: &Global, output: &Output, isa: Isa) -> Result<ExitCode, CliError> {
    let Prepared { options, data, network, .. } = Prepared::new(args, global, output, isa)?;
    let bar = Bar::new("finding the rate", output.is_quiet());
    let found = find_learning_rate(
        &network,
        &data.train,
        &options.normalization,
        &options.train_options(),
        interruption(global.quiet),
        &mut |step, steps| bar.show(step as usize, steps as usize),
    )?;
    drop(bar);
    let directory = args.out.as_deref().unwrap_or(Path::new("."));
    fs::create_dir_all(directory).map_err(io_error(directory, "create the directory"))?;
    let path = if args.out.is_some() { directory.join(FILE) } else { FILE.into() };
    let points: Vec<RateLoss> = (found.points.iter())
        .map(|point| RateLoss { rate: point.rate, loss: point.loss, smoothed: point.smoothed })
        .collect();
    let words = found.found.as_ref().map(|rates| {
        [("suggestion", rates.suggestion), ("steepest", rates.steepest), ("lowest loss", rates.lowest)]
            .map(|(what, rate)| (format!("{what} {}", digits(rate)), rate))
    });
    let marks: Vec<(&str, f32)> = words.iter().flatten().map(|(words, rate)| (words.as_str(), *rate)).collect();
    let optimizer = options.optimizer.name();
    let title = format!("{} on {}, {optimizer}: loss by rate", options.model, source::short_name(&options.data));
    write_atomically(&path, draw::learning_rates(&points, &marks, &title).as_bytes())?;

    let reason = reason(found.found.as_ref(), found.diverged);
    if let Some(rates) = &found.found {
        output.line(format!("learning rate  {}  for {optimizer}", digits(rates.suggestion)));
    }
    output.line(&reason);
    output.line(format!("the picture is {}", path.display()));
    if let Some(rates) = &found.found {
        output.hint(format!("Next: the same command with --lr {} in place of --find-lr", digits(rates.suggestion)));
        if rates.suggestion < options.lr / 10.0 && !output.is_quiet() {
            complain(&format!("note: the recipe's rate of {} is more than ten times that", options.lr));
        }
    }
    let rate =
        |pick: fn(&FoundRates) -> f32| found.found.as_ref().map_or(serde_json::Value::Null, |r| to_json(&pick(r)));
    output.json(&serde_json::json!({
        "suggestion": rate(|rates| rates.suggestion),
        "steepest": rate(|rates| rates.steepest),
        "lowest": rate(|rates| rates.lowest),
        "diverged": found.diverged,
        "reason": reason,
        "optimizer": optimizer,
        "picture": path,
        "points": to_json(&found.points),
    }));
    Ok(ExitCode::SUCCESS)
}

fn reason(found: Option<&FoundRates>, diverged: bool) -> String {
    let Some(rates) = found else {
        return "no rate lowered the loss, so none is suggested: look at the data, the normalisation and the start of the \
                weights (--normalize data, --init he)"
            .into();
    };
    let blown_up = if diverged { ", and later blows up" } else { "" };
    format!(
        "the smoothed loss falls fastest at {}, is as low as it gets at {}{blown_up}; a tenth of that is safe from the edge",
        digits(rates.steepest),
        digits(rates.lowest)
    )
}

/// A rate in two digits: no test tells more.
fn digits(rate: f32) -> String {
    format!("{rate:.1e}").parse::<f64>().unwrap_or(rate.into()).to_string()
}
