//! `striate bench`

use crate::error::CliError;
use crate::model::{self, ModelOptions, WeightsOption};
use crate::output::{Output, complain, milliseconds, table, thousands, to_json};
use crate::{Global, model::Architecture};
use clap::Args;
use std::process::ExitCode;
use std::time::Duration;
use striate::bench::{Ceilings, Measurement, Pass, Report, Work, measure};
use striate::kernels::isa::Isa;
use striate::network::{Network, Weights};
use striate::optim::OptimizerOptions;

const EXAMPLES: &str = "Examples:
  striate bench                                      the headline work, in about half a minute
  striate bench --model alexnet-torchvision          one network, at its usual batch
  striate bench --model simple-convnet --batch 1,8,64,512
  striate bench --model resnet18 --batch 16 --work inference --each-threads
  striate bench --model alexnet-torchvision --batch 1 --work inference --weights bf16
  striate bench --json | jq 'select(.pass == \"whole\")'

The floor of a pass is the time that its arithmetic or its bytes take at the machine's ceilings, whichever is longer; the
ceilings are measured first, on the same threads. Winograd's convolutions do fewer operations than are counted, and can
go beyond 100 %. With --json every measurement is a line.";

/// Time networks on this machine, beside the least time that arithmetic and memory allow
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BenchArgs {
    /// Only this: the name of a model, a TOML file, a model file, or a run directory [default: the headline work]
    #[arg(long, value_name = "NAME|FILE")]
    model: Option<String>,
    #[command(flatten)]
    options: ModelOptions,
    /// Images in a batch; several sizes show how time grows [default: the model's usual batch, and 1 for inference]
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch: Vec<u32>,
    /// Only training steps, or only inference
    #[arg(long, value_parser = ["training", "inference"])]
    work: Option<String>,
    /// How the weights are kept for inference
    #[arg(long, value_enum, default_value_t = WeightsOption::F32)]
    weights: WeightsOption,
    /// The optimizer of the training steps [default: adam for small networks, momentum for large ones]
    #[arg(long, value_name = "NAME")]
    optimizer: Option<OptimizerOptions>,
    /// Seconds for each measurement of a whole network, and for each of its passes
    #[arg(long, value_name = "S", default_value_t = 0.6, value_parser = parse_seconds)]
    seconds: f64,
    /// Measure with 1, 2, 4, ... threads up to --threads
    #[arg(long)]
    each_threads: bool,
    /// Leave out the passes of each layer
    #[arg(long)]
    no_layers: bool,
}

/// The headline work, with the usual batch. SimpleConvNet is the book's; the others are the field's yardsticks.
const HEADLINE: [&str; 4] = ["simple-convnet", "lenet", "alexnet-torchvision", "resnet18"];

/// Numbers in one input from which a network is large.
const LARGE: usize = 64 * 64 * 3;

/// A length of measurement.
pub(crate) fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=600.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number from 0 to 600 is needed".into()),
    }
}

/// One network with all that is to be timed of it.
struct Subject {
    name: String,
    network: Network,
    works: Vec<(Work, usize)>,
}

