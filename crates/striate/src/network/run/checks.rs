//! Plans under suspicion: networks drawn by a seed, and all of the zoo.
//!
//! [`Story::of`] reckons, from the description alone, what each pass of a plan has to read and write, and follows number by
//! number what the arena holds: no place is read that does not hold the very value that the graph asks for. It shares no code
//! with the planner's lifetimes. [`Story::run_poisoned`] then runs the plan with everything that nobody will read again
//! overwritten before each pass of each step: the bits must be those of a plain run, and nothing may change that the pass
//! was not to write.

use super::super::description::{Node, Source};
use super::super::plan::{Mode, Plan, Step, Weights};
use super::super::{Description, Network, NetworkError, Parameters, Taps};
use super::{Runner, StepKey, backward, disjoint, forward, prepare};
use crate::buffer::CACHE_LINE;
use crate::kernels::softmax::cross_entropy;
use crate::layers::{
    AdaptivePoolingOptions, AddOptions, AffineOptions, BatchNormOptions, ClipOptions, ConcatOptions,
    ConvolutionOptions, DropoutOptions, FlattenOptions, GeluOptions, HardSwishOptions, Init, Layer, LeakyReluOptions,
    LocalResponseNormOptions, PoolingOptions, ReluOptions, Role, SigmoidOptions, SiluOptions, SoftmaxOptions,
    TanhOptions,
};
use crate::models;
use crate::random::{Purpose, Random};
use crate::shape::{Padding, Rounding, Shape, Window};
use std::ops::Range;

/// NaN shows in any arithmetic; the other two show where a maximum or a comparison would swallow it.
const POISONS: [f32; 3] = [f32::NAN, 3e38, -3e38];

const KEY: StepKey = StepKey { seed: 7, step: 3 };

/// An array that a step computes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Value {
    Input,
    Layer(usize),
    /// The second place of an input that a sum takes twice.
    Copy(usize),
}

/// What a number of the arena is part of.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Holds {
    Nothing,
    Value(Value),
    /// A concatenation with so many inputs copied.
    Parts(Value, usize),
    /// A gradient with the shares of so many readers of the value.
    Gradient(Value, usize),
    Saved(usize),
    Prepared(usize),
    Workspace,
}

#[derive(Clone, Copy, Debug)]
enum Pass {
    Prepare(usize),
    Forward(usize),
    Loss,
    /// A gradient after the layer that the backward pass begins at is put to zero.
    Clear,
    /// The gradient that the backward pass begins with.
    Seed,
    Backward(usize),
}

/// A pass with the places it reads and writes. One that it adds to is among both.
struct Event {
    pass: Pass,
    reads: Vec<(Range<usize>, Holds)>,
    writes: Vec<(Range<usize>, Holds)>,
    /// What nobody reads before it is written again, when the pass begins.
    dead: Vec<Range<usize>>,
}

impl Event {
    fn new(pass: Pass) -> Self {
        Self { pass, reads: Vec::new(), writes: Vec::new(), dead: Vec::new() }
    }

    fn reads(&mut self, range: &Range<usize>, holds: Holds) {
        self.reads.push((range.clone(), holds));
    }

    fn writes(&mut self, range: &Range<usize>, holds: Holds) {
        self.writes.push((range.clone(), holds));
    }
}

/// All passes of a plan in order.
struct Story {
    events: Vec<Event>,
    taps: Vec<(Range<usize>, Holds)>,
}

/// Layers of the description, by the value that their output is in.
struct Graph<'a> {
    nodes: &'a [Node<'a>],
    /// Whether a layer is in some step; the others are views.
    runs: Vec<bool>,
}

