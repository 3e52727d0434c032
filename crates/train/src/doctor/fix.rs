//! A fix as keys of a recipe, so that what is offered and what is tried are the same; and what
//! trying it showed.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::statements::{LearningStatement, Without};
use crate::change::Change;

/// What trying a fix on a copy of the run showed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Trial {
    /// The copy learns.
    Worked {
        /// Steps that the copy made.
        steps: u64,
        /// Mean loss of training samples after them.
        loss: f64,
        /// That of the constant predictor.
        constant: f64,
    },
    /// Every step of the copy was finite, and they were too few to say whether it learns.
    Finite {
        /// Steps that the copy made.
        steps: u64,
        /// Mean loss of training samples after them.
        loss: f64,
        /// That of the constant predictor.
        constant: f64,
        /// What the run without the fix came to.
        without: Without,
    },
    /// It was not tried.
    NotTried {
        /// Why.
        reason: String,
    },
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Trial::Worked { steps, loss, constant } => {
                LearningStatement::FixWorked { steps, loss, constant }.fmt(f)
            }
            Trial::Finite { steps, loss, constant, without } => {
                LearningStatement::FixFinite { steps, loss, constant, without }.fmt(f)
            }
            Trial::NotTried { ref reason } => write!(f, "not tried: {reason}"),
        }
    }
}

/// Something that would help.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fix {
    /// What to do, in words.
    pub text: String,
    /// The same as keys of the recipe; none where it is no matter of the recipe.
    pub changes: Vec<Change>,
    /// Slots that begin anew with what a run without given weights would begin with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub anew: Vec<String>,
    /// What came of trying it.
    pub trial: Trial,
}

/// Why a fix of a single diagnosis is not tried.
const IN_A_RUN: &str = "`halfstep doctor` tries fixes on a copy of the run";

impl Fix {
    /// Keys to change, in which order they are printed, and what that does.
    pub(crate) fn of(changes: Vec<Change>, why: &str) -> Fix {
        let settings: Vec<String> = changes.iter().map(Change::to_string).collect();
        let text = format!("{}: {why}", settings.join(", "));
        Fix { text, changes, anew: Vec::new(), trial: Trial::NotTried { reason: IN_A_RUN.into() } }
    }

    /// Advice that no key of a recipe carries out.
    pub(crate) fn advice(text: String) -> Fix {
        let reason = "it is no matter of the recipe".into();
        Fix { text, changes: Vec::new(), anew: Vec::new(), trial: Trial::NotTried { reason } }
    }

    /// Weights to begin anew in a run that was given its weights.
    pub(crate) fn anew(slots: Vec<String>) -> Fix {
        let names: Vec<String> = slots.iter().map(|s| format!("`{s}`")).collect();
        let text = format!(
            "begin with other values of {}, such as those of a run without given weights",
            names.join(" and ")
        );
        let trial = Trial::NotTried { reason: IN_A_RUN.into() };
        Fix { text, changes: Vec::new(), anew: slots, trial }
    }

    /// Whether there is something that a copy of the run can be given.
    pub(crate) fn can_be_tried(&self) -> bool {
        !self.changes.is_empty() || !self.anew.is_empty()
    }
}

impl fmt::Display for Fix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.text, self.trial)
    }
}
