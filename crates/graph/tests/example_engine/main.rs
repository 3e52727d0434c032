//! The example engine passes the parts of the conformance suite that it is made for, and a fault in
//! any part of it makes the corresponding part of the suite fail.

mod engine;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use engine::{ExampleEngine, ExampleMemory};
use halfstep_graph::engine::{Engine, EngineError, HostSlice, HostTensor, Memory, Program, State, Target};
use halfstep_graph::engine_info::{Device, EngineIdentity, PolicyDescription};
use halfstep_graph::precision::Policy;
use halfstep_graph::{
    BatchNormPart, Binary, DType, Footprint, Graph, Op, OutputId, Phase, Place, Plan, ReduceKind, Slot,
    Unary, When, conformance, plan,
};

#[test]
fn it_is_short() {
    let lines = include_str!("engine.rs").lines().count();
    assert!(lines <= 250, "{lines} lines");
}

#[test]
fn it_passes_operations_step_and_state() {
    let refused = Policy::NAMES.len() - 1;
    let left_out = conformance::operations(&ExampleEngine);
    assert_eq!(
        left_out.iter().filter(|text| text.contains("does not run on")).count(),
        refused,
        "{left_out:?}"
    );
    let unstored =
        |text: &&String| text.starts_with("cast: ") || text.contains("quantise") || text.contains("codes");
    assert_eq!(left_out.iter().filter(unstored).count(), left_out.len() - refused, "{left_out:?}");
    let left_out = conformance::step(&ExampleEngine);
    assert!(left_out.iter().all(|text| text.starts_with("`bf16` does not run on")), "{left_out:?}");
    conformance::state(&ExampleEngine);
}

#[test]
fn it_refuses_what_it_does_not_support() {
    let mut graph = Graph::new();
    let x = graph.scalar(1.0);
    let low = graph.scoped("low", |g| g.cast(x, DType::Bf16)).unwrap();
    graph.add_output("low", low);
    let planned = plan(graph, &ExampleEngine);
    let state = ExampleEngine.new_state(&[]).unwrap();
    let refusal = ExampleEngine.compile(&planned, &state).err().map(|e| e.to_string());
    assert_eq!(refusal.as_deref(), Some("`low`: the example engine does not store bf16[]"));
}

/// What [`Faulty`] does wrong.
#[derive(Clone, Copy)]
enum Fault {
    /// One operation is taken for another.
    Operation(fn(&mut Op)),
    /// Steps, places or writes are not those of the plan.
    Plan(fn(&mut Plan)),
    /// What is uploaded is changed.
    Upload(fn(&mut Vec<f32>)),
    /// What is downloaded is changed.
    Download(fn(&mut Vec<f32>)),
    /// Each program has state of its own, and only copies of it reach the state that is shared.
    Sharing,
}

/// The example engine with a fault.
struct Faulty(Fault);

impl Engine for Faulty {
    fn name(&self) -> String {
        Engine::name(&ExampleEngine)
    }
    fn identity(&self) -> EngineIdentity {
        ExampleEngine.identity()
    }
    fn device(&self) -> Device {
        ExampleEngine.device()
    }
    fn describe(&self, policy: &Policy) -> PolicyDescription {
        ExampleEngine.describe(policy)
    }
    fn target(&self) -> &dyn Target {
        &ExampleEngine
    }
    fn new_state(&self, slots: &[Slot]) -> Result<State, EngineError> {
        let inner = ExampleMemory::new(slots);
        Ok(State::new(slots, Box::new(FaultyMemory { inner, fault: self.0 })))
    }
    fn compile(&self, plan: &Plan, state: &State) -> Result<Box<dyn Program>, EngineError> {
        let mut plan = plan.clone();
        match self.0 {
            Fault::Operation(change) => plan.graph.nodes.iter_mut().for_each(|node| change(&mut node.op)),
            Fault::Plan(change) => change(&mut plan),
            _ => {}
        }
        let program = ExampleEngine.compile(&plan, state)?;
        if !matches!(self.0, Fault::Sharing) {
            return Ok(program);
        }
        let own = ExampleEngine.new_state(state.slots())?;
        Ok(Box::new(Unshared { program, own, has_run: false }))
    }
}

/// Passes itself off as the memory of the example engine.
struct FaultyMemory {
    inner: ExampleMemory,
    fault: Fault,
}

