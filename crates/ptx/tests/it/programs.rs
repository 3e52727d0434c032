//! Control flow, state spaces and instructions of several lanes, by small programs that give the
//! same under every schedule.

use halfstep_ptx::{Arrival, Kind, Options};

use crate::written::{Run, module, words};

const STORE: &str = "st.global.u32 [%d3], %r1;\nret;";

/// What threads compute, each from its number.
fn expect(before: &str, code: &str, threads: u32, f: impl Fn(u32) -> u32) {
    let got = words(before, &format!("{code}\n{STORE}"), threads);
    for (thread, got) in got.iter().enumerate() {
        assert_eq!(*got, f(thread as u32), "thread {thread} of `{code}`");
    }
}

#[test]
fn lanes_part_and_join() {
    // A loop whose number of turns differs, with a branch inside.
    let code = "mov.u32 %r1, 0;\nmov.u32 %r2, 0;\nL: setp.gt.u32 %p0, %r2, %r0;\n@%p0 bra E;\n\
                and.b32 %r3, %r2, 1;\nsetp.eq.u32 %p1, %r3, 0;\n@%p1 bra A;\nadd.u32 %r1, %r1, 10;\nbra B;\n\
                A: add.u32 %r1, %r1, %r2;\nB: add.u32 %r2, %r2, 1;\nbra L;\nE:\nactivemask.b32 %r4;\n\
                setp.ne.u32 %p2, %r4, -1;\n@%p2 mov.u32 %r1, 7;";
    expect("", code, 64, |n| (0..=n).map(|i| if i % 2 == 0 { i } else { 10 }).sum());
}

#[test]
fn tables_of_branches() {
    let code = "rem.u32 %r2, %r0, 3;\nT: .branchtargets A, B, C;\nbrx.idx %r2, T;\n\
                A: mov.u32 %r1, 100;\nbra E;\nB: mov.u32 %r1, 200;\nbra E;\nC: mov.u32 %r1, 300;\nE:";
    expect("", code, 40, |n| (n % 3 + 1) * 100);
}

#[test]
fn functions_are_put_in_place() {
    let before = ".func (.param .b32 r) sq(.param .b32 x) {\n.reg .b32 %a;\nld.param.b32 %a, [x];\n\
                  setp_free: mul.lo.u32 %a, %a, %a;\nst.param.b32 [r], %a;\nret;\n}\n\
                  .func (.param .b32 r) twice(.param .b32 x) {\n.reg .b32 %a, %b;\n.reg .pred %q;\n\
                  ld.param.b32 %a, [x];\nsetp.lt.u32 %q, %a, 3;\n@%q bra S;\n\
                  { .param .b32 p; st.param.b32 [p], %a; .param .b32 v; call.uni (v), sq, (p); ld.param.b32 %b, [v]; }\n\
                  add.u32 %a, %b, %b;\nS: st.param.b32 [r], %a;\nret;\n}";
    let call = "{ .param .b32 p0; st.param.b32 [p0+0], %r0; .param .b32 v0; call.uni (v0), twice, (p0); \
                ld.param.b32 %r1, [v0+0]; }";
    expect(before, &format!("{call}\n{call}"), 20, |n| if n < 3 { n } else { 2 * n * n });
    // Only some lanes call.
    let code =
        format!("mov.u32 %r1, 5;\nsetp.gt.u32 %p0, %r0, 4;\n{}", call.replace("call.uni", "@%p0 call"));
    let code = code.replace("ld.param.b32 %r1", "@%p0 ld.param.b32 %r1");
    expect(before, &code, 20, |n| if n > 4 { 2 * n * n } else { 5 });
}

