//! Model files of real networks: what is saved is what is loaded, and nothing else is.

use ndarray::{Array4, s};
use proptest::prelude::*;
use serde_json::json;
use std::path::Path;
use std::sync::LazyLock;
use striate::data::preprocessing::{Fit, Normalization, Preprocessing};
use striate::data::{Dataset, Pixels, one_class_names};
use striate::formats::{
    Container, ContainerWriter, FormatError, ModelFile, Stage, Temperature, TestVectors, weights_sha256,
};
use striate::models;
use striate::network::Network;
use striate::shape::Shape;

const INPUT: Shape = Shape::new(1, 12, 12);
const FIELDS: [&str; 7] = [
    "striate.version",
    "striate.architecture",
    "striate.parameters",
    "striate.classes",
    "striate.preprocessing",
    "striate.training",
    "striate.metrics",
];

fn inputs(count: usize) -> Array4<f32> {
    Array4::from_shape_fn((count, 1, 12, 12), |(n, _, y, x)| ((7 * n + 3 * y + 5 * x) % 11) as f32 / 11.0)
}

fn model() -> ModelFile {
    let network = Network::new(models::by_name("simple-convnet", INPUT, 3).unwrap(), 1).unwrap();
    // More than one batch of the replay, and not a whole number of them.
    let test_vectors = TestVectors::record(&network, inputs(19)).unwrap();
    ModelFile {
        network,
        class_names: vec!["고양이".into(), "dog \"rex\"".into(), String::new()],
        preprocessing: Preprocessing {
            shape: INPUT,
            fit: Fit::Stretch,
            normalization: Normalization { mean: vec![0.1307], deviation: vec![0.3081] },
        },
        training: json!({ "epochs": 20, "options": ["a", null, -1.5] }),
        metrics: json!({ "test_accuracy": 0.75 }),
        test_vectors,
        temperature: None,
        quantized: None,
    }
}

static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| model().to_bytes().unwrap());

/// The model's file with fields replaced or (by `None`) left out, and tensors changed, under a right checksum.
fn forged(
    fields: &[(&str, Option<&str>)],
    change: impl FnOnce(&mut Vec<(String, Vec<usize>, Vec<f32>)>),
) -> Result<ModelFile, FormatError> {
    let container = Container::from_bytes(&BYTES, "the model").unwrap();
    let mut tensors: Vec<(String, Vec<usize>, Vec<f32>)> = Vec::new();
    for name in container.names() {
        let shape = container.shape(name).unwrap().to_vec();
        let mut values = vec![0.0; shape.iter().product()];
        container.read(name, &mut values).unwrap();
        tensors.push((name.to_string(), shape, values));
    }
    change(&mut tensors);
    let mut writer = ContainerWriter::new();
    for key in FIELDS {
        match fields.iter().find(|(changed, _)| *changed == key) {
            Some((_, None)) => {}
            Some((_, Some(value))) => writer.field(key, *value).unwrap(),
            None => writer.field(key, container.field(key).unwrap()).unwrap(),
        }
    }
    for (name, shape, values) in &tensors {
        writer.tensor(name, shape, values).unwrap();
    }
    ModelFile::from_bytes(&writer.to_bytes().unwrap(), "forged.safetensors")
}

fn refusal(fields: &[(&str, Option<&str>)], change: impl FnOnce(&mut Vec<(String, Vec<usize>, Vec<f32>)>)) -> String {
    let message = forged(fields, change).expect_err("a forged model was loaded").to_string();
    assert!(message.starts_with("forged.safetensors"), "{message}");
    message
}

fn bits(network: &Network) -> Vec<u32> {
    network.parameters().as_slice().iter().map(|v| v.to_bits()).collect()
}

