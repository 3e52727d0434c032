//! The interpreter as an engine: slow, exact in what it rounds, and with memory of its own that no
//! host pointer reaches. Callers that pass the engine tests with it assume nothing about where
//! state lives.

use std::any::Any;

use super::{Rounding, Tensor, committed, evaluate};
use crate::dtype::DType;
use crate::engine::{
    Engine, EngineError, HostSlice, HostTensor, Memory, Program, State, Target, bind_slots, output_id,
    scalar_output,
};
use crate::engine_info::{Arithmetic, Device, EngineIdentity, PolicyDescription};
use crate::footprint::Footprint;
use crate::graph::{Graph, Node, OutputId, Slot};
use crate::input_checks::InputChecks;
use crate::plan::Plan;
use crate::precision::Policy;

/// Runs programs through the reference interpreter.
#[derive(Clone, Copy, Debug)]
pub struct InterpreterEngine {
    /// Whether results are rounded to their storage types.
    pub rounding: Rounding,
}

impl Target for InterpreterEngine {
    fn name(&self) -> String {
        "reference interpreter".into()
    }
    fn alignment(&self) -> usize {
        1
    }
    fn workspace_bytes(&self, _: &Graph, _: &Node) -> usize {
        0
    }
    fn checks_indices(&self) -> bool {
        true
    }
}

struct Slots {
    dtypes: Vec<DType>,
    tensors: Vec<Tensor>,
}

fn import(data: HostSlice<'_>, dtype: DType) -> Vec<f64> {
    match data {
        HostSlice::F32(x) => x.iter().map(|&v| dtype.round(v.into())).collect(),
        HostSlice::I32(x) => x.iter().map(|&v| v.into()).collect(),
    }
}

fn export(t: &Tensor, dtype: DType) -> HostTensor {
    match dtype {
        DType::I32 | DType::U8 => HostTensor::I32(t.data.iter().map(|&v| v as i32).collect()),
        _ => HostTensor::F32(t.data.iter().map(|&v| v as f32).collect()),
    }
}

impl Memory for Slots {
    fn upload(&mut self, slot: usize, data: HostSlice<'_>) -> Result<(), EngineError> {
        self.tensors[slot].data = import(data, self.dtypes[slot]);
        Ok(())
    }
    fn download(&self, slot: usize) -> Result<HostTensor, EngineError> {
        Ok(export(&self.tensors[slot], self.dtypes[slot]))
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

impl Engine for InterpreterEngine {
    fn name(&self) -> String {
        Target::name(self)
    }

    fn identity(&self) -> EngineIdentity {
        EngineIdentity::new("interpreter").with("rounding", format!("{:?}", self.rounding).to_lowercase())
    }

    fn device(&self) -> Device {
        Device { kind: "interpreter".into(), name: Target::name(self) }
    }

    fn describe(&self, _: &Policy) -> PolicyDescription {
        let text = "f64, rounded to the type that each value is stored in".to_string();
        PolicyDescription { arithmetic: Arithmetic::Widened, text }
    }

    fn target(&self) -> &dyn Target {
        self
    }

    fn new_state(&self, slots: &[Slot]) -> Result<State, EngineError> {
        let dtypes = slots.iter().map(|s| s.ty.dtype).collect();
        let tensors = slots.iter().map(|s| Tensor::filled(s.ty.shape.clone(), 0.0)).collect();
        Ok(State::new(slots, Box::new(Slots { dtypes, tensors })))
    }

    fn compile(&self, plan: &Plan, state: &State) -> Result<Box<dyn Program>, EngineError> {
        let slots = bind_slots(&plan.graph, state)?;
        let footprint = plan.footprint;
        let graph = plan.graph.clone();
        let (rounding, checks) = (self.rounding, InputChecks::of(&graph, self)?);
        Ok(Box::new(Interpreted { graph, slots, checks, rounding, values: Vec::new(), footprint }))
    }
}

struct Interpreted {
    graph: Graph,
    slots: Vec<usize>,
    checks: InputChecks,
    rounding: Rounding,
    values: Vec<Tensor>,
    /// As planned: the interpreter keeps every value, in f64.
    footprint: Footprint,
}

impl Program for Interpreted {
    fn run(&mut self, state: &mut State, inputs: &[(&str, HostSlice<'_>)]) -> Result<(), EngineError> {
        self.checks.check(inputs)?;
        let mut tensors = Vec::new();
        for (name, value) in self.graph.inputs() {
            let Some((n, data)) = inputs.iter().find(|(n, _)| *n == name) else { continue };
            let ty = &self.graph.value(value).ty;
            tensors.push((*n, Tensor::new(ty.shape.clone(), import(*data, ty.dtype))));
        }
        let foreign = || EngineError::ForeignState("reference interpreter".into());
        let memory = state.memory_mut::<Slots>().ok_or_else(foreign)?;
        let before: Vec<Tensor> = self.slots.iter().map(|&s| memory.tensors[s].clone()).collect();
        self.values = evaluate(&self.graph, &before, &tensors, self.rounding)?;
        let after = committed(&self.graph, &before, &self.values);
        for (&slot, tensor) in self.slots.iter().zip(after) {
            memory.tensors[slot] = tensor;
        }
        Ok(())
    }

    fn read(&self, output: &str) -> Result<HostTensor, EngineError> {
        let (_, value) = self.graph.outputs[output_id(&self.graph, output)?.0 as usize];
        let ty = &self.graph.value(value).ty;
        match self.values.get(value.0 as usize) {
            Some(tensor) => Ok(export(tensor, ty.dtype)),
            None => Ok(export(&Tensor::filled(ty.shape.clone(), 0.0), ty.dtype)),
        }
    }

    fn read_scalars(&mut self, outputs: &[OutputId], into: &mut [f32]) -> Result<(), EngineError> {
        for (&output, into) in outputs.iter().zip(into) {
            let value = scalar_output(&self.graph, output)?;
            *into = self.values.get(value.0 as usize).map_or(0.0, |tensor| tensor.data[0] as f32);
        }
        Ok(())
    }

    fn arena_bytes(&self) -> usize {
        self.footprint.arena
    }

    fn footprint(&self, _: &State) -> Result<Footprint, EngineError> {
        Ok(self.footprint)
    }
}
