//! A registry as one file, for machines without a network: an uncompressed ZIP archive of an index
//! and of files by their content.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

use halfstep_attest::DateTime;
use halfstep_attest::digest::{Digest, Hashing};
use serde::{Deserialize, Serialize};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::blobs::{self, sync_name, unfinished};
use crate::database::json;
use crate::error::RegistryError;
use crate::moment;
use crate::moves::{self, MoveRecord, Recorded};
use crate::names::RegisteredName;
use crate::registry::Registry;
use crate::version::{self, Version};

/// The entry of the index.
pub(crate) const INDEX: &str = "registry.json";
/// Before the digest in the names of other entries.
pub(crate) const CONTENT: &str = "blobs/";
/// The form of the index.
pub(crate) const FORM: u32 = 1;
/// From so many bytes on an entry needs ZIP's larger numbers.
const LARGE: u64 = u32::MAX as u64;

/// What an export says of a registry.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Index {
    /// [`FORM`].
    pub form: u32,
    /// The registry's identity.
    pub registry: String,
    /// When it was exported.
    #[serde(with = "moment")]
    pub exported: DateTime,
    /// Every version. Those of models that are left out have no files.
    pub versions: Vec<Version>,
    /// Every move from the first on.
    pub moves: Vec<ExportedMove>,
}

/// A move, without its digest, which follows from its record.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExportedMove {
    pub record: MoveRecord,
    pub signature: Option<String>,
}

impl Index {
    /// The files that belong to it, with their sizes. A version without its files has none, and
    /// its attachments stay.
    pub fn contents(&self) -> BTreeMap<Digest, u64> {
        let of = |version: &Version| {
            let files = version.files.iter().filter(|_| version.removed.is_none());
            let attached = version.attachments.iter().map(|a| (a.sha256, a.bytes));
            files.map(|f| (f.sha256, f.bytes)).chain(attached).collect::<Vec<_>>()
        };
        self.versions.iter().flat_map(of).collect()
    }
}

/// What was exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exported {
    /// Versions with their files.
    pub versions: u64,
    /// Moves.
    pub moves: u64,
    /// Files of versions, and what is attached to them.
    pub files: u64,
    /// Bytes of these files.
    pub bytes: u64,
}

impl Registry {
    /// Writes the registry to a file that is not there yet, whole or not at all: every version, all
    /// that is attached, and every move. Of a `model` that is named, only its files and
    /// attachments; of others it then says which versions there were, so that the history stays
    /// whole.
    ///
    /// # Errors
    /// There is no such model; the file exists or cannot be written; a file of the registry is
    /// missing or damaged.
    pub fn export(
        &self,
        file: &Path,
        model: Option<&RegisteredName>,
        at: DateTime,
    ) -> Result<Exported, RegistryError> {
        if file.exists() {
            let why = "there is something of this name already: name another file".to_string();
            return Err(RegistryError::Archive { path: file.into(), why });
        }
        let (mut versions, moves) =
            self.database.read(|tx| Ok((version::all(tx)?, moves::history(tx, 0)?)))?;
        if let Some(model) = model {
            version::check_model(&versions, model)?;
        }
        for version in versions.iter_mut().filter(|v| model.is_some_and(|model| v.model != *model)) {
            version.removed.get_or_insert_with(|| at.to_string());
            version.attachments.clear();
        }
        let keys: Vec<_> = versions.iter().filter(|v| v.removed.is_none()).map(Version::key).collect();
        let _hold = self.hold(&keys)?;
        let moved = |Recorded { record, signature, .. }| ExportedMove { record, signature };
        let moves = moves.into_iter().map(moved).collect();
        let index = Index { form: FORM, registry: self.id().into(), exported: at, versions, moves };
        let unfinished = unfinished(file);
        let written = self
            .write_archive(&unfinished, &index)
            .and_then(|()| fs::rename(&unfinished, file).map_err(RegistryError::file(file)));
        if written.is_err() {
            let _ = fs::remove_file(&unfinished);
        }
        written?;
        sync_name(file)?;
        let contents = index.contents();
        Ok(Exported {
            versions: keys.len() as u64,
            moves: index.moves.len() as u64,
            files: contents.len() as u64,
            bytes: contents.values().sum(),
        })
    }

