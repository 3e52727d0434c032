//! The graph: values in static single assignment, the nodes that make them, and the state they read
//! and write.

use serde::{Deserialize, Serialize};

use crate::dtype::{DType, Shape, Split, ValueType};
use crate::infer::infer;
use crate::op::{Op, SlotId};
use crate::reason::Reason;

/// A value, by position in [`Graph::values`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ValueId(pub u32);

/// A node, by position in [`Graph::nodes`]: a topological order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeId(pub u32);

/// An output, by position in [`Graph::outputs`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OutputId(pub u32);

/// Which part of a step a node belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// From inputs to loss.
    Forward,
    /// From loss to gradients.
    Backward,
    /// From gradients to new state.
    Update,
}

/// One application of an operation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Node {
    /// What it does.
    pub op: Op,
    /// Operands.
    pub inputs: Vec<ValueId>,
    /// Results.
    pub outputs: Vec<ValueId>,
    /// Where in the model it stands, like `blocks.0.attn.qkv`; a derivative has the name of what it
    /// differentiates.
    pub name: String,
    /// Which part of the step it belongs to.
    pub phase: Phase,
    /// For a contraction of f32 operands: the terms of fewer bits that are multiplied in their
    /// place. None: multiplied as they are stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<Split>,
}

/// One value.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Value {
    /// Shape and storage type.
    pub ty: ValueType,
    /// The node that makes it.
    pub node: NodeId,
    /// Which of the node's results it is.
    pub index: usize,
    /// The slot whose gradient, or part of it, this is.
    pub gradient_of: Option<SlotId>,
    /// Why it is stored as it is, once a precision plan said so.
    pub reason: Option<Reason>,
}

/// The first value of a slot. Draws are keyed by seed and slot name, so adding a slot changes no
/// other.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Init {
    /// One value everywhere.
    Constant(f64),
    /// Normal with mean 0.
    Normal {
        /// Standard deviation.
        std: f64,
    },
    /// Uniform between ±`bound`.
    Uniform {
        /// Half the width.
        bound: f64,
    },
}

/// What a slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SlotKind {
    /// A trained parameter.
    Weight {
        /// Whether weight decay applies: matrices yes, biases and norm parameters no.
        decay: bool,
    },
    /// An optimiser's running average.
    Moment,
    /// What rounding has left over of a weight, for its next update.
    Compensation,
    /// A running statistic of the data, as in batch norm.
    Statistic,
    /// The loss scaler's state.
    Scaler,
    /// The scale of a value in eight bits, or the magnitudes it is derived from.
    Scale,
    /// A count of steps.
    Counter,
}

/// A named piece of state that outlives a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slot {
    /// Unique, stable name, like `blocks.0.attn.qkv.weight`.
    pub name: String,
    /// Shape and type.
    pub ty: ValueType,
    /// What it holds.
    pub kind: SlotKind,
    /// Its first value.
    pub init: Init,
}

/// When a staged value is written to its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// Only if the step commits.
    Committed,
    /// Also when the step is skipped: the scaler's own state, and magnitudes seen.
    Always,
}

/// A value staged for a slot, written at the end of the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// Where to.
    pub slot: SlotId,
    /// What.
    pub value: ValueId,
    /// When.
    pub when: When,
}

/// What is wrong with an operation someone tried to add.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum GraphError {
    /// Operands do not fit the operation.
    #[error("`{op}` in `{at}`: {problem}")]
    Operands {
        /// The operation's name.
        op: String,
        /// The scope it was added in.
        at: String,
        /// What was expected and what was found.
        problem: String,
    },
    /// A slot name was used for two different slots.
    #[error("slot `{name}` is {first} already; it cannot also be {second}")]
    Slot {
        /// The name.
        name: String,
        /// The type it has.
        first: ValueType,
        /// The type it was asked for.
        second: ValueType,
    },
    /// A value cannot be differentiated.
    #[error("cannot differentiate: {0}")]
    Derivative(String),
}

