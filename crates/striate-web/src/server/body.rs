//! Reading a request's body within bounds of size, time and memory.

use super::refusal::Refusal;
use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use http_body_util::BodyExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A semaphore counts these.
const UNIT: usize = 1024;

/// What bodies may take.
pub(super) struct Bodies {
    /// Bytes of one.
    pub(super) most: usize,
    /// From the first byte to the last.
    pub(super) patience: Duration,
    /// Of all that are being read or worked on.
    memory: Arc<Semaphore>,
}

/// A body in memory, and its part of the memory that there is for bodies.
pub(super) struct Read {
    pub(super) bytes: Bytes,
    _memory: Vec<OwnedSemaphorePermit>,
}

impl Bodies {
    /// `most` bytes each, `all` together.
    pub(super) fn new(most: usize, all: usize, patience: Duration) -> Self {
        let units = (all.max(most) / UNIT + 1).min(Semaphore::MAX_PERMITS);
        Self { most, patience, memory: Arc::new(Semaphore::new(units)) }
    }

    /// Reads all of a body.
    pub(super) async fn read(&self, body: Body) -> Result<Read, Refusal> {
        let mut body = body;
        match tokio::time::timeout(self.patience, self.collect(&mut body)).await {
            Ok(Ok(read)) => Ok(read),
            Ok(Err(refusal)) => {
                // A client that is still sending would otherwise see a reset connection instead of the answer.
                let _ = tokio::time::timeout(Duration::from_secs(1), self.discard(&mut body)).await;
                Err(refusal)
            }
            Err(_) => {
                let reason = format!("the body took longer than {} s", self.patience.as_secs_f64());
                Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, reason))
            }
        }
    }

    async fn collect(&self, body: &mut Body) -> Result<Read, Refusal> {
        let too_large =
            || Refusal::large(format!("the body is larger than {} bytes, the most that is read", self.most));
        if http_body::Body::size_hint(body).lower() > self.most as u64 {
            return Err(too_large());
        }
        let (mut bytes, mut permits, mut held) = (Vec::new(), Vec::new(), 0);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Refusal::bad(format!("the body ended early: {error}")))?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > self.most {
                return Err(too_large());
            }
            let needed = (bytes.len() + data.len()).div_ceil(UNIT);
            if needed > held {
                let more = u32::try_from(needed - held).unwrap_or(u32::MAX);
                permits.push(Arc::clone(&self.memory).try_acquire_many_owned(more).map_err(|_| Refusal::full())?);
                held = needed;
            }
            bytes.extend_from_slice(&data);
        }
        Ok(Read { bytes: bytes.into(), _memory: permits })
    }

    /// Reads on for nothing, but not without end.
    async fn discard(&self, body: &mut Body) {
        let mut left = 2 * self.most;
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                return;
            }
        }
    }
}
