//! The engine of the static site: as it is here, and as WebAssembly.

use crate::common::{data, model, png};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::GrayImage;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use striate::data::{Normalization, Splits};
use striate::formats::ModelFile;
use striate::train::{Control, Event, TrainOptions, Trainer};
use striate_web::local::{Local, Session};

fn meet(local: &mut Local, request: &Value) -> Value {
    serde_json::from_slice(&local.answer(request.to_string().as_bytes())).unwrap()
}

fn done(local: &mut Local, request: &Value) -> Value {
    let mut answer = meet(local, request);
    assert!(answer["error"].is_null(), "{request}: {answer}");
    answer["ok"].take()
}

#[test]
fn slices_give_the_same_bits_as_one_go() {
    let splits = Splits { train: data(170), test: data(40) };
    let options = TrainOptions { epochs: 3, batch: 20, log_every: 3, average: Some(0.9), ..TrainOptions::default() };
    let mut whole = model().network;
    let trainer =
        Trainer::new(&mut whole, &splits.train, Some(&splits.test), Normalization::identity(), options.clone());
    let mut told = Vec::new();
    let summary = trainer.unwrap().run(&mut |event| note(event, &mut told)).unwrap();
    let (mut sliced, mut slices) = (Vec::new(), 0);
    let mut session = Session::new(model().network, None, Normalization::identity(), options);
    let ended = loop {
        slices += 1;
        let ended = session.advance(&splits, Duration::ZERO, &mut |event| note(event, &mut sliced)).unwrap();
        if let Some(summary) = ended {
            break summary;
        }
    };
    // 27 steps, no more than 5 at a time, and an evaluation after each epoch.
    assert!((6..=12).contains(&slices), "{slices}");
    assert_eq!((ended.steps, ended.history.len(), told), (summary.steps, 3, sliced));
    assert_eq!(session.network().parameters().as_slice(), whole.parameters().as_slice());
}

/// What a step or an epoch came to, without its times.
fn note(event: &Event<'_>, told: &mut Vec<(u64, f64)>) -> Control {
    match event {
        Event::Step { step, loss, .. } => told.push((*step, *loss)),
        Event::Epoch { metrics, .. } => told.push((metrics.step, metrics.test_loss.unwrap())),
        _ => {}
    }
    Control::Continue
}

#[test]
fn it_trains_holds_goes_on_stops_and_gives_its_model_away() {
    let local = &mut Local::new().unwrap();
    let about = done(local, &json!({ "ask": { "ask": "about" } }));
    assert!(about["local"] == true && about["live"] == false && about["data"] == "mnist", "{about}");
    let lesson =
        json!({ "train": { "images": 500, "epochs": 50, "optimizer": "adam", "learning_rate": 0.001, "seed": 3 } });
    done(local, &lesson);
    assert!(meet(local, &lesson)["error"].as_str().unwrap().contains("already"));
    let look = |local: &mut Local| done(local, &json!({ "ask": { "ask": "live", "since": 0 } }));
    assert_eq!(look(local)["phase"], "starting");
    assert_eq!(meet(local, &json!({ "advance": 0 }))["going"], true);
    let before = look(local);
    assert!(before["phase"] == "running" && before["step"] == 5 && before["loss"].as_f64().unwrap() > 0.5, "{before}");
    assert_eq!(meet(local, &json!({ "act": "pause" }))["going"], false);
    done(local, &json!({ "advance": 0 }));
    let paused = look(local);
    assert!(paused["phase"] == "paused" && paused["step"] == 5, "{paused}");
    assert_eq!(meet(local, &json!({ "act": "resume" }))["going"], true);
    // The next slice announces the evaluation, the one after it evaluates.
    let mut phases = Vec::new();
    while look(local)["history"].as_array().unwrap().is_empty() {
        done(local, &json!({ "advance": 0 }));
        phases.push(look(local)["phase"].as_str().unwrap().to_owned());
    }
    assert!(phases.contains(&"evaluating".into()), "{phases:?}");
    assert_eq!(meet(local, &json!({ "act": "stop" }))["going"], true);
    assert_eq!(meet(local, &json!({ "advance": 1000 }))["going"], false);
    let ended = look(local);
    assert!(ended["phase"] == "done" && ended["history"][0]["test_accuracy"].as_f64().unwrap() > 0.1, "{ended}");
    assert!(meet(local, &json!({ "act": "pause" }))["error"].is_string());
    // Its model is a whole file, which can be opened again.
    let saved = done(local, &json!({ "save": {} }));
    let file = ModelFile::from_bytes(&STANDARD.decode(saved["file"].as_str().unwrap()).unwrap(), "saved").unwrap();
    assert!(file.verify().unwrap().is_passed() && !file.test_vectors.is_empty());
    done(local, &json!({ "open": saved }));
    assert_eq!(done(local, &json!({ "ask": { "ask": "about" } }))["live"], false);
}

