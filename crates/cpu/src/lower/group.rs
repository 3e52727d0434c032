//! Groups: the elementwise members of a group as one tile program, which runs by itself or
//! continues the anchor.

use halfstep_graph::engine::EngineError;
use halfstep_graph::expression::{Access, Expression, Term, TermId};
use halfstep_graph::{BatchNormPart, DType, Graph, Group, NodeId, Op, ValueId};

use super::{At, Lowering, Step};
use crate::machine::Run;
use crate::memory::{Frame, Span, View, ViewMut, Where};
use crate::rows::elementwise::{
    BLOCK, Chain, MAX_INPUTS, MAX_OUTPUTS, Operand, Output, Pattern, TileOp, TileProgram, Value,
};
use crate::rows::key::Key;
use crate::rows::quantise::Codes;
use crate::rows::storage::Storage;

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
    // Which operand will lie where a result goes is not known yet. If none does there are the most
    // operands; if each does, the most registers.
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

fn storage(dtype: DType) -> Result<Storage, EngineError> {
    let integers = || EngineError::Unsupported("arithmetic on integers".into());
    Storage::of(dtype).ok_or_else(integers)
}

/// The tile program of a group's elementwise members, where `shares` says which operand lies where
/// which result goes.
fn build(
    graph: &Graph,
    group: &Group,
    shares: impl Fn(ValueId, ValueId) -> bool,
) -> Result<Fused, EngineError> {
    let unsupported = |e: String| EngineError::Unsupported(e);
    let expression = Expression::of(graph, group);
    let anchor = group.anchor(graph);
    let overwritten_by = |operand: ValueId| {
        let is_shared =
            |&(r, _): &(ValueId, TermId)| Some(graph.value(r).node) != anchor && shares(operand, r);
        expression.outputs.iter().position(is_shared)
    };
    let (mut operands, mut sources) = (Vec::new(), Vec::new());
    let mut key = None;
    let mut one_key = |v: ValueId| match *key.get_or_insert(v) == v {
        true => Ok(()),
        false => Err(unsupported("draws with different keys".into())),
    };
    let at = |TermId(term)| Value(term as u16);
    let mut ops = Vec::with_capacity(expression.terms.len());
    for term in &expression.terms {
        ops.push(match *term {
            Term::Operand(n) => {
                let operand = &expression.operands[n];
                let overwritten_by =
                    operand.source.filter(|_| operand.access == Access::Same).and_then(overwritten_by);
                if let Some(output) = overwritten_by {
                    TileOp::Previous(output)
                } else {
                    let (storage, pattern) = (
                        storage(operand.dtype)?,
                        Pattern::of(&operand.access).map_err(|e| unsupported(e.to_string()))?,
                    );
                    operands.push(Operand { storage, pattern });
                    sources.push(operand.source);
                    TileOp::Input(operands.len() - 1)
                }
            }
            Term::Const(x) => TileOp::Const(x as f32),
            Term::Round(to, x) => TileOp::Round(storage(to)?, at(x)),
            Term::Unary(f, x) => TileOp::Unary(f, at(x)),
            Term::Binary(f, a, b) => TileOp::Binary(f, at(a), at(b)),
            Term::Select(condition, a, b) => TileOp::Select(at(condition), at(a), at(b)),
            Term::Quantise { format, overflow, draws, value, scale } => {
                if let Some((_, key)) = draws {
                    one_key(key)?;
                }
                let draws = draws.map(|(number, _)| number);
                TileOp::Quantise(Codes { format, overflow, draws }, at(value), at(scale))
            }
            Term::Dropout { rate, id, per_sample, key, value } => {
                one_key(key)?;
                TileOp::Dropout { rate: rate as f32, op: id, per_sample, value: at(value) }
            }
        });
    }
    let output =
        |&(v, term): &(ValueId, TermId)| Ok(Output { storage: storage(graph.dtype(v))?, value: at(term) });
    let outputs = expression.outputs.iter().map(output).collect::<Result<Vec<_>, EngineError>>()?;
    let mut inputs = [None; MAX_INPUTS];
    if sources.len() > MAX_INPUTS {
        return Err(unsupported(format!("{} operands; {MAX_INPUTS} are possible", sources.len())));
    }
    inputs[..sources.len()].copy_from_slice(&sources);
    let program = TileProgram::new(operands, ops, outputs).map_err(|e| unsupported(e.to_string()))?;
    Ok(Fused {
        program,
        own: sources.iter().position(Option::is_none),
        sources: inputs,
        results: expression.outputs.iter().map(|&(v, _)| v).collect(),
        key,
        len: expression.count,
    })
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
    /// Of the group that `l` is about: its anchor's operands, and what it writes besides its first
    /// result.
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
        let (reads, [key]): ([_; MAX_INPUTS], _) = split(reads);
        let (results, writes): (_, [_; MAX_OUTPUTS]) = split(writes);
        let chain = self.chain.as_ref().map(|Fused { program, own, len, .. }| {
            let inputs = reads.map(|v| v.src());
            let inputs = &inputs[..program.inputs.len()];
            let own = own.expect("a chain behind an anchor continues its result");
            Chain::new(run.machine.isa, program, own, *len, inputs, writes.map(|v| v.dst()), words(key))
        });
        let chain = chain.transpose().map_err(|e| at.error(e))?;
        Ok(Borrowed { operands, results, chain })
    }
}

/// A key, if that is what was borrowed.
pub(super) fn words(key: View<'_>) -> Option<Key> {
    match key {
        View::I32(words) => <[i32; 4]>::try_from(words).ok().map(Key::from),
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
        let (reads, [key]): ([_; MAX_INPUTS], _) = split(reads);
        let inputs = reads.map(|v| v.src());
        let mut outputs = writes.map(|v| v.dst());
        let (inputs, outputs) = (&inputs[..program.inputs.len()], &mut outputs[..program.outputs.len()]);
        program
            .run_keyed(machine.isa, &machine.pool, *len, inputs, outputs, words(key))
            .map_err(|e| at.error(e))
    }))
}
