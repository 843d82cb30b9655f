//! Reading IDX directories: what is written is read back, and every fault is an error that names the file.

use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;
use std::{
    fs,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};
use striate::{
    data::{DataError, Normalization, Pixels, idx},
    shape::Shape,
};
use tempfile::TempDir;

const TRAIN_IMAGES: &str = "train-images-idx3-ubyte";
const TRAIN_LABELS: &str = "train-labels-idx1-ubyte";
const TEST_IMAGES: &str = "t10k-images-idx3-ubyte";
const TEST_LABELS: &str = "t10k-labels-idx1-ubyte";

/// An IDX file.
fn file(code: u8, sizes: &[u32], elements: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, code, sizes.len() as u8];
    sizes.iter().for_each(|size| bytes.extend(size.to_be_bytes()));
    bytes.extend(elements);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A directory of three training images and two test images of 2 x 3.
fn directory() -> TempDir {
    let directory = TempDir::new().unwrap();
    let put = |name: &str, bytes: Vec<u8>| fs::write(directory.path().join(name), bytes).unwrap();
    put(TRAIN_IMAGES, file(8, &[3, 2, 3], &(0..18).collect::<Vec<u8>>()));
    put(TRAIN_LABELS, file(8, &[3], &[9, 0, 5]));
    put(TEST_IMAGES, file(8, &[2, 2, 3], &(100..112).collect::<Vec<u8>>()));
    put(TEST_LABELS, file(8, &[2], &[1, 2]));
    directory
}

/// The error after `name` was replaced by `bytes`; it must come fast and name the file.
fn fault(name: &str, bytes: &[u8]) -> DataError {
    let directory = directory();
    fs::write(directory.path().join(name), bytes).unwrap();
    refusal(directory.path(), name)
}

fn refusal(directory: &Path, name: &str) -> DataError {
    let start = Instant::now();
    let error = idx::read(directory).unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(2), "{error} after {:?}", start.elapsed());
    assert!(error.to_string().contains(name), "{error} does not name {name}");
    error
}

#[test]
fn a_directory_is_read() {
    let splits = idx::read(directory().path()).unwrap();
    assert_eq!(splits.train.shape(), Shape::new(1, 2, 3));
    assert_eq!(splits.train.labels(), [9, 0, 5]);
    assert_eq!(splits.train.pixels(), &Pixels::U8((0..18).collect()));
    assert_eq!(splits.test.pixels(), &Pixels::U8((100..112).collect()));
    assert_eq!(splits.test.class_names().len(), 10);
    assert!(splits.train.name().ends_with(" train"), "{}", splits.train.name());
}

#[test]
fn all_names_and_both_kinds_of_storage() {
    let directory = directory();
    let original = idx::read(directory.path()).unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::rename(path(TRAIN_IMAGES), path("train-images.idx3-ubyte")).unwrap();
    fs::write(path("train-labels-idx1-ubyte.gz"), gzip(&fs::read(path(TRAIN_LABELS)).unwrap())).unwrap();
    fs::remove_file(path(TRAIN_LABELS)).unwrap();
    fs::write(path("t10k-images.idx3-ubyte.gz"), gzip(&fs::read(path(TEST_IMAGES)).unwrap())).unwrap();
    fs::remove_file(path(TEST_IMAGES)).unwrap();
    // Browsers like to unpack a file and keep its name.
    fs::rename(path(TEST_LABELS), path("t10k-labels-idx1-ubyte.gz")).unwrap();
    assert_eq!(idx::read(directory.path()).unwrap(), original);
}

#[test]
fn colour_images_have_four_sizes() {
    let directory = directory();
    fs::write(directory.path().join(TRAIN_IMAGES), file(8, &[3, 3, 1, 2], &[7; 18])).unwrap();
    fs::write(directory.path().join(TEST_IMAGES), file(8, &[2, 3, 1, 2], &[7; 12])).unwrap();
    assert_eq!(idx::read(directory.path()).unwrap().train.shape(), Shape::new(3, 1, 2));
}

