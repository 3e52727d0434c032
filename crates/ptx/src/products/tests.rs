//! Sums of Tensor Cores against Python's fractions (`scripts/golden_ptx.py`), and fragments against
//! the layouts that the PTX ISA lists shape by shape.

use super::Lanes;
use super::dots::{Accumulator, Arithmetic, Dots, Multiplicand, Types};
use super::mma::{M, Mma, N};
use crate::capability::{Capability, Unit, alignment};
use crate::formats::{Conversion, Format, Rounding};
use crate::summation::{Adder, Factor, Summation};
use serde_json::Value;
use sha2::{Digest, Sha256};

const CASES: u32 = 4000;

/// SplitMix64, as in the script.
struct Words(u64);

impl Words {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A code, and its exponent field's and mantissa's sizes; of any bits where `kind` is 0.
    fn code(&mut self, format: Format, case: u32) -> u32 {
        let kind = if case.is_multiple_of(4) && self.next().is_multiple_of(20) { 0 } else { 1 + case % 3 };
        let padding = if format == Format::Tf32 { 13 } else { 0 };
        let (bits, mantissa) = (format.bits() - padding, format.mantissa_bits());
        let word = self.next();
        let code = if kind == 0 {
            word as u32 & (u32::MAX >> (32 - bits))
        } else {
            let bias = (1i64 << (bits - mantissa - 2)) - 1;
            let kind = i64::from(kind);
            let field = (bias + ((word >> 32) as i64) % (4 * kind + 1) - 2 * kind).max(0) as u32;
            let m = word as u32 & ((1 << mantissa) - 1);
            ((word >> 40 & 1) as u32) << (bits - 1) | field << mantissa | m
        };
        code << padding
    }
}

#[test]
fn both_models_add_as_exact_fractions_do() {
    use Format::{Bf16, E4m3, E5m2, F16, F32, Tf32};
    let golden: Value = serde_json::from_str(include_str!("../../tests/golden/sums.json")).unwrap();
    let cases = [
        ("f16 f32", [F16, F16, F32], 16, ["80", "90"], Unit::Warp),
        ("f16 f16", [F16, F16, F16], 16, ["80", "90"], Unit::WarpGroup),
        ("bf16 f32", [Bf16, Bf16, F32], 16, ["80", "90"], Unit::Warp),
        ("tf32 f32", [Tf32, Tf32, F32], 8, ["80", "90"], Unit::WarpGroup),
        ("e4m3 e5m2 f32", [E4m3, E5m2, F32], 32, ["89", "120"], Unit::Warp),
    ];
    for (at, (name, formats, k, capabilities, unit)) in cases.into_iter().enumerate() {
        for key in ["exact", capabilities[0], capabilities[1]] {
            let capability = Capability(key.parse().unwrap_or(80));
            let model = if key == "exact" { Summation::Exact } else { Summation::Truncated };
            let mut adder = Adder::new(model, alignment(capability, unit, formats[0]), formats);
            let mut words = Words(2026 + at as u64);
            let mut results = Vec::new();
            for case in 0..CASES {
                let mut row = |format| -> Vec<Factor> {
                    (0..k).map(|_| Factor::new(format, words.code(format, case))).collect()
                };
                let (a, b) = (row(formats[0]), row(formats[1]));
                let c = words.code(formats[2], case);
                let sum = adder.sum(&a, &b, c);
                if a.iter().chain(&b).all(|factor| factor.is_finite()) {
                    assert_eq!(adder.sum_finite(&a, &b, c), sum, "{name} {key} case {case}");
                }
                results.push(sum);
            }
            let first: Vec<String> = results[..12].iter().map(|r| format!("{r:08x}")).collect();
            assert_eq!(Value::from(first), golden[name][key]["first"], "{name} {key}");
            let digest = Sha256::digest(results.iter().flat_map(|r| r.to_le_bytes()).collect::<Vec<_>>());
            let digest: String = digest.iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(digest, golden[name][key]["sha256"], "{name} {key}");
        }
    }
}

