//! The command from outside: what it prints, writes and returns.

use crate::bars::{self, SIDE};
use crate::running::Running;
use crate::{command as striate, finished, run};
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;

const CLASSES: [&str; 4] = ["row", "column", "falling", "rising"];

/// Expects a failure whose message has these parts, and is no dump of a data structure.
fn refused(directory: &Path, arguments: &[&str], status: i32, parts: &[&str]) {
    let (_, stderr) = run(directory, arguments, status);
    assert!(stderr.contains("error: "), "{stderr}");
    for part in parts {
        assert!(stderr.contains(part), "{arguments:?}: {part:?} is not in: {stderr}");
    }
    for dump in ["Some(", "Err(", "Error {", "NotFound"] {
        assert!(!stderr.contains(dump), "{arguments:?}: {dump:?} is in: {stderr}");
    }
}

/// The last line of stdout.
fn json(stdout: &str) -> Value {
    serde_json::from_str(stdout.lines().last().unwrap()).unwrap()
}

fn has_keys(value: &Value, keys: &[&str]) {
    for key in keys {
        assert!(value.get(key).is_some(), "{key} is not in {value}");
    }
}

/// A bar in one of four directions on a dim background, by image number.
fn bar(n: usize) -> Vec<u8> {
    let at = n / 4 % (SIDE - 2) + 1;
    let mut pixels: Vec<u8> = (0..SIDE * SIDE).map(|i| ((i * 7 + n * 13) % 23) as u8).collect();
    for j in 0..SIDE {
        let (y, x) = [(at, j), (j, at), (j, j), (j, SIDE - 1 - j)][n % 4];
        pixels[y * SIDE + x] = 250;
    }
    pixels
}

/// A directory of IDX files: bars, 200 to train with and 40 to test with.
fn write_bars(directory: &Path) {
    bars::write(directory, 200, |n| bar(n as usize));
    fs::write(directory.join("classes.txt"), CLASSES.join("\n")).unwrap();
}

/// A directory that holds the data `bars`.
fn place() -> TempDir {
    let place = tempfile::tempdir().unwrap();
    write_bars(&place.path().join("bars"));
    place
}

/// The same with a trained model in `run`.
fn trained() -> TempDir {
    let place = place();
    // Thirty steps are too few to grow from the recipe's small weights.
    let arguments = ["train", "--data", "bars", "--init", "he", "--epochs", "3", "--batch", "20", "--out", "run", "-q"];
    run(place.path(), &arguments, 0);
    place
}

/// Image `n` as a file.
fn save_png(path: &Path, n: usize) {
    image::GrayImage::from_raw(SIDE as u32, SIDE as u32, bar(n)).unwrap().save(path).unwrap();
}

fn read_toml(path: &Path) -> toml::Table {
    toml::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn every_command_has_help_with_examples() {
    let here = Path::new(".");
    let (overview, _) = run(here, &["--help"], 0);
    assert!(overview.contains("Examples:") && overview.contains("Exit status"), "{overview}");
    for command in
        ["train", "evaluate", "predict", "explain", "summary", "verify", "convert", "bench", "data", "doctor"]
    {
        assert!(overview.contains(command), "{command}: {overview}");
        let (help, stderr) = run(here, &[command, "--help"], 0);
        assert!(help.contains("Examples:") && help.contains(&format!("striate {command}")), "{help}");
        for flag in ["--json", "--threads", "--seed", "--quiet"] {
            assert!(help.contains(flag), "{command} {flag}: {help}");
        }
        assert_eq!(stderr, "");
    }
    let (version, _) = run(here, &["--version"], 0);
    assert_eq!(version.trim(), concat!("striate ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_usage_is_2_and_says_what_there_is() {
    let place = place();
    let here = place.path();
    refused(here, &["train", "--data", "bars", "--model", "alexnot"], 2, &["alexnot", "simple-convnet", "mlp"]);
    refused(here, &["summary", "alexnot"], 2, &["alexnot", "simple-convnet", "mlp"]);
    // Not what this machine's user happens to have.
    let arguments = ["train", "--data", "cifar10"];
    let elsewhere = striate(here, &arguments).env("XDG_CACHE_HOME", here).env("LOCALAPPDATA", here).output().unwrap();
    let (_, stderr) = finished(elsewhere, &arguments, 2);
    assert!(stderr.contains("cifar10 is not here") && stderr.contains("`striate data fetch cifar10`"), "{stderr}");
    refused(here, &["train", "--data", "bars/classes.txt"], 2, &["bars/classes.txt", "is a file"]);
    refused(here, &["train", "--optimizer", "adamant"], 2, &["adamant", "sgd", "nesterov", "adamw"]);
    refused(here, &["train", "--optimizer", "adam:beta1=2"], 2, &["beta1", "less than 1"]);
    refused(here, &["train", "--schedule", "sine"], 2, &["sine", "constant", "cosine"]);
    refused(here, &["train", "--schedule", "step:every=2"], 2, &["every of step is 2", "at most 1"]);
    refused(here, &["train", "--decay", "biases"], 2, &["biases", "all or weights"]);
    refused(here, &["train", "--optimizer", "adam", "--weight-decay", "0.1"], 2, &["weight_decay of adam", "adamw"]);
    refused(here, &["train", "--init", "zero"], 2, &["he", "xavier", "normal"]);
    refused(here, &["train", "--recipe", "bestest"], 2, &["bestest", "default", "book"]);
    refused(here, &["train", "--epoch", "3"], 2, &["--epoch", "--epochs"]);
    refused(here, &["trian"], 2, &["trian", "train"]);
    refused(here, &["explain", "run", "dreams"], 2, &["dreams", "filters"]);
    refused(here, &["summary", "mlp", "--threads", "0"], 2, &["--threads", "1..=1024"]);
    refused(here, &["summary", "mlp", "--threads", "1025"], 2, &["--threads", "1..=1024"]);
    refused(here, &["summary", "mlp", "--batch", "0"], 2, &["--batch"]);
    refused(here, &["summary", "mlp", "--input", "28x28"], 2, &["channels,height,width"]);
    refused(here, &["summary", "alexnet", "--input", "3,5,5"], 2, &["an input of 3 x 5 x 5: layer", "nearest squares"]);
    refused(here, &["summary", "lenet", "--classes", "0"], 2, &["with 0 classes", "at least 1"]);
    for command in ["train", "doctor"] {
        // Before any data is looked for.
        let arguments = [command, "--data", "nowhere", "--model", "lenet", "--set", "activation=no"];
        refused(here, &arguments, 2, &["activation=no", "relu"]);
    }
    for setting in ["--epochs=0", "--batch=0", "--lr=nan", "--lr=0", "--average=1"].into_iter().chain([
        "--label-smoothing=1",
        "--clip=inf",
        "--clip=-1",
        "--weight-decay=-1",
    ]) {
        refused(here, &["train", "--data", "bars", setting], 2, &["must be"]);
    }
    refused(here, &["bench", "--model", "alexnot"], 2, &["alexnot", "simple-convnet"]);
    refused(here, &["bench", "--model", "mlp", "--batch", "8,0"], 2, &["--batch", "1..=65536"]);
    refused(here, &["bench", "--work", "play"], 2, &["play", "training", "inference"]);
    refused(here, &["bench", "--seconds=-1"], 2, &["--seconds"]);
    refused(here, &["bench", "--optimizer", "adamant"], 2, &["adamant", "momentum"]);
    refused(here, &["bench", "--set", "hidden=3"], 2, &["--model"]);
    refused(here, &["evaluate", "nowhere"], 2, &["nowhere", "no such file"]);
    refused(here, &["evaluate", "bars"], 2, &["bars", "model.safetensors"]);
    refused(here, &["predict", "nowhere"], 2, &["IMAGE"]);
    assert!(!here.join("runs").exists(), "nothing was written");
}

#[test]
fn bench_gives_a_line_for_every_measurement() {
    let here = Path::new(".");
    let mlp = ["bench", "--model", "mlp", "--input", "1,8,8", "--batch", "1,3", "--seconds", "0", "--threads", "2"];
    let (stdout, stderr) = run(here, &[&mlp[..], &["--each-threads", "--json"]].concat(), 0);
    assert!(stderr.contains("mlp: training step, batch 3, threads: 2"), "{stderr}");
    let lines: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (ceilings, measurements): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line["name"] == "ceilings");
    assert_eq!(ceilings.len(), 2);
    ceilings.iter().for_each(|line| has_keys(line, &["threads", "isa", "flops_per_second", "bandwidths"]));
    for line in &measurements {
        has_keys(
            line,
            &["name", "threads", "ms", "floor_ms", "fraction", "least_ms", "runs", "batch", "pass", "bytes"],
        );
    }
    let whole: Vec<&str> =
        measurements.iter().filter(|line| line["pass"] == "whole").map(|line| line["name"].as_str().unwrap()).collect();
    let works = ["training step, batch 1", "training step, batch 3", "inference, batch 1", "inference, batch 3"];
    assert_eq!(whole, works.map(|work| [format!("mlp: {work}"), format!("mlp: {work}")]).concat());
    let (stdout, stderr) = run(here, &[&mlp[..], &["--no-layers", "--quiet"]].concat(), 0);
    assert!(stdout.contains("Ceilings of 2 threads") && stdout.contains("images/s"), "{stdout}");
    assert!(!stdout.contains("backward-weights"), "{stdout}");
    assert_eq!(stderr, "");
}

#[test]
fn bf16_weights_are_evaluated_beside_f32() {
    let place = place();
    let here = place.path();
    // Hidden layers large enough that memory would be their limit.
    let hidden = "hidden=[1024,1024]";
    let arguments =
        ["train", "--data", "bars", "--model", "mlp", "--set", hidden, "--epochs", "2", "--out", "run", "-q"];
    run(here, &arguments, 0);
    let (plain, _) = run(here, &["evaluate", "run", "--data", "bars", "--json"], 0);
    let (rounded, _) = run(here, &["evaluate", "run", "--data", "bars", "--weights", "bf16", "--json"], 0);
    let (plain, rounded) = (json(&plain), json(&rounded));
    assert_eq!(rounded["weights"], "bf16");
    assert_eq!((&rounded["f32_accuracy"], &rounded["f32_loss"]), (&plain["accuracy"], &plain["loss"]));
    let [exact, near] = [&plain, &rounded].map(|result| result["loss"].as_f64().unwrap());
    assert!(exact != near && (exact - near).abs() < 0.02 * exact.max(0.1), "{exact} {near}");
    let (text, _) = run(here, &["evaluate", "run", "--data", "bars", "--weights", "bf16"], 0);
    assert!(text.contains("weights in bf16") && text.contains("as they are: accuracy"), "{text}");
    save_png(&here.join("one.png"), 3);
    let (found, _) = run(here, &["predict", "run", "one.png", "one.png", "--weights", "bf16", "--json"], 0);
    let found = json(&found);
    assert_eq!(found[0]["top"], found[1]["top"]);
    refused(here, &["predict", "run", "one.png", "--weights", "int4"], 2, &["int4", "f32", "bf16"]);
}

#[test]
fn training_leaves_a_whole_run_directory() {
    let place = place();
    let arguments = ["train", "--data", "bars", "--epochs", "1", "--batch", "30", "--seed", "5", "--json"];
    let (stdout, stderr) = run(place.path(), &arguments, 0);
    assert_eq!(stdout.lines().count(), 1, "{stdout}");
    let result = json(&stdout);
    has_keys(&result, &["out", "seed", "recipe", "epochs", "steps", "seconds", "images_per_second"]);
    has_keys(&result, &["train_accuracy", "test_accuracy", "test_loss", "weights_sha256"]);
    assert_eq!((result["seed"].as_u64(), result["epochs"].as_u64()), (Some(5), Some(1)));
    assert_eq!(result["steps"], 7, "six batches of 30 and the remaining 20 images");
    assert_eq!(result["recipe"], "default");
    assert_eq!(result["weights_sha256"].as_str().unwrap().len(), 64);
    // Nobody watches: a line an epoch and no more.
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("epoch 1/1") && stderr.contains("test accuracy"), "{stderr}");

    assert_eq!(result["out"], "runs/simple-convnet-bars-1");
    let out = place.path().join("runs/simple-convnet-bars-1");
    let names = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name != ".lock").collect();
    names.sort();
    let pictures = ["confusion.svg", "curves.svg", "filters-after.png", "filters-before.png"];
    let middle = ["last.ckpt", "metrics.jsonl", "mistakes.png", "model.safetensors"];
    assert_eq!(names, [&pictures[..], &middle, &["reliability.svg", "report.html", "run.toml"]].concat());
    for picture in ["filters-before.png", "filters-after.png"] {
        let picture = image::open(out.join(picture)).unwrap();
        assert!(picture.width() > 50 && picture.height() > 50);
    }
    for picture in ["curves.svg", "confusion.svg", "reliability.svg"] {
        assert!(fs::read_to_string(out.join(picture)).unwrap().contains("<svg"));
    }
    let report = fs::read_to_string(out.join("report.html")).unwrap();
    let sha = result["weights_sha256"].as_str().unwrap();
    for part in
        ["simple-convnet on bars", "--epochs 1", sha, "falling", "Before training", "mean of classes", "data:image"]
    {
        assert!(report.contains(part), "{part} is not in the report");
    }
    let settings = read_toml(&out.join("run.toml"));
    for key in ["data", "model", "recipe", "seed", "epochs", "batch", "lr", "optimizer", "schedule", "augment"] {
        assert!(settings.contains_key(key), "{key} is not in {settings}");
    }
    assert_eq!(settings["batch"].as_integer(), Some(30));
    let metrics = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let lines: Vec<Value> = metrics.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|line| line["type"] == "step" && line["loss"].is_number()), "{metrics}");
    let [.., epoch, evaluation] = &lines[..] else { panic!("{metrics}") };
    assert_eq!((evaluation["type"].as_str(), &evaluation["accuracy"]), (Some("evaluation"), &result["test_accuracy"]));
    has_keys(evaluation, &["data", "top5", "loss", "macro_average", "calibration", "classes", "confusion"]);
    assert_eq!((epoch["type"].as_str(), epoch["epoch"].as_u64()), (Some("epoch"), Some(1)));
    assert_eq!(epoch["test_accuracy"], result["test_accuracy"]);

    // The model file tells how it was trained in the digits that were asked for.
    let model = fs::read(out.join("model.safetensors")).unwrap();
    let rate = format!("\\\"lr\\\":{},", settings["lr"]);
    assert!(String::from_utf8_lossy(&model).contains(&rate), "{rate} is not in the model file");

    // The same seed gives the same weights on any number of threads.
    for threads in ["1", "3"] {
        let again = [&arguments[..], &["--out", threads, "--threads", threads]].concat();
        let (stdout, _) = run(place.path(), &again, 0);
        assert_eq!(json(&stdout)["weights_sha256"], result["weights_sha256"], "{threads} threads");
    }
    // The next run stands beside the first.
    let (stdout, _) = run(place.path(), &arguments, 0);
    assert_eq!(json(&stdout)["out"], "runs/simple-convnet-bars-2");
}

