//! The learning-rate range test: loss by learning rate.

use super::plot::{self, Axis, Canvas, Drawn, FAINT, INK, bounds, stroke, write};
use super::svg::{clean, text_width};
use plotters::backend::SVGBackend;
use plotters::coord::ranged1d::Ranged;
use plotters::element::{PathElement, Rectangle};
use plotters::style::text_anchor::HPos;
use plotters::style::{Color, RGBColor, ShapeStyle, WHITE};

const LOSS: RGBColor = RGBColor(186, 208, 226);
const SMOOTHED: RGBColor = RGBColor(0, 114, 178);
const CHOSEN: RGBColor = RGBColor(213, 94, 0);

const SIZE: (u32, u32) = (760, 420);
/// Left, right, top, bottom.
const PLANE: (i32, i32, i32, i32) = (66, 736, 84, 366);

/// A step of the test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateLoss {
    /// The learning rate.
    pub rate: f32,
    /// The batch's loss.
    pub loss: f64,
    /// The loss, smoothed.
    pub smoothed: f64,
}

/// Draws the losses of a learning-rate range test by the logarithm of the rate as SVG, with a line at each marked rate,
/// under its words. Losses far above where they began are cut off; what is not finite is left out.
///
/// ```
/// use striate::draw::{RateLoss, learning_rates};
///
/// let at = |step: i32| {
///     let rate = 10f32.powf(step as f32 / 10.0 - 6.0);
///     RateLoss { rate, loss: 2.3 - f64::from(rate).min(1.0), smoothed: 2.3 - f64::from(rate).min(1.0) }
/// };
/// let points: Vec<RateLoss> = (0..60).map(at).collect();
/// let svg = learning_rates(&points, &[("suggestion 0.002", 0.002)], "SimpleConvNet on MNIST");
/// assert!(svg.starts_with("<svg") && svg.contains("suggestion 0.002") && svg.contains("1e-6"));
/// ```
pub fn learning_rates(points: &[RateLoss], marks: &[(&str, f32)], title: &str) -> String {
    plot::svg(SIZE, title, "The losses could not be drawn; the numbers are in the result as JSON.", |root| {
        draw(root, points, marks, &clean(title, 78))
    })
}

fn draw(
    root: &Canvas<SVGBackend<'_>>,
    points: &[RateLoss],
    marks: &[(&str, f32)],
    title: &str,
) -> Drawn<(), std::io::Error> {
    let (left, right, top, bottom) = PLANE;
    write(root, title, (20, 26), 20.0, INK, HPos::Left, true)?;
    write(root, "loss", (left, top - 18), 16.0, INK, HPos::Left, true)?;
    let mut at = left + 90;
    for (words, color) in [("of a step", LOSS), ("smoothed", SMOOTHED)] {
        root.draw(&PathElement::new(vec![(at, top - 18), (at + 26, top - 18)], stroke(color)))?;
        write(root, words, (at + 34, top - 18), 15.0, INK, HPos::Left, false)?;
        at += 130;
    }
    write(root, "learning rate (log scale)", ((left + right) / 2, bottom + 38), 15.0, INK, HPos::Center, false)?;
    let frame = Rectangle::new([(left, top), (right, bottom)], FAINT);
    let usable = |v: f64| v.is_finite() && v.abs() < 1e30;
    let points: Vec<&RateLoss> =
        points.iter().filter(|p| p.rate > 0.0 && p.rate.is_finite() && usable(p.loss) && usable(p.smoothed)).collect();
    let rates: Vec<f64> = points.iter().map(|p| p.rate.into()).collect();
    let (Some(first), Some((slowest, fastest))) = (points.first(), bounds(&rates)) else {
        root.draw(&frame)?;
        let middle = ((left + right) / 2, (top + bottom) / 2);
        return write(root, "nothing measured", middle, 16.0, FAINT, HPos::Center, false);
    };
    let across = Axis::logarithmic(slowest, fastest);
    let least = points.iter().map(|p| p.loss.min(p.smoothed)).fold(f64::INFINITY, f64::min).min(first.smoothed);
    // The rise at the end is not what one looks for.
    let high = least + 1.35 * (first.smoothed - least).max(0.05 * first.smoothed.abs()).max(1e-6);
    let low = if least >= 0.0 && least < 0.5 * high { 0.0 } else { least - 0.05 * (high - least) };
    let up = Axis::linear(low, high, 6.0, 0.0);
    let x = |rate: f32| across.map(&across.place(rate.into()), (left, right));
    plot::grid(root, (&across, &up), (left, right), (top, bottom))?;
    root.draw(&frame)?;
    let losses: [Vec<f64>; 2] = [points.iter().map(|p| p.loss).collect(), points.iter().map(|p| p.smoothed).collect()];
    for (losses, style) in losses.iter().zip([ShapeStyle::from(LOSS), stroke(SMOOTHED)]) {
        let place = |(p, loss): (&&RateLoss, &f64)| (x(p.rate), up.map(loss, (bottom, top)));
        let places: Vec<(i32, i32)> = points.iter().zip(losses).map(place).collect();
        for (pair, ends) in losses.windows(2).zip(places.windows(2)) {
            // Beyond the top there is nothing to see but the way there.
            if pair.iter().any(|&loss| loss <= high) {
                root.draw(&PathElement::new(ends.to_vec(), style))?;
            }
        }
    }
    let marks = || marks.iter().filter(|(_, rate)| rate.is_finite() && *rate > 0.0).enumerate();
    for (index, (_, rate)) in marks() {
        let style = if index == 0 { stroke(CHOSEN) } else { CHOSEN.into() };
        root.draw(&PathElement::new(vec![(x(*rate), top), (x(*rate), bottom)], style))?;
    }
    // Words over all lines.
    for (index, (words, rate)) in marks() {
        let (at, words) = (x(*rate), clean(words, 60));
        let width = text_width(&words, 15.0) as i32;
        let leftwards = at > (left + right) / 2;
        let (h, from) = if leftwards { (HPos::Right, at - width - 9) } else { (HPos::Left, at + 3) };
        // Above the curve, which falls to the right.
        let row = top + 16 + 20 * index as i32;
        root.draw(&Rectangle::new([(from, row - 9), (from + width + 6, row + 9)], WHITE.filled()))?;
        write(root, &words, (if leftwards { at - 6 } else { at + 6 }, row), 15.0, CHOSEN, h, index == 0)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::svg::tests::well_formed;
    use super::*;

    #[test]
    fn anything_can_be_drawn() {
        for values in [vec![], vec![2.3], vec![2.3, f64::NAN, 1e300], vec![0.0; 5], vec![-1.0, 4.0], vec![1e29, 1e-29]]
        {
            let point = |(i, &loss): (usize, &f64)| RateLoss { rate: 10f32.powi(i as i32 - 6), loss, smoothed: loss };
            let points: Vec<RateLoss> = values.iter().enumerate().map(point).collect();
            let svg = learning_rates(&points, &[("<at>", 1e-3), ("no", f32::NAN), ("far", 1e9)], "<title> & more");
            let texts = well_formed(&svg);
            assert!(texts.contains(&"learning rate (log scale)".to_string()), "{texts:?}");
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }
}
