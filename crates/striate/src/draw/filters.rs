//! Filters as a grid of tiles (figure 7-24 of the book).

use super::text::{self, Weight, fill};
use image::{Rgb, RgbImage};
use ndarray::{ArrayView3, ArrayView4, Axis, s};
use std::ops::Range;

/// Filters drawn at most; a page holds no more that can still be told apart.
const MAX_FILTERS: usize = 256;
/// Filters and channels drawn at most where every channel has a tile of its own.
const MAX_ROWS: usize = 32;
const MAX_CHANNELS: usize = 32;
/// Tiles are scaled by a whole number to about this many pixels: large, or small where there is one a channel.
const TILE: usize = 54;
const SMALL_TILE: usize = 33;
/// Longest side of a tile; larger filters are thinned out.
const MAX_TILE: usize = 240;
const FRAME: usize = 1;
const GUTTER: usize = 4;
const MARGIN: usize = 16;
/// Space between two grids side by side.
const GAP: usize = 32;
/// Text must fit above and below the narrowest grid.
const MIN_WIDTH: usize = 224;
const BAR: (usize, usize) = (96, 11);

const PAPER: Rgb<u8> = Rgb([255; 3]);
const INK: Rgb<u8> = Rgb([32; 3]);
const FAINT: Rgb<u8> = Rgb([104; 3]);
const OUTLINE: Rgb<u8> = Rgb([150; 3]);
/// Of NaN and infinity: no gray, and with the frame not mistaken for a colour filter.
const BAD: Rgb<u8> = Rgb([230, 0, 60]);

/// Where the tiles of one grid stand in the picture, and what found no room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterGrid {
    /// Tiles in a row: filters or, with `per_channel`, the channels of a filter.
    pub columns: usize,
    /// Rows of tiles.
    pub rows: usize,
    /// Width and height of a tile in pixels.
    pub tile: (usize, usize),
    /// Upper left pixel of the first tile.
    pub origin: (usize, usize),
    /// Every row is one filter, every tile one channel (for other than 1 or 3 channels).
    pub per_channel: bool,
    /// Filters drawn: the first ones.
    pub filters: usize,
    /// Filters there was no room for.
    pub filters_left_out: usize,
    /// Channels drawn: the first ones.
    pub channels: usize,
    /// Channels there was no room for.
    pub channels_left_out: usize,
    /// Filters with NaN or infinity among those drawn. Their tiles have a red frame, the values themselves are red.
    pub non_finite: Vec<usize>,
}

impl FilterGrid {
    /// Upper left pixel of the tile in `column` and `row`.
    pub fn corner(&self, column: usize, row: usize) -> (usize, usize) {
        let step = 2 * FRAME + GUTTER;
        (self.origin.0 + column * (self.tile.0 + step), self.origin.1 + row * (self.tile.1 + step))
    }

    /// The layout for filters of these sizes (FN, C, FH, FW), not yet placed in a picture.
    fn new((filters, channels, height, width): (usize, usize, usize, usize)) -> Self {
        let nothing = [filters, channels, height, width].contains(&0);
        let per_channel = channels != 1 && channels != 3;
        let (filters_drawn, channels_drawn) = match (nothing, per_channel) {
            (true, _) => (0, 0),
            (_, true) => (filters.min(MAX_ROWS), channels.min(MAX_CHANNELS)),
            (_, false) => (filters.min(MAX_FILTERS), channels),
        };
        let target = if per_channel { SMALL_TILE } else { TILE };
        let longest = height.max(width).max(1);
        let scale = (target.saturating_add(longest / 2) / longest).max(1);
        let side = |pixels: usize| pixels.saturating_mul(scale).min(MAX_TILE);
        let (columns, rows) = if per_channel { (channels_drawn, filters_drawn) } else { arrange(filters_drawn) };
        Self {
            columns,
            rows,
            tile: (side(width), side(height)),
            origin: (0, 0),
            per_channel,
            filters: filters_drawn,
            filters_left_out: filters - filters_drawn,
            channels: channels_drawn,
            channels_left_out: channels - channels_drawn,
            non_finite: Vec::new(),
        }
    }

    /// Pixels across and down, frames included.
    fn size(&self) -> (usize, usize) {
        let step = 2 * FRAME + GUTTER;
        let side = |count: usize, tile: usize| (count * (tile + step)).saturating_sub(GUTTER);
        (side(self.columns, self.tile.0), side(self.rows, self.tile.1))
    }

