//! Reading files with errors that name them.

use std::fs::{File, FileType};
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use crate::error::DataError;
use crate::nearest::nearest;

/// Most bytes of a file of settings, as recipes, maps and plans are. People write kilobytes.
const MOST_SETTINGS: u64 = 1 << 24;

/// Opens a file to read. Pipes, sockets and devices are refused: reading them may never end.
///
/// # Errors
/// It is missing, cannot be read, or is no plain file.
pub fn open_file(path: &Path) -> io::Result<File> {
    let kind = std::fs::metadata(path)?.file_type();
    if kind.is_file() {
        return File::open(path);
    }
    let (error, what) = match kind.is_dir() {
        true => (ErrorKind::IsADirectory, "a folder"),
        false => (ErrorKind::InvalidInput, special(kind)),
    };
    Err(io::Error::new(error, format!("it is {what}, not a file")))
}

#[cfg(unix)]
fn special(kind: FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    match kind {
        k if k.is_fifo() => "a pipe",
        k if k.is_socket() => "a socket",
        _ => "a device",
    }
}

#[cfg(not(unix))]
fn special(_: FileType) -> &'static str {
    "a device"
}

/// The whole of a file, as [`open_file`] opens it.
///
/// # Errors
/// As there, or reading fails.
pub fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_file(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The text of a file of settings: a recipe, a map, a plan.
///
/// # Errors
/// As [`read_file`]; it is longer than 16 MiB, or not UTF-8.
pub fn read_settings(path: &Path) -> io::Result<String> {
    let (mut text, file) = (String::new(), open_file(path)?);
    if file.metadata()?.len() > MOST_SETTINGS {
        return Err(io::Error::new(ErrorKind::FileTooLarge, "it is longer than 16 MiB, no file of settings"));
    }
    file.take(MOST_SETTINGS).read_to_string(&mut text)?;
    Ok(text)
}

/// The whole of a file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, DataError> {
    read_file(path).map_err(|e| unreadable(path, "file", e))
}

fn unreadable(path: &Path, expected: &'static str, e: io::Error) -> DataError {
    match e.kind() {
        ErrorKind::NotFound => missing(path, expected),
        _ => DataError::read(path, e),
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
    open_file(path).map(drop).map_err(|e| unreadable(path, "file", e))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_plain_file_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let _bound = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
        for (path, what) in [
            (folder.path(), "it is a folder"),
            (&socket, "it is a socket"),
            (&pipe, "it is a pipe"),
            (Path::new("/dev/zero"), "it is a device"),
            (&link, "it is a device"),
        ] {
            for error in [read_file(path).unwrap_err(), read_settings(path).unwrap_err()] {
                assert!(error.to_string().contains(what), "{}: {error}", path.display());
            }
            let error = require_file(path).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
    }

    #[test]
    fn settings_have_an_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("recipe.toml");
        // Without a block on the disk.
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert!(read_settings(&path).unwrap_err().to_string().contains("longer than 16 MiB"));
        std::fs::write(&path, "seed = 1").unwrap();
        assert_eq!(read_settings(&path).unwrap(), "seed = 1");
    }
}
