//! What the plots share: axes, text, and one drawing as SVG or as pixels.

use super::raster::Raster;
use super::svg;
use image::{Rgb, RgbImage};
use plotters::backend::{DrawingBackend, SVGBackend};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea};
use plotters::element::{PathElement, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontDesc, FontFamily, FontStyle, FontTransform, RGBColor, ShapeStyle, TextStyle, WHITE};
use std::error::Error;
use std::ops::Range;

pub(super) const INK: RGBColor = RGBColor(32, 32, 32);
pub(super) const FAINT: RGBColor = RGBColor(96, 96, 96);
pub(super) const GRID: RGBColor = RGBColor(225, 225, 225);

pub(super) type Canvas<B> = DrawingArea<B, Shift>;
pub(super) type Drawn<T, E> = Result<T, DrawingAreaErrorKind<E>>;

/// A plot of numbers, which can be drawn in lines or in pixels.
pub trait Plot {
    /// As the text of an SVG file.
    fn svg(&self) -> String;
    /// As pixels.
    fn image(&self) -> RgbImage;
}

/// What `draw` draws, as SVG; `excuse` is what the page says should drawing ever fail.
pub(super) fn svg(
    size: (u32, u32),
    title: &str,
    excuse: &str,
    draw: impl FnOnce(&Canvas<SVGBackend<'_>>) -> Drawn<(), std::io::Error>,
) -> String {
    let mut picture = String::new();
    let drawn = {
        let root = SVGBackend::with_string(&mut picture, size).into_drawing_area();
        root.fill(&WHITE).and_then(|()| draw(&root)).and_then(|()| root.present())
    };
    if drawn.is_err() {
        // The canvas is a string, on which drawing does not fail; should it ever, the page says so.
        let mut page = svg::Svg::new(f64::from(size.0), 60.0, title);
        let style = svg::Style::new(13.0, svg::INK, svg::Anchor::Start);
        page.text((20.0, 30.0), excuse, style);
        return page.finish();
    }
    // Plotters knows nothing of accessible titles.
    let head = "xmlns=\"http://www.w3.org/2000/svg\">\n";
    let titled = format!("{} role=\"img\">\n<title>{}</title>\n", &head[..head.len() - 2], svg::escape(title));
    picture.replacen(head, &titled, 1)
}

/// What `draw` draws, as pixels.
pub(super) fn pixels(
    size: (u32, u32),
    draw: impl FnOnce(&Canvas<Raster<'_>>) -> Drawn<(), std::convert::Infallible>,
) -> RgbImage {
    let mut image = RgbImage::from_pixel(size.0, size.1, Rgb([255; 3]));
    {
        let root = Raster::new(&mut image).into_drawing_area();
        // Nothing that draws pixels fails; a layout that does leaves the page as far as it came.
        let _ = draw(&root).and_then(|()| root.present());
    }
    image
}

/// A line of two pixels.
pub(super) fn stroke(color: RGBColor) -> ShapeStyle {
    ShapeStyle { color: color.to_rgba(), filled: false, stroke_width: 2 }
}

/// A line of text, on whose vertical middle the point is.
pub(super) fn write<B: DrawingBackend>(
    root: &Canvas<B>,
    words: &str,
    at: (i32, i32),
    size: f64,
    color: RGBColor,
    h: HPos,
    bold: bool,
) -> Drawn<(), B::ErrorType>
where
    B::ErrorType: Error + Send + Sync,
{
    if words.is_empty() {
        return Ok(());
    }
    let face = if bold { FontStyle::Bold } else { FontStyle::Normal };
    let font = FontDesc::new(FontFamily::SansSerif, size, face).transform(FontTransform::None);
    let style = TextStyle::from(font).color(&color).pos(Pos::new(h, VPos::Center));
    root.draw(&Text::new(words.to_string(), at, style))
}

/// Lines across a plane and up, with words below and to the left of it, where its axes have ticks.
pub(super) fn grid<B: DrawingBackend>(
    root: &Canvas<B>,
    (across, up): (&Axis, &Axis),
    (left, right): (i32, i32),
    (top, bottom): (i32, i32),
) -> Drawn<(), B::ErrorType>
where
    B::ErrorType: Error + Send + Sync,
{
    for (value, words) in &across.ticks {
        let x = across.map(value, (left, right));
        root.draw(&PathElement::new(vec![(x, top), (x, bottom)], GRID))?;
        write(root, words, (x, bottom + 14), 15.0, FAINT, HPos::Center, false)?;
    }
    for (value, words) in &up.ticks {
        let y = up.map(value, (bottom, top));
        root.draw(&PathElement::new(vec![(left, y), (right, y)], GRID))?;
        write(root, words, (left - 8, y), 15.0, FAINT, HPos::Right, false)?;
    }
    Ok(())
}

/// A colour for each of `count` kinds: ten that can be told apart, also by most who see colours otherwise, or else hues.
pub(super) fn colors(count: usize) -> Vec<RGBColor> {
    const TEN: [RGBColor; 10] = [
        RGBColor(0, 114, 178),
        RGBColor(230, 120, 0),
        RGBColor(0, 145, 105),
        RGBColor(204, 60, 60),
        RGBColor(130, 90, 190),
        RGBColor(125, 85, 70),
        RGBColor(225, 110, 185),
        RGBColor(120, 120, 120),
        RGBColor(160, 165, 20),
        RGBColor(30, 175, 215),
    ];
    if count <= TEN.len() {
        return TEN[..count].to_vec();
    }
    let hue = |i: usize| {
        let (at, level) = (6.0 * i as f64 / count as f64, [0.85, 0.6][i % 2]);
        let channel = |offset: f64| {
            let k = (at + offset).rem_euclid(6.0);
            (255.0 * level * (1.0 - k.min(4.0 - k).clamp(0.0, 1.0))).round() as u8
        };
        RGBColor(channel(5.0), channel(3.0), channel(1.0))
    };
    (0..count).map(hue).collect()
}

/// Added to the share of errors on the stretched scale, so that an accuracy of 100 % has a place on it.
const SOFT: f64 = 0.001;

/// How values are laid along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    Linear,
    Logarithmic,
    /// Percent, by the logarithm of the errors left.
    TowardsHundred,
}

/// An axis in places (scaled values), with ticks where labels stand.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Axis {
    pub(super) scale: Scale,
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) ticks: Vec<(f64, String)>,
}

