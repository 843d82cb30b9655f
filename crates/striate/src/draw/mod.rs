//! Pictures, one file each: filters, contact sheets and timelines as PNG; learning curves, learning-rate range tests,
//! confusion matrices, reliability diagrams and diagrams of networks as SVG; scatter and line plots as either.
//!
//! A picture is a function of numbers and a title, and knows nothing of networks, training or files.
//! Raster pictures carry their own letters ([`text`]); SVG leaves them to the viewer's fonts. Any text may come from
//! outside (class names, titles) and is escaped.

mod animation;
pub mod confusion;
pub mod curves;
pub mod diagram;
pub mod filters;
pub mod lines;
pub mod plot;
mod raster;
pub mod rates;
pub mod reliability;
pub mod scatter;
pub mod sheet;
mod svg;
pub mod text;
pub mod timeline;

pub use self::animation::{Pace, animation};
pub use self::confusion::confusion;
pub use self::curves::{CurvePoint, curves};
pub use self::diagram::{DiagramLayer, diagram};
pub use self::filters::{FilterGrid, FilterPicture, before_and_after, filters};
pub use self::lines::{LinePanel, Lines};
pub use self::plot::Plot;
pub use self::rates::{RateLoss, learning_rates};
pub use self::reliability::{ReliabilityBin, reliability};
pub use self::scatter::Scatter;
pub use self::sheet::Sheet;
pub use self::timeline::Timeline;

use image::RgbImage;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};

/// Why a picture can't be encoded.
#[derive(Debug, thiserror::Error)]
#[error("the picture of {width} x {height} pixels can't be encoded as PNG: {source}")]
pub struct DrawError {
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// What the encoder says.
    pub source: image::ImageError,
}

/// A picture as the bytes of a PNG file.
///
/// ```
/// let filters = ndarray::Array4::from_shape_fn((30, 1, 5, 5), |(n, _, y, x)| (n * (y + 2 * x)) as f32);
/// let picture = striate::draw::filters(filters.view(), "Conv1 before training");
/// let bytes = striate::draw::png(&picture.image)?;
/// assert_eq!(image::load_from_memory(&bytes).unwrap().into_rgb8(), picture.image);
/// # Ok::<(), striate::draw::DrawError>(())
/// ```
///
/// # Errors
/// A picture without pixels.
pub fn png(image: &RgbImage) -> Result<Vec<u8>, DrawError> {
    let mut bytes = Vec::new();
    let (width, height) = image.dimensions();
    // Half as large as by the fast way, and still a matter of milliseconds.
    let encoder = PngEncoder::new_with_quality(&mut bytes, CompressionType::Best, FilterType::Adaptive);
    image.write_with_encoder(encoder).map_err(|source| DrawError { width, height, source })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_picture_is_an_error() {
        assert!(png(&RgbImage::new(0, 0)).unwrap_err().to_string().contains("0 x 0"));
    }
}
