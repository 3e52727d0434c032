//! From a group of nodes to commands: which kernels run it, over which memory.

mod attention;
mod contract;
mod images;
mod movement;
mod normalise;
mod pointwise;
mod quantise;
mod reduce;
mod scheme;
mod table;
mod update;

use halfstep_graph::engine::EngineError;
use halfstep_graph::{Blocks, DType, Graph, Group, Node, Op, Shape, ValueId};

use crate::command::{Action, Argument, Command, Kernel, Launch, Region};
use crate::device::Facts;
use crate::kernels::{Modules, Source, c_type};
use crate::stored::Stored;

use scheme::{Scheme, Sizes};

pub(crate) use pointwise::fuses;
pub(crate) use update::copy_out;

/// What lowering adds to.
#[derive(Default)]
pub(crate) struct Output {
    pub modules: Modules,
    pub commands: Vec<Command>,
}

/// A group and where its operands and results are.
pub(crate) struct Lowering<'a> {
    pub graph: &'a Graph,
    pub group: &'a Group,
    /// Its anchor, or its last member.
    pub node: &'a Node,
    /// Of every value.
    pub values: &'a [Stored],
    /// Where the node's workspace begins in the arena.
    pub workspace: usize,
    /// Where what the node keeps from run to run begins behind the constants.
    pub kept: usize,
    /// The position of the group among the plan's steps.
    pub step: usize,
    pub facts: &'a Facts,
    pub output: &'a mut Output,
}

impl<'a> Lowering<'a> {
    fn value(&self, value: ValueId) -> Stored {
        self.values[value.0 as usize]
    }

    fn input(&self, i: usize) -> Stored {
        self.value(self.node.inputs[i])
    }

    fn result(&self, i: usize) -> Stored {
        self.value(self.node.outputs[i])
    }

    fn shape(&self, i: usize) -> &'a Shape {
        self.graph.shape(self.node.inputs[i])
    }

    fn result_shape(&self) -> &'a Shape {
        self.graph.shape(self.node.outputs[0])
    }

    /// Rows and columns of operand 0.
    fn matrix(&self) -> (usize, usize) {
        (self.shape(0).rows(), self.shape(0).last())
    }

    /// A part of the workspace, which begins `skip` bytes behind its start.
    fn work(&self, skip: usize, count: usize, dtype: DType) -> Stored {
        Stored::new(Region::Arena, self.workspace + skip, count, dtype)
    }

    /// Counters that are zero when a launch begins and when it has ended, which begin `skip` bytes
    /// behind the first of the node.
    fn counters(&self, skip: usize, count: usize) -> Stored {
        Stored::new(Region::Constants, self.kept + skip, count, DType::I32)
    }

    /// A kernel of a file whose macros stand for these types.
    fn kernel(&mut self, source: Source, types: &[(&str, DType)], entry: &str) -> Kernel {
        let types: Vec<(&str, &str)> = types.iter().map(|&(m, t)| (m, c_type(t))).collect();
        self.output.modules.kernel(source, &types, entry)
    }

    /// The same, of threads that take so many neighbours at a time.
    fn wide_kernel(&mut self, source: Source, types: &[(&str, DType)], wide: &str, entry: &str) -> Kernel {
        let types = types.iter().map(|&(m, t)| (m, c_type(t))).chain([("WIDE", wide)]);
        self.output.modules.kernel(source, &types.collect::<Vec<_>>(), entry)
    }

    fn launch(&mut self, call: Call) {
        let (at, step) = (self.at(), Some(self.step));
        self.output.commands.push(Command { action: Action::Launch(call.0), at, step });
    }

    /// What reports call it: the node's name, and its operation where it has none.
    fn at(&self) -> String {
        if self.node.name.is_empty() { self.node.op.name() } else { self.node.name.clone() }
    }

    fn unsupported(&self, why: impl std::fmt::Display) -> EngineError {
        EngineError::Unsupported(format!("`{}`: {why}", self.at()))
    }
}

/// A launch as it is put together: what a pointer is for is said where it is given.
#[derive(Clone)]
pub(crate) struct Call(Launch);

impl Call {
    /// Of so many blocks of so many threads.
    fn new(kernel: Kernel, grid: [usize; 3], block: u32) -> Call {
        Call(Launch {
            kernel,
            grid: grid.map(|n| n as u32),
            block,
            shared: 0,
            arguments: Vec::new(),
            reads: Vec::new(),
            writes: Vec::new(),
        })
    }

    /// A thread for each of so many elements.
    fn each(kernel: Kernel, count: usize) -> Call {
        let block = count.next_multiple_of(32).min(256);
        Call::new(kernel, [count.div_ceil(block), 1, 1], block as u32)
    }

    fn shared(mut self, bytes: usize) -> Call {
        self.0.shared = bytes as u32;
        self
    }

    fn read(mut self, value: Stored) -> Call {
        self.0.arguments.push(Argument::Pointer(value.span));
        self.also_read(value)
    }

    fn write(mut self, value: Stored) -> Call {
        self.0.arguments.push(Argument::Pointer(value.span));
        self.also_write(value)
    }

    /// Reads and writes it.
    fn changes(self, value: Stored) -> Call {
        self.read(value).also_write(value)
    }

    /// Reads what another argument points to.
    fn also_read(mut self, value: Stored) -> Call {
        self.0.reads.push(value.span);
        self
    }

