//! Going on with a run from outside: what is refused, what stays whole, what is cut.

use crate::bars::place;
use crate::running::Running;
use crate::{json, refused};
use serde_json::Value;
use std::fs;

const TRAIN: &str = "train --data bars --epochs 3 --batch 20 --recipe book --checkpoint-every 4 --seed 4 --out run";

#[test]
fn only_a_run_of_ones_own_can_be_resumed() {
    let place = place();
    let here = place.path();
    let result = json(here, TRAIN);
    refused(here, "train --resume nowhere", 2, &["nowhere", "no such directory"]);
    refused(here, "train --resume bars", 2, &["bars", "no last.ckpt"]);
    refused(here, "train --resume run --out other", 2, &["--out"]);
    let checkpoint = here.join("run/last.ckpt");
    let whole = fs::read(&checkpoint).unwrap();
    for (flag, parts) in [
        ("--lr 0.5", ["lr was 0.001 and is 0.5", "leave the flag out"]),
        ("--batch 10", ["batch was 20 and is 10", "new run"]),
        ("--optimizer muon", ["optimizer was", "muon"]),
        ("--seed 7", ["seed was 4 and is 7", "new run"]),
        ("--model mlp", ["model was", "mlp"]),
        ("--augment erase", ["augment was", "erase"]),
        ("--validation 0.5", ["validation was 0.0 and is 0.5", "new run"]),
        ("--patience 3", ["patience was unset and is 3", "new run"]),
        ("--time 5m", ["time was unset", "5m"]),
        ("--epochs 2", ["steps done was 30", "at most 20"]),
    ] {
        refused(here, &format!("train --resume run {flag}"), 2, &parts);
    }
    refused(here, "train --resume run --data mnist", 1, &["1 x 28 x 28", "1 x 12 x 12"]);
    // The same images but for one pixel.
    fs::create_dir(here.join("others")).unwrap();
    for entry in fs::read_dir(here.join("bars")).unwrap() {
        let entry = entry.unwrap();
        let mut bytes = fs::read(entry.path()).unwrap();
        if entry.file_name() == "train-images-idx3-ubyte" {
            bytes[100] ^= 1;
        }
        fs::write(here.join("others").join(entry.file_name()), bytes).unwrap();
    }
    refused(
        here,
        "train --resume run --data others",
        2,
        &["the content of the training set's images", "SHA-256", "the data changed"],
    );
    // What says the same again contradicts nothing, and a run that is done is not changed by being finished again.
    let again = json(here, "train --resume run --lr 0.001 --recipe book --seed 4 --data bars --threads 1");
    assert_eq!(again["weights_sha256"], result["weights_sha256"]);
    assert_eq!(fs::read(&checkpoint).unwrap(), whole);

    // A constant rate can go on for longer, and gives what it would have given.
    let longer = json(here, "train --resume run --epochs 5");
    let expected = json(here, &TRAIN.replace("--epochs 3", "--epochs 5").replace("--out run", "--out longer"));
    assert_eq!((&longer["weights_sha256"], &longer["steps"]), (&expected["weights_sha256"], &expected["steps"]));
    let settings: toml::Table = toml::from_str(&fs::read_to_string(here.join("run/run.toml")).unwrap()).unwrap();
    assert_eq!(settings["epochs"].as_integer(), Some(5));

    for (bytes, part) in
        [(&whole[..whole.len() - 7], "cut short"), (&b"GIF89a of a cat, and some more"[..], "safetensors")]
    {
        fs::write(&checkpoint, bytes).unwrap();
        refused(here, "train --resume run", 1, &["last.ckpt", part]);
    }
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 4;
    fs::write(&checkpoint, damaged).unwrap();
    refused(here, "train --resume run", 1, &["last.ckpt is damaged"]);
    fs::copy(here.join("longer/model.safetensors"), &checkpoint).unwrap();
    refused(here, "train --resume run", 1, &["last.ckpt is no checkpoint"]);
}

#[test]
fn metrics_beyond_the_checkpoint_are_cut() {
    let place = place();
    let here = place.path();
    json(here, TRAIN);
    let metrics = here.join("run/metrics.jsonl");
    let whole = fs::read_to_string(&metrics).unwrap();
    // As a run leaves it that went on after its last checkpoint and was killed within a line.
    fs::write(&metrics, format!("{whole}{{\"type\":\"step\",\"epoch\":4,\"step\":40}}\n{{\"type\":\"st")).unwrap();
    json(here, "train --resume run");
    assert_eq!(fs::read_to_string(&metrics).unwrap(), whole);
}

