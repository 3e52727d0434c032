//! Each fault is planted once and reported with its instruction, thread and address.

use halfstep_ptx::{Access, Cause, Launch, LaunchError, LoadProblem, Module, Options, Simulator, Space};

use crate::written::{Run, fault, module, text};

const STORE: &str = "st.global.u32 [%d3], %r1;\nret;";

#[test]
fn outside_of_what_the_launch_declares() {
    let found = fault("", &format!("ld.global.u32 %r1, [%d2+4];\n{STORE}"), 1, 32);
    let Cause::OutOfBounds { space: Space::Global, access: Access::Read, bytes: 4, .. } = found.cause else {
        panic!("{found}");
    };
    assert_eq!(found.place.thread, [31, 0, 0], "the last thread reads behind the end");
    assert_eq!(found.place.instruction, "ld.global.u32 %r1, [%d2+4];".trim_end_matches(';'));
    // What it may read, it may not write.
    let found = fault("", "st.global.u32 [%d2], %r0;\nret;", 1, 32);
    assert!(found.to_string().contains("for the other direction only"), "{found}");
    let found = fault("", "mov.u64 %d4, 64;\nld.global.u32 %r1, [%d4];\nret;", 1, 32);
    assert!(found.to_string().contains("no address that was ever allocated"), "{found}");
    let found = fault("", "mov.u64 %d4, 64;\nld.u32 %r1, [%d4];\nret;", 1, 32);
    assert!(matches!(found.cause, Cause::OutOfBounds { space: Space::None, address: 64, .. }), "{found}");
    let shared = ".shared .align 4 .b8 s[128];";
    let found = fault(shared, "mov.u32 %r1, s;\nst.shared.u32 [%r1+128], %r0;\nret;", 1, 1);
    assert!(matches!(found.cause, Cause::OutOfBounds { space: Space::Shared, address: 128, .. }), "{found}");
    let found = fault("", ".local .align 4 .b8 l[8];\nst.local.u32 [l+8], %r0;\nret;", 1, 32);
    assert!(matches!(found.cause, Cause::OutOfBounds { space: Space::Local, .. }), "{found}");
}

#[test]
fn freed_memory() {
    let module = module("", &format!("ld.global.u32 %r1, [%d2];\n{STORE}"));
    let mut run = Run::new(Options::default(), &[1; 32], 32);
    let other = run.gpu.allocate_from(&[0; 128]).unwrap();
    run.gpu.free(run.input.address).unwrap();
    assert!(run.gpu.free(run.input.address).is_err(), "freed twice");
    assert!(matches!(run.launch(&module, 1, 32), Err(LaunchError::Region { .. })));
    // The launch declares other memory than its argument points to.
    let launch = Launch::new("k", [1; 3], [32, 1, 1])
        .argument(halfstep_ptx::Argument::U64(run.input.address))
        .reads(other)
        .output(run.output);
    let error = run.gpu.launch(&module, &launch).unwrap_err();
    assert!(error.to_string().contains("was freed"), "{error}");
}

#[test]
fn misaligned() {
    let found = fault("", "st.global.u16 [%d3+1], %h0;\nret;", 1, 1);
    assert!(
        matches!(found.cause, Cause::RegisterNeverWritten { ref register } if register == "%h0"),
        "{found}"
    );
    let found = fault("", "ld.global.v2.u32 {%r1, %r2}, [%d0+4];\nret;", 1, 4);
    assert!(matches!(found.cause, Cause::Misaligned { align: 8, bytes: 8, .. }), "{found}");
    let shared = ".shared .align 4 .b8 s[128];";
    let found = fault(shared, "st.shared.u32 [s+2], %r0;\nret;", 1, 1);
    assert!(matches!(found.cause, Cause::Misaligned { space: Space::Shared, address: 2, .. }), "{found}");
}

