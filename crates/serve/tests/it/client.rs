//! A server of the echo model, and a client that sends bytes as they are.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use halfstep_serve::access::KeyFile;
use halfstep_serve::grpc;
use halfstep_serve::guard::guarded;
use halfstep_serve::limits::{Budget, Limits};
use halfstep_serve::listener::Listener;
use halfstep_serve::rest::router;
use halfstep_serve::tls::Tls;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::direct::Direct;
use crate::echo::Echo;

pub struct Served {
    pub address: SocketAddr,
    pub stop: oneshot::Sender<()>,
    pub ended: JoinHandle<()>,
}

/// Starts a server of the echo model.
pub async fn serve(limits: Limits, tls: Option<Tls>, keys: Option<&Path>) -> Served {
    let keys = keys.map(|path| Arc::new(KeyFile::open(path).unwrap()));
    let budget = Budget::new(&limits);
    let echo = Arc::new(Direct(Echo::new()));
    let mut routes = router(echo.clone(), limits.clone(), budget.clone());
    routes = routes.merge(grpc::router(echo, limits.clone(), budget));
    if let Some(keys) = &keys {
        routes = guarded(routes, keys.clone());
    }
    let listener =
        Listener::bind("127.0.0.1:0".parse().unwrap(), tls, keys.as_deref(), limits).await.unwrap();
    let address = listener.address();
    let (stop, stopped) = oneshot::channel();
    let ended = tokio::spawn(async move {
        let stopped = async { drop(stopped.await) };
        listener.serve(routes, stopped, Duration::from_secs(2), |e| panic!("{e}")).await;
    });
    Served { address, stop, ended }
}

pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The message of an error; a reply that is none fails.
    pub fn error(&self) -> String {
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_else(|e| {
            panic!("{e}: {} {}", self.head, self.text());
        });
        assert_eq!(body.as_object().map(|o| o.len()), Some(1), "{body}");
        body["error"].as_str().unwrap().to_string()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

/// Sends bytes and reads one reply.
pub async fn send(address: SocketAddr, bytes: &[u8]) -> Reply {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    reply(&mut stream).await
}

/// Reads one reply of HTTP/1.1. One that has no body in spite of its length fails.
pub async fn reply(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Reply {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut byte)).await;
        assert_eq!(read.unwrap().unwrap(), 1, "the reply ends in {:?}", String::from_utf8_lossy(&head));
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let mut reply = Reply { status: head[9..12].parse().unwrap(), head, body: Vec::new() };
    let length: usize = reply.header("content-length").map_or(0, |length| length.parse().unwrap());
    reply.body = vec![0; length];
    stream.read_exact(&mut reply.body).await.unwrap();
    reply
}

pub async fn get(address: SocketAddr, path: &str) -> Reply {
    send(address, format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await
}

/// A request for an inference, with these further lines in its header.
pub fn post(lines: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /v2/models/echo/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n{lines}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

pub const ONE: &[u8] = br#"{"inputs":[{"name":"x","datatype":"UINT8","shape":[1],"data":[7]}]}"#;
