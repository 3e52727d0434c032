//! An engine that runs each operation as a step of its own, to see which one does what.

use crate::communicator::Communicator;
use crate::dtype::DType;
use crate::engine::{Engine, EngineError, Program, State, Target};
use crate::engine_info::{Device, EngineIdentity, FreeMemory, PolicyDescription, UnsupportedPolicy};
use crate::graph::{Graph, Node, Slot};
use crate::group::Group;
use crate::plan::Plan;
use crate::precision::Policy;

/// An engine without its groups: its plans have one step for each operation. The bits of a program
/// are the same.
#[derive(Clone, Copy)]
pub struct Unfused<'a>(pub &'a dyn Engine);

impl Target for Unfused<'_> {
    fn name(&self) -> String {
        self.0.target().name()
    }
    fn ranks(&self) -> usize {
        self.0.target().ranks()
    }
    fn alignment(&self) -> usize {
        self.0.target().alignment()
    }
    fn workspace_bytes(&self, graph: &Graph, node: &Node) -> usize {
        self.0.target().workspace_bytes(graph, node)
    }
    fn kept_bytes(&self, graph: &Graph, node: &Node) -> usize {
        self.0.target().kept_bytes(graph, node)
    }
    fn staging_bytes(&self, graph: &Graph) -> usize {
        self.0.target().staging_bytes(graph)
    }
    fn batches(&self) -> bool {
        self.0.target().batches()
    }
    fn checks_indices(&self) -> bool {
        self.0.target().checks_indices()
    }
    fn stores(&self, dtype: DType) -> bool {
        self.0.target().stores(dtype)
    }
    fn supports(&self, policy: &Policy) -> Result<(), UnsupportedPolicy> {
        self.0.target().supports(policy)
    }
    fn scratch_bytes(&self, graph: &Graph, step: &Group) -> usize {
        self.0.target().scratch_bytes(graph, step)
    }
}

impl Engine for Unfused<'_> {
    fn name(&self) -> String {
        self.0.name()
    }
    fn identity(&self) -> EngineIdentity {
        self.0.identity().with("fusion", "off")
    }
    fn device(&self) -> Device {
        self.0.device()
    }
    fn free_memory(&self) -> Option<FreeMemory> {
        self.0.free_memory()
    }
    fn describe(&self, policy: &Policy) -> PolicyDescription {
        self.0.describe(policy)
    }
    fn target(&self) -> &dyn Target {
        self
    }
    fn communicator(&self) -> Option<&Communicator> {
        self.0.communicator()
    }
    fn new_state(&self, slots: &[Slot]) -> Result<State, EngineError> {
        self.0.new_state(slots)
    }
    fn compile(&self, plan: &Plan, state: &State) -> Result<Box<dyn Program>, EngineError> {
        self.0.compile(plan, state)
    }
}
