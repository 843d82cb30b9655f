//! All learnt numbers of a network in one flat buffer, with names.
//!
//! One allocation (the shape of llm.c's arena), so that an optimizer's update is one sweep over slices.

use super::NetworkError;
use crate::buffer::Buffer;
use crate::layers::Role;
use crate::shape::checked_product;
use ndarray::{ArrayViewD, ArrayViewMutD, IxDyn};
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Name, shape and place of one parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterSpec {
    /// Unique in the network: `W1`, `b1`.
    pub name: String,
    /// As in the book: filters (FN, C, FH, FW), affine weights (inputs, outputs), biases (outputs).
    pub shape: Vec<usize>,
    /// Its place in the flat buffer.
    pub range: Range<usize>,
    /// What it is: weights decay, running statistics are not learnt.
    pub role: Role,
}

/// Named arrays over one flat buffer: the parameters of a network, their gradients, or an optimizer's state.
#[derive(Clone, Debug)]
pub struct Parameters {
    specs: Arc<[ParameterSpec]>,
    values: Buffer,
    /// Names these values: equal only where the values are.
    revision: u64,
}

impl PartialEq for Parameters {
    fn eq(&self, other: &Self) -> bool {
        self.specs == other.specs && self.values == other.values
    }
}

/// A number no other values have.
fn new_revision() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Parameters {
    /// Zeros for parameters of these names and shapes, placed one after the other. Arrays of one dimension count as
    /// biases, others as weights, until a network gives them their roles.
    ///
    /// # Errors
    /// Two of one name, or sizes beyond any memory.
    pub fn zeros(names_and_shapes: Vec<(String, Vec<usize>)>) -> Result<Self, NetworkError> {
        let role = |shape: &[usize]| if shape.len() <= 1 { Role::Bias } else { Role::Weight };
        Self::with_roles(names_and_shapes.into_iter().map(|(name, shape)| (name, role(&shape), shape)))
    }

    /// Zeros for parameters of these names, roles and shapes.
    pub(crate) fn with_roles(
        parameters: impl Iterator<Item = (String, Role, Vec<usize>)>,
    ) -> Result<Self, NetworkError> {
        let mut specs: Vec<ParameterSpec> = Vec::new();
        let mut names = HashSet::new();
        let mut end = 0usize;
        for (name, role, shape) in parameters {
            if !names.insert(name.clone()) {
                return Err(NetworkError::DuplicateName { name });
            }
            let len = checked_product(&shape)?;
            checked_product(&[end + len])?;
            specs.push(ParameterSpec { name, shape, range: end..end + len, role });
            end += len;
        }
        let values = Buffer::zeros(end)
            .map_err(|_| NetworkError::OutOfMemory { what: "the parameters".into(), bytes: end * size_of::<f32>() })?;
        Ok(Self { specs: specs.into(), values, revision: new_revision() })
    }

    /// Zeros of the same names and shapes: gradients, or an optimizer's moments.
    pub fn zeros_like(&self) -> Self {
        Self { specs: self.specs.clone(), values: self.values.zeros_like(), revision: new_revision() }
    }

    /// Names, shapes and places, in layer order.
    pub fn specs(&self) -> &[ParameterSpec] {
        &self.specs
    }

    /// How many numbers there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// How many numbers are learnt: all but running statistics, as models are counted in print.
    pub fn learnt(&self) -> usize {
        self.specs.iter().filter(|spec| spec.role != Role::Statistic).map(|spec| spec.range.len()).sum()
    }

    /// All numbers in one slice, in layer order.
    pub fn as_slice(&self) -> &[f32] {
        &self.values
    }

    /// All numbers in one slice, to change.
    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        self.revision = new_revision();
        &mut self.values
    }

    /// Names the present values: what was made of them stays good as long as this number does. Copies share it until
    /// one of them is changed.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    fn spec(&self, name: &str) -> Option<&ParameterSpec> {
        self.specs.iter().find(|s| s.name == name)
    }

    /// The array of this name.
    pub fn get(&self, name: &str) -> Option<ArrayViewD<'_, f32>> {
        self.view(self.spec(name)?)
    }

    fn view(&self, spec: &ParameterSpec) -> Option<ArrayViewD<'_, f32>> {
        ArrayViewD::from_shape(IxDyn(&spec.shape), &self.values[spec.range.clone()]).ok()
    }

    /// The array of this name, to change.
    pub fn get_mut(&mut self, name: &str) -> Option<ArrayViewMutD<'_, f32>> {
        let spec = self.spec(name)?.clone();
        self.revision = new_revision();
        ArrayViewMutD::from_shape(IxDyn(&spec.shape), &mut self.values[spec.range]).ok()
    }

    /// Every name with its array, in layer order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, ArrayViewD<'_, f32>)> {
        self.specs.iter().filter_map(|s| Some((s.name.as_str(), self.view(s)?)))
    }
}
