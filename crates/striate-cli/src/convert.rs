//! `striate convert`

use crate::error::CliError;
use crate::model::{self, Architecture, ModelOptions};
use crate::output::{Output, bytes};
use clap::Args;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use striate::data::{Fit, Normalization, Preprocessing, one_class_names};
use striate::formats::container::{MAX_FILE_BYTES, read_foreign_file, read_regular_file};
use striate::formats::{
    ForeignName, FormatError, ImportOptions, LoadError, ModelFile, NamedArray, NpzContents, OnnxOptions, TestVectors,
    book, is_onnx, load_onnx, network_of, pytorch, read_npz, read_pickle, to_npz, to_onnx, write_atomically,
};
use striate::models;
use striate::network::{Description, Network, ParameterSpec};
use striate_web::mnist::SHAPE;

const EXAMPLES: &str = "Examples:
  striate convert runs/simple-convnet-mnist-1 digits.onnx
  striate convert model.safetensors model.onnx --with-preprocessing
  striate convert model.safetensors model.npz              numpy.load reads it
  striate convert model.npz model.safetensors              and back: the archive holds the whole model
  striate convert params.pkl model.safetensors             the book's pickled dictionary; no code in it is run
  striate convert weights.npz model.safetensors --model mlp --set hidden=[50,100]
  striate convert resnet18.safetensors model.safetensors --model resnet18   torchvision's weights, saved by PyTorch
  striate convert others.onnx model.safetensors --class-names names.txt --fit center-crop:256 \
      --mean 0.485,0.456,0.406 --deviation 0.229,0.224,0.225      somebody's ONNX file, which says none of this

An ONNX file has the input `input` (N, C, H, W) and the output `logits` (N, classes), for any N; class names and
preprocessing are in its metadata.";

/// More class names than any file of them has letters.
const MOST_CLASS_NAMES: u64 = 4 << 20;
/// Pictures of noise that weights without a model file get as test vectors.
const NOISE: usize = 2;

/// Write a model in another format: ONNX for other runtimes, npz for NumPy; or make a model of weights that others saved
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ConvertArgs {
    /// A model file, a run directory, or weights: .npz, .pkl, or PyTorch's .safetensors
    model: PathBuf,
    /// The file to write; its ending says the format: .safetensors, .onnx or .npz
    out: PathBuf,
    /// Begin the ONNX graph with the normalisation of pixels, so that it takes u8 from 0 to 255
    #[arg(long)]
    with_preprocessing: bool,
    /// What the weights are of, where their file does not say: a model by name, a TOML file or a model file
    #[arg(long = "model", value_name = "MODEL")]
    architecture: Option<String>,
    #[command(flatten)]
    options: ModelOptions,
    /// Names of the classes for weights and ONNX files without any: a text file, one name a line
    #[arg(long, value_name = "FILE")]
    class_names: Option<PathBuf>,
    /// How pixels become numbers for weights and ONNX files that don't say: (v / 255 - mean) / deviation, one number or one a channel
    /// [default: ImageNet's for torchvision's names, otherwise 0]
    #[arg(long, value_name = "LIST", value_delimiter = ',', allow_hyphen_values = true)]
    mean: Option<Vec<f32>>,
    /// See --mean [default: ImageNet's for torchvision's names, otherwise 1]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    deviation: Option<Vec<f32>>,
    /// How a picture of another size is made to fit, for weights and ONNX files that don't say: stretch, digit (as MNIST's
    /// makers did) or center-crop:N (the shorter side scaled to N, then cut out of the middle) [default: center-crop:256 of
    /// 224, or in that proportion, for torchvision's names; digit for 28x28 in grey; otherwise stretch]
    #[arg(long, value_name = "FIT", value_parser = parse_fit)]
    fit: Option<Fit>,
}

fn parse_fit(text: &str) -> Result<Fit, String> {
    match (text, text.strip_prefix("center-crop:").map(str::parse)) {
        ("stretch", _) => Ok(Fit::Stretch),
        ("digit", _) => Ok(Fit::Digit),
        (_, Some(Ok(resize))) => Ok(Fit::CenterCrop { resize }),
        _ => Err("stretch, digit or center-crop:N is needed, as in center-crop:256".into()),
    }
}

