//! Everything that a run needs to go on, as the bytes of a file.
//!
//! A checkpoint is a [`container`](crate::formats::container): safetensors under one checksum, so a flipped bit or a cut is
//! found before a number is used. Its metadata:
//!
//! | key | value |
//! |---|---|
//! | `striate.checkpoint` | the version, `2` |
//! | `striate.architecture` | the network's [`Description`] as JSON |
//! | `striate.options` | the [`TrainOptions`] as JSON |
//! | `striate.data` | the [`Fingerprint`] of the training, validation and test set, as JSON |
//! | `striate.progress` | counters, history and the best epoch so far, as JSON |
//! | `striate.note` | whatever the caller wants to find again, any JSON |
//!
//! Its tensors are as long as all parameters together, in layer order: `parameters`, `average`, `best`, `good` (the weights
//! to go back to if the loss blows up), and `optimizer.NAME` for each array that the optimizer remembers.
//!
//! Nothing else has to be saved: random numbers are functions of seed, epoch, step and sample.

use super::{Best, EpochMetrics, Fingerprint, Sums, TrainOptions};
use crate::formats::container::{Container, ContainerWriter, MAX_HEADER_BYTES, read_file};
use crate::formats::fields::{ARCHITECTURE, MOST_BYTES, MOST_FREE_BYTES, to_text};
use crate::formats::{FormatError, write_atomically};
use crate::network::{Description, Network, NetworkError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;
use std::path::Path;

/// The version that is written, and the newest that is read.
pub const CHECKPOINT_VERSION: u64 = 2;

const VERSION: &str = "striate.checkpoint";
const OPTIONS: &str = "striate.options";
const DATA: &str = "striate.data";
const PROGRESS: &str = "striate.progress";
const NOTE: &str = "striate.note";
const PARAMETERS: &str = "parameters";
const AVERAGE: &str = "average";
const BEST: &str = "best";
const GOOD: &str = "good";
const OPTIMIZER: &str = "optimizer.";

/// The longest text of a field.
fn most_bytes(key: &str) -> usize {
    match key {
        OPTIONS => MOST_FREE_BYTES,
        // The command's flags, and what they came to.
        NOTE => 2 * MOST_FREE_BYTES,
        // An entry an epoch.
        PROGRESS => MAX_HEADER_BYTES,
        _ => MOST_BYTES,
    }
}

/// All of a run that is no array.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Progress {
    /// Updates done.
    pub(super) step: u64,
    pub(super) optimizer_steps: u64,
    /// Images trained.
    pub(super) images: u64,
    /// In all, by every process that worked on the run.
    pub(super) seconds: f64,
    /// Without evaluation.
    pub(super) training_seconds: f64,
    /// Of the epoch under way, or the one that awaits its evaluation.
    pub(super) epoch: Sums,
    pub(super) epoch_seconds: f64,
    /// Since the last event of a step.
    pub(super) window: Sums,
    pub(super) first_loss: Option<f32>,
    /// The step of the last good weights.
    pub(super) good_step: u64,
    pub(super) best: Option<Best>,
    pub(super) history: Vec<EpochMetrics>,
}

/// What a run is trained, validated and tested on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fingerprints {
    /// The training set.
    pub train: Fingerprint,
    /// The validation set, if there is one.
    pub validation: Option<Fingerprint>,
    /// The test set, if it is evaluated while training.
    pub test: Option<Fingerprint>,
}

/// A run at one moment, borrowed from the trainer: what [`Event::Checkpoint`](super::Event::Checkpoint) offers.
#[derive(Clone)]
pub struct RunState<'a> {
    pub(super) description: &'a Description,
    pub(super) options: &'a TrainOptions,
    pub(super) data: &'a Fingerprints,
    pub(super) progress: Progress,
    pub(super) parameters: &'a [f32],
    pub(super) average: Option<&'a [f32]>,
    pub(super) best: Option<&'a [f32]>,
    pub(super) good: &'a [f32],
    pub(super) optimizer: Vec<(&'static str, &'a [f32])>,
}

