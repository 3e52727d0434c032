//! A block: shared memory, clocks, copies on their way, and the checked access to memory.

use std::collections::BTreeMap;

use super::barrier::{BARRIERS, Barrier};
use super::bulk::Bulk;
use super::copies::Copies;
use super::count::{Counts, Watch};
use super::mbarrier::Mbarrier;
use super::products::{Agreed, Products};
use super::shared::Shared;
use super::sync::Sync;
use super::trap::Trap;
use super::warp::Who;
use crate::fault::{Access, Cause, Space};
use crate::memory::{Clocks, Conflict, LaunchMemory, Order, Strength, Thread};
use crate::products::Arithmetic;

/// What is checked, and when copies arrive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// Asynchronous copies arrive when they are waited for, not when they are asked for.
    pub late: bool,
    /// Accesses in no order are faults.
    pub races: bool,
    /// Reads of bytes that nothing was written to are faults.
    pub never_written: bool,
    /// How Tensor Cores add.
    pub arithmetic: Arithmetic,
}

/// The state that the warps of a block share.
#[derive(Debug)]
pub(crate) struct Block<'m, 'g> {
    /// `%ctaid`.
    pub index: [u32; 3],
    /// Number in the grid.
    pub number: u32,
    /// `%ntid`.
    pub threads: [u32; 3],
    pub settings: Settings,
    pub memory: &'m mut LaunchMemory<'g>,
    pub shared: Shared,
    pub clocks: Clocks,
    /// Barriers by their numbers; the last one is that of the cluster.
    pub barriers: [Barrier; BARRIERS],
    /// What fences and atomic operations let know.
    pub sync: Sync,
    /// Copies by `cp.async`, for each warp.
    pub copies: Vec<Copies>,
    /// Copies by `cp.async.bulk`.
    pub bulk: Bulk,
    /// Products by `wgmma`, for each warp.
    pub products: Vec<Products>,
    /// What the warps of each group of four have agreed on so far, product by product.
    pub agreed: Vec<Vec<Agreed>>,
    /// The mbarriers, by their offsets in shared memory.
    pub mbarriers: BTreeMap<u32, Mbarrier>,
    /// Arguments of the launch.
    pub arguments: &'m [u8],
    /// `.const` variables.
    pub constants: &'m [u8],
    pub counts: Counts,
    pub watch: Option<&'m mut (dyn Watch + 'm)>,
    /// Grows whenever something happens that another warp may wait for.
    pub progress: u64,
}

impl Block<'_, '_> {
    /// `%tid` of a lane.
    pub fn thread(&self, who: Who) -> [u32; 3] {
        let linear = (who.warp * 32 + who.lane) as u32;
        let [x, y, _] = self.threads;
        [linear % x, linear / x % y, linear / (x * y)]
    }

    /// Reads shared memory at the offset `at`, a multiple of `align`.
    #[inline]
    pub fn shared_load(&mut self, who: Who, at: u64, align: u32, to: &mut [u8]) -> Result<(), Box<Trap>> {
        let from = self.shared_at(who, at, align, to.len(), Access::Read)?;
        to.copy_from_slice(&self.shared.bytes.data[from..from + to.len()]);
        Ok(())
    }

    /// Writes shared memory at the offset `at`, a multiple of `align`.
    #[inline]
    pub fn shared_store(&mut self, who: Who, at: u64, align: u32, from: &[u8]) -> Result<(), Box<Trap>> {
        let to = self.shared_at(who, at, align, from.len(), Access::Write)?;
        self.shared.bytes.store(to, from);
        Ok(())
    }

    /// Checks an access to shared memory and notes it; returns the offset.
    #[inline]
    pub fn shared_at(
        &mut self,
        who: Who,
        at: u64,
        align: u32,
        bytes: usize,
        access: Access,
    ) -> Result<usize, Box<Trap>> {
        self.shared_touch(who, at, align, bytes, (access, strength_of(access)))
    }

    /// As [`Block::shared_at`], of an access that says how far it is atomic.
    #[inline]
    pub fn shared_touch(
        &mut self,
        who: Who,
        at: u64,
        align: u32,
        bytes: usize,
        (access, strength): (Access, Strength),
    ) -> Result<usize, Box<Trap>> {
        let size = self.shared.bytes.data.len() as u64;
        let fail = |cause| Err::<usize, _>(Trap::lane(who.lane, cause));
        let space = Space::Shared;
        if at >= size || at + bytes as u64 > size {
            let why = "it runs over the end of the block's memory";
            return fail(Cause::OutOfBounds { space, access, address: at, bytes: bytes as u32, why });
        }
        aligned(space, at, align, bytes, access).map_err(|cause| Trap::lane(who.lane, cause))?;
        let offset = at as usize;
        if self.shared.copying && self.shared.in_flight.any(offset, bytes) {
            let other = "an asynchronous copy that was not waited for".to_string();
            return fail(Cause::Race { space, access, address: at, bytes: bytes as u32, other });
        }
        let reads = matches!(access, Access::Read | Access::Atomic);
        if reads && self.settings.never_written && !self.shared.bytes.written.all(offset, bytes) {
            return fail(Cause::NeverWritten { space, address: at, bytes: bytes as u32 });
        }
        if let (Access::Write | Access::Copy, Some(proxy)) = (access, &mut self.shared.proxy) {
            proxy.wrote(who.warp, offset, bytes);
        }
        if let Some(shadow) = &mut self.shared.shadow {
            let thread = thread(self.number, who);
            let order = Order { clocks: &self.clocks, blocks: &self.sync.blocks };
            let range = offset..offset + bytes;
            if let Err(conflict) = shadow.touch(range, access, strength, thread, &order) {
                let other = self.name(conflict);
                return fail(Cause::Race { space, access, address: at, bytes: bytes as u32, other });
            }
        }
        Ok(offset)
    }

