//! `halfstep bench gemm`: C = A·B with operands stored in the precision and C in f32.

use std::process::ExitCode;

use halfstep::cpu::isa::Isa;
use halfstep::cpu::{CpuEngine, ProductFormat, random_product};
use halfstep::graph::Split;
use halfstep::{DeviceRequest, EngineRequest};

use super::super::args::{BenchGemm, Precision};
use super::super::failure::Failure;
use super::super::output::value_name;
use super::super::{machine, output};
use super::{check_seconds, median_and_least, median_and_min, times};

/// Runs the command.
pub fn run(args: BenchGemm, request: EngineRequest) -> Result<ExitCode, Failure> {
    let (m, n, k) = (args.m.get(), args.n.get(), args.k.get());
    check_seconds(args.seconds)?;
    if matches!(request.device, DeviceRequest::Gpu(_) | DeviceRequest::Planned(_)) {
        return Err(Failure::asked(
            "`bench gemm` measures products of the CPU",
            "`bench step --device cuda --groups 10` shows those of a step on a GPU",
        ));
    }
    let too_large =
        || Failure::asked(format!("{m} × {n} × {k} is more than memory can hold"), "give smaller sizes");
    let elements = |a: usize, b: usize| a.checked_mul(b).filter(|&e| e < 1 << 40).ok_or_else(too_large);
    let (a_count, b_count, c_count) = (elements(m, k)?, elements(k, n)?, elements(m, n)?);
    let (format, operand_bytes) = match args.precision {
        Precision::Fp32 => (ProductFormat::F32, 4),
        Precision::Bf16 => (ProductFormat::Bf16, 2),
        Precision::Fp16 => (ProductFormat::F16, 2),
        Precision::Tf32 => (ProductFormat::Split(Split::Tf32), 4),
        Precision::Bf16x3 => (ProductFormat::Split(Split::Bf16x3), 4),
        Precision::Bf16x6 => (ProductFormat::Split(Split::Bf16x6), 4),
    };
    machine::check_memory("this product", (a_count + b_count) * operand_bytes + c_count * 4)?;
    let threads = request.threads();
    let isa = Isa::from_env()?;
    let mut product = random_product(isa, threads, format, [m, n, k]);
    let mut times = times(args.seconds, || {
        product();
        Ok(())
    })?;
    let runs = times.len();
    let (median_ms, min_ms) = median_and_min(&mut times);
    let gflops = |ms: f64| 2.0 * m as f64 * n as f64 * k as f64 / ms / 1e6;
    let precision = value_name(&args.precision);
    if args.json {
        output::json(&serde_json::json!({
            "program": format!("halfstep {}", env!("CARGO_PKG_VERSION")),
            "instruction_set": isa.level().name(),
            "m": m,
            "n": n,
            "k": k,
            "precision": precision,
            "threads": threads,
            "seconds": args.seconds,
            // 2·m·n·k operations over the median time, in 10^9 per second.
            "gflops": gflops(median_ms),
            "best_gflops": gflops(min_ms),
            "median_ms": median_ms,
            "min_ms": min_ms,
            "runs": runs,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let engine = format!("on this {}", CpuEngine::KIND);
    output::raw(&output::fields(&[
        ("product", format!("{m} × {n} × {k}, {precision}")),
        (&engine, format!("{}, threads: {threads}", isa.level().name())),
        ("speed", format!("{:.0} GFLOP/s median, {:.0} best", gflops(median_ms), gflops(min_ms))),
        ("time", format!("{}, over {runs} runs", median_and_least(median_ms, min_ms))),
    ]));
    Ok(ExitCode::SUCCESS)
}
