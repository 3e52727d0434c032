//! What two models came to that were compared with each other: a predicate of our own.
//!
//! A model that was converted, pruned or quantised after a comparison is none of the files that
//! the comparison judged. Such a model is judged against the one that it was made of: one pair, so
//! that the verdict is about these two models, and not about training in a precision.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::Digest;
use crate::subject::Subject;
use crate::verdict::Conclusion;

/// The predicate's type.
pub const PREDICATE: &str = "https://example.org/halfstep/pair-verdict/v1";

/// What a pair of models came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairVerdict {
    /// When this statement was made, by the signer's own clock.
    pub made: String,
    /// Version of the program.
    pub version: String,
    /// The model that was judged.
    pub converted: Side,
    /// The model that it was made of, as its signer says.
    pub parent: Side,
    /// Test targets whose logits were judged.
    pub samples: u64,
    /// What follows.
    pub verdict: Conclusion,
    /// What was stated beforehand: the claim, the margins and what else.
    pub protocol: Value,
    /// Each metric that has a margin: what it came to.
    pub metrics: Vec<Value>,
}

/// One model of the pair.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Side {
    /// Its weights.
    pub weights: Subject,
    /// Its logits, which were judged. That the weights give them, the signer vouches for.
    pub logits: Subject,
}

/// What a verdict of a pair says of a file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PairNaming<'a> {
    /// These are the weights that were judged.
    Judged,
    /// These are the weights that the others were measured against.
    Parent,
    /// These are logits.
    Evidence(&'a Subject),
}

impl PairVerdict {
    /// Every file that it names: the subjects of its statement.
    pub fn subject(&self) -> Vec<Subject> {
        let of_side = |side: &Side| [side.weights.clone(), side.logits.clone()];
        [&self.converted, &self.parent].into_iter().flat_map(of_side).collect()
    }

    /// What it says of the file that has this digest, if anything.
    pub fn naming(&self, digest: Digest) -> Option<PairNaming<'_>> {
        let is_it = |subject: &&Subject| subject.digest.sha256 == digest;
        if is_it(&&self.converted.weights) {
            return Some(PairNaming::Judged);
        }
        if is_it(&&self.parent.weights) {
            return Some(PairNaming::Parent);
        }
        let logits = [&self.converted.logits, &self.parent.logits];
        logits.into_iter().find(is_it).map(PairNaming::Evidence)
    }

    /// Why it cannot be, if it cannot.
    pub(crate) fn contradiction(&self) -> Option<&'static str> {
        let (converted, parent) = (&self.converted.weights.digest, &self.parent.weights.digest);
        (converted.sha256 == parent.sha256).then_some("it compares weights with themselves")
    }
}
