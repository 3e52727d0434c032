//! From a node to a step: which kernel runs it, over which memory, with everything prepared that
//! can be.

mod collective;
mod contract;
mod group;
mod movement;
mod normalise;
mod quantise;
mod scratch;
mod update;

use halfstep_graph::engine::EngineError;
use halfstep_graph::{Blocks, DType, Graph, Group, Node, Op, Shape, ValueId};

use crate::isa::Isa;
use crate::machine::{Machine, Run};
use crate::memory::{Frame, Span, View, ViewMut, Where};
use crate::pool::Pool;
use crate::rows::RowError;

pub(crate) use group::fuses;
pub(crate) use scratch::scratch_bytes;

/// A group, ready to run.
pub(crate) type Step = Box<dyn Fn(&mut Frame<'_>, &mut Run<'_>) -> Result<(), EngineError> + Send>;

/// A group and where its operands and results are.
pub(crate) struct Lowering<'a> {
    pub graph: &'a Graph,
    pub group: &'a Group,
    /// Its anchor, or its last member.
    pub node: &'a Node,
    pub spans: &'a [Span],
    pub machine: &'a Machine,
}

impl<'a> Lowering<'a> {
    fn span(&self, value: ValueId) -> Span {
        self.spans[value.0 as usize]
    }

    fn input(&self, i: usize) -> Span {
        self.span(self.node.inputs[i])
    }

    fn output(&self, i: usize) -> Span {
        self.span(self.node.outputs[i])
    }

    fn shape(&self, i: usize) -> &'a Shape {
        self.graph.shape(self.node.inputs[i])
    }

    fn result_shape(&self) -> &'a Shape {
        self.graph.shape(self.node.outputs[0])
    }

    /// The first operands.
    fn inputs<const N: usize>(&self) -> [Span; N] {
        std::array::from_fn(|i| self.input(i))
    }

    /// A step that gives `kernel` these spans.
    fn step<const R: usize, const W: usize>(
        &self,
        reads: [Span; R],
        writes: [Span; W],
        kernel: impl Fn(Isa, &Pool, [View<'_>; R], [ViewMut<'_>; W]) -> Result<(), RowError> + Send + 'static,
    ) -> Result<Step, EngineError> {
        let at = self.at();
        Ok(Box::new(move |frame, run| {
            let (reads, writes) = frame.borrow(reads, writes);
            kernel(run.machine.isa, &run.machine.pool, reads, writes).map_err(|e| at.error(e))
        }))
    }

    /// What turns a kernel's complaint into the engine's, with the node's name.
    fn at(&self) -> At {
        At(self.node.name.clone())
    }
}

/// The name of a node, for errors.
#[derive(Clone)]
pub(crate) struct At(String);

impl At {
    fn error(&self, error: impl std::fmt::Display) -> EngineError {
        EngineError::Unsupported(format!("`{}`: {error}", self.0))
    }
}

/// The step of a group whose workspace begins at `workspace` in the arena.
///
/// # Errors
/// Something the kernels cannot do.
pub(crate) fn lower(l: &Lowering<'_>, workspace: usize) -> Result<Step, EngineError> {
    let work = |dtype| {
        let bytes = workspace_bytes(l.graph, l.node, l.machine.isa, l.machine.pool.threads());
        Span { place: Where::Arena, offset: workspace, count: bytes / 4, dtype }
    };
    let scratch = work(DType::F32);
    if l.group.nodes.len() > 1 && l.group.anchor(l.graph).is_none() {
        return group::elementwise(l);
    }
    match &l.node.op {
        Op::Input { .. } | Op::Read { .. } | Op::Const { .. } | Op::Reshape { .. } => {
            unreachable!("what computes nothing is in no group")
        }
        // Of one member as of several.
        Op::Unary(_)
        | Op::Binary(_)
        | Op::Select
        | Op::Broadcast { .. }
        | Op::Cast { .. }
        | Op::Dropout { .. } => group::elementwise(l),
        Op::Quantise(q) => match q.blocks {
            Blocks::Tensor { .. } => group::elementwise(l),
            _ => quantise::in_blocks(l, q),
        },
        Op::Permute { perm } => movement::permute(l, perm),
        Op::Slice { axis, start, .. } => movement::slice(l, *axis, *start),
        Op::Pad { axis, before, after } => movement::pad(l, *axis, *before, *after),
        Op::Concat { axis } => movement::concat(l, *axis),
        Op::Gather => movement::gather(l),
        Op::ScatterAdd { .. } => movement::scatter_add(l, work(DType::I32)),
        Op::Reduce { kind, axes } => normalise::reduce(l, *kind, axes, scratch),
        Op::ArgMax => normalise::argmax(l),
        Op::Softmax => normalise::softmax(l),
        Op::LayerNorm { eps } => normalise::layer_norm(l, *eps),
        Op::LayerNormGrad => normalise::layer_norm_grad(l, scratch),
        Op::BatchNormPart(part) => normalise::batch_norm_part(l, *part, scratch),
        Op::CrossEntropy => normalise::cross_entropy(l),
        Op::CrossEntropyGrad => normalise::cross_entropy_grad(l),
        Op::Pool { kind, window, stride } => normalise::pool(l, *kind, *window, *stride),
        Op::PoolGrad { kind, window, stride } => normalise::pool_grad(l, *kind, *window, *stride, scratch),
        Op::MatMul { ta, tb } => contract::matmul(l, *ta, *tb),
        Op::Conv2d(geometry) => contract::conv2d(l, *geometry),
        Op::Conv2dGradInput { geometry, .. } => contract::conv2d_grad_input(l, *geometry),
        Op::Conv2dGradWeight { geometry, .. } => contract::conv2d_grad_weight(l, *geometry),
        Op::Attention(spec) => contract::attention(l, *spec, scratch),
        Op::AttentionGrad(spec) => contract::attention_grad(l, *spec, scratch),
        Op::GlobalNorm => update::global_norm(l),
        Op::AdamW(spec) => update::adamw(l, *spec),
        Op::Sgd(spec) => update::sgd(l, *spec),
        Op::AllReduceStart { over } => collective::start(l, *over),
        Op::AllReduceWait { factor, .. } => collective::wait(l, *factor),
    }
}

/// Bytes of arena a node needs besides operands and results, with this many threads.
pub(crate) fn workspace_bytes(graph: &Graph, node: &Node, isa: Isa, threads: usize) -> usize {
    4 * match &node.op {
        Op::ScatterAdd { rows } => movement::scatter_words(graph, node, *rows),
        Op::Reduce { axes, .. } => normalise::reduce_words(graph, node, axes),
        Op::LayerNormGrad | Op::BatchNormPart(_) => normalise::norm_words(graph, node),
        Op::PoolGrad { window, stride, .. } => normalise::pool_words(graph, node, *window, *stride, threads),
        Op::Attention(spec) | Op::AttentionGrad(spec) => {
            contract::attention_words(graph, node, *spec, isa, threads)
        }
        _ => 0,
    }
}
