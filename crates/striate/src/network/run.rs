//! The executor of a plan on this machine's CPU: it owns the arena, and running allocates nothing.

#[cfg(test)]
mod checks;

use super::plan::{BackwardPlaces, Mode, Plan, Step};
use super::{Description, NetworkError, Parameters};
use crate::buffer::Buffer;
use crate::clock::Instant;
pub use crate::kernels::softmax::SecondClass;
use crate::kernels::softmax::cross_entropy;
use crate::layers::{Backward, Forward, Gradient, step_random};
use ndarray::{ArrayView, Dimension};
use std::fmt;
use std::ops::Range;
use std::time::Duration;

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
    /// Samples whose largest logit is their label's, of a mixed one that of the larger share.
    pub correct: usize,
}

/// What one step of a plan took in one run: see [`Runner::profile`].
#[derive(Clone, Debug, PartialEq)]
pub struct StepTime {
    /// As [`Plan::step_names`] has it.
    pub name: String,
    /// Bringing its parameters into the form that the forward pass reads.
    pub prepare: Duration,
    /// Its forward pass.
    pub forward: Duration,
    /// Its backward pass; zero where none ran.
    pub backward: Duration,
    /// Of its backward pass, the gradients of its parameters: what the pass takes without the gradients of its inputs.
    pub backward_weights: Duration,
}

/// Where a run first came to a number that is not finite: see [`Runner::find_non_finite`].
#[derive(Clone, Debug, PartialEq)]
pub struct NonFinite {
    /// In which array.
    pub array: NonFiniteArray,
    /// NaN or infinity.
    pub value: f32,
}

/// An array of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NonFiniteArray {
    /// The network's input.
    Input,
    /// A parameter, by its name, and the layer it belongs to.
    Parameter {
        /// As [`Parameters`] has it.
        name: String,
        /// The layer.
        layer: String,
    },
    /// The output of a layer, or of several done in one pass: their names joined by `+`.
    Output(String),
    /// The loss.
    Loss,
    /// The gradient with respect to a layer's parameters.
    ParameterGradient(String),
    /// The gradient with respect to a layer's inputs.
    InputGradient(String),
}

impl fmt::Display for NonFinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.array {
            NonFiniteArray::Input => f.write_str("the input of the network")?,
            NonFiniteArray::Parameter { name, layer } => write!(f, "parameter {name} of layer {layer}")?,
            NonFiniteArray::Output(layer) => write!(f, "the output of layer {layer}")?,
            NonFiniteArray::Loss => f.write_str("the loss of finite outputs")?,
            NonFiniteArray::ParameterGradient(layer) => write!(f, "the gradient of the parameters of layer {layer}")?,
            NonFiniteArray::InputGradient(layer) => write!(f, "the gradient of the inputs of layer {layer}")?,
        }
        write!(f, " ({:?})", self.value)
    }
}

/// What a runner has just done for a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Prepare,
    Forward,
    Loss,
    Backward,
    BackwardWeights,
}

/// A plan with its arena. Fill [`Runner::input_mut`] and [`Runner::labels_mut`], then run.
#[derive(Debug)]
pub struct Runner {
    plan: Plan,
    arena: Buffer,
    /// Of which parameters the arena holds what the operators prepared, where it keeps that.
    revision: Option<u64>,
    labels: Vec<usize>,
    seconds: Vec<SecondClass>,
    label_smoothing: f32,
    /// One a class, or none for 1.
    class_weights: Vec<f32>,
    /// Where a plan whose parameters nobody learns writes a step's parameter gradients.
    discarded: Buffer,
}

