//! Bytes of a file as text, whatever their encoding.

use std::path::Path;

use encoding_rs::{Encoding, UTF_16BE, UTF_16LE};

use crate::error::DataError;
use crate::files;

/// Bytes that are looked at for zeros.
const LOOKED_AT: usize = 4096;

/// Reads a text in UTF-8, or with a byte-order mark in UTF-16.
///
/// # Errors
/// It cannot be read, or is in another encoding.
pub fn read_text(path: &Path) -> Result<String, DataError> {
    read_declared(path, None)
}

/// Reads a text. A byte-order mark says what it is; without one it is UTF-8, and else what
/// `declared` says.
pub(crate) fn read_declared(path: &Path, declared: Option<&str>) -> Result<String, DataError> {
    text(files::read(path)?, path, declared)
}

/// The encoding that a recipe has to name for these bytes, if any: those of UTF-16 have zeros, and
/// what is neither that nor UTF-8 was most often written by an older Windows program.
pub(crate) fn needed(bytes: &[u8]) -> Option<&'static str> {
    if Encoding::for_bom(bytes).is_some() {
        return None;
    }
    let zeros = |from: usize| {
        let looked_at = &bytes[..bytes.len().min(LOOKED_AT)];
        let own = looked_at.iter().skip(from).step_by(2);
        bytes.len().is_multiple_of(2)
            && own.len() > 0
            && own.clone().filter(|b| **b == 0).count() * 10 > own.len() * 8
    };
    match (zeros(0), zeros(1)) {
        (false, true) => Some("utf-16le"),
        (true, false) => Some("utf-16be"),
        _ if std::str::from_utf8(bytes).is_err() => Some("windows-1252"),
        _ => None,
    }
}

pub(crate) fn text(bytes: Vec<u8>, path: &Path, declared: Option<&str>) -> Result<String, DataError> {
    let declared = declared.and_then(|name| Encoding::for_label(name.as_bytes()));
    let wide = |encoding| encoding == UTF_16LE || encoding == UTF_16BE;
    let encoding = match Encoding::for_bom(&bytes) {
        Some((encoding, _)) => Some(encoding),
        // UTF-16 of plain letters is UTF-8 too, with zeros between them.
        None if declared.is_some_and(wide) => declared,
        None if std::str::from_utf8(&bytes).is_ok() && needed(&bytes).is_none() => None,
        None => declared,
    };
    let Some(encoding) = encoding else {
        return match needed(&bytes) {
            Some(name) if name != "windows-1252" => {
                Err(DataError::Encoding { path: path.to_owned(), looks_like: name })
            }
            _ => files::utf8(bytes, path),
        };
    };
    let (text, _, damaged) = encoding.decode(&bytes);
    if damaged {
        let reason = format!("it is not text in {}: some bytes are no characters there", encoding.name());
        return Err(DataError::unusable(path, reason));
    }
    Ok(text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], declared: Option<&str>) -> Result<String, String> {
        text(bytes.to_vec(), Path::new("t.csv"), declared).map_err(|e| e.to_string())
    }

    fn utf16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(bytes).collect()
    }

    #[test]
    fn marks_and_names_decide() {
        let words = "a,größe\n1,é\n";
        assert_eq!(read(words.as_bytes(), None).unwrap(), words);
        assert_eq!(read(words.as_bytes(), Some("windows-1252")).unwrap(), words, "what is UTF-8 stays so");
        assert_eq!(read(&[b"\xEF\xBB\xBF", words.as_bytes()].concat(), None).unwrap(), words);
        let (little, big) = (utf16(words, u16::to_le_bytes), utf16(words, u16::to_be_bytes));
        assert_eq!(read(&[b"\xFF\xFE", &little[..]].concat(), None).unwrap(), words);
        assert_eq!(read(&[b"\xFE\xFF", &big[..]].concat(), None).unwrap(), words);
        assert_eq!((needed(&little), needed(&big)), (Some("utf-16le"), Some("utf-16be")));
        assert_eq!(read(&little, Some("utf-16le")).unwrap(), words);
        assert!(read(&big, None).unwrap_err().contains("`encoding = \"utf-16be\"`"));
        let latin = b"a,gr\xF6\xDFe\n1,\xE9\n";
        assert_eq!(needed(latin), Some("windows-1252"));
        assert_eq!(read(latin, Some("windows-1252")).unwrap(), words);
        let refused = read(latin, None).unwrap_err();
        assert!(
            refused.contains("byte 4 (line 1)") && refused.contains("`encoding = \"windows-1252\"`"),
            "{refused}"
        );
        assert!(read(b"\x81\xFF\n", Some("shift_jis")).unwrap_err().contains("not text in Shift_JIS"));
    }
}
