//! GELU spelt out, as exporters do below operator set 20: `x / 2 (1 + erf(x / sqrt 2))`, its factors in any order.

use super::Importer;
use crate::formats::onnx::interpret;
use crate::formats::onnx::node::Node;
use std::collections::{HashMap, HashSet};
use std::f32::consts::{FRAC_1_SQRT_2, SQRT_2};

/// A spelt-out GELU.
struct Gelu<'a> {
    /// What it is of.
    x: &'a str,
    /// Its last product.
    product: &'a str,
    /// Outputs of the nodes that only lead there.
    inner: Vec<&'a str>,
}

/// Who writes and who reads a value, where one node alone reads it.
struct Nodes<'a, 'i> {
    importer: &'i Importer<'a>,
    writers: HashMap<&'a str, &'a Node>,
    readers: HashMap<&'a str, &'a Node>,
    /// Single numbers that were looked up, since a file may ask for a large constant again and again.
    numbers: HashMap<&'a str, Option<f32>>,
}

impl<'a> Importer<'a> {
    /// Notes the products that are GELU, and leaves out the nodes that only lead there.
    pub(super) fn find_gelus(&mut self) {
        let erfs: Vec<&Node> = self.nodes.iter().copied().filter(|node| node.operator == "Erf").collect();
        if erfs.is_empty() {
            return;
        }
        let pairs = |names: fn(&Node) -> &[String]| {
            let of = |&node: &&'a Node| names(node).iter().map(move |name| (name.as_str(), node));
            self.nodes.iter().flat_map(of).collect()
        };
        let (writers, readers) = (pairs(|node| &node.outputs), pairs(|node| &node.inputs));
        let mut nodes = Nodes { importer: self, writers, readers, numbers: HashMap::new() };
        let found: Vec<Gelu<'_>> = erfs.into_iter().filter_map(|erf| nodes.gelu(erf)).collect();
        let inner: HashSet<&str> = found.iter().flat_map(|gelu| gelu.inner.iter().copied()).collect();
        self.nodes.retain(|node| node.outputs.first().is_none_or(|output| !inner.contains(output.as_str())));
        self.gelus = found.into_iter().map(|gelu| (gelu.product, gelu.x)).collect();
    }
}

impl<'a> Nodes<'a, '_> {
    fn gelu(&mut self, erf: &'a Node) -> Option<Gelu<'a>> {
        let (scaled, erf) = (erf.input(0)?, output(erf)?);
        let x = self.scaled(scaled)?;
        let above = self.only_reader(erf)?;
        self.by(above, "Add", erf, 1.0)?;
        let above = output(above)?;
        let next = self.only_reader(above)?;
        let other = other(next, "Mul", above)?;
        let between = output(next)?;
        let mut inner = vec![scaled, erf, above];
        let product = if self.number(other).is_some_and(|number| is_near(number, 0.5)) {
            // x (0.5 (1 + erf)).
            inner.push(between);
            let last = self.only_reader(between)?;
            (self::other(last, "Mul", between)? == x).then(|| output(last))??
        } else if other == x {
            // 0.5 (x (1 + erf)).
            inner.push(between);
            let last = self.only_reader(between)?;
            self.by(last, "Mul", between, 0.5)?;
            output(last)?
        } else {
            // (0.5 x) (1 + erf).
            let half = *self.writers.get(other)?;
            self.by(half, "Mul", x, 0.5)?;
            self.only_reader(other)?;
            inner.push(other);
            between
        };
        // A value that the graph gives as its output must stay.
        inner.iter().all(|&name| self.only_reader(name).is_some()).then_some(Gelu { x, product, inner })
    }

    /// What is divided by the square root of 2 to give this value, which one node reads.
    fn scaled(&mut self, name: &'a str) -> Option<&'a str> {
        self.only_reader(name)?;
        let node = *self.writers.get(name)?;
        let (a, b) = (node.input(0)?, node.input(1)?);
        match node.operator.as_str() {
            "Div" => is_near(self.number(b)?, SQRT_2).then_some(a),
            "Mul" => [(a, b), (b, a)]
                .into_iter()
                .find_map(|(x, factor)| is_near(self.number(factor)?, FRAC_1_SQRT_2).then_some(x)),
            _ => None,
        }
    }

    /// Whether the node is `operator` of this value and this number.
    fn by(&mut self, node: &'a Node, operator: &str, value: &str, number: f32) -> Option<()> {
        let other = other(node, operator, value)?;
        is_near(self.number(other)?, number).then_some(())
    }

    /// The node that reads a value, if it is one and reads it once.
    fn only_reader(&self, name: &str) -> Option<&'a Node> {
        (self.importer.uses.get(name) == Some(&1)).then(|| self.readers.get(name).copied()).flatten()
    }

    /// A constant of one number.
    fn number(&mut self, name: &'a str) -> Option<f32> {
        if let Some(&number) = self.numbers.get(name) {
            return number;
        }
        let number = match self.writers.get(name) {
            Some(node) if node.operator == "Constant" => {
                interpret::fold(node, &[]).ok().and_then(|outputs| outputs.first()?.scalar().ok())
            }
            Some(_) => None,
            None => self.importer.graph.number(name),
        };
        self.numbers.insert(name, number);
        number
    }
}

fn output(node: &Node) -> Option<&str> {
    node.outputs.first().map(String::as_str)
}

/// The other input of a node of two.
fn other<'a>(node: &'a Node, operator: &str, value: &str) -> Option<&'a str> {
    match [node.input(0)?, node.input(1)?] {
        [a, b] if node.operator == operator && a == value => Some(b),
        [a, b] if node.operator == operator && b == value => Some(a),
        _ => None,
    }
}

/// As near as half precision has it.
fn is_near(found: f32, expected: f32) -> bool {
    (found - expected).abs() <= 1e-3 * expected
}
