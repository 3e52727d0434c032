//! The pass that assigns precision.
//!
//! Contractions read copies rounded to the low format. A copy is made once per value, however many
//! contractions read it; where every reader of a value takes the low format, no f32 copy is stored
//! at all.

use std::collections::HashMap;

use super::class::{Class, class};
use super::plan::PrecisionPlan;
use super::policy::{Policy, Rule};
use super::quantise::{Quantiser, is_state};
use super::state::keep_state;
use crate::dtype::{DType, Shape, Split, ValueType};
use crate::graph::{Graph, Node, Phase, Rewrite, ValueId};
use crate::op::{BatchNormPart, Op};
use crate::reason::Reason;

/// The same program with storage types assigned and casts inserted, and the plan that says what was
/// done and why.
pub fn assign(graph: &Graph, policy: &Policy) -> (Graph, PrecisionPlan) {
    let graph = &keep_state(graph, policy);
    let quantiser = policy.narrow.map(|narrow| Quantiser::new(narrow, graph));
    let mut pass = Assign { policy, rewrite: Rewrite::new(graph), casts: HashMap::new(), quantiser };
    for node in &graph.nodes {
        pass.visit(graph, node);
    }
    let mut assigned = pass.rewrite.finish();
    if let Some(quantiser) = pass.quantiser {
        quantiser.update_scales(&mut assigned);
    }
    // A reshape whose copy took its place would count as a reader of the wide value.
    let assigned = round_where_made(&assigned.without_dead_nodes());
    let plan = PrecisionPlan::of(&assigned, policy);
    (assigned, plan)
}

struct Assign<'a> {
    policy: &'a Policy,
    rewrite: Rewrite<'a>,
    casts: Casts,
    /// Under a policy below 16 bits.
    quantiser: Option<Quantiser>,
}

