//! The Open Inference Protocol over gRPC: the six calls of `inference.GRPCInferenceService`. Those
//! that Triton adds are not implemented, and answered so.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use prost::Message;
use tokio::time::timeout;
use tonic::Status;

use crate::activity::Held;
use crate::infer::{Answer, Inference, Refusal, output, short};
use crate::limits::{Budget, Limits, Reservation};
use crate::model::TensorSpec;
use crate::rest::{error_body, of_version};
use crate::tensor::{Datatype, Tensor};

mod contents;
mod frame;
pub mod messages;

use messages::{
    InferInputTensor, InferOutputTensor, InferParameter, ModelInferRequest, ModelInferResponse,
    ModelMetadataRequest, ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse, ServerLiveRequest,
    ServerLiveResponse, ServerMetadataRequest, ServerMetadataResponse, ServerReadyRequest,
    ServerReadyResponse, TensorMetadata,
};

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Status {
        Status::new(refusal.grpc(), refusal.to_string())
    }
}

struct Server<I> {
    inference: Arc<I>,
    limits: Limits,
    budget: Budget,
}

/// The calls, as routes.
pub fn router<I: Inference>(inference: Arc<I>, limits: Limits, budget: Budget) -> Router {
    let path = |call| format!("/inference.GRPCInferenceService/{call}");
    Router::new()
        .route(&path("ServerLive"), post(server_live::<I>))
        .route(&path("ServerReady"), post(server_ready::<I>))
        .route(&path("ServerMetadata"), post(server_metadata::<I>))
        .route(&path("ModelReady"), post(model_ready::<I>))
        .route(&path("ModelMetadata"), post(model_metadata::<I>))
        .route(&path("ModelInfer"), post(model_infer::<I>))
        .method_not_allowed_fallback(crate::rest::method_not_allowed)
        .with_state(Arc::new(Server { inference, limits, budget }))
}

type Shared<I> = State<Arc<Server<I>>>;

async fn server_live<I: Inference>(State(server): Shared<I>, request: Request) -> Response {
    server.simple(request, |_, _: ServerLiveRequest| Ok((ServerLiveResponse { live: true }, None))).await
}

async fn server_ready<I: Inference>(State(server): Shared<I>, request: Request) -> Response {
    let ready =
        |inference: &I, _: ServerReadyRequest| Ok((ServerReadyResponse { ready: inference.ready() }, None));
    server.simple(request, ready).await
}

async fn server_metadata<I: Inference>(State(server): Shared<I>, request: Request) -> Response {
    let metadata = |_: &I, _: ServerMetadataRequest| {
        let metadata = ServerMetadataResponse {
            name: "halfstep".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            extensions: vec!["binary_tensor_data".into()],
        };
        Ok((metadata, None))
    };
    server.simple(request, metadata).await
}

async fn model_ready<I: Inference>(State(server): Shared<I>, request: Request) -> Response {
    let ready = |inference: &I, asked: ModelReadyRequest| {
        let info = inference.info(&asked.name, named(&asked.version))?;
        Ok((ModelReadyResponse { ready: true }, Version::named(info.digest)))
    };
    server.simple(request, ready).await
}

async fn model_metadata<I: Inference>(State(server): Shared<I>, request: Request) -> Response {
    let metadata = |inference: &I, asked: ModelMetadataRequest| {
        let info = inference.info(&asked.name, named(&asked.version))?;
        let metadata = ModelMetadataResponse {
            name: info.name,
            versions: vec![info.digest.clone()],
            platform: info.platform,
            inputs: info.inputs.iter().map(tensor_metadata).collect(),
            outputs: info.outputs.iter().map(tensor_metadata).collect(),
        };
        Ok((metadata, Version::named(info.digest)))
    };
    server.simple(request, metadata).await
}

async fn model_infer<I: Inference>(State(server): Shared<I>, request: Request) -> Response {
    let shared = server.clone();
    server.call(request, async move |message, held| shared.infer(message, held).await).await
}

/// A version that a client names; an empty name is none.
fn named(version: &str) -> Option<&str> {
    Some(version).filter(|version| !version.is_empty())
}

fn tensor_metadata(spec: &TensorSpec) -> TensorMetadata {
    TensorMetadata { name: spec.name.clone(), datatype: spec.datatype.name().into(), shape: spec.extents() }
}

/// An answer, and the version that gave it with the memory of the request.
type Reply<A> = Result<(A, Option<Version>), Status>;

/// What answered a call.
struct Version {
    digest: String,
    held: Option<Reservation>,
}

impl Version {
    /// A version that is named, and has computed nothing.
    fn named(digest: String) -> Option<Version> {
        Some(Version { digest, held: None })
    }
}

impl<I: Inference> Server<I> {
    /// Answers a call that waits for nothing.
    async fn simple<Q: Message + Default, A: Message>(
        &self,
        request: Request,
        answer: impl FnOnce(&I, Q) -> Reply<A>,
    ) -> Response {
        let decode = |message: Bytes| {
            Q::decode(message).map_err(|e| Status::invalid_argument(format!("the message: {e}")))
        };
        self.call(request, async |message, _| answer(&self.inference, decode(message)?)).await
    }

