//! A GPU as an engine.

use std::sync::{Arc, Mutex};

use halfstep_graph::engine::{Engine, EngineError, Program, State, Target};
use halfstep_graph::engine_info::{Device as DeviceName, EngineIdentity, FreeMemory, PolicyDescription};
use halfstep_graph::precision::Policy;
use halfstep_graph::{Graph, Group, InputChecks, Node, Plan, Slot};
use sha2::{Digest, Sha256};

use crate::command::{Commands, Region};
use crate::describe::describe;
use crate::device::{Device, Facts};
use crate::kernels::texts;
use crate::lower::{fuses, kept_bytes, workspace_bytes};
use crate::paper::Paper;
use crate::program::{GpuProgram, lowered};
use crate::staging::staging;
use crate::state::{Arena, GpuMemory};
use crate::stored::{ALIGNMENT, Stored};

/// An engine on one device.
#[derive(Clone)]
pub struct GpuEngine {
    device: Arc<dyn Device>,
}

impl GpuEngine {
    /// The kind of device that it computes on.
    pub const KIND: &str = "GPU";

    /// The engine of a device.
    pub fn new(device: Arc<dyn Device>) -> GpuEngine {
        GpuEngine { device }
    }

    /// An engine to plan with, for a GPU of which no more is known or in use.
    pub fn planning(facts: Facts) -> GpuEngine {
        GpuEngine::new(Arc::new(Paper(facts)))
    }

    /// The name of an engine on such a GPU, as checkpoints have it.
    pub fn name_on(facts: &Facts) -> String {
        format!("{} {}, {}", Self::KIND, facts.architecture, facts.name)
    }

    /// Whether it is the name of an engine on some GPU.
    pub fn is_name(name: &str) -> bool {
        name.strip_prefix(Self::KIND).is_some_and(|rest| rest.starts_with(" sm_"))
    }

    /// All that one run of the plan's program does, over a state that has the plan's slots in their
    /// order.
    ///
    /// # Errors
    /// The plan asks for something that no kernel does.
    pub fn commands(&self, plan: &Plan) -> Result<Commands, EngineError> {
        InputChecks::of(&plan.graph, self)?;
        Ok(lowered(self.device.facts(), plan, &laid_out(&plan.graph.slots).0)?.commands)
    }
}

impl Target for GpuEngine {
    fn name(&self) -> String {
        Engine::name(self)
    }

    fn alignment(&self) -> usize {
        ALIGNMENT
    }

    fn workspace_bytes(&self, graph: &Graph, node: &Node) -> usize {
        workspace_bytes(graph, node, self.device.facts())
    }

    fn kept_bytes(&self, graph: &Graph, node: &Node) -> usize {
        kept_bytes(graph, node, self.device.facts())
    }

    fn staging_bytes(&self, graph: &Graph) -> usize {
        staging(graph).1
    }

    fn batches(&self) -> bool {
        true
    }

    fn fuses(&self, graph: &Graph, group: &Group) -> bool {
        fuses(graph, group)
    }
}

impl Engine for GpuEngine {
    fn name(&self) -> String {
        Self::name_on(self.device.facts())
    }

    fn identity(&self) -> EngineIdentity {
        let mut hash = Sha256::new();
        texts().for_each(|text| hash.update(text));
        let kernels: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        EngineIdentity::new(Self::KIND)
            .with("architecture", self.device.facts().architecture)
            .with("compiler", self.device.compiler())
            .with("kernels", kernels)
            .with("fusion", "on")
    }

    fn device(&self) -> DeviceName {
        DeviceName { kind: Self::KIND.into(), name: self.device.facts().name.clone() }
    }

    fn free_memory(&self) -> Option<FreeMemory> {
        self.device.free_memory()
    }

    fn describe(&self, policy: &Policy) -> PolicyDescription {
        describe(policy, self.device.facts().architecture)
    }

    fn target(&self) -> &dyn Target {
        self
    }

    fn new_state(&self, slots: &[Slot]) -> Result<State, EngineError> {
        let (stored, bytes) = laid_out(slots);
        let buffer = self.device.alloc(bytes)?;
        self.device.clear(&buffer)?;
        let arena = Mutex::new(Arena::default());
        let memory = GpuMemory { device: self.device.clone(), slots: stored, buffer, arena };
        Ok(State::new(slots, Box::new(memory)))
    }

    fn compile(&self, plan: &Plan, state: &State) -> Result<Box<dyn Program>, EngineError> {
        let checks = InputChecks::of(&plan.graph, self)?;
        let program = GpuProgram::new(self.device.clone(), checks, plan, state);
        Ok(Box::new(program.map_err(|error| match error {
            EngineError::DeviceMemory { device, bytes, free, .. } => {
                EngineError::DeviceMemory { device, bytes, free, holds: Some(plan.footprint) }
            }
            error => error,
        })?))
    }
}

/// Where each slot of a state lies, and how many bytes all take.
fn laid_out(slots: &[Slot]) -> (Vec<Stored>, usize) {
    let mut bytes = 0;
    let mut place = |slot: &Slot| {
        let (count, dtype) = (slot.ty.shape.count(), slot.ty.dtype);
        let stored = Stored::new(Region::Slots, bytes, count, dtype);
        bytes = (bytes + stored.span.bytes).next_multiple_of(ALIGNMENT);
        stored
    };
    (slots.iter().map(&mut place).collect(), bytes)
}
