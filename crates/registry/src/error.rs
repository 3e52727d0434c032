//! What can go wrong with a registry.

use std::io;
use std::path::{Path, PathBuf};

use halfstep_attest::digest::Digest;
use rusqlite::ErrorCode;
use thiserror::Error;

/// The file of the database.
pub(crate) const DATABASE: &str = "registry.db";

/// Why a registry did not do what it was asked to.
#[derive(Debug, Error)]
pub enum RegistryError {
    /// A file or folder of it cannot be read or written.
    #[error("{}: {source}{}", path.display(), advice(source))]
    File {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What was seen of registries cannot be remembered.
    #[error("{}: {source}{}: what was seen of registries is kept there, so that an older state is noticed", path.display(), advice(source))]
    Unremembered {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file could not be copied.
    #[error("copying {} to {}: {source}{}", from.display(), to.display(), advice(source))]
    Copy {
        /// What was copied.
        from: PathBuf,
        /// Where to.
        to: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is none.
    #[error("{}: there is no registry; `halfstep registry add` makes one", .0.display())]
    Absent(PathBuf),
    /// The folder is somebody else's.
    #[error("{}: the folder holds something and no registry: name an empty one, or one that does not exist", .0.display())]
    Occupied(PathBuf),
    /// The database is not ours.
    #[error("{}: this is no database of a registry: {why}", path.display())]
    Foreign {
        /// Its file.
        path: PathBuf,
        /// What it is.
        why: String,
    },
    /// The database is damaged.
    #[error("{}: the database is damaged ({why}): bring back the registry from a backup or an export", path.display())]
    Corrupt {
        /// Its file.
        path: PathBuf,
        /// What was found.
        why: String,
    },
    /// The database refuses.
    #[error("{}: {why}", path.display())]
    Database {
        /// Its file.
        path: PathBuf,
        /// Why, and what to do.
        why: String,
    },
    /// The database cannot be written.
    #[error("{}: it cannot be written: it, its folder or the file system is read-only", .0.display())]
    ReadOnly(PathBuf),
    /// A text is no name.
    #[error(transparent)]
    Name(#[from] crate::names::NameError),
    /// There is no such version, alias or model.
    #[error("{what} is not in this registry{}", among(.there))]
    Unknown {
        /// What was asked for.
        what: String,
        /// What there is in its place.
        there: Vec<String>,
    },
    /// A prefix fits several versions.
    #[error("`{prefix}` begins several versions of {model}: {}", .versions.join(", "))]
    Ambiguous {
        /// The prefix.
        prefix: String,
        /// The model.
        model: String,
        /// The versions.
        versions: Vec<String>,
    },
    /// The version was removed.
    #[error(
        "version {digest} of {model} has no files here since {when} (`gc` removed them, or an export left them out): add them again"
    )]
    Removed {
        /// The version.
        digest: Digest,
        /// The model.
        model: String,
        /// When.
        when: String,
    },
    /// What is to be added cannot be a version.
    #[error("these files are no version: {0}")]
    NoVersion(String),
    /// A file of the registry has other bytes than its name says.
    #[error("{}: other bytes than were added: the file is damaged or was changed", .0.display())]
    Changed(PathBuf),
    /// The database says another size of a file.
    #[error("{}: it has {is} bytes as it was added, and the database says {bytes}", path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        is: u64,
        /// What the database says.
        bytes: u64,
    },
    /// There is nothing to go back to.
    #[error("{0}")]
    NoWayBack(String),
    /// The history is not what it was.
    #[error("{0}")]
    Rewound(String),
    /// What is recorded contradicts itself.
    #[error("the history is damaged at move {number}: {why}")]
    History {
        /// The number of the move.
        number: u64,
        /// What was found.
        why: String,
    },
    /// A file of an exported registry cannot be imported.
    #[error("{}: {why}", path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A move is not signed as it should be.
    #[error("move {number} is not accepted: {why}")]
    SignedMove {
        /// The number of the move.
        number: u64,
        /// Why.
        why: String,
    },
}

impl RegistryError {
    /// Says which file could not be read or written.
    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> RegistryError {
        let path = path.to_path_buf();
        move |source| RegistryError::File { path, source }
    }

    /// What SQLite says of the database at `path`.
    pub(crate) fn sqlite(path: &Path, e: &rusqlite::Error) -> RegistryError {
        let path = path.to_path_buf();
        let why = match e.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => {
                return RegistryError::Foreign { path, why: "its bytes are no SQLite database".into() };
            }
            Some(ErrorCode::DatabaseCorrupt) => {
                return RegistryError::Corrupt { path, why: e.to_string() };
            }
            Some(ErrorCode::DiskFull) => "the disk is full; free some space".into(),
            Some(ErrorCode::ReadOnly) => return RegistryError::ReadOnly(path),
            Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
                format!("it cannot be opened: {e}; look at the permissions of the file and its folder")
            }
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                "another process has kept it busy for half a minute; try again".into()
            }
            Some(ErrorCode::FileLockingProtocolFailed | ErrorCode::SystemIoFailure) => {
                format!(
                    "reading, writing or locking it failed: {e}; look whether the disk has space, and its file system locks"
                )
            }
            // A column or type that is not there: somebody changed the tables.
            _ => return RegistryError::Corrupt { path, why: e.to_string() },
        };
        RegistryError::Database { path, why }
    }
}

impl RegistryError {
    /// The same, of a database whose path was not known where it was asked.
    pub(crate) fn of_database(self, path: &Path) -> RegistryError {
        let nameless = |p: &PathBuf| p.as_path() == Path::new(DATABASE);
        match self {
            RegistryError::Corrupt { path: p, why } if nameless(&p) => {
                RegistryError::Corrupt { path: path.into(), why }
            }
            RegistryError::Database { path: p, why } if nameless(&p) => {
                RegistryError::Database { path: path.into(), why }
            }
            RegistryError::Foreign { path: p, why } if nameless(&p) => {
                RegistryError::Foreign { path: path.into(), why }
            }
            RegistryError::ReadOnly(p) if nameless(&p) => RegistryError::ReadOnly(path.into()),
            other => other,
        }
    }

    /// Whether nothing can be written there, whatever it is.
    pub(crate) fn is_read_only(&self) -> bool {
        match self {
            RegistryError::ReadOnly(_) => true,
            RegistryError::File { source, .. } => {
                matches!(source.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
            }
            _ => false,
        }
    }
}

/// Without the folder of the database, which the registry adds.
impl From<rusqlite::Error> for RegistryError {
    fn from(e: rusqlite::Error) -> RegistryError {
        RegistryError::sqlite(Path::new(DATABASE), &e)
    }
}

fn among(there: &[String]) -> String {
    match there.is_empty() {
        true => String::new(),
        false => format!("; there are {}", there.join(", ")),
    }
}

fn advice(e: &io::Error) -> &'static str {
    match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; free some space",
        io::ErrorKind::Unsupported => "; a registry needs a file system with locks",
        _ => "",
    }
}
