//! Reading an exported registry: all of it or nothing, and only what continues the history that
//! is known.
//!
//! The file may be anybody's. Its entries are found by the names that an index of it gives them,
//! none of which is a path outside; it is not compressed, so that no entry is larger than it looks;
//! and every digest is verified before anything is changed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::Path;

use halfstep_attest::digest::Digest;
use halfstep_attest::trust::Trust;
use serde::Deserialize;
use zip::{CompressionMethod, ZipArchive};

use crate::actor::Act;
use crate::archive::{CONTENT, FORM, INDEX, Index};
use crate::blobs::{Staged, sync_name, unfinished};
use crate::database::{json, valid_id};
use crate::error::{DATABASE, RegistryError};
use crate::mover;
use crate::moves::{self, Recorded, check_aliases, check_chain};
use crate::names::{Alias, RegisteredName};
use crate::registry::Registry;
use crate::seen::Older;
use crate::version::{self, MOST_ATTACHED, Outcome};

/// Most bytes of an index: some hundred thousand moves.
const MOST_OF_INDEX: u64 = 256 << 20;

/// An import.
pub struct Import<'a> {
    /// The exported file.
    pub file: &'a Path,
    /// Whose signatures of moves count; where nobody is trusted, they are not looked at.
    pub trust: &'a Trust,
    /// Who imports, and when.
    pub act: &'a Act,
    /// The folder for what was seen of registries.
    pub seen: &'a Path,
    /// Whether a history that ends before what was seen is accepted.
    pub older: Older<'a>,
}

/// What was new in an imported file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The registry's identity.
    pub registry: String,
    /// Versions that were not there, or not with their files.
    pub versions: u64,
    /// Attachments that were not there.
    pub attachments: u64,
    /// Moves that were not there.
    pub moves: u64,
}

