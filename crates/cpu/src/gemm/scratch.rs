//! Memory that kernels work in, allocated once and kept.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::fmt;
use std::ptr::NonNull;

/// Bytes of a cache line.
const LINE: usize = 64;

/// What a cache line's alignment looks like as a type.
#[repr(align(64))]
struct Line;

/// Large buffers are aligned to this, the size of a huge page on x86-64.
const HUGE_PAGE: usize = 2 << 20;

/// Working memory for kernels. It grows to the largest need it has met and is never given back before the end, so a
/// step that was run once allocates nothing the second time.
#[derive(Default)]
pub struct Scratch {
    /// Start and layout of the allocation; none while empty.
    memory: Option<(NonNull<u8>, Layout)>,
}

// SAFETY: the memory is owned by this value alone.
unsafe impl Send for Scratch {}
// SAFETY: shared references give away the size only.
unsafe impl Sync for Scratch {}

impl Scratch {
    /// An empty buffer, which grows on first use.
    pub fn new() -> Scratch {
        Scratch::default()
    }

    /// A buffer of at least `bytes` bytes, touched, so that kernels needing no more never wait for memory.
    pub fn with_bytes(bytes: usize) -> Scratch {
        let mut scratch = Scratch::new();
        scratch.reserve(bytes);
        scratch
    }

    /// The size in bytes.
    pub fn bytes(&self) -> usize {
        self.memory.map_or(0, |(_, layout)| layout.size())
    }

    /// Grows to at least `bytes` bytes; does nothing where there is enough. The content has no meaning afterwards.
    pub fn reserve(&mut self, bytes: usize) {
        if bytes <= self.bytes() {
            return;
        }
        self.free();
        let align = if bytes < HUGE_PAGE { LINE } else { HUGE_PAGE };
        let layout = Layout::from_size_align(whole_lines(bytes), align)
            .expect("scratch memory fits the address space");
        // SAFETY: the size is not zero.
        let start = unsafe { alloc(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        #[cfg(target_os = "linux")]
        if align == HUGE_PAGE {
            // SAFETY: the range is ours, and the advice changes no content. It may be refused, which costs only speed.
            unsafe { libc::madvise(start.as_ptr().cast(), layout.size(), libc::MADV_HUGEPAGE) };
        }
        // SAFETY: the range was just allocated. Writing it makes it initialised, and brings in its pages now.
        unsafe { start.write_bytes(0, layout.size()) };
        self.memory = Some((start, layout));
    }

    fn free(&mut self) {
        if let Some((start, layout)) = self.memory.take() {
            // SAFETY: allocated with this layout, and nothing refers to it: every use borrows `self` exclusively.
            unsafe { dealloc(start.as_ptr(), layout) };
        }
    }

    /// The start of at least `bytes` bytes, aligned to a cache line, all initialised.
    pub(crate) fn take(&mut self, bytes: usize) -> *mut u8 {
        self.reserve(bytes);
        self.memory.map_or(NonNull::<Line>::dangling().as_ptr().cast(), |(start, _)| start.as_ptr())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.free();
    }
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scratch").field("bytes", &self.bytes()).finish()
    }
}

/// `bytes` rounded up to whole cache lines, so that two threads never write to the same one.
pub(crate) fn whole_lines(bytes: usize) -> usize {
    bytes.next_multiple_of(LINE)
}
