//! A program has the same bits with and without groups, on every instruction set.

use std::num::NonZeroUsize;

use halfstep_cpu::isa::{Isa, Level};
use halfstep_cpu::{CpuEngine, Fusion};
use halfstep_float::{Philox, unit_f64};
use halfstep_graph::engine::{Engine, HostSlice, HostTensor};
use halfstep_graph::precision::{Policy, assign};
use halfstep_graph::{
    Binary, ConvGeometry, DType, Graph, GraphError, Init, Op, Plan, Shape, SlotId, SlotKind, Unary, ValueId,
    ValueType, differentiate, fuse, plan,
};
use proptest::prelude::*;

type Result<T> = std::result::Result<T, GraphError>;

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

/// What stands around the products of a transformer's feed-forward block, at sizes that are no multiples of any tile; the
/// last product has so few results and such a long sum that it is cut into parts.
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

/// A residual block of convolutions, two of them with a stride, so that their gradients have several phases, one of
/// which no tap of the narrow one meets.
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
    let norm =
        |g: &mut Graph, x| Ok::<_, GraphError>(g.push(Op::BatchNorm { eps: 1e-5 }, &[x, gamma, beta])?[0]);
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

/// Runs `graph` from the same state and inputs, and returns its outputs.
fn outputs(engine: &CpuEngine, graph: &Graph) -> (Plan, Vec<HostTensor>) {
    let planned = plan(graph.clone(), engine.target());
    let mut state = engine.new_state(&graph.slots).unwrap();
    let normal = |seed: u64, count: usize| -> Vec<f32> {
        let random = Philox::new(seed);
        (0..count as u32)
            .map(|i| {
                let [a, b, ..] = random.block([i, 0, 0, 0]);
                (2.0 * unit_f64(a, b) - 1.0) as f32
            })
            .collect()
    };
    for (i, slot) in graph.slots.iter().enumerate() {
        let values = normal(i as u64, slot.ty.shape.count());
        state.upload(&slot.name, HostSlice::F32(&values)).unwrap();
    }
    let inputs: Vec<(String, Vec<f32>)> = graph
        .nodes
        .iter()
        .filter_map(|n| match &n.op {
            Op::Input { name } if name != "key" => {
                Some((name.clone(), normal(99, graph.shape(n.outputs[0]).count())))
            }
            _ => None,
        })
        .collect();
    let mut inputs: Vec<_> = inputs.iter().map(|(n, x)| (n.as_str(), HostSlice::F32(x))).collect();
    inputs.push(("key", HostSlice::I32(&[7, -1, 3, 5])));
    let mut program = engine.compile(&planned, &state).unwrap();
    // Twice: what the first run leaves in memory must not matter to the second.
    for _ in 0..2 {
        program.run(&mut state, &inputs).unwrap();
    }
    let read = graph.outputs.iter().map(|(name, _)| program.read(name).unwrap()).collect();
    (planned, read)
}

/// Bits, with one for all NaN.
fn bits(x: &HostTensor) -> Vec<u32> {
    x.f32().iter().map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }).collect()
}

fn levels() -> impl Iterator<Item = Isa> {
    [Level::Portable, Level::Avx2, Level::Avx512, Level::Avx512Bf16, Level::Amx]
        .into_iter()
        .filter_map(|level| Isa::new(level).ok())
}

/// Checks that groups change no bit of `graph`, and returns the number of steps with and without them.
fn same_bits(graph: &Graph, isa: Isa, threads: usize) -> (usize, usize) {
    let engine = CpuEngine::new(isa, NonZeroUsize::new(threads).unwrap());
    let (together, a) = outputs(&engine, graph);
    let (apart, b) = outputs(&engine.with_fusion(Fusion::Off), graph);
    for ((name, _), (a, b)) in graph.outputs.iter().zip(a.iter().zip(&b)) {
        let (a, b) = (bits(a), bits(b));
        let differs = a.iter().zip(&b).position(|(a, b)| a != b);
        if let Some(i) = differs {
            let steps = together.groups.describe(&together.graph);
            panic!("{name}[{i}] on {isa}: {:x} with groups, {:x} without\n{steps}", a[i], b[i]);
        }
    }
    (together.groups.steps.len(), apart.groups.steps.len())
}