impl fmt::Debug for RunState<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunState")
            .field("options", self.options)
            .field("progress", &self.progress)
            .finish_non_exhaustive()
    }
}

impl RunState<'_> {
    /// Updates done.
    pub fn step(&self) -> u64 {
        self.progress.step
    }

    /// Writes the checkpoint to a file, or leaves the file that was there; `note` is for [`Checkpoint::note`].
    ///
    /// # Errors
    /// No memory for the bytes, or a file that can't be written.
    pub fn save(&self, path: &Path, note: &Value) -> Result<(), FormatError> {
        Ok(write_atomically(path, &self.to_bytes(note)?)?)
    }

    /// The checkpoint's bytes.
    ///
    /// # Errors
    /// No memory for them.
    pub fn to_bytes(&self, note: &Value) -> Result<Vec<u8>, FormatError> {
        let mut writer = ContainerWriter::new();
        writer.field(VERSION, CHECKPOINT_VERSION.to_string())?;
        writer.field(ARCHITECTURE, json::<Description>(ARCHITECTURE, self.description)?)?;
        writer.field(OPTIONS, json::<Value>(OPTIONS, self.options)?)?;
        writer.field(DATA, json::<Fingerprints>(DATA, self.data)?)?;
        writer.field(PROGRESS, json::<Progress>(PROGRESS, &self.progress)?)?;
        writer.field(NOTE, json::<Value>(NOTE, note)?)?;
        let len = [self.parameters.len()];
        writer.tensor(PARAMETERS, &len, self.parameters)?;
        writer.tensor(GOOD, &len, self.good)?;
        for (name, values) in [(AVERAGE, self.average), (BEST, self.best)] {
            if let Some(values) = values {
                writer.tensor(name, &len, values)?;
            }
        }
        for (name, values) in &self.optimizer {
            writer.tensor(format!("{OPTIMIZER}{name}"), &len, values)?;
        }
        writer.to_bytes()
    }

    /// The checkpoint itself, for a run that goes on in this process.
    ///
    /// # Errors
    /// Options that can't be written.
    pub fn to_checkpoint(&self) -> Result<Checkpoint, FormatError> {
        // As a file would give them, which is what they are compared with.
        let unwritable = |error: serde_json::Error| FormatError::Unwritable {
            what: format!("the field {OPTIONS}"),
            reason: error.to_string(),
        };
        Ok(Checkpoint {
            description: self.description.clone(),
            options: serde_json::from_str(&json::<Value>(OPTIONS, self.options)?).map_err(unwritable)?,
            data: self.data.clone(),
            progress: self.progress.clone(),
            parameters: self.parameters.to_vec(),
            average: self.average.map(<[f32]>::to_vec),
            best: self.best.map(<[f32]>::to_vec),
            good: self.good.to_vec(),
            optimizer: self.optimizer.iter().map(|(name, values)| ((*name).to_owned(), values.to_vec())).collect(),
            note: Value::Null,
        })
    }

    /// Whether a run could go on from here.
    pub(super) fn is_finite(&self) -> bool {
        let arrays = [self.parameters, self.good].into_iter().chain(self.average).chain(self.best);
        let mut arrays = arrays.chain(self.optimizer.iter().map(|(_, values)| *values));
        arrays.all(|values| values.iter().fold(true, |finite, v| finite & v.is_finite()))
    }
}

fn json<T: DeserializeOwned>(key: &'static str, value: &impl Serialize) -> Result<String, FormatError> {
    to_text::<T>(key, value, most_bytes(key))
}

