//! Pictures one after the other as an animated PNG, which browsers play and other viewers show the first picture of.

use super::DrawError;
use image::error::{EncodingError, ImageFormatHint};
use image::{ImageError, ImageFormat, Rgb, RgbImage};
use png::{BitDepth, ColorType, Compression, Encoder};

/// Frames of equal length that repeat for ever; the first and the last stay longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Milliseconds of a frame: 160.
    pub frame: u16,
    /// Milliseconds of the first and of the last: 1200.
    pub ends: u16,
}

impl Default for Pace {
    fn default() -> Self {
        Self { frame: 160, ends: 1200 }
    }
}

/// Pictures as the bytes of an animated PNG file. One smaller than the largest gets white at its right and below.
///
/// ```
/// use image::{Rgb, RgbImage};
/// let frames = [0, 100, 200].map(|level| RgbImage::from_pixel(4, 3, Rgb([level; 3])));
/// let bytes = striate::draw::animation(&frames, Default::default())?;
/// // Whoever knows nothing of animations sees the first.
/// assert_eq!(image::load_from_memory(&bytes).unwrap().into_rgb8(), frames[0]);
/// # Ok::<(), striate::draw::DrawError>(())
/// ```
///
/// # Errors
/// No pictures, or pictures without pixels.
pub fn animation(frames: &[RgbImage], pace: Pace) -> Result<Vec<u8>, DrawError> {
    let (width, height) = largest(frames);
    encode(frames, (width, height), pace).map_err(|source| {
        let source = ImageError::Encoding(EncodingError::new(ImageFormatHint::Exact(ImageFormat::Png), source));
        DrawError { width, height, source }
    })
}

/// The largest width and the largest height.
pub(super) fn largest(frames: &[RgbImage]) -> (u32, u32) {
    let largest = |side: fn(&RgbImage) -> u32| frames.iter().map(side).max().unwrap_or(0);
    (largest(RgbImage::width), largest(RgbImage::height))
}

/// A picture with white at its right and below, up to this size.
pub(super) fn on_white(picture: &RgbImage, (width, height): (u32, u32)) -> RgbImage {
    let mut canvas = RgbImage::from_pixel(width, height, Rgb([255; 3]));
    image::imageops::replace(&mut canvas, picture, 0, 0);
    canvas
}

fn encode(frames: &[RgbImage], (width, height): (u32, u32), pace: Pace) -> Result<Vec<u8>, png::EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, width, height);
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_compression(Compression::High);
    if frames.len() > 1 {
        encoder.set_animated(frames.len() as u32, 0)?;
    }
    let mut writer = encoder.write_header()?;
    for (i, frame) in frames.iter().enumerate() {
        if frames.len() > 1 {
            let is_end = i == 0 || i + 1 == frames.len();
            writer.set_frame_delay(if is_end { pace.ends } else { pace.frame }, 1000)?;
        }
        writer.write_image_data(&on_white(frame, (width, height)))?;
    }
    writer.finish()?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::AnimationDecoder;
    use image::codecs::png::PngDecoder;
    use std::io::Cursor;

    #[test]
    fn every_frame_comes_back_with_its_time() {
        let frames: Vec<RgbImage> =
            (0..4).map(|n| RgbImage::from_pixel(5 + n % 2, 4, Rgb([60 * n as u8; 3]))).collect();
        let bytes = animation(&frames, Pace { frame: 100, ends: 900 }).unwrap();
        let decoder = PngDecoder::new(Cursor::new(bytes)).unwrap().apng().unwrap();
        let found = decoder.into_frames().collect_frames().unwrap();
        assert_eq!(found.len(), 4);
        for (n, (frame, expected)) in found.iter().zip(&frames).enumerate() {
            assert_eq!(frame.buffer().dimensions(), (6, 4));
            assert_eq!(frame.buffer().get_pixel(0, 0).0[..3], expected.get_pixel(0, 0).0);
            let milliseconds = frame.delay().numer_denom_ms();
            assert_eq!(milliseconds.0 / milliseconds.1, if n % 3 == 0 { 900 } else { 100 });
        }
        assert_eq!(found[0].buffer().get_pixel(5, 0).0, [255; 4], "the narrower ones have a white edge");
    }

    #[test]
    fn one_picture_is_a_still_and_none_is_an_error() {
        let bytes = animation(&[RgbImage::new(2, 2)], Pace::default()).unwrap();
        assert!(!PngDecoder::new(Cursor::new(bytes)).unwrap().is_apng().unwrap());
        assert!(animation(&[], Pace::default()).unwrap_err().to_string().contains("0 x 0"));
    }
}
