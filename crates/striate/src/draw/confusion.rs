//! The confusion matrix: what was taken for what.

use super::svg::{Anchor, Color, FAINT, INK, Style, Svg, blend, clean, grouped, readable_on, text_width};
use ndarray::Array2;

/// Share of a class that was recognised.
const RIGHT: [Color; 3] = [[226, 239, 250], [94, 157, 209], [16, 74, 138]];
/// Number of images taken for another class.
const WRONG: [Color; 4] = [[255, 240, 219], [253, 196, 130], [235, 110, 52], [150, 32, 16]];
const EMPTY: Color = [246, 246, 246];
const GRID: Color = [150, 150, 150];

const MARGIN: f64 = 18.0;
/// Letters of a class name shown beside the matrix; all of it appears under the pointer.
const NAME: usize = 18;
/// Below this, text can't be read.
const SMALLEST_TEXT: f64 = 7.0;

/// Draws a confusion matrix as SVG: a row for each true class, a column for each predicted one.
///
/// The diagonal is blue by the share of its class, errors orange by their number on a logarithmic scale of their own,
/// so that single mistakes are seen beside a thousand right answers. On the right is each class's accuracy. With many
/// classes the cells lose their numbers, then some names are left out; every cell still says what it is under the
/// pointer. Classes without a name are called by their number.
///
/// ```
/// let counts = ndarray::array![[979, 1], [4, 1131]];
/// let svg = striate::draw::confusion(&counts, &["zero".to_string(), "<one>".to_string()], "Test images");
/// assert!(svg.starts_with("<svg") && svg.contains("2,110 of 2,115 right") && svg.contains("&lt;one&gt;"));
/// ```
pub fn confusion(counts: &Array2<usize>, class_names: &[String], title: &str) -> String {
    let (rows, columns) = counts.dim();
    let most = rows.max(columns);
    let name = |class: usize| class_names.get(class).cloned().unwrap_or_else(|| class.to_string());
    let names: Vec<String> = (0..most).map(|class| clean(&name(class), NAME)).collect();

    let cell = if most <= 12 { (560.0 / most.max(1) as f64).clamp(44.0, 96.0) } else { (640.0 / most as f64).max(8.0) };
    let label = (cell * 0.6).clamp(SMALLEST_TEXT, 13.0);
    // Every n-th name where all of them would overlap.
    let every = ((label * 1.1 / cell).ceil() as usize).max(1);
    let widest = names.iter().map(|n| text_width(n, label)).fold(label, f64::max);
    let upright = widest <= cell * 0.95;
    let digits = counts.iter().max().map_or(1, |&n| grouped(n).len());
    let numbers = (cell * 0.34).min(cell * 0.88 / (digits as f64 * 0.6)).min(16.0);
    let show_numbers = numbers >= SMALLEST_TEXT;

    let (left, top) = (MARGIN + 24.0 + widest + 8.0, MARGIN + 74.0 + if upright { label } else { widest } + 8.0);
    let (width, height) = (columns as f64 * cell, rows as f64 * cell);
    let page = ((left + width + 84.0 + MARGIN).max(560.0), top + height + 66.0 + MARGIN);
    let mut svg = Svg::new(page.0, page.1, title);

    let total = counts.iter().fold(0usize, |sum, &n| sum.saturating_add(n));
    let right = counts.diag().iter().fold(0usize, |sum, &n| sum.saturating_add(n));
    let subtitle = match total {
        0 => "no images".to_string(),
        _ => format!(
            "{} of {} right: {}, {} wrong",
            grouped(right),
            grouped(total),
            percent(right, total),
            grouped(total - right)
        ),
    };
    let start = |size| Style::new(size, INK, Anchor::Start);
    let middle = |size, color| Style::new(size, color, Anchor::Middle);
    svg.text((MARGIN, MARGIN + 8.0), &clean(title, (page.0 / 9.5) as usize), start(17.0).bold());
    svg.text((MARGIN, MARGIN + 32.0), &subtitle, Style { color: FAINT, ..start(13.0) });
    if rows == 0 || columns == 0 {
        svg.text((MARGIN, top), "There are no classes to show.", start(13.0));
        return svg.finish();
    }
    svg.text((left + width / 2.0, MARGIN + 60.0), "predicted class", middle(13.0, INK));
    svg.text((MARGIN + 6.0, top + height / 2.0), "true class", middle(13.0, INK).turned(-90.0));

    for (class, words) in names.iter().enumerate().step_by(every) {
        let along = (class as f64 + 0.5) * cell;
        if class < columns {
            let (at, style) = if upright {
                ((left + along, top - 6.0 - label / 2.0), middle(label, INK))
            } else {
                ((left + along, top - 6.0), start(label).turned(-90.0))
            };
            svg.text(at, words, style);
        }
        if class < rows {
            svg.text((left - 8.0, top + along), words, Style::new(label, INK, Anchor::End));
        }
    }

    // The scale is never shorter than to ten, or two mistakes would look like a disaster.
    let most_wrong = counts.indexed_iter().filter(|((r, c), _)| r != c).map(|(_, &n)| n).max().unwrap_or(0).max(10);
    svg.rect((left, top), (width, height), EMPTY, None);
    let gap = if cell >= 20.0 { 1.0 } else { 0.0 };
    for (row, cells) in counts.rows().into_iter().enumerate() {
        let y = top + row as f64 * cell;
        let in_row = cells.iter().fold(0usize, |sum, &n| sum.saturating_add(n));
        for (column, &count) in cells.iter().enumerate().filter(|&(column, &count)| count > 0 || column == row) {
            let x = left + column as f64 * cell;
            let fill = match (row == column, count) {
                (true, 0) => blend(&RIGHT, 0.0),
                (true, _) => blend(&RIGHT, count as f64 / in_row as f64),
                (false, _) => wrong_color(count, most_wrong),
            };
            let words = format!("{} taken for {}: {}", name(row), name(column), grouped(count));
            svg.cell((row, column), (x + gap, y + gap), (cell - 2.0 * gap, cell - 2.0 * gap), fill, &words);
            if show_numbers {
                svg.text((x + cell / 2.0, y + cell / 2.0), &grouped(count), middle(numbers, readable_on(fill)));
            }
        }
        let at = (left + width + 10.0, y + cell / 2.0);
        if row % every == 0 {
            let text = if in_row == 0 { "none".into() } else { percent(cells.get(row).copied().unwrap_or(0), in_row) };
            svg.text(at, &text, start(label));
        }
    }
    svg.outline((left, top), (width, height), GRID);
    svg.text(
        (left + width + 10.0, top - 6.0 - label.max(11.0) / 2.0),
        "accuracy",
        Style { color: FAINT, ..start(label.clamp(11.0, 12.0)) },
    );
    legend(&mut svg, left, top + height + 30.0, most_wrong);
    svg.finish()
}

