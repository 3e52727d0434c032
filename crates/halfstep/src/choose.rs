//! The choice of an engine.

use std::num::NonZeroUsize;
use std::sync::Arc;

use halfstep_cpu::isa::{Isa, IsaError};
use halfstep_cpu::{CpuEngine, Fusion};
use halfstep_graph::communicator::Communicator;
use halfstep_graph::engine::Engine;

/// The given number of threads, or as many as this process may use.
pub fn threads_or_all(threads: Option<NonZeroUsize>) -> NonZeroUsize {
    threads.unwrap_or_else(|| std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN))
}

/// The engine for this machine, with so many threads or as many as this process may use: the processor, with the best
/// instruction set it has or the one that `HALFSTEP_ISA` names. With `HALFSTEP_FUSE=0` each operation is a step of its
/// own.
///
/// # Errors
/// `HALFSTEP_ISA` names no instruction set, or one that this processor lacks.
pub fn engine(threads: Option<NonZeroUsize>) -> Result<Box<dyn Engine>, IsaError> {
    Ok(Box::new(cpu(threads)?))
}

/// [`engine`], as one of several ranks that share each training step.
///
/// # Errors
/// As there.
pub fn engine_of_rank(
    threads: Option<NonZeroUsize>,
    ranks: Arc<Communicator>,
) -> Result<Box<dyn Engine>, IsaError> {
    Ok(Box::new(cpu(threads)?.with_communicator(ranks)))
}

/// [`engine`], whose plans are those of one of so many ranks: to look at, not to run.
///
/// # Errors
/// As there.
pub fn planning_engine(
    threads: Option<NonZeroUsize>,
    ranks: NonZeroUsize,
) -> Result<Box<dyn Engine>, IsaError> {
    Ok(Box::new(cpu(threads)?.planning_for(ranks)))
}

fn cpu(threads: Option<NonZeroUsize>) -> Result<CpuEngine, IsaError> {
    let engine = CpuEngine::new(Isa::from_env()?, threads_or_all(threads));
    Ok(engine.with_fusion(Fusion::from_env()))
}
