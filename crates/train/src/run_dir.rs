//! Run directories: what a run leaves behind, each file whole or not at all.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::files::{self, Disk, Files};

/// The recipe as resolved.
pub const RECIPE: &str = "recipe.toml";
/// Precision and memory plans, one per precision.
pub const PLAN: &str = "plan.json";
/// One JSON object per step and per evaluation.
pub const METRICS: &str = "metrics.jsonl";
/// What new inputs need to be prepared alike.
pub const PREPROCESSING: &str = "preprocessing.json";
/// Which samples were trained on, and which held out.
pub const SAMPLES: &str = "samples.safetensors";
/// What made the directory.
pub const RUN: &str = "run.json";
/// Folder of weights.
pub const CHECKPOINTS: &str = "checkpoints";
/// The checkpoint of weights that came from elsewhere.
pub const START: &str = "start";
/// The file that the process writing to the directory holds locked. It has no content, and stays.
pub const LOCK: &str = ".lock";
/// The weights in the folder of a checkpoint.
pub const MODEL: &str = "model.safetensors";
/// The moving averages of the weights in the folder of a checkpoint, where they are kept.
pub const AVERAGED: &str = "averaged.safetensors";

/// `run.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunInfo {
    /// The command: `train`, whose runs can be resumed.
    pub command: String,
    /// Version of the program.
    pub version: String,
    /// Where its first weights came from, if they were not drawn. They are in [`START`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

/// Why a run directory cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    /// A file or folder cannot be written.
    #[error("{}: cannot be written: {source}{}", path.display(), advice(source))]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A file cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A folder that was to be made is there and holds something.
    #[error("{}: is there already and not empty; choose another folder", path.display())]
    Occupied {
        /// The folder.
        path: PathBuf,
    },
    /// A folder that is no run directory.
    #[error("{}: not a run directory: it has no `{missing}`", path.display())]
    NotARun {
        /// The folder.
        path: PathBuf,
        /// A file every run directory has.
        missing: &'static str,
    },
    /// Another process writes to the run directory.
    #[error("{}: another run is writing to this directory; wait until it has ended, or choose another folder", path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// A file whose content makes no sense.
    #[error("{}: damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
}

fn advice(e: &io::Error) -> &'static str {
    match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free some space or choose another folder"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; choose a folder you may write to"
        }
        _ => "",
    }
}

/// Says which file could not be written.
pub(crate) fn failed(path: &Path) -> impl FnOnce(io::Error) -> RunDirError {
    let path = path.to_path_buf();
    move |source| RunDirError::Write { path, source }
}

/// The bytes of a file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, RunDirError> {
    halfstep_data::read_file(path).map_err(|source| RunDirError::Read { path: path.to_path_buf(), source })
}

/// Says what is wrong with the content of a file.
pub(crate) fn damaged(path: &Path) -> impl Fn(String) -> RunDirError {
    move |reason| RunDirError::Damaged { path: path.to_path_buf(), reason }
}

/// Writes a file whole or not at all, as [`files::write_whole`].
///
/// # Errors
/// The folder is missing or not writable, the disk is full. Then a file that was there is as it
/// was.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), RunDirError> {
    files::write_whole(&Disk, path, bytes).map_err(failed(path))
}

/// A run directory. Those made by [`RunDir::create`], [`RunDir::create_at`] and [`RunDir::resume`]
/// are locked: no other process can write to them until this one, and all its clones, are gone. The
/// system unlocks what a killed process held.
#[derive(Clone, Debug)]
pub struct RunDir {
    path: PathBuf,
    files: Arc<dyn Files>,
    /// Held, not read.
    _lock: Option<Arc<File>>,
}

impl RunDir {
    /// Makes `parent/<name>-<n>` with the first free n, counted from 1.
    ///
    /// # Errors
    /// The folder cannot be made or written to.
    pub fn create(parent: &Path, name: &str) -> Result<RunDir, RunDirError> {
        std::fs::create_dir_all(parent).map_err(failed(parent))?;
        for n in 1.. {
            let path = parent.join(format!("{name}-{n}"));
            match std::fs::create_dir(&path) {
                Ok(()) => return RunDir::locked(&path, Arc::new(Disk))?.with_checkpoints(),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(failed(&path)(e)),
            }
        }
        unreachable!("a folder holds fewer entries than there are numbers")
    }

    /// Makes the folder `path`, or takes it if it is empty.
    ///
    /// # Errors
    /// It holds something; another run has it; it cannot be made or written to.
    pub fn create_at(path: &Path) -> Result<RunDir, RunDirError> {
        RunDir::create_on(Arc::new(Disk), path)
    }

