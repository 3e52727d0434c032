//! The numerics doctor: a step is repeated with every value observed, to say which value broke and
//! why.
//!
//! [`Observed`] is the step's own program with every value readable; [`diagnose`] compares it with
//! the same step in f32, at another loss scale and with the first weights, and names the cause by
//! what those replays show; [`Sample`] counts what range each value takes.

mod casts;
mod diagnose;
mod diagnosis;
mod exploded;
mod first;
mod fix;
mod fixes;
mod locate;
mod lost;
mod observe;
mod overrides;
#[cfg(feature = "parquet")]
mod parquet;
mod replays;
mod sample;
mod scale;
mod state;
mod statements;
mod text;

pub use diagnose::diagnose;
pub use diagnosis::{Cause, CodeCast, Diagnosis, Finding};
pub use first::FirstWeights;
pub(crate) use first::{Moved, rms};
pub use fix::{Fix, Trial};
pub use observe::{Observed, Replayed, Weights};
#[cfg(feature = "parquet")]
pub use parquet::parquet;
pub use sample::{FormatShares, Sample, Sampler, ValueRange};
pub(crate) use sample::{in_f32, scale_of};
pub(crate) use scale::flushed;
pub(crate) use state::spoilt_state;
pub use statements::{LearningStatement, Losses, Without};
pub(crate) use text::short;
