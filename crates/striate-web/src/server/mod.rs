//! The server: prediction over HTTP, and the page.
//!
//! What comes from outside meets bounds in this order: connections (how many, how long a head takes, who is idle), who
//! asks (`guard`), the body (bytes, seconds, memory of all bodies), the image (pixels, seconds of decoding), the queue
//! (images that wait). Beyond each is an answer that says so; nothing waits without end.

mod body;
mod connections;
mod guard;
mod images;
mod metrics;
mod openapi;
pub mod page;
mod predict;
mod queue;
mod refusal;

use crate::Studio;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use body::Bodies;
use guard::{Guard, Verdict};
use metrics::Metrics;
use queue::{Queue, Worker};
use refusal::Refusal;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use striate::network::Weights;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// How a server is run. [`Options::default`] is on loopback, for one machine.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen; port 0 for any that is free.
    pub address: SocketAddr,
    /// What every request must know; on other addresses than loopback one is made where none is given.
    pub token: Option<String>,
    /// No token on any address.
    pub open: bool,
    /// How the weights are kept.
    pub weights: Weights,
    /// Images predicted at a time, at most.
    pub max_batch: usize,
    /// How long an image waits for others whose requests are being read.
    pub max_wait: Duration,
    /// Images that may wait; beyond that is 503.
    pub queue: usize,
    /// Images in one request, as far as the queue holds so many.
    pub max_images: usize,
    /// Bytes of a body.
    pub max_body: usize,
    /// Bytes of all bodies that are in memory together.
    pub max_memory: usize,
    /// Pixels of an image file.
    pub max_pixels: u64,
    /// How long the decoding of one request's images may take.
    pub decode_timeout: Duration,
    /// Connections at a time, as far as the system allows so many open files; beyond that the one that has been idle
    /// longest is closed.
    pub max_connections: usize,
    /// How long a request's head may take, the wait for it included.
    pub head_timeout: Duration,
    /// How long a body may take.
    pub body_timeout: Duration,
    /// How long what was accepted may take after the server was told to stop.
    pub drain_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 7878)),
            token: None,
            open: false,
            weights: Weights::F32,
            max_batch: 32,
            max_wait: Duration::from_millis(2),
            queue: 256,
            max_images: 128,
            max_body: 16 << 20,
            max_memory: 256 << 20,
            max_pixels: 24_000_000,
            decode_timeout: Duration::from_secs(10),
            max_connections: 10_000,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(20),
            drain_timeout: Duration::from_secs(20),
        }
    }
}

impl Options {
    /// Images in one request, which must all find a place in the queue.
    fn most_images(&self) -> usize {
        self.max_images.min(self.queue)
    }
}

/// Why a server can't be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// An address that can't be listened on.
    #[error("{address}: cannot listen there: {source}; choose another address, such as 127.0.0.1:0 for any free port")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// Threads that could not be started.
    #[error("the server's threads could not be started: {0}")]
    Threads(std::io::Error),
    /// No random numbers for a token.
    #[error("the system gives no random numbers to make a token of: {0}; give one with --token")]
    Token(getrandom::Error),
    /// A token that can't stand in a header.
    #[error("a token must be 8 to 256 letters, digits, - or _; the one given has {found}")]
    TokenForm {
        /// What is wrong with it.
        found: String,
    },
}

/// What all requests share.
struct Service {
    studio: Arc<Studio>,
    options: Options,
    guard: Guard,
    metrics: Arc<Metrics>,
    queue: Arc<Queue>,
    bodies: Bodies,
    /// Decoders and views at work.
    work: Arc<Semaphore>,
    /// Views that go over the data, of which one at a time runs beside the others.
    long: Arc<Semaphore>,
    /// Requests that have been read and are being answered.
    requests: Semaphore,
}

/// A server that listens, and serves once [`Server::run`] is called.
pub struct Server {
    runtime: tokio::runtime::Runtime,
    listener: TcpListener,
    address: SocketAddr,
    service: Arc<Service>,
    worker: Worker,
}

impl Server {
    /// Listens at the address of the options.
    ///
    /// # Errors
    /// An address that can't be listened on, a token that can't be used, threads that can't be had.
    pub fn bind(studio: Arc<Studio>, options: Options) -> Result<Self, ServeError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(64)
            .thread_name("serve")
            .enable_all()
            .build()
            .map_err(ServeError::Threads)?;
        let listen = |source| ServeError::Listen { address: options.address, source };
        let listener = runtime.block_on(TcpListener::bind(options.address)).map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let token = match &options.token {
            Some(token) => Some(checked(token)?),
            None if address.ip().is_loopback() || options.open => None,
            None => Some(guard::new_token().map_err(ServeError::Token)?),
        };
        let metrics = Arc::new(Metrics::default());
        let limits = queue::Limits { most: options.queue, batch: options.max_batch.max(1), wait: options.max_wait };
        let queue = Arc::new(Queue::new(limits));
        let worker = Worker::start(Arc::clone(&queue), Arc::clone(&studio), options.weights, Arc::clone(&metrics))
            .map_err(ServeError::Threads)?;
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let service = Arc::new(Service {
            studio,
            guard: Guard::new(address, token),
            metrics,
            queue,
            bodies: Bodies::new(options.max_body, options.max_memory, options.body_timeout),
            work: Arc::new(Semaphore::new(cores)),
            long: Arc::new(Semaphore::new(1)),
            requests: Semaphore::new(options.queue.max(1)),
            options,
        });
        Ok(Self { runtime, listener, address, service, worker })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The page, with the token if one is needed.
    pub fn url(&self) -> String {
        let token = self.service.guard.token.as_ref().map_or(String::new(), |token| format!("?token={token}"));
        format!("http://{}/{token}", self.address)
    }

