//! What the elementwise members of a group compute, in a form from which an engine makes code of
//! its own.

use std::collections::HashMap;

use halfstep_float::{Format, Overflow};

use crate::dtype::{DType, Shape};
use crate::graph::{Graph, NodeId, ValueId};
use crate::group::Group;
use crate::op::{Binary, Blocks, Op, Quantise, Unary};

/// The elementwise members of a group, as terms in the order in which they are computed: each is
/// f32 and is made from terms before it (static single assignment).
///
/// Element `i` of every result comes from the terms of element `i`. Nothing here depends on
/// hardware: how many operands or live terms are too many, and which result may be written over
/// which operand, is for the engine to say.
#[derive(Clone, Debug, PartialEq)]
pub struct Expression {
    /// What is read from memory, in the order of its first use.
    pub operands: Vec<Operand>,
    /// The n-th defines `TermId(n)`.
    pub terms: Vec<Term>,
    /// What is stored: a value of the graph, rounded to its type, and the term it is made from.
    pub outputs: Vec<(ValueId, TermId)>,
    /// Elements of each result.
    pub count: usize,
}

/// A term of an expression, by position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TermId(pub u32);

/// What an expression reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operand {
    /// The value whose memory is read. None for the first result of the group's anchor, which is
    /// f32 and has not been rounded.
    pub source: Option<ValueId>,
    /// The type it is stored in.
    pub dtype: DType,
    /// Which of its elements go with which of the results'.
    pub access: Access,
}

/// Which element of an operand goes with element `i` of the result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Element `i`.
    Same,
    /// `i` is split into coordinates of the dimensions, the last the fastest, which are multiplied
    /// with their strides. Empty for a single number.
    Strided(Vec<Dimension>),
}

/// A dimension of a stretched operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dimension {
    /// Size in the result.
    pub size: usize,
    /// Distance between neighbours in the operand, in elements; 0 where it is stretched.
    pub stride: usize,
}

/// How a term is made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Term {
    /// The operand at this position, widened.
    Operand(usize),
    /// The same number everywhere.
    Const(f64),
    /// A term rounded to a storage type: a result that another member reads as it would be stored.
    Round(DType, TermId),
    /// A function of one term.
    Unary(Unary, TermId),
    /// A function of two terms.
    Binary(Binary, TermId, TermId),
    /// The second where the first is not zero, else the third.
    Select(TermId, TermId, TermId),
    /// The codes of value · scale, as [`Blocks::Tensor`] says.
    Quantise {
        /// Format of the codes.
        format: Format,
        /// What becomes of finite numbers beyond the largest.
        overflow: Overflow,
        /// The number of the draws and the value that holds their key, where rounding is
        /// stochastic.
        draws: Option<(u32, ValueId)>,
        /// What is quantised.
        value: TermId,
        /// What it is multiplied by first.
        scale: TermId,
    },
    /// [`Op::Dropout`] of a term.
    Dropout {
        /// Probability of zero.
        rate: f64,
        /// Stable number of this dropout in the model.
        id: u32,
        /// Elements of a sample.
        per_sample: usize,
        /// The value that holds the key.
        key: ValueId,
        /// What it is applied to.
        value: TermId,
    },
}

impl Access {
    /// How an operand of shape `from` is read for a result of shape `to`, by numpy's rule and with
    /// as few dimensions as possible; none if it does not broadcast.
    pub fn broadcast(from: &[usize], to: &[usize]) -> Option<Access> {
        let missing = to.len().checked_sub(from.len())?;
        // From the last dimension to the first, neighbours merged where both shapes allow it.
        let mut merged: Vec<Dimension> = Vec::new();
        let mut elements = 1;
        for (d, &size) in to.iter().enumerate().rev() {
            let own = d.checked_sub(missing).map_or(1, |d| from[d]);
            if own != size && own != 1 {
                return None;
            }
            if size == 1 {
                continue;
            }
            let stride = if own == 1 { 0 } else { elements };
            elements *= own;
            match merged.last_mut() {
                Some(inner) if stride == inner.stride * inner.size => inner.size *= size,
                _ => merged.push(Dimension { size, stride }),
            }
        }
        merged.reverse();
        Some(if let [Dimension { stride: 1, .. }] = merged[..] {
            Access::Same
        } else {
            Access::Strided(merged)
        })
    }
}

