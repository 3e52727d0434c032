//! Groups: the elementwise members of a group as one tile program, which runs by itself or continues the anchor.

use std::collections::HashMap;

use halfstep_graph::engine::EngineError;
use halfstep_graph::{BatchNormPart, Blocks, DType, Graph, Group, NodeId, Op, Quantise, ValueId};

use super::{At, Lowering, Step, constant};
use crate::machine::Run;
use crate::memory::{Frame, Span, View, ViewMut, Where};
use crate::rows::elementwise::{
    BLOCK, Chain, Key, MAX_INPUTS, MAX_OUTPUTS, Operand, Output, Pattern, TileOp, TileProgram, Value,
};
use crate::rows::quantise::Codes;
use crate::rows::storage::{Src, Storage};

/// Whether a processor can run `group` as one step.
pub(crate) fn fuses(graph: &Graph, group: &Group) -> bool {
    let continues = |n: NodeId| match graph.node(n).op {
        Op::MatMul { .. } | Op::Conv2d(_) | Op::Conv2dGradInput { .. } => true,
        Op::BatchNormPart(BatchNormPart::Apply { .. }) | Op::LayerNormGrad => {
            graph.shape(graph.node(n).outputs[0]).last() <= BLOCK
        }
        _ => false,
    };
    if !group.anchor(graph).is_none_or(continues) {
        return false;
    }
    // Which operand will lie where a result goes is not known yet. If none does there are the most operands; if each
    // does, the most registers.
    [false, true].iter().all(|&shares| build(graph, group, |_, _| shares).is_ok())
}

/// A group's elementwise members, ready for memory.
pub(super) struct Fused {
    program: TileProgram,
    /// The operands in the program's order; none for the anchor's result.
    sources: [Option<ValueId>; MAX_INPUTS],
    /// Which operand is the anchor's result.
    own: Option<usize>,
    /// Results in the program's order.
    results: Vec<ValueId>,
    /// What it draws from.
    key: Option<ValueId>,
    /// Elements of each result.
    len: usize,
}

/// The value whose memory `v` lies in, seen through reshapes.
fn home(graph: &Graph, v: ValueId) -> ValueId {
    let node = graph.node(graph.value(v).node);
    match node.op {
        Op::Reshape { .. } => home(graph, node.inputs[0]),
        _ => v,
    }
}

fn storage(graph: &Graph, v: ValueId) -> Result<Storage, EngineError> {
    let integers = || EngineError::Unsupported("arithmetic on integers".into());
    Storage::of(graph.dtype(v)).ok_or_else(integers)
}

