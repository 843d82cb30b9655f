//! Running a network over a data set.

use super::calibration::fit_temperature;
use super::metrics::{Evaluation, Tally};
use super::{TrainError, check_classes, check_data, first_non_finite, on_worker};
use crate::data::augment::{Augment, Views};
use crate::data::{Dataset, Normalization, gather};
use crate::int8::{Predictor, QuantizedNetwork};
use crate::network::plan::{Plan, Weights};
use crate::network::run::Runner;
use crate::network::{Description, Network, NetworkError, Parameters};
use ndarray::Array2;

/// How [`evaluate_with`] runs a network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EvaluateOptions {
    /// Images at a time: at least 1.
    pub batch: usize,
    /// How weights are kept; a network in bytes has its own.
    pub weights: Weights,
    /// What logits are divided by for [`Evaluation::scaled`] and the probabilities of the mistakes: a positive number.
    pub temperature: f64,
    /// The guises of each image whose logits are averaged.
    pub views: Views,
}

impl EvaluateOptions {
    /// Weights as they are, logits as they are, each image as it is.
    pub const fn new(batch: usize) -> Self {
        Self { batch, weights: Weights::F32, temperature: 1.0, views: Views::One }
    }

    fn check(&self) -> Result<(), TrainError> {
        check_batch(self.batch)?;
        if self.temperature.is_finite() && self.temperature > 0.0 {
            return Ok(());
        }
        let found = self.temperature.to_string();
        Err(TrainError::Option { field: "temperature", found, expected: "a positive number" })
    }
}

/// Evaluates `network` on all of `data`, `batch` images at a time.
///
/// # Errors
/// Data that does not fit the network, a batch of 0, weights that are not finite, or memory that can't be had.
pub fn evaluate(
    network: &Network,
    data: &Dataset,
    normalization: &Normalization,
    batch: usize,
) -> Result<Evaluation, TrainError> {
    evaluate_with(network, data, normalization, &EvaluateOptions::new(batch))
}

/// [`evaluate`] with options.
///
/// # Errors
/// As for [`evaluate`], and a temperature that is not a positive number.
pub fn evaluate_with(
    network: &Network,
    data: &Dataset,
    normalization: &Normalization,
    options: &EvaluateOptions,
) -> Result<Evaluation, TrainError> {
    check_classes(data, network.classes())?;
    let evaluator = Evaluator { options: *options, ..Evaluator::new(network.description(), options.batch) };
    measure(evaluator, network.parameters(), data, normalization)
}

/// [`evaluate_with`] for a network in bytes.
///
/// # Errors
/// As for [`evaluate_with`].
pub fn evaluate_int8(
    network: &QuantizedNetwork,
    data: &Dataset,
    normalization: &Normalization,
    options: &EvaluateOptions,
) -> Result<Evaluation, TrainError> {
    options.check()?;
    check_classes(data, network.classes())?;
    check_data(data, network.input(), normalization)?;
    let mut tally = Tally::new(data.classes(), options.temperature);
    on_worker(|| {
        Batches::new().each(
            (data, None),
            normalization,
            options,
            |count| Ok(Predictor::new(network, count)?),
            |predictor| predictor.run(),
            &mut |image, logits, label| tally.add(image, logits, label),
        )
    })?;
    Ok(tally.finish())
}

/// The logits of every image of `data`, (N, classes).
///
/// # Errors
/// As for [`evaluate`]; the memory for the logits is asked for first.
pub fn logits(
    network: &Network,
    data: &Dataset,
    normalization: &Normalization,
    batch: usize,
) -> Result<Array2<f32>, TrainError> {
    check_classes(data, network.classes())?;
    check_run(network.parameters(), batch)?;
    let (images, classes) = (data.len(), network.classes());
    let numbers = images.saturating_mul(classes);
    let mut values = Vec::new();
    values.try_reserve_exact(numbers).map_err(|_| NetworkError::OutOfMemory {
        what: "the logits".into(),
        bytes: numbers.saturating_mul(size_of::<f32>()),
    })?;
    on_worker(|| {
        Evaluator::new(network.description(), batch).each(
            network.parameters(),
            data,
            None,
            normalization,
            &mut |_, logits, _| {
                values.extend_from_slice(logits);
                Ok(())
            },
        )
    })?;
    Ok(Array2::from_shape_vec((images, classes), values).unwrap_or_default())
}

