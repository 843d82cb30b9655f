//! Training on one's own images from outside: augmentation that can be seen, damaged files, data that changes, and places
//! that can't be written to.

use crate::running::Running;
use crate::{json, refused, striate};
use serde_json::Value;
use std::fs;
use tempfile::TempDir;

const SIDE: u32 = 12;
const CLASSES: [&str; 2] = ["lying", "standing"];

/// A grey image with a bright bar, by number.
fn bar(n: u32) -> image::GrayImage {
    image::GrayImage::from_fn(SIDE, SIDE, |x, y| {
        let across = if n.is_multiple_of(2) { y } else { x };
        image::Luma([if across == n / 2 % SIDE { 240 } else { ((x * 7 + y * 11 + n * 13) % 40) as u8 }])
    })
}

/// A folder `photos` of two classes with 20 images each, two of which are damaged.
fn place() -> TempDir {
    let place = tempfile::tempdir().unwrap();
    for (class, name) in CLASSES.iter().enumerate() {
        let folder = place.path().join("photos").join(name);
        fs::create_dir_all(&folder).unwrap();
        (0..20).for_each(|i| bar(2 * i + class as u32).save(folder.join(format!("{i}.png"))).unwrap());
    }
    fs::write(place.path().join("photos/lying/broken.png"), "no picture").unwrap();
    let cut = fs::read(place.path().join("photos/standing/3.png")).unwrap();
    fs::write(place.path().join("photos/standing/cut.png"), &cut[..cut.len() / 2]).unwrap();
    place
}

const TRAIN: &str =
    "train --data photos --epochs 2 --batch 9 --model mlp --lr 0.001 --optimizer adam --schedule constant";

#[test]
fn augmentation_can_be_seen() {
    let place = place();
    let here = place.path();
    let mixed = format!("{TRAIN} --augment flip,mixup:alpha=1,cutmix --label-smoothing 0.1");
    let result = json(here, &format!("{mixed} --out mixed --threads 1"));
    let sheet = image::open(here.join("mixed/augment.png")).unwrap().to_rgb8();
    // Eight images, each eight times.
    assert!(sheet.width() > 8 * 100 && sheet.height() > 8 * 100, "{:?}", sheet.dimensions());
    let report = fs::read_to_string(here.join("mixed/report.html")).unwrap();
    assert!(report.contains("What the network saw while training."), "{report}");
    let settings = fs::read_to_string(here.join("mixed/run.toml")).unwrap();
    assert!(settings.contains("augment = \"flip,mixup:alpha=1,cutmix\""), "{settings}");
    // The same weights on any number of threads, and out of files.
    let again = json(here, &format!("{mixed} --out again --threads 3 --memory 1"));
    assert_eq!(again["weights_sha256"], result["weights_sha256"]);
    let plain = json(here, &format!("{TRAIN} --out plain"));
    assert_ne!(plain["weights_sha256"], result["weights_sha256"]);
    assert!(!here.join("plain/augment.png").exists());
    for (list, parts) in [
        ("mixup:alpha=-1", ["mixup: alpha is -1", "0.01 to 100"]),
        ("mixup:share=1", ["share", "alpha, probability"]),
        ("flip,blur", ["blur", "cutmix"]),
    ] {
        refused(here, &format!("{TRAIN} --augment {list}"), 2, &parts);
        // Before any data is looked for.
        refused(here, &format!("train --data nowhere --augment {list}"), 2, &parts);
    }
}

