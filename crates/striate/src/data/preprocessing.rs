//! From an image file to a network's input, and the same scaling for images that are already in memory.
//!
//! [`Preprocessing`] travels inside a model file, so a picture meets the same treatment wherever the model runs.

use super::{
    DataError,
    resample::{Rectangle, resample, resample_part},
};
use crate::shape::Shape;
use image::{
    DynamicImage, GenericImageView, ImageDecoder, ImageEncoder, ImageFormat, Limits,
    codecs::{bmp::BmpDecoder, gif::GifDecoder, jpeg::JpegDecoder, png::PngDecoder, webp::WebPDecoder},
};
use serde::{Deserialize, Serialize};
use std::io::Cursor;

/// The most pixels of an image file: 64 million.
pub const MAX_PIXELS: u64 = 64_000_000;
/// The most memory for decoding an image file: 256 MiB.
pub const MAX_DECODE_BYTES: u64 = 256 << 20;
/// The most rows or columns of an image file (what JPEG can express).
pub const MAX_SIDE: u32 = 65_535;
/// The most rows or columns of a network's input.
pub const MAX_TARGET_SIDE: usize = 4096;

const PREPROCESSING: &str = "preprocessing";

/// How pixels become numbers around 0: `x = (v / 255 - mean) / deviation` for each channel.
///
/// A list may also hold one number, which then counts for every channel. Pixels that are
/// [`Pixels::F32`](super::Pixels::F32) skip the division by 255.
///
/// ```
/// use striate::data::Normalization;
/// let scale = Normalization::new(vec![0.5], vec![0.25], 3)?;
/// assert_eq!(Normalization::identity().mean, [0.0]);
/// assert!(Normalization::new(vec![0.5], vec![0.0], 3).is_err());
/// # Ok::<(), striate::data::DataError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalization {
    /// What is taken away: for each channel, or for all.
    pub mean: Vec<f32>,
    /// What the rest is divided by: for each channel, or for all.
    pub deviation: Vec<f32>,
}

impl Normalization {
    /// A scaling for images of `channels` channels.
    ///
    /// # Errors
    /// As for [`Normalization::check`].
    pub fn new(mean: Vec<f32>, deviation: Vec<f32>, channels: usize) -> Result<Self, DataError> {
        let scale = Self { mean, deviation };
        scale.check(channels)?;
        Ok(scale)
    }

    /// Mean 0 and deviation 1: numbers from 0 to 1, as in the book.
    pub fn identity() -> Self {
        Self { mean: vec![0.0], deviation: vec![1.0] }
    }

    /// Mean and deviation of ImageNet's photographs, red, green and blue, as networks trained on them expect.
    pub fn imagenet() -> Self {
        Self { mean: vec![0.485, 0.456, 0.406], deviation: vec![0.229, 0.224, 0.225] }
    }

    /// Whether it can be used for images of `channels` channels.
    ///
    /// # Errors
    /// A list with another number of entries than 1 or `channels`, an entry that is not finite, a deviation that is
    /// not a normal positive number.
    pub fn check(&self, channels: usize) -> Result<(), DataError> {
        let option = |field, found: String, expected: String| {
            Err(DataError::Option { of: PREPROCESSING, field, found, expected })
        };
        for (field, list) in [("mean", &self.mean), ("deviation", &self.deviation)] {
            if list.len() != 1 && list.len() != channels {
                let expected = if channels == 1 {
                    "1 number".to_owned()
                } else {
                    format!("1 number or {channels}, one a channel")
                };
                return option(field, format!("a list of {} numbers", list.len()), expected);
            }
        }
        if let Some(value) = self.mean.iter().find(|value| !value.is_finite()) {
            return option("mean", value.to_string(), "finite".into());
        }
        // A subnormal divisor would turn pixels into infinities.
        if let Some(value) = self.deviation.iter().find(|value| !value.is_normal() || **value < 0.0) {
            return option("deviation", value.to_string(), "finite and above 0".into());
        }
        Ok(())
    }

    /// Mean and deviation of one channel.
    fn of(&self, channel: usize) -> (f32, f32) {
        let of = |list: &[f32], otherwise| list.get(channel).or(list.last()).copied().unwrap_or(otherwise);
        (of(&self.mean, 0.0), of(&self.deviation, 1.0))
    }

