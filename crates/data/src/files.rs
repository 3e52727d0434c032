//! Reading files with errors that name them.

use std::path::Path;

use crate::error::DataError;
use crate::nearest::nearest;

/// The whole of a file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, DataError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(bytes),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(missing(path, "file")),
        Err(e) => Err(DataError::read(path, e)),
    }
}

/// The text of a file's bytes.
pub(crate) fn utf8(bytes: Vec<u8>, path: &Path) -> Result<String, DataError> {
    String::from_utf8(bytes).map_err(|e| {
        let offset = e.utf8_error().valid_up_to();
        let line = 1 + e.as_bytes()[..offset].iter().filter(|&&b| b == b'\n').count();
        DataError::NotUtf8 { path: path.to_owned(), offset, line }
    })
}

/// The error for a path that does not exist, with the most similar name in its folder.
pub(crate) fn missing(path: &Path, expected: &'static str) -> DataError {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let names: Vec<String> = std::fs::read_dir(folder)
        .map(|entries| entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    let wanted = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let nearest = nearest(&wanted, names.iter().map(String::as_str)).map(str::to_owned);
    DataError::MissingFile { path: path.to_owned(), expected, nearest }
}

/// Refuses a path that is not there or not a folder.
pub(crate) fn require_folder(path: &Path) -> Result<(), DataError> {
    if path.is_dir() { Ok(()) } else { Err(missing(path, "folder")) }
}

/// Refuses a path that is not there or not a file.
pub(crate) fn require_file(path: &Path) -> Result<(), DataError> {
    if path.is_file() { Ok(()) } else { Err(missing(path, "file")) }
}
