//! Times as registries record them: whole seconds in UTC, whose texts are in the order of time.

use std::time::Duration;

use halfstep_attest::DateTime;
use serde::{Deserialize, Deserializer, Serializer};

/// A time so much earlier, or the first that there is.
pub(crate) fn before(time: DateTime, by: Duration) -> DateTime {
    let since = time.unix_duration().saturating_sub(by);
    DateTime::from_unix_duration(since).unwrap_or(time)
}

/// Writes a time as its text.
pub(crate) fn serialize<S: Serializer>(time: &DateTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

/// Reads a time as it is written.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DateTime, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| serde::de::Error::custom(format!("`{text}` is no time in UTC")))
}
