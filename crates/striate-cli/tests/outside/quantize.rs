//! `striate quantize` from outside: accuracy on real digits, the same bits everywhere, and what is refused.

use crate::{command, json, outcome, refused, striate};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// `run`: the SimpleConvNet after an epoch.
fn trained(here: &Path) -> Value {
    json(here, "train --recipe book --data mnist --epochs 1 --out run")
}

/// What evaluation says with this instruction set and so many threads.
fn evaluated(here: &Path, isa: &str, threads: usize) -> Value {
    let threads = threads.to_string();
    let arguments = ["evaluate", "run/model-int8.safetensors", "--json", "-q", "--threads", &threads];
    let (status, stdout, stderr) = outcome(command(here, &arguments).env("STRIATE_ISA", isa).output().unwrap());
    if status != Some(0) {
        assert!(stderr.contains("this machine can't run"), "{stderr}");
        return Value::Null;
    }
    serde_json::from_str(stdout.lines().last().unwrap()).unwrap()
}

#[test]
fn digits_are_told_apart_in_bytes() {
    let place = tempfile::tempdir().unwrap();
    let here = place.path();
    trained(here);
    let found = json(here, "quantize run --seconds 0.05");
    let accuracy = |key: &str| found[key].as_f64().unwrap();
    assert!(accuracy("float_accuracy") > 0.95, "{found}");
    assert!((accuracy("float_accuracy") - accuracy("accuracy")).abs() <= 0.003, "{found}");
    let bytes = |key: &str| found[key].as_u64().unwrap();
    assert!(bytes("bytes") * 3 < bytes("float_bytes"), "{found}");
    assert_eq!(found["bytes"], fs::metadata(here.join("run/model-int8.safetensors")).unwrap().len());
    assert!(found["latency_ms"].as_f64().unwrap() > 0.0 && found["images_per_second"].as_f64().unwrap() > 0.0);
    assert_eq!((found["float_layers"].as_array().unwrap().len(), &found["calibration_images"]), (0, &512.into()));

    // Again, to the byte.
    json(here, "quantize run --seconds 0 --out again.safetensors --threads 1");
    assert_eq!(
        fs::read(here.join("again.safetensors")).unwrap(),
        fs::read(here.join("run/model-int8.safetensors")).unwrap()
    );

    // The loss of 10,000 images shows any bit that differs.
    let here_and_now = evaluated(here, "portable", 1);
    assert_eq!(here_and_now["accuracy"], found["accuracy"]);
    for (isa, threads) in [("avx2", 3), ("avx512", 1), ("neon", 2)] {
        let other = evaluated(here, isa, threads);
        assert!(other.is_null() || other == here_and_now, "{isa}");
    }

    let verified = json(here, "verify run/model-int8.safetensors");
    assert!(verified["passed"] == true && verified["vectors"].as_u64().unwrap() > 0, "{verified}");
    let predicted = json(here, "predict run/model-int8.safetensors mnist:test:0");
    assert_eq!((&predicted[0]["class"], &predicted[0]["label"]), (&"7".into(), &"7".into()));
    let cut = json(here, "quantize run --seconds 0 --percentile 99.9 --calibration-images 100 --out cut.safetensors");
    assert!((cut["accuracy"].as_f64().unwrap() - accuracy("float_accuracy")).abs() <= 0.005, "{cut}");
    let onnx = json(here, "convert run/model-int8.safetensors digits.onnx");
    // The weights are in it as bytes: 432,000 of them, rather than four times as much.
    assert!((430_000..600_000).contains(&onnx["bytes"].as_u64().unwrap()), "{onnx}");

    // What can't be.
    let quantized = "run/model-int8.safetensors";
    refused(here, &format!("quantize {quantized}"), 2, &["in bytes (int8)", "quantized again", "the float model"]);
    refused(here, &format!("train --model {quantized} --out no"), 2, &["in bytes (int8)", "be trained"]);
    refused(here, &format!("evaluate {quantized} --calibrate"), 2, &["in bytes (int8)", "be calibrated"]);
    refused(here, &format!("evaluate {quantized} --weights bf16"), 2, &["in bytes (int8)"]);
    refused(here, &format!("bench --model {quantized}"), 2, &["in bytes (int8)"]);
    refused(here, &format!("convert {quantized} weights.npz"), 1, &["int8", "float model"]);
    refused(here, "quantize run --calibration-images 0", 2, &["calibration images is 0", "at least 1"]);
    refused(here, "quantize run --percentile 20", 2, &["percentile is 20", "90 to 100"]);
    refused(here, "quantize run --data nowhere", 2, &["nowhere"]);
    refused(here, "quantize run --out run/model.safetensors", 2, &["the model itself"]);
    refused(here, "quantize missing", 2, &["no such file"]);
    fs::create_dir_all(here.join("photos/a")).unwrap();
    refused(here, "quantize run --data photos", 1, &["photos"]);
    striate(here, "quantize --help", 0);
}
