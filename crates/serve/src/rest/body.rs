//! The body of a request: read within its limits, and decompressed within them.

use std::io::{self, Read};

use axum::body::{Body, HttpBody};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use axum::http::{HeaderMap, HeaderValue};
use bytes::{Bytes, BytesMut};
use flate2::bufread::{MultiGzDecoder, ZlibDecoder};
use http_body_util::BodyExt;
use thiserror::Error;
use tokio::time::timeout;

use crate::limits::{Budget, Limits, Reservation};
use crate::work::{beside, is_long};

/// Why there is no body.
#[derive(Debug, PartialEq, Eq, Error)]
pub(super) enum BodyError {
    /// It is too long.
    #[error("the body has more than {0} bytes, decoded")]
    TooLong(usize),
    /// It came too slowly.
    #[error("the body did not come within {0} s")]
    Slow(u64),
    /// There was no memory for it in time.
    #[error("the server holds as many requests as its memory is for; try again later")]
    Busy,
    /// It is compressed in a way that is not known.
    #[error("the body's Content-Encoding has to be gzip, deflate or identity")]
    Encoding,
    /// It is not what the header says it is.
    #[error("the body is no {0}, or it is not whole")]
    Damaged(&'static str),
    /// The connection broke.
    #[error("the body ended before its end")]
    Broken,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Encoding {
    Identity,
    Gzip,
    /// As HTTP has it: in the form of zlib.
    Deflate,
}

/// What a body is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Form {
    /// JSON alone.
    Json,
    /// JSON and binary tensors, which stay where they are.
    Binary,
}

/// The decoded body, and the memory that is reserved for it.
pub(super) async fn read(
    headers: &HeaderMap,
    mut body: Body,
    form: Form,
    limits: &Limits,
    budget: &Budget,
) -> Result<(Bytes, Reservation), BodyError> {
    let read = read_within(headers, &mut body, form, limits, budget).await;
    if let Err(BodyError::TooLong(_) | BodyError::Busy | BodyError::Encoding) = read {
        discard(&mut body, limits).await;
    }
    read
}

async fn read_within(
    headers: &HeaderMap,
    body: &mut Body,
    form: Form,
    limits: &Limits,
    budget: &Budget,
) -> Result<(Bytes, Reservation), BodyError> {
    let encoding = encoding(headers)?;
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > limits.body) {
        return Err(BodyError::TooLong(limits.body));
    }
    // Beside a text there are its tensors, at most four times as long (`0,` is eight bytes), and as
    // long as the largest body.
    let share = |length: usize| match form {
        Form::Json => length.saturating_mul(5).div_ceil(Budget::PER_BYTE),
        Form::Binary => length,
    };
    // How long it is decoded is not known before it is.
    let known = length.filter(|_| encoding == Encoding::Identity).map(share);
    let reserved = timeout(limits.request, budget.reserve(known.unwrap_or(limits.body))).await;
    let mut reserved = reserved.map_err(|_| BodyError::Busy)?;
    let read = timeout(limits.body_read, collect(body, length.unwrap_or(0), limits.body)).await;
    let bytes = read.map_err(|_| BodyError::Slow(limits.body_read.as_secs()))??;
    let most = limits.body;
    let bytes = match encoding {
        Encoding::Identity => bytes,
        _ => {
            // What is decoded is a multiple of what came.
            let long = is_long(bytes.len().saturating_mul(16));
            let decoded = beside(long, move || decode(&bytes, encoding, most)).await;
            decoded.map_err(|_| BodyError::Broken)??
        }
    };
    reserved.shrink(share(bytes.len()));
    Ok((bytes, reserved))
}

fn encoding(headers: &HeaderMap) -> Result<Encoding, BodyError> {
    let mut values = headers.get_all(CONTENT_ENCODING).iter().map(HeaderValue::as_bytes);
    let encoding = match values.next().map(<[u8]>::trim_ascii) {
        None | Some(b"") => Encoding::Identity,
        Some(name) if name.eq_ignore_ascii_case(b"identity") => Encoding::Identity,
        Some(name) if name.eq_ignore_ascii_case(b"gzip") => Encoding::Gzip,
        Some(name) if name.eq_ignore_ascii_case(b"deflate") => Encoding::Deflate,
        // Several, one in another, would be a way to hide what is inside.
        Some(_) => return Err(BodyError::Encoding),
    };
    if values.next().is_some() { Err(BodyError::Encoding) } else { Ok(encoding) }
}

async fn collect(body: &mut Body, length: usize, most: usize) -> Result<Bytes, BodyError> {
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| BodyError::Broken)?;
        let Ok(data) = frame.into_data() else { continue };
        if all.is_empty() && body.is_end_stream() && data.len() <= most {
            return Ok(data);
        }
        if data.len() > most - all.len() {
            return Err(BodyError::TooLong(most));
        }
        if all.is_empty() {
            all.reserve(length.max(data.len()));
        }
        all.extend_from_slice(&data);
    }
    Ok(all.freeze())
}

/// Reads on and keeps nothing, for a time: a client that is still sending would otherwise find its
/// connection broken, and not read why.
async fn discard(body: &mut Body, limits: &Limits) {
    let _ = timeout(limits.body_read, async {
        let mut room = limits.body.saturating_mul(4);
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            match room.checked_sub(length) {
                Some(left) => room = left,
                None => return,
            }
        }
    })
    .await;
}

fn decode(bytes: &[u8], encoding: Encoding, most: usize) -> Result<Bytes, BodyError> {
    let (decoded, name) = match encoding {
        Encoding::Identity => return Ok(Bytes::copy_from_slice(bytes)),
        Encoding::Gzip => (inflate(&mut MultiGzDecoder::new(bytes), most), "gzip"),
        Encoding::Deflate => {
            let mut decoder = ZlibDecoder::new(bytes);
            let decoded = inflate(&mut decoder, most);
            let left = !decoder.into_inner().is_empty();
            // What follows its end belongs to nothing.
            (
                if left && decoded.as_ref().is_ok_and(|d| d.len() <= most) {
                    Err(io::ErrorKind::InvalidData.into())
                } else {
                    decoded
                },
                "deflate in the form of zlib",
            )
        }
    };
    let decoded = decoded.map_err(|_| BodyError::Damaged(name))?;
    if decoded.len() > most {
        return Err(BodyError::TooLong(most));
    }
    Ok(decoded.into())
}

/// As many bytes as are allowed, and one more where there are more.
fn inflate(decoder: &mut impl Read, most: usize) -> io::Result<Vec<u8>> {
    let mut decoded = Vec::new();
    decoder.take(most as u64 + 1).read_to_end(&mut decoded)?;
    Ok(decoded)
}
