//! What a server reads of the network, on inputs that were made of sound ones by changes: no
//! request makes it fail, take long or take more memory than is stated, and each refusal says why.

#[path = "../it/direct.rs"]
mod direct;
#[path = "../it/echo.rs"]
mod echo;

use std::io::Write;
use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Method, Request, Response, Uri};
use data_encoding::HEXLOWER;
use halfstep_fuzz::fuzz;
use halfstep_serve::access::{ApiKeys, KeyFile, Scope};
use halfstep_serve::grpc::messages::{
    InferInputTensor, InferTensorContents, ModelInferRequest, ModelReadyRequest,
};
use halfstep_serve::guard::guarded;
use halfstep_serve::limits::{Budget, Limits};
use halfstep_serve::{grpc, rest};
use http_body_util::BodyExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use prost::Message;
use tokio::runtime::Runtime;

use direct::Direct;
use echo::Echo;

/// The largest body, and so a quarter of the memory for one request at a time.
const BODY: usize = 1 << 20;
/// That memory, and the request and the answer of the test itself.
const MEMORY: usize = 4 * BODY + (1 << 20);

/// Both protocols of a server, without its sockets.
struct Routes {
    runtime: Runtime,
    router: Router,
}

impl Routes {
    fn new() -> Routes {
        let limits = Limits { body: BODY, workers: 1, ..Limits::default() };
        let (budget, echo) = (Budget::new(&limits), Arc::new(Direct(Echo::new())));
        let router = rest::router(echo.clone(), limits.clone(), budget.clone());
        let router = router.merge(grpc::router(echo, limits, budget));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Routes { runtime, router }
    }

    /// Answers a request, and says how: a refusal has to be one that the protocol has.
    fn answer(&self, request: Request<Body>) -> String {
        let service = TowerToHyperService::new(self.router.clone());
        self.runtime.block_on(async {
            let answer: Response<Body> = service.call(request).await.unwrap();
            let (parts, body) = answer.into_parts();
            let body = body.collect().await.unwrap();
            let trailer = body.trailers().and_then(|trailers| trailers.get("grpc-status")).cloned();
            let body = body.to_bytes();
            if let Some(code) = parts.headers.get("grpc-status").cloned().or(trailer) {
                let code: u32 = code.to_str().unwrap().parse().unwrap();
                // Neither UNKNOWN nor INTERNAL.
                assert!(code != 2 && code != 13, "code {code}");
                return format!("grpc {}", ["ok", "refused"][usize::from(code > 0)].to_owned() + &name(code));
            }
            let status = parts.status.as_u16();
            assert!([200, 400, 401, 403, 404, 405, 413, 415, 429].contains(&status), "status {status}");
            if status == 200 || body.is_empty() {
                return name(u32::from(status));
            }
            let error: serde_json::Value = serde_json::from_slice(&body).expect("an error in JSON");
            name(u32::from(status)) + error["error"].as_str().expect("a message")
        })
    }
}

/// A number in letters: digits do not count where outcomes are compared.
fn name(code: u32) -> String {
    code.to_string().bytes().map(|digit| char::from(b'a' + digit - b'0')).collect()
}

fn post(headers: &[(&str, &str)], body: Vec<u8>) -> Request<Body> {
    let request = Request::post("/v2/models/echo/infer");
    headers.iter().fold(request, |r, (name, value)| r.header(*name, *value)).body(body.into()).unwrap()
}

/// Bodies of tritonclient, each with the length of its JSON where binary tensors follow.
fn recorded() -> Vec<(Option<usize>, Vec<u8>)> {
    let cases: Vec<serde_json::Value> =
        serde_json::from_str(include_str!("../data/tritonclient.json")).unwrap();
    let case = |case: &serde_json::Value| {
        let length = case["request_header"].as_u64().map(|length| length as usize);
        (length, HEXLOWER.decode(case["request"].as_str().unwrap().as_bytes()).unwrap())
    };
    cases.iter().map(case).collect()
}

