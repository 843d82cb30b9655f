//! The zoo: one file a model, each giving a [`Description`]. The models are listed in [`NAMES`]; [`by_name`] builds one
//! for an input and a number of classes, [`build`] also with options of its own.

pub mod alexnet;
mod blocks;
pub mod cifar_net;
pub mod deep_convnet;
pub mod lenet;
pub mod mlp;
pub mod mnist_net;
pub mod mobilenet_v2;
pub mod resnet;
pub mod simple_convnet;
pub mod vgg;

use crate::network::{Description, NetworkError};
use crate::shape::Shape;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Names that [`by_name`] knows.
pub const NAMES: &[&str] = &[
    "simple-convnet",
    "mlp",
    "lenet",
    "deep-convnet",
    "alexnet",
    "alexnet-torchvision",
    "vgg11",
    "vgg16",
    "resnet18",
    "resnet34",
    "resnet50",
    "mobilenet-v2",
    "cifar-resnet20",
    "cifar-net",
    "mnist-net",
];

/// Why a model can't be had.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// No model of this name.
    #[error("there is no model {name:?}; the models are {}", NAMES.join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// An option that the model does not have, or not with this value.
    #[error("model {name}: {reason}")]
    Setting {
        /// The model's name.
        name: String,
        /// Which option, and what it should be.
        reason: String,
    },
    /// The model does not take this input or this number of classes.
    #[error("model {name} does not take an input of {input}{}: {source}{}", with_classes(*classes), fitting(sizes))]
    DoesNotFit {
        /// The model's name.
        name: String,
        /// The input that was asked for.
        input: Shape,
        /// The classes that were asked for, if any were.
        classes: Option<usize>,
        /// The nearest sizes of square inputs that the model takes.
        sizes: Vec<usize>,
        /// Which layer refuses, and why.
        source: Box<NetworkError>,
    },
}

fn with_classes(classes: Option<usize>) -> String {
    classes.map_or(String::new(), |classes| format!(" with {classes} classes"))
}

fn fitting(sizes: &[usize]) -> String {
    let squares: Vec<String> = sizes.iter().map(|n| format!("{n}x{n}")).collect();
    if squares.is_empty() {
        String::new()
    } else {
        format!("; the nearest squares that fit are {}", squares.join(" and "))
    }
}

/// What a model is built for. Whatever is left out is as in the model's publication.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request<'a> {
    /// One input sample.
    pub input: Option<Shape>,
    /// Number of classes.
    pub classes: Option<usize>,
    /// Options of the model by name, with their values as JSON (`0.5`, `false`, `[16, 32]`) or plain words.
    pub settings: &'a [(String, String)],
}

/// A zoo model for an input and a number of classes, with its usual options.
///
/// ```
/// use striate::{models, shape::Shape};
/// let description = models::by_name("simple-convnet", Shape::new(1, 28, 28), 10)?;
/// assert_eq!(description.summary(100).unwrap().parameters, 433_890);
/// # Ok::<(), models::ModelError>(())
/// ```
///
/// # Errors
/// An unknown name, or sizes that the model does not take.
pub fn by_name(name: &str, input: Shape, classes: usize) -> Result<Description, ModelError> {
    build(name, &Request { input: Some(input), classes: Some(classes), settings: &[] })
}

/// A zoo model with any of its options set.
///
/// ```
/// use striate::models::{Request, build};
/// let settings = [("activation".to_string(), "relu".to_string())];
/// let description = build("lenet", &Request { settings: &settings, ..Request::default() })?;
/// assert_eq!(description.summary(1).unwrap().parameters, 61_706);
/// # Ok::<(), striate::models::ModelError>(())
/// ```
///
/// # Errors
/// An unknown name or option, or sizes that the model does not take.
pub fn build(name: &str, request: &Request<'_>) -> Result<Description, ModelError> {
    let description = unchecked(name, request)?;
    let Err(source) = description.shapes() else { return Ok(description) };
    let input = description.input;
    let fits = |size: &usize| {
        let square = Shape { height: *size, width: *size, ..input };
        unchecked(name, &Request { input: Some(square), ..request.clone() }).is_ok_and(|d| d.shapes().is_ok())
    };
    let size = input.height.max(input.width);
    let (below, above) = ((1..size.min(LARGEST)).rev().find(fits), (size + 1..LARGEST).find(fits));
    let sizes = below.into_iter().chain(above).collect();
    let (name, classes) = (name.to_owned(), request.classes);
    Err(ModelError::DoesNotFit { name, input, classes, sizes, source: Box::new(source) })
}

/// Where the search for sizes that fit ends.
const LARGEST: usize = 1024;

