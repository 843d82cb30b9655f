//! MODEL: a model file, or a run directory that holds one; and where only the architecture matters, also a model by name
//! or a TOML file.

use crate::error::CliError;
use clap::Args;
use std::path::{Path, PathBuf};
use striate::formats::{ModelFile, from_toml, load_model};
use striate::layers::Init;
use striate::models::{self, ModelError, Request};
use striate::network::{Description, Weights};
use striate::shape::Shape;

/// The model file's name in a run directory.
pub(crate) const FILE: &str = "model.safetensors";

/// The largest TOML file that is read.
const MOST_TOML: u64 = 4 << 20;

/// Options of a model by name.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ModelOptions {
    /// One input, for a model by name [default: as published]
    #[arg(long, value_name = "C,H,W", value_parser = parse_shape)]
    pub(crate) input: Option<Shape>,
    /// Number of classes, for a model by name [default: as published]
    #[arg(long, value_name = "N")]
    pub(crate) classes: Option<usize>,
    /// An option of a model by name, as in activation=relu or dropout=0.3; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_setting)]
    pub(crate) settings: Vec<(String, String)>,
}

impl ModelOptions {
    pub(crate) fn is_empty(&self) -> bool {
        self.input.is_none() && self.classes.is_none() && self.settings.is_empty()
    }
}

/// How the weights are kept that predictions read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum WeightsOption {
    /// As they are
    #[default]
    F32,
    /// Fully connected layers so large that memory is their limit: in bfloat16, half the bytes
    Bf16,
}

impl From<WeightsOption> for Weights {
    fn from(option: WeightsOption) -> Self {
        match option {
            WeightsOption::F32 => Weights::F32,
            WeightsOption::Bf16 => Weights::Bf16,
        }
    }
}

/// What MODEL turned out to be.
pub(crate) enum Architecture {
    /// Layers without weights.
    Described(Description),
    /// A trained model.
    Trained(Box<ModelFile>),
}

impl Architecture {
    pub(crate) fn description(&self) -> &Description {
        match self {
            Architecture::Described(description) => description,
            Architecture::Trained(file) => file.network.description(),
        }
    }
}

/// Whether `model` can be a model at all, with these settings, before any work is done for it.
pub(crate) fn check(model: &str, settings: &[(String, String)]) -> Result<(), CliError> {
    if models::NAMES.contains(&model) {
        return match models::build(model, &Request { settings, ..Request::default() }) {
            Err(error @ ModelError::Setting { .. }) => Err(error.into()),
            // Whether it fits is a matter of the sizes that are to come.
            _ => Ok(()),
        };
    }
    if !Path::new(model).exists() {
        return Err(ModelError::Unknown { name: model.into() }.into());
    }
    if !settings.is_empty() {
        return Err(CliError::Usage(format!("{model}: --set is for a model by name; a file has its own options")));
    }
    Ok(())
}

/// The architecture that `model` names: a model of the zoo, a TOML file, a model file or a run directory.
pub(crate) fn architecture(model: &str, options: &ModelOptions) -> Result<Architecture, CliError> {
    if models::NAMES.contains(&model) {
        let request = Request { input: options.input, classes: options.classes, settings: &options.settings };
        return Ok(Architecture::Described(models::build(model, &request)?));
    }
    let path = Path::new(model);
    if !path.exists() {
        return Err(CliError::Usage(format!(
            "{model:?} is neither a model, a file nor a run directory; the models are {}",
            models::NAMES.join(", ")
        )));
    }
    if !options.is_empty() {
        return Err(CliError::Usage(format!(
            "{model}: --input, --classes and --set are for a model by name; a file has its own"
        )));
    }
    if path.extension().is_some_and(|ending| ending == "toml") {
        return Ok(Architecture::Described(read_toml(path)?));
    }
    Ok(Architecture::Trained(Box::new(load(path)?)))
}

/// Reads a network from a TOML file.
fn read_toml(path: &Path) -> Result<Description, CliError> {
    let io = |source| CliError::Io { path: path.to_owned(), action: "read the file", source };
    let length = path.metadata().map_err(io)?.len();
    if length > MOST_TOML {
        return Err(CliError::Usage(format!(
            "{}: the file is {length} bytes long; an architecture may have at most {MOST_TOML}",
            path.display()
        )));
    }
    let text = std::fs::read_to_string(path).map_err(io)?;
    Ok(from_toml(&text, &path.display().to_string())?)
}

/// The file that MODEL stands for.
pub(crate) fn path(model: &Path) -> PathBuf {
    if model.is_dir() { model.join(FILE) } else { model.to_owned() }
}

/// Loads MODEL.
pub(crate) fn load(model: &Path) -> Result<ModelFile, CliError> {
    let file = path(model);
    if !file.exists() {
        return Err(CliError::Usage(if model.is_dir() {
            format!("{}: no {FILE} in this directory; is it a run directory?", model.display())
        } else {
            format!("{}: no such file; MODEL is a .safetensors or .onnx file or a run directory", model.display())
        }));
    }
    Ok(load_model(&file)?)
}

/// Loads MODEL, which must be in float: bytes can't `what`.
pub(crate) fn load_float(model: &Path, what: &'static str) -> Result<ModelFile, CliError> {
    let file = load(model)?;
    match file.quantized {
        Some(_) => Err(CliError::Quantized { model: model.display().to_string(), what }),
        None => Ok(file),
    }
}

pub(crate) fn parse_shape(text: &str) -> Result<Shape, String> {
    let sizes: Result<Vec<usize>, _> = text.split(',').map(str::trim).map(str::parse).collect();
    match sizes.as_deref() {
        Ok(&[channels, height, width]) => Ok(Shape::new(channels, height, width)),
        _ => Err("three whole numbers are needed: channels,height,width, as in 1,28,28".into()),
    }
}

pub(crate) fn parse_setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => Ok((key.into(), value.into())),
        _ => Err("KEY=VALUE is needed, as in activation=relu".into()),
    }
}

/// `he`, `xavier` or `normal:0.01`.
pub(crate) fn parse_init(text: &str) -> Result<Init, String> {
    match text.split_once(':') {
        None if text == "he" => Ok(Init::He),
        None if text == "xavier" => Ok(Init::Xavier),
        Some(("normal", deviation)) => match deviation.parse() {
            Ok(deviation) if (0.0..=1e3).contains(&deviation) => Ok(Init::Normal { deviation }),
            _ => Err(format!("{deviation:?} is not a standard deviation; it must be a number from 0 to 1000")),
        },
        _ => Err("the initialisations are he, xavier and normal:DEVIATION".into()),
    }
}
