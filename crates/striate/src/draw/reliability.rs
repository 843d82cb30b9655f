//! The reliability diagram: how often a network is right where it is so sure (Guo et al., 2017, figure 1).

use super::svg::{Anchor, Color, FAINT, INK, PAPER, Style, Svg, clean, grouped};

/// Accuracy of a bin.
const SHARE: Color = [94, 157, 209];
/// From the accuracy to the confidence.
const GAP: Color = [253, 196, 130];
const GRID: Color = [225, 225, 225];

const SIDE: f64 = 270.0;
/// Height of the histogram below.
const COUNTS: f64 = 54.0;
const LEFT: f64 = 64.0;
const TOP: f64 = 84.0;
const PANEL: f64 = LEFT + SIDE + 26.0;
/// From the diagram to its histogram.
const BETWEEN: f64 = 14.0;

/// The images whose confidence (the largest probability) falls into one of equally wide ranges from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ReliabilityBin {
    /// How many there are.
    pub images: usize,
    /// Their mean confidence, 0 to 1.
    pub confidence: f64,
    /// The share of them that was recognised, 0 to 1.
    pub accuracy: f64,
}

/// Draws reliability diagrams side by side as SVG, each under its words: accuracy by confidence, and below how many
/// images there are of each confidence.
///
/// Blue is the share of right answers; what is missing to the confidence, or goes beyond it, is orange. A calibrated
/// network shows no orange. Every bar says its numbers under the pointer.
///
/// ```
/// use striate::draw::{ReliabilityBin, reliability};
///
/// let mut bins = [ReliabilityBin::default(); 15];
/// bins[14] = ReliabilityBin { images: 90, confidence: 0.97, accuracy: 0.8 };
/// bins[7] = ReliabilityBin { images: 10, confidence: 0.52, accuracy: 0.6 };
/// let svg = reliability(&[("As trained, ECE 16.1 %", &bins)], "Test images");
/// assert!(svg.starts_with("<svg") && svg.contains("90 images, confidence 97.00 %, accuracy 80.00 %"));
/// ```
pub fn reliability(panels: &[(&str, &[ReliabilityBin])], title: &str) -> String {
    let width = (PANEL * panels.len() as f64).max(PANEL);
    let mut svg = Svg::new(width, TOP + SIDE + BETWEEN + COUNTS + 52.0, title);
    svg.text((20.0, 24.0), &clean(title, (width / 9.5) as usize), Style::new(17.0, INK, Anchor::Start).bold());
    for (index, (words, bins)) in panels.iter().enumerate() {
        panel(&mut svg, PANEL * index as f64 + LEFT, &clean(words, 44), bins);
    }
    svg.finish()
}

fn panel(svg: &mut Svg, left: f64, words: &str, bins: &[ReliabilityBin]) {
    let small = |anchor| Style::new(12.0, FAINT, anchor);
    let bottom = TOP + SIDE;
    svg.text((left, TOP - 20.0), words, Style::new(14.0, INK, Anchor::Start));
    for tick in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let label = format!("{:.0} %", 100.0 * tick);
        svg.line((left, bottom - tick * SIDE), (left + SIDE, bottom - tick * SIDE), GRID, 1.0);
        svg.text((left - 8.0, bottom - tick * SIDE), &label, small(Anchor::End));
        svg.text((left + tick * SIDE, bottom + BETWEEN + COUNTS + 14.0), &label, small(Anchor::Middle));
    }
    let all = bins.iter().fold(0usize, |sum, bin| sum.saturating_add(bin.images));
    let most = bins.iter().map(|bin| bin.images).max().unwrap_or(0).max(1);
    let wide = SIDE / bins.len().max(1) as f64;
    for (index, bin) in bins.iter().enumerate().filter(|(_, bin)| bin.images > 0) {
        let x = left + index as f64 * wide + 1.0;
        let [accuracy, confidence] =
            [bin.accuracy, bin.confidence].map(|v| if v.is_finite() { v.clamp(0.0, 1.0) } else { 0.0 });
        let words = format!(
            "{} images, confidence {:.2} %, accuracy {:.2} %",
            grouped(bin.images),
            100.0 * confidence,
            100.0 * accuracy
        );
        let mut bar = |from: f64, to: f64, fill| {
            svg.rect((x, bottom - to * SIDE), (wide - 2.0, (to - from) * SIDE), fill, Some(&words));
        };
        bar(0.0, accuracy.min(confidence), SHARE);
        bar(accuracy.min(confidence), accuracy.max(confidence), GAP);
        // Where the bar ends is what was right, on whichever side of the confidence.
        svg.line((x, bottom - accuracy * SIDE), (x + wide - 2.0, bottom - accuracy * SIDE), INK, 2.0);
        let height = bin.images as f64 / most as f64 * COUNTS;
        svg.rect((x, bottom + BETWEEN + COUNTS - height), (wide - 2.0, height), FAINT, Some(&words));
    }
    svg.line((left, bottom), (left + SIDE, TOP), FAINT, 1.0);
    svg.outline((left, TOP), (SIDE, SIDE), FAINT);
    svg.line((left, bottom + BETWEEN + COUNTS), (left + SIDE, bottom + BETWEEN + COUNTS), FAINT, 1.0);
    svg.text((left - 8.0, bottom + BETWEEN + COUNTS / 2.0), "images", small(Anchor::End));
    svg.text((left - 52.0, TOP + SIDE / 2.0), "accuracy", Style::new(13.0, INK, Anchor::Middle).turned(-90.0));
    svg.text(
        (left + SIDE / 2.0, bottom + BETWEEN + COUNTS + 34.0),
        "confidence",
        Style::new(13.0, INK, Anchor::Middle),
    );
    if all == 0 {
        let style = Style::new(13.0, FAINT, Anchor::Middle);
        svg.rect((left + SIDE / 2.0 - 40.0, TOP + SIDE / 2.0 - 10.0), (80.0, 20.0), PAPER, None);
        svg.text((left + SIDE / 2.0, TOP + SIDE / 2.0), "no images", style);
    }
}

#[cfg(test)]
mod tests {
    use super::super::svg::tests::well_formed;
    use super::*;

    #[test]
    fn panels_stand_side_by_side() {
        let bins = [ReliabilityBin { images: 3, confidence: 0.4, accuracy: 2.0 / 3.0 }; 2];
        let texts = well_formed(&reliability(&[("before", &bins), ("<after>", &bins)], "Title & more"));
        for words in ["before", "<after>", "Title & more", "confidence", "accuracy", "75 %"] {
            assert!(texts.iter().any(|t| t == words), "{words} in {texts:?}");
        }
    }

    #[test]
    fn odd_numbers_are_drawn() {
        let odd = ReliabilityBin { images: usize::MAX, confidence: f64::NAN, accuracy: f64::INFINITY };
        let _ = reliability(&[], "");
        for bins in [vec![], vec![ReliabilityBin::default(); 15], vec![ReliabilityBin { confidence: 2.0, ..odd }; 3]] {
            let svg = reliability(&[("", &bins)], "");
            well_formed(&svg);
            assert_eq!(svg.contains("no images"), bins.iter().all(|bin| bin.images == 0));
        }
    }
}