impl ConvertArgs {
    /// The first flag given that only weights without a model have a use for.
    fn flag_for_weights(&self) -> Option<&'static str> {
        [
            ("--model", self.architecture.is_some()),
            ("--input, --classes and --set", !self.options.is_empty()),
            ("--class-names", self.class_names.is_some()),
            ("--mean", self.mean.is_some()),
            ("--deviation", self.deviation.is_some()),
            ("--fit", self.fit.is_some()),
        ]
        .into_iter()
        .find_map(|(flag, given)| given.then_some(flag))
    }

    /// The normalisation that is said, and otherwise the usual one.
    fn normalization(&self, usual: &Normalization, channels: usize) -> Result<Normalization, CliError> {
        let mean = self.mean.clone().unwrap_or_else(|| usual.mean.clone());
        let deviation = self.deviation.clone().unwrap_or_else(|| usual.deviation.clone());
        Ok(Normalization::new(mean, deviation, channels)?)
    }
}

/// Reads, converts, writes.
pub(crate) fn run(args: &ConvertArgs, output: &Output) -> Result<ExitCode, CliError> {
    let format = ending(&args.out);
    if !["safetensors", "onnx", "npz"].contains(&format.as_str()) {
        return Err(CliError::Usage(format!(
            "{}: the ending {format:?} names no format to convert to; .safetensors, .onnx and .npz do",
            args.out.display()
        )));
    }
    if args.with_preprocessing && format != "onnx" {
        return Err(CliError::Usage("--with-preprocessing is for .onnx; the other formats hold it as metadata".into()));
    }
    let model = read(args)?;
    let contents = match format.as_str() {
        "onnx" => to_onnx(&model, OnnxOptions { preprocessing: args.with_preprocessing })?,
        "npz" => to_npz(&model)?,
        _ => model.to_bytes()?,
    };
    write_atomically(&args.out, &contents)?;
    output.line(format!("{}: {}", args.out.display(), bytes(contents.len())));
    output.json(&json!({
        "out": args.out,
        "format": format,
        "bytes": contents.len(),
        "model": model.network.description().name,
        "parameters": model.network.parameters().len(),
    }));
    Ok(ExitCode::SUCCESS)
}

fn ending(path: &Path) -> String {
    path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_lowercase()
}

/// The model in the file, or that the file's weights make.
fn read(args: &ConvertArgs) -> Result<ModelFile, CliError> {
    let path = model::path(&args.model);
    let name = path.display().to_string();
    if path.exists() && is_onnx(&path) {
        return imported(args, load_onnx(&path, ImportOptions { input: args.options.input })?);
    }
    let arrays = match ending(&path).as_str() {
        _ if !path.exists() => return model::load(&args.model),
        "npz" => match read_npz(&read_regular_file(&path, MAX_FILE_BYTES)?, &name)? {
            NpzContents::Model(model) => return whole(args, *model),
            NpzContents::Arrays(arrays) => arrays,
        },
        "pkl" | "pickle" => read_pickle(&read_regular_file(&path, MAX_FILE_BYTES)?, &name)?,
        _ => match model::load(&args.model) {
            Ok(model) => return whole(args, model),
            // Somebody else's: PyTorch's, where --model says what it is of.
            Err(CliError::Load(LoadError::Format(FormatError::Foreign { .. }))) if args.architecture.is_some() => {
                pytorch::read_tensors(&read_foreign_file(&path)?, &name)?
            }
            Err(error) => return Err(error),
        },
    };
    of_weights(args, &arrays, &name)
}

/// A model that needs nothing said of it.
fn whole(args: &ConvertArgs, model: ModelFile) -> Result<ModelFile, CliError> {
    match args.flag_for_weights() {
        None => Ok(model),
        Some(flag) => Err(CliError::Usage(format!(
            "{flag}: {} is a whole model, with its own architecture, classes and preprocessing; leave the flag out",
            args.model.display()
        ))),
    }
}

/// The model of an ONNX file. Others' say neither classes nor preprocessing; both may be said, and test vectors are recorded.
fn imported(args: &ConvertArgs, mut model: ModelFile) -> Result<ModelFile, CliError> {
    if args.architecture.is_some() || args.options.classes.is_some() || !args.options.settings.is_empty() {
        return Err(CliError::Usage(format!(
            "--model, --classes and --set: {} has its own architecture; leave them out",
            args.model.display()
        )));
    }
    if args.class_names.is_some() {
        model.class_names = class_names(args, model.network.classes())?;
    }
    let found = &model.preprocessing;
    let normalization = args.normalization(&found.normalization, found.shape.channels)?;
    model.preprocessing = Preprocessing { fit: args.fit.unwrap_or(found.fit), normalization, ..*found };
    // What reads no pictures can still be written as ONNX.
    if model.preprocessing.shape.channels == 1 || model.preprocessing.shape.channels == 3 {
        model.test_vectors = TestVectors::of_noise(NOISE, &model.preprocessing)?.recorded(&model.network)?;
    }
    Ok(model)
}

