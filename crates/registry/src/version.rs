//! Versions: files that belong together and never change, under the digest over all of them; and
//! what is attached to a version later.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use halfstep_attest::DateTime;
use halfstep_attest::digest::Digest;
use halfstep_attest::model::Manifest;
use rusqlite::{OptionalExtension, Transaction};
use serde::{Deserialize, Serialize};

use crate::actor::{Act, Actor};
use crate::blobs::{Staged, sync_name, unfinished};
use crate::database::{self, digest, from_json, json};
use crate::error::{DATABASE, RegistryError};
use crate::moment;
use crate::names::RegisteredName;
use crate::registry::Registry;

/// Most bytes of an attachment: those of a signature bundle.
pub const MOST_ATTACHED: u64 = halfstep_attest::bundle::MOST_BYTES;

/// A file of a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VersionFile {
    /// Its path from the version's top, with `/`.
    pub name: String,
    /// The digest of its bytes.
    pub sha256: Digest,
    /// How many bytes it has.
    pub bytes: u64,
}

/// What an attachment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttachmentKind {
    /// A signature of the version's files.
    Signature,
    /// A signed verdict.
    Verdict,
    /// A model card or bill of materials.
    Card,
}

impl AttachmentKind {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            AttachmentKind::Signature => "signature",
            AttachmentKind::Verdict => "verdict",
            AttachmentKind::Card => "card",
        }
    }
}

/// Something that belongs to a version and can come later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attachment {
    /// What it is.
    pub kind: AttachmentKind,
    /// The digest of its bytes.
    pub sha256: Digest,
    /// How many bytes it has.
    pub bytes: u64,
    /// When it was attached.
    #[serde(with = "moment")]
    pub added: DateTime,
    /// By whom.
    pub who: Actor,
}

/// A version of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Version {
    /// The model.
    pub model: RegisteredName,
    /// What names it: the digest over the digests of its files in the order of their names, as in
    /// a signature of the same files.
    pub digest: Digest,
    /// When it was added.
    #[serde(with = "moment")]
    pub added: DateTime,
    /// By whom.
    pub who: Actor,
    /// Since when its files are known and not there: `gc` removed them, or an export left them out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed: Option<String>,
    /// Its files, in the order of their names.
    pub files: Vec<VersionFile>,
    /// What is attached, in the order of kinds and digests.
    pub attachments: Vec<Attachment>,
}

impl Version {
    /// What a signature of its files signs.
    ///
    /// # Errors
    /// A name among its files is none.
    pub fn manifest(&self) -> Result<Manifest, RegistryError> {
        let files: BTreeMap<String, Digest> = self.files.iter().map(|f| (f.name.clone(), f.sha256)).collect();
        Manifest::of_files(&files).map_err(RegistryError::NoVersion)
    }

    /// Bytes of all its files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum: u64, file| sum.saturating_add(file.bytes))
    }

    /// Itself, unless its files were removed.
    ///
    /// # Errors
    /// They were.
    pub fn present(self) -> Result<Version, RegistryError> {
        match self.removed {
            None => Ok(self),
            Some(when) => {
                Err(RegistryError::Removed { digest: self.digest, model: self.model.to_string(), when })
            }
        }
    }
}

/// What to add to a registry.
pub struct NewVersion<'a> {
    /// The model.
    pub model: RegisteredName,
    /// Paths from the version's top, and the files to copy.
    pub files: &'a [(String, PathBuf)],
}

/// What became of what was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is new.
    Added,
    /// It was there already.
    Known,
}

