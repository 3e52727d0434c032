//! Faults planted in sources: each is found, with its kind and the instruction at fault.

use halfstep_ptx::formats::Format;
use halfstep_ptx::{Access, Cause, Fault, Space, Swizzle};

use crate::harness::{Arg, Launch, Map, Schedule, schedules};
use crate::numbers::{Numbers, bytes_of};

/// The first fault of each schedule.
fn faults(launch: &Launch) -> Vec<(Schedule, Option<Fault>)> {
    schedules().into_iter().map(|schedule| (schedule, launch.run(schedule).err())).collect()
}

/// Every schedule finds the fault, by an instruction that begins as `instruction` says.
#[track_caller]
fn found(launch: &Launch, instruction: &str, is: impl Fn(&Cause) -> bool) {
    for (schedule, fault) in faults(launch) {
        let fault = fault.unwrap_or_else(|| panic!("{} under {schedule:?}: nothing found", launch.file()));
        assert!(is(&fault.cause), "{} under {schedule:?}: {fault}", launch.file());
        let at = &fault.place.instruction;
        assert!(at.contains(instruction), "{} under {schedule:?}: {fault}", launch.file());
        assert!(fault.place.line > 0 && fault.to_string().contains(at));
    }
}

/// Some schedule finds the fault, and none another one.
#[track_caller]
fn found_by_some(launch: &Launch, is: impl Fn(&Cause) -> bool) {
    let faults: Vec<_> = faults(launch).into_iter().filter_map(|(_, fault)| fault).collect();
    assert!(!faults.is_empty(), "{}: nothing found", launch.file());
    for fault in faults {
        assert!(is(&fault.cause), "{}: {fault}", launch.file());
    }
}

fn race(cause: &Cause, expected: Space) -> bool {
    matches!(cause, Cause::Race { space, .. } if *space == expected)
}

pub fn softmax(file: &str) -> Launch {
    let (codes, _) = Numbers(11).codes(Format::Bf16, 600, 4.0);
    Launch::new(file, "softmax", [2, 1, 1], 128).with([
        Arg::In(bytes_of(&codes, Format::Bf16)),
        Arg::Out(2400),
        Arg::S32(300),
    ])
}

#[test]
fn a_missing_barrier() {
    // The writer may come first, and then the reader is at fault, or the other way round.
    let launch = softmax("softmax.no_barrier");
    found_by_some(&launch, |cause| match cause {
        Cause::NeverWritten { space, .. } => *space == Space::Shared,
        cause => race(cause, Space::Shared),
    });
    let all = faults(&launch);
    assert!(all.iter().all(|(_, fault)| fault.is_some()));
}

#[test]
fn a_shuffle_with_absent_lanes() {
    found(&softmax("softmax.absent_lanes"), "shfl.sync", |cause| {
        matches!(cause, Cause::AbsentLanes { absent: 0xffff_0000, .. })
    });
}

#[test]
fn shared_memory_that_was_never_written() {
    found(&softmax("softmax.uninitialised"), "ld.shared", |cause| {
        matches!(cause, Cause::NeverWritten { space: Space::Shared, .. })
    });
}

#[test]
fn a_barrier_in_divergent_code() {
    found(&softmax("softmax.divergent_barrier"), "bar", |cause| {
        matches!(cause, Cause::DivergentBarrier { .. })
    });
}

#[test]
fn a_vector_access_that_is_not_aligned() {
    let (columns, mut numbers) = (77, Numbers(12));
    let mut row = |count: usize| Arg::In(bytes_of(&numbers.codes(Format::F32, count, 1.0).0, Format::F32));
    let launch = Launch::new("layer_norm.misaligned", "layer_norm", [1, 1, 1], 128)
        .with([row(4 * columns), row(columns), row(columns), Arg::Out(4 * columns * 4)])
        .with([Arg::S32(4), Arg::S32(columns as i32), Arg::F32(1e-5)]);
    found(&launch, "v4", |cause| {
        matches!(cause, Cause::Misaligned { space: Space::Global, access: Access::Read, align: 16, .. })
    });
}

