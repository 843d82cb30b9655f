//! A complete model in one file.
//!
//! Weights, architecture, class names, the exact preprocessing and a few inputs with the logits they gave travel
//! together, so a model can be run anywhere and can tell by itself whether it still gives the same numbers.
//!
//! The file is a [`container`](super::container): safetensors with a checksum. Its metadata:
//!
//! | key | value |
//! |---|---|
//! | `striate.version` | `2`, or `3` of a network in bytes; every version from 1 on is read |
//! | `striate.architecture` | the network's [`Description`] as JSON |
//! | `striate.parameters` | the parameters' names in layer order, as JSON |
//! | `striate.classes` | the class names in order, as JSON |
//! | `striate.preprocessing` | the [`Preprocessing`] as JSON |
//! | `striate.training` | how it was trained, any JSON |
//! | `striate.metrics` | how good it is, any JSON |
//! | `striate.temperature` | the [`Temperature`] as JSON; not there where the probabilities are not calibrated |
//! | `striate.quantization` | of a network in bytes: what the bytes of the input and of each layer's output stand for, as JSON |
//! | `striate.checksum` | see [`container`](super::container) |
//!
//! The tensors are the parameters under their own names, and the test vectors, one number of them each:
//!
//! | tensor | what it holds |
//! |---|---|
//! | `striate.test.file.0`, `.1`, ... | U8: an image file, as it was |
//! | `striate.test.pixels` | U8, (N, C, H, W): what decoding and fitting made of them |
//! | `striate.test.inputs` | F32, (N, C, H, W): what normalisation made of the pixels |
//! | `striate.test.logits` | F32, (N, classes): what the network made of the inputs |
//!
//! In a network in bytes the weights of convolutions and affine layers are I8 and their biases I32, and a weight's name
//! with `.scale` (`W1.scale`) is the F32 tensor of what the weights of each output channel are multiplied by.
//!
//! Inputs that are no pictures have no files and no pixels. Version 1 had only inputs and logits.

use super::atomic::write_atomically;
use super::container::{Container, ContainerWriter, read_file, shorten, unwritable};
use super::error::FormatError;
use super::fields::{self, ARCHITECTURE, MOST_BYTES, MOST_FREE_BYTES};
use crate::data::preprocessing::Preprocessing;
use crate::data::{DataError, Dataset};
use crate::int8::{self, QuantizationParameters, QuantizedNetwork, QuantizedWeights};
use crate::kernels::softmax::softmax;
use crate::layers::Role;
use crate::network::description::INPUT;
use crate::network::{Description, Network, NetworkError, Parameters, Predictor, Weights};
use crate::random::{Purpose, Random};
use ndarray::{Array, Array2, Array4, ArrayView1, ArrayView4, Axis, Dimension, s};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The newest version that is read; written for networks in bytes.
pub const VERSION: u64 = 3;

/// The version that is written for all others, so that what knows no bytes can read them.
pub const FLOAT_VERSION: u64 = 2;

const VERSION_KEY: &str = "striate.version";
const PARAMETERS: &str = "striate.parameters";
const CLASSES: &str = "striate.classes";
const PREPROCESSING: &str = "striate.preprocessing";
const TRAINING: &str = "striate.training";
const METRICS: &str = "striate.metrics";
const TEMPERATURE: &str = "striate.temperature";
const QUANTIZATION: &str = "striate.quantization";
/// What the name of a weight's scales ends with.
const SCALE: &str = ".scale";
/// What the names of all test vectors' tensors begin with.
const TEST: &str = "striate.test.";
/// Followed by the number of the test vector.
const TEST_FILE: &str = "striate.test.file.";
const TEST_PIXELS: &str = "striate.test.pixels";
const TEST_INPUTS: &str = "striate.test.inputs";
const TEST_LOGITS: &str = "striate.test.logits";
/// Tensors of this prefix are ours, not parameters.
const RESERVED: &str = "striate.";
/// The longest text of a field. Free JSON takes up to a hundred times its length in memory, so it gets less.
fn most_bytes(key: &str) -> usize {
    match key {
        TRAINING | METRICS => MOST_FREE_BYTES,
        _ => MOST_BYTES,
    }
}
/// More image files than any model needs to tell whether it is itself; each may take a while to decode.
const MAX_TEST_FILES: usize = 256;
/// An image file longer than this is kept as a PNG of what was made of it.
const LARGE_FILE: u64 = 256 << 10;
/// Samples in one batch of [`TestVectors`].
const BATCH: usize = 16;
/// What to call a model that has no file yet.
const THE_MODEL: &str = "the model";

