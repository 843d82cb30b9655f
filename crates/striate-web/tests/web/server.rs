//! Predictions, bounds and strangers, over real sockets.

use crate::common::{Running, answer, model, png};
use image::{GrayImage, Luma};
use ndarray::{Array4, Axis};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};
use striate_web::server::Options;

/// A page with a stroke of its own.
fn page(k: u32) -> Vec<u8> {
    let ink = |x: u32, y: u32| (20..80).contains(&y) && (x + k * y / 20).abs_diff(50) < 5 + k % 5;
    png(&GrayImage::from_fn(100, 100, |x, y| Luma([if ink(x, y) { 0 } else { 255 }])))
}

/// What the library says of a file, as `striate predict` asks it.
fn expected(file: &[u8]) -> Vec<f32> {
    let model = model();
    let x = model.preprocessing.apply(&model.preprocessing.decode(file, "page").unwrap());
    let x = Array4::from_shape_vec((1, 1, 28, 28), x).unwrap();
    model.probabilities(&model.network.predict(x.view()).unwrap()).index_axis(Axis(0), 0).to_vec()
}

/// Whether a prediction is the library's, to the bit or nearly.
fn agrees(found: &Value, expected: &[f32], tolerance: f64) {
    let top = found["top"].as_array().unwrap();
    for one in top {
        let index = one["index"].as_u64().unwrap() as usize;
        assert!((one["probability"].as_f64().unwrap() - f64::from(expected[index])).abs() <= tolerance, "{found}");
        assert_eq!(one["class"], format!("digit {index}"));
    }
    let best = (0..10).reduce(|best, one| if expected[one] > expected[best] { one } else { best }).unwrap();
    assert_eq!(found["index"], best);
}

#[test]
fn one_image_in_every_form_is_predicted_as_the_library_does() {
    let server = Running::start(Options::default());
    let file = page(1);
    let expected = expected(&file);
    let exact = |found: &Value| agrees(found, &expected, 1e-9);
    for kind in ["image/png", "application/octet-stream", "application/x-www-form-urlencoded", ""] {
        let (status, found) = server.post(kind, &file);
        assert_eq!((status, found["prediction"]["top"].as_array().unwrap().len()), (200, 5), "{found}");
        exact(&found["prediction"]);
    }
    let mut form = b"--x\r\nContent-Disposition: form-data; name=\"a\"; filename=\"a.png\"\r\n\r\n".to_vec();
    form.extend_from_slice(&file);
    form.extend_from_slice(b"\r\n--x--\r\n");
    let (status, found) = server.post("multipart/form-data; boundary=x", &form);
    assert_eq!(status, 200, "{found}");
    exact(&found["predictions"][0]);
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(&file);
    let (status, found) = server.post("application/json", format!("{{\"image\": \"{text}\"}}").as_bytes());
    assert_eq!(status, 200, "{found}");
    exact(&found["prediction"]);
    let pixels = model().preprocessing.decode(&file, "page").unwrap();
    let rows: Vec<&[u8]> = pixels.chunks(28).collect();
    let body = serde_json::json!({ "images": [rows, pixels] }).to_string();
    let (status, found) = server.post("application/json; charset=utf-8", body.as_bytes());
    assert_eq!(status, 200, "{found}");
    (0..2).for_each(|k| agrees(&found["predictions"][k], &expected, 1e-5));
    let (status, _, body) = server.ask("POST", "/predict?top=2", "image/png", &file);
    let found: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, found["prediction"]["top"].as_array().unwrap().len()), (200, 2));
}

#[test]
fn many_at_once_get_each_their_own_answer() {
    let server = Running::start(Options::default());
    thread::scope(|scope| {
        for k in 0..24 {
            let server = &server;
            scope.spawn(move || {
                let file = page(k);
                let (status, found) = server.post("image/png", &file);
                assert_eq!(status, 200, "{found}");
                agrees(&found["prediction"], &expected(&file), 1e-5);
            });
        }
    });
    let (_, text) = server.get("/metrics");
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("striate_requests_total{route=\"/predict\",status=\"200\"} 24"), "{text}");
    assert!(text.contains("striate_images_total 24"), "{text}");
}

