//! Random changes of training images, so that a network meets each image in many guises.
//!
//! An [`Augment`] is a list of [`Transform`]s, applied in its order. Every choice is a function of the seed, the epoch,
//! the number of the image and the place of the transform in the list, and of nothing else: the same images come out
//! whatever the number of threads, the batch, or the step at which a run was resumed. `mixup` and `cutmix` alone need a
//! batch, out of which an image gets a [`partner`]; wherever they stand in the list, they come last.
//!
//! ```
//! use striate::data::augment::Augment;
//! use striate::shape::Shape;
//! let augment: Augment = "flip,crop:padding=4,affine:rotate=10;scale=0.1;shift=0.08".parse()?;
//! let mut image = vec![0.5; 28 * 28];
//! let mut scratch = vec![0.0; 28 * 28];
//! augment.apply(1, 0, 42, Shape::new(1, 28, 28), &mut image, &mut scratch);
//! assert!(image.iter().all(|value| (0.0..=1.0).contains(value)));
//! # Ok::<(), striate::data::DataError>(())
//! ```

mod colour;
mod geometry;
mod mix;
mod transform;
mod views;

pub use mix::partner;
pub use transform::{Fill, Transform};
pub use views::Views;

use super::{DataError, Dataset, Pixels};
use crate::{
    random::{Purpose, Random},
    shape::Shape,
};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// The most transforms of one list.
pub const MAX_TRANSFORMS: usize = 16;

/// Transforms in the order in which they are applied; none at all leaves images as they are.
///
/// Written `none`, or with commas between: `flip,crop:padding=2;fill=reflect`. Options left out have their usual values.
/// Serialised as that text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Augment {
    transforms: Vec<Transform>,
}

impl Augment {
    /// These transforms, in this order.
    ///
    /// # Errors
    /// More than [`MAX_TRANSFORMS`], or an option out of its range.
    pub fn new(transforms: Vec<Transform>) -> Result<Self, DataError> {
        if transforms.len() > MAX_TRANSFORMS {
            return Err(DataError::Option {
                of: "augmentation",
                field: "number of transforms",
                found: transforms.len().to_string(),
                expected: format!("at most {MAX_TRANSFORMS}"),
            });
        }
        transforms.iter().try_for_each(Transform::validate)?;
        Ok(Self { transforms })
    }

    /// No change at all.
    pub fn none() -> Self {
        Self::default()
    }

    /// What suits images like these.
    ///
    /// | images | augmentation |
    /// |---|---|
    /// | written characters ([`Dataset::shows_characters`]) | small rotations, scalings, slants and shifts, small parts erased; a mirrored 3 is no 3 |
    /// | other grey ones up to 32 x 32 | flips, and crops with a fourteenth of the side as padding (2 for 28 x 28) |
    /// | any others up to 96 pixels a side | flips, and crops with an eighth of the side as padding (4 for 32 x 32) |
    /// | larger ones | flips, resized crops; a little colour where there is some |
    /// | numbers that are no pixels | none |
    pub fn default_for(data: &Dataset) -> Self {
        let Shape { channels, height, width } = data.shape();
        let side = height.max(width);
        let by_name = |names: &[&str]| names.iter().filter_map(|name| Transform::by_name(name).ok()).collect();
        let transforms = match data.pixels() {
            Pixels::F32(_) => Vec::new(),
            _ if data.shows_characters() => vec![
                Transform::Affine { rotate: 10.0, scale: 0.12, shear: 10.0, shift: 0.08, fill: Fill::Zero },
                Transform::Erase { probability: 0.5, share: 0.1 },
            ],
            _ if channels == 1 && side <= 32 => vec![
                Transform::Flip { probability: 0.5 },
                Transform::Crop { padding: (side / 14) as u32, fill: Fill::Zero },
            ],
            _ if side <= 96 => vec![
                Transform::Flip { probability: 0.5 },
                Transform::Crop { padding: (side / 8) as u32, fill: Fill::Reflect },
            ],
            _ if channels == 3 => by_name(&["flip", "resized-crop", "colour"]),
            _ => by_name(&["flip", "resized-crop"]),
        };
        Self { transforms }
    }

