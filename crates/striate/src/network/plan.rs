//! A plan: a network compiled for one batch size.
//!
//! Every shape is checked here, every fusion chosen, and every buffer given a place in one arena, so that running the
//! plan neither allocates nor checks. Buffers that are never alive at the same time share their place.

use super::description::{Node, Source};
use super::taps::Taps;
use super::{Description, NetworkError};
use crate::buffer::CACHE_LINE;
use crate::layers::{ConcatOperator, Layer, Operator, ReluRule, Rule};
use crate::shape::{Shape, ShapeError, checked_product};
use std::ops::{Range, RangeInclusive};

/// What a plan is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Forward only: predictions, and the loss.
    Inference,
    /// Forward and backward.
    Training,
    /// Forward as for [`Mode::Inference`], and the gradients that [`Taps`] ask for: what a prediction follows from.
    Gradient,
}

impl Mode {
    fn runs_backward(self) -> bool {
        self != Mode::Inference
    }
}

/// How a plan for inference keeps the weights it reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Weights {
    /// As they are.
    #[default]
    F32,
    /// Fully connected layers so large that reading them takes the time: in bfloat16, rounded to 8 bits of mantissa; half
    /// the bytes. Other layers stay as they are.
    Bf16,
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
    /// Whether its parameters change while training.
    learns: bool,
    /// What the operator prepares of its parameters for the forward pass: while they change, just before it; else once.
    pub(super) prepared: Range<usize>,
    pub(super) input: Range<usize>,
    /// The second input; empty for most.
    pub(super) other: Range<usize>,
    pub(super) output: Range<usize>,
    pub(super) saved: Range<usize>,
    pub(super) forward_workspace: Range<usize>,
    pub(super) backward: Option<BackwardPlaces>,
    /// The values that the places above are of.
    values: Values,
    /// Floating-point operations of its layers forward, for the batch.
    flops: u64,
}

/// Which values a step reads and writes.
#[derive(Clone, Copy, Debug)]
struct Values {
    input: usize,
    other: Option<usize>,
    output: usize,
    /// Position of the last layer that the step does.
    yields: usize,
}

/// Where the backward pass of a step works.
#[derive(Debug, Default)]
pub(super) struct BackwardPlaces {
    pub(super) output_gradient: Range<usize>,
    pub(super) input: GradientPlace,
    pub(super) other: GradientPlace,
    pub(super) workspace: Range<usize>,
}

impl Step {
    /// Whether it runs as for predictions in a plan for training.
    pub(super) fn is_frozen(&self) -> bool {
        !self.parameters.is_empty() && !self.learns
    }
}

impl BackwardPlaces {
    /// The same without the gradients of the inputs.
    pub(super) fn without_inputs(&self) -> Self {
        Self { output_gradient: self.output_gradient.clone(), workspace: self.workspace.clone(), ..Self::default() }
    }
}

/// Where the gradient of an input goes.
#[derive(Clone, Debug, Default)]
pub(super) struct GradientPlace {
    /// Empty where nobody needs it: nothing before this step learns.
    pub(super) place: Range<usize>,
    /// Whether a later step has already written its part.
    pub(super) accumulate: bool,
}

impl GradientPlace {
    fn is_wanted(&self) -> bool {
        !self.place.is_empty()
    }
}

/// A network compiled for one batch size and mode.
#[derive(Debug)]
pub struct Plan {
    pub(super) mode: Mode,
    pub(super) batch: usize,
    pub(super) classes: usize,
    pub(super) steps: Vec<Step>,
    pub(super) input: Range<usize>,
    pub(super) logits: Range<usize>,
    pub(super) logits_gradient: Range<usize>,
    pub(super) arena: usize,
    pub(super) parameters: usize,
    pub(super) taps: Vec<Tap>,
}

/// A layer's output that is kept to the end of a run.
#[derive(Debug)]
pub(super) struct Tap {
    pub(super) name: String,
    value: usize,
    /// How many steps there are up to the one that computes it.
    pub(super) steps: usize,
    pub(super) values: Range<usize>,
    /// Empty in a plan for inference.
    pub(super) gradient: Range<usize>,
}

