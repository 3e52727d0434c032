//! What fences and atomic operations let other threads know, after the memory model of PTX.
//!
//! A fence followed by an atomic operation (or a volatile store) publishes, at its address, what
//! the warp knew at the fence. Such an operation followed by a fence learns what was published
//! there. Between warps of a block, any fence and any scope count; between blocks, those of the
//! device.

use std::collections::HashMap;

use super::block::Block;
use super::sync::Sync;
use crate::memory::{Strength, Vector, join};

impl Block<'_, '_> {
    /// A warp executes a fence.
    pub fn fence(&mut self, warp: usize, device: bool) {
        let knows = self.clocks.release(warp);
        let fenced = self.sync.fenced.entry(warp).or_default();
        fenced[0] = Some(knows);
        if device {
            fenced[1] = Some(knows);
        }
        for (block, vector) in self.sync.met.remove(&warp).unwrap_or_default() {
            self.learn(warp, block, &vector);
        }
    }

    fn learn(&mut self, warp: usize, block: u32, vector: &Vector) {
        if block == self.number {
            self.clocks.acquire(warp, vector);
        } else {
            join(self.sync.blocks.entry(block).or_default(), vector);
        }
    }

    /// A warp has executed an operation at an address of global memory that is atomic as far as
    /// `strength` says: it meets what was published there, and publishes itself if it writes.
    pub fn meet_global(&mut self, warp: usize, address: u64, writes: bool, strength: Strength) {
        self.meet_in_block(warp, address, writes, |sync| &mut sync.global);
        if strength != Strength::Device {
            return;
        }
        let number = self.number;
        if let Some(published) = self.memory.published.get(&address) {
            let met = self.sync.met.entry(warp).or_default();
            published.iter().for_each(|(block, vector)| join(met.entry(*block).or_default(), vector));
        }
        let Some([_, Some(own)]) = self.sync.fenced.get(&warp).filter(|_| writes) else { return };
        let published = self.memory.published.entry(address).or_default();
        join(published.entry(number).or_default(), own);
        for (block, vector) in &self.sync.blocks {
            join(published.entry(*block).or_default(), vector);
        }
    }

    /// As [`Block::meet_global`], at an offset of shared memory.
    pub fn meet_shared(&mut self, warp: usize, at: u64, writes: bool) {
        self.meet_in_block(warp, at, writes, |sync| &mut sync.shared);
    }

    /// What warps of this block let each other know at a place.
    fn meet_in_block(
        &mut self,
        warp: usize,
        at: u64,
        writes: bool,
        places: fn(&mut Sync) -> &mut HashMap<u64, Vector>,
    ) {
        if let Some(vector) = places(&mut self.sync).get(&at).copied() {
            join(self.sync.met.entry(warp).or_default().entry(self.number).or_default(), &vector);
        }
        let Some([Some(own), _]) = self.sync.fenced.get(&warp).filter(|_| writes).copied() else { return };
        join(places(&mut self.sync).entry(at).or_default(), &own);
    }
}
