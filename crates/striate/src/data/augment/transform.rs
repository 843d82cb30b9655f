//! One random change: its options, their ranges, its text, and what it does to an image.

use super::{
    Draws,
    colour::{flatten, jitter},
    geometry::{Edge, Map, flip, shifted, warp},
};
use crate::{data::DataError, settings, shape::Shape};
use std::{fmt, ops::RangeInclusive, str::FromStr};

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
    /// The image and another of its batch become one, and so do their targets: `(1 - share) image + share other` (Zhang
    /// et al., 2018, "mixup: Beyond Empirical Risk Minimization"). The share is drawn from Beta(alpha, alpha).
    Mixup {
        /// Small: mostly one image with a trace of the other; 1: any share; usually 0.2.
        alpha: f32,
        /// How often; usually 1.
        probability: f32,
    },
    /// A rectangle of another image of the batch covers a part of the image, and the target has as much of the other's
    /// class as is covered (Yun et al., 2019, "CutMix: Regularization Strategy to Train Strong Classifiers with
    /// Localizable Features"). The rectangle has the image's proportions and a share of its area that is drawn from
    /// Beta(alpha, alpha); its middle is any pixel, so parts of it may lie outside.
    CutMix {
        /// Usually 1: all shares are equally likely.
        alpha: f32,
        /// How often; usually 1.
        probability: f32,
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
    pub const NAMES: &[&str] =
        &["flip", "crop", "resized-crop", "affine", "colour", "erase", "cutout", "mixup", "cutmix"];

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
            Self::Mixup { .. } => "mixup",
            Self::CutMix { .. } => "cutmix",
        }
    }

    /// The transform of this name with its usual options.
    pub(super) fn by_name(name: &str) -> Result<Self, DataError> {
        Ok(match name {
            "flip" => Self::Flip { probability: 0.5 },
            "crop" => Self::Crop { padding: 4, fill: Fill::Zero },
            "resized-crop" => Self::ResizedCrop { area: 0.35, ratio: 4.0 / 3.0 },
            "affine" => Self::Affine { rotate: 10.0, scale: 0.1, shear: 0.0, shift: 0.08, fill: Fill::Zero },
            "colour" => Self::Colour { brightness: 0.2, contrast: 0.2, saturation: 0.2 },
            "erase" => Self::Erase { probability: 0.5, share: 0.2 },
            "cutout" => Self::Cutout { side: 8 },
            "mixup" => Self::Mixup { alpha: 0.2, probability: 1.0 },
            "cutmix" => Self::CutMix { alpha: 1.0, probability: 1.0 },
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
            Self::Mixup { alpha, probability } | Self::CutMix { alpha, probability } => {
                vec![("alpha", Number(alpha, 0.01..=100.0)), ("probability", Number(probability, 0.0..=1.0))]
            }
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
    pub(super) fn apply(&self, draws: &mut Draws, shape: Shape, pixels: &mut [f32], scratch: &mut [f32]) {
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
            // These take a batch: see `mix`.
            Self::Mixup { .. } | Self::CutMix { .. } => {}
        }
    }
}

impl fmt::Display for Transform {
    /// What `parse` reads back: the name, and the options that are not the usual ones.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut these, mut usual) = (*self, Self::by_name(self.name()).map_err(|_| fmt::Error)?);
        settings::write(f, self.name(), ';', these.settings(), usual.settings())
    }
}

impl FromStr for Transform {
    type Err = DataError;

    /// Reads `name` or `name:option=value;option=value`, and validates.
    fn from_str(text: &str) -> Result<Self, DataError> {
        let (name, settings) = settings::split(text, ';');
        let mut transform = Self::by_name(name)?;
        let of = transform.name();
        for option in settings {
            let (field, value) = option.map_err(|option| DataError::Option {
                of,
                field: "option",
                found: format!("{option:?}"),
                expected: "written option=value, with semicolons between".into(),
            })?;
            let (field, mut setting) = settings::find(transform.settings(), field)
                .map_err(|known| DataError::Unknown { what: "option of an augmentation", name: field.into(), known })?;
            if !setting.parse(value) {
                let expected = setting.expected();
                return Err(DataError::Option { of, field, found: format!("{value:?}"), expected });
            }
        }
        transform.validate()?;
        Ok(transform)
    }
}
