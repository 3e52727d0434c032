//! Holds: what keeps `gc` from removing versions that are in use.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use halfstep_attest::digest::Digest;
use serde::{Deserialize, Serialize};

use crate::database::json;
use crate::error::RegistryError;
use crate::names::RegisteredName;
use crate::registry::Registry;
use crate::version::{self, Version};

/// Most bytes of a hold's file.
const MOST: u64 = 64 << 20;

/// A version by its model and digest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VersionKey {
    /// The model.
    pub model: RegisteredName,
    /// The digest of the version.
    pub digest: Digest,
}

impl Version {
    /// What names it.
    pub fn key(&self) -> VersionKey {
        VersionKey { model: self.model.clone(), digest: self.digest }
    }
}

/// Keeps versions from being removed until it is dropped or its process ends, however it ends: it
/// is a locked file, and the system unlocks what a dead process held.
#[derive(Debug)]
pub struct Hold {
    path: PathBuf,
    /// Locked.
    _file: File,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// What stands in the folder of holds.
pub(crate) struct Held {
    /// Every version that a living process holds.
    pub versions: Vec<VersionKey>,
    /// The files of dead ones.
    pub left: Vec<PathBuf>,
}

impl Registry {
    /// Holds versions. Where the registry is read-only it returns none: then they are there until
    /// somebody collects them who can write to it.
    ///
    /// # Errors
    /// One is not there; the registry's disk is full, or its file system has no locks.
    pub fn hold(&self, versions: &[VersionKey]) -> Result<Option<Hold>, RegistryError> {
        match self.hold_in_writing(versions) {
            Ok(hold) => Ok(Some(hold)),
            Err(e) if e.is_read_only() => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn hold_in_writing(&self, versions: &[VersionKey]) -> Result<Hold, RegistryError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (path, mut file) = loop {
            let n = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = self.holds().join(format!("{}-{n}", std::process::id()));
            // Under the write lock, so that `gc` does not find it between its making and locking.
            let made =
                self.database.write(|_| match File::options().create_new(true).write(true).open(&path) {
                    Ok(file) => {
                        file.try_lock().map_err(|e| RegistryError::file(&path)(e.into()))?;
                        Ok(Some(file))
                    }
                    Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(None),
                    Err(e) => Err(RegistryError::file(&path)(e)),
                })?;
            if let Some(file) = made {
                break (path, file);
            }
        };
        file.write_all(json(&versions).as_bytes()).map_err(RegistryError::file(&path))?;
        let hold = Hold { path, _file: file };
        // Whatever `gc` decided before has been done; whatever it decides later, it sees this file.
        self.database.write(|tx| {
            versions.iter().try_for_each(|v| version::read(tx, &v.model, v.digest)?.present().map(|_| ()))
        })?;
        Ok(hold)
    }

    /// What is held, and what was. To be called under the write lock.
    ///
    /// # Errors
    /// A hold cannot be read, such as one of another user: nobody knows what it keeps.
    pub(crate) fn held(&self) -> Result<Held, RegistryError> {
        let folder = self.holds();
        let mut held = Held { versions: Vec::new(), left: Vec::new() };
        for entry in fs::read_dir(&folder).map_err(RegistryError::file(&folder))? {
            let path = entry.map_err(RegistryError::file(&folder))?.path();
            let mut file = match crate::blobs::open(&path) {
                Ok(file) => file,
                // Let go meanwhile.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(RegistryError::file(&path)(e)),
            };
            match file.try_lock() {
                Ok(()) => held.left.push(path),
                Err(fs::TryLockError::WouldBlock) => {
                    let mut text = String::new();
                    (&mut file).take(MOST).read_to_string(&mut text).map_err(RegistryError::file(&path))?;
                    let of: Result<Vec<VersionKey>, _> = serde_json::from_str(&text);
                    // Not yet written to: its process has not been told that it holds anything.
                    held.versions.extend(of.unwrap_or_default());
                }
                Err(fs::TryLockError::Error(e)) => return Err(RegistryError::file(&path)(e)),
            }
        }
        Ok(held)
    }
}
