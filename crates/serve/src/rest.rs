//! The Open Inference Protocol over REST, with [Triton's extension][1] `binary_tensor_data`.
//!
//! [1]: https://github.com/triton-inference-server/server/tree/main/docs/protocol
//!
//! Answers are never compressed: tensors gain little by it, and HTTP lets a server choose so
//! whatever a client accepts.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, body::Body};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;
use thiserror::Error;
use tokio::task::JoinError;

use crate::activity::Held;
use crate::infer::{Inference, Refusal};
use crate::limits::{Budget, Limits};
use crate::model::TensorSpec;
use crate::work::{beside, is_long};

mod answer;
mod body;
mod json;
mod request;
#[cfg(test)]
mod tests;

/// The header of an answer that names the version which gave it: its digest.
pub const MODEL_DIGEST: HeaderName = HeaderName::from_static("halfstep-model-digest");
/// The length of the JSON of a body, where binary tensors follow it.
const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// What is wrong with a request, or cannot be said in the form that it asks for. It repeats no
/// values of a client's.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
struct WireError(String);

struct Server<I> {
    inference: Arc<I>,
    limits: Limits,
    budget: Budget,
}

/// The routes of the protocol, and an error as the protocol has it for all that is none.
pub fn router<I: Inference>(inference: Arc<I>, limits: Limits, budget: Budget) -> Router {
    let mut router = Router::new()
        .route("/v2", get(server_metadata))
        .route("/v2/health/live", get(live))
        .route("/v2/health/ready", get(ready));
    for model in ["/v2/models/{name}", "/v2/models/{name}/versions/{version}"] {
        router = router
            .route(model, get(model_metadata))
            .route(&format!("{model}/ready"), get(model_ready))
            .route(&format!("{model}/infer"), post(infer));
    }
    router.method_not_allowed_fallback(method_not_allowed).fallback(unknown).with_state(Arc::new(Server {
        inference,
        limits,
        budget,
    }))
}

/// The answer to a method that an address does not take.
pub(crate) async fn method_not_allowed() -> Response {
    error_body(StatusCode::METHOD_NOT_ALLOWED, "this address does not take this method")
}

type Shared<I> = State<Arc<Server<I>>>;

async fn server_metadata() -> Response {
    let (name, version) = ("halfstep", env!("CARGO_PKG_VERSION"));
    json_body(
        StatusCode::OK,
        &json!({"name": name, "version": version, "extensions": ["binary_tensor_data"]}),
    )
}

async fn live() -> Response {
    json_body(StatusCode::OK, &json!({"live": true}))
}

async fn ready<I: Inference>(State(server): Shared<I>) -> Response {
    let ready = server.inference.ready();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json_body(status, &json!({"ready": ready}))
}

async fn model_metadata<I: Inference>(
    State(server): Shared<I>,
    target: Target,
) -> Result<Response, ErrorAnswer> {
    let info = server.inference.info(&target.name, target.version.as_deref())?;
    let specs = |specs: &[TensorSpec]| specs.iter().map(Spec::of).collect();
    let (inputs, outputs): (Vec<_>, Vec<_>) = (specs(&info.inputs), specs(&info.outputs));
    let body = json!({
        "name": info.name,
        "versions": [info.digest],
        "platform": info.platform,
        "inputs": inputs,
        "outputs": outputs,
    });
    Ok(of_version(&info.digest, json_body(StatusCode::OK, &body)))
}

/// An input or output of a model, as the protocol has it.
#[derive(Serialize)]
struct Spec {
    name: String,
    datatype: &'static str,
    /// -1 where any extent is taken.
    shape: Vec<i64>,
}

impl Spec {
    fn of(spec: &TensorSpec) -> Spec {
        Spec { name: spec.name.clone(), datatype: spec.datatype.name(), shape: spec.extents() }
    }
}

async fn model_ready<I: Inference>(
    State(server): Shared<I>,
    target: Target,
) -> Result<Response, ErrorAnswer> {
    let info = server.inference.info(&target.name, target.version.as_deref())?;
    let body = json!({"name": info.name, "ready": true});
    Ok(of_version(&info.digest, json_body(StatusCode::OK, &body)))
}

