//! The data that a model was trained with and tested on: what is like an image, and what is taken for what.

use super::{Image, Studio, StudioError, pictures};
use ndarray::{Array2, Axis};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use striate::data::{Dataset, Normalization, Splits};
use striate::draw;
use striate::draw::sheet;
use striate::explain::{self, Images};
use striate::formats::ModelFile;
use striate::layers::predicted_class;
use striate::train::logits;

/// Training images that are compared, and test images that are counted, at most.
const MOST_IMAGES: usize = 20_000;
/// Operations that going over the images may take: some seconds on one core, also of WebAssembly.
const MOST_OPERATIONS: u64 = if cfg!(target_family = "wasm") { 20_000_000_000 } else { 200_000_000_000 };
/// While a run goes on, views that go over the data take no more than a part of a second of it.
const MOST_OPERATIONS_LIVE: u64 = 20_000_000_000;
/// Images shown that are alike, and of a cell.
const SHOWN: usize = 12;
const SHOWN_OF_CELL: usize = 48;
/// Images in a pass.
const BATCH: usize = 50;

/// Reads the data, or says why it can't.
type Load = Box<dyn Fn() -> Result<Splits, String> + Send + Sync>;

/// Data that is read when it is first needed.
pub struct DataSource {
    name: String,
    load: Load,
    splits: OnceLock<Result<Splits, String>>,
}

impl DataSource {
    /// What is read by `load`.
    pub fn new(name: impl Into<String>, load: impl Fn() -> Result<Splits, String> + Send + Sync + 'static) -> Self {
        Self { name: name.into(), load: Box::new(load), splits: OnceLock::new() }
    }

    /// What to call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn splits(&self) -> Result<&Splits, StudioError> {
        let splits = self.splits.get_or_init(|| (self.load)());
        splits.as_ref().map_err(|reason| StudioError::NoData(reason.clone()))
    }
}

/// What was found out by going over the data, for one model.
#[derive(Default)]
pub(super) struct Looked {
    features: Mutex<Option<(Arc<ModelFile>, Arc<Features>)>>,
    answers: Mutex<Option<(Arc<ModelFile>, Arc<Answers>)>>,
}

/// The features of training images.
struct Features {
    layer: String,
    rows: Array2<f32>,
    /// Positions in the training set.
    indices: Vec<usize>,
}

/// What test images are taken for.
struct Answers {
    /// Position in the test set, the class it is taken for, and how sure that is.
    images: Vec<(usize, usize, f32)>,
    counts: Array2<usize>,
}

impl Studio {
    pub(crate) fn splits(&self, model: &ModelFile) -> Result<&Splits, StudioError> {
        let source = self.data.as_ref().ok_or_else(|| {
            StudioError::NoData("the model was loaded without any; say with --data what to look at".into())
        })?;
        let splits = source.splits()?;
        for data in [&splits.train, &splits.test] {
            Images::new(data, &model.preprocessing.normalization).check(&model.network)?;
        }
        Ok(splits)
    }

    /// So many images that going over them takes some seconds.
    fn most_images(&self, model: &ModelFile) -> Result<usize, StudioError> {
        let all = if self.is_running() { MOST_OPERATIONS_LIVE } else { MOST_OPERATIONS };
        let each = model.network.description().summary(1)?.flops.max(1);
        Ok(usize::try_from(all / each).unwrap_or(MOST_IMAGES).clamp(BATCH, MOST_IMAGES))
    }

    pub(super) fn similar(&self, pixels: &str) -> Result<Value, StudioError> {
        let model = self.model();
        let image = Image::from_text(pixels, &model.preprocessing)?;
        let train = &self.splits(&model)?.train;
        let features = self.features(&model, train)?;
        let maps = explain::feature_maps(&model.network, image.x.view())?;
        let own = maps
            .iter()
            .find(|maps| maps.layer == features.layer)
            .ok_or_else(|| StudioError::Question(format!("the layer {} has no output", features.layer)))?;
        let query = ndarray::Array1::from_iter(own.values.iter().copied());
        let found = explain::nearest(features.rows.view(), query.view(), SHOWN);
        let images = found.into_iter().filter_map(|(row, cosine)| Some((*features.indices.get(row)?, cosine)));
        let images = images.map(|(index, cosine)| {
            Ok(json!({
                "index": index,
                "label": train.labels()[index],
                "similarity": cosine,
                "picture": thumbnail(train, index)?,
            }))
        });
        Ok(json!({
            "layer": features.layer,
            "among": features.indices.len(),
            "of": train.len(),
            "images": images.collect::<Result<Vec<Value>, StudioError>>()?,
        }))
    }