fn unchecked(name: &str, request: &Request<'_>) -> Result<Description, ModelError> {
    Ok(match name {
        "simple-convnet" => set(name, simple_convnet::SimpleConvNet::default(), request)?.description(),
        "mlp" => set(name, mlp::Mlp::default(), request)?.description(),
        "lenet" => set(name, lenet::LeNet::default(), request)?.description(),
        "deep-convnet" => set(name, deep_convnet::DeepConvNet::default(), request)?.description(),
        "alexnet" => set(name, alexnet::AlexNet::default(), request)?.description(),
        "alexnet-torchvision" => set(name, alexnet::AlexNetTorchvision::default(), request)?.description(),
        "vgg11" => set(name, vgg::Vgg::default(), request)?.description(),
        "vgg16" => set(name, vgg::Vgg::sixteen(), request)?.description(),
        "resnet18" => set(name, resnet::ResNet::default(), request)?.description(),
        "resnet34" => set(name, resnet::ResNet::thirty_four(), request)?.description(),
        "resnet50" => set(name, resnet::ResNet::fifty(), request)?.description(),
        "mobilenet-v2" => set(name, mobilenet_v2::MobileNetV2::default(), request)?.description(),
        "cifar-resnet20" => set(name, resnet::CifarResNet::default(), request)?.description(),
        "cifar-net" => set(name, cifar_net::CifarNet::default(), request)?.description(),
        "mnist-net" => set(name, mnist_net::MnistNet::default(), request)?.description(),
        _ => return Err(ModelError::Unknown { name: name.to_owned() }),
    })
}

/// A model's options with what was asked for in place of the usual values.
fn set<T: Serialize + DeserializeOwned>(name: &str, usual: T, request: &Request<'_>) -> Result<T, ModelError> {
    let wrong = |reason: String| ModelError::Setting { name: name.to_owned(), reason };
    let mut options = serde_json::to_value(usual).map_err(|error| wrong(error.to_string()))?;
    let Value::Object(fields) = &mut options else { return Err(wrong("it has no options".into())) };
    let mut known: Vec<String> = fields.keys().cloned().collect();
    known.retain(|key| key != "input" && key != "classes");
    if let Some(input) = request.input {
        fields.insert("input".into(), <[usize; 3]>::from(input).to_vec().into());
    }
    if let Some(classes) = request.classes {
        fields.insert("classes".into(), classes.into());
    }
    for (key, text) in request.settings {
        if !known.contains(key) {
            return Err(wrong(format!("it has no option {key:?}; it has {}", known.join(", "))));
        }
        let value = serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone()));
        fields.insert(key.clone(), value);
        // Each on its own, so that the message names the one that is wrong.
        T::deserialize(Value::Object(fields.clone()))
            .map_err(|error| wrong(format!("option {key}={text}: {error}")))?;
    }
    T::deserialize(options).map_err(|error| wrong(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usual(name: &str) -> Description {
        build(name, &Request::default()).unwrap()
    }

    fn with(name: &str, settings: &[(&str, &str)]) -> Result<Description, ModelError> {
        let settings: Vec<_> = settings.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        build(name, &Request { settings: &settings, ..Request::default() })
    }

    #[test]
    fn every_name_is_a_model_under_its_own_name() {
        for name in NAMES {
            assert_eq!(usual(name).name, *name);
        }
        let error = by_name("simplenet", Shape::new(1, 28, 28), 10).unwrap_err();
        assert!(error.to_string().contains("simple-convnet, mlp"), "{error}");
        assert!(by_name("mlp", Shape::new(1, 4, 4), 0).is_err());
    }

    #[test]
    fn sizes_that_do_not_fit_name_those_that_do() {
        let message = |name: &str, size| by_name(name, Shape::new(1, size, size), 10).unwrap_err().to_string();
        let error = message("simple-convnet", 4);
        assert!(error.contains("Conv1") && error.contains("6x6"), "{error}");
        let error = message("lenet", 30);
        assert!(error.contains("S4") && error.contains("28x28 and 32x32"), "{error}");
        let error = message("alexnet", 32);
        assert!(error.contains("67x67"), "{error}");
    }

    #[test]
    fn published_numbers_of_parameters() {
        let published = [
            ("simple-convnet", 433_890),
            ("lenet", 61_706),
            ("alexnet", 60_965_224),
            ("alexnet-torchvision", 61_100_840),
            ("vgg11", 132_863_336),
            ("vgg16", 138_357_544),
            ("resnet18", 11_689_512),
            ("resnet34", 21_797_672),
            ("resnet50", 25_557_032),
            ("mobilenet-v2", 3_504_872),
        ];
        for (name, parameters) in published {
            let found: usize = usual(name)
                .parameter_specs()
                .unwrap()
                .iter()
                .filter(|spec| spec.role != crate::layers::Role::Statistic)
                .map(|spec| spec.range.len())
                .sum();
            assert_eq!(found, parameters, "{name}");
        }
    }

    #[test]
    fn settings_are_strict() {
        assert!(with("lenet", &[("activation", "relu"), ("pooling", "max")]).is_ok());
        let error = with("lenet", &[("activation", "swish")]).unwrap_err().to_string();
        assert!(error.contains("activation=swish") && error.contains("sigmoid"), "{error}");
        let error = with("alexnet", &[("lnr", "false")]).unwrap_err().to_string();
        assert!(error.contains("\"lnr\"") && error.contains("lrn"), "{error}");
        let plain = with("alexnet", &[("lrn", "false"), ("dropout", "0"), ("groups", "1")]).unwrap();
        assert!(plain.layers.iter().all(|l| !l.name.contains("norm") && !l.name.contains("dropout")));
    }
}