/// A network with everything that is needed to use it: what goes in, what comes out and how it must be.
///
/// ```
/// use ndarray::Array4;
/// use striate::data::preprocessing::{Fit, Normalization, Preprocessing};
/// use striate::formats::{ModelFile, TestVectors};
/// use striate::network::Network;
/// use striate::shape::Shape;
///
/// let input = Shape::new(1, 12, 12);
/// let network = Network::new(striate::models::by_name("simple-convnet", input, 3)?, 1)?;
/// let test_vectors = TestVectors::record(&network, Array4::from_elem((2, 1, 12, 12), 0.5))?;
/// let model = ModelFile {
///     network,
///     class_names: vec!["cat".into(), "dog".into(), "owl".into()],
///     preprocessing: Preprocessing {
///         shape: input,
///         fit: Fit::Stretch,
///         normalization: Normalization { mean: vec![0.0], deviation: vec![1.0] },
///     },
///     training: serde_json::json!({ "epochs": 20 }),
///     metrics: serde_json::json!({ "test_accuracy": 0.75 }),
///     test_vectors,
///     temperature: None,
///     quantized: None,
/// };
///
/// let directory = tempfile::tempdir()?;
/// let path = directory.path().join("model.safetensors");
/// model.save(&path)?;
/// let loaded = ModelFile::load(&path)?;
/// assert_eq!(loaded.class_names[2], "owl");
/// assert_eq!(loaded.network.parameters(), model.network.parameters());
/// assert!(loaded.verify()?.is_passed());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct ModelFile {
    /// The network with its parameters.
    pub network: Network,
    /// What each logit stands for.
    pub class_names: Vec<String>,
    /// From an image file to the network's input.
    pub preprocessing: Preprocessing,
    /// How it was trained: any JSON.
    pub training: Value,
    /// How good it is: any JSON.
    pub metrics: Value,
    /// Inputs with the logits they gave where the model was saved.
    pub test_vectors: TestVectors,
    /// What calibrates the probabilities, if anything does.
    pub temperature: Option<Temperature>,
    /// The network in bytes, if it is one: then this is what runs, and [`ModelFile::network`] holds the weights that its
    /// bytes stand for.
    pub quantized: Option<QuantizedNetwork>,
}

/// What the logits are divided by before softmax makes probabilities of them (Guo et al., 2017), and where that is from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Temperature {
    /// Positive and finite; above 1 makes a network less sure of itself.
    pub value: f64,
    /// The data it was fitted on.
    pub data: String,
    /// How many images these were.
    pub images: usize,
}

/// A few inputs, raw and preprocessed, with the logits they gave.
#[derive(Clone, Debug, PartialEq)]
pub struct TestVectors {
    /// Contents of image files, one an input; none where the inputs are no pictures.
    pub files: Vec<Vec<u8>>,
    /// What decoding and fitting made of the files, (N, C, H, W); of no images where the inputs are no pictures.
    pub pixels: Array4<u8>,
    /// Network inputs, (N, C, H, W).
    pub inputs: Array4<f32>,
    /// What came out, (N, classes); of no rows before [`TestVectors::recorded`].
    pub logits: Array2<f32>,
}

impl TestVectors {
    /// None at all.
    pub fn none() -> Self {
        Self::of_inputs(Array4::zeros((0, 0, 0, 0)))
    }

    /// Inputs that are no pictures, without logits yet.
    pub fn of_inputs(inputs: Array4<f32>) -> Self {
        let inputs = if inputs.is_empty() { Array4::zeros((0, 0, 0, 0)) } else { inputs };
        Self { files: Vec::new(), pixels: Array4::zeros((0, 0, 0, 0)), inputs, logits: Array2::zeros((0, 0)) }
    }

    /// Image files by their contents, without logits yet.
    ///
    /// ```
    /// use striate::data::preprocessing::{Fit, Normalization, Preprocessing};
    /// use striate::formats::TestVectors;
    /// use striate::{models, network::Network, shape::Shape};
    ///
    /// let input = Shape::new(1, 12, 12);
    /// let preprocessing = Preprocessing::new(input, Fit::Stretch, Normalization::identity())?;
    /// let picture = preprocessing.encode(&[51; 144])?;
    /// let network = Network::new(models::by_name("simple-convnet", input, 3)?, 1)?;
    /// let vectors = TestVectors::of_files(&preprocessing, vec![picture])?.recorded(&network)?;
    /// assert_eq!((vectors.pixels[[0, 0, 5, 5]], vectors.inputs[[0, 0, 5, 5]]), (51, 0.2));
    /// assert_eq!(vectors.logits.dim(), (1, 3));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Files that can't be decoded.
    pub fn of_files(preprocessing: &Preprocessing, files: Vec<Vec<u8>>) -> Result<Self, DataError> {
        let mut pixels = Vec::with_capacity(files.len() * preprocessing.shape.len());
        for (vector, file) in files.iter().enumerate() {
            pixels.extend(preprocessing.decode(file, &format!("the file of test vector {vector}"))?);
        }
        Ok(Self { files, ..Self::of_pixels(preprocessing, pixels) })
    }

    /// Pixels (N, C, H, W) whose files are not at hand.
    fn of_pixels(preprocessing: &Preprocessing, pixels: Vec<u8>) -> Self {
        let [channels, height, width] = preprocessing.shape.into();
        let inputs = preprocessing.apply(&pixels);
        let dim = (inputs.len() / preprocessing.shape.len().max(1), channels, height, width);
        match (Array4::from_shape_vec(dim, pixels), Array4::from_shape_vec(dim, inputs)) {
            (Ok(pixels), Ok(inputs)) if !inputs.is_empty() => Self { pixels, ..Self::of_inputs(inputs) },
            _ => Self::none(),
        }
    }