    /// Scales pixel values of `channel`.
    ///
    /// Divisions in wide vectors are faster here than a table, and give the very quotient, not one nearby.
    #[inline(always)]
    pub(super) fn apply_u8(&self, channel: usize, pixels: &[u8], out: &mut [f32]) {
        let (mean, deviation) = self.of(channel);
        if (mean, deviation) == (0.0, 1.0) {
            for (out, &pixel) in out.iter_mut().zip(pixels) {
                *out = f32::from(pixel) / 255.0;
            }
        } else {
            for (out, &pixel) in out.iter_mut().zip(pixels) {
                *out = (f32::from(pixel) / 255.0 - mean) / deviation;
            }
        }
    }

    /// Scales numbers of `channel` that are no pixel values.
    #[inline(always)]
    pub(super) fn apply_f32(&self, channel: usize, values: &[f32], out: &mut [f32]) {
        let (mean, deviation) = self.of(channel);
        if (mean, deviation) == (0.0, 1.0) {
            out.copy_from_slice(values);
            return;
        }
        for (out, value) in out.iter_mut().zip(values) {
            *out = (value - mean) / deviation;
        }
    }

    /// Scales numbers of `channel` where they stand.
    #[inline(always)]
    pub(super) fn apply_in_place(&self, channel: usize, values: &mut [f32]) {
        let (mean, deviation) = self.of(channel);
        if (mean, deviation) != (0.0, 1.0) {
            for value in values {
                *value = (*value - mean) / deviation;
            }
        }
    }
}

impl Default for Normalization {
    fn default() -> Self {
        Self::identity()
    }
}

/// How a picture of any size becomes one of the network's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Fit {
    /// Scale height and width independently.
    Stretch,
    /// As torchvision's networks are evaluated: keep the proportions, scale the shorter side to `resize` pixels, and cut
    /// the network's size out of the middle. Where a middle falls between two pixels, torchvision's choice is made.
    CenterCrop {
        /// Pixels of the shorter side before the cut: at least the network's height and width.
        resize: usize,
    },
    /// As the makers of MNIST did with a written digit: ink white on black, cropped, its longer side 20 pixels of 28,
    /// its centre of mass in the middle (in 28 x 28: in pixel (14, 14), counted from 0). A picture of exactly the right size is only made white on black.
    Digit,
}

/// Everything between an image file and a network's input.
///
/// ```
/// use striate::data::{Fit, Normalization, Preprocessing};
/// use striate::shape::Shape;
/// let preprocessing = Preprocessing::new(Shape::new(1, 28, 28), Fit::Digit, Normalization::identity())?;
/// // A white page with a black stroke, as a PNG file.
/// let mut page = image::GrayImage::from_pixel(200, 100, image::Luma([255]));
/// (20..80).for_each(|y| page.put_pixel(30, y, image::Luma([0])));
/// let mut file = std::io::Cursor::new(Vec::new());
/// page.write_to(&mut file, image::ImageFormat::Png).unwrap();
///
/// let pixels = preprocessing.decode(file.get_ref(), "page.png")?;
/// assert_eq!(pixels[14 * 28 + 14], 255, "the stroke is white now, and in the middle");
/// let input = preprocessing.apply(&pixels);
/// assert_eq!(input[14 * 28 + 14], 1.0);
/// # Ok::<(), striate::data::DataError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked", deny_unknown_fields)]
pub struct Preprocessing {
    /// The network's input: 1 channel (grey) or 3 (red, green, blue), height, width.
    pub shape: Shape,
    /// How a picture of another size is made to fit.
    pub fit: Fit,
    /// How pixels become numbers.
    pub normalization: Normalization,
}

/// [`Preprocessing`] as it is read, before its checks.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    shape: Shape,
    fit: Fit,
    normalization: Normalization,
}

impl TryFrom<Unchecked> for Preprocessing {
    type Error = DataError;

    fn try_from(read: Unchecked) -> Result<Self, DataError> {
        Self::new(read.shape, read.fit, read.normalization)
    }
}

impl Preprocessing {
    /// Checked preprocessing.
    ///
    /// # Errors
    /// As for [`Preprocessing::check`].
    pub fn new(shape: Shape, fit: Fit, normalization: Normalization) -> Result<Self, DataError> {
        let preprocessing = Self { shape, fit, normalization };
        preprocessing.check()?;
        Ok(preprocessing)
    }

