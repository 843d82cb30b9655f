//! Random changes of training images, so that a network meets each image in many guises.
//!
//! An [`Augment`] is a list of [`Transform`]s, applied in its order. Every choice is a function of the seed, the epoch,
//! the number of the image and the place of the transform in the list, and of nothing else: the same images come out
//! whatever the number of threads, the batch, or the step at which a run was resumed.
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

use super::{DataError, Dataset, Pixels};
use crate::{
    kernels::isa::vectorized,
    random::{Purpose, Random},
    shape::Shape,
};
use serde::{Deserialize, Serialize};
use std::{fmt, ops::RangeInclusive, str::FromStr};

/// The most transforms of one list.
pub const MAX_TRANSFORMS: usize = 16;

/// What stands beyond the edges of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fill {
    /// Black.
    #[default]
    Zero,
    /// The image in a mirror that stands in the middle of the outermost pixels: `c b | a b c | b a`.
    Reflect,
}

/// One random change. Lengths are in pixels, angles in degrees, shares between 0 and 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Transform {
    /// Left becomes right.
    Flip {
        /// How often; usually 0.5.
        probability: f32,
    },
    /// The image is moved by up to `padding` pixels in each direction (a crop out of the padded image).
    Crop {
        /// Pixels added on each side; usually 4.
        padding: u32,
        /// What they are.
        fill: Fill,
    },
    /// A part of the image is enlarged to the whole (Szegedy et al., 2015, "Going Deeper with Convolutions"): its share
    /// of the area is uniform in [area, 1], the logarithm of its ratio of width to height (in units of the image's) uniform in
    /// [-ln ratio, ln ratio]. A side that would be longer than the image's is cut to it.
    ResizedCrop {
        /// The least share of the area; usually 0.35.
        area: f32,
        /// The largest ratio; usually 4/3.
        ratio: f32,
    },
    /// The image is sheared, scaled and turned about its middle, then moved; bilinear interpolation.
    Affine {
        /// Turned by up to so many degrees either way.
        rotate: f32,
        /// Scaled by a factor in [1 - scale, 1 + scale].
        scale: f32,
        /// Rows are slanted by up to so many degrees either way.
        shear: f32,
        /// Moved by up to this share of the width, and of the height, either way.
        shift: f32,
        /// What appears at the edges.
        fill: Fill,
    },
    /// Brightness, contrast and saturation are multiplied, in this order, each by a factor in [1 - x, 1 + x]; what leaves
    /// [0, 1] is cut off. Saturation changes images of three channels only.
    Colour {
        /// `x` of the brightness.
        brightness: f32,
        /// `x` of the distance from the mean brightness.
        contrast: f32,
        /// `x` of the distance from the pixel's grey.
        saturation: f32,
    },
    /// A rectangle becomes flat (Zhong et al., 2020, "Random Erasing Data Augmentation"): its share of the area is uniform
    /// in [0, share], its ratio log-uniform in [0.3, 1 / 0.3], its place uniform. It gets each channel's mean, which looks
    /// like nothing under any normalization.
    Erase {
        /// How often; usually 0.5.
        probability: f32,
        /// The largest share of the area; usually 0.2.
        share: f32,
    },
    /// A square becomes flat (DeVries and Taylor, 2017, "Improved Regularization of Convolutional Neural Networks with
    /// Cutout"): its middle is any pixel, so parts of it may lie outside. It gets each channel's mean.
    Cutout {
        /// Rows and columns; usually 8.
        side: u32,
    },
}

/// A value of an option, to read or change, and its range.
enum Setting<'a> {
    Number(&'a mut f32, RangeInclusive<f32>),
    Whole(&'a mut u32, RangeInclusive<u32>),
    Fill(&'a mut Fill),
}

impl Setting<'_> {
    /// Takes the value that a text means, if it means one.
    fn parse(&mut self, text: &str) -> bool {
        match self {
            Setting::Number(value, _) => text.parse().map(|new| **value = new).is_ok(),
            Setting::Whole(value, _) => text.parse().map(|new| **value = new).is_ok(),
            Setting::Fill(value) => [("zero", Fill::Zero), ("reflect", Fill::Reflect)]
                .into_iter()
                .find(|(name, _)| *name == text)
                .map(|(_, new)| **value = new)
                .is_some(),
        }
    }

    fn is_in_range(&self) -> bool {
        match self {
            Setting::Number(value, range) => range.contains(value),
            Setting::Whole(value, range) => range.contains(value),
            Setting::Fill(_) => true,
        }
    }

    fn expected(&self) -> String {
        match self {
            Setting::Number(_, range) => format!("a number from {} to {}", range.start(), range.end()),
            Setting::Whole(_, range) => format!("a whole number from {} to {}", range.start(), range.end()),
            Setting::Fill(_) => "zero or reflect".into(),
        }
    }
}

impl fmt::Display for Setting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Setting::Number(value, _) => value.fmt(f),
            Setting::Whole(value, _) => value.fmt(f),
            Setting::Fill(Fill::Zero) => f.write_str("zero"),
            Setting::Fill(Fill::Reflect) => f.write_str("reflect"),
        }
    }
}