    /// The first images of a data set, at most `count`, without logits yet: their own files, or PNG files of their pixels
    /// where they have none or long ones. Where decoding a file does not give the data set's pixels the files are left
    /// out, so that what is recorded is what the network was measured on.
    pub fn of_data(data: &Dataset, count: usize, preprocessing: &Preprocessing) -> Self {
        let count = count.min(data.len());
        let pixels: Option<Vec<_>> = (0..count).map(|image| data.bytes(image)).collect();
        let Some(pixels) = pixels else {
            return Self::of_inputs(data.batch(0..count, &preprocessing.normalization));
        };
        let files = pixels.iter().enumerate().map(|(image, pixels)| {
            let own = data.path(image).filter(|path| {
                std::fs::symlink_metadata(path).is_ok_and(|found| found.is_file() && found.len() <= LARGE_FILE)
            });
            own.and_then(|path| std::fs::read(path).ok()).or_else(|| preprocessing.encode(pixels).ok())
        });
        let exact = Self::of_pixels(preprocessing, pixels.concat());
        let decoded = files.collect::<Option<Vec<_>>>().and_then(|files| Self::of_files(preprocessing, files).ok());
        decoded.filter(|decoded| decoded.pixels == exact.pixels).unwrap_or(exact)
    }

    /// Pictures of noise, without logits yet, for a model that came without any.
    ///
    /// # Errors
    /// Preprocessing that can't be carried out.
    pub fn of_noise(count: usize, preprocessing: &Preprocessing) -> Result<Self, DataError> {
        let random = Random::new(0, Purpose::Test, 0);
        let mut place = 0u64;
        let mut picture = || -> Vec<u8> {
            let mut pixel = || {
                place += 1;
                (random.uniform(place) * 256.0) as u8
            };
            (0..preprocessing.shape.len()).map(|_| pixel()).collect()
        };
        let files: Result<Vec<_>, _> = (0..count).map(|_| preprocessing.encode(&picture())).collect();
        Self::of_files(preprocessing, files?)
    }

    /// The same with the logits that this network gives.
    ///
    /// # Errors
    /// Inputs that the network does not take.
    pub fn recorded(self, network: &Network) -> Result<Self, NetworkError> {
        self.recorded_by(|x| network.predict(x))
    }

    /// The same with the logits that this network in bytes gives.
    ///
    /// # Errors
    /// Inputs that the network does not take.
    pub fn recorded_in_bytes(self, network: &QuantizedNetwork) -> Result<Self, NetworkError> {
        self.recorded_by(|x| network.predict(x))
    }

    fn recorded_by(
        mut self,
        predict: impl Fn(ArrayView4<'_, f32>) -> Result<Array2<f32>, NetworkError>,
    ) -> Result<Self, NetworkError> {
        let mut rows = Vec::new();
        for (start, logits) in replay(predict, self.inputs.view()) {
            rows.push((start, logits?));
        }
        let classes = rows.first().map_or(0, |(_, logits)| logits.ncols());
        self.logits = Array2::zeros((self.len(), classes));
        for (start, found) in rows {
            self.logits.slice_mut(s![start..start + found.nrows(), ..]).assign(&found);
        }
        Ok(self)
    }

    /// Runs the network on inputs that are no pictures, and notes what comes out.
    ///
    /// # Errors
    /// Inputs that the network does not take.
    pub fn record(network: &Network, inputs: Array4<f32>) -> Result<Self, NetworkError> {
        Self::of_inputs(inputs).recorded(network)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.inputs.dim().0
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The logits of a few inputs at a time, each with the number of its first input.
fn replay<'a>(
    predict: impl Fn(ArrayView4<'_, f32>) -> Result<Array2<f32>, NetworkError> + 'a,
    inputs: ArrayView4<'a, f32>,
) -> impl Iterator<Item = (usize, Result<Array2<f32>, NetworkError>)> {
    let count = inputs.dim().0;
    (0..count).step_by(BATCH).map(move |start| {
        let batch = inputs.slice(s![start..count.min(start + BATCH), .., .., ..]).to_owned();
        (start, predict(batch.view()))
    })
}

/// A step on the way from an image file to the logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// From an image file to pixels of the network's size.
    Decode,
    /// From pixels to the network's input.
    Preprocess,
    /// From the input to the logits.
    Logits,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Stage::Decode => "decode",
            Stage::Preprocess => "preprocess",
            Stage::Logits => "logits",
        })
    }
}

/// What [`ModelFile::verify`] found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verification {
    /// How many test vectors the file has.
    pub vectors: usize,
    /// How many of them gave what was noted at every stage.
    pub passed: usize,
    /// The first number that differs: of the earliest stage, its first vector.
    pub first_difference: Option<Difference>,
    /// The stages that the file has something noted for.
    pub stages: Vec<StageResult>,
}

/// What came of one stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StageResult {
    /// Which.
    pub stage: Stage,
    /// How many test vectors gave what was noted.
    pub passed: usize,
}

impl Verification {
    /// Whether every vector gave what was noted. (True of a file without any: look at `vectors`.)
    pub fn is_passed(&self) -> bool {
        self.first_difference.is_none()
    }
}

/// A number that is not what was noted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Where on the way; each stage starts from what was noted of the one before, so no other stage has a part in it.
    pub stage: Stage,
    /// Which test vector, from 0.
    pub vector: usize,
    /// Which number of it, by axis: channel, row and column, or the logit.
    pub index: Vec<usize>,
    /// What came out here; NaN where nothing did.
    pub found: f32,
    /// What came out where the model was saved.
    pub expected: f32,
    /// Why nothing came out.
    pub problem: Option<String>,
}

