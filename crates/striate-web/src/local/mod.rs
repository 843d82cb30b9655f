//! The page's engine where there is no server: a studio, and a run that the page itself starts.
//!
//! Everything that the page wants is one [`Local::answer`], JSON to JSON; in a browser a worker holds the [`Local`] and
//! `exports` is its door. One thread must do, so a run goes on in [slices](Session), between which questions are answered.

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
mod exports;
mod session;

pub use session::Session;

use crate::mnist::{self, BuiltInError};
use crate::studio::{Action, DataSource, Live, Question, Studio, StudioError};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use striate::data::{DataError, Dataset, Fit, Normalization, Preprocessing, one_class_names};
use striate::formats::{FormatError, LoadError, ModelFile, TestVectors, model_from_bytes};
use striate::models::{self, ModelError};
use striate::network::{Network, NetworkError};
use striate::optim::{OptimError, OptimizerOptions};
use striate::train::{Control, TrainError, TrainOptions, TrainSummary};

/// The network that the page trains.
const MODEL: &str = "simple-convnet";
/// Training images that are evaluated after each epoch but the last.
const EVALUATED: usize = 1000;
/// Steps between two points of the curves.
const LOG_EVERY: usize = 5;
/// Test images that travel in a model's file with their answers.
const VECTORS: usize = 5;