#[test]
fn class_names() {
    let directory = directory();
    let classes = directory.path().join("classes.txt");
    let names: Vec<String> = (b'a'..=b'k').map(|letter| char::from(letter).to_string()).collect();
    fs::write(&classes, names.join("\r\n")).unwrap();
    assert_eq!(idx::read(directory.path()).unwrap().train.class_names(), names);
    for bad in ["", "a\n\nb", "a\nb\na", &"a".repeat(300), &"a\n".repeat(100_000)] {
        fs::write(&classes, bad).unwrap();
        assert!(matches!(refusal(directory.path(), "classes.txt"), DataError::ClassNames { .. }));
    }
    fs::write(&classes, [0xFF, 0xFE]).unwrap();
    assert!(matches!(refusal(directory.path(), "classes.txt"), DataError::ClassNames { .. }));
    let splits = idx::read_with_classes(directory.path(), names.clone()).unwrap();
    assert_eq!(splits.test.class_names(), names);
}

#[test]
fn a_wrong_start() {
    let error = fault(TRAIN_IMAGES, b"\x89PNG\r\n\x1a\n and so on");
    assert!(matches!(error, DataError::Magic { found: [0x89, b'P', b'N', b'G'], .. }), "{error}");
    let error = fault(TEST_LABELS, &file(0x0C, &[2], &[0; 8]));
    assert!(matches!(error, DataError::ElementType { found: 0x0C, .. }), "{error}");
    assert!(error.to_string().contains("32-bit integers"), "{error}");
    let error = fault(TEST_LABELS, &file(0x0D, &[2], &[0; 8]));
    assert!(matches!(error, DataError::ElementType { found: 0x0D, .. }), "{error}");
    let error = fault(TRAIN_IMAGES, &file(8, &[3, 6], &[0; 18]));
    assert!(matches!(error, DataError::Dimensions { found: 2, .. }), "{error}");
    let error = fault(TRAIN_LABELS, &file(8, &[3, 1, 1], &[0; 3]));
    assert!(matches!(error, DataError::Dimensions { found: 3, .. }), "{error}");
    // Labels in place of images, a common slip.
    let error = fault(TRAIN_IMAGES, &file(8, &[3], &[0; 3]));
    assert!(matches!(error, DataError::Dimensions { found: 1, .. }), "{error}");
}

#[test]
fn a_wrong_length() {
    let whole = file(8, &[3, 2, 3], &[1; 18]);
    for length in 0..whole.len() {
        let error = fault(TRAIN_IMAGES, &whole[..length]);
        assert!(matches!(error, DataError::Short { found, .. } if found == length as u64), "{length}: {error}");
    }
    let error = fault(TRAIN_IMAGES, &[whole, vec![0]].concat());
    assert!(matches!(error, DataError::Trailing { expected: 34, .. }), "{error}");
}

#[test]
fn absurd_sizes_are_refused_at_once() {
    let most = u32::MAX;
    for sizes in [[most, most, most], [most, 1 << 10, 1], [1 << 31, 1 << 31, 2]] {
        let error = fault(TRAIN_IMAGES, &file(8, &sizes, &[0; 100]));
        assert!(matches!(error, DataError::TooLarge { .. }), "{error}");
        let error = fault(TRAIN_IMAGES, &gzip(&file(8, &sizes, &[0; 100])));
        assert!(matches!(error, DataError::TooLarge { .. }), "{error}");
    }
    let error = fault(TRAIN_IMAGES, &file(8, &[most, most, most, most], &[0; 100]));
    assert!(matches!(error, DataError::TooLarge { .. }), "{error}");
    let error = fault(TRAIN_IMAGES, &file(0x0D, &[1 << 28, 2, 2], &[0; 100]));
    assert!(matches!(error, DataError::Short { .. }), "{error}");
    for sizes in [[0, 2, 3], [3, 0, 3], [3, 2, 0]] {
        let error = fault(TRAIN_IMAGES, &file(8, &sizes, &[]));
        assert!(matches!(error, DataError::ZeroSize { .. }), "{error}");
    }
    let error = fault(TEST_LABELS, &file(8, &[0], &[]));
    assert!(matches!(error, DataError::ZeroSize { .. }), "{error}");
}

