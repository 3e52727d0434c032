//! Recomputation: activations that are dropped after the forward pass and computed again where the
//! backward pass reads them, so that a step fits a memory budget.
//!
//! **What may be dropped.** A value that the backward pass reads must be kept or computed again
//! from values that are kept. As in Chen et al. 2016 ("Training deep nets with sublinear memory
//! cost"), the forward pass is cut into segments of about equal bytes, each cut where the fewest
//! bytes cross it; what crosses a cut is a checkpoint and kept. Anything else may be dropped, and
//! is computed again from checkpoints and from what is kept.
//!
//! **What is dropped.** Of that, only as much as the budget needs, in the order of bytes freed per
//! arithmetic spent (selective recomputation: Korthikanti et al. 2022, "Reducing activation
//! recomputation in large transformer models"), earlier layers first: the last ones are needed
//! again at once. The judge is the planner itself: a choice counts by the footprint of its plan,
//! found by bisection over that order, for several numbers of segments; then what turns out not to
//! be needed is kept after all.
//!
//! **The same bits.** A node is computed again by the same operation with the same operands in the
//! same formats, and kernels are deterministic; random draws are keyed. The pass runs after
//! precision is assigned, so both times follow one plan. A step computes each node at most twice.

use std::collections::BTreeSet;

use crate::byte_size::ByteSize;
use crate::footprint::Footprint;
use crate::fuse::{flops, fuse};
use crate::graph::{Graph, Node, Phase, Rewrite, ValueId};
use crate::group::is_source;
use crate::op::{Binary, Op};
use crate::plan::plan;
use crate::target::Target;
use crate::uses::Uses;

/// What recomputation did to a program.
#[derive(Clone, Debug, PartialEq)]
pub struct Recomputation {
    /// The bytes it was to stay within.
    pub budget: usize,
    /// What the engine would hold without it.
    pub without: Footprint,
    /// What the engine holds with it.
    pub with: Footprint,
    /// Values that are not kept for the backward pass, by name and bytes.
    pub dropped: Vec<(String, usize)>,
    /// Nodes computed twice.
    pub nodes: usize,
    /// Their arithmetic, as a share of that of the whole step without them.
    pub extra_work: f64,
}

/// A memory budget that no choice of recomputation meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the step does not fit a memory budget of {budget}: it needs {without} as it is, and {smallest} at least if activations \
     are computed again ({state} of that are weights and optimiser state)",
    budget = ByteSize(*budget),
    without = ByteSize(*without).rounded_up(),
    smallest = ByteSize(*smallest).rounded_up(),
    state = ByteSize(*state).rounded_up()
)]
pub struct BudgetError {
    /// The budget, in bytes.
    pub budget: usize,
    /// The smallest footprint that was found.
    pub smallest: usize,
    /// The footprint without recomputation.
    pub without: usize,
    /// Bytes of state in both, which recomputation cannot change.
    pub state: usize,
}

/// Values smaller than this are kept: they would cost more nodes than they free bytes.
const LEAST: usize = 4096;
/// What a pass over memory costs, in arithmetic operations per element read or written: processors
/// compute some tens of products in the time of moving one number.
const WORK_OF_MOVING: f64 = 16.0;
/// How many numbers of segments that meet the budget are looked at closely.
const CLOSELY: usize = 3;
/// How many values are tried to be kept after all.
const SECOND_THOUGHTS: usize = 32;

