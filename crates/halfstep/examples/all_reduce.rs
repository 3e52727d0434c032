//! How long a sum over the ranks of an MPI job takes, by its size: what `docs/scale-out.md`
//! predicts from.
//!
//!     mpirun -n 2 target/release/examples/all_reduce

#![allow(clippy::print_stdout)] // a program of its own

use std::time::Instant;

use halfstep::graph::DType;
use halfstep::graph::communicator::Payload;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let ranks = halfstep::mpi::join()?;
    for (name, over) in [("f32", DType::F32), ("bf16", DType::Bf16)] {
        for count in [1usize, 64, 1 << 10, 1 << 14, 1 << 18, 1 << 20, 1 << 22] {
            let repeats = if count > 1 << 16 { 30 } else { 300 };
            let mut payload = Payload::zeros(over, count).ok_or("a format that does not travel")?;
            let mut times = Vec::new();
            for _ in 0..repeats {
                let begin = Instant::now();
                payload = ranks.start_sum(payload).wait()?;
                times.push(begin.elapsed().as_secs_f64() * 1e6);
            }
            times.sort_by(f64::total_cmp);
            if ranks.rank() == 0 {
                let (bytes, best, median) = (payload.bytes(), times[0], times[repeats / 2]);
                let rate = bytes as f64 / best / 1e3;
                println!(
                    "{name:<5} {bytes:>9} bytes   best {best:>9.1} µs   median {median:>9.1} µs   {rate:>6.2} GB/s"
                );
            }
        }
    }
    ranks.leave();
    Ok(())
}
