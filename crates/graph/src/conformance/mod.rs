//! What every engine must pass: the executor's tests, written once against the trait.
//!
//! Authors of an engine call [`check`] from a test, or its parts one by one while the engine grows:
//! [`operations`], then [`step`], [`state`], [`fusion`] and [`collectives`]. Results are compared
//! with those of the f64 interpreter, within bounds that are derived from the number formats. A
//! part runs under every policy that the engine supports, and returns those that it left out.

mod case;
mod collectives;
mod contractions;
mod fusion;
mod network;
mod operations;
mod state;
mod step;

use halfstep_float::Philox;

pub use collectives::{MakeRank, collectives};
pub use fusion::{fusible_programs, fusion, same_bits};
pub use operations::{operations, operations_under};
pub use state::state;
pub use step::step;

use crate::engine::{Engine, HostTensor, Program, State};
use crate::graph::Graph;
use crate::interp::Tensor;
use crate::precision::{Policy, assign};
use crate::{Shape, fuse, plan};

/// Runs every part on `engine`, and the sums over ranks on the engines that `rank` makes, where it
/// can be one of several. Returns what was left out, because the engine does not support it.
///
/// # Panics
/// If a check fails, with what was expected.
#[must_use = "what was left out was not tested"]
pub fn check(engine: &dyn Engine, rank: Option<MakeRank<'_>>) -> Vec<String> {
    let mut left_out = operations(engine);
    left_out.extend(step(engine));
    state(engine);
    left_out.extend(fusion(engine));
    match rank {
        Some(rank) => collectives(rank),
        None => left_out.push("sums over ranks".into()),
    }
    left_out.sort();
    left_out.dedup();
    left_out
}

/// A numbered draw in ±1.
fn draw(stream: u64, i: usize) -> f32 {
    Philox::new(2026).word(stream, i as u64) as i32 as f32 / i32::MAX as f32
}

fn numbers(stream: u64, shape: &Shape) -> Vec<f32> {
    (0..shape.count()).map(|i| draw(stream, i)).collect()
}

/// Whether `engine` supports the policy; if not, what it says of it is added to `left_out`.
fn supported(engine: &dyn Engine, policy: &Policy, left_out: &mut Vec<String>) -> bool {
    engine.target().supports(policy).map_err(|refusal| left_out.push(refusal.to_string())).is_ok()
}

/// The named policies that `engine` supports; the others are added to `left_out`.
fn policies(engine: &dyn Engine, left_out: &mut Vec<String>) -> Vec<Policy> {
    let named = |name: &&str| Policy::named(name).expect("a named policy");
    Policy::NAMES.iter().map(named).filter(|policy| supported(engine, policy, left_out)).collect()
}

fn compile(engine: &dyn Engine, graph: &Graph, policy: &Policy) -> (Graph, State, Box<dyn Program>) {
    let (assigned, _) = assign(graph, policy);
    let fused = fuse(&assigned.without_dead_nodes());
    let planned = plan(fused.clone(), engine.target());
    let state = engine.new_state(&planned.graph.slots).expect("memory for the state");
    let program = engine.compile(&planned, &state).unwrap_or_else(|e| panic!("compiling: {e}\n{fused}"));
    (fused, state, program)
}

/// A tensor of these f32 numbers.
fn tensor(shape: &Shape, data: &[f32]) -> Tensor {
    Tensor::new(shape.clone(), data.iter().map(|&x| x.into()).collect())
}

fn tensor_of(shape: &Shape, x: &HostTensor) -> Tensor {
    let data = match x {
        HostTensor::F32(x) => x.iter().map(|&v| v.into()).collect(),
        HostTensor::I32(x) => x.iter().map(|&v| v.into()).collect(),
    };
    Tensor::new(shape.clone(), data)
}

fn tensors_of(state: &State) -> Vec<Tensor> {
    let tensor =
        |slot: &crate::Slot| tensor_of(&slot.ty.shape, &state.download(&slot.name).expect("a download"));
    state.slots().iter().map(tensor).collect()
}