#[test]
fn a_gzip_bomb_stays_packed() {
    // 300 MB of zeros, and a header that promises as much as gzip could pack into this.
    let zeros = vec![0; 300 << 20];
    let bomb = gzip(&file(8, &[300, 1 << 10, 1 << 10], &zeros));
    let error = fault(TRAIN_IMAGES, &bomb);
    assert!(matches!(error, DataError::TooLarge { .. }), "{error}");
    assert!(error.to_string().contains("gunzip"), "{error}");
    // A small header before a large stream.
    let error = fault(TRAIN_IMAGES, &gzip(&file(8, &[3, 2, 3], &zeros)));
    assert!(matches!(error, DataError::Gzip { .. }), "{error}");
    // The same with a lie at the end: what is promised is read, and no more.
    let mut liar = gzip(&file(8, &[3, 2, 3], &zeros));
    let end = liar.len() - 4;
    liar[end..].copy_from_slice(&34u32.to_le_bytes());
    let error = fault(TRAIN_IMAGES, &liar);
    assert!(matches!(error, DataError::Trailing { .. }), "{error}");
}

#[test]
fn damaged_gzip() {
    let whole = gzip(&file(8, &[3, 2, 3], &(0..18).collect::<Vec<u8>>()));
    for length in 20..whole.len() {
        assert!(matches!(fault(TRAIN_IMAGES, &whole[..length]), DataError::Gzip { .. }), "{length}");
    }
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x04;
        let directory = directory();
        fs::write(directory.path().join(TRAIN_IMAGES), damaged).unwrap();
        // Time stamp and the like may change without harm; the numbers never do.
        match idx::read(directory.path()) {
            Ok(splits) => assert_eq!(splits.train.pixels(), &Pixels::U8((0..18).collect()), "byte {at}"),
            Err(error) => assert!(error.to_string().contains(TRAIN_IMAGES), "{error}"),
        }
    }
}

#[test]
fn files_that_do_not_belong_together() {
    let error = fault(TRAIN_LABELS, &file(8, &[4], &[0; 4]));
    assert!(matches!(error, DataError::CountMismatch { images: 3, labels: 4, .. }), "{error}");
    assert!(error.to_string().contains(TRAIN_IMAGES), "{error}");
    let error = fault(TEST_IMAGES, &file(8, &[2, 3, 3], &[0; 18]));
    assert!(matches!(error, DataError::SplitMismatch { .. }), "{error}");
    let error = fault(TEST_LABELS, &file(8, &[2], &[3, 10]));
    assert!(matches!(error, DataError::Label { sample: 1, label: 10, classes: 10, .. }), "{error}");
}

#[test]
fn numbers_that_are_none() {
    for bad in [f32::NAN, f32::INFINITY] {
        let mut elements = vec![0; 12 * 4];
        elements[7 * 4..8 * 4].copy_from_slice(&bad.to_be_bytes());
        let error = fault(TEST_IMAGES, &file(0x0D, &[2, 2, 3], &elements));
        assert!(matches!(error, DataError::NotFinite { sample: 1, position: 1, .. }), "{error}");
    }
}

#[test]
fn missing_files_say_what_was_looked_for() {
    for name in [TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS] {
        let directory = directory();
        fs::remove_file(directory.path().join(name)).unwrap();
        let error = refusal(directory.path(), name);
        assert!(matches!(error, DataError::NotFound { .. }), "{error}");
        let message = error.to_string();
        assert!(message.contains(&format!("{name}.gz")) && message.contains(".idx"), "{message}");
        assert!(message.contains(&directory.path().display().to_string()), "{message}");
    }
    let directory = directory();
    refusal(&directory.path().join("nothing"), "nothing");
    refusal(&directory.path().join(TEST_LABELS), TEST_LABELS);
}

