//! The database of a registry: versions, the history of aliases, and who did what when.
//!
//! It is one file of SQLite with a rollback journal, not a write-ahead log: that would need shared
//! memory, so that a registry could be read neither from a read-only file system nor over a
//! network. Whoever changes something takes the write lock first, so that what was read before
//! the change is still so when it is made.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior};

use crate::actor::Act;
use crate::error::{DATABASE, RegistryError};
use crate::names::{NameError, RegisteredName};

/// `application_id` of our databases: `hstp` in ASCII.
const APPLICATION: i64 = 0x6873_7470;
/// The form of the tables, as `user_version`.
const FORM: i64 = 1;
/// How long a process waits for others.
const PATIENCE: Duration = Duration::from_secs(30);

const TABLES: &str = "
CREATE TABLE registry (id TEXT NOT NULL, made TEXT NOT NULL, who TEXT NOT NULL) STRICT;
CREATE TABLE version (
    model TEXT NOT NULL, digest TEXT NOT NULL, added TEXT NOT NULL, who TEXT NOT NULL,
    marked TEXT, removed TEXT, PRIMARY KEY (model, digest)
) STRICT, WITHOUT ROWID;
CREATE TABLE file (
    model TEXT NOT NULL, digest TEXT NOT NULL, name TEXT NOT NULL, sha256 TEXT NOT NULL,
    bytes INTEGER NOT NULL, PRIMARY KEY (model, digest, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX file_by_content ON file (sha256);
CREATE TABLE attachment (
    model TEXT NOT NULL, digest TEXT NOT NULL, kind TEXT NOT NULL, sha256 TEXT NOT NULL,
    bytes INTEGER NOT NULL, added TEXT NOT NULL, who TEXT NOT NULL,
    PRIMARY KEY (model, digest, kind, sha256)
) STRICT, WITHOUT ROWID;
CREATE INDEX attachment_by_content ON attachment (sha256);
CREATE TABLE move (
    number INTEGER PRIMARY KEY, model TEXT NOT NULL, alias TEXT NOT NULL, sha256 TEXT NOT NULL,
    record TEXT NOT NULL, signature TEXT
) STRICT;
CREATE INDEX move_by_alias ON move (model, alias, number);
";

/// An open database.
pub(crate) struct Database {
    path: PathBuf,
    connection: Mutex<Connection>,
}

impl Database {
    /// Makes the database in `folder` unless it is there, and opens it.
    pub fn create(folder: &Path, id: Option<&str>, act: &Act) -> Result<Database, RegistryError> {
        let path = folder.join(DATABASE);
        let database = Database::connect(path, OpenFlags::SQLITE_OPEN_CREATE)?;
        database.write(|tx| {
            if tables(tx)? > 0 {
                return Ok(());
            }
            tx.execute_batch(TABLES)?;
            tx.pragma_update(None, "application_id", APPLICATION)?;
            tx.pragma_update(None, "user_version", FORM)?;
            let random: String = tx.query_row("SELECT lower(hex(randomblob(16)))", [], |row| row.get(0))?;
            let row = (id.unwrap_or(&random), act.at.to_string(), json(&act.who));
            tx.execute("INSERT INTO registry VALUES (?, ?, ?)", row)?;
            Ok(())
        })?;
        database.checked()
    }

    /// Opens the database in `folder`.
    pub fn open(folder: &Path) -> Result<Database, RegistryError> {
        let path = folder.join(DATABASE);
        if !path.is_file() {
            return Err(RegistryError::Absent(folder.into()));
        }
        Database::connect(path, OpenFlags::empty())?.checked()
    }

    fn connect(path: PathBuf, more: OpenFlags) -> Result<Database, RegistryError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | more;
        let sqlite = |e| RegistryError::sqlite(&path, &e);
        let connection = Connection::open_with_flags(&path, flags).map_err(sqlite)?;
        connection.busy_timeout(PATIENCE).map_err(sqlite)?;
        // Whatever stands in a file that somebody else wrote, none of it is run.
        for (config, on) in [
            (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
            (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
            (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
            (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        ] {
            connection.set_db_config(config, on).map_err(sqlite)?;
        }
        // What was committed is on the disk, and so is the end of its journal.
        connection.pragma_update(None, "synchronous", "EXTRA").map_err(sqlite)?;
        Ok(Database { path, connection: Mutex::new(connection) })
    }

    /// Itself, if it is of our program and form.
    fn checked(self) -> Result<Database, RegistryError> {
        let (application, form) = self.read(|db| {
            let number = |pragma| db.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
            Ok((number("application_id")?, number("user_version")?))
        })?;
        let foreign = |why: &str| Err(RegistryError::Foreign { path: self.path.clone(), why: why.into() });
        match (application, form) {
            (APPLICATION, FORM) => Ok(self),
            // Its maker was killed, or is not done yet: SQLite makes the file before what is in it.
            (0, 0) if self.read(|db| Ok(tables(db)? == 0))? => {
                Err(RegistryError::Absent(self.path.parent().unwrap_or(&self.path).into()))
            }
            (APPLICATION, _) => foreign("another version of halfstep made it, whose form is not known here"),
            _ => foreign("it is an SQLite database of another program"),
        }
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // What panicked has rolled its transaction back.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn transaction<T>(
        &self,
        behavior: TransactionBehavior,
        f: impl FnOnce(&Transaction<'_>) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let sqlite = |e| RegistryError::sqlite(&self.path, &e);
        let mut connection = self.connection();
        let tx = connection.transaction_with_behavior(behavior).map_err(sqlite)?;
        let value = f(&tx).map_err(|e| e.of_database(&self.path))?;
        tx.commit().map_err(sqlite)?;
        Ok(value)
    }

    /// Reads one state of the database.
    pub fn read<T>(
        &self,
        f: impl FnOnce(&Transaction<'_>) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        self.transaction(TransactionBehavior::Deferred, f)
    }

    /// Changes the database, or nothing of it where `f` fails. No other process changes anything
    /// meanwhile.
    pub fn write<T>(
        &self,
        f: impl FnOnce(&Transaction<'_>) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        self.transaction(TransactionBehavior::Immediate, f)
    }

    /// What SQLite itself finds wrong.
    pub fn faults(&self) -> Result<Vec<String>, RegistryError> {
        self.read(|db| {
            let mut check = db.prepare("PRAGMA integrity_check(20)")?;
            let found: Vec<String> = check.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
            Ok(found.into_iter().filter(|line| line != "ok").collect())
        })
    }

    /// The registry's identity, drawn when it was made.
    pub fn id(&self) -> Result<String, RegistryError> {
        let id: Option<String> =
            self.read(|db| Ok(db.query_row("SELECT id FROM registry", [], |row| row.get(0)).optional()?))?;
        let corrupt = || RegistryError::Corrupt { path: self.path.clone(), why: "it has no identity".into() };
        id.filter(|id| valid_id(id)).ok_or_else(corrupt)
    }
}

/// Whether a text is the identity of a registry, which names files of those who saw it.
pub(crate) fn valid_id(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn tables(tx: &Transaction<'_>) -> Result<i64, RegistryError> {
    Ok(tx.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?)
}

/// A value as the text of a column.
pub(crate) fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("names of fields are texts")
}

/// A value from the text of a column.
pub(crate) fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, RegistryError> {
    serde_json::from_str(text).map_err(|e| corrupt(e.to_string()))
}

/// A digest from the text of a column.
pub(crate) fn digest(text: String) -> Result<halfstep_attest::digest::Digest, RegistryError> {
    text.try_into().map_err(|why| corrupt(format!("a digest is {why}")))
}

/// The name of a model from the text of a column.
pub(crate) fn model(text: &str) -> Result<RegisteredName, RegistryError> {
    text.parse().map_err(|e: NameError| corrupt(e.to_string()))
}

fn corrupt(why: String) -> RegistryError {
    RegistryError::Corrupt { path: DATABASE.into(), why }
}