#[test]
fn what_is_saved_is_what_is_loaded() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.safetensors");
    let mut model = model();
    let odd = [-0.0, f32::from_bits(1), f32::MIN_POSITIVE / 2.0, f32::MAX, f32::MIN];
    model.network.parameters_mut().as_mut_slice()[..odd.len()].copy_from_slice(&odd);
    model.test_vectors = TestVectors::none();
    model.save(&path).unwrap();
    let loaded = ModelFile::load(&path).unwrap();
    assert_eq!(bits(&loaded.network), bits(&model.network));
    assert_eq!(loaded.network.parameters().specs(), model.network.parameters().specs());
    assert_eq!(loaded.network.description(), model.network.description());
    assert_eq!(loaded.class_names, model.class_names);
    assert_eq!(
        serde_json::to_value(&loaded.preprocessing).unwrap(),
        serde_json::to_value(&model.preprocessing).unwrap()
    );
    assert_eq!(loaded.training, model.training);
    assert_eq!(loaded.metrics, model.metrics);
    assert_eq!(loaded.test_vectors, model.test_vectors);
    assert_eq!(weights_sha256(loaded.network.parameters()), weights_sha256(model.network.parameters()));
    assert_eq!(loaded.to_bytes().unwrap(), std::fs::read(&path).unwrap());
    assert_eq!(loaded.verify().unwrap().vectors, 0);
}

#[test]
fn a_temperature_is_kept_and_files_without_one_are_read() {
    // BYTES are those of a file from before there was such a field.
    assert_eq!(ModelFile::from_bytes(&BYTES, "old").unwrap().temperature, None);
    let mut model = model();
    model.temperature = Some(Temperature { value: 1.0 / 3.0, data: "<val>".into(), images: 7 });
    let loaded = ModelFile::from_bytes(&model.to_bytes().unwrap(), "new").unwrap();
    assert_eq!(loaded.temperature, model.temperature);
    assert!(loaded.verify().unwrap().is_passed());
    for value in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-60, 1e60] {
        model.temperature = Some(Temperature { value, data: String::new(), images: 1 });
        let message = model.to_bytes().unwrap_err().to_string();
        assert!(message.contains("striate.temperature"), "{message}");
    }
    model.temperature = Some(Temperature { value: 1e-30, data: String::new(), images: 1 });
    assert_eq!(model.probabilities(&ndarray::array![[1e30f32, -1e30, 0.0]]), ndarray::array![[1.0, 0.0, 0.0]]);
}

#[test]
fn the_test_vectors_pass_and_a_changed_weight_does_not() {
    let mut loaded = ModelFile::from_bytes(&BYTES, "the model").unwrap();
    let verification = loaded.verify().unwrap();
    assert_eq!((verification.vectors, verification.passed, &verification.first_difference), (19, 19, &None));
    assert!(verification.is_passed());

    // One noted logit, in the second batch.
    let was = loaded.test_vectors.logits[[17, 2]];
    loaded.test_vectors.logits[[17, 2]] = was + 0.01;
    let verification = loaded.verify().unwrap();
    let difference = verification.first_difference.unwrap();
    assert_eq!((verification.passed, difference.vector, difference.index), (18, 17, vec![2]));
    assert_eq!(difference.expected, was + 0.01);
    assert!((difference.found - was).abs() < 1e-4);

    // The last layer's first bias moves the first logit of every vector.
    loaded.test_vectors.logits[[17, 2]] = was;
    let name = loaded.network.parameters().specs().last().unwrap().name.clone();
    *loaded.network.parameters_mut().get_mut(&name).unwrap().first_mut().unwrap() += 1.0;
    let verification = loaded.verify().unwrap();
    let difference = verification.first_difference.unwrap();
    assert_eq!((verification.passed, difference.vector, difference.index), (0, 0, vec![0]));
}

