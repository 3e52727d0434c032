//! Files by their content: each has the SHA-256 of its bytes as its name and is never changed.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use halfstep_attest::digest::{Digest, Hashing};

use crate::error::RegistryError;

/// Begins the names of files that are not finished.
const UNFINISHED: &str = ".unfinished-";
/// Between the making of an unfinished file and its lock lies less than this.
const JUST_MADE: Duration = Duration::from_secs(60);

/// The folder of files.
pub(crate) struct Blobs {
    folder: PathBuf,
}

/// A file that has been copied into the folder, on the disk, without its name as yet. Dropped, it
/// is removed.
pub(crate) struct Staged {
    pub digest: Digest,
    pub bytes: u64,
    path: PathBuf,
    /// Locked as long as its process lives.
    file: File,
}

impl Drop for Staged {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Blobs {
    pub fn new(folder: PathBuf) -> Blobs {
        Blobs { folder }
    }

    /// Makes the folder.
    pub fn create(&self) -> Result<(), RegistryError> {
        fs::create_dir_all(&self.folder).map_err(RegistryError::file(&self.folder))
    }

    /// Where the file of this content is, if it is there.
    pub fn path(&self, digest: Digest) -> PathBuf {
        self.folder.join(digest.to_string())
    }

    /// Copies what a reader gives into the folder. `from` is what messages call it.
    pub fn stage(&self, reader: impl Read, from: &Path) -> Result<Staged, RegistryError> {
        let (path, file) = self.unfinished()?;
        // From here on it is removed if something fails.
        let mut staged = Staged { digest: Digest([0; 32]), bytes: 0, path, file };
        let Staged { path, file, .. } = &mut staged;
        file.try_lock().map_err(|e| RegistryError::file(path)(e.into()))?;
        let (digest, bytes) = copy(reader, file, from, path)?;
        let finish = || {
            let mut permissions = file.metadata()?.permissions();
            permissions.set_readonly(true);
            file.set_permissions(permissions)?;
            file.sync_all()
        };
        finish().map_err(RegistryError::file(path))?;
        (staged.digest, staged.bytes) = (digest, bytes);
        Ok(staged)
    }

