//! Integer arithmetic, logic and bit fields, against 128-bit integers and loops over bits.

use crate::single::check;

const B32: &[u64] = &[
    0,
    1,
    2,
    3,
    31,
    32,
    33,
    0x7f,
    0xff,
    0x8000,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xdead_beef,
    0xffff_ffff,
];
const B16: &[u64] = &[0, 1, 2, 0x7f, 0xff, 0x1234, 0x7fff, 0x8000, 0xabcd, 0xffff];
const B64: &[u64] = &[
    0,
    1,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0x0123_4567_89ab_cdef,
    u64::MAX,
];

/// A value with the sign that its type has.
fn value(bits: u64, width: u32, signed: bool) -> i128 {
    let cut = bits & u64::MAX >> (64 - width);
    match signed {
        true => i128::from((cut << (64 - width)) as i64 >> (64 - width)),
        false => i128::from(cut),
    }
}

/// Checks an instruction of two operands for all widths and both signs.
fn two(stem: &str, f: impl Fn(i128, i128, u32) -> i128) {
    for (width, values) in [(16, B16), (32, B32), (64, B64)] {
        for (sign, signed) in [("u", false), ("s", true)] {
            let code = format!("{stem}.{sign}{width} %d, %a0, %a1;");
            check(&code, &[width, width], width, &[values, values], |row| {
                f(value(row[0], width, signed), value(row[1], width, signed), width) as u64
            });
        }
    }
}

#[test]
fn sums_products_and_extremes() {
    two("add", |a, b, _| a + b);
    two("sub", |a, b, _| a - b);
    two("mul.lo", |a, b, _| a.wrapping_mul(b));
    two("min", |a, b, _| a.min(b));
    two("max", |a, b, _| a.max(b));
    for (sign, signed) in [("u", false), ("s", true)] {
        for (width, values) in [(16, B16), (32, B32)] {
            let code = format!("mul.wide.{sign}{width} %d, %a0, %a1;");
            let f = |row: &[u64]| (value(row[0], width, signed) * value(row[1], width, signed)) as u64;
            check(&code, &[width, width], 2 * width, &[values, values], f);
            let code = format!("mul.hi.{sign}{width} %d, %a0, %a1;");
            let f =
                |row: &[u64]| ((value(row[0], width, signed) * value(row[1], width, signed)) >> width) as u64;
            check(&code, &[width, width], width, &[values, values], f);
            let code = format!("mad.wide.{sign}{width} %d, %a0, %a1, %a2;");
            let values3: [&[u64]; 3] = [values, &values[3..7], &[0, 5, 0x8000_0001]];
            let f = |row: &[u64]| {
                (value(row[0], width, signed) * value(row[1], width, signed)).wrapping_add(row[2].into())
                    as u64
            };
            check(&code, &[width, width, 2 * width], 2 * width, &values3, f);
        }
        let code = format!("mul.hi.{sign}64 %d, %a0, %a1;");
        // The upper half of a product of 64 bits by schoolbook multiplication.
        let f = |row: &[u64]| {
            let (a, b) = (row[0], row[1]);
            let high = ((u128::from(a) * u128::from(b)) >> 64) as u64;
            let negative = |x: u64| signed && x >> 63 == 1;
            let correction = if negative(a) { b } else { 0 };
            high.wrapping_sub(correction).wrapping_sub(if negative(b) { a } else { 0 })
        };
        check(&code, &[64, 64], 64, &[B64, B64], f);
    }
    check("mad.lo.s32 %d, %a0, %a1, %a2;", &[32; 3], 32, &[B32, B32, &[0, 7, 0xffff_fff0]], |row| {
        row[0].wrapping_mul(row[1]).wrapping_add(row[2])
    });
}

#[test]
fn division_by_zero_is_no_fault() {
    two("div", |a, b, _| if b == 0 { -1 } else { a / b });
    two("rem", |a, b, _| if b == 0 { a } else { a % b });
}