/// The network's input among a plan's values.
const INPUT_VALUE: usize = 0;

impl Plan {
    /// Compiles `description` for batches of `batch` samples.
    ///
    /// # Errors
    /// A layer that does not fit where it stands, or a batch of 0 or beyond any memory.
    pub fn new(description: &Description, batch: usize, mode: Mode) -> Result<Self, NetworkError> {
        Self::with_taps(description, batch, mode, &Taps::default())
    }

    /// Compiles `description` for predictions with weights kept as `weights` says.
    ///
    /// ```
    /// use striate::network::{Plan, Weights};
    /// let description = striate::models::build("alexnet-torchvision", &Default::default())?;
    /// let plan = Plan::inference(&description, 1, Weights::Bf16)?;
    /// assert_eq!(plan.steps().filter(|step| step.method.contains("bfloat16")).count(), 3);
    /// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
    /// ```
    ///
    /// # Errors
    /// As for [`Plan::new`].
    pub fn inference(description: &Description, batch: usize, weights: Weights) -> Result<Self, NetworkError> {
        Self::build(description, batch, Mode::Inference, &Taps::default(), weights, &|_| true)
    }

    /// [`Plan::new`] with outputs (and gradients, if the mode has a backward pass) of some layers kept to the end of a run.
    ///
    /// # Errors
    /// As for [`Plan::new`], or a tap at a layer that is not there.
    pub fn with_taps(description: &Description, batch: usize, mode: Mode, taps: &Taps) -> Result<Self, NetworkError> {
        Self::build(description, batch, mode, taps, Weights::F32, &|_| true)
    }

    /// Compiles `description` for training all layers but those that `is_frozen` says, by their positions. Frozen layers
    /// run as for predictions, batch normalisations by their running statistics; where nothing before a layer learns, no
    /// gradient is computed. The places of the gradients of frozen parameters hold nothing of meaning.
    ///
    /// # Errors
    /// As for [`Plan::new`].
    pub fn training(
        description: &Description,
        batch: usize,
        is_frozen: impl Fn(usize) -> bool,
    ) -> Result<Self, NetworkError> {
        let learns = |layer| !is_frozen(layer);
        Self::build(description, batch, Mode::Training, &Taps::default(), Weights::F32, &learns)
    }

    fn build(
        description: &Description,
        batch: usize,
        mode: Mode,
        taps: &Taps,
        weights: Weights,
        learns: &dyn Fn(usize) -> bool,
    ) -> Result<Self, NetworkError> {
        if batch == 0 {
            return Err(ShapeError::Empty { what: "the batch", found: vec![0] }.into());
        }
        description.input.checked_len(batch)?;
        let nodes = description.nodes()?;
        let mut taps_at = taps.find(&nodes)?;
        let last = nodes.len() - 1;
        if mode == Mode::Gradient && !taps_at.iter().any(|&(_, source)| source == Source::Layer(last)) {
            // Where the backward pass begins, unless it is told otherwise.
            taps_at.push((&nodes[last].named.name, Source::Layer(last)));
        }
        let mut builder = Builder::new(&nodes, batch, mode, taps.rule(), learns);
        builder.tap(&taps_at);
        builder.lens.push(description.input.checked_len(batch)?);
        for (i, node) in nodes.iter().enumerate() {
            node.output.checked_len(batch).map_err(|source| node.named.error(source))?;
            builder.add(i, node).map_err(|source| node.named.error(source))?;
        }
        let logits = builder.values.last().copied().unwrap_or(INPUT_VALUE);
        let taps = taps_at
            .iter()
            .map(|&(name, source)| {
                let value = builder.value(source);
                let steps = builder.steps.iter().rposition(|step| step.values.output == value).map_or(0, |at| at + 1);
                Tap { name: name.into(), value, steps, values: 0..0, gradient: 0..0 }
            })
            .collect();
        let Builder { mut steps, lens, parameter, .. } = builder;
        if weights == Weights::Bf16 {
            steps.iter_mut().for_each(|step| step.operator.round_weights());
        }
        let mut plan = Self {
            mode,
            batch,
            classes: nodes.last().map_or(0, |node| node.output.len()),
            steps,
            input: 0..0,
            logits: 0..0,
            logits_gradient: 0..0,
            arena: 0,
            parameters: parameter,
            taps,
        };
        plan.place(&lens, logits);
        Ok(plan)
    }

