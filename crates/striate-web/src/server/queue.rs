//! Images that wait to be predicted, and the thread that takes as many of them at a time as there are.

use super::metrics::Metrics;
use crate::Studio;
use ndarray::Array4;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use striate::formats::{ModelFile, ModelPredictor};
use striate::network::Weights;
use tokio::sync::oneshot;

/// One image and where its answer goes.
struct Job {
    /// As the network takes it.
    input: Vec<f32>,
    arrived: Instant,
    answer: oneshot::Sender<Result<Vec<f32>, String>>,
}

/// What the queue may hold, and how long it gathers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Images that may wait.
    pub(super) most: usize,
    /// Images predicted at a time.
    pub(super) batch: usize,
    /// How long an image waits for others that are on their way.
    pub(super) wait: Duration,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Requests that are being read, whose images will follow.
    coming: usize,
    closed: bool,
}

/// Images that wait.
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    limits: Limits,
}

/// A request whose images are on their way; a batch waits a little for them.
pub(super) struct Coming<'a>(&'a Queue);

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        self.0.state().coming -= 1;
        self.0.changed.notify_all();
    }
}

/// The answers of one request's images.
pub(super) type Answers = Vec<oneshot::Receiver<Result<Vec<f32>, String>>>;

impl Queue {
    pub(super) fn new(limits: Limits) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), limits }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that a request is being read.
    pub(super) fn announce(&self) -> Coming<'_> {
        self.state().coming += 1;
        Coming(self)
    }

    /// Images that wait now.
    pub(super) fn len(&self) -> usize {
        self.state().jobs.len()
    }

    /// Puts a request's images at the end, all of them or, where there is no room, none.
    pub(super) fn push(&self, inputs: Vec<Vec<f32>>) -> Option<Answers> {
        let mut state = self.state();
        if state.closed || state.jobs.len() + inputs.len() > self.limits.most {
            return None;
        }
        let arrived = Instant::now();
        let answers = inputs
            .into_iter()
            .map(|input| {
                let (answer, receiver) = oneshot::channel();
                state.jobs.push_back(Job { input, arrived, answer });
                receiver
            })
            .collect();
        drop(state);
        self.changed.notify_all();
        Some(answers)
    }

    /// The next images to predict together, at least one; `None` once the queue is closed and empty.
    fn take(&self) -> Option<Vec<Job>> {
        let mut state = self.state();
        loop {
            let Some(first) = state.jobs.front() else {
                if state.closed {
                    return None;
                }
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = self.limits.wait.saturating_sub(first.arrived.elapsed());
            // A lone client is never made to wait: only for requests that are being read already.
            if state.jobs.len() >= self.limits.batch || state.coming == 0 || state.closed || left.is_zero() {
                let count = state.jobs.len().min(self.limits.batch);
                return Some(state.jobs.drain(..count).collect());
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }
}

/// The thread that predicts; it ends, with every image answered, when this is dropped.
pub(super) struct Worker {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    pub(super) fn start(
        queue: Arc<Queue>,
        studio: Arc<Studio>,
        weights: Weights,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<Self> {
        let of_thread = Arc::clone(&queue);
        let work = move || {
            let mut next = of_thread.take();
            // A live run's model changes; what is planned is for one of them.
            while next.is_some() {
                let model = studio.model();
                let mut predictors = Predictors { model: &model, weights, ready: BTreeMap::new() };
                while let Some(jobs) = next.take() {
                    if !Arc::ptr_eq(&model, &studio.model()) {
                        next = Some(jobs);
                        break;
                    }
                    metrics.batch(jobs.len());
                    studio.install(|| predictors.answer(jobs));
                    next = of_thread.take();
                }
            }
        };
        let thread = std::thread::Builder::new().name("predict".into()).spawn(work)?;
        Ok(Self { queue, thread: Some(thread) })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(thread) = self.thread.take() {
            // Nothing in it panics; if it did, its clients have been told by their closed channels.
            let _ = thread.join();
        }
    }
}

/// A predictor for each size of batch that was needed: powers of two, so that there are few.
struct Predictors<'a> {
    model: &'a ModelFile,
    weights: Weights,
    ready: BTreeMap<usize, ModelPredictor<'a>>,
}

impl Predictors<'_> {
    fn answer(&mut self, mut jobs: Vec<Job>) {
        while !jobs.is_empty() {
            let size = 1 << jobs.len().ilog2();
            let rest = jobs.split_off(size);
            let rows = self.predict(&jobs);
            for (k, job) in jobs.into_iter().enumerate() {
                let row = rows
                    .as_ref()
                    .map_err(Clone::clone)
                    .and_then(|rows| rows.get(k).cloned().ok_or_else(|| "the network gave too few answers".to_owned()));
                // A client that has gone away needs no answer.
                let _ = job.answer.send(row);
            }
            jobs = rest;
        }
    }

    /// The probabilities of each.
    fn predict(&mut self, jobs: &[Job]) -> Result<Vec<Vec<f32>>, String> {
        let shape = self.model.network.input();
        let values: Vec<f32> = jobs.iter().flat_map(|job| job.input.iter().copied()).collect();
        let x = Array4::from_shape_vec((jobs.len(), shape.channels, shape.height, shape.width), values);
        let x = x.map_err(|error| error.to_string())?;
        if !self.ready.contains_key(&jobs.len()) {
            let predictor = self.model.predictor(jobs.len(), self.weights);
            self.ready.insert(jobs.len(), predictor.map_err(|error| error.to_string())?);
        }
        let Some(predictor) = self.ready.get_mut(&jobs.len()) else { return Err("no predictor".into()) };
        let logits = predictor.predict(x.view()).map_err(|error| error.to_string())?;
        Ok(self.model.probabilities(&logits).rows().into_iter().map(|row| row.to_vec()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(most: usize, batch: usize) -> Queue {
        Queue::new(Limits { most, batch, wait: Duration::from_secs(60) })
    }

    #[test]
    fn a_request_gets_in_whole_or_not_at_all() {
        let queue = queue(3, 2);
        assert_eq!(queue.push(vec![vec![1.0], vec![2.0]]).unwrap().len(), 2);
        assert!(queue.push(vec![vec![3.0], vec![4.0]]).is_none());
        assert!(queue.push(vec![vec![5.0]]).is_some());
        assert_eq!(queue.len(), 3);
        let taken: Vec<f32> = queue.take().unwrap().iter().map(|job| job.input[0]).collect();
        assert_eq!(taken, [1.0, 2.0]);
        queue.close();
        assert!(queue.push(vec![vec![6.0]]).is_none());
        assert_eq!(queue.take().unwrap().len(), 1);
        assert!(queue.take().is_none());
    }

    #[test]
    fn a_batch_waits_for_what_is_coming_and_a_lone_image_for_nothing() {
        let queue = queue(8, 2);
        queue.push(vec![vec![1.0]]).unwrap();
        // Would wait a minute otherwise.
        assert_eq!(queue.take().unwrap().len(), 1);
        let coming = queue.announce();
        std::thread::scope(|scope| {
            queue.push(vec![vec![1.0]]).unwrap();
            let taken = scope.spawn(|| queue.take().unwrap().len());
            queue.push(vec![vec![2.0]]).unwrap();
            assert_eq!(taken.join().unwrap(), 2);
        });
        queue.push(vec![vec![1.0]]).unwrap();
        drop(coming);
        assert_eq!(queue.take().unwrap().len(), 1);
    }
}
