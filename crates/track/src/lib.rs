//! Curves and traces for the tools people already use: TensorBoard, MLflow, OpenTelemetry.
//!
//! This crate is independent of training: it handles numbers by name and step ([`Scalar`]), texts,
//! files and spans of time.
//!
//! TensorBoard reads a file that is written during the run ([`tensorboard`]). MLflow and
//! OpenTelemetry are servers, which may be slow or unreachable. So an [`exporter`] sends to them: a
//! thread that reads new lines of a log file. The log is the queue: nothing waits in memory, and
//! what was not sent can be sent later.

#![forbid(unsafe_code)]

pub mod exporter;
#[cfg(any(feature = "mlflow", feature = "otel"))]
mod http;
#[cfg(feature = "mlflow")]
pub mod mlflow;
#[cfg(feature = "otel")]
pub mod otlp;
pub mod span;
pub mod tensorboard;

/// A number that was measured at a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Scalar {
    /// Its name, such as `loss/train`.
    pub name: &'static str,
    /// The step, counted from 0.
    pub step: u64,
    /// When, in seconds since 1970 (UTC).
    pub time: f64,
    /// Its value; it need not be finite.
    pub value: f64,
}

/// Seconds since 1970 (UTC), by the clock of the machine.
pub fn now() -> f64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0.0, |time| time.as_secs_f64())
}