#[test]
fn bodies_of_json() {
    let routes = Routes::new();
    let mut corpus: Vec<Vec<u8>> =
        recorded().into_iter().filter(|(l, _)| l.is_none()).map(|(_, b)| b).collect();
    corpus.push(br#"{"id":"a","inputs":[{"name":"bytes","datatype":"BYTES","shape":[2,1],"data":[["a"],["\u00e9"]]},{"name":"fp64","datatype":"FP64","shape":[3],"data":[1,-2.5e3,0]}],"outputs":[{"name":"fp64"}],"parameters":{"binary_data_output":false}}"#.to_vec());
    assert!(corpus.len() > 5);
    fuzz("bodies of JSON", MEMORY, corpus, |input| routes.answer(post(&[], input.to_vec())));
}

#[test]
fn bodies_with_binary_tensors() {
    let routes = Routes::new();
    // The length of the JSON in two bytes, and the body.
    let with_length = |(length, body): (Option<usize>, Vec<u8>)| {
        let length = u16::try_from(length?).ok()?;
        Some([&length.to_be_bytes()[..], &body].concat())
    };
    let corpus: Vec<Vec<u8>> = recorded().into_iter().filter_map(with_length).collect();
    assert!(corpus.len() > 10);
    fuzz("bodies with binary tensors", MEMORY, corpus, |input| {
        let Some((length, body)) = input.split_first_chunk::<2>() else { return "short".into() };
        let length = u16::from_be_bytes(*length).to_string();
        routes.answer(post(&[("inference-header-content-length", &length)], body.to_vec()))
    });
}

/// Any request: its method and address, its header, an empty line, and its body. None if it is no
/// request that a connection would let through.
fn request(input: &[u8]) -> Option<Request<Body>> {
    let end = input.windows(2).position(|pair| pair == b"\n\n")?;
    let (head, body) = (&input[..end], input[end + 2..].to_vec());
    let mut lines = head.split(|&byte| byte == b'\n');
    let (method, uri) = std::str::from_utf8(lines.next()?).ok()?.split_once(' ')?;
    let mut request = Request::new(Body::from(body));
    *request.method_mut() = Method::from_bytes(method.as_bytes()).ok()?;
    *request.uri_mut() = uri.parse::<Uri>().ok()?;
    for line in lines {
        let at = line.iter().position(|&byte| byte == b':')?;
        let name = HeaderName::from_bytes(&line[..at]).ok()?;
        request.headers_mut().append(name, HeaderValue::from_bytes(line[at + 1..].trim_ascii()).ok()?);
    }
    Some(request)
}

#[test]
fn addresses_and_headers() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.toml");
    std::fs::write(&file, keys()).unwrap();
    let mut routes = Routes::new();
    routes.router = guarded(routes.router, Arc::new(KeyFile::open(&file).unwrap()));
    let json = br#"{"inputs":[{"name":"uint8","datatype":"UINT8","shape":[1],"data":[7]}]}"#;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(json).unwrap();
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    zlib.write_all(json).unwrap();
    let (gzip, zlib) = (gzip.finish().unwrap(), zlib.finish().unwrap());
    let key = "authorization: Bearer one\n";
    let post = "POST /v2/models/echo/infer\n";
    let digest = echo::DIGEST;
    let call = "POST /inference.GRPCInferenceService/ModelInfer\ncontent-type: application/grpc\n";
    let binary = br#"{"inputs":[{"name":"uint8","datatype":"UINT8","shape":[1],"parameters":{"binary_data_size":1}}]}x"#;
    let length = binary.len() - 1;
    let heads: [(String, &[u8]); 11] = [
        (format!("GET /v2\n{key}"), b""),
        ("GET /v2/health/ready\n".into(), b""),
        (format!("GET /v2/models/echo/versions/{digest}\n{key}"), b""),
        (format!("GET /v2/models/%65cho/ready\n{key}"), b""),
        (format!("GET /v2/models/..%2f..%2fetc/versions/%00/ready\n{key}"), b""),
        (format!("{post}{key}content-length: {}\n", json.len()), json),
        (format!("{post}{key}content-encoding: gzip\n"), &gzip),
        (format!("{post}{key}content-encoding: deflate\n"), &zlib),
        (format!("{post}{key}inference-header-content-length: {length}\n"), binary),
        (format!("{call}{key}grpc-timeout: 10S\ngrpc-encoding: gzip\n"), b"\0\0\0\0\0"),
        (format!("{post}authorization: Basic b25lOnR3bw==\n"), json),
    ];
    let corpus = heads.map(|(head, body)| [head.as_bytes(), b"\n", body].concat()).to_vec();
    assert!(corpus.iter().all(|input| request(input).is_some()));
    fuzz("addresses and headers", MEMORY, corpus, |input| match request(input) {
        Some(request) => routes.answer(request),
        None => "no request".into(),
    });
}

