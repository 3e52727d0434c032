//! What every engine must pass: the executor's tests, written once against the trait.
//!
//! Authors of an engine call [`check`] from a test. It compares each operation and a whole training step with the f64
//! interpreter, and checks that state is shared, staged and left alone as [`crate::engine`] promises.

use halfstep_float::blocks::ScaleRule;
use halfstep_float::{Overflow, Philox};

use crate::engine::{Engine, EngineError, HostSlice, HostTensor, State};
use crate::graph::{Graph, Init, SlotKind, ValueId, When};
use crate::interp::{Rounding, Tensor, committed, evaluate};
use crate::op::{
    AdamWSpec, AttentionSpec, Binary, Blocks, ConvGeometry, Op, PoolKind, Quantise, ReduceKind, SgdSpec,
    Unary,
};
use crate::precision::{Class, Override, Policy, Rule, assign, class};
use crate::{
    DType, GraphError, Kept, MomentFormat, Phase, Shape, StateFormats, ValueType, WeightFormat,
    differentiate, fuse, plan,
};

/// A numbered draw in ±1.
fn draw(stream: u64, i: usize) -> f32 {
    Philox::new(2026).word(stream, i as u64) as i32 as f32 / i32::MAX as f32
}

fn numbers(stream: u64, shape: &Shape) -> Vec<f32> {
    (0..shape.count()).map(|i| draw(stream, i)).collect()
}

/// One program and the values it is run on.
struct Case {
    name: String,
    graph: Graph,
    /// The most products or summands that any element of a result is made of.
    terms: usize,
    floats: Vec<(String, Vec<f32>)>,
    integers: Vec<(String, Vec<i32>)>,
}

impl Case {
    /// `build` gets one f32 input per shape; its results become outputs.
    fn new(
        name: &str,
        terms: usize,
        shapes: &[Shape],
        build: impl FnOnce(&mut Graph, &[ValueId]) -> Result<Vec<ValueId>, GraphError>,
    ) -> Case {
        let mut graph = Graph::new();
        let mut floats = Vec::new();
        let mut inputs = Vec::new();
        for (i, shape) in shapes.iter().enumerate() {
            let input = format!("x{i}");
            inputs.push(graph.input(&input, ValueType::f32(shape.clone())));
            floats.push((input, numbers(i as u64, shape)));
        }
        let results = graph.scoped(name, |g| build(g, &inputs)).unwrap_or_else(|e| panic!("{name}: {e}"));
        for (i, result) in results.into_iter().enumerate() {
            graph.add_output(&format!("y{i}"), result);
        }
        Case { name: name.to_string(), graph, terms, floats, integers: Vec::new() }
    }

    fn contracts(&self) -> bool {
        self.graph.nodes.iter().any(|n| class(&n.op) == Class::Contraction)
    }

    fn with_indices(mut self, name: &str, indices: Vec<i32>) -> Case {
        self.integers.push((name.to_string(), indices));
        self
    }

    fn inputs(&self) -> Vec<(&str, HostSlice<'_>)> {
        let floats = self.floats.iter().map(|(n, x)| (n.as_str(), HostSlice::F32(x)));
        floats.chain(self.integers.iter().map(|(n, x)| (n.as_str(), HostSlice::I32(x)))).collect()
    }

    fn tensors(&self, graph: &Graph) -> Vec<(&str, Tensor)> {
        let shape = |name: &str| {
            let node = graph.nodes.iter().find(|n| matches!(&n.op, Op::Input { name: n } if n == name));
            node.map(|n| graph.shape(n.outputs[0]).clone())
        };
        let mut tensors = Vec::new();
        for (name, x) in &self.floats {
            let data = x.iter().map(|&v| v.into()).collect();
            tensors.extend(shape(name).map(|s| (name.as_str(), Tensor::new(s, data))));
        }
        for (name, x) in &self.integers {
            let data = x.iter().map(|&v| v.into()).collect();
            tensors.extend(shape(name).map(|s| (name.as_str(), Tensor::new(s, data))));
        }
        tensors
    }
}

/// Begins the names of cases that have codes and nothing else as results.
const QUANTISE: &str = "quantise";

/// Runs every check on `engine`.
///
/// # Panics
/// If a check fails, with what was expected.
pub fn check(engine: &dyn Engine) {
    for policy in Policy::NAMES {
        let policy = Policy::named(policy).expect("a named policy");
        for case in cases() {
            let mut policy = policy.clone();
            if policy.narrow.is_some() && case.contracts() {
                // The only contraction of a program is its last, which would stay in 16 bits.
                policy.overrides = vec![Override { pattern: "*".into(), rule: Rule::Low }];
            }
            agrees_with_the_interpreter(engine, &case, &policy);
        }
    }
    a_training_step_agrees(engine);
    kept_state_agrees(engine);
    state_is_shared_and_staged(engine);
    bad_calls_change_nothing(engine);
}

