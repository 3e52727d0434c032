//! The log of a run: `metrics.jsonl`, one JSON object per line, which only grows; and going on with
//! one.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::files::{Files, WriteFile};
use crate::metrics::Event;
use crate::run_dir::{RunDirError, damaged, failed, read};

/// How far a log had come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPosition {
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of these bytes, in hexadecimal.
    pub sha256: String,
}

/// A file of JSON objects, one per line, that grows.
#[derive(Debug)]
pub struct Lines {
    path: PathBuf,
    file: Box<dyn WriteFile>,
    whole: u64,
    hash: Sha256,
}

impl Lines {
    /// Makes the file.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn create(files: &dyn Files, path: &Path) -> Result<Lines, RunDirError> {
        let file = files.create(path).map_err(failed(path))?;
        Ok(Lines { path: path.to_path_buf(), file, whole: 0, hash: Sha256::new() })
    }

    /// Goes on behind `position`: what a run wrote after its checkpoint is cut off, for it will be
    /// written again.
    ///
    /// # Errors
    /// The file has changed before `position`; it cannot be written to.
    pub fn resume(files: &dyn Files, path: &Path, position: &LogPosition) -> Result<Lines, RunDirError> {
        let bytes = read_to(path, position)?;
        let file = files.append(path, position.bytes).map_err(failed(path))?;
        let hash = Sha256::new_with_prefix(&bytes);
        Ok(Lines { path: path.to_path_buf(), file, whole: position.bytes, hash })
    }

    /// Goes on behind the last whole line, whatever it is: for logs that no checkpoint depends on.
    ///
    /// # Errors
    /// It cannot be read or written to.
    pub fn extend(files: &dyn Files, path: &Path) -> Result<Lines, RunDirError> {
        let mut bytes = read(path)?;
        bytes.truncate(bytes.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1));
        let file = files.append(path, bytes.len() as u64).map_err(failed(path))?;
        let hash = Sha256::new_with_prefix(&bytes);
        Ok(Lines { path: path.to_path_buf(), file, whole: bytes.len() as u64, hash })
    }

    /// Adds one line. If that fails, the part of it that was written is taken away again.
    ///
    /// # Errors
    /// The disk is full or gone.
    pub fn push<T: Serialize>(&mut self, value: &T) -> Result<(), RunDirError> {
        let mut line = serde_json::to_vec(value).map_err(|e| failed(&self.path)(e.into()))?;
        line.push(b'\n');
        if let Err(e) = self.file.write_all(&line) {
            let _ = self.file.set_len(self.whole);
            return Err(failed(&self.path)(e));
        }
        self.whole += line.len() as u64;
        self.hash.update(&line);
        Ok(())
    }

    /// How far it has come.
    pub fn position(&self) -> LogPosition {
        LogPosition { bytes: self.whole, sha256: hex(&self.hash.clone().finalize()) }
    }
}

/// The events of a log up to `position`.
///
/// # Errors
/// The file is missing or shorter, or has changed before `position`.
pub fn events(path: &Path, position: &LogPosition) -> Result<Vec<Event>, RunDirError> {
    let bytes = read_to(path, position)?;
    let damaged = damaged(path);
    let event = |line| serde_json::from_slice(line).map_err(|e: serde_json::Error| damaged(e.to_string()));
    bytes.split(|&b| b == b'\n').filter(|line| !line.is_empty()).map(event).collect()
}

fn read_to(path: &Path, position: &LogPosition) -> Result<Vec<u8>, RunDirError> {
    let is_missing = position.bytes == 0 && !path.exists();
    let mut bytes = if is_missing { Vec::new() } else { read(path)? };
    let damaged = damaged(path);
    if (bytes.len() as u64) < position.bytes {
        let (found, expected) = (bytes.len(), position.bytes);
        return Err(damaged(format!("it has {found} bytes; the checkpoint was made after {expected}")));
    }
    bytes.truncate(position.bytes as usize);
    if position.bytes > 0 && hex(&Sha256::digest(&bytes)) != position.sha256 {
        let reason = format!("its first {} bytes are not those that the run wrote", position.bytes);
        return Err(damaged(reason));
    }
    Ok(bytes)
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Disk;

    #[test]
    fn lines_are_json_each() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.jsonl");
        let mut lines = Lines::create(&Disk, &path).unwrap();
        lines.push(&serde_json::json!({"a": 1})).unwrap();
        lines.push(&f64::NAN).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"a\":1}\nnull\n");
    }

    #[test]
    fn a_log_goes_on_where_its_checkpoint_was_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.jsonl");
        let mut lines = Lines::create(&Disk, &path).unwrap();
        (1..4).for_each(|i| lines.push(&i).unwrap());
        let position = lines.position();
        lines.push(&"to be written again").unwrap();
        drop(lines);
        let mut lines = Lines::resume(&Disk, &path, &position).unwrap();
        assert_eq!(lines.position(), position);
        lines.push(&4).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n2\n3\n4\n");
        for (other, says) in [("1\n2\n", "has 4 bytes"), ("1\n2\n4\n", "are not those")] {
            std::fs::write(&path, other).unwrap();
            let e = Lines::resume(&Disk, &path, &position).unwrap_err();
            assert!(e.to_string().contains(says), "{e}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), other, "nothing is cut");
        }
    }

    /// `/dev/full` refuses every write as a full disk does.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_named() {
        let mut lines = Lines {
            path: "/dev/full".into(),
            file: Disk.append(Path::new("/dev/full"), 0).unwrap(),
            whole: 0,
            hash: Sha256::new(),
        };
        let e = lines.push(&1).unwrap_err();
        assert!(e.to_string().contains("free some space"), "{e}");
    }
}