#[test]
fn groups_change_no_bit() {
    for policy in Policy::NAMES {
        let policy = Policy::named(policy).unwrap();
        for (name, graph) in
            [("perceptron", perceptron(131, 290).unwrap()), ("residual", residual(3, 21).unwrap())]
        {
            let graph = fuse(&assign(&graph, &policy).0);
            for isa in levels() {
                for threads in [1, 2] {
                    let (together, apart) = same_bits(&graph, isa, threads);
                    assert!(together + 5 < apart, "{name}: {together} steps with groups, {apart} without");
                }
            }
        }
    }
}

/// One of the operations that a chain can have.
#[derive(Clone, Copy, Debug)]
enum Choice {
    Unary(Unary),
    Binary(Binary),
    Select,
    Cast(DType),
    /// Through another shape and back.
    Reshape,
    Product,
    Dropout,
    Output,
}

fn choice() -> impl Strategy<Value = Choice> {
    let unary =
        [Unary::Neg, Unary::Relu, Unary::Step, Unary::Gelu, Unary::GeluGrad, Unary::Square, Unary::Tanh];
    let binary = [Binary::Add, Binary::Sub, Binary::Mul, Binary::Max, Binary::Greater];
    prop_oneof![
        3 => prop::sample::select(unary.to_vec()).prop_map(Choice::Unary).boxed(),
        4 => prop::sample::select(binary.to_vec()).prop_map(Choice::Binary).boxed(),
        1 => Just(Choice::Select).boxed(),
        2 => prop::sample::select(&[DType::F32, DType::Bf16, DType::F16][..]).prop_map(Choice::Cast).boxed(),
        1 => Just(Choice::Reshape).boxed(),
        1 => Just(Choice::Product).boxed(),
        1 => Just(Choice::Dropout).boxed(),
        1 => Just(Choice::Output).boxed(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Random chains between products, with operands that are stretched in every way.
    #[test]
    fn groups_of_random_graphs_change_no_bit(
        n in 1usize..70,
        choices in prop::collection::vec((choice(), 0usize..64, 0usize..64, 0usize..64), 1..24),
        threads in 1usize..3,
    ) {
        let mut g = Graph::new();
        let shapes: [&[usize]; 5] = [&[n, n], &[n], &[n, 1], &[], &[1, n]];
        let mut stretched: Vec<ValueId> =
            shapes.iter().enumerate().map(|(i, s)| g.input(&format!("x{i}"), ValueType::f32(Shape::new(s)))).collect();
        let mut whole = vec![stretched.remove(0)];
        let key = g.input("key", ValueType::i32([4].into()));
        for (choice, a, b, c) in choices {
            let any = |at: usize| {
                let all = whole.len() + stretched.len();
                if at % all < whole.len() { whole[at % all] } else { stretched[at % all - whole.len()] }
            };
            let a = whole[a % whole.len()];
            let made = match choice {
                Choice::Unary(f) => g.unary(f, a),
                Choice::Binary(f) if c % 2 == 0 => g.binary(f, a, any(b)),
                Choice::Binary(f) => g.binary(f, any(b), a),
                Choice::Select => g.select(any(b), a, any(c)),
                Choice::Cast(to) => g.cast(a, to),
                Choice::Reshape => g.reshape(a, [n * n]).and_then(|x| g.reshape(x, [n, n])),
                Choice::Product => {
                    // Both operands in one type, as the precision pass would have it.
                    let b = whole[b % whole.len()];
                    let to = g.dtype(a);
                    let b = if g.dtype(b) == to { b } else { g.cast(b, to).unwrap() };
                    g.matmul(a, b, false, true)
                }
                Choice::Dropout => g.dropout(a, key, 0.3, c as u32),
                Choice::Output => {
                    g.add_output(&format!("y{}", g.outputs.len()), a);
                    Ok(a)
                }
            };
            whole.push(made.unwrap());
        }
        g.add_output("last", whole[whole.len() - 1]);
        let best = levels().last().unwrap();
        for isa in [Isa::new(Level::Portable).unwrap(), best] {
            same_bits(&g.without_dead_nodes(), isa, threads);
        }
    }
}
