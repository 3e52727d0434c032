//! How the products of a precision are computed, as the engine that ran it says.

use halfstep_graph::engine_info::{Arithmetic, PolicyDescription};
use serde::Serialize;

/// How an engine computes the products of a precision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PolicyArithmetic {
    /// The kind.
    pub arithmetic: Arithmetic,
    /// The same in words, without a full stop.
    pub runs_on: String,
}

impl From<PolicyDescription> for PolicyArithmetic {
    fn from(described: PolicyDescription) -> PolicyArithmetic {
        PolicyArithmetic { arithmetic: described.arithmetic, runs_on: described.text }
    }
}

/// The kind of arithmetic in a word.
pub(crate) fn name(arithmetic: Arithmetic) -> &'static str {
    match arithmetic {
        Arithmetic::Native => "native",
        Arithmetic::Split => "split",
        Arithmetic::Widened => "widened",
        Arithmetic::Emulated => "emulated",
    }
}