async fn infer<I: Inference>(
    State(server): Shared<I>,
    target: Target,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ErrorAnswer> {
    let header_length = header_length(&headers)?;
    let form = if header_length.is_some() { body::Form::Binary } else { body::Form::Json };
    let (bytes, reservation) = body::read(&headers, body, form, &server.limits, &server.budget).await?;
    let most = server.limits.body;
    let long = is_long(bytes.len());
    // What is begun goes on when its client goes away, and holds its memory so long.
    let read =
        move || request::Request::read(&bytes, header_length, most).map(|request| (request, reservation));
    let (mut request, reservation) = beside(long, read).await.map_err(failed)??;
    let inputs = std::mem::take(&mut request.inputs);
    let Target { name, version } = target;
    let answer = server.inference.infer(&name, version.as_deref(), inputs, reservation).await?;
    let long = is_long(answer.outputs.iter().map(|output| output.data().len()).sum());
    let digest = answer.digest.clone();
    let write = move || {
        let body = answer::write(&name, &answer.digest, &request, &answer.outputs)?;
        let mut held = answer.held;
        held.answered(body.bytes.len());
        Ok::<_, WireError>((body, held))
    };
    let (body, held) = beside(long, write).await.map_err(failed)??;
    let kind = if body.header_length.is_some() { "application/octet-stream" } else { "application/json" };
    let mut response = (StatusCode::OK, body.bytes).into_response();
    Held::by(&mut response, held);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Some(length) = body.header_length {
        response.headers_mut().insert(HEADER_LENGTH, length.into());
    }
    Ok(of_version(&digest, response))
}

fn failed(_: JoinError) -> ErrorAnswer {
    ErrorAnswer::new(StatusCode::INTERNAL_SERVER_ERROR, "the server failed; its log says how")
}

fn header_length(headers: &HeaderMap) -> Result<Option<usize>, WireError> {
    let mut values = headers.get_all(HEADER_LENGTH).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let digits = value.to_str().ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    match digits.and_then(|digits| digits.parse().ok()).filter(|_| values.next().is_none()) {
        Some(length) => Ok(Some(length)),
        None => Err(WireError("Inference-Header-Content-Length has to be one whole number".into())),
    }
}

/// The model that an address names.
#[derive(Deserialize)]
struct Target {
    name: String,
    version: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Target {
    type Rejection = ErrorAnswer;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Target, ErrorAnswer> {
        let target = Path::<Target>::from_request_parts(parts, state).await;
        let Path(target) =
            target.map_err(|_| ErrorAnswer::new(StatusCode::BAD_REQUEST, "the address is no UTF-8"))?;
        Ok(target)
    }
}

async fn unknown(request: Request) -> Response {
    let grpc = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    if grpc.is_some_and(|kind| kind.starts_with(b"application/grpc")) {
        return tonic::Status::unimplemented("there is no such call").into_http::<Body>();
    }
    error_body(StatusCode::NOT_FOUND, "the protocol has no such address; its own begin with /v2")
}

/// An error, in the form of the protocol.
struct ErrorAnswer {
    status: StatusCode,
    message: String,
}

impl ErrorAnswer {
    fn new(status: StatusCode, message: impl Into<String>) -> ErrorAnswer {
        ErrorAnswer { status, message: message.into() }
    }
}

impl From<WireError> for ErrorAnswer {
    fn from(error: WireError) -> ErrorAnswer {
        ErrorAnswer::new(StatusCode::BAD_REQUEST, error.0)
    }
}

impl From<Refusal> for ErrorAnswer {
    fn from(refusal: Refusal) -> ErrorAnswer {
        ErrorAnswer::new(refusal.http(), refusal.to_string())
    }
}

impl From<body::BodyError> for ErrorAnswer {
    fn from(error: body::BodyError) -> ErrorAnswer {
        use body::BodyError::{Broken, Busy, Damaged, Encoding, Slow, TooLong};
        let status = match error {
            TooLong(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Slow(_) => StatusCode::REQUEST_TIMEOUT,
            Busy => StatusCode::TOO_MANY_REQUESTS,
            Encoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Damaged(_) | Broken => StatusCode::BAD_REQUEST,
        };
        ErrorAnswer::new(status, error.to_string())
    }
}

impl IntoResponse for ErrorAnswer {
    fn into_response(self) -> Response {
        let mut response = error_body(self.status, &self.message);
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// An error, in the form of the protocol.
pub(crate) fn error_body(status: StatusCode, message: &str) -> Response {
    json_body(status, &json!({"error": message}))
}

fn json_body(status: StatusCode, body: &serde_json::Value) -> Response {
    let kind = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    (status, kind, Bytes::from(body.to_string())).into_response()
}

/// An answer that names the version which gave it.
pub(crate) fn of_version(digest: &str, mut response: Response) -> Response {
    // A digest is hexadecimal, which a header can always have.
    if let Ok(digest) = HeaderValue::from_str(digest) {
        response.headers_mut().insert(MODEL_DIGEST, digest);
    }
    response
}