impl Import<'_> {
    /// Imports into the registry in a folder, or makes one there: whole or not at all.
    ///
    /// # Errors
    /// The file is damaged, was changed, or is no export; it is of another registry, or its history
    /// does not continue the one that is known, here or by what was seen; a move's signature does
    /// not hold; the system refuses.
    pub fn into_folder(&self, folder: &Path) -> Result<Imported, RegistryError> {
        let mut archive = Archive::open(self.file)?;
        let index = archive.index()?;
        let moves = self.checked(&index)?;
        archive.check_entries(&index)?;
        if folder.join(DATABASE).exists() {
            let registry = Registry::open(folder)?;
            registry.remember(self.seen, self.older)?;
            return self.merge(&registry, &mut archive, &index, &moves);
        }
        if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(RegistryError::Occupied(folder.into()));
        }
        let unfinished = unfinished(folder);
        let made = self.make(&unfinished, folder, &mut archive, &index, &moves);
        if made.is_err() {
            let _ = fs::remove_dir_all(&unfinished);
        }
        made
    }

    fn make(
        &self,
        unfinished: &Path,
        folder: &Path,
        archive: &mut Archive<'_>,
        index: &Index,
        moves: &[Recorded],
    ) -> Result<Imported, RegistryError> {
        let imported = {
            let registry = Registry::create_as(unfinished, Some(&index.registry), self.act)?;
            let imported = self.merge(&registry, archive, index, moves)?;
            registry.remember_as(self.file, self.seen, self.older)?;
            imported
        };
        // An empty folder is replaced, which not every system does by itself.
        let _ = fs::remove_dir(folder);
        fs::rename(unfinished, folder).map_err(RegistryError::file(folder))?;
        sync_name(folder)?;
        Ok(imported)
    }

    /// The moves of an index, if it is one of a registry without contradictions.
    fn checked(&self, index: &Index) -> Result<Vec<Recorded>, RegistryError> {
        let wrong = |why: String| RegistryError::Archive { path: self.file.into(), why };
        if !valid_id(&index.registry) {
            return Err(wrong("the registry's identity is none".into()));
        }
        check_sizes(index).map_err(wrong)?;
        let mut versions = BTreeMap::new();
        for version in &index.versions {
            let of = format!("version {} of {}", version.digest, version.model);
            match version.manifest() {
                Ok(manifest) if manifest.root() == version.digest => {}
                Ok(_) => return Err(wrong(format!("{of}: its files have another digest"))),
                Err(e) => return Err(wrong(format!("{of}: {e}"))),
            }
            if !version.files.is_sorted_by(|a, b| a.name < b.name) {
                return Err(wrong(format!("{of}: its files are not in the order of their names")));
            }
            if versions.insert((&version.model, version.digest), version).is_some() {
                return Err(wrong(format!("{of} is listed twice")));
            }
            if version.attachments.iter().any(|a| a.bytes > MOST_ATTACHED) {
                return Err(wrong(format!("{of}: what is attached is larger than {MOST_ATTACHED} bytes")));
            }
        }
        let recorded = |made: &crate::archive::ExportedMove| {
            let (record, signature) = (made.record.clone(), made.signature.clone());
            Recorded { sha256: Digest::of(json(&record).as_bytes()), record, signature }
        };
        let moves: Vec<Recorded> = index.moves.iter().map(recorded).collect();
        check_chain(&index.registry, None, &moves)
            .and_then(|()| check_aliases(&moves))
            .map_err(|e| wrong(e.to_string()))?;
        if let Some(made) = moves.iter().find(|m| !versions.contains_key(&(&m.record.model, m.record.to))) {
            return Err(wrong(format!("move {} is to a version that is not listed", made.record.number)));
        }
        self.check_signatures(index, &moves).map_err(|e| wrong(e.to_string()))?;
        Ok(moves)
    }

    /// Checks the signatures of moves, as far as they have some.
    fn check_signatures(&self, index: &Index, moves: &[Recorded]) -> Result<(), RegistryError> {
        if self.trust.is_empty() {
            return Ok(());
        }
        let mut heads: BTreeMap<(&RegisteredName, &Alias), u64> = BTreeMap::new();
        for Recorded { record, .. } in moves {
            heads.insert((&record.model, &record.alias), record.number);
        }
        for made in moves {
            let record = &made.record;
            // Numbered from 1 without gaps, as was checked.
            let before = record.previous.map(|number| moves[number as usize - 1].link());
            let head = heads.get(&(&record.model, &record.alias)).copied().unwrap_or(record.number);
            let place = mover::Place { before, head };
            mover::check(&index.registry, made, place, self.trust, self.act.at)?;
        }
        Ok(())
    }

    /// Adds what is new to a registry, in one step.
    fn merge(
        &self,
        registry: &Registry,
        archive: &mut Archive<'_>,
        index: &Index,
        moves: &[Recorded],
    ) -> Result<Imported, RegistryError> {
        let refused = |why: String| RegistryError::Archive { path: self.file.into(), why };
        let here = registry.folder().display();
        if registry.id() != index.registry {
            return Err(refused(format!(
                "it is of the registry {}, and {here} is the registry {}: import it into a folder of its own",
                index.registry,
                registry.id()
            )));
        }
        let continues = |ours: &[Recorded]| {
            if let Some((theirs, _)) =
                moves.iter().zip(ours).find(|(theirs, ours)| theirs.link() != ours.link())
            {
                let number = theirs.record.number;
                return Err(refused(format!(
                    "move {number} is another than in {here}: their histories have parted"
                )));
            }
            if moves.len() < ours.len() {
                return Err(refused(format!(
                    "its history ends at move {}, and that of {here} at move {}: it is older",
                    moves.len(),
                    ours.len()
                )));
            }
            Ok(())
        };
        // Before anything is copied, and again when nobody else changes anything.
        continues(&registry.history(0)?)?;
        let staged = archive.stage(registry, index)?;
        registry.database.write(|tx| {
            let ours = moves::history(tx, 0)?;
            continues(&ours)?;
            registry.blobs.keep(&staged)?;
            let mut new =
                Imported { registry: index.registry.clone(), versions: 0, attachments: 0, moves: 0 };
            for version in &index.versions {
                new.versions += u64::from(version::insert(tx, version)? == Outcome::Added);
                for attachment in &version.attachments {
                    let done = version::insert_attachment(tx, &version.model, version.digest, attachment)?;
                    new.attachments += u64::from(done == Outcome::Added);
                }
            }
            for made in &moves[ours.len()..] {
                moves::insert(tx, made)?;
                new.moves += 1;
            }
            Ok(new)
        })
    }
}

/// Checks that a content has one size wherever it is listed, also where the file is left out so
/// that nothing else shows it, and that no sum of sizes is too large a number.
fn check_sizes(index: &Index) -> Result<(), String> {
    let mut sizes = BTreeMap::new();
    let mut sum = 0i64;
    for version in &index.versions {
        let files = version.files.iter().map(|f| (f.sha256, f.bytes));
        for (digest, bytes) in files.chain(version.attachments.iter().map(|a| (a.sha256, a.bytes))) {
            if *sizes.entry(digest).or_insert(bytes) != bytes {
                return Err(format!("the file {digest} is listed with two sizes"));
            }
            let with = i64::try_from(bytes).ok().and_then(|bytes| sum.checked_add(bytes));
            sum = with.ok_or_else(|| format!("the file {digest} is listed as larger than files can be"))?;
        }
    }
    Ok(())
}

