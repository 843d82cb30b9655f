//! Inputs that once were findings, and seeds of every kind: `cargo test` (stable, without a sanitizer) runs each again.

use std::path::Path;

#[test]
fn every_regression_is_an_error_or_a_value() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut read = 0;
    let targets: [(&str, fn(&[u8])); 12] = [
        ("idx", striate_fuzz::idx),
        ("cifar", striate_fuzz::cifar),
        ("image_decode", striate_fuzz::image_decode),
        ("model_file", striate_fuzz::model_file),
        ("checkpoint", striate_fuzz::checkpoint),
        ("tensors", striate_fuzz::tensors),
        ("npz", striate_fuzz::npz),
        ("pickle", striate_fuzz::pickle),
        ("model_toml", striate_fuzz::model_toml),
        ("onnx", striate_fuzz::onnx),
        ("network", striate_fuzz::network),
        ("http", striate_fuzz::http),
    ];
    for (target, run) in targets {
        for seeds in ["regressions", "pickles", "golden", "onnx"] {
            // The library's own files are tried on every parser.
            let tests = root.join("../crates/striate/tests");
            let own = if seeds == "regressions" { root.join(seeds).join(target) } else { tests.join(seeds) };
            for entry in std::fs::read_dir(own).into_iter().flatten() {
                let path = entry.unwrap().path();
                println!("{target}: {}", path.display());
                run(&std::fs::read(path).unwrap());
                read += 1;
            }
        }
    }
    assert!(read > 100, "{read}");
}