    fn unfinished(&self) -> Result<(PathBuf, File), RegistryError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let n = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = self.folder.join(format!("{UNFINISHED}{}-{n}", std::process::id()));
            match File::options().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok((path, file)),
                // Left by a killed process that had the same number.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(RegistryError::file(&path)(e)),
            }
        }
    }

    /// Gives files that were staged their names. To be called under the write lock, so that none
    /// is removed before it is recorded; and then the names are on the disk.
    pub fn keep<'a>(&self, staged: impl IntoIterator<Item = &'a Staged>) -> Result<(), RegistryError> {
        for file in staged {
            // Also over a file that is there: so what was damaged is whole again.
            let to = self.path(file.digest);
            fs::rename(&file.path, &to).map_err(RegistryError::file(&to))?;
        }
        sync_folder(&self.folder)
    }

    /// Copies a file out of the folder, and makes sure that its bytes are those that were added.
    pub fn copy_out(&self, digest: Digest, to: &Path) -> Result<(), RegistryError> {
        let path = self.path(digest);
        let source = open(&path).map_err(RegistryError::file(&path))?;
        let mut target = File::create_new(to).map_err(RegistryError::file(to))?;
        let (found, _) = copy(source, &mut target, &path, to)?;
        if found == digest { Ok(()) } else { Err(RegistryError::Changed(path)) }
    }

    /// The bytes of a file that has `limit` at most.
    pub fn read(&self, digest: Digest, limit: u64) -> Result<Vec<u8>, RegistryError> {
        let path = self.path(digest);
        let file = open(&path).map_err(RegistryError::file(&path))?;
        let mut bytes = Vec::new();
        file.take(limit + 1).read_to_end(&mut bytes).map_err(RegistryError::file(&path))?;
        if Digest::of(&bytes) == digest { Ok(bytes) } else { Err(RegistryError::Changed(path)) }
    }

    /// Whether a file is there and has the bytes that were added, and as many.
    pub fn check(&self, digest: Digest, bytes: u64) -> Result<(), RegistryError> {
        let path = self.path(digest);
        let mut hashing = Hashing::new(open(&path).map_err(RegistryError::file(&path))?);
        io::copy(&mut hashing, &mut io::sink()).map_err(RegistryError::file(&path))?;
        as_added(&path, hashing.finish(), (digest, bytes))
    }

    /// Every file that has the name of a content.
    pub fn all(&self) -> Result<Vec<Digest>, RegistryError> {
        let digest = |name: String| Digest::try_from(name).ok();
        Ok(self.names()?.into_iter().filter_map(digest).collect())
    }

    fn names(&self) -> Result<Vec<String>, RegistryError> {
        let failed = |e| RegistryError::file(&self.folder)(e);
        let entries = fs::read_dir(&self.folder).map_err(failed)?;
        let names: io::Result<Vec<_>> = entries.map(|entry| Ok(entry?.file_name())).collect();
        Ok(names.map_err(failed)?.into_iter().filter_map(|name| name.into_string().ok()).collect())
    }

    /// Files that processes which are gone did not finish.
    pub fn left_behind(&self, now: SystemTime) -> Result<Vec<PathBuf>, RegistryError> {
        let mut found = Vec::new();
        for name in self.names()?.into_iter().filter(|name| name.starts_with(UNFINISHED)) {
            let path = self.folder.join(name);
            // A file that is gone meanwhile was finished.
            let Ok(file) = open(&path) else { continue };
            let made = file.metadata().and_then(|m| m.modified()).unwrap_or(now);
            let old = now.duration_since(made).is_ok_and(|age| age > JUST_MADE);
            if old && file.try_lock().is_ok() {
                found.push(path);
            }
        }
        Ok(found)
    }
}

/// Checks that a file of the folder has the digest and the bytes that it was added with.
pub(crate) fn as_added(
    path: &Path,
    (found, is): (Digest, u64),
    (digest, bytes): (Digest, u64),
) -> Result<(), RegistryError> {
    match found == digest {
        false => Err(RegistryError::Changed(path.into())),
        true if is != bytes => Err(RegistryError::Size { path: path.into(), is, bytes }),
        true => Ok(()),
    }
}

/// Opens a file of a registry's folder. What somebody put in its place and has no end, such as a
/// device or a pipe, is not read.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    match fs::metadata(path)?.is_file() {
        true => File::open(path),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")),
    }
}

/// Copies, and hashes what is copied.
fn copy(reader: impl Read, to: &mut File, from: &Path, path: &Path) -> Result<(Digest, u64), RegistryError> {
    let mut hashing = Hashing::new(reader);
    let copied = io::copy(&mut hashing, to);
    let failed = |source| RegistryError::Copy { from: from.into(), to: path.into(), source };
    copied.map_err(failed)?;
    Ok(hashing.finish())
}

/// Removes a file that may be gone.
pub(crate) fn remove(path: &Path) -> Result<(), RegistryError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(RegistryError::file(path)(e)),
        _ => Ok(()),
    }
}

/// Where something is written before it gets the name of `path`, in the same folder.
pub(crate) fn unfinished(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}-unfinished-{}", std::process::id()))
}

/// Waits until the name of a file or folder is on the disk.
pub(crate) fn sync_name(path: &Path) -> Result<(), RegistryError> {
    sync_folder(path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))
}

/// Waits until the names in a folder are on the disk.
fn sync_folder(folder: &Path) -> Result<(), RegistryError> {
    // Elsewhere folders cannot be opened, and renames are the file system's own business.
    if cfg!(unix) {
        File::open(folder).and_then(|f| f.sync_all()).map_err(RegistryError::file(folder))?;
    }
    Ok(())
}