    fn features(&self, model: &Arc<ModelFile>, train: &Dataset) -> Result<Arc<Features>, StudioError> {
        let mut place = lock(&self.looked.features);
        if let Some((of, features)) = &*place
            && Arc::ptr_eq(of, model)
        {
            return Ok(Arc::clone(features));
        }
        let images = Images::new(train, &model.preprocessing.normalization).at_most(self.most_images(model)?);
        let layer = explain::feature_layer(&model.network).to_owned();
        let rows = explain::features(&model.network, &layer, &images)?;
        let indices = (0..images.len()).map(|k| images.index(k)).collect();
        let features = Arc::new(Features { layer, rows, indices });
        *place = Some((Arc::clone(model), Arc::clone(&features)));
        Ok(features)
    }

    pub(super) fn confusion(&self) -> Result<Value, StudioError> {
        let model = self.model();
        let test = &self.splits(&model)?.test;
        let answers = self.answers(&model, test)?;
        let title = format!("{} on {}", model.network.description().name, test.name());
        let correct: usize = answers.counts.diag().sum();
        Ok(json!({
            "svg": draw::confusion(&answers.counts, &model.class_names, &title),
            "counts": answers.counts.rows().into_iter().map(|row| row.to_vec()).collect::<Vec<_>>(),
            "images": answers.images.len(),
            "of": test.len(),
            "correct": correct,
        }))
    }

    pub(super) fn cell(&self, row: usize, column: usize) -> Result<Value, StudioError> {
        let model = self.model();
        let test = &self.splits(&model)?.test;
        let answers = self.answers(&model, test)?;
        let labels = test.labels();
        let mut there: Vec<&(usize, usize, f32)> = answers
            .images
            .iter()
            .filter(|(index, predicted, _)| (labels[*index], *predicted) == (row, column))
            .collect();
        // Mistakes the surest first; of what is right the least sure, which is more worth a look.
        let sign = if row == column { -1.0 } else { 1.0 };
        there.sort_by(|a, b| (sign * b.2).total_cmp(&(sign * a.2)).then(a.0.cmp(&b.0)));
        let images = there.iter().take(SHOWN_OF_CELL).map(|(index, _, probability)| {
            Ok(json!({ "index": index, "probability": probability, "picture": thumbnail(test, *index)? }))
        });
        let images = images.collect::<Result<Vec<Value>, StudioError>>()?;
        Ok(json!({ "row": row, "column": column, "count": there.len(), "images": images }))
    }

    fn answers(&self, model: &Arc<ModelFile>, test: &Dataset) -> Result<Arc<Answers>, StudioError> {
        let mut place = lock(&self.looked.answers);
        if let Some((of, answers)) = &*place
            && Arc::ptr_eq(of, model)
        {
            return Ok(Arc::clone(answers));
        }
        let normalization = &model.preprocessing.normalization;
        let images = Images::new(test, normalization).at_most(self.most_images(model)?);
        let indices: Vec<usize> = (0..images.len()).map(|k| images.index(k)).collect();
        let asked = if indices.len() == test.len() { None } else { Some(test.subset(&indices)) };
        let found = logits(&model.network, asked.as_ref().unwrap_or(test), normalization, BATCH.min(indices.len()))?;
        let probabilities = model.probabilities(&found);
        let classes = model.network.classes();
        let mut counts = Array2::zeros((classes, classes));
        let mut images = Vec::with_capacity(indices.len());
        for (&index, row) in indices.iter().zip(probabilities.axis_iter(Axis(0))) {
            let predicted = predicted_class(&row.to_vec());
            counts[[test.labels()[index], predicted]] += 1;
            images.push((index, predicted, row[predicted]));
        }
        let answers = Arc::new(Answers { images, counts });
        *place = Some((Arc::clone(model), Arc::clone(&answers)));
        Ok(answers)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The numbers of an image, 0 to 255.
pub(super) fn pixels(data: &Dataset, index: usize) -> Result<Vec<u8>, StudioError> {
    if let Some(bytes) = data.bytes(index) {
        return Ok(bytes.into_owned());
    }
    let mut values = vec![0.0; data.shape().len()];
    data.gather(&[index], &Normalization::identity(), &mut values);
    Ok(values.into_iter().map(|v| (v.clamp(0.0, 1.0) * 255.0).round() as u8).collect())
}

/// An image of the data, no larger than a page of many needs.
pub(super) fn thumbnail(data: &Dataset, index: usize) -> Result<String, StudioError> {
    const SIDE: u32 = 96;
    let batch = data.batch(index..index + 1, &Normalization::identity());
    let image = sheet::picture(batch.index_axis(Axis(0), 0));
    let small = image.width().max(image.height()) <= SIDE;
    pictures::png(&if small { image } else { sheet::zoom(&image, SIDE) })
}
