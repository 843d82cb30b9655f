//! Filters, what they make of an image, and what the network takes it for, over a training run: as frames of an animation
//! and as one sheet with time going down.

use super::animation;
use super::sheet::{Band, Legend, Palette, Sheet, Tile, map, picture};
use super::text::{self, Weight, fill};
use image::{Rgb, RgbImage};
use ndarray::{Array3, Array4, ArrayView2, ArrayView3, Axis};

/// Filters and maps drawn at most.
const MOST: usize = 32;
/// Classes whose probabilities are drawn at most.
const MOST_CLASSES: usize = 10;
/// Moments on the sheet at most.
const MOST_ROWS: usize = 9;
const SHEET_SIDE: u32 = 26;
const BAR: u32 = 160;
const BAR_LINE: u32 = 15;
/// Characters of a class name beside its bar.
const NAME: usize = 14;

/// A training run to draw. All frames have filters of one shape.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Timeline {
    /// At the top of every picture.
    pub title: String,
    /// Above the filters: where they are from.
    pub filters: String,
    /// Above the maps.
    pub maps: String,
    /// The image that the maps are of.
    pub image: Option<RgbImage>,
    /// The classes' names.
    pub classes: Vec<String>,
    /// In order of time.
    pub frames: Vec<Frame>,
}

/// One moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// Which moment it is, and what else is to be said of it.
    pub heading: String,
    /// (FN, C, FH, FW)
    pub filters: Array4<f32>,
    /// What the filters make of the image (FN, OH, OW).
    pub maps: Option<Array3<f32>>,
    /// The probability of each class, 0 to 1.
    pub probabilities: Vec<f32>,
}

/// Smallest and largest value of every filter, and largest absolute value of every map, over the whole run.
struct Scales {
    filters: Vec<(f32, f32)>,
    maps: Vec<f32>,
}

impl Timeline {
    /// A picture of each moment, all of the same size.
    pub fn frames(&self) -> Vec<RgbImage> {
        let scales = self.scales();
        let shown = self.classes_shown();
        let pictures: Vec<RgbImage> = self
            .frames
            .iter()
            .map(|frame| {
                let mut first = Vec::new();
                first.extend(self.image.iter().map(|image| Tile::new(image.clone(), "")));
                if !shown.is_empty() {
                    first.push(exactly(self.bars(frame, &shown)));
                }
                let mut bands = vec![Band { heading: frame.heading.clone(), tiles: first }];
                bands.push(Band { heading: self.filters_heading(), tiles: filter_tiles(frame, &scales, 48) });
                if frame.maps.is_some() {
                    bands.push(Band { heading: self.maps_heading(), tiles: map_tiles(frame, &scales, 72) });
                }
                self.sheet_of(bands, 150).draw()
            })
            .collect();
        let size = animation::largest(&pictures);
        pictures.iter().map(|picture| animation::on_white(picture, size)).collect()
    }

    /// One picture of some moments, evenly chosen, the first and the last among them.
    pub fn sheet(&self) -> RgbImage {
        let scales = self.scales();
        let mut bands: Vec<Band> = Vec::new();
        bands.extend(
            self.image.iter().map(|image| Band { heading: String::new(), tiles: vec![small(image.clone(), 84)] }),
        );
        bands.push(Band {
            heading: format!("{}; below them {}", self.filters_heading(), self.maps_heading()),
            tiles: vec![],
        });
        if self.frames.iter().all(|frame| frame.maps.is_none()) {
            bands.pop();
            bands.push(Band { heading: self.filters_heading(), tiles: vec![] });
        }
        for at in chosen(self.frames.len(), MOST_ROWS) {
            let frame = &self.frames[at];
            bands.push(Band { heading: frame.heading.clone(), tiles: filter_tiles(frame, &scales, SHEET_SIDE) });
            if frame.maps.is_some() {
                bands.push(Band { heading: String::new(), tiles: map_tiles(frame, &scales, SHEET_SIDE) });
            }
        }
        self.sheet_of(bands, SHEET_SIDE).draw()
    }

    fn sheet_of(&self, bands: Vec<Band>, side: u32) -> Sheet {
        let mut legends = vec![Legend::new(Palette::Gray, "smallest", "largest, of each filter in the whole run")];
        if self.frames.iter().any(|frame| frame.maps.is_some()) {
            legends.push(Legend::new(Palette::Signed, "- largest", "+ largest, of each map in the whole run"));
        }
        Sheet { title: self.title.clone(), bands, side, legends, notes: Vec::new() }
    }

