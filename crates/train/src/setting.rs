//! Settings out of range.

/// A number in a recipe that makes no sense.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("`{field}` is {found}; expected {expected}")]
pub struct SettingError {
    /// The key.
    pub field: &'static str,
    /// What was given.
    pub found: String,
    /// What would do.
    pub expected: &'static str,
}

/// An error unless `good`.
pub(crate) fn require(
    good: bool,
    field: &'static str,
    found: impl ToString,
    expected: &'static str,
) -> Result<(), SettingError> {
    if good { Ok(()) } else { Err(SettingError { field, found: found.to_string(), expected }) }
}
