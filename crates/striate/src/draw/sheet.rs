//! A sheet of small pictures in bands, each with a heading, captions under the pictures, and what the colours mean.

use super::text::{self, Weight, fill};
use image::imageops::{FilterType, resize};
use image::{Rgb, RgbImage};
use ndarray::{ArrayView2, ArrayView3};
use std::ops::Range;

const MARGIN: u32 = 16;
const GUTTER: u32 = 8;
const LINE: u32 = text::HEIGHT + 3;
const PAPER: Rgb<u8> = Rgb([255; 3]);
const INK: Rgb<u8> = Rgb([32; 3]);
const FAINT: Rgb<u8> = Rgb([96; 3]);
const OUTLINE: Rgb<u8> = Rgb([150; 3]);
/// Of NaN and infinity.
const BAD: Rgb<u8> = Rgb([230, 0, 60]);
/// Around a part of a picture.
const FRAME: Rgb<u8> = Rgb([255, 122, 0]);
/// A sheet is at most this wide.
const WIDEST: u32 = 1120;
const NARROWEST: u32 = 420;
const BAR: u32 = 120;

/// Colours for numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Palette {
    /// Black to white.
    Gray,
    /// Blue over white to red: negative, zero, positive.
    Signed,
    /// Blue over gray to red, bright enough to be seen on dark pictures: [`overlay_signed`].
    Over,
    /// Black over purple and orange to light yellow, evenly brighter (after matplotlib's inferno).
    Heat,
}

impl Palette {
    fn stops(self) -> &'static [[u8; 3]] {
        match self {
            Palette::Gray => &[[0, 0, 0], [255, 255, 255]],
            Palette::Signed => &[[5, 48, 97], [67, 147, 195], [255, 255, 255], [214, 96, 77], [103, 0, 31]],
            Palette::Over => &[[30, 110, 255], [128, 128, 128], [240, 40, 30]],
            Palette::Heat => &[
                [0, 0, 4],
                [51, 10, 94],
                [120, 28, 109],
                [187, 55, 84],
                [237, 105, 37],
                [252, 165, 10],
                [252, 255, 164],
            ],
        }
    }

    /// The colour at `share` (0 to 1) of the way.
    pub fn color(self, share: f64) -> Rgb<u8> {
        if share.is_finite() { Rgb(super::svg::blend(self.stops(), share)) } else { BAD }
    }
}

/// Numbers as colours, a pixel each, from `low` to `high`; what is not finite is red.
pub fn map(values: ArrayView2<'_, f32>, palette: Palette, (low, high): (f32, f32)) -> RgbImage {
    let (rows, columns) = values.dim();
    let span = f64::from(high) - f64::from(low);
    RgbImage::from_fn(columns as u32, rows as u32, |x, y| {
        let value = f64::from(values[[y as usize, x as usize]]);
        palette.color(match value.is_finite() {
            true if span > 0.0 => (value - f64::from(low)) / span,
            true => 0.5,
            false => f64::NAN,
        })
    })
}

/// Numbers of either sign around white, on a scale of their own; also says how far the scale reaches.
pub fn signed(values: ArrayView2<'_, f32>) -> (RgbImage, f32) {
    let reach = reach(values);
    (map(values, Palette::Signed, (-reach, reach)), reach)
}

/// The largest absolute value that is finite.
fn reach(values: ArrayView2<'_, f32>) -> f32 {
    values.iter().filter(|v| v.is_finite()).fold(0.0f32, |most, v| most.max(v.abs()))
}

/// An image (C, H, W) of 1 or 3 channels from 0 to 1; of other numbers of channels the first is drawn.
pub fn picture(values: ArrayView3<'_, f32>) -> RgbImage {
    let (channels, rows, columns) = values.dim();
    RgbImage::from_fn(columns as u32, rows as u32, |x, y| {
        let level = |c: usize| {
            let value = values[[if channels == 3 { c } else { 0 }, y as usize, x as usize]];
            (value.clamp(0.0, 1.0) * 255.0).round() as u8
        };
        Rgb([level(0), level(1), level(2)])
    })
}

/// Heat (0 to 1) over a picture of the same size, which stays visible in gray.
pub fn overlay(picture: &RgbImage, heat: ArrayView2<'_, f32>) -> RgbImage {
    let (rows, columns) = heat.dim();
    RgbImage::from_fn(picture.width(), picture.height(), |x, y| {
        let level = gray(picture.get_pixel(x, y));
        let inside = (y as usize) < rows && (x as usize) < columns;
        let Rgb(color) = Palette::Heat.color(if inside { heat[[y as usize, x as usize]].into() } else { 0.0 });
        Rgb(color.map(|c| (0.45 * level + 0.55 * f64::from(c)).round() as u8))
    })
}

