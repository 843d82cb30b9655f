//! Learning curves as SVG.

use super::escape;
use plotters::prelude::*;
use std::ops::Range;

/// One epoch of a learning curve. Accuracies are shares of 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CurvePoint {
    /// The epoch, from 1.
    pub epoch: f64,
    /// Mean training loss.
    pub train_loss: f64,
    /// Share of training images that were right.
    pub train_accuracy: f64,
    /// Mean test loss, if there is a test set.
    pub test_loss: Option<f64>,
    /// Share of test images that were right, if there is a test set.
    pub test_accuracy: Option<f64>,
}

const TRAIN: RGBColor = RGBColor(31, 119, 180);
const TEST: RGBColor = RGBColor(214, 90, 20);

/// Loss and accuracy by epoch, side by side. Numbers that are not finite are left out.
///
/// ```
/// use striate::draw::{CurvePoint, curves};
/// let point = CurvePoint { epoch: 1.0, train_loss: 0.3, train_accuracy: 0.9, test_loss: None, test_accuracy: Some(0.91) };
/// assert!(curves(&[point], "SimpleConvNet on MNIST").contains("91.00 %"));
/// ```
pub fn curves(points: &[CurvePoint], title: &str) -> String {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (960, 400)).into_drawing_area();
        // Drawing into a string has no way to fail.
        let _ = draw(&root, points, title);
        let _ = root.present();
    }
    svg
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

fn draw(root: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>, points: &[CurvePoint], title: &str) -> Drawn {
    root.fill(&WHITE)?;
    let root = root.titled(&escape(title), ("sans-serif", 20))?;
    let (left, right) = root.split_horizontally(480);
    let series = |value: fn(&CurvePoint) -> Option<f64>| -> Vec<(f64, f64)> {
        let finite = points.iter().filter_map(|p| Some((p.epoch, value(p).filter(|v| v.is_finite())?)));
        finite.collect()
    };
    panel(&left, "loss", "", &series(|p| Some(p.train_loss)), &series(|p| p.test_loss), 4)?;
    let (train, test) = (series(|p| Some(100.0 * p.train_accuracy)), series(|p| p.test_accuracy.map(|a| 100.0 * a)));
    panel(&right, "accuracy (%)", " %", &train, &test, 2)
}

fn panel(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    name: &str,
    unit: &str,
    train: &[(f64, f64)],
    test: &[(f64, f64)],
    digits: usize,
) -> Drawn {
    let all = || train.iter().chain(test);
    let epochs = range(all().map(|p| p.0), 0.5);
    let values = range(all().map(|p| p.1), 0.0);
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(epochs, values)?;
    chart
        .configure_mesh()
        .x_desc("epoch")
        .y_desc(name)
        .x_label_formatter(&|x| if x.fract().abs() < 1e-6 { format!("{x:.0}") } else { String::new() })
        .light_line_style(WHITE)
        .label_style(("sans-serif", 13))
        .draw()?;
    for (label, points, colour) in [("training", train, TRAIN), ("test", test, TEST)] {
        let Some(last) = points.last() else { continue };
        chart
            .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?
            .label(format!("{label}: {:.digits$}{unit}", last.1))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        chart.draw_series(points.iter().map(|&point| Circle::new(point, 3, colour.filled())))?;
    }
    if !train.is_empty() || !test.is_empty() {
        // Where a curve that settles leaves room: a loss above, an accuracy below.
        let position = if unit.is_empty() { SeriesLabelPosition::UpperRight } else { SeriesLabelPosition::LowerRight };
        chart
            .configure_series_labels()
            .position(position)
            .background_style(WHITE.mix(0.85))
            .border_style(BLACK.mix(0.3))
            .label_font(("sans-serif", 14))
            .draw()?;
    }
    Ok(())
}

/// From the smallest to the largest value with a little room, never empty.
fn range(values: impl Iterator<Item = f64> + Clone, least: f64) -> Range<f64> {
    let low = values.clone().fold(f64::INFINITY, f64::min);
    let high = values.fold(f64::NEG_INFINITY, f64::max);
    if low > high {
        return 0.0..1.0;
    }
    let room = (0.05 * (high - low)).max(least).max(1e-3);
    low - room..high + room
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_points_and_any_numbers() {
        let point = |epoch: f64, loss: f64| CurvePoint {
            epoch,
            train_loss: loss,
            train_accuracy: 0.9987,
            test_loss: Some(0.05),
            test_accuracy: None,
        };
        assert!(curves(&[], "empty").ends_with("</svg>\n"));
        assert!(curves(&[point(1.0, f64::NAN)], "one").contains("99.87 %"));
        let many = curves(&[point(1.0, 0.3), point(2.0, f64::INFINITY), point(3.0, 0.1)], "<b>&");
        assert!(many.contains("training: 0.1000") && many.contains("test: 0.0500"), "{many}");
        assert!(!many.contains("<b>"));
    }
}
