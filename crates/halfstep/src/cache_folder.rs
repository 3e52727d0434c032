//! Where what was computed before is kept: runs of comparisons, and compiled kernels.

use std::path::{Path, PathBuf};

use halfstep_gpu::cache::{KernelCache, LIMIT_BYTES};

/// The environment's name for another place.
const PLACE: &str = "HALFSTEP_CACHE";

/// `$HALFSTEP_CACHE`, or `halfstep` in `$XDG_CACHE_HOME`, or in `.cache` of the home folder; none
/// where none of these is set.
pub fn cache_folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    // A relative XDG_CACHE_HOME is to be ignored, says its specification.
    let xdg = || set("XDG_CACHE_HOME").filter(|p| p.is_absolute()).map(|p| p.join("halfstep"));
    let home = || set("HOME").map(|p| p.join(".cache").join("halfstep"));
    set(PLACE).or_else(xdg).or_else(home)
}

/// The compiled kernels in such a folder.
pub fn kernel_cache(folder: &Path) -> KernelCache {
    KernelCache::at(folder.join("kernels"), LIMIT_BYTES)
}
