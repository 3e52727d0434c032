//! Elementwise members of a group: one generated kernel, or what follows an anchor.

use halfstep_graph::engine::EngineError;
use halfstep_graph::{BatchNormPart, DType, Graph, Group, Op};

use super::{Call, Lowering};
use crate::chain::{Parameter, THREADS, chain, fits};
use crate::command::{Argument, Kernel};
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
    let chain = chain(l.graph, l.group).map_err(|e| l.unsupported(e))?;
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
    l.launch(call);
    Ok(())
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
    /// The chain of the group, or nothing but storing the result.
    pub fn of(l: &Lowering<'_>) -> Result<After, EngineError> {
        if l.group.nodes.len() == 1 {
            let to = l.result(0);
            let argument = Argument::Struct(vec![Argument::Pointer(to.span)]);
            return Ok(After {
                y: to.dtype,
                text: String::new(),
                argument,
                reads: Vec::new(),
                writes: vec![to],
            });
        }
        let chain = chain(l.graph, l.group).map_err(|e| l.unsupported(e))?;
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
