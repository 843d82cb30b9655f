//! The executor of a plan on this machine's CPU: it owns the arena, and running allocates nothing.

use super::plan::{ALIGNMENT, BackwardPlaces, Plan, Step};
use super::{NetworkError, Parameters};
use crate::kernels::softmax::cross_entropy;
use crate::layers::{Backward, Forward, step_random};
use std::ops::Range;

/// Names a training step, so that its random numbers depend on nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepKey {
    /// The run's seed.
    pub seed: u64,
    /// Steps done before this one.
    pub step: u64,
}

/// What a batch came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepResult {
    /// Mean loss over the batch.
    pub loss: f32,
    /// Samples whose largest logit is their label's.
    pub correct: usize,
}

/// A plan with its arena. Fill [`Runner::input_mut`] and [`Runner::labels_mut`], then run.
#[derive(Debug)]
pub struct Runner {
    plan: Plan,
    arena: Vec<f32>,
    labels: Vec<usize>,
    label_smoothing: f32,
}

impl Runner {
    /// Reserves the arena.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn new(plan: Plan) -> Result<Self, NetworkError> {
        let mut arena = Vec::new();
        // A little more, to start on a cache line.
        let len = plan.arena + ALIGNMENT;
        let no_memory =
            |_| NetworkError::OutOfMemory { what: format!("a batch of {}", plan.batch), bytes: len * size_of::<f32>() };
        arena.try_reserve_exact(len).map_err(no_memory)?;
        arena.resize(len, 0.0);
        let labels = vec![0; plan.batch];
        Ok(Self { plan, arena, labels, label_smoothing: 0.0 })
    }

    /// The plan that runs.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Samples in a batch.
    pub fn batch(&self) -> usize {
        self.plan.batch
    }

    /// The batch (N, C, H, W), to fill before a run; a run leaves it as it is.
    pub fn input_mut(&mut self) -> &mut [f32] {
        let range = self.plan.steps.first().map_or(0..0, |s| s.input.clone());
        &mut aligned(&mut self.arena)[range]
    }

    /// The labels (N), to fill before a run with loss; each below the number of classes.
    pub fn labels_mut(&mut self) -> &mut [usize] {
        &mut self.labels
    }

    /// The share of every target that [`Runner::loss_and_gradient`] spreads evenly over all classes, in [0, 1); 0 at
    /// first. [`Runner::loss`] stays plain.
    pub fn set_label_smoothing(&mut self, share: f32) {
        self.label_smoothing = share;
    }

    /// Logits (N, classes) of the batch.
    pub fn predict(&mut self, parameters: &Parameters) -> &[f32] {
        self.forward(parameters, None);
        let range = self.logits();
        &aligned(&mut self.arena)[range]
    }

    /// The mean loss of the batch, without gradients.
    ///
    /// # Panics
    /// If a label is no class; callers check labels when data comes in.
    pub fn loss(&mut self, parameters: &Parameters) -> StepResult {
        self.forward(parameters, None);
        let logits = self.logits();
        let loss = cross_entropy(&aligned(&mut self.arena)[logits], &self.labels, self.plan.classes, 0.0, None);
        self.finish(loss)
    }

    /// Loss and gradients of the batch; overwrites `gradients`. Needs a plan for training. With a key, dropout drops;
    /// without one (a gradient check) the network is as it predicts.
    ///
    /// # Panics
    /// If a label is no class, or the plan is for inference.
    pub fn loss_and_gradient(
        &mut self,
        parameters: &Parameters,
        gradients: &mut Parameters,
        key: impl Into<Option<StepKey>>,
    ) -> StepResult {
        self.forward(parameters, key.into());
        let arena = aligned(&mut self.arena);
        let last = self.plan.steps.last().and_then(|s| s.backward.as_ref());
        let place = last.map(|b| b.output_gradient.clone()).expect("a plan for training");
        let [logits, gradient] = disjoint(arena, [self.plan.steps.last().map_or(0..0, |s| s.output.clone()), place]);
        let loss = cross_entropy(logits, &self.labels, self.plan.classes, self.label_smoothing, Some(gradient));
        let gradients = gradients.as_mut_slice();
        for step in self.plan.steps.iter().rev() {
            if let Some(places) = &step.backward {
                backward(step, places, arena, parameters.as_slice(), gradients);
            }
        }
        self.finish(loss)
    }

    fn logits(&self) -> Range<usize> {
        self.plan.steps.last().map_or(0..0, |s| s.output.clone())
    }

    fn finish(&self, loss: crate::kernels::softmax::Loss) -> StepResult {
        StepResult { loss: (loss.sum / self.plan.batch as f64) as f32, correct: loss.correct }
    }

    fn forward(&mut self, parameters: &Parameters, key: Option<StepKey>) {
        let arena = aligned(&mut self.arena);
        for step in &self.plan.steps {
            let places = [&step.input, &step.output, &step.saved, &step.forward_workspace].map(Range::clone);
            let [input, output, saved, workspace] = disjoint(arena, places);
            step.operator.forward(Forward {
                parameters: &parameters.as_slice()[step.parameters.clone()],
                input,
                output,
                saved,
                workspace,
                random: key.map(|key| step_random(key.seed, key.step, step.layer)),
            });
        }
    }
}

fn backward(step: &Step, places: &BackwardPlaces, arena: &mut [f32], parameters: &[f32], gradients: &mut [f32]) {
    let only = |keeps: bool, range: &Range<usize>| if keeps { range.clone() } else { 0..0 };
    let [input, output, saved, output_gradient, input_gradient, workspace] = disjoint(
        arena,
        [
            only(step.operator.keeps_input(), &step.input),
            only(step.operator.keeps_output(), &step.output),
            step.saved.clone(),
            places.output_gradient.clone(),
            places.input_gradient.clone(),
            places.workspace.clone(),
        ],
    );
    step.operator.backward(Backward {
        parameters: &parameters[step.parameters.clone()],
        input,
        output,
        saved,
        output_gradient,
        input_gradient,
        parameter_gradient: &mut gradients[step.parameters.clone()],
        workspace,
    });
}

/// The part of the arena that starts on a cache line.
fn aligned(arena: &mut [f32]) -> &mut [f32] {
    let offset = arena.as_ptr().align_offset(ALIGNMENT * size_of::<f32>());
    arena.get_mut(offset..).unwrap_or_default()
}

/// Several places of the arena at once; the plan never makes two that are alive together overlap.
fn disjoint<const N: usize>(arena: &mut [f32], places: [Range<usize>; N]) -> [&mut [f32]; N] {
    arena.get_disjoint_mut(places).expect("the plan's places are disjoint")
}
