//! In-toto statements, version 1: what a signature says of which files
//! (<https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md>).

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::bundle::Bundle;
use crate::model::{self, Manifest};
use crate::movement::{self, Move};
use crate::pair::{self, PairVerdict};
use crate::subject::Subject;
use crate::verdict::{self, Verdict};

const TYPE: &str = "https://in-toto.io/Statement/v1";
/// The form that model-signing 0.2 wrote, before there was a specification.
const BEFORE_ONE: &str = "https://model_signing/Digests/v0.1";

/// Why a payload is no statement that is known here.
#[derive(Debug, Error)]
pub enum StatementError {
    /// It is not of the form.
    #[error("what is signed is no in-toto statement: {0}")]
    Malformed(String),
    /// It says something that this program does not know.
    #[error("what is signed is a statement of another kind, `{0}`")]
    Unknown(String),
    /// It is of the form that was given up before version 1.0.
    #[error(
        "what is signed is in the form of model-signing 0.2, which lists no way of hashing: sign it again"
    )]
    BeforeOne,
}

/// What a statement says.
#[derive(Clone, Debug, PartialEq)]
pub enum Predicate {
    /// These are the files of a model.
    Model(Manifest),
    /// This is what a comparison came to.
    Verdict(Box<Verdict>),
    /// This is what two models came to that were compared with each other.
    Pair(Box<PairVerdict>),
    /// This alias moved to this version.
    Move(Box<Move>),
}

/// A statement.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    /// What it is about: a folder or version by the digest over its files, or every file that was
    /// judged.
    pub subject: Vec<Subject>,
    /// What it says of them.
    pub predicate: Predicate,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Fields {
    #[serde(rename = "_type")]
    form: String,
    subject: Vec<Subject>,
    predicate_type: String,
    predicate: Value,
}

impl Statement {
    /// Reads a statement.
    ///
    /// # Errors
    /// It is not of the form, or contradicts itself, or is of a kind that is not known.
    pub fn parse(payload: &[u8]) -> Result<Statement, StatementError> {
        let malformed = |reason: String| StatementError::Malformed(reason);
        let value: Value = serde_json::from_slice(payload).map_err(|e| malformed(e.to_string()))?;
        if value["predicateType"] == BEFORE_ONE {
            return Err(StatementError::BeforeOne);
        }
        let fields: Fields = serde_json::from_slice(payload).map_err(|e| malformed(e.to_string()))?;
        if fields.form != TYPE {
            return Err(malformed(format!("its type is `{}`", fields.form)));
        }
        let Fields { subject, predicate, .. } = fields;
        let predicate = match fields.predicate_type.as_str() {
            model::PREDICATE => {
                let manifest: Manifest = typed(predicate)?;
                match subject.as_slice() {
                    [model] if model.digest.sha256 == manifest.root() => Predicate::Model(manifest),
                    [_] => {
                        return Err(malformed("the digest of the model is not that of its files".into()));
                    }
                    _ => return Err(malformed("it is about several models, or none".into())),
                }
            }
            verdict::PREDICATE => {
                let verdict: Verdict = typed(predicate)?;
                about(&subject, &verdict.subject(), None)?;
                Predicate::Verdict(Box::new(verdict))
            }
            pair::PREDICATE => {
                let pair: PairVerdict = typed(predicate)?;
                about(&subject, &pair.subject(), pair.contradiction())?;
                Predicate::Pair(Box::new(pair))
            }
            movement::PREDICATE => {
                let moved: Move = typed(predicate)?;
                about(&subject, &[moved.subject()], moved.contradiction())?;
                Predicate::Move(Box::new(moved))
            }
            other => return Err(StatementError::Unknown(other.into())),
        };
        Ok(Statement { subject, predicate })
    }

    /// What a bundle says, whose signature is not checked; none where that is nothing known.
    pub fn unverified(bundle: &[u8]) -> Option<Statement> {
        Statement::parse(Bundle::parse(bundle).ok()?.payload()).ok()
    }

    /// A statement of a folder's files under a name.
    pub fn of_model(name: &str, manifest: Manifest) -> Statement {
        let subject = vec![Subject::new(name, manifest.root())];
        Statement { subject, predicate: Predicate::Model(manifest) }
    }

    /// A statement of what a comparison came to.
    pub fn of_verdict(verdict: Verdict) -> Statement {
        Statement { subject: verdict.subject(), predicate: Predicate::Verdict(Box::new(verdict)) }
    }

    /// A statement of what two models came to.
    pub fn of_pair(pair: PairVerdict) -> Statement {
        Statement { subject: pair.subject(), predicate: Predicate::Pair(Box::new(pair)) }
    }

    /// A statement of a move.
    pub fn of_move(moved: Move) -> Statement {
        Statement { subject: vec![moved.subject()], predicate: Predicate::Move(Box::new(moved)) }
    }

    /// The bytes that are signed.
    pub fn to_json(&self) -> String {
        let (predicate_type, predicate) = match &self.predicate {
            Predicate::Model(manifest) => (model::PREDICATE, serde_json::to_value(manifest)),
            Predicate::Verdict(verdict) => (verdict::PREDICATE, serde_json::to_value(verdict)),
            Predicate::Pair(pair) => (pair::PREDICATE, serde_json::to_value(pair)),
            Predicate::Move(moved) => (movement::PREDICATE, serde_json::to_value(moved)),
        };
        let fields = Fields {
            form: TYPE.into(),
            subject: self.subject.clone(),
            predicate_type: predicate_type.into(),
            predicate: predicate.expect("names of fields are texts"),
        };
        serde_json::to_string(&fields).expect("names of fields are texts")
    }
}

fn typed<T: DeserializeOwned>(predicate: Value) -> Result<T, StatementError> {
    serde_json::from_value(predicate).map_err(|e| StatementError::Malformed(e.to_string()))
}

/// Refuses a statement that is about other files than its predicate, or that contradicts itself.
fn about(is: &[Subject], expected: &[Subject], contradiction: Option<&str>) -> Result<(), StatementError> {
    let other = (is != expected).then_some("its subjects are not the files that its predicate names");
    match other.or(contradiction) {
        Some(why) => Err(StatementError::Malformed(why.into())),
        None => Ok(()),
    }
}
