//! Weights that PyTorch saved as safetensors, under torchvision's names, for the models of the zoo.
//!
//! Such a file holds nothing but arrays: the architecture comes from elsewhere. [`read_tensors`] gives its arrays,
//! [`names`] tells what torchvision calls a network's parameters, and
//! [`network_of`](super::arrays::network_of) puts the two together.
//!
//! | model | torchvision's |
//! |---|---|
//! | `resnet18`, `resnet34`, `resnet50` | the same |
//! | `vgg11`, `vgg16`, with `batch_norm=true` | `vgg11`, `vgg16`, `vgg11_bn`, `vgg16_bn` |
//! | `alexnet-torchvision` | `alexnet` |
//! | `mobilenet-v2` | `mobilenet_v2` |

use super::arrays::{ForeignName, NamedArray};
use super::container::foreign;
use super::error::FormatError;
use crate::layers::Layer;
use crate::network::{Description, NetworkError};
use safetensors::tensor::Dtype;
use std::collections::BTreeMap;

/// A counter that batch normalisation keeps in PyTorch, and nothing here needs.
const COUNTER: &str = "num_batches_tracked";

/// The arrays of a safetensors file by anybody, as `f32`, in the order of their names; `name` is for messages. Numbers may be
/// F32, F64, F16 or BF16. PyTorch's counters of batches are left out, and the prefix `module.` that `DataParallel` puts
/// before every name is taken away.
///
/// # Errors
/// See [`FormatError`]. A refusal takes little time and memory whatever the file claims.
pub fn read_tensors(bytes: &[u8], name: &str) -> Result<Vec<NamedArray>, FormatError> {
    let tensors = foreign(bytes, name)?;
    let parallel = !tensors.is_empty() && tensors.iter().all(|(tensor, ..)| tensor.starts_with("module."));
    let mut arrays = Vec::with_capacity(tensors.len());
    for (tensor, info, data) in tensors {
        if tensor.ends_with(COUNTER) {
            continue;
        }
        let read: fn(&[u8]) -> f32 = match info.dtype {
            Dtype::F32 => |bytes| f32::from_le_bytes(*bytes.first_chunk().unwrap_or(&[0; 4])),
            Dtype::F64 => |bytes| f64::from_le_bytes(*bytes.first_chunk().unwrap_or(&[0; 8])) as f32,
            Dtype::F16 => |bytes| half(u16::from_le_bytes(*bytes.first_chunk().unwrap_or(&[0; 2]))),
            Dtype::BF16 => {
                |bytes| f32::from_bits(u32::from(u16::from_le_bytes(*bytes.first_chunk().unwrap_or(&[0; 2]))) << 16)
            }
            other => {
                return Err(FormatError::TensorType {
                    name: name.into(),
                    tensor: super::container::shorten(&tensor),
                    found: other.to_string(),
                    expected: "F32, F64, F16 or BF16".into(),
                });
            }
        };
        let width = info.dtype.bitsize() / 8;
        let mut values = Vec::new();
        let count = data.len() / width.max(1);
        values.try_reserve_exact(count).map_err(|_| FormatError::OutOfMemory {
            name: name.into(),
            bytes: (count as u64).saturating_mul(size_of::<f32>() as u64),
        })?;
        values.extend(data.chunks_exact(width.max(1)).map(read));
        let tensor = if parallel { tensor.trim_start_matches("module.").to_owned() } else { tensor };
        arrays.push(NamedArray { name: tensor, shape: info.shape, values });
    }
    Ok(arrays)
}

/// IEEE 754's 16 bits.
fn half(bits: u16) -> f32 {
    let (exponent, fraction) = (u32::from(bits >> 10 & 31), u32::from(bits & 1023));
    let magnitude = match exponent {
        // Subnormal numbers, in steps of 2^-24.
        0 => fraction as f32 / (1u32 << 24) as f32,
        31 => f32::from_bits(0x7f80_0000 | fraction << 13),
        _ => f32::from_bits((exponent + 112) << 23 | fraction << 13),
    };
    if bits >> 15 == 1 { -magnitude } else { magnitude }
}

