//! Learning curves: loss and accuracy by epoch.

use super::plot::{self, Axis, FAINT, GRID, INK, Scale, bounds, short, spread, stroke, write};
use super::svg::clean;
use plotters::backend::SVGBackend;
use plotters::chart::{ChartBuilder, ChartContext};
use plotters::coord::cartesian::Cartesian2d;
use plotters::element::{Circle, PathElement};
use plotters::style::text_anchor::HPos;
use plotters::style::{Color, IntoFont, RGBColor, ShapeStyle, WHITE};

const SIZE: (u32, u32) = (1040, 420);
const PANEL: i32 = SIZE.0 as i32 / 2;
const TRAIN: RGBColor = RGBColor(0, 114, 178);
const TEST: RGBColor = RGBColor(213, 94, 0);
const VALIDATION: RGBColor = RGBColor(0, 135, 100);

/// Numbers of this size and above are not drawn: no loss that can be learnt from is so large.
const ABSURD: f64 = 1e30;
/// More points than this are drawn without a mark each.
const MARKED: usize = 40;

/// What is known after an epoch. Accuracies are shares: 0.99 is 99 %.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CurvePoint {
    /// Counted from 1.
    pub epoch: usize,
    /// Mean loss on the training set.
    pub train_loss: f64,
    /// Accuracy on the training set.
    pub train_accuracy: f64,
    /// Accuracy on the validation set, where it was measured.
    pub validation_accuracy: Option<f64>,
    /// Mean loss on the validation set, where it was measured.
    pub validation_loss: Option<f64>,
    /// Accuracy on the test set, where it was measured.
    pub test_accuracy: Option<f64>,
    /// Mean loss on the test set, where it was measured.
    pub test_loss: Option<f64>,
}

/// Draws loss and accuracy by epoch as SVG, the last value of each curve written at its end.
///
/// The axes fit the data: the loss is on a logarithmic scale when it falls by more than a factor of 30, and the accuracy
/// is stretched towards 100 % when it starts low and ends high, so that 98 % and 99 % can be told apart. The panels say
/// so. NaN, infinity and what was not measured leave a gap.
///
/// ```
/// use striate::draw::{CurvePoint, curves};
///
/// let points: Vec<CurvePoint> = (1..=20)
///     .map(|epoch| {
///         let wrong = 0.06 / epoch as f64;
///         let test_accuracy = Some(0.99 - wrong / 4.0);
///         let (train_loss, train_accuracy) = (3.0 * wrong, 1.0 - wrong);
///         CurvePoint { epoch, train_loss, train_accuracy, test_accuracy, ..CurvePoint::default() }
///     })
///     .collect();
/// let svg = curves(&points, "SimpleConvNet on MNIST");
/// assert!(svg.starts_with("<svg") && svg.contains("best test accuracy") && svg.contains("after epoch 20"));
/// ```
pub fn curves(points: &[CurvePoint], title: &str) -> String {
    plot::svg(SIZE, title, "The curves could not be drawn; the numbers are in the log of the training.", |root| {
        draw(root, points, &clean(title, 90))
    })
}

type Canvas<'a> = plot::Canvas<SVGBackend<'a>>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Axis, Axis>>;
type Drawn<T> = plot::Drawn<T, std::io::Error>;

const TRAINING: &str = "training";
const VALIDATED: &str = "validation";
const TESTED: &str = "test";

/// One curve: a name, its look, and its points as far as they are numbers.
struct Series {
    name: &'static str,
    color: RGBColor,
    hollow: bool,
    points: Vec<(f64, Option<f64>)>,
}

impl Series {
    fn new(name: &'static str, points: &[CurvePoint], value: impl Fn(&CurvePoint) -> Option<f64>) -> Self {
        let usable = |p: &CurvePoint| value(p).filter(|v| v.is_finite() && v.abs() < ABSURD);
        let color = match name {
            TRAINING => TRAIN,
            VALIDATED => VALIDATION,
            _ => TEST,
        };
        Self {
            name,
            color,
            hollow: name != TRAINING,
            points: points.iter().map(|p| (p.epoch as f64, usable(p))).collect(),
        }
    }

    fn values(&self) -> impl Iterator<Item = f64> {
        self.points.iter().filter_map(|&(_, value)| value)
    }

    fn last(&self) -> Option<(f64, f64)> {
        self.points.iter().rev().find_map(|&(epoch, value)| Some((epoch, value?)))
    }
}

