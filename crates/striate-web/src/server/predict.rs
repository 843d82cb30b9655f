//! `POST /predict`

use super::connections::Connection;
use super::refusal::Refusal;
use super::{Service, images, json};
use crate::studio::answer;
use axum::body::Body;
use axum::extract::{Extension, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use std::sync::Arc;

/// Classes that are named for each image, where the request does not say how many.
const TOP: usize = 5;

pub(super) async fn predict(
    State(service): State<Arc<Service>>,
    Extension(connection): Extension<Arc<Connection>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let top = top(query.as_deref().unwrap_or_default())?;
    let coming = service.queue.announce();
    let read = connection.while_receiving(service.bodies.read(body)).await?;
    // Only now, so that slow clients take nobody's place.
    let _request = service.requests.try_acquire().map_err(|_| Refusal::full())?;
    let model = service.studio.model();
    let (shape, most) = (model.network.input(), service.options.most_images());
    let (sent, many) = images::images(&headers, read.bytes.clone(), shape, most).await?;
    let inputs = decoded(&service, sent).await?;
    let Some(answers) = service.queue.push(inputs) else { return Err(Refusal::full()) };
    drop(coming);
    let mut predictions = Vec::with_capacity(answers.len());
    for one in answers {
        let failed = |reason: String| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, reason);
        let row = one.await.map_err(|_| failed("the server is stopping".into()))?.map_err(failed)?;
        predictions.push(answer(&model, &row, top));
    }
    let mut result = serde_json::json!({ "model": model.network.description().name });
    match (many, predictions.len()) {
        (false, 1) => result["prediction"] = predictions.remove(0),
        _ => result["predictions"] = predictions.into(),
    }
    Ok(json(&result))
}

fn top(query: &str) -> Result<usize, Refusal> {
    let Some(top) = query.split('&').find_map(|pair| pair.strip_prefix("top=")) else { return Ok(TOP) };
    let wrong = || Refusal::bad(format!("top is {top:?}, but must be a whole number of at least 1"));
    top.parse().ok().filter(|&top| top > 0).ok_or_else(wrong)
}

/// The network's inputs for the images, decoded on threads of their own so that others are served meanwhile.
async fn decoded(service: &Arc<Service>, sent: Vec<images::Sent>) -> Result<Vec<Vec<f32>>, Refusal> {
    let late = || {
        let reason = format!("decoding took longer than {} s", service.options.decode_timeout.as_secs_f64());
        Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, reason)
    };
    let of_thread = Arc::clone(service);
    let work = async {
        let permit = Arc::clone(&service.work).acquire_owned().await.map_err(|_| Refusal::full())?;
        let decode = move || {
            // Held to the end of the work, even where nobody waits for it any more.
            let _permit = permit;
            let model = of_thread.studio.model();
            let most = of_thread.options.max_pixels;
            sent.into_iter()
                .map(|one| Ok(model.preprocessing.apply(&images::pixels(one, &model.preprocessing, most)?)))
                .collect::<Result<Vec<_>, Refusal>>()
        };
        let failed = |_| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the images could not be decoded");
        tokio::task::spawn_blocking(decode).await.map_err(failed)?
    };
    tokio::time::timeout(service.options.decode_timeout, work).await.map_err(|_| late())?
}
