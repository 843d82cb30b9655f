//! Pictures and bytes as a page takes them.

use super::StudioError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::RgbImage;
use striate::draw;
use striate::draw::sheet::Palette;

/// A picture as an address that holds it.
pub(super) fn png(image: &RgbImage) -> Result<String, StudioError> {
    Ok(format!("data:image/png;base64,{}", STANDARD.encode(draw::png(image)?)))
}

/// Bytes as text.
pub(super) fn text(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// And back, also from an address that holds them.
pub(super) fn bytes(text: &str, what: &str) -> Result<Vec<u8>, StudioError> {
    let text = text.rsplit_once("base64,").map_or(text, |(_, data)| data);
    STANDARD.decode(text.trim()).map_err(|error| StudioError::Question(format!("{what} is not base64: {error}")))
}

/// A palette as a strip from its low to its high end.
pub(super) fn strip(palette: Palette) -> Result<String, StudioError> {
    const STEPS: u32 = 64;
    png(&RgbImage::from_fn(STEPS, 1, |x, _| palette.color(f64::from(x) / f64::from(STEPS - 1))))
}

/// A number of either sign as a colour around white; `reach` is the end of the scale.
pub(super) fn signed(value: f32, reach: f32) -> String {
    let share = if reach > 0.0 { f64::from(value / reach).mul_add(0.5, 0.5) } else { 0.5 };
    let image::Rgb([r, g, b]) = Palette::Signed.color(share);
    format!("#{r:02x}{g:02x}{b:02x}")
}
