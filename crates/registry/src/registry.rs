//! A registry as a whole: the folder, its database and its files.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::actor::Act;
use crate::blobs::{self, Blobs};
use crate::database::Database;
use crate::error::{DATABASE, RegistryError};

const BLOBS: &str = "blobs";
const HOLDS: &str = "holds";
/// What a promotion demands, in the folder.
const POLICY: &str = "policy.toml";
const MOST_OF_POLICY: u64 = 1 << 20;

/// An open registry. Threads may share it; one at a time is served.
pub struct Registry {
    folder: PathBuf,
    id: String,
    pub(crate) database: Database,
    pub(crate) blobs: Blobs,
}

impl Registry {
    /// Opens the registry in a folder.
    ///
    /// # Errors
    /// There is none, it is damaged or of another program, or the system refuses.
    pub fn open(folder: &Path) -> Result<Registry, RegistryError> {
        Registry::over(folder, Database::open(folder)?)
    }

    /// Opens the registry in a folder, and makes one where there is none.
    ///
    /// # Errors
    /// As [`Registry::open`]; the folder holds something else; it cannot be written.
    pub fn open_or_create(folder: &Path, act: &Act) -> Result<Registry, RegistryError> {
        Registry::create_as(folder, None, act)
    }

    /// The same, where a registry that is made is to have this identity.
    pub(crate) fn create_as(folder: &Path, id: Option<&str>, act: &Act) -> Result<Registry, RegistryError> {
        fs::create_dir_all(folder).map_err(RegistryError::file(folder))?;
        let ours = |name: &str| name.starts_with(DATABASE) || [BLOBS, HOLDS, POLICY].contains(&name);
        for entry in fs::read_dir(folder).map_err(RegistryError::file(folder))? {
            let entry = entry.map_err(RegistryError::file(folder))?;
            if !folder.join(DATABASE).exists() && !entry.file_name().to_str().is_some_and(ours) {
                return Err(RegistryError::Occupied(folder.into()));
            }
        }
        let registry = Registry::over(folder, Database::create(folder, id, act)?)?;
        registry.blobs.create()?;
        fs::create_dir_all(registry.holds()).map_err(RegistryError::file(folder))?;
        Ok(registry)
    }

    fn over(folder: &Path, database: Database) -> Result<Registry, RegistryError> {
        let id = database.id()?;
        Ok(Registry { folder: folder.into(), id, database, blobs: Blobs::new(folder.join(BLOBS)) })
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its identity: 32 hexadecimal digits, drawn when it was made.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The file that says what a promotion demands, whether it is there or not.
    pub fn policy_file(&self) -> PathBuf {
        self.folder.join(POLICY)
    }

    /// The text of the policy; none where there is none.
    ///
    /// # Errors
    /// It cannot be read, or is no text of at most a mebibyte.
    pub fn policy(&self) -> io::Result<Option<String>> {
        let file = match blobs::open(&self.policy_file()) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut text = String::new();
        file.take(MOST_OF_POLICY + 1).read_to_string(&mut text)?;
        if text.len() as u64 > MOST_OF_POLICY {
            let why = format!("it has more than {MOST_OF_POLICY} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(Some(text))
    }

    pub(crate) fn holds(&self) -> PathBuf {
        self.folder.join(HOLDS)
    }
}
