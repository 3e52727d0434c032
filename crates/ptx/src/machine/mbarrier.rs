//! The state of an mbarrier, which the simulation keeps beside shared memory.

use crate::memory::Vector;

/// An mbarrier.
#[derive(Clone, Debug)]
pub(crate) struct Mbarrier {
    /// Arrivals that a phase takes.
    pub expected: u32,
    /// Arrivals that the phase still lacks.
    pub pending: u32,
    /// Bytes that the phase still lacks.
    pub transactions: i64,
    /// Phases that have ended.
    pub phase: u32,
    /// What the threads that arrived in this phase knew.
    pub arriving: Vector,
    /// What those of the phases that have ended knew.
    pub arrived: Vector,
}