fn compile(
    engine: &dyn Engine,
    graph: &Graph,
    policy: &Policy,
) -> (Graph, State, Box<dyn crate::engine::Program>) {
    let (assigned, _) = assign(graph, policy);
    let fused = fuse(&assigned.without_dead_nodes());
    let planned = plan(fused.clone(), engine.target());
    let state = engine.new_state(&planned.graph.slots).expect("memory for the state");
    let program = engine.compile(&planned, &state).unwrap_or_else(|e| panic!("compiling: {e}\n{fused}"));
    (fused, state, program)
}

/// How far one result of a case may lie from the interpreter's.
///
/// Operands lie in ±1, so Σ|a||b| ≤ `terms`. Sums in f32 err by γ_n·Σ|a||b| with n = terms (Higham 2002, §3.1), and
/// f16 products made of four bf16 ones have four times the terms. Results that are rounded to a type with unit roundoff
/// u differ by at most 2u·|y| more. Where a low format is used, attention rounds its probabilities too: u per term.
///
/// A split product errs by ε·Σ|a||b| more ([`crate::Split::bound`]), and has six times the terms. In attention with heads of
/// D ≤ 16 elements a score then errs by ε√D, a probability by twice that relative to itself, a result by ε(2√D + 1) and δ
/// and dout·vᵀ by at most D times that; so a gradient, which adds at most T of those, by ε·T·(6D + 4√D) ≤ 128·ε·`terms`.
fn bound(case: &Case, dtype: DType, policy: &Policy, y: f64) -> f64 {
    let lowest = policy.low.unwrap_or(DType::F32);
    let attention = case.name.starts_with("attention");
    let unit = |d: DType| match d {
        DType::F32 | DType::I32 | DType::U8 => f64::powi(2.0, -24),
        DType::Bf16 => f64::powi(2.0, -8),
        DType::F16 => f64::powi(2.0, -11),
        DType::E4m3 => f64::powi(2.0, -4),
        DType::E5m2 => f64::powi(2.0, -3),
    };
    let n = policy.split.map_or(4.0, |s| s.products() as f64) * case.terms as f64 + 8.0;
    let gamma = n * unit(DType::F32) / (1.0 - n * unit(DType::F32));
    let sums = gamma * (case.terms as f64 + y.abs());
    let inner = match policy.split {
        None if attention && lowest != DType::F32 => 4.0 * unit(lowest) * (case.terms as f64).sqrt(),
        None => 0.0,
        Some(split) if case.contracts() => {
            split.bound() * case.terms as f64 * if attention { 128.0 } else { 1.0 }
        }
        Some(_) => 0.0,
    };
    // Below the normal range rounding is absolute.
    2.0 * unit(dtype) * y.abs() + sums + inner + f64::powi(2.0, -24)
}

fn agrees_with_the_interpreter(engine: &dyn Engine, case: &Case, policy: &Policy) {
    let (graph, mut state, mut program) = compile(engine, &case.graph, policy);
    program.run(&mut state, &case.inputs()).unwrap_or_else(|e| panic!("{}: {e}", case.name));
    let expected = evaluate(&graph, &[], &case.tensors(&graph), Rounding::Stored).expect("the interpreter");
    for (name, value) in &graph.outputs {
        let (dtype, expected) = (graph.dtype(*value), &expected[value.0 as usize]);
        let found = program.read(name).expect("an output");
        if !dtype.is_float() {
            let found: Vec<f64> = found.i32().iter().map(|&x| x.into()).collect();
            assert_eq!(found, expected.data, "{} of {} on {}", name, case.name, engine.name());
            continue;
        }
        assert_eq!(found.f32().len(), expected.data.len());
        for (i, (&y, &want)) in found.f32().iter().zip(&expected.data).enumerate() {
            let error = (f64::from(y) - want).abs();
            // Codes are the same or wrong: their scales are largest magnitudes and quotients, which have one result.
            let allowed =
                if case.name.starts_with(QUANTISE) { 0.0 } else { bound(case, dtype, policy, want) };
            let same = error <= allowed || (y.is_nan() && want.is_nan()) || f64::from(y) == want;
            assert!(
                same,
                "{name}[{i}] of {} under {} on {}: {y} against {want}, {error:e} > {allowed:e}",
                case.name,
                policy.name,
                engine.name()
            );
        }
    }
}

