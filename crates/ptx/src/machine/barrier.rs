//! The barriers of a block.

use super::registers::{R32, RP};
use crate::memory::Vector;

/// Sixteen that kernels number, and that of the cluster.
pub(crate) const BARRIERS: usize = 17;
/// That of the cluster.
pub(crate) const CLUSTER: usize = 16;

/// What a waiting warp gets when the barrier opens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Wants {
    Nothing,
    /// How many threads had a predicate that holds.
    Count(R32),
    /// Whether all had, or any.
    All(RP),
    Any(RP),
}

/// Lanes of a warp that wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    pub warp: usize,
    pub lanes: u32,
    pub wants: Wants,
}

/// A barrier between two openings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Barrier {
    /// Threads that have arrived, those of whole warps where the instruction is aligned.
    pub arrived: u32,
    /// Threads that it opens for; none for all of the block.
    pub threads: Option<u32>,
    pub waiting: Vec<Waiting>,
    /// Threads whose predicate held, and threads that had one.
    pub held: u32,
    pub asked: u32,
    /// What those that arrived knew.
    pub knows: Vector,
}
