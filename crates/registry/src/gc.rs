//! Removal of versions that nobody uses, in two phases: they are marked, and what is still unused
//! when the time of grace has passed is removed.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use halfstep_attest::DateTime;
use halfstep_attest::digest::Digest;
use rusqlite::Transaction;

use crate::blobs::remove;
use crate::error::RegistryError;
use crate::hold::VersionKey;
use crate::moment;
use crate::moves;
use crate::registry::Registry;
use crate::version;

/// What a collection may remove.
#[derive(Clone, Copy, Debug)]
pub struct Sweep {
    /// The time of it.
    pub now: DateTime,
    /// What was added, or was where an alias pointed, since so long before is kept.
    pub keep: Duration,
    /// How long a version stays marked before it is removed.
    pub grace: Duration,
}

/// What a collection did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Versions that are unused since now.
    pub marked: Vec<VersionKey>,
    /// Versions that are unused and still have their time of grace.
    pub waiting: Vec<VersionKey>,
    /// Versions that were removed.
    pub removed: Vec<VersionKey>,
    /// Files that were removed, and their bytes.
    pub files: u64,
    /// As above.
    pub bytes: u64,
}

impl Registry {
    /// Says what [`Registry::collect`] would do.
    ///
    /// # Errors
    /// The registry cannot be read.
    pub fn collectable(&self, sweep: &Sweep) -> Result<Collected, RegistryError> {
        let decided = self.database.write(|tx| self.decide(tx, sweep))?;
        let mut collected = decided;
        let gone: BTreeSet<&VersionKey> = collected.removed.iter().collect();
        let mut kept = BTreeSet::new();
        let mut going = BTreeSet::new();
        for version in self.versions(None)? {
            let contents = version.files.iter().map(|f| (f.sha256, f.bytes));
            let to = if gone.contains(&version.key()) { &mut going } else { &mut kept };
            to.extend(contents);
        }
        for (_, bytes) in going.difference(&kept) {
            collected.files += 1;
            collected.bytes = collected.bytes.saturating_add(*bytes);
        }
        Ok(collected)
    }

    /// Marks versions that are not used, and removes those that were marked before the time of
    /// grace and still are not. Their attachments stay, for what moves relied on. Then files that
    /// belong to nothing are removed, among them those that killed processes left behind.
    ///
    /// # Errors
    /// The registry cannot be read or written.
    pub fn collect(&self, sweep: &Sweep) -> Result<Collected, RegistryError> {
        let mut collected = self.database.write(|tx| {
            let decided = self.decide(tx, sweep)?;
            let now = sweep.now.to_string();
            let set = |column: &str, keys: &[VersionKey], value: Option<&str>| {
                let sql = format!("UPDATE version SET {column} = ? WHERE model = ? AND digest = ?");
                let mut update = tx.prepare(&sql)?;
                keys.iter().try_for_each(|key| {
                    update.execute((value, key.model.as_str(), key.digest.to_string())).map(|_| ())
                })
            };
            // What is used again begins anew.
            let idle: BTreeSet<&VersionKey> =
                [&decided.marked, &decided.waiting, &decided.removed].into_iter().flatten().collect();
            let all = version::all(tx)?;
            let used: Vec<VersionKey> =
                all.iter().map(version::Version::key).filter(|k| !idle.contains(k)).collect();
            set("marked", &used, None)?;
            set("marked", &decided.marked, Some(&now))?;
            set("removed", &decided.removed, Some(&now))?;
            Ok(decided)
        })?;
        // Only now that no version refers to them: whatever happens, none has a file less.
        self.database.write(|tx| {
            for digest in self.blobs.all()? {
                if !is_used(tx, digest)? {
                    let path = self.blobs.path(digest);
                    collected.bytes += size(&path);
                    collected.files += 1;
                    remove(&path)?;
                }
            }
            self.held()?.left.iter().try_for_each(|path| remove(path))?;
            for path in self.blobs.left_behind(SystemTime::now())? {
                collected.bytes += size(&path);
                collected.files += 1;
                remove(&path)?;
            }
            Ok(())
        })?;
        Ok(collected)
    }

    /// Which versions are unused, by how far they are. Under the write lock.
    fn decide(&self, tx: &Transaction<'_>, sweep: &Sweep) -> Result<Collected, RegistryError> {
        let since = moment::before(sweep.now, sweep.keep);
        let mut used: BTreeSet<VersionKey> = self.held()?.versions.into_iter().collect();
        for head in moves::heads(tx)? {
            used.insert(VersionKey { model: head.record.model, digest: head.record.to });
        }
        for recorded in moves::history(tx, 0)? {
            let record = recorded.record;
            if record.at >= since {
                // Until this move it was where the alias pointed.
                let both = [record.from, Some(record.to)].into_iter().flatten();
                used.extend(both.map(|digest| VersionKey { model: record.model.clone(), digest }));
            }
        }
        let marks = marks(tx)?;
        let mut collected = Collected::default();
        for version in version::all(tx)? {
            let key = version.key();
            if version.removed.is_some() || version.added >= since || used.contains(&key) {
                continue;
            }
            let mark = marks.iter().find(|(k, _)| *k == key).map(|(_, mark)| mark.as_str());
            let old = moment::before(sweep.now, sweep.grace).to_string();
            match mark {
                None => collected.marked.push(key),
                Some(mark) if *mark <= *old => collected.removed.push(key),
                Some(_) => collected.waiting.push(key),
            }
        }
        Ok(collected)
    }
}

/// Whether a version that is there, or an attachment, has this content.
pub(crate) fn is_used(tx: &Transaction<'_>, content: Digest) -> Result<bool, RegistryError> {
    let mut used = tx.prepare(
        "SELECT EXISTS (SELECT 1 FROM file JOIN version USING (model, digest)
                        WHERE file.sha256 = ?1 AND version.removed IS NULL)
             OR EXISTS (SELECT 1 FROM attachment WHERE sha256 = ?1)",
    )?;
    Ok(used.query_row([content.to_string()], |row| row.get(0))?)
}

fn size(path: &PathBuf) -> u64 {
    std::fs::metadata(path).map_or(0, |m| m.len())
}

fn marks(tx: &Transaction<'_>) -> Result<Vec<(VersionKey, String)>, RegistryError> {
    let mut select = tx.prepare("SELECT model, digest, marked FROM version WHERE marked IS NOT NULL")?;
    let rows: Vec<(String, String, String)> =
        select.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect::<Result<_, _>>()?;
    rows.into_iter()
        .map(|(model, of, mark)| {
            let digest: Digest = crate::database::digest(of)?;
            Ok((VersionKey { model: crate::database::model(&model)?, digest }, mark))
        })
        .collect()
}
