//! Pictures of arrays: one file a picture. Nothing here computes what it draws.

mod confusion;
mod curves;
mod filters;

pub use confusion::confusion;
pub use curves::{CurvePoint, curves};
pub use filters::filters;

use crate::formats::{WriteAction, WriteError, write_atomically};
use image::{ImageFormat, RgbImage};
use std::io::{self, Cursor};
use std::path::Path;

/// Writes a picture as PNG, whole or not at all.
///
/// # Errors
/// The file can't be written.
pub fn save_png(picture: &RgbImage, path: &Path) -> Result<(), WriteError> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png).map_err(|error| WriteError {
        path: path.to_owned(),
        action: WriteAction::Write,
        source: io::Error::other(error),
    })?;
    write_atomically(path, bytes.get_ref())
}

/// Text for XML.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            // XML allows no other control characters.
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}