    /// Answers a call, in the time that its client gives it.
    async fn call<A: Message, F: Future<Output = Reply<A>>>(
        &self,
        request: Request,
        answer: impl FnOnce(Bytes, Reservation) -> F,
    ) -> Response {
        let (parts, body) = request.into_parts();
        if !frame::is_call(&parts.headers) {
            let what = "a call of gRPC has the Content-Type application/grpc, and its messages are protobuf";
            return error_body(StatusCode::UNSUPPORTED_MEDIA_TYPE, what);
        }
        let work = async {
            let (message, held) = frame::read(&parts.headers, body, &self.limits, &self.budget).await?;
            answer(message, held).await
        };
        let reply = match frame::time(&parts.headers) {
            Ok(Some(time)) => timeout(time, work).await.unwrap_or_else(|_| Err(Refusal::TimedOut.into())),
            Ok(None) => work.await,
            Err(status) => Err(status),
        };
        match reply {
            Err(status) => status.into_http(),
            Ok((message, version)) => {
                let mut response = frame::write(&message);
                let Some(Version { digest, held }) = version else { return response };
                if let Some(mut held) = held {
                    held.answered(message.encoded_len());
                    Held::by(&mut response, held);
                }
                of_version(&digest, response)
            }
        }
    }

    async fn infer(&self, message: Bytes, held: Reservation) -> Reply<ModelInferResponse> {
        let size = frame::measure(&message)?;
        if size > self.limits.body {
            let most = self.limits.body;
            return Err(Status::resource_exhausted(format!("the contents have more than {most} bytes")));
        }
        let _more = match size.saturating_sub(message.len()) {
            0 => None,
            more => Some(frame::reserve(&self.budget, more, &self.limits).await?),
        };
        let request = ModelInferRequest::decode(message)
            .map_err(|e| Status::invalid_argument(format!("this is no ModelInferRequest: {e}")))?;
        let ModelInferRequest {
            model_name,
            model_version,
            id,
            parameters,
            inputs,
            outputs,
            raw_input_contents,
        } = request;
        check_parameters(&parameters)?;
        for output in &outputs {
            check_parameters(&output.parameters)?;
        }
        let wanted: Vec<String> = outputs.into_iter().map(|output| output.name).collect();
        let inputs = tensors(inputs, raw_input_contents)?;
        let answer = self.inference.infer(&model_name, named(&model_version), inputs, held).await?;
        response(model_name, id, answer, &wanted)
    }
}

/// Refuses those of Triton's parameters that would change the answer. Others have no effect.
fn check_parameters(parameters: &HashMap<String, InferParameter>) -> Result<(), Status> {
    let changes = [
        "classification",
        "priority",
        "sequence_end",
        "sequence_id",
        "sequence_start",
        "shared_memory_region",
        "timeout",
    ];
    match changes.iter().find(|name| parameters.contains_key(**name)) {
        None => Ok(()),
        Some(name) => Err(Status::invalid_argument(format!("the parameter `{name}` is not offered here"))),
    }
}

fn tensors(inputs: Vec<InferInputTensor>, raw: Vec<Bytes>) -> Result<Vec<Tensor>, Status> {
    let refused = |text: String| Status::invalid_argument(text);
    let is_raw = !raw.is_empty();
    if is_raw && raw.len() != inputs.len() {
        let text = format!("there are {} inputs and {} raw_input_contents", inputs.len(), raw.len());
        return Err(refused(text));
    }
    let mut raw = raw.into_iter();
    let mut names = HashSet::new();
    let mut tensors = Vec::with_capacity(inputs.len());
    for InferInputTensor { name, datatype, shape, parameters, contents } in inputs {
        let of_tensor = |text: &str| refused(format!("input `{}`: {text}", short(&name)));
        check_parameters(&parameters)?;
        if !names.insert(name.clone()) {
            return Err(of_tensor("it stands twice"));
        }
        let datatype =
            Datatype::named(&datatype).ok_or_else(|| of_tensor("the protocol has no such datatype"))?;
        let shape: Result<Vec<usize>, _> = shape.into_iter().map(usize::try_from).collect();
        let shape = shape.map_err(|_| of_tensor("an extent is below zero"))?;
        let data = match (raw.next(), contents) {
            (Some(_), Some(_)) => {
                return Err(of_tensor("it has contents, and the request has raw_input_contents"));
            }
            (Some(raw), None) => raw,
            (None, contents) => {
                contents::bytes(datatype, contents.unwrap_or_default()).map_err(|text| of_tensor(&text))?
            }
        };
        tensors.push(Tensor::new(name, datatype, shape, data).map_err(|e| refused(e.to_string()))?);
    }
    Ok(tensors)
}

fn response(model_name: String, id: String, answer: Answer, wanted: &[String]) -> Reply<ModelInferResponse> {
    let Answer { digest, outputs, held } = answer;
    let chosen: Vec<&Tensor> = match wanted {
        [] => outputs.iter().collect(),
        names => {
            let named = |name: &String| output(&outputs, name).map_err(|e| Status::invalid_argument(e.0));
            names.iter().map(named).collect::<Result<_, _>>()?
        }
    };
    let described = |tensor: &&Tensor| InferOutputTensor {
        name: tensor.name().into(),
        datatype: tensor.datatype().name().into(),
        shape: tensor.shape().iter().map(|&extent| i64::try_from(extent).unwrap_or(i64::MAX)).collect(),
    };
    let response = ModelInferResponse {
        model_name,
        model_version: digest.clone(),
        id,
        outputs: chosen.iter().map(described).collect(),
        raw_output_contents: chosen.iter().map(|tensor| tensor.data().clone()).collect(),
    };
    Ok((response, Some(Version { digest, held: Some(held) })))
}
