//! Files by name and digest, as in-toto statements name what they are about.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// A file that a statement is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// Its name, which proves nothing.
    pub name: String,
    /// Its digest.
    pub digest: DigestSet,
}

/// Digests of one file by the names of their functions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DigestSet {
    /// SHA-256, the only one that is used.
    pub sha256: Digest,
    /// Others, not verified.
    #[serde(flatten)]
    others: BTreeMap<String, String>,
}

impl Subject {
    /// A file of this name and digest.
    pub fn new(name: impl Into<String>, sha256: Digest) -> Subject {
        Subject { name: name.into(), digest: DigestSet { sha256, others: BTreeMap::new() } }
    }
}
