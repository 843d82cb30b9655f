//! Small graphs as PyTorch and Keras (by tf2onnx) export them, against what onnxruntime makes of them; `tests/onnx/make.py`
//! writes both.

use ndarray::{Array2, Array4};
use std::path::Path;
use striate::formats::{ImportOptions, ModelFile, NpzContents, load_onnx, read_npz};

#[test]
fn graphs_of_exporters_mean_what_onnxruntime_makes_of_them() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/onnx");
    let mut compared = 0;
    for entry in std::fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "onnx") {
            continue;
        }
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let model = load_onnx(&path, ImportOptions::default()).unwrap_or_else(|error| panic!("{error}"));
        let archive = std::fs::read(path.with_extension("npz")).unwrap();
        let NpzContents::Arrays(arrays) = read_npz(&archive, &name).unwrap() else { panic!("{name}: a model") };
        let array = |wanted: &str| arrays.iter().find(|array| array.name == wanted).unwrap();
        let (input, output) = (array("input"), array("output"));
        let dim: [usize; 4] = input.shape.as_slice().try_into().unwrap();
        let input = Array4::from_shape_vec(dim, input.values.clone()).unwrap();
        let expected = Array2::from_shape_vec((output.shape[0], output.shape[1]), output.values.clone()).unwrap();
        // What was imported and saved is the same network.
        let saved = ModelFile::from_bytes(&model.to_bytes().unwrap(), &name).unwrap();
        for network in [&model.network, &saved.network] {
            let found = network.predict(input.view()).unwrap();
            assert_eq!(found.dim(), expected.dim(), "{name}");
            let most = expected.iter().fold(1.0f32, |most, value| most.max(value.abs()));
            for (a, b) in found.iter().zip(&expected) {
                assert!((a - b).abs() <= 1e-4 * most, "{name}: {found}, expected {expected}");
            }
        }
        compared += 1;
    }
    assert_eq!(compared, 8);
}
