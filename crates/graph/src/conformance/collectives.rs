//! The part that checks sums over ranks: threads of this process, each of which has an engine of
//! its own.

use std::sync::Arc;

use super::{compile, numbers, tensor, tensors_of};
use crate::communicator::Communicator;
use crate::engine::{Engine, HostSlice};
use crate::graph::{Graph, Init, SlotKind, When};
use crate::interp::{RankState, Rounding, Tensor, committed, evaluate_on_ranks};
use crate::op::{Op, SgdSpec, Unary};
use crate::precision::Policy;
use crate::shard::{RESIDUAL, Residuals, Shard, shard};
use crate::{DType, GraphError, Kept, Phase, Shape, ValueType, differentiate};

/// Makes the engine of one rank: one that shares nothing with those of the others.
pub type MakeRank<'a> = &'a (dyn Fn(Arc<Communicator>) -> Box<dyn Engine> + Sync);

/// Checks sums over two and three ranks: alone in each format that travels, and in training steps
/// with batch norm and gradients in both formats. All ranks must end with the same bits.
///
/// # Panics
/// If a check fails.
pub fn collectives(rank: MakeRank<'_>) {
    for size in [2, 3] {
        sums_agree(rank, size, DType::F32, 1.0 / size as f64);
        sums_agree(rank, size, DType::Bf16, 1.0);
        steps_agree(rank, size, DType::F32);
        steps_agree(rank, size, DType::Bf16);
    }
}

/// What each of so many ranks makes of it, by rank.
fn on_ranks<T: Send>(
    rank: MakeRank<'_>,
    size: usize,
    work: impl Fn(usize, &dyn Engine) -> T + Sync,
) -> Vec<T> {
    std::thread::scope(|scope| {
        let start = |communicator: Communicator| {
            let work = &work;
            scope.spawn(move || {
                let at = communicator.rank();
                let engine = rank(Arc::new(communicator));
                assert_eq!(engine.target().ranks(), size, "ranks that {} plans for", engine.name());
                work(at, engine.as_ref())
            })
        };
        let threads: Vec<_> = Communicator::in_process(size).into_iter().map(start).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|e| std::panic::resume_unwind(e))).collect()
    })
}

/// Two sums under way at once, each of two tensors.
fn two_sums(over: DType, factor: f64) -> Graph {
    let build = || -> Result<Graph, GraphError> {
        let mut g = Graph::new();
        let shapes: Vec<Shape> = vec![[5, 7].into(), [3].into()];
        let a = g.input("a", ValueType::f32(shapes[0].clone()));
        let b = g.input("b", ValueType::f32(shapes[1].clone()));
        let squares = [g.unary(Unary::Square, a)?, g.unary(Unary::Square, b)?];
        let first = g.push(Op::AllReduceStart { over }, &[a, b])?;
        let second = g.push(Op::AllReduceStart { over }, &squares)?;
        let wait = Op::AllReduceWait { shapes, factor };
        let sums = [g.push(wait.clone(), &first)?, g.push(wait, &second)?].concat();
        for (i, sum) in sums.into_iter().enumerate() {
            g.add_output(&format!("sum {i}"), sum);
        }
        Ok(g)
    };
    build().unwrap_or_else(|e| panic!("two sums: {e}"))
}