/// Measures and prints.
pub(crate) fn run(args: &BenchArgs, global: &Global, output: &Output, isa: Isa) -> Result<ExitCode, CliError> {
    if args.model.is_none()
        && (args.options.input.is_some() || args.options.classes.is_some() || !args.options.settings.is_empty())
    {
        return Err(CliError::Usage("--input, --classes and --set need --model".into()));
    }
    let names: Vec<&str> = args.model.as_deref().map_or(HEADLINE.to_vec(), |name| vec![name]);
    let mut subjects = Vec::new();
    // All wrong names and sizes before any work.
    for name in names {
        subjects.push((name, model::architecture(name, &args.options)?));
    }
    let most = rayon::current_num_threads();
    let counts: Vec<usize> = if args.each_threads {
        std::iter::successors(Some(1), |n| Some(2 * n)).take_while(|&n| n < most).chain([most]).collect()
    } else {
        vec![most]
    };
    let progress = |text: &str| {
        if !output.is_quiet() {
            complain(text);
        }
    };
    let mut ceilings = Vec::new();
    for &threads in &counts {
        progress(&format!("measuring the ceilings of {threads} threads ({isa})"));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = pool.map_err(|source| CliError::Threads { source })?;
        let found = pool.install(Ceilings::measure);
        head(&found, isa, output);
        ceilings.push((pool, found));
    }
    for (name, architecture) in subjects {
        let subject = subject(name, architecture, args, global)?;
        for (work, batch) in &subject.works {
            for (pool, ceilings) in &ceilings {
                progress(&format!("{}: {work}, batch {batch}, threads: {}", subject.name, ceilings.threads));
                let time = Duration::from_secs_f64(args.seconds);
                let report = pool.install(|| measure(&subject.network, *batch, *work, time, ceilings))?;
                print(&subject.name, *work, &report, args, output);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn subject(name: &str, architecture: Architecture, args: &BenchArgs, global: &Global) -> Result<Subject, CliError> {
    let network = match architecture {
        Architecture::Described(description) => Network::new(description, global.seed())?,
        Architecture::Trained(file) if file.quantized.is_some() => {
            let what = "be timed layer by layer (`striate quantize` times it beside the float one)";
            return Err(CliError::Quantized { model: name.into(), what });
        }
        Architecture::Trained(file) => file.network,
    };
    let large = network.description().input.len() >= LARGE;
    let usual = match name {
        "lenet" => 64,
        _ if name.starts_with("alexnet") => 32,
        _ if large => 16,
        _ => 100,
    };
    let optimizer = args.optimizer.unwrap_or(if large || name == "lenet" {
        OptimizerOptions::momentum()
    } else {
        OptimizerOptions::adam()
    });
    let wants = |work: &str| args.work.as_deref().is_none_or(|wanted| wanted == work);
    let chosen: Vec<usize> = args.batch.iter().map(|&n| n as usize).collect();
    let or = |usual: &[usize]| if chosen.is_empty() { usual.to_vec() } else { chosen.clone() };
    let mut works = Vec::new();
    if wants("training") {
        works.extend(or(&[usual]).into_iter().map(|batch| (Work::TrainingStep(optimizer), batch)));
    }
    if wants("inference") {
        let weights: Weights = args.weights.into();
        works.extend(or(&[usual, 1]).into_iter().map(|batch| (Work::Inference(weights), batch)));
    }
    Ok(Subject { name: name.to_owned(), network, works })
}

fn head(ceilings: &Ceilings, isa: Isa, output: &Output) {
    let mut value = to_json(ceilings);
    value["name"] = "ceilings".into();
    value["isa"] = isa.name().into();
    output.json(&value);
    let bandwidths = ceilings
        .bandwidths
        .iter()
        .map(|b| format!("{:.0} GB/s within {} KiB", b.bytes_per_second / 1e9, thousands(b.working_set >> 10)));
    output.line(format!(
        "Ceilings of {} threads ({isa}): {:.0} GFLOP/s; {}",
        ceilings.threads,
        ceilings.flops_per_second / 1e9,
        bandwidths.collect::<Vec<_>>().join(", ")
    ));
}

fn print(name: &str, work: Work, report: &Report, args: &BenchArgs, output: &Output) {
    let title = format!("{name}: {work}, batch {}", report.whole.batch);
    let json = |measurement: &Measurement, layers: Option<&str>| {
        let mut value = to_json(measurement);
        value["name"] =
            layers.map_or(title.clone(), |layers| format!("{title}: {layers}, {}", measurement.pass)).into();
        value["model"] = name.into();
        value["work"] = work.to_string().into();
        value["layers"] = layers.into();
        output.json(&value);
    };
    json(&report.whole, None);
    let whole = &report.whole;
    output.line(format!(
        "\n{title}, threads: {}\n  {} ms (fastest {}, {} runs), floor {} ms: {}; {} images/s",
        whole.threads,
        milliseconds(whole.ms),
        milliseconds(whole.least_ms),
        thousands(whole.runs),
        milliseconds(whole.floor_ms),
        percent(whole.fraction),
        thousands((1e3 * whole.batch as f64 / whole.ms.max(1e-9)) as usize)
    ));
    if args.no_layers {
        return;
    }
    let mut rows =
        vec![["layers", "pass", "ms", "floor", "fraction", "bound by", "GFLOP/s"].map(String::from).to_vec()];
    for measurement in &report.passes {
        json(measurement, Some(&measurement.name));
        let rate = measurement.flops as f64 / measurement.ms.max(1e-9) / 1e6;
        rows.push(vec![
            format!("  {}", measurement.name),
            measurement.pass.to_string(),
            milliseconds(measurement.ms),
            milliseconds(measurement.floor_ms),
            percent(measurement.fraction),
            measurement.bound.to_string(),
            if measurement.pass == Pass::Update || measurement.flops == 0 {
                String::new()
            } else {
                format!("{rate:.0}")
            },
        ]);
    }
    table(&rows, &[0, 1, 5]).iter().for_each(|line| output.line(line));
}

fn percent(fraction: f64) -> String {
    format!("{:.0} %", 100.0 * fraction)
}