    /// Gives every buffer its place. Forward of step `i` runs at time `i`, the loss at `n`, backward of step `i` at `2n - i`.
    fn place(&mut self, lens: &[usize], logits: usize) {
        let n = self.steps.len();
        let (training, has_backward) = (self.mode == Mode::Training, self.mode.runs_backward());
        let backward_time = |i: usize| 2 * n - i;
        let mut tapped = vec![false; lens.len()];
        self.taps.iter().for_each(|tap| tapped[tap.value] = true);
        // A value needs a gradient if it has a tap or something before it learns; a step runs backward if it learns or
        // one of its inputs needs a gradient.
        let mut learns: Vec<bool> = tapped.iter().map(|&tapped| tapped && has_backward).collect();
        let mut runs_backward = vec![false; n];
        for (i, step) in self.steps.iter().enumerate() {
            let v = &step.values;
            let before = learns[v.input] || v.other.is_some_and(|other| learns[other]);
            runs_backward[i] = has_backward && before || training && step.learns;
            learns[v.output] |= runs_backward[i];
        }
        let mut requests = Requests::default();
        let end = if has_backward { 2 * n } else { n };
        let mut alive = vec![(usize::MAX, 0); lens.len()];
        // The last step that reads a value and runs backward, and the first that writes it.
        let (mut last, mut first) = (vec![None; lens.len()], vec![None; lens.len()]);
        let mut at = |value: usize, time: usize| {
            let (from, to): (usize, usize) = alive[value];
            alive[value] = (from.min(time), to.max(time));
        };
        at(INPUT_VALUE, 0);
        for value in (0..lens.len()).filter(|&value| value == INPUT_VALUE || value == logits || tapped[value]) {
            // Written by the caller before the run, or read by them after it.
            at(value, end);
        }
        for (i, step) in self.steps.iter().enumerate() {
            let Values { input, other, output, .. } = step.values;
            let operator = &step.operator;
            let uses = [(Some(output), operator.keeps_output()), (Some(input), operator.keeps_input())];
            for (value, kept) in uses.into_iter().chain([(other, operator.keeps_other())]) {
                let Some(value) = value else { continue };
                at(value, i);
                if kept && runs_backward[i] {
                    at(value, backward_time(i));
                }
            }
            first[output] = first[output].or(Some(i));
            if runs_backward[i] {
                [Some(input), other].into_iter().flatten().for_each(|value| last[value] = Some(i));
            }
        }
        let places: Vec<usize> =
            alive.iter().zip(lens).map(|(&(from, to), &len)| requests.add(len, from.min(to)..=to)).collect();
        // A gradient lives from the last step that reads the value, which runs backward first, to the first that writes it.
        let gradients: Vec<Option<usize>> = (0..lens.len())
            .map(|value| {
                if !learns[value] {
                    return None;
                }
                let born = if value == logits { n } else { backward_time(last[value]?) };
                let dies = if tapped[value] { end } else { backward_time(first[value]?) };
                Some(requests.add(lens[value], born..=dies))
            })
            .collect();
        let of_steps: Vec<[usize; 4]> = self
            .steps
            .iter()
            .enumerate()
            .map(|(i, step)| {
                let operator = &step.operator;
                let saved_until = if runs_backward[i] { backward_time(i) } else { i };
                let input_gradient = gradients[step.values.input].is_some();
                let workspace = if runs_backward[i] { operator.backward_workspace(input_gradient) } else { 0 };
                [
                    requests.add(if has_backward { operator.saved() } else { 0 }, i..=saved_until),
                    requests.add(operator.forward_workspace(), i..=i),
                    requests.add(workspace, backward_time(i)..=backward_time(i)),
                    requests.add(operator.prepared(), if training { i..=i } else { 0..=end }),
                ]
            })
            .collect();
        let (arena, ranges) = requests.place();
        self.arena = arena;
        self.input = ranges[places[INPUT_VALUE]].clone();
        self.logits = ranges[places[logits]].clone();
        self.logits_gradient = gradients[logits].map_or(0..0, |g| ranges[g].clone());
        for tap in &mut self.taps {
            tap.values = ranges[places[tap.value]].clone();
            tap.gradient = gradients[tap.value].map_or(0..0, |g| ranges[g].clone());
        }
        let mut written = vec![false; lens.len()];
        written[logits] = true;
        for i in (0..n).rev() {
            let step = &mut self.steps[i];
            let Values { input, other, output, .. } = step.values;
            let [saved, forward, backward, prepared] = of_steps[i];
            step.input = ranges[places[input]].clone();
            step.other = other.map_or(0..0, |other| ranges[places[other]].clone());
            step.output = ranges[places[output]].clone();
            step.saved = ranges[saved].clone();
            step.forward_workspace = ranges[forward].clone();
            step.prepared = ranges[prepared].clone();
            if runs_backward[i] {
                let mut place = |value: Option<usize>| match value.and_then(|v| Some((v, gradients[v]?))) {
                    None => GradientPlace::default(),
                    Some((value, gradient)) => GradientPlace {
                        place: ranges[gradient].clone(),
                        accumulate: std::mem::replace(&mut written[value], true),
                    },
                };
                step.backward = Some(BackwardPlaces {
                    input: place(Some(input)),
                    other: place(other),
                    output_gradient: gradients[output].map_or(0..0, |g| ranges[g].clone()),
                    workspace: ranges[backward].clone(),
                });
            }
        }
    }