    /// What the reader must know and can't see.
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.filters == 0 {
            notes.push("no filters".into());
        }
        if self.filters_left_out > 0 && self.filters > 0 {
            notes.push(format!("the first {} of {} filters", self.filters, self.filters + self.filters_left_out));
        }
        if self.channels_left_out > 0 && self.channels > 0 {
            notes.push(format!("the first {} of {} channels", self.channels, self.channels + self.channels_left_out));
        }
        match self.non_finite.as_slice() {
            [] => {}
            [one] => notes.push(format!("red: NaN or infinity (filter {one})")),
            many => notes.push(format!("red: NaN or infinity ({} filters)", many.len())),
        }
        if self.per_channel && self.filters > 0 {
            notes.push("row: filter, column: channel".into());
        }
        notes
    }
}

/// A picture of filters, and where everything is.
#[derive(Clone, Debug, PartialEq)]
pub struct FilterPicture {
    /// The picture.
    pub image: RgbImage,
    /// Its grid; two for [`before_and_after`].
    pub grids: Vec<FilterGrid>,
}

/// Draws filters (FN, C, FH, FW) in a grid, each on its own gray scale: its smallest value is black, its largest white.
///
/// One channel is drawn in gray and three in RGB (the three share the filter's scale). With any other number of
/// channels each filter is a row of gray tiles, one a channel. A filter whose values are all the same has no scale and
/// is drawn in middle gray. NaN and infinity are drawn in red, inside a red frame. What does not fit on a page is left
/// out, which the picture says and [`FilterGrid`] returns.
///
/// ```
/// let filters = ndarray::Array4::from_shape_fn((30, 1, 5, 5), |(n, _, y, x)| (n * y + x) as f32);
/// let picture = striate::draw::filters(filters.view(), "Conv1");
/// let grid = &picture.grids[0];
/// assert_eq!((grid.columns, grid.rows, grid.tile, grid.filters_left_out), (6, 5, (55, 55), 0));
/// let (x, y) = grid.corner(1, 0); // filter 1: its first value is its smallest
/// assert_eq!(picture.image.get_pixel(x as u32, y as u32).0, [0, 0, 0]);
/// ```
pub fn filters(filters: ArrayView4<'_, f32>, title: &str) -> FilterPicture {
    page(&[("", filters)], title)
}

/// Draws the filters before and after training side by side, each as [`filters`] does.
///
/// ```
/// let before = ndarray::Array4::from_shape_fn((8, 3, 3, 3), |(n, c, y, x)| ((n + 7 * c) * (y + 2 * x)) as f32);
/// let after = before.mapv(f32::sin);
/// let picture = striate::draw::before_and_after(before.view(), after.view(), "Conv1");
/// assert_eq!(picture.grids.len(), 2);
/// ```
pub fn before_and_after(before: ArrayView4<'_, f32>, after: ArrayView4<'_, f32>, title: &str) -> FilterPicture {
    page(&[("before training", before), ("after training", after)], title)
}

/// Columns and rows for `count` tiles: near a square, at least as many columns as rows, few places empty.
fn arrange(count: usize) -> (usize, usize) {
    let narrowest = (1..=count).find(|c| c * c >= count).unwrap_or(0);
    (narrowest..=narrowest + narrowest / 2)
        .filter(|&columns| columns > 0)
        .map(|columns| (columns, count.div_ceil(columns)))
        .min_by_key(|&(columns, rows)| (columns * rows - count, columns))
        .unwrap_or((0, 0))
}

