//! Small programs of few kernels, for tests that run them often and look at every bit.

use std::sync::{Arc, Mutex};

use halfstep_gpu::GpuEngine;
use halfstep_gpu::command::Commands;
use halfstep_gpu::device::Device;
use halfstep_graph::engine::{Engine, EngineError, HostSlice, HostTensor, Target};
use halfstep_graph::precision::{Policy, assign};
use halfstep_graph::{AttentionSpec, Graph, Group, Node, Op, ValueId, ValueType, fuse, plan};
use halfstep_nn::{GptSpec, InputSpec, ModelSpec};
use halfstep_train::session::{Session, SessionSpec};

use crate::common::edited::Edited;

/// The bits of all results.
pub type Bits = Vec<Vec<u32>>;

/// A program: its results on a device, or what that found.
pub type Sample = Box<dyn Fn(Arc<dyn Device>) -> Result<Bits, String> + Send + Sync>;

fn bits(tensor: &HostTensor) -> Vec<u32> {
    match tensor {
        HostTensor::F32(x) => x.iter().map(|x| x.to_bits()).collect(),
        HostTensor::I32(x) => x.iter().map(|&x| x as u32).collect(),
    }
}

/// How a graph gets the workspace that its nodes need.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Workspace {
    AsNeeded,
    TooSmall,
}

/// What `GpuEngine` is as a target, but for workspaces.
struct WithWorkspace(GpuEngine, Workspace);

impl Target for WithWorkspace {
    fn name(&self) -> String {
        Target::name(&self.0)
    }
    fn alignment(&self) -> usize {
        self.0.alignment()
    }
    fn workspace_bytes(&self, graph: &Graph, node: &Node) -> usize {
        let needed = self.0.workspace_bytes(graph, node);
        if self.1 == Workspace::TooSmall { needed / 2 } else { needed }
    }
    fn fuses(&self, graph: &Graph, group: &Group) -> bool {
        self.0.fuses(graph, group)
    }
}

/// A graph under a policy, with data for its inputs in order.
struct Program {
    graph: Graph,
    inputs: Vec<Vec<f32>>,
    workspace: Workspace,
}

impl Program {
    /// The results of `build` on inputs of these shapes.
    fn new(
        policy: &str,
        shapes: &[&[usize]],
        build: impl Fn(&mut Graph, &[ValueId]) -> Vec<ValueId>,
    ) -> Program {
        let mut graph = Graph::new();
        let input = |(i, shape): (usize, &&[usize])| {
            graph.input(&format!("x{i}"), ValueType::f32(shape.to_vec().into()))
        };
        let values: Vec<ValueId> = shapes.iter().enumerate().map(input).collect();
        for (i, result) in build(&mut graph, &values).into_iter().enumerate() {
            graph.add_output(&format!("y{i}"), result);
        }
        let numbers = |(i, shape): (usize, &&[usize])| {
            let count: usize = shape.iter().product();
            (0..count).map(|n| (((n + 3 * i) * 7919 + 13) % 1009) as f32 / 500.0 - 1.0).collect()
        };
        let inputs = shapes.iter().enumerate().map(numbers).collect();
        let (graph, _) = assign(&graph, &Policy::named(policy).unwrap());
        Program { graph, inputs, workspace: Workspace::AsNeeded }
    }

    fn run(&self, device: Arc<dyn Device>) -> Result<Bits, EngineError> {
        let engine = GpuEngine::new(device);
        let planned = plan(fuse(&self.graph), &WithWorkspace(engine.clone(), self.workspace));
        let mut state = engine.new_state(&[])?;
        let mut program = engine.compile(&planned, &state)?;
        let names: Vec<String> = (0..self.inputs.len()).map(|i| format!("x{i}")).collect();
        let inputs = names.iter().zip(&self.inputs).map(|(name, x)| (&name[..], HostSlice::F32(x)));
        program.run(&mut state, &inputs.collect::<Vec<_>>())?;
        self.graph.outputs.iter().map(|(name, _)| Ok(bits(&program.read(name)?))).collect()
    }

    fn sample(self) -> Sample {
        Box::new(move |device| self.run(device).map_err(|e| e.to_string()))
    }
}

