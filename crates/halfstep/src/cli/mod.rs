//! The command line.

mod args;
mod bench;
mod cache;
#[cfg(feature = "serve")]
mod card;
mod compare;
#[cfg(feature = "serve")]
mod compared;
mod doctor;
mod duration;
mod eval;
mod explain;
#[cfg(feature = "onnx")]
mod export;
mod failure;
mod generate;
mod gpus;
mod import;
mod info;
mod interrupt;
#[cfg(feature = "serve")]
mod key;
mod lint;
mod machine;
mod memory;
mod moved;
mod new;
mod new_run;
mod numbers;
mod numerics;
mod open;
mod output;
mod pass;
mod plan;
mod predict;
mod prepare;
mod progress;
mod ranks;
#[cfg(feature = "serve")]
mod registry;
mod report;
#[cfg(feature = "serve")]
mod serve;
mod share;
#[cfg(feature = "serve")]
mod sign;
#[cfg(feature = "serve")]
mod signed_pair;
mod stdio;
mod stress;
#[cfg(test)]
mod test_engine;
mod track;
mod train;
#[cfg(feature = "serve")]
mod trust;
#[cfg(feature = "tui")]
mod tui;
mod tune;
mod verdict;
#[cfg(feature = "serve")]
mod verify;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use args::{Args, Bench, Command};
use failure::Failure;
use halfstep::{DeviceRequest, EngineRequest, Taken};

/// More threads than any processor has cores, and fewer than a system refuses.
const MOST_THREADS: usize = 1024;

/// Runs the program with the arguments it was given.
pub fn main() -> ExitCode {
    let args = match parsed() {
        Ok(args) => args,
        Err(e) => return unreadable(&e),
    };
    // The codes 1 and 2 are verdicts there.
    let gate = matches!(args.command, Command::Verdict(_) | Command::Compare(_));
    match run(args) {
        Ok(code) => {
            ranks::leave(None);
            stdio::exit_code(code, if gate { verdict::NO_VERDICT } else { failure::FAILED })
        }
        Err(failure) => {
            let failure = if gate { failure.with_code(verdict::NO_VERDICT) } else { failure };
            let code = failure.code();
            let exit = failure.show();
            ranks::leave(Some(code.into()));
            exit
        }
    }
}

/// The arguments. A negative number behind an option is its value, not another option.
fn parsed() -> Result<Args, clap::Error> {
    fn with_negative_numbers(command: clap::Command) -> clap::Command {
        let option = |arg: &clap::Arg| arg.get_action().takes_values() && !arg.is_positional();
        let numbers = |arg: clap::Arg| if option(&arg) { arg.allow_negative_numbers(true) } else { arg };
        command.mut_args(numbers).mut_subcommands(with_negative_numbers)
    }
    let matches = with_negative_numbers(Args::command()).try_get_matches()?;
    Args::from_arg_matches(&matches)
}

/// Arguments that clap cannot read, or a question for help.
fn unreadable(error: &clap::Error) -> ExitCode {
    let text = error.render();
    let gate = std::env::args_os().any(|a| a == "verdict" || a == "compare");
    let wrong = ExitCode::from(if gate { verdict::NO_VERDICT } else { failure::ASKED });
    match error.use_stderr() {
        true => {
            let colours = stdio::colours_on_stderr();
            stdio::err(&if colours { text.ansi().to_string() } else { text.to_string() });
            wrong
        }
        false => {
            let colours = stdio::colours_on_stdout();
            stdio::out(&if colours { text.ansi().to_string() } else { text.to_string() });
            stdio::exit_code(ExitCode::SUCCESS, if gate { verdict::NO_VERDICT } else { failure::FAILED })
        }
    }
}

fn run(args: Args) -> Result<ExitCode, Failure> {
    let compiling = Some(gpus::compiling as fn(_));
    let request = EngineRequest {
        device: args.device,
        threads: args.threads,
        device_memory: args.device_memory,
        compiling,
    };
    if let (Some(_), DeviceRequest::Cpu | DeviceRequest::Planned(_)) = (args.device_memory, args.device) {
        return Err(Failure::asked(
            format!("--device-memory limits what is taken of a GPU, and --device is {}", args.device),
            "leave it out; `memory_budget` in [train] of a recipe limits what a step holds on any device",
        ));
    }
    if let Some(n) = args.threads.filter(|n| n.get() > MOST_THREADS) {
        return Err(Failure::asked(
            format!("{n} threads are too many"),
            format!("give at most {MOST_THREADS}"),
        ));
    }
    let taken = taken(&args.command, request);
    let request = taken.request;
    match args.command {
        Command::Compare(args) => compare::run(args, request),
        Command::Cache(args) => cache::run(args),
        Command::Train(args) => train::run(args, request),
        Command::Import(args) => import::run(args, request),
        Command::Track(args) => track::run(args),
        Command::Eval(args) => eval::run(args, request),
        Command::Predict(args) => predict::run(args, request),
        Command::Generate(args) => generate::run(args, request),
        #[cfg(feature = "onnx")]
        Command::Export(args) => export::run(args, request),
        Command::Explain(args) => explain::run(args, request),
        Command::Plan(args) => plan::run(args, request),
        Command::Doctor(args) => doctor::run(args, request),
        Command::Lint(args) => lint::run(args),
        Command::Info(args) => info::run(args, request),
        Command::New(args) => new::run(args),
        Command::Numbers(args) => numbers::run(args),
        Command::Stress(args) => stress::run(args, request),
        Command::Verdict(args) => verdict::run(args, request.threads()),
        Command::Tune(args) => tune::run(args, request),
        #[cfg(feature = "serve")]
        Command::Card(args) => card::run(args),
        #[cfg(feature = "serve")]
        Command::Key(args::Key::New(args)) => key::new(args),
        #[cfg(feature = "serve")]
        Command::Key(args::Key::Api(args)) => key::api(args),
        #[cfg(feature = "serve")]
        Command::Sign(args) => sign::run(args, request.threads()),
        #[cfg(feature = "serve")]
        Command::Registry(args) => registry::run(args),
        #[cfg(feature = "serve")]
        Command::Verify(args) => verify::run(args),
        #[cfg(feature = "serve")]
        Command::Serve(args) => serve::run(args, request),
        Command::Bench(Bench::Step(args)) => bench::step::run(args, request),
        Command::Bench(Bench::Gemm(args)) => bench::gemm::run(args, request),
        Command::Bench(Bench::Suite(args)) => bench::suite::run(args, request),
    }
}

/// The request with a device in place of `auto`. What that is and why is said once, before what
/// takes long.
fn taken(command: &Command, request: EngineRequest) -> Taken {
    match command {
        // Weights are read and written: not worth compiling kernels for.
        Command::Import(_) => request.cpu_by_default().into(),
        #[cfg(feature = "onnx")]
        Command::Export(_) => request.cpu_by_default().into(),
        // A step is shared on CPUs alone, and all ranks of a machine would take the same GPU.
        _ if ranks::in_job() => request.cpu_by_default().into(),
        Command::Compare(_)
        | Command::Eval(_)
        | Command::Predict(_)
        | Command::Generate(_)
        | Command::Doctor(_)
        | Command::Stress(_)
        | Command::Tune(_)
        | Command::Bench(Bench::Step(_) | Bench::Suite(_)) => {
            let taken = request.taken();
            gpus::say(&taken);
            taken
        }
        #[cfg(feature = "serve")]
        Command::Serve(_) => {
            let taken = request.taken();
            gpus::say(&taken);
            taken
        }
        // What is trained decides it, what is printed names it, or there is none.
        _ => request.into(),
    }
}
