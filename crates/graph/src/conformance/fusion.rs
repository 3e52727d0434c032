//! The part that checks that groups of operations change no bit.

use super::{draw, policies};
use crate::engine::{Engine, HostSlice, HostTensor};
use crate::graph::{Graph, Init, SlotKind, ValueId};
use crate::op::{ConvGeometry, SlotId};
use crate::precision::{Policy, assign};
use crate::unfused::Unfused;
use crate::{GraphError, Plan, Shape, ValueType, differentiate, fuse, plan};

type Result<T> = std::result::Result<T, GraphError>;

/// Runs programs with the groups that the engine makes and with none, under every policy that it
/// supports, and returns what it says of the others. An engine that makes no groups has nothing to
/// show here.
///
/// # Panics
/// If a bit differs.
#[must_use = "what was left out was not tested"]
pub fn fusion(engine: &dyn Engine) -> Vec<String> {
    let mut left_out = Vec::new();
    for policy in policies(engine, &mut left_out) {
        fusible_programs(&policy).iter().for_each(|(_, graph)| same_bits(engine, graph));
    }
    left_out
}

/// The programs of [`fusion`] under a policy, by name: a transformer's feed-forward block and a
/// residual block of convolutions, each with its gradients.
pub fn fusible_programs(policy: &Policy) -> [(&'static str, Graph); 2] {
    let programs = [("perceptron", perceptron(131, 290)), ("residual", residual(3, 21))];
    programs.map(|(name, graph)| {
        let graph = graph.unwrap_or_else(|e| panic!("{name}: {e}"));
        (name, fuse(&assign(&graph, policy).0))
    })
}

fn weight(g: &mut Graph, name: &str, shape: &[usize], wanted: &mut Vec<SlotId>) -> Result<ValueId> {
    let kind = SlotKind::Weight { decay: false };
    let slot = g.add_slot(name, ValueType::f32(Shape::new(shape)), kind, Init::Constant(0.0))?;
    wanted.push(slot);
    Ok(g.read(slot))
}

/// `y` and the gradient of Σy by every weight as outputs.
fn finish(mut g: Graph, y: ValueId, wanted: &[SlotId]) -> Result<Graph> {
    let axes: Vec<usize> = (0..g.shape(y).len()).collect();
    let loss = g.mean(y, &axes)?;
    let seed = g.scalar(256.0);
    for (i, gradient) in differentiate(&mut g, loss, seed, wanted)?.into_iter().enumerate() {
        g.add_output(&format!("gradient {i}"), gradient);
    }
    g.add_output("y", y);
    Ok(g.without_dead_nodes())
}

/// What stands around the products of a transformer's feed-forward block, at sizes that are no
/// multiples of any tile; the last product has so few results and such a long sum that it is cut
/// into parts.
fn perceptron(rows: usize, inner: usize) -> Result<Graph> {
    let (mut g, mut wanted, width, deep) = (Graph::new(), Vec::new(), 37, 4200);
    let key = g.input("key", ValueType::i32([4].into()));
    let x = weight(&mut g, "x", &[rows, width], &mut wanted)?;
    let [gamma, beta] =
        [("gamma", 0), ("beta", 1)].map(|(name, _)| weight(&mut g, name, &[width], &mut wanted));
    let (w1, b1) =
        (weight(&mut g, "w1", &[inner, width], &mut wanted)?, weight(&mut g, "b1", &[inner], &mut wanted)?);
    let (w2, b2) =
        (weight(&mut g, "w2", &[width, inner], &mut wanted)?, weight(&mut g, "b2", &[width], &mut wanted)?);
    let (tall, flat) = (
        weight(&mut g, "tall", &[9, deep], &mut wanted)?,
        weight(&mut g, "flat", &[width, deep], &mut wanted)?,
    );
    let h = g.layer_norm(x, gamma?, beta?, 1e-5)?;
    let up = g.matmul(h, w1, false, true)?;
    let up = g.add(up, b1)?;
    let active = g.gelu(up)?;
    let down = g.matmul(active, w2, false, true)?;
    let down = g.add(down, b2)?;
    let down = g.dropout(down, key, 0.1, 3)?;
    let stream = g.add(x, down)?;
    let long = g.matmul(tall, flat, false, true)?;
    let long = g.relu(long)?;
    let row = g.sum(long, &[0])?;
    let y = g.mul(stream, row)?;
    finish(g, y, &wanted)
}

/// A residual block of convolutions, two of them with a stride, so that their gradients have
/// several phases, one of which no tap of the narrow one meets.
fn residual(images: usize, channels: usize) -> Result<Graph> {
    let (mut g, mut wanted) = (Graph::new(), Vec::new());
    let x = weight(&mut g, "x", &[images, 9, 7, 3], &mut wanted)?;
    let stem = weight(&mut g, "stem", &[channels, 3, 3, 3], &mut wanted)?;
    let w1 = weight(&mut g, "w1", &[channels, 3, 3, channels], &mut wanted)?;
    let w2 = weight(&mut g, "w2", &[channels, 3, 3, channels], &mut wanted)?;
    let skip = weight(&mut g, "skip", &[channels, 1, 1, channels], &mut wanted)?;
    let gamma = weight(&mut g, "gamma", &[channels], &mut wanted)?;
    let beta = weight(&mut g, "beta", &[channels], &mut wanted)?;
    let conv = |g: &mut Graph, x, w, stride, pad| g.conv2d(x, w, ConvGeometry { stride, pad });
    let norm = |g: &mut Graph, x| Ok::<_, GraphError>(g.batch_norm(x, gamma, beta, 1e-5)?.0);
    let a = conv(&mut g, x, stem, 1, 1)?;
    let a = norm(&mut g, a)?;
    let a = g.relu(a)?;
    let b = conv(&mut g, a, w1, 2, 1)?;
    let b = norm(&mut g, b)?;
    let b = g.relu(b)?;
    let b = conv(&mut g, b, w2, 1, 1)?;
    let b = norm(&mut g, b)?;
    let s = conv(&mut g, a, skip, 2, 0)?;
    let b = g.add(b, s)?;
    let y = g.relu(b)?;
    finish(g, y, &wanted)
}

/// Checks that `graph` has the same outputs, bit by bit, with the groups that the engine makes and
/// with none.
///
/// # Panics
/// If a bit differs, with the groups.
pub fn same_bits(engine: &dyn Engine, graph: &Graph) {
    let apart = Unfused(engine);
    let planned = [plan(graph.clone(), engine.target()), plan(graph.clone(), apart.target())];
    if planned[0].groups.steps.len() == planned[1].groups.steps.len() {
        return;
    }
    let [with, without] = [outputs(engine, &planned[0]), outputs(&apart, &planned[1])];
    for ((name, _), (a, b)) in graph.outputs.iter().zip(with.iter().zip(&without)) {
        let (a, b) = (bits(a), bits(b));
        let differs = a.iter().zip(&b).position(|(a, b)| a != b);
        if let Some(i) = differs {
            let steps = planned[0].groups.describe(&planned[0].graph);
            let on = engine.name();
            panic!("{name}[{i}] on {on}: {:x} with groups, {:x} without\n{steps}", a[i], b[i]);
        }
    }
}

/// Runs a plan from the same state and inputs, and returns its outputs.
fn outputs(engine: &dyn Engine, planned: &Plan) -> Vec<HostTensor> {
    let graph = &planned.graph;
    let mut state = engine.new_state(&graph.slots).expect("memory for the state");
    let values = |stream: u64, count: usize| (0..count).map(|i| draw(stream, i)).collect::<Vec<f32>>();
    for (i, slot) in graph.slots.iter().enumerate() {
        let values = values(i as u64, slot.ty.shape.count());
        state.upload(&slot.name, HostSlice::F32(&values)).expect("an upload");
    }
    let floats = graph.inputs().filter(|(name, _)| *name != "key");
    let inputs: Vec<(&str, Vec<f32>)> =
        floats.map(|(name, v)| (name, values(99, graph.shape(v).count()))).collect();
    let mut inputs: Vec<_> = inputs.iter().map(|(n, x)| (*n, HostSlice::F32(x))).collect();
    inputs.push(("key", HostSlice::I32(&[7, -1, 3, 5])));
    let mut program = engine.compile(planned, &state).unwrap_or_else(|e| panic!("compiling: {e}\n{graph}"));
    // Twice: what the first run leaves in memory must not matter to the second.
    for _ in 0..2 {
        program.run(&mut state, &inputs).expect("a run");
    }
    graph.outputs.iter().map(|(name, _)| program.read(name).expect("an output")).collect()
}

/// Bits, with one for all NaN.
fn bits(x: &HostTensor) -> Vec<u32> {
    x.f32().iter().map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }).collect()
}
