//! CIFAR-10 and CIFAR-100 in their makers' binary format (Krizhevsky, 2009, "Learning Multiple Layers of Features from
//! Tiny Images").
//!
//! | | CIFAR-10 | CIFAR-100 |
//! |---|---|---|
//! | train | `data_batch_1.bin` to `data_batch_5.bin` | `train.bin` |
//! | test | `test_batch.bin` | `test.bin` |
//! | a record | label, 3072 pixels | coarse label, fine label, 3072 pixels |
//!
//! The pixels of an image are 32 x 32 of red, then green, then blue. A CIFAR-10 file holds 10,000 records, `train.bin`
//! 50,000 and `test.bin` 10,000; a file of any other length is refused. The files may lie in the directory itself or in
//! the folder that the makers' archive unpacks to.

use super::{DataError, Dataset, Pixels, Splits, directory::Directory};
use crate::shape::Shape;
use std::{
    io::{BufReader, ErrorKind, Read},
    path::{Path, PathBuf},
};

/// The size of every image.
pub const SHAPE: Shape = Shape::new(3, 32, 32);

/// The classes of CIFAR-10.
pub const CIFAR10_CLASSES: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// The 20 coarse classes of CIFAR-100.
pub const CIFAR100_COARSE_CLASSES: [&str; 20] = [
    "aquatic_mammals",
    "fish",
    "flowers",
    "food_containers",
    "fruit_and_vegetables",
    "household_electrical_devices",
    "household_furniture",
    "insects",
    "large_carnivores",
    "large_man-made_outdoor_things",
    "large_natural_outdoor_scenes",
    "large_omnivores_and_herbivores",
    "medium_mammals",
    "non-insect_invertebrates",
    "people",
    "reptiles",
    "small_mammals",
    "trees",
    "vehicles_1",
    "vehicles_2",
];

/// The 100 fine classes of CIFAR-100.
#[rustfmt::skip]
pub const CIFAR100_CLASSES: [&str; 100] = [
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle",
    "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle",
    "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur",
    "dolphin", "elephant", "flatfish", "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard",
    "lamp", "lawn_mower", "leopard", "lion", "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain",
    "mouse", "mushroom", "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree",
    "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road", "rocket",
    "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake", "spider",
    "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone", "television", "tiger", "tractor",
    "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm",
];

/// Which data set, and which of its labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// CIFAR-10: ten classes.
    Cifar10,
    /// CIFAR-100 with its 100 fine classes.
    Cifar100,
    /// CIFAR-100 with its 20 coarse classes.
    Cifar100Coarse,
}

/// The files of one split, each of so many records.
type Files = (&'static [&'static str], usize);

impl Kind {
    fn train(self) -> Files {
        match self {
            Kind::Cifar10 => (
                &["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"],
                10_000,
            ),
            Kind::Cifar100 | Kind::Cifar100Coarse => (&["train.bin"], 50_000),
        }
    }

    fn test(self) -> Files {
        match self {
            Kind::Cifar10 => (&["test_batch.bin"], 10_000),
            Kind::Cifar100 | Kind::Cifar100Coarse => (&["test.bin"], 10_000),
        }
    }

    /// The names of all its files.
    ///
    /// ```
    /// use striate::data::cifar::Kind;
    /// assert_eq!(Kind::Cifar100.files().collect::<Vec<_>>(), ["train.bin", "test.bin"]);
    /// ```
    pub fn files(self) -> impl Iterator<Item = &'static str> {
        self.train().0.iter().chain(self.test().0).copied()
    }

    /// The folder inside the makers' archive.
    fn folder(self) -> &'static str {
        match self {
            Kind::Cifar10 => "cifar-10-batches-bin",
            Kind::Cifar100 | Kind::Cifar100Coarse => "cifar-100-binary",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Cifar10 => "cifar10",
            Kind::Cifar100 => "cifar100",
            Kind::Cifar100Coarse => "cifar100-coarse",
        }
    }

    /// Labels before the pixels of a record, and which of them counts.
    fn labels(self) -> (usize, usize) {
        match self {
            Kind::Cifar10 => (1, 0),
            Kind::Cifar100Coarse => (2, 0),
            Kind::Cifar100 => (2, 1),
        }
    }

    fn class_names(self) -> &'static [&'static str] {
        match self {
            Kind::Cifar10 => &CIFAR10_CLASSES,
            Kind::Cifar100 => &CIFAR100_CLASSES,
            Kind::Cifar100Coarse => &CIFAR100_COARSE_CLASSES,
        }
    }
}