#[test]
fn an_exact_sum_spans_the_whole_range_of_bf16() {
    let unused = alignment(Capability(80), Unit::Warp, Format::Bf16);
    let mut exact = Adder::new(Summation::Exact, unused, [Format::Bf16, Format::Bf16, Format::F32]);
    let code = |x: f32| Factor::new(Format::Bf16, x.to_bits() >> 16);
    let (big, tiny) = (2f32.powi(127), 2f32.powi(-66));
    // 2^254 − 2^254 + 2^-132 + 1.5·2^-149: the last two are left, half a unit is rounded to even.
    let c = f32::from_bits(1).to_bits();
    let a = [code(big), code(big), code(tiny), code(tiny)];
    let b = [code(big), code(-big), code(tiny), code(2f32.powi(-84))];
    let expected = 2f32.powi(-132) + 2.0 * f32::from_bits(1);
    assert_eq!(exact.sum(&a, &b, c), expected.to_bits());
    // The negative sum has the same magnitude.
    let a = [code(big), code(big), code(-tiny), code(-tiny)];
    assert_eq!(exact.sum(&a, &b, c | 1 << 31), (-expected).to_bits());
}

#[test]
fn zeros_beside_large_factors_do_not_move_the_alignment() {
    // 0 · 2^127 has a large exponent and no bits: the sum is 1 + 2^-20, not what 2^103 would leave.
    let alignment = alignment(Capability(80), Unit::Warp, Format::Bf16);
    let mut adder = Adder::new(Summation::Truncated, alignment, [Format::Bf16, Format::Bf16, Format::F32]);
    let code = |x: f32| Factor::new(Format::Bf16, x.to_bits() >> 16);
    let sum =
        adder.sum(&[code(0.0), code(1.0)], &[code(2f32.powi(127)), code(1.0)], 2f32.powi(-20).to_bits());
    assert_eq!(f32::from_bits(sum), 1.0 + 2f32.powi(-20));
    let sum = adder.sum_finite(&[code(0.0), code(1.0)], &[code(2f32.powi(127)), code(1.0)], 0);
    assert_eq!(f32::from_bits(sum), 1.0);
}

#[test]
fn hopper_adds_fp8_of_a_warp_group_in_fourteen_bits() {
    let one = Factor::new(Format::E4m3, 0x38);
    let formats = [Format::E4m3, Format::E4m3, Format::F32];
    let sum = |model, unit| {
        let alignment = alignment(Capability(90), unit, Format::E4m3);
        Adder::new(model, alignment, formats).sum(&[one; 32], &[one; 32], (2f32.powi(14) + 1.0).to_bits())
    };
    // 2^14 + 1 has 15 bits: with 13 behind the leading one the unit is 2, which each product of 1
    // is below.
    assert_eq!(sum(Summation::Truncated, Unit::WarpGroup), 2f32.powi(14).to_bits());
    assert_eq!(sum(Summation::Truncated, Unit::Warp), (2f32.powi(14) + 33.0).to_bits());
    assert_eq!(sum(Summation::Exact, Unit::WarpGroup), (2f32.powi(14) + 33.0).to_bits());
}

/// (row, column) of element i of A in a lane, as the ISA lists it for a shape and a size of
/// elements.
fn a_place(k: usize, bits: u32, lane: usize, i: usize) -> (usize, usize) {
    let (group, t) = (lane >> 2, lane % 4);
    match (k, bits) {
        (4, 32) => (if i == 0 { group } else { group + 8 }, t),
        (8, 32) => (if i == 0 || i == 2 { group } else { group + 8 }, if i < 2 { t } else { t + 4 }),
        (8, 16) => (if i < 2 { group } else { group + 8 }, t * 2 + (i & 1)),
        (16, 16) => {
            let row = if i < 2 || (4..6).contains(&i) { group } else { group + 8 };
            (row, t * 2 + (i & 1) + if i >= 4 { 8 } else { 0 })
        }
        (16, 8) => (if i < 4 { group } else { group + 8 }, t * 4 + (i & 3)),
        (32, 8) => {
            let row = if i < 4 || (8..12).contains(&i) { group } else { group + 8 };
            (row, t * 4 + (i & 3) + if i >= 8 { 16 } else { 0 })
        }
        _ => unreachable!(),
    }
}

