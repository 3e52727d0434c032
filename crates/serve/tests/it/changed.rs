//! Requests of tritonclient with changes that no client makes: each has an answer of the protocol.
//!
//! `PROPTEST_CASES=1000000 cargo test --release -p halfstep-serve --test it changed` tries more.

use std::io::Write;
use std::sync::Arc;

use axum::body::Body;
use data_encoding::HEXLOWER;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use halfstep_serve::limits::{Budget, Limits};
use halfstep_serve::rest::router;
use http_body_util::BodyExt;
use hyper::Request;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use proptest::prelude::*;
use serde_json::Value;

use crate::direct::Direct;
use crate::echo::Echo;
use crate::peer::{Case, recorded};

/// What readers of JSON and of lengths trip over.
const TRIPS: [&[u8]; 20] = [
    b"null",
    b"-1",
    b"1e999",
    b"NaN",
    b"-0.0",
    b"18446744073709551615",
    b"18446744073709551616",
    b"[]",
    b"{}",
    b"\"\"",
    b"\"\\u0000\"",
    b"\\ud800",
    b"[[[[[[[[[[[[[[[[",
    b"{\"a\":{\"a\":",
    b"\"binary_data_size\":1,",
    b"\"data\":[1],",
    b"\"shape\":[4294967296,4294967296],",
    b"BYTES",
    b"\xff\xff\xff\xff",
    b"\x01\0\0\0",
];

#[derive(Clone, Debug)]
enum Change {
    Byte(u8),
    Cut(usize),
    Repeat(usize),
    Trip(usize),
}

fn change() -> impl Strategy<Value = (prop::sample::Index, Change)> {
    let change = prop_oneof![
        any::<u8>().prop_map(Change::Byte),
        (1usize..40).prop_map(Change::Cut),
        (1usize..40).prop_map(Change::Repeat),
        (0..TRIPS.len()).prop_map(Change::Trip),
    ];
    (any::<prop::sample::Index>(), change)
}

fn changed(bytes: &mut Vec<u8>, changes: &[(prop::sample::Index, Change)]) {
    for (at, change) in changes {
        let at = at.index(bytes.len() + 1);
        let end = |length: usize| (at + length).min(bytes.len());
        match *change {
            Change::Byte(_) if at == bytes.len() => {}
            Change::Byte(byte) => bytes[at] = byte,
            Change::Cut(length) => drop(bytes.drain(at..end(length))),
            Change::Repeat(length) => {
                let copy = bytes[at..end(length)].to_vec();
                bytes.splice(at..at, copy);
            }
            Change::Trip(trip) => drop(bytes.splice(at..at, TRIPS[trip].iter().copied())),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Encoding {
    Identity,
    Gzip,
    Deflate,
}

fn encode(bytes: &[u8], encoding: Encoding) -> Vec<u8> {
    match encoding {
        Encoding::Identity => bytes.to_vec(),
        Encoding::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        Encoding::Deflate => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
    }
}

/// The status of the answer to a request, whose form is checked.
async fn answer(server: &TowerToHyperService<axum::Router>, request: Request<Body>) -> u16 {
    let reply = server.call(request).await.unwrap();
    let (head, body) = reply.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let length = head.headers.get("inference-header-content-length");
    let length = length.map_or(body.len(), |length| length.to_str().unwrap().parse().unwrap());
    let said: Value = serde_json::from_slice(&body[..length]).unwrap();
    if head.status != 200 {
        assert!(said["error"].as_str().is_some_and(|why| !why.is_empty() && why.len() < 1000), "{said}");
        assert_eq!(said.as_object().unwrap().len(), 1);
        return head.status.as_u16();
    }
    let size = |output: &Value| output["parameters"]["binary_data_size"].as_u64().unwrap_or(0);
    let binary: u64 = said["outputs"].as_array().unwrap().iter().map(size).sum();
    assert_eq!(binary as usize, body.len() - length);
    200
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_changed_request_is_answered_or_refused(
        case in any::<prop::sample::Index>(),
        before in prop::collection::vec(change(), 0..4),
        after in prop::collection::vec(change(), 0..2),
        encoding in prop_oneof![Just(Encoding::Identity), Just(Encoding::Gzip), Just(Encoding::Deflate)],
        shift in prop_oneof![3 => Just(0isize), 1 => -4isize..5],
    ) {
        let cases = recorded();
        let Case { request, request_header, .. } = case.get(&cases);
        let mut body = HEXLOWER.decode(request.as_bytes()).unwrap();
        changed(&mut body, &before);
        let mut sent = encode(&body, encoding);
        if !matches!(encoding, Encoding::Identity) {
            changed(&mut sent, &after);
        }
        let mut request = Request::post("/v2/models/echo/infer");
        if let Some(length) = request_header {
            request = request.header("inference-header-content-length", length.saturating_add_signed(shift));
        }
        match encoding {
            Encoding::Identity => {}
            Encoding::Gzip => request = request.header("content-encoding", "gzip"),
            Encoding::Deflate => request = request.header("content-encoding", "deflate"),
        }
        let limits = Limits { body: 1 << 16, ..Limits::default() };
        let budget = Budget::new(&limits);
        let server = TowerToHyperService::new(router(Arc::new(Direct(Echo::new())), limits, budget));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let status = runtime.block_on(answer(&server, request.body(Body::from(sent)).unwrap()));
        prop_assert!([200, 400, 413].contains(&status), "{status}");
    }
}
