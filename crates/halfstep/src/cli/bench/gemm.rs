//! `halfstep bench gemm`: C = A·B with operands stored in the precision and C in f32.

use std::num::NonZeroUsize;
use std::process::ExitCode;

use halfstep::cpu::gemm::{
    Activation, Compute, Ctx, Data, DataMut, Existing, GemmArgs, Layout, Operand, Output, Scratch, gemm,
};
use halfstep::cpu::isa::Isa;
use halfstep::cpu::pool::Pool;
use halfstep::evidence::units;
use halfstep::float::{Philox, bf16_from_f32, f16_from_f32, unit_f32};
use halfstep::graph::Split;
use serde::Serialize;

use super::super::args::{BenchGemm, Precision};
use super::super::failure::Failure;
use super::super::{machine, output};
use super::{check_seconds, median_and_min, times};

/// What `--json` prints.
#[derive(Serialize)]
struct Printed {
    program: String,
    instruction_set: &'static str,
    m: usize,
    n: usize,
    k: usize,
    precision: &'static str,
    threads: usize,
    seconds: f64,
    /// 2·m·n·k operations over the median time, in 10^9 per second.
    gflops: f64,
    best_gflops: f64,
    median_ms: f64,
    min_ms: f64,
    runs: usize,
}

/// Elements in storage form.
enum Stored {
    F32(Vec<f32>),
    Bf16(Vec<u16>),
    F16(Vec<u16>),
}

impl Stored {
    /// Uniform between −1 and 1.
    fn random(precision: Precision, count: usize, stream: u64) -> Stored {
        let random = Philox::new(0);
        let values = (0..count).map(|i| 2.0 * unit_f32(random.word(stream, i as u64)) - 1.0);
        match precision {
            Precision::Fp32 | Precision::Bf16x3 | Precision::Bf16x6 => Stored::F32(values.collect()),
            Precision::Bf16 => Stored::Bf16(values.map(bf16_from_f32).collect()),
            Precision::Fp16 => Stored::F16(values.map(f16_from_f32).collect()),
        }
    }

    fn data(&self) -> Data<'_> {
        match self {
            Stored::F32(x) => Data::F32(x),
            Stored::Bf16(x) => Data::Bf16(x),
            Stored::F16(x) => Data::F16(x),
        }
    }
}

/// Runs the command.
pub fn run(args: BenchGemm, threads: Option<NonZeroUsize>) -> Result<ExitCode, Failure> {
    let (m, n, k) = (args.m.get(), args.n.get(), args.k.get());
    check_seconds(args.seconds)?;
    let too_large =
        || Failure::asked(format!("{m} × {n} × {k} is more than memory can hold"), "give smaller sizes");
    let elements = |a: usize, b: usize| a.checked_mul(b).filter(|&e| e < 1 << 40).ok_or_else(too_large);
    let (a_count, b_count, c_count) = (elements(m, k)?, elements(k, n)?, elements(m, n)?);
    let operand_bytes = match args.precision {
        Precision::Bf16 | Precision::Fp16 => 2,
        Precision::Fp32 | Precision::Bf16x3 | Precision::Bf16x6 => 4,
    };
    machine::check_memory("this product", (a_count + b_count) * operand_bytes + c_count * 4)?;
    let threads = halfstep::threads_or_all(threads);
    let isa = Isa::from_env()?;
    let pool = Pool::new(threads);
    let mut scratch = Scratch::new();
    let compute = match args.precision {
        Precision::Fp32 => Compute::F32,
        Precision::Bf16 => Compute::Bf16,
        Precision::Fp16 => Compute::F16,
        Precision::Bf16x3 => Compute::Split(Split::Bf16x3),
        Precision::Bf16x6 => Compute::Split(Split::Bf16x6),
    };
    let (a, b) = (Stored::random(args.precision, a_count, 1), Stored::random(args.precision, b_count, 2));
    let mut c = vec![0.0f32; c_count];
    let once = || {
        let args = GemmArgs {
            batch: [1, 1],
            a: Operand { data: a.data(), layout: Layout::row_major(m, k) },
            b: Operand { data: b.data(), layout: Layout::row_major(k, n) },
            c: Output { data: DataMut::F32(&mut c), layout: Layout::row_major(m, n) },
            compute,
            existing: Existing::Overwrite,
            bias: None,
            activation: Activation::Identity,
        };
        gemm(&mut Ctx { isa, pool: &pool, scratch: &mut scratch }, args)
            .map_err(|e| Failure::failed(e.to_string()))
    };
    let mut times = times(args.seconds, once)?;
    let runs = times.len();
    let (median_ms, min_ms) = median_and_min(&mut times);
    let gflops = |ms: f64| 2.0 * m as f64 * n as f64 * k as f64 / ms / 1e6;
    let printed = Printed {
        program: format!("halfstep {}", env!("CARGO_PKG_VERSION")),
        instruction_set: isa.level().name(),
        m,
        n,
        k,
        precision: args.precision.name(),
        threads: threads.get(),
        seconds: args.seconds,
        gflops: gflops(median_ms),
        best_gflops: gflops(min_ms),
        median_ms,
        min_ms,
        runs,
    };
    if args.json {
        output::json(&printed)?;
        return Ok(ExitCode::SUCCESS);
    }
    output::raw(&output::fields(&[
        ("product", format!("{m} × {n} × {k}, {}", printed.precision)),
        ("on this CPU", format!("{}, threads: {}", printed.instruction_set, printed.threads)),
        ("speed", format!("{:.0} GFLOP/s median, {:.0} best", printed.gflops, printed.best_gflops)),
        (
            "time",
            format!(
                "{} median, {} least, over {runs} runs",
                units::milliseconds(median_ms),
                units::milliseconds(min_ms)
            ),
        ),
    ]));
    Ok(ExitCode::SUCCESS)
}
