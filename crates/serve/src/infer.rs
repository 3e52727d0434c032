//! The one call that both protocols make.

use axum::http::StatusCode;
use thiserror::Error;
use tonic::Code;

use crate::limits::{NoMemory, Reservation};
use crate::model::{ComputeError, InputError, ModelInfo};
use crate::tensor::Tensor;

/// What a version of a model answered.
#[derive(Debug)]
pub struct Answer {
    /// The digest of the version.
    pub digest: String,
    /// All outputs, in the order of the model.
    pub outputs: Vec<Tensor>,
    /// The memory of the request, held until its client has the answer.
    pub held: Reservation,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// There is no such model.
    #[error("there is no model `{}` here", short(.0))]
    UnknownModel(String),
    /// No version that is loaded has a digest which begins so, or several have.
    #[error(
        "no version that is loaded has a digest that begins with `{}`, or several have; without a version the current one answers",
        short(.0)
    )]
    UnknownVersion(String),
    /// The client's tensors are not what the model takes.
    #[error(transparent)]
    Input(#[from] InputError),
    /// As many requests wait as may.
    #[error("as many requests wait as may wait; try again later")]
    Full,
    /// Other requests hold the memory for what models make of them.
    #[error("the server holds as many requests as its memory is for; try again later")]
    Memory,
    /// Even alone the request would take too much memory.
    #[error(
        "the samples of the request and their outputs would take more than {0} bytes of memory; send fewer in one request"
    )]
    TooMuch(usize),
    /// There was no answer in time.
    #[error("there was no answer within the time for a request")]
    TimedOut,
    /// The model failed.
    #[error(transparent)]
    Failed(#[from] ComputeError),
    /// The server is ending.
    #[error("the server is ending and takes no requests any more")]
    Draining,
}

impl From<NoMemory> for Refusal {
    fn from(why: NoMemory) -> Refusal {
        match why {
            NoMemory::TooMuch(most) => Refusal::TooMuch(most),
            NoMemory::Held => Refusal::Memory,
        }
    }
}

impl Refusal {
    /// Its status in HTTP.
    pub fn http(&self) -> StatusCode {
        match self {
            Refusal::UnknownModel(_) | Refusal::UnknownVersion(_) => StatusCode::NOT_FOUND,
            Refusal::Draining => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::Input(_) => StatusCode::BAD_REQUEST,
            Refusal::Full | Refusal::Memory => StatusCode::TOO_MANY_REQUESTS,
            Refusal::TooMuch(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            Refusal::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Its code in gRPC.
    pub fn grpc(&self) -> Code {
        match self {
            Refusal::UnknownModel(_) | Refusal::UnknownVersion(_) => Code::NotFound,
            Refusal::Draining => Code::Unavailable,
            Refusal::Input(_) => Code::InvalidArgument,
            Refusal::Full | Refusal::Memory | Refusal::TooMuch(_) => Code::ResourceExhausted,
            Refusal::TimedOut => Code::DeadlineExceeded,
            Refusal::Failed(_) => Code::Internal,
        }
    }
}

/// What answers the requests of both protocols.
pub trait Inference: Send + Sync + 'static {
    /// Whether requests will be answered now.
    fn ready(&self) -> bool;

    /// What a model takes and gives. A version is its digest or the beginning of it, as long as no
    /// other begins so; none is the one that answers now.
    ///
    /// # Errors
    /// There is no such model or version.
    fn info(&self, model: &str, version: Option<&str>) -> Result<ModelInfo, Refusal>;

    /// The answer to a request, which holds its memory. It is given up when the future is dropped.
    ///
    /// # Errors
    /// There is none.
    fn infer(
        &self,
        model: &str,
        version: Option<&str>,
        inputs: Vec<Tensor>,
        held: Reservation,
    ) -> impl Future<Output = Result<Answer, Refusal>> + Send;
}

/// The output that a client asks for by its name.
pub(crate) fn output<'a>(outputs: &'a [Tensor], name: &str) -> Result<&'a Tensor, InputError> {
    let tensor = outputs.iter().find(|tensor| tensor.name() == name);
    tensor.ok_or_else(|| InputError(format!("the model has no output `{}`", short(name))))
}

/// The beginning of a text of a client's, for a message.
pub(crate) fn short(text: &str) -> String {
    let mut short: String = text.chars().take(100).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
