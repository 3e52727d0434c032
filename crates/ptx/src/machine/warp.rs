//! A warp: its registers, its program counters, and what its lanes wait for.

use super::barrier::BARRIERS;
use super::registers::Registers;
use crate::memory::Bytes;

/// A lane of a warp of the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Who {
    pub warp: usize,
    pub lane: usize,
}

/// A warp of a block.
#[derive(Clone, Debug)]
pub(crate) struct Warp {
    /// Number in its block.
    pub id: usize,
    pub registers: Registers,
    /// The next instruction of each lane.
    pub pc: [u32; 32],
    /// Lanes that have not ended.
    pub live: u32,
    /// Lanes that wait at a barrier of the block, by its number.
    pub at_barrier: [u32; BARRIERS],
    /// Lanes that wait for lanes of their warp, with the mask that each waits for.
    pub at_warp_barrier: u32,
    pub warp_barrier: [u32; 32],
    /// Lanes that waited in vain: the others of their warp go on first.
    pub yielded: u32,
    /// Where it waited in vain last, if it has not waited with success since.
    pub waits_at: Option<u32>,
    /// `.local` memory: equal parts, one for each lane.
    pub local: Bytes,
    /// Carry flag of `add.cc` and the like, a bit for each lane.
    pub carry: u32,
}

impl Warp {
    /// Lanes that can go on.
    pub fn ready(&self) -> u32 {
        self.live & !self.at_warp_barrier & !self.at_barrier.iter().fold(0, |a, b| a | b)
    }
}