impl Assign<'_> {
    fn visit(&mut self, old: &Graph, node: &Node) {
        let inputs: Vec<ValueId> = node.inputs.iter().map(|&v| self.rewrite.get(v)).collect();
        let exception = self.policy.exception(&node.name).filter(|_| node.phase != Phase::Update);
        let rule = match (exception, class(&node.op)) {
            (Some(rule), Class::Contraction | Class::Full | Class::Normalise | Class::Follow) => rule,
            (None, Class::Contraction) if self.policy.low.is_some() || self.policy.split.is_some() => {
                Rule::Low
            }
            (None, Class::Contraction | Class::Full) => Rule::F32,
            (None, Class::Normalise | Class::Follow) => Rule::Follow,
            (_, Class::Source) => return self.source(old, node, &inputs),
        };
        if node.op.is_movement() && is_low_weight(&self.rewrite.new, inputs[0]) {
            return self.move_weight(node, &inputs);
        }
        let rule = if node.phase == Phase::Update { Rule::F32 } else { rule };
        let contraction = class(&node.op) == Class::Contraction;
        let storage = match (rule, self.policy.low) {
            (Rule::Low, Some(low)) => low,
            (Rule::Bf16, _) => DType::Bf16,
            (Rule::Low | Rule::F32, _) => DType::F32,
            (Rule::Follow, _) => self.widest(node, old, &inputs),
        };
        let stays = match &self.quantiser {
            Some(quantiser) if contraction && rule == Rule::Low => quantiser.stays(node, exception),
            _ => None,
        };
        if let (Some(quantiser), true, None) = (&mut self.quantiser, contraction && rule == Rule::Low, stays)
        {
            let mut operands = inputs.clone();
            for v in &mut operands[..2] {
                // Weights are quantised straight from their master copy: once rounded, not twice.
                let is_state = is_state(&self.rewrite.new, *v);
                *v = if is_state { *v } else { cast(&mut self.rewrite, &mut self.casts, *v, storage, node) };
            }
            return quantiser.contraction(&mut self.rewrite, node, &inputs, &operands, storage);
        }
        let attention = matches!(node.op, Op::Attention(_) | Op::AttentionGrad(_));
        let split = self
            .policy
            .split
            .filter(|&split| contraction && rule == Rule::Low && !(attention && split == Split::Tf32));
        let inputs = if contraction {
            // A bias is added to the f32 accumulator.
            let operands = if attention { inputs.len() } else { 2 };
            let read = |(i, &v): (usize, &ValueId)| {
                let reads = i < operands && !is_log_sum_exp(node, i);
                if reads { cast(&mut self.rewrite, &mut self.casts, v, storage, node) } else { v }
            };
            inputs.iter().enumerate().map(read).collect()
        } else if node.op.is_movement() {
            let (rewrite, casts) = (&mut self.rewrite, &mut self.casts);
            inputs.iter().map(|&v| cast(rewrite, casts, v, storage, node)).collect()
        } else {
            inputs
        };
        let mut types = Vec::new();
        let mut reasons = Vec::new();
        for (i, &output) in node.outputs.iter().enumerate() {
            let value = old.value(output);
            let (dtype, reason) = if matches!(node.op, Op::AdamW(_) | Op::Sgd(_)) {
                (value.ty.dtype, value.reason.unwrap_or(Reason::Update))
            } else if !value.ty.dtype.is_float() {
                (value.ty.dtype, Reason::Integer)
            } else if node.phase == Phase::Update {
                (DType::F32, Reason::Update)
            } else if is_statistic(node, i) {
                let all_f32 = self.policy.low.is_none() && self.policy.split.is_none();
                let reason = if all_f32 { Reason::PolicyIsF32 } else { Reason::StaysF32 };
                (DType::F32, reason)
            } else if contraction && storage != DType::F32 && value.gradient_of.is_some() {
                (DType::F32, Reason::WeightGradient)
            } else if exception.is_some() {
                (storage, Reason::Override)
            } else if let Some(split) = split {
                let reason = match split {
                    Split::Tf32 => Reason::Tf32,
                    Split::Bf16x3 => Reason::SplitInTwo,
                    Split::Bf16x6 => Reason::SplitInThree,
                };
                (DType::F32, reason)
            } else if contraction && storage != DType::F32 {
                (storage, stays.unwrap_or(Reason::Contraction))
            } else if attention && self.policy.split == Some(Split::Tf32) {
                (DType::F32, Reason::AttentionStaysF32)
            } else if self.policy.low.is_none() {
                (DType::F32, Reason::PolicyIsF32)
            } else if rule == Rule::Follow && value.gradient_of.is_none() {
                (storage, Reason::Follows)
            } else {
                (DType::F32, Reason::StaysF32)
            };
            types.push(ValueType { shape: value.ty.shape.clone(), dtype });
            reasons.push(reason);
        }
        self.push(&Node { split, ..node.clone() }, &inputs, types, &reasons);
    }

    /// Moves elements of a bf16 weight. Another shape of all of it is still the weight; a part
    /// becomes f32, so that what follows, such as the activations behind an embedding, is stored as
    /// it is behind an f32 weight.
    fn move_weight(&mut self, node: &Node, inputs: &[ValueId]) {
        let shape = |v| self.rewrite.old_value(v).ty.shape.clone();
        let types = node.outputs.iter().map(|&v| ValueType { shape: shape(v), dtype: DType::Bf16 }).collect();
        self.push(node, inputs, types, &[Reason::Follows]);
        if !matches!(node.op, Op::Reshape { .. } | Op::Permute { .. }) {
            let part = self.rewrite.get(node.outputs[0]);
            let wide = cast(&mut self.rewrite, &mut self.casts, part, DType::F32, node);
            self.rewrite.set(node.outputs[0], wide);
        }
    }

    fn source(&mut self, old: &Graph, node: &Node, inputs: &[ValueId]) {
        let types: Vec<ValueType> = node.outputs.iter().map(|&o| old.value(o).ty.clone()).collect();
        let reason = match (&node.op, old.value(node.outputs[0]).reason) {
            (Op::Read { .. }, Some(kept)) => kept,
            _ if !types[0].dtype.is_float() => Reason::Integer,
            (Op::Read { .. }, None) => Reason::State,
            (Op::Cast { .. }, _) => Reason::Explicit,
            (Op::AllReduceStart { .. } | Op::AllReduceWait { .. }, _) => Reason::Collective,
            _ => Reason::Given,
        };
        self.push(node, inputs, types, &vec![reason; node.outputs.len()]);
    }

    fn push(&mut self, node: &Node, inputs: &[ValueId], types: Vec<ValueType>, reasons: &[Reason]) {
        self.rewrite.replace(node, node.op.clone(), inputs, types);
        for (&output, &reason) in node.outputs.iter().zip(reasons) {
            let new = self.rewrite.get(output);
            self.rewrite.new.values[new.0 as usize].reason = Some(reason);
        }
    }

    /// The widest type of the operands that have as many elements and dimensions as the result: a
    /// vector added to every row does not widen the rows, and neither does it where there is one
    /// row.
    fn widest(&self, node: &Node, old: &Graph, inputs: &[ValueId]) -> DType {
        let new = &self.rewrite.new;
        let result = old.shape(node.outputs[0]);
        let floats = || inputs.iter().filter(|&&v| new.dtype(v).is_float());
        let dtype = |v: ValueId| if is_low_weight(new, v) { DType::F32 } else { new.dtype(v) };
        let is_const = |v: &&ValueId| matches!(new.node(new.value(**v).node).op, Op::Const { .. });
        let is_whole = |shape: &Shape| {
            shape.count() == result.count() && shape.len() == result.len() && !shape.is_empty()
        };
        let whole = || floats().filter(|&&v| is_whole(new.shape(v)));
        let widest = |dtypes: &mut dyn Iterator<Item = DType>| dtypes.reduce(DType::widest);
        widest(&mut whole().filter(|v| !is_const(v)).map(|&v| dtype(v)))
            .or_else(|| widest(&mut floats().filter(|v| !is_const(v)).map(|&v| dtype(v))))
            .unwrap_or(DType::F32)
    }
}

