//! A contact sheet: images in a grid, large enough to see, each with a few words below.

use super::text::{self, Weight, fill};
use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};
use ndarray::ArrayView3;

/// Side of the square an image is fitted into.
const SIDE: u32 = 112;
/// Images up to this size are enlarged by whole pixels; larger ones are resampled.
const SMALL: u32 = 56;
const MARGIN: u32 = 16;
const GAP: u32 = 14;
/// Letters in a line below an image.
const LETTERS: usize = (SIDE / text::WIDTH) as usize;

const PAPER: Rgb<u8> = Rgb([255; 3]);
const INK: Rgb<u8> = Rgb([32; 3]);
const OUTLINE: Rgb<u8> = Rgb([150; 3]);

/// An image of the sheet.
#[derive(Clone, Debug)]
pub struct Tile {
    /// What is shown, at any size.
    pub image: RgbImage,
    /// Lines below it; what does not fit into 16 letters is cut.
    pub words: Vec<String>,
}

/// An image of numbers from 0 to 1, (C, H, W), as a picture: three channels are red, green and blue, and of any other
/// number the first is gray. What is not a number is black.
///
/// ```
/// let values = ndarray::arr3(&[[[0.0, 0.5, 1.0]]]);
/// let picture = striate::draw::picture(values.view());
/// assert_eq!(picture.into_raw(), [0, 0, 0, 128, 128, 128, 255, 255, 255]);
/// ```
pub fn picture(values: ArrayView3<'_, f32>) -> RgbImage {
    let (channels, height, width) = values.dim();
    let level = |channel: usize, x: u32, y: u32| {
        let channel = if channels == 3 { channel } else { 0 };
        let value = values.get((channel, y as usize, x as usize)).copied().unwrap_or(0.0);
        (255.0 * value.clamp(0.0, 1.0)).round() as u8
    };
    RgbImage::from_fn(width as u32, height as u32, |x, y| Rgb([0, 1, 2].map(|channel| level(channel, x, y))))
}

/// Draws the sheet, `columns` images a row, under a title.
///
/// ```
/// use image::{Rgb, RgbImage};
/// use striate::draw::{Tile, gallery};
///
/// let tile = |gray| Tile { image: RgbImage::from_pixel(28, 28, Rgb([gray; 3])), words: vec!["a gray".into()] };
/// let sheet = gallery(&[tile(0), tile(100), tile(200)], 2, "Grays");
/// assert!(sheet.width() > 2 * 112 && sheet.height() > 2 * 112);
/// ```
pub fn gallery(tiles: &[Tile], columns: usize, title: &str) -> RgbImage {
    let columns = columns.clamp(1, tiles.len().max(1)) as u32;
    let rows = (tiles.len() as u32).div_ceil(columns);
    let line = text::HEIGHT + 2;
    let lines = tiles.iter().map(|tile| tile.words.len()).max().unwrap_or(0) as u32;
    let inner = columns * (SIDE + GAP) - GAP;
    let title = text::wrap(title, (inner / text::WIDTH) as usize);
    let top = MARGIN + title.len() as u32 * line + 8;
    let step = (SIDE + GAP, SIDE + 5 + lines * line + GAP);
    let (width, height) = (inner + 2 * MARGIN, (top + rows * step.1).saturating_sub(GAP) + MARGIN);
    let mut sheet = RgbImage::from_pixel(width, height, PAPER);
    for (row, words) in (0i64..).zip(&title) {
        text::write(
            &mut sheet,
            (MARGIN.into(), i64::from(MARGIN) + row * i64::from(line)),
            words,
            INK,
            1,
            Weight::Bold,
        );
    }
    for (index, tile) in (0u32..).zip(tiles) {
        let (left, top) = (MARGIN + index % columns * step.0, top + index / columns * step.1);
        let (left, top) = (i64::from(left), i64::from(top));
        if let Some(image) = fitted(&tile.image) {
            let x = left + i64::from(SIDE - image.width()) / 2;
            let y = top + i64::from(SIDE - image.height()) / 2;
            fill(&mut sheet, (x - 1, y - 1), (i64::from(image.width()) + 2, i64::from(image.height()) + 2), OUTLINE);
            imageops::replace(&mut sheet, &image, x, y);
        }
        for (row, words) in (0i64..).zip(&tile.words) {
            let y = top + i64::from(SIDE) + 5 + row * i64::from(line);
            let weight = if row == 0 { Weight::Bold } else { Weight::Regular };
            let words: String = words.chars().take(LETTERS).collect();
            text::write(&mut sheet, (left, y), &words, INK, 1, weight);
        }
    }
    sheet
}

/// The image as large as the square allows; none without pixels.
fn fitted(image: &RgbImage) -> Option<RgbImage> {
    let (width, height) = image.dimensions();
    let longest = width.max(height);
    if width == 0 || height == 0 {
        return None;
    }
    if longest <= SMALL {
        // Pixels stay squares, which smoothing would hide.
        let factor = SIDE / longest;
        return Some(imageops::resize(image, width * factor, height * factor, FilterType::Nearest));
    }
    Some(resized(image, SIDE))
}

/// The image resampled so that its longer side is `side` pixels.
///
/// ```
/// let image = image::RgbImage::new(400, 100);
/// assert_eq!(striate::draw::resized(&image, 100).dimensions(), (100, 25));
/// ```
pub fn resized(image: &RgbImage, side: u32) -> RgbImage {
    let (width, height) = image.dimensions();
    let longest = u64::from(width.max(height).max(1));
    let size = |of: u32| ((u64::from(of) * u64::from(side) / longest) as u32).max(1);
    imageops::resize(image, size(width), size(height), FilterType::CatmullRom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tile(width: u32, height: u32) -> Tile {
        Tile { image: RgbImage::from_pixel(width, height, Rgb([10, 200, 30])), words: vec!["word".repeat(9)] }
    }

    #[test]
    fn images_of_any_size_are_fitted() {
        for (width, height, expected) in [
            (28, 28, Some((112, 112))),
            (32, 32, Some((96, 96))),
            (300, 100, Some((112, 37))),
            (4000, 1, Some((112, 1))),
            (1, 1, Some((112, 112))),
            (0, 5, None),
        ] {
            assert_eq!(fitted(&tile(width, height).image).map(|i| i.dimensions()), expected, "{width} x {height}");
        }
    }

    #[test]
    fn sheets_of_any_number() {
        for (tiles, columns) in [(0, 0), (0, 4), (1, 0), (5, 3), (7, 100)] {
            let sheet = gallery(&vec![tile(8, 8); tiles], columns, "A title that is longer than the sheet is wide");
            let green = sheet.pixels().filter(|p| p.0 == [10, 200, 30]).count();
            assert_eq!(green, tiles * 112 * 112);
        }
    }

    #[test]
    fn colours_and_what_is_no_number() {
        let values = ndarray::arr3(&[[[1.0f32, f32::NAN]], [[0.0, 7.0]], [[-1.0, f32::INFINITY]]]);
        assert_eq!(picture(values.view()).into_raw(), [255, 0, 0, 0, 255, 255]);
        assert_eq!(picture(values.slice(ndarray::s![..2, .., ..])).into_raw(), [255, 255, 255, 0, 0, 0]);
        assert_eq!(picture(ndarray::Array3::zeros((0, 1, 1)).view()).into_raw(), [0; 3]);
    }
}