    /// Whether it can be carried out.
    ///
    /// # Errors
    /// A number of channels other than 1 or 3, a side of 0 or over [`MAX_TARGET_SIDE`], a crop from less than the
    /// network's size, an unusable normalization.
    pub fn check(&self) -> Result<(), DataError> {
        let Shape { channels, height, width } = self.shape;
        if channels != 1 && channels != 3 {
            return Err(DataError::Option {
                of: PREPROCESSING,
                field: "shape",
                found: format!("{} (channels, height, width)", self.shape),
                expected: "of 1 channel (grey) or 3 (red, green, blue)".into(),
            });
        }
        if [height, width].iter().any(|side| !(1..=MAX_TARGET_SIDE).contains(side)) {
            return Err(DataError::Option {
                of: PREPROCESSING,
                field: "shape",
                found: format!("{} (channels, height, width)", self.shape),
                expected: format!("1 to {MAX_TARGET_SIDE} rows and columns"),
            });
        }
        if let Fit::CenterCrop { resize } = self.fit
            && !(height.max(width)..=MAX_TARGET_SIDE).contains(&resize)
        {
            return Err(DataError::Option {
                of: PREPROCESSING,
                field: "fit",
                found: format!("a shorter side of {resize} pixels"),
                expected: format!("{} to {MAX_TARGET_SIDE}, to cut {height} x {width} out of it", height.max(width)),
            });
        }
        self.normalization.check(channels)
    }

    /// The pixels (C, H, W) of an image file whose contents are `bytes`; `name` is what errors call it.
    ///
    /// PNG, JPEG, WebP, GIF and BMP are known; of an animation, the first frame counts. Sixteen bits become eight.
    /// Transparency shows white paper. A photograph's orientation tag is obeyed.
    ///
    /// # Errors
    /// Not an image of these kinds, cut or damaged, or over [`MAX_PIXELS`], [`MAX_SIDE`] or [`MAX_DECODE_BYTES`].
    pub fn decode(&self, bytes: &[u8], name: &str) -> Result<Vec<u8>, DataError> {
        self.check()?;
        self.fit(ImageFile::open(bytes, name)?.decode()?, name)
    }

    /// Width and height of an image file, from its head alone; nothing is decoded.
    ///
    /// # Errors
    /// As for [`Preprocessing::decode`], as far as the head tells.
    pub fn picture_size(bytes: &[u8], name: &str) -> Result<(u32, u32), DataError> {
        Ok(ImageFile::open(bytes, name)?.decoder.dimensions())
    }

    /// The pixels (C, H, W) of an image file at its own size, or made smaller so that no side is over `most`, and the
    /// preprocessing for such pixels: the same scaling of numbers, but nothing inverted, cropped or stretched.
    ///
    /// # Errors
    /// As for [`Preprocessing::decode`].
    pub fn decode_whole(&self, bytes: &[u8], name: &str, most: usize) -> Result<(Self, Vec<u8>), DataError> {
        let image = ImageFile::open(bytes, name)?.decode()?;
        let (width, height) = (image.width() as usize, image.height() as usize);
        let longest = width.max(height).max(1);
        let fitted = |side: usize| if longest > most { (side * most / longest).max(1) } else { side };
        let shape = Shape::new(self.shape.channels, fitted(height), fitted(width));
        let whole = Self::new(shape, Fit::Stretch, self.normalization.clone())?;
        let pixels = whole.fit(image, name)?;
        Ok((whole, pixels))
    }

