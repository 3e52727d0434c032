//! The memory plan: where every value lives, decided before anything runs.
//!
//! Values that are alive at the same time get separate places in one arena. Three kinds of value
//! share a place: a reshape with its operand, an elementwise result (or the gradient of a
//! cross-entropy) with an operand that dies there, and an optimiser's result with the slot it
//! replaces. Time is counted in steps, one for each group of nodes; a value that only its own group
//! reads has no place.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::dtype::ValueType;
use crate::footprint::Footprint;
use crate::fuse::group;
use crate::graph::{Graph, NodeId, SlotKind, ValueId, When};
use crate::group::{Group, Groups, is_elementwise};
use crate::op::{Op, SlotId};
use crate::target::Target;
use crate::uses::Uses;

/// Where a value lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// At this byte offset in the arena.
    Arena(usize),
    /// In the slot's own memory.
    Slot(SlotId),
    /// Nowhere: a constant that is the same in every place, taken from its node.
    Constant,
    /// Nowhere: it is made and read inside one group.
    Inside,
    /// On its way between ranks, in memory of the engine's own.
    Transit,
}

/// A graph with a place for every value.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The program.
    pub graph: Graph,
    /// The steps: which nodes run as one, and in which order.
    pub groups: Groups,
    /// Where each value lives.
    pub places: Vec<Place>,
    /// Byte offset in the arena of each node's workspace; meaningless where it needs none.
    pub workspaces: Vec<usize>,
    /// Size of the arena.
    pub arena_bytes: usize,
    /// The most bytes of values alive at one time: what no placement could go below.
    pub live_bytes: usize,
    /// What is in use when, and where: the arena in detail.
    pub blocks: Vec<Block>,
    /// Bytes that the engine holds for this program, by region.
    pub footprint: Footprint,
}

impl Plan {
    /// Bytes of the slots this program uses, by kind: weights, moments, everything else.
    pub fn state_bytes(&self) -> StateBytes {
        let mut bytes = StateBytes::default();
        for slot in &self.graph.slots {
            let of_kind = match slot.kind {
                SlotKind::Weight { .. } | SlotKind::Compensation => &mut bytes.weights,
                SlotKind::Moment => &mut bytes.moments,
                SlotKind::Statistic | SlotKind::Scaler | SlotKind::Scale | SlotKind::Counter => {
                    &mut bytes.other
                }
            };
            *of_kind += slot.ty.bytes();
        }
        bytes
    }
}

/// A piece of arena that is in use from one step of the program to another: one of the plan's
/// groups to another.
#[derive(Clone, Debug)]
pub struct Block {
    /// Its size, a multiple of the target's alignment.
    pub bytes: usize,
    /// The first step, by position, during which it is in use.
    pub first: usize,
    /// The last one; the number of steps for what outlives the program.
    pub last: usize,
    /// Where it begins in the arena.
    pub offset: usize,
    /// What lies in it.
    pub content: Content,
}

impl Block {
    /// Whether it is in use while the step at this position runs.
    pub fn is_live_at(&self, step: usize) -> bool {
        self.first <= step && step <= self.last
    }
}

/// What lies in a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Values, one after another, in the order they are made.
    Values(Vec<ValueId>),
    /// Working memory of one node.
    Workspace(NodeId),
}

/// Bytes of persistent state by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateBytes {
    /// Weights, and what rounding has left over of them.
    pub weights: usize,
    /// Optimiser moments.
    pub moments: usize,
    /// Statistics, scaler and counters.
    pub other: usize,
}

impl StateBytes {
    /// All of it.
    pub fn total(&self) -> usize {
        self.weights + self.moments + self.other
    }
}

/// Where a target batches, values of at most so many bytes share no place over time.
const SMALL_BYTES: usize = 8192;

/// Groups the nodes of `graph` into steps and decides where every value lives on `target`.
pub fn plan(graph: Graph, target: &dyn Target) -> Plan {
    let groups = group(&graph, target);
    let early = if target.batches() { of_state_first(&graph, &groups) } else { groups.clone() };
    if early.steps == groups.steps {
        return plan_groups(graph, groups, target);
    }
    let (plan, early) = (plan_groups(graph.clone(), groups, target), plan_groups(graph, early, target));
    if early.arena_bytes <= plan.arena_bytes { early } else { plan }
}