    /// The transforms, in order.
    pub fn transforms(&self) -> &[Transform] {
        &self.transforms
    }

    /// Whether nothing is changed.
    pub fn is_none(&self) -> bool {
        self.transforms.is_empty()
    }

    /// Changes one image (C, H, W) of numbers from 0 to 1, which stay between 0 and 1.
    ///
    /// What is done depends on `seed`, `epoch` (below 2^24) and `sample`, the image's number in its dataset (below 2^32).
    /// Allocates nothing; what `scratch` holds before does not matter.
    ///
    /// # Panics
    /// `pixels` does not hold one image of this shape, or `scratch` less.
    pub fn apply(&self, seed: u64, epoch: usize, sample: usize, shape: Shape, pixels: &mut [f32], scratch: &mut [f32]) {
        assert_eq!(pixels.len(), shape.len(), "the buffer must hold one image");
        assert!(scratch.len() >= shape.len(), "the scratch buffer must hold one image");
        if shape.is_empty() {
            return;
        }
        let scratch = &mut scratch[..shape.len()];
        // The number of the sample in the low half, as `Random` has room for 24 bits above.
        let random = Random::new(seed, Purpose::Augment, (epoch as u64) << 32 | (sample as u64 & 0xFFFF_FFFF));
        for (place, transform) in self.transforms.iter().enumerate() {
            transform.apply(&mut Draws::new(random, place), shape, pixels, scratch);
        }
    }
}

impl fmt::Display for Augment {
    /// What `parse` reads back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_none() {
            return f.write_str("none");
        }
        for (at, transform) in self.transforms.iter().enumerate() {
            write!(f, "{}{transform}", if at > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

impl FromStr for Augment {
    type Err = DataError;

    /// Reads `none`, or transforms with commas between.
    fn from_str(text: &str) -> Result<Self, DataError> {
        if text == "none" {
            return Ok(Self::none());
        }
        Self::new(text.split(',').map(str::parse).collect::<Result<_, _>>()?)
    }
}

impl TryFrom<String> for Augment {
    type Error = DataError;

    fn try_from(text: String) -> Result<Self, DataError> {
        text.parse()
    }
}

impl From<Augment> for String {
    fn from(augment: Augment) -> Self {
        augment.to_string()
    }
}

/// The random numbers of one transform of one image, one after another.
struct Draws {
    random: Random,
    block: u64,
    left: std::array::IntoIter<u32, 4>,
}

impl Draws {
    /// More blocks of four numbers than any transform draws.
    const BLOCKS: u64 = 4;

    fn new(random: Random, place: usize) -> Self {
        let mut left = [0; 4].into_iter();
        left.by_ref().for_each(drop);
        Self { random, block: place as u64 * Self::BLOCKS, left }
    }

    /// Uniform in [0, 1).
    fn uniform(&mut self) -> f32 {
        if self.left.len() == 0 {
            self.left = self.random.block(self.block).into_iter();
            self.block += 1;
        }
        let bits = self.left.next().unwrap_or(0);
        (bits >> 8) as f32 * (1.0 / 16_777_216.0)
    }

    fn between(&mut self, low: f32, high: f32) -> f32 {
        (low + (high - low) * self.uniform()).clamp(low, high)
    }

    /// A whole number from 0 to `most`, which is at most a few thousand.
    fn up_to(&mut self, most: usize) -> usize {
        ((self.uniform() * (most + 1) as f32) as usize).min(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_of_two_places_differ() {
        let random = Random::new(1, Purpose::Test, 0);
        let draw = |place| {
            let mut draws = Draws::new(random, place);
            [(); 16].map(|()| draws.uniform())
        };
        let (first, second) = (draw(0), draw(1));
        assert_eq!(first[5], random.uniform(5), "the numbers are those of `Random`");
        assert!(first.iter().all(|value| !second.contains(value)));
    }
}