#[test]
fn what_it_says_of_itself() {
    let server = Running::start(Options::default());
    let (status, head, body) = server.ask("GET", "/model", "", &[]);
    let found: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        (status, &found["classes"][3], &found["input"]),
        (200, &"digit 3".into(), &serde_json::json!([1, 28, 28]))
    );
    assert_eq!(found["summary"]["layers"][0]["name"], "Conv1");
    for header in ["content-security-policy: default-src 'none'", "x-content-type-options: nosniff", "no-store"] {
        assert!(head.contains(header), "{head}");
    }
    let (status, body) = server.get("/openapi.json");
    let found: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(status, 200);
    for path in ["/predict", "/model", "/healthz", "/metrics"] {
        assert!(found["paths"][path].is_object(), "{path}");
    }
    assert_eq!(server.get("/healthz").0, 200);
    assert_eq!(server.get("/nothing").0, 404);
    assert_eq!(server.get("/predict").0, 405);
    assert_eq!(server.get("/../Cargo.toml").0, 404);
}

#[test]
fn what_is_no_image_is_said_so() {
    let server = Running::start(Options::default());
    let cut = {
        let mut file = page(1);
        file.truncate(file.len() / 2);
        file
    };
    for (kind, body, part) in [
        ("image/png", &b"hello"[..], "the body"),
        ("image/png", &cut, "the body"),
        ("image/png", b"", "empty"),
        ("application/json", b"{\"image\": [[1, 2]]}", "[1, 2]"),
        ("application/json", b"{\"image\": ", "JSON"),
        ("application/json", &[b'['; 100_000], "JSON"),
        ("multipart/form-data", b"--x", "form"),
        ("multipart/form-data; boundary=x", b"--x\r\n", "form"),
    ] {
        let (status, found) = server.post(kind, body);
        assert_eq!(status, 400, "{kind}: {found}");
        assert!(found["error"].as_str().unwrap().contains(part), "{part:?} is not in {found}");
    }
    // What is not even HTTP.
    let mut stream = server.connect();
    stream.write_all(b"\x16\x03\x01\x02\x00 hello\r\n\r\n").unwrap();
    assert_eq!(answer(stream).0, 400);
    assert_eq!(server.post("image/png", &page(1)).0, 200);
}

#[test]
fn too_much_is_413() {
    let options = Options { max_body: 100_000, max_pixels: 1_000_000, max_images: 4, ..Options::default() };
    let server = Running::start(options);
    // Announced, and not.
    let (status, found) = server.post("image/png", &vec![0; 150_000]);
    assert_eq!((status, found["error"].as_str().unwrap().contains("100000 bytes")), (413, true), "{found}");
    let mut stream = server.connect();
    let head = format!("POST /predict HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\r\n", server.address);
    stream.write_all(head.as_bytes()).unwrap();
    for _ in 0..15 {
        let _ = stream.write_all(format!("2710\r\n{}\r\n", "x".repeat(10_000)).as_bytes());
    }
    let _ = stream.write_all(b"0\r\n\r\n");
    let mut first = [0; 12];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 413");
    // A decompression bomb: a few kilobytes that claim, and hold, nine million pixels.
    let bomb = png(&GrayImage::new(3000, 3000));
    assert!(bomb.len() < 100_000);
    let (status, found) = server.post("image/png", &bomb);
    assert_eq!((status, found["error"].as_str().unwrap().contains("3000 x 3000")), (413, true), "{found}");
    let many = serde_json::json!({ "images": vec![vec![0; 784]; 5] }).to_string();
    assert_eq!(server.post("application/json", many.as_bytes()).0, 413);
}

