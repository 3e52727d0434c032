//! Compiled kernels on disk: what was compiled once is read the next time.
//!
//! An entry is a file named by a digest of all that decides its content. It begins with the
//! checksum of the rest, so what is damaged is compiled again. Files appear whole, by renaming, so
//! that processes can share a folder. Where nothing can be written, everything goes on without.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

/// What all entries may take together. A program has some dozen kernels of some ten kilobytes for
/// each architecture and policy.
pub const LIMIT_BYTES: u64 = 256 << 20;
/// The end of an entry's name.
const ENTRY: &str = ".kernel";
/// The beginning of the name of a file that is being written.
const UNFINISHED: &str = "unfinished-";
/// After this time nobody is writing such a file any more.
const ABANDONED: Duration = Duration::from_secs(3600);

/// A folder of compiled kernels.
#[derive(Debug)]
pub struct KernelCache {
    folder: PathBuf,
    limit: u64,
    /// Whether writing to it has failed.
    given_up: AtomicBool,
    /// Counts files that are being written.
    written: AtomicU64,
}

/// The name of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KernelKey(String);

impl KernelKey {
    /// Of everything that decides what is compiled, part by part.
    pub fn of<'p>(parts: impl IntoIterator<Item = &'p str>) -> KernelKey {
        let mut hash = Sha256::new();
        for part in parts {
            // With its length, so that no two lists of parts give the same bytes.
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        // Half of the digest: shorter, and still without collisions.
        KernelKey(hash.finalize()[..16].iter().map(|b| format!("{b:02x}")).collect())
    }
}

/// What is in the folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelCacheContents {
    /// Compiled modules.
    pub modules: usize,
    /// Bytes of all files.
    pub bytes: u64,
}

impl KernelCache {
    /// The cache in this folder, which need not be there, of at most so many bytes.
    pub fn at(folder: PathBuf, limit: u64) -> KernelCache {
        KernelCache { folder, limit, given_up: AtomicBool::new(false), written: AtomicU64::new(0) }
    }

    /// What an entry holds; none where it is absent or damaged.
    pub fn read(&self, key: &KernelKey) -> Option<Vec<u8>> {
        let path = self.path(key);
        // What is no file, such as a pipe, is not waited for.
        let mut file = Some(&path).filter(|path| path.is_file()).and_then(|path| File::open(path).ok())?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).ok()?;
        let content = bytes.split_off(bytes.len().min(32));
        if Sha256::digest(&content)[..] != bytes[..] {
            // It is compiled and written again.
            let _ = fs::remove_file(&path);
            return None;
        }
        // So that the oldest use is known. In a folder that is read-only nothing is removed anyway.
        let _ = File::options().append(true).open(&path).and_then(|f| f.set_modified(SystemTime::now()));
        Some(content)
    }

    /// Keeps what was compiled, and removes what was not used for the longest time if there is
    /// more than the limit.
    ///
    /// # Errors
    /// The first time that nothing can be written: where, and why. Later writes do nothing.
    pub fn write(&self, key: &KernelKey, content: &[u8]) -> Result<(), String> {
        if self.given_up.load(Ordering::Relaxed) {
            return Ok(());
        }
        match self.try_write(key, content) {
            Ok(()) => {
                self.trim(key);
                Ok(())
            }
            Err(_) if self.given_up.swap(true, Ordering::Relaxed) => Ok(()),
            Err(e) => Err(format!("compiled kernels are not kept in {}: {e}", self.folder.display())),
        }
    }

    fn try_write(&self, key: &KernelKey, content: &[u8]) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let number = self.written.fetch_add(1, Ordering::Relaxed);
        // The time as well: processes in containers can have the same number and folder.
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |t| t.as_nanos());
        let unfinished = self.folder.join(format!("{UNFINISHED}{}-{number}-{time}", std::process::id()));
        let mut file = File::create_new(&unfinished)?;
        let written = file
            .write_all(&Sha256::digest(content))
            .and_then(|()| file.write_all(content))
            .and_then(|()| fs::rename(&unfinished, self.path(key)));
        if written.is_err() {
            let _ = fs::remove_file(&unfinished);
        }
        written
    }

    /// Removes entries, the oldest use first, until they fit the limit, but not the one of this
    /// key; and what was never finished. Another process may do the same at the same time.
    fn trim(&self, keep: &KernelKey) {
        let mut entries: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for (path, metadata) in files(&self.folder) {
            let time = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            if is_entry(&path) {
                entries.push((time, metadata.len(), path));
            } else if time.elapsed().is_ok_and(|age| age > ABANDONED) {
                let _ = fs::remove_file(path);
            }
        }
        let mut bytes: u64 = entries.iter().map(|(_, bytes, _)| bytes).sum();
        entries.sort();
        for (_, size, path) in entries {
            if bytes <= self.limit {
                break;
            }
            if path == self.path(keep) {
                continue;
            }
            match fs::remove_file(path) {
                Ok(()) => bytes -= size,
                // Another process was faster.
                Err(e) if e.kind() == io::ErrorKind::NotFound => bytes -= size,
                Err(_) => {}
            }
        }
    }

    /// What is there.
    pub fn contents(&self) -> KernelCacheContents {
        let mut contents = KernelCacheContents::default();
        for (path, metadata) in files(&self.folder) {
            contents.modules += usize::from(is_entry(&path));
            contents.bytes += metadata.len();
        }
        contents
    }

    /// Removes all entries and returns how many there were.
    ///
    /// # Errors
    /// One cannot be removed.
    pub fn clear(&self) -> io::Result<usize> {
        let mut removed = 0;
        for (path, _) in files(&self.folder) {
            match fs::remove_file(&path) {
                Ok(()) => removed += usize::from(is_entry(&path)),
                // Another process was faster.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(io::Error::new(e.kind(), format!("{}: {e}", path.display()))),
            }
        }
        Ok(removed)
    }

    fn path(&self, key: &KernelKey) -> PathBuf {
        self.folder.join(format!("{}{ENTRY}", key.0))
    }
}

