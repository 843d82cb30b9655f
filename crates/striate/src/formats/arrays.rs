//! Named arrays out of other people's files, and the network they are the weights of.

use super::container::shorten;
use crate::network::{Description, Network, NetworkError, ParameterSpec};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// An array of a file, in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedArray {
    /// As the file calls it.
    pub name: String,
    /// Sizes by axis.
    pub shape: Vec<usize>,
    /// As many numbers as the product of the sizes.
    pub values: Vec<f32>,
}

/// What a network's parameter is called in a file, and how it lies there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignName {
    /// The name in the file.
    pub name: String,
    /// Whether a matrix lies there transposed: PyTorch keeps weights as (outputs, inputs), the book (inputs, outputs).
    pub transposed: bool,
}

/// Every array that does not fit its network, all of them at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mismatch {
    /// Names that the network needs and the file does not have, with the shapes they must have.
    pub missing: Vec<(String, Vec<usize>)>,
    /// Names that the file has and the network does not know.
    pub unexpected: Vec<String>,
    /// Names with the shapes in the file and those that the network needs.
    pub misshaped: Vec<(String, Vec<usize>, Vec<usize>)>,
}

impl Mismatch {
    fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.misshaped.is_empty()
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, shape) in &self.missing {
            write!(f, "\n  missing: {} {shape:?}", shorten(name))?;
        }
        for name in &self.unexpected {
            write!(f, "\n  unexpected: {}", shorten(name))?;
        }
        for (name, found, expected) in &self.misshaped {
            write!(f, "\n  mis-shaped: {} {found:?}, expected {expected:?}", shorten(name))?;
        }
        Ok(())
    }
}

/// Why arrays are not a network's weights.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ArraysError {
    /// Names or shapes that differ.
    #[error(
        "{name}: {} of its arrays are not those of {model} ({} missing, {} unexpected, {} mis-shaped):{mismatch}",
        mismatch.missing.len() + mismatch.unexpected.len() + mismatch.misshaped.len(),
        mismatch.missing.len(), mismatch.unexpected.len(), mismatch.misshaped.len()
    )]
    Mismatch {
        /// The file.
        name: String,
        /// The network.
        model: String,
        /// What differs.
        mismatch: Mismatch,
    },
    /// Two arrays of one name.
    #[error("{name}: two arrays are called {array:?}")]
    Twice {
        /// The file.
        name: String,
        /// Their name.
        array: String,
    },
    /// The layers don't make a network.
    #[error(transparent)]
    Network(#[from] NetworkError),
}

/// The network of this description with the arrays as its parameters, under the names that `naming` gives for them.
///
/// ```
/// use striate::formats::{ForeignName, NamedArray, arrays::network_of};
/// use striate::layers::{AffineOptions, Init};
/// use striate::network::Description;
/// use striate::shape::Shape;
///
/// let description = Description::new("tiny", Shape::flat(2)).with("classes", AffineOptions::new(1, Init::He));
/// let array = |name: &str, shape: &[usize]| NamedArray {
///     name: name.into(), shape: shape.into(), values: vec![0.5; shape.iter().product()],
/// };
/// let own = |spec: &striate::network::ParameterSpec| ForeignName { name: spec.name.clone(), transposed: false };
/// let network = network_of(description.clone(), &[array("W1", &[2, 1]), array("b1", &[1])], own, "tiny.npz")?;
/// assert_eq!(network.parameters().as_slice(), [0.5, 0.5, 0.5]);
/// let error = network_of(description, &[array("W1", &[2, 2]), array("c1", &[1])], own, "tiny.npz").unwrap_err();
/// let text = error.to_string();
/// assert!(text.contains("missing: b1") && text.contains("unexpected: c1") && text.contains("mis-shaped: W1"));
/// # Ok::<(), striate::formats::ArraysError>(())
/// ```
///
/// # Errors
/// Arrays that are missing, unexpected or of another shape: all of them in one error.
pub fn network_of(
    description: Description,
    arrays: &[NamedArray],
    naming: impl Fn(&ParameterSpec) -> ForeignName,
    name: &str,
) -> Result<Network, ArraysError> {
    let mut by_name: BTreeMap<&str, &NamedArray> = BTreeMap::new();
    for array in arrays {
        if by_name.insert(&array.name, array).is_some() {
            return Err(ArraysError::Twice { name: name.into(), array: shorten(&array.name) });
        }
    }
    // Names and shapes before a number is drawn: what a file asks for may be more than there is memory.
    let mut mismatch = Mismatch::default();
    let mut known = BTreeSet::new();
    let mut sources = Vec::new();
    for spec in description.parameter_specs()? {
        let ForeignName { name, transposed } = naming(&spec);
        let mut expected = spec.shape.clone();
        if transposed {
            expected.reverse();
        }
        match by_name.get(name.as_str()) {
            None => mismatch.missing.push((name.clone(), expected)),
            Some(array) if array.shape != expected => {
                mismatch.misshaped.push((name.clone(), array.shape.clone(), expected));
            }
            Some(array) => sources.push((spec, *array, transposed)),
        }
        known.insert(name);
    }
    mismatch.unexpected = by_name.keys().filter(|name| !known.contains(**name)).map(|name| name.to_string()).collect();
    if !mismatch.is_empty() {
        return Err(ArraysError::Mismatch { name: name.into(), model: description.name.clone(), mismatch });
    }
    let mut network = Network::new(description, 0)?;
    let parameters = network.parameters_mut().as_mut_slice();
    for (spec, array, transposed) in sources {
        let target = parameters.get_mut(spec.range).unwrap_or_default();
        match (transposed, spec.shape.as_slice()) {
            (true, &[rows, columns]) => {
                for (at, value) in target.iter_mut().enumerate() {
                    let (row, column) = (at / columns.max(1), at % columns.max(1));
                    *value = array.values.get(column * rows + row).copied().unwrap_or_default();
                }
            }
            _ => target.iter_mut().zip(&array.values).for_each(|(target, value)| *target = *value),
        }
    }
    Ok(network)
}
