//! Who does something to a registry, when and why.

use halfstep_attest::DateTime;
use serde::{Deserialize, Serialize};

/// Who says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Vouching {
    /// The operating system: its name for the user, and for the machine.
    System,
    /// A server that was given an API key: the key's name.
    ApiKey,
}

/// Somebody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Actor {
    /// Their name.
    pub name: String,
    /// Who says that it is theirs.
    pub said_by: Vouching,
}

impl std::fmt::Display for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let by = match self.said_by {
            Vouching::System => "system",
            Vouching::ApiKey => "API key",
        };
        write!(f, "{} (said by the {by})", self.name)
    }
}

/// Something that is done: by whom, when, and why.
#[derive(Clone, Debug)]
pub struct Act {
    /// By whom.
    pub who: Actor,
    /// When.
    pub at: DateTime,
    /// Why, where a reason was given.
    pub reason: Option<String>,
}