/// A run at one moment, read from a file. [`Trainer::resume`](super::Trainer::resume) goes on with it.
///
/// ```
/// use serde_json::json;
/// use striate::data::{Dataset, Normalization, Pixels, one_class_names};
/// use striate::shape::Shape;
/// use striate::train::{Checkpoint, Control, Event, TrainOptions, Trainer};
/// use striate::{models, network::Network};
///
/// let shape = Shape::new(1, 12, 12);
/// let pixels = Pixels::U8((0..20 * shape.len()).map(|i| (i % 251) as u8).collect());
/// let data = Dataset::new("tiny", shape, pixels, (0..20).map(|i| i % 2).collect(), one_class_names(2))?;
/// let options = TrainOptions { epochs: 2, batch: 10, ..TrainOptions::default() };
/// let description = models::by_name("simple-convnet", shape, 2)?;
/// let fresh = || Network::new(description.clone(), 1);
///
/// // The run is cut off after its third step of four.
/// let mut saved = None;
/// let mut network = fresh()?;
/// Trainer::new(&mut network, &data, None, Normalization::identity(), options.clone())?.checkpoints(Some(1)).run(
///     &mut |event| match event {
///         Event::Checkpoint { state } if state.step() == 3 => {
///             saved = state.to_bytes(&json!("a note")).ok();
///             Control::Stop
///         }
///         _ => Control::Continue,
///     },
/// )?;
/// let checkpoint = Checkpoint::from_bytes(&saved.unwrap_or_default(), "the example")?;
/// assert_eq!((checkpoint.step(), checkpoint.note()), (3, &json!("a note")));
/// let mut resumed = checkpoint.network()?;
/// Trainer::new(&mut resumed, &data, None, Normalization::identity(), options.clone())?
///     .resume(checkpoint)
///     .run(&mut |_| Control::Continue)?;
///
/// let mut whole = fresh()?;
/// Trainer::new(&mut whole, &data, None, Normalization::identity(), options)?.run(&mut |_| Control::Continue)?;
/// assert_eq!(resumed.parameters(), whole.parameters());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Checkpoint {
    pub(super) description: Description,
    /// [`TrainOptions`] as they were written.
    pub(super) options: Value,
    pub(super) data: Fingerprints,
    pub(super) progress: Progress,
    pub(super) parameters: Vec<f32>,
    pub(super) average: Option<Vec<f32>>,
    pub(super) best: Option<Vec<f32>>,
    pub(super) good: Vec<f32>,
    pub(super) optimizer: Vec<(String, Vec<f32>)>,
    note: Value,
}

impl Checkpoint {
    /// Reads a file, and checks it against its checksum and itself.
    ///
    /// # Errors
    /// See [`CheckpointError`]. A refusal takes little time and memory whatever the file claims.
    pub fn load(path: &Path) -> Result<Self, CheckpointError> {
        Self::from_bytes(&read_file(path)?, &path.display().to_string())
    }

    /// From the bytes of a file; `name` is for messages.
    ///
    /// # Errors
    /// See [`CheckpointError`].
    pub fn from_bytes(bytes: &[u8], name: &str) -> Result<Self, CheckpointError> {
        let file = File { container: Container::from_bytes(bytes, name)?, name };
        file.check_version()?;
        let description = file.container.architecture()?;
        let specs = description.parameter_specs().map_err(FormatError::network(name))?;
        let len = specs.last().map_or(0, |spec| spec.range.end);
        let arrays: Vec<String> = file.container.names().map(String::from).collect();
        let known = |array: &str| [PARAMETERS, AVERAGE, BEST, GOOD].contains(&array) || array.starts_with(OPTIMIZER);
        if let Some(tensor) = arrays.iter().find(|array| !known(array)) {
            return Err(FormatError::UnexpectedTensor { name: name.into(), tensor: tensor.clone() }.into());
        }
        let optimizer = arrays.iter().filter_map(|array| array.strip_prefix(OPTIMIZER));
        let optimizer =
            optimizer.map(|array| Ok((array.to_string(), file.array(&format!("{OPTIMIZER}{array}"), len)?)));
        let checkpoint = Self {
            options: file.field(OPTIONS)?,
            note: file.field(NOTE)?,
            data: file.field(DATA)?,
            progress: file.field(PROGRESS)?,
            parameters: file.array(PARAMETERS, len)?,
            average: file.optional(AVERAGE, len)?,
            best: file.optional(BEST, len)?,
            good: file.array(GOOD, len)?,
            optimizer: optimizer.collect::<Result<_, CheckpointError>>()?,
            description,
        };
        Ok(checkpoint)
    }