#[test]
fn tensorboard_gets_a_file_of_its_own() {
    let place = place();
    let arguments = ["train", "--data", "bars", "--epochs", "2", "--out", "run", "--tensorboard", "-q"];
    run(place.path(), &arguments, 0);
    let files = fs::read_dir(place.path().join("run")).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> = files.filter(|path| path.to_str().unwrap().contains("events.out.tfevents.")).collect();
    assert_eq!(files.len(), 1);
    let bytes = fs::read(&files[0]).unwrap();
    // Whole records: a length, its checksum, a message, its checksum.
    let (mut at, mut records) = (0, 0);
    while at < bytes.len() {
        at += 16 + u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
        records += 1;
    }
    // The version, the filters before, and of each epoch the last step, the epoch and the filters.
    assert_eq!((at, records), (bytes.len(), 2 + 2 * 3));
}

#[test]
fn the_book_recipe_is_the_book() {
    let place = place();
    let arguments = ["train", "--data", "bars", "--recipe", "book", "--epochs", "1", "--out", "book", "-q"];
    run(place.path(), &arguments, 0);
    let settings = read_toml(&place.path().join("book/run.toml"));
    assert_eq!(settings["batch"].as_integer(), Some(100));
    assert!((settings["lr"].as_float().unwrap() - 0.001).abs() < 1e-9);
    assert_eq!(settings["average"].as_float(), Some(0.0));
    assert_eq!(settings["optimizer"]["name"].as_str(), Some("adam"));
    assert_eq!(settings["schedule"]["name"].as_str(), Some("constant"));
    // The model's own start, deviation 0.01, unless --init says otherwise.
    assert!(!settings.contains_key("init"), "{}", settings["init"]);
    // The number of epochs was overridden; the recipe's own is in the help.
    let (help, _) = run(place.path(), &["train", "--help"], 0);
    assert!(help.contains("20"), "{help}");
}

