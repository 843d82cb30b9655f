//! Choices as people write them, `name` or `name:field=value,field=value`: optimizers, schedules, augmentations.

use std::fmt::{self, Display};

/// The name in `text` and its settings, between which `separator` stands; one without `=` is given back whole.
pub(crate) fn split(text: &str, separator: char) -> (&str, impl Iterator<Item = Result<(&str, &str), &str>>) {
    let (name, rest) = text.split_once(':').map_or((text, None), |(name, rest)| (name, Some(rest)));
    let settings = rest.into_iter().flat_map(move |rest| rest.split(separator));
    (name, settings.map(|setting| setting.split_once('=').ok_or(setting)))
}

/// Writes what [`split`] takes apart: the name, and those of `fields` that are not the usual ones.
pub(crate) fn write<V: Display>(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    separator: char,
    fields: Vec<(&'static str, V)>,
    usual: Vec<(&'static str, V)>,
) -> fmt::Result {
    f.write_str(name)?;
    let mut before = ':';
    for ((field, value), (_, usual)) in fields.into_iter().zip(usual) {
        let text = value.to_string();
        if text != usual.to_string() {
            write!(f, "{before}{field}={text}")?;
            before = separator;
        }
    }
    Ok(())
}

/// The field of this name and its place, or else the names that there are.
pub(crate) fn find<V>(fields: Vec<(&'static str, V)>, name: &str) -> Result<(&'static str, V), String> {
    let known = fields.iter().map(|(known, _)| *known).collect::<Vec<_>>().join(", ");
    fields.into_iter().find(|(known, _)| *known == name).ok_or(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fields([u8; 2]);

    impl Display for Fields {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write(f, "name", ';', vec![("a", self.0[0]), ("b", self.0[1])], vec![("a", 1), ("b", 1)])
        }
    }

    #[test]
    fn what_is_written_is_split_again() {
        for (fields, text) in [([1, 1], "name"), ([1, 2], "name:b=2"), ([0, 2], "name:a=0;b=2")] {
            assert_eq!(Fields(fields).to_string(), text);
        }
        let (name, settings) = split("name:a=0;b;c=1=2;", ';');
        assert_eq!(
            (name, settings.collect::<Vec<_>>()),
            ("name", vec![Ok(("a", "0")), Err("b"), Ok(("c", "1=2")), Err("")])
        );
        assert_eq!(split("", ',').1.count(), 0);
        assert_eq!(find(vec![("a", 1), ("b", 2)], "b"), Ok(("b", 2)));
        assert_eq!(find(vec![("a", 1), ("b", 2)], "c"), Err("a, b".into()));
    }
}