#[test]
fn a_kernel_may_end_with_a_guard() {
    // Where it does not hold, threads reach the end of the text.
    for last in ["@%p0 st.global.u32 [%d4], %r1;", "@%p0 st.global.u32 [%d4], %r1;\n@%p0 ret;"] {
        let code = "setp.gt.u32 %p0, %r0, 4;\nld.global.u32 %r1, [%d2];\nmad.wide.u32 %d4, %r0, 4, %d1;";
        let module = module("", &format!("{code}\n{last}"));
        let mut run = Run::new(Options::default(), &[3; 64], 4 * 64);
        let launch =
            halfstep_ptx::Launch::new("k", [1, 1, 1], [64, 1, 1]).input(run.input).output(run.output);
        assert_eq!(run.gpu.launch(&module, &launch).unwrap().bytes_stored, 4 * 59, "{last}");
    }
}

#[test]
fn labels_belong_to_their_scopes() {
    let asm = "{ .reg .pred %q; setp.lt.u32 %q, %r0, 5; @%q bra D; add.u32 %r1, %r1, 1; D: }\n";
    expect("", &format!("mov.u32 %r1, 0;\n{asm}{asm}"), 10, |n| if n < 5 { 0 } else { 2 });
}

#[test]
fn variables_of_all_spaces() {
    let before = ".const .align 4 .u32 table[4] = {10, 20, 30, 0x28};\n.global .align 8 .u64 where = generic(count);\n\
                  .global .u32 count = 7;\n.const .f32 half[2] = {0f3F000000, 0.25};";
    let before = before.replace(".global .align 8", ".global .u32 unused;\n.global .align 8");
    let code = "and.b32 %r2, %r0, 3;\nmov.u64 %d4, table;\nmad.wide.u32 %d4, %r2, 4, %d4;\nld.const.u32 %r1, [%d4];\n\
                cvta.const.u64 %d5, %d4;\nld.u32 %r3, [%d5];\nadd.u32 %r1, %r1, %r3;\n\
                ld.global.u64 %d6, [where];\nld.u32 %r3, [%d6];\nadd.u32 %r1, %r1, %r3;\n\
                ld.const.f32 %f0, [half+4];\nmul.f32 %f0, %f0, 0f41000000;\ncvt.rzi.u32.f32 %r3, %f0;\n\
                add.u32 %r1, %r1, %r3;";
    expect(&before, code, 32, |n| (n % 4 + 1) * 20 + 7 + 2);
    // Local memory, by generic addresses and vectors.
    let code = ".local .align 16 .b8 depot[32];\nmov.u64 %d4, depot;\ncvta.local.u64 %d5, %d4;\n\
                st.local.v2.u32 [%d4+8], {%r0, 9};\nld.u32 %r2, [%d5+8];\nld.local.v2.u32 {_, %r3}, [depot+8];\n\
                st.u8 [%d5], %r0;\nld.local.s8 %r4, [depot];\nadd.u32 %r1, %r2, %r3;\nadd.u32 %r1, %r1, %r4;";
    expect("", code, 64, |n| n + 9 + n);
    let code = ".local .b8 one;\nst.local.u8 [one], 200;\nld.local.s8 %r1, [one];";
    expect("", code, 3, |_| -56i32 as u32);
}

/// A region that is too large is refused before there are bytes for it.
#[test]
fn regions_beyond_an_allocation() {
    let mut gpu = halfstep_ptx::Simulator::new(Options::default());
    let held = gpu.allocate(64).unwrap();
    for bytes in [65, u64::MAX] {
        let region = halfstep_ptx::Region { bytes, ..held };
        assert!(gpu.bytes(region).is_err() && gpu.is_written(region).is_err() && gpu.forget(region).is_err());
    }
    assert_eq!(gpu.bytes(held).unwrap(), [0xcd; 64]);
}

#[test]
fn module_variables_keep_their_values() {
    let code = "mov.u64 %d4, n;\natom.global.add.u32 %r1, [n], 1;\nst.global.u32 [%d1], %r1;\nret;";
    let module = module(".global .u32 n = 5;", code);
    let mut run = Run::new(Options::default(), &[0], 1);
    assert_eq!(run.launch(&module, 1, 1).unwrap(), [5]);
    assert_eq!(run.launch(&module, 1, 1).unwrap(), [6]);
}

