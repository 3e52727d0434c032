//! Which nodes run as one step.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::graph::{Graph, NodeId, ValueId};
use crate::group::{Group, Groups, is_elementwise, is_source};
use crate::op::Op;
use crate::target::Target;
use crate::uses::Uses;

/// Divides `graph` into the groups that save `target` the most memory traffic.
///
/// Greedy, in topological order: an elementwise node joins the groups of its operands, the latest
/// first, where both belong to the same phase, nothing outside would have to run in the middle of
/// the group, it moves fewer bytes together than apart, and the target can run it. A phase is never
/// crossed: it would keep alive from the forward to the backward phase what is cheaper to compute
/// again.
pub fn group(graph: &Graph, target: &dyn Target) -> Groups {
    let mut pass = Grouping::new(graph);
    for (i, node) in graph.nodes.iter().enumerate() {
        if is_elementwise(&node.op) {
            pass.join(NodeId(i as u32), target);
        }
    }
    pass.finish()
}

struct Grouping<'a> {
    graph: &'a Graph,
    uses: Uses,
    /// The class of each node; none for sources and reshapes.
    class: Vec<Option<usize>>,
    /// Empty where the class was joined to another.
    members: Vec<Vec<NodeId>>,
    /// When the class was last seen, for walks.
    seen: Vec<u32>,
    walk: u32,
}

impl<'a> Grouping<'a> {
    fn new(graph: &'a Graph) -> Grouping<'a> {
        let mut class = vec![None; graph.nodes.len()];
        let mut members = Vec::new();
        for (i, node) in graph.nodes.iter().enumerate() {
            if !is_source(&node.op) && !matches!(node.op, Op::Reshape { .. }) {
                class[i] = Some(members.len());
                members.push(vec![NodeId(i as u32)]);
            }
        }
        let seen = vec![0; members.len()];
        Grouping { graph, uses: Uses::of(graph), class, members, seen, walk: 0 }
    }

    fn class(&self, n: NodeId) -> Option<usize> {
        self.class[n.0 as usize]
    }

    /// Joins `n` to the groups of its operands where that pays.
    fn join(&mut self, n: NodeId, target: &dyn Target) {
        let graph = self.graph;
        let node = graph.node(n);
        let count = graph.shape(node.outputs[0]).count();
        let mut operands: Vec<ValueId> = node.inputs.iter().map(|&v| self.uses.home(v)).collect();
        operands.sort_unstable_by_key(|&v| Reverse(graph.value(v).node));
        operands.dedup();
        for operand in operands {
            let maker = graph.value(operand).node;
            let (Some(theirs), Some(ours)) = (self.class(maker), self.class(n)) else { continue };
            let alike = graph.node(maker).phase == node.phase
                && graph.shape(operand).count() == count
                && (is_elementwise(&graph.node(maker).op) || graph.value(operand).index == 0);
            if theirs == ours || !alike || self.passes_outside(theirs, ours) {
                continue;
            }
            let mut nodes = [&self.members[theirs][..], &self.members[ours]].concat();
            nodes.sort_unstable();
            let anchors = nodes.iter().filter(|&&n| !is_elementwise(&graph.node(n).op)).count();
            let apart: usize = [theirs, ours]
                .iter()
                .map(|&c| Group::of(graph, &self.uses, self.members[c].clone()).bytes(graph))
                .sum();
            let group = Group::of(graph, &self.uses, nodes);
            let holds = anchors == 0 || (anchors == 1 && self.anchor_leads(&group));
            if holds && group.bytes(graph) < apart && target.fuses(graph, &group) {
                group.nodes.iter().for_each(|&n| self.class[n.0 as usize] = Some(theirs));
                self.members[theirs] = group.nodes;
                self.members[ours].clear();
            }
        }
    }

    /// Whether the anchor reads nothing that the group makes, and the group only the first of its
    /// results.
    fn anchor_leads(&self, group: &Group) -> bool {
        let graph = self.graph;
        let leads = |&n: &NodeId| {
            let node = graph.node(n);
            node.inputs.iter().all(|&v| {
                let home = graph.value(self.uses.home(v));
                let is_made_here = group.nodes.binary_search(&home.node).is_ok();
                !is_made_here || (is_elementwise(&node.op) && home.index == 0)
            })
        };
        group.nodes.iter().all(leads)
    }

    fn successors(&self, class: usize) -> impl Iterator<Item = usize> {
        let outputs = self.members[class].iter().flat_map(|&n| &self.graph.node(n).outputs);
        outputs
            .flat_map(|&v| self.uses.readers(v))
            .filter_map(|&n| self.class(n))
            .filter(move |&c| c != class)
    }

    /// Whether a path leads from one class to the other through a third: that one could run neither
    /// before nor after the two as one.
    fn passes_outside(&mut self, from: usize, to: usize) -> bool {
        self.walk += 1;
        let mut open: Vec<usize> = self.successors(from).filter(|&c| c != to).collect();
        while let Some(class) = open.pop() {
            if class == to {
                return true;
            }
            if std::mem::replace(&mut self.seen[class], self.walk) != self.walk {
                open.extend(self.successors(class));
            }
        }
        false
    }

    /// The groups in an order that is topological and otherwise that of their roots: what a graph
    /// computes first, so that it can free what it read, a program with groups computes first too.
    fn finish(self) -> Groups {
        let mut waits = vec![0usize; self.members.len()];
        for class in 0..self.members.len() {
            self.successors(class).for_each(|c| waits[c] += 1);
        }
        let root = |class: usize| {
            let members = &self.members[class];
            let anchor = members.iter().find(|&&n| !is_elementwise(&self.graph.node(n).op));
            anchor.or(members.last()).map(|&n| Reverse((n, class)))
        };
        let mut ready: BinaryHeap<_> =
            (0..self.members.len()).filter(|&c| waits[c] == 0).filter_map(root).collect();
        let mut steps = Vec::new();
        while let Some(Reverse((_, class))) = ready.pop() {
            steps.push(Group::of(self.graph, &self.uses, self.members[class].clone()));
            for next in self.successors(class) {
                waits[next] -= 1;
                if waits[next] == 0 {
                    ready.extend(root(next));
                }
            }
        }
        Groups { steps }
    }
}
