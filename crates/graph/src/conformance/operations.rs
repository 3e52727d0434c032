//! The part that compares every operation with the f64 interpreter.

use super::case::{Case, agrees_with_the_interpreter};
use super::contractions::{contraction_cases, quantise_cases};
use super::{policies, supported};
use crate::engine::Engine;
use crate::graph::{Graph, ValueId};
use crate::op::{BatchNormPart, Binary, Op, PoolKind, ReduceKind, Unary};
use crate::precision::{Override, Policy, Rule};
use crate::{DType, GraphError, Shape, ValueType};

/// Compares each operation with the f64 interpreter under every policy that the engine supports,
/// and returns what was left out: the other policies, and operations on types that the engine does
/// not store.
///
/// # Panics
/// If a result differs by more than its bound.
#[must_use = "what was left out was not tested"]
pub fn operations(engine: &dyn Engine) -> Vec<String> {
    let mut left_out = Vec::new();
    for policy in policies(engine, &mut left_out) {
        left_out.extend(operations_under(engine, &policy));
    }
    left_out.sort();
    left_out.dedup();
    left_out
}

/// As [`operations`], under one policy: programs under different ones may be tested side by side.
///
/// # Panics
/// If a result differs by more than its bound.
#[must_use = "what was left out was not tested"]
pub fn operations_under(engine: &dyn Engine, policy: &Policy) -> Vec<String> {
    let mut left_out = Vec::new();
    if !supported(engine, policy, &mut left_out) {
        return left_out;
    }
    for case in cases() {
        if let Some(dtype) =
            case.graph.values.iter().map(|v| v.ty.dtype).find(|&d| !engine.target().stores(d))
        {
            left_out.push(format!("{}: the engine stores no {dtype}", case.name));
            continue;
        }
        let mut policy = policy.clone();
        if policy.narrow.is_some() && case.contracts() {
            // The only contraction of a program is its last, which would stay in 16 bits.
            policy.overrides = vec![Override { pattern: "*".into(), rule: Rule::Low }];
        }
        agrees_with_the_interpreter(engine, &case, &policy);
    }
    left_out
}

/// At least one program for each operation that computes.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    unary_cases(&mut cases);
    elementwise_cases(&mut cases);
    movement_cases(&mut cases);
    reduction_cases(&mut cases);
    norm_cases(&mut cases);
    quantise_cases(&mut cases);
    contraction_cases(&mut cases);
    pool_cases(&mut cases);
    cases
}

type Results = Result<Vec<ValueId>, GraphError>;

fn one(result: Result<ValueId, GraphError>) -> Results {
    result.map(|v| vec![v])
}

fn unary_cases(cases: &mut Vec<Case>) {
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
}

fn elementwise_cases(cases: &mut Vec<Case>) {
    let binary = [
        Binary::Add,
        Binary::Sub,
        Binary::Mul,
        Binary::Div,
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
}

fn movement_cases(cases: &mut Vec<Case>) {
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
}

fn reduction_cases(cases: &mut Vec<Case>) {
    let s: Shape = [3, 5, 7].into();
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
}

/// Pooling and its gradient.
fn pool_cases(cases: &mut Vec<Case>) {
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
}

/// Norms and losses. Their conditioning is bounded by an eps near the variance of the operands.
fn norm_cases(cases: &mut Vec<Case>) {
    let shapes: [Shape; 4] = [[6, 33].into(), [33].into(), [33].into(), [6, 33].into()];
    cases.push(Case::new("layer_norm", 33, &shapes, |g, x| {
        let y = g.push(Op::LayerNorm { eps: 0.3 }, &x[..3])?;
        let dx = g.push(Op::LayerNormGrad, &[x[0], x[1], y[1], y[2], x[3]])?;
        Ok([y, dx].concat())
    }));
    batch_norm_part_cases(cases);
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

/// Batch norm with the statistics of the rows here, and with those of a batch of which other ranks
/// have the other half.
fn batch_norm_part_cases(cases: &mut Vec<Case>) {
    let part = |g: &mut Graph, part, operands: &[ValueId]| g.push(Op::BatchNormPart(part), operands);
    for shape in [[6, 33].into(), [2, 3, 5, 8].into()] {
        let shape: Shape = shape;
        let (rows, channels) = (shape.rows(), Shape::from([shape.last()]));
        let shapes = [&shape, &channels, &channels, &shape].map(Clone::clone);
        cases.push(Case::new(&format!("batch_norm {shape}"), 33, &shapes, |g, x| {
            let [x, gamma, beta, dy] = [0, 1, 2, 3].map(|i| x[i]);
            let mean = part(g, BatchNormPart::Mean, &[x])?[0];
            let var = part(g, BatchNormPart::Variance, &[x, mean])?[0];
            let y = part(g, BatchNormPart::Apply { eps: 0.3 }, &[x, gamma, beta, mean, var])?;
            let sums = part(g, BatchNormPart::Sums, &[x, mean, y[1], dy])?;
            let dx = part(g, BatchNormPart::Dx { rows }, &[x, gamma, mean, y[1], dy, sums[0], sums[1]])?;
            Ok([vec![mean, var], y, sums, dx].concat())
        }));
        let vectors = std::iter::repeat_n(&channels, 6);
        let shapes: Vec<Shape> = [&shape, &shape].into_iter().chain(vectors).cloned().collect();
        cases.push(Case::new(&format!("batch_norm of two ranks {shape}"), 33, &shapes, |g, v| {
            let [x, dy, gamma, beta, mean, root, dgamma, dbeta] = std::array::from_fn(|i| v[i]);
            let var = g.unary(Unary::Square, root)?;
            let here = part(g, BatchNormPart::Variance, &[x, mean])?;
            let y = part(g, BatchNormPart::Apply { eps: 0.3 }, &[x, gamma, beta, mean, var])?;
            let sums = part(g, BatchNormPart::Sums, &[x, mean, y[1], dy])?;
            let dx =
                part(g, BatchNormPart::Dx { rows: 2 * rows }, &[x, gamma, mean, y[1], dy, dgamma, dbeta])?;
            Ok([here, y, sums, dx].concat())
        }));
    }
}