/// The same of B.
fn b_place(k: usize, bits: u32, lane: usize, i: usize) -> (usize, usize) {
    let (group, t) = (lane >> 2, lane % 4);
    let row = match (k, bits) {
        (4, 32) => t,
        (8, 32) => t + 4 * i,
        (8, 16) => t * 2 + i,
        (16, 16) => t * 2 + (i & 1) + if i >= 2 { 8 } else { 0 },
        (16, 8) => t * 4 + i,
        (32, 8) => t * 4 + (i & 3) + if i >= 4 { 16 } else { 0 },
        _ => unreachable!(),
    };
    (row, group)
}

fn fragment(registers: usize, bits: u32, code: impl Fn(usize, usize) -> u32) -> Vec<Lanes> {
    let per = 32 / bits as usize;
    let element = |q: usize, lane: usize, j: usize| code(lane, q * per + j) << (bits * j as u32);
    (0..registers).map(|q| std::array::from_fn(|lane| (0..per).map(|j| element(q, lane, j)).sum())).collect()
}

#[test]
fn fragments_of_every_shape_lie_as_the_isa_says() {
    use Multiplicand::{Float, Signed8, Unsigned8};
    let shapes = [
        (4, Float(Format::Tf32), Float(Format::Tf32)),
        (8, Float(Format::Tf32), Float(Format::Tf32)),
        (8, Float(Format::Bf16), Float(Format::Bf16)),
        (16, Float(Format::F16), Float(Format::F16)),
        (16, Float(Format::E4m3), Float(Format::E5m2)),
        (32, Float(Format::E5m2), Float(Format::E4m3)),
        (16, Signed8, Unsigned8),
        (32, Unsigned8, Signed8),
    ];
    // Small integers: exact in every format, so that every order and model gives the same sum.
    let a = |row: usize, column: usize| (row * 5 + column * 3) as i32 % 7 - 3;
    let b = |row: usize, column: usize| (row * 2 + column * 5) as i32 % 5 - 2;
    let c = |row: usize, column: usize| (row * 8 + column) as i32 % 11 - 5;
    let near = |x: f64, f: Format| f.encode(x, Conversion::rounded(Rounding::NearestEven));
    let code = |kind: Multiplicand, x: i32| match kind {
        Float(format) => near(x.into(), format),
        Signed8 => x as u8 as u32,
        Unsigned8 => x.unsigned_abs(),
    };
    let value = |kind: Multiplicand, x: i32| if kind == Unsigned8 { x.abs() } else { x };
    for (k, ka, kb) in shapes {
        let integers = matches!(ka, Signed8 | Unsigned8);
        let accumulators = if integers {
            vec![Accumulator::S32, Accumulator::S32Saturated]
        } else if ka == Float(Format::F16) || ka == Float(Format::E4m3) {
            vec![Accumulator::F32, Accumulator::F16]
        } else {
            vec![Accumulator::F32]
        };
        for accumulator in accumulators {
            let mma = Mma { k, types: Types { a: ka, b: kb, accumulator } };
            let fa = fragment(mma.a_registers(), ka.bits(), |lane, i| {
                let (row, column) = a_place(k, ka.bits(), lane, i);
                code(ka, a(row, column))
            });
            let fb = fragment(mma.b_registers(), kb.bits(), |lane, i| {
                let (row, column) = b_place(k, kb.bits(), lane, i);
                code(kb, b(row, column))
            });
            let (bits, encode): (u32, &dyn Fn(i32) -> u32) = match accumulator {
                Accumulator::F32 => (32, &|x| (x as f32).to_bits()),
                Accumulator::F16 => (16, &|x| near(x.into(), Format::F16)),
                Accumulator::S32 | Accumulator::S32Saturated => (32, &|x| x as u32),
            };
            let place =
                |lane: usize, i: usize| ((lane >> 2) + if i < 2 { 0 } else { 8 }, lane % 4 * 2 + (i & 1));
            let fc = fragment(mma.accumulators(), bits, |lane, i| {
                let (row, column) = place(lane, i);
                encode(c(row, column))
            });
            let product = |row: usize, column: usize| -> i32 {
                (0..k).map(|i| value(ka, a(row, i)) * value(kb, b(i, column))).sum::<i32>() + c(row, column)
            };
            let expected = fragment(mma.accumulators(), bits, |lane, i| {
                let (row, column) = place(lane, i);
                assert!(row < M && column < N);
                encode(product(row, column))
            });
            for model in [Summation::Exact, Summation::Truncated] {
                for capability in [80, 89, 90, 120] {
                    let d = mma.run(
                        Arithmetic { summation: model, capability: Capability(capability) },
                        &fa,
                        &fb,
                        &fc,
                    );
                    assert_eq!(d[..mma.accumulators()], expected, "{mma:?} {model:?} {capability}");
                }
            }
        }
    }
}

