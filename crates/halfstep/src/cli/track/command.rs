//! `halfstep track`: sends to trackers what they have not received of a run.

use std::process::ExitCode;

use crate::cli::args::TrackRun;
use crate::cli::failure::Failure;

/// Runs the command.
#[cfg(not(any(feature = "mlflow", feature = "otel")))]
pub fn run(_: TrackRun) -> Result<ExitCode, Failure> {
    let message = "this build of halfstep has no support for servers";
    Err(Failure::asked(message, "build it with --features mlflow,otel"))
}

/// Runs the command.
#[cfg(any(feature = "mlflow", feature = "otel"))]
pub fn run(args: TrackRun) -> Result<ExitCode, Failure> {
    use super::{Trackers, exports};
    use crate::cli::failure::FAILED;
    use crate::cli::output;
    use halfstep::train::recipe::Recipe;
    use halfstep::train::run_dir::{self, RunDir};
    use halfstep_track::exporter::{Ending, deliver};

    // Locked: a run that is under way sends for itself.
    let dir = RunDir::resume(&args.run)?;
    let recipe = Recipe::read(&dir.file(run_dir::RECIPE))?;
    let trackers = Trackers::of(&args.track, &recipe.track)?.of_run(&dir);
    let log_exports = exports::log_exports(&dir, &trackers, &recipe.name);
    if log_exports.is_empty() {
        let message = format!("{}: the run has no trackers", args.run.display());
        return Err(Failure::asked(message, "name one, such as --mlflow http://127.0.0.1:5000"));
    }
    let written = std::fs::metadata(dir.file(run_dir::METRICS)).and_then(|m| m.modified()).ok();
    let written = written.and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
    // Of a run that was killed there is only its log.
    let ended = (Ending::Stopped, written.map_or_else(halfstep_track::now, |t| t.as_secs_f64()));
    let mut complete = true;
    let mut printed = Vec::new();
    for export in log_exports {
        let delivered = deliver(&export.log, export.service, export.notes, ended, export.keep);
        complete &= delivered.complete();
        if !args.json {
            output::line(&super::delivery_message(export.name, &delivered, &args.run));
        }
        printed.push(serde_json::json!({
            "tracker": export.name,
            "url": delivered.url,
            "lines": delivered.lines,
            "missing": delivered.missing,
            "complete": delivered.complete(),
            "trouble": delivered.trouble.map(|e| e.to_string()),
        }));
    }
    if args.json {
        output::json(&printed)?;
    }
    Ok(if complete { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}