#[test]
fn shared_memory_and_barriers() {
    let shared = ".shared .align 4 .b8 s[512];";
    let own = "mov.u32 %r4, s;\nmad.lo.u32 %r5, %r0, 4, %r4;\nmul.lo.u32 %r2, %r0, %r0;\nst.shared.u32 [%r5], %r2;\n";
    let other = "mov.u32 %r3, %ntid.x;\nsub.u32 %r3, %r3, %r0;\nsub.u32 %r3, %r3, 1;\nmad.lo.u32 %r3, %r3, 4, %r4;\n\
                 ld.shared.u32 %r1, [%r3];";
    expect(shared, &format!("{own}bar.sync 0;\n{other}"), 100, |n| (99 - n) * (99 - n));
    expect(shared, &format!("{own}barrier.sync 3, 128;\n{other}"), 128, |n| (127 - n) * (127 - n));
    // Generic addresses, and a barrier of one warp.
    let generic = "mov.u64 %d4, s;\ncvta.shared.u64 %d4, %d4;\nxor.b32 %r3, %r0, 5;\n\
                   mad.wide.u32 %d4, %r3, 4, %d4;\nld.u32 %r1, [%d4];";
    expect(shared, &format!("{own}bar.warp.sync -1;\n{generic}"), 32, |n| (n ^ 5) * (n ^ 5));
    // The others of a warp that has ended in part are not waited for.
    let code = format!(
        "setp.lt.u32 %p0, %r0, 70;\n@%p0 bra A;\nst.global.u32 [%d3], 1;\nret;\nA:\n{own}bar.sync 0;\n\
                        xor.b32 %r3, %r0, 1;\nmad.lo.u32 %r3, %r3, 4, %r4;\nld.shared.u32 %r1, [%r3];"
    );
    expect(shared, &code, 96, |n| if n < 70 { (n ^ 1) * (n ^ 1) } else { 1 });
}

#[test]
fn barriers_reduce() {
    let test = "and.b32 %r2, %r0, 3;\nsetp.eq.u32 %p0, %r2, 0;\n";
    expect("", &format!("{test}bar.red.popc.u32 %r1, 0, %p0;"), 80, |_| 20);
    expect("", &format!("{test}barrier.red.or.pred %p1, 0, %p0;\nselp.u32 %r1, 1, 0, %p1;"), 80, |_| 1);
    expect("", &format!("{test}bar.red.and.pred %p1, 1, 96, !%p0;\nselp.u32 %r1, 1, 0, %p1;"), 96, |_| 0);
}

/// Two warps hand values to the two others through barriers that each side only passes on.
#[test]
fn producers_and_consumers() {
    let shared = ".shared .align 4 .b8 s[256];";
    let code = "mov.u32 %r4, s;\nand.b32 %r5, %r0, 63;\nmad.lo.u32 %r5, %r5, 4, %r4;\nsetp.ge.u32 %p0, %r0, 64;\n\
                mov.u32 %r1, 0;\nmov.u32 %r2, 0;\n@%p0 bra C;\n\
                P: mad.lo.u32 %r3, %r2, 1000, %r0;\nbar.sync 2, 128;\nst.shared.u32 [%r5], %r3;\nbar.arrive 1, 128;\n\
                add.u32 %r2, %r2, 1;\nsetp.lt.u32 %p1, %r2, 4;\n@%p1 bra P;\nbra E;\n\
                C: bar.arrive 2, 128;\nbar.sync 1, 128;\nld.shared.u32 %r3, [%r5];\nadd.u32 %r1, %r1, %r3;\n\
                add.u32 %r2, %r2, 1;\nsetp.lt.u32 %p1, %r2, 4;\n@%p1 bra C;\nE:";
    expect(shared, code, 128, |n| if n < 64 { 0 } else { 6000 + 4 * (n - 64) });
}

