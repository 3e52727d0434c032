//! An engine to read: what docs/guides/add-an-engine.md asks for, and no more. State and arena are
//! bytes that it owns; the arithmetic of each operation is the interpreter's, where another engine
//! launches a kernel. It runs `fp32` alone.

use std::any::Any;
use std::sync::Arc;

use halfstep_graph::engine::{
    Engine, EngineError, HostSlice, HostTensor, Memory, Program, State, Target, bind_slots, output_id,
    scalar_output,
};
use halfstep_graph::engine_info::{Arithmetic, Device, EngineIdentity, PolicyDescription, UnsupportedPolicy};
use halfstep_graph::interp::{Tensor, evaluate_node};
use halfstep_graph::precision::Policy;
use halfstep_graph::{
    DType, Footprint, Graph, InputChecks, Node, Op, OutputId, Place, Plan, Slot, Value, ValueId, ValueType,
    When,
};

const NAME: &str = "example engine";
/// Bytes of an element: it stores f32 and i32.
const WIDTH: usize = 4;

/// Stores numbers as `dtype` has them; those of floating-point types are rounded to f32.
fn store(bytes: &mut [u8], dtype: DType, numbers: impl Iterator<Item = f64>) {
    for (to, x) in bytes.chunks_exact_mut(WIDTH).zip(numbers) {
        let bits = if dtype == DType::I32 { (x as i32).cast_unsigned() } else { (x as f32).to_bits() };
        to.copy_from_slice(&bits.to_le_bytes());
    }
}

fn store_host(bytes: &mut [u8], data: HostSlice<'_>) {
    match data {
        HostSlice::F32(x) => store(bytes, DType::F32, x.iter().map(|&x| x.into())),
        HostSlice::I32(x) => store(bytes, DType::I32, x.iter().map(|&x| x.into())),
    }
}

fn load(bytes: &[u8], ty: &ValueType) -> Tensor {
    let bits = bytes.chunks_exact(WIDTH).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let number =
        |b: u32| if ty.dtype == DType::I32 { b.cast_signed().into() } else { f32::from_bits(b).into() };
    Tensor::new(ty.shape.clone(), bits.map(number).collect())
}

fn to_host(tensor: &Tensor, dtype: DType) -> HostTensor {
    if dtype == DType::I32 {
        return HostTensor::I32(tensor.data.iter().map(|&x| x as i32).collect());
    }
    HostTensor::F32(tensor.data.iter().map(|&x| x as f32).collect())
}

/// The bytes of each slot.
pub struct ExampleMemory(Vec<(ValueType, Vec<u8>)>);

impl ExampleMemory {
    /// Zeros.
    pub fn new(slots: &[Slot]) -> ExampleMemory {
        ExampleMemory(slots.iter().map(|s| (s.ty.clone(), vec![0; s.ty.bytes()])).collect())
    }
}

