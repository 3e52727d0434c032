//! Memory that kernels work in, allocated once and kept.

use std::alloc::{Layout, handle_alloc_error};
use std::fmt;
use std::ptr::NonNull;

use crate::region::Region;

/// Bytes of a cache line.
const LINE: usize = 64;

/// What a cache line's alignment looks like as a type.
#[repr(align(64))]
struct Line;

/// Working memory for kernels. It grows to the largest need it has met and is never given back
/// before the end, so a step that was run once allocates nothing the second time.
#[derive(Default)]
pub struct Scratch {
    /// None while empty.
    memory: Option<Region>,
}

impl Scratch {
    /// An empty buffer, which grows on first use.
    pub fn new() -> Scratch {
        Scratch::default()
    }

    /// The size in bytes.
    pub fn bytes(&self) -> usize {
        self.memory.as_ref().map_or(0, Region::bytes)
    }

    /// Grows to at least `bytes` bytes; does nothing where there is enough. The content has no
    /// meaning afterwards.
    pub fn reserve(&mut self, bytes: usize) {
        if bytes <= self.bytes() {
            return;
        }
        // The old one goes first, so that both never exist together.
        self.memory = None;
        let layout = Layout::from_size_align(bytes, LINE).expect("scratch memory fits the address space");
        self.memory = Some(Region::new(bytes).unwrap_or_else(|_| handle_alloc_error(layout)));
    }

    /// The start of at least `bytes` bytes, aligned to a cache line, all initialised.
    pub(crate) fn take(&mut self, bytes: usize) -> *mut u8 {
        self.reserve(bytes);
        self.memory.as_mut().map_or(NonNull::<Line>::dangling().as_ptr().cast(), Region::start)
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
