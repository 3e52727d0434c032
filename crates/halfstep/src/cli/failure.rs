//! How the program ends when something is wrong.

use std::path::Path;
use std::process::ExitCode;

use halfstep::DeviceError;
use halfstep::cpu::isa::IsaError;
use halfstep::data::{DataError, nearest, printable, readable};
use halfstep::evidence::report::ReportError;
use halfstep::gpu::find::NVRTC_VARIABLE;
use halfstep::gpu::survey::{DRIVER_VARIABLE, DriverError};
use halfstep::graph::communicator::CommunicatorError;
use halfstep::graph::engine_info::UnsupportedPolicy;
use halfstep::graph::precision::PolicyError;
use halfstep::train::checkpoint::CheckpointError;
use halfstep::train::recipe::RecipeError;
use halfstep::train::run_dir::RunDirError;
use halfstep::train::session::TrainError;
use halfstep::train::train_loop::RunError;
use miette::{GraphicalReportHandler, GraphicalTheme, Report};

use super::stdio;

/// Something is wrong with what was asked: recipe, data, arguments. As clap's own errors.
pub const ASKED: u8 = 2;
/// Something failed on the way.
pub const FAILED: u8 = 1;
/// Ended by Ctrl-C or a polite signal, as shells number it.
pub const INTERRUPTED: u8 = 130;
/// The time given was not enough; `sysexits.h` calls it "try again".
pub const OUT_OF_TIME: u8 = 75;

/// An error on its way to the user.
#[derive(Debug)]
pub struct Failure {
    report: Report,
    code: u8,
    /// Whether a file of a run could not be written.
    unwritten: bool,
}

/// Most characters of a line and most lines of all that is printed: a recipe's line is shown too.
const LONGEST_LINE: usize = 400;
const MOST_LINES: usize = 100;

/// A report of which lines that are too long, and lines that are too many, are left out.
fn cut(report: &str) -> String {
    let line = |line: &str| match line.char_indices().nth(LONGEST_LINE) {
        Some((at, _)) => format!("{} … and {} more characters\n", &line[..at], line[at..].chars().count()),
        None => format!("{line}\n"),
    };
    let mut shown: String = report.lines().take(MOST_LINES).map(line).collect();
    let more = report.lines().count().saturating_sub(MOST_LINES);
    if more > 0 {
        shown += &format!("  … and {more} more lines\n");
    }
    shown
}

impl Failure {
    fn new(message: &str, help: &str, code: u8) -> Failure {
        let mut diagnostic = miette::MietteDiagnostic::new(readable(message));
        diagnostic.help = Some(readable(help)).filter(|h| !h.is_empty());
        Failure { report: Report::new(diagnostic), code, unwritten: false }
    }

    /// A wrong argument.
    pub fn asked(message: impl AsRef<str>, help: impl AsRef<str>) -> Failure {
        Failure::new(message.as_ref(), help.as_ref(), ASKED)
    }

    /// A file that was named and cannot be used.
    pub fn of_file(path: &Path, reason: &dyn std::fmt::Display) -> Failure {
        Failure::asked(format!("{}: {reason}", path.display()), "")
    }

    /// Something that failed on the way.
    pub fn failed(message: impl AsRef<str>) -> Failure {
        Failure::new(message.as_ref(), "", FAILED)
    }

    /// A name that is none of `names`; the help shows the nearest of them, and all.
    pub fn unknown(message: impl AsRef<str>, name: &str, names: &[&str]) -> Failure {
        let near = nearest(name, names.iter().copied());
        let near = near.map(|n| format!("did you mean `{n}`? ")).unwrap_or_default();
        Failure::asked(message, format!("{near}There are {}.", names.join(", ")))
    }

    /// The same, ending with another exit code.
    pub fn with_code(self, code: u8) -> Failure {
        Failure { code, ..self }
    }

    /// The same, with what to do.
    pub fn with_help(self, help: &str) -> Failure {
        Failure { unwritten: self.unwritten, ..Failure::new(&self.report.to_string(), help, self.code) }
    }

    /// The message and the help, as text.
    #[cfg(test)]
    pub fn to_text(&self) -> String {
        let help = self.report.help().map(|h| h.to_string()).unwrap_or_default();
        format!("{}\n{help}", self.report)
    }

    /// Whether a file of a run could not be written, which in another place might succeed.
    pub fn is_unwritten(&self) -> bool {
        self.unwritten
    }

    /// The message alone.
    pub fn message(&self) -> String {
        self.report.to_string()
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        self.code
    }

