//! Several lines in several panels side by side, as SVG or as pixels.

use super::plot::{self, Axis, Canvas, Drawn, FAINT, INK, Plot, bounds, spread, stroke, write};
use super::svg::clean;
use image::RgbImage;
use plotters::backend::DrawingBackend;
use plotters::coord::ranged1d::Ranged;
use plotters::element::{Circle, PathElement};
use plotters::style::text_anchor::HPos;
use plotters::style::{Color, RGBColor, WHITE};
use std::error::Error;

const PANEL: i32 = 520;
const TOP: i32 = 110;
const HEIGHT: i32 = 270;
const LINE: i32 = 22;
/// More places than this are drawn without a mark each.
const MARKED: usize = 40;

/// One panel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LinePanel {
    /// What is upward.
    pub words: String,
    /// The least and the largest value there can be.
    pub limits: (f64, f64),
    /// Decimals of the last values, which are written at the lines' ends.
    pub decimals: usize,
    /// The values of each line, at the plot's places; what is not finite leaves a gap.
    pub lines: Vec<Vec<f64>>,
}

/// Lines over the same places.
///
/// ```
/// use striate::draw::{LinePanel, Lines, Plot};
/// let panel = LinePanel { words: "height".into(), limits: (0.0, 9.0), decimals: 1, lines: vec![vec![1.0, 4.5]] };
/// let lines = Lines {
///     title: "Growth".into(),
///     subtitle: "of one plant".into(),
///     across: "days".into(),
///     places: vec![0.0, 1.0],
///     names: vec!["bean".into()],
///     panels: vec![panel],
/// };
/// assert!(lines.svg().contains("bean") && lines.image().height() > 300);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lines {
    /// At the top.
    pub title: String,
    /// Below it.
    pub subtitle: String,
    /// What is to the right.
    pub across: String,
    /// Where the values are.
    pub places: Vec<f64>,
    /// One a line.
    pub names: Vec<String>,
    /// From left to right.
    pub panels: Vec<LinePanel>,
}

impl Plot for Lines {
    fn svg(&self) -> String {
        plot::svg(self.size(), &self.title, "The lines could not be drawn.", |root| self.draw(root))
    }

    fn image(&self) -> RgbImage {
        plot::pixels(self.size(), |root| self.draw(root))
    }
}

impl Lines {
    fn size(&self) -> (u32, u32) {
        let width = PANEL * self.panels.len().clamp(1, 8) as i32;
        let height = TOP + HEIGHT + 70 + LINE * self.names.len().min(200) as i32;
        (width as u32, height as u32)
    }

    fn draw<B: DrawingBackend>(&self, root: &Canvas<B>) -> Drawn<(), B::ErrorType>
    where
        B::ErrorType: Error + Send + Sync,
    {
        write(root, &clean(&self.title, 90), (24, 26), 22.0, INK, HPos::Left, true)?;
        write(root, &clean(&self.subtitle, 130), (24, 50), 15.0, FAINT, HPos::Left, false)?;
        let colors = plot::colors(self.names.len());
        for (panel, left) in self.panels.iter().zip((0..).step_by(PANEL as usize)) {
            self.panel(root, panel, left, &colors)?;
        }
        for (line, name) in self.names.iter().enumerate().take(200) {
            let y = TOP + HEIGHT + 70 + LINE * line as i32;
            root.draw(&PathElement::new(vec![(64, y), (100, y)], stroke(colors[line])))?;
            mark(root, (82, y), line, colors[line])?;
            write(root, &clean(name, 110), (112, y), 15.0, INK, HPos::Left, false)?;
        }
        Ok(())
    }

