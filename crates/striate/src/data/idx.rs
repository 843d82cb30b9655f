//! IDX, the format of MNIST and its relatives: a directory with four files, plain or compressed with gzip.
//!
//! | | images | labels |
//! |---|---|---|
//! | train | `train-images-idx3-ubyte` | `train-labels-idx1-ubyte` |
//! | test | `t10k-images-idx3-ubyte` | `t10k-labels-idx1-ubyte` |
//!
//! `train-images.idx3-ubyte` and so on, and `.gz` at the end of either, are found as well; whether a file is compressed
//! is told by its contents. A file holds two zero bytes, the element type, the number of sizes, the sizes as big-endian
//! u32, and the elements. Images are (N, rows, columns) or (N, channels, rows, columns), of unsigned bytes or
//! big-endian f32; labels are unsigned bytes. A file `classes.txt`, if there is one, names the classes, one a line.
//!
//! Nothing is allocated on the word of a header: it must agree with the length of the file first.

use super::{DataError, Dataset, Pixels, Splits, check_finite, check_labels, directory::Directory, one_class_names};
use crate::shape::{MAX_ELEMENTS, Shape};
use flate2::bufread::GzDecoder;
use std::{
    fs,
    io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

/// The most classes that labels of one byte can tell apart.
pub(super) const MAX_CLASSES: usize = 256;
/// The most bytes of a class name.
pub(super) const MAX_CLASS_NAME: usize = 256;

const CLASSES_FILE: &str = "classes.txt";
const UNSIGNED_BYTE: u8 = 0x08;
const FLOAT: u8 = 0x0D;

/// Reads a directory of IDX files.
///
/// The classes are those of `classes.txt` in the directory, or else "0" to "9".
///
/// ```no_run
/// use striate::data::idx;
/// let splits = idx::read("data/mnist")?;
/// println!("{} images of {}", splits.train.len(), splits.train.shape());
/// # Ok::<(), striate::data::DataError>(())
/// ```
///
/// # Errors
/// A file is missing, is no regular file inside the directory, is not IDX of the right kind, does not have the length
/// that its header asks for, or does not agree with the others; a label is outside the classes; a number is not finite.
pub fn read(directory: impl AsRef<Path>) -> Result<Splits, DataError> {
    let directory = Directory::open(directory.as_ref())?;
    let class_names = directory.class_names()?.unwrap_or_else(|| one_class_names(10));
    directory.read_splits(class_names)
}

/// Reads a directory of IDX files whose classes have these names.
///
/// # Errors
/// As for [`read`].
pub fn read_with_classes(directory: impl AsRef<Path>, class_names: Vec<String>) -> Result<Splits, DataError> {
    Directory::open(directory.as_ref())?.read_splits(class_names)
}

/// Whether a directory holds any of the files, by their names.
pub fn is_here(directory: impl AsRef<Path>) -> bool {
    let directory = directory.as_ref();
    let parts = [("train-images", 3), ("train-labels", 1), ("t10k-images", 3), ("t10k-labels", 1)];
    parts.into_iter().flat_map(|(stem, sizes)| names(stem, sizes)).any(|n| directory.join(n).symlink_metadata().is_ok())
}

/// What a file may be called.
fn names(stem: &str, sizes: u8) -> [String; 4] {
    [("-", ""), (".", ""), ("-", ".gz"), (".", ".gz")].map(|(joint, end)| format!("{stem}{joint}idx{sizes}-ubyte{end}"))
}

/// What the IDX format calls an element type.
pub(super) fn type_name(code: u8) -> &'static str {
    match code {
        UNSIGNED_BYTE => "unsigned bytes",
        0x09 => "signed bytes",
        0x0B => "16-bit integers",
        0x0C => "32-bit integers",
        FLOAT => "32-bit floats",
        0x0E => "64-bit floats",
        _ => "no type of the IDX format",
    }
}

