//! The choice of an engine.

use std::num::NonZeroUsize;

use halfstep_cpu::isa::{Isa, IsaError};
use halfstep_cpu::{CpuEngine, Fusion};
use halfstep_graph::engine::Engine;

/// The given number of threads, or as many as this process may use.
pub fn threads_or_all(threads: Option<NonZeroUsize>) -> NonZeroUsize {
    threads.unwrap_or_else(|| std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN))
}

/// The engine for this machine, with so many threads or as many as this process may use: the processor, with the best
/// instruction set it has or the one that `HALFSTEP_ISA` names. With `HALFSTEP_FUSE=0` each operation is a step of its
/// own.
///
/// Errors: `HALFSTEP_ISA` names no instruction set, or one that this processor lacks.
pub fn engine(threads: Option<NonZeroUsize>) -> Result<Box<dyn Engine>, IsaError> {
    let engine = CpuEngine::new(Isa::from_env()?, threads_or_all(threads));
    Ok(Box::new(engine.with_fusion(Fusion::from_env())))
}
