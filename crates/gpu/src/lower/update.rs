//! The update: the gradients' norm, the optimisers, and what is copied to slots at the end.

use halfstep_graph::engine::EngineError;
use halfstep_graph::{AdamWSpec, DType, Graph, Kept, Node, SgdSpec};

use super::movement::word;
use super::{Call, Lowering};
use crate::command::{Action, Argument, Command};
use crate::kernels::Source;
use crate::stored::Stored;

/// Elements of a tensor that a block works on.
const PART: usize = 4096;
/// Tensors in the table of one launch and bytes of an entry, as kernels declare them.
const NORMS: usize = 200;
const NORM: usize = 16;
const TRAINED: usize = 50;
const ENTRY: usize = 64;

fn parts(count: usize) -> usize {
    count.div_ceil(PART)
}

pub(super) fn norm_workspace_bytes(graph: &Graph, node: &Node) -> usize {
    8 * node.inputs.iter().map(|&v| parts(graph.shape(v).count())).sum::<usize>()
}

/// The root of the sum of squares of all operands: of parts of tensors first, whose sums are added
/// in their order.
pub(super) fn global_norm(l: &mut Lowering<'_>) -> Result<(), EngineError> {
    let tensors: Vec<Stored> = (0..l.node.inputs.len()).map(|i| l.input(i)).collect();
    let all: usize = tensors.iter().map(|t| parts(t.count)).sum();
    // Each sum is an f64: two words.
    let sums = l.work(0, 2 * all, DType::F32);
    let mut base = 0;
    // Neighbours of one type share a launch.
    for same in tensors.chunk_by(|a, b| a.dtype == b.dtype).flat_map(|same| same.chunks(NORMS)) {
        let kernel = l.kernel(Source::Update, &[("TypeX", same[0].dtype)], "squares");
        let mut first = 0;
        let mut entries = Vec::new();
        for tensor in same {
            let members = [Argument::Pointer(tensor.span), number(tensor.count), number(first)];
            entries.push(Argument::Struct(members.into()));
            first += parts(tensor.count);
        }
        let table = table([number(same.len()), number(base)], entries, (NORMS, NORM));
        let call = Call::new(kernel, [first, 1, 1], 256).write(sums).with(table);
        l.launch(same.iter().fold(call, |call, &tensor| call.also_read(tensor)));
        base += first;
    }
    let kernel = l.kernel(Source::Update, &[], "norm_of_parts");
    let norm = l.result(0);
    l.launch(Call::new(kernel, [1, 1, 1], 256).read(sums).write(norm).sizes([all]));
    Ok(())
}

/// A table as kernels declare it: two words, and room for so many entries of so many bytes.
fn table(head: [Argument; 2], entries: Vec<Argument>, (room, bytes): (usize, usize)) -> Argument {
    let rest = Argument::Zeros((room - entries.len()) * bytes);
    let [first, second] = head;
    Argument::Struct(vec![first, second, Argument::Struct(entries), rest])
}

fn number(n: usize) -> Argument {
    Argument::U32(n as u32)
}

/// An error unless an update keeps all its state in f32.
fn f32_state(l: &Lowering<'_>, kept: Kept) -> Result<(), EngineError> {
    match kept.formats.is_f32() {
        true => Ok(()),
        false => Err(l.unsupported("state in fewer bits than f32 has no kernel yet")),
    }
}

/// Launches an optimiser for one tensor with its moments; `call` has all arguments but the table.
fn train(l: &mut Lowering<'_>, call: Call, moments: usize) -> Result<(), EngineError> {
    let tensors = 1 + moments;
    let state: Vec<(Stored, Stored)> = (0..tensors).map(|i| (l.input(i), l.result(i))).collect();
    let grad = l.input(tensors);
    let pointers = |part: fn(&(Stored, Stored)) -> Stored| -> Vec<Argument> {
        let pointer = |i: usize| state.get(i).map_or(Argument::Null, |s| Argument::Pointer(part(s).span));
        [0, 1, 2].map(pointer).into()
    };
    let grad_pointer = vec![Argument::Pointer(grad.span)];
    let entry = [pointers(|s| s.0), grad_pointer, pointers(|s| s.1), vec![number(grad.count), number(0)]];
    let table = table([number(1), number(0)], vec![Argument::Struct(entry.concat())], (TRAINED, ENTRY));
    let call = call.with(table).also_read(grad);
    let call = state.iter().fold(call, |call, &(from, to)| call.also_read(from).also_write(to));
    if !l.output.commands.last_mut().is_some_and(|before| joins(&mut before.action, &call)) {
        l.launch(call);
    }
    Ok(())
}

