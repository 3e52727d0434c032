//! Launches that stand for several steps, and what rows and columns ask of memory, on a simulated
//! GPU that checks every access.

mod common;

use std::process::ExitCode;
use std::sync::Arc;

use halfstep_gpu::command::Action;
use halfstep_gpu::device::Device;
use halfstep_gpu::{Architecture, GpuEngine, SimulatedDevice};
use halfstep_graph::engine::{Engine, EngineError, HostSlice};
use halfstep_graph::{
    BatchNormPart, DType, Graph, GraphError, Init, Op, SlotKind, ValueId, ValueType, fuse, plan,
};
use halfstep_ptx::Options;

use common::edited::Edited;

/// A simulated GPU to which the launches of several sets of arguments declare one span less.
fn silent(reads: bool) -> Arc<dyn Device> {
    Edited::new(&Arc::new(simulated()), move |commands| {
        for command in &mut commands.list {
            if let Action::Launch(launch) = &mut command.action
                && launch.kernel.entry.starts_with("chain_")
            {
                if reads {
                    launch.reads.pop()
                } else {
                    launch.writes.pop()
                };
            }
        }
    })
}

/// Weights that are cast, each of which a product reads: of other sizes, two of them too large for
/// one block.
fn casts() -> Graph {
    let mut g = Graph::new();
    for (i, rows) in [3, 700, 40, 1100].into_iter().enumerate() {
        let slot = g
            .add_slot(
                &format!("w{i}"),
                ValueType::f32([rows, 8].into()),
                SlotKind::Statistic,
                Init::Constant(0.0),
            )
            .unwrap();
        let weight = g.read(slot);
        let low = g.cast(weight, DType::Bf16).unwrap();
        let square = g.matmul(low, low, true, false).unwrap();
        g.add_output(&format!("low{i}"), low);
        g.add_output(&format!("square{i}"), square);
    }
    g
}

/// The casts of the program on a device: their bits.
fn run(device: Arc<dyn Device>) -> Result<Vec<Vec<u32>>, EngineError> {
    let engine = GpuEngine::new(device);
    let planned = plan(fuse(&casts()), engine.target());
    let mut state = engine.new_state(&planned.graph.slots)?;
    for slot in &planned.graph.slots {
        let values: Vec<f32> = (0..slot.ty.shape.count()).map(|i| (i as f32 + 0.3) / 7.0).collect();
        state.upload(&slot.name, HostSlice::F32(&values))?;
    }
    let mut program = engine.compile(&planned, &state)?;
    program.run(&mut state, &[])?;
    let bits = |i| Ok(program.read(&format!("low{i}"))?.f32().iter().map(|x| x.to_bits()).collect());
    (0..4).map(bits).collect()
}

fn simulated() -> SimulatedDevice {
    common::device(Architecture::MINIMUM, Options::default())
}

fn casts_are_one_launch() {
    let device = Arc::new(simulated());
    let found = run(device.clone()).unwrap();
    let launches = device.take_launches();
    let chains = launches.iter().filter(|(name, _)| name.starts_with("chain_")).count();
    assert_eq!(chains, 1, "{launches:?}");
    for low in found {
        for (i, bits) in low.into_iter().enumerate() {
            let x = ((i as f32 + 0.3) / 7.0).to_bits();
            // To nearest even: no number here is a tie.
            assert_eq!(bits, (x + 0x8000) & 0xffff_0000, "element {i}");
        }
    }
}

fn what_is_not_declared_is_found() {
    for reads in [true, false] {
        let failed = run(silent(reads)).unwrap_err().to_string();
        assert!(failed.contains("chain_"), "{failed}");
    }
}

