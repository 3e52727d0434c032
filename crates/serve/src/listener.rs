//! Connections: accepted, limited, and closed when the server ends.
//!
//! Both protocols come to one address. HTTP/2 is known by ALPN where there is TLS, and by its
//! first bytes where there is none.

use std::convert::Infallible;
use std::io::{self, Cursor};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::access::{Exposed, Guards, KeyFile, check_exposure};
use crate::activity::{Activity, Taken};
use crate::limits::Limits;
use crate::tls::Tls;

/// What a connection of HTTP/2 begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The pause after an error of the system, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);
/// Between two questions whether the other side of a connection of HTTP/2 is there, and the time
/// for its answer.
const PING: Duration = Duration::from_secs(20);

/// Why a server listens to nobody.
#[derive(Debug, Error)]
pub enum ListenError {
    /// Others could reach it, and nothing guards it.
    #[error(transparent)]
    Exposed(#[from] Exposed),
    /// The address cannot be had.
    #[error("{address}: {source}")]
    Address {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// An address that clients can connect to.
pub struct Listener {
    tcp: TcpListener,
    address: SocketAddr,
    tls: Option<Tls>,
    limits: Limits,
}

impl Listener {
    /// Takes an address; port 0 is any that is free.
    ///
    /// # Errors
    /// The address is in use or none of this machine, or it is beyond the machine itself and TLS or
    /// API keys are missing.
    pub async fn bind(
        address: SocketAddr,
        tls: Option<Tls>,
        keys: Option<&KeyFile>,
        limits: Limits,
    ) -> Result<Listener, ListenError> {
        let keys = keys.is_some_and(|file| !file.keys().is_empty());
        check_exposure(address, Guards { tls: tls.is_some(), keys })?;
        let of_address = |source| ListenError::Address { address, source };
        let tcp = TcpListener::bind(address).await.map_err(of_address)?;
        let address = tcp.local_addr().map_err(of_address)?;
        Ok(Listener { tcp, address, tls, limits })
    }

    /// The address, with the port that it has.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers by `router` until `stop` is ready. Then no connection is accepted any more, requests
    /// that have begun are answered, and after `grace` at most all connections are closed.
    ///
    /// Errors of the system, such as too many open files, go to `report`, and the server goes on.
    pub async fn serve(
        self,
        router: Router,
        stop: impl Future<Output = ()>,
        grace: Duration,
        report: impl Fn(&io::Error),
    ) {
        let limits = Arc::new(self.limits);
        let room = Arc::new(Semaphore::new(limits.connections.clamp(1, Semaphore::MAX_PERMITS)));
        let (stopping, stopped) = watch::channel(false);
        let mut connections = JoinSet::new();
        let mut stop = std::pin::pin!(stop);
        loop {
            let accepted = tokio::select! {
                () = &mut stop => break,
                Some(_) = connections.join_next() => continue,
                accepted = accept(&self.tcp, &room) => accepted,
            };
            match accepted {
                Ok((stream, permit)) => {
                    let (tls, router) = (self.tls.clone(), router.clone());
                    let (limits, stopped) = (limits.clone(), stopped.clone());
                    connections.spawn(async move {
                        connection(stream, tls, router, limits, stopped).await;
                        drop(permit);
                    });
                }
                // The client went away before it was accepted.
                Err(e) if of_client(&e) => {}
                Err(e) => {
                    report(&e);
                    sleep(PAUSE).await;
                }
            }
        }
        drop(self.tcp);
        stopping.send_replace(true);
        let all = async { while connections.join_next().await.is_some() {} };
        let _ = timeout(grace, all).await;
    }
}

type Accepted = (TcpStream, tokio::sync::OwnedSemaphorePermit);

/// The next connection, once there is room for it.
async fn accept(tcp: &TcpListener, room: &Arc<Semaphore>) -> io::Result<Accepted> {
    let permit = room.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = tcp.accept().await?;
    Ok((stream, permit))
}

fn of_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[derive(Clone, Copy, PartialEq)]
enum Version {
    Http1,
    Http2,
}

/// Serves one connection. What goes wrong with it is its client's affair.
async fn connection(
    stream: TcpStream,
    tls: Option<Tls>,
    router: Router,
    limits: Arc<Limits>,
    mut stopped: watch::Receiver<bool>,
) {
    // Answers are written whole: there is nothing to wait for.
    let _ = stream.set_nodelay(true);
    let begin = async {
        match tls {
            Some(tls) => {
                let stream = tls.acceptor().accept(stream).await?;
                let version = match stream.get_ref().1.alpn_protocol() {
                    Some(b"h2") => Version::Http2,
                    _ => Version::Http1,
                };
                io::Result::Ok((version, Box::new(stream) as Box<dyn Stream>))
            }
            None => {
                let (mut reader, writer) = stream.into_split();
                let (version, begun) = version_of(&mut reader).await?;
                let stream = tokio::io::join(Cursor::new(begun).chain(reader), writer);
                Ok((version, Box::new(stream) as Box<dyn Stream>))
            }
        }
    };
    let begun = tokio::select! {
        begun = timeout(limits.header_read, begin) => begun,
        _ = stopped.wait_for(|stopped| *stopped) => return,
    };
    if let Ok(Ok((version, stream))) = begun {
        requests(stream, version, router, &limits, stopped).await;
    }
}

/// A connection, encrypted or not.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Reads so much of a connection that its version is known; and gives what it read.
async fn version_of(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<(Version, Vec<u8>)> {
    let mut begun = Vec::with_capacity(PREFACE.len());
    while begun.len() < PREFACE.len() {
        let mut rest = (&mut *reader).take((PREFACE.len() - begun.len()) as u64);
        let count = rest.read_buf(&mut begun).await?;
        if count == 0 || !PREFACE.starts_with(&begun) {
            return Ok((Version::Http1, begun));
        }
    }
    Ok((Version::Http2, begun))
}

/// Answers the requests of a connection.
async fn requests(
    stream: Box<dyn Stream>,
    version: Version,
    router: Router,
    limits: &Limits,
    mut stopped: watch::Receiver<bool>,
) {
    let activity = Arc::new(Activity::new());
    let router = TowerToHyperService::new(router);
    let seen = activity.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let answering = seen.begin();
        let answer = router.call(request);
        async move {
            let answer: Response<Body> = answer.await?;
            Ok::<_, Infallible>(Taken::of(answer, answering.answered()))
        }
    });
    let builder = builder(version, limits);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut stale = std::pin::pin!(activity.stale(limits));
    let mut stopping = false;
    loop {
        tokio::select! {
            _ = &mut connection => return,
            () = &mut stale => return,
            _ = stopped.wait_for(|stopped| *stopped), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

fn builder(version: Version, limits: &Limits) -> Builder<TokioExecutor> {
    let builder = Builder::new(TokioExecutor::new());
    let mut builder = match version {
        Version::Http1 => builder.http1_only(),
        Version::Http2 => builder.http2_only(),
    };
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_read)
        // The least that hyper takes is 8 KiB.
        .max_buf_size(limits.header.max(8 << 10));
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.header).unwrap_or(u32::MAX))
        // Streams that are opened and reset at once (CVE-2023-44487), and ones that the server has
        // to reset.
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(100);
    builder
}