    fn filters_heading(&self) -> String {
        let (count, channels) =
            self.frames.first().map_or((0, 1), |frame| (frame.filters.dim().0, frame.filters.dim().1));
        let part = if matches!(channels, 1 | 3) { String::new() } else { format!(", channel 0 of {channels}") };
        format!("{}{part}{}", self.filters, left_out(count))
    }

    fn maps_heading(&self) -> String {
        let count = self.frames.first().and_then(|frame| frame.maps.as_ref()).map_or(0, |maps| maps.dim().0);
        format!("{}{}", self.maps, left_out(count))
    }

    fn scales(&self) -> Scales {
        let count = |of: fn(&Frame) -> usize| self.frames.iter().map(of).min().unwrap_or(0);
        let mut scales = Scales {
            filters: vec![(f32::MAX, f32::MIN); count(|frame| frame.filters.dim().0)],
            maps: vec![0.0; count(|frame| frame.maps.as_ref().map_or(0, |maps| maps.dim().0))],
        };
        for frame in &self.frames {
            for (filter, (low, high)) in frame.filters.axis_iter(Axis(0)).zip(&mut scales.filters) {
                for &value in filter.iter().filter(|v| v.is_finite()) {
                    (*low, *high) = (low.min(value), high.max(value));
                }
            }
            let maps = frame.maps.iter().flat_map(|maps| maps.axis_iter(Axis(0)));
            for (map, reach) in maps.zip(&mut scales.maps) {
                *reach = map.iter().filter(|v| v.is_finite()).fold(*reach, |reach, v| reach.max(v.abs()));
            }
        }
        scales
    }

    /// The classes that are likeliest at the end, in their own order.
    fn classes_shown(&self) -> Vec<usize> {
        let Some(last) = self.frames.last() else { return Vec::new() };
        let mut order: Vec<usize> = (0..last.probabilities.len()).collect();
        order.sort_by(|&a, &b| last.probabilities[b].total_cmp(&last.probabilities[a]));
        order.truncate(MOST_CLASSES);
        order.sort_unstable();
        order
    }

    /// A bar for each class.
    fn bars(&self, frame: &Frame, shown: &[usize]) -> RgbImage {
        let name = |class: usize| self.classes.get(class).map_or_else(|| class.to_string(), Clone::clone);
        let names: Vec<String> = shown.iter().map(|&class| name(class).chars().take(NAME).collect()).collect();
        let left = names.iter().map(|name| text::width(name, 1)).max().unwrap_or(0) + 10;
        let size = (left + BAR + 56, shown.len() as u32 * BAR_LINE + 2);
        let mut image = RgbImage::from_pixel(size.0, size.1, Rgb([255; 3]));
        for (row, (&class, name)) in shown.iter().zip(&names).enumerate() {
            let (y, share) =
                (i64::from(row as u32 * BAR_LINE + 1), frame.probabilities.get(class).copied().unwrap_or(0.0));
            let long = (f64::from(BAR) * f64::from(share.clamp(0.0, 1.0))).round() as i64;
            text::write(&mut image, (4, y), name, Rgb([32; 3]), 1, Weight::Regular);
            fill(&mut image, (left.into(), y + 1), (i64::from(BAR), 11), Rgb([236; 3]));
            fill(&mut image, (left.into(), y + 1), (long, 11), Rgb([11, 99, 181]));
            let words = format!("{:.1} %", 100.0 * share);
            text::write(&mut image, (i64::from(left + BAR + 4), y), &words, Rgb([96; 3]), 1, Weight::Regular);
        }
        image
    }
}

fn left_out(count: usize) -> String {
    if count > MOST { format!(", the first {MOST} of {count}") } else { String::new() }
}

/// A tile as it is, without any enlargement.
fn exactly(image: RgbImage) -> Tile {
    let side = image.width().max(image.height());
    small(image, side)
}

