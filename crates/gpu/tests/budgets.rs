//! What kernels may ask of memory, counted on a simulated GPU.

mod common;

use std::process::ExitCode;
use std::sync::Arc;

use halfstep_gpu::{Architecture, GpuEngine};
use halfstep_graph::engine::{Engine, HostSlice};
use halfstep_graph::precision::{Policy, assign};
use halfstep_graph::{Graph, ValueType, fuse, plan};
use halfstep_ptx::{Counts, Options};

/// The counts of the one product in a program of `a` times `b`, both stored as the flags say.
fn product(policy: &str, [m, n, k]: [usize; 3], ta: bool, tb: bool) -> Counts {
    let mut graph = Graph::new();
    let (a, b) = (if ta { [k, m] } else { [m, k] }, if tb { [n, k] } else { [k, n] });
    let x = graph.input("x", ValueType::f32(a.into()));
    let y = graph.input("y", ValueType::f32(b.into()));
    let product = graph.matmul(x, y, ta, tb).unwrap();
    graph.add_output("product", product);
    let (graph, _) = assign(&graph, &Policy::named(policy).unwrap());
    let device = Arc::new(common::device(Architecture::MINIMUM, Options::default()));
    let engine = GpuEngine::new(device.clone());
    let planned = plan(fuse(&graph), engine.target());
    let mut state = engine.new_state(&[]).unwrap();
    let mut program = engine.compile(&planned, &state).unwrap();
    let (x, y) = (vec![1.0; m * k], vec![0.5; n * k]);
    program.run(&mut state, &[("x", HostSlice::F32(&x)), ("y", HostSlice::F32(&y))]).unwrap();
    assert_eq!(program.read("product").unwrap().f32(), vec![0.5 * k as f32; m * n]);
    let launches = device.take_launches();
    let [(_, counts)] = &launches.iter().filter(|(name, _)| name == "matmul").collect::<Vec<_>>()[..] else {
        panic!("{launches:?}")
    };
    counts.clone()
}

/// No two lanes meet in a bank; of each sector that is asked for all bytes are; and operands are
/// read once for each tile.
fn within_budget(policy: &str, sizes: [usize; 3], tile: usize, element_bytes: usize) {
    for (ta, tb) in [(false, false), (true, false), (false, true), (true, true)] {
        let counts = product(policy, sizes, ta, tb);
        let at = format!("{policy} {sizes:?} {ta} {tb}: {counts:?}");
        let [m, n, k] = sizes;
        let tiles = m.div_ceil(tile) * n.div_ceil(tile);
        let operands = (tiles * 2 * tile * k * element_bytes) as f64;
        assert_eq!(counts.bank_conflicts, 0, "{at}");
        // A thread reads 8 neighbours of f32, which are split, in two accesses to one sector.
        let twice = if policy == "bf16x6" { 2.0 } else { 1.0 };
        let wanted = twice * counts.bytes_loaded as f64 / 32.0;
        assert!(counts.sectors_loaded as f64 <= 1.05 * wanted, "{at}");
        assert!(counts.sectors_stored as f64 <= 1.05 * counts.bytes_stored as f64 / 32.0, "{at}");
        assert!(counts.bytes_loaded as f64 <= 1.05 * operands, "{at}");
    }
}

fn main() -> ExitCode {
    let cases: [(&str, [usize; 3], usize, usize); 5] = [
        ("bf16", [128, 192, 64], 64, 2),
        ("bf16", [1024, 1024, 64], 128, 2),
        ("fp16", [128, 64, 96], 64, 2),
        ("bf16x6", [64, 128, 64], 64, 4),
        ("fp32", [128, 64, 32], 64, 4),
    ];
    let test = |(policy, sizes, tile, bytes): (&'static str, [usize; 3], usize, usize)| {
        let name = format!("{policy}::{sizes:?}");
        let test: Box<dyn FnOnce() + Send> = Box::new(move || within_budget(policy, sizes, tile, bytes));
        (name, test)
    };
    common::run(cases.into_iter().map(test).collect())
}