/// The same steps, of which those come first that read nothing but slots and constants.
fn of_state_first(graph: &Graph, groups: &Groups) -> Groups {
    let is_state =
        |v: &ValueId| matches!(graph.node(graph.value(*v).node).op, Op::Read { .. } | Op::Const { .. });
    let mut groups = groups.clone();
    groups.steps.sort_by_key(|step| !step.reads.iter().all(is_state));
    groups
}

fn plan_groups(graph: Graph, groups: Groups, target: &dyn Target) -> Plan {
    let uses = Uses::of(&graph);
    let end = groups.steps.len();
    let last_use = last_uses(&graph, &uses, &groups);
    let mut blocks: Vec<Block> = Vec::new();
    let mut block_of: Vec<Option<usize>> = vec![None; graph.values.len()];
    let mut places: Vec<Option<Place>> = vec![None; graph.values.len()];
    let mut workspace_block: Vec<Option<usize>> = vec![None; graph.nodes.len()];
    for node in &graph.nodes {
        let o = node.outputs.first().map_or(0, |o| o.0 as usize);
        match &node.op {
            Op::Read { slot } => places[o] = Some(Place::Slot(*slot)),
            Op::Const { .. } => places[o] = Some(Place::Constant),
            // All inputs are there before the first step.
            Op::Input { .. } => {
                let bytes = size(&graph, node.outputs[0], target);
                let content = Content::Values(vec![node.outputs[0]]);
                blocks.push(Block { bytes, first: 0, last: last_use[o], offset: 0, content });
                block_of[o] = Some(blocks.len() - 1);
            }
            _ => {}
        }
    }
    for (i, step) in groups.steps.iter().enumerate() {
        for &output in &step.writes {
            let o = output.0 as usize;
            if matches!(graph.node(graph.value(output).node).op, Op::AllReduceStart { .. }) {
                places[o] = Some(Place::Transit);
                continue;
            }
            if let Some(slot) = replaced_slot(&graph, &uses, output, &last_use, i) {
                places[o] = Some(Place::Slot(slot));
                continue;
            }
            // A block that was just taken over lasts longer than this step, unless nobody reads
            // what is in it.
            let bytes = size(&graph, output, target);
            let taken = |b: usize| step.writes.iter().any(|w| block_of[w.0 as usize] == Some(b));
            let shared = step
                .reads
                .iter()
                .filter(|&&v| may_overwrite(&graph, &uses, step, v, output))
                .filter_map(|v| block_of[v.0 as usize])
                .find(|&b| blocks[b].last == i && blocks[b].bytes == bytes && !taken(b));
            let block = shared.unwrap_or_else(|| {
                let content = Content::Values(Vec::new());
                blocks.push(Block { bytes, first: i, last: i, offset: 0, content });
                blocks.len() - 1
            });
            if let Content::Values(values) = &mut blocks[block].content {
                values.push(output);
            }
            block_of[o] = Some(block);
            blocks[block].last = blocks[block].last.max(last_use[o]);
        }
        for &n in &step.nodes {
            let workspace = target.workspace_bytes(&graph, graph.node(n));
            if workspace > 0 {
                let bytes = workspace.next_multiple_of(target.alignment());
                let content = Content::Workspace(n);
                blocks.push(Block { bytes, first: i, last: i, offset: 0, content });
                workspace_block[n.0 as usize] = Some(blocks.len() - 1);
            }
        }
    }

    if target.batches() {
        for block in blocks.iter_mut().filter(|block| block.bytes <= SMALL_BYTES) {
            (block.first, block.last) = (0, end);
        }
    }
    let (_, live_bytes) = fullest(&blocks, end);
    let arena_bytes = place_blocks(&mut blocks, live_bytes);
    let place_of = |v: u32| {
        let home = uses.home(ValueId(v)).0 as usize;
        match (places[home], block_of[home]) {
            (Some(place), _) => place,
            (None, Some(block)) => Place::Arena(blocks[block].offset),
            (None, None) => Place::Inside,
        }
    };
    let places: Vec<Place> = (0..graph.values.len() as u32).map(place_of).collect();
    let workspaces = workspace_block.iter().map(|b| b.map_or(0, |b| blocks[b].offset)).collect();
    let footprint = footprint(&graph, &places, &groups, arena_bytes, target);
    Plan { graph, groups, places, workspaces, arena_bytes, live_bytes, blocks, footprint }
}