#[test]
fn never_written() {
    let found = fault("", "add.s32 %r1, %r0, %r2;\nret;", 1, 32);
    assert!(
        matches!(found.cause, Cause::RegisterNeverWritten { ref register } if register == "%r2"),
        "{found}"
    );
    // A move is no use yet; written in one half of a warp, it is read in the other.
    let found = fault(
        "",
        "setp.lt.u32 %p0, %r0, 16;\n@%p0 mov.u32 %r2, 5;\nmov.u32 %r3, %r2;\nadd.s32 %r1, %r3, 1;\nret;",
        1,
        32,
    );
    assert!(
        matches!(found.cause, Cause::RegisterNeverWritten { ref register } if register == "%r3"),
        "{found}"
    );
    assert_eq!(found.place.thread, [16, 0, 0]);
    let shared = ".shared .align 4 .b8 s[128];";
    let found = fault(shared, &format!("ld.shared.u32 %r1, [s+12];\n{STORE}"), 1, 32);
    assert_eq!(found.cause, Cause::NeverWritten { space: Space::Shared, address: 12, bytes: 4 });
    let found = fault("", &format!(".local .align 4 .b8 l[8];\nld.local.u32 %r1, [l];\n{STORE}"), 1, 32);
    assert!(matches!(found.cause, Cause::NeverWritten { space: Space::Local, .. }), "{found}");
    let module = module("", &format!("ld.global.u32 %r1, [%d2];\n{STORE}"));
    let mut run = Run::new(Options::default(), &[0; 32], 32);
    let gap = halfstep_ptx::Region { address: run.input.address + 20, bytes: 2 };
    run.gpu.forget(gap).unwrap();
    let error = run.launch(&module, 1, 32).unwrap_err();
    let LaunchError::Fault(found) = error else { panic!("{error}") };
    assert!(matches!(found.cause, Cause::NeverWritten { space: Space::Global, bytes: 4, .. }), "{found}");
    assert_eq!(found.place.thread, [5, 0, 0]);
}

#[test]
fn races_in_shared_memory() {
    let shared = ".shared .align 4 .b8 s[512];";
    let own = "mov.u32 %r1, s;\nmad.lo.u32 %r1, %r0, 4, %r1;\nst.shared.u32 [%r1], %r0;\n";
    // Another warp's word, before a barrier.
    let code =
        format!("{own}xor.b32 %r2, %r0, 32;\nshl.b32 %r2, %r2, 2;\nld.shared.u32 %r1, [%r2];\n{STORE}");
    let module = module(shared, &code);
    let mut causes = Vec::new();
    for seed in 0..4 {
        let options = Options { seed: Some(seed), ..Options::default() };
        match Run::new(options, &[0; 64], 64).launch(&module, 1, 64) {
            Err(LaunchError::Fault(fault)) => causes.push(fault.cause),
            other => panic!("{other:?}"),
        }
    }
    // The first to read sees what was not written yet, or what was, in no order.
    let of_these = |c: &Cause| matches!(c, Cause::Race { .. } | Cause::NeverWritten { .. });
    assert!(causes.iter().all(of_these), "{causes:?}");
    // Reads before writes of another warp.
    let code = format!(
        "{own}bar.sync 0;\nxor.b32 %r2, %r0, 32;\nshl.b32 %r2, %r2, 2;\nld.shared.u32 %r3, [%r2];\n\
         st.shared.u32 [%r1], %r3;\nret;"
    );
    let found = fault(shared, &code, 1, 64);
    assert!(matches!(found.cause, Cause::Race { space: Space::Shared, .. }), "{found}");
    // Another lane's word, without a barrier of the warp.
    let code = format!("{own}xor.b32 %r2, %r0, 1;\nshl.b32 %r2, %r2, 2;\nld.shared.u32 %r1, [%r2];\n{STORE}");
    let found = fault(shared, &code, 1, 32);
    assert!(matches!(found.cause, Cause::Race { access: Access::Read, .. }), "{found}");
    assert!(found.to_string().contains("a write by thread (1, 0, 0)"), "{found}");
    // Two lanes store different values in one place.
    let found = fault(shared, "st.shared.u32 [s], %r0;\nret;", 1, 32);
    assert!(found.to_string().contains("the same store by lane 0, of another value"), "{found}");
}

#[test]
fn races_between_blocks() {
    let code = "mov.u32 %r1, %ctaid.x;\nst.global.u32 [%d3], %r1;\nret;";
    let found = fault("", code, 2, 32);
    assert!(
        matches!(found.cause, Cause::Race { space: Space::Global, access: Access::Write, .. }),
        "{found}"
    );
    assert!(found.to_string().contains("by block number"), "{found}");
    // The same in warps of one block.
    let code = "and.b32 %r1, %r0, 31;\nmad.wide.u32 %d3, %r1, 4, %d1;\nst.global.u32 [%d3], %r0;\nret;";
    let found = fault("", code, 1, 64);
    assert!(matches!(found.cause, Cause::Race { space: Space::Global, .. }), "{found}");
}

