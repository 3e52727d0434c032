//! Copies by `cp.async.bulk` that are on their way.

use super::warp::Who;
use crate::memory::Vector;

/// A piece of a bulk copy, at most 16 bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BulkPiece {
    /// The offset in shared memory.
    pub shared: usize,
    /// The address in global memory; none for zeros beyond the edge of a tensor, which are copied
    /// to shared memory and not from it.
    pub global: Option<u64>,
    pub bytes: usize,
}

/// Where a bulk copy goes, and what it tells of its end.
#[derive(Clone, Debug)]
pub(crate) enum Destination {
    /// To shared memory. The mbarrier at this offset learns of the bytes, and of what the thread
    /// that asked for the copy knew.
    Shared { mbarrier: u32, knows: Box<Vector> },
    /// To global memory, in this bulk group of its thread.
    Global { group: u32 },
}

/// A bulk copy that was asked for.
#[derive(Clone, Debug)]
pub(crate) struct BulkCopy {
    pub who: Who,
    /// The instruction that asked for it.
    pub pc: u32,
    pub pieces: Vec<BulkPiece>,
    pub to: Destination,
}

impl BulkCopy {
    /// Bytes that count for an mbarrier.
    pub fn bytes(&self) -> u32 {
        self.pieces.iter().map(|piece| piece.bytes as u32).sum()
    }
}

/// The bulk copies of a block.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bulk {
    /// Oldest first.
    pub in_flight: Vec<BulkCopy>,
    /// Bulk groups that a thread has committed, by warp and lane; threads that have none are not
    /// listed.
    committed: Vec<(Who, u32)>,
}

impl Bulk {
    /// Bulk groups that a thread has committed: the number of the group that is open.
    pub fn open_group(&self, who: Who) -> u32 {
        self.committed.iter().find(|(by, _)| *by == who).map_or(0, |(_, count)| *count)
    }

    /// Closes the open group of a thread.
    pub fn commit(&mut self, who: Who) {
        match self.committed.iter_mut().find(|(by, _)| *by == who) {
            Some((_, count)) => *count += 1,
            None => self.committed.push((who, 1)),
        }
    }

    /// Takes out the copies to global memory that have to be over when a thread waits until at most
    /// `pending` of its committed groups are not.
    pub fn due(&mut self, who: Who, pending: u32) -> Vec<BulkCopy> {
        let until = self.open_group(who).saturating_sub(pending);
        let due = |copy: &mut BulkCopy| match copy.to {
            Destination::Global { group } => copy.who == who && group < until,
            Destination::Shared { .. } => false,
        };
        self.in_flight.extract_if(.., due).collect()
    }

    /// Takes out the copy to shared memory that arrives next when nothing else can happen: the
    /// newest one, so that a kernel cannot rely on copies to arrive in the order in which they were
    /// asked for.
    pub fn next(&mut self) -> Option<BulkCopy> {
        let shared = |copy: &BulkCopy| matches!(copy.to, Destination::Shared { .. });
        let at = self.in_flight.iter().rposition(shared)?;
        Some(self.in_flight.remove(at))
    }
}
