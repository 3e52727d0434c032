//! Files that others than their owner must not touch.

use std::io;
use std::path::Path;

/// The permissions of a file, as `chmod` has them; none where the system has no such thing.
pub(crate) fn mode(path: &Path) -> io::Result<u32> {
    let meta = std::fs::metadata(path)?;
    #[cfg(unix)]
    return Ok(std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o7777);
    #[cfg(not(unix))]
    return Ok(0);
}