#[test]
fn one_element_too_many() {
    let (codes, _) = Numbers(13).codes(Format::F32, 100, 1.0);
    let launch = Launch::new("gelu.one_too_many", "gelu", [1, 1, 1], 96).with([
        Arg::In(bytes_of(&codes, Format::F32)),
        Arg::Out(400),
        Arg::S32(100),
    ]);
    found(&launch, "ld.global", |cause| {
        matches!(cause, Cause::OutOfBounds { space: Space::Global, access: Access::Read, bytes: 4, .. })
    });
}

pub fn gemm_simt(file: &str) -> Launch {
    let [m, n, k] = [33, 40, 50];
    let mut numbers = Numbers(14);
    let mut matrix = |count: usize| Arg::In(bytes_of(&numbers.codes(Format::F32, count, 1.0).0, Format::F32));
    Launch::new(file, "gemm_simt", [2, 2, 1], 64)
        .with([matrix(m * k), matrix(k * n), Arg::Out(m * n * 4)])
        .with([m, n, k].map(|size| Arg::S32(size as i32)))
}

#[test]
fn an_edge_without_guard() {
    found(&gemm_simt("gemm_simt.unguarded"), "ld.global", |cause| {
        matches!(cause, Cause::OutOfBounds { space: Space::Global, access: Access::Read, .. })
    });
}

#[test]
fn a_tile_that_is_overwritten_while_it_is_read() {
    found(&gemm_simt("gemm_simt.no_second_barrier"), "shared", |cause| race(cause, Space::Shared));
}

pub fn gemm_mma(file: &str) -> Launch {
    let [m, n, row] = [70, 65, 256];
    let mut numbers = Numbers(15);
    let mut matrix =
        |rows: usize| Arg::In(bytes_of(&numbers.codes(Format::Bf16, rows * row / 2, 1.0).0, Format::Bf16));
    Launch::new(file, "gemm_mma", [2, 2, 1], 128)
        .dynamic(2 * 3 * 64 * 64)
        .with([matrix(m), matrix(n), Arg::Out(m * n * 4)])
        .with([m, n, row].map(|size| Arg::S32(size as i32)))
}

#[test]
fn an_asynchronous_copy_beyond_the_edge() {
    found(&gemm_mma("gemm_mma.unguarded"), "cp.async", |cause| {
        matches!(cause, Cause::OutOfBounds { space: Space::Global, .. })
    });
}

#[test]
fn asynchronous_copies_that_are_not_waited_for() {
    for file in ["gemm_mma.no_wait", "gemm_mma.short_wait"] {
        let launch = gemm_mma(file);
        found_by_some(&launch, |cause| match cause {
            Cause::NeverWritten { space, .. } => *space == Space::Shared,
            cause => race(cause, Space::Shared),
        });
        let late = faults(&launch).into_iter().filter(|(schedule, _)| schedule.late);
        assert!(late.into_iter().all(|(_, fault)| fault.is_some()), "{file}");
    }
}

#[test]
fn a_pipeline_without_its_barrier() {
    found_by_some(&gemm_mma("gemm_mma.no_barrier"), |cause| match cause {
        Cause::NeverWritten { space, .. } => *space == Space::Shared,
        cause => race(cause, Space::Shared),
    });
}

pub fn histogram(file: &str) -> Launch {
    let x: Vec<u8> = (0..600).map(|i| (i * 7 % 13) as u8).collect();
    Launch::new(file, "histogram", [2, 1, 1], 128).with([
        Arg::In(x),
        Arg::InOut(vec![0; 1024]),
        Arg::S32(600),
    ])
}

#[test]
fn counting_without_atomics() {
    found(&histogram("histogram.plain_shared"), "shared", |cause| race(cause, Space::Shared));
    found(&histogram("histogram.plain_global"), "global", |cause| race(cause, Space::Global));
}

pub fn split_k(file: &str) -> Launch {
    let (codes, _) = Numbers(16).codes(Format::F32, 2 * 300, 1.0);
    Launch::new(file, "split_k", [3, 2, 1], 64).with([
        Arg::In(bytes_of(&codes, Format::F32)),
        Arg::Scratch(2 * 3 * 4),
        Arg::InOut(vec![0; 8]),
        Arg::InOut(vec![0; 8]),
        Arg::S32(300),
    ])
}

#[test]
fn a_race_between_blocks() {
    found(&split_k("split_k.race_between_blocks"), "global", |cause| race(cause, Space::Global));
}

