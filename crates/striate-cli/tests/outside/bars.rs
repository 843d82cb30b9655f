//! Data for tests of training.

use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// Pixels of a side of every image.
pub(crate) const SIDE: usize = 12;

/// A new directory of IDX files: so many images to train with and 40 to test with, the n-th of class n mod 4.
pub(crate) fn write(directory: &Path, train: u32, image: impl Fn(u32) -> Vec<u8>) {
    fs::create_dir(directory).unwrap();
    for (stem, count) in [("train", train), ("t10k", 40)] {
        let header = |magic: u32, sizes: &[u32]| -> Vec<u8> {
            std::iter::once(magic).chain(sizes.iter().copied()).flat_map(u32::to_be_bytes).collect()
        };
        let mut images = header(0x803, &[count, SIDE as u32, SIDE as u32]);
        images.extend((0..count).flat_map(&image));
        let mut labels = header(0x801, &[count]);
        labels.extend((0..count).map(|n| (n % 4) as u8));
        fs::write(directory.join(format!("{stem}-images-idx3-ubyte")), images).unwrap();
        fs::write(directory.join(format!("{stem}-labels-idx1-ubyte")), labels).unwrap();
    }
}

/// Noise, the same in every run, with a bright row that tells the class.
fn row(n: u32) -> Vec<u8> {
    let bright = |i: usize| i / SIDE == n as usize % 4 * 3;
    (0..SIDE * SIDE).map(|i| ((i * 7 + n as usize * 13) % 23) as u8 + if bright(i) { 200 } else { 0 }).collect()
}

/// A directory that holds 200 images of noise with a bright row, in `bars`.
pub(crate) fn place() -> TempDir {
    let place = tempfile::tempdir().unwrap();
    write(&place.path().join("bars"), 200, row);
    place
}
