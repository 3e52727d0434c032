//! What groups cost and save, for reading.

use std::fmt::Write;

use crate::graph::{Graph, Node, NodeId};
use crate::group::{Group, Groups};
use crate::op::{BatchNormPart, Op};
use crate::uses::Uses;

/// Memory traffic and arithmetic of some nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes read from memory.
    pub read: usize,
    /// Bytes written to memory.
    pub written: usize,
    /// Bytes that the same nodes would move one by one, less what they move as groups.
    pub saved: usize,
    /// Operations by the count of [`flops`].
    pub flops: u64,
}

impl Groups {
    /// What one group moves and does, workspaces apart.
    pub fn traffic(&self, graph: &Graph, group: &Group) -> Traffic {
        group.traffic(graph, &Uses::of(graph))
    }

    /// Every group with its members, what it moves and does, and the sum of all.
    pub fn describe(&self, graph: &Graph) -> String {
        let uses = Uses::of(graph);
        let (mut text, mut total) = (String::new(), Traffic::default());
        let (mut fused, mut phase) = (0, None);
        for group in &self.steps {
            let traffic = group.traffic(graph, &uses);
            total.read += traffic.read;
            total.written += traffic.written;
            total.saved += traffic.saved;
            total.flops += traffic.flops;
            fused += usize::from(group.nodes.len() > 1);
            let root = graph.node(group.root(graph));
            if phase != Some(root.phase) {
                text += &format!("# {}\n", format!("{:?}", root.phase).to_lowercase());
                phase = Some(root.phase);
            }
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{}", group.heading(graph, traffic));
            if group.nodes.len() > 1 {
                for &n in &group.nodes {
                    let node = graph.node(n);
                    let inside = node.outputs.iter().filter(|o| !group.writes.contains(o));
                    let inside: Vec<String> = inside.map(|o| format!("%{}", o.0)).collect();
                    let note = if inside.is_empty() {
                        String::new()
                    } else {
                        format!("  ({} inside)", inside.join(", "))
                    };
                    let _ = writeln!(text, "    {}{note}", graph.line(node));
                }
            }
        }
        let Traffic { read, written, saved, flops } = total;
        let _ = writeln!(
            text,
            "{} steps, {fused} of them groups: {read} bytes read, {written} written, {saved} saved; {flops} operations",
            self.steps.len()
        );
        text
    }
}

impl Group {
    fn traffic(&self, graph: &Graph, uses: &Uses) -> Traffic {
        let single = |&n: &NodeId| Group::of(graph, uses, vec![n]);
        let apart: usize = self.nodes.iter().map(|n| single(n).bytes(graph)).sum();
        let written = self.writes.iter().map(|&v| graph.value(v).ty.bytes()).sum();
        let bytes = self.bytes(graph);
        let flops = self.nodes.iter().map(|&n| flops(graph, graph.node(n))).sum();
        Traffic { read: bytes - written, written, saved: apart - bytes, flops }
    }

    fn heading(&self, graph: &Graph, traffic: Traffic) -> String {
        let root = graph.node(self.root(graph));
        let Traffic { read, written, saved, flops } = traffic;
        let work = format!("{read} bytes read, {written} written");
        if self.nodes.len() == 1 {
            return format!("{}  [{work}; {flops} operations]", graph.line(root));
        }
        // In the order in which they run.
        let anchor = self.anchor(graph);
        let chain = self.nodes.iter().copied().filter(|&n| Some(n) != anchor);
        let names: Vec<String> = anchor.into_iter().chain(chain).map(|n| graph.node(n).op.name()).collect();
        format!("group {} of {}  [{work}, {saved} saved; {flops} operations]", names.join(" + "), root.name)
    }
}

/// Arithmetic of a node. A multiply-add counts as two operations; every function of a number (an
/// exponential, a comparison, a rounding) as one; norms, softmax, losses and optimisers by the
/// functions in their formulas. A causal attention is counted as what lies below the diagonal.
pub fn flops(graph: &Graph, node: &Node) -> u64 {
    let inputs = |i: usize| graph.shape(node.inputs[i]);
    let count = |i: usize| inputs(i).count() as u64;
    let result = || graph.shape(node.outputs[0]).count() as u64;
    match &node.op {
        Op::Input { .. }
        | Op::Read { .. }
        | Op::Const { .. }
        | Op::Broadcast { .. }
        | Op::Reshape { .. }
        | Op::Permute { .. }
        | Op::Slice { .. }
        | Op::Pad { .. }
        | Op::Concat { .. }
        | Op::Gather
        | Op::AllReduceStart { .. }
        | Op::AllReduceWait { .. } => 0,
        Op::Unary(_) | Op::Binary(_) | Op::Select | Op::Cast { .. } => result(),
        Op::Dropout { .. } | Op::Quantise(_) => 2 * result(),
        Op::ScatterAdd { .. } | Op::Reduce { .. } | Op::ArgMax => count(0),
        Op::Softmax => 4 * result(),
        // Mean, deviations, their squares' sum; then subtract, scale, scale, shift.
        Op::LayerNorm { .. } => 8 * count(0),
        Op::LayerNormGrad => 12 * count(0),
        // Together as much as the whole.
        Op::BatchNormPart(part) => match part {
            BatchNormPart::Mean => count(0),
            BatchNormPart::Variance => 3 * count(0),
            BatchNormPart::Apply { .. } => 4 * count(0),
            BatchNormPart::Sums => 5 * count(0),
            BatchNormPart::Dx { .. } => 7 * count(0),
        },
        Op::CrossEntropy => 4 * count(0),
        Op::CrossEntropyGrad => 3 * count(0),
        Op::GlobalNorm => 2 * (0..node.inputs.len()).map(count).sum::<u64>(),
        Op::MatMul { ta, .. } => {
            let a = inputs(0);
            let k = a[a.len() - if *ta { 2 } else { 1 }];
            2 * result() * k as u64
        }
        Op::Conv2d(_) => 2 * result() * (count(1) / inputs(1)[0] as u64),
        Op::Conv2dGradInput { .. } => 2 * count(0) * (count(1) / inputs(1)[0] as u64),
        Op::Conv2dGradWeight { .. } => 2 * count(1) * (result() / graph.shape(node.outputs[0])[0] as u64),
        Op::Attention(spec) | Op::AttentionGrad(spec) => {
            let packed = matches!((&node.op, node.inputs.len()), (Op::Attention(_), 1) | (_, 4));
            let width = inputs(0)[2] / if packed { 3 } else { 1 };
            let scores = (inputs(0)[0] * inputs(0)[1] * inputs(0)[1]) as u64;
            // Two products forward; five backward, one of them a repetition.
            let products = if matches!(node.op, Op::Attention(_)) { 2 } else { 5 };
            2 * products * scores * width as u64 / if spec.causal { 2 } else { 1 }
        }
        Op::Pool { window, .. } | Op::PoolGrad { window, .. } => {
            let windows = if matches!(node.op, Op::Pool { .. }) { result() } else { count(1) };
            windows * (window * window) as u64
        }
        Op::AdamW(_) => 14 * count(0),
        Op::Sgd(_) => 6 * count(0),
    }
}