impl Registry {
    /// Adds files as a version. The same files again are the same version.
    ///
    /// # Errors
    /// A file cannot be read; a name is none; the version is known with the same contents under
    /// other names; the registry cannot be written.
    pub fn add(&self, new: &NewVersion<'_>, act: &Act) -> Result<(Version, Outcome), RegistryError> {
        let mut staged = Vec::new();
        let mut files = Vec::new();
        for (name, path) in new.files {
            let source = File::open(path).map_err(RegistryError::file(path))?;
            let copy = self.blobs.stage(source, path)?;
            files.push(VersionFile { name: name.clone(), sha256: copy.digest, bytes: copy.bytes });
            staged.push(copy);
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        let digests = files.iter().map(|f| (f.name.clone(), f.sha256)).collect();
        let digest = Manifest::of_files(&digests).map_err(RegistryError::NoVersion)?.root();
        let (who, added) = (act.who.clone(), act.at);
        let model = new.model.clone();
        let version = Version { model, digest, added, who, removed: None, files, attachments: Vec::new() };
        self.database.write(|tx| {
            self.blobs.keep(&staged)?;
            let outcome = insert(tx, &version)?;
            Ok((read(tx, &version.model, digest)?, outcome))
        })
    }

    /// Attaches something to a version.
    ///
    /// # Errors
    /// There is no such version; it is too large; the registry cannot be written.
    pub fn attach(
        &self,
        model: &RegisteredName,
        version: Digest,
        kind: AttachmentKind,
        bytes: &[u8],
        act: &Act,
    ) -> Result<(Digest, Outcome), RegistryError> {
        if bytes.len() as u64 > MOST_ATTACHED {
            let why = format!("{} is larger than {MOST_ATTACHED} bytes", kind.name());
            return Err(RegistryError::NoVersion(why));
        }
        let staged: Staged = self.blobs.stage(bytes, Path::new(kind.name()))?;
        self.database.write(|tx| {
            read(tx, model, version)?;
            self.blobs.keep([&staged])?;
            let attachment = Attachment {
                kind,
                sha256: staged.digest,
                bytes: staged.bytes,
                added: act.at,
                who: act.who.clone(),
            };
            Ok((staged.digest, insert_attachment(tx, model, version, &attachment)?))
        })
    }

    /// The bytes of what is attached.
    ///
    /// # Errors
    /// The file is missing, or has other bytes than were attached.
    pub fn attached(&self, attachment: &Attachment) -> Result<Vec<u8>, RegistryError> {
        self.blobs.read(attachment.sha256, MOST_ATTACHED)
    }

    /// A version, also one whose files were removed.
    ///
    /// # Errors
    /// There is none.
    pub fn version(&self, model: &RegisteredName, version: Digest) -> Result<Version, RegistryError> {
        self.database.read(|tx| read(tx, model, version))
    }

    /// Every version of a model, or of all, in the order in which they were added.
    ///
    /// # Errors
    /// There is no such model; the registry cannot be read.
    pub fn versions(&self, model: Option<&RegisteredName>) -> Result<Vec<Version>, RegistryError> {
        self.database.read(|tx| {
            let mut all = all(tx)?;
            if let Some(model) = model {
                check_model(&all, model)?;
                all.retain(|v| v.model == *model);
            }
            Ok(all)
        })
    }

    /// Where a file of a version is, to be read. Its bytes are not verified; while the version is
    /// [held](crate::hold::Hold), the file stays.
    pub fn path_of(&self, file: &VersionFile) -> PathBuf {
        self.blobs.path(file.sha256)
    }

    /// The bytes of a file of a version, verified, if it has `limit` at most.
    ///
    /// # Errors
    /// The file is missing, larger, or has other bytes than were added.
    pub fn read_file(&self, file: &VersionFile, limit: u64) -> Result<Vec<u8>, RegistryError> {
        self.blobs.read(file.sha256, limit)
    }

    /// Writes a version's files to a folder that is not there yet. Each is verified while it is
    /// copied; the folder appears whole or not at all.
    ///
    /// # Errors
    /// The folder exists or cannot be made; the version was removed; a file of it is damaged.
    pub fn materialise(&self, version: &Version, folder: &Path) -> Result<(), RegistryError> {
        let version = version.clone().present()?;
        // Names that lead out of the folder are no manifest's.
        if version.manifest()?.root() != version.digest {
            return Err(RegistryError::NoVersion("their digest is not that of the version".into()));
        }
        if folder.exists() {
            return Err(RegistryError::Occupied(folder.into()));
        }
        let unfinished = unfinished(folder);
        let write = || {
            for file in &version.files {
                let to = unfinished.join(&file.name);
                let parent = to.parent().unwrap_or(&unfinished);
                fs::create_dir_all(parent).map_err(RegistryError::file(parent))?;
                self.blobs.copy_out(file.sha256, &to)?;
            }
            fs::rename(&unfinished, folder).map_err(RegistryError::file(folder))
        };
        let written = write();
        if written.is_err() {
            let _ = fs::remove_dir_all(&unfinished);
        }
        written?;
        sync_name(folder)
    }
}

/// Records a version; one that is known and was removed is there again, unless the one that is
/// recorded has no files either.
pub(crate) fn insert(tx: &Transaction<'_>, version: &Version) -> Result<Outcome, RegistryError> {
    let Version { model, digest: of, added, who, removed: gone, files, .. } = version;
    let key = (model.as_str(), of.to_string());
    let known: Option<Option<String>> = tx
        .query_row("SELECT removed FROM version WHERE model = ? AND digest = ?", (key.0, &key.1), |row| {
            row.get(0)
        })
        .optional()?;
    let Some(removed) = known else {
        tx.execute(
            "INSERT INTO version VALUES (?, ?, ?, ?, NULL, ?)",
            (key.0, &key.1, added.to_string(), json(who), gone),
        )?;
        let mut insert = tx.prepare("INSERT INTO file VALUES (?, ?, ?, ?, ?)")?;
        for file in files {
            let bytes = i64::try_from(file.bytes).unwrap_or(i64::MAX);
            insert.execute((key.0, &key.1, &file.name, file.sha256.to_string(), bytes))?;
        }
        return Ok(if gone.is_none() { Outcome::Added } else { Outcome::Known });
    };
    // The digest is over contents alone, as in OpenSSF's signatures.
    let known = self::files(tx, model, *of)?;
    if !known.iter().map(|f| (&f.name, f.sha256)).eq(files.iter().map(|f| (&f.name, f.sha256))) {
        let why = format!("version {of} of {model} has the same contents under other names");
        return Err(RegistryError::NoVersion(why));
    }
    if gone.is_some() {
        return Ok(Outcome::Known);
    }
    // Of files that an export left out the sizes are what it says; now they are known.
    let mut update = tx.prepare("UPDATE file SET bytes = ? WHERE model = ? AND digest = ? AND name = ?")?;
    for file in files {
        let bytes = i64::try_from(file.bytes).unwrap_or(i64::MAX);
        update.execute((bytes, key.0, &key.1, &file.name))?;
    }
    tx.execute(
        "UPDATE version SET removed = NULL, marked = NULL WHERE model = ? AND digest = ?",
        (key.0, &key.1),
    )?;
    Ok(if removed.is_some() { Outcome::Added } else { Outcome::Known })
}

/// Records an attachment.
pub(crate) fn insert_attachment(
    tx: &Transaction<'_>,
    model: &RegisteredName,
    version: Digest,
    attachment: &Attachment,
) -> Result<Outcome, RegistryError> {
    let Attachment { kind, sha256, bytes, added, who } = attachment;
    let inserted = tx.execute(
        "INSERT OR IGNORE INTO attachment VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            model.as_str(),
            version.to_string(),
            kind.name(),
            sha256.to_string(),
            i64::try_from(*bytes).unwrap_or(i64::MAX),
            added.to_string(),
            json(who),
        ),
    )?;
    Ok(if inserted == 1 { Outcome::Added } else { Outcome::Known })
}