#[test]
fn a_counter_without_its_fence() {
    found(&split_k("split_k.no_fence"), "global", |cause| race(cause, Space::Global));
}

pub fn bulk_copy(file: &str) -> Launch {
    let (codes, _) = Numbers(17).codes(Format::F32, 512, 1.0);
    Launch::new(file, "bulk_copy", [2, 1, 1], 64)
        .with([Arg::In(bytes_of(&codes, Format::F32)), Arg::Out(2048)])
}

#[test]
fn a_bulk_store_without_its_fence() {
    found(
        &bulk_copy("bulk_copy.no_proxy_fence"),
        "cp.async.bulk.global",
        |cause| matches!(cause, Cause::Undefined { what } if what.contains("fence.proxy.async")),
    );
}

#[test]
fn a_bulk_store_that_is_not_waited_for() {
    found(
        &bulk_copy("bulk_copy.no_wait"),
        "",
        |cause| matches!(cause, Cause::Undefined { what } if what.contains("on its way")),
    );
}

#[test]
fn shared_memory_overwritten_under_a_bulk_store() {
    found(&bulk_copy("bulk_copy.overwrite"), "", |cause| race(cause, Space::Shared));
}

pub fn gemm_wgmma(file: &str) -> Launch {
    let [m, n, k] = [64, 72, 320];
    let mut numbers = Numbers(18);
    let mut matrix = |buffer, rows: usize| {
        let map = Map {
            buffer,
            element_bytes: 2,
            sizes: vec![k as u64, rows as u64],
            strides: vec![2 * k as u64],
            tile: vec![64, 64],
            swizzle: Swizzle::Bytes128,
        };
        Arg::Mapped(map, bytes_of(&numbers.codes(Format::Bf16, rows * k, 1.0).0, Format::Bf16))
    };
    Launch::new(file, "gemm_wgmma", [2, 1, 1], 160)
        .with([matrix(0, m), matrix(1, n), Arg::Out(m * n * 4)])
        .with([m, n, k].map(|size| Arg::S32(size as i32)))
}

#[test]
fn fewer_bytes_expected_than_copied() {
    found(
        &gemm_wgmma("gemm_wgmma.wrong_bytes"),
        "cp.async.bulk.tensor",
        |cause| matches!(cause, Cause::Mbarrier { why, .. } if why.contains("128 bytes more")),
    );
}

#[test]
fn an_mbarrier_that_is_not_waited_for() {
    let unread = |cause: &Cause| match cause {
        Cause::NeverWritten { space, .. } => *space == Space::Shared,
        cause => race(cause, Space::Shared),
    };
    found(&gemm_wgmma("gemm_wgmma.no_full_wait"), "wgmma", unread);
    // Who waits for the wrong phase goes on too early, or never does.
    found(&gemm_wgmma("gemm_wgmma.wrong_phase"), "", |cause| {
        unread(cause) || matches!(cause, Cause::Deadlock { .. })
    });
    // Who does not wait overwrites a tile, or adds arrivals to a phase that has not ended.
    found_by_some(&gemm_wgmma("gemm_wgmma.no_empty_wait"), |cause| {
        unread(cause) || matches!(cause, Cause::Deadlock { .. } | Cause::Mbarrier { .. })
    });
}

#[test]
fn a_stage_given_back_before_its_products_are_over() {
    found_by_some(&gemm_wgmma("gemm_wgmma.early_release"), |cause| race(cause, Space::Shared));
}

#[test]
fn an_mbarrier_that_copies_cannot_see() {
    found(
        &gemm_wgmma("gemm_wgmma.no_proxy_fence"),
        "cp.async.bulk.tensor",
        |cause| matches!(cause, Cause::Undefined { what } if what.contains("fence.proxy.async")),
    );
}

#[test]
fn products_without_their_fence() {
    found(
        &gemm_wgmma("gemm_wgmma.no_wgmma_fence"),
        "wgmma.mma_async",
        |cause| matches!(cause, Cause::Undefined { what } if what.contains("wgmma.fence")),
    );
}

#[test]
fn results_that_are_not_waited_for() {
    found(&gemm_wgmma("gemm_wgmma.no_wgmma_wait"), "", |cause| {
        matches!(cause, Cause::RegisterInFlight { .. } | Cause::Race { .. })
            || matches!(cause, Cause::Undefined { what } if what.contains("on its way"))
    });
}
