//! Who touched a piece of memory last: finds accesses that are in no order.

use std::collections::BTreeMap;

use super::clock::{Clocks, Vector};
use crate::fault::Access;

/// The thread that touches memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Thread {
    /// Number of the block in its grid.
    pub block: u32,
    pub warp: u32,
    pub lane: u32,
}

/// How far an access is atomic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strength {
    /// Not at all.
    Weak,
    /// For threads of its block.
    Block,
    /// For all of the device: atomic operations that name no scope, and volatile accesses.
    Device,
}

/// Stands for several lanes of a warp.
const LANES: u32 = 63;
/// Clocks are kept in 19 bits; a block with more barriers than that is checked less strictly.
const CLOCK_LIMIT: u32 = (1 << 19) - 1;

/// An access: block + 1 in the upper half (0: none), then clock, strength, warp and lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp(u64);

const NONE: Stamp = Stamp(0);

impl Stamp {
    fn new(who: Thread, clock: u32, strength: Strength) -> Stamp {
        let rest = clock.min(CLOCK_LIMIT) << 13 | (strength as u32) << 11 | who.warp << 6 | who.lane;
        Stamp(u64::from(who.block + 1) << 32 | u64::from(rest))
    }

    fn block(self) -> u32 {
        (self.0 >> 32) as u32
    }

    fn none(self) -> bool {
        self.0 == 0
    }

    fn clock(self) -> u32 {
        (self.0 as u32) >> 13
    }

    fn strength(self) -> Strength {
        match self.0 >> 11 & 3 {
            0 => Strength::Weak,
            1 => Strength::Block,
            _ => Strength::Device,
        }
    }

    /// Whether another access needs no order with this one: both are atomic as far as the other is.
    fn allows(self, strength: Strength, who: Thread) -> bool {
        let enough = |strength| match strength {
            Strength::Weak => false,
            Strength::Block => self.block() == who.block + 1,
            Strength::Device => true,
        };
        enough(strength) && enough(self.strength())
    }

    fn warp(self) -> u32 {
        (self.0 >> 6) as u32 & 31
    }

    fn lane(self) -> u32 {
        self.0 as u32 & 63
    }

    /// Whether the access came before what `who` does now.
    #[inline]
    fn before(self, who: Thread, order: &Order) -> bool {
        if self.none() {
            return true;
        }
        if self.block() != who.block + 1 {
            let known = order.blocks.get(&(self.block() - 1));
            return known.is_some_and(|known| self.clock() <= known[self.warp() as usize]);
        }
        if self.warp() == who.warp {
            return self.lane() == who.lane || self.clock() < order.clocks.now(who.warp as usize);
        }
        order.clocks.knows(who.warp as usize, self.warp() as usize, self.clock())
    }
}

/// What is known to have happened before.
pub(crate) struct Order<'a> {
    pub clocks: &'a Clocks,
    /// What this block has learned of others.
    pub blocks: &'a BTreeMap<u32, Vector>,
}

/// A piece of memory: its last writer, and two readers since. A reader that came before another one
/// is replaced by it; a third that is in no order with both is not kept.
///
/// As numbers, so that new cells are pages which the system has cleared.
type Cell = [u64; 3];

/// An access that another one is in no order with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conflict {
    /// What the earlier access was.
    pub access: Access,
    pub by: Thread,
    /// The lane is one of several.
    pub several: bool,
}

/// The cells of a range of memory.
#[derive(Clone, Debug)]
pub(crate) struct Shadow {
    cells: Vec<Cell>,
    /// Bytes of a cell, a power of two.
    shift: u32,
}

impl Shadow {
    /// Cells of `granule` bytes, a power of two, for `bytes` bytes.
    pub fn new(bytes: usize, granule: usize) -> Shadow {
        Shadow { cells: vec![[0; 3]; bytes.div_ceil(granule)], shift: granule.trailing_zeros() }
    }

    /// Forgets all accesses.
    pub fn clear(&mut self) {
        self.cells.fill([0; 3]);
    }

    /// Notes an access to `range` and checks it against the earlier ones. What is atomic is no race
    /// with what is atomic as well, each as far as the other is.
    pub fn touch(
        &mut self,
        range: std::ops::Range<usize>,
        access: Access,
        strength: Strength,
        who: Thread,
        order: &Order,
    ) -> Result<(), Conflict> {
        let stamp = Stamp::new(who, order.clocks.now(who.warp as usize), strength);
        let cells = range.start >> self.shift..(range.end + (1 << self.shift) - 1) >> self.shift;
        for cell in &mut self.cells[cells] {
            let [writer, readers @ ..] = cell.map(Stamp);
            if !writer.allows(strength, who) && !writer.before(who, order) {
                let weak = writer.strength() == Strength::Weak;
                let access = if weak { Access::Write } else { Access::Atomic };
                return Err(conflict(writer, access));
            }
            if access == Access::Read {
                let [first, second] = with_reader(readers, stamp, who, order);
                *cell = [writer.0, first.0, second.0];
                continue;
            }
            let unordered = |reader: &&Stamp| !reader.allows(strength, who) && !reader.before(who, order);
            if let Some(reader) = readers.iter().find(unordered) {
                return Err(conflict(*reader, Access::Read));
            }
            *cell = [stamp.0, NONE.0, NONE.0];
        }
        Ok(())
    }
}

/// The readers of a cell with one more.
#[inline]
fn with_reader(mut readers: [Stamp; 2], stamp: Stamp, who: Thread, order: &Order) -> [Stamp; 2] {
    for reader in &mut readers {
        let same = reader.block() == stamp.block()
            && reader.warp() == stamp.warp()
            && reader.clock() == stamp.clock();
        if same && reader.lane() != who.lane {
            reader.0 |= u64::from(LANES);
            break;
        }
        if reader.before(who, order) {
            *reader = stamp;
            break;
        }
    }
    readers
}

fn conflict(stamp: Stamp, access: Access) -> Conflict {
    let by = Thread { block: stamp.block() - 1, warp: stamp.warp(), lane: stamp.lane() & 31 };
    Conflict { access, by, several: stamp.lane() == LANES }
}
