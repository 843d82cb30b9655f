//! What lies inside: every layer's output, how each number of it came about, the filters.

use super::{Image, Studio, StudioError, pictures};
use image::RgbImage;
use ndarray::{Array2, ArrayView2, Axis};
use serde_json::{Value, json};
use striate::draw;
use striate::draw::sheet;
use striate::explain::{self, FeatureMaps, Term, Work, filters};
use striate::layers::PoolingKind;

/// Maps shown of a layer at most.
const MOST_MAPS: usize = 64;
/// Numbers in a row where a layer's output is a vector.
const COLUMNS: usize = 50;
/// A window is written out in numbers up to this side.
const MOST_NUMBERS: usize = 7;
/// Channels of a sum that are shown, those that add most.
const MOST_TERMS: usize = 4;
/// Terms of a sum of single numbers that are listed.
const MOST_SINGLE: usize = 12;

impl Studio {
    pub(super) fn maps(&self, pixels: &str) -> Result<Value, StudioError> {
        let model = self.model();
        let image = Image::from_text(pixels, &model.preprocessing)?;
        let maps = explain::feature_maps(&model.network, image.x.view())?;
        let layers = maps.iter().skip(1).map(layer).collect::<Result<Vec<Value>, StudioError>>()?;
        Ok(json!({ "picture": pictures::png(&sheet::picture(image.shown.view()))?, "layers": layers }))
    }

    pub(super) fn worked(&self, pixels: &str, layer: &str, at: (usize, usize, usize)) -> Result<Value, StudioError> {
        let model = self.model();
        let image = Image::from_text(pixels, &model.preprocessing)?;
        let maps = explain::feature_maps(&model.network, image.x.view())?;
        let worked = explain::worked(&model.network, &maps, layer, at)?;
        let kind = maps.iter().find(|one| one.layer == layer).map_or("", |one| one.kind);
        let work = match &worked.work {
            Work::Sum { terms, bias } if terms.iter().all(|term| term.window.len() == 1) => single(terms, *bias),
            Work::Sum { terms, bias } => sum(terms, *bias)?,
            Work::Window { pooling, values } => {
                let kind = if *pooling == PoolingKind::Max { "max" } else { "mean" };
                json!({ "kind": kind, "window": grid(values.view())? })
            }
            Work::Point { inputs } => json!({ "kind": "point", "inputs": inputs }),
        };
        let (rows, columns) = worked.field;
        Ok(json!({
            "layer": layer,
            "kind": kind,
            "at": worked.at,
            "value": worked.value,
            "field": { "rows": [rows.start, rows.end], "columns": [columns.start, columns.end] },
            "work": work,
        }))
    }

    pub(super) fn filters(&self, layer: Option<&str>) -> Result<Value, StudioError> {
        let model = self.model();
        let found = filters::filters(&model.network, layer)?;
        let (count, channels, height, width) = found.values.dim();
        let title = format!("{} of {}", layer.unwrap_or(&found.name), model.network.description().name);
        let drawn = draw::filters(found.values.view(), &title);
        Ok(json!({
            "name": found.name,
            "shape": [count, channels, height, width],
            "picture": pictures::png(&drawn.image)?,
            "size": [drawn.image.width(), drawn.image.height()],
        }))
    }
}

/// One layer's output as pictures.
fn layer(maps: &FeatureMaps) -> Result<Value, StudioError> {
    let (channels, height, width) = maps.values.dim();
    let is_vector = height * width == 1;
    let pictures = if is_vector {
        vec![picture(&sheet::signed(strip(maps).view()))?]
    } else {
        let drawn = maps.values.axis_iter(Axis(0)).take(MOST_MAPS).map(|map| picture(&sheet::signed(map)));
        drawn.collect::<Result<_, _>>()?
    };
    Ok(json!({
        "layer": maps.layer,
        "kind": maps.kind,
        "shape": [channels, height, width],
        "columns": is_vector.then(|| channels.clamp(1, COLUMNS)),
        "left_out": if is_vector { 0 } else { channels.saturating_sub(MOST_MAPS) },
        "maps": pictures,
    }))
}

/// A vector as rows of cells.
fn strip(maps: &FeatureMaps) -> Array2<f32> {
    let channels = maps.values.dim().0;
    let columns = channels.clamp(1, COLUMNS);
    Array2::from_shape_fn((channels.div_ceil(columns), columns), |(y, x)| {
        maps.values.get((y * columns + x, 0, 0)).copied().unwrap_or(0.0)
    })
}

fn picture((image, reach): &(RgbImage, f32)) -> Result<Value, StudioError> {
    Ok(json!({ "picture": pictures::png(image)?, "reach": reach }))
}

/// Those that add most come first.
fn by_size(terms: &[Term]) -> Vec<&Term> {
    let mut order: Vec<&Term> = terms.iter().collect();
    order.sort_by(|a, b| b.sum.abs().total_cmp(&a.sum.abs()).then(a.channel.cmp(&b.channel)));
    order
}

fn sum(terms: &[Term], bias: f32) -> Result<Value, StudioError> {
    let shown = by_size(terms);
    let rest: f32 = shown.iter().skip(MOST_TERMS).map(|term| term.sum).sum();
    let shown = shown.into_iter().take(MOST_TERMS).map(|term| {
        Ok(json!({
            "channel": term.channel,
            "sum": term.sum,
            "window": grid(term.window.view())?,
            "weights": grid(term.weights.view())?,
            "products": grid((&term.window * &term.weights).view())?,
        }))
    });
    let shown = shown.collect::<Result<Vec<Value>, StudioError>>()?;
    Ok(json!({ "kind": "sum", "terms": shown, "all": terms.len(), "rest": rest, "bias": bias }))
}

/// A sum over many inputs of one number each.
fn single(terms: &[Term], bias: f32) -> Value {
    let shown = by_size(terms);
    let rest: f32 = shown.iter().skip(MOST_SINGLE).map(|term| term.sum).sum();
    let first = |values: &Array2<f32>| values.first().copied().unwrap_or(f32::NAN);
    let shown = shown.iter().take(MOST_SINGLE).map(|term| {
        json!({
            "channel": term.channel,
            "input": first(&term.window),
            "weight": first(&term.weights),
            "sum": term.sum,
        })
    });
    json!({ "kind": "list", "terms": shown.collect::<Vec<Value>>(), "all": terms.len(), "rest": rest, "bias": bias })
}

/// Numbers with their colours, or where there are too many to read, a picture of them.
fn grid(values: ArrayView2<'_, f32>) -> Result<Value, StudioError> {
    let (rows, columns) = values.dim();
    let (image, reach) = sheet::signed(values);
    let mut json = json!({ "rows": rows, "columns": columns, "reach": reach });
    if rows.max(columns) <= MOST_NUMBERS {
        let cell = |&value: &f32| json!([value.is_finite().then_some(value), pictures::signed(value, reach)]);
        json["cells"] = values.rows().into_iter().map(|row| row.iter().map(cell).collect::<Vec<Value>>()).collect();
    } else {
        json["picture"] = pictures::png(&image)?.into();
    }
    Ok(json)
}
