//! Every call, and every error that a call has, by a client of gRPC.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use halfstep_serve::access::{KeyFile, NewKey, Scope};
use halfstep_serve::grpc::{self, messages::*};
use halfstep_serve::guard::guarded;
use halfstep_serve::limits::{Budget, Limits};
use halfstep_serve::listener::Listener;
use halfstep_serve::rest;
use prost::Message;
use tonic::client::Grpc;
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;
use tonic::{Code, IntoRequest, Request, Status};
use tonic_prost::ProstCodec;

use crate::client::send;
use crate::direct::Direct;
use crate::echo::{DATATYPES, DIGEST, Echo};

async fn listen(limits: Limits, keys: Option<PathBuf>) -> SocketAddr {
    let (budget, echo) = (Budget::new(&limits), Arc::new(Direct(Echo::new())));
    let mut router = rest::router(echo.clone(), limits.clone(), budget.clone()).merge(grpc::router(
        echo,
        limits.clone(),
        budget,
    ));
    if let Some(path) = keys {
        router = guarded(router, Arc::new(KeyFile::open(&path).unwrap()));
    }
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), None, None, limits).await.unwrap();
    let address = listener.address();
    let never = std::future::pending();
    tokio::spawn(listener.serve(router, never, Duration::ZERO, |e| panic!("{e}")));
    address
}

async fn serve(limits: Limits, keys: Option<PathBuf>) -> Grpc<Channel> {
    let address = format!("http://{}", listen(limits, keys).await);
    Grpc::new(Channel::from_shared(address).unwrap().connect().await.unwrap())
        .max_decoding_message_size(usize::MAX)
}

async fn call<Q, A>(
    client: &mut Grpc<Channel>,
    name: &str,
    request: impl IntoRequest<Q>,
) -> Result<tonic::Response<A>, Status>
where
    Q: Message + Default + 'static,
    A: Message + Default + 'static,
{
    client.ready().await.unwrap();
    let path = format!("/inference.GRPCInferenceService/{name}").parse().unwrap();
    client.unary(request.into_request(), path, ProstCodec::<Q, A>::default()).await
}

async fn infer(client: &mut Grpc<Channel>, request: ModelInferRequest) -> Result<ModelInferResponse, Status> {
    call(client, "ModelInfer", request).await.map(tonic::Response::into_inner)
}

fn input(datatype: &str, shape: &[i64]) -> InferInputTensor {
    InferInputTensor {
        name: datatype.to_lowercase(),
        datatype: datatype.into(),
        shape: shape.to_vec(),
        ..InferInputTensor::default()
    }
}

/// A request for one tensor of raw bytes.
fn raw(datatype: &str, shape: &[i64], bytes: &[u8]) -> ModelInferRequest {
    ModelInferRequest {
        model_name: "echo".into(),
        id: "7".into(),
        inputs: vec![input(datatype, shape)],
        raw_input_contents: vec![Bytes::copy_from_slice(bytes)],
        ..ModelInferRequest::default()
    }
}

fn typed(datatype: &str, shape: &[i64], contents: InferTensorContents) -> ModelInferRequest {
    let input = InferInputTensor { contents: Some(contents), ..input(datatype, shape) };
    ModelInferRequest { model_name: "echo".into(), inputs: vec![input], ..ModelInferRequest::default() }
}

