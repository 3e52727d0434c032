//! A registry as one file, for machines without a network: an uncompressed ZIP archive of an index
//! and of files by their content.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use halfstep_attest::DateTime;
use halfstep_attest::digest::{Digest, Hashing};
use serde::{Deserialize, Serialize};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::blobs::{sync_name, unfinished};
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
        let mut zip = ZipWriter::new(BufWriter::new(File::create(path).map_err(failed)?));
        let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        let text = json(index);
        zip.start_file(INDEX, stored.large_file(text.len() as u64 >= LARGE)).map_err(|e| failed(e.into()))?;
        zip.write_all(text.as_bytes()).map_err(failed)?;
        for (digest, bytes) in index.contents() {
            let from = self.blobs.path(digest);
            let source = File::open(&from).map_err(RegistryError::file(&from))?;
            let options = stored.large_file(bytes >= LARGE);
            zip.start_file(format!("{CONTENT}{digest}"), options).map_err(|e| failed(e.into()))?;
            let mut hashing = Hashing::new(source);
            let copied = io::copy(&mut hashing, &mut zip);
            copied.map_err(|source| RegistryError::Copy { from: from.clone(), to: path.into(), source })?;
            if hashing.finish() != (digest, bytes) {
                return Err(RegistryError::Changed(from));
            }
        }
        let mut buffer = zip.finish().map_err(|e| failed(e.into()))?;
        buffer.flush().and_then(|()| buffer.get_ref().sync_all()).map_err(failed)
    }
}
