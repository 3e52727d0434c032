//! Every derivative agrees with finite differences of the f64 interpreter.
//!
//! Central differences of step h have error h²·|f‴|/6 + ε·|f|/h. With h = 1e-4 on functions of size
//! about 1 and smooth to third order, that is below 1e-6; points near a kink of a piecewise
//! function are kept away by construction.

use halfstep_graph::interp::{Rounding, Tensor, evaluate};
use halfstep_graph::{
    AttentionSpec, Binary, ConvGeometry, DType, Graph, GraphError, Init, Op, PoolKind, Shape, SlotKind,
    Unary, ValueId, ValueType, differentiate,
};
use proptest::prelude::*;

const H: f64 = 1e-4;
const TOLERANCE: f64 = 2e-6;

/// A number in ±1 from a seed and a position, never within 0.04 of zero, and never within 1.4·H of
/// one nearby: no maximum switches within a step of H.
fn draw(seed: u64, i: usize) -> f64 {
    let word = halfstep_float::Philox::new(seed).word(7, i as u64);
    let x = f64::from(word) / f64::from(u32::MAX) * 1.9 - 0.95;
    let level = ((x + 0.05 * x.signum()) * 100.0).round() / 100.0;
    level + (i % 64) as f64 * 1.5 * H
}

fn tensor(seed: u64, shape: &Shape) -> Tensor {
    Tensor::new(shape.clone(), (0..shape.count()).map(|i| draw(seed, i)).collect())
}

/// Differentiates Σ w·f(slots) with random weights w by every slot and compares with central
/// differences.
fn check(
    shapes: &[Shape],
    seed: u64,
    prepare: impl Fn(usize, f64) -> f64,
    build: impl Fn(&mut Graph, &[ValueId]) -> Result<ValueId, GraphError>,
    inputs: &[(&str, Tensor)],
) {
    let mut g = Graph::new();
    let slots: Vec<_> = shapes
        .iter()
        .enumerate()
        .map(|(i, shape)| {
            let kind = SlotKind::Weight { decay: true };
            let ty = ValueType::f32(shape.clone());
            g.add_slot(&format!("x{i}"), ty, kind, Init::Constant(0.0)).unwrap()
        })
        .collect();
    let reads: Vec<ValueId> = slots.iter().map(|&s| g.read(s)).collect();
    let y = build(&mut g, &reads).unwrap();
    let shape = g.shape(y).clone();
    let weights = g.input("w", ValueType::f32(shape.clone()));
    let weighted = g.mul(y, weights).unwrap();
    let axes: Vec<usize> = (0..shape.len()).collect();
    let loss = g.sum(weighted, &axes).unwrap();
    let one = g.scalar(1.0);
    let gradients = differentiate(&mut g, loss, one, &slots).unwrap();

    let mut given = inputs.to_vec();
    given.push(("w", tensor(seed ^ 99, &shape)));
    let mut state: Vec<Tensor> = shapes
        .iter()
        .enumerate()
        .map(|(i, s)| {
            let t = tensor(seed + i as u64, s);
            Tensor::new(s.clone(), t.data.iter().map(|&v| prepare(i, v)).collect())
        })
        .collect();
    let values = evaluate(&g, &state, &given, Rounding::None).unwrap();
    for (s, gradient) in gradients.iter().enumerate() {
        let analytic = &values[gradient.0 as usize];
        assert_eq!(analytic.shape, shapes[s]);
        for i in 0..shapes[s].count() {
            let at = state[s].data[i];
            let mut loss_at = |x: f64| {
                state[s].data[i] = x;
                let v = evaluate(&g, &state, &given, Rounding::None).unwrap();
                v[loss.0 as usize].data[0]
            };
            let numeric = (loss_at(at + H) - loss_at(at - H)) / (2.0 * H);
            state[s].data[i] = at;
            let error = (numeric - analytic.data[i]).abs();
            let size = 1.0f64.max(numeric.abs());
            assert!(error <= TOLERANCE * size, "operand {s}[{i}]: {numeric} against {}", analytic.data[i]);
        }
    }
}

fn as_is(_: usize, x: f64) -> f64 {
    x
}