#[test]
fn shuffles() {
    let mode = |mode: &str, b: &str, c: &str| {
        format!("shfl.sync.{mode}.b32 %r1|%p0, %r0, {b}, {c}, -1;\n@!%p0 add.u32 %r1, %r1, 1000;")
    };
    let at = |n: u32, inside: bool, source: u32| if inside { n / 32 * 32 + source } else { n + 1000 };
    expect("", &mode("bfly", "5", "31"), 64, |n| n ^ 5);
    expect("", &mode("up", "3", "0"), 32, |n| at(n, n >= 3, n.wrapping_sub(3)));
    expect("", &mode("down", "30", "31"), 32, |n| at(n, n < 2, n + 30));
    expect("", &mode("idx", "7", "31"), 32, |_| 7);
    // Segments of 8 lanes: the mask 0x18 in bits 8 to 12 of the clamp.
    expect("", &mode("down", "2", "0x181f"), 32, |n| at(n, n % 8 < 6, n + 2));
    expect("", &mode("up", "1", "0x1800"), 32, |n| at(n, n % 8 >= 1, n.wrapping_sub(1)));
    expect("", &mode("idx", "%r0", "0x181f"), 32, |n| n);
}

#[test]
fn votes_matches_and_reductions() {
    let odd = "and.b32 %r2, %r0, 1;\nsetp.eq.u32 %p0, %r2, 1;\n";
    expect("", &format!("{odd}vote.sync.ballot.b32 %r1, %p0, -1;"), 32, |_| 0xaaaa_aaaa);
    expect("", &format!("{odd}vote.sync.any.pred %p1, %p0, -1;\nselp.u32 %r1, 1, 0, %p1;"), 32, |_| 1);
    expect("", &format!("{odd}vote.sync.all.pred %p1, !%p0, -1;\nselp.u32 %r1, 1, 0, %p1;"), 32, |_| 0);
    expect("", &format!("{odd}vote.sync.uni.pred %p1, 0, -1;\nselp.u32 %r1, 1, 0, %p1;"), 32, |_| 1);
    let third = "rem.u32 %r2, %r0, 3;\n";
    expect("", &format!("{third}match.any.sync.b32 %r1, %r2, -1;"), 32, |n| {
        (0..32).filter(|other| other % 3 == n % 3).map(|other| 1 << other).sum()
    });
    expect("", &format!("{third}match.all.sync.b32 %r1|%p1, %r2, -1;\n@%p1 mov.u32 %r1, 9;"), 32, |_| 0);
    expect("", "redux.sync.add.s32 %r1, %r0, -1;", 32, |_| 496);
    expect("", "sub.s32 %r2, %r0, 10;\nredux.sync.min.s32 %r1, %r2, -1;", 32, |_| -10i32 as u32);
    expect("", "redux.sync.xor.b32 %r1, %r0, -1;", 32, |_| 0);
    expect("", "mov.u32 %r1, 0;\nelect.sync %r2|%p0, -1;\n@%p0 mov.u32 %r1, 1;", 64, |n| {
        u32::from(n % 32 == 0)
    });
    expect("", "mov.u32 %r1, %lanemask_lt;", 40, |n| (1 << (n % 32)) - 1);
}