    /// Serves until `stop` is ready, and then finishes what it accepted.
    pub fn run(self, stop: impl Future<Output = ()>) {
        let Self { runtime, listener, service, worker, .. } = self;
        let limits = connections::Limits {
            connections: connections::at_most(service.options.max_connections),
            head: service.options.head_timeout,
            write: service.options.head_timeout,
            drain: service.options.drain_timeout,
        };
        let metrics = Arc::clone(&service.metrics);
        runtime.block_on(connections::serve(listener, router(service), limits, metrics, stop));
        drop(worker);
        // A decoder that is still at work has nobody left to answer.
        runtime.shutdown_timeout(Duration::from_millis(100));
    }

    /// Serves on a thread of its own.
    ///
    /// # Errors
    /// A thread that can't be had.
    pub fn start(self) -> Result<Running, ServeError> {
        let url = self.url();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let work = move || {
            self.run(async {
                // Also if whoever could stop it is gone.
                let _ = stopped.await;
            });
        };
        let thread = std::thread::Builder::new().name("page".into()).spawn(work).map_err(ServeError::Threads)?;
        Ok(Running { url, stop: Some(stop), thread: Some(thread) })
    }

    /// As [`Server::run`], until the process is told to end (SIGINT, and SIGTERM where there is one).
    pub fn run_until_signal(self, on_stop: impl FnOnce()) {
        self.run(async move {
            signal().await;
            on_stop();
        });
    }
}

/// A server on a thread of its own; it ends, with everything accepted answered, when this is dropped.
pub struct Running {
    url: String,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    /// The page, with the token if one is needed.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Ends it.
    pub fn stop(self) {}
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // Nothing in it panics; if it did, there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

/// Waits for the process to be told to end. Once one is there, a second ends it at once.
async fn signal() {
    let interrupted = async {
        if tokio::signal::ctrl_c().await.is_err() {
            // Without a handler the signal ends the process as usual.
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminated) = signal(SignalKind::terminate()) {
            tokio::select! {
                () = interrupted => {}
                _ = terminated.recv() => {}
            }
            tokio::spawn(async move {
                tokio::select! {
                    _ = tokio::signal::ctrl_c() => {}
                    _ = terminated.recv() => {}
                }
                std::process::exit(130);
            });
            return;
        }
    }
    interrupted.await;
}

fn checked(token: &str) -> Result<String, ServeError> {
    let odd = token.chars().find(|c| !c.is_ascii_alphanumeric() && !"-_".contains(*c));
    let found = match odd {
        Some(odd) => format!("{odd:?}"),
        None if !(8..=256).contains(&token.len()) => format!("{} characters", token.len()),
        None => return Ok(token.to_owned()),
    };
    Err(ServeError::TokenForm { found })
}

fn router(service: Arc<Service>) -> Router {
    Router::new()
        .route("/", get(page::index))
        .route("/page/{*name}", get(page::named))
        .route("/studio", post(page::ask))
        .route("/run", post(page::control))
        .route("/predict", post(predict::predict))
        .route("/model", get(model))
        .route("/healthz", get(async || ([(header::CONTENT_TYPE, "application/json")], "{\"status\":\"ok\"}")))
        .route("/metrics", get(metrics))
        .route("/openapi.json", get(openapi))
        .fallback(async || {
            Refusal::new(StatusCode::NOT_FOUND, "there is nothing here; /openapi.json says what there is")
        })
        .method_not_allowed_fallback(async || {
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "not in this way; /openapi.json says how")
        })
        .layer(middleware::from_fn_with_state(Arc::clone(&service), watch))
        .with_state(service)
}

/// Around every request: who asks, how long it takes, what is counted.
async fn watch(State(service): State<Arc<Service>>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let route = match request.uri().path() {
        "/" => "/",
        "/studio" => "/studio",
        "/run" => "/run",
        "/predict" => "/predict",
        "/model" => "/model",
        "/healthz" => "/healthz",
        "/metrics" => "/metrics",
        "/openapi.json" => "/openapi.json",
        _ => "other",
    };
    let mut response = match service.guard.check(request.method(), request.uri(), request.headers()) {
        Ok(Verdict::Welcome) => next.run(request).await,
        Ok(Verdict::TakeCookie(cookie)) => {
            let headers = [(header::SET_COOKIE, cookie), (header::LOCATION, request.uri().path().to_owned())];
            (StatusCode::SEE_OTHER, headers).into_response()
        }
        Err(refusal) => refusal.into_response(),
    };
    guard::protect(&mut response);
    service.metrics.request(route, response.status().as_u16(), begun.elapsed());
    response
}

/// What model this is.
async fn model(State(service): State<Arc<Service>>) -> Response {
    json(&service.studio.describe())
}

async fn metrics(State(service): State<Arc<Service>>) -> Response {
    let text = service.metrics.text(service.queue.len());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

async fn openapi(State(service): State<Arc<Service>>) -> Response {
    json(&openapi::document(&service.studio.model(), &service.options))
}

fn json(value: &serde_json::Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}
