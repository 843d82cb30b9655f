//! The learning-rate range test: loss by learning rate.

use super::svg::{Anchor, Color, FAINT, INK, PAPER, Style, Svg, clean};

const LOSS: Color = [186, 208, 226];
const SMOOTHED: Color = [0, 114, 178];
const CHOSEN: Color = [213, 94, 0];
const GRID: Color = [225, 225, 225];

const SIZE: (f64, f64) = (760.0, 420.0);
const LEFT: f64 = 66.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 84.0;
const BOTTOM: f64 = 54.0;

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
    let mut svg = Svg::new(SIZE.0, SIZE.1, title);
    svg.text((20.0, 26.0), &clean(title, 78), Style::new(17.0, INK, Anchor::Start).bold());
    let (right, bottom) = (SIZE.0 - RIGHT, SIZE.1 - BOTTOM);
    svg.text(((LEFT + right) / 2.0, bottom + 40.0), "learning rate (log scale)", Style::new(13.0, INK, Anchor::Middle));
    svg.text((18.0, (TOP + bottom) / 2.0), "loss", Style::new(13.0, INK, Anchor::Middle).turned(-90.0));
    let usable = |v: f64| v.is_finite() && v.abs() < 1e30;
    let points: Vec<&RateLoss> =
        points.iter().filter(|p| p.rate > 0.0 && p.rate.is_finite() && usable(p.loss) && usable(p.smoothed)).collect();
    let (Some(first), Some(last)) = (points.first(), points.last()) else {
        svg.outline((LEFT, TOP), (right - LEFT, bottom - TOP), FAINT);
        let middle = ((LEFT + right) / 2.0, (TOP + bottom) / 2.0);
        svg.text(middle, "nothing measured", Style::new(14.0, FAINT, Anchor::Middle));
        return svg.finish();
    };
    let logarithm = |rate: f32| f64::from(rate).log10();
    let (from, to) = (logarithm(first.rate), logarithm(last.rate).max(logarithm(first.rate) + 0.1));
    let least = points.iter().map(|p| p.loss.min(p.smoothed)).fold(f64::INFINITY, f64::min).min(first.smoothed);
    // The rise at the end is not what one looks for.
    let high = least + 1.35 * (first.smoothed - least).max(0.05 * first.smoothed.abs()).max(1e-6);
    let low = if least >= 0.0 && least < 0.5 * high { 0.0 } else { least - 0.05 * (high - least) };
    let x = |rate: f32| LEFT + (logarithm(rate) - from) / (to - from) * (right - LEFT);
    let y = |loss: f64| bottom - ((loss - low) / (high - low)).clamp(0.0, 1.0) * (bottom - TOP);
    let small = |anchor| Style::new(12.0, FAINT, anchor);
    for power in from.ceil() as i32..=to.floor() as i32 {
        let at = LEFT + (f64::from(power) - from) / (to - from) * (right - LEFT);
        svg.line((at, TOP), (at, bottom), GRID, 1.0);
        svg.text((at, bottom + 16.0), &tick(power), small(Anchor::Middle));
    }
    for step in 0..=4 {
        let loss = low + (high - low) * f64::from(step) / 4.0;
        svg.line((LEFT, y(loss)), (right, y(loss)), GRID, 1.0);
        svg.text((LEFT - 8.0, y(loss)), &format!("{loss:.2}"), small(Anchor::End));
    }
    svg.outline((LEFT, TOP), (right - LEFT, bottom - TOP), FAINT);
    for pair in points.windows(2) {
        // Beyond the top there is nothing to see but the way there.
        if pair[0].loss <= high || pair[1].loss <= high {
            svg.line((x(pair[0].rate), y(pair[0].loss)), (x(pair[1].rate), y(pair[1].loss)), LOSS, 1.0);
        }
    }
    for pair in points.windows(2) {
        if pair[0].smoothed <= high || pair[1].smoothed <= high {
            let ends = [pair[0], pair[1]].map(|p| (x(p.rate), y(p.smoothed)));
            svg.line(ends[0], ends[1], SMOOTHED, 2.5);
        }
    }
    let marks = || marks.iter().filter(|(_, rate)| rate.is_finite() && *rate > 0.0).enumerate();
    let place = |rate: f32| x(rate).clamp(LEFT, right);
    for (index, (_, rate)) in marks() {
        svg.line((place(*rate), TOP), (place(*rate), bottom), CHOSEN, if index == 0 { 2.0 } else { 1.0 });
    }
    // Words over all lines.
    for (index, (words, rate)) in marks() {
        let at = place(*rate);
        let (anchor, beside) = if at > (LEFT + right) / 2.0 { (Anchor::End, -6.0) } else { (Anchor::Start, 6.0) };
        let style = Style::new(13.0, CHOSEN, anchor);
        let words = clean(words, 60);
        let width = super::svg::text_width(&words, 12.0);
        // Above the curve, which falls to the right.
        let row = TOP + 16.0 + 20.0 * index as f64;
        let left = if beside > 0.0 { at + 3.0 } else { at - 3.0 - width - 6.0 };
        svg.rect((left, row - 9.0), (width + 6.0, 18.0), PAPER, None);
        svg.text((at + beside, row), &words, if index == 0 { style.bold() } else { style });
    }
    let mut at = LEFT;
    for (words, color) in [("loss of a step", LOSS), ("smoothed", SMOOTHED)] {
        svg.line((at, TOP - 20.0), (at + 26.0, TOP - 20.0), color, 2.5);
        svg.text((at + 32.0, TOP - 20.0), words, Style::new(13.0, INK, Anchor::Start));
        at += 150.0;
    }
    svg.finish()
}

/// 1e-6, 0.01, 1, 10.
fn tick(power: i32) -> String {
    match power {
        -3..=-1 => format!("{:.*}", power.unsigned_abs() as usize, 10f64.powi(power)),
        0..=3 => format!("{:.0}", 10f64.powi(power)),
        _ => format!("1e{power}"),
    }
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

    #[test]
    fn ticks_are_short() {
        assert_eq!([-6, -4, -3, -1, 0, 1].map(tick), ["1e-6", "1e-4", "0.001", "0.1", "1", "10"]);
    }
}