impl Transform {
    /// The names that `parse` knows.
    pub const NAMES: &[&str] = &["flip", "crop", "resized-crop", "affine", "colour", "erase", "cutout"];

    /// The name, as `parse` takes it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Flip { .. } => "flip",
            Self::Crop { .. } => "crop",
            Self::ResizedCrop { .. } => "resized-crop",
            Self::Affine { .. } => "affine",
            Self::Colour { .. } => "colour",
            Self::Erase { .. } => "erase",
            Self::Cutout { .. } => "cutout",
        }
    }

    /// The transform of this name with its usual options.
    fn by_name(name: &str) -> Result<Self, DataError> {
        Ok(match name {
            "flip" => Self::Flip { probability: 0.5 },
            "crop" => Self::Crop { padding: 4, fill: Fill::Zero },
            "resized-crop" => Self::ResizedCrop { area: 0.35, ratio: 4.0 / 3.0 },
            "affine" => Self::Affine { rotate: 10.0, scale: 0.1, shear: 0.0, shift: 0.08, fill: Fill::Zero },
            "colour" => Self::Colour { brightness: 0.2, contrast: 0.2, saturation: 0.2 },
            "erase" => Self::Erase { probability: 0.5, share: 0.2 },
            "cutout" => Self::Cutout { side: 8 },
            _ => {
                let known = Self::NAMES.join(", ");
                return Err(DataError::Unknown { what: "augmentation", name: name.into(), known });
            }
        })
    }

    /// The options by name: the one list that validation, parsing and display share.
    fn settings(&mut self) -> Vec<(&'static str, Setting<'_>)> {
        use Setting::{Number, Whole};
        match self {
            Self::Flip { probability } => vec![("probability", Number(probability, 0.0..=1.0))],
            Self::Crop { padding, fill } => {
                vec![("padding", Whole(padding, 0..=4096)), ("fill", Setting::Fill(fill))]
            }
            Self::ResizedCrop { area, ratio } => {
                vec![("area", Number(area, 0.01..=1.0)), ("ratio", Number(ratio, 1.0..=10.0))]
            }
            Self::Affine { rotate, scale, shear, shift, fill } => vec![
                ("rotate", Number(rotate, 0.0..=180.0)),
                ("scale", Number(scale, 0.0..=0.9)),
                ("shear", Number(shear, 0.0..=60.0)),
                ("shift", Number(shift, 0.0..=1.0)),
                ("fill", Setting::Fill(fill)),
            ],
            Self::Colour { brightness, contrast, saturation } => vec![
                ("brightness", Number(brightness, 0.0..=1.0)),
                ("contrast", Number(contrast, 0.0..=1.0)),
                ("saturation", Number(saturation, 0.0..=1.0)),
            ],
            Self::Erase { probability, share } => {
                vec![("probability", Number(probability, 0.0..=1.0)), ("share", Number(share, 0.0..=1.0))]
            }
            Self::Cutout { side } => vec![("side", Whole(side, 0..=4096))],
        }
    }

    /// Whether every option is in its range.
    ///
    /// # Errors
    /// The first that is not.
    pub fn validate(&self) -> Result<(), DataError> {
        let mut transform = *self;
        let of = self.name();
        match transform.settings().into_iter().find(|(_, setting)| !setting.is_in_range()) {
            Some((field, setting)) => {
                Err(DataError::Option { of, field, found: setting.to_string(), expected: setting.expected() })
            }
            None => Ok(()),
        }
    }

    /// Changes one image; `scratch` is as long.
    fn apply(&self, draws: &mut Draws, shape: Shape, pixels: &mut [f32], scratch: &mut [f32]) {
        let Shape { height, width, .. } = shape;
        match *self {
            Self::Flip { probability } => {
                if draws.uniform() < probability {
                    flip(pixels, width);
                }
            }
            Self::Crop { padding, fill } => {
                let padding = padding as usize;
                let mut offset = || draws.up_to(2 * padding) as isize - padding as isize;
                let (down, right) = (offset(), offset());
                if (down, right) != (0, 0) {
                    scratch.copy_from_slice(pixels);
                    shifted(shape, scratch, pixels, down, right, fill);
                }
            }
            Self::ResizedCrop { area, ratio } => {
                let area = f64::from(draws.between(area, 1.0));
                let ratio = f64::from(draws.between(-1.0, 1.0) * ratio.ln()).exp();
                let side = |share: f64| share.sqrt().min(1.0);
                let (tall, wide) = (side(area / ratio), side(area * ratio));
                let (top, left) = (f64::from(draws.uniform()), f64::from(draws.uniform()));
                let map = Map::part((height, width), (top * (1.0 - tall), left * (1.0 - wide)), (tall, wide));
                scratch.copy_from_slice(pixels);
                warp(shape, scratch, pixels, map, Edge::Clamp);
            }
            Self::Affine { rotate, scale, shear, shift, fill } => {
                let mut either_way = |most: f32| f64::from(draws.between(-most, most));
                let (angle, scale, shear) = (either_way(rotate), 1.0 + either_way(scale), either_way(shear));
                let (down, right) = (either_way(shift) * height as f64, either_way(shift) * width as f64);
                let map = Map::turn((height, width), angle.to_radians(), scale, shear.to_radians(), (down, right));
                scratch.copy_from_slice(pixels);
                warp(shape, scratch, pixels, map, if fill == Fill::Zero { Edge::Zero } else { Edge::Reflect });
            }
            Self::Colour { brightness, contrast, saturation } => {
                let mut factor = |x: f32| draws.between(1.0 - x, 1.0 + x);
                jitter(pixels, shape, [factor(brightness), factor(contrast), factor(saturation)]);
            }
            Self::Erase { probability, share } => {
                if draws.uniform() < probability {
                    let area = draws.between(0.0, share) * shape.area() as f32;
                    let ratio = (draws.between(-1.0, 1.0) * (1.0f32 / 0.3).ln()).exp();
                    let side = |length: f32, most: usize| (length.round() as usize).min(most);
                    let (tall, wide) = (side((area / ratio).sqrt(), height), side((area * ratio).sqrt(), width));
                    let (top, left) = (draws.up_to(height - tall), draws.up_to(width - wide));
                    flatten(pixels, shape, (top, top + tall), (left, left + wide));
                }
            }
            Self::Cutout { side } => {
                let side = side as usize;
                let mut span = |length: usize| {
                    let middle = draws.up_to(length - 1);
                    let start = middle.saturating_sub(side / 2);
                    (start, (middle + side - side / 2).min(length))
                };
                let (rows, columns) = (span(height), span(width));
                flatten(pixels, shape, rows, columns);
            }
        }
    }
}

