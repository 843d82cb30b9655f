//! What the page asks of a model, and the answers: JSON, with pictures that the library drew.

use serde_json::{Value, json};
use std::sync::{Arc, PoisonError, RwLock};
use striate::formats::{ModelFile, weights_sha256};

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StudioError {
    /// A question that can't be answered, and why.
    #[error("{0}")]
    Question(String),
}

/// A model that is looked at.
pub struct Studio {
    /// That of a live run changes.
    model: RwLock<Arc<ModelFile>>,
}

impl Studio {
    /// Of a model at rest.
    pub fn new(model: ModelFile) -> Self {
        Self { model: RwLock::new(Arc::new(model)) }
    }

    /// The model as it is now.
    pub fn model(&self) -> Arc<ModelFile> {
        Arc::clone(&self.model.read().unwrap_or_else(PoisonError::into_inner))
    }

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
}

/// The answer for one image: its class, and the `top` most probable ones.
pub fn answer(model: &ModelFile, probabilities: &[f32], top: usize) -> Value {
    let mut order: Vec<usize> = (0..probabilities.len()).collect();
    order.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]));
    let one = |&class: &usize| {
        let name = model.class_names.get(class).map_or_else(|| class.to_string(), Clone::clone);
        json!({ "class": name, "index": class, "probability": probabilities[class] })
    };
    let mut answer = order.first().map_or(json!({}), one);
    answer["top"] = order.iter().take(top).map(one).collect();
    answer
}
