//! The update: the gradients' norm, the optimisers, and what is copied to slots at the end.

use halfstep_graph::engine::EngineError;
use halfstep_graph::{
    AdamWSpec, DType, Graph, Kept, MomentFormat, Node, SgdSpec, StateFormats, WeightFormat,
};

use super::movement::word;
use super::table::{Table, number, parts};
use super::{Call, Lowering};
use crate::command::{Action, Argument, Command};
use crate::kernels::{Source, c_type};
use crate::stored::Stored;

/// Tables as kernels declare them.
const NORMS: Table = Table { room: 200, bytes: 16 };
const TRAINED: Table = Table { room: 30, bytes: 120 };
const COPIES: Table = Table { room: 120, bytes: 32 };

pub(super) fn norm_workspace_bytes(graph: &Graph, node: &Node) -> usize {
    8 * node.inputs.iter().map(|&v| parts(graph.shape(v).count())).sum::<usize>()
}

/// The root of the sum of squares of all operands: of parts of tensors first, whose sums the last
/// block adds in their order.
pub(super) fn global_norm(l: &mut Lowering<'_>) -> Result<(), EngineError> {
    let tensors: Vec<Stored> = (0..l.node.inputs.len()).map(|i| l.input(i)).collect();
    let all: usize = tensors.iter().map(|t| parts(t.count)).sum();
    // Each sum is an f64: two words.
    let sums = l.work(0, 2 * all, DType::F32);
    let norm = l.result(0);
    let mut base = 0;
    // Neighbours of one type share a launch.
    let same: Vec<&[Stored]> = tensors.chunk_by(|a, b| a.dtype == b.dtype).collect();
    let mut launches = same.into_iter().flat_map(|same| same.chunks(NORMS.room)).peekable();
    while let Some(same) = launches.next() {
        let kernel = l.kernel(Source::Norm, &[("TypeX", same[0].dtype)], "squares");
        let mut first = 0;
        let mut entries = Vec::new();
        for tensor in same {
            let members = [Argument::Pointer(tensor.span), number(tensor.count), number(first)];
            entries.push(Argument::Struct(members.into()));
            first += parts(tensor.count);
        }
        let call = Call::new(kernel, [first, 1, 1], 256);
        let call = match launches.peek() {
            Some(_) => call.write(sums).with(Argument::Null).with(Argument::Null),
            None => call.changes(sums).write(norm).changes(l.counters(0, 1)),
        };
        let call = call.sizes([all]).with(NORMS.of(base, entries));
        l.launch(same.iter().fold(call, |call, &tensor| call.also_read(tensor)));
        base += first;
    }
    Ok(())
}