impl Graph<'_> {
    fn value(&self, source: Source) -> Value {
        match source {
            Source::Input => Value::Input,
            Source::Layer(j) if self.runs[j] => Value::Layer(j),
            Source::Layer(j) => {
                let layer = &self.nodes[j].named.layer;
                assert!(matches!(layer, Layer::Flatten(_) | Layer::Dropout(_) | Layer::Softmax(_)), "{layer:?}");
                self.value(self.nodes[j].sources[0])
            }
        }
    }

    /// What a step reads and yields, from its name: `Conv1+Relu1`, `Concat 2/3`, `Add copy`.
    fn reading(&self, name: &str) -> Reading {
        let (first, part) = match name.split_once(' ') {
            Some((layer, rest)) => (layer.to_owned(), Some(rest.to_owned())),
            None => (name.to_owned(), None),
        };
        let position = |name: &str| self.nodes.iter().position(|node| node.named.name == name).expect(name);
        if let Some(part) = part {
            if part == "copy" {
                let add = position(&first);
                return Reading {
                    input: self.value(self.nodes[add].sources[0]),
                    other: None,
                    output: Value::Copy(add),
                    part: None,
                };
            }
            let (part, rest) = part.split_once('/').expect(name);
            let (of, absorbed) = rest.split_once('+').map_or((rest, None), |(of, rest)| (of, Some(rest)));
            assert_eq!(absorbed, None, "nothing can be done in the pass that copies a part");
            let (concat, part) = (position(&first), part.parse::<usize>().unwrap() - 1);
            assert_eq!(of.parse::<usize>().unwrap(), self.nodes[concat].sources.len());
            let input = self.value(self.nodes[concat].sources[part]);
            return Reading { input, other: None, output: Value::Layer(concat), part: Some(part) };
        }
        let layers: Vec<usize> = name.split('+').map(position).collect();
        let sources = |layer: usize| self.nodes[layer].sources.iter().map(|&source| self.value(source));
        let mut inputs: Vec<Value> = sources(layers[0]).collect();
        if inputs.len() == 2 && inputs[0] == inputs[1] {
            inputs[1] = Value::Copy(layers[0]);
        }
        for pair in layers.windows(2) {
            let inside = Value::Layer(pair[0]);
            let mut others: Vec<Value> = sources(pair[1]).collect();
            let at = others.iter().position(|&value| value == inside).expect("a step is a chain of layers");
            others.remove(at);
            inputs.extend(others);
            // What never leaves the step's pass must have no other reader.
            let readers = (0..self.nodes.len()).filter(|&j| self.runs[j]).flat_map(sources);
            assert_eq!(readers.filter(|&value| value == inside).count(), 1, "{name}");
            assert_ne!(self.value(Source::Layer(self.nodes.len() - 1)), inside, "{name}");
        }
        assert!(inputs.len() <= 2, "{name}: {inputs:?}");
        Reading {
            input: inputs[0],
            other: inputs.get(1).copied(),
            output: Value::Layer(*layers.last().unwrap()),
            part: None,
        }
    }
}

#[derive(Clone, Copy)]
struct Reading {
    input: Value,
    other: Option<Value>,
    output: Value,
    /// Of a concatenation.
    part: Option<usize>,
}

impl Reading {
    fn inputs(&self) -> impl Iterator<Item = Value> {
        std::iter::once(self.input).chain(self.other)
    }
}