/// What is atomic for a block alone is none for another one.
#[test]
fn atomic_operations_of_too_narrow_a_scope() {
    let add = |scope: &str| format!("red{scope}.global.add.u32 [%d0], 1;\nret;");
    for scope in ["", ".relaxed.gpu", ".relaxed.sys"] {
        let run = Run::new(Options::default(), &[0; 32], 32).launch(&module("", &add(scope)), 2, 32);
        // Not the operation, but the launch is refused: it may only read there.
        assert!(run.unwrap_err().to_string().contains("the other direction only"), "{scope}");
    }
    let word = ".global .u32 count = 0;";
    let add = |scope: &str| format!("mov.u64 %d4, count;\nred{scope}.global.add.u32 [%d4], 1;\nret;");
    for scope in ["", ".relaxed.gpu", ".relaxed.sys"] {
        let run = Run::new(Options::default(), &[0; 32], 32).launch(&module(word, &add(scope)), 2, 32);
        assert!(run.is_ok(), "{scope}: {run:?}");
    }
    for code in [
        add(".cta"),
        add(".relaxed.cluster"),
        add("").replace("red", "ld.relaxed.cta.global.u32 %r1, [%d4];\nred"),
    ] {
        let found = fault(word, &code, 2, 32);
        assert!(matches!(found.cause, Cause::Race { space: Space::Global, .. }), "{code}: {found}");
        assert!(found.to_string().contains("by block number"), "{found}");
    }
}

/// The last addresses that there are, and addresses of another space.
#[test]
fn addresses_from_elsewhere() {
    for address in ["-1", "-4", "-16"] {
        for code in [
            "ld.global.u32 %r1, [%d4]",
            "ld.v4.u32 {%r1, %r2, %r3, %r4}, [%d4]",
            "st.global.u32 [%d4], %r0",
            "atom.add.u32 %r1, [%d4], 1",
        ] {
            let found = fault("", &format!("mov.u64 %d4, {address};\n{code};\nret;"), 1, 32);
            assert!(
                matches!(found.cause, Cause::OutOfBounds { space: Space::Global, .. }),
                "{code}: {found}"
            );
        }
    }
    let table = ".const .align 4 .b32 c[4] = {1, 2, 3, 4};";
    for (space, code) in [
        (Space::Const, "mov.u64 %d4, c;\nld.const.u32 %r1, [%d4+16];"),
        (Space::Const, "ld.const.u32 %r1, [%d0];"),
        (Space::Param, "ld.param.u32 %r1, [%d0];"),
        // They cannot be written at all, whatever each lane writes.
        (Space::Const, "st.const.u32 [c], %r0;"),
        (Space::Const, "mov.u64 %d4, c;\nst.u32 [%d4], %r0;"),
        (Space::Param, "st.param.u32 [out], %r0;"),
    ] {
        let found = fault(table, &format!("{code}\nret;"), 1, 32);
        assert!(
            matches!(found.cause, Cause::OutOfBounds { space: at, .. } if at == space),
            "{code}: {found}"
        );
    }
}

#[test]
fn barriers() {
    // Barrier 16 is that of the cluster, which other instructions wait at.
    for code in ["bar.sync 16;", "mov.u32 %r1, 16;\nbar.sync %r1;", "barrier.sync -1;"] {
        let found = fault("", &format!("{code}\nret;"), 1, 64);
        assert!(matches!(found.cause, Cause::BarrierMisuse { .. }), "{code}: {found}");
    }
    let half = "setp.lt.u32 %p0, %r0, 16;\n";
    let found = fault("", &format!("{half}@!%p0 bra A;\nbar.sync 0;\nA: bar.sync 0;\nret;"), 1, 32);
    assert!(matches!(found.cause, Cause::DivergentBarrier { active: 0xffff, live: u32::MAX }), "{found}");
    let found = fault("", "setp.lt.u32 %p0, %r0, 32;\n@%p0 bar.sync 1, 64;\nret;", 1, 64);
    assert!(matches!(found.cause, Cause::Deadlock { .. }), "{found}");
    assert!(found.to_string().contains("warp 0 waits at barrier 1"), "{found}");
    let found = fault(
        "",
        "shl.b32 %r1, %r0, 1;\nand.b32 %r1, %r1, 64;\nadd.s32 %r1, %r1, 64;\nbar.sync 1, %r1;\nret;",
        1,
        64,
    );
    assert!(matches!(found.cause, Cause::BarrierMisuse { barrier: 1, .. }), "{found}");
    // Lanes of one warp wait for a lane that never comes.
    let found = fault(
        "",
        "setp.eq.u32 %p0, %r0, 3;\n@%p0 bra L;\nbar.warp.sync -1;\nret;\nL: bar.sync 0;\nret;",
        1,
        32,
    );
    assert!(matches!(found.cause, Cause::DivergentBarrier { .. } | Cause::Deadlock { .. }), "{found}");
}

