//! `.npz`, as `np.savez` and `np.savez_compressed` write it: arrays `logits`, `labels`, `group_…`
//! and `seed`.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use halfstep_data::open_file;
use npyz::{DType, Endianness, NpyHeader, Order, TypeChar};
use zip::{CompressionMethod, ZipArchive};

use super::array::{self, Elements, Float};
use super::{LogitsError, Parts, Rows, divides};
use crate::measures::GroupColumn;

/// Most bytes of an array's header: numpy's own are below 200.
const MOST_HEADER: u64 = 1 << 16;

/// Most bytes of an array that is compressed more than a hundredfold: numbers that say anything are
/// not, and what is read without end helps nobody.
const MOST_HOLLOW: u64 = 1 << 30;
/// Most memory for arrays that are held and not streamed, where they are compressed, as
/// [`Array::held`] counts it: 22 million labels.
const MOST_HELD: u64 = 1 << 29;

/// An array in the archive, at its first element.
struct Array {
    header: NpyHeader,
    kind: TypeChar,
    bytes: usize,
    compressed: bool,
    reader: Box<dyn Read + Send>,
}

pub(super) fn open(path: &Path) -> Result<(Parts, Rows), LogitsError> {
    let io = |source| LogitsError::Open { path: path.into(), source };
    let bad = |message: String| LogitsError::Format { path: path.into(), message };
    let mut left_to_hold = MOST_HELD;
    let mut archive = ZipArchive::new(BufReader::new(open_file(path).map_err(io)?))
        .map_err(|e| bad(format!("not a whole .npz file: {e}")))?;
    let names: Vec<String> = archive
        .file_names()
        .filter_map(|n| Some(npyz::npz::array_name_from_file_name(&n.ok()?)?.into()))
        .collect();
    let array = |archive: &mut ZipArchive<_>, name: &str| {
        if !names.iter().any(|n| n == name) {
            return Err(LogitsError::missing(path, name, &names));
        }
        array(archive, path, name).map_err(|e| bad(format!("`{name}`: {e}")))
    };

    let logits = array(&mut archive, "logits")?;
    let format = match (logits.kind, logits.bytes) {
        (TypeChar::Float, 2) => Float::F16,
        (TypeChar::Float, 4) => Float::F32,
        (TypeChar::Float, 8) => Float::F64,
        _ => {
            let found = logits.header.dtype().descr();
            return Err(bad(format!("`logits` has type {found}; expected float16, float32 or float64")));
        }
    };
    let &[rows, classes] = logits.header.shape() else {
        return Err(bad(format!(
            "`logits` has shape {:?}; expected [samples, classes]",
            logits.header.shape()
        )));
    };
    if logits.header.order() == Order::Fortran && rows > 1 && classes > 1 {
        return Err(bad("`logits` is stored by columns; save np.ascontiguousarray(logits)".into()));
    }
    let labels = array(&mut archive, "labels")?;
    let labels = ints(labels, &mut left_to_hold).map_err(|e| bad(format!("`labels`: {e}")))?;
    let mut groups = Vec::new();
    for name in names.iter().filter(|n| divides(n)) {
        let values = texts(array(&mut archive, name)?, &mut left_to_hold)
            .map_err(|e| bad(format!("`{name}`: {e}")))?;
        groups.push(GroupColumn::new(name.as_str(), &values));
    }
    let seed = if names.iter().any(|n| n == "seed") {
        let values =
            ints(array(&mut archive, "seed")?, &mut left_to_hold).map_err(|e| bad(format!("`seed`: {e}")))?;
        match values.as_slice() {
            [seed] if *seed >= 0 => Some(*seed as u64),
            _ => return Err(bad("`seed` is not one number of 0 or more".into())),
        }
    } else {
        None
    };
    let parts = Parts {
        name: path.display().to_string(),
        classes: usize::try_from(classes).map_err(|_| bad(format!("{classes} classes are too many")))?,
        rows,
        labels,
        groups,
        seed,
    };
    Ok((parts, Rows::Elements(Elements::new(logits.reader, format))))
}

