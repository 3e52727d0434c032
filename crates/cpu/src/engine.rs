//! The CPU as an engine: instruction set, threads, and the state in its memory.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use halfstep_graph::communicator::Communicator;
use halfstep_graph::engine::{Engine, EngineError, Program, State, Target};
use halfstep_graph::engine_info::{Device, EngineIdentity, FreeMemory, PolicyDescription};
use halfstep_graph::precision::Policy;
use halfstep_graph::{Graph, Group, InputChecks, Node, Op, Plan, Slot};

use crate::describe::describe;
use crate::gemm::Scratch;
use crate::host;
use crate::isa::Isa;
use crate::lower::{fuses, scratch_bytes, workspace_bytes};
use crate::machine::Machine;
use crate::memory::{Span, Where};
use crate::pool::Pool;
use crate::program::CpuProgram;
use crate::region::{ALIGNMENT, Region};
use crate::state::CpuMemory;

/// Runs programs on the processor's cores.
#[derive(Clone)]
pub struct CpuEngine {
    machine: Arc<Machine>,
    communicator: Option<Arc<Communicator>>,
    /// Ranks that plans are for.
    planned_ranks: usize,
}

impl CpuEngine {
    /// The kind of device that it computes on.
    pub const KIND: &str = "CPU";

    /// An engine on this instruction set with `threads` threads.
    pub fn new(isa: Isa, threads: NonZeroUsize) -> CpuEngine {
        let machine = Machine { isa, pool: Pool::new(threads), scratch: Mutex::new(Scratch::new()) };
        CpuEngine { machine: Arc::new(machine), communicator: None, planned_ranks: 1 }
    }

    /// The same engine as one of these ranks, for plans and programs made from now on.
    ///
    /// Ranks in one process each need an engine from [`CpuEngine::new`]: clones share working
    /// memory that a run holds, and would wait for each other forever.
    #[must_use]
    pub fn with_communicator(self, communicator: Arc<Communicator>) -> CpuEngine {
        CpuEngine { planned_ranks: communicator.size(), communicator: Some(communicator), ..self }
    }

    /// The same engine, whose plans are those of one of so many ranks. There is nobody to run them
    /// with.
    #[must_use]
    pub fn planning_for(self, ranks: NonZeroUsize) -> CpuEngine {
        CpuEngine { planned_ranks: ranks.get(), communicator: None, ..self }
    }

    /// The instruction set.
    pub fn isa(&self) -> Isa {
        self.machine.isa
    }

    /// The number of threads.
    pub fn threads(&self) -> usize {
        self.machine.pool.threads()
    }
}

impl Target for CpuEngine {
    fn name(&self) -> String {
        Engine::name(self)
    }

    fn ranks(&self) -> usize {
        self.planned_ranks
    }

    fn alignment(&self) -> usize {
        ALIGNMENT
    }

    fn workspace_bytes(&self, graph: &Graph, node: &Node) -> usize {
        workspace_bytes(graph, node, self.isa(), self.threads())
    }

    fn fuses(&self, graph: &Graph, group: &Group) -> bool {
        fuses(graph, group)
    }

    fn is_batch_invariant(&self, graph: &Graph) -> bool {
        // All other kernels compute each row, image or head by itself.
        !graph.nodes.iter().any(|node| matches!(node.op, Op::MatMul { ta: true, .. }))
    }

    fn scratch_bytes(&self, graph: &Graph, step: &Group) -> usize {
        scratch_bytes(graph, step, self.isa(), self.threads())
    }
}

impl Engine for CpuEngine {
    fn name(&self) -> String {
        let plural = if self.threads() == 1 { "" } else { "s" };
        format!("{} {}, {} thread{plural}", Self::KIND, self.isa(), self.threads())
    }

    fn identity(&self) -> EngineIdentity {
        EngineIdentity::new(Self::KIND).with("instruction set", self.isa()).with("fusion", "on")
    }

    fn device(&self) -> Device {
        Device { kind: Self::KIND.into(), name: host::processor() }
    }

    fn free_memory(&self) -> Option<FreeMemory> {
        host::free_memory()
    }

    fn describe(&self, policy: &Policy) -> PolicyDescription {
        describe(policy, self.isa().level())
    }

    fn target(&self) -> &dyn Target {
        self
    }

    fn communicator(&self) -> Option<&Communicator> {
        self.communicator.as_deref()
    }

    fn new_state(&self, slots: &[Slot]) -> Result<State, EngineError> {
        let mut bytes = 0;
        let span = |slot: &Slot| {
            let offset = bytes;
            bytes = (bytes + slot.ty.bytes()).next_multiple_of(ALIGNMENT);
            Span { place: Where::Slots, offset, count: slot.ty.shape.count(), dtype: slot.ty.dtype }
        };
        let spans = slots.iter().map(span).collect();
        let memory = CpuMemory { spans, region: Region::new(bytes)?, arena: Region::new(0)? };
        Ok(State::new(slots, Box::new(memory)))
    }

    fn compile(&self, plan: &Plan, state: &State) -> Result<Box<dyn Program>, EngineError> {
        let checks = InputChecks::of(&plan.graph, self)?;
        let (machine, communicator) = (self.machine.clone(), self.communicator.clone());
        Ok(Box::new(CpuProgram::new(machine, communicator, checks, plan, state)?))
    }
}
