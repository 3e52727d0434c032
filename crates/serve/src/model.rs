//! What the server asks of a model, and of what names the version that answers.

use thiserror::Error;

use crate::tensor::{Datatype, Tensor};

/// An input or output of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorSpec {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub datatype: Datatype,
    /// Its extents; none where any is taken, such as the number of samples.
    pub shape: Vec<Option<usize>>,
}

impl TensorSpec {
    /// Its extents as the protocol has them: -1 where any is taken.
    pub(crate) fn extents(&self) -> Vec<i64> {
        let extent = |extent: &Option<usize>| extent.and_then(|e| i64::try_from(e).ok()).unwrap_or(-1);
        self.shape.iter().map(extent).collect()
    }
}

/// What a model takes and gives.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelInfo {
    /// The name that clients call it by.
    pub name: String,
    /// The digest of the version: SHA-256 in hexadecimal.
    pub digest: String,
    /// What made it, such as `halfstep`.
    pub platform: String,
    /// What it takes.
    pub inputs: Vec<TensorSpec>,
    /// What it gives.
    pub outputs: Vec<TensorSpec>,
    /// Bytes of memory that it holds while it is loaded.
    pub memory: u64,
    /// Samples that it computes at once, at most.
    pub max_batch: usize,
}

/// A client's mistake: what is wrong with its tensors.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct InputError(pub String);

/// Why a model gave no answer, though what it was given was right.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct ComputeError(pub String);

/// Samples of one request, ready to be computed.
pub struct Prepared<S> {
    /// How many there are; at least one.
    pub count: usize,
    /// The samples.
    pub samples: S,
}

/// A loaded version of a model.
pub trait ServedModel: Send + Sync + 'static {
    /// Samples, ready to be computed.
    type Samples: Send + 'static;

    /// What it takes and gives.
    fn info(&self) -> &ModelInfo;

    /// Bytes of memory that a request with these tensors takes besides them, at most: what is
    /// needed to prepare it, its samples, and its outputs, also as the text of an answer. It is
    /// asked, and the memory reserved, before anything is prepared, so it has to be quick.
    fn memory(&self, inputs: &[Tensor]) -> usize;

    /// Samples from the tensors of one request: checked, decoded, preprocessed. Requests are
    /// prepared side by side.
    ///
    /// # Errors
    /// The client's tensors are not what the model takes.
    fn prepare(&self, inputs: &[Tensor]) -> Result<Prepared<Self::Samples>, InputError>;

    /// The outputs of each request, in their order. Called by one thread at a time, with
    /// [`ModelInfo::max_batch`] samples in all at most, or one request that alone has more.
    ///
    /// # Errors
    /// The engine failed: no request of this batch has an answer.
    fn compute(&self, requests: Vec<Prepared<Self::Samples>>) -> Result<Vec<Vec<Tensor>>, ComputeError>;
}

/// The version that is to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CurrentVersion {
    /// The digest of the version: SHA-256 in hexadecimal.
    pub digest: String,
    /// The number of the move that chose it; 0 where none did.
    pub number: u64,
}

/// Why there is no version, or why it cannot be loaded.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct SourceError(pub String);

/// Where versions come from.
pub trait VersionSource: Send + Sync + 'static {
    /// What it loads.
    type Model: ServedModel;

    /// Which version is to answer now. Asked often, so it has to be quick.
    ///
    /// # Errors
    /// It cannot be read; the server keeps the version that it has.
    fn current(&self) -> Result<CurrentVersion, SourceError>;

    /// The digest of the version that a rollback goes to, which a server loads when it starts,
    /// beside the answers of `current`; none where there is none. Asked once.
    ///
    /// # Errors
    /// It cannot be read, or there is no memory for it: it is then loaded when it is to answer.
    fn fallback(&self, current: &ModelInfo) -> Result<Option<String>, SourceError>;

    /// Loads a version. This may take long, and happens beside the answers of the version before.
    ///
    /// # Errors
    /// A file is missing or damaged, or a signature is not valid.
    fn load(&self, version: &CurrentVersion) -> Result<Self::Model, SourceError>;
}