impl Story {
    /// Reckons the passes of a plan of `description` and checks its places. `learns` says which layers' parameters change;
    /// the backward pass of a plan of [`Mode::Gradient`] begins at the tap `from`.
    fn of(description: &Description, plan: &Plan, learns: &dyn Fn(usize) -> bool, from: &str) -> Self {
        let nodes = description.nodes().unwrap();
        let mut runs = vec![false; nodes.len()];
        for name in plan.step_names() {
            for layer in name.split('+').map(|layer| layer.split(' ').next().unwrap()) {
                runs[nodes.iter().position(|node| node.named.name == layer).expect(layer)] = true;
            }
        }
        let graph = Graph { nodes: &nodes, runs };
        let readings: Vec<Reading> = plan.step_names().map(|name| graph.reading(name)).collect();
        let last = graph.value(Source::Layer(nodes.len() - 1));
        let tap_value = |name: &str| match nodes.iter().position(|node| node.named.name == name) {
            Some(layer) => graph.value(Source::Layer(layer)),
            None => Value::Input,
        };

        // Which values have a gradient, and how many shares it is the sum of.
        let runs_backward = plan.mode != Mode::Inference;
        let tapped = |value: Value| runs_backward && plan.taps.iter().any(|tap| tap_value(&tap.name) == value);
        let mut with_gradient: Vec<Value> = Vec::new();
        let mut wanted: Vec<bool> = Vec::new();
        if tapped(Value::Input) {
            with_gradient.push(Value::Input);
        }
        for (step, reading) in plan.steps.iter().zip(&readings) {
            let learns = plan.mode == Mode::Training && !step.parameters.is_empty() && learns(step.layer);
            let wants = learns || runs_backward && reading.inputs().any(|value| with_gradient.contains(&value));
            wanted.push(wants);
            if (wants || tapped(reading.output)) && !with_gradient.contains(&reading.output) {
                with_gradient.push(reading.output);
            }
        }
        let has_gradient = |value: Value| with_gradient.contains(&value);
        let shares = |value: Value| {
            let readers = readings.iter().zip(&wanted).filter(|(_, wanted)| **wanted);
            readers.flat_map(|(reading, _)| reading.inputs()).filter(|&read| read == value).count()
                + usize::from(value == last)
        };

        let mut events = Vec::new();
        for (i, (step, reading)) in plan.steps.iter().zip(&readings).enumerate() {
            if !step.prepared.is_empty() {
                let mut event = Event::new(Pass::Prepare(i));
                event.writes(&step.prepared, Holds::Prepared(i));
                events.push(event);
            }
            let mut event = Event::new(Pass::Forward(i));
            event.reads(&step.prepared, Holds::Prepared(i));
            event.reads(&step.input, Holds::Value(reading.input));
            match reading.other {
                Some(other) => event.reads(&step.other, Holds::Value(other)),
                None => assert!(step.other.is_empty(), "{}", step.name),
            }
            match reading.part {
                None => event.writes(&step.output, Holds::Value(reading.output)),
                Some(part) => {
                    let Value::Layer(concat) = reading.output else { unreachable!() };
                    if part > 0 {
                        event.reads(&step.output, Holds::Parts(reading.output, part));
                    }
                    let whole = part + 1 == nodes[concat].sources.len();
                    let holds =
                        if whole { Holds::Value(reading.output) } else { Holds::Parts(reading.output, part + 1) };
                    event.writes(&step.output, holds);
                }
            }
            event.writes(&step.saved, Holds::Saved(i));
            event.writes(&step.forward_workspace, Holds::Workspace);
            events.push(event);
        }
        let gradient_place = |value: Value| {
            let writes = |(step, reading): (&Step, &Reading)| {
                let places = step.backward.as_ref()?;
                let slots = [(Some(reading.input), &places.input), (reading.other, &places.other)];
                slots.into_iter().find(|(read, _)| *read == Some(value)).map(|(_, gradient)| gradient.place.clone())
            };
            if value == last {
                plan.logits_gradient.clone()
            } else {
                plan.steps.iter().zip(&readings).find_map(writes).unwrap_or(0..0)
            }
        };
        let mut begun: Vec<(Value, usize)> = Vec::new();
        let mut share = |value: Value| {
            if !begun.iter().any(|(begun, _)| *begun == value) {
                begun.push((value, 0));
            }
            let found = begun.iter_mut().find(|(begun, _)| *begun == value).unwrap();
            found.1 += 1;
            found.1
        };
        let mut start = plan.steps.len();
        match plan.mode {
            Mode::Inference => {}
            Mode::Training => {
                let mut event = Event::new(Pass::Loss);
                event.reads(&plan.logits, Holds::Value(last));
                assert_eq!(plan.logits_gradient.is_empty(), !has_gradient(last));
                event.writes(&plan.logits_gradient, Holds::Gradient(last, share(last)));
                events.push(event);
            }
            Mode::Gradient => {
                let value = tap_value(from);
                start = readings.iter().rposition(|reading| reading.output == value).map_or(0, |at| at + 1);
                if value != last {
                    share(last);
                }
                let later = || plan.steps[start..].iter().zip(&readings[start..]);
                let mut clears = Vec::new();
                for (step, reading) in later().rev() {
                    let Some(places) = &step.backward else { continue };
                    for (read, gradient) in [(Some(reading.input), &places.input), (reading.other, &places.other)] {
                        if let (Some(read), false) = (read, gradient.place.is_empty()) {
                            share(read);
                            if !gradient.accumulate {
                                // As if all later readers had added theirs.
                                let readers = later().filter(|(step, _)| step.backward.is_some());
                                let shares = readers.flat_map(|(_, by)| by.inputs()).filter(|&v| v == read).count();
                                let mut clear = Event::new(Pass::Clear);
                                clear
                                    .writes(&gradient.place, Holds::Gradient(read, shares + usize::from(read == last)));
                                clears.push((readings[..start].iter().any(|by| by.output == read), clear));
                            }
                        }
                    }
                }
                // All is put to zero, so the order does not matter; what will be read comes last.
                clears.sort_by_key(|(matters, _)| *matters);
                events.extend(clears.into_iter().map(|(_, clear)| clear));
                let tap = plan.tap(from).unwrap();
                assert_eq!(tap.gradient, gradient_place(value));
                let mut seed = Event::new(Pass::Seed);
                seed.reads(&tap.values, Holds::Value(value));
                seed.writes(&tap.gradient, Holds::Gradient(value, shares(value)));
                events.push(seed);
            }
        }
        for (i, (step, reading)) in plan.steps.iter().zip(&readings).enumerate().rev() {
            assert_eq!(step.backward.is_some(), wanted[i], "{}", step.name);
            let Some(places) = &step.backward else { continue };
            if i >= start {
                continue;
            }
            let mut event = Event::new(Pass::Backward(i));
            if step.operator.keeps_input() {
                event.reads(&step.input, Holds::Value(reading.input));
            }
            if let (true, Some(other)) = (step.operator.keeps_other(), reading.other) {
                event.reads(&step.other, Holds::Value(other));
            }
            if step.operator.keeps_output() {
                event.reads(&step.output, Holds::Value(reading.output));
            }
            event.reads(&step.saved, Holds::Saved(i));
            event.reads(&places.output_gradient, Holds::Gradient(reading.output, shares(reading.output)));
            for (value, gradient) in [(Some(reading.input), &places.input), (reading.other, &places.other)] {
                let wanted = value.is_some_and(has_gradient);
                assert_eq!(wanted, !gradient.place.is_empty(), "{}", step.name);
                if let (Some(value), true) = (value, wanted) {
                    let shares = share(value);
                    assert_eq!(gradient.accumulate, shares > 1, "{}", step.name);
                    if gradient.accumulate {
                        event.reads(&gradient.place, Holds::Gradient(value, shares - 1));
                    }
                    event.writes(&gradient.place, Holds::Gradient(value, shares));
                }
            }
            event.writes(&places.workspace, Holds::Workspace);
            events.push(event);
        }
        let mut taps =
            vec![(plan.input.clone(), Holds::Value(Value::Input)), (plan.logits.clone(), Holds::Value(last))];
        if plan.mode != Mode::Training {
            // The next run reads it again.
            let prepared = plan.steps.iter().enumerate().map(|(i, step)| (step.prepared.clone(), Holds::Prepared(i)));
            taps.extend(prepared);
        }
        for tap in &plan.taps {
            let value = tap_value(&tap.name);
            taps.push((tap.values.clone(), Holds::Value(value)));
            // After the layer that the backward pass began at it means nothing.
            if runs_backward && tap.steps <= start {
                taps.push((tap.gradient.clone(), Holds::Gradient(value, shares(value))));
            }
        }
        let mut story = Self { events, taps };
        story.check(plan);
        story.find_dead(plan.arena);
        story
    }

