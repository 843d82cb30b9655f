//! The page's files, and what the page asks for.

use super::connections::Connection;
use super::refusal::Refusal;
use super::{Service, json};
use crate::page::FILES;
use crate::studio::{Action, Question, StudioError};
use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;

pub(super) async fn index() -> Response {
    file("index.html")
}

pub(super) async fn named(Path(name): Path<String>) -> Response {
    file(&name)
}

fn file(name: &str) -> Response {
    let Some((_, text)) = FILES.iter().find(|(one, _)| *one == name) else {
        return Refusal::new(StatusCode::NOT_FOUND, "the page has no such file").into_response();
    };
    let kind = match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        _ => "image/svg+xml",
    };
    ([(header::CONTENT_TYPE, kind)], *text).into_response()
}

/// `POST /studio`: a question in JSON.
pub(super) async fn ask(
    State(service): State<Arc<Service>>,
    Extension(connection): Extension<Arc<Connection>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let read = connection.while_receiving(service.bodies.read(body)).await?;
    let question: Question = parsed(&headers, &read.bytes)?;
    let _request = service.requests.try_acquire().map_err(|_| Refusal::full())?;
    // Long ones wait for each other, and none of the short ones for them.
    let (semaphore, patience) = match question.is_long() {
        true => (&service.long, 6 * service.options.decode_timeout),
        false => (&service.work, service.options.decode_timeout),
    };
    let permit = tokio::time::timeout(patience, Arc::clone(semaphore).acquire_owned()).await;
    let permit = permit.map_err(|_| Refusal::full())?.map_err(|_| Refusal::full())?;
    let of_thread = Arc::clone(&service);
    let answer = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        of_thread.studio.ask(question)
    });
    let failed = |_| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the view could not be made");
    match answer.await.map_err(failed)? {
        Ok(value) => Ok(json(&value)),
        Err(error @ StudioError::NoData(_)) => Err(Refusal::new(StatusCode::NOT_FOUND, error.to_string())),
        Err(error) => Err(Refusal::bad(error.to_string())),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Control {
    action: Action,
}

/// `POST /run`: pause, resume or stop the run.
pub(super) async fn control(
    State(service): State<Arc<Service>>,
    Extension(connection): Extension<Arc<Connection>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let read = connection.while_receiving(service.bodies.read(body)).await?;
    let Control { action } = parsed(&headers, &read.bytes)?;
    if service.studio.live().is_some_and(|live| live.act(action)) {
        return Ok(json(&serde_json::json!({ "done": true })));
    }
    Err(Refusal::new(StatusCode::CONFLICT, "no run goes on here"))
}

/// JSON that says it is JSON: a page of another site can't send that without being asked first.
fn parsed<T: DeserializeOwned>(headers: &HeaderMap, body: &[u8]) -> Result<T, Refusal> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().unwrap_or_default().trim() != "application/json" {
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send JSON as application/json"));
    }
    serde_json::from_slice(body).map_err(|error| Refusal::bad(format!("the JSON can't be used: {error}")))
}
