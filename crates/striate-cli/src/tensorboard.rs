//! `--tensorboard`: what a run tells, in a file that TensorBoard watches.

use crate::error::CliError;
use crate::run_dir::{RunDir, io_error};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::SystemTime;
use striate::draw;
use striate::explain::filters;
use striate::formats::tensorboard::{Value, event, file_version};
use striate::network::Parameters;
use striate::train::Event;

/// The run's event file.
pub(crate) struct Board {
    path: PathBuf,
    file: File,
}

impl Board {
    /// Begins a file of its own in the run directory: TensorBoard reads several of one run in the order of their names.
    pub(crate) fn create(run: &RunDir) -> Result<Self, CliError> {
        let begun = now();
        let path = run.file(&format!("events.out.tfevents.{:.6}.striate", begun));
        let file = File::options().append(true).create_new(true).open(&path);
        let mut board = Self { file: file.map_err(io_error(&path, "create the file"))?, path };
        board.append(&file_version(begun))?;
        Ok(board)
    }

    /// Adds what the event tells.
    pub(crate) fn show(&mut self, told: &Event<'_>) -> Result<(), CliError> {
        match told {
            Event::Step { step, loss, accuracy, learning_rate, gradient_norm, images_per_second, .. } => {
                let norm = gradient_norm.map(f64::from);
                self.scalars(
                    *step,
                    &[
                        ("step/train_loss", Some(*loss)),
                        ("step/train_accuracy", Some(*accuracy)),
                        ("step/learning_rate", Some((*learning_rate).into())),
                        ("step/gradient_norm", norm),
                        ("step/images_per_second", Some(*images_per_second)),
                    ],
                )
            }
            Event::Epoch { metrics, parameters, .. } => {
                self.scalars(
                    metrics.step,
                    &[
                        ("epoch/train_loss", Some(metrics.train_loss)),
                        ("epoch/train_accuracy", Some(metrics.train_accuracy)),
                        ("epoch/validation_loss", metrics.validation_loss),
                        ("epoch/validation_accuracy", metrics.validation_accuracy),
                        ("epoch/test_loss", metrics.test_loss),
                        ("epoch/test_accuracy", metrics.test_accuracy),
                        ("epoch/top5", metrics.top5),
                        ("epoch/ece", metrics.ece),
                    ],
                )?;
                self.filters(metrics.step, parameters)
            }
            _ => Ok(()),
        }
    }

    /// Adds a picture of the first convolution's filters, where there is one.
    pub(crate) fn filters(&mut self, step: u64, parameters: &Parameters) -> Result<(), CliError> {
        let Ok(filters) = filters::in_parameters(parameters, None) else { return Ok(()) };
        let image = draw::filters(filters.values.view(), &format!("{} after {step} steps", filters.name)).image;
        let (width, height) = image.dimensions();
        let png = draw::png(&image)?;
        self.append(&event(now(), step, &[("filters", Value::Image { width, height, png: &png })]))
    }

    fn scalars(&mut self, step: u64, values: &[(&str, Option<f64>)]) -> Result<(), CliError> {
        let values: Vec<(&str, Value<'_>)> =
            values.iter().filter_map(|&(tag, value)| Some((tag, Value::Scalar(value? as f32)))).collect();
        self.append(&event(now(), step, &values))
    }

    fn append(&mut self, record: &[u8]) -> Result<(), CliError> {
        self.file.write_all(record).map_err(io_error(&self.path, "write to the file"))
    }
}

/// Seconds since 1970, which TensorBoard wants in its records; a clock before that is no reason to stop training.
#[expect(clippy::disallowed_methods, reason = "it is shown, and nothing follows from it")]
fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}