    /// Follows what every number of the arena holds, and checks bounds and alignment.
    fn check(&self, plan: &Plan) {
        let mut arena = vec![Holds::Nothing; plan.arena];
        arena[plan.input.clone()].fill(Holds::Value(Value::Input));
        for event in &self.events {
            let what = format!("{:?} of {:?}", event.pass, plan.step_names().collect::<Vec<_>>());
            let mut places: Vec<&Range<usize>> = event.reads.iter().chain(&event.writes).map(|(at, _)| at).collect();
            places.retain(|place| !place.is_empty());
            places.sort_by_key(|place| (place.start, place.end));
            places.dedup();
            for place in &places {
                assert!(place.start.is_multiple_of(CACHE_LINE) && place.end <= plan.arena, "{what}: {place:?}");
            }
            for pair in places.windows(2) {
                assert!(pair[0].end <= pair[1].start, "{what}: {pair:?} overlap");
            }
            for (place, expected) in &event.reads {
                let wrong = arena[place.clone()].iter().find(|&holds| holds != expected);
                assert_eq!(wrong, None, "{what} reads {expected:?} at {place:?}");
            }
            for (place, holds) in &event.writes {
                arena[place.clone()].fill(*holds);
            }
        }
        for (place, expected) in &self.taps {
            let wrong = arena[place.clone()].iter().find(|&holds| holds != expected);
            assert_eq!(wrong, None, "at the end {place:?} should hold {expected:?}");
        }
    }

    /// Goes back through the passes: a number is alive if the next that happens to it is that it is read.
    fn find_dead(&mut self, arena: usize) {
        let mut alive = vec![false; arena];
        self.taps.iter().for_each(|(place, _)| alive[place.clone()].fill(true));
        for event in self.events.iter_mut().rev() {
            event.writes.iter().for_each(|(place, _)| alive[place.clone()].fill(false));
            event.reads.iter().for_each(|(place, _)| alive[place.clone()].fill(true));
            let mut at = 0;
            for run in alive.chunk_by(|a, b| a == b) {
                if !run[0] {
                    event.dead.push(at..at + run.len());
                }
                at += run.len();
            }
        }
    }