#[test]
fn messages_of_grpc() {
    let routes = Routes::new();
    let framed = |message: Vec<u8>| [&[0][..], &(message.len() as u32).to_be_bytes(), &message].concat();
    let input = |datatype: &str, contents: Option<InferTensorContents>| InferInputTensor {
        name: datatype.to_lowercase(),
        datatype: datatype.into(),
        shape: vec![2],
        contents,
        ..InferInputTensor::default()
    };
    let asked = |inputs: Vec<InferInputTensor>, raw: Vec<Vec<u8>>| {
        let raw_input_contents = raw.into_iter().map(Into::into).collect();
        let model_name = "echo".into();
        ModelInferRequest { model_name, inputs, raw_input_contents, ..ModelInferRequest::default() }
    };
    let contents = InferTensorContents {
        fp32_contents: vec![1.0, 2.0],
        bytes_contents: vec![b"a".to_vec().into(), b"".to_vec().into()],
        int_contents: vec![-1, 300],
        ..InferTensorContents::default()
    };
    let mut corpus = vec![
        asked(vec![input("BF16", None)], vec![vec![0; 4]]),
        asked(vec![input("UINT8", None), input("BYTES", None)], vec![vec![1, 2], vec![0; 8]]),
    ];
    corpus.extend(
        ["FP32", "BYTES", "INT16"].map(|d| asked(vec![input(d, Some(contents.clone()))], Vec::new())),
    );
    let mut corpus: Vec<Vec<u8>> = corpus.iter().map(|message| framed(message.encode_to_vec())).collect();
    let ready = ModelReadyRequest { name: "echo".into(), version: echo::DIGEST[..8].into() };
    corpus.push(framed(ready.encode_to_vec()));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&corpus[0][5..]).unwrap();
    let gzip = gzip.finish().unwrap();
    corpus.push([&[1][..], &(gzip.len() as u32).to_be_bytes(), &gzip].concat());
    fuzz("messages of gRPC", MEMORY, corpus, |input| {
        // Changes seldom leave a length right: as it came, and with the right one.
        let right = input.get(5..).map(|message| [&input[..1], &framed(message.to_vec())[1..]].concat());
        let call = |name: &str, body: Vec<u8>| {
            let uri = format!("/inference.GRPCInferenceService/{name}");
            let request = Request::post(uri).header("grpc-encoding", "gzip");
            routes.answer(request.header("content-type", "application/grpc").body(body.into()).unwrap())
        };
        let mut said = call("ModelInfer", input.to_vec());
        if let Some(right) = right {
            said += &call("ModelInfer", right.clone());
            said += &call("ModelReady", right);
        }
        said
    });
}

/// A file of three keys: one that may be used, one that is revoked, one whose time is over.
fn keys() -> String {
    let hashes = [
        "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed",
        "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3",
        "8b5b9db0c13db24256c829aa364aa90c6d2eba318b9232a4ab9313b954d3555f",
    ];
    let lines = ["", "revoked = \"lost\"\n", "expires = 2026-01-01T00:00:00Z\n"];
    let entry = |(i, (hash, line)): (usize, (&str, &str))| {
        format!("[[key]]\nname = \"key {i}\"\nsha256 = \"{hash}\"\nscopes = [\"read\", \"infer\"]\n{line}\n")
    };
    hashes.into_iter().zip(lines).enumerate().map(entry).collect()
}

#[test]
fn files_of_api_keys() {
    let file = keys();
    let known = ApiKeys::parse(&file).unwrap();
    let now = SystemTime::now();
    let may = |keys: &ApiKeys, key: &str| keys.check(Some(key.as_bytes()), Scope::Infer, now).is_ok();
    assert!(may(&known, "Bearer one") && !may(&known, "Bearer two") && !may(&known, "Bearer three"));
    fuzz("files of API keys", 8 << 20, vec![file.into_bytes()], |input| {
        let Ok(text) = std::str::from_utf8(input) else { return "no text".into() };
        match ApiKeys::parse(text) {
            Ok(keys) => {
                assert!(!may(&keys, "Bearer four"), "a key that nobody has is let in");
                format!("keys {}", may(&keys, "Bearer one"))
            }
            Err(why) => why,
        }
    });
}

#[test]
fn headers_with_api_keys() {
    let keys = ApiKeys::parse(&keys()).unwrap();
    let corpus = ["Bearer one", "bearer  one ", "Bearer two", "Basic b25l", "Bearer halfstep_AAAA"];
    let corpus = corpus.map(|text| text.as_bytes().to_vec()).to_vec();
    fuzz("headers with API keys", 1 << 20, corpus, |input| {
        match keys.check(Some(input), Scope::Infer, SystemTime::now()) {
            Ok(_) => {
                let key = input.split_at(7).1.trim_ascii();
                assert!(key == b"one", "another key is let in");
                "let in".into()
            }
            Err(why) => why.to_string(),
        }
    });
}
