//! Why training cannot go on.

use halfstep_graph::engine::EngineError;
use halfstep_graph::engine_info::UnsupportedPolicy;
use halfstep_graph::{BudgetError, GraphError};

use crate::metrics::Cause;
use crate::setting::SettingError;

/// Why training cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The model does not fit the data or cannot be differentiated.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The engine refused.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The engine does not run plans of the policy.
    #[error(transparent)]
    Unsupported(#[from] UnsupportedPolicy),
    /// A setting out of range.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// A batch that is not a whole number of samples, or whose targets do not match.
    #[error(
        "a batch of {samples} numbers and {targets} targets; each sample has {elements} numbers and {rows} targets"
    )]
    Batch {
        /// Numbers given.
        samples: usize,
        /// Targets given.
        targets: usize,
        /// Numbers per sample.
        elements: usize,
        /// Targets per sample.
        rows: usize,
    },
    /// A batch that ranks cannot share in equal parts.
    #[error(
        "a batch of {batch} samples cannot be shared by {ranks} ranks{}: `batch` must be a multiple of {}",
        if *.accumulate > 1 { format!(", each in {accumulate} equal parts") } else { String::new() },
        .ranks * .accumulate
    )]
    Uneven {
        /// Samples.
        batch: usize,
        /// Ranks.
        ranks: usize,
        /// Parts that each works through one after another.
        accumulate: usize,
    },
    /// A policy whose scales come from whole tensors, on several ranks.
    #[error(
        "`{policy}` cannot be trained on {ranks} ranks: its scales come from the largest magnitude of a whole tensor, of which \
         each rank sees only its part of the batch; train on one rank, or with `fp8-block`, `mxfp8` or `mxfp4`, whose scales \
         belong to blocks"
    )]
    ScaleOfAPart {
        /// The precision policy.
        policy: String,
        /// Ranks.
        ranks: usize,
    },
    /// The step needs more memory than it was given.
    #[error("{cause}{}", advice(.policy, .batch))]
    Budget {
        /// What it needs.
        cause: BudgetError,
        /// The precision policy.
        policy: String,
        /// The largest smaller batch that would fit.
        batch: Option<usize>,
    },
    /// Steps in a row had gradients of nothing but zeros.
    #[error(
        "the run has stopped learning: in the last {steps} steps every gradient was zero, though the loss is {loss} (policy \
         {policy}, attempt {attempt}, {committed} steps committed, loss scale {scale}); raise the loss scale, or its `floor`"
    )]
    Vanished {
        /// Steps in a row.
        steps: u32,
        /// The precision policy.
        policy: String,
        /// Steps tried.
        attempt: u64,
        /// Steps that changed the model.
        committed: u64,
        /// Loss of the last batch.
        loss: f32,
        /// Loss scale of the last step.
        scale: f32,
    },
    /// Steps in a row had gradients that were not finite.
    #[error(
        "the run has diverged: the last {skips} steps had gradients or statistics that are not finite (policy {policy}, attempt \
         {attempt}, {committed} steps committed, loss {loss}, loss scale {scale}); {cause}"
    )]
    Diverged {
        /// Skipped steps in a row.
        skips: u32,
        /// The precision policy.
        policy: String,
        /// Steps tried.
        attempt: u64,
        /// Steps that changed the model.
        committed: u64,
        /// Loss of the last batch.
        loss: f32,
        /// Loss scale of the last step.
        scale: f32,
        /// What is known of the reason.
        cause: Cause,
    },
}

/// What would make a step fit.
fn advice(policy: &str, batch: &Option<usize>) -> String {
    let format = if policy == "fp32" { ", or train in bf16 or fp16" } else { "" };
    let batch = batch.map_or(String::new(), |b| format!(", take a batch of at most {b}"));
    format!("; raise `memory_budget` to that{batch}, or choose a smaller model{format}")
}