#[test]
fn every_way_to_regularise_reaches_the_run() {
    let place = place();
    let arguments = ["train", "--data", "bars", "--epochs", "2", "--quiet", "--json", "--out"];
    let (plain, _) = run(place.path(), &[&arguments[..], &["plain"]].concat(), 0);
    let flags = ["all", "--optimizer=nesterov:momentum=0.8", "--weight-decay=0.125", "--decay=weights", "--clip=0.25"];
    let more = ["--label-smoothing=0.0625", "--schedule=onecycle:peak=0.25,start=0.5,end=0", "--log-every=1"];
    let (result, _) = run(place.path(), &[&arguments[..], &flags, &more].concat(), 0);
    assert_ne!(json(&plain)["weights_sha256"], json(&result)["weights_sha256"]);

    let settings = read_toml(&place.path().join("all/run.toml"));
    assert_eq!(settings["decay"].as_str(), Some("weights"));
    assert_eq!(settings["label_smoothing"].as_float(), Some(0.0625));
    assert_eq!(settings["clip"].as_float(), Some(0.25));
    assert_eq!(settings["optimizer"]["name"].as_str(), Some("nesterov"));
    assert_eq!(settings["optimizer"]["weight_decay"].as_float(), Some(0.125));
    assert_eq!(settings["schedule"]["name"].as_str(), Some("onecycle"));
    assert_eq!(settings["schedule"]["peak"].as_float(), Some(0.25));
    let metrics = fs::read_to_string(place.path().join("all/metrics.jsonl")).unwrap();
    let lines: Vec<Value> = metrics.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let steps: Vec<&Value> = lines.iter().filter(|line| line["type"] == "step").collect();
    assert!(steps.iter().all(|line| line["gradient_norm"].as_f64().is_some_and(|norm| norm > 0.0)), "{metrics}");
    // Two epochs of two steps: the top of the cycle is the first step, and the last one ends it.
    let rates: Vec<f64> = steps.iter().map(|line| line["learning_rate"].as_f64().unwrap()).collect();
    assert_eq!((rates.len(), rates[0], rates[3]), (4, 0.01, 0.0));

    let settings = read_toml(&place.path().join("plain/run.toml"));
    assert_eq!(settings["decay"].as_str(), Some("all"));
    assert_eq!((settings["label_smoothing"].as_float(), settings["clip"].as_float()), (Some(0.0), Some(0.0)));
    let metrics = fs::read_to_string(place.path().join("plain/metrics.jsonl")).unwrap();
    assert!(!metrics.contains("gradient_norm"), "{metrics}");
}

#[test]
fn quiet_training_prints_only_the_result() {
    let place = place();
    let arguments = ["train", "--data", "bars", "--model", "mlp", "--epochs", "1", "--out", "run", "--quiet"];
    let (stdout, stderr) = run(place.path(), &arguments, 0);
    assert_eq!(stderr, "");
    assert!(stdout.contains("test accuracy") && stdout.contains("of 40)"), "{stdout}");
    // No convolution, no filters.
    assert!(!place.path().join("run/filters-before.png").exists());
    refused(place.path(), &["explain", "run", "filters"], 1, &["no convolution", "W1, b1"]);
}

#[test]
fn an_architecture_written_to_a_file_and_a_trained_model_can_be_trained() {
    let place = place();
    let here = place.path();
    let (text, _) =
        run(here, &["summary", "mlp", "--input", &format!("1,{SIDE},{SIDE}"), "--classes", "4", "--toml"], 0);
    fs::write(here.join("my.toml"), text.replace("outputs = 100", "outputs = 7")).unwrap();
    let train =
        |model: &'static str, out| ["train", "--data", "bars", "--model", model, "--epochs", "1", "--out", out, "-q"];
    run(here, &train("my.toml", "first"), 0);
    let (summary, _) = run(here, &["summary", "first"], 0);
    assert!(summary.contains("7 outputs"), "{summary}");
    // Its weights are where the second run starts.
    run(here, &train("first", "second"), 0);
    refused(
        here,
        &[&train("my.toml", "third")[..], &["--set", "hidden=3"]].concat(),
        2,
        &["--set is for a model by name"],
    );
    fs::write(here.join("other.toml"), text.replace("outputs = 4", "outputs = 5")).unwrap();
    refused(here, &train("other.toml", "third"), 2, &["other.toml", "5 classes", "4"]);
    fs::write(here.join("wrong.toml"), text.replace("outputs = 4", "output = 4")).unwrap();
    refused(here, &train("wrong.toml", "third"), 1, &["wrong.toml, line ", "unknown field `output`"]);
    assert!(!here.join("third").exists());
}

#[test]
fn training_ends_with_where_everything_is_and_what_to_try() {
    let place = place();
    let (stdout, _) = run(place.path(), &["train", "--data", "bars", "--epochs", "1", "--out", "run"], 0);
    for part in ["training accuracy", "of 200)", "test accuracy", "curves.svg", "filters-after.png"] {
        assert!(stdout.contains(part), "{part}: {stdout}");
    }
    for next in ["striate evaluate run", "striate explain run filters"] {
        assert!(stdout.contains(next), "{next}: {stdout}");
    }
}

#[test]
fn a_directory_that_is_not_empty_is_left_alone() {
    let place = place();
    fs::create_dir(place.path().join("full")).unwrap();
    fs::write(place.path().join("full/thesis.txt"), "three years").unwrap();
    let arguments = ["train", "--data", "bars", "--epochs", "1", "--out", "full"];
    refused(place.path(), &arguments, 1, &["full", "not empty"]);
    assert_eq!(fs::read_dir(place.path().join("full")).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(place.path().join("full/thesis.txt")).unwrap(), "three years");
}

#[test]
fn a_batch_larger_than_the_data_is_refused_before_anything_is_written() {
    let place = place();
    let arguments = ["train", "--data", "bars", "--batch", "201", "--out", "run"];
    refused(place.path(), &arguments, 1, &["201", "200 images", "at most 200"]);
    assert!(!place.path().join("run").exists());
}

#[test]
fn damaged_data_is_named() {
    let place = place();
    let labels = place.path().join("bars/train-labels-idx1-ubyte");
    let whole = fs::read(&labels).unwrap();
    fs::write(&labels, &whole[..whole.len() - 9]).unwrap();
    refused(place.path(), &["train", "--data", "bars"], 1, &["train-labels-idx1-ubyte"]);
    fs::remove_file(&labels).unwrap();
    refused(place.path(), &["data", "info", "bars"], 1, &["bars", "no training labels"]);
}

#[test]
fn a_model_is_calibrated_only_when_asked() {
    let place = trained();
    let here = place.path();
    // Two steps of training leave mistakes, without which there would be nothing to calibrate.
    let arguments = ["train", "--data", "bars", "--init", "he", "--epochs", "1", "--out", "poor", "-q"];
    run(here, &arguments, 0);
    let before = fs::read(here.join("poor/model.safetensors")).unwrap();
    let pictures = ["--reliability", "reliability.svg", "--mistakes", "mistakes.png"];
    run(here, &[&["evaluate", "poor"], &pictures[..]].concat(), 0);
    assert_eq!(fs::read(here.join("poor/model.safetensors")).unwrap(), before);
    assert!(fs::read_to_string(here.join("reliability.svg")).unwrap().contains("calibration error"));
    assert!(image::open(here.join("mistakes.png")).unwrap().width() > 200);

    let (plain, _) = run(here, &["evaluate", "poor", "--json"], 0);
    let (plain, (fitted, _)) =
        (json(&plain), run(here, &["evaluate", "poor", "--split", "train", "--calibrate", "--json"], 0));
    let fitted = json(&fitted);
    assert_eq!(fitted["temperature"]["images"], 200);
    assert!(fitted["temperature"]["data"].as_str().unwrap().contains("train"), "{fitted}");
    assert!(fitted["scaled"]["loss"].as_f64() < fitted["loss"].as_f64(), "{fitted}");
    let (stdout, _) = run(here, &["evaluate", "poor", "--json"], 0);
    let scaled = json(&stdout);
    for key in ["accuracy", "loss", "confusion"] {
        assert_eq!(scaled[key], plain[key]);
    }
    assert_eq!(scaled["scaled"]["temperature"], fitted["temperature"]["value"]);
    let (stdout, _) = run(here, &["evaluate", "poor"], 0);
    assert!(stdout.contains("at temperature") && stdout.contains("fitted on 200 images"), "{stdout}");
    run(here, &["verify", "poor"], 0);

    save_png(&here.join("bar.png"), 0);
    let probability = |model: &str| {
        let (stdout, _) = run(here, &["predict", model, "bar.png", "--json"], 0);
        json(&stdout)[0]["probability"].as_f64().unwrap()
    };
    let calibrated = probability("poor");
    fs::write(here.join("old.safetensors"), before).unwrap();
    assert_ne!(calibrated, probability("old.safetensors"));

    // All right: the surer the better, so no temperature is best.
    refused(here, &["evaluate", "run", "--calibrate"], 1, &["no temperature", "left as it was"]);
}