/// The program of a group's elementwise members, where `shares` says which operand lies where which result goes. A
/// value in 16 bits that a member reads is rounded as if it were stored.
fn build(
    graph: &Graph,
    group: &Group,
    shares: impl Fn(ValueId, ValueId) -> bool,
) -> Result<Fused, EngineError> {
    let unsupported = |e: String| EngineError::Unsupported(e);
    let anchor = group.anchor(graph);
    let members: Vec<NodeId> = group.nodes.iter().copied().filter(|&n| Some(n) != anchor).collect();
    let results: Vec<ValueId> = group
        .writes
        .iter()
        .copied()
        .filter(|&v| Some(graph.value(v).node) != anchor || graph.value(v).index == 0)
        .collect();
    let read_here: Vec<ValueId> =
        members.iter().flat_map(|&n| &graph.node(n).inputs).map(|&v| home(graph, v)).collect();
    let mut b =
        Build { graph, ops: Vec::new(), operands: Vec::new(), sources: Vec::new(), values: HashMap::new() };
    let (mut own, mut key) = (None, None);
    if let Some(anchor) = anchor {
        let result = graph.node(anchor).outputs[0];
        own = Some(0);
        let value = b.operand(Operand { storage: Storage::F32, pattern: Pattern::Same }, None);
        let value = b.rounded(value, storage(graph, result)?);
        b.values.insert(result, value);
    }
    for &n in &members {
        let node = graph.node(n);
        let result = node.outputs[0];
        let mut inputs = Vec::new();
        let numbers = match node.op {
            Op::Dropout { .. } => 1,
            Op::Quantise(_) => 2,
            _ => node.inputs.len(),
        };
        for &v in &node.inputs[..numbers] {
            inputs.push(b.read(v, result, |operand| {
                results.iter().position(|&r| Some(graph.value(r).node) != anchor && shares(operand, r))
            })?);
        }
        let mut one_key = |v: ValueId| {
            let own_key = home(graph, v);
            match *key.get_or_insert(own_key) == own_key {
                true => Ok(()),
                false => Err(unsupported("draws with different keys".into())),
            }
        };
        let value = match &node.op {
            Op::Unary(f) => b.push(TileOp::Unary(*f, inputs[0])),
            Op::Binary(f) => b.push(TileOp::Binary(*f, inputs[0], inputs[1])),
            Op::Select => b.push(TileOp::Select(inputs[0], inputs[1], inputs[2])),
            Op::Broadcast { .. } | Op::Cast { .. } => inputs[0],
            Op::Quantise(Quantise { format, blocks: Blocks::Tensor { overflow }, draws }) => {
                if draws.is_some() {
                    one_key(node.inputs[2])?;
                }
                let codes = Codes { format: *format, overflow: *overflow, draws: *draws };
                b.push(TileOp::Quantise(codes, inputs[0], inputs[1]))
            }
            Op::Dropout { rate, id } => {
                one_key(node.inputs[1])?;
                let shape = graph.shape(node.inputs[0]);
                let per_sample = shape.count() / shape.first().copied().unwrap_or(1);
                b.push(TileOp::Dropout { rate: *rate as f32, op: *id, per_sample, value: inputs[0] })
            }
            other => return Err(unsupported(format!("`{}` is not elementwise", other.name()))),
        };
        let stored = storage(graph, result)?;
        let value = if read_here.contains(&result) { b.rounded(value, stored) } else { value };
        b.values.insert(result, value);
    }
    let output = |&v: &ValueId| Ok(Output { storage: storage(graph, v)?, value: b.values[&v] });
    let outputs = results.iter().map(output).collect::<Result<Vec<_>, EngineError>>()?;
    let mut sources = [None; MAX_INPUTS];
    if b.sources.len() > MAX_INPUTS {
        return Err(unsupported(format!("{} operands; {MAX_INPUTS} are possible", b.sources.len())));
    }
    sources[..b.sources.len()].copy_from_slice(&b.sources);
    let program = TileProgram::new(b.operands, b.ops, outputs).map_err(|e| unsupported(e.to_string()))?;
    let len = members.first().map_or(0, |&n| graph.shape(graph.node(n).outputs[0]).count());
    Ok(Fused { program, sources, own, results, key, len })
}

struct Build<'a> {
    graph: &'a Graph,
    ops: Vec<TileOp>,
    operands: Vec<Operand>,
    sources: Vec<Option<ValueId>>,
    /// Where values of the graph are found, by their homes.
    values: HashMap<ValueId, Value>,
}

impl Build<'_> {
    fn push(&mut self, op: TileOp) -> Value {
        self.ops.push(op);
        Value((self.ops.len() - 1) as u16)
    }

    fn operand(&mut self, operand: Operand, source: Option<ValueId>) -> Value {
        self.operands.push(operand);
        self.sources.push(source);
        self.push(TileOp::Input(self.operands.len() - 1))
    }

    fn rounded(&mut self, value: Value, to: Storage) -> Value {
        if to == Storage::F32 { value } else { self.push(TileOp::Round(to, value)) }
    }

    /// The value that a member with this result reads as `v`.
    fn read(
        &mut self,
        v: ValueId,
        result: ValueId,
        overwritten_by: impl Fn(ValueId) -> Option<usize>,
    ) -> Result<Value, EngineError> {
        let source = home(self.graph, v);
        if let Some(&value) = self.values.get(&source) {
            return Ok(value);
        }
        if let Some(x) = constant(self.graph, v) {
            return Ok(self.push(TileOp::Const(x as f32)));
        }
        let storage = storage(self.graph, v)?;
        let (from, to) = (self.graph.shape(v), self.graph.shape(result));
        if from.count() != to.count() {
            // The same memory may be stretched in several ways.
            let operand = Operand::broadcast(storage, from, to);
            let operand = operand.map_err(|e| EngineError::Unsupported(e.to_string()))?;
            return Ok(self.operand(operand, Some(source)));
        }
        let operand = Operand { storage, pattern: Pattern::Same };
        let value = match overwritten_by(source) {
            Some(output) => self.push(TileOp::Previous(output)),
            None => self.operand(operand, Some(source)),
        };
        self.values.insert(source, value);
        Ok(value)
    }
}

/// A span that borrows nothing.
pub(super) fn nothing() -> Span {
    Span { place: Where::Arena, offset: 0, count: 0, dtype: DType::F32 }
}

/// The memory of a group's elementwise members.
struct Bound {
    fused: Fused,
    reads: [Span; READS],
    writes: [Span; MAX_OUTPUTS],
}

/// The most a chain reads: its operands and a key.
const READS: usize = MAX_INPUTS + 1;