/// At least one program for each operation that computes.
fn cases() -> Vec<Case> {
    let one = |v: Result<ValueId, GraphError>| v.map(|v| vec![v]);
    let mut cases = Vec::new();
    let unary = [
        Unary::Neg,
        Unary::Abs,
        Unary::Exp,
        Unary::Tanh,
        Unary::Sigmoid,
        Unary::Relu,
        Unary::Step,
        Unary::Gelu,
        Unary::GeluGrad,
        Unary::IsFinite,
        Unary::Square,
        Unary::Sign,
        Unary::Log,
        Unary::Sqrt,
        Unary::Rsqrt,
        Unary::Recip,
    ];
    for f in unary {
        let positive = matches!(f, Unary::Log | Unary::Sqrt | Unary::Rsqrt | Unary::Recip);
        cases.push(Case::new(&format!("{f:?}"), 4, &[[3, 37].into()], |g, x| {
            let operand = if positive {
                let square = g.mul(x[0], x[0])?;
                let one = g.scalar(1.0);
                g.add(square, one)?
            } else {
                x[0]
            };
            one(g.unary(f, operand))
        }));
    }
    let binary = [
        Binary::Add,
        Binary::Sub,
        Binary::Mul,
        Binary::Max,
        Binary::Min,
        Binary::Greater,
        Binary::GreaterEqual,
        Binary::Equal,
    ];
    let pairs: [[Shape; 2]; 5] = [
        [[5, 33].into(), [5, 33].into()],
        [[5, 33].into(), [33].into()],
        [[5, 1].into(), [5, 33].into()],
        [[2, 1, 3].into(), [4, 1].into()],
        [[7].into(), Shape::scalar()],
    ];
    for f in binary {
        for shapes in &pairs {
            let name = format!("{f:?} of {} and {}", shapes[0], shapes[1]);
            cases.push(Case::new(&name, 1, shapes, |g, x| one(g.binary(f, x[0], x[1]))));
        }
    }
    cases.push(Case::new("select", 1, &[[4, 9].into(), [9].into(), Shape::scalar()], |g, x| {
        let mask = g.unary(Unary::Step, x[0])?;
        one(g.select(mask, x[1], x[2]))
    }));
    cases.push(Case::new("in place", 4, &[[40].into()], |g, x| {
        let a = g.add(x[0], x[0])?;
        let b = g.mul(a, x[0])?;
        one(g.sub(b, b))
    }));
    cases.push(Case::new("broadcast", 1, &[[3, 1].into()], |g, x| one(g.broadcast(x[0], &[2, 3, 5].into()))));
    let casts = |g: &mut Graph, x: &[ValueId]| {
        let types = [DType::Bf16, DType::F16, DType::E4m3, DType::E5m2];
        types.map(|d| g.cast(x[0], d)).into_iter().collect()
    };
    cases.push(Case::new("cast", 1, &[[77].into()], casts));
    cases.push(
        Case::new("dropout", 2, &[[6, 50].into()], |g, x| {
            let key = g.input("key", ValueType::i32([4].into()));
            one(g.dropout(x[0], key, 0.3, 9))
        })
        .with_indices("key", vec![17, -3, 4, 2]),
    );
    let s: Shape = [3, 5, 7].into();
    cases.push(Case::new("permute", 1, std::slice::from_ref(&s), |g, x| one(g.permute(x[0], &[1, 2, 0]))));
    cases.push(Case::new("slice", 1, std::slice::from_ref(&s), |g, x| one(g.slice(x[0], 1, 2, 4))));
    cases.push(Case::new("reshape", 1, std::slice::from_ref(&s), |g, x| one(g.reshape(x[0], [7, 15]))));
    cases.push(Case::new("pad", 1, std::slice::from_ref(&s), |g, x| {
        g.push(Op::Pad { axis: 2, before: 1, after: 3 }, x)
    }));
    cases.push(Case::new("concat", 1, &[s.clone(), [3, 2, 7].into()], |g, x| one(g.concat(x, 1))));
    let indices = vec![4, 0, 4, 3, 1];
    cases.push(
        Case::new("gather", 1, &[[6, 9].into()], |g, x| {
            let index = g.input("index", ValueType::i32([5].into()));
            one(g.gather(x[0], index))
        })
        .with_indices("index", indices.clone()),
    );
    cases.push(
        Case::new("scatter_add", 2, &[[5, 9].into()], |g, x| {
            let index = g.input("index", ValueType::i32([5].into()));
            g.push(Op::ScatterAdd { rows: 6 }, &[x[0], index])
        })
        .with_indices("index", indices),
    );
    for kind in [ReduceKind::Sum, ReduceKind::Mean, ReduceKind::Max, ReduceKind::AbsMax] {
        for axes in [vec![0], vec![1], vec![2], vec![0, 1], vec![0, 2], vec![0, 1, 2]] {
            let name = format!("reduce {kind:?} {axes:?}");
            cases.push(Case::new(&name, 105, std::slice::from_ref(&s), |g, x| {
                g.push(Op::Reduce { kind, axes }, x)
            }));
        }
    }
    cases.push(Case::new("argmax", 1, &[[9, 21].into()], |g, x| one(g.argmax(x[0]))));
    cases.push(Case::new("softmax", 21, &[[9, 21].into()], |g, x| one(g.softmax(x[0]))));
    cases.push(Case::new("global_norm", 300, &[[9, 21].into(), [50].into()], |g, x| one(g.global_norm(x))));
    norm_cases(&mut cases);
    quantise_cases(&mut cases);
    contraction_cases(&mut cases);
    for kind in [PoolKind::Max, PoolKind::Mean] {
        for (window, stride) in [(2, 2), (3, 2), (3, 1)] {
            let name = format!("pool {kind:?} {window} {stride}");
            let image: Shape = [2, 7, 6, 5].into();
            cases.push(Case::new(&name, 9, &[image.clone(), image], |g, x| {
                let y = g.pool(x[0], kind, window, stride)?;
                let part = g.shape(y).clone();
                let dy = g.slice(x[1], 1, 0, part[1])?;
                let dy = g.slice(dy, 2, 0, part[2])?;
                let dx = g.push(Op::PoolGrad { kind, window, stride }, &[x[0], dy])?;
                Ok(vec![y, dx[0]])
            }));
        }
    }
    cases
}

