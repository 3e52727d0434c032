//! The bytes of buffers: from files, by rules, and back into files.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;

use super::RunnerError;
use super::launch_file::{Buffer, Element, Fill};
use halfstep_ptx::formats::{Conversion, Format, Rounding};

impl Element {
    /// Bytes of an element.
    pub fn bytes(self) -> usize {
        match self {
            Element::U8 | Element::S8 | Element::E4m3 | Element::E5m2 => 1,
            Element::U16 | Element::S16 | Element::F16 | Element::Bf16 => 2,
            Element::U32 | Element::S32 | Element::F32 => 4,
            Element::U64 | Element::S64 | Element::F64 => 8,
        }
    }

    fn format(self) -> Option<Format> {
        Some(match self {
            Element::F16 => Format::F16,
            Element::Bf16 => Format::Bf16,
            Element::E4m3 => Format::E4m3,
            Element::E5m2 => Format::E5m2,
            Element::F32 => Format::F32,
            _ => return None,
        })
    }

    /// The bits of a number in this type.
    fn bits(self, value: f64) -> u64 {
        match (self.format(), self) {
            (Some(format), _) => u64::from(format.encode(value, Conversion::rounded(Rounding::NearestEven))),
            (None, Element::F64) => value.to_bits(),
            (None, _) => value as i64 as u64,
        }
    }

    /// numpy's name; types that numpy lacks are bytes or 16-bit integers there.
    fn numpy(self) -> &'static str {
        match self {
            Element::U8 | Element::E4m3 | Element::E5m2 => "|u1",
            Element::S8 => "|i1",
            Element::U16 | Element::Bf16 => "<u2",
            Element::S16 => "<i2",
            Element::U32 => "<u4",
            Element::S32 => "<i4",
            Element::U64 => "<u8",
            Element::S64 => "<i8",
            Element::F16 => "<f2",
            Element::F32 => "<f4",
            Element::F64 => "<f8",
        }
    }
}

fn numpy(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "npy")
}

/// The bytes that a buffer has at the start, or none if nothing is written; and how many there are.
pub(super) fn contents(name: &str, buffer: &Buffer) -> Result<(Option<Vec<u8>>, usize), RunnerError> {
    let size = buffer.element.bytes();
    if let Some(path) = &buffer.from {
        let data = read(path, buffer.element)?;
        let wanted = buffer.elements.map_or(Ok(data.len()), |elements| sized(name, elements, size))?;
        if data.len() != wanted || !data.len().is_multiple_of(size) {
            let text = format!("buffer `{name}`: {} has {} bytes", path.display(), data.len());
            return Err(RunnerError::Launch(format!("{text}, {wanted} are needed in elements of {size}")));
        }
        let bytes = data.len();
        return Ok((Some(data), bytes));
    }
    let Some(elements) = buffer.elements else {
        return Err(RunnerError::Launch(format!("buffer `{name}` needs `elements` or `from`")));
    };
    let bytes = sized(name, elements, size)?;
    let key = name.bytes().fold(0u64, |key, byte| key.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let number = |at: usize| match buffer.fill {
        Fill::Nothing | Fill::Zeros => 0.0,
        Fill::Counting => at as f64,
        Fill::Constant(value) => value,
        Fill::Uniform => {
            // The upper 53 bits of a mixed counter, between 0 and 1.
            let unit = (mixed(key, at as u64) >> 11) as f64 / (1u64 << 53) as f64;
            let float = buffer.element.format().is_some() || buffer.element == Element::F64;
            if float { 2.0 * unit - 1.0 } else { (unit * 128.0).floor() }
        }
    };
    if buffer.fill == Fill::Nothing {
        return Ok((None, bytes));
    }
    let mut data = Vec::with_capacity(bytes);
    for at in 0..elements {
        data.extend_from_slice(&buffer.element.bits(number(at)).to_le_bytes()[..size]);
    }
    Ok((Some(data), bytes))
}

/// The bytes of so many elements, as far as a device has room for them.
fn sized(name: &str, elements: usize, size: usize) -> Result<usize, RunnerError> {
    let bytes = elements.checked_mul(size).filter(|bytes| *bytes as u64 <= 1 << 32);
    let text = || format!("buffer `{name}`: {elements} elements of {size} bytes; 4 GiB are the most");
    bytes.ok_or_else(|| RunnerError::Launch(text()))
}

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014) at a place of its sequence.
fn mixed(key: u64, at: u64) -> u64 {
    let z = key.wrapping_add(at.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn read(path: &Path, element: Element) -> Result<Vec<u8>, RunnerError> {
    let failed = |error: std::io::Error| RunnerError::file(path, error);
    if !numpy(path) {
        return std::fs::read(path).map_err(failed);
    }
    let mut file = BufReader::new(File::open(path).map_err(failed)?);
    let header = npyz::NpyHeader::from_reader(&mut file).map_err(failed)?;
    let kind = match header.dtype() {
        npyz::DType::Plain(kind) => kind.to_string(),
        _ => "a structure".to_string(),
    };
    if kind != element.numpy() {
        let problem = format!("its elements are {kind}, those of the buffer {}", element.numpy());
        return Err(RunnerError::file(path, problem));
    }
    if header.order() != npyz::Order::C && header.shape().len() > 1 {
        return Err(RunnerError::file(path, "the array is in Fortran order; save it in C order"));
    }
    let mut data = Vec::new();
    std::io::Read::read_to_end(&mut file, &mut data).map_err(failed)?;
    Ok(data)
}

/// Writes a buffer, whole or not at all; what is there and is no file, such as a device, stays what
/// it is.
pub(super) fn write(path: &Path, element: Element, data: &[u8]) -> Result<(), RunnerError> {
    let failed = |error: std::io::Error| RunnerError::file(path, error);
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        let head = header(path, element, data).map_err(failed)?;
        let mut there = std::fs::OpenOptions::new().write(true).open(path).map_err(failed)?;
        return there.write_all(&head).and_then(|()| there.write_all(data)).map_err(failed);
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    let part = Path::new(&name);
    let mut file = BufWriter::new(File::create(part).map_err(failed)?);
    let written = header(path, element, data).and_then(|head| {
        file.write_all(&head)?;
        file.write_all(data)?;
        file.into_inner()?.sync_all()?;
        std::fs::rename(part, path)
    });
    written.map_err(|error| {
        // What is left of a failed attempt is of no use.
        let _ = std::fs::remove_file(part);
        failed(error)
    })
}

/// The header of a `.npy` file of one axis, version 1.0; nothing for other files.
fn header(path: &Path, element: Element, data: &[u8]) -> std::io::Result<Vec<u8>> {
    if !numpy(path) {
        return Ok(Vec::new());
    }
    let count = data.len() / element.bytes();
    let kind = element.numpy();
    let mut text = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({count},), }}");
    // With the ten bytes before and the line end, a multiple of 64.
    let padding = 64 - (10 + text.len() + 1) % 64;
    text.extend(std::iter::repeat_n(' ', padding % 64));
    text.push('\n');
    let mut head = b"\x93NUMPY\x01\x00".to_vec();
    head.extend_from_slice(&(text.len() as u16).to_le_bytes());
    head.extend_from_slice(text.as_bytes());
    Ok(head)
}