#[test]
fn what_can_not_be_done_is_said() {
    let local = &mut Local::new().unwrap();
    let lesson = |key: &str, value: Value| {
        let mut lesson = json!({ "images": 500, "epochs": 1, "optimizer": "adam", "seed": 0 });
        lesson[key] = value;
        json!({ "train": lesson })
    };
    let text = STANDARD.encode(png(&GrayImage::new(3, 3)));
    for (request, part) in [
        (json!({ "dance": 1 }), "dance"),
        (json!({ "ask": { "ask": "everything" } }), "everything"),
        (lesson("optimizer", json!("best")), "best"),
        (lesson("epochs", json!(0)), "epochs is 0"),
        (lesson("images", json!(20)), "20 images"),
        (lesson("learning_rate", json!(-1)), "learning_rate is -1"),
        (json!({ "act": "pause" }), "no run"),
        (json!({ "open": { "name": "digit.png", "file": text } }), "digit.png"),
        (json!({ "open": { "name": "digit.onnx", "file": text } }), "digit.onnx"),
        (json!({ "open": { "name": "a.safetensors", "file": "%" } }), "a.safetensors"),
    ] {
        let answer = meet(local, &request);
        let error = answer["error"].as_str().unwrap_or_else(|| panic!("{request}: {answer}"));
        assert!(error.contains(part), "{request}: {error}");
    }
    assert!(local.answer(b"{").starts_with(b"{\"error\""));
    // After all that it still answers.
    done(local, &json!({ "ask": { "ask": "diagram" } }));
}

/// A run of 60 steps in slices, everything that is looked into on the way, and its model.
fn script() -> Vec<Value> {
    let live = json!({ "ask": { "ask": "live", "since": 0 } });
    let lesson = json!({ "images": 2000, "epochs": 3, "steps": 60, "optimizer": "adam", "seed": 7 });
    let mut script = vec![json!({ "train": lesson })];
    for _ in 0..18 {
        script.extend([json!({ "advance": 0 }), live.clone()]);
    }
    script.push(json!({ "ask": { "ask": "sample", "split": "test", "index": 0 } }));
    script.push(json!({ "save": {} }));
    script
}

fn talk(local: &mut Local) -> Vec<Value> {
    script().iter().map(|request| meet(local, request)).collect()
}

const ANSWERS: &str = "STRIATE_TEST_ANSWERS";

/// Not a test of its own: the portable side of the next one, whose instruction set is chosen once a process.
#[test]
#[ignore = "run by the test of WebAssembly"]
fn portable_side() {
    if let Some(file) = std::env::var_os(ANSWERS) {
        std::fs::write(file, Value::from(talk(&mut Local::new().unwrap())).to_string()).unwrap();
    }
}

#[test]
#[ignore = "needs Node.js and a built site: STRIATE_SITE=DIR cargo test -p striate-web --test web -- --ignored wasm"]
fn wasm_trains_as_the_portable_path_does() {
    let site = PathBuf::from(std::env::var_os("STRIATE_SITE").expect("STRIATE_SITE names a built site"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let there: Vec<Value> = {
        let talk = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/web/talk.mjs");
        let mut node = Command::new("node");
        node.arg(talk).arg(root.join(site).join("striate.wasm")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut node = node.spawn().expect("node");
        let lines: String = script().iter().map(|request| format!("{request}\n")).collect();
        let mut input = node.stdin.take().unwrap();
        let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()));
        let output = node.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let here: Vec<Value> = {
        let directory = std::env::temp_dir().join(format!("striate-portable-{}", std::process::id()));
        let mut own = Command::new(std::env::current_exe().unwrap());
        own.args(["--exact", "local::portable_side", "--ignored"])
            .env("STRIATE_ISA", "portable")
            .env(ANSWERS, &directory);
        assert!(own.stdout(Stdio::null()).status().unwrap().success());
        let text = std::fs::read_to_string(&directory).unwrap();
        std::fs::remove_file(&directory).unwrap();
        serde_json::from_str(&text).unwrap()
    };
    assert_eq!(here.len(), there.len());
    let difference = |a: &Value, b: &Value| {
        let both = a.as_f64().zip(b.as_f64());
        both.map_or_else(|| if a == b { 0.0 } else { f64::INFINITY }, |(a, b)| (a - b).abs())
    };
    let mut losses = (0, 0.0f64);
    for (at, (a, b)) in here.iter().zip(&there).enumerate() {
        assert!(a["error"].is_null() && b["error"].is_null(), "{at}: {a} {b}");
        let (a, b) = (&a["ok"], &b["ok"]);
        assert_eq!((&a["step"], &a["phase"]), (&b["step"], &b["phase"]), "{at}");
        if a["loss"].is_number() {
            losses = (losses.0 + 1, losses.1.max(difference(&a["loss"], &b["loss"])));
        }
    }
    let model = |answers: &[Value]| {
        let saved = answers.last().unwrap()["ok"]["file"].as_str().unwrap();
        ModelFile::from_bytes(&STANDARD.decode(saved).unwrap(), "saved").unwrap()
    };
    let (a, b) = (model(&here), model(&there));
    assert_eq!(a.training["steps"], 60);
    assert_eq!(b.metrics["step"], 60);
    let weights = a.network.parameters().as_slice().iter().zip(b.network.parameters().as_slice());
    let weights = weights.map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max);
    let tested = difference(&a.metrics["test_loss"], &b.metrics["test_loss"]);
    println!(
        "WebAssembly against the portable path after 60 steps: {} losses differ by {:e} at most, {} weights by {weights:e}, \
         the test loss ({:.4}) by {tested:e}",
        losses.0,
        losses.1,
        a.network.parameters().len(),
        a.metrics["test_loss"].as_f64().unwrap(),
    );
    assert!(losses.0 > 10 && losses.1 <= 1e-5 && weights <= 1e-5 && tested <= 1e-5);
}
