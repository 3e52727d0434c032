//! What an H200 gave, by `scripts/gpu_sums.py` on 2026-11-27 with driver 580: the same bits of sums
//! of Tensor Cores, and approximations within stated distances of each other.

use halfstep_ptx::{Launch, Module, Options, Simulator, Summation};
use serde_json::Value;

use crate::single::compute;

fn recorded() -> Value {
    serde_json::from_str(include_str!("../golden/h200.json")).unwrap()
}

/// Bytes in hexadecimal.
fn bytes(digits: &Value) -> Vec<u8> {
    let digits = digits.as_str().unwrap();
    (0..digits.len() / 2).map(|i| u8::from_str_radix(&digits[2 * i..][..2], 16).unwrap()).collect()
}

fn words(digits: &Value) -> Vec<u32> {
    bytes(digits).chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// The kernel of the script: a block has a tile, and each operand's row of k is 8 words.
fn kernel(form: &str) -> String {
    let mut text = String::from(
        ".version 9.0\n.target sm_90a\n.address_size 64\n.visible .entry sums(.param .u64 pa, .param .u64 pb, \
         .param .u64 pc, .param .u64 pd)\n{\n.reg .b32 %a<4>, %b<2>, %lane, %g, %t, %block, %i;\n\
         .reg .f32 %s<4>;\n.reg .b64 %pa, %pb, %pc, %pd, %x;\nmov.u32 %lane, %tid.x;\nmov.u32 %block, %ctaid.x;\n\
         shr.u32 %g, %lane, 2;\nand.b32 %t, %lane, 3;\n\
         ld.param.u64 %pa, [pa];\nld.param.u64 %pb, [pb];\nld.param.u64 %pc, [pc];\nld.param.u64 %pd, [pd];\n",
    );
    // An operand moves to the word at g · 8 + t · `step` of its tile.
    for (pointer, tile, step) in [("%pa", 512, 4), ("%pb", 256, 4), ("%pc", 512, 8), ("%pd", 512, 8)] {
        text += &format!(
            "mul.lo.u32 %i, %block, {tile};\nmad.lo.u32 %i, %g, 32, %i;\nmad.lo.u32 %i, %t, {step}, %i;\n\
             cvt.u64.u32 %x, %i;\nadd.s64 {pointer}, {pointer}, %x;\n"
        );
    }
    let loads = [("b32 %a", "%pa", [0, 256, 16, 272]), ("f32 %s", "%pc", [0, 4, 256, 260])];
    for (register, pointer, places) in loads {
        for (n, place) in places.iter().enumerate() {
            text += &format!("ld.global.{register}{n}, [{pointer}+{place}];\n");
        }
    }
    text += "ld.global.b32 %b0, [%pb];\nld.global.b32 %b1, [%pb+16];\n";
    text += &format!(
        "mma.sync.aligned.{form} {{%s0, %s1, %s2, %s3}}, {{%a0, %a1, %a2, %a3}}, {{%b0, %b1}}, \
         {{%s0, %s1, %s2, %s3}};\n"
    );
    for (n, place) in [0, 4, 256, 260].iter().enumerate() {
        text += &format!("st.global.f32 [%pd+{place}], %s{n};\n");
    }
    text + "ret;\n}\n"
}

#[test]
fn truncated_sums_have_the_bits_of_an_h200() {
    let recorded = recorded();
    for (name, form) in [
        ("bf16", "m16n8k16.row.col.f32.bf16.bf16.f32"),
        ("f16", "m16n8k16.row.col.f32.f16.f16.f32"),
        ("tf32", "m16n8k8.row.col.f32.tf32.tf32.f32"),
        ("e4m3", "m16n8k32.row.col.f32.e4m3.e4m3.f32"),
        ("e5m2", "m16n8k32.row.col.f32.e5m2.e5m2.f32"),
    ] {
        let module = Module::load(&kernel(form)).unwrap();
        let operands = &recorded["sums"][name];
        let wanted = words(&operands["d"]);
        let sums = |summation| {
            let mut gpu = Simulator::new(Options { summation, ..Options::default() });
            let mut launch = Launch::new("sums", [wanted.len() as u32 / 128, 1, 1], [32, 1, 1]);
            for operand in ["a", "b", "c"] {
                launch = launch.input(gpu.allocate_from(&bytes(&operands[operand])).unwrap());
            }
            let out = gpu.allocate(4 * wanted.len()).unwrap();
            gpu.launch(&module, &launch.output(out)).unwrap();
            let bytes = gpu.bytes(out).unwrap();
            bytes.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect::<Vec<u32>>()
        };
        let agree = |found: &[u32]| found.iter().zip(&wanted).filter(|(a, b)| a == b).count();
        let truncated = sums(Summation::Truncated);
        assert_eq!(agree(&truncated), wanted.len(), "{name}: of {} sums", wanted.len());
        // The operands tell models apart.
        let exact = agree(&sums(Summation::Exact));
        assert!(exact < wanted.len() * 9 / 10, "{name}: {exact} of {} sums are exact", wanted.len());
    }
}

/// How far two results may be from each other.
enum Within {
    /// So many codes.
    Ulps(u32),
    /// So much of the greater.
    Relative(f64),
    /// So much, for arguments in (0.5, 2), and else so much of the greater.
    Logarithm(f64),
    /// So much, for arguments of at most π.
    ToPi(f64),
}

/// Codes in ascending order of their values.
fn place(code: u32) -> i64 {
    let magnitude = i64::from(code & 0x7fff_ffff);
    if code >> 31 == 1 { -magnitude } else { magnitude }
}

impl Within {
    fn holds(&self, argument: f32, [a, b]: [u32; 2]) -> bool {
        let [x, y] = [a, b].map(|code| f64::from(f32::from_bits(code)));
        let (distance, greater) = ((x - y).abs(), x.abs().max(y.abs()));
        if x.is_nan() || y.is_nan() || greater.is_infinite() {
            return a == b || x.is_nan() && y.is_nan();
        }
        match *self {
            Within::Ulps(most) => place(a).abs_diff(place(b)) <= most.into(),
            Within::Relative(bound) => distance <= bound * greater,
            Within::Logarithm(bound) if argument > 0.5 && argument < 2.0 => distance <= bound,
            Within::Logarithm(bound) => distance <= bound * greater,
            Within::ToPi(bound) => distance <= bound || argument.abs() > std::f32::consts::PI,
        }
    }
}

#[test]
fn approximations_are_near_those_of_an_h200() {
    let recorded = recorded();
    let arguments = words(&recorded["arguments"]);
    let rows: Vec<Vec<u64>> = arguments.iter().map(|&x| vec![x.into()]).collect();
    // A GPU's distance from the exact value by the PTX ISA, and the half ulp of the simulated
    // result, which is the f32 nearest to that value; less where the GPU is nearer than the ISA
    // says, by ulps and of `tanh`. The shares of equal bits are a little below what was counted.
    let half = f64::from(f32::EPSILON) / 2.0;
    for (name, within, equal) in [
        ("ex2.approx.ftz", Within::Ulps(2), 0.7),
        ("ex2.approx", Within::Ulps(2), 0.7),
        ("lg2.approx", Within::Logarithm(2f64.powi(-22) + half), 0.7),
        ("rcp.approx", Within::Ulps(1), 0.8),
        ("rsqrt.approx", Within::Ulps(1), 0.8),
        ("sqrt.approx", Within::Ulps(1), 0.8),
        ("tanh.approx", Within::Relative(2f64.powi(-16)), 0.6),
        ("sin.approx", Within::ToPi(2f64.powf(-20.5) + half), 0.0),
        ("cos.approx", Within::ToPi(2f64.powf(-20.5) + half), 0.0),
    ] {
        let wanted = words(&recorded["approximations"][name]);
        let found = compute(&format!("{name}.f32 %d, %a0;"), &[32], 32, &rows);
        let mut same = 0;
        for ((&argument, &hardware), &found) in arguments.iter().zip(&wanted).zip(&found) {
            let (x, found) = (f32::from_bits(argument), found as u32);
            let said = format!("{name} of {x:e}: {found:#x}, and {hardware:#x} on the GPU");
            assert!(within.holds(x, [found, hardware]), "{said}");
            same += usize::from(found == hardware);
        }
        assert!(same as f64 >= equal * wanted.len() as f64, "{name}: {same} of {}", wanted.len());
    }
}
