//! Curves and traces for the tools people already use: TensorBoard, MLflow, OpenTelemetry.
//!
//! Nothing here knows what is trained: there are numbers by name and step ([`Scalar`]), texts, files and spans of time.
//!
//! TensorBoard reads a file, which is written as the run goes ([`tensorboard`]). The others are servers, and a server may be
//! slow or gone. So they are told by a [`courier`]: a thread that follows a log on the disk and sends what is new in it. The
//! log is the queue: it holds everything, in no one's memory, and what was not sent is sent later.

#![forbid(unsafe_code)]

pub mod courier;
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
