//! Networks written by people: a [`Description`] as TOML.
//!
//! ```toml
//! name = "tiny"
//! input = [1, 28, 28]        # channels, height, width
//!
//! [[layers]]
//! name = "conv1"
//! kind = "convolution"
//! filters = 8
//! kernel = 3                 # or [height, width]; so are stride (1), padding (0) and dilation (1)
//! padding = 1
//! init = "he"                # or "xavier", "normal:0.01"
//!
//! [[layers]]
//! name = "sum"
//! kind = "add"
//! inputs = ["conv1", "conv1"]  # the layer before, if left out; "input" is the network's own
//! ```
//!
//! Layers may stand in any order. Whatever does not fit is an error with its line.

use crate::network::{Description, NamedLayer, NetworkError};
use crate::shape::Shape;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::ops::Range;
use toml::{Spanned, Table};

/// What is wrong with a model file, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}, line {line}: {reason}")]
pub struct TomlError {
    /// The file.
    pub name: String,
    /// From 1.
    pub line: usize,
    /// What was found, and what should be there.
    pub reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    input: [usize; 3],
    layers: Vec<Spanned<Table>>,
}

/// The description as a TOML file that [`from_toml`] reads back.
///
/// # Errors
/// None for a description that can be planned; a number that TOML can't hold.
pub fn to_toml(description: &Description) -> Result<String, TomlError> {
    let problem = |reason: String| TomlError { name: description.name.clone(), line: 1, reason };
    #[derive(Serialize)]
    struct Head<'a> {
        name: &'a str,
        input: Shape,
    }
    let head = Head { name: &description.name, input: description.input };
    let mut text = toml::to_string(&head).map_err(|error| problem(error.to_string()))?;
    for named in &description.layers {
        // By way of text, which keeps the digits of f32 as they are.
        let layer = serde_json::to_string(&named.layer).and_then(|text| serde_json::from_str::<Value>(&text));
        let Value::Object(fields) = layer.map_err(|error| problem(error.to_string()))? else { continue };
        text += "\n[[layers]]\n";
        let mut line = |key: &str, value: &Value| text += &format!("{key} = {}\n", inline(value));
        line("name", &named.name.clone().into());
        if let Some(kind) = fields.get("kind") {
            line("kind", kind);
        }
        for (key, value) in &fields {
            match (key.as_str(), value) {
                ("kind", _) => {}
                ("window", Value::Object(window)) => {
                    for (key, value) in window.iter().filter(|(key, value)| !is_usual(key, value)) {
                        line(key, &narrowed(value));
                    }
                }
                ("init", Value::Object(init)) => {
                    let (words, numbers): (Vec<_>, Vec<_>) = init.values().partition(|value| value.is_string());
                    let words = words.iter().filter_map(|value| value.as_str().map(String::from));
                    let all: Vec<String> = words.chain(numbers.iter().map(|value| value.to_string())).collect();
                    line(key, &all.join(":").into());
                }
                _ => line(key, value),
            }
        }
        if !named.inputs.is_empty() {
            line("inputs", &named.inputs.clone().into());
        }
    }
    Ok(text)
}