/// What the engine of `target` holds for a program whose values lie at `places`.
fn footprint(
    graph: &Graph,
    places: &[Place],
    groups: &Groups,
    arena: usize,
    target: &dyn Target,
) -> Footprint {
    let alignment = target.alignment();
    let aligned = |types: &mut dyn Iterator<Item = &ValueType>| -> usize {
        types.map(|ty| ty.bytes().next_multiple_of(alignment)).sum()
    };
    let in_place = |place| graph.values.iter().zip(places).filter(move |(_, p)| **p == place);
    let constants = in_place(Place::Constant);
    let kept = graph.nodes.iter().map(|node| target.kept_bytes(graph, node).next_multiple_of(alignment));
    let transit: usize = in_place(Place::Transit).map(|(v, _)| v.ty.bytes()).sum();
    let scratch = groups.steps.iter().map(|step| target.scratch_bytes(graph, step)).max().unwrap_or(0);
    Footprint {
        state: aligned(&mut graph.slots.iter().map(|s| &s.ty)),
        arena,
        constants: aligned(&mut constants.map(|(v, _)| &v.ty)) + kept.sum::<usize>(),
        outputs: aligned(&mut graph.outputs.iter().map(|(_, v)| &graph.value(*v).ty)),
        staging: target.staging_bytes(graph),
        scratch: scratch + transit,
    }
}

fn size(graph: &Graph, value: ValueId, target: &dyn Target) -> usize {
    graph.value(value).ty.bytes().next_multiple_of(target.alignment())
}

/// The last step that uses each value, seen through reshapes; the number of steps for what must
/// outlive the program.
fn last_uses(graph: &Graph, uses: &Uses, groups: &Groups) -> Vec<usize> {
    let mut last = vec![0; graph.values.len()];
    for (i, step) in groups.steps.iter().enumerate() {
        step.reads.iter().chain(&step.writes).for_each(|v| last[v.0 as usize] = i);
    }
    graph.live_out().for_each(|v| last[uses.home(v).0 as usize] = groups.steps.len());
    last
}

/// Whether `step` computes each element of `output` from the same element of `input` alone, so that
/// it may be stored over it.
fn may_overwrite(graph: &Graph, uses: &Uses, step: &Group, input: ValueId, output: ValueId) -> bool {
    let alike = |a: ValueId, b: ValueId| {
        graph.dtype(a) == graph.dtype(b) && graph.shape(a).count() == graph.shape(b).count()
    };
    // Kernels of one operation that is no arithmetic read one place and write another.
    let in_place = |op: &Op| match step.nodes.len() {
        1 => matches!(op, Op::Unary(_) | Op::Binary(_) | Op::Select),
        _ => is_elementwise(op),
    };
    let maker = graph.node(graph.value(output).node);
    // Each row of this gradient is computed from that row of the logits: with a large vocabulary,
    // much memory.
    if matches!(maker.op, Op::CrossEntropyGrad) && step.nodes.len() == 1 {
        return uses.home(maker.inputs[0]) == input && alike(input, output);
    }
    let mut readers = uses.readers(input).iter().filter(|n| step.nodes.contains(n));
    is_elementwise(&maker.op) && alike(input, output) && readers.all(|&n| in_place(&graph.node(n).op))
}

/// The slot that a result of an optimiser replaces, if it can be updated where it lies: the operand
/// is the slot itself, nobody reads it later, and the result is written back to it.
fn replaced_slot(
    graph: &Graph,
    uses: &Uses,
    output: ValueId,
    last_use: &[usize],
    at: usize,
) -> Option<SlotId> {
    let made = graph.value(output);
    let node = graph.node(made.node);
    if !matches!(node.op, Op::AdamW(_) | Op::Sgd(_)) {
        return None;
    }
    let operand = node.inputs[made.index];
    let Op::Read { slot } = graph.node(graph.value(operand).node).op else { return None };
    let written =
        graph.writes.iter().any(|w| w.slot == slot && w.value == output && w.when == When::Committed);
    let commits_itself = graph.commit == node.inputs.last().copied();
    (written && commits_itself && last_use[uses.home(operand).0 as usize] == at).then_some(slot)
}