/// The temperature that calibrates `network` best on `data`, by [`fit_temperature`]; none where no temperature does. The
/// network should not have been trained on these images.
///
/// # Errors
/// As for [`evaluate`].
pub fn calibrate(
    network: &Network,
    data: &Dataset,
    normalization: &Normalization,
    batch: usize,
) -> Result<Option<f64>, TrainError> {
    let logits = logits(network, data, normalization, batch)?;
    if let Some(((image, _), &value)) = logits.indexed_iter().find(|(_, value)| !value.is_finite()) {
        return Err(TrainError::NonFiniteOutput { data: data.name().into(), image, value });
    }
    Ok(fit_temperature(logits.view(), data.labels()))
}

/// [`evaluate`] with parameters that are not (or not yet) a network's own, without copying them.
///
/// # Errors
/// As for [`evaluate`].
pub fn evaluate_parameters(
    description: &Description,
    parameters: &Parameters,
    data: &Dataset,
    normalization: &Normalization,
    batch: usize,
) -> Result<Evaluation, TrainError> {
    measure(Evaluator::new(description, batch), parameters, data, normalization)
}

fn measure(
    mut evaluator: Evaluator<'_>,
    parameters: &Parameters,
    data: &Dataset,
    normalization: &Normalization,
) -> Result<Evaluation, TrainError> {
    evaluator.options.check()?;
    check_run(parameters, evaluator.options.batch)?;
    let mut tally = Tally::new(data.classes(), evaluator.options.temperature);
    on_worker(|| {
        evaluator
            .each(parameters, data, None, normalization, &mut |image, logits, label| tally.add(image, logits, label))
    })?;
    Ok(tally.finish())
}

fn check_batch(batch: usize) -> Result<(), TrainError> {
    if batch == 0 {
        return Err(TrainError::Option { field: "batch", found: "0".into(), expected: "at least 1" });
    }
    Ok(())
}

fn check_run(parameters: &Parameters, batch: usize) -> Result<(), TrainError> {
    check_batch(batch)?;
    if let Some((name, value, position)) = first_non_finite(parameters) {
        return Err(TrainError::NonFiniteParameter { parameter: name.into(), value, position });
    }
    Ok(())
}

/// Takes an image's position, logits and label; an answer of `Err` is a logit that is not finite.
type Take<'a> = &'a mut (dyn FnMut(usize, &[f32], usize) -> Result<(), f32> + Send);

/// What runs batches of one size.
trait Runs {
    fn batch(&self) -> usize;
    fn input_mut(&mut self) -> &mut [f32];
}

impl Runs for Runner {
    fn batch(&self) -> usize {
        self.batch()
    }

    fn input_mut(&mut self) -> &mut [f32] {
        self.input_mut()
    }
}

impl Runs for Predictor<'_> {
    fn batch(&self) -> usize {
        self.batch()
    }

    fn input_mut(&mut self) -> &mut [f32] {
        self.input_mut()
    }
}

/// Images a batch at a time through runners that are made once.
struct Batches<R> {
    full: Option<R>,
    /// For what is left of a data set when the full batches are done.
    rest: Option<R>,
    indices: Vec<usize>,
    /// A batch of which several views are run.
    images: Vec<f32>,
    /// The means of the views' logits.
    means: Vec<f32>,
}

impl<R: Runs> Batches<R> {
    fn new() -> Self {
        Self { full: None, rest: None, indices: Vec::new(), images: Vec::new(), means: Vec::new() }
    }

