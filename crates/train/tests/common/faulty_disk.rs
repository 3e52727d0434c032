//! A disk that fails as disks do: it fills up, tears writes, dies in the middle, and forgets what
//! was not flushed.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use halfstep_train::files::{Disk, Files, WriteFile};

/// What goes wrong. Operations are counted from 0: every change and every flush is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Every write takes a part of its bytes only, as writes may.
    ShortWrites,
    /// This operation fails; of a write, half is done before.
    Once(u64),
    /// From this operation on, writes fail, half done.
    Full(u64),
    /// The machine dies in this operation; of a write, half is done. What was not flushed is then
    /// as `After` says.
    Dies(u64, After),
    /// As `Dies` at the second number, but flushes from the first on were lies: nothing was
    /// flushed.
    DiesAfterLies(u64, u64, After),
}

/// What of the unflushed is left when a machine has died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct After {
    /// Whether what files held is there.
    pub contents: bool,
    /// Whether files have the names they were given. Removals are always there.
    pub names: bool,
}

#[derive(Debug)]
struct Inner {
    fault: Fault,
    operations: u64,
    dead: bool,
    /// Files with what they held when they were last flushed.
    unflushed: Vec<(PathBuf, u64)>,
    /// Folder of each unflushed change of names, with how to take it back: renamed from, to; or
    /// made.
    names: Vec<(PathBuf, Option<PathBuf>, PathBuf)>,
}

#[derive(Clone, Debug)]
pub struct FaultyDisk(Arc<Mutex<Inner>>);

#[derive(PartialEq)]
enum Kind {
    Write,
    Flush,
    Other,
}

enum Verdict {
    Do,
    Half,
    Fail(io::Error),
    Lie,
}

impl FaultyDisk {
    pub fn new(fault: Fault) -> FaultyDisk {
        let (unflushed, names) = (Vec::new(), Vec::new());
        FaultyDisk(Arc::new(Mutex::new(Inner { fault, operations: 0, dead: false, unflushed, names })))
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        self.0.lock().unwrap().operations
    }

    /// Whether the machine has died.
    pub fn dead(&self) -> bool {
        self.0.lock().unwrap().dead
    }

    /// What the next process finds: the unflushed is lost, as the fault says.
    pub fn settle(&self) {
        let mut inner = self.0.lock().unwrap();
        let after = match inner.fault {
            Fault::Dies(_, after) | Fault::DiesAfterLies(_, _, after) => after,
            _ => return,
        };
        if !after.contents {
            for (path, length) in std::mem::take(&mut inner.unflushed) {
                if let Ok(file) = std::fs::File::options().write(true).open(path) {
                    file.set_len(length).unwrap();
                }
            }
        }
        if !after.names {
            for (_, from, to) in std::mem::take(&mut inner.names).into_iter().rev() {
                match from {
                    Some(from) => drop(std::fs::rename(to, from)),
                    None if to.is_dir() => drop(std::fs::remove_dir_all(to)),
                    None => drop(std::fs::remove_file(to)),
                }
            }
        }
    }

    fn next(&self, kind: Kind) -> Verdict {
        let mut inner = self.0.lock().unwrap();
        let number = inner.operations;
        inner.operations += 1;
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let half_if_write =
            |kind: &Kind, e| if *kind == Kind::Write { Verdict::Half } else { Verdict::Fail(e) };
        match inner.fault {
            _ if inner.dead => Verdict::Fail(io::Error::other("the machine is dead")),
            Fault::Once(at) if number == at => half_if_write(&kind, full()),
            Fault::Full(from) if number >= from && kind == Kind::Write => Verdict::Half,
            Fault::Dies(at, _) | Fault::DiesAfterLies(_, at, _) if number == at => {
                inner.dead = true;
                half_if_write(&kind, io::Error::other("the machine dies"))
            }
            Fault::DiesAfterLies(from, _, _) if number >= from && kind == Kind::Flush => Verdict::Lie,
            _ => Verdict::Do,
        }
    }

    fn other(&self, act: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        match self.next(Kind::Other) {
            Verdict::Fail(e) => Err(e),
            _ => act(),
        }
    }

    fn renamed(&self, from: Option<&Path>, to: &Path) {
        let mut inner = self.0.lock().unwrap();
        if let Some(from) = from {
            // What is written in a file or folder goes with it.
            for (path, _) in &mut inner.unflushed {
                if let Ok(rest) = path.strip_prefix(from) {
                    *path = if rest.as_os_str().is_empty() { to.to_path_buf() } else { to.join(rest) };
                }
            }
        }
        inner.names.push((to.parent().unwrap().to_path_buf(), from.map(Path::to_path_buf), to.to_path_buf()));
    }

    fn flushed(&self, path: &Path) {
        self.0.lock().unwrap().unflushed.retain(|(p, _)| p != path);
    }

    fn open(&self, path: &Path, file: Box<dyn WriteFile>) -> Box<dyn WriteFile> {
        Box::new(FaultyFile { disk: self.clone(), path: path.to_path_buf(), file })
    }
}

impl Files for FaultyDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.other(|| Disk.create_dir(path))?;
        self.renamed(None, path);
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        self.other(|| Ok(()))?;
        let file = Disk.create(path)?;
        self.renamed(None, path);
        Ok(self.open(path, file))
    }

    fn append(&self, path: &Path, length: u64) -> io::Result<Box<dyn WriteFile>> {
        self.other(|| Ok(()))?;
        let file = Disk.append(path, length)?;
        Ok(self.open(path, file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.other(|| Disk.rename(from, to))?;
        self.renamed(Some(from), to);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.other(|| Disk.remove_file(path))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.other(|| Disk.remove_dir_all(path))
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        match self.next(Kind::Flush) {
            Verdict::Fail(e) => return Err(e),
            Verdict::Lie => {}
            Verdict::Do | Verdict::Half => self.flushed(path),
        }
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        match self.next(Kind::Flush) {
            Verdict::Fail(e) => return Err(e),
            Verdict::Lie => {}
            Verdict::Do | Verdict::Half => {
                self.0.lock().unwrap().names.retain(|(folder, _, _)| folder != path);
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct FaultyFile {
    disk: FaultyDisk,
    /// As it was when it was opened; a file is renamed only after it was closed.
    path: PathBuf,
    file: Box<dyn WriteFile>,
}

impl Write for FaultyFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let verdict = self.disk.next(Kind::Write);
        let length = std::fs::metadata(&self.path).map_or(0, |m| m.len());
        {
            let mut inner = self.disk.0.lock().unwrap();
            if !matches!(verdict, Verdict::Fail(_)) && !inner.unflushed.iter().any(|(p, _)| *p == self.path) {
                inner.unflushed.push((self.path.clone(), length));
            }
            if inner.fault == Fault::ShortWrites {
                drop(inner);
                return self.file.write(&bytes[..bytes.len().div_ceil(2)]);
            }
        }
        match verdict {
            Verdict::Fail(e) => Err(e),
            Verdict::Half => {
                self.file.write_all(&bytes[..bytes.len() / 2])?;
                Err(io::Error::from(io::ErrorKind::StorageFull))
            }
            Verdict::Do | Verdict::Lie => self.file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl WriteFile for FaultyFile {
    fn sync(&mut self) -> io::Result<()> {
        self.disk.sync_file(&self.path)
    }

    fn set_len(&mut self, length: u64) -> io::Result<()> {
        let disk = self.disk.clone();
        disk.other(|| self.file.set_len(length))
    }
}