/// Whether `v` is a weight that is kept in bf16.
fn is_low_weight(graph: &Graph, v: ValueId) -> bool {
    graph.dtype(v) == DType::Bf16 && is_state(graph, v)
}

/// Copies by what they are copies of and their type.
type Casts = HashMap<(ValueId, DType), ValueId>;

/// `v` in type `to`, through a copy made once. A copy of a reshaped or permuted value is a reshaped
/// or permuted copy, so that the rounding can move to where the value is made.
fn cast(rewrite: &mut Rewrite<'_>, casts: &mut Casts, v: ValueId, to: DType, for_node: &Node) -> ValueId {
    let from = rewrite.new.dtype(v);
    if from == to || !from.is_float() {
        return v;
    }
    if let Some(&copy) = casts.get(&(v, to)) {
        return copy;
    }
    let made_by = rewrite.new.node(rewrite.new.value(v).node).clone();
    let (op, operand) = match &made_by.op {
        Op::Reshape { .. } | Op::Permute { .. } => {
            let below = cast(rewrite, casts, made_by.inputs[0], to, for_node);
            (made_by.op.clone(), below)
        }
        _ => (Op::Cast { to }, v),
    };
    let is_read = matches!(made_by.op, Op::Read { .. });
    let phase = made_by.phase.max(if is_read { Phase::Forward } else { for_node.phase });
    let ty = ValueType { shape: rewrite.new.shape(v).clone(), dtype: to };
    let new = &mut rewrite.new;
    let copy = new.in_phase(phase, |g| g.push_typed(op, &[operand], made_by.name.clone(), vec![ty]))[0];
    let reason = if to == DType::F32 { Reason::CastForF32 } else { Reason::CastForContraction };
    rewrite.new.values[copy.0 as usize].reason = Some(reason);
    casts.insert((v, to), copy);
    copy
}

/// Whether result `i` is a statistic, a loss or a sum over rows: kept in f32 whatever an override
/// says.
fn is_statistic(node: &Node, i: usize) -> bool {
    match node.op {
        Op::CrossEntropy => true,
        Op::BatchNormPart(BatchNormPart::Mean | BatchNormPart::Variance | BatchNormPart::Sums) => true,
        Op::BatchNormPart(BatchNormPart::Apply { .. } | BatchNormPart::Dx { .. }) => i > 0,
        Op::Attention(_) | Op::LayerNorm { .. } | Op::LayerNormGrad => i > 0,
        _ => false,
    }
}

/// Whether operand `i` of an attention derivative is the saved log-sum-exp, which stays in f32.
fn is_log_sum_exp(node: &Node, i: usize) -> bool {
    matches!(node.op, Op::AttentionGrad(_)) && i == node.inputs.len() - 2
}

/// Where every reader of an f32 value is a cast to one type, stores it in that type and drops the
/// casts.
fn round_where_made(graph: &Graph) -> Graph {
    let users = graph.users();
    let mut is_live_out = vec![false; graph.values.len()];
    graph.live_out().for_each(|v| is_live_out[v.0 as usize] = true);
    let target = |v: ValueId| -> Option<DType> {
        let node = graph.node(graph.value(v).node);
        if is_live_out[v.0 as usize]
            || graph.dtype(v) != DType::F32
            || class(&node.op) == Class::Source
            || node.phase == Phase::Update
            || graph.value(v).reason == Some(Reason::Override)
            || graph.value(v).gradient_of.is_some()
            || node.op.is_movement()
            // Statistics are f32 by definition.
            || node.outputs.iter().position(|&o| o == v).is_some_and(|i| is_statistic(node, i))
        {
            return None;
        }
        let mut types = users[v.0 as usize].iter().map(|&n| match graph.node(n).op {
            Op::Cast { to } => Some(to),
            _ => None,
        });
        let first = types.next()??;
        types.all(|t| t == Some(first)).then_some(first)
    };
    let mut rewrite = Rewrite::new(graph);
    for node in &graph.nodes {
        if let Op::Cast { to } = node.op
            && rewrite.new.dtype(rewrite.get(node.inputs[0])) == to
            && graph.dtype(node.inputs[0]) != to
        {
            let stored = rewrite.get(node.inputs[0]);
            rewrite.set(node.outputs[0], stored);
            continue;
        }
        let targets: Vec<Option<DType>> = node.outputs.iter().map(|&o| target(o)).collect();
        let types = node
            .outputs
            .iter()
            .zip(&targets)
            .map(|(&o, t)| ValueType { shape: graph.shape(o).clone(), dtype: t.unwrap_or(graph.dtype(o)) });
        let inputs: Vec<ValueId> = node.inputs.iter().map(|&v| rewrite.get(v)).collect();
        rewrite.replace(node, node.op.clone(), &inputs, types.collect());
        for (&output, target) in node.outputs.iter().zip(&targets) {
            if target.is_some() {
                let new = rewrite.get(output);
                rewrite.new.values[new.0 as usize].reason = Some(Reason::ReadersTakeLow);
            }
        }
    }
    rewrite.finish()
}
