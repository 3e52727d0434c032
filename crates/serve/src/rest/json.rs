//! Elements of tensors as JSON has them.
//!
//! Numbers are read straight into the type of the tensor, so that no decimal is rounded twice.
//! JSON has no way to write NaN and infinity, and none is invented; half precision has no JSON
//! form in the protocol either.

use bytes::Bytes;
use serde::de::{self, DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde::ser::{Error as _, SerializeSeq, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::WireError;
use crate::tensor::{Datatype, Tensor};

/// The elements in `data`, which is an array that is flat or nested as `shape` says, in the form
/// of [`Tensor::new`].
pub(super) fn read(
    name: &str,
    datatype: Datatype,
    shape: &[usize],
    data: &RawValue,
) -> Result<Bytes, WireError> {
    if matches!(datatype, Datatype::Fp16 | Datatype::Bf16) {
        // Triton's words, which clients know.
        return Err(WireError(format!(
            "receiving {} data via JSON is not supported. Please use the binary data format for input \"{name}\"",
            datatype.name()
        )));
    }
    let text = data.get();
    let count = shape.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent));
    let count = count.ok_or_else(|| WireError(format!("input `{name}`: {shape:?} has too many elements")))?;
    let nested = text.get(1..).is_some_and(|rest| rest.trim_start().starts_with('['));
    let flat = [count];
    // An element has a character at least, and one more that parts it from the next.
    let room = count.min(text.len() / 2 + 1).saturating_mul(datatype.size().unwrap_or(4));
    let mut sink = Sink { datatype, out: Vec::with_capacity(room), count: 0, wrong: None };
    let level = Level { shape: if nested { shape } else { &flat }, sink: &mut sink };
    if level.deserialize(&mut serde_json::Deserializer::from_str(text)).is_ok() {
        return Ok(sink.out.into());
    }
    Err(WireError(match sink.wrong {
        Some(index) => format!("input `{name}`: element {index} of `data` is no {}", of_type(datatype)),
        None => format!("input `{name}`: `data` is no array of the shape {shape:?}, nested or flat"),
    }))
}

fn of_type(datatype: Datatype) -> &'static str {
    match datatype {
        Datatype::Bool => "BOOL: true or false",
        Datatype::Uint8 => "UINT8: a whole number from 0 to 255",
        Datatype::Uint16 => "UINT16: a whole number from 0 to 65535",
        Datatype::Uint32 => "UINT32: a whole number from 0 to 2^32 - 1",
        Datatype::Uint64 => "UINT64: a whole number from 0 to 2^64 - 1",
        Datatype::Int8 => "INT8: a whole number from -128 to 127",
        Datatype::Int16 => "INT16: a whole number from -32768 to 32767",
        Datatype::Int32 => "INT32: a whole number from -2^31 to 2^31 - 1",
        Datatype::Int64 => "INT64: a whole number from -2^63 to 2^63 - 1",
        Datatype::Fp32 => "FP32: a number that is finite in single precision",
        Datatype::Fp64 => "FP64: a number that is finite in double precision",
        Datatype::Bytes => "BYTES: a string",
        Datatype::Fp16 | Datatype::Bf16 => "number in JSON",
    }
}

/// Where elements go.
struct Sink {
    datatype: Datatype,
    out: Vec<u8>,
    count: usize,
    /// The index of an element that is not of the type.
    wrong: Option<usize>,
}

/// An array, of arrays or elements.
struct Level<'a> {
    shape: &'a [usize],
    sink: &'a mut Sink,
}

impl<'de> DeserializeSeed<'de> for Level<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Level<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let (extent, inner) = self.shape.split_first().unwrap_or((&1, &[]));
        for found in 0..*extent {
            let sink = &mut *self.sink;
            let next = match inner {
                [] => seq.next_element_seed(Element(sink))?,
                _ => seq.next_element_seed(Level { shape: inner, sink })?,
            };
            if next.is_none() {
                return Err(de::Error::invalid_length(found, &"as many as the shape says"));
            }
        }
        match seq.next_element::<de::IgnoredAny>()? {
            Some(_) => Err(de::Error::custom("more elements than the shape says")),
            None => Ok(()),
        }
    }
}

struct Element<'a>(&'a mut Sink);