/// The first of so many steps during which the most bytes are in use, and how many those are.
pub(crate) fn fullest(blocks: &[Block], steps: usize) -> (usize, usize) {
    let mut change = vec![0isize; steps + 2];
    for block in blocks {
        change[block.first] += block.bytes as isize;
        change[block.last + 1] -= block.bytes as isize;
    }
    let (mut live, mut best, mut at) = (0, 0, 0);
    for (i, c) in change.into_iter().enumerate() {
        live += c;
        if live > best {
            (best, at) = (live, i);
        }
    }
    (at, best as usize)
}

/// Gives every block an offset such that blocks alive together do not overlap, and returns the size
/// needed.
///
/// One block after another, each at the lowest gap that fits (Pisarchyk and Lee 2020, "Efficient
/// memory management for deep neural net inference"). Which order packs best depends on the
/// program: the largest first, the largest by bytes times lifetime first, and the longest-lived
/// first are tried until one leaves no gap.
fn place_blocks(blocks: &mut [Block], live: usize) -> usize {
    let lifetime = |b: &Block| b.last - b.first + 1;
    let orders: [&dyn Fn(&Block) -> usize; 3] =
        [&|b| b.bytes, &|b| b.bytes.saturating_mul(lifetime(b)), &lifetime];
    let mut best: Option<(usize, Vec<usize>)> = None;
    for key in orders {
        let mut order: Vec<usize> = (0..blocks.len()).collect();
        order.sort_by_key(|&b| (std::cmp::Reverse(key(&blocks[b])), blocks[b].first));
        let (end, offsets) = first_fit(blocks, &order);
        if best.as_ref().is_none_or(|(least, _)| end < *least) {
            best = Some((end, offsets));
        }
        if end == live {
            break;
        }
    }
    let (end, offsets) = best.unwrap_or_default();
    blocks.iter_mut().zip(offsets).for_each(|(block, offset)| block.offset = offset);
    end
}

/// Places blocks in this order, each as low as those before it allow: the size needed, and each
/// block's offset.
fn first_fit(blocks: &[Block], order: &[usize]) -> (usize, Vec<usize>) {
    let mut offsets = vec![0; blocks.len()];
    let mut placed: Vec<usize> = Vec::with_capacity(blocks.len());
    let mut end = 0;
    for &b in order {
        let (first, last, bytes) = (blocks[b].first, blocks[b].last, blocks[b].bytes);
        let mut offset = 0;
        for &other in &placed {
            let o = &blocks[other];
            if o.first <= last && first <= o.last {
                if offset + bytes <= offsets[other] {
                    break;
                }
                offset = offset.max(offsets[other] + o.bytes);
            }
        }
        offsets[b] = offset;
        end = end.max(offset + bytes);
        let at = placed.partition_point(|&p| offsets[p] <= offset);
        placed.insert(at, b);
    }
    (end, offsets)
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state_bytes();
        let StateBytes { weights, moments, other } = state;
        writeln!(
            f,
            "arena {} bytes ({} alive at the peak); state {} bytes: weights {weights}, moments {moments}, other {other}",
            self.arena_bytes,
            self.live_bytes,
            state.total()
        )?;
        for (i, value) in self.graph.values.iter().enumerate() {
            let node = self.graph.node(value.node);
            let place = match self.places[i] {
                Place::Arena(offset) => format!("arena {offset}..{}", offset + value.ty.bytes()),
                Place::Slot(slot) => format!("slot {}", self.graph.slot(slot).name),
                Place::Constant => "constant".to_string(),
                Place::Inside => "inside its group".to_string(),
                Place::Transit => "between ranks".to_string(),
            };
            writeln!(
                f,
                "%{i:<5} {:<22} {:<20} {place}  # {}",
                value.ty.to_string(),
                node.op.name(),
                node.name
            )?;
        }
        Ok(())
    }
}
