//! Conversions to and from pairs of four, six and eight bits.

use halfstep_ptx::formats::{Format, decode_ue8m0};
use halfstep_ptx::{LoadProblem, Module};

use crate::written::{text, words};

/// The word that a kernel stores, which has `high` and `low` in registers.
fn stored(high: f32, low: f32, code: &str) -> u32 {
    let (high, low) = (high.to_bits(), low.to_bits());
    let load = format!("mov.b32 %f1, {high:#x};\nmov.b32 %f2, {low:#x};\n");
    let store = "\nst.global.u32 [%d3], %r1;\nret;";
    words("", &[".reg .b8 %q0;\nmov.u32 %r1, 0;\n", &load, code, store].concat(), 1)[0]
}

#[test]
fn codes_of_four_and_six_bits() {
    let four = "cvt.rn.satfinite.e2m1x2.f32 %q0, %f1, %f2;\nmov.b32 %r1, {%q0, %q0, %q0, %q0};";
    assert_eq!(stored(-1.5, 6.0, four), 0xb7b7_b7b7);
    // Ties go to the even code; what exceeds 6, and NaN, becomes 6.
    assert_eq!(stored(0.25, 0.75, four) & 0xff, 0x02);
    assert_eq!(stored(f32::NAN, -1e9, four) & 0xff, 0x7f);
    let six = |kind: &str| format!("cvt.rn.satfinite.{kind}x2.f32 %h0, %f1, %f2;\ncvt.u32.u16 %r1, %h0;");
    assert_eq!(stored(1.0, -7.5, &six("e2m3")), 0x083f);
    assert_eq!(stored(28.0, 0.0625, &six("e3m2")), 0x1f01);
    let relu = six("e2m3").replace("satfinite", "satfinite.relu");
    assert_eq!(stored(-1.0, 0.125, &relu), 0x0001);
    // Every code comes back from its value as f16.
    for (kind, format, codes) in
        [("e2m3", Format::E2m3, 64u32), ("e3m2", Format::E3m2, 64), ("e2m1", Format::E2m1, 16)]
    {
        for code in 0..codes {
            let pair = if kind == "e2m1" { code << 4 | code } else { code << 8 | code };
            let from = if kind == "e2m1" {
                format!("mov.u32 %r2, {pair};\nmov.b32 {{%q0, _, _, _}}, %r2;\ncvt.rn.f16x2.e2m1x2 %r1, %q0;")
            } else {
                format!("mov.u16 %h0, {pair};\ncvt.rn.f16x2.{kind}x2 %r1, %h0;")
            };
            let halves = stored(0.0, 0.0, &from);
            for half in [halves & 0xffff, halves >> 16] {
                assert_eq!(
                    Format::F16.decode(half).to_bits(),
                    format.decode(code).to_bits(),
                    "{kind} {code}"
                );
            }
        }
    }
}

#[test]
fn scales_of_eight_bits() {
    let to = |rounding: &str| {
        format!("cvt.{rounding}.satfinite.ue8m0x2.f32 %h0, %f1, %f2;\ncvt.u32.u16 %r1, %h0;")
    };
    assert_eq!(stored(1.5, 4.0, &to("rz")), 0x7f81);
    assert_eq!(stored(1.5, 4.0, &to("rp")), 0x8081);
    assert_eq!(stored(f32::NAN, f32::INFINITY, &to("rp")), 0xfffe);
    let halves = "mov.u32 %r2, 0x3fc04080;\ncvt.rp.satfinite.ue8m0x2.bf16x2 %h0, %r2;\ncvt.u32.u16 %r1, %h0;";
    assert_eq!(stored(0.0, 0.0, halves), 0x8081);
    let back = "mov.u16 %h0, 0x807f;\ncvt.rn.bf16x2.ue8m0x2 %r1, %h0;";
    assert_eq!(stored(0.0, 0.0, back), decode_ue8m0(0x80).to_bits() | decode_ue8m0(0x7f).to_bits() >> 16);
    let nearest = Module::load(&text("", "cvt.rn.satfinite.ue8m0x2.f32 %h0, %f1, %f2;\nret;")).unwrap_err();
    assert!(matches!(nearest.problem, LoadProblem::UnknownOpcode { .. }), "{nearest}");
}