#[test]
fn damaged_images_are_named_counted_and_left_out() {
    let place = place();
    let here = place.path();
    let (stdout, stderr) = striate(here, &format!("{TRAIN} --out run"), 0);
    assert!(stderr.contains("2 files of photos were left out; the first: photos/lying/broken.png"), "{stderr}");
    for part in
        ["left out because they can't be read: 2", "photos/lying/broken.png: this is not", "photos/standing/cut.png"]
    {
        assert!(stdout.contains(part), "{part:?} is not in: {stdout}");
    }
    let report = fs::read_to_string(here.join("run/report.html")).unwrap();
    assert!(report.contains("Files left out") && report.contains("photos/standing/cut.png"));
    let result = json(here, &format!("{TRAIN} --out other --memory 1"));
    let paths = |result: &Value| -> Vec<String> {
        result["skipped"].as_array().unwrap().iter().map(|one| one["path"].as_str().unwrap().into()).collect()
    };
    assert_eq!(paths(&result), ["photos/lying/broken.png", "photos/standing/cut.png"]);
    assert!(result["skipped"][1]["reason"].as_str().unwrap().contains("cut"));
    let evaluated = json(here, "evaluate run");
    assert_eq!((paths(&evaluated), &evaluated["images"]), (paths(&result), &8.into()));
    let (stdout, _) = striate(here, "evaluate run", 0);
    assert!(stdout.contains("left out because they can't be read: 2"), "{stdout}");

    refused(here, &format!("{TRAIN} --strict --out no"), 1, &["photos/lying/broken.png: this is not a PNG"]);
    assert!(!here.join("no").exists());
    refused(here, "evaluate run --strict", 1, &["photos/lying/broken.png"]);
    refused(here, &format!("{TRAIN} --memory much"), 2, &["--memory", "500M or 8G"]);
    fs::remove_file(here.join("photos/lying/broken.png")).unwrap();
    fs::remove_file(here.join("photos/standing/cut.png")).unwrap();
    let clean = json(here, &format!("{TRAIN} --strict --out clean"));
    assert_eq!(clean["skipped"], serde_json::json!([]));
    assert!(!fs::read_to_string(here.join("clean/report.html")).unwrap().contains("Files left out"));
}

#[test]
fn a_run_knows_its_data_again() {
    let place = place();
    let here = place.path();
    let whole = json(here, &format!("{TRAIN} --epochs 4 --out whole").replace("--epochs 2 ", ""));
    json(here, &format!("{TRAIN} --out run"));
    let settings: toml::Table = toml::from_str(&fs::read_to_string(here.join("run/run.toml")).unwrap()).unwrap();
    let train = settings["fingerprint"]["train"].as_table().unwrap();
    assert_eq!((train["images"].as_integer(), train["sha256"].as_str().unwrap().len()), (Some(32), 64));
    assert_eq!(settings["fingerprint"]["test"]["images"].as_integer(), Some(8));
    let report = fs::read_to_string(here.join("run/report.html")).unwrap();
    assert!(report.contains(train["sha256"].as_str().unwrap()));

    // A run in memory goes on out of files, from another place.
    fs::rename(here.join("photos"), here.join("moved")).unwrap();
    let streamed = json(here, "train --resume run --epochs 4 --memory 1 --data moved");
    assert_eq!(streamed["weights_sha256"], whole["weights_sha256"]);
    fs::rename(here.join("moved"), here.join("photos")).unwrap();
    // And back.
    json(here, "train --resume run --epochs 5 --data photos");

    let more = "train --resume run --epochs 6";
    let photo = here.join("photos/lying/7.png");
    let (original, mut changed) = (fs::read(&photo).unwrap(), bar(14));
    changed.put_pixel(0, 0, image::Luma([9]));
    changed.save(&photo).unwrap();
    refused(
        here,
        more,
        2,
        &["the content of the ", "set's images was that of SHA-256", "the data changed since the run began"],
    );
    fs::write(&photo, &original).unwrap();
    // More than the choice of the test images could make up for.
    let away: Vec<_> = (1..5).map(|i| (here.join(format!("photos/standing/{i}.png")), bar(2 * i + 1))).collect();
    away.iter().for_each(|(path, _)| fs::remove_file(path).unwrap());
    refused(here, more, 2, &["set's images of class \"standing\" was ", "start a new run"]);
    away.iter().for_each(|(path, image)| image.save(path).unwrap());
    json(here, more);
}

#[cfg(unix)]
#[test]
fn a_place_that_takes_no_files_is_told_at_once() {
    let place = place();
    let here = place.path();
    fs::write(here.join("file"), "").unwrap();
    refused(here, &format!("{TRAIN} --out file/run"), 1, &["file/run", "create the directory"]);
    refused(here, &format!("{TRAIN} --out file"), 1, &["file"]);
    assert_eq!(fs::read(here.join("file")).unwrap(), b"");

    // The directory goes away under the run.
    let out = here.join("run");
    let arguments = format!("{TRAIN} --out run").replace("--epochs 2", "--epochs 1000000");
    let mut child = Running::start(here, &arguments);
    child.wait_for(|| out.join("model.safetensors").exists().then_some(()));
    fs::rename(&out, here.join("elsewhere")).unwrap();
    let (status, _, said) = child.ended();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("error: can't save run/") && said.contains("; the directory "), "{said}");
    assert!(!said.contains("panicked") && !out.exists(), "{said}");
    // What had been saved by then is whole.
    fs::rename(here.join("elsewhere"), &out).unwrap();
    let state = json(here, "evaluate run");
    assert_eq!(state["images"], 8);
}