    /// The pixels (C, H, W) of a decoded image.
    pub(super) fn fit(&self, image: DynamicImage, name: &str) -> Result<Vec<u8>, DataError> {
        let (width, height) = (image.width() as usize, image.height() as usize);
        let grey = self.shape.channels == 1 || self.fit == Fit::Digit || !image.color().has_color();
        let all = Rectangle { left: 0, top: 0, width, height };
        // The size that the whole picture gets, and what is kept of it.
        let (size, kept) = self.window(height, width);
        if let DynamicImage::ImageRgb8(image) = &image
            && !grey
            && ((height, width) != size || kept != all)
        {
            // The usual photograph: its channels are taken apart when there are fewer pixels.
            return Ok(resample_part(image.as_raw(), 3, width, all, size, kept));
        }
        let planes = planes(image, grey, name)?;
        let fitted = match self.fit {
            Fit::Digit => digit(planes, width, height, self.shape),
            _ if (height, width) == size && kept == all => planes,
            Fit::Stretch | Fit::CenterCrop { .. } => {
                let mut fitted = Vec::with_capacity(self.shape.len());
                for plane in planes.chunks_exact(width * height) {
                    fitted.extend(resample_part(plane, 1, width, all, size, kept));
                }
                fitted
            }
        };
        // A grey picture is the same in all channels.
        Ok(if fitted.len() < self.shape.len() { fitted.repeat(self.shape.channels) } else { fitted })
    }

    /// The height and width that a whole picture of this height and width is scaled to, and the part of it that is kept.
    fn window(&self, height: usize, width: usize) -> ((usize, usize), Rectangle) {
        let Shape { height: rows, width: columns, .. } = self.shape;
        let whole = ((rows, columns), Rectangle { left: 0, top: 0, width: columns, height: rows });
        let Fit::CenterCrop { resize } = self.fit else { return whole };
        let shorter = height.min(width).max(1);
        let size = (resize * height / shorter, resize * width / shorter);
        // As Python rounds: from the middle between two pixels to the even one.
        let begin = |all: usize, part: usize| (all.saturating_sub(part) as f64 / 2.0).round_ties_even() as usize;
        (size, Rectangle { left: begin(size.1, columns), top: begin(size.0, rows), width: columns, height: rows })
    }

    /// A PNG file of one image's pixels (C, H, W), which [`Preprocessing::decode`] makes the same pixels of again
    /// (unless they are black on white, and [`Fit::Digit`] turns them, or [`Fit::CenterCrop`] cuts).
    ///
    /// # Errors
    /// Another number of pixels than the shape's.
    pub fn encode(&self, pixels: &[u8]) -> Result<Vec<u8>, DataError> {
        self.check()?;
        let Shape { channels, height, width } = self.shape;
        let area = self.shape.area();
        let interleaved: Vec<u8> = (0..pixels.len())
            .map(|at| pixels.get(at % channels * area + at / channels).copied().unwrap_or_default())
            .collect();
        let kind = if channels == 1 { image::ExtendedColorType::L8 } else { image::ExtendedColorType::Rgb8 };
        if pixels.len() != self.shape.len() {
            return Err(DataError::Option {
                of: PREPROCESSING,
                field: "pixels",
                found: format!("{} of them", pixels.len()),
                expected: format!("{} for an image of {}", self.shape.len(), self.shape),
            });
        }
        let mut file = Vec::new();
        image::codecs::png::PngEncoder::new(&mut file)
            .write_image(&interleaved, width as u32, height as u32, kind)
            .map_err(|source| image_fault(source, "the picture"))?;
        Ok(file)
    }

    /// The network's input for the pixels of one image, or of several one after another.
    ///
    /// Pixels at the end that do not make a whole image are left out.
    pub fn apply(&self, pixels: &[u8]) -> Vec<f32> {
        let (image, plane) = (self.shape.len().max(1), self.shape.area().max(1));
        let mut out = vec![0.0; pixels.len() / image * image];
        for (out, pixels) in out.chunks_exact_mut(image).zip(pixels.chunks_exact(image)) {
            for (channel, (out, pixels)) in out.chunks_exact_mut(plane).zip(pixels.chunks_exact(plane)).enumerate() {
                self.normalization.apply_u8(channel, pixels, out);
            }
        }
        out
    }
}

/// An image file whose head has been read: its kind and size are allowed, and nothing is decoded yet.
pub(super) struct ImageFile<'a> {
    name: &'a str,
    decoder: Box<dyn ImageDecoder + 'a>,
    limits: Limits,
    decode_bytes: u64,
}