/// Compares what came out of a stage with what was noted.
struct Comparison {
    stage: Stage,
    first: Option<Difference>,
}

impl Comparison {
    /// Whether every number is within `tolerance` of what was noted; `shape` is that of one vector.
    fn holds<T: Copy + Into<f32>>(
        &mut self,
        vector: usize,
        shape: &[usize],
        found: Result<&[T], String>,
        expected: &[T],
        tolerance: f32,
    ) -> bool {
        let values = found.as_ref().copied().unwrap_or_default();
        // NaN is never close, and neither is what did not come.
        let close = |at: usize, expected: f32| {
            values.get(at).is_some_and(|&found| (found.into() - expected).abs() <= tolerance)
        };
        let Some(at) = (0..expected.len()).find(|&at| !close(at, expected[at].into())) else { return true };
        self.first.get_or_insert_with(|| Difference {
            stage: self.stage,
            vector,
            index: index_of(at, shape),
            found: values.get(at).map_or(f32::NAN, |&value| value.into()),
            expected: expected[at].into(),
            problem: found.err(),
        });
        false
    }
}

/// The values of one vector in row-major order.
fn row<T: Clone, D: Dimension + ndarray::RemoveAxis>(array: &Array<T, D>, vector: usize) -> Vec<T> {
    array.index_axis(Axis(0), vector).iter().cloned().collect()
}

/// How large a tolerance is for values like these: relative to the largest, or to 1.
fn scale(values: ArrayView1<'_, f32>) -> f32 {
    values.iter().fold(1.0f32, |largest, value| largest.max(value.abs()))
}

/// The place of a value by axis.
fn index_of(mut place: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (at, &size) in index.iter_mut().zip(shape).rev() {
        *at = place % size.max(1);
        place /= size.max(1);
    }
    index
}

impl ModelFile {
    /// How far a logit may be from the noted one: this times the largest noted logit of the vector, or times 1 if
    /// that is larger. Machines with other instructions add in another order.
    pub const TOLERANCE: f32 = 1e-4;

    /// The same for the exported model in another runtime. Of a network in bytes it is a hundredth: where a runtime
    /// rounds one number in the middle to the neighbouring byte, logits differ by what a byte stands for.
    pub fn tolerance_elsewhere(&self) -> f32 {
        if self.quantized.is_some() { 0.01 } else { Self::TOLERANCE }
    }

    /// Writes the model to a file, or leaves the file that was there.
    ///
    /// # Errors
    /// See [`ModelFile::to_bytes`] and [`write_atomically`].
    pub fn save(&self, path: &Path) -> Result<(), FormatError> {
        Ok(write_atomically(path, &self.to_bytes()?)?)
    }

    /// Reads a file, and checks it against its checksum and itself.
    ///
    /// # Errors
    /// See [`FormatError`]. A refusal takes little time and memory whatever the file claims.
    pub fn load(path: &Path) -> Result<Self, FormatError> {
        Self::from_bytes(&read_file(path)?, &path.display().to_string())
    }

    /// The bytes of the model's file. The same model always gives the same bytes.
    ///
    /// # Errors
    /// Values that are not finite, and parts that don't fit each other: such a file could not be loaded.
    pub fn to_bytes(&self) -> Result<Vec<u8>, FormatError> {
        self.check(THE_MODEL)?;
        let parameters = self.network.parameters();
        let names: Vec<&str> = parameters.specs().iter().map(|spec| spec.name.as_str()).collect();
        let mut writer = ContainerWriter::new();
        let version = if self.quantized.is_some() { VERSION } else { FLOAT_VERSION };
        writer.field(VERSION_KEY, version.to_string())?;
        writer.field(ARCHITECTURE, json::<Description>(ARCHITECTURE, self.network.description())?)?;
        writer.field(PARAMETERS, json::<Vec<String>>(PARAMETERS, &names)?)?;
        writer.field(CLASSES, json::<Vec<String>>(CLASSES, &self.class_names)?)?;
        writer.field(PREPROCESSING, json::<Preprocessing>(PREPROCESSING, &self.preprocessing)?)?;
        writer.field(TRAINING, json::<Value>(TRAINING, &self.training)?)?;
        writer.field(METRICS, json::<Value>(METRICS, &self.metrics)?)?;
        if let Some(temperature) = &self.temperature {
            writer.field(TEMPERATURE, json::<Temperature>(TEMPERATURE, temperature)?)?;
        }

        let in_bytes = self.in_bytes()?;
        if let Some(quantized) = &self.quantized {
            writer.field(QUANTIZATION, json::<Quantization>(QUANTIZATION, &Quantization::of(quantized))?)?;
        }
        for spec in parameters.specs() {
            if spec.name.starts_with(RESERVED) {
                return Err(unwritable(format!("the parameter {:?}", spec.name), "names like this are reserved"));
            }
            match in_bytes.get(spec.name.as_str()) {
                Some((weights, Role::Weight)) => {
                    writer.signed(&spec.name, &spec.shape, &weights.values)?;
                    writer.tensor(format!("{}{SCALE}", spec.name), &[weights.scales.len()], &weights.scales)?;
                    continue;
                }
                Some((weights, _)) => {
                    writer.integers(&spec.name, &spec.shape, &weights.bias)?;
                    continue;
                }
                None => {}
            }
            let values = parameters.as_slice().get(spec.range.clone()).unwrap_or_default();
            writer.tensor(&spec.name, &spec.shape, values)?;
        }
        let TestVectors { files, pixels, inputs, logits } = &self.test_vectors;
        // In row-major order, should the arrays be transposed or cut from others.
        let (pixel_values, input_values, logit_values) =
            (pixels.as_standard_layout(), inputs.as_standard_layout(), logits.as_standard_layout());
        if !self.test_vectors.is_empty() {
            writer.tensor(TEST_INPUTS, inputs.shape(), input_values.as_slice().unwrap_or_default())?;
            writer.tensor(TEST_LOGITS, logits.shape(), logit_values.as_slice().unwrap_or_default())?;
        }
        if !pixels.is_empty() {
            writer.bytes(TEST_PIXELS, pixels.shape(), pixel_values.as_slice().unwrap_or_default())?;
        }
        for (vector, file) in files.iter().enumerate() {
            writer.bytes(format!("{TEST_FILE}{vector}"), &[file.len()], file)?;
        }
        writer.to_bytes()
    }

