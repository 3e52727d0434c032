//! What an engine says of itself: its device, the memory that is free there, what decides its bits,
//! and what it makes of a precision policy.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What decides an engine's results besides plan, state and inputs: two engines whose results can
/// differ in any bit have different identities. The number of threads is not part of it, for
/// results do not depend on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineIdentity {
    engine: String,
    parts: BTreeMap<String, String>,
}

impl EngineIdentity {
    /// The identity of an engine with this name.
    pub fn new(engine: &str) -> EngineIdentity {
        EngineIdentity { engine: engine.to_string(), parts: BTreeMap::new() }
    }

    /// The same with one more part, such as `instruction set` and `avx2`; it replaces a part of the
    /// same name.
    #[must_use]
    pub fn with(mut self, part: &str, value: impl fmt::Display) -> EngineIdentity {
        self.parts.insert(part.to_string(), value.to_string());
        self
    }
}

impl fmt::Display for EngineIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.engine)?;
        self.parts.iter().try_for_each(|(part, value)| write!(f, ", {part} {value}"))
    }
}

/// The device that an engine computes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its kind as reports name it, such as `CPU`.
    pub kind: String,
    /// Maker and model, as far as known.
    pub name: String,
}

/// Memory that an engine may still take on its device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreeMemory {
    /// How much.
    pub bytes: usize,
    /// What sets the limit, as the end of a sentence that begins with the bytes, such as
    /// `are free on this machine`.
    pub limit: String,
}

/// How an engine multiplies the operands of a policy's contractions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arithmetic {
    /// In the policy's own format, by instructions for it.
    Native,
    /// Each operand as a sum of numbers in a narrower format, in several passes.
    Split,
    /// In a wider format, in which the operands are exact.
    Widened,
    /// Codes and scales of a format that the device has no instructions for, multiplied in a wider
    /// one.
    Emulated,
}

/// What an engine says of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyDescription {
    /// How contractions multiply.
    pub arithmetic: Arithmetic,
    /// The same in words, without a full stop.
    pub text: String,
}

/// An engine does not run plans of a policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{policy}` does not run on {target}: {reason}")]
pub struct UnsupportedPolicy {
    /// The policy's name.
    pub policy: String,
    /// The engine's name.
    pub target: String,
    /// What it lacks.
    pub reason: String,
}