/// The program with as little recomputed as its footprint on `target` needs to be at most `budget`
/// bytes; none if it needs nothing.
///
/// `graph` has its storage types assigned and is not yet fused.
///
/// # Errors
/// The budget cannot be met.
pub fn recompute(
    graph: &Graph,
    target: &dyn Target,
    budget: usize,
) -> Result<Option<(Graph, Recomputation)>, BudgetError> {
    let judge = |g: &Graph| plan(fuse(g), target).footprint;
    let without = judge(graph);
    if without.total() <= budget {
        return Ok(None);
    }
    let error = |smallest| BudgetError { budget, smallest, without: without.total(), state: without.state };
    let Some(forward) = Forward::of(graph) else { return Err(error(without.total())) };

    let mut smallest = without.total();
    let mut best: Option<(Choice, f64)> = None;
    let mut closely = 0;
    for candidates in forward.candidates() {
        let total = |n: usize| judge(&forward.apply(&candidates[..n]).graph).total();
        let all = total(candidates.len());
        smallest = smallest.min(all);
        if all > budget || closely == CLOSELY {
            continue;
        }
        closely += 1;
        let (mut too_few, mut enough) = (0, candidates.len());
        while enough - too_few > 1 {
            let middle = (too_few + enough) / 2;
            if total(middle) <= budget {
                enough = middle;
            } else {
                too_few = middle;
            }
        }
        let choice = candidates[..enough].to_vec();
        let work = forward.apply(&choice).work;
        if best.as_ref().is_none_or(|(_, least)| work < *least) {
            best = Some((choice, work));
        }
    }
    let Some((mut choice, _)) = best else { return Err(error(smallest)) };

    // Dearest first: what is needed again before anything else has died frees nothing.
    let mut dearest = choice.clone();
    dearest.sort_by(|a, b| forward.local_work[b.0 as usize].total_cmp(&forward.local_work[a.0 as usize]));
    for kept in dearest.into_iter().take(SECOND_THOUGHTS) {
        let fewer: Choice = choice.iter().copied().filter(|&v| v != kept).collect();
        if judge(&forward.apply(&fewer).graph).total() <= budget {
            choice = fewer;
        }
    }
    let applied = forward.apply(&choice);
    let name = |v: &ValueId| {
        let value = graph.value(*v);
        (graph.node(value.node).name.clone(), value.ty.bytes())
    };
    let all_work: f64 = graph.nodes.iter().map(|n| work(graph, n)).sum();
    let done = Recomputation {
        budget,
        without,
        with: judge(&applied.graph),
        dropped: choice.iter().map(name).collect(),
        nodes: applied.nodes,
        extra_work: applied.work / all_work,
    };
    Ok(Some((applied.graph, done)))
}

/// The smallest footprint that [`recompute`] can reach, in bytes.
pub fn smallest_footprint(graph: &Graph, target: &dyn Target) -> usize {
    match recompute(graph, target, 0) {
        Err(e) => e.smallest,
        // A program that needs no memory at all fits a budget of nothing.
        Ok(_) => 0,
    }
}

/// Values not kept for the backward pass.
type Choice = Vec<ValueId>;

struct Applied {
    graph: Graph,
    nodes: usize,
    work: f64,
}

/// What the pass needs to know of the forward part of a program. Values that share memory as
/// reshapes do are one: the first of them stands for all.
struct Forward<'a> {
    graph: &'a Graph,
    /// Position of the first node of the backward pass.
    end: usize,
    /// The owner of a value is its home: the value whose memory it lies in.
    uses: Uses,
    /// By owner: whether the backward pass reads it.
    saved: Vec<bool>,
    /// By owner: there whatever is chosen, such as inputs, state and outputs.
    fixed: Vec<bool>,
    /// By owner: the last node of the forward pass that reads it.
    last_use: Vec<usize>,
    /// By owner: the arithmetic between it and the nearest saved values.
    local_work: Vec<f64>,
}