    /// Runs the plan of `runner`, whose input and labels are set. `gradients` is what the passes wrote of them; `seed` is the
    /// gradient to begin with in a plan of [`Mode::Gradient`]. Gives the loss.
    fn run_poisoned(
        &self,
        runner: &mut Runner,
        parameters: &Parameters,
        gradients: &mut Parameters,
        poison: f32,
        seed: impl Fn(&[f32], &mut [f32]),
    ) -> f64 {
        let Runner { plan, arena, labels, seconds, discarded, .. } = runner;
        let arena = &mut **arena;
        let training = plan.mode == Mode::Training;
        let key = training.then_some(KEY);
        let mut loss = 0.0;
        let arena_len = plan.arena;
        let mut before = Vec::new();
        for event in &self.events {
            event.dead.iter().for_each(|place| arena[place.clone()].fill(poison));
            arena[arena_len..].fill(poison);
            before.clear();
            before.extend_from_slice(arena);
            match event.pass {
                Pass::Prepare(i) => prepare(&plan.steps[i], arena, parameters.as_slice()),
                Pass::Forward(i) => {
                    let step = &plan.steps[i];
                    let training = training && !step.is_frozen();
                    forward(step, arena, parameters.as_slice(), training, key);
                }
                Pass::Loss => {
                    let places = [plan.logits.clone(), plan.logits_gradient.clone()];
                    let [logits, gradient] = disjoint(arena, places);
                    let gradient = (!gradient.is_empty()).then_some(gradient);
                    loss = cross_entropy(logits, labels, seconds, &[], plan.classes, 0.0, gradient).sum;
                }
                Pass::Clear => event.writes.iter().for_each(|(place, _)| arena[place.clone()].fill(0.0)),
                Pass::Seed => {
                    let places = [event.reads[0].0.clone(), event.writes[0].0.clone()];
                    let [values, gradient] = disjoint(arena, places);
                    seed(values, gradient);
                }
                Pass::Backward(i) => {
                    let step = &plan.steps[i];
                    let places = step.backward.as_ref().unwrap();
                    let gradients = match plan.mode {
                        Mode::Training => &mut gradients.as_mut_slice()[step.parameters.clone()],
                        _ => &mut discarded[..step.parameters.len()],
                    };
                    gradients.fill(poison);
                    backward(step, places, arena, parameters.as_slice(), training && !step.is_frozen(), gradients);
                }
            }
            let mut at = 0;
            let mut writes: Vec<&Range<usize>> = event.writes.iter().map(|(place, _)| place).collect();
            writes.retain(|place| !place.is_empty());
            writes.sort_by_key(|place| place.start);
            for place in writes {
                assert_same("what a pass may not write", &before[at..place.start], &arena[at..place.start]);
                at = place.end;
            }
            assert_same("what a pass may not write", &before[at..], &arena[at..]);
        }
        loss
    }
}

#[track_caller]
fn assert_same(what: &str, expected: &[f32], found: &[f32]) {
    assert_eq!(expected.len(), found.len(), "{what}");
    let differs = expected.iter().zip(found).position(|(a, b)| a.to_bits() != b.to_bits());
    if let Some(at) = differs {
        panic!("{what}: element {at} is {} and not {}", found[at], expected[at]);
    }
}

/// A network with numbers of its own, and a batch.
struct Subject {
    network: Network,
    batch: usize,
    frozen: Vec<usize>,
    random: Random,
    poisons: &'static [f32],
}

impl Subject {
    fn new(description: Description, batch: usize, seed: u64) -> Self {
        let random = Random::new(seed, Purpose::Test, 1);
        let mut network = Network::new(description, seed).unwrap();
        // Biases, scales and statistics that are not all the same.
        let specs = network.parameters().specs().to_vec();
        let values = network.parameters_mut().as_mut_slice();
        for i in specs.into_iter().filter(|spec| spec.role != Role::Weight).flat_map(|spec| spec.range) {
            values[i] += 0.25 * random.uniform(i as u64);
        }
        let owners = network.description().parameter_owners().unwrap();
        let mut frozen: Vec<usize> = owners.into_iter().filter(|&owner| random.below(owner as u64, 4) == 0).collect();
        if seed.is_multiple_of(3) {
            frozen.clear();
        }
        Self { network, batch, frozen, random, poisons: &POISONS }
    }

