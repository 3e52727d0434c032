//! What a client remembers of a registry: the highest move that it saw. A registry that has no
//! such move any more was brought back to an older state.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use halfstep_attest::movement::MoveLink;

use crate::database::json;
use crate::error::RegistryError;
use crate::moves::{self, check_chain};
use crate::registry::Registry;

/// Whether an older state is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Older {
    /// It is refused.
    Refused,
    /// It is accepted, and what was seen is forgotten.
    Accepted,
}

impl Registry {
    /// Compares the registry with the highest move that was seen of it, which a file in `folder`
    /// keeps, and remembers what it has now. The moves since then are checked to follow each other.
    ///
    /// # Errors
    /// The registry has fewer moves than were seen, or others; the file cannot be read or written.
    pub fn remember(&self, folder: &Path, older: Older) -> Result<(), RegistryError> {
        fs::create_dir_all(folder).map_err(RegistryError::file(folder))?;
        let path = folder.join(format!("{}.json", self.id()));
        let lock = folder.join(format!("{}.lock", self.id()));
        let lock_file = File::options().create(true).truncate(false).write(true).open(&lock);
        let lock_file = lock_file.map_err(RegistryError::file(&lock))?;
        lock_file.lock().map_err(RegistryError::file(&lock))?;
        let seen = read(&path)?.filter(|_| older == Older::Refused);
        let now = self.database.read(|tx| {
            let moves = moves::history(tx, seen.map_or(1, |seen| seen.number))?;
            let last = moves.last().map(moves::Recorded::link);
            let Some(seen) = seen else {
                check_chain(self.id(), None, &moves)?;
                return Ok(last);
            };
            match moves.first().map(moves::Recorded::link) {
                None => Err(RegistryError::Rewound(format!(
                    "{}: the registry ends before move {}, which was seen here: it was brought back to an older state, by a backup or by an attacker",
                    self.folder().display(),
                    seen.number
                ))),
                Some(there) if there != seen => Err(RegistryError::Rewound(format!(
                    "{}: move {} of the registry is not the one that was seen here: its history was written again",
                    self.folder().display(),
                    seen.number
                ))),
                Some(_) => {
                    check_chain(self.id(), Some(seen), &moves[1..])?;
                    Ok(last)
                }
            }
        })?;
        match now {
            Some(now) if Some(now) != seen => write(&path, now),
            _ => Ok(()),
        }
    }
}

fn read(path: &PathBuf) -> Result<Option<MoveLink>, RegistryError> {
    match fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text).map(Some).map_err(|e| {
            RegistryError::Rewound(format!(
                "{}: what was seen of the registry cannot be read ({e}); if you trust the registry, accept it anew",
                path.display()
            ))
        }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(RegistryError::file(path)(e)),
    }
}

fn write(path: &Path, link: MoveLink) -> Result<(), RegistryError> {
    let unfinished = path.with_extension("unfinished");
    fs::write(&unfinished, json(&link)).map_err(RegistryError::file(&unfinished))?;
    File::open(&unfinished).and_then(|f| f.sync_all()).map_err(RegistryError::file(&unfinished))?;
    fs::rename(&unfinished, path).map_err(RegistryError::file(path))
}