/// A picture at the size of a tile of this side, with a frame around some of its rows and columns.
pub fn framed(picture: &RgbImage, rows: Range<usize>, columns: Range<usize>, side: u32) -> RgbImage {
    let mut image = zoom(picture, side);
    let (width, height) = image.dimensions();
    let place = |at: usize, length: u32, all: u32| (at as u64 * u64::from(length) / u64::from(all.max(1))) as i64;
    let (left, right) = (place(columns.start, width, picture.width()), place(columns.end, width, picture.width()));
    let (top, bottom) = (place(rows.start, height, picture.height()), place(rows.end, height, picture.height()));
    for (at, size) in [
        ((left, top), (right - left, 2)),
        ((left, bottom - 2), (right - left, 2)),
        ((left, top), (2, bottom - top)),
        ((right - 2, top), (2, bottom - top)),
    ] {
        fill(&mut image, at, size, FRAME);
    }
    image
}

/// Numbers of either sign (blue below 0, red above) over a picture of the same size, which stays visible in gray where they
/// are small; the largest, on a scale of their own, hides most of it.
pub fn overlay_signed(picture: &RgbImage, values: ArrayView2<'_, f32>) -> RgbImage {
    const MOST: f64 = 0.85;
    let reach = reach(values);
    RgbImage::from_fn(picture.width(), picture.height(), |x, y| {
        let level = gray(picture.get_pixel(x, y));
        let value = values.get([y as usize, x as usize]).map_or(0.0, |&value| f64::from(value));
        let (share, Rgb(color)) = match value.is_finite() {
            false => (1.0, BAD),
            true if reach > 0.0 => {
                (MOST * value.abs() / f64::from(reach), Palette::Over.color(f64::from(u8::from(value > 0.0))))
            }
            true => (0.0, BAD),
        };
        Rgb(color.map(|c| ((1.0 - share) * level + share * f64::from(c)).round() as u8))
    })
}

/// How bright a pixel is.
fn gray(&Rgb([r, g, b]): &Rgb<u8>) -> f64 {
    0.299 * f64::from(r) + 0.587 * f64::from(g) + 0.114 * f64::from(b)
}

/// A small picture with words under it.
#[derive(Clone, Debug, PartialEq)]
pub struct Tile {
    /// Enlarged by a whole number, or made smaller, to about the sheet's size of a tile.
    pub image: RgbImage,
    /// A line or two.
    pub caption: String,
    /// Where this is not the sheet's size: the longer side in pixels.
    pub side: Option<u32>,
}

impl Tile {
    /// A tile of the sheet's size.
    pub fn new(image: RgbImage, caption: impl Into<String>) -> Self {
        Self { image, caption: caption.into(), side: None }
    }
}

/// Pictures that belong together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Band {
    /// Above them.
    pub heading: String,
    /// From left to right, in as many rows as they need.
    pub tiles: Vec<Tile>,
}

/// Colours and the words at their ends.
#[derive(Clone, Debug, PartialEq)]
pub struct Legend {
    /// The colours.
    pub palette: Palette,
    /// What their two ends mean.
    pub ends: [String; 2],
}

impl Legend {
    /// With words at both ends.
    pub fn new(palette: Palette, low: impl Into<String>, high: impl Into<String>) -> Self {
        Self { palette, ends: [low.into(), high.into()] }
    }
}

/// A sheet: fill it and [`draw`](Sheet::draw) it.
///
/// ```
/// use striate::draw::sheet::{Band, Legend, Palette, Sheet, Tile, map};
/// let values = ndarray::Array2::from_shape_fn((5, 5), |(y, x)| (x * y) as f32);
/// let tile = Tile::new(map(values.view(), Palette::Heat, (0.0, 16.0)), "x times y");
/// let sheet = Sheet {
///     title: "Products".into(),
///     bands: vec![Band { heading: "of two".into(), tiles: vec![tile] }],
///     legends: vec![Legend::new(Palette::Heat, "0", "16")],
///     ..Sheet::default()
/// };
/// assert!(sheet.draw().width() >= 400);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Sheet {
    /// At the top.
    pub title: String,
    /// From top to bottom.
    pub bands: Vec<Band>,
    /// The longer side of a tile in pixels: 112.
    pub side: u32,
    /// What the colours mean.
    pub legends: Vec<Legend>,
    /// Words at the end.
    pub notes: Vec<String>,
}

impl Default for Sheet {
    fn default() -> Self {
        Self { title: String::new(), bands: Vec::new(), side: 112, legends: Vec::new(), notes: Vec::new() }
    }
}