/// A model of arrays that others saved.
fn of_weights(args: &ConvertArgs, arrays: &[NamedArray], name: &str) -> Result<ModelFile, CliError> {
    let (description, trained) = match &args.architecture {
        None => match book::architecture(arrays) {
            Some(description) if args.options.is_empty() => (description, None),
            Some(_) => return Err(CliError::Usage("--input, --classes and --set need --model".into())),
            None => {
                return Err(CliError::Usage(format!(
                    "{name}: nothing in it says how its {} arrays make a network; say it by --model, with a model's name \
                     or a TOML file",
                    arrays.len()
                )));
            }
        },
        Some(wanted) => match model::architecture(wanted, &args.options)? {
            Architecture::Trained(file) => (file.network.description().clone(), Some(file)),
            Architecture::Described(description) => (with_classes(args, wanted, description, arrays)?, None),
        },
    };
    let torchvision = pytorch::names(&description)?.filter(|names| {
        // A file with our own names is no file of PyTorch's.
        !arrays.iter().any(|array| names.contains_key(&array.name))
    });
    let naming = |spec: &ParameterSpec| {
        let foreign = torchvision.as_ref().and_then(|names| names.get(&spec.name)).cloned();
        foreign.unwrap_or_else(|| ForeignName { name: spec.name.clone(), transposed: false })
    };
    let network = network_of(description, arrays, naming, name)?;
    let (class_names, preprocessing) = match trained {
        Some(file) => (file.class_names, file.preprocessing),
        None => (class_names(args, network.classes())?, preprocessing(args, &network, torchvision.is_some())?),
    };
    Ok(ModelFile {
        class_names,
        training: json!({ "converted_from": Path::new(name).file_name().map(|name| name.to_string_lossy()) }),
        metrics: Value::Null,
        test_vectors: TestVectors::of_noise(NOISE, &preprocessing)?.recorded(&network)?,
        preprocessing,
        temperature: None,
        quantized: None,
        network,
    })
}

/// A model by name for as many classes as the weights tell apart, unless --classes says how many.
fn with_classes(
    args: &ConvertArgs,
    wanted: &str,
    description: Description,
    arrays: &[NamedArray],
) -> Result<Description, CliError> {
    let found = pytorch::classes(&description, arrays)?;
    match (found, args.options.classes) {
        (Some(classes), None) if models::NAMES.contains(&wanted) => Ok(description.with_classes(classes)?.0),
        _ => Ok(description),
    }
}

fn class_names(args: &ConvertArgs, classes: usize) -> Result<Vec<String>, CliError> {
    let Some(path) = &args.class_names else { return Ok(one_class_names(classes)) };
    let text = read_regular_file(path, MOST_CLASS_NAMES)?;
    let names: Vec<String> = String::from_utf8_lossy(&text).lines().map(str::to_owned).collect();
    if names.len() == classes {
        return Ok(names);
    }
    Err(CliError::Usage(format!(
        "--class-names {}: found {} lines, expected {classes}, one for each class of the network",
        path.display(),
        names.len()
    )))
}

fn preprocessing(args: &ConvertArgs, network: &Network, torchvision: bool) -> Result<Preprocessing, CliError> {
    let input = network.input();
    let usual = if torchvision && input.channels == 3 { Normalization::imagenet() } else { Normalization::identity() };
    let normalization = args.normalization(&usual, input.channels)?;
    let fit = if input == SHAPE {
        // The book's networks read the digits of MNIST.
        Fit::Digit
    } else if torchvision && input.channels == 3 {
        // As torchvision evaluates them: 224 out of 256.
        Fit::CenterCrop { resize: input.height.max(input.width) * 8 / 7 }
    } else {
        Fit::Stretch
    };
    Ok(Preprocessing::new(input, args.fit.unwrap_or(fit), normalization)?)
}