    fn write_archive(&self, path: &Path, index: &Index) -> Result<(), RegistryError> {
        let failed = |e: io::Error| RegistryError::file(path)(e);
        let file = BufWriter::new(File::create(path).map_err(failed)?);
        let mut zip = ZipWriter::new(FailsOnce { inner: file, at: 0, end: 0, failed: false });
        let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        let text = json(index);
        zip.start_file(INDEX, stored.large_file(text.len() as u64 >= LARGE)).map_err(|e| failed(e.into()))?;
        zip.write_all(text.as_bytes()).map_err(failed)?;
        for (digest, bytes) in index.contents() {
            let from = self.blobs.path(digest);
            let source = blobs::open(&from).map_err(RegistryError::file(&from))?;
            let options = stored.large_file(bytes >= LARGE);
            zip.start_file(format!("{CONTENT}{digest}"), options).map_err(|e| failed(e.into()))?;
            let mut hashing = Hashing::new(source);
            let copied = io::copy(&mut hashing, &mut zip);
            copied.map_err(|source| RegistryError::Copy { from: from.clone(), to: path.into(), source })?;
            blobs::as_added(&from, hashing.finish(), (digest, bytes))?;
        }
        let mut buffer = zip.finish().map_err(|e| failed(e.into()))?.inner;
        buffer.flush().and_then(|()| buffer.get_ref().sync_all()).map_err(failed)
    }
}

/// A writer that fails once, and from then on only counts: an archive that is given up is finished
/// when it is dropped, and would print to stderr that this fails too.
struct FailsOnce<W> {
    inner: W,
    at: u64,
    end: u64,
    failed: bool,
}

impl<W> FailsOnce<W> {
    /// Does something unless something failed before.
    fn once<T>(&mut self, instead: T, act: impl FnOnce(&mut W) -> io::Result<T>) -> io::Result<T> {
        if self.failed {
            return Ok(instead);
        }
        let done = act(&mut self.inner);
        self.failed = done.as_ref().is_err_and(|e| e.kind() != io::ErrorKind::Interrupted);
        done
    }

    fn moved(&mut self, to: u64) -> u64 {
        self.at = to;
        self.end = self.end.max(to);
        to
    }
}

impl<W: Write> Write for FailsOnce<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.once(bytes.len(), |inner| inner.write(bytes))?;
        self.moved(self.at + written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.once((), Write::flush)
    }
}

impl<W: Seek> Seek for FailsOnce<W> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let counted = match to {
            SeekFrom::Start(at) => at,
            SeekFrom::Current(by) => self.at.saturating_add_signed(by),
            SeekFrom::End(by) => self.end.saturating_add_signed(by),
        };
        let at = self.once(counted, |inner| inner.seek(to))?;
        Ok(self.moved(at))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// Has room for so many bytes.
    struct Small(Cursor<Vec<u8>>, usize);

    impl Write for Small {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            assert!(self.1 != usize::MAX, "asked again after it failed");
            if self.0.position() as usize + bytes.len() > self.1 {
                self.1 = usize::MAX;
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            self.0.flush()
        }
    }

    impl Seek for Small {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.0.seek(to)
        }
    }

    #[test]
    fn an_archive_fails_once_and_is_given_up_in_silence() {
        let archive = |room: usize| {
            let inner = Small(Cursor::new(Vec::new()), room);
            let mut zip = ZipWriter::new(FailsOnce { inner, at: 0, end: 0, failed: false });
            let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
            let mut failures = 0;
            for name in ["a", "b"] {
                failures += u32::from(zip.start_file(name, stored).is_err());
                failures += u32::from(zip.write_all(&[7; 100]).is_err());
            }
            // What a drop does.
            let finished = zip.finish();
            if failures > 0 {
                assert!(finished.is_ok(), "{room}: it fails again");
            }
            (failures, finished.map(|file| file.inner.0.into_inner()))
        };
        let (none, whole) = archive(10_000);
        let whole = whole.unwrap();
        assert_eq!(none, 0);
        for room in 0..whole.len() {
            let (failures, finished) = archive(room);
            assert!(failures > 0 || finished.is_err(), "{room}");
        }
        assert_eq!(archive(whole.len()).1.unwrap(), whole);
    }
}
