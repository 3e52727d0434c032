//! Every route, and every error that a route has.

use std::io::Write;
use std::path::PathBuf;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use halfstep_serve::access::{NewKey, Scope};
use halfstep_serve::limits::Limits;

use crate::client::{ONE, get, post, send, serve};
use crate::echo::{DATATYPES, DIGEST};

#[tokio::test]
async fn every_route_and_its_errors() {
    let served = serve(Limits::default(), None, None).await;
    let at = served.address;

    let server: serde_json::Value = serde_json::from_slice(&get(at, "/v2").await.body).unwrap();
    assert_eq!(server["extensions"], serde_json::json!(["binary_tensor_data"]));
    assert_eq!(get(at, "/v2/health/live").await.text(), r#"{"live":true}"#);
    assert_eq!(get(at, "/v2/health/ready").await.text(), r#"{"ready":true}"#);
    let version = format!("/v2/models/echo/versions/{}", &DIGEST[..8]);
    for model in ["/v2/models/echo", "/v2/models/%65cho", &version] {
        let reply = get(at, model).await;
        assert_eq!((reply.status, reply.header("halfstep-model-digest")), (200, Some(DIGEST)), "{model}");
        let metadata: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(metadata["versions"], serde_json::json!([DIGEST]));
        assert_eq!(metadata["inputs"].as_array().unwrap().len(), DATATYPES.len());
        assert_eq!(
            metadata["outputs"][10],
            serde_json::json!({"name": "bf16", "datatype": "BF16", "shape": [-1]})
        );
        let ready = get(at, &format!("{model}/ready")).await;
        assert_eq!(ready.text(), r#"{"name":"echo","ready":true}"#);
        assert_eq!(ready.header("halfstep-model-digest"), Some(DIGEST));
    }

    let long = format!("/v2/models/{}", "n".repeat(5000));
    for (path, status) in [
        ("/", 404),
        ("/v1", 404),
        ("/v2/", 404),
        ("/v2/health", 404),
        ("/v2/health/live/", 404),
        ("/v2/models", 404),
        ("/v2/models/", 404),
        ("/v2/models/other", 404),
        ("/v2/models/other/ready", 404),
        ("/v2/models/echo/versions/5f4", 404),
        ("/v2/models/echo/versions/5f3/ready/x", 404),
        ("/v2/models/echo/infer", 405),
        ("/v2/models/..", 404),
        ("/v2/models/../echo", 404),
        ("/v2/models/%2e%2e%2f%2e%2e%2fetc%2fpasswd", 404),
        ("/v2/models/echo%00", 404),
        ("/v2/models/echo%2finfer", 404),
        ("/v2/models/%ff", 400),
        ("/v2/models/%zz", 404),
        (&long, 404),
        ("//v2/models/echo", 404),
        ("http://other/v2/models/none", 404),
    ] {
        let reply = get(at, path).await;
        assert_eq!(reply.status, status, "{path}: {}", reply.text());
        assert!(reply.error().len() < 300, "{path}");
        assert_eq!(reply.header("content-type"), Some("application/json"));
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"] {
        let line = format!("{method} /v2/health/live HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n");
        let reply = send(at, line.as_bytes()).await;
        assert_eq!(reply.status, 405, "{method}");
        assert!(!reply.error().is_empty());
        assert_eq!(reply.header("allow"), Some("GET,HEAD"));
    }
}

#[tokio::test]
async fn an_inference_names_its_version_and_keeps_every_bit() {
    let served = serve(Limits::default(), None, None).await;
    let at = served.address;
    let reply = send(at, &post("", ONE)).await;
    assert_eq!((reply.status, reply.header("halfstep-model-digest")), (200, Some(DIGEST)));
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let expected = format!(
        r#"{{"model_name":"echo","model_version":"{DIGEST}","outputs":[{{"name":"x","datatype":"UINT8","shape":[1],"data":[7]}}]}}"#
    );
    assert_eq!(reply.text(), expected);

    // All types at once, each with bytes that differ.
    let data: Vec<Vec<u8>> = DATATYPES
        .iter()
        .enumerate()
        .map(|(i, name)| match *name {
            "BOOL" => vec![0, 1],
            "BYTES" => b"\x03\0\0\0\0\xff\x01\0\0\0\0".iter().copied().chain([]).collect(),
            name => {
                let size: usize =
                    name.trim_start_matches(char::is_alphabetic).parse::<usize>().map_or(2, |b| b / 8);
                let size = if name == "BF16" { 2 } else { size };
                (0..2 * size).map(|byte| (byte * 37 + i * 11 + 200) as u8).collect()
            }
        })
        .collect();
    let inputs: Vec<String> = DATATYPES
        .iter()
        .zip(&data)
        .map(|(name, data)| {
            format!(
                r#"{{"name":"{}","datatype":"{name}","shape":[2],"parameters":{{"binary_data_size":{}}}}}"#,
                name.to_lowercase(),
                data.len()
            )
        })
        .collect();
    let head = format!(r#"{{"inputs":[{}],"parameters":{{"binary_data_output":true}}}}"#, inputs.join(","));
    let body = [head.as_bytes(), &data.concat()].concat();
    let reply = send(at, &post(&format!("inference-header-content-length: {}\r\n", head.len()), &body)).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.header("content-type"), Some("application/octet-stream"));
    let length: usize = reply.header("inference-header-content-length").unwrap().parse().unwrap();
    assert_eq!(reply.body[length..], data.concat());
    // What the client sent comes back as outputs, in its words.
    let answer: serde_json::Value = serde_json::from_slice(&reply.body[..length]).unwrap();
    let asked: serde_json::Value = serde_json::from_str(&head).unwrap();
    assert_eq!(answer["outputs"], asked["inputs"]);
}

#[tokio::test]
async fn every_error_of_an_inference() {
    let served = serve(Limits { body: 4096, ..Limits::default() }, None, None).await;
    let at = served.address;
    let gzip = |bytes: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let zlib = |bytes: &[u8]| {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let mut raw = DeflateEncoder::new(Vec::new(), Compression::best());
    raw.write_all(ONE).unwrap();
    let raw = raw.finish().unwrap();
    let padded = |length: usize| [ONE, &vec![b' '; length - ONE.len()]].concat();
    let cut = |bytes: Vec<u8>| bytes[..bytes.len() - 5].to_vec();
    let with = |bytes: Vec<u8>, more: &[u8]| [&bytes[..], more].concat();

    let cases: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        ("", padded(4096), 200, ""),
        ("", padded(4097), 413, "more than 4096 bytes"),
        ("", b"{}".to_vec(), 400, "its members are not those"),
        ("", br#"{"inputs":[]}"#.to_vec(), 400, "there is no input"),
        ("inference-header-content-length: 9\r\n", b"{}".to_vec(), 400, "the body has 2 bytes"),
        ("inference-header-content-length: -1\r\n", ONE.to_vec(), 400, "one whole number"),
        ("inference-header-content-length: +1\r\n", ONE.to_vec(), 400, "one whole number"),
        ("inference-header-content-length:\r\n", ONE.to_vec(), 400, "one whole number"),
        (
            "inference-header-content-length: 67\r\ninference-header-content-length: 67\r\n",
            ONE.to_vec(),
            400,
            "one whole",
        ),
        ("inference-header-content-length: 99999999999999999999\r\n", ONE.to_vec(), 400, "one whole number"),
        ("content-encoding: gzip\r\n", gzip(ONE), 200, ""),
        ("content-encoding: GZIP\r\n", gzip(ONE), 200, ""),
        ("content-encoding: deflate\r\n", zlib(ONE), 200, ""),
        ("content-encoding: identity\r\n", ONE.to_vec(), 200, ""),
        ("content-encoding: gzip\r\n", gzip(&padded(4096)), 200, ""),
        ("content-encoding: deflate\r\n", zlib(&padded(4096)), 200, ""),
        ("content-encoding: gzip\r\n", gzip(&vec![b' '; 1 << 20]), 413, "decoded"),
        ("content-encoding: deflate\r\n", zlib(&vec![b' '; 1 << 20]), 413, "decoded"),
        ("content-encoding: gzip\r\n", with(gzip(ONE), &gzip(&vec![b' '; 1 << 20])), 413, "decoded"),
        ("content-encoding: gzip\r\n", ONE.to_vec(), 400, "no gzip"),
        ("content-encoding: gzip\r\n", vec![], 400, "no gzip"),
        ("content-encoding: gzip\r\n", cut(gzip(ONE)), 400, "no gzip"),
        ("content-encoding: gzip\r\n", with(gzip(ONE), b"more"), 400, "no gzip"),
        ("content-encoding: deflate\r\n", raw, 400, "no deflate in the form of zlib"),
        ("content-encoding: deflate\r\n", cut(zlib(ONE)), 400, "no deflate"),
        ("content-encoding: deflate\r\n", with(zlib(ONE), b"more"), 400, "no deflate"),
        ("content-encoding: br\r\n", ONE.to_vec(), 415, "gzip, deflate or identity"),
        ("content-encoding: gzip, gzip\r\n", gzip(&gzip(ONE)), 415, "gzip, deflate or identity"),
        ("content-encoding: gzip\r\ncontent-encoding: gzip\r\n", gzip(&gzip(ONE)), 415, "gzip, deflate"),
        ("content-type: text/plain\r\naccept-encoding: gzip\r\n", ONE.to_vec(), 200, ""),
    ];
    for (lines, body, status, why) in cases {
        let reply = send(at, &post(lines, &body)).await;
        assert_eq!(reply.status, status, "{lines}{why}: {}", reply.text());
        assert_eq!(reply.header("content-encoding"), None);
        match status {
            200 => assert!(reply.text().contains(r#""data":[7]"#)),
            _ => assert!(reply.error().contains(why), "{lines}: {}", reply.text()),
        }
    }
    let unknown = String::from_utf8(post("", ONE)).unwrap().replace("/echo/", "/other/");
    let reply = send(at, unknown.as_bytes()).await;
    assert_eq!((reply.status, reply.error()), (404, "there is no model `other` here".to_string()));
}

#[tokio::test]
async fn keys_open_what_they_are_for() {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("api-keys.toml");
    let key = |name: &str, scopes: &[Scope], expires: Option<&str>| {
        NewKey::generate(name, scopes, expires.map(|at| at.parse().unwrap())).unwrap()
    };
    let reader = key("reader", &[Scope::Read], None);
    let caller = key("caller", &[Scope::Infer], Some("2999-01-01T00:00:00Z"));
    let expired = key("expired", &[Scope::Read, Scope::Infer], Some("2020-01-01T00:00:00Z"));
    let revoked = key("revoked", &[Scope::Read, Scope::Infer], None);
    let file = reader.entry + &caller.entry + &expired.entry + &revoked.entry + "revoked = \"lost\"\n";
    std::fs::write(&path, file).unwrap();
    let served = serve(Limits::default(), None, Some(&path)).await;
    let at = served.address;

    for open in ["/v2/health/live", "/v2/health/ready"] {
        assert_eq!(get(at, open).await.status, 200, "{open}");
    }
    let anonymous = get(at, "/v2").await;
    assert_eq!((anonymous.status, anonymous.header("www-authenticate")), (401, Some("Bearer")));
    assert!(anonymous.error().contains("Authorization: Bearer KEY"));
    assert_eq!(get(at, "/nowhere").await.status, 401);
    let twisted = format!("{}x", reader.secret);
    for (secret, read, infer) in [
        (&reader.secret, 200, 403),
        (&caller.secret, 403, 200),
        (&expired.secret, 401, 401),
        (&revoked.secret, 401, 401),
        (&twisted, 401, 401),
    ] {
        let line = format!("authorization: Bearer {secret}\r\n");
        let asked = send(at, format!("GET /v2 HTTP/1.1\r\nhost: x\r\n{line}\r\n").as_bytes()).await;
        assert_eq!(asked.status, read, "{}", asked.text());
        let inferred = send(at, &post(&line, ONE)).await;
        assert_eq!(inferred.status, infer, "{}", inferred.text());
        assert!(!asked.text().contains(secret) && !inferred.text().contains(secret));
    }
    // As gRPC says it.
    let grpc = post("content-type: application/grpc\r\n", b"");
    let reply = send(at, &grpc).await;
    assert_eq!((reply.status, reply.header("grpc-status")), (200, Some("16")));
}
