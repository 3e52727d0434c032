//! Each thing the lint knows is found where it is planted, and not where the format holds it.

use halfstep_graph::precision::{Extent, Lint, Override, Policy, Rule, assign, lint};
use halfstep_graph::{Binary, DType, Graph, Op, Shape, Unary, ValueId, ValueType};

fn lints(
    build: impl FnOnce(&mut Graph) -> ValueId,
    policy: &str,
    rule: Option<(&str, Rule)>,
) -> Vec<(Lint, String)> {
    let mut g = Graph::new();
    let out = build(&mut g);
    g.add_output("out", out);
    let mut policy = Policy::named(policy).unwrap();
    policy.overrides.extend(rule.map(|(pattern, rule)| Override { pattern: pattern.into(), rule }));
    let extents = [Extent { input: "positions", largest: 4095 }];
    let (assigned, _) = assign(&g, &policy);
    lint(&assigned, &extents).into_iter().map(|f| (f.lint, f.name)).collect()
}

fn one(lint: Lint, name: &str) -> Vec<(Lint, String)> {
    vec![(lint, name.to_string())]
}

fn product(g: &mut Graph) -> ValueId {
    let x = g.input("x", ValueType::f32(Shape::from([8, 8])));
    g.scoped("product", |g| g.matmul(x, x, false, true)).unwrap()
}

#[test]
fn a_mask_beyond_fp16_is_named_and_fits_bf16() {
    let masked = |g: &mut Graph| {
        let scores = product(g);
        g.scoped("mask", |g| {
            let seen = g.unary(Unary::Step, scores).unwrap();
            let hidden = g.scalar(-1e9);
            g.select(seen, scores, hidden).unwrap()
        })
    };
    assert_eq!(lints(masked, "fp16", None), one(Lint::ConstantBeyondRange, "mask"));
    assert_eq!(lints(masked, "bf16", None), []);
    // An infinite mask is meant.
    let infinite = |g: &mut Graph| {
        let scores = product(g);
        let hidden = g.scalar(f64::NEG_INFINITY);
        g.binary(Binary::Min, scores, hidden).unwrap()
    };
    assert_eq!(lints(infinite, "fp16", None), []);
}

#[test]
fn an_eps_that_becomes_zero_is_named() {
    let normed = |g: &mut Graph| {
        let x = product(g);
        g.scoped("norm", |g| {
            let eps = g.scalar(1e-8);
            g.add(x, eps).unwrap()
        })
    };
    assert_eq!(lints(normed, "fp16", None), one(Lint::RoundsToZero, "norm"));
    assert_eq!(lints(normed, "bf16", None), []);
    assert_eq!(lints(normed, "fp16", Some(("norm", Rule::F32))), []);
    let layer_norm = |g: &mut Graph| {
        let x = g.input("x", ValueType::f32(Shape::from([8, 8])));
        let w = g.input("w", ValueType::f32(Shape::from([8])));
        g.scoped("ln", |g| g.layer_norm(x, w, w, 1e-50)).unwrap()
    };
    assert_eq!(lints(layer_norm, "fp32", None), one(Lint::RoundsToZero, "ln"));
}

#[test]
fn positions_and_whole_numbers_beyond_the_mantissa_are_named() {
    let rotary = |to: DType| {
        move |g: &mut Graph| {
            let positions = g.input("positions", ValueType::i32(Shape::from([16])));
            g.scoped("rotary", |g| g.push(Op::Cast { to }, &[positions])).unwrap()[0]
        }
    };
    assert_eq!(lints(rotary(DType::Bf16), "fp32", None), one(Lint::PositionsBeyondMantissa, "rotary"));
    assert_eq!(lints(rotary(DType::F16), "fp32", None), one(Lint::PositionsBeyondMantissa, "rotary"));
    assert_eq!(lints(rotary(DType::F32), "fp32", None), []);
    let offset = |g: &mut Graph| {
        let x = product(g);
        g.scoped("offset", |g| {
            let c = g.scalar(2049.0);
            g.add(x, c).unwrap()
        })
    };
    assert_eq!(lints(offset, "fp16", None), one(Lint::IntegerNotHeld, "offset"));
    assert_eq!(lints(offset, "bf16", None), one(Lint::IntegerNotHeld, "offset"));
    assert_eq!(lints(offset, "fp32", None), []);
}

#[test]
fn a_sum_longer_than_f32_counts_is_named() {
    let long = |n: usize| {
        move |g: &mut Graph| {
            let x = g.input("x", ValueType::f32(Shape::from([n])));
            g.scoped("total", |g| g.sum(x, &[0])).unwrap()
        }
    };
    assert_eq!(lints(long((1 << 24) + 1), "fp32", None), one(Lint::SumTooLong, "total"));
    assert_eq!(lints(long(1 << 24), "fp32", None), []);
    let contraction = |g: &mut Graph| {
        let x = g.input("x", ValueType::f32(Shape::from([2, 1 << 25])));
        g.scoped("wide", |g| g.matmul(x, x, false, true)).unwrap()
    };
    assert_eq!(lints(contraction, "bf16", None), one(Lint::SumTooLong, "wide"));
}

#[test]
fn a_norm_forced_into_half_is_named() {
    let norm = |g: &mut Graph| {
        let x = g.input("x", ValueType::f32(Shape::from([8, 4])));
        let w = g.input("w", ValueType::f32(Shape::from([4])));
        g.scoped("bn", |g| g.batch_norm(x, w, w, 1e-5)).unwrap().0
    };
    assert_eq!(lints(norm, "fp16", Some(("bn", Rule::Low))), one(Lint::NormInHalf, "bn"));
    assert_eq!(lints(norm, "fp16", None), []);
}
