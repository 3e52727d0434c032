//! A precision plan in a file of its own: the policy and the exceptions that `halfstep tune` found.

use std::path::Path;

use halfstep_graph::precision::{Override, Policy};
use serde::{Deserialize, Serialize};

use super::{RecipeError, unreadable};

/// The keys of `[precision]` that say what is low and what is not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanFile {
    /// A named policy.
    pub policy: String,
    /// Exceptions to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<Override>,
}

impl PlanFile {
    /// The plan that a policy is.
    pub fn of(policy: &Policy) -> PlanFile {
        PlanFile { policy: policy.name.clone(), overrides: policy.overrides.clone() }
    }

    /// Reads a plan file.
    ///
    /// # Errors
    /// The file cannot be read; text that is not TOML, an unknown key, a policy that does not
    /// exist.
    pub fn read(path: &Path) -> Result<PlanFile, RecipeError> {
        let text = halfstep_data::read_settings(path)
            .map_err(|e| unreadable(path, &e).help("`halfstep tune RECIPE` writes a plan file"))?;
        let wrong = |message: String| RecipeError::new(format!("{}: {message}", path.display()));
        let plan: PlanFile = toml::from_str(&text).map_err(|e| {
            let error = wrong(e.message().to_string()).in_text(&path.display().to_string(), &text);
            match e.span() {
                Some(span) => error.at(span, "here"),
                None => error,
            }
        })?;
        Policy::named(&plan.policy).map_err(|e| wrong(e.to_string()))?;
        Ok(plan)
    }

    /// The plan as TOML, below `comment`, whose lines become comments.
    ///
    /// # Errors
    /// None that a plan can cause.
    pub fn to_toml(&self, comment: &str) -> Result<String, RecipeError> {
        let comment: String = comment.lines().map(|line| format!("# {line}\n")).collect();
        let plan = toml::to_string(self)
            .map_err(|e| RecipeError::new(format!("the plan cannot be written as TOML: {e}")))?;
        Ok(format!("{comment}\n{plan}"))
    }
}
