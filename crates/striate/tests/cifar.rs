//! Reading CIFAR's binary files: every record lands where it belongs, and every fault names its file.

use std::{
    fs::{self, File},
    io::{Seek, SeekFrom, Write},
    path::Path,
};
use striate::data::{
    DataError, Pixels,
    cifar::{self, Kind},
};
use tempfile::TempDir;

const CIFAR10: [&str; 6] = [
    "data_batch_1.bin",
    "data_batch_2.bin",
    "data_batch_3.bin",
    "data_batch_4.bin",
    "data_batch_5.bin",
    "test_batch.bin",
];

/// A file of zeros (which takes no room on most disks) with `bytes` at `at`.
fn put(path: &Path, length: u64, at: u64, bytes: &[u8]) {
    let mut file = File::create(path).unwrap();
    file.set_len(length).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(bytes).unwrap();
}

/// All files of CIFAR-10; record 9,999 of the n-th has label n and begins with the pixels n and 100.
fn cifar10() -> TempDir {
    let directory = TempDir::new().unwrap();
    for (n, name) in (0..).zip(CIFAR10) {
        put(&directory.path().join(name), 30_730_000, 9999 * 3073, &[n, n, 100]);
    }
    directory
}

#[test]
fn cifar10_is_read() {
    let directory = cifar10();
    assert_eq!(cifar::detect(directory.path()), Some(Kind::Cifar10));
    let splits = cifar::read(directory.path(), Kind::Cifar10).unwrap();
    assert_eq!((splits.train.len(), splits.test.len()), (50_000, 10_000));
    assert_eq!(splits.train.shape(), cifar::SHAPE);
    assert_eq!(splits.train.class_names()[9], "truck");
    let Pixels::U8(pixels) = splits.train.pixels() else { panic!("bytes are expected") };
    for n in 0..5 {
        let at = 10_000 * n + 9999;
        assert_eq!(splits.train.labels()[at], n);
        assert_eq!(pixels[at * 3072..][..3], [n as u8, 100, 0]);
    }
    assert_eq!(splits.test.labels()[9999], 5);
    // The folder that the archive unpacks to.
    let above = TempDir::new().unwrap();
    fs::rename(directory.path(), above.path().join("cifar-10-batches-bin")).unwrap();
    assert_eq!(cifar::detect(above.path()), Some(Kind::Cifar10));
    assert_eq!(cifar::read(above.path(), Kind::Cifar10).unwrap(), splits);
}

#[test]
fn cifar100_has_two_labels() {
    let directory = TempDir::new().unwrap();
    put(&directory.path().join("train.bin"), 153_700_000, 49_999 * 3074, &[19, 99, 7]);
    put(&directory.path().join("test.bin"), 30_740_000, 0, &[4, 57, 8]);
    assert_eq!(cifar::detect(directory.path()), Some(Kind::Cifar100));
    let fine = cifar::read(directory.path(), Kind::Cifar100).unwrap();
    assert_eq!(fine.train.class_names()[fine.train.labels()[49_999]], "worm");
    assert_eq!(fine.test.class_names()[fine.test.labels()[0]], "pear");
    let Pixels::U8(pixels) = fine.test.pixels() else { panic!("bytes are expected") };
    assert_eq!(pixels[..2], [8, 0]);
    let coarse = cifar::read(directory.path(), Kind::Cifar100Coarse).unwrap();
    assert_eq!(coarse.train.class_names()[coarse.train.labels()[49_999]], "vehicles_2");
    assert_eq!(coarse.test.class_names()[coarse.test.labels()[0]], "fruit_and_vegetables");
    assert_eq!(coarse.test.pixels(), fine.test.pixels());
}

#[test]
fn the_names_are_in_the_makers_order() {
    assert!(cifar::CIFAR10_CLASSES.is_sorted());
    assert!(cifar::CIFAR100_CLASSES.is_sorted());
    assert!(cifar::CIFAR100_COARSE_CLASSES.is_sorted());
}

#[test]
fn faults_name_the_file() {
    let directory = cifar10();
    let path = |name: &str| directory.path().join(name);
    let refusal = |name: &str| {
        let error = cifar::read(directory.path(), Kind::Cifar10).unwrap_err();
        assert!(error.to_string().contains(name), "{error} does not name {name}");
        error
    };
    put(&path("test_batch.bin"), 30_730_000, 5 * 3073, &[10]);
    let error = refusal("test_batch.bin");
    assert!(matches!(error, DataError::Label { sample: 5, label: 10, classes: 10, .. }), "{error}");
    put(&path("test_batch.bin"), 30_730_000 - 3073, 0, &[]);
    assert!(matches!(refusal("test_batch.bin"), DataError::Short { .. }), "a file cut between records is cut, too");
    put(&path("test_batch.bin"), 30_730_001, 0, &[]);
    assert!(matches!(refusal("test_batch.bin"), DataError::FileTooLarge { .. }));
    put(&path("test_batch.bin"), 30_730_000, 0, &[]);
    fs::remove_file(path("data_batch_3.bin")).unwrap();
    assert!(matches!(refusal("data_batch_3.bin"), DataError::NotFound { .. }));
    fs::create_dir(path("data_batch_3.bin")).unwrap();
    assert!(matches!(refusal("data_batch_3.bin"), DataError::NotAFile { .. }));
    assert_eq!(cifar::detect(TempDir::new().unwrap().path()), None);
}
