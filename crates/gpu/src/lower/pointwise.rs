//! Groups of elementwise members: one generated kernel.

use halfstep_graph::engine::EngineError;
use halfstep_graph::{Graph, Group};

use super::{Call, Lowering};
use crate::chain::{Parameter, THREADS, chain, fits};

/// Whether a group can be one step: elementwise members alone.
pub(crate) fn fuses(graph: &Graph, group: &Group) -> bool {
    group.anchor(graph).is_none() && fits(graph, group)
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
