//! Bytes of arrays as numbers.

use std::io::{self, Read};

use halfstep_float::{f32_from_bf16, f32_from_f16};

/// Formats that logits are stored in, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Float {
    F16,
    Bf16,
    F32,
    F64,
}

/// Formats that labels are stored in, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Int {
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
}

impl Float {
    pub(super) fn bytes(self) -> usize {
        match self {
            Float::F16 | Float::Bf16 => 2,
            Float::F32 => 4,
            Float::F64 => 8,
        }
    }
}

impl Int {
    /// Numbers from bytes; what is above i64 becomes its greatest number, which is no label.
    pub(super) fn decode(self, bytes: &[u8]) -> Vec<i64> {
        macro_rules! each {
            ($t:ty) => {
                bytes
                    .as_chunks()
                    .0
                    .iter()
                    .map(|&b| i64::try_from(<$t>::from_le_bytes(b)).unwrap_or(i64::MAX))
                    .collect()
            };
        }
        match self {
            Int::I8 => each!(i8),
            Int::U8 => each!(u8),
            Int::I16 => each!(i16),
            Int::U16 => each!(u16),
            Int::I32 => each!(i32),
            Int::U32 => each!(u32),
            Int::I64 => each!(i64),
            Int::U64 => each!(u64),
        }
    }
}

/// A stream of floats, read as f32. An f64 is rounded.
pub(super) struct Elements {
    reader: Box<dyn Read + Send>,
    format: Float,
    bytes: Vec<u8>,
}

/// Bytes read at once: they stay in the second-level cache until they are numbers.
const CHUNK: usize = 1 << 18;

impl Elements {
    pub(super) fn new(reader: Box<dyn Read + Send>, format: Float) -> Elements {
        Elements { reader, format, bytes: vec![0; CHUNK] }
    }

    /// Fills `out`. Errors: the stream ends early or fails.
    pub(super) fn read(&mut self, out: &mut [f32]) -> io::Result<()> {
        let size = self.format.bytes();
        for part in out.chunks_mut(CHUNK / size) {
            let bytes = &mut self.bytes[..part.len() * size];
            self.reader.read_exact(bytes)?;
            decode(self.format, bytes, part);
        }
        Ok(())
    }
}

fn decode(format: Float, bytes: &[u8], out: &mut [f32]) {
    let halves = |f: fn(u16) -> f32, out: &mut [f32]| {
        for (o, &b) in out.iter_mut().zip(bytes.as_chunks().0) {
            *o = f(u16::from_le_bytes(b));
        }
    };
    match format {
        Float::F16 => halves(f32_from_f16, out),
        Float::Bf16 => halves(f32_from_bf16, out),
        Float::F32 => {
            for (o, &b) in out.iter_mut().zip(bytes.as_chunks().0) {
                *o = f32::from_le_bytes(b);
            }
        }
        Float::F64 => {
            for (o, &b) in out.iter_mut().zip(bytes.as_chunks().0) {
                *o = f64::from_le_bytes(b) as f32;
            }
        }
    }
}
