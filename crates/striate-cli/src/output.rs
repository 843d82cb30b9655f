//! Results to stdout, hints to stdout unless quiet, JSON as the last line where asked, complaints to stderr.

use crate::Global;
use serde::Serialize;
use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use std::process;

/// Where results go.
pub(crate) struct Output {
    json: bool,
    quiet: bool,
}

impl Output {
    pub(crate) fn new(global: &Global) -> Self {
        Self { json: global.json, quiet: global.quiet }
    }

    /// Says nothing but a result for programs.
    pub(crate) fn silent() -> Self {
        Self { json: true, quiet: true }
    }

    /// Whether stdout is a person's screen, and they want to see more than results.
    pub(crate) fn is_screen(&self) -> bool {
        !self.json && !self.quiet && io::stdout().is_terminal()
    }

    /// Whether nobody wants progress or hints.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// A line of the result for people; nothing with `--json`.
    pub(crate) fn line(&self, text: impl AsRef<str>) {
        if !self.json {
            print_line(text.as_ref());
        }
    }

    /// A line that only helps; nothing with `--json` or `--quiet`.
    pub(crate) fn hint(&self, text: impl AsRef<str>) {
        if !self.quiet {
            self.line(text);
        }
    }

    /// How many there are of something, if there is any, and the first `most` of it.
    pub(crate) fn list(&self, what: &str, most: usize, items: impl ExactSizeIterator<Item = String>) {
        let all = items.len();
        if all > 0 {
            self.line(format!("\n{what}: {}", thousands(all)));
            items.take(most).for_each(|item| self.line(format!("  {item}")));
            if all > most {
                self.line(format!("  and {} more (--json lists all)", thousands(all - most)));
            }
        }
    }

    /// The result for programs; nothing without `--json`.
    pub(crate) fn json(&self, value: &serde_json::Value) {
        if self.json {
            print_line(&value.to_string());
        }
    }
}

/// As JSON, with numbers as they are written: 0.002 as `f32` stays 0.002, though the nearest `f64` is a little more.
pub(crate) fn to_json(value: &impl Serialize) -> serde_json::Value {
    serde_json::to_string(value).and_then(|text| serde_json::from_str(&text)).unwrap_or_default()
}

/// Prints to stdout. A reader that has gone away (`| head -1`) ends the program quietly; a result that can't be written
/// (a full disk) is a failure.
fn print_line(text: &str) {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{}", printable(text)).and_then(|()| stdout.flush()) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => process::exit(0),
        Err(error) => {
            complain(&format!("error: the result could not be written to stdout: {error}"));
            process::exit(1);
        }
    }
}

/// Prints to stderr. There is nobody left to tell if that fails.
pub(crate) fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", printable(text));
}

/// Without control characters: names out of other people's files must not steer the terminal.
fn printable(text: &str) -> Cow<'_, str> {
    let steers = |c: char| c.is_control() && c != '\n';
    if text.contains(steers) { text.replace(steers, "\u{fffd}").into() } else { text.into() }
}

/// 9827 as `9,827`.
pub(crate) fn thousands(n: usize) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A share as a percentage with the counts behind it.
pub(crate) fn share(correct: usize, all: usize) -> String {
    format!("{:.2} % ({} of {})", 100.0 * correct as f64 / all.max(1) as f64, thousands(correct), thousands(all))
}

/// A time, without its unit: three digits that say something.
pub(crate) fn milliseconds(ms: f64) -> String {
    let decimals = (2 - ms.max(1e-6).log10().floor() as i32).clamp(0, 6) as usize;
    format!("{ms:.decimals$}")
}

/// A number of bytes for people.
pub(crate) fn bytes(n: usize) -> String {
    match n {
        0..1024 => format!("{n} B"),
        1024..1_048_576 => format!("{:.1} KiB", n as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", n as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", n as f64 / 1_073_741_824.0),
    }
}

/// Lines with columns of equal width; the first row is the head, and columns named in `left` are left-aligned.
pub(crate) fn table(rows: &[Vec<String>], left: &[usize]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|s| s.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    rows.iter()
        .map(|row| {
            let cells = row.iter().enumerate().map(|(c, cell)| {
                let width = widths[c];
                if left.contains(&c) { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            });
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!([0, 999, 1000, 60000, 1234567].map(thousands), ["0", "999", "1,000", "60,000", "1,234,567"]);
        assert_eq!(share(9896, 10_000), "98.96 % (9,896 of 10,000)");
        assert_eq!(
            [1234.5, 12.345, 1.0, 0.01234, 0.0].map(milliseconds),
            ["1234", "12.3", "1.00", "0.0123", "0.000000"]
        );
        assert_eq!([512, 2048, 3 << 20, 5 << 30].map(bytes), ["512 B", "2.0 KiB", "3.0 MiB", "5.0 GiB"]);
    }

    #[test]
    fn names_do_not_steer_the_terminal() {
        assert_eq!(printable("cat\u{1b}[2J\r\nowl"), "cat\u{fffd}[2J\u{fffd}\nowl");
        assert_eq!(printable("고양이"), "고양이");
    }

    #[test]
    fn json_keeps_the_digits() {
        assert_eq!(to_json(&[0.002f32, 0.9, 1e-7]).to_string(), "[0.002,0.9,1e-7]");
    }

    #[test]
    fn tables_align() {
        let rows = [vec!["a".into(), "b".into()], vec!["long".into(), "22".into()]];
        assert_eq!(table(&rows, &[0]), ["a      b", "long  22"]);
    }
}