/// A product. Every fourth row of `a` and column of `b` is infinite: what is read beyond the end of
/// a row shows even where it is multiplied by zero.
pub fn matmul(policy: &str, [m, n, k]: [usize; 3], [ta, tb]: [bool; 2]) -> Sample {
    let (a, b) = (if ta { [k, m] } else { [m, k] }, if tb { [n, k] } else { [k, n] });
    let mut program = Program::new(policy, &[&a, &b], |g, x| vec![g.matmul(x[0], x[1], ta, tb).unwrap()]);
    for (data, (turned, width)) in program.inputs.iter_mut().zip([(ta, a[1]), (!tb, b[1])]) {
        // Elements between neighbours in rows, and in k.
        let (across, along) = if turned { (1, width) } else { (width, 1) };
        let end = if turned { width } else { data.len() };
        for row in (3 * across..end).step_by(4 * across) {
            (0..k).for_each(|at| data[row + at * along] = f32::INFINITY);
        }
    }
    program.sample()
}

/// So many products of these sizes.
pub fn matmuls(policy: &str, count: usize, [m, n, k]: [usize; 3], [ta, tb]: [bool; 2]) -> Sample {
    let (a, b) =
        (if ta { [count, k, m] } else { [count, m, k] }, if tb { [count, n, k] } else { [count, k, n] });
    Program::new(policy, &[&a, &b], |g, x| vec![g.matmul(x[0], x[1], ta, tb).unwrap()]).sample()
}

/// Softmax of rows.
pub fn softmax(rows: usize, columns: usize) -> Sample {
    Program::new("bf16", &[&[rows, columns]], |g, x| vec![g.softmax(x[0]).unwrap()]).sample()
}

fn sums(workspace: Workspace) -> Sample {
    let program = Program::new("fp32", &[&[600, 33]], |g, x| vec![g.sum(x[0], &[0]).unwrap()]);
    Program { workspace, ..program }.sample()
}

/// Sums of columns that are so long that each is added in parts.
pub fn column_sums() -> Sample {
    sums(Workspace::AsNeeded)
}

/// The same with half the workspace that the parts need.
pub fn column_sums_without_room() -> Sample {
    sums(Workspace::TooSmall)
}

/// Attention of one sequence, with its gradient.
pub fn attention(policy: &str, time: usize, heads: usize, dim: usize, causal: bool) -> Sample {
    let width = heads * dim;
    let spec = AttentionSpec { heads, causal };
    let build = move |g: &mut Graph, x: &[ValueId]| {
        let y = g.push(Op::Attention(spec), &x[..1]).unwrap();
        let dx = g.push(Op::AttentionGrad(spec), &[x[0], y[0], y[1], x[1]]).unwrap();
        vec![y[0], dx[0]]
    };
    Program::new(policy, &[&[1, time, 3 * width], &[1, time, width]], build).sample()
}

/// Two steps of AdamW on a GPT of one layer: the losses, and all state.
pub fn steps(policy: &'static str) -> Sample {
    Box::new(move |device| {
        let input = InputSpec::Tokens { length: 7, vocab: 5 };
        let gpt = GptSpec { width: 12, layers: 1, heads: 3, dropout: 0.1, ..GptSpec::default() };
        let model = ModelSpec::Gpt(gpt).build(&input, 5).unwrap();
        let policy = Policy::named(policy).unwrap();
        let engine = GpuEngine::new(device);
        let spec = SessionSpec { clip: Some(1.0), ..SessionSpec::new(&policy, 4, 5) };
        let mut session =
            Session::new(&engine, &*model, &input, &policy, &spec).map_err(|e| e.to_string())?;
        let tokens: Vec<i32> = (0..28).map(|i| i * 31 % 19 % 5).collect();
        let targets: Vec<i32> = (0..28).map(|i| i * 7 % 5).collect();
        let mut losses = Vec::new();
        for _ in 0..2 {
            let step = session.step(HostSlice::I32(&tokens), &targets, 0.01).map_err(|e| e.to_string())?;
            losses.push(step.loss.to_bits());
        }
        let slots = session
            .lasting_slots()
            .map(|slot| Ok(bits(&session.download(&slot.name).map_err(|e| e.to_string())?)));
        std::iter::once(Ok(losses)).chain(slots).collect()
    })
}

/// The commands of a sample on a device.
pub fn commands<D: Device + 'static>(device: &Arc<D>, sample: &Sample) -> Commands {
    let seen = Arc::new(Mutex::new(Commands::default()));
    let keep = seen.clone();
    let edited = Edited::new(device, move |commands| keep.lock().unwrap().clone_from(commands));
    sample(edited).unwrap();
    seen.lock().unwrap().clone()
}
