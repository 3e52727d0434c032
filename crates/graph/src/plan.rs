//! The memory plan: where every value lives, decided before anything runs.
//!
//! Values that are alive at the same time get separate places in one arena. Three kinds of value share a place: a
//! reshape with its operand, an elementwise result (or the gradient of a cross-entropy) with an operand that dies there,
//! and an optimiser's result with the slot it replaces.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::engine::Target;
use crate::graph::{Graph, Node, NodeId, SlotKind, ValueId, When};
use crate::memory::{Block, Content, Footprint};
use crate::op::{Op, SlotId};

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
}

/// A graph with a place for every value.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The program.
    pub graph: Graph,
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
                SlotKind::Weight { .. } => &mut bytes.weights,
                SlotKind::Moment => &mut bytes.moments,
                SlotKind::Statistic | SlotKind::Scaler | SlotKind::Counter => &mut bytes.other,
            };
            *of_kind += slot.ty.bytes();
        }
        bytes
    }
}

/// Bytes of persistent state by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateBytes {
    /// Master weights.
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

/// Decides where every value of `graph` lives on `target`.
pub fn plan(graph: Graph, target: &dyn Target) -> Plan {
    let end = graph.nodes.len();
    let last_use = last_uses(&graph, end);
    let mut blocks: Vec<Block> = Vec::new();
    let mut block_of: Vec<Option<usize>> = vec![None; graph.values.len()];
    let mut places: Vec<Option<Place>> = vec![None; graph.values.len()];
    let mut workspace_block: Vec<Option<usize>> = vec![None; end];

    for (i, node) in graph.nodes.iter().enumerate() {
        for (index, &output) in node.outputs.iter().enumerate() {
            let o = output.0 as usize;
            let shared = match &node.op {
                Op::Read { slot } => {
                    places[o] = Some(Place::Slot(*slot));
                    continue;
                }
                Op::Const { .. } => {
                    places[o] = Some(Place::Constant);
                    continue;
                }
                Op::AdamW(_) | Op::Sgd(_) => {
                    if let Some(slot) = replaced_slot(&graph, node, index, &last_use, i) {
                        places[o] = Some(Place::Slot(slot));
                        continue;
                    }
                    None
                }
                Op::Reshape { .. } => {
                    let from = node.inputs[0].0 as usize;
                    if let Some(place @ (Place::Slot(_) | Place::Constant)) = places[from] {
                        places[o] = Some(place);
                        continue;
                    }
                    block_of[from]
                }
                _ => node
                    .inputs
                    .iter()
                    .filter(|&&v| may_overwrite(&graph, node, v, output))
                    .filter_map(|v| block_of[v.0 as usize])
                    .find(|&b| blocks[b].last == i && blocks[b].bytes == size(&graph, output, target)),
            };
            let block = shared.unwrap_or_else(|| {
                // All inputs are there before the first node runs.
                let first = if matches!(node.op, Op::Input { .. }) { 0 } else { i };
                let content = Content::Values(Vec::new());
                blocks.push(Block {
                    bytes: size(&graph, output, target),
                    first,
                    last: i,
                    offset: 0,
                    content,
                });
                blocks.len() - 1
            });
            if let Content::Values(values) = &mut blocks[block].content {
                values.push(output);
            }
            block_of[o] = Some(block);
            blocks[block].last = blocks[block].last.max(last_use[o]);
        }
        let workspace = target.workspace_bytes(&graph, node);
        if workspace > 0 {
            let bytes = workspace.next_multiple_of(target.alignment());
            let content = Content::Workspace(NodeId(i as u32));
            blocks.push(Block { bytes, first: i, last: i, offset: 0, content });
            workspace_block[i] = Some(blocks.len() - 1);
        }
    }

    let arena_bytes = place_blocks(&mut blocks);
    let live_bytes = peak(&blocks, end);
    let place_of = |v: usize| match (places[v], block_of[v]) {
        (Some(place), _) => place,
        (None, Some(block)) => Place::Arena(blocks[block].offset),
        (None, None) => Place::Constant,
    };
    let places: Vec<Place> = (0..graph.values.len()).map(place_of).collect();
    let workspaces = workspace_block.iter().map(|b| b.map_or(0, |b| blocks[b].offset)).collect();
    let footprint = Footprint::of(&graph, &places, arena_bytes, target);
    Plan { graph, places, workspaces, arena_bytes, live_bytes, blocks, footprint }
}

