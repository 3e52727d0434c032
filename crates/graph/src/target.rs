//! What the passes need to know of the hardware.

use crate::dtype::DType;
use crate::engine_info::UnsupportedPolicy;
use crate::graph::{Graph, Node};
use crate::group::Group;
use crate::precision::Policy;

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
    /// Bytes of a program's own memory in which `node` keeps something from run to run, such as
    /// counters.
    fn kept_bytes(&self, _graph: &Graph, _node: &Node) -> usize {
        0
    }
    /// Bytes outside the arena to which a program of this graph copies inputs of its next run while
    /// one is under way.
    fn staging_bytes(&self, _graph: &Graph) -> usize {
        0
    }
    /// Whether it runs steps that do alike with different values as one, where the plan permits it.
    /// The plan then has steps that read nothing but state first, if that takes no more memory, and
    /// does not let small values share a place over time.
    fn batches(&self) -> bool {
        false
    }
    /// Whether it can run these nodes as one step, with the same bits as one by one. A single node
    /// it always can.
    fn fuses(&self, _graph: &Graph, _group: &Group) -> bool {
        false
    }
    /// Whether its kernels check indices that the program computes. Those that come from inputs are
    /// checked before a run, by [`InputChecks`](crate::InputChecks).
    fn checks_indices(&self) -> bool {
        false
    }
    /// Whether the rows of each sample that this program computes, which only reads state and whose
    /// scales are of blocks or of samples, have the same bits in a batch of any size, at any place,
    /// beside any others.
    fn is_batch_invariant(&self, _graph: &Graph) -> bool {
        false
    }
    /// Whether values can be stored in this type.
    fn stores(&self, _dtype: DType) -> bool {
        true
    }
    /// Asks whether plans of this policy can be run: unless the engine says otherwise, where it
    /// stores every type that the policy uses.
    ///
    /// # Errors
    /// They cannot; says why.
    fn supports(&self, policy: &Policy) -> Result<(), UnsupportedPolicy> {
        match policy.dtypes().into_iter().find(|&dtype| !self.stores(dtype)) {
            None => Ok(()),
            Some(dtype) => Err(UnsupportedPolicy {
                policy: policy.name.clone(),
                target: self.name(),
                reason: format!("it stores no {}", dtype.name()),
            }),
        }
    }
    /// Bytes that a step needs while it runs of the working memory outside the arena that an
    /// engine's programs share.
    fn scratch_bytes(&self, _graph: &Graph, _step: &Group) -> usize {
        0
    }
}