impl Runner {
    /// Reserves the arena.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn new(plan: Plan) -> Result<Self, NetworkError> {
        let zeros = |len: usize| {
            let what = || format!("a batch of {}", plan.batch);
            Buffer::zeros(len).map_err(|_| NetworkError::OutOfMemory { what: what(), bytes: len * size_of::<f32>() })
        };
        let arena = zeros(plan.arena)?;
        let (labels, seconds) = (vec![0; plan.batch], vec![SecondClass::default(); plan.batch]);
        let most = plan.steps.iter().map(|step| step.parameters.len()).max().unwrap_or(0);
        let discarded = zeros(if plan.mode == Mode::Gradient { most } else { 0 })?;
        let (label_smoothing, class_weights) = (0.0, Vec::new());
        Ok(Self { plan, arena, revision: None, labels, seconds, label_smoothing, class_weights, discarded })
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
        &mut self.arena[self.plan.input.clone()]
    }

    /// Fills the batch with these numbers, in the order of their places.
    pub(crate) fn write_input<D: Dimension>(&mut self, x: ArrayView<'_, f32, D>) {
        self.input_mut().iter_mut().zip(&x).for_each(|(to, &from)| *to = from);
    }

    /// The labels (N), to fill before a run with loss; each below the number of classes.
    pub fn labels_mut(&mut self) -> &mut [usize] {
        &mut self.labels
    }

    /// The second class of each sample of the batch that [`Runner::loss_and_gradient`] is to learn, each below the number
    /// of classes; at first none has a share. [`Runner::loss`] stays plain.
    pub fn seconds_mut(&mut self) -> &mut [SecondClass] {
        &mut self.seconds
    }

    /// The share of every target that [`Runner::loss_and_gradient`] spreads evenly over all classes, in [0, 1); 0 at
    /// first. [`Runner::loss`] stays plain.
    pub fn set_label_smoothing(&mut self, share: f32) {
        self.label_smoothing = share;
    }

    /// What the loss of a sample counts in [`Runner::loss_and_gradient`], by its class; nothing for 1. [`Runner::loss`] stays
    /// plain.
    pub fn set_class_weights(&mut self, weights: &[f32]) {
        self.class_weights = weights.to_vec();
    }

    /// Logits (N, classes) of the batch.
    pub fn predict(&mut self, parameters: &Parameters) -> &[f32] {
        self.forward(parameters, None, |_, _, _, _| ());
        &self.arena[self.plan.logits.clone()]
    }

    /// The mean loss of the batch, without gradients.
    ///
    /// # Panics
    /// If a label is no class; callers check labels when data comes in.
    pub fn loss(&mut self, parameters: &Parameters) -> StepResult {
        self.forward(parameters, None, |_, _, _, _| ());
        let logits = self.plan.logits.clone();
        let loss = cross_entropy(&self.arena[logits], &self.labels, &[], &[], self.plan.classes, 0.0, None);
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
        self.run(parameters, gradients, key.into(), false, |_, _, _, _| ())
    }

    /// Runs the batch once, parameters prepared anew, and says what each step took: forward only for a plan for inference (`gradients` is
    /// left as it is), else with the backward pass, as [`Runner::loss_and_gradient`] without a key. A step that computes
    /// gradients both of its parameters and of its inputs then does the former once more, by themselves.
    ///
    /// # Panics
    /// As [`Runner::loss_and_gradient`].
    pub fn profile(&mut self, parameters: &Parameters, gradients: &mut Parameters) -> Vec<StepTime> {
        let zero = Duration::ZERO;
        let step = |name: &str| StepTime {
            name: name.to_owned(),
            prepare: zero,
            forward: zero,
            backward: zero,
            backward_weights: zero,
        };
        let mut times: Vec<StepTime> = self.plan.step_names().map(step).collect();
        let mut last = Instant::now();
        let watch = |phase: Phase, step: usize, _: &[f32], _: &[f32]| {
            let took = last.elapsed();
            match phase {
                Phase::Prepare => times[step].prepare = took,
                Phase::Forward => times[step].forward = took,
                Phase::Loss => (),
                Phase::Backward => times[step].backward = took,
                Phase::BackwardWeights => times[step].backward_weights = took,
            }
            last = Instant::now();
        };
        self.revision = None;
        match self.plan.mode {
            Mode::Inference | Mode::Gradient => self.forward(parameters, None, watch),
            Mode::Training => {
                self.run(parameters, gradients, None, true, watch);
            }
        }
        times
    }

    /// Runs the batch again as [`Runner::loss_and_gradient`] did, and looks for the first number that is not finite: in the
    /// input, the parameters, then in what each step computes, in the order in which it is computed. Parameters are searched
    /// from the last layer to the first, as a gradient goes that spoils them.
    ///
    /// # Panics
    /// As [`Runner::loss_and_gradient`].
    pub fn find_non_finite(
        &mut self,
        description: &Description,
        parameters: &Parameters,
        gradients: &mut Parameters,
        key: impl Into<Option<StepKey>>,
    ) -> Option<NonFinite> {
        let bad = |values: &[f32]| values.iter().copied().find(|value| !value.is_finite());
        if let Some(value) = bad(self.input_mut()) {
            return Some(NonFinite { array: NonFiniteArray::Input, value });
        }
        let owners = description.parameter_owners().unwrap_or_default();
        for (spec, owner) in parameters.specs().iter().zip(owners).rev() {
            if let Some(value) = bad(&parameters.as_slice()[spec.range.clone()]) {
                let layer = description.layers.get(owner).map_or_else(String::new, |named| named.name.clone());
                return Some(NonFinite { array: NonFiniteArray::Parameter { name: spec.name.clone(), layer }, value });
            }
        }
        let places: Vec<_> = self.plan.steps.iter().map(|step| (step.name.clone(), step.output.clone())).collect();
        let inputs = |step: &Step| step.backward.as_ref().map(|b| [b.input.place.clone(), b.other.place.clone()]);
        let backward: Vec<_> = self.plan.steps.iter().map(inputs).collect();
        let mut first: Option<NonFinite> = None;
        let mut note = |array: &dyn Fn() -> NonFiniteArray, values: &[f32]| {
            if let (None, Some(value)) = (&first, bad(values)) {
                first = Some(NonFinite { array: array(), value });
            }
        };
        let logits_gradient = self.plan.logits_gradient.clone();
        let result = self.run(parameters, gradients, key.into(), false, |phase, i, arena, gradients| {
            let name = || places[i].0.clone();
            match phase {
                Phase::Forward => note(&|| NonFiniteArray::Output(name()), &arena[places[i].1.clone()]),
                Phase::Loss => note(&|| NonFiniteArray::Loss, &arena[logits_gradient.clone()]),
                Phase::Backward => {
                    note(&|| NonFiniteArray::ParameterGradient(name()), gradients);
                    for place in backward[i].iter().flatten() {
                        note(&|| NonFiniteArray::InputGradient(name()), &arena[place.clone()]);
                    }
                }
                Phase::Prepare | Phase::BackwardWeights => {}
            }
        });
        let loss = result.loss;
        first.or((!loss.is_finite()).then_some(NonFinite { array: NonFiniteArray::Loss, value: loss }))
    }

    fn run(
        &mut self,
        parameters: &Parameters,
        gradients: &mut Parameters,
        key: Option<StepKey>,
        weights_apart: bool,
        mut watch: impl FnMut(Phase, usize, &[f32], &[f32]),
    ) -> StepResult {
        self.forward(parameters, key, &mut watch);
        let arena = &mut *self.arena;
        assert_eq!(self.plan.mode, Mode::Training, "gradients need a plan for training");
        let places = [self.plan.logits.clone(), self.plan.logits_gradient.clone()];
        let [logits, gradient] = disjoint(arena, places);
        // A network that learns nothing has no place for it.
        let gradient = (!gradient.is_empty()).then_some(gradient);
        let (labels, seconds, weights) = (&self.labels, &self.seconds, &self.class_weights);
        let loss = cross_entropy(logits, labels, seconds, weights, self.plan.classes, self.label_smoothing, gradient);
        let gradients = gradients.as_mut_slice();
        watch(Phase::Loss, 0, arena, &[]);
        for (i, step) in self.plan.steps.iter().enumerate().rev() {
            if let Some(places) = &step.backward {
                let gradients = &mut gradients[step.parameters.clone()];
                let training = !step.is_frozen();
                backward(step, places, arena, parameters.as_slice(), training, gradients);
                watch(Phase::Backward, i, arena, gradients);
                if weights_apart && !step.parameters.is_empty() {
                    // Nothing that backward reads has changed, and what it writes it overwrites.
                    let places = places.without_inputs();
                    backward(step, &places, arena, parameters.as_slice(), training, gradients);
                    watch(Phase::BackwardWeights, i, arena, gradients);
                }
            }
        }
        self.finish(loss)
    }

    /// The output (N, C, H, W) of a tapped layer in the last run; `None` for a layer without a tap.
    pub fn tap(&self, layer: &str) -> Option<&[f32]> {
        let place = self.plan.tap(layer)?.values.clone();
        Some(&self.arena[place])
    }

    /// The gradient (N, C, H, W) of a tapped layer's output after [`Runner::gradient_from`] (or
    /// [`Runner::loss_and_gradient`]); `None` for a layer without a tap, or in a plan for inference. Of a layer after the
    /// one that the backward pass began at it holds nothing of meaning.
    pub fn tap_gradient(&self, layer: &str) -> Option<&[f32]> {
        let place = self.plan.tap(layer)?.gradient.clone();
        (!place.is_empty()).then(|| &self.arena[place])
    }

    /// Runs the batch forward and then backward from the output of `layer`, which is the last layer or a tapped one:
    /// `seed` is given that output and writes the gradient to begin with, both (N, C, H, W). Afterwards
    /// [`Runner::tap_gradient`] has the gradients of what lies before. Parameters get none. Needs a plan of
    /// [`Mode::Gradient`].
    ///
    /// # Errors
    /// A layer without a tap.
    ///
    /// # Panics
    /// If the plan is of another mode.
    pub fn gradient_from(
        &mut self,
        parameters: &Parameters,
        layer: &str,
        seed: impl FnOnce(&[f32], &mut [f32]),
    ) -> Result<(), NetworkError> {
        assert_eq!(self.plan.mode, Mode::Gradient, "a gradient from a layer needs a plan of Mode::Gradient");
        let tap = self.plan.tap(layer).ok_or_else(|| NetworkError::UnknownLayer {
            name: layer.into(),
            available: self.plan.taps.iter().map(|tap| tap.name.clone()).collect(),
        })?;
        let (start, places) = (tap.steps, [tap.values.clone(), tap.gradient.clone()]);
        self.forward(parameters, None, |_, _, _, _| ());
        let arena = &mut *self.arena;
        // What comes later does not count: its share of every gradient is zero.
        for step in self.plan.steps[start..].iter().rev() {
            if let Some(places) = &step.backward {
                for gradient in [&places.input, &places.other].into_iter().filter(|gradient| !gradient.accumulate) {
                    arena[gradient.place.clone()].fill(0.0);
                }
            }
        }
        let [values, gradient] = disjoint(arena, places);
        seed(values, gradient);
        for step in self.plan.steps[..start].iter().rev() {
            if let Some(places) = &step.backward {
                let gradients = &mut self.discarded[..step.parameters.len()];
                backward(step, places, arena, parameters.as_slice(), false, gradients);
            }
        }
        Ok(())
    }

    fn finish(&self, loss: crate::kernels::softmax::Loss) -> StepResult {
        StepResult { loss: (loss.sum / self.plan.batch as f64) as f32, correct: loss.correct }
    }

    /// `watch` is told of each phase of each step when it is done, with the arena and the step's parameter gradients.
    fn forward(
        &mut self,
        parameters: &Parameters,
        key: Option<StepKey>,
        mut watch: impl FnMut(Phase, usize, &[f32], &[f32]),
    ) {
        let arena = &mut *self.arena;
        let training = self.plan.mode == Mode::Training;
        let fresh = self.revision.replace(parameters.revision()) == Some(parameters.revision());
        for (i, step) in self.plan.steps.iter().enumerate() {
            if !step.prepared.is_empty() && (training || !fresh) {
                prepare(step, arena, parameters.as_slice());
                watch(Phase::Prepare, i, &[], &[]);
            }
            forward(step, arena, parameters.as_slice(), training && !step.is_frozen(), key);
            watch(Phase::Forward, i, arena, &[]);
        }
    }
}

