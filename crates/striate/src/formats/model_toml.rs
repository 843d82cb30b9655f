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

use crate::network::description::{INPUT, MAX_LAYERS};
use crate::network::{Description, NamedLayer, NetworkError};
use crate::shape::Shape;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use toml::Spanned;

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

/// A layer's keys, each with its place in the text.
type Table = BTreeMap<Spanned<String>, toml::Value>;

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
    // Before anything is done for each of them.
    if file.layers.len() > MAX_LAYERS {
        let error = NetworkError::TooMany { what: "layers", found: file.layers.len(), most: MAX_LAYERS };
        return Err(source.error(0, error.to_string()));
    }
    let mut nodes: Vec<Node> = Vec::with_capacity(file.layers.len());
    let mut places: HashMap<String, usize> = HashMap::new();
    for (number, table) in file.layers.into_iter().enumerate() {
        let place = Places::of(&table);
        let layer = source.layer(table.into_inner(), &place)?;
        if layer.name == INPUT {
            return Err(source.error(place.of_key("name"), NetworkError::ReservedName.to_string()));
        }
        if places.insert(layer.name.clone(), number).is_some() {
            let error = NetworkError::DuplicateName { name: layer.name };
            return Err(source.error(place.of_key("name"), error.to_string()));
        }
        nodes.push(Node { layer, place });
    }
    let inputs = nodes.iter().enumerate().map(|(number, Node { layer, place })| {
        // A layer without inputs takes the one before it in the file.
        let before = || number.checked_sub(1).into_iter().collect();
        let named = layer.inputs.iter().filter(|input| *input != INPUT).map(|input| {
            places.get(input).copied().ok_or_else(|| {
                let error = NetworkError::UnknownInput { layer: layer.name.clone(), input: input.clone() };
                source.error(place.of_key("inputs"), error.to_string())
            })
        });
        if layer.inputs.is_empty() { Ok(before()) } else { named.collect() }
    });
    let inputs: Vec<Vec<usize>> = inputs.collect::<Result<_, _>>()?;
    let order = sorted(&inputs).map_err(|circle| {
        let names: Vec<&str> = circle.iter().map(|&number| nodes[number].layer.name.as_str()).collect();
        let at = circle.first().map_or(0, |&number| nodes[number].place.of_key("name"));
        source.error(at, format!("the layers {} take their inputs from each other in a circle", names.join(", ")))
    })?;
    // Where the order changed, what was silent must be said.
    for (at, &number) in order.iter().enumerate() {
        let before = number.checked_sub(1);
        if nodes[number].layer.inputs.is_empty() && at.checked_sub(1).map(|at| order[at]) != before {
            let name = before.map_or(INPUT.to_string(), |before| nodes[before].layer.name.clone());
            nodes[number].layer.inputs = vec![name];
        }
    }
    let place_of: Vec<usize> = nodes.iter().map(|node| node.place.of_key("name")).collect();
    let mut layers: Vec<Option<NamedLayer>> = nodes.into_iter().map(|node| Some(node.layer)).collect();
    let layers = order.iter().filter_map(|&number| layers[number].take()).collect();
    let [channels, height, width] = file.input;
    let description = Description { name: file.name, input: Shape::new(channels, height, width), layers };
    match description.shapes() {
        Ok(_) => Ok(description),
        Err(error) => {
            let layer = match &error {
                NetworkError::Layer { layer, .. } | NetworkError::DeadEnd { layer } => places.get(layer),
                _ => None,
            };
            Err(source.error(layer.map_or(0, |&number| place_of[number]), error.to_string()))
        }
    }
}

/// A layer, and where it stands in the text.
struct Node {
    layer: NamedLayer,
    place: Places,
}

/// The layers in an order in which each comes after its inputs, otherwise in that of the file; or those on a circle.
fn sorted(inputs: &[Vec<usize>]) -> Result<Vec<usize>, Vec<usize>> {
    let mut readers = vec![Vec::new(); inputs.len()];
    for (number, inputs) in inputs.iter().enumerate() {
        inputs.iter().for_each(|&input| readers[input].push(number));
    }
    let order = freed(inputs, &readers);
    if order.len() == inputs.len() {
        return Ok(order);
    }
    // What is left waits for a circle; those that no other one waits for are not on it.
    let mut left = vec![true; inputs.len()];
    order.iter().for_each(|&number| left[number] = false);
    let among = |lists: &[Vec<usize>]| -> Vec<Vec<usize>> {
        let keep = |number: usize| lists[number].iter().copied().filter(|&other| left[other] && left[number]).collect();
        (0..lists.len()).map(keep).collect()
    };
    freed(&among(&readers), &among(inputs)).into_iter().for_each(|number| left[number] = false);
    Err((0..left.len()).filter(|&number| left[number]).collect())
}

