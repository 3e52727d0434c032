//! Which shared memory was written in the ordinary way and not yet fenced for bulk copies and
//! `wgmma`.
//!
//! Those read and write memory through another path, the async proxy. What a thread wrote is seen
//! there after the same thread executed `fence.proxy.async`.

/// Bytes that share an entry.
const GRANULE: usize = 4;

/// The last ordinary writer of each four bytes.
#[derive(Clone, Debug)]
pub(crate) struct Proxy {
    /// The warp plus 1 in six bits, and how many fences it had executed; 0 for none.
    writers: Vec<u32>,
    fences: [u32; 32],
}

impl Proxy {
    /// Of `bytes` bytes that nothing was written to.
    pub fn new(bytes: usize) -> Proxy {
        Proxy { writers: vec![0; bytes.div_ceil(GRANULE)], fences: [0; 32] }
    }

    /// A warp wrote `at..at + bytes`.
    pub fn wrote(&mut self, warp: usize, at: usize, bytes: usize) {
        let entry = self.fences[warp] << 6 | (warp as u32 + 1);
        self.writers[at / GRANULE..(at + bytes).div_ceil(GRANULE)].fill(entry);
    }

    /// A warp executed `fence.proxy.async`.
    pub fn fence(&mut self, warp: usize) {
        self.fences[warp] += 1;
    }

    /// The warp that wrote some of `at..at + bytes` and has not fenced it.
    pub fn unfenced(&self, at: usize, bytes: usize) -> Option<usize> {
        let entries = &self.writers[at / GRANULE..(at + bytes).div_ceil(GRANULE)];
        let warp = |entry: u32| (entry & 63) as usize - 1;
        let open = |entry: &&u32| **entry != 0 && self.fences[warp(**entry)] == **entry >> 6;
        entries.iter().find(open).map(|entry| warp(*entry))
    }

    /// A bulk copy wrote `at..at + bytes`.
    pub fn copied(&mut self, at: usize, bytes: usize) {
        self.writers[at / GRANULE..(at + bytes).div_ceil(GRANULE)].fill(0);
    }

    /// As at the start of a block.
    pub fn reset(&mut self) {
        self.writers.fill(0);
        self.fences = [0; 32];
    }
}