impl<'a> Forward<'a> {
    fn of(graph: &'a Graph) -> Option<Forward<'a>> {
        let end = graph.nodes.iter().position(|n| n.phase == Phase::Backward)?;
        let count = graph.values.len();
        let uses = Uses::of(graph);
        let mut saved = vec![false; count];
        let mut fixed = vec![false; count];
        let mut last_use = vec![0; count];
        for (i, node) in graph.nodes.iter().enumerate() {
            for input in &node.inputs {
                let at = uses.home(*input);
                if i < end {
                    last_use[at.0 as usize] = i;
                } else if (graph.value(at).node.0 as usize) < end {
                    saved[at.0 as usize] = true;
                }
            }
            // A sum over ranks is made once: every rank must take part in each.
            let collective = matches!(node.op, Op::AllReduceStart { .. } | Op::AllReduceWait { .. });
            if i >= end || is_source(&node.op) || collective {
                node.outputs.iter().for_each(|v| fixed[uses.home(*v).0 as usize] = true);
            }
        }
        graph.live_out().for_each(|v| fixed[uses.home(v).0 as usize] = true);
        // Fusion moves a bias into a product that nobody else reads. A copy of a product with more
        // readers might have one alone, be fused where the product is not, and round differently.
        let users = graph.users();
        for node in graph.nodes.iter().filter(|n| matches!(n.op, Op::MatMul { .. } | Op::Conv2d(_))) {
            let readers = &users[node.outputs[0].0 as usize];
            let adds = readers.iter().any(|&r| graph.node(r).op == Op::Binary(Binary::Add));
            fixed[node.outputs[0].0 as usize] |= adds && readers.len() > 1;
        }
        let mut forward = Forward { graph, end, uses, saved, fixed, last_use, local_work: vec![0.0; count] };
        for i in 0..count {
            if forward.may_drop(ValueId(i as u32)) {
                let is_there = |v: ValueId| forward.is_fixed(v) || forward.saved[forward.owner_of(v)];
                let nodes = forward.sources(ValueId(i as u32), &is_there);
                forward.local_work[i] = nodes.iter().map(|&n| work(graph, &graph.nodes[n])).sum();
            }
        }
        Some(forward)
    }

    fn owner_of(&self, v: ValueId) -> usize {
        self.uses.home(v).0 as usize
    }

    fn is_fixed(&self, v: ValueId) -> bool {
        self.fixed[self.owner_of(v)]
    }

    fn may_drop(&self, v: ValueId) -> bool {
        let at = v.0 as usize;
        self.owner_of(v) == at && self.saved[at] && !self.fixed[at] && self.bytes(v) >= LEAST
    }

    fn bytes(&self, v: ValueId) -> usize {
        self.graph.value(v).ty.bytes()
    }

    fn made_at(&self, v: ValueId) -> usize {
        self.graph.value(v).node.0 as usize
    }

    /// The forward nodes, by position, that compute `value` from what is there, besides that value
    /// itself.
    fn sources(&self, value: ValueId, is_there: &dyn Fn(ValueId) -> bool) -> BTreeSet<usize> {
        let mut nodes = BTreeSet::from([self.made_at(value)]);
        let mut open = vec![self.made_at(value)];
        while let Some(i) = open.pop() {
            for &input in &self.graph.nodes[i].inputs {
                if !is_there(input) && nodes.insert(self.made_at(input)) {
                    open.push(self.made_at(input));
                }
            }
        }
        nodes
    }

    /// What may be dropped, in the order in which it pays, for one number of segments after
    /// another: many first.
    fn candidates(&self) -> Vec<Choice> {
        let values = || (0..self.graph.values.len() as u32).map(ValueId);
        let saved: Vec<ValueId> = values().filter(|&v| self.may_drop(v)).collect();
        // Bytes saved up to each node, and bytes that cross from it to the next.
        let mut gathered = vec![0; self.end];
        let mut crossing = vec![0isize; self.end + 1];
        saved.iter().for_each(|&v| gathered[self.made_at(v)] += self.bytes(v));
        for v in values().filter(|&v| self.owner_of(v) == v.0 as usize && !self.fixed[v.0 as usize]) {
            let (made, used) = (self.made_at(v), self.last_use[v.0 as usize]);
            if used > made {
                crossing[made] += self.bytes(v) as isize;
                crossing[used] -= self.bytes(v) as isize;
            }
        }
        for i in 1..self.end {
            gathered[i] += gathered[i - 1];
            crossing[i] += crossing[i - 1];
        }

        let mut found: Vec<Choice> = Vec::new();
        let mut segments = saved.len();
        while segments > 0 {
            let cuts = cuts(&gathered, &crossing[..self.end], segments);
            let is_checkpoint = |v: &ValueId| {
                cuts.iter().any(|&cut| self.made_at(*v) <= cut && cut < self.last_use[v.0 as usize])
            };
            let mut choice: Choice = saved.iter().copied().filter(|v| !is_checkpoint(v)).collect();
            // Bytes per arithmetic, most first; the sort keeps the order of the program among
            // equals.
            let pays = |v: &ValueId| self.bytes(*v) as f64 / self.local_work[v.0 as usize].max(1.0);
            choice.sort_by(|a, b| pays(b).total_cmp(&pays(a)));
            if !choice.is_empty() && !found.contains(&choice) {
                found.push(choice);
            }
            segments = segments * 4 / 5;
        }
        found
    }

    /// The program without these values kept: they are computed again before the first node that
    /// reads them.
    fn apply(&self, choice: &[ValueId]) -> Applied {
        let graph = self.graph;
        let mut dropped = vec![false; graph.values.len()];
        choice.iter().for_each(|v| dropped[v.0 as usize] = true);
        let is_there = |v: ValueId| {
            let owner = self.owner_of(v);
            self.fixed[owner] || (self.saved[owner] && !dropped[owner])
        };
        let mut rewrite = Rewrite::new(graph);
        let mut again: Vec<Option<ValueId>> = vec![None; graph.values.len()];
        let (mut nodes, mut extra) = (0, 0.0);
        for (i, node) in graph.nodes.iter().enumerate() {
            if i < self.end {
                rewrite.copy(node);
                continue;
            }
            for &input in &node.inputs {
                if is_there(input) || again[input.0 as usize].is_some() {
                    continue;
                }
                let known = |v: ValueId| is_there(v) || again[v.0 as usize].is_some();
                for source in self.sources(input, &known) {
                    let source = &graph.nodes[source];
                    repeat(&mut rewrite, source, &is_there, &mut again);
                    nodes += usize::from(!matches!(source.op, Op::Reshape { .. }));
                    extra += work(graph, source);
                }
            }
            let get = |v: &ValueId| {
                again[v.0 as usize].filter(|_| !is_there(*v)).unwrap_or_else(|| rewrite.get(*v))
            };
            let inputs: Vec<ValueId> = node.inputs.iter().map(get).collect();
            rewrite.with_inputs(node, &inputs);
        }
        Applied { graph: rewrite.finish(), nodes, work: extra }
    }
}

/// Adds a second copy of `node`, whose operands are there or have been added already.
fn repeat(
    rewrite: &mut Rewrite<'_>,
    node: &Node,
    is_there: &dyn Fn(ValueId) -> bool,
    again: &mut [Option<ValueId>],
) {
    let get = |v: &ValueId| match again[v.0 as usize] {
        Some(copy) if !is_there(*v) => copy,
        _ => rewrite.get(*v),
    };
    let inputs: Vec<ValueId> = node.inputs.iter().map(get).collect();
    let outputs = rewrite.push(node, node.op.clone(), &inputs, rewrite.types(node));
    node.outputs.iter().zip(outputs).for_each(|(old, new)| again[old.0 as usize] = Some(new));
}

/// Where to cut the forward pass into `segments`: after which nodes. Near each of the places that
/// would make segments of equal bytes, the one that the fewest bytes cross.
fn cuts(gathered: &[usize], crossing: &[isize], segments: usize) -> Vec<usize> {
    let all = gathered.last().copied().unwrap_or(0);
    let reaches = |share: f64| gathered.partition_point(|&g| (g as f64) < share * all as f64);
    let mut cuts: Vec<usize> = (1..segments)
        .filter_map(|i| {
            let share = |offset: f64| (i as f64 + offset) / segments as f64;
            let (from, to) = (reaches(share(-0.5)), reaches(share(0.5)).min(gathered.len()));
            let ideal = reaches(share(0.0));
            (from..to).min_by_key(|&at| (crossing[at], at.abs_diff(ideal)))
        })
        .collect();
    cuts.dedup();
    cuts
}

/// The work of a node, in arithmetic operations: those of its products, and what moving its values
/// costs otherwise.
fn work(graph: &Graph, node: &Node) -> f64 {
    let count = |v: ValueId| graph.shape(v).count() as f64;
    match &node.op {
        Op::Input { .. } | Op::Read { .. } | Op::Const { .. } | Op::Reshape { .. } => 0.0,
        Op::MatMul { .. }
        | Op::Conv2d(_)
        | Op::Conv2dGradInput { .. }
        | Op::Conv2dGradWeight { .. }
        | Op::Attention(_)
        | Op::AttentionGrad(_) => flops(graph, node) as f64,
        _ => WORK_OF_MOVING * node.inputs.iter().chain(&node.outputs).map(|&v| count(v)).sum::<f64>(),
    }
}
