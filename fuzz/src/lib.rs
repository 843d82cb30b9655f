//! What the fuzz targets do with their bytes. Every parser must give a value or an error: a panic, a fault of memory, more
//! than 2 GiB or more than ten seconds is a finding.
//!
//! Checksums would keep a fuzzer out, so containers are sealed and archives are packed here, after the bytes were drawn.

mod http;
mod network;

pub use http::http;
pub use network::network;

use ndarray::Array4;
use sha2::{Digest, Sha256};
use std::io::Write;
use std::path::Path;
use striate::data::{Fit, Normalization, Preprocessing, cifar, idx};
use striate::formats::{
    ImportOptions, ModelFile, OnnxImportError, OnnxOptions, from_onnx, from_toml, pytorch, read_npz, read_pickle,
    to_npz, to_onnx, to_toml,
};
use striate::shape::Shape;
use striate::train::Checkpoint;

const CHECKSUM: &[u8] = b"\"striate.checksum\":\"";
const DIGITS: usize = 64;

/// The bytes with the checksum that they ask for, if there is a place for one.
fn sealed(data: &[u8]) -> Vec<u8> {
    let mut bytes = data.to_vec();
    let place = bytes.windows(CHECKSUM.len()).position(|window| window == CHECKSUM).map(|at| at + CHECKSUM.len());
    if let Some(at) = place.filter(|at| at + DIGITS <= bytes.len()) {
        bytes[at..at + DIGITS].fill(b'0');
        let digits: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        bytes[at..at + DIGITS].copy_from_slice(digits.as_bytes());
    }
    bytes
}

/// A network that costs little enough to be run at every trial.
fn is_cheap(model: &ModelFile) -> bool {
    model.network.description().summary(1).is_ok_and(|summary| summary.flops < 100_000_000)
}

/// A model file; what is read can be verified, written, and read again.
pub fn model_file(data: &[u8]) {
    let Ok(model) = ModelFile::from_bytes(&sealed(data), "fuzz") else { return };
    // Networks beyond the fuzzer's patience are read, but not run.
    if is_cheap(&model) && model.test_vectors.len() < 64 {
        let _ = model.verify();
    }
    let bytes = model.to_bytes().expect("what was read can be written");
    let again = ModelFile::from_bytes(&bytes, "again").expect("what was written can be read");
    assert_eq!(again.network.parameters(), model.network.parameters());
    // An archive holds networks in float alone.
    if model.quantized.is_none() {
        let archive = to_npz(&model).expect("what was read can be written as an archive");
        read_npz(&archive, "again").expect("what was written can be read");
    }
}

/// Somebody's ONNX file; what is imported runs, and can be written as a model file and, as far as ONNX can say it, as ONNX.
pub fn onnx(data: &[u8]) {
    let Ok(model) = from_onnx(data.to_vec(), "fuzz", ImportOptions::default()) else { return };
    if is_cheap(&model) {
        let shape = model.network.input();
        let _ = model.network.predict(Array4::zeros((1, shape.channels, shape.height, shape.width)).view());
    }
    // Networks that read no pictures are no model files.
    if let Ok(bytes) = model.to_bytes() {
        ModelFile::from_bytes(&bytes, "again").expect("what was written can be read");
    }
    if let Ok(bytes) = to_onnx(&model, OnnxOptions::default()) {
        // What hands its input on is a network to us, but none to find in a graph.
        let again = from_onnx(bytes, "again", ImportOptions::default());
        assert!(
            matches!(again, Ok(_) | Err(OnnxImportError::Interface { .. })),
            "what was written can be read: {again:?}"
        );
    }
}

/// A checkpoint, and its network.
pub fn checkpoint(data: &[u8]) {
    if let Ok(checkpoint) = Checkpoint::from_bytes(&sealed(data), "fuzz") {
        let _ = checkpoint.network();
    }
}

/// Somebody else's safetensors.
pub fn tensors(data: &[u8]) {
    if let Ok(arrays) = pytorch::read_tensors(data, "fuzz") {
        for array in &arrays {
            assert_eq!(array.values.len(), array.shape.iter().product::<usize>(), "{}", array.name);
        }
    }
}

