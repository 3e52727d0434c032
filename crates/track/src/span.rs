//! Spans of time: what OpenTelemetry shows of a run. They are kept as lines of JSON.

use serde::{Deserialize, Serialize};

/// Something that had a beginning and an end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Span {
    /// Of the whole run, 16 bytes in hexadecimal.
    pub trace: String,
    /// Its own, 8 bytes in hexadecimal.
    pub id: String,
    /// The span it is part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// What it was.
    pub name: String,
    /// Seconds since 1970.
    pub begin: f64,
    /// Seconds since 1970.
    pub end: f64,
    /// What else is known of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<(String, Attribute)>,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A value of a span's attribute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Attribute {
    /// A whole number.
    Count(i64),
    /// A number.
    Number(f64),
    /// A text.
    Text(String),
}