#[test]
fn a_trained_model_answers_every_command() {
    let place = trained();
    let here = place.path();

    let (stdout, _) = run(here, &["evaluate", "run", "--confusion", "confusion.svg"], 0);
    for part in ["accuracy", "top 5", "precision", "recall", "F1", "falling", "of 40)"] {
        assert!(stdout.contains(part), "{part}: {stdout}");
    }
    assert!(fs::read_to_string(here.join("confusion.svg")).unwrap().contains("<svg"));
    let (stdout, _) = run(here, &["evaluate", "run/model.safetensors", "--data", "bars", "--json"], 0);
    let result = json(&stdout);
    has_keys(&result, &["images", "accuracy", "top5", "loss"]);
    assert_eq!((result["images"].as_u64(), result["top5"].as_f64()), (Some(40), Some(1.0)));
    assert!(result["accuracy"].as_f64().unwrap() > 0.9, "{result}");
    has_keys(
        &result,
        &["macro_average", "calibration", "classes", "confusion", "mistakes", "expected_calibration_error"],
    );
    has_keys(&result["classes"][3], &["images", "precision", "recall", "f1"]);
    assert_eq!((&result["temperature"], &result["scaled"]), (&Value::Null, &Value::Null));
    let (stdout, _) = run(here, &["evaluate", "run", "--split", "train", "--json"], 0);
    assert_eq!(json(&stdout)["images"], 200);

    let (stdout, _) = run(here, &["summary", "run", "--json"], 0);
    let result = json(&stdout);
    has_keys(&result, &["layers", "parameters", "flops", "peak_bytes", "weights_sha256"]);
    // 30 filters of 5 x 5 with a bias; 30 maps of 4 x 4 and a bias to 100; 100 and a bias to 4.
    assert_eq!(result["parameters"], 30 * 26 + 481 * 100 + 101 * 4);
    assert_eq!(result["layers"].as_array().unwrap().len(), 6);
    refused(here, &["summary", "run", "--classes", "7"], 2, &["--classes"]);

    let (stdout, _) = run(here, &["verify", "run", "--json"], 0);
    let result = json(&stdout);
    assert_eq!((result["vectors"].as_u64(), result["passed"].as_bool()), (Some(5), Some(true)));
    assert!(result["first_difference"].is_null());

    run(here, &["explain", "run", "filters"], 0);
    run(here, &["explain", "run/model.safetensors", "filters", "--layer", "W1", "--out", "f.png"], 0);
    assert_eq!(fs::read(here.join("f.png")).unwrap(), fs::read(here.join("run/filters.png")).unwrap());
    run(here, &["explain", "run/model.safetensors", "filters"], 0);
    assert!(here.join("filters.png").exists());
    refused(here, &["explain", "run", "filters", "--layer", "W9"], 1, &["W9", "hold filters are Conv1 (W1)"]);

    // Away from the data, the flag that would help is named.
    let elsewhere = tempfile::tempdir().unwrap();
    let model = here.join("run");
    refused(elsewhere.path(), &["evaluate", model.to_str().unwrap()], 2, &["trained on \"bars\"", "--data"]);
    refused(here, &["evaluate", "run", "--data", "mnist"], 1, &["10 classes", "tells 4 apart"]);
}

#[test]
fn pictures_are_predicted_and_bad_ones_named() {
    let place = trained();
    let here = place.path();
    save_png(&here.join("row.png"), 8);
    save_png(&here.join("rising.png"), 11);
    fs::write(here.join("bad.png"), "not a picture").unwrap();

    let (stdout, _) = run(here, &["predict", "run", "row.png", "rising.png", "--top", "2", "--json"], 0);
    let results = json(&stdout);
    let results = results.as_array().unwrap();
    let classes: Vec<&str> = results.iter().map(|result| result["class"].as_str().unwrap()).collect();
    assert_eq!(classes, ["row", "rising"]);
    for result in results {
        has_keys(result, &["image", "class", "probability", "top"]);
        let top = result["top"].as_array().unwrap();
        assert_eq!(top.len(), 2);
        assert!(top[0]["probability"].as_f64() >= top[1]["probability"].as_f64());
    }
    let (stdout, _) = run(here, &["predict", "run", "row.png"], 0);
    assert!(stdout.contains("row.png") && stdout.contains(" %") && stdout.contains('#'), "{stdout}");

    // A picture that fails costs only itself.
    let images = ["predict", "run", "bad.png", "absent.png", "mnist:test:42", ".", "row.png", "--json"];
    let (stdout, stderr) = run(here, &images, 1);
    let results = json(&stdout);
    assert_eq!((results.as_array().unwrap().len(), results[0]["image"].as_str()), (1, Some("row.png")));
    for part in ["bad.png", "absent.png", "mnist:test:42", "4 of 5"] {
        assert!(stderr.contains(part), "{part}: {stderr}");
    }
    for (reference, part) in [("mnist:test", "number is missing"), ("mnist:dev:1", "dev"), ("mnist:test:x", "\"x\"")] {
        refused(here, &["predict", "run", reference], 2, &[reference, part, "mnist:test:42"]);
    }

    let mut from_stdin = striate(here, &["predict", "run", "-", "--json"]);
    let mut child = from_stdin.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&fs::read(here.join("rising.png")).unwrap()).unwrap();
    let (stdout, _) = finished(child.wait_with_output().unwrap(), &["predict", "-"], 0);
    assert_eq!(json(&stdout)[0]["class"], "rising");
}

#[test]
fn a_model_is_converted_by_the_ending() {
    let place = trained();
    let at = |name: &str| place.path().join(name);
    for (name, start) in [("bars.onnx", &b"\x08\x08"[..]), ("bars.NPZ", b"PK")] {
        let (stdout, _) = run(place.path(), &["convert", "run", name, "--json"], 0);
        has_keys(&json(&stdout), &["out", "format", "bytes"]);
        let written = fs::read(at(name)).unwrap();
        assert_eq!(json(&stdout)["bytes"], written.len());
        assert!(written.starts_with(start), "{:?}", &written[..2]);
    }
    run(place.path(), &["convert", "run", "pixels.onnx", "--with-preprocessing"], 0);
    assert_ne!(fs::read(at("bars.onnx")).unwrap(), fs::read(at("pixels.onnx")).unwrap());
    // Through NumPy's archive and back: the same file.
    run(place.path(), &["convert", "bars.NPZ", "again.safetensors"], 0);
    assert_eq!(fs::read(at("again.safetensors")).unwrap(), fs::read(at("run/model.safetensors")).unwrap());
    refused(place.path(), &["convert", "bars.NPZ", "a.onnx", "--model", "mlp"], 2, &["--model", "whole model"]);
    refused(place.path(), &["convert", "run", "bars.tflite"], 2, &["bars.tflite", ".onnx", ".npz"]);
    refused(place.path(), &["convert", "run", "bars"], 2, &["no format"]);
    refused(place.path(), &["convert", "run", "a.npz", "--with-preprocessing"], 2, &["for .onnx"]);
    refused(place.path(), &["convert", "nothing", "a.onnx"], 2, &["nothing", "no such file"]);
    refused(place.path(), &["convert", "run", "no/such/place.onnx"], 1, &["place.onnx"]);
}

#[test]
fn weights_of_others_become_models() {
    let place = place();
    let here = place.path();
    let pickles = Path::new(env!("CARGO_MANIFEST_DIR")).join("../striate/tests/pickles");
    let pickle = pickles.join("numpy2-protocol5.pkl").display().to_string();
    // The book's network is known by its shapes.
    let (stdout, _) = run(here, &["convert", &pickle, "book.safetensors", "--json"], 0);
    assert_eq!(json(&stdout)["model"], "simple-convnet");
    run(here, &["verify", "book.safetensors"], 0);
    let named = ["convert", &pickle, "b.npz", "--model", "simple-convnet", "--input", "1,6,6", "--classes", "2"];
    let settings = ["--set", "filters=2", "--set", "filter_size=3", "--set", "hidden=3"];
    fs::write(here.join("names.txt"), "no\nyes\n").unwrap();
    run(here, &[&named[..], &settings[..], &["--class-names", "names.txt", "--mean", "0.5"]].concat(), 0);
    run(here, &["convert", "b.npz", "b.safetensors"], 0);
    run(here, &["verify", "b.safetensors"], 0);
    assert!(
        String::from_utf8_lossy(&fs::read(here.join("b.safetensors")).unwrap()).contains("[\\\"no\\\",\\\"yes\\\"]")
    );
    fs::write(here.join("names.txt"), "no\n").unwrap();
    refused(here, &[&named[..], &settings[..], &["--class-names", "names.txt"]].concat(), 2, &["found 1 lines", "2"]);
    refused(here, &named, 1, &["missing", "mis-shaped: W1 [2, 1, 3, 3]", "simple-convnet"]);
    refused(here, &["convert", &pickle, "b.npz", "--classes", "2"], 2, &["--model"]);
    fs::write(here.join("evil.pkl"), b"cposix\nsystem\n(Vtouch evil\ntR.").unwrap();
    refused(here, &["convert", "evil.pkl", "b.npz"], 1, &["evil.pkl, offset 0", "posix.system", "not called"]);
    fs::write(here.join("some.pkl"), b"}.").unwrap();
    refused(here, &["convert", "some.pkl", "b.npz"], 2, &["some.pkl", "--model"]);
    fs::write(here.join("theirs.safetensors"), [b"\x02\0\0\0\0\0\0\0{}".as_slice()].concat()).unwrap();
    refused(here, &["convert", "theirs.safetensors", "b.npz"], 1, &["theirs.safetensors", "--model"]);
    refused(here, &["convert", "theirs.safetensors", "b.npz", "--model", "lenet"], 1, &["missing: W1", "10 missing"]);
}

