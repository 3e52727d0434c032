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

impl Float {
    pub(super) fn bytes(self) -> usize {
        match self {
            Float::F16 | Float::Bf16 => 2,
            Float::F32 => 4,
            Float::F64 => 8,
        }
    }
}

/// Little-endian integers of `size` bytes; what is above i64 becomes its greatest number, which is
/// no label. None for a size that integers do not have.
pub(super) fn integers(signed: bool, size: usize, bytes: &[u8]) -> Option<Vec<i64>> {
    let one = |b: &[u8]| {
        let negative = signed && b[size - 1] >= 0x80;
        let mut wide = [if negative { 0xff } else { 0 }; 16];
        wide[..size].copy_from_slice(b);
        i64::try_from(i128::from_le_bytes(wide)).unwrap_or(i64::MAX)
    };
    matches!(size, 1 | 2 | 4 | 8).then(|| bytes.chunks_exact(size).map(one).collect())
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
    match format {
        Float::F16 => each(bytes, out, |b| f32_from_f16(u16::from_le_bytes(b))),
        Float::Bf16 => each(bytes, out, |b| f32_from_bf16(u16::from_le_bytes(b))),
        Float::F32 => each(bytes, out, f32::from_le_bytes),
        Float::F64 => each(bytes, out, |b| f64::from_le_bytes(b) as f32),
    }
}

fn each<const N: usize>(bytes: &[u8], out: &mut [f32], number: impl Fn([u8; N]) -> f32) {
    for (o, &b) in out.iter_mut().zip(bytes.as_chunks().0) {
        *o = number(b);
    }
}