impl<'a> ImageFile<'a> {
    pub(super) fn open(bytes: &'a [u8], name: &'a str) -> Result<Self, DataError> {
        let mut limits = Limits::default();
        limits.max_alloc = Some(MAX_DECODE_BYTES);
        let fault = |source| image_fault(source, name);
        let file = Cursor::new(bytes);
        // Besides the decoder: its memory for decoding, in relation to the finished image.
        let (decoder, factor): (Box<dyn ImageDecoder + 'a>, u64) = match image::guess_format(bytes) {
            Ok(ImageFormat::Png) => {
                check_png_end(bytes, name)?;
                (Box::new(PngDecoder::with_limits(file, limits.clone()).map_err(fault)?), 1)
            }
            Ok(ImageFormat::Jpeg) => {
                let outline = JpegOutline::read(bytes, name)?;
                // A progressive image is held as 16-bit coefficients until its last scan.
                (Box::new(JpegDecoder::new(file).map_err(fault)?), if outline.progressive { 3 } else { 1 })
            }
            // Planes of brightness and colour, or the frame before it is put on its canvas.
            Ok(ImageFormat::WebP) => (Box::new(WebPDecoder::new(file).map_err(fault)?), 2),
            Ok(ImageFormat::Gif) => (Box::new(GifDecoder::new(file).map_err(fault)?), 2),
            Ok(ImageFormat::Bmp) => (Box::new(BmpDecoder::new(file).map_err(fault)?), 1),
            _ => return Err(DataError::UnknownFormat { name: name.into() }),
        };
        check_size(&decoder, factor, name)?;
        let decode_bytes = decoder.total_bytes().saturating_mul(factor);
        Ok(Self { name, decoder, limits, decode_bytes })
    }

    /// About the most memory that decoding takes.
    pub(super) fn decode_bytes(&self) -> u64 {
        self.decode_bytes
    }

    /// The image, upright.
    pub(super) fn decode(self) -> Result<DynamicImage, DataError> {
        let Self { name, mut decoder, mut limits, .. } = self;
        let finish = || {
            limits.reserve(decoder.total_bytes())?;
            decoder.set_limits(limits)?;
            let orientation = decoder.orientation()?;
            let mut image = DynamicImage::from_decoder(decoder)?;
            image.apply_orientation(orientation);
            Ok(image)
        };
        finish().map_err(|source| image_fault(source, name))
    }
}

fn image_fault(source: image::ImageError, name: &str) -> DataError {
    match source {
        // The decoders meet the end of the file in their own ways.
        image::ImageError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            DataError::Truncated { name: name.into(), reason: "the file ends inside the picture".into() }
        }
        source => DataError::Image { name: name.into(), source },
    }
}

/// Refuses what is too large; `factor` is the memory for decoding in relation to the finished image.
fn check_size(decoder: &impl ImageDecoder, factor: u64, name: &str) -> Result<(), DataError> {
    let (width, height) = decoder.dimensions();
    let refuse = |limit| Err(DataError::ImageTooLarge { name: name.into(), width, height, limit });
    if width == 0 || height == 0 {
        return Err(DataError::Truncated { name: name.into(), reason: format!("it has {width} x {height} pixels") });
    }
    if width > MAX_SIDE || height > MAX_SIDE {
        return refuse("65,535 on a side");
    }
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return refuse("64 million pixels");
    }
    if decoder.total_bytes().saturating_mul(factor) > MAX_DECODE_BYTES {
        return refuse("256 MiB of memory for decoding can hold");
    }
    Ok(())
}

/// A PNG file must go on to its last chunk, IEND.
fn check_png_end(bytes: &[u8], name: &str) -> Result<(), DataError> {
    // After the signature: length, type, data and checksum of each chunk.
    let mut rest = bytes.get(8..).unwrap_or_default();
    while let Some((head, after)) = rest.split_first_chunk::<8>() {
        let [a, b, c, d, kind @ ..] = *head;
        if &kind == b"IEND" && after.len() >= 4 {
            return Ok(());
        }
        let skip = u32::from_be_bytes([a, b, c, d]) as usize;
        rest = skip.checked_add(4).and_then(|skip| after.get(skip..)).unwrap_or_default();
    }
    Err(DataError::Truncated { name: name.into(), reason: "the PNG file has no end chunk".into() })
}

/// What the segments of a JPEG file tell before anything is decoded.
///
/// Needed because the decoder fills in grey for whatever is missing at the end of the file.
struct JpegOutline {
    progressive: bool,
}

impl JpegOutline {
    /// More scans than any encoder writes; each makes the decoder walk over the whole picture.
    const MAX_SCANS: usize = 100;