fn sizes() -> impl Strategy<Value = usize> {
    1usize..5
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn unary(n in sizes(), seed in 0u64..1000) {
        let smooth = [
            Unary::Neg, Unary::Abs, Unary::Exp, Unary::Tanh, Unary::Sigmoid, Unary::Relu, Unary::Gelu,
            Unary::GeluGrad, Unary::Square, Unary::Step, Unary::Sign, Unary::IsFinite,
        ];
        for f in smooth {
            check(&[[n, 3].into()], seed, as_is, |g, x| g.unary(f, x[0]), &[]);
        }
        for f in [Unary::Log, Unary::Sqrt, Unary::Rsqrt, Unary::Recip] {
            check(&[[n].into()], seed, |_, x| 0.5 + x.abs(), |g, x| g.unary(f, x[0]), &[]);
        }
    }

    #[test]
    fn binary_with_broadcasting(a in sizes(), b in sizes(), seed in 0u64..1000) {
        let pairs: [(Shape, Shape); 4] = [
            ([a, b].into(), [a, b].into()), ([a, b].into(), [b].into()),
            ([a, 1].into(), [1, b].into()), (Shape::scalar(), [a, b].into()),
        ];
        for f in [Binary::Add, Binary::Sub, Binary::Mul, Binary::Max, Binary::Min] {
            for (x, y) in &pairs {
                // Apart by more than the step, so that no maximum switches.
                let apart = |i, v: f64| (v * 100.0).round() / 100.0 + if i == 0 { 0.0 } else { 0.005 };
                check(&[x.clone(), y.clone()], seed, apart, |g, v| g.binary(f, v[0], v[1]), &[]);
            }
        }
        for (x, y) in pairs {
            let away = |i, v: f64| if i == 0 { v } else { v + v.signum() };
            check(&[x, y], seed, away, |g, v| g.div(v[0], v[1]), &[]);
        }
    }

    #[test]
    fn movement(a in sizes(), b in 2usize..5, seed in 0u64..1000) {
        let s: Shape = [a, b, 3].into();
        check(std::slice::from_ref(&s), seed, as_is, |g, x| g.permute(x[0], &[2, 0, 1]), &[]);
        check(std::slice::from_ref(&s), seed, as_is, |g, x| g.slice(x[0], 1, 1, b), &[]);
        check(std::slice::from_ref(&s), seed, as_is, |g, x| g.reshape(x[0], [b, 3 * a]), &[]);
        check(&[s.clone(), s.clone()], seed, as_is, |g, x| g.concat(&[x[0], x[1], x[0]], 1), &[]);
        check(&[[b, 1].into()], seed, as_is, |g, x| g.broadcast(x[0], &[a, b, 3].into()), &[]);
        check(&[s], seed, as_is, |g, x| Ok(g.push(Op::Pad { axis: 0, before: 1, after: 2 }, &[x[0]])?[0]), &[]);
    }

    #[test]
    fn reductions_and_softmax(a in sizes(), b in sizes(), seed in 0u64..1000) {
        let s: Shape = [a, b, 2].into();
        for axes in [vec![0], vec![1], vec![2], vec![0, 2], vec![0, 1, 2], vec![]] {
            check(std::slice::from_ref(&s), seed, as_is, |g, x| g.sum(x[0], &axes), &[]);
            check(std::slice::from_ref(&s), seed, as_is, |g, x| g.mean(x[0], &axes), &[]);
            check(std::slice::from_ref(&s), seed, as_is, |g, x| g.max(x[0], &axes), &[]);
        }
        check(std::slice::from_ref(&s), seed, as_is, |g, x| g.softmax(x[0]), &[]);
        check(&[s.clone(), s], seed, as_is, |g, x| g.global_norm(x), &[]);
    }

    #[test]
    fn norms(rows in 2usize..5, width in 2usize..5, seed in 0u64..1000) {
        let shapes: [Shape; 3] = [[rows, width].into(), [width].into(), [width].into()];
        // eps bounds the third derivative where a row happens to be nearly constant.
        check(&shapes, seed, as_is, |g, x| g.layer_norm(x[0], x[1], x[2], 0.3), &[]);
        check(&shapes, seed, as_is, |g, x| Ok(g.batch_norm(x[0], x[1], x[2], 0.3)?.0), &[]);
    }

    #[test]
    fn losses_and_embeddings(rows in sizes(), classes in sizes(), seed in 0u64..1000) {
        let target = Tensor::new([rows].into(), (0..rows).map(|r| ((r + 1) % classes) as f64).collect());
        let given = [("t", target)];
        let t = |g: &mut Graph| g.input("t", ValueType::i32([rows].into()));
        check(&[[rows, classes].into()], seed, as_is, |g, x| { let t = t(g); g.cross_entropy(x[0], t) }, &given);
        check(&[[classes, 3].into()], seed, as_is, |g, x| { let t = t(g); g.gather(x[0], t) }, &given);
        let scatter = |g: &mut Graph, x: &[ValueId]| {
            let t = t(g);
            Ok(g.push(Op::ScatterAdd { rows: classes }, &[x[0], t])?[0])
        };
        check(&[[rows, 3].into()], seed, as_is, scatter, &given);
    }

    #[test]
    fn matrix_products(m in sizes(), k in sizes(), n in sizes(), seed in 0u64..1000) {
        for (ta, tb) in [(false, false), (true, false), (false, true), (true, true)] {
            let a: Shape = if ta { [2, k, m].into() } else { [2, m, k].into() };
            let b: Shape = if tb { [2, n, k].into() } else { [2, k, n].into() };
            let op = Op::MatMul { ta, tb };
            check(&[a, b, [n].into()], seed, as_is, |g, x| Ok(g.push(op.clone(), x)?[0]), &[]);
        }
    }

    #[test]
    fn convolutions(size in 3usize..6, window in 1usize..4, stride in 1usize..3, pad in 0usize..2, seed in 0u64..1000) {
        let geometry = ConvGeometry { stride, pad };
        let shapes: [Shape; 3] = [[2, size, size + 1, 2].into(), [3, window, window, 2].into(), [3].into()];
        let conv = |g: &mut Graph, x: &[ValueId]| Ok(g.push(Op::Conv2d(geometry), x)?[0]);
        check(&shapes, seed, as_is, conv, &[]);
        let out = geometry.output(size, window).unwrap();
        let dy: Shape = [1, out, out, 3].into();
        let back = Op::Conv2dGradInput { geometry, size: (size, size) };
        check(&[dy.clone(), shapes[1].clone()], seed, as_is, |g, x| Ok(g.push(back.clone(), x)?[0]), &[]);
        let weight = Op::Conv2dGradWeight { geometry, window: (window, window) };
        check(&[[1, size, size, 2].into(), dy], seed, as_is, |g, x| Ok(g.push(weight.clone(), x)?[0]), &[]);
    }

    #[test]
    fn pooling(size in 2usize..6, window in 1usize..3, stride in 1usize..3, seed in 0u64..1000) {
        for kind in [PoolKind::Max, PoolKind::Mean] {
            let s: Shape = [2, size, size, 2].into();
            check(&[s], seed, as_is, |g, x| g.pool(x[0], kind, window, stride), &[]);
        }
    }

    #[test]
    fn attention(time in sizes(), causal in any::<bool>(), seed in 0u64..1000) {
        let spec = AttentionSpec { heads: 2, causal };
        check(&[[2, time, 12].into()], seed, as_is, |g, x| g.attention(x[0], spec), &[]);
        let part: Shape = [1, time, 4].into();
        let separate = |g: &mut Graph, x: &[ValueId]| Ok(g.push(Op::Attention(spec), x)?[0]);
        check(&[part.clone(), part.clone(), part], seed, as_is, separate, &[]);
    }

    #[test]
    fn dropout_and_select(rows in sizes(), seed in 0u64..1000) {
        let key = Tensor::new([4].into(), vec![seed as f64, 0.0, 3.0, 0.0]);
        let dropout = |g: &mut Graph, x: &[ValueId]| {
            let key = g.input("key", ValueType::i32([4].into()));
            g.dropout(x[0], key, 0.4, 5)
        };
        check(&[[rows, 6].into()], seed, as_is, dropout, &[("key", key)]);
        let s: Shape = [rows, 2].into();
        let select = |g: &mut Graph, x: &[ValueId]| {
            let zero = g.scalar(0.0);
            let mask = g.binary(Binary::Greater, x[0], zero)?;
            g.select(mask, x[1], x[2])
        };
        check(&[s.clone(), s, [2].into()], seed, as_is, select, &[]);
    }
}

