//! What a comparison came to, and the digests of all that it judged: a predicate of our own.
//!
//! Its subjects are the weights and logits of every run. So a program that knows nothing of this
//! predicate can still look an artifact up by its digest.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::Digest;
use crate::subject::Subject;

/// The predicate's type.
pub const PREDICATE: &str = "https://example.org/halfstep/verdict/v1";

/// A conclusion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Conclusion {
    /// Every metric that has a margin lies within it.
    Pass,
    /// One lies beyond it.
    Fail,
    /// Neither is shown.
    Inconclusive,
}

impl Conclusion {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Conclusion::Pass => "pass",
            Conclusion::Fail => "fail",
            Conclusion::Inconclusive => "inconclusive",
        }
    }
}

/// What a comparison came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// Name of the comparison.
    pub name: String,
    /// When this statement was made, by the signer's own clock.
    pub made: String,
    /// Version of the program.
    pub version: String,
    /// What was compared: one model, or the arms of an ablation.
    pub arms: Vec<Arm>,
}

/// A model that was trained in several precisions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arm {
    /// Its name.
    pub name: String,
    /// The model and the data in words.
    pub model: String,
    /// As above.
    pub data: String,
    /// SHA-256 of the data.
    pub data_sha256: String,
    /// What computed: engine, and the processor's or GPU's name.
    pub engine: String,
    /// As above.
    pub processor: String,
    /// Test targets whose logits were judged.
    pub samples: u64,
    /// Every seed that was stated.
    pub seeds: Vec<u64>,
    /// The precision that the others are measured against.
    pub reference: String,
    /// The files that say what was run: the recipe, the plan of precision and memory, and the
    /// preprocessing.
    pub files: Vec<Subject>,
    /// What was judged of each precision but the reference.
    pub candidates: Vec<Candidate>,
    /// Every run, with its weights and logits.
    pub runs: Vec<Run>,
}

/// A precision against the reference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Candidate {
    /// Its name.
    pub policy: String,
    /// What follows.
    pub verdict: Conclusion,
    /// Pairs of seeds that it rests on.
    pub pairs: u64,
    /// What was stated beforehand: the claim, the margins, looks and what else; none where no pair
    /// was judged.
    pub protocol: Value,
    /// Each metric that has a margin: what it came to.
    pub metrics: Vec<Value>,
}

/// A run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Its precision.
    pub policy: String,
    /// Its seed.
    pub seed: u64,
    /// Its weights; none where it diverged.
    pub weights: Option<Subject>,
    /// The logits that were judged; none where it diverged.
    pub logits: Option<Subject>,
}

/// What a verdict says of a file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Naming<'a> {
    /// These are the weights of a run in a precision that was judged.
    Judged(&'a Arm, &'a Run, &'a Candidate),
    /// These are the weights of a run of the reference, which is what others were measured against.
    Reference(&'a Arm, &'a Run),
    /// This is another file of the comparison, such as logits or the recipe.
    Evidence(&'a Arm, &'a Subject),
}

impl Verdict {
    /// Every file that it names: the subjects of its statement.
    pub fn subject(&self) -> Vec<Subject> {
        let of_run = |run: &Run| [run.weights.clone(), run.logits.clone()].into_iter().flatten();
        self.arms
            .iter()
            .flat_map(|arm| arm.files.iter().cloned().chain(arm.runs.iter().flat_map(of_run)))
            .collect()
    }

    /// What it says of the file that has this digest; none where it was not judged, and needs a
    /// verdict of its own.
    pub fn naming(&self, digest: Digest) -> Option<Naming<'_>> {
        let is_it = |subject: &&Subject| subject.digest.sha256 == digest;
        for arm in &self.arms {
            for run in &arm.runs {
                if run.weights.as_ref().filter(is_it).is_none() {
                    continue;
                }
                let candidate = arm.candidates.iter().find(|c| c.policy == run.policy);
                return Some(match candidate {
                    Some(candidate) => Naming::Judged(arm, run, candidate),
                    None => Naming::Reference(arm, run),
                });
            }
            let logits = arm.runs.iter().filter_map(|run| run.logits.as_ref());
            if let Some(subject) = arm.files.iter().chain(logits).find(is_it) {
                return Some(Naming::Evidence(arm, subject));
            }
        }
        None
    }
}