impl fmt::Display for Transform {
    /// What `parse` reads back: the name, and the options that are not the usual ones.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        let (mut these, mut usual) = (*self, Self::by_name(self.name()).map_err(|_| fmt::Error)?);
        let mut separator = ':';
        for ((field, setting), (_, usual)) in these.settings().into_iter().zip(usual.settings()) {
            let text = setting.to_string();
            if text != usual.to_string() {
                write!(f, "{separator}{field}={text}")?;
                separator = ';';
            }
        }
        Ok(())
    }
}

impl FromStr for Transform {
    type Err = DataError;

    /// Reads `name` or `name:option=value;option=value`, and validates.
    fn from_str(text: &str) -> Result<Self, DataError> {
        let (name, settings) = text.split_once(':').map_or((text, None), |(name, rest)| (name, Some(rest)));
        let mut transform = Self::by_name(name)?;
        let of = transform.name();
        for text in settings.into_iter().flat_map(|settings| settings.split(';')) {
            let (field, value) = text.split_once('=').ok_or_else(|| DataError::Option {
                of,
                field: "option",
                found: format!("{text:?}"),
                expected: "written option=value, with semicolons between".into(),
            })?;
            let mut settings = transform.settings();
            let known = settings.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
            let Some((field, setting)) = settings.iter_mut().find(|(name, _)| *name == field) else {
                return Err(DataError::Unknown { what: "option of an augmentation", name: text.into(), known });
            };
            if !setting.parse(value) {
                let expected = setting.expected();
                return Err(DataError::Option { of, field, found: format!("{value:?}"), expected });
            }
        }
        transform.validate()?;
        Ok(transform)
    }
}

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
    /// | written characters ([`Dataset::shows_characters`]) | small rotations, scalings and shifts; a mirrored 3 is no 3 |
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
            _ if data.shows_characters() => by_name(&["affine"]),
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

