//! Requests as a stranger sends them, to a real server on loopback.

use serde_json::Value;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use striate::data::{Fit, Normalization, Preprocessing};
use striate::formats::{ModelFile, TestVectors};
use striate::models;
use striate::network::Network;
use striate::shape::Shape;
use striate_web::Studio;
use striate_web::server::{Options, Running, Server};

/// Where bodies go, and what they say they are.
const ENTRIES: [(&str, &str); 5] = [
    ("/predict", "image/png"),
    ("/predict", "application/json"),
    ("/predict", "multipart/form-data; boundary=b"),
    ("/studio", "application/json"),
    ("/run", "application/json"),
];

/// One server for all trials.
static SERVER: LazyLock<(SocketAddr, Running)> = LazyLock::new(|| {
    let shape = Shape::new(1, 16, 16);
    let network = Network::new(models::by_name("simple-convnet", shape, 4).unwrap(), 1).unwrap();
    let model = ModelFile {
        network,
        class_names: ["a", "b", "c", "d"].map(str::to_owned).to_vec(),
        preprocessing: Preprocessing::new(shape, Fit::Digit, Normalization::identity()).unwrap(),
        training: Value::Null,
        metrics: Value::Null,
        test_vectors: TestVectors::none(),
        temperature: None,
        quantized: None,
    };
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = Server::bind(Arc::new(Studio::new(model)), Options { address, ..Options::default() }).unwrap();
    (server.address(), server.start().unwrap())
});

/// The first byte says where the rest goes: as a body with its true length, or, from 5 on, as the whole request. A body is
/// answered, and not with a fault of the server; after anything else the server still answers.
pub fn http(data: &[u8]) {
    let Some((&entry, bytes)) = data.split_first() else { return };
    let address = SERVER.0;
    if let Some((path, kind)) = ENTRIES.get(usize::from(entry)) {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            bytes.len()
        );
        let answer = exchange(address, &[head.as_bytes(), bytes].concat(), false);
        let status = answer.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.first());
        assert!(matches!(status, Some(b'2' | b'4')), "{path}, {kind}: {}", String::from_utf8_lossy(&answer));
    } else {
        exchange(address, bytes, true);
        let health = format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        assert!(exchange(address, health.as_bytes(), false).starts_with(b"HTTP/1.1 200"));
    }
}

/// Sends the request, says (for one that may want more) that nothing follows, and reads until the server closes.
fn exchange(address: SocketAddr, request: &[u8], ends: bool) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
    // It may close before it has all; what it answered can be read nevertheless.
    let _ = stream.write_all(request);
    if ends {
        // The server takes this for a client that has gone, so a whole request is sent without it.
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}
