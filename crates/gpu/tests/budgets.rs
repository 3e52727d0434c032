//! What kernels may ask of memory, counted on a simulated GPU.

mod common;

use std::process::ExitCode;
use std::sync::Arc;

use halfstep_gpu::{Architecture, GpuEngine};
use halfstep_graph::engine::{Engine, HostSlice};
use halfstep_graph::precision::{Override, Policy, Rule, assign};
use halfstep_graph::{ConvGeometry, Graph, GraphError, Op, Shape, ValueId, ValueType, fuse, plan};
use halfstep_ptx::{Counts, Options};

/// What the launches of a program of these inputs did, by the names of their kernels.
fn launches(
    policy: &str,
    shapes: &[Shape],
    build: impl Fn(&mut Graph, &[ValueId]) -> Result<Vec<ValueId>, GraphError>,
) -> Vec<(String, Counts)> {
    let mut graph = Graph::new();
    let names: Vec<String> = (0..shapes.len()).map(|i| format!("x{i}")).collect();
    let input = |(name, shape): (&String, &Shape)| graph.input(name, ValueType::f32(shape.clone()));
    let inputs: Vec<ValueId> = names.iter().zip(shapes).map(input).collect();
    for (i, result) in build(&mut graph, &inputs).unwrap().into_iter().enumerate() {
        graph.add_output(&i.to_string(), result);
    }
    let mut policy = Policy::named(policy).unwrap();
    let mut architecture = Architecture::MINIMUM;
    if policy.narrow.is_some() {
        // A program of one product would keep it in 16 bits as its last.
        policy.overrides.push(Override { pattern: "*".into(), rule: Rule::Low });
        architecture = Architecture::of_device(9, 0);
    }
    let (graph, _) = assign(&graph, &policy);
    let device = Arc::new(common::device(architecture, Options::default()));
    let engine = GpuEngine::new(device.clone());
    let planned = plan(fuse(&graph), engine.target());
    let mut state = engine.new_state(&[]).unwrap();
    let mut program = engine.compile(&planned, &state).unwrap();
    let data: Vec<Vec<f32>> = shapes.iter().map(|shape| vec![0.5; shape.iter().product()]).collect();
    let inputs = names.iter().map(String::as_str).zip(data.iter().map(|x| HostSlice::F32(x)));
    program.run(&mut state, &inputs.collect::<Vec<_>>()).unwrap();
    device.take_launches()
}

/// The counts of the one launch of this kernel.
fn one(launches: &[(String, Counts)], kernel: &str) -> Counts {
    let [(_, counts)] = &launches.iter().filter(|(name, _)| name == kernel).collect::<Vec<_>>()[..] else {
        panic!("{launches:?}")
    };
    counts.clone()
}

/// Bytes of sums of parts of k, where k is cut: all that is written besides `results` numbers of at
/// least `bytes` each. The last blocks read each of them once.
fn sums_of_parts(counts: &Counts, results: usize, bytes: usize) -> f64 {
    counts.bytes_stored as f64 - (results * bytes) as f64
}

/// No two lanes meet in a bank; of each sector that is asked for all bytes are; and operands are
/// read once for each tile.
fn within_budget(policy: &str, sizes: [usize; 3], tile: [usize; 2], element_bytes: usize) {
    for (ta, tb) in [(false, false), (true, false), (false, true), (true, true)] {
        let [m, n, k] = sizes;
        let (a, b) = (if ta { [k, m] } else { [m, k] }, if tb { [n, k] } else { [k, n] });
        let launches =
            launches(policy, &[a.into(), b.into()], |g, x| Ok(vec![g.matmul(x[0], x[1], ta, tb)?]));
        let counts = one(&launches, "matmul");
        let at = format!("{policy} {sizes:?} {ta} {tb}: {counts:?}");
        let tiles = m.div_ceil(tile[0]) * n.div_ceil(tile[1]);
        // Sums of codes are multiplied by an f32 factor, which is read for each 4 of them.
        let factors = if element_bytes == 1 { m * n } else { 0 };
        let operands = (tiles * (tile[0] + tile[1]) * k * element_bytes + factors) as f64;
        assert_eq!(counts.bank_conflicts, 0, "{at}");
        // A thread reads 8 neighbours of f32, which are split, in two accesses to one sector.
        let twice = if policy == "bf16x6" { 2.0 } else { 1.0 };
        let wanted = twice * counts.bytes_loaded as f64 / 32.0;
        assert!(counts.sectors_loaded as f64 <= 1.05 * wanted, "{at}");
        assert!(counts.sectors_stored as f64 <= 1.05 * counts.bytes_stored as f64 / 32.0, "{at}");
        let parts = sums_of_parts(&counts, m * n, element_bytes.max(2));
        assert!(counts.bytes_loaded as f64 <= 1.05 * operands + parts, "{at}");
    }
}

