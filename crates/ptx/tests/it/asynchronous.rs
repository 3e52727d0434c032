//! mbarriers, bulk copies and `wgmma`, instruction by instruction: what they do, and what misuse of
//! them is called.

use halfstep_ptx::{
    Argument, Arrival, Cause, Counts, Fault, Launch, LaunchError, LoadProblem, Module, Options, Region,
    Simulator, Space, Swizzle, TensorMap,
};

/// A kernel that takes two buffers and a tensor map of the first, with 8 KiB of shared memory and
/// declared registers.
fn text(body: &str) -> String {
    let pieces = [
        ".version 8.4\n.target sm_90a\n.address_size 64\n",
        ".visible .entry k(.param .u64 p0, .param .u64 p1, .param .align 64 .b8 map[128])\n{\n",
        ".shared .align 1024 .b8 tile[8192];\n.shared .align 8 .b64 bar[2];\n",
        ".reg .pred %p<8>;\n.reg .b32 %r<64>;\n.reg .b64 %d<16>;\n.reg .f32 %f<64>;\n",
        "ld.param.u64 %d0, [p0];\nld.param.u64 %d1, [p1];\nmov.b64 %d2, map;\n",
        "mov.u32 %r0, %tid.x;\nsetp.eq.u32 %p0, %r0, 0;\n",
        body,
        "ret;\n}\n",
    ];
    pieces.concat()
}

/// A map of 16 rows of 64 elements of 16 bits.
fn map(address: u64) -> TensorMap {
    let (sizes, strides, tile) = (vec![64, 16], vec![128], vec![64, 16]);
    TensorMap { address, element_bytes: 2, sizes, strides, tile, swizzle: Swizzle::Bytes128 }
}

struct Ran {
    result: Result<Counts, LaunchError>,
    output: Vec<u8>,
}

/// The buffer that the tensor map is of.
#[derive(Clone, Copy, PartialEq)]
enum Mapped {
    Input,
    Output,
}

/// Runs a body in one block, with 2048 bytes of input, and 4096 of output that are zero.
fn run_mapped(body: &str, threads: u32, arrival: Arrival, mapped: Mapped) -> Ran {
    let module = Module::load(&text(body)).unwrap_or_else(|error| panic!("{error}"));
    let mut device = Simulator::new(Options { arrival, ..Options::default() });
    let from = device.allocate_from(&input()).unwrap();
    let to: Region = device.allocate_from(&[0; 4096]).unwrap();
    let mapped_region = if mapped == Mapped::Input { from } else { to };
    let launch = Launch::new("k", [1, 1, 1], [threads, 1, 1])
        .input(from)
        .output(to)
        .argument(Argument::Bytes(map(mapped_region.address).encode().unwrap().to_vec()));
    let result = device.launch(&module, &launch);
    Ran { result, output: device.bytes(to).unwrap() }
}

fn input() -> Vec<u8> {
    (0..2048u32).map(|i| (i % 251) as u8).collect()
}

fn run(body: &str, threads: u32, arrival: Arrival) -> Ran {
    run_mapped(body, threads, arrival, Mapped::Input)
}

/// The output of a body without fault, the same for both arrivals.
#[track_caller]
fn output(body: &str, threads: u32) -> Vec<u8> {
    let [early, late] = [Arrival::Early, Arrival::Late].map(|arrival| {
        let ran = run(body, threads, arrival);
        ran.result.unwrap_or_else(|error| panic!("{arrival:?}: {error}"));
        ran.output
    });
    assert_eq!(early, late);
    late
}

/// The fault of a body under late arrival.
#[track_caller]
fn fault(body: &str, threads: u32) -> Fault {
    match run(body, threads, Arrival::Late).result {
        Err(LaunchError::Fault(fault)) => *fault,
        other => panic!("no fault: {other:?}"),
    }
}