impl Expression {
    /// What the elementwise members of `group` compute.
    ///
    /// # Panics
    /// If two members are not elementwise, or an operand does not broadcast: no group or graph is
    /// like that.
    pub fn of(graph: &Graph, group: &Group) -> Expression {
        let anchor = group.anchor(graph);
        let members: Vec<NodeId> = group.nodes.iter().copied().filter(|&n| Some(n) != anchor).collect();
        let read_here: Vec<ValueId> =
            members.iter().flat_map(|&n| &graph.node(n).inputs).map(|&v| graph.home(v)).collect();
        let mut builder = Builder { graph, operands: Vec::new(), terms: Vec::new(), term_of: HashMap::new() };
        if let Some(anchor) = anchor {
            let result = graph.node(anchor).outputs[0];
            let term = builder.operand(Operand { source: None, dtype: DType::F32, access: Access::Same });
            let term = builder.rounded(term, graph.dtype(result));
            builder.term_of.insert(result, term);
        }
        for &member in &members {
            let result = graph.node(member).outputs[0];
            let term = builder.member(member);
            let term =
                if read_here.contains(&result) { builder.rounded(term, graph.dtype(result)) } else { term };
            builder.term_of.insert(result, term);
        }
        let outputs = group.writes.iter().filter_map(|v| Some((*v, *builder.term_of.get(v)?))).collect();
        let count = members.first().map_or(0, |&n| graph.shape(graph.node(n).outputs[0]).count());
        Expression { operands: builder.operands, terms: builder.terms, outputs, count }
    }
}

struct Builder<'a> {
    graph: &'a Graph,
    operands: Vec<Operand>,
    terms: Vec<Term>,
    /// Values of the graph that need not be read again, by their homes.
    term_of: HashMap<ValueId, TermId>,
}

impl Builder<'_> {
    fn push(&mut self, term: Term) -> TermId {
        self.terms.push(term);
        TermId((self.terms.len() - 1) as u32)
    }

    fn operand(&mut self, operand: Operand) -> TermId {
        self.operands.push(operand);
        self.push(Term::Operand(self.operands.len() - 1))
    }

    fn rounded(&mut self, term: TermId, to: DType) -> TermId {
        if to == DType::F32 { term } else { self.push(Term::Round(to, term)) }
    }

    /// The result of a member before it is rounded to its type.
    fn member(&mut self, member: NodeId) -> TermId {
        let graph = self.graph;
        let node = graph.node(member);
        let to = graph.shape(node.outputs[0]);
        let key = |i: usize| graph.home(node.inputs[i]);
        let mut read = |i: usize| self.read(node.inputs[i], to);
        let term = match node.op {
            Op::Unary(f) => Term::Unary(f, read(0)),
            Op::Binary(f) => Term::Binary(f, read(0), read(1)),
            Op::Select => Term::Select(read(0), read(1), read(2)),
            Op::Broadcast { .. } | Op::Cast { .. } => return read(0),
            Op::Quantise(Quantise { format, blocks: Blocks::Tensor { overflow }, draws }) => {
                let draws = draws.map(|number| (number, key(2)));
                Term::Quantise { format, overflow, draws, value: read(0), scale: read(1) }
            }
            Op::Dropout { rate, id } => {
                let shape = graph.shape(node.inputs[0]);
                let per_sample = shape.count() / shape.first().copied().unwrap_or(1);
                Term::Dropout { rate, id, per_sample, key: key(1), value: read(0) }
            }
            ref other => unreachable!("`{}` is not elementwise: only the anchor is not", other.name()),
        };
        self.push(term)
    }

    /// The term that a member with a result of shape `to` reads as `v`.
    fn read(&mut self, v: ValueId, to: &Shape) -> TermId {
        let graph = self.graph;
        let source = graph.home(v);
        if let Some(&term) = self.term_of.get(&source) {
            return term;
        }
        if let Some(x) = graph.constant(v) {
            return self.push(Term::Const(x));
        }
        let (from, dtype) = (graph.shape(v), graph.dtype(v));
        if from.count() != to.count() {
            // The same memory may be stretched in several ways.
            let access =
                Access::broadcast(from, to).expect("the shape rules let only operands pass that broadcast");
            return self.operand(Operand { source: Some(source), dtype, access });
        }
        let term = self.operand(Operand { source: Some(source), dtype, access: Access::Same });
        self.term_of.insert(source, term);
        term
    }
}
