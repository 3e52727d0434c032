//! Memory that kernels work in, allocated once and kept.

use std::fmt;

/// One cache line, which is what the buffer's alignment comes from.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Working memory for kernels. It grows to the largest need it has met and is never given back before the end, so a
/// step that was run once allocates nothing the second time.
#[derive(Default)]
pub struct Scratch {
    lines: Vec<Line>,
}

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
        self.lines.len() * size_of::<Line>()
    }

    /// Grows to at least `bytes` bytes; does nothing where there is enough.
    pub fn reserve(&mut self, bytes: usize) {
        let lines = bytes.div_ceil(size_of::<Line>());
        if lines > self.lines.len() {
            // The old content has no meaning: drop it first, so that both never exist together.
            self.lines = Vec::new();
            self.lines = vec![Line([0; 64]); lines];
        }
    }

    /// The start of at least `bytes` bytes, aligned to a cache line, all initialised.
    pub(crate) fn take(&mut self, bytes: usize) -> *mut u8 {
        self.reserve(bytes);
        self.lines.as_mut_ptr().cast()
    }
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scratch").field("bytes", &self.bytes()).finish()
    }
}

/// `bytes` rounded up to whole cache lines, so that two threads never write to the same one.
pub(crate) fn whole_lines(bytes: usize) -> usize {
    bytes.next_multiple_of(size_of::<Line>())
}