fn filter_tiles(frame: &Frame, scales: &Scales, side: u32) -> Vec<Tile> {
    let drawn = |(filter, range): (ArrayView3<'_, f32>, &(f32, f32))| match filter.dim().0 {
        3 => {
            let (low, span) = (range.0, range.1 - range.0);
            picture(filter.mapv(|v| if span > 0.0 { (v - low) / span } else { 0.5 }).view())
        }
        _ => map(filter.index_axis(Axis(0), 0), Palette::Gray, *range),
    };
    frame
        .filters
        .axis_iter(Axis(0))
        .zip(&scales.filters)
        .take(MOST)
        .map(drawn)
        .map(|image| small(image, side))
        .collect()
}

fn map_tiles(frame: &Frame, scales: &Scales, side: u32) -> Vec<Tile> {
    let drawn = |(values, reach): (ArrayView2<'_, f32>, &f32)| map(values, Palette::Signed, (-reach, *reach));
    let maps = frame.maps.iter().flat_map(|maps| maps.axis_iter(Axis(0)));
    maps.zip(&scales.maps).take(MOST).map(drawn).map(|image| small(image, side)).collect()
}

fn small(image: RgbImage, side: u32) -> Tile {
    Tile { image, caption: String::new(), side: Some(side) }
}

/// At most `most` of `count` places, evenly, with the first and the last.
fn chosen(count: usize, most: usize) -> Vec<usize> {
    if count <= most {
        return (0..count).collect();
    }
    (0..most).map(|i| (i * (count - 1) + (most - 1) / 2) / (most - 1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeline(channels: usize) -> Timeline {
        let frame = |n: usize| Frame {
            heading: format!("step {n}"),
            // Filter 0 grows with time, filter 1 stays.
            filters: Array4::from_shape_fn((2, channels, 3, 3), |(f, _, y, x)| {
                if f == 0 { n as f32 * (y * 3 + x) as f32 } else { (y + x) as f32 }
            }),
            maps: Some(Array3::from_shape_fn((2, 6, 6), |(f, y, _)| (f * n) as f32 * (y as f32 - 2.5))),
            probabilities: vec![0.25, 0.75],
        };
        Timeline {
            title: "Timeline".into(),
            filters: "W1".into(),
            maps: "Relu1".into(),
            image: Some(RgbImage::new(6, 6)),
            classes: vec!["cat".into(), "a class with a name that is much too long".into()],
            frames: (0..5).map(frame).collect(),
        }
    }

    #[test]
    fn one_scale_holds_for_the_whole_run() {
        let timeline = timeline(1);
        let scales = timeline.scales();
        assert_eq!(scales.filters, [(0.0, 32.0), (0.0, 4.0)]);
        assert_eq!(scales.maps, [0.0, 10.0]);
        let brightest = |at: usize, filter: usize| {
            let tiles = filter_tiles(&timeline.frames[at], &scales, 48);
            tiles[filter].image.pixels().map(|p| p.0[0]).max().unwrap()
        };
        assert_eq!((brightest(0, 0), brightest(2, 0), brightest(4, 0)), (0, 128, 255));
        assert_eq!((brightest(0, 1), brightest(4, 1)), (255, 255));
    }

    #[test]
    fn frames_are_of_one_size_and_differ() {
        for channels in [1, 3, 7] {
            let frames = timeline(channels).frames();
            assert_eq!(frames.len(), 5);
            assert!(frames.iter().all(|frame| frame.dimensions() == frames[0].dimensions()));
            assert!(frames.windows(2).all(|pair| pair[0] != pair[1]));
        }
        assert!(timeline(7).filters_heading().contains("channel 0 of 7"));
    }

    #[test]
    fn bars_are_as_long_as_probabilities() {
        let timeline = timeline(1);
        let image = timeline.bars(&timeline.frames[0], &[0, 1]);
        let blue = |row: u32| {
            image.rows().nth((row * BAR_LINE + 7) as usize).unwrap().filter(|p| p.0 == [11, 99, 181]).count()
        };
        assert_eq!((blue(0), blue(1)), (40, 120));
    }

    #[test]
    fn the_sheet_has_first_and_last_and_nothing_is_no_trouble() {
        assert_eq!(chosen(33, 9), [0, 4, 8, 12, 16, 20, 24, 28, 32]);
        assert_eq!(chosen(12, 9).len(), 9);
        assert_eq!((chosen(12, 9)[0], chosen(12, 9)[8], chosen(3, 9)), (0, 11, vec![0, 1, 2]));
        assert!(timeline(1).sheet().height() > 300);
        let empty = Timeline::default();
        assert!(empty.frames().is_empty() && empty.sheet().width() > 100);
    }
}