/// A value on one line of TOML.
fn inline(value: &Value) -> String {
    match value {
        Value::String(text) => toml::Value::String(text.clone()).to_string(),
        Value::Array(values) => format!("[{}]", values.iter().map(inline).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

/// Fields of a window, which stand beside the layer's own in the file.
const WINDOW: [&str; 5] = ["kernel", "stride", "padding", "dilation", "rounding"];

fn usual(key: &str) -> Value {
    match key {
        "stride" | "dilation" => vec![1, 1].into(),
        "padding" => vec![0, 0].into(),
        "rounding" => "floor".into(),
        _ => Value::Null,
    }
}

fn is_usual(key: &str, value: &Value) -> bool {
    *value == usual(key)
}

/// `[3, 3]` as `3`.
fn narrowed(value: &Value) -> Value {
    match value.as_array().map(Vec::as_slice) {
        Some([a, b]) if a == b => a.clone(),
        _ => value.clone(),
    }
}

/// Reads a network from TOML; `name` is for messages.
///
/// ```
/// use striate::formats::{from_toml, to_toml};
/// use striate::{models, shape::Shape};
/// let lenet = models::by_name("lenet", Shape::new(1, 28, 28), 10)?;
/// assert_eq!(from_toml(&to_toml(&lenet)?, "lenet.toml")?, lenet);
/// let wrong = to_toml(&lenet)?.replace("filters = 16", "filter = 16");
/// let error = from_toml(&wrong, "lenet.toml").unwrap_err();
/// assert!(error.to_string().contains("unknown field `filter`"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Text that is no TOML, unknown or missing keys, inputs that no layer is called, cycles, and layers that do not fit where
/// they stand.
pub fn from_toml(text: &str, name: &str) -> Result<Description, TomlError> {
    let source = Source { text, name };
    let file: File = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        source.error(at, error.message().to_string())
    })?;
    let mut layers = Vec::with_capacity(file.layers.len());
    let mut places: HashMap<String, usize> = HashMap::new();
    for table in file.layers {
        let place = table.span();
        let layer = source.layer(table.into_inner(), &place)?;
        let line_of_name = source.place_of("name", &place);
        if layer.name == crate::network::description::INPUT {
            return Err(source.error(line_of_name, NetworkError::ReservedName.to_string()));
        }
        if places.insert(layer.name.clone(), line_of_name).is_some() {
            let error = NetworkError::DuplicateName { name: layer.name };
            return Err(source.error(line_of_name, error.to_string()));
        }
        layers.push((layer, place));
    }
    // A layer without inputs takes the one before it in the file, so that one must be named before they are sorted.
    let before: Vec<Option<String>> =
        std::iter::once(None).chain(layers.iter().map(|(layer, _)| Some(layer.name.clone()))).collect();
    let mut nodes = Vec::with_capacity(layers.len());
    for ((layer, place), before) in layers.into_iter().zip(before) {
        for input in &layer.inputs {
            if input != crate::network::description::INPUT && !places.contains_key(input) {
                let error = NetworkError::UnknownInput { layer: layer.name.clone(), input: input.clone() };
                return Err(source.error(source.place_of("inputs", &place), error.to_string()));
            }
        }
        nodes.push((layer, before));
    }
    let layers = sorted(nodes).map_err(|cycle| {
        let at = cycle.first().and_then(|name| places.get(name)).copied().unwrap_or(0);
        let reason = format!("the layers {} take their inputs from each other in a circle", cycle.join(", "));
        source.error(at, reason)
    })?;
    let [channels, height, width] = file.input;
    let description = Description { name: file.name, input: Shape::new(channels, height, width), layers };
    match description.shapes() {
        Ok(_) => Ok(description),
        Err(error) => {
            let layer = match &error {
                NetworkError::Layer { layer, .. } | NetworkError::DeadEnd { layer } => places.get(layer),
                _ => None,
            };
            Err(source.error(layer.copied().unwrap_or(0), error.to_string()))
        }
    }
}

/// Layers after their inputs, otherwise in the order of the file; or those on a circle. Each comes with the name of the
/// layer before it in the file.
fn sorted(layers: Vec<(NamedLayer, Option<String>)>) -> Result<Vec<NamedLayer>, Vec<String>> {
    let mut rest = layers;
    let mut done: Vec<NamedLayer> = Vec::with_capacity(rest.len());
    let mut names: std::collections::HashSet<String> = [crate::network::description::INPUT.to_string()].into();
    while !rest.is_empty() {
        let ready = |(layer, before): &(NamedLayer, Option<String>)| {
            if layer.inputs.is_empty() {
                before.as_ref().is_none_or(|before| names.contains(before))
            } else {
                layer.inputs.iter().all(|input| names.contains(input))
            }
        };
        let Some(next) = rest.iter().position(ready) else { return Err(circle(rest)) };
        let (mut layer, before) = rest.remove(next);
        // Where the order changed, what was silent must be said.
        if layer.inputs.is_empty() && done.last().map(|last| &last.name) != before.as_ref() {
            layer.inputs = vec![before.unwrap_or_else(|| crate::network::description::INPUT.to_string())];
        }
        names.insert(layer.name.clone());
        done.push(layer);
    }
    Ok(done)
}

/// The layers on a circle among layers none of which is ready, without those that only follow from it.
fn circle(mut layers: Vec<(NamedLayer, Option<String>)>) -> Vec<String> {
    let takes = |(layer, before): &(NamedLayer, Option<String>), name: &String| {
        if layer.inputs.is_empty() { before.as_ref() == Some(name) } else { layer.inputs.contains(name) }
    };
    while let Some(unused) = (0..layers.len()).find(|&i| !layers.iter().any(|other| takes(other, &layers[i].0.name))) {
        layers.remove(unused);
    }
    layers.into_iter().map(|(layer, _)| layer.name).collect()
}

/// A file's text, to find lines in.
struct Source<'a> {
    text: &'a str,
    name: &'a str,
}

