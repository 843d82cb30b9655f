//! Labelled images: where they come from, and how they become the numbers that a network reads.
//!
//! [`Dataset`] is a set of labelled images in memory or in files, [`Splits`] one to train with and one to test with. Each
//! source has its file ([`idx`], [`cifar`], [`image_folder`]); [`Loader`] prepares batches ahead; [`augment`] changes training
//! images at random; [`preprocessing`] holds what turns an image file into a network's input; [`duplicates`] finds copies.
//! This room knows nothing of networks.

pub mod augment;
pub mod cifar;
mod directory;
pub mod duplicates;
mod files;
pub mod idx;
pub mod image_folder;
mod loader;
pub mod memory;
pub mod preprocessing;
mod resample;
mod split;

pub use crate::kernels::softmax::SecondClass;
pub use augment::Augment;
pub use files::Files;
pub use loader::Loader;
pub(crate) use loader::gather;
pub use preprocessing::{Fit, Normalization, Preprocessing};
pub use split::HoldOut;
pub(crate) use split::stratified;

use crate::{
    kernels::isa::vectorize,
    shape::{Shape, ShapeError, checked_product},
};
use ndarray::Array4;
use rayon::prelude::*;
use std::{
    borrow::Cow,
    cell::Cell,
    io,
    ops::Range,
    path::{Path, PathBuf},
};

/// The numbers of all images of a [`Dataset`], in (N, C, H, W) order.
#[derive(Clone, Debug, PartialEq)]
pub enum Pixels {
    /// Brightness from 0 to 255, as in an image file. A quarter of the memory of the other kind.
    U8(Vec<u8>),
    /// Any finite numbers.
    F32(Vec<f32>),
    /// Image files, decoded to brightness from 0 to 255 whenever they are needed.
    Files(Files),
}

