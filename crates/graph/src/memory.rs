//! Where the bytes of a program go: what an engine holds for it, and what makes up the arena when
//! it is fullest.
//!
//! All of it is known from the plan, before anything runs.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::dtype::ValueType;
use crate::footprint::Footprint;
use crate::graph::{Graph, NodeId, Phase, SlotKind, ValueId};
use crate::op::{Op, SlotId};
use crate::plan::{Block, Content, Plan, fullest};

/// What bytes are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Weights as the model's operations read them: slots, or their copies in a low format.
    Weights,
    /// f32 slots of weights that are read through such copies.
    MasterWeights,
    /// What rounding has left over of bf16 weights.
    Compensation,
    /// Optimiser moments.
    Moments,
    /// Running statistics, loss scaler, counters.
    OtherState,
    /// What the caller gives each step.
    Inputs,
    /// Results of the forward pass, also where they are computed again.
    Activations,
    /// Gradients of weights.
    WeightGradients,
    /// Gradients of activations.
    ActivationGradients,
    /// Scalars of the update, and new state that waits to be written.
    Update,
    /// Working memory of the node that runs.
    Workspace,
    /// Arena that nothing uses when it is fullest: places that do not fit each other.
    Gaps,
    /// Constants, and copies of outputs for the caller.
    ConstantsAndOutputs,
    /// Packed operands and partial sums of matrix products.
    Scratch,
}

impl Purpose {
    /// Every purpose, in the order reports list them.
    pub const ALL: [Purpose; 14] = [
        Purpose::Weights,
        Purpose::MasterWeights,
        Purpose::Compensation,
        Purpose::Moments,
        Purpose::OtherState,
        Purpose::WeightGradients,
        Purpose::ActivationGradients,
        Purpose::Activations,
        Purpose::Inputs,
        Purpose::Update,
        Purpose::Workspace,
        Purpose::Gaps,
        Purpose::ConstantsAndOutputs,
        Purpose::Scratch,
    ];
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Purpose::Weights => "weights",
            Purpose::MasterWeights => "master weights",
            Purpose::Compensation => "compensation of weights",
            Purpose::Moments => "moments",
            Purpose::OtherState => "other state",
            Purpose::Inputs => "inputs",
            Purpose::Activations => "activations",
            Purpose::WeightGradients => "gradients of weights",
            Purpose::ActivationGradients => "gradients of activations",
            Purpose::Update => "update",
            Purpose::Workspace => "workspace",
            Purpose::Gaps => "gaps in the arena",
            Purpose::ConstantsAndOutputs => "constants, outputs",
            Purpose::Scratch => "packing of products",
        })
    }
}

/// Something that is in the arena when it is fullest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resident {
    /// The node that made the value, or that works here.
    pub name: String,
    /// Its operation.
    pub op: String,
    /// Shape and storage type of the value; none for a workspace.
    pub ty: Option<ValueType>,
    /// What it is for.
    pub purpose: Purpose,
    /// Bytes of arena.
    pub bytes: usize,
}

/// Where the bytes of a program go at the moment its arena is fullest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemoryReport {
    /// By region.
    pub footprint: Footprint,
    /// By purpose; these add up to the footprint. Purposes without bytes are left out.
    pub purposes: Vec<(Purpose, usize)>,
    /// Name and operation of what runs when the arena is fullest.
    pub peak_at: String,
    /// What is in the arena then, largest first.
    pub residents: Vec<Resident>,
}

impl MemoryReport {
    /// The bytes for one purpose.
    pub fn bytes(&self, purpose: Purpose) -> usize {
        self.purposes.iter().find(|(p, _)| *p == purpose).map_or(0, |(_, bytes)| *bytes)
    }
}