#[track_caller]
fn misused(body: &str, threads: u32, why: &str) {
    let fault = fault(body, threads);
    let text = fault.to_string();
    assert!(matches!(fault.cause, Cause::Mbarrier { .. } | Cause::Undefined { .. }), "{text}");
    assert!(text.contains(why), "{text}");
}

const INIT: &str =
    "@%p0 mbarrier.init.shared::cta.b64 [bar], 1;\n@%p0 fence.proxy.async.shared::cta;\nbar.sync 0;\n";
const WAIT: &str = "W0:\nmbarrier.try_wait.parity.shared::cta.b64 %p1, [bar], 0;\n@!%p1 bra W0;\n";
const EXPECT_TILE: &str = "@%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [bar], 2048;\n";
/// Word number `tid` of the tile goes to the output.
const STORE: &str = "shl.b32 %r1, %r0, 2;\nmov.u32 %r2, tile;\nadd.u32 %r2, %r2, %r1;\nld.shared.u32 %r3, [%r2];\n\
    cvt.u64.u32 %d3, %r1;\nadd.u64 %d4, %d1, %d3;\nst.global.u32 [%d4], %r3;\n";

#[test]
fn a_line_is_copied_and_waited_for() {
    let copy = "@%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [bar], 256;\n\
        @%p0 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [tile], [%d0], 256, [bar];\n";
    let output = output(&[INIT, copy, WAIT, STORE].concat(), 64);
    assert_eq!(output[..256], input()[..256]);
}

#[test]
fn a_tile_is_swizzled_and_ends_with_its_tensor() {
    // Columns 8 and on, rows -1 and on: the first row is zero, and so are the last 16 bytes of
    // each.
    let copy = "@%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [bar], 2048;\nmov.u32 %r4, 8;\nmov.u32 %r5, -1;\n\
        @%p0 cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [tile], [%d2, {%r4, %r5}], [bar];\n";
    let output = output(&[INIT, copy, WAIT, STORE].concat(), 512);
    for row in 0..16 {
        for at in 0..128 {
            let place = row * 128 + (at ^ (row % 8) << 4);
            let inside = row > 0 && at < 112;
            let expected = if inside { input()[(row - 1) * 128 + 16 + at] } else { 0 };
            assert_eq!(output[place], expected, "row {row}, byte {at}");
        }
    }
}

#[test]
fn a_tile_is_stored_as_far_as_its_tensor_goes() {
    // Word number `tid` of the tile is `tid`; the tile goes to columns 8 and on, rows -1 and on.
    let fill = "shl.b32 %r1, %r0, 2;\nmov.u32 %r2, tile;\nadd.u32 %r2, %r2, %r1;\nst.shared.u32 [%r2], %r0;\n\
        fence.proxy.async.shared::cta;\nbar.sync 0;\nmov.u32 %r4, 8;\nmov.u32 %r5, -1;\n";
    let store = "@%p0 cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%d2, {%r4, %r5}], [tile];\n\
        @%p0 cp.async.bulk.commit_group;\n";
    let read = "@%p0 cp.async.bulk.wait_group.read 0;\nbar.sync 0;\nst.shared.u32 [%r2], 0;\n";
    for arrival in [Arrival::Early, Arrival::Late] {
        let ran = run_mapped(&[fill, store, read].concat(), 512, arrival, Mapped::Output);
        ran.result.unwrap_or_else(|error| panic!("{error}"));
        for row in 0..15 {
            for at in 0..128 {
                // Row `row` of the tensor is row `row` + 1 of the tile, 16 bytes to the left of it.
                let place = (row + 1) * 128 + ((at.max(16) - 16) ^ (((row + 1) % 8) << 4));
                let word = (place / 4) as u32;
                let expected = if at < 16 { 0 } else { word.to_le_bytes()[place % 4] };
                assert_eq!(ran.output[row * 128 + at], expected, "row {row}, byte {at}, {arrival:?}");
            }
        }
        assert!(ran.output[15 * 128..].iter().all(|byte| *byte == 0));
    }
    // Without the wait, what is copied may be overwritten.
    let unwaited =
        [fill, store, "bar.sync 0;\nst.shared.u32 [%r2], 0;\n@%p0 cp.async.bulk.wait_group 0;\n"].concat();
    let result = run_mapped(&unwaited, 512, Arrival::Late, Mapped::Output).result;
    let Err(LaunchError::Fault(found)) = result else { panic!("{result:?}") };
    assert!(
        matches!(found.cause, Cause::Race { space: Space::Shared, .. })
            || found.to_string().contains("fence.proxy.async"),
        "{found}"
    );
}