fn sums_agree(rank: MakeRank<'_>, size: usize, over: DType, factor: f64) {
    let (a, b) = (Shape::from([5, 7]), Shape::from([3]));
    let given = |rank: usize| (numbers(rank as u64, &a), numbers(10 + rank as u64, &b));
    let found = on_ranks(rank, size, |at, engine| {
        let (graph, mut state, mut program) = compile(engine, &two_sums(over, factor), &Policy::fp32());
        let (x, y) = given(at);
        let inputs = [("a", HostSlice::F32(&x)), ("b", HostSlice::F32(&y))];
        // Twice: a sum's memory serves the next step.
        for _ in 0..2 {
            program.run(&mut state, &inputs).expect("sums");
        }
        let read = graph.outputs.iter().map(|(name, _)| program.read(name).expect("a sum").f32().to_vec());
        (read.collect::<Vec<_>>(), graph)
    });
    let inputs: Vec<_> =
        (0..size).map(given).map(|(x, y)| [("a", tensor(&a, &x)), ("b", tensor(&b, &y))]).collect();
    let ranks: Vec<RankState<'_>> = inputs.iter().map(|inputs| (&[][..], &inputs[..])).collect();
    let graph = &found[0].1;
    let values = evaluate_on_ranks(graph, &ranks, Rounding::Stored).expect("the interpreter");
    for (at, (sums, _)) in found.iter().enumerate() {
        for ((name, value), (sum, first)) in graph.outputs.iter().zip(sums.iter().zip(&found[0].0)) {
            let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            let what = format!("{name} in {over} on rank {at} of {size}");
            assert_eq!(bits(sum), bits(first), "{what}: other bits than on rank 0");
            for (&y, &want) in sum.iter().zip(&values[at][value.0 as usize].data) {
                // An f32 sum of at most 3 numbers of at most 1, the factor and its product: γ_5·3.
                // A sum in bf16 is rounded once more, where f32 and f64 may lie on two sides of a
                // border: one ulp.
                let ulp = if over == DType::Bf16 { f64::powi(2.0, -7) } else { 0.0 };
                let allowed = 15.1 * f64::powi(2.0, -24) + ulp * want.abs();
                assert!((f64::from(y) - want).abs() <= allowed, "{what}: {y} against {want}");
            }
        }
    }
}

/// A step whose gradients and batch statistics are summed over ranks, as [`shard`] makes it.
fn step_of_a_rank(size: usize, over: DType) -> Graph {
    let build = || -> Result<Graph, GraphError> {
        let mut g = Graph::new();
        let zero = Init::Constant(0.0);
        let mut slots = Vec::new();
        for (name, shape) in [("w", Shape::from([7, 5])), ("gamma", [7].into()), ("beta", [7].into())] {
            let ty = ValueType::f32(shape);
            let weight = g.add_slot(name, ty.clone(), SlotKind::Weight { decay: false }, zero)?;
            slots.push((weight, g.add_slot(&format!("{name}.momentum"), ty, SlotKind::Moment, zero)?));
        }
        let attempts = g.add_slot("attempts", ValueType::f32(Shape::scalar()), SlotKind::Counter, zero)?;
        let x = g.input("x", ValueType::f32([4, 5].into()));
        let target = g.input("target", ValueType::i32([4].into()));
        let weights = [0, 1, 2].map(|i| slots[i].0);
        let [w, gamma, beta] = weights.map(|slot| g.read(slot));
        let product = g.matmul(x, w, false, true)?;
        let (logits, ..) = g.batch_norm(product, gamma, beta, 1.0)?;
        let losses = g.cross_entropy(logits, target)?;
        let loss = g.mean(losses, &[0])?;
        let one = g.scalar(1.0);
        let gradients = differentiate(&mut g, loss, one, &weights)?;
        g.in_phase(Phase::Update, |g| {
            let norm = g.global_norm(&gradients)?;
            let commit = g.unary(Unary::IsFinite, norm)?;
            let lr = g.scalar(0.05);
            let kept = Kept::default();
            let sgd = Op::Sgd(SgdSpec { momentum: 0.9, weight_decay: 0.0, nesterov: false, kept });
            for (&(weight, momentum), &gradient) in slots.iter().zip(&gradients) {
                let (old, buffer) = (g.read(weight), g.read(momentum));
                let new = g.push(sgd.clone(), &[old, buffer, gradient, lr, one, commit])?;
                g.write(weight, new[0], When::Committed);
                g.write(momentum, new[1], When::Committed);
            }
            let old = g.read(attempts);
            let attempt = g.add(old, one)?;
            g.write(attempts, attempt, When::Always);
            g.commit = Some(commit);
            g.add_output("loss", loss);
            Ok::<_, GraphError>(())
        })?;
        let bf16 = (over == DType::Bf16).then_some(Residuals { scale: None });
        shard(&g, &Shard { ranks: size, sums: &gradients, means: &[loss], bf16, bucket_bytes: 64 })
    };
    build().unwrap_or_else(|e| panic!("a step of a rank: {e}"))
}