/// Where a tile will stand.
struct Placed {
    at: (u32, u32),
    image: RgbImage,
    caption: Vec<String>,
    width: u32,
}

/// Where a line of text will stand, and how.
type Line = ((u32, u32), String, Rgb<u8>, Weight);

impl Sheet {
    /// The picture.
    pub fn draw(&self) -> RgbImage {
        let mut placed: Vec<Placed> = Vec::new();
        let mut lines: Vec<Line> = Vec::new();
        let inner = WIDEST - 2 * MARGIN;
        let mut right = NARROWEST - MARGIN;
        let mut y = MARGIN;
        for line in text::wrap(&self.title, inner) {
            right = right.max(MARGIN + text::width(&line, 1));
            lines.push(((MARGIN, y), line, INK, Weight::Bold));
            y += LINE;
        }
        for band in &self.bands {
            y += GUTTER;
            for line in text::wrap(&band.heading, inner) {
                right = right.max(MARGIN + text::width(&line, 1));
                lines.push(((MARGIN, y), line, INK, Weight::Regular));
                y += LINE;
            }
            let (mut x, mut tallest) = (MARGIN, 0);
            for tile in &band.tiles {
                let image = zoom(&tile.image, tile.side.unwrap_or(self.side));
                let least = if tile.caption.is_empty() { 0 } else { 56 };
                let width = image.width().max(least);
                let caption: Vec<String> = text::wrap(&tile.caption, width).into_iter().take(3).collect();
                if x > MARGIN && x + width > WIDEST - MARGIN {
                    y += tallest + GUTTER;
                    (x, tallest) = (MARGIN, 0);
                }
                tallest = tallest.max(image.height() + 2 + caption.len() as u32 * LINE);
                right = right.max(x + width);
                placed.push(Placed { at: (x, y), image, caption, width });
                x += width + GUTTER;
            }
            y += tallest;
        }
        y += GUTTER;
        for legend in &self.legends {
            let [low, high] = &legend.ends;
            right = right.max(MARGIN + text::width(low, 1) + BAR + text::width(high, 1) + 4 * GUTTER);
            y += LINE + 2;
        }
        let legends_end = y;
        for note in &self.notes {
            for line in text::wrap(note, right - MARGIN) {
                lines.push(((MARGIN, y), line, FAINT, Weight::Regular));
                y += LINE;
            }
        }
        let mut image = RgbImage::from_pixel(right + MARGIN, y + MARGIN, PAPER);
        for ((x, y), line, color, weight) in lines {
            text::write(&mut image, (x.into(), y.into()), &line, color, 1, weight);
        }
        for Placed { at: (x, y), image: tile, caption, width } in placed {
            let left = x + (width - tile.width()) / 2;
            let (w, h) = tile.dimensions();
            fill(&mut image, (i64::from(left) - 1, i64::from(y) - 1), (i64::from(w) + 2, i64::from(h) + 2), OUTLINE);
            image::imageops::replace(&mut image, &tile, left.into(), y.into());
            for (row, line) in caption.iter().enumerate() {
                let across = x + (width.saturating_sub(text::width(line, 1))) / 2;
                let down = y + h + 3 + row as u32 * LINE;
                text::write(&mut image, (across.into(), down.into()), line, FAINT, 1, Weight::Regular);
            }
        }
        let mut y = legends_end - self.legends.len() as u32 * (LINE + 2);
        for Legend { palette, ends: [low, high] } in &self.legends {
            let mut x = i64::from(MARGIN);
            text::write(&mut image, (x, y.into()), low, FAINT, 1, Weight::Regular);
            x += i64::from(text::width(low, 1) + GUTTER);
            fill(&mut image, (x - 1, i64::from(y)), (i64::from(BAR) + 2, 13), OUTLINE);
            for step in 0..BAR {
                let color = palette.color(f64::from(step) / f64::from(BAR - 1));
                fill(&mut image, (x + i64::from(step), i64::from(y) + 1), (1, 11), color);
            }
            x += i64::from(BAR + GUTTER);
            text::write(&mut image, (x, y.into()), high, FAINT, 1, Weight::Regular);
            y += LINE + 2;
        }
        image
    }
}

