//! Points of several classes in a plane, as SVG or as pixels.

use super::plot::{self, Axis, Canvas, Drawn, FAINT, INK, Plot, bounds, write};
use super::svg::clean;
use image::RgbImage;
use plotters::backend::DrawingBackend;
use plotters::coord::ranged1d::Ranged;
use plotters::element::{Circle, Rectangle};
use plotters::style::Color;
use plotters::style::text_anchor::HPos;
use std::error::Error;

const SIZE: (u32, u32) = (920, 780);
/// Left, top, right and bottom of the plane.
const PLANE: (i32, i32, i32, i32) = (76, 90, 716, 716);
/// Classes in the legend at most.
const LEGEND: usize = 28;
/// With more classes, none is written among its points.
const WRITTEN: usize = 20;

/// Points of several classes.
///
/// ```
/// use striate::draw::{Plot, Scatter};
/// let scatter = Scatter {
///     title: "Features".into(),
///     subtitle: "of three images".into(),
///     axes: Some(["first".into(), "second".into()]),
///     names: vec!["cat".into(), "dog".into()],
///     points: vec![[0.0, 1.0], [0.5, 0.8], [-2.0, -1.0]],
///     classes: vec![0, 0, 1],
/// };
/// assert!(scatter.svg().contains("cat") && scatter.image().width() > 800);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scatter {
    /// At the top.
    pub title: String,
    /// Below it.
    pub subtitle: String,
    /// What the two directions are, if they mean something; else there is no scale either.
    pub axes: Option<[String; 2]>,
    /// The classes' names.
    pub names: Vec<String>,
    /// Across and up; what is not finite is left out.
    pub points: Vec<[f64; 2]>,
    /// The class of each.
    pub classes: Vec<usize>,
}

impl Plot for Scatter {
    fn svg(&self) -> String {
        plot::svg(SIZE, &self.title, "The points could not be drawn.", |root| self.draw(root))
    }

    fn image(&self) -> RgbImage {
        plot::pixels(SIZE, |root| self.draw(root))
    }
}

impl Scatter {
    fn draw<B: DrawingBackend>(&self, root: &Canvas<B>) -> Drawn<(), B::ErrorType>
    where
        B::ErrorType: Error + Send + Sync,
    {
        let (left, top, right, bottom) = PLANE;
        write(root, &clean(&self.title, 70), (24, 26), 22.0, INK, HPos::Left, true)?;
        write(root, &clean(&self.subtitle, 120), (24, 50), 15.0, FAINT, HPos::Left, false)?;
        let finite = |p: &[f64; 2]| p.iter().all(|v| v.is_finite() && v.abs() < 1e30);
        let points: Vec<(usize, [f64; 2])> =
            self.classes.iter().copied().zip(self.points.iter().copied()).filter(|(_, p)| finite(p)).collect();
        // The same scale in both directions, or distances would lie.
        let range = |axis: usize| {
            let values: Vec<f64> = points.iter().map(|(_, p)| p[axis]).collect();
            bounds(&values).unwrap_or((-1.0, 1.0))
        };
        let (across, up) = (range(0), range(1));
        let unit =
            ((across.1 - across.0) / f64::from(right - left)).max((up.1 - up.0) / f64::from(bottom - top)).max(1e-12)
                * 1.06;
        let axis = |(low, high): (f64, f64), pixels: i32| {
            let (middle, half) = ((low + high) / 2.0, unit * f64::from(pixels) / 2.0);
            Axis::linear(middle - half, middle + half, 8.0, 0.0)
        };
        let (across, up) = (axis(across, right - left), axis(up, bottom - top));
        let place = |[x, y]: [f64; 2]| (across.map(&x, (left, right)), up.map(&y, (bottom, top)));

        if let Some([horizontal, vertical]) = &self.axes {
            plot::grid(root, (&across, &up), (left, right), (top, bottom))?;
            write(root, &clean(horizontal, 80), ((left + right) / 2, bottom + 38), 15.0, INK, HPos::Center, false)?;
            write(root, &clean(vertical, 80), (left, top - 14), 15.0, INK, HPos::Left, false)?;
        }
        root.draw(&Rectangle::new([(left, top), (right, bottom)], FAINT))?;

        let colors = plot::colors(self.names.len());
        let color = |class: usize| colors.get(class).copied().unwrap_or(FAINT);
        let radius = if points.len() > 3000 { 2 } else { 3 };
        // In the order of the images, so that no class covers another.
        for &(class, point) in &points {
            root.draw(&Circle::new(place(point), radius, color(class).mix(0.65).filled()))?;
        }
        if self.names.len() <= WRITTEN {
            self.write_names(root, &points, place)?;
        }
        let legend = right + 24;
        for (class, name) in self.names.iter().enumerate().take(LEGEND) {
            let y = top + 10 + 22 * class as i32;
            root.draw(&Circle::new((legend, y), 5, color(class).filled()))?;
            write(root, &clean(name, 20), (legend + 14, y), 15.0, INK, HPos::Left, false)?;
        }
        if let Some(more) = self.names.len().checked_sub(LEGEND).filter(|&more| more > 0) {
            let y = top + 10 + 22 * LEGEND as i32;
            write(root, &format!("and {more} more"), (legend + 14, y), 15.0, FAINT, HPos::Left, false)?;
        }
        Ok(())
    }