#[test]
fn a_full_server_says_when_to_come_again() {
    let server = Running::start(Options { queue: 1, ..Options::default() });
    let file = png(&GrayImage::from_fn(4000, 4000, |x, y| Luma([(x * y % 251) as u8])));
    let found: Vec<(u16, String)> = thread::scope(|scope| {
        let ask = || {
            let (status, head, _) = server.ask("POST", "/predict", "image/png", &file);
            (status, head)
        };
        let asked: Vec<_> = (0..6).map(|_| scope.spawn(ask)).collect();
        asked.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let full: Vec<_> = found.iter().filter(|(status, _)| *status == 503).collect();
    assert!(!full.is_empty() && full.len() < 6, "{found:?}");
    assert!(full.iter().all(|(_, head)| head.contains("retry-after: 1")), "{found:?}");
    assert!(found.iter().all(|(status, _)| [200, 503].contains(status)), "{found:?}");
    assert_eq!(server.post("image/png", &page(1)).0, 200);
}

#[test]
fn slow_clients_are_left_and_others_served() {
    let second = Duration::from_secs(1);
    let options = Options { head_timeout: second, body_timeout: second, max_connections: 8, ..Options::default() };
    let server = Running::start(options);
    // A head that never ends, a body that never ends, and connections that say nothing: twice as many as there may be.
    let slow: Vec<TcpStream> = (0..16)
        .map(|k| {
            let mut stream = server.connect();
            match k % 3 {
                0 => stream.write_all(b"POST /predict HTTP/1.1\r\nHost:").unwrap(),
                1 => stream.write_all(format!("{}x", server.head("POST", "/predict", "", 1000)).as_bytes()).unwrap(),
                _ => {}
            }
            stream
        })
        .collect();
    for _ in 0..3 {
        assert_eq!(server.post("image/png", &page(1)).0, 200);
    }
    let begun = Instant::now();
    for mut stream in slow {
        let mut rest = Vec::new();
        // Closed, with or without a word.
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"), "{:?}", String::from_utf8_lossy(&rest));
    }
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[test]
fn what_was_accepted_is_answered_before_the_end() {
    let mut server = Running::start(Options::default());
    let file = page(2);
    // Half sent when the server is told to stop.
    let mut begun: Vec<TcpStream> = (0..4)
        .map(|_| {
            let mut stream = server.connect();
            stream.write_all(server.head("POST", "/predict", "image/png", file.len()).as_bytes()).unwrap();
            stream.write_all(&file[..50]).unwrap();
            stream
        })
        .collect();
    let idle = server.connect();
    thread::sleep(Duration::from_millis(300));
    server.begin_to_stop();
    thread::sleep(Duration::from_millis(300));
    for stream in &mut begun {
        stream.write_all(&file[50..]).unwrap();
    }
    for stream in begun {
        let (status, _, body) = answer(stream);
        assert_eq!(status, 200);
        agrees(&serde_json::from_slice::<Value>(&body).unwrap()["prediction"], &expected(&file), 1e-5);
    }
    server.stop();
    assert!(TcpStream::connect(server.address).is_err());
    drop(idle);
}

#[test]
fn pages_of_other_sites_and_strangers_get_nothing() {
    let server = Running::start(Options::default());
    let ask = |headers: &str| {
        let mut stream = server.connect();
        stream.write_all(format!("GET /model HTTP/1.1\r\nConnection: close\r\n{headers}\r\n").as_bytes()).unwrap();
        answer(stream).0
    };
    let host = format!("Host: {}\r\n", server.address);
    assert_eq!(ask(&host), 200);
    assert_eq!(ask("Host: evil.example\r\n"), 421);
    assert_eq!(ask(&format!("{host}Origin: https://evil.example\r\n")), 403);
    let server = Running::start(Options { token: Some("correct-horse".into()), ..Options::default() });
    assert_eq!(server.get("/model").0, 401);
    assert_eq!(server.get("/healthz").0, 200);
    let (status, head, _) = server.ask("GET", "/?token=correct-horse", "", &[]);
    assert!(status == 303 && head.contains("httponly; samesite=strict") && head.contains("location: /\r\n"), "{head}");
}