/// A model whose test vectors are pictures: two of the network's size and one that is scaled.
fn pictured() -> ModelFile {
    let mut model = model();
    let picture = |height: u32, width: u32| {
        let image = image::GrayImage::from_fn(width, height, |x, y| image::Luma([(13 * x + 29 * y) as u8]));
        let mut file = std::io::Cursor::new(Vec::new());
        image.write_to(&mut file, image::ImageFormat::Png).unwrap();
        file.into_inner()
    };
    let files = vec![picture(12, 12), picture(31, 17), picture(12, 12)];
    model.test_vectors = TestVectors::of_files(&model.preprocessing, files).unwrap().recorded(&model.network).unwrap();
    ModelFile::from_bytes(&model.to_bytes().unwrap(), "pictured").unwrap()
}

#[test]
fn the_first_stage_that_differs_is_named() {
    let whole = pictured();
    let verification = whole.verify().unwrap();
    let stages: Vec<_> = verification.stages.iter().map(|found| (found.stage, found.passed)).collect();
    assert_eq!(stages, [(Stage::Decode, 3), (Stage::Preprocess, 3), (Stage::Logits, 3)]);
    assert!((verification.vectors, verification.passed) == (3, 3) && verification.is_passed());

    // Each change is in one thing that was noted; the stages before and after it still hold.
    let tampered = |change: &dyn Fn(&mut ModelFile)| {
        let mut model = whole.clone();
        change(&mut model);
        let found = ModelFile::from_bytes(&model.to_bytes().unwrap(), "tampered").unwrap().verify().unwrap();
        let passed: Vec<usize> = found.stages.iter().map(|stage| stage.passed).collect();
        (found.first_difference.unwrap(), found.passed, passed)
    };
    // A pixel that no decoder gives any more, and that normalisation then makes another number of.
    let (first, passed, stages) = tampered(&|model| model.test_vectors.pixels[[1, 0, 3, 7]] ^= 128);
    assert_eq!((first.stage, first.vector, first.index), (Stage::Decode, 1, vec![0, 3, 7]));
    assert_eq!((first.found - first.expected).abs(), 128.0);
    assert_eq!((passed, stages), (2, vec![2, 2, 3]));
    // Another picture.
    let (first, ..) = tampered(&|model| model.test_vectors.files[2] = model.test_vectors.files[1].clone());
    assert_eq!((first.stage, first.vector), (Stage::Decode, 2));
    // No picture at all.
    let (first, passed, stages) = tampered(&|model| model.test_vectors.files[0].truncate(40));
    assert_eq!((first.stage, first.vector, passed, stages), (Stage::Decode, 0, 2, vec![2, 3, 3]));
    assert!(first.found.is_nan() && first.problem.is_some_and(|problem| problem.contains("its file")));
    // Another normalisation than the one the network was measured with.
    let (first, passed, stages) = tampered(&|model| model.preprocessing.normalization.deviation = vec![0.31]);
    assert_eq!((first.stage, first.vector, passed, stages), (Stage::Preprocess, 0, 0, vec![3, 0, 3]));
    assert!(first.found != first.expected && first.problem.is_none());
    // An input off by a little, in the middle: its logits hold, or not, but the stage before comes first.
    let (first, ..) = tampered(&|model| model.test_vectors.inputs[[2, 0, 5, 6]] += 0.01);
    assert_eq!((first.stage, first.vector, first.index), (Stage::Preprocess, 2, vec![0, 5, 6]));
    let (first, passed, stages) = tampered(&|model| model.test_vectors.logits[[1, 2]] += 0.01);
    assert_eq!((first.stage, first.vector, first.index), (Stage::Logits, 1, vec![2]));
    assert_eq!((passed, stages), (2, vec![3, 3, 2]));
    let (first, _, stages) = tampered(&|model| model.network.parameters_mut().as_mut_slice()[3] += 1.0);
    assert_eq!((first.stage, stages[..2].to_vec()), (Stage::Logits, vec![3, 3]));
}