fn draw(root: &Canvas<'_>, points: &[CurvePoint], title: &str) -> Drawn<()> {
    // Infinity must not become 100 %.
    let share = |value: f64| if value.is_finite() { value.clamp(0.0, 1.0) * 100.0 } else { f64::NAN };
    let loss = [
        Series::new(TRAINING, points, |p| Some(p.train_loss)),
        Series::new(VALIDATED, points, |p| p.validation_loss),
        Series::new(TESTED, points, |p| p.test_loss),
    ];
    let accuracy = [
        Series::new(TRAINING, points, |p| Some(share(p.train_accuracy))),
        Series::new(VALIDATED, points, |p| p.validation_accuracy.map(share)),
        Series::new(TESTED, points, |p| p.test_accuracy.map(share)),
    ];
    let epochs = epoch_axis(points);
    let loss_axis = loss_axis(&values(&loss));
    let accuracy_axis = accuracy_axis(&values(&accuracy));

    write(root, title, (24, 26), 22.0, INK, HPos::Left, true)?;
    // What is validated chooses the epoch.
    let judge = if accuracy[1].last().is_some() { &accuracy[1] } else { &accuracy[2] };
    write(root, &subtitle(judge), (24, 50), 15.0, FAINT, HPos::Left, false)?;
    let words = match loss_axis.scale {
        Scale::Logarithmic => "loss (log scale)",
        _ => "loss",
    };
    panel(root, 0, words, &loss, &epochs, &loss_axis, |v| short(v, 4))?;
    let words = match accuracy_axis.scale {
        Scale::TowardsHundred => "accuracy, % (stretched)",
        _ => "accuracy, %",
    };
    panel(root, PANEL, words, &accuracy, &epochs, &accuracy_axis, |v| format!("{v:.2}"))
}

fn values(series: &[Series]) -> Vec<f64> {
    series.iter().flat_map(Series::values).collect()
}

/// The best result in words.
fn subtitle(judge: &Series) -> String {
    let measured = judge.points.iter().filter_map(|&(epoch, value)| Some((epoch, value?)));
    // The first of equals: `fold` keeps it, `max_by` would not.
    let best = measured.fold(None, |best: Option<(f64, f64)>, point| match best {
        Some(b) if b.1 >= point.1 => Some(b),
        _ => Some(point),
    });
    match best {
        Some((epoch, value)) => format!("best {} accuracy {value:.2} % after epoch {epoch}", judge.name),
        None => String::new(),
    }
}

/// One chart in the half of the page that begins at `left`.
fn panel(
    root: &Canvas<'_>,
    left: i32,
    words: &str,
    series: &[Series],
    epochs: &Axis,
    axis: &Axis,
    last_value: impl Fn(f64) -> String,
) -> Drawn<()> {
    let area = root.clone().shrink((left, 64), (PANEL as u32, SIZE.1 - 64));
    let mut chart = ChartBuilder::on(&area)
        .margin_left(12)
        .margin_right(70)
        .margin_top(34)
        .margin_bottom(12)
        .x_label_area_size(44)
        .y_label_area_size(52)
        .build_cartesian_2d(epochs.clone(), axis.clone())?;
    chart
        .configure_mesh()
        .bold_line_style(GRID)
        .light_line_style(WHITE.mix(0.0))
        .axis_style(FAINT)
        .label_style(("sans-serif", 15).into_font().color(&FAINT))
        .axis_desc_style(("sans-serif", 16).into_font().color(&INK))
        .x_desc("epoch")
        .draw()?;

    let (across, down) = chart.plotting_area().get_pixel_range();
    write(root, words, (across.start, down.start - 18), 16.0, INK, HPos::Left, true)?;
    if series.iter().all(|s| s.values().next().is_none()) {
        let centre = ((across.start + across.end) / 2, (down.start + down.end) / 2 - 13);
        return write(root, "nothing measured yet", centre, 16.0, FAINT, HPos::Center, false);
    }
    let mut right = across.end;
    let mut ends = Vec::new();
    for one in series.iter().rev().filter(|s| s.values().next().is_some()) {
        curve(&mut chart, one, axis)?;
        right = legend(root, one, (right, down.start - 18))?;
        if let Some((epoch, value)) = one.last() {
            ends.push((chart.backend_coord(&(epoch, axis.place(value))).1, last_value(value), one.color));
        }
    }
    for (y, (_, words, color)) in spread(&ends.iter().map(|e| e.0).collect::<Vec<_>>(), 17).into_iter().zip(ends) {
        write(root, &words, (across.end + 10, y), 16.0, color, HPos::Left, true)?;
    }
    Ok(())
}