impl Memory for FaultyMemory {
    fn upload(&mut self, slot: usize, data: HostSlice<'_>) -> Result<(), EngineError> {
        match (data, self.fault) {
            (HostSlice::F32(x), Fault::Upload(change)) => {
                let mut x = x.to_vec();
                change(&mut x);
                self.inner.upload(slot, HostSlice::F32(&x))
            }
            _ => self.inner.upload(slot, data),
        }
    }
    fn download(&self, slot: usize) -> Result<HostTensor, EngineError> {
        let mut data = self.inner.download(slot)?;
        if let (HostTensor::F32(x), Fault::Download(change)) = (&mut data, self.fault) {
            change(x);
        }
        Ok(data)
    }
    fn as_any(&self) -> &dyn Any {
        self.inner.as_any()
    }
    fn as_any_mut(&mut self) -> &mut dyn Any {
        self.inner.as_any_mut()
    }
}

/// A program that takes the shared state for its own in its first run, and is deaf to what others
/// write afterwards.
struct Unshared {
    program: Box<dyn Program>,
    own: State,
    has_run: bool,
}

fn copy(from: &State, to: &mut State) -> Result<(), EngineError> {
    from.slots().iter().try_for_each(|s| to.upload(&s.name, from.download(&s.name)?.as_slice()))
}

impl Program for Unshared {
    fn run(&mut self, state: &mut State, inputs: &[(&str, HostSlice<'_>)]) -> Result<(), EngineError> {
        if !std::mem::replace(&mut self.has_run, true) {
            copy(state, &mut self.own)?;
        }
        self.program.run(&mut self.own, inputs)?;
        copy(&self.own, state)
    }
    fn read(&self, output: &str) -> Result<HostTensor, EngineError> {
        self.program.read(output)
    }
    fn read_scalars(&mut self, outputs: &[OutputId], into: &mut [f32]) -> Result<(), EngineError> {
        self.program.read_scalars(outputs, into)
    }
    fn arena_bytes(&self) -> usize {
        self.program.arena_bytes()
    }
    fn footprint(&self, state: &State) -> Result<Footprint, EngineError> {
        self.program.footprint(state)
    }
}

/// Checks that the part of the suite fails with a message that contains `expected`.
fn fails(part: fn(&dyn Engine), fault: Fault, expected: &str) {
    let failure = catch_unwind(AssertUnwindSafe(|| part(&Faulty(fault)))).expect_err(expected);
    let message = failure.downcast_ref::<String>().cloned().unwrap_or_default();
    assert!(message.contains(expected), "expected {expected:?}, found: {message}");
}

fn operations(engine: &dyn Engine) {
    let _ = conformance::operations(engine);
}

fn step(engine: &dyn Engine) {
    let _ = conformance::step(engine);
}

#[test]
fn a_fault_in_an_operation_fails_operations() {
    let tanh = |op: &mut Op| {
        if *op == Op::Unary(Unary::Tanh) {
            *op = Op::Unary(Unary::Sigmoid);
        }
    };
    fails(operations, Fault::Operation(tanh), "of Tanh under fp32 on example engine");
    let div = |op: &mut Op| {
        if *op == Op::Binary(Binary::Div) {
            *op = Op::Binary(Binary::Mul);
        }
    };
    fails(operations, Fault::Operation(div), "of Div of ");
    let mean = |op: &mut Op| {
        if let Op::Reduce { kind: kind @ ReduceKind::Mean, .. } = op {
            *kind = ReduceKind::Sum;
        }
    };
    fails(operations, Fault::Operation(mean), "of reduce Mean ");
    let rows = |op: &mut Op| {
        if let Op::BatchNormPart(BatchNormPart::Dx { rows }) = op {
            *rows += 1;
        }
    };
    fails(operations, Fault::Operation(rows), "of batch_norm ");
}

#[test]
fn a_fault_in_the_run_fails_step() {
    let order = |plan: &mut Plan| plan.groups.steps.swap(0, 1);
    fails(step, Fault::Plan(order), "after 1 steps");
    // Gradients share the end of the arena, though they are alive at the same time.
    let places = |plan: &mut Plan| {
        for node in plan.graph.nodes.iter().filter(|node| node.phase == Phase::Backward) {
            for v in &node.outputs {
                if let place @ Place::Arena(_) = &mut plan.places[v.0 as usize] {
                    *place = Place::Arena(plan.arena_bytes - plan.graph.value(*v).ty.bytes());
                }
            }
        }
    };
    fails(step, Fault::Plan(places), "after 1 steps");
    let commit = |plan: &mut Plan| plan.graph.commit = None;
    fails(step, Fault::Plan(commit), "across a skipped step");
    let always = |plan: &mut Plan| plan.graph.writes.iter_mut().for_each(|w| w.when = When::Committed);
    fails(step, Fault::Plan(always), "attempts across a skipped step");
}

#[test]
fn a_fault_in_the_state_fails_state() {
    fails(conformance::state, Fault::Upload(|x| x[0] = 0.0), "after the upload of w");
    fails(conformance::state, Fault::Download(|x| x.rotate_left(1)), "after the upload of w");
    fails(conformance::state, Fault::Sharing, "the other program has");
}
