//! Files that others than their owner must not touch, and that may change while the server runs.

use std::io;
use std::path::Path;
use std::time::SystemTime;

/// The permissions of a file, as `chmod` has them; none where the system has no such thing.
pub(crate) fn mode(path: &Path) -> io::Result<u32> {
    let meta = std::fs::metadata(path)?;
    #[cfg(unix)]
    return Ok(std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o7777);
    #[cfg(not(unix))]
    return Ok(0);
}

/// By what a change of a file is seen.
pub(crate) type Stamp = (Option<SystemTime>, u64);

/// The stamp of a file as it is now.
pub(crate) fn stamp(path: &Path) -> io::Result<Stamp> {
    let meta = std::fs::metadata(path)?;
    Ok((meta.modified().ok(), meta.len()))
}