    fn read(bytes: &[u8], name: &str) -> Result<Self, DataError> {
        let cut =
            || DataError::Truncated { name: name.into(), reason: "the JPEG file has no end-of-image marker".into() };
        let (mut progressive, mut scans) = (false, 0);
        let mut rest = bytes.get(2..).unwrap_or_default();
        loop {
            // To the next marker: FF, then neither 00 (a data byte FF), a restart marker, nor FF (padding).
            let at = rest.windows(2).position(|pair| {
                pair.first() == Some(&0xFF) && !matches!(pair.last(), Some(0x00 | 0x01 | 0xD0..=0xD8 | 0xFF))
            });
            rest = at.and_then(|at| rest.get(at + 1..)).ok_or_else(cut)?;
            let (&marker, after) = rest.split_first().ok_or_else(cut)?;
            match marker {
                0xD9 => return Ok(Self { progressive }),
                0xC2 | 0xC6 | 0xCA | 0xCE => progressive = true,
                0xDA => scans += 1,
                _ => {}
            }
            if scans > Self::MAX_SCANS {
                let reason = format!("it has more than {} scans", Self::MAX_SCANS);
                let kind = image::error::ImageFormatHint::Exact(ImageFormat::Jpeg);
                let source = image::ImageError::Decoding(image::error::DecodingError::new(kind, reason));
                return Err(DataError::Image { name: name.into(), source });
            }
            let (&length, _) = after.split_first_chunk::<2>().ok_or_else(cut)?;
            rest = after.get(usize::from(u16::from_be_bytes(length))..).ok_or_else(cut)?;
        }
    }
}

/// The pixels in (C, H, W) order on white paper: one channel if `grey`, else three.
fn planes(image: DynamicImage, grey: bool, name: &str) -> Result<Vec<u8>, DataError> {
    let image = match image {
        DynamicImage::ImageLuma8(image) if grey => return Ok(image.into_raw()),
        image => image,
    };
    let area = image.width() as usize * image.height() as usize;
    let bytes = if grey { area } else { 3 * area };
    let mut out = Vec::new();
    out.try_reserve_exact(bytes).map_err(|_| DataError::Memory { name: name.into(), bytes: bytes as u64 })?;
    out.resize(bytes, 0);
    let mut put = |at: usize, rgb: [u8; 3]| {
        if grey {
            out[at] = luma(rgb);
        } else {
            for (channel, value) in rgb.into_iter().enumerate() {
                out[channel * area + at] = value;
            }
        }
    };
    if let DynamicImage::ImageRgb8(image) = &image {
        if grey {
            image.pixels().enumerate().for_each(|(at, pixel)| put(at, pixel.0));
        } else {
            // Without a bounds check a pixel.
            let (red, rest) = out.split_at_mut(area);
            let (green, blue) = rest.split_at_mut(area);
            let planes = red.iter_mut().zip(green).zip(blue);
            for (pixel, ((r, g), b)) in image.as_raw().chunks_exact(3).zip(planes) {
                if let &[red, green, blue] = pixel {
                    (*r, *g, *b) = (red, green, blue);
                }
            }
        }
    } else {
        for (at, (_, _, pixel)) in image.pixels().enumerate() {
            let [r, g, b, alpha] = pixel.0;
            put(at, [r, g, b].map(|value| on_white(value, alpha)));
        }
    }
    Ok(out)
}

fn on_white(value: u8, alpha: u8) -> u8 {
    let (value, alpha) = (u32::from(value), u32::from(alpha));
    ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8
}

/// Brightness by ITU-R BT.601, in 16-bit fixed point.
fn luma([r, g, b]: [u8; 3]) -> u8 {
    ((u32::from(r) * 19_595 + u32::from(g) * 38_470 + u32::from(b) * 7_471 + 0x8000) >> 16) as u8
}

/// Less contrast than this is the paper's grain, not ink.
const MIN_CONTRAST: u8 = 16;
/// Of 255: from here on a pixel is part of the written digit.
const INK: u8 = 64;

