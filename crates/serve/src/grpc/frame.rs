//! The frames of gRPC around messages, and what a message may be before it is decoded
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).
//!
//! Each call has one message each way, so a body is read whole, within the limits and the memory
//! of the server. Decoding is bounded too: two bytes can name an empty tensor, which takes a
//! hundred when it is decoded, so what there is in a message is counted first.

use std::io::Read;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use flate2::bufread::GzDecoder;
use http_body_util::{BodyExt, Full};
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost::{DecodeError, Message};
use tokio::time::timeout;
use tonic::Status;

use crate::limits::{Budget, Limits, Reservation};

/// A flag and the length of the message.
const HEADER: usize = 5;
/// The most inputs, outputs and parameters.
const MOST_PARTS: usize = 256;
/// The most axes of a tensor.
const MOST_AXES: usize = 32;

/// The message of a request, and the memory that is reserved for it.
pub(super) async fn read(
    headers: &HeaderMap,
    mut body: Body,
    limits: &Limits,
    budget: &Budget,
) -> Result<(Bytes, Reservation), Status> {
    let read = async {
        let mut bytes = BytesMut::new();
        more(&mut body, &mut bytes, HEADER).await?;
        let Some((&[flag, a, b, c, d], _)) = bytes.split_first_chunk::<HEADER>() else {
            return Err(Status::invalid_argument("the request has no message"));
        };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > limits.body {
            return Err(too_long(limits));
        }
        // How long it is without compression is not known before it is decoded.
        let reserved = reserve(budget, if flag == 0 { length } else { limits.body }, limits).await?;
        bytes.reserve(length);
        more(&mut body, &mut bytes, HEADER + length).await?;
        if bytes.len() != HEADER + length || !body_ended(&mut body).await {
            return Err(Status::invalid_argument("the request has to be one message, and whole"));
        }
        Ok((flag, bytes.freeze().slice(HEADER..), reserved))
    };
    let (flag, message, mut reserved) = timeout(limits.body_read, read)
        .await
        .map_err(|_| Status::deadline_exceeded("the message did not come in the time for it"))??;
    let message = match flag {
        0 => message,
        1 => inflate(headers, message, limits).await?,
        _ => return Err(Status::invalid_argument("the flag of a message is 0, or 1 if it is compressed")),
    };
    reserved.shrink(message.len());
    Ok((message, reserved))
}

/// Reserves memory, in the time that a request has.
pub(super) async fn reserve(budget: &Budget, bytes: usize, limits: &Limits) -> Result<Reservation, Status> {
    let busy = "the server holds as many requests as its memory is for; try again later";
    timeout(limits.request, budget.reserve(bytes)).await.map_err(|_| Status::resource_exhausted(busy))
}

fn too_long(limits: &Limits) -> Status {
    Status::resource_exhausted(format!("the message has more than {} bytes, decoded", limits.body))
}

/// Reads on until there are so many bytes, or no more.
async fn more(body: &mut Body, bytes: &mut BytesMut, wanted: usize) -> Result<(), Status> {
    while bytes.len() < wanted {
        let Some(frame) = body.frame().await else { return Ok(()) };
        let frame = frame.map_err(|_| Status::cancelled("the request ended before its end"))?;
        if let Ok(data) = frame.into_data() {
            bytes.extend_from_slice(&data);
        }
    }
    Ok(())
}

async fn body_ended(body: &mut Body) -> bool {
    while let Some(Ok(frame)) = body.frame().await {
        if frame.data_ref().is_some_and(|data| !data.is_empty()) {
            return false;
        }
    }
    true
}

async fn inflate(headers: &HeaderMap, message: Bytes, limits: &Limits) -> Result<Bytes, Status> {
    if headers.get("grpc-encoding").map(HeaderValue::as_bytes) != Some(b"gzip") {
        return Err(Status::unimplemented("messages are compressed by gzip, or not at all"));
    }
    let most = limits.body;
    let decoded = tokio::task::spawn_blocking(move || {
        let mut decoded = Vec::new();
        GzDecoder::new(&message[..]).take(most as u64 + 1).read_to_end(&mut decoded).map(|_| decoded)
    });
    let damaged = || Status::invalid_argument("the message is no gzip, or it is not whole");
    let decoded = decoded.await.map_err(|_| damaged())?.map_err(|_| damaged())?;
    if decoded.len() > most { Err(too_long(limits)) } else { Ok(decoded.into()) }
}