    /// Samples in a batch.
    pub fn batch(&self) -> usize {
        self.batch
    }

    pub(super) fn tap(&self, layer: &str) -> Option<&Tap> {
        self.taps.iter().find(|tap| tap.name == layer)
    }

    /// Number of logits a sample.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// What runs, in order: each fused operator's layers, joined by `+`.
    pub fn step_names(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().map(|s| s.name.as_str())
    }

    /// What runs, in order, with how each works on its sizes and why.
    pub fn steps(&self) -> impl Iterator<Item = StepSummary> {
        let bytes = |place: &Range<usize>| size_of::<f32>() * place.len();
        self.steps.iter().map(move |step| StepSummary {
            name: step.name.clone(),
            output: step.operator.output(),
            method: step.operator.method(),
            flops: step.flops,
            input_bytes: bytes(&step.input) + bytes(&step.other),
            output_bytes: bytes(&step.output),
            parameter_bytes: bytes(&step.parameters),
            input_gradient: step.backward.as_ref().is_some_and(|b| b.input.is_wanted() || b.other.is_wanted()),
            parameter_gradient: step.backward.is_some() && !step.parameters.is_empty(),
            workspace_bytes: size_of::<f32>()
                * step.forward_workspace.len().max(step.backward.as_ref().map_or(0, |b| b.workspace.len())),
            prepared_bytes: size_of::<f32>() * step.prepared.len(),
        })
    }

    /// Bytes of the arena: all activations, gradients between layers, prepared weights and workspace.
    pub fn arena_bytes(&self) -> usize {
        self.arena * size_of::<f32>()
    }

    /// Bytes of the arena and the parameters; while training, also of their gradients.
    pub fn peak_bytes(&self) -> usize {
        let copies = if self.mode == Mode::Training { 2 } else { 1 };
        self.arena_bytes() + copies * self.parameters * size_of::<f32>()
    }
}

/// One line of [`Plan::steps`].
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct StepSummary {
    /// Names of the layers it does, joined by `+`.
    pub name: String,
    /// One output sample.
    pub output: Shape,
    /// How it works and why; empty where there is only one way.
    pub method: String,
    /// Floating-point operations of its forward pass for the batch, as the definitions of its layers count them (a
    /// multiply-add is two).
    pub flops: u64,
    /// Bytes of the batch that it reads: all its inputs.
    pub input_bytes: usize,
    /// Bytes of the batch that it writes.
    pub output_bytes: usize,
    /// Bytes of its parameters.
    pub parameter_bytes: usize,
    /// Whether its backward pass computes the gradient of an input.
    pub input_gradient: bool,
    /// Whether its backward pass computes the gradients of parameters.
    pub parameter_gradient: bool,
    /// Bytes of workspace, for the pass that needs more.
    pub workspace_bytes: usize,
    /// Bytes of parameters in the form that the forward pass reads.
    pub prepared_bytes: usize,
}

