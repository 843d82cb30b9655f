//! One operator of a graph with its attributes, as they are asked for.

use super::proto::{AttributeProto, NodeProto};
use super::tensor::Tensor;
use std::collections::HashMap;

/// Why a node can't be taken.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Problem {
    /// Good ONNX, but more than is known here.
    Unsupported(String),
    /// Against the standard, or against itself.
    Invalid(String),
}

pub(super) fn unsupported<T>(reason: impl Into<String>) -> Result<T, Problem> {
    Err(Problem::Unsupported(reason.into()))
}

pub(super) fn invalid<T>(reason: impl Into<String>) -> Result<T, Problem> {
    Err(Problem::Invalid(reason.into()))
}

/// A node of the graph.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// Its own name, or that of its first output.
    pub(super) name: String,
    /// The operator.
    pub(super) operator: String,
    /// Names of values; empty where an optional input is left out.
    pub(super) inputs: Vec<String>,
    /// Names of values; empty where nobody asks.
    pub(super) outputs: Vec<String>,
    /// The version of the operator set.
    pub(super) opset: i64,
    attributes: HashMap<String, AttributeProto>,
}

impl Node {
    pub(super) fn new(proto: NodeProto, opset: i64) -> Self {
        let own = matches!(proto.domain.as_str(), "" | "ai.onnx");
        let operator = if own { proto.op_type } else { format!("{}.{}", proto.domain, proto.op_type) };
        let name = match proto.name {
            name if name.is_empty() => proto.output.first().cloned().unwrap_or_default(),
            name => name,
        };
        let attributes = proto.attribute.into_iter().map(|attribute| (attribute.name.clone(), attribute)).collect();
        Self { name, operator, inputs: proto.input, outputs: proto.output, opset, attributes }
    }

    /// A node without attributes.
    pub(super) fn bare() -> Self {
        Self::new(NodeProto::default(), 1)
    }

    /// The name of an input, if it is given.
    pub(super) fn input(&self, at: usize) -> Option<&str> {
        self.inputs.get(at).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// Whether an output is given a name.
    pub(super) fn yields(&self, at: usize) -> bool {
        self.outputs.get(at).is_some_and(|name| !name.is_empty())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.attributes.contains_key(name)
    }

    pub(super) fn int(&self, name: &str, default: i64) -> i64 {
        self.attributes.get(name).and_then(|a| a.i).unwrap_or(default)
    }

    pub(super) fn float(&self, name: &str, default: f32) -> f32 {
        self.attributes.get(name).and_then(|a| a.f).unwrap_or(default)
    }

    pub(super) fn ints(&self, name: &str) -> Option<&[i64]> {
        self.attributes.get(name).map(|a| a.ints.as_slice())
    }

    pub(super) fn floats(&self, name: &str) -> Option<&[f32]> {
        self.attributes.get(name).map(|a| a.floats.as_slice())
    }

    pub(super) fn text(&self, name: &str, default: &'static str) -> String {
        let text = self.attributes.get(name).and_then(|a| a.s.as_ref());
        text.map_or_else(|| default.to_owned(), |text| String::from_utf8_lossy(text).into_owned())
    }

    pub(super) fn texts(&self, name: &str) -> Option<Vec<String>> {
        let text = |text: &prost::bytes::Bytes| String::from_utf8_lossy(text).into_owned();
        self.attributes.get(name).map(|a| a.strings.iter().map(text).collect())
    }

    /// A tensor among the attributes.
    pub(super) fn tensor(&self, name: &str) -> Result<Option<Tensor>, Problem> {
        match self.attributes.get(name).and_then(|a| a.t.as_ref()) {
            Some(proto) if proto.data_location != 0 => unsupported("an attribute whose numbers are in another file"),
            Some(proto) => Tensor::read(proto, None).map(Some),
            None => Ok(None),
        }
    }

    /// An axis counted from the end where it is negative, checked against the number of axes.
    pub(super) fn axis(axis: i64, rank: usize) -> Result<usize, Problem> {
        let counted = if axis < 0 { axis.checked_add(rank as i64) } else { Some(axis) };
        match counted.and_then(|axis| usize::try_from(axis).ok()) {
            Some(axis) if axis < rank => Ok(axis),
            _ => invalid(format!("axis {axis} of an array with {rank} axes")),
        }
    }
}