#[test]
fn a_slot_used_twice_gets_both_parts_and_an_unused_one_zero() {
    let mut g = Graph::new();
    let kind = SlotKind::Weight { decay: false };
    let ty = ValueType::f32([2].into());
    let used = g.add_slot("used", ty.clone(), kind, Init::Constant(0.0)).unwrap();
    let unused = g.add_slot("unused", ty, kind, Init::Constant(0.0)).unwrap();
    let x = g.read(used);
    let square = g.mul(x, x).unwrap();
    let both = g.add(square, x).unwrap();
    let loss = g.sum(both, &[0]).unwrap();
    let seed = g.scalar(8.0);
    let gradients = differentiate(&mut g, loss, seed, &[used, unused]).unwrap();
    let state = [Tensor::new([2].into(), vec![3.0, -1.0]), Tensor::filled([2].into(), 0.0)];
    let values = evaluate(&g, &state, &[], Rounding::None).unwrap();
    assert_eq!(values[gradients[0].0 as usize].data, [8.0 * 7.0, -8.0]);
    assert_eq!(values[gradients[1].0 as usize].data, [0.0, 0.0]);
    assert_eq!(g.value(gradients[0]).gradient_of, Some(used));
}

#[test]
fn what_has_no_derivative_says_so() {
    let mut g = Graph::new();
    let kind = SlotKind::Weight { decay: false };
    let slot = g.add_slot("x", ValueType::f32([2, 4].into()), kind, Init::Constant(0.0)).unwrap();
    let x = g.read(slot);
    let t = g.input("t", ValueType::i32([2].into()));
    let rows = g.push(Op::CrossEntropy, &[x, t]).unwrap();
    let loss = g.sum(rows[1], &[0]).unwrap();
    let seed = g.scalar(1.0);
    let error = differentiate(&mut g, loss, seed, &[slot]).unwrap_err().to_string();
    assert!(error.contains("cross_entropy"), "{error}");
    assert_eq!(g.dtype(loss), DType::F32);
}
