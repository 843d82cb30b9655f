//! The model itself, and images as it sees them.

use super::{Image, Split, Studio, StudioError, pictures};
use ndarray::Axis;
use serde_json::{Value, json};
use striate::data::{Fit, Preprocessing};
use striate::draw::sheet::{self, Palette};
use striate::draw::{DiagramLayer, diagram};
use striate::formats::{ModelFile, weights_sha256};
use striate::layers::predicted_class;
use striate::shape::Shape;

impl Studio {
    /// What model this is.
    pub fn describe(&self) -> Value {
        let model = self.model();
        let network = &model.network;
        let summary = network.summary(1).ok();
        json!({
            "name": network.description().name,
            "classes": model.class_names,
            "input": network.input(),
            "preprocessing": model.preprocessing,
            "summary": summary,
            "weights_sha256": weights_sha256(network.parameters()),
            "metrics": model.metrics,
            "training": model.training,
            "temperature": model.temperature,
            "version": env!("CARGO_PKG_VERSION"),
        })
    }

    pub(super) fn about(&self) -> Result<Value, StudioError> {
        let model = self.model();
        let summary = model.network.summary(1)?;
        let of_kind = |kind: &str| -> Vec<&str> {
            summary.layers.iter().filter(|layer| layer.kind == kind).map(|layer| layer.name.as_str()).collect()
        };
        let with_maps: Vec<&str> =
            summary.layers.iter().filter(|layer| !layer.output.is_flat()).map(|layer| layer.name.as_str()).collect();
        Ok(json!({
            "name": model.network.description().name,
            "classes": model.class_names,
            "input": model.network.input(),
            "parameters": summary.parameters,
            "draws": model.preprocessing.fit == Fit::Digit,
            "data": self.data.as_ref().map(|data| data.name()),
            "live": self.live.is_some(),
            "convolutions": of_kind("Convolution"),
            "with_maps": with_maps,
            "metrics": model.metrics,
            "legends": {
                "signed": pictures::strip(Palette::Signed)?,
                "over": pictures::strip(Palette::Over)?,
                "heat": pictures::strip(Palette::Heat)?,
            },
            "version": env!("CARGO_PKG_VERSION"),
        }))
    }

    pub(super) fn diagram(&self) -> Result<Value, StudioError> {
        let model = self.model();
        let description = model.network.description();
        let summary = description.summary(1)?;
        let position = |name: &str| description.layers.iter().position(|layer| layer.name == name);
        let sizes = |shape: Shape| (shape.channels, shape.height, shape.width);
        let layers: Vec<DiagramLayer> = (summary.layers.iter().zip(&description.layers).enumerate())
            .map(|(at, (row, layer))| DiagramLayer {
                name: row.name.clone(),
                kind: row.kind.into(),
                words: row.options.clone(),
                output: sizes(row.output),
                parameters: row.parameters,
                inputs: match layer.inputs.is_empty() {
                    true => vec![at.checked_sub(1)],
                    false => layer.inputs.iter().map(|name| position(name)).collect(),
                },
            })
            .collect();
        Ok(json!({ "svg": diagram(&description.name, sizes(description.input), &layers), "summary": summary }))
    }

    pub(super) fn read(&self, file: &str) -> Result<Value, StudioError> {
        let (model, file) = (self.model(), pictures::bytes(file, "the file")?);
        let (width, height) = Preprocessing::picture_size(&file, "the image")?;
        if u64::from(width) * u64::from(height) > self.most_pixels {
            let most = self.most_pixels;
            return Err(StudioError::Question(format!(
                "the image has {width} x {height} pixels; at most {most} are read"
            )));
        }
        self.seen(&model, &model.preprocessing.decode(&file, "the image")?)
    }

    pub(super) fn sample(&self, split: Split, index: usize) -> Result<Value, StudioError> {
        let model = self.model();
        let splits = self.splits(&model)?;
        let data = match split {
            Split::Train => &splits.train,
            Split::Test => &splits.test,
        };
        let index = index.checked_rem(data.len()).ok_or_else(|| StudioError::NoData("it is empty".into()))?;
        let mut answer = self.seen(&model, &super::source::pixels(data, index)?)?;
        answer["index"] = index.into();
        answer["of"] = data.len().into();
        answer["label"] = data.labels()[index].into();
        Ok(answer)
    }

    /// An image and what the network takes it for.
    fn seen(&self, model: &ModelFile, pixels: &[u8]) -> Result<Value, StudioError> {
        let image = Image::new(pixels, &model.preprocessing)?;
        let logits = model.network.predict(image.x.view().insert_axis(Axis(0)))?;
        let probabilities = model.probabilities(&logits).index_axis(Axis(0), 0).to_vec();
        Ok(json!({
            "pixels": pictures::text(pixels),
            "picture": pictures::png(&sheet::picture(image.shown.view()))?,
            "empty": pixels.iter().all(|&pixel| pixel == pixels[0]),
            "class": predicted_class(&probabilities),
            "probabilities": probabilities,
        }))
    }
}

/// The answer for one image: its class, and the `top` most probable ones.
pub fn answer(model: &ModelFile, probabilities: &[f32], top: usize) -> Value {
    let mut order: Vec<usize> = (0..probabilities.len()).collect();
    order.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]));
    let one = |&class: &usize| json!({ "class": model.class_name(class), "index": class, "probability": probabilities[class] });
    let mut answer = order.first().map_or(json!({}), one);
    answer["top"] = order.iter().take(top).map(one).collect();
    answer
}
