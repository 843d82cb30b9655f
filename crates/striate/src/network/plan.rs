//! A plan: a network compiled for one batch size.
//!
//! Every shape is checked here, every fusion chosen, and every buffer given a place in one arena, so that running the
//! plan neither allocates nor checks. Buffers that are never alive at the same time share their place.

use super::{Description, NetworkError};
use crate::layers::Operator;
use crate::shape::{Shape, ShapeError, checked_product};
use std::ops::Range;

/// What a plan is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Forward only: predictions, and the loss.
    Inference,
    /// Forward and backward.
    Training,
}

/// One operator with its places in the arena and among the parameters.
#[derive(Debug)]
pub(super) struct Step {
    /// Names of the layers it does, joined by `+`.
    pub(super) name: String,
    /// Position of its first layer in the description.
    pub(super) layer: usize,
    pub(super) operator: Box<dyn Operator>,
    pub(super) parameters: Range<usize>,
    pub(super) input: Range<usize>,
    pub(super) output: Range<usize>,
    pub(super) saved: Range<usize>,
    pub(super) forward_workspace: Range<usize>,
    pub(super) backward: Option<BackwardPlaces>,
}

/// Where the backward pass of a step works.
#[derive(Debug)]
pub(super) struct BackwardPlaces {
    pub(super) output_gradient: Range<usize>,
    /// Empty where nobody needs it: nothing before this step learns.
    pub(super) input_gradient: Range<usize>,
    pub(super) workspace: Range<usize>,
}

/// A network compiled for one batch size and mode.
#[derive(Debug)]
pub struct Plan {
    pub(super) mode: Mode,
    pub(super) batch: usize,
    pub(super) input: Shape,
    pub(super) classes: usize,
    pub(super) steps: Vec<Step>,
    pub(super) arena: usize,
    pub(super) parameters: usize,
}

/// Numbers of an arena are placed at multiples of this many f32: 64 bytes, a cache line.
pub(super) const ALIGNMENT: usize = 16;

impl Plan {
    /// Compiles `description` for batches of `batch` samples.
    ///
    /// # Errors
    /// A layer that does not fit where it stands, or a batch of 0 or beyond any memory.
    pub fn new(description: &Description, batch: usize, mode: Mode) -> Result<Self, NetworkError> {
        if batch == 0 {
            return Err(ShapeError::Empty { what: "the batch", found: vec![0] }.into());
        }
        let at = |layer: &str| {
            let layer = layer.to_owned();
            move |source| NetworkError::Layer { layer, source }
        };
        let mut steps: Vec<Step> = Vec::new();
        let (mut shape, mut parameter) = (description.input, 0);
        description.input.checked_len(batch)?;
        for (layer, named) in description.layers.iter().enumerate() {
            let rule = named.layer.rule();
            let output = rule.output(shape).map_err(at(&named.name))?;
            let mut parameters = parameter..parameter;
            for wanted in rule.parameters(shape).map_err(at(&named.name))? {
                parameters.end += checked_product(&wanted.shape).map_err(at(&named.name))?;
            }
            parameter = parameters.end;
            output.checked_len(batch).map_err(at(&named.name))?;
            if let Some(last) = steps.last_mut()
                && last.operator.absorb(&named.layer)
            {
                last.name = format!("{}+{}", last.name, named.name);
            } else {
                steps.push(Step {
                    name: named.name.clone(),
                    layer,
                    operator: rule.operator(shape, batch).map_err(at(&named.name))?,
                    parameters,
                    input: 0..0,
                    output: 0..0,
                    saved: 0..0,
                    forward_workspace: 0..0,
                    backward: None,
                });
            }
            shape = output;
        }
        if steps.is_empty() {
            return Err(NetworkError::NoLayers { name: description.name.clone() });
        }
        let input = description.input;
        let mut plan = Self { mode, batch, input, classes: shape.len(), steps, arena: 0, parameters: parameter };
        plan.place();
        Ok(plan)
    }

