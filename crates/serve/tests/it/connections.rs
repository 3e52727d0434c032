//! Connections: TLS, HTTP/2, how many there are, and how they end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use halfstep_serve::grpc::messages::{InferInputTensor, ModelInferRequest, ModelInferResponse};
use halfstep_serve::limits::Limits;
use halfstep_serve::listener::{ListenError, Listener};
use halfstep_serve::tls::{Tls, TlsError};
use http_body_util::BodyExt;
use hyper::Request;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::client::{ONE, get, post, reply, send, serve};

/// A certificate for `localhost` until 2126 and its key, made by
/// `openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes` for these tests.
const CERTIFICATE: &[u8] = include_bytes!("../data/server.pem");
const KEY: &[u8] = include_bytes!("../data/server.key.pem");

fn files(folder: &Path) -> (PathBuf, PathBuf) {
    let (certificate, key) = (folder.join("server.pem"), folder.join("server.key.pem"));
    std::fs::write(&certificate, CERTIFICATE).unwrap();
    std::fs::write(&key, KEY).unwrap();
    set_mode(&key, 0o600);
    (certificate, key)
}

fn set_mode(path: &Path, mode: u32) {
    #[cfg(unix)]
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    let _ = (path, mode);
}

async fn connect(stream: TcpStream, protocols: &[&[u8]]) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(CERTIFICATE).unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// Begins HTTP/2 on a stream.
async fn http2(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> SendRequest<Body> {
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn infer(sender: &mut SendRequest<Body>, body: Body) -> (u16, String) {
    let request = Request::post("http://localhost/v2/models/echo/infer").body(body).unwrap();
    let reply = sender.send_request(request).await.unwrap();
    let status = reply.status().as_u16();
    let body = reply.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn both_versions_are_answered_with_and_without_tls() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = files(folder.path());
    let limits = Limits { body: 1 << 16, ..Limits::default() };
    let tls = Tls::read(&certificate, &key).unwrap();
    let secure = serve(limits.clone(), Some(tls), None).await;
    let plain = serve(limits, None, None).await;

    for protocols in [&[][..], &[&b"http/1.1"[..]], &[b"http/1.1", b"h2"]] {
        let stream = TcpStream::connect(secure.address).await.unwrap();
        let mut stream = connect(stream, protocols).await.unwrap();
        let first = if protocols.len() == 2 { "h2" } else { "http/1.1" };
        if first == "h2" {
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            continue;
        }
        stream.write_all(&post("", ONE)).await.unwrap();
        assert_eq!(reply(&mut stream).await.status, 200);
    }
    let stream = TcpStream::connect(secure.address).await.unwrap();
    let mut over_tls = http2(connect(stream, &[b"h2"]).await.unwrap()).await;
    let mut over_tcp = http2(TcpStream::connect(plain.address).await.unwrap()).await;
    for sender in [&mut over_tls, &mut over_tcp] {
        for _ in 0..3 {
            let (status, body) = infer(sender, ONE.to_vec().into()).await;
            assert_eq!(status, 200);
            assert!(body.contains(r#""data":[7]"#));
        }
        assert_eq!(infer(sender, vec![b' '; (1 << 16) + 1].into()).await.0, 413);
        assert_eq!(infer(sender, ONE.to_vec().into()).await.0, 200);
    }
    // Who speaks no TLS gets no answer, and the next one does.
    let mut stream = TcpStream::connect(secure.address).await.unwrap();
    stream.write_all(b"GET /v2 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text).await;
    assert!(!String::from_utf8_lossy(&text).contains("HTTP/1.1"));
    let stream = TcpStream::connect(secure.address).await.unwrap();
    assert!(connect(stream, &[]).await.is_ok());
}

#[tokio::test]
async fn calls_of_grpc_are_answered_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = files(folder.path());
    let served = serve(Limits::default(), Some(Tls::read(&certificate, &key).unwrap()), None).await;
    let stream = TcpStream::connect(served.address).await.unwrap();
    let mut sender = http2(connect(stream, &[b"h2"]).await.unwrap()).await;
    let call = |name: &str, message: &[u8]| {
        let uri = format!("https://localhost/inference.GRPCInferenceService/{name}");
        let frame = [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat();
        Request::post(uri).header("content-type", "application/grpc").body(Body::from(frame)).unwrap()
    };
    let input = InferInputTensor {
        name: "uint8".into(),
        datatype: "UINT8".into(),
        shape: vec![1],
        ..InferInputTensor::default()
    };
    let asked = ModelInferRequest {
        model_name: "echo".into(),
        inputs: vec![input],
        raw_input_contents: vec![vec![7].into()],
        ..ModelInferRequest::default()
    };
    let reply = sender.send_request(call("ModelInfer", &asked.encode_to_vec())).await.unwrap();
    assert_eq!(reply.status(), 200);
    let body = reply.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    let answer = ModelInferResponse::decode(&body.to_bytes()[5..]).unwrap();
    assert_eq!(answer.raw_output_contents, [vec![7]]);
    // An error stands in the header.
    let reply = sender.send_request(call("ModelInfer", b"")).await.unwrap();
    assert_eq!(reply.headers()["grpc-status"], "5");
}

#[tokio::test]
async fn a_certificate_that_changes_is_used_for_the_next_connection() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = files(folder.path());
    let tls = Tls::read(&certificate, &key).unwrap();
    let served = serve(Limits::default(), Some(tls.clone()), None).await;
    assert!(!tls.refresh().unwrap());
    // One file of the two, while the other is still to come.
    std::fs::write(&certificate, "half a certificate").unwrap();
    assert!(matches!(tls.refresh(), Err(TlsError::Malformed { .. })));
    let secure = async || connect(TcpStream::connect(served.address).await.unwrap(), &[]).await;
    assert!(secure().await.is_ok(), "the one before stays");
    // A chain of two is another certificate than the one of before.
    std::fs::write(&certificate, [CERTIFICATE, CERTIFICATE].concat()).unwrap();
    assert!(tls.refresh().unwrap());
    let stream = secure().await.unwrap();
    assert_eq!(stream.get_ref().1.peer_certificates().unwrap().len(), 2);
}

#[tokio::test]
async fn a_certificate_and_its_key_have_to_fit() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = files(folder.path());
    let refused = |certificate: &Path, key: &Path| Tls::read(certificate, key).err().unwrap();
    let swapped = refused(&key, &certificate);
    assert!(matches!(swapped, TlsError::Malformed { what: "certificate", .. }), "{swapped}");
    assert!(matches!(refused(&folder.path().join("none"), &key), TlsError::File { .. }));
    let other = folder.path().join("other.pem");
    std::fs::write(&other, "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n").unwrap();
    set_mode(&other, 0o600);
    assert!(matches!(refused(&certificate, &other), TlsError::Unusable { .. }));
    #[cfg(unix)]
    {
        set_mode(&key, 0o640);
        let exposed = refused(&certificate, &key);
        assert!(exposed.to_string().contains("chmod 600"), "{exposed}");
    }
}

#[tokio::test]
async fn an_address_beyond_this_machine_needs_both_guards() {
    let bound = Listener::bind("0.0.0.0:0".parse().unwrap(), None, None, Limits::default()).await;
    let refused = bound.err().unwrap();
    assert!(matches!(refused, ListenError::Exposed(_)), "{refused}");
    assert!(refused.to_string().contains("neither TLS nor API keys"), "{refused}");
}

#[tokio::test]
async fn connections_beyond_the_limit_wait() {
    let limits = Limits { connections: 2, ..Limits::default() };
    let served = serve(limits, None, None).await;
    let first = TcpStream::connect(served.address).await.unwrap();
    let _second = TcpStream::connect(served.address).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let third = tokio::spawn(get(served.address, "/v2"));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!third.is_finished());
    drop(first);
    assert_eq!(tokio::time::timeout(Duration::from_secs(5), third).await.unwrap().unwrap().status, 200);
}

#[tokio::test]
async fn the_end_waits_for_requests_that_have_begun() {
    let served = serve(Limits::default(), None, None).await;
    let slow = String::from_utf8(ONE.to_vec()).unwrap().replace("\"x\"", "\"pause\"");
    let one = tokio::spawn(async move { send(served.address, &post("", slow.as_bytes())).await });
    let mut two = http2(TcpStream::connect(served.address).await.unwrap()).await;
    let slow = String::from_utf8(ONE.to_vec()).unwrap().replace("\"x\"", "\"pause\"");
    let two = tokio::spawn(async move { infer(&mut two, slow.into()).await.0 });
    // Neither an idle connection nor one that has sent nothing holds the end up.
    let mut idle = TcpStream::connect(served.address).await.unwrap();
    idle.write_all(b"GET /v2 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert_eq!(reply(&mut idle).await.status, 200);
    let _silent = TcpStream::connect(served.address).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;

    let begun = Instant::now();
    served.stop.send(()).unwrap();
    served.ended.await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(one.await.unwrap().status, 200);
    assert_eq!(two.await.unwrap(), 200);
    assert!(TcpStream::connect(served.address).await.is_err());
}

#[tokio::test]
async fn streams_that_are_opened_and_reset_at_once_stop_nobody_else() {
    let served = serve(Limits::default(), None, None).await;
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let length = (payload.len() as u32).to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    };
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[]));
    for request in 0..5000 {
        // `GET http://`, of the static table, and RST_STREAM with CANCEL.
        bytes.extend(frame(1, 5, 2 * request + 1, &[0x82, 0x86, 0x84]));
        bytes.extend(frame(3, 0, 2 * request + 1, &[0, 0, 0, 8]));
    }
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    // The server may end this connection, or may have answered all that is left of it.
    let sent = async { drop(writer.write_all(&bytes).await) };
    let read = async { drop(tokio::io::copy(&mut reader, &mut tokio::io::sink()).await) };
    let flood = async {
        drop(tokio::time::timeout(Duration::from_secs(3), async { tokio::join!(sent, read) }).await)
    };
    let begun = Instant::now();
    let (_, reply) = tokio::join!(flood, get(served.address, "/v2"));
    assert_eq!(reply.status, 200);
    assert_eq!(get(served.address, "/v2").await.status, 200);
    assert!(begun.elapsed() < Duration::from_secs(10));
}