#[test]
fn signs() {
    for (width, values) in [(16, B16), (32, B32), (64, B64)] {
        check(&format!("neg.s{width} %d, %a0;"), &[width], width, &[values], |row| row[0].wrapping_neg());
        check(&format!("abs.s{width} %d, %a0;"), &[width], width, &[values], |row| {
            value(row[0], width, true).unsigned_abs() as u64
        });
    }
    check("sad.s32 %d, %a0, %a1, %a2;", &[32; 3], 32, &[B32, B32, &[9]], |row| {
        (value(row[0], 32, true) - value(row[1], 32, true)).unsigned_abs() as u64 + row[2]
    });
    check("add.sat.s32 %d, %a0, %a1;", &[32; 2], 32, &[B32, B32], |row| {
        (value(row[0], 32, true) + value(row[1], 32, true)).clamp(-(1 << 31), (1 << 31) - 1) as u64
    });
}

#[test]
fn logic_and_shifts() {
    for (width, values) in [(16, B16), (32, B32), (64, B64)] {
        check(&format!("and.b{width} %d, %a0, %a1;"), &[width; 2], width, &[values, values], |r| r[0] & r[1]);
        check(&format!("or.b{width} %d, %a0, %a1;"), &[width; 2], width, &[values, values], |r| r[0] | r[1]);
        check(&format!("xor.b{width} %d, %a0, %a1;"), &[width; 2], width, &[values, values], |r| r[0] ^ r[1]);
        check(&format!("not.b{width} %d, %a0;"), &[width], width, &[values], |r| !r[0]);
        let amounts: &[u64] = &[0, 1, 7, 15, 16, 31, 32, 63, 64, 200, 0xffff_ffff];
        let clamped = move |n: u64| n.min(u64::from(width)) as u32;
        let f = |r: &[u64]| ((u128::from(r[0])) << clamped(r[1])) as u64;
        check(&format!("shl.b{width} %d, %a0, %a1;"), &[width, 32], width, &[values, amounts], f);
        for (sign, signed) in [("u", false), ("s", true)] {
            let f = |r: &[u64]| (value(r[0], width, signed) >> clamped(r[1])) as u64;
            check(&format!("shr.{sign}{width} %d, %a0, %a1;"), &[width, 32], width, &[values, amounts], f);
        }
    }
    for (table, f) in [
        (0xe8u64, (|a, b, c| a & b | b & c | a & c) as fn(u64, u64, u64) -> u64),
        (0x96, |a, b, c| a ^ b ^ c),
        (0xca, |a, b, c| a & b | !a & c),
    ] {
        let code = format!("lop3.b32 %d, %a0, %a1, %a2, {table};");
        check(&code, &[32; 3], 32, &[B32, B32, &[0x0f0f_1234, 0xffff_0000]], |r| f(r[0], r[1], r[2]));
    }
    let both = |r: &[u64]| u128::from(r[1]) << 32 | u128::from(r[0]);
    let amounts: &[u64] = &[0, 1, 17, 31, 32, 33, 77];
    check("shf.l.wrap.b32 %d, %a0, %a1, %a2;", &[32; 3], 32, &[B32, B32, amounts], |r| {
        (both(r) << (r[2] & 31) >> 32) as u64
    });
    check("shf.r.clamp.b32 %d, %a0, %a1, %a2;", &[32; 3], 32, &[B32, B32, amounts], |r| {
        (both(r) >> r[2].min(32)) as u64
    });
}

