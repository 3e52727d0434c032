//! The server: both protocols, metrics and logs at one address, and its end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;
use thiserror::Error;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::access::KeyFile;
use crate::guard::guarded;
use crate::limits::{Budget, Limits};
use crate::listener::{ListenError, Listener};
use crate::log::Log;
use crate::metrics::{Answered, MEDIA_TYPE, Metrics};
use crate::model::{ServedModel, VersionSource};
use crate::tls::Tls;
use crate::versions::{Settings, Versions, Watcher};
use crate::{grpc, rest};

/// Between two looks whether the files of API keys and of the certificate have changed.
const FILES_OFTEN: Duration = Duration::from_secs(1);
/// The time for requests that are given up to be answered so.
const LAST: Duration = Duration::from_secs(1);

/// What a server is to be.
pub struct ServerOptions {
    /// Where it listens; port 0 is any that is free.
    pub address: SocketAddr,
    /// Its certificate.
    pub tls: Option<Tls>,
    /// The API keys that it asks for.
    pub keys: Option<KeyFile>,
    /// What a request may be.
    pub limits: Limits,
    /// How long a request may wait for others to be computed with it. Zero is right on a CPU: while
    /// a batch is computed the next one gathers, so that waiting only adds to the latency of
    /// requests that come alone.
    pub batch_wait: Duration,
    /// The time for requests to be answered when the server ends.
    pub drain: Duration,
    /// Where events are written.
    pub log: Log,
    /// Whether each answer is one of them.
    pub access_log: AccessLog,
}

/// Whether each answer is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// Each is.
    Each,
    /// None is.
    None,
}

/// Why a server does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// No version answers.
    #[error(transparent)]
    Versions(#[from] crate::versions::StartError),
    /// It listens to nobody.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The system does not give what it needs.
    #[error("the server's threads cannot be started: {0}")]
    Runtime(io::Error),
}

/// A server that answers.
pub struct Running<M: ServedModel> {
    runtime: Runtime,
    address: SocketAddr,
    drain: Duration,
    versions: Arc<Versions<M>>,
    watcher: Watcher,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<()>,
    log: Log,
}

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Requests that had begun were answered, but for so many, which were refused when the time for
    /// that was over.
    Drained {
        /// The number of these.
        refused: usize,
    },
    /// At once, without answers to requests that had begun.
    AtOnce,
}

/// The server of models.
pub struct Server;

impl Server {
    /// Loads the current version of `source`, and answers by it, and by those that follow it.
    ///
    /// # Errors
    /// The address cannot be had or is not guarded, or the version cannot be loaded.
    pub fn start<S: VersionSource>(
        source: S,
        options: ServerOptions,
    ) -> Result<Running<S::Model>, StartError> {
        let ServerOptions { address, tls, keys, limits, batch_wait, drain, log, access_log } = options;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.map_err(StartError::Runtime)?;
        // Before the version is loaded, which may take long: a taken address is known soon.
        let listener = Listener::bind(address, tls.clone(), keys.as_ref(), limits.clone());
        let listener = runtime.block_on(listener)?;
        let metrics = Arc::new(Metrics::default());
        let (queue, request, workers) = (limits.queue, limits.request, limits.workers);
        let settings = Settings { queue, request, batch_wait, workers };
        let (versions, watcher) = Versions::start(source, settings, metrics.clone(), log.clone())?;

        let budget = Budget::new(&limits);
        let mut router = rest::router(versions.clone(), limits.clone(), budget.clone())
            .merge(grpc::router(versions.clone(), limits, budget))
            .merge(metrics_router(versions.clone(), metrics.clone()));
        if let Some(keys) = keys.map(Arc::new) {
            router = guarded(router, keys.clone());
            let refreshed = move || keys.refresh().map_err(|e| e.to_string());
            runtime.spawn(refresh(refreshed, ["keys_changed", "keys_unreadable"], log.clone()));
        }
        if let Some(tls) = tls {
            let refreshed = move || tls.refresh().map_err(|e| e.to_string());
            let events = ["certificate_changed", "certificate_unreadable"];
            runtime.spawn(refresh(refreshed, events, log.clone()));
        }
        let access_log = (access_log == AccessLog::Each).then(|| log.clone());
        let router = router.layer(from_fn_with_state(Arc::new(Watched { metrics, access_log }), watch));

        let address = listener.address();
        let (stop, stopped) = oneshot::channel::<()>();
        let report = log.clone();
        let ended = runtime.spawn(async move {
            let stopped = async { drop(stopped.await) };
            let report = |e: &io::Error| {
                report.write("connections_fail", json!({"reason": e.to_string()}));
            };
            listener.serve(router, stopped, drain + LAST, report).await;
        });
        log.write("listening", json!({"address": address.to_string()}));
        Ok(Running { runtime, address, drain, versions, watcher, stop, ended, log })
    }
}

