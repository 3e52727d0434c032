//! An engine for tests of what the commands ask of one: the CPU's, with answers of its own.

use halfstep::EngineRequest;
use halfstep::graph::engine::{Engine, EngineError, Program, State, Target};
use halfstep::graph::engine_info::{Device, EngineIdentity, FreeMemory, PolicyDescription};
use halfstep::graph::precision::Policy;
use halfstep::graph::{DType, Graph, Group, Node, Plan, Slot};

/// Computes as the CPU does, stores f32 and whole numbers alone, and calls itself something else.
pub struct Other(Box<dyn Engine>);

impl Other {
    /// One with as many threads as there may be.
    pub fn new() -> Other {
        Other(halfstep::engine(EngineRequest::default()).unwrap())
    }
}

impl Target for Other {
    fn name(&self) -> String {
        "other".into()
    }
    fn alignment(&self) -> usize {
        self.0.target().alignment()
    }
    fn workspace_bytes(&self, graph: &Graph, node: &Node) -> usize {
        self.0.target().workspace_bytes(graph, node)
    }
    fn fuses(&self, graph: &Graph, group: &Group) -> bool {
        self.0.target().fuses(graph, group)
    }
    fn stores(&self, dtype: DType) -> bool {
        matches!(dtype, DType::F32 | DType::I32)
    }
    fn scratch_bytes(&self, graph: &Graph, step: &Group) -> usize {
        self.0.target().scratch_bytes(graph, step)
    }
}

impl Engine for Other {
    fn name(&self) -> String {
        Target::name(self)
    }
    fn identity(&self) -> EngineIdentity {
        EngineIdentity::new("other")
    }
    fn device(&self) -> Device {
        Device { kind: "XPU".into(), name: "made-up device".into() }
    }
    fn free_memory(&self) -> Option<FreeMemory> {
        Some(FreeMemory { bytes: 1 << 40, limit: "are free on the made-up device".into() })
    }
    fn describe(&self, policy: &Policy) -> PolicyDescription {
        self.0.describe(policy)
    }
    fn target(&self) -> &dyn Target {
        self
    }
    fn new_state(&self, slots: &[Slot]) -> Result<State, EngineError> {
        self.0.new_state(slots)
    }
    fn compile(&self, plan: &Plan, state: &State) -> Result<Box<dyn Program>, EngineError> {
        self.0.compile(plan, state)
    }
}