/// Numbers in the order in which they become free, the least first: each waits for those of its list `waits`, and sets free
/// those of its list `frees`. Those that wait for each other never do.
fn freed(waits: &[Vec<usize>], frees: &[Vec<usize>]) -> Vec<usize> {
    let mut waits: Vec<usize> = waits.iter().map(Vec::len).collect();
    let mut free: BinaryHeap<Reverse<usize>> = (0..waits.len()).filter(|&i| waits[i] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(waits.len());
    while let Some(Reverse(next)) = free.pop() {
        order.push(next);
        for &other in &frees[next] {
            waits[other] -= 1;
            if waits[other] == 0 {
                free.push(Reverse(other));
            }
        }
    }
    order
}

/// Where a layer's keys are set.
struct Places {
    table: usize,
    keys: HashMap<String, usize>,
}

impl Places {
    fn of(table: &Spanned<Table>) -> Self {
        let keys = table.get_ref().keys().map(|key| (key.get_ref().clone(), key.span().start)).collect();
        Self { table: table.span().start, keys }
    }

    /// The place of a key; of the table itself if it is not set.
    fn of_key(&self, key: &str) -> usize {
        self.keys.get(key).copied().unwrap_or(self.table)
    }
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

    /// One layer from its table.
    fn layer(&self, table: Table, place: &Places) -> Result<NamedLayer, TomlError> {
        let problem = |key: &str, reason: String| self.error(place.of_key(key), reason);
        let mut fields = Map::new();
        for (key, value) in table {
            let key = key.into_inner();
            let value = serde_json::to_value(value).map_err(|error| problem(&key, error.to_string()))?;
            fields.insert(key, value);
        }
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
        let layer = crate::layers::Layer::deserialize(Value::Object(fields)).map_err(|error| {
            let error = error.to_string();
            // serde names an unknown field between backquotes, before those that it knows.
            let key = error.split('`').nth(1).filter(|key| place.keys.contains_key(*key)).unwrap_or("kind");
            problem(key, format!("layer {name}: {error}"))
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
        check(error("filters = 8", "filters = 8\ngroup = 3"), 8, "unknown field `group`");
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
    fn long_files_take_no_more_time_than_they_are_long() {
        let start = std::time::Instant::now();
        let head = "name = \"long\"\ninput = [1, 8, 8]\n";
        let relu = |name: usize, rest: &str| format!("[[layers]]\nname = \"a{name}\"\nkind = \"relu\"\n{rest}");
        let layers = |range: std::ops::Range<usize>, rest: &dyn Fn(usize) -> String| -> String {
            range.map(|i| relu(i, &rest(i))).collect()
        };
        let read = |text: &str| from_toml(&format!("{head}{text}"), "long.toml");
        // As many as there may be, the last first; and more.
        let before = |i: usize| {
            if i + 1 == MAX_LAYERS { "inputs = [\"input\"]\n".into() } else { format!("inputs = [\"a{}\"]\n", i + 1) }
        };
        let reversed = read(&layers(0..MAX_LAYERS, &before)).unwrap();
        assert_eq!(reversed.layers[0].name, format!("a{}", MAX_LAYERS - 1));
        assert!(reversed.summary(1).is_ok());
        let error = read(&layers(0..50_000, &|_| String::new())).unwrap_err();
        assert!(error.reason.contains("50000 layers; at most 4096"), "{error}");
        let inputs = "\"a0\", ".repeat(100_000);
        let error = read(&(relu(0, "") + &relu(1, &format!("inputs = [{inputs}]\n")))).unwrap_err();
        assert!(error.reason.contains("100000 inputs of layers; at most 16384"), "{error}");
        // A circle that all others wait for.
        let circle = |i: usize| if i == 0 { "inputs = [\"a1\"]\n".into() } else { String::new() };
        let error = read(&layers(0..MAX_LAYERS, &circle)).unwrap_err();
        assert!(error.line == 4 && error.reason.contains("the layers a0, a1 take"), "{error}");
        // One list in a line for each layer, and keys that no layer has.
        let listed: String = (0..MAX_LAYERS).map(|i| format!("{{kind = \"relu\", name = \"a{i}\"}},\n")).collect();
        assert_eq!(read(&format!("layers = [\n{listed}]\n")).unwrap().layers.len(), MAX_LAYERS);
        let keys: String = (0..50_000).map(|i| format!("k{i} = 1\n")).collect();
        let error = read(&relu(0, &format!("{keys}{} = 1\n", "a".repeat(100_000)))).unwrap_err();
        assert!(error.line == 50_006 && error.reason.contains("unknown field `aaa"), "{}", error.line);
        assert!(start.elapsed().as_secs() < 4, "{:?}", start.elapsed());
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
