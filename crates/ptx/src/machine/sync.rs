//! What one block knows of others, and its warps publish.

use std::collections::{BTreeMap, HashMap};

use crate::memory::Vector;

/// What fences and atomic operations of one block have let know.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sync {
    /// What this block has learned of others.
    pub blocks: BTreeMap<u32, Vector>,
    /// What each warp knew at its last fence, for the block and for the device.
    pub fenced: BTreeMap<usize, [Option<Vector>; 2]>,
    /// What each warp has met at addresses and learns at its next fence, by the block that knew it.
    pub met: HashMap<usize, BTreeMap<u32, Vector>>,
    /// What was published in shared memory.
    pub shared: HashMap<u64, Vector>,
    /// What warps of this block published in global memory for each other.
    pub global: HashMap<u64, Vector>,
}