#[tokio::test]
async fn every_call_answers() {
    let mut client = serve(Limits::default(), None).await;
    let client = &mut client;
    let live: ServerLiveResponse =
        call(client, "ServerLive", ServerLiveRequest {}).await.unwrap().into_inner();
    let ready: ServerReadyResponse =
        call(client, "ServerReady", ServerReadyRequest {}).await.unwrap().into_inner();
    assert!(live.live && ready.ready);
    let server: ServerMetadataResponse =
        call(client, "ServerMetadata", ServerMetadataRequest {}).await.unwrap().into_inner();
    assert_eq!(
        (server.name.as_str(), server.extensions),
        ("halfstep", vec!["binary_tensor_data".to_string()])
    );

    for (name, version, code) in [
        ("echo", "", Code::Ok),
        ("echo", DIGEST, Code::Ok),
        ("echo", "5f3c", Code::Ok),
        ("echo", "6", Code::NotFound),
        ("other", "", Code::NotFound),
        ("", "", Code::NotFound),
    ] {
        let asked = ModelReadyRequest { name: name.into(), version: version.into() };
        let ready = call::<_, ModelReadyResponse>(client, "ModelReady", asked).await;
        assert_eq!(ready.as_ref().map_or_else(Status::code, |_| Code::Ok), code, "{name} {version}");
        let asked = ModelMetadataRequest { name: name.into(), version: version.into() };
        let metadata = call::<_, ModelMetadataResponse>(client, "ModelMetadata", asked).await;
        match metadata {
            Err(status) => assert_eq!(status.code(), code),
            Ok(metadata) => {
                assert_eq!(metadata.metadata().get("halfstep-model-digest").unwrap(), DIGEST);
                let metadata = metadata.into_inner();
                assert_eq!(metadata.versions, [DIGEST]);
                assert_eq!(metadata.inputs.len(), DATATYPES.len());
                assert_eq!(metadata.outputs[10].datatype, "BF16");
                assert_eq!(metadata.outputs[10].shape, [-1]);
            }
        }
    }
    for other in ["RepositoryIndex", "ModelConfig", "ModelStreamInfer", "ModelStatistics"] {
        let status = call::<_, ServerLiveResponse>(client, other, ServerLiveRequest {}).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{other}");
    }
}

#[tokio::test]
async fn every_type_keeps_its_bits() {
    let mut client = serve(Limits::default(), None).await;
    for (i, name) in DATATYPES.iter().enumerate() {
        let size = match *name {
            "BOOL" | "UINT8" | "INT8" => 1,
            "UINT16" | "INT16" | "FP16" | "BF16" => 2,
            "UINT32" | "INT32" | "FP32" => 4,
            _ => 8,
        };
        let bytes: Vec<u8> = match *name {
            "BOOL" => vec![1, 0, 1],
            "BYTES" => b"\x03\0\0\0\0\xff\x01\0\0\0\0\x01\0\0\0x".to_vec(),
            // NaNs with payloads are among them.
            _ => (0..3 * size).map(|byte| (byte * 37 + i * 11 + 200) as u8).collect(),
        };
        let answer = infer(&mut client, raw(name, &[3], &bytes)).await.unwrap();
        assert_eq!(answer.raw_output_contents, [bytes.as_slice()], "{name}");
        assert_eq!((answer.model_version.as_str(), answer.id.as_str()), (DIGEST, "7"));
        assert_eq!((answer.outputs[0].datatype.as_str(), &*answer.outputs[0].shape), (*name, &[3i64][..]));
    }

    let none = InferTensorContents::default;
    for (name, contents, bytes) in [
        ("BOOL", InferTensorContents { bool_contents: vec![true, false], ..none() }, vec![1u8, 0]),
        ("INT8", InferTensorContents { int_contents: vec![-128, 127], ..none() }, vec![0x80, 0x7f]),
        ("INT16", InferTensorContents { int_contents: vec![-1, 2], ..none() }, vec![255, 255, 2, 0]),
        (
            "INT32",
            InferTensorContents { int_contents: vec![-1, 2], ..none() },
            [[255; 4], [2, 0, 0, 0]].concat(),
        ),
        ("UINT8", InferTensorContents { uint_contents: vec![0, 255], ..none() }, vec![0, 255]),
        ("UINT16", InferTensorContents { uint_contents: vec![1, 65535], ..none() }, vec![1, 0, 255, 255]),
        (
            "FP32",
            InferTensorContents { fp32_contents: vec![1.0, -0.0], ..none() },
            vec![0, 0, 0x80, 0x3f, 0, 0, 0, 0x80],
        ),
        (
            "INT64",
            InferTensorContents { int64_contents: vec![i64::MIN, 1], ..none() },
            [i64::MIN.to_le_bytes(), 1i64.to_le_bytes()].concat(),
        ),
        (
            "UINT64",
            InferTensorContents { uint64_contents: vec![u64::MAX, 1], ..none() },
            [[255; 8], 1u64.to_le_bytes()].concat(),
        ),
        (
            "FP64",
            InferTensorContents { fp64_contents: vec![0.1, f64::INFINITY], ..none() },
            [0.1f64.to_le_bytes(), f64::INFINITY.to_le_bytes()].concat(),
        ),
        (
            "BYTES",
            InferTensorContents { bytes_contents: vec![Bytes::from_static(b"ab"), Bytes::new()], ..none() },
            vec![2, 0, 0, 0, b'a', b'b', 0, 0, 0, 0],
        ),
    ] {
        let answer = infer(&mut client, typed(name, &[2], contents)).await.unwrap();
        assert_eq!(answer.raw_output_contents, [bytes.as_slice()], "{name}");
    }
}

