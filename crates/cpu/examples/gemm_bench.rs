//! Times one matrix product: `gemm_bench M N K LAYOUT FORMAT THREADS SECONDS` with LAYOUT nn, nt or tn.

use std::num::NonZeroUsize;
use std::time::Instant;

use halfstep_cpu::gemm::*;
use halfstep_cpu::isa::Isa;
use halfstep_cpu::pool::Pool;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize| args[i].parse::<usize>();
    let (m, n, k) = (number(0)?, number(1)?, number(2)?);
    let (layout, format, threads) = (args[3].as_str(), args[4].as_str(), number(5)?);
    let seconds: f64 = args[6].parse()?;
    let isa = Isa::from_env()?;
    let pool = Pool::new(NonZeroUsize::new(threads).ok_or("no threads")?);
    let mut scratch = Scratch::new();
    let values =
        |n: usize| -> Vec<f32> { (0..n).map(|i| ((i * 7919) % 1000) as f32 / 500.0 - 1.0).collect() };
    let (af, bf) = (values(m * k), values(k * n));
    let code: fn(&f32) -> u16 = match format {
        "f16" => |x| halfstep_float::f16_from_f32(*x),
        _ => |x| halfstep_float::bf16_from_f32(*x),
    };
    let (ah, bh): (Vec<u16>, Vec<u16>) = (af.iter().map(code).collect(), bf.iter().map(code).collect());
    let mut cf = vec![0f32; m * n];
    let mut ch = vec![0u16; m * n];
    let la = if layout == "tn" { Layout::row_major(k, m).transposed() } else { Layout::row_major(m, k) };
    let lb = if layout == "nt" { Layout::row_major(n, k).transposed() } else { Layout::row_major(k, n) };
    let (mut best, mut total, mut runs) = (f64::MAX, 0.0, 0);
    while total < seconds {
        let (a, b, c, compute) = match format {
            "f32" => (Data::F32(&af), Data::F32(&bf), DataMut::F32(&mut cf), Compute::F32),
            "bf16" => (Data::Bf16(&ah), Data::Bf16(&bh), DataMut::Bf16(&mut ch), Compute::Bf16),
            _ => (Data::F16(&ah), Data::F16(&bh), DataMut::F16(&mut ch), Compute::F16),
        };
        let args = GemmArgs {
            batch: [1, 1],
            a: Operand { data: a, layout: la },
            b: Operand { data: b, layout: lb },
            c: Output { data: c, layout: Layout::row_major(m, n) },
            compute,
            existing: Existing::Overwrite,
            bias: None,
            activation: Activation::Identity,
        };
        let begin = Instant::now();
        gemm(&mut Ctx { isa, pool: &pool, scratch: &mut scratch }, args)?;
        let t = begin.elapsed().as_secs_f64();
        best = best.min(t);
        total += t;
        runs += 1;
    }
    let flops = 2.0 * m as f64 * n as f64 * k as f64;
    println!(
        "{isa} {m}x{n}x{k} {layout} {format} t{threads}: best {:.1} mean {:.1} GFLOP/s",
        flops / best / 1e9,
        flops * runs as f64 / total / 1e9
    );
    Ok(())
}