#[test]
fn states_of_arrivals_and_counts() {
    // Phases of 33 arrivals: 32 by one thread and one by another, which drops out in the second.
    let body = "@%p0 mbarrier.init.shared.b64 [bar], 33;\nbar.sync 0;\nsetp.eq.u32 %p2, %r0, 32;\n\
        @%p2 mbarrier.arrive.shared.b64 %d5, [bar], 32;\n@%p0 mbarrier.arrive.shared.b64 %d5, [bar];\nbar.sync 0;\n\
        @%p0 mbarrier.test_wait.shared.b64 %p3, [bar], %d5;\n@%p0 selp.u32 %r3, 7, 0, %p3;\n\
        @%p0 st.global.u32 [%d1], %r3;\n\
        @%p2 mbarrier.arrive.shared.b64 _, [bar], 32;\n@%p0 mbarrier.arrive_drop.shared.b64 _, [bar];\nbar.sync 0;\n\
        @%p2 mbarrier.arrive.shared.b64 _, [bar], 32;\nbar.sync 0;\n\
        @%p2 mbarrier.test_wait.parity.shared.b64 %p3, [bar], 0;\n@%p2 selp.u32 %r3, 9, 0, %p3;\n\
        @%p2 st.global.u32 [%d1+4], %r3;\nbar.sync 0;\n@%p0 mbarrier.inval.shared.b64 [bar];\n";
    let output = output(body, 64);
    assert_eq!((output[0], output[4]), (7, 9));
}

#[test]
fn mbarriers_that_are_misused() {
    misused("mbarrier.arrive.shared.b64 _, [bar];\n", 32, "no `mbarrier.init` made one here");
    misused("@%p0 mbarrier.init.shared.b64 [bar], 0;\n", 32, "phases of 0 arrivals");
    let twice = "@%p0 mbarrier.init.shared.b64 [bar], 1;\n".repeat(2);
    misused(&twice, 32, "initialised for the second time");
    let many = [INIT, "mbarrier.arrive.shared.b64 _, [bar];\n"].concat();
    // The first lane ends the phase of one arrival, and each of the others one more; two in one is
    // too many.
    assert!(run(&many, 32, Arrival::Late).result.is_ok());
    let many = [INIT, "@%p0 mbarrier.arrive.shared.b64 _, [bar], 2;\n"].concat();
    misused(&many, 32, "2 arrivals, where its phase lacks 1 of 1");
    let found = fault(&[INIT, WAIT].concat(), 32);
    let Cause::Deadlock { waiting } = &found.cause else { panic!("{found}") };
    assert!(waiting.contains("warp 0 is at line"), "{waiting}");
    let lacking = "@%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [bar], 64;\n";
    let found = fault(&[INIT, lacking, WAIT].concat(), 32);
    assert!(found.to_string().contains("lacks 0 arrivals and 64 bytes"), "{found}");
    // Nothing orders the initialisation before the arrival of another warp.
    let unordered = "@%p0 mbarrier.init.shared.b64 [bar], 1;\nsetp.eq.u32 %p2, %r0, 32;\n\
        @%p2 mbarrier.arrive.shared.b64 _, [bar];\n";
    let found = fault(unordered, 64);
    assert!(matches!(found.cause, Cause::Race { space: Space::Shared, .. }), "{found}");
}