    /// Reads global memory at a multiple of `align`.
    #[inline]
    pub fn global_load(
        &mut self,
        who: Who,
        address: u64,
        align: u32,
        to: &mut [u8],
    ) -> Result<(), Box<Trap>> {
        let (slot, at) = self.global_at(who, address, align, to.len(), Access::Read)?;
        to.copy_from_slice(&self.memory.bytes(slot).data[at..at + to.len()]);
        Ok(())
    }

    /// Writes global memory at a multiple of `align`.
    #[inline]
    pub fn global_store(&mut self, who: Who, address: u64, align: u32, from: &[u8]) -> Result<(), Box<Trap>> {
        let (slot, at) = self.global_at(who, address, align, from.len(), Access::Write)?;
        self.memory.bytes(slot).store(at, from);
        Ok(())
    }

    /// Checks an access to global memory and notes it; returns the allocation and the offset there.
    #[inline]
    pub fn global_at(
        &mut self,
        who: Who,
        address: u64,
        align: u32,
        bytes: usize,
        access: Access,
    ) -> Result<(usize, usize), Box<Trap>> {
        self.global_touch(who, address, align, bytes, (access, strength_of(access)))
    }

    /// As [`Block::global_at`], of an access that says how far it is atomic.
    #[inline]
    pub fn global_touch(
        &mut self,
        who: Who,
        address: u64,
        align: u32,
        bytes: usize,
        (access, strength): (Access, Strength),
    ) -> Result<(usize, usize), Box<Trap>> {
        let fail = |cause| Err(Trap::lane(who.lane, cause));
        let space = Space::Global;
        let located = match self.memory.locate(address, bytes as u32, access) {
            Ok(located) => located,
            Err(cause) => return fail(cause),
        };
        aligned(space, address, align, bytes, access).map_err(|cause| Trap::lane(who.lane, cause))?;
        let (slot, at) = located;
        let reads = matches!(access, Access::Read | Access::Atomic);
        if reads && self.settings.never_written && !self.memory.bytes(slot).written.all(at, bytes) {
            return fail(Cause::NeverWritten { space, address, bytes: bytes as u32 });
        }
        let order = Order { clocks: &self.clocks, blocks: &self.sync.blocks };
        match self.memory.touch(located, bytes, access, strength, thread(self.number, who), &order) {
            Ok(()) => Ok(located),
            Err(conflict) => {
                let other = self.name(conflict);
                fail(Cause::Race { space, access, address, bytes: bytes as u32, other })
            }
        }
    }

    /// Where a range of global memory lies that a whole warp may access as one: nothing where races
    /// are looked for in it, or where the accesses have to be looked at one by one.
    #[inline]
    pub fn whole(&mut self, address: u64, bytes: usize, access: Access) -> Option<(usize, usize)> {
        let (slot, at) = self.memory.locate(address, bytes as u32, access).ok()?;
        let reads = access == Access::Read && self.settings.never_written;
        let clear = !self.memory.watched() && (!reads || self.memory.bytes(slot).written.all(at, bytes));
        clear.then_some((slot, at))
    }

    /// The other side of a race in words.
    #[cold]
    fn name(&self, conflict: Conflict) -> String {
        let Thread { block, warp, lane } = conflict.by;
        if block != self.number {
            return format!("a {} by block number {block} of the launch", conflict.access);
        }
        let [x, y, z] = self.thread(Who { warp: warp as usize, lane: lane as usize });
        let more = if conflict.several { " and others of its warp" } else { "" };
        format!("a {} by thread ({x}, {y}, {z}){more}", conflict.access)
    }
}

/// How far an access is atomic whose instruction names no scope.
fn strength_of(access: Access) -> Strength {
    if access == Access::Atomic { Strength::Device } else { Strength::Weak }
}

fn thread(block: u32, who: Who) -> Thread {
    Thread { block, warp: who.warp as u32, lane: who.lane as u32 }
}

#[inline]
fn aligned(space: Space, address: u64, align: u32, bytes: usize, access: Access) -> Result<(), Cause> {
    if address.is_multiple_of(u64::from(align)) {
        return Ok(());
    }
    Err(Cause::Misaligned { space, access, address, bytes: bytes as u32, align })
}