#[test]
fn absent_lanes() {
    let code = "setp.lt.u32 %p0, %r0, 16;\n@%p0 shfl.sync.bfly.b32 %r1, %r0, 1, 31, -1;\nret;";
    let found = fault("", code, 1, 32);
    assert!(matches!(found.cause, Cause::AbsentLanes { mask: u32::MAX, absent: 0xffff_0000 }), "{found}");
    // The member is there, the lane that is read is not a member.
    let code = "setp.lt.u32 %p0, %r0, 16;\n@%p0 shfl.sync.idx.b32 %r1, %r0, 20, 31, 65535;\nret;";
    let found = fault("", code, 1, 32);
    assert!(matches!(found.cause, Cause::AbsentLanes { mask: 0xffff, absent: 0x10_0000 }), "{found}");
    let code = "vote.sync.ballot.b32 %r1, 1, 254;\nret;";
    let found =
        fault("", &code.replace(", 1,", ", %p0,").replace("vote", "setp.eq.u32 %p0, %r0, 0;\nvote"), 1, 32);
    assert!(matches!(found.cause, Cause::Undefined { .. }), "lane 0 is no member: {found}");
}

#[test]
fn what_does_not_end() {
    let found = fault("", "A: bra A;", 1, 32);
    assert_eq!(found.cause, Cause::StepLimit { limit: 100_000 });
    let found = fault("", "trap;", 1, 32);
    assert_eq!(found.cause, Cause::Trap);
}

#[test]
fn copies_that_are_not_waited_for() {
    let shared = ".shared .align 16 .b8 s[128];";
    let copy = "mov.u32 %r1, s;\nmad.lo.u32 %r1, %r0, 4, %r1;\n\
                cp.async.ca.shared.global [%r1], [%d2], 4;\ncp.async.commit_group;\n";
    let found = fault(shared, &format!("{copy}ld.shared.u32 %r1, [%r1];\n{STORE}"), 1, 32);
    assert!(found.to_string().contains("an asynchronous copy that was not waited for"), "{found}");
    let found =
        fault(shared, &format!("{copy}cp.async.wait_group 1;\nld.shared.u32 %r1, [%r1];\n{STORE}"), 1, 32);
    assert!(matches!(found.cause, Cause::Race { .. }), "{found}");
    // Waited for, and read by another lane without a barrier.
    let other = "xor.b32 %r2, %r0, 1;\nmov.u32 %r1, s;\nmad.lo.u32 %r1, %r2, 4, %r1;\n";
    let code = format!("{copy}cp.async.wait_all;\n{other}ld.shared.u32 %r1, [%r1];\n{STORE}");
    let found = fault(shared, &code, 1, 32);
    assert!(matches!(found.cause, Cause::Race { .. }), "{found}");
}

/// PTX does not say that an address of which no byte is read may be any.
#[test]
fn copies_of_no_bytes_from_anywhere() {
    let shared = ".shared .align 16 .b8 s[128];";
    let copy = |from: &str| {
        format!(
            "mov.u32 %r1, s;\nmad.lo.u32 %r1, %r0, 4, %r1;\nmov.u32 %r2, 0;\n\
             cp.async.ca.shared.global [%r1], [{from}], 4, %r2;\ncp.async.wait_all;\n\
             ld.shared.u32 %r1, [%r1];\n{STORE}"
        )
    };
    let zeros = Run::new(Options::default(), &[7; 32], 32).launch(&module(shared, &copy("%d2")), 1, 32);
    assert_eq!(zeros.unwrap(), [0; 32]);
    let found = fault(shared, &copy("%d2+4"), 1, 32);
    assert!(matches!(found.cause, Cause::OutOfBounds { space: Space::Global, .. }), "{found}");
    assert_eq!(found.place.thread, [31, 0, 0]);
}

