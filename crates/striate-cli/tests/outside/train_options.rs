//! Options of training from outside: balance, fine-tuning, freezing, and what the default recipe makes of photographs.

use crate::{json, refused, striate};
use image::{GrayImage, Rgb, RgbImage};
use serde_json::Value;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

const SIDE: u32 = 12;

fn settings(directory: &Path, run: &str) -> toml::Table {
    toml::from_str(&fs::read_to_string(directory.join(run).join("run.toml")).unwrap()).unwrap()
}

/// A grey bar that stands, lies or falls.
fn bar(n: u32, class: usize) -> GrayImage {
    let at = n % SIDE;
    GrayImage::from_fn(SIDE, SIDE, |x, y| {
        let on = [x == at, y == at, x == y][class];
        image::Luma([(if on { 220 } else { 0 }) + ((x * 7 + y * 13 + n * 5) % 31) as u8])
    })
}

/// `photos`: 40 standing, 10 lying; `three`: also 20 falling.
fn place() -> TempDir {
    let place = tempfile::tempdir().unwrap();
    for (folder, classes) in [("photos", &[40, 10][..]), ("three", &[40, 10, 20])] {
        for (class, &count) in classes.iter().enumerate() {
            let directory = place.path().join(folder).join(["standing", "lying", "falling"][class]);
            fs::create_dir_all(&directory).unwrap();
            (0..count).for_each(|n| bar(n, class).save(directory.join(format!("{n:02}.png"))).unwrap());
        }
    }
    place
}

const TRAIN: &str = "train --recipe book --init he --batch 8 --seed 3";

#[test]
fn classes_are_balanced_and_it_is_said() {
    let place = place();
    let here = place.path();
    let (_, stderr) = striate(here, &format!("{TRAIN} --data photos --epochs 2 --balance weights --out weights"), 0);
    assert!(stderr.contains("classes balanced:") && stderr.contains("32 images  weight 0.625"), "{stderr}");
    let classes = settings(here, "weights")["classes"].as_array().unwrap().clone();
    let of = |class: usize, key: &str| classes[class][key].as_float().unwrap();
    // By name: lying, standing; a fifth of each is kept to test with.
    assert_eq!((classes[0]["name"].as_str(), classes[0]["images"].as_integer()), (Some("lying"), Some(8)));
    assert!((of(0, "weight") - 2.5).abs() < 1e-6 && (of(1, "weight") - 0.625).abs() < 1e-6);
    let report = fs::read_to_string(here.join("weights/report.html")).unwrap();
    assert!(report.contains("inverse of the size of its class") && report.contains("0.625"), "{report}");

    let sampling = format!("{TRAIN} --data photos --balance sampling --augment crop:padding=1,flip");
    let whole = json(here, &format!("{sampling} --epochs 3 --out whole"));
    assert_eq!(whole["steps"], 15, "as many images an epoch as there are");
    assert_eq!(settings(here, "whole")["classes"][0]["drawn"].as_integer(), Some(20));
    assert!(fs::read_to_string(here.join("whole/report.html")).unwrap().contains("drawn an epoch"));
    for threads in 1..4 {
        let again = json(here, &format!("{sampling} --epochs 3 --threads {threads} --memory 1 --out t{threads}"));
        assert_eq!(again["weights_sha256"], whole["weights_sha256"], "{threads} threads");
    }
    json(here, &format!("{sampling} --epochs 2 --out short"));
    let resumed = json(here, "train --resume short --epochs 3 --threads 1");
    assert_eq!(resumed["weights_sha256"], whole["weights_sha256"]);
    refused(here, "train --resume short --balance weights", 2, &["balance was", "sampling", "weights"]);
    refused(here, "train --data photos --balance fair", 2, &["fair", "none, weights or sampling"]);

    // Nothing is said of what was not asked for.
    let plain = json(here, &format!("{TRAIN} --data photos --epochs 1 --out plain"));
    assert!(plain["weights_sha256"].is_string() && !settings(here, "plain").contains_key("classes"));
}

