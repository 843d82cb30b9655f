//! `striate doctor`

use crate::data::{add_counts, class_table};
use crate::error::CliError;
use crate::model::{self, Architecture, ModelOptions, parse_setting, parse_shape};
use crate::output::{Output, bytes, thousands};
use crate::progress::Bar;
use crate::recipe::{Recipe, Subject};
use crate::source::{self, ReadingArgs, Source};
use clap::Args;
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use striate::data::duplicates::{self, Duplicates, Place};
use striate::data::{Dataset, memory};
use striate::kernels::isa::{self, Isa};
use striate::network::Network;
use striate::optim::OptimizerOptions;
use striate::shape::Shape;
use striate::train::{Control, Event, TrainOptions, Trainer, evaluate};

const EXAMPLES: &str = "Examples:
  striate doctor                                  this machine, and the default model on MNIST
  striate doctor --data ~/flowers                 class counts, damaged files, duplicates; memory and time
  striate doctor --data ~/flowers --model resnet18 --input 3,96,96
  striate doctor --data ~/flowers --model runs/cifar-net-flowers-1    also: labels that this model doubts

Exact duplicates have the same pixels. Near ones look the same: at most 4 of 64 bits of their difference hash differ, and
their grey miniatures of 16 x 16 pixels by at most 4 of 255 on average. Those across splits make a test result too good.";

/// Faults of a data set, and the memory and time that training will take
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DoctorArgs {
    /// A data set, as `striate train --data` takes it
    #[arg(long, value_name = "NAME|PATH", default_value = "mnist")]
    data: String,
    /// A model, as `striate train --model` takes it [default: the default recipe's]
    #[arg(long, value_name = "NAME|FILE")]
    model: Option<String>,
    /// An option of a model by name; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_setting)]
    settings: Vec<(String, String)>,
    /// Read image files at this size [default: the trained model's; their own if they agree; else 64 x 64]
    #[arg(long, value_name = "C,H,W", value_parser = parse_shape)]
    input: Option<Shape>,
    #[command(flatten)]
    reading: ReadingArgs,
    /// Images a step
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch: u32,
}

/// Faults listed of each kind; `--json` lists all.
const LISTED: usize = 10;
/// A class this many times larger than another is worth a word.
const IMBALANCE: f64 = 3.0;
/// Sides in a ratio beyond this, or shorter than this share of what the network reads, are odd.
const ODD_RATIO: usize = 3;

/// Looks at everything and prints it.
pub(crate) fn run(args: &DoctorArgs, output: &Output, isa: Isa) -> Result<ExitCode, CliError> {
    let machine = machine(output, isa);
    // A trained model says how images are read.
    let named = args.model.as_deref().map(|name| -> Result<_, CliError> {
        model::check(name, &args.settings)?;
        let is_name = striate::models::NAMES.contains(&name);
        Ok(if is_name { None } else { Some(model::architecture(name, &ModelOptions::default())?) })
    });
    let file = named.transpose()?.flatten();
    let shape = args.input.or(file.as_ref().map(|architecture| architecture.description().input));
    let trained = match file {
        Some(Architecture::Trained(file)) => Some(file),
        _ => None,
    };
    let reading = args.reading.options(shape, trained.as_ref().map(|file| &file.preprocessing));
    let source = source::open(&args.data, &reading, output)?;
    let (parts, Source { splits, report, .. }) = (source.parts(), &source);

    let mut data = counts(&parts, args, output);
    let skipped: Vec<String> = report.skipped.iter().map(|skipped| skipped.reason.to_string()).collect();
    list(output, "files that can't be read", &skipped);
    data["skipped"] = json!(skipped);
    let odd = odd_sizes(report, splits.train.shape());
    list(output, "odd sizes", &odd);
    data["sizes"] = report
        .sizes
        .iter()
        .map(|((height, width), (images, _))| json!({ "height": height, "width": width, "images": images }))
        .collect();
    data["odd_sizes"] = json!(odd);
    let bar = Bar::new("comparing images", output.is_quiet());
    let found = duplicates::find(&parts.iter().map(|(_, data)| *data).collect::<Vec<_>>(), |d, all| bar.show(d, all));
    drop(bar);
    data["duplicates"] = duplicates_found(&found, &parts, output);

    let suspicious = match &trained {
        Some(file) if file.network.classes() == splits.train.classes() => {
            Some(suspicious(&file.network, &file.preprocessing.normalization, &parts, args, output)?)
        }
        Some(_) => {
            output.line("\nThe model tells other classes apart, so it can't doubt these labels.");
            None
        }
        None => None,
    };
    let training = training(args, trained.map(|file| file.network), &splits.train, output)?;
    output.json(&json!({
        "machine": machine,
        "data": data,
        "suspicious_labels": suspicious,
        "training": training,
    }));
    Ok(ExitCode::SUCCESS)
}