/// Finds an array, reads its header, and checks that as many bytes follow as its shape needs.
fn array(archive: &mut ZipArchive<BufReader<File>>, path: &Path, name: &str) -> Result<Array, String> {
    let index = archive
        .index_for_name(&npyz::npz::file_name_from_array_name(name))
        .ok_or_else(|| "not found".to_string())?;
    let entry = archive.by_index_raw(index).map_err(|e| e.to_string())?;
    if entry.encrypted() {
        return Err("it is encrypted".into());
    }
    let (method, size, stored, crc) =
        (entry.compression(), entry.size(), entry.compressed_size(), entry.crc32());
    if size > MOST_HOLLOW && size / 100 > stored {
        return Err(format!(
            "{stored} bytes unpack to {size}: what is above {MOST_HOLLOW} bytes is read if it is compressed \
             at most a hundredfold"
        ));
    }
    let start = entry.data_start().ok_or("its place in the archive is not known")?;
    let mut file = open_file(path).map_err(|e| e.to_string())?;
    file.seek(SeekFrom::Start(start)).map_err(|e| e.to_string())?;
    let (stored, compressed) = (file.take(stored), method != CompressionMethod::Stored);
    let plain: Box<dyn Read + Send> = match method {
        CompressionMethod::Stored => Box::new(stored),
        CompressionMethod::Deflated => Box::new(flate2::read::DeflateDecoder::new(BufReader::new(stored))),
        other => return Err(format!("it is compressed by {other}; expected none or deflate")),
    };
    let mut reader = Checked { inner: plain, sum: crc32fast::Hasher::new(), left: size, crc };

    // The header's parser recurses: brackets are counted first.
    let mut head = Vec::new();
    reader.by_ref().take(MOST_HEADER.min(size)).read_to_end(&mut head).map_err(|e| e.to_string())?;
    let line = head.split(|&b| b == b'\n').next().unwrap_or_default();
    if line.iter().filter(|b| b"([{".contains(b)).count() > 64 {
        return Err("its header is not one that numpy writes".into());
    }
    let mut rest = head.as_slice();
    let header = NpyHeader::from_reader(&mut rest).map_err(|e| format!("its header cannot be read: {e}"))?;
    let head_length = (head.len() - rest.len()) as u64;
    let DType::Plain(plain) = header.dtype() else {
        return Err(format!("type {} is not a plain one", header.dtype().descr()));
    };
    if header.uses_pickled_array() {
        return Err("it holds Python objects; save numbers or strings".into());
    }
    if plain.endianness() == Endianness::Big {
        return Err("it is big-endian; save it with .astype of the native type".into());
    }
    let bytes = plain.num_bytes().ok_or("its elements are too large")?;
    let needed = header.shape().iter().try_fold(bytes as u64, |n, &d| n.checked_mul(d));
    if needed.and_then(|n| n.checked_add(head_length)) != Some(size) {
        return Err(format!(
            "shape {:?} of {} does not fit its {} bytes",
            header.shape(),
            plain,
            size - head_length
        ));
    }
    let rest = io::Cursor::new(head.split_off(head_length as usize));
    let reader = Box::new(rest.chain(reader));
    Ok(Array { kind: plain.type_char(), bytes, compressed, header, reader })
}

impl Array {
    /// Bytes of memory to hold it, at most: those of its elements, and for each a text of it.
    fn held(&self) -> u64 {
        self.header.shape().iter().fold(self.bytes as u64 + 16, |n, &d| n.saturating_mul(d))
    }
}

/// The rest of an array's bytes, for which there is memory left.
fn bytes(mut array: Array, left_to_hold: &mut u64) -> Result<(Vec<u8>, TypeChar, usize), String> {
    let shape = array.header.shape();
    // [N], a single number, or [N, 1].
    if shape.len() > 2 || (shape.len() == 2 && shape[1] != 1) {
        return Err(format!("shape {shape:?}; expected [samples]"));
    }
    if array.compressed {
        *left_to_hold = left_to_hold.checked_sub(array.held()).ok_or_else(|| {
            format!(
                "shape {shape:?} of {} is too large to be held; save large files with np.savez, not compressed",
                array.header.dtype().descr()
            )
        })?;
    }
    let mut all = Vec::new();
    array.reader.read_to_end(&mut all).map_err(|e| e.to_string())?;
    Ok((all, array.kind, array.bytes))
}

fn integers(bytes: &[u8], kind: TypeChar, size: usize) -> Option<Vec<i64>> {
    match kind {
        TypeChar::Bool | TypeChar::Uint => array::integers(false, size, bytes),
        TypeChar::Int => array::integers(true, size, bytes),
        _ => None,
    }
}

