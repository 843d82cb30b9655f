//! Pages that need nothing beside them: pictures are built in, text from outside is escaped by `maud`, and the page's own
//! policy forbids scripts and anything that is not in it.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};

const STYLE: &str = include_str!("page.css");
/// Nothing but what is in the page itself.
const POLICY: &str = "default-src 'none'; img-src data:; style-src 'unsafe-inline'";

/// A whole page.
pub(crate) fn page(title: &str, main: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="generator" content={ "striate " (env!("CARGO_PKG_VERSION")) };
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body { main { (main) } }
        }
    }
}

/// The few numbers that matter most, the first before all.
pub(crate) fn facts(facts: &[(&str, String)]) -> Markup {
    html! { dl.facts { @for (name, value) in facts { div { dt { (name) } dd { (value) } } } } }
}

pub(crate) fn data_uri(png: &[u8]) -> String {
    format!("data:image/png;base64,{}", BASE64_STANDARD.encode(png))
}

/// A command line as a shell takes it.
pub(crate) fn command<S: AsRef<str>>(arguments: impl IntoIterator<Item = S>) -> String {
    let words = arguments.into_iter().map(|argument| quoted(argument.as_ref()));
    std::iter::once("striate".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

/// The command line of this process, for a page that may be handed on.
pub(crate) fn own_command() -> String {
    let arguments = std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned());
    let own = command(without_token(arguments));
    match std::env::var("STRIATE_ISA") {
        Ok(isa) => format!("STRIATE_ISA={} {own}", quoted(&isa)),
        Err(_) => own,
    }
}

/// Leaves out `--token TOKEN`: who reads the page need not know it, and the same weights come without it.
fn without_token(mut arguments: impl Iterator<Item = String>) -> Vec<String> {
    let mut kept = Vec::new();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--token" => drop(arguments.next()),
            joined if joined.starts_with("--token=") => {}
            _ => kept.push(argument),
        }
    }
    kept
}

fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        argument.into()
    } else {
        format!("'{}'", argument.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_can_be_pasted() {
        assert_eq!(quoted("--data=a/b.c:7"), "--data=a/b.c:7");
        assert_eq!(["my photos", "", "it's", "$HOME"].map(quoted), ["'my photos'", "''", "'it'\\''s'", "'$HOME'"]);
        assert_eq!(command(["explain", "my run", "filters"]), "striate explain 'my run' filters");
        let given = ["train", "--watch", "--token", "secret-1", "--token=secret-2", "--seed", "3"].map(String::from);
        assert_eq!(command(without_token(given.into_iter())), "striate train --watch --seed 3");
    }
}