#[test]
fn verify_names_the_stage_and_asks_other_runtimes() {
    let place = trained();
    let here = place.path();
    let (stdout, _) = run(here, &["verify", "run", "--json"], 0);
    let stages: Vec<String> =
        json(&stdout)["stages"].as_array().unwrap().iter().map(|s| s["stage"].as_str().unwrap().into()).collect();
    assert_eq!(stages, ["decode", "preprocess", "logits"]);
    refused(here, &["verify", "run", "--with", "onnxruntime", "--python", "no-such-python"], 1, &["no-such-python"]);
    refused(here, &["verify", "run", "--with", "tflite"], 2, &["onnxruntime"]);
    refused(here, &["verify", "run", "--exported", "x.onnx"], 2, &["--with"]);
    refused(here, &["verify", "run", "--with", "onnxruntime", "--exported", "x.onnx"], 2, &["x.onnx", "no such file"]);
    // A Python without the packages says which.
    #[cfg(unix)]
    {
        let fake = here.join("python").display().to_string();
        // Another process writes it: a file that is open for writing anywhere can't be run.
        let write = |script: &str| {
            let script = ["-c", "printf '%s' \"$1\" > \"$0\" && chmod 755 \"$0\"", &fake, script];
            assert!(Command::new("sh").args(script).status().unwrap().success());
        };
        write("#!/bin/sh\necho \"No module named 'onnxruntime'; install it\" >&2\nexit 1\n");
        refused(here, &["verify", "run", "--with", "onnxruntime", "--python", &fake], 1, &["onnxruntime", "install"]);
        for (difference, status) in [("1e-6", 0), ("0.5", 1)] {
            let answer = serde_json::json!({
                "vectors": 5,
                "max_abs_difference": difference.parse::<f64>().unwrap(),
                "largest_logit": 1.0,
                "onnx_checker": true,
                "onnxruntime": "1.0",
            });
            write(&format!("#!/bin/sh\ncat > /dev/null\necho '{answer}'\n"));
            let arguments = ["verify", "run", "--with", "onnxruntime", "--python", &fake, "--json"];
            let (stdout, _) = run(here, &arguments, status);
            assert_eq!(json(&stdout)["passed"], status == 0);
        }
    }
}

#[test]
fn damaged_models_are_named() {
    let place = trained();
    let here = place.path();
    let whole = fs::read(here.join("run/model.safetensors")).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() - 1000] ^= 4;
    fs::write(here.join("flipped.safetensors"), flipped).unwrap();
    fs::write(here.join("cut.safetensors"), &whole[..whole.len() / 2]).unwrap();
    fs::write(here.join("empty.safetensors"), "").unwrap();
    for file in ["flipped.safetensors", "cut.safetensors", "empty.safetensors"] {
        refused(here, &["evaluate", file], 1, &[file]);
        refused(here, &["predict", file, "x.png"], 1, &[file]);
        refused(here, &["verify", file], 1, &[file]);
        refused(here, &["summary", file], 1, &[file]);
        refused(here, &["explain", file, "filters"], 1, &[file]);
    }
}

#[test]
fn divergence_keeps_the_last_good_weights() {
    let place = place();
    let arguments = ["train", "--data", "bars", "--epochs", "2", "--batch", "20", "--lr", "1e9", "--out", "run"];
    let (stdout, stderr) = run(place.path(), &arguments, 1);
    assert_eq!(stdout, "");
    assert!(stderr.contains("error: training diverged") && stderr.contains("lower the learning rate"), "{stderr}");
    assert!(stderr.contains("run/model.safetensors"), "{stderr}");
    for file in ["run.toml", "metrics.jsonl", "filters-before.png", "filters-after.png"] {
        assert!(place.path().join("run").join(file).exists(), "{file}");
    }
    run(place.path(), &["verify", "run"], 0);
    run(place.path(), &["evaluate", "run"], 0);
    let arguments = ["train", "--data", "bars", "--epochs", "2", "--batch", "20", "--lr", "1e30", "--out", "inf"];
    let (_, stderr) = run(place.path(), &arguments, 1);
    assert!(stderr.contains("the first number that is not finite is in the output of layer "), "{stderr}");
    run(place.path(), &["verify", "inf"], 0);
}

#[test]
fn data_info_counts() {
    let place = place();
    let (stdout, _) = run(place.path(), &["data", "info", "bars"], 0);
    assert!(stdout.contains("1 x 12 x 12") && stdout.contains("rising") && stdout.contains("Total"), "{stdout}");
    let (stdout, _) = run(place.path(), &["data", "info", "bars", "--json"], 0);
    let result = json(&stdout);
    assert_eq!(result["shape"], serde_json::json!([1, 12, 12]));
    assert_eq!(result["classes"], serde_json::json!(CLASSES));
    assert_eq!(result["train"]["per_class"], serde_json::json!([50, 50, 50, 50]));
    assert_eq!(result["test"]["images"], 40);
}

#[test]
fn mnist_is_built_in() {
    let place = tempfile::tempdir().unwrap();
    let (stdout, _) = run(place.path(), &["data", "info", "mnist", "--json"], 0);
    let result = json(&stdout);
    assert_eq!((result["train"]["images"].as_u64(), result["test"]["images"].as_u64()), (Some(60_000), Some(10_000)));
    let per_class = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009];
    assert_eq!(result["test"]["per_class"], serde_json::json!(per_class));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let arguments = ["summary", "simple-convnet"];
    let mut command = striate(Path::new("."), &arguments);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Most likely closed before anything is written; either way the end is quiet.
    drop(child.stdout.take());
    let (_, stderr) = finished(child.wait_with_output().unwrap(), &arguments, 0);
    assert_eq!(stderr, "");
}

#[cfg(target_os = "linux")]
#[test]
fn a_result_that_cannot_be_written_is_a_failure() {
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    let arguments = ["summary", "simple-convnet"];
    let output = striate(Path::new("."), &arguments).stdout(full()).output().unwrap();
    let (_, stderr) = finished(output, &arguments, 1);
    assert!(stderr.contains("could not be written"), "{stderr}");
    // A log that can't be written does not make a panic of a refusal.
    let arguments = ["summary", "no-such-model"];
    finished(striate(Path::new("."), &arguments).stderr(full()).output().unwrap(), &arguments, 2);
}

#[cfg(unix)]
#[test]
fn an_interrupt_keeps_the_last_weights() {
    for signal in ["-INT", "-TERM"] {
        let place = place();
        let run_directory = place.path().join("run");
        // It would take hours.
        let arguments = ["train", "--data", "bars", "--epochs", "1000000", "--batch", "20", "--out", "run", "--json"];
        let mut command = striate(place.path(), &arguments);
        let mut child = Running::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        child.wait_for(|| fs::metadata(run_directory.join("metrics.jsonl")).ok().filter(|file| file.len() > 0));
        child.signal(signal);
        let (status, stdout, stderr) = child.ended();
        assert_eq!(status.code(), Some(0), "{stderr}");
        assert!(stderr.contains("stopping"), "{stderr}");

        let result = json(&stdout);
        assert_eq!(result["stopped"], true);
        assert!(result["steps"].as_u64().unwrap() > 0);
        for file in ["model.safetensors", "run.toml", "metrics.jsonl", "filters-after.png", "confusion.svg"] {
            assert!(run_directory.join(file).exists(), "{file}");
        }
        // The file holds the very weights that were measured.
        let (stdout, _) = run(place.path(), &["summary", "run", "--json"], 0);
        assert_eq!(json(&stdout)["weights_sha256"], result["weights_sha256"]);
        let (stdout, _) = run(place.path(), &["evaluate", "run", "--json"], 0);
        assert_eq!(json(&stdout)["accuracy"], result["test_accuracy"]);
        run(place.path(), &["verify", "run"], 0);
    }
}