#[test]
fn fields_and_bytes() {
    let places: &[u64] = &[0, 1, 5, 8, 30, 31, 32, 63, 64, 255];
    for (width, values) in [(32u32, B32), (64, B64)] {
        // Bit by bit, as the pseudocode of the PTX ISA has it.
        let extract = |signed: bool| {
            move |r: &[u64]| {
                let (a, pos, len, msb) = (r[0], r[1] & 255, r[2] & 255, u64::from(width) - 1);
                let bit = |at: u64| a >> at & 1;
                let sign = if !signed || len == 0 { 0 } else { bit((pos + len - 1).min(msb)) };
                (0..=msb).map(|i| (if i < len && pos + i <= msb { bit(pos + i) } else { sign }) << i).sum()
            }
        };
        let types = [width, 32, 32];
        check(
            &format!("bfe.u{width} %d, %a0, %a1, %a2;"),
            &types,
            width,
            &[values, places, places],
            extract(false),
        );
        check(
            &format!("bfe.s{width} %d, %a0, %a1, %a2;"),
            &types,
            width,
            &[values, places, places],
            extract(true),
        );
        let insert = |r: &[u64]| {
            let (a, b, pos, len, msb) = (r[0], r[1], r[2] & 255, r[3] & 255, u64::from(width) - 1);
            let mut f = b;
            let mut i = 0;
            while i < len && pos + i <= msb {
                f = f & !(1 << (pos + i)) | (a >> i & 1) << (pos + i);
                i += 1;
            }
            f
        };
        let values4: [&[u64]; 4] = [values, &values[..3], places, places];
        check(
            &format!("bfi.b{width} %d, %a0, %a1, %a2, %a3;"),
            &[width, width, 32, 32],
            width,
            &values4,
            insert,
        );
    }
    let selectors: &[u64] = &[0x3210, 0x7654, 0x0123, 0x8a9b, 0x5410, 0x7632, 0xffff];
    check("prmt.b32 %d, %a0, %a1, %a2;", &[32; 3], 32, &[B32, B32, selectors], |r| {
        let byte = |n: u64| (if n < 4 { r[0] >> (8 * n) } else { r[1] >> (8 * (n - 4)) }) & 255;
        let pick = |s: u64| match (s >> 3 & 1, byte(s & 7)) {
            (0, b) => b,
            (_, b) => {
                if b >= 128 {
                    255
                } else {
                    0
                }
            }
        };
        (0..4).map(|i| pick(r[2] >> (4 * i) & 15) << (8 * i)).sum()
    });
}

/// The named modes of `prmt` look at two bits of their selector.
#[test]
fn permutations_by_name() {
    let selectors: &[u64] = &[0, 1, 2, 3, 4, 5, 7, 0xffff_fffe];
    // What is picked for the bytes of the result, the lowest first.
    type Pick = fn(u64, u64) -> u64;
    let modes: [(&str, Pick); 6] = [
        ("f4e", |s, i| s + i),
        ("b4e", |s, i| (8 + s - i) % 8),
        ("rc8", |s, _| s),
        ("ecl", |s, i| i.max(s)),
        ("ecr", |s, i| i.min(s)),
        ("rc16", |s, i| s % 2 * 2 + i % 2),
    ];
    for (mode, pick) in modes {
        check(&format!("prmt.b32.{mode} %d, %a0, %a1, %a2;"), &[32; 3], 32, &[B32, B32, selectors], |r| {
            let byte = |n: u64| (r[1] << 32 | r[0]) >> (8 * n) & 255;
            (0..4).map(|i| byte(pick(r[2] & 3, i)) << (8 * i)).sum()
        });
    }
}

/// Of a register that is wider than the type, the lower bits count; numbers of the text that are
/// wider than 16 bits are cut, but how far something is shifted has 32 bits always.
#[test]
fn narrow_values_of_wide_registers_and_numbers() {
    for (ty, f) in [("u16", (|a| a & 0xffff) as fn(u64) -> u64), ("s16", |a| a as i16 as u32 as u64)] {
        check(&format!("cvt.u32.{ty} %d, %a0;"), &[32], 32, &[B32], |r| f(r[0]));
    }
    let half = |code: &str| format!(".reg .b16 %n;\n{code}\ncvt.u32.u16 %d, %n;");
    check(
        &half("slct.u16.s32 %n, -1, 0, %a0;"),
        &[32],
        32,
        &[B32],
        |r| {
            if r[0] >> 31 == 0 { 0xffff } else { 0 }
        },
    );
    for (code, result) in
        [("shl.b16 %n, 3, 65536;", 0), ("shr.u16 %n, -1, 65537;", 0), ("shr.s16 %n, -4, 1;", 0xfffe)]
    {
        check(&half(code), &[32], 32, &[&[0]], |_| result);
    }
}