/// What the forward pass of one step reads of its parameters.
fn prepare(step: &Step, arena: &mut [f32], parameters: &[f32]) {
    step.operator.prepare(&parameters[step.parameters.clone()], &mut arena[step.prepared.clone()]);
}

/// The forward pass of one step.
fn forward(step: &Step, arena: &mut [f32], parameters: &[f32], training: bool, key: Option<StepKey>) {
    let places = [&step.input, &step.other, &step.output, &step.saved, &step.prepared, &step.forward_workspace];
    let [input, other, output, saved, prepared, workspace] = disjoint(arena, places.map(Range::clone));
    step.operator.forward(Forward {
        parameters: &parameters[step.parameters.clone()],
        prepared,
        input,
        other,
        output,
        training,
        saved,
        workspace,
        random: key.map(|key| step_random(key.seed, key.step, step.layer)),
    });
}

/// The backward pass of one step.
fn backward(
    step: &Step,
    places: &BackwardPlaces,
    arena: &mut [f32],
    parameters: &[f32],
    training: bool,
    parameter_gradient: &mut [f32],
) {
    let only = |keeps: bool, range: &Range<usize>| if keeps { range.clone() } else { 0..0 };
    let [input, other, output, saved, output_gradient, input_gradient, other_gradient, workspace] = disjoint(
        arena,
        [
            only(step.operator.keeps_input(), &step.input),
            only(step.operator.keeps_other(), &step.other),
            only(step.operator.keeps_output(), &step.output),
            step.saved.clone(),
            places.output_gradient.clone(),
            places.input.place.clone(),
            places.other.place.clone(),
            places.workspace.clone(),
        ],
    );
    step.operator.backward(Backward {
        parameters: &parameters[step.parameters.clone()],
        input,
        other,
        output,
        training,
        saved,
        output_gradient,
        input_gradient: Gradient { values: input_gradient, accumulate: places.input.accumulate },
        other_gradient: Gradient { values: other_gradient, accumulate: places.other.accumulate },
        parameter_gradient,
        workspace,
    });
}

/// Several places of the arena at once; the plan never makes two that are alive together overlap.
fn disjoint<const N: usize>(arena: &mut [f32], places: [Range<usize>; N]) -> [&mut [f32]; N] {
    arena.get_disjoint_mut(places).expect("the plan's places are disjoint")
}