/// Asks a server for something; gives the whole answer.
#[cfg(unix)]
fn http(address: &str, request: &str, body: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let length = body.len();
    let head = "Content-Type: application/json\r\nConnection: close\r\n";
    write!(stream, "{request} HTTP/1.1\r\nHost: {address}\r\n{head}Content-Length: {length}\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[cfg(unix)]
#[test]
fn a_run_is_watched_stopped_and_served() {
    let place = place();
    let here = place.path();
    let log = here.join("log");
    let arguments =
        ["train", "--data", "bars", "--epochs", "1000000", "--batch", "20", "--out", "run", "--json", "--watch"];
    let mut command = striate(here, &arguments);
    command.arg("127.0.0.1:0").stdout(Stdio::piped()).stderr(fs::File::create(&log).unwrap());
    let mut child = Running::spawn(&mut command);
    let address = child.wait_for(|| {
        let text = fs::read_to_string(&log).unwrap();
        let (_, rest) = text.split_once("watch it at http://")?;
        Some(rest.split_once('/')?.0.to_owned())
    });
    assert!(http(&address, "GET /", "").contains("page/app.js"));
    let live = http(&address, "POST /studio", "{\"ask\":\"live\",\"since\":0}");
    let goes_on =
        ["starting", "running", "evaluating"].iter().any(|phase| live.contains(&format!("\"phase\":\"{phase}\"")));
    assert!(goes_on, "{live}");
    assert!(http(&address, "POST /run", "{\"action\":\"stop\"}").starts_with("HTTP/1.1 200"));
    // The result comes; the page stays.
    assert_eq!(json(&child.line())["stopped"], true);
    assert!(http(&address, "POST /studio", "{\"ask\":\"live\",\"since\":0}").contains("\"phase\":\"done\""));
    child.signal("-INT");
    assert_eq!(child.ended().0.code(), Some(0));

    let arguments = ["serve", "run", "--addr", "127.0.0.1:0", "--json"];
    let mut child = Running::spawn(striate(here, &arguments).stdout(Stdio::piped()));
    let address = json(&child.line())["address"].as_str().unwrap().to_owned();
    assert!(http(&address, "GET /healthz", "").starts_with("HTTP/1.1 200"));
    // The data is that of the run.
    assert!(http(&address, "POST /studio", "{\"ask\":\"confusion\"}").contains("data-cell"));
    child.signal("-TERM");
    assert_eq!(child.ended().0.code(), Some(0));

    refused(here, &["serve", "run", "--addr", "8.8.8.8:1"], 1, &["8.8.8.8:1", "choose another address"]);
    refused(here, &["serve", "run", "--addr", "8080"], 2, &["HOST:PORT is needed"]);
    refused(here, &["serve", "run", "--token", "short"], 2, &["8 to 256", "5 characters"]);
    refused(here, &["serve", "run", "--data", "nowhere"], 2, &["nowhere"]);
    refused(here, &["train", "--watch", "--seeds", "3"], 2, &["--watch", "--seeds"]);
}

#[test]
fn a_run_with_snapshots_can_be_looked_back_on() {
    let place = place();
    let here = place.path();
    save_png(&here.join("bar.png"), 3);
    let train =
        "train --data bars --init he --schedule constant --epochs 1 --batch 20 --snapshots 4 --out run --json -q";
    run(here, &train.split(' ').collect::<Vec<_>>(), 0);
    assert_eq!(read_toml(&here.join("run/run.toml"))["snapshots"].as_str(), Some("4"));
    let snapshots = || {
        let names = fs::read_dir(here.join("run/snapshots")).unwrap();
        let mut names: Vec<String> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let file = |step: u64| format!("step-{step:06}.safetensors");
    assert_eq!(snapshots(), [0, 4, 8, 10].map(file));
    // A resumed run goes on with them.
    let (stdout, _) = run(here, &["train", "--resume", "run", "--epochs", "2", "--json", "-q"], 0);
    let trained = json(&stdout);
    assert_eq!(snapshots(), [0, 4, 8, 10, 12, 16, 20].map(file));

    // Each is a model, the last one the result.
    let (stdout, _) = run(here, &["summary", "run/snapshots/step-000020.safetensors", "--json"], 0);
    assert_eq!(json(&stdout)["weights_sha256"], trained["weights_sha256"]);
    run(here, &["verify", "run/snapshots/step-000004.safetensors"], 0);

    let (stdout, _) = run(here, &["explain", "run", "timeline", "bar.png", "--json"], 0);
    let result = json(&stdout);
    assert_eq!((&result["frames"], &result["steps"]), (&7.into(), &serde_json::json!([0, 4, 8, 10, 12, 16, 20])));
    let frames = |file: &Path| {
        use image::AnimationDecoder;
        let decoder = image::codecs::png::PngDecoder::new(std::io::BufReader::new(fs::File::open(file).unwrap()));
        decoder.unwrap().apng().unwrap().into_frames().collect_frames().unwrap()
    };
    let seen = frames(&here.join("run/timeline.png"));
    assert_eq!(seen.len(), 7);
    assert!(seen.windows(2).all(|pair| pair[0].buffer() != pair[1].buffer()));
    assert!(image::open(here.join("run/timeline-sheet.png")).unwrap().height() > 300);
    run(here, &["explain", "run", "timeline", "--layer", "Conv1", "--out", "alone.png"], 0);
    assert_eq!(frames(&here.join("alone.png")).len(), 7);
    refused(here, &["explain", "run", "timeline", "--layer", "Affine1"], 1, &["Affine1", "Conv1 (W1)"]);

    // A file of another run among them, and a damaged one.
    let other = here.join("run/snapshots/step-000007.safetensors");
    fs::copy(here.join("run/snapshots/step-000004.safetensors"), &other).unwrap();
    let arguments = ["train", "--data", "bars", "--model", "mlp", "--epochs", "1", "--out", "dense", "-q"];
    run(here, &arguments, 0);
    fs::copy(here.join("dense/model.safetensors"), &other).unwrap();
    refused(here, &["explain", "run", "timeline"], 1, &["step-000007", "another"]);
    fs::write(&other, "no model").unwrap();
    refused(here, &["explain", "run", "timeline"], 1, &["step-000007"]);

    refused(here, &["explain", "dense", "timeline"], 1, &["dense", "no snapshots", "striate train --snapshots"]);
    refused(here, &["explain", "nowhere", "timeline"], 2, &["nowhere"]);
    refused(here, &["train", "--data", "bars", "--snapshots", "0", "--out", "x"], 2, &["snapshots", "at least 1"]);
}

#[test]
fn all_views_come_on_one_page() {
    let place = trained();
    let here = place.path();
    save_png(&here.join("bar.png"), 3);
    let (stdout, _) = run(here, &["explain", "run", "all", "bar.png", "--class", "column", "--json"], 0);
    let result = json(&stdout);
    let page = fs::read_to_string(here.join("run/explain/explain.html")).unwrap();
    assert_eq!(result["page"], "run/explain/explain.html");
    let drawn = result["views"].as_array().unwrap();
    for view in drawn.iter().filter(|view| view["view"] != "im2col") {
        assert!(here.join(view["file"].as_str().unwrap()).exists(), "{view}");
    }
    let still = ["filters", "responses", "feature-maps", "saliency", "grad-cam", "occlusion", "maximize", "im2col"];
    for view in still.iter().chain(&["depth", "similar", "embedding", "shift"]) {
        assert!(drawn.iter().any(|drawn| drawn["view"] == *view), "{view}");
        assert!(page.contains(&format!("id=\"{view}\"")), "{view}");
    }
    assert!(page.contains("striate explain run saliency bar.png --class column"));
    assert!(!page.contains("src=\"run") && page.matches("src=\"data:image/png;base64,").count() == drawn.len() - 1);
    // What there is not is said with its reason.
    let left_out: Vec<&str> =
        result["left_out"].as_array().unwrap().iter().map(|v| v["view"].as_str().unwrap()).collect();
    assert_eq!(left_out, ["timeline"]);
    assert!(page.contains("striate train --snapshots"));

    run(here, &["explain", "run", "all", "bar.png", "--data", "nowhere", "--out", "some", "--json"], 0);
    let page = fs::read_to_string(here.join("some/explain.html")).unwrap();
    assert!(page.contains("id=\"left-out\"") && page.contains("id=\"saliency\"") && !page.contains("id=\"shift\""));

    refused(here, &["explain", "run", "all"], 2, &["IMAGE"]);
    refused(here, &["explain", "run", "all", "-"], 2, &["stdin"]);
    refused(here, &["explain", "run", "all", "nowhere.png"], 1, &["nowhere.png"]);
    refused(here, &["explain", "run", "all", "bar.png", "--class", "owl"], 1, &["owl", "row, column"]);
    let arguments = ["train", "--data", "bars", "--model", "mlp", "--epochs", "1", "--out", "dense", "-q"];
    run(here, &arguments, 0);
    let (stdout, _) = run(here, &["explain", "dense", "all", "bar.png", "--out", "page", "--json"], 0);
    let left_out = json(&stdout)["left_out"].to_string();
    assert!(left_out.contains("grad-cam") && left_out.contains("no convolution"), "{left_out}");
    assert!(here.join("page/saliency.png").exists());
}

#[test]
fn filters_apply_to_images_of_any_size() {
    let place = trained();
    let here = place.path();
    let photograph =
        image::RgbImage::from_fn(90, 60, |x, y| image::Rgb([(x * 2) as u8, (y * 4) as u8, ((x + y) % 9) as u8]));
    photograph.save(here.join("photograph.png")).unwrap();
    run(here, &["explain", "run", "filters", "--apply", "photograph.png", "--layer", "Conv1", "--out", "a.png"], 0);
    run(here, &["explain", "run", "filters", "--apply", "photograph.png", "--layer", "W1", "--out", "b.png"], 0);
    assert_eq!(fs::read(here.join("a.png")).unwrap(), fs::read(here.join("b.png")).unwrap());
    let sheet = image::open(here.join("a.png")).unwrap();
    assert!(sheet.width() > 800 && sheet.height() > 600);
    image::GrayImage::new(3, 3).save(here.join("small.png")).unwrap();
    refused(here, &["explain", "run", "filters", "--apply", "small.png"], 1, &["3 x 3", "at least 5 x 5"]);
}

#[test]
fn explaining_an_image_draws_what_was_asked_for() {
    let place = trained();
    let here = place.path();
    save_png(&here.join("bar.png"), 3);
    for (view, keys) in [
        ("feature-maps", &["layers"][..]),
        ("saliency", &["images"]),
        ("grad-cam", &["images"]),
        ("occlusion", &["images"]),
    ] {
        let (stdout, _) = run(here, &["explain", "run", view, "bar.png", "--json"], 0);
        let result = json(&stdout);
        has_keys(&result, keys);
        assert_eq!(result["view"], view);
        let picture = image::open(here.join(format!("run/{view}.png"))).unwrap();
        assert!(picture.width() > 300 && picture.height() > 150, "{view}");
        refused(here, &["explain", "run", view], 2, &[view, "IMAGE"]);
    }
    let (stdout, _) = run(here, &["explain", "run", "saliency", "bar.png", "--class", "column", "--json"], 0);
    let image = &json(&stdout)["images"][0];
    assert_eq!(image["class"], "column");
    let change = image["score"].as_f64().unwrap() - image["baseline_score"].as_f64().unwrap();
    assert!(image["completeness_error"].as_f64().unwrap() < 0.05 * change.abs().max(1.0));
    run(here, &["explain", "run", "filters", "--apply", "bar.png", "--out", "responses.png"], 0);
    run(here, &["explain", "run", "filters", "--before", "run", "--out", "both.png"], 0);
    run(here, &["explain", "run", "maximize", "--layer", "Relu1", "--out", "units.png"], 0);
    let (stdout, _) = run(here, &["explain", "run", "im2col", "--json"], 0);
    assert_eq!(json(&stdout)["layers"][0]["columns"], 25);
    for file in ["responses.png", "both.png", "units.png"] {
        assert!(image::open(here.join(file)).unwrap().width() > 200, "{file}");
    }
}

#[test]
fn what_can_not_be_explained_is_said_with_what_can() {
    let place = trained();
    let here = place.path();
    save_png(&here.join("bar.png"), 3);
    fs::write(here.join("no.png"), "no image").unwrap();
    refused(
        here,
        &["explain", "run", "saliency", "bar.png", "--class", "owl"],
        1,
        &["owl", "row, column, falling, rising"],
    );
    refused(here, &["explain", "run", "grad-cam", "bar.png", "--layer", "Conv9"], 1, &["Conv9", "Conv1, Relu1"]);
    refused(here, &["explain", "run", "grad-cam", "bar.png", "--layer", "Affine1"], 1, &["Affine1", "plain vector"]);
    refused(here, &["explain", "run", "maximize", "--layer", "Conv9"], 1, &["Conv9", "Conv1, Relu1"]);
    refused(here, &["explain", "run", "occlusion", "no.png"], 1, &["no.png"]);
    refused(here, &["explain", "run", "occlusion", "nowhere.png"], 1, &["nowhere.png"]);
    let arguments = ["train", "--data", "bars", "--model", "mlp", "--epochs", "1", "--out", "dense", "-q"];
    run(here, &arguments, 0);
    refused(here, &["explain", "dense", "grad-cam", "bar.png"], 1, &["convolution", "mlp"]);
    refused(here, &["explain", "dense", "im2col"], 1, &["convolution", "mlp"]);
    // An option of another view is not ignored.
    refused(here, &["explain", "run", "saliency", "bar.png", "--layer", "Conv1"], 2, &["--layer"]);
    refused(here, &["explain", "run", "im2col", "bar.png"], 2, &["bar.png"]);
    run(here, &["explain", "dense", "saliency", "bar.png"], 0);
}

#[test]
fn views_over_many_images_draw_and_tell_their_numbers() {
    let place = trained();
    let here = place.path();
    let explain = |arguments: &[&str]| {
        let (stdout, stderr) = run(here, &[&["explain", "run"], arguments, &["--json"]].concat(), 0);
        assert_eq!(stderr, "");
        let result = json(&stdout);
        assert_eq!(result["view"], arguments[0]);
        let file = here.join(result["file"].as_str().unwrap());
        if file.extension().unwrap() == "png" {
            let picture = image::open(&file).unwrap();
            assert!(picture.width() > 300 && picture.height() > 60, "{arguments:?}");
        }
        result
    };

    let depth = explain(&["depth"]);
    let layers: Vec<&str> = depth["layers"].as_array().unwrap().iter().map(|l| l["layer"].as_str().unwrap()).collect();
    assert_eq!(layers, ["Relu1", "Relu2", "Affine2"]);
    assert_eq!(depth["layers"][0]["receptive_field"], serde_json::json!([5, 5]));
    let patch = &depth["layers"][0]["units"][0]["patches"][0];
    has_keys(patch, &["image", "class", "activation", "rows", "columns"]);
    assert_eq!(patch["rows"][1].as_u64().unwrap() - patch["rows"][0].as_u64().unwrap(), 5);
    let arguments = ["depth", "--layer", "Conv1", "--units", "3,17", "--top", "2", "--images", "30", "--out", "d.png"];
    let chosen = explain(&arguments);
    assert_eq!((&chosen["layers"][0]["units"][1]["unit"], &chosen["images"]), (&17.into(), &30.into()));
    assert_eq!(chosen["layers"][0]["units"][0]["patches"].as_array().unwrap().len(), 2);

    save_png(&here.join("bar.png"), 3);
    let similar = explain(&["similar", "bar.png", "--is", "column", "--top", "4"]);
    has_keys(&similar, &["layer", "compared"]);
    let image = &similar["images"][0];
    has_keys(image, &["lost_at", "predicted"]);
    assert_eq!((&image["image"], &image["class"]), (&"bar.png".into(), &"column".into()));
    assert_eq!(image["similar"].as_array().unwrap().len(), 4);
    // The bar is the fourth training image itself.
    assert_eq!(image["similar"][0]["image"], 3);
    assert!(image["similar"][0]["cosine"].as_f64().unwrap() > 0.999_99);
    assert_eq!(image["layers"][0]["layer"], "input");
    // A bar that is labelled, and a network that gets it right: there is nothing to show, and it says so.
    assert_eq!(explain(&["similar", "--out", "none.png", "--images", "1"])["images"].as_array().unwrap().len(), 0);

    for method in ["pca", "tsne"] {
        let found = explain(&["embedding", "--method", method, "--images", "24", "--layer", "Relu2"]);
        assert_eq!((found["points"].as_array().unwrap().len(), &found["features"]), (24, &100.into()));
        assert_eq!(found["points"][1].as_array().unwrap().len(), found["columns"].as_array().unwrap().len());
        assert_eq!(found["explained"].is_null(), method == "tsne");
    }
    explain(&["embedding", "--split", "train", "--out", "points.svg"]);
    assert!(fs::read_to_string(here.join("points.svg")).unwrap().contains("falling"));

    run(here, &["train", "--data", "bars", "--model", "mlp", "--epochs", "1", "--out", "dense", "-q"], 0);
    // Mistakes are those that an evaluation finds, in its order.
    let (stdout, _) = run(here, &["evaluate", "dense", "--json"], 0);
    let wrong = json(&stdout)["mistakes"].clone();
    let (stdout, _) = run(here, &["explain", "dense", "similar", "--mistakes", "40", "--json"], 0);
    let shown = json(&stdout)["images"].clone();
    assert!(
        !shown.as_array().unwrap().is_empty() && shown.as_array().unwrap().len() == wrong.as_array().unwrap().len()
    );
    for (wrong, shown) in wrong.as_array().unwrap().iter().zip(shown.as_array().unwrap()) {
        let name = shown["image"].as_str().unwrap();
        assert!(name.ends_with(&format!("test:{}", wrong["index"])), "{name}");
        assert_eq!(shown["class"], CLASSES[wrong["label"].as_u64().unwrap() as usize]);
    }

    let shift = explain(&["shift", "--most", "2", "--against", "dense", "--out", "shift.svg"]);
    let names: Vec<&str> = shift["models"].as_array().unwrap().iter().map(|m| m["model"].as_str().unwrap()).collect();
    assert_eq!(names, ["run (simple-convnet)", "dense (mlp)"]);
    let shifts = &shift["models"][0]["shifts"];
    has_keys(&shifts[2], &["pixels", "accuracy", "unchanged", "change"]);
    assert_eq!(
        (&shifts[0]["change"], &shifts[0]["unchanged"], shifts.as_array().unwrap().len()),
        (&0.0.into(), &1.0.into(), 3)
    );
    let (stdout, _) = run(here, &["evaluate", "run", "--json"], 0);
    assert!((json(&stdout)["accuracy"].as_f64().unwrap() - shifts[0]["accuracy"].as_f64().unwrap()).abs() < 1e-9);
    assert!(fs::read_to_string(here.join("shift.svg")).unwrap().contains("dense (mlp)"));
    let (text, _) = run(here, &["explain", "run", "shift", "--most", "1"], 0);
    assert!(text.contains("same class") && text.contains("run/shift.png"), "{text}");
}

#[test]
fn views_over_many_images_refuse_what_does_not_fit() {
    let place = trained();
    let here = place.path();
    save_png(&here.join("bar.png"), 3);
    fs::write(here.join("no.png"), "no image").unwrap();
    let names = &["Conv9", "Conv1, Relu1"];
    for view in [&["depth"][..], &["similar", "bar.png"], &["embedding"]] {
        refused(here, &[&["explain", "run"], view, &["--layer", "Conv9"]].concat(), 1, names);
    }
    refused(here, &["explain", "run", "depth", "--units", "3,99"], 1, &["99", "0 to 29 in layer Relu1"]);
    refused(here, &["explain", "run", "depth", "--top", "0"], 2, &["--top"]);
    refused(here, &["explain", "run", "depth", "--images", "0"], 2, &["--images"]);
    refused(here, &["explain", "run", "similar", "bar.png", "--is", "owl"], 1, &["owl", "row, column"]);
    refused(here, &["explain", "run", "similar", "--is", "row"], 2, &["--is", "IMAGE"]);
    refused(here, &["explain", "run", "similar", "no.png"], 1, &["no.png"]);
    refused(here, &["explain", "run", "similar", "bar.png", "--mistakes", "3"], 2, &["--mistakes"]);
    refused(here, &["explain", "run", "embedding", "--perplexity", "9"], 2, &["--method tsne"]);
    refused(here, &["explain", "run", "embedding", "--method", "umap"], 2, &["umap", "pca, tsne"]);
    refused(here, &["explain", "run", "shift", "--most", "12"], 1, &["12", "less than 12"]);
    refused(here, &["explain", "run", "shift", "--against", "nowhere"], 2, &["nowhere"]);
    // Before any work.
    refused(here, &["explain", "run", "depth", "--out", "depth.jpg"], 2, &["depth.jpg", ".png"]);
    refused(here, &["explain", "run", "shift", "--out", "shift.pdf"], 2, &["shift.pdf", ".png or .svg"]);
    refused(here, &["explain", "run", "shift", "--out", "no/shift.svg"], 2, &["no/shift.svg", "no directory no"]);
    // Data of another size, none at all, and none that the model knows of.
    for view in ["depth", "similar", "embedding", "shift"] {
        refused(here, &["explain", "run", view, "--data", "mnist"], 1, &["28 x 28", "12 x 12"]);
        refused(here, &["explain", "run", view, "--data", "nothing"], 2, &["nothing", "mnist"]);
    }
    fs::rename(here.join("bars"), here.join("gone")).unwrap();
    refused(here, &["explain", "run", "depth"], 2, &["bars", "not here", "--data"]);
    run(here, &["explain", "run", "depth", "--data", "gone"], 0);
}

#[test]
fn the_doctor_finds_what_was_hidden_in_a_folder() {
    let place = place();
    let here = place.path();
    for (split, count) in [("train", 12), ("test", 3)] {
        for (class, name) in CLASSES.iter().enumerate().take(2) {
            let folder = here.join("photos").join(split).join(name);
            fs::create_dir_all(&folder).unwrap();
            // Twelve of one class, four of the other.
            for i in 0..if class == 0 { count } else { count / 3 } {
                save_png(&folder.join(format!("{i}.png")), 4 * i + class + if split == "test" { 60 } else { 0 });
            }
        }
    }
    let photos = here.join("photos");
    fs::copy(photos.join("train/row/3.png"), photos.join("test/column/copy.png")).unwrap();
    fs::write(photos.join("train/row/broken.png"), "no picture").unwrap();
    image::GrayImage::new(4, 60).save(photos.join("train/row/long.png")).unwrap();
    let arguments = ["doctor", "--data", "photos", "--input", "1,12,12", "--batch", "4"];
    let (text, _) = run(here, &arguments, 0);
    for part in [
        "machine ",
        "unbalanced: the largest class has 3.2 times",
        "broken.png",
        "60 x 4: much longer than wide",
        "photos/train/row/3.png  =  photos/test/column/copy.png  [across splits]  [with different labels]",
        "images/s in a trial",
    ] {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
    let (stdout, _) = run(here, &[&arguments[..], &["--json"]].concat(), 0);
    let found = json(&stdout);
    has_keys(&found, &["machine", "data", "suspicious_labels", "training"]);
    has_keys(&found["training"], &["peak_bytes", "seconds_per_epoch", "images_per_second"]);
    assert_eq!(found["data"]["train"]["per_class"], serde_json::json!([4, 13]));
    assert_eq!(found["data"]["duplicates"]["exact"].as_array().unwrap().len(), 1);
    assert_eq!(found["data"]["skipped"].as_array().unwrap().len(), 1);
}

#[test]
fn the_doctor_names_the_labels_that_a_model_doubts() {
    let place = trained();
    // One label of the training set is wrong now.
    let file = place.path().join("bars/train-labels-idx1-ubyte");
    let mut labels = fs::read(&file).unwrap();
    labels[8 + 42] = (labels[8 + 42] + 1) % 4;
    fs::write(&file, labels).unwrap();
    let (stdout, _) = run(place.path(), &["doctor", "--data", "bars", "--model", "run", "--json"], 0);
    let doubted = json(&stdout)["suspicious_labels"].clone();
    assert!(doubted.as_array().unwrap().iter().any(|doubt| doubt["image"] == "train:42"), "{doubted}");
}

#[test]
fn a_fetch_of_nothing_known_or_into_something_full_is_refused() {
    let place = place();
    let here = place.path();
    refused(here, &["data", "fetch", "imagenet"], 2, &["imagenet", "fashion-mnist", "cifar10"]);
    refused(here, &["data", "fetch", "cifar10", "--to", "bars"], 1, &["bars", "not empty"]);
    // What is there already is not asked for again.
    let (text, _) = run(here, &["data", "fetch", "fashion-mnist", "--to", "bars", "--from", "http://127.0.0.1:9"], 0);
    assert!(text.contains("already here"), "{text}");
}

/// What `convert` wrote is a MODEL again, with its class names and preprocessing, also to go on training with.
#[test]
fn an_onnx_file_is_a_model() {
    let place = trained();
    let here = place.path();
    save_png(&here.join("rising.png"), 7);
    run(here, &["convert", "run", "bars.onnx"], 0);
    run(here, &["convert", "run", "pixels.onnx", "--with-preprocessing"], 0);
    let answer = |model: &str| {
        let (stdout, _) = run(here, &["predict", model, "rising.png", "--json"], 0);
        let first = &json(&stdout)[0];
        (first["class"].as_str().unwrap().to_owned(), first["probability"].as_f64().unwrap())
    };
    let (class, probability) = answer("run");
    let evaluate = |model: &str| {
        let (stdout, _) = run(here, &["evaluate", model, "--data", "bars", "--json"], 0);
        json(&stdout)["accuracy"].as_f64().unwrap()
    };
    for file in ["bars.onnx", "pixels.onnx"] {
        let found = answer(file);
        assert_eq!(found.0, class, "{file}");
        assert!((found.1 - probability).abs() < 1e-5, "{file}: {} and {probability}", found.1);
        assert_eq!(evaluate(file), evaluate("run"), "{file}");
        let (stdout, _) = run(here, &["summary", file, "--json"], 0);
        let (original, _) = run(here, &["summary", "run", "--json"], 0);
        assert_eq!(json(&stdout)["weights_sha256"], json(&original)["weights_sha256"], "{file}");
    }
    run(here, &["explain", "bars.onnx", "filters", "--out", "filters.png"], 0);
    let onward =
        ["train", "--model", "bars.onnx", "--data", "bars", "--epochs", "1", "--out", "onward", "-q", "--json"];
    let (stdout, _) = run(here, &onward, 0);
    assert!(json(&stdout)["test_accuracy"].as_f64().unwrap() >= 0.5, "{stdout}");
    refused(here, &["evaluate", "bars.onnx", "--data", "bars", "--calibrate"], 2, &["striate convert bars.onnx"]);
    // What an ONNX file of others does not say is said when it is converted.
    fs::write(here.join("names.txt"), "row\ncolumn\ndown\nup\n").unwrap();
    let said = ["--class-names", "names.txt", "--fit", "center-crop:14", "--mean", "0.5", "--deviation", "0.25"];
    run(here, &[&["convert", "bars.onnx", "said.safetensors"], &said[..]].concat(), 0);
    run(here, &["verify", "said.safetensors"], 0);
    assert!(["row", "column", "down", "up"].contains(&answer("said.safetensors").0.as_str()));
    let text = String::from_utf8_lossy(&fs::read(here.join("said.safetensors")).unwrap()).into_owned();
    assert!(
        text.contains(r#"\"fit\":{\"center-crop\":{\"resize\":14}}"#) && text.contains(r#"\"mean\":[0.5]"#),
        "{text:.2000}"
    );
    refused(
        here,
        &["convert", "bars.onnx", "x.safetensors", "--fit", "center-crop:3"],
        2,
        &["shorter side of 3", "12 to"],
    );
    refused(here, &["convert", "bars.onnx", "x.safetensors", "--fit", "crop"], 2, &["center-crop:256"]);
    refused(here, &["convert", "bars.onnx", "x.safetensors", "--classes", "3"], 2, &["--classes", "its own"]);
    refused(here, &["convert", "run", "x.safetensors", "--fit", "stretch"], 2, &["--fit", "whole model"]);
    let bytes = fs::read(here.join("bars.onnx")).unwrap();
    fs::write(here.join("cut.onnx"), &bytes[..bytes.len() / 2]).unwrap();
    refused(here, &["predict", "cut.onnx", "rising.png"], 1, &["cut.onnx", "cut short"]);
}