#[test]
fn bulk_copies_that_are_misused() {
    let copy = |operands: &str| {
        let copy = "@%p0 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes ";
        [INIT, copy, operands, ";\n"].concat()
    };
    misused(&copy("[tile], [%d0], 24, [bar]"), 32, "24 bytes, which is no multiple of 16");
    let found = fault(&copy("[tile], [%d0+8], 32, [bar]"), 32);
    assert!(matches!(found.cause, Cause::Misaligned { space: Space::Global, align: 16, .. }), "{found}");
    let found = fault(&[&copy("[tile], [%d0], 4096, [bar]"), WAIT].concat(), 32);
    // It is the copy that is at fault, although it is carried out later.
    assert!(matches!(found.cause, Cause::OutOfBounds { space: Space::Global, .. }), "{found}");
    assert!(found.place.instruction.contains("cp.async.bulk.shared"), "{found}");
    let found = fault(&copy("[tile], [%d0], 0xfffffff0, [bar]"), 32);
    assert!(matches!(found.cause, Cause::OutOfBounds { space: Space::Shared, .. }), "{found}");
    let far = "mov.u32 %r4, 0x7fffffff;\n@%p0 cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [tile], [%d2, {%r4, %r4}], [bar];\n";
    assert_eq!(output(&[INIT, EXPECT_TILE, far, WAIT, STORE].concat(), 64)[..256], [0; 256]);
    misused(&copy("[tile], [%d0], 32, [bar]"), 32, "ends while a bulk copy is on its way");
    let tile =
        "mov.u32 %r4, 0;\n@%p0 cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes ";
    misused(
        &[INIT, tile, "[tile], [%d0, {%r4, %r4}], [bar];\n"].concat(),
        32,
        "no tensor map of 2 dimensions",
    );
    let found = fault(&[INIT, tile, "[tile+64], [%d2, {%r4, %r4}], [bar];\n"].concat(), 32);
    assert!(matches!(found.cause, Cause::Misaligned { space: Space::Shared, align: 128, .. }), "{found}");
}

/// Two tiles of ones in bf16: 64 rows of 128 bytes for A, as many for B behind them, fenced; then
/// descriptors in %d5 and %d6, and D as 32 registers of zeros.
fn ones() -> String {
    let fill = "shl.b32 %r1, %r0, 6;\nmov.u32 %r2, tile;\nadd.u32 %r2, %r2, %r1;\nmov.u32 %r3, 0x3f803f80;\n";
    let store = (0..16).map(|i| format!("st.shared.u32 [%r2+{}], %r3;\n", 4 * i)).collect::<String>();
    let zeros = (0..32).map(|i| format!("mov.f32 %f{i}, 0f00000000;\n")).collect::<String>();
    let fence = "fence.proxy.async.shared::cta;\nbar.sync 0;\n";
    // A stride of 1024 bytes, rows of 128 bytes with their swizzle.
    let descriptors = "mov.u32 %r4, tile;\nshr.u32 %r4, %r4, 4;\ncvt.u64.u32 %d5, %r4;\n\
        or.b64 %d5, %d5, 0x4000004000010000;\nmov.b64 %d6, %d5;\n";
    [fill, &store, &zeros, fence, descriptors].concat()
}

fn d(count: usize) -> String {
    (0..count).map(|i| format!("%f{i}")).collect::<Vec<_>>().join(", ")
}

fn multiply(n: usize) -> String {
    format!(
        "wgmma.mma_async.sync.aligned.m64n{n}k16.f32.bf16.bf16 {{{}}}, %d5, %d6, 1, 1, 1, 0, 0;\n",
        d(n / 2)
    )
}