/// Norms and losses. Their conditioning is bounded by an eps near the variance of the operands.
fn norm_cases(cases: &mut Vec<Case>) {
    let shapes: [Shape; 4] = [[6, 33].into(), [33].into(), [33].into(), [6, 33].into()];
    cases.push(Case::new("layer_norm", 33, &shapes, |g, x| {
        let y = g.push(Op::LayerNorm { eps: 0.3 }, &x[..3])?;
        let dx = g.push(Op::LayerNormGrad, &[x[0], x[1], y[1], y[2], x[3]])?;
        Ok([y, dx].concat())
    }));
    cases.push(Case::new("batch_norm", 33, &shapes, |g, x| {
        let y = g.push(Op::BatchNorm { eps: 0.3 }, &x[..3])?;
        let dx = g.push(Op::BatchNormGrad, &[x[0], x[1], y[1], y[3], x[3]])?;
        Ok([y, dx].concat())
    }));
    cases.push(
        Case::new("cross_entropy", 20, &[[5, 17].into(), [5].into()], |g, x| {
            let target = g.input("target", ValueType::i32([5].into()));
            let y = g.push(Op::CrossEntropy, &[x[0], target])?;
            let dx = g.push(Op::CrossEntropyGrad, &[x[0], target, y[1], x[1]])?;
            Ok([y, dx].concat())
        })
        .with_indices("target", vec![0, 16, 3, 3, 9]),
    );
}

/// Every form of codes, of sizes that are no multiples of a block, rounded both ways, and products of codes of two formats.
fn quantise_cases(cases: &mut Vec<Case>) {
    use halfstep_float::Format::{E2m1, E4m3, E5m2};
    let saturated = Blocks::Tensor { overflow: Overflow::Saturate };
    let exposed = Blocks::Tensor { overflow: Overflow::NonFinite };
    let mx = |axis, scale| Blocks::Mx { axis, scale };
    let mut forms = vec![(E4m3, saturated), (E5m2, saturated), (E4m3, exposed), (E5m2, exposed)];
    for axis in 0..3 {
        forms.extend([(E4m3, mx(axis, ScaleRule::Floor)), (E2m1, mx(axis, ScaleRule::Even))]);
        forms.extend([(E5m2, mx(axis, ScaleRule::NoOverflow)), (E2m1, Blocks::Nvfp4 { axis })]);
        forms.push((E4m3, Blocks::Row128 { axis }));
    }
    forms.push((E4m3, Blocks::Square128));
    let shape: Shape = [2, 139, 37].into();
    for (format, blocks) in forms {
        for draws in [None, Some(5)] {
            let q = Quantise { format, blocks, draws };
            let case = Case::new(&format!("{QUANTISE} {q}"), 1, std::slice::from_ref(&shape), |g, x| {
                let key = g.input("key", ValueType::i32([4].into()));
                // A few elements beyond the range, and some much smaller than their neighbours.
                let square = g.mul(x[0], x[0])?;
                let cube = g.mul(square, x[0])?;
                let scale = g.scalar(if matches!(blocks, Blocks::Nvfp4 { .. }) { 3e-4 } else { 700.0 });
                let scaled = matches!(blocks, Blocks::Tensor { .. } | Blocks::Nvfp4 { .. });
                let operands = [Some(cube), scaled.then_some(scale), draws.map(|_| key)];
                let operands: Vec<ValueId> = operands.into_iter().flatten().collect();
                g.push(Op::Quantise(q), &operands)
            });
            cases.push(case.with_indices("key", vec![17, -3, 4, 2]));
        }
    }
    for (name, ta, tb) in [("codes", false, true), ("codes, left turned", true, false)] {
        let shapes: [Shape; 2] = [
            if ta { [70, 33].into() } else { [33, 70].into() },
            if tb { [65, 70].into() } else { [70, 65].into() },
        ];
        cases.push(Case::new(name, 70, &shapes, |g, x| {
            let one = g.scalar(1.0);
            let codes = |g: &mut Graph, x, format| {
                let q = Quantise { format, blocks: saturated, draws: None };
                Ok::<_, GraphError>(g.push(Op::Quantise(q), &[x, one])?[0])
            };
            let (a, b) = (codes(g, x[0], E4m3)?, codes(g, x[1], E5m2)?);
            Ok(vec![g.matmul(a, b, ta, tb)?])
        }));
    }
}