    fn runner(&self, plan: Plan) -> Runner {
        let mut runner = Runner::new(plan).unwrap();
        let random = Random::new(2, Purpose::Test, self.batch as u64);
        runner.input_mut().iter_mut().enumerate().for_each(|(i, value)| *value = random.normal(i as u64));
        let classes = self.network.classes();
        runner.labels_mut().iter_mut().enumerate().for_each(|(i, label)| *label = i % classes);
        runner
    }

    fn check(&self) {
        self.check_inference(Weights::F32);
        self.check_training(&[]);
        if !self.frozen.is_empty() {
            self.check_training(&self.frozen);
        }
        self.check_gradient();
    }

    fn check_inference(&self, weights: Weights) {
        let (description, parameters) = (self.network.description(), self.network.parameters());
        let plan = || Plan::inference(description, self.batch, weights).unwrap();
        let expected = self.runner(plan()).predict(parameters).to_vec();
        assert!(expected.iter().all(|value| value.is_finite()));
        let story = Story::of(description, &plan(), &|_| true, "");
        for &poison in self.poisons {
            let mut runner = self.runner(plan());
            story.run_poisoned(&mut runner, parameters, &mut parameters.zeros_like(), poison, |_, _| ());
            let logits = runner.plan.logits.clone();
            assert_same("logits", &expected, &runner.arena[logits]);
        }
    }

    fn check_training(&self, frozen: &[usize]) {
        let (description, parameters) = (self.network.description(), self.network.parameters());
        let plan = || Plan::training(description, self.batch, |layer| frozen.contains(&layer)).unwrap();
        let mut expected = parameters.zeros_like();
        let loss = self.runner(plan()).loss_and_gradient(parameters, &mut expected, KEY).loss;
        assert!(loss.is_finite());
        let story = Story::of(description, &plan(), &|layer| !frozen.contains(&layer), "");
        for &poison in self.poisons {
            let (mut runner, mut gradients) = (self.runner(plan()), parameters.zeros_like());
            let sum = story.run_poisoned(&mut runner, parameters, &mut gradients, poison, |_, _| ());
            assert_same("the loss", &[loss], &[(sum / self.batch as f64) as f32]);
            for step in runner.plan.steps.iter().filter(|step| step.backward.is_some() && !step.is_frozen()) {
                let range = step.parameters.clone();
                let (expected, found) = (&expected.as_slice()[range.clone()], &gradients.as_slice()[range]);
                assert_same(&format!("gradients of {}", step.name), expected, found);
                assert!(found.iter().all(|value| value.is_finite()), "{}", step.name);
            }
        }
    }

    /// Taps at the input and some layers, backward from one of them.
    fn check_gradient(&self) {
        let (description, parameters) = (self.network.description(), self.network.parameters());
        let mut taps = vec!["input"];
        for (i, named) in description.layers.iter().enumerate() {
            if self.random.below(100 + i as u64, 3) == 0 {
                taps.push(&named.name);
            }
        }
        let from = taps[self.random.below(99, taps.len() as u64) as usize];
        let from = if from == "input" { description.last() } else { from };
        let plan = || Plan::with_taps(description, self.batch, Mode::Gradient, &Taps::of(taps.clone())).unwrap();
        let seed = |values: &[f32], gradient: &mut [f32]| {
            gradient.iter_mut().zip(values).enumerate().for_each(|(i, (g, &v))| *g = v + (i % 7) as f32 / 7.0);
        };
        let mut expected = self.runner(plan());
        expected.gradient_from(parameters, from, seed).unwrap();
        let story = Story::of(description, &plan(), &|_| false, from);
        for &poison in self.poisons {
            let mut runner = self.runner(plan());
            story.run_poisoned(&mut runner, parameters, &mut parameters.zeros_like(), poison, seed);
            for (place, holds) in &story.taps {
                let expected = &expected.arena[place.clone()];
                assert_same(&format!("{holds:?}"), expected, &runner.arena[place.clone()]);
            }
        }
    }
}

/// Draws a network layer by layer; what does not fit is not taken.
struct Draw {
    random: Random,
    count: u64,
}