/// Enlarged by a whole number of times to about `side`, each pixel a square; or made smaller to it.
pub fn zoom(image: &RgbImage, side: u32) -> RgbImage {
    let (width, height) = image.dimensions();
    let longest = width.max(height).max(1);
    if longest > side {
        let scaled = |pixels: u32| (u64::from(pixels) * u64::from(side) / u64::from(longest)).max(1) as u32;
        return resize(image, scaled(width), scaled(height), FilterType::Triangle);
    }
    let factor = ((side + longest / 2) / longest).max(1);
    RgbImage::from_fn(width * factor, height * factor, |x, y| *image.get_pixel(x / factor, y / factor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn colours_of_known_numbers() {
        let image = map(array![[0.0, 5.0, 10.0, f32::NAN]].view(), Palette::Gray, (0.0, 10.0));
        let found: Vec<[u8; 3]> = image.pixels().map(|p| p.0).collect();
        assert_eq!(found, [[0; 3], [128; 3], [255; 3], BAD.0]);
        let (image, reach) = signed(array![[-4.0, 0.0, 2.0]].view());
        assert_eq!((reach, image.get_pixel(1, 0).0), (4.0, [255; 3]));
        assert_eq!(image.get_pixel(0, 0).0, [5, 48, 97]);
        assert!(image.get_pixel(2, 0).0[0] > image.get_pixel(2, 0).0[2], "positive is red");
        // No scale: the middle.
        assert_eq!(map(array![[3.0]].view(), Palette::Gray, (3.0, 3.0)).get_pixel(0, 0).0, [128; 3]);
    }

    #[test]
    fn overlays_keep_the_picture_where_nothing_is_and_colour_the_rest() {
        let photograph = RgbImage::from_fn(4, 1, |x, _| Rgb([[200; 3], [200; 3], [200; 3], [255, 0, 0]][x as usize]));
        let found = overlay_signed(&photograph, array![[0.0, 2.0, -2.0, 0.0]].view());
        assert_eq!((found.get_pixel(0, 0).0, found.get_pixel(3, 0).0), ([200; 3], [76; 3]));
        // 0.15 of the gray and 0.85 of the colour's end.
        assert_eq!(found.get_pixel(1, 0).0, [234, 64, 56]);
        assert_eq!(found.get_pixel(2, 0).0, [56, 124, 247]);
        let half = overlay_signed(&photograph, array![[1.0, 2.0, f32::NAN, 0.0]].view());
        assert_eq!(half.get_pixel(0, 0).0, [217, 132, 128]);
        assert_eq!(half.get_pixel(2, 0).0, BAD.0);
        assert_eq!(overlay_signed(&photograph, array![[0.0; 4]].view()).get_pixel(0, 0).0, [200; 3]);
        // Heat: 0.45 of the gray and 0.55 of the palette.
        let heat = overlay(&photograph, array![[0.0, 1.0, 0.0, 0.0]].view());
        assert_eq!((heat.get_pixel(0, 0).0, heat.get_pixel(1, 0).0), ([90, 90, 92], [229, 230, 180]));
    }

    #[test]
    fn tiles_stand_in_rows_that_fit_the_page() {
        let tile = Tile::new(RgbImage::from_pixel(10, 10, Rgb([1, 2, 3])), "a caption of several words");
        let band = Band { heading: "many".into(), tiles: vec![tile; 40] };
        let sheet = Sheet { title: "Tiles".into(), bands: vec![band], ..Sheet::default() }.draw();
        assert!(sheet.width() <= WIDEST && sheet.height() > 4 * 112, "{:?}", sheet.dimensions());
        let pixels = sheet.pixels().filter(|p| p.0 == [1, 2, 3]).count();
        assert_eq!(pixels, 40 * 110 * 110);
        let empty = Sheet::default().draw();
        assert_eq!(empty.width(), NARROWEST);
    }

    #[test]
    fn a_frame_surrounds_its_rows_and_columns() {
        let image = framed(&RgbImage::new(10, 10), 2..5, 4..10, 100);
        let framed = |x, y| image.get_pixel(x, y).0 == FRAME.0;
        assert!(framed(40, 20) && framed(99, 49) && framed(60, 21) && framed(41, 35));
        assert!(!framed(39, 30) && !framed(60, 19) && !framed(60, 50) && !framed(60, 30));
        assert_eq!(image.pixels().filter(|p| p.0 == FRAME.0).count(), 60 * 30 - 56 * 26);
    }

    #[test]
    fn zoom_is_crisp_or_smaller() {
        let image = RgbImage::from_fn(4, 2, |x, _| Rgb([x as u8 * 50; 3]));
        let large = zoom(&image, 112);
        assert_eq!(
            (large.dimensions(), large.get_pixel(28, 0).0, large.get_pixel(27, 55).0),
            ((112, 56), [50; 3], [0; 3])
        );
        assert_eq!(zoom(&RgbImage::new(400, 200), 100).dimensions(), (100, 50));
    }
}