fn contraction_cases(cases: &mut Vec<Case>) {
    for (m, k, n) in [(1, 1, 1), (5, 3, 7), (17, 33, 65), (64, 96, 32), (3, 130, 40)] {
        for (ta, tb) in [(false, false), (true, false), (false, true), (true, true)] {
            let a: Shape = if ta { [2, k, m].into() } else { [2, m, k].into() };
            let b: Shape = if tb { [2, n, k].into() } else { [2, k, n].into() };
            let name = format!("matmul {m}×{k}×{n} {ta} {tb}");
            cases.push(Case::new(&name, k, &[a, b], |g, x| Ok(vec![g.matmul(x[0], x[1], ta, tb)?])));
        }
    }
    cases.push(Case::new("matmul with bias", 24, &[[9, 23].into(), [41, 23].into(), [41].into()], |g, x| {
        let y = g.matmul(x[0], x[1], false, true)?;
        Ok(vec![g.add(y, x[2])?])
    }));
    for (size, window, stride, pad, c, o) in
        [(8, 3, 1, 1, 3, 5), (7, 3, 2, 1, 16, 8), (6, 1, 2, 0, 4, 33), (5, 2, 1, 0, 1, 2)]
    {
        let geometry = ConvGeometry { stride, pad };
        let out = geometry.output(size, window).expect("the window fits");
        let shapes: [Shape; 3] =
            [[2, size, size, c].into(), [o, window, window, c].into(), [2, out, out, o].into()];
        let terms = window * window * c * o.max(2 * out * out);
        cases.push(Case::new(&format!("conv2d {size} {window} {stride} {pad}"), terms, &shapes, |g, x| {
            let y = g.conv2d(x[0], x[1], geometry)?;
            let dx = g.push(Op::Conv2dGradInput { geometry, size: (size, size) }, &[x[2], x[1]])?;
            let dw = g.push(Op::Conv2dGradWeight { geometry, window: (window, window) }, &[x[0], x[2]])?;
            Ok(vec![y, dx[0], dw[0]])
        }));
    }
    for (time, causal) in [(1, true), (9, true), (70, true), (33, false)] {
        let spec = AttentionSpec { heads: 2, causal };
        let shapes: [Shape; 2] = [[2, time, 3 * 16].into(), [2, time, 16].into()];
        cases.push(Case::new(&format!("attention {time} {causal}"), time + 16, &shapes, |g, x| {
            let y = g.push(Op::Attention(spec), &[x[0]])?;
            let dx = g.push(Op::AttentionGrad(spec), &[x[0], y[0], y[1], x[1]])?;
            Ok([y, dx].concat())
        }));
        let parts: [Shape; 4] = std::array::from_fn(|_| [2, time, 16].into());
        cases.push(Case::new(&format!("attention of three {time} {causal}"), time + 16, &parts, |g, x| {
            let y = g.push(Op::Attention(spec), &x[..3])?;
            let dx = g.push(Op::AttentionGrad(spec), &[x[0], x[1], x[2], y[0], y[1], x[3]])?;
            Ok([y, dx].concat())
        }));
    }
}

