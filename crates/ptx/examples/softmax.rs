//! A kernel under eight schedules: does it have a fault, and does it always give the same bits?
//!
//! `cargo run -p halfstep-ptx --example softmax`. Give it another PTX of `tests/kernels`, such as
//! `softmax.no_barrier`, to see a fault.

use std::io::Write;
use std::process::ExitCode;

use halfstep_ptx::formats::{Conversion, Format, Rounding};
use halfstep_ptx::{Argument, Arrival, Launch, Module, Options, Simulator};

const ROWS: usize = 4;
const COLUMNS: usize = 300;

#[expect(clippy::disallowed_methods, reason = "an example prints")]
fn main() -> ExitCode {
    let (text, code) = match run() {
        Ok(text) => (text, ExitCode::SUCCESS),
        Err(error) => (format!("fault: {error}\n"), ExitCode::FAILURE),
    };
    let _ = std::io::stdout().write_all(text.as_bytes());
    code
}

fn run() -> Result<String, Box<dyn std::error::Error>> {
    let name = std::env::args().nth(1).unwrap_or("softmax".to_string());
    let path = format!("{}/tests/kernels/{name}.ptx", env!("CARGO_MANIFEST_DIR"));
    let module = Module::load(&std::fs::read_to_string(path)?)?;
    let nearest = Conversion::rounded(Rounding::NearestEven);
    let value = |at: usize| Format::Bf16.encode((at as f64 * 0.37).sin() * 5.0, nearest) as u16;
    let x: Vec<u8> = (0..ROWS * COLUMNS).flat_map(|at| value(at).to_le_bytes()).collect();

    let mut results = Vec::new();
    for seed in 0..4 {
        for arrival in [Arrival::Early, Arrival::Late] {
            let options = Options { seed: Some(seed), arrival, ..Options::default() };
            let mut gpu = Simulator::new(options);
            let (from, to) = (gpu.allocate_from(&x)?, gpu.allocate(ROWS * COLUMNS * 4)?);
            // The kernel may read the one and write the other, and nothing else.
            let launch = Launch::new("softmax", [ROWS as u32, 1, 1], [128, 1, 1])
                .input(from)
                .output(to)
                .argument(Argument::I32(COLUMNS as i32));
            let counts = gpu.launch(&module, &launch)?;
            results.push((gpu.bytes(to)?, counts));
        }
    }
    let (first, counts) = &results[0];
    let same = results.iter().all(|(bytes, _)| bytes == first);
    let sum: f32 =
        first.chunks_exact(4).take(COLUMNS).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).sum();
    Ok(format!("no fault; the same bits: {same}; the first row adds up to {sum}\n{counts}\n"))
}