/// Why something can't be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocalError {
    /// Not a request, and why.
    #[error("this is no request: {0}")]
    Request(#[from] serde_json::Error),
    /// A request that can't be met, and why.
    #[error("{0}")]
    Refused(String),
    /// A question without an answer.
    #[error(transparent)]
    Studio(#[from] StudioError),
    /// A model that can't be written.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A model that can't be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The built-in data.
    #[error(transparent)]
    BuiltIn(#[from] BuiltInError),
    /// Data that is none.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A network that can't be made or run.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A model that does not exist.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A run that can't go on.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// An optimizer that does not exist.
    #[error(transparent)]
    Optimizer(#[from] OptimError),
}

/// What the page can want.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Request {
    /// An answer.
    Ask(Question),
    /// The run held, on its way again, or ended.
    Act(Action),
    /// A run of its own.
    Train(Lesson),
    /// Another model.
    Open {
        /// The file's name.
        name: String,
        /// The file in base64.
        file: String,
    },
    /// The model as a file.
    Save {},
    /// The run on its way for about so many milliseconds.
    Advance(u64),
}

/// A run of SimpleConvNet on MNIST as the page asks for it. What it does not say is as in the book.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lesson {
    /// The first so many training images; more than there are is all.
    pub images: usize,
    /// Times that each is seen.
    pub epochs: usize,
    /// By name, with hyper-parameters where wanted: `momentum:momentum=0.8`.
    pub optimizer: String,
    /// The optimizer's usual one if none is given.
    pub learning_rate: Option<f32>,
    /// Names every random number.
    pub seed: u64,
    /// Ends earlier, after so many steps.
    pub steps: Option<u64>,
}

impl Lesson {
    /// All options of the run.
    ///
    /// # Errors
    /// An optimizer that does not exist, or a number out of its range.
    pub fn options(&self) -> Result<TrainOptions, LocalError> {
        let optimizer: OptimizerOptions = self.optimizer.parse()?;
        let options = TrainOptions {
            epochs: self.epochs,
            steps: self.steps,
            seed: self.seed,
            optimizer,
            learning_rate: self.learning_rate.unwrap_or_else(|| optimizer.default_learning_rate()),
            log_every: LOG_EVERY,
            evaluate_train: Some(EVALUATED),
            ..TrainOptions::default()
        };
        options.validate()?;
        if self.images < options.batch {
            let (found, least) = (self.images, options.batch);
            return Err(LocalError::Refused(format!("{found} images are asked for; a batch alone has {least}")));
        }
        Ok(options)
    }

    /// The images that are asked for, unless they are all.
    fn chosen(&self, train: &Dataset) -> Option<Dataset> {
        (self.images < train.len()).then(|| train.subset(&(0..self.images).collect::<Vec<_>>()))
    }
}

/// A model that is looked at and trained by whoever asks.
pub struct Local {
    studio: Studio,
    session: Option<Session>,
}

impl Local {
    /// With an untrained network, until another model is opened.
    ///
    /// # Errors
    /// None that the outside can cause.
    pub fn new() -> Result<Self, LocalError> {
        Ok(Self { studio: around(fresh(0)?), session: None })
    }

    /// Answers a request, both in JSON: `{"ok": ..., "going": whether Advance would do something}`, or `{"error": words}`.
    pub fn answer(&mut self, request: &[u8]) -> Vec<u8> {
        let answer = serde_json::from_slice(request).map_err(LocalError::from).and_then(|request| self.meet(request));
        let going = self.session.is_some() && !self.studio.live().is_some_and(Live::is_held);
        let answer = match answer {
            Ok(value) => json!({ "ok": value, "going": going }),
            Err(error) => json!({ "error": error.to_string(), "going": going }),
        };
        answer.to_string().into_bytes()
    }

    fn meet(&mut self, request: Request) -> Result<Value, LocalError> {
        match request {
            Request::Ask(question) => {
                let is_about = matches!(question, Question::About);
                let mut answer = self.studio.ask(question)?;
                if is_about {
                    answer["local"] = true.into();
                }
                Ok(answer)
            }
            Request::Act(action) => match self.studio.live() {
                Some(live) if live.act(action) => Ok(json!({ "done": true })),
                _ => Err(LocalError::Refused("no run goes on here".into())),
            },
            Request::Train(lesson) => self.begin(&lesson),
            Request::Open { name, file } => self.open(&name, &file),
            Request::Save {} => {
                let model = self.studio.model();
                let name = format!("{}.safetensors", model.network.description().name);
                Ok(json!({ "name": name, "file": STANDARD.encode(model.to_bytes()?) }))
            }
            Request::Advance(milliseconds) => self.advance(Duration::from_millis(milliseconds)),
        }
    }

    fn open(&mut self, name: &str, file: &str) -> Result<Value, LocalError> {
        if self.session.is_some() {
            return Err(LocalError::Refused("a run goes on; stop it before you open a model".into()));
        }
        let bytes = STANDARD.decode(file).map_err(|error| LocalError::Refused(format!("{name}: {error}")))?;
        self.studio = around(model_from_bytes(bytes, name)?);
        Ok(json!({ "name": self.studio.model().network.description().name }))
    }

    fn begin(&mut self, lesson: &Lesson) -> Result<Value, LocalError> {
        if self.session.is_some() {
            return Err(LocalError::Refused("a run goes on already".into()));
        }
        let options = lesson.options()?;
        let model = fresh(options.seed)?;
        let network = model.network.clone();
        let studio = around(model).with_live(Live::new(&options, Vec::new()));
        let chosen = lesson.chosen(&studio.splits(&studio.model())?.train);
        self.session = Some(Session::new(network, chosen, Normalization::identity(), options));
        self.studio = studio;
        Ok(json!({ "begun": true }))
    }

    fn advance(&mut self, slice: Duration) -> Result<Value, LocalError> {
        let (studio, Some(session)) = (&self.studio, &mut self.session) else { return Ok(json!({ "ended": true })) };
        if studio.live().is_some_and(Live::is_held) {
            return Ok(json!({ "ended": false }));
        }
        let splits = studio.splits(&studio.model())?;
        // Nobody can end a pause within a slice, so none must begin there.
        let ended = session.advance(splits, slice, &mut |event| studio.follow(event, &|| true));
        let outcome = match ended {
            Ok(None) => return Ok(json!({ "ended": false })),
            Ok(Some(summary)) => {
                trained(session.network().clone(), session.options(), &summary, &splits.test).map(|m| studio.finish(m))
            }
            Err(error) => Err(error.into()),
        };
        self.session = None;
        if let Err(error) = outcome {
            self.studio.fail(error.to_string());
        }
        Ok(json!({ "ended": true }))
    }
}

/// The model of a run.
fn trained(
    network: Network,
    options: &TrainOptions,
    summary: &TrainSummary,
    test: &Dataset,
) -> Result<ModelFile, LocalError> {
    let preprocessing = preprocessing()?;
    Ok(ModelFile {
        test_vectors: TestVectors::of_data(test, VECTORS, &preprocessing).recorded(&network)?,
        network,
        class_names: one_class_names(mnist::CLASSES),
        preprocessing,
        training: serde_json::to_value(options)?,
        metrics: serde_json::to_value(summary.last())?,
        temperature: None,
        quantized: None,
    })
}

/// Trains at one go what [`Local`] trains in slices.
///
/// # Errors
/// What is wrong with the options, or a run that diverges.
pub fn train(lesson: &Lesson) -> Result<ModelFile, LocalError> {
    let (options, splits) = (lesson.options()?, mnist::splits()?);
    let chosen = lesson.chosen(&splits.train);
    let mut session = Session::new(fresh(options.seed)?.network, chosen, Normalization::identity(), options);
    loop {
        if let Some(summary) = session.advance(&splits, Duration::MAX, &mut |_| Control::Continue)? {
            return trained(session.network().clone(), session.options(), &summary, &splits.test);
        }
    }
}

/// A studio with the built-in data, if the model is one for it.
fn around(model: ModelFile) -> Studio {
    let fits = model.network.input() == mnist::SHAPE && model.network.classes() == mnist::CLASSES;
    let studio = Studio::new(model);
    if fits {
        return studio.with_data(DataSource::new(mnist::NAME, || mnist::splits().map_err(|error| error.to_string())));
    }
    studio
}

/// An untrained model.
fn fresh(seed: u64) -> Result<ModelFile, LocalError> {
    Ok(ModelFile {
        network: Network::new(models::by_name(MODEL, mnist::SHAPE, mnist::CLASSES)?, seed)?,
        class_names: one_class_names(mnist::CLASSES),
        preprocessing: preprocessing()?,
        training: Value::Null,
        metrics: Value::Null,
        test_vectors: TestVectors::none(),
        temperature: None,
        quantized: None,
    })
}

fn preprocessing() -> Result<Preprocessing, DataError> {
    Preprocessing::new(mnist::SHAPE, Fit::Digit, Normalization::identity())
}