/// A small network with both optimisers and a commit predicate.
fn training_step() -> Graph {
    let build = || -> Result<Graph, GraphError> {
        let mut g = Graph::new();
        let kind = SlotKind::Weight { decay: true };
        let init = Init::Constant(0.0);
        let w = g.add_slot("w", ValueType::f32([7, 5].into()), kind, init)?;
        let b = g.add_slot("b", ValueType::f32([7].into()), kind, init)?;
        let moments: Vec<_> = ["w.m", "w.v"]
            .iter()
            .map(|n| g.add_slot(n, ValueType::f32([7, 5].into()), SlotKind::Moment, init))
            .collect::<Result<_, _>>()?;
        let momentum = g.add_slot("b.momentum", ValueType::f32([7].into()), SlotKind::Moment, init)?;
        let attempts = g.add_slot("attempts", ValueType::f32(Shape::scalar()), SlotKind::Counter, init)?;
        let steps = g.add_slot("steps", ValueType::f32(Shape::scalar()), SlotKind::Counter, init)?;
        let x = g.input("x", ValueType::f32([4, 5].into()));
        let target = g.input("target", ValueType::i32([4].into()));
        let lr = g.input("lr", ValueType::f32(Shape::scalar()));
        let (rw, rb) = (g.read(w), g.read(b));
        let product = g.matmul(x, rw, false, true)?;
        let logits = g.add(product, rb)?;
        let losses = g.cross_entropy(logits, target)?;
        let loss = g.mean(losses, &[0])?;
        let scale = g.scalar(8.0);
        let gradients = differentiate(&mut g, loss, scale, &[w, b])?;
        g.in_phase(Phase::Update, |g| {
            let norm = g.global_norm(&gradients)?;
            let commit = g.unary(Unary::IsFinite, norm)?;
            let unscale = g.scalar(0.125);
            let one = g.scalar(1.0);
            let (old_attempts, old_steps) = (g.read(attempts), g.read(steps));
            let attempt = g.add(old_attempts, one)?;
            let step = g.add(old_steps, one)?;
            let kept = Kept::default();
            let adamw = Op::AdamW(AdamWSpec { beta1: 0.9, beta2: 0.99, eps: 1e-3, weight_decay: 0.1, kept });
            let (m, v) = (g.read(moments[0]), g.read(moments[1]));
            let new = g.push(adamw, &[rw, m, v, gradients[0], lr, unscale, step, commit])?;
            for (&slot, &value) in [w, moments[0], moments[1]].iter().zip(&new) {
                g.write(slot, value, When::Committed);
            }
            let sgd = Op::Sgd(SgdSpec { momentum: 0.9, weight_decay: 0.0, nesterov: false, kept });
            let buffer = g.read(momentum);
            let new = g.push(sgd, &[rb, buffer, gradients[1], lr, unscale, commit])?;
            g.write(b, new[0], When::Committed);
            g.write(momentum, new[1], When::Committed);
            g.write(attempts, attempt, When::Always);
            g.write(steps, step, When::Committed);
            g.commit = Some(commit);
            g.add_output("loss", loss);
            g.add_output("norm", norm);
            Ok(())
        })?;
        Ok(g)
    };
    build().unwrap_or_else(|e| panic!("the training step: {e}"))
}

const TARGET: [i32; 4] = [1, 6, 0, 3];

fn upload_start(state: &mut State) {
    for (i, name) in ["w", "b"].into_iter().enumerate() {
        let slot = state.position(name).expect("a slot");
        let values = numbers(40 + i as u64, &state.slots()[slot].ty.shape.clone());
        state.upload(name, HostSlice::F32(&values)).expect("an upload");
    }
}

fn download_all(state: &State) -> Vec<Vec<f32>> {
    let names: Vec<String> = state.slots().iter().map(|s| s.name.clone()).collect();
    names.iter().map(|n| state.download(n).expect("a download").f32().to_vec()).collect()
}

fn a_training_step_agrees(engine: &dyn Engine) {
    let step = training_step();
    let (graph, mut state, mut program) = compile(engine, &step, &Policy::named("fp32").expect("fp32"));
    upload_start(&mut state);
    let x = numbers(3, &[4, 5].into());
    let mut slots: Vec<Tensor> = download_all(&state)
        .into_iter()
        .zip(&graph.slots)
        .map(|(d, s)| Tensor::new(s.ty.shape.clone(), d.iter().map(|&v| v.into()).collect()))
        .collect();
    for turn in 1..=5 {
        let inputs =
            [("x", HostSlice::F32(&x)), ("target", HostSlice::I32(&TARGET)), ("lr", HostSlice::F32(&[0.05]))];
        program.run(&mut state, &inputs).expect("a step");
        let tensors = [
            ("x", Tensor::new([4, 5].into(), x.iter().map(|&v| v.into()).collect())),
            ("target", Tensor::new([4].into(), TARGET.iter().map(|&v| v.into()).collect())),
            ("lr", Tensor::filled(Shape::scalar(), f64::from(0.05f32))),
        ];
        let values = evaluate(&graph, &slots, &tensors, Rounding::Stored).expect("the interpreter");
        slots = committed(&graph, &slots, &values);
        for (found, (want, slot)) in download_all(&state).iter().zip(slots.iter().zip(&graph.slots)) {
            for (&y, &t) in found.iter().zip(&want.data) {
                // An Adam step divides by √v + eps ≥ 1e-3: errors of a few f32 roundings grow at most by 1/eps · lr.
                let allowed = f64::from(turn) * 64.0 * f64::powi(2.0, -24) * (t.abs() + 0.05 / 1e-3);
                assert!(
                    (f64::from(y) - t).abs() <= allowed,
                    "{} after {turn} steps: {y} against {t}",
                    slot.name
                );
            }
        }
    }
}

