//! Data for tests of training.

use std::fs;
use tempfile::TempDir;

const SIDE: u32 = 12;

/// A directory that holds IDX files of noise with a bright row, in `bars`.
pub(crate) fn place() -> TempDir {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("bars");
    fs::create_dir(&directory).unwrap();
    for (stem, count) in [("train", 200u32), ("t10k", 40)] {
        let header = |magic: u32, sizes: &[u32]| -> Vec<u8> {
            std::iter::once(magic).chain(sizes.iter().copied()).flat_map(u32::to_be_bytes).collect()
        };
        let mut images = header(0x803, &[count, SIDE, SIDE]);
        for n in 0..count {
            let pixel = |i: u32| ((i * 7 + n * 13) % 23) as u8 + if i / SIDE == n % 4 * 3 { 200 } else { 0 };
            images.extend((0..SIDE * SIDE).map(pixel));
        }
        let mut labels = header(0x801, &[count]);
        labels.extend((0..count).map(|n| (n % 4) as u8));
        fs::write(directory.join(format!("{stem}-images-idx3-ubyte")), images).unwrap();
        fs::write(directory.join(format!("{stem}-labels-idx1-ubyte")), labels).unwrap();
    }
    place
}