#[test]
fn test_vectors_of_a_data_set_are_its_own_pictures() {
    let shape = Shape::new(3, 5, 4);
    let pixels: Vec<u8> = (0..3 * shape.len()).map(|i| (i * 37 % 256) as u8).collect();
    let data = Dataset::new("tiny", shape, Pixels::U8(pixels.clone()), vec![0, 1, 0], one_class_names(2)).unwrap();
    let normalization = Normalization::new(vec![0.5, 0.4, 0.3], vec![0.25], 3).unwrap();
    let preprocessing = Preprocessing::new(shape, Fit::Stretch, normalization.clone()).unwrap();
    let vectors = TestVectors::of_data(&data, 2, &preprocessing);
    assert_eq!((vectors.files.len(), vectors.len()), (2, 2));
    assert!(vectors.pixels.iter().eq(&pixels[..2 * shape.len()]));
    assert_eq!(vectors.inputs, data.batch(0..2, &normalization));
    // Black on white, a digit is turned when it is read from a file; what the network was measured on is not.
    let white = Dataset::new("white", INPUT, Pixels::U8(vec![250; 144]), vec![0], one_class_names(1)).unwrap();
    let digits = Preprocessing::new(INPUT, Fit::Digit, Normalization::identity()).unwrap();
    let vectors = TestVectors::of_data(&white, 5, &digits);
    assert_eq!((vectors.files.len(), vectors.len(), vectors.pixels[[0, 0, 6, 6]]), (0, 1, 250));
    // Numbers that are no bytes.
    let numbers = Dataset::from_arrays(inputs(3), vec![0, 0, 0], one_class_names(1)).unwrap();
    let vectors = TestVectors::of_data(&numbers, 2, &digits);
    assert!(vectors.files.is_empty() && vectors.pixels.is_empty() && vectors.inputs == inputs(2));
}

#[test]
fn pixels_and_files_that_do_not_fit_are_refused() {
    let bytes = pictured().to_bytes().unwrap();
    let container = Container::from_bytes(&bytes, "pictured").unwrap();
    let mut values: Vec<(String, Vec<f32>)> = Vec::new();
    for name in container.names().filter(|name| container.shape(name).is_ok()) {
        let mut numbers = vec![0.0; container.shape(name).unwrap().iter().product()];
        container.read(name, &mut numbers).unwrap();
        values.push((name.into(), numbers));
    }
    let (shape, pixels) = container.bytes("striate.test.pixels").unwrap();
    let with = |files: &[&str], pixel_shape: &[usize], pixels: &[u8]| {
        let mut writer = ContainerWriter::new();
        for key in FIELDS {
            writer.field(key, container.field(key).unwrap()).unwrap();
        }
        for (name, numbers) in &values {
            writer.tensor(name, container.shape(name).unwrap(), numbers).unwrap();
        }
        if !pixels.is_empty() {
            writer.bytes("striate.test.pixels", pixel_shape, pixels).unwrap();
        }
        for file in files {
            writer.bytes(format!("striate.test.file.{file}"), &[1], b"x").unwrap();
        }
        ModelFile::from_bytes(&writer.to_bytes().unwrap(), "odd").map_err(|error| error.to_string())
    };
    assert!(with(&["0", "1", "2"], shape, pixels).is_ok());
    assert!(with(&[], shape, pixels).is_ok());
    assert!(with(&[], &[], &[]).is_ok());
    let refused = |found: Result<ModelFile, String>, part: &str| {
        let message = found.expect_err("it was loaded");
        assert!(message.starts_with("odd") && message.contains(part), "{message}");
    };
    refused(with(&["0", "1"], shape, pixels), "the number of test files");
    refused(with(&["0", "1", "5"], shape, pixels), "striate.test.file.2");
    refused(with(&["0", "1", "2"], &[], &[]), "the shape of the test pixels");
    refused(with(&[], &[3, 1, 144, 1], pixels), "the shape of the test pixels");
    refused(with(&[], &[pixels.len()], pixels), "four axes");
    refused(with(&["x"], shape, pixels), "striate.test.file.x");
    refused(with(&["99999"], shape, pixels), "striate.test.file.99999");
}