fn ints(array: Array, left_to_hold: &mut u64) -> Result<Vec<i64>, String> {
    let found = array.header.dtype().descr();
    let (all, kind, size) = bytes(array, left_to_hold)?;
    integers(&all, kind, size).ok_or_else(|| format!("type {found}; expected integers"))
}

/// Integers or strings, as text.
fn texts(array: Array, left_to_hold: &mut u64) -> Result<Vec<String>, String> {
    let found = array.header.dtype().descr();
    let (all, kind, size) = bytes(array, left_to_hold)?;
    if let Some(codes) = integers(&all, kind, size) {
        return Ok(codes.iter().map(i64::to_string).collect());
    }
    let code = |b: &[u8; 4]| char::from_u32(u32::from_le_bytes(*b)).unwrap_or(char::REPLACEMENT_CHARACTER);
    match kind {
        _ if size == 0 => Err("its strings are all empty".into()),
        TypeChar::UnicodeStr => Ok(all
            .chunks_exact(size)
            .map(|s| s.as_chunks().0.iter().map(code).collect::<String>().trim_end_matches('\0').into())
            .collect()),
        TypeChar::ByteStr => Ok(all
            .chunks_exact(size)
            .map(|s| String::from_utf8_lossy(s).trim_end_matches('\0').into())
            .collect()),
        _ => Err(format!("type {found}; expected integers or strings")),
    }
}

/// A reader that checks length and CRC-32 of what it read at its end.
struct Checked<R> {
    inner: R,
    sum: crc32fast::Hasher,
    left: u64,
    crc: u32,
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 || out.is_empty() {
            return Ok(0);
        }
        let most = out.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let n = self.inner.read(&mut out[..most])?;
        if n == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is cut short"));
        }
        self.sum.update(&out[..n]);
        self.left -= n as u64;
        if self.left == 0 && self.sum.clone().finalize() != self.crc {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "its checksum is wrong: the file is damaged",
            ));
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    /// An array of zeros as numpy writes it, compressed.
    fn zeros(zip: &mut ZipWriter<File>, name: &str, kind: &str, shape: &str, bytes: usize) {
        let mut header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}");
        header.extend(std::iter::repeat_n(' ', (53 + 64 - header.len() % 64) % 64));
        header.push('\n');
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
        zip.start_file(format!("{name}.npy"), options).unwrap();
        zip.write_all(b"\x93NUMPY\x01\x00").unwrap();
        zip.write_all(&(header.len() as u16).to_le_bytes()).unwrap();
        zip.write_all(header.as_bytes()).unwrap();
        (0..bytes.div_ceil(1 << 20)).for_each(|i| {
            let part = (bytes - (i << 20)).min(1 << 20);
            zip.write_all(&vec![0; part]).unwrap();
        });
    }

    fn refusal(path: &Path) -> String {
        super::open(path).err().expect("it was read").to_string()
    }

    #[test]
    fn what_unpacks_without_end_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        // The greatest length that 32 bits hold, in the archive's directory and before the data.
        let path = folder.path().join("hollow.npz");
        let mut zip = ZipWriter::new(File::create(&path).unwrap());
        zeros(&mut zip, "logits", "<f4", "(1000, 1073741)", 1000);
        let length = (1000 + 128u32).to_le_bytes();
        zip.finish().unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let found: Vec<usize> = (0..bytes.len() - 4).filter(|&i| bytes[i..i + 4] == length).collect();
        assert_eq!(found.len(), 2, "the length stands in two places");
        found.iter().for_each(|&i| bytes[i..i + 4].copy_from_slice(&4_294_964_128u32.to_le_bytes()));
        std::fs::write(&path, bytes).unwrap();
        let error = refusal(&path);
        assert!(error.contains("at most a hundredfold"), "{error}");

        // Labels that are held: a few hundred kilobytes for half a gigabyte.
        let path = folder.path().join("labels.npz");
        let mut zip = ZipWriter::new(File::create(&path).unwrap());
        let n = 40_000_000;
        zeros(&mut zip, "logits", "<f2", &format!("({n}, 1)"), 2 * n);
        zeros(&mut zip, "labels", "|u1", &format!("({n},)"), n);
        zip.finish().unwrap();
        assert!(std::fs::metadata(&path).unwrap().len() < 1 << 20);
        let error = refusal(&path);
        assert!(error.contains("too large to be held"), "{error}");
    }
}
