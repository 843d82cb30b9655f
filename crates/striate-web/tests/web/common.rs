//! A server for a test, and a client of it.

use image::{GrayImage, ImageFormat};
use ndarray::Array4;
use serde_json::Value;
use std::io::{Cursor, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use striate::data::{Dataset, Fit, Normalization, Preprocessing, one_class_names};
use striate::formats::{ModelFile, TestVectors};
use striate::models;
use striate::network::Network;
use striate::shape::Shape;
use striate_web::Studio;
use striate_web::server::{self, Options, Server};

pub(crate) const SHAPE: Shape = Shape::new(1, 28, 28);

pub(crate) fn model() -> ModelFile {
    let network = Network::new(models::by_name("simple-convnet", SHAPE, 10).unwrap(), 1).unwrap();
    ModelFile {
        network,
        class_names: (0..10).map(|class| format!("digit {class}")).collect(),
        preprocessing: Preprocessing::new(SHAPE, Fit::Digit, Normalization::identity()).unwrap(),
        training: Value::Null,
        metrics: Value::Null,
        test_vectors: TestVectors::none(),
        temperature: None,
        quantized: None,
    }
}

/// Images that differ by class and by number.
pub(crate) fn data(images: usize) -> Dataset {
    let x = Array4::from_shape_fn((images, 1, 28, 28), |(n, _, y, x)| {
        let ink = (x + n % 10 * y / 10).abs_diff(6 + n % 7) < 3;
        if ink { 1.0 } else { 0.0 }
    });
    Dataset::from_arrays(x, (0..images).map(|n| n % 10).collect(), one_class_names(10)).unwrap()
}

/// A server of its own, which drains when this is dropped.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    server: Option<server::Running>,
    stopping: Option<JoinHandle<()>>,
}

impl Running {
    pub(crate) fn start(options: Options) -> Self {
        Self::of(Arc::new(Studio::new(model())), options)
    }

    pub(crate) fn of(studio: Arc<Studio>, options: Options) -> Self {
        let options = Options { address: SocketAddr::from(([127, 0, 0, 1], 0)), ..options };
        let server = Server::bind(studio, options).unwrap();
        let address = server.address();
        Self { address, server: Some(server.start().unwrap()), stopping: None }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    pub(crate) fn head(&self, method: &str, path: &str, kind: &str, length: usize) -> String {
        format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n",
            self.address
        )
    }

    /// Status, head and body.
    pub(crate) fn ask(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
        let mut stream = self.connect();
        stream.write_all(self.head(method, path, kind, body.len()).as_bytes()).unwrap();
        // A server that has seen enough may stop reading.
        let _ = stream.write_all(body);
        answer(stream)
    }

    pub(crate) fn post(&self, kind: &str, body: &[u8]) -> (u16, Value) {
        let (status, _, body) = self.ask("POST", "/predict", kind, body);
        (status, serde_json::from_slice(&body).unwrap())
    }

    /// JSON to a path.
    pub(crate) fn send(&self, path: &str, value: &Value) -> (u16, Value) {
        let (status, _, body) = self.ask("POST", path, "application/json", value.to_string().as_bytes());
        (status, serde_json::from_slice(&body).unwrap())
    }

    pub(crate) fn get(&self, path: &str) -> (u16, Vec<u8>) {
        let (status, _, body) = self.ask("GET", path, "", &[]);
        (status, body)
    }

    pub(crate) fn begin_to_stop(&mut self) {
        let server = self.server.take();
        self.stopping = Some(thread::spawn(move || drop(server)));
    }

    pub(crate) fn stop(&mut self) {
        drop(self.server.take());
        if let Some(thread) = self.stopping.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(crate) fn answer(mut stream: TcpStream) -> (u16, String, Vec<u8>) {
    let mut bytes = Vec::new();
    // A connection that is reset after the answer has still given it.
    let _ = stream.read_to_end(&mut bytes);
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or_else(|| {
        panic!("no answer: {:?}", String::from_utf8_lossy(&bytes));
    });
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_ascii_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head, bytes[end + 4..].to_vec())
}

pub(crate) fn png(image: &GrayImage) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}
