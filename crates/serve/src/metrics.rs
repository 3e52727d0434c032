//! Counters of the server, as [OpenMetrics](https://prometheus.io/docs/specs/om/open_metrics_spec/)
//! text. Labels are of few values: no names of clients' and no inputs are among them.

use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// The media type of [`Metrics::text`].
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AnswerLabels {
    route: String,
    /// The status of HTTP, or the code of gRPC by its number.
    code: String,
    /// The digest of the version that answered; empty where none did.
    version: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RouteLabels {
    route: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabels {
    reason: String,
}

/// Which of the loaded versions it is.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
pub enum Role {
    /// The one that answers.
    Current,
    /// The one before it.
    Before,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct VersionLabels {
    version: String,
    role: Role,
}

/// A loaded version.
pub struct Loaded {
    /// Its digest.
    pub version: String,
    /// Which it is.
    pub role: Role,
    /// Bytes of memory that it holds.
    pub memory: u64,
}

/// An answer, as it is counted.
pub struct Answered<'a> {
    /// The route, without names of clients'.
    pub route: &'a str,
    /// The status of HTTP, or the code of gRPC.
    pub code: String,
    /// The digest of the version that answered.
    pub version: &'a str,
    /// From the request's header to the answer's.
    pub time: Duration,
}

type Latencies = Family<RouteLabels, Histogram, fn() -> Histogram>;

/// The counters of a server.
pub struct Metrics {
    registry: Registry,
    answers: Family<AnswerLabels, Counter>,
    latencies: Latencies,
    samples: Counter,
    failed_batches: Counter,
    batch_sizes: Histogram,
    queue_times: Histogram,
    compute_times: Histogram,
    queue: Gauge,
    memory: Family<VersionLabels, Gauge>,
    moves: Counter,
    refusals: Family<ReasonLabels, Counter>,
    resident: Gauge,
}

/// From 100 µs to 52 s, each twice the one before: the limit of a request is 10 s if nothing else
/// is said.
fn times() -> Histogram {
    Histogram::new(exponential_buckets(1e-4, 2.0, 20))
}

impl Default for Metrics {
    fn default() -> Metrics {
        let mut metrics = Metrics {
            registry: Registry::with_prefix("halfstep"),
            answers: Family::default(),
            latencies: Latencies::new_with_constructor(times),
            samples: Counter::default(),
            failed_batches: Counter::default(),
            batch_sizes: Histogram::new(exponential_buckets(1.0, 2.0, 13)),
            queue_times: times(),
            compute_times: times(),
            queue: Gauge::default(),
            memory: Family::default(),
            moves: Counter::default(),
            refusals: Family::default(),
            resident: Gauge::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let (registry, seconds) = (&mut self.registry, || Unit::Seconds);
        let bytes = || Unit::Bytes;
        registry.register(
            "requests",
            "Requests that were answered, by route, code and the version that answered",
            self.answers.clone(),
        );
        registry.register_with_unit(
            "request_duration",
            "From a request's header to the header of its answer",
            seconds(),
            self.latencies.clone(),
        );
        registry.register("samples", "Samples that were computed", self.samples.clone());
        registry.register("failed_batches", "Batches that the model failed at", self.failed_batches.clone());
        registry.register("batch_size", "Samples that were computed together", self.batch_sizes.clone());
        registry.register_with_unit(
            "queue_duration",
            "Waiting of a request for the model",
            seconds(),
            self.queue_times.clone(),
        );
        registry.register_with_unit(
            "compute_duration",
            "Computing of a batch",
            seconds(),
            self.compute_times.clone(),
        );
        registry.register("queue_length", "Requests that wait for the model", self.queue.clone());
        registry.register_with_unit(
            "model_memory",
            "Memory of each version that is loaded",
            bytes(),
            self.memory.clone(),
        );
        registry.register("moves", "Moves to another version that were seen", self.moves.clone());
        registry.register(
            "refusals",
            "Moves and versions that were refused, and failures to read which version is current",
            self.refusals.clone(),
        );
        registry.register_with_unit(
            "resident_memory",
            "Resident memory of the process; 0 where the system does not say it",
            bytes(),
            self.resident.clone(),
        );
    }

    /// An answer was given.
    pub fn answered(&self, answer: Answered) {
        let Answered { route, code, version, time } = answer;
        let (route, version) = (route.to_string(), version.to_string());
        self.latencies.get_or_create(&RouteLabels { route: route.clone() }).observe(time.as_secs_f64());
        self.answers.get_or_create(&AnswerLabels { route, code, version }).inc();
    }

    /// A request waited for the model, and is computed now.
    pub fn queued(&self, time: Duration) {
        self.queue_times.observe(time.as_secs_f64());
    }

    /// A batch was computed.
    pub fn computed(&self, samples: usize, time: Duration, whole: bool) {
        if whole {
            self.samples.inc_by(samples as u64);
        } else {
            self.failed_batches.inc();
        }
        self.batch_sizes.observe(samples as f64);
        self.compute_times.observe(time.as_secs_f64());
    }

    /// These versions are loaded, and no others.
    pub fn loaded(&self, versions: &[Loaded]) {
        self.memory.clear();
        for Loaded { version, role, memory } in versions {
            let labels = VersionLabels { version: version.clone(), role: *role };
            self.memory.get_or_create(&labels).set(i64::try_from(*memory).unwrap_or(i64::MAX));
        }
    }

    /// The current version was moved.
    pub fn moved(&self) {
        self.moves.inc();
    }

    /// A move or a version was refused, or it could not be read which one is current.
    pub fn refused(&self, reason: &str) {
        self.refusals.get_or_create(&ReasonLabels { reason: reason.into() }).inc();
    }

    /// All counters, with so many requests in the queue now.
    pub fn text(&self, queue: usize) -> String {
        self.queue.set(i64::try_from(queue).unwrap_or(i64::MAX));
        self.resident.set(resident().unwrap_or(0));
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// Resident memory of this process, in bytes. Linux alone says it in a file.
fn resident() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}
