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

/// Whether a number above 0 is one in f32 too, in which steps are computed: 1e39 would be infinite,
/// and 1e-50 zero.
pub(crate) fn positive_in_f32(x: f64) -> bool {
    (x as f32) > 0.0 && (x as f32).is_finite()
}