    /// The name of each class at the median of its points, where there is room.
    fn write_names<B: DrawingBackend>(
        &self,
        root: &Canvas<B>,
        points: &[(usize, [f64; 2])],
        place: impl Fn([f64; 2]) -> (i32, i32),
    ) -> Drawn<(), B::ErrorType>
    where
        B::ErrorType: Error + Send + Sync,
    {
        let mut written: Vec<(i32, i32, i32)> = Vec::new();
        for (class, name) in self.names.iter().enumerate() {
            let median = |axis: usize| {
                let mut values: Vec<f64> = points.iter().filter(|p| p.0 == class).map(|p| p.1[axis]).collect();
                values.sort_by(f64::total_cmp);
                values.get(values.len() / 2).copied()
            };
            let (Some(x), Some(y)) = (median(0), median(1)) else { continue };
            let (name, (x, y)) = (clean(name, 14), place([x, y]));
            let half = 5 * name.chars().count() as i32 + 3;
            let overlaps = |&(x0, y0, half0): &(i32, i32, i32)| (x - x0).abs() < half + half0 && (y - y0).abs() < 20;
            if written.iter().any(overlaps) {
                continue;
            }
            written.push((x, y, half));
            // A white edge keeps the letters legible on the points.
            for (dx, dy) in [(-2, 0), (2, 0), (0, -2), (0, 2), (-1, -1), (1, -1), (-1, 1), (1, 1)] {
                write(root, &name, (x + dx, y + dy), 17.0, plotters::style::WHITE, HPos::Center, true)?;
            }
            write(root, &name, (x, y), 17.0, INK, HPos::Center, true)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::svg::tests::well_formed;
    use super::*;

    fn scatter(classes: usize, points: usize) -> Scatter {
        Scatter {
            title: "Features <of> \"test\"".into(),
            subtitle: "subtitle".into(),
            axes: Some(["first".into(), "second".into()]),
            names: (0..classes).map(|c| format!("class {c} & more")).collect(),
            points: (0..points).map(|i| [(i as f64).sin(), (i * i) as f64 * 0.01]).collect(),
            classes: (0..points).map(|i| i % classes.max(1)).collect(),
        }
    }

    #[test]
    fn every_class_is_named_and_every_point_drawn() {
        let svg = scatter(3, 40).svg();
        let texts = well_formed(&svg);
        for words in ["Features <of> \"test\"", "subtitle", "first", "second", "class 2 & more"] {
            assert!(texts.iter().any(|t| t == words), "{words}: {texts:?}");
        }
        assert_eq!(svg.matches("<circle").count(), 40 + 3);
        let texts = well_formed(&scatter(100, 40).svg());
        assert!(texts.iter().any(|t| t == "and 72 more"), "{texts:?}");
        // Without axes there are no numbers.
        let plain = Scatter { axes: None, ..scatter(2, 5) };
        assert!(!well_formed(&plain.svg()).iter().any(|t| t.parse::<f64>().is_ok()));
    }

    #[test]
    fn pixels_show_the_classes_colours() {
        let image = scatter(2, 50).image();
        assert_eq!(image.dimensions(), SIZE);
        for color in plot::colors(2) {
            assert!(image.pixels().any(|p| p.0 == [color.0, color.1, color.2]), "{color:?}");
        }
    }

    #[test]
    fn any_points_are_survived() {
        for points in [vec![], vec![[0.0, 0.0]], vec![[f64::NAN, 1.0], [f64::MAX, 1.0]], vec![[1e-300, 1e29]; 3]] {
            let classes = vec![7; points.len()];
            let odd = Scatter { points, classes, ..scatter(2, 0) };
            well_formed(&odd.svg());
            odd.image();
        }
    }

    #[test]
    fn a_hundred_colours_differ() {
        let mut colors: Vec<_> = plot::colors(100).iter().map(|c| (c.0, c.1, c.2)).collect();
        colors.sort_unstable();
        colors.dedup();
        assert_eq!(colors.len(), 100);
    }
}