impl Pixels {
    /// How many numbers there are.
    pub fn len(&self) -> usize {
        match self {
            Pixels::U8(values) => values.len(),
            Pixels::F32(values) => values.len(),
            Pixels::Files(files) => files.len().saturating_mul(files.image_len()),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Labelled images of one size, in memory or in files that are decoded when they are needed.
///
/// ```
/// use striate::data::{Dataset, Normalization, Pixels, one_class_names};
/// use striate::shape::Shape;
/// // Two images of one row and two columns.
/// let pixels = Pixels::U8(vec![0, 51, 102, 255]);
/// let data = Dataset::new("tiny", Shape::new(1, 1, 2), pixels, vec![1, 0], one_class_names(2))?;
/// let mut batch = [0.0; 4];
/// data.gather(&[1, 0], &Normalization::identity(), &mut batch);
/// assert_eq!(batch, [0.4, 1.0, 0.0, 0.2]);
/// # Ok::<(), striate::data::DataError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    name: String,
    shape: Shape,
    pixels: Pixels,
    labels: Vec<usize>,
    class_names: Vec<String>,
    /// Where each image came from, if each has its own file.
    paths: Vec<PathBuf>,
}

/// The images to train with and the images to test with.
#[derive(Clone, Debug, PartialEq)]
pub struct Splits {
    /// The images to train with.
    pub train: Dataset,
    /// The images to test with, of the same size and classes.
    pub test: Dataset,
}

/// The class names "0", "1", ... of `classes` classes that have no better ones.
///
/// ```
/// assert_eq!(striate::data::one_class_names(3), ["0", "1", "2"]);
/// ```
pub fn one_class_names(classes: usize) -> Vec<String> {
    (0..classes).map(|class| class.to_string()).collect()
}

impl Dataset {
    /// A dataset called `name` of images of one `shape`; the n-th label is the class of the n-th image.
    ///
    /// # Errors
    /// No image, a shape with a zero, counts that do not agree, a label outside the classes, a number that is not
    /// finite.
    pub fn new(
        name: impl Into<String>,
        shape: Shape,
        pixels: Pixels,
        labels: Vec<usize>,
        class_names: Vec<String>,
    ) -> Result<Self, DataError> {
        let name = name.into();
        for (what, size) in [
            ("images", labels.len()),
            ("channels", shape.channels),
            ("rows", shape.height),
            ("columns", shape.width),
            ("classes", class_names.len()),
        ] {
            if size == 0 {
                return Err(DataError::Empty { name, what });
            }
        }
        let expected = checked_product(&[labels.len(), shape.channels, shape.height, shape.width])
            .map_err(|source| DataError::Shape { name: name.clone(), source })?;
        if pixels.len() != expected {
            return Err(DataError::Count { name, images: labels.len(), shape, expected, found: pixels.len() });
        }
        check_labels(&name, labels.iter().copied(), class_names.len())?;
        if let Pixels::F32(values) = &pixels {
            check_finite(&name, values, shape.len())?;
        }
        Ok(Self { name, shape, pixels, labels, class_names, paths: Vec::new() })
    }

    /// A dataset of (N, C, H, W) numbers that need no scaling.
    ///
    /// # Errors
    /// As for [`Dataset::new`].
    pub fn from_arrays(x: Array4<f32>, labels: Vec<usize>, class_names: Vec<String>) -> Result<Self, DataError> {
        let (images, channels, height, width) = x.dim();
        let shape = Shape::new(channels, height, width);
        if images != labels.len() {
            return Err(DataError::Count {
                name: ARRAYS.into(),
                images: labels.len(),
                shape,
                expected: labels.len().saturating_mul(shape.len()),
                found: x.len(),
            });
        }
        // Iteration is in logical order, whatever the memory layout.
        let values = if x.is_standard_layout() {
            // A slice of a larger array still owns all of it.
            let (mut values, offset) = x.into_raw_vec_and_offset();
            values.drain(..offset.unwrap_or(0).min(values.len()));
            values.truncate(images * shape.len());
            values
        } else {
            x.iter().copied().collect()
        };
        Self::new(ARRAYS, shape, Pixels::F32(values), labels, class_names)
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no image, as in `head(0)`.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The size of one image.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The class of each image.
    pub fn labels(&self) -> &[usize] {
        &self.labels
    }

    /// The names of the classes.
    pub fn class_names(&self) -> &[String] {
        &self.class_names
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.class_names.len()
    }

    /// How many images each class has.
    pub fn class_sizes(&self) -> Vec<usize> {
        let mut sizes = vec![0; self.classes()];
        self.labels.iter().for_each(|&label| sizes[label] += 1);
        sizes
    }

    /// Whether the classes are written characters, so that a mirrored image is another class or none: each name is one or
    /// two signs, the word of a digit, or a Greek letter's name.
    pub fn shows_characters(&self) -> bool {
        const NAMES: &str = "zero one two three four five six seven eight nine alpha beta gamma delta epsilon zeta eta theta \
                             iota kappa lambda mu nu xi omicron pi rho sigma tau upsilon phi chi psi omega";
        let is_character =
            |name: &String| name.chars().count() <= 2 || NAMES.split(' ').any(|known| known.eq_ignore_ascii_case(name));
        self.class_names.iter().all(is_character)
    }

    /// What the dataset is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The numbers of all images.
    pub fn pixels(&self) -> &Pixels {
        &self.pixels
    }

    /// The file of image `index`, if each image has its own and there is such an image.
    pub fn path(&self, index: usize) -> Option<&Path> {
        match &self.pixels {
            Pixels::Files(files) => files.path(index),
            _ => self.paths.get(index).map(PathBuf::as_path),
        }
    }

    /// Whether the images are decoded from their files whenever they are needed.
    pub fn is_streamed(&self) -> bool {
        matches!(self.pixels, Pixels::Files(_))
    }

    /// The files that could no longer be read when their images were needed; see [`Files::faults`].
    pub fn faults(&self) -> Vec<image_folder::Skipped> {
        if let Pixels::Files(files) = &self.pixels { files.faults() } else { Vec::new() }
    }

    /// The brightness from 0 to 255 of image `index` (C, H, W), if the images are of bytes and there is such an image.
    pub fn bytes(&self, index: usize) -> Option<Cow<'_, [u8]>> {
        match &self.pixels {
            Pixels::U8(values) => values.chunks_exact(self.shape.len()).nth(index).map(Cow::Borrowed),
            Pixels::F32(_) => None,
            Pixels::Files(files) => (index < files.len()).then(|| Cow::Owned(files.with_pixels(index, <[u8]>::to_vec))),
        }
    }

    /// Writes the images at `indices` into `out` in (N, C, H, W) order, scaled by `scale`. Allocates nothing, unless the
    /// images come out of files.
    ///
    /// # Panics
    /// An index is not below [`Dataset::len`], or `out` does not hold exactly `indices.len()` images.
    pub fn gather(&self, indices: &[usize], scale: &Normalization, out: &mut [f32]) {
        assert_eq!(out.len(), indices.len() * self.shape.len(), "the buffer must hold the images asked for, no more");
        self.gather_with(indices.iter().copied(), scale, out);
    }

    /// Mean and deviation of each channel's pixels, as [`Dataset::gather`] scales by: the data come out with mean 0 and
    /// deviation 1. A channel that is all the same keeps deviation 1.
    ///
    /// ```
    /// use striate::data::{Dataset, Pixels, one_class_names};
    /// use striate::shape::Shape;
    /// let pixels = Pixels::U8(vec![0, 255, 51, 51]);
    /// let data = Dataset::new("tiny", Shape::new(2, 1, 2), pixels, vec![0], one_class_names(1))?;
    /// let scale = data.normalization();
    /// assert_eq!((scale.mean, scale.deviation), (vec![0.5, 0.2], vec![0.5, 1.0]));
    /// # Ok::<(), striate::data::DataError>(())
    /// ```
    pub fn normalization(&self) -> Normalization {
        let (area, channels) = (self.shape.area(), self.shape.channels);
        // Sums of bytes are exact, so neither the order nor where the pixels are matters.
        let of_bytes = |pixels: &[u8]| -> Vec<[u64; 2]> {
            let sums = |plane: &[u8]| {
                plane.iter().fold([0u64; 2], |[sum, squares], &v| [sum + u64::from(v), squares + u64::from(v).pow(2)])
            };
            pixels.chunks_exact(area).map(sums).collect()
        };
        let add = |mut sums: Vec<[u64; 2]>, more: Vec<[u64; 2]>| {
            sums.iter_mut().zip(more).for_each(|(sums, more)| *sums = [sums[0] + more[0], sums[1] + more[1]]);
            sums
        };
        let none = || vec![[0u64; 2]; channels];
        let bytes = |sums: Vec<[u64; 2]>| -> Vec<[f64; 2]> {
            sums.into_iter().map(|[sum, squares]| [sum as f64 / 255.0, squares as f64 / (255.0 * 255.0)]).collect()
        };
        let sums: Vec<[f64; 2]> = match &self.pixels {
            Pixels::U8(values) => bytes(values.par_chunks_exact(self.shape.len()).map(of_bytes).reduce(none, add)),
            Pixels::Files(files) => {
                let images = (0..self.len()).into_par_iter();
                bytes(images.map(|image| files.with_pixels(image, of_bytes)).reduce(none, add))
            }
            Pixels::F32(values) => {
                // One channel after the other, in the order of the images.
                let of_channel = |channel: usize| {
                    let planes = values.chunks_exact(area).skip(channel).step_by(channels);
                    planes.flatten().fold([0.0f64; 2], |[sum, squares], &v| {
                        let v = f64::from(v);
                        [sum + v, squares + v * v]
                    })
                };
                (0..channels).into_par_iter().map(of_channel).collect()
            }
        };
        let count = (self.len() * area).max(1) as f64;
        let (mean, deviation) = sums
            .into_iter()
            .map(|[sum, squares]| {
                let mean = sum / count;
                let deviation = (squares / count - mean * mean).max(0.0).sqrt();
                (mean as f32, if deviation > 1e-6 { deviation as f32 } else { 1.0 })
            })
            .unzip();
        Normalization { mean, deviation }
    }

    /// [`Dataset::gather`] with the images changed by `augment` before they are scaled: image `i` as
    /// [`Augment::apply`] changes it under `seed` in `epoch`, wherever it stands in `indices`; none is mixed with others.
    /// `i` plus any multiple of [`Dataset::len`] is image `i` changed otherwise, for images that an epoch takes repeatedly.
    ///
    /// Allocates nothing but, once a thread, room for an image. [`Pixels::F32`] are changed as they are; they should lie
    /// between 0 and 1.
    ///
    /// # Panics
    /// The data set is empty, or `out` does not hold exactly `indices.len()` images.
    pub fn gather_augmented(
        &self,
        indices: &[usize],
        scale: &Normalization,
        augment: &Augment,
        seed: u64,
        epoch: usize,
        out: &mut [f32],
    ) {
        assert_eq!(out.len(), indices.len() * self.shape.len(), "the buffer must hold the images asked for, no more");
        let images = indices.iter().map(|index| index % self.len());
        if augment.is_none() {
            return self.gather_with(images, scale, out);
        }
        // Empty lists mean 0 and 1, and allocate nothing.
        self.gather_with(images, &Normalization { mean: Vec::new(), deviation: Vec::new() }, out);
        let (image, plane) = (self.shape.len(), self.shape.area());
        with_scratch(image, |scratch| {
            for (&index, out) in indices.iter().zip(out.chunks_exact_mut(image)) {
                augment.apply(seed, epoch, index, self.shape, out, scratch);
                vectorize(|| {
                    let planes = out.chunks_exact_mut(plane).enumerate();
                    planes.for_each(|(channel, values)| scale.apply_in_place(channel, values));
                });
            }
        });
    }

    /// The images in `range` as an array (N, C, H, W), scaled by `scale`.
    ///
    /// # Panics
    /// The range ends beyond [`Dataset::len`].
    pub fn batch(&self, range: Range<usize>, scale: &Normalization) -> Array4<f32> {
        let mut out = Array4::zeros((range.len(), self.shape.channels, self.shape.height, self.shape.width));
        if let Some(out) = out.as_slice_mut() {
            self.gather_with(range, scale, out);
        }
        out
    }

    /// The first `n` images, or all if there are fewer.
    pub fn head(&self, n: usize) -> Dataset {
        let n = n.min(self.len());
        let end = n * self.shape.len();
        Self {
            name: self.name.clone(),
            shape: self.shape,
            pixels: match &self.pixels {
                Pixels::U8(values) => Pixels::U8(values[..end].to_vec()),
                Pixels::F32(values) => Pixels::F32(values[..end].to_vec()),
                Pixels::Files(files) => Pixels::Files(files.subset(0..n)),
            },
            labels: self.labels[..n].to_vec(),
            class_names: self.class_names.clone(),
            paths: self.paths.iter().take(n).cloned().collect(),
        }
    }

    /// The images at `indices`, in that order; an index may occur more than once.
    ///
    /// # Panics
    /// An index is not below [`Dataset::len`].
    pub fn subset(&self, indices: &[usize]) -> Dataset {
        Self {
            name: self.name.clone(),
            shape: self.shape,
            pixels: match &self.pixels {
                Pixels::U8(values) => Pixels::U8(select(values, indices, self.shape.len())),
                Pixels::F32(values) => Pixels::F32(select(values, indices, self.shape.len())),
                Pixels::Files(files) => Pixels::Files(files.subset(indices.iter().copied())),
            },
            labels: indices.iter().map(|&index| self.labels[index]).collect(),
            class_names: self.class_names.clone(),
            paths: indices.iter().filter_map(|&index| self.paths.get(index).cloned()).collect(),
        }
    }

    fn gather_with(&self, indices: impl Iterator<Item = usize>, scale: &Normalization, out: &mut [f32]) {
        let (image, plane) = (self.shape.len(), self.shape.area());
        if let Pixels::Files(files) = &self.pixels {
            for (index, target) in indices.zip(out.chunks_exact_mut(image)) {
                files.with_pixels(index, |pixels| {
                    vectorize(|| {
                        let planes = target.chunks_exact_mut(plane).zip(pixels.chunks_exact(plane)).enumerate();
                        planes.for_each(|(channel, (out, pixels))| scale.apply_u8(channel, pixels, out));
                    });
                });
            }
            return;
        }
        vectorize(|| {
            for (index, target) in indices.zip(out.chunks_exact_mut(image)) {
                let planes = target.chunks_exact_mut(plane).enumerate();
                match &self.pixels {
                    Pixels::U8(values) => {
                        let source = values[index * image..][..image].chunks_exact(plane);
                        planes.zip(source).for_each(|((channel, out), pixels)| scale.apply_u8(channel, pixels, out));
                    }
                    Pixels::F32(values) => {
                        let source = values[index * image..][..image].chunks_exact(plane);
                        planes.zip(source).for_each(|((channel, out), values)| scale.apply_f32(channel, values, out));
                    }
                    // Done above.
                    Pixels::Files(_) => {}
                }
            }
        });
    }
}

thread_local! {
    static SCRATCH: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Lends room for one image of `len` numbers, which are anything; allocates once a thread.
fn with_scratch(len: usize, body: impl FnOnce(&mut [f32])) {
    SCRATCH.with(|shared| {
        let mut scratch = shared.take();
        if scratch.len() < len {
            scratch.resize(len, 0.0);
        }
        body(&mut scratch[..len]);
        shared.set(scratch);
    });
}

const ARRAYS: &str = "arrays";

fn select<T: Copy>(values: &[T], indices: &[usize], image: usize) -> Vec<T> {
    let mut selected = Vec::with_capacity(indices.len() * image);
    for &index in indices {
        selected.extend_from_slice(&values[index * image..][..image]);
    }
    selected
}

/// Every label must be below `classes`.
fn check_labels(name: &str, labels: impl Iterator<Item = usize>, classes: usize) -> Result<(), DataError> {
    match labels.enumerate().find(|&(_, label)| label >= classes) {
        Some((sample, label)) => Err(DataError::Label { name: name.into(), sample, label, classes }),
        None => Ok(()),
    }
}

/// Every number must be finite; `image` numbers make one image.
fn check_finite(name: &str, values: &[f32], image: usize) -> Result<(), DataError> {
    match values.iter().position(|value| !value.is_finite()) {
        Some(at) => Err(DataError::NotFinite {
            name: name.into(),
            value: values[at],
            sample: at / image.max(1),
            position: at % image.max(1),
        }),
        None => Ok(()),
    }
}

/// What can be wrong with data. Every message names the file (or the dataset, if it never was a file).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file that must be there is not.
    #[error("{}: no {what} here; looked for {}", directory.display(), names.join(", "))]
    NotFound {
        /// The directory searched.
        directory: PathBuf,
        /// What the file would hold.
        what: &'static str,
        /// The names that would have done.
        names: Vec<String>,
    },
    /// The operating system refused.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// Its reason.
        source: io::Error,
    },
    /// Something else stands where a file must be.
    #[error("{}: this is {found}; a regular file is needed", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What is there.
        found: &'static str,
    },
    /// A path or symbolic link that leaves the data directory.
    #[error("{}: this leads out of the data directory, to {}; copy the file into the directory", path.display(), target.display())]
    OutsideLink {
        /// The path or link.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// Not an IDX file.
    #[error(
        "{}: this is not an IDX file: it starts with the bytes {found:02x?}, and an IDX file with two zeros, \
         the element type and the number of sizes", path.display()
    )]
    Magic {
        /// The file.
        path: PathBuf,
        /// Its first bytes.
        found: [u8; 4],
    },
    /// IDX elements of a kind that is not read here.
    #[error("{}: the elements are of type 0x{found:02x} ({}); {expected} can be read", path.display(), idx::type_name(*found))]
    ElementType {
        /// The file.
        path: PathBuf,
        /// The type found.
        found: u8,
        /// The types that can be read.
        expected: &'static str,
    },
    /// An IDX file with another number of sizes.
    #[error("{}: the array has {found} dimensions; {expected} are needed", path.display())]
    Dimensions {
        /// The file.
        path: PathBuf,
        /// The number found.
        found: u8,
        /// The number needed.
        expected: &'static str,
    },
    /// A header with a zero.
    #[error("{}: the header says {sizes:?}, and a size of 0 means that there is no data", path.display())]
    ZeroSize {
        /// The file.
        path: PathBuf,
        /// The sizes of the header.
        sizes: Vec<u32>,
    },
    /// A header that asks for more than the file can possibly hold, or than is sensible.
    #[error("{}: the header says {sizes:?}, which is more than {reason}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The sizes of the header.
        sizes: Vec<u32>,
        /// The limit that is exceeded.
        reason: String,
    },
    /// A file that ends early.
    #[error("{}: the file ends too early: {found} bytes instead of {expected}; it is cut, copy or download it again", path.display())]
    Short {
        /// The file.
        path: PathBuf,
        /// Bytes found (after unpacking, if it is packed).
        found: u64,
        /// Bytes that the header asks for.
        expected: u64,
    },
    /// A file that goes on after its end.
    #[error("{}: {found} instead of the {expected} bytes that its header asks for", path.display())]
    Trailing {
        /// The file.
        path: PathBuf,
        /// What was found.
        found: String,
        /// Bytes that the header asks for.
        expected: u64,
    },
    /// A gzip file that does not unpack.
    #[error("{}: the gzip file does not unpack: {source}; it is damaged, copy or download it again", path.display())]
    Gzip {
        /// The file.
        path: PathBuf,
        /// The decoder's reason.
        source: io::Error,
    },
    /// Not as many labels as images.
    #[error("{}: {labels} labels, but {} holds {images} images; the two files do not belong together",
        labels_path.display(), images_path.display())]
    CountMismatch {
        /// The file of images.
        images_path: PathBuf,
        /// Its count.
        images: usize,
        /// The file of labels.
        labels_path: PathBuf,
        /// Its count.
        labels: usize,
    },
    /// Images to train and to test with that differ in size.
    #[error("{}: the images are {test}, but those of {} are {train}; both must have one size",
        test_path.display(), train_path.display())]
    SplitMismatch {
        /// The file of training images.
        train_path: PathBuf,
        /// Their size.
        train: Shape,
        /// The file of test images.
        test_path: PathBuf,
        /// Their size.
        test: Shape,
    },
    /// Class names that cannot be used.
    #[error("{}: {reason}; write one class name a line, at most {} of at most {} bytes",
        path.display(), idx::MAX_CLASSES, idx::MAX_CLASS_NAME)]
    ClassNames {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A label outside the classes.
    #[error("{name}: the label of sample {sample} is {label}, but the classes are 0 to {}", classes.saturating_sub(1))]
    Label {
        /// The file or dataset.
        name: String,
        /// Number of the image.
        sample: usize,
        /// Its label.
        label: usize,
        /// Number of classes.
        classes: usize,
    },
    /// An input that is infinite or not a number.
    #[error("{name}: sample {sample} holds {value} at position {position}; every number must be finite")]
    NotFinite {
        /// The file or dataset.
        name: String,
        /// Number of the image.
        sample: usize,
        /// Position within the image, in (C, H, W) order.
        position: usize,
        /// The number found.
        value: f32,
    },
    /// A dataset without something that it must have.
    #[error("{name}: there are no {what}; at least one is needed")]
    Empty {
        /// The dataset.
        name: String,
        /// What is missing.
        what: &'static str,
    },
    /// A shape that no machine can hold.
    #[error("{name}: {source}")]
    Shape {
        /// The dataset.
        name: String,
        /// Its reason.
        source: ShapeError,
    },
    /// Pixels and labels do not agree.
    #[error("{name}: {images} labels for images of {shape} need {expected} numbers, but there are {found}")]
    Count {
        /// The dataset.
        name: String,
        /// Number of labels.
        images: usize,
        /// Size of an image.
        shape: Shape,
        /// Numbers needed.
        expected: usize,
        /// Numbers found.
        found: usize,
    },
    /// The memory does not suffice.
    #[error("{name}: {bytes} bytes of memory are needed and cannot be had; use fewer or smaller images")]
    Memory {
        /// The file or dataset.
        name: String,
        /// Bytes asked for.
        bytes: u64,
    },
    /// Bytes that are no image of a known kind.
    #[error("{name}: this is not a PNG, JPEG, WebP, GIF or BMP image (the file's contents count, not its name)")]
    UnknownFormat {
        /// The file.
        name: String,
    },
    /// An image file that ends early.
    #[error("{name}: the image is cut: {reason}; copy or download it again")]
    Truncated {
        /// The file.
        name: String,
        /// What is missing.
        reason: String,
    },
    /// A file larger than any of its kind.
    #[error("{}: the file is {found} bytes long; at most {limit} are read", path.display())]
    FileTooLarge {
        /// The file.
        path: PathBuf,
        /// Its length.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// Directories or a list that do not make a data set of images.
    #[error("{}: {reason}", path.display())]
    Layout {
        /// The directory or file.
        path: PathBuf,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// A line of a list of images that cannot be understood.
    #[error("{}, line {line}: {reason}", path.display())]
    List {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// An image larger than anybody needs here.
    #[error("{name}: the image claims {width} x {height} pixels, which is more than {limit}; make it smaller")]
    ImageTooLarge {
        /// The file.
        name: String,
        /// Claimed columns.
        width: u32,
        /// Claimed rows.
        height: u32,
        /// The limit that is exceeded.
        limit: &'static str,
    },
    /// An image that does not decode.
    #[error("{name}: the image does not decode: {source}")]
    Image {
        /// The file.
        name: String,
        /// The decoder's reason.
        source: image::ImageError,
    },
    /// A name that nothing has.
    #[error("there is no {what} {name:?}; known: {known}")]
    Unknown {
        /// What was looked for.
        what: &'static str,
        /// What was asked for.
        name: String,
        /// What could have been asked for.
        known: String,
    },
    /// An option that cannot be used.
    #[error("{of}: {field} is {found}; it must be {expected}")]
    Option {
        /// What it is an option of.
        of: &'static str,
        /// Which option.
        field: &'static str,
        /// What was given.
        found: String,
        /// What is allowed.
        expected: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiny() -> Dataset {
        let pixels = Pixels::U8((0..3 * 2 * 4).map(|v| v * 10).collect());
        Dataset::new("tiny", Shape::new(2, 2, 2), pixels, vec![0, 2, 1], one_class_names(3)).unwrap()
    }

    #[test]
    fn gather_scales_exactly_and_per_channel() {
        let data = tiny();
        let scale = Normalization { mean: vec![0.5, 0.25], deviation: vec![0.5, 2.0] };
        let mut out = vec![f32::NAN; 16];
        data.gather(&[2, 0], &scale, &mut out);
        let Pixels::U8(pixels) = data.pixels() else { unreachable!() };
        for (slot, image) in [2, 0].into_iter().enumerate() {
            for position in 0..8 {
                let channel = position / 4;
                let expected =
                    (f32::from(pixels[image * 8 + position]) / 255.0 - scale.mean[channel]) / scale.deviation[channel];
                assert_eq!(out[slot * 8 + position], expected);
            }
        }
        let batch = data.batch(1..3, &scale);
        assert_eq!(batch.dim(), (2, 2, 2, 2));
        assert_eq!(batch.iter().copied().take(4).collect::<Vec<_>>(), {
            let mut one = vec![0.0; 8];
            data.gather(&[1], &scale, &mut one);
            one[..4].to_vec()
        });
    }

    #[test]
    fn one_number_for_all_channels() {
        let data = tiny();
        let (mut one, mut both) = (vec![0.0; 8], vec![0.0; 8]);
        data.gather(&[1], &Normalization { mean: vec![0.1], deviation: vec![0.3] }, &mut one);
        data.gather(&[1], &Normalization { mean: vec![0.1; 2], deviation: vec![0.3; 2] }, &mut both);
        assert_eq!(one, both);
    }

    #[test]
    fn floats_skip_the_division_by_255() {
        let x = Array4::from_shape_fn((2, 1, 1, 3), |(n, _, _, i)| (n * 3 + i) as f32);
        let data = Dataset::from_arrays(x, vec![0, 1], one_class_names(2)).unwrap();
        let mut out = [0.0; 3];
        data.gather(&[1], &Normalization::identity(), &mut out);
        assert_eq!(out, [3.0, 4.0, 5.0]);
        data.gather(&[1], &Normalization { mean: vec![1.0], deviation: vec![2.0] }, &mut out);
        assert_eq!(out, [1.0, 1.5, 2.0]);
    }

    #[test]
    fn arrays_of_any_layout() {
        let x = Array4::from_shape_fn((4, 3, 2, 5), |(n, c, h, w)| (n * 1000 + c * 100 + h * 10 + w) as f32);
        let mut transposed = x.clone();
        transposed.swap_axes(2, 3);
        let data = Dataset::from_arrays(transposed.clone(), vec![0; 4], one_class_names(1)).unwrap();
        assert_eq!(data.shape(), Shape::new(3, 5, 2));
        assert_eq!(data.batch(0..4, &Normalization::identity()), transposed);
        let mut sliced = x.clone();
        sliced.slice_axis_inplace(ndarray::Axis(0), ndarray::Slice::from(1..3));
        let data = Dataset::from_arrays(sliced.clone(), vec![0; 2], one_class_names(1)).unwrap();
        assert_eq!(data.batch(0..2, &Normalization::identity()), sliced);
        let error = Dataset::from_arrays(x, vec![0; 3], one_class_names(1)).unwrap_err();
        assert!(matches!(error, DataError::Count { .. }), "{error}");
    }

    #[test]
    fn head_and_subset() {
        let data = tiny();
        assert_eq!(data.head(100), data);
        assert!(data.head(0).is_empty());
        assert_eq!(data.head(2).labels(), [0, 2]);
        let subset = data.subset(&[2, 2, 0]);
        assert_eq!(subset.labels(), [1, 1, 0]);
        assert_eq!(subset.batch(1..2, &Normalization::identity()), data.batch(2..3, &Normalization::identity()));
    }

    #[test]
    fn faults_are_named() {
        let shape = Shape::new(1, 1, 2);
        let new = |shape, pixels, labels, classes| {
            Dataset::new("digits", shape, pixels, labels, one_class_names(classes)).unwrap_err().to_string()
        };
        let message = new(shape, Pixels::U8(vec![0; 5]), vec![0, 1], 2);
        assert_eq!(message, "digits: 2 labels for images of 1 x 1 x 2 need 4 numbers, but there are 5");
        let message = new(shape, Pixels::U8(vec![0; 4]), vec![0, 2], 2);
        assert_eq!(message, "digits: the label of sample 1 is 2, but the classes are 0 to 1");
        let message = new(shape, Pixels::F32(vec![0.0, 1.0, 2.0, f32::NAN]), vec![0, 1], 2);
        assert_eq!(message, "digits: sample 1 holds NaN at position 1; every number must be finite");
        let message = new(shape, Pixels::U8(vec![]), vec![], 2);
        assert_eq!(message, "digits: there are no images; at least one is needed");
        let message = new(Shape::new(1, 0, 2), Pixels::U8(vec![]), vec![0], 2);
        assert_eq!(message, "digits: there are no rows; at least one is needed");
        let message = new(Shape::new(usize::MAX / 2, usize::MAX / 2, 1), Pixels::U8(vec![]), vec![0], 2);
        assert!(message.contains("too large"), "{message}");
    }
}
