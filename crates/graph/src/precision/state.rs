//! State in fewer bytes: the pass that puts weights and moments in the formats the policy names.

use std::collections::HashMap;

use super::policy::Policy;
use super::quantise::{KEY, draws_number};
use crate::dtype::{DType, Shape, ValueType};
use crate::graph::{Graph, Init, Node, Phase, Rewrite, SlotKind, ValueId, When, Write};
use crate::op::{Op, SlotId};
use crate::reason::Reason;
use crate::state_formats::{Kept, MomentFormat, StateFormats, WeightFormat};

/// The same program with the slots of weights and moments, and the updates that write them, in the
/// policy's formats.
///
/// Weights are matrices and kernels of at least [`StateFormats::SMALL`] elements, trained or not,
/// so that programs over the same slots agree; moments those of any weight of that size. The
/// compensation of a weight and the largest magnitudes of a moment's blocks become slots of their
/// own. An update that has been given its formats stays as it is.
pub fn keep_state(graph: &Graph, policy: &Policy) -> Graph {
    let formats = policy.state;
    if formats.is_f32() {
        return graph.clone();
    }
    let mut rewrite = Rewrite::new(graph);
    let mut reasons: HashMap<SlotId, Reason> = HashMap::new();
    for (i, slot) in rewrite.new.slots.iter_mut().enumerate() {
        let SlotKind::Weight { decay } = slot.kind else { continue };
        if formats.weights == WeightFormat::F32 {
            continue;
        }
        let is_large = decay && slot.ty.shape.count() >= StateFormats::SMALL;
        if is_large {
            slot.ty.dtype = DType::Bf16;
        }
        reasons.insert(
            SlotId(i as u32),
            if is_large { weight_reason(formats.weights) } else { Reason::SmallState },
        );
    }
    let updates: Vec<Option<Update>> =
        graph.nodes.iter().map(|node| Update::of(graph, node, &rewrite.new, formats)).collect();
    for update in updates.iter().flatten() {
        for (i, &moment) in update.moments.iter().enumerate() {
            let slot = &mut rewrite.new.slots[moment.0 as usize];
            slot.ty = update.kept.formats.moment_types(&slot.ty.shape)[0].clone();
            if slot.ty.dtype == DType::U8 {
                slot.init = Init::Constant(StateFormats::map_of(i).zero().into());
            }
            if formats.moments != MomentFormat::F32 {
                reasons.insert(moment, moment_reason(update.kept.formats.moments));
            }
        }
    }
    let mut writes = Vec::new();
    for (node, update) in graph.nodes.iter().zip(&updates) {
        match (&node.op, update) {
            (&Op::Read { slot }, _) => {
                let ty = rewrite.new.slot(slot).ty.clone();
                rewrite.replace(node, node.op.clone(), &[], vec![ty]);
                if let Some(&reason) = reasons.get(&slot) {
                    let read = rewrite.get(node.outputs[0]);
                    rewrite.new.because(read, reason);
                }
            }
            (_, Some(update)) if !update.kept.formats.is_f32() => update.add(&mut rewrite, node, &mut writes),
            _ => rewrite.copy(node),
        }
    }
    let mut kept = rewrite.finish();
    kept.writes.extend(writes);
    kept
}

fn weight_reason(format: WeightFormat) -> Reason {
    match format {
        WeightFormat::F32 => Reason::SmallState,
        WeightFormat::Bf16 => Reason::LowWeight,
        WeightFormat::Bf16Stochastic => Reason::StochasticWeight,
        WeightFormat::Bf16Kahan => Reason::CompensatedWeight,
    }
}

fn moment_reason(format: MomentFormat) -> Reason {
    match format {
        MomentFormat::F32 => Reason::SmallState,
        MomentFormat::Bf16 => Reason::LowMoment,
        MomentFormat::Int8 => Reason::MomentCodes,
    }
}

/// An update, and how its state is to be kept.
struct Update {
    kept: Kept,
    weight: SlotId,
    moments: Vec<SlotId>,
}

