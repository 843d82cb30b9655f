//! What the SVG pictures share: clean text, colours, and elements by hand.

use std::fmt::Write;

pub(super) const FONT: &str = "system-ui, 'DejaVu Sans', Helvetica, Arial, sans-serif";

/// `text` without the characters that XML forbids, cut to `limit` characters.
pub(super) fn clean(text: &str, limit: usize) -> String {
    let mut characters = text.chars().map(|c| match c {
        '\t' | '\n' | '\r' => ' ',
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}' => '\u{fffd}',
        other => other,
    });
    let kept: String = characters.by_ref().take(limit).collect();
    match characters.next() {
        None => kept,
        Some(_) => kept.chars().take(limit.saturating_sub(1)).chain(['\u{2026}']).collect(),
    }
}

/// `text` as XML content or attribute, safe whatever it holds.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in clean(text, usize::MAX).chars() {
        match character {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// About as wide as `text` is in a sans-serif font of this size: digits and Latin letters 0.6, wide scripts 1.
pub(super) fn text_width(text: &str, size: f64) -> f64 {
    text.chars().map(|c| if c < '\u{1100}' { 0.6 } else { 1.0 }).sum::<f64>() * size
}

/// A whole number with commas between thousands.
pub(super) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A colour of red, green and blue in 0 to 255.
pub(super) type Color = [u8; 3];

pub(super) const INK: Color = [32, 32, 32];
pub(super) const FAINT: Color = [96, 96, 96];
pub(super) const PAPER: Color = [255, 255, 255];

/// The colour at `share` (0 to 1) of the way along `stops`, evenly spaced.
pub(super) fn blend(stops: &[Color], share: f64) -> Color {
    let place = share.clamp(0.0, 1.0) * stops.len().saturating_sub(1) as f64;
    let index = place.floor() as usize;
    let Some(&from) = stops.get(index) else { return PAPER };
    let to = stops.get(index + 1).copied().unwrap_or(from);
    let mix = |a: u8, b: u8| (f64::from(a) + (f64::from(b) - f64::from(a)) * (place - place.floor())).round() as u8;
    [mix(from[0], to[0]), mix(from[1], to[1]), mix(from[2], to[2])]
}

/// Black or white, whichever reads better on `background`.
pub(super) fn readable_on(background: Color) -> Color {
    let [r, g, b] = background.map(f64::from);
    if 0.299 * r + 0.587 * g + 0.114 * b > 140.0 { INK } else { PAPER }
}

fn hex([r, g, b]: Color) -> String {
    format!("#{r:02x}{g:02x}{b:02x}")
}

/// Where the given point is in a line of text.
#[derive(Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// How text is written. The point given is on the line's vertical middle.
#[derive(Clone, Copy)]
pub(super) struct Style {
    pub(super) size: f64,
    pub(super) color: Color,
    pub(super) anchor: Anchor,
    pub(super) bold: bool,
    /// Degrees clockwise around the point.
    pub(super) turn: f64,
}

impl Style {
    pub(super) fn new(size: f64, color: Color, anchor: Anchor) -> Self {
        Self { size, color, anchor, bold: false, turn: 0.0 }
    }

    pub(super) fn bold(self) -> Self {
        Self { bold: true, ..self }
    }

    pub(super) fn turned(self, turn: f64) -> Self {
        Self { turn, ..self }
    }
}

/// An SVG picture under construction. Everything given as text is escaped here and nowhere else.
pub(super) struct Svg {
    body: String,
}

impl Svg {
    /// A white page with an accessible title.
    pub(super) fn new(width: f64, height: f64, title: &str) -> Self {
        let mut svg = Self { body: String::new() };
        svg.push(format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} {1}\" role=\"img\" \
             font-family=\"{FONT}\">\n<title>{2}</title>\n",
            number(width),
            number(height),
            escape(title)
        ));
        svg.rect((0.0, 0.0), (width, height), PAPER, None);
        svg
    }

    /// A filled rectangle, with words that appear under the pointer.
    pub(super) fn rect(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), fill: Color, words: Option<&str>) {
        self.push(format_args!(
            "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"{}\"",
            number(x),
            number(y),
            number(width),
            number(height),
            hex(fill)
        ));
        match words {
            Some(words) => self.push(format_args!("><title>{}</title></rect>\n", escape(words))),
            None => self.push(format_args!("/>\n")),
        }
    }

    /// A filled rectangle of a table, which a page finds by its row and column: `data-cell="3,5"`.
    pub(super) fn cell(
        &mut self,
        (row, column): (usize, usize),
        (x, y): (f64, f64),
        (width, height): (f64, f64),
        fill: Color,
        words: &str,
    ) {
        self.push(format_args!(
            "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"{}\" data-cell=\"{row},{column}\"><title>{}</title></rect>\n",
            number(x),
            number(y),
            number(width),
            number(height),
            hex(fill),
            escape(words)
        ));
    }

    /// An outline.
    pub(super) fn outline(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), stroke: Color) {
        self.push(format_args!(
            "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"none\" stroke=\"{}\"/>\n",
            number(x),
            number(y),
            number(width),
            number(height),
            hex(stroke)
        ));
    }

    /// A straight line.
    pub(super) fn line(&mut self, from: (f64, f64), to: (f64, f64), stroke: Color, width: f64) {
        self.push(format_args!(
            "<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\" stroke=\"{}\" stroke-width=\"{}\"/>\n",
            number(from.0),
            number(from.1),
            number(to.0),
            number(to.1),
            hex(stroke),
            number(width)
        ));
    }

    /// A line of text that does not catch the pointer.
    pub(super) fn text(&mut self, (x, y): (f64, f64), text: &str, style: Style) {
        let anchor = match style.anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        self.push(format_args!(
            "<text x=\"{}\" y=\"{}\" dy=\"0.35em\" font-size=\"{}\" fill=\"{}\" text-anchor=\"{anchor}\" pointer-events=\"none\"",
            number(x),
            number(y),
            number(style.size),
            hex(style.color)
        ));
        if style.bold {
            self.push(format_args!(" font-weight=\"bold\""));
        }
        if style.turn != 0.0 {
            self.push(format_args!(" transform=\"rotate({} {} {})\"", number(style.turn), number(x), number(y)));
        }
        self.push(format_args!(">{}</text>\n", escape(text)));
    }

    pub(super) fn finish(mut self) -> String {
        self.body.push_str("</svg>\n");
        self.body
    }

    fn push(&mut self, words: std::fmt::Arguments<'_>) {
        // Writing to a string can't fail.
        let _ = self.body.write_fmt(words);
    }
}

