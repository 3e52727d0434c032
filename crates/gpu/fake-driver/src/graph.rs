//! Graphs: work and what each piece waits for.

use crate::work::{Side, Work};

/// A graph.
#[derive(Clone, Debug, Default)]
pub(crate) struct Graph {
    nodes: Vec<Node>,
}

#[derive(Clone, Debug)]
struct Node {
    handle: usize,
    work: Work,
    /// The function that it launches.
    function: Option<usize>,
    after: Vec<usize>,
}

impl Graph {
    /// Adds a node and returns its position; none where it is to wait for one that is not here.
    pub(crate) fn add(
        &mut self,
        handle: usize,
        work: Work,
        function: Option<usize>,
        after: &[usize],
    ) -> Option<usize> {
        let position = |handle: &usize| self.nodes.iter().position(|node| node.handle == *handle);
        let after = after.iter().map(position).collect::<Option<Vec<usize>>>()?;
        self.nodes.push(Node { handle, work, function, after });
        Some(self.nodes.len() - 1)
    }

    /// What a node waits for, for the log.
    pub(crate) fn after(&self, node: usize) -> &[usize] {
        &self.nodes[node].after
    }

    pub(crate) fn work(&self, node: usize) -> &Work {
        &self.nodes[node].work
    }

    pub(crate) fn uses_function(&self, function: usize) -> bool {
        self.nodes.iter().any(|node| node.function == Some(function))
    }

    /// The bytes of the host that its copies read.
    pub(crate) fn reads_host(&self) -> impl Iterator<Item = (usize, usize)> {
        self.nodes.iter().filter_map(|node| match node.work {
            Work::Copy { from: Side::Host(from), bytes, .. } => Some((from, bytes)),
            _ => None,
        })
    }

    /// Whether a copy begins or ends in these bytes of the host.
    pub(crate) fn uses_host(&self, first: usize, bytes: usize) -> bool {
        let inside = |side: &Side| matches!(side, Side::Host(at) if (first..first + bytes).contains(at));
        let uses =
            |node: &Node| matches!(&node.work, Work::Copy { to, from, .. } if inside(to) || inside(from));
        self.nodes.iter().any(uses)
    }

    /// All nodes, in the order that is farthest from the one in which they were added: of those
    /// that wait for nothing any more the last comes next.
    pub(crate) fn order(&self) -> Vec<usize> {
        let mut order = Vec::with_capacity(self.nodes.len());
        let mut done = vec![false; self.nodes.len()];
        let ready = |i: &usize, done: &[bool]| !done[*i] && self.nodes[*i].after.iter().all(|a| done[*a]);
        while let Some(next) = (0..self.nodes.len()).rev().find(|i| ready(i, &done)) {
            done[next] = true;
            order.push(next);
        }
        order
    }

    /// Copies that share bytes, one of which writes them, and that nothing orders.
    pub(crate) fn unordered(&self) -> Vec<(usize, usize)> {
        let mut before: Vec<Vec<bool>> = Vec::new();
        let mut found = Vec::new();
        for (i, node) in self.nodes.iter().enumerate() {
            let mut mine = vec![false; i];
            for &a in &node.after {
                mine[a] = true;
                (0..a).for_each(|b| mine[b] |= before[a][b]);
            }
            found.extend(
                (0..i).filter(|&j| !mine[j] && conflict(&self.nodes[j].work, &node.work)).map(|j| (j, i)),
            );
            before.push(mine);
        }
        found
    }
}

fn conflict(a: &Work, b: &Work) -> bool {
    let (Work::Copy { to, from, bytes }, Work::Copy { to: to2, from: from2, bytes: bytes2 }) = (a, b) else {
        return false;
    };
    let meet = |x: &Side, n: usize, y: &Side, m: usize| match (x, y) {
        (Side::Device(x), Side::Device(y)) => *x < y + m as u64 && *y < x + n as u64,
        (Side::Host(x), Side::Host(y)) => *x < y + m && *y < x + n,
        (Side::Device(_), Side::Host(_)) | (Side::Host(_), Side::Device(_)) => false,
    };
    meet(to, *bytes, to2, *bytes2) || meet(to, *bytes, from2, *bytes2) || meet(from, *bytes, to2, *bytes2)
}