impl Draw {
    fn below(&mut self, limit: usize) -> usize {
        self.count += 1;
        self.random.below(self.count, limit as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn window(&mut self) -> Window {
        let mut size = |limit| 1 + self.below(limit);
        let kernel = (size(4), size(4));
        let stride = (size(3), size(3));
        let kernel = if self.one_in(2) { (3, 3) } else { kernel };
        let stride = if self.one_in(2) { (1, 1) } else { stride };
        let mut window = Window { kernel, stride, ..Window::square(1, 1, 0) }.rounding(Rounding::Floor);
        let at_most = |limit: usize, draw: &mut Self| draw.below(limit.min(3));
        window.padding = Padding::symmetric(at_most(kernel.0, self), at_most(kernel.1, self));
        if self.one_in(4) {
            window.padding.bottom = 0;
        }
        if self.one_in(5) {
            window.dilation = (1 + self.below(2), 1 + self.below(2));
        }
        window
    }

    fn layer(&mut self, shape: Shape) -> Layer {
        match self.below(22) {
            0..=6 => {
                let groups = match self.below(4) {
                    0 => shape.channels,
                    1 if shape.channels.is_multiple_of(2) => 2,
                    _ => 1,
                };
                let filters = groups * (1 + self.below(if groups == 1 { 35 } else { 2 }));
                let options = ConvolutionOptions::new(filters, self.window(), Init::He).groups(groups);
                if self.one_in(3) { options.without_bias().into() } else { options.into() }
            }
            7 | 8 => {
                let window =
                    if self.one_in(2) { Window::square(2, 2, 0).rounding(Rounding::Floor) } else { self.window() };
                let window = Window { dilation: (1, 1), ..window };
                if self.one_in(2) { PoolingOptions::max(window).into() } else { PoolingOptions::average(window).into() }
            }
            9 | 10 => ReluOptions {}.into(),
            11 => SigmoidOptions {}.into(),
            12 => TanhOptions {}.into(),
            13 => match self.below(5) {
                0 => GeluOptions {}.into(),
                1 => SiluOptions {}.into(),
                2 => HardSwishOptions {}.into(),
                3 => LeakyReluOptions::default().into(),
                _ => ClipOptions { low: 0.0, high: 6.0 }.into(),
            },
            14 => DropoutOptions { ratio: 0.3 }.into(),
            15 | 16 => BatchNormOptions::default().into(),
            17 => LocalResponseNormOptions::default().into(),
            18 => AdaptivePoolingOptions { output: (1 + self.below(3), 1 + self.below(3)) }.into(),
            19 => FlattenOptions {}.into(),
            20 => AffineOptions::new(1 + self.below(70), Init::He).into(),
            _ => SoftmaxOptions::default().into(),
        }
    }

    /// The same with one more layer, if that fits.
    fn grown(&mut self, description: &Description, inputs: &[String], shape: Shape) -> Option<Description> {
        let name = format!("L{}", description.layers.len());
        let layer = self.layer(shape);
        let grown = description.clone().with_inputs(name, layer, inputs.to_vec());
        // A branch's end is used only later.
        let closed = grown.clone().with_inputs("end", ConcatOptions {}, [grown.last()]);
        let numbers = |shapes: Vec<Shape>| shapes.iter().map(Shape::len).max().is_some_and(|most| most <= 4000);
        match closed.shapes() {
            Ok(shapes) => numbers(shapes).then_some(grown),
            Err(NetworkError::DeadEnd { .. }) => Some(grown),
            Err(_) => None,
        }
    }

    fn description(&mut self) -> Description {
        let sizes = [1, 2, 3, 4, 7, 8, 12, 13, 16];
        let side = |draw: &mut Self| sizes[draw.below(sizes.len())];
        let input = Shape::new(1 + self.below(6), side(self), side(self));
        let mut description = Description::new("drawn", input);
        let layers = 2 + self.below(9);
        while description.layers.len() < layers {
            let last = description.last().to_owned();
            let shape_of = |description: &Description, name: &str| {
                let position = description.layers.iter().position(|named| named.name == name);
                position.map_or(input, |at| description.shapes().unwrap()[at])
            };
            if self.one_in(4) && !description.layers.is_empty() {
                // A branch from some layer before, and a junction with it; or the layer itself.
                let position = self.below(description.layers.len() + 1);
                let before = description.layers.get(position).map_or("input", |named| &named.name).to_owned();
                let shape = shape_of(&description, &before);
                let branch =
                    self.one_in(2).then(|| self.grown(&description, std::slice::from_ref(&before), shape)).flatten();
                let (grown, other) = match branch {
                    Some(grown) => (grown.clone(), grown.last().to_owned()),
                    None => (description.clone(), before),
                };
                let name = format!("L{}", grown.layers.len());
                let inputs = if self.one_in(2) { [last, other] } else { [other, last] };
                let sum = grown.clone().with_inputs(name.clone(), AddOptions {}, inputs.clone());
                let joined = grown.with_inputs(name, ConcatOptions {}, inputs);
                if sum.shapes().is_ok() {
                    description = sum;
                } else if joined.shapes().is_ok_and(|shapes| shapes.iter().all(|shape| shape.len() <= 4000)) {
                    description = joined;
                }
            } else {
                let shape = shape_of(&description, &last);
                if let Some(grown) = self.grown(&description, &[], shape)
                    && grown.shapes().is_ok()
                {
                    description = grown;
                }
            }
        }
        if self.one_in(3) { description } else { description.with("head", AffineOptions::new(5, Init::He)) }
    }
}

fn drawn(seed: u64) -> Subject {
    let mut draw = Draw { random: Random::new(seed, Purpose::Test, 0), count: 0 };
    let description = draw.description();
    let batch = 1 + draw.below(9);
    Subject::new(description, batch, seed)
}

/// `STRIATE_DRAWN` is the number of networks, of which `STRIATE_SEED` is the first.
#[test]
fn of_networks_drawn_by_a_seed_nothing_is_read_that_was_not_written() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (first, count) = (number("STRIATE_SEED").unwrap_or(0), number("STRIATE_DRAWN").unwrap_or(150));
    for seed in first..first + count {
        let subject = drawn(seed);
        let check = std::panic::AssertUnwindSafe(|| subject.check());
        if let Err(panic) = std::panic::catch_unwind(check) {
            let text = serde_json::to_string(subject.network.description()).unwrap();
            eprintln!("seed {seed}, batch {}, frozen {:?}: {text}", subject.batch, subject.frozen);
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn of_the_zoo_nothing_is_read_that_was_not_written() {
    for name in models::NAMES {
        let channels = if name.starts_with("mnist") || name.contains("lenet") { 1 } else { 3 };
        let fits = |side: &usize| models::by_name(name, Shape::new(channels, *side, *side), 4).ok();
        let mut description = [16, 28, 32, 67, 224].iter().find_map(fits).expect(name);
        for named in &mut description.layers {
            if let Layer::Affine(options) = &mut named.layer {
                options.outputs = options.outputs.min(61);
            }
        }
        // One of the poisons will do: these networks are large, and made of the layers of those that are drawn.
        let batch = if description.input.height > 100 { 1 } else { 2 };
        Subject { poisons: &POISONS[..1], ..Subject::new(description, batch, 1) }.check();
    }
}

#[test]
fn of_weights_in_bfloat16_nothing_is_read_that_was_not_written() {
    let description = Description::new("wide", Shape::flat(1030))
        .with("Affine1", AffineOptions::new(1027, Init::He))
        .with("Relu1", ReluOptions {})
        .with("Affine2", AffineOptions::new(3, Init::He));
    for batch in [1, 2, 5] {
        let subject = Subject::new(description.clone(), batch, 1);
        let plan = Plan::inference(&description, batch, Weights::Bf16).unwrap();
        assert!(batch > 1 || plan.steps.iter().any(|step| !step.prepared.is_empty()));
        subject.check_inference(Weights::Bf16);
    }
}

/// The checker itself must see a plan that is wrong.
#[test]
fn a_plan_with_two_values_in_one_place_is_seen() {
    let description = models::by_name("cifar-resnet20", Shape::new(3, 8, 8), 4).unwrap();
    let spoiled: [&dyn Fn(&mut Plan); 4] = [
        // An output over the shortcut that is still to be added.
        &|plan| {
            let shortcut = plan.steps[2].other.clone();
            plan.steps[1].output = shortcut.clone();
            plan.steps[2].input = shortcut;
        },
        // A workspace over what the backward pass will read.
        &|plan| {
            let kept = plan.steps[0].output.start;
            let workspace = &mut plan.steps[5].output;
            *workspace = kept..kept + workspace.len();
        },
        &|plan| plan.steps[0].output = plan.steps[0].output.start + 1..plan.steps[0].output.end + 1,
        &|plan| plan.arena -= 1,
    ];
    for (i, spoil) in spoiled.into_iter().enumerate() {
        let mut plan = Plan::new(&description, 2, Mode::Training).unwrap();
        Story::of(&description, &plan, &|_| true, "");
        spoil(&mut plan);
        let story = std::panic::AssertUnwindSafe(|| Story::of(&description, &plan, &|_| true, ""));
        assert!(std::panic::catch_unwind(story).is_err(), "{i}");
    }
}