impl Directory {
    fn read_splits(&self, class_names: Vec<String>) -> Result<Splits, DataError> {
        // All four are looked for before the first is read.
        let train =
            (self.find("train-images", 3, "training images")?, self.find("train-labels", 1, "training labels")?);
        let test = (self.find("t10k-images", 3, "test images")?, self.find("t10k-labels", 1, "test labels")?);
        let splits = Splits {
            train: self.split("train", &train, class_names.clone())?,
            test: self.split("test", &test, class_names)?,
        };
        let (train_shape, test_shape) = (splits.train.shape(), splits.test.shape());
        if train_shape != test_shape {
            return Err(DataError::SplitMismatch {
                train_path: train.0,
                train: train_shape,
                test_path: test.0,
                test: test_shape,
            });
        }
        Ok(splits)
    }

    fn find(&self, stem: &str, sizes: u8, what: &'static str) -> Result<PathBuf, DataError> {
        let names = names(stem, sizes);
        for name in &names {
            let path = self.path.join(name);
            match fs::symlink_metadata(&path) {
                Ok(_) => return Ok(path),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(source) => return Err(DataError::Io { path, action: "look at this file", source }),
            }
        }
        Err(DataError::NotFound { directory: self.path.clone(), what, names: names.into() })
    }

    fn split(
        &self,
        split: &str,
        (images_path, labels_path): &(PathBuf, PathBuf),
        class_names: Vec<String>,
    ) -> Result<Dataset, DataError> {
        // The labels are the smaller file: what is wrong with them shows sooner.
        let (sizes, labels) = self.array(labels_path, &LABELS)?;
        let labels = match labels {
            Pixels::U8(labels) if sizes.len() == 1 => labels,
            _ => Vec::new(),
        };
        check_labels(&labels_path.display().to_string(), labels.iter().copied().map(usize::from), class_names.len())?;
        let (sizes, pixels) = self.array(images_path, &IMAGES)?;
        let (images, shape) = match *sizes {
            [images, channels, height, width] => {
                (images, Shape::new(channels as usize, height as usize, width as usize))
            }
            [images, height, width] => (images, Shape::new(1, height as usize, width as usize)),
            _ => (0, Shape::new(0, 0, 0)),
        };
        if images as usize != labels.len() {
            return Err(DataError::CountMismatch {
                images_path: images_path.clone(),
                images: images as usize,
                labels_path: labels_path.clone(),
                labels: labels.len(),
            });
        }
        if let Pixels::F32(values) = &pixels {
            check_finite(&images_path.display().to_string(), values, shape.len())?;
        }
        let labels = labels.into_iter().map(usize::from).collect();
        Dataset::new(format!("{} {split}", self.name("idx")), shape, pixels, labels, class_names)
    }

    fn array(&self, path: &Path, kind: &Kind) -> Result<(Vec<u32>, Pixels), DataError> {
        let (mut file, length) = self.open_file(path)?;
        let fault = |source| DataError::Io { path: path.into(), action: "read this file", source };
        let mut start = [0; 2];
        // A file shorter than this is no gzip file, and the IDX reader says what is missing.
        let packed =
            length >= GZIP_FRAME && file.read_exact(&mut start).map_err(fault).map(|()| start == [0x1F, 0x8B])?;
        if packed {
            file.seek(SeekFrom::End(-4)).map_err(fault)?;
            let mut end = [0; 4];
            file.read_exact(&mut end).map_err(fault)?;
            file.rewind().map_err(fault)?;
            let source = Source::Gzip { length, unpacked: u32::from_le_bytes(end) };
            Reader { path, source, inner: GzDecoder::new(BufReader::new(file)) }.array(kind)
        } else {
            file.rewind().map_err(fault)?;
            Reader { path, source: Source::Plain { length }, inner: file }.array(kind)
        }
    }

    fn class_names(&self) -> Result<Option<Vec<String>>, DataError> {
        let path = self.path.join(CLASSES_FILE);
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(DataError::Io { path, action: "look at this file", source }),
            Ok(_) => {}
        }
        let wrong = |reason: String| Err(DataError::ClassNames { path: path.clone(), reason });
        let (file, length) = self.open_file(&path)?;
        // A line may end in two bytes.
        let limit = (MAX_CLASSES * (MAX_CLASS_NAME + 2)) as u64;
        if length > limit {
            return wrong(format!("the file is {length} bytes long"));
        }
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes).map_err(|source| DataError::Io {
            path: path.clone(),
            action: "read this file",
            source,
        })?;
        let Ok(text) = String::from_utf8(bytes) else { return wrong("the file is not UTF-8 text".into()) };
        let names: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
        if names.is_empty() || names.len() > MAX_CLASSES {
            return wrong(format!("the file has {} lines", names.len()));
        }
        for (line, name) in names.iter().enumerate() {
            if name.is_empty() || name.len() > MAX_CLASS_NAME {
                return wrong(format!("line {} is {} bytes long", line + 1, name.len()));
            }
            if let Some(earlier) = names.iter().take(line).position(|other| other == name) {
                return wrong(format!("lines {} and {} are both \"{name}\"", earlier + 1, line + 1));
            }
        }
        Ok(Some(names))
    }
}