/// At most two decimals, none where there are none.
fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Panics unless `svg` is well-formed: tags nest, attributes are quoted, entities and characters are XML's.
    /// Returns the contents of every `text` element, unescaped.
    pub(crate) fn well_formed(svg: &str) -> Vec<String> {
        let mut open: Vec<&str> = Vec::new();
        let mut texts = Vec::new();
        let mut rest = svg;
        let mut roots = 0;
        while !rest.is_empty() {
            let content_end = rest.find('<').unwrap_or(rest.len());
            let content = &rest[..content_end];
            assert!(!content.contains('>'), "stray > in {content:?}");
            let plain = unescape(content);
            if open.is_empty() {
                assert!(content.trim().is_empty(), "text outside of the root");
            } else if open.last() == Some(&"text") {
                texts.push(plain.trim().to_string());
            }
            rest = &rest[content_end..];
            let Some(after) = rest.strip_prefix('<') else { break };
            let end = after.find('>').expect("a tag is closed");
            let tag = &after[..end];
            rest = &after[end + 1..];
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name), "tags nest");
                continue;
            }
            let (tag, closed) = tag.strip_suffix('/').map_or((tag, false), |t| (t, true));
            let (name, mut attributes) = tag.split_once(' ').unwrap_or((tag, ""));
            assert!(name.chars().all(|c| c.is_ascii_lowercase()), "element {name:?}");
            assert_ne!(name, "script");
            while !attributes.trim().is_empty() {
                let (key, value) = attributes.trim_start().split_once("=\"").expect("an attribute has a value");
                assert!(key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'), "attribute {key:?}");
                let (value, more) = value.split_once('"').expect("a value ends");
                assert!(!value.contains("NaN") && !value.contains("inf"), "{key}={value}");
                unescape(value);
                attributes = more;
            }
            if !closed {
                roots += usize::from(open.is_empty());
                open.push(name);
            }
        }
        assert!(open.is_empty() && roots == 1, "one root, closed");
        texts
    }

    fn unescape(text: &str) -> String {
        assert!(text.chars().all(|c| matches!(c, '\n' | ' '..='\u{7e}' | '\u{a0}'..='\u{fffd}' | '\u{10000}'..)));
        for entity in text.split('&').skip(1) {
            let name = entity.split_once(';').expect("an entity ends").0;
            assert!(["lt", "gt", "amp", "quot", "apos"].contains(&name), "entity {name:?}");
        }
        let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&apos;", "'");
        text.replace("&amp;", "&")
    }

    #[test]
    fn hostile_text_stays_text() {
        let hostile = "</text><script>alert('1')</script>&lt;\"\0\u{8}\u{ffff}\u{85}";
        let mut svg = Svg::new(10.0, 10.0, hostile);
        svg.text((1.0, 2.0), hostile, Style::new(9.0, INK, Anchor::Start).turned(-90.0).bold());
        svg.rect((0.0, 0.0), (1.0, 1.0), INK, Some(hostile));
        let texts = well_formed(&svg.finish());
        assert_eq!(texts, ["</text><script>alert('1')</script>&lt;\"\u{fffd}\u{fffd}\u{fffd}\u{fffd}"]);
    }

    #[test]
    fn long_text_is_cut() {
        assert_eq!(clean("abcdef", 6), "abcdef");
        assert_eq!(clean("abcdefg", 6), "abcde\u{2026}");
        assert_eq!(clean("a\nb", 6), "a b");
        assert_eq!(clean("ab", 0), "\u{2026}");
    }

    #[test]
    fn numbers_and_colours() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([1.0, 1.5, 1.256, -0.25].map(number), ["1", "1.5", "1.26", "-0.25"]);
        let stops = [[0, 0, 0], [100, 50, 0], [200, 100, 50]];
        assert_eq!(
            [0.0, 0.25, 0.5, 1.0, 7.0].map(|s| blend(&stops, s)),
            [[0, 0, 0], [50, 25, 0], [100, 50, 0], [200, 100, 50], [200, 100, 50]]
        );
        assert_eq!(blend(&stops, f64::NAN), [0, 0, 0]);
        assert_eq!((readable_on([255, 255, 0]), readable_on([0, 0, 128])), (INK, PAPER));
    }
}