/// Left becomes right in every row.
fn flip(pixels: &mut [f32], width: usize) {
    pixels.chunks_exact_mut(width).for_each(<[f32]>::reverse);
}

/// The place in 0..length that position `at` shows in mirrors at both ends.
#[inline(always)]
fn reflect(at: isize, length: usize) -> usize {
    if length == 1 {
        return 0;
    }
    let period = 2 * (length - 1);
    let at = at.rem_euclid(period as isize) as usize;
    if at < length { at } else { period - at }
}

/// The image seen through a window that is moved down and to the right.
fn shifted(shape: Shape, from: &[f32], to: &mut [f32], down: isize, right: isize, fill: Fill) {
    let Shape { height, width, .. } = shape;
    let inside = |at: isize, length: usize| usize::try_from(at).ok().filter(|&at| at < length);
    // Columns that show the image itself.
    let start = right.min(0).unsigned_abs().min(width);
    let end = width - (right.max(0) as usize).min(width);
    for (from, to) in from.chunks_exact(shape.area()).zip(to.chunks_exact_mut(shape.area())) {
        for (y, to) in to.chunks_exact_mut(width).enumerate() {
            let y = y as isize + down;
            let row = match fill {
                Fill::Zero => inside(y, height),
                Fill::Reflect => Some(reflect(y, height)),
            };
            let Some(row) = row.and_then(|row| from.chunks_exact(width).nth(row)) else {
                to.fill(0.0);
                continue;
            };
            if start < end {
                let first = (start as isize + right) as usize;
                to[start..end].copy_from_slice(&row[first..first + end - start]);
            }
            for x in (0..start.min(width)).chain(end.max(start)..width) {
                to[x] = if fill == Fill::Zero { 0.0 } else { row[reflect(x as isize + right, width)] };
            }
        }
    }
}

/// Where each pixel of the new image comes from: row and column `matrix . (y, x) + origin` of the old one.
#[derive(Clone, Copy)]
struct Map {
    matrix: [[f32; 2]; 2],
    origin: [f32; 2],
}

impl Map {
    /// The part of an image that begins at a share of its (height, width) and is a share of it tall and wide.
    fn part((height, width): (usize, usize), (top, left): (f64, f64), (tall, wide): (f64, f64)) -> Self {
        // Pixel i covers [i, i + 1), so its middle is i + 1/2.
        let origin = |start: f64, share: f64, length: usize| (start * length as f64 + 0.5 * share - 0.5) as f32;
        Self {
            matrix: [[tall as f32, 0.0], [0.0, wide as f32]],
            origin: [origin(top, tall, height), origin(left, wide, width)],
        }
    }

    /// Rows slanted by `shear`, then scaled, turned counter-clockwise by `angle` about the middle, and moved.
    fn turn((height, width): (usize, usize), angle: f64, scale: f64, shear: f64, (down, right): (f64, f64)) -> Self {
        // With x to the right and y down, as columns (x, y): turning is [c s; -s c], slanting is [1 t; 0 1]. Of the
        // product M = turn . scale . slant the inverse is wanted: M^-1 = [1 -t; 0 1] . [c -s; s c] / scale.
        let (sin, cos, slant) = (angle.sin(), angle.cos(), shear.tan());
        let (xx, xy) = ((cos - slant * sin) / scale, (-sin - slant * cos) / scale);
        let (yx, yy) = (sin / scale, cos / scale);
        let (middle_y, middle_x) = ((height as f64 - 1.0) / 2.0, (width as f64 - 1.0) / 2.0);
        let (y, x) = (-middle_y - down, -middle_x - right);
        Self {
            matrix: [[yy as f32, yx as f32], [xy as f32, xx as f32]],
            origin: [(yy * y + yx * x + middle_y) as f32, (xy * y + xx * x + middle_x) as f32],
        }
    }
}