impl Axis {
    /// Where a value stands.
    pub(super) fn place(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => value,
            Scale::Logarithmic => value.log10(),
            Scale::TowardsHundred => -(1.0 - value / 100.0 + SOFT).log10(),
        }
    }

    /// From `low` to `high` values, with labels at whole multiples of a round step, at most `most` of them.
    pub(super) fn linear(low: f64, high: f64, most: f64, least_step: f64) -> Self {
        let step = round_step((high - low) / most).max(least_step);
        let (first, last) = ((low / step - 1e-9).ceil() as i64, (high / step + 1e-9).floor() as i64);
        let decimals = (-step.log10().floor()).max(0.0) as usize;
        let label = |value: f64| {
            if value.abs() >= 1e5 || (decimals > 5 && value != 0.0) {
                format!("{value:.1e}")
            } else {
                format!("{value:.decimals$}")
            }
        };
        let ticks = (first..=last).map(|i| i as f64 * step).map(|v| (v, label(v))).collect();
        Self { scale: Scale::Linear, low, high, ticks }
    }

    /// From `low` to `high` values, which are positive, with labels at powers of ten, and between few of those at twice and
    /// five times them.
    pub(super) fn logarithmic(low: f64, high: f64) -> Self {
        let (from, to) = (low.log10(), high.log10());
        let margin = ((to - from) * 0.05).max(0.05);
        let (from, to) = (from - margin, to + margin);
        let decades = (to - from).ceil() as i32;
        let multiples: &[f64] = if decades <= 3 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let ticks = (from.floor() as i32..=to.ceil() as i32)
            .step_by(usize::try_from(decades / 8 + 1).unwrap_or(1))
            .flat_map(|power| multiples.iter().map(move |m| m * 10f64.powi(power)))
            .filter(|v| (from..=to).contains(&v.log10()))
            .map(|v| (v.log10(), short(v, 1)))
            .collect();
        Self { scale: Scale::Logarithmic, low: from, high: to, ticks }
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, place: &f64, (start, end): (i32, i32)) -> i32 {
        let share = (place - self.low) / (self.high - self.low);
        start + (share.clamp(0.0, 1.0) * f64::from(end - start)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        // No lines between those that have labels.
        if hint.weight().allow_light_points() { Vec::new() } else { self.ticks.iter().map(|t| t.0).collect() }
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, place: &f64) -> String {
        let distance = |tick: &&(f64, String)| (tick.0 - place).abs();
        self.ticks.iter().min_by(|a, b| distance(a).total_cmp(&distance(b))).map(|t| t.1.clone()).unwrap_or_default()
    }
}

/// A positive number in few characters: plain where that is short, else with an exponent.
pub(super) fn short(value: f64, significant: usize) -> String {
    let size = value.abs();
    if size == 0.0 {
        return "0".into();
    }
    if !(1e-4..1e5).contains(&size) {
        return format!("{value:.*e}", significant.saturating_sub(2));
    }
    let decimals = (significant as i32 - 1 - size.log10().floor() as i32).clamp(0, 4) as usize;
    format!("{value:.decimals$}")
}

/// 1, 2 or 5 times a power of ten, at least `wanted`.
fn round_step(wanted: f64) -> f64 {
    let power = 10f64.powf(wanted.max(1e-12).log10().floor());
    [1.0, 2.0, 5.0].iter().map(|m| m * power).find(|&s| s >= wanted * (1.0 - 1e-9)).unwrap_or(10.0 * power)
}

pub(super) fn bounds(values: &[f64]) -> Option<(f64, f64)> {
    values.iter().fold(None, |range, &v| {
        let (low, high) = range.unwrap_or((v, v));
        Some((v.min(low), v.max(high)))
    })
}

/// Moves heights apart until neighbours are `least` pixels from each other, keeping their order and the middle of those
/// that crowd.
pub(super) fn spread(heights: &[i32], least: i32) -> Vec<i32> {
    let mut order: Vec<usize> = (0..heights.len()).collect();
    order.sort_by_key(|&i| heights[i]);
    // Crowds: how many, the sum of where they would be, and where the first is put.
    let mut crowds: Vec<(i32, i32, i32)> = Vec::new();
    for &i in &order {
        let mut crowd = (1, heights[i], heights[i]);
        while let Some(&(count, sum, first)) = crowds.last()
            && first + count * least > crowd.2
        {
            crowds.pop();
            let (all, sum) = (count + crowd.0, sum + crowd.1);
            crowd = (all, sum, sum / all - (all - 1) * least / 2);
        }
        crowds.push(crowd);
    }
    let places = crowds.iter().flat_map(|&(count, _, first)| (0..count).map(move |k| first + k * least));
    let mut moved = heights.to_vec();
    order.iter().zip(places).for_each(|(&i, place)| moved[i] = place);
    moved
}