/// One grid or more side by side, with title, captions, notes and the legend.
fn page(panels: &[(&str, ArrayView4<'_, f32>)], title: &str) -> FilterPicture {
    let mut grids: Vec<FilterGrid> = panels.iter().map(|(_, values)| FilterGrid::new(values.dim())).collect();
    for (grid, (_, values)) in grids.iter_mut().zip(panels) {
        grid.non_finite = (0..grid.filters).filter(|&n| !all_finite(drawn(values, grid, n))).collect();
    }
    let (char_width, line) = (text::WIDTH as usize, text::HEIGHT as usize + 3);
    // Row numbers and column numbers, where tiles are channels.
    let side = grids.iter().map(|g| if g.per_channel { 4 * char_width } else { 0 }).max().unwrap_or(0);
    let top = grids.iter().map(|g| if g.per_channel { line } else { 0 }).max().unwrap_or(0);
    let least = if panels.len() > 1 { MIN_WIDTH * 2 / 3 } else { MIN_WIDTH };
    let widths: Vec<usize> = grids.iter().map(|g| (g.size().0 + 2 * side).max(least)).collect();
    let inner = widths.iter().sum::<usize>() + GAP * panels.len().saturating_sub(1);

    let title: Vec<String> = text::wrap(title, inner as u32).into_iter().take(3).collect();
    let notes: Vec<Vec<String>> = grids
        .iter()
        .zip(&widths)
        .map(|(grid, width)| grid.notes().iter().flat_map(|note| text::wrap(note, *width as u32)).collect())
        .collect();
    let captions = panels.iter().any(|(caption, _)| !caption.is_empty());

    let grids_top = MARGIN + title.len() * line + usize::from(!title.is_empty()) * 6 + usize::from(captions) * line;
    let grids_bottom = grids_top + top + grids.iter().map(|g| g.size().1).max().unwrap_or(0);
    let notes_top = grids_bottom + 10;
    let legend_top = notes_top + notes.iter().map(Vec::len).max().unwrap_or(0) * line;
    let height = legend_top + 2 * line + MARGIN;
    let width = inner + 2 * MARGIN;

    let mut image = RgbImage::from_pixel(width as u32, height as u32, PAPER);
    for (row, words) in title.iter().enumerate() {
        centred(&mut image, words, MARGIN..MARGIN + inner, MARGIN + row * line, INK, Weight::Bold);
    }
    let mut left = MARGIN;
    for (index, ((caption, values), grid)) in panels.iter().zip(&mut grids).enumerate() {
        let across = left..left + widths[index];
        left = across.end + GAP;
        centred(&mut image, caption, across.clone(), grids_top.saturating_sub(line), INK, Weight::Regular);
        grid.origin = (across.start + (across.len() - grid.size().0) / 2 + FRAME, grids_top + top + FRAME);
        tiles(&mut image, values, grid);
        if grid.per_channel {
            numbers(&mut image, grid);
        }
        for (row, words) in notes[index].iter().enumerate() {
            centred(&mut image, words, across.clone(), notes_top + row * line, FAINT, Weight::Regular);
        }
    }
    legend(&mut image, MARGIN..MARGIN + inner, legend_top);
    FilterPicture { image, grids }
}

fn tiles(image: &mut RgbImage, values: &ArrayView4<'_, f32>, grid: &FilterGrid) {
    for n in 0..grid.filters {
        let filter = drawn(values, grid, n);
        let range = finite_range(filter);
        let bad = grid.non_finite.binary_search(&n).is_ok();
        if grid.per_channel {
            for channel in 0..grid.channels {
                let one = filter.slice(s![channel..channel + 1, .., ..]);
                tile(image, one, range, grid.corner(channel, n), grid.tile, bad && !all_finite(one));
            }
        } else {
            tile(image, filter, range, grid.corner(n % grid.columns, n / grid.columns), grid.tile, bad);
        }
    }
}

fn tile(
    image: &mut RgbImage,
    filter: ArrayView3<'_, f32>,
    range: Option<(f32, f32)>,
    (left, top): (usize, usize),
    (width, height): (usize, usize),
    bad: bool,
) {
    let (channels, rows, columns) = filter.dim();
    let corner = (left as i64 - 1, top as i64 - 1);
    let outer = (width as i64 + 2, height as i64 + 2);
    if bad {
        fill(image, (corner.0 - 1, corner.1 - 1), (outer.0 + 2, outer.1 + 2), BAD);
    } else {
        fill(image, corner, outer, OUTLINE);
    }
    for y in 0..height {
        for x in 0..width {
            // Nearest neighbour, whether the tile is larger than the filter or smaller.
            let (row, column) = (y * rows / height, x * columns / width);
            let value = |channel: usize| level(filter[[channel.min(channels - 1), row, column]], range);
            let color = match (value(0), value(1), value(2)) {
                (Some(r), Some(g), Some(b)) => Rgb([r, g, b]),
                _ => BAD,
            };
            image.put_pixel((left + x) as u32, (top + y) as u32, color);
        }
    }
}

/// Which filter a row is, and which channel a column.
fn numbers(image: &mut RgbImage, grid: &FilterGrid) {
    let (width, height) = grid.tile;
    for row in 0..grid.rows {
        let (x, y) = grid.corner(0, row);
        let number = row.to_string();
        let left = x as i64 - 6 - i64::from(text::width(&number, 1));
        let down = y as i64 + (height as i64 - i64::from(text::HEIGHT)) / 2;
        text::write(image, (left, down), &number, FAINT, 1, Weight::Regular);
    }
    for column in 0..grid.columns {
        let (x, y) = grid.corner(column, 0);
        centred(image, &column.to_string(), x..x + width, y.saturating_sub(17), FAINT, Weight::Regular);
    }
}

/// What black and white mean.
fn legend(image: &mut RgbImage, across: Range<usize>, top: usize) {
    let (words, line) = (["min ", " max"], text::HEIGHT as usize + 3);
    let width = BAR.0 + words.iter().map(|w| text::width(w, 1) as usize).sum::<usize>();
    let mut x = (across.start + across.len().saturating_sub(width) / 2) as i64;
    let y = top as i64;
    text::write(image, (x, y), words[0], FAINT, 1, Weight::Regular);
    x += i64::from(text::width(words[0], 1));
    fill(image, (x - 1, y), (BAR.0 as i64 + 2, BAR.1 as i64 + 2), OUTLINE);
    for step in 0..BAR.0 {
        let gray = (step * 255 / (BAR.0 - 1)) as u8;
        fill(image, (x + step as i64, y + 1), (1, BAR.1 as i64), Rgb([gray; 3]));
    }
    text::write(image, (x + BAR.0 as i64, y), words[1], FAINT, 1, Weight::Regular);
    centred(image, "of each filter on its own", across, top + line, FAINT, Weight::Regular);
}

fn centred(image: &mut RgbImage, words: &str, across: Range<usize>, top: usize, color: Rgb<u8>, weight: Weight) {
    let left = across.start as i64 + (across.len() as i64 - i64::from(text::width(words, 1))) / 2;
    text::write(image, (left, top as i64), words, color, 1, weight);
}

/// Filter `n` with the channels that are drawn.
fn drawn<'a>(values: &'a ArrayView4<'_, f32>, grid: &FilterGrid, n: usize) -> ArrayView3<'a, f32> {
    values.index_axis(Axis(0), n).slice_move(s![..grid.channels, .., ..])
}

fn all_finite(filter: ArrayView3<'_, f32>) -> bool {
    filter.iter().all(|v| v.is_finite())
}

/// Smallest and largest finite value.
fn finite_range(filter: ArrayView3<'_, f32>) -> Option<(f32, f32)> {
    filter.iter().filter(|v| v.is_finite()).fold(None, |range, &v| {
        let (low, high) = range.unwrap_or((v, v));
        Some((v.min(low), v.max(high)))
    })
}

/// The gray of a value in its filter's range; none for NaN and infinity.
fn level(value: f32, range: Option<(f32, f32)>) -> Option<u8> {
    let (low, high) = range.filter(|_| value.is_finite())?;
    // In f64 the difference of any two f32 is finite.
    let (value, low, high) = (f64::from(value), f64::from(low), f64::from(high));
    Some(if low < high { ((value - low) / (high - low) * 255.0).round() as u8 } else { 128 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, Random};
    use ndarray::Array4;

    fn pixel(picture: &FilterPicture, (x, y): (usize, usize)) -> [u8; 3] {
        picture.image.get_pixel(x as u32, y as u32).0
    }

    /// The colour in the middle of value (row, column) of the tile at (tile column, tile row).
    fn value_at(picture: &FilterPicture, tile: (usize, usize), scale: usize, (row, column): (usize, usize)) -> [u8; 3] {
        let (x, y) = picture.grids[0].corner(tile.0, tile.1);
        pixel(picture, (x + column * scale + scale / 2, y + row * scale + scale / 2))
    }

    #[test]
    fn grids_are_near_square_and_waste_little() {
        let expected = [
            (0, (0, 0)),
            (1, (1, 1)),
            (2, (2, 1)),
            (3, (3, 1)),
            (5, (3, 2)),
            (6, (3, 2)),
            (7, (4, 2)),
            (10, (5, 2)),
            (16, (4, 4)),
            (20, (5, 4)),
            (30, (6, 5)),
            (32, (8, 4)),
            (64, (8, 8)),
            (96, (12, 8)),
            (256, (16, 16)),
        ];
        for (count, grid) in expected {
            assert_eq!(arrange(count), grid, "{count} tiles");
        }
        for count in 1..300 {
            let (columns, rows) = arrange(count);
            assert!(columns >= rows && columns * rows >= count && columns * rows < count + columns, "{count} tiles");
        }
    }

    #[test]
    fn pixels_of_known_filters() {
        // Filter 0 counts up, filter 1 the same at another scale, filter 2 down; two more make a gap in the grid.
        let filters = Array4::from_shape_fn((5, 1, 2, 2), |(n, _, y, x)| {
            let count = (2 * y + x) as f32;
            [count, 1e-3 * count - 5.0, -1e30 * count, 0.0, 0.0][n]
        });
        let picture = super::filters(filters.view(), "known");
        let grid = &picture.grids[0];
        assert_eq!((grid.columns, grid.rows, grid.tile), (3, 2, (54, 54)));
        for (index, expected) in [[0, 85, 170, 255], [0, 85, 170, 255], [255, 170, 85, 0]].iter().enumerate() {
            for (place, &gray) in expected.iter().enumerate() {
                let found = value_at(&picture, (index, 0), 27, (place / 2, place % 2));
                assert_eq!(found, [gray; 3], "filter {index}, value {place}");
            }
        }
        // Crisp: a value fills its square to the edges; around it a frame, then white.
        let (x, y) = grid.corner(0, 0);
        assert_eq!(pixel(&picture, (x, y)), [0; 3]);
        assert_eq!(pixel(&picture, (x + 26, y + 26)), [0; 3]);
        assert_eq!(pixel(&picture, (x + 27, y + 26)), [85; 3]);
        assert_eq!(pixel(&picture, (x + 26, y + 27)), [170; 3]);
        assert_eq!(pixel(&picture, (x + 54, y)), OUTLINE.0);
        assert_eq!(pixel(&picture, (x + 56, y)), PAPER.0);
        // The sixth place is empty.
        assert_eq!(value_at(&picture, (2, 1), 27, (0, 0)), PAPER.0);
    }

    #[test]
    fn extreme_values_do_not_overflow() {
        let filters = Array4::from_shape_fn((1, 1, 1, 2), |(.., x)| if x == 0 { f32::MIN } else { f32::MAX });
        let picture = super::filters(filters.view(), "");
        assert_eq!(value_at(&picture, (0, 0), 27, (0, 0)), [0; 3]);
        assert_eq!(value_at(&picture, (0, 0), 27, (0, 1)), [255; 3]);
    }

    #[test]
    fn three_channels_share_the_scale_of_their_filter() {
        let filters = Array4::from_shape_vec((1, 3, 1, 2), vec![0.0, 1.0, 0.0, 2.0, 4.0, 0.0]).unwrap();
        let picture = super::filters(filters.view(), "colour");
        assert_eq!(value_at(&picture, (0, 0), 27, (0, 0)), [0, 0, 255]);
        assert_eq!(value_at(&picture, (0, 0), 27, (0, 1)), [64, 128, 0]);
    }

    #[test]
    fn a_constant_filter_is_middle_gray() {
        for value in [0.0, -3.5, f32::MAX] {
            let picture = super::filters(Array4::from_elem((1, 1, 5, 5), value).view(), "");
            assert_eq!(value_at(&picture, (0, 0), 11, (2, 2)), [128; 3]);
            assert!(picture.grids[0].non_finite.is_empty());
        }
    }

    #[test]
    fn nan_and_infinity_are_marked_and_the_rest_is_drawn() {
        let mut filters = Array4::from_shape_fn((4, 1, 2, 2), |(.., y, x)| (2 * y + x) as f32);
        filters[[1, 0, 0, 0]] = f32::NAN;
        filters[[2, 0, 1, 1]] = f32::INFINITY;
        filters.index_axis_mut(Axis(0), 3).fill(f32::NAN);
        let picture = super::filters(filters.view(), "");
        let grid = &picture.grids[0];
        assert_eq!(grid.non_finite, [1, 2, 3]);
        assert_eq!(value_at(&picture, (1, 0), 27, (0, 0)), BAD.0);
        assert_eq!(value_at(&picture, (1, 0), 27, (0, 1)), [0; 3]);
        assert_eq!(value_at(&picture, (0, 1), 27, (1, 1)), BAD.0);
        assert_eq!(value_at(&picture, (0, 1), 27, (1, 0)), [255; 3]);
        assert_eq!(value_at(&picture, (1, 1), 27, (1, 1)), BAD.0);
        let frame = |(x, y): (usize, usize)| pixel(&picture, (x - 1, y - 1));
        assert_eq!(frame(grid.corner(0, 0)), OUTLINE.0);
        assert_eq!(frame(grid.corner(1, 0)), BAD.0);
        assert!(grid.notes()[0].contains("3 filters"));
    }

    #[test]
    fn other_numbers_of_channels_get_a_tile_each() {
        let filters = Array4::from_shape_fn((100, 40, 3, 3), |(n, c, y, x)| (n + c * 9 + y * 3 + x) as f32);
        let picture = super::filters(filters.view(), "Conv2");
        let grid = &picture.grids[0];
        assert!(grid.per_channel);
        assert_eq!((grid.columns, grid.rows, grid.tile), (32, 32, (33, 33)));
        assert_eq!((grid.filters, grid.filters_left_out, grid.channels, grid.channels_left_out), (32, 68, 32, 8));
        assert_eq!(
            grid.notes(),
            ["the first 32 of 100 filters", "the first 32 of 40 channels", "row: filter, column: channel"]
        );
        // One scale a filter, over the channels drawn: 0 to 31 * 9 + 8.
        assert_eq!(value_at(&picture, (0, 5), 11, (0, 0)), [0; 3]);
        assert_eq!(value_at(&picture, (31, 5), 11, (2, 2)), [255; 3]);
        let one = (9.0f64 / 287.0 * 255.0).round() as u8;
        assert_eq!(value_at(&picture, (1, 0), 11, (0, 0)), [one; 3]);
    }

    #[test]
    fn only_so_many_filters_fit_and_the_rest_is_counted() {
        let picture = super::filters(Array4::zeros((1000, 1, 1, 1)).view(), "many");
        let grid = &picture.grids[0];
        assert_eq!((grid.columns, grid.rows, grid.filters, grid.filters_left_out), (16, 16, 256, 744));
    }

    #[test]
    fn large_and_long_filters_stay_on_the_page() {
        for (height, width) in [(700, 700), (1, 3000), (3000, 1), (61, 240)] {
            let picture = super::filters(Array4::zeros((2, 1, height, width)).view(), "large");
            let grid = &picture.grids[0];
            assert!(grid.tile.0 <= MAX_TILE && grid.tile.1 <= MAX_TILE && grid.tile.0 > 0 && grid.tile.1 > 0);
        }
    }

    #[test]
    fn nothing_to_draw_is_said() {
        for shape in [(0, 1, 5, 5), (30, 0, 5, 5), (30, 1, 0, 5), (30, 1, 5, 0), (usize::MAX / 8, 1, 0, 0)] {
            let picture = super::filters(ArrayView4::from_shape(shape, &[]).unwrap(), "empty");
            assert_eq!(picture.grids[0].notes()[0], "no filters");
            assert_eq!(picture.grids[0].filters, 0);
        }
    }

    #[test]
    fn any_title_and_any_width() {
        let filters = Array4::from_elem((1, 1, 1, 1), 1.0);
        for title in [
            "",
            "a title much too long for one single filter ".repeat(50).as_str(),
            "\u{ac00}\n\0\t<b>",
            &"x".repeat(500),
        ] {
            let picture = super::filters(filters.view(), title);
            assert!(picture.image.width() == (MIN_WIDTH + 2 * MARGIN) as u32 && picture.image.height() < 400);
        }
    }

    #[test]
    fn before_and_after_stand_side_by_side() {
        let random = Random::new(1, Purpose::Test, 0);
        let before = Array4::from_shape_fn((30, 1, 5, 5), |(n, _, y, x)| random.normal((n * 25 + y * 5 + x) as u64));
        let after = Array4::from_shape_fn((30, 1, 5, 5), |(n, _, y, x)| (n * x + y) as f32);
        let picture = before_and_after(before.view(), after.view(), "Conv1");
        let [left, right] = picture.grids.as_slice() else { panic!("two grids") };
        assert_eq!(left.origin.1, right.origin.1);
        assert!(left.corner(5, 0).0 + 55 < right.origin.0);
        let alone = super::filters(after.view(), "Conv1");
        for row in 0..5 {
            for column in 0..6 {
                let ((x, y), (u, v)) = (right.corner(column, row), alone.grids[0].corner(column, row));
                assert!((0..55).all(|i| pixel(&picture, (x + i, y + i)) == pixel(&alone, (u + i, v + i))));
            }
        }
        // A different number of filters is drawn all the same.
        assert_eq!(before_and_after(before.view(), Array4::zeros((4, 3, 3, 3)).view(), "").grids[1].columns, 2);
    }
}