    /// Gives every buffer its place. Forward of step `i` runs at time `i`, the loss at `n`, backward of step `i` at `2n - i`.
    fn place(&mut self) {
        let n = self.steps.len();
        let training = self.mode == Mode::Training;
        let backward_time = |i: usize| 2 * n - i;
        // The first step that learns; nothing before it needs gradients.
        let first = self.steps.iter().position(|s| !s.parameters.is_empty()).unwrap_or(n);
        let mut arena = Arena::default();
        let mut activation = {
            // The input is written by the caller before the run, and must survive it for the caller's sake.
            let end = if training { backward_time(0) } else { n };
            arena.place(self.batch * self.input.len(), 0..=end)
        };
        let mut produced = Vec::with_capacity(n);
        for i in 0..n {
            let step = &self.steps[i];
            let operator = &step.operator;
            let read_back = |keeps: bool, j: usize| if training && keeps && j >= first { backward_time(j) } else { 0 };
            let next_keeps = self.steps.get(i + 1).is_some_and(|next| next.operator.keeps_input());
            let end = (i + 1).max(read_back(operator.keeps_output(), i)).max(read_back(next_keeps, i + 1));
            // Logits are read by the caller after the run.
            let end = if i + 1 == n { backward_time(0) } else { end };
            let output = arena.place(self.batch * operator.output().len(), i..=end);
            let saved = if training { operator.saved() } else { 0 };
            let saved = arena.place(saved, i..=read_back(true, i).max(i));
            let workspace = arena.place(operator.workspace(false), i..=i);
            let step = &mut self.steps[i];
            (step.input, step.output, step.saved, step.forward_workspace) =
                (activation, output.clone(), saved, workspace);
            activation = output.clone();
            produced.push(output);
        }
        if training {
            let mut gradient = arena.place(produced[n - 1].len(), n..=backward_time(n - 1));
            for i in (first.min(n - 1)..n).rev() {
                let len = if i > first { self.steps[i].input.len() } else { 0 };
                let time = backward_time(i);
                let input_gradient = arena.place(len, time..=time + 1);
                let workspace = arena.place(self.steps[i].operator.workspace(true), time..=time);
                let output_gradient = std::mem::replace(&mut gradient, input_gradient.clone());
                self.steps[i].backward = Some(BackwardPlaces { output_gradient, input_gradient, workspace });
            }
        }
        self.arena = arena.len;
    }

    /// Samples in a batch.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Number of logits a sample.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// What runs, in order: each fused operator's layers, joined by `+`.
    pub fn step_names(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().map(|s| s.name.as_str())
    }

    /// Bytes of the arena: all activations, gradients between layers and workspace.
    pub fn arena_bytes(&self) -> usize {
        self.arena * size_of::<f32>()
    }

    /// Bytes of the arena and the parameters; while training, also of their gradients.
    pub fn peak_bytes(&self) -> usize {
        let copies = if self.mode == Mode::Training { 2 } else { 1 };
        self.arena_bytes() + copies * self.parameters * size_of::<f32>()
    }
}

/// First fit over what is alive at the same time.
#[derive(Default)]
struct Arena {
    placed: Vec<(Range<usize>, std::ops::RangeInclusive<usize>)>,
    len: usize,
}

impl Arena {
    /// A place for `len` numbers while `alive`; `0..0` for none.
    fn place(&mut self, len: usize, alive: std::ops::RangeInclusive<usize>) -> Range<usize> {
        if len == 0 {
            return 0..0;
        }
        let mut neighbours: Vec<&Range<usize>> = self
            .placed
            .iter()
            .filter(|(_, other)| other.start() <= alive.end() && alive.start() <= other.end())
            .map(|(range, _)| range)
            .collect();
        neighbours.sort_unstable_by_key(|range| range.start);
        let mut start = 0usize;
        for range in neighbours {
            if start + len <= range.start {
                break;
            }
            start = start.max(range.end.next_multiple_of(ALIGNMENT));
        }
        let range = start..start + len;
        self.len = self.len.max(range.end);
        self.placed.push((range.clone(), alive));
        range
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::simple_convnet::SimpleConvNet;
    use proptest::prelude::*;

    #[test]
    fn the_books_network_is_three_steps() {
        let description = SimpleConvNet::default().description();
        let plan = Plan::new(&description, 100, Mode::Training).unwrap();
        let names: Vec<_> = plan.step_names().collect();
        assert_eq!(names, ["Conv1+Relu1+Pool1", "Affine1+Relu2", "Affine2"]);
        assert!(
            plan.steps[0].backward.as_ref().unwrap().input_gradient.is_empty(),
            "the first layer's input needs none"
        );
        let inference = Plan::new(&description, 100, Mode::Inference).unwrap();
        assert!(inference.arena_bytes() < plan.arena_bytes());
    }

    proptest! {
        #[test]
        fn what_lives_together_never_overlaps(
            buffers in proptest::collection::vec((0usize..100, 0usize..20, 0usize..8), 1..40)
        ) {
            let mut arena = Arena::default();
            let mut placed: Vec<(Range<usize>, usize, usize)> = Vec::new();
            for (len, birth, life) in buffers {
                let range = arena.place(len, birth..=birth + life);
                prop_assert_eq!(range.len(), len);
                prop_assert!(range.start % ALIGNMENT == 0 && range.end <= arena.len.max(range.end));
                for (other, from, to) in &placed {
                    let together = *from <= birth + life && birth <= *to;
                    prop_assert!(!together || len == 0 || other.is_empty() || range.end <= other.start || other.end <= range.start);
                }
                placed.push((range, birth, birth + life));
            }
        }
    }
}
