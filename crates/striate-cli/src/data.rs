//! `striate data`

use crate::error::CliError;
use crate::fetch::{self, FetchArgs};
use crate::output::{Output, table, thousands};
use crate::source::{self, ReadingArgs, Source};
use clap::{Args, Subcommand};
use std::process::ExitCode;
use striate::data::Dataset;

const EXAMPLES: &str = "Examples:
  striate data fetch fashion-mnist
  striate data info mnist
  striate data info ~/flowers
  striate data info ~/fashion --json";

/// What is in a data set, and getting one
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DataArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Clone, Debug)]
enum Action {
    Fetch(FetchArgs),
    /// Sizes, classes, how many images each has, and files that can't be read
    Info {
        /// A data set, as `striate train --data` takes it
        #[arg(value_name = "NAME|PATH")]
        data: String,
        #[command(flatten)]
        reading: ReadingArgs,
    },
}

/// Prints counts and faults.
pub(crate) fn run(args: &DataArgs, output: &Output) -> Result<ExitCode, CliError> {
    let (data, reading) = match &args.action {
        Action::Fetch(args) => return fetch::run(args, output),
        Action::Info { data, reading } => (data, reading),
    };
    let source = source::open(data, &reading.options(None, None), output)?;
    let (parts, Source { splits, report, .. }) = (source.parts(), &source);
    let (shape, names) = (splits.train.shape(), splits.train.class_names());
    output.line(format!("{data}: images of {shape}, {} classes", names.len()));
    let counts = class_table(&parts, output);
    source::list_skipped(output, &report.skipped);
    let ignored = report.ignored.iter().map(|path| path.display().to_string());
    output.list("ignored because they are nothing to read", source::LISTED, ignored);

    let mut json = serde_json::json!({
        "data": data,
        "shape": <[usize; 3]>::from(shape),
        "classes": names,
        "skipped": source::skipped_json(&report.skipped),
        "ignored": report.ignored.iter().map(|path| path.display().to_string()).collect::<Vec<_>>(),
    });
    add_counts(&mut json, &parts, &counts);
    output.json(&json);
    Ok(ExitCode::SUCCESS)
}

/// Prints how many images each part has of each class, and gives the counts, part by part.
pub(crate) fn class_table(parts: &[(&str, &Dataset)], output: &Output) -> Vec<Vec<usize>> {
    let counts: Vec<Vec<usize>> = parts.iter().map(|(_, data)| data.class_sizes()).collect();
    let names = parts.first().map_or(&[][..], |(_, data)| data.class_names());
    let head = ["class"].into_iter().chain(parts.iter().map(|(name, _)| *name));
    let mut rows = vec![head.map(String::from).collect::<Vec<_>>()];
    for (class, name) in names.iter().enumerate() {
        let cells = counts.iter().map(|counts| thousands(counts.get(class).copied().unwrap_or(0)));
        rows.push([name.clone()].into_iter().chain(cells).collect());
    }
    rows.push(["Total".into()].into_iter().chain(parts.iter().map(|(_, data)| thousands(data.len()))).collect());
    table(&rows, &[0]).iter().for_each(|line| output.line(line));
    counts
}

/// Adds what [`class_table`] counted, each part under its name.
pub(crate) fn add_counts(json: &mut serde_json::Value, parts: &[(&str, &Dataset)], counts: &[Vec<usize>]) {
    for ((name, data), counts) in parts.iter().zip(counts) {
        json[*name] = serde_json::json!({ "images": data.len(), "per_class": counts });
    }
}
