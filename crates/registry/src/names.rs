//! Names of models and aliases, and how a version is referred to.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Most characters of a name.
const LONGEST: usize = 64;
/// Fewest digits of a version's digest that stand for it.
const SHORTEST_PREFIX: usize = 4;

/// Why a text is no name or reference.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// It has other characters, too many, or none.
    #[error(
        "`{0}` is no name of {1}: take 1 to {LONGEST} letters, digits, `.`, `_` and `-`, of which the first is a letter or digit"
    )]
    Characters(String, &'static str),
    /// It could be part of a digest.
    #[error(
        "`{0}` is no alias, because it reads as the beginning of a digest: take a name with another letter than a to f"
    )]
    ReadsAsDigest(String),
    /// There is no `@`.
    #[error(
        "`{0}` names no version: write MODEL@ALIAS, or MODEL@ and at least {SHORTEST_PREFIX} digits of its SHA-256"
    )]
    NoReference(String),
}

fn checked(text: &str, what: &'static str) -> Result<String, NameError> {
    let inner = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let first = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    if first && text.len() <= LONGEST && text.chars().all(inner) {
        return Ok(text.to_string());
    }
    let shown: String = text.chars().take(LONGEST + 1).collect();
    Err(NameError::Characters(shown, what))
}

fn is_hexadecimal(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// The name of a model in a registry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RegisteredName(String);

/// The name of an alias, which does not read as a digest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Alias(String);

impl RegisteredName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Alias {
    /// The version that was added last and waits to be promoted.
    pub fn candidate() -> Alias {
        Alias("candidate".into())
    }

    /// The version that is used.
    pub fn champion() -> Alias {
        Alias("champion".into())
    }

    /// The version that was used before the last promotion.
    pub fn last_good() -> Alias {
        Alias("last-good".into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for RegisteredName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<RegisteredName, NameError> {
        checked(text, "a model").map(RegisteredName)
    }
}

impl std::str::FromStr for Alias {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Alias, NameError> {
        let text = checked(text, "an alias")?;
        if is_hexadecimal(&text) { Err(NameError::ReadsAsDigest(text)) } else { Ok(Alias(text)) }
    }
}

macro_rules! texts {
    ($($name:ident),*) => {$(
        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<$name, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

texts!(RegisteredName, Alias);

/// What chooses a version of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// Where an alias points.
    Alias(Alias),
    /// The beginning of its digest, in hexadecimal digits.
    Prefix(String),
}

/// A version as people name it: `MODEL@ALIAS` or `MODEL@DIGITS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The model.
    pub model: RegisteredName,
    /// Which of its versions.
    pub selector: Selector,
}

impl std::str::FromStr for Reference {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Reference, NameError> {
        let (model, rest) = text.split_once('@').ok_or_else(|| NameError::NoReference(text.into()))?;
        let model = model.parse()?;
        let selector = match is_hexadecimal(rest) {
            true if (SHORTEST_PREFIX..=64).contains(&rest.len()) => Selector::Prefix(rest.into()),
            true => return Err(NameError::NoReference(text.into())),
            false => Selector::Alias(rest.parse()?),
        };
        Ok(Reference { model, selector })
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.selector {
            Selector::Alias(alias) => write!(f, "{}@{alias}", self.model),
            Selector::Prefix(prefix) => write!(f, "{}@{prefix}", self.model),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_leave_no_folder_and_are_no_digests() {
        for name in ["a", "fashion-cnn", "resnet18.v2", "3d_model", &"x".repeat(LONGEST)] {
            assert_eq!(name.parse::<RegisteredName>().unwrap().as_str(), name);
        }
        for name in ["", ".", "..", "../x", "a/b", "a\\b", ".hidden", "-x", "a b", "a\n", "ä", "a@b", "C:"] {
            assert!(name.parse::<RegisteredName>().is_err(), "{name}");
            assert!(name.parse::<Alias>().is_err(), "{name}");
        }
        assert!("x".repeat(LONGEST + 1).parse::<RegisteredName>().is_err());
        for alias in ["beef", "0123", "a"] {
            assert_eq!(alias.parse::<Alias>(), Err(NameError::ReadsAsDigest(alias.into())));
        }
    }

    #[test]
    fn a_reference_is_an_alias_or_a_digest() {
        let of = |text: &str| text.parse::<Reference>();
        assert_eq!(of("m@last-good").unwrap().selector, Selector::Alias(Alias::last_good()));
        assert_eq!(of("m@00ff").unwrap().selector, Selector::Prefix("00ff".into()));
        assert_eq!(of("m@00FF1").unwrap().selector, Selector::Alias("00FF1".parse().unwrap()));
        for wrong in ["m", "m@", "m@00f", "@champion", "m@a@b", &format!("m@{}", "0".repeat(65))] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