/// Whether a request is a call, whose messages are in the form of protobuf. Of another one the
/// frame is not read: what sends it does not know that answers with an error have the status 200.
pub(super) fn is_call(headers: &HeaderMap) -> bool {
    let form = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let name = form.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    matches!(name.as_str(), "application/grpc" | "application/grpc+proto")
}

/// The time that a client gives the call, by `grpc-timeout`.
pub(super) fn time(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
    let malformed = || Status::invalid_argument("grpc-timeout has to be up to eight digits and a unit");
    let text = value.to_str().map_err(|_| malformed())?;
    let (digits, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(malformed)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(malformed());
    }
    let count: u64 = digits.parse().map_err(|_| malformed())?;
    Ok(Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return Err(malformed()),
    }))
}

/// A message as the answer to a call.
pub(super) fn write(message: &impl Message) -> Response {
    let length = message.encoded_len();
    let Ok(prefix) = u32::try_from(length) else {
        return Status::resource_exhausted("the answer has more than 2^32 bytes").into_http();
    };
    let mut bytes = Vec::with_capacity(HEADER + length);
    bytes.put_u8(0);
    bytes.put_u32(prefix);
    message.encode_raw(&mut bytes);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::from(bytes).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// Bytes that the elements of a `ModelInferRequest` take when it is decoded, besides those that
/// stay where they are.
///
/// # Errors
/// It has too many parts, or is no message.
pub(super) fn measure(message: &Bytes) -> Result<usize, Status> {
    let malformed = |e: DecodeError| Status::invalid_argument(format!("this is no ModelInferRequest: {e}"));
    let mut request = Fields::of(message);
    let mut size = 0usize;
    while let Some((tag, _, value)) = request.next().map_err(malformed)? {
        request.count(tag, MOST_PARTS, &[4, 5, 6, 7])?;
        // The parameters of an input or output, and the contents of an input.
        if tag != 5 && tag != 6 {
            continue;
        }
        let mut tensor = Fields::of(&value);
        while let Some((field, wire, value)) = tensor.next().map_err(malformed)? {
            let parameters = if tag == 5 { 4 } else { 2 };
            tensor.count(field, MOST_PARTS, &[parameters])?;
            match (tag, field) {
                (5, 3) if elements(wire, &value) > MOST_AXES => return Err(too_many(MOST_AXES)),
                (5, 3) => tensor.count(field, MOST_AXES, &[3])?,
                (5, 5) => size = size.saturating_add(contents(&value).map_err(malformed)?),
                _ => {}
            }
        }
    }
    Ok(size)
}

fn contents(message: &Bytes) -> Result<usize, DecodeError> {
    let mut contents = Fields::of(message);
    let mut size = 0usize;
    while let Some((tag, wire, value)) = contents.next()? {
        size += match tag {
            8 => value.len() + size_of::<Bytes>(),
            6 | 7 => value.len(),
            _ => elements(wire, &value) * 8,
        };
    }
    Ok(size)
}

/// Varints of a packed field, or of one that is none.
fn elements(wire: WireType, value: &[u8]) -> usize {
    match wire {
        WireType::LengthDelimited => value.iter().filter(|&&byte| byte < 0x80).count(),
        _ => 1,
    }
}

fn too_many(most: usize) -> Status {
    Status::invalid_argument(format!("the request has more than {most} inputs, outputs, parameters or axes"))
}

/// The fields of a message, one after another, none of them decoded.
struct Fields {
    rest: Bytes,
    counts: [usize; 8],
}

impl Fields {
    fn of(message: &Bytes) -> Fields {
        Fields { rest: message.clone(), counts: [0; 8] }
    }

    fn next(&mut self) -> Result<Option<(u32, WireType, Bytes)>, DecodeError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (tag, wire) = decode_key(&mut self.rest)?;
        let mut after = self.rest.clone();
        skip_field(wire, tag, &mut after, DecodeContext::default())?;
        let mut value = self.rest.split_to(self.rest.len() - after.len());
        if wire == WireType::LengthDelimited {
            decode_varint(&mut value)?;
        }
        Ok(Some((tag, wire, value)))
    }

    /// Counts a field if it is one of `tags`.
    fn count(&mut self, tag: u32, most: usize, tags: &[u32]) -> Result<(), Status> {
        let Some(count) = self.counts.get_mut(tag as usize).filter(|_| tags.contains(&tag)) else {
            return Ok(());
        };
        *count += 1;
        if *count > most { Err(too_many(most)) } else { Ok(()) }
    }
}