/// NumPy's archives: the bytes as they are, and as the contents of an archive's arrays.
pub fn npz(data: &[u8]) {
    let _ = read_npz(data, "fuzz");
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (entry, contents) in data.split(|&byte| byte == 0xA7).enumerate().take(8) {
        let method = if entry % 2 == 0 { zip::CompressionMethod::Stored } else { zip::CompressionMethod::Deflated };
        let options = zip::write::SimpleFileOptions::default().compression_method(method);
        let name = if entry == 7 { "striate.metadata.npy".into() } else { format!("W{entry}.npy") };
        if archive.start_file(name, options).is_err() || archive.write_all(contents).is_err() {
            return;
        }
    }
    if let Ok(archive) = archive.finish() {
        let _ = read_npz(&archive.into_inner(), "fuzz");
    }
}

/// A pickle.
pub fn pickle(data: &[u8]) {
    if let Ok(arrays) = read_pickle(data, "fuzz") {
        let numbers: usize = arrays.iter().map(|array| array.values.len()).sum();
        assert!(numbers <= data.len(), "{numbers} numbers out of {} bytes", data.len());
    }
}

/// A network as people write it; what is read can be written and read again.
pub fn model_toml(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(description) = from_toml(text, "fuzz") else { return };
    let _ = description.summary(1);
    if let Ok(text) = to_toml(&description) {
        assert_eq!(from_toml(&text, "again").expect("what was written can be read"), description);
    }
}

/// A picture, decoded as `predict` does; the first byte says how it is to fit.
pub fn image_decode(data: &[u8]) {
    let Some((&how, file)) = data.split_first() else { return };
    let shape = if how & 1 == 0 { Shape::new(1, 28, 28) } else { Shape::new(3, 32, 24) };
    let fit = match how >> 1 & 3 {
        0 => Fit::Digit,
        1 => Fit::Stretch,
        _ => Fit::CenterCrop { resize: 32 + usize::from(how) },
    };
    let Ok(preprocessing) = Preprocessing::new(shape, fit, Normalization::identity()) else { return };
    if let Ok(pixels) = preprocessing.decode(file, "fuzz") {
        assert_eq!(pixels.len(), shape.len());
        assert!(preprocessing.apply(&pixels).iter().all(|value| (0.0..=1.0).contains(value)));
    }
    let _ = preprocessing.decode_whole(file, "fuzz", 64);
}

/// Writes the pieces between bytes 0xA7 into files of these names.
fn files(directory: &Path, names: &[&str], data: &[u8]) {
    for (name, contents) in names.iter().zip(data.split(|&byte| byte == 0xA7)) {
        let _ = std::fs::write(directory.join(name), contents);
    }
}

/// A directory of IDX files.
pub fn idx(data: &[u8]) {
    let Ok(directory) = tempfile::tempdir() else { return };
    let names = [
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
        "classes.txt",
    ];
    files(directory.path(), &names, data);
    if let Ok(splits) = idx::read(directory.path()) {
        assert!(splits.train.len() * splits.train.shape().len() <= data.len() * 2000);
    }
}

/// A directory of CIFAR's files; a first byte of 0 makes all of them as long as they must be (400 MB to read), one from 1 to 8
/// one of them.
pub fn cifar(data: &[u8]) {
    let (Ok(directory), Some((&first, rest))) = (tempfile::tempdir(), data.split_first()) else { return };
    let names = [
        "train.bin",
        "test.bin",
        "data_batch_1.bin",
        "data_batch_2.bin",
        "data_batch_3.bin",
        "data_batch_4.bin",
        "data_batch_5.bin",
        "test_batch.bin",
    ];
    files(directory.path(), &names, rest);
    if first <= 8 {
        let long = if first == 0 { &names[..] } else { &names[usize::from(first) - 1..usize::from(first)] };
        for &name in long {
            let length = match name {
                "train.bin" => 50_000 * 3074,
                "test.bin" => 10_000 * 3074,
                _ => 10_000 * 3073,
            };
            if let Ok(file) = std::fs::OpenOptions::new().write(true).open(directory.path().join(name)) {
                // Zeros that take no room on the disk.
                let _ = file.set_len(length);
            }
        }
    }
    if let Some(kind) = cifar::detect(directory.path()) {
        let _ = cifar::read(directory.path(), kind);
    }
    let _ = cifar::read(directory.path(), cifar::Kind::Cifar100Coarse);
}
