//! The numerics doctor: a step is repeated with every value observed, to say which value broke and
//! why.
//!
//! [`Observed`] is the step's own program with every value readable; [`diagnose`] compares it with
//! the same step in f32, at another loss scale and with the first weights, and names the cause by
//! what those replays show; [`Sample`] counts what range each value takes.

mod casts;
mod diagnose;
mod diagnosis;
mod examine;
mod fixes;
mod observe;
#[cfg(feature = "parquet")]
mod parquet;
mod sample;

pub use diagnose::diagnose;
pub(crate) use diagnose::flushed;
pub use diagnosis::{Cause, CodeCast, Diagnosis, Finding};
pub use examine::Examination;
pub use observe::{Observed, Replayed, Weights};
#[cfg(feature = "parquet")]
pub use parquet::parquet;
pub(crate) use sample::scale_of;
pub use sample::{FormatShares, Sample, Sampler, ValueRange};