/// What a file must hold.
struct Kind {
    types: &'static [u8],
    types_text: &'static str,
    dimensions: &'static [u8],
    dimensions_text: &'static str,
}

const IMAGES: Kind = Kind {
    types: &[UNSIGNED_BYTE, FLOAT],
    types_text: "0x08 (unsigned bytes) and 0x0d (32-bit floats)",
    dimensions: &[3, 4],
    dimensions_text: "3 (images, rows, columns) or 4 (images, channels, rows, columns)",
};
const LABELS: Kind = Kind {
    types: &[UNSIGNED_BYTE],
    types_text: "0x08 (unsigned bytes)",
    dimensions: &[1],
    dimensions_text: "1 (labels)",
};

/// Bytes of the smallest gzip file: header, an empty block, checksum and length.
const GZIP_FRAME: u64 = 20;
/// Deflate packs at most 1032 bytes into one.
const GZIP_RATIO: u64 = 1032;
/// Over this size, a file must not be packed more tightly than [`GZIP_LARGE_RATIO`]: no real images are.
const GZIP_LARGE: u64 = 256 << 20;
const GZIP_LARGE_RATIO: u64 = 64;
/// The length at a gzip file's end is kept in 32 bits, so beyond that it proves nothing.
const GZIP_MAX: u64 = u32::MAX as u64;

/// How the elements are stored, and what is known of their number before any is read.
#[derive(Clone, Copy)]
enum Source {
    Plain {
        length: u64,
    },
    Gzip {
        /// Of the packed file.
        length: u64,
        /// Of its contents, as it says at its end.
        unpacked: u32,
    },
}

/// Reads one array.
struct Reader<'a, R> {
    path: &'a Path,
    source: Source,
    inner: R,
}

