//! One key of a recipe that is to be changed: what lint and the doctor advise.

use std::fmt;

use serde::{Deserialize, Serialize};
use toml::Value;

use crate::recipe::{Recipe, RecipeError};

/// One key of a recipe, and what to write there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The section, such as `optimiser` or `precision.fp8`.
    pub section: String,
    /// The key.
    pub key: String,
    /// Its value as TOML; none leaves the key out.
    pub value: Option<String>,
}

impl Change {
    /// Writes `value`, which is TOML.
    pub(crate) fn set(section: &str, key: &str, value: impl Into<String>) -> Change {
        Change { section: section.into(), key: key.into(), value: Some(value.into()) }
    }

    /// Leaves the key out.
    pub(crate) fn without(section: &str, key: &str) -> Change {
        Change { section: section.into(), key: key.into(), value: None }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Change { section, key, value } = self;
        match value {
            Some(value) => write!(f, "`{key} = {value}` in [{section}]"),
            None => write!(f, "no `{key}` in [{section}]"),
        }
    }
}

/// A number as TOML has it: a float is not written as a whole number.
pub(crate) fn toml_number(x: f64) -> String {
    let whole = x.fract() == 0.0 && x.abs() < 1e15;
    if whole || (1e-3..1e6).contains(&x.abs()) { format!("{x:?}") } else { format!("{x:e}") }
}

/// The recipe with these keys changed.
///
/// # Errors
/// The changed recipe is not valid.
pub fn changed(recipe: &Recipe, changes: &[Change]) -> Result<Recipe, RecipeError> {
    let unreadable = |e: &dyn fmt::Display| RecipeError::new(format!("the recipe cannot be changed: {e}"));
    let mut table: toml::Table = recipe.resolved()?.parse().map_err(|e| unreadable(&e))?;
    for Change { section, key, value } in changes {
        let mut at = &mut table;
        for name in section.split('.') {
            let inner = at.entry(name).or_insert_with(|| Value::Table(toml::Table::new()));
            at = inner.as_table_mut().ok_or_else(|| unreadable(&format!("`{name}` is not a section")))?;
        }
        match value {
            None => {
                at.remove(key);
            }
            Some(value) => {
                let parsed: toml::Table = format!("value = {value}").parse().map_err(|e| unreadable(&e))?;
                at.extend(parsed.into_iter().map(|(_, value)| (key.clone(), value)));
            }
        }
    }
    let text = toml::to_string(&table).map_err(|e| unreadable(&e))?;
    Recipe::parse("the changed recipe", &text, &recipe.base)
}
