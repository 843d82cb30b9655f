//! What the page asks of a model, and the answers: JSON, with pictures that the library drew.
//!
//! One question, one answer: [`Studio::ask`] is all that lies between the page and a model, so that it does not matter to
//! the page where the model is.

mod about;
mod inside;
mod live;
mod pictures;
mod source;
mod why;

pub use about::answer;
pub use live::{Action, Live};
pub use source::DataSource;

use ndarray::Array3;
use serde::Deserialize;
use serde_json::Value;
use source::Looked;
use std::sync::{Arc, PoisonError, RwLock};
use striate::data::{DataError, Preprocessing};
use striate::draw::DrawError;
use striate::explain::ExplainError;
use striate::formats::ModelFile;
use striate::network::NetworkError;
use striate::train::TrainError;

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StudioError {
    /// A question that can't be answered, and why.
    #[error("{0}")]
    Question(String),
    /// A view that can't be had.
    #[error(transparent)]
    Explain(#[from] ExplainError),
    /// An image that can't be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A network that can't run.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// Data that does not fit the network.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// A picture that can't be encoded.
    #[error(transparent)]
    Draw(#[from] DrawError),
    /// Data that is not there, and why.
    #[error("the data is not here: {0}")]
    NoData(String),
}

/// Which images of the data.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Those it was trained with.
    Train,
    /// Those it is tested with.
    Test,
}

/// What the page can ask. Pixels are those of [`Question::Read`]'s answer, in base64.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Question {
    /// What model this is, what can be asked of it, and what its colours mean.
    About,
    /// The network as a diagram.
    Diagram,
    /// An image file in base64, as the network sees it and what it takes it for.
    Read {
        /// The file.
        file: String,
    },
    /// An image of the data, likewise.
    Sample {
        /// Of which part.
        split: Split,
        /// Which; counted around where there are fewer.
        index: usize,
    },
    /// Every layer's output.
    Maps {
        /// The image.
        pixels: String,
    },
    /// How one number of a layer's output came about.
    Worked {
        /// The image.
        pixels: String,
        /// The layer.
        layer: String,
        /// Map, row and column.
        at: (usize, usize, usize),
    },
    /// What in the image speaks for a class.
    Why {
        /// The image.
        pixels: String,
        /// The class; the predicted one if none is given.
        class: Option<usize>,
        /// The layer of Grad-CAM; the last convolution's if none is given.
        layer: Option<String>,
    },
    /// The filters of a convolution, the first if none is given.
    Filters {
        /// The layer.
        layer: Option<String>,
    },
    /// Training images that the network holds for alike.
    Similar {
        /// The image.
        pixels: String,
    },
    /// Which class was taken for which.
    Confusion,
    /// Images of one class that were taken for another.
    Cell {
        /// The class they belong to.
        row: usize,
        /// The class they were taken for.
        column: usize,
    },
    /// How the run goes, unless nothing has changed since this revision.
    Live {
        /// The revision that the page has.
        since: u64,
    },
}

impl Question {
    /// Whether all of the data may be gone over for it.
    pub fn is_long(&self) -> bool {
        matches!(self, Question::Similar { .. } | Question::Confusion | Question::Cell { .. })
    }
}

/// A model that is looked at.
pub struct Studio {
    /// That of a live run changes.
    model: RwLock<Arc<ModelFile>>,
    data: Option<DataSource>,
    looked: Looked,
    live: Option<Live>,
    /// Views run here, not on the threads of a run that they would hold up, or that holds them up.
    #[cfg(not(target_family = "wasm"))]
    pool: Option<rayon::ThreadPool>,
    most_pixels: u64,
}

impl Studio {
    /// The largest picture that is read, in pixels, if [`Studio::at_most`] says nothing else.
    pub const MOST_PIXELS: u64 = 24_000_000;

    /// Of a model at rest.
    pub fn new(model: ModelFile) -> Self {
        Self {
            model: RwLock::new(Arc::new(model)),
            data: None,
            looked: Looked::default(),
            live: None,
            #[cfg(not(target_family = "wasm"))]
            pool: None,
            most_pixels: Self::MOST_PIXELS,
        }
    }

    /// With the data that it was trained with and tested on, which is read when it is first needed.
    pub fn with_data(mut self, data: DataSource) -> Self {
        self.data = Some(data);
        self
    }

    /// Of a run that goes on. Views get a thread of their own.
    pub fn with_live(mut self, live: Live) -> Self {
        self.live = Some(live);
        #[cfg(not(target_family = "wasm"))]
        {
            // Without one, views share the run's threads: slower, not wrong.
            self.pool = rayon::ThreadPoolBuilder::new().num_threads(1).thread_name(|_| "view".into()).build().ok();
        }
        self
    }

    /// Reads pictures of so many pixels at most.
    pub fn at_most(mut self, pixels: u64) -> Self {
        self.most_pixels = pixels;
        self
    }

    /// The model as it is now.
    pub fn model(&self) -> Arc<ModelFile> {
        Arc::clone(&self.model.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The run, if this is one that goes on.
    pub fn live(&self) -> Option<&Live> {
        self.live.as_ref()
    }

    fn set_model(&self, model: ModelFile) {
        *self.model.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(model);
    }

    /// Computes where views compute.
    pub fn install<T: Send>(&self, compute: impl FnOnce() -> T + Send) -> T {
        #[cfg(not(target_family = "wasm"))]
        if let Some(pool) = &self.pool {
            return pool.install(compute);
        }
        compute()
    }

    /// Answers a question.
    ///
    /// # Errors
    /// A question about what is not there, or that can't be computed.
    pub fn ask(&self, question: Question) -> Result<Value, StudioError> {
        self.install(|| match question {
            Question::About => self.about(),
            Question::Diagram => self.diagram(),
            Question::Read { file } => self.read(&file),
            Question::Sample { split, index } => self.sample(split, index),
            Question::Maps { pixels } => self.maps(&pixels),
            Question::Worked { pixels, layer, at } => self.worked(&pixels, &layer, at),
            Question::Why { pixels, class, layer } => self.why(&pixels, class, layer.as_deref()),
            Question::Filters { layer } => self.filters(layer.as_deref()),
            Question::Similar { pixels } => self.similar(&pixels),
            Question::Confusion => self.confusion(),
            Question::Cell { row, column } => self.cell(row, column),
            Question::Live { since } => self.how_it_goes(since),
        })
    }
}

/// An image that is asked about.
struct Image {
    /// As a person sees it, 0 to 1.
    shown: Array3<f32>,
    /// As the network takes it.
    x: Array3<f32>,
}

impl Image {
    fn new(pixels: &[u8], preprocessing: &Preprocessing) -> Result<Self, StudioError> {
        let shape = preprocessing.shape;
        if pixels.len() != shape.len() {
            let (found, expected) = (pixels.len(), shape.len());
            return Err(StudioError::Question(format!("the image has {found} numbers; the model takes {expected}")));
        }
        let array = |values: Vec<f32>| {
            Array3::from_shape_vec((shape.channels, shape.height, shape.width), values)
                .map_err(|error| StudioError::Question(error.to_string()))
        };
        Ok(Self {
            shown: array(pixels.iter().map(|&pixel| f32::from(pixel) / 255.0).collect())?,
            x: array(preprocessing.apply(pixels))?,
        })
    }

    /// From base64.
    fn from_text(text: &str, preprocessing: &Preprocessing) -> Result<Self, StudioError> {
        Self::new(&pictures::bytes(text, "the image")?, preprocessing)
    }
}