impl<R: Read> Reader<'_, R> {
    fn array(mut self, kind: &Kind) -> Result<(Vec<u32>, Pixels), DataError> {
        let mut magic = [0; 4];
        self.fill(&mut magic, 0, 4)?;
        let [zero, also_zero, code, dimensions] = magic;
        let path = || self.path.to_path_buf();
        if (zero, also_zero) != (0, 0) {
            return Err(DataError::Magic { path: path(), found: magic });
        }
        if !kind.types.contains(&code) {
            return Err(DataError::ElementType { path: path(), found: code, expected: kind.types_text });
        }
        if !kind.dimensions.contains(&dimensions) {
            return Err(DataError::Dimensions { path: path(), found: dimensions, expected: kind.dimensions_text });
        }
        let header = 4 + 4 * u64::from(dimensions);
        let mut sizes = Vec::with_capacity(dimensions.into());
        for at in 0..u64::from(dimensions) {
            let mut size = [0; 4];
            self.fill(&mut size, 4 + 4 * at, header)?;
            sizes.push(u32::from_be_bytes(size));
        }
        let (elements, total) = self.check_length(&sizes, if code == FLOAT { 4 } else { 1 }, header)?;
        let pixels = if code == FLOAT {
            Pixels::F32(
                self.elements(elements, header, total, |[a, b, c, d]: [u8; 4]| f32::from_be_bytes([a, b, c, d]))?,
            )
        } else {
            Pixels::U8(self.elements(elements, header, total, |[byte]: [u8; 1]| byte)?)
        };
        // Reading on to the end also makes the gzip decoder compare its checksum.
        let mut more = [0];
        match self.inner.read(&mut more) {
            Ok(0) => Ok((sizes, pixels)),
            Ok(_) => Err(DataError::Trailing {
                path: self.path.into(),
                found: "the file holds more".into(),
                expected: total,
            }),
            Err(source) => Err(self.fault(source)),
        }
    }

    /// The number of elements, and of bytes in all, if the sizes can be true.
    fn check_length(&self, sizes: &[u32], element: u64, header: u64) -> Result<(usize, u64), DataError> {
        let path = || self.path.to_path_buf();
        let too_large = |reason| Err(DataError::TooLarge { path: path(), sizes: sizes.to_vec(), reason });
        if sizes.contains(&0) {
            return Err(DataError::ZeroSize { path: path(), sizes: sizes.to_vec() });
        }
        let elements = sizes.iter().try_fold(1u64, |product, &size| product.checked_mul(size.into()));
        let Some(elements) = elements.filter(|&n| n <= MAX_ELEMENTS as u64) else {
            return too_large("2^34 numbers".into());
        };
        let Ok(count) = usize::try_from(elements) else {
            return too_large("this machine can address".into());
        };
        // At most 2^36 and a few.
        let total = elements * element + header;
        match self.source {
            Source::Plain { length } if length < total => {
                return Err(DataError::Short { path: path(), found: length, expected: total });
            }
            Source::Plain { length } if length > total => {
                let found = format!("the file holds {length} bytes");
                return Err(DataError::Trailing { path: path(), found, expected: total });
            }
            Source::Plain { .. } => {}
            Source::Gzip { length, unpacked } => {
                let possible = length.saturating_mul(GZIP_RATIO);
                let sensible = possible.min(GZIP_LARGE.max(length.saturating_mul(GZIP_LARGE_RATIO))).min(GZIP_MAX);
                if total > possible {
                    return too_large(format!("a gzip file of {length} bytes can hold"));
                }
                if total > sensible {
                    return too_large(format!(
                        "is unpacked from a gzip file of {length} bytes; unpack it with gunzip first"
                    ));
                }
                if total != u64::from(unpacked) {
                    let reason =
                        format!("its header asks for {total} bytes, but its end says that it holds {unpacked}");
                    let source = io::Error::new(ErrorKind::InvalidData, reason);
                    return Err(DataError::Gzip { path: path(), source });
                }
            }
        }
        Ok((count, total))
    }

    fn elements<T, const N: usize>(
        &mut self,
        count: usize,
        header: u64,
        total: u64,
        decode: impl Fn([u8; N]) -> T,
    ) -> Result<Vec<T>, DataError> {
        // A plain file has proved its length. A gzip file proves it by and by.
        let first = match self.source {
            Source::Plain { .. } => count,
            Source::Gzip { .. } => count.min((64 << 20) / N),
        };
        let mut elements = Vec::new();
        elements.try_reserve_exact(first).map_err(|_| self.memory(total))?;
        let mut buffer = vec![0; N * (1 << 16)];
        while elements.len() < count {
            let now = (count - elements.len()).min(1 << 16);
            let bytes = buffer.get_mut(..now * N).unwrap_or_default();
            self.fill(bytes, header + (elements.len() * N) as u64, total)?;
            elements.try_reserve(now).map_err(|_| self.memory(total))?;
            elements.extend(bytes.as_chunks::<N>().0.iter().map(|&bytes| decode(bytes)));
        }
        Ok(elements)
    }

    /// Fills `bytes`, the first of which is the file's byte `at`, of the `expected` that there must be.
    fn fill(&mut self, bytes: &mut [u8], at: u64, expected: u64) -> Result<(), DataError> {
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.inner.read(rest) {
                Ok(0) => {
                    return Err(DataError::Short { path: self.path.into(), found: at + filled as u64, expected });
                }
                Ok(read) => filled += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(source) => return Err(self.fault(source)),
            }
        }
        Ok(())
    }

    fn fault(&self, source: io::Error) -> DataError {
        let path = self.path.into();
        match self.source {
            Source::Plain { .. } => DataError::Io { path, action: "read this file", source },
            Source::Gzip { .. } => DataError::Gzip { path, source },
        }
    }

    fn memory(&self, bytes: u64) -> DataError {
        DataError::Memory { name: self.path.display().to_string(), bytes }
    }
}
