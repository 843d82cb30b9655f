//! The page's files, its questions, and a run that it watches.

use crate::common::{Running, SHAPE, answer, data, model, png};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::{GrayImage, Luma};
use serde_json::{Value, json};
use std::io::Write;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use striate::data::{Normalization, Splits};
use striate::train::{TrainOptions, Trainer};
use striate_web::Studio;
use striate_web::page::FILES;
use striate_web::server::Options;
use striate_web::studio::{DataSource, Live};

fn source() -> DataSource {
    DataSource::new("tiny", || Ok(Splits { train: data(120), test: data(60) }))
}

fn looking() -> Running {
    Running::of(Arc::new(Studio::new(model()).with_data(source())), Options::default())
}

fn asked(server: &Running, question: &Value) -> Value {
    let (status, found) = server.send("/studio", question);
    assert_eq!(status, 200, "{question}: {found}");
    found
}

fn is_png(value: &Value) -> bool {
    let text = value.as_str().unwrap().strip_prefix("data:image/png;base64,").unwrap();
    image::load_from_memory(&STANDARD.decode(text).unwrap()).is_ok()
}

#[test]
fn every_file_is_there_and_nothing_else() {
    let server = looking();
    let (status, head, body) = server.ask("GET", "/", "", &[]);
    assert!(status == 200 && head.contains("text/html") && head.contains("script-src 'self'"), "{head}");
    let page = String::from_utf8(body).unwrap();
    assert!(page.contains("page/app.js") && !page.contains("http://") && !page.contains("https://"));
    for (name, text) in FILES {
        let (status, head, body) = server.ask("GET", &format!("/page/{name}"), "", &[]);
        assert_eq!((status, body.as_slice()), (200, text.as_bytes()), "{name}");
        let kind = if name.ends_with(".js") { "text/javascript" } else { "text/" };
        assert!(head.contains(kind) || name.ends_with(".svg") && head.contains("image/svg+xml"), "{name}: {head}");
        // Every module that one asks for is there.
        for from in text.split("from \"").skip(1).filter_map(|rest| rest.split('"').next()) {
            let (up, rest) = (from.starts_with("../"), from.trim_start_matches("../").trim_start_matches("./"));
            let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
            let wanted = if up || folder.is_empty() { rest.to_owned() } else { format!("{folder}/{rest}") };
            assert!(FILES.iter().any(|(one, _)| *one == wanted), "{name} asks for {from}");
        }
    }
    for path in ["/page/", "/page/none.js", "/page/../Cargo.toml", "/page/..%2f..%2fCargo.toml", "/page//etc/passwd"] {
        assert_eq!(server.get(path).0, 404, "{path}");
    }
}

#[test]
fn the_words_are_there_in_both_languages() {
    let text = |name: &str| FILES.iter().find(|(one, _)| *one == name).unwrap().1;
    let words = text("words.js");
    let has = |key: &str| words.contains(&format!("\n  {key}: [")) || words.contains(&format!("\n  \"{key}\": ["));
    for (name, code) in FILES.iter().filter(|(name, _)| name.ends_with(".js") && *name != "words.js") {
        for start in ["{ t: \"", ", t: \"", " label: \"", "say(words, \"", "total(\""] {
            for key in code.split(start).skip(1).filter_map(|rest| rest.split('"').next()) {
                assert!(has(key), "{name}: {key:?} has no words");
            }
        }
    }
}

