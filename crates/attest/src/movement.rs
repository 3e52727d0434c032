//! Moves of an alias to a version: a predicate of our own, and the check that a move is the next.
//!
//! A signature of a version says who made it, and a version of last year verifies as well as that
//! of today. Which of them is the current one is said by moves: each has a number, higher than all
//! before it, and names the move before it. Whoever keeps the highest that they saw can be shown
//! no earlier one again.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::digest::Digest;
use crate::subject::Subject;

/// The predicate's type.
pub const PREDICATE: &str = "https://example.org/halfstep/move/v1";

/// A move of an alias.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Move {
    /// The registry's identity, drawn when it was made.
    pub registry: String,
    /// The model's name in it.
    pub model: String,
    /// The alias.
    pub alias: String,
    /// The move's number in the registry, from 1.
    pub number: u64,
    /// SHA-256 of the registry's own record of the move.
    pub record: Digest,
    /// The move of this alias before it; none of its first.
    pub previous: Option<MoveLink>,
    /// The version that the alias leaves, if it had one.
    pub from: Option<Digest>,
    /// The version that it moves to: the digest over its files.
    pub to: Digest,
    /// When, by the signer's own clock.
    pub when: String,
    /// By whom, and who says so.
    pub who: String,
    /// Why, where a reason was given.
    pub reason: Option<String>,
}

/// A move by its number and record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoveLink {
    /// Its number.
    pub number: u64,
    /// SHA-256 of the registry's own record of it.
    pub record: Digest,
}

impl std::fmt::Display for MoveLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.number, self.record)
    }
}

/// What somebody who reads moves knows beforehand.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The registry whose moves they follow.
    pub registry: &'a str,
    /// The model.
    pub model: &'a str,
    /// The alias.
    pub alias: &'a str,
    /// The latest move of the alias that they accepted; none where this is their first, which
    /// nothing shows to be the latest.
    pub latest: Option<MoveLink>,
}

/// Why a signed move is not the next.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MoveRefusal {
    /// It is of another registry, model or alias.
    #[error("this is a move of the {what} `{is}`, and not of `{expected}`")]
    Elsewhere {
        /// `registry`, `model` or `alias`.
        what: &'static str,
        /// What the move names.
        is: String,
        /// What was expected.
        expected: String,
    },
    /// It was seen before, or is older than what was.
    #[error("this is move {is}, and move {latest} was accepted before: an old move is presented again")]
    Old {
        /// Its number.
        is: u64,
        /// The highest number that was accepted.
        latest: u64,
    },
    /// It does not continue the history that was seen.
    #[error(
        "this move names {} as the move before it, and the one that was accepted last is {latest}: the history is another, or moves between them are left out",
        .is.map_or_else(|| "none".to_string(), |link| link.to_string())
    )]
    Unlinked {
        /// The move that it names.
        is: Option<MoveLink>,
        /// The one that was accepted last.
        latest: MoveLink,
    },
    /// It moves to another version than the one at hand.
    #[error("this move is to version {is}, and the version at hand is {version}")]
    OtherVersion {
        /// Where it moves to.
        is: Digest,
        /// The version at hand.
        version: Digest,
    },
}

impl Move {
    /// What it is about: the version that the alias moves to.
    pub fn subject(&self) -> Subject {
        Subject::new(&self.model, self.to)
    }

    /// The move by its number and record.
    pub fn link(&self) -> MoveLink {
        MoveLink { number: self.number, record: self.record }
    }

    /// Checks that this is the next move of an alias, to `version`. Returns what is from then on
    /// the latest. Of several moves since the latest, each is checked in its turn; the signature is
    /// verified by [`Trust::verify`](crate::trust::Trust::verify) before.
    ///
    /// # Errors
    /// It is of another registry, model or alias; its number is not above the latest; it does not
    /// name the latest as the move before it; or it is to another version.
    pub fn follows(&self, known: Known<'_>, version: Digest) -> Result<MoveLink, MoveRefusal> {
        let places = [
            ("registry", &self.registry, known.registry),
            ("model", &self.model, known.model),
            ("alias", &self.alias, known.alias),
        ];
        if let Some((what, is, expected)) = places.into_iter().find(|(_, is, expected)| is != expected) {
            return Err(MoveRefusal::Elsewhere { what, is: is.clone(), expected: expected.into() });
        }
        if let Some(latest) = known.latest {
            if self.number <= latest.number {
                return Err(MoveRefusal::Old { is: self.number, latest: latest.number });
            }
            if self.previous != Some(latest) {
                return Err(MoveRefusal::Unlinked { is: self.previous, latest });
            }
        }
        if self.to != version {
            return Err(MoveRefusal::OtherVersion { is: self.to, version });
        }
        Ok(self.link())
    }

    /// Why it cannot be, if it cannot.
    pub(crate) fn contradiction(&self) -> Option<&'static str> {
        match self.previous {
            _ if self.number == 0 => Some("moves are numbered from 1"),
            Some(previous) if previous.number >= self.number => {
                Some("the move before it has no lower number")
            }
            None if self.from.is_some() => Some("it leaves a version without a move before it"),
            _ => None,
        }
    }
}