/// Treats a grey picture as the makers of MNIST did.
fn digit(mut grey: Vec<u8>, width: usize, height: usize, target: Shape) -> Vec<u8> {
    let paper = border_median(&grey, width, height);
    let (low, high) = grey.iter().fold((u8::MAX, 0), |(low, high), &v| (low.min(v), high.max(v)));
    // Of a picture in one colour only the colour can decide.
    let middle = if low == high { 255 } else { u16::from(low) + u16::from(high) };
    let invert = u16::from(paper) * 2 > middle;
    if invert {
        grey.iter_mut().for_each(|v| *v = 255 - *v);
    }
    if (height, width) == (target.height, target.width) {
        return grey;
    }
    let mut out = vec![0; target.area()];
    let (paper, high) = if invert { (255 - paper, 255 - low) } else { (paper, high) };
    let contrast = high.saturating_sub(paper);
    if contrast < MIN_CONTRAST {
        return out;
    }
    // Paper becomes 0 and the darkest ink 255, as in the two-coloured scans that MNIST was made from.
    let stretch: [u8; 256] = std::array::from_fn(|v| {
        let above = (v as u32).saturating_sub(u32::from(paper)).min(u32::from(contrast));
        ((above * 255 + u32::from(contrast) / 2) / u32::from(contrast)) as u8
    });
    grey.iter_mut().for_each(|v| *v = stretch[usize::from(*v)]);
    let Some(ink) = ink_bounds(&grey, width) else { return out };

    let room = |side: usize| ((side * 20 + 14) / 28).max(1);
    let (room_height, room_width) = (room(target.height), room(target.width));
    let scale = (room_height as f64 / ink.height as f64).min(room_width as f64 / ink.width as f64);
    let scaled = |side: usize, room: usize| ((side as f64 * scale).round() as usize).clamp(1, room);
    let (digit_height, digit_width) = (scaled(ink.height, room_height), scaled(ink.width, room_width));
    let digit = resample(&grey, 1, width, ink, digit_height, digit_width);

    let (mut mass, mut moment_x, mut moment_y) = (0.0, 0.0, 0.0);
    for (at, &v) in digit.iter().enumerate() {
        let v = f64::from(v);
        mass += v;
        moment_x += v * ((at % digit_width) as f64 + 0.5);
        moment_y += v * ((at / digit_width) as f64 + 0.5);
    }
    // Rounded up, the centres of mass lie within half a pixel of the middle of pixel 14 of 28, as all of MNIST's do.
    // Nothing may be pushed over the edge, however lopsided the digit.
    let place = |side: usize, digit_side: usize, moment: f64| {
        let centre = if mass > 0.0 { moment / mass } else { digit_side as f64 / 2.0 };
        ((side as f64 / 2.0 - centre).ceil().max(0.0) as usize).min(side - digit_side)
    };
    let left = place(target.width, digit_width, moment_x);
    let top = place(target.height, digit_height, moment_y);
    for (y, row) in digit.chunks_exact(digit_width).enumerate() {
        let start = (top + y) * target.width + left;
        out[start..start + digit_width].copy_from_slice(row);
    }
    out
}

/// The median of the outermost pixels: the paper, even where the ink touches the border.
fn border_median(grey: &[u8], width: usize, height: usize) -> u8 {
    let mut histogram = [0usize; 256];
    for (y, row) in grey.chunks_exact(width).enumerate() {
        if y == 0 || y + 1 == height {
            row.iter().for_each(|&v| histogram[usize::from(v)] += 1);
        } else {
            row.first().into_iter().chain(row.last()).for_each(|&v| histogram[usize::from(v)] += 1);
        }
    }
    let half = histogram.iter().sum::<usize>().div_ceil(2);
    let mut seen = 0;
    (0..=u8::MAX)
        .find(|&v| {
            seen += histogram[usize::from(v)];
            seen >= half
        })
        .unwrap_or(0)
}

/// The smallest rectangle around the ink, if there is any.
fn ink_bounds(grey: &[u8], width: usize) -> Option<Rectangle> {
    let (mut left, mut right, mut top, mut bottom) = (usize::MAX, 0, None, 0);
    for (y, row) in grey.chunks_exact(width).enumerate() {
        let is_ink = |&v: &u8| v >= INK;
        if let Some(first) = row.iter().position(is_ink) {
            left = left.min(first);
            right = right.max(row.iter().rposition(is_ink).unwrap_or(first) + 1);
            top = top.or(Some(y));
            bottom = y + 1;
        }
    }
    top.map(|top| Rectangle { left, top, width: right - left, height: bottom - top })
}
