//! Elementwise members of a group: one generated kernel, or what follows an anchor.

use halfstep_graph::engine::EngineError;
use halfstep_graph::{BatchNormPart, DType, Graph, Group, Op};

use super::table::{At, Table, place_for};
use super::{Call, Lowering, Output};
use crate::chain::{Many, Parameter, THREADS, chain, fits};
use crate::command::{Action, Argument, Kernel, Launch};
use crate::kernels::{Source, c_type};
use crate::stored::Stored;

/// Whether a group can be one step.
pub(crate) fn fuses(graph: &Graph, group: &Group) -> bool {
    let continues = group.anchor(graph).is_none_or(|n| {
        matches!(
            graph.node(n).op,
            Op::MatMul { .. }
                | Op::Conv2d(_)
                | Op::Conv2dGradInput { .. }
                | Op::BatchNormPart(BatchNormPart::Apply { .. })
                | Op::LayerNormGrad
        )
    });
    continues && fits(graph, group)
}

pub(super) fn chain_of(l: &mut Lowering<'_>) -> Result<(), EngineError> {
    let chain = chain(l.graph, l.group, None).map_err(|e| l.unsupported(e))?;
    let kernel = l.output.modules.generated(chain.text);
    let threads = (chain.count / chain.width).next_multiple_of(32).min(THREADS as usize);
    let blocks = chain.count.div_ceil(threads * chain.width);
    let mut call = Call::new(kernel, [blocks, 1, 1], threads as u32);
    for parameter in chain.parameters {
        call = match parameter {
            Parameter::Read(value) => call.read(l.value(value)),
            Parameter::Write(value) => call.write(l.value(value)),
            Parameter::Number(argument) => call.with(argument),
        };
    }
    if !joins(l.output, &call, &chain.many) {
        l.launch(call);
    }
    Ok(())
}

/// Joins `call` with an earlier launch of the same chain, at the place of either, if nothing
/// between has to be waited for there. Says whether it did.
fn joins(output: &mut Output, call: &Call, many: &Many) -> bool {
    let several = output.modules.known(&many.text);
    let table = Table { room: many.room, bytes: many.bytes };
    let one = |launch: &Launch| launch.kernel == call.0.kernel;
    let is_like = |launch: &Launch| one(launch) || Some(&launch.kernel) == several.as_ref();
    let has_room = |launch: &Launch| one(launch) || table.has_room(&launch.arguments[0]);
    let Some((at, place)) = place_for(&output.commands, call, |l| is_like(l) && has_room(l)) else {
        return false;
    };
    let mut command = output.commands.remove(at);
    if let Action::Launch(launch) = &mut command.action {
        let set = |arguments: &[Argument], first: u32| {
            Argument::Struct(arguments.iter().cloned().chain([Argument::U32(first)]).collect())
        };
        let new = set(&call.0.arguments, launch.grid[0]);
        if one(launch) {
            launch.arguments = vec![table.of(0, vec![set(&launch.arguments, 0)])];
            launch.kernel = output.modules.generated(many.text.clone());
        }
        table.add(&mut launch.arguments[0], new);
        launch.grid[0] += call.0.grid[0];
        launch.block = launch.block.max(call.0.block);
        launch.reads.extend(&call.0.reads);
        launch.writes.extend(&call.0.writes);
    }
    match place {
        At::Earlier => output.commands.insert(at, command),
        At::Later => output.commands.push(command),
    }
    true
}

/// What becomes of the first result of a group's anchor.
pub(super) struct After {
    /// A type and a text for the module of the anchor's kernel.
    y: DType,
    text: String,
    argument: Argument,
    reads: Vec<Stored>,
    writes: Vec<Stored>,
}

impl After {
    /// The chain of the group, or nothing but storing the result, for so many neighbours at a time.
    pub fn wide(l: &Lowering<'_>, wide: &str) -> Result<After, EngineError> {
        if l.group.nodes.len() == 1 {
            return Ok(After::stored(l.result(0)));
        }
        let chain = chain(l.graph, l.group, wide.parse().ok()).map_err(|e| l.unsupported(e))?;
        let (mut reads, mut writes) = (Vec::new(), Vec::new());
        let mut member = |parameter: Parameter| match parameter {
            Parameter::Read(value) => {
                reads.push(l.value(value));
                Argument::Pointer(l.value(value).span)
            }
            Parameter::Write(value) => {
                writes.push(l.value(value));
                Argument::Pointer(l.value(value).span)
            }
            Parameter::Number(argument) => argument,
        };
        let argument = Argument::Struct(chain.parameters.into_iter().map(&mut member).collect());
        Ok(After { y: DType::F32, text: chain.text, argument, reads, writes })
    }

    /// Nothing but storing the result.
    pub fn stored(to: Stored) -> After {
        let argument = Argument::Struct(vec![Argument::Pointer(to.span)]);
        After { y: to.dtype, text: String::new(), argument, reads: Vec::new(), writes: vec![to] }
    }

    /// A kernel whose results it takes.
    pub fn kernel(
        &self,
        l: &mut Lowering<'_>,
        source: Source,
        macros: &[(&str, &str)],
        entry: &str,
    ) -> Kernel {
        let types: Vec<(&str, &str)> = macros.iter().copied().chain([("TypeY", c_type(self.y))]).collect();
        l.output.modules.followed(source, &types, entry, &self.text)
    }

    /// Gives it to a call, as its next argument.
    pub fn given(self, call: Call) -> Call {
        let call = self.reads.into_iter().fold(call.with(self.argument), Call::also_read);
        self.writes.into_iter().fold(call, Call::also_write)
    }
}