    /// The network as it was at that moment.
    ///
    /// # Errors
    /// An architecture that makes no network here.
    pub fn network(&self) -> Result<Network, NetworkError> {
        // The seed does not matter: all that it draws is replaced.
        let mut network = Network::new(self.description.clone(), 0)?;
        network.parameters_mut().as_mut_slice().copy_from_slice(&self.parameters);
        Ok(network)
    }

    /// Updates done.
    pub fn step(&self) -> u64 {
        self.progress.step
    }

    /// One entry an epoch done and evaluated.
    pub fn history(&self) -> &[EpochMetrics] {
        &self.progress.history
    }

    /// Steps that the run was to have, at so many an epoch.
    pub(super) fn planned_steps(&self, steps_per_epoch: u64) -> u64 {
        let number = |field| self.options.get(field).and_then(Value::as_u64);
        let all = number("epochs").unwrap_or(0).saturating_mul(steps_per_epoch);
        number("steps").map_or(all, |steps| steps.min(all))
    }

    /// What the caller of [`RunState::save`] left.
    pub fn note(&self) -> &Value {
        &self.note
    }
}

/// A container with its name.
struct File<'a> {
    container: Container<'a>,
    name: &'a str,
}

impl File<'_> {
    fn check_version(&self) -> Result<(), CheckpointError> {
        let name = self.name.to_string();
        let Some(version) = self.container.field(VERSION) else {
            return Err(CheckpointError::Foreign { name });
        };
        match version.parse() {
            Ok(found) if found > CHECKPOINT_VERSION => {
                Err(FormatError::NewerVersion { name, found, supported: CHECKPOINT_VERSION }.into())
            }
            Ok(CHECKPOINT_VERSION) => Ok(()),
            Ok(1) => {
                let reason = "it is of an early version that can't be resumed any more; start a new run";
                Err(self.container.bad_field(VERSION, reason).into())
            }
            _ => Err(self.container.bad_field(VERSION, format!("{version:?} is no version")).into()),
        }
    }

    fn field<T: DeserializeOwned>(&self, key: &'static str) -> Result<T, CheckpointError> {
        Ok(self.container.json(key, most_bytes(key))?)
    }

    fn array(&self, tensor: &str, len: usize) -> Result<Vec<f32>, CheckpointError> {
        // Checked before memory is taken: the architecture may claim anything.
        let found = self.container.shape(tensor)?;
        if found != [len] {
            return Err(FormatError::Inconsistent {
                name: self.name.to_string(),
                what: "the shape of an array",
                found: format!("{found:?} of {tensor:?}"),
                expected: format!("[{len}], the architecture's number of parameters"),
            }
            .into());
        }
        let values = self.container.numbers(tensor)?;
        match values.iter().position(|v| !v.is_finite()) {
            Some(at) => Err(FormatError::NonFinite {
                name: self.name.to_string(),
                tensor: tensor.to_string(),
                index: vec![at],
                value: values.get(at).copied().unwrap_or(f32::NAN),
            }
            .into()),
            None => Ok(values),
        }
    }

    fn optional(&self, tensor: &str, len: usize) -> Result<Option<Vec<f32>>, CheckpointError> {
        self.container.contains(tensor).then(|| self.array(tensor, len)).transpose()
    }
}

/// Why a checkpoint can't be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file is damaged, cut short, unreadable, or not what it claims to be.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A file of another kind.
    #[error("{name} is no checkpoint: it has no field {VERSION}; give the last.ckpt of a run directory")]
    Foreign {
        /// The file.
        name: String,
    },
}
