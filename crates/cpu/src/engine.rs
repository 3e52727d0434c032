//! The CPU as an engine: instruction set, threads, and the state in its memory.

use std::any::Any;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use halfstep_float::{bf16_from_f32, f16_from_f32, f32_from_bf16, f32_from_f16};
use halfstep_graph::engine::{Engine, EngineError, HostSlice, HostTensor, Memory, Program, State, Target};
use halfstep_graph::{Graph, Group, Node, Plan, Slot};

use crate::gemm::Scratch;
use crate::isa::Isa;
use crate::lower::{fuses, scratch_bytes, workspace_bytes};
use crate::memory::{ALIGNMENT, Region, Span, View, ViewMut, Where};
use crate::pool::Pool;
use crate::program::CpuProgram;

/// What programs run on; shared by all programs of an engine.
pub(crate) struct Machine {
    pub isa: Isa,
    pub pool: Pool,
    /// Packing buffers of the matrix products; locked while a program runs.
    pub scratch: Mutex<Scratch>,
}

/// Whether groups of operations run as one step. The bits of a program are the same either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fusion {
    /// Wherever it saves memory traffic.
    #[default]
    On,
    /// Never: one step for each operation, to find which one does what.
    Off,
}

impl Fusion {
    /// [`Fusion::Off`] if the environment variable `HALFSTEP_FUSE` is `0`.
    pub fn from_env() -> Fusion {
        match std::env::var_os("HALFSTEP_FUSE") {
            Some(value) if value == "0" => Fusion::Off,
            _ => Fusion::On,
        }
    }
}

/// Runs programs on the processor's cores.
#[derive(Clone)]
pub struct CpuEngine {
    machine: Arc<Machine>,
    fusion: Fusion,
}

impl CpuEngine {
    /// An engine on this instruction set with `threads` threads.
    pub fn new(isa: Isa, threads: NonZeroUsize) -> CpuEngine {
        let machine = Machine { isa, pool: Pool::new(threads), scratch: Mutex::new(Scratch::new()) };
        CpuEngine { machine: Arc::new(machine), fusion: Fusion::On }
    }

    /// The same engine with or without groups, for plans made for it from now on.
    #[must_use]
    pub fn with_fusion(self, fusion: Fusion) -> CpuEngine {
        CpuEngine { fusion, ..self }
    }

    /// The instruction set.
    pub fn isa(&self) -> Isa {
        self.machine.isa
    }

    /// The number of threads.
    pub fn threads(&self) -> usize {
        self.machine.pool.threads()
    }

    /// Like [`Engine::compile`], as the CPU's own type, which can also time each operation.
    pub fn compile_cpu(&self, plan: &Plan, state: &State) -> Result<CpuProgram, EngineError> {
        CpuProgram::new(self.machine.clone(), plan, state)
    }
}

impl Target for CpuEngine {
    fn name(&self) -> String {
        Engine::name(self)
    }

    fn alignment(&self) -> usize {
        ALIGNMENT
    }

    fn workspace_bytes(&self, graph: &Graph, node: &Node) -> usize {
        workspace_bytes(graph, node, self.isa(), self.threads())
    }

    fn fuses(&self, graph: &Graph, group: &Group) -> bool {
        self.fusion == Fusion::On && fuses(graph, group)
    }

    fn scratch_bytes(&self, graph: &Graph, step: &Group) -> usize {
        scratch_bytes(graph, step, self.isa(), self.threads())
    }
}

impl Engine for CpuEngine {
    fn name(&self) -> String {
        let plural = if self.threads() == 1 { "" } else { "s" };
        format!("CPU {}, {} thread{plural}", self.isa(), self.threads())
    }

    fn target(&self) -> &dyn Target {
        self
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
        Ok(Box::new(self.compile_cpu(plan, state)?))
    }
}

/// All slots in one region, and the scratch region that the programs over them share.
pub(crate) struct CpuMemory {
    pub spans: Vec<Span>,
    pub region: Region,
    pub arena: Region,
}

impl CpuMemory {
    /// Makes the scratch region at least this large. Its contents have no meaning between runs.
    ///
    /// Errors: not enough memory; there is none then until the next call.
    pub fn reserve(&mut self, bytes: usize) -> Result<(), EngineError> {
        if self.arena.bytes() < bytes {
            // The old region goes first, so that both never exist together.
            self.arena = Region::new(0)?;
            self.arena = Region::new(bytes)?;
        }
        Ok(())
    }
}

impl Memory for CpuMemory {
    fn upload(&mut self, slot: usize, data: HostSlice<'_>) {
        upload(self.region.view_mut(self.spans[slot]), data);
    }
    fn download(&self, slot: usize) -> HostTensor {
        download(self.region.view(self.spans[slot]))
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

/// Copies host values in, rounding to the storage type. Lengths and kinds were checked by the caller.
pub(crate) fn upload(to: ViewMut<'_>, from: HostSlice<'_>) {
    match (to, from) {
        (ViewMut::F32(to), HostSlice::F32(from)) => to.copy_from_slice(from),
        (ViewMut::Bf16(to), HostSlice::F32(from)) => {
            to.iter_mut().zip(from).for_each(|(to, &x)| *to = bf16_from_f32(x));
        }
        (ViewMut::F16(to), HostSlice::F32(from)) => {
            to.iter_mut().zip(from).for_each(|(to, &x)| *to = f16_from_f32(x));
        }
        (ViewMut::I32(to), HostSlice::I32(from)) => to.copy_from_slice(from),
        (ViewMut::I32(_), HostSlice::F32(_)) | (_, HostSlice::I32(_)) => {
            unreachable!("the kind was checked against the value's type")
        }
    }
}

/// Copies values out.
pub(crate) fn download(from: View<'_>) -> HostTensor {
    match from {
        View::F32(x) => HostTensor::F32(x.to_vec()),
        View::Bf16(x) => HostTensor::F32(x.iter().map(|&c| f32_from_bf16(c)).collect()),
        View::F16(x) => HostTensor::F32(x.iter().map(|&c| f32_from_f16(c)).collect()),
        View::I32(x) => HostTensor::I32(x.to_vec()),
    }
}