fn size(graph: &Graph, value: ValueId, target: &dyn Target) -> usize {
    graph.value(value).ty.bytes().next_multiple_of(target.alignment())
}

/// The last node that uses each value, seen through reshapes; `end` for what must outlive the program.
fn last_uses(graph: &Graph, end: usize) -> Vec<usize> {
    let mut last: Vec<usize> = graph.values.iter().map(|v| v.node.0 as usize).collect();
    for (i, node) in graph.nodes.iter().enumerate() {
        node.inputs.iter().for_each(|v| last[v.0 as usize] = i);
    }
    graph.roots().for_each(|v| last[v.0 as usize] = end);
    for node in graph.nodes.iter().rev().filter(|n| matches!(n.op, Op::Reshape { .. })) {
        let (from, to) = (node.inputs[0].0 as usize, node.outputs[0].0 as usize);
        last[from] = last[from].max(last[to]);
    }
    last
}

/// Whether `node` computes each element of `output` from the same element of `input` alone, so that it may be stored
/// over it.
fn may_overwrite(graph: &Graph, node: &Node, input: ValueId, output: ValueId) -> bool {
    let elementwise = matches!(node.op, Op::Unary(_) | Op::Binary(_) | Op::Select);
    // Each row of this gradient is computed from that row of the logits: with a large vocabulary, much memory.
    let over_logits = matches!(node.op, Op::CrossEntropyGrad) && input == node.inputs[0];
    (elementwise || over_logits) && graph.value(input).ty == graph.value(output).ty
}

/// The slot that result `index` of an optimiser replaces, if it can be updated where it lies: the operand is the slot
/// itself, nobody reads it later, and the result is written back to it.
fn replaced_slot(graph: &Graph, node: &Node, index: usize, last_use: &[usize], at: usize) -> Option<SlotId> {
    let operand = node.inputs[index];
    let Op::Read { slot } = graph.node(graph.value(operand).node).op else { return None };
    let written = graph
        .writes
        .iter()
        .any(|w| w.slot == slot && w.value == node.outputs[index] && w.when == When::Committed);
    let commits_itself = graph.commit == node.inputs.last().copied();
    (written && commits_itself && last_use[operand.0 as usize] == at).then_some(slot)
}

/// Gives every block an offset such that blocks alive together do not overlap, and returns the size needed.
///
/// One block after another, each at the lowest gap that fits (Pisarchyk and Lee 2020, "Efficient memory management for
/// deep neural net inference"). Which order packs best depends on the program: the largest first, the largest by bytes
/// times lifetime first, and the longest-lived first are tried until one leaves no gap.
fn place_blocks(blocks: &mut [Block]) -> usize {
    let live = peak(blocks, blocks.iter().map(|b| b.last).max().unwrap_or(0));
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

/// Places blocks in this order, each as low as those before it allow: the size needed, and each block's offset.
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

fn peak(blocks: &[Block], end: usize) -> usize {
    let mut change = vec![0isize; end + 2];
    for block in blocks {
        change[block.first] += block.bytes as isize;
        change[block.last + 1] -= block.bytes as isize;
    }
    let mut live = 0;
    let totals = change.iter().map(|c| {
        live += c;
        live
    });
    totals.max().unwrap_or(0) as usize
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state_bytes();
        writeln!(
            f,
            "arena {} bytes ({} alive at the peak); state {} bytes: weights {}, moments {}, other {}",
            self.arena_bytes,
            self.live_bytes,
            state.total(),
            state.weights,
            state.moments,
            state.other
        )?;
        for (i, value) in self.graph.values.iter().enumerate() {
            let node = self.graph.node(value.node);
            let place = match self.places[i] {
                Place::Arena(offset) => format!("arena {offset}..{}", offset + value.ty.bytes()),
                Place::Slot(slot) => format!("slot {}", self.graph.slot(slot).name),
                Place::Constant => "constant".to_string(),
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
