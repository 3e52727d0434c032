//! How the program ends when something is wrong.

use std::process::ExitCode;

use halfstep::DeviceError;
use halfstep::cpu::isa::IsaError;
use halfstep::data::{DataError, nearest};
use halfstep::evidence::report::ReportError;
use halfstep::graph::communicator::CommunicatorError;
use halfstep::graph::engine_info::UnsupportedPolicy;
use halfstep::graph::precision::PolicyError;
use halfstep::train::checkpoint::CheckpointError;
use halfstep::train::recipe::RecipeError;
use halfstep::train::run_dir::RunDirError;
use halfstep::train::session::TrainError;
use halfstep::train::train_loop::RunError;
use miette::{GraphicalReportHandler, GraphicalTheme, Report};

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
}

impl Failure {
    /// A wrong argument.
    pub fn asked(message: impl Into<String>, help: impl Into<String>) -> Failure {
        let help = Some(help.into()).filter(|h| !h.is_empty());
        let mut diagnostic = miette::MietteDiagnostic::new(message);
        diagnostic.help = help;
        Failure { report: Report::new(diagnostic), code: ASKED }
    }

    /// Something that failed on the way.
    pub fn failed(message: impl Into<String>) -> Failure {
        Failure { report: Report::new(miette::MietteDiagnostic::new(message)), code: FAILED }
    }

    /// A name that is none of `names`; the help shows the nearest of them, and all.
    pub fn unknown(message: impl Into<String>, name: &str, names: &[&str]) -> Failure {
        let near = nearest(name, names.iter().copied());
        let near = near.map(|n| format!("did you mean `{n}`? ")).unwrap_or_default();
        Failure::asked(message, format!("{near}There are {}.", names.join(", ")))
    }

    /// The same, ending with another exit code.
    pub fn with_code(self, code: u8) -> Failure {
        Failure { code, ..self }
    }

    /// The message and the help, as text.
    #[cfg(test)]
    pub fn to_text(&self) -> String {
        let help = self.report.help().map(|h| h.to_string()).unwrap_or_default();
        format!("{}\n{help}", self.report)
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        self.code
    }

    /// Prints the error to stderr.
    pub fn show(self) -> ExitCode {
        let colour = super::colour::on(&std::io::stderr());
        let theme = if colour { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler = GraphicalReportHandler::new_themed(theme).with_width(100).with_links(false);
        let mut text = String::new();
        if handler.render_report(&mut text, self.report.as_ref()).is_err() {
            text = format!("error: {}", self.report);
        }
        eprint!("{text}");
        ExitCode::from(self.code)
    }
}

impl From<RecipeError> for Failure {
    fn from(e: RecipeError) -> Failure {
        Failure { report: Report::new(e), code: ASKED }
    }
}

macro_rules! failures {
    ($($error:ty => $code:expr),* $(,)?) => {
        $(impl From<$error> for Failure {
            fn from(e: $error) -> Failure {
                Failure { report: Report::new(miette::MietteDiagnostic::new(e.to_string())), code: $code }
            }
        })*
    };
}

failures! {
    IsaError => ASKED,
    DeviceError => ASKED,
    PolicyError => ASKED,
    DataError => ASKED,
    CheckpointError => FAILED,
    ReportError => FAILED,
    RunDirError => FAILED,
    CommunicatorError => FAILED,
    serde_json::Error => FAILED,
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
            e => Failure::failed(e.to_string()),
        }
    }
}