#[test]
fn held_out_images_choose_the_epoch_and_the_test_set_comes_last() {
    let place = place();
    let here = place.path();
    let result = json(here, "train --data bars --epochs 6 --batch 20 --init he --patience 2 --out run");
    let settings: toml::Table = toml::from_str(&fs::read_to_string(here.join("run/run.toml")).unwrap()).unwrap();
    assert_eq!(settings["validation"].as_float(), Some(0.1), "{settings}");
    assert_eq!((settings["keep"].as_str(), settings["patience"].as_integer()), (Some("best"), Some(2)));
    let metrics = fs::read_to_string(here.join("run/metrics.jsonl")).unwrap();
    let epochs = metrics.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let epochs: Vec<Value> = epochs.filter(|line| line["type"] == "epoch").collect();
    assert!(epochs.iter().all(|epoch| epoch["test_accuracy"].is_null() && epoch["validation_accuracy"].is_number()));
    let best = epochs.iter().filter_map(|epoch| epoch["validation_accuracy"].as_f64()).fold(0.0, f64::max);
    let kept = &epochs[result["kept_epoch"].as_u64().unwrap() as usize - 1];
    assert_eq!(
        (kept["validation_accuracy"].as_f64(), &kept["validation_accuracy"]),
        (Some(best), &result["validation_accuracy"])
    );
    assert_eq!(result["steps"], epochs.len() * 9, "180 images remain to train with");
    let found = json(here, "evaluate run --data bars");
    assert_eq!(found["accuracy"], result["test_accuracy"], "the model file holds the epoch that was kept");

    refused(here, "train --data bars --patience 2 --validation 0", 2, &["patience is 2", "held-out"]);
    refused(here, "train --data bars --keep best --validation 0", 2, &["keep is best", "held-out"]);
    refused(here, "train --data bars --validation 1", 2, &["validation is 1", "less than 1"]);
    refused(here, "train --data bars --keep first", 2, &["first", "last or best"]);
    refused(here, "train --data bars --time 10", 2, &["10m", "1h30m"]);
    refused(here, "train --data bars --time 10m --epochs 3", 2, &["--epochs"]);
    refused(here, "train --data bars --checkpoint-every 0", 2, &["checkpoint_every is 0"]);
    assert!(!here.join("runs").exists(), "nothing was written");
}

#[cfg(unix)]
#[test]
fn one_run_at_a_time() {
    let place = place();
    let here = place.path();
    let forever = "train --data bars --epochs 1000000 --batch 20 --quiet --out run";
    let mut first = Running::start(here, forever);
    first.wait_for(|| here.join("run/run.toml").exists().then_some(()));
    refused(here, "train --resume run", 1, &["run: another run is writing"]);
    refused(here, &format!("{TRAIN} -q"), 1, &["run", "not empty"]);
    drop(first);
    // A directory without a saved step is as good as new, whatever a killed run left in it.
    let left = here.join("left");
    fs::create_dir(&left).unwrap();
    for (name, contents) in [(".lock", ""), ("metrics.jsonl", ""), (".striate-1-2.tmp", "half a checkp")] {
        fs::write(left.join(name), contents).unwrap();
    }
    json(here, &TRAIN.replace("--out run", "--out left"));
    assert!(!left.join(".striate-1-2.tmp").exists());
}

#[cfg(target_os = "linux")]
#[test]
fn without_room_the_last_checkpoint_stays_whole() {
    let place = place();
    let here = place.path();
    json(here, TRAIN);
    let checkpoint = here.join("run/last.ckpt");
    let whole = fs::read(&checkpoint).unwrap();
    // No file may grow beyond 200 KiB, which the checkpoint is: as on a disk that fills up.
    assert!(whole.len() > 300_000, "{}", whole.len());
    let (status, stderr) = crate::limited(here, "trap '' XFSZ; ulimit -f 200", "train --resume run --epochs 5 -q");
    assert_eq!(status, Some(1), "{stderr}");
    assert!(stderr.contains("run/last.ckpt: writing its contents failed"), "{stderr}");
    assert!(stderr.contains("a limit of this process") && stderr.contains("--resume run"), "{stderr}");
    assert_eq!(fs::read(&checkpoint).unwrap(), whole);
    let left = fs::read_dir(here.join("run")).unwrap();
    assert_eq!(left.filter(|f| f.as_ref().unwrap().file_name().to_string_lossy().ends_with(".tmp")).count(), 0);
    // With room again, nothing was lost.
    let longer = json(here, "train --resume run --epochs 5");
    let expected = json(here, &TRAIN.replace("--epochs 3", "--epochs 5").replace("--out run", "--out longer"));
    assert_eq!(longer["weights_sha256"], expected["weights_sha256"]);
    // The kernel's own file system takes no files, root's neither.
    refused(here, "train --data bars --epochs 1 --out /proc/run", 1, &["/proc/run", "create the directory"]);
}

#[test]
fn a_time_becomes_a_number_of_steps_and_stays_one() {
    let place = place();
    let here = place.path();
    let result = json(here, "train --data bars --batch 20 --model mlp --time 3s --out run");
    let settings: toml::Table = toml::from_str(&fs::read_to_string(here.join("run/run.toml")).unwrap()).unwrap();
    assert_eq!(settings["time"].as_str(), Some("3s"));
    assert_eq!(settings["steps"].as_integer().map(Value::from).as_ref(), Some(&result["steps"]));
    assert!(result["steps"].as_u64().unwrap() > 0);
    refused(here, "train --resume run --epochs 7", 2, &["time was \"3s\""]);
    let again = json(here, "train --resume run --time 3s");
    assert_eq!((&again["steps"], &again["weights_sha256"]), (&result["steps"], &result["weights_sha256"]));
}