/// Turns layers into steps.
struct Builder<'a> {
    nodes: &'a [Node<'a>],
    batch: usize,
    mode: Mode,
    relu: ReluRule,
    /// Whether the parameters of the layer at a position change while training.
    learns: &'a dyn Fn(usize) -> bool,
    steps: Vec<Step>,
    /// Numbers of each value.
    lens: Vec<usize>,
    /// The value of each layer's output.
    values: Vec<usize>,
    /// For each layer, the layer whose output its own is a view of: itself for most.
    roots: Vec<Source>,
    /// How many steps read each layer's output.
    readers: Vec<usize>,
    /// Where the next layer's parameters begin.
    parameter: usize,
}

impl<'a> Builder<'a> {
    fn new(nodes: &'a [Node<'a>], batch: usize, mode: Mode, relu: ReluRule, learns: &'a dyn Fn(usize) -> bool) -> Self {
        let training = mode == Mode::Training;
        let mut roots: Vec<Source> = Vec::with_capacity(nodes.len());
        let mut readers = vec![0; nodes.len()];
        let last = nodes.len() - 1;
        for (i, node) in nodes.iter().enumerate() {
            let root = |source: &Source| match source {
                Source::Input => Source::Input,
                Source::Layer(j) => roots[*j],
            };
            let sources: Vec<Source> = node.sources.iter().map(root).collect();
            let softmax_at_the_end = i == last && matches!(node.named.layer, Layer::Softmax(_));
            if node.named.layer.rule().is_view(training) || softmax_at_the_end {
                roots.push(sources.first().copied().unwrap_or(Source::Input));
                continue;
            }
            for source in sources {
                if let Source::Layer(j) = source {
                    readers[j] += 1;
                }
            }
            roots.push(Source::Layer(i));
        }
        if let Some(Source::Layer(j)) = roots.last() {
            readers[*j] += 1;
        }
        Self {
            nodes,
            batch,
            mode,
            relu,
            learns,
            steps: Vec::new(),
            lens: Vec::new(),
            values: Vec::new(),
            roots,
            readers,
            parameter: 0,
        }
    }

    /// Counts the reader of a tap as one more: nothing is absorbed into a step whose output others read.
    fn tap(&mut self, taps: &[(&str, Source)]) {
        for (_, source) in taps {
            if let Source::Layer(j) = source
                && let Source::Layer(root) = self.roots[*j]
            {
                self.readers[root] += 1;
            }
        }
    }

    /// The value that a source's numbers are in.
    fn value(&self, source: Source) -> usize {
        match source {
            Source::Input => INPUT_VALUE,
            Source::Layer(j) => self.values[j],
        }
    }

    /// The step that yields a source as its last layer, if nobody but one reader reads it.
    fn only_reader_of(&self, source: Source) -> Option<usize> {
        let root = match source {
            Source::Layer(j) => self.roots[j],
            Source::Input => Source::Input,
        };
        let Source::Layer(j) = root else { return None };
        (self.readers[j] == 1).then(|| self.steps.iter().position(|step| step.values.yields == j)).flatten()
    }

    /// Adds layer `i`, as a step of its own or at the end of another.
    fn add(&mut self, i: usize, node: &Node<'_>) -> Result<(), ShapeError> {
        self.add_step(i, node)?;
        let flops = node.named.layer.rule().flops(node.input)?.saturating_mul(self.batch as u64);
        if let Some(step) = self.steps.iter_mut().rfind(|step| step.values.yields == i) {
            step.flops = step.flops.saturating_add(flops);
        }
        Ok(())
    }

    fn add_step(&mut self, i: usize, node: &Node<'_>) -> Result<(), ShapeError> {
        let rule = node.named.layer.rule();
        let backward = self.mode.runs_backward();
        let mut parameters = self.parameter..self.parameter;
        for wanted in rule.parameters(node.input)? {
            parameters.end += checked_product(&wanted.shape)?;
        }
        self.parameter = parameters.end;
        let inputs: Vec<usize> = node.sources.iter().map(|&source| self.value(source)).collect();
        let first = inputs.first().copied().unwrap_or(INPUT_VALUE);
        if self.roots[i] != Source::Layer(i) {
            self.values.push(first);
            return Ok(());
        }
        match &node.named.layer {
            Layer::Concat(_) => {
                let output = self.new_value(node.output);
                let mut channel = 0;
                for (part, &source) in node.sources.iter().enumerate() {
                    let shape = self.shape(source);
                    let operator = Box::new(ConcatOperator::new(shape, node.output, channel));
                    let name = format!("{} {}/{}", node.named.name, part + 1, node.sources.len());
                    let values = Values { input: inputs[part], other: None, output, yields: i };
                    self.push(name, i, operator, parameters.clone(), values);
                    channel += shape.channels;
                }
                self.values.push(output);
            }
            Layer::Add(_) | Layer::Arithmetic(_) => self.add_sum(i, node, &inputs)?,
            Layer::Relu(_) if self.relu != ReluRule::Gradient => {
                let output = self.new_value(node.output);
                let values = Values { input: first, other: None, output, yields: i };
                let operator = self.relu.operator(node.input, self.batch)?;
                self.push(node.named.name.clone(), i, operator, parameters, values);
                self.values.push(output);
            }
            layer => {
                if let Some(at) = node.sources.first().and_then(|&source| self.only_reader_of(source))
                    && let step = &mut self.steps[at]
                    && (parameters.is_empty()
                        || step.parameters.end == parameters.start && step.learns == (self.learns)(i))
                    && step.operator.absorb(layer, backward)
                {
                    step.parameters.end = step.parameters.end.max(parameters.end);
                    return self.absorbed(at, i, node);
                }
                let output = self.new_value(node.output);
                let values = Values { input: first, other: None, output, yields: i };
                let operator = rule.operator(node.input, self.batch)?;
                self.push(node.named.name.clone(), i, operator, parameters, values);
                self.values.push(output);
            }
        }
        Ok(())
    }

    /// A layer of two inputs; a sum at the end of the step that computes the later of them, if it can.
    fn add_sum(&mut self, i: usize, node: &Node<'_>, inputs: &[usize]) -> Result<(), ShapeError> {
        let &[a, mut b] = inputs else { return Err(crate::layers::inputs_error(inputs.len(), "2")) };
        let made_by = |value: usize| self.steps.iter().rposition(|step| step.values.output == value);
        // The later input's step can read the earlier input: it is there by then.
        let (later, earlier) = if made_by(a) >= made_by(b) { (0, b) } else { (1, a) };
        if a != b
            && matches!(node.named.layer, Layer::Add(_))
            && let Some(at) = self.only_reader_of(node.sources[later])
            && let step = &mut self.steps[at]
            && step.values.other.is_none()
            && step.values.input != earlier
            && step.operator.absorb_sum()
        {
            step.values.other = Some(earlier);
            return self.absorbed(at, i, node);
        }
        if a == b {
            // A step's inputs must be two places.
            b = self.new_value(node.output);
            let operator = Box::new(ConcatOperator::new(node.output, node.output, 0));
            let values = Values { input: a, other: None, output: b, yields: usize::MAX };
            self.push(format!("{} copy", node.named.name), i, operator, 0..0, values);
        }
        let output = self.new_value(node.output);
        let shapes: Vec<Shape> = node.sources.iter().map(|&source| self.shape(source)).collect();
        let operator = node.named.layer.rule().join_operator(&shapes, self.batch)?;
        let values = Values { input: a, other: Some(b), output, yields: i };
        self.push(node.named.name.clone(), i, operator, self.parameter..self.parameter, values);
        self.values.push(output);
        Ok(())
    }

    /// Notes that step `at` now ends with layer `i`.
    fn absorbed(&mut self, at: usize, i: usize, node: &Node<'_>) -> Result<(), ShapeError> {
        let step = &mut self.steps[at];
        step.name = format!("{}+{}", step.name, node.named.name);
        step.values.yields = i;
        self.lens[step.values.output] = node.output.checked_len(self.batch)?;
        self.values.push(step.values.output);
        Ok(())
    }

    fn shape(&self, source: Source) -> Shape {
        match source {
            Source::Layer(j) => self.nodes[j].output,
            // Only a network's first layers read its input: the first node's input is it.
            Source::Input => self.nodes[0].input,
        }
    }

    fn new_value(&mut self, shape: Shape) -> usize {
        self.lens.push(self.batch * shape.len());
        self.lens.len() - 1
    }

    fn push(
        &mut self,
        name: String,
        layer: usize,
        operator: Box<dyn Operator>,
        parameters: Range<usize>,
        values: Values,
    ) {
        let learns = !parameters.is_empty() && (self.learns)(layer);
        self.steps.push(Step {
            name,
            layer,
            operator,
            parameters,
            learns,
            prepared: 0..0,
            input: 0..0,
            other: 0..0,
            output: 0..0,
            saved: 0..0,
            forward_workspace: 0..0,
            backward: None,
            values,
            flops: 0,
        });
    }
}

