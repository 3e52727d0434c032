//! `halfstep-ptx`: runs a kernel on the simulated GPU, and says what is wrong with it.
//!
//! Exit codes: 0 if no schedule found a fault and all gave the same bits, 1 if one did, 2 for what
//! could not be run.
#![forbid(unsafe_code)]

mod data;
mod launch_file;
mod report;
mod run;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

/// Runs and checks CUDA kernels from their PTX, on a simulated GPU.
#[derive(Debug, Parser)]
#[command(name = "halfstep-ptx", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Launch a kernel under several schedules and report faults and counters.
    Run(RunArguments),
}

#[derive(Debug, clap::Args)]
struct RunArguments {
    /// PTX, as NVRTC or `nvcc --ptx` makes it.
    kernel: PathBuf,
    /// What to launch: TOML, or JSON by its ending.
    #[arg(long, value_name = "FILE")]
    launch: PathBuf,
    /// Orders of warps and blocks to try, drawn from the seeds 0, 1 and on.
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// When asynchronous copies arrive.
    #[arg(long, value_enum, default_value_t = Delivery::Both)]
    delivery: Delivery,
    /// How Tensor Cores add.
    #[arg(long, value_enum, default_value_t = Sums::Exact)]
    summation: Sums,
    /// Warp instructions after which a launch is given up, and counts as one that does not end.
    #[arg(long, default_value_t = 1 << 36, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Delivery {
    /// At once.
    Early,
    /// As late as the program permits.
    Late,
    /// One schedule of each, for every seed.
    Both,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Sums {
    /// The exact sum, rounded once.
    Exact,
    /// Aligned and truncated, as measured on the architecture.
    Truncated,
}

/// Why nothing was run, or what could not be written.
#[derive(Debug, thiserror::Error)]
enum RunnerError {
    #[error("{}: {problem}", path.display())]
    File { path: PathBuf, problem: String },
    #[error("{0}")]
    Launch(String),
}

impl RunnerError {
    fn file(path: &Path, problem: impl ToString) -> RunnerError {
        RunnerError::File { path: path.to_path_buf(), problem: problem.to_string() }
    }
}

fn main() -> ExitCode {
    // clap prints usage errors itself and ends with 2.
    let Command::Run(arguments) = Arguments::parse().command;
    match run::run(&arguments) {
        Ok((report, written)) => {
            let text = if arguments.json { report.json() } else { report.text() };
            print(&text);
            match written {
                Ok(()) => ExitCode::from(u8::from(!report.clean())),
                Err(error) => {
                    complain(&format!("error: {error}\n"));
                    ExitCode::from(2)
                }
            }
        }
        Err(error) => {
            complain(&format!("error: {error}\n"));
            ExitCode::from(2)
        }
    }
}

/// A reader that has gone away, or a full disk, changes nothing about the kernel.
#[expect(clippy::disallowed_methods, reason = "what cannot be written ends nothing")]
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// As `print`, for errors.
#[expect(clippy::disallowed_methods, reason = "what cannot be written ends nothing")]
fn complain(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}