    /// [`RunDir::create_at`] over another layer of files.
    ///
    /// # Errors
    /// As there.
    pub fn create_on(files: Arc<dyn Files>, path: &Path) -> Result<RunDir, RunDirError> {
        std::fs::create_dir_all(path).map_err(failed(path))?;
        let is_empty = || -> io::Result<bool> {
            let mut names = std::fs::read_dir(path)?.map(|e| e.map(|e| e.file_name()));
            names.try_fold(true, |empty, name| Ok(empty && name? == LOCK))
        };
        // Before the lock, so that nothing is written to somebody else's folder; and after, for
        // another may have been quicker.
        if is_empty().map_err(failed(path))? {
            let dir = RunDir::locked(path, files)?;
            if is_empty().map_err(failed(path))? {
                return dir.with_checkpoints();
            }
        }
        Err(RunDirError::Occupied { path: path.to_path_buf() })
    }

    /// Opens what an earlier run left, to read it.
    ///
    /// # Errors
    /// It is no run directory.
    pub fn open(path: &Path) -> Result<RunDir, RunDirError> {
        for missing in [RECIPE, PREPROCESSING] {
            if !path.join(missing).is_file() {
                return Err(RunDirError::NotARun { path: path.to_path_buf(), missing });
            }
        }
        Ok(RunDir { path: path.to_path_buf(), files: Arc::new(Disk), _lock: None })
    }

    /// Opens what an earlier run left, to resume it, and removes what it did not finish writing.
    ///
    /// # Errors
    /// It is no run directory; another process writes to it; it cannot be written to.
    pub fn resume(path: &Path) -> Result<RunDir, RunDirError> {
        RunDir::resume_on(Arc::new(Disk), path)
    }

    /// [`RunDir::resume`] over another layer of files.
    ///
    /// # Errors
    /// As there.
    pub fn resume_on(files: Arc<dyn Files>, path: &Path) -> Result<RunDir, RunDirError> {
        RunDir::open(path)?;
        let dir = RunDir::locked(path, files)?;
        let checkpoints = dir.file(CHECKPOINTS);
        if !checkpoints.is_dir() {
            dir.files.create_dir(&checkpoints).map_err(failed(&checkpoints))?;
        }
        for folder in [&dir.path, &checkpoints] {
            files::remove_unfinished(dir.files(), folder).map_err(failed(folder))?;
        }
        Ok(dir)
    }

    /// Makes a run directory where an earlier run was killed while it made one: what there is of it
    /// is removed.
    ///
    /// # Errors
    /// There is a whole run, or something that no run writes; another process writes to it; it
    /// cannot be made or written to.
    pub fn create_over(path: &Path) -> Result<RunDir, RunDirError> {
        RunDir::create_over_on(Arc::new(Disk), path)
    }

    /// [`RunDir::create_over`] over another layer of files.
    ///
    /// # Errors
    /// As there.
    pub fn create_over_on(files: Arc<dyn Files>, path: &Path) -> Result<RunDir, RunDirError> {
        std::fs::create_dir_all(path).map_err(failed(path))?;
        let ours = |name: &str| {
            [LOCK, RUN, PLAN, METRICS, PREPROCESSING, SAMPLES, CHECKPOINTS].contains(&name)
                || name.starts_with(files::UNFINISHED)
        };
        let names = || -> io::Result<Vec<PathBuf>> {
            std::fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect()
        };
        let is_ours = |p: &PathBuf| p.file_name().and_then(|n| n.to_str()).is_some_and(ours);
        if !names().map_err(failed(path))?.iter().all(is_ours) {
            return Err(RunDirError::Occupied { path: path.to_path_buf() });
        }
        let dir = RunDir::locked(path, files)?;
        for left in names().map_err(failed(path))? {
            if !is_ours(&left) {
                return Err(RunDirError::Occupied { path: path.to_path_buf() });
            }
            if left.ends_with(LOCK) {
                continue;
            }
            let removed =
                if left.is_dir() { dir.files.remove_dir_all(&left) } else { dir.files.remove_file(&left) };
            removed.map_err(failed(&left))?;
        }
        dir.with_checkpoints()
    }

    fn locked(path: &Path, files: Arc<dyn Files>) -> Result<RunDir, RunDirError> {
        let at = path.join(LOCK);
        let lock = File::options().create(true).truncate(false).write(true).open(&at).map_err(failed(&at))?;
        match lock.try_lock() {
            Ok(()) => Ok(RunDir { path: path.to_path_buf(), files, _lock: Some(Arc::new(lock)) }),
            Err(TryLockError::WouldBlock) => Err(RunDirError::Busy { path: path.to_path_buf() }),
            // A file system without locks, as some network ones are: there is no telling, and
            // refusing would help nobody.
            Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Unsupported => {
                Ok(RunDir { path: path.to_path_buf(), files, _lock: None })
            }
            Err(TryLockError::Error(e)) => Err(failed(&at)(e)),
        }
    }

