//! Structured logs: one JSON object on each line, with no inputs of clients and no secrets.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Where the server writes what happens to it.
#[derive(Clone)]
pub struct Log(Arc<Mutex<Box<dyn Write + Send>>>);

impl Log {
    /// A log that is written to `sink`, line by line.
    pub fn new(sink: impl Write + Send + 'static) -> Log {
        Log(Arc::new(Mutex::new(Box::new(sink))))
    }

    /// Writes an event: its time, its name and its fields, which have to be an object. What cannot
    /// be written is lost, and the server goes on.
    pub fn write(&self, event: &str, fields: Value) {
        let mut line = Map::new();
        let now = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
        line.insert("time".into(), now.into());
        line.insert("event".into(), event.into());
        if let Value::Object(fields) = fields {
            line.extend(fields);
        }
        let mut text = Value::Object(line).to_string();
        text.push('\n');
        let mut sink = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = sink.write_all(text.as_bytes()).and_then(|()| sink.flush());
    }
}