#[test]
fn every_question_has_an_answer() {
    let server = looking();
    let about = asked(&server, &json!({ "ask": "about" }));
    assert_eq!(
        (&about["name"], &about["data"], &about["live"]),
        (&json!("simple-convnet"), &json!("tiny"), &json!(false))
    );
    assert!(is_png(&about["legends"]["heat"]) && about["draws"] == true);
    // What is drawn is centred and scaled as the data's digits were.
    let drawn = GrayImage::from_fn(280, 280, |x, y| Luma([if x < 40 && (10..200).contains(&y) { 0 } else { 255 }]));
    let file = STANDARD.encode(png(&drawn));
    let read = asked(&server, &json!({ "ask": "read", "file": file }));
    let pixels = STANDARD.decode(read["pixels"].as_str().unwrap()).unwrap();
    assert_eq!(pixels.len(), SHAPE.len());
    let columns: Vec<usize> = (0..784).filter(|&i| pixels[i] > 128).map(|i| i % 28).collect();
    let mean = columns.iter().sum::<usize>() as f64 / columns.len() as f64;
    assert!((mean - 13.5).abs() < 1.5, "the stroke's middle is at {mean}");
    assert!(is_png(&read["picture"]) && read["probabilities"].as_array().unwrap().len() == 10);
    let pixels = &read["pixels"];
    let maps = asked(&server, &json!({ "ask": "maps", "pixels": pixels }));
    let layers: Vec<&str> =
        maps["layers"].as_array().unwrap().iter().map(|one| one["layer"].as_str().unwrap()).collect();
    assert_eq!(layers, ["Conv1", "Relu1", "Pool1", "Affine1", "Relu2", "Affine2"]);
    assert!(maps["layers"][0]["maps"].as_array().unwrap().iter().all(|one| is_png(&one["picture"])));
    for (layer, at, kind) in [
        ("Conv1", [3, 4, 5], "sum"),
        ("Relu1", [3, 4, 5], "point"),
        ("Pool1", [3, 4, 5], "max"),
        ("Affine1", [3, 0, 0], "sum"),
        ("Affine2", [3, 0, 0], "list"),
    ] {
        let found = asked(&server, &json!({ "ask": "worked", "pixels": pixels, "layer": layer, "at": at }));
        assert_eq!(found["work"]["kind"], kind, "{layer}");
        if let Some(terms) = found["work"]["terms"].as_array() {
            let sum: f64 = terms.iter().map(|term| term["sum"].as_f64().unwrap()).sum();
            let all = sum + found["work"]["rest"].as_f64().unwrap() + found["work"]["bias"].as_f64().unwrap();
            assert!((all - found["value"].as_f64().unwrap()).abs() < 1e-4, "{layer}: {found}");
        }
    }
    let why = asked(&server, &json!({ "ask": "why", "pixels": pixels, "class": 4 }));
    let views: Vec<&str> = why["views"].as_array().unwrap().iter().map(|one| one["view"].as_str().unwrap()).collect();
    assert_eq!((views, &why["class"]), (vec!["grad-cam", "occlusion", "gradient"], &json!(4)));
    let filters = asked(&server, &json!({ "ask": "filters" }));
    assert!(is_png(&filters["picture"]) && filters["shape"] == json!([30, 1, 5, 5]));
    let sample = asked(&server, &json!({ "ask": "sample", "split": "train", "index": 127 }));
    assert_eq!((&sample["index"], &sample["label"]), (&json!(7), &json!(7)));
    let similar = asked(&server, &json!({ "ask": "similar", "pixels": sample["pixels"] }));
    // It is its own nearest, or one that is the same to the bit.
    assert!(similar["images"][0]["similarity"].as_f64().unwrap() > 0.9999);
    let confusion = asked(&server, &json!({ "ask": "confusion" }));
    let counts: Vec<Vec<u64>> = serde_json::from_value(confusion["counts"].clone()).unwrap();
    assert_eq!(counts.iter().flatten().sum::<u64>(), 60);
    assert!(confusion["svg"].as_str().unwrap().contains("data-cell=\"0,0\""));
    for (row, column) in (0..10).flat_map(|row| (0..10).map(move |column| (row, column))) {
        let cell = asked(&server, &json!({ "ask": "cell", "row": row, "column": column }));
        assert_eq!(cell["count"], counts[row][column]);
    }
    assert!(asked(&server, &json!({ "ask": "diagram" }))["svg"].as_str().unwrap().contains("30 x 24 x 24"));
}