    /// The parameters that are kept in bytes, by name.
    fn in_bytes(&self) -> Result<BTreeMap<&str, (&QuantizedWeights, Role)>, FormatError> {
        let Some(quantized) = &self.quantized else { return Ok(BTreeMap::new()) };
        let owners = self.network.description().parameter_owners();
        let owners = owners.map_err(FormatError::network(THE_MODEL))?;
        let specs = self.network.parameters().specs().iter().zip(owners);
        let weights = |owner: usize| quantized.weights().get(owner)?.as_ref();
        Ok(specs.filter_map(|(spec, owner)| Some((spec.name.as_str(), (weights(owner)?, spec.role)))).collect())
    }

    /// Logits, (N, classes), of a batch (N, C, H, W) of inputs: of the network in bytes, if it is one.
    ///
    /// # Errors
    /// As for [`Network::predict`].
    pub fn predict(&self, x: ArrayView4<'_, f32>) -> Result<Array2<f32>, NetworkError> {
        match &self.quantized {
            Some(quantized) => quantized.predict(x),
            None => self.network.predict(x),
        }
    }

    /// Ready to predict batches of `batch` samples again and again, with float weights kept as `weights` says.
    ///
    /// # Errors
    /// A batch of 0 or beyond any memory.
    pub fn predictor(&self, batch: usize, weights: Weights) -> Result<ModelPredictor<'_>, NetworkError> {
        Ok(match &self.quantized {
            Some(quantized) => ModelPredictor::Int8(int8::Predictor::new(quantized, batch)?),
            None => ModelPredictor::Float(Box::new(Predictor::new(&self.network, batch, weights)?)),
        })
    }

    /// From the bytes of a file; `name` is for messages.
    ///
    /// # Errors
    /// See [`FormatError`].
    pub fn from_bytes(bytes: &[u8], name: &str) -> Result<Self, FormatError> {
        let container = Container::from_bytes(bytes, name)?;
        let part = Parts { container: &container, name };
        part.check_version()?;
        let description = container.architecture()?;
        let class_names = part.field(CLASSES)?;
        let preprocessing = part.field(PREPROCESSING)?;
        let training = part.field(TRAINING)?;
        let metrics = part.field(METRICS)?;
        // Files from before there was such a field, and those that nothing was fitted for, go without.
        let temperature = container.field(TEMPERATURE).map(|_| part.field(TEMPERATURE)).transpose()?;
        let quantization: Option<Quantization> =
            container.field(QUANTIZATION).map(|_| part.field(QUANTIZATION)).transpose()?;
        let parameters = part.parameters(quantization.is_some())?;
        let test_vectors = part.test_vectors()?;
        let mut network = Network::with_parameters(description, parameters).map_err(FormatError::network(name))?;
        let quantized = quantization.map(|quantization| part.quantized(&quantization, &mut network)).transpose()?;
        let model =
            Self { network, class_names, preprocessing, training, metrics, test_vectors, temperature, quantized };
        model.check(name)?;
        Ok(model)
    }

    /// The name of a class, or its number where there is no such class.
    pub fn class_name(&self, class: usize) -> String {
        self.class_names.get(class).map_or_else(|| class.to_string(), Clone::clone)
    }

    /// The probabilities of rows of logits: softmax after the model's temperature, where it has one.
    ///
    /// ```
    /// # use ndarray::array;
    /// # use striate::data::preprocessing::{Fit, Normalization, Preprocessing};
    /// # use striate::formats::{ModelFile, Temperature, TestVectors};
    /// # use striate::network::Network;
    /// # let input = striate::shape::Shape::new(1, 12, 12);
    /// # let mut model = ModelFile {
    /// #     network: Network::new(striate::models::by_name("simple-convnet", input, 2)?, 1)?,
    /// #     class_names: vec!["cat".into(), "dog".into()],
    /// #     preprocessing: Preprocessing::new(input, Fit::Stretch, Normalization::identity())?,
    /// #     training: Default::default(),
    /// #     metrics: Default::default(),
    /// #     test_vectors: TestVectors::none(),
    /// #     temperature: None,
    /// #     quantized: None,
    /// # };
    /// let logits = array![[2.0f32, 0.0]];
    /// assert!((model.probabilities(&logits)[[0, 0]] - 0.8808).abs() < 1e-4);
    /// model.temperature = Some(Temperature { value: 2.0, data: "cats and dogs".into(), images: 100 });
    /// assert!((model.probabilities(&logits)[[0, 0]] - 0.7311).abs() < 1e-4);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn probabilities(&self, logits: &Array2<f32>) -> Array2<f32> {
        let divisor = self.temperature.as_ref().map_or(1.0, |temperature| temperature.value as f32);
        let mut scaled = Vec::with_capacity(logits.len());
        for row in logits.rows() {
            // Less the largest before the division, so that a small temperature overflows nothing.
            let largest = row.fold(f32::NEG_INFINITY, |a, &b| a.max(b));
            scaled.extend(row.iter().map(|&logit| (logit - largest) / divisor));
        }
        let mut probabilities = Array2::zeros(logits.dim());
        if let Some(probabilities) = probabilities.as_slice_mut().filter(|p| !p.is_empty()) {
            softmax(&scaled, probabilities, logits.ncols());
        }
        probabilities
    }

    /// Replays the test vectors on this machine stage by stage (decode, preprocess, logits), each from what was noted of
    /// the one before, and says which number differs first. Pixels must be the same, inputs and logits within
    /// [`ModelFile::TOLERANCE`].
    ///
    /// # Errors
    /// A network that can't be run here, for want of memory.
    pub fn verify(&self) -> Result<Verification, FormatError> {
        self.check(THE_MODEL)?;
        let TestVectors { files, pixels, inputs, logits } = &self.test_vectors;
        let sample: [usize; 3] = self.network.input().into();
        let mut passed = vec![true; self.test_vectors.len()];
        let mut first_difference = None;
        let mut stages = Vec::new();
        let mut finish = |Comparison { stage, first }: Comparison, held: Vec<bool>, all: &mut Vec<bool>| {
            first_difference = first_difference.take().or(first);
            stages.push(StageResult { stage, passed: held.iter().filter(|held| **held).count() });
            all.iter_mut().zip(held).for_each(|(all, held)| *all &= held);
        };

        if !files.is_empty() {
            let mut comparison = Comparison { stage: Stage::Decode, first: None };
            let held = files.iter().enumerate().map(|(vector, file)| {
                let found = self.preprocessing.decode(file, "its file").map_err(|error| error.to_string());
                let found = found.as_deref().map_err(String::clone);
                comparison.holds(vector, &sample, found, &row(pixels, vector), 0.0)
            });
            let held = held.collect();
            finish(comparison, held, &mut passed);
        }
        if !pixels.is_empty() {
            let mut comparison = Comparison { stage: Stage::Preprocess, first: None };
            let held = (0..passed.len()).map(|vector| {
                let expected = row(inputs, vector);
                let tolerance = Self::TOLERANCE * scale(ArrayView1::from(&expected));
                let found = self.preprocessing.apply(&row(pixels, vector));
                comparison.holds(vector, &sample, Ok(&found), &expected, tolerance)
            });
            let held = held.collect();
            finish(comparison, held, &mut passed);
        }
        let mut comparison = Comparison { stage: Stage::Logits, first: None };
        let mut held = Vec::with_capacity(passed.len());
        for (start, found) in replay(|x| self.predict(x), inputs.view()) {
            let found = found.map_err(FormatError::network(THE_MODEL))?;
            for at in 0..found.nrows() {
                let (found, expected) = (row(&found, at), row(logits, start + at));
                let tolerance = Self::TOLERANCE * scale(ArrayView1::from(&expected));
                held.push(comparison.holds(start + at, &[self.network.classes()], Ok(&found), &expected, tolerance));
            }
        }
        finish(comparison, held, &mut passed);
        let passed_all = passed.iter().filter(|passed| **passed).count();
        Ok(Verification { vectors: passed.len(), passed: passed_all, first_difference, stages })
    }

    /// Whether the parts fit each other and every number is finite.
    fn check(&self, name: &str) -> Result<(), FormatError> {
        let same = |what: &'static str, found: String, expected: String| {
            if found == expected {
                Ok(())
            } else {
                Err(FormatError::Inconsistent { name: name.to_string(), what, found, expected })
            }
        };
        let (input, classes) = (self.network.input(), self.network.classes());
        if let Some(quantized) = &self.quantized
            && quantized.description() != self.network.description()
        {
            let name_of = |description: &Description| format!("{:?}", description.name);
            let (found, expected) = (name_of(quantized.description()), name_of(self.network.description()));
            let what = "the layers of the network in bytes";
            return Err(FormatError::Inconsistent { name: name.to_string(), what, found, expected });
        }
        same("the number of class names", self.class_names.len().to_string(), classes.to_string())?;
        same("the shape that the preprocessing makes", self.preprocessing.shape.to_string(), input.to_string())?;
        if !(self.test_vectors.is_empty() && self.test_vectors.logits.is_empty()) {
            let count = self.test_vectors.len();
            let [channels, height, width] = input.into();
            let shown = |shape: &[usize]| format!("{shape:?}");
            let inputs = shown(&[count, channels, height, width]);
            same("the shape of the test inputs", shown(self.test_vectors.inputs.shape()), inputs)?;
            let logits = shown(&[count, classes]);
            same("the shape of the test logits", shown(self.test_vectors.logits.shape()), logits)?;
        }
        let TestVectors { files, pixels, inputs, .. } = &self.test_vectors;
        if !(pixels.is_empty() && files.is_empty()) {
            let shown = |shape: &[usize]| format!("{shape:?}");
            same("the shape of the test pixels", shown(pixels.shape()), shown(inputs.shape()))?;
        }
        if !files.is_empty() {
            same("the number of test files", files.len().to_string(), inputs.dim().0.min(MAX_TEST_FILES).to_string())?;
        }
        let parameters = self.network.parameters();
        for spec in parameters.specs() {
            let values = parameters.as_slice().get(spec.range.clone()).unwrap_or_default();
            check_finite(values.iter(), &spec.shape, &spec.name, name)?;
        }
        if let Some(temperature) = &self.temperature
            // As f32 too, which is what divides.
            && !((temperature.value as f32).is_finite() && temperature.value as f32 > 0.0)
        {
            let reason = format!("the value is {:?}; it must be a positive number", temperature.value);
            return Err(FormatError::Field { name: name.to_string(), key: TEMPERATURE, reason });
        }
        let TestVectors { inputs, logits, .. } = &self.test_vectors;
        check_finite(inputs.iter(), inputs.shape(), TEST_INPUTS, name)?;
        check_finite(logits.iter(), logits.shape(), TEST_LOGITS, name)
    }
}

