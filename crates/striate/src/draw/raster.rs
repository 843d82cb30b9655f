//! Plotters on pixels, with the letters of [`text`](super::text), so that a plot as PNG needs no font file.

use super::text::{self, Weight};
use image::{Rgb, RgbImage};
use plotters_backend::text_anchor::{HPos, VPos};
use plotters_backend::{BackendColor, BackendCoord, BackendTextStyle, DrawingBackend, DrawingErrorKind, FontStyle};
use std::convert::Infallible;

/// An image to draw on.
pub(super) struct Raster<'a> {
    image: &'a mut RgbImage,
}

impl<'a> Raster<'a> {
    pub(super) fn new(image: &'a mut RgbImage) -> Self {
        Self { image }
    }
}

/// How many times the letters are enlarged for a size in pixels.
fn scale(size: f64) -> u32 {
    (size / f64::from(text::HEIGHT + 2)).round().clamp(1.0, 8.0) as u32
}

impl DrawingBackend for Raster<'_> {
    type ErrorType = Infallible;

    fn get_size(&self) -> (u32, u32) {
        self.image.dimensions()
    }

    fn ensure_prepared(&mut self) -> Result<(), DrawingErrorKind<Infallible>> {
        Ok(())
    }

    fn present(&mut self) -> Result<(), DrawingErrorKind<Infallible>> {
        Ok(())
    }

    fn draw_pixel(&mut self, (x, y): BackendCoord, color: BackendColor) -> Result<(), DrawingErrorKind<Infallible>> {
        if let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y))
            && let Some(pixel) = self.image.get_pixel_mut_checked(x, y)
        {
            let mix = |old: u8, new: u8| {
                (f64::from(old) + (f64::from(new) - f64::from(old)) * color.alpha.clamp(0.0, 1.0)).round() as u8
            };
            let (Rgb([r, g, b]), (red, green, blue)) = (*pixel, color.rgb);
            *pixel = Rgb([mix(r, red), mix(g, green), mix(b, blue)]);
        }
        Ok(())
    }

    fn estimate_text_size<S: BackendTextStyle>(
        &self,
        words: &str,
        style: &S,
    ) -> Result<(u32, u32), DrawingErrorKind<Infallible>> {
        let scale = scale(style.size());
        Ok((text::width(words, scale), text::HEIGHT * scale))
    }

    fn draw_text<S: BackendTextStyle>(
        &mut self,
        words: &str,
        style: &S,
        (x, y): BackendCoord,
    ) -> Result<(), DrawingErrorKind<Infallible>> {
        let scale = scale(style.size());
        let (width, height) = (i64::from(text::width(words, scale)), i64::from(text::HEIGHT * scale));
        let x = i64::from(x)
            - match style.anchor().h_pos {
                HPos::Left => 0,
                HPos::Center => width / 2,
                HPos::Right => width,
            };
        let y = i64::from(y)
            - match style.anchor().v_pos {
                VPos::Top => 0,
                VPos::Center => height / 2,
                VPos::Bottom => height,
            };
        let weight = if matches!(style.style(), FontStyle::Bold) { Weight::Bold } else { Weight::Regular };
        let (r, g, b) = style.color().rgb;
        text::write(self.image, (x, y), words, Rgb([r, g, b]), scale, weight);
        Ok(())
    }
}
