//! Who reads what memory.

use crate::graph::{Graph, NodeId, ValueId};
use crate::op::Op;

/// For each value its home, and for each home its readers. A reshape names the memory of its
/// operand: that operand is its home, and what reads the one reads the other.
pub(crate) struct Uses {
    home: Vec<ValueId>,
    readers: Vec<Vec<NodeId>>,
    is_live_out: Vec<bool>,
}

impl Uses {
    pub fn of(graph: &Graph) -> Uses {
        let home: Vec<ValueId> = (0..graph.values.len() as u32).map(|v| graph.home(ValueId(v))).collect();
        let mut readers = vec![Vec::new(); graph.values.len()];
        for (i, node) in graph.nodes.iter().enumerate() {
            if let Op::Reshape { .. } = node.op {
                continue;
            }
            for input in &node.inputs {
                let readers: &mut Vec<NodeId> = &mut readers[home[input.0 as usize].0 as usize];
                let reader = NodeId(i as u32);
                if readers.last() != Some(&reader) {
                    readers.push(reader);
                }
            }
        }
        let mut is_live_out = vec![false; graph.values.len()];
        graph.live_out().for_each(|v| is_live_out[home[v.0 as usize].0 as usize] = true);
        Uses { home, readers, is_live_out }
    }

    /// The value whose memory `v` lies in.
    pub fn home(&self, v: ValueId) -> ValueId {
        self.home[v.0 as usize]
    }

    /// The nodes that read the memory of `v`, each once, in order; reshapes do not read.
    pub fn readers(&self, v: ValueId) -> &[NodeId] {
        &self.readers[self.home(v).0 as usize]
    }

    /// Whether the memory of `v` must last to the end: it is an output, staged, or the predicate.
    pub fn is_live_out(&self, v: ValueId) -> bool {
        self.is_live_out[self.home(v).0 as usize]
    }
}