/// The place of a number of errors on their scale: 1 at the light end, `darkest` at the other.
fn wrong_color(count: usize, darkest: usize) -> Color {
    blend(&WRONG, (count as f64).ln() / (darkest as f64).ln())
}

fn percent(part: usize, whole: usize) -> String {
    format!("{:.2} %", part as f64 / whole as f64 * 100.0)
}

/// The two scales of colour.
fn legend(svg: &mut Svg, left: f64, top: f64, most_wrong: usize) {
    const STEPS: usize = 24;
    const STEP: f64 = 5.0;
    let width = STEPS as f64 * STEP;
    let small = |anchor| Style::new(11.0, FAINT, anchor);
    let mut bar = |x: f64, stops: &[Color], from: &str, to: &str, words: &str| {
        svg.text((x, top - 6.0), words, small(Anchor::Start));
        for step in 0..STEPS {
            let fill = blend(stops, step as f64 / (STEPS - 1) as f64);
            // Half a pixel more than a step, so that no seam shows.
            let wide = if step + 1 == STEPS { STEP } else { STEP + 0.5 };
            svg.rect((x + step as f64 * STEP, top + 4.0), (wide, 10.0), fill, None);
        }
        svg.text((x, top + 23.0), from, small(Anchor::Start));
        svg.text((x + width, top + 23.0), to, small(Anchor::End));
    };
    bar(left, &RIGHT, "0 %", "100 %", "right: share of the class");
    bar(left + width + 70.0, &WRONG, "1", &grouped(most_wrong), "wrong: images (log scale)");
}