/// What every form of an index has.
#[derive(Deserialize)]
struct Form {
    form: u32,
}

/// An exported file.
struct Archive<'a> {
    path: &'a Path,
    zip: ZipArchive<BufReader<File>>,
    bytes: u64,
}

impl<'a> Archive<'a> {
    fn open(path: &'a Path) -> Result<Archive<'a>, RegistryError> {
        let file = File::open(path).map_err(RegistryError::file(path))?;
        let bytes = file.metadata().map_err(RegistryError::file(path))?.len();
        let zip = ZipArchive::new(BufReader::new(file)).map_err(|e| {
            let why =
                format!("this is no whole export of a registry: it was cut off, or is something else ({e})");
            RegistryError::Archive { path: path.into(), why }
        })?;
        Ok(Archive { path, zip, bytes })
    }

    fn wrong(&self, why: impl Into<String>) -> RegistryError {
        RegistryError::Archive { path: self.path.into(), why: why.into() }
    }

    fn index(&mut self) -> Result<Index, RegistryError> {
        let mut text = Vec::new();
        let read = match self.zip.by_name(INDEX) {
            Ok(entry) if entry.compression() != CompressionMethod::Stored => {
                Err("it is compressed".to_string())
            }
            Ok(entry) => {
                entry.take(MOST_OF_INDEX + 1).read_to_end(&mut text).map_err(|e| e.to_string()).map(|_| ())
            }
            Err(e) => Err(e.to_string()),
        };
        read.map_err(|e| self.wrong(format!("this is no export of a registry: `{INDEX}`: {e}")))?;
        if text.len() as u64 > MOST_OF_INDEX {
            return Err(self.wrong(format!("`{INDEX}` is larger than {MOST_OF_INDEX} bytes")));
        }
        let Form { form } = serde_json::from_slice(&text)
            .map_err(|e| self.wrong(format!("this is no export of a registry: `{INDEX}`: {e}")))?;
        if form != FORM {
            return Err(self.wrong(format!(
                "it has the form {form}, and this version of halfstep reads the form {FORM}"
            )));
        }
        serde_json::from_slice(&text).map_err(|e| self.wrong(format!("`{INDEX}`: {e}")))
    }

    /// Checks that there are all files of the index and no others, of their sizes.
    fn check_entries(&mut self, index: &Index) -> Result<(), RegistryError> {
        let mut missing = index.contents();
        let listed: u128 = missing.values().map(|bytes| u128::from(*bytes)).sum();
        if listed > u128::from(self.bytes) {
            return Err(self.wrong("it lists more bytes than it has"));
        }
        for number in 0..self.zip.len() {
            let entry = self.zip.by_index_raw(number);
            let entry = entry.map(|entry| {
                let name = entry.name().map_or_else(|_| "?".to_string(), |name| name.into_owned());
                (name, entry.size(), entry.compression() == CompressionMethod::Stored)
            });
            let (name, bytes, stored) = entry.map_err(|e| self.wrong(e.to_string()))?;
            if name == INDEX {
                continue;
            }
            let digest =
                name.strip_prefix(CONTENT).and_then(|digest| Digest::try_from(digest.to_string()).ok());
            match digest.and_then(|digest| missing.remove(&digest)) {
                Some(size) if size == bytes && stored => {}
                Some(_) => {
                    return Err(
                        self.wrong(format!("`{name}` is compressed, or has another size than is listed"))
                    );
                }
                None => return Err(self.wrong(format!("`{name}` does not belong into an export"))),
            }
        }
        match missing.into_keys().next() {
            Some(digest) => Err(self.wrong(format!("the file {digest} is missing"))),
            None => Ok(()),
        }
    }

    /// Copies every file into a registry's folder, without a name as yet.
    fn stage(&mut self, registry: &Registry, index: &Index) -> Result<Vec<Staged>, RegistryError> {
        let mut staged = Vec::new();
        for (digest, bytes) in index.contents() {
            let entry = self.zip.by_name(&format!("{CONTENT}{digest}"));
            let entry =
                entry.map_err(|e| RegistryError::Archive { path: self.path.into(), why: e.to_string() })?;
            let copy = registry.blobs.stage(entry.take(bytes + 1), self.path)?;
            if (copy.digest, copy.bytes) != (digest, bytes) {
                return Err(
                    self.wrong(format!("the file {digest} has other bytes: it is damaged or was changed"))
                );
            }
            staged.push(copy);
        }
        Ok(staged)
    }
}