    fn also_write(mut self, value: Stored) -> Call {
        self.0.writes.push(value.span);
        self
    }

    /// An operand that may be absent.
    fn maybe_read(self, value: Option<Stored>) -> Call {
        match value {
            Some(value) => self.read(value),
            None => self.with(Argument::Null),
        }
    }

    fn with(mut self, argument: Argument) -> Call {
        self.0.arguments.push(argument);
        self
    }

    /// Sizes, each a `u32`.
    fn sizes<const N: usize>(self, sizes: [usize; N]) -> Call {
        sizes.into_iter().fold(self, |call, n| call.with(Argument::U32(n as u32)))
    }

    fn f32(self, x: f32) -> Call {
        self.with(Argument::F32(x))
    }
}

/// A struct of sizes.
fn structure(sizes: &[usize]) -> Argument {
    Argument::Struct(sizes.iter().map(|&n| Argument::U32(n as u32)).collect())
}

/// The largest grid along y and z.
pub(crate) const MOST_BLOCKS: usize = 65_535;

/// The commands of a group.
///
/// # Errors
/// Something that no kernel does.
pub(crate) fn lower(l: &mut Lowering<'_>) -> Result<(), EngineError> {
    if l.group.anchor(l.graph).is_none() {
        return pointwise::chain_of(l);
    }
    match &l.node.op {
        Op::Input { .. } | Op::Read { .. } | Op::Const { .. } | Op::Reshape { .. } => {
            unreachable!("what computes nothing is in no group")
        }
        Op::Unary(_)
        | Op::Binary(_)
        | Op::Select
        | Op::Broadcast { .. }
        | Op::Cast { .. }
        | Op::Dropout { .. } => pointwise::chain_of(l),
        Op::Quantise(q) => match q.blocks {
            Blocks::Tensor { .. } => pointwise::chain_of(l),
            _ => quantise::in_blocks(l, q),
        },
        Op::Permute { perm } => movement::permute(l, perm),
        Op::Slice { axis, start, .. } => movement::slice(l, *axis, *start),
        Op::Pad { axis, before, .. } => movement::pad(l, *axis, *before),
        Op::Concat { axis } => movement::concat(l, *axis),
        Op::Gather => movement::gather(l),
        Op::ScatterAdd { .. } => movement::scatter_add(l),
        Op::Reduce { kind, axes } => reduce::reduce(l, *kind, axes),
        Op::ArgMax => normalise::argmax(l),
        Op::Softmax => normalise::softmax(l),
        Op::LayerNorm { eps } => normalise::layer_norm(l, *eps),
        Op::LayerNormGrad => normalise::layer_norm_grad(l),
        Op::BatchNormPart(part) => normalise::batch_norm_part(l, *part),
        Op::CrossEntropy => normalise::cross_entropy(l),
        Op::CrossEntropyGrad => normalise::cross_entropy_grad(l),
        Op::Pool { kind, window, stride } => images::pool(l, *kind, *window, *stride),
        Op::PoolGrad { kind, window, stride } => images::pool_grad(l, *kind, *window, *stride),
        Op::MatMul { ta, tb } => contract::matmul(l, *ta, *tb),
        Op::Conv2d(geometry) => images::conv2d(l, *geometry),
        Op::Conv2dGradInput { geometry, .. } => images::conv2d_grad_input(l, *geometry),
        Op::Conv2dGradWeight { geometry, .. } => images::conv2d_grad_weight(l, *geometry),
        Op::Attention(spec) => attention::attention(l, *spec),
        Op::AttentionGrad(spec) => attention::attention_grad(l, *spec),
        Op::GlobalNorm => update::global_norm(l),
        Op::AdamW(spec) => update::adamw(l, *spec),
        Op::Sgd(spec) => update::sgd(l, *spec),
        Op::AllReduceStart { .. } | Op::AllReduceWait { .. } => {
            Err(l.unsupported("a GPU does not sum over ranks: train with one rank, or on the CPU"))
        }
    }
}

/// Bytes of arena that a node needs besides operands and results.
pub(crate) fn workspace_bytes(graph: &Graph, node: &Node, facts: &Facts) -> usize {
    match &node.op {
        Op::Reduce { axes, .. } => reduce::workspace_bytes(graph, node, axes),
        Op::LayerNormGrad | Op::BatchNormPart(_) => normalise::workspace_bytes(graph, node),
        Op::AttentionGrad(spec) => attention::workspace_bytes(graph, node, *spec),
        Op::GlobalNorm => update::norm_workspace_bytes(graph, node),
        _ => {
            let product = Sizes::of(graph, node).zip(Scheme::of(graph, node, facts.architecture));
            product.map_or(0, |(sizes, scheme)| scheme.workspace_bytes(sizes))
        }
    }
}

/// Bytes that a node's kernels keep from run to run: zeros at first.
pub(crate) fn kept_bytes(graph: &Graph, node: &Node, facts: &Facts) -> usize {
    match &node.op {
        Op::Reduce { axes, .. } => reduce::kept_bytes(graph, node, axes),
        Op::LayerNormGrad | Op::BatchNormPart(_) => normalise::kept_bytes(graph, node),
        Op::GlobalNorm => 4,
        _ => {
            let product = Sizes::of(graph, node).zip(Scheme::of(graph, node, facts.architecture));
            product.map_or(0, |(sizes, scheme)| scheme.kept_bytes(sizes))
        }
    }
}
