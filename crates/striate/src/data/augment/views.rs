//! One image in several guises for a network that is being tested.

use super::Fill;
use super::geometry::{flip, shifted};
use crate::data::DataError;
use crate::shape::Shape;
use std::str::FromStr;

/// How many guises of an image a network is shown, the mean of whose logits is its answer (test-time augmentation;
/// Krizhevsky, Sutskever and Hinton 2012, section 4.1: "ten patches").
///
/// ```
/// use striate::data::augment::Views;
/// assert_eq!("10".parse::<Views>()?, Views::Ten);
/// assert_eq!([Views::One, Views::Mirrored, Views::Ten].map(Views::count), [1, 2, 10]);
/// # Ok::<(), striate::data::DataError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Views {
    /// The image as it is.
    #[default]
    One,
    /// The image and its mirror image.
    Mirrored,
    /// The image, moved towards each of its corners by a sixteenth of its height and width, reflected at the edges, and
    /// the mirror images of the five.
    Ten,
}

impl Views {
    /// The number of guises.
    pub const fn count(self) -> usize {
        match self {
            Self::One => 1,
            Self::Mirrored => 2,
            Self::Ten => 10,
        }
    }

    /// Writes guise `view` (below [`Views::count`]) of every image (C, H, W) of `from` into `to`; the first is the image
    /// itself.
    pub(crate) fn show(self, view: usize, shape: Shape, from: &[f32], to: &mut [f32]) {
        let (down, right) = ((shape.height / 16) as isize, (shape.width / 16) as isize);
        let (down, right) = match view / 2 {
            0 => (0, 0),
            1 => (-down, -right),
            2 => (-down, right),
            3 => (down, -right),
            _ => (down, right),
        };
        shifted(shape, from, to, down, right, Fill::Reflect);
        if view % 2 == 1 {
            flip(to, shape.width);
        }
    }
}

impl FromStr for Views {
    type Err = DataError;

    /// Reads the number of guises.
    fn from_str(text: &str) -> Result<Self, DataError> {
        match text {
            "1" => Ok(Self::One),
            "2" => Ok(Self::Mirrored),
            "10" => Ok(Self::Ten),
            _ => Err(DataError::Option {
                of: "evaluation",
                field: "views",
                found: text.into(),
                expected: "1, 2 (with the mirror image) or 10 (five places and their mirror images)".into(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_view_differs_and_the_first_is_the_image() {
        let shape = Shape::new(2, 16, 17);
        let image: Vec<f32> = (0..shape.len()).map(|at| at as f32).collect();
        let view = |view| {
            let mut pixels = vec![f32::NAN; shape.len()];
            Views::Ten.show(view, shape, &image, &mut pixels);
            pixels
        };
        let views: Vec<_> = (0..Views::Ten.count()).map(view).collect();
        assert_eq!(views[0], image);
        for (at, one) in views.iter().enumerate() {
            assert!(views[..at].iter().all(|other| other != one), "view {at} is there twice");
        }
        // Mirrored: a row backwards. Moved by one: the pixel below and to the right of the first stands first.
        assert_eq!(views[1][0], 16.0);
        assert_eq!(views[8][0], 18.0);
        assert_eq!(views[2][18], 0.0);
    }

    #[test]
    fn numbers_of_views() {
        assert!("3".parse::<Views>().unwrap_err().to_string().contains("10 (five places"));
    }
}
