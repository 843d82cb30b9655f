//! What the server counts, as Prometheus reads it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper bounds in seconds.
const SECONDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
/// Upper bounds in images.
const IMAGES: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];

/// Counts below bounds, each without those of the bounds before.
#[derive(Default)]
struct Histogram {
    counts: Vec<u64>,
    sum: f64,
}

impl Histogram {
    fn add(&mut self, bounds: &[f64], value: f64) {
        self.counts.resize(bounds.len() + 1, 0);
        let at = bounds.iter().position(|bound| value <= *bound).unwrap_or(bounds.len());
        self.counts[at] += 1;
        self.sum += value;
    }

    fn write(&self, out: &mut String, name: &str, help: &str, bounds: &[f64]) {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} histogram");
        let mut below = 0;
        for (at, bound) in bounds.iter().map(f64::to_string).chain(["+Inf".into()]).enumerate() {
            below += self.counts.get(at).copied().unwrap_or(0);
            let _ = writeln!(out, "{name}_bucket{{le=\"{bound}\"}} {below}");
        }
        let _ = writeln!(out, "{name}_sum {}\n{name}_count {below}", self.sum);
    }
}

/// Counters of one server.
#[derive(Default)]
pub(super) struct Metrics {
    /// By route and status.
    requests: Mutex<BTreeMap<(&'static str, u16), u64>>,
    seconds: Mutex<Histogram>,
    batches: Mutex<Histogram>,
    images: AtomicU64,
    /// Connections that are open.
    pub(super) connections: AtomicUsize,
    /// Connections that were accepted.
    pub(super) accepted: AtomicU64,
    /// Idle connections that were closed to make room.
    pub(super) evicted: AtomicU64,
}

impl Metrics {
    /// A request was answered.
    pub(super) fn request(&self, route: &'static str, status: u16, took: Duration) {
        *self.requests.lock().unwrap_or_else(PoisonError::into_inner).entry((route, status)).or_default() += 1;
        if route == "/predict" {
            let mut seconds = self.seconds.lock().unwrap_or_else(PoisonError::into_inner);
            seconds.add(&SECONDS, took.as_secs_f64());
        }
    }

    /// Images were predicted together.
    pub(super) fn batch(&self, images: usize) {
        self.images.fetch_add(images as u64, Ordering::Relaxed);
        self.batches.lock().unwrap_or_else(PoisonError::into_inner).add(&IMAGES, images as f64);
    }

    /// The text format, version 0.0.4.
    pub(super) fn text(&self, waiting: usize) -> String {
        let mut out =
            String::from("# HELP striate_requests_total Requests answered.\n# TYPE striate_requests_total counter\n");
        for ((route, status), count) in &*self.requests.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = writeln!(out, "striate_requests_total{{route=\"{route}\",status=\"{status}\"}} {count}");
        }
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        for (name, kind, help, value) in [
            ("striate_images_total", "counter", "Images predicted.", count(&self.images)),
            ("striate_connections_accepted_total", "counter", "Connections accepted.", count(&self.accepted)),
            (
                "striate_connections_evicted_total",
                "counter",
                "Idle connections closed for others.",
                count(&self.evicted),
            ),
            ("striate_connections", "gauge", "Open connections.", self.connections.load(Ordering::Relaxed) as u64),
            ("striate_queue_images", "gauge", "Images that wait to be predicted.", waiting as u64),
        ] {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        }
        let seconds = self.seconds.lock().unwrap_or_else(PoisonError::into_inner);
        seconds.write(&mut out, "striate_predict_seconds", "Time to answer POST /predict.", &SECONDS);
        let batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        batches.write(&mut out, "striate_batch_images", "Images predicted at a time.", &IMAGES);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_cumulative() {
        let metrics = Metrics::default();
        metrics.request("/predict", 200, Duration::from_millis(3));
        metrics.request("/predict", 200, Duration::from_secs(9));
        metrics.request("/model", 200, Duration::ZERO);
        metrics.batch(3);
        let text = metrics.text(2);
        for line in [
            "striate_requests_total{route=\"/predict\",status=\"200\"} 2",
            "striate_predict_seconds_bucket{le=\"0.0025\"} 0",
            "striate_predict_seconds_bucket{le=\"0.005\"} 1",
            "striate_predict_seconds_bucket{le=\"+Inf\"} 2",
            "striate_predict_seconds_count 2",
            "striate_batch_images_bucket{le=\"4\"} 1",
            "striate_queue_images 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