#[test]
fn a_trained_model_gets_a_new_head_and_keeps_the_rest() {
    let place = place();
    let here = place.path();
    json(here, &format!("{TRAIN} --data photos --epochs 2 --normalize data --out first"));
    let tune = format!("{TRAIN} --data three --model first --epochs 3").replace(" --init he", "");
    let (_, stderr) = striate(here, &format!("{tune} --out tuned"), 0);
    assert!(stderr.contains("layer Affine2 starts anew") && stderr.contains("first tells 2 classes apart"), "{stderr}");
    let [first, tuned] = ["first", "tuned"].map(|run| settings(here, run));
    assert_eq!(tuned["start"]["new_head"].as_str(), Some("Affine2"));
    assert_eq!(tuned["normalization"], first["normalization"], "kept from the old model");
    let fresh = json(here, &format!("{tune} --normalize none --out none"));
    assert_ne!(settings(here, "none")["normalization"], first["normalization"]);
    assert!(fresh["test_accuracy"].is_number());
    json(here, &format!("{TRAIN} --data photos --epochs 1 --normalize mean --out mean"));
    let mean = &settings(here, "mean")["normalization"];
    assert_eq!(mean["mean"], first["normalization"]["mean"]);
    let deviation = mean["deviation"].as_array().unwrap()[0].as_float().unwrap();
    assert!((deviation * 255.0 - 1.0).abs() < 1e-6, "pixels of 0 to 255");

    // Frozen, cut off, and gone on with after the model it began from is gone.
    let frozen = format!("{tune} --freeze Conv* --freeze Affine1");
    let whole = json(here, &format!("{frozen} --out frozen"));
    let weights = |run: &str| {
        striate(here, &format!("convert {run} {run}.npz -q"), 0);
        let mut archive =
            ndarray_npy::NpzReader::new(fs::File::open(here.join(format!("{run}.npz"))).unwrap()).unwrap();
        ["W1", "b1", "W2", "b2", "W3", "b3"]
            .map(|name| archive.by_name::<ndarray::OwnedRepr<f32>, ndarray::IxDyn>(name).unwrap())
    };
    let (before, after, all) = (weights("first"), weights("frozen"), weights("tuned"));
    assert_eq!(before[..4], after[..4]);
    assert_eq!(after[4].shape(), [100, 3]);
    assert!((0..4).all(|i| before[i] != all[i]));
    json(here, &format!("{frozen} --epochs 2 --out cut").replacen("--epochs 3 ", "", 1));
    fs::rename(here.join("first"), here.join("gone")).unwrap();
    let resumed = json(here, "train --resume cut --epochs 3");
    assert_eq!(resumed["weights_sha256"], whole["weights_sha256"]);
    refused(here, "train --resume cut --freeze Conv1", 2, &["freeze was", "Conv1"]);
    fs::rename(here.join("gone"), here.join("first")).unwrap();

    refused(here, &format!("{tune} --freeze Conv9"), 2, &["\"Conv9\"", "Conv1, Affine1, Affine2", "W1, b1, W2"]);
    refused(here, &format!("{tune} --freeze *"), 2, &["nothing would be learnt"]);
    refused(here, &format!("{tune} --init he"), 2, &["--init", "a trained model has its own"]);
    refused(here, &format!("{tune} --whiten true"), 2, &["--whiten", "a trained model has its own"]);
    refused(here, &format!("{tune} --input 1,14,14"), 2, &["1 x 12 x 12", "1 x 14 x 14"]);
    // As many classes under other names: everything is kept, and said.
    fs::rename(here.join("photos/lying"), here.join("photos/flat")).unwrap();
    let (_, stderr) = striate(here, &format!("{tune} --out same").replace("three", "photos"), 0);
    assert!(stderr.contains("lying, standing") && stderr.contains("its last layer is kept"), "{stderr}");
    assert!(!settings(here, "same")["start"].as_table().unwrap().contains_key("new_head"));
}

#[test]
fn the_default_recipe_takes_more_for_photographs() {
    let place = tempfile::tempdir().unwrap();
    let here = place.path();
    for (class, base) in [("cat", 20u32), ("dog", 90)] {
        let directory = here.join("pets").join(class);
        fs::create_dir_all(&directory).unwrap();
        for n in 0..20u32 {
            let pixel = |x, y| Rgb([(base + x * 5 + n * y) as u8, (y * 3 + n) as u8, (base + x * y) as u8]);
            RgbImage::from_fn(26, 25, pixel).save(directory.join(format!("{n:02}.png"))).unwrap();
        }
    }
    let result = json(here, "train --data pets --epochs 1 --out run");
    assert_eq!((result["recipe"].as_str(), result["steps"].as_u64()), (Some("default"), Some(1)));
    let found = settings(here, "run");
    assert_eq!((found["model"].as_str(), found["whiten"].as_bool()), (Some("cifar-net"), Some(true)));
    assert_eq!(
        (found["optimizer"]["name"].as_str(), found["schedule"]["name"].as_str()),
        (Some("muon"), Some("onecycle"))
    );
    assert!(found["augment"].as_str().is_some_and(|list| list.contains("flip")), "{found}");
    assert_ne!(found["normalization"]["mean"].as_array().unwrap()[0].as_float(), Some(0.0));
    // The batch is no larger than the data.
    assert_eq!(found["batch"].as_integer(), Some(32));
    json(here, "train --data pets --epochs 1 --input 3,20,20 --batch 8 --out small");
    assert_eq!(settings(here, "small")["model"].as_str(), Some("simple-convnet"));
}

#[test]
fn epochs_tell_more_and_curves_say_what_they_show() {
    let place = place();
    let here = place.path();
    json(here, &format!("{TRAIN} --data three --epochs 2 --validation 0.2 --out run"));
    let metrics = fs::read_to_string(here.join("run/metrics.jsonl")).unwrap();
    let lines = metrics.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let epochs: Vec<Value> = lines.filter(|line| line["type"] == "epoch").collect();
    assert_eq!(epochs.len(), 2);
    assert!(epochs.iter().all(|epoch| epoch["top5"] == 1.0 && epoch["ece"].as_f64().is_some_and(|ece| ece < 1.0)));
    let curves = fs::read_to_string(here.join("run/curves.svg")).unwrap();
    assert!(curves.contains("best validation accuracy") && !curves.contains("test accuracy"), "{curves}");
}