    /// Runs the images of `data` at the positions of `sample`, or all, a batch at a time, and gives each one's answer,
    /// the mean of its views', to `take`.
    fn each(
        &mut self,
        (data, sample): (&Dataset, Option<&[usize]>),
        normalization: &Normalization,
        &EvaluateOptions { batch, views, .. }: &EvaluateOptions,
        make: impl Fn(usize) -> Result<R, TrainError>,
        logits: impl for<'r> Fn(&'r mut R) -> &'r [f32],
        take: Take<'_>,
    ) -> Result<(), TrainError> {
        let images = sample.map_or(data.len(), <[usize]>::len);
        let mut start = 0;
        while start < images {
            let count = batch.min(images - start);
            let place = if count == batch { &mut self.full } else { &mut self.rest };
            if place.as_ref().is_none_or(|runner| runner.batch() != count) {
                // Give the old arena back before reserving the new one.
                *place = None;
            }
            let runner = match place {
                Some(runner) => runner,
                None => place.insert(make(count)?),
            };
            self.indices.clear();
            self.indices.extend((start..start + count).map(|at| sample.map_or(at, |sample| sample[at])));
            gather(data, &self.indices, normalization, (&Augment::none(), 0, 0), runner.input_mut());
            let logits = match views {
                Views::One => logits(runner),
                _ => {
                    self.images.clear();
                    self.images.extend_from_slice(runner.input_mut());
                    self.means.clear();
                    for view in 0..views.count() {
                        views.show(view, data.shape(), &self.images, runner.input_mut());
                        let logits = logits(runner);
                        self.means.resize(logits.len(), 0.0);
                        self.means.iter_mut().zip(logits).for_each(|(sum, logit)| *sum += logit);
                    }
                    self.means.iter_mut().for_each(|sum| *sum /= views.count() as f32);
                    &self.means
                }
            };
            check_classes(data, logits.len() / count)?;
            for (&image, logits) in self.indices.iter().zip(logits.chunks_exact(data.classes())) {
                take(image, logits, data.labels()[image]).map_err(|value| TrainError::NonFiniteOutput {
                    data: data.name().into(),
                    image,
                    value,
                })?;
            }
            start += count;
        }
        Ok(())
    }
}

/// Evaluates again and again with the same runners.
pub(super) struct Evaluator<'a> {
    description: &'a Description,
    options: EvaluateOptions,
    batches: Batches<Runner>,
}

impl<'a> Evaluator<'a> {
    /// Plans nothing yet.
    pub(super) fn new(description: &'a Description, batch: usize) -> Self {
        Self { description, options: EvaluateOptions::new(batch), batches: Batches::new() }
    }

    /// Evaluates the images of `data` at the positions of `sample`, or all.
    pub(super) fn run(
        &mut self,
        parameters: &Parameters,
        data: &Dataset,
        sample: Option<&[usize]>,
        normalization: &Normalization,
    ) -> Result<Evaluation, TrainError> {
        let mut tally = Tally::new(data.classes(), 1.0);
        self.each(parameters, data, sample, normalization, &mut |image, logits, label| {
            tally.add(image, logits, label)
        })?;
        Ok(tally.finish())
    }

    /// Runs the images of `data` at the positions of `sample`, or all, through the network, and gives each one's answer
    /// to `take`.
    fn each(
        &mut self,
        parameters: &Parameters,
        data: &Dataset,
        sample: Option<&[usize]>,
        normalization: &Normalization,
        take: Take<'_>,
    ) -> Result<(), TrainError> {
        check_data(data, self.description.input, normalization)?;
        let (description, options) = (self.description, &self.options);
        let make = |count| Ok(Runner::new(Plan::inference(description, count, options.weights)?)?);
        self.batches.each((data, sample), normalization, options, make, |runner| runner.predict(parameters), take)
    }
}