/// A line with a gap where there is no number, and a mark at each point.
fn curve(chart: &mut Chart<'_, '_>, series: &Series, axis: &Axis) -> Drawn<()> {
    let place = |&(epoch, value): &(f64, Option<f64>)| Some((epoch, axis.place(value?)));
    for run in series.points.split(|(_, value)| value.is_none()).filter(|run| run.len() > 1) {
        let line: Vec<(f64, f64)> = run.iter().filter_map(place).collect();
        chart.draw_series([PathElement::new(line, stroke(series.color))])?;
    }
    // Without marks a point between two gaps would not be seen at all.
    let crowded = series.points.len() > MARKED;
    for (index, point) in series.points.iter().enumerate().filter_map(|(i, p)| Some((i, place(p)?))) {
        let alone = |neighbour: Option<&(f64, Option<f64>)>| neighbour.is_none_or(|(_, value)| value.is_none());
        let isolated =
            alone(index.checked_sub(1).and_then(|i| series.points.get(i))) && alone(series.points.get(index + 1));
        if !crowded || isolated {
            mark(|style, radius| chart.draw_series([Circle::new(point, radius, style)]).map(|_| ()), series)?;
        }
    }
    Ok(())
}

/// A disc for training; for what is held out a ring, so that the two differ in print without colour as well.
fn mark(mut circle: impl FnMut(ShapeStyle, i32) -> Drawn<()>, series: &Series) -> Drawn<()> {
    if series.hollow {
        circle(WHITE.filled(), 4)?;
        return circle(stroke(series.color), 3);
    }
    circle(series.color.filled(), 3)
}

/// One entry of the legend, its right end at `right`; returns where the next one may end.
fn legend(root: &Canvas<'_>, series: &Series, (right, y): (i32, i32)) -> Drawn<i32> {
    let width = series.name.len() as i32 * 7;
    let line = (right - width - 28, right - width - 8);
    write(root, series.name, (right - width, y), 15.0, INK, HPos::Left, false)?;
    root.draw(&PathElement::new(vec![(line.0, y), (line.1, y)], stroke(series.color)))?;
    mark(|style, radius| root.draw(&Circle::new(((line.0 + line.1) / 2, y), radius, style)), series)?;
    Ok(line.0 - 12)
}

fn epoch_axis(points: &[CurvePoint]) -> Axis {
    let epochs: Vec<f64> = points.iter().map(|p| p.epoch as f64).collect();
    let (first, last) = bounds(&epochs).unwrap_or((0.0, 1.0));
    let margin = if first == last { 1.0 } else { (last - first) * 0.03 };
    let mut axis = Axis::linear(first - margin, last + margin, 8.0, 1.0);
    // Beyond the data there are no epochs to name.
    axis.ticks.retain(|t| (first..=last).contains(&t.0));
    // The first epoch is named too, unless another name is close.
    if axis.ticks.iter().all(|t| t.0 - first > (last - first) * 0.06) {
        axis.ticks.insert(0, (first, format!("{first}")));
    }
    if points.is_empty() {
        axis.ticks.clear();
    }
    axis
}

fn loss_axis(values: &[f64]) -> Axis {
    let (low, high) = bounds(values).unwrap_or((0.0, 1.0));
    if low > 0.0 && high > 30.0 * low {
        return Axis::logarithmic(low, high);
    }
    // From zero, unless all the change is far from it.
    let (low, high) = match high - low {
        change if low >= 0.0 && change > 0.2 * high => (0.0, high),
        change if change > 1e-6 * high.abs().max(1e-30) => (low, high),
        _ if high == 0.0 => (0.0, 1.0),
        _ => (low - 0.1 * low.abs(), high + 0.1 * high.abs()),
    };
    let margin = (high - low) * 0.05;
    Axis::linear(if low == 0.0 { 0.0 } else { low - margin }, high + margin, 7.0, 0.0)
}