#[test]
fn what_cannot_be_loaded() {
    let problem = |code: &str| Module::load(&text("", code)).unwrap_err();
    let error = problem("add.s32 %r1, %r0, 1;\nfoo.bar.u32 %r1, %r0;\nret;");
    assert_eq!(error.to_string(), "line 18: the instruction `foo.bar.u32` is not simulated");
    for code in
        ["add.cake.s32 %r1, %r0, 1;", "mul.s32 %r1, %r0, %r0;", "ld.global.b128 %r1, [%d0];", "add.f32 %f0;"]
    {
        let error = problem(code);
        assert!(matches!(error.problem, LoadProblem::UnknownOpcode { .. }), "{code}: {error}");
    }
    for (code, name) in
        [("add.s32 %r1, %r0, %r99;", "%r99"), ("bra nowhere;", "nowhere"), ("@%q bra A;\nA:", "%q")]
    {
        assert_eq!(problem(code).problem, LoadProblem::Undeclared { name: name.to_string() });
    }
    for code in [
        "add.s32 %r1, %d0, 1;",
        // Registers that are narrower than what they hold.
        "st.global.b64 [%d1], %r0;",
        "st.global.v2.b32 [%d1], {%r0, %h0};",
        "ld.global.u64 %r1, [%d0];",
        "ld.global.u32 %h1, [%d0];",
        "atom.global.add.u64 %r1, [%d0], %d1;",
        "mov.b64 {%h0, %h1}, %d0;",
        "add.cc.u64 %r1, %r0, %r0;",
    ] {
        let error = problem(code);
        assert!(matches!(error.problem, LoadProblem::Operand { .. }), "{code}: {error}");
    }
    // Vectors that are no halves or quarters.
    let many = vec!["%h1"; 66].join(", ");
    for code in [
        "mov.b32 {%r1, %r2, %r3}, %r0;",
        "mov.b32 {}, %r0;",
        "mov.b64 %d4, {%d0};",
        "mov.b128 %d4, {%d0, %d1};",
        "mov.pred {%r1, %r2}, %r0;",
        "mov.b16 {%h0, %h1, %h2, %h3}, %h0;",
        &format!("mov.b64 {{{many}}}, %d0;"),
    ] {
        let error = problem(code);
        assert!(matches!(error.problem, LoadProblem::UnknownOpcode { .. }), "{code}: {error}");
    }
    // An integer of more than 64 bits is no fraction.
    let error = problem("mov.u32 %r1, 99999999999999999999999;");
    assert!(matches!(error.problem, LoadProblem::Syntax { .. }), "{error}");
    let error = problem("call.uni vprintf, (%d0);");
    assert!(error.to_string().contains("has no body in this module"), "{error}");
    assert!(matches!(problem("add.s32 %r1 %r0;").problem, LoadProblem::Syntax { .. }));
    let error = Module::load(".version 9.0\n.target sm_90\n.address_size 32\n").unwrap_err();
    assert!(matches!(error.problem, LoadProblem::Declaration { .. }), "{error}");
}

#[test]
fn launches_that_do_not_fit() {
    let module = module("", "ret;");
    let mut gpu = Simulator::new(Options::default());
    let region = gpu.allocate(8).unwrap();
    let fits = |launch: Launch| launch.input(region).output(region);
    let mut launch = |launch: &Launch| gpu.launch(&module, launch);
    assert!(launch(&fits(Launch::new("k", [1; 3], [1; 3]))).is_ok());
    assert!(matches!(launch(&fits(Launch::new("n", [1; 3], [1; 3]))), Err(LaunchError::NoKernel(_))));
    assert!(matches!(launch(&Launch::new("k", [1; 3], [1; 3])), Err(LaunchError::Arguments { .. })));
    for (blocks, threads) in [([1, 1, 1], [1025, 1, 1]), ([0, 1, 1], [1, 1, 1]), ([1, 1, 1], [32, 0, 1])] {
        let error = launch(&fits(Launch::new("k", blocks, threads)));
        assert!(matches!(error, Err(LaunchError::Shape { .. })), "{error:?}");
    }
    assert!(matches!(
        launch(&fits(Launch::new("k", [1; 3], [1; 3]).shared(1 << 20))),
        Err(LaunchError::Shape { .. })
    ));
}