#[test]
fn transposed_test_inputs_are_saved_in_order() {
    let mut model = model();
    let turned = inputs(4).permuted_axes([0, 1, 3, 2]);
    model.test_vectors = TestVectors::record(&model.network, turned.clone()).unwrap();
    let loaded = ModelFile::from_bytes(&model.to_bytes().unwrap(), "turned").unwrap();
    assert_eq!(loaded.test_vectors.inputs, turned);
    assert!(loaded.verify().unwrap().is_passed());
}

#[test]
fn damage_anywhere_is_found() {
    // Every bit of the start and of the end, and some between; the container's own tests take every bit of a small file.
    let bytes = &*BYTES;
    let middle = (2048..bytes.len() - 64).step_by(bytes.len() / 61);
    for at in (0..256).chain(middle).chain(bytes.len() - 64..bytes.len()) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        let error = ModelFile::from_bytes(&damaged, "the file").expect_err("damage was not found");
        assert!(error.to_string().starts_with("the file "), "{error}");
        assert!(!matches!(error, FormatError::Foreign { .. } | FormatError::NewerVersion { .. }), "{error}");
    }
    for length in (0..bytes.len()).step_by(bytes.len() / 97) {
        assert!(ModelFile::from_bytes(&bytes[..length], "cut").is_err(), "{length}");
    }
}

#[test]
fn a_failed_save_leaves_the_old_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.safetensors");
    let mut model = model();
    model.save(&path).unwrap();
    let name = model.network.parameters().specs()[0].name.clone();
    model.network.parameters_mut().as_mut_slice()[6] = f32::NAN;
    let message = model.save(&path).unwrap_err().to_string();
    assert!(message.contains(&format!("{name:?} holds NaN at index")), "{message}");
    assert_eq!(std::fs::read(&path).unwrap(), *BYTES);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn parts_that_do_not_fit_are_not_saved() {
    let mut short = model();
    short.class_names.pop();
    let message = short.to_bytes().unwrap_err().to_string();
    assert_eq!(message, "the model: the number of class names: found 2, expected 3");

    let mut other = model();
    other.preprocessing.shape = Shape::new(3, 12, 12);
    assert!(matches!(other.to_bytes(), Err(FormatError::Inconsistent { .. })));

    let mut fewer = model();
    fewer.test_vectors.logits = fewer.test_vectors.logits.slice(s![..5, ..]).to_owned();
    assert!(matches!(fewer.to_bytes(), Err(FormatError::Inconsistent { .. })));
    assert!(matches!(fewer.verify(), Err(FormatError::Inconsistent { .. })));

    let mut deep = model();
    deep.training = (0..200).fold(json!(1), |inner, _| json!([inner]));
    assert!(matches!(deep.to_bytes(), Err(FormatError::Unwritable { .. })));

    let mut unclear = model();
    unclear.preprocessing.normalization.mean = vec![f32::NAN];
    assert!(unclear.to_bytes().is_err());
}