/// `values` in percent.
pub(super) fn accuracy_axis(values: &[f64]) -> Axis {
    let Some((low, high)) = bounds(values) else { return Axis::linear(0.0, 100.0, 10.0, 0.0) };
    if low < 88.0 && high > 97.0 {
        let mut axis = Axis { scale: Scale::TowardsHundred, low: 0.0, high: 0.0, ticks: Vec::new() };
        let (from, to) = (axis.place(low), axis.place(high));
        let margin = (to - from) * 0.05;
        (axis.low, axis.high) = (from - margin, (to + margin).max(axis.place(99.0)));
        // The most telling first; the others where there is room.
        for percent in [99.0, 90.0, 100.0, 98.0, 95.0, 99.5, 50.0, 80.0, 0.0, 99.8, 99.9, 97.0, 70.0, 30.0, 60.0, 85.0]
        {
            let place = axis.place(percent);
            let room = (axis.high - axis.low) * 0.07;
            if (axis.low..=axis.high).contains(&place) && axis.ticks.iter().all(|t| (t.0 - place).abs() >= room) {
                axis.ticks.push((place, format!("{percent}")));
            }
        }
        return axis;
    }
    // A flat curve still gets an axis that means something: half a percent at least.
    let margin = ((high - low) * 0.06).max(0.25 - (high - low) / 2.0).max(0.02);
    Axis::linear((low - margin).max(0.0), (high + margin).min(100.0), 10.0, 0.0)
}

#[cfg(test)]
mod tests {
    use super::super::svg::tests::well_formed;
    use super::*;

    fn points(count: usize) -> Vec<CurvePoint> {
        let wrong = |e: usize| 0.08 / e as f64;
        let point = |epoch| CurvePoint {
            epoch,
            train_loss: wrong(epoch) * 3.0,
            train_accuracy: 1.0 - wrong(epoch),
            test_accuracy: Some(0.99 - wrong(epoch) / 3.0),
            test_loss: Some(0.03 + wrong(epoch)),
            ..CurvePoint::default()
        };
        (1..=count).map(point).collect()
    }