const STEPS: usize = 4;
/// In this step one rank has a number that is not finite: no rank commits.
const SKIPPED: usize = 2;

fn steps_agree(rank: MakeRank<'_>, size: usize, over: DType) {
    let (x_shape, target) = (Shape::from([4, 5]), [1, 6, 0, 3]);
    let x = |rank: usize, step: usize| {
        let mut x = numbers((20 + size * step + rank) as u64, &x_shape);
        if step == SKIPPED && rank == 1 {
            x[7] = f32::NAN;
        }
        x
    };
    let found = on_ranks(rank, size, |at, engine| {
        let (graph, mut state, mut program) = compile(engine, &step_of_a_rank(size, over), &Policy::fp32());
        for (i, name) in ["w", "gamma", "beta"].into_iter().enumerate() {
            let shape = graph.slots[graph.slot_named(name).expect("a slot").0 as usize].ty.shape.clone();
            state.upload(name, HostSlice::F32(&numbers(40 + i as u64, &shape))).expect("an upload");
        }
        let mut states = vec![tensors_of(&state)];
        for step in 0..STEPS {
            let x = x(at, step);
            let inputs = [("x", HostSlice::F32(&x)), ("target", HostSlice::I32(&target))];
            program.run(&mut state, &inputs).expect("a step");
            states.push(tensors_of(&state));
        }
        (states, graph)
    });
    let graph = &found[0].1;
    let mut wanted: Vec<Vec<Tensor>> = found.iter().map(|(states, _)| states[0].clone()).collect();
    for step in 0..STEPS {
        let labels = Tensor::new([4].into(), target.map(f64::from).to_vec());
        let inputs: Vec<_> = (0..size)
            .map(|rank| [("x", tensor(&x_shape, &x(rank, step))), ("target", labels.clone())])
            .collect();
        let ranks: Vec<RankState<'_>> =
            wanted.iter().zip(&inputs).map(|(slots, inputs)| (&slots[..], &inputs[..])).collect();
        let values = evaluate_on_ranks(graph, &ranks, Rounding::Stored).expect("the interpreter");
        wanted = wanted.iter().zip(&values).map(|(slots, values)| committed(graph, slots, values)).collect();
        for (at, (states, _)) in found.iter().enumerate() {
            let mut others = 0;
            for (i, slot) in graph.slots.iter().enumerate() {
                let what = format!("{} in {over} on rank {at} of {size}, step {step}", slot.name);
                let (before, after) = (&states[step][i], &states[step + 1][i]);
                if !slot.name.starts_with(RESIDUAL) {
                    assert_eq!(after, &found[0].0[step + 1][i], "{what}: another value than on rank 0");
                }
                if step == SKIPPED {
                    assert_eq!(after == before, slot.name != "attempts", "{what}, which was skipped");
                }
                for (&y, &t) in after.data.iter().zip(&wanted[at][i].data) {
                    // From input to weight less than 16 operations stand in a row, with sums of at
                    // most 12 terms. Numbers and gradients are at most 20 in size (a product has 5
                    // terms, a batch 12 rows), and with eps = 1 no norm makes an error larger.
                    // Momentum adds four steps up.
                    let sums = 4.0 * 16.0 * 12.0 * 20.0 * f64::powi(2.0, -24);
                    // Where a contribution or a sum lies at a border between two bf16 numbers: an
                    // ulp of each.
                    let ulp = if over == DType::Bf16 { f64::powi(2.0, -7) * (size + 1) as f64 } else { 0.0 };
                    assert!((y - t).abs() <= sums + ulp, "{what}: {y} against {t}");
                    others += usize::from((y - t).abs() > sums);
                }
            }
            // That an f32 sum lies so near to a border between two bf16 numbers is rarer than 1 in
            // 1000.
            assert!(
                others <= 2,
                "rank {at} of {size}, step {step}: {others} numbers differ by more than sums"
            );
        }
    }
}