impl<'de> DeserializeSeed<'de> for Element<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        let sink = self.0;
        let out = &mut sink.out;
        let read = match sink.datatype {
            Datatype::Bool => bool::deserialize(d).map(|v| out.push(u8::from(v))),
            Datatype::Uint8 => u8::deserialize(d).map(|v| out.push(v)),
            Datatype::Uint16 => u16::deserialize(d).map(|v| out.extend(v.to_le_bytes())),
            Datatype::Uint32 => u32::deserialize(d).map(|v| out.extend(v.to_le_bytes())),
            Datatype::Uint64 => u64::deserialize(d).map(|v| out.extend(v.to_le_bytes())),
            Datatype::Int8 => i8::deserialize(d).map(|v| out.extend(v.to_le_bytes())),
            Datatype::Int16 => i16::deserialize(d).map(|v| out.extend(v.to_le_bytes())),
            Datatype::Int32 => i32::deserialize(d).map(|v| out.extend(v.to_le_bytes())),
            Datatype::Int64 => i64::deserialize(d).map(|v| out.extend(v.to_le_bytes())),
            Datatype::Fp32 => f32::deserialize(d).and_then(finite).map(|v| out.extend(v.to_le_bytes())),
            Datatype::Fp64 => f64::deserialize(d).map(|v| out.extend(v.to_le_bytes())),
            Datatype::Bytes => d.deserialize_str(Text(out)),
            Datatype::Fp16 | Datatype::Bf16 => Err(de::Error::custom("half precision has no JSON form")),
        };
        if read.is_err() {
            sink.wrong = Some(sink.count);
        }
        sink.count += 1;
        read
    }
}

/// Whole numbers above the largest of single precision become infinite when they are converted.
fn finite<E: de::Error>(value: f32) -> Result<f32, E> {
    if value.is_finite() { Ok(value) } else { Err(de::Error::custom("not finite")) }
}

struct Text<'a>(&'a mut Vec<u8>);

impl Visitor<'_> for Text<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        let length = u32::try_from(text.len()).map_err(E::custom)?;
        self.0.extend(length.to_le_bytes());
        self.0.extend(text.as_bytes());
        Ok(())
    }
}

/// The elements of an output, as a flat array.
pub(super) struct Elements<'a>(pub(super) &'a Tensor);

impl Elements<'_> {
    /// Refuses what JSON has no form for.
    pub(super) fn check(&self) -> Result<(), WireError> {
        let (name, data) = (self.0.name(), self.0.data());
        let refused = |what: &str| {
            Err(WireError(format!(
                "output `{name}` has {what}, which JSON cannot write; ask for binary data"
            )))
        };
        match self.0.datatype() {
            datatype @ (Datatype::Fp16 | Datatype::Bf16) => Err(WireError(format!(
                "sending {} data via JSON is not supported. Please use the binary data format for output \"{name}\"",
                datatype.name()
            ))),
            Datatype::Fp32 if chunks(data).any(|v| !f32::from_le_bytes(v).is_finite()) => {
                refused("values that are not finite")
            }
            Datatype::Fp64 if chunks(data).any(|v| !f64::from_le_bytes(v).is_finite()) => {
                refused("values that are not finite")
            }
            Datatype::Bytes if self.0.elements().any(|e| std::str::from_utf8(&e).is_err()) => {
                refused("elements that are not UTF-8")
            }
            _ => Ok(()),
        }
    }
}

fn chunks<const N: usize>(data: &[u8]) -> impl Iterator<Item = [u8; N]> {
    data.as_chunks::<N>().0.iter().copied()
}

impl Serialize for Elements<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let data = self.0.data();
        match self.0.datatype() {
            Datatype::Bool => s.collect_seq(data.iter().map(|&v| v == 1)),
            Datatype::Uint8 => s.collect_seq(data.iter()),
            Datatype::Uint16 => s.collect_seq(chunks(data).map(u16::from_le_bytes)),
            Datatype::Uint32 => s.collect_seq(chunks(data).map(u32::from_le_bytes)),
            Datatype::Uint64 => s.collect_seq(chunks(data).map(u64::from_le_bytes)),
            Datatype::Int8 => s.collect_seq(chunks(data).map(i8::from_le_bytes)),
            Datatype::Int16 => s.collect_seq(chunks(data).map(i16::from_le_bytes)),
            Datatype::Int32 => s.collect_seq(chunks(data).map(i32::from_le_bytes)),
            Datatype::Int64 => s.collect_seq(chunks(data).map(i64::from_le_bytes)),
            Datatype::Fp32 => s.collect_seq(chunks(data).map(f32::from_le_bytes)),
            Datatype::Fp64 => s.collect_seq(chunks(data).map(f64::from_le_bytes)),
            Datatype::Bytes => {
                let mut seq = s.serialize_seq(None)?;
                for element in self.0.elements() {
                    seq.serialize_element(std::str::from_utf8(&element).map_err(S::Error::custom)?)?;
                }
                seq.end()
            }
            Datatype::Fp16 | Datatype::Bf16 => Err(S::Error::custom("half precision has no JSON form")),
        }
    }
}