/// A program before planning: nodes in topological order over explicit state.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Graph {
    /// All nodes; each uses only values of earlier ones.
    pub nodes: Vec<Node>,
    /// All values.
    pub values: Vec<Value>,
    /// The state this program uses.
    pub slots: Vec<Slot>,
    /// Values the caller can read after a step.
    pub outputs: Vec<(String, ValueId)>,
    /// State changes, staged and written at the end of a step.
    pub writes: Vec<Write>,
    /// The scalar that decides whether [`When::Committed`] writes happen: not zero. Absent means
    /// they always do.
    pub commit: Option<ValueId>,
    #[serde(skip)]
    scope: Vec<String>,
    #[serde(skip)]
    phase: Option<Phase>,
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Graph {
        Graph::default()
    }

    /// The value with this id.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.0 as usize]
    }

    /// The node with this id.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    /// The slot with this id.
    pub fn slot(&self, id: SlotId) -> &Slot {
        &self.slots[id.0 as usize]
    }

    /// The slot with this name.
    pub fn slot_named(&self, name: &str) -> Option<SlotId> {
        self.slots.iter().position(|s| s.name == name).map(|i| SlotId(i as u32))
    }

    /// Shape of a value.
    pub fn shape(&self, id: ValueId) -> &Shape {
        &self.value(id).ty.shape
    }

    /// Storage type of a value.
    pub fn dtype(&self, id: ValueId) -> DType {
        self.value(id).ty.dtype
    }

    /// The value whose memory `v` names: a reshape has none of its own.
    pub fn home(&self, v: ValueId) -> ValueId {
        let node = self.node(self.value(v).node);
        if let Op::Reshape { .. } = node.op { self.home(node.inputs[0]) } else { v }
    }

    /// The number that `v` holds in every place, if it is a constant or another shape of one.
    pub fn constant(&self, v: ValueId) -> Option<f64> {
        match self.node(self.value(self.home(v)).node).op {
            Op::Const { value, .. } => Some(value),
            _ => None,
        }
    }

    /// The inputs, in the order of their nodes.
    pub fn inputs(&self) -> impl Iterator<Item = (&str, ValueId)> {
        self.nodes.iter().filter_map(|node| match &node.op {
            Op::Input { name } => Some((name.as_str(), node.outputs[0])),
            _ => None,
        })
    }

    /// The output with this name.
    pub fn output(&self, name: &str) -> Option<ValueId> {
        self.outputs.iter().find(|(n, _)| n == name).map(|&(_, v)| v)
    }

    /// Runs `build` with `name` added to the path given to new nodes and slots.
    pub fn scoped<T>(&mut self, name: &str, build: impl FnOnce(&mut Graph) -> T) -> T {
        self.scope.push(name.to_string());
        let result = build(self);
        self.scope.pop();
        result
    }

    /// Runs `build` with new nodes marked as part of `phase`.
    pub fn in_phase<T>(&mut self, phase: Phase, build: impl FnOnce(&mut Graph) -> T) -> T {
        let before = self.phase.replace(phase);
        let result = build(self);
        self.phase = before;
        result
    }

    /// The current path, with `name` at its end if it is not empty.
    pub fn path(&self, name: &str) -> String {
        let mut parts: Vec<&str> = self.scope.iter().map(String::as_str).collect();
        if !name.is_empty() {
            parts.push(name);
        }
        parts.join(".")
    }

    /// Adds an operation under the current path and returns its results.
    ///
    /// # Errors
    /// Operands that do not fit the operation's shape rule.
    pub fn push(&mut self, op: Op, inputs: &[ValueId]) -> Result<Vec<ValueId>, GraphError> {
        let name = self.path("");
        self.push_named(op, inputs, name)
    }

    /// Like [`Graph::push`] with the node's whole name given.
    ///
    /// # Errors
    /// Those of [`Graph::push`].
    pub fn push_named(
        &mut self,
        op: Op,
        inputs: &[ValueId],
        name: String,
    ) -> Result<Vec<ValueId>, GraphError> {
        let types: Vec<&ValueType> = inputs.iter().map(|&v| &self.value(v).ty).collect();
        let results = match &op {
            Op::Read { slot } => vec![self.slot(*slot).ty.clone()],
            _ => infer(&op, &types).map_err(|problem| GraphError::Operands {
                op: op.name(),
                at: name.clone(),
                problem,
            })?,
        };
        Ok(self.push_typed(op, inputs, name, results))
    }

    /// Adds an operation whose result types are known: for passes that choose storage.
    pub(crate) fn push_typed(
        &mut self,
        op: Op,
        inputs: &[ValueId],
        name: String,
        results: Vec<ValueType>,
    ) -> Vec<ValueId> {
        let node = NodeId(self.nodes.len() as u32);
        let first = self.values.len() as u32;
        let outputs: Vec<ValueId> = (0..results.len() as u32).map(|i| ValueId(first + i)).collect();
        for (index, ty) in results.into_iter().enumerate() {
            self.values.push(Value { ty, node, index, gradient_of: None, reason: None });
        }
        let phase = self.phase.unwrap_or(Phase::Forward);
        self.nodes.push(Node {
            op,
            inputs: inputs.to_vec(),
            outputs: outputs.clone(),
            name,
            phase,
            split: None,
        });
        outputs
    }

    /// Notes why a value is stored as it is, and returns it.
    pub(crate) fn because(&mut self, value: ValueId, reason: Reason) -> ValueId {
        self.values[value.0 as usize].reason = Some(reason);
        value
    }

    /// The slot called `name` under the current path, added if new.
    ///
    /// # Errors
    /// A slot of that name exists with another type.
    pub fn add_slot(
        &mut self,
        name: &str,
        ty: ValueType,
        kind: SlotKind,
        init: Init,
    ) -> Result<SlotId, GraphError> {
        let name = self.path(name);
        if let Some(id) = self.slot_named(&name) {
            let first = self.slot(id).ty.clone();
            if first != ty {
                return Err(GraphError::Slot { name, first, second: ty });
            }
            return Ok(id);
        }
        self.slots.push(Slot { name, ty, kind, init });
        Ok(SlotId(self.slots.len() as u32 - 1))
    }

    /// The value of a slot at the start of the step; the same value however often it is asked for.
    pub fn read(&mut self, slot: SlotId) -> ValueId {
        let found = self.nodes.iter().find(|n| n.op == Op::Read { slot });
        if let Some(node) = found {
            return node.outputs[0];
        }
        let name = self.slot(slot).name.clone();
        let ty = self.slot(slot).ty.clone();
        self.push_typed(Op::Read { slot }, &[], name, vec![ty])[0]
    }

    /// Makes a value readable by the caller under `name`.
    pub fn add_output(&mut self, name: &str, value: ValueId) {
        self.outputs.push((name.to_string(), value));
    }

    /// Stages `value` for `slot`.
    pub fn write(&mut self, slot: SlotId, value: ValueId, when: When) {
        self.writes.push(Write { slot, value, when });
    }

    /// The slots that hold trained parameters.
    pub fn weights(&self) -> impl Iterator<Item = SlotId> + '_ {
        let is_weight = |s: &Slot| matches!(s.kind, SlotKind::Weight { .. });
        (0..self.slots.len() as u32).map(SlotId).filter(move |&id| is_weight(self.slot(id)))
    }

    /// For each value, the nodes that use it, in order.
    pub fn users(&self) -> Vec<Vec<NodeId>> {
        let mut users = vec![Vec::new(); self.values.len()];
        for (i, node) in self.nodes.iter().enumerate() {
            for input in &node.inputs {
                users[input.0 as usize].push(NodeId(i as u32));
            }
        }
        users
    }

    /// Values that must live to the end: outputs, staged writes and the commit predicate.
    pub fn live_out(&self) -> impl Iterator<Item = ValueId> + '_ {
        let outputs = self.outputs.iter().map(|&(_, v)| v);
        outputs.chain(self.writes.iter().map(|w| w.value)).chain(self.commit)
    }

    /// The same program without nodes whose results nobody needs. Inputs are kept: the caller
    /// provides them.
    pub fn without_dead_nodes(&self) -> Graph {
        let mut live = vec![false; self.values.len()];
        for root in self.live_out() {
            live[root.0 as usize] = true;
        }
        let mut keep = vec![false; self.nodes.len()];
        for (i, node) in self.nodes.iter().enumerate().rev() {
            keep[i] = matches!(node.op, Op::Input { .. }) || node.outputs.iter().any(|o| live[o.0 as usize]);
            if keep[i] {
                node.inputs.iter().for_each(|v| live[v.0 as usize] = true);
            }
        }
        let mut rewrite = Rewrite::new(self);
        for (i, node) in self.nodes.iter().enumerate() {
            if keep[i] {
                rewrite.copy(node);
            }
        }
        rewrite.finish()
    }
}