#[test]
fn wrong_questions_are_refused_with_what_is_wrong() {
    let server = Running::start(Options::default());
    let ask = |question: &Value| {
        let (status, found) = server.send("/studio", question);
        (status, found["error"].as_str().unwrap().to_owned())
    };
    for (question, status, part) in [
        (json!({ "ask": "everything" }), 400, "everything"),
        (json!({ "ask": "maps", "pixels": "AAAA" }), 400, "784"),
        (json!({ "ask": "maps", "pixels": "%" }), 400, "base64"),
        (json!({ "ask": "read", "file": "AAAA" }), 400, "the image"),
        (json!({ "ask": "filters", "layer": "Conv7" }), 400, "Conv1"),
        (json!({ "ask": "confusion" }), 404, "--data"),
        (json!({ "ask": "live", "since": 0 }), 400, "no run"),
    ] {
        let (found, error) = ask(&question);
        assert!(found == status && error.contains(part), "{question}: {found} {error}");
    }
    // A bomb: few bytes that hold many pixels.
    let bomb = STANDARD.encode(png(&GrayImage::new(6000, 5000)));
    let (status, error) = ask(&json!({ "ask": "read", "file": bomb }));
    assert!(status == 400 && error.contains("6000 x 5000"), "{error}");
    assert_eq!(server.send("/run", &json!({ "action": "stop" })).0, 409);
    let (status, ..) = server.ask("POST", "/studio", "text/plain", b"{\"ask\":\"about\"}");
    assert_eq!(status, 415);
}

#[test]
fn a_run_is_watched_paused_resumed_and_stopped_and_not_disturbed() {
    let train = data(400);
    let options = TrainOptions { epochs: 400, batch: 20, log_every: 2, ..TrainOptions::default() };
    let live = Live::new(&options, Vec::new());
    let studio = Arc::new(Studio::new(model()).with_data(source()).with_live(live));
    let server = Running::of(Arc::clone(&studio), Options::default());
    let run = {
        let (studio, options) = (Arc::clone(&studio), options.clone());
        thread::spawn(move || {
            let mut network = model().network;
            let trainer = Trainer::new(&mut network, &train, None, Normalization::identity(), options).unwrap();
            let summary = trainer.run(&mut |event| studio.follow(event, &|| false)).unwrap();
            (summary, network)
        })
    };
    let look = || asked(&server, &json!({ "ask": "live", "since": 0 }));
    let wait_for = |what: &str, is_it: &dyn Fn(&Value) -> bool| {
        let begun = Instant::now();
        loop {
            let found = look();
            if is_it(&found) {
                return found;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{what}: {found}");
            thread::sleep(Duration::from_millis(30));
        }
    };
    let found = wait_for("its pulse", &|found| found["layers"].is_array());
    assert_eq!(found["layers"][1]["layer"], "Relu1");
    assert!(found["curves"][0].as_str().unwrap().contains("Loss") && is_png(&found["filters"]));
    // A page of another site can do nothing to it.
    let body = b"{\"action\":\"stop\"}";
    let mut stream = server.connect();
    let head = server.head("POST", "/run", "application/json", body.len());
    let head = head.replacen("\r\n\r\n", "\r\nOrigin: http://evil.example\r\n\r\n", 1);
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    assert_eq!(answer(stream).0, 403);
    assert_eq!(server.ask("POST", "/run", "application/x-www-form-urlencoded", body).0, 415);
    assert_eq!(server.send("/run", &json!({ "action": "pause" })).0, 200);
    let paused = wait_for("its pause", &|found| found["phase"] == "paused");
    thread::sleep(Duration::from_millis(200));
    assert_eq!(look()["step"], paused["step"]);
    // What is looked at meanwhile takes nothing from it.
    asked(&server, &json!({ "ask": "confusion" }));
    assert_eq!(server.send("/run", &json!({ "action": "resume" })).0, 200);
    wait_for("going on", &|found| found["phase"] == "running" && found["step"].as_u64() > paused["step"].as_u64());
    assert_eq!(server.send("/run", &json!({ "action": "stop" })).0, 200);
    let (summary, network) = run.join().unwrap();
    assert!(summary.stopped && summary.steps < 8000);
    let mut finished = model();
    finished.network = network.clone();
    studio.finish(finished);
    assert_eq!(look()["phase"], "done");
    assert_eq!(server.send("/run", &json!({ "action": "pause" })).0, 409);
    // The same steps without a page give the same weights.
    let (mut alone, train) = (model().network, data(400));
    let options = TrainOptions { steps: Some(summary.steps), ..options };
    let trainer = Trainer::new(&mut alone, &train, None, Normalization::identity(), options).unwrap();
    trainer.run(&mut |_| striate::train::Control::Continue).unwrap();
    assert_eq!(alone.parameters().as_slice(), network.parameters().as_slice());
}