#[test]
fn counts_of_bits() {
    check("popc.b32 %d, %a0;", &[32], 32, &[B32], |r| (0..32).filter(|i| r[0] >> i & 1 == 1).count() as u64);
    check("popc.b64 %d, %a0;", &[64], 32, &[B64], |r| (0..64).filter(|i| r[0] >> i & 1 == 1).count() as u64);
    check("clz.b32 %d, %a0;", &[32], 32, &[B32], |r| {
        (0..32).rev().take_while(|i| r[0] >> i & 1 == 0).count() as u64
    });
    check("clz.b64 %d, %a0;", &[64], 32, &[B64], |r| {
        (0..64).rev().take_while(|i| r[0] >> i & 1 == 0).count() as u64
    });
    check("brev.b32 %d, %a0;", &[32], 32, &[B32], |r| (0..32).map(|i| (r[0] >> i & 1) << (31 - i)).sum());
    let highest = |x: u64| (0..64).rev().find(|i| x >> i & 1 == 1).unwrap_or(u64::MAX);
    check("bfind.u32 %d, %a0;", &[32], 32, &[B32], |r| highest(r[0]));
    check("bfind.s32 %d, %a0;", &[32], 32, &[B32], |r| {
        highest(if r[0] >> 31 == 1 { !r[0] & 0xffff_ffff } else { r[0] })
    });
    check("bfind.shiftamt.u32 %d, %a0;", &[32], 32, &[&B32[1..]], |r| 31 - highest(r[0]));
}

#[test]
fn carries_go_from_instruction_to_instruction() {
    let code = ".reg .b32 %l<3>, %h<3>;\nmov.b64 {%l0, %h0}, %a0;\nmov.b64 {%l1, %h1}, %a1;\n\
                add.cc.u32 %l2, %l0, %l1;\naddc.u32 %h2, %h0, %h1;\nmov.b64 %d, {%l2, %h2};";
    check(code, &[64, 64], 64, &[B64, B64], |r| r[0].wrapping_add(r[1]));
    let code = code.replace("add.cc", "sub.cc").replace("addc", "subc");
    check(&code, &[64, 64], 64, &[B64, B64], |r| r[0].wrapping_sub(r[1]));
}

#[test]
fn comparisons_and_choices() {
    for (width, values) in [(16, B16), (32, B32), (64, B64)] {
        for (sign, signed) in [("u", false), ("s", true)] {
            for (word, f) in [
                ("eq", (|a, b| a == b) as fn(i128, i128) -> bool),
                ("ne", |a, b| a != b),
                ("lt", |a, b| a < b),
                ("le", |a, b| a <= b),
                ("gt", |a, b| a > b),
                ("ge", |a, b| a >= b),
            ] {
                let code = format!("setp.{word}.{sign}{width} %p, %a0, %a1;\nselp.u32 %d, 1, 0, %p;");
                check(&code, &[width, width], 32, &[values, values], |r| {
                    f(value(r[0], width, signed), value(r[1], width, signed)).into()
                });
            }
        }
    }
    let code = "setp.lt.s32 %q, %a1, 5;\nsetp.gt.and.s32 %p|%q, %a0, %a1, !%q;\n\
                selp.u32 %d, 1, 0, %p;\n@%q add.u32 %d, %d, 2;";
    check(code, &[32, 32], 32, &[B32, B32], |r| {
        let (a, b) = (value(r[0], 32, true), value(r[1], 32, true));
        let joined = b >= 5;
        u64::from(a > b && joined) + 2 * u64::from(a <= b && joined)
    });
    check("set.lt.u32.s32 %d, %a0, %a1;", &[32, 32], 32, &[B32, B32], |r| {
        if value(r[0], 32, true) < value(r[1], 32, true) { u64::MAX } else { 0 }
    });
    check("slct.b32.s32 %d, %a0, %a1, %a2;", &[32; 3], 32, &[&[7], &[9], B32], |r| {
        if r[2] >> 31 == 0 { 7 } else { 9 }
    });
}

#[test]
fn parts_of_registers() {
    let code = ".reg .b16 %h<4>;\nmov.b64 {%h0, %h1, %h2, %h3}, %a0;\nmov.b64 %d, {%h3, %h1, %h2, %h0};";
    check(code, &[64], 64, &[B64], |r| r[0] << 48 | r[0] >> 48 | r[0] & 0x0000_ffff_ffff_0000);
    check("mul.wide.u16 %d, %a0, -21845;", &[16], 32, &[B16], |r| r[0] * 43691);
    check("dp4a.u32.s32 %d, %a0, %a1, %a2;", &[32; 3], 32, &[B32, B32, &[100]], |r| {
        let sum: i64 =
            (0..4).map(|i| (r[0] >> (8 * i) & 255) as i64 * i64::from((r[1] >> (8 * i)) as u8 as i8)).sum();
        (100 + sum) as u64
    });
}
