//! Filters as tiles, as in figure 7-24.

use crate::explain::filters::Filters;
use image::{Rgb, RgbImage};
use ndarray::ArrayView3;

/// Side of the square that one weight becomes, for filters of up to [`TILE`] / [`PIXEL`] weights a side.
const PIXEL: usize = 12;
/// About the side of a tile.
const TILE: usize = 60;
/// White between tiles.
const GUTTER: usize = 8;
/// More tiles than this are left out.
const MAX_TILES: usize = 1024;

/// One tile a filter, each from black (its smallest weight) to white (its largest), as in the book. Filters of three
/// channels are drawn in colour; of another number, each channel is a grey tile of its own.
///
/// ```
/// use ndarray::Array4;
/// use striate::{draw, explain::filters::Filters};
/// let weights = Array4::from_shape_fn((30, 1, 5, 5), |(n, _, y, x)| (n + y * x) as f32);
/// let picture = draw::filters(&Filters { name: "W1".into(), weights });
/// assert!(picture.width() > picture.height());
/// ```
pub fn filters(filters: &Filters) -> RgbImage {
    let (count, channels, height, width) = filters.weights.dim();
    let pixel = (TILE / height.max(width).max(1)).clamp(1, PIXEL);
    let colour = channels == 3;
    let tiles = if colour { count } else { count * channels }.min(MAX_TILES);
    // A little wider than high: 30 filters make 6 columns of 5.
    let columns = (1..=tiles.max(1)).find(|c| c * c >= tiles).unwrap_or(1);
    let rows = tiles.div_ceil(columns).max(1);
    let size = |n: usize, side: usize| (n * (side * pixel + GUTTER) + GUTTER) as u32;
    let mut picture = RgbImage::from_pixel(size(columns, width), size(rows, height), Rgb([255; 3]));
    for tile in 0..tiles {
        let filter = filters.weights.index_axis(ndarray::Axis(0), if colour { tile } else { tile / channels });
        let channel = if colour { 0..3 } else { tile % channels..tile % channels + 1 };
        let filter = filter.slice(ndarray::s![channel, .., ..]);
        let left = GUTTER + tile % columns * (width * pixel + GUTTER);
        let top = GUTTER + tile / columns * (height * pixel + GUTTER);
        let shade = shades(filter);
        for y in 0..height * pixel {
            for x in 0..width * pixel {
                picture.put_pixel((left + x) as u32, (top + y) as u32, shade(y / pixel, x / pixel));
            }
        }
    }
    picture
}

/// The colour of a weight, from black at the filter's smallest to white at its largest. A weight that is not finite is
/// red, and a filter that is the same everywhere is grey.
fn shades(filter: ArrayView3<'_, f32>) -> impl Fn(usize, usize) -> Rgb<u8> {
    let finite = || filter.iter().copied().filter(|w| w.is_finite());
    let low = finite().fold(f32::INFINITY, f32::min);
    let range = finite().fold(f32::NEG_INFINITY, f32::max) - low;
    let last = filter.dim().0 - 1;
    move |y, x| {
        let channel = |c: usize| filter[[c.min(last), y, x]];
        if (0..=last).any(|c| !channel(c).is_finite()) {
            return Rgb([220, 30, 30]);
        }
        let level = |c: usize| {
            let share = if range > 0.0 { (channel(c) - low) / range } else { 0.5 };
            (255.0 * share).round() as u8
        };
        Rgb([level(0), level(1), level(2)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array4;

    fn picture(weights: Array4<f32>) -> RgbImage {
        filters(&Filters { name: "W1".into(), weights })
    }

    #[test]
    fn thirty_filters_make_five_rows_of_six() {
        let mut weights = Array4::zeros((30, 1, 5, 5));
        weights[[0, 0, 0, 0]] = -1.0;
        weights[[0, 0, 4, 4]] = 1.0;
        weights[[7, 0, 2, 2]] = f32::NAN;
        let picture = picture(weights);
        assert_eq!(picture.dimensions(), (6 * 68 + 8, 5 * 68 + 8));
        assert_eq!(picture.get_pixel(0, 0), &Rgb([255; 3]), "the gutter");
        assert_eq!(picture.get_pixel(8, 8), &Rgb([0; 3]), "the smallest weight");
        assert_eq!(picture.get_pixel(8 + 59, 8 + 59), &Rgb([255; 3]), "the largest weight");
        assert_eq!(picture.get_pixel(8 + 30, 8 + 30), &Rgb([128; 3]), "the middle");
        assert_eq!(picture.get_pixel(76 + 30, 76 + 30), &Rgb([220, 30, 30]), "NaN");
        assert_eq!(picture.get_pixel(144, 8), &Rgb([128; 3]), "a constant filter");
    }

    #[test]
    fn three_channels_are_colours_and_others_tiles() {
        let colours = Array4::from_shape_fn((1, 3, 1, 1), |(_, c, _, _)| c as f32);
        assert_eq!(picture(colours).get_pixel(8, 8), &Rgb([0, 128, 255]));
        let tiles = picture(Array4::zeros((2, 2, 3, 3)));
        assert_eq!(tiles.dimensions(), (2 * 44 + 8, 2 * 44 + 8));
        assert!(picture(Array4::zeros((0, 1, 3, 3))).width() > 0);
        assert!(picture(Array4::zeros((5000, 1, 1, 1))).height() < 1000);
    }
}
