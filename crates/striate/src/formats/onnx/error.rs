//! Why an ONNX file can't be written or read.

use crate::formats::FormatError;
use crate::network::NetworkError;
use std::collections::HashMap;

/// Why a model can't be written as ONNX.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum OnnxError {
    /// A layer that ONNX has no operator for.
    #[error("layer {layer} can't be written as ONNX: {reason}")]
    Unsupported {
        /// The layer.
        layer: String,
        /// Why, and what to do.
        reason: String,
    },
    /// A layer with the name of the graph's input or output.
    #[error("a layer is called {name:?}, which is the name of the ONNX graph's own input or output; rename the layer")]
    ReservedName {
        /// The name.
        name: String,
    },
    /// The description does not make a network.
    #[error(transparent)]
    Network(#[from] NetworkError),
}

/// Why an ONNX file can't be read as a network. `name` is the file's path, or what the caller calls the bytes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OnnxImportError {
    /// The file can't be read.
    #[error(transparent)]
    File(#[from] FormatError),
    /// No ONNX file, or a damaged one.
    #[error("{name} can't be read as ONNX: {reason}")]
    Malformed {
        /// The file.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nodes that there are no layers for: all of them at once.
    #[error("{name} has {} that can't be imported:{}", nodes(problems.len()), list(problems))]
    Nodes {
        /// The file.
        name: String,
        /// Every such node, in the file's order.
        problems: Vec<NodeProblem>,
    },
    /// An input or output that is no batch of images or class scores.
    #[error("{name}: {reason}")]
    Interface {
        /// The file.
        name: String,
        /// What was found and what is needed.
        reason: String,
    },
    /// The layers don't make a network.
    #[error("{name}: {source}")]
    Network {
        /// The file.
        name: String,
        /// What does not fit.
        source: Box<NetworkError>,
    },
}

/// A node that can't be imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeProblem {
    /// The node's name, or that of its first output.
    pub node: String,
    /// Its operator, as `Conv`; with its domain in front if that is not the standard's.
    pub operator: String,
    /// Why not.
    pub reason: String,
}

fn nodes(count: usize) -> String {
    if count == 1 { "a node".into() } else { format!("{count} nodes") }
}

/// A line for each reason, with the nodes that have it: names from a file may be long and many, so both are cut.
fn list(problems: &[NodeProblem]) -> String {
    const MOST_LINES: usize = 50;
    const MOST_NAMES: usize = 8;
    const MOST_LETTERS: usize = 300;
    let cut = |text: &str| text.chars().take(MOST_LETTERS).collect::<String>();
    let mut groups: Vec<((&str, &str), Vec<&str>)> = Vec::new();
    let mut places: HashMap<(&str, &str), usize> = HashMap::new();
    for problem in problems {
        let key = (problem.operator.as_str(), problem.reason.as_str());
        let place = *places.entry(key).or_insert(groups.len());
        if place == groups.len() {
            groups.push((key, Vec::new()));
        }
        groups[place].1.push(&problem.node);
    }
    let mut text = String::new();
    for ((operator, reason), names) in groups.iter().take(MOST_LINES) {
        let shown: Vec<String> = names.iter().take(MOST_NAMES).map(|name| cut(name)).collect();
        text += &format!("\n  {} ({}", cut(operator), shown.join(", "));
        if names.len() > MOST_NAMES {
            text += &format!(" and {} more", names.len() - MOST_NAMES);
        }
        text += &format!("): {}", cut(reason));
    }
    if groups.len() > MOST_LINES {
        text += &format!("\n  and {} more", groups.len() - MOST_LINES);
    }
    text
}