/// Reads a version.
pub(crate) fn read(
    tx: &Transaction<'_>,
    model: &RegisteredName,
    of: Digest,
) -> Result<Version, RegistryError> {
    let mut select = tx.prepare("SELECT added, who, removed FROM version WHERE model = ? AND digest = ?")?;
    let row = select
        .query_row((model.as_str(), of.to_string()), |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, Option<String>>(2)?))
        })
        .optional()?;
    let Some((added, who, removed)) = row else {
        return Err(RegistryError::Unknown { what: format!("version {of} of {model}"), there: Vec::new() });
    };
    let files = files(tx, model, of)?;
    let attachments = attachments(tx, model, of)?;
    let (added, who) = (time(&added)?, from_json(&who)?);
    Ok(Version { model: model.clone(), digest: of, added, who, removed, files, attachments })
}

/// Checks that there is a version of a model.
pub(crate) fn check_model(all: &[Version], model: &RegisteredName) -> Result<(), RegistryError> {
    if all.iter().any(|v| v.model == *model) {
        return Ok(());
    }
    let names: std::collections::BTreeSet<String> = all.iter().map(|v| v.model.to_string()).collect();
    let what = format!("the model `{model}`");
    Err(RegistryError::Unknown { what, there: names.into_iter().collect() })
}

/// Every version, in the order in which they were added.
pub(crate) fn all(tx: &Transaction<'_>) -> Result<Vec<Version>, RegistryError> {
    let mut select = tx.prepare("SELECT model, digest FROM version ORDER BY model, added, digest")?;
    let keys: Vec<(String, String)> =
        select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    keys.into_iter().map(|(model, of)| read(tx, &database::model(&model)?, digest(of)?)).collect()
}

fn files(
    tx: &Transaction<'_>,
    model: &RegisteredName,
    of: Digest,
) -> Result<Vec<VersionFile>, RegistryError> {
    let mut select =
        tx.prepare("SELECT name, sha256, bytes FROM file WHERE model = ? AND digest = ? ORDER BY name")?;
    let rows: Vec<(String, String, i64)> = select
        .query_map((model.as_str(), of.to_string()), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<Result<_, _>>()?;
    rows.into_iter()
        .map(|(name, sha256, bytes)| {
            Ok(VersionFile { name, sha256: digest(sha256)?, bytes: bytes.unsigned_abs() })
        })
        .collect()
}

fn attachments(
    tx: &Transaction<'_>,
    model: &RegisteredName,
    of: Digest,
) -> Result<Vec<Attachment>, RegistryError> {
    let mut select = tx.prepare(
        "SELECT kind, sha256, bytes, added, who FROM attachment WHERE model = ? AND digest = ? ORDER BY kind, sha256",
    )?;
    let rows: Vec<(String, String, i64, String, String)> = select
        .query_map((model.as_str(), of.to_string()), |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
        })?
        .collect::<Result<_, _>>()?;
    rows.into_iter()
        .map(|(kind, sha256, bytes, added, who)| {
            Ok(Attachment {
                kind: from_json(&json(&kind))?,
                sha256: digest(sha256)?,
                bytes: bytes.unsigned_abs(),
                added: time(&added)?,
                who: from_json(&who)?,
            })
        })
        .collect()
}

fn time(text: &str) -> Result<DateTime, RegistryError> {
    let why = || RegistryError::Corrupt { path: DATABASE.into(), why: format!("`{text}` is no time") };
    text.parse().map_err(|_| why())
}