/// What torchvision calls each parameter of this network, by our name for it; nothing for a network that torchvision
/// does not have.
///
/// ```
/// use striate::{formats::pytorch, models};
/// let description = models::build("resnet18", &Default::default())?;
/// let names = pytorch::names(&description)?.unwrap();
/// assert_eq!(names["W1"].name, "conv1.weight");
/// assert_eq!(names["gamma2"].name, "bn1.weight");
/// assert_eq!(names["b41"].name, "fc.bias");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Layers that make no network.
pub fn names(description: &Description) -> Result<Option<BTreeMap<String, ForeignName>>, NetworkError> {
    let modules: Vec<Option<String>> = match description.name.as_str() {
        "resnet18" | "resnet34" | "resnet50" => description.layers.iter().map(|layer| resnet(&layer.name)).collect(),
        "mobilenet-v2" => mobilenet(description),
        "alexnet-torchvision" => sequential(description, ["1", "4", "6"]),
        name if name.starts_with("vgg") => sequential(description, ["0", "3", "6"]),
        _ => return Ok(None),
    };
    let owners = description.parameter_owners()?;
    let mut names = BTreeMap::new();
    for (spec, owner) in description.parameter_specs()?.into_iter().zip(owners) {
        let part = match spec.name.trim_end_matches(|c: char| c.is_ascii_digit()) {
            "W" | "gamma" => "weight",
            "b" | "beta" => "bias",
            "mean" => "running_mean",
            "variance" => "running_var",
            _ => return Ok(None),
        };
        let Some(Some(module)) = modules.get(owner) else { return Ok(None) };
        let affine = description.layers.get(owner).is_some_and(|layer| matches!(layer.layer, Layer::Affine(_)));
        let transposed = affine && spec.shape.len() == 2;
        names.insert(spec.name, ForeignName { name: format!("{module}.{part}"), transposed });
    }
    Ok(Some(names))
}

/// `stage2-block1-conv1-norm` is `layer2.0.bn1`.
fn resnet(layer: &str) -> Option<String> {
    match layer {
        "conv1" => return Some("conv1".into()),
        "conv1-norm" => return Some("bn1".into()),
        "classes" => return Some("fc".into()),
        _ => {}
    }
    let (stage, rest) = layer.strip_prefix("stage")?.split_once("-block")?;
    let (block, part) = rest.split_once('-')?;
    let block = block.parse::<usize>().ok()?.checked_sub(1)?;
    let part = match part {
        "shortcut" => "downsample.0".into(),
        "shortcut-norm" => "downsample.1".into(),
        part => match part.strip_suffix("-norm").and_then(|part| part.strip_prefix("conv")) {
            Some(number) => format!("bn{number}"),
            None => part.into(),
        },
    };
    Some(format!("layer{stage}.{block}.{part}"))
}

/// Modules counted through: `features.0`, `features.1`, ...; `classifier` tells the places of the affine layers.
fn sequential(description: &Description, classifier: [&str; 3]) -> Vec<Option<String>> {
    let mut affine = classifier.into_iter();
    let mut modules = Vec::with_capacity(description.layers.len());
    for (at, layer) in description.layers.iter().enumerate() {
        modules.push(match layer.layer {
            Layer::Affine(_) => affine.next().map(|place| format!("classifier.{place}")),
            _ => Some(format!("features.{at}")),
        });
    }
    modules
}

/// Blocks counted through: the first of stage 2 is `features.2`.
fn mobilenet(description: &Description) -> Vec<Option<String>> {
    let mut block = 0;
    let mut current = String::new();
    let mut widens = false;
    let mut modules = Vec::with_capacity(description.layers.len());
    for layer in &description.layers {
        let (part, norm) = match layer.name.strip_suffix("-norm") {
            Some(part) => (part, true),
            None => (layer.name.as_str(), false),
        };
        let inner = usize::from(norm);
        modules.push(match part.rsplit_once('-') {
            _ if part == "conv1" => Some(format!("features.0.{inner}")),
            _ if part == "classes" => Some("classifier.1".into()),
            Some(("conv", "last")) => Some(format!("features.{}.{inner}", block + 1)),
            Some((name, part @ ("widen" | "depthwise" | "narrow"))) => {
                if name != current {
                    (block, current, widens) = (block + 1, name.into(), part == "widen");
                }
                let place = match (part, widens) {
                    ("widen", _) => format!("0.{inner}"),
                    ("depthwise", true) => format!("1.{inner}"),
                    ("depthwise", false) => format!("0.{inner}"),
                    (_, true) => (2 + inner).to_string(),
                    (_, false) => (1 + inner).to_string(),
                };
                Some(format!("features.{block}.conv.{place}"))
            }
            _ => None,
        });
    }
    modules
}