impl Bound {
    fn new(l: &Lowering<'_>) -> Result<Bound, EngineError> {
        let fused = build(l.graph, l.group, |operand, result| l.span(operand) == l.span(result))?;
        let mut reads = [nothing(); READS];
        for (to, v) in reads.iter_mut().zip(fused.sources.iter().chain([&fused.key])) {
            *to = v.map_or(*to, |v| l.span(v));
        }
        let mut writes = [nothing(); MAX_OUTPUTS];
        for (to, &v) in writes.iter_mut().zip(&fused.results) {
            *to = l.span(v);
        }
        Ok(Bound { fused, reads, writes })
    }
}

/// The most operands and results of an anchor, workspace included.
const OPERANDS: usize = 5;
const RESULTS: usize = 5;

/// The memory of an operation and of the chain that continues its first result, if there is one.
pub(super) struct After {
    chain: Option<Fused>,
    reads: [Span; OPERANDS + READS],
    writes: [Span; RESULTS + MAX_OUTPUTS],
}

/// The same, borrowed.
pub(super) struct Borrowed<'a> {
    pub operands: [View<'a>; OPERANDS],
    /// The first is empty where a chain takes it.
    pub results: [ViewMut<'a>; RESULTS],
    pub chain: Option<Chain<'a>>,
}

impl After {
    /// Of the group that `l` is about: its anchor's operands, and what it writes besides its first result.
    pub fn new(l: &Lowering<'_>, operands: &[Span], others: &[Span]) -> Result<After, EngineError> {
        let mut reads = [nothing(); OPERANDS + READS];
        let mut writes = [nothing(); RESULTS + MAX_OUTPUTS];
        reads[..operands.len()].copy_from_slice(operands);
        writes[1..=others.len()].copy_from_slice(others);
        if l.group.nodes.len() == 1 {
            writes[0] = l.output(0);
            return Ok(After { chain: None, reads, writes });
        }
        let bound = Bound::new(l)?;
        reads[OPERANDS..].copy_from_slice(&bound.reads);
        writes[RESULTS..].copy_from_slice(&bound.writes);
        Ok(After { chain: Some(bound.fused), reads, writes })
    }

    pub fn borrow<'a>(
        &'a self,
        frame: &'a mut Frame<'_>,
        run: &Run<'_>,
        at: &At,
    ) -> Result<Borrowed<'a>, EngineError> {
        let (reads, writes) = frame.borrow(self.reads, self.writes);
        let (operands, reads): (_, [_; READS]) = split(reads);
        let (reads, [key]) = split(reads);
        let (results, writes): (_, [_; MAX_OUTPUTS]) = split(writes);
        let chain = self.chain.as_ref().map(|Fused { program, own, len, .. }| {
            let inputs = sources(reads);
            let inputs = &inputs[..program.inputs().len()];
            let own = own.expect("a chain behind an anchor continues its result");
            Chain::new(run.machine.isa, program, own, *len, inputs, writes.map(|v| v.dst()), words(key))
        });
        let chain = chain.transpose().map_err(|e| at.row(e))?;
        Ok(Borrowed { operands, results, chain })
    }
}

fn sources(reads: [View<'_>; MAX_INPUTS]) -> [Src<'_>; MAX_INPUTS] {
    reads.map(|v| v.src())
}

/// A key, if that is what was borrowed.
fn words(key: View<'_>) -> Option<Key> {
    match key {
        View::I32(words) => words.try_into().ok(),
        _ => None,
    }
}

/// An array as its first and its other elements.
fn split<T, const A: usize, const B: usize, const ALL: usize>(all: [T; ALL]) -> ([T; A], [T; B]) {
    const { assert!(A + B == ALL) };
    let mut all = all.into_iter();
    let mut next = || all.next().expect("as many as the two parts have");
    (std::array::from_fn(|_| next()), std::array::from_fn(|_| next()))
}

/// A group without an anchor.
pub(super) fn elementwise(l: &Lowering<'_>) -> Result<Step, EngineError> {
    let (bound, at) = (Bound::new(l)?, l.at());
    Ok(Box::new(move |frame: &mut Frame<'_>, run| {
        let machine = run.machine;
        let (reads, writes) = frame.borrow(bound.reads, bound.writes);
        let Fused { program, len, .. } = &bound.fused;
        let (reads, [key]) = split(reads);
        let inputs = sources(reads);
        let mut outputs = writes.map(|v| v.dst());
        let (inputs, outputs) = (&inputs[..program.inputs().len()], &mut outputs[..program.outputs().len()]);
        program
            .run_keyed(machine.isa, &machine.pool, *len, inputs, outputs, words(key))
            .map_err(|e| at.row(e))
    }))
}