impl Source<'_> {
    fn error(&self, at: usize, reason: String) -> TomlError {
        let line = 1 + self.text.bytes().take(at).filter(|&byte| byte == b'\n').count();
        TomlError { name: self.name.to_string(), line, reason }
    }

    /// Where `key` is set in the table at `place`; the table itself if it is not.
    fn place_of(&self, key: &str, place: &Range<usize>) -> usize {
        let mut at = place.start;
        for (i, line) in self.text.get(place.start..).unwrap_or_default().split_inclusive('\n').enumerate() {
            // The next table ends the search.
            if i > 0 && line.trim_start().starts_with('[') {
                break;
            }
            if line.split_once('=').is_some_and(|(found, _)| found.trim().trim_matches(['"', '\'']) == key) {
                return at;
            }
            at += line.len();
        }
        place.start
    }

    /// One layer from its table.
    fn layer(&self, table: Table, place: &Range<usize>) -> Result<NamedLayer, TomlError> {
        let problem = |key: &str, reason: String| self.error(self.place_of(key, place), reason);
        let json = serde_json::to_value(table).map_err(|error| self.error(place.start, error.to_string()))?;
        let Value::Object(mut fields) = json else { return Err(self.error(place.start, "a layer is a table".into())) };
        let Some(Value::String(name)) = fields.remove("name") else {
            return Err(problem("name", "a layer needs a name, such as name = \"conv1\"".into()));
        };
        let inputs = match fields.remove("inputs") {
            None => Vec::new(),
            Some(value) => {
                let reason = "inputs must be a list of layers' names, such as [\"conv1\", \"input\"]";
                Vec::<String>::deserialize(value).map_err(|_| problem("inputs", reason.into()))?
            }
        };
        let windowed = matches!(fields.get("kind").and_then(Value::as_str), Some("convolution" | "pooling"));
        if windowed {
            let mut window = Map::new();
            for key in WINDOW {
                let value = match fields.remove(key) {
                    // One number stands for both axes.
                    Some(Value::Number(n)) => vec![Value::Number(n.clone()), Value::Number(n)].into(),
                    Some(value) => value,
                    None if key == "kernel" => {
                        let reason = format!("layer {name} needs a kernel, such as kernel = 3 or kernel = [3, 5]");
                        return Err(problem("kind", reason));
                    }
                    None => usual(key),
                };
                window.insert(key.into(), value);
            }
            fields.insert("window".into(), window.into());
        }
        if let Some(Value::String(init)) = fields.get("init") {
            let value = init_fields(init).ok_or_else(|| {
                let reason = format!("init is {init:?}; it must be \"he\", \"xavier\" or as in \"normal:0.01\"");
                problem("init", reason)
            })?;
            fields.insert("init".into(), value);
        }
        let known: Vec<String> = fields.keys().cloned().collect();
        let layer = crate::layers::Layer::deserialize(Value::Object(fields)).map_err(|error| {
            let reason = format!("layer {name}: {error}");
            // serde names an unknown field between backquotes.
            let key = known.iter().find(|key| reason.contains(&format!("`{key}`"))).map_or("kind", String::as_str);
            problem(key, reason)
        })?;
        Ok(NamedLayer { name, layer, inputs })
    }
}