/// How kernels keep weights and moments of these formats, and in how many tensors each.
fn forms(formats: StateFormats) -> [(&'static str, usize); 2] {
    let weights = match formats.weights {
        WeightFormat::F32 => ("KEPT_F32", 1),
        WeightFormat::Bf16 => ("KEPT_BF16", 1),
        WeightFormat::Bf16Stochastic => ("KEPT_STOCHASTIC", 1),
        WeightFormat::Bf16Kahan => ("KEPT_COMPENSATED", 2),
    };
    let moments = match formats.moments {
        MomentFormat::F32 => ("KEPT_F32", 1),
        MomentFormat::Bf16 => ("KEPT_STOCHASTIC", 1),
        MomentFormat::Int8 => ("KEPT_BLOCKS", 2),
    };
    [weights, moments]
}

/// Launches an optimiser for one tensor with its moments, of which each has a place in the table:
/// `numbers` are its constants, and `scalars` the operands behind the gradient but for key and
/// commit.
fn train(
    l: &mut Lowering<'_>,
    entry: &str,
    kept: Kept,
    moments: usize,
    scalars: usize,
    numbers: Vec<Argument>,
) -> Result<(), EngineError> {
    let [(weight_form, of_weight), (moment_form, of_moment)] = forms(kept.formats);
    let tensors = l.node.outputs.len();
    let grad = l.input(tensors);
    let last = l.node.inputs.len() - 1;
    if tensors != of_weight + moments * of_moment
        || last != tensors + 1 + scalars + usize::from(kept.formats.draws())
    {
        return Err(l.unsupported("an update with other operands than its formats of state have"));
    }
    let types = [("TypeX", c_type(grad.dtype)), ("WEIGHT", weight_form), ("MOMENTS", moment_form)];
    let kernel = l.output.modules.kernel(Source::Update, &types, entry);
    let call = Call::new(kernel, [parts(grad.count), 1, 1], 256);
    let call = (0..scalars).fold(call, |call, i| call.read(l.input(tensors + 1 + i))).read(l.input(last));
    let key = kept.formats.draws().then(|| l.input(last - 1));
    let mut call = call.maybe_read(key).with(Argument::Struct(numbers)).also_read(grad);

    let mut members = Vec::new();
    let mut at = 0;
    for tensor in 0..3 {
        let parts = if tensor == 0 { of_weight } else { of_moment };
        let has = |part: usize| tensor <= moments && part < parts;
        let pointer = |part: usize, of: &dyn Fn(usize) -> Stored| match has(part) {
            true => Argument::Pointer(of(at + part).span),
            false => Argument::Null,
        };
        let (from, to) = (|i: usize| l.input(i), |i: usize| l.result(i));
        members.push(Argument::Struct(vec![
            pointer(0, &from),
            pointer(1, &from),
            pointer(0, &to),
            pointer(1, &to),
        ]));
        at += if tensor <= moments { parts } else { 0 };
    }
    call = (0..tensors).fold(call, |call, i| call.also_read(l.input(i)).also_write(l.result(i)));
    let rest =
        [Argument::Pointer(grad.span), number(grad.count), Argument::U32(kept.draws), number(0), number(0)];
    members.extend(rest);
    let call = call.with(TRAINED.of(0, vec![Argument::Struct(members)]));
    if !TRAINED.join(&mut l.output.commands, &call) {
        l.launch(call);
    }
    Ok(())
}

pub(super) fn adamw(l: &mut Lowering<'_>, spec: AdamWSpec) -> Result<(), EngineError> {
    let numbers = [spec.beta1, spec.beta2, spec.eps, spec.weight_decay].map(Argument::F64);
    train(l, "adamw", spec.kept, 2, 3, numbers.into())
}

pub(super) fn sgd(l: &mut Lowering<'_>, spec: SgdSpec) -> Result<(), EngineError> {
    let numbers = [spec.momentum, spec.weight_decay].map(|x| Argument::F32(x as f32));
    let numbers = [&numbers[..], &[Argument::U32(spec.nesterov.into())]].concat();
    train(l, "sgd", spec.kept, 1, 2, numbers)
}

/// Elements that a launch copies in less time than it takes to start.
const FEW: usize = 1 << 16;

/// Adds the copy of a value to its slot or output: in every step, or where `commit` is not zero.
pub(crate) fn copy_out(
    output: &mut super::Output,
    from: Stored,
    to: Stored,
    commit: Option<Stored>,
    name: &str,
) {
    // Many bytes are copied without a kernel where nothing is to be decided.
    let action = if commit.is_none() && from.count > FEW {
        Action::Copy { from: from.span, to: to.span }
    } else {
        let types = [("Element", word(from.dtype))];
        let kernel = output.modules.kernel(Source::Move, &types, "copies");
        let commit_at = commit.map_or(Argument::Null, |commit| Argument::Pointer(commit.span));
        let ends = [commit_at, Argument::Pointer(from.span), Argument::Pointer(to.span)];
        let entry = [&ends[..], &[number(from.count), number(0)]].concat();
        let call = Call::new(kernel, [parts(from.count), 1, 1], 256);
        let call = commit.into_iter().fold(call, Call::also_read);
        let call = call.with(COPIES.of(0, vec![Argument::Struct(entry)]));
        let call = call.also_read(from).also_write(to);
        if COPIES.join(&mut output.commands, &call) {
            return;
        }
        Action::Launch(call.0)
    };
    output.commands.push(Command { action, at: name.to_string(), step: None });
}
