//! Compares imported ONNX files with what another runtime computed: `cargo run --release --example compare_onnx -- DIR`.
//!
//! Every `NAME.onnx` in DIR with a `NAME.npz` beside it (as `scripts/torchvision_onnx.py` writes them) is imported and run;
//! the largest difference, relative to the largest number of the expected output, must not be above 1e-3.

use ndarray::{Array2, Array4};
use std::path::Path;
use std::process::ExitCode;
use striate::formats::{ImportOptions, NpzContents, load_onnx, read_npz};

const TOLERANCE: f32 = 1e-3;

fn compare(path: &Path) -> Result<f32, Box<dyn std::error::Error>> {
    let model = load_onnx(path, ImportOptions::default())?;
    let archive = path.with_extension("npz");
    let NpzContents::Arrays(arrays) = read_npz(&std::fs::read(&archive)?, &archive.display().to_string())? else {
        return Err(format!("{}: a model, not an input and an output", archive.display()).into());
    };
    let array = |name: &str| arrays.iter().find(|array| array.name == name).ok_or(format!("no array {name:?}"));
    let (input, expected) = (array("input")?, array("output")?);
    let batch = input.shape.first().copied().unwrap_or(0);
    let shape = model.network.input();
    let dim = (batch, shape.channels, shape.height, shape.width);
    let input = Array4::from_shape_vec(dim, input.values.clone())?;
    let expected = Array2::from_shape_vec((batch, expected.values.len() / batch.max(1)), expected.values.clone())?;
    let found = model.network.predict(input.view())?;
    if found.dim() != expected.dim() {
        return Err(format!("output {:?}, expected {:?}", found.dim(), expected.dim()).into());
    }
    let largest = expected.iter().fold(f32::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
    // NaN is the largest difference of all.
    let difference = |(a, b): (&f32, &f32)| if (a - b).is_nan() { f32::INFINITY } else { (a - b).abs() };
    Ok(found.iter().zip(&expected).map(difference).fold(0.0, f32::max) / largest)
}

fn main() -> ExitCode {
    let Some(directory) = std::env::args().nth(1) else {
        eprintln!("usage: compare_onnx DIR");
        return ExitCode::from(2);
    };
    let mut paths: Vec<_> = match std::fs::read_dir(&directory) {
        Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).collect(),
        Err(error) => {
            eprintln!("{directory}: {error}");
            return ExitCode::FAILURE;
        }
    };
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "onnx"));
    paths.sort();
    let mut failed = 0;
    for path in &paths {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        match compare(path) {
            Ok(difference) if difference <= TOLERANCE => {
                println!("{name}: agrees, largest relative difference {difference:.1e}")
            }
            Ok(difference) => {
                failed += 1;
                println!("{name}: DIFFERS, largest relative difference {difference:.1e}");
            }
            Err(error) => {
                failed += 1;
                println!("{name}: FAILED: {error}");
            }
        }
    }
    println!("{} of {} files agree", paths.len() - failed, paths.len());
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