/// The number of classes that the arrays' last layer tells apart, if it is there under its name.
///
/// # Errors
/// As for [`names`].
pub fn classes(description: &Description, arrays: &[NamedArray]) -> Result<Option<usize>, NetworkError> {
    let last = description.parameter_specs()?.pop();
    let known = names(description)?.unwrap_or_default();
    // One bias a class.
    let head = last.and_then(|spec| known.get(&spec.name).map(|foreign| foreign.name.clone()));
    let array = head.and_then(|head| arrays.iter().find(|array| array.name == head));
    Ok(array.and_then(|array| array.shape.first().copied()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models;

    #[test]
    fn halves_are_those_of_ieee_754() {
        for (bits, expected) in [
            (0x0000, 0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0001, 2f32.powi(-24)),
            (0x03ff, 1023.0 * 2f32.powi(-24)),
            (0x0400, 2f32.powi(-14)),
            (0x3555, 0.333_251_95),
            (0x7c00, f32::INFINITY),
            (0xfc00, f32::NEG_INFINITY),
        ] {
            assert_eq!(half(bits), expected, "{bits:#x}");
        }
        assert!(half(0x7e00).is_nan() && half(0x8000).is_sign_negative());
    }

    /// Names that `torchvision.models.NAME().state_dict()` has; benches/peers/torchvision_weights.py compares them all.
    #[test]
    fn names_are_torchvisions() {
        let check = |model: &str, settings: &[(String, String)], expected: &[(&str, &str)]| {
            let request = models::Request { settings, ..Default::default() };
            let description = models::build(model, &request).unwrap();
            let names = names(&description).unwrap().unwrap();
            let found: Vec<String> = names.values().map(|foreign| foreign.name.clone()).collect();
            let unique: std::collections::BTreeSet<&String> = found.iter().collect();
            assert_eq!(unique.len(), found.len(), "{model}: a name twice");
            for (ours, theirs) in expected {
                assert_eq!(names[*ours].name, *theirs, "{model}: {ours}");
            }
        };
        check("resnet18", &[], &[("W3", "layer1.0.conv1.weight"), ("mean4", "layer1.0.bn1.running_mean")]);
        check(
            "resnet18",
            &[],
            &[("W15", "layer2.0.downsample.0.weight"), ("variance16", "layer2.0.downsample.1.running_var")],
        );
        check("vgg11", &[], &[("W1", "features.0.weight"), ("W2", "features.3.weight"), ("b11", "classifier.6.bias")]);
        let batch_norm = [("batch_norm".to_string(), "true".to_string())];
        check("vgg11", &batch_norm, &[("gamma2", "features.1.weight"), ("W3", "features.4.weight")]);
        check("alexnet-torchvision", &[], &[("W5", "features.10.weight"), ("W6", "classifier.1.weight")]);
        check(
            "mobilenet-v2",
            &[],
            &[
                ("W1", "features.0.0.weight"),
                ("W3", "features.1.conv.0.0.weight"),
                ("gamma6", "features.1.conv.2.weight"),
                ("W7", "features.2.conv.0.0.weight"),
                ("W9", "features.2.conv.1.0.weight"),
                ("W11", "features.2.conv.2.weight"),
                ("b105", "classifier.1.bias"),
            ],
        );
        let lenet = models::build("lenet", &Default::default()).unwrap();
        assert_eq!(names(&lenet).unwrap(), None);
    }
}