impl<M: ServedModel> Running<M> {
    /// The address, with the port that it has.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends the server: it is not ready any more and accepts no connections, answers the requests
    /// that have begun, and refuses those that have no answer when the time for that is over.
    pub fn drain(self) -> Ended {
        self.end(std::future::pending())
    }

    /// Serves until SIGINT or SIGTERM, and then ends as by [`Running::drain`]; a second signal ends
    /// it at once.
    ///
    /// # Errors
    /// The system does not tell of signals.
    pub fn until_signal(self) -> io::Result<Ended> {
        let mut signals = {
            let _inside = self.runtime.enter();
            Signals::new()?
        };
        self.runtime.block_on(signals.next());
        Ok(self.end(async move { signals.next().await }))
    }

    fn end(self, at_once: impl Future<Output = ()>) -> Ended {
        let Running { runtime, drain, versions, watcher, stop, mut ended, log, .. } = self;
        let outcome = runtime.block_on(async {
            drop(watcher);
            log.write("draining", json!({"seconds": drain.as_secs_f64()}));
            versions.drain();
            let _ = stop.send(());
            let drained = async {
                if tokio::time::timeout(drain, &mut ended).await.is_err() {
                    versions.give_up();
                    let _ = tokio::time::timeout(LAST, &mut ended).await;
                }
                Ended::Drained { refused: versions.given_up() }
            };
            tokio::select! {
                outcome = drained => outcome,
                () = at_once => Ended::AtOnce,
            }
        });
        // A batch that is being computed cannot be stopped, and nobody waits for it.
        runtime.shutdown_background();
        let refused = match outcome {
            Ended::Drained { refused } => Some(refused),
            Ended::AtOnce => None,
        };
        log.write("ended", json!({"at_once": outcome == Ended::AtOnce, "refused": refused}));
        outcome
    }
}

/// Those by which a process is asked to end.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    fn new() -> io::Result<Signals> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    #[cfg(not(unix))]
    fn new() -> io::Result<Signals> {
        Ok(Signals {})
    }

    #[cfg(unix)]
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    #[cfg(not(unix))]
    async fn next(&mut self) {
        let _ = tokio::signal::ctrl_c().await;
    }
}

fn metrics_router<M: ServedModel>(versions: Arc<Versions<M>>, metrics: Arc<Metrics>) -> Router {
    let text = move || {
        let text = metrics.text(versions.waiting());
        async move { ([(CONTENT_TYPE, MEDIA_TYPE)], text).into_response() }
    };
    Router::new().route("/metrics", get(text)).method_not_allowed_fallback(rest::method_not_allowed)
}

/// Reads files again when they change, and logs that they did or cannot be read. What was read
/// before stays in force while they cannot.
async fn refresh(
    read: impl Fn() -> Result<bool, String>,
    [changed, unreadable]: [&'static str; 2],
    log: Log,
) {
    let mut said = None;
    loop {
        tokio::time::sleep(FILES_OFTEN).await;
        match read() {
            Ok(true) => log.write(changed, json!({})),
            Ok(false) => {}
            Err(reason) => {
                if said.as_ref() != Some(&reason) {
                    log.write(unreadable, json!({"reason": reason}));
                    said = Some(reason);
                }
                continue;
            }
        }
        said = None;
    }
}

struct Watched {
    metrics: Arc<Metrics>,
    access_log: Option<Log>,
}

/// Counts each answer, and logs it if that is wanted.
async fn watch(State(watched): State<Arc<Watched>>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_string());
    // What is no route has names that clients made up.
    let route = route.unwrap_or_else(|| "other".into());
    let response = next.run(request).await;
    let headers = response.headers();
    let text = |value: &axum::http::HeaderValue| value.to_str().unwrap_or_default().to_string();
    let is_grpc = headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes() == b"application/grpc");
    let code = match headers.get("grpc-status").map(text) {
        Some(code) => code,
        None if is_grpc => "0".into(),
        None => response.status().as_u16().to_string(),
    };
    let version = headers.get(rest::MODEL_DIGEST).map(text).unwrap_or_default();
    let time = begun.elapsed();
    if let Some(log) = &watched.access_log {
        let fields = json!({"route": route, "code": code, "version": version, "seconds": time.as_secs_f64()});
        log.write("answer", fields);
    }
    watched.metrics.answered(Answered { route: &route, code, version: &version, time });
    response
}