fn check_finite<'a>(
    values: impl Iterator<Item = &'a f32>,
    shape: &[usize],
    tensor: &str,
    name: &str,
) -> Result<(), FormatError> {
    let Some((place, &value)) = values.enumerate().find(|(_, value)| !value.is_finite()) else {
        return Ok(());
    };
    let index = index_of(place, shape);
    Err(FormatError::NonFinite { name: name.to_string(), tensor: shorten(tensor), index, value })
}

/// A field as text.
fn json<T: DeserializeOwned>(key: &'static str, value: &impl Serialize) -> Result<String, FormatError> {
    fields::to_text::<T>(key, value, most_bytes(key))
}

/// What the bytes of a network stand for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Quantization {
    /// By layer; `input` is the network's own.
    activations: BTreeMap<String, QuantizationParameters>,
}

impl Quantization {
    fn of(quantized: &QuantizedNetwork) -> Self {
        let layers = quantized.description().layers.iter().map(|named| named.name.clone());
        let names = std::iter::once(INPUT.to_string()).chain(layers);
        Self { activations: names.zip(quantized.activations().iter().copied()).collect() }
    }
}

/// A model ready to predict batches of one size, in float or in bytes.
#[derive(Debug)]
pub enum ModelPredictor<'a> {
    /// In float.
    Float(Box<Predictor<'a>>),
    /// In bytes.
    Int8(int8::Predictor<'a>),
}

impl ModelPredictor<'_> {
    /// Logits (N, classes) of N samples (N, C, H, W), where N is the batch size.
    ///
    /// # Errors
    /// As for [`Predictor::predict`].
    pub fn predict(&mut self, x: ArrayView4<'_, f32>) -> Result<Array2<f32>, NetworkError> {
        match self {
            ModelPredictor::Float(predictor) => predictor.predict(x),
            ModelPredictor::Int8(predictor) => predictor.predict(x),
        }
    }
}

