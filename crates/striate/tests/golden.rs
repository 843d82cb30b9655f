//! Files that every version ever written must be readable for ever: model files and checkpoints of each version of their
//! formats lie in `tests/golden/`, beside the predictions that were recorded when they were written.
//!
//! A new version of a format adds its files, and never changes one that is there:
//! `cargo test --release -p striate --test golden -- --ignored` writes those of the versions that are written now.

use ndarray::{Array2, Array4};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use striate::data::preprocessing::{Fit, Normalization, Preprocessing};
use striate::data::{Dataset, Pixels, one_class_names};
use striate::formats::{ModelFile, Temperature, TestVectors, model_file};
use striate::layers::{AffineOptions, BatchNormOptions, ConvolutionOptions, Init, PoolingOptions, ReluOptions};
use striate::network::{Description, Network};
use striate::optim::OptimizerOptions;
use striate::shape::{Shape, Window};
use striate::train::{
    CHECKPOINT_VERSION, Checkpoint, Control, Event, Keep, QuantizeOptions, TrainOptions, Trainer, quantize,
};

const INPUT: Shape = Shape::new(1, 8, 8);
const CLASSES: usize = 3;
/// As [`ModelFile::TOLERANCE`]: machines with other instructions add in another order.
const TOLERANCE: f32 = 1e-4;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// The names of the golden files that begin and end so, in order.
fn names(start: &str, end: &str) -> Vec<String> {
    let entries = std::fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
    names.retain(|name| name.starts_with(start) && name.ends_with(end));
    names.sort();
    names
}

fn description() -> Description {
    Description::new("golden", INPUT)
        .with("conv1", ConvolutionOptions::new(2, Window::square(3, 1, 1), Init::He).without_bias())
        .with("norm1", BatchNormOptions::default())
        .with("relu1", ReluOptions {})
        .with("pool1", PoolingOptions::max(Window::square(2, 2, 0)))
        .with("classes", AffineOptions::new(CLASSES, Init::Xavier))
}

fn pixel(n: usize, y: usize, x: usize) -> u8 {
    ((31 * n + 7 * y + 13 * x + n * y * x) % 256) as u8
}

/// Numbers that no version of the random numbers has a say in.
fn inputs(count: usize) -> Array4<f32> {
    Array4::from_shape_fn((count, 1, 8, 8), |(n, _, y, x)| f32::from(pixel(n, y, x)) / 255.0)
}

fn data() -> Dataset {
    let pixels = (0..12 * INPUT.len()).map(|i| pixel(i / 64, i / 8 % 8, i % 8)).collect();
    Dataset::new("golden", INPUT, Pixels::U8(pixels), (0..12).map(|i| i % CLASSES).collect(), one_class_names(CLASSES))
        .unwrap()
}

fn options() -> TrainOptions {
    TrainOptions {
        epochs: 3,
        batch: 4,
        learning_rate: 0.01,
        optimizer: OptimizerOptions::adam(),
        average: Some(0.9),
        keep: Keep::Best,
        seed: 7,
        ..TrainOptions::default()
    }
}

fn trainer<'a>(network: &'a mut Network, data: &'a Dataset) -> Trainer<'a> {
    Trainer::new(network, data, None, Normalization::identity(), options()).unwrap().validation(data).unwrap()
}

fn recorded(name: &str) -> Array2<f32> {
    let text = std::fs::read_to_string(directory().join(format!("{name}.json"))).unwrap();
    let rows: Vec<Vec<f32>> =
        serde_json::from_value(serde_json::from_str::<Value>(&text).unwrap()["logits"].take()).unwrap();
    Array2::from_shape_vec((rows.len(), CLASSES), rows.concat()).unwrap()
}

fn assert_close(found: &Array2<f32>, expected: &Array2<f32>, name: &str) {
    assert_eq!(found.dim(), expected.dim(), "{name}");
    let largest = expected.iter().fold(1.0f32, |largest, value| largest.max(value.abs()));
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= TOLERANCE * largest, "{name}: {found} is not {expected}");
    }
}