#[test]
fn integers_wrap_or_saturate() {
    let run = |accumulator| {
        let types = Types { a: Multiplicand::Signed8, b: Multiplicand::Signed8, accumulator };
        let mma = Mma { k: 16, types };
        let how = Arithmetic { summation: Summation::Exact, capability: Capability(80) };
        let ones = [[0x0101_0101; 32]; 2];
        mma.run(how, &ones, &ones[..1], &[[i32::MAX as u32 - 3; 32]; 4])[0][0] as i32
    };
    assert_eq!(run(Accumulator::S32), i32::MIN + 12);
    assert_eq!(run(Accumulator::S32Saturated), i32::MAX);
}

#[test]
fn finite_sums_are_the_same_by_both_ways() {
    use Format::{Bf16, E4m3, E5m2, F16, F32, Tf32};
    let formats = [[F16, F16, F32], [F16, F16, F16], [Bf16, Bf16, F32], [Tf32, Tf32, F32], [E4m3, E5m2, F32]];
    for (at, formats) in formats.into_iter().enumerate() {
        let mut words = Words(at as u64);
        for case in 0..20_000 {
            // Any finite codes, zeros among them, or exponents near that of 1.
            let mut factor = |format: Format| loop {
                let any = words.next();
                let code = match (any >> 40 & 7, case % 3) {
                    (0, _) => 0,
                    (_, 0) => any as u32 & u32::MAX >> (32 - format.bits()),
                    _ => words.code(format, case),
                };
                if Factor::new(format, code).is_finite() {
                    break code;
                }
            };
            let a: Vec<Factor> = (0..8).map(|_| Factor::new(formats[0], factor(formats[0]))).collect();
            let b: Vec<Factor> = (0..8).map(|_| Factor::new(formats[1], factor(formats[1]))).collect();
            let c = factor(formats[2]);
            for model in [Summation::Exact, Summation::Truncated] {
                for capability in [80, 89, 90] {
                    let alignment = alignment(Capability(capability), Unit::Warp, formats[0]);
                    let mut adder = Adder::new(model, alignment, formats);
                    let (general, finite) = (adder.sum(&a, &b, c), adder.sum_finite(&a, &b, c));
                    assert_eq!(general, finite, "{formats:?} {model:?} {capability}: {a:?} {b:?} {c:#x}");
                }
            }
        }
    }
}

#[test]
fn elements_of_a_product_are_the_sums_of_its_rows_and_columns() {
    use Format::{Bf16, E4m3, F16, F32, Tf32};
    for (at, (format, k)) in [(F16, 16), (Bf16, 16), (Tf32, 8), (E4m3, 32)].into_iter().enumerate() {
        let kind = Multiplicand::Float(format);
        let types = Types { a: kind, b: kind, accumulator: Accumulator::F32 };
        let mut words = Words(at as u64);
        for case in 0..300 {
            let mut codes =
                |count: usize| -> Vec<u32> { (0..count).map(|_| words.code(format, case)).collect() };
            let (rows, columns) = (codes(M * k), codes(N * k));
            // Accumulators near, far above and far below the products.
            let scale = [1.0, 2f32.powi(60), 2f32.powi(-60), 0.0][case as usize / 4 % 4];
            let c = (f32::from_bits(words.code(F32, case)) * scale).to_bits();
            for model in [Summation::Exact, Summation::Truncated] {
                let alignment = alignment(Capability(80), Unit::Warp, format);
                let mut dots = Dots::new(types, model, alignment, k, [rows.clone(), columns.clone()]);
                let mut adder = Adder::new(model, alignment, [format, format, F32]);
                let (rows, columns) = (Factor::all(format, &rows), Factor::all(format, &columns));
                for (row, column) in (0..M).flat_map(|row| (0..N).map(move |column| (row, column))) {
                    let expected = adder.sum(&rows[row * k..][..k], &columns[column * k..][..k], c);
                    assert_eq!(dots.dot(row, column, c), expected, "{format:?} {model:?} {case}");
                }
            }
        }
    }
}