/// `normal:0.01` as the fields of [`Init`](crate::layers::Init).
fn init_fields(text: &str) -> Option<Value> {
    let (name, number) = text.split_once(':').map_or((text, None), |(name, number)| (name, Some(number)));
    let number = number.map(|n| n.parse::<f64>().ok().filter(|n| n.is_finite())).map_or(Some(None), |n| n.map(Some))?;
    let key = match (name, number) {
        ("he" | "xavier", None) => None,
        ("normal", Some(_)) => Some("deviation"),
        ("constant", Some(_)) => Some("value"),
        _ => return None,
    };
    let mut fields = Map::from_iter([("name".to_string(), Value::from(name))]);
    if let (Some(key), Some(number)) = (key, number) {
        fields.insert(key.into(), number.into());
    }
    Some(fields.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{self, Request};

    const TINY: &str = r#"name = "tiny"
input = [1, 8, 8]

[[layers]]
name = "conv1"
kind = "convolution"
filters = 8
kernel = 3
padding = 1
init = "normal:0.01"

[[layers]]
name = "relu1"
kind = "relu"

[[layers]]
name = "sum"
kind = "add"
inputs = ["conv1", "relu1"]

[[layers]]
name = "classes"
kind = "affine"
outputs = 10
init = "he"
"#;

    fn error(find: &str, replace: &str) -> (usize, String) {
        assert!(TINY.contains(find));
        let error = from_toml(&TINY.replacen(find, replace, 1), "tiny.toml").unwrap_err();
        assert!(error.to_string().starts_with(&format!("tiny.toml, line {}: ", error.line)));
        (error.line, error.reason)
    }

    #[test]
    fn every_model_survives() {
        for name in models::NAMES {
            let description = models::build(name, &Request::default()).unwrap();
            let text = to_toml(&description).unwrap();
            assert_eq!(from_toml(&text, name).unwrap(), description, "{text}");
        }
        let tiny = from_toml(TINY, "tiny").unwrap();
        assert_eq!(tiny.layers.len(), 4);
        assert_eq!(from_toml(&to_toml(&tiny).unwrap(), "tiny").unwrap(), tiny);
    }

    #[test]
    fn errors_have_the_line() {
        let check = |(line, reason): (usize, String), expected: usize, word: &str| {
            assert!(line == expected && reason.contains(word), "line {line}: {reason}");
        };
        check(error("filters = 8", "filters = 8\nfilter_size = 3"), 8, "unknown field `filter_size`");
        check(error("filters = 8\n", ""), 6, "missing field `filters`");
        check(error("kernel = 3", "kernel = 11"), 5, "conv1");
        check(error("kernel = 3\n", ""), 6, "needs a kernel");
        check(error("\"normal:0.01\"", "\"normal\""), 10, "normal:0.01");
        check(error("kind = \"relu\"", "kind = \"rely\""), 14, "rely");
        check(error("\"conv1\", \"relu1\"", "\"conv1\", \"relu2\""), 19, "relu2");
        check(error("name = \"relu1\"", "name = \"conv1\""), 13, "two layers");
        check(error("name = \"relu1\"", "name = \"input\""), 13, "input");
        check(error("input = [1, 8, 8]", "input = [1, 8]"), 2, "");
        check(error("input = [1, 8, 8]", "input = [1, 8, 8]\nclasses = 3"), 3, "classes");
        check(error("name = \"classes\"", "nome = \"classes\""), 21, "name");
        check(error("kind = \"relu\"", "kind = "), 14, "");
        check(error("inputs = [\"conv1\", \"relu1\"]", "inputs = \"conv1\""), 19, "list");
        check(error("inputs = [\"conv1\", \"relu1\"]", "inputs = [\"conv1\"]"), 17, "inputs");
        check(
            error("kind = \"relu\"", "kind = \"relu\"\ninputs = [\"sum\"]"),
            13,
            "layers relu1, sum take their inputs",
        );
        check(error("outputs = 10", "outputs = 10\ninputs = [\"relu1\"]"), 17, "used by no other");
    }

    #[test]
    fn layers_may_stand_in_any_order() {
        let (head, tail) = TINY.split_once("[[layers]]\nname = \"relu1\"").unwrap();
        let (relu, rest) = tail.split_once("[[layers]]\nname = \"sum\"").unwrap();
        let moved =
            format!("{head}[[layers]]\nname = \"sum\"{rest}\n[[layers]]\nname = \"relu1\"{relu}inputs = [\"conv1\"]\n");
        let description = from_toml(&moved, "moved").unwrap();
        let names: Vec<_> = description.layers.iter().map(|l| l.name.as_str()).collect();
        assert_eq!(names, ["conv1", "relu1", "sum", "classes"]);
    }
}