    fn panel<B: DrawingBackend>(
        &self,
        root: &Canvas<B>,
        panel: &LinePanel,
        left: i32,
        colors: &[RGBColor],
    ) -> Drawn<(), B::ErrorType>
    where
        B::ErrorType: Error + Send + Sync,
    {
        let (left, right, top, bottom) = (left + 64, left + PANEL - 76, TOP, TOP + HEIGHT);
        let finite = |v: &f64| v.is_finite() && v.abs() < 1e30;
        let (first, last) = bounds(&self.places).unwrap_or((0.0, 1.0));
        let margin = if last > first { (last - first) * 0.03 } else { 1.0 };
        let mut across = Axis::linear(first - margin, last + margin, 8.0, 1.0);
        across.ticks.retain(|tick| (first..=last).contains(&tick.0));
        let values: Vec<f64> = panel.lines.iter().flatten().copied().filter(finite).collect();
        let (low, high) = bounds(&values).unwrap_or(panel.limits);
        // A flat line still gets an axis that means something.
        let margin = ((high - low) * 0.06).max((panel.limits.1 - panel.limits.0).abs() * 0.01).max(1e-9);
        let (least, most) = panel.limits;
        let up = Axis::linear((low - margin).max(least.min(low)), (high + margin).min(most.max(high)), 7.0, 0.0);
        let place = |x: f64, y: f64| (across.map(&x, (left, right)), up.map(&y, (bottom, top)));

        write(root, &clean(&panel.words, 60), (left, top - 18), 16.0, INK, HPos::Left, true)?;
        plot::grid(root, (&across, &up), (left, right), (top, bottom))?;
        root.draw(&PathElement::new(vec![(left, top), (left, bottom), (right, bottom)], FAINT))?;
        write(root, &clean(&self.across, 60), ((left + right) / 2, bottom + 36), 15.0, INK, HPos::Center, false)?;

        let mut ends = Vec::new();
        for (line, values) in panel.lines.iter().enumerate() {
            let color = colors.get(line).copied().unwrap_or(FAINT);
            let points: Vec<Option<(i32, i32)>> =
                self.places.iter().zip(values).map(|(&x, &y)| finite(&y).then(|| place(x, y))).collect();
            for run in points.split(Option::is_none).filter(|run| run.len() > 1) {
                root.draw(&PathElement::new(run.iter().copied().flatten().collect::<Vec<_>>(), stroke(color)))?;
            }
            for (i, at) in points.iter().enumerate().filter_map(|(i, at)| Some((i, (*at)?))) {
                let joined = [i.checked_sub(1), Some(i + 1)].into_iter().flatten();
                let joined = joined.filter_map(|other| *points.get(other)?).count() > 0;
                if points.len() <= MARKED || !joined {
                    mark(root, at, line, color)?;
                }
            }
            if let Some((&value, at)) = values.iter().zip(&points).rev().find_map(|(v, at)| Some((v, (*at)?))) {
                ends.push((at.1, format!("{value:.*}", panel.decimals), color));
            }
        }
        let heights: Vec<i32> = ends.iter().map(|end| end.0).collect();
        for (y, (_, words, color)) in spread(&heights, 17).into_iter().zip(&ends) {
            write(root, words, (right + 10, y), 16.0, *color, HPos::Left, true)?;
        }
        Ok(())
    }
}

/// A disc for every other line and a ring for the rest, so that neighbours differ in print without colour as well.
fn mark<B: DrawingBackend>(root: &Canvas<B>, at: (i32, i32), line: usize, color: RGBColor) -> Drawn<(), B::ErrorType>
where
    B::ErrorType: Error + Send + Sync,
{
    root.draw(&Circle::new(at, 4, color.filled()))?;
    if line % 2 == 1 {
        root.draw(&Circle::new(at, 2, WHITE.filled()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::svg::tests::well_formed;
    use super::*;

    fn lines(values: Vec<Vec<f64>>) -> Lines {
        let panel =
            |words: &str| LinePanel { words: words.into(), limits: (0.0, 100.0), decimals: 2, lines: values.clone() };
        Lines {
            title: "Lines".into(),
            subtitle: "below".into(),
            across: "pixels".into(),
            places: vec![0.0, 1.0, 2.0],
            names: (0..values.len()).map(|i| format!("model <{i}>")).collect(),
            panels: vec![panel("accuracy, %"), panel("change")],
        }
    }

    #[test]
    fn names_and_last_values_are_written() {
        let svg = lines(vec![vec![99.0, 98.0, 90.0], vec![97.0, f64::NAN, 30.125]]).svg();
        let texts = well_formed(&svg);
        for words in ["Lines", "below", "accuracy, %", "change", "model <1>", "90.00", "30.12", "pixels", "0", "1", "2"]
        {
            assert!(texts.iter().any(|t| t == words), "{words}: {texts:?}");
        }
        // Marks: five in each panel and two in the legend, with a white middle for the second line's three.
        assert_eq!(svg.matches("<circle").count(), 2 * (3 + 4) + 3);
    }

    #[test]
    fn of_many_values_only_lone_ones_are_marked() {
        let mut values = vec![1.0; 100];
        (values[49], values[51]) = (f64::NAN, f64::NAN);
        let many = Lines { places: (0..100).map(f64::from).collect(), ..lines(vec![values]) };
        // One in each panel, and the legend's.
        assert_eq!(many.svg().matches("<circle").count(), 2 + 1);
    }

    #[test]
    fn any_values_are_survived() {
        for values in
            [vec![], vec![vec![]], vec![vec![f64::INFINITY; 3]], vec![vec![50.0; 3]; 30], vec![vec![1e29, -1e29]]]
        {
            let odd = lines(values);
            well_formed(&odd.svg());
            odd.image();
        }
        well_formed(&Lines::default().svg());
        Lines::default().image();
    }
}