/// Adds the tensor of `call` to the table of the launch before it, where both do the same and
/// neither waits for the other.
fn joins(before: &mut Action, call: &Call) -> bool {
    let independent = !before.conflicts(&Action::Launch(call.0.clone()));
    let Action::Launch(launch) = before else { return false };
    let (Some((table, others)), Some((new_table, new_others))) =
        (launch.arguments.split_last_mut(), call.0.arguments.split_last())
    else {
        return false;
    };
    let (Argument::Struct(table), Argument::Struct(new_table)) = (table, new_table) else { return false };
    let (
        [Argument::U32(tensors), _, Argument::Struct(entries), Argument::Zeros(rest)],
        [_, _, Argument::Struct(new), _],
    ) = (&mut table[..], &new_table[..])
    else {
        return false;
    };
    let same = launch.kernel == call.0.kernel && *others == *new_others;
    let [Argument::Struct(entry)] = &new[..] else { return false };
    if !same || !independent || *rest == 0 {
        return false;
    }
    let mut entry = entry.clone();
    if let Some(first) = entry.last_mut() {
        *first = Argument::U32(launch.grid[0]);
    }
    *rest -= ENTRY;
    entries.push(Argument::Struct(entry));
    *tensors += 1;
    launch.grid[0] += call.0.grid[0];
    launch.reads.extend(&call.0.reads);
    launch.writes.extend(&call.0.writes);
    true
}

pub(super) fn adamw(l: &mut Lowering<'_>, spec: AdamWSpec) -> Result<(), EngineError> {
    f32_state(l, spec.kept)?;
    let grad = l.input(3);
    let kernel = l.kernel(Source::Update, &[("TypeX", grad.dtype)], "adamw");
    let call = Call::new(kernel, [parts(grad.count), 1, 1], 256);
    let call = [4, 5, 6, 7].into_iter().fold(call, |call, i| call.read(l.input(i)));
    let numbers = [spec.beta1, spec.beta2, spec.eps, spec.weight_decay].map(Argument::F64);
    train(l, call.with(Argument::Struct(numbers.into())), 2)
}

pub(super) fn sgd(l: &mut Lowering<'_>, spec: SgdSpec) -> Result<(), EngineError> {
    f32_state(l, spec.kept)?;
    let grad = l.input(2);
    let kernel = l.kernel(Source::Update, &[("TypeX", grad.dtype)], "sgd");
    let call = Call::new(kernel, [parts(grad.count), 1, 1], 256);
    let call = [3, 4, 5].into_iter().fold(call, |call, i| call.read(l.input(i)));
    let numbers = [spec.momentum, spec.weight_decay].map(|x| Argument::F32(x as f32));
    let numbers = [&numbers[..], &[Argument::U32(spec.nesterov.into())]].concat();
    train(l, call.with(Argument::Struct(numbers)), 1)
}

/// Adds the copy of a staged value to its slot: in every step, or where `commit` is not zero.
pub(crate) fn copy_to_slot(
    output: &mut super::Output,
    from: Stored,
    to: Stored,
    commit: Option<Stored>,
    slot: &str,
) {
    let action = match commit {
        None => Action::Copy { from: from.span, to: to.span },
        Some(commit) => {
            let types = [("Element", word(from.dtype))];
            let kernel = output.modules.kernel(Source::Move, &types, "commit_copy");
            let call = Call::each(kernel, from.count).read(from).write(to).read(commit);
            Action::Launch(call.sizes([from.count]).0)
        }
    };
    output.commands.push(Command { action, at: slot.to_string(), step: None });
}
