//! Accepting connections: a bounded number, none of which holds up the others; and letting them finish in the end.

use super::metrics::Metrics;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio_io_timeout::TimeoutStream;

/// How connections are treated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections at a time.
    pub(super) connections: usize,
    /// For a request's head, the wait for it on an open connection included.
    pub(super) head: Duration,
    /// For the client to take some of an answer.
    pub(super) write: Duration,
    /// For what was accepted, after the server was told to stop.
    pub(super) drain: Duration,
}

/// A connection this young, or this soon after an answer, is not idle yet.
const IDLE: u64 = 200;

/// One connection as the others see it.
#[derive(Default)]
pub(super) struct Connection {
    /// Requests that have arrived and are being answered.
    busy: AtomicUsize,
    /// Milliseconds since the server's start at which it was last busy.
    since: AtomicU64,
    evict: Notify,
}

impl Connection {
    /// While a body is on its way the connection does no work that would be lost with it, and may have to make room.
    pub(super) async fn while_receiving<T>(&self, receive: impl Future<Output = T>) -> T {
        self.busy.fetch_sub(1, Ordering::Relaxed);
        let received = receive.await;
        self.busy.fetch_add(1, Ordering::Relaxed);
        received
    }
}

/// All connections.
struct Table {
    open: Mutex<HashMap<u64, Arc<Connection>>>,
    closed: Notify,
    begun: Instant,
    metrics: Arc<Metrics>,
}

impl Table {
    fn open(&self) -> MutexGuard<'_, HashMap<u64, Arc<Connection>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }

    fn add(&self, id: u64) -> Arc<Connection> {
        let connection = Arc::new(Connection::default());
        connection.since.store(self.now(), Ordering::Relaxed);
        let mut open = self.open();
        open.insert(id, Arc::clone(&connection));
        self.metrics.connections.store(open.len(), Ordering::Relaxed);
        self.metrics.accepted.fetch_add(1, Ordering::Relaxed);
        connection
    }

    fn remove(&self, id: u64) {
        let mut open = self.open();
        open.remove(&id);
        self.metrics.connections.store(open.len(), Ordering::Relaxed);
        drop(open);
        self.closed.notify_waiters();
    }

    /// Closes the connection that has been idle longest.
    fn evict(&self) {
        let now = self.now();
        let open = self.open();
        let idle = open.iter().filter(|(_, one)| one.busy.load(Ordering::Relaxed) == 0);
        let idle = idle.map(|(id, one)| (one.since.load(Ordering::Relaxed), *id, one));
        if let Some((_, _, one)) =
            idle.filter(|(since, ..)| since + IDLE <= now).min_by_key(|&(since, id, _)| (since, id))
        {
            one.evict.notify_one();
            self.metrics.evicted.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Files that a server has open beside its connections, and a run beside a server.
const OTHER_FILES: u64 = 128;

/// How many of so many connections the system lets this process have; asks it for as many first.
pub(super) fn at_most(wanted: usize) -> usize {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let needed = wanted as u64 + OTHER_FILES;
        let mut limits = getrlimit(Resource::Nofile);
        if limits.current.is_some_and(|current| current < needed) {
            limits.current = Some(limits.maximum.map_or(needed, |most| most.min(needed)));
            // Where the system refuses, the limit that stands counts.
            let _ = setrlimit(Resource::Nofile, limits);
        }
        if let Some(most) = getrlimit(Resource::Nofile).current {
            return wanted.min(usize::try_from(most.saturating_sub(OTHER_FILES)).unwrap_or(wanted)).max(1);
        }
    }
    wanted.max(1)
}

/// Serves until `stop`, and then what was accepted.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    metrics: Arc<Metrics>,
    stop: impl Future<Output = ()>,
) {
    let table = Arc::new(Table { open: Mutex::default(), closed: Notify::new(), begun: Instant::now(), metrics });
    let (stopping, stopped) = watch::channel(false);
    let mut stop = pin!(stop);
    let mut ids = 0..;
    loop {
        let stream = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                // Out of file descriptors, or a client that was gone at once.
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            },
        };
        start(stream, ids.next().unwrap_or_default(), &table, &router, limits, stopped.clone());
        // One too many is open now: another has to go before the next is accepted.
        while table.open().len() > limits.connections {
            let closed = table.closed.notified();
            table.evict();
            let _ = tokio::time::timeout(Duration::from_millis(IDLE / 4), closed).await;
        }
    }
    // Those whom the system has accepted already are clients, too.
    while let Ok(Ok((stream, _))) = tokio::time::timeout(Duration::from_millis(1), listener.accept()).await {
        start(stream, ids.next().unwrap_or_default(), &table, &router, limits, stopped.clone());
    }
    drop(listener);
    let _ = stopping.send(true);
    let all_closed = async {
        loop {
            let closed = table.closed.notified();
            if table.open().is_empty() {
                return;
            }
            let _ = tokio::time::timeout(Duration::from_millis(50), closed).await;
        }
    };
    let _ = tokio::time::timeout(limits.drain, all_closed).await;
}

fn start(
    stream: TcpStream,
    id: u64,
    table: &Arc<Table>,
    router: &Router,
    limits: Limits,
    mut stopped: watch::Receiver<bool>,
) {
    let (table, one) = (Arc::clone(table), table.add(id));
    let counted = {
        let (table, one, router) = (Arc::clone(&table), Arc::clone(&one), router.clone());
        tower::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
            let (table, one, router) = (Arc::clone(&table), Arc::clone(&one), router.clone());
            async move {
                one.since.store(table.now(), Ordering::Relaxed);
                one.busy.fetch_add(1, Ordering::Relaxed);
                request.extensions_mut().insert(Arc::clone(&one));
                let answer = tower::ServiceExt::oneshot(router, request).await;
                one.since.store(table.now(), Ordering::Relaxed);
                one.busy.fetch_sub(1, Ordering::Relaxed);
                answer
            }
        })
    };
    tokio::spawn(async move {
        // Answers are small; waiting to fill a packet would only delay them.
        let _ = stream.set_nodelay(true);
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(limits.write));
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(limits.head).max_buf_size(64 << 10).max_headers(64);
        let service = TowerToHyperService::new(counted);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(Box::pin(stream)), service));
        let stopping = async {
            let _ = stopped.wait_for(|stopped| *stopped).await;
            // A request may be on the wire to a connection that looks idle.
            tokio::time::sleep(Duration::from_millis(IDLE / 2)).await;
        };
        tokio::select! {
            _ = connection.as_mut() => {}
            () = one.evict.notified() => {}
            () = stopping => {
                connection.as_mut().graceful_shutdown();
                let _ = connection.await;
            }
        }
        table.remove(id);
    });
}
