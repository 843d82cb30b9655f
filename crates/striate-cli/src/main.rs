//! The `striate` command: train an image classifier, look inside it, ship it. One file a subcommand.

mod bench;
mod convert;
mod data;
mod doctor;
mod download;
mod error;
mod evaluate;
mod explain;
mod fetch;
mod model;
mod output;
mod page;
mod pictures;
mod predict;
mod progress;
mod quantize;
mod recipe;
mod report;
mod run_dir;
mod serve;
mod source;
mod summary;
mod tensorboard;
mod train;
mod verify;
mod watch;

use clap::{Args, Parser, Subcommand};
use error::CliError;
use output::Output;
use std::process::ExitCode;

const ABOUT: &str = "Train, look inside and ship image classifiers on an ordinary CPU";

const EXAMPLES: &str = "Examples:
  striate                                    train the chapter's SimpleConvNet on MNIST
  striate train --recipe book --seed 3       the book's settings to the letter
  striate evaluate runs/simple-convnet-mnist-1
  striate predict runs/simple-convnet-mnist-1 mnist:test:42 photo.jpg
  striate explain runs/simple-convnet-mnist-1 filters
  striate serve runs/simple-convnet-mnist-1
  striate summary simple-convnet
  striate bench --model simple-convnet

Exit status: 0 done, 1 failed (the reason is on stderr), 2 wrong usage.
STRIATE_ISA=avx512|avx2|neon|simd128|portable forces an instruction set.";

#[derive(Parser)]
#[command(name = "striate", version, about = ABOUT, after_help = EXAMPLES, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Options of every command.
#[derive(Args, Clone, Debug)]
struct Global {
    /// Print the result as JSON, on the last line of stdout
    #[arg(long, global = true)]
    json: bool,
    /// Threads to compute with [default: all cores]; results don't depend on it
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Seed of all random numbers [default: 1]
    #[arg(long, global = true, value_name = "N")]
    seed: Option<u64>,
    /// No progress, no hints
    #[arg(long, short, global = true)]
    quiet: bool,
}

impl Global {
    fn seed(&self) -> u64 {
        self.seed.unwrap_or(1)
    }
}

#[derive(Subcommand)]
enum Command {
    Train(Box<train::TrainArgs>),
    Evaluate(evaluate::EvaluateArgs),
    Predict(predict::PredictArgs),
    Explain(explain::ExplainArgs),
    Summary(summary::SummaryArgs),
    Verify(verify::VerifyArgs),
    Serve(serve::ServeArgs),
    Bench(bench::BenchArgs),
    Convert(convert::ConvertArgs),
    Quantize(quantize::QuantizeArgs),
    Data(data::DataArgs),
    Doctor(doctor::DoctorArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            output::complain(&format!("error: {error}"));
            ExitCode::from(error.status())
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode, CliError> {
    let isa = striate::kernels::isa::check()?;
    let mut pool = rayon::ThreadPoolBuilder::new();
    if let Some(threads) = cli.global.threads {
        pool = pool.num_threads(threads.into());
    }
    pool.build_global().map_err(|source| CliError::Threads { source })?;
    let output = Output::new(&cli.global);
    match cli.command {
        Some(Command::Train(args)) => train::run(&args, &cli.global, &output, isa),
        Some(Command::Evaluate(args)) => evaluate::run(&args, &output),
        Some(Command::Predict(args)) => predict::run(&args, &output),
        Some(Command::Explain(args)) => explain::run(&args, &output),
        Some(Command::Summary(args)) => summary::run(&args, &cli.global, &output),
        Some(Command::Verify(args)) => verify::run(&args, &output),
        Some(Command::Serve(args)) => serve::run(&args, &output),
        Some(Command::Bench(args)) => bench::run(&args, &cli.global, &output, isa),
        Some(Command::Convert(args)) => convert::run(&args, &output),
        Some(Command::Quantize(args)) => quantize::run(&args, &output),
        Some(Command::Data(args)) => data::run(&args, &output),
        Some(Command::Doctor(args)) => doctor::run(&args, &output, isa),
        None => {
            output.hint(
                "striate: a convolutional-network engine. With no command it trains the SimpleConvNet of chapter 7 of",
            );
            output.hint("\"Deep Learning from Scratch\" (conv - relu - pool - affine - relu - affine - softmax) on the 60,000 digits");
            output.hint(
                "of MNIST, which are built in. The same as `striate train`; `striate --help` shows what else there is.",
            );
            output.hint("Ctrl-C stops cleanly and keeps the last weights.\n");
            train::run(&train::TrainArgs::default(), &cli.global, &output, isa)
        }
    }
}
