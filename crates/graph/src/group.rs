//! Groups: nodes that run as one step.
//!
//! A group is a chain of elementwise operations over tensors of one size, behind at most one other
//! operation, its
//! *anchor*, whose first result the chain continues: `matmul` then `gelu`, `layer_norm_grad` then
//! `add` and `cast`. What else forms a group is for the [`Target`](crate::engine::Target) to say.

use crate::graph::{Graph, NodeId, ValueId};
use crate::op::{Blocks, Op, Quantise};
use crate::uses::Uses;

/// Nodes that an engine runs as one step, and the values that pass its border.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Members in topological order. Reshapes are never members: they name memory that is there
    /// already.
    pub nodes: Vec<NodeId>,
    /// Values read from memory, each once; a reshaped value by the one whose memory it names.
    pub reads: Vec<ValueId>,
    /// Results that are stored: something outside reads them, or the caller does.
    pub writes: Vec<ValueId>,
}

impl Group {
    pub(crate) fn of(graph: &Graph, uses: &Uses, nodes: Vec<NodeId>) -> Group {
        let (mut reads, mut writes) = (Vec::new(), Vec::new());
        let is_member = |n: NodeId| nodes.binary_search(&n).is_ok();
        for &n in &nodes {
            let node = graph.node(n);
            for &input in &node.inputs {
                let home = uses.home(input);
                if !is_member(graph.value(home).node) && !reads.contains(&home) {
                    reads.push(home);
                }
            }
            for &output in &node.outputs {
                let readers = uses.readers(output);
                let inside =
                    !uses.is_live_out(output) && !readers.is_empty() && readers.iter().all(|&r| is_member(r));
                if !inside {
                    writes.push(output);
                }
            }
        }
        Group { nodes, reads, writes }
    }

    /// The member that is not elementwise, if there is one. It runs first, wherever it stands in
    /// the list.
    pub fn anchor(&self, graph: &Graph) -> Option<NodeId> {
        self.nodes.iter().copied().find(|&n| !is_elementwise(&graph.node(n).op))
    }

    /// Bytes read from and written to memory, workspaces apart.
    pub fn bytes(&self, graph: &Graph) -> usize {
        let bytes = |v: &ValueId| if graph.constant(*v).is_some() { 0 } else { graph.value(*v).ty.bytes() };
        self.reads.iter().chain(&self.writes).map(bytes).sum()
    }

    /// The node that stands for the group in reports: the anchor, or else the last.
    pub fn root(&self, graph: &Graph) -> NodeId {
        self.anchor(graph).unwrap_or(self.nodes[self.nodes.len() - 1])
    }
}

/// A partition of a program's computing nodes into groups. Inputs, slots, constants and reshapes
/// compute nothing and are in none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Groups {
    /// In the order in which they run: each after all that make what it reads.
    pub steps: Vec<Group>,
}

/// Whether each element of the result comes from one element of each operand.
pub(crate) fn is_elementwise(op: &Op) -> bool {
    matches!(
        op,
        Op::Unary(_)
            | Op::Binary(_)
            | Op::Select
            | Op::Cast { .. }
            | Op::Broadcast { .. }
            | Op::Dropout { .. }
            | Op::Quantise(Quantise { blocks: Blocks::Tensor { .. }, .. })
    )
}

/// Whether the node computes nothing: it names memory that is there before the first step.
pub(crate) fn is_source(op: &Op) -> bool {
    matches!(op, Op::Input { .. } | Op::Read { .. } | Op::Const { .. })
}