const FENCE: &str = "wgmma.fence.sync.aligned;\n";
const COMMIT: &str = "wgmma.commit_group.sync.aligned;\n";
const WAIT_ALL: &str = "wgmma.wait_group.sync.aligned 0;\n";
/// Thread number `tid` stores its first accumulator.
const RESULT: &str =
    "shl.b32 %r1, %r0, 2;\ncvt.u64.u32 %d3, %r1;\nadd.u64 %d4, %d1, %d3;\nst.global.f32 [%d4], %f0;\n";

fn first_result(output: &[u8]) -> f32 {
    f32::from_le_bytes([output[0], output[1], output[2], output[3]])
}

#[test]
fn products_of_a_group_add_up_and_groups_end_in_turn() {
    let once = output(&[&ones(), FENCE, &multiply(64), COMMIT, WAIT_ALL, RESULT].concat(), 128);
    assert_eq!(first_result(&once), 16.0);
    // Three products on the same registers, the last two in one group; the first may still be under
    // way.
    let more = [&multiply(8), COMMIT, &multiply(8), &multiply(8), COMMIT].concat();
    let wait = "wgmma.wait_group.sync.aligned 1;\n";
    let thrice = output(&[&ones(), FENCE, &more, wait, WAIT_ALL, RESULT].concat(), 128);
    assert_eq!(first_result(&thrice), 48.0);
    // scale-d of zero overwrites.
    let fresh = multiply(8).replace("%d6, 1, 1, 1", "%d6, 0, 1, -1");
    let fresh = output(&[&ones(), FENCE, &multiply(8), &fresh, COMMIT, WAIT_ALL, RESULT].concat(), 128);
    assert_eq!(first_result(&fresh), -16.0);
}

#[test]
fn rows_of_a_may_be_in_registers() {
    let multiply = multiply(8).replace("%d5,", "{%r3, %r3, %r3, %r3},");
    let body = [&ones(), FENCE, &multiply, COMMIT, WAIT_ALL, RESULT].concat();
    assert_eq!(first_result(&output(&body, 128)), 16.0);
    let changed = [&ones(), FENCE, &multiply, COMMIT, "mov.u32 %r3, 0;\n", WAIT_ALL, RESULT].concat();
    misused(&changed, 128, "a register of A was written");
}

#[test]
fn results_are_f16_two_in_a_register() {
    let ones = ones()
        .replace("0x3f803f80", "0x3c003c00")
        .replace("mov.f32 %f0", "mov.b32 %r10, 0;\nmov.b32 %r11, 0;\nmov.f32 %f0");
    let multiply =
        "wgmma.mma_async.sync.aligned.m64n8k16.f16.f16.f16 {%r10, %r11}, %d5, %d6, 1, 1, 1, 0, 0;\n";
    let result = RESULT.replace("st.global.f32 [%d4], %f0", "st.global.b32 [%d4], %r10");
    let output = output(&[&ones, FENCE, multiply, COMMIT, WAIT_ALL, &result].concat(), 128);
    assert_eq!(output[..4], [0x00, 0x4c, 0x00, 0x4c]);
}