    fn texts(points: &[CurvePoint]) -> Vec<String> {
        well_formed(&curves(points, "Curves"))
    }

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|t| t.1.as_str()).collect()
    }

    #[test]
    fn the_last_values_and_the_best_are_written() {
        let texts = texts(&points(20));
        for words in
            ["Curves", "epoch", "loss", "accuracy, %", "training", "test", "0.0120", "0.0340", "99.60", "98.87"]
        {
            assert!(texts.iter().any(|t| t == words), "{words} in {texts:?}");
        }
        assert!(texts.contains(&"best test accuracy 98.87 % after epoch 20".to_string()));
    }

    #[test]
    fn what_is_validated_is_called_so_and_named_the_best() {
        let mut held_out = points(12);
        for point in &mut held_out {
            point.validation_accuracy = point.test_accuracy.take();
            point.validation_loss = point.test_loss.take();
        }
        let words = texts(&held_out);
        assert!(words.iter().any(|t| t == "validation") && !words.iter().any(|t| t.contains("test")), "{words:?}");
        assert!(words.contains(&"best validation accuracy 98.78 % after epoch 12".to_string()), "{words:?}");
        // All three.
        held_out.iter_mut().for_each(|point| point.test_accuracy = Some(0.9));
        let words = texts(&held_out);
        for name in [TRAINING, VALIDATED, TESTED] {
            assert!(words.iter().any(|t| t == name), "{name}: {words:?}");
        }
    }

    #[test]
    fn any_number_of_points() {
        for count in [0, 1, 2, 3, 40, 41, 500] {
            let texts = texts(&points(count));
            assert_eq!(texts.iter().filter(|t| *t == "nothing measured yet").count(), if count == 0 { 2 } else { 0 });
        }
    }

    #[test]
    fn what_is_not_a_number_leaves_a_gap() {
        let mut gaps = points(10);
        gaps[4].train_loss = f64::NAN;
        gaps[5].train_accuracy = f64::INFINITY;
        gaps[6].test_loss = Some(f64::NEG_INFINITY);
        gaps[7].test_accuracy = None;
        gaps[9].train_loss = f64::NAN;
        let texts = texts(&gaps);
        // The last loss that is a number is the ninth.
        assert!(texts.iter().any(|t| t == "0.0267"), "{texts:?}");
        let accuracy = Series::new(TRAINING, &gaps, |p| Some(p.train_accuracy));
        assert_eq!(accuracy.values().count(), 9);
    }

    #[test]
    fn hostile_numbers_are_survived() {
        for value in [
            f64::NAN,
            f64::INFINITY,
            -f64::INFINITY,
            f64::MAX,
            f64::MIN_POSITIVE,
            0.0,
            -0.0,
            -1.0,
            1.0,
            1e29,
            1e-300,
            5.0,
        ] {
            for other in [value, 0.5, -1e29, 1e-30] {
                for epoch in [0, 1, usize::MAX] {
                    let one = CurvePoint {
                        epoch,
                        train_loss: value,
                        train_accuracy: value,
                        validation_accuracy: Some(other),
                        validation_loss: Some(value),
                        test_accuracy: Some(other),
                        test_loss: Some(other),
                    };
                    texts(&[one]);
                    texts(&[
                        one,
                        CurvePoint { epoch: 1, ..one },
                        CurvePoint { train_loss: other, test_loss: None, ..one },
                    ]);
                }
            }
        }
    }

    #[test]
    fn the_title_is_escaped_and_cut() {
        let title = format!("<script>alert('&')</script>\0 {}", "long ".repeat(100));
        let svg = curves(&points(3), &title);
        assert!(!svg.contains("<script"));
        let texts = well_formed(&svg);
        assert!(texts[0].starts_with("<script>alert('&')") && texts[0].chars().count() <= 90);
    }

    #[test]
    fn accuracies_near_one_hundred_can_be_told_apart() {
        let axis = accuracy_axis(&[97.0, 99.9]);
        assert_eq!(
            (axis.scale, labels(&axis)),
            (Scale::Linear, vec!["97.0", "97.5", "98.0", "98.5", "99.0", "99.5", "100.0"])
        );
        assert!(axis.low < 97.0 && axis.low > 96.0 && axis.high <= 100.0);
        // From far below: stretched, in order, 98 to 99 at least a fifteenth of the height.
        let axis = accuracy_axis(&[35.0, 99.9]);
        assert_eq!(axis.scale, Scale::TowardsHundred);
        assert!(labels(&axis).contains(&"99") && labels(&axis).contains(&"90"));
        assert!(axis.place(35.0) > axis.low && axis.place(99.9) < axis.high);
        assert!((axis.place(99.0) - axis.place(98.0)) / (axis.high - axis.low) > 1.0 / 15.0);
        assert!(axis.place(100.0).is_finite());
        // A flat curve.
        let axis = accuracy_axis(&[98.7, 98.7]);
        assert!(axis.ticks.len() >= 3 && axis.high - axis.low >= 0.4);
        assert_eq!(labels(&accuracy_axis(&[])).len(), 11);
    }

    #[test]
    fn losses_get_the_scale_they_need() {
        let axis = loss_axis(&[0.3, 0.003]);
        assert_eq!(
            (axis.scale, labels(&axis)),
            (Scale::Logarithmic, vec!["0.005", "0.01", "0.02", "0.05", "0.1", "0.2"])
        );
        let axis = loss_axis(&[2.3, 0.4]);
        assert_eq!((axis.scale, labels(&axis)), (Scale::Linear, vec!["0.0", "0.5", "1.0", "1.5", "2.0"]));
        for values in [
            vec![],
            vec![0.0],
            vec![0.7],
            vec![-2.0, 5.0],
            vec![1e29, 1e-29],
            vec![1e-20, 0.0],
            vec![1e20, 1.0000001e20],
        ] {
            let axis = loss_axis(&values);
            assert!(axis.low < axis.high && axis.ticks.len() <= 12, "{values:?}: {axis:?}");
            assert!(values.iter().all(|&v| (axis.low..=axis.high).contains(&axis.place(v))), "{values:?}: {axis:?}");
        }
    }

    #[test]
    fn epochs_are_whole_and_begin_with_the_first() {
        let axis = |epochs: &[usize]| {
            epoch_axis(&epochs.iter().map(|&epoch| CurvePoint { epoch, ..CurvePoint::default() }).collect::<Vec<_>>())
        };
        assert_eq!(labels(&axis(&[1, 20])), ["1", "5", "10", "15", "20"]);
        assert_eq!(labels(&axis(&[1, 2, 3])), ["1", "2", "3"]);
        assert_eq!(labels(&axis(&[7])), ["7"]);
        assert!(axis(&[]).ticks.is_empty());
    }

    #[test]
    fn last_values_do_not_overlap() {
        assert_eq!(spread(&[10, 12], 17), [3, 20]);
        assert_eq!(spread(&[12, 10], 17), [20, 3]);
        assert_eq!(spread(&[10, 40], 17), [10, 40]);
        assert_eq!(spread(&[5], 17), [5]);
        assert_eq!(spread(&[0, 50, 52, 54], 17), [0, 35, 52, 69]);
        assert!(spread(&[], 17).is_empty());
    }
}