impl Memory for ExampleMemory {
    fn upload(&mut self, slot: usize, data: HostSlice<'_>) -> Result<(), EngineError> {
        store_host(&mut self.0[slot].1, data);
        Ok(())
    }
    fn download(&self, slot: usize) -> Result<HostTensor, EngineError> {
        let (ty, bytes) = &self.0[slot];
        Ok(to_host(&load(bytes, ty), ty.dtype))
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

fn foreign() -> EngineError {
    EngineError::ForeignState(NAME.into())
}

/// Has no settings.
pub struct ExampleEngine;

impl Target for ExampleEngine {
    fn name(&self) -> String {
        NAME.into()
    }
    fn alignment(&self) -> usize {
        WIDTH
    }
    fn workspace_bytes(&self, _: &Graph, _: &Node) -> usize {
        0
    }
    fn stores(&self, dtype: DType) -> bool {
        matches!(dtype, DType::F32 | DType::I32)
    }
    fn supports(&self, policy: &Policy) -> Result<(), UnsupportedPolicy> {
        if *policy == Policy::fp32() {
            return Ok(());
        }
        let (policy, reason) = (policy.name.clone(), "it runs fp32 alone".into());
        Err(UnsupportedPolicy { policy, target: NAME.into(), reason })
    }
}

impl Engine for ExampleEngine {
    fn name(&self) -> String {
        NAME.into()
    }
    fn identity(&self) -> EngineIdentity {
        EngineIdentity::new(NAME)
    }
    fn device(&self) -> Device {
        Device { kind: NAME.into(), name: "f64 arithmetic, f32 storage".into() }
    }
    fn describe(&self, _: &Policy) -> PolicyDescription {
        PolicyDescription { arithmetic: Arithmetic::Native, text: "f64 arithmetic, rounded to f32".into() }
    }
    fn target(&self) -> &dyn Target {
        self
    }
    fn new_state(&self, slots: &[Slot]) -> Result<State, EngineError> {
        Ok(State::new(slots, Box::new(ExampleMemory::new(slots))))
    }
    fn compile(&self, plan: &Plan, state: &State) -> Result<Box<dyn Program>, EngineError> {
        state.memory::<ExampleMemory>().ok_or_else(foreign)?;
        let refused = |(v, place): (&Value, &Place)| !self.stores(v.ty.dtype) || *place == Place::Transit;
        if let Some((v, _)) = plan.graph.values.iter().zip(&plan.places).find(|&pair| refused(pair)) {
            let at = &plan.graph.node(v.node).name;
            return Err(EngineError::Unsupported(format!("`{at}`: the {NAME} does not store {}", v.ty)));
        }
        let outputs = plan.graph.outputs.iter().map(|(_, v)| plan.graph.value(*v));
        let outputs = outputs.map(|v| to_host(&Tensor::filled(v.ty.shape.clone(), 0.0), v.ty.dtype));
        Ok(Box::new(ExampleProgram {
            slots: bind_slots(&plan.graph, state)?,
            checks: InputChecks::of(&plan.graph, self)?,
            arena: vec![0; plan.arena_bytes],
            outputs: outputs.collect(),
            plan: Arc::new(plan.clone()),
        }))
    }
}

struct ExampleProgram {
    plan: Arc<Plan>,
    /// For each slot of the graph, its position in the state.
    slots: Vec<usize>,
    checks: InputChecks,
    arena: Vec<u8>,
    /// What callers read, which outlives the run.
    outputs: Vec<HostTensor>,
}

impl ExampleProgram {
    fn ty(&self, value: ValueId) -> &ValueType {
        &self.plan.graph.value(value).ty
    }

    /// A constant, which a reshape may have another name for.
    fn constant(&self, value: ValueId) -> f64 {
        let node = self.plan.graph.node(self.plan.graph.value(value).node);
        if let Op::Const { value, .. } = node.op { value } else { self.constant(node.inputs[0]) }
    }

    fn load(&self, memory: &ExampleMemory, value: ValueId) -> Tensor {
        let ty = self.ty(value);
        match self.plan.places[value.0 as usize] {
            Place::Arena(at) => load(&self.arena[at..at + ty.bytes()], ty),
            Place::Slot(slot) => load(&memory.0[self.slots[slot.0 as usize]].1, ty),
            Place::Constant => Tensor::filled(ty.shape.clone(), self.constant(value)),
            Place::Inside | Place::Transit => unreachable!("no groups, and compile refuses sums over ranks"),
        }
    }

    /// Where a step may write, which is no constant.
    fn place_mut<'a>(&'a mut self, memory: &'a mut ExampleMemory, value: ValueId) -> &'a mut [u8] {
        let bytes = self.ty(value).bytes();
        match self.plan.places[value.0 as usize] {
            Place::Slot(slot) => &mut memory.0[self.slots[slot.0 as usize]].1,
            Place::Arena(at) => &mut self.arena[at..at + bytes],
            _ => &mut [],
        }
    }

    fn run_node(&mut self, memory: &mut ExampleMemory, node: &Node) -> Result<(), EngineError> {
        let operands: Vec<Tensor> = node.inputs.iter().map(|&v| self.load(memory, v)).collect();
        let results = evaluate_node(node, &operands.iter().collect::<Vec<_>>())?;
        for (&value, result) in node.outputs.iter().zip(results) {
            let dtype = self.ty(value).dtype;
            store(self.place_mut(memory, value), dtype, result.data.into_iter());
        }
        Ok(())
    }

    fn to_host(&self, memory: &ExampleMemory, value: ValueId) -> HostTensor {
        to_host(&self.load(memory, value), self.ty(value).dtype)
    }

    /// Writes staged values to their slots: the same bytes again where they were made in place.
    fn write_slots(&self, memory: &mut ExampleMemory) -> Result<(), EngineError> {
        let graph = &self.plan.graph;
        let commit = graph.commit.is_none_or(|v| self.load(memory, v).data[0] != 0.0);
        let due = graph.writes.iter().filter(|w| commit || w.when == When::Always);
        let staged: Vec<_> = due.map(|w| (w.slot.0, self.to_host(memory, w.value))).collect();
        staged.iter().try_for_each(|(slot, x)| memory.upload(self.slots[*slot as usize], x.as_slice()))
    }
}

impl Program for ExampleProgram {
    fn run(&mut self, state: &mut State, inputs: &[(&str, HostSlice<'_>)]) -> Result<(), EngineError> {
        self.checks.check(inputs)?;
        let memory = state.memory_mut::<ExampleMemory>().ok_or_else(foreign)?;
        let plan = self.plan.clone();
        let graph = &plan.graph;
        for node in &graph.nodes {
            let Op::Input { name } = &node.op else { continue };
            for (_, data) in inputs.iter().filter(|(given, _)| given == name) {
                store_host(self.place_mut(memory, node.outputs[0]), *data);
            }
        }
        let mut nodes = plan.groups.steps.iter().flat_map(|step| &step.nodes);
        nodes.try_for_each(|&node| self.run_node(memory, graph.node(node)))?;
        self.outputs = graph.outputs.iter().map(|(_, v)| self.to_host(memory, *v)).collect();
        self.write_slots(memory)
    }

    fn read(&self, output: &str) -> Result<HostTensor, EngineError> {
        Ok(self.outputs[output_id(&self.plan.graph, output)?.0 as usize].clone())
    }

    fn read_scalars(&mut self, outputs: &[OutputId], into: &mut [f32]) -> Result<(), EngineError> {
        for (&output, into) in outputs.iter().zip(into) {
            scalar_output(&self.plan.graph, output)?;
            *into = self.outputs[output.0 as usize].f32()[0];
        }
        Ok(())
    }

    fn arena_bytes(&self) -> usize {
        self.arena.len()
    }

    fn footprint(&self, _: &State) -> Result<Footprint, EngineError> {
        Ok(self.plan.footprint)
    }
}
