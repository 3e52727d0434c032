//! The program `halfstep`.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