impl Update {
    /// None for other operations, and for an update that has been given its formats.
    fn of(graph: &Graph, node: &Node, new: &Graph, formats: StateFormats) -> Option<Update> {
        let (kept, moments) = match &node.op {
            Op::AdamW(spec) => (spec.kept, 2),
            Op::Sgd(spec) => (spec.kept, 1),
            _ => return None,
        };
        let slot = |v: &ValueId| match graph.node(graph.value(*v).node).op {
            Op::Read { slot } => Some(slot),
            _ => None,
        };
        let slots: Vec<SlotId> = node.inputs[..=moments].iter().map(slot).collect::<Option<_>>()?;
        let (weight, moments) = (slots[0], slots[1..].to_vec());
        let is_large = graph.slot(weight).ty.shape.count() >= StateFormats::SMALL;
        let is_low = new.slot(weight).ty.dtype == DType::Bf16;
        let formats = StateFormats {
            weights: if is_low { formats.weights } else { WeightFormat::F32 },
            moments: if is_large { formats.moments } else { MomentFormat::F32 },
        };
        // Three draws for each update: a number whose last two bits are free.
        let draws = if formats.draws() { draws_number(&graph.slot(weight).name) & !3 } else { 0 };
        kept.formats.is_f32().then_some(Update { kept: Kept { formats, draws }, weight, moments })
    }

    /// Adds the update in its new form, with the slots that only this form has.
    fn add(&self, rewrite: &mut Rewrite<'_>, node: &Node, writes: &mut Vec<Write>) {
        let formats = self.kept.formats;
        let mut slots = vec![self.weight];
        let added = |g: &mut Graph, name: String, ty: ValueType, kind, init, reason| {
            let slot = g.add_slot(&name, ty, kind, init).expect("one update for each weight");
            let read = g.in_phase(Phase::Update, |g| g.read(slot));
            g.because(read, reason);
            slot
        };
        let g = &mut rewrite.new;
        let weight = g.slot(self.weight).clone();
        if formats.weights == WeightFormat::Bf16Kahan {
            let name = format!("{COMPENSATION}{}", weight.name);
            let (kind, reason) = (SlotKind::Compensation, Reason::Compensation);
            slots.push(added(g, name, weight.ty.clone(), kind, weight.init, reason));
        }
        for &moment in &self.moments {
            slots.push(moment);
            if formats.moments == MomentFormat::Int8 {
                let moment = g.slot(moment).clone();
                let ty = formats.moment_types(&moment.ty.shape)[1].clone();
                let name = format!("{}{ABSMAX}", moment.name);
                let (kind, zero) = (SlotKind::Moment, Init::Constant(0.0));
                slots.push(added(g, name, ty, kind, zero, Reason::MomentScale));
            }
        }
        let mut operands: Vec<ValueId> = slots.iter().map(|&slot| g.read(slot)).collect();
        let types = slots.iter().map(|&slot| g.slot(slot).ty.clone()).collect();
        let key = formats.draws().then(|| g.input(KEY, ValueType::i32(Shape::from([4]))));
        let behind: Vec<ValueId> =
            node.inputs[1 + self.moments.len()..].iter().map(|&v| rewrite.get(v)).collect();
        if let Some((&commit, before)) = behind.split_last() {
            operands.extend(before.iter().copied().chain(key).chain([commit]));
        }
        let op = match &node.op {
            Op::AdamW(spec) => Op::AdamW(crate::op::AdamWSpec { kept: self.kept, ..*spec }),
            Op::Sgd(spec) => Op::Sgd(crate::op::SgdSpec { kept: self.kept, ..*spec }),
            other => other.clone(),
        };
        let new = rewrite.new.in_phase(node.phase, |g| g.push_typed(op, &operands, node.name.clone(), types));
        let old = [self.weight].into_iter().chain(self.moments.iter().copied()).zip(&node.outputs);
        let mut old: HashMap<SlotId, ValueId> = old.map(|(slot, &value)| (slot, value)).collect();
        for (&slot, &value) in slots.iter().zip(&new) {
            let read = rewrite.new.read(slot);
            rewrite.new.values[value.0 as usize].reason = rewrite.new.value(read).reason;
            match old.remove(&slot) {
                Some(old) => rewrite.set(old, value),
                None => writes.push(Write { slot, value, when: When::Committed }),
            }
        }
    }
}

/// Begins the name of the slot that holds what rounding a weight left over; the weight's name
/// follows. It begins with what rounding the weight's first values leaves over.
pub const COMPENSATION: &str = "optimiser.compensation.";
/// Ends the name of the slot that holds the largest magnitudes of a moment's blocks.
const ABSMAX: &str = ".absmax";