#[test]
fn forged_fields_are_refused_by_name() {
    forged(&[], |_| {}).unwrap();
    for key in FIELDS {
        let message = refusal(&[(key, None)], |_| {});
        assert!(message.contains(key) && message.contains("missing"), "{message}");
        for value in ["", "{", "[[", "\u{0}", "18446744073709551616"] {
            // Any JSON will do for these two.
            if !matches!(key, "striate.training" | "striate.metrics") || serde_json::from_str::<f64>(value).is_err() {
                let message = refusal(&[(key, Some(value))], |_| {});
                assert!(message.contains(key), "{message}");
            }
        }
    }
    assert_eq!(
        refusal(&[("striate.version", Some("7"))], |_| {}),
        "forged.safetensors was written by a newer striate, version 7 of the format; this one reads up to 3; \
         update striate"
    );
    assert!(refusal(&[("striate.version", Some("0"))], |_| {}).contains("striate.version"));
    refusal(&[("striate.classes", Some(r#"["a","b"]"#))], |_| {});
    refusal(&[("striate.architecture", Some(r#"{"name":"x","input":[1,12,12],"layers":[]}"#))], |_| {});
}

#[test]
fn fields_that_would_fill_the_memory_are_refused_quickly() {
    for (key, piece) in [
        ("striate.training", r#"{"":0}"#),
        ("striate.metrics", "[0]"),
        ("striate.architecture", "0"),
        ("striate.classes", r#""""#),
        ("striate.parameters", r#""""#),
        ("striate.preprocessing", "[]"),
    ] {
        for bytes in [3 << 20, 5 << 20] {
            let value = format!("[{piece}{}]", format!(",{piece}").repeat(bytes / (piece.len() + 1)));
            let start = std::time::Instant::now();
            let message = refusal(&[(key, Some(&value))], |_| {});
            assert!(message.len() < 600 && start.elapsed().as_secs() < 2, "{:?}: {message}", start.elapsed());
        }
    }
    let mut model = model();
    model.training = json!("x".repeat(1 << 20));
    assert!(matches!(model.to_bytes(), Err(FormatError::Unwritable { .. })));
}

#[test]
fn forged_tensors_are_refused_by_name() {
    let first = model().network.parameters().specs()[0].name.clone();
    let has = |message: String, part: &str| assert!(message.contains(part), "{message}");
    has(refusal(&[], |t| t.retain(|(name, ..)| *name != first)), &first);
    has(refusal(&[], |t| t.push(("Wx".into(), vec![1], vec![0.0]))), "Wx");
    has(refusal(&[], |t| t.push(("striate.other".into(), vec![1], vec![0.0]))), "striate.other");
    let turned = refusal(&[], |t| t.iter_mut().find(|(name, ..)| *name == first).unwrap().1.reverse());
    has(turned, &first);
    let poisoned = refusal(&[], |t| t.iter_mut().find(|(name, ..)| *name == first).unwrap().2[3] = f32::INFINITY);
    has(poisoned, "inf");
    has(refusal(&[], |t| t.retain(|(name, ..)| name != "striate.test.logits")), "striate.test.logits");
    has(refusal(&[], |t| t.retain(|(name, ..)| name != "striate.test.inputs")), "striate.test.inputs");
    let flat = refusal(&[], |t| {
        let (_, shape, values) = t.iter_mut().find(|(name, ..)| name == "striate.test.inputs").unwrap();
        *shape = vec![values.len()];
    });
    has(flat, "four axes");
    let none = forged(&[], |t| t.retain(|(name, ..)| !name.starts_with("striate."))).unwrap();
    assert!(none.test_vectors.is_empty());
}

#[test]
fn paths_are_named() {
    let message = ModelFile::load(Path::new("no/such/model.safetensors")).unwrap_err().to_string();
    assert!(message.contains("no/such/model.safetensors"), "{message}");
    let directory = tempfile::tempdir().unwrap();
    let message = ModelFile::load(directory.path()).unwrap_err().to_string();
    assert!(message.contains("is a directory"), "{message}");
    let message = model().save(&directory.path().join("none/model.safetensors")).unwrap_err().to_string();
    assert!(message.contains("the directory does not exist"), "{message}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_finite_weights_come_back_bit_for_bit(
        words in prop::collection::vec(any::<u32>(), 64),
        at in any::<prop::sample::Index>(),
    ) {
        let mut model = model();
        let values = model.network.parameters_mut().as_mut_slice();
        let at = at.index(values.len() - words.len());
        for (value, word) in values[at..].iter_mut().zip(&words) {
            let drawn = f32::from_bits(*word);
            *value = if drawn.is_finite() { drawn } else { -0.0 };
        }
        let loaded = ModelFile::from_bytes(&model.to_bytes().unwrap(), "any").unwrap();
        prop_assert_eq!(bits(&loaded.network), bits(&model.network));
    }

    #[test]
    fn any_flipped_bit_is_an_error(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut bytes = BYTES.clone();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(ModelFile::from_bytes(&bytes, "any").is_err());
    }
}