#[tokio::test]
async fn every_error_has_its_code() {
    let mut client = serve(Limits { body: 4096, ..Limits::default() }, None).await;
    let good = || raw("UINT8", &[2], &[1, 2]);
    let ints = |int_contents| InferTensorContents { int_contents, ..InferTensorContents::default() };
    let mut mixed = good();
    mixed.inputs[0].contents = Some(ints(vec![1]));
    let mut shared = good();
    shared.inputs[0].parameters = HashMap::from([("shared_memory_region".to_string(), InferParameter {})]);
    let wants = |names: &[&str]| ModelInferRequest {
        outputs: names
            .iter()
            .map(|name| InferRequestedOutputTensor { name: name.to_string(), ..Default::default() })
            .collect(),
        ..good()
    };
    let twice = ModelInferRequest {
        inputs: vec![input("UINT8", &[0]); 2],
        raw_input_contents: vec![Bytes::new(); 2],
        ..good()
    };
    let mut unequal = good();
    unequal.raw_input_contents.push(Bytes::new());
    let many = ModelInferRequest { inputs: vec![InferInputTensor::default(); 300], ..good() };
    let int64s = |count: usize| {
        let contents = InferTensorContents { int64_contents: vec![1; count], ..Default::default() };
        typed("INT64", &[count as i64], contents)
    };

    for (request, code, text) in [
        (good(), Code::Ok, ""),
        (wants(&["uint8"]), Code::Ok, ""),
        (wants(&["x"]), Code::InvalidArgument, "the model has no output `x`"),
        (mixed, Code::InvalidArgument, "it has contents, and the request has raw_input_contents"),
        (shared, Code::InvalidArgument, "shared_memory_region"),
        (twice, Code::InvalidArgument, "it stands twice"),
        (unequal, Code::InvalidArgument, "there are 1 inputs and 2 raw_input_contents"),
        (raw("UINT8", &[3], &[1, 2]), Code::InvalidArgument, "has 3 bytes, and there are 2"),
        (raw("UINT8", &[-1], &[1, 2]), Code::InvalidArgument, "below zero"),
        (raw("UINT8", &[i64::MAX; 3], &[1]), Code::InvalidArgument, "too many elements"),
        (raw("UINT8", &[1; 33], &[1]), Code::InvalidArgument, "more than 32"),
        (raw("FLOAT", &[2], &[1, 2]), Code::InvalidArgument, "no such datatype"),
        (raw("BOOL", &[2], &[1, 2]), Code::InvalidArgument, "other than 0 and 1"),
        (typed("BF16", &[1], ints(vec![1])), Code::InvalidArgument, "send its bytes in raw_input_contents"),
        (typed("INT8", &[1], ints(vec![128])), Code::InvalidArgument, "out of the range"),
        (typed("FP32", &[1], InferTensorContents::default()), Code::InvalidArgument, "and there are 0"),
        (
            typed("FP32", &[1], ints(vec![1])),
            Code::InvalidArgument,
            "FP32 has its elements in fp32_contents, and there are some in int_contents",
        ),
        (
            typed("INT8", &[1], InferTensorContents { fp64_contents: vec![0.5], ..ints(vec![1]) }),
            Code::InvalidArgument,
            "there are some in fp64_contents",
        ),
        (
            ModelInferRequest { inputs: Vec::new(), raw_input_contents: Vec::new(), ..good() },
            Code::InvalidArgument,
            "no input",
        ),
        (ModelInferRequest { model_name: "no".into(), ..good() }, Code::NotFound, "no model `no`"),
        (ModelInferRequest { model_version: "6".into(), ..good() }, Code::NotFound, "begins with `6`"),
        (raw("UINT8", &[5000], &[1; 5000]), Code::ResourceExhausted, "more than 4096 bytes"),
        // What would take much more memory than it has bytes.
        (many, Code::InvalidArgument, "more than 256"),
        (int64s(512), Code::Ok, ""),
        (int64s(513), Code::ResourceExhausted, "more than 4096 bytes"),
    ] {
        let answer = infer(&mut client, request).await;
        let (found, message) =
            answer.map_or_else(|s| (s.code(), s.message().to_string()), |_| (Code::Ok, String::new()));
        assert_eq!(found, code, "{text}: {message}");
        assert!(message.contains(text), "{message}");
    }
    // The same as over REST.
    for name in ["classification", "priority", "sequence_id", "timeout"] {
        let mut request = good();
        request.parameters = HashMap::from([(name.to_string(), InferParameter {})]);
        let status = infer(&mut client, request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{name}");
        assert!(status.message().contains(name), "{status}");
    }
}

#[tokio::test]
async fn what_is_no_call_is_not_answered_as_one() {
    let address = listen(Limits::default(), None).await;
    for (form, status) in [
        ("application/grpc", 200),
        ("application/grpc+proto; charset=x", 200),
        ("Application/GRPC", 200),
        ("application/grpc+json", 415),
        ("application/grpc-web", 415),
        ("application/json", 415),
        ("text/plain", 415),
    ] {
        let head = format!(
            "POST /inference.GRPCInferenceService/ServerLive HTTP/1.1\r\nhost: x\r\n\
             content-type: {form}\r\ncontent-length: 5\r\n\r\n\0\0\0\0\0"
        );
        let reply = send(address, head.as_bytes()).await;
        assert_eq!(reply.status, status, "{form}: {}", reply.head);
        if status == 415 {
            assert!(reply.error().contains("application/grpc"), "{form}");
        }
    }
}

#[tokio::test]
async fn compressed_messages_are_decoded_within_the_limit() {
    let limits = Limits { body: 1 << 20, ..Limits::default() };
    let mut client = serve(limits, None).await.send_compressed(CompressionEncoding::Gzip);
    let bytes = vec![7; 1 << 19];
    let answer = infer(&mut client, raw("UINT8", &[1 << 19], &bytes)).await.unwrap();
    assert!(answer.raw_output_contents == [bytes]);
    let bomb = infer(&mut client, raw("UINT8", &[1 << 22], &vec![7; 1 << 22])).await.unwrap_err();
    assert_eq!(bomb.code(), Code::ResourceExhausted, "{bomb}");
}

#[tokio::test]
async fn a_client_sets_the_time_of_its_call() {
    let address = listen(Limits::default(), None).await;
    // The model pauses for 300 ms at an input of this name.
    let mut message = raw("UINT8", &[1], &[1]);
    message.inputs[0].name = "pause".into();
    let message = message.encode_to_vec();
    let frame = [&[0], &(message.len() as u32).to_be_bytes()[..], &message].concat();
    // Sent by hand: tonic's client counts the time as well, and ends the call itself.
    for (time, code) in
        [("50m", Some("4")), ("10S", None), ("soon", Some("3")), ("1", Some("3")), ("999999999S", Some("3"))]
    {
        let head = format!(
            "POST /inference.GRPCInferenceService/ModelInfer HTTP/1.1\r\nhost: x\r\n\
             content-type: application/grpc\r\ngrpc-timeout: {time}\r\ncontent-length: {}\r\n\r\n",
            frame.len()
        );
        let reply = send(address, &[head.as_bytes(), &frame].concat()).await;
        assert_eq!((reply.status, reply.header("grpc-status")), (200, code), "{time}: {}", reply.head);
    }
}

#[tokio::test]
async fn keys_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.toml");
    let key = NewKey::generate("reader", &[Scope::Read], None).unwrap();
    std::fs::write(&path, &key.entry).unwrap();
    let mut client = serve(Limits::default(), Some(path)).await;
    let live = call::<_, ServerLiveResponse>(&mut client, "ServerLive", ServerLiveRequest {}).await;
    assert!(live.unwrap().into_inner().live);
    for (secret, code) in [
        (None, Code::Unauthenticated),
        (Some("x"), Code::Unauthenticated),
        (Some(&*key.secret), Code::PermissionDenied),
    ] {
        let mut request = Request::new(raw("UINT8", &[1], &[1]));
        if let Some(secret) = secret {
            request.metadata_mut().insert("authorization", format!("Bearer {secret}").parse().unwrap());
        }
        let status = call::<ModelInferRequest, ModelInferResponse>(&mut client, "ModelInfer", request)
            .await
            .unwrap_err();
        assert_eq!(status.code(), code);
    }
}
