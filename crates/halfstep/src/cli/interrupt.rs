//! Ctrl-C, and the signals by which schedulers and terminals end a program: the first asks to stop
//! at the next good place, the second stops at once.

use std::sync::atomic::{AtomicBool, Ordering};

use super::failure::INTERRUPTED;
use super::output;

static ASKED: AtomicBool = AtomicBool::new(false);
/// Whether the terminal shows something else than lines.
static QUIET: AtomicBool = AtomicBool::new(false);

/// What is said of a training that is asked to stop.
pub const TRAINING: &str = "Stopping after this step; what was trained so far will be written.";

/// Begins to listen; `stopping` is said when a stop is asked for: after what, and what is kept.
/// Where the system does not let us, the signals end the program as ever.
pub fn listen(stopping: &'static str) {
    let _ = ctrlc::set_handler(move || {
        if ASKED.swap(true, Ordering::SeqCst) {
            std::process::exit(i32::from(INTERRUPTED));
        }
        if !QUIET.load(Ordering::SeqCst) {
            output::message(&format!("\n{stopping} A second signal stops at once."));
        }
    });
}

/// Asks to stop, as the signals do. True if that was asked before.
#[cfg(feature = "tui")]
pub fn ask() -> bool {
    ASKED.swap(true, Ordering::SeqCst)
}

/// Whether to say nothing of signals, because a dashboard has the terminal.
#[cfg(feature = "tui")]
pub fn quiet(quiet: bool) {
    QUIET.store(quiet, Ordering::SeqCst);
}

/// Whether we were asked to stop.
pub fn asked() -> bool {
    ASKED.load(Ordering::SeqCst)
}
