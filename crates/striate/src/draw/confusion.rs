//! The confusion matrix as SVG.

use super::escape;
use ndarray::Array2;
use std::fmt::Write;

/// Rows are true classes, columns predicted ones. What is right is blue, what is wrong is red: darker, the larger its
/// share of the row (right) or the oftener than other mistakes (wrong). Up to 25 classes, cells show their counts.
///
/// ```
/// use ndarray::array;
/// let svg = striate::draw::confusion(&array![[9, 1], [0, 5]], &["cat".into(), "dog".into()], "Test set");
/// assert!(svg.contains("cat") && svg.contains("90.0 %"));
/// ```
pub fn confusion(counts: &Array2<usize>, class_names: &[String], title: &str) -> String {
    let classes = counts.nrows().min(counts.ncols());
    let numbers = classes <= 25;
    let cell = if numbers { 44 } else { (1100 / classes.max(1)).clamp(3, 20) };
    let longest = class_names.iter().map(|name| name.chars().count()).max().unwrap_or(1).clamp(2, 16);
    let (left, top) = (50 + 8 * longest, 60 + if numbers { 8 * longest.min(12) } else { 10 });
    let side = classes * cell;
    let mut svg = String::new();
    // Writing to a string can't fail.
    let _ = writeln!(
        svg,
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 {w} {h}" font-family="sans-serif" font-size="13">
<rect width="100%" height="100%" fill="#fff"/>
<text x="{x}" y="26" font-size="18" text-anchor="middle">{title}</text>
<text x="{x}" y="{y}" text-anchor="middle" fill="#555">predicted class</text>
<text transform="translate(18 {middle}) rotate(-90)" text-anchor="middle" fill="#555">true class</text>"##,
        w = (left + side + 90).max(420),
        h = top + side + 40,
        x = left + side / 2,
        y = top + side + 26,
        middle = top + side / 2,
        title = escape(title),
    );
    let most_wrong = counts.indexed_iter().filter(|((r, c), _)| r != c).map(|(_, &n)| n).max().unwrap_or(0);
    for row in 0..classes {
        let all: usize = counts.row(row).sum();
        let y = top + row * cell;
        if numbers {
            label(&mut svg, row, class_names, longest, (left, top), cell);
            let right = 100.0 * counts[[row, row]] as f64 / all as f64;
            if all > 0 {
                let (x, y) = (left + side + 10, y + cell / 2 + 5);
                let _ = writeln!(svg, r##"<text x="{x}" y="{y}" fill="#555">{right:.1} %</text>"##);
            }
        }
        for column in 0..classes {
            let n = counts[[row, column]];
            let right = row == column;
            let depth = match n {
                0 => 0.0,
                _ if right => 0.15 + 0.65 * n as f64 / all as f64,
                // Mistakes are rare and their counts differ widely.
                _ => 0.15 + 0.65 * (1.0 + n as f64).ln() / (1.0 + most_wrong as f64).ln(),
            };
            let (colour, x) = (if right { "#1f5fa8" } else { "#c8321e" }, left + column * cell);
            let _ = writeln!(
                svg,
                r##"<rect x="{x}" y="{y}" width="{cell}" height="{cell}" fill="{colour}" fill-opacity="{depth:.3}" stroke="#ddd" stroke-width="{}"/>"##,
                if numbers { 1.0 } else { 0.2 }
            );
            if numbers && n > 0 {
                let (x, y, ink) = (x + cell / 2, y + cell / 2 + 5, if depth > 0.5 { "#fff" } else { "#222" });
                let _ = writeln!(svg, r##"<text x="{x}" y="{y}" text-anchor="middle" fill="{ink}">{n}</text>"##);
            }
        }
    }
    svg.push_str("</svg>\n");
    svg
}

/// A class's name at its row and over its column.
fn label(svg: &mut String, class: usize, names: &[String], longest: usize, (left, top): (usize, usize), cell: usize) {
    let name = names.get(class).map_or_else(|| class.to_string(), Clone::clone);
    let short =
        if name.chars().count() > longest { name.chars().take(longest - 1).chain(['…']).collect() } else { name };
    let name = escape(&short);
    let (middle, offset) = (cell / 2, class * cell);
    let (x, y) = (left - 8, top + offset + middle + 5);
    let _ = writeln!(svg, r##"<text x="{x}" y="{y}" text-anchor="end">{name}</text>"##);
    let (x, y) = (left + offset + middle, top - 8);
    let _ = if short.chars().count() <= 4 {
        writeln!(svg, r##"<text x="{x}" y="{y}" text-anchor="middle">{name}</text>"##)
    } else {
        writeln!(svg, r##"<text transform="translate({} {y}) rotate(-45)">{name}</text>"##, x - 4)
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_and_counts_shown() {
        let counts = ndarray::array![[980, 3], [0, 0]];
        let svg = confusion(&counts, &["<script>".into(), "a&b".into()], "a < b");
        assert!(!svg.contains("<script>") && svg.contains("&lt;script&gt;") && svg.contains("a &lt; b"));
        assert!(svg.contains(">980<") && svg.contains(">3<") && svg.contains("99.7 %"));
        assert!(!svg.contains("NaN"), "a class without images has no share");
        assert_eq!(svg.matches("<rect").count(), 5);
    }

    #[test]
    fn many_classes_have_no_numbers() {
        let svg = confusion(&Array2::from_elem((100, 100), 7), &[], "hundred");
        assert!(!svg.contains(">7<"));
        assert_eq!(svg.matches("<rect").count(), 10_001);
        assert!(confusion(&Array2::zeros((0, 0)), &[], "none").contains("none"));
    }
}
