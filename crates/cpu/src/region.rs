//! Blocks of memory: aligned, made once, touched when they are made.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

use halfstep_graph::engine::EngineError;

/// Alignment of every value: a cache line, and the width of the widest vector and tile row.
pub(crate) const ALIGNMENT: usize = 64;
/// Regions of at least this size are aligned to it, so that the system can back them with huge
/// pages.
const HUGE_PAGE: usize = 2 << 20;

/// What the alignment of an empty region looks like as a type.
#[repr(align(64))]
struct Line;

/// A block of memory of fixed size, touched when it is made.
pub(crate) struct Region {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: a region owns its memory, and hands out access only through borrows of itself.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// `bytes` bytes, all zero.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn new(bytes: usize) -> Result<Region, EngineError> {
        let align = if bytes >= HUGE_PAGE { HUGE_PAGE } else { ALIGNMENT };
        let no_memory = || EngineError::Memory { bytes };
        // Not a whole number of huge pages: the plan foretells every byte.
        let layout = Layout::from_size_align(bytes, align).map_err(|_| no_memory())?;
        if bytes == 0 {
            return Ok(Region { start: NonNull::<Line>::dangling().cast(), layout });
        }
        // SAFETY: the size is not zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(no_memory)?;
        let region = Region { start, layout };
        region.touch();
        Ok(region)
    }

    /// Faults in every page now: the first touch of fresh memory is slower than any kernel.
    fn touch(&self) {
        #[cfg(target_os = "linux")]
        if self.layout.align() == HUGE_PAGE {
            // SAFETY: the range is ours; the advice changes nothing that can be read from it.
            unsafe { libc::madvise(self.start.as_ptr().cast(), self.layout.size(), libc::MADV_HUGEPAGE) };
        }
        for offset in (0..self.layout.size()).step_by(4096) {
            // SAFETY: the offset lies inside, and nobody else has access yet. Zero is what is
            // there.
            unsafe { self.start.as_ptr().add(offset).write_volatile(0) };
        }
    }

    /// Its size.
    pub fn bytes(&self) -> usize {
        self.layout.size()
    }

    /// Its first byte, aligned to [`ALIGNMENT`], for one who shares it out.
    pub fn start(&mut self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// The byte at `offset`, with `bytes` bytes behind it.
    ///
    /// # Panics
    /// If they do not lie inside.
    pub fn place(&self, offset: usize, bytes: usize) -> *mut u8 {
        let size = self.layout.size();
        assert!(
            offset <= size && bytes <= size - offset,
            "{bytes} bytes from {offset} on lie outside {size}"
        );
        // SAFETY: just checked to lie inside.
        unsafe { self.start.as_ptr().add(offset) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if self.layout.size() > 0 {
            // SAFETY: made by `alloc_zeroed` with this layout.
            unsafe { dealloc(self.start.as_ptr(), self.layout) };
        }
    }
}