/// What stands beyond the edges of an image that is warped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Edge {
    Zero,
    Reflect,
    /// The nearest pixel.
    Clamp,
}

impl Edge {
    /// Which pixel of 0..length stands at `at`, if any.
    #[inline(always)]
    fn at(self, at: i32, length: usize) -> Option<usize> {
        match self {
            Edge::Zero => usize::try_from(at).ok().filter(|&at| at < length),
            Edge::Reflect => Some(reflect(at as isize, length)),
            Edge::Clamp => Some((at.max(0) as usize).min(length - 1)),
        }
    }
}

vectorized!(
    /// Writes the image `from` into `to`, bilinearly interpolated where `map` says.
    fn warp(shape: Shape, from: &[f32], to: &mut [f32], map: Map, edge: Edge) = warp_in
);

#[inline(always)]
fn warp_in(shape: Shape, from: &[f32], to: &mut [f32], map: Map, edge: Edge) {
    let Shape { height, width, .. } = shape;
    let area = shape.area();
    let [[yy, yx], [xy, xx]] = map.matrix;
    let [y_origin, x_origin] = map.origin;
    for row in 0..height {
        let (y_start, x_start) = (yy * row as f32 + y_origin, xy * row as f32 + x_origin);
        for column in 0..width {
            let (y, x) = (yx * column as f32 + y_start, xx * column as f32 + x_start);
            let (y_floor, x_floor) = (y.floor(), x.floor());
            let (v, u) = (y - y_floor, x - x_floor);
            // Weights w and 1 - w, not a + w (b - a): rounded sums then stay between 0 and 1 if the pixels are.
            let (above, left) = (1.0 - v, 1.0 - u);
            let (y, x) = (y_floor as i32, x_floor as i32);
            let at = row * width + column;
            if y >= 0 && x >= 0 && (y as usize) + 1 < height && (x as usize) + 1 < width {
                let mut first = y as usize * width + x as usize;
                let mut at = at;
                while at < to.len() {
                    let upper = from[first] * left + from[first + 1] * u;
                    let lower = from[first + width] * left + from[first + width + 1] * u;
                    to[at] = upper * above + lower * v;
                    (first, at) = (first + area, at + area);
                }
            } else {
                let (top, bottom) = (edge.at(y, height), edge.at(y.saturating_add(1), height));
                let (west, east) = (edge.at(x, width), edge.at(x.saturating_add(1), width));
                for (from, to) in from.chunks_exact(area).zip(to.chunks_exact_mut(area)) {
                    let pixel = |row: Option<usize>, column: Option<usize>| match (row, column) {
                        (Some(row), Some(column)) => from[row * width + column],
                        _ => 0.0,
                    };
                    let upper = pixel(top, west) * left + pixel(top, east) * u;
                    let lower = pixel(bottom, west) * left + pixel(bottom, east) * u;
                    to[at] = upper * above + lower * v;
                }
            }
        }
    }
}

/// Brightness of red, green and blue by ITU-R BT.601.
const LUMA: [f32; 3] = [0.299, 0.587, 0.114];

vectorized!(
    /// Multiplies brightness, contrast and saturation.
    fn jitter(pixels: &mut [f32], shape: Shape, factors: [f32; 3]) = jitter_in
);

#[inline(always)]
fn jitter_in(pixels: &mut [f32], shape: Shape, [brightness, contrast, saturation]: [f32; 3]) {
    if brightness != 1.0 {
        pixels.iter_mut().for_each(|value| *value = (*value * brightness).clamp(0.0, 1.0));
    }
    let planes = shape.channels;
    let weight = |channel: usize| if planes == 3 { LUMA[channel] } else { 1.0 / planes as f32 };
    if contrast != 1.0 {
        let mut mean = 0.0;
        for (channel, plane) in pixels.chunks_exact(shape.area()).enumerate() {
            mean += weight(channel) * mean_of(plane);
        }
        let rest = (1.0 - contrast) * mean;
        pixels.iter_mut().for_each(|value| *value = (*value * contrast + rest).clamp(0.0, 1.0));
    }
    if saturation != 1.0 && planes == 3 {
        let (red, rest) = pixels.split_at_mut(shape.area());
        let (green, blue) = rest.split_at_mut(shape.area());
        for ((red, green), blue) in red.iter_mut().zip(green).zip(blue) {
            let grey = (1.0 - saturation) * (LUMA[0] * *red + LUMA[1] * *green + LUMA[2] * *blue);
            for value in [red, green, blue] {
                *value = (*value * saturation + grey).clamp(0.0, 1.0);
            }
        }
    }
}