#[test]
fn several_seeds_are_several_runs_and_their_spread_is_told() {
    let place = place();
    let here = place.path();
    let train = format!("{TRAIN} --data three --epochs 2");
    let found = json(here, &format!("{train} --seeds 3 --out all"));
    let seeds = found["seeds"].as_array().unwrap();
    assert_eq!(seeds.iter().map(|seed| seed["seed"].as_u64().unwrap()).collect::<Vec<_>>(), [3, 4, 5]);
    // The keys of one run are the first seed's, and its directory is a whole run directory.
    assert_eq!((found["seed"].as_u64(), found["out"].as_str()), (Some(3), Some("all/seed-3")));
    for key in ["recipe", "epochs", "steps", "seconds", "images_per_second", "train_accuracy", "test_loss"] {
        assert!(!found[key].is_null(), "{key}: {found}");
    }
    let accuracies: Vec<f64> = seeds.iter().map(|seed| seed["test_accuracy"].as_f64().unwrap()).collect();
    assert_eq!(found["test_accuracy"].as_f64(), Some(accuracies[0]));
    let mean = accuracies.iter().sum::<f64>() / 3.0;
    let deviation = (accuracies.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 2.0).sqrt();
    assert!((found["test_accuracy_mean"].as_f64().unwrap() - mean).abs() < 1e-12);
    assert!((found["test_accuracy_deviation"].as_f64().unwrap() - deviation).abs() < 1e-12);
    let file: Value = serde_json::from_str(&fs::read_to_string(here.join("all/seeds.json")).unwrap()).unwrap();
    assert_eq!((&file["seeds"], &file["mean"]["test_accuracy"]), (&found["seeds"], &found["test_accuracy_mean"]));
    // Each is what a run with its seed is.
    let alone = json(here, &format!("{train} --out alone").replace("--seed 3", "--seed 5"));
    assert_eq!(alone["weights_sha256"], seeds[2]["weights_sha256"]);
    let resumed = json(here, "train --resume all/seed-4 --epochs 3");
    assert_eq!(resumed["epochs"], 3);
    for file in ["model.safetensors", "report.html", "run.toml", "curves.svg"] {
        assert!(here.join("all/seed-5").join(file).exists(), "{file}");
    }
    let (stdout, stderr) = striate(here, &format!("{train} --seeds 2"), 0);
    assert!(stdout.contains("deviation") && stdout.contains("runs/simple-convnet-three-1"), "{stdout}");
    assert!(stderr.contains("seed 4, 2 of 2"), "{stderr}");
    refused(here, "train --resume all --seeds 2", 2, &["--seeds", "--resume"]);
    refused(here, "train --seeds 1", 2, &["--seeds", "2..=1000"]);
    refused(here, &format!("{train} --seeds 2 --out all"), 1, &["all", "not empty"]);
    refused(
        here,
        &train.replace("--seed 3", "--seed 18446744073709551615 --seeds 2"),
        2,
        &["--seeds 2", "not so many"],
    );
}

#[test]
fn a_learning_rate_is_found_and_nothing_else_written() {
    let place = place();
    let here = place.path();
    let find = format!("{TRAIN} --data three --find-lr");
    let found = json(here, &find);
    assert_eq!(found["picture"], "find-lr.svg");
    let points = found["points"].as_array().unwrap();
    let rates: Vec<f64> = points.iter().map(|point| point["rate"].as_f64().unwrap()).collect();
    assert!(points.len() > 100 && rates.is_sorted() && (rates[0] - 1e-6).abs() < 1e-9, "{}", points.len());
    let [suggestion, lowest] = ["suggestion", "lowest"].map(|key| found[key].as_f64().unwrap());
    assert!(suggestion < lowest && (1e-5..1.0).contains(&suggestion), "{suggestion} {lowest}");
    assert!(found["reason"].as_str().unwrap().contains("falls fastest"));
    let svg = fs::read_to_string(here.join("find-lr.svg")).unwrap();
    assert!(svg.contains("suggestion") && svg.contains("simple-convnet on three, adam"));
    let names = fs::read_dir(here).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    assert_eq!(names, ["find-lr.svg", "photos", "three"]);
    // The same again, elsewhere.
    let again = json(here, &format!("{find} --threads 1 --out deep/er"));
    assert_eq!((&again["points"], again["picture"].as_str()), (&found["points"], Some("deep/er/find-lr.svg")));
    refused(here, &format!("{find} --lr 0.1"), 2, &["--find-lr", "--lr"]);
    refused(here, &format!("{find} --seeds 2"), 2, &["--find-lr", "--seeds"]);
}
