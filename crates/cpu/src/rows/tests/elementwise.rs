use halfstep_graph::expression::Access;
use halfstep_graph::{Binary, Unary};
use proptest::prelude::*;

use super::support::*;
use crate::rows::RowError;
use crate::rows::elementwise::*;
use crate::rows::storage::{Dst, Src, Storage};

const UNARY: [Unary; 16] = [
    Unary::Neg,
    Unary::Abs,
    Unary::Exp,
    Unary::Log,
    Unary::Sqrt,
    Unary::Rsqrt,
    Unary::Recip,
    Unary::Tanh,
    Unary::Sigmoid,
    Unary::Relu,
    Unary::Step,
    Unary::Gelu,
    Unary::GeluGrad,
    Unary::IsFinite,
    Unary::Square,
    Unary::Sign,
];

const BINARY: [Binary; 9] = [
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

fn flag(condition: bool) -> f64 {
    f64::from(u8::from(condition))
}

/// The meaning of an operation in f64, and a bound on the kernel's error in f32.
fn unary(op: Unary, x: f64) -> (f64, f64) {
    // `math.rs` states ulps; an ulp is at most 2u of the value.
    let ulps = |y: f64, n: f64| (y, n * 2.0 * U * y.abs() + 2f64.powi(-126));
    match op {
        Unary::Neg => (-x, 0.0),
        Unary::Abs => (x.abs(), 0.0),
        Unary::Exp => ulps(x.exp(), 2.0),
        Unary::Log => ulps(x.ln(), 2.0),
        Unary::Sqrt => ulps(x.sqrt(), 0.5),
        Unary::Rsqrt => ulps(1.0 / x.sqrt(), 1.0),
        Unary::Recip => ulps(1.0 / x, 0.5),
        Unary::Tanh => ulps(x.tanh(), 2.0),
        Unary::Sigmoid => ulps(1.0 / (1.0 + (-x).exp()), 4.0),
        Unary::Relu => (x.max(0.0), 0.0),
        Unary::Step => (flag(x > 0.0), 0.0),
        Unary::Gelu => ulps(gelu(x), 5.0 + x * x / 2.0),
        Unary::GeluGrad => (gelu_grad(x), 8.0 * 2.0 * U),
        Unary::IsFinite => (flag(x.is_finite()), 0.0),
        Unary::Square => ulps(x * x, 0.5),
        Unary::Sign => (flag(x > 0.0) - flag(x < 0.0), 0.0),
    }
}

fn binary(op: Binary, a: f64, b: f64) -> (f64, f64) {
    let rounded = |y: f64| (y, U * y.abs() + 2f64.powi(-149));
    match op {
        Binary::Add => rounded(a + b),
        Binary::Sub => rounded(a - b),
        Binary::Mul => rounded(a * b),
        Binary::Div => rounded(a / b),
        Binary::Max => (a.max(b), 0.0),
        Binary::Min => (a.min(b), 0.0),
        Binary::Greater => (flag(a > b), 0.0),
        Binary::GreaterEqual => (flag(a >= b), 0.0),
        Binary::Equal => (flag(a == b), 0.0),
    }
}

/// For results of size `to`, the element of an operand of size `from` by numpy's rule.
fn broadcast_index(from: &[usize], to: &[usize], i: usize) -> usize {
    let (mut rest, mut at, mut stride) = (i, 0, 1);
    for d in 0..to.len() {
        let coordinate = rest % to[to.len() - 1 - d];
        rest /= to[to.len() - 1 - d];
        if d < from.len() {
            let size = from[from.len() - 1 - d];
            at += if size == 1 { 0 } else { coordinate * stride };
            stride *= size;
        }
    }
    at
}

/// The program of one function of one operand of the result's shape.
fn unary_program(op: Unary, from: Storage, to: Storage) -> Result<TileProgram, RowError> {
    TileProgram::new(
        vec![Operand { storage: from, pattern: Pattern::Same }],
        vec![TileOp::Input(0), TileOp::Unary(op, Value(0))],
        vec![Output { storage: to, value: Value(1) }],
    )
}

/// The program of one function of two operands.
fn binary_program(op: Binary, a: Operand, b: Operand, to: Storage) -> Result<TileProgram, RowError> {
    TileProgram::new(
        vec![a, b],
        vec![TileOp::Input(0), TileOp::Input(1), TileOp::Binary(op, Value(0), Value(1))],
        vec![Output { storage: to, value: Value(2) }],
    )
}

fn run(program: &TileProgram, len: usize, inputs: &[&Stored], outputs: &[Stored]) -> Vec<Vec<Stored>> {
    everywhere(|isa, pool| {
        let mut outputs = outputs.to_vec();
        let sources: Vec<Src<'_>> = inputs.iter().map(|s| s.src()).collect();
        let mut targets: Vec<Dst<'_>> = outputs.iter_mut().map(Stored::dst).collect();
        program.run_keyed(isa, pool, len, &sources, &mut targets, None).unwrap();
        outputs
    })
}

#[test]
fn every_function_of_one_number() {
    for op in UNARY {
        for (from, to) in
            [(Storage::F32, Storage::F32), (Storage::Bf16, Storage::F16), (Storage::F16, Storage::Bf16)]
        {
            let positive = matches!(op, Unary::Log | Unary::Sqrt | Unary::Rsqrt);
            let mut values = random(1, 20_011, 5.0);
            values[0] = 0.0;
            if positive {
                values.iter_mut().for_each(|x| *x = x.abs() + 1e-3);
            } else if op == Unary::Recip {
                values[0] = 1.0;
            }
            let x = Stored::new(from, &values);
            let program = unary_program(op, from, to).unwrap();
            let (expected, bound): (Vec<f64>, Vec<f64>) = x.values().iter().map(|&x| unary(op, x)).unzip();
            for result in run(&program, values.len(), &[&x], &[Stored::empty(to, values.len())]) {
                assert_close(&format!("{op:?}"), &result[0].values(), &expected, |i| {
                    bound[i]
                        + if to == Storage::F32 { 0.0 } else { rounding(to, expected[i].abs() + bound[i]) }
                });
            }
        }
    }
}

#[test]
fn numbers_that_are_not_finite() {
    let x = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 0.0, 1.0];
    let expected: [(Unary, [f32; 6]); 8] = [
        (Unary::Relu, [f32::NAN, f32::INFINITY, 0.0, 0.0, 0.0, 1.0]),
        (Unary::Step, [0.0, 1.0, 0.0, 0.0, 0.0, 1.0]),
        (Unary::IsFinite, [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]),
        (Unary::Sign, [f32::NAN, 1.0, -1.0, 0.0, 0.0, 1.0]),
        (Unary::Exp, [f32::NAN, f32::INFINITY, 0.0, 1.0, 1.0, std::f32::consts::E]),
        (Unary::Log, [f32::NAN, f32::INFINITY, f32::NAN, f32::NEG_INFINITY, f32::NEG_INFINITY, 0.0]),
        (Unary::Recip, [f32::NAN, 0.0, 0.0, f32::NEG_INFINITY, f32::INFINITY, 1.0]),
        (Unary::Sigmoid, [f32::NAN, 1.0, 0.0, 0.5, 0.5, 0.731_058_6]),
    ];
    for (op, expected) in expected {
        let program = unary_program(op, Storage::F32, Storage::F32).unwrap();
        for result in run(&program, 6, &[&Stored::F32(x.to_vec())], &[Stored::empty(Storage::F32, 6)]) {
            for (a, e) in result[0].values().iter().zip(expected) {
                assert!((*a as f32 == e) || (a.is_nan() && e.is_nan()), "{op:?}: {a} is not {e}");
            }
        }
    }
    let same = Operand { storage: Storage::F32, pattern: Pattern::Same };
    for op in [Binary::Max, Binary::Min] {
        let program = binary_program(op, same, same, Storage::F32).unwrap();
        let (a, b) = (Stored::F32(vec![f32::NAN, 1.0, 2.0]), Stored::F32(vec![1.0, f32::NAN, 3.0]));
        for result in run(&program, 3, &[&a, &b], &[Stored::empty(Storage::F32, 3)]) {
            let y = result[0].values();
            assert!(y[0].is_nan() && y[1].is_nan() && !y[2].is_nan());
        }
    }
}