#[cfg(test)]
mod tests {
    use super::super::svg::tests::well_formed;
    use super::*;

    fn names(n: usize) -> Vec<String> {
        (0..n).map(|class| class.to_string()).collect()
    }

    fn counts(n: usize) -> Array2<usize> {
        Array2::from_shape_fn((n, n), |(r, c)| if r == c { 980 } else { (r * 7 + c * 3) % 5 })
    }

    #[test]
    fn counts_names_and_accuracies_are_written() {
        let texts = well_formed(&confusion(&ndarray::array![[1979, 21], [0, 500]], &names(2), "Two"));
        for words in ["Two", "1,979", "21", "500", "98.95 %", "100.00 %", "predicted class", "true class", "accuracy"] {
            assert!(texts.iter().any(|t| t == words), "{words} in {texts:?}");
        }
        assert!(texts.contains(&"2,479 of 2,500 right: 99.16 %, 21 wrong".to_string()));
        assert!(
            !texts.iter().any(|t| t == "0" && texts.iter().filter(|u| *u == "0").count() > 2),
            "an empty cell stays empty"
        );
    }

    #[test]
    fn numbers_go_where_cells_are_small() {
        let shown =
            |n: usize| well_formed(&confusion(&counts(n), &names(n), "")).iter().filter(|t| *t == "980").count();
        assert_eq!([1, 2, 10, 100, 150].map(shown), [1, 2, 10, 0, 0]);
        // Every cell that is not empty tells what it is.
        assert!(confusion(&counts(100), &names(100), "").contains("<title>7 taken for 7: 980</title>"));
    }

    #[test]
    fn a_thousand_classes_stay_in_bounds() {
        let matrix = Array2::from_shape_fn((1000, 1000), |(r, c)| usize::from(r == c));
        let svg = confusion(&matrix, &[], "");
        well_formed(&svg);
        assert!(svg.len() < 1 << 20, "{} bytes", svg.len());
    }

    #[test]
    fn hostile_names_are_escaped() {
        let hostile = vec!["<script>alert(1)</script>".to_string(), "a\"b'&\0]]>".to_string(), String::new()];
        let svg = confusion(&counts(3), &hostile, "</title><script>");
        assert!(!svg.contains("<script"));
        well_formed(&svg);
    }

    #[test]
    fn odd_matrices_are_drawn() {
        for (shape, fill) in [
            ((0, 0), 0),
            ((0, 3), 0),
            ((3, 0), 0),
            ((1, 1), 0),
            ((3, 3), 0),
            ((2, 5), 1),
            ((5, 2), 1),
            ((3, 3), usize::MAX),
        ] {
            let svg = confusion(&Array2::from_elem(shape, fill), &names(1), "odd");
            well_formed(&svg);
        }
    }

    #[test]
    fn more_errors_are_darker_and_never_the_diagonals_blue() {
        let light = |c: Color| c.iter().map(|&v| u32::from(v)).sum::<u32>();
        let shades: Vec<u32> = [1, 2, 5, 20, 100].iter().map(|&n| light(wrong_color(n, 100))).collect();
        assert!(shades.windows(2).all(|w| w[0] > w[1]), "{shades:?}");
        for share in 0..=10 {
            let (right, wrong) = (blend(&RIGHT, f64::from(share) / 10.0), blend(&WRONG, f64::from(share) / 10.0));
            assert!(right[2] > right[0] && wrong[0] > wrong[2]);
        }
    }
}
