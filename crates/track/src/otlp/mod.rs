//! Spans as OpenTelemetry traces, over OTLP/HTTP with protocol buffers.

pub mod proto;

use prost::Message;
use serde_json::Value;
use ureq::http::Method;

use crate::exporter::{Ending, Refusal, Service};
use crate::http::Server;
use crate::span::{Attribute, Span};
use proto::{
    Any, AnyValue, ERROR, ExportTraceServiceRequest, INTERNAL, InstrumentationScope, KeyValue, Resource,
    ResourceSpans, ScopeSpans, Status,
};

/// A collector, which takes lines that are [`Span`]s.
pub struct Otlp {
    server: Server,
    name: String,
    pending: Vec<proto::Span>,
}

impl Otlp {
    /// The collector at `url`, to which `/v1/traces` is added. `headers` is as in
    /// `OTEL_EXPORTER_OTLP_HEADERS`: `name=value,name=value`. `name` is what the program is called
    /// there.
    pub fn new(url: &str, headers: &str, name: &str) -> Otlp {
        let pair = |pair: &str| pair.split_once('=').map(|(k, v)| (k.trim().into(), v.trim().into()));
        let headers = headers.split(',').filter_map(pair).collect();
        Otlp { server: Server::new(url, headers), name: name.to_string(), pending: Vec::new() }
    }
}

impl Service for Otlp {
    fn open(&mut self) -> Result<(), Refusal> {
        Ok(())
    }

    fn read(&mut self, line: &str, arrived: bool) {
        if let (false, Ok(span)) = (arrived, serde_json::from_str::<Span>(line)) {
            self.pending.push(message(&span));
        }
    }

    fn send(&mut self) -> Result<(), Refusal> {
        let version = env!("CARGO_PKG_VERSION").to_string();
        let scope = InstrumentationScope { name: "halfstep".into(), version };
        let spans = ScopeSpans { scope: Some(scope), spans: self.pending.clone() };
        let attributes = vec![attribute("service.name", &Attribute::Text(self.name.clone()))];
        let of_program = ResourceSpans { resource: Some(Resource { attributes }), scope_spans: vec![spans] };
        let request = ExportTraceServiceRequest { resource_spans: vec![of_program] };
        let kind = "application/x-protobuf";
        self.server.tell(Method::POST, "/v1/traces", kind, &request.encode_to_vec())?;
        self.pending.clear();
        Ok(())
    }

    /// A trace ends with its last span.
    fn close(&mut self, _: Ending, _: f64) -> Result<(), Refusal> {
        Ok(())
    }

    fn memory(&self) -> Value {
        Value::Null
    }
}

fn message(span: &Span) -> proto::Span {
    proto::Span {
        trace_id: bytes(&span.trace),
        span_id: bytes(&span.id),
        parent_span_id: span.parent.as_deref().map(bytes).unwrap_or_default(),
        name: span.name.clone(),
        kind: INTERNAL,
        start_time_unix_nano: nanoseconds(span.begin),
        end_time_unix_nano: nanoseconds(span.end),
        attributes: span.attributes.iter().map(|(key, value)| attribute(key, value)).collect(),
        status: span.error.as_ref().map(|e| Status { message: e.clone(), code: ERROR }),
    }
}

fn attribute(key: &str, value: &Attribute) -> KeyValue {
    let value = match value {
        Attribute::Count(n) => Any::Count(*n),
        Attribute::Number(x) => Any::Number(*x),
        Attribute::Text(text) => Any::Text(text.clone()),
    };
    KeyValue { key: key.to_string(), value: Some(AnyValue { value: Some(value) }) }
}

/// Whole seconds apart: of all nanoseconds since 1970, f64 holds only every 256th.
fn nanoseconds(seconds: f64) -> u64 {
    seconds.trunc() as u64 * 1_000_000_000 + (seconds.fract() * 1e9) as u64
}

/// The bytes of hexadecimal digits; none where they are not.
fn bytes(digits: &str) -> Vec<u8> {
    let byte = |two: &[u8]| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok();
    digits.as_bytes().chunks(2).map(byte).collect::<Option<_>>().unwrap_or_default()
}