/// A new graph made from an old one, node by node: the frame of every `Graph -> Graph` pass.
pub(crate) struct Rewrite<'a> {
    old: &'a Graph,
    /// The graph being made.
    pub new: Graph,
    map: Vec<Option<ValueId>>,
}

impl<'a> Rewrite<'a> {
    pub fn new(old: &'a Graph) -> Rewrite<'a> {
        let new = Graph { slots: old.slots.clone(), ..Graph::default() };
        Rewrite { old, new, map: vec![None; old.values.len()] }
    }

    /// Where an old value is found in the new graph. Its node must have been rewritten.
    pub fn get(&self, old: ValueId) -> ValueId {
        self.map[old.0 as usize].expect("nodes are rewritten in topological order")
    }

    pub fn set(&mut self, old: ValueId, new: ValueId) {
        let gradient_of = self.old.value(old).gradient_of;
        if gradient_of.is_some() {
            self.new.values[new.0 as usize].gradient_of = gradient_of;
        }
        self.map[old.0 as usize] = Some(new);
    }

    /// A value of the old graph.
    pub fn old_value(&self, old: ValueId) -> &Value {
        self.old.value(old)
    }

    /// Adds the old node unchanged.
    pub fn copy(&mut self, node: &Node) {
        let inputs: Vec<ValueId> = node.inputs.iter().map(|&v| self.get(v)).collect();
        self.with_inputs(node, &inputs);
    }

    /// Adds a node in the place of an old one, with the same results in other types or another
    /// operation.
    pub fn replace(&mut self, node: &Node, op: Op, inputs: &[ValueId], types: Vec<ValueType>) {
        let outputs = self.push(node, op, inputs, types);
        node.outputs.iter().zip(outputs).for_each(|(&old, new)| self.set(old, new));
    }

    /// As [`Rewrite::replace`] with the operation and the types of `node`.
    pub fn with_inputs(&mut self, node: &Node, inputs: &[ValueId]) {
        self.replace(node, node.op.clone(), inputs, self.types(node));
    }

    /// Adds `op` in the phase of `node` and with its name, split and reasons; the old values stay.
    pub fn push(&mut self, node: &Node, op: Op, inputs: &[ValueId], types: Vec<ValueType>) -> Vec<ValueId> {
        let outputs = self.new.in_phase(node.phase, |g| g.push_typed(op, inputs, node.name.clone(), types));
        if let Some(added) = self.new.nodes.last_mut() {
            added.split = node.split;
        }
        for (&old, &new) in node.outputs.iter().zip(&outputs) {
            self.new.values[new.0 as usize].reason = self.old.value(old).reason;
        }
        outputs
    }

    /// The types of the results of an old node.
    pub fn types(&self, node: &Node) -> Vec<ValueType> {
        node.outputs.iter().map(|&o| self.old.value(o).ty.clone()).collect()
    }

    pub fn finish(mut self) -> Graph {
        self.new.outputs = self.old.outputs.iter().map(|(name, v)| (name.clone(), self.get(*v))).collect();
        self.new.writes = self.old.writes.iter().map(|w| Write { value: self.get(w.value), ..*w }).collect();
        self.new.commit = self.old.commit.map(|v| self.get(v));
        self.new
    }
}
