//! f32, f64, f16 and bf16 arithmetic, and conversions.
//!
//! Directed roundings are checked by their definition, on operands whose results are exact in f64.

use crate::single::{check, compute, grid};

fn f32s(values: &[f32]) -> Vec<u64> {
    values.iter().map(|value| u64::from(value.to_bits())).collect()
}

fn single(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

fn register(value: f32) -> u64 {
    if value.is_nan() { 0x7fff_ffff } else { u64::from(value.to_bits()) }
}

const SOME: &[f32] = &[
    0.0,
    -0.0,
    1.0,
    -1.0,
    1.000_000_1,
    0.333_333_34,
    3.0,
    -7.5,
    16_777_217.0,
    1e-38,
    -1.4e-45,
    3e-39,
    3.402_823_5e38,
    -2e38,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
];

#[test]
fn to_the_nearest_as_ieee_754_has_it() {
    let values = f32s(SOME);
    let two: [&[u64]; 2] = [&values, &values];
    check("add.f32 %d, %a0, %a1;", &[32, 32], 32, &two, |r| register(single(r[0]) + single(r[1])));
    check("sub.rn.f32 %d, %a0, %a1;", &[32, 32], 32, &two, |r| register(single(r[0]) - single(r[1])));
    check("mul.f32 %d, %a0, %a1;", &[32, 32], 32, &two, |r| register(single(r[0]) * single(r[1])));
    check("div.rn.f32 %d, %a0, %a1;", &[32, 32], 32, &two, |r| register(single(r[0]) / single(r[1])));
    check("sqrt.rn.f32 %d, %a0;", &[32], 32, &[&values], |r| register(single(r[0]).sqrt()));
    check("rcp.rn.f32 %d, %a0;", &[32], 32, &[&values], |r| register(1.0 / single(r[0])));
    check("fma.rn.f32 %d, %a0, %a1, %a2;", &[32; 3], 32, &[&values, &values, &values], |r| {
        register(single(r[0]).mul_add(single(r[1]), single(r[2])))
    });
    let doubles: Vec<u64> =
        SOME.iter().map(|value| (f64::from(*value) * 1.000_000_000_001).to_bits()).collect();
    let two: [&[u64]; 2] = [&doubles[..16], &doubles[..16]];
    let double = f64::from_bits;
    for (code, f) in [
        ("add.f64", (|a, b| a + b) as fn(f64, f64) -> f64),
        ("sub.f64", |a, b| a - b),
        ("mul.rn.f64", |a, b| a * b),
        ("div.rn.f64", |a, b| a / b),
    ] {
        let rows = grid(&two);
        for (row, got) in rows.iter().zip(compute(&format!("{code} %d, %a0, %a1;"), &[64, 64], 64, &rows)) {
            let expected = f(double(row[0]), double(row[1]));
            assert!(
                got == expected.to_bits() || expected.is_nan() && double(got).is_nan(),
                "{code} {row:x?}"
            );
        }
    }
}

/// A product of f32 that rounding twice, first to f64, would get wrong, and neighbours of it.
#[test]
fn fused_products_are_rounded_once() {
    let near = [0x3f80_0001u64, 0x3f80_0003, 0x3f7f_ffff, 0x3fff_fffd, 0x0080_0001, 0x3300_0001];
    let tiny: Vec<u64> = [0x0000_0001u32, 0x8000_0001, 0x3280_0000, 0xb280_0000, 0x3380_0001, 0x007f_ffff]
        .map(u64::from)
        .to_vec();
    check("fma.rn.f32 %d, %a0, %a1, %a2;", &[32; 3], 32, &[&near, &near, &tiny], |r| {
        register(single(r[0]).mul_add(single(r[1]), single(r[2])))
    });
}

/// Whether `got` is what an exact value rounds to: the first f32 at it or beyond, in the direction.
fn rounds(mode: &str, exact_value: f64, got: f32) -> bool {
    let value = f64::from(got);
    let down = value <= exact_value && f64::from(got.next_up()) > exact_value;
    let up = value >= exact_value && f64::from(got.next_down()) < exact_value;
    match mode {
        "rm" => down,
        "rp" => up,
        _ if exact_value >= 0.0 => down,
        _ => up,
    }
}

#[test]
fn directed_roundings_are_those_of_their_definition() {
    // Sums and products of these are exact in f64.
    let values = f32s(&[1.0, -1.0, 1.000_000_1, 0.333_333_34, -3.3, 1e-3, 123_456.79, -0.999_999_94]);
    let two = grid(&[&values, &values]);
    for mode in ["rz", "rm", "rp"] {
        for (stem, f) in
            [("add", (|a, b| a + b) as fn(f64, f64) -> f64), ("sub", |a, b| a - b), ("mul", |a, b| a * b)]
        {
            let code = format!("{stem}.{mode}.f32 %d, %a0, %a1;");
            for (row, got) in two.iter().zip(compute(&code, &[32, 32], 32, &two)) {
                let value = f(f64::from(single(row[0])), f64::from(single(row[1])));
                assert!(rounds(mode, value, single(got)), "{code} of {row:x?} is {got:#x}");
            }
        }
        // A quotient q of a / b lies below the exact one when q·b < a, which f64 decides exactly.
        let code = format!("div.{mode}.f32 %d, %a0, %a1;");
        for (row, got) in two.iter().zip(compute(&code, &[32, 32], 32, &two)) {
            let (a, b, q) = (f64::from(single(row[0])), f64::from(single(row[1])), single(got));
            let side = |q: f32| (f64::from(q) * b - a) * b.signum();
            let down = side(q) <= 0.0 && side(q.next_up()) > 0.0;
            let up = side(q) >= 0.0 && side(q.next_down()) < 0.0;
            let fits = match mode {
                "rm" => down,
                "rp" => up,
                _ if q > 0.0 => down,
                _ => up,
            };
            assert!(fits, "{code} of {row:x?} is {got:#x}");
        }
    }
    // Overflow goes to the largest number where it goes towards zero.
    check("mul.rz.f32 %d, %a0, %a1;", &[32, 32], 32, &[&f32s(&[3e38]), &f32s(&[2.0, -2.0])], |r| {
        register(f32::MAX.copysign(single(r[1])))
    });
    check("sub.rm.f32 %d, %a0, %a0;", &[32], 32, &[&f32s(&[5.0])], |_| register(-0.0));
}

#[test]
fn subnormals_are_flushed_where_asked() {
    let values = f32s(&[1e-39, -1e-39, 1e-38, -2.0, 0.5, 1.4e-45]);
    let flush = |x: f32| if x.is_subnormal() { 0f32.copysign(x) } else { x };
    check("mul.ftz.f32 %d, %a0, %a1;", &[32, 32], 32, &[&values, &values], |r| {
        register(flush(flush(single(r[0])) * flush(single(r[1]))))
    });
    check("add.ftz.f32 %d, %a0, %a1;", &[32, 32], 32, &[&values, &values], |r| {
        register(flush(flush(single(r[0])) + flush(single(r[1]))))
    });
    check("setp.eq.ftz.f32 %p, %a0, %a1;\nselp.u32 %d, 1, 0, %p;", &[32, 32], 32, &[&values, &values], |r| {
        u64::from(flush(single(r[0])) == flush(single(r[1])))
    });
    check("ex2.approx.ftz.f32 %d, %a0;", &[32], 32, &[&f32s(&[-130.0, -126.0, 1e-40])], |r| {
        register(flush(flush(single(r[0])).exp2()))
    });
}

#[test]
fn extremes_saturation_and_signs() {
    let values = f32s(SOME);
    let two: [&[u64]; 2] = [&values, &values];
    let least = |a: f32, b: f32| match (a.is_nan(), b.is_nan()) {
        (true, true) => f32::NAN,
        (true, false) => b,
        (false, true) => a,
        _ => {
            if a.total_cmp(&b).is_le() {
                a
            } else {
                b
            }
        }
    };
    check("min.f32 %d, %a0, %a1;", &[32, 32], 32, &two, |r| register(least(single(r[0]), single(r[1]))));
    check("max.f32 %d, %a0, %a1;", &[32, 32], 32, &two, |r| register(-least(-single(r[0]), -single(r[1]))));
    check("max.NaN.f32 %d, %a0, %a1;", &[32, 32], 32, &two, |r| {
        let (a, b) = (single(r[0]), single(r[1]));
        if a.is_nan() || b.is_nan() { 0x7fff_ffff } else { register(-least(-a, -b)) }
    });
    // NaN gets no sign.
    check("min.xorsign.abs.f32 %d, %a0, %a1;", &[32, 32], 32, &two, |r| {
        let (a, b) = (single(r[0]), single(r[1]));
        let least = least(a.abs(), b.abs());
        if least.is_nan() { 0x7fff_ffff } else { register(least) | (r[0] ^ r[1]) & 1 << 31 }
    });
    check("add.sat.f32 %d, %a0, %a1;", &[32, 32], 32, &two, |r| {
        let sum = single(r[0]) + single(r[1]);
        register(if sum.is_nan() { 0.0 } else { sum.clamp(0.0, 1.0) + 0.0 })
    });
    check("neg.f32 %d, %a0;", &[32], 32, &[&values], |r| r[0] ^ 1 << 31);
    check("abs.f32 %d, %a0;", &[32], 32, &[&values], |r| r[0] & 0x7fff_ffff);
    check("copysign.f32 %d, %a0, %a1;", &[32, 32], 32, &two, |r| r[0] & 1 << 31 | r[1] & 0x7fff_ffff);
    for (word, f) in [
        ("eq", (|a, b| a == b) as fn(f32, f32) -> bool),
        ("ne", |a: f32, b: f32| a != b && !a.is_nan() && !b.is_nan()),
        ("lt", |a, b| a < b),
        ("ge", |a, b| a >= b),
        ("neu", |a, b| a != b),
        ("ltu", |a: f32, b: f32| a.is_nan() || b.is_nan() || a < b),
        ("gtu", |a: f32, b: f32| a.is_nan() || b.is_nan() || a > b),
        ("equ", |a: f32, b: f32| a.is_nan() || b.is_nan() || a == b),
        ("num", |a: f32, b: f32| !a.is_nan() && !b.is_nan()),
        ("nan", |a: f32, b: f32| a.is_nan() || b.is_nan()),
    ] {
        let code = format!("setp.{word}.f32 %p, %a0, %a1;\nselp.u32 %d, 1, 0, %p;");
        check(&code, &[32, 32], 32, &two, |r| f(single(r[0]), single(r[1])).into());
    }
}

#[test]
fn approximations_are_within_the_bounds_of_ptx() {
    let values = f32s(&[0.001, 0.5, 1.0, 1.5, 2.0, 3.3, -0.7, -2.5, 10.0]);
    let rows = grid(&[&values]);
    // Relative to the exact value, or absolute where `absolute` says so.
    for (stem, f, bound, absolute) in [
        ("ex2", f64::exp2 as fn(f64) -> f64, 2f64.powi(-22), false),
        ("lg2", f64::log2, 2f64.powi(-22), true),
        ("rsqrt", |x| 1.0 / x.sqrt(), 2f64.powf(-22.9), false),
        ("sin", f64::sin, 2f64.powf(-20.5), true),
        ("cos", f64::cos, 2f64.powf(-20.5), true),
        ("tanh", f64::tanh, 2f64.powi(-11), false),
        ("rcp", |x| 1.0 / x, 2f64.powi(-23), false),
        ("sqrt", f64::sqrt, 2f64.powi(-23), false),
    ] {
        for (row, got) in rows.iter().zip(compute(&format!("{stem}.approx.f32 %d, %a0;"), &[32], 32, &rows)) {
            let expected = f(f64::from(single(row[0])));
            let scale = if absolute { 1f64.max(expected.abs()) } else { expected.abs() };
            let error = (f64::from(single(got)) - expected).abs();
            assert!(error <= bound * scale || expected.is_nan() && got == 0x7fff_ffff, "{stem} of {row:x?}");
        }
    }
    check("ex2.approx.f32 %d, %a0;", &[32], 32, &[&f32s(&[f32::NEG_INFINITY, f32::INFINITY, -0.0])], |r| {
        register(single(r[0]).exp2())
    });
}

/// An f16 or bf16 as f64.
fn half(bits: u64, bf16: bool) -> f64 {
    if bf16 {
        return f64::from(f32::from_bits((bits as u32) << 16));
    }
    let (sign, field, fraction) = (bits >> 15 & 1, bits >> 10 & 31, bits & 0x3ff);
    let magnitude = match (field, fraction) {
        (31, 0) => f64::INFINITY,
        (31, _) => f64::NAN,
        (0, f) => f as f64 * 2f64.powi(-24),
        (e, f) => (f + 1024) as f64 * 2f64.powi(e as i32 - 25),
    };
    if sign == 1 { -magnitude } else { magnitude }
}

/// The nearest f16 or bf16, by trying all of them.
fn nearest(value: f64, bf16: bool, all: &[(f64, u64)]) -> u64 {
    if value.is_nan() {
        return 0x7fff;
    }
    let infinity = if bf16 { 0x7f80 } else { 0x7c00 };
    let largest = half(infinity - 1, bf16);
    // Half a unit beyond the largest number.
    let limit = largest + (largest - half(infinity - 2, bf16)) / 2.0;
    let sign = if value.is_sign_negative() { 0x8000 } else { 0 };
    if value.abs() >= limit {
        return sign | infinity;
    }
    let above = all.partition_point(|(other, _)| *other < value.abs());
    let Some(high) = all.get(above) else { return sign | (infinity - 1) };
    let low = all[above.saturating_sub(1)];
    let (up, down) = (high.0 - value.abs(), value.abs() - low.0);
    let code = if up < down || up == down && high.1 & 1 == 0 { high.1 } else { low.1 };
    sign | code
}

fn codes(bf16: bool) -> Vec<(f64, u64)> {
    (0..if bf16 { 0x7f80 } else { 0x7c00 }).map(|bits| (half(bits, bf16), bits)).collect()
}

#[test]
fn halves_are_rounded_once() {
    for (ty, bf16) in [("f16", false), ("bf16", true)] {
        let all = codes(bf16);
        let values: &[u64] = &[
            0, 0x8000, 1, 0x3c00, 0xbc01, 0x3555, 0x0401, 0x7bff, 0xfbff, 0x7c00, 0x7e00, 0x4248, 0x3f81,
            0xc2f7,
        ];
        for (stem, f) in [
            ("add", (|a, b, _| a + b) as fn(f64, f64, f64) -> f64),
            ("sub", |a, b, _| a - b),
            ("mul", |a, b, _| a * b),
        ] {
            // Sums of bf16 far apart are not exact in f64; their rounding is that of the larger.
            let code = format!("{stem}.{ty} %d, %a0, %a1;");
            check(&code, &[16, 16], 16, &[values, values], |r| {
                nearest(f(half(r[0], bf16), half(r[1], bf16), 0.0), bf16, &all)
            });
        }
        let small: &[u64] = &[1, 0x8001, 0x0400, 0x3c00];
        let code = format!("fma.rn.{ty} %d, %a0, %a1, %a2;");
        let third = if bf16 { &values[..4] } else { small };
        check(&code, &[16; 3], 16, &[&values[2..8], &values[2..8], third], |r| {
            let [a, b, c] = [0, 1, 2].map(|at| half(r[at], bf16));
            // The product of two f16 or bf16 is exact; the sum is for f16, and for bf16 unless one
            // is 2^45 times the other.
            nearest(a * b + c, bf16, &all)
        });
        let code = format!("max.{ty}x2 %d, %a0, %a1;");
        let pairs: &[u64] = &[0x3c00_0001, 0x8000_0000, 0x7e00_bc01, 0x0000_8000];
        check(&code, &[32, 32], 32, &[pairs, pairs], |r| {
            let nan = |bits: u64| half(bits & 0xffff, bf16).is_nan();
            let greater = |a: u64, b: u64| match (nan(a), nan(b)) {
                (true, true) => 0x7fff,
                (true, false) => b,
                (false, true) => a,
                _ if half(a, bf16).total_cmp(&half(b, bf16)).is_ge() => a,
                _ => b,
            };
            greater(r[0] & 0xffff, r[1] & 0xffff) | greater(r[0] >> 16, r[1] >> 16) << 16
        });
    }
}

#[test]
fn conversions_between_floats() {
    let values =
        f32s(&[0.0, -0.0, 1.0, 0.333_333_34, 65_519.9, 65_520.0, 1e-8, -6e-8, 3e38, f32::NAN, 2.5, -1e-41]);
    for (ty, bf16) in [("f16", false), ("bf16", true)] {
        let all = codes(bf16);
        check(&format!("cvt.rn.{ty}.f32 %d, %a0;"), &[32], 16, &[&values], |r| {
            nearest(single(r[0]).into(), bf16, &all)
        });
        check(&format!("cvt.rn.{ty}x2.f32 %d, %a0, %a1;"), &[32, 32], 32, &[&values, &values], |r| {
            nearest(single(r[0]).into(), bf16, &all) << 16 | nearest(single(r[1]).into(), bf16, &all)
        });
        check(&format!("cvt.rz.{ty}.f32 %d, %a0;"), &[32], 16, &[&values[..8]], |r| {
            let x = f64::from(single(r[0]));
            let below = all.partition_point(|(other, _)| *other <= x.abs()) - 1;
            all[below].1 | if x.is_sign_negative() { 0x8000 } else { 0 }
        });
        check(
            &format!("cvt.f32.{ty} %d, %a0;"),
            &[16],
            32,
            &[&[0, 0x8000, 1, 0x3c01, 0x7c00, 0xfbff]],
            |r| register(half(r[0], bf16) as f32),
        );
    }
    check("cvt.f64.f32 %d, %a0;", &[32], 64, &[&values[..9]], |r| f64::from(single(r[0])).to_bits());
    let doubles = [1.0f64, 1e300, -1.000_000_01, 1e-40].map(f64::to_bits);
    check("cvt.rn.f32.f64 %d, %a0;", &[64], 32, &[&doubles], |r| register(f64::from_bits(r[0]) as f32));
    check("cvt.rn.ftz.f32.f64 %d, %a0;", &[64], 32, &[&doubles[3..]], |_| 0);
    check("cvt.rna.tf32.f32 %d, %a0;", &[32], 32, &[&f32s(&[1.0, 1.000_488_3, 3.3, -2.7])], |r| {
        (r[0] + 0x1000) & !0x1fff
    });
    for (word, f) in [
        ("rni", f32::round_ties_even as fn(f32) -> f32),
        ("rzi", f32::trunc),
        ("rmi", f32::floor),
        ("rpi", f32::ceil),
    ] {
        let halves = f32s(&[0.5, 1.5, -0.5, -2.5, 7.0, -0.2, 1e10]);
        check(&format!("cvt.{word}.f32.f32 %d, %a0;"), &[32], 32, &[&halves], |r| register(f(single(r[0]))));
        check(&format!("cvt.{word}.s32.f32 %d, %a0;"), &[32], 32, &[&halves], |r| {
            f(single(r[0])) as i32 as u64
        });
        check(&format!("cvt.{word}.u8.f32 %d, %a0;"), &[32], 16, &[&halves], |r| {
            f(single(r[0])) as u8 as u64
        });
    }
    check("cvt.sat.f32.f32 %d, %a0;", &[32], 32, &[&f32s(&[-1.0, 0.25, 2.0, f32::NAN])], |r| {
        let x = single(r[0]);
        register(if x.is_nan() { 0.0 } else { x.clamp(0.0, 1.0) })
    });
    check("cvt.rzi.s32.f32 %d, %a0;", &[32], 32, &[&f32s(&[f32::NAN, 3e9, -3e9])], |r| {
        single(r[0]) as i32 as u64
    });
    check("cvt.rzi.s64.f32 %d, %a0;", &[32], 64, &[&f32s(&[f32::NAN, 3e9, -1e30])], |r| match single(r[0]) {
        x if x.is_nan() => 1 << 63,
        x => x as i64 as u64,
    });
}

#[test]
fn conversions_of_integers() {
    let values: &[u64] =
        &[0, 1, 0x7f, 0x80, 0xff, 0x8000, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 16_777_217];
    check("cvt.s32.s8 %d, %a0;", &[32], 32, &[values], |r| r[0] as i8 as i32 as u64);
    check("cvt.s64.s16 %d, %a0;", &[16], 64, &[&values[..7]], |r| r[0] as i16 as i64 as u64);
    check("cvt.u16.u32 %d, %a0;", &[32], 16, &[values], |r| r[0]);
    check("cvt.u32.u8 %d, %a0;", &[16], 32, &[&values[..7]], |r| r[0] & 255);
    check("cvt.sat.u8.s32 %d, %a0;", &[32], 32, &[values], |r| (r[0] as i32).clamp(0, 255) as u64);
    check("cvt.sat.s16.s32 %d, %a0;", &[32], 16, &[values], |r| (r[0] as i32).clamp(-32768, 32767) as u64);
    check("cvt.s64.s32 %d, %a0;", &[32], 64, &[values], |r| r[0] as i32 as i64 as u64);
    check("cvt.u32.u64 %d, %a0;", &[64], 32, &[values], |r| r[0]);
    check("cvt.rn.f32.s32 %d, %a0;", &[32], 32, &[values], |r| register(r[0] as i32 as f32));
    check("cvt.rn.f32.u32 %d, %a0;", &[32], 32, &[values], |r| register(r[0] as f32));
    check("cvt.rz.f32.u32 %d, %a0;", &[32], 32, &[values], |r| {
        // Keeps 24 bits.
        let kept = 64 - r[0].leading_zeros();
        let cut = kept.saturating_sub(24);
        register((r[0] >> cut << cut) as f32)
    });
    check("cvt.rn.f64.u64 %d, %a0;", &[64], 64, &[&[u64::MAX, 1 << 53 | 1, 7]], |r| (r[0] as f64).to_bits());
    check("cvt.rn.f16.u32 %d, %a0;", &[32], 16, &[&[0, 1, 2049, 2051, 65_504, 70_000]], |r| {
        nearest(r[0] as f64, false, &codes(false))
    });
}