fn machine(output: &Output, isa: Isa) -> Value {
    let threads = rayon::current_num_threads();
    // The rate of one core in its registers, and of all in memory.
    let begun = Instant::now();
    let operations = isa::ceiling(2_000_000);
    let gflops = operations as f64 / begun.elapsed().as_secs_f64() / 1e9;
    let bandwidth = memory::bandwidth() / 1e9;
    let available = memory::available();
    output.line(format!("machine   {threads} threads, {isa}"));
    output.line(format!("          {gflops:.0} GFLOP/s a thread at best, {bandwidth:.0} GB/s of memory"));
    if let Some(available) = available {
        output.line(format!("          {} of memory available", bytes(available as usize)));
    }
    json!({ "threads": threads, "isa": isa.name(), "gflops_per_thread": gflops, "gigabytes_per_second": bandwidth,
        "available_bytes": available })
}

fn counts(parts: &[(&str, &Dataset)], args: &DoctorArgs, output: &Output) -> Value {
    let Some((_, train)) = parts.first() else { return Value::Null };
    let names = train.class_names();
    output.line(format!("\ndata      {}: images of {}, {} classes", args.data, train.shape(), names.len()));
    if train.is_streamed() {
        output.line("          larger than half of the memory: decoded anew whenever an image is needed");
    }
    let counts = class_table(parts, output);
    let in_train = counts.first().cloned().unwrap_or_default();
    let (least, most) = (in_train.iter().min().copied().unwrap_or(0), in_train.iter().max().copied().unwrap_or(0));
    let imbalance = most as f64 / least.max(1) as f64;
    if imbalance >= IMBALANCE {
        output.line(format!(
            "\nunbalanced: the largest class has {imbalance:.1} times the images of the smallest; accuracy alone then \
             says little, look at each class"
        ));
    }
    let mut json = json!({ "data": args.data, "shape": <[usize; 3]>::from(train.shape()), "classes": names,
        "imbalance": imbalance, "streamed": train.is_streamed() });
    add_counts(&mut json, parts, &counts);
    json
}

/// Sizes that lose much on the way to the network's.
fn odd_sizes(report: &striate::data::image_folder::Report, shape: Shape) -> Vec<String> {
    let reason = |height: usize, width: usize| {
        if height.max(width) > ODD_RATIO * height.min(width) {
            Some("much longer than wide, and squeezed")
        } else if 2 * height < shape.height || 2 * width < shape.width {
            Some("enlarged more than twice")
        } else {
            None
        }
    };
    report
        .sizes
        .iter()
        .filter_map(|(&(height, width), (images, first))| {
            let reason = reason(height, width)?;
            let (images, first) = (thousands(*images), first.display());
            Some(format!("{images} of {height} x {width}: {reason}; the first: {first}"))
        })
        .collect()
}

fn name_of(parts: &[(&str, &Dataset)], place: Place) -> String {
    let Some((part, data)) = parts.get(place.part) else { return String::new() };
    match data.path(place.index) {
        Some(path) => path.display().to_string(),
        None => format!("{part}:{}", place.index),
    }
}

fn label_of<'a>(parts: &[(&str, &'a Dataset)], place: Place) -> &'a str {
    let name = |data: &'a Dataset| data.class_names().get(*data.labels().get(place.index)?);
    parts.get(place.part).and_then(|(_, data)| name(data)).map_or("", String::as_str)
}

fn duplicates_found(found: &Duplicates, parts: &[(&str, &Dataset)], output: &Output) -> Value {
    let across = |places: &[Place]| places.iter().any(|place| Some(place.part) != places.first().map(|p| p.part));
    let labels = |places: &[Place]| {
        let first = places.first().map(|&place| label_of(parts, place));
        places.iter().any(|&place| Some(label_of(parts, place)) != first)
    };
    let marks = |places: &[Place]| {
        let across = if across(places) { "  [across splits]" } else { "" };
        let labels = if labels(places) { "  [with different labels]" } else { "" };
        format!("{across}{labels}")
    };
    // What matters most first.
    let mut exact: Vec<&Vec<Place>> = found.exact.iter().collect();
    exact.sort_by_key(|places| (!labels(places), !across(places)));
    let mut near: Vec<_> = found.near.iter().collect();
    near.sort_by_key(|near| !across(&[near.first, near.second]));
    let names = |places: &[Place]| places.iter().map(|&place| name_of(parts, place)).collect::<Vec<_>>();
    let lines: Vec<String> =
        exact.iter().map(|places| format!("{}{}", names(places).join("  =  "), marks(places))).collect();
    list(output, "groups of exact duplicates", &lines);
    let lines: Vec<String> = near
        .iter()
        .map(|near| {
            let places = [near.first, near.second];
            format!("{}{}", names(&places).join("  ~  "), marks(&places))
        })
        .collect();
    list(output, "pairs of near duplicates", &lines);
    let leaks = exact.iter().filter(|places| across(places)).count()
        + near.iter().filter(|near| across(&[near.first, near.second])).count();
    if leaks > 0 {
        output.line(format!(
            "{} of these are across splits: what is measured on the test images is too good by them",
            thousands(leaks)
        ));
    }
    json!({
        "exact": exact.iter().map(|places| json!({ "images": names(places), "across_splits": across(places),
            "different_labels": labels(places) })).collect::<Vec<_>>(),
        "near": near.iter().map(|near| {
            let places = [near.first, near.second];
            json!({ "images": names(&places), "difference": near.difference, "across_splits": across(&places),
                "different_labels": labels(&places) })
        }).collect::<Vec<_>>(),
    })
}

