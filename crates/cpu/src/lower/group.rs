//! Groups: the elementwise members of a group as one tile program, which runs by itself or continues the anchor.

use std::collections::HashMap;

use halfstep_graph::engine::EngineError;
use halfstep_graph::{DType, Graph, Group, NodeId, Op, ValueId};

use super::{At, Lowering, Step};
use crate::isa::Isa;
use crate::memory::{Frame, Span, View, ViewMut, Where};
use crate::program::constant;
use crate::rows::elementwise::{
    Chain, MAX_INPUTS, MAX_OUTPUTS, Operand, Output, Pattern, TileOp, TileProgram, Value,
};
use crate::rows::storage::{Src, Storage};

/// Whether a processor can run `group` as one step.
pub(crate) fn fuses(graph: &Graph, group: &Group) -> bool {
    let continues = |op: &Op| matches!(op, Op::MatMul { .. } | Op::Conv2d(_) | Op::Conv2dGradInput { .. });
    if group.anchor(graph).is_some_and(|n| !continues(&graph.node(n).op)) {
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
    let mut own = None;
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
        for &v in &node.inputs {
            inputs.push(b.read(v, result, |operand| {
                results.iter().position(|&r| Some(graph.value(r).node) != anchor && shares(operand, r))
            })?);
        }
        let value = match &node.op {
            Op::Unary(f) => b.push(TileOp::Unary(*f, inputs[0])),
            Op::Binary(f) => b.push(TileOp::Binary(*f, inputs[0], inputs[1])),
            Op::Select => b.push(TileOp::Select(inputs[0], inputs[1], inputs[2])),
            Op::Broadcast { .. } | Op::Cast { .. } => inputs[0],
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
    Ok(Fused { program, sources, own, results, len })
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
        let operand = Operand::broadcast(storage, self.graph.shape(v), self.graph.shape(result));
        let operand = operand.map_err(|e| EngineError::Unsupported(e.to_string()))?;
        if operand.pattern != Pattern::Same {
            // The same memory may be stretched in several ways.
            return Ok(self.operand(operand, Some(source)));
        }
        let value = match overwritten_by(source) {
            Some(output) => self.push(TileOp::Previous(output)),
            None => self.operand(operand, Some(source)),
        };
        self.values.insert(source, value);
        Ok(value)
    }
}

/// Spans of a group's operands and results, to be borrowed with those of the anchor.
pub(super) struct Bound {
    fused: Fused,
    pub reads: [Span; MAX_INPUTS],
    pub writes: [Span; MAX_OUTPUTS],
}

/// A span that borrows nothing.
pub(super) fn nothing() -> Span {
    Span { place: Where::Arena, offset: 0, count: 0, dtype: DType::F32 }
}

impl Bound {
    /// What continues the anchor of the group that `l` is about, if anything does.
    pub fn after_anchor(l: &Lowering<'_>) -> Result<Option<Bound>, EngineError> {
        if l.group.nodes.len() > 1 { Bound::new(l).map(Some) } else { Ok(None) }
    }

    /// The elementwise members of the group that `l` is about, over its spans.
    fn new(l: &Lowering<'_>) -> Result<Bound, EngineError> {
        let fused = build(l.graph, l.group, |operand, result| l.span(operand) == l.span(result))?;
        let reads = fused.sources.map(|s| s.map_or(nothing(), |v| l.span(v)));
        let mut writes = [nothing(); MAX_OUTPUTS];
        for (to, &v) in writes.iter_mut().zip(&fused.results) {
            *to = l.span(v);
        }
        Ok(Bound { fused, reads, writes })
    }

    /// The chain over borrowed operands and results, for the anchor to call.
    pub fn chain<'a>(
        &'a self,
        isa: Isa,
        reads: [View<'a>; MAX_INPUTS],
        writes: [ViewMut<'a>; MAX_OUTPUTS],
        at: &At,
    ) -> Result<Chain<'a>, EngineError> {
        let Fused { program, own, len, .. } = &self.fused;
        let inputs = reads.map(|v| v.src());
        let inputs: &[Src<'a>] = &inputs[..program.inputs().len()];
        let outputs = writes.map(|v| v.dst());
        Chain::new(isa, program, own.unwrap_or(0), *len, inputs, outputs).map_err(|e| at.row(e))
    }
}

/// Splits what was borrowed for anchor and chain together.
pub(super) fn split<T, const A: usize, const B: usize, const ALL: usize>(all: [T; ALL]) -> ([T; A], [T; B]) {
    assert_eq!(A + B, ALL);
    let mut all = all.into_iter();
    let mut next = || all.next().expect("as many as the two parts have");
    (std::array::from_fn(|_| next()), std::array::from_fn(|_| next()))
}

/// The spans of both, to be borrowed together.
pub(super) fn join<const A: usize, const B: usize, const ALL: usize>(
    a: [Span; A],
    b: [Span; B],
) -> [Span; ALL] {
    assert_eq!(A + B, ALL);
    std::array::from_fn(|i| if i < A { a[i] } else { b[i - A] })
}

/// A group without an anchor.
pub(super) fn elementwise(l: &Lowering<'_>) -> Result<Step, EngineError> {
    let (bound, at) = (Bound::new(l)?, l.at());
    Ok(Box::new(move |frame: &mut Frame<'_>, run| {
        let machine = run.machine;
        let (reads, writes) = frame.borrow(bound.reads, bound.writes);
        let Fused { program, len, .. } = &bound.fused;
        let inputs = reads.map(|v| v.src());
        let mut outputs = writes.map(|v| v.dst());
        let (inputs, outputs) = (&inputs[..program.inputs().len()], &mut outputs[..program.outputs().len()]);
        program.run(machine.isa, &machine.pool, *len, inputs, outputs).map_err(|e| at.row(e))
    }))
}