fn is_entry(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(ENTRY))
}

/// The files of this cache in a folder, those that are being written among them.
fn files(folder: &Path) -> Vec<(PathBuf, fs::Metadata)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let own = |path: &Path| {
        is_entry(path) || path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(UNFINISHED))
    };
    let with_metadata = |entry: fs::DirEntry| Some((entry.path(), entry.metadata().ok()?));
    entries.filter_map(with_metadata).filter(|(path, metadata)| own(path) && !metadata.is_dir()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> KernelKey {
        KernelKey::of([n.to_string().as_str()])
    }

    fn used(cache: &KernelCache, key: &KernelKey, seconds: u64) {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        File::options().append(true).open(cache.path(key)).unwrap().set_modified(time).unwrap();
    }

    #[test]
    fn parts_of_a_key_do_not_run_into_each_other() {
        assert_ne!(KernelKey::of(["ab", "c"]), KernelKey::of(["a", "bc"]));
        assert_ne!(KernelKey::of(["a"]), KernelKey::of(["a", ""]));
        assert_eq!(KernelKey::of(["a", "b"]), KernelKey::of(["a", "b"]));
    }

    #[test]
    fn what_is_damaged_or_cut_off_is_absent() {
        let folder = tempfile::tempdir().unwrap();
        let cache = KernelCache::at(folder.path().join("kernels"), 1000);
        assert_eq!(cache.read(&key(0)), None);
        cache.write(&key(0), b"code").unwrap();
        assert_eq!(cache.read(&key(0)).unwrap(), b"code");
        cache.write(&key(1), b"").unwrap();
        assert_eq!(cache.read(&key(1)).unwrap(), b"");
        let whole = fs::read(cache.path(&key(0))).unwrap();
        for bytes in [&whole[..whole.len() - 1], &whole[..5], &[]] {
            fs::write(cache.path(&key(0)), bytes).unwrap();
            assert_eq!(cache.read(&key(0)), None);
            assert!(!cache.path(&key(0)).exists());
        }
        let mut other = whole.clone();
        *other.last_mut().unwrap() ^= 1;
        fs::write(cache.path(&key(0)), other).unwrap();
        assert_eq!(cache.read(&key(0)), None);
    }

    #[test]
    fn the_oldest_use_is_removed_first() {
        let folder = tempfile::tempdir().unwrap();
        // Three entries of 32 + 8 bytes fit.
        let cache = KernelCache::at(folder.path().to_path_buf(), 120);
        for n in 0..3 {
            cache.write(&key(n), b"12345678").unwrap();
            used(&cache, &key(n), 1000 + n as u64);
        }
        assert!(cache.read(&key(0)).is_some());
        fs::write(folder.path().join("unfinished-1-2-3"), "x").unwrap();
        cache.write(&key(3), b"12345678").unwrap();
        let there = [0, 1, 2, 3].map(|n| cache.read(&key(n)).is_some());
        assert_eq!(there, [true, false, true, true]);
        assert_eq!(cache.contents(), KernelCacheContents { modules: 3, bytes: 121 });
        assert_eq!(cache.clear().unwrap(), 3);
        assert_eq!(cache.contents(), KernelCacheContents::default());
    }

    #[test]
    fn an_entry_larger_than_the_limit_is_kept_until_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let cache = KernelCache::at(folder.path().to_path_buf(), 10);
        cache.write(&key(0), &[7; 100]).unwrap();
        assert!(cache.read(&key(0)).is_some());
        cache.write(&key(1), &[7; 100]).unwrap();
        assert!(cache.read(&key(0)).is_none() && cache.read(&key(1)).is_some());
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let cache = KernelCache::at(file.join("kernels"), 1000);
        let said = cache.write(&key(0), b"code").unwrap_err();
        assert!(
            said.starts_with("compiled kernels are not kept in ") && said.contains("file/kernels"),
            "{said}"
        );
        assert_eq!(cache.write(&key(1), b"code"), Ok(()));
        assert_eq!(cache.read(&key(0)), None);
    }

    /// Folders and pipes with the names of entries are no entries.
    #[cfg(unix)]
    #[test]
    fn what_is_no_file_is_absent() {
        let folder = tempfile::tempdir().unwrap();
        let cache = KernelCache::at(folder.path().to_path_buf(), 1000);
        fs::create_dir(cache.path(&key(0))).unwrap();
        let pipe = std::process::Command::new("mkfifo").arg(cache.path(&key(1))).status().unwrap();
        assert!(pipe.success());
        // Nobody writes to the pipe: who opens it waits without end.
        assert!(cache.read(&key(0)).is_none() && cache.read(&key(1)).is_none());
        assert_eq!(cache.contents().modules, 1);
        assert_eq!(cache.clear().unwrap(), 1);
        assert!(cache.path(&key(0)).is_dir());
    }

    #[test]
    fn two_that_write_at_once_both_read_whole_entries() {
        let folder = tempfile::tempdir().unwrap();
        let content = vec![5u8; 100_000];
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    // As two processes: each has its own.
                    let cache = KernelCache::at(folder.path().to_path_buf(), 250_000);
                    for round in 0..50 {
                        let key = key(round % 4);
                        if let Some(found) = cache.read(&key) {
                            assert!(found == content);
                        }
                        cache.write(&key, &content).unwrap();
                    }
                });
            }
        });
    }
}
