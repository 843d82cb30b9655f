//! MNIST, which is built in, as data of the engine: for the page, and for the command line's `--data mnist`.

use striate::data::{DataError, Dataset, Pixels, Splits, one_class_names};
use striate::shape::Shape;
use striate_mnist::{Mnist, MnistError};

/// The name that `--data` knows it by.
pub const NAME: &str = "mnist";
/// An image's.
pub const SHAPE: Shape = Shape::new(1, striate_mnist::ROWS, striate_mnist::COLUMNS);
/// The digits 0 to 9.
pub const CLASSES: usize = striate_mnist::CLASSES;

/// Why the built-in data can't be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuiltInError {
    /// It does not unpack.
    #[error(transparent)]
    Mnist(#[from] MnistError),
    /// It is no data set.
    #[error(transparent)]
    Data(#[from] DataError),
}

/// One of the two parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// 60,000 images.
    Train,
    /// 10,000 images.
    Test,
}

impl Part {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Train, Self::Test];

    /// `train` or `test`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Test => "test",
        }
    }

    /// Its images as they are, unpacked once.
    ///
    /// # Errors
    /// The compiled-in data is damaged.
    pub fn digits(self) -> Result<&'static Mnist, MnistError> {
        match self {
            Self::Train => striate_mnist::train(),
            Self::Test => striate_mnist::test(),
        }
    }

    /// The same as a data set, which owns a copy.
    ///
    /// ```
    /// use striate_web::mnist::Part;
    /// let test = Part::Test.dataset()?;
    /// assert_eq!((test.len(), test.name(), test.labels()[0]), (10_000, "mnist:test", 7));
    /// # Ok::<(), striate_web::mnist::BuiltInError>(())
    /// ```
    ///
    /// # Errors
    /// The compiled-in data is damaged.
    pub fn dataset(self) -> Result<Dataset, BuiltInError> {
        let Mnist { images, labels } = self.digits()?;
        let labels = labels.iter().map(|&label| label.into()).collect();
        let (name, pixels) = (format!("{NAME}:{}", self.name()), Pixels::U8(images.clone()));
        Ok(Dataset::new(name, SHAPE, pixels, labels, one_class_names(CLASSES))?)
    }
}

/// Both parts as data sets.
///
/// # Errors
/// The compiled-in data is damaged.
pub fn splits() -> Result<Splits, BuiltInError> {
    Ok(Splits { train: Part::Train.dataset()?, test: Part::Test.dataset()? })
}