/// Buffers to be placed, each with the time it is alive.
#[derive(Default)]
struct Requests(Vec<(usize, RangeInclusive<usize>)>);

impl Requests {
    /// A buffer of `len` numbers that is alive for a time; gives its position among the requests.
    fn add(&mut self, len: usize, alive: RangeInclusive<usize>) -> usize {
        self.0.push((len, alive));
        self.0.len() - 1
    }

    /// The arena's length and every buffer's place, `0..0` for the empty. The largest are placed first: what is small
    /// finds room between them.
    fn place(self) -> (usize, Vec<Range<usize>>) {
        let mut order: Vec<usize> = (0..self.0.len()).collect();
        order.sort_by_key(|&i| (std::cmp::Reverse(self.0[i].0), i));
        let mut arena = Arena::default();
        let mut places = vec![0..0; self.0.len()];
        for i in order {
            let (len, alive) = &self.0[i];
            places[i] = arena.place(*len, alive.clone());
        }
        (arena.len, places)
    }
}

/// First fit over what is alive at the same time.
#[derive(Default)]
struct Arena {
    placed: Vec<(Range<usize>, RangeInclusive<usize>)>,
    len: usize,
}

impl Arena {
    /// A place for `len` numbers while `alive`; `0..0` for none.
    fn place(&mut self, len: usize, alive: RangeInclusive<usize>) -> Range<usize> {
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
            start = start.max(range.end.next_multiple_of(CACHE_LINE));
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
        assert!(plan.steps[0].backward.as_ref().unwrap().input.place.is_empty(), "the first layer's input needs none");
        let inference = Plan::new(&description, 100, Mode::Inference).unwrap();
        assert!(inference.arena_bytes() < plan.arena_bytes());
    }