/// Of each sector that kernels of rows and columns ask for, they use all bytes.
fn rows_and_columns_ask_for_whole_sectors(dtype: DType) {
    let mut g = Graph::new();
    let input =
        |g: &mut Graph, name: &str, shape: &[usize]| g.input(name, ValueType::f32(shape.to_vec().into()));
    let (x, dy) = (input(&mut g, "x", &[512, 128]), input(&mut g, "dy", &[512, 128]));
    let (gamma, beta) = (input(&mut g, "gamma", &[128]), input(&mut g, "beta", &[128]));
    let build = |g: &mut Graph| -> Result<Vec<ValueId>, GraphError> {
        let (x, dy) = (g.cast(x, dtype)?, g.cast(dy, dtype)?);
        let mut results = vec![g.sum(x, &[0])?, g.softmax(x)?, g.max(x, &[0, 1])?];
        let mean = g.push(Op::BatchNormPart(BatchNormPart::Mean), &[x])?[0];
        let var = g.push(Op::BatchNormPart(BatchNormPart::Variance), &[x, mean])?[0];
        let apply = Op::BatchNormPart(BatchNormPart::Apply { eps: 1e-5 });
        let [y, rstd] = g.push(apply, &[x, gamma, beta, mean, var])?[..] else { unreachable!() };
        results.push(g.relu(y)?);
        let sums = g.push(Op::BatchNormPart(BatchNormPart::Sums), &[x, mean, rstd, dy])?;
        let dx = Op::BatchNormPart(BatchNormPart::Dx { rows: 512 });
        results.extend(g.push(dx, &[x, gamma, mean, rstd, dy, sums[0], sums[1]])?);
        let norm = g.push(Op::LayerNorm { eps: 1e-5 }, &[x, gamma, beta])?;
        results.push(norm[0]);
        results.extend(g.push(Op::LayerNormGrad, &[x, gamma, norm[1], norm[2], dy])?);
        Ok(results)
    };
    for (i, result) in build(&mut g).unwrap().into_iter().enumerate() {
        g.add_output(&i.to_string(), result);
    }
    let device = Arc::new(simulated());
    let engine = GpuEngine::new(device.clone());
    let planned = plan(fuse(&g), engine.target());
    let mut state = engine.new_state(&[]).unwrap();
    let mut program = engine.compile(&planned, &state).unwrap();
    let values: Vec<f32> = (0..512 * 128).map(|i| ((i * 7919) % 1009) as f32 / 1009.0).collect();
    let inputs = planned.graph.inputs().map(|(name, v)| (name, planned.graph.shape(v).count()));
    let inputs: Vec<_> = inputs.map(|(name, n)| (name, HostSlice::F32(&values[..n]))).collect();
    program.run(&mut state, &inputs).unwrap();
    let launches = device.take_launches();
    for name in [
        "columns_sum",
        "rows_max",
        "softmax",
        "statistics",
        "batch_norm",
        "pair_sums",
        "batch_norm_grad",
        "layer_norm",
        "layer_norm_grad",
    ] {
        let found: Vec<_> = launches.iter().filter(|(entry, _)| entry == name).collect();
        // The mean and the variance are one launch.
        assert_eq!(found.len(), if name == "pair_sums" { 2 } else { 1 }, "{name}");
        for (_, counts) in found {
            // A thread takes as many f32 factors of columns as it has neighbours in rows of bf16:
            // two accesses to a sector.
            let by_column = matches!(name, "batch_norm_grad" | "pair_sums");
            let twice = if by_column && dtype == DType::Bf16 { 2.0 } else { 1.0 };
            let wanted = |bytes: u64| twice * 1.05 * bytes as f64 / 32.0;
            assert!(counts.sectors_loaded as f64 <= wanted(counts.bytes_loaded), "{name}: {counts:?}");
            // A number for a row, or a column's result, has a sector of its own.
            let alone = 2.0 * 512.0;
            let most = wanted(counts.bytes_stored) + alone;
            assert!(counts.sectors_stored as f64 <= most, "{name}: {counts:?}");
        }
    }
}

fn main() -> ExitCode {
    let tests: [(&str, fn()); 4] = [
        ("casts_are_one_launch", casts_are_one_launch),
        ("what_is_not_declared_is_found", what_is_not_declared_is_found),
        ("whole_sectors::f32", || rows_and_columns_ask_for_whole_sectors(DType::F32)),
        ("whole_sectors::bf16", || rows_and_columns_ask_for_whole_sectors(DType::Bf16)),
    ];
    let boxed = |(name, test): (&str, fn())| (name.to_string(), Box::new(test) as Box<dyn FnOnce() + Send>);
    common::run(tests.into_iter().map(boxed).collect())
}