/// The same of a convolution and its gradients; what lies beyond the edges is not read at all.
fn convolutions_within_budget() {
    let (images, size, channels) = (4, 16, 64);
    let geometry = ConvGeometry { stride: 1, pad: 1 };
    let image: Shape = [images, size, size, channels].into();
    let shapes = [image.clone(), [channels, 3, 3, channels].into(), image];
    let launches = launches("bf16", &shapes, |g, x| {
        let y = g.conv2d(x[0], x[1], geometry)?;
        let dx = g.push(Op::Conv2dGradInput { geometry, size: (size, size) }, &[x[2], x[1]])?;
        let dw = g.push(Op::Conv2dGradWeight { geometry, window: (3, 3) }, &[x[0], x[2]])?;
        Ok(vec![y, dx[0], dw[0]])
    });
    for kernel in ["conv2d", "conv2d_grad_input", "conv2d_grad_weight"] {
        let counts = one(&launches, kernel);
        // The smallest tiles are 64 by 32.
        let products = images * size * size * channels * 9 * channels;
        let operands = (2 * products * (64 + 32) / (64 * 32)) as f64;
        assert_eq!(counts.bank_conflicts, 0, "{kernel}: {counts:?}");
        assert!(
            counts.sectors_loaded as f64 <= 1.05 * counts.bytes_loaded as f64 / 32.0,
            "{kernel}: {counts:?}"
        );
        assert!(
            counts.sectors_stored as f64 <= 1.05 * counts.bytes_stored as f64 / 32.0,
            "{kernel}: {counts:?}"
        );
        let results =
            if kernel == "conv2d_grad_weight" { 9 * channels } else { images * size * size } * channels;
        let parts = sums_of_parts(&counts, results, 2);
        assert!(counts.bytes_loaded as f64 <= 1.05 * operands + parts, "{kernel}: {counts:?}");
    }
}

fn main() -> ExitCode {
    let cases: [(&str, [usize; 3], [usize; 2], usize); 11] = [
        ("bf16", [128, 192, 64], [64, 32], 2),
        ("bf16", [1024, 768, 64], [64, 64], 2),
        ("bf16", [1024, 1024, 64], [128, 64], 2),
        ("bf16", [2048, 1024, 64], [128, 128], 2),
        ("fp16", [128, 64, 96], [64, 32], 2),
        ("tf32", [128, 192, 64], [64, 32], 4),
        ("tf32", [2048, 1024, 32], [64, 128], 4),
        ("fp8-current", [128, 192, 128], [64, 64], 1),
        ("fp8-current", [2048, 1024, 128], [64, 128], 1),
        ("bf16x6", [64, 128, 64], [64, 64], 4),
        ("fp32", [128, 64, 32], [64, 64], 4),
    ];
    type Case = (&'static str, [usize; 3], [usize; 2], usize);
    let test = |(policy, sizes, tile, bytes): Case| {
        let name = format!("{policy}::{sizes:?}");
        let test: Box<dyn FnOnce() + Send> = Box::new(move || within_budget(policy, sizes, tile, bytes));
        (name, test)
    };
    // fp16 is the code of bf16 for another type.
    let chosen = cases.into_iter().filter(|(policy, ..)| common::thorough() || *policy != "fp16");
    let mut tests: Vec<_> = chosen.map(test).collect();
    tests.push(("bf16::convolutions".into(), Box::new(convolutions_within_budget)));
    common::run(tests)
}