#[cfg(unix)]
#[test]
fn only_regular_files_of_the_directory() {
    use std::os::unix::{fs::symlink, net::UnixListener};
    let replace = |make: &dyn Fn(&Path)| {
        let directory = directory();
        let path = directory.path().join(TRAIN_IMAGES);
        fs::rename(&path, directory.path().join("real")).unwrap();
        make(&path);
        directory
    };
    let outside = TempDir::new().unwrap();
    fs::write(outside.path().join("file"), file(8, &[3, 2, 3], &[0; 18])).unwrap();

    let inside = replace(&|path| symlink("real", path).unwrap());
    assert!(idx::read(inside.path()).is_ok());
    // The directory itself may be reached through a link: the user named it.
    symlink(inside.path(), outside.path().join("link")).unwrap();
    assert!(idx::read(outside.path().join("link")).is_ok());

    for target in [outside.path().join("file"), "/dev/zero".into(), "/etc/hostname".into()] {
        if target.exists() {
            let directory = replace(&|path| symlink(&target, path).unwrap());
            let error = refusal(directory.path(), TRAIN_IMAGES);
            assert!(matches!(error, DataError::OutsideLink { .. }), "{error}");
        }
    }
    for target in ["gone", TRAIN_IMAGES] {
        let directory = replace(&|path| symlink(target, path).unwrap());
        let error = refusal(directory.path(), TRAIN_IMAGES);
        assert!(matches!(error, DataError::Io { .. }), "{error}");
    }
    type Make = fn(&Path);
    let not_files: [(&str, Make); 3] = [
        ("a directory", |path| fs::create_dir(path).unwrap()),
        ("a socket", |path| drop(UnixListener::bind(path).unwrap())),
        ("a FIFO", |path| {
            assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
        }),
    ];
    for (what, make) in not_files {
        let directory = replace(&make);
        let error = refusal(directory.path(), TRAIN_IMAGES);
        assert!(matches!(error, DataError::NotAFile { found, .. } if found == what), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn bytes_come_back(
        (shape, labels, pixels) in ((1u32..6, 1u32..6), 1usize..9).prop_flat_map(|((height, width), count)| (
            Just((height, width)),
            prop::collection::vec(0u8..10, count),
            prop::collection::vec(any::<u8>(), count * (height * width) as usize),
        )),
        packed: bool,
    ) {
        let directory = TempDir::new().unwrap();
        let pack = |bytes: Vec<u8>| if packed { gzip(&bytes) } else { bytes };
        let count = labels.len() as u32;
        for (images, label_file) in [(TRAIN_IMAGES, TRAIN_LABELS), (TEST_IMAGES, TEST_LABELS)] {
            let bytes = pack(file(8, &[count, shape.0, shape.1], &pixels));
            fs::write(directory.path().join(images), bytes).unwrap();
            fs::write(directory.path().join(label_file), pack(file(8, &[count], &labels))).unwrap();
        }
        let splits = idx::read(directory.path()).unwrap();
        prop_assert_eq!(splits.train.pixels(), &Pixels::U8(pixels));
        prop_assert!(splits.test.labels().iter().copied().eq(labels.into_iter().map(usize::from)));
    }

    #[test]
    fn floats_come_back(pixels in prop::collection::vec(-1e30f32..1e30, 12), packed: bool) {
        let directory = directory();
        let bytes: Vec<u8> = pixels.iter().flat_map(|value| value.to_be_bytes()).collect();
        let bytes = file(0x0D, &[2, 2, 3], &bytes);
        fs::write(directory.path().join(TEST_IMAGES), if packed { gzip(&bytes) } else { bytes }).unwrap();
        let test = idx::read(directory.path()).unwrap().test;
        let batch = test.batch(0..2, &Normalization::identity());
        prop_assert!(batch.iter().eq(&pixels));
        prop_assert_eq!(test.pixels(), &Pixels::F32(pixels));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), start in 0usize..4) {
        let directory = directory();
        let start: &[u8] = [&[][..], &[0, 0, 8, 3], &[0, 0, 0x0D, 4], &[0x1F, 0x8B, 8, 0]][start];
        fs::write(directory.path().join(TRAIN_IMAGES), [start, &bytes].concat()).unwrap();
        if let Err(error) = idx::read(directory.path()) {
            prop_assert!(error.to_string().contains(TRAIN_IMAGES), "{}", error);
        }
    }
}
