//! A training step up to its gradients with every value readable, over a copy of the weights.
//!
//! The program is the real one: assigned and fused first, so that each value has the bits it has in
//! training; only then is every value made an output, and the update left out.

use halfstep_graph::engine::{HostSlice, HostTensor, Program, State};
use halfstep_graph::precision::{Policy, Reason, assign};
use halfstep_graph::{DType, Graph, Node, Op, Phase, SlotId, ValueId, fuse, plan};
use halfstep_nn::KEY_INPUT;

use super::first::FirstWeights;
use crate::scaler::{LossScale, StaticScale};
use crate::session::{Session, TrainError, key};
use crate::step::{StepSpec, step_graphs};
use crate::step_options::StepOptions;

/// A batch, and the attempt whose random draws are repeated.
#[derive(Clone, Copy, Debug)]
pub struct Replayed<'b> {
    /// Samples of the whole batch.
    pub x: HostSlice<'b>,
    /// Targets of the whole batch.
    pub y: &'b [i32],
    /// Steps tried before it.
    pub attempt: u64,
}

/// With which weights a step is repeated.
#[derive(Clone, Copy)]
pub enum Weights<'w> {
    /// Those the session has.
    Present,
    /// Those the run began with.
    First(&'w FirstWeights),
}

/// A compiled step whose every value can be read.
pub struct Observed {
    program: Box<dyn Program>,
    state: State,
    /// The program's graph, in execution order.
    pub graph: Graph,
    /// What can be read, in execution order.
    pub values: Vec<ValueId>,
}

impl Observed {
    /// The step of `session`, or of a part of its batch, as it is at this loss scale.
    ///
    /// # Errors
    /// The engine has no memory for it.
    pub fn compile(session: &Session<'_>, scale: f64) -> Result<Observed, TrainError> {
        Observed::compile_with(session, scale, session.policy())
    }

    /// The same step under another policy of the same low format.
    pub(super) fn compile_with(
        session: &Session<'_>,
        scale: f64,
        policy: &Policy,
    ) -> Result<Observed, TrainError> {
        Observed::of(step_graph(session, scale)?, session, policy)
    }

    /// The step in f32 throughout, also where the model itself asks for another format.
    ///
    /// # Errors
    /// The engine has no memory for it.
    pub fn reference(session: &Session<'_>, scale: f64) -> Result<Observed, TrainError> {
        let mut graph = step_graph(session, scale)?;
        for node in &mut graph.nodes {
            if let Op::Cast { to } = &mut node.op
                && to.is_float()
            {
                *to = DType::F32;
                graph.values[node.outputs[0].0 as usize].ty.dtype = DType::F32;
            }
        }
        Observed::of(graph, session, &Policy::fp32())
    }

    fn of(graph: Graph, session: &Session<'_>, policy: &Policy) -> Result<Observed, TrainError> {
        let mut graph = fuse(&assign(&graph, policy).0);
        let loss = graph.output("loss");
        (graph.writes, graph.commit, graph.outputs) = (Vec::new(), None, Vec::new());
        for i in 0..graph.values.len() as u32 {
            let (value, node) = (graph.value(ValueId(i)), graph.node(graph.value(ValueId(i)).node));
            // Sources are known; a reshape or permutation holds what its operand does.
            let is_new = !matches!(
                node.op,
                Op::Input { .. }
                    | Op::Read { .. }
                    | Op::Const { .. }
                    | Op::Reshape { .. }
                    | Op::Permute { .. }
            );
            if value.ty.dtype.is_float() && node.phase != Phase::Update && is_new {
                graph.add_output(&format!("%{i}"), ValueId(i));
            }
        }
        if let Some(loss) = loss {
            graph.add_output("loss", loss);
        }
        let mut graph = graph.without_dead_nodes();
        keep_slots_read(&mut graph);
        let values =
            graph.outputs.iter().filter(|(name, _)| name.starts_with('%')).map(|&(_, v)| v).collect();
        // Outputs are found by name: those of the graph that is run.
        for (name, v) in &mut graph.outputs {
            if name.starts_with('%') {
                *name = format!("%{}", v.0);
            }
        }
        let engine = session.engine();
        let state = engine.new_state(&graph.slots)?;
        let program = engine.compile(&plan(graph.clone(), engine.target()), &state)?;
        Ok(Observed { program, state, graph, values })
    }

    /// Repeats one part of a batch: the whole of it where it is not worked through in parts.
    ///
    /// # Errors
    /// A batch of another size; an index out of range.
    pub fn run(
        &mut self,
        session: &Session<'_>,
        weights: &Weights<'_>,
        batch: &Replayed<'_>,
        part: usize,
    ) -> Result<(), TrainError> {
        for slot in self.graph.slots.clone() {
            let values = match weights {
                Weights::Present => session.download_before(&slot.name, batch.attempt)?,
                Weights::First(first) => HostTensor::F32(first.values(&slot)),
            };
            self.state.upload(&slot.name, values.as_slice())?;
        }
        let (x, y) = session.part((batch.x, batch.y), part)?;
        let mut key = key(session.spec().seed, batch.attempt);
        key[3] = key[3].wrapping_add((part * session.part_samples()) as i32);
        let inputs = [
            ("x", x),
            ("y", HostSlice::I32(y)),
            (KEY_INPUT, HostSlice::I32(&key)),
            // Read by the update alone, which is left out.
            ("lr", HostSlice::F32(&[0.0])),
        ];
        Ok(self.program.run(&mut self.state, &inputs)?)
    }