#[test]
fn products_that_are_misused() {
    let with = |parts: &[&str], threads| {
        let all: String = [&[ones().as_str()], parts].concat().concat();
        fault(&all, threads)
    };
    let multiply = multiply(8);
    let found = with(&[FENCE, &multiply, COMMIT, RESULT, WAIT_ALL], 128);
    assert!(matches!(&found.cause, Cause::RegisterInFlight { register } if register == "%f0"), "{found}");
    assert!(found.place.instruction.contains("st.global.f32"), "{found}");
    let told = |found: &Fault, why: &str| assert!(found.to_string().contains(why), "{found}");
    let written = "mov.f32 %f1, 0f00000000;\n";
    told(&with(&[FENCE, &multiply, COMMIT, written, WAIT_ALL], 128), "a register of D was written");
    told(&with(&[FENCE, "mov.f32 %f1, 0f3f800000;\n", &multiply], 128), "after the last `wgmma.fence`");
    told(&with(&[&multiply], 128), "no `wgmma.fence` was executed");
    told(&with(&[FENCE, &multiply, COMMIT], 128), "ends while a wgmma product is on its way");
    told(&with(&[FENCE, &multiply, COMMIT, WAIT_ALL], 96), "group of four is not complete");
    // One warp asks for another product than the others, or for none.
    let other = "setp.lt.u32 %p3, %r0, 32;\n@%p3 add.u64 %d6, %d6, 2;\n";
    told(&with(&[other, FENCE, &multiply, COMMIT, WAIT_ALL], 128), "ask for different products");
    let without = ["setp.lt.u32 %p3, %r0, 32;\n@%p3 bra L;\n", FENCE, &multiply, COMMIT, WAIT_ALL, "L:\n"];
    told(&with(&without, 128), "not asked for by all four warps");
    // Lanes that are not there.
    let some = ["setp.lt.u32 %p3, %r0, 7;\n@%p3 bra L;\n", FENCE, "L:\n"];
    assert!(matches!(with(&some, 128).cause, Cause::AbsentLanes { absent: 0x7f, .. }));
    // Stores that the products need not see.
    let unfenced = ones().replace("fence.proxy.async.shared::cta;\n", "");
    let found = fault(&[&unfenced, FENCE, &multiply, COMMIT, WAIT_ALL].concat(), 128);
    told(&found, "executed no `fence.proxy.async` since");
    // A store to an operand before the product is over.
    let store = "@%p0 st.shared.u32 [tile], %r3;\n";
    let found = with(&[FENCE, &multiply, COMMIT, store, WAIT_ALL], 128);
    assert!(
        matches!(found.cause, Cause::Race { space: Space::Shared, .. })
            || found.to_string().contains("fence.proxy"),
        "{found}"
    );
}

#[test]
fn opcodes_that_are_not_simulated_are_named() {
    for (opcode, because) in [
        ("tcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32 [bar], 32;", ""),
        ("mma.sp.sync.aligned.m16n8k32.row.col.f32.f16.f16.f32 {%f0}, {%r0}, {%r1}, {%f0}, %r2, 0;", "is"),
        ("mma.sync.aligned.m16n8k64.row.col.s32.s4.s4.s32 {%r0}, {%r0}, {%r1}, {%r0};", "types of A and B"),
        (
            "mma.sync.aligned.m16n8k16.row.col.f16.bf16.bf16.f16 {%r0}, {%r0}, {%r1}, {%r0};",
            "no such combination",
        ),
        (
            "mma.sync.aligned.m16n8k16.row.col.f32.f16.bf16.f32 {%r0}, {%r0}, {%r1}, {%r0};",
            "no such combination",
        ),
        ("wgmma.mma_async.sync.aligned.m64n12k16.f32.bf16.bf16 {%f0}, %d5, %d6, 1, 1, 1, 0, 0;", "N from 8"),
        ("wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%f0}, %d5, %d6, 1, 0, 1, 0, 0;", "by 1 or -1"),
        ("wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%f0}, %d5, %d6, 1, 1, 1, 0, 2;", "by 0 or 1"),
        ("ldmatrix.sync.aligned.m16n16.x1.trans.shared.b8 {%r0, %r1}, [tile];", "m16n16"),
        ("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%d1], [tile], 16;", ""),
        ("mbarrier.pending_count.b64 %r0, %d5;", "pending_count"),
    ] {
        let module = text(&format!("{opcode}\n"));
        let error = Module::load(&module).unwrap_err();
        let LoadProblem::UnknownOpcode { opcode: named, .. } = &error.problem else { panic!("{error}") };
        assert!(opcode.starts_with(named.as_str()), "{error}");
        assert!(error.to_string().contains(because), "{error}");
        assert_eq!(module.lines().nth(error.line as usize - 1), Some(opcode));
    }
}
