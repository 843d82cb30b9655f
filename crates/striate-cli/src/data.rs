//! `striate data`

use crate::error::CliError;
use crate::output::{Output, table, thousands};
use crate::source;
use clap::{Args, Subcommand};
use std::process::ExitCode;
use striate::data::{Dataset, Splits};

const EXAMPLES: &str = "Examples:
  striate data info mnist
  striate data info ~/fashion --json";

/// What is in a data set
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DataArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Clone, Debug)]
enum Action {
    /// Sizes, classes and how many images each has
    Info {
        /// `mnist`, or a directory of IDX files
        #[arg(value_name = "NAME|DIR")]
        data: String,
    },
}

/// Prints counts.
pub(crate) fn run(args: &DataArgs, output: &Output) -> Result<ExitCode, CliError> {
    let Action::Info { data } = &args.action;
    let Splits { train, test } = source::load(data)?;
    let count = |data: &Dataset| {
        let mut counts = vec![0usize; data.classes()];
        data.labels().iter().for_each(|&label| counts[label] += 1);
        counts
    };
    let (in_train, in_test) = (count(&train), count(&test));
    output.line(format!("{data}: images of {}, {} classes", train.shape(), train.classes()));
    let mut rows = vec![["class", "train", "test"].map(String::from).to_vec()];
    for (class, name) in train.class_names().iter().enumerate() {
        let in_test = in_test.get(class).copied().unwrap_or(0);
        rows.push(vec![name.clone(), thousands(in_train[class]), thousands(in_test)]);
    }
    rows.push(vec!["Total".into(), thousands(train.len()), thousands(test.len())]);
    table(&rows, &[0]).iter().for_each(|line| output.line(line));
    output.json(&serde_json::json!({
        "data": data,
        "shape": <[usize; 3]>::from(train.shape()),
        "classes": train.class_names(),
        "train": { "images": train.len(), "per_class": in_train },
        "test": { "images": test.len(), "per_class": in_test },
    }));
    Ok(ExitCode::SUCCESS)
}