#[test]
fn model_files_of_every_version_give_the_recorded_predictions() {
    let names = names("model-", ".safetensors");
    assert!(names.len() as u64 >= model_file::VERSION, "{names:?}");
    for name in names {
        let model = ModelFile::load(&directory().join(&name)).unwrap();
        let verification = model.verify().unwrap();
        assert!(verification.vectors == 4 && verification.is_passed(), "{name}: {verification:?}");
        assert_close(&model.predict(inputs(6).view()).unwrap(), &recorded(&name), &name);
        assert_eq!(model.class_names, ["one", "둘", "three"], "{name}");
        assert_eq!((model.preprocessing.shape, model.preprocessing.fit), (INPUT, Fit::Stretch), "{name}");
        assert_eq!(model.preprocessing.normalization.mean, [0.25], "{name}");
        assert_eq!(model.training, json!({ "epochs": 3 }), "{name}");
        assert_eq!(model.metrics, json!({ "test_accuracy": 0.5 }), "{name}");
        assert_eq!(model.temperature.as_ref().map(|t| (t.value, t.images)), Some((1.5, 12)), "{name}");
        // What was read can be written by this version, and read again.
        let again = ModelFile::from_bytes(&model.to_bytes().unwrap(), &name).unwrap();
        assert_eq!(again.network.parameters(), model.network.parameters(), "{name}");
        assert_eq!(again.test_vectors, model.test_vectors, "{name}");
    }
}

#[test]
fn checkpoints_of_every_version_go_on_to_the_recorded_end() {
    let names = names("last-", ".ckpt");
    assert!(!names.is_empty());
    for name in names {
        let checkpoint = Checkpoint::load(&directory().join(&name)).unwrap();
        assert_eq!((checkpoint.step(), checkpoint.note()), (4, &json!("golden")), "{name}");
        let (data, mut network) = (data(), checkpoint.network().unwrap());
        let summary = trainer(&mut network, &data).resume(checkpoint).run(&mut |_| Control::Continue).unwrap();
        assert_eq!(summary.steps, 9, "{name}");
        assert_close(&network.predict(inputs(6).view()).unwrap(), &recorded(&name), &name);
    }
}

/// Writes a file that is not there yet; those that are must never change.
fn write(name: &str, bytes: &[u8], logits: &Array2<f32>) {
    let path = directory().join(name);
    if path.exists() {
        return;
    }
    std::fs::write(&path, bytes).unwrap();
    let rows: Vec<Vec<f32>> = logits.rows().into_iter().map(|row| row.to_vec()).collect();
    std::fs::write(directory().join(format!("{name}.json")), format!("{}\n", json!({ "logits": rows }))).unwrap();
}

#[test]
#[ignore = "writes the golden files of the versions that are written now"]
fn write_golden_files() {
    let (data, mut saved) = (data(), None);
    let mut network = Network::new(description(), 1).unwrap();
    let run = trainer(&mut network, &data).checkpoints(Some(1)).run(&mut |event| {
        match event {
            // The first checkpoint of that step: in the midst of the second epoch.
            Event::Checkpoint { state } if state.step() == 4 && saved.is_none() => {
                saved = Some(state.to_bytes(&json!("golden")).unwrap());
            }
            _ => {}
        }
        Control::Continue
    });
    run.unwrap();
    let logits = network.predict(inputs(6).view()).unwrap();
    write(&format!("last-v{CHECKPOINT_VERSION}.ckpt"), &saved.unwrap(), &logits);

    let preprocessing = Preprocessing {
        shape: INPUT,
        fit: Fit::Stretch,
        normalization: Normalization { mean: vec![0.25], deviation: vec![0.5] },
    };
    let pictures = TestVectors::of_data(&data, 4, &preprocessing);
    assert_eq!(pictures.files.len(), 4);
    let normalization = &preprocessing.normalization;
    let (numbers, quantized) =
        quantize(&network, &data, normalization, &QuantizeOptions::default(), &mut |_, _| ()).unwrap();
    let test_vectors = pictures.clone().recorded(&network).unwrap();
    let mut model = ModelFile {
        network,
        class_names: vec!["one".into(), "둘".into(), "three".into()],
        preprocessing,
        training: json!({ "epochs": 3 }),
        metrics: json!({ "test_accuracy": 0.5 }),
        test_vectors,
        temperature: Some(Temperature { value: 1.5, data: "golden".into(), images: 12 }),
        quantized: None,
    };
    write(&format!("model-v{}.safetensors", model_file::FLOAT_VERSION), &model.to_bytes().unwrap(), &logits);
    let logits = quantized.predict(inputs(6).view()).unwrap();
    model.test_vectors = pictures.recorded_in_bytes(&quantized).unwrap();
    (model.network, model.quantized) = (numbers, Some(quantized));
    write(&format!("model-v{}.safetensors", model_file::VERSION), &model.to_bytes().unwrap(), &logits);
}
