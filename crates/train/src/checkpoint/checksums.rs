//! Checksums over the files of a checkpoint.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::files::{Files, WriteFile};
use crate::run_log::hex;

/// The file of checksums, the last of a checkpoint that is written.
pub const MANIFEST: &str = "manifest.json";
const FORMAT: &str = "halfstep-checkpoint";
const VERSION: u32 = 1;

/// Length and SHA-256 of every file of a checkpoint but this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checksums {
    format: String,
    version: u32,
    files: BTreeMap<String, Checksum>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Checksum {
    bytes: u64,
    sha256: String,
}

impl Default for Checksums {
    fn default() -> Checksums {
        Checksums { format: FORMAT.into(), version: VERSION, files: BTreeMap::new() }
    }
}

impl Checksums {
    /// Writes a file of `folder` and remembers its checksum. It is on the disk when this returns.
    pub(crate) fn write(
        &mut self,
        files: &dyn Files,
        folder: &Path,
        name: &str,
        content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let file = files.create(&folder.join(name))?;
        let mut out = io::BufWriter::with_capacity(1 << 18, Hashing { file, hash: Sha256::new(), bytes: 0 });
        content(&mut out)?;
        let mut hashing = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        hashing.file.sync()?;
        let checksum = Checksum { bytes: hashing.bytes, sha256: hex(&hashing.hash.finalize()) };
        self.files.insert(name.to_string(), checksum);
        Ok(())
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.values().map(|f| f.bytes).sum()
    }

    /// Reads the checksums of a checkpoint.
    ///
    /// # Errors
    /// What is wrong with them, in words.
    pub fn read(folder: &Path) -> Result<Checksums, String> {
        let text = halfstep_data::read_file(&folder.join(MANIFEST))
            .map_err(|e| format!("`{MANIFEST}` cannot be read: {e}"))?;
        let sums: Checksums =
            serde_json::from_slice(&text).map_err(|e| format!("`{MANIFEST}` makes no sense: {e}"))?;
        if (sums.format.as_str(), sums.version) != (FORMAT, VERSION) {
            let (format, version) = (&sums.format, sums.version);
            return Err(format!("it is of format {format} {version}, this program reads {FORMAT} {VERSION}"));
        }
        Ok(sums)
    }

    /// Names of the files.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// Reads a file and compares it with its checksum.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn read_file(&self, folder: &Path, name: &str) -> Result<Vec<u8>, String> {
        let expected = self.files.get(name).ok_or_else(|| format!("`{MANIFEST}` does not name `{name}`"))?;
        let bytes = halfstep_data::read_file(&folder.join(name))
            .map_err(|e| format!("`{name}` cannot be read: {e}"))?;
        if bytes.len() as u64 != expected.bytes {
            let (found, expected) = (bytes.len(), expected.bytes);
            return Err(format!("`{name}` has {found} bytes, {expected} were written"));
        }
        let found = hex(&Sha256::digest(&bytes));
        if found != expected.sha256 {
            return Err(format!(
                "`{name}` has changed: its SHA-256 is {found:.8}…, it was {:.8}…",
                expected.sha256
            ));
        }
        Ok(bytes)
    }
}

struct Hashing {
    file: Box<dyn WriteFile>,
    hash: Sha256,
    bytes: u64,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.hash.update(&bytes[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