/// An update of a large weight by each optimiser, whose state `policy` says how to keep.
fn update_alone(optimiser: &Op, moments: usize) -> Graph {
    let build = || -> Result<Graph, GraphError> {
        let mut g = Graph::new();
        let ty = ValueType::f32([65, 64].into());
        let zero = Init::Constant(0.0);
        let mut slots = vec![g.add_slot("w", ty.clone(), SlotKind::Weight { decay: true }, zero)?];
        for i in 0..moments {
            slots.push(g.add_slot(&format!("moment{i}"), ty.clone(), SlotKind::Moment, zero)?);
        }
        let gradient = g.input("gradient", ty);
        let scalar = |g: &mut Graph, name: &str| g.input(name, ValueType::f32(Shape::scalar()));
        let (lr, commit) = (scalar(&mut g, "lr"), scalar(&mut g, "commit"));
        let (one, step) = (g.scalar(0.5), g.scalar(3.0));
        let mut operands: Vec<ValueId> = slots.iter().map(|&slot| g.read(slot)).collect();
        operands.extend([gradient, lr, one]);
        operands.extend((moments == 2).then_some(step));
        operands.push(commit);
        let results = g.in_phase(Phase::Update, |g| g.push(optimiser.clone(), &operands))?;
        for (&slot, &value) in slots.iter().zip(&results) {
            g.write(slot, value, When::Committed);
        }
        g.commit = Some(commit);
        g.add_output("committed", commit);
        Ok(g)
    };
    build().unwrap_or_else(|e| panic!("an update: {e}"))
}

/// State in every format is what the interpreter makes of it, but for neighbours where f32 and f64 lie on two sides of
/// where rounding changes; and a step that does not commit leaves every bit.
fn kept_state_agrees(engine: &dyn Engine) {
    use MomentFormat as M;
    use WeightFormat as W;
    let kept = Kept::default();
    let adamw = Op::AdamW(AdamWSpec { beta1: 0.9, beta2: 0.99, eps: 1e-3, weight_decay: 0.1, kept });
    let sgd = Op::Sgd(SgdSpec { momentum: 0.9, weight_decay: 0.1, nesterov: true, kept });
    for (weights, moments) in
        [(W::Bf16, M::F32), (W::Bf16Stochastic, M::Bf16), (W::Bf16Kahan, M::Int8), (W::F32, M::Int8)]
    {
        let mut policy = Policy::named("bf16").expect("bf16");
        policy.state = StateFormats { weights, moments };
        for (optimiser, count) in [(&adamw, 2), (&sgd, 1)] {
            let (graph, mut state, mut program) = compile(engine, &update_alone(optimiser, count), &policy);
            let shape: Shape = [65, 64].into();
            state.upload("w", HostSlice::F32(&numbers(50, &shape))).expect("an upload");
            for turn in 0..4 {
                let gradient = numbers(60 + turn, &shape);
                let commit = if turn == 2 { 0.0 } else { 1.0 };
                let key = [17, -3, turn as i32, 9];
                let inputs = [
                    ("gradient", HostSlice::F32(&gradient)),
                    ("lr", HostSlice::F32(&[0.05])),
                    ("commit", HostSlice::F32(&[commit])),
                    ("key", HostSlice::I32(&key)),
                ];
                let before = tensors_of(&state);
                program.run(&mut state, &inputs).expect("a step");
                let exact = |x: &[f32]| x.iter().map(|&v| f64::from(v)).collect();
                let tensors = [
                    ("gradient", Tensor::new(shape.clone(), exact(&gradient))),
                    ("lr", Tensor::filled(Shape::scalar(), f64::from(0.05f32))),
                    ("commit", Tensor::filled(Shape::scalar(), commit.into())),
                    ("key", Tensor::new([4].into(), key.iter().map(|&k| k.into()).collect())),
                ];
                let values = evaluate(&graph, &before, &tensors, Rounding::Stored).expect("the interpreter");
                let wanted = committed(&graph, &before, &values);
                let at =
                    format!("{} with {} on {}, turn {turn}", optimiser.name(), policy.state, engine.name());
                let after = tensors_of(&state);
                if commit == 0.0 {
                    assert_eq!(after, before, "{at}");
                }
                for ((slot, found), wanted) in graph.slots.iter().zip(&after).zip(&wanted) {
                    let mut others = 0;
                    for (&y, &t) in found.data.iter().zip(&wanted.data) {
                        // An f32 step errs by a few roundings, grown by 1/eps · lr at most; a neighbour is an ulp away, and
                        // a compensation as far as its weight jumps, which is at most 2 in size.
                        let sums = 64.0 * f64::powi(2.0, -24) * (t.abs() + 0.05 / 1e-3);
                        let ulp = f64::powi(2.0, -7);
                        let allowed = match (slot.kind, slot.ty.dtype) {
                            (_, DType::U8) => 1.0,
                            (SlotKind::Compensation, _) => 2.0 * ulp,
                            (_, DType::Bf16) => sums + ulp * t.abs(),
                            _ => sums,
                        };
                        assert!((y - t).abs() <= allowed, "{} of {at}: {y} against {t}", slot.name);
                        others += usize::from((y - t).abs() > sums);
                    }
                    // How often a rounding may go the other way: the error of a step over the distance of neighbours,
                    // which is below 1 in 100 for numbers of this size; a compensation has it twice.
                    assert!(others * 50 <= found.data.len(), "{} of {at}: {others} differ", slot.name);
                }
            }
        }
    }
}