    #[test]
    fn below_the_first_layer_that_learns_nothing_runs_backward() {
        let description = SimpleConvNet::default().description();
        let backward = |frozen: &[usize]| {
            let plan = Plan::training(&description, 10, |layer| frozen.contains(&layer)).unwrap();
            let gradients = plan.steps().map(|step| (step.input_gradient, step.parameter_gradient));
            (gradients.collect::<Vec<_>>(), plan.arena_bytes())
        };
        let (all, most) = backward(&[]);
        assert_eq!(all, [(false, true), (true, true), (true, true)]);
        // Conv1 and Affine1 are the first and the fourth layer.
        let (last, least) = backward(&[0, 3]);
        assert_eq!(last, [(false, false), (false, false), (false, true)]);
        assert!(least < most, "{least} of {most}");
        let (ends, _) = backward(&[3]);
        assert_eq!(ends, all);
        let (nothing, _) = backward(&[0, 3, 5]);
        assert_eq!(nothing, [(false, false); 3]);
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
                prop_assert!(range.start % CACHE_LINE == 0 && range.end <= arena.len.max(range.end));
                for (other, from, to) in &placed {
                    let together = *from <= birth + life && birth <= *to;
                    prop_assert!(!together || len == 0 || other.is_empty() || range.end <= other.start || other.end <= range.start);
                }
                placed.push((range, birth, birth + life));
            }
        }
    }
}