impl Plan {
    /// Where the bytes go.
    pub fn memory(&self) -> MemoryReport {
        let graph = &self.graph;
        let (fullest, _) = fullest(&self.blocks, self.groups.steps.len());
        let mut step_of = vec![0; graph.nodes.len()];
        for (i, step) in self.groups.steps.iter().enumerate() {
            step.nodes.iter().for_each(|n| step_of[n.0 as usize] = i);
        }
        let made = |v: ValueId| step_of[graph.value(v).node.0 as usize] <= fullest;
        let live = self.blocks.iter().filter(|b| b.is_live_at(fullest));
        let mut residents: Vec<Resident> = live.map(|b| resident(graph, b, made)).collect();

        let mut bytes = [0; Purpose::ALL.len()];
        let mut add = |purpose: Purpose, n: usize| {
            if let Some(at) = Purpose::ALL.iter().position(|p| *p == purpose) {
                bytes[at] += n;
            }
        };
        residents.iter().for_each(|r| add(r.purpose, r.bytes));
        add(Purpose::Gaps, self.arena_bytes - self.live_bytes);
        let copied = copied_slots(graph);
        let mut slots = 0;
        for (slot, copied) in graph.slots.iter().zip(copied) {
            let purpose = match (slot.kind, copied) {
                (SlotKind::Weight { .. }, false) => Purpose::Weights,
                (SlotKind::Weight { .. }, true) => Purpose::MasterWeights,
                (SlotKind::Moment, _) => Purpose::Moments,
                (SlotKind::Compensation, _) => Purpose::Compensation,
                (SlotKind::Statistic | SlotKind::Scaler | SlotKind::Scale | SlotKind::Counter, _) => {
                    Purpose::OtherState
                }
            };
            add(purpose, slot.ty.bytes());
            slots += slot.ty.bytes();
        }
        // Slots begin at aligned places.
        add(Purpose::OtherState, self.footprint.state - slots);
        add(Purpose::ConstantsAndOutputs, self.footprint.constants + self.footprint.outputs);
        add(Purpose::Inputs, self.footprint.staging);
        add(Purpose::Scratch, self.footprint.scratch);

        residents.sort_by_key(|r| std::cmp::Reverse(r.bytes));
        MemoryReport {
            footprint: self.footprint,
            purposes: Purpose::ALL.into_iter().zip(bytes).filter(|(_, n)| *n > 0).collect(),
            peak_at: self.groups.steps.get(fullest).map_or_else(String::new, |step| {
                let root = graph.node(step.root(graph));
                format!("{} {}", root.name, root.op.name())
            }),
            residents,
        }
    }
}

/// What is in a block, where `made` tells which values have been made so far.
fn resident(graph: &Graph, block: &Block, made: impl Fn(ValueId) -> bool) -> Resident {
    let entry = |id: NodeId, ty: Option<ValueType>, purpose| {
        let n = graph.node(id);
        Resident { name: n.name.clone(), op: n.op.name(), ty, purpose, bytes: block.bytes }
    };
    match &block.content {
        Content::Workspace(id) => entry(*id, None, Purpose::Workspace),
        Content::Values(values) => {
            // Values that share a block follow each other: the one there now is the last made so
            // far.
            let value = values.iter().rev().find(|&&v| made(v)).unwrap_or(&values[0]);
            let v = graph.value(*value);
            entry(v.node, Some(v.ty.clone()), purpose(graph, *value))
        }
    }
}

fn purpose(graph: &Graph, value: ValueId) -> Purpose {
    let v = graph.value(value);
    let node = graph.node(v.node);
    match (&node.op, node.phase) {
        (Op::Input { .. }, _) => Purpose::Inputs,
        _ if v.gradient_of.is_some() => Purpose::WeightGradients,
        _ if copied_slot(graph, value).is_some() => Purpose::Weights,
        (_, Phase::Forward) => Purpose::Activations,
        (_, Phase::Backward) => Purpose::ActivationGradients,
        (_, Phase::Update) => Purpose::Update,
    }
}

/// The weight of which `value` is a copy in another format or order.
fn copied_slot(graph: &Graph, value: ValueId) -> Option<SlotId> {
    let node = graph.node(graph.value(value).node);
    match &node.op {
        Op::Read { slot } => matches!(graph.slot(*slot).kind, SlotKind::Weight { .. }).then_some(*slot),
        Op::Cast { .. } | Op::Quantise(_) | Op::Reshape { .. } | Op::Permute { .. } => {
            copied_slot(graph, node.inputs[0])
        }
        _ => None,
    }
}

/// For each slot, whether it is a weight read through a copy in a low format.
fn copied_slots(graph: &Graph) -> Vec<bool> {
    let mut copied = vec![false; graph.slots.len()];
    for node in graph.nodes.iter().filter(|n| matches!(n.op, Op::Cast { .. } | Op::Quantise(_))) {
        if let Some(slot) = copied_slot(graph, node.outputs[0]) {
            copied[slot.0 as usize] = true;
        }
    }
    copied
}