    /// What a value was in the last run.
    ///
    /// # Errors
    /// It is none of [`Observed::values`].
    pub fn read(&self, value: ValueId) -> Result<Vec<f32>, TrainError> {
        match self.program.read(&format!("%{}", value.0))? {
            HostTensor::F32(values) => Ok(values),
            HostTensor::I32(_) => Ok(Vec::new()),
        }
    }

    /// The loss of the last run.
    ///
    /// # Errors
    /// None of a step's program.
    pub fn loss(&self) -> Result<f32, TrainError> {
        Ok(self.program.read("loss")?.f32()[0])
    }

    /// The node that makes a value.
    pub fn node(&self, value: ValueId) -> &Node {
        self.graph.node(self.graph.value(value).node)
    }

    /// The value that this one holds in another format or order: before all casts, reshapes and
    /// permutations.
    pub fn origin(&self, mut value: ValueId) -> ValueId {
        loop {
            let node = self.node(value);
            let moves = match node.op {
                Op::Cast { to } => to.is_float() && self.graph.dtype(node.inputs[0]).is_float(),
                Op::Reshape { .. } | Op::Permute { .. } => true,
                _ => false,
            };
            if !moves {
                return value;
            }
            value = node.inputs[0];
        }
    }

    /// The product that stands behind this value, where it is the sum of a product of codes with
    /// their scales divided out; else the value.
    pub fn product(&self, value: ValueId) -> ValueId {
        let inputs = &self.node(value).inputs;
        let is_sum = |v: &&ValueId| self.graph.value(**v).reason == Some(Reason::SumOfCodes);
        inputs.first().filter(is_sum).copied().unwrap_or(value)
    }

    /// Those of [`Observed::values`] that grow with the loss scale: what a constant or the loss's
    /// derivative begins in the backward pass, and what is made of it. Copies of activations are
    /// not among them.
    pub fn gradients(&self) -> Vec<ValueId> {
        let mut grows = vec![false; self.graph.values.len()];
        for node in self.graph.nodes.iter().filter(|n| n.phase == Phase::Backward && !n.inputs.is_empty()) {
            let is_const = |v: &ValueId| matches!(self.node(*v).op, Op::Const { .. });
            let scaled = matches!(node.op, Op::CrossEntropyGrad)
                || node.inputs.iter().all(is_const)
                || node.inputs.iter().any(|v| grows[v.0 as usize]);
            node.outputs.iter().for_each(|o| grows[o.0 as usize] = scaled);
        }
        self.values.iter().copied().filter(|v| grows[v.0 as usize]).collect()
    }

    /// For each value of this program, that of `other` which stands for the same numbers in another
    /// precision, be it in another order. A cast stands for what it rounds.
    pub fn counterparts(&self, other: &Observed) -> Vec<Option<ValueId>> {
        let theirs = other.identities();
        let mine = self.identities();
        let of = |i: u32| {
            let identity = &mine[self.origin(ValueId(i)).0 as usize];
            theirs.iter().position(|t| t == identity).map(|at| ValueId(at as u32))
        };
        (0..self.graph.values.len() as u32).map(of).collect()
    }

    /// Where each value stands in the model, however precision changed the graph around it.
    fn identities(&self) -> Vec<(String, String, Phase, usize, usize)> {
        let mut seen = std::collections::HashMap::new();
        let identity = |value: &halfstep_graph::Value| {
            let node = self.graph.node(value.node);
            let key = (node.name.clone(), node.op.name(), node.phase, value.index);
            let nth = seen.entry(key.clone()).and_modify(|n| *n += 1).or_insert(0usize);
            (key.0, key.1, key.2, key.3, *nth)
        };
        self.graph.values.iter().map(identity).collect()
    }
}

fn step_graph(session: &Session<'_>, scale: f64) -> Result<Graph, TrainError> {
    let spec = session.spec();
    let scaling = LossScale::Static(StaticScale { scale });
    let step = StepSpec {
        model: session.model(),
        input: session.input(),
        batch: session.part_samples(),
        optimiser: &spec.optimiser,
        scaling: if scale == 1.0 { &LossScale::Off } else { &scaling },
        clip: None,
        expose_gradients: true,
    };
    // Groups decide what has a gradient.
    let options = StepOptions { groups: spec.options.groups.clone(), ..StepOptions::default() };
    // What one rank computes of its own samples: nothing is summed over ranks.
    Ok(step_graphs(&step, &options, 1)?.train)
}

/// Drops the slots that no node reads.
fn keep_slots_read(graph: &mut Graph) {
    let mut new: Vec<Option<SlotId>> = vec![None; graph.slots.len()];
    let mut slots = Vec::new();
    for node in &mut graph.nodes {
        if let Op::Read { slot } = &mut node.op {
            let old = slot.0 as usize;
            slots.push(graph.slots[old].clone());
            new[old] = Some(SlotId(slots.len() as u32 - 1));
            *slot = SlotId(slots.len() as u32 - 1);
        }
    }
    for value in &mut graph.values {
        value.gradient_of = value.gradient_of.and_then(|slot| new[slot.0 as usize]);
    }
    graph.slots = slots;
}