    /// Prints the error to stderr.
    pub fn show(self) -> ExitCode {
        let colour = stdio::colours_on_stderr();
        let theme = if colour { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler = GraphicalReportHandler::new_themed(theme).with_width(100).with_links(false);
        let mut text = String::new();
        if handler.render_report(&mut text, self.report.as_ref()).is_err() {
            text = format!("error: {}", self.report);
        }
        stdio::err(&cut(&text));
        ExitCode::from(self.code)
    }
}

impl From<RecipeError> for Failure {
    fn from(e: RecipeError) -> Failure {
        Failure { report: Report::new(e), code: ASKED, unwritten: false }
    }
}

macro_rules! failures {
    ($($error:ty => $code:expr),* $(,)?) => {
        $(impl From<$error> for Failure {
            fn from(e: $error) -> Failure {
                // Names in it are from files, and none of these messages has lines.
                Failure::new(&printable(&e.to_string()), "", $code)
            }
        })*
    };
}

failures! {
    IsaError => ASKED,
    PolicyError => ASKED,
    DataError => ASKED,
    ReportError => FAILED,
    CommunicatorError => FAILED,
    serde_json::Error => FAILED,
}

impl From<DeviceError> for Failure {
    fn from(e: DeviceError) -> Failure {
        Failure::new(&printable(&e.to_string()), &without_it(&e), ASKED)
    }
}

/// What to do where a GPU that is asked for cannot be used; nothing where it is another device that
/// is meant.
fn without_it(e: &DeviceError) -> String {
    let named = |variable: &str| match std::env::var_os(variable).is_some_and(|file| !file.is_empty()) {
        true => format!("{variable} names the library: without it the installed one is looked for. "),
        false => String::new(),
    };
    let first = match e {
        DeviceError::Driver(DriverError::Absent { .. }) => "install NVIDIA's driver to use a GPU. ".into(),
        DeviceError::Driver(_) => named(DRIVER_VARIABLE),
        DeviceError::Compiler(_) => named(NVRTC_VARIABLE),
        DeviceError::Choice(_) | DeviceError::Kernels(_) | DeviceError::Gpu { .. } | DeviceError::Code(_) => {
            String::new()
        }
        DeviceError::Unknown { .. }
        | DeviceError::OnlyPlanned(_)
        | DeviceError::Isa(_)
        | DeviceError::Ranks => return String::new(),
    };
    format!("{first}`halfstep info` shows what is found of GPUs; `--device cpu` computes without one")
}

impl From<RunDirError> for Failure {
    fn from(e: RunDirError) -> Failure {
        Failure { unwritten: matches!(e, RunDirError::Write { .. }), ..Failure::failed(e.to_string()) }
    }
}

impl From<CheckpointError> for Failure {
    fn from(e: CheckpointError) -> Failure {
        match e {
            CheckpointError::File(e) => e.into(),
            e => Failure::failed(e.to_string()),
        }
    }
}

impl From<UnsupportedPolicy> for Failure {
    fn from(e: UnsupportedPolicy) -> Failure {
        Failure::asked(e.to_string(), "take another precision, or another `--device`")
    }
}

impl From<TrainError> for Failure {
    fn from(e: TrainError) -> Failure {
        match e {
            TrainError::Unsupported(e) => e.into(),
            TrainError::Uneven { .. } => {
                Failure::asked(e.to_string(), "change `batch`, or the number of ranks")
            }
            TrainError::ScaleOfAPart { .. } => Failure::asked(e.to_string(), "take another `--precision`"),
            // Known before anything ran, and another number in the recipe avoids it.
            TrainError::Budget { .. } => {
                Failure::asked(e.to_string(), "`halfstep plan` shows where the bytes go")
            }
            e => Failure::failed(e.to_string()),
        }
    }
}

impl From<RunError> for Failure {
    fn from(e: RunError) -> Failure {
        match e {
            RunError::Train(e) => e.into(),
            RunError::RunDir(e) => e.into(),
            RunError::Checkpoint(e) => e.into(),
            e => Failure::failed(e.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_that_cannot_be_used_comes_with_what_to_do() {
        let absent = DriverError::Absent { reason: "no such file".into(), hint: "" };
        let said = Failure::from(DeviceError::Driver(absent)).to_text();
        assert!(said.contains("install NVIDIA's driver") && said.contains("`--device cpu`"), "{said}");
        let said = Failure::from(DeviceError::Ranks).to_text();
        assert!(!said.contains("`halfstep info`"), "{said}");
    }
}
