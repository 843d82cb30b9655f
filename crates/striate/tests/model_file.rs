//! Model files of real networks: what is saved is what is loaded, and nothing else is.

use ndarray::{Array4, s};
use proptest::prelude::*;
use serde_json::json;
use std::path::Path;
use std::sync::LazyLock;
use striate::data::preprocessing::{Fit, Normalization, Preprocessing};
use striate::formats::{Container, ContainerWriter, FormatError, ModelFile, Temperature, TestVectors, weights_sha256};
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
    assert_eq!((verification.passed, difference.vector, difference.logit), (18, 17, 2));
    assert_eq!(difference.expected, was + 0.01);
    assert!((difference.found - was).abs() < 1e-4);

    // The last layer's first bias moves the first logit of every vector.
    loaded.test_vectors.logits[[17, 2]] = was;
    let name = loaded.network.parameters().specs().last().unwrap().name.clone();
    *loaded.network.parameters_mut().get_mut(&name).unwrap().first_mut().unwrap() += 1.0;
    let verification = loaded.verify().unwrap();
    let difference = verification.first_difference.unwrap();
    assert_eq!((verification.passed, difference.vector, difference.logit), (0, 0, 0));
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
        "forged.safetensors was written by a newer striate, version 7 of the format; this one reads up to 1; \
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