#[test]
fn atomics() {
    let shared = ".shared .align 8 .b8 s[16];";
    let zero = "setp.eq.u32 %p0, %r0, 0;\n@%p0 st.shared.v2.u32 [s], {0, 0};\nbar.sync 0;\n";
    let get = "bar.sync 0;\nld.shared.u32 %r1, [s];";
    let sum = |n: u32| (0..n).sum::<u32>();
    expect(shared, &format!("{zero}red.shared.add.u32 [s], %r0;\n{get}"), 96, |_| sum(96));
    expect(shared, &format!("{zero}atom.shared.max.s32 %r2, [s], %r0;\n{get}"), 96, |_| 95);
    expect(shared, &format!("{zero}atom.shared.inc.u32 %r2, [s], 10;\n{get}"), 96, |_| 96 % 11);
    expect(shared, &format!("{zero}atom.shared.or.b32 %r2, [s], %r0;\n{get}"), 96, |_| 127);
    let swap = "setp.eq.u32 %p1, %r0, 5;\n@%p1 atom.shared.cas.b32 %r2, [s], 0, %r0;\n\
                @%p1 atom.shared.cas.b32 %r3, [s], 6, 50;\n@%p1 atom.shared.exch.b32 %r4, [s+4], %r3;\n";
    let get = "bar.sync 0;\nld.shared.v2.u32 {%r1, %r2}, [s];\nmad.lo.u32 %r1, %r1, 100, %r2;";
    expect(shared, &format!("{zero}{swap}{get}"), 64, |_| 505);
    // In global memory, of f32 and of 64 bits: counted as sums in no fixed order.
    let code = "mov.f32 %f0, 0f3F800000;\nred.global.add.f32 [%d1], %f0;\natom.global.add.u64 %d4, [%d1+8], %d0;\nret;";
    let module = module("", code);
    let mut run = Run::new(Options::default(), &[0; 64], 4);
    run.gpu.write(run.output.address, &[0; 16]).unwrap();
    let region = halfstep_ptx::Launch::new("k", [4, 1, 1], [32, 1, 1])
        .input(run.input)
        .output(run.output)
        .reads(run.output);
    let counts = run.gpu.launch(&module, &region).unwrap();
    assert_eq!(counts.unordered_sums, 4);
    assert_eq!(counts.of(Kind::Atomic), 8);
    let bytes = run.gpu.bytes(run.output).unwrap();
    assert_eq!(f32::from_le_bytes(bytes[..4].try_into().unwrap()), 128.0);
    assert_eq!(u64::from_le_bytes(bytes[8..].try_into().unwrap()), run.input.address.wrapping_mul(128));
}

/// A flag is set behind a fence and read in front of one: no race; without fences, a race.
#[test]
fn fences_and_flags_order_accesses() {
    let code = |fence: &str| {
        format!(
            "setp.ne.u32 %p0, %r0, 0;\n@%p0 bra D;\nst.shared.u32 [s+4], 42;\n{fence}\natom.shared.exch.b32 %r2, [s], 1;\nbra E;\n\
             D: setp.ne.u32 %p0, %r0, 32;\n@%p0 bra E;\nW: atom.shared.or.b32 %r2, [s], 0;\nsetp.eq.u32 %p1, %r2, 0;\n\
             @%p1 bra W;\n{fence}\nld.shared.u32 %r1, [s+4];\nst.global.u32 [%d3], %r1;\nE: ret;"
        )
    };
    let shared = ".shared .align 8 .b8 s[16];";
    let start = "setp.eq.u32 %p0, %r0, 0;\n@%p0 st.shared.u32 [s], 0;\nbar.sync 0;\nmov.u32 %r1, 0;\n";
    for seed in 0..4 {
        let options = Options { seed: Some(seed), limit: 1_000_000, ..Options::default() };
        let run = |fence: &str| {
            let module = module(shared, &format!("{start}{}", code(fence)));
            Run::new(options, &[0; 64], 64).launch(&module, 1, 64)
        };
        assert_eq!(run("membar.cta;").unwrap()[32], 42);
        let error = run("").unwrap_err().to_string();
        assert!(error.contains("in no order") || error.contains("never written"), "{error}");
    }
}