fn pattern(from: &[usize], to: &[usize]) -> Pattern {
    Pattern::of(&Access::broadcast(from, to).unwrap()).unwrap()
}

fn check_broadcast(op: Binary, to: &[usize], stretch: [u32; 2], cut: [usize; 2], storages: [Storage; 3]) {
    let shapes = [0, 1].map(|side| {
        let shape: Vec<usize> = to
            .iter()
            .enumerate()
            .map(|(d, &size)| if stretch[side] >> d & 1 == 1 { 1 } else { size })
            .collect();
        shape[cut[side].min(to.len())..].to_vec()
    });
    let tensors = [0, 1].map(|side| {
        // Away from zero, for division; few values, for equality.
        let count = shapes[side].iter().product();
        let values: Vec<f32> = random(side as u64, count, 8.0)
            .iter()
            .map(|x| x.round() + if *x < 0.0 { -0.5 } else { 0.5 })
            .collect();
        Stored::new(storages[side], &values)
    });
    let operands =
        [0, 1].map(|side| Operand { storage: storages[side], pattern: pattern(&shapes[side], to) });
    let program = binary_program(op, operands[0], operands[1], storages[2]).unwrap();
    let len: usize = to.iter().product();
    let values = [tensors[0].values(), tensors[1].values()];
    let (expected, bound): (Vec<f64>, Vec<f64>) = (0..len)
        .map(|i| {
            let [a, b] = [0, 1].map(|side| values[side][broadcast_index(&shapes[side], to, i)]);
            binary(op, a, b)
        })
        .unzip();
    let empty = Stored::empty(storages[2], len);
    for result in run(&program, len, &[&tensors[0], &tensors[1]], &[empty]) {
        assert_close(&format!("{op:?} {shapes:?} {to:?}"), &result[0].values(), &expected, |i| {
            bound[i]
                + if storages[2] == Storage::F32 {
                    0.0
                } else {
                    rounding(storages[2], expected[i].abs() + bound[i])
                }
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn every_function_of_two_numbers_with_any_broadcast(
        op in 0usize..9, to in prop::collection::vec(1usize..9, 0..6), stretch in (0u32..64, 0u32..64),
        cut in (0usize..3, 0usize..3), storages in (0usize..3, 0usize..3, 0usize..3),
    ) {
        let storages = [STORAGES[storages.0], STORAGES[storages.1], STORAGES[storages.2]];
        // Cutting leading dimensions is stretching them.
        check_broadcast(BINARY[op], &to, [stretch.0, stretch.1], [cut.0, cut.1], storages);
    }
}

#[test]
fn broadcasts_longer_than_a_tile() {
    let storages = [Storage::F32, Storage::Bf16, Storage::F32];
    for to in [&[70, 1000][..], &[3, 700, 11], &[2000, 1, 9], &[7, 13, 17, 5]] {
        for stretch in [[0, 0], [0, 1], [2, 1], [0, 2], [1, 4], [5, 2]] {
            check_broadcast(Binary::Add, to, stretch, [0, 0], storages);
        }
    }
}

#[test]
fn patterns_are_the_cheapest() {
    assert_eq!(pattern(&[3, 4], &[3, 4]), Pattern::Same);
    assert_eq!(pattern(&[1], &[3, 4]), Pattern::Scalar);
    assert_eq!(pattern(&[], &[3, 4]), Pattern::Scalar);
    assert_eq!(pattern(&[4], &[2, 3, 4]), Pattern::Row { period: 4 });
    assert_eq!(pattern(&[3, 4], &[2, 3, 4]), Pattern::Row { period: 12 });
    assert_eq!(pattern(&[2, 1, 1], &[2, 3, 4]), Pattern::Column { inner: 12 });
    assert_eq!(pattern(&[2, 3, 1], &[2, 3, 4]), Pattern::Column { inner: 4 });
    assert!(matches!(pattern(&[2, 1, 4], &[2, 3, 4]), Pattern::Strided { rank: 3, .. }));
    assert!(Access::broadcast(&[3], &[4]).is_none());
    assert!(Access::broadcast(&[1, 3], &[3]).is_none());
}

/// y = round(gelu(x + bias)) · scale + y, and a mask of y's sign besides: registers, constants,
/// in-place results and results used again.
#[test]
fn a_chain_is_its_operations_one_after_another() {
    let (rows, cols) = (37, 301);
    let len = rows * cols;
    for storage in STORAGES {
        let x = random_stored(1, storage, len, 2.0);
        let bias = random_stored(2, Storage::F32, cols, 1.0);
        let scale = Stored::F32(vec![0.5]);
        let before = random_stored(3, storage, len, 1.0);
        let program = TileProgram::new(
            vec![
                Operand { storage, pattern: Pattern::Same },
                Operand { storage: Storage::F32, pattern: Pattern::Row { period: cols } },
                Operand { storage: Storage::F32, pattern: Pattern::Scalar },
            ],
            vec![
                TileOp::Input(0),
                TileOp::Input(1),
                TileOp::Binary(Binary::Add, Value(0), Value(1)),
                TileOp::Unary(Unary::Gelu, Value(2)),
                TileOp::Round(Storage::Bf16, Value(3)),
                TileOp::Input(2),
                TileOp::Binary(Binary::Mul, Value(4), Value(5)),
                TileOp::Previous(0),
                TileOp::Binary(Binary::Add, Value(6), Value(7)),
                TileOp::Const(0.0),
                TileOp::Binary(Binary::Greater, Value(8), Value(9)),
                TileOp::Select(Value(10), Value(8), Value(9)),
            ],
            vec![
                Output { storage, value: Value(8) },
                Output { storage: Storage::F32, value: Value(11) },
                Output { storage: Storage::Bf16, value: Value(8) },
            ],
        )
        .unwrap();
        let outputs = [before.clone(), Stored::empty(Storage::F32, len), Stored::empty(Storage::Bf16, len)];
        for result in run(&program, len, &[&x, &bias, &scale], &outputs) {
            let (x, bias, before) = (x.values(), bias.values(), before.values());
            let (mut expected, mut bounds) = (vec![], vec![]);
            for i in 0..len {
                let sum = x[i] + bias[i % cols];
                // GELU's slope is at most 1.13.
                let (y, error) = unary(Unary::Gelu, sum);
                let error = error + 1.13 * U * sum.abs();
                let error = error + rounding(Storage::Bf16, y.abs() + error);
                expected.push(y * 0.5 + before[i]);
                bounds.push(0.5 * error + 2.0 * U * (y.abs() + before[i].abs()));
            }
            let values = result[0].values();
            assert_close("chain", &values, &expected, |i| {
                bounds[i] + rounding(storage, expected[i].abs() + bounds[i])
            });
            let positive: Vec<f64> = expected.iter().map(|y| y.max(0.0)).collect();
            assert_close("select", &result[1].values(), &positive, |i| bounds[i]);
            assert_close("copy", &result[2].values(), &expected, |i| {
                bounds[i] + rounding(Storage::Bf16, expected[i].abs() + bounds[i])
            });
        }
    }
}

#[test]
fn the_same_operand_twice_and_a_copy() {
    let same = Operand { storage: Storage::F32, pattern: Pattern::Same };
    let ops = vec![
        TileOp::Input(0),
        TileOp::Unary(Unary::Neg, Value(0)),
        TileOp::Binary(Binary::Mul, Value(1), Value(1)),
        TileOp::Select(Value(2), Value(2), Value(2)),
    ];
    let outputs = [Value(3), Value(0), Value(2), Value(3)];
    let outputs = outputs.map(|value| Output { storage: Storage::F32, value }).to_vec();
    let program = TileProgram::new(vec![same], ops, outputs).unwrap();
    let x = random_stored(1, Storage::F32, 1300, 1.0);
    let empty = Stored::empty(Storage::F32, 1300);
    for result in run(&program, 1300, &[&x], &[empty.clone(), empty.clone(), empty.clone(), empty]) {
        let squares: Vec<f64> = x.values().iter().map(|&x| f64::from((x * x) as f32)).collect();
        assert_eq!(result[0].values(), squares);
        assert_eq!(result[1].values(), x.values());
        assert_eq!(result[2].values(), squares);
        assert_eq!(result[3].values(), squares);
    }
}

#[test]
fn impossible_programs_are_errors() {
    let same = Operand { storage: Storage::F32, pattern: Pattern::Same };
    let output = |value| vec![Output { storage: Storage::Bf16, value: Value(value) }];
    let new = |ops: Vec<TileOp>, outputs| TileProgram::new(vec![same], ops, outputs);
    assert!(new(vec![TileOp::Unary(Unary::Neg, Value(0))], output(0)).is_err());
    assert!(new(vec![TileOp::Input(1)], output(0)).is_err());
    assert!(new(vec![TileOp::Previous(1)], output(0)).is_err());
    assert!(new(vec![TileOp::Input(0)], output(1)).is_err());
    // Seventeen values alive at once.
    let mut ops = vec![TileOp::Input(0)];
    ops.extend((0..17).map(|_| TileOp::Unary(Unary::Neg, Value(0))));
    ops.extend((0..17).map(|i| TileOp::Binary(Binary::Add, Value(17), Value(i + 1))));
    assert!(new(ops, output(18)).is_err());
    // Wrong lengths and storages.
    let program = unary_program(Unary::Neg, Storage::F32, Storage::F32).unwrap();
    let (isa, pool) = (isas()[0], pool(1));
    let (x, mut y, mut low) = ([0.0; 4], [0.0; 4], [0; 4]);
    let run = |len, x, y: Dst<'_>| program.run_keyed(isa, &pool, len, &[x], &mut [y], None);
    assert!(run(3, Src::F32(&x), Dst::F32(&mut y)).is_err());
    assert!(run(4, Src::F32(&x[..3]), Dst::F32(&mut y)).is_err());
    assert!(run(4, Src::F32(&x), Dst::Bf16(&mut low)).is_err());
    assert!(run(4, Src::Bf16(&[0; 4]), Dst::F32(&mut y)).is_err());
    assert!(run(4, Src::F32(&x), Dst::F32(&mut y)).is_ok());
}