    fn with_checkpoints(self) -> Result<RunDir, RunDirError> {
        let checkpoints = self.file(CHECKPOINTS);
        match self.files.create_dir(&checkpoints) {
            Ok(()) => Ok(self),
            Err(e) => {
                // Nothing is left of a run that cannot begin.
                let _ = std::fs::remove_file(self.file(LOCK));
                let _ = std::fs::remove_dir(&self.path);
                Err(failed(&checkpoints)(e))
            }
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it is written through.
    pub fn files(&self) -> &dyn Files {
        self.files.as_ref()
    }

    /// The path of a file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The path of the weights of a checkpoint: `<name>.safetensors`, or, where there is a folder
    /// of that name, `averaged.safetensors` in it or else `model.safetensors`.
    pub fn checkpoint(&self, name: &str) -> PathBuf {
        let folder = self.file(CHECKPOINTS).join(name);
        if !folder.is_dir() {
            return self.file(CHECKPOINTS).join(format!("{name}.safetensors"));
        }
        let averaged = folder.join(AVERAGED);
        if averaged.is_file() { averaged } else { folder.join(MODEL) }
    }

    /// Names of the checkpoints there are, in order.
    pub fn checkpoints(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.file(CHECKPOINTS)).into_iter().flatten().flatten();
        let name = |e: std::fs::DirEntry| {
            let name = e.file_name().to_str()?.to_string();
            if e.path().join(MODEL).is_file() {
                Some(name)
            } else {
                name.strip_suffix(".safetensors").map(String::from)
            }
        };
        let mut names: Vec<String> = entries.filter_map(name).filter(|n| !n.starts_with('.')).collect();
        names.sort();
        names
    }

    /// Writes a file whole or not at all.
    ///
    /// # Errors
    /// The folder is not writable, the disk is full. Then a file that was there is as it was.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), RunDirError> {
        let path = self.file(name);
        files::write_whole(self.files(), &path, bytes).map_err(failed(&path))
    }

    /// Writes a value as indented JSON, as [`RunDir::write`].
    ///
    /// # Errors
    /// As there.
    pub fn write_json<T: Serialize>(&self, name: &str, value: &T) -> Result<(), RunDirError> {
        self.write(name, &pretty(value).map_err(|e| failed(&self.file(name))(e.into()))?)
    }

    /// Reads a JSON file.
    ///
    /// # Errors
    /// It is missing, or not what it should be.
    pub fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<T, RunDirError> {
        let path = self.file(name);
        serde_json::from_slice(&read(&path)?).map_err(|e| damaged(&path)(e.to_string()))
    }
}

/// A value as indented JSON with a line end.
///
/// # Errors
/// The value cannot be serialised.
pub fn pretty<T: Serialize>(value: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_numbered_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let parent = folder.path().join("runs");
        let names: Vec<PathBuf> =
            (0..3).map(|_| RunDir::create(&parent, "cnn").unwrap().path().to_path_buf()).collect();
        assert_eq!(names, [1, 2, 3].map(|n| parent.join(format!("cnn-{n}"))));
        std::fs::write(names[0].join("x"), b"").unwrap();
        let e = RunDir::create_at(&names[0]).unwrap_err();
        assert!(matches!(e, RunDirError::Occupied { .. }), "{e}");
    }

    #[test]
    fn a_folder_without_a_recipe_is_no_run() {
        let folder = tempfile::tempdir().unwrap();
        let e = RunDir::open(folder.path()).unwrap_err();
        assert!(matches!(e, RunDirError::NotARun { missing: RECIPE, .. }), "{e}");
    }

    #[test]
    fn two_cannot_write_to_one_directory() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        let first = RunDir::create_at(&path).unwrap();
        first.write(PREPROCESSING, b"{}").unwrap();
        first.write(RECIPE, b"").unwrap();
        let e = RunDir::resume(&path).unwrap_err();
        assert!(matches!(e, RunDirError::Busy { .. }), "{e}");
        assert!(matches!(RunDir::create_at(&path), Err(RunDirError::Occupied { .. })));
        RunDir::open(&path).expect("reading is free");
        let clone = first.clone();
        drop(first);
        assert!(matches!(RunDir::resume(&path), Err(RunDirError::Busy { .. })), "a clone holds the lock too");
        drop(clone);
        RunDir::resume(&path).unwrap();
    }

    #[test]
    fn a_directory_that_was_never_finished_can_be_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        let dir = RunDir::create_at(&path).unwrap();
        dir.write(PREPROCESSING, b"{}").unwrap();
        std::fs::write(path.join(".halfstep-1-1"), b"half").unwrap();
        drop(dir);
        assert!(
            matches!(RunDir::create_at(&path), Err(RunDirError::Occupied { .. })),
            "not without being asked"
        );
        let dir = RunDir::create_over(&path).unwrap();
        let mut left: Vec<_> = std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [LOCK, CHECKPOINTS]);
        dir.write(RECIPE, b"").unwrap();
        drop(dir);
        assert!(
            matches!(RunDir::create_over(&path), Err(RunDirError::Occupied { .. })),
            "a run is not removed"
        );
        assert!(path.join(RECIPE).is_file());
    }
}