/// The same through global memory, between warps of a block: a fence and a scope of the block will
/// do.
#[test]
fn flags_in_global_memory_order_accesses_of_a_block() {
    let before = ".global .align 4 .u32 flag[2] = {0, 0};";
    let code = |fence: &str, scope: &str| {
        format!(
            "mov.u64 %d4, flag;\nmov.u32 %r1, 0;\nsetp.ne.u32 %p0, %r0, 0;\n@%p0 bra D;\n\
             st.global.u32 [%d4+4], 42;\n{fence}\natom{scope}.global.exch.b32 %r2, [%d4], 1;\nbra E;\n\
             D: setp.ne.u32 %p0, %r0, 32;\n@%p0 bra E;\nW: atom{scope}.global.or.b32 %r2, [%d4], 0;\n\
             setp.eq.u32 %p1, %r2, 0;\n@%p1 bra W;\n{fence}\nld.global.u32 %r1, [%d4+4];\n\
             st.global.u32 [%d3], %r1;\nE: ret;"
        )
    };
    for seed in 0..4 {
        let options = Options { seed: Some(seed), limit: 1_000_000, ..Options::default() };
        let run = |fence: &str, scope: &str| {
            Run::new(options, &[0; 64], 64).launch(&module(before, &code(fence, scope)), 1, 64)
        };
        for fence in ["membar.cta;", "membar.gl;"] {
            for scope in ["", ".cta"] {
                let words = run(fence, scope).unwrap_or_else(|error| panic!("{fence} {scope}: {error}"));
                assert_eq!(words[32], 42);
            }
        }
        let error = run("", "").unwrap_err().to_string();
        assert!(error.contains("in no order"), "{error}");
    }
}

#[test]
fn copies_arrive_early_or_late() {
    let shared = ".shared .align 16 .b8 s[512];";
    let code = "mov.u32 %r4, s;\nmad.lo.u32 %r5, %r0, 4, %r4;\nsetp.lt.u32 %p0, %r0, 10;\nselp.u32 %r2, 4, 0, %p0;\n\
                cp.async.ca.shared.global [%r5], [%d2], 4, %r2;\ncp.async.commit_group;\n\
                cp.async.ca.shared.global [%r5+256], [%d2], 4;\ncp.async.commit_group;\n\
                cp.async.wait_group 1;\nbar.sync 0;\nxor.b32 %r3, %r0, 1;\nmad.lo.u32 %r3, %r3, 4, %r4;\n\
                ld.shared.u32 %r1, [%r3];\ncp.async.wait_all;\nbar.sync 0;\nld.shared.u32 %r6, [%r3+256];\n\
                add.u32 %r1, %r1, %r6;\nst.global.u32 [%d3], %r1;\nret;";
    let module = module(shared, code);
    for arrival in [Arrival::Early, Arrival::Late] {
        let input: Vec<u32> = (0..64).map(|i| 100 + i).collect();
        let options = Options { arrival, ..Options::default() };
        let got = Run::new(options, &input, 64).launch(&module, 1, 64).unwrap();
        let expected = |n: u32| 100 + (n ^ 1) + if n ^ 1 < 10 { 100 + (n ^ 1) } else { 0 };
        assert!(got.iter().enumerate().all(|(n, got)| *got == expected(n as u32)), "{arrival:?}: {got:?}");
    }
}

#[test]
fn counts() {
    let code = "ld.global.u32 %r1, [%d2];\nmad.wide.u32 %d4, %r0, 32, %d1;\nst.global.u32 [%d4], %r1;\nret;";
    let module = module("", code);
    let mut run = Run::new(Options::default(), &[3; 64], 8 * 64);
    let launch = halfstep_ptx::Launch::new("k", [1, 1, 1], [64, 1, 1]).input(run.input).output(run.output);
    let counts = run.gpu.launch(&module, &launch).unwrap();
    assert_eq!((counts.bytes_loaded, counts.sectors_loaded), (256, 8));
    assert_eq!((counts.bytes_stored, counts.sectors_stored), (256, 64));
    assert_eq!(counts.of(Kind::GlobalLoad), 2);
    assert_eq!(counts.instructions(), 18, "9 of each warp:\n{counts}");
}
