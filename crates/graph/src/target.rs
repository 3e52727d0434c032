//! What the passes need to know of the hardware.

use crate::graph::{Graph, Node};
use crate::group::Group;

/// What the passes need to know of the hardware a plan is for.
pub trait Target {
    /// Name for reports.
    fn name(&self) -> String;
    /// Ranks that share the work of a step; 1 where there is nobody to share it with.
    fn ranks(&self) -> usize {
        1
    }
    /// Alignment in bytes of every value in the arena: a power of two.
    fn alignment(&self) -> usize;
    /// Bytes of scratch memory `node` needs while it runs, besides its operands and results.
    fn workspace_bytes(&self, graph: &Graph, node: &Node) -> usize;
    /// Whether it can run these nodes as one step, with the same bits as one by one. A single node it always can.
    fn fuses(&self, _graph: &Graph, _group: &Group) -> bool {
        false
    }
    /// Bytes that a step needs while it runs of the working memory outside the arena that an engine's programs share.
    fn scratch_bytes(&self, _graph: &Graph, _step: &Group) -> usize {
        0
    }
}
