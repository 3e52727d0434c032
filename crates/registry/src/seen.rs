//! What a client remembers of a registry: the highest move that it saw. A registry that has no
//! such move any more was brought back to an older state.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use halfstep_attest::movement::MoveLink;
use serde::Serialize;

use crate::actor::{Act, Actor};
use crate::database::json;
use crate::error::RegistryError;
use crate::moves::{self, check_chain};
use crate::registry::Registry;

/// Whether an older state is accepted.
#[derive(Clone, Copy, Debug)]
pub enum Older<'a> {
    /// It is refused.
    Refused,
    /// It is accepted by somebody, for a reason, and what was seen is forgotten.
    Accepted(&'a Act),
}

impl<'a> From<Option<&'a Act>> for Older<'a> {
    fn from(accepted: Option<&'a Act>) -> Older<'a> {
        accepted.map_or(Older::Refused, Older::Accepted)
    }
}

/// An older state that was accepted, as a line of a file.
#[derive(Serialize)]
struct Accepted<'a> {
    when: String,
    who: &'a Actor,
    reason: &'a Option<String>,
    /// What was seen before, where it could be read.
    seen: Option<MoveLink>,
    /// What is accepted in its place.
    now: Option<MoveLink>,
}

impl Registry {
    /// Compares the registry with the highest move that was seen of it, which a file in `folder`
    /// keeps, and remembers what it has now. The moves since then are checked to follow each other.
    /// An older state that is accepted is noted in another file there, with who, when and why.
    ///
    /// # Errors
    /// The registry has fewer moves than were seen, or others; a file cannot be read or written.
    pub fn remember(&self, folder: &Path, older: Older<'_>) -> Result<(), RegistryError> {
        self.remember_as(self.folder(), folder, older)
    }

    /// The same, where messages call the registry `shown`.
    pub(crate) fn remember_as(
        &self,
        shown: &Path,
        folder: &Path,
        older: Older<'_>,
    ) -> Result<(), RegistryError> {
        fs::create_dir_all(folder).map_err(unremembered(folder))?;
        let path = folder.join(format!("{}.json", self.id()));
        let lock = folder.join(format!("{}.lock", self.id()));
        let lock_file = File::options().create(true).truncate(false).write(true).open(&lock);
        let lock_file = lock_file.map_err(unremembered(&lock))?;
        lock_file.lock().map_err(unremembered(&lock))?;
        let (seen, now) = match read(&path) {
            Ok(seen) => (seen, self.since(shown, seen)),
            Err(e @ RegistryError::Rewound(_)) => (None, Err(e)),
            Err(e) => return Err(e),
        };
        let now = match (now, older) {
            (Err(RegistryError::Rewound(_)), Older::Accepted(act)) => {
                let now = self.since(shown, None)?;
                let Act { who, at, reason } = act;
                let line = Accepted { when: at.to_string(), who, reason, seen, now };
                note(&folder.join(format!("{}.accepted.jsonl", self.id())), &line)?;
                now
            }
            (now, _) => now?,
        };
        match now {
            Some(now) if Some(now) != seen => write(&path, now),
            _ => Ok(()),
        }
    }

    /// The last move, if the registry has the move that was seen and those since then follow it.
    fn since(&self, shown: &Path, seen: Option<MoveLink>) -> Result<Option<MoveLink>, RegistryError> {
        self.database.read(|tx| {
            let moves = moves::history(tx, seen.map_or(1, |seen| seen.number))?;
            let last = moves.last().map(moves::Recorded::link);
            let Some(seen) = seen else {
                check_chain(self.id(), None, &moves)?;
                return Ok(last);
            };
            match moves.first().map(moves::Recorded::link) {
                None => Err(RegistryError::Rewound(format!(
                    "{}: the registry ends before move {}, which was seen here: it was brought back to an older state, by a backup or by an attacker",
                    shown.display(),
                    seen.number
                ))),
                Some(there) if there != seen => Err(RegistryError::Rewound(format!(
                    "{}: move {} of the registry is not the one that was seen here: its history was written again",
                    shown.display(),
                    seen.number
                ))),
                Some(_) => {
                    check_chain(self.id(), Some(seen), &moves[1..])?;
                    Ok(last)
                }
            }
        })
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
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(unremembered(path)(e)),
    }
}

fn write(path: &Path, link: MoveLink) -> Result<(), RegistryError> {
    let unfinished = path.with_extension("unfinished");
    fs::write(&unfinished, json(&link)).map_err(unremembered(&unfinished))?;
    File::open(&unfinished).and_then(|f| f.sync_all()).map_err(unremembered(&unfinished))?;
    fs::rename(&unfinished, path).map_err(unremembered(path))
}

fn note(path: &Path, line: &Accepted<'_>) -> Result<(), RegistryError> {
    let mut file = File::options().create(true).append(true).open(path).map_err(unremembered(path))?;
    file.write_all((json(line) + "\n").as_bytes()).map_err(unremembered(path))
}

/// Says which file of what was seen cannot be used.
fn unremembered(path: &Path) -> impl FnOnce(io::Error) -> RegistryError {
    let path = path.to_path_buf();
    move |source| RegistryError::Unremembered { path, source }
}