/// Takes a container apart.
struct Parts<'a> {
    container: &'a Container<'a>,
    name: &'a str,
}

impl Parts<'_> {
    fn field<T: DeserializeOwned>(&self, key: &'static str) -> Result<T, FormatError> {
        self.container.json(key, most_bytes(key))
    }

    fn check_version(&self) -> Result<(), FormatError> {
        let missing = || self.container.bad_field(VERSION_KEY, "it is missing; this is not a model file");
        let text = self.container.field(VERSION_KEY).ok_or_else(missing)?;
        match text.parse() {
            Ok(1..=VERSION) => Ok(()),
            Ok(found) if found > VERSION => {
                Err(FormatError::NewerVersion { name: self.name.to_string(), found, supported: VERSION })
            }
            _ => Err(self.container.bad_field(VERSION_KEY, format!("found {text:?}, expected a number from 1"))),
        }
    }

    /// The parameters; those in bytes, if there may be any, stay zero.
    fn parameters(&self, in_bytes: bool) -> Result<Parameters, FormatError> {
        let names: Vec<String> = self.field(PARAMETERS)?;
        let listed: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        if listed.len() != names.len() {
            return Err(self.container.bad_field(PARAMETERS, "a name is in the list twice"));
        }
        if let Some(name) = listed.iter().find(|name| name.starts_with(RESERVED)) {
            return Err(self.container.bad_field(PARAMETERS, format!("the name {name:?} is reserved")));
        }
        let test = |name: &str| {
            [TEST_INPUTS, TEST_LOGITS, TEST_PIXELS].contains(&name)
                // Those of numbers that are no vector's are missing from the numbers that are.
                || name.strip_prefix(TEST_FILE).is_some_and(|n| n.parse::<usize>().is_ok_and(|n| n < MAX_TEST_FILES))
        };
        let scale = |name: &str| {
            in_bytes
                && name
                    .strip_suffix(SCALE)
                    .is_some_and(|weight| listed.contains(weight) && self.container.is_signed(weight))
        };
        if let Some(tensor) = self.container.names().find(|name| !listed.contains(name) && !test(name) && !scale(name))
        {
            return Err(FormatError::UnexpectedTensor { name: self.name.to_string(), tensor: shorten(tensor) });
        }
        let mut shapes = Vec::with_capacity(names.len());
        for name in names {
            let shape = match () {
                () if in_bytes && self.container.is_signed(&name) => self.container.signed(&name)?.0,
                () if in_bytes && self.container.is_integers(&name) => self.container.integers(&name)?.0,
                () => self.container.shape(&name)?,
            };
            shapes.push((name.clone(), shape.to_vec()));
        }
        let mut parameters = Parameters::zeros(shapes).map_err(FormatError::network(self.name))?;
        let specs = parameters.specs().to_vec();
        for spec in specs {
            if in_bytes && (self.container.is_signed(&spec.name) || self.container.is_integers(&spec.name)) {
                continue;
            }
            let values = parameters.as_mut_slice().get_mut(spec.range).unwrap_or_default();
            self.container.read(&spec.name, values)?;
        }
        Ok(parameters)
    }

    /// The network in bytes; `network` gets the weights that these stand for.
    fn quantized(&self, quantization: &Quantization, network: &mut Network) -> Result<QuantizedNetwork, FormatError> {
        let description = network.description();
        let names = std::iter::once(INPUT).chain(description.layers.iter().map(|named| named.name.as_str()));
        let mut activations = Vec::with_capacity(description.layers.len() + 1);
        for layer in names {
            let found = quantization.activations.get(layer).copied();
            activations.push(
                found.ok_or_else(|| self.container.bad_field(QUANTIZATION, format!("layer {layer} is missing")))?,
            );
        }
        if quantization.activations.len() != activations.len() {
            return Err(self.container.bad_field(QUANTIZATION, "it names layers that there are not"));
        }
        let owners = description.parameter_owners().map_err(FormatError::network(self.name))?;
        let mut weights = vec![None; description.layers.len()];
        for (spec, owner) in network.parameters().specs().iter().zip(owners) {
            let name = spec.name.as_str();
            if spec.role == Role::Weight && self.container.is_signed(name) {
                let values = self.container.owned(self.container.signed(name)?.1)?;
                let scale = format!("{name}{SCALE}");
                let scales = self.container.numbers(&scale)?;
                let bias = vec![0; scales.len()];
                weights[owner] = Some(QuantizedWeights { values, scales, bias });
            } else if self.container.is_integers(name) {
                // The weights come first.
                let Some(weights) = &mut weights[owner] else {
                    return Err(self
                        .container
                        .bad_field(QUANTIZATION, format!("the weights of {name} are not in bytes")));
                };
                weights.bias = self.container.integers(name)?.1.collect();
            } else if weights[owner].is_some() || self.container.is_signed(name) {
                return Err(self
                    .container
                    .bad_field(QUANTIZATION, format!("{name} is of another type than its layer's weights")));
            }
        }
        QuantizedNetwork::new(network, activations, weights)
            .map_err(|source| FormatError::Int8 { name: self.name.to_string(), source: Box::new(source) })
    }

    fn test_vectors(&self) -> Result<TestVectors, FormatError> {
        if !self.container.names().any(|name| name.starts_with(TEST)) {
            return Ok(TestVectors::none());
        }
        let inconsistent = |what, found: &[usize], expected: &str| FormatError::Inconsistent {
            name: self.name.to_string(),
            what,
            found: format!("{found:?}"),
            expected: expected.to_string(),
        };
        let shape = self.container.shape(TEST_INPUTS)?;
        let axes: [usize; 4] =
            shape.try_into().map_err(|_| inconsistent("the shape of the test inputs", shape, "four axes"))?;
        let inputs = Array4::from_shape_vec(axes, self.container.numbers(TEST_INPUTS)?)
            .map_err(|_| inconsistent("the shape of the test inputs", shape, "smaller numbers"))?;
        let shape = self.container.shape(TEST_LOGITS)?;
        let axes: [usize; 2] =
            shape.try_into().map_err(|_| inconsistent("the shape of the test logits", shape, "two axes"))?;
        let logits = Array2::from_shape_vec(axes, self.container.numbers(TEST_LOGITS)?)
            .map_err(|_| inconsistent("the shape of the test logits", shape, "smaller numbers"))?;
        let pixels = if self.container.contains(TEST_PIXELS) {
            let (shape, values) = self.container.bytes(TEST_PIXELS)?;
            let axes: [usize; 4] =
                shape.try_into().map_err(|_| inconsistent("the shape of the test pixels", shape, "four axes"))?;
            Array4::from_shape_vec(axes, self.container.owned(values)?)
                .map_err(|_| inconsistent("the shape of the test pixels", shape, "smaller numbers"))?
        } else {
            Array4::zeros((0, 0, 0, 0))
        };
        let count = self.container.names().filter(|name| name.starts_with(TEST_FILE)).count();
        let files =
            (0..count).map(|vector| self.container.owned(self.container.bytes(&format!("{TEST_FILE}{vector}"))?.1));
        let files = files.collect::<Result<_, _>>()?;
        Ok(TestVectors { files, pixels, inputs, logits })
    }
}