/// Where the model is most sure that a label is wrong.
fn suspicious(
    network: &Network,
    normalization: &striate::data::Normalization,
    parts: &[(&str, &Dataset)],
    args: &DoctorArgs,
    output: &Output,
) -> Result<Value, CliError> {
    let mut all = Vec::new();
    for (part, (_, data)) in parts.iter().enumerate() {
        let found = evaluate(network, data, normalization, args.batch as usize)?;
        all.extend(found.mistakes.into_iter().map(|mistake| (part, mistake)));
    }
    all.sort_by(|(_, a), (_, b)| b.probability.total_cmp(&a.probability));
    let class = |class: usize| {
        let names = parts.first().map(|(_, data)| data.class_names()).unwrap_or_default();
        names.get(class).cloned().unwrap_or_default()
    };
    let name = |part: usize, index: usize| name_of(parts, Place { part, index });
    let lines: Vec<String> = all
        .iter()
        .map(|(part, mistake)| {
            let (label, predicted) = (class(mistake.label), class(mistake.predicted));
            let sure = 100.0 * mistake.probability;
            format!("{}  labelled {label}; the model is {sure:.1} % sure of {predicted}", name(*part, mistake.index))
        })
        .collect();
    list(output, "labels that the model doubts most", &lines);
    Ok(all
        .iter()
        .map(|(part, mistake)| {
            json!({ "image": name(*part, mistake.index), "label": class(mistake.label),
                "predicted": class(mistake.predicted), "probability": mistake.probability })
        })
        .collect())
}

/// Memory by the plan, and time by a trial of two seconds.
fn training(args: &DoctorArgs, trained: Option<Network>, train: &Dataset, output: &Output) -> Result<Value, CliError> {
    const TRIAL: Duration = Duration::from_secs(2);
    let recipe = Recipe::default().options(Subject::of(train), train.shape().channels == 1);
    let name = args.model.clone().unwrap_or_else(|| recipe.model.into());
    let mut network = match trained {
        Some(network) => network,
        None => {
            let wanted = if striate::models::NAMES.contains(&name.as_str()) {
                let (input, classes) = (Some(train.shape()), Some(train.classes()));
                ModelOptions { input, classes, settings: args.settings.clone() }
            } else {
                ModelOptions::default()
            };
            Network::new(model::architecture(&name, &wanted)?.description().clone(), 1)?
        }
    };
    let batch = (args.batch as usize).min(train.len());
    let summary = network.summary(batch)?;
    // Adam's two moments and the average of the weights, as the recipes have them.
    let optimizer = 3 * 4 * summary.parameters;
    let pixels = if train.is_streamed() { 2 * 4 * batch * train.shape().len() } else { train.pixels().len() };
    let peak = summary.peak_bytes + optimizer + pixels;
    let options = TrainOptions {
        batch,
        epochs: 1000,
        log_every: 1,
        optimizer: OptimizerOptions::adam(),
        learning_rate: 1e-5,
        ..TrainOptions::default()
    };
    let (mut begun, mut images) = (None, 0);
    let (mut seconds, start) = (0.0, Instant::now());
    let trial = train.head(train.len().min(100 * batch));
    Trainer::new(&mut network, &trial, None, trial.head(1000).normalization(), options)?.run(&mut |event| {
        if let Event::Step { .. } = event {
            match begun {
                // The first step finds nothing in the caches.
                None => begun = Some(Instant::now()),
                Some(begun) => {
                    images += batch;
                    seconds = begun.elapsed().as_secs_f64();
                }
            }
        }
        if start.elapsed() > TRIAL && images > 0 { Control::Stop } else { Control::Continue }
    })?;
    let rate = images as f64 / f64::max(seconds, 1e-9);
    let epoch = train.len() as f64 / rate;
    output.line(format!("\ntraining  {name}: {} parameters, batches of {batch}", thousands(summary.parameters)));
    output.line(format!("          {} at the peak, the training images included", bytes(peak)));
    output
        .line(format!("          {rate:.0} images/s in a trial of {seconds:.1} s: an epoch takes {}", duration(epoch)));
    if memory::available().is_some_and(|available| peak as u64 > available) {
        output.line("          that is more memory than is available: use smaller batches, images or models");
    }
    Ok(json!({ "model": name, "parameters": summary.parameters, "batch": batch, "peak_bytes": peak,
        "images_per_second": rate, "seconds_per_epoch": epoch }))
}

fn duration(seconds: f64) -> String {
    match seconds {
        ..100.0 => format!("{seconds:.1} s"),
        ..6000.0 => format!("{:.1} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}

/// Prints what there is of something, or that there is none.
fn list(output: &Output, what: &str, items: &[String]) {
    if items.is_empty() {
        output.line(format!("\nno {what}"));
    }
    output.list(what, LISTED, items.iter().cloned());
}
