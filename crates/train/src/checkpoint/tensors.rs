//! Writing safetensors as a stream: no copy of all tensors is made in memory. Reading is the
//! `safetensors` crate's.

use std::io::{self, Write};

use halfstep_graph::engine::HostTensor;

/// A tensor to write.
pub(crate) struct Tensor<'a> {
    pub name: &'a str,
    pub shape: &'a [usize],
    pub values: &'a HostTensor,
}

impl Tensor<'_> {
    fn count(&self) -> usize {
        match self.values {
            HostTensor::F32(x) => x.len(),
            HostTensor::I32(x) => x.len(),
        }
    }
}

/// Writes a safetensors file: the length of the header in 8 bytes (little-endian), the header in
/// JSON padded with spaces to a multiple of 8, then the values in little-endian, without gaps.
/// `metadata` is one key with its text.
pub(crate) fn write(out: &mut dyn Write, tensors: &[Tensor<'_>], metadata: (&str, &str)) -> io::Result<()> {
    let quoted = |text: &str| serde_json::to_string(text).map_err(io::Error::from);
    let mut header = format!("{{\"__metadata__\":{{{}:{}}}", quoted(metadata.0)?, quoted(metadata.1)?);
    let mut begin = 0;
    for tensor in tensors {
        let end = begin + 4 * tensor.count();
        let dtype = match tensor.values {
            HostTensor::F32(_) => "F32",
            HostTensor::I32(_) => "I32",
        };
        let (name, shape) = (quoted(tensor.name)?, tensor.shape);
        header += &format!(
            ",{name}:{{\"dtype\":\"{dtype}\",\"shape\":{shape:?},\"data_offsets\":[{begin},{end}]}}"
        );
        begin = end;
    }
    header.push('}');
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    for tensor in tensors {
        match tensor.values {
            HostTensor::F32(x) => little_endian(out, x, f32::to_le_bytes)?,
            HostTensor::I32(x) => little_endian(out, x, i32::to_le_bytes)?,
        }
    }
    Ok(())
}

fn little_endian<T: Copy>(out: &mut dyn Write, values: &[T], bytes: impl Fn(T) -> [u8; 4]) -> io::Result<()> {
    let mut buffer = [0u8; 1 << 14];
    for values in values.chunks(buffer.len() / 4) {
        for (place, &value) in buffer.chunks_exact_mut(4).zip(values) {
            place.copy_from_slice(&bytes(value));
        }
        out.write_all(&buffer[..4 * values.len()])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::SafeTensors;

    #[test]
    fn the_crate_reads_what_is_written() {
        let many = HostTensor::F32((0..10_000).map(|i| i as f32 / 3.0).collect());
        let scalar = HostTensor::F32(vec![f32::from_bits(0x7fc0_1234)]);
        let whole = HostTensor::I32(vec![-1, i32::MAX]);
        let tensors = [
            Tensor { name: "z \"quoted\"", shape: &[100, 100], values: &many },
            Tensor { name: "a", shape: &[], values: &scalar },
            Tensor { name: "b", shape: &[2], values: &whole },
        ];
        let mut bytes = Vec::new();
        write(&mut bytes, &tensors, ("k", "{\"v\": 1}")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let read = file.tensor("z \"quoted\"").unwrap();
        assert_eq!((read.shape(), read.data().len()), (&[100, 100][..], 40_000));
        assert_eq!(read.data()[4 * 9_999..], (9_999f32 / 3.0).to_le_bytes());
        assert_eq!(file.tensor("a").unwrap().data(), 0x7fc0_1234u32.to_le_bytes());
        assert_eq!(file.tensor("b").unwrap().data(), [255, 255, 255, 255, 255, 255, 255, 127]);
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(metadata.metadata().as_ref().unwrap()["k"], "{\"v\": 1}");
    }
}