/// The mean, added up in sixteen lanes: fast, and the same on every instruction set.
#[inline(always)]
fn mean_of(values: &[f32]) -> f32 {
    let (chunks, rest) = values.as_chunks::<16>();
    let mut lanes = [0.0f32; 16];
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, value)| *lane += value);
    }
    (lanes.iter().sum::<f32>() + rest.iter().sum::<f32>()) / values.len() as f32
}

/// Gives a rectangle each channel's mean.
fn flatten(pixels: &mut [f32], shape: Shape, (top, bottom): (usize, usize), (left, right): (usize, usize)) {
    if top >= bottom || left >= right {
        return;
    }
    for plane in pixels.chunks_exact_mut(shape.area()) {
        // Rounding may put the mean of ones above one.
        let mean = mean_of(plane).clamp(0.0, 1.0);
        plane.chunks_exact_mut(shape.width).take(bottom).skip(top).for_each(|row| row[left..right].fill(mean));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: [f32; 6] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6];
    const SHAPE: Shape = Shape::new(1, 2, 3);

    fn close(found: &[f32], expected: &[f32]) {
        assert_eq!(found.len(), expected.len());
        let differ = found.iter().zip(expected).any(|(a, b)| (a - b).abs() > 1e-5);
        assert!(!differ, "{found:?} is not {expected:?}");
    }

    fn warped(shape: Shape, from: &[f32], map: Map, edge: Edge) -> Vec<f32> {
        let mut to = vec![f32::NAN; from.len()];
        warp(shape, from, &mut to, map, edge);
        to
    }

    #[test]
    fn flipping() {
        let mut pixels = FROM;
        flip(&mut pixels, 3);
        assert_eq!(pixels, [0.3, 0.2, 0.1, 0.6, 0.5, 0.4]);
    }

    #[test]
    fn mirrors() {
        assert_eq!([-5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5].map(|at| reflect(at, 3)), [1, 0, 1, 2, 1, 0, 1, 2, 1, 0, 1]);
        assert_eq!([-1, 0, 7].map(|at| reflect(at, 1)), [0, 0, 0]);
    }

    #[test]
    fn windows_of_a_padded_image() {
        let shift = |down, right, fill| {
            let mut to = [f32::NAN; 6];
            shifted(SHAPE, &FROM, &mut to, down, right, fill);
            to
        };
        assert_eq!(shift(0, 1, Fill::Zero), [0.2, 0.3, 0.0, 0.5, 0.6, 0.0]);
        assert_eq!(shift(1, -2, Fill::Zero), [0.0, 0.0, 0.4, 0.0, 0.0, 0.0]);
        assert_eq!(shift(-1, 0, Fill::Zero), [0.0, 0.0, 0.0, 0.1, 0.2, 0.3]);
        assert_eq!(shift(0, 1, Fill::Reflect), [0.2, 0.3, 0.2, 0.5, 0.6, 0.5]);
        assert_eq!(shift(-1, -2, Fill::Reflect), [0.6, 0.5, 0.4, 0.3, 0.2, 0.1]);
        assert_eq!([shift(5, 0, Fill::Zero), shift(0, -9, Fill::Zero)], [[0.0; 6]; 2]);
    }

    #[test]
    fn turning_and_moving() {
        let square = Shape::new(1, 3, 3);
        let from: Vec<f32> = (1..=9).map(|v| v as f32 / 10.0).collect();
        let turn = |degrees: f64, scale, shear: f64, shift| {
            let map = Map::turn((3, 3), degrees.to_radians(), scale, shear.to_radians(), shift);
            warped(square, &from, map, Edge::Zero)
        };
        assert_eq!(turn(0.0, 1.0, 0.0, (0.0, 0.0)), from, "no change, bit for bit");
        // Counter-clockwise: the right column becomes the top row. 1e-8 beyond the edge is the edge.
        close(&turn(90.0, 1.0, 0.0, (0.0, 0.0)), &[0.3, 0.6, 0.9, 0.2, 0.5, 0.8, 0.1, 0.4, 0.7]);
        close(&turn(180.0, 1.0, 0.0, (0.0, 0.0)), &[0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]);
        close(&turn(0.0, 1.0, 0.0, (1.0, 0.0)), &[0.0, 0.0, 0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]);
        close(&turn(0.0, 1.0, 0.0, (0.0, -0.5)), &[0.15, 0.25, 0.15, 0.45, 0.55, 0.3, 0.75, 0.85, 0.45]);
        // Twice as large: from half a pixel beside the middle.
        close(&turn(0.0, 2.0, 0.0, (0.0, 0.0)), &[0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7]);
        // Slanted by 45 degrees, the row below the middle moves one to the right, the one above to the left.
        close(&turn(0.0, 1.0, 45.0, (0.0, 0.0)), &[0.2, 0.3, 0.0, 0.4, 0.5, 0.6, 0.0, 0.7, 0.8]);
    }

    #[test]
    fn parts() {
        let row = Shape::new(1, 1, 4);
        let from = [0.0, 0.2, 0.4, 0.6];
        let part = |left, wide| warped(row, &from, Map::part((1, 4), (0.0, left), (1.0, wide)), Edge::Clamp);
        assert_eq!(part(0.0, 1.0), from, "the whole, bit for bit");
        // The left half: pixels 0 and 1, doubled; the first and last lie outside their middles.
        close(&part(0.0, 0.5), &[0.0, 0.05, 0.15, 0.25]);
        close(&part(0.5, 0.5), &[0.35, 0.45, 0.55, 0.6]);
    }

    #[test]
    fn edges() {
        let row = Shape::new(1, 1, 3);
        let map = Map { matrix: [[1.0, 0.0], [0.0, 1.0]], origin: [0.0, 1.5] };
        let with = |edge| warped(row, &[0.2, 0.4, 0.8], map, edge);
        close(&with(Edge::Zero), &[0.6, 0.4, 0.0]);
        close(&with(Edge::Clamp), &[0.6, 0.8, 0.8]);
        close(&with(Edge::Reflect), &[0.6, 0.6, 0.3]);
        // Far away, and beyond what an i32 can count.
        for origin in [1e6, -1e6, 1e30, -1e30] {
            let map = Map { matrix: [[1.0, 0.0], [0.0, 1.0]], origin: [origin, origin] };
            assert_eq!(warped(row, &[0.2, 0.4, 0.8], map, Edge::Zero), [0.0; 3]);
            assert_eq!(warped(row, &[0.5; 3], map, Edge::Reflect), [0.5; 3]);
        }
    }

    #[test]
    fn colours() {
        let shape = Shape::new(3, 1, 2);
        let from = [0.2, 0.6, 0.4, 0.0, 0.0, 1.0];
        let with = |factors| {
            let mut pixels = from;
            jitter(&mut pixels, shape, factors);
            pixels
        };
        assert_eq!(with([1.0; 3]), from);
        close(&with([1.5, 1.0, 1.0]), &[0.3, 0.9, 0.6, 0.0, 0.0, 1.0]);
        // Mean brightness 0.299 . 0.4 + 0.587 . 0.2 + 0.114 . 0.5 = 0.294.
        close(&with([1.0, 0.5, 1.0]), &[0.247, 0.447, 0.347, 0.147, 0.147, 0.647]);
        // Greys 0.299 . 0.2 + 0.587 . 0.4 = 0.2946 and 0.299 . 0.6 + 0.114 = 0.2934.
        close(&with([1.0, 1.0, 0.0]), &[0.2946, 0.2934, 0.2946, 0.2934, 0.2946, 0.2934]);
    }

    #[test]
    fn flat_rectangles() {
        let mut pixels = [0.0, 0.3, 0.6, 0.3, 0.3, 0.3];
        flatten(&mut pixels, SHAPE, (0, 1), (1, 3));
        close(&pixels, &[0.0, 0.3, 0.3, 0.3, 0.3, 0.3]);
        let before = pixels;
        flatten(&mut pixels, SHAPE, (1, 1), (0, 3));
        assert_eq!(pixels, before);
    }

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
