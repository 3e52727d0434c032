use halfstep_graph::ReduceKind;
use proptest::prelude::*;

use super::support::*;
use crate::rows::RowError;
use crate::rows::argmax::ArgMax;
use crate::rows::reduce::{Reduce, reduce_scratch_len, sum_of_squares};
use crate::rows::storage::{Dst, Src, Storage};

/// Σ, Σ|x| and the maximum over the reduced axes, for each kept element.
fn reference(shape: &[usize], axes: &[usize], x: &[f64]) -> Vec<(f64, f64, f64)> {
    let kept: usize = (0..shape.len()).filter(|d| !axes.contains(d)).map(|d| shape[d]).product();
    let mut results = vec![(0.0, 0.0, f64::NEG_INFINITY); kept];
    for (i, &x) in x.iter().enumerate() {
        let (mut rest, mut at, mut stride) = (i, 0, 1);
        for d in (0..shape.len()).rev() {
            let coordinate = rest % shape[d];
            rest /= shape[d];
            if !axes.contains(&d) {
                at += coordinate * stride;
                stride *= shape[d];
            }
        }
        let r = &mut results[at];
        *r = (r.0 + x, r.1 + x.abs(), r.2.max(x));
    }
    results
}

fn check(shape: &[usize], axes: &[usize], from: Storage, to: Storage, kind: ReduceKind) {
    let x = random_stored(1, from, shape.iter().product(), 3.0);
    let reference = reference(shape, axes, &x.values());
    let count = (x.src().len() / reference.len()) as f64;
    let scale = if kind == ReduceKind::Mean { 1.0 / count } else { 1.0 };
    let expected: Vec<f64> =
        reference.iter().map(|r| if kind == ReduceKind::Max { r.2 } else { r.0 * scale }).collect();
    let results = everywhere(|isa, pool| {
        let mut y = Stored::empty(to, reference.len());
        let mut scratch = vec![f32::NAN; reduce_scratch_len(shape, axes)];
        let reduce = Reduce { kind, shape, axes, x: x.src(), y: y.dst(), scratch: &mut scratch };
        reduce.run(isa, pool).unwrap();
        vec![y]
    });
    for result in results {
        assert_close(&format!("{kind:?} {shape:?} {axes:?}"), &result[0].values(), &expected, |i| {
            let sum = if kind == ReduceKind::Max { 0.0 } else { sum_error() * reference[i].1 * scale };
            rounding(to, expected[i].abs() + sum) + sum
        });
    }
}

#[test]
fn all_kinds_of_axes() {
    for kind in [ReduceKind::Sum, ReduceKind::Mean, ReduceKind::Max] {
        for (shape, axes) in [
            (&[1000, 7][..], &[0][..]),
            (&[3, 4099], &[1]),
            (&[65, 1, 130], &[0, 1]),
            (&[5, 6, 7, 8], &[1, 3]),
            (&[5, 6, 7, 8], &[0, 2]),
            (&[2, 3, 4], &[0, 1, 2]),
            (&[2, 9, 40], &[1]),
            (&[3, 5, 130], &[1]),
            (&[2, 3], &[]),
            (&[], &[]),
            (&[1, 1], &[0]),
            (&[70_001], &[0]),
            (&[97, 2050], &[0]),
        ] {
            check(shape, axes, Storage::F32, Storage::F32, kind);
            check(shape, axes, Storage::Bf16, Storage::F16, kind);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_shape(shape in prop::collection::vec(1usize..20, 1..5), mask in 0u32..16, from in 0usize..3, to in 0usize..3,
                 kind in 0usize..3) {
        let axes: Vec<usize> = (0..shape.len()).filter(|d| mask >> d & 1 == 1).collect();
        let kind = [ReduceKind::Sum, ReduceKind::Mean, ReduceKind::Max][kind];
        check(&shape, &axes, STORAGES[from], STORAGES[to], kind);
    }
}

#[test]
fn maximum_of_nan_is_nan() {
    let mut x = random(3, 70, 1.0);
    x[41] = f32::NAN;
    for isa in isas() {
        let mut y = [0.0];
        let x = Src::F32(&x);
        Reduce { kind: ReduceKind::Max, shape: &[70], axes: &[0], x, y: Dst::F32(&mut y), scratch: &mut [] }
            .run(isa, &pool(1))
            .unwrap();
        assert!(y[0].is_nan());
    }
}

#[test]
fn arg_max_takes_the_first_and_nan() {
    let mut x = vec![0.0f32; 5 * 3000];
    x[7] = 2.0;
    x[2500] = 2.0;
    x[3000..6000].fill(f32::NEG_INFINITY);
    x[6000 + 2999] = 1.0;
    x[9000 + 10] = f32::INFINITY;
    x[9000 + 1500] = f32::NAN;
    x[9000 + 1501] = f32::NAN;
    x[12000..].fill(-1.0);
    for isa in isas() {
        for threads in 1..=3 {
            let mut y = [9; 5];
            ArgMax { rows: 5, cols: 3000, x: Src::F32(&x), y: &mut y }.run(isa, &pool(threads)).unwrap();
            assert_eq!(y, [7, 0, 2999, 1500, 0]);
        }
    }
    let mut y = [0; 5];
    assert!(ArgMax { rows: 5, cols: 0, x: Src::F32(&[]), y: &mut y }.run(isas()[0], &pool(1)).is_err());
}

#[test]
fn global_norm_is_exact_to_rounding_and_never_overflows_early() {
    let a = random_stored(1, Storage::F32, 100_001, 3.0);
    let b = random_stored(2, Storage::Bf16, 17, 1e10);
    let norm = |isa, threads, tensors: &[Src<'_>]| {
        let pool = pool(threads);
        tensors.iter().map(|&x| sum_of_squares(isa, &pool, x)).sum::<f64>().sqrt() as f32
    };
    let exact = a.values().iter().chain(&b.values()).map(|x| x * x).sum::<f64>().sqrt();
    for isa in isas() {
        let norms = [1, 2, 3].map(|threads| norm(isa, threads, &[a.src(), b.src()]));
        assert!(norms.iter().all(|n| n.to_bits() == norms[0].to_bits()));
        assert!((f64::from(norms[0]) - exact).abs() <= 1.01 * U * exact);
        let large = [3e30f32; 4];
        assert_eq!(norm(isa, 1, &[Src::F32(&large)]), 6e30);
        assert!(!norm(isa, 2, &[Src::F32(&[1.0, f32::INFINITY])]).is_finite());
        assert!(norm(isa, 2, &[Src::F32(&[1.0, f32::NAN])]).is_nan());
        assert_eq!(norm(isa, 2, &[]), 0.0);
    }
}

#[test]
fn wrong_lengths_are_errors() {
    let (isa, pool) = (isas()[0], pool(1));
    let length = |what, expected, actual| RowError::Length { what, expected, actual };
    let axis = RowError::Shape { what: "axes", why: "an axis is not below the number of dimensions" };
    let cases = [
        (5, 0, 3, length("x", 6, 5)),
        (6, 0, 2, length("y", 3, 2)),
        (6, 1, 3, length("y", 2, 3)),
        (6, 2, 3, axis),
    ];
    for (elements, axis, results, expected) in cases {
        let (x, mut y) = (vec![0.0; elements], vec![0.0; results]);
        let (x, y) = (Src::F32(&x), Dst::F32(&mut y));
        let reduce =
            Reduce { kind: ReduceKind::Sum, shape: &[2, 3], axes: &[axis], x, y, scratch: &mut [0.0; 3] };
        assert_eq!(reduce.run(isa, &pool), Err(expected));
    }
}
