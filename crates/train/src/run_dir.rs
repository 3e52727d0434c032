//! Run directories: what a run leaves behind, each file whole or not at all.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The recipe as resolved.
pub const RECIPE: &str = "recipe.toml";
/// Precision and memory plans, one per precision.
pub const PLAN: &str = "plan.json";
/// One JSON object per step and per evaluation.
pub const METRICS: &str = "metrics.jsonl";
/// What new inputs need to be prepared alike.
pub const PREPROCESSING: &str = "preprocessing.json";
/// Folder of weights.
pub const CHECKPOINTS: &str = "checkpoints";

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

fn failed(path: &Path) -> impl FnOnce(io::Error) -> RunDirError {
    let path = path.to_path_buf();
    move |source| RunDirError::Write { path, source }
}

/// Writes a file whole or not at all: a temporary file in the same folder, flushed to the disk, then renamed.
///
/// Errors: the folder is missing or not writable, the disk is full. Then a file that was there is as it was.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), RunDirError> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || -> io::Result<()> {
        let mut builder = tempfile::Builder::new();
        #[cfg(unix)]
        let builder = {
            use std::os::unix::fs::PermissionsExt;
            // What any new file gets, less the umask; temporary files are private by default.
            builder.permissions(std::fs::Permissions::from_mode(0o666))
        };
        let mut file = builder.prefix(".halfstep-").tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|e| e.error)?;
        // The rename itself lasts only once the folder is on the disk.
        #[cfg(unix)]
        File::open(folder)?.sync_all()?;
        Ok(())
    };
    write().map_err(failed(path))
}

/// A run directory.
#[derive(Clone, Debug)]
pub struct RunDir {
    path: PathBuf,
}

impl RunDir {
    /// Makes `parent/<name>-<n>` with the first free n, counted from 1.
    ///
    /// Errors: the folder cannot be made or written to.
    pub fn create(parent: &Path, name: &str) -> Result<RunDir, RunDirError> {
        std::fs::create_dir_all(parent).map_err(failed(parent))?;
        for n in 1.. {
            let path = parent.join(format!("{name}-{n}"));
            match std::fs::create_dir(&path) {
                Ok(()) => return RunDir { path }.checked(),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(failed(&path)(e)),
            }
        }
        unreachable!("a folder holds fewer entries than there are numbers")
    }

    /// Makes the folder `path`, or takes it if it is empty.
    ///
    /// Errors: it holds something; it cannot be made or written to.
    pub fn create_at(path: &Path) -> Result<RunDir, RunDirError> {
        std::fs::create_dir_all(path).map_err(failed(path))?;
        let mut entries = std::fs::read_dir(path).map_err(failed(path))?;
        if entries.next().is_some() {
            return Err(RunDirError::Occupied { path: path.to_path_buf() });
        }
        RunDir { path: path.to_path_buf() }.checked()
    }

    /// Opens what an earlier run left.
    ///
    /// Errors: it is no run directory.
    pub fn open(path: &Path) -> Result<RunDir, RunDirError> {
        for missing in [RECIPE, PREPROCESSING] {
            if !path.join(missing).is_file() {
                return Err(RunDirError::NotARun { path: path.to_path_buf(), missing });
            }
        }
        Ok(RunDir { path: path.to_path_buf() })
    }

    fn checked(self) -> Result<RunDir, RunDirError> {
        let checkpoints = self.file(CHECKPOINTS);
        match std::fs::create_dir(&checkpoints) {
            Ok(()) => Ok(self),
            Err(e) => {
                // Nothing is left of a run that cannot begin.
                let _ = std::fs::remove_dir(&self.path);
                Err(failed(&checkpoints)(e))
            }
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The path of the checkpoint of a name.
    pub fn checkpoint(&self, name: &str) -> PathBuf {
        self.path.join(CHECKPOINTS).join(format!("{name}.safetensors"))
    }

    /// Names of the checkpoints there are, in order.
    pub fn checkpoints(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.file(CHECKPOINTS)).into_iter().flatten().flatten();
        let name =
            |e: std::fs::DirEntry| e.file_name().to_str()?.strip_suffix(".safetensors").map(String::from);
        let mut names: Vec<String> = entries.filter_map(name).filter(|n| !n.starts_with('.')).collect();
        names.sort();
        names
    }

    /// Writes a file, as [`write_whole`].
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), RunDirError> {
        write_whole(&self.file(name), bytes)
    }

    /// Writes a value as indented JSON, as [`write_whole`].
    pub fn write_json<T: Serialize>(&self, name: &str, value: &T) -> Result<(), RunDirError> {
        let path = self.file(name);
        let mut bytes = serde_json::to_vec_pretty(value)
            .map_err(|e| RunDirError::Write { path: path.clone(), source: e.into() })?;
        bytes.push(b'\n');
        write_whole(&path, &bytes)
    }

    /// Reads a JSON file.
    ///
    /// Errors: it is missing, or not what it should be.
    pub fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<T, RunDirError> {
        let path = self.file(name);
        let bytes =
            std::fs::read(&path).map_err(|source| RunDirError::Read { path: path.clone(), source })?;
        serde_json::from_slice(&bytes).map_err(|e| RunDirError::Damaged { path, reason: e.to_string() })
    }
}

/// A file of JSON objects, one per line, that grows.
#[derive(Debug)]
pub struct Lines {
    path: PathBuf,
    file: File,
    whole: u64,
}

impl Lines {
    /// Makes the file.
    ///
    /// Errors: it cannot be made.
    pub fn create(path: &Path) -> Result<Lines, RunDirError> {
        let file = File::options().create_new(true).append(true).open(path).map_err(failed(path))?;
        Ok(Lines { path: path.to_path_buf(), file, whole: 0 })
    }

    /// Adds one line. If that fails, the part of it that was written is taken away again.
    ///
    /// Errors: the disk is full or gone.
    pub fn push<T: Serialize>(&mut self, value: &T) -> Result<(), RunDirError> {
        let mut line = serde_json::to_vec(value).map_err(|e| failed(&self.path)(e.into()))?;
        line.push(b'\n');
        if let Err(e) = self.file.write_all(&line) {
            let _ = self.file.set_len(self.whole);
            return Err(failed(&self.path)(e));
        }
        self.whole += line.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_whole_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        write_whole(&path, b"first").unwrap();
        write_whole(&path, b"second").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_cannot_be_replaced_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("inside"), b"x").unwrap();
        let e = write_whole(&path, b"text").unwrap_err();
        assert!(e.to_string().contains("taken: cannot be written"), "{e}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    }

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
    fn lines_are_json_each() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.jsonl");
        let mut lines = Lines::create(&path).unwrap();
        lines.push(&serde_json::json!({"a": 1})).unwrap();
        lines.push(&f64::NAN).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"a\":1}\nnull\n");
    }

    /// `/dev/full` refuses every write as a full disk does.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_named() {
        let mut lines = Lines {
            path: "/dev/full".into(),
            file: File::options().append(true).open("/dev/full").unwrap(),
            whole: 0,
        };
        let e = lines.push(&1).unwrap_err();
        assert!(e.to_string().contains("free some space"), "{e}");
    }
}
