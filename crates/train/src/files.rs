//! The layer under every file a run writes. Everything above it goes through [`Files`], so that a
//! test can put a disk below that fills up, tears writes or forgets what it said it kept.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Begins the names of files and folders that are not finished. What is left of them after a crash
/// may be deleted.
pub const UNFINISHED: &str = ".halfstep-";

/// The changes that a run makes to a file system. Reading is done directly.
pub trait Files: fmt::Debug + Send + Sync {
    /// Makes a folder, whose parent must be there.
    ///
    /// # Errors
    /// It is there already, or cannot be made.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes an empty file to write to.
    ///
    /// # Errors
    /// It is there already, or cannot be made.
    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>>;
    /// Opens a file to write behind its first `length` bytes, and cuts off the rest. It is made if
    /// it is missing.
    ///
    /// # Errors
    /// It cannot be opened or cut.
    fn append(&self, path: &Path, length: u64) -> io::Result<Box<dyn WriteFile>>;
    /// Gives a file or folder another name in one step. A file that had that name is replaced.
    ///
    /// # Errors
    /// There is a folder of that name that is not empty; the system refuses.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    /// It is missing, or the system refuses.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a folder and all that is in it.
    ///
    /// # Errors
    /// It is missing, or the system refuses.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Waits until the content of a file is on the disk.
    ///
    /// # Errors
    /// It cannot be opened, or the disk failed.
    fn sync_file(&self, path: &Path) -> io::Result<()>;
    /// Waits until the names in a folder are on the disk.
    ///
    /// # Errors
    /// It cannot be opened, or the disk failed.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
}

/// A file open for writing at its end.
pub trait WriteFile: Write + fmt::Debug + Send {
    /// Waits until all that was written is on the disk.
    ///
    /// # Errors
    /// The disk failed.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts the file.
    ///
    /// # Errors
    /// The system refuses.
    fn set_len(&mut self, length: u64) -> io::Result<()>;
}

/// The file system of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl Files for Disk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        Ok(Box::new(File::options().create_new(true).append(true).open(path)?))
    }

    fn append(&self, path: &Path, length: u64) -> io::Result<Box<dyn WriteFile>> {
        let file = File::options().create(true).append(true).open(path)?;
        // Not for a device, which has no length.
        if file.metadata()?.len() > length {
            file.set_len(length)?;
        }
        Ok(Box::new(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir_all(path)
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        // Any handle does: what is synced is the file. Some systems want one that may write.
        File::options().append(true).open(path)?.sync_all()
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        // Elsewhere folders cannot be opened, and renames are the file system's own business.
        if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
    }
}

impl WriteFile for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }

    fn set_len(&mut self, length: u64) -> io::Result<()> {
        File::set_len(self, length)
    }
}

/// The folder a path lies in.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file of a name that nobody else uses, in `folder`.
fn create_unfinished(files: &dyn Files, folder: &Path) -> io::Result<(PathBuf, Box<dyn WriteFile>)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("{UNFINISHED}{}-{n}", std::process::id()));
        match files.create(&path) {
            Ok(file) => return Ok((path, file)),
            // Left by a process that had the same number before it was killed.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
    }
}

/// Writes a file whole or not at all: an unfinished file in the same folder, flushed to the disk,
/// then renamed; then the folder is flushed, for the rename itself lasts only from then on. A
/// device or a pipe is written to directly.
///
/// # Errors
/// The folder is missing or not writable, the disk is full. Then a file that was there is as it
/// was.
pub fn write_whole(files: &dyn Files, path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A device or a pipe is written to, not replaced by a file.
    if std::fs::metadata(path).is_ok_and(|there| !there.is_file() && !there.is_dir()) {
        return File::options().write(true).open(path)?.write_all(bytes);
    }
    let folder = folder_of(path);
    let (unfinished, mut file) = create_unfinished(files, folder)?;
    let written = file.write_all(bytes).and_then(|()| file.sync()).and_then(|()| {
        drop(file);
        files.rename(&unfinished, path)
    });
    if let Err(e) = written {
        // The disk may be full or gone: what cannot be removed now is removed when the run goes on.
        let _ = files.remove_file(&unfinished);
        return Err(e);
    }
    files.sync_dir(folder)
}

/// Removes what unfinished writes left in a folder. Nobody else may be writing there.
pub(crate) fn remove_unfinished(files: &dyn Files, folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            match entry.file_type()?.is_dir() {
                true => files.remove_dir_all(&entry.path())?,
                false => files.remove_file(&entry.path())?,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_whole_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        write_whole(&Disk, &path, b"first").unwrap();
        write_whole(&Disk, &path, b"second").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_cannot_be_replaced_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("inside"), b"x").unwrap();
        write_whole(&Disk, &path, b"text").unwrap_err();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no unfinished file is left");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_device_stays_a_device() {
        use std::os::unix::fs::FileTypeExt;
        let full = write_whole(&Disk, Path::new("/dev/full"), b"text").unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        write_whole(&Disk, Path::new("/dev/null"), b"text").unwrap();
        for device in ["/dev/full", "/dev/null"] {
            assert!(std::fs::metadata(device).unwrap().file_type().is_char_device(), "{device}");
        }
    }

    #[test]
    fn what_crashes_left_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at(".halfstep-7-0"), b"x").unwrap();
        std::fs::create_dir(at(".halfstep-step-000007")).unwrap();
        std::fs::write(at(".halfstep-step-000007").join("inside"), b"x").unwrap();
        std::fs::write(at(".lock"), b"").unwrap();
        remove_unfinished(&Disk, folder.path()).unwrap();
        let left: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, [".lock"]);
    }

    #[test]
    fn appending_cuts_what_lies_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        Disk.append(&path, 0).unwrap().write_all(b"one two").unwrap();
        Disk.append(&path, 4).unwrap().write_all(b"three").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"one three");
    }
}
