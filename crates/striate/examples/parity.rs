//! The other side of `benches/peers/parity.py`: one training pass on given weights and a given batch.
//!
//! `parity MODEL C,H,W CLASSES DIR [KEY=VALUE...]` reads `weights.f32` (all parameters, in our order), `x.f32` (N, C, H, W)
//! and `labels.u32` from DIR, all little-endian, and writes `logits.f32` and `gradients.f32` there; the loss and the
//! parameters' names and shapes go to stdout as JSON. With `shapes` instead of a directory it only prints the latter.

use std::path::Path;
use striate::models::{Request, build};
use striate::network::{Mode, Network, Plan, Runner};
use striate::shape::Shape;

type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, input, classes, directory, settings @ ..] = arguments.as_slice() else {
        return Err("usage: parity MODEL C,H,W CLASSES DIR|shapes [KEY=VALUE...]".into());
    };
    let sizes: Vec<usize> = input.split(',').map(str::parse).collect::<Result<_, _>>()?;
    let &[channels, height, width] = sizes.as_slice() else { return Err("C,H,W is needed".into()) };
    let settings: Vec<(String, String)> =
        settings.iter().filter_map(|s| s.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect();
    let shape = Shape::new(channels, height, width);
    let request = Request { input: Some(shape), classes: Some(classes.parse()?), settings: &settings };
    let mut network = Network::new(build(model, &request)?, 1)?;
    let shapes: Vec<_> = network.parameters().specs().iter().map(|s| (s.name.clone(), s.shape.clone())).collect();
    if directory == "shapes" {
        println!("{}", serde_json::to_string(&shapes)?);
        return Ok(());
    }
    let directory = Path::new(directory);
    network.parameters_mut().as_mut_slice().copy_from_slice(&read(&directory.join("weights.f32"))?);
    let (x, labels) = (read(&directory.join("x.f32"))?, std::fs::read(directory.join("labels.u32"))?);
    let batch = x.len() / shape.len();
    let mut runner = Runner::new(Plan::new(network.description(), batch, Mode::Training)?)?;
    runner.input_mut().copy_from_slice(&x);
    for (label, bytes) in runner.labels_mut().iter_mut().zip(labels.as_chunks::<4>().0) {
        *label = u32::from_le_bytes(*bytes) as usize;
    }
    let mut gradients = network.parameters().zeros_like();
    let result = runner.loss_and_gradient(network.parameters(), &mut gradients, None);
    write(&directory.join("gradients.f32"), gradients.as_slice())?;
    write(&directory.join("logits.f32"), runner.predict(network.parameters()))?;
    println!("{}", serde_json::json!({ "loss": result.loss, "parameters": shapes }));
    Ok(())
}

fn read(path: &Path) -> Result<Vec<f32>, Error> {
    Ok(std::fs::read(path)?.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

fn write(path: &Path, values: &[f32]) -> Result<(), Error> {
    Ok(std::fs::write(path, values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())?)
}