/// Which of the two a directory holds (CIFAR-100 with its fine classes), by the names of its files.
pub fn detect(directory: impl AsRef<Path>) -> Option<Kind> {
    [Kind::Cifar10, Kind::Cifar100].into_iter().find(|&kind| place(directory.as_ref(), kind).is_some())
}

/// Where the files are, if any of them is there.
fn place(directory: &Path, kind: Kind) -> Option<PathBuf> {
    let any = |directory: &PathBuf| kind.files().any(|name| directory.join(name).symlink_metadata().is_ok());
    [directory.to_path_buf(), directory.join(kind.folder())].into_iter().find(any)
}

/// Reads a directory of CIFAR files.
///
/// ```no_run
/// use striate::data::cifar::{self, Kind};
/// let splits = cifar::read("data/cifar-10-batches-bin", Kind::Cifar10)?;
/// assert_eq!((splits.train.len(), splits.test.len()), (50_000, 10_000));
/// # Ok::<(), striate::data::DataError>(())
/// ```
///
/// # Errors
/// A file is missing, is no regular file inside the directory, or has another length than its makers gave it; a label
/// is outside the classes.
pub fn read(directory: impl AsRef<Path>, kind: Kind) -> Result<Splits, DataError> {
    let given = directory.as_ref();
    let directory = Directory::open(&place(given, kind).unwrap_or_else(|| given.into()))?;
    // The smaller split first: what is wrong shows sooner.
    let test = split(&directory, kind, kind.test(), "test")?;
    Ok(Splits { train: split(&directory, kind, kind.train(), "train")?, test })
}

fn split(directory: &Directory, kind: Kind, (names, records): Files, split: &str) -> Result<Dataset, DataError> {
    let image = SHAPE.len();
    let (before, which) = kind.labels();
    let classes = kind.class_names();
    let mut labels = Vec::with_capacity(records * names.len());
    let mut pixels = Vec::new();
    let bytes = records * names.len() * image;
    pixels
        .try_reserve_exact(bytes)
        .map_err(|_| DataError::Memory { name: directory.path.display().to_string(), bytes: bytes as u64 })?;
    for name in names {
        let path = directory.path.join(name);
        if path.symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            let names = vec![(*name).to_owned()];
            return Err(DataError::NotFound { directory: directory.path.clone(), what: "file of CIFAR images", names });
        }
        let (file, found) = directory.open_file(&path)?;
        let expected = (records * (before + image)) as u64;
        if found < expected {
            return Err(DataError::Short { path, found, expected });
        }
        if found > expected {
            return Err(DataError::FileTooLarge { path, found, limit: expected });
        }
        let mut file = BufReader::with_capacity(1 << 18, file);
        let mut record = vec![0; before + image];
        for sample in 0..records {
            file.read_exact(&mut record).map_err(|source| DataError::Io {
                path: path.clone(),
                action: "read this file",
                source,
            })?;
            let (head, values) = record.split_at(before);
            let label = head.get(which).copied().map_or(usize::MAX, usize::from);
            if label >= classes.len() {
                let name = path.display().to_string();
                return Err(DataError::Label { name, sample, label, classes: classes.len() });
            }
            labels.push(label);
            pixels.extend_from_slice(values);
        }
    }
    let class_names = classes.iter().map(|name| (*name).to_owned()).collect();
    Dataset::new(format!("{} {split}", kind.name()), SHAPE, Pixels::U8(pixels), labels, class_names)
}