fn tensors_of(state: &State) -> Vec<Tensor> {
    let tensor = |slot: &crate::Slot| {
        let data = match state.download(&slot.name).expect("a download") {
            HostTensor::F32(x) => x.iter().map(|&v| v.into()).collect(),
            HostTensor::I32(x) => x.iter().map(|&v| v.into()).collect(),
        };
        Tensor::new(slot.ty.shape.clone(), data)
    };
    state.slots().iter().map(tensor).collect()
}

fn state_is_shared_and_staged(engine: &dyn Engine) {
    let step = training_step();
    let policy = Policy::named("fp32").expect("fp32");
    let (_, mut state, mut program) = compile(engine, &step, &policy);
    upload_start(&mut state);

    // A second program over the same slots sees what the first one wrote.
    let mut g = Graph::new();
    let kind = SlotKind::Weight { decay: true };
    let w = g.add_slot("w", ValueType::f32([7, 5].into()), kind, Init::Constant(0.0)).expect("a slot");
    let read = g.read(w);
    let sum = g.sum(read, &[0, 1]).expect("a sum");
    g.add_output("sum", sum);
    let mut reader = engine.compile(&plan(g, engine.target()), &state).expect("a program");

    let good = numbers(3, &[4, 5].into());
    let mut bad = good.clone();
    bad[7] = f32::NAN;
    let mut run = |x: &[f32], state: &mut State| {
        let inputs =
            [("x", HostSlice::F32(x)), ("target", HostSlice::I32(&TARGET)), ("lr", HostSlice::F32(&[0.05]))];
        program.run(state, &inputs).expect("a step");
    };
    run(&good, &mut state);
    reader.run(&mut state, &[]).expect("a run");
    let found = reader.read("sum").expect("the sum").f32()[0];
    let want: f32 = state.download("w").expect("w").f32().iter().sum();
    assert!((found - want).abs() <= 35.0 * 1e-6, "{found} against {want}");

    // A step that is not finite changes nothing but what is always written.
    let before = download_all(&state);
    run(&bad, &mut state);
    let after = download_all(&state);
    for ((slot, before), after) in state.slots().iter().zip(&before).zip(&after) {
        let same = before.iter().map(|x| x.to_bits()).eq(after.iter().map(|x| x.to_bits()));
        assert_eq!(same, slot.name != "attempts", "{} across a skipped step", slot.name);
    }
    assert_eq!(state.download("attempts").expect("attempts").f32(), [2.0]);
    assert_eq!(state.download("steps").expect("steps").f32(), [1.0]);
}

fn bad_calls_change_nothing(engine: &dyn Engine) {
    let step = training_step();
    let (_, mut state, mut program) = compile(engine, &step, &Policy::named("fp32").expect("fp32"));
    upload_start(&mut state);
    let before = download_all(&state);
    let x = numbers(3, &[4, 5].into());
    let inputs = |x: &'static [f32], t: &'static [i32]| {
        [("x", HostSlice::F32(x)), ("target", HostSlice::I32(t)), ("lr", HostSlice::F32(&[0.1]))]
    };
    let x: &'static [f32] = Box::leak(x.into_boxed_slice());
    let missing = program.run(&mut state, &inputs(x, &TARGET)[..2]);
    assert!(matches!(missing, Err(EngineError::Unknown { what: "input", .. })), "{missing:?}");
    let short = program.run(&mut state, &inputs(&x[1..], &TARGET));
    assert!(matches!(short, Err(EngineError::Size { found: 19, .. })), "{short:?}");
    let outside = program.run(&mut state, &inputs(x, &[1, 2, 7, 0]));
    assert!(matches!(outside, Err(EngineError::Index { index: 7, count: 7, .. })), "{outside:?}");
    assert!(matches!(program.read("nothing"), Err(EngineError::Unknown { what: "output", .. })));
    assert!(matches!(state.upload("nothing", HostSlice::F32(&[])), Err(EngineError::Unknown { .. })));
    assert!(matches!(state.upload("b", HostSlice::F32(&[1.0])), Err(EngineError::Size { .. })));
    assert!(matches!(state.upload("b", HostSlice::I32(&[1; 7])), Err(EngineError::Size { .. })));
    assert_eq!(download_all(&state), before, "a failed call left a trace");
}
